//! `[certificate_authority]` and `[[certificates]]` of `knockd-rs.toml`: whose certificates knock, and what they open.
#![forbid(unsafe_code)]

use std::path::PathBuf;

use super::document::{Syntax, parse};
use super::error::Report;
use super::fields::{Seen, Table};
use super::limits;
use super::settings::{Settings, value};
use crate::profile::{self, Profile, Server};
use crate::text::{ProfileName, Span};
use crate::x509::select::Selector;

/// `[certificate_authority]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateAuthority {
    /// The files with the authorities' certificates; relative ones start from the configuration directory.
    pub ca: Vec<PathBuf>,
    /// The files with their revocation lists.
    pub crl: Vec<PathBuf>,
    /// How long a list that is past its date still counts.
    pub crl_grace: Span,
    /// Whether a revocation ends live grants too.
    pub end_grants_on_revocation: bool,
    /// The directory with certificates that are too large for a packet.
    pub leaves: Option<PathBuf>,
}

/// One `[[certificates]]` table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateRule {
    /// Which certificates it is for.
    pub selector: Selector,
    /// What they open, as a profile that has no key of its own.
    pub profile: Profile,
}

/// What the settings say about certificates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Certificates {
    /// Whose certificates may knock.
    pub authority: Option<CertificateAuthority>,
    /// What they open: the first rule that is for one decides.
    pub rules: Vec<CertificateRule>,
}

/// The longest name of a table: with a dot and the 16 digits that name a certificate it labels grants in the kernel.
pub const MAX_RULE_NAME: usize = 15;

/// Reads both from the text that `settings` were read from. What is wrong goes to the report.
pub(super) fn read(text: &str, settings: &Settings, report: &Report) -> Certificates {
    // Where the text is no TOML, that was told before.
    let Some(node) = parse(text, Syntax::Toml, &Report::new("")) else { return Certificates::default() };
    let root = &Table::free_root(&node, report);
    let authority = root.has(AUTHORITY).then(|| authority(&root.table(AUTHORITY, AUTHORITY_KEYS)));
    let server = Server { services: Some(&settings.services), freshness: settings.freshness };
    let mut seen = Seen::new();
    let mut rules = Vec::new();
    for table in root.tables(RULES, RULE_KEYS, limits::CERTIFICATE_RULES) {
        let Some(name) = name(&table) else { continue };
        if seen.again(name.clone(), ()).is_some() {
            table.error("name", format!("{name} is the name of another table too; rename one"));
        }
        let selector = Selector {
            issuer: table.parsed("issuer", "use \"O=Example, CN=Example CA\"").map(value),
            subject: table.parsed("subject", "use \"O=Example, CN=*\"").map(value),
            uri: table.parsed("uri", "use \"spiffe://example.org/staff/*\"").map(value),
            key: table.parsed("key_sha256", "use 64 hexadecimal digits").map(value),
        };
        rules.push(CertificateRule { selector, profile: profile::read_rules(name, &table, server) });
    }
    match (&authority, rules.is_empty()) {
        (None, false) => {
            root.error(RULES, "needs [certificate_authority] with the key ca: whose certificates are meant")
        }
        (Some(_), true) => {
            root.warn(AUTHORITY, "there is no [[certificates]] table, so that no certificate opens anything")
        }
        _ => {}
    }
    Certificates { authority, rules }
}

fn name(table: &Table<'_>) -> Option<ProfileName> {
    if !table.has("name") {
        table.missing("name", "name the certificates that this table is for, such as name = \"staff\"");
    }
    let found = table.parsed::<ProfileName>("name", "use \"staff\"")?.value;
    if found.as_str().len() > MAX_RULE_NAME {
        table.error("name", format!("{found} is too long; use at most {MAX_RULE_NAME} characters"));
    }
    Some(found)
}

fn authority(table: &Table<'_>) -> CertificateAuthority {
    let ca = table.texts("ca", "\"ca.pem\"");
    if ca.is_empty() {
        table.missing("ca", "name the file with the authorities' certificates, such as ca = \"ca.pem\"");
    }
    let crl = table.texts("crl", "\"crl.pem\"");
    if crl.is_empty() {
        table.missing("crl", "name the file with their revocation lists, such as crl = \"crl.pem\"");
    }
    let paths = |texts: Vec<String>| texts.into_iter().map(PathBuf::from).collect();
    CertificateAuthority {
        ca: paths(ca),
        crl: paths(crl),
        crl_grace: table.span("crl_grace", limits::CRL_GRACE).map_or(DEFAULT_GRACE, value),
        end_grants_on_revocation: table.boolean("end_grants_on_revocation").is_some_and(value),
        leaves: table.texts("leaves", "\"leaves.d\"").into_iter().next().map(PathBuf::from),
    }
}

/// `crl_grace` where the file does not say.
pub const DEFAULT_GRACE: Span = Span::from_secs(86_400);

const AUTHORITY: &str = "certificate_authority";
const RULES: &str = "certificates";
const AUTHORITY_KEYS: &[&str] = &["ca", "crl", "crl_grace", "end_grants_on_revocation", "leaves"];
const RULE_KEYS: &[&str] = &[
    "name",
    "issuer",
    "subject",
    "uri",
    "key_sha256",
    "open",
    "duration",
    "max_duration",
    "connections",
    "session",
    "lockout",
    "other_addresses",
    "wide",
    "max_grants",
    "enabled",
    "max_age",
    "max_ahead",
];
