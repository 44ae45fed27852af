//! Public keys that are none: with a point of low order every Diffie-Hellman secret is zero.
#![forbid(unsafe_code)]

use crate::crypto::PublicKey;

/// Whether this key is a point of low order, so that whoever claims it is believed. All such points of
/// Curve25519 and its twist, in every encoding that X25519 accepts: <https://cr.yp.to/ecdh.html#validate>.
#[must_use]
pub fn is_weak(key: &PublicKey) -> bool {
    let mut bytes = key.0;
    // X25519 ignores the topmost bit (RFC 7748, section 5).
    bytes[31] &= 0x7f;
    LOW_ORDER.contains(&bytes)
}

const fn near_p(low: u8) -> [u8; 32] {
    let mut bytes = [0xff; 32];
    bytes[0] = low;
    bytes[31] = 0x7f;
    bytes
}

const fn small(low: u8) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[0] = low;
    bytes
}

/// 0, 1, the two points of order 8, p-1, p, p+1.
const LOW_ORDER: [[u8; 32]; 7] = [
    small(0),
    small(1),
    [
        0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4, 0x6a, 0xda,
        0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49, 0xb8, 0x00,
    ],
    [
        0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55, 0x9c, 0x83, 0xef, 0x5b, 0x04,
        0x44, 0x5c, 0xc4, 0x58, 0x1c, 0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd, 0xd0, 0x9f, 0x11, 0x57,
    ],
    near_p(0xec),
    near_p(0xed),
    near_p(0xee),
];

#[cfg(test)]
mod tests {
    use x25519_dalek::{PublicKey as Point, StaticSecret};

    use super::*;
    use crate::crypto::KeyPair;

    #[test]
    fn every_listed_point_gives_the_same_secret_to_everybody() {
        for bytes in LOW_ORDER {
            for top in [0, 0x80] {
                let mut bytes = bytes;
                bytes[31] |= top;
                assert!(is_weak(&PublicKey(bytes)));
                let shared = StaticSecret::from([7; 32]).diffie_hellman(&Point::from(bytes));
                assert!(!shared.was_contributory(), "{bytes:02x?}");
            }
        }
    }

    #[test]
    fn an_honest_key_is_not_weak() {
        assert!(!is_weak(&KeyPair::from_seed([7; 32]).public()));
    }
}
