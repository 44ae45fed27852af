//! A packet's way up to its outcome, built from a [`Brief`]: the kernel's filter, the listener, and what is done with
//! each frame. The worker and `explain` go by this, so that the one does what the other says.
#![forbid(unsafe_code)]

use std::num::NonZeroU32;

use super::brief::{Brief, Client, Previous};
use crate::capture::{Filter, Frame};
use crate::crypto::{KeyPair, Psk, PublicKey};
use crate::frame::{self, Refused, Segment};
use crate::knock::spa::{ClientKeys, MAX_LEN, MIN_LEN, PAYLOAD_STEP};
use crate::knock::{
    Freshness, Knock, Listener, Method, Outcome, Rates, ServiceTag, cert, plain, sequence, syn, totp,
};
use crate::text::{PortRange, Protocol};
use crate::time::{ClockTrust, Now, Timestamp};

/// What became of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seen<'a> {
    /// It holds no segment.
    NoSegment(Refused),
    /// No method in use would knock so.
    NoCandidate(Segment<'a>),
    /// It was listened to.
    Heard(Segment<'a>, Outcome),
}

/// From frame to outcome.
pub(crate) fn see<'a>(frame: &Frame<'a>, filter: &Filter, now: Now, listener: &mut Listener) -> Seen<'a> {
    match frame::parse(frame.link, frame.bytes, frame.wire_len) {
        Err(reason) => Seen::NoSegment(reason),
        // The kernel's filter is a sieve: IPv6 extension headers and NFLOG come through whole.
        Ok(segment) if !filter.admits(&segment) => Seen::NoCandidate(segment),
        Ok(segment) => Seen::Heard(segment, listener.receive(&segment, now)),
    }
}

/// The time by which a profile's end is judged. A clock that shows less than the date of this program is wrong, and one
/// that nobody vouches for is, when the client says that it is later: whoever is to be kept out gains nothing by that.
pub(crate) fn time_of(knock: &Knock, now: Now, built: Timestamp) -> Timestamp {
    let said = Some(knock.counter).filter(|_| now.trust == ClockTrust::Unsynchronised);
    now.wall.max(built).max(said.unwrap_or_default())
}

/// What the kernel is to let through: what a knock by the methods in use looks like.
pub(crate) fn filter(brief: &Brief) -> Filter {
    let len = |len: usize| u16::try_from(len).unwrap_or(u16::MAX);
    let mut filter = Filter::default();
    if brief.uses(Method::Spa) {
        filter = filter.datagrams(brief.port, len(MIN_LEN)..=len(MAX_LEN), len(PAYLOAD_STEP));
    }
    if let (true, Ok(port)) = (brief.uses(Method::Syn), PortRange::single(Protocol::Tcp, brief.port)) {
        filter = filter.ports(port);
    }
    if brief.certificates.is_some() {
        // The same lengths as those of spa, and no others.
        filter = filter.datagrams(brief.port, len(cert::MIN_LEN)..=len(cert::MAX_LEN), len(cert::STEP));
    }
    for plain in brief.using(Method::Plain).filter_map(|client| client.plain.as_ref()) {
        filter = plain.ports.iter().fold(filter, |filter, port| filter.ports(*port));
    }
    if brief.uses(Method::Totp) || brief.uses(Method::Sequence) {
        let of_protocol = |protocol| {
            let ranges = brief.ground.ranges();
            ranges.into_iter().filter_map(move |(first, last)| PortRange::new(protocol, first, last).ok())
        };
        filter = [Protocol::Tcp, Protocol::Udp].into_iter().flat_map(of_protocol).fold(filter, Filter::ports);
    }
    filter
}

/// A decoder for each method that some client may use, which knows those clients alone.
///
/// - `seed`: 16 random bytes for its hash tables.
/// - `built`: when this program was built; a wall clock that shows less is not believed.
pub(crate) fn listener(brief: &Brief, seed: [u8; 16], built: Timestamp) -> Listener {
    let server = KeyPair::from(brief.server_key.clone());
    let one = NonZeroU32::MIN;
    let rates = Rates {
        all: NonZeroU32::new(brief.handshakes_per_second).unwrap_or(one),
        source: NonZeroU32::new(brief.handshakes_per_source).unwrap_or(one),
    };
    let mut listener = Listener::new(rates, seed, built);
    let members = members(brief);
    if !members.is_empty() {
        listener = listener.with_syn(brief.port, &members);
    }
    if brief.uses(Method::Plain) {
        listener = listener.with_plain(brief.using(Method::Plain).filter_map(plain_sequence));
    }
    if brief.uses(Method::Totp) {
        let keys = brief.using(Method::Totp).flat_map(|client| totp_keys(client, &server));
        listener = listener.with_totp(brief.ground.clone(), keys);
    }
    if brief.uses(Method::Sequence) {
        let clients = brief.using(Method::Sequence).flat_map(sequence_keys);
        listener = listener.with_sequence(&server, &brief.gate_key, brief.ground.clone(), clients);
    }
    if brief.uses(Method::Spa) {
        listener = listener.with_spa(server, &brief.gate_key, brief.using(Method::Spa).flat_map(client_keys));
    }
    listener
}

/// The clients that knock with SYNs, in the order of their codes.
pub(crate) fn members(brief: &Brief) -> Vec<syn::Member> {
    brief.using(Method::Syn).flat_map(member).collect()
}

/// The keys of a client: those that it has, and those that they have taken the place of.
fn keys(client: &Client) -> impl Iterator<Item = (PublicKey, Psk)> + '_ {
    let present = client.public_key.map(|public| (public, client.psk.clone()));
    let previous = client.previous.iter().map(|Previous { public_key, psk, .. }| (*public_key, psk.clone()));
    present.into_iter().chain(previous)
}

fn services(client: &Client) -> Vec<ServiceTag> {
    client.rules.services.keys().copied().collect()
}

fn freshness(client: &Client) -> Freshness {
    Freshness { max_age: client.max_age.duration(), max_ahead: client.max_ahead.duration() }
}

fn member(client: &Client) -> impl Iterator<Item = syn::Member> + '_ {
    keys(client).map(|(public, psk)| syn::Member {
        client: public.into(),
        public,
        psk,
        services: services(client),
    })
}

fn client_keys(client: &Client) -> impl Iterator<Item = ClientKeys> + '_ {
    keys(client).map(|(public, psk)| ClientKeys { public, psk, freshness: freshness(client) })
}

fn sequence_keys(client: &Client) -> impl Iterator<Item = sequence::ClientKeys> + '_ {
    keys(client).map(|(public, psk)| sequence::ClientKeys {
        public,
        psk,
        freshness: freshness(client),
        services: services(client),
    })
}

fn plain_sequence(client: &Client) -> Option<plain::Sequence> {
    let plain = client.plain.as_ref()?;
    Some(plain::Sequence {
        client: client.id,
        knocks: plain.ports.clone(),
        gap: plain.gap.duration(),
        total: plain.total.duration(),
    })
}

fn totp_keys(client: &Client, server: &KeyPair) -> Vec<totp::ClientKeys> {
    let keys = keys(client).filter_map(|(public, psk)| {
        let key = totp::key(server, &public, &psk)?;
        Some(totp::ClientKeys { client: public.into(), key, ports: client.totp_ports })
    });
    keys.collect()
}
