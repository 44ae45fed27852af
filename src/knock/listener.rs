//! Segments in, knocks out: which decoder a segment is for, and the checks that all knocks share.
//!
//! A decoder is there only when a profile uses its method, and knows only the clients whose profiles list it: what is
//! not listed cannot be knocked with.

use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use crate::crypto::{GateKey, KeyPair, Mac1};
use crate::frame::{Body, Segment};
use crate::time::{Now, Timestamp};
use crate::x509::chain::Authorities;

use super::hash::Seeded;
use super::replay::Marks;
use super::turnstile::Turnstile;
use super::{
    Authentic, Drop, Fault, Ground, Knock, MarkKey, Method, Outcome, Rates, Target, cert, plain, sequence,
    spa, syn, totp,
};

/// All that is listened to.
///
/// Memory is bounded by the number of clients, 4,096 remembered packets, 16,384 token buckets and what each decoder
/// says of its own tables.
pub struct Listener {
    hash: Seeded,
    turnstile: Turnstile,
    marks: Marks,
    spa: Option<spa::Decoder>,
    /// With the port that it is for.
    syn: Option<(u16, syn::Decoder)>,
    plain: Option<plain::Decoder>,
    totp: Option<totp::Decoder>,
    sequence: Option<sequence::Decoder>,
    cert: Option<cert::Decoder>,
    built: Timestamp,
}

impl Listener {
    /// A listener without a decoder, that has heard nothing.
    ///
    /// - `seed`: 16 random bytes for its hash tables.
    /// - `built`: when this program was built; a wall clock that shows less is not believed.
    #[must_use]
    pub fn new(rates: Rates, seed: [u8; 16], built: Timestamp) -> Self {
        let hash = Seeded::new(seed);
        Self {
            hash,
            turnstile: Turnstile::new(rates, hash),
            marks: Marks::new(built, hash),
            spa: None,
            syn: None,
            plain: None,
            totp: None,
            sequence: None,
            cert: None,
            built,
        }
    }

    /// Listens to encrypted datagrams of these clients.
    #[must_use]
    pub fn with_spa(
        mut self,
        server: KeyPair,
        gate: &GateKey,
        clients: impl IntoIterator<Item = spa::ClientKeys>,
    ) -> Self {
        self.spa = Some(spa::Decoder::new(server, gate, clients, self.hash));
        self
    }

    /// Listens to SYNs to `port` that carry codes of these clients. What is heard before the tables of
    /// [`missing_steps`](Self::missing_steps) are installed is unknown.
    #[must_use]
    pub fn with_syn(mut self, port: u16, members: &[syn::Member]) -> Self {
        self.syn = Some((port, syn::Decoder::new(members, self.hash)));
        self
    }

    /// The steps whose codes are needed now and not there.
    #[must_use]
    pub fn missing_steps(&self, now: Timestamp) -> Vec<u64> {
        self.syn.as_ref().map_or_else(Vec::new, |(_, decoder)| decoder.missing(now))
    }

    /// Takes over the codes of a step, made from the same clients in the same order.
    pub fn install(&mut self, table: syn::Table, now: Timestamp) {
        if let Some((_, decoder)) = &mut self.syn {
            decoder.install(table, now);
        }
    }

    /// Listens to these fixed sequences.
    #[must_use]
    pub fn with_plain(mut self, sequences: impl IntoIterator<Item = plain::Sequence>) -> Self {
        self.plain = Some(plain::Decoder::new(sequences, self.hash));
        self
    }

    /// Listens to sequences that these clients derive from the time.
    #[must_use]
    pub fn with_totp(mut self, ground: Ground, clients: impl IntoIterator<Item = totp::ClientKeys>) -> Self {
        self.totp = Some(totp::Decoder::new(ground, clients, self.hash));
        self
    }

    /// Listens to encoded sequences of these clients on these ports.
    #[must_use]
    pub fn with_sequence(
        mut self,
        server: &KeyPair,
        gate: &GateKey,
        ground: Ground,
        clients: impl IntoIterator<Item = sequence::ClientKeys>,
    ) -> Self {
        self.sequence = Some(sequence::Decoder::new(server, gate, ground, clients, self.hash));
        self
    }

    /// Listens to datagrams signed with certificates.
    #[must_use]
    pub fn with_certificates(mut self, server: KeyPair, gate: &GateKey, trust: cert::Trust) -> Self {
        self.cert = Some(cert::Decoder::new(server, gate, trust, self.built, self.hash));
        self
    }

    /// The certificate of the last outcome that was a knock by certificate or the refusal of one.
    #[must_use]
    pub fn shown(&self) -> Option<Rc<cert::Shown>> {
        self.cert.as_ref().and_then(cert::Decoder::shown)
    }

    /// The authorities whose certificates are listened to.
    #[must_use]
    pub fn authorities(&self) -> Option<&Authorities> {
        self.cert.as_ref().map(cert::Decoder::authorities)
    }

    /// What a segment asks for, and of whom.
    ///
    /// A knock's counter is checked here and spent by [`spend`](Self::spend), which the caller must call before
    /// the next segment, whatever the policy says. Only in quarantine is it spent here.
    pub fn receive(&mut self, segment: &Segment<'_>, now: Now) -> Outcome {
        match self.authenticate(segment, now) {
            Err(drop) => Outcome::Dropped(drop),
            Ok(authentic) => {
                let (client, method) = (authentic.client, authentic.method);
                match self.judge(authentic, segment, now) {
                    Ok(knock) => Outcome::Knock(knock),
                    Err(fault) => Outcome::Refused { client, method, source: segment.source, fault },
                }
            }
        }
    }

