//! How a bundle travels: as a file, as a line, as a QR code on a terminal and as a picture; in the clear and under a
//! passphrase; and what a client says of what it learned. From outside, without network, daemon or root.
#![cfg(all(feature = "daemon", feature = "client"))]
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, and so do its helpers"
)]

use std::fs::{self, Permissions};
use std::io::{Cursor, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use knockd_rs::enrol::{Bundle, Carried, load_carried};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

const KNOCKD: &str = env!("CARGO_BIN_EXE_knockd-rs");
const LINE: &str = "knock:1:";
const ADD: &str = "profile add laptop --open tcp/22 --host 192.0.2.7 --server home";
const HOME: &str = "home/.config/knockd-rs/home.toml";

/// A server's directories and a client's home.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        for dir in ["etc", "home"] {
            fs::create_dir(place.path(dir)).unwrap();
        }
        place.write("pass", 0o600, "correct horse battery\n");
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

    fn command(&self, words: &str) -> Command {
        let mut command = Command::new(KNOCKD);
        command.env_clear().env("HOME", self.path("home")).current_dir(self.0.path()).args(words.split(' '));
        if words.starts_with("profile") || words.starts_with("check") {
            command.args(["--config-dir", "etc", "--state-dir", "var"]);
        }
        command
    }

    /// What the command says and how it ends, with this on its standard input.
    fn run_with(&self, words: &str, input: &str) -> Output {
        let mut command = self.command(words);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // A command that fails before it reads is no failure of the writer.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        child.wait_with_output().unwrap()
    }

    #[track_caller]
    fn ok_with(&self, words: &str, input: &str) -> String {
        let output = self.run_with(words, input);
        assert_eq!(output.status.code(), Some(0), "{words}: {}", said(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    #[track_caller]
    fn ok(&self, words: &str) -> String {
        self.ok_with(words, "")
    }

    /// The error, which is all that is said.
    #[track_caller]
    fn fails_with(&self, words: &str, input: &str, code: i32) -> String {
        let output = self.run_with(words, input);
        assert_eq!(output.status.code(), Some(code), "{words}: {}", said(&output));
        assert!(output.stdout.is_empty(), "{words}: {}", said(&output));
        let error = String::from_utf8(output.stderr).unwrap().trim_end().replace("knockd-rs: ", "");
        error.replace(&format!("{}/", self.0.path().display()), "")
    }

    #[track_caller]
    fn fails(&self, words: &str, code: i32) -> String {
        self.fails_with(words, "", code)
    }

    fn bundle(&self, name: &str) -> Bundle {
        open(load_carried(&self.path(name)).unwrap())
    }

    /// The command on a terminal of its own, where this is typed as soon as it asks; what was seen there.
    fn on_terminal(&self, words: &str, typed: &[&str]) -> (Option<i32>, String) {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&ours).unwrap();
        unlockpt(&ours).unwrap();
        let name = ptsname(&ours, Vec::new()).unwrap().into_string().unwrap();
        // `setsid` gives the command a session without a terminal, and the first one that it opens becomes its own.
        let script = format!("exec <{name} >{name} 2>&1; {KNOCKD} {words}");
        let mut command = Command::new("setsid");
        command.env_clear().env("HOME", self.path("home")).env("PATH", "/usr/bin:/bin");
        command.current_dir(self.0.path()).args(["sh", "-c", &script]);
        let mut child = command.spawn().unwrap();
        let mut terminal = fs::File::from(ours);
        let (mut heard, mut asked) = (Vec::new(), 0);
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            let mut bytes = [0; 4096];
            match terminal.read(&mut bytes) {
                Ok(count) => heard.extend_from_slice(&bytes[..count]),
                // EIO: nobody has the other end open, not yet or not any more.
                Err(_) if child.try_wait().unwrap().is_some() => break,
                Err(_) => std::thread::sleep(Duration::from_millis(10)),
            }
            // The echo goes off before the question's line ends: give it the moment that this takes.
            if asked < typed.len() && heard.ends_with(b": ") {
                std::thread::sleep(Duration::from_millis(200));
                terminal.write_all(format!("{}\n", typed[asked]).as_bytes()).unwrap();
                // What follows is another question.
                heard.push(b'\n');
                asked += 1;
            }
            assert!(Instant::now() < end, "{}", String::from_utf8_lossy(&heard));
        }
        (child.wait().unwrap().code(), String::from_utf8(heard).unwrap())
    }
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn open(carried: Carried) -> Bundle {
    match carried {
        Carried::Open(bundle) => *bundle,
        Carried::Protected(_) => unreachable!("it is under a passphrase"),
    }
}

fn of_line(line: &str) -> Bundle {
    open(Carried::from_line(line.trim_end()).unwrap())
}

// --- scanning ------------------------------------------------------------------------------------------------

/// What an independent decoder reads in a picture; `is_light` of column and row.
fn scan(wide: usize, high: usize, is_light: impl Fn(usize, usize) -> bool) -> String {
    let shade = |column, row| if is_light(column, row) { 255 } else { 0 };
    let mut image = rqrr::PreparedImage::prepare_from_greyscale(wide, high, shade);
    let grids = image.detect_grids();
    assert_eq!(grids.len(), 1, "codes found");
    grids[0].decode().unwrap().1
}

fn scan_png(bytes: &[u8]) -> String {
    let mut reader = png::Decoder::new(Cursor::new(bytes)).read_info().unwrap();
    let mut points = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut points).unwrap();
    let (wide, high) = (info.width as usize, info.height as usize);
    scan(wide, high, |column, row| points[row * info.line_size + column / 8] >> (7 - column % 8) & 1 == 1)
}

