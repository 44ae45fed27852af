//! Which certificates a rule is for: patterns over names, and hashes of keys.
//!
//! `*` stands for any characters within one part: of a name a value's text, of a URI what is between two slashes. A
//! URI pattern that ends in `/*` stands for everything below.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::leaf::Leaf;
use super::name::{Name, hex};
use crate::text::serde_as_text;

/// What a certificate has to be; what is `None` does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selector {
    /// Its issuer's name.
    pub issuer: Option<NamePattern>,
    /// Its subject.
    pub subject: Option<NamePattern>,
    /// One of its URIs.
    pub uri: Option<UriPattern>,
    /// The hash of its key.
    pub key: Option<KeyHash>,
}

impl Selector {
    /// Whether the certificate is all of that.
    #[must_use]
    pub fn matches(&self, leaf: &Leaf) -> bool {
        self.issuer.as_ref().is_none_or(|pattern| pattern.matches(&leaf.issuer))
            && self.subject.as_ref().is_none_or(|pattern| pattern.matches(&leaf.subject))
            && self.uri.as_ref().is_none_or(|pattern| leaf.uris.iter().any(|uri| pattern.matches(uri)))
            && self.key.is_none_or(|key| key.0 == leaf.key_sha256)
    }
}

/// A name with `*` in it: as many parts as the name has, in the same order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamePattern(Vec<String>);

impl NamePattern {
    /// Part by part, so that a value with a comma in it does not pass for two parts.
    #[must_use]
    pub fn matches(&self, name: &Name) -> bool {
        self.0.len() == name.parts.len()
            && self
                .0
                .iter()
                .zip(&name.parts)
                .all(|(pattern, part)| glob(pattern.as_bytes(), part.as_bytes(), None))
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(", "))
    }
}

impl FromStr for NamePattern {
    type Err = String;

    /// `O=Example, CN=*`, as `openssl x509 -subject -nameopt sep_comma_plus_space` prints it; blanks around `=` are no
    /// matter.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{}` is no name; write it like O=Example, CN=*", text.escape_debug());
        let mut parts = vec![String::new()];
        let mut characters = text.chars();
        while let Some(character) = characters.next() {
            match character {
                ',' => parts.push(String::new()),
                _ => {
                    let part = parts.last_mut().ok_or_else(wrong)?;
                    part.push(character);
                    if character == '\\' {
                        part.push(characters.next().ok_or_else(wrong)?);
                    }
                }
            }
        }
        let part = |part: &String| {
            let (kind, value) = part.split_once('=')?;
            let (kind, value) = (tidy(kind), tidy(value));
            (!kind.is_empty() && !value.is_empty()).then(|| format!("{kind}={value}"))
        };
        parts.iter().map(part).collect::<Option<_>>().map(Self).ok_or_else(wrong)
    }
}

serde_as_text!(NamePattern);

/// Without the blanks around it; one that a backslash stands before is none of them.
fn tidy(text: &str) -> &str {
    let text = text.trim_start();
    let bare = text.trim_end();
    let backslashes = bare.bytes().rev().take_while(|byte| *byte == b'\\').count();
    let escaped =
        text.get(bare.len()..).and_then(|rest| rest.chars().next()).filter(|_| backslashes % 2 == 1);
    text.get(..bare.len() + escaped.map_or(0, char::len_utf8)).unwrap_or(bare)
}

/// A URI with `*` in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UriPattern(String);

impl UriPattern {
    /// Whether this URI is one of those.
    #[must_use]
    pub fn matches(&self, uri: &str) -> bool {
        match self.0.strip_suffix("/*") {
            Some(above) => {
                let slashes = above.bytes().filter(|byte| *byte == b'/').count() + 1;
                let end = uri.bytes().enumerate().filter(|(_, byte)| *byte == b'/').nth(slashes - 1);
                let Some((end, _)) = end else { return false };
                uri.len() > end + 1
                    && glob(above.as_bytes(), uri.as_bytes().get(..end).unwrap_or_default(), Some(b'/'))
            }
            None => glob(self.0.as_bytes(), uri.as_bytes(), Some(b'/')),
        }
    }
}

impl fmt::Display for UriPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for UriPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let scheme = text.split_once(':').map(|(scheme, _)| scheme);
        match scheme {
            Some(scheme) if scheme.eq_ignore_ascii_case("knock") => {
                Err("`knock:` URIs say what may be opened, not who; use another URI of the certificate"
                    .to_owned())
            }
            Some(scheme) if !scheme.is_empty() && !scheme.contains('*') && text.is_ascii() => {
                Ok(Self(text.to_owned()))
            }
            _ => Err(format!(
                "`{}` is no URI; write it like spiffe://example.org/staff/*",
                text.escape_debug()
            )),
        }
    }
}

serde_as_text!(UriPattern);

