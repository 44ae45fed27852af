//! The gate: what a packet must show before it is worth a Diffie-Hellman, and the mask that makes it look random.
//!
//! WireGuard's `mac1` (its paper, section 5.4.4) with one difference: the key also depends on a secret that
//! only the server and its clients hold, so that knowing the server's public key is not enough.

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::hash::{Keyed, code, keyed};
use super::{PublicKey, Secret, sha256};

/// 32 random bytes, one per server, known to every client of it.
pub type GateKey = Secret<32>;

/// The length of a [`Mac1`] in bytes.
pub const MAC1_LEN: usize = 16;

/// The end of a packet: the first half of an HMAC-SHA256 over everything before it.
pub type Mac1 = [u8; MAC1_LEN];

/// The two keys of one server's gate, taken in.
pub struct Gate {
    mac1: Keyed,
    mask: Keyed,
}

impl Gate {
    /// The gate of the server that has this public key.
    #[must_use]
    pub fn new(server: &PublicKey, gate: &GateKey) -> Self {
        Self::labelled(server, gate, b"knockd-rs v1 mac1", b"knockd-rs v1 mask")
    }

    /// The same for knocks with a certificate: other labels, so that one HMAC tells the two formats apart.
    #[must_use]
    pub fn of_certificates(server: &PublicKey, gate: &GateKey) -> Self {
        Self::labelled(server, gate, b"knockd-rs v1 mac1 cert", b"knockd-rs v1 mask cert")
    }

    fn labelled(server: &PublicKey, gate: &GateKey, mac1: &[u8], mask: &[u8]) -> Self {
        let key = |label: &[u8]| keyed(&Zeroizing::new(sha256(&[label, &server.0, gate.expose()])));
        Self { mac1: key(mac1), mask: key(mask) }
    }

    /// A Noise message as a packet: masks the ephemeral key in front and puts mac1 behind it all.
    #[must_use]
    pub fn wrap(&self, mut message: Vec<u8>) -> Vec<u8> {
        let tag = message.last_chunk::<16>().copied();
        if let (Some(tag), Some(ephemeral)) = (tag, message.first_chunk_mut::<32>()) {
            *ephemeral = self.mask(&tag, ephemeral);
        }
        let mac1 = self.mac1(&message);
        message.extend_from_slice(&mac1);
        message
    }

    /// The code of a packet's bytes.
    #[must_use]
    pub fn mac1(&self, bytes: &[u8]) -> Mac1 {
        let mut mac1 = [0; MAC1_LEN];
        for (to, from) in mac1.iter_mut().zip(code(&self.mac1, &[bytes]).expose()) {
            *to = *from;
        }
        mac1
    }

    /// Whether `mac1` is the code of `bytes`; in constant time.
    #[must_use]
    pub fn verify(&self, bytes: &[u8], mac1: &Mac1) -> bool {
        self.mac1(bytes).ct_eq(mac1).into()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(server: u8, key: u8) -> Gate {
        Gate::new(&PublicKey([server; 32]), &Secret::new([key; 32]))
    }

    #[test]
    fn a_packet_passes_its_own_gate_and_no_other() {
        let mac1 = gate(1, 2).mac1(b"packet");
        assert!(gate(1, 2).verify(b"packet", &mac1));
        assert!(!gate(1, 2).verify(b"packer", &mac1));
        assert!(!gate(1, 3).verify(b"packet", &mac1), "the gate key counts");
        assert!(!gate(2, 2).verify(b"packet", &mac1), "the server's key counts");
    }

    #[test]
    fn a_masked_key_is_laid_open_by_the_same_mask() {
        let masked = gate(1, 2).mask(&[5; 16], &[9; 32]);
        assert_ne!(masked, [9; 32]);
        assert_eq!(gate(1, 2).mask(&[5; 16], &masked), [9; 32]);
        assert_ne!(gate(1, 2).mask(&[6; 16], &masked), [9; 32], "the tag counts");
    }
}
