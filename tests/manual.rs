//! Keeps the manual in step with the program: commands, flags, keys, exit codes, reasons and counters.
//!
//! The program is the truth. Each page is read as its mdoc source, in which a flag is `Fl -name`, a key of a
//! file `It Va name`, and a command of knockd-rs(8) a subsection of its own.
#![cfg(all(feature = "daemon", feature = "client"))]
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use knockd_rs::capture::Miss;
use knockd_rs::cli::{self, EXIT_CODES};
use knockd_rs::doctor;
use knockd_rs::frame::Refused;
use knockd_rs::knock::Drop;
use knockd_rs::privsep::counters;

const DAEMON: &str = include_str!("../man/knockd-rs.8");
const SETTINGS: &str = include_str!("../man/knockd-rs.toml.5");
const PROFILE: &str = include_str!("../man/knockd-rs-profile.5");
const PROTOCOL: &str = include_str!("../man/knockd-rs-protocol.7");

/// The lines of the section or subsection with this heading.
fn section(page: &str, macro_name: &str, heading: &str) -> Vec<String> {
    let head = |line: &str| {
        let text = line.strip_prefix(macro_name)?.trim().trim_end_matches("\\&");
        Some(text.to_owned())
    };
    let ends = |line: &&str| !(line.starts_with(".Sh ") || (macro_name == ".Ss" && line.starts_with(".Ss ")));
    let start = page.lines().position(|line| head(line).as_deref() == Some(heading));
    let start = start.unwrap_or_else(|| panic!("the manual has no section `{heading}`"));
    page.lines().skip(start + 1).take_while(ends).map(str::to_owned).collect()
}

/// The items of the lists in these lines, each with its text on one line.
fn items(lines: &[String]) -> Vec<(String, String)> {
    let mut items: Vec<(String, String)> = Vec::new();
    for line in lines {
        match (line.strip_prefix(".It "), items.last_mut()) {
            (Some(head), _) => items.push((head.to_owned(), String::new())),
            (None, Some((_, text))) if !line.starts_with('.') => {
                text.push_str(if text.is_empty() { "" } else { " " });
                text.push_str(line);
            }
            _ => {}
        }
    }
    items
}

/// The names in items such as `stale , ahead`.
fn names(lines: &[String]) -> BTreeSet<String> {
    let heads = items(lines).into_iter().map(|(head, _)| head);
    heads.flat_map(|head| head.split(" , ").map(str::to_owned).collect::<Vec<_>>()).collect()
}

/// Every long flag in these lines: the words after `Fl` that begin with `-`.
fn long_flags(lines: &[String]) -> BTreeSet<String> {
    let words = lines.iter().flat_map(|line| line.split_whitespace().zip(line.split_whitespace().skip(1)));
    let flags = words.filter(|(before, _)| before.trim_start_matches('.') == "Fl");
    flags
        .filter_map(|(_, flag)| flag.strip_prefix('-'))
        .filter(|flag| !flag.is_empty())
        .map(str::to_owned)
        .collect()
}

