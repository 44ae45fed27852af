//! The architecture as a test: which module may know which, what pure code must not touch, where `unsafe` lives.
//!
//! The tables come first and are what a person edits; a change to them is a change to the architecture.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test's helpers fail as the test does"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Every module of the crate, and the other ones it may name; lowest first. What is not in the list is forbidden.
const MAY_USE: &[(&str, &str)] = &[
    // Words and numbers: nothing below them.
    ("text", ""),
    ("time", ""),
    ("frame", "text"),
    ("session", "text"),
    ("files", ""),
    ("notify", ""),
    ("passphrase", "files"),
    ("sys", ""),
    // A packet's way.
    ("crypto", "text"),
    // Certificates: what a knock shows, and what a rule or a policy has to know of it.
    ("x509", "crypto text time"),
    ("knock", "crypto frame session text time x509"),
    ("policy", "grant knock text time x509"),
    ("grant", "knock policy session text time"),
    ("nft", "grant text"),
    ("capture", "frame privsep sys text time"),
    // What people write.
    ("config", "crypto files grant knock profile text x509"),
    ("profile", "config crypto files grant knock text"),
    ("enrol", "config crypto files knock profile text"),
    // What clients say to the proxy.
    ("socks", "crypto"),
    // Who runs what.
    ("clock", "config sys time"),
    ("log", "config grant text time"),
    ("control", "grant sys text"),
    ("state", "knock time x509"),
    (
        "privsep",
        "capture clock config control crypto files frame grant knock log nft notify policy profile state sys text time x509",
    ),
    ("ca", "files text time x509"),
    ("migrate", "policy text"),
    // The client: of the daemon it knows no more than what both sides must agree on.
    ("client", "clock config crypto enrol files frame knock session socks sys text time x509"),
    // Diagnosis: looks at everything, and is named by the command line alone.
    ("doctor", "client clock config control files grant knock nft privsep profile sys text time x509"),
    // The C interface, behind a feature of its own.
    ("capi", "client"),
    // For tests/fuzz alone, likewise.
    (
        "fuzzing",
        "ca cli client config control crypto doctor enrol files frame knock migrate nft passphrase policy privsep profile state text time x509",
    ),
    // Above all; named by main alone.
    (
        "cli",
        "ca capture client clock config control crypto doctor enrol files grant knock log migrate notify passphrase privsep profile socks state text time x509",
    ),
    ("main", "cli"),
];

/// Modules that know each other, and why that is one thing in two files. Any other cycle is an error.
const PAIRS: &[(&str, &str, &str)] = &[
    ("policy", "grant", "policy makes grants, and the monitor's limits are computed from the policy's rules"),
    ("config", "profile", "a profile is a part of the configuration and is read by its reader"),
    ("capture", "privsep", "the only way to frames leads through the confinement"),
];

/// Pure: no I/O, no clock, no log, no `unsafe`. A directory is all of its files.
const PURE: &[&str] = &[
    "crypto/",
    "doctor/client.rs",
    "doctor/client/",
    "doctor/finding.rs",
    "doctor/server/",
    "frame.rs",
    "frame/",
    "grant/",
    "knock/",
    "migrate/",
    "policy.rs",
    "session.rs",
    "socks/",
    "text/",
    "time.rs",
    "x509/",
    "privsep/message.rs",
    "privsep/counters.rs",
    "config/document.rs",
    "config/error.rs",
    "config/fields.rs",
    "config/forwards.rs",
    "config/limits.rs",
    "config/ports.rs",
    "config/settings.rs",
    "config/settings/",
    "profile/weak.rs",
    "enrol/compact.rs",
    "enrol/line.rs",
    "enrol/png.rs",
    "enrol/qr.rs",
    "client/agent/plan.rs",
    "nft/entry.rs",
    "nft/overlap.rs",
    "nft/wire.rs",
];

