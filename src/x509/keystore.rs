//! A client's certificate and private key, from the files that people have: PEM, encrypted or not, and PKCS#12.
//!
//! ```text
//! PRIVATE KEY            PKCS#8 (RFC 5958)                 EC PRIVATE KEY    SEC1 (RFC 5915)
//! ENCRYPTED PRIVATE KEY  PKCS#8, encrypted by PBES2        RSA PRIVATE KEY   PKCS#1 (RFC 8017)
//! PFX                    PKCS#12 (RFC 7292), as OpenSSL 3 writes it: PBES2 and an HMAC with SHA-256
//! ```
//! What older programs wrote (RC2, triple DES, SHA-1, PEM with `Proc-Type`) is not read: the passphrase of such a
//! file protects little. The error has the command that makes a new one of it. Pure: files are the caller's.

use std::fmt;

use base64ct::{Base64, Encoding};
use zeroize::Zeroizing;

use super::der::{Cursor, Element, tag};
use crate::crypto::{Secret, code, keyed, sha256};

/// A private key as PKCS#8, and the certificates that came with it.
pub struct KeyStore {
    /// The private key.
    pub key: Zeroizing<Vec<u8>>,
    /// The certificates, DER; none where the key came alone.
    pub certificates: Vec<Vec<u8>>,
}

/// Reads a private key from PEM or DER. `passphrase` is asked for the passphrase only where there has to be one.
///
/// # Errors
/// [`KeyError`].
pub fn read_key<E: From<KeyError>>(
    file: &[u8],
    passphrase: impl FnOnce() -> Result<Zeroizing<Vec<u8>>, E>,
) -> Result<Zeroizing<Vec<u8>>, E> {
    if let Some(key) = pem(file, "PRIVATE KEY") {
        return Ok(key);
    }
    if let Some(sealed) = pem(file, "ENCRYPTED PRIVATE KEY") {
        return Ok(open_pkcs8(&sealed, &passphrase()?)?);
    }
    let old = [("EC PRIVATE KEY", Kind::Ec), ("RSA PRIVATE KEY", Kind::Rsa)];
    for (label, kind) in old {
        if contains(file, label) && file.windows(10).any(|window| window == b"Proc-Type:") {
            return Err(KeyError::OldPem.into());
        }
        if let Some(key) = pem(file, label) {
            return Ok(wrapped(kind, &key).ok_or(KeyError::Malformed)?);
        }
    }
    if file.first() == Some(&tag::SEQUENCE) {
        return Ok(Zeroizing::new(file.to_vec()));
    }
    Err(KeyError::NoKey.into())
}

/// Reads a PKCS#12 file.
///
/// # Errors
/// [`KeyError`].
pub fn read_pkcs12(file: &[u8], passphrase: &[u8]) -> Result<KeyStore, KeyError> {
    let mut pfx = Cursor::only(file, tag::SEQUENCE).ok_or(KeyError::Malformed)?;
    if pfx.number() != Some(3) {
        return Err(KeyError::Malformed);
    }
    let safe = pfx.expect(tag::SEQUENCE).and_then(data).ok_or(KeyError::Malformed)?;
    if let Some(mac) = pfx.optional(tag::SEQUENCE) {
        check_mac(mac.content, safe, passphrase)?;
    }
    let mut store = KeyStore { key: Zeroizing::new(Vec::new()), certificates: Vec::new() };
    let mut contents = Cursor::only(safe, tag::SEQUENCE).ok_or(KeyError::Malformed)?;
    while !contents.is_done() {
        let info = contents.expect(tag::SEQUENCE).ok_or(KeyError::Malformed)?;
        match data(info) {
            Some(bags) => store.take_bags(bags, passphrase)?,
            None => {
                let (scheme, sealed) = encrypted_data(info).ok_or(KeyError::Malformed)?;
                store.take_bags(&open(scheme, sealed, passphrase)?, passphrase)?;
            }
        }
    }
    if store.key.is_empty() { Err(KeyError::NoKey) } else { Ok(store) }
}

