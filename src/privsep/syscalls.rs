//! The system calls that the worker may still make: a table, each row with its reason. Everything else ends the
//! process with `SIGSYS`, without running a handler.
//!
//! Left out on purpose: socket, bind, connect, accept, execve, fork (clone without threads), kill, ptrace,
//! mount, open_by_handle_at, io_uring, bpf, keyctl, memory that can be executed.

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, BorrowedFd};

use libc::{
    SYS_adjtimex, SYS_brk, SYS_clock_adjtime, SYS_clock_getres, SYS_clock_gettime, SYS_clock_nanosleep,
    SYS_clone, SYS_clone3, SYS_close, SYS_epoll_create1, SYS_epoll_ctl, SYS_epoll_pwait, SYS_exit,
    SYS_exit_group, SYS_fcntl, SYS_fdatasync, SYS_flock, SYS_fstat, SYS_fsync, SYS_ftruncate, SYS_futex,
    SYS_getcwd, SYS_getdents64, SYS_getpid, SYS_getrandom, SYS_getsockname, SYS_getsockopt, SYS_gettid,
    SYS_gettimeofday, SYS_ioctl, SYS_lseek, SYS_madvise, SYS_mmap, SYS_mprotect, SYS_mremap, SYS_munmap,
    SYS_nanosleep, SYS_newfstatat, SYS_openat, SYS_ppoll, SYS_prctl, SYS_pread64, SYS_pwrite64, SYS_read,
    SYS_readlinkat, SYS_readv, SYS_recvfrom, SYS_recvmsg, SYS_renameat, SYS_renameat2, SYS_restart_syscall,
    SYS_rseq, SYS_rt_sigaction, SYS_rt_sigprocmask, SYS_rt_sigreturn, SYS_sched_getaffinity, SYS_sched_yield,
    SYS_sendmsg, SYS_sendto, SYS_set_robust_list, SYS_setsockopt, SYS_sigaltstack, SYS_statx, SYS_tgkill,
    SYS_unlinkat, SYS_write, SYS_writev, c_long,
};
#[cfg(target_arch = "x86_64")]
use libc::{SYS_epoll_wait, SYS_open, SYS_poll, SYS_readlink, SYS_rename, SYS_stat, SYS_time, SYS_unlink};
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

