//! Certificate authorities for tests, made by the real `openssl` in a directory of the test's own.
#![allow(dead_code, unreachable_pub, reason = "each test program uses its share")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, and so do its helpers"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A certificate authority with its database, as `openssl ca` keeps it.
pub struct Authority {
    dir: PathBuf,
}

/// A certificate and its private key.
#[derive(Clone, Debug)]
pub struct Issued {
    /// PEM.
    pub certificate: PathBuf,
    /// PKCS#8, PEM.
    pub key: PathBuf,
}

/// The kinds of keys that clients may have.
pub const KEYS: [(&str, &[&str]); 6] = [
    ("ed25519", &["-algorithm", "ED25519"]),
    ("p256", &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]),
    ("p384", &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"]),
    ("rsa2048", &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]),
    ("rsa4096", &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:4096"]),
    ("p521", &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-521"]),
];

/// What a client's certificate needs.
pub const CLIENT: &str = "basicConstraints = CA:FALSE\nextendedKeyUsage = clientAuth\n";
/// What an authority's needs.
const CA: &str = "basicConstraints = critical, CA:TRUE\nkeyUsage = critical, keyCertSign, cRLSign\n";

impl Authority {
    /// A root of its own, below `dir`.
    pub fn new(dir: &Path, name: &str) -> Self {
        Self::named(dir, name, name)
    }

    /// The same in a directory of another name: two authorities can have one name.
    pub fn named(dir: &Path, folder: &str, name: &str) -> Self {
        let authority = Self { dir: dir.join(folder) };
        authority.prepare();
        let subject = format!("/O=Example/CN={name}");
        let mut request =
            authority.openssl(&["req", "-x509", "-new", "-key", "ca.key", "-days", "3650", "-sha256"]);
        request.args(["-config", "ca.conf", "-extensions", "authority", "-subj", &subject, "-out", "ca.pem"]);
        run(&mut request);
        authority
    }

    /// An authority that this one certifies.
    pub fn below(&self, name: &str) -> Self {
        let authority = Self { dir: self.dir.parent().unwrap().join(name) };
        authority.prepare();
        let issued = self.issue_key(name, authority.dir.join("ca.key"), CA, ("", ""));
        fs::copy(issued.certificate, authority.dir.join("ca.pem")).unwrap();
        authority
    }

    fn prepare(&self) {
        fs::create_dir_all(self.dir.join("new")).unwrap();
        fs::write(self.dir.join("index.txt"), "").unwrap();
        fs::write(self.dir.join("crlnumber"), "1000\n").unwrap();
        let config = format!(
            "[ca]\ndefault_ca = it\n[it]\ndatabase = index.txt\nnew_certs_dir = new\nrand_serial = yes\n\
             crlnumber = crlnumber\ncertificate = ca.pem\nprivate_key = ca.key\ndefault_md = sha256\n\
             default_days = 30\ndefault_crl_days = 30\nunique_subject = no\npolicy = any\ncrl_extensions = crl\n\
             [any]\norganizationName = optional\ncommonName = supplied\n\
             [crl]\nauthorityKeyIdentifier = keyid:always\n\
             [req]\ndistinguished_name = any_name\n[any_name]\n[authority]\n{CA}"
        );
        fs::write(self.dir.join("ca.conf"), config).unwrap();
        make_key(&self.dir.join("ca.key"), "p256");
    }

    /// Its own certificate.
    pub fn certificate(&self) -> PathBuf {
        self.dir.join("ca.pem")
    }

    /// A certificate for `O=Example, CN=NAME` with a fresh key of this kind.
    pub fn issue(&self, name: &str, kind: &str, extensions: &str) -> Issued {
        self.issue_between(name, kind, extensions, ("", ""))
    }

    /// The same, valid between these times (`20260101000000Z`).
    pub fn issue_between(&self, name: &str, kind: &str, extensions: &str, times: (&str, &str)) -> Issued {
        let key = self.dir.join(format!("{name}.key"));
        make_key(&key, kind);
        self.issue_key(name, key, extensions, times)
    }

    fn issue_key(&self, name: &str, key: PathBuf, extensions: &str, (from, until): (&str, &str)) -> Issued {
        let certificate = self.dir.join(format!("{name}.pem"));
        let (csr, file) = (self.dir.join("csr.pem"), self.dir.join("extensions"));
        fs::write(&file, extensions).unwrap();
        let mut request = self.openssl(&["req", "-new", "-config", "ca.conf"]);
        request.arg("-key").arg(&key).args(["-subj", &format!("/O=Example/CN={name}"), "-out"]).arg(&csr);
        run(&mut request);
        let mut sign =
            self.openssl(&["ca", "-batch", "-notext", "-config", "ca.conf", "-extfile", "extensions"]);
        sign.args(["-in", "csr.pem", "-out"]).arg(&certificate);
        if !from.is_empty() {
            sign.args(["-startdate", from, "-enddate", until]);
        }
        run(&mut sign);
        Issued { certificate, key }
    }

    /// Revokes a certificate; the next list has it.
    pub fn revoke(&self, issued: &Issued) {
        run(self.openssl(&["ca", "-batch", "-config", "ca.conf", "-revoke"]).arg(&issued.certificate));
    }

    /// Makes a new list, and returns it as PEM.
    pub fn crl(&self) -> String {
        self.crl_between("", "")
    }

    /// The same with these dates.
    pub fn crl_between(&self, from: &str, until: &str) -> String {
        let mut make = self.openssl(&["ca", "-batch", "-config", "ca.conf", "-gencrl", "-out", "crl.pem"]);
        if !from.is_empty() {
            make.args(["-crl_lastupdate", from, "-crl_nextupdate", until]);
        }
        run(&mut make);
        fs::read_to_string(self.dir.join("crl.pem")).unwrap()
    }

    /// Makes the next list have a number of its own choice (hexadecimal).
    pub fn number_next(&self, number: &str) {
        fs::write(self.dir.join("crlnumber"), format!("{number}\n")).unwrap();
    }

    fn openssl(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("openssl");
        command.args(arguments).current_dir(&self.dir);
        command
    }
}

/// Makes a private key of this kind, mode 0600.
pub fn make_key(path: &Path, kind: &str) {
    let (_, arguments) = KEYS.iter().find(|(name, _)| *name == kind).expect("a kind of key");
    run(Command::new("openssl").arg("genpkey").args(*arguments).arg("-out").arg(path));
}

/// Runs a command; panics with all that it said when it failed.
#[track_caller]
pub fn run(command: &mut Command) {
    let output = command.output().expect("`openssl`, of the package openssl");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{said}", output.status);
}
