//! What `/proc` says of the daemon's processes.

use std::fs;

use crate::doctor::server::Process;

/// A process by its number; `None` where it is gone or cannot be looked at.
pub(super) fn look(pid: u32) -> Option<Process> {
    read(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
}

/// Whether a process lives in this one's network namespace.
pub(super) fn is_here(pid: u32) -> Option<bool> {
    let of = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/net")).ok();
    Some(of(&pid.to_string())? == of("self")?)
}

/// `/proc/PID/status`, as `proc_pid_status(5)` has it.
fn read(text: &str) -> Option<Process> {
    let field =
        |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
    let bits = |name| u64::from_str_radix(field(name)?, 16).ok();
    Some(Process {
        user: field("Uid")?.split_whitespace().nth(1)?.parse().ok()?,
        no_new_privs: field("NoNewPrivs")? == "1",
        is_filtered: field("Seccomp")? == "2",
        capabilities: bits("CapPrm")? | bits("CapEff")?,
    })
}

/// For the fuzzer.
#[cfg(feature = "fuzzing")]
pub(super) fn check(text: &str) {
    let _ = read(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_effective_user_and_all_capabilities_count() {
        let text = "Name:\tknockd-rs\nUid:\t0\t998\t998\t998\nCapInh:\t0\nCapPrm:\t0000000000003000\n\
                    CapEff:\t0000000000001000\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t30\n";
        assert_eq!(
            read(text),
            Some(Process { user: 998, no_new_privs: true, is_filtered: true, capabilities: 0x3000 })
        );
        assert_eq!(read("Name:\tx\n"), None);
    }
}
