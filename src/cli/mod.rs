//! The command line: one typed struct for each subcommand, and [`main`], which carries out what this process was asked for.

#[cfg(feature = "client")]
mod agent;
mod bundle;
#[cfg(feature = "daemon")]
mod ca;
#[cfg(feature = "daemon")]
mod certificates;
#[cfg(feature = "client")]
mod client;
#[cfg(feature = "client")]
mod connect;
#[cfg(feature = "daemon")]
mod control;
#[cfg(feature = "daemon")]
mod crl_fetch;
#[cfg(feature = "daemon")]
mod daemon;
mod doctor;
#[cfg(feature = "daemon")]
mod door;
#[cfg(feature = "daemon")]
mod events;
mod exit;
mod expiry;
#[cfg(feature = "daemon")]
mod explain;
#[cfg(feature = "daemon")]
mod hook;
#[cfg(feature = "client")]
mod identity;
#[cfg(feature = "client")]
mod import;
#[cfg(feature = "daemon")]
mod migrate;
#[cfg(feature = "daemon")]
mod profile;
#[cfg(feature = "client")]
mod proxy;
#[cfg(feature = "daemon")]
mod reloading;
#[cfg(feature = "daemon")]
mod rotate;
#[cfg(feature = "client")]
mod sequence;
#[cfg(feature = "client")]
mod servers;
#[cfg(feature = "client")]
mod ssh_config;
#[cfg(feature = "daemon")]
mod status;
#[cfg(feature = "client")]
mod totp;
#[cfg(feature = "daemon")]
mod utc;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

pub use exit::{EXIT_CODES, Failure};

/// Port knocking and single-packet authorization for nftables, enforced by the kernel.
///
/// On a server, `knockd-rs guard` closes ports to strangers and the daemon opens them for clients that knock. On a
/// client, `knockd-rs knock` sends one encrypted datagram, and the port opens for this address alone.
#[derive(Debug, Parser)]
#[command(name = "knockd-rs", version, max_term_width = 100, after_help = EXAMPLES, disable_help_subcommand = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  On the server, as root:
    knockd-rs profile add laptop --open tcp/22    make a client; writes laptop.knock
    systemctl enable --now knockd-rs              start the daemon
    knockd-rs guard tcp/22 --confirm 2m           close the port to strangers
    knockd-rs status --watch                      watch what is open
  On the client:
    knockd-rs import laptop.knock                 learn about the server
    knockd-rs ssh-config myserver --install       let ssh knock by itself
    knockd-rs knock myserver                      knock by hand
  Where something does not work:
    knockd-rs doctor myserver                     on the client
    knockd-rs doctor                              on the server, as root

Manual: knockd-rs(8), knockd-rs.toml(5), knockd-rs-profile(5), knockd-rs-protocol(7)";

#[derive(Debug, Subcommand)]
enum Command {
    #[cfg(feature = "client")]
    Knock(client::Knock),
    #[cfg(feature = "client")]
    Connect(connect::Connect),
    #[cfg(feature = "client")]
    Agent(agent::Agent),
    #[cfg(feature = "client")]
    Proxy(proxy::Proxy),
    #[cfg(feature = "client")]
    SshConfig(ssh_config::SshConfig),
    #[cfg(feature = "client")]
    Totp(totp::Totp),
    #[cfg(feature = "client")]
    Import(import::Import),
    #[cfg(feature = "client")]
    Servers(servers::Servers),
    #[cfg(feature = "client")]
    Keygen(client::Keygen),
    #[cfg(feature = "client")]
    Sequence(sequence::Show),
    #[cfg(feature = "daemon")]
    Status(status::Show),
    #[cfg(feature = "daemon")]
    Guard(control::Guard),
    #[cfg(feature = "daemon")]
    Unguard(control::Unguard),
    #[cfg(feature = "daemon")]
    Grant(control::Grant),
    #[cfg(feature = "daemon")]
    Revoke(control::Revoke),
    #[cfg(feature = "daemon")]
    Allow(control::Allow),
    #[cfg(feature = "daemon")]
    Reload(control::Reload),
    #[cfg(feature = "daemon")]
    Events(events::Events),
    #[cfg(feature = "daemon")]
    Hook(hook::Hook),
    #[cfg(feature = "daemon")]
    Check(daemon::Check),
    #[cfg(feature = "daemon")]
    Explain(explain::Explain),
    #[cfg(feature = "daemon")]
    #[command(subcommand)]
    Profile(profile::Profile),
    #[cfg(feature = "daemon")]
    ImportConfig(migrate::ImportConfig),
    #[cfg(feature = "daemon")]
    #[command(subcommand)]
    Certificates(certificates::Certificates),
    #[cfg(feature = "daemon")]
    Ca(ca::Ca),
    #[cfg(feature = "daemon")]
    CrlFetch(crl_fetch::CrlFetch),
    #[cfg(feature = "daemon")]
    Door(door::Door),
    Doctor(doctor::Doctor),
    #[cfg(feature = "daemon")]
    Init(daemon::Init),
    #[cfg(feature = "daemon")]
    Run(daemon::Run),
    #[cfg(feature = "daemon")]
    #[command(hide = true)]
    Worker,
    #[command(subcommand)]
    Bundle(bundle::BundleCommand),
    Completions(Completions),
}

