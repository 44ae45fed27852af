//! A server that this client knows, what it opens, and which one is meant by a host and a port.

use super::cert::Identity;
use super::knock::Way;
use super::sequence::{Style, Tempo};
use super::store::{Dirs, load_server, servers};
use crate::config::{ConfigError, Place};
use crate::enrol::{Access, Enrolment};
use crate::knock::Method;
use crate::text::{PortRange, Protocol, ServerName, ServiceName};
use std::sync::Arc;

/// A server that this client knows: where its files are, its name here, and what is in its file.
#[derive(Clone, Debug)]
pub struct Server {
    /// The client's directories; the counters of this server's knocks are kept there.
    pub dirs: Dirs,
    /// What the server is called here.
    pub name: ServerName,
    /// Keys, and what the server opens.
    pub enrolment: Enrolment,
}

impl Server {
    /// Reads what is known of the server of this name.
    ///
    /// # Errors
    /// As [`load_server`].
    pub fn load(dirs: &Dirs, name: &ServerName) -> Result<Self, Vec<ConfigError>> {
        let enrolment = load_server(dirs, name)?;
        Ok(Self { dirs: dirs.clone(), name: name.clone(), enrolment })
    }

    /// The server that somebody means who connects to this TCP port of `host`: the one of that name here, else the
    /// first by name whose host it is and that opens the port. `None` when no knock is needed: the host is unknown, or
    /// opens no such port.
    ///
    /// # Errors
    /// When the file of the server of that name is broken, or the directory cannot be read. Other broken files are
    /// passed over: they are about somebody else.
    pub fn for_host(dirs: &Dirs, host: &str, port: u16) -> Result<Option<Self>, Vec<ConfigError>> {
        let unreadable = |error: crate::files::FileError| {
            let file = error.path.display().to_string();
            vec![ConfigError { place: Place { file, ..Place::default() }, what: error.what() }]
        };
        let mut meant = None;
        for name in servers(dirs).map_err(unreadable)? {
            let is_named = name.as_str().eq_ignore_ascii_case(host);
            match Self::load(dirs, &name) {
                Err(errors) if is_named => return Err(errors),
                Err(_) => {}
                Ok(server) if !server.opens(Protocol::Tcp, port) => {}
                Ok(server) if is_named => return Ok(Some(server)),
                Ok(server) if is_same_host(server.enrolment.access.host.as_str(), host) => {
                    meant = meant.or(Some(server));
                }
                Ok(_) => {}
            }
        }
        Ok(meant)
    }

    /// How to reach the server, and what it opens.
    #[must_use]
    pub fn access(&self) -> &Access {
        &self.enrolment.access
    }

    /// Whether the server opens this port for this client, as far as the bundle said.
    #[must_use]
    pub fn opens(&self, protocol: Protocol, port: u16) -> bool {
        self.opens_unasked(protocol, port) || self.service_with(protocol, port).is_some()
    }

    /// Whether a knock that names nothing opens this port.
    #[must_use]
    pub fn opens_unasked(&self, protocol: Protocol, port: u16) -> bool {
        has(&self.access().open, protocol, port)
    }

    /// The first service with this port.
    #[must_use]
    pub fn service_with(&self, protocol: Protocol, port: u16) -> Option<&ServiceName> {
        let mut services = self.access().services.iter();
        services.find(|(_, ports)| has(ports, protocol, port)).map(|(name, _)| name)
    }

    /// The ways in which this client may knock, the most discreet first. With a certificate that is the only one:
    /// the server may know no key of such a client.
    #[must_use]
    pub fn ways(&self, certificate: Option<Arc<Identity>>) -> Vec<Way> {
        if let Some(identity) = certificate {
            return vec![Way::Cert(identity)];
        }
        let sequence = Way::Sequence(Style { carrier: Protocol::Tcp, tempo: Tempo::Usual });
        let known = [Way::Spa, Way::Syn, sequence, Way::Totp];
        let may =
            |way: &Way| self.enrolment.private_key.is_some() && self.access().methods.contains(&way.method());
        known.into_iter().filter(may).collect()
    }
}

impl Way {
    /// Its name in profiles.
    #[must_use]
    pub fn method(&self) -> Method {
        match self {
            Self::Spa => Method::Spa,
            Self::Syn => Method::Syn,
            Self::Totp => Method::Totp,
            Self::Sequence(_) => Method::Sequence,
            Self::Cert(_) => Method::Cert,
        }
    }
}

fn has(ports: &[PortRange], protocol: Protocol, port: u16) -> bool {
    ports.iter().any(|range| range.protocol() == protocol && (range.first()..=range.last()).contains(&port))
}

/// Names regardless of case and of the root's dot; addresses regardless of how they are written.
fn is_same_host(known: &str, asked: &str) -> bool {
    let bare = |host: &str| host.trim_end_matches('.').to_ascii_lowercase();
    let address = |host: &str| host.parse::<std::net::IpAddr>().ok();
    match (address(known), address(asked)) {
        (Some(known), Some(asked)) => known == asked,
        _ => bare(known) == bare(asked),
    }
}
