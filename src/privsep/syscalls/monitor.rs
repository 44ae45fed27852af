//! What the monitor may call, and with it `nft` and a worker that is not confined yet, which begin with its filter.
//! Beside this table it may call what the worker may, with the same arguments.
//!
//! Left out on purpose: sockets of the internet, listening to anybody but the host, namespaces, mounts, ptrace and other
//! processes' memory, modules, bpf, keyctl, io_uring, other users, owners and devices of files, the clock, memory that
//! is writable and executable.

use libc::c_long;
use seccompiler::{BackendError, BpfProgram, SeccompAction};

use super::Arguments::{Any, Bits, OneOf};
use super::When::{Daily, Seldom};
use super::worker::{self, EXECUTABLE, NAMESPACES};
use super::{Arguments, Row, Rules, compile, errno, numbers, rules, table};

/// Together with `EXECUTABLE`: not both at once.
const WRITABLE: Arguments = Bits { argument: 2, mask: libc::PROT_WRITE as u64, value: 0 };

const TABLE: &[Row] = table![
    // Sockets.
    SYS_socket, OneOf { argument: 0, values: FAMILIES }, Daily, "the control socket, netlink, a worker's capture; see FAMILIES";
    SYS_socketpair, OneOf { argument: 0, values: &[libc::AF_UNIX as u64] }, Daily, "to a worker; signals";
    SYS_bind, Any, Daily, "the control socket, netlink, a worker's capture";
    SYS_listen, Any, Daily, "the control socket";
    SYS_accept4, Any, Daily, "the control socket";
    SYS_connect, Any, Seldom, "the log, and the service manager, where there are any";
    SYS_getsockname, Any, Daily, "the number that netlink has given a socket";
    SYS_setsockopt, Any, Daily, "buffers of netlink; the ring and the filter of a worker's capture";
    SYS_sendmsg, Any, Daily, "netlink, in nft";
    SYS_recvmsg, Any, Daily, "netlink, in nft";
    SYS_ioctl, OneOf { argument: 1, values: IOCTLS }, Daily, "see IOCTLS";
    SYS_fcntl, Any, Daily, "flags of descriptors, and duplicates";
    // Files.
    SYS_fstat, Any, Daily, "configuration, state";
    SYS_newfstatat, Any, Daily, "configuration, links among it, libraries";
    SYS_lseek, Any, Seldom, "a file that is read to its end";
    SYS_pread64, Any, Daily, "the headers of libraries";
    SYS_getdents64, Any, Daily, "listing profiles, and this process's threads";
    SYS_fchmod, Any, Daily, "a new file gets its mode before its content";
    SYS_fchmodat, Any, Seldom, "chmod, where there is no such call";
    SYS_mkdirat, Any, Seldom, "mkdir, where there is no such call";
    SYS_readlinkat, Any, Seldom, "readlink, where there is no such call";
    SYS_faccessat, Any, Seldom, "access, where there is no such call";
    SYS_renameat, Any, Daily, "files are replaced by rename";
    SYS_inotify_init1, Any, Daily, "certificates and lists that change";
    SYS_inotify_add_watch, Any, Daily, "certificates and lists that change";
    SYS_getcwd, Any, Seldom, "a panic's backtrace";
    // Children: a worker, nft.
    SYS_clone, Bits { argument: 0, mask: NAMESPACES, value: 0 }, Daily, "a child or a thread, in no namespace of its own";
    SYS_execve, Any, Daily, "a worker, nft";
    SYS_pipe2, Any, Daily, "what a child says";
    SYS_dup3, Any, Seldom, "dup2, where there is no such call";
    SYS_chdir, Any, Daily, "nft begins in the root directory";
    SYS_wait4, Any, Daily, "the end of a child";
    SYS_kill, OneOf { argument: 1, values: &[libc::SIGKILL as u64] }, Daily, "the end of a worker that is of no more use";
    SYS_tgkill, OneOf { argument: 2, values: &[libc::SIGABRT as u64] }, Seldom, "abort";
    // What a program does when it begins, in libc and libpcap.
    SYS_brk, Any, Daily, "malloc";
    SYS_mmap, EXECUTABLE, Daily, "malloc, thread stacks, a worker's ring";
    SYS_mmap, WRITABLE, Daily, "libraries";
    SYS_set_tid_address, Any, Daily, "the first thread";
    SYS_prlimit64, Any, Daily, "the size of a stack, and no core files";
    SYS_uname, Any, Daily, "libpcap; the C library";
    SYS_eventfd2, Any, Daily, "libpcap's way to end its waiting";
    SYS_getpid, Any, Daily, "which child this is";
    SYS_getuid, Any, Daily, "nft";
    SYS_geteuid, Any, Daily, "who owns the configuration; nft";
    SYS_getgid, Any, Seldom, "a program that another one has started with more rights, in the C library";
    SYS_getegid, Any, Seldom, "as getgid";
    SYS_pselect6, Any, Daily, "waiting, in nft";
    SYS_sysinfo, Any, Seldom, "sorting in nft, with glibc before 2.37";
    SYS_exit_group, Any, Daily, "the end";
    SYS_rt_sigreturn, Any, Daily, "the end of a signal handler";
    SYS_clock_nanosleep, Any, Seldom, "a pause before the firewall, or the lock, is tried again";
    // A worker that confines itself.
    SYS_capget, Any, Daily, "which capabilities there are";
    SYS_capset, Any, Daily, "fewer capabilities";
    SYS_prctl, OneOf { argument: 0, values: PRCTLS }, Daily, "see PRCTLS";
    SYS_seccomp, Any, Daily, "a worker's own filters";
    SYS_landlock_create_ruleset, Any, Daily, "a worker's files";
    SYS_landlock_add_rule, Any, Daily, "a worker's files";
    SYS_landlock_restrict_self, Any, Daily, "a worker's files";
];

