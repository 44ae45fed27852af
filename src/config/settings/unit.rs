//! The names of systemd's units, as far as a service can have one: `postgresql.service`.
#![forbid(unsafe_code)]

use std::fmt;
use std::str::FromStr;

/// A unit that systemd can start and stop: a service, socket or target (`systemd.unit(5)`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnitName(String);

impl UnitName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UnitName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for UnitName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b":_.-@\\".contains(&byte);
        let stem = KINDS.iter().find_map(|kind| text.strip_suffix(kind));
        let is_unit = stem.is_some_and(|stem| {
            stem.starts_with(|first: char| first.is_ascii_alphanumeric())
                && stem.bytes().all(plain)
                // Without an instance a template is nothing that could be started.
                && !stem.ends_with('@')
        });
        if is_unit && text.len() <= MAX_LEN {
            return Ok(Self(text.to_owned()));
        }
        Err(format!(
            "`{}` is no unit that can be started; use its whole name, such as postgresql.service: a service, socket or \
             target",
            text.escape_debug()
        ))
    }
}

/// `UNIT_NAME_MAX` of systemd, without its zero.
const MAX_LEN: usize = 255;
const KINDS: [&str; 3] = [".service", ".socket", ".target"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_is_named_in_full() {
        for name in ["postgresql.service", "getty@tty1.service", "a\\x2db.socket", "backup-window.target"] {
            assert_eq!(name.parse::<UnitName>().map(|unit| unit.to_string()), Ok(name.to_owned()));
        }
        let long = format!("{}.service", "a".repeat(248));
        for name in
            ["", "postgresql", ".service", "-x.service", "a@.service", "a b.service", "../a.service", &long]
        {
            assert!(name.parse::<UnitName>().is_err(), "{name:?}");
        }
    }
}
