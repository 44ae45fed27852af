//! A certificate revocation list (RFC 5280, section 5): parsed, verified, and asked for serial numbers.
//!
//! Whole lists only: a list of some reasons or of authorities alone (an issuing distribution point), changes of another
//! list (a delta), or certificates of other issuers (indirect) would say less than it seems to, and is refused, as is
//! any critical extension that is not known. A distribution point that says where the list is, and that it covers
//! clients' certificates, is what step-ca writes into each list, and is taken; a certificate that names another place
//! is refused by webpki then (section 6.3.3).

use std::collections::HashSet;
use std::fmt;

use crate::time::Timestamp;

use super::der::{Cursor, tag};
use super::leaf::Certificate;
use super::time::time;

/// The longest list that is read: some 100,000 entries.
pub const MAX_CRL: usize = 4 << 20;

/// A revocation list. Nothing in it is to be believed before [`Crl::verify`].
#[derive(Clone, Debug)]
pub struct Crl {
    /// The issuer's name, DER.
    pub issuer: Vec<u8>,
    /// The list's number, big-endian, without leading zeros.
    pub number: Vec<u8>,
    /// When it was made.
    pub this_update: Timestamp,
    /// When the next one is due.
    pub next_update: Timestamp,
    serials: HashSet<Vec<u8>>,
    signed: Vec<u8>,
    algorithm: Vec<u8>,
    signature: Vec<u8>,
}

impl Crl {
    /// Takes a list apart.
    ///
    /// # Errors
    /// [`CrlError`] when it is none, or not one that says all there is to know.
    pub fn parse(der: &[u8]) -> Result<Self, CrlError> {
        if der.len() > MAX_CRL {
            return Err(CrlError::TooLarge);
        }
        let (mut outer, malformed) =
            (Cursor::only(der, tag::SEQUENCE).ok_or(CrlError::Malformed)?, CrlError::Malformed);
        let signed = outer.expect(tag::SEQUENCE).ok_or(malformed)?;
        let algorithm = outer.expect(tag::SEQUENCE).ok_or(malformed)?.content;
        let signature = outer.bits().ok_or(malformed)?;
        outer.done().ok_or(malformed)?;
        let fields = Fields::read(signed.content, algorithm).ok_or(malformed)?;
        Ok(Self {
            issuer: fields.issuer.to_vec(),
            number: number(fields.extensions)?,
            this_update: fields.this_update,
            next_update: fields.next_update.ok_or(CrlError::NoNextUpdate)?,
            serials: serials(fields.entries)?,
            signed: signed.whole.to_vec(),
            algorithm: algorithm.to_vec(),
            signature: signature.to_vec(),
        })
    }

    /// Whether this authority issued the list.
    ///
    /// # Errors
    /// [`CrlError::Issuer`] when the list names another one, [`CrlError::Usage`] when it may not sign lists,
    /// [`CrlError::Signature`] when the list is forged.
    pub fn verify(&self, issuer_ca_der: &[u8]) -> Result<(), CrlError> {
        let authority =
            Certificate::parse(issuer_ca_der).filter(|authority| authority.subject == self.issuer);
        let authority = authority.ok_or(CrlError::Issuer)?;
        if !authority.may_sign_lists() {
            return Err(CrlError::Usage);
        }
        if authority.key.has_signed(&self.algorithm, &self.signed, &self.signature) {
            Ok(())
        } else {
            Err(CrlError::Signature)
        }
    }

    /// Whether the certificate with this serial number, as the content of its INTEGER, is revoked.
    #[must_use]
    pub fn is_revoked(&self, serial: &[u8]) -> bool {
        self.serials.contains(serial)
    }

    /// All revoked serial numbers, in no order.
    pub fn serials(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.serials.iter().map(Vec::as_slice)
    }
}

/// `TBSCertList`, section 5.1.
struct Fields<'a> {
    issuer: &'a [u8],
    this_update: Timestamp,
    next_update: Option<Timestamp>,
    entries: &'a [u8],
    extensions: &'a [u8],
}

impl<'a> Fields<'a> {
    fn read(signed: &'a [u8], algorithm: &[u8]) -> Option<Self> {
        let mut fields = Cursor::new(signed);
        // Version 2 is written as 1; only that one has extensions.
        (fields.number()? == 1).then_some(())?;
        (fields.expect(tag::SEQUENCE)?.content == algorithm).then_some(())?;
        let issuer = fields.expect(tag::SEQUENCE)?.whole;
        let this_update = time(&mut fields)?;
        let mut ahead = fields;
        let is_time =
            ahead.any().is_some_and(|next| matches!(next.tag, tag::UTC_TIME | tag::GENERALIZED_TIME));
        let next_update = if is_time { Some(time(&mut fields)?) } else { None };
        let entries = fields.optional(tag::SEQUENCE).map_or(&[][..], |entries| entries.content);
        let extensions = fields.optional(tag::context(0)).map_or(&[][..], |extensions| extensions.content);
        fields.done()?;
        Some(Self { issuer, this_update, next_update, entries, extensions })
    }
}

