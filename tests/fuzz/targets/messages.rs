//! What worker and monitor say to each other: what is read encodes to the bytes it came from.
#![no_main]

use knockd_rs::grant::{REQUEST_LEN, Request};
use knockd_rs::privsep::message::{ORDER_LEN, Order, SAID_LEN, Said};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let fixed = |len: usize| {
        let mut bytes = input.to_vec();
        bytes.resize(len, 0);
        bytes
    };
    let request: [u8; REQUEST_LEN] = fixed(REQUEST_LEN).try_into().expect("resized");
    if let Ok(decoded) = Request::decode(&request) {
        assert_eq!(decoded.encode(), request);
    }
    let said: [u8; SAID_LEN] = fixed(SAID_LEN).try_into().expect("resized");
    if let Ok(decoded) = Said::decode(&said) {
        // A pulse may carry fewer counters than there is room for; all else has one form.
        assert!(matches!(decoded, Said::Pulse(_)) || decoded.encode() == said, "{decoded:?}");
        assert_eq!(Said::decode(&decoded.encode()), Ok(decoded));
    }
    let order: [u8; ORDER_LEN] = fixed(ORDER_LEN).try_into().expect("resized");
    if let Ok(decoded) = Order::decode(&order) {
        assert_eq!(decoded.encode(), order);
    }
});
