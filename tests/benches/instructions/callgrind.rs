//! Callgrind, as far as counting goes: it starts this program, and leaves one file for each kind.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::Outcome;
use crate::expected::Counts;
use crate::kinds::KINDS;

/// The function that is counted, with all that it calls.
const COUNTED: &str = "instructions::judge::counted_packets";

/// Counts the packets of every kind, whose files lie in `folder`.
pub fn count(folder: &Path) -> Outcome<Counts> {
    for left in fs::read_dir(folder)?.flatten().map(|entry| entry.path()) {
        if left.file_stem().is_some_and(|stem| stem == "callgrind") {
            fs::remove_file(left)?;
        }
    }
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--error-exitcode=9"]);
    // Collects between entry and exit, and begins a file at each exit.
    command.args([format!("--toggle-collect={COUNTED}"), format!("--dump-after={COUNTED}")]);
    command.arg(format!("--callgrind-out-file={}", folder.join("callgrind").display()));
    // What the environment says is copied at the start and moves the stack.
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    let printed = run(command.arg(std::env::current_exe()?).arg(crate::COUNT).arg(folder))?;
    let mut lines = printed.lines();
    let processor = lines.next().unwrap_or_default().to_owned();
    let mut kinds = Vec::new();
    for ((number, kind), packets) in (1..).zip(&KINDS).zip(lines) {
        let file = fs::read_to_string(folder.join(format!("callgrind.{number}")))?;
        let total = file.lines().find_map(|line| line.strip_prefix("totals: "));
        let total: u64 = total.ok_or("callgrind left no total")?.trim().parse()?;
        let packets: u64 = packets.parse()?;
        if total == 0 || packets == 0 {
            return Err(format!("{}: nothing was counted; is {COUNTED} inlined?", kind.name).into());
        }
        kinds.push((kind.name.to_owned(), (total + packets / 2) / packets));
    }
    if kinds.len() != KINDS.len() {
        return Err("not every kind was counted".into());
    }
    Ok(Counts { tools: tools()?, processor, kinds })
}

/// The versions that the counts depend on.
fn tools() -> Outcome<String> {
    let said = |program: &str, argument: &str| -> Outcome<String> {
        let line = run(Command::new(program).arg(argument))?;
        Ok(line.trim().to_owned())
    };
    let tools =
        [said("rustc", "--version")?, said("getconf", "GNU_LIBC_VERSION")?, said("valgrind", "--version")?];
    Ok(tools.join(", "))
}

fn run(command: &mut Command) -> Outcome<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let started = command.stdin(Stdio::null()).output();
    let Output { status, stdout, stderr } = started.map_err(|error| format!("{name}: {error}"))?;
    if !status.success() {
        return Err(format!("{name}: {status}\n{}", String::from_utf8_lossy(&stderr)).into());
    }
    Ok(String::from_utf8(stdout)?)
}