    /// Everything that a stranger's packet can fail at. Ports may be shared: each decoder sees what could be for it,
    /// and of their reasons the one that came farthest is told.
    fn authenticate(&mut self, segment: &Segment<'_>, now: Now) -> Result<Authentic, Drop> {
        let mut heard = Err(Drop::Method);
        if let Some(plain) = &mut self.plain {
            prefer(&mut heard, plain.receive(segment, now));
        }
        if let Some(totp) = &mut self.totp {
            prefer(&mut heard, totp.receive(segment.port, segment.source, now));
        }
        if let Some(sequence) = self.sequence.as_mut().filter(|sequence| sequence.wants(segment.port)) {
            prefer(&mut heard, sequence.receive(segment.port, segment.source, now));
        }
        match segment.body {
            Body::Datagram(payload) => prefer(&mut heard, self.datagram(payload, segment.source, now)),
            Body::Syn(fields) => {
                if let Some((_, decoder)) = self.syn.as_mut().filter(|(port, _)| *port == segment.port) {
                    prefer(&mut heard, decoder.receive(fields, now.wall));
                }
            }
        }
        heard
    }

    /// The formats of one datagram, told apart by their mac1: each has labels of its own.
    fn datagram(&mut self, payload: &[u8], source: IpAddr, now: Now) -> Result<Authentic, Drop> {
        // Both formats have the same lengths, and one code judges a packet for both.
        let code = match (&self.spa, &self.cert) {
            (Some(spa), _) => spa.code(payload)?,
            (None, Some(cert)) => cert.code(payload)?,
            (None, None) => return Err(Drop::Method),
        };
        let spa = self.spa.as_mut().map(|spa| spa.receive(payload, &code, now, &mut self.turnstile));
        match (spa, &mut self.cert) {
            (None | Some(Err(Drop::Mac)), Some(cert)) => {
                cert.receive(payload, &code, source, now, &mut self.turnstile)
            }
            (decided, _) => decided.unwrap_or(Err(Drop::Method)),
        }
    }

    /// Source, counter, freshness, quarantine: what an authentic knock can fail at, whatever its format.
    fn judge(&mut self, authentic: Authentic, segment: &Segment<'_>, now: Now) -> Result<Knock, Fault> {
        let Authentic { client, method, freshness, mac1, request } = authentic;
        let (source, (ask, mut counter)) = (segment.source, request?);
        if let Target::SourceOnly(named) = ask.target {
            if named != source {
                return Err(Fault::SourceMismatch { named, source });
            }
        }
        if method == Method::Plain {
            // It can be replayed by whoever saw it: its mark says when it came last, and keeps nobody out, also not
            // after the server's clock was set back.
            let last = self.marks.get(&MarkKey::new(client, method)).unwrap_or_default();
            counter = counter.max(last.saturating_add(Duration::from_nanos(1)));
        }
        let knock = Knock { client, method, source, counter, mac1, ask };
        self.marks.check(knock.mark(), counter, freshness, now)?;
        Ok(knock)
    }

    /// Takes note that a knock was decided on, for or against: neither it nor an older one of its client is
    /// good again.
    pub fn spend(&mut self, knock: &Knock) {
        self.marks.spend(knock.mark(), knock.counter);
    }

    /// Every last counter, to be stored. Those of clients whose profile is gone are among them.
    pub fn marks(&self) -> impl Iterator<Item = (MarkKey, Timestamp)> + '_ {
        self.marks.iter()
    }

    /// The last counter kept under this name.
    #[must_use]
    pub fn mark(&self, key: &MarkKey) -> Option<Timestamp> {
        self.marks.get(key)
    }

    /// Whether every knock is refused at `uptime` (`CLOCK_BOOTTIME`), because marks were lost.
    #[must_use]
    pub fn is_quarantined(&self, uptime: Duration) -> bool {
        self.marks.quarantined_until() > uptime
    }

    /// Takes stored counters over. A counter never goes back, so the order of several sources is no matter.
    pub fn seed(&mut self, marks: impl IntoIterator<Item = (MarkKey, Timestamp)>) {
        for (key, counter) in marks {
            self.marks.spend(key, counter);
        }
    }

    /// Takes a packet for one that was seen, so that its copies are dropped rather than logged as replays.
    pub fn seed_ring(&mut self, mac1: Mac1) {
        self.turnstile.note(mac1);
    }

    /// Refuses every knock until `uptime` (`CLOCK_BOOTTIME`), after the marks were lost. Never cut short by a
    /// second call.
    pub fn quarantine(&mut self, uptime: Duration) {
        self.marks.quarantine(uptime);
    }
}

/// Keeps what the decoder that was asked last made of a segment: its knock before another one, a knock before a reason,
/// and the reason that lies farther. One packet can end two sequences; of a fixed one nothing is lost, since it is good
/// again.
fn prefer(heard: &mut Result<Authentic, Drop>, next: Result<Authentic, Drop>) {
    match (&mut *heard, next) {
        (Err(why), Err(drop)) => *why = drop.max(*why),
        (Ok(_), Err(_)) => {}
        (_, authentic) => *heard = authentic,
    }
}
