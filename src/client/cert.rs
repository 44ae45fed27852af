//! Knocking with a certificate: the private key that signs, and the packet.

use std::fmt;
use std::net::SocketAddr;

use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
    KeyPair as _, RSA_PSS_SHA256, RsaKeyPair,
};

use super::datagram::Datagrams;
use super::knock::{KnockError, Knocker, random};
use crate::knock::Ask;
use crate::knock::cert::{Sign, seal};
use crate::x509::leaf::Certificate;
use crate::x509::signature::Scheme;

/// A certificate with its private key.
pub struct Identity {
    certificate: Vec<u8>,
    scheme: Scheme,
    key: Key,
}

enum Key {
    Ed25519(Ed25519KeyPair),
    Ecdsa(EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

impl Identity {
    /// Puts a private key (PKCS#8) and the one of the certificates (DER) that belongs to it together.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub fn new(key: &[u8], certificates: &[Vec<u8>]) -> Result<Self, IdentityError> {
        let key = Key::read(key).ok_or(IdentityError::Key)?;
        if certificates.is_empty() {
            return Err(IdentityError::NoCertificate);
        }
        let certificate = certificates
            .iter()
            .find(|der| Certificate::parse(der).is_some_and(|parsed| parsed.key.key == key.public()))
            .ok_or(IdentityError::Foreign)?;
        let parsed = Certificate::parse(certificate).ok_or(IdentityError::Foreign)?;
        let scheme = Scheme::of(&parsed.key).ok_or(IdentityError::Key)?;
        Ok(Self { certificate: certificate.clone(), scheme, key })
    }
}

/// Two are the same when their certificates are.
impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        self.certificate == other.certificate
    }
}

impl Eq for Identity {}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({:?})", self.scheme)
    }
}

impl Key {
    fn read(pkcs8: &[u8]) -> Option<Self> {
        let random = SystemRandom::new();
        let ecdsa = |algorithm| EcdsaKeyPair::from_pkcs8(algorithm, pkcs8, &random).ok().map(Self::Ecdsa);
        // OpenSSL leaves the public key out of what it writes.
        let ed25519 = Ed25519KeyPair::from_pkcs8_maybe_unchecked(pkcs8).ok().map(Self::Ed25519);
        ed25519
            .or_else(|| ecdsa(&ECDSA_P256_SHA256_ASN1_SIGNING))
            .or_else(|| ecdsa(&ECDSA_P384_SHA384_ASN1_SIGNING))
            .or_else(|| RsaKeyPair::from_pkcs8(pkcs8).ok().map(Self::Rsa))
    }

    fn public(&self) -> &[u8] {
        match self {
            Self::Ed25519(pair) => pair.public_key().as_ref(),
            Self::Ecdsa(pair) => pair.public_key().as_ref(),
            Self::Rsa(pair) => pair.public_key().as_ref(),
        }
    }
}

impl Sign for Identity {
    fn scheme(&self) -> Scheme {
        self.scheme
    }

    fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        let random = SystemRandom::new();
        match &self.key {
            Key::Ed25519(pair) => Some(pair.sign(message).as_ref().to_vec()),
            Key::Ecdsa(pair) => Some(pair.sign(&random, message).ok()?.as_ref().to_vec()),
            Key::Rsa(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(&RSA_PSS_SHA256, &random, message, &mut signature).ok()?;
                Some(signature)
            }
        }
    }
}

impl Knocker<'_> {
    /// One packet for each address, as with `spa`.
    pub(super) fn cert(
        &mut self,
        ask: &Ask,
        addresses: &[SocketAddr],
        identity: &Identity,
    ) -> Result<Datagrams, KnockError> {
        let (server, gate) = (self.identity.server, self.identity.gate.clone());
        let mut by_hash = false;
        let datagrams = self.datagrams(ask, addresses, |ask, counter| {
            let sealed = seal(ask, counter, &server, &gate, &identity.certificate, identity, random()?)
                .map_err(KnockError::Seal)?;
            by_hash |= sealed.by_hash;
            Ok(sealed.packet)
        });
        self.by_hash |= by_hash;
        datagrams
    }
}

/// Why key and certificate make no identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdentityError {
    /// The key is of a kind that cannot be used.
    Key,
    /// There is no certificate.
    NoCertificate,
    /// None of the certificates belongs to the key.
    Foreign,
}

impl fmt::Display for IdentityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Key => "the private key is of a kind that cannot knock; use Ed25519, P-256, P-384 or RSA of 2048 to 4096 bits",
            Self::NoCertificate => "there is no certificate; name its file with --cert",
            Self::Foreign => "the certificate does not belong to the private key; use the one that was issued for it",
        })
    }
}

impl std::error::Error for IdentityError {}