/// Files that say `#![forbid(unsafe_code)]`: what is pure says it at its root, and so does what might be tempted.
const FORBID_UNSAFE: &[&str] = &[
    "crypto/mod.rs",
    "doctor/mod.rs",
    "frame.rs",
    "grant/mod.rs",
    "knock/mod.rs",
    "migrate/mod.rs",
    "policy.rs",
    "socks/mod.rs",
    "text/mod.rs",
    "time.rs",
    "x509/mod.rs",
    "privsep/message.rs",
    "privsep/counters.rs",
    "privsep/pipeline.rs",
    "config/mod.rs",
    "profile/mod.rs",
    "enrol/mod.rs",
    "files.rs",
    "client/agent/plan.rs",
    "capi/calls.rs",
];

/// What pure code must not name, as tokens in a row.
const IMPURE: &[&str] = &[
    // Files, sockets, processes, threads.
    "std :: fs",
    "std :: io",
    "std :: os",
    "std :: env",
    "std :: process",
    "std :: thread",
    "std :: sync",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "ToSocketAddrs",
    // Clocks and randomness are arguments.
    "SystemTime",
    "Instant",
    "getrandom",
    "rand",
    // Nothing is logged or printed.
    "print !",
    "println !",
    "eprint !",
    "eprintln !",
    "dbg !",
    // The system and its libraries.
    "libc",
    "rustix",
    "pcap",
    "nftnl",
    "mnl",
    "syslog",
    "sd_notify",
    "signal_hook",
    // State outside of arguments.
    "static",
    "thread_local",
    "unsafe",
];

/// The files with `unsafe` in them.
const UNSAFE: &[&str] = &["capi.rs", "nft/elem.rs", "sys.rs"];

/// The longest source file, and how many of its lines may be code outside tests.
const MAX_LINES: usize = 600;
const MAX_CODE: usize = 400;

/// A module's document: prose under ten lines; layouts and tables come on top.
const MAX_PROSE: usize = 9;

// --- the tests -----------------------------------------------------------------------------------------------

#[test]
fn every_module_names_only_the_modules_below_it() {
    let may: BTreeMap<&str, BTreeSet<&str>> =
        MAY_USE.iter().map(|(module, uses)| (*module, uses.split_whitespace().collect())).collect();
    let mut wrong = Vec::new();
    for file in sources().iter().filter(|file| file.name != "lib.rs") {
        let module = file.module();
        let Some(allowed) = may.get(module) else {
            wrong.push(format!("{}: module `{module}` is not in MAY_USE", file.name));
            continue;
        };
        for (used, line) in file.uses() {
            if used != module && !allowed.contains(used.as_str()) {
                wrong.push(format!("{}:{line}: `{module}` must not know `{used}`", file.name));
            }
        }
    }
    assert_none(&wrong);
}

#[test]
fn the_table_of_modules_allows_nothing_that_is_not_used() {
    let mut used: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for file in sources() {
        let uses = file.uses().into_iter().map(|(used, _)| used);
        used.entry(file.module().to_owned()).or_default().extend(uses);
    }
    for (module, allowed) in MAY_USE {
        for allowed in allowed.split_whitespace() {
            assert!(
                used.get(*module).is_some_and(|used| used.contains(allowed)),
                "{module} does not use {allowed}"
            );
        }
    }
}

#[test]
fn modules_know_each_other_only_in_the_pairs_that_are_explained() {
    let allowed = |from: &str, to: &str| {
        MAY_USE.iter().any(|(module, uses)| *module == from && uses.split_whitespace().any(|name| name == to))
    };
    let is_pair =
        |a: &str, b: &str| PAIRS.iter().any(|(one, two, _)| (*one, *two) == (a, b) || (*two, *one) == (a, b));
    for (one, two, _) in PAIRS {
        assert!(allowed(one, two) && allowed(two, one), "{one} and {two} are no pair any more");
    }
    // Without the explained pairs the modules must sort: take away again and again what uses nothing that is left.
    let mut left: Vec<&str> = MAY_USE.iter().map(|(module, _)| *module).collect();
    loop {
        let (stay, gone): (Vec<&str>, Vec<&str>) =
            left.iter().partition(|a| left.iter().any(|b| b != *a && allowed(a, b) && !is_pair(a, b)));
        if gone.is_empty() {
            break;
        }
        left = stay;
    }
    assert_eq!(left, [""; 0], "these know each other in a circle");
}

