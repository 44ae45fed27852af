//! `status`: one screen that says how things stand.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::IsTerminal;
use std::num::NonZeroU32;
use std::time::Duration;

use clap::Args;

use super::Failure;
use super::control::Daemon;
use super::doctor::inert;
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
    /// Which page of grants and of profiles to show, of forty lines each.
    #[arg(long, value_name = "NUMBER", default_value = "1", conflicts_with = "json")]
    page: NonZeroU32,
    /// Print JSON for machines.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    daemon: Daemon,
}

/// How many lines of a table one screen shows.
const PAGE: usize = 40;

impl Show {
    pub(super) fn run(self) -> Result<(), Failure> {
        if self.json {
            let json = serde_json::to_string_pretty(&self.daemon.status()?)
                .map_err(|error| Failure::Failed(error.to_string()))?;
            return print(&inert(&json));
        }
        let style = Style { color: std::io::stdout().is_terminal() };
        if !self.watch {
            return print(
                screen(self.daemon.status()?, clock::wall().as_secs(), self.page(), style).trim_end(),
            );
        }
        loop {
            let screen = screen(self.daemon.status()?, clock::wall().as_secs(), self.page(), style);
            // Home, the screen, and whatever was below it cleared: no flicker.
            print(&format!("\x1b[H\x1b[2J{screen}(every second; Ctrl-C ends)"))?;
            std::thread::sleep(Duration::from_secs(1));
        }
    }
}

impl Show {
    fn page(&self) -> usize {
        usize::try_from(self.page.get() - 1).unwrap_or(usize::MAX)
    }
}