impl KeyStore {
    /// `SafeContents`: keys, encrypted keys, certificates.
    fn take_bags(&mut self, bags: &[u8], passphrase: &[u8]) -> Result<(), KeyError> {
        let mut bags = Cursor::only(bags, tag::SEQUENCE).ok_or(KeyError::Malformed)?;
        while !bags.is_done() {
            let mut bag = bags.enter(tag::SEQUENCE).ok_or(KeyError::Malformed)?;
            let id = bag.expect(tag::OID).ok_or(KeyError::Malformed)?.content;
            let value = bag.expect(tag::context(0)).ok_or(KeyError::Malformed)?.content;
            match id.strip_prefix(BAG) {
                Some([1]) if self.key.is_empty() => self.key = Zeroizing::new(value.to_vec()),
                Some([2]) if self.key.is_empty() => self.key = open_pkcs8(value, passphrase)?,
                Some([1 | 2]) => return Err(KeyError::TwoKeys),
                Some([3]) => {
                    let certificate = certificate_bag(value).ok_or(KeyError::Malformed)?;
                    self.certificates.push(certificate.to_vec());
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// The content of a `ContentInfo` of the type `data`.
fn data(info: Element<'_>) -> Option<&[u8]> {
    let mut info = Cursor::new(info.content);
    (info.expect(tag::OID)?.content == DATA).then_some(())?;
    Some(info.enter(tag::context(0))?.expect(tag::OCTET_STRING)?.content)
}

/// Scheme and ciphertext of a `ContentInfo` of the type `encryptedData` (RFC 5652, section 8).
fn encrypted_data(info: Element<'_>) -> Option<(&[u8], &[u8])> {
    let mut info = Cursor::new(info.content);
    (info.expect(tag::OID)?.content == ENCRYPTED_DATA).then_some(())?;
    let mut encrypted = info.enter(tag::context(0))?.enter(tag::SEQUENCE)?;
    encrypted.number()?;
    let mut content = encrypted.enter(tag::SEQUENCE)?;
    (content.expect(tag::OID)?.content == DATA).then_some(())?;
    let scheme = content.expect(tag::SEQUENCE)?.whole;
    // [0] IMPLICIT OCTET STRING, primitive.
    Some((scheme, content.expect(0x80)?.content))
}

fn certificate_bag(value: &[u8]) -> Option<&[u8]> {
    let mut bag = Cursor::only(value, tag::SEQUENCE)?;
    (bag.expect(tag::OID)?.content == X509_CERTIFICATE).then_some(())?;
    Some(bag.enter(tag::context(0))?.expect(tag::OCTET_STRING)?.content)
}

/// `MacData`: an HMAC over the content, under a key made of the passphrase (RFC 7292, appendix B.2).
fn check_mac(mac: &[u8], safe: &[u8], passphrase: &[u8]) -> Result<(), KeyError> {
    let read = || {
        let mut mac = Cursor::new(mac);
        let mut info = mac.enter(tag::SEQUENCE)?;
        let algorithm = info.enter(tag::SEQUENCE)?.expect(tag::OID)?.content;
        let digest = info.expect(tag::OCTET_STRING)?.content;
        let salt = mac.expect(tag::OCTET_STRING)?.content;
        let rounds = if mac.is_done() { 1 } else { mac.number()? };
        Some((algorithm, digest, salt, rounds))
    };
    let (algorithm, digest, salt, rounds) = read().ok_or(KeyError::Malformed)?;
    if algorithm != SHA256 {
        return Err(KeyError::OldPkcs12);
    }
    if rounds > MAX_ROUNDS {
        return Err(KeyError::TooDear);
    }
    let digest: [u8; 32] = digest.try_into().map_err(|_| KeyError::Malformed)?;
    let key = mac_key(passphrase, salt, rounds).ok_or(KeyError::Passphrase)?;
    // Compared in constant time, as secrets are.
    if code(&keyed(key.expose()), &[safe]) == Secret::new(digest) {
        Ok(())
    } else {
        Err(KeyError::Passphrase)
    }
}

/// The key for the HMAC: with SHA-256 one round of appendix B.2 gives all of it, so that its step for the next block
/// is never reached. `None` for a passphrase that is no UTF-8.
fn mac_key(passphrase: &[u8], salt: &[u8], rounds: u32) -> Option<Secret<32>> {
    const BLOCK: usize = 64;
    const PURPOSE: u8 = 3;
    let text = std::str::from_utf8(passphrase).ok()?;
    // UTF-16, big-endian, with two zero bytes at the end.
    let password: Zeroizing<Vec<u8>> =
        Zeroizing::new(text.encode_utf16().chain([0]).flat_map(u16::to_be_bytes).collect());
    let stretched = |bytes: &[u8]| -> Zeroizing<Vec<u8>> {
        Zeroizing::new(bytes.iter().copied().cycle().take(bytes.len().next_multiple_of(BLOCK)).collect())
    };
    let mut hash = sha256(&[&[PURPOSE; BLOCK], &stretched(salt), &stretched(&password)]);
    for _ in 1..rounds {
        hash = sha256(&[&hash]);
    }
    Some(Secret::new(hash))
}

/// `EncryptedPrivateKeyInfo` (RFC 5958, section 3).
fn open_pkcs8(sealed: &[u8], passphrase: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let mut info = Cursor::only(sealed, tag::SEQUENCE).ok_or(KeyError::Malformed)?;
    let scheme = info.expect(tag::SEQUENCE).ok_or(KeyError::Malformed)?.whole;
    let sealed = info.expect(tag::OCTET_STRING).ok_or(KeyError::Malformed)?.content;
    open(scheme, sealed, passphrase)
}

/// PBES2 with AES (RFC 8018, section 6.2).
fn open(scheme: &[u8], sealed: &[u8], passphrase: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let scheme = pkcs5::EncryptionScheme::try_from(scheme).map_err(|_| KeyError::OldPkcs12)?;
    let parameters = scheme.pbes2().ok_or(KeyError::OldPkcs12)?;
    if parameters.kdf.pbkdf2().is_some_and(|kdf| kdf.iteration_count > MAX_ROUNDS) {
        return Err(KeyError::TooDear);
    }
    match parameters.kdf.scrypt().map(room) {
        // pkcs5 panics at 0.
        Some(0) => return Err(KeyError::Malformed),
        Some(room) if room > MAX_ROOM => return Err(KeyError::TooDear),
        _ => {}
    }
    scheme.decrypt(passphrase, sealed).map(Zeroizing::new).map_err(|error| match error {
        pkcs5::Error::UnsupportedAlgorithm { .. } => KeyError::OldPkcs12,
        _ => KeyError::Passphrase,
    })
}

/// The bytes that scrypt goes through (RFC 7914, section 6): memory, and time for each lane.
fn room(kdf: &pkcs5::pbes2::ScryptParams) -> u64 {
    let lanes = u64::from(kdf.block_size).saturating_mul(kdf.parallelization.into());
    kdf.cost_parameter.saturating_mul(lanes).saturating_mul(128)
}

/// More rounds than this would take minutes: no program writes so many. The fuzzer has no time for as many.
const MAX_ROUNDS: u32 = if cfg!(feature = "fuzzing") { 500 } else { 10_000_000 };
/// More than this is more than many machines have: openssl writes 16 MiB.
const MAX_ROOM: u64 = if cfg!(feature = "fuzzing") { 1 << 16 } else { 1 << 30 };

#[derive(Clone, Copy)]
enum Kind {
    Ec,
    Rsa,
}

/// An older form as PKCS#8: version 0, the algorithm, and the key as it was.
fn wrapped(kind: Kind, key: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let algorithm = match kind {
        Kind::Rsa => [RSA_ENCRYPTION, &[0x05, 0]].concat(),
        Kind::Ec => {
            let mut inside = Cursor::only(key, tag::SEQUENCE)?;
            inside.number()?;
            inside.expect(tag::OCTET_STRING)?;
            let curve = inside.enter(tag::context(0))?.expect(tag::OID)?.whole;
            [EC_PUBLIC_KEY, curve].concat()
        }
    };
    let parts =
        [&[tag::INTEGER, 1, 0][..], &element(tag::SEQUENCE, &algorithm)?, &element(tag::OCTET_STRING, key)?];
    element(tag::SEQUENCE, &Zeroizing::new(parts.concat()))
}

fn element(tag: u8, content: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let [high, low] = u16::try_from(content.len()).ok()?.to_be_bytes();
    let head = match (high, low) {
        (0, 0..=0x7f) => vec![tag, low],
        (0, _) => vec![tag, 0x81, low],
        _ => vec![tag, 0x82, high, low],
    };
    Some(Zeroizing::new([&head, content].concat()))
}

/// The first block of PEM with this label (RFC 7468).
fn pem(file: &[u8], label: &str) -> Option<Zeroizing<Vec<u8>>> {
    let text = std::str::from_utf8(file).ok()?;
    let (_, rest) = text.split_once(&format!("-----BEGIN {label}-----"))?;
    let (body, _) = rest.split_once(&format!("-----END {label}-----"))?;
    let digits: Zeroizing<String> =
        Zeroizing::new(body.chars().filter(|c| !c.is_ascii_whitespace()).collect());
    Base64::decode_vec(&digits).ok().map(Zeroizing::new)
}

fn contains(file: &[u8], label: &str) -> bool {
    let begin = format!("-----BEGIN {label}-----");
    file.windows(begin.len()).any(|window| window == begin.as_bytes())
}

/// Why a file gives no private key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyError {
    /// There is none in it.
    NoKey,
    /// There are two in it.
    TwoKeys,
    /// It is damaged, or not what it says it is.
    Malformed,
    /// The passphrase is not the right one, or the file is damaged.
    Passphrase,
    /// It is a PEM file encrypted in the way of OpenSSL before 1.0.
    OldPem,
    /// It is encrypted in a way that is not read.
    OldPkcs12,
    /// To open it would take minutes, or more memory than there may be.
    TooDear,
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoKey => "has no private key; use one in PEM, as openssl genpkey writes it, or in PKCS#12",
            Self::TwoKeys => "has more than one private key; make a file with one of them",
            Self::Malformed => "is damaged, or no key file",
            Self::Passphrase => "does not open with this passphrase",
            Self::OldPem => {
                "is encrypted in an old way that protects little; convert it: openssl pkcs8 -topk8 -in OLD -out NEW"
            }
            Self::TooDear => {
                "asks for more rounds or memory than any program writes; encrypt the key anew: openssl pkcs8 -topk8"
            }
            Self::OldPkcs12 => {
                "is encrypted in an old way that is not read (RC2, triple DES or SHA-1); convert it: openssl pkcs12 \
                 -legacy -in OLD.p12 -nodes -out TMP.pem && openssl pkcs12 -export -in TMP.pem -out NEW.p12 && shred \
                 -u TMP.pem"
            }
        })
    }
}

impl std::error::Error for KeyError {}

// 1.2.840.113549.1.7.1 and .6; 1.2.840.113549.1.12.10.1; 1.2.840.113549.1.9.22.1; 2.16.840.1.101.3.4.2.1.
const DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 1];
const ENCRYPTED_DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 6];
const BAG: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 12, 10, 1];
const X509_CERTIFICATE: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 22, 1];
const SHA256: &[u8] = &[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1];
// 1.2.840.113549.1.1.1 and 1.2.840.10045.2.1, whole elements.
const RSA_ENCRYPTION: &[u8] = &[6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1];
const EC_PUBLIC_KEY: &[u8] = &[6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1];
