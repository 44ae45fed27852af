//! Where a server is.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// A server's host name or address, without brackets, port or blanks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host(String);

impl Host {
    /// The name or address as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Host {
    type Err = String;

    /// A host name as in RFC 1123, with `_` for those who use it, or an address; `%eth0` may follow a link-local one.
    fn from_str(text: &str) -> Result<Self, String> {
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        };
        let (address, zone) = text.split_once('%').unwrap_or((text, ""));
        let is_zone = zone.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-@".contains(&byte));
        let is_address = address.parse::<IpAddr>().is_ok() && is_zone;
        let is_name = text.len() <= 253 && text.strip_suffix('.').unwrap_or(text).split('.').all(label);
        if is_address || is_name {
            return Ok(Self(text.to_owned()));
        }
        Err(format!(
            "`{}` is no host; use a name or an address, without brackets or port",
            text.escape_debug()
        ))
    }
}
