//! `status`: one screen that says how things stand.

use std::fmt::Write as _;
use std::io::IsTerminal;
use std::time::Duration;

use clap::Args;

use super::Failure;
use super::control::Daemon;
use super::exit::print;
use crate::clock;
use crate::control::{Closing, GrantStatus, GuardStatus, ProfileStatus, Status};
use crate::grant::Uses;
use crate::log::escape;
use crate::text::Span;

/// Show profiles, guarded ports, live grants and the daemon's health.
#[derive(Debug, Args)]
pub(super) struct Show {
    /// Keep showing it, once a second.
    #[arg(long, short, conflicts_with = "json")]
    watch: bool,
    /// Print JSON for machines.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    daemon: Daemon,
}

/// How many grants one screen shows.
const MAX_GRANTS_SHOWN: usize = 40;

impl Show {
    pub(super) fn run(self) -> Result<(), Failure> {
        if self.json {
            let json = serde_json::to_string_pretty(&self.daemon.status()?)
                .map_err(|error| Failure::Failed(error.to_string()))?;
            return print(&json);
        }
        let style = Style { color: std::io::stdout().is_terminal() };
        if !self.watch {
            return print(screen(&self.daemon.status()?, clock::wall().as_secs(), style).trim_end());
        }
        loop {
            let screen = screen(&self.daemon.status()?, clock::wall().as_secs(), style);
            // Home, the screen, and whatever was below it cleared: no flicker.
            print(&format!("\x1b[H\x1b[2J{screen}(every second; Ctrl-C ends)"))?;
            std::thread::sleep(Duration::from_secs(1));
        }
    }
}

#[derive(Clone, Copy)]
struct Style {
    color: bool,
}

impl Style {
    fn paint(self, code: &str, text: &str) -> String {
        if self.color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn heading(self, text: &str) -> String {
        self.paint("1", text)
    }
}

fn screen(status: &Status, now: u64, style: Style) -> String {
    let mut out = String::new();
    let health = match status.degraded.as_slice() {
        [] => style.paint("32", "healthy"),
        _ => style.paint("1;31", "degraded"),
    };
    let running = Span::from_secs(u32::try_from(status.running_for).unwrap_or(u32::MAX));
    let _ = writeln!(out, "knockd-rs {}  {health}  running for {running}", status.version);
    for trouble in &status.degraded {
        let _ = writeln!(out, "  {} {}", style.paint("31", "!"), escape(trouble));
    }
    let _ = writeln!(out, "knocks    {}", status.capture);
    let _ = writeln!(out, "firewall  {}", status.firewall);
    for note in &status.notes {
        let _ = writeln!(out, "note      {}", escape(note));
    }
    guards(&mut out, &status.guards, style);
    grants(&mut out, &status.grants, style);
    profiles(&mut out, &status.profiles, now, style);
    counters(&mut out, &status.counters, style);
    out
}

fn guards(out: &mut String, guards: &[GuardStatus], style: Style) {
    let _ = writeln!(out, "\n{}", style.heading("Guarded ports"));
    if guards.is_empty() {
        let _ = writeln!(
            out,
            "  none: every port is as open as without knockd-rs; `knockd-rs guard tcp/22 --confirm 2m` closes one"
        );
    }
    for guard in guards {
        let answer = match guard.closed {
            Closing::Drop => "drop",
            Closing::Reject => "reject",
        };
        let note = match guard.unconfirmed_for {
            Some(left) => style.paint(
                "33",
                &format!("opens again in {} unless a knock from outside confirms it", countdown(left)),
            ),
            None if guard.from_file => "by knockd-rs.toml".to_owned(),
            None => "by command".to_owned(),
        };
        let _ = writeln!(out, "  {:<18} {answer:<7} {note}", guard.ports.to_string());
    }
}

fn grants(out: &mut String, grants: &[GrantStatus], style: Style) {
    let _ = writeln!(out, "\n{}", style.heading("Live grants"));
    if grants.is_empty() {
        let _ = writeln!(out, "  none");
        return;
    }
    let _ = writeln!(
        out,
        "  {:<14} {:<24} {:<16} {:>8}  {:<5} {:>7} {:>9}",
        "PROFILE", "ADDRESS", "PORTS", "ENDS IN", "USES", "PACKETS", "BYTES"
    );
    for grant in grants.iter().take(MAX_GRANTS_SHOWN) {
        let uses = if grant.connections == Uses::Once { "one" } else { "many" };
        let profile = if grant.profile.is_empty() { "-" } else { &grant.profile };
        let _ = writeln!(
            out,
            "  {profile:<14} {:<24} {:<16} {:>8}  {uses:<5} {:>7} {:>9}",
            grant.address.to_string(),
            grant.ports.to_string(),
            countdown(grant.expires_in),
            grant.packets,
            grant.bytes,
        );
        if let Some(subject) = &grant.subject {
            let _ = writeln!(out, "    certificate of {subject}");
        }
    }
    if grants.len() > MAX_GRANTS_SHOWN {
        let _ = writeln!(
            out,
            "  and {} more; --json shows all {}",
            grants.len() - MAX_GRANTS_SHOWN,
            grants.len()
        );
    }
}

fn profiles(out: &mut String, profiles: &[ProfileStatus], now: u64, style: Style) {
    let _ = writeln!(out, "\n{}", style.heading("Profiles"));
    if profiles.is_empty() {
        let _ =
            writeln!(out, "  none: nobody can knock; `knockd-rs profile add NAME --open tcp/22` makes one");
        return;
    }
    let _ = writeln!(out, "  {:<16} {:<20} {:<14} {:<10} OPENS", "NAME", "KEY", "LAST KNOCK", "DURATION");
    for profile in profiles.iter().take(MAX_GRANTS_SHOWN) {
        let last = match profile.last_knock {
            _ if !profile.enabled => "disabled".to_owned(),
            None => "-".to_owned(),
            Some(at) => {
                format!("{} ago", Span::from_secs(u32::try_from(now.saturating_sub(at)).unwrap_or(u32::MAX)))
            }
        };
        let opens: Vec<String> = profile.open.iter().map(ToString::to_string).collect();
        let duration = format!("{}/{}", profile.duration, profile.max_duration);
        let _ = writeln!(
            out,
            "  {:<16} {:<20} {last:<14} {duration:<10} {}",
            profile.name,
            profile.fingerprint,
            opens.join(" ")
        );
    }
    if profiles.len() > MAX_GRANTS_SHOWN {
        let _ = writeln!(
            out,
            "  and {} more; --json shows all {}",
            profiles.len() - MAX_GRANTS_SHOWN,
            profiles.len()
        );
    }
}

fn counters(out: &mut String, counters: &[(String, u64)], style: Style) {
    let _ = writeln!(out, "\n{}", style.heading("Since the start"));
    if counters.is_empty() {
        let _ = writeln!(out, "  nothing has come to the knock port");
        return;
    }
    for (name, number) in counters {
        let _ = writeln!(out, "  {number:>12}  {name}");
    }
}

/// `9.5s` when it matters, `1m30s` when it does not.
fn countdown(seconds: f64) -> String {
    if seconds >= f64::from(u32::MAX) {
        return "never".to_owned();
    }
    if seconds < 60.0 {
        return format!("{seconds:.1}s");
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked above; whole seconds are meant"
    )]
    let whole = seconds as u32;
    Span::from_secs(whole).to_string()
}