/// A photograph of a dark terminal with light letters: each half block 4 points wide and high.
fn scan_terminal(text: &str) -> String {
    let rows: Vec<Vec<char>> = text
        .lines()
        .map(|line| line.chars().collect::<Vec<char>>())
        .filter(|line| line.len() > 20 && line.iter().all(|c| " \u{2580}\u{2584}\u{2588}".contains(*c)))
        .collect();
    let wide = rows[0].len();
    scan(4 * wide, 8 * rows.len(), |column, row| match rows[row / 8][column / 4] {
        '\u{2588}' => true,
        '\u{2580}' => row % 8 < 4,
        '\u{2584}' => row % 8 >= 4,
        _ => false,
    })
}

// --- stories -------------------------------------------------------------------------------------------------

#[test]
fn a_code_on_the_terminal_and_one_in_a_picture_scan_back_as_the_bundle() {
    let place = Place::new();
    place.ok(ADD);
    let bundle = place.bundle("laptop.knock");
    let printed = place.ok("bundle show laptop.knock --qr --png laptop.png");
    assert_eq!(of_line(&scan_terminal(&printed)), bundle);
    assert_eq!(of_line(&scan_png(&fs::read(place.path("laptop.png")).unwrap())), bundle);
    assert_eq!(place.mode("laptop.png"), 0o600, "there is a private key in the picture");
    // Small enough for a terminal of 80 columns.
    assert!(printed.lines().all(|line| line.chars().count() <= 80) && printed.lines().count() <= 40);
    assert_eq!(of_line(&place.ok("bundle show laptop.knock --uri")), bundle);
}

#[test]
fn a_new_profile_goes_by_code_alone_and_no_file_is_left_on_the_server() {
    let place = Place::new();
    let output = place.run_with(&format!("{ADD} --qr"), "");
    assert!(output.status.success(), "{}", said(&output));
    assert!(!place.path("laptop.knock").exists());
    // The code alone is on standard output, whatever that is; the rest is said beside it.
    let line = scan_terminal(&String::from_utf8(output.stdout).unwrap());
    assert!(String::from_utf8(output.stderr).unwrap().contains("next: on the client `knockd-rs import -`"));
    place.ok_with("import -", &line);
    let listed = place.ok("profile list");
    let own = of_line(&line).into_enrolment(None).unwrap().key_pair().unwrap().public();
    assert!(listed.contains(&own.fingerprint()), "{listed}");
    // With --out there is a file as well, and it says the same.
    let line = place.ok("profile add phone --open tcp/22 --host 192.0.2.7 --uri --out phone.knock");
    assert_eq!(of_line(&line), place.bundle("phone.knock"));
}

