//! Recordings on the way that they take in the worker: from files, by libpcap, before the server that each is for.

use std::error::Error;
use std::fs;
use std::hint::black_box;
use std::path::{Path, PathBuf};

use knockd_rs::capture::{Frame, open_whole};
use knockd_rs::config::load;
use knockd_rs::frame::Link;
use knockd_rs::privsep::explain::{Explained, Explainer};
use knockd_rs::time::Timestamp;

use crate::Outcome;
use crate::kinds::{KINDS, Kind};
use crate::packets::recording::Recording;

/// A frame in memory.
struct Packet {
    at: Timestamp,
    link: Link,
    bytes: Vec<u8>,
    wire_len: usize,
}

/// Makes the file of each kind in this folder.
///
/// # Errors
/// When the server judges a packet in another way than the kind expects: then something else would be counted.
pub fn make_files(folder: &Path) -> Outcome<()> {
    fs::create_dir_all(folder)?;
    for (number, kind) in KINDS.iter().enumerate() {
        let mut recording = Recording::ethernet();
        (kind.make)(&mut recording);
        let file = file(folder, number);
        fs::write(&file, recording.file())?;
        let (mut explainer, packets) = ready(kind, &file)?;
        for (number, packet) in packets.iter().enumerate().skip(kind.before) {
            let Explained { verdict, step, reason, .. } = explainer.frame(packet.at, &packet.frame());
            let said = format!("{} {step} {reason}", verdict.name());
            if !kind.expected.iter().any(|expected| said.starts_with(expected)) {
                return Err(format!("{}: packet {number} is {said}", kind.name).into());
            }
        }
    }
    Ok(())
}

/// Has the packets of every kind judged, and prints how many of each were counted.
pub fn count(folder: &Path) -> Outcome<()> {
    for (number, kind) in KINDS.iter().enumerate() {
        let (mut explainer, packets) = ready(kind, &file(folder, number))?;
        let counted = packets.get(kind.before..).unwrap_or_default();
        counted_packets(&mut explainer, counted);
        println!("{}", counted.len());
    }
    Ok(())
}

/// What callgrind counts, by this name, and nothing else.
#[inline(never)]
fn counted_packets(explainer: &mut Explainer, packets: &[Packet]) {
    for packet in packets {
        black_box(explainer.frame(packet.at, &packet.frame()));
    }
}

/// A server that has judged what comes before, and all packets of the kind.
fn ready(kind: &Kind, file: &Path) -> Outcome<(Explainer, Vec<Packet>)> {
    let folder = kind.server.folder();
    let broken = |errors: Vec<_>| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    let mut explainer = Explainer::new(&load(folder.path()).map_err(broken)?, None);
    let packets = read(file)?;
    for packet in packets.iter().take(kind.before) {
        explainer.frame(packet.at, &packet.frame());
    }
    Ok((explainer, packets))
}

fn read(file: &Path) -> Result<Vec<Packet>, Box<dyn Error + Send + Sync>> {
    let mut replay = open_whole(file)?;
    let mut packets = Vec::new();
    while let Some((at, Frame { link, bytes, wire_len })) = replay.next_timed()? {
        packets.push(Packet { at, link, bytes: bytes.to_vec(), wire_len });
    }
    Ok(packets)
}

impl Packet {
    fn frame(&self) -> Frame<'_> {
        Frame { link: self.link, bytes: &self.bytes, wire_len: self.wire_len }
    }
}

fn file(folder: &Path, number: usize) -> PathBuf {
    folder.join(format!("{}.pcap", number + 1))
}