/// SHA-256 of a `SubjectPublicKeyInfo`, in hexadecimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyHash(pub [u8; 32]);

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl FromStr for KeyHash {
    type Err = String;

    /// 64 digits, or pairs with colons between them.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{}` is no SHA-256; use 64 hexadecimal digits", text.escape_debug());
        let digits: Vec<char> = text.chars().filter(|character| *character != ':').collect();
        let mut hash = [0; 32];
        if digits.len() != 64 {
            return Err(wrong());
        }
        for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
            let digit = |at: usize| pair.get(at).and_then(|digit| digit.to_digit(16));
            let value = digit(0).zip(digit(1)).and_then(|(high, low)| u8::try_from(high << 4 | low).ok());
            *byte = value.ok_or_else(wrong)?;
        }
        Ok(Self(hash))
    }
}

serde_as_text!(KeyHash);

/// Whether `text` is what `pattern` describes; `*` stands for any bytes but `border`. One pass with one place to go
/// back to, so that no pattern takes more than length times length.
fn glob(pattern: &[u8], text: &[u8], border: Option<u8>) -> bool {
    let (mut at, mut next) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while next < text.len() {
        let byte = text.get(next);
        match pattern.get(at) {
            // A backslash takes the star its meaning, as it does in the name's own text.
            Some(b'\\')
                if pattern.get(at + 1).is_some()
                    && byte == Some(&b'\\')
                    && pattern.get(at + 1) == text.get(next + 1) =>
            {
                (at, next) = (at + 2, next + 2);
                continue;
            }
            Some(b'*') => {
                star = Some((at, next));
                at += 1;
                continue;
            }
            wanted if wanted.is_some() && wanted == byte => {
                (at, next) = (at + 1, next + 1);
                continue;
            }
            _ => {}
        }
        match star {
            Some((place, taken)) if border.is_none() || text.get(taken) != border.as_ref() => {
                star = Some((place, taken + 1));
                (at, next) = (place + 1, taken + 1);
            }
            _ => return false,
        }
    }
    pattern.get(at..).is_some_and(|rest| rest.iter().all(|byte| *byte == b'*'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uri(pattern: &str, uri: &str) -> bool {
        pattern.parse::<UriPattern>().unwrap().matches(uri)
    }

    fn name(pattern: &str, parts: &[&str]) -> bool {
        let parts = parts.iter().map(|part| (*part).to_owned()).collect();
        pattern.parse::<NamePattern>().unwrap().matches(&Name { der: Vec::new(), parts })
    }

    #[test]
    fn a_star_in_a_uri_stays_between_its_slashes() {
        assert!(uri("spiffe://example.org/staff/alice", "spiffe://example.org/staff/alice"));
        assert!(uri("spiffe://*/staff", "spiffe://example.org/staff"));
        assert!(!uri("spiffe://*.example.org/staff", "spiffe://evil.org/x.example.org/staff"));
        assert!(!uri("spiffe://example.org/staff", "spiffe://example.org/staff/alice"));
    }

    #[test]
    fn a_uri_pattern_that_ends_in_a_star_is_for_everything_below() {
        assert!(uri("spiffe://example.org/*", "spiffe://example.org/staff/alice"));
        assert!(!uri("spiffe://example.org/*", "spiffe://example.org/"));
        assert!(!uri("spiffe://example.org/*", "spiffe://example.org.evil.net/staff"));
        assert!(!uri("spiffe://example.org/*", "spiffe://other.org/example.org/x"));
    }

    #[test]
    fn a_name_is_matched_part_by_part() {
        assert!(name("O=Example, CN=*", &["O=Example", "CN=alice"]));
        assert!(name("O = Example,CN = al*e", &["O=Example", "CN=alice"]));
        assert!(!name("O=Example, CN=*", &["O=Example", "OU=x", "CN=alice"]));
        assert!(!name("O=Example, CN=*", &["CN=alice\\, O\\=Example"]));
        assert!(!name("CN=*", &["CN=alice", "O=Example"]));
        assert!(name("CN=a\\,b", &["CN=a\\,b"]));
        assert!(!name("CN=\\*", &["CN=alice"]));
    }

    #[test]
    fn a_blank_at_the_end_that_is_escaped_is_a_part_of_the_pattern_and_no_backslash_is_left_over() {
        for (text, printed) in
            [("CN = a\\ , O=b ", "CN=a\\ , O=b"), ("CN=a\\\\ ", "CN=a\\\\"), ("CN=\\\t", "CN=\\\t")]
        {
            let pattern: NamePattern = text.parse().unwrap();
            assert_eq!(pattern.to_string(), printed);
            assert_eq!(printed.parse(), Ok(pattern));
        }
    }

    #[test]
    fn a_slow_pattern_is_as_quick_as_any() {
        let text = "a".repeat(2000);
        assert!(!glob(format!("{}b", "a*".repeat(500)).as_bytes(), text.as_bytes(), None));
    }

    #[test]
    fn what_is_no_pattern_says_how_to_write_one() {
        assert!("alice".parse::<NamePattern>().unwrap_err().contains("O=Example, CN=*"));
        assert!("knock:tcp/22".parse::<UriPattern>().unwrap_err().contains("not who"));
        assert!("*".parse::<UriPattern>().is_err());
        assert!("00:11".parse::<KeyHash>().is_err());
        let hash: KeyHash = "0f".repeat(32).parse().unwrap();
        assert_eq!((hash.0, hash.to_string().parse()), ([0x0f; 32], Ok(hash)));
    }
}
