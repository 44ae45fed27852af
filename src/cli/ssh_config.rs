//! `ssh-config`: the lines by which ssh knocks by itself, printed or put into `~/.ssh/config`.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use clap::Args;

use super::Failure;
use super::client::{broken, dirs};
use super::exit::{print, warn};
use crate::client::server::Server;
use crate::files::{self, Existing, FileError, FileFault, Private, Rules};
use crate::text::{PortRange, Protocol, ServerName};

/// Print the lines for ~/.ssh/config that make `ssh SERVER` knock by itself, or put them there.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  knockd-rs ssh-config myserver              look at it
  knockd-rs ssh-config myserver --install    then: ssh myserver")]
pub(super) struct SshConfig {
    /// The server, by the name under which it was imported.
    server: ServerName,
    /// Put the lines at the top of ~/.ssh/config, in the place of those that were put there before.
    #[arg(long)]
    install: bool,
    /// The port of ssh; 22, or else the first single TCP port that the server opens.
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
}

impl SshConfig {
    pub(super) fn run(self) -> Result<(), Failure> {
        let server = Server::load(&dirs()?, &self.server).map_err(|errors| broken(&errors))?;
        let port = self.port.or_else(|| port_of_ssh(&server)).ok_or_else(|| {
            Failure::Usage(format!(
                "{} opens no TCP port for this client, so there is nothing for ssh",
                self.server
            ))
        })?;
        if !server.opens(Protocol::Tcp, port) {
            return Err(Failure::Usage(format!("{} does not open tcp/{port} for this client", self.server)));
        }
        let block = block(&server, port, &program()?);
        if !self.install {
            return print(block.trim_end());
        }
        let path = install(&self.server, &block)?;
        warn(&format!("made {}; from now on it knocks by itself: ssh {}", path.display(), self.server));
        Ok(())
    }
}

fn port_of_ssh(server: &Server) -> Option<u16> {
    let singles =
        server.access().open.iter().filter(|range| range.protocol() == Protocol::Tcp && range.is_single());
    let first = singles.map(PortRange::first).next();
    if server.opens(Protocol::Tcp, 22) { Some(22) } else { first }
}

/// `Match all` at its end gives what follows to every host again, as it was before these lines.
fn block(server: &Server, port: u16, program: &str) -> String {
    let (begin, end) = marks(&server.name);
    let port = if port == 22 { String::new() } else { format!("    Port {port}\n") };
    format!(
        "{begin}\nHost {name}\n    HostName {host}\n{port}    ProxyCommand {program} connect --fdpass {name} %p\n    \
         ProxyUseFdpass yes\nMatch all\n{end}\n",
        name = server.name,
        // ssh expands `%`, which stands before the zone of a link-local address.
        host = server.access().host.as_str().replace('%', "%%"),
    )
}

fn marks(server: &ServerName) -> (String, String) {
    (format!("# knockd-rs {server}: begin"), format!("# knockd-rs {server}: end"))
}

/// How ssh finds this program: by its name where the search path leads to it, else by its path.
fn program() -> Result<String, Failure> {
    let own = std::env::current_exe().and_then(std::fs::canonicalize);
    let own = own.map_err(|error| Failure::Failed(format!("this program's own path is unknown: {error}")))?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|dir| dir.join(NAME)).find(|file| file.is_file());
    if found.and_then(|file| std::fs::canonicalize(file).ok()).as_ref() == Some(&own) {
        return Ok(NAME.to_owned());
    }
    // ssh expands `%` in this line and gives the rest to a shell.
    Ok(files::quoted(&own).replace('%', "%%"))
}

/// This program's name in the search path.
const NAME: &str = "knockd-rs";

/// Writes the file anew, with these lines at its top: what comes first is what ssh takes.
fn install(server: &ServerName, block: &str) -> Result<PathBuf, Failure> {
    let failed = |error: FileError| Failure::Failed(error.to_string());
    let home = std::env::var_os("HOME").map(PathBuf::from).filter(|home| home.is_absolute());
    let home = home.ok_or_else(|| Failure::Failed("HOME is not set; set it".into()))?;
    let dir = home.join(".ssh");
    let made = DirBuilder::new().recursive(true).mode(0o700).create(&dir);
    made.map_err(|error| failed(FileError { path: dir.clone(), fault: error.into() }))?;
    let named = dir.join("config");
    // A file that is kept elsewhere, and linked to from here, stays there.
    let path = match std::fs::canonicalize(&named) {
        Ok(path) => path,
        Err(_) if named.is_symlink() => {
            let line = format!("{} is a link that leads nowhere; mend or remove it", named.display());
            return Err(Failure::Failed(line));
        }
        Err(_) => named,
    };
    let text = with_block(&current(&path).map_err(failed)?, server, block)
        .map_err(|what| Failure::Broken(vec![format!("{}: {what}", path.display())]))?;
    files::write(&path, text.as_bytes(), Private { existing: Existing::Replace, ..Private::NEW })
        .map_err(failed)?;
    Ok(path)
}

