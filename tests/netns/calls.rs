//! The tables of system calls, compared with what the daemon does in a day: started, knocked at, reloaded, told to
//! guard, grant and revoke, stopped, under strace from its first call on.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::Duration;

use knockd_rs::privsep::syscalls::{Process, When, listed};

use crate::cert::{import_with, office};
use crate::common::{Daemon, Launch, SOON, World, wait_for};

const SETTINGS: &str = r#"
[freshness]
clock = "auto"
[guard]
drop = ["tcp/22", "tcp/80"]
[services]
web = { ports = ["tcp/80"], unit = "web.service" }
[certificate_authority]
ca = "ca.pem"
crl = "crl.pem"
leaves = "leaves.d"
[[certificates]]
name = "staff"
open = ["tcp/22"]
"#;

/// The filters that the monitor puts in force at its start, and those that a worker adds.
const OF_MONITOR: usize = 2;
const OF_WORKER: usize = 4;

/// A trace of one thread: the names of calls and what they returned.
type Lines = Vec<(String, String)>;

/// A day, with the tracer as the daemon's grandchild, so that the daemon is this test's own child as always.
fn day(world: &World) -> BTreeMap<u32, Lines> {
    let ca = office(world);
    let alice = ca.issue("alice", "ed25519", crate::common::pki::CLIENT);
    world.configure(SETTINGS);
    world.enrol("laptop", &["--open", "tcp/22", "--open", "web", "--max-duration", "1h", "--many"]);
    let trace = world.path("trace");
    let before = format!("exec strace -D -ff -q -o {} \"$@\"", trace.display());
    let mut daemon = world.launch(SETTINGS, Launch { before, ..Launch::default() });
    let monitor = daemon.monitor().as_raw_nonzero().get().unsigned_abs();
    world.knock(&["tcp/22"]);
    world.knock(&["web", "--end-with-grant"]);
    daemon.await_log("granted laptop");
    orders(&daemon);
    import_with(world, &alice, &[]);
    world.knock(&[]);
    daemon.await_log("granted staff");
    fs::write(world.path("etc/crl.pem.new"), ca.crl()).unwrap();
    fs::rename(world.path("etc/crl.pem.new"), world.path("etc/crl.pem")).unwrap();
    daemon.await_log("were read again");
    daemon.signal(rustix::process::Signal::HUP);
    assert!(wait_for(SOON, || daemon.logged("reloaded") == 2), "{}", daemon.log());
    daemon.stop();
    let whole = world.path(&format!("trace.{monitor}"));
    let is_told = || fs::read_to_string(&whole).is_ok_and(|text| text.contains("+++ exited"));
    assert!(wait_for(Duration::from_secs(20), is_told), "strace does not end");
    traces(&trace)
}

fn orders(daemon: &Daemon<'_>) {
    for words in [
        &["status"][..],
        &["grant", "laptop", "192.0.2.9", "tcp/22", "--for", "1m"],
        &["revoke", "laptop"],
        &["allow", "all"],
        &["guard", "tcp/23"],
        &["guard", "tcp/25", "--confirm", "1m"],
        &["unguard", "tcp/23"],
        &["reload"],
    ] {
        daemon.command(words);
    }
}

/// All files of a trace by the number of the thread.
fn traces(prefix: &Path) -> BTreeMap<u32, Lines> {
    let name = prefix.file_name().unwrap().to_string_lossy().into_owned();
    let number =
        |file: &Path| file.file_name()?.to_str()?.strip_prefix(&name)?.strip_prefix('.')?.parse().ok();
    let files = fs::read_dir(prefix.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path());
    files.filter_map(|file| Some((number(&file)?, lines(&fs::read_to_string(&file).unwrap())))).collect()
}

fn lines(text: &str) -> Lines {
    let line = |line: &str| {
        let (name, rest) = line.split_once('(')?;
        let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        let result = rest.rsplit_once(" = ").map_or("?", |(_, result)| result);
        is_name.then(|| (name.to_owned(), result.to_owned()))
    };
    text.lines().filter_map(line).collect()
}

/// The calls that were made under each number of filters, without those that a filter answered as unknown. A child and a
/// thread begin with the filters of whoever has started them.
fn by_filters(traces: &BTreeMap<u32, Lines>) -> BTreeMap<usize, BTreeSet<String>> {
    let mut seen: BTreeMap<usize, BTreeSet<String>> = BTreeMap::new();
    let mut begins: BTreeMap<u32, usize> = BTreeMap::new();
    // A child has a higher number than its parent, until numbers begin anew: then its parent is not known here.
    for (number, lines) in traces {
        let mut filters = begins.get(number).copied().unwrap_or(0);
        for (name, result) in lines {
            // Refused by a filter, or a worker's last: it is killed where it happens to be.
            if result.starts_with("-1 ENOSYS") || (result.starts_with('?') && !name.starts_with("exit")) {
                continue;
            }
            let level = if filters >= OF_WORKER { OF_WORKER } else { filters.min(OF_MONITOR) };
            seen.entry(level).or_default().insert(name.clone());
            match name.as_str() {
                "seccomp" if result == "0" => filters += 1,
                "clone" => drop(result.parse().map(|child| begins.insert(child, filters))),
                _ => {}
            }
        }
    }
    seen
}

fn names(process: Process, is_wanted: impl Fn(When) -> bool) -> BTreeSet<String> {
    listed(process).into_iter().filter(|row| is_wanted(row.when)).map(|row| row.name.to_owned()).collect()
}

fn missing(of: &BTreeSet<String>, within: &BTreeSet<String>) -> Vec<String> {
    of.difference(within).cloned().collect()
}

#[test]
fn what_is_called_in_a_day_is_in_the_tables_and_what_is_in_them_is_called_or_says_when() {
    let world = World::new();
    let seen = by_filters(&day(&world));
    let every = |_| true;
    let daily = |when| when == When::Daily;
    let of_worker = names(Process::Worker, every);
    let of_monitor: BTreeSet<String> = names(Process::Monitor, every).union(&of_worker).cloned().collect();
    assert_eq!(
        missing(&seen[&OF_MONITOR], &of_monitor),
        [""; 0],
        "the monitor, nft or a new worker calls it"
    );
    assert_eq!(missing(&seen[&OF_WORKER], &of_worker), [""; 0], "the worker calls it");
    assert_eq!(missing(&names(Process::Monitor, daily), &seen[&OF_MONITOR]), [""; 0], "nobody calls it");
    assert_eq!(missing(&names(Process::Worker, daily), &seen[&OF_WORKER]), [""; 0], "the worker does not");
}

#[test]
fn the_monitor_runs_under_a_filter_of_its_own_also_without_a_unit() {
    let world = World::new();
    world.enrol("laptop", &["--open", "tcp/22"]);
    let daemon = world.daemon(crate::common::GUARDED);
    let status = format!("/proc/{}/status", daemon.monitor().as_raw_nonzero());
    let status = fs::read_to_string(status).unwrap();
    let field = |name: &str| {
        status.lines().find_map(|line| line.strip_prefix(name)).map(|rest| rest.trim().to_owned())
    };
    let expected = Some(OF_MONITOR.to_string());
    assert_eq!((field("Seccomp:"), field("NoNewPrivs:")), (Some("2".into()), Some("1".into())));
    // Since Linux 5.9. A container may have one already.
    if let Some(filters) = field("Seccomp_filters:") {
        assert!(Some(filters) >= expected);
    }
}
