//! Knocks whose effect is not looked for: what to ask for, by the first way that can say it and goes out.

use super::counter::Oddity;
use super::knock::{KnockError, Knocker, Way};
use super::reach::{Effort, in_order};
use super::server::Server;
use crate::knock::{Ask, Op, Target, Wanted, service_tag};
use crate::session::Session;
use crate::text::PortRange;

/// A knock that was sent. Nothing answers knocks: whether it had an effect is not known.
#[derive(Debug)]
pub struct Sent {
    /// How.
    pub by: Way,
    /// What was odd about the counter.
    pub oddity: Option<Oddity>,
}

/// Knocks for these ports, or for everything that the profile opens when there are none; by one way, and without looking
/// for an effect. Returns when all copies are out, after about a second.
///
/// Of [`Effort`] the ways, what to ask for and the clock count. The way that worked in this network before comes first;
/// the next one is taken where one cannot say what is wanted, or cannot be sent from here.
///
/// # Errors
/// [`KnockError`] of the last way, when none was sent.
pub fn knock_for(server: &Server, ports: &[PortRange], effort: &Effort) -> Result<Sent, KnockError> {
    send(&mut Knocker::new(server, effort.clock)?, Op::Open, ports, effort)
}

/// Ends this client's grants for these ports, or for everything that the profile opens when there are none; by a knock
/// that is sent as those of [`knock_for`] are.
///
/// # Errors
/// As [`knock_for`].
pub fn close(server: &Server, ports: &[PortRange], effort: &Effort) -> Result<Sent, KnockError> {
    send(&mut Knocker::new(server, effort.clock)?, Op::Close, ports, effort)
}

pub(super) fn send(
    knocker: &mut Knocker<'_>,
    op: Op,
    ports: &[PortRange],
    effort: &Effort,
) -> Result<Sent, KnockError> {
    let mut last = KnockError::NoWay;
    for way in in_order(&effort.ways, knocker.lesson().1) {
        let Some(ask) = ask(knocker.server, &way, op, ports, effort) else {
            last = KnockError::Unsayable;
            continue;
        };
        knocker.way = way.clone();
        match knocker.knock(&ask) {
            Ok(()) => return Ok(Sent { by: way, oddity: knocker.oddity.take() }),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// What to ask for so that these ports open or close; `None` where this way cannot say it.
pub(super) fn ask(server: &Server, way: &Way, op: Op, ports: &[PortRange], effort: &Effort) -> Option<Ask> {
    let says_all = matches!(way, Way::Spa | Way::Cert(_) | Way::Sequence(_));
    if !says_all && op != Op::Open {
        return None;
    }
    let is_open =
        |range: &PortRange| range.is_single() && server.opens_unasked(range.protocol(), range.first());
    let wanted = match (way, ports) {
        (_, []) => Wanted::Defaults,
        _ if says_all => Wanted::Ports(ports.to_vec()),
        _ if ports.iter().all(is_open) => Wanted::Defaults,
        (Way::Syn, [port]) if port.is_single() => {
            let service = server.service_with(port.protocol(), port.first())?;
            Wanted::Service(service_tag(service.as_str()))
        }
        _ => return None,
    };
    // SYNs and totp cannot ask for less than the profile gives.
    let (uses, duration) = if says_all { (effort.uses, effort.duration) } else { (None, None) };
    Some(Ask {
        op,
        target: Target::Source,
        uses,
        session: Session::default(),
        wide: false,
        duration,
        ports: wanted,
    })
}
