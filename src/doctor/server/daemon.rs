//! The running daemon: what it says of itself, how the kernel holds it, and whether it starts again.

use super::super::finding::Finding;
use super::{Daemon, Facts, Process, Running};

pub(super) fn daemon(facts: &Facts) -> Vec<Finding> {
    match &facts.daemon {
        Daemon::Unasked => Vec::new(),
        Daemon::Silent(error) => vec![Finding::from_error(error, "start it: systemctl start knockd-rs")],
        Daemon::Running(running) => health(running),
    }
}

fn health(running: &Running) -> Vec<Finding> {
    let mut findings = Vec::new();
    for trouble in &running.degraded {
        findings.push(Finding::from_error(trouble, "see: journalctl -u knockd-rs"));
    }
    if running.version != running.own_version {
        findings.push(Finding::warning(
            format!("the daemon is knockd-rs {}, and this program {}", running.version, running.own_version),
            "take the other one into use: systemctl restart knockd-rs",
        ));
    }
    if !running.is_settled {
        findings.push(Finding::warning(
            "no worker serves the configuration that was read last",
            "look again in some seconds, and then at: journalctl -u knockd-rs",
        ));
    }
    if running.is_here == Some(false) {
        findings.push(Finding::problem(
            "the daemon lives in another network namespace than this command",
            format!(
                "run this one there: nsenter --net=/proc/{}/ns/net knockd-rs doctor",
                running.monitor_pid
            ),
        ));
    }
    // What the clock and Landlock are like, other checks say.
    let is_said = |note: &&String| !note.starts_with("the clock is") && !note.contains("Landlock");
    findings.extend(
        running
            .notes
            .iter()
            .filter(is_said)
            .map(|note| Finding::warning(note, "see: journalctl -u knockd-rs")),
    );
    if findings.is_empty() {
        findings.push(Finding::ok(format!("knockd-rs {} runs and is healthy", running.version)));
    }
    findings
}

/// `CAP_NET_ADMIN` and `CAP_NET_RAW` (`linux/capability.h`).
const MONITORS: u64 = 1 << 12 | 1 << 13;

pub(super) fn sandbox(facts: &Facts) -> Vec<Finding> {
    let Daemon::Running(running) = &facts.daemon else { return Vec::new() };
    let worker = running.worker.as_ref().map(worker).into_iter();
    worker.chain(running.monitor.as_ref().map(monitor)).collect()
}

fn worker(worker: &Process) -> Finding {
    if worker.no_new_privs && worker.is_filtered && worker.capabilities == 0 {
        return Finding::ok("the worker has no capability, no way to gain one, and a filter of system calls");
    }
    Finding::problem(
        format!("the worker is not confined: {}", described(worker)),
        "stop the daemon, and report this: it should not have read a packet",
    )
}

fn monitor(monitor: &Process) -> Finding {
    if monitor.capabilities & !MONITORS != 0 {
        return Finding::problem(
            format!("the monitor can do more than change the firewall: {}", described(monitor)),
            "stop the daemon, and report this: it should have given those capabilities up",
        );
    }
    if !monitor.no_new_privs || !monitor.is_filtered {
        return Finding::problem(
            format!("the monitor may make any system call: {}", described(monitor)),
            "restart the daemon; if this stays, report it: it should not have touched the firewall",
        );
    }
    if monitor.user != 0 {
        return Finding::ok("the monitor can change the firewall and nothing else, under a user of its own");
    }
    Finding::warning(
        format!("the monitor runs outside of its unit's sandbox: {}", described(monitor)),
        "start it by systemd: systemctl start knockd-rs; see `systemd-analyze security knockd-rs`, and drop-ins with \
         `systemctl cat knockd-rs`",
    )
}

fn described(process: &Process) -> String {
    format!(
        "user {}, NoNewPrivs {}, Seccomp {}, capabilities {:x}",
        process.user,
        u8::from(process.no_new_privs),
        if process.is_filtered { "on" } else { "off" },
        process.capabilities
    )
}

pub(super) fn unit(facts: &Facts) -> Vec<Finding> {
    let Some(units) = &facts.units else { return Vec::new() };
    vec![match units.daemon.as_str() {
        "enabled" => Finding::ok("knockd-rs.service starts with the system"),
        state => Finding::warning(
            format!("knockd-rs.service is {state}: after a reboot nothing is guarded"),
            "run: systemctl enable knockd-rs",
        ),
    }]
}
