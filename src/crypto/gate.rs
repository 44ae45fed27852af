//! The gate: what a packet must show before it is worth a Diffie-Hellman, and the mask that makes it look random.
//!
//! WireGuard's `mac1` (its paper, section 5.4.4) with two differences. The key also depends on a secret that only the
//! server and its clients hold, so that knowing the server's public key is not enough. And a client's [`Pseudonym`] lies
//! under it: the server learns from one HMAC both that the packet is one of its clients' and whose it claims to be, and
//! a client's flood spends that client's share alone, whatever addresses it comes from.

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::hash::{Keyed, code, keyed};
use super::noise::Psk;
use super::{PublicKey, Secret, sha256};

/// 32 random bytes, one per server, known to every client of it.
pub type GateKey = Secret<32>;

/// The length of a [`Mac1`] in bytes.
pub const MAC1_LEN: usize = 16;

/// The end of a packet: one half of an HMAC-SHA256 over everything before it, whose last 8 bytes hide a [`Pseudonym`] where
/// the format has one.
pub type Mac1 = [u8; MAC1_LEN];

/// What a server knows a client by before any Diffie-Hellman: `HMAC(psk, "knockd-rs v1 client" || S || G || C)[0..8]`.
/// It proves nothing. Who holds neither the client's keys nor the server's can take it only from the client's own
/// packets, and only with the gate key.
pub type Pseudonym = [u8; 8];

/// Where a format names no client.
const NOBODY: Pseudonym = [0; 8];

/// The pseudonym of a client, by its public key and psk, at the server with this public and gate key.
#[must_use]
pub fn pseudonym(server: &PublicKey, gate: &GateKey, client: &PublicKey, psk: &Psk) -> Pseudonym {
    let parts = [b"knockd-rs v1 client", &server.0[..], gate.expose(), &client.0];
    let mut pseudonym = NOBODY;
    for (to, from) in pseudonym.iter_mut().zip(code(&keyed(psk.expose()), &parts).expose()) {
        *to = *from;
    }
    pseudonym
}

/// Both halves: what the [`Mac1`] of a packet has to be, whatever its format.
pub type Code = Secret<32>;

/// The two keys of one server's gate, taken in, for one format of packets.
pub struct Gate {
    mac1: Keyed,
    mask: Keyed,
    half: Half,
}

/// Which half of the code a format ends in. One computation judges a packet for both.
#[derive(Clone, Copy)]
enum Half {
    First,
    Second,
}

impl Gate {
    /// The gate of the server that has this public key.
    #[must_use]
    pub fn new(server: &PublicKey, gate: &GateKey) -> Self {
        Self::labelled(server, gate, b"knockd-rs v1 mask", Half::First)
    }

    /// The same for knocks with a certificate, which end in the other half.
    #[must_use]
    pub fn of_certificates(server: &PublicKey, gate: &GateKey) -> Self {
        Self::labelled(server, gate, b"knockd-rs v1 mask cert", Half::Second)
    }

    fn labelled(server: &PublicKey, gate: &GateKey, mask: &[u8], half: Half) -> Self {
        let key = |label: &[u8]| keyed(&Zeroizing::new(sha256(&[label, &server.0, gate.expose()])));
        Self { mac1: key(b"knockd-rs v1 mac1"), mask: key(mask), half }
    }

    /// A Noise message as a packet: masks the ephemeral key in front and puts mac1 behind it all.
    #[must_use]
    pub fn wrap(&self, message: Vec<u8>) -> Vec<u8> {
        self.wrap_for(&NOBODY, message)
    }

    /// The same for a format whose packets say whose they are.
    #[must_use]
    pub fn wrap_for(&self, client: &Pseudonym, mut message: Vec<u8>) -> Vec<u8> {
        let tag = message.last_chunk::<16>().copied();
        if let (Some(tag), Some(ephemeral)) = (tag, message.first_chunk_mut::<32>()) {
            *ephemeral = self.mask(&tag, ephemeral);
        }
        let mac1 = self.mac1(client, &message);
        message.extend_from_slice(&mac1);
        message
    }

    /// The code of a packet's bytes, the same for every format.
    #[must_use]
    pub fn code(&self, bytes: &[u8]) -> Code {
        code(&self.mac1, &[bytes])
    }

    /// What a packet of this format ends in, when `client` has made it.
    #[must_use]
    pub fn mac1(&self, client: &Pseudonym, bytes: &[u8]) -> Mac1 {
        let mut mac1 = self.half(&self.code(bytes));
        for (byte, mask) in mac1.iter_mut().rev().zip(client.iter().rev()) {
            *byte ^= mask;
        }
        mac1
    }