#[test]
fn one_pipe_leads_from_the_server_to_the_client() {
    let place = Place::new();
    let line = place.ok(&format!("{ADD} --uri"));
    assert_eq!(line.lines().count(), 1, "nothing but the line: {line}");
    let told = place.ok_with("import -", &line);
    assert!(told.starts_with("home: 192.0.2.7, UDP port 62201, as laptop, server key "), "{told}");
    assert!(told.ends_with("next: knockd-rs knock home\n") && !told.contains("rm "), "{told}");
    // JSON comes in the same way.
    place.ok("profile add other --open tcp/22 --host 192.0.2.7 --server other");
    place.ok_with("import -", &place.read("other.knock"));
    assert_eq!(place.mode("home/.config/knockd-rs/other.toml"), 0o600);
}

#[test]
fn a_line_and_the_file_give_the_client_the_same() {
    let place = Place::new();
    place.ok(&format!("{ADD} --method spa --method sequence --duration 30s --max-duration 2h"));
    let line = place.ok("bundle show laptop.knock --uri");
    place.ok("import laptop.knock --name file");
    place.ok_with("import - --name line", &line);
    let kept = |name: &str| place.read(&format!("home/.config/knockd-rs/{name}.toml"));
    assert_eq!(kept("file"), kept("line"));
    assert!(kept("line").contains("duration = \"30s\"\nmax_duration = \"2h\"\n"), "{}", kept("line"));
    // A file may hold the line as well.
    place.write("line.knock", 0o600, &line);
    place.ok("import line.knock --name again");
    assert_eq!(kept("again"), kept("file"));
}

#[test]
fn a_line_in_the_arguments_is_refused_since_everybody_could_read_it() {
    let place = Place::new();
    let line = place.ok(&format!("{ADD} --uri"));
    for line in [line.trim_end().to_owned(), line.trim_end().to_ascii_uppercase(), LINE.to_owned()] {
        let error = place.fails(&format!("import {line}"), 2);
        assert!(error.contains("run `knockd-rs import -` and paste it there"), "{error}");
        assert!(line == LINE || !error.contains(&line), "{error}");
    }
    assert!(!place.path(HOME).exists());
    let error = place.fails(&format!("bundle show {} --qr", line.trim_end()), 2);
    assert!(error.contains("have the bundle made again") && !error.contains(line.trim_end()), "{error}");
}

#[test]
fn what_is_pasted_after_the_first_line_never_reaches_the_shell() {
    let place = Place::new();
    place.ok(ADD);
    // The file in place of the line: it has a private key on its seventh.
    let json = place.read("laptop.knock");
    let (_, seen) = place.on_terminal("import - ; stty -icanon min 0 time 5; cat >after", &[&json]);
    assert!(!seen.contains("private_key"), "{seen}");
    assert_eq!(place.read("after"), "");
}

#[test]
fn a_rotation_to_keys_that_somebody_has_changes_nothing() {
    let place = Place::new();
    place.ok(ADD);
    place.ok("profile add phone --open tcp/443 --host 192.0.2.7");
    let before = place.read("etc/profiles.d/laptop.toml");
    let key = |text: &str| text.split("public_key = \"").nth(1).unwrap()[..44].to_owned();
    for name in ["phone", "laptop"] {
        let key = key(&place.read(&format!("etc/profiles.d/{name}.toml")));
        let error =
            place.fails(&format!("profile rotate laptop --public-key {key} --host a --out new.knock"), 1);
        assert!(error.contains("is the key of the profile") || error.contains("keys again"), "{error}");
        assert_eq!(place.read("etc/profiles.d/laptop.toml"), before);
        assert!(!place.path("new.knock").exists());
    }
    place.ok("profile list");
}

#[test]
fn of_a_profile_with_two_files_none_is_left_when_it_is_removed() {
    let place = Place::new();
    place.ok(ADD);
    place.write("etc/profiles.d/laptop.json", 0o640, "{}");
    place.ok("profile remove laptop");
    assert_eq!(fs::read_dir(place.path("etc/profiles.d")).unwrap().count(), 0);
}

