//! A certification request (PKCS#10, RFC 2986): whose key it is, and that its owner asks.

use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::PemObject as _;

use super::der::{Cursor, tag};
use super::signature::{PublicKeyInfo, Scheme};

/// A request whose signature was verified. What else it asks for is not read: an authority decides that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The kind of key.
    pub scheme: Scheme,
    /// The key: the content of `subjectPublicKey`.
    pub key: Vec<u8>,
}

impl Request {
    /// Reads a file, DER or PEM.
    ///
    /// # Errors
    /// A sentence without the file's name.
    pub fn read(file: &[u8]) -> Result<Self, &'static str> {
        let none = "is no certificate request, or a damaged one; `knockd-rs ca request` makes one, and `openssl req -new`";
        let der = match file.first() {
            Some(&tag::SEQUENCE) => file.to_vec(),
            _ => CertificateSigningRequestDer::from_pem_slice(file).map_err(|_| none)?.to_vec(),
        };
        let (info, algorithm, signature, key) = split(&der).ok_or(none)?;
        let scheme = Scheme::of(&key).ok_or(
            "has a key of a kind that cannot knock; use Ed25519, P-256, P-384, or RSA of 2048 to 4096 bits",
        )?;
        if !key.has_signed(algorithm, info, signature) {
            return Err("is not signed by the key that is in it; make it again");
        }
        Ok(Self { scheme, key: key.key.to_vec() })
    }
}

type Parts<'a> = (&'a [u8], &'a [u8], &'a [u8], PublicKeyInfo<'a>);

/// `CertificationRequest`, section 4.2: what is signed, by which algorithm, the signature, and the key in it.
fn split(der: &[u8]) -> Option<Parts<'_>> {
    let mut outer = Cursor::only(der, tag::SEQUENCE)?;
    let info = outer.expect(tag::SEQUENCE)?;
    let algorithm = outer.expect(tag::SEQUENCE)?.content;
    let signature = outer.bits()?;
    outer.done()?;
    let mut inner = Cursor::new(info.content);
    (inner.number()? == 0).then_some(())?;
    inner.expect(tag::SEQUENCE)?;
    let key = PublicKeyInfo::read(&mut inner)?;
    // Attributes: what the client would like to have in its certificate.
    inner.optional(tag::context(0));
    inner.done()?;
    Some((info.whole, algorithm, signature, key))
}
