//! The command line from outside: help, exit codes, both ways of enrolment, and what is never printed.
//!
//! Nothing here needs the network, a daemon or root.
#![cfg(all(feature = "daemon", feature = "client"))]
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, and so do its helpers"
)]

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Output;

use assert_cmd::Command;
use knockd_rs::cli::{EXIT_CODES, command};

const KNOCKD: &str = env!("CARGO_BIN_EXE_knockd-rs");

/// A server's directories and a client's home.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        for dir in ["etc", "home", "run"] {
            fs::create_dir(place.path(dir)).unwrap();
        }
        place
    }

    /// With the profile `laptop`, and its bundle `laptop.knock`.
    fn with_laptop() -> Self {
        let place = Self::new();
        place.ok("profile add laptop --open tcp/22 --host 127.0.0.1 --server home");
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    fn write(&self, name: &str, mode: u32, text: &str) {
        fs::write(self.path(name), text).unwrap();
        fs::set_permissions(self.path(name), Permissions::from_mode(mode)).unwrap();
    }

    fn mode(&self, name: &str) -> u32 {
        self.path(name).metadata().unwrap().permissions().mode() & 0o7777
    }

    /// What the command says and how it ends; the directories are this place's.
    fn run(&self, words: &str) -> Output {
        let words: Vec<&str> = words.split(' ').collect();
        let mut command = Command::new(KNOCKD);
        command.env_clear().env("HOME", self.path("home")).current_dir(self.0.path()).args(&words);
        let (with_config, with_state, with_runtime) = match words[0] {
            "profile" | "check" | "init" | "import-config" => (true, true, false),
            "run" => (true, true, true),
            "status" | "guard" | "unguard" | "grant" | "revoke" | "reload" => (false, false, true),
            _ => (false, false, false),
        };
        for (is_taken, flag, dir) in [
            (with_config, "--config-dir", "etc"),
            (with_state, "--state-dir", "var"),
            (with_runtime, "--runtime-dir", "run"),
        ] {
            if is_taken && !words.contains(&flag) {
                command.arg(flag).arg(self.path(dir));
            }
        }
        command.output().unwrap()
    }

    #[track_caller]
    fn ok(&self, words: &str) -> String {
        let output = self.run(words);
        assert_eq!(output.status.code(), Some(0), "{words}: {}", said(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// The error; it is one or more sentences on standard error, and nothing else is said.
    #[track_caller]
    fn fails(&self, words: &str, code: i32) -> String {
        let output = self.run(words);
        assert_eq!(output.status.code(), Some(code), "{words}: {}", said(&output));
        assert!(output.stdout.is_empty(), "{words}: {}", said(&output));
        let error = String::from_utf8(output.stderr).unwrap();
        for odd in ["panicked", "Os {", "Error(", "Err(", "None", "unwrap", "Some("] {
            assert!(!error.contains(odd), "{words}: {error}");
        }
        error.trim_end().replace(&format!("{}/", self.0.path().display()), "")
    }

    /// Every secret that is in a file of this place, as base64.
    fn secrets(&self) -> BTreeSet<String> {
        let mut secrets = BTreeSet::new();
        for file in ["etc/server.key", "etc/gate.key", "own.key"] {
            secrets.extend(fs::read_to_string(self.path(file)).map(|line| line.trim().to_owned()));
        }
        let mut files = vec![self.path("laptop.knock"), self.path("home/.config/knockd-rs/home.toml")];
        files.extend(fs::read_dir(self.path("etc/profiles.d")).unwrap().map(|entry| entry.unwrap().path()));
        for file in files {
            let text = fs::read_to_string(file).unwrap_or_default();
            for line in text.lines().filter(|line| !line.trim_start().starts_with('#')) {
                for name in ["psk", "private_key", "gate_key"] {
                    if line.trim_start().trim_start_matches('"').starts_with(name) {
                        secrets.extend(line.split('"').find(|word| word.len() == 44).map(str::to_owned));
                    }
                }
            }
        }
        secrets
    }
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Every command that a person can give, and its definition.
fn subcommands() -> Vec<(String, clap::Command)> {
    let mut found = Vec::new();
    let mut left = vec![(String::new(), command())];
    while let Some((name, command)) = left.pop() {
        for sub in command.get_subcommands() {
            left.push((format!("{name} {}", sub.get_name()).trim().to_owned(), sub.clone()));
        }
        found.push((name, command));
    }
    found
}

// --- help and usage ------------------------------------------------------------------------------------------

#[test]
fn every_command_explains_itself() {
    let place = Place::new();
    let commands = subcommands();
    assert!(commands.len() > 18);
    for (name, definition) in commands {
        let help = place.ok(format!("{name} --help").trim());
        assert!(help.contains("Usage: knockd-rs"), "{name}");
        assert!(
            definition.is_hide_set() || definition.get_about().is_some(),
            "{name} says nothing about itself"
        );
        for argument in definition.get_arguments().filter(|argument| argument.get_id() != "version") {
            assert!(argument.get_help().is_some(), "{name}: {} is not explained", argument.get_id());
        }
    }
}

#[test]
fn the_version_is_that_of_the_package() {
    assert_eq!(Place::new().ok("--version"), format!("knockd-rs {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_command_line_without_sense_is_a_usage_error_that_says_what_would_have_one() {
    let place = Place::with_laptop();
    place.ok("import laptop.knock");
    let cases = [
        ("frobnicate", "unrecognized subcommand 'frobnicate'"),
        ("knock", "<SERVER>"),
        ("knock home tcp/0", "use 1 to 65535"),
        ("knock home tcp", "tcp"),
        ("knock home --for 0x", "0x"),
        ("knock home --address here", "invalid"),
        ("knock home --wait --close", "cannot be used with '--close'"),
        ("knock home --wait --no-wait", "cannot be used with '--no-wait'"),
        ("knock home udp/53 --wait", "--wait tries a TCP port, and none is asked for; leave it out"),
        ("knock home web", "home opens no service web for this client; it knows: none"),
        ("knock home tcp/1 tcp/2 tcp/3 tcp/4 tcp/5 tcp/6", "one knock can name 5 port ranges"),
        ("knock ../home", "is no name; use 1 to 64 characters"),
        ("guard", "<PORT>..."),
        ("guard 22", "22"),
        ("grant laptop nowhere", "invalid"),
        ("profile", "Usage: knockd-rs profile"),
        ("profile add x", "--open <PORT|SERVICE>"),
        ("profile add all --open tcp/22", "means every profile"),
        ("profile add ../x --open tcp/22", "is no name"),
        ("profile add x --open tcp/22 --host a:b", "without brackets or port"),
        ("profile add x --open tcp/22 --public-key AAAA", "write 32 bytes in base64"),
        ("completions tcsh", "bash"),
        ("status --json --watch", "cannot be used with"),
    ];
    for (words, hint) in cases {
        let error = place.fails(words, 2);
        assert!(error.contains(hint), "{words}: {error}");
    }
}

#[test]
fn no_option_takes_a_secret_since_every_user_can_read_the_command_line_of_every_process() {
    for (name, definition) in subcommands() {
        for argument in definition.get_arguments() {
            let id = argument.get_id().as_str();
            let is_secret = ["key", "psk", "secret", "pass"].iter().any(|word| id.contains(word));
            let value: Vec<String> =
                argument.get_value_names().unwrap_or_default().iter().map(ToString::to_string).collect();
            let takes_value = argument.get_action().takes_values();
            assert!(
                !is_secret || !takes_value || id == "public_key" || value == ["FILE"],
                "{name}: {id} {value:?}"
            );
        }
    }
}

#[test]
fn completions_know_every_command() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = Place::new().ok(&format!("completions {shell}"));
        for name in command().get_subcommands().filter(|sub| !sub.is_hide_set()).map(clap::Command::get_name)
        {
            assert!(script.contains(name), "{shell} does not know {name}");
        }
    }
}

#[test]
fn a_reader_that_goes_away_is_no_failure_and_a_full_disk_is_one() {
    let place = Place::with_laptop();
    let etc = place.path("etc").display().to_string();
    for words in [vec!["completions", "zsh"], vec!["profile", "show", "laptop", "--config-dir", &etc]] {
        // A pipe whose other end is closed before a word is written.
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        drop(reader);
        let output = std::process::Command::new(KNOCKD).args(&words).stdout(writer).output().unwrap();
        assert_eq!((output.status.code(), said(&output).as_str()), (Some(0), ""), "{words:?}");
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let output = std::process::Command::new(KNOCKD).args(&words).stdout(full).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{words:?}");
        assert!(
            said(&output).starts_with("knockd-rs: standard output cannot be written: "),
            "{}",
            said(&output)
        );
    }
}

// --- exit codes ----------------------------------------------------------------------------------------------

#[test]
fn every_exit_code_of_the_manual_has_a_command_that_ends_with_it() {
    let place = Place::with_laptop();
    place.ok("import laptop.knock");
    let mut ended = BTreeSet::new();
    let mut see = |words: &str, code: i32| {
        let output = place.run(words);
        assert_eq!(output.status.code(), Some(code), "{words}: {}", said(&output));
        ended.insert(u8::try_from(code).unwrap());
    };
    see("check", 0);
    see("import laptop.knock", 1);
    see("knock", 2);
    see("knock elsewhere", 3);
    see("status", 4);
    // Nothing listens on port 1 of this machine, and nobody opens it.
    see("knock home tcp/1 --timeout 1s", 5);
    answered(&place, r#"{"refused":["no"]}"#, || see("reload", 6));
    ended.insert(not_permitted(&place));
    assert_eq!(ended, EXIT_CODES.iter().map(|(code, _)| *code).collect());
}

/// Runs `ask` while a daemon that always gives this answer listens.
fn answered(place: &Place, answer: &str, ask: impl FnOnce()) {
    let listener = UnixListener::bind(place.path("run/control.sock")).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (mut stream, _) = listener.accept().unwrap();
            BufReader::new(&stream).read_line(&mut String::new()).unwrap();
            writeln!(stream, "{answer}").unwrap();
        });
        ask();
    });
    fs::remove_file(place.path("run/control.sock")).unwrap();
}

/// The exit code of a user who may not talk to the daemon: where this is root, of `nobody`.
fn not_permitted(place: &Place) -> u8 {
    let _listener = UnixListener::bind(place.path("run/control.sock")).unwrap();
    fs::set_permissions(place.path("run/control.sock"), Permissions::from_mode(0o000)).unwrap();
    fs::set_permissions(place.0.path(), Permissions::from_mode(0o755)).unwrap();
    let mut command = std::process::Command::new(KNOCKD);
    if rustix::process::geteuid().is_root() {
        let copy = place.path("knockd-rs");
        // By a process of its own: a file that is open for writing, if only in a child that another test is about to start,
        // cannot be run (`ETXTBSY`).
        std::process::Command::new("install").arg(KNOCKD).arg(&copy).status().unwrap();
        command = std::process::Command::new(copy);
        command.uid(65534).gid(65534);
    }
    let output = command.arg("status").arg("--runtime-dir").arg(place.path("run")).output().unwrap();
    let words =
        "only root and the members of control.group in knockd-rs.toml may command the daemon; use sudo";
    assert_eq!(said(&output), format!("knockd-rs: {words}\n"));
    u8::try_from(output.status.code().unwrap()).unwrap()
}

#[test]
fn an_answer_of_the_daemon_is_shown_line_by_line() {
    let place = Place::new();
    answered(&place, r#"{"refused":["this will not do","nor this"]}"#, || {
        assert_eq!(place.fails("guard tcp/22", 6), "knockd-rs: this will not do\nknockd-rs: nor this");
    });
    answered(&place, r#"{"done":["guarded tcp/22"]}"#, || {
        assert_eq!(place.ok("guard tcp/22"), "guarded tcp/22\n");
    });
}