fn serials(entries: &[u8]) -> Result<HashSet<Vec<u8>>, CrlError> {
    let mut serials = HashSet::new();
    let mut entries = Cursor::new(entries);
    while !entries.is_done() {
        let mut entry = entries.enter(tag::SEQUENCE).ok_or(CrlError::Malformed)?;
        let serial = entry.expect(tag::INTEGER).ok_or(CrlError::Malformed)?.content;
        time(&mut entry).ok_or(CrlError::Malformed)?;
        if !entry.is_done() {
            let extensions = entry.expect(tag::SEQUENCE).ok_or(CrlError::Malformed)?;
            for (_, critical, _) in extensions_of(extensions.content).ok_or(CrlError::Malformed)? {
                if critical {
                    return Err(CrlError::Extension);
                }
            }
        }
        entry.done().ok_or(CrlError::Malformed)?;
        serials.insert(serial.to_vec());
    }
    Ok(serials)
}

/// The list's number; refuses what makes it less than a whole list.
fn number(extensions: &[u8]) -> Result<Vec<u8>, CrlError> {
    let inside = if extensions.is_empty() {
        &[]
    } else {
        let mut outer = Cursor::new(extensions);
        let list = outer.expect(tag::SEQUENCE).filter(|_| outer.is_done());
        list.ok_or(CrlError::Malformed)?.content
    };
    let mut number = None;
    for (id, critical, value) in extensions_of(inside).ok_or(CrlError::Malformed)? {
        if id == CRL_NUMBER {
            let mut cursor = Cursor::new(value);
            let digits =
                cursor.expect(tag::INTEGER).filter(|_| cursor.is_done()).ok_or(CrlError::Malformed)?;
            let first = digits.content.iter().position(|byte| *byte != 0).unwrap_or(digits.content.len());
            let digits = digits.content.get(first..).unwrap_or_default();
            // Section 5.2.3: at most 20 octets.
            number = Some(digits.to_vec()).filter(|digits| digits.len() <= 20);
        } else if id == ISSUING_DISTRIBUTION_POINT {
            covers_clients(value).ok_or(CrlError::Extension)?;
        } else if critical || id == DELTA_INDICATOR {
            return Err(CrlError::Extension);
        }
    }
    number.ok_or(CrlError::NoNumber)
}

/// `Some` for an `IssuingDistributionPoint` (section 5.2.5) of no more than `distributionPoint [0]` and
/// `onlyContainsUserCerts [1]`. What else there is makes the list one of authorities, of some reasons, or indirect.
fn covers_clients(value: &[u8]) -> Option<()> {
    let mut point = Cursor::only(value, tag::SEQUENCE)?;
    point.optional(tag::context(0));
    point.optional(ONLY_USER_CERTIFICATES);
    point.done()
}

type Extension<'a> = (&'a [u8], bool, &'a [u8]);

/// Identifier, whether critical, value.
fn extensions_of(content: &[u8]) -> Option<Vec<Extension<'_>>> {
    let (mut extensions, mut found) = (Cursor::new(content), Vec::new());
    while !extensions.is_done() {
        let mut extension = extensions.enter(tag::SEQUENCE)?;
        let id = extension.expect(tag::OID)?.content;
        let critical = extension.optional(tag::BOOLEAN).is_some_and(|flag| flag.content != [0]);
        let value = extension.expect(tag::OCTET_STRING)?.content;
        extension.done()?;
        found.push((id, critical, value));
    }
    Some(found)
}

/// Why a revocation list is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrlError {
    /// It is none, or a damaged one.
    Malformed,
    /// It is longer than [`MAX_CRL`].
    TooLarge,
    /// It has no `cRLNumber`, so that an old one cannot be told from a new one.
    NoNumber,
    /// It does not say until when it is good.
    NoNextUpdate,
    /// It covers less than it seems to, or says something critical that is not understood.
    Extension,
    /// Another authority issued it.
    Issuer,
    /// The authority it names may sign certificates, and no lists.
    Usage,
    /// The authority it names has not signed it.
    Signature,
}

impl fmt::Display for CrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "is no revocation list, or a damaged one",
            Self::TooLarge => "is longer than the 4 MiB that are read",
            Self::NoNumber => {
                "has no cRLNumber; let the authority number its lists (RFC 5280, section 5.2.3)"
            }
            Self::NoNextUpdate => "has no nextUpdate; let the authority say until when its lists are good",
            Self::Extension => {
                "is a partial, indirect or delta list, or has a critical extension that is not known"
            }
            Self::Issuer => "was issued by another authority",
            Self::Usage => {
                "names an authority that may not sign lists: the keyUsage of its certificate lacks cRLSign"
            }
            Self::Signature => "is not signed by the authority that it names",
        })
    }
}

impl std::error::Error for CrlError {}

// 2.5.29.20, 2.5.29.27, 2.5.29.28.
const CRL_NUMBER: &[u8] = &[0x55, 0x1d, 0x14];
const DELTA_INDICATOR: &[u8] = &[0x55, 0x1d, 0x1b];
const ISSUING_DISTRIBUTION_POINT: &[u8] = &[0x55, 0x1d, 0x1c];
// [1], primitive.
const ONLY_USER_CERTIFICATES: u8 = 0x81;
