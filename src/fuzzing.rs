//! Ways into private parsers for `tests/fuzz`, so that nothing has to be public for its sake.
#![forbid(unsafe_code)]

use crate::config::{Freshness, Report, Services, Settings, Syntax};
use crate::crypto::{PublicKey, Secret};
use crate::enrol;
use crate::knock::{cert, sequence, spa};
use crate::migrate::{self, Kind};
use crate::text::Moment;
use crate::x509::crl::Crl;
use crate::x509::keystore;
use crate::x509::leaf::{Certificate, Leaf};
use crate::x509::request::Request;
use crate::{nft, profile, state};

/// Reads the text of `knockd-rs.toml`: every error as it is printed. `None` for text that is no TOML.
#[must_use]
pub fn settings(text: &str) -> Option<Vec<String>> {
    let report = Report::new("knockd-rs.toml");
    let read = Settings::read(text, &report);
    read.map(|_| errors(report))
}

/// Reads the text of a profile, as TOML or as JSON, and gives it new keys where it can: every error as it is printed. `None` when there was too little to
/// go on with.
#[must_use]
pub fn profile(text: &str, json: bool) -> Option<Vec<String>> {
    let report = Report::new("profiles.d/fuzz.toml");
    let services = Services::new();
    let server = profile::Server { services: Some(&services), freshness: Freshness::default() };
    let syntax = if json { Syntax::Json } else { Syntax::Toml };
    let keys = profile::NewKeys {
        public_key: PublicKey([9; 32]),
        psk: Some(Secret::new([9; 32])),
        until: Moment::MAX,
    };
    let _ = profile::rotated(text, &keys, Moment::default());
    let read = profile::read("fuzz".parse().ok()?, text, syntax, server, &report);
    read.map(|_| errors(report))
}

fn errors(report: Report) -> Vec<String> {
    report.into_parts().0.iter().map(ToString::to_string).collect()
}

/// Reads a text as another program's configuration: what it comes to.
///
/// # Panics
/// When that is more than there may be, or would talk to a terminal.
#[must_use]
pub fn migrate(text: &str) -> Option<usize> {
    let import = Kind::of(text)?.read(text);
    assert!(import.clients.len() <= migrate::MAX_CLIENTS);
    assert!(import.left.iter().all(|left| !left.what.chars().any(char::is_control)), "talks to terminals");
    for client in &import.clients {
        let disjoint = crate::policy::disjoint(client.open.iter().copied());
        assert!(!client.open.is_empty() && client.open == disjoint, "ports out of order");
        assert!(client.duration <= client.max_duration && client.duration.as_secs() > 0);
        let same = import.clients.iter().filter(|other| other.name == client.name);
        assert_eq!(same.count(), 1, "a name for two");
    }
    Some(import.clients.len())
}

/// Reads bytes as a journal and as a snapshot of replay marks: how many each holds.
#[must_use]
pub fn marks(bytes: &[u8]) -> (Option<usize>, Option<usize>) {
    state::read_bytes(bytes)
}

/// Reads a netlink datagram as elements of every kind: how many there are.
#[must_use]
pub fn netlink(datagram: &[u8]) -> usize {
    nft::read_datagram(datagram)
}

/// Takes a plaintext of `spa` apart and checks that the request is what its encoder writes.
///
/// # Panics
/// When a request that was taken has no form, or one that reads differently.
pub fn spa_plaintext(plain: &[u8]) {
    spa::check_plaintext(plain);
}

/// The same for a payload of `sequence`, and for a set of its lanes: what the erasure code makes of them agrees with
/// most of them.
///
/// # Panics
/// As [`spa_plaintext`], and when the code gives a message that is not the one meant.
pub fn sequence(bytes: &[u8]) {
    sequence::check(bytes);
}

/// Takes bytes for a bundle's line: what kind of body, then the body.
///
/// # Panics
/// When what was read is written differently.
pub fn line(bytes: &[u8]) {
    if let Some((kind, body)) = bytes.split_first() {
        enrol::check_line(*kind, body);
    }
}

/// Takes bytes for everything that knocks with certificates read: a body, a certificate, a revocation list, a request
/// for a certificate, a key file.
///
/// # Panics
/// When something was read that is not in the bytes, or more than there may be.
pub fn certificate(bytes: &[u8]) {
    cert::check_body(bytes);
    if let Some(certificate) = Certificate::parse(bytes) {
        assert!(bytes.windows(certificate.signed.len()).any(|window| window == certificate.signed));
        if let Some(leaf) = Leaf::read(&certificate) {
            assert!(!leaf.to_string().chars().any(char::is_control), "a name that talks to terminals");
            assert_eq!(leaf.issuer.der, certificate.issuer);
        }
    }
    if let Ok(crl) = Crl::parse(bytes) {
        assert!(crl.number.len() <= 20 && crl.number.first() != Some(&0));
    }
    if let Ok(request) = Request::read(bytes)
        && bytes.first() == Some(&0x30)
    {
        assert!(bytes.windows(request.key.len()).any(|window| window == request.key), "a key from nowhere");
    }
    // No passphrase: what is not encrypted is read, and nothing is derived in many rounds.
    let _ = keystore::read_key(bytes, || Err::<_, keystore::KeyError>(keystore::KeyError::NoKey));
}
