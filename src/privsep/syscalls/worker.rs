//! What the worker may still call once it is confined. Everything else ends the process with `SIGSYS`, without running
//! a handler.
//!
//! Left out on purpose: socket, bind, connect, accept, execve, fork (clone without threads), kill, ptrace,
//! mount, open_by_handle_at, io_uring, bpf, keyctl, memory that can be executed.

use libc::c_long;
use seccompiler::{BackendError, BpfProgram, SeccompAction};

use super::Arguments::{Any, Bits, CommandElsewhere, Elsewhere, OneOf, Own};
use super::When::{Daily, Seldom};
use super::{Arguments, Row, compile, errno, numbers, rules, table};

pub(super) const EXECUTABLE: Arguments = Bits { argument: 2, mask: libc::PROT_EXEC as u64, value: 0 };

const TABLE: &[Row] = table![
    // Frames, and the socketpair to the monitor.
    SYS_ppoll, Any, Daily, "waiting, in the worker's loop";
    SYS_read, Any, Daily, "files, pipes, the pcap wake-up descriptor";
    SYS_write, Elsewhere, Daily, "files, standard error";
    SYS_writev, Elsewhere, Seldom, "standard error, when a panic is told";
    SYS_recvfrom, Any, Daily, "the socketpair; NFLOG";
    SYS_sendto, Elsewhere, Daily, "the socketpair";
    SYS_getsockopt, Any, Daily, "PACKET_STATISTICS, and SO_ERROR after a link went down";
    SYS_getsockname, Any, Seldom, "where one interface is named: whether it is still there";
    SYS_ioctl, OneOf { argument: 1, values: IOCTLS }, Seldom, "after a link was down; see IOCTLS";
    SYS_fcntl, OneOf { argument: 1, values: FCNTLS }, Seldom, "libpcap, when it changes between waiting and not; see FCNTLS";
    SYS_fcntl, CommandElsewhere(libc::F_DUPFD_CLOEXEC as u64), Seldom, "a second descriptor: `try_clone`";
    // State files, below the two directories that Landlock leaves.
    SYS_openat, Any, Daily, "state files; Landlock says which";
    SYS_close, Any, Daily, "state files; libpcap at the end";
    SYS_fstat, Any, Seldom, "state files, as glibc asks where std does not";
    SYS_newfstatat, Any, Seldom, "fstat in glibc before 2.39";
    SYS_statx, Any, Daily, "state files, as std asks";
    SYS_lseek, Any, Seldom, "a state file that is read to its end";
    SYS_fsync, Any, Daily, "state files and their directory";
    SYS_renameat, Any, Seldom, "rename, where there is no such call";
    SYS_renameat2, Any, Seldom, "as renameat, where the C library prefers it";
    SYS_unlinkat, Any, Seldom, "unlink, where there is no such call";
    // Memory, never executable.
    SYS_brk, Any, Seldom, "malloc, when the heap grows or shrinks";
    SYS_mmap, EXECUTABLE, Daily, "malloc, thread stacks";
    SYS_mprotect, EXECUTABLE, Daily, "thread stacks, malloc arenas";
    SYS_mremap, Any, Seldom, "realloc of what is large; keeps the protection that is there";
    SYS_munmap, Any, Daily, "malloc, thread stacks, the ring at the end";
    SYS_madvise, Any, Daily, "malloc, thread stacks";
    // One thread that writes state to disk, started after the filter.
    SYS_clone, Bits { argument: 0, mask: CLONE_SEEN, value: CLONE_THREAD }, Daily, "a thread, no process";
    SYS_futex, Any, Daily, "locks, joining threads";
    SYS_set_robust_list, Any, Daily, "a new thread";
    SYS_rseq, Any, Daily, "a new thread";
    SYS_sigaltstack, Any, Daily, "a new thread: std's stack overflow handler";
    SYS_sched_getaffinity, Any, Daily, "a new thread: pthread_getattr_np, malloc arenas";
    SYS_prctl, OneOf { argument: 0, values: PRCTLS }, Daily, "see PRCTLS";
    SYS_gettid, Any, Daily, "a new thread; abort";
    SYS_getpid, Any, Seldom, "abort";
    SYS_sched_yield, Any, Seldom, "std's locks, when another thread holds one";
    // Time and randomness.
    SYS_clock_gettime, Any, Seldom, "the clock, where the vDSO cannot tell it (virtual machines)";
    SYS_clock_getres, Any, Seldom, "the clock, likewise";
    SYS_gettimeofday, Any, Seldom, "libpcap stamps NFLOG frames with it, likewise";
    SYS_clock_nanosleep, Any, Seldom, "sleeping, after a failed write";
    SYS_nanosleep, Any, Seldom, "sleeping, in older C libraries";
    SYS_adjtimex, Any, Seldom, "clock_adjtime in glibc before 2.31; setting the clock needs a capability";
    SYS_clock_adjtime, Any, Daily, "whether the clock is synchronised; setting it needs a capability";
    SYS_getrandom, Any, Daily, "hash map seeds, key material";
    // Signals, and the end.
    SYS_rt_sigaction, Any, Daily, "signal handlers";
    SYS_rt_sigprocmask, Any, Daily, "abort, a new thread";
    SYS_rt_sigreturn, Any, Seldom, "the end of a signal handler";
    SYS_restart_syscall, Any, Seldom, "a sleep that SIGCONT interrupted";
    SYS_tgkill, Own, Seldom, "abort; the monitor runs as the same user, and must not be signalled";
    SYS_exit, Any, Daily, "the end of a thread";
    SYS_exit_group, Any, Seldom, "the end, where the monitor's SIGKILL does not come first";
];

