//! What an authority signs: itself, clients' certificates, revocation lists. The encoding and the signatures are
//! rcgen's; what goes into a certificate is decided here, and is as little as a knock needs.

use std::fmt;
use std::str::FromStr;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, RevocationReason,
    RevokedCertParams, SanType, SerialNumber, SignatureAlgorithm,
};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::{CaError, Entry};
use crate::text::{PortRange, ServiceName, Span};
use crate::time::Timestamp;
use crate::x509::request::Request;
use crate::x509::signature::Scheme;
use crate::x509::{self, leaf::Certificate};

/// How far back a new certificate's time begins, for servers whose clock is behind.
const BACKDATED: u64 = 300;
/// The longest name, which is what a common name may have (RFC 5280, appendix A, `ub-common-name`).
const MAX_NAME: usize = 64;

/// The authority's key, and what it is called.
pub(super) struct Signer {
    issuer: Issuer<'static, KeyPair>,
    certificate: Vec<u8>,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signer(..)")
    }
}

/// What a certificate is to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// Whose it is: its common name.
    pub name: String,
    /// What its owner may open; nothing leaves it to the server's tables.
    pub allow: Vec<Allow>,
    /// How many days it is valid.
    pub days: u32,
}

/// One place, with the longest grant: a URI in the certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allow {
    /// The ports, or the service.
    pub place: Place,
    /// The longest grant.
    pub max: Option<Span>,
}

/// Where a certificate's owner may go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// To these ports.
    Ports(PortRange),
    /// To the service of this name.
    Service(ServiceName),
}

impl FromStr for Allow {
    type Err = String;

    /// `tcp/22`, `tcp/8000-8010`, or the name of a service.
    fn from_str(text: &str) -> Result<Self, String> {
        let place = match text.contains('/') {
            true => Place::Ports(text.parse().map_err(|error: crate::text::PortError| error.to_string())?),
            false => Place::Service(text.parse().map_err(|_| {
                format!("`{}` is neither ports nor a service; write tcp/22, or ssh", text.escape_debug())
            })?),
        };
        Ok(Self { place, max: None })
    }
}

/// The URI that stands in the certificate.
impl fmt::Display for Allow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Ports(ports) => write!(f, "knock:{ports}")?,
            Place::Service(name) => write!(f, "knock:svc/{name}")?,
        }
        self.max.map_or(Ok(()), |max| write!(f, "?max={}", max.as_secs()))
    }
}

/// Why a certificate was revoked (RFC 5280, section 5.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// No reason given.
    Unspecified,
    /// Somebody else may have the key.
    KeyCompromise,
    /// The owner is not who he was.
    AffiliationChanged,
    /// There is a newer one.
    Superseded,
    /// It is not needed any more.
    CessationOfOperation,
}

/// Every reason, as it is written.
pub const REASONS: [(&str, Reason); 5] = [
    ("unspecified", Reason::Unspecified),
    ("key-compromise", Reason::KeyCompromise),
    ("affiliation-changed", Reason::AffiliationChanged),
    ("superseded", Reason::Superseded),
    ("cessation-of-operation", Reason::CessationOfOperation),
];

impl FromStr for Reason {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = REASONS.iter().find(|(name, _)| *name == text);
        found.map(|(_, reason)| *reason).ok_or_else(|| {
            let names: Vec<&str> = REASONS.iter().map(|(name, _)| *name).collect();
            format!("`{}` is no reason; use {}", text.escape_debug(), names.join(", "))
        })
    }
}

impl Reason {
    /// None for "unspecified", which a list says by saying nothing.
    fn code(self) -> Option<RevocationReason> {
        match self {
            Self::Unspecified => None,
            Self::KeyCompromise => Some(RevocationReason::KeyCompromise),
            Self::AffiliationChanged => Some(RevocationReason::AffiliationChanged),
            Self::Superseded => Some(RevocationReason::Superseded),
            Self::CessationOfOperation => Some(RevocationReason::CessationOfOperation),
        }
    }
}

/// A signed certificate.
pub(super) struct Signed {
    pub(super) pem: String,
    pub(super) len: usize,
    pub(super) serial: String,
    pub(super) until: Timestamp,
}

impl Signer {
    /// A new authority, and its private key as PEM.
    pub(super) fn make(name: &str, days: u32, now: Timestamp) -> Result<(Self, Zeroizing<String>), CaError> {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(signing)?;
        let params = authority(name, days, now)?;
        let certificate = params.self_signed(&key).map_err(signing)?;
        let pem = Zeroizing::new(key.serialize_pem());
        Ok((Self { certificate: certificate.der().to_vec(), issuer: Issuer::new(params, key) }, pem))
    }