#[test]
fn a_damaged_line_is_known_as_damaged() {
    let place = Place::new();
    let line = place.ok(&format!("{ADD} --uri"));
    let line = line.trim_end();
    let middle = line.len() / 2;
    let other = if line.as_bytes()[middle] == b'x' { "y" } else { "x" };
    let changed = format!("{}{other}{}", &line[..middle], &line[middle + 1..]);
    let damaged = "standard input: is damaged, its check sum does not fit; copy it again, whole: not a character more \
                   or less";
    for text in [changed.as_str(), &line[..middle], &line[..line.len() - 1], &format!("{line}a"), LINE] {
        assert_eq!(place.fails_with("import -", text, 3), damaged, "{text}");
    }
    let wrapped = format!("{}\n{}", &line[..middle], &line[middle..]);
    assert_eq!(
        place.fails_with("import -", &wrapped, 3),
        format!(
            "standard input: has a character at place {} that no bundle has; copy the line again, whole and as one line",
            middle + 1
        )
    );
    let error = place.fails_with("import -", &line.replace(LINE, "knock:2:"), 3);
    assert_eq!(
        error,
        "standard input: is a bundle of version `2`; this program reads knock:1:, so upgrade the older side"
    );
    assert!(place.fails_with("import -", "hello", 3).starts_with("standard input:1: "));
    place.write("damaged.knock", 0o600, &changed);
    assert_eq!(place.fails("import damaged.knock", 3), damaged.replace("standard input", "damaged.knock"));
    assert!(!place.path(HOME).exists());
}

#[test]
fn a_bundle_under_a_passphrase_opens_under_that_one_alone() {
    let place = Place::new();
    place.ok(&format!("{ADD} --passphrase-file pass"));
    let file = place.read("laptop.knock");
    assert!(file.starts_with(LINE) && place.mode("laptop.knock") == 0o600, "{file}");
    place.write("wrong", 0o600, "correct horse batterie\n");
    assert_eq!(
        place.fails("import laptop.knock --passphrase-file wrong", 3),
        "laptop.knock: does not open: the passphrase is another one. Or somebody has changed the bundle on purpose, \
         which looks the same; it was not damaged by accident, since its check sum fits"
    );
    // A slip of the hand is told without asking for the passphrase at all.
    place.write("damaged.knock", 0o600, &file.replacen('a', "b", 1));
    assert_eq!(
        place.fails("import damaged.knock --passphrase-file wrong", 3),
        "damaged.knock: is damaged, its check sum does not fit; copy it again, whole: not a character more or less"
    );
    assert!(!place.path(HOME).exists());
    let told = place.ok("import laptop.knock --passphrase-file pass");
    assert!(told.starts_with("home: 192.0.2.7"), "{told}");
    assert_eq!(
        place.fails("import laptop.knock --passphrase-file nowhere", 1).split(':').next(),
        Some("nowhere")
    );
}

#[test]
fn a_passphrase_protects_lines_and_codes_as_well() {
    let place = Place::new();
    place.ok(ADD);
    let show = "bundle show laptop.knock --passphrase-file pass";
    let printed = place.ok(&format!("{show} --qr --png laptop.png"));
    for (name, line) in [
        ("terminal", scan_terminal(&printed)),
        ("picture", scan_png(&fs::read(place.path("laptop.png")).unwrap())),
        ("line", place.ok(&format!("{show} --uri"))),
    ] {
        assert!(matches!(Carried::from_line(line.trim_end()), Ok(Carried::Protected(_))), "{name}");
        place.ok_with(&format!("import - --passphrase-file pass --name {name}"), &line);
    }
    // Each with a salt of its own.
    assert_ne!(place.ok(&format!("{show} --uri")), place.ok(&format!("{show} --uri")));
    // What is under a passphrase is shown as it is, without asking.
    let line = place.ok(&format!("{show} --uri"));
    place.write("sealed.knock", 0o600, &line);
    assert_eq!(place.ok("bundle show sealed.knock --uri"), line);
    assert_eq!(
        place.fails("bundle show sealed.knock --uri --passphrase-file pass", 2),
        "sealed.knock is under a passphrase already; leave out --passphrase"
    );
}

