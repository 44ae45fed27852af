//! `sequence`: an encoded sequence printed for other tools, or laid open step by step.

use clap::Args;
use serde_json::json;

use super::Failure;
use super::client::{SessionFlags, broken, dirs, may_use, uses, wanted};
use super::exit::{print, warn};
use crate::client::sequence::{show, take};
use crate::client::store::load_server;
use crate::clock;
use crate::grant::Uses;
use crate::knock::sequence::{STEP, Sequence};
use crate::knock::{Ask, Method, Op, Target, Wanted};
use crate::profile::Opens;
use crate::text::{Protocol, ServerName, Span};

/// Print the ports of an encoded sequence, or show how a request becomes one.
///
/// What --print prints is a knock like any other: it counts once, within three minutes, in any order. With --explain
/// nothing is counted or sent, and the sequence is one of 2000-01-01, which no server opens to: it may be shown to
/// others.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  knockd-rs sequence myserver --explain tcp/22      from the request to the ports, in tables
  knockd-rs sequence myserver --print tcp/22        tcp/31337 and so on, one line for each knock
  for p in $(knockd-rs sequence myserver --print --udp); do echo >/dev/udp/203.0.113.5/${p#udp/}; done")]
#[command(group(clap::ArgGroup::new("what").required(true).args(["print", "explain"])))]
pub(super) struct Show {
    /// The server, by the name under which it was imported.
    server: ServerName,
    /// Ports such as tcp/22 or tcp/8000-8100, or a service such as ssh.
    #[arg(value_name = "PORT|SERVICE")]
    open: Vec<Opens>,
    /// Print the ports to knock at, for another program to do so.
    #[arg(long)]
    print: bool,
    /// Show the request, the message, the lanes and the ports.
    #[arg(long)]
    explain: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Name the ports as UDP.
    #[arg(long)]
    udp: bool,
    /// How long the grant is to last: 30s, 5m, 2h. A sequence says it in steps of 9 per cent.
    #[arg(long = "for", value_name = "DURATION")]
    duration: Option<Span>,
    /// Ask for any number of connections instead of one.
    #[arg(long)]
    many: bool,
    /// Ask for this number of connections.
    #[arg(long, value_name = "NUMBER", conflicts_with = "many")]
    connections: Option<Uses>,
    #[command(flatten)]
    flags: SessionFlags,
    /// Open for the whole network of the address, where the profile allows it.
    #[arg(long)]
    wide: bool,
    /// Open for this address instead of the one that the knocks come from.
    #[arg(long, value_name = "ADDRESS")]
    address: Option<std::net::IpAddr>,
    /// End this client's grants instead of opening.
    #[arg(long, conflicts_with_all = ["duration", "many", "connections", "SessionFlags"])]
    close: bool,
}

impl Show {
    pub(super) fn run(self) -> Result<(), Failure> {
        let dirs = dirs()?;
        let enrolment = load_server(&dirs, &self.server).map_err(|errors| broken(&errors))?;
        may_use(&enrolment.access, &self.server, Method::Sequence)?;
        let (ports, _) = wanted(&self.open, &self.server, &enrolment.access)?;
        let ask = Ask {
            op: if self.close { Op::Close } else { Op::Open },
            target: self.address.map_or(Target::Source, Target::Address),
            uses: uses(self.connections, self.many),
            session: self.flags.session(),
            wide: self.wide,
            duration: self.duration,
            ports,
        };
        let now = clock::wall();
        let failed = |error: crate::client::knock::KnockError| Failure::Failed(error.to_string());
        if self.explain {
            return self.explain(&ask, &show(&enrolment, &ask).map_err(failed)?);
        }
        let (sequence, oddity) = take(&dirs, &self.server, &enrolment, &ask, now).map_err(failed)?;
        if let Some(oddity) = oddity {
            warn(&format!("knockd-rs: warning: {oddity}"));
        }
        self.print_ports(&sequence)
    }

    fn carrier(&self) -> Protocol {
        if self.udp { Protocol::Udp } else { Protocol::Tcp }
    }

    fn print_ports(&self, sequence: &Sequence) -> Result<(), Failure> {
        if self.json {
            let ports: Vec<u16> = sequence.ports().collect();
            return print(&json!({ "protocol": self.carrier().to_string(), "ports": ports }).to_string());
        }
        sequence.ports().try_for_each(|port| print(&format!("{}/{port}", self.carrier())))
    }

    fn explain(&self, ask: &Ask, sequence: &Sequence) -> Result<(), Failure> {
        if self.json {
            return print(&self.as_json(sequence).to_string());
        }
        let lines = [
            vec![
                format!("request  {}", said(ask)),
                "as of 2000-01-01 00:00 UTC: good nowhere".to_owned(),
                String::new(),
            ],
            payload_table(ask, sequence),
            message_table(sequence),
            self.lane_table(sequence),
        ];
        lines.iter().flatten().try_for_each(|line| print(line))
    }

    fn as_json(&self, sequence: &Sequence) -> serde_json::Value {
        let lanes: Vec<serde_json::Value> = sequence
            .notes
            .iter()
            .map(|note| json!({ "lane": note.lane, "byte": note.byte, "symbol": note.symbol, "port": note.port }))
            .collect();
        json!({
            "protocol": self.carrier().to_string(),
            "counter": sequence.counter.as_secs(),
            "step": sequence.step(),
            "payload": hex(&sequence.payload),
            "message": hex(&sequence.message),
            "lanes": lanes,
        })
    }

    fn lane_table(&self, sequence: &Sequence) -> Vec<String> {
        let message = sequence.message.len();
        let mut lines = vec![
            format!(
                "lanes    {} knocks, of which any {message} are enough: Reed-Solomon over GF(2^8)",
                sequence.ports().count()
            ),
            "  lane  byte  carries    symbol (voice, lane, byte)  port".to_owned(),
        ];
        lines.extend(sequence.notes.iter().map(|note| {
            let carries = if usize::from(note.lane) < message { "message" } else { "check sum" };
            let port = note.port.map_or("left out".to_owned(), |port| format!("{}/{port}", self.carrier()));
            let (voice, lane) = (note.symbol >> 13, (note.symbol >> 8) & 31);
            let symbol = format!("{:5} ({voice}, {lane:2}, {:02x})", note.symbol, note.byte);
            format!("  {:>4}  {:02x}    {carries:<9}  {symbol:<26}  {port}", note.lane, note.byte)
        }));
        lines
    }
}

/// The request in a line.
fn said(ask: &Ask) -> String {
    let what = match &ask.ports {
        Wanted::Defaults => "everything that the profile opens".to_owned(),
        Wanted::Service(tag) => format!("the service with the tag {tag}"),
        Wanted::Ports(ports) => ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
    };
    let whom = match ask.target {
        Target::Source => "the knocks' source".to_owned(),
        Target::Address(address) | Target::SourceOnly(address) => address.to_string(),
    };
    match ask.op {
        Op::Open | Op::Renew => format!("open {what} for {whom}"),
        Op::Close => format!("close {what} for {whom}"),
    }
}

fn payload_table(ask: &Ask, sequence: &Sequence) -> Vec<String> {
    let counter = sequence.counter.as_secs();
    let duration = ask.duration.and_then(crate::knock::sequence::rounded);
    let duration = duration.map_or("as the profile says".to_owned(), |span| format!("{} s", span.as_secs()));
    let fields = [
        (0, 1, "head", "version, operation, kind of address, protocol".to_owned()),
        (1, 1, "counter", format!("{counter} mod {STEP}; its upper part is the step, {}", sequence.step())),
        (2, 1, "duration", duration),
        (3, 3, "ports", "first port and how many further ones, or the service's tag".to_owned()),
        (6, 1, "session", "session flags".to_owned()),
        (7, 1, "flags", "1: a single connection, 2: only from the address".to_owned()),
        (8, sequence.payload.len().saturating_sub(8), "address", "to open for".to_owned()),
    ];
    table(format!("payload  {} bytes", sequence.payload.len()), &sequence.payload, &fields)
}

fn message_table(sequence: &Sequence) -> Vec<String> {
    let fields = [
        (0, 2, "hint", "by which the server finds the client; hidden by a veil".to_owned()),
        (2, 8, "tag", "HMAC-SHA256 of step and payload".to_owned()),
        (10, sequence.payload.len(), "ct", "the payload in AES-256-CTR, the tag being its nonce".to_owned()),
    ];
    table(format!("message  {} bytes", sequence.message.len()), &sequence.message, &fields)
}

fn table(title: String, bytes: &[u8], fields: &[(usize, usize, &str, String)]) -> Vec<String> {
    let width = fields.iter().map(|(_, len, ..)| 2 * len).max().unwrap_or(0).max(5);
    let row = |(at, len, name, meaning): &(usize, usize, &str, String)| {
        let shown = hex(bytes.get(*at..at + len).unwrap_or_default());
        (*len > 0).then(|| format!("  {at:>3}  {len:>3}  {name:<8}  {shown:<width$}  {meaning}"))
    };
    let head = format!("  off  len  {:<8}  {:<width$}  meaning", "field", "bytes");
    [title, head].into_iter().chain(fields.iter().filter_map(row)).chain([String::new()]).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
