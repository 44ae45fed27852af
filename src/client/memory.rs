//! What worked before: for each server and network the method that had an effect, and how long a connection took.
//!
//! One line for a network in `SERVER.networks`: hash, method, microseconds, seconds since 1970. Nothing depends on it
//! but the order of tries, so a file that is gone or damaged is begun anew, and of two programs that write at the same
//! time one wins.

use std::path::PathBuf;
use std::time::Duration;

use super::network::Network;
use super::server::Server;
use super::store::make_private_dir;
use crate::files::{self, Existing, FileError, Private, Rules};
use crate::knock::Method;
use crate::time::Timestamp;

/// The networks remembered of one server; the one that was used least recently makes room.
pub const MAX_NETWORKS: usize = 64;

/// What worked in one network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lesson {
    /// Where.
    pub network: Network,
    /// By which method, if any was needed yet.
    pub method: Option<Method>,
    /// How long the connection took from its SYN on.
    pub round_trip: Duration,
    /// When this was learnt.
    pub when: Timestamp,
}

/// What is remembered of this server in this network.
#[must_use]
pub fn recall(server: &Server, network: Network) -> Option<Lesson> {
    load(server).into_iter().find(|lesson| lesson.network == network)
}

/// Remembers what worked. Without a method, the one that worked before stays.
///
/// # Errors
/// [`FileError`] when the file cannot be written.
pub fn remember(server: &Server, lesson: Lesson) -> Result<(), FileError> {
    let mut lessons = load(server);
    let before = lessons.iter().position(|known| known.network == lesson.network);
    let before = before.map(|at| lessons.remove(at));
    let method = lesson.method.or(before.and_then(|before| before.method));
    lessons.push(Lesson { method, ..lesson });
    lessons.sort_by_key(|lesson| std::cmp::Reverse(lesson.when));
    lessons.truncate(MAX_NETWORKS);
    let text: String = lessons.iter().map(line).collect();
    make_private_dir(&server.dirs.state)?;
    files::write(&file(server), text.as_bytes(), Private { existing: Existing::Replace, ..Private::NEW })
}

fn file(server: &Server) -> PathBuf {
    server.dirs.networks_file(&server.name)
}

fn load(server: &Server) -> Vec<Lesson> {
    let rules = Rules { forbidden: 0o177, mode: 0o600, owners: files::own_owners(), limit: 64 << 10 };
    let text = files::read_text(&file(server), &rules);
    text.map(|text| text.lines().filter_map(parse).take(MAX_NETWORKS).collect()).unwrap_or_default()
}

fn line(lesson: &Lesson) -> String {
    let hash: String = lesson.network.0.iter().map(|byte| format!("{byte:02x}")).collect();
    let method = lesson.method.map_or("-", Method::name);
    format!("{hash} {method} {} {}\n", lesson.round_trip.as_micros(), lesson.when.as_secs())
}

fn parse(line: &str) -> Option<Lesson> {
    let mut words = line.split(' ');
    let hash = words.next().filter(|hash| hash.len() == 16)?;
    let method = match words.next()? {
        "-" => None,
        name => Some(name.parse().ok()?),
    };
    let (micros, seconds) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    // One beyond all time would never make room.
    let when = Some(Timestamp::from_secs(seconds)).filter(|when| when.as_secs() == seconds)?;
    let network = Network(u64::from_str_radix(hash, 16).ok()?.to_be_bytes());
    let lesson = Lesson { network, method, round_trip: Duration::from_micros(micros), when };
    words.next().is_none().then_some(lesson)
}

/// For the fuzzer: what is read is what would be written.
#[cfg(feature = "fuzzing")]
pub(crate) fn check(text: &str) {
    for lesson in text.lines().filter_map(parse) {
        assert_eq!(parse(line(&lesson).trim_end()), Some(lesson));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lesson(network: u8, method: Option<Method>, when: u64) -> Lesson {
        let round_trip = Duration::from_micros(1234);
        Lesson { network: Network([network; 8]), method, round_trip, when: Timestamp::from_secs(when) }
    }

    #[test]
    fn a_lesson_reads_back_as_it_was_written() {
        for lesson in [lesson(7, Some(Method::Sequence), 5), lesson(255, None, 0)] {
            assert_eq!(parse(line(&lesson).trim_end()), Some(lesson));
        }
    }

    #[test]
    fn damaged_lines_are_passed_over() {
        for text in [
            "",
            "0707",
            "0707070707070707 smoke 1 2",
            "0707070707070707 spa 1",
            "+707070707070707 spa 1 2 3",
            "0707070707070707 spa 1 18446744074",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn what_was_used_least_recently_makes_room_and_no_method_forgets_none() {
        let home = tempfile::tempdir().unwrap();
        let server = super::super::store::example(home.path());
        for network in 0..70_u8 {
            remember(&server, lesson(network, Some(Method::Syn), network.into())).unwrap();
        }
        assert_eq!(load(&server).len(), MAX_NETWORKS);
        assert_eq!(recall(&server, Network([5; 8])), None);
        remember(&server, lesson(69, None, 100)).unwrap();
        assert_eq!(recall(&server, Network([69; 8])), Some(lesson(69, Some(Method::Syn), 100)));
    }
}