#[test]
fn a_hostile_bundle_gets_neither_gigabytes_nor_minutes() {
    let place = Place::new();
    // Two tebibytes, 255 times.
    let body = [&[1, 31, 255, 4][..], &[7; 16], &[9; 64]].concat();
    let line = sealed_line(&body);
    let begin = Instant::now();
    let error = place.fails_with("import - --passphrase-file pass", &line, 3);
    assert!(error.starts_with("standard input: asks for more memory or time to be opened"), "{error}");
    assert!(begin.elapsed() < Duration::from_secs(5));
}

/// A line with these bytes and their check sum, by other means than the program's.
fn sealed_line(body: &[u8]) -> String {
    let check = ring::digest::digest(&ring::digest::SHA256, &[LINE.as_bytes(), body].concat());
    let bytes = [body, &check.as_ref()[..4]].concat();
    let bits: String = bytes.iter().map(|byte| format!("{byte:08b}")).collect();
    let digits = bits.as_bytes().chunks(5).map(|five| {
        let five = format!("{:0<5}", String::from_utf8_lossy(five));
        char::from(b"abcdefghijklmnopqrstuvwxyz234567"[usize::from_str_radix(&five, 2).unwrap()])
    });
    LINE.chars().chain(digits).collect()
}

#[test]
fn a_passphrase_that_is_short_or_differs_makes_no_profile() {
    let place = Place::new();
    place.ok("profile add first --open tcp/1 --host 192.0.2.7");
    place.write("short", 0o600, "1234567\n");
    place.write("seen", 0o644, "correct horse battery\n");
    for (file, error) in [
        ("short", "the passphrase is too short; use 8 characters or more, better six words by chance"),
        (
            "seen",
            "seen: mode 0644 lets other users read it; run: chmod 0600 seen; name a file with --passphrase-file",
        ),
    ] {
        assert_eq!(place.fails(&format!("{ADD} --passphrase-file {file}"), 1), error);
        assert!(!place.path("etc/profiles.d/laptop.toml").exists());
    }
    let (code, seen) = place.on_terminal(
        &format!("{ADD} --passphrase --config-dir etc --state-dir var"),
        &["correct horse", "correct hoarse"],
    );
    assert_eq!(code, Some(1), "{seen}");
    assert!(seen.contains("the two passphrases differ; try again") && !seen.contains("correct"), "{seen}");
    assert!(!place.path("etc/profiles.d/laptop.toml").exists() && !place.path("laptop.knock").exists());
}

#[test]
fn on_a_terminal_passphrase_and_line_are_asked_for_and_not_shown() {
    let place = Place::new();
    let (code, seen) = place.on_terminal(
        &format!("{ADD} --passphrase --config-dir etc --state-dir var"),
        &["correct horse", "correct horse"],
    );
    assert_eq!(code, Some(0), "{seen}");
    assert!(seen.contains("Passphrase for the bundle: ") && seen.contains("The same again: "), "{seen}");
    let line = place.read("laptop.knock");
    let (code, seen_too) = place.on_terminal("import -", &[line.trim_end(), "correct horse"]);
    assert_eq!(code, Some(0), "{seen_too}");
    assert!(seen_too.contains("Paste the bundle's line, knock:1:...; it is not shown: "), "{seen_too}");
    assert!(seen_too.contains("kept in "), "{seen_too}");
    for seen in [seen, seen_too] {
        assert!(!seen.contains("correct") && !seen.contains(&line[..40]), "{seen}");
    }
}

#[test]
fn a_code_on_a_terminal_is_dark_on_light_whatever_its_colours() {
    let place = Place::new();
    place.ok(ADD);
    let (code, seen) = place.on_terminal("bundle show laptop.knock --qr", &[]);
    assert_eq!(code, Some(0), "{seen}");
    let plain: String = seen.replace("\u{1b}[40;97m", "").replace("\u{1b}[0m", "").replace('\r', "");
    assert!(seen.lines().filter(|line| line.starts_with("\u{1b}[40;97m")).count() > 20, "{seen}");
    assert_eq!(of_line(&scan_terminal(&plain)), place.bundle("laptop.knock"));
}

