//! `explain`: what the server would have done with each packet of a recording, and why.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use super::Failure;
use super::daemon::Places;
use super::exit::{print, warn};
use super::utc::time;
use crate::capture::open_whole;
use crate::clock;
use crate::config::{self, Configuration, SERVER_KEY};
use crate::privsep::explain::{Explained, Explainer, Verdict};
use crate::state;
use crate::text::ProfileName;
use crate::time::Timestamp;

/// Say what the server would have done with each packet of a recording, and why.
///
/// The packets take the way that they take in the daemon, with the configuration of this server and the times of the
/// recording. Nothing is opened, and nothing is written. Needs the server's keys, and so root.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tcpdump -i any -s 0 -w knock.pcap 'udp port 62201'      record while the client knocks
  knockd-rs explain knock.pcap
  knockd-rs explain knock.pcap --profile laptop")]
pub(super) struct Explain {
    /// The recording: a pcap or pcapng file.
    file: PathBuf,
    /// Show the packets of this profile, and those that nobody can tell whose they are.
    #[arg(long, value_name = "PROFILE")]
    profile: Option<ProfileName>,
    /// Begin with the replay marks of the daemon and the numbers of its revocation lists, read and not changed; else
    /// each knock of the recording is new once.
    #[arg(long)]
    marks: bool,
    /// Print a JSON object for each packet, and one with the sums.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    places: Places,
    /// Where the journal of replay marks lies.
    #[arg(long, value_name = "DIR", default_value = "/run/knockd-rs")]
    runtime_dir: PathBuf,
}

/// How often each verdict was given, and for which reasons.
#[derive(Default)]
struct Sums {
    packets: u64,
    verdicts: BTreeMap<Verdict, u64>,
    reasons: BTreeMap<(&'static str, &'static str), u64>,
}

impl Explain {
    pub(super) fn run(self) -> Result<(), Failure> {
        let config = self.configuration()?;
        if let Some(name) = &self.profile {
            if config.profiles.iter().all(|profile| profile.name != *name) {
                return Err(Failure::Failed(format!(
                    "there is no profile `{name}`; see `knockd-rs profile list`"
                )));
            }
        }
        let mut replay = open_whole(&self.file).map_err(|error| Failure::Failed(error.to_string()))?;
        let mut explainer = Explainer::new(&config, self.memory(&config).as_ref());
        let mut sums = Sums::default();
        let broken = loop {
            match replay.next_timed() {
                Ok(Some((at, frame))) => {
                    let explained = explainer.frame(at, &frame);
                    sums.add(&explained);
                    self.show(sums.packets, at, &explained)?;
                }
                Ok(None) => break None,
                Err(error) => break Some(error),
            }
        };
        self.show_sums(&sums)?;
        match broken {
            None => Ok(()),
            Some(error) => Err(Failure::Failed(format!(
                "{error}; what is after packet {} cannot be read, all before it was explained",
                sums.packets
            ))),
        }
    }

    fn configuration(&self) -> Result<Configuration, Failure> {
        config::load(&self.places.config_dir).map_err(|errors| {
            let key = self.places.config_dir.join(SERVER_KEY);
            match std::fs::File::open(&key) {
                Err(error) if error.kind() == ErrorKind::PermissionDenied => Failure::NotPermitted(format!(
                    "{} may not be read; explaining takes the server's keys, so run it as root",
                    key.display()
                )),
                _ => Failure::Broken(errors.iter().map(ToString::to_string).collect()),
            }
        })
    }

    fn memory(&self, config: &Configuration) -> Option<state::Place> {
        self.marks.then(|| state::Place {
            runtime: self.runtime_dir.join(state::FOLDER),
            state: self.places.state_dir.join(state::FOLDER),
            identity: config.server.public().identity(),
            boot: clock::boot(),
        })
    }

