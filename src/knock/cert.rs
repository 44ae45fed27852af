//! `cert`: an X.509 certificate knocks. One encrypted UDP datagram, signed with the certificate's key; the server
//! knows the authorities and no client.
//!
//! Noise `NK`, message 1 (`nk`), inside the envelope of `spa` with labels of its own. The signature covers the
//! handshake hash, which holds the server's key and this message's ephemeral key: it is good in this packet alone,
//! and whoever steals the server's key still cannot knock in a client's name. All integers are big-endian.
//!
//! ```text
//! packet, 64+Q bytes: a multiple of 16, 176 at least and 1232 at most
//! off    len   field
//! 0      32    e_masked     the ephemeral public key XOR HMAC(K_mask, tag), tag = last 16 bytes of enc_body
//! 32     Q+16  enc_body     the body, sealed under es
//! 48+Q   16    mac1         HMAC(K_mac1, everything before it)[16..32]
//!
//! prologue = "knockd-rs/1" || 0x02     S = the server's public key, G = the gate key
//! K_mac1 as in spa, of whose HMAC this is the other half     K_mask = SHA256("knockd-rs v1 mask cert" || S || G)
//!
//! body, Q bytes
//! 0      37+5n the request: see `head.rs`
//! +0     4     which server: SHA256("knockd-rs server" || S)[0..4]; tells a packet that was opened by another
//!              server and sealed again from a damaged one
//! +4     1     kind: 1 a certificate, 2 its SHA-256, for one that the server has in its directory
//! +5     1     signature scheme: 1 Ed25519, 2 ECDSA P-256 SHA-256, 3 ECDSA P-384 SHA-384, 4 RSA-PSS SHA-256
//! +6     2+c   the length c, and the certificate (DER) or its hash
//! +8+c   2+s   the length s, and the signature
//!        ..    zero
//! signed: "knockd-rs/1 x509" || h || the body before the signature's length
//!         h = the handshake hash after e, es
//! ```

use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;

use crate::crypto::noise::TAG_LEN;
use crate::crypto::noise::nk::{Binding, Initiator, Responder};
use crate::crypto::{Code, Gate, GateKey, KeyPair, MAC1_LEN, Mac1, PublicKey, Secret, sha256};
use crate::time::{ClockTrust, Now, Timestamp};
use crate::x509::chain::Authorities;
use crate::x509::leaf::{Certificate, Leaf, MAX_CERTIFICATE};
use crate::x509::scope::Scope;
use crate::x509::select::Selector;
use crate::x509::signature::Scheme;

use super::cache::Cache;
use super::hash::Seeded;
use super::turnstile::Turnstile;
use super::{Ask, Authentic, CertificateFault, ClientId, Drop, Fault, Freshness, Method, SealError, head};

/// The shortest packet.
pub const MIN_LEN: usize = 176;
/// The longest packet: an IPv6 packet of 1280 bytes (RFC 8200, section 5).
pub const MAX_LEN: usize = 1232;
/// What the length of a packet is a multiple of.
pub const STEP: usize = 16;
/// The length of a packet whose body is empty.
pub const OVERHEAD: usize = 32 + TAG_LEN + MAC1_LEN;
/// The Noise prologue.
pub const PROLOGUE: &[u8] = b"knockd-rs/1\x02";
/// How many verified certificates are remembered; the oldest makes room. Some 4 MiB at most.
pub const MAX_CHAINS: usize = 4096;
/// How many certificates the directory of large ones can hold.
pub const MAX_LEAVES: usize = 1024;

const SIGNED: &[u8] = b"knockd-rs/1 x509";
const CERTIFICATE: u8 = 1;
const HASH: u8 = 2;

fn server_tag(server: &PublicKey) -> [u8; 4] {
    let [a, b, c, d, ..] = sha256(&[b"knockd-rs server", &server.0]);
    [a, b, c, d]
}

fn signed(binding: &Binding, body: &[u8]) -> Vec<u8> {
    [SIGNED, binding, body].concat()
}

// --- the client's side ---------------------------------------------------------------------------------------

/// The private half of a certificate.
pub trait Sign {
    /// How it signs.
    fn scheme(&self) -> Scheme;
    /// The signature of `message`; `None` when the kernel gives no random numbers.
    fn sign(&self, message: &[u8]) -> Option<Vec<u8>>;
}

