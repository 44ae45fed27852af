//! What processes use, by `/proc`: time of processors, memory, switches of context (`proc_pid_stat(5)`).

use std::fs;
use std::time::Duration;

/// The unit of times in `/proc/PID/stat`, `USER_HZ`, which is the same on every Debian.
const TICKS_A_SECOND: u64 = 100;

/// What some processes use together.
#[derive(Clone, Copy, Default)]
pub struct Cost {
    /// Time of processors, with that of children that have ended.
    pub cpu: Duration,
    /// Resident memory in KiB.
    pub rss: u64,
    /// The same, shared pages divided among those that share them.
    pub pss: u64,
    /// Of it what is in no file and nobody else's: heap, stacks, what the linker has written to. As private dirty memory,
    /// but without the program's file, which here lies in memory and has not been written to a disk.
    pub own: u64,
    /// Of it the rings that the kernel puts packets into.
    pub rings: u64,
    /// Switches of context, wanted and unwanted, of all threads.
    pub switches: u64,
}

/// What these processes use. One that ended meanwhile counts nothing.
pub fn of(processes: &[u32]) -> Cost {
    processes.iter().fold(Cost::default(), |sum, pid| {
        let memory = read(*pid, "smaps_rollup");
        Cost {
            cpu: sum.cpu + cpu(*pid),
            rss: sum.rss + field(&memory, "Rss:"),
            pss: sum.pss + field(&memory, "Pss:"),
            own: sum.own + field(&memory, "Anonymous:"),
            rings: sum.rings + rings(*pid),
            switches: sum.switches + switches(*pid),
        }
    })
}

fn cpu(pid: u32) -> Duration {
    let stat = read(pid, "stat");
    // The name of the program may contain anything; what follows its bracket begins with the third field.
    let fields = stat.rsplit_once(") ").map(|(_, rest)| rest).unwrap_or_default();
    let ticks: u64 =
        fields.split(' ').skip(14 - 3).take(4).filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 1000 / TICKS_A_SECOND)
}

/// The mappings of sockets, as far as they are resident.
fn rings(pid: u32) -> u64 {
    let maps = read(pid, "smaps");
    let sockets = maps.split("VmFlags:").filter(|map| map.contains(" socket:["));
    sockets.map(|map| field(map, "Rss:")).sum()
}

/// The time of processors to the nanosecond (`/proc/PID/task/TID/schedstat`), for processes whose threads and children
/// live on.
pub fn exact_cpu(processes: &[u32]) -> Duration {
    let tasks = processes.iter().filter_map(|pid| fs::read_dir(format!("/proc/{pid}/task")).ok()).flatten();
    let nanos = tasks.flatten().filter_map(|task| {
        let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanos.sum())
}

fn switches(pid: u32) -> u64 {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return 0 };
    tasks
        .flatten()
        .filter_map(|task| fs::read_to_string(task.path().join("status")).ok())
        .map(|status| {
            field(&status, "voluntary_ctxt_switches:") + field(&status, "nonvoluntary_ctxt_switches:")
        })
        .sum()
}

/// Every process, and whose child it is.
pub fn parents() -> Vec<(u32, u32)> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let stat = read(pid, "stat");
            let parent = stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()?;
            Some((pid, parent))
        })
        .collect()
}

fn read(pid: u32, file: &str) -> String {
    fs::read(format!("/proc/{pid}/{file}"))
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default()
}

/// The number of the line that begins with `name`.
fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()).and_then(|number| number.parse().ok()).unwrap_or(0)
}