/// The lines of a page, and what to say below them where there is more than one.
fn page<'a, T>(lines: &'a [T], number: usize, what: &str) -> (&'a [T], Option<String>) {
    let pages = lines.len().div_ceil(PAGE).max(1);
    let number = number.min(pages - 1);
    let shown = lines.chunks(PAGE).nth(number).unwrap_or_default();
    let more = format!(
        "  page {} of {pages}, {} {what}; --page NUMBER shows another, --json all",
        number + 1,
        lines.len()
    );
    (shown, (pages > 1).then_some(more))
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

fn screen(mut status: Status, now: u64, number: usize, style: Style) -> String {
    tame(&mut status);
    // Those that end first, first.
    status.grants.sort_by(|a, b| a.expires_in.total_cmp(&b.expires_in));
    let mut out = String::new();
    let health = match status.degraded.as_slice() {
        [] => style.paint("32", "healthy"),
        _ => style.paint("1;31", "degraded"),
    };
    let running = Span::from_secs(u32::try_from(status.running_for).unwrap_or(u32::MAX));
    let _ = writeln!(out, "knockd-rs {}  {health}  running for {running}", status.version);
    for trouble in &status.degraded {
        let _ = writeln!(out, "  {} {}", style.paint("31", "!"), trouble);
    }
    let _ = writeln!(out, "knocks    {}", status.capture);
    let _ = writeln!(out, "firewall  {}", status.firewall);
    for note in &status.notes {
        let _ = writeln!(out, "note      {note}");
    }
    guards(&mut out, &status.guards, style);
    grants(&mut out, &status.grants, number, style);
    barred(&mut out, &status, style);
    profiles(&mut out, &status, now, number, style);
    counters(&mut out, &status.counters, style);
    out
}

/// Whatever the daemon has heard or read, a terminal obeys none of it.
fn tame(status: &mut Status) {
    let Status { version, degraded, notes, capture, firewall, profiles, .. } = status;
    let Status { grants, lockouts, last_knocks, counters, .. } = status;
    let texts = [version, capture, firewall].into_iter().chain(degraded).chain(notes).chain(last_knocks);
    let of_profiles = profiles.iter_mut().flat_map(|profile| [&mut profile.name, &mut profile.fingerprint]);
    let of_grants =
        grants.iter_mut().flat_map(|grant| std::iter::once(&mut grant.profile).chain(&mut grant.subject));
    let of_lockouts = lockouts.iter_mut().map(|lockout| &mut lockout.profile);
    let of_counters = counters.iter_mut().map(|(name, _)| name);
    for text in texts.chain(of_profiles).chain(of_grants).chain(of_lockouts).chain(of_counters) {
        if let Cow::Owned(escaped) = escape(text) {
            *text = escaped;
        }
    }
}

/// Of the screen a terminal obeys nothing but the ends of lines.
#[cfg(feature = "fuzzing")]
pub(super) fn check(status: &Status) {
    let json = inert(&serde_json::to_string_pretty(status).unwrap_or_default());
    for text in [json, screen(status.clone(), 1_800_000_000, 0, Style { color: false })] {
        assert!(text.lines().all(|line| escape(line) == line), "{text:?}");
    }
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

fn grants(out: &mut String, grants: &[GrantStatus], number: usize, style: Style) {
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
    let (shown, more) = page(grants, number, "grants");
    for grant in shown {
        let uses = match grant.connections {
            Uses::Once => "one".to_owned(),
            Uses::Few(count) => count.to_string(),
            Uses::Many => "many".to_owned(),
        };
        let profile = if grant.profile.is_empty() { "-" } else { &grant.profile };
        let _ = writeln!(
            out,
            "  {profile:<14} {:<24} {:<16} {:>8}  {uses:<5} {:>7} {:>9}",
            whom(grant),
            grant.ports.to_string(),
            countdown(grant.expires_in),
            grant.packets,
            grant.bytes,
        );
        if let Some(subject) = &grant.subject {
            let _ = writeln!(out, "    certificate of {subject}");
        }
        if !grant.session.is_empty() {
            let flags: Vec<String> = grant.session.iter().map(ToString::to_string).collect();
            let _ = writeln!(out, "    {}", flags.join(", "));
        }
    }
    more.into_iter().for_each(|line| {
        let _ = writeln!(out, "{line}");
    });
}

fn whom(grant: &GrantStatus) -> String {
    let all = if grant.address.is_ipv4() { 32 } else { 128 };
    if grant.prefix == all {
        grant.address.to_string()
    } else {
        format!("{}/{}", grant.address, grant.prefix)
    }
}

/// Who is refused on account of an earlier grant; nothing where nobody is.
fn barred(out: &mut String, status: &Status, style: Style) {
    if status.lockouts.is_empty() && status.last_knocks.is_empty() {
        return;
    }
    let _ = writeln!(out, "\n{}", style.heading("Barred"));
    for lock in status.lockouts.iter().take(PAGE) {
        let when = match lock.begins_in {
            begins if begins > 0.0 => {
                format!("for {} in {}", countdown(lock.ends_in - begins), countdown(begins))
            }
            _ => format!("for another {}", countdown(lock.ends_in)),
        };
        let _ = writeln!(
            out,
            "  {:<24} locked out {when}, after a grant of {}",
            lock.address.to_string(),
            lock.profile
        );
    }
    if status.lockouts.len() > PAGE {
        let _ = writeln!(out, "  and {} more addresses; --json shows all", status.lockouts.len() - PAGE);
    }
    for client in status.last_knocks.iter().take(PAGE) {
        let _ = writeln!(
            out,
            "  {client:<24} has knocked for the last time; `knockd-rs allow {client}` lets it knock again"
        );
    }
    if status.last_knocks.len() > PAGE {
        let _ = writeln!(out, "  and {} more clients; --json shows all", status.last_knocks.len() - PAGE);
    }
}

fn profiles(out: &mut String, status: &Status, now: u64, number: usize, style: Style) {
    let profiles: &[ProfileStatus] = &status.profiles;
    let _ = writeln!(out, "\n{}", style.heading("Profiles"));
    if profiles.is_empty() {
        let _ =
            writeln!(out, "  none: nobody can knock; `knockd-rs profile add NAME --open tcp/22` makes one");
        return;
    }
    let _ = writeln!(out, "  {:<16} {:<20} {:<14} {:<10} OPENS", "NAME", "KEY", "LAST KNOCK", "DURATION");
    let (shown, more) = page(profiles, number, "profiles");
    for profile in shown {
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
    more.into_iter().for_each(|line| {
        let _ = writeln!(out, "{line}");
    });
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_obeys_nothing_that_stands_in_the_status() {
        let trap = "\u{1b}[2J\u{9b}2J\u{202e}\r\n";
        let json = r#"{"version":T,"monitor_pid":1,"worker_pid":2,"running_for":9,"configuration":1,"serving":1,"degraded":[T],
            "notes":[T],"capture":T,"firewall":T,"landlock":true,"guards":[],"last_knocks":[T],"counters":[[T,1]],
            "profiles":[{"name":T,"enabled":true,"open":[],"duration":"15s","max_duration":"1m","connections":"many",
            "fingerprint":T,"last_knock":null}],"lockouts":[{"profile":T,"address":"::1","begins_in":0.0,"ends_in":9.0}],
            "grants":[{"profile":T,"subject":T,"address":"::1","prefix":128,"ports":"tcp/22","connections":"many",
            "expires_in":1.0,"granted_for":2.0,"packets":0,"bytes":0}]}"#;
        let json = json.replace(":T", &format!(":{}", serde_json::to_string(trap).unwrap()));
        let json = json.replace("[T", &format!("[{}", serde_json::to_string(trap).unwrap()));
        let status: Status = serde_json::from_str(&json).unwrap();
        let shown = screen(status, 1_800_000_000, 0, Style { color: false });
        assert!(shown.matches("[2J").count() >= 12, "{shown}");
        assert!(shown.lines().all(|line| escape(line) == line), "{shown:?}");
    }
}
