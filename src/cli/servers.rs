//! `servers`: what this client can open, and where.

use clap::Args;
use serde_json::json;

use super::Failure;
use super::client::dirs;
use super::exit::print;
use crate::client::store::{load_server, servers};
use crate::config::ConfigError;
use crate::enrol::{Access, Enrolment};
use crate::text::ServerName;

/// List the servers that this client knows, and what it may open there.
///
/// The fingerprint is that of the server's key, as `knockd-rs check` shows it there.
#[derive(Debug, Args)]
pub(super) struct Servers {
    /// Print one JSON object for each server, one to a line.
    #[arg(long)]
    json: bool,
}

/// A server's name, and what its file says or why it says nothing.
type Known = (ServerName, Result<Enrolment, Vec<ConfigError>>);

impl Servers {
    pub(super) fn run(self) -> Result<(), Failure> {
        let dirs = dirs()?;
        let names = servers(&dirs).map_err(|error| Failure::Failed(error.to_string()))?;
        let known: Vec<Known> = names
            .into_iter()
            .map(|name| {
                let read = load_server(&dirs, &name);
                (name, read)
            })
            .collect();
        if self.json {
            known.iter().try_for_each(|known| print(&object(known).to_string()))?;
        } else {
            table(&known)?;
        }
        match known.iter().filter(|(_, read)| read.is_err()).count() {
            0 => Ok(()),
            broken => Err(Failure::Broken(vec![format!(
                "{broken} of {} cannot be used; mend the file, or import its bundle again with --force",
                known.len()
            )])),
        }
    }
}

const HEADS: [&str; 6] = ["NAME", "HOST", "PROFILE", "OPENS", "METHODS", "FINGERPRINT"];

fn table(known: &[Known]) -> Result<(), Failure> {
    if known.is_empty() {
        return print("no server yet; `knockd-rs import FILE` makes one known");
    }
    let rows: Vec<[String; 6]> = known.iter().filter_map(row).collect();
    let widths: [usize; 6] = std::array::from_fn(|column| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain(HEADS.get(column).map(|head| head.len())).max().unwrap_or(0)
    });
    let line = |cells: &[String; 6]| {
        let padded = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    if !rows.is_empty() {
        print(&line(&HEADS.map(str::to_owned)))?;
    }
    rows.iter().try_for_each(|row| print(&line(row)))?;
    for (name, errors) in known.iter().filter_map(|(name, read)| Some((name, read.as_ref().err()?))) {
        errors.iter().try_for_each(|error| print(&format!("{name} is broken: {error}")))?;
    }
    Ok(())
}

fn row((name, read): &Known) -> Option<[String; 6]> {
    let Access { host, profile, open, methods, server_key, .. } = &read.as_ref().ok()?.access;
    let joined = |texts: Vec<String>| if texts.is_empty() { "nothing".to_owned() } else { texts.join(" ") };
    Some([
        name.to_string(),
        host.to_string(),
        profile.to_string(),
        joined(open.iter().map(ToString::to_string).collect()),
        joined(methods.iter().map(ToString::to_string).collect()),
        server_key.fingerprint(),
    ])
}

fn object((name, read): &Known) -> serde_json::Value {
    match read {
        Ok(Enrolment { access, .. }) => json!({
            "name": name,
            "host": access.host.as_str(),
            "port": access.port,
            "profile": access.profile,
            "open": access.open,
            "services": access.services,
            "methods": access.methods,
            "duration": access.duration,
            "max_duration": access.max_duration,
            "fingerprint": access.server_key.fingerprint(),
        }),
        Err(errors) => {
            let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
            json!({ "name": name, "errors": errors })
        }
    }
}
