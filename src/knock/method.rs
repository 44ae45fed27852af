//! The ways to knock, who knocks, and under which name the last knock of each way is remembered.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::crypto::{PublicKey, sha256};
use crate::text::{ProfileName, serde_as_text};

/// A way to knock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Method {
    /// One encrypted datagram.
    Spa,
    /// One TCP SYN that carries a code in its naturally random fields.
    Syn,
    /// A request encoded in a sequence of ports.
    Sequence,
    /// A sequence of ports derived from a shared key and the time.
    Totp,
    /// A fixed sequence of ports, which anybody who sees it can repeat.
    Plain,
    /// One encrypted datagram, signed with an X.509 certificate.
    Cert,
}

impl Method {
    /// Every way there is, with its name.
    pub const ALL: [(&str, Self); 6] = [
        ("spa", Self::Spa),
        ("syn", Self::Syn),
        ("sequence", Self::Sequence),
        ("totp", Self::Totp),
        ("plain", Self::Plain),
        ("cert", Self::Cert),
    ];

    /// Its name in configuration and log.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, method)| *method == self).map_or("", |(name, _)| name)
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Method {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.iter().find(|(name, _)| *name == text);
        found.map(|(_, method)| *method).ok_or_else(|| {
            let names: Vec<String> = Self::ALL.iter().map(|(name, _)| format!("\"{name}\"")).collect();
            format!("`{}` is no method; use {}", text.escape_debug(), names.join(", "))
        })
    }
}

serde_as_text!(Method);

/// Who knocks: the static public key of a profile, or what stands for it where there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ClientId(pub [u8; 32]);

impl ClientId {
    /// The client of a profile without a key: `SHA256("knockd-rs profile" || name)`.
    #[must_use]
    pub fn named(profile: &ProfileName) -> Self {
        Self(sha256(&[b"knockd-rs profile", profile.as_str().as_bytes()]))
    }
}

impl From<PublicKey> for ClientId {
    fn from(key: PublicKey) -> Self {
        Self(key.0)
    }
}

/// Under which name a client's last counter is kept. Methods count apart from each other: their counters have
/// different steps, and a knock of one kind must not make one of another kind too old.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MarkKey(pub [u8; 32]);

impl MarkKey {
    /// For `spa` the client's own 32 bytes; for every other method `SHA256("knockd-rs mark" || method || client)`.
    #[must_use]
    pub fn new(client: ClientId, method: Method) -> Self {
        match method {
            Method::Spa => Self(client.0),
            _ => Self(sha256(&[b"knockd-rs mark", method.name().as_bytes(), &client.0])),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_reads_back_by_its_name() {
        for (name, method) in Method::ALL {
            assert_eq!((name.parse(), method.to_string().as_str()), (Ok(method), name));
        }
        let error = "telepathy".parse::<Method>().unwrap_err();
        assert!(error.starts_with("`telepathy` is no method; use \"spa\", \"syn\""), "{error}");
    }

    #[test]
    fn each_method_of_a_client_counts_for_itself_and_spa_as_ever() {
        let client = ClientId([7; 32]);
        let keys: std::collections::HashSet<MarkKey> =
            Method::ALL.iter().map(|(_, method)| MarkKey::new(client, *method)).collect();
        assert_eq!(keys.len(), Method::ALL.len());
        assert_eq!(MarkKey::new(client, Method::Spa), MarkKey([7; 32]));
    }
}
