//! What the kernel lists of the sets: never a panic, whatever the attributes.
#![no_main]

use knockd_rs::fuzzing::netlink;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|datagram: &[u8]| {
    let _ = netlink(datagram);
});
