//! Which capabilities the monitor keeps, and how it hands one to a child.
//!
//! Capabilities belong to a thread (`capabilities(7)`): call these before any other thread exists, and start
//! children from the same thread.

use std::io;

use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set, clear_ambient_capability_set,
    configure_capability_in_ambient_set, remove_capability_from_bounding_set, set_capabilities,
};

pub use rustix::thread::CapabilitySet as Capabilities;

/// What the monitor may have: one to change the firewall, one only to hand to a new worker.
const KEPT: CapabilitySet = CapabilitySet::NET_ADMIN.union(CapabilitySet::NET_RAW);

/// Leaves the monitor `CAP_NET_ADMIN` in effect, and `CAP_NET_RAW` permitted so that a new worker can be given
/// it. Nothing is inheritable or ambient; the bounding set, which is what root's children get, keeps the two.
///
/// The bounding set can be cut with `CAP_SETPCAP` alone. Without it (a systemd unit with
/// `CapabilityBoundingSet=`) it is left as it is.
///
/// # Errors
/// `PermissionDenied`, naming the capability, when this process does not have both.
pub fn keep_only_net_admin() -> io::Result<()> {
    let have = capabilities(None)?.permitted;
    for (name, needed) in
        [("CAP_NET_ADMIN", CapabilitySet::NET_ADMIN), ("CAP_NET_RAW", CapabilitySet::NET_RAW)]
    {
        if !have.contains(needed) {
            let text = format!("{name} is missing; run as root, or by the systemd unit");
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
    }
    clear_ambient_capability_set()?;
    cut_bounding_set(KEPT)?;
    Ok(set_capabilities(
        None,
        CapabilitySets {
            effective: CapabilitySet::NET_ADMIN,
            permitted: KEPT,
            inheritable: CapabilitySet::empty(),
        },
    )?)
}

/// Runs `spawn` while children started by it inherit `wanted` through `exec`, and takes that back afterwards,
/// also when `spawn` failed. A child of an ordinary user gets exactly `wanted`. A child of root gets the
/// bounding set, whatever is asked for here: it has to drop what it does not need itself.
///
/// # Errors
/// What `spawn` failed with, or the kernel's refusal: `wanted` has to be permitted to this process.
pub fn with_ambient<T>(wanted: CapabilitySet, spawn: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let before = capabilities(None)?;
    // Ambient capabilities have to be inheritable and permitted (capabilities(7)).
    let inheritable = before.inheritable.union(wanted);
    set_capabilities(None, CapabilitySets { inheritable, ..before })?;
    let raised = wanted.iter().try_for_each(|one| configure_capability_in_ambient_set(one, true));
    let spawned = raised.map_err(io::Error::from).and_then(|()| spawn());
    clear_ambient_capability_set()?;
    set_capabilities(None, before)?;
    spawned
}

/// Drops every capability, and the bounding set where that is permitted.
pub(super) fn drop_all() -> io::Result<()> {
    clear_ambient_capability_set()?;
    cut_bounding_set(CapabilitySet::empty())?;
    let none = CapabilitySet::empty();
    Ok(set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?)
}

/// Goes by number, not by rustix's names, so that capabilities of a newer kernel are cut too. The kernel
/// answers `EINVAL` past its last one.
fn cut_bounding_set(kept: CapabilitySet) -> io::Result<()> {
    if !capabilities(None)?.effective.contains(CapabilitySet::SETPCAP) {
        return Ok(());
    }
    for number in 0..64 {
        let one = CapabilitySet::from_bits_retain(1 << number);
        match capability_is_in_bounding_set(one) {
            Ok(true) if !kept.contains(one) => remove_capability_from_bounding_set(one)?,
            Ok(_) => {}
            Err(rustix::io::Errno::INVAL) => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
