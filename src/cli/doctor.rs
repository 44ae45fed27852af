//! `doctor`: what is wrong, and what to do about it, a line for each check.

use std::fmt::Write as _;
use std::io::IsTerminal;

use clap::Args;
use rustix::termios::tcgetwinsize;

use super::Failure;
#[cfg(feature = "client")]
use super::client::dirs;
#[cfg(feature = "daemon")]
use super::daemon::Places;
use super::exit::print;
use crate::doctor::{self, Line, State};
#[cfg(feature = "client")]
use crate::text::ServerName;

/// Find out what is wrong, and what to do about it.
///
/// With the name of a server: whether this client can knock there. Without one: whether the daemon of this machine can
/// do its work, and whether it has the effect that is meant; as root.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  knockd-rs doctor myserver            on a client: the file, the clock, the way, the port
  knockd-rs doctor myserver --knock    the same, and which method has an effect
  sudo knockd-rs doctor                on the server")]
pub(super) struct Doctor {
    /// The server, by the name under which it was imported.
    #[cfg(all(feature = "client", feature = "daemon"))]
    server: Option<ServerName>,
    /// The server, by the name under which it was imported.
    #[cfg(all(feature = "client", not(feature = "daemon")))]
    server: ServerName,
    /// Knock as well, by each method, and say which one opens the port.
    #[cfg(feature = "client")]
    #[arg(long, requires = "server")]
    knock: bool,
    /// Print JSON for machines.
    #[arg(long)]
    json: bool,
    #[cfg(feature = "daemon")]
    #[command(flatten)]
    places: Places,
    /// Where the control socket lies.
    #[cfg(feature = "daemon")]
    #[arg(long, value_name = "DIR", default_value = "/run/knockd-rs")]
    runtime_dir: std::path::PathBuf,
}

impl Doctor {
    pub(super) fn run(self) -> Result<(), Failure> {
        let lines = self.lines()?;
        if self.json {
            let json =
                serde_json::to_string_pretty(&lines).map_err(|error| Failure::Failed(error.to_string()))?;
            print(&inert(&json))?;
        } else {
            print(screen(&lines, Style::of_terminal()).trim_end())?;
        }
        let is_bad = lines.iter().any(|line| line.finding.state.is_problem());
        if is_bad { Err(Failure::Reported) } else { Ok(()) }
    }

    #[cfg(all(feature = "client", feature = "daemon"))]
    fn lines(&self) -> Result<Vec<Line>, Failure> {
        let Some(server) = &self.server else {
            self.is_meant()?;
            return Ok(self.of_server());
        };
        self.of_client(server)
    }

    /// On a machine that knows servers and is none, no name was given by mistake.
    #[cfg(all(feature = "client", feature = "daemon"))]
    fn is_meant(&self) -> Result<(), Failure> {
        let known =
            dirs().ok().and_then(|dirs| crate::client::store::servers(&dirs).ok()).unwrap_or_default();
        match known.first() {
            Some(server) if !self.places.config_dir.exists() => Err(Failure::Usage(format!(
                "there is no {} here, so that this is no server; for the way to one: knockd-rs doctor {server}",
                self.places.config_dir.display()
            ))),
            _ => Ok(()),
        }
    }

    #[cfg(all(feature = "client", not(feature = "daemon")))]
    fn lines(&self) -> Result<Vec<Line>, Failure> {
        self.of_client(&self.server)
    }

    #[cfg(not(feature = "client"))]
    fn lines(&self) -> Result<Vec<Line>, Failure> {
        Ok(self.of_server())
    }

    #[cfg(feature = "client")]
    fn of_client(&self, server: &ServerName) -> Result<Vec<Line>, Failure> {
        let facts = doctor::look::client::look(&dirs()?, server, self.knock);
        Ok(doctor::examine(doctor::client::CHECKS, &facts))
    }

    #[cfg(feature = "daemon")]
    fn of_server(&self) -> Vec<Line> {
        let places = doctor::look::server::Directories {
            config: self.places.config_dir.clone(),
            state: self.places.state_dir.clone(),
            runtime: self.runtime_dir.clone(),
        };
        doctor::examine(doctor::server::CHECKS, &doctor::look::server::look(&places))
    }
}

#[derive(Clone, Copy)]
struct Style {
    color: bool,
    /// Where lines are broken; nowhere when this is no terminal.
    width: Option<usize>,
}