#[test]
fn pure_code_touches_no_file_no_socket_no_clock_and_no_log() {
    let mut wrong = Vec::new();
    for file in pure() {
        for impure in IMPURE {
            let pattern: Vec<&str> = impure.split_whitespace().collect();
            wrong.extend(
                find(&file.tokens, &pattern)
                    .map(|line| format!("{}:{line}: {}", file.name, pattern.concat())),
            );
        }
    }
    assert_none(&wrong);
}

#[test]
fn the_client_has_no_state_outside_of_its_arguments_and_reads_no_environment() {
    let mut wrong = Vec::new();
    for file in sources().into_iter().filter(|file| is_below(&file.name, "client/")) {
        for impure in
            ["std :: env", "env :: var", "env :: var_os", "static", "thread_local", "OnceLock", "LazyLock"]
        {
            let pattern: Vec<&str> = impure.split_whitespace().collect();
            let found = find(&file.tokens, &pattern);
            wrong.extend(found.map(|line| format!("{}:{line}: {}", file.name, pattern.concat())));
        }
    }
    assert_none(&wrong);
}

#[test]
fn nothing_prints_by_a_macro_that_panics_when_the_reader_is_gone() {
    let mut wrong = Vec::new();
    for file in sources().into_iter().filter(|file| !file.name.ends_with("tests.rs")) {
        for name in ["print", "println", "eprint", "eprintln", "dbg"] {
            wrong.extend(
                find(&file.tokens, &[name, "!"]).map(|line| format!("{}:{line}: {name}!", file.name)),
            );
        }
    }
    assert_none(&wrong);
}

#[test]
fn pure_code_names_only_pure_code() {
    let mut wrong = Vec::new();
    for file in pure() {
        for (path, line) in file.paths() {
            if !is_pure_path(&path) && !is_type_of(file.module(), &path) {
                wrong.push(format!("{}:{line}: {} is not pure", file.name, path.join("::")));
            }
        }
    }
    assert_none(&wrong);
}

#[test]
fn unsafe_stands_in_three_files_and_nowhere_else() {
    let found: Vec<String> = sources()
        .into_iter()
        .filter(|file| find(&file.all_tokens, &["unsafe"]).next().is_some())
        .map(|file| file.name)
        .collect();
    assert_eq!(found, UNSAFE);
}

#[test]
fn every_unsafe_says_above_it_why_it_is_sound() {
    let mut wrong = Vec::new();
    for file in sources() {
        let lines: Vec<&str> = file.text.lines().collect();
        for pattern in [["unsafe", "{"], ["unsafe", "impl"]] {
            for line in find(&file.all_tokens, &pattern) {
                let above = lines.get(..line - 1).unwrap().iter().rev().map(|line| line.trim_start());
                let mut comment = above.take_while(|line| line.starts_with("//"));
                if !comment.any(|line| line.starts_with("// SAFETY: ")) {
                    wrong.push(format!("{}:{line}: no `// SAFETY:` above it", file.name));
                }
            }
        }
    }
    assert_none(&wrong);
}

#[test]
fn pure_modules_forbid_unsafe_at_their_root() {
    let said = |file: &Source| find(&file.all_tokens, &["forbid", "(", "unsafe_code"]).next().is_some();
    let all = sources();
    for name in FORBID_UNSAFE {
        let file = all.iter().find(|file| file.name == *name);
        assert!(file.is_some_and(said), "{name} does not say #![forbid(unsafe_code)]");
    }
    for file in &pure() {
        // The attribute of a root holds for everything below it.
        let root = format!("{}/mod.rs", file.name.split('/').next().unwrap());
        let twin = format!("{}.rs", file.name.split('/').next().unwrap());
        let holds =
            said(file) || all.iter().any(|other| (other.name == root || other.name == twin) && said(other));
        assert!(holds || file.name.starts_with("nft/"), "nothing forbids unsafe in {}", file.name);
    }
}