/// A packet, and how it shows the certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// The bytes to send.
    pub packet: Vec<u8>,
    /// Whether the certificate was too large for it, so that the server has to have it.
    pub by_hash: bool,
}

/// The packet that asks for `ask`.
///
/// - `counter`: from [`super::spa::next_counter`], stored before the packet is sent.
/// - `ephemeral`: 32 fresh random bytes, never used again.
///
/// # Errors
/// [`SealError`] when the request has no form on the wire, or cannot be signed.
pub fn seal(
    ask: &Ask,
    counter: Timestamp,
    server: &PublicKey,
    gate: &GateKey,
    certificate: &[u8],
    signer: &dyn Sign,
    ephemeral: Secret<32>,
) -> Result<Sealed, SealError> {
    let head = head::encode(ask, counter)?;
    let ephemeral = KeyPair::from(ephemeral);
    for (kind, shown) in [(CERTIFICATE, certificate), (HASH, &sha256(&[certificate])[..])] {
        let initiator = Initiator::new(PROLOGUE, server, &ephemeral).ok_or(SealError::ServerKey)?;
        let mut body = head.to_vec();
        body.extend(server_tag(server));
        body.extend([kind, signer.scheme() as u8]);
        let Some(length) = length(shown) else { continue };
        body.extend(length);
        body.extend(shown);
        let signature = signer.sign(&signed(&initiator.binding(), &body)).ok_or(SealError::Signature)?;
        body.extend(length_of(&signature)?);
        body.extend(signature);
        body.resize(body.len().next_multiple_of(STEP).max(MIN_LEN - OVERHEAD), 0);
        if body.len() + OVERHEAD <= MAX_LEN {
            let message = initiator.seal(&body).ok_or(SealError::Signature)?;
            let packet = Gate::of_certificates(server, gate).wrap(message);
            return Ok(Sealed { packet, by_hash: kind == HASH });
        }
    }
    Err(SealError::Signature)
}

fn length(bytes: &[u8]) -> Option<[u8; 2]> {
    u16::try_from(bytes.len()).ok().map(u16::to_be_bytes)
}

fn length_of(signature: &[u8]) -> Result<[u8; 2], SealError> {
    length(signature).ok_or(SealError::Signature)
}

// --- the server's side ---------------------------------------------------------------------------------------

/// Whose certificates are accepted, and for what.
pub struct Trust {
    /// The authorities and what they have revoked.
    pub authorities: Authorities,
    /// Certificates that are too large for a packet, DER; at most [`MAX_LEAVES`].
    pub leaves: Vec<Vec<u8>>,
    /// The rules, in their order: the first whose selector matches decides.
    pub tables: Vec<Table>,
}

/// One rule.
#[derive(Clone, Debug)]
pub struct Table {
    /// Which certificates it is for.
    pub selector: Selector,
    /// How far their owners' clocks may be from the server's.
    pub freshness: Freshness,
}

/// The certificate that a client showed, and proved to be its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The place of its rule in [`Trust::tables`]; `None` when none is for it.
    pub table: Option<usize>,
    /// What its grants are known by.
    pub id: [u8; 8],
    /// Its subject, for people.
    pub subject: String,
    /// What it lets its owner open at most.
    pub scope: Scope,
}

/// A certificate that was found good.
struct Known {
    client: ClientId,
    scheme: Scheme,
    key: Vec<u8>,
    freshness: Freshness,
    until: Timestamp,
    shown: Rc<Shown>,
}

pub(super) struct Decoder {
    gate: Gate,
    responder: Responder,
    tag: [u8; 4],
    authorities: Authorities,
    leaves: HashMap<[u8; 32], Vec<u8>, Seeded>,
    tables: Vec<Table>,
    chains: Cache<[u8; 32], Rc<Known>>,
    built: Timestamp,
    shown: Option<Rc<Shown>>,
}

