//! `syn`: one TCP SYN to the closed knock port. The two fields of it that look random anyway carry a code that is good
//! once; everything else is what the client's kernel sends.
//!
//! ```text
//! TCP header (RFC 9293 section 3.1)          code, 8 bytes
//! off  len  field                            0  4  the initial sequence number
//! 4    4    sequence number  = code[0..4]    4  4  TSval of the timestamp option (RFC 7323 section 3.2)
//! opt  4    TSval            = code[4..8]
//!
//! K_syn = HKDF(X25519(client, server) || psk, "knockd-rs v1 syn")
//! code(step, slot, service) = HMAC(K_syn, "syn" || step (8) || slot (1) || service tag (4))[0..8]
//! step = unix time / 30 s; slot = 0..3; service tag = 0 for everything that the profile opens
//! ```
//!
//! All integers are big-endian. The acknowledgement number, window, options and their order, TTL and flags carry
//! nothing, or they would give the knock away; the source port carries nothing, since NAT rewrites it.
//!
//! The server has all codes of the steps before, at and after its clock ready in [`Table`]s. A SYN is looked up in
//! three of them: no cryptography on the packet's way, however hard the port is flooded. The tables are computed
//! elsewhere and handed in by `Decoder::install`: with 100,000 clients one takes a tenth of a second.

mod table;

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::crypto::{KeyPair, Keyed, Psk, PublicKey, Secret, code, derive, keyed};
use crate::frame::Syn;
use crate::session::Session;
use crate::time::Timestamp;

use super::hash::Seeded;
use super::{Ask, Authentic, ClientId, Drop, Method, Op, ServiceTag, Target, Wanted};

pub use table::{BYTES_PER_CODE, Table};

/// How long the codes of one step are made for.
pub const STEP: Duration = Duration::from_secs(30);
/// How often a client can knock in one step.
pub const SLOTS: u8 = 4;
/// How many steps the server accepts before and after its own.
pub const LEEWAY: u64 = 1;

/// A client's place in time: no two knocks of it are made at one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slot {
    /// The number of the step.
    pub step: u64,
    /// The place in it, below [`SLOTS`].
    pub slot: u8,
}

impl Slot {
    /// The counter that stands for it: the slots of a step, spread over its time.
    #[must_use]
    pub fn counter(self) -> Timestamp {
        let since = STEP * u32::from(self.slot) / u32::from(SLOTS);
        Timestamp::from_secs(self.step.saturating_mul(STEP.as_secs())).saturating_add(since)
    }

    /// The slot of a counter that [`counter`](Self::counter) made.
    #[must_use]
    pub fn of(counter: Timestamp) -> Self {
        let step = step_of(counter);
        let since = counter.since(Self { step, slot: 0 }.counter());
        let slot = since.as_millis() * u128::from(SLOTS) / STEP.as_millis();
        Self { step, slot: u8::try_from(slot).unwrap_or(0).min(SLOTS - 1) }
    }

    /// The slot of a client's next knock: the first of the present step, or the one after its last.
    ///
    /// # Errors
    /// How long to wait, when so many knocks were made that the server would not know the next code yet. A last slot
    /// farther ahead than that was made by a wrong clock, and is not gone on from.
    pub fn next(now: Timestamp, last: Option<Self>) -> Result<Self, Duration> {
        let first = Self { step: step_of(now), slot: 0 };
        let Some(last) = last.filter(|last| *last >= first && last.step <= first.step + LEEWAY) else {
            return Ok(first);
        };
        let next = match last.slot + 1 {
            SLOTS => Self { step: last.step + 1, slot: 0 },
            slot => Self { slot, ..last },
        };
        // One step ahead is what the server accepts; half of that is left for its clock.
        if next.step <= first.step + LEEWAY {
            return Ok(next);
        }
        Err(Self { step: first.step + 1, slot: 0 }.counter().since(now))
    }
}

/// The step that a time is in.
#[must_use]
pub fn step_of(time: Timestamp) -> u64 {
    time.as_secs() / STEP.as_secs()
}

/// The key of a client's codes, taken in.
#[derive(Clone)]
pub struct CodeKey(Keyed);

impl CodeKey {
    /// - `shared`: the X25519 secret of the two static keys.
    #[must_use]
    pub fn new(shared: &Secret<32>, psk: &Psk) -> Self {
        Self(keyed(derive(shared, psk, b"knockd-rs v1 syn").expose()))
    }

    /// The fields of the SYN that knocks for `service`, or for everything that the profile opens.
    #[must_use]
    pub fn pack(&self, slot: Slot, service: Option<ServiceTag>) -> Syn {
        let [s0, s1, s2, s3, t0, t1, t2, t3] = self.code(slot, service).to_be_bytes();
        Syn {
            sequence: u32::from_be_bytes([s0, s1, s2, s3]),
            timestamp: Some(u32::from_be_bytes([t0, t1, t2, t3])),
        }
    }

    fn code(&self, slot: Slot, service: Option<ServiceTag>) -> u64 {
        let tag = service.map_or([0; 4], |tag| tag.0);
        let code = code(&self.0, &[b"syn", &slot.step.to_be_bytes(), &[slot.slot], &tag]);
        code.expose().first_chunk().copied().map_or(0, u64::from_be_bytes)
    }
}