#[test]
fn a_daemon_that_is_not_there_and_one_that_babbles_are_told_apart() {
    let place = Place::new();
    assert_eq!(
        place.fails("status", 4),
        "knockd-rs: no daemon listens at run/control.sock; `systemctl start knockd-rs` starts it"
    );
    answered(&place, "what?", || {
        assert!(place.fails("status", 4).starts_with("knockd-rs: run/control.sock: "))
    });
}

#[test]
fn a_broken_configuration_keeps_check_and_run_from_going_on() {
    let place = Place::with_laptop();
    place.write("etc/knockd-rs.toml", 0o644, "[capture]\nport = 0\ncolour = \"red\"\n");
    for words in ["check", "profile list", "run"] {
        let error = place.fails(words, 3);
        let lines: Vec<&str> = error.lines().collect();
        assert!(
            lines[0].starts_with("knockd-rs: knockd-rs.toml:2: capture.port: 0; use 1 to 65535"),
            "{error}"
        );
        assert!(lines[1].starts_with("knockd-rs: knockd-rs.toml:3: capture.colour: "), "{error}");
    }
    place.write("etc/knockd-rs.toml", 0o644, "# none\n");
    place.write("etc/profiles.d/laptop.toml", 0o640, "open = [\"tcp/22\"]\n");
    assert!(place.fails("check", 3).starts_with("knockd-rs: profiles.d/laptop.toml: public_key: "));
}