#[test]
fn every_module_opens_with_what_it_is_in_under_ten_lines() {
    let mut wrong = Vec::new();
    for file in sources().iter().filter(|file| !file.name.ends_with("tests.rs")) {
        let doc: Vec<&str> = file
            .text
            .lines()
            .take_while(|line| line.starts_with("//!"))
            .map(|line| line[3..].trim())
            .collect();
        let mut in_layout = false;
        let prose = doc.iter().filter(|line| {
            let fence = line.starts_with("```");
            in_layout ^= fence;
            !(fence || in_layout || line.is_empty() || line.starts_with('|'))
        });
        match prose.count() {
            0 => wrong.push(format!("{}: does not open with `//!`", file.name)),
            lines if lines > MAX_PROSE => wrong.push(format!("{}: {lines} lines of prose", file.name)),
            _ => {}
        }
    }
    assert_none(&wrong);
}

#[test]
fn no_source_file_is_too_long_to_be_read_at_a_sitting() {
    let mut wrong = Vec::new();
    for file in sources() {
        let lines = file.text.lines().count();
        let code: BTreeSet<usize> = file.tokens.iter().map(|token| token.line).collect();
        if lines > MAX_LINES || (code.len() > MAX_CODE && !file.name.ends_with("tests.rs")) {
            wrong.push(format!("{}: {lines} lines, {} of them code", file.name, code.len()));
        }
    }
    assert_none(&wrong);
}

#[test]
fn main_hands_everything_to_the_command_line_and_nobody_else_knows_it() {
    for file in sources() {
        let knows = ["crate", "knockd_rs"]
            .iter()
            .any(|root| find(&file.tokens, &[root, ":", ":", "cli"]).next().is_some());
        assert_eq!(knows, file.name == "main.rs", "{}", file.name);
    }
}

#[test]
fn the_map_in_lib_rs_names_every_module_of_the_table() {
    let map = sources().into_iter().find(|file| file.name == "lib.rs").unwrap();
    let mapped: BTreeSet<&str> = map
        .tokens
        .windows(3)
        .filter(|three| three[0].text == "pub" && three[1].text == "mod")
        .map(|three| three[2].text.as_str())
        .collect();
    let table: BTreeSet<&str> =
        MAY_USE.iter().map(|(module, _)| *module).filter(|module| *module != "main").collect();
    assert_eq!(mapped, table);
}

#[test]
fn comments_strings_and_tests_are_not_taken_for_code() {
    let text = r####"//! unsafe
use a::b; // unsafe
/* unsafe /* unsafe */ unsafe */
const S: &str = "unsafe \" unsafe"; const R: &str = r#"unsafe " unsafe"#; const C: char = '"'; const D: u8 = b'\'';
fn f<'a>(x: &'a str) { unsafe_code() }
#[cfg(test)]
mod tests { fn g() { unsafe { } } }
fn h() { unsafe { } }
"####;
    let file = Source::new("x.rs".to_owned(), text.to_owned());
    assert_eq!(find(&file.tokens, &["unsafe"]).collect::<Vec<_>>(), [8]);
    assert_eq!(find(&file.all_tokens, &["unsafe"]).collect::<Vec<_>>(), [7, 8]);
}

#[test]
fn paths_are_followed_through_groups_and_supers() {
    let text = "pub(in crate::nft) use crate::{text::{Span, port}, time};\nuse super::ring::Ring;\nfn f() { super::super::log::x() }\n";
    let file = Source::new("knock/spa.rs".to_owned(), text.to_owned());
    let found: Vec<String> = file.paths().into_iter().map(|(path, _)| path.join("::")).collect();
    assert_eq!(found, ["text::Span", "text::port", "time", "knock::ring::Ring", "log::x"]);
}

// --- reading sources -----------------------------------------------------------------------------------------

fn assert_none(wrong: &[String]) {
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// A file below `src`.
struct Source {
    /// Its path below `src`.
    name: String,
    text: String,
    /// The code, without tests.
    tokens: Vec<Token>,
    /// The code with its tests.
    all_tokens: Vec<Token>,
}

#[derive(Clone)]
struct Token {
    text: String,
    line: usize,
}

fn sources() -> Vec<Source> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&src, &mut files);
    let mut sources: Vec<Source> = files
        .iter()
        .map(|path| {
            let name = path.strip_prefix(&src).unwrap().to_str().unwrap().to_owned();
            Source::new(name, fs::read_to_string(path).unwrap())
        })
        .collect();
    sources.sort_by(|a, b| a.name.cmp(&b.name));
    assert!(sources.len() > 50, "the sources were not found");
    sources
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// The pure files; those that hold nothing but tests may do as they like.
fn pure() -> Vec<Source> {
    let all = sources();
    for pure in PURE {
        assert!(all.iter().any(|file| is_below(&file.name, pure)), "{pure} of PURE is not there");
    }
    let is_test = |name: &str| name.ends_with("/tests.rs") || name.ends_with("/properties.rs");
    all.into_iter()
        .filter(|file| PURE.iter().any(|pure| is_below(&file.name, pure)) && !is_test(&file.name))
        .collect()
}