/// Forms that newer architectures do not have.
#[cfg(target_arch = "x86_64")]
const OLD_FORMS: &[Row] = table![
    SYS_access, Any, Daily, "/etc/ld.so.preload";
    SYS_arch_prctl, Any, Daily, "the C library's place for the first thread";
    SYS_open, Any, Daily, "/sys, in libraries";
    SYS_readlink, Any, Daily, "certificates and lists behind links";
    SYS_chmod, Any, Daily, "the control socket";
    SYS_mkdir, Any, Daily, "directories for state and doors";
    SYS_dup2, Any, Daily, "a child's standard input and output";
];
#[cfg(not(target_arch = "x86_64"))]
const OLD_FORMS: &[Row] = &[];

/// None of the internet: what is not sent cannot be answered.
const FAMILIES: &[u64] = &[libc::AF_UNIX as u64, libc::AF_NETLINK as u64, libc::AF_PACKET as u64];

/// `FIONBIO`, `FIONREAD`, `TCGETS` as for the worker. The others are how libpcap opens an interface
/// (`linux/sockios.h`): `SIOCGIFNAME`, `SIOCGIFFLAGS`, `SIOCGIFMTU`, `SIOCGIFHWADDR`, `SIOCGIFINDEX`, `SIOCETHTOOL`.
const IOCTLS: &[u64] =
    &[libc::FIONBIO, libc::FIONREAD, libc::TCGETS, 0x8910, 0x8913, 0x8921, 0x8927, 0x8933, 0x8946];

/// Names and clocks of threads as for the worker; then what a worker gives up, and when it dies.
const PRCTLS: &[u64] = &[
    libc::PR_SET_NAME as u64,
    0x4155_5856,
    libc::PR_SET_DUMPABLE as u64,
    libc::PR_SET_PDEATHSIG as u64,
    libc::PR_SET_NO_NEW_PRIVS as u64,
    libc::PR_CAP_AMBIENT as u64,
    libc::PR_CAPBSET_READ as u64,
    libc::PR_CAPBSET_DROP as u64,
];

/// The first call of Linux 5.1. From here on a number means the same on every architecture.
pub(super) const NEW: c_long = 424;

/// All rows.
pub(super) fn rows() -> impl Iterator<Item = &'static Row> {
    TABLE.iter().chain(OLD_FORMS)
}

/// What is not in the table is refused with `EPERM`.
pub(super) fn filter() -> Result<BpfProgram, BackendError> {
    compile(allowed()?, errno(libc::EPERM), SeccompAction::Allow)
}

/// And before that with `ENOSYS`, as by an older kernel, where it is newer than [`NEW`]: libraries then fall back to
/// what they did there. `clone3` is one of them: its flags are behind a pointer, where no filter sees them. Has to be put
/// in force after the other one: of two filters that refuse, the kernel takes the later one's number.
pub(super) fn newer() -> Result<Vec<libc::sock_filter>, BackendError> {
    let step = |code: u32, jt, jf, k| libc::sock_filter { code: u16::try_from(code).unwrap_or(0), jt, jf, k };
    let is = |number: &u32| step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, *number);
    let answer = |value| step(libc::BPF_RET | libc::BPF_K, 0, 0, value);
    let numbers = |number: &c_long| u32::try_from(*number).ok();
    let new = numbers(&NEW).unwrap_or(0);
    // The number of the call is the first word of `struct seccomp_data`.
    let mut steps = vec![
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, 1, 0, new),
        answer(libc::SECCOMP_RET_ALLOW),
    ];
    for number in allowed()?.keys().filter_map(numbers).filter(|number| *number >= new) {
        steps.extend([is(&number), answer(libc::SECCOMP_RET_ALLOW)]);
    }
    steps.push(answer(libc::SECCOMP_RET_ERRNO | libc::ENOSYS.unsigned_abs()));
    Ok(steps)
}

/// Of what both tables name the monitor's rows count; descriptors and the process itself are for the worker's own filter
/// to compare.
fn allowed() -> Result<Rules, BackendError> {
    let mut all = rules(worker::rows(), &[], 0)?;
    all.extend(rules(rows(), &[], 0)?);
    Ok(all)
}
