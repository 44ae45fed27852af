//! The C interface: its header and the Rust behind it, the example at work, and careless callers.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::mem::offset_of;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::build::{library, program};
use crate::common::{SERVER_NAME, SERVER4, SOON, World, said, succeed, wait_for};
use crate::rust::{config, world};

#[path = "../../src/capi/abi.rs"]
#[allow(dead_code, unreachable_pub, reason = "the library's own file, for its numbers")]
mod abi;

const HEADER: &str = include_str!("../../src/capi/knockd_rs.h");
const SOURCE: &str = include_str!("../../src/capi.rs");

#[test]
fn the_numbers_of_the_header_are_those_of_the_library() {
    let dir = tempfile::tempdir().unwrap();
    let printed = succeed(&Command::new(program("library/abi.c", dir.path())).output().unwrap());
    let theirs: BTreeMap<&str, usize> = printed
        .lines()
        .map(|line| line.rsplit_once(' ').unwrap())
        .map(|(name, n)| (name, n.parse().unwrap()))
        .collect();
    let result = |outcome: abi::Outcome| usize::try_from(outcome.code()).unwrap();
    let number = |number: u32| usize::try_from(number).unwrap();
    let ours = BTreeMap::from([
        ("initial size", size_of::<abi::Options>()),
        ("offset size", offset_of!(abi::Options, size)),
        ("offset methods", offset_of!(abi::Options, methods)),
        ("offset timeout_ms", offset_of!(abi::Options, timeout_ms)),
        ("offset knocks", offset_of!(abi::Options, knocks)),
        ("offset patience_ms", offset_of!(abi::Options, patience_ms)),
        ("offset uses", offset_of!(abi::Options, uses)),
        ("offset duration_s", offset_of!(abi::Options, duration_s)),
        ("KNOCKD_RS_DONE", result(abi::Outcome::Done)),
        ("KNOCKD_RS_INVALID", result(abi::Outcome::Invalid)),
        ("KNOCKD_RS_SERVER", result(abi::Outcome::Server)),
        ("KNOCKD_RS_NOT_SENT", result(abi::Outcome::NotSent)),
        ("KNOCKD_RS_CLOSED", result(abi::Outcome::Closed)),
        ("KNOCKD_RS_BUG", result(abi::Outcome::Bug)),
        ("KNOCKD_RS_METHOD_SPA", number(abi::METHOD_SPA)),
        ("KNOCKD_RS_METHOD_SYN", number(abi::METHOD_SYN)),
        ("KNOCKD_RS_METHOD_SEQUENCE", number(abi::METHOD_SEQUENCE)),
        ("KNOCKD_RS_METHOD_TOTP", number(abi::METHOD_TOTP)),
        ("KNOCKD_RS_USES_PROFILE", number(abi::USES_PROFILE)),
    ]);
    assert_eq!(theirs, ours);
    // And no number of the header is left out of the comparison.
    let is_number = |word: &&str| {
        word.starts_with("KNOCKD_RS_") && !matches!(*word, "KNOCKD_RS_H" | "KNOCKD_RS_OPTIONS_INIT")
    };
    let named: BTreeSet<&str> = words(HEADER).into_iter().filter(is_number).collect();
    assert!(named.iter().all(|name| ours.contains_key(name)), "{named:?}");
}

#[test]
fn the_header_declares_every_function_of_the_library_with_as_many_parameters_and_no_other() {
    let comments = |text: &str| {
        text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
    };
    let exported = functions(&comments(SOURCE), "extern \"C\" fn ", ':');
    let mut plain = String::new();
    for part in HEADER.split("/*") {
        plain += part.split_once("*/").map_or(part, |(_, rest)| rest);
    }
    let declared = functions(&plain.replace("(void)", "()"), "knockd_rs_", ',');
    let declared: BTreeMap<String, usize> =
        declared.into_iter().map(|(name, commas)| (format!("knockd_rs_{name}"), commas)).collect();
    assert!(exported.len() >= 8, "{exported:?}");
    assert_eq!(declared, exported);
    let symbols = Command::new("nm")
        .args(["-D", "--defined-only"])
        .arg(library().join("libknockd_rs.so"))
        .output()
        .unwrap();
    let symbols = succeed(&symbols);
    let symbols: BTreeSet<&str> = symbols.lines().filter_map(|line| line.split_whitespace().nth(2)).collect();
    assert_eq!(symbols, exported.keys().map(String::as_str).collect(), "what the library shows to others");
}

