//! Recordings for `explain`: frames with fixed times and, for each, what is to be said of it. A new method adds a
//! function that returns a [`Recording`], and its name to `tests/explain/recordings.rs`.

use super::{IPV4, UDP, ethernet, ipv4, udp};

/// The time of the first frame: 2026-01-01 00:00:00 UTC.
pub const BEGIN: u64 = 1_767_225_600;
/// The client's address, and a stranger's.
pub const CLIENT: [u8; 4] = [192, 0, 2, 7];
pub const STRANGER: [u8; 4] = [192, 0, 2, 66];

/// Frames of one link type, each with its time and what is to be said of it.
pub struct Recording {
    linktype: u32,
    millis: u64,
    frames: Vec<Recorded>,
}

/// A frame of a recording.
pub struct Recorded {
    /// Milliseconds since the first one.
    pub millis: u64,
    pub bytes: Vec<u8>,
    /// How long it was on the wire.
    pub wire_len: usize,
    /// Verdict, step and reason.
    pub expected: &'static str,
}

impl Recording {
    /// Of Ethernet frames.
    pub fn ethernet() -> Self {
        Self { linktype: 1, millis: 0, frames: Vec::new() }
    }

    /// The next frame, this much later than the one before.
    pub fn after(&mut self, millis: u64) -> &mut Self {
        self.millis += millis;
        self
    }

    /// The time of the next frame, in nanoseconds since 1970.
    pub fn nanos(&self) -> u64 {
        (BEGIN * 1000 + self.millis) * 1_000_000
    }

    pub fn frame(&mut self, expected: &'static str, bytes: Vec<u8>) -> &mut Self {
        let wire_len = bytes.len();
        self.frames.push(Recorded { millis: self.millis, bytes, wire_len, expected });
        self
    }

    /// A frame of which the recording has but a part.
    pub fn part(&mut self, expected: &'static str, bytes: Vec<u8>, wire_len: usize) -> &mut Self {
        self.frames.push(Recorded { millis: self.millis, bytes, wire_len, expected });
        self
    }

    /// An IPv4 packet.
    pub fn packet(
        &mut self,
        expected: &'static str,
        source: [u8; 4],
        transport: u8,
        payload: &[u8],
    ) -> &mut Self {
        self.frame(expected, ethernet(&[], IPV4, &ipv4(source, 0, &[], transport, payload)))
    }

    /// A datagram to a port.
    pub fn datagram(
        &mut self,
        expected: &'static str,
        source: [u8; 4],
        port: u16,
        payload: &[u8],
    ) -> &mut Self {
        self.packet(expected, source, UDP, &udp(port, payload))
    }

    pub fn frames(&self) -> &[Recorded] {
        &self.frames
    }

    /// The file: little-endian, nanoseconds (pcap-savefile(5)), the same on every machine.
    pub fn file(&self) -> Vec<u8> {
        let mut file = Vec::new();
        for word in [0xa1b2_3c4d, 0x0004_0002, 0, 0, 65535, self.linktype] {
            file.extend(u32::to_le_bytes(word));
        }
        for Recorded { millis, bytes, wire_len, .. } in &self.frames {
            let second = u32::try_from(BEGIN + millis / 1000).unwrap();
            let nanos = u32::try_from(millis % 1000 * 1_000_000).unwrap();
            let (len, wire_len) = (u32::try_from(bytes.len()).unwrap(), u32::try_from(*wire_len).unwrap());
            file.extend([second, nanos, len, wire_len].map(u32::to_le_bytes).concat());
            file.extend(bytes);
        }
        file
    }
}
