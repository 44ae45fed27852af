//! Connects to a guarded port and prints what its service says first.
//!
//! `reach SERVER PORT` for TCP, `reach SERVER PORT PROBE` for UDP. SERVER is what `knockd-rs import` called it.

use std::error::Error;
use std::io::{Read as _, Write as _};

use knockd_rs::client::{Dirs, Effort, Server, reach, reach_udp};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (name, port, probe) = match arguments.as_slice() {
        [name, port] => (name, port.parse()?, None),
        [name, port, probe] => (name, port.parse()?, Some(probe.as_bytes())),
        _ => return Err("usage: reach SERVER PORT [PROBE]".into()),
    };
    let dirs = Dirs::from_env(|name| std::env::var_os(name)).ok_or("HOME is not set")?;
    let server = Server::open(&dirs, name)?;
    let effort = Effort::one_connection(server.ways(None));
    let mut answer = [0; 512];
    let length = match probe {
        None => reach(&server, port, &effort)?.stream.read(&mut answer)?,
        Some(probe) => reach_udp(&server, port, Some(probe), &effort)?.socket.recv(&mut answer)?,
    };
    std::io::stdout().write_all(answer.get(..length).unwrap_or_default())?;
    Ok(())
}
