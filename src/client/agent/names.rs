//! The server's addresses, looked up beside everything else: a resolver without a network may take its time, and an
//! agent has to hear signals and changes meanwhile.

use std::io::{self, Write as _};
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

/// A name and a port.
pub(super) type Question = (String, u16);

/// What the resolver said.
pub(super) struct Answer {
    question: Question,
    pub(super) addresses: io::Result<Vec<SocketAddr>>,
}

/// One question at a time.
pub(super) struct Names {
    rope: UnixStream,
    answers: (Sender<Answer>, Receiver<Answer>),
    /// Whether somebody is at it.
    is_asking: bool,
    /// What is to be asked afterwards, because something has changed since.
    next: Option<Question>,
}

impl Names {
    /// Answers are announced by this rope.
    pub(super) fn new(rope: UnixStream) -> Self {
        Self { rope, answers: channel(), is_asking: false, next: None }
    }

    /// Looks a name up, after what is looked up already.
    pub(super) fn ask(&mut self, question: Question) {
        if self.is_asking {
            self.next = Some(question);
            return;
        }
        let told = self.answers.0.clone();
        let asked = question.clone();
        let begun = self.rope.try_clone().and_then(|mut rope| {
            let look = move || {
                let (host, port) = &asked;
                let addresses = (host.as_str(), *port).to_socket_addrs().map(Iterator::collect);
                // An agent that has ended hears nothing any more.
                let _ = told.send(Answer { question: asked, addresses });
                let _ = rope.write(&[1]);
            };
            thread::Builder::new().name("resolver".into()).spawn(look)
        });
        match begun {
            Ok(_) => self.is_asking = true,
            Err(error) => {
                let _ = self.answers.0.send(Answer { question, addresses: Err(error) });
                let _ = self.rope.write(&[1]);
            }
        }
    }

    /// What has been found, if it is about this name still.
    pub(super) fn answer(&mut self, about: &Question) -> Option<io::Result<Vec<SocketAddr>>> {
        let answer = self.answers.1.try_recv().ok()?;
        self.is_asking = false;
        if let Some(next) = self.next.take() {
            self.ask(next);
        }
        (answer.question == *about).then_some(answer.addresses)
    }
}
