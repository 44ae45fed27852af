//! The `unsafe` that is left where no crate has a safe call: a few system calls, each in one short function.
//!
//! Two other files have `unsafe` in them: `nft/elem.rs`, and `capi.rs` with the C interface. Capabilities, prctl and signals come from rustix.
#![allow(unsafe_code, reason = "this file is where it lives")]

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
#[cfg(feature = "client")]
use std::os::fd::{FromRawFd, OwnedFd};
#[cfg(feature = "client")]
use std::sync::atomic::{AtomicBool, Ordering};

/// What the kernel says about its own clock (`adjtimex(2)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KernelClock {
    /// A time daemon keeps it.
    Synchronised,
    /// Nothing has set it, or not for long (`TIME_ERROR`, `STA_UNSYNC`).
    Unsynchronised,
    /// This process may not ask: systemd's `ProtectClock=` answers `EPERM`.
    NotPermitted,
}

/// Asks the kernel whether its clock is synchronised. Changes nothing.
///
/// # Errors
/// What `adjtimex(2)` answered, other than that asking is not permitted.
pub fn kernel_clock() -> io::Result<KernelClock> {
    // SAFETY: `timex` is a C struct of integers, for which all bits zero is a value; `modes` = 0 means reading.
    let mut timex: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a whole `timex` that lives through the call; the kernel fills it and keeps nothing.
    let state = unsafe { libc::adjtimex(&raw mut timex) };
    if state == -1 {
        let error = io::Error::last_os_error();
        let refused = error.kind() == io::ErrorKind::PermissionDenied;
        return if refused { Ok(KernelClock::NotPermitted) } else { Err(error) };
    }
    let unsynchronised = state == libc::TIME_ERROR || timex.status & libc::STA_UNSYNC != 0;
    Ok(if unsynchronised { KernelClock::Unsynchronised } else { KernelClock::Synchronised })
}

/// The number of the interface that a packet socket is bound to: 0 for all, -1 when it was removed
/// (`packet(7)`, `sll_ifindex`).
///
/// # Errors
/// What `getsockname(2)` answered, or that `fd` is no packet socket.
#[cfg(feature = "daemon")]
pub(crate) fn packet_interface(fd: BorrowedFd<'_>) -> io::Result<i32> {
    // SAFETY: `sockaddr_ll` is a C struct of integers, for which all bits zero is a value.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    let size = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>()).unwrap_or(0);
    let mut length = size;
    // SAFETY: `address` has room for `length` bytes, the kernel writes no more than that; `fd` is open, borrowed.
    let answer = unsafe { libc::getsockname(fd.as_raw_fd(), (&raw mut address).cast(), &raw mut length) };
    match answer {
        0 if i32::from(address.sll_family) == libc::AF_PACKET => Ok(address.sll_ifindex),
        0 => Err(io::Error::other("not a packet socket")),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Who hears of a call that a filter refuses.
#[cfg(feature = "daemon")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// Nobody but the caller.
    Nobody,
    /// The audit log, or where there is none the kernel's.
    KernelLog,
}

/// Puts a filter of system calls in force for this thread and all that it starts, for good (`seccomp(2)`).
///
/// # Errors
/// What `seccomp(2)` answered: `EACCES` without `no_new_privs`, `EINVAL` for a program that is no good, `ENOSYS` on a
/// kernel without `CONFIG_SECCOMP_FILTER`.
#[cfg(feature = "daemon")]
pub(crate) fn filter_calls(program: &[libc::sock_filter], told: Told) -> io::Result<()> {
    let flags = match told {
        Told::Nobody => 0,
        Told::KernelLog => libc::SECCOMP_FILTER_FLAG_LOG,
    };
    let length = u16::try_from(program.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let program = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut() };
    let mode = libc::SECCOMP_SET_MODE_FILTER;
    // SAFETY: `program` holds a pointer to `len` instructions that live through the call; the kernel copies them, checks
    // them, and writes nothing.
    let answer = unsafe { libc::syscall(libc::SYS_seccomp, mode, flags, &raw const program) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Takes this thread to a network namespace of its own, with no interface but a loopback that is down; the namespace ends
/// with the thread and what it started.
///
/// # Errors
/// What `unshare(2)` answered: `EPERM` without `CAP_SYS_ADMIN`.
#[cfg(feature = "daemon")]
pub(crate) fn leave_network() -> io::Result<()> {
    // SAFETY: what is unshared is the network namespace; the descriptors that other threads rely on stay shared.
    let left = unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) };
    Ok(left?)
}

/// The supplementary groups of the process at the other end of a unix socket (`SO_PEERGROUPS`, Linux 4.13): what
/// the kernel knew when it connected.
///
/// # Errors
/// What `getsockopt(2)` answered.
pub fn peer_groups(socket: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    /// `NGROUPS_MAX` (`linux/limits.h`).
    const MOST: usize = 65_536;
    const SO_PEERGROUPS: libc::c_int = 59;
    let mut groups: Vec<u32> = vec![0; MOST];
    let mut length = libc::socklen_t::try_from(MOST * size_of::<u32>()).unwrap_or(0);
    // SAFETY: `groups` has room for `length` bytes, the kernel writes no more than that; the socket is open, borrowed.
    let answer = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_PEERGROUPS,
            groups.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if answer != 0 {
        return Err(io::Error::last_os_error());
    }
    groups.truncate(usize::try_from(length).unwrap_or(0) / size_of::<u32>());
    Ok(groups)
}

/// Sets the largest segment that a TCP socket offers, in bytes (`TCP_MAXSEG`, `tcp(7)`): what a route of that size makes
/// the kernel offer.
///
/// # Errors
/// What `setsockopt(2)` answered.
#[cfg(feature = "client")]
pub(crate) fn set_segment_size(socket: BorrowedFd<'_>, bytes: u32) -> io::Result<()> {
    let value = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
    let length = libc::socklen_t::try_from(size_of::<libc::c_int>()).unwrap_or(0);
    // SAFETY: the kernel reads `length` bytes from `value`, an integer of that size, and keeps nothing; the socket is
    // open, borrowed.
    let answer = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_MAXSEG,
            (&raw const value).cast(),
            length,
        )
    };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The descriptors from 3 on that a service manager has passed to this process (`sd_listen_fds(3)`): each is this
