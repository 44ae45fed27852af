//! The file of ssh into which the lines for a server are put.
#![no_main]

use knockd_rs::fuzzing::ssh_config;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &str| ssh_config(input));
