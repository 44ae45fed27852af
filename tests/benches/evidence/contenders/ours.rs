//! knockd-rs, as its package would run it: both processes, confined, as nice as the unit says, with the journal of
//! counters on disk.

use std::fs;
use std::time::Duration;

use knockd_rs::clock;
use knockd_rs::crypto::{Gate, Secret};
use knockd_rs::enrol::{Carried, load_carried};
use knockd_rs::grant::Uses;
use knockd_rs::knock::spa::{ClientIdentity, DEFAULT_PAYLOAD, next_counter, seal};
use knockd_rs::knock::{Ask, Wanted};
use knockd_rs::time::Timestamp;

use super::Contender;
use crate::Outcome;
use crate::knocks::Knock;
use crate::machine::{Machines, Running};
use crate::traffic::{Junk, random_bytes};

const PORT: u16 = 22;
/// The port that knocks are sent to.
pub const KNOCKS: u16 = 62_201;
/// The length of a packet.
const LENGTH: usize = 176;
const DIRECTORY: &str = "/etc/knockd-rs";

/// What a run of it is set to.
#[derive(Clone, Copy, Default)]
pub struct Settings {
    /// Profiles besides the one that knocks.
    pub others: u32,
    /// What one source may cost a second, where it is more than the default.
    pub handshakes: Option<u32>,
}

/// The daemon and a client of it.
pub struct Ours {
    running: Running,
    identity: ClientIdentity,
    /// Another client, whose keys somebody else has as well.
    robbed: ClientIdentity,
    last: Option<Timestamp>,
    /// From the start of the program until it took commands.
    pub start_up: Duration,
}

pub(super) fn start(machines: &Machines) -> Outcome<Box<dyn Contender>> {
    Ok(Box::new(Ours::start(machines, Settings::default())?))
}

impl Ours {
    /// Starts it anew, with nothing left of the run before.
    pub fn start(machines: &Machines, settings: Settings) -> Outcome<Self> {
        let server = machines.server();
        let program = server.path("/usr/local/bin/knockd-rs");
        fs::copy(machines.program(), program)?;
        server.run(
            "
            nft delete table inet knockd-rs 2>/dev/null || true
            rm -rf /etc/knockd-rs/* /var/lib/knockd-rs /root/*.knock",
        )?;
        let handshakes = settings
            .handshakes
            .map(|count| format!("handshakes_per_second = {count}\nhandshakes_per_source = {count}\n"));
        let text = format!(
            "[freshness]\nclock = \"trusted\"\n[guard]\ndrop = [\"tcp/{PORT}\"]\n[limits]\ngrants = 65535\n{}",
            handshakes.unwrap_or_default()
        );
        fs::write(server.path(&format!("{DIRECTORY}/knockd-rs.toml")), text)?;
        server.run(&format!("
            knockd-rs profile add robbed --open tcp/1
            knockd-rs profile add bench --open tcp/{PORT} --open tcp/30000-60000 --max-duration 1h --many
            cd {DIRECTORY}/profiles.d
            sed -i 's/^#max_grants.*/max_grants = 65535/; s/^#methods.*/methods = [\"spa\", \"syn\", \"sequence\"]/' bench.toml"))?;
        add_others(machines, settings.others)?;
        let command = format!("{} /usr/local/bin/knockd-rs run", super::as_nice_as_the_unit()?);
        let mut running = server.start(&command, "/var/log/knockd-rs.log")?;
        let start_up =
            running.await_ready(Duration::from_secs(120), |running| running.log().contains("listening: "))?;
        let [identity, robbed] = [identity(machines, "bench")?, identity(machines, "robbed")?];
        Ok(Self { running, identity, robbed, last: None, start_up })
    }

    /// A sealed request.
    pub fn packet(&mut self, ask: &Ask) -> Outcome<Knock> {
        let counter = next_counter(clock::wall(), self.last);
        self.last = Some(counter);
        let mut ephemeral = [0; 32];
        getrandom::fill(&mut ephemeral)?;
        let packet = seal(ask, counter, &self.identity, Secret::new(ephemeral), DEFAULT_PAYLOAD)?;
        Ok(Knock(vec![(KNOCKS, packet)]))
    }

    /// A request for five single ports, each a grant of its own in the kernel, for an hour.
    pub fn five_grants(&mut self) -> Outcome<Knock> {
        let ports =
            (0..5).map(|place| format!("tcp/{}", 30_000 + 2 * place).parse()).collect::<Result<_, _>>()?;
        let duration = Some("1h".parse()?);
        self.packet(&Ask {
            ports: Wanted::Ports(ports),
            uses: Some(Uses::Many),
            duration,
            ..Ask::everything()
        })
    }

    /// Packets of somebody who robbed another client: the first checks hold, and would cost the server its dearest one.
    pub fn robbed_packets(&self, count: usize) -> Outcome<Vec<Vec<u8>>> {
        let gate = Gate::new(&self.robbed.server, &self.robbed.gate);
        (0..count)
            .map(|_| {
                let mut packet = random_bytes(LENGTH - 16)?;
                let mac1 = gate.mac1(&self.robbed.pseudonym(), &packet);
                packet.extend_from_slice(&mac1);
                Ok(packet)
            })
            .collect()
    }
}

impl Contender for Ours {
    fn name(&self) -> &'static str {
        "knockd-rs"
    }

    fn port(&self) -> u16 {
        PORT
    }

    fn running(&self) -> &Running {
        &self.running
    }

    fn knock(&mut self) -> Outcome<Knock> {
        let ports = Wanted::Ports(vec![format!("tcp/{PORT}").parse()?]);
        self.packet(&Ask { uses: Some(Uses::Once), ports, ..Ask::everything() })
    }

    fn random_junk(&self) -> Outcome<Junk> {
        let payloads = (0..1024).map(|_| random_bytes(LENGTH)).collect::<Outcome<_>>()?;
        Ok(Junk::datagrams(KNOCKS, payloads))
    }
}

fn identity(machines: &Machines, name: &str) -> Outcome<ClientIdentity> {
    let broken = |errors: Vec<_>| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    let bundle = machines.server().path(&format!("{DIRECTORY}/profiles.d/{name}.knock"));
    let bundle =
        if bundle.exists() { bundle } else { machines.server().path(&format!("/root/{name}.knock")) };
    let Carried::Open(bundle) = load_carried(&bundle).map_err(broken)? else {
        return Err("the bundle is under a passphrase".into());
    };
    let enrolment = bundle.into_enrolment(None)?;
    Ok(ClientIdentity {
        keys: enrolment.key_pair().ok_or("the bundle has no key")?,
        psk: enrolment.access.psk.unwrap_or_else(|| Secret::new([0; 32])),
        server: enrolment.access.server_key,
        gate: enrolment.access.gate_key,
    })
}

/// Writes profiles of clients that never knock. Any 32 bytes are a public key of X25519.
fn add_others(machines: &Machines, count: u32) -> Outcome<()> {
    use base64ct::{Base64, Encoding};
    let directory = machines.server().path(&format!("{DIRECTORY}/profiles.d"));
    for number in 0..count {
        let key = Base64::encode_string(&random_bytes(32)?);
        let text = format!("public_key = \"{key}\"\nopen = [\"tcp/22\"]\n");
        let file = directory.join(format!("other{number}.toml"));
        fs::write(&file, text)?;
        fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o640))?;
    }
    Ok(())
}