    pub(super) fn open(key: &str, certificate: Vec<u8>, name: &str) -> Result<Self, CaError> {
        let key = KeyPair::from_pem(key).map_err(|_| CaError::OtherKey)?;
        let parsed = Certificate::parse(&certificate).ok_or(CaError::OtherKey)?;
        let own = parsed.key.key == key.public_key_raw() && parsed.subject == distinguished(name)?;
        // The dates do not matter for what is signed with it.
        let params = authority(name, 1, Timestamp::default())?;
        if own { Ok(Self { certificate, issuer: Issuer::new(params, key) }) } else { Err(CaError::OtherKey) }
    }

    pub(super) fn certificate_pem(&self) -> String {
        x509::pem("CERTIFICATE", &self.certificate)
    }

    pub(super) fn certify(&self, request: &Request, wish: &Wish, now: Timestamp) -> Result<Signed, CaError> {
        let serial = serial()?;
        let until = now.saturating_add(days(wish.days));
        let own = Certificate::parse(&self.certificate).ok_or(CaError::OtherKey)?;
        if until > own.not_after {
            return Err(CaError::Wish(
                "the certificate would be valid for longer than the authority itself; ask for fewer --days"
                    .into(),
            ));
        }
        let mut params = CertificateParams::default();
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        params.not_before = date(Timestamp::from_secs(now.as_secs().saturating_sub(BACKDATED)))?;
        params.not_after = date(until)?;
        params.distinguished_name = common_name(&wish.name)?;
        params.subject_alt_names = uris(&wish.allow)?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&Subject(request), &self.issuer).map_err(signing)?;
        let signed = Certificate::parse(certificate.der()).filter(|signed| {
            signed.issuer == own.subject && signed.is_signed_by(&own.key) && signed.key.key == request.key
        });
        signed.ok_or(CaError::OtherKey)?;
        Ok(Signed {
            pem: certificate.pem(),
            len: certificate.der().len(),
            serial: serial.iter().map(|byte| format!("{byte:02x}")).collect(),
            until,
        })
    }

    /// A revocation list: what is revoked and was not expired at the time of the list before, so that each is on one list
    /// from after its expiry (RFC 5280, section 3.3). `before`: that time, unix seconds.
    pub(super) fn list(
        &self,
        entries: &[Entry],
        before: u64,
        number: u64,
        valid: Span,
        now: Timestamp,
    ) -> Result<String, CaError> {
        let revoked = entries
            .iter()
            .filter(|entry| entry.until >= before)
            .filter_map(|entry| Some((entry, entry.revoked?)));
        let mut revoked_certs = Vec::new();
        for (entry, (at, reason)) in revoked {
            let serial = bytes(&entry.serial).ok_or_else(|| CaError::Serial(entry.serial.clone()))?;
            revoked_certs.push(RevokedCertParams {
                serial_number: SerialNumber::from_slice(&serial),
                revocation_time: date(Timestamp::from_secs(at))?,
                reason_code: reason.code(),
                invalidity_date: None,
            });
        }
        let params = CertificateRevocationListParams {
            this_update: date(now)?,
            next_update: date(now.saturating_add(valid.duration()))?,
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs,
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).and_then(|list| list.pem()).map_err(signing)
    }
}

/// A key, and a request for it: what a client makes. The request names `name`, though an authority decides.
///
/// # Errors
/// [`CaError`].
pub fn request(name: &str) -> Result<(Zeroizing<String>, String), CaError> {
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(signing)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name(name)?;
    let request = params.serialize_request(&key).and_then(|request| request.pem()).map_err(signing)?;
    Ok((Zeroizing::new(key.serialize_pem()), request))
}

/// What an authority says of itself; also what rcgen wants to know to sign in its name.
fn authority(name: &str, for_days: u32, now: Timestamp) -> Result<CertificateParams, CaError> {
    let mut params = CertificateParams::default();
    params.serial_number = Some(SerialNumber::from_slice(&serial()?));
    params.not_before = date(Timestamp::from_secs(now.as_secs().saturating_sub(BACKDATED)))?;
    params.not_after = date(now.saturating_add(days(for_days)))?;
    params.distinguished_name = common_name(name)?;
    // Clients' certificates and no further authorities.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

/// A client's key as rcgen takes it.
struct Subject<'a>(&'a Request);

