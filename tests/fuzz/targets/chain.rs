//! An authority, its revocation list and a certificate, of which one is the fuzzer's: nothing is good without a list, and
//! nothing that is revoked or over.
#![no_main]

use knockd_rs::fuzzing::chain;
use libfuzzer_sys::fuzz_target;

const AUTHORITY: &[u8] = include_bytes!("../corpus/cert/ca_certificate");
const LIST: &[u8] = include_bytes!("../corpus/cert/crl");
const LEAF: &[u8] = include_bytes!("../corpus/cert/certificate");

fuzz_target!(|bytes: &[u8]| chain(bytes, AUTHORITY, LIST, LEAF));
