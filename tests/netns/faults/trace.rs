//! strace, which changes what system calls do: `strace(1)`, "Tampering".
//!
//! Root can attach to the worker, seccomp, `no_new_privs` and all: the filter comes after the tracer, so a signal or a
//! pause at a call is as if the machine had done it. An *error* in place of a call does not go there: the call's number
//! becomes -1, which the worker's filter answers with its end. So errors are for the monitor, which has no filter
//! outside its unit.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::common::{SOON, wait_for};

/// A tracer, attached until it is dropped.
pub(super) struct Trace(Child);

impl Trace {
    /// Attaches to one thread, or to all threads of a process (`-f`), and returns when it is in force.
    #[track_caller]
    pub(super) fn inject(thread: Pid, what: &str) -> Self {
        Self::attach(thread, &["-o", "/dev/null", "-e", &format!("inject={what}")])
    }

    /// The same with arguments of one's own.
    #[track_caller]
    pub(super) fn attach(thread: Pid, arguments: &[&str]) -> Self {
        let id = thread.as_raw_nonzero().to_string();
        let mut command = Command::new("strace");
        command.args(["-qq", "-p", &id]).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("`strace`, of the package of that name");
        let tracer = format!("TracerPid:\t{}\n", child.id());
        let is_attached = || {
            let status = fs::read_to_string(format!("/proc/{id}/status"));
            // It may have died already, of the first call.
            status.map_or(true, |status| status.contains(&tracer) || status.contains("State:\tZ"))
        };
        if !wait_for(SOON, is_attached) {
            let _ = child.kill();
            let output = child.wait_with_output().unwrap();
            panic!("strace: {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
        }
        Self(child)
    }
}

/// The names of the system calls that a thread makes while something happens to it, in their order, as strace has them.
pub(super) fn record(thread: Pid, file: &Path, happens: impl FnOnce()) -> Vec<String> {
    let trace = Trace::attach(thread, &["-o", &file.display().to_string()]);
    happens();
    drop(trace);
    let text = fs::read_to_string(file).unwrap();
    text.lines().filter_map(|line| Some(line.split_once('(')?.0.to_owned())).collect()
}

impl Drop for Trace {
    fn drop(&mut self) {
        // It lets go of the process and ends, if that has not ended before. One whose process was killed in a pause
        // that it had made may wait for ever.
        let _ = kill_process(Pid::from_child(&self.0), Signal::TERM);
        if !wait_for(Duration::from_secs(2), || self.0.try_wait().unwrap().is_some()) {
            self.0.kill().unwrap();
            self.0.wait().unwrap();
        }
    }
}
