//! What is kept between runs beside replay marks: guards, last knocks, numbers of revocation lists, an authority's
//! index.
#![no_main]

use knockd_rs::fuzzing::books;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| books(input));