/// Every command that people see, by its words: `profile add`.
fn commands() -> BTreeMap<String, clap::Command> {
    fn walk(command: &clap::Command, path: &str, found: &mut BTreeMap<String, clap::Command>) {
        for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
            let path = format!("{path} {}", sub.get_name());
            if sub.has_subcommands() {
                walk(sub, &path, found);
            } else {
                found.insert(path.trim().to_owned(), sub.clone());
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(&cli::command(), "", &mut found);
    found
}

fn set<T: ToString>(names: impl IntoIterator<Item = T>) -> BTreeSet<String> {
    names.into_iter().map(|name| name.to_string()).collect()
}

#[test]
fn every_command_has_a_section_of_its_own_and_stands_in_the_synopsis() {
    let synopsis = section(DAEMON, ".Sh", "SYNOPSIS").join(" ");
    for path in commands().keys() {
        assert!(!section(DAEMON, ".Ss", path).is_empty(), "{path}");
        for word in path.split(' ') {
            assert!(synopsis.split_whitespace().any(|found| found == word), "{word} is not in the synopsis");
        }
    }
}

#[test]
fn every_section_of_a_command_names_the_flags_that_it_has_and_no_others() {
    for (path, command) in commands() {
        let real = command.get_arguments().filter(|argument| !argument.is_hide_set());
        let real = set(real.filter_map(clap::Arg::get_long).filter(|flag| *flag != "help"));
        // A flag may be mentioned again where another one is explained, but only where it exists.
        assert_eq!(long_flags(&section(DAEMON, ".Ss", &path)), real, "flags of `{path}`");
    }
}

#[test]
fn every_short_flag_stands_beside_its_long_form() {
    for (path, command) in commands() {
        let text = section(DAEMON, ".Ss", &path).join("\n");
        for argument in command.get_arguments() {
            if let (Some(short), Some(long)) = (argument.get_short(), argument.get_long()) {
                let both = format!(".It Fl {short} , Fl -{long}");
                assert!(long == "help" || text.contains(&both), "`{path}` has no `{both}`");
            }
        }
    }
}

#[test]
fn no_flag_is_documented_that_does_not_exist() {
    let mut real = set(["help", "version"]);
    for command in commands().values() {
        real.extend(set(command.get_arguments().filter_map(clap::Arg::get_long)));
    }
    let lines: Vec<String> = DAEMON.lines().map(str::to_owned).collect();
    let unknown: Vec<String> = long_flags(&lines).difference(&real).cloned().collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}

#[test]
fn the_exit_codes_are_those_of_the_program() {
    let listed: Vec<(String, String)> = items(&section(DAEMON, ".Sh", "EXIT STATUS"));
    let real: Vec<(String, String)> =
        EXIT_CODES.iter().map(|(code, meaning)| (code.to_string(), (*meaning).to_owned())).collect();
    assert_eq!(listed, real);
}

/// The fixed names that a `fn name(&self)` in this source returns.
fn names_in_source(source: &str) -> BTreeSet<String> {
    let bodies = source.split("fn name(&self) -> &'static str").skip(1);
    let lines = bodies.flat_map(|body| body.split("\n    }\n").next().expect("it ends").lines());
    let names =
        set(lines.filter_map(|line| line.split_once("=> \"")?.1.split_once('"').map(|(name, _)| name)));
    assert!(!names.is_empty(), "the source has a `name`");
    names
}

#[test]
fn every_reason_of_refusal_is_explained_and_no_other() {
    let sources = [
        include_str!("../src/knock/fault.rs"),
        include_str!("../src/policy.rs"),
        include_str!("../src/grant/ledger.rs"),
        include_str!("../src/x509/rejection.rs"),
        include_str!("../src/privsep/monitor/sessions.rs"),
    ];
    let real: BTreeSet<String> = sources.into_iter().flat_map(names_in_source).collect();
    assert!(real.len() >= 15 && real.contains("stale") && real.contains("all-full"), "{real:?}");
    assert_eq!(names(&section(DAEMON, ".Ss", "Reasons of refusal")), real);
}

#[test]
fn every_reason_without_a_line_in_the_log_is_explained_as_the_program_does() {
    let mut real: Vec<(String, String)> = Vec::new();
    let mut add = |name: &str, sentence: &str| real.push((name.to_owned(), sentence.to_owned()));
    Refused::ALL.iter().for_each(|reason| add(reason.name(), reason.sentence()));
    Miss::ALL.iter().for_each(|reason| add(reason.name(), reason.sentence()));
    Drop::ALL.iter().for_each(|reason| add(reason.name(), reason.sentence()));
    assert_eq!(items(&section(DAEMON, ".Ss", "Reasons without a line in the log")), real);
}

#[test]
fn the_published_ports_of_totp_are_those_that_are_tested() {
    let vector: BTreeMap<String, String> =
        serde_json::from_str(include_str!("data/totp-vector.json")).unwrap();
    let printed = section(PROTOCOL, ".Sh", "TOTP").join(" ");
    let words: Vec<&str> = printed.split_whitespace().collect();
    let printed = words.join(" ");
    for name in ["time", "step", "ports", "next_ports", "without_the_first", "twelve_of_twelve"] {
        assert!(printed.contains(&vector[name]), "{name} is not in knockd-rs-protocol(7)");
    }
    for name in ["shared", "key"] {
        let (first, second) = vector[name].split_at(32);
        assert!(printed.contains(&format!("{first} {second}")), "{name} is not in knockd-rs-protocol(7)");
    }
}

#[test]
fn every_check_of_the_doctor_is_explained_in_its_order_and_no_other() {
    let listed = |heading| items(&section(DAEMON, ".Ss", heading)).into_iter().map(|(head, _)| head);
    let client = doctor::client::CHECKS.iter().map(|check| check.name);
    assert!(listed("Checks of a client").eq(client), "the client's checks");
    let server = doctor::server::CHECKS.iter().map(|check| check.name);
    assert!(listed("Checks of a server").eq(server), "the server's checks");
}

#[test]
fn every_counter_of_the_status_is_explained_and_no_other() {
    assert_eq!(names(&section(DAEMON, ".Ss", "Counters")), set(counters::names()));
}

#[test]
fn every_event_of_the_log_is_explained() {
    let listed = names(&section(DAEMON, ".Ss", "Events"));
    let mut logged = BTreeSet::new();
    for file in walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")) {
        let source = std::fs::read_to_string(&file).unwrap();
        // `Event::new(LogLevel::Info, "granted", ..)` and `self.say(LogLevel::Info, "stopped", ..)`.
        let source = source.split("mod tests {").next().unwrap_or_default();
        for call in source.split("LogLevel::").skip(1) {
            let name =
                call.split_once(", \"").filter(|(level, _)| level.bytes().all(|b| b.is_ascii_alphabetic()));
            logged.extend(name.and_then(|(_, rest)| Some(rest.split_once('"')?.0.to_owned())));
        }
    }
    assert!(logged.contains("granted") && logged.contains("stopped"), "{logged:?}");
    assert_eq!(listed, logged);
}

fn walk(dir: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let below = |path: std::path::PathBuf| if path.is_dir() { walk(&path) } else { vec![path] };
    entries.flat_map(below).filter(|path| path.extension().is_some_and(|end| end == "rs")).collect()
}

/// `table.key` for every key that the installed settings file shows, commented out or not.
fn keys_of_the_settings_file() -> BTreeSet<String> {
    let (mut table, mut keys) = (String::new(), BTreeSet::new());
    for line in include_str!("../profiles/knockd-rs.toml").lines() {
        let line = line.trim_start_matches('#');
        if let Some(name) = line.strip_prefix('[') {
            // An array of tables has two brackets, of which one stays.
            table = name.strip_suffix(']').unwrap_or(name).to_owned();
        } else if let Some((key, _)) = line.split_once(" = ").filter(|(key, _)| is_key(key)) {
            keys.insert(format!("{table}.{key}"));
        }
        // The names of sets have no default to be commented out, and stand in an example above their table.
        let sets =
            line.split_whitespace().filter(|word| word.starts_with("timed_v") || word.starts_with("once_v"));
        keys.extend(sets.map(|key| format!("firewall.sets.{key}")));
    }
    keys
}

fn is_key(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

#[test]
fn every_key_of_the_settings_is_explained_in_its_table_and_no_other() {
    let tables = SETTINGS.lines().filter_map(|line| line.strip_prefix(".Ss ["));
    let tables: Vec<&str> =
        tables.filter_map(|table| table.trim_end_matches("\\&").strip_suffix(']')).collect();
    let mut listed = BTreeSet::new();
    for table in &tables {
        let heads = items(&section(SETTINGS, ".Ss", &format!("[{table}]"))).into_iter().map(|(head, _)| head);
        listed.extend(heads.filter_map(|head| Some(format!("{table}.{}", head.strip_prefix("Va ")?))));
    }
    assert_eq!(listed, keys_of_the_settings_file());
    // What people name themselves has a table and no keys.
    assert!(tables.contains(&"services"));
}

/// The strings of `const NAME: &[&str] = &[..];` in this source.
fn strings_of_const(source: &str, name: &str) -> BTreeSet<String> {
    let (_, rest) = source.split_once(&format!("const {name}: &[&str] = &[")).expect("the constant is there");
    let (list, _) = rest.split_once("];").expect("it ends");
    set(list.split('"').skip(1).step_by(2))
}

#[test]
fn every_key_of_a_profile_is_explained_and_no_other() {
    let listed = names(&section(PROFILE, ".Ss", "Keys"));
    let listed = set(listed.iter().filter_map(|head| head.strip_prefix("Va ")));
    assert_eq!(listed, strings_of_const(include_str!("../src/profile/mod.rs"), "KEYS"));
}

#[test]
fn every_key_of_a_bundle_and_of_the_clients_file_is_explained_and_no_other() {
    let access = strings_of_const(include_str!("../src/enrol/mod.rs"), "ACCESS_KEYS");
    let bundle: BTreeSet<String> = access.iter().cloned().chain(set(["knockd-rs", "server"])).collect();
    assert_eq!(names(&section(PROFILE, ".Ss", "Bundles")), bundle);
    let file = section(PROFILE, ".Ss", "The client's file").join("\n");
    for key in access {
        assert!(file.contains(&format!(".Ql {key}")), "{key}");
    }
}

#[test]
fn the_published_test_vector_is_the_one_that_is_tested() {
    let vector: BTreeMap<String, serde_json::Value> =
        serde_json::from_str(include_str!("data/spa-vector.json")).unwrap();
    let digits =
        |word: &&str| word.len() % 2 == 0 && word.len() >= 8 && word.bytes().all(|b| b.is_ascii_hexdigit());
    let printed: String = PROTOCOL.split_whitespace().filter(digits).collect();
    for (name, value) in
        vector.iter().filter(|(name, _)| !["what", "noise_message", "counter"].contains(&name.as_str()))
    {
        assert!(printed.contains(value.as_str().unwrap()), "{name} is not in knockd-rs-protocol(7)");
    }
    assert!(PROTOCOL.contains(vector.get("counter").and_then(|counter| counter.as_str()).unwrap()));
    // The message's three parts stand apart there.
    let message = vector.get("noise_message").and_then(|message| message.as_str()).unwrap();
    let (ephemeral, rest) = message.split_at(64);
    let (sealed_key, payload) = rest.split_at(96);
    for part in [ephemeral, sealed_key, payload] {
        assert!(printed.contains(part), "{part}");
    }
}

#[test]
fn the_published_sequence_is_the_one_that_is_tested() {
    let vector: BTreeMap<String, serde_json::Value> =
        serde_json::from_str(include_str!("data/sequence-vector.json")).unwrap();
    let printed =
        section(PROTOCOL, ".Ss", "Test vector of a sequence").join(" ").replace([' ', ';', ','], "");
    for (name, value) in vector.iter().filter(|(name, _)| *name != "what") {
        let value = match value {
            serde_json::Value::Array(ports) => ports.iter().map(ToString::to_string).collect(),
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        assert!(printed.contains(&value), "{name} is not in knockd-rs-protocol(7)");
    }
}

#[test]
fn the_published_certificate_vector_is_the_one_that_is_tested() {
    let vector: BTreeMap<String, serde_json::Value> =
        serde_json::from_str(include_str!("data/cert-vector.json")).unwrap();
    let digits = |word: &&str| word.len() % 2 == 0 && word.bytes().all(|b| b.is_ascii_hexdigit());
    let printed: String = PROTOCOL.split_whitespace().filter(digits).collect();
    for (name, value) in vector.iter().filter(|(name, _)| !["what", "counter"].contains(&name.as_str())) {
        assert!(printed.contains(value.as_str().unwrap()), "{name} is not in knockd-rs-protocol(7)");
    }
    assert!(PROTOCOL.contains(vector.get("counter").and_then(|counter| counter.as_str()).unwrap()));
}

/// Every function of the program and of its tests, by name; those of a program of tests are in its table.
fn functions() -> BTreeSet<String> {
    fn walk(dir: &Path, found: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                for line in text.lines().map(str::trim_start) {
                    let function = line.strip_prefix("fn ").and_then(|line| line.split_once('('));
                    let row = line.strip_prefix("(\"").and_then(|line| line.split_once("\", "));
                    found.extend(function.or(row).map(|(name, _)| name.to_owned()));
                }
            }
        }
    }
    let mut found = BTreeSet::new();
    for dir in ["src", "tests"] {
        walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join(dir), &mut found);
    }
    found
}

