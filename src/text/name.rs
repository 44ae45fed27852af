//! `laptop`, `ssh`, `server.example.org`: the names people give to profiles, services and servers. They become
//! file names, log fields and comments in the kernel, so they are short and need no quoting anywhere.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use super::serde_as_text;

/// Defines one kind of name: its length, and what else is asked of it.
macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $max:literal, $extra:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// The longest name, in characters.
            pub const MAX: usize = $max;

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                // Not `write_str`: tables of people are padded.
                f.pad(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                check(text, Self::MAX)?;
                let extra: fn(&str) -> Result<(), NameError> = $extra;
                extra(text)?;
                Ok(Self(text.to_owned()))
            }
        }

        serde_as_text!($name);
    };
}

name! {
    /// The name of a client known to the server: `laptop`. Neither `all` nor an IP address, since
    /// `knockd-rs revoke` takes those in the same place.
    ProfileName, 32, |text| match text {
        "all" => Err(NameError::Reserved(text.to_owned())),
        _ if text.parse::<IpAddr>().is_ok() => Err(NameError::Address(text.to_owned())),
        _ => Ok(()),
    }
}

name! {
    /// The name of a set of ports: `ssh`. It has a letter, so that a bare port number is never taken for one.
    ServiceName, 32, |text| match text.bytes().any(|byte| byte.is_ascii_lowercase()) {
        true => Ok(()),
        false => Err(NameError::Number(text.to_owned())),
    }
}

name! {
    /// What a client calls a server: `home`, `server.example.org`, `192.0.2.7`.
    ServerName, 64, |_| Ok(())
}

/// One character of `a-z0-9`, then more of those and of `._-`.
fn check(text: &str, max: usize) -> Result<(), NameError> {
    let unreadable = || NameError::Unreadable { text: text.to_owned(), max };
    let plain = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    match text.as_bytes().split_first() {
        Some((first, rest))
            if plain(first)
                && rest.len() < max
                && rest.iter().all(|byte| plain(byte) || matches!(byte, b'.' | b'_' | b'-')) =>
        {
            Ok(())
        }
        _ => Err(unreadable()),
    }
}

/// Why a text is no name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NameError {
    /// Too long, empty, or with characters that names do not have.
    Unreadable {
        /// What was written.
        text: String,
        /// The longest name there.
        max: usize,
    },
    /// A word that commands use for something else.
    Reserved(String),
    /// An IP address, which commands accept in the same place.
    Address(String),
    /// No letter in it, so that it reads like a port number.
    Number(String),
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { text, max } => write!(
                f,
                "`{}` is no name; use 1 to {max} characters of a-z 0-9 . _ -, beginning with a letter or digit",
                text.escape_debug()
            ),
            Self::Reserved(text) => write!(f, "the name `{text}` means every profile; choose another"),
            Self::Address(text) => write!(f, "the name `{text}` is an IP address; choose another"),
            Self::Number(text) => write!(f, "the name `{text}` has no letter; choose another"),
        }
    }
}

impl std::error::Error for NameError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back_as_they_were_written() {
        for text in ["laptop", "0ne", "a.b_c-d", &"x".repeat(32)] {
            assert_eq!(text.parse::<ProfileName>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_needs_quoting_somewhere_is_no_name() {
        for text in ["", ".hidden", "-rf", "Laptop", "a b", "a/b", "\u{e4}", "a\n", &"x".repeat(33)] {
            assert!(matches!(text.parse::<ProfileName>(), Err(NameError::Unreadable { .. })), "{text:?}");
        }
    }

    #[test]
    fn a_name_is_never_mistaken_for_something_else_on_the_command_line() {
        assert_eq!("all".parse::<ProfileName>(), Err(NameError::Reserved("all".into())));
        assert_eq!("10.0.0.1".parse::<ProfileName>(), Err(NameError::Address("10.0.0.1".into())));
        assert_eq!("22".parse::<ServiceName>(), Err(NameError::Number("22".into())));
        assert!("10.0.0.1".parse::<ServerName>().is_ok());
    }
}