#[test]
fn a_configuration_directory_that_is_not_there_is_named_and_never_made_by_a_slip_of_the_pen() {
    let place = Place::new();
    for words in
        ["check --config-dir ecc", "profile list --config-dir ecc", "profile show x --config-dir ecc"]
    {
        let error = place.fails(words, 3);
        let told = "knockd-rs: ecc: there is no such directory; name another one, or make it and run: knockd-rs init";
        assert_eq!(error, told);
    }
    for words in ["init", "run", "profile add x --open tcp/22 --host a"] {
        let error = place.fails(&format!("{words} --config-dir ecc"), 1);
        assert_eq!(error, "knockd-rs: ecc/server.key: its directory is not there; run: mkdir -p ecc");
    }
    assert!(!place.path("ecc").exists());
}

#[test]
fn the_worker_is_nothing_that_a_person_starts() {
    let output = Command::new(KNOCKD).arg("worker").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(
        said(&output),
        "knockd-rs: the worker talks to its monitor only; `knockd-rs run` starts both\n"
    );
}

// --- enrolment -----------------------------------------------------------------------------------------------

#[test]
fn the_quick_way_leads_from_one_command_on_the_server_to_one_on_the_client() {
    let place = Place::with_laptop();
    let told = place.ok("import laptop.knock");
    assert!(told.contains("home: 127.0.0.1, UDP port 62201, as laptop, server key "), "{told}");
    assert!(told.ends_with("next: knockd-rs knock home\n"), "{told}");
    // The fingerprint by which a careful person compares both ends.
    let fingerprint = |text: &str| text.split_once("server key ").unwrap().1[..19].to_owned();
    assert_eq!(fingerprint(&told), fingerprint(&place.ok("check")));
    let modes = [
        ("etc/server.key", 0o600),
        ("etc/gate.key", 0o600),
        ("etc/profiles.d", 0o750),
        ("etc/profiles.d/laptop.toml", 0o640),
        ("laptop.knock", 0o600),
        ("home/.config/knockd-rs", 0o700),
        ("home/.config/knockd-rs/home.toml", 0o600),
    ];
    for (file, mode) in modes {
        assert_eq!(place.mode(file), mode, "{file}");
    }
    // Nothing left behind by the writing.
    for dir in ["etc", "etc/profiles.d", "home/.config/knockd-rs"] {
        let hidden = fs::read_dir(place.path(dir)).unwrap().map(|entry| entry.unwrap().file_name());
        assert_eq!(hidden.filter(|name| name.to_string_lossy().starts_with('.')).count(), 0, "{dir}");
    }
    assert_eq!(place.run("knock home --no-wait").status.code(), Some(0));
    assert_eq!(
        (place.mode("home/.local/state/knockd-rs"), place.mode("home/.local/state/knockd-rs/home.counter")),
        (0o700, 0o600)
    );
}

