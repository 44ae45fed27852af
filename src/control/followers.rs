//! Who listens to events, and the last of them. Never waits: a follower that does not keep up is cut off.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};

use super::{Reply, Told};

/// How many can follow at a time.
const MAX_FOLLOWERS: usize = 8;
/// How many events are remembered.
const MAX_RECENT: usize = 256;
/// How much can wait for one follower, besides what the kernel holds.
const MAX_BACKLOG: usize = 256 * 1024;
/// How long a follower that was cut off may take to read why.
const PATIENCE: Duration = Duration::from_secs(15);

/// What was told, and to whom more is to be told.
#[derive(Debug, Default)]
pub(super) struct Followers {
    recent: VecDeque<Remembered>,
    all: Vec<Follower>,
}

#[derive(Debug)]
struct Remembered {
    line: Vec<u8>,
    is_refusal: bool,
}

#[derive(Debug)]
struct Follower {
    stream: UnixStream,
    backlog: Vec<u8>,
    /// When it is closed, once it was cut off.
    until: Option<Duration>,
}

impl Followers {
    /// Tells all of them, and remembers it.
    pub(super) fn tell(&mut self, told: Told, uptime: Duration) {
        let is_refusal = told.event == "refused";
        let line = line(&Reply::Event(Box::new(told)));
        for follower in &mut self.all {
            follower.tell(&line, uptime);
        }
        if self.recent.len() >= MAX_RECENT {
            // One client's refusals, which it can cause at will, leave half of the room to all else.
            let refusals = self.recent.iter().filter(|known| known.is_refusal).count();
            let oldest_refusal = self.recent.iter().position(|known| known.is_refusal);
            self.recent.remove(oldest_refusal.filter(|_| refusals > MAX_RECENT / 2).unwrap_or(0));
        }
        self.recent.push_back(Remembered { line, is_refusal });
    }

    /// What is remembered, the oldest first, with the line that ends an answer.
    pub(super) fn recent(&self) -> Vec<u8> {
        let mut lines: Vec<u8> = self.recent.iter().flat_map(|known| known.line.iter()).copied().collect();
        lines.extend(line(&Reply::Done(Vec::new())));
        lines
    }

    /// Whether there is room for another one.
    pub(super) fn has_room(&self) -> bool {
        self.all.len() < MAX_FOLLOWERS
    }

    /// Takes a connection over. The first line tells it that it misses nothing from here on.
    pub(super) fn add(&mut self, stream: UnixStream) {
        let mut follower = Follower { stream, backlog: line(&Reply::Done(Vec::new())), until: None };
        if follower.write().is_ok() {
            self.all.push(follower);
        }
    }

    pub(super) fn fds(&self) -> impl Iterator<Item = PollFd<'_>> {
        self.all.iter().map(|follower| {
            let writes = if follower.backlog.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
            PollFd::from_borrowed_fd(follower.stream.as_fd(), PollFlags::IN | writes)
        })
    }

    /// Writes as far as it goes, and lets go of those that have hung up or were cut off.
    pub(super) fn turn(&mut self, uptime: Duration) {
        self.all.retain_mut(|follower| follower.write().is_ok() && follower.is_here(uptime));
    }

    /// When one that was cut off is closed.
    pub(super) fn next_deadline(&self) -> Option<Duration> {
        self.all.iter().filter_map(|follower| follower.until).min()
    }
}

impl Follower {
    fn tell(&mut self, line: &[u8], uptime: Duration) {
        if self.until.is_some() {
            return;
        }
        self.backlog.extend_from_slice(line);
        let _ = self.write();
        if self.backlog.len() > MAX_BACKLOG {
            let why = "this follower was cut off: it did not read as fast as things happened; events after this are missing";
            self.backlog.extend(self::line(&Reply::Refused(vec![why.to_owned()])));
            self.until = Some(uptime + PATIENCE);
        }
    }

    /// Whether it is still there. A follower has nothing more to say: whatever it says is its end.
    fn is_here(&mut self, uptime: Duration) -> bool {
        let is_over = self.until.is_some_and(|until| until <= uptime || self.backlog.is_empty());
        let is_silent =
            self.stream.read(&mut [0]).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
        !is_over && is_silent
    }

