//! Distinguished names (RFC 5280, section 4.1.2.4), for people and for patterns.

use std::fmt;

use super::der::{Cursor, tag};

/// A distinguished name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// Its encoding, by which names are compared.
    pub der: Vec<u8>,
    /// Its parts in their own order, each as text: `O=Example`, with `+` between the values of one part.
    pub parts: Vec<String>,
}

impl Name {
    /// Reads an encoded name. `None` when it is none.
    #[must_use]
    pub fn read(der: &[u8]) -> Option<Self> {
        let mut parts = Vec::new();
        let mut sets = Cursor::only(der, tag::SEQUENCE)?;
        while !sets.is_done() {
            let mut set = sets.enter(tag::SET)?;
            let mut values = Vec::new();
            while !set.is_done() {
                let mut pair = set.enter(tag::SEQUENCE)?;
                let (kind, value) = (pair.expect(tag::OID)?, pair.any()?);
                pair.done()?;
                values.push(format!("{}={}", kind_name(kind.content), text(value.tag, value.content)));
            }
            parts.push(values.join("+"));
        }
        Some(Self { der: der.to_vec(), parts })
    }
}

/// `O=Example, CN=alice`: the parts in the certificate's own order, as `openssl x509 -subject` prints them.
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.parts.is_empty() {
            return f.write_str("(no subject)");
        }
        f.write_str(&self.parts.join(", "))
    }
}

/// The value as text. What separates parts is escaped as in RFC 4514, section 2.4, so that no value can pass for two
/// parts; what cannot be read aloud is written as hexadecimal.
fn text(kind: u8, value: &[u8]) -> String {
    let readable = matches!(kind, tag::UTF8 | tag::PRINTABLE | tag::IA5 | T61);
    match std::str::from_utf8(value) {
        Ok(value) if readable => {
            let mut text = String::with_capacity(value.len());
            for character in value.chars() {
                match character {
                    ',' | '+' | '\\' | '=' | '*' => text.extend(['\\', character]),
                    _ if character.is_control() => text.extend(character.escape_debug()),
                    _ => text.push(character),
                }
            }
            text
        }
        _ => format!("#{}", hex(value)),
    }
}

/// The short names that everybody knows (RFC 4519, RFC 2985), else the bytes of the object identifier.
fn kind_name(oid: &[u8]) -> String {
    let known = KINDS.iter().find(|(bytes, _)| *bytes == oid);
    known.map_or_else(|| format!("oid.{}", hex(oid)), |(_, name)| (*name).to_owned())
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// TeletexString, which old tools write for what is ASCII all the same.
const T61: u8 = 0x14;

const KINDS: &[(&[u8], &str)] = &[
    (&[0x55, 4, 3], "CN"),
    (&[0x55, 4, 5], "serialNumber"),
    (&[0x55, 4, 6], "C"),
    (&[0x55, 4, 7], "L"),
    (&[0x55, 4, 8], "ST"),
    (&[0x55, 4, 10], "O"),
    (&[0x55, 4, 11], "OU"),
    (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 1], "UID"),
    (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 25], "DC"),
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 1], "emailAddress"),
];
