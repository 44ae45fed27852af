//! Where knocks come from, and who else is on the ports.

use super::super::finding::{Finding, listed};
use super::{Daemon, Device, Facts};
use crate::text::PortRange;

pub(super) fn capture(facts: &Facts) -> Vec<Finding> {
    let mut findings: Vec<Finding> = facts.device.iter().map(device).collect();
    if let Some(Err(error)) = &facts.packet_sockets {
        findings.push(Finding::problem(
            format!("no packet socket can be made: {error}"),
            "load the kernel's af_packet, and give the daemon CAP_NET_RAW as its unit does",
        ));
    }
    if let Daemon::Running(running) = &facts.daemon {
        findings.push(match running.frames {
            (frames, 0) => Finding::ok(format!("{frames} frames came to the daemon, and none was lost")),
            (frames, lost) => Finding::warning(
                format!("the kernel had no room for {lost} frames, besides {frames} that came"),
                "knocks are sent thrice; if this grows all the time, name one interface in capture.device, or let the \
                 firewall ration what comes, as nft/examples/nflog.nft does",
            ),
        });
    }
    findings
}

fn device(device: &Device) -> Finding {
    match device {
        Device::Any(up) if up.is_empty() => Finding::problem(
            "no interface is up but loopback: no knock can come",
            "connect this machine, and see: ip link",
        ),
        Device::Any(up) => Finding::ok(format!("knocks are awaited on every interface; {} up", are(up))),
        Device::Interface(name, Some(true)) => {
            Finding::ok(format!("knocks are awaited on {name}, which is up"))
        }
        Device::Interface(name, Some(false)) => Finding::problem(
            format!("{name}, where knocks are awaited, is down"),
            format!("switch it on: ip link set {name} up"),
        ),
        Device::Interface(name, None) => Finding::problem(
            format!("there is no interface {name}, where knocks are to be awaited"),
            "set capture.device in knockd-rs.toml to one that `ip link` shows, or to \"any\"",
        ),
        Device::Other(name) => Finding::ok(format!("knocks are awaited at {name}")),
    }
}

fn are(names: &[String]) -> String {
    format!("{} {}", listed(names), if names.len() == 1 { "is" } else { "are" })
}

pub(super) fn knock_port(facts: &Facts) -> Vec<Finding> {
    let Some(wanted) = &facts.wanted else { return Vec::new() };
    let port = wanted.port;
    if facts.port_users.is_empty() {
        return vec![Finding::ok(format!("no program has bound UDP port {port}, to which knocks are sent"))];
    }
    vec![Finding::warning(
        format!("UDP port {port}, to which knocks are sent, is bound by {}", listed(&facts.port_users)),
        "knocks are heard all the same, but that program gets them too and may answer: move it, or choose another \
         capture.port and give all clients new bundles",
    )]
}

pub(super) fn listeners(facts: &Facts) -> Vec<Finding> {
    let (Some(wanted), Some(listening)) = (&facts.wanted, &facts.listening) else { return Vec::new() };
    // What leads to other hosts has its listeners there.
    if wanted.is_gateway || guarded(facts).is_empty() {
        return Vec::new();
    }
    let meets = |ports: &PortRange, others: &[PortRange]| {
        others.iter().any(|other| ports.intersection(other).is_some())
    };
    let deserted: Vec<String> = guarded(facts)
        .iter()
        .filter(|ports| !meets(ports, listening) && !meets(ports, &wanted.forwards))
        .map(ToString::to_string)
        .collect();
    if deserted.is_empty() {
        return vec![Finding::ok("somebody listens on every guarded port")];
    }
    vec![Finding::warning(
        format!("nobody listens on {}: a client that knocks is refused there", listed(&deserted)),
        "start the service; one in a container whose ports an engine publishes does not show here, nor does one that a \
         grant starts",
    )]
}

/// Every guarded port, by the file, by command, and in the kernel.
pub(super) fn guarded(facts: &Facts) -> Vec<PortRange> {
    let file = facts.wanted.iter().flat_map(|wanted| wanted.guards.clone());
    let kernel = facts.table.iter().flat_map(|table| &table.seen);
    let kernel = kernel.flat_map(|table| table.guards.iter().map(|guard| guard.0));
    let mut all: Vec<PortRange> = file.chain(kernel).collect();
    if let Daemon::Running(running) = &facts.daemon {
        all.extend(&running.guards);
    }
    all.sort_unstable();
    all.dedup();
    all
}
