//! What the program is made of: the promises of deny.toml and of the README about other people's code, kept by
//! reading `cargo metadata`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, and so do its helpers"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// The crates that the project's design is built on. Each has to be at work, not only in the list.
const DESIGN: [&str; 10] = [
    "pcap",
    "etherparse",
    "nftnl",
    "mnl",
    "aes-gcm",
    "x25519-dalek",
    "serde_json",
    "sd-notify",
    "signal-hook",
    "syslog",
];

/// Where cryptography comes in: these and all that they are made of.
const CRYPTOGRAPHY: [&str; 11] = [
    "aes-gcm",
    "x25519-dalek",
    "sha2",
    "hmac",
    "subtle",
    "zeroize",
    "getrandom",
    "ring",
    "rustls-webpki",
    "pkcs5",
    "argon2",
];

/// What comes in two versions all the same: ring 0.17 asks for getrandom 0.2, and either is no more than the system
/// call of that name.
const TWICE: [&str; 1] = ["getrandom"];

const TARGETS: [&str; 2] = ["x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"];

#[test]
fn every_crate_of_the_design_is_at_work_in_the_source() {
    let sources = sources();
    for name in DESIGN {
        let path = format!("{}::", name.replace('-', "_"));
        let begins = |line: &str, place: usize| {
            line[..place].chars().next_back().is_none_or(|before| !before.is_alphanumeric() && before != '_')
        };
        let uses = |line: &str| line.match_indices(&path).any(|(place, _)| begins(line, place));
        let code = sources.lines().map(str::trim_start).filter(|line| !line.starts_with("//"));
        assert!(code.into_iter().any(uses), "nothing in src/ uses {name}");
    }
}

#[test]
fn each_cryptographic_crate_comes_in_one_version() {
    for target in TARGETS {
        let tree = Tree::read(target);
        let roots = tree.normal(&tree.root).into_iter().filter(|id| CRYPTOGRAPHY.contains(&tree.name(id)));
        let cryptography = tree.closure(roots, Tree::normal);
        assert!(cryptography.len() > CRYPTOGRAPHY.len(), "{cryptography:?}");
        let names: BTreeSet<&str> = cryptography.iter().map(|id| tree.name(id)).collect();
        let linked = tree.closure([tree.root.clone()], Tree::normal);
        let twice =
            tree.versions(&linked).into_iter().filter(|(name, all)| names.contains(name) && all.len() > 1);
        assert_eq!(twice.map(|(name, _)| name).collect::<Vec<_>>(), TWICE, "{target}");
    }
}

#[test]
fn other_crates_come_in_one_version_unless_deny_toml_says_why_not() {
    let deny = deny();
    let skipped: BTreeSet<&str> = list(&deny["bans"]["skip"])
        .map(|skip| skip["crate"].as_str().unwrap().split('@').next().unwrap())
        .collect();
    let mut found = BTreeSet::new();
    for target in TARGETS {
        let tree = Tree::read(target);
        let built = tree.closure([tree.root.clone()], Tree::built);
        found.extend(
            tree.versions(&built).into_iter().filter(|(_, all)| all.len() > 1).map(|(n, _)| n.to_owned()),
        );
    }
    assert_eq!(found.iter().map(String::as_str).collect::<BTreeSet<_>>(), skipped);
}

#[test]
fn no_crate_is_among_those_that_deny_toml_bans() {
    let deny = deny();
    let banned: BTreeSet<&str> =
        list(&deny["bans"]["deny"]).map(|ban| ban["crate"].as_str().unwrap()).collect();
    for target in TARGETS {
        let tree = Tree::read(target);
        let built = tree.closure([tree.root.clone()], Tree::built);
        let found: Vec<&str> =
            built.iter().map(|id| tree.name(id)).filter(|name| banned.contains(name)).collect();
        assert_eq!(found, [""; 0], "{target}");
    }
}

#[test]
fn every_crate_has_a_licence_that_deny_toml_allows_and_comes_from_crates_io() {
    let deny = deny();
    let allowed: BTreeSet<&str> =
        list(&deny["licenses"]["allow"]).map(|name| name.as_str().unwrap()).collect();
    for target in TARGETS {
        let tree = Tree::read(target);
        for id in tree.closure([tree.root.clone()], Tree::built) {
            let (package, name) = (&tree.packages[&id], tree.name(&id).to_owned());
            let licence = package["license"].as_str().unwrap_or_default();
            // Cargo's older way to write OR is a stroke.
            for part in licence.split(" AND ") {
                let part = part.trim_matches(['(', ')']).replace('/', " OR ");
                let mut choices = part.split(" OR ").map(str::trim);
                assert!(choices.any(|choice| allowed.contains(choice)), "{name}: {licence}");
            }
            let source = package["source"].as_str();
            assert!(
                id == tree.root || source == Some("registry+https://github.com/rust-lang/crates.io-index"),
                "{name}: {source:?}"
            );
        }
    }
}

