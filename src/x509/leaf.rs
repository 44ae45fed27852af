//! A certificate (RFC 5280, section 4.1) as far as a knock needs it: whose it is, until when, and what it says about
//! what its owner may open. Whether any of it is true is for [`super::chain`] to find out.

use std::fmt;

use crate::crypto::sha256;
use crate::time::Timestamp;

use super::der::{Cursor, tag};
use super::scope::{Scope, ScopeError};
use super::signature::PublicKeyInfo;
use super::{name::Name, time::time};

/// The longest certificate that is looked at: one of RSA-4096 with plenty of extensions has 3 KiB.
pub const MAX_CERTIFICATE: usize = 8192;

/// A certificate, taken apart and not believed yet.
#[derive(Clone, Debug)]
pub struct Certificate<'a> {
    /// What its issuer signed.
    pub signed: &'a [u8],
    /// By which algorithm: the inside of the `AlgorithmIdentifier`.
    pub algorithm: &'a [u8],
    /// The signature.
    pub signature: &'a [u8],
    /// The serial number, as the content of its INTEGER.
    pub serial: &'a [u8],
    /// The issuer's name, DER.
    pub issuer: &'a [u8],
    /// The subject's name, DER.
    pub subject: &'a [u8],
    /// From when it is valid.
    pub not_before: Timestamp,
    /// Until when.
    pub not_after: Timestamp,
    /// The subject's key.
    pub key: PublicKeyInfo<'a>,
    extensions: &'a [u8],
}

impl<'a> Certificate<'a> {
    /// Takes a certificate of version 3 apart. `None` when it is none.
    #[must_use]
    pub fn parse(der: &'a [u8]) -> Option<Self> {
        let mut outer = Cursor::only(der, tag::SEQUENCE)?;
        let signed = outer.expect(tag::SEQUENCE)?;
        let algorithm = outer.expect(tag::SEQUENCE)?.content;
        let signature = outer.bits()?;
        outer.done()?;
        let mut inner = Cursor::new(signed.content);
        // Version 3 is written as 2.
        let mut version = inner.enter(tag::context(0))?;
        (version.number()? == 2).then_some(())?;
        version.done()?;
        let serial = inner.expect(tag::INTEGER)?.content;
        // Section 4.1.1.2: both fields name the same algorithm, only one of them is signed.
        (inner.expect(tag::SEQUENCE)?.content == algorithm).then_some(())?;
        let issuer = inner.expect(tag::SEQUENCE)?.whole;
        let mut validity = inner.enter(tag::SEQUENCE)?;
        let (not_before, not_after) = (time(&mut validity)?, time(&mut validity)?);
        validity.done()?;
        let subject = inner.expect(tag::SEQUENCE)?.whole;
        let key = PublicKeyInfo::read(&mut inner)?;
        // Unique identifiers, which nobody uses: their tags are [1] and [2], primitive.
        inner.optional(0x81);
        inner.optional(0x82);
        let extensions = match inner.optional(tag::context(3)) {
            Some(element) => element.content,
            None => &[],
        };
        inner.done()?;
        Some(Self {
            signed: signed.whole,
            algorithm,
            signature,
            serial,
            issuer,
            subject,
            not_before,
            not_after,
            key,
            extensions,
        })
    }

    /// Whether the owner of `key` issued it.
    #[must_use]
    pub fn is_signed_by(&self, key: &PublicKeyInfo<'_>) -> bool {
        key.has_signed(self.algorithm, self.signed, self.signature)
    }

    /// Whether it says that its owner may issue certificates (`basicConstraints`, section 4.2.1.9).
    #[must_use]
    pub fn is_authority(&self) -> bool {
        let read = |value| Some(Cursor::only(value, tag::SEQUENCE)?.optional(tag::BOOLEAN)?.content != [0]);
        self.extension(BASIC_CONSTRAINTS).flatten().and_then(read) == Some(true)
    }

    /// Whether its owner may sign revocation lists: `keyUsage` (section 4.2.1.3) names `cRLSign`, or is not there.
    #[must_use]
    pub fn may_sign_lists(&self) -> bool {
        let Some(Some(value)) = self.extension(KEY_USAGE) else { return self.extension(KEY_USAGE).is_some() };
        let mut usage = Cursor::new(value);
        // The number of unused bits; then bit 0 is the highest, and cRLSign is bit 6.
        let bits = usage.expect(tag::BIT_STRING).filter(|_| usage.is_done());
        matches!(bits.map(|bits| bits.content), Some([_, first, ..]) if first & 0x02 != 0)
    }

    /// Whether it names `clientAuth` among its purposes (`extKeyUsage`, section 4.2.1.12). "Any purpose" is not it.
    #[must_use]
    pub fn is_for_clients(&self) -> bool {
        let Some(Some(value)) = self.extension(EXTENDED_KEY_USAGE) else { return false };
        let Some(mut purposes) = Cursor::only(value, tag::SEQUENCE) else { return false };
        std::iter::from_fn(|| purposes.expect(tag::OID)).any(|purpose| purpose.content == CLIENT_AUTH)
    }