#[test]
fn what_others_could_read_is_not_used_whatever_its_form() {
    let place = Place::new();
    let line = place.ok(&format!("{ADD} --uri"));
    for (name, mode) in [("a.knock", 0o640), ("b.knock", 0o604), ("c.knock", 0o644)] {
        place.write(name, mode, &line);
        for words in [format!("import {name}"), format!("bundle show {name} --uri")] {
            let error = place.fails(&words, 3);
            assert_eq!(
                error,
                format!("{name}: mode {mode:04o} lets other users read it; run: chmod 0600 {name}")
            );
        }
    }
}

#[test]
fn what_the_server_shows_later_is_the_strict_bundle() {
    let place = Place::new();
    let key = place.ok("keygen --out own.key");
    place.ok(&format!("{ADD} --public-key {}", key.trim()));
    let first = place.bundle("laptop.knock");
    let show = "profile show laptop --host 192.0.2.7 --server home";
    let later = of_line(&place.ok(&format!("{show} --uri")));
    assert_eq!((later.private_key.is_none(), &later), (true, &first));
    assert_eq!(of_line(&scan_terminal(&place.ok(&format!("{show} --qr")))), first);
    place.ok(&format!("{show} --png laptop.png"));
    assert_eq!(of_line(&scan_png(&fs::read(place.path("laptop.png")).unwrap())), first);
    place.ok_with("import - --private-key own.key", &place.ok(&format!("{show} --uri")));
    // Of a client whose key the server made, the server has the public half alone as well.
    place.ok("profile add phone --open tcp/22 --host 192.0.2.7");
    assert_eq!(of_line(&place.ok("profile show phone --uri --host 192.0.2.7")).private_key, None);
    // Without a form there is no bundle whose host could be named.
    assert_eq!(place.run_with("profile show laptop --host a", "").status.code(), Some(2));
}

#[test]
fn a_profile_without_keys_has_no_bundle_to_show() {
    let place = Place::new();
    place.ok("profile add phone --open tcp/443 --plain tcp/7000,udp/8000,tcp/6000");
    assert_eq!(
        place.fails("profile show phone --uri --host a", 1),
        "phone knocks without keys, so there is no bundle for it"
    );
    let output = place.run_with("profile add x --open tcp/443 --plain tcp/7001,udp/8000,tcp/6000 --qr", "");
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
}

#[test]
fn a_picture_that_is_there_is_left_alone_and_no_profile_is_made() {
    let place = Place::new();
    place.ok("profile add first --open tcp/1 --host 192.0.2.7");
    place.write("laptop.png", 0o600, "mine");
    assert_eq!(
        place.fails(&format!("{ADD} --png laptop.png"), 1),
        "laptop.png is there already; remove it or choose another name with --png"
    );
    assert_eq!(place.read("laptop.png"), "mine");
    let error = place.fails(&format!("{ADD} --png missing/laptop.png"), 1);
    assert!(error.ends_with("run: mkdir -p missing"), "{error}");
    assert!(!place.path("etc/profiles.d/laptop.toml").exists());
}

#[test]
fn an_import_says_what_it_keeps_and_what_it_replaces() {
    let place = Place::new();
    place.ok(&format!("{ADD} --duration 30s --max-duration 2h"));
    let told = place.ok("import laptop.knock");
    let fingerprint = place.bundle("laptop.knock").access.server_key.fingerprint();
    let path = place.path(HOME).display().to_string();
    assert_eq!(
        told,
        format!(
            "home: 192.0.2.7, UDP port 62201, as laptop, server key {fingerprint}\n  opens tcp/22\n  by spa; for 30s unless \
             asked, 2h at most\n  kept in {path}; the bundle is not needed any more: rm laptop.knock\nnext: knockd-rs \
             knock home\n"
        )
    );
    // The same server, another key of this client.
    place.ok("profile add tablet --open tcp/80 --host 192.0.2.8 --server home");
    let before = place.read(HOME);
    assert_eq!(
        place.fails("import tablet.knock", 1),
        "a server `home` is known already; --name gives this one another name, --force replaces that one"
    );
    assert_eq!(place.read(HOME), before);
    let told = place.ok("import tablet.knock --force");
    let old = format!("  in place of 192.0.2.7, UDP port 62201, as laptop, server key {fingerprint}\n");
    assert!(told.contains(&old), "{told}");
    assert!(told.contains("  the server key is the same as before, the own key is another one\n"), "{told}");
    assert!(
        place.ok("import tablet.knock --force").contains("server key and own key are the same as before")
    );
    // Another server under the same name.
    let other = Place::new();
    other.ok("profile add laptop --open tcp/22 --host 192.0.2.9 --server home");
    fs::copy(other.path("laptop.knock"), place.path("other.knock")).unwrap();
    let told = place.ok("import other.knock --force");
    let new = place.bundle("other.knock").access.server_key.fingerprint();
    assert_ne!(new, fingerprint);
    assert!(told.contains(&new) && told.contains(&fingerprint), "{told}");
    assert!(
        told.contains("the server key is another one than before: ask the server's administrator"),
        "{told}"
    );
    // What is there may be broken.
    place.write(HOME, 0o600, "port = 0\n");
    let told = place.ok("import other.knock --force");
    assert!(told.contains("  in place of a file that cannot be used: "), "{told}");
}

