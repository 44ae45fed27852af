//! knockd of Debian, with the sequence of its manual by UDP, and iptables.

use std::fs;
use std::time::Duration;

use super::Contender;
use crate::Outcome;
use crate::knocks::Knock;
use crate::machine::{Machines, Running};
use crate::traffic::{Junk, random_bytes};

const PORT: u16 = 26;
const SEQUENCE: [u16; 3] = [7000, 8000, 9000];

const SETTINGS: &str = "\
[options]
logfile = /var/log/knockd.log
interface = eth0

[bench]
sequence = 7000:udp,8000:udp,9000:udp
seq_timeout = 5
start_command = /usr/local/bin/iptables -I INPUT -s %IP% -p tcp --dport 26 -j ACCEPT
cmd_timeout = 15
stop_command = /usr/local/bin/iptables -D INPUT -s %IP% -p tcp --dport 26 -j ACCEPT
";

struct Knockd {
    running: Running,
}

pub(super) fn start(machines: &Machines) -> Outcome<Box<dyn Contender>> {
    let server = machines.server();
    // The rest stays: fwknopd may be running beside it.
    server.run(&format!(
        "rm -f /var/log/knockd.log; iptables -D INPUT -p tcp --dport {PORT} -j DROP 2>/dev/null
         iptables -A INPUT -p tcp --dport {PORT} -j DROP"
    ))?;
    fs::write(server.path("/etc/knockd.conf"), SETTINGS)?;
    // It writes its log itself.
    let mut running = server.start("knockd -c /etc/knockd.conf", "/var/log/knockd.out")?;
    running.also_logs(server.path("/var/log/knockd.log"));
    running.await_ready(Duration::from_secs(10), |running| running.log().contains("listening on"))?;
    Ok(Box::new(Knockd { running }))
}

impl Contender for Knockd {
    fn name(&self) -> &'static str {
        "knockd"
    }

    fn port(&self) -> u16 {
        PORT
    }

    fn running(&self) -> &Running {
        &self.running
    }

    fn knock(&mut self) -> Outcome<Knock> {
        Ok(Knock(SEQUENCE.iter().map(|port| (*port, vec![0])).collect()))
    }

    /// Datagrams to the first port of the sequence, of any content, for it looks at none.
    fn random_junk(&self) -> Outcome<Junk> {
        let [first, ..] = SEQUENCE;
        Ok(Junk::datagrams(first, vec![random_bytes(1)?]))
    }
}
