//! What the calls of the C interface do, once their pointers are values.
#![forbid(unsafe_code)]

use std::ffi::{CStr, OsStr};
use std::fmt;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::time::Duration;

use super::Handle;
use super::abi::{METHOD_SEQUENCE, METHOD_SPA, METHOD_SYN, METHOD_TOTP, Options, Outcome, USES_PROFILE};
use crate::client;
use crate::client::{
    Dirs, Effort, KnockError, Method, OpenError, PortRange, ReachError, Server, Span, Uses, reach, reach_udp,
};

/// Why a call did nothing.
pub(super) struct Failure {
    pub(super) outcome: Outcome,
    pub(super) reason: String,
}

impl Failure {
    fn new(outcome: Outcome, reason: impl fmt::Display) -> Self {
        Self { outcome, reason: reason.to_string() }
    }

    pub(super) fn invalid(reason: impl fmt::Display) -> Self {
        Self::new(Outcome::Invalid, reason)
    }

    pub(super) fn null(argument: &str) -> Self {
        Self::invalid(format_args!("`{argument}` is NULL"))
    }

    pub(super) fn bug() -> Self {
        Self::new(Outcome::Bug, "a mistake in knockd-rs ended this call; please report it")
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        let outcome = if matches!(error, OpenError::Name(_)) { Outcome::Invalid } else { Outcome::Server };
        Self::new(outcome, error)
    }
}

impl From<KnockError> for Failure {
    fn from(error: KnockError) -> Self {
        Self::new(Outcome::NotSent, error)
    }
}

impl From<ReachError> for Failure {
    fn from(error: ReachError) -> Self {
        let outcome = if matches!(error, ReachError::Knock(_)) { Outcome::NotSent } else { Outcome::Closed };
        Self::new(outcome, error)
    }
}

pub(super) fn open(
    config: Option<&CStr>,
    state: Option<&CStr>,
    name: Option<&CStr>,
) -> Result<Server, Failure> {
    let name = utf8("server", name.ok_or_else(|| Failure::null("server"))?)?;
    Ok(Server::open(&dirs(config.map(path), state.map(path))?, name)?)
}

pub(super) fn open_bundle(state: Option<&CStr>, bundle: Option<&CStr>) -> Result<Server, Failure> {
    let bundle = utf8("bundle", bundle.ok_or_else(|| Failure::null("bundle"))?)?;
    // Nothing is read from the first of them.
    let dirs = dirs(state.map(path), state.map(path))?;
    Ok(Server::from_bundle(&dirs, bundle, None)?)
}

pub(super) fn connect(server: Option<&Handle>, port: u16, options: Options) -> Result<OwnedFd, Failure> {
    let Handle(server) = server.ok_or_else(|| Failure::null("server"))?;
    let effort = effort(server, port_is_one(port, options)?)?;
    Ok(reach(server, port, &effort)?.stream.into())
}

pub(super) fn connect_udp(
    server: Option<&Handle>,
    port: u16,
    probe: Option<&[u8]>,
    options: Options,
) -> Result<OwnedFd, Failure> {
    let Handle(server) = server.ok_or_else(|| Failure::null("server"))?;
    let effort = effort(server, port_is_one(port, options)?)?;
    Ok(reach_udp(server, port, probe, &effort)?.socket.into())
}

pub(super) fn knock(server: Option<&Handle>, ports: Option<&CStr>, options: Options) -> Result<(), Failure> {
    let Handle(server) = server.ok_or_else(|| Failure::null("server"))?;
    client::knock_for(server, &self::ports(ports)?, &effort(server, options)?)?;
    Ok(())
}

pub(super) fn close(server: Option<&Handle>, ports: Option<&CStr>, options: Options) -> Result<(), Failure> {
    let Handle(server) = server.ok_or_else(|| Failure::null("server"))?;
    client::close(server, &self::ports(ports)?, &effort(server, options)?)?;
    Ok(())
}

fn port_is_one(port: u16, options: Options) -> Result<Options, Failure> {
    if port == 0 { Err(Failure::invalid("port 0; use 1 to 65535")) } else { Ok(options) }
}

fn ports(words: Option<&CStr>) -> Result<Vec<PortRange>, Failure> {
    let Some(words) = words else { return Ok(Vec::new()) };
    let parse = |word: &str| word.parse().map_err(Failure::invalid);
    utf8("ports", words)?.split_whitespace().map(parse).collect()
}

/// How hard to try at this server. What it takes from this client is known from its bundle.
fn effort(server: &Server, options: Options) -> Result<Effort, Failure> {
    let Options { methods, timeout_ms, knocks, patience_ms, uses, duration_s, .. } = options;
    let mut effort = Effort::one_connection(server.ways(None));
    if methods & !(METHOD_SPA | METHOD_SYN | METHOD_SEQUENCE | METHOD_TOTP) != 0 {
        return Err(Failure::invalid(format_args!("{methods:#x} names methods that are unknown here")));
    }
    effort.ways.retain(|way| methods == 0 || methods & number(way.method()) != 0);
    if effort.ways.is_empty() {
        let listed: Vec<String> = server.access().methods.iter().map(ToString::to_string).collect();
        return Err(Failure::invalid(format_args!(
            "{} takes knocks by {} from this client; this library can knock by spa, syn, sequence and totp, and the options \
             leave none of them",
            server.name,
            listed.join(", ")
        )));
    }
    let millis = |number: u32| Duration::from_millis(number.into());
    effort.timeout = if timeout_ms == 0 { effort.timeout } else { millis(timeout_ms) };
    effort.patience = if patience_ms == 0 { effort.patience } else { millis(patience_ms) };
    effort.knocks = if knocks == 0 { effort.knocks } else { knocks };
    effort.uses = self::uses(uses)?;
    effort.duration = (duration_s != 0).then(|| Span::from_secs(duration_s));
    Ok(effort)
}

fn number(method: Method) -> u32 {
    match method {
        Method::Spa => METHOD_SPA,
        Method::Syn => METHOD_SYN,
        Method::Sequence => METHOD_SEQUENCE,
        Method::Totp => METHOD_TOTP,
        Method::Plain | Method::Cert => 0,
    }
}

fn uses(number: u32) -> Result<Option<Uses>, Failure> {
    match number {
        0 => Ok(Some(Uses::Once)),
        USES_PROFILE => Ok(None),
        number => u8::try_from(number).ok().and_then(Uses::number).map(Some).ok_or_else(|| {
            Failure::invalid(format_args!(
                "{number} connections; use 1 to {}, or KNOCKD_RS_USES_PROFILE",
                Uses::MOST
            ))
        }),
    }
}

/// The directories that are named, and those of the XDG specification for the others.
fn dirs(config: Option<PathBuf>, state: Option<PathBuf>) -> Result<Dirs, Failure> {
    match (config, state) {
        (Some(config), Some(state)) => Ok(Dirs { config, state }),
        (config, state) => {
            let usual = Dirs::from_env(|name| std::env::var_os(name)).ok_or_else(|| {
                Failure::invalid("HOME is not set, so there is no place for keys; name the directories")
            })?;
            Ok(Dirs { config: config.unwrap_or(usual.config), state: state.unwrap_or(usual.state) })
        }
    }
}

fn path(text: &CStr) -> PathBuf {
    OsStr::from_bytes(text.to_bytes()).into()
}

fn utf8<'a>(argument: &str, text: &'a CStr) -> Result<&'a str, Failure> {
    text.to_str().map_err(|_| Failure::invalid(format_args!("`{argument}` is no UTF-8")))
}