#[test]
fn the_tests_that_the_security_argument_names_exist() {
    let functions = functions();
    let is_name = |word: &&str| {
        word.matches('_').count() > 3
            && word.chars().all(|c| c == '_' || c.is_ascii_lowercase() || c.is_ascii_digit())
    };
    let argument = section(PROTOCOL, ".Sh ", "SECURITY CONSIDERATIONS").join("\n");
    let security = include_str!("../SECURITY.md");
    for (page, text, least) in
        [("knockd-rs-protocol(7)", argument.as_str(), 50), ("SECURITY.md", security, 100)]
    {
        let words = text.split(|c: char| !(c == '_' || c.is_ascii_alphanumeric()));
        let names: BTreeSet<&str> = words.filter(is_name).collect();
        let missing: Vec<&&str> = names.iter().filter(|name| !functions.contains(**name)).collect();
        assert!(missing.is_empty(), "{page} names tests that do not exist: {missing:?}");
        assert!(names.len() >= least, "{page}: {}", names.len());
    }
}

#[test]
fn every_page_is_free_of_warnings() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("man");
    let mut pages: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    pages.sort();
    assert_eq!(pages.len(), 4);
    let lint = Command::new("mandoc").args(["-T", "lint", "-W", "warning"]).args(pages).output();
    let lint = lint.unwrap_or_else(|error| panic!("mandoc cannot be run ({error}): apt-get install mandoc"));
    let said = String::from_utf8_lossy(&lint.stdout);
    assert!(lint.status.success() && said.is_empty(), "{said}");
}

#[test]
fn completions_name_every_command() {
    use clap_complete::Shell;

    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut cli::command(), "knockd-rs", &mut script);
        let script = String::from_utf8(script).unwrap();
        for word in commands().keys().flat_map(|path| path.split(' ')) {
            let is_there =
                script.split(|c: char| !c.is_ascii_lowercase() && c != '-').any(|found| found == word);
            assert!(is_there, "{shell} does not know `{word}`");
        }
    }
}

#[test]
fn completions_name_every_flag() {
    use clap_complete::Shell;

    let mut script = Vec::new();
    clap_complete::generate(Shell::Bash, &mut cli::command(), "knockd-rs", &mut script);
    let script = String::from_utf8(script).unwrap();
    for (path, command) in commands() {
        for flag in command.get_arguments().filter_map(clap::Arg::get_long) {
            assert!(script.contains(&format!("--{flag}")), "`{path} --{flag}`");
        }
    }
}
