//! Words that people write: what was read, printed and read again is the same.
#![no_main]

use std::fmt::{Debug, Display};
use std::str::FromStr;

use knockd_rs::capture::Source;
use knockd_rs::client::Method;
use knockd_rs::client::proxy::Place;
use knockd_rs::config::{Device, Interface};
use knockd_rs::crypto::PublicKey;
use knockd_rs::enrol::Host;
use knockd_rs::grant::{SessionFlag, Uses};
use knockd_rs::knock::ServiceTag;
use knockd_rs::nft::{Note, SetName};
use knockd_rs::text::{Moment, Network, PortRange, ProfileName, ServerName, ServiceName, Span};
use knockd_rs::x509::select::{KeyHash, NamePattern, UriPattern};
use libfuzzer_sys::fuzz_target;

fn again<T: FromStr<Err: Display> + Display + Debug + PartialEq>(text: &str) {
    match text.parse::<T>() {
        Ok(value) => assert_eq!(value.to_string().parse().ok(), Some(value)),
        Err(error) => {
            let told = error.to_string();
            assert!(!told.chars().any(char::is_control) && told.len() < 8 * text.len() + 1000, "{told:?}");
        }
    }
}

fuzz_target!(|text: &str| {
    again::<Source>(text);
    again::<Method>(text);
    again::<Place>(text);
    again::<Device>(text);
    again::<Interface>(text);
    again::<PublicKey>(text);
    again::<Host>(text);
    again::<SessionFlag>(text);
    again::<Uses>(text);
    again::<ServiceTag>(text);
    again::<Note>(text);
    again::<SetName>(text);
    again::<Moment>(text);
    again::<Network>(text);
    again::<PortRange>(text);
    again::<ProfileName>(text);
    again::<ServerName>(text);
    again::<ServiceName>(text);
    again::<Span>(text);
    again::<KeyHash>(text);
    again::<NamePattern>(text);
    again::<UriPattern>(text);
});
