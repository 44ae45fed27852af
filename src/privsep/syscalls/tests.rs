use super::*;

#[test]
fn no_call_stands_in_a_table_twice_but_by_its_arguments_and_each_has_a_reason() {
    let [worker, monitor] = [worker::rows().collect::<Vec<_>>(), monitor::rows().collect()];
    for rows in [worker, monitor] {
        for row in &rows {
            let count = rows.iter().filter(|other| other.number == row.number).count();
            assert!(count == 1 || !matches!(row.arguments, Arguments::Any), "{}", row.name);
            assert!(!row.why.is_empty(), "{}", row.name);
        }
    }
}

const ALLOW: u32 = 0x7fff_0000;
const KILL: u32 = 0x8000_0000;
const NO_SUCH_CALL: u32 = 0x0005_0000 | libc::ENOSYS.unsigned_abs();
const NOT_PERMITTED: u32 = 0x0005_0000 | libc::EPERM.unsigned_abs();

/// What the kernel would answer: runs a compiled program on `struct seccomp_data` (`linux/seccomp.h`). The instructions
/// are those that seccompiler and this module make; any other stops the test.
fn run(program: &[libc::sock_filter], number: c_long, arguments: [u64; 6]) -> u32 {
    let machine = if cfg!(target_arch = "x86_64") { 0xc000_003e_u32 } else { 0xc000_00b7 };
    let mut data = u32::try_from(number).unwrap().to_le_bytes().to_vec();
    data.extend(machine.to_le_bytes());
    data.extend([0; 8]);
    data.extend(arguments.iter().flat_map(|argument| argument.to_le_bytes()));
    let load = |at: u32| {
        let at = usize::try_from(at).unwrap();
        u32::from_le_bytes(data[at..at + 4].try_into().unwrap())
    };
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
            0x35 => at += branch(word >= step.k),
            0x06 => return step.k,
            other => panic!("instruction {other:#x}"),
        }
    }
}

/// Of two answers the stricter one counts, of two refusals the later one.
fn stricter(earlier: u32, later: u32) -> u32 {
    match (earlier, later) {
        (KILL, _) | (_, KILL) => KILL,
        (_, ALLOW) => earlier,
        _ => later,
    }
}

/// What a confined worker is answered.
fn verdict(number: c_long, arguments: [u64; 6]) -> u32 {
    let [refusing, table] = worker::filters(&[3, 4], 77).unwrap();
    let [refusing, table] = [refusing, table].map(|program| run(&instructions(&program), number, arguments));
    stricter(refusing, table)
}

/// What the monitor is answered.
fn of_monitor(number: c_long, arguments: [u64; 6]) -> u32 {
    let table = run(&instructions(&monitor::filter().unwrap()), number, arguments);
    stricter(table, run(&monitor::newer().unwrap(), number, arguments))
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
    assert_eq!(call(libc::SYS_ppoll), ALLOW);
    assert_eq!(worker::REFUSED.iter().map(|number| call(*number)).collect::<Vec<_>>(), [NO_SUCH_CALL; 4]);
}

#[test]
fn no_process_but_the_own_one_can_be_signalled() {
    assert_eq!(verdict(libc::SYS_tgkill, [77, 77, 6, 0, 0, 0]), ALLOW);
    assert_eq!(verdict(libc::SYS_tgkill, [78, 78, 15, 0, 0, 0]), KILL);
}

#[test]
fn a_foreign_architectures_calls_end_the_process() {
    let [_, table] = worker::filters(&[3, 4], 77).unwrap();
    // Load the architecture, compare, and end when it is another one.
    assert_eq!((table[0].code, table[0].k), (0x20, 4));
    assert_eq!((table[1].code, table[1].jt, table[1].jf), (0x15, 1, 0));
    assert_eq!((table[2].code, table[2].k), (0x06, KILL));
}

