//! The small authority, held against the real openssl.
#![cfg(feature = "daemon")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

const KNOCKD: &str = env!("CARGO_BIN_EXE_knockd-rs");

/// A directory with an authority in `ca`.
struct Bench(tempfile::TempDir);

impl Bench {
    fn new() -> Self {
        let bench = Self(tempfile::tempdir().unwrap());
        assert!(
            bench.ca(&["init", "--name", "Example knock CA"]).contains("made the authority Example knock CA")
        );
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Output {
        Command::new(program).args(arguments).current_dir(self.0.path()).output().unwrap()
    }

    /// Runs a command of `ca`, which has to succeed; what it printed.
    fn ca(&self, arguments: &[&str]) -> String {
        let output = self.try_ca(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", said(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    fn try_ca(&self, arguments: &[&str]) -> Output {
        let dir: &[&str] = if arguments[0] == "request" { &[] } else { &["--dir", "ca"] };
        self.run(KNOCKD, &[&["ca"][..], arguments, dir].concat())
    }

    /// Runs openssl, which has to succeed; everything that it printed.
    fn openssl(&self, words: &str) -> String {
        let output = self.run("openssl", &words.split_whitespace().collect::<Vec<_>>());
        assert!(output.status.success(), "openssl {words}: {}", said(&output));
        said(&output)
    }

    fn list(&self) -> Vec<Value> {
        serde_json::from_str::<Value>(&self.ca(&["list", "--json"])).unwrap().as_array().unwrap().clone()
    }
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o777
}

#[test]
fn a_client_makes_a_key_and_the_authority_certifies_it() {
    let bench = Bench::new();
    bench.ca(&["request", "--name", "alice", "--out", "alice"]);
    assert_eq!((mode(&bench.path("alice.key")), mode(&bench.path("ca/ca.key"))), (0o600, 0o600));
    let sign =
        ["sign-csr", "alice.csr", "--name", "alice", "--open", "tcp/22", "--open", "ssh", "--max", "1h"];
    let output = bench.try_ca(&[&sign[..], &["--days", "30", "--out", "alice.pem"]].concat());
    assert!(output.status.success(), "{}", said(&output));
    let size: usize = said(&output).rsplit("; ").next().unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!(size < 700, "{size} bytes");

    bench.openssl("verify -purpose sslclient -CAfile ca/ca.pem alice.pem");
    let text = bench.openssl("x509 -noout -text -in alice.pem");
    for expected in [
        "Issuer: CN = Example knock CA",
        "Subject: CN = alice",
        "X509v3 Key Usage: critical\n                Digital Signature\n",
        "TLS Web Client Authentication",
        "URI:knock:tcp/22?max=3600, URI:knock:svc/ssh?max=3600",
        "CA:FALSE",
        "X509v3 Authority Key Identifier",
    ] {
        // openssl 3.2 and later write no blanks around "=".
        let found = text.contains(expected) || text.contains(&expected.replace(" = ", "="));
        assert!(found, "{expected}\n{text}");
    }
    let key = bench.openssl("pkey -in alice.key -pubout");
    assert!(bench.openssl("x509 -in alice.pem -noout -pubkey").contains(key.trim()), "the client's own key");
    let [entry] = &bench.list()[..] else { panic!("one certificate") };
    assert_eq!((entry["name"].as_str(), entry["state"].as_str()), (Some("alice"), Some("valid")));
    let serial = bench.openssl("x509 -in alice.pem -noout -serial").trim().to_lowercase();
    assert_eq!(serial, format!("serial={}", entry["serial"].as_str().unwrap()));
}

#[test]
fn the_authority_is_one_that_openssl_accepts() {
    let bench = Bench::new();
    bench.openssl("verify -x509_strict -CAfile ca/ca.pem ca/ca.pem");
    let text = bench.openssl("x509 -noout -text -in ca/ca.pem");
    for expected in ["CA:TRUE, pathlen:0", "Certificate Sign, CRL Sign", "X509v3 Basic Constraints: critical"]
    {
        assert!(text.contains(expected), "{expected}\n{text}");
    }
    bench.openssl("crl -in ca/crl.pem -noout -verify -CAfile ca/ca.pem");
    assert!(bench.openssl("crl -in ca/crl.pem -noout -crlnumber").contains("=0x01"), "the first list");
}

#[test]
fn keys_of_every_kind_that_openssl_makes_are_certified_and_weak_ones_are_not() {
    let bench = Bench::new();
    for (name, key) in [
        ("ed25519", "-algorithm ed25519"),
        ("p256", "-algorithm ec -pkeyopt ec_paramgen_curve:P-256"),
        ("p384", "-algorithm ec -pkeyopt ec_paramgen_curve:P-384"),
        ("rsa2048", "-algorithm rsa -pkeyopt rsa_keygen_bits:2048"),
    ] {
        bench.openssl(&format!("genpkey {key} -out {name}.key"));
        // What the request would like to be: an authority for everything. None of it is taken.
        fs::write(
            bench.path("wish.cnf"),
            "[req]\ndistinguished_name=d\nreq_extensions=e\n[d]\n[e]\nbasicConstraints=CA:TRUE\n\
             extendedKeyUsage=serverAuth\nsubjectAltName=URI:knock:tcp/1-65535\n",
        )
        .unwrap();
        bench.openssl(&format!("req -new -key {name}.key -subj /CN=root -config wish.cnf -out {name}.csr"));
        let csr = format!("{name}.csr");
        bench.ca(&["sign-csr", &csr, "--name", name, "--open", "tcp/22", "--out", &format!("{name}.pem")]);
        bench.openssl(&format!("verify -purpose sslclient -CAfile ca/ca.pem {name}.pem"));
        let text = bench.openssl(&format!("x509 -noout -text -in {name}.pem"));
        assert!(text.contains("CA:FALSE") && text.contains("URI:knock:tcp/22\n"), "{text}");
        assert!(
            !text.contains("65535") && !text.contains("Web Server") && !text.contains("CN = root"),
            "{text}"
        );
    }
    bench.openssl("genpkey -algorithm rsa -pkeyopt rsa_keygen_bits:1024 -out weak.key");
    bench.openssl("req -new -key weak.key -subj /CN=weak -out weak.csr");
    let output = bench.try_ca(&["sign-csr", "weak.csr", "--name", "weak"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(said(&output).contains("weak.csr: has a key of a kind that cannot knock"), "{}", said(&output));
    assert_eq!(bench.list().len(), 4);
}

#[test]
fn a_request_that_was_changed_is_refused() {
    let bench = Bench::new();
    bench.ca(&["request", "--name", "alice", "--out", "alice"]);
    bench.openssl("req -in alice.csr -outform DER -out alice.der");
    let mut der = fs::read(bench.path("alice.der")).unwrap();
    let name = der.windows(5).position(|part| part == b"alice").unwrap();
    der[name] = b'm';
    fs::write(bench.path("malice.der"), der).unwrap();
    let output = bench.try_ca(&["sign-csr", "malice.der", "--name", "alice"]);
    assert!(said(&output).contains("is not signed by the key that is in it"), "{}", said(&output));
    for (name, text) in [("empty", ""), ("text", "hello"), ("ca/ca.pem", "")] {
        if !name.starts_with("ca/") {
            fs::write(bench.path(name), text).unwrap();
        }
        let output = bench.try_ca(&["sign-csr", name, "--name", "alice"]);
        assert!(said(&output).contains("is no certificate request"), "{name}: {}", said(&output));
    }
}

#[test]
fn what_is_revoked_is_in_the_next_list_and_numbers_only_rise() {
    let bench = Bench::new();
    for name in ["alice", "alice", "bob"] {
        let out = format!("{name}{}", bench.list().len());
        bench.ca(&["issue", "--name", name, "--out", &out]);
    }
    let serial = |place: usize| bench.list()[place]["serial"].as_str().unwrap().to_owned();
    assert!(
        bench
            .ca(&["revoke", &serial(0).to_uppercase(), "--reason", "key-compromise"])
            .contains("revoked alice")
    );
    let list = bench.openssl("crl -in ca/crl.pem -noout -text");
    assert!(list.contains(&serial(0).to_uppercase()) && list.contains("Key Compromise"), "{list}");
    assert!(!list.contains(&serial(1).to_uppercase()), "{list}");
    assert!(bench.ca(&["revoke", "alice"]).contains(&serial(1)));
    assert!(bench.ca(&["crl", "--valid", "1h"]).contains("number 4, good for 1h"));
    bench.openssl("crl -in ca/crl.pem -noout -verify -CAfile ca/ca.pem");
    assert!(bench.openssl("crl -in ca/crl.pem -noout -crlnumber").contains("=0x04"));
    let states: Vec<String> =
        bench.list().iter().map(|entry| entry["state"].as_str().unwrap().to_owned()).collect();
    assert_eq!(states, ["revoked", "revoked", "valid"]);
    // openssl sees it the same way.
    let bundle =
        ["ca/ca.pem", "ca/crl.pem"].map(|name| fs::read_to_string(bench.path(name)).unwrap()).concat();
    fs::write(bench.path("both.pem"), bundle).unwrap();
    let verify = |name: &str| bench.run("openssl", &["verify", "-crl_check", "-CAfile", "both.pem", name]);
    assert!(said(&verify("alice0.pem")).contains("certificate revoked"));
    assert!(verify("bob2.pem").status.success());
    let output = bench.try_ca(&["revoke", "alice"]);
    assert!(
        said(&output).contains("alice was revoked before; a new list that says so has been written"),
        "{}",
        said(&output)
    );
}

#[test]
fn a_revoked_certificate_stays_on_the_list_until_one_was_made_after_its_end() {
    let bench = Bench::new();
    bench.ca(&["issue", "--name", "alice", "--out", "alice"]);
    let serial = bench.list()[0]["serial"].as_str().unwrap().to_uppercase();
    bench.ca(&["revoke", "alice"]);
    // The certificate's end is moved to this moment: whole seconds, and lists are dated by them.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let index = fs::read_to_string(bench.path("ca/index.jsonl")).unwrap();
    let until = bench.list()[0]["until"].as_u64().unwrap();
    fs::write(bench.path("ca/index.jsonl"), index.replace(&until.to_string(), &(now + 1).to_string()))
        .unwrap();
    let is_listed = || bench.openssl("crl -in ca/crl.pem -noout -text").contains(&serial);
    std::thread::sleep(std::time::Duration::from_millis(2100));
    bench.ca(&["crl"]);
    assert!(is_listed(), "the first list after its end");
    bench.ca(&["crl"]);
    assert!(!is_listed(), "the second");
}

#[test]
fn a_revocation_whose_certificate_the_index_lost_stays_on_the_list() {
    let bench = Bench::new();
    bench.ca(&["issue", "--name", "alice", "--out", "alice"]);
    let serial = bench.list()[0]["serial"].as_str().unwrap().to_uppercase();
    bench.ca(&["revoke", "alice"]);
    let index = fs::read_to_string(bench.path("ca/index.jsonl")).unwrap();
    let without: Vec<&str> = index.lines().filter(|line| !line.contains("\"alice\"")).collect();
    fs::write(bench.path("ca/index.jsonl"), without.join("\n") + "\n").unwrap();
    bench.ca(&["crl"]);
    assert!(bench.openssl("crl -in ca/crl.pem -noout -text").contains(&serial));
}

#[test]
fn the_table_of_certificates_can_be_read() {
    let bench = Bench::new();
    assert!(bench.ca(&["list"]).contains("no certificate yet"));
    bench.ca(&["issue", "--name", "alice", "--open", "tcp/22", "--out", "alice"]);
    bench.ca(&["issue", "--name", "bob", "--out", "bob"]);
    let table = bench.ca(&["list"]);
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines[0].starts_with("NAME ") && lines[0].ends_with("ALLOWS"), "{table}");
    assert!(lines[1].starts_with("alice ") && lines[1].ends_with("valid    knock:tcp/22"), "{table}");
    assert!(lines[2].starts_with("bob ") && lines[2].ends_with("valid    by table"), "{table}");
}

#[test]
fn mistakes_are_told_and_cost_nothing() {
    let bench = Bench::new();
    let told = |arguments: &[&str], words: &str, code: i32| {
        let output = bench.try_ca(arguments);
        assert!(said(&output).contains(words), "{arguments:?}: {}", said(&output));
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
    };
    told(&["init", "--name", "again"], "ca is not empty; choose another directory", 1);
    told(&["issue", "--name", "", "--out", "x"], "is no name; use 1 to 64 characters", 2);
    told(&["issue", "--name", "x", "--out", "x", "--days", "0"], "0 is not in 1..=3650", 2);
    told(&["issue", "--name", "x", "--out", "x", "--open", "tcp/0"], "tcp/0", 2);
    told(
        &["revoke", "x", "--reason", "boredom"],
        "`boredom` is no reason; use unspecified, key-compromise",
        2,
    );
    told(&["sign-csr", "nothing.csr", "--name", "x"], "nothing.csr: there is no such file", 1);
    let nowhere = bench.run(KNOCKD, &["ca", "list", "--dir", "nowhere"]);
    assert!(
        said(&nowhere).contains("nowhere: there is no authority here; `knockd-rs ca init`"),
        "{}",
        said(&nowhere)
    );
    // A key of somebody else's in the place of the authority's own.
    bench.openssl("genpkey -algorithm ec -pkeyopt ec_paramgen_curve:P-256 -out other.key");
    fs::copy(bench.path("other.key"), bench.path("ca/ca.key")).unwrap();
    told(&["issue", "--name", "x", "--out", "y"], "ca.key is not the key of ca.pem", 3);
    assert_eq!(fs::read_to_string(bench.path("ca/index.jsonl")).unwrap().lines().count(), 2);
}

#[test]
fn two_at_once_do_not_give_one_number_to_two_lists() {
    let bench = Bench::new();
    let start =
        || Command::new(KNOCKD).args(["ca", "crl", "--dir", "ca"]).current_dir(bench.0.path()).spawn();
    let children: Vec<_> = (0..8).map(|_| start().unwrap()).collect();
    let done =
        children.into_iter().filter_map(|mut child| child.wait().unwrap().success().then_some(())).count();
    assert!(done >= 1);
    assert!(bench.ca(&["crl"]).contains(&format!("number {}", done + 2)));
}

#[test]
fn the_recipe_for_openssl_in_the_manual_makes_what_is_accepted() {
    let bench = Bench::new();
    let manual = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/man/knockd-rs.8")).unwrap();
    let (_, recipe) = manual.split_once(".Xr openssl 1 :\n").unwrap();
    // As a reader types it: an authority, a client, a list; the last command again after a revocation.
    let mut displays = recipe.split(".Bd -literal -offset indent\n").skip(1);
    let mut shell = || {
        let (commands, _) = displays.next().unwrap().split_once(".Ed").unwrap();
        let output = bench.run("sh", &["-euc", &commands.replace("\\e", "\\"), "recipe"]);
        assert!(output.status.success(), "{commands}\n{}", said(&output));
        commands.lines().rev().take(2).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n")
    };
    let fetch = || {
        let url = format!("file://{}", bench.path("crl.pem").display());
        bench.run(KNOCKD, &["crl-fetch", "--url", &url, "--ca", "ca.pem", "--out", "out.pem"])
    };
    let list_again = shell().replace("\\e", "\\");
    bench.openssl("verify -x509_strict -purpose sslclient -CAfile ca.pem alice.pem");
    assert!(bench.openssl("x509 -noout -ext subjectAltName -in alice.pem").contains("URI:knock:tcp/22"));
    let first = fetch();
    assert!(said(&first).contains("out.pem is new"), "{}", said(&first));

    let revoke = bench.run(
        "sh",
        &["-euc", "openssl ca -config ca.conf -keyfile ca.key -cert ca.pem -revoke alice.pem", "revoke"],
    );
    assert!(revoke.status.success(), "{}", said(&revoke));
    assert!(manual.contains("openssl ca -config ca.conf -keyfile ca.key -cert ca.pem -revoke alice.pem"));
    let again = bench.run("sh", &["-euc", &list_again]);
    assert!(again.status.success(), "{}", said(&again));
    let second = fetch();
    assert!(said(&second).contains("out.pem is new"), "{}", said(&second));
    let serial = bench.openssl("x509 -noout -serial -in alice.pem").trim().replace("serial=", "");
    assert!(bench.openssl("crl -noout -text -in out.pem").contains(&serial), "{serial}");
}
