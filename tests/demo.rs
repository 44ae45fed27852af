//! The demonstration, `tests/demo`: that it goes as it tells, and that nothing is left of it however it ends.
//! Needs root, as the script does.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, and so do its helpers"
)]

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::TempDir;

#[test]
fn the_demonstration_goes_as_it_tells() {
    let mut demo = Demo::start();
    let told = demo.read_until(None);
    let status = demo.end();
    assert!(status.success(), "{status}\n{told}");
    assert!(told.contains("What you have seen"), "{told}");
    assert!(told.contains("own firewall is rule for rule what it was"), "{told}");
    demo.left_nothing();
}

#[test]
fn ctrl_c_in_the_first_moment_leaves_nothing_behind() {
    interrupted_at("about 20 seconds");
}

#[test]
fn ctrl_c_while_the_daemon_runs_leaves_nothing_behind() {
    interrupted_at("A stranger looks at it");
}

#[test]
fn ctrl_c_while_a_grant_outlives_the_daemon_leaves_nothing_behind() {
    interrupted_at("Nobody is there to close the port");
}

#[test]
fn a_killed_demonstration_takes_its_machines_with_it() {
    let mut demo = Demo::start();
    demo.read_until(Some("A stranger looks at it"));
    demo.note_family();
    // To the script alone: nobody is left to clean up but the kernel.
    demo.script.kill().unwrap();
    demo.end();
    demo.family_is_gone();
}

fn interrupted_at(line: &str) {
    let mut demo = Demo::start();
    demo.read_until(Some(line));
    demo.note_family();
    // What a terminal does: the signal goes to every process of the group.
    kill_process_group(demo.group(), Signal::INT).unwrap();
    let told = demo.read_until(None);
    let status = demo.end();
    assert_eq!(status.code(), Some(130), "{told}");
    demo.left_nothing();
}

/// The script at work, in a process group and with a temporary directory of its own.
struct Demo {
    script: Child,
    output: BufReader<fs::File>,
    family: BTreeSet<u32>,
    scratch: TempDir,
}

impl Demo {
    fn start() -> Self {
        assert!(rustix::process::geteuid().is_root(), "this test makes network namespaces and needs root");
        let scratch = tempfile::tempdir().unwrap();
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        // A shell cannot trap a signal that was ignored when it started, as in the background of another shell.
        let script = Command::new("env")
            .arg("--default-signal=INT,TERM")
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/demo"))
            .env("KNOCKD_RS", env!("CARGO_BIN_EXE_knockd-rs"))
            .env("TMPDIR", scratch.path())
            .stdin(Stdio::null())
            .stdout(writer.try_clone().unwrap())
            .stderr(writer)
            .process_group(0)
            .spawn()
            .unwrap();
        Self { script, output: BufReader::new(reader.into()), family: BTreeSet::new(), scratch }
    }

    fn group(&self) -> Pid {
        Pid::from_child(&self.script)
    }

    /// What the script prints up to a line with these words in it, or up to its end.
    fn read_until(&mut self, words: Option<&str>) -> String {
        let mut told = String::new();
        let mut line = String::new();
        while self.output.read_line(&mut line).unwrap() > 0 {
            told.push_str(&line);
            if words.is_some_and(|words| line.contains(words)) {
                return told;
            }
            line.clear();
        }
        assert_eq!(words, None, "the demonstration ended before it said that:\n{told}");
        told
    }

    /// Takes down which processes descend from the script at this moment.
    fn note_family(&mut self) {
        self.family = BTreeSet::from([self.script.id()]);
        loop {
            let children: BTreeSet<u32> = processes()
                .filter(|(_, parent)| self.family.contains(parent))
                .map(|(process, _)| process)
                .collect();
            let before = self.family.len();
            self.family.extend(children);
            if self.family.len() == before {
                return;
            }
        }
    }

    fn end(&mut self) -> ExitStatus {
        self.script.wait().unwrap()
    }

    fn left_nothing(&self) {
        self.family_is_gone();
        let left: Vec<_> = fs::read_dir(self.scratch.path()).unwrap().flatten().collect();
        assert!(left.is_empty(), "{left:?}");
    }

    fn family_is_gone(&self) {
        let patience = Instant::now() + Duration::from_secs(5);
        loop {
            let alive: Vec<u32> =
                processes().map(|(process, _)| process).filter(|id| self.family.contains(id)).collect();
            if alive.is_empty() {
                return;
            }
            assert!(Instant::now() < patience, "still there: {alive:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Every process that has not ended, with its parent (`proc_pid_stat(5)`).
fn processes() -> impl Iterator<Item = (u32, u32)> {
    fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
        let process = entry.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        // The name before it is in parentheses, and may hold any character.
        let mut fields = stat.rsplit_once(") ")?.1.split(' ');
        let state = fields.next()?;
        let parent = fields.next()?.parse().ok()?;
        (state != "Z").then_some((process, parent))
    })
}