/// The functions behind this word and how many parameters each has; `mark` stands once in each of them, or between them.
fn functions(text: &str, before: &str, mark: char) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    for (place, _) in text.match_indices(before) {
        let Some((name, rest)) = text[place + before.len()..].split_once('(') else { continue };
        if !name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_') {
            continue;
        }
        let parameters = rest.split_once(')').unwrap().0.trim();
        let marks = parameters.matches(mark).count() - 2 * parameters.matches("::").count();
        let count = if mark == ',' && !parameters.is_empty() { marks + 1 } else { marks };
        found.insert(name.to_owned(), count);
    }
    found
}

fn words(text: &str) -> Vec<&str> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).filter(|word| !word.is_empty()).collect()
}

/// The example, in the client's namespace.
struct Example<'a> {
    world: &'a World,
    program: PathBuf,
}

impl<'a> Example<'a> {
    fn new(world: &'a World) -> Self {
        Self { world, program: program("examples/knock.c", &world.path("lib")) }
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = self.world.inside(&self.world.client);
        command.arg(&self.program).args(arguments).env("HOME", self.world.path("home"));
        command.env_remove("XDG_CONFIG_HOME").env_remove("XDG_STATE_HOME").output().unwrap()
    }

    #[track_caller]
    fn says(&self, arguments: &[&str], words: &str) {
        assert_eq!(succeed(&self.run(arguments)), words);
    }

    #[track_caller]
    fn fails(&self, arguments: &[&str], code: abi::Outcome, words: &str) {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(code.code()), "{}", said(&output));
        assert!(said(&output).contains(words), "{}", said(&output));
    }
}

#[test]
fn the_example_in_c_opens_a_tcp_port_and_a_udp_port_and_reads_what_the_services_say() {
    let world = world("drop", &["spa", "sequence"]);
    let daemon = world.daemon(&config("drop"));
    let (_ssh, _dns) = (world.listener(22), world.listener(53));
    let example = Example::new(&world);
    example.says(&[SERVER_NAME, "tcp", "22"], "hello\n");
    example.says(&[SERVER_NAME, "udp", "53", "probe"], "probe");
    assert_eq!(daemon.counter("knocks accepted"), 2, "{}", daemon.log());
    example.says(&[SERVER_NAME, "tcp", "22", "methods=4"], "hello\n");
    let bundle = world.path("laptop-myserver.knock");
    example.says(&[bundle.to_str().unwrap(), "tcp", "22"], "hello\n");
    assert!(!world.can_connect(SERVER4, 22), "each grant was for one connection");
}

#[test]
fn the_example_in_c_knocks_alone_and_closes() {
    let world = world("drop", &["spa"]);
    let daemon = world.daemon(&config("drop"));
    let _ssh = world.listener(22);
    let example = Example::new(&world);
    example.says(&[SERVER_NAME, "open", "tcp/22 udp/53"], "");
    assert!(world.can_connect(SERVER4, 22) && world.can_connect(SERVER4, 22), "{}", daemon.log());
    example.says(&[SERVER_NAME, "close"], "");
    assert!(wait_for(SOON, || daemon.grants().is_empty()), "{}", daemon.log());
}

#[test]
fn errors_reach_a_program_in_c_as_sentences_that_say_what_to_do() {
    let world = world("drop", &["spa"]);
    let _daemon = world.daemon(&config("drop"));
    let example = Example::new(&world);
    example.fails(
        &["elsewhere", "tcp", "22"],
        abi::Outcome::Server,
        "there is no server `elsewhere` here; import its bundle with: knockd-rs import FILE",
    );
    example.fails(
        &[SERVER_NAME, "tcp", "22", "methods=2"],
        abi::Outcome::Invalid,
        "myserver takes knocks by spa from",
    );
    let closed = "the port did not answer, also after a knock";
    example.fails(&[SERVER_NAME, "udp", "54", "probe", "timeout_ms=900"], abi::Outcome::Closed, closed);
    let file = world.path("home/.config/knockd-rs/myserver.toml");
    fs::set_permissions(&file, PermissionsExt::from_mode(0o640)).unwrap();
    example.fails(
        &[SERVER_NAME, "tcp", "22"],
        abi::Outcome::Server,
        "mode 0640 lets other users read it; run: chmod 0600",
    );
    fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
    world.retarget("nowhere.invalid");
    example.fails(&[SERVER_NAME, "tcp", "22"], abi::Outcome::NotSent, "nowhere.invalid has no address");
}

#[test]
fn a_careless_program_in_c_is_refused_and_harms_neither_side() {
    let world = world("drop", &["spa"]);
    let careless = Example { program: program("library/hostile.c", &world.path("lib")), world: &world };
    assert!(Path::new(&careless.program).is_file());
    careless.says(&[SERVER_NAME], "");
}