    fn write(&mut self) -> io::Result<()> {
        while !self.backlog.is_empty() {
            match self.stream.write(&self.backlog) {
                Ok(len) => drop(self.backlog.drain(..len)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn line(reply: &Reply) -> Vec<u8> {
    let mut line = serde_json::to_vec(reply).unwrap_or_default();
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::BufRead;

    fn told(text: &str) -> Told {
        let (level, event) = ("info".to_owned(), "granted".to_owned());
        Told { time: 1.5, level, event, text: text.to_owned(), ..Told::default() }
    }

    fn follower(followers: &mut Followers) -> UnixStream {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        followers.add(ours);
        theirs
    }

    fn lines(stream: UnixStream) -> Vec<String> {
        stream.set_nonblocking(true).unwrap();
        io::BufReader::new(stream).lines().map_while(Result::ok).collect()
    }

    #[test]
    fn the_last_events_are_remembered_and_no_more_than_a_number() {
        let mut followers = Followers::default();
        (0..1000).for_each(|number| followers.tell(told(&number.to_string()), Duration::ZERO));
        let recent = String::from_utf8(followers.recent()).unwrap();
        let lines: Vec<&str> = recent.lines().collect();
        assert_eq!((lines.len(), lines[256]), (257, r#"{"done":[]}"#));
        assert_eq!(lines[0], r#"{"event":{"time":1.5,"level":"info","event":"granted","text":"744"}}"#);
    }

    #[test]
    fn refusals_leave_half_of_the_room_to_all_else() {
        let mut followers = Followers::default();
        (0..200).for_each(|number| followers.tell(told(&format!("grant {number}")), Duration::ZERO));
        let refused = Told { event: "refused".into(), ..told("no") };
        (0..5000).for_each(|_| followers.tell(refused.clone(), Duration::ZERO));
        let recent = String::from_utf8(followers.recent()).unwrap();
        let count = |word: &str| recent.lines().filter(|line| line.contains(word)).count();
        assert_eq!((count("grant "), count("\"refused\"")), (127, 129));
        assert!(recent.contains("grant 199") && !recent.contains("grant 72\""));
    }

    #[test]
    fn a_follower_hears_what_happens_from_its_first_line_on() {
        let mut followers = Followers::default();
        followers.tell(told("before"), Duration::ZERO);
        let stream = follower(&mut followers);
        followers.tell(told("after"), Duration::ZERO);
        let heard = lines(stream);
        assert_eq!((heard.len(), heard[0].as_str()), (2, r#"{"done":[]}"#));
        assert!(heard[1].contains("after"), "{}", heard[1]);
    }

    #[test]
    fn a_follower_that_does_not_read_is_cut_off_with_a_word_and_the_others_hear_everything() {
        let mut followers = Followers::default();
        let slow = follower(&mut followers);
        let mut quick = io::BufReader::new(follower(&mut followers));
        let mut heard = String::new();
        quick.read_line(&mut heard).unwrap();
        for number in 0..3000 {
            followers.tell(told(&format!("{number} {}", "x".repeat(900))), Duration::ZERO);
            heard.clear();
            quick.read_line(&mut heard).unwrap();
            assert!(heard.contains(&format!("\"{number} ")), "{heard}");
        }
        let backlog = followers.all[0].backlog.len();
        assert!(backlog < MAX_BACKLOG + 4096, "{backlog} bytes wait");
        assert_eq!(followers.next_deadline(), Some(PATIENCE));
        // What was on its way arrives, and the reason at its end.
        let mut slow = io::BufReader::new(slow);
        let mut last = String::new();
        while !last.contains("refused") {
            followers.turn(Duration::ZERO);
            last.clear();
            assert!(slow.read_line(&mut last).unwrap() > 0, "it was closed without a word");
        }
        assert!(last.contains("was cut off"), "{last}");
        assert_eq!(followers.all.len(), 1, "it was not closed with its last word");
        assert_eq!(slow.read_line(&mut last).unwrap(), 0);
    }

    #[test]
    fn a_follower_that_was_cut_off_and_never_reads_is_closed() {
        let mut followers = Followers::default();
        let _slow = follower(&mut followers);
        (0..3000).for_each(|_| followers.tell(told(&"x".repeat(900)), Duration::ZERO));
        followers.turn(PATIENCE - Duration::from_millis(1));
        assert_eq!(followers.all.len(), 1);
        followers.turn(PATIENCE);
        assert_eq!((followers.all.len(), followers.next_deadline()), (0, None));
    }

    #[test]
    fn who_hangs_up_or_says_more_makes_room() {
        let mut followers = Followers::default();
        let streams: Vec<UnixStream> = (0..MAX_FOLLOWERS).map(|_| follower(&mut followers)).collect();
        followers.turn(Duration::ZERO);
        assert!(!followers.has_room());
        (&streams[0]).write_all(b"x").unwrap();
        drop(streams.into_iter().next_back());
        followers.turn(Duration::ZERO);
        assert_eq!(followers.all.len(), 0, "all of them are gone");
    }
}