    /// Whose packet this claims to be, by its code and its mac1; `None` when it was made without the gate key, or changed
    /// since. The former is decided in constant time.
    #[must_use]
    pub fn claimed(&self, code: &Code, mac1: &Mac1) -> Option<Pseudonym> {
        let ([own, mask], [shown, masked]) = (words(&self.half(code)), words(mac1));
        bool::from(own.ct_eq(&shown)).then_some((mask ^ masked).to_ne_bytes())
    }

    /// Whether `mac1` is the right one, where packets name nobody; in constant time.
    #[must_use]
    pub fn admits(&self, code: &Code, mac1: &Mac1) -> bool {
        words(&self.half(code)).ct_eq(&words(mac1)).into()
    }

    fn half(&self, code: &Code) -> Mac1 {
        let half = match self.half {
            Half::First => code.expose().first_chunk(),
            Half::Second => code.expose().last_chunk(),
        };
        // Half of 32 bytes is always there.
        half.copied().unwrap_or_default()
    }

    /// `key` hidden, or a hidden key laid open: exclusive or with the code of the AEAD tag that ends the
    /// ciphertext. A raw X25519 key would give the packet away: its top bit is always zero, and only half of
    /// all values are points of the curve. The tag is different in every packet, and so is the mask.
    #[must_use]
    pub fn mask(&self, tag: &[u8; 16], key: &[u8; 32]) -> [u8; 32] {
        let mut masked = *key;
        for (byte, mask) in masked.iter_mut().zip(code(&self.mask, &[tag]).expose()) {
            *byte ^= mask;
        }
        masked
    }
}

/// As two numbers, which are compared faster than 16 bytes one by one.
fn words(mac1: &Mac1) -> [u64; 2] {
    // Both halves of 16 bytes are always there.
    [mac1.first_chunk(), mac1.last_chunk()].map(|half| half.copied().map_or(0, u64::from_ne_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(server: u8, key: u8) -> Gate {
        Gate::new(&PublicKey([server; 32]), &Secret::new([key; 32]))
    }

    #[test]
    fn a_packet_passes_its_own_gate_and_no_other() {
        let mac1 = gate(1, 2).mac1(&NOBODY, b"packet");
        let admits = |gate: Gate, bytes: &[u8]| gate.admits(&gate.code(bytes), &mac1);
        assert!(admits(gate(1, 2), b"packet"));
        assert!(!admits(gate(1, 2), b"packer"));
        assert!(!admits(gate(1, 3), b"packet"), "the gate key counts");
        assert!(!admits(gate(2, 2), b"packet"), "the server's key counts");
        let certificates = Gate::of_certificates(&PublicKey([1; 32]), &Secret::new([2; 32]));
        assert!(!admits(certificates, b"packet"), "the format counts");
    }

    #[test]
    fn a_packet_says_whose_it_is_at_its_own_gate_and_at_no_other() {
        let mac1 = gate(1, 2).mac1(&[7; 8], b"packet");
        let claimed = |gate: Gate, bytes: &[u8]| gate.claimed(&gate.code(bytes), &mac1);
        assert_eq!(claimed(gate(1, 2), b"packet"), Some([7; 8]));
        assert_eq!(claimed(gate(1, 2), b"packer"), None);
        assert_eq!(claimed(gate(1, 3), b"packet"), None, "the gate key counts");
        assert_eq!(claimed(gate(2, 2), b"packet"), None, "the server's key counts");
    }

    #[test]
    fn a_pseudonym_depends_on_all_four_keys() {
        let of = |server: u8, gate: u8, client: u8, psk: u8| {
            let keys = [server, client].map(|byte| PublicKey([byte; 32]));
            pseudonym(&keys[0], &Secret::new([gate; 32]), &keys[1], &Secret::new([psk; 32]))
        };
        let others = [of(9, 2, 3, 4), of(1, 9, 3, 4), of(1, 2, 9, 4), of(1, 2, 3, 9), of(1, 3, 2, 4)];
        assert!(others.iter().all(|other| *other != of(1, 2, 3, 4)));
    }

    #[test]
    fn a_masked_key_is_laid_open_by_the_same_mask() {
        let masked = gate(1, 2).mask(&[5; 16], &[9; 32]);
        assert_ne!(masked, [9; 32]);
        assert_eq!(gate(1, 2).mask(&[5; 16], &masked), [9; 32]);
        assert_ne!(gate(1, 2).mask(&[6; 16], &masked), [9; 32], "the tag counts");
    }
}