/// A client that may knock in this way.
#[derive(Clone, Debug)]
pub struct Member {
    /// Who it is.
    pub client: ClientId,
    /// Its static public key.
    pub public: PublicKey,
    /// The key shared with it; zeros where there is none.
    pub psk: Psk,
    /// The services that its profile opens.
    pub services: Vec<ServiceTag>,
}

impl Member {
    /// What its codes can ask for: everything, and each service.
    fn requests(&self) -> impl Iterator<Item = Option<ServiceTag>> + '_ {
        std::iter::once(None).chain(self.services.iter().copied().map(Some))
    }
}

/// The keys of all clients: what tables are computed from.
pub struct Book(Vec<(CodeKey, Vec<Option<ServiceTag>>)>);

impl Book {
    /// One X25519 for each client: with 100,000 of them this takes seconds.
    #[must_use]
    pub fn new(server: &KeyPair, members: &[Member]) -> Self {
        let entry = |member: &Member| {
            // A key of small order shares no secret: its codes are made of random-looking zeros that nobody is told,
            // so that every other client keeps its place in the list.
            let shared = server.agree(&member.public)?;
            Some((CodeKey::new(&shared, &member.psk), member.requests().collect()))
        };
        Self(members.iter().map(|member| entry(member).unwrap_or_else(|| unusable(server, member))).collect())
    }

    /// All codes of one step.
    #[must_use]
    pub fn table(&self, step: u64) -> Table {
        let mut codes = Vec::new();
        let mut request: u32 = 0;
        for (key, services) in &self.0 {
            for service in services {
                for slot in 0..SLOTS {
                    let whose = request.saturating_mul(u32::from(SLOTS)) + u32::from(slot);
                    codes.push((key.code(Slot { step, slot }, *service), whose));
                }
                request += 1;
            }
        }
        Table::new(step, codes)
    }
}

/// Codes that nobody can make, for a client whose key is of small order: from the server's private key alone.
fn unusable(server: &KeyPair, member: &Member) -> (CodeKey, Vec<Option<ServiceTag>>) {
    let key = CodeKey::new(server.secret(), &Secret::new(member.client.0));
    (key, member.requests().collect())
}

/// SYNs in, requests out, without cryptography.
///
/// Memory: [`BYTES_PER_CODE`] bytes a code, in four tables here and four that are made ahead; a client has [`SLOTS`] codes in each, and as many
/// more for every service that its profile names. Besides that, the codes that were used in these steps.
pub(super) struct Decoder {
    /// Whose the requests are, in the order of [`Book::table`].
    requests: Vec<(ClientId, Option<ServiceTag>)>,
    tables: Vec<Table>,
    hash: Seeded,
}

impl Decoder {
    pub(super) fn new(members: &[Member], hash: Seeded) -> Self {
        let of = |member: &Member| -> Vec<_> {
            member.requests().map(|request| (member.client, request)).collect()
        };
        Self { requests: members.iter().flat_map(of).collect(), tables: Vec::new(), hash }
    }

    /// The steps whose codes are good now.
    fn live(now: Timestamp) -> RangeInclusive<u64> {
        let step = step_of(now);
        step.saturating_sub(LEEWAY)..=step.saturating_add(LEEWAY)
    }

    /// The live steps whose tables are not there.
    pub(super) fn missing(&self, now: Timestamp) -> Vec<u64> {
        Self::live(now).filter(|step| !self.tables.iter().any(|table| table.step() == *step)).collect()
    }

    /// Takes a table over, and lets go of those that are neither live nor next.
    pub(super) fn install(&mut self, table: Table, now: Timestamp) {
        let (first, last) = (*Self::live(now).start(), *Self::live(now).end() + 1);
        self.tables.retain(|known| known.step() != table.step() && (first..=last).contains(&known.step()));
        self.tables.push(table.with_hash(self.hash));
    }

    /// Whose code a SYN carries.
    pub(super) fn receive(&mut self, syn: Syn, now: Timestamp) -> Result<Authentic, Drop> {
        let timestamp = syn.timestamp.ok_or(Drop::Code)?;
        let code = u64::from(syn.sequence) << 32 | u64::from(timestamp);
        let live = Self::live(now);
        let mut tables = self.tables.iter_mut().filter(|table| live.contains(&table.step()));
        let (step, whose) =
            tables.find_map(|table| Some((table.step(), table.take(code)?))).ok_or(Drop::Code)?;
        let whose = whose.ok_or(Drop::Repeat)?;
        let slot = u8::try_from(whose % u32::from(SLOTS)).unwrap_or(0);
        let request =
            usize::try_from(whose / u32::from(SLOTS)).ok().and_then(|place| self.requests.get(place));
        let (client, service) = *request.ok_or(Drop::Code)?;
        let ask = Ask {
            op: Op::Open,
            target: Target::Source,
            uses: None,
            session: Session::default(),
            wide: false,
            duration: None,
            ports: service.map_or(Wanted::Defaults, Wanted::Service),
        };
        Ok(Authentic {
            client,
            method: Method::Syn,
            freshness: None,
            mac1: [0; 16],
            request: Ok((ask, Slot { step, slot }.counter())),
        })
    }
}

#[cfg(test)]
mod tests;