    /// The alternative names of the subject, or those of them that matter here. `None` when they cannot be read.
    fn alternative_names(&self) -> Option<Alternative<'a>> {
        match self.extension(SUBJECT_ALTERNATIVE_NAME)? {
            Some(value) => Alternative::read(value),
            None => Some(Alternative::default()),
        }
    }

    /// The value of an extension, if it is there; `None` when the extensions cannot be read, or name it twice.
    fn extension(&self, wanted: &[u8]) -> Option<Option<&'a [u8]>> {
        let mut found = None;
        if self.extensions.is_empty() {
            return Some(found);
        }
        let mut extensions = Cursor::only(self.extensions, tag::SEQUENCE)?;
        while !extensions.is_done() {
            let mut extension = extensions.enter(tag::SEQUENCE)?;
            let id = extension.expect(tag::OID)?.content;
            extension.optional(tag::BOOLEAN);
            let value = extension.expect(tag::OCTET_STRING)?.content;
            extension.done()?;
            if id == wanted && found.replace(value).is_some() {
                return None;
            }
        }
        Some(found)
    }
}

/// `subjectAltName`, section 4.2.1.6.
#[derive(Default)]
struct Alternative<'a> {
    uris: Vec<&'a str>,
    /// What sKnock's tools write.
    sknock: Vec<&'a str>,
}

impl<'a> Alternative<'a> {
    fn read(value: &'a [u8]) -> Option<Self> {
        let mut names = Cursor::only(value, tag::SEQUENCE)?;
        let mut found = Self::default();
        while !names.is_done() {
            let name = names.any()?;
            match name.tag {
                URI => found.uris.push(std::str::from_utf8(name.content).ok()?),
                OTHER_NAME => {
                    let mut other = Cursor::new(name.content);
                    if other.expect(tag::OID)?.content == SKNOCK {
                        let value = other.enter(tag::context(0))?.any()?;
                        let text = matches!(value.tag, tag::UTF8 | tag::IA5 | tag::PRINTABLE);
                        text.then_some(())?;
                        found.sknock.push(std::str::from_utf8(value.content).ok()?);
                    }
                }
                _ => {}
            }
        }
        Some(found)
    }
}

/// What a certificate says about its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// The serial number, as the content of its INTEGER.
    pub serial: Vec<u8>,
    /// The issuer.
    pub issuer: Name,
    /// The subject.
    pub subject: Name,
    /// The URIs among its alternative names, those of `knock:` left out.
    pub uris: Vec<String>,
    /// SHA-256 of its `SubjectPublicKeyInfo`.
    pub key_sha256: [u8; 32],
    /// What it lets its owner open at most.
    pub scope: Result<Scope, ScopeError>,
}

impl Leaf {
    /// Reads what the certificate says. `None` when its names cannot be read.
    #[must_use]
    pub fn read(certificate: &Certificate<'_>) -> Option<Self> {
        let Alternative { uris, sknock } = certificate.alternative_names()?;
        let is_ours = |uri: &&str| uri.get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case("knock:"));
        let (ours, others): (Vec<&str>, Vec<&str>) = uris.into_iter().partition(is_ours);
        Some(Self {
            serial: certificate.serial.to_vec(),
            issuer: Name::read(certificate.issuer)?,
            subject: Name::read(certificate.subject)?,
            uris: others.into_iter().map(str::to_owned).collect(),
            key_sha256: sha256(&[certificate.key.whole]),
            scope: Scope::read(&ours, &sknock),
        })
    }

    /// What grants of this certificate are known by: the first 8 bytes of SHA-256 over the issuer's name and the
    /// serial number, which together name one certificate.
    #[must_use]
    pub fn id(&self) -> [u8; 8] {
        certificate_id(&self.issuer.der, &self.serial)
    }
}

/// [`Leaf::id`] of the certificate with this serial number, as the content of its INTEGER.
#[must_use]
pub fn certificate_id(issuer: &[u8], serial: &[u8]) -> [u8; 8] {
    sha256(&[issuer, serial]).first_chunk().copied().unwrap_or_default()
}

/// The subject, or a name of it where the certificate has it there; for people.
impl fmt::Display for Leaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.uris.first() {
            Some(uri) if self.subject.parts.is_empty() => write!(f, "{}", uri.escape_debug()),
            _ => write!(f, "{}", self.subject),
        }
    }
}

// 2.5.29.15, 2.5.29.17, 2.5.29.19, 2.5.29.37.
const KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x0f];
const SUBJECT_ALTERNATIVE_NAME: &[u8] = &[0x55, 0x1d, 0x11];
const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x13];
const EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x25];
// 1.3.6.1.5.5.7.3.2.
const CLIENT_AUTH: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 2];
// GeneralName: [0] otherName, constructed; [6] uniformResourceIdentifier.
const OTHER_NAME: u8 = 0xa0;
const URI: u8 = 0x86;
// 1.3.6.1.4.1.19518, sKnock's.
const SKNOCK: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0x81, 0x98, 0x3e];
