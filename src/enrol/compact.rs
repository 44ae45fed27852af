//! A bundle in as few bytes as it takes: what a line carries.
//!
//! ```text
//!   flags          1   1 private key, 2 psk, 4 duration, 8 max_duration, 16 sequence, 32 expires; the others are 0
//!   server key    32
//!   gate key      32
//!   private key   32   if flagged
//!   psk           32   if flagged
//!   port           2   big endian, as every number of two bytes
//!   server         n   a text: its length in one byte, then its bytes
//!   host           n   a text; empty where it is the same as `server`
//!   profile        n   a text
//!   methods        1   1 spa, 2 syn, 4 sequence, 8 totp, 16 plain, 32 cert
//!   totp ports     1
//!   open           n   ports: how many ranges, then of each: 0 tcp, 2 udp or 4 sctp and the port; of a range of more
//!                      than one port 1, 3 or 5, the first port and the last
//!   services       n   how many, then of each its name, a text, and its ports
//!   duration       n   a number of seconds, if flagged
//!   max_duration   n   the same, if flagged
//!   sequence       n   if flagged: base and span in two bytes each, then how many ports are left out, and those
//!   expires        5   if flagged: seconds since 1970, big endian
//! ```
//!
//! How many, and seconds, are numbers in groups of 7 bits, the lowest first, each but the last with its top bit set.
//! Each bundle has one form: what would be written differently is refused.

use std::collections::BTreeMap;
use std::str::FromStr;

use zeroize::Zeroizing;

use super::{Access, Bundle, Host};
use crate::config::limits;
use crate::config::ports::merged;
use crate::crypto::{GateKey, PublicKey, Secret};
use crate::knock::{Ground, MAX_EXCLUDED, Method, totp};
use crate::profile::weak::is_weak;
use crate::text::{Moment, PortRange, Protocol, Span};

const PRIVATE_KEY: u8 = 1;
const PSK: u8 = 2;
const DURATION: u8 = 4;
const MAX_DURATION: u8 = 8;
const SEQUENCE: u8 = 16;
const EXPIRES: u8 = 32;
const FLAGS: u8 = PRIVATE_KEY | PSK | DURATION | MAX_DURATION | SEQUENCE | EXPIRES;

/// The bytes of a bundle. Wiped on drop.
pub(super) fn encode(bundle: &Bundle) -> Zeroizing<Vec<u8>> {
    let Access { host, services, methods, sequence, .. } = &bundle.access;
    let access = &bundle.access;
    let ports: usize = services.values().map(|ports| 40 + 5 * ports.len()).sum();
    // Room for all of it: growing would leave copies of secrets behind.
    let room = 1024 + 5 * access.open.len() + ports + 2 * sequence.excluded.len();
    let mut to = Writer(Zeroizing::new(Vec::with_capacity(room)));
    let flag = |is_there: bool, flag: u8| if is_there { flag } else { 0 };
    to.bytes(&[flag(bundle.private_key.is_some(), PRIVATE_KEY)
        | flag(access.psk.is_some(), PSK)
        | flag(access.duration.is_some(), DURATION)
        | flag(access.max_duration.is_some(), MAX_DURATION)
        | flag(plays(methods), SEQUENCE)
        | flag(access.expires.is_some(), EXPIRES)]);
    to.bytes(&access.server_key.0);
    to.bytes(access.gate_key.expose());
    bundle.private_key.iter().for_each(|key| to.bytes(key.expose()));
    access.psk.iter().for_each(|key| to.bytes(key.expose()));
    to.bytes(&access.port.to_be_bytes());
    to.text(bundle.server.as_str());
    to.text(if host.as_str() == bundle.server.as_str() { "" } else { host.as_str() });
    to.text(access.profile.as_str());
    to.bytes(&[methods.iter().fold(0, |bits, method| bits | bit(*method)), access.totp_ports]);
    to.ports(&access.open);
    to.count(services.len());
    for (name, ports) in services {
        to.text(name.as_str());
        to.ports(ports);
    }
    access.duration.iter().for_each(|span| to.number(span.as_secs()));
    access.max_duration.iter().for_each(|span| to.number(span.as_secs()));
    if plays(methods) {
        to.bytes(&sequence.base.to_be_bytes());
        to.bytes(&sequence.span.to_be_bytes());
        to.count(sequence.excluded.len());
        sequence.excluded.iter().for_each(|port| to.bytes(&port.to_be_bytes()));
    }
    if let Some(expires) = access.expires {
        let [_, _, _, bytes @ ..] = expires.as_secs().to_be_bytes();
        to.bytes(&bytes);
    }
    to.0
}