    fn show(&self, number: u64, at: Timestamp, explained: &Explained) -> Result<(), Failure> {
        let is_shown = match (&self.profile, &explained.knock) {
            (Some(wanted), Some((name, _))) => wanted == name,
            _ => true,
        };
        match (is_shown, self.json) {
            (false, _) => Ok(()),
            (true, true) => print(&object(number, at, explained).to_string()),
            (true, false) => lines(number, at, explained).iter().try_for_each(|line| print(line)),
        }
    }

    fn show_sums(&self, sums: &Sums) -> Result<(), Failure> {
        let replays = sums.reasons.contains_key(&("replay", "replayed"));
        if self.json {
            return print(&sums.object(self.marks).to_string());
        }
        sums.lines().iter().try_for_each(|line| print(line))?;
        if !self.marks && (replays || sums.verdicts.contains_key(&Verdict::Granted)) {
            warn(
                "Replays are judged within this recording alone: what the daemon has heard before it would refuse. \
                 With --marks its record counts too.",
            );
        }
        Ok(())
    }
}

impl Sums {
    fn add(&mut self, explained: &Explained) {
        self.packets += 1;
        *self.verdicts.entry(explained.verdict).or_default() += 1;
        *self.reasons.entry((explained.step, explained.reason)).or_default() += 1;
    }

    fn count(&self, verdict: Verdict) -> u64 {
        self.verdicts.get(&verdict).copied().unwrap_or(0)
    }

    fn lines(&self) -> Vec<String> {
        let verdicts: Vec<String> = Verdict::ALL
            .iter()
            .map(|verdict| format!("{} {}", self.count(*verdict), verdict.name()))
            .collect();
        let packets = if self.packets == 1 { "packet" } else { "packets" };
        let mut lines = vec![String::new(), format!("{} {packets}: {}", self.packets, verdicts.join(", "))];
        let reasons = self.reasons.iter();
        lines.extend(reasons.map(|((step, reason), count)| format!("{count:>8}  {step:<10} {reason}")));
        lines
    }

    fn object(&self, marks: bool) -> Value {
        let verdicts: serde_json::Map<String, Value> = Verdict::ALL
            .iter()
            .map(|verdict| (verdict.name().to_owned(), self.count(*verdict).into()))
            .collect();
        let reasons: Vec<Value> = self
            .reasons
            .iter()
            .map(|((step, reason), count)| json!({"step": step, "reason": reason, "count": count}))
            .collect();
        json!({"packets": self.packets, "verdicts": verdicts, "reasons": reasons, "marks": marks})
    }
}

/// Two lines: the packet and its verdict, and below it the sentence.
fn lines(number: u64, at: Timestamp, explained: &Explained) -> [String; 2] {
    let way = explained.way.map_or_else(
        || "-".to_owned(),
        |way| format!("{} -> {} {}/{}", way.source, way.destination, way.protocol, way.port),
    );
    let knock =
        explained.knock.as_ref().map(|(name, method)| format!("  {name} by {method}")).unwrap_or_default();
    let verdict = explained.verdict.name();
    let at = time(at);
    [
        format!("{number:>5}  {at}  {way}  {verdict}, {}: {}{knock}", explained.step, explained.reason),
        format!("       {}", explained.sentence),
    ]
}

fn object(number: u64, at: Timestamp, explained: &Explained) -> Value {
    let way = explained.way;
    json!({
        "number": number,
        "time": format!("{}.{:09}", at.as_secs(), at.as_nanos() % 1_000_000_000),
        "source": way.map(|way| way.source.to_string()),
        "destination": way.map(|way| way.destination.to_string()),
        "protocol": way.map(|way| way.protocol.to_string()),
        "port": way.map(|way| way.port),
        "profile": explained.knock.as_ref().map(|(name, _)| name.to_string()),
        "method": explained.knock.as_ref().map(|(_, method)| method),
        "verdict": explained.verdict.name(),
        "step": explained.step,
        "reason": explained.reason,
        "sentence": explained.sentence,
    })
}
