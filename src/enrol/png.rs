//! A picture of two colours as PNG (RFC 2083), uncompressed: it may hold a private key, and nothing of it is left behind.

use zeroize::Zeroizing;

/// A greyscale picture of one bit for each point; `is_dark` says of column and row whether it is black.
pub(super) fn encode(side: u32, is_dark: impl Fn(u32, u32) -> bool) -> Zeroizing<Vec<u8>> {
    let raw = rows(side, is_dark);
    let mut bytes = Zeroizing::new(Vec::with_capacity(raw.len() + raw.len() / 1024 + 256));
    bytes.extend_from_slice(b"\x89PNG\r\n\x1a\n");
    // Section 4.1.1: width, height, bits for each point, greyscale, and the only methods that there are.
    let [side, header] = [side.to_be_bytes(), [1, 0, 0, 0]];
    chunk(&mut bytes, b"IHDR", &[&side, &side, &header, &[0]]);
    let data = stored(&raw);
    chunk(&mut bytes, b"IDAT", &[&data]);
    chunk(&mut bytes, b"IEND", &[]);
    bytes
}

/// Each row begins with its filter, none (section 6.2); a set bit is white.
fn rows(side: u32, is_dark: impl Fn(u32, u32) -> bool) -> Zeroizing<Vec<u8>> {
    let long = usize::try_from(side).unwrap_or(0);
    let mut raw = Zeroizing::new(Vec::with_capacity(long * (long / 8 + 2)));
    for row in 0..side {
        raw.push(0);
        for first in (0..side).step_by(8) {
            let light = |bit: u32| first + bit < side && !is_dark(first + bit, row);
            raw.push((0..8).fold(0, |byte, bit| (byte << 1) | u8::from(light(bit))));
        }
    }
    raw
}

/// RFC 1950 around RFC 1951, section 3.2.4: blocks that are stored as they are.
fn stored(raw: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(raw.len() + raw.len() / 8192 + 64));
    bytes.extend_from_slice(&[0x78, 0x01]);
    let mut blocks = raw.chunks(usize::from(u16::MAX)).peekable();
    while let Some(block) = blocks.next() {
        let length = u16::try_from(block.len()).unwrap_or(u16::MAX);
        bytes.push(u8::from(blocks.peek().is_none()));
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&(!length).to_le_bytes());
        bytes.extend_from_slice(block);
    }
    bytes.extend_from_slice(&adler32(raw).to_be_bytes());
    bytes
}

/// Section 3.2: length, type, data, and the check sum of the two.
fn chunk(to: &mut Vec<u8>, kind: &[u8; 4], parts: &[&[u8]]) {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    to.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    let all = || kind.iter().chain(parts.iter().copied().flatten());
    to.extend(all());
    to.extend_from_slice(&crc32(all()).to_be_bytes());
}

/// Section 3.4, bit by bit.
fn crc32<'a>(bytes: impl Iterator<Item = &'a u8>) -> u32 {
    !bytes.fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    })
}

/// RFC 1950, section 8.2.
fn adler32(bytes: &[u8]) -> u32 {
    let (a, b) = bytes.iter().fold((1, 0), |(a, b), byte| {
        let a = (a + u32::from(*byte)) % 65_521;
        (a, (b + a) % 65_521)
    });
    (b << 16) | a
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_sums_are_those_of_other_programs() {
        // python3 -c 'import zlib; print(hex(zlib.crc32(b"123456789")), hex(zlib.adler32(b"123456789")))'
        assert_eq!((crc32(b"123456789".iter()), adler32(b"123456789")), (0xcbf4_3926, 0x091e_01de));
    }

    #[test]
    fn another_decoder_sees_the_same_points() {
        for side in [1, 7, 8, 200, 1480] {
            let is_dark = |column: u32, row: u32| (column * 7 + row * row) % 5 < 2;
            let bytes = encode(side, is_dark);
            let mut reader = ::png::Decoder::new(std::io::Cursor::new(&**bytes)).read_info().unwrap();
            let mut points = vec![0; reader.output_buffer_size().unwrap()];
            let info = reader.next_frame(&mut points).unwrap();
            assert_eq!((info.width, info.height), (side, side));
            let wide = points.len() / usize::try_from(side).unwrap();
            for (row, line) in (0..).zip(points.chunks(wide)) {
                for column in 0..side {
                    let byte = line[usize::try_from(column / 8).unwrap()];
                    assert_eq!(
                        byte >> (7 - column % 8) & 1 == 0,
                        is_dark(column, row),
                        "{side} {column} {row}"
                    );
                }
            }
        }
    }
}
