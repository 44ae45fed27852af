//! Where frames come from, as people write it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::text::serde_as_text;

/// `eth0`, `any`, `nflog:5` or `file:/path.pcap`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// One network interface, by name.
    Device(String),
    /// Every interface, also those that come later.
    Any,
    /// What the firewall's `log group N` hands over.
    Nflog(u16),
    /// A capture file, for tests and for explaining what happened.
    File(PathBuf),
}

/// The longest name of an interface: `IFNAMSIZ` (`linux/if.h`) without the final zero byte.
const LONGEST_NAME: usize = 15;

/// Devices that libpcap makes up and that carry no network: never interface names here. `nfqueue` would even
/// take packets out of their way.
const NOT_NETWORK: [&str; 5] = ["nfqueue", "usbmon", "bluetooth", "dbus", "dpdk"];

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(name) => f.write_str(name),
            Self::Any => f.write_str("any"),
            Self::Nflog(group) => write!(f, "nflog:{group}"),
            Self::File(path) => write!(f, "file:{}", path.display()),
        }
    }
}

impl FromStr for Source {
    type Err = SourceError;

    fn from_str(text: &str) -> Result<Self, SourceError> {
        let wrong = || SourceError(text.to_owned());
        match text.split_once(':') {
            Some(("nflog", group)) if group.starts_with(|first: char| first.is_ascii_digit()) => {
                group.parse().map(Self::Nflog).map_err(|_| wrong())
            }
            Some(("file", path)) if path.starts_with('/') => Ok(Self::File(path.into())),
            None if text == "any" => Ok(Self::Any),
            None if is_device(text) => Ok(Self::Device(text.to_owned())),
            _ => Err(wrong()),
        }
    }
}

serde_as_text!(Source);

/// The kernel's own rule (`dev_valid_name`), and no name that means something else to libpcap.
fn is_device(name: &str) -> bool {
    let special = NOT_NETWORK.iter().any(|special| name.starts_with(special)) || name == "nflog";
    let printable = name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/');
    !special && printable && (1..=LONGEST_NAME).contains(&name.len()) && name != "." && name != ".."
}

/// A text that names no source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceError(String);

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(text) = self;
        write!(
            f,
            "`{}` is no place to capture from; write an interface such as eth0, any, nflog:0 to nflog:65535, \
             or file:/path.pcap",
            text.escape_debug()
        )
    }
}

impl std::error::Error for SourceError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_reads_back_as_it_was_written() {
        for text in ["any", "eth0", "eth0.100", "wg-home", "nflog:5", "nflog:65535", "file:/tmp/a b.pcap"] {
            assert_eq!(text.parse::<Source>().unwrap().to_string(), text);
        }
        assert_eq!("any".parse(), Ok(Source::Any));
        assert_eq!("nflog:0".parse(), Ok(Source::Nflog(0)));
    }

    #[test]
    fn what_is_no_source_is_told_what_to_write() {
        for text in [
            "",
            ".",
            "..",
            "a/b",
            "eth 0",
            "a-name-too-long0",
            "nflog",
            "nflog:",
            "nflog:65536",
            "nflog:+1",
            "file:relative.pcap",
            "nfqueue",
            "nfqueue:1",
            "usbmon1",
            "eth0:1",
            "ether\u{0}",
        ] {
            assert_eq!(text.parse::<Source>(), Err(SourceError(text.into())), "{text}");
        }
    }
}
