//! The server that is soaked: a guarded port for each method, and a client for each.

use std::fs;

use crate::Outcome;
use crate::machine::Machines;

/// The guarded ports besides those that the program serves anyway.
const MORE: [u16; 2] = [27, 28];

const CONFIGURATION: &str = r#"
[freshness]
clock = "trusted"
[guard]
drop = ["tcp/22", "tcp/23", "tcp/25-28", "tcp/62201"]
[limits]
grants = 65535
[certificate_authority]
ca = "ca/ca.pem"
crl = "ca/crl.pem"
[[certificates]]
name = "staff"
open = ["tcp/28"]
duration = "4s"
connections = "many"
"#;

/// Adds what the soak needs to a server that runs, and takes the bundles to the client.
pub(super) fn set(machines: &Machines) -> Outcome<()> {
    machines.serve(&MORE)?;
    let (server, client) = (machines.server(), machines.client());
    server.run("knockd-rs ca init --name Soak && knockd-rs ca issue --name alice --out /root/alice")?;
    fs::write(server.path("/etc/knockd-rs/knockd-rs.toml"), CONFIGURATION)?;
    server.run(
        "set -e
        add() { name=$1; shift; knockd-rs profile add $name --no-reload \"$@\"; }
        knock() { add \"$@\" --host 10.77.0.1 --server $1 --duration 4s --max-duration 1m --many; }
        knock syn --open tcp/23 --method syn
        knock totp --open tcp/25 --method totp
        knock sequence --open tcp/27 --method sequence
        add plain --open tcp/26 --plain tcp/7000,udp/8000,tcp/6000
        sed -i 's/^#*duration.*/duration = \"4s\"/; s/^#*connections.*/connections = \"many\"/' \
          /etc/knockd-rs/profiles.d/plain.toml
        knockd-rs certificates bundle staff --host 10.77.0.1 --server staff --out staff.knock
        knockd-rs reload",
    )?;
    fs::copy(machines.program(), client.path("/usr/local/bin/knockd-rs"))?;
    for name in ["syn.knock", "totp.knock", "sequence.knock", "staff.knock", "alice.pem", "alice.key"] {
        let file = client.path(&format!("/root/{name}"));
        fs::copy(server.path(&format!("/root/{name}")), &file)?;
        fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    }
    client.run(
        "set -e; for name in syn totp sequence; do knockd-rs import $name.knock; done
         knockd-rs import staff.knock --cert alice.pem --key alice.key",
    )?;
    Ok(())
}