#[test]
fn the_readme_lists_the_dependencies_of_cargo_toml() {
    let tree = Tree::read(TARGETS[0]);
    let normal =
        list(&tree.packages[&tree.root]["dependencies"]).filter(|dependency| dependency["kind"].is_null());
    let declared: BTreeSet<String> = normal.map(|one| one["name"].as_str().unwrap().to_owned()).collect();
    let readme = fs::read_to_string(top().join("README.md")).expect("README.md can be read");
    assert_eq!(listed(&readme), declared, "README.md (left) and Cargo.toml (right)");
}

/// The crates of the README: the first column of the table under the heading `Dependencies`.
fn listed(readme: &str) -> BTreeSet<String> {
    let section = readme.lines().skip_while(|line| *line != "## Dependencies").skip(1);
    let section = section.take_while(|line| !line.starts_with('#'));
    let rows = section.skip_while(|line| !line.starts_with("|--")).filter_map(|line| line.strip_prefix("| "));
    let cells = rows.filter_map(|row| row.split('|').next());
    cells.flat_map(|cell| cell.split(',').map(|name| name.trim().to_owned())).collect()
}

/// What `cargo metadata` knows for one target.
struct Tree {
    root: String,
    packages: BTreeMap<String, Value>,
    nodes: BTreeMap<String, Value>,
}

impl Tree {
    fn read(target: &str) -> Self {
        let arguments = ["metadata", "--locked", "--format-version=1", "--all-features"];
        let output = Command::new(env!("CARGO"))
            .args(arguments)
            .args(["--filter-platform", target])
            .current_dir(top())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
        let by_id = |array: &Value| -> BTreeMap<String, Value> {
            list(array).map(|one| (one["id"].as_str().unwrap().to_owned(), one.clone())).collect()
        };
        Self {
            root: metadata["resolve"]["root"].as_str().unwrap().to_owned(),
            packages: by_id(&metadata["packages"]),
            nodes: by_id(&metadata["resolve"]["nodes"]),
        }
    }

    fn name(&self, id: &str) -> &str {
        self.packages[id]["name"].as_str().unwrap()
    }

    fn is_macro(&self, id: &str) -> bool {
        list(&self.packages[id]["targets"])
            .any(|target| list(&target["kind"]).any(|kind| kind == "proc-macro"))
    }

    fn edges(&self, id: &str, kinds: &[Option<&str>]) -> Vec<String> {
        let wanted =
            |edge: &&Value| list(&edge["dep_kinds"]).any(|kind| kinds.contains(&kind["kind"].as_str()));
        let edges = list(&self.nodes[id]["deps"]).filter(wanted);
        edges.map(|edge| edge["pkg"].as_str().unwrap().to_owned()).collect()
    }

    /// What is linked with a package: no build scripts, no procedural macros, no tests.
    fn normal(&self, id: &str) -> Vec<String> {
        let mut edges = self.edges(id, &[None]);
        edges.retain(|id| !self.is_macro(id));
        edges
    }

    /// The same with what runs while it is built.
    fn built(&self, id: &str) -> Vec<String> {
        self.edges(id, &[None, Some("build")])
    }

    fn closure(
        &self,
        start: impl IntoIterator<Item = String>,
        next: impl Fn(&Self, &str) -> Vec<String>,
    ) -> BTreeSet<String> {
        let (mut found, mut waiting) = (BTreeSet::new(), Vec::from_iter(start));
        while let Some(id) = waiting.pop() {
            if found.insert(id.clone()) {
                waiting.extend(next(self, &id));
            }
        }
        found
    }

    fn versions<'a>(&'a self, ids: &'a BTreeSet<String>) -> BTreeMap<&'a str, BTreeSet<&'a str>> {
        let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for id in ids {
            versions.entry(self.name(id)).or_default().insert(self.packages[id]["version"].as_str().unwrap());
        }
        versions
    }
}

fn list(array: &Value) -> impl Iterator<Item = &Value> {
    array.as_array().into_iter().flatten()
}

/// deny.toml as JSON, so that one type holds all that is read here.
fn deny() -> Value {
    toml::from_str(&fs::read_to_string(top().join("deny.toml")).unwrap()).unwrap()
}

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All source text.
fn sources() -> String {
    let (mut text, mut waiting): (String, Vec<PathBuf>) = (String::new(), vec![top().join("src")]);
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            waiting.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            text += &fs::read_to_string(path).unwrap();
        }
    }
    text
}