impl PublicKeyData for Subject<'_> {
    fn der_bytes(&self) -> &[u8] {
        &self.0.key
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        match self.0.scheme {
            Scheme::Ed25519 => &rcgen::PKCS_ED25519,
            Scheme::P256 => &rcgen::PKCS_ECDSA_P256_SHA256,
            Scheme::P384 => &rcgen::PKCS_ECDSA_P384_SHA384,
            Scheme::RsaPss => &rcgen::PKCS_RSA_SHA256,
        }
    }
}

fn common_name(name: &str) -> Result<DistinguishedName, CaError> {
    if name.is_empty() || name.chars().count() > MAX_NAME || name.chars().any(char::is_control) {
        return Err(CaError::Wish(format!(
            "`{}` is no name; use 1 to {MAX_NAME} characters",
            name.escape_debug()
        )));
    }
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    Ok(distinguished)
}

/// The encoding of [`common_name`]: a sequence of a set of a sequence of 2.5.4.3 and a UTF8String.
fn distinguished(name: &str) -> Result<Vec<u8>, CaError> {
    let wrap = |tag: u8, content: Vec<u8>| -> Option<Vec<u8>> {
        let length = u8::try_from(content.len()).ok()?;
        let head = if length < 0x80 { vec![tag, length] } else { vec![tag, 0x81, length] };
        Some([head, content].concat())
    };
    let text = wrap(0x0c, name.as_bytes().to_vec());
    let attribute = text.and_then(|text| wrap(0x30, [&[6, 3, 0x55, 4, 3], &text[..]].concat()));
    let name = attribute.and_then(|attribute| wrap(0x30, wrap(0x31, attribute)?));
    name.ok_or_else(|| CaError::Wish("the authority's name is too long".into()))
}

fn uris(allow: &[Allow]) -> Result<Vec<SanType>, CaError> {
    let uri = |allow: &Allow| allow.to_string().try_into().map(SanType::URI).map_err(signing);
    if allow.len() > x509::scope::MAX_ALLOWANCES {
        return Err(CaError::Wish(format!(
            "a certificate can name {} places, and these are {}; leave --open out to let the server's tables decide",
            x509::scope::MAX_ALLOWANCES,
            allow.len()
        )));
    }
    allow.iter().map(uri).collect()
}

/// 128 random bits, positive and not short (RFC 5280, section 4.1.2.2).
fn serial() -> Result<[u8; 16], CaError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|_| CaError::Signing("the kernel gives no random numbers".into()))?;
    if let Some(first) = bytes.first_mut() {
        *first = *first & 0x3f | 0x40;
    }
    Ok(bytes)
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    let pairs = hex.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

fn days(days: u32) -> std::time::Duration {
    std::time::Duration::from_secs(u64::from(days) * 86_400)
}

fn date(time: Timestamp) -> Result<OffsetDateTime, CaError> {
    let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    OffsetDateTime::from_unix_timestamp(seconds)
        .map_err(|_| CaError::Wish("that is farther in the future than certificates can say".into()))
}

fn signing(error: rcgen::Error) -> CaError {
    CaError::Signing(format!("it cannot be signed: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_allowed_is_written_as_the_server_reads_it() {
        let with = |text: &str, max: Option<u32>| {
            Allow { max: max.map(Span::from_secs), ..text.parse().unwrap() }.to_string()
        };
        assert_eq!(with("tcp/22", None), "knock:tcp/22");
        assert_eq!(with("udp/8000-8010", Some(60)), "knock:udp/8000-8010?max=60");
        assert_eq!(with("ssh", Some(3600)), "knock:svc/ssh?max=3600");
        assert!("tcp/0".parse::<Allow>().is_err() && "SSH now".parse::<Allow>().is_err());
    }

    #[test]
    fn an_authority_is_known_again_by_its_key_and_name() {
        let now = Timestamp::from_secs(1_800_000_000);
        for name in ["Example knock CA", "ä", &"x".repeat(64)] {
            let (signer, key) = Signer::make(name, 30, now).unwrap();
            let open = |key: &str, name: &str| Signer::open(key, signer.certificate.clone(), name);
            assert!(open(&key, name).is_ok(), "{name}");
            assert!(matches!(open(&key, "other"), Err(CaError::OtherKey)));
            let (_, other) = Signer::make(name, 30, now).unwrap();
            assert!(matches!(open(&other, name), Err(CaError::OtherKey)));
        }
        for name in ["", "a\nb", &"x".repeat(65)] {
            assert!(matches!(Signer::make(name, 30, now), Err(CaError::Wish(_))), "{name:?}");
        }
    }
}
