//! What the daemon stands on: kernel, clock, configuration, directories.

use super::super::finding::{Finding, listed};
use super::{Clock, Daemon, Facts, Role};

pub(super) fn rights(facts: &Facts) -> Vec<Finding> {
    if facts.unseen.is_empty() {
        return vec![Finding::ok("everything could be looked at")];
    }
    let advice = match facts.is_root {
        true => "run this outside of a container, or with the rights that it is missing",
        false => "run it as root: sudo knockd-rs doctor",
    };
    vec![Finding::warning(format!("could not be looked at: {}", listed(&facts.unseen)), advice)]
}

pub(super) fn kernel(facts: &Facts) -> Vec<Finding> {
    let Some(kernel) = &facts.kernel else { return Vec::new() };
    let release = &kernel.release;
    let ruleset = match &kernel.ruleset {
        Ok(true) => {
            Finding::ok(format!("Linux {release} takes the daemon's ruleset, and lets it own its table"))
        }
        Ok(false) => Finding::ok(format!(
            "Linux {release} takes the daemon's ruleset; before 6.9 the table cannot be owned, and is watched instead"
        )),
        Err(error) => Finding::from_error(
            &format!("the daemon's ruleset was not taken in a namespace of its own: {error}"),
            "a kernel with nf_tables, set timeouts, fib, ct, limit and reject is needed, as Debian's are",
        ),
    };
    let confines = match &kernel.confines {
        Ok(true) => Finding::ok("a process can be confined as the worker is, by seccomp and Landlock"),
        Ok(false) => Finding::warning(
            "this kernel has no Landlock: seccomp and file permissions alone hold the worker",
            "boot a kernel from 5.13 on with landlock among its lsm=",
        ),
        Err(error) => Finding::problem(
            format!("a process cannot be confined: {error}"),
            "boot a kernel with CONFIG_SECCOMP_FILTER: without it the daemon does not read packets",
        ),
    };
    vec![ruleset, confines]
}

pub(super) fn clock(facts: &Facts) -> Vec<Finding> {
    const ADVICE: &str = "start a time service, such as: timedatectl set-ntp true";
    vec![match facts.clock {
        Clock::Kept => Finding::ok("the clock is synchronised"),
        Clock::InDoubt => Finding::warning(
            "the clock is not synchronised: the order of knocks is judged, not their age",
            ADVICE,
        ),
        Clock::TrustedInDoubt => Finding::ok(
            "the clock is not synchronised, and freshness.clock = \"trusted\" says to believe it all the same",
        ),
        Clock::Untrusted => Finding::warning(
            "freshness.clock = \"untrusted\": the order of knocks is judged, not their age",
            "take that line out of knockd-rs.toml where a time service runs",
        ),
        Clock::Wrong => Finding::problem("the clock shows a time before this program was made", ADVICE),
    }]
}

pub(super) fn configuration(facts: &Facts) -> Vec<Finding> {
    let mut findings: Vec<Finding> = facts
        .errors
        .iter()
        .map(|error| Finding::from_error(error, "mend it, and look with: knockd-rs check"))
        .collect();
    findings.extend(facts.warnings.iter().map(|warning| match warning.split_once("; ") {
        Some((found, advice)) => Finding::warning(found, advice),
        None => Finding::warning(warning, "change it, if it is not meant so"),
    }));
    if findings.is_empty() && facts.wanted.is_some() {
        findings.push(Finding::ok("the configuration is sound"));
    }
    findings
}

pub(super) fn profiles(facts: &Facts) -> Vec<Finding> {
    let Some(wanted) = &facts.wanted else { return Vec::new() };
    let enabled = wanted.profiles.iter().filter(|profile| profile.is_enabled).count();
    if enabled == 0 {
        let found = match wanted.profiles.len() {
            0 => "there is no profile: nobody can knock",
            _ => "no profile is enabled: nobody can knock",
        };
        let advice = "make one with `knockd-rs profile add NAME --open tcp/22`, or set enabled = true in one, and \
                      then: knockd-rs reload";
        return vec![Finding::problem(found, advice)];
    }
    let mut findings = vec![Finding::ok(match enabled {
        1 => "one profile may knock".to_owned(),
        _ => format!("{enabled} profiles may knock"),
    })];
    if let Daemon::Running(running) = &facts.daemon {
        let is_known = |name: &str, enabled: bool| {
            running.profiles.iter().any(|known| known.0 == name && known.1 == enabled)
        };
        let new: Vec<String> = wanted
            .profiles
            .iter()
            .filter(|profile| !is_known(&profile.name, profile.is_enabled))
            .map(|profile| profile.name.clone())
            .collect();
        let gone = running
            .profiles
            .iter()
            .filter(|(name, _)| wanted.profiles.iter().all(|profile| profile.name != *name));
        let differing: Vec<String> = new.into_iter().chain(gone.map(|(name, _)| name.clone())).collect();
        if !differing.is_empty() {
            findings.push(Finding::warning(
                format!("the running daemon does not know what the files say of {}", listed(&differing)),
                "put it in force: knockd-rs reload",
            ));
        }
    }
    findings
}

