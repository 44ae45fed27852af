//! Signatures: which keys clients may have, and what one proves. The arithmetic is ring's.

use rustls_pki_types::SignatureVerificationAlgorithm;
use webpki::ALL_VERIFICATION_ALGS;
use webpki::ring::{ECDSA_P256_SHA256, ECDSA_P384_SHA384, ED25519, RSA_PSS_2048_8192_SHA256_LEGACY_KEY};

use super::der::{Cursor, tag};

/// How a client signs its knocks; one for each kind of key. The number is what stands in the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Scheme {
    /// Ed25519 (RFC 8032).
    Ed25519 = 1,
    /// ECDSA on P-256 with SHA-256; the signature as in RFC 3279, section 2.2.3.
    P256 = 2,
    /// ECDSA on P-384 with SHA-384, likewise.
    P384 = 3,
    /// RSASSA-PSS with SHA-256, MGF1 with SHA-256 and a salt of 32 bytes (RFC 8017); keys of 2048 to 4096 bits.
    RsaPss = 4,
}

/// The longest RSA modulus of a client's key, in bytes: what is longer costs more time than a knock should.
const MAX_MODULUS: usize = 512;
/// The shortest.
const MIN_MODULUS: usize = 256;

impl Scheme {
    /// Every scheme.
    pub const ALL: [Self; 4] = [Self::Ed25519, Self::P256, Self::P384, Self::RsaPss];

    /// How many X25519 handshakes one verification costs: ring has no fast P-384.
    #[must_use]
    pub fn cost(self) -> u32 {
        match self {
            Self::P384 => 10,
            Self::Ed25519 | Self::P256 | Self::RsaPss => 1,
        }
    }

    /// The scheme with this number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|scheme| *scheme as u8 == number)
    }

    /// The scheme for this key; `None` for a kind or a size that clients cannot have.
    #[must_use]
    pub fn of(key: &PublicKeyInfo<'_>) -> Option<Self> {
        let scheme = Self::ALL.into_iter().find(|scheme| {
            let id = scheme.algorithm().public_key_alg_id();
            *id == *key.algorithm
        })?;
        let fits = scheme != Self::RsaPss
            || modulus_len(key.key).is_some_and(|len| (MIN_MODULUS..=MAX_MODULUS).contains(&len));
        fits.then_some(scheme)
    }

    /// Whether the owner of `key`, which is one of this scheme, signed `message`.
    #[must_use]
    pub fn verify(self, key: &[u8], message: &[u8], signature: &[u8]) -> bool {
        self.algorithm().verify_signature(key, message, signature).is_ok()
    }

    fn algorithm(self) -> &'static dyn SignatureVerificationAlgorithm {
        match self {
            Self::Ed25519 => ED25519,
            Self::P256 => ECDSA_P256_SHA256,
            Self::P384 => ECDSA_P384_SHA384,
            Self::RsaPss => RSA_PSS_2048_8192_SHA256_LEGACY_KEY,
        }
    }
}

/// A `SubjectPublicKeyInfo` (RFC 5280, section 4.1.2.7), taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublicKeyInfo<'a> {
    /// All of it.
    pub whole: &'a [u8],
    /// The inside of its `AlgorithmIdentifier`.
    pub algorithm: &'a [u8],
    /// The key.
    pub key: &'a [u8],
}

impl<'a> PublicKeyInfo<'a> {
    pub(super) fn read(cursor: &mut Cursor<'a>) -> Option<Self> {
        let info = cursor.expect(tag::SEQUENCE)?;
        let mut inside = Cursor::new(info.content);
        let algorithm = inside.expect(tag::SEQUENCE)?.content;
        let key = inside.bits()?;
        inside.done()?;
        Some(Self { whole: info.whole, algorithm, key })
    }

    /// Whether the owner of this key signed `message` by the algorithm that the inside of an `AlgorithmIdentifier`
    /// names: what an authority does to certificates and revocation lists.
    #[must_use]
    pub fn has_signed(&self, algorithm: &[u8], message: &[u8], signature: &[u8]) -> bool {
        ALL_VERIFICATION_ALGS
            .iter()
            .filter(|known| *known.signature_alg_id() == *algorithm)
            .filter(|known| *known.public_key_alg_id() == *self.algorithm)
            .any(|known| known.verify_signature(self.key, message, signature).is_ok())
    }
}

/// The bytes of the modulus of an `RSAPublicKey` (RFC 8017, appendix A.1.1).
fn modulus_len(key: &[u8]) -> Option<usize> {
    let modulus = Cursor::only(key, tag::SEQUENCE)?.expect(tag::INTEGER)?.content;
    Some(modulus.strip_prefix(&[0]).unwrap_or(modulus).len())
}
