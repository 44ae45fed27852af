//! The knocking side, for this program's commands and for programs that embed it. Needs no root, and no library but libc.
//!
//! A [`Server`] is what is known of one, [`Effort`] how hard to try. Directories, clock, methods, timeout and retries are
//! arguments: nothing here reads the environment or keeps state outside of [`Dirs`], and only [`agent`] starts threads.
//! Calls block; every type can be sent to another thread, and a `Server` used by many at the same time.
//!
//! A connection to a guarded TCP port, knocked for if that is needed:
//!
//! ```no_run
//! use knockd_rs::client::{Dirs, Effort, Server, reach};
//! use std::io::Write as _;
//! use std::time::Duration;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let dirs = Dirs::from_env(|name| std::env::var_os(name)).ok_or("HOME is not set")?;
//! let server = Server::open(&dirs, "myserver")?; // as `knockd-rs import` called it
//! let effort = Effort { timeout: Duration::from_secs(5), ..Effort::one_connection(server.ways(None)) };
//! let mut reached = reach(&server, 22, &effort)?;
//! reached.stream.write_all(b"hello\n")?;
//! # Ok(())
//! # }
//! ```
//!
//! A UDP port whose service answers a probe, with a bundle that the program brings along, by one method alone:
//!
//! ```no_run
//! use knockd_rs::client::{Dirs, Effort, Server, Way, reach_udp};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let (bundle, probe) = ("{}", b"?");
//! let dirs = Dirs { config: "/nowhere".into(), state: "/var/lib/myprogram/knocks".into() };
//! let server = Server::from_bundle(&dirs, bundle, None)?;
//! let reached = reach_udp(&server, 5353, Some(probe), &Effort::one_connection(vec![Way::Spa]))?;
//! let mut answer = [0; 512];
//! let length = reached.socket.recv(&mut answer)?; // the answer to the probe
//! # Ok(())
//! # }
//! ```
//!
//! A knock alone, and the end of what it opened:
//!
//! ```no_run
//! use knockd_rs::client::{Dirs, Effort, Server, Uses, close, knock_for};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let server = Server::open(&Dirs { config: "".into(), state: "".into() }, "")?;
//! let effort = Effort {
//!     uses: Some(Uses::Many),
//!     duration: Some("5m".parse()?),
//!     ..Effort::one_connection(server.ways(None))
//! };
//! knock_for(&server, &["tcp/8000-8010".parse()?, "udp/53".parse()?], &effort)?;
//! // whatever it was for
//! close(&server, &[], &effort)?;
//! # Ok(())
//! # }
//! ```
//!
//! Whatever is wrong is an error that says what to do about it:
//!
//! ```
//! use knockd_rs::client::{Dirs, Server};
//!
//! let dirs = Dirs { config: "/nonexistent".into(), state: "/nonexistent".into() };
//! let error = Server::open(&dirs, "myserver").unwrap_err();
//! assert_eq!(
//!     error.to_string(),
//!     "/nonexistent/myserver.toml: there is no server `myserver` here; import its bundle with: knockd-rs import FILE",
//! );
//! ```

pub mod agent;
pub mod cert;
pub mod counter;
mod datagram;
pub mod knock;
pub mod memory;
pub mod network;
mod open;
pub mod proxy;
pub mod reach;
pub mod relay;
mod send;
pub mod sequence;
pub mod server;
pub mod store;
mod syn;
mod totp;
mod try_port;
mod udp;

pub use counter::Oddity;
pub use knock::{KnockError, Way};
pub use open::OpenError;
pub use reach::{Effort, ReachError, Reached, pass_through, reach, reach_at};
pub use send::{Sent, close, knock_for};
pub use server::Server;
pub use store::Dirs;
pub use udp::{ReachedUdp, reach_udp};

pub use crate::knock::Method;
pub use crate::session::Uses;
pub use crate::text::{PortRange, Protocol, ServerName, Span};
pub use crate::time::Timestamp;

/// For the fuzzer: a SYN made of the kernel's own.
#[cfg(feature = "fuzzing")]
pub(crate) use syn::check_packet;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_can_be_sent_to_another_thread_and_a_server_be_used_by_many() {
        fn is_sent<T: Send>() {}
        fn is_shared<T: Send + Sync>() {}
        fn is_error<T: std::error::Error + Send + Sync + 'static>() {}
        is_shared::<(Server, Effort, Dirs, Way)>();
        is_sent::<(Reached, ReachedUdp, Sent, knock::Knocker<'_>)>();
        is_error::<ReachError>();
        is_error::<KnockError>();
        is_error::<OpenError>();
    }

    #[test]
    fn without_a_method_no_knock_is_claimed_to_have_been_sent() {
        let home = tempfile::tempdir().unwrap();
        let server = store::example(home.path());
        let effort = Effort::one_connection(Vec::new());
        assert!(matches!(knock_for(&server, &[], &effort), Err(KnockError::NoWay)));
    }

    #[test]
    fn what_a_method_cannot_say_is_not_said_by_it() {
        let home = tempfile::tempdir().unwrap();
        let mut server = store::example(home.path());
        server.enrolment.access.open = vec!["udp/53".parse().unwrap()];
        let effort = Effort::one_connection(vec![Way::Syn, Way::Totp]);
        let unsayable = |result: Result<Sent, KnockError>| matches!(result, Err(KnockError::Unsayable));
        assert!(unsayable(close(&server, &[], &effort)));
        assert!(unsayable(knock_for(&server, &["udp/54".parse().unwrap()], &effort)));
        assert!(unsayable(knock_for(&server, &["udp/53-54".parse().unwrap()], &effort)));
    }
}
