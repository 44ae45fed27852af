//! The ports that sequences are played on, and the keyed permutation by which a symbol finds its port.
//!
//! ```text
//! symbol = voice * 8192 + lane * 256 + byte        a voice is 32 lanes; span / 8192 of them fit
//! port   = base + permutation[symbol]
//!
//! K_ports       = SHA256("knockd-rs v1 seq ports" || S || G)     S = the server's public key, G = the gate key
//! permutation   = 0, 1 .. span-1, shuffled (Fisher and Yates): for i from span-1 down to 1 swap the places i and
//!                 d mod (i+1), where d is the next 8 bytes of AES-256-CTR(HMAC(K_ports, "shuffle" || u64 step), iv = 0)
//! ```
//!
//! Places of the permutation beyond the last voice stand for no symbol. The remainder of 64 bits favours no place by
//! more than 2^-47.

use zeroize::Zeroizing;

use crate::crypto::{GateKey, Keyed, PublicKey, Secret, code, keyed, sha256, xor_stream};
use crate::knock::ground::Ground;

/// The lanes of one voice.
pub(super) const LANES: u8 = 32;
/// A byte in a lane of a voice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Symbol {
    pub(super) voice: u8,
    pub(super) lane: u8,
    pub(super) byte: u8,
}

impl Symbol {
    pub(super) fn number(self) -> u16 {
        (u16::from(self.voice) << 13) | (u16::from(self.lane % LANES) << 8) | u16::from(self.byte)
    }

    fn of(number: u16) -> Self {
        let [upper, byte] = number.to_be_bytes();
        Self { voice: upper >> 5, lane: upper % LANES, byte }
    }
}

/// What all clients of a server know: the key of the permutations and of the veil over the hints.
pub(super) struct PortKey(Keyed);

impl PortKey {
    pub(super) fn new(server: &PublicKey, gate: &GateKey) -> Self {
        let key = sha256(&[b"knockd-rs v1 seq ports", &server.0, gate.expose()]);
        Self(keyed(&Zeroizing::new(key)))
    }

    /// What hides the hint of a message, and lays it open: `rest` is everything behind it.
    pub(super) fn veil(&self, step: u64, hint: [u8; 2], rest: &[u8]) -> [u8; 2] {
        let mask = code(&self.0, &[b"veil", &step.to_be_bytes(), rest]);
        let [m0, m1, ..] = *mask.expose();
        let [h0, h1] = hint;
        [h0 ^ m0, h1 ^ m1]
    }

    /// The place of each symbol in this step.
    pub(super) fn permutation(&self, step: u64, span: u16) -> Vec<u16> {
        let key: Secret<32> = code(&self.0, &[b"shuffle", &step.to_be_bytes()]);
        let mut draws = vec![0; 8 * usize::from(span).saturating_sub(1)];
        xor_stream(&key, [0; 16], &mut draws);
        let mut places: Vec<u16> = (0..span).collect();
        for (last, draw) in (1..u64::from(span)).rev().zip(draws.chunks_exact(8)) {
            let draw = draw.first_chunk().copied().map_or(0, u64::from_be_bytes);
            let other = draw % (last + 1);
            // Both are below the number of places, which is a u16.
            if let (Ok(last), Ok(other)) = (usize::try_from(last), usize::try_from(other)) {
                places.swap(last, other);
            }
        }
        places
    }
}

/// A permutation as the client needs it: from symbols to ports.
pub(super) struct Scale<'a> {
    ground: &'a Ground,
    places: Vec<u16>,
}

impl<'a> Scale<'a> {
    pub(super) fn new(ground: &'a Ground, key: &PortKey, step: u64) -> Self {
        Self { ground, places: key.permutation(step, ground.span) }
    }

    /// The port of a symbol; `None` where it is one that is left out.
    pub(super) fn port(&self, symbol: Symbol) -> Option<u16> {
        let place = self.places.get(usize::from(symbol.number()))?;
        let port = self.ground.base.checked_add(*place)?;
        (!self.ground.excluded.contains(&port)).then_some(port)
    }
}

/// A permutation as the server needs it: from places to symbols.
pub(super) struct Inverse(Vec<u16>);

impl Inverse {
    pub(super) fn new(key: &PortKey, step: u64, span: u16) -> Self {
        let mut numbers = vec![0; usize::from(span)];
        for (number, place) in (0..span).zip(key.permutation(step, span)) {
            if let Some(slot) = numbers.get_mut(usize::from(place)) {
                *slot = number;
            }
        }
        Self(numbers)
    }

    /// All places and their symbols.
    pub(super) fn symbols(&self) -> impl Iterator<Item = (u16, Symbol)> + '_ {
        (0u16..).zip(self.0.iter().map(|number| Symbol::of(*number)))
    }

    /// The symbol at a place. Those of a voice that there is no room for are nobody's.
    pub(super) fn symbol(&self, place: u16) -> Option<Symbol> {
        self.0.get(usize::from(place)).map(|number| Symbol::of(*number))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn key() -> PortKey {
        PortKey::new(&PublicKey([1; 32]), &Secret::new([2; 32]))
    }

    #[test]
    fn every_symbol_has_a_port_of_its_own_and_comes_back() {
        for span in [8192, 10_000, 32_768, 49_152, 65_535] {
            let ground = Ground { base: 1, span, excluded: vec![] }.check().unwrap();
            let (scale, inverse) = (Scale::new(&ground, &key(), 7), Inverse::new(&key(), 7, span));
            let mut ports = HashSet::new();
            for number in 0..u16::from(ground.voices()) * 8192 {
                let symbol = Symbol::of(number);
                let port = scale.port(symbol).unwrap();
                assert!(ports.insert(port));
                assert_eq!(ground.place(port).and_then(|place| inverse.symbol(place)), Some(symbol));
            }
        }
    }

    #[test]
    fn another_step_or_server_has_another_permutation() {
        let first = key().permutation(7, 8192);
        let alike = |other: Vec<u16>| first.iter().zip(&other).filter(|(a, b)| a == b).count();
        assert!(alike(key().permutation(8, 8192)) < 12);
        assert!(alike(PortKey::new(&PublicKey([1; 32]), &Secret::new([3; 32])).permutation(7, 8192)) < 12);
    }

    #[test]
    fn ports_that_cannot_be_played_on_are_refused_with_what_can() {
        let check = |base, span, excluded| Ground { base, span, excluded }.check().unwrap_err().to_string();
        assert!(check(16_384, 8191, vec![]).ends_with("use 8192 to 65535"));
        assert!(check(50_000, 32_768, vec![]).contains("use a lower base"));
        assert!(check(0, 32_768, vec![]).contains("do not lie between 1 and 65535"));
        assert!(check(16_384, 32_768, vec![20_000; 65]).contains("more than 64 ports"));
        assert!(Ground { base: 32_768, span: 32_768, excluded: vec![] }.check().is_ok());
    }

    #[test]
    fn what_is_left_out_is_neither_knocked_at_nor_heard() {
        let ground = Ground { excluded: vec![20_000], ..Ground::default() };
        let scale = Scale::new(&ground, &key(), 7);
        let heard = (0..32_768).filter(|number| scale.port(Symbol::of(*number)).is_none()).count();
        assert_eq!((heard, ground.place(20_000), ground.place(20_001)), (1, None, Some(3617)));
    }
}
