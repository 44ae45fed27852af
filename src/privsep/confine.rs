//! What the worker gives up before it sees a frame: capabilities, files, system calls, each for good. And the system
//! calls that the monitor gives up before it touches the firewall.
//!
//! The worker in this order, because each step needs what a later one takes away: capabilities (bounding set first),
//! `no_new_privs`, not dumpable, death with the parent, Landlock, seccomp.

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetStatus, Scope, make_bitflags,
};
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, Signal, set_dumpable_behavior, set_parent_process_death_signal,
    setrlimit,
};
use rustix::thread::set_no_new_privs;

use super::{capabilities, syscalls};

/// How far the confinement went. Capabilities, `no_new_privs` and seccomp are always in force; what depends on
/// the kernel is told here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confinement {
    /// Whether files are out of reach.
    pub landlock: Landlock,
    /// How many of the directories that may be written to were there.
    pub directories: usize,
}

/// Whether the kernel enforces Landlock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Landlock {
    /// All of it: files, TCP ports, abstract sockets, signals (Linux 6.12 and later).
    Full,
    /// Files, and what else this kernel has (Linux 5.13 and later; renaming inside one directory always works).
    Partial,
    /// Nothing: built without it, or not enabled at boot (`lsm=`). File permissions are then all there is.
    Missing,
}

impl Confinement {
    /// What is missing, in words for `status` and the log; `None` when nothing is.
    #[must_use]
    pub fn degraded(&self) -> Option<&'static str> {
        match self.landlock {
            Landlock::Full | Landlock::Partial => None,
            Landlock::Missing => {
                Some("this kernel has no Landlock; the worker is held by file permissions alone")
            }
        }
    }
}

/// Gives up every capability of this process, its right to gain any, and all files but those below `writable`.
/// What is open stays open. Directories that are missing are left out, so that a start with a missing or
/// read-only disk still guards. On the descriptors `receiving` nothing can be sent any more: a packet socket
/// would take any frame that a captured worker makes up.
///
/// # Errors
/// [`ConfineError`]. The process may then be half confined: it should say why, and end.
pub fn confine(writable: &[&Path], receiving: &[BorrowedFd<'_>]) -> Result<Confinement, ConfineError> {
    let step = |name| move |source: io::Error| ConfineError::Step { name, source };
    alone()?;
    // First: a process without capabilities that can be dumped is open to every other of its user (ptrace(2)).
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|error| step("becoming not dumpable")(error.into()))?;
    capabilities::drop_all().map_err(step("dropping capabilities"))?;
    set_no_new_privs(true).map_err(|error| step("setting no_new_privs")(error.into()))?;
    // By the thread that started this process, which for the monitor is its main thread (prctl(2)).
    set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|error| step("setting the parent's death signal")(error.into()))?;
    let confinement = restrict_files(writable)?;
    syscalls::restrict_worker(receiving).map_err(|error| ConfineError::Seccomp(error.to_string()))?;
    Ok(confinement)
}

/// Leaves the monitor, and all that it starts, the system calls of its own table. Capabilities, files and the right to
/// start programs stay as they are.
///
/// # Errors
/// [`ConfineError`]: there are threads already, or the kernel has no filters.
pub fn restrict_monitor() -> Result<(), ConfineError> {
    alone()?;
    set_no_new_privs(true)
        .map_err(|error| ConfineError::Step { name: "setting no_new_privs", source: error.into() })?;
    syscalls::restrict_monitor().map_err(|error| ConfineError::Seccomp(error.to_string()))
}

