//! What a worker does about certificates beside decoding knocks: it makes the authorities from the files in its
//! brief, remembers the numbers of their revocation lists, says what is wrong with them, and names what is revoked.

use std::path::Path;
use std::time::Duration;

use super::brief::{Brief, Bytes, Certificates};
use super::message::{MAX_REVOKED, Said};
use crate::crypto::KeyPair;
use crate::knock::cert::{Table, Trust};
use crate::knock::{ClientId, Freshness, Listener};
use crate::state::numbers;
use crate::time::Timestamp;
use crate::x509::chain::{Authorities, Numbers, Trouble};
use crate::x509::leaf::certificate_id;

/// How often what is wrong with a revocation list is said again.
const AGAIN: Duration = Duration::from_secs(3600);

/// How many faults of the files are told: a file can hold a hundred thousand.
const MAX_COMPLAINTS: usize = 10;

/// The worker's book about certificates.
#[derive(Default)]
pub(super) struct Desk {
    /// The client that each rule stands for, in the order of the rules.
    rules: Vec<ClientId>,
    announce: bool,
    /// What was said last, and when.
    said: Vec<Trouble>,
    said_at: Option<Timestamp>,
}

/// Where the numbers of revocation lists are remembered.
#[derive(Clone, Copy)]
pub(super) enum Memory<'a> {
    /// In this directory.
    Kept(&'a Path),
    /// The same, and it is left as it is: for a recording.
    Read(&'a Path),
    /// Nowhere.
    None,
}

impl<'a> Memory<'a> {
    fn read(self) -> (Numbers, Option<String>) {
        match self {
            Self::Kept(dir) | Self::Read(dir) => numbers::read(dir),
            Self::None => Default::default(),
        }
    }

    fn kept(self) -> Option<&'a Path> {
        if let Self::Kept(dir) = self { Some(dir) } else { None }
    }
}

/// Lets the listener hear knocks with certificates, if any are accepted; and says what is wrong with the files.
pub(super) fn listen(brief: &Brief, memory: Memory<'_>, listener: Listener) -> (Listener, Desk, Vec<String>) {
    let Some(certificates) = &brief.certificates else { return (listener, Desk::default(), Vec::new()) };
    let (desk, trust, complaints) = prepare(brief, certificates, memory);
    let server = KeyPair::from(brief.server_key.clone());
    (listener.with_certificates(server, &brief.gate_key, trust), desk, complaints)
}

/// Everything that the decoder needs, from the files in the brief; and what is wrong with them.
fn prepare(brief: &Brief, certificates: &Certificates, memory: Memory<'_>) -> (Desk, Trust, Vec<String>) {
    let (mut seen, damaged) = memory.read();
    let (authorities, mut complaints) = Authorities::new(
        &all(&certificates.authorities, crate::x509::certificates),
        &all(&certificates.lists, crate::x509::revocation_lists),
        &seen,
        certificates.grace.duration(),
    );
    if complaints.len() > MAX_COMPLAINTS {
        let more = complaints.split_off(MAX_COMPLAINTS).len();
        complaints.push(format!("and {more} more like these"));
    }
    complaints.extend(damaged);
    let accepted: Vec<_> = authorities.numbers().map(|(id, number)| (id, number.to_vec())).collect();
    if accepted.iter().any(|(id, number)| seen.get(id) != Some(number)) {
        seen.extend(accepted);
        if let Some(Err(error)) = memory.kept().map(|dir| numbers::write(dir, &seen)) {
            complaints.push(format!(
                "the numbers of revocation lists cannot be written ({error}): after a restart an older list would be taken"
            ));
        }
    }
    let rules: Vec<_> =
        certificates.rules.iter().filter_map(|(s, index)| Some((s, brief.clients.get(*index)?))).collect();
    let table = |(selector, client): &(&_, &super::brief::Client)| Table {
        selector: Clone::clone(*selector),
        freshness: Freshness { max_age: client.max_age.duration(), max_ahead: client.max_ahead.duration() },
    };
    let trust = Trust {
        authorities,
        leaves: all(&certificates.leaves, crate::x509::certificates),
        tables: rules.iter().map(table).collect(),
    };
    let clients = rules.iter().map(|(_, client)| client.id).collect();
    let desk = Desk { rules: clients, announce: certificates.announce, ..Desk::default() };
    (desk, trust, complaints)
}

fn all(files: &[Bytes], read: fn(&[u8]) -> Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    files.iter().flat_map(|file| read(&file.0)).collect()
}

impl Desk {
    /// The client that a rule stands for.
    pub(super) fn client(&self, rule: usize) -> Option<ClientId> {
        self.rules.get(rule).copied()
    }

    /// What is revoked, for a monitor that ends grants; in as few messages as there can be.
    pub(super) fn revoked(&self, listener: &Listener) -> Vec<Said> {
        let Some(authorities) = listener.authorities().filter(|_| self.announce) else { return Vec::new() };
        let ids: Vec<[u8; 8]> =
            authorities.revoked().map(|(issuer, serial)| certificate_id(issuer, serial)).collect();
        ids.chunks(MAX_REVOKED).map(|ids| Said::Revoked(ids.to_vec())).collect()
    }

    /// What there is to say about the authorities now: all that is new, and everything once an hour.
    pub(super) fn troubles(&mut self, listener: &Listener, now: Timestamp) -> Vec<String> {
        let Some(authorities) = listener.authorities() else { return Vec::new() };
        let troubles = authorities.troubles(now);
        let (kinds, sentences): (Vec<Trouble>, Vec<String>) = troubles.into_iter().unzip();
        let again = self.said_at.is_none_or(|at| now.since(at) >= AGAIN || now < at);
        if !again && kinds == self.said {
            return Vec::new();
        }
        (self.said, self.said_at) = (kinds, Some(now));
        sentences
    }

    /// Whether certificates of some authority are refused, or soon will be.
    pub(super) fn is_in_doubt(&self) -> bool {
        !self.said.is_empty()
    }

    /// How long until there may be something to say.
    pub(super) fn until_next(&self, listener: &Listener, now: Timestamp) -> Option<Duration> {
        let change = listener.authorities()?.next_change(now).map(|at| at.since(now));
        let again = self.said_at.filter(|_| self.is_in_doubt()).map(|at| AGAIN.saturating_sub(now.since(at)));
        // A second later than the moment itself, which still belongs to what was before.
        change.into_iter().chain(again).min().map(|left| left + Duration::from_secs(1))
    }
}
