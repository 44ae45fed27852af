//! AES-256 in counter mode (NIST SP 800-38A, section 6.5), for what is authenticated by other means.

use aes_gcm::aes::Aes256;
use aes_gcm::aes::cipher::{BlockCipherEncrypt, KeyInit};

use super::Secret;

/// `data` XOR the key stream that begins at this counter block; a second time gives `data` back.
pub(crate) fn xor_stream(key: &Secret<32>, counter: [u8; 16], data: &mut [u8]) {
    let cipher = Aes256::new(key.expose().into());
    for (chunk, number) in data.chunks_mut(16).zip(0u128..) {
        let mut block = u128::from_be_bytes(counter).wrapping_add(number).to_be_bytes().into();
        cipher.encrypt_block(&mut block);
        for (byte, mask) in chunk.iter_mut().zip(&block) {
            *byte ^= mask;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_is_that_of_sp_800_38a() {
        // F.5.5, the first block and five bytes of the second.
        let key = [
            0x60, 0x3d, 0xeb, 0x10, 0x15, 0xca, 0x71, 0xbe, 0x2b, 0x73, 0xae, 0xf0, 0x85, 0x7d, 0x77, 0x81,
            0x1f, 0x35, 0x2c, 0x07, 0x3b, 0x61, 0x08, 0xd7, 0x2d, 0x98, 0x10, 0xa3, 0x09, 0x14, 0xdf, 0xf4,
        ];
        let counter = std::array::from_fn(|place| 0xf0 + u8::try_from(place).unwrap());
        let mut data = [
            0x6b, 0xc1, 0xbe, 0xe2, 0x2e, 0x40, 0x9f, 0x96, 0xe9, 0x3d, 0x7e, 0x11, 0x73, 0x93, 0x17, 0x2a,
            0xae, 0x2d, 0x8a, 0x57, 0x1e,
        ];
        xor_stream(&Secret::new(key), counter, &mut data);
        let expected = [
            0x60, 0x1e, 0xc3, 0x13, 0x77, 0x57, 0x89, 0xa5, 0xb7, 0xa7, 0xf5, 0x04, 0xbb, 0xf3, 0xd2, 0x28,
            0xf4, 0x43, 0xe3, 0xca, 0x4d,
        ];
        assert_eq!(data, expected);
    }
}
