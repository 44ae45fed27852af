//! Network interfaces that come, go and change their names: rtnetlink's `RTMGRP_LINK` (`rtnetlink(7)`).
//!
//! What a message says is not read: any message means "look again", and looking is reading `/sys/class/net`.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use mnl::{Bus, Socket};
use rustix::io::{FdFlags, fcntl_setfd};

use crate::sys;

/// `RTMGRP_LINK` of `linux/rtnetlink.h`.
const RTMGRP_LINK: u32 = 1;

/// The kernel's notices about interfaces. Without them the daemon only retries now and then.
pub(super) struct Links(Option<Socket>);

impl Links {
    pub(super) fn open() -> Self {
        Self(subscribe().ok())
    }

    pub(super) fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.0.as_ref().map(|socket| sys::borrow(socket, socket.as_raw_fd()))
    }

    /// Reads all notices that are there; whether there was one.
    pub(super) fn changed(&self) -> bool {
        let Some(fd) = self.as_fd() else { return false };
        let mut any = false;
        let mut buffer = [0; 8192];
        loop {
            match rustix::net::recv(fd, &mut buffer[..], rustix::net::RecvFlags::DONTWAIT) {
                Ok((_, len)) if len > 0 => any = true,
                // Notices were lost because there were too many: then something has changed too.
                Err(rustix::io::Errno::NOBUFS) => any = true,
                _ => return any,
            }
        }
    }
}

fn subscribe() -> io::Result<Socket> {
    // Not `Socket::new`: that binds to no group, and a socket is bound once.
    let socket = Socket::open(Bus::Route)?;
    // libmnl opens it without: the worker would inherit it.
    fcntl_setfd(sys::borrow(&socket, socket.as_raw_fd()), FdFlags::CLOEXEC)?;
    socket.bind(RTMGRP_LINK, 0)?;
    Ok(socket)
}

/// The index of the interface with this name, if there is one.
pub(super) fn interface_index(name: &str) -> Option<u32> {
    if name.contains('/') {
        return None;
    }
    fs::read_to_string(format!("/sys/class/net/{name}/ifindex")).ok()?.trim().parse().ok()
}