impl Decoder {
    pub(super) fn new(server: KeyPair, gate: &GateKey, trust: Trust, built: Timestamp, hash: Seeded) -> Self {
        let Trust { authorities, leaves, tables } = trust;
        let mut by_hash = HashMap::with_hasher(hash);
        by_hash.extend(leaves.into_iter().take(MAX_LEAVES).map(|leaf| (sha256(&[&leaf]), leaf)));
        let public = server.public();
        Self {
            gate: Gate::of_certificates(&public, gate),
            responder: Responder::new(PROLOGUE, server),
            tag: server_tag(&public),
            authorities,
            leaves: by_hash,
            tables,
            chains: Cache::new(MAX_CHAINS, hash),
            built,
            shown: None,
        }
    }

    pub(super) fn authorities(&self) -> &Authorities {
        &self.authorities
    }

    /// The certificate of the last knock that was authentic.
    pub(super) fn shown(&self) -> Option<Rc<Shown>> {
        self.shown.clone()
    }

    /// What the mac1 of a packet of a possible length has to be.
    pub(super) fn code(&self, payload: &[u8]) -> Result<Code, Drop> {
        Packet::split(payload).map(|packet| self.gate.code(packet.signed)).ok_or(Drop::Length)
    }

    /// Length, mac1, repeats, budget, key, form, signature, issuer: everything that a stranger's packet can fail at.
    /// Whoever comes through has proved to own a certificate that one of our authorities issued; what is wrong with
    /// it, or with the request, is a fault.
    pub(super) fn receive(
        &mut self,
        payload: &[u8],
        code: &Code,
        source: IpAddr,
        now: Now,
        turnstile: &mut Turnstile,
    ) -> Result<Authentic, Drop> {
        let packet = Packet::split(payload).ok_or(Drop::Length)?;
        if !self.gate.admits(code, packet.mac1) {
            return Err(Drop::Mac);
        }
        turnstile.pass(packet.mac1, source, now.uptime)?;
        let ephemeral = self.gate.mask(packet.tag, packet.masked);
        let (binding, plain) = self.responder.open(&ephemeral, packet.sealed).ok_or(Drop::Key)?;
        let body = Body::split(&plain).ok_or(Drop::Body)?;
        if body.server != self.tag {
            return Err(Drop::OtherServer);
        }
        let at = self.time(now);
        let hash = match body.kind {
            HASH => body.shown.try_into().map_err(|_| Drop::Body)?,
            _ => sha256(&[body.shown]),
        };
        let message = signed(&binding, body.signed);
        let known = self.chains.get(&hash).filter(|known| at <= known.until).map(Rc::clone);
        // What signatures cost in handshakes; of a certificate that is new, its authority's too, and all of that again.
        let cost = body.scheme.cost();
        turnstile.charge(source, now.uptime, if known.is_some() { cost - 1 } else { 3 * cost });
        let (client, freshness, fault) = match known {
            Some(known) => {
                let good =
                    known.scheme == body.scheme && known.scheme.verify(&known.key, &message, body.signature);
                good.then_some(()).ok_or(Drop::Signature)?;
                self.shown = Some(Rc::clone(&known.shown));
                (known.client, known.freshness, None)
            }
            None => self.examine(&body, &message, hash, at)?,
        };
        let request = match fault {
            Some(fault) => Err(fault),
            None => head::decode(body.head),
        };
        Ok(Authentic {
            client,
            method: Method::Cert,
            freshness: Some(freshness),
            mac1: *packet.mac1,
            request,
        })
    }

    /// The time by which certificates are judged. A clock that shows less than the date of this program is wrong; and one
    /// that nobody vouches for is, when it shows less than the date of a revocation list.
    fn time(&self, now: Now) -> Timestamp {
        let listed = self.authorities.latest_update().filter(|_| now.trust == ClockTrust::Unsynchronised);
        now.wall.max(self.built).max(listed.unwrap_or_default())
    }

