//! [`Request`] → [`Opening`]: the monitor's own bounds, computed from the configuration, never from the worker.

use std::fmt;
use std::net::IpAddr;
use std::rc::Rc;

use super::{Action, Grant, Holder, Request, Session, Uses, label, network_of};
use crate::knock::ClientId;
use crate::policy::{Rules, disjoint, within};
use crate::text::{Moment, PortRange, Span};
use crate::time::Timestamp;

/// What one profile can ever be given: the outer bounds of its [`Rules`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProfileLimits {
    /// The profile's name.
    pub name: String,
    /// Its client: a profile of the same name with another key is another profile.
    pub client: ClientId,
    /// Its client by the keys that were replaced and are still good, and until when they are.
    pub previous: Vec<(ClientId, Moment)>,
    /// Its rules, which profiles that allow the same have in common.
    pub rules: Rc<Rules>,
    /// Whether its clients knock with certificates, each of which has grants of its own.
    pub by_certificate: bool,
}

/// What all profiles of one configuration can ever be given, by index. Each worker is admitted by the limits of
/// the configuration that it was started with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    profiles: Vec<ProfileLimits>,
}

/// An admitted grant. Out of what a worker sent only [`Limits::admit`] makes one; an admin's `grant` command is the
/// other way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    /// The profile's name, for the kernel's element and the log; for a certificate that of its table, and which one.
    pub profile: String,
    /// The certificate that the knock was made with.
    pub holder: Option<Holder>,
    /// How many grants of this profile may be live.
    pub max_grants: u16,
    /// Open or close.
    pub action: Action,
    /// The address let in; of a network, the lowest.
    pub address: IpAddr,
    /// Whether it is a network.
    pub wide: bool,
    /// Disjoint port ranges.
    pub ports: Vec<PortRange>,
    /// For how many connections.
    pub uses: Uses,
    /// What holds for them besides.
    pub session: Session,
    /// How long the address is locked out afterwards, where the session says that it is.
    pub lockout: Span,
    /// For how long.
    pub lifetime: Span,
    /// When the profile's time is over.
    pub expires: Option<Moment>,
}

impl ProfileLimits {
    /// Until when the keys of an older profile are good here, where they have been replaced since; `None` when that is
    /// another client.
    fn end_of(&self, older: &Self) -> Option<Option<Moment>> {
        let replaced = || self.previous.iter().find(|(client, _)| *client == older.client);
        match self.name == older.name {
            true if self.client == older.client => Some(None),
            true => replaced().map(|(_, until)| Some(*until)),
            false => None,
        }
    }
}

impl Opening {
    /// The same, cut to end with the profile; `None` when that is over.
    #[must_use]
    pub fn within(&self, at: Timestamp) -> Option<Self> {
        let lifetime = within(self.lifetime, self.expires, at)?;
        Some(Self { lifetime, ..self.clone() })
    }
}

impl Limits {
    /// Bounds for these profiles; a [`super::ProfileIndex`] is a place in this list.
    #[must_use]
    pub fn new(profiles: Vec<ProfileLimits>) -> Self {
        Self { profiles }
    }

    /// The profile at this index.
    #[must_use]
    pub fn profile(&self, index: super::ProfileIndex) -> Option<&ProfileLimits> {
        self.profiles.get(usize::try_from(index.0).ok()?)
    }

    /// The same request under a newer configuration: `None` when that does not allow it any more. What a worker
    /// asks for that does not know of the change yet is no breach, and opens nothing.
    #[must_use]
    pub fn still_allowed(&self, request: &Request, newer: &Self) -> Option<Opening> {
        let profile = self.profile(request.grant.profile)?;
        let same = |(index, other): (usize, &ProfileLimits)| Some((index, other.end_of(profile)?));
        let (index, end) = newer.profiles.iter().enumerate().find_map(same)?;
        let grant =
            Grant { profile: super::ProfileIndex(u32::try_from(index).ok()?), ..request.grant.clone() };
        let opening = newer.admit(&Request { grant, ..request.clone() }).ok()?;
        Some(Opening { expires: opening.expires.into_iter().chain(end).min(), ..opening })
    }

    /// Checks a request against what its profile can ever be given. A worker that follows its policy never
    /// fails here, so a failure means that the worker is broken or captured.
    ///
    /// # Errors
    /// The [`Breach`]; the caller ends the worker.
    pub fn admit(&self, request: &Request) -> Result<Opening, Breach> {
        let Grant { profile, action, source, address, wide, ports, uses, session, lifetime } = &request.grant;
        let ProfileLimits { name, rules, by_certificate, .. } =
            self.profile(*profile).ok_or(Breach::Profile { index: profile.0 })?;
        let breach = |what| Err(Breach::Rules { profile: name.clone(), what });
        if *by_certificate != request.holder.is_some() {
            return breach(
                "it names a certificate where the profile has none, or none where there has to be one",
            );
        }
        if *ports != disjoint(ports.iter().copied()) {
            return breach("its port ranges overlap or are out of order");
        }
        if ports.iter().any(|range| !rules.open.iter().any(|open| open.contains(range))) {
            return breach("a port is outside the profile");
        }
        if *uses > rules.connections {
            return breach("it asks for more connections than the profile allows");
        }
        if !session.covers(rules.session) {
            return breach("it lacks session flags that the profile insists on");
        }
        if *wide && (!rules.wide || session.alone || session.ends || session.lock_out) {
            return breach("it is for a network where the profile allows single addresses");
        }
        if *lifetime > rules.max_duration || *lifetime == Span::from_secs(0) {
            return breach("it lasts longer than the profile allows, or not at all");
        }
        if address != source && !rules.other_addresses.iter().any(|network| network.contains(*address)) {
            return breach("it is for an address that the profile does not allow");
        }
        if address.is_unspecified() || address.is_multicast() || *address == IpAddr::from([255; 4]) {
            return breach("it is for an address that no host has");
        }
        Ok(Opening {
            profile: request.holder.as_ref().map_or_else(|| name.clone(), |holder| label(name, holder.id)),
            holder: request.holder.clone(),
            max_grants: rules.max_grants,
            action: *action,
            address: if *wide { network_of(*address) } else { *address },
            wide: *wide,
            ports: ports.clone(),
            uses: *uses,
            session: *session,
            lockout: rules.lockout,
            lifetime: *lifetime,
            expires: rules.expires,
        })
    }
}

/// A request outside the limits. Told in the log as what it is: an attack, or a bug as bad as one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Breach {
    /// There is no profile at this index.
    Profile {
        /// The index asked for.
        index: u32,
    },
    /// The profile can never be given this.
    Rules {
        /// The profile's name.
        profile: String,
        /// What is outside.
        what: &'static str,
    },
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Profile { index } => {
                write!(f, "a request for profile number {index}, which does not exist")
            }
            Self::Rules { profile, what } => write!(f, "a request for profile {profile}: {what}"),
        }
    }
}

impl std::error::Error for Breach {}

#[cfg(test)]
mod tests;
