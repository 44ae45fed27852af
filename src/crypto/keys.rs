//! X25519 (RFC 7748) key pairs, and public keys as people see them.

use std::fmt;
use std::str::FromStr;

use base64ct::{Base64, Encoding};
use x25519_dalek::StaticSecret;

use crate::text::serde_as_text;

use super::secret::{KeyTextError, Secret, decode};
use super::sha256;

/// An X25519 public key, 32 bytes; as text standard base64 with padding, 44 characters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey(pub [u8; 32]);

impl PublicKey {
    /// The first 8 bytes of the key's SHA-256 as `xxxx-xxxx-xxxx-xxxx`, for people to compare and for logs.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let identity = self.identity();
        let groups =
            identity.chunks_exact(2).map(|pair| pair.iter().map(|byte| format!("{byte:02x}")).collect());
        groups.collect::<Vec<String>>().join("-")
    }
}

impl PublicKey {
    /// The first 8 bytes of the key's SHA-256: names the key in files, where a whole key would be too long.
    #[must_use]
    pub fn identity(&self) -> [u8; 8] {
        sha256(&[&self.0]).first_chunk().copied().unwrap_or_default()
    }

    /// The same for two keys that make the same secret with every private key, though their bytes differ: X25519 ignores
    /// the topmost bit, reads numbers from the field's prime on as small ones, and multiplies by eight, which takes a
    /// point of small order out of a sum (RFC 7748, section 5). `None` for a key that makes no secret.
    #[must_use]
    pub fn likeness(&self) -> Option<[u8; 32]> {
        KeyPair::from_seed([1; 32]).agree(self).map(|secret| *secret.expose())
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&Base64::encode_string(&self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

impl FromStr for PublicKey {
    type Err = KeyTextError;

    fn from_str(text: &str) -> Result<Self, KeyTextError> {
        let mut bytes = [0; 32];
        decode(text, &mut bytes)?;
        Ok(Self(bytes))
    }
}

serde_as_text!(PublicKey);

/// An X25519 private key with the public key that belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPair {
    secret: Secret<32>,
    public: PublicKey,
}

impl KeyPair {
    /// From 32 random bytes, or from the private key that an earlier pair gave to [`secret`](Self::secret).
    /// Any 32 bytes are a private key (RFC 7748, section 5: the bits that matter are set on use).
    #[must_use]
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self::from(Secret::new(seed))
    }

    /// The public key.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        self.public
    }

    /// The private key, to be stored.
    #[must_use]
    pub fn secret(&self) -> &Secret<32> {
        &self.secret
    }

    /// The secret that the two owners share, or `None` when `other` is one of the points of small order that
    /// make it zero whatever the private key is (RFC 7748, section 6.1).
    #[must_use]
    pub fn agree(&self, other: &PublicKey) -> Option<Secret<32>> {
        let scalar = StaticSecret::from(*self.secret.expose());
        let shared = scalar.diffie_hellman(&other.0.into());
        shared.was_contributory().then(|| Secret::new(*shared.as_bytes()))
    }
}

impl From<Secret<32>> for KeyPair {
    fn from(secret: Secret<32>) -> Self {
        let scalar = StaticSecret::from(*secret.expose());
        let public = PublicKey(x25519_dalek::PublicKey::from(&scalar).to_bytes());
        Self { secret, public }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> PublicKey {
        text.parse().unwrap()
    }

    #[test]
    fn alice_and_bob_of_rfc_7748_agree() {
        // RFC 7748, section 6.1.
        let secret = |text| KeyPair::from(Secret::from_base64(text).unwrap());
        let alice = secret("dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=");
        let bob = secret("XasIfmJKikt54X+Lg4AO5m87sSkmGLb9HC+LJ/+I4Os=");
        assert_eq!(alice.public(), key("hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo="));
        assert_eq!(bob.public(), key("3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08="));
        let shared = Secret::from_base64("Sl2dW6TOLeFyjjv0gDUPJeB+IclH0Z4zdvCbPB4WF0I=").unwrap();
        assert_eq!(alice.agree(&bob.public()), Some(shared.clone()));
        assert_eq!(bob.agree(&alice.public()), Some(shared));
    }

    #[test]
    fn a_point_of_small_order_shares_no_secret() {
        let mut one = [0; 32];
        one[0] = 1;
        // The field's prime less one, 2^255 - 20: of order two. And the prime itself, which reads as zero.
        let (mut minus_one, mut zero_again) = ([0xff; 32], [0xff; 32]);
        (minus_one[0], minus_one[31]) = (0xec, 0x7f);
        (zero_again[0], zero_again[31]) = (0xed, 0x7f);
        for point in [[0; 32], one, minus_one, zero_again] {
            assert_eq!(KeyPair::from_seed([7; 32]).agree(&PublicKey(point)), None);
        }
    }

    #[test]
    fn a_key_in_other_bytes_has_its_likeness_and_another_key_has_not() {
        let [alice, bob] = [1, 2].map(|seed| KeyPair::from_seed([seed; 32]).public());
        let mut with_bit = alice;
        with_bit.0[31] |= 0x80;
        assert_ne!(alice.likeness(), bob.likeness());
        assert_eq!(alice.likeness(), with_bit.likeness());
        assert_eq!(KeyPair::from_seed([9; 32]).agree(&alice), KeyPair::from_seed([9; 32]).agree(&with_bit));
        assert_eq!(PublicKey([0; 32]).likeness(), None);
    }

    #[test]
    fn a_public_key_reads_back_as_it_was_written() {
        let text = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=";
        assert_eq!(key(text).to_string(), text);
        assert_eq!(serde_json::to_string(&key(text)).unwrap(), format!("\"{text}\""));
        assert_eq!(serde_json::from_str::<PublicKey>(&format!("\"{text}\"")).unwrap(), key(text));
        assert_eq!(format!("{:?}", key(text)), format!("PublicKey({text})"));
        assert!("hSDwCYkwp1R0i33ctD73Wg2".parse::<PublicKey>().is_err());
    }

    #[test]
    fn a_fingerprint_is_short_enough_to_read_aloud() {
        // SHA-256 of 32 zero bytes begins 66687aadf862bd77.
        assert_eq!(PublicKey([0; 32]).fingerprint(), "6668-7aad-f862-bd77");
    }

    #[test]
    fn a_key_pair_is_never_printed_whole() {
        assert!(format!("{:?}", KeyPair::from_seed([7; 32])).contains("Secret(..)"));
    }
}