fn current(path: &Path) -> Result<String, FileError> {
    let rules = Rules { forbidden: 0o022, mode: 0o600, owners: files::own_owners(), limit: 1 << 20 };
    match files::read_text(path, &rules) {
        Err(FileError { fault: FileFault::Missing, .. }) => Ok(String::new()),
        other => other.map(|text| text.to_string()),
    }
}

/// The text with the server's lines at its top, and without those that were there before.
fn with_block(text: &str, server: &ServerName, block: &str) -> Result<String, String> {
    let (begin, end) = marks(server);
    // With their ends, which stay as they are.
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let at = |mark: &str| lines.iter().position(|line| line.trim() == mark);
    let rest: Vec<&str> = match (at(&begin), at(&end)) {
        (None, None) => lines,
        (Some(first), Some(last)) if first < last => {
            lines.iter().take(first).chain(lines.iter().skip(last + 1)).copied().collect()
        }
        _ => {
            return Err(format!(
                "`{begin}` and `{end}` do not belong together; remove the one that is left over"
            ));
        }
    };
    Ok(format!("{block}{}", rest.concat()))
}

/// For the fuzzer: the lines come first, come once, and leave all others in their order; a second time changes nothing.
#[cfg(feature = "fuzzing")]
pub(super) fn check(text: &str) {
    let Ok(server) = "home".parse() else { return };
    let (begin, end) = marks(&server);
    let block = format!("{begin}\nHost home\nMatch all\n{end}\n");
    let Ok(with) = with_block(text, &server, &block) else { return };
    assert_eq!(with_block(&with, &server, &block).as_ref(), Ok(&with));
    let rest = with.strip_prefix(&block).unwrap_or_default();
    let mut all = text.split_inclusive('\n');
    assert!(rest.split_inclusive('\n').all(|line| all.any(|other| other == line)), "{with:?}");
    assert!(text.contains(&begin) || rest == text);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(text: &str, block: &str) -> Result<String, String> {
        with_block(text, &"home".parse().unwrap(), block)
    }

    const BLOCK: &str = "# knockd-rs home: begin\nHost home\nMatch all\n# knockd-rs home: end\n";

    #[test]
    fn lines_are_put_before_what_is_there_and_in_the_place_of_older_ones() {
        let own = "ServerAliveInterval 60\n\nHost other\n    User me\n";
        let once = put(own, BLOCK).unwrap();
        assert_eq!(once, format!("{BLOCK}{own}"));
        let newer = BLOCK.replace("Host home", "Host home\n    Port 2222");
        assert_eq!(put(&once, &newer).unwrap(), format!("{newer}{own}"));
        assert_eq!(put("", BLOCK).unwrap(), BLOCK);
    }

    #[test]
    fn the_ends_of_other_lines_stay_as_they_are() {
        for own in ["Host a\r\n    User me\r\n", "Host a", "\r", "\n\r\n\r"] {
            let once = put(own, BLOCK).unwrap();
            assert_eq!(once, format!("{BLOCK}{own}"));
            assert_eq!(put(&once, BLOCK).unwrap(), once);
        }
    }

    #[test]
    fn the_zone_of_a_link_local_address_is_none_of_what_ssh_expands() {
        let home = tempfile::tempdir().unwrap();
        let mut server = crate::client::store::example(home.path());
        server.enrolment.access.host = "fe80::1%eth0".parse().unwrap();
        let block = block(&server, 22, "knockd-rs");
        assert!(block.contains("    HostName fe80::1%%eth0\n"), "{block}");
    }

    #[test]
    fn half_of_older_lines_is_an_error_and_nothing_is_lost() {
        let error = put("# knockd-rs home: begin\nHost mine\n", BLOCK).unwrap_err();
        assert!(error.contains("remove the one that is left over"), "{error}");
    }
}
