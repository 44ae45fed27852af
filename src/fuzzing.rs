//! Ways into private parsers for `tests/fuzz`, so that nothing has to be public for its sake.
#![forbid(unsafe_code)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use crate::config::{Freshness, Report, Services, Syntax};
use crate::crypto::{PublicKey, Secret};
use crate::frame::Syn;
use crate::knock::{cert, sequence, spa};
use crate::migrate::{self, Kind};
use crate::text::Moment;
use crate::time::Timestamp;
use crate::x509::chain::{Authorities, Numbers};
use crate::x509::crl::Crl;
use crate::x509::keystore;
use crate::x509::leaf::{Certificate, Leaf};
use crate::x509::request::Request;
use crate::{
    ca, cli, client, config, control, doctor, enrol, files, nft, passphrase, privsep, profile, state, x509,
};

/// Reads the text of `knockd-rs.toml`, and after a line of `===` a profile beside it: every error as it is printed. `None`
/// for settings that are no TOML.
#[must_use]
pub fn settings(text: &str) -> Option<Vec<String>> {
    match text.split_once("\n===\n") {
        Some((settings, profile)) => config::check_settings(settings, Some(profile)),
        None => config::check_settings(text, None),
    }
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

/// Takes bytes for what a knock with a certificate shows: a body, a certificate, a request for one.
///
/// # Panics
/// When something was read that is not in the bytes, or that a terminal would obey.
pub fn certificate(bytes: &[u8]) {
    cert::check_body(bytes);
    if let Some(certificate) = Certificate::parse(bytes) {
        assert!(bytes.windows(certificate.signed.len()).any(|window| window == certificate.signed));
        if let Some(leaf) = Leaf::read(&certificate) {
            assert!(!leaf.to_string().chars().any(char::is_control), "a name that talks to terminals");
            assert_eq!(leaf.issuer.der, certificate.issuer);
        }
    }
    if let Ok(request) = Request::read(bytes)
        && bytes.first() == Some(&0x30)
    {
        assert!(bytes.windows(request.key.len()).any(|window| window == request.key), "a key from nowhere");
    }
}

/// Takes bytes for a revocation list, or a file of several.
///
/// # Panics
/// When one has more serial numbers than bytes, or a number that is too long.
pub fn revocations(bytes: &[u8]) {
    for der in x509::revocation_lists(bytes) {
        if let Ok(crl) = Crl::parse(&der) {
            assert!(crl.number.len() <= 20 && crl.number.first() != Some(&0));
            assert!(2 * crl.serials().len() <= der.len());
            assert!(crl.serials().all(|serial| crl.is_revoked(serial)));
        }
    }
    assert!(x509::certificates(bytes).iter().map(Vec::len).sum::<usize>() <= bytes.len());
}

/// Takes bytes for a file with a private key, encrypted or not, and for PKCS#12.
pub fn keys(bytes: &[u8]) {
    let passphrase = || Ok::<_, keystore::KeyError>(zeroize::Zeroizing::new(b"passphrase".to_vec()));
    if let Ok(key) = keystore::read_key(bytes, passphrase) {
        let _ = client::cert::Identity::new(&key, &x509::certificates(bytes));
    }
    // As DER that is encrypted, without the fuzzer's having to find out how base64 goes.
    let _ = keystore::read_key(x509::pem("ENCRYPTED PRIVATE KEY", bytes).as_bytes(), passphrase);
    if let Ok(store) = keystore::read_pkcs12(bytes, b"passphrase") {
        let _ = client::cert::Identity::new(&store.key, &store.certificates);
    }
}

/// Puts bytes in the place of an authority, its revocation list or a certificate, beside two that are good, and asks
/// whether the certificate is.
///
/// # Panics
/// When something counts that nobody has signed.
pub fn chain(bytes: &[u8], authority: &[u8], list: &[u8], leaf: &[u8]) {
    let Some((place, bytes)) = bytes.split_first() else { return };
    let [authority, list, leaf] = match place % 3 {
        0 => [bytes, list, leaf],
        1 => [authority, bytes, leaf],
        _ => [authority, list, bytes],
    }
    .map(<[u8]>::to_vec);
    let at = Timestamp::from_secs(1_800_000_000);
    let (authorities, complaints) =
        Authorities::new(&[authority], std::slice::from_ref(&list), &Numbers::new(), Duration::from_secs(60));
    assert!(complaints.iter().all(|complaint| !complaint.chars().any(char::is_control)), "{complaints:?}");
    let _ = (authorities.troubles(at), authorities.next_change(at), authorities.latest_update());
    let Some(certificate) = Certificate::parse(&leaf) else { return };
    let Some(read) = Leaf::read(&certificate) else { return };
    if let Some(issuer) = authorities.issuer(&certificate, at)
        && authorities.judge(&leaf, &certificate, &read, issuer, at).is_ok()
    {
        assert!(certificate.not_before <= at && at <= certificate.not_after);
        assert!(authorities.numbers().next().is_some(), "good without a list");
        assert!(authorities.revoked().all(|(_, serial)| serial != certificate.serial), "revoked and good");
    }
}

/// Says bytes at the control socket, as a commander and as a reader.
///
/// # Panics
/// When a command is written differently, when a reader may change something, or when an answer is more than a line.
pub fn command(bytes: &[u8]) {
    for may_change in [true, false] {
        let Ok((command, answer)) = control::hear_peer(bytes, may_change) else { return };
        if let Some(command) = command {
            assert!(may_change || command.is_look(), "a reader may {command:?}");
            let written = serde_json::to_vec(&command).unwrap_or_default();
            assert!(serde_json::from_slice::<control::Command>(&written).is_ok_and(|again| again == command));
        } else if !answer.is_empty() {
            let reply = serde_json::from_slice::<control::Reply>(&answer);
            assert!(matches!(reply, Ok(control::Reply::Refused(_))), "{answer:?}");
            assert_eq!(answer.iter().filter(|byte| **byte == b'\n').count(), 1);
        }
    }
}

/// Hears bytes as what a daemon says, and shows it.
///
/// # Panics
/// When a terminal would obey any of it.
pub fn replies(bytes: &[u8]) {
    for reply in control::hear_daemon(bytes).unwrap_or_default() {
        cli::check_reply(&reply);
    }
}

/// Takes bytes for the brief of a worker.
///
/// # Panics
/// When what was read is written differently.
pub fn brief(bytes: &[u8]) {
    privsep::check_brief(bytes);
}

/// Takes bytes for the books that are kept between runs: guards, last knocks, numbers of revocation lists, an
/// authority's index.
///
/// # Panics
/// When what was read is written differently.
pub fn books(bytes: &[u8]) {
    privsep::check_books(bytes);
    if let Ok(text) = std::str::from_utf8(bytes) {
        state::numbers::check(text);
        ca::check_index(text);
    }
}

/// Takes bytes for what the kernel and other programs say of this machine: tables of `/proc/net`, processes, users, a
/// listing of `nft`, the owner of a connection.
///
/// # Panics
/// When something was found that is not in them.
pub fn system(bytes: &[u8]) {
    client::proxy::check_owner(bytes);
    if let Ok(text) = std::str::from_utf8(bytes) {
        client::network::check(text);
        doctor::look::check(text);
        files::check_accounts(text);
        nft::check_listing(text);
    }
}

/// Takes bytes for the files that a client keeps: counters, at a time that the first bytes say, and networks.
///
/// # Panics
/// When what was read is written differently, or a counter counts twice.
pub fn memory(bytes: &[u8]) {
    if let Some((now, rest)) = bytes.split_first_chunk()
        && let Some(line) = rest.first_chunk()
    {
        client::counter::check(line, Timestamp::from_nanos(u64::from_be_bytes(*now)));
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        client::memory::check(text);
    }
}

/// Puts the lines for a server into a file of ssh's.
///
/// # Panics
/// When other lines are changed, or the same is not the same a second time.
pub fn ssh_config(text: &str) {
    cli::check_ssh_config(text);
}

/// Takes keys that were pressed for a line.
///
/// # Panics
/// When it is longer than it may be.
pub fn typed(bytes: &[u8]) {
    passphrase::check(bytes);
}

/// Makes a knock of a packet, which may be a SYN.
///
/// # Panics
/// When it goes to somewhere else, or carries something else.
pub fn syn(packet: &[u8]) {
    let syn = Syn { sequence: 0x0102_0304, timestamp: Some(0x0506_0708) };
    let [v4, v6]: [(IpAddr, IpAddr); 2] = [
        (Ipv4Addr::new(192, 0, 2, 1).into(), Ipv4Addr::new(198, 51, 100, 7).into()),
        (
            Ipv6Addr::from(0x2001_0db8_u128 << 96 | 1).into(),
            Ipv6Addr::from(0x2001_0db8_u128 << 96 | 7).into(),
        ),
    ];
    for (source, destination) in [v4, v6] {
        client::check_packet(packet, source, (destination, 62_201).into(), syn);
    }
}
