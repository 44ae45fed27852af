//! fwknopd of Debian, with its defaults but for the interface, the keys and the firewall, which is iptables. Its packets
//! are made by its own client, before the clock starts, and sent by the harness.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use base64ct::{Base64, Encoding};

use super::Contender;
use crate::Outcome;
use crate::knocks::Knock;
use crate::machine::{Machine, Machines, Running};
use crate::traffic::{Junk, random_bytes};

const PORT: u16 = 25;
/// Where it looks for packets, and so does knockd-rs: each hears the other's knocks and drops them.
const KNOCKS: u16 = 62_201;
/// How many packets are made at a time. They are good for two minutes.
const BATCH: usize = 20;

struct Fwknop {
    running: Running,
    client: Machine,
    /// The client's command.
    command: String,
    packets: Vec<Vec<u8>>,
}

pub(super) fn start(machines: &Machines) -> Outcome<Box<dyn Contender>> {
    let server = machines.server();
    let [key, hmac] = [random_bytes(32)?, random_bytes(64)?].map(|bytes| Base64::encode_string(&bytes));
    server.run(&format!(
        "mkdir -p /etc/fwknop /run/fwknop; iptables -F; iptables -X; iptables -A INPUT -p tcp --dport {PORT} -j DROP"
    ))?;
    let access = format!(
        "SOURCE ANY\nOPEN_PORTS tcp/{PORT}\nFW_ACCESS_TIMEOUT 15\nKEY_BASE64 {key}\nHMAC_KEY_BASE64 {hmac}\n"
    );
    let settings = "PCAP_INTF eth0;\nFIREWALL_EXE /usr/local/bin/iptables;\n".to_owned();
    for (name, text) in [("access.conf", access), ("fwknopd.conf", settings)] {
        let file = server.path(&format!("/etc/fwknop/{name}"));
        fs::write(&file, text)?;
        fs::set_permissions(&file, PermissionsExt::from_mode(0o600))?;
    }
    let program = "fwknopd -f -c /etc/fwknop/fwknopd.conf -a /etc/fwknop/access.conf -r /run/fwknop";
    let mut running = server.start(program, "/var/log/fwknopd.log")?;
    running.await_ready(Duration::from_secs(10), |running| running.log().contains("main event loop"))?;
    let command = format!(
        "fwknop -A tcp/{PORT} -s -D 10.77.0.1 --key-base64-rijndael {key} --key-base64-hmac {hmac} --use-hmac \
         --no-rc-file --no-save-args -T -b -B /root/packets >/dev/null"
    );
    Ok(Box::new(Fwknop { running, client: machines.client().clone(), command, packets: Vec::new() }))
}

impl Fwknop {
    fn packet(&mut self) -> Outcome<Vec<u8>> {
        if self.packets.is_empty() {
            let command = &self.command;
            self.client
                .run(&format!("rm -f packets; for i in $(seq {BATCH}); do {command} || exit 1; done"))?;
            let text = fs::read_to_string(self.client.path("/root/packets"))?;
            self.packets = text.lines().map(|line| line.as_bytes().to_vec()).collect();
        }
        self.packets.pop().ok_or_else(|| "fwknop made no packet".into())
    }
}

impl Contender for Fwknop {
    fn name(&self) -> &'static str {
        "fwknopd"
    }

    fn port(&self) -> u16 {
        PORT
    }

    fn running(&self) -> &Running {
        &self.running
    }

    fn knock(&mut self) -> Outcome<Knock> {
        Ok(Knock(vec![(KNOCKS, self.packet()?)]))
    }

    /// Letters of base64: anything else would fail at its first look.
    fn random_junk(&self) -> Outcome<Junk> {
        let payload = || Ok(Base64::encode_string(&random_bytes(153)?).into_bytes());
        Ok(Junk::datagrams(KNOCKS, (0..1024).map(|_| payload()).collect::<Outcome<_>>()?))
    }
}