#[test]
fn a_dry_run_shows_and_writes_nothing() {
    let place = Place::new();
    place.ok(ADD);
    let told = place.ok("import laptop.knock --dry-run");
    assert!(
        told.starts_with("home: 192.0.2.7") && told.ends_with("home.toml; nothing was written\n"),
        "{told}"
    );
    assert!(!place.path("home/.config").exists());
    place.ok("import laptop.knock");
    let before = place.read(HOME);
    // It ends as the import would.
    let output = place.run_with("import laptop.knock --dry-run --host 192.0.2.99", "");
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("in place of 192.0.2.7") && said(&output).contains("is known already"));
    place.ok("import laptop.knock --dry-run --host 192.0.2.99 --force");
    assert_eq!(place.read(HOME), before);
}

#[test]
fn a_client_lists_what_it_can_open_and_what_is_broken() {
    let place = Place::new();
    assert_eq!(place.ok("servers"), "no server yet; `knockd-rs import FILE` makes one known\n");
    place.ok(ADD);
    place.ok("profile add staff --open tcp/80 --open udp/53 --host 192.0.2.7 --server work --method spa --method syn");
    place.ok("import laptop.knock");
    place.ok("import staff.knock");
    let fingerprint = place.bundle("laptop.knock").access.server_key.fingerprint();
    assert!(place.ok("check").contains(&fingerprint), "the one that the server shows");
    assert_eq!(
        place.ok("servers"),
        format!(
            "NAME  HOST       PROFILE  OPENS          METHODS  FINGERPRINT\n\
             home  192.0.2.7  laptop   tcp/22         spa      {fingerprint}\n\
             work  192.0.2.7  staff    tcp/80 udp/53  spa syn  {fingerprint}\n"
        )
    );
    let listed = place.ok("servers --json");
    let listed: Vec<serde_json::Value> =
        listed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(
        listed[1],
        serde_json::json!({
            "name": "work", "host": "192.0.2.7", "port": 62201, "profile": "staff", "open": ["tcp/80", "udp/53"],
            "services": {}, "methods": ["spa", "syn"], "duration": "15s", "max_duration": "1h",
            "fingerprint": fingerprint,
        })
    );
    place.write(HOME, 0o644, &place.read(HOME));
    let output = place.run_with("servers", "");
    let told = said(&output);
    assert_eq!(output.status.code(), Some(3));
    assert!(told.contains("work  192.0.2.7  staff "), "{told}");
    assert!(
        told.contains("home is broken: ") && told.contains("mode 0644 lets other users read it"),
        "{told}"
    );
    assert!(
        told.contains("1 of 2 cannot be used; mend the file, or import its bundle again with --force"),
        "{told}"
    );
    let output = place.run_with("servers --json", "");
    let first: serde_json::Value =
        serde_json::from_str(String::from_utf8(output.stdout).unwrap().lines().next().unwrap()).unwrap();
    assert_eq!((output.status.code(), &first["name"]), (Some(3), &"home".into()));
    assert!(first["errors"][0].as_str().unwrap().contains("mode 0644"), "{first}");
    // No secret is shown.
    for secret in ["gate_key", "private_key", "psk"] {
        let key = place.read("home/.config/knockd-rs/work.toml");
        let key = key.split_once(&format!("{secret} = \"")).unwrap().1[..44].to_owned();
        assert!(!told.contains(&key));
    }
}