#[test]
fn modes_do_not_depend_on_the_umask() {
    let place = Place::new();
    let script = format!(
        "umask 000; {KNOCKD} profile add laptop --open tcp/22 --host a --config-dir etc --state-dir var && \
         {KNOCKD} import laptop.knock && {KNOCKD} keygen --out own.key"
    );
    let output = std::process::Command::new("sh")
        .args(["-c", &script])
        .env("HOME", place.path("home"))
        .current_dir(place.0.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let modes = ["etc/server.key", "laptop.knock", "home/.config/knockd-rs/a.toml", "own.key"]
        .map(|file| place.mode(file));
    assert_eq!(modes, [0o600; 4]);
    assert_eq!(
        (place.mode("etc/profiles.d/laptop.toml"), place.mode("home/.config/knockd-rs")),
        (0o640, 0o700)
    );
}

#[test]
fn the_strict_way_never_brings_the_private_key_to_the_server() {
    let place = Place::new();
    let output = place.run("keygen --out own.key");
    let public = String::from_utf8(output.stdout).unwrap();
    assert_eq!(place.mode("own.key"), 0o600);
    place.ok(&format!(
        "profile add laptop --open tcp/22 --host 127.0.0.1 --server home --public-key {}",
        public.trim()
    ));
    let bundle = place.read("laptop.knock");
    assert!(!bundle.contains("private_key"));
    assert!(bundle.contains("psk"));
    assert_eq!(
        place.fails("import laptop.knock", 3),
        "knockd-rs: the bundle has no private key; give the one of your keygen with --private-key FILE"
    );
    place.ok("import laptop.knock --private-key own.key");
    let private = place.read("own.key");
    assert!(place.read("home/.config/knockd-rs/home.toml").contains(private.trim()));
    for file in ["etc/profiles.d/laptop.toml", "laptop.knock"] {
        assert!(!place.read(file).contains(private.trim()), "{file}");
    }
    assert!(place.read("etc/profiles.d/laptop.toml").contains(public.trim()));
    assert_eq!(place.run("knock home --no-wait").status.code(), Some(0));
}

#[test]
fn the_private_key_of_a_bundle_and_of_the_client_are_not_mixed() {
    let place = Place::with_laptop();
    place.run("keygen --out own.key");
    assert_eq!(
        place.fails("import laptop.knock --private-key own.key", 3),
        "knockd-rs: the bundle brings its own private key; leave out --private-key"
    );
    place.write("own.key", 0o644, &place.read("own.key"));
    assert_eq!(
        place.fails("import laptop.knock --private-key own.key", 3),
        "knockd-rs: own.key: mode 0644 lets other users read it; run: chmod 0600 own.key"
    );
    place.write("own.key", 0o600, "no key\n");
    assert!(
        place.fails("import laptop.knock --private-key own.key", 3).ends_with("`knockd-rs keygen` makes one")
    );
}

#[test]
fn nothing_that_is_there_is_overwritten_unasked() {
    let place = Place::with_laptop();
    place.ok("import laptop.knock");
    place.ok("keygen --out own.key");
    let files = [
        "etc/server.key",
        "etc/gate.key",
        "etc/profiles.d/laptop.toml",
        "laptop.knock",
        "home/.config/knockd-rs/home.toml",
        "own.key",
    ];
    let before = files.map(|file| place.read(file));
    let errors = [
        (
            "profile add laptop --open tcp/80 --host a",
            "laptop.knock is there already; choose another name with --out",
        ),
        (
            "profile add laptop --open tcp/80 --host a --out other.knock",
            "there is a profile `laptop`; remove it first (knockd-rs profile remove laptop) or choose another name",
        ),
        (
            "profile add phone --open tcp/80 --host a --out laptop.knock",
            "laptop.knock is there already; choose another name with --out",
        ),
        (
            "import laptop.knock",
            "a server `home` is known already; --name gives this one another name, --force replaces that one",
        ),
        ("keygen --out own.key", "own.key: is there already; remove it or choose another name"),
    ];
    for (words, error) in errors {
        assert_eq!(place.fails(words, 1), format!("knockd-rs: {error}"), "{words}");
    }
    place.ok("init");
    assert_eq!(files.map(|file| place.read(file)), before);
    assert!(!place.path("other.knock").exists() && !place.path("etc/profiles.d/phone.toml").exists());
    place.ok("import laptop.knock --name work");
    place.ok("import laptop.knock --force --host 192.0.2.9");
    assert!(place.read("home/.config/knockd-rs/home.toml").contains("host = \"192.0.2.9\""));
}

#[test]
fn a_key_is_never_written_through_a_symbolic_link() {
    let place = Place::new();
    symlink(place.path("elsewhere"), place.path("own.key")).unwrap();
    symlink(place.path("elsewhere"), place.path("laptop.knock")).unwrap();
    place.fails("keygen --out own.key", 1);
    let output = place.run("profile add laptop --open tcp/22 --host a");
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(!place.path("elsewhere").exists());
}

#[test]
fn a_profile_whose_bundle_cannot_be_made_is_not_left_behind() {
    let place = Place::new();
    place.ok("init");
    let cases = [
        ("profile add laptop --open tcp/22 --host 2001:db8::1", 2, "use --server"),
        ("profile add laptop --open tcp/22 --host a --out missing/laptop.knock", 1, "run: mkdir -p missing"),
        ("profile add laptop --open ssh --host a", 1, "no service `ssh`"),
    ];
    for (words, code, hint) in cases {
        let error = place.fails(words, code);
        assert!(error.ends_with(hint) || error.contains(hint), "{error}");
        assert!(!place.path("etc/profiles.d/laptop.toml").exists(), "{words}");
    }
    place.ok("profile add laptop --open tcp/22 --host 2001:db8::1 --server home");
}

#[test]
fn a_bundle_that_others_could_read_or_that_is_damaged_is_refused() {
    let place = Place::with_laptop();
    let good = place.read("laptop.knock");
    for mode in [0o640, 0o604, 0o620, 0o700 | 0o044] {
        place.write("laptop.knock", mode, &good);
        let error = place.fails("import laptop.knock", 3);
        assert!(error.ends_with("run: chmod 0600 laptop.knock"), "{error}");
    }
    let key = |name: &str| good.split_once(&format!("\"{name}\": \"")).unwrap().1[..44].to_owned();
    let cases: [(String, &str); 9] = [
        (String::new(), "laptop.knock:1: "),
        (good[..good.len() / 2].to_owned(), "laptop.knock:"),
        (
            good.replace("\"knockd-rs\": 1", "\"knockd-rs\": 2"),
            "laptop.knock:2: knockd-rs: version 2; this program reads version 1",
        ),
        (good.replace("\"knockd-rs\": 1,", ""), "laptop.knock: knockd-rs: "),
        (good.replace("\"server\"", "\"sewer\""), "sewer"),
        (good.replace(&key("private_key"), &key("private_key")[1..]), "private_key: "),
        (good.replace(&key("server_key"), &format!("{}=", "A".repeat(43))), "server_key: is a weak key"),
        (good.replace("62201", "0"), "port: 0; use 1 to 65535"),
        (good.replace("\"home\"", "\"../home\""), "server: "),
    ];
    for (text, hint) in cases {
        assert_ne!(text, good, "{hint}");
        place.write("laptop.knock", 0o600, &text);
        let error = place.fails("import laptop.knock", 3);
        assert!(error.contains(hint), "{hint}: {error}");
        assert!(!error.contains(&key("private_key")[1..]), "{error}");
        assert!(!place.path("home/.config/knockd-rs/home.toml").exists());
    }
    assert_eq!(place.fails("import nowhere.knock", 3), "knockd-rs: nowhere.knock: there is no such file");
    assert_eq!(place.fails("import etc", 3), "knockd-rs: etc: is a directory, and should be a file");
}

#[test]
fn a_servers_file_is_checked_at_every_knock() {
    let place = Place::with_laptop();
    assert_eq!(
        place.fails("knock home", 3),
        "knockd-rs: home/.config/knockd-rs/home.toml: there is no server `home` here; import its bundle with: \
         knockd-rs import FILE"
    );
    place.ok("import laptop.knock");
    let (file, good) = ("home/.config/knockd-rs/home.toml", place.read("home/.config/knockd-rs/home.toml"));
    place.write(file, 0o644, &good);
    assert!(
        place
            .fails("knock home --no-wait", 3)
            .contains("mode 0644 lets other users read it; run: chmod 0600 ")
    );
    place.write(file, 0o600, &good.replace("port = 62201", "port = 99999"));
    assert!(place.fails("knock home --no-wait", 3).contains("home.toml:5: port: 99999; use 1 to 65535"));
    place.write(file, 0o600, &good);
    fs::set_permissions(place.path("home/.config/knockd-rs"), Permissions::from_mode(0o777)).unwrap();
    assert!(place.fails("knock home --no-wait", 3).contains("mode 0777 lets other users change it"));
}

#[test]
fn without_a_home_there_is_no_place_for_keys() {
    let place = Place::with_laptop();
    let mut command = Command::new(KNOCKD);
    let output =
        command.env_clear().current_dir(place.0.path()).args(["import", "laptop.knock"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(said(&output), "knockd-rs: HOME is not set, so there is no place for keys; set it\n");
}

#[test]
fn a_removed_profile_is_gone_and_an_unknown_one_is_an_error() {
    let place = Place::with_laptop();
    assert!(place.ok("profile list").starts_with("laptop           "));
    place.ok("profile remove laptop");
    assert_eq!(
        place.ok("profile list"),
        "no profile yet; `knockd-rs profile add NAME --open tcp/22` makes one\n"
    );
    for (words, error) in [
        ("profile remove laptop", "there is no profile `laptop`; see: knockd-rs profile list"),
        ("profile show laptop", "there is no profile `laptop`; see `knockd-rs profile list`"),
    ] {
        assert_eq!(place.fails(words, 1), format!("knockd-rs: {error}"));
    }
}

#[test]
fn a_dry_run_of_an_import_writes_nothing_and_an_import_writes_over_nothing() {
    let place = Place::new();
    place.write("knockd.conf", 0o644, include_str!("data/migrate/knockd.conf"));
    let text = place.ok("import-config --dry-run knockd.conf");
    assert!(
        text.contains("would make the profile openssh of [openSSH]") && text.contains("nothing was written")
    );
    assert_eq!(fs::read_dir(place.path("etc")).unwrap().count(), 0, "{text}");
    place.ok("profile add openssh --open tcp/80 --host localhost");
    let before = place.read("etc/profiles.d/openssh.toml");
    let text = place.ok("import-config knockd.conf");
    assert!(text.contains("[openSSH]: there is a profile `openssh`"), "{text}");
    assert!(text.contains("made the profile openhttps"), "{text}");
    assert_eq!(place.read("etc/profiles.d/openssh.toml"), before);
    assert!(place.read("etc/profiles.d/openhttps.toml").contains("total = \"15s\""));
    place.ok("check");
}

#[test]
fn a_sequence_that_clashes_with_another_is_not_carried_over_and_breaks_nothing() {
    let place = Place::new();
    let section = |name: &str, knocks: &str, port: u16| {
        format!(
            "[{name}]\nsequence = {knocks}\nseq_timeout = 5\n\
             command = iptables -A INPUT -s %IP% -p tcp --dport {port} -j ACCEPT\nstop_command = true\n"
        )
    };
    let text = section("one", "7000,9000,8000", 22)
        + &section("two", "6000,5000,8000", 80)
        + &section("scan", "1,2,3", 25);
    place.write("knockd.conf", 0o644, &text);
    let text = place.ok("import-config knockd.conf");
    assert!(text.contains("made the profile one of [one]"), "{text}");
    assert!(text.contains("knockd.conf:6: [two]: ") && text.contains("ends with the same knock"), "{text}");
    assert!(
        text.contains("knockd.conf:11: [scan]: ") && text.contains("so that a port scan would open"),
        "{text}"
    );
    assert!(
        !place.path("etc/profiles.d/two.toml").exists() && !place.path("etc/profiles.d/scan.toml").exists()
    );
    place.ok("check");
}

#[test]
fn a_file_of_neither_kind_is_no_configuration_to_import() {
    let place = Place::new();
    place.write("hello", 0o644, "hello\n");
    let error = place.fails("import-config hello", 1);
    assert!(error.contains("hello is neither a configuration of knockd"), "{error}");
}

#[test]
fn a_profile_for_a_time_says_so_wherever_it_is_shown() {
    let place = Place::new();
    let add = "profile add guest --open tcp/22 --host localhost --expires";
    assert!(place.fails(&format!("{add} soon"), 2).contains("`soon` is neither a moment nor a duration"));
    assert!(place.fails(&format!("{add} 2020-01-01"), 2).contains("2020-01-02T00:00:00Z is over"));
    place.ok(&format!("{add} 2099-01-31"));
    assert!(place.ok("profile list").contains("(until 2099-02-01T00:00:00Z)"));
    assert!(place.ok("profile show guest").contains("expires          2099-02-01T00:00:00Z"));
    assert!(place.read("guest.knock").contains("\"expires\": \"2099-02-01T00:00:00Z\""));
    place.ok("import guest.knock");
    assert!(
        place.read("home/.config/knockd-rs/localhost.toml").contains("expires = \"2099-02-01T00:00:00Z\"")
    );
    let file = place.read("etc/profiles.d/guest.toml").replace("2099", "2020");
    place.write("etc/profiles.d/guest.toml", 0o640, &file);
    let output = place.run("check");
    assert!(
        output.status.success() && said(&output).contains("warning: the profile `guest` was good until 2020")
    );
}

#[test]
fn a_rotation_that_fails_leaves_the_profile_as_it_was_and_no_bundle() {
    let place = Place::with_laptop();
    let before = place.read("etc/profiles.d/laptop.toml");
    assert!(
        place.fails("profile rotate laptop --host localhost", 1).contains("laptop.knock is there already")
    );
    place.write("etc/profiles.d/laptop.toml", 0o640, &before.replace("public_key", "\"public_key\""));
    place.ok("profile rotate laptop --host localhost --out new.knock");
    assert_eq!(place.mode("etc/profiles.d/laptop.toml"), 0o640);
    assert_eq!(place.mode("new.knock"), 0o600);
    let shown = place.ok("profile show laptop");
    assert_eq!(shown.matches("older key        ").count(), 1, "{shown}");
    let inline = before.replace("\nopen = ", "\nprevious = []\nopen = ");
    place.write("etc/profiles.d/laptop.toml", 0o640, &inline);
    let error = place.fails("profile rotate laptop --host localhost --out newer.knock", 1);
    assert!(error.contains("in a form that cannot be edited here"), "{error}");
    assert_eq!(place.read("etc/profiles.d/laptop.toml"), inline);
    assert!(!place.path("newer.knock").exists());
    place.ok("profile add app --open tcp/22 --plain tcp/7000,udp/8000,tcp/6000");
    assert!(place.fails("profile rotate app --host localhost", 1).contains("has no keys"));
}

#[test]
fn a_command_runs_after_the_knock_and_its_end_is_the_end() {
    let place = Place::with_laptop();
    place.ok("import laptop.knock");
    let mut command = Command::new(KNOCKD);
    command.env("HOME", place.path("home")).args([
        "knock",
        "home",
        "--no-wait",
        "-q",
        "--",
        "sh",
        "-c",
        "echo in; exit 9",
    ]);
    let output = command.output().unwrap();
    assert_eq!((output.status.code(), said(&output).as_str()), (Some(9), "in\n"));
    let error = place.fails("knock home --no-wait --quiet -- no-such-command", 1);
    assert!(error.starts_with("knockd-rs: no-such-command cannot be run: "), "{error}");
}

// --- secrets -------------------------------------------------------------------------------------------------

#[test]
fn no_command_prints_a_secret_whether_it_succeeds_or_fails() {
    let place = Place::new();
    let mut heard = String::new();
    let mut listen = |words: &str| {
        let output = place.run(words);
        heard.push_str(&said(&output));
        output
    };
    listen("profile add laptop --open tcp/22 --host 127.0.0.1 --server home");
    listen("import laptop.knock");
    listen("keygen --out own.key");
    for words in [
        "check",
        "init",
        "profile list",
        "profile show laptop",
        "knock home --no-wait",
        "knock home --timeout 1s",
        "knock home --close",
        "import laptop.knock",
        "import laptop.knock --private-key own.key",
        "keygen --out own.key",
        "profile add laptop --open tcp/22 --host a --out x",
        "profile add twin --open tcp/22 --host a --out missing/x",
        "status",
    ] {
        listen(words);
    }
    let secrets = place.secrets();
    // The server's, the gate's, the client's, their common one, and the one of keygen.
    assert_eq!(secrets.len(), 5);
    // A key with a slip in it is nearly a key.
    for file in ["etc/server.key", "etc/gate.key"] {
        let good = place.read(file);
        place.write(file, 0o600, &format!("{}\n", &good.trim()[..43]));
        listen("check");
        place.write(file, 0o600, &good);
    }
    for (file, words) in [
        ("etc/profiles.d/laptop.toml", "check"),
        ("home/.config/knockd-rs/home.toml", "knock home --no-wait"),
    ] {
        let good = place.read(file);
        for (from, to) in
            [("=\"\n", "\"\n"), ("psk = \"", "psk = \"x"), ("psk = \"", "psk = "), ("psk", "psq")]
        {
            place.write(file, 0o600, &good.replace(from, to));
            assert_eq!(listen(words).status.code(), Some(3), "{file}: {to}");
        }
        place.write(file, 0o600, &good);
    }
    listen("profile remove laptop");
    for secret in &secrets {
        // Neither whole nor in its greater part.
        let (start, end) = (&secret[..32], &secret[12..43]);
        assert!(!heard.contains(start) && !heard.contains(end), "a secret was printed in:\n{heard}");
    }
}

#[test]
fn a_key_goes_to_its_file_and_the_public_half_to_whoever_asked() {
    let place = Place::new();
    let output = std::process::Command::new(KNOCKD)
        .args(["keygen", "--out"])
        .arg(place.path("own.key"))
        .output()
        .unwrap();
    let public: knockd_rs::crypto::PublicKey =
        String::from_utf8_lossy(&output.stdout).trim().parse().unwrap();
    let secret = knockd_rs::crypto::Secret::<32>::from_base64(place.read("own.key").trim()).unwrap();
    assert_eq!(knockd_rs::crypto::KeyPair::from_seed(*secret.expose()).public(), public);
    assert!(!said(&output).contains(place.read("own.key").trim()));
}