fn is_below(name: &str, place: &str) -> bool {
    name == place || (place.ends_with('/') && name.starts_with(place))
}

/// Whether a path like `config::limits::FILE` leads into pure code. What a pure module hands on from its edge
/// (`profile::store`) is not looked through: pure files name the file that they mean.
fn is_pure_path(path: &[String]) -> bool {
    (1..=path.len()).any(|length| {
        let place = path.get(..length).unwrap_or_default().join("/");
        PURE.iter().any(|pure| *pure == format!("{place}.rs") || *pure == format!("{place}/"))
    })
}

/// Whether this is a type that a module declares at its root for all of its files: `nft::Door`.
fn is_type_of(module: &str, path: &[String]) -> bool {
    matches!(path, [root, name] if root == module && name.starts_with(char::is_uppercase))
}

impl Source {
    fn new(name: String, text: String) -> Self {
        let all_tokens = tokens(&text);
        Self { name, text, tokens: without_tests(&all_tokens), all_tokens }
    }

    /// The top-level module that this file belongs to.
    fn module(&self) -> &str {
        self.name.split('/').next().unwrap().trim_end_matches(".rs")
    }

    /// The top-level modules that this file's code names.
    fn uses(&self) -> Vec<(String, usize)> {
        self.paths().into_iter().map(|(mut path, line)| (path.swap_remove(0), line)).collect()
    }

    /// The paths into this crate that the code names, from the crate's root, groups taken apart.
    fn paths(&self) -> Vec<(Vec<String>, usize)> {
        let mut here: Vec<String> = self.name.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
        if here.last().is_some_and(|last| last == "mod") {
            here.pop();
        }
        let mut found = Vec::new();
        let mut at = 0;
        while let Some(token) = self.tokens.get(at) {
            let follows_path = at >= 1 && self.tokens[at - 1].text == ":"
                || at >= 2 && self.tokens[at - 1].text == "in" && self.tokens[at - 2].text == "(";
            // The other uses of these words are visibilities: `pub(super)`, `pub(in crate::nft)`.
            let leads_on = self.tokens.get(at + 1).is_some_and(|token| token.text == ":");
            let base = match token.text.as_str() {
                _ if follows_path || !leads_on => None,
                "crate" | "knockd_rs" => Some(Vec::new()),
                "super" => Some(here.clone()),
                _ => None,
            };
            match base {
                Some(base) => {
                    let start = if token.text == "super" { at } else { at + 1 };
                    at = self.follow(start, base, &mut found);
                }
                None => at += 1,
            }
        }
        found.retain(|(path, _)| !path.is_empty());
        found
    }

    /// Follows one path from the token `at`, which is `super`, `::` or a name; returns where it ends.
    fn follow(&self, mut at: usize, mut path: Vec<String>, found: &mut Vec<(Vec<String>, usize)>) -> usize {
        let text = |at: usize| self.tokens.get(at).map_or("", |token| token.text.as_str());
        let line = self.tokens.get(at).map_or(0, |token| token.line);
        loop {
            match text(at) {
                ":" if text(at + 1) == ":" => at += 2,
                "super" => {
                    path.pop();
                    at += 1;
                    continue;
                }
                "{" if text(at - 1) == ":" => {
                    at += 1;
                    while !matches!(text(at), "}" | "") {
                        at = if text(at) == "," { at + 1 } else { self.follow(at, path.clone(), found) };
                    }
                    return at + 1;
                }
                name if is_name(name) && (path.is_empty() || text(at - 1) != "as") => {
                    path.push(name.to_owned());
                    at += 1;
                    if text(at) == "as" {
                        at += 2;
                    }
                }
                _ => {
                    found.push((path, line));
                    return at.max(1);
                }
            }
            // A name is followed by `::` or by the path's end.
            if is_name(text(at - 1)) && text(at) != ":" {
                found.push((path, line));
                return at;
            }
        }
    }
}