/// The bundle with these bytes; else the name of what is wrong.
pub(super) fn decode(bytes: &[u8]) -> Result<Bundle, &'static str> {
    let mut from = Reader(bytes);
    let bundle = read(&mut from)?;
    if !from.0.is_empty() {
        return Err("end");
    }
    Ok(bundle)
}

fn read(from: &mut Reader<'_>) -> Result<Bundle, &'static str> {
    let flags = from.byte().filter(|flags| flags & !FLAGS == 0).ok_or("version")?;
    let has = |flag: u8| flags & flag != 0;
    let server_key = PublicKey(from.array().ok_or("server_key")?);
    if is_weak(&server_key) {
        return Err("server_key");
    }
    let gate_key: GateKey = from.secret().ok_or("gate_key")?;
    let private_key = from.secret_if(has(PRIVATE_KEY)).ok_or("private_key")?;
    let psk = from.secret_if(has(PSK)).ok_or("psk")?;
    let port = from.pair().filter(|port| *port != 0).ok_or("port")?;
    let server = from.text().ok_or("server")?;
    let host = match from.text().ok_or("host")? {
        "" => server,
        same if same == server => return Err("host"),
        other => other,
    };
    let profile = from.parsed().ok_or("profile")?;
    let methods = from.byte().and_then(methods).ok_or("methods")?;
    let totp_ports =
        from.byte().filter(|n| (totp::MIN_PORTS..=totp::MAX_PORTS).contains(n)).ok_or("totp_ports")?;
    let open = from.ports().ok_or("open")?;
    let services = services(from).ok_or("services")?;
    let duration = from.span_if(has(DURATION)).ok_or("duration")?;
    let max_duration = from.span_if(has(MAX_DURATION)).ok_or("max_duration")?;
    if has(SEQUENCE) != plays(&methods) {
        return Err("sequence");
    }
    let sequence = if has(SEQUENCE) { ground(from).ok_or("sequence")? } else { Ground::default() };
    let expires = if has(EXPIRES) { Some(from.moment().ok_or("expires")?) } else { None };
    let access = Access {
        host: Host::from_str(host).map_err(|_| "host")?,
        port,
        profile,
        server_key,
        gate_key,
        psk,
        open,
        services,
        methods,
        totp_ports,
        sequence,
        duration,
        max_duration,
        expires,
    };
    Ok(Bundle { server: server.parse().map_err(|_| "server")?, access, private_key })
}

/// Whether some method knocks at many ports, which both sides have to know.
pub(super) fn plays(methods: &[Method]) -> bool {
    methods.iter().any(|method| matches!(method, Method::Sequence | Method::Totp))
}

fn bit(method: Method) -> u8 {
    match method {
        Method::Spa => 1,
        Method::Syn => 2,
        Method::Sequence => 4,
        Method::Totp => 8,
        Method::Plain => 16,
        Method::Cert => 32,
    }
}

fn methods(bits: u8) -> Option<Vec<Method>> {
    let methods: Vec<Method> =
        Method::ALL.iter().map(|(_, method)| *method).filter(|method| bits & bit(*method) != 0).collect();
    let known = methods.iter().fold(0, |bits, method| bits | bit(*method));
    (known == bits && bits != 0).then_some(methods)
}

fn services<T: FromStr + Ord>(from: &mut Reader<'_>) -> Option<BTreeMap<T, Vec<PortRange>>> {
    let mut services = BTreeMap::new();
    for _ in 0..from.count(limits::SERVICES)? {
        let (name, ports) = (from.parsed::<T>()?, from.ports()?);
        if services.last_key_value().is_some_and(|(last, _)| *last >= name) {
            return None;
        }
        services.insert(name, ports);
    }
    Some(services)
}

fn ground(from: &mut Reader<'_>) -> Option<Ground> {
    let (base, span) = (from.pair()?, from.pair()?);
    let excluded: Option<Vec<u16>> =
        (0..from.count(MAX_EXCLUDED)?).map(|_| from.pair().filter(|port| *port != 0)).collect();
    Ground { base, span, excluded: excluded? }.check().ok()
}

struct Writer(Zeroizing<Vec<u8>>);

impl Writer {
    fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// Names are 64 characters at most, hosts 253, and an address with its zone no longer than the kernel's names.
    fn text(&mut self, text: &str) {
        let bytes = text.as_bytes();
        let length = u8::try_from(bytes.len()).unwrap_or(u8::MAX);
        self.bytes(&[length]);
        self.bytes(bytes.get(..usize::from(length)).unwrap_or_default());
    }

    fn number(&mut self, mut number: u32) {
        while number > 0x7f {
            self.bytes(&[u8::try_from(number & 0x7f).unwrap_or(0) | 0x80]);
            number >>= 7;
        }
        self.bytes(&[u8::try_from(number).unwrap_or(0)]);
    }

    fn count(&mut self, count: usize) {
        self.number(u32::try_from(count).unwrap_or(u32::MAX));
    }

    fn ports(&mut self, ports: &[PortRange]) {
        self.count(ports.len());
        for range in ports {
            self.bytes(&[tag(range.protocol()) | u8::from(!range.is_single())]);
            self.bytes(&range.first().to_be_bytes());
            if !range.is_single() {
                self.bytes(&range.last().to_be_bytes());
            }
        }
    }
}

/// A protocol in an even number.
fn tag(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => 0,
        Protocol::Udp => 2,
        Protocol::Sctp => 4,
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*array)
    }

    fn secret(&mut self) -> Option<Secret<32>> {
        let (array, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(Secret::new(*array))
    }

    /// `None` when it should be there and is not.
    fn secret_if(&mut self, is_there: bool) -> Option<Option<Secret<32>>> {
        if is_there { self.secret().map(Some) } else { Some(None) }
    }

    fn byte(&mut self) -> Option<u8> {
        self.array().map(|[byte]| byte)
    }

    fn pair(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    fn number(&mut self) -> Option<u32> {
        let mut number = 0;
        for place in 0..5 {
            let byte = self.byte()?;
            let group = u32::from(byte & 0x7f);
            number |= group.checked_shl(7 * place).filter(|shifted| shifted >> (7 * place) == group)?;
            if byte & 0x80 == 0 {
                // A last group of zeros is one that is not written.
                return (place == 0 || group != 0).then_some(number);
            }
        }
        None
    }

    fn count(&mut self, most: usize) -> Option<usize> {
        self.number().and_then(|number| usize::try_from(number).ok()).filter(|count| *count <= most)
    }

    fn span_if(&mut self, is_there: bool) -> Option<Option<Span>> {
        if !is_there {
            return Some(None);
        }
        let span = Span::from_secs(self.number()?);
        limits::GRANT.contains(&span).then_some(Some(span))
    }

    fn moment(&mut self) -> Option<Moment> {
        let [a, b, c, d, e] = self.array()?;
        let seconds = u64::from_be_bytes([0, 0, 0, a, b, c, d, e]);
        (seconds <= Moment::MAX.as_secs()).then(|| Moment::from_secs(seconds))
    }

    fn text(&mut self) -> Option<&'a str> {
        let length = usize::from(self.byte()?);
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        std::str::from_utf8(text).ok()
    }

    fn parsed<T: FromStr>(&mut self) -> Option<T> {
        self.text()?.parse().ok()
    }

    fn ports(&mut self) -> Option<Vec<PortRange>> {
        let count = self.count(limits::ENTRIES)?;
        let ports: Option<Vec<PortRange>> = (0..count).map(|_| self.range()).collect();
        let ports = ports?;
        (merged(ports.clone()) == ports).then_some(ports)
    }

    fn range(&mut self) -> Option<PortRange> {
        let byte = self.byte()?;
        let protocol = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp]
            .into_iter()
            .find(|protocol| tag(*protocol) == byte & !1)?;
        let first = self.pair()?;
        let last = if byte & 1 == 0 { first } else { self.pair().filter(|last| *last != first)? };
        PortRange::new(protocol, first, last).ok()
    }
}