    /// A certificate that is not known to be good.
    fn examine(
        &mut self,
        body: &Body<'_>,
        message: &[u8],
        hash: [u8; 32],
        at: Timestamp,
    ) -> Result<(ClientId, Freshness, Option<Fault>), Drop> {
        let der = match body.kind {
            HASH => self.leaves.get(&hash).ok_or(Drop::UnknownLeaf)?,
            _ => body.shown,
        };
        let certificate =
            Certificate::parse(der).filter(|_| der.len() <= MAX_CERTIFICATE).ok_or(Drop::Certificate)?;
        let scheme =
            Scheme::of(&certificate.key).filter(|scheme| *scheme == body.scheme).ok_or(Drop::Certificate)?;
        let leaf = Leaf::read(&certificate).ok_or(Drop::Certificate)?;
        if !self.authorities.has_name_of_issuer(&certificate) {
            return Err(Drop::Issuer);
        }
        if !scheme.verify(certificate.key.key, message, body.signature) {
            return Err(Drop::Signature);
        }
        let issuer = self.authorities.issuer(&certificate, at).ok_or(Drop::Issuer)?;
        // From here on the client has proved who it is.
        let table = self.tables.iter().position(|table| table.selector.matches(&leaf));
        let freshness = table.and_then(|table| self.tables.get(table)).map(|table| table.freshness);
        let judged = self.authorities.judge(der, &certificate, &leaf, issuer, at);
        let subject = leaf.to_string();
        let client = ClientId(sha256(&[b"knockd-rs certificate", &leaf.key_sha256]));
        let id = leaf.id();
        let (scope, unreadable) = match leaf.scope {
            Ok(scope) => (scope, None),
            Err(error) => (Scope::default(), Some(error)),
        };
        let shown = Rc::new(Shown { table, id, subject: subject.clone(), scope });
        self.shown = Some(Rc::clone(&shown));
        let why = match (judged, unreadable, freshness) {
            (Err(rejection), ..) => CertificateFault::Rejected(rejection),
            (_, Some(error), _) => CertificateFault::Scope(error),
            (_, _, None) => CertificateFault::Unmapped,
            (Ok(until), None, Some(freshness)) => {
                let key = certificate.key.key.to_vec();
                let known = Known { client, scheme, key, freshness, until, shown };
                self.chains.insert(hash, Rc::new(known));
                return Ok((client, freshness, None));
            }
        };
        let fault = Fault::Certificate { subject, why: Box::new(why) };
        Ok((client, freshness.unwrap_or_default(), Some(fault)))
    }
}

/// The fields of a packet of a possible length.
struct Packet<'a> {
    masked: &'a [u8; 32],
    sealed: &'a [u8],
    tag: &'a [u8; TAG_LEN],
    signed: &'a [u8],
    mac1: &'a Mac1,
}

impl<'a> Packet<'a> {
    fn split(bytes: &'a [u8]) -> Option<Self> {
        if !(MIN_LEN..=MAX_LEN).contains(&bytes.len()) || bytes.len() % STEP != 0 {
            return None;
        }
        let (signed, mac1) = bytes.split_last_chunk()?;
        let (masked, sealed) = signed.split_first_chunk()?;
        let tag = sealed.last_chunk()?;
        Some(Self { masked, sealed, tag, signed, mac1 })
    }
}

/// The fields of a body.
struct Body<'a> {
    head: &'a [u8],
    server: [u8; 4],
    kind: u8,
    scheme: Scheme,
    shown: &'a [u8],
    /// Everything before the signature's length.
    signed: &'a [u8],
    signature: &'a [u8],
}

impl<'a> Body<'a> {
    fn split(body: &'a [u8]) -> Option<Self> {
        let (head, rest) = head::split(body)?;
        let (server, rest) = rest.split_first_chunk()?;
        let (&[kind, scheme], rest) = rest.split_first_chunk()?;
        let (shown, unsigned) = counted(rest)?;
        let signed = body.get(..body.len() - unsigned.len())?;
        let (signature, padding) = counted(unsigned)?;
        let right = matches!(kind, CERTIFICATE | HASH) && padding.iter().all(|byte| *byte == 0);
        let scheme = Scheme::from_number(scheme).filter(|_| right)?;
        Some(Self { head, server: *server, kind, scheme, shown, signed, signature })
    }
}

/// What was taken from a body is all of it, put together again.
#[cfg(feature = "fuzzing")]
pub(crate) fn check_body(body: &[u8]) {
    if let Some(split) = Body::split(body) {
        let mut again = split.signed.to_vec();
        again.extend(length(split.signature).unwrap_or_default());
        again.extend(split.signature);
        again.resize(body.len(), 0);
        assert_eq!(again, body);
        assert!(split.signed.ends_with(split.shown) && split.signed.starts_with(split.head));
    }
}

/// A length, so many bytes, and the rest.
fn counted(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
}

#[cfg(test)]
mod tests;
