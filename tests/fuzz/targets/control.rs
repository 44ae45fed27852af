//! The control socket from both ends: what a peer says to the daemon, and what a daemon says to the command line and to
//! hooks.
#![no_main]

use knockd_rs::fuzzing::{command, replies};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    command(bytes);
    replies(bytes);
});