pub(super) fn certificates(facts: &Facts) -> Vec<Finding> {
    let Some(lists) = facts.wanted.as_ref().and_then(|wanted| wanted.lists.as_ref()) else {
        return Vec::new();
    };
    let mut findings: Vec<Finding> = facts
        .certificates
        .iter()
        .map(|trouble| Finding::from_error(trouble, "until then knocks with certificates are refused"))
        .collect();
    if findings.is_empty() {
        findings.push(Finding::ok("authorities and revocation lists are sound"));
    }
    let is_fetched = lists.iter().any(|list| list.starts_with("/var/lib/knockd-rs-crl/"));
    if let (Some(units), true) = (&facts.units, is_fetched) {
        findings.push(match units.lists.as_str() {
            "active" => Finding::ok("knockd-rs-crl.timer fetches the revocation list"),
            state => Finding::warning(
                format!("knockd-rs-crl.timer is {state}, and the revocation list lies where it would put it"),
                "start it: systemctl enable --now knockd-rs-crl.timer",
            ),
        });
    }
    findings
}

pub(super) fn directories(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for directory in &facts.directories {
        let path = &directory.path;
        match &directory.seen {
            // What is wrong with that one, the configuration says.
            Err(_) if directory.role == Role::Configuration => {}
            Err(error) => findings.push(Finding::from_error(
                error,
                "the daemon makes it when it starts: systemctl start knockd-rs",
            )),
            Ok(place) => {
                let user = match (&facts.daemon, directory.role) {
                    (Daemon::Running(running), Role::State | Role::Runtime) => running
                        .monitor
                        .map(|monitor| monitor.user)
                        .filter(|user| *user != 0 && *user != place.owner),
                    _ => None,
                };
                if let Some(user) = user {
                    findings.push(Finding::problem(
                        format!("{path} belongs to user {}, and the daemon runs as user {user}", place.owner),
                        format!("run: chown -R {user} {path}"),
                    ));
                }
                if directory.role == Role::Configuration && place.mode & 0o004 != 0 {
                    findings.push(Finding::warning(
                        format!(
                            "{path} has mode {:04o}: every user may look at the names of clients",
                            place.mode
                        ),
                        format!("run: chmod 0750 {path}"),
                    ));
                }
            }
        }
    }
    let is_seen = facts.directories.iter().any(|directory| directory.seen.is_ok());
    if findings.is_empty() && is_seen {
        findings.push(Finding::ok("configuration, state and runtime directories belong to whom they should"));
    }
    findings
}

/// Replay marks, guards and good settings fit a few hundred KiB; a file system with less than this is about to fail.
const LITTLE: u64 = 16 << 20;

pub(super) fn space(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for directory in facts.directories.iter().filter(|directory| directory.role != Role::Configuration) {
        let (path, Some(written), Ok(place)) = (&directory.path, &directory.written, &directory.seen) else {
            continue;
        };
        match written {
            Err(error) => findings.push(Finding::problem(
                format!("nothing can be written in {path}: {error}"),
                "make room there, or mount it writable: without it, knocks of the last minutes can be replayed after a \
                 restart, and guards that commands make are lost",
            )),
            Ok(()) if place.free < LITTLE => findings.push(Finding::warning(
                format!("{} KiB are left in {path}", place.free / 1024),
                "make room there before replay marks and guards can be kept no more",
            )),
            Ok(()) => findings.push(Finding::ok(format!("{path} can be written to"))),
        }
    }
    findings
}