/// A system call, what its arguments have to be, and why it is here.
struct Row(c_long, Arguments, &'static str);

/// What an argument has to be; one row of several is enough. Arguments count from zero.
enum Arguments {
    Any,
    /// The bits of the argument under the mask.
    Bits {
        argument: u8,
        mask: u64,
        value: u64,
    },
    /// One of these values, compared in the low 32 bits as the kernel does for commands.
    OneOf {
        argument: u8,
        values: &'static [u64],
    },
    /// Not on a descriptor of the capture (argument 0): a packet socket sends as well as it receives.
    Elsewhere,
    /// As `Elsewhere`, and the command in argument 1 is this.
    CommandElsewhere(u64),
    /// This process (argument 0) and no other.
    Own,
}
use Arguments::{Any, Bits, CommandElsewhere, Elsewhere, OneOf, Own};

const EXECUTABLE: Arguments = Bits { argument: 2, mask: libc::PROT_EXEC as u64, value: 0 };

const TABLE: &[Row] = &[
    // Frames, and the socketpair to the monitor.
    Row(SYS_ppoll, Any, "waiting, in libpcap and in the worker's loop"),
    Row(SYS_epoll_create1, Any, "waiting"),
    Row(SYS_epoll_ctl, Any, "waiting"),
    Row(SYS_epoll_pwait, Any, "waiting"),
    Row(SYS_read, Any, "files, pipes, the pcap wake-up descriptor"),
    Row(SYS_readv, Any, "files"),
    Row(SYS_write, Elsewhere, "files, standard error"),
    Row(SYS_writev, Elsewhere, "files, standard error"),
    Row(SYS_recvfrom, Any, "the socketpair; NFLOG"),
    Row(SYS_recvmsg, Any, "the socketpair"),
    Row(SYS_sendto, Elsewhere, "the socketpair"),
    Row(SYS_sendmsg, Elsewhere, "the socketpair"),
    Row(SYS_getsockopt, Any, "PACKET_STATISTICS, and SO_ERROR after a link went down"),
    Row(SYS_getsockname, Any, "whether the interface is still there"),
    Row(SYS_ioctl, OneOf { argument: 1, values: IOCTLS }, "see IOCTLS"),
    Row(SYS_fcntl, OneOf { argument: 1, values: FCNTLS }, "see FCNTLS"),
    Row(SYS_fcntl, CommandElsewhere(libc::F_DUPFD_CLOEXEC as u64), "a second descriptor: `try_clone`"),
    // State files, below the two directories that Landlock leaves.
    Row(SYS_openat, Any, "state files; Landlock says which"),
    Row(SYS_close, Any, "state files; libpcap at the end"),
    Row(SYS_fstat, Any, "state files"),
    Row(SYS_newfstatat, Any, "fstat in glibc before 2.39"),
    Row(SYS_statx, Any, "state files, as std asks"),
    Row(SYS_lseek, Any, "state files"),
    Row(SYS_pread64, Any, "state files"),
    Row(SYS_pwrite64, Any, "state files"),
    Row(SYS_ftruncate, Any, "state files"),
    Row(SYS_fsync, Any, "state files and their directory"),
    Row(SYS_fdatasync, Any, "state files"),
    Row(SYS_flock, Any, "state files"),
    Row(SYS_renameat, Any, "state files are replaced by rename"),
    Row(SYS_renameat2, Any, "as renameat, where the C library prefers it"),
    Row(SYS_unlinkat, Any, "state files that are no longer wanted"),
    Row(SYS_getdents64, Any, "listing the state directory"),
    // Memory, never executable.
    Row(SYS_brk, Any, "malloc"),
    Row(SYS_mmap, EXECUTABLE, "malloc, thread stacks"),
    Row(SYS_mprotect, EXECUTABLE, "thread stacks, malloc arenas"),
    Row(SYS_mremap, Any, "realloc; keeps the protection that is there"),
    Row(SYS_munmap, Any, "malloc, thread stacks, the ring at the end"),
    Row(SYS_madvise, Any, "malloc, thread stacks"),
    // One thread that writes state to disk, started after the filter.
    Row(SYS_clone, Bits { argument: 0, mask: CLONE_SEEN, value: CLONE_THREAD }, "a thread, no process"),
    Row(SYS_futex, Any, "locks, joining threads"),
    Row(SYS_set_robust_list, Any, "a new thread"),
    Row(SYS_rseq, Any, "a new thread"),
    Row(SYS_sigaltstack, Any, "a new thread: std's stack overflow handler"),
    Row(SYS_sched_getaffinity, Any, "a new thread: pthread_getattr_np, malloc arenas"),
    Row(SYS_prctl, OneOf { argument: 0, values: PRCTLS }, "see PRCTLS"),
    Row(SYS_gettid, Any, "a new thread; abort"),
    Row(SYS_getpid, Any, "abort"),
    Row(SYS_sched_yield, Any, "std's locks"),
    // Time and randomness.
    Row(SYS_clock_gettime, Any, "the clock, where the vDSO cannot tell it (virtual machines)"),
    Row(SYS_clock_getres, Any, "the clock"),
    Row(SYS_gettimeofday, Any, "libpcap stamps NFLOG frames with it"),
    Row(SYS_clock_nanosleep, Any, "sleeping"),
    Row(SYS_nanosleep, Any, "sleeping"),
    Row(SYS_adjtimex, Any, "whether the clock is synchronised; setting it needs a capability"),
    Row(SYS_clock_adjtime, Any, "adjtimex in glibc since 2.31"),
    Row(SYS_getrandom, Any, "hash map seeds, key material"),
    // Signals, and the end.
    Row(SYS_rt_sigaction, Any, "signal handlers"),
    Row(SYS_rt_sigprocmask, Any, "abort, a new thread"),
    Row(SYS_rt_sigreturn, Any, "the end of a signal handler"),
    Row(SYS_restart_syscall, Any, "a sleep that SIGCONT interrupted"),
    Row(SYS_tgkill, Own, "abort; the monitor runs as the same user, and must not be signalled"),
    Row(SYS_exit, Any, "the end of a thread"),
    Row(SYS_exit_group, Any, "the end"),
];

/// The calls that this machine's C library makes where newer architectures have only the `at` forms.
#[cfg(target_arch = "x86_64")]
const OLD_FORMS: &[Row] = &[
    Row(SYS_poll, Any, "ppoll"),
    Row(SYS_time, Any, "clock_gettime"),
    Row(SYS_epoll_wait, Any, "epoll_pwait"),
    Row(SYS_open, Any, "openat"),
    Row(SYS_stat, Any, "newfstatat"),
    Row(SYS_rename, Any, "renameat"),
    Row(SYS_unlink, Any, "unlinkat"),
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
const REFUSED: &[c_long] = &[SYS_clone3, SYS_setsockopt, SYS_readlinkat, SYS_getcwd];
/// The older form of `readlinkat`.
#[cfg(target_arch = "x86_64")]
const REFUSED_OLD: &[c_long] = &[SYS_readlink];
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
const CLONE_SEEN: u64 = CLONE_THREAD
    | (libc::CLONE_NEWUSER | libc::CLONE_NEWNS | libc::CLONE_NEWNET | libc::CLONE_NEWPID) as u64
    | (libc::CLONE_NEWIPC | libc::CLONE_NEWUTS | libc::CLONE_NEWCGROUP | libc::CLONE_UNTRACED) as u64;

/// Puts the filters in force for this thread and all that it starts, for good.
///
/// Two filters, because seccompiler has one answer for what matches, and the kernel takes the strictest of all:
/// the first refuses what [`REFUSED`] names, the second ends the process for what the table does not name.
///
/// `receiving` are the capture's descriptors: nothing can be sent on them, nor on a duplicate.
pub(super) fn restrict(receiving: &[BorrowedFd<'_>]) -> Result<(), seccompiler::Error> {
    let numbers: Vec<u64> = receiving.iter().map(|fd| u64::from(fd.as_raw_fd().unsigned_abs())).collect();
    let own = u64::from(std::process::id());
    let [refusing, table] = filters(&numbers, own)?;
    seccompiler::apply_filter(&refusing)?;
    seccompiler::apply_filter(&table)
}

fn filters(receiving: &[u64], own: u64) -> Result<[BpfProgram; 2], BackendError> {
    let refused: BTreeMap<_, _> =
        REFUSED.iter().chain(REFUSED_OLD).map(|number| (*number, Vec::new())).collect();
    // The second filter has to let through what the first one answers, or its stricter answer would win.
    let mut allowed = refused.clone();
    for Row(number, arguments, _reason) in TABLE.iter().chain(OLD_FORMS) {
        allowed.entry(*number).or_default().extend(arguments.rules(receiving, own)?);
    }
    Ok([
        compile(refused, SeccompAction::Allow, errno(libc::ENOSYS))?,
        compile(allowed, SeccompAction::KillProcess, SeccompAction::Allow)?,
    ])
}

fn errno(number: i32) -> SeccompAction {
    SeccompAction::Errno(number.unsigned_abs())
}

fn compile(
    rules: BTreeMap<c_long, Vec<SeccompRule>>,
    otherwise: SeccompAction,
    listed: SeccompAction,
) -> Result<BpfProgram, BackendError> {
    SeccompFilter::new(rules, otherwise, listed, std::env::consts::ARCH.try_into()?)?.try_into()
}

impl Arguments {
    /// The rules of seccompiler, of which one has to hold; none at all is a call whatever its arguments.
    fn rules(&self, receiving: &[u64], own: u64) -> Result<Vec<SeccompRule>, BackendError> {
        let conditions = match self {
            Any => Vec::new(),
            Bits { argument, mask, value } => {
                let compare = SeccompCmpOp::MaskedEq(*mask);
                vec![vec![SeccompCondition::new(*argument, SeccompCmpArgLen::Qword, compare, *value)?]]
            }
            OneOf { argument, values } => {
                values.iter().map(|value| Ok(vec![equals(*argument, *value)?])).collect::<Result<_, _>>()?
            }
            Own => vec![vec![equals(0, own)?]],
            Elsewhere if receiving.is_empty() => Vec::new(),
            Elsewhere => vec![none_of(receiving)?],
            CommandElsewhere(command) => {
                let mut all = none_of(receiving)?;
                all.push(equals(1, *command)?);
                vec![all]
            }
        };
        conditions.into_iter().map(SeccompRule::new).collect()
    }
}

fn equals(argument: u8, value: u64) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)
}

fn none_of(descriptors: &[u64]) -> Result<Vec<SeccompCondition>, BackendError> {
    let differs = |fd: &u64| SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, *fd);
    descriptors.iter().map(differs).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_call_stands_in_the_table_twice_but_by_command_and_each_has_a_reason() {
        let rows: Vec<_> = TABLE.iter().chain(OLD_FORMS).collect();
        for Row(number, _, reason) in &rows {
            let count = rows.iter().filter(|other| other.0 == *number).count();
            assert!(count == 1 || *number == SYS_fcntl, "{number}: {reason}");
            assert!(!reason.is_empty(), "{number}");
        }
    }

    const ALLOW: u32 = 0x7fff_0000;
    const KILL: u32 = 0x8000_0000;
    const ENOSYS: u32 = 0x0005_0000 | libc::ENOSYS.unsigned_abs();

    /// What the kernel would answer: runs the compiled programs on `struct seccomp_data` (`linux/seccomp.h`).
    /// The instructions are those that seccompiler makes; any other stops the test.
    fn verdict(number: c_long, arguments: [u64; 6]) -> u32 {
        let machine = if cfg!(target_arch = "x86_64") { 0xc000_003e_u32 } else { 0xc000_00b7 };
        let mut data = u32::try_from(number).unwrap().to_le_bytes().to_vec();
        data.extend(machine.to_le_bytes());
        data.extend([0; 8]);
        data.extend(arguments.iter().flat_map(|argument| argument.to_le_bytes()));
        let load = |at: u32| {
            let at = usize::try_from(at).unwrap();
            u32::from_le_bytes(data[at..at + 4].try_into().unwrap())
        };
        let run = |program: &BpfProgram| {
            let (mut at, mut word) = (0, 0);
            loop {
                let step = &program[at];
                let branch = |taken| usize::from(if taken { step.jt } else { step.jf });
                at += 1;
                match step.code {
                    0x20 => word = load(step.k),
                    0x54 => word &= step.k,
                    0x05 => at += usize::try_from(step.k).unwrap(),
                    0x15 => at += branch(word == step.k),
                    0x06 => return step.k,
                    other => panic!("instruction {other:#x}"),
                }
            }
        };
        let [refusing, table] = filters(&[3, 4], 77).unwrap();
        match (run(&refusing), run(&table)) {
            (_, KILL) => KILL,
            (ALLOW, second) => second,
            (first, _) => first,
        }
    }

    fn call(number: c_long) -> u32 {
        verdict(number, [0; 6])
    }

    #[test]
    fn what_would_reach_out_or_run_something_ends_the_process() {
        let forbidden = [
            libc::SYS_socket,
            libc::SYS_connect,
            libc::SYS_bind,
            libc::SYS_listen,
            libc::SYS_accept4,
            libc::SYS_execve,
            libc::SYS_execveat,
            libc::SYS_kill,
            libc::SYS_tkill,
            libc::SYS_ptrace,
            libc::SYS_open_by_handle_at,
            libc::SYS_unshare,
            libc::SYS_setns,
            libc::SYS_mount,
            libc::SYS_chroot,
            libc::SYS_bpf,
            libc::SYS_io_uring_setup,
            libc::SYS_capset,
            libc::SYS_setuid,
            libc::SYS_process_vm_writev,
            libc::SYS_pidfd_getfd,
            libc::SYS_memfd_create,
            libc::SYS_userfaultfd,
            libc::SYS_symlinkat,
            libc::SYS_mkdirat,
            libc::SYS_fchmodat,
        ];
        for number in forbidden {
            assert_eq!(call(number), KILL, "{number}");
        }
        assert_eq!(call(SYS_ppoll), ALLOW);
        assert_eq!(REFUSED.iter().map(|number| call(*number)).collect::<Vec<_>>(), [ENOSYS; 4]);
    }

    #[test]
    fn no_process_but_the_own_one_can_be_signalled() {
        assert_eq!(verdict(SYS_tgkill, [77, 77, 6, 0, 0, 0]), ALLOW);
        assert_eq!(verdict(SYS_tgkill, [78, 78, 15, 0, 0, 0]), KILL);
    }

    #[test]
    fn a_foreign_architectures_calls_end_the_process() {
        let [_, table] = filters(&[3, 4], 77).unwrap();
        // Load the architecture, compare, and end when it is another one.
        assert_eq!((table[0].code, table[0].k), (0x20, 4));
        assert_eq!((table[1].code, table[1].jt, table[1].jf), (0x15, 1, 0));
        assert_eq!((table[2].code, table[2].k), (0x06, KILL));
    }

    #[test]
    fn memory_is_never_executable() {
        for number in [SYS_mmap, SYS_mprotect] {
            let with = |protection: i32| verdict(number, [0, 4096, protection as u64, 0, 0, 0]);
            assert_eq!(with(libc::PROT_READ | libc::PROT_WRITE), ALLOW);
            assert_eq!(with(libc::PROT_READ | libc::PROT_EXEC), KILL);
            assert_eq!(with(libc::PROT_EXEC), KILL);
        }
    }

    #[test]
    fn a_thread_can_be_started_and_no_process_and_no_namespace() {
        // What glibc's pthread_create passes: sysdeps/unix/sysv/linux/createthread.c.
        let thread = 0x003d_0f00;
        let with = |flags: u64| verdict(SYS_clone, [flags, 0, 0, 0, 0, 0]);
        assert_eq!(with(thread), ALLOW);
        assert_eq!(with(17), KILL);
        assert_eq!(with((libc::CLONE_VM | libc::CLONE_VFORK) as u64 | 17), KILL);
        assert_eq!(with(thread | libc::CLONE_NEWUSER as u64), KILL);
        #[cfg(target_arch = "x86_64")]
        assert_eq!((call(libc::SYS_fork), call(libc::SYS_vfork)), (KILL, KILL));
    }

    #[test]
    fn nothing_can_be_sent_on_the_capture_or_on_a_duplicate() {
        let on = |number, fd: u64, command: u64| verdict(number, [fd, command, 0, 0, 0, 0]);
        for number in [SYS_write, SYS_writev, SYS_sendto, SYS_sendmsg] {
            assert_eq!([3, 4, 5, 0].map(|fd| on(number, fd, 0)), [KILL, KILL, ALLOW, ALLOW], "{number}");
        }
        let duplicate = libc::F_DUPFD_CLOEXEC as u64;
        assert_eq!([3, 4, 5].map(|fd| on(SYS_fcntl, fd, duplicate)), [KILL, KILL, ALLOW]);
        assert_eq!(on(SYS_fcntl, 3, libc::F_GETFD as u64), ALLOW);
        assert_eq!(on(SYS_fcntl, 5, libc::F_DUPFD as u64), KILL);
        assert_eq!((call(libc::SYS_dup), call(libc::SYS_dup3), call(libc::SYS_sendmmsg)), (KILL, KILL, KILL));
    }

    #[test]
    fn commands_of_ioctl_fcntl_and_prctl_are_named_one_by_one() {
        let with = |number, place: usize, value| {
            let mut arguments = [0; 6];
            arguments[place] = value;
            verdict(number, arguments)
        };
        assert_eq!(with(SYS_ioctl, 1, libc::FIONBIO), ALLOW);
        assert_eq!(with(SYS_ioctl, 1, libc::TIOCSTI), KILL);
        assert_eq!(with(SYS_fcntl, 1, libc::F_SETFL as u64), ALLOW);
        assert_eq!(with(SYS_fcntl, 1, libc::F_SETOWN as u64), KILL);
        assert_eq!(with(SYS_prctl, 0, libc::PR_SET_NAME as u64), ALLOW);
        assert_eq!(with(SYS_prctl, 0, libc::PR_SET_DUMPABLE as u64), KILL);
    }
}
