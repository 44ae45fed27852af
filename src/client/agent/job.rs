//! What an agent is to keep open, and how it is said.

use std::net::SocketAddr;

use super::plan::Length;
use crate::client::knock::Way;
use crate::client::server::Server;
use crate::knock::{Ask, Op, Target, Wanted};
use crate::session::Session;
use crate::text::{PortRange, Protocol, Span};

/// How many ports are tried at the most.
const MAX_TRIED: usize = 4;

/// What an agent is to do.
#[derive(Debug)]
pub struct Job {
    /// At which server.
    pub server: Server,
    /// The ways to knock, in the order in which they are tried; see [`Server::ways`].
    pub ways: Vec<Way>,
    /// What is asked for.
    pub wanted: Wanted,
    /// The ports that this means.
    pub ports: Vec<PortRange>,
    /// How long a grant is to last; `None` for what suits.
    pub duration: Option<Span>,
    /// Whether grants are left to lapse when the agent ends.
    pub keep: bool,
}

impl Job {
    /// How long grants will last, as far as the bundle told.
    pub(super) fn length(&self) -> Length {
        let access = self.server.access();
        Length::new(self.duration, access.duration, access.max_duration)
    }

    /// The ports for sentences.
    pub(super) fn ports(&self) -> String {
        let ports: Vec<String> = self.ports.iter().map(ToString::to_string).collect();
        ports.join(" ")
    }

    /// The TCP ports at this address that show whether there is a grant.
    pub(super) fn targets(&self, address: SocketAddr) -> Vec<SocketAddr> {
        let tcp = self.ports.iter().filter(|range| range.protocol() == Protocol::Tcp && range.is_single());
        tcp.map(|range| SocketAddr::new(address.ip(), range.first())).take(MAX_TRIED).collect()
    }

    /// What this way says, and how long its grant lasts; `None` where it cannot say it.
    pub(super) fn ask(&self, way: &Way, op: Op, length: &Length) -> Option<(Ask, Span)> {
        let (op, ports, duration) = match way {
            Way::Spa | Way::Cert(_) | Way::Sequence(_) => (op, self.wanted.clone(), Some(length.asked())),
            // They can ask for a beginning alone, which is a renewal where something is open.
            Way::Syn | Way::Totp if op == Op::Close => return None,
            Way::Syn => (Op::Open, self.briefly().or_else(|| self.service())?, None),
            Way::Totp => (Op::Open, self.briefly()?, None),
        };
        let lasts = duration.unwrap_or(length.unasked());
        let duration = duration.filter(|_| op != Op::Close);
        let (target, uses, session) = (Target::Source, None, Session::default());
        Some((Ask { op, target, uses, session, wide: false, duration, ports }, lasts))
    }

    /// Everything that the profile opens, where that has all that is wanted in it.
    fn briefly(&self) -> Option<Wanted> {
        let open = &self.server.access().open;
        let is_there = |wanted: &PortRange| open.iter().any(|open| open.contains(wanted));
        self.ports.iter().all(is_there).then_some(Wanted::Defaults)
    }

    fn service(&self) -> Option<Wanted> {
        matches!(self.wanted, Wanted::Service(_)).then(|| self.wanted.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(ports: &[&str]) -> Job {
        let home = tempfile::tempdir().unwrap();
        let mut server = crate::client::store::example(home.path());
        server.enrolment.access.open = vec!["tcp/22".parse().unwrap(), "udp/53".parse().unwrap()];
        let ports: Vec<PortRange> = ports.iter().map(|port| port.parse().unwrap()).collect();
        let wanted = Wanted::Ports(ports.clone());
        Job { server, ways: Vec::new(), wanted, ports, duration: Some(Span::from_secs(60)), keep: false }
    }

    #[test]
    fn a_knock_that_can_say_how_long_asks_for_it_and_one_that_cannot_asks_for_everything() {
        let job = job(&["tcp/22"]);
        let length = job.length();
        let (ask, lasts) = job.ask(&Way::Spa, Op::Renew, &length).unwrap();
        assert_eq!((ask.op, ask.duration, lasts), (Op::Renew, job.duration, Span::from_secs(60)));
        assert_eq!(ask.ports, job.wanted);
        let (ask, lasts) = job.ask(&Way::Totp, Op::Renew, &length).unwrap();
        assert_eq!((ask.op, ask.duration, ask.ports), (Op::Open, None, Wanted::Defaults));
        assert_eq!(lasts, length.unasked());
    }

    #[test]
    fn what_a_knock_cannot_say_it_does_not_say() {
        let job = job(&["tcp/80"]);
        let length = job.length();
        assert!(job.ask(&Way::Syn, Op::Open, &length).is_none());
        assert!(job.ask(&Way::Totp, Op::Close, &length).is_none());
        assert_eq!(job.ask(&Way::Spa, Op::Close, &length).unwrap().0.duration, None);
    }

    #[test]
    fn single_tcp_ports_show_whether_there_is_a_grant_and_nothing_else_does() {
        let at = |ports: &[&str]| job(ports).targets("10.0.0.1:62201".parse().unwrap());
        assert_eq!(at(&["tcp/22", "udp/53", "tcp/8000-8010"]), ["10.0.0.1:22".parse().unwrap()]);
        assert!(at(&["udp/53"]).is_empty());
    }
}