#[test]
fn memory_is_never_executable() {
    for number in [libc::SYS_mmap, libc::SYS_mprotect] {
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
    let with = |flags: u64| verdict(libc::SYS_clone, [flags, 0, 0, 0, 0, 0]);
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
    for number in [libc::SYS_write, libc::SYS_writev, libc::SYS_sendto] {
        assert_eq!([3, 4, 5, 0].map(|fd| on(number, fd, 0)), [KILL, KILL, ALLOW, ALLOW], "{number}");
    }
    let duplicate = libc::F_DUPFD_CLOEXEC as u64;
    assert_eq!([3, 4, 5].map(|fd| on(libc::SYS_fcntl, fd, duplicate)), [KILL, KILL, ALLOW]);
    assert_eq!(on(libc::SYS_fcntl, 3, libc::F_GETFD as u64), ALLOW);
    assert_eq!(on(libc::SYS_fcntl, 5, libc::F_DUPFD as u64), KILL);
    assert_eq!((call(libc::SYS_dup), call(libc::SYS_dup3), call(libc::SYS_sendmmsg)), (KILL, KILL, KILL));
}

#[test]
fn commands_of_ioctl_fcntl_and_prctl_are_named_one_by_one() {
    let with = |number, place: usize, value| {
        let mut arguments = [0; 6];
        arguments[place] = value;
        verdict(number, arguments)
    };
    assert_eq!(with(libc::SYS_ioctl, 1, libc::FIONBIO), ALLOW);
    assert_eq!(with(libc::SYS_ioctl, 1, libc::TIOCSTI), KILL);
    assert_eq!(with(libc::SYS_fcntl, 1, libc::F_SETFL as u64), ALLOW);
    assert_eq!(with(libc::SYS_fcntl, 1, libc::F_SETOWN as u64), KILL);
    assert_eq!(with(libc::SYS_prctl, 0, libc::PR_SET_NAME as u64), ALLOW);
    assert_eq!(with(libc::SYS_prctl, 0, libc::PR_SET_DUMPABLE as u64), KILL);
}

#[test]
fn the_monitor_is_refused_what_it_has_no_use_for_and_goes_on() {
    let forbidden = [
        libc::SYS_ptrace,
        libc::SYS_process_vm_readv,
        libc::SYS_process_vm_writev,
        libc::SYS_unshare,
        libc::SYS_setns,
        libc::SYS_mount,
        libc::SYS_umount2,
        libc::SYS_pivot_root,
        libc::SYS_chroot,
        libc::SYS_init_module,
        libc::SYS_finit_module,
        libc::SYS_delete_module,
        libc::SYS_kexec_load,
        libc::SYS_bpf,
        libc::SYS_perf_event_open,
        libc::SYS_userfaultfd,
        libc::SYS_keyctl,
        libc::SYS_add_key,
        libc::SYS_open_by_handle_at,
        libc::SYS_personality,
        libc::SYS_setuid,
        libc::SYS_setgid,
        libc::SYS_setresuid,
        libc::SYS_setgroups,
        libc::SYS_fchown,
        libc::SYS_fchownat,
        libc::SYS_mknodat,
        libc::SYS_linkat,
        libc::SYS_symlinkat,
        libc::SYS_settimeofday,
        libc::SYS_clock_settime,
        libc::SYS_reboot,
        libc::SYS_swapon,
        libc::SYS_sethostname,
        libc::SYS_memfd_create,
        libc::SYS_execveat,
        libc::SYS_tkill,
        libc::SYS_rt_sigqueueinfo,
        libc::SYS_sendmmsg,
        libc::SYS_kcmp,
        libc::SYS_setpriority,
        libc::SYS_ioprio_set,
        libc::SYS_quotactl,
        libc::SYS_acct,
        libc::SYS_syslog,
    ];
    for number in forbidden {
        assert_eq!(of_monitor(number, [0; 6]), NOT_PERMITTED, "{number}");
    }
    assert_eq!(of_monitor(libc::SYS_execve, [0; 6]), ALLOW);
}

#[test]
fn calls_that_are_newer_than_the_table_are_answered_as_by_an_older_kernel() {
    let clone3 = libc::SYS_clone3;
    for number in [
        clone3,
        libc::SYS_io_uring_setup,
        libc::SYS_pidfd_getfd,
        libc::SYS_openat2,
        libc::SYS_move_mount,
        462,
        999,
        0x4000_0001,
    ] {
        assert_eq!(of_monitor(number, [0; 6]), NO_SUCH_CALL, "{number}");
    }
    assert_eq!(of_monitor(libc::SYS_landlock_restrict_self, [0; 6]), ALLOW);
}

#[test]
fn sockets_of_the_monitor_reach_this_host_alone() {
    let with = |family: i32| of_monitor(libc::SYS_socket, [family.unsigned_abs().into(), 1, 0, 0, 0, 0]);
    assert_eq!([libc::AF_UNIX, libc::AF_NETLINK, libc::AF_PACKET].map(with), [ALLOW; 3]);
    assert_eq!(
        [libc::AF_INET, libc::AF_INET6, libc::AF_VSOCK, libc::AF_ALG, libc::AF_BLUETOOTH].map(with),
        [NOT_PERMITTED; 5]
    );
}

#[test]
fn the_monitor_starts_children_in_no_namespace_of_their_own() {
    let with = |flags: i32| of_monitor(libc::SYS_clone, [u64::from(flags.unsigned_abs()), 0, 0, 0, 0, 0]);
    // posix_spawn, and a thread.
    assert_eq!([libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD, 0x003d_0f00].map(with), [ALLOW; 2]);
    assert_eq!(
        [libc::CLONE_NEWUSER, libc::CLONE_NEWNET, libc::CLONE_NEWNS, libc::CLONE_NEWPID].map(with),
        [NOT_PERMITTED; 4]
    );
}

#[test]
fn memory_of_the_monitor_is_writable_or_executable() {
    let with = |number, protection: i32| {
        of_monitor(number, [0, 4096, u64::from(protection.unsigned_abs()), 0, 0, 0])
    };
    let both = libc::PROT_WRITE | libc::PROT_EXEC;
    assert_eq!(
        [libc::PROT_READ | libc::PROT_EXEC, libc::PROT_READ | libc::PROT_WRITE, both]
            .map(|how| with(libc::SYS_mmap, how)),
        [ALLOW, ALLOW, NOT_PERMITTED]
    );
    assert_eq!(
        [libc::PROT_READ | libc::PROT_WRITE, libc::PROT_EXEC].map(|how| with(libc::SYS_mprotect, how)),
        [ALLOW, NOT_PERMITTED]
    );
}

#[test]
fn the_monitor_ends_workers_and_signals_nobody_otherwise() {
    let with = |signal: i32| of_monitor(libc::SYS_kill, [77, signal.unsigned_abs().into(), 0, 0, 0, 0]);
    assert_eq!(
        [libc::SIGKILL, libc::SIGTERM, libc::SIGSTOP, 0].map(with),
        [ALLOW, NOT_PERMITTED, NOT_PERMITTED, NOT_PERMITTED]
    );
}

/// The monitor's filter stays in force in its workers.
#[test]
fn whatever_a_worker_may_do_its_monitors_filter_lets_it_do() {
    let commands = [libc::FIONBIO, libc::FIONREAD, libc::TCGETS, 0x8913];
    let samples = |row: &Row| match (&row.arguments, row.number) {
        (_, number) if number == libc::SYS_ioctl => {
            commands.iter().map(|command| [0, *command, 0, 0, 0, 0]).collect()
        }
        (Arguments::Bits { argument, value, .. }, _) => vec![with_argument(*argument, *value)],
        (Arguments::OneOf { argument, values }, _) => {
            values.iter().map(|value| with_argument(*argument, *value)).collect()
        }
        (Arguments::CommandElsewhere(command), _) => vec![[9, *command, 0, 0, 0, 0]],
        (Arguments::Own, _) => vec![[77, 77, u64::from(libc::SIGABRT.unsigned_abs()), 0, 0, 0]],
        (Arguments::Any | Arguments::Elsewhere, _) => vec![[9, 0, 0, 0, 0, 0]],
    };
    for row in worker::rows() {
        for sample in samples(row) {
            assert_eq!(verdict(row.number, sample), ALLOW, "{}", row.name);
            assert_eq!(of_monitor(row.number, sample), ALLOW, "{} {sample:?}", row.name);
        }
    }
}

fn with_argument(place: u8, value: u64) -> [u64; 6] {
    let mut arguments = [0; 6];
    arguments[usize::from(place)] = value;
    arguments
}
