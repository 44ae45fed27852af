//! What people write by hand, and how it is printed back: `tcp/22`, `1m30s`, `10.0.0.0/8`, keys in base64.
//!
//! Every type here parses from text and prints to the same text; nothing else in the project takes such
//! strings apart. No I/O.
#![forbid(unsafe_code)]

mod duration;
mod moment;
mod name;
mod network;
mod port;

pub use duration::{Span, SpanError};
pub use moment::{Moment, MomentError, date, days, second_of_day};
pub use name::{NameError, ProfileName, ServerName, ServiceName};
pub use network::{Network, NetworkError};
pub use port::{PortError, PortRange, Protocol};

/// Implements serde by way of `Display` and `FromStr`, so that files and JSON carry the text people write.
macro_rules! serde_as_text {
    ($name:ty) => {
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
pub(crate) use serde_as_text;
