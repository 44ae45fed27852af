//! `expires` and `[[previous]]` of a profile: until when its client may knock, and until when with keys that others have
//! taken the place of.
#![forbid(unsafe_code)]

use super::{psk, public_key};
use crate::config::{Table, value};
use crate::crypto::{Psk, PublicKey};
use crate::text::Moment;

/// Keys that a rotation has replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Previous {
    /// The client's key.
    pub public_key: PublicKey,
    /// The secret shared with it besides; all-zero when there was none.
    pub psk: Psk,
    /// From when on they are refused.
    pub until: Moment,
}

/// How many pairs of keys a profile may have besides the present ones.
pub const MAX_PREVIOUS: usize = 4;

/// `[[previous]]`; what is wrong with a table leaves it out.
pub(super) fn previous(table: &Table<'_>) -> Vec<Previous> {
    let tables = table.tables("previous", PREVIOUS_KEYS, MAX_PREVIOUS);
    let read = |table: &Table<'_>| {
        let until = table.parsed("until", MOMENT_HINT).map(value);
        if !table.has("until") {
            table.missing("until", MOMENT_HINT);
        }
        Some(Previous { public_key: public_key(table)?, psk: psk(table), until: until? })
    };
    tables.iter().filter_map(read).collect()
}

/// `expires`.
pub(super) fn expires(table: &Table<'_>) -> Option<Moment> {
    table.parsed("expires", MOMENT_HINT).map(value)
}

const MOMENT_HINT: &str = "use a date or a time in UTC, in quotes: \"2027-01-31\", \"2027-01-31T12:00:00Z\"";
const PREVIOUS_KEYS: &[&str] = &["public_key", "psk", "until"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Freshness, Report, Syntax};
    use crate::profile::{Profile, Server, read};

    const KEY: &str = "kzHlnvzm4iFRnA8ol8mM6ZW4WYVZ7aTPoM7CYzyD+kM=";
    const OTHER: &str = "mC8gYf6IZBBBSLmnJG4tYFQ8jJlTa3mJmpVUiVwXEz0=";

    fn parsed(rest: &str) -> (Option<Profile>, Vec<String>) {
        let text = format!("public_key = \"{KEY}\"\nopen = [\"tcp/22\"]\n{rest}");
        let report = Report::new("f");
        let server = Server { services: None, freshness: Freshness::default() };
        let found = read("laptop".parse().unwrap(), &text, Syntax::Toml, server, &report);
        let errors = report.into_parts().0.iter().map(ToString::to_string).collect();
        (found.map(|read| read.profile), errors)
    }

    #[test]
    fn a_profile_says_until_when_it_and_its_older_keys_are_good() {
        let rest = format!(
            "expires = \"2027-01-31\"\n[[previous]]\npublic_key = \"{OTHER}\"\nuntil = \"2026-12-01T00:00:00Z\"\n"
        );
        let (profile, errors) = parsed(&rest);
        assert_eq!(errors, [""; 0]);
        let profile = profile.unwrap();
        assert_eq!(profile.expires, Some("2027-02-01T00:00:00Z".parse().unwrap()));
        let expected = Previous {
            public_key: OTHER.parse().unwrap(),
            psk: Psk::new([0; 32]),
            until: "2026-12-01T00:00:00Z".parse().unwrap(),
        };
        assert_eq!(profile.previous, [expected]);
        let (plain, _) = parsed("");
        assert!(plain.is_some_and(|profile| profile.expires.is_none() && profile.previous.is_empty()));
    }

    #[test]
    fn what_is_no_moment_and_what_lacks_one_is_named_with_its_line() {
        let (_, errors) = parsed("expires = 2027-01-31\n");
        assert_eq!(errors, [format!("f:3: expires: is a date; {MOMENT_HINT}")]);
        let (_, errors) = parsed("expires = \"soon\"\n");
        assert!(
            errors.len() == 1 && errors[0].starts_with("f:3: expires: `soon` is no moment;"),
            "{errors:?}"
        );
        let (_, errors) = parsed(&format!("[[previous]]\npublic_key = \"{OTHER}\"\n"));
        assert!(errors.len() == 1 && errors[0].contains("previous[0].until: is missing"), "{errors:?}");
        let five = format!("[[previous]]\npublic_key = \"{OTHER}\"\nuntil = \"2027-01-31\"\n").repeat(5);
        let (_, errors) = parsed(&five);
        assert!(errors.len() == 1 && errors[0].ends_with("5 tables; use at most 4"), "{errors:?}");
    }
}
