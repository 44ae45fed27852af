//! Fetching revocation lists: from a file, by HTTP, by HTTPS against the real openssl; and what is not believed.
#![cfg(feature = "daemon")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

const KNOCKD: &str = env!("CARGO_BIN_EXE_knockd-rs");

/// A directory with an authority in `ca`.
struct Bench(tempfile::TempDir);

impl Bench {
    fn new() -> Self {
        let bench = Self(tempfile::tempdir().unwrap());
        bench.ok(&["ca", "init", "--name", "Example", "--dir", "ca"]);
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn run(&self, arguments: &[&str]) -> Output {
        Command::new(KNOCKD)
            .args(arguments)
            .current_dir(self.0.path())
            .env_remove("http_proxy")
            .output()
            .unwrap()
    }

    fn ok(&self, arguments: &[&str]) {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", said(&output));
    }

    fn fetch(&self, url: &str) -> Output {
        self.run(&["crl-fetch", "--url", url, "--ca", "ca/ca.pem", "--out", "crl.pem", "--timeout", "5s"])
    }

    #[track_caller]
    fn is_refused(&self, url: &str, words: &str) {
        let before = fs::read(self.path("crl.pem")).ok();
        let output = self.fetch(url);
        assert!(said(&output).contains(words), "{}", said(&output));
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(fs::read(self.path("crl.pem")).ok(), before, "what was there stays");
    }

    fn file(&self, name: &str) -> String {
        format!("file://{}", self.path(name).display())
    }

    fn list(&self) -> Vec<u8> {
        fs::read(self.path("ca/crl.pem")).unwrap()
    }

    fn openssl(&self, words: &str) {
        let output =
            Command::new("openssl").args(words.split_whitespace()).current_dir(self.0.path()).output();
        let output = output.unwrap();
        assert!(output.status.success(), "openssl {words}: {}", said(&output));
    }
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Answers so many requests on loopback with these bytes; what the last request said.
fn web(answers: Vec<Vec<u8>>) -> (String, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/list", listener.local_addr().unwrap());
    let serve = move || {
        let mut request = String::new();
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            request.clear();
            let mut lines = BufReader::new(stream.try_clone().unwrap());
            while lines.read_line(&mut request).unwrap_or(0) > 2 {}
            // A client that has seen enough goes away.
            let _ = stream.write_all(&answer);
        }
        request
    };
    (url, std::thread::spawn(serve))
}

fn answer(body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

#[test]
fn a_list_is_fetched_by_file_and_by_http_and_replaced_whole() {
    let bench = Bench::new();
    let output = bench.fetch(&bench.file("ca/crl.pem"));
    assert!(output.status.success() && said(&output).contains("crl.pem is new"), "{}", said(&output));
    let first = fs::metadata(bench.path("crl.pem")).unwrap();
    assert_eq!(first.permissions().mode() & 0o777, 0o644);
    assert!(said(&bench.fetch(&bench.file("ca/crl.pem"))).contains("crl.pem is what it was"));
    assert_eq!(fs::metadata(bench.path("crl.pem")).unwrap().ino(), first.ino());

    bench.ok(&["ca", "crl", "--dir", "ca"]);
    // As DER, which is what most authorities hand out.
    bench.openssl("crl -in ca/crl.pem -outform DER -out list.der");
    let (url, server) = web(vec![answer(&fs::read(bench.path("list.der")).unwrap())]);
    let output = bench.fetch(&url);
    assert!(output.status.success(), "{}", said(&output));
    let request = server.join().unwrap();
    assert!(request.starts_with("GET /list HTTP/1.1") && request.contains("knockd-rs/"), "{request}");
    assert_eq!(fs::read(bench.path("crl.pem")).unwrap(), bench.list());
    assert_ne!(fs::metadata(bench.path("crl.pem")).unwrap().ino(), first.ino(), "a new file by rename");
}

#[test]
fn a_list_that_is_forged_old_or_over_does_not_replace_a_good_one() {
    let bench = Bench::new();
    let first = bench.list();
    fs::write(bench.path("first.pem"), &first).unwrap();
    bench.ok(&["ca", "crl", "--dir", "ca"]);
    assert!(bench.fetch(&bench.file("ca/crl.pem")).status.success());
    bench.is_refused(
        &bench.file("first.pem"),
        "the list has number 01, and number 02, which is newer, is here",
    );

    bench.openssl("crl -in ca/crl.pem -outform DER -out list.der");
    let mut forged = fs::read(bench.path("list.der")).unwrap();
    let last = forged.len() - 1;
    forged[last] ^= 1;
    fs::write(bench.path("forged.der"), forged).unwrap();
    bench.is_refused(&bench.file("forged.der"), "is not signed by the authority that it names");

    bench.ok(&["ca", "init", "--name", "Another", "--dir", "other"]);
    bench.is_refused(&bench.file("other/crl.pem"), "was issued by another authority");
    bench.ok(&["ca", "init", "--name", "Example", "--dir", "namesake"]);
    bench.is_refused(&bench.file("namesake/crl.pem"), "is not signed by the authority that it names");

    fs::write(bench.path("text"), "<html>not found</html>").unwrap();
    bench.is_refused(&bench.file("text"), "is no revocation list, or a damaged one");
    fs::write(bench.path("two.pem"), [bench.list(), first].concat()).unwrap();
    bench.is_refused(&bench.file("two.pem"), "2 lists were fetched");

    bench.ok(&["ca", "crl", "--valid", "1s", "--dir", "ca"]);
    std::thread::sleep(Duration::from_millis(2200));
    bench.is_refused(&bench.file("ca/crl.pem"), "the list is over since");
}

#[test]
fn a_list_with_the_number_of_the_one_in_place_counts_only_when_it_was_made_later() {
    let bench = Bench::new();
    bench.openssl("req -x509 -newkey ed25519 -nodes -keyout key.pem -out own.pem -subj /CN=Own -days 30");
    fs::write(bench.path("index"), "").unwrap();
    // openssl numbers by file; a fresh file gives the same number again.
    let make = |name: &str, made: Duration| {
        let conf = "[ca]\ndefault_ca=own\n[own]\ndatabase=index\ndefault_md=default\ncrlnumber=number\n";
        fs::write(bench.path("ca.conf"), conf).unwrap();
        fs::write(bench.path("number"), "07\n").unwrap();
        let at = |by: Duration| {
            let output = Command::new("date")
                .args(["-u", "+%Y%m%d%H%M%SZ", "-d", &format!("{} seconds ago", by.as_secs())])
                .output();
            String::from_utf8(output.unwrap().stdout).unwrap().trim().to_owned()
        };
        bench.openssl(&format!(
            "ca -config ca.conf -gencrl -keyfile key.pem -cert own.pem -crl_lastupdate {} -crldays 7 -out {name}",
            at(made)
        ));
    };
    make("old.pem", Duration::from_secs(7200));
    make("new.pem", Duration::from_secs(3600));
    let fetch = |name: &str| {
        bench.run(&["crl-fetch", "--url", &bench.file(name), "--ca", "own.pem", "--out", "crl.pem"])
    };
    for (name, words) in [
        ("old.pem", "crl.pem is new"),
        ("new.pem", "crl.pem is new"),
        ("new.pem", "crl.pem is what it was"),
        ("old.pem", "the list has number 07, and number 07, which is newer, is here"),
    ] {
        let output = fetch(name);
        assert!(said(&output).contains(words), "{name}: {}", said(&output));
    }
    assert_eq!(
        fs::read(bench.path("crl.pem")).unwrap().len(),
        fs::read(bench.path("new.pem")).unwrap().len()
    );
}

#[test]
fn an_authority_that_may_sign_certificates_only_signs_no_lists() {
    let bench = Bench::new();
    let conf = "[ca]\ndefault_ca=own\n[own]\ndatabase=index\ndefault_md=default\ncrlnumber=number\n";
    for (name, text) in [("ca.conf", conf), ("index", ""), ("number", "01\n")] {
        fs::write(bench.path(name), text).unwrap();
    }
    for (usage, words) in [
        ("keyCertSign", "keyUsage of its certificate lacks cRLSign"),
        ("keyCertSign,cRLSign", "crl.pem is new"),
    ] {
        bench.openssl(&format!(
            "req -x509 -newkey ed25519 -nodes -keyout key.pem -out own.pem -subj /CN=Own -days 30 -addext keyUsage={usage}"
        ));
        bench.openssl("ca -config ca.conf -gencrl -keyfile key.pem -cert own.pem -crldays 7 -out list.pem");
        let url = bench.file("list.pem");
        let output = bench.run(&["crl-fetch", "--url", &url, "--ca", "own.pem", "--out", "crl.pem"]);
        assert!(said(&output).contains(words), "{usage}: {}", said(&output));
    }
}

/// What step-ca writes into its lists (smallstep/certificates, authority/tls.go, `marshalDistributionPoint`), and what
/// makes a list less than a whole one.
#[test]
fn a_list_that_says_where_it_is_is_taken_and_one_that_covers_less_is_not() {
    let bench = Bench::new();
    bench.openssl(
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key.pem -out own.pem -subj /CN=Own -days 30",
    );
    for (name, text) in [("index", ""), ("number", "01\n")] {
        fs::write(bench.path(name), text).unwrap();
    }
    let fullname = "fullname=URI:https://ca.example.org/1.0/crl";
    let less = "is a partial, indirect or delta list";
    for (point, words) in [
        (format!("{fullname}\nonlyuser=TRUE"), "crl.pem is new"),
        (fullname.to_owned(), "crl.pem is new"),
        (format!("{fullname}\nonlyCA=TRUE"), less),
        (format!("{fullname}\nonlyuser=TRUE\nindirectCRL=TRUE"), less),
        (format!("{fullname}\nonlysomereasons=keyCompromise"), less),
        ("onlyAA=TRUE".to_owned(), less),
    ] {
        let conf = format!(
            "[ca]\ndefault_ca=own\n[own]\ndatabase=index\ndefault_md=default\ncrlnumber=number\n\
             crl_extensions=e\n[e]\nissuingDistributionPoint=critical,@point\n[point]\n{point}\n"
        );
        fs::write(bench.path("ca.conf"), conf).unwrap();
        bench.openssl("ca -config ca.conf -gencrl -keyfile key.pem -cert own.pem -crldays 7 -out list.pem");
        let url = bench.file("list.pem");
        let output = bench.run(&["crl-fetch", "--url", &url, "--ca", "own.pem", "--out", "crl.pem"]);
        assert!(said(&output).contains(words), "{point}: {}", said(&output));
    }
}

/// What step-ca's template and a Vault role make of the recipes in knockd-rs(8), written by openssl: neither program is
/// at hand. Lists: smallstep/certificates, authority/tls.go; the provisioner's extension is step-ca's own. Vault: a role whose
/// key_usage is DigitalSignature, KeyAgreement, KeyEncipherment, as it is unless set, and that adds no basicConstraints.
#[test]
fn certificates_and_lists_in_the_form_of_step_ca_and_vault_are_judged() {
    let bench = Bench::new();
    let step = "keyUsage=critical,digitalSignature\nextendedKeyUsage=clientAuth\nsubjectKeyIdentifier=hash\n\
                authorityKeyIdentifier=keyid\nsubjectAltName=URI:knock:tcp/22\n\
                1.3.6.1.4.1.37476.9000.64.1=ASN1:SEQUENCE:step\n[step]\ntype=INTEGER:1\nname=OCT:admin\nid=OCT:x\n";
    let vault = "keyUsage=critical,digitalSignature,keyAgreement,keyEncipherment\nextendedKeyUsage=clientAuth\n\
                 subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\nsubjectAltName=URI:knock:tcp/22\n";
    let point = "crl_extensions=e\n[e]\nauthorityKeyIdentifier=keyid\nissuingDistributionPoint=critical,@point\n\
                 [point]\nfullname=URI:https://ca.example.org/1.0/crl\nonlyuser=TRUE\n";
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    for (form, list) in [(step, point), (vault, "crl_extensions=e\n[e]\nauthorityKeyIdentifier=keyid\n")] {
        bench.openssl(&format!(
            "req -x509 {key} -keyout key.pem -out own.pem -subj /CN=Own -days 30 -addext keyUsage=keyCertSign,cRLSign"
        ));
        bench.openssl(&format!("req -new {key} -keyout leaf.key -out leaf.csr -subj /CN=alice"));
        let conf = "[ca]\ndefault_ca=own\n[own]\ndatabase=index\ndefault_md=default\ncrlnumber=number\n";
        for (name, text) in
            [("index", ""), ("number", "01\n"), ("ca.conf", &format!("{conf}{list}")), ("ext", form)]
        {
            fs::write(bench.path(name), text).unwrap();
        }
        bench.openssl("x509 -req -in leaf.csr -CA own.pem -CAkey key.pem -days 7 -extfile ext -out leaf.pem");
        let options = "ca -config ca.conf -keyfile key.pem -cert own.pem";
        bench.openssl(&format!("{options} -gencrl -crldays 7 -out list.pem"));
        assert_eq!(judged(&bench), "good", "{form}");
        bench.openssl(&format!("{options} -revoke leaf.pem"));
        bench.openssl(&format!("{options} -gencrl -crldays 7 -out list.pem"));
        assert_eq!(judged(&bench), "Revoked", "{form}");
    }
}

/// What the daemon's own judgement of leaf.pem is, by own.pem and list.pem.
fn judged(bench: &Bench) -> String {
    use knockd_rs::x509::chain::Authorities;
    use knockd_rs::x509::leaf::{Certificate, Leaf};
    use knockd_rs::x509::{certificates, revocation_lists};

    let read = |name: &str| fs::read(bench.path(name)).unwrap();
    let lists = revocation_lists(&read("list.pem"));
    let (authorities, complaints) =
        Authorities::new(&certificates(&read("own.pem")), &lists, &Default::default(), Duration::ZERO);
    assert!(complaints.is_empty(), "{complaints:?}");
    let der = certificates(&read("leaf.pem")).remove(0);
    let certificate = Certificate::parse(&der).unwrap();
    let leaf = Leaf::read(&certificate).unwrap();
    assert!(leaf.scope.is_ok(), "{:?}", leaf.scope);
    let issuer = authorities.issuer(&certificate, knockd_rs::clock::wall()).unwrap();
    let at = certificate.not_before.saturating_add(Duration::from_secs(60));
    authorities
        .judge(&der, &certificate, &leaf, issuer, at)
        .map_or_else(|rejection| format!("{rejection:?}"), |_| "good".to_owned())
}

#[test]
fn a_list_of_another_trusted_authority_does_not_take_the_place() {
    let bench = Bench::new();
    bench.ok(&["ca", "init", "--name", "Another", "--dir", "other"]);
    let both = ["ca/ca.pem", "other/ca.pem"].map(|name| fs::read(bench.path(name)).unwrap()).concat();
    fs::write(bench.path("both.pem"), both).unwrap();
    let fetch = |name: &str| {
        bench.run(&["crl-fetch", "--url", &bench.file(name), "--ca", "both.pem", "--out", "crl.pem"])
    };
    assert!(fetch("ca/crl.pem").status.success());
    let output = fetch("other/crl.pem");
    assert!(said(&output).contains("crl.pem holds the list of another authority"), "{}", said(&output));
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(fs::read(bench.path("crl.pem")).unwrap(), bench.list());
}

#[test]
fn a_damaged_list_in_place_is_replaced_by_a_good_one() {
    let bench = Bench::new();
    for text in ["", "garbage", "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n"] {
        fs::write(bench.path("crl.pem"), text).unwrap();
        assert!(bench.fetch(&bench.file("ca/crl.pem")).status.success(), "{text:?}");
        assert_eq!(fs::read(bench.path("crl.pem")).unwrap(), bench.list());
    }
}

#[test]
fn a_server_that_is_endless_wandering_broken_or_silent_is_given_up_on() {
    let bench = Bench::new();
    let (url, server) = web(vec![answer(&vec![b'x'; 8 << 20])]);
    bench.is_refused(&url, "limit");
    server.join().unwrap();

    let wander =
        b"HTTP/1.1 302 Found\r\nLocation: /again\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_vec();
    let (url, server) = web(vec![wander; 4]);
    bench.is_refused(&url, "redirect");
    server.join().unwrap();

    let (url, server) =
        web(vec![b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_vec()]);
    bench.is_refused(&url, "404");
    server.join().unwrap();

    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", silent.local_addr().unwrap());
    let output =
        bench.run(&["crl-fetch", "--url", &url, "--ca", "ca/ca.pem", "--out", "crl.pem", "--timeout", "1s"]);
    assert!(said(&output).contains("timeout"), "{}", said(&output));
    assert_eq!(bench.fetch("ftp://127.0.0.1/").status.code(), Some(2));
    assert!(!bench.path("crl.pem").exists());
}

#[test]
fn a_server_that_sends_on_to_https_is_followed_and_believed_only_by_an_authority_of_the_system() {
    let bench = Bench::new();
    // Nobody speaks TLS there: the connection fails, and nothing else.
    let deaf = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = deaf.local_addr().unwrap().port();
    let answering = std::thread::spawn(move || drop(deaf.accept()));
    let head = format!(
        "HTTP/1.1 301 Moved\r\nLocation: https://localhost:{port}/\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    let (url, server) = web(vec![head.into_bytes()]);
    let output = bench.fetch(&url);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(!said(&output).contains("panicked"), "{}", said(&output));
    server.join().unwrap();
    answering.join().unwrap();
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn https_is_believed_only_by_an_authority_that_the_system_trusts() {
    let bench = Bench::new();
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout";
    bench.openssl(&format!("req -x509 {key} root.key -out root.pem -subj /CN=Root -days 2"));
    bench.openssl(&format!("req -new {key} web.key -out web.csr -subj /CN=localhost"));
    fs::write(bench.path("web.ext"), "subjectAltName=DNS:localhost\nextendedKeyUsage=serverAuth\n").unwrap();
    bench.openssl(
        "x509 -req -in web.csr -CA root.pem -CAkey root.key -CAcreateserial -extfile web.ext -days 2 -out web.pem",
    );
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let server = Command::new("openssl")
        .args([
            "s_server",
            "-accept",
            &format!("127.0.0.1:{port}"),
            "-key",
            "web.key",
            "-cert",
            "web.pem",
            "-WWW",
        ])
        .args(["-quiet"])
        .current_dir(bench.0.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let _server = Killed(server.unwrap());
    let url = format!("https://localhost:{port}/ca/crl.pem");
    // In a mount namespace of its own, with another list of authorities in the system's place.
    let fetch = |trusted: &str| {
        let system = "/etc/ssl/certs/ca-certificates.crt";
        let script = format!(
            "mount --bind {trusted} {system} && exec {KNOCKD} crl-fetch --url {url} --ca ca/ca.pem --out crl.pem \
             --timeout 5s"
        );
        Command::new("unshare")
            .args(["-m", "sh", "-c", &script])
            .current_dir(bench.0.path())
            .output()
            .unwrap()
    };
    let mut output = fetch("root.pem");
    for _ in 0..50 {
        if output.status.success() {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
        output = fetch("root.pem");
    }
    assert!(said(&output).contains("crl.pem is new"), "{}", said(&output));
    let output = fetch("ca/ca.pem");
    assert!(
        said(&output).contains("UnknownIssuer") || said(&output).contains("certificate"),
        "{}",
        said(&output)
    );
    assert_eq!(output.status.code(), Some(1));
}