/// Print the completion script for a shell.
#[derive(Debug, clap::Args)]
struct Completions {
    /// Which shell.
    shell: clap_complete::Shell,
}

impl Completions {
    fn run(self) -> Result<(), Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut command(), "knockd-rs", &mut script);
        exit::print(String::from_utf8_lossy(&script).trim_end())
    }
}

/// Carries out what the arguments of this process say.
///
/// The daemon's own commands are looked for first, by themselves: what parsing takes for all of them, and the code that
/// does it, would stay in memory for as long as the daemon runs.
#[must_use]
pub fn main() -> ExitCode {
    #[cfg(feature = "daemon")]
    if let Some(command) = daemon::Alone::of(std::env::args_os().collect()) {
        return exit::code(command.run());
    }
    run(Cli::parse())
}

/// Carries out any command.
#[inline(never)] // Its frame, which has room for each of them, is not to lie below the daemon's.
#[expect(
    clippy::too_many_lines,
    reason = "a table: a line for each command, and one for the feature it belongs to"
)]
fn run(cli: Cli) -> ExitCode {
    let done = match cli.command {
        #[cfg(feature = "client")]
        Command::Knock(args) => args.run(),
        #[cfg(feature = "client")]
        Command::Connect(args) => args.run(),
        #[cfg(feature = "client")]
        Command::Agent(args) => args.run(),
        #[cfg(feature = "client")]
        Command::Proxy(args) => args.run(),
        #[cfg(feature = "client")]
        Command::SshConfig(args) => args.run(),
        #[cfg(feature = "client")]
        Command::Totp(args) => args.run(),
        #[cfg(feature = "client")]
        Command::Import(args) => args.run(),
        #[cfg(feature = "client")]
        Command::Servers(args) => args.run(),
        #[cfg(feature = "client")]
        Command::Keygen(args) => args.run(),
        #[cfg(feature = "client")]
        Command::Sequence(args) => args.run(),
        #[cfg(feature = "daemon")]
        Command::Status(args) => args.run(),
        #[cfg(feature = "daemon")]
        Command::Guard(args) => args.run(),
        #[cfg(feature = "daemon")]
        Command::Unguard(args) => args.run(),
        #[cfg(feature = "daemon")]
        Command::Grant(args) => args.run(),
        #[cfg(feature = "daemon")]
        Command::Revoke(args) => args.run(),
        #[cfg(feature = "daemon")]
        Command::Allow(args) => args.run(),
        #[cfg(feature = "daemon")]
        Command::Reload(args) => args.run(),
        #[cfg(feature = "daemon")]
        Command::Events(args) => args.run(),
        #[cfg(feature = "daemon")]
        Command::Hook(args) => args.run(),
        #[cfg(feature = "daemon")]
        Command::Check(args) => args.run(),
        #[cfg(feature = "daemon")]
        Command::Explain(args) => args.run(),
        #[cfg(feature = "daemon")]
        Command::Profile(args) => args.run(),
        #[cfg(feature = "daemon")]
        Command::ImportConfig(args) => args.run(),
        #[cfg(feature = "daemon")]
        Command::Certificates(command) => command.run(),
        #[cfg(feature = "daemon")]
        Command::Ca(args) => args.run(),
        #[cfg(feature = "daemon")]
        Command::CrlFetch(args) => args.run(),
        #[cfg(feature = "daemon")]
        Command::Door(args) => args.run(),
        Command::Doctor(args) => args.run(),
        #[cfg(feature = "daemon")]
        Command::Init(args) => args.run(),
        #[cfg(feature = "daemon")]
        Command::Run(args) => args.run(),
        #[cfg(feature = "daemon")]
        Command::Worker => daemon::worker(),
        Command::Bundle(command) => command.run(),
        Command::Completions(args) => args.run(),
    };
    exit::code(done)
}

/// The command line as data, for completions and for the test that keeps the manual in step.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

/// For the fuzzer: the file of ssh with the lines for a server.
#[cfg(feature = "fuzzing")]
pub(crate) fn check_ssh_config(text: &str) {
    ssh_config::check(text);
}

/// For the fuzzer: what is shown of the daemon's answer.
#[cfg(feature = "fuzzing")]
pub(crate) fn check_reply(reply: &crate::control::Reply) {
    use crate::control::Reply;

    match reply {
        Reply::Status(status) => status::check(status),
        Reply::Event(told) => {
            events::check(told);
            hook::check(told);
        }
        Reply::Done(_) | Reply::Refused(_) => {}
    }
}