/// Keeps the memory of this process, which is going to hold keys, out of core files, and from other processes of its user
/// (`PR_SET_DUMPABLE`, `ptrace(2)`). Not from root.
///
/// # Errors
/// What `prctl(2)` answered.
pub fn keep_memory() -> io::Result<()> {
    // For what is started from here as well. Under the unit the call is denied, and the limit is there already.
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    let _ = setrlimit(Resource::Core, none);
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

/// Tries the confinement out, on a thread that keeps it to itself and ends with it.
///
/// # Errors
/// [`ConfineError`], as the worker would meet it.
pub fn try_out() -> Result<Landlock, ConfineError> {
    let step = |name| move |source: io::Error| ConfineError::Step { name, source };
    let tried = std::thread::spawn(move || {
        set_no_new_privs(true).map_err(|error| step("setting no_new_privs")(error.into()))?;
        let confinement = restrict_files(&[])?;
        syscalls::restrict_worker(&[]).map_err(|error| ConfineError::Seccomp(error.to_string()))?;
        Ok(confinement.landlock)
    });
    tried.join().unwrap_or_else(|_| Err(step("starting a thread")(io::ErrorKind::Other.into())))
}

/// Capabilities and Landlock hold for the calling thread only: another one would keep everything.
fn alone() -> Result<(), ConfineError> {
    let tasks = std::fs::read_dir("/proc/self/task")
        .map_err(|source| ConfineError::Step { name: "counting threads in /proc/self/task", source })?;
    match tasks.count() {
        1 => Ok(()),
        threads => Err(ConfineError::Threads(threads)),
    }
}

/// The Landlock rights that are asked for; on an older kernel the crate leaves out what it does not know.
const RIGHTS: ABI = ABI::V6;

fn restrict_files(writable: &[&Path]) -> Result<Confinement, ConfineError> {
    let refused = |error: landlock::RulesetError| ConfineError::Landlock(error.to_string());
    let mut ruleset = Ruleset::default()
        .handle_access(AccessFs::from_all(RIGHTS))
        .and_then(|ruleset| ruleset.handle_access(AccessNet::from_all(RIGHTS)))
        .and_then(|ruleset| ruleset.scope(Scope::from_all(RIGHTS)))
        .and_then(Ruleset::create)
        .map_err(refused)?;
    let mut directories = 0;
    for path in writable {
        let Ok(directory) = PathFd::new(path) else { continue };
        ruleset = ruleset.add_rule(PathBeneath::new(directory, in_directories())).map_err(refused)?;
        directories += 1;
    }
    let landlock = match ruleset.restrict_self().map_err(refused)?.ruleset {
        RulesetStatus::FullyEnforced => Landlock::Full,
        RulesetStatus::PartiallyEnforced => Landlock::Partial,
        RulesetStatus::NotEnforced => Landlock::Missing,
    };
    Ok(Confinement { landlock, directories })
}

/// Reading, writing, making and renaming plain files. No directories, links, devices, sockets; nothing to run.
fn in_directories() -> BitFlags<AccessFs> {
    make_bitflags!(AccessFs::{ReadFile | ReadDir | WriteFile | Truncate | MakeReg | RemoveFile})
}

/// Why this process is not confined.
#[derive(Debug)]
pub enum ConfineError {
    /// There are other threads, which would keep every privilege; the number of all.
    Threads(usize),
    /// A system call that never fails for a process that only gives things up.
    Step {
        /// What was being done.
        name: &'static str,
        /// What the kernel answered.
        source: io::Error,
    },
    /// The kernel has Landlock and refused the rules.
    Landlock(String),
    /// The filter for system calls was refused: a kernel without `CONFIG_SECCOMP_FILTER`.
    Seccomp(String),
}

impl fmt::Display for ConfineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("this process cannot be confined, so it will not go on: ")?;
        match self {
            Self::Threads(threads) => {
                write!(f, "it has {threads} threads; confine it before starting others")
            }
            Self::Step { name, source } => write!(f, "{name}: {source}"),
            Self::Landlock(text) => write!(f, "Landlock: {text}"),
            Self::Seccomp(text) => write!(f, "seccomp: {text}"),
        }
    }
}

impl std::error::Error for ConfineError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Step { source, .. } => Some(source),
            _ => None,
        }
    }
}