fn is_name(text: &str) -> bool {
    text.starts_with(|first: char| first.is_alphabetic() || first == '_')
}

/// The lines at which these tokens stand in a row.
fn find<'a>(tokens: &'a [Token], pattern: &'a [&str]) -> impl Iterator<Item = usize> + 'a {
    let pattern: Vec<String> = pattern
        .iter()
        .flat_map(|text| if *text == "::" { vec![":".to_owned(); 2] } else { vec![(*text).to_owned()] })
        .collect();
    tokens
        .windows(pattern.len())
        .filter(move |window| window.iter().map(|token| &token.text).eq(pattern.iter()))
        .map(|window| window[0].line)
}

/// Leaves out every item behind `#[cfg(test)]`: up to its `;`, or to the end of its braces.
fn without_tests(tokens: &[Token]) -> Vec<Token> {
    let mut kept = Vec::new();
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        let attribute = ["#", "[", "cfg", "(", "test", ")", "]"];
        if !tokens[at..].iter().take(attribute.len()).map(|token| token.text.as_str()).eq(attribute) {
            kept.push(token.clone());
            at += 1;
            continue;
        }
        let mut depth = 0;
        while let Some(token) = tokens.get(at) {
            at += 1;
            match token.text.as_str() {
                "{" => depth += 1,
                "}" if depth == 1 => break,
                "}" => depth -= 1,
                ";" if depth == 0 => break,
                _ => {}
            }
        }
    }
    kept
}

/// Rust's code as words and single signs; comments, strings, characters and lifetimes are left out.
fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let (mut rest, mut line) = (text, 1);
    while let Some(first) = rest.chars().next() {
        let (length, is_code) = match first {
            _ if rest.starts_with("//") => (rest.find('\n').unwrap_or(rest.len()), false),
            _ if rest.starts_with("/*") => (comment(rest), false),
            '"' => (string(rest), false),
            'r' | 'b' | 'c' if literal_prefix(rest).is_some() => (literal_prefix(rest).unwrap(), false),
            '\'' => (character(rest), false),
            _ if is_name(rest) || first.is_ascii_digit() => {
                let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_'));
                (end.unwrap_or(rest.len()), true)
            }
            _ => (first.len_utf8(), !first.is_whitespace()),
        };
        let (token, tail) = rest.split_at(length);
        if is_code {
            tokens.push(Token { text: token.to_owned(), line });
        }
        line += token.matches('\n').count();
        rest = tail;
    }
    tokens
}

/// The length of a block comment; they nest.
fn comment(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        match text.as_bytes().get(at..at + 2) {
            Some(b"/*") => (depth, at) = (depth + 1, at + 2),
            Some(b"*/") => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    text.len()
}

/// The length of a string, from quote to quote.
fn string(text: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    panic!("a string without an end: {:.40}", text);
}

/// The length of a raw string or byte string with its prefix, if this is one.
fn literal_prefix(text: &str) -> Option<usize> {
    let prefix = text.find(|c| !matches!(c, 'r' | 'b' | 'c'))?;
    let rest = &text[prefix..];
    if rest.starts_with('\'') && text.starts_with("b'") {
        return Some(1 + character(rest));
    }
    let hashes = rest.find(|c| c != '#')?;
    if !rest[hashes..].starts_with('"') || prefix > 2 {
        return None;
    }
    if !text[..prefix].contains('r') {
        return (hashes == 0).then(|| prefix + string(rest));
    }
    let end = format!("\"{}", "#".repeat(hashes));
    let body = prefix + hashes + 1;
    Some(body + text[body..].find(&end)? + end.len())
}

/// The length of a character literal, or of a lifetime.
fn character(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match (chars.next(), chars.next()) {
        (Some((_, '\\')), Some((at, _))) => at + 1 + text[at + 1..].find('\'').unwrap() + 1,
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 1 + text[1..].find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(0),
    }
}
