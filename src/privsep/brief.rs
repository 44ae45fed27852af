//! The brief: everything that the monitor hands to a new worker, as JSON in one message.
//!
//! The worker reads no configuration: it gets what it needs, checked, and nothing else. Keys are wiped when the
//! brief is dropped.

use std::io;
use std::path::PathBuf;
use std::rc::Rc;

use base64ct::{Base64, Encoding};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use crate::config::Clock;
use crate::crypto::{PublicKey, Secret};
use crate::grant::{Grant, ProfileIndex};
use crate::knock::cert::Shown;
use crate::knock::{ClientId, Ground, Knock, Method};
use crate::policy::{Alike, Refusal, Rules, decide, decide_within};
use crate::state::Boot;
use crate::text::{Moment, PortRange, Span};
use crate::time::Timestamp;
use crate::x509::select::Selector;

/// What a worker needs to know.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Brief {
    /// Where to capture, as the configuration writes it.
    pub(super) device: String,
    /// The UDP port that knocks are sent to.
    pub(super) port: u16,
    /// The ports that sequences are played on.
    pub(super) ground: Ground,
    /// The server's static private key.
    pub(super) server_key: Secret<32>,
    /// The gate key.
    pub(super) gate_key: Secret<32>,
    /// The clients, in the order of their [`crate::grant::ProfileIndex`].
    pub(super) clients: Vec<Client>,
    /// Whose certificates are accepted, if any are.
    pub(super) certificates: Option<Certificates>,
    /// How far to believe the wall clock.
    pub(super) clock: Clock,
    /// How long knocks are refused when the replay state was lost.
    pub(super) quarantine: Span,
    /// Diffie-Hellman handshakes a second, altogether.
    pub(super) handshakes_per_second: u32,
    /// The same for one /32 or /56.
    pub(super) handshakes_per_source: u32,
    /// The folder of the journal of replay marks.
    pub(super) runtime_dir: PathBuf,
    /// The folder of the snapshot of replay marks.
    pub(super) state_dir: PathBuf,
    /// Which boot of the machine this is.
    pub(super) boot: Boot,
}

/// One client.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Client {
    /// Who it is.
    pub(super) id: ClientId,
    /// Its static public key; `None` where none of its methods needs one.
    pub(super) public_key: Option<PublicKey>,
    /// Its pre-shared key; all zero when it has none.
    pub(super) psk: Secret<32>,
    /// The keys that these have taken the place of, some of them still good.
    pub(super) previous: Vec<Previous>,
    /// The ways in which it may knock.
    pub(super) methods: Vec<Method>,
    /// How old a knock may be.
    pub(super) max_age: Span,
    /// How far ahead of this clock a knock may be.
    pub(super) max_ahead: Span,
    /// What it may open.
    pub(super) rules: Rules,
    /// Its fixed sequence, where it knocks by one.
    pub(super) plain: Option<Plain>,
    /// How many ports its sequences by the time have.
    pub(super) totp_ports: u8,
}

/// What is known of whoever knocks with some keys.
#[derive(Clone, Debug)]
pub(super) struct Known {
    /// The client's place in the brief.
    pub(super) index: ProfileIndex,
    /// What it may open; one value for all that may open the same.
    pub(super) rules: Rc<Rules>,
    /// Until when its keys are good, where they have been replaced.
    until: Option<Moment>,
}

impl Known {
    /// What the policy makes of a knock at this time.
    pub(super) fn decide(
        &self,
        shown: Option<&Shown>,
        knock: &Knock,
        at: Timestamp,
    ) -> Result<Grant, Refusal> {
        let decision = match shown {
            Some(shown) => decide_within(self.index, &self.rules, &shown.scope, knock, at),
            None => decide(self.index, &self.rules, knock, at),
        };
        match (decision, self.until) {
            (Err(Refusal::Expired { since }), Some(until)) if since == until => {
                Err(Refusal::Rotated { since })
            }
            (decision, _) => decision,
        }
    }
}

/// Keys that were replaced.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Previous {
    /// The client's static public key.
    pub(super) public_key: PublicKey,
    /// Its pre-shared key; all zero when it had none.
    pub(super) psk: Secret<32>,
    /// From when on they are refused.
    pub(super) until: Moment,
}

/// A fixed sequence of ports.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Plain {
    /// The ports in order.
    pub(super) ports: Vec<PortRange>,
    /// The longest pause between two knocks.
    pub(super) gap: Span,
    /// The longest time for all of them.
    pub(super) total: Span,
}

/// Knocks with certificates: files as they were read, and what they open.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Certificates {
    /// Files of authorities' certificates.
    pub(super) authorities: Vec<Bytes>,
    /// Files of revocation lists.
    pub(super) lists: Vec<Bytes>,
    /// Files of clients' certificates that are too large for a packet.
    pub(super) leaves: Vec<Bytes>,
    /// How long a list that is past its date still counts.
    pub(super) grace: Span,
    /// Whether the monitor is to hear of every revoked certificate, to end its grants.
    pub(super) announce: bool,
    /// Which certificates are for which of [`Brief::clients`], by index; the first that fits decides.
    pub(super) rules: Vec<(Selector, usize)>,
}

/// Bytes, as base64 in JSON.
#[derive(Debug)]
pub(super) struct Bytes(pub(super) Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&Base64::encode_string(&self.0))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Base64::decode_vec(&text).map(Self).map_err(D::Error::custom)
    }
}

impl Brief {
    /// Whom each knock belongs to, by the client that its keys name: the client's place, its rules, and until when those
    /// keys are good where others have taken their place.
    pub(super) fn known(&self) -> impl Iterator<Item = (ClientId, Known)> + '_ {
        let mut alike = Alike::default();
        let mut known = move |index, rules: Rules, until| Known {
            index: ProfileIndex(index),
            rules: alike.share(rules),
            until,
        };
        (0..).zip(&self.clients).flat_map(move |(index, client)| {
            let present = (client.id, known(index, client.rules.clone(), None));
            let previous = client.previous.iter().map(|keys| {
                let rules = client.rules.until(keys.until);
                (ClientId::from(keys.public_key), known(index, rules, Some(keys.until)))
            });
            std::iter::once(present).chain(previous).collect::<Vec<_>>()
        })
    }

    /// The clients that may knock in this way.
    pub(super) fn using(&self, method: Method) -> impl Iterator<Item = &Client> {
        self.clients.iter().filter(move |client| client.methods.contains(&method))
    }

    /// Whether any client may.
    pub(super) fn uses(&self, method: Method) -> bool {
        self.using(method).next().is_some()
    }

    /// The brief as bytes.
    ///
    /// # Errors
    /// Never in practice: every field has a JSON form.
    pub(super) fn encode(&self) -> io::Result<Zeroizing<Vec<u8>>> {
        Ok(Zeroizing::new(serde_json::to_vec(self)?))
    }

    /// Takes the bytes apart.
    ///
    /// # Errors
    /// `InvalidData` when they are no brief.
    pub(super) fn decode(bytes: &[u8]) -> io::Result<Self> {
        Ok(serde_json::from_slice(bytes)?)
    }
}

/// For the fuzzer: what is read is what would be written.
#[cfg(feature = "fuzzing")]
pub(super) fn check(bytes: &[u8]) {
    if let Ok(brief) = Brief::decode(bytes) {
        let written = brief.encode().unwrap_or_default();
        let again = Brief::decode(&written).and_then(|again| again.encode());
        assert!(again.is_ok_and(|again| again == written));
        assert!(brief.known().count() <= bytes.len());
    }
}
