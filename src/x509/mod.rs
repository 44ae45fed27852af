//! X.509 certificates and revocation lists (RFC 5280): what a knock with a certificate has to show.
//!
//! Pure: bytes and a time go in, a judgement comes out. Paths are built and judged by rustls-webpki, signatures are
//! ring's; what those do not tell (names, places, revocation sets, who is to be told what) is read here.
#![forbid(unsafe_code)]

mod authority;
pub mod chain;
pub mod crl;
pub mod der;
pub mod keystore;
pub mod leaf;
pub mod name;
mod rejection;
pub mod request;
pub mod scope;
pub mod select;
pub mod signature;
mod time;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

/// The certificates in a file: one as DER, or any number as PEM (RFC 7468) with whatever text between them. In place of
/// one that cannot be read stands an empty one, so that it is missed.
#[must_use]
pub fn certificates(file: &[u8]) -> Vec<Vec<u8>> {
    if file.first() == Some(&der::tag::SEQUENCE) {
        return vec![file.to_vec()];
    }
    let found: Vec<Vec<u8>> = CertificateDer::pem_slice_iter(file)
        .map(|found| found.map(|der| der.to_vec()).unwrap_or_default())
        .collect();
    // A block without an end is passed over in silence.
    let begun = file.windows(BEGIN.len()).filter(|window| *window == BEGIN).count();
    let missed = begun.saturating_sub(found.len());
    found.into_iter().chain(std::iter::repeat_n(Vec::new(), missed)).collect()
}

/// How a certificate begins in PEM.
const BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";

/// The revocation lists in a file, likewise.
#[must_use]
pub fn revocation_lists(file: &[u8]) -> Vec<Vec<u8>> {
    use rustls_pki_types::CertificateRevocationListDer;

    if file.first() == Some(&der::tag::SEQUENCE) {
        return vec![file.to_vec()];
    }
    CertificateRevocationListDer::pem_slice_iter(file)
        .filter_map(|found| Some(found.ok()?.to_vec()))
        .collect()
}

/// DER as text (RFC 7468): base64 in lines of 64 characters between two that say what it is.
#[must_use]
pub fn pem(label: &str, der: &[u8]) -> String {
    use base64ct::{Base64, Encoding as _};

    let text = Base64::encode_string(der);
    let mut lines = format!("-----BEGIN {label}-----\n");
    for line in text.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()) {
        lines.push_str(line);
        lines.push('\n');
    }
    lines + "-----END " + label + "-----\n"
}
