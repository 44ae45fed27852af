//! Private keys and revocation lists in the forms in which the real `openssl` writes them, and in those that are not
//! read.
#![cfg(feature = "client")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail as tests do"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use knockd_rs::client::cert::{Identity, IdentityError};
use knockd_rs::x509::crl::{Crl, CrlError};
use knockd_rs::x509::keystore::{KeyError, read_key, read_pkcs12};
use knockd_rs::x509::{certificates, pem, revocation_lists};
use proptest::prelude::*;
use zeroize::Zeroizing;

#[path = "common/pki.rs"]
mod pki;

use pki::{Authority, CLIENT, Issued, run};

const PASSPHRASE: &[u8] = "gr\u{fc}ne Wiese".as_bytes();

struct Office {
    dir: tempfile::TempDir,
    ca: Authority,
}

impl Office {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("word"), PASSPHRASE).unwrap();
        let ca = Authority::new(dir.path(), "Root");
        Self { dir, ca }
    }

    /// What `openssl` writes with these words; `WORD` stands for the passphrase's file.
    fn openssl(&self, words: &[&str]) -> Vec<u8> {
        let out = self.dir.path().join("out");
        let word = format!("file:{}", self.dir.path().join("word").display());
        let words = words.iter().map(|one| if *one == "WORD" { word.as_str() } else { one });
        run(Command::new("openssl").args(words).arg("-out").arg(&out));
        fs::read(out).unwrap()
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn read(file: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    read_key(file, || Ok(Zeroizing::new(PASSPHRASE.to_vec())))
}

fn certificate(issued: &Issued) -> Vec<Vec<u8>> {
    certificates(&fs::read(&issued.certificate).unwrap())
}

#[test]
fn every_form_of_a_key_is_the_same_key() {
    let office = Office::new();
    for kind in ["ed25519", "p256", "p384", "rsa2048"] {
        let issued = office.ca.issue(kind, kind, CLIENT);
        let key = text(&issued.key);
        let mut forms = vec![
            fs::read(&issued.key).unwrap(),
            office.openssl(&["pkcs8", "-topk8", "-nocrypt", "-outform", "DER", "-in", key]),
            office.openssl(&["pkcs8", "-topk8", "-in", key, "-passout", "WORD"]),
            office.openssl(&["pkcs8", "-topk8", "-v2", "aes-128-cbc", "-in", key, "-passout", "WORD"]),
            office.openssl(&["pkcs8", "-topk8", "-scrypt", "-in", key, "-passout", "WORD"]),
        ];
        if kind != "ed25519" {
            forms.push(office.openssl(&["pkey", "-traditional", "-in", key]));
        }
        for (number, form) in forms.iter().enumerate() {
            let key = read(form).unwrap_or_else(|error| panic!("{kind} {number}: {error}"));
            assert!(Identity::new(&key, &certificate(&issued)).is_ok(), "{kind} {number}");
        }
    }
}

#[test]
fn a_pkcs12_file_holds_key_and_chain() {
    let office = Office::new();
    let issued = office.ca.issue("alice", "p256", CLIENT);
    let ca = office.ca.certificate();
    let words = ["pkcs12", "-export", "-inkey", text(&issued.key), "-in", text(&issued.certificate)];
    let plain = office.openssl(&[&words[..], &["-certfile", text(&ca), "-passout", "WORD"]].concat());
    let store = read_pkcs12(&plain, PASSPHRASE).unwrap();
    assert_eq!(store.certificates.len(), 2);
    let backwards: Vec<Vec<u8>> = store.certificates.iter().rev().cloned().collect();
    assert!(Identity::new(&store.key, &backwards).is_ok(), "the right one is found among them");
    let bare =
        office.openssl(&[&words[..], &["-keypbe", "NONE", "-certpbe", "NONE", "-passout", "WORD"]].concat());
    assert!(read_pkcs12(&bare, PASSPHRASE).is_ok());
    assert_eq!(read_pkcs12(&bare, b"wrong").err(), Some(KeyError::Passphrase), "the mac alone");
    assert_eq!(read_pkcs12(&plain, b"wrong").err(), Some(KeyError::Passphrase));
    assert_eq!(read_pkcs12(&plain, &[0xff]).err(), Some(KeyError::Passphrase));
    let without_mac = office.openssl(&[&words[..], &["-nomac", "-passout", "WORD"]].concat());
    assert!(read_pkcs12(&without_mac, PASSPHRASE).is_ok());
    assert_eq!(read_pkcs12(&without_mac, b"wrong").err(), Some(KeyError::Passphrase));
    let no_key = office.openssl(&["pkcs12", "-export", "-nokeys", "-in", text(&ca), "-passout", "WORD"]);
    assert_eq!(read_pkcs12(&no_key, PASSPHRASE).err(), Some(KeyError::NoKey));
}

/// One element of DER; what is shorter than 128 bytes.
fn element(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    [&[tag, u8::try_from(content.len()).unwrap()], &content[..]].concat()
}

/// A private key as `openssl pkcs8 -scrypt` writes it, with this cost (RFC 7914, section 7).
fn sealed_by_scrypt(cost: &[u8], block: u8) -> Vec<u8> {
    const SCRYPT: &[u8] = &[0x06, 9, 0x2b, 6, 1, 4, 1, 0xda, 0x47, 4, 0x0b];
    const PBES2: &[u8] = &[0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 5, 13];
    const AES256_CBC: &[u8] = &[0x06, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 1, 42];
    let numbers = [element(2, &[cost]), element(2, &[&[block]]), element(2, &[&[1]])].concat();
    let cost = element(0x30, &[SCRYPT, &element(0x30, &[&element(4, &[&[7; 8]]), &numbers])]);
    let cipher = element(0x30, &[AES256_CBC, &element(4, &[&[9; 16]])]);
    let scheme = element(0x30, &[PBES2, &element(0x30, &[&cost, &cipher])]);
    pem("ENCRYPTED PRIVATE KEY", &element(0x30, &[&scheme, &element(4, &[&[5; 16]])])).into_bytes()
}

#[test]
fn a_key_file_that_asks_for_more_memory_than_there_is_is_refused_at_once() {
    assert_eq!(
        read(&sealed_by_scrypt(&[0x40, 0], 8)),
        Err(KeyError::Passphrase),
        "16 MiB, as openssl has it"
    );
    assert_eq!(read(&sealed_by_scrypt(&[0x10, 0, 0, 0, 0], 8)), Err(KeyError::TooDear), "64 TiB");
    assert_eq!(read(&sealed_by_scrypt(&[0x20, 0, 0], 8)), Err(KeyError::TooDear), "2 GiB");
}

#[test]
fn a_key_file_without_a_cost_is_an_error_and_no_panic() {
    assert_eq!(read(&sealed_by_scrypt(&[0], 8)), Err(KeyError::Malformed));
    assert_eq!(read(&sealed_by_scrypt(&[0x40, 0], 0)), Err(KeyError::Malformed));
    assert!(read(&sealed_by_scrypt(&[3], 8)).is_err());
}

#[test]
fn what_is_encrypted_in_an_old_way_is_named_as_that() {
    let office = Office::new();
    let issued = office.ca.issue("alice", "p256", CLIENT);
    let key = text(&issued.key);
    let pem = office.openssl(&["pkey", "-traditional", "-aes256", "-in", key, "-passout", "WORD"]);
    assert_eq!(read(&pem), Err(KeyError::OldPem));
    let words = ["pkcs12", "-export", "-inkey", key, "-in", text(&issued.certificate), "-passout", "WORD"];
    for old in [&["-legacy", "-macalg", "sha256"][..], &["-macalg", "sha1"], &["-legacy"]] {
        let file = office.openssl(&[&words[..], old].concat());
        assert_eq!(read_pkcs12(&file, PASSPHRASE).err(), Some(KeyError::OldPkcs12), "{old:?}");
    }
    let des = office.openssl(&["pkcs8", "-topk8", "-v2", "des3", "-in", key, "-passout", "WORD"]);
    assert_eq!(read(&des), Err(KeyError::OldPkcs12));
}

#[test]
fn key_and_certificate_have_to_belong_together() {
    let office = Office::new();
    let (alice, bob) = (office.ca.issue("alice", "p256", CLIENT), office.ca.issue("bob", "p256", CLIENT));
    let key = read(&fs::read(&alice.key).unwrap()).unwrap();
    let refused = |key: &[u8], certificates: &[Vec<u8>]| Identity::new(key, certificates).err();
    assert_eq!(refused(&key, &certificate(&bob)), Some(IdentityError::Foreign));
    assert_eq!(refused(&key, &[]), Some(IdentityError::NoCertificate));
    assert_eq!(refused(b"no key", &certificate(&alice)), Some(IdentityError::Key));
    let p521 = office.ca.issue("p521", "p521", CLIENT);
    let key = read(&fs::read(&p521.key).unwrap()).unwrap();
    assert_eq!(refused(&key, &certificate(&p521)), Some(IdentityError::Key));
    assert_eq!(read(&fs::read(&alice.certificate).unwrap()), Err(KeyError::NoKey));
}

fn list(text: &str) -> Vec<u8> {
    revocation_lists(text.as_bytes()).remove(0)
}

#[test]
fn a_revocation_list_is_its_authoritys_and_says_what_it_revokes() {
    let office = Office::new();
    let issued = office.ca.issue("alice", "p256", CLIENT);
    office.ca.revoke(&issued);
    let crl = Crl::parse(&list(&office.ca.crl())).unwrap();
    assert_eq!((crl.number.as_slice(), crl.serials().len()), (&[0x10, 0x00][..], 1));
    assert_eq!(crl.next_update.since(crl.this_update).as_secs(), 30 * 86_400);
    let der = |path: PathBuf| certificates(&fs::read(path).unwrap()).remove(0);
    assert_eq!(crl.verify(&der(office.ca.certificate())), Ok(()));
    let other = Authority::new(office.dir.path(), "Other");
    assert_eq!(crl.verify(&der(other.certificate())), Err(CrlError::Issuer));
    let forger = Authority::named(office.dir.path(), "forger", "Root");
    assert_eq!(crl.verify(&der(forger.certificate())), Err(CrlError::Signature));
}

#[test]
fn a_list_that_says_less_than_it_seems_to_is_refused() {
    let office = Office::new();
    let with = |extensions: &str| {
        let config = office.dir.path().join("Root/ca.conf");
        let text = fs::read_to_string(&config).unwrap();
        fs::write(&config, text.replace("authorityKeyIdentifier = keyid:always\n", extensions)).unwrap();
        let crl = Crl::parse(&list(&office.ca.crl()));
        fs::write(&config, text).unwrap();
        crl.map(|crl| crl.number)
    };
    assert!(with("authorityKeyIdentifier = keyid:always\n").is_ok());
    assert_eq!(with("2.5.29.27 = critical, ASN1:INTEGER:1\n"), Err(CrlError::Extension), "a delta");
    let partial = "issuingDistributionPoint = critical, @part\n[part]\nonlyCA = TRUE\n";
    assert_eq!(with(partial), Err(CrlError::Extension));
    assert_eq!(with("1.2.3.4 = critical, ASN1:NULL\n"), Err(CrlError::Extension));
    let mut der = list(&office.ca.crl());
    // The identifier of cRLNumber, 2.5.29.20, becomes another one.
    let at = der.windows(5).position(|window| window == [6, 3, 0x55, 0x1d, 0x14]).unwrap();
    der[at + 4] = 0x63;
    assert_eq!(Crl::parse(&der).err(), Some(CrlError::NoNumber));
}

#[test]
fn half_a_file_is_no_file() {
    let office = Office::new();
    let issued = office.ca.issue("alice", "ed25519", CLIENT);
    let words = ["pkcs12", "-export", "-inkey", text(&issued.key), "-in", text(&issued.certificate)];
    // No key derivation of many rounds for each of these.
    let pfx = office.openssl(
        &[&words[..], &["-keypbe", "NONE", "-certpbe", "NONE", "-nomac", "-passout", "WORD"]].concat(),
    );
    let crl = list(&office.ca.crl());
    assert!(read_pkcs12(&pfx, b"").is_ok() && Crl::parse(&crl).is_ok());
    (0..pfx.len()).for_each(|len| assert!(read_pkcs12(&pfx[..len], b"").is_err(), "{len}"));
    (0..crl.len()).for_each(|len| assert!(Crl::parse(&crl[..len]).is_err(), "{len}"));
}

proptest! {
    #[test]
    fn no_bytes_make_the_readers_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..600), nested: bool) {
        if nested && bytes.len() > 8 {
            bytes[..4].copy_from_slice(&[0x30, 0x82, 0, 0]);
            let len = u16::try_from(bytes.len() - 4).unwrap().to_be_bytes();
            bytes[2..4].copy_from_slice(&len);
        }
        let _ = read_pkcs12(&bytes, b"");
        let _ = Crl::parse(&bytes);
        let _ = read(&bytes);
        let _ = Identity::new(&bytes, &[bytes.clone()]);
    }
}