impl Style {
    fn of_terminal() -> Self {
        let stdout = std::io::stdout();
        if !stdout.is_terminal() {
            return Self { color: false, width: None };
        }
        let is_plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let width = tcgetwinsize(&stdout).ok().map(|size| usize::from(size.ws_col));
        Self { color: !is_plain, width: width.filter(|width| *width >= 60) }
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Where sentences begin: after the state and the longest name of a check.
const MARGIN: usize = 24;
/// Where advice begins, so that it is not taken for the rest of a sentence.
const ADVICE: usize = MARGIN + 2;

fn screen(lines: &[Line], style: Style) -> String {
    let mut out = String::new();
    for line in lines {
        let state = &line.finding.state;
        let code = match state {
            State::Ok => "32",
            State::Warning(_) => "33",
            State::Problem(_) => "1;31",
        };
        let head = format!("{}  {:<13} ", style.paint(code, &format!("{:<7}", state.name())), line.check);
        let _ = writeln!(out, "{head} {}", wrapped(&line.finding.found, MARGIN, style));
        if let Some(advice) = state.advice() {
            let _ = writeln!(out, "{:ADVICE$}{}", "", wrapped(advice, ADVICE, style));
        }
    }
    let count = |name: &str| lines.iter().filter(|line| line.finding.state.name() == name).count();
    let many = |count: usize, name: &str| format!("{count} {name}{}", if count == 1 { "" } else { "s" });
    let verdict = match (count("problem"), count("warning")) {
        (0, 0) => style.paint("32", "all is well"),
        (0, warnings) => format!("no problem, {}", style.paint("33", &many(warnings, "warning"))),
        (problems, 0) => style.paint("1;31", &many(problems, "problem")),
        (problems, warnings) => {
            format!(
                "{}, {}",
                style.paint("1;31", &many(problems, "problem")),
                style.paint("33", &many(warnings, "warning"))
            )
        }
    };
    let _ = writeln!(out, "\n{verdict}");
    out
}

/// Text in lines that fit the terminal, each but the first behind a margin. Other people's words in it are printed, not
/// obeyed.
fn wrapped(text: &str, margin: usize, style: Style) -> String {
    let text: String = text.chars().flat_map(printable).collect();
    let Some(width) = style.width else { return text };
    let (mut out, mut column) = (String::new(), margin);
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if column > margin && column + 1 + length > width {
            let _ = write!(out, "\n{:margin$}", "");
            column = margin;
        } else if column > margin {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += length;
    }
    out
}

/// A character, or its name where a terminal would obey it.
fn printable(character: char) -> Box<dyn Iterator<Item = char>> {
    match is_obeyed(character) {
        true => Box::new(character.escape_default()),
        false => Box::new(std::iter::once(character)),
    }
}

fn is_obeyed(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The same JSON, in which a terminal obeys nothing but the ends of lines: what JSON itself lets pass is written as its
/// number. All such characters are inside of texts.
pub(super) fn inert(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for character in json.chars() {
        if is_obeyed(character) && character != '\n' {
            let _ = write!(out, "\\u{:04x}", u32::from(character));
        } else {
            out.push(character);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::{Check, Finding, examine};

    const CHECKS: &[Check<()>] = &[
        Check {
            name: "kernel",
            judge: |()| vec![Finding { state: State::Ok, found: "it takes the ruleset".into() }],
        },
        Check {
            name: "configuration",
            judge: |()| {
                let state = State::Problem("take it out of the file and reload".into());
                vec![Finding { state, found: "a key that nobody knows \x1b[2J stands in it".into() }]
            },
        },
    ];

    #[test]
    fn advice_stands_below_what_it_is_about_and_nothing_is_obeyed() {
        let lines = examine(CHECKS, &());
        let plain = Style { color: false, width: None };
        assert_eq!(
            screen(&lines, plain),
            "ok       kernel         it takes the ruleset\n\
             problem  configuration  a key that nobody knows \\u{1b}[2J stands in it\n\
             \u{20}                         take it out of the file and reload\n\
             \n1 problem\n"
        );
    }

    #[test]
    fn a_terminal_obeys_nothing_in_the_json_either_and_machines_read_what_was_meant() {
        let meant = "\u{1b}[2J \u{9b}2J \u{7f} \u{202e}txt\n";
        let json = inert(&serde_json::to_string_pretty(&[meant]).unwrap());
        assert!(!json.chars().any(|character| is_obeyed(character) && character != '\n'), "{json:?}");
        assert_eq!(serde_json::from_str::<Vec<String>>(&json).unwrap(), [meant]);
    }

    #[test]
    fn lines_are_broken_at_the_terminals_edge_and_only_there() {
        let narrow = Style { color: false, width: Some(60) };
        assert_eq!(
            wrapped("take it out of the file and reload what is left of it then", 24, narrow),
            "take it out of the file and reload\n                        what is left of it then"
        );
    }
}