/// program's to close, so they are handed out once.
///
/// # Errors
/// When the environment announces something else than it can.
#[cfg(feature = "client")]
pub(crate) fn passed_descriptors() -> io::Result<Vec<OwnedFd>> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::SeqCst) {
        return Ok(Vec::new());
    }
    // Each was open when `sd_notify` set its close-on-exec flag.
    let passed = sd_notify::listen_fds()?;
    // SAFETY: the service manager opened them for this process before it began, they are still open, and nothing else
    // here knows them: the program opens its own by `open` and `socket`, which give other numbers. `TAKEN` sees to it
    // that there is one owner.
    Ok(passed.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }).collect())
}

/// Gives memory that was freed back to the kernel (`malloc_trim(3)`), which the C library else keeps for later: for a
/// process that has read its configuration and is going to wait.
#[cfg(feature = "daemon")]
pub(crate) fn return_freed_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes a number and no pointer; what it gives back is memory that belongs to the allocator alone. Allocations
    // are untouched, and other threads may allocate meanwhile (MT-Safe).
    unsafe {
        libc::malloc_trim(0)
    };
}

/// A library's descriptor, borrowed for as long as the library's own object is.
#[must_use]
pub fn borrow<T>(_owner: &T, descriptor: RawFd) -> BorrowedFd<'_> {
    // SAFETY: the callers pass the descriptor that `_owner` keeps open until it is dropped, which the lifetime of the
    // result does not outlive.
    unsafe { BorrowedFd::borrow_raw(descriptor) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_has_an_opinion_of_its_clock() {
        kernel_clock().unwrap();
    }

    #[cfg(feature = "daemon")]
    #[test]
    fn another_socket_is_not_taken_for_a_packet_socket() {
        use std::os::fd::AsFd as _;

        let socket = std::os::unix::net::UnixDatagram::unbound().unwrap();
        assert!(packet_interface(socket.as_fd()).is_err());
    }
}