/// The calls that this machine's C library makes where newer architectures have only the `at` forms.
#[cfg(target_arch = "x86_64")]
const OLD_FORMS: &[Row] = table![
    SYS_poll, Any, Daily, "ppoll, in libpcap";
    SYS_time, Any, Seldom, "clock_gettime, where the vDSO cannot tell it";
    SYS_open, Any, Seldom, "openat";
    SYS_stat, Any, Seldom, "newfstatat";
    SYS_rename, Any, Daily, "state files are replaced by rename";
    SYS_unlink, Any, Daily, "state files that are no longer wanted";
];
#[cfg(not(target_arch = "x86_64"))]
const OLD_FORMS: &[Row] = &[];

/// Calls that libraries make and get over when they are refused: answered with `ENOSYS`.
///
/// - `clone3`: the C library then falls back to `clone`, whose flags are an argument that a filter can see;
///   those of `clone3` are behind a pointer.
/// - `setsockopt`: `pcap_close` gives the ring back with it, and the kernel does so anyway when the socket is
///   closed. Setting up rings is where packet sockets had their worst holes (CVE-2016-8655, CVE-2017-7308).
/// - `readlinkat`, `getcwd`: a panic's backtrace, which then is shorter.
pub(super) const REFUSED: &[c_long] =
    &[libc::SYS_clone3, libc::SYS_setsockopt, libc::SYS_readlinkat, libc::SYS_getcwd];
/// The older form of `readlinkat`.
#[cfg(target_arch = "x86_64")]
const REFUSED_OLD: &[c_long] = &[libc::SYS_readlink];
#[cfg(not(target_arch = "x86_64"))]
const REFUSED_OLD: &[c_long] = &[];

/// `FIONBIO` and `FIONREAD`: std's `set_nonblocking`, and how much is waiting. `TCGETS`: whether standard error
/// is a terminal. `SIOCGIFFLAGS`: libpcap, whether a link is up again.
const IOCTLS: &[u64] = &[libc::FIONBIO, libc::FIONREAD, libc::TCGETS, 0x8913];

/// Reading and setting flags.
const FCNTLS: &[u64] =
    &[libc::F_GETFD as u64, libc::F_SETFD as u64, libc::F_GETFL as u64, libc::F_SETFL as u64];

/// `PR_SET_NAME`: naming a thread. `PR_GET_AUXV` (Linux 6.4): rustix looks for the vDSO's clock.
const PRCTLS: &[u64] = &[libc::PR_SET_NAME as u64, 0x4155_5856];

const CLONE_THREAD: u64 = (libc::CLONE_THREAD | libc::CLONE_VM) as u64;
/// The thread flags, and those that would make a namespace or be traced.
const CLONE_SEEN: u64 = CLONE_THREAD | NAMESPACES | libc::CLONE_UNTRACED as u64;
/// The flags of `clone` that make a namespace.
pub(super) const NAMESPACES: u64 = (libc::CLONE_NEWUSER | libc::CLONE_NEWNS | libc::CLONE_NEWNET) as u64
    | (libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS | libc::CLONE_NEWCGROUP) as u64;

/// All rows.
pub(super) fn rows() -> impl Iterator<Item = &'static Row> {
    TABLE.iter().chain(OLD_FORMS)
}

/// Two filters, because seccompiler has one answer for what matches, and the kernel takes the strictest of all:
/// the first refuses what [`REFUSED`] names, the second ends the process for what the table does not name.
pub(super) fn filters(receiving: &[u64], own: u64) -> Result<[BpfProgram; 2], BackendError> {
    let refused: super::Rules =
        REFUSED.iter().chain(REFUSED_OLD).map(|number| (*number, Vec::new())).collect();
    // The second filter has to let through what the first one answers, or its stricter answer would win.
    let mut allowed = refused.clone();
    allowed.extend(rules(rows(), receiving, own)?);
    Ok([
        compile(refused, SeccompAction::Allow, errno(libc::ENOSYS))?,
        compile(allowed, SeccompAction::KillProcess, SeccompAction::Allow)?,
    ])
}
