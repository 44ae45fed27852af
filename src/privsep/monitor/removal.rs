//! Profiles that are removed or over. The grants of a removed one end, and its knocks count no more, before the command
//! returns; what is wrong with other files does not keep it in.

use std::net::IpAddr;

use super::Monitor;
use super::commands::is_orphan;
use super::report::plural;
use crate::config::{LogLevel, PROFILES_DIR};
use crate::control::Reply;
use crate::grant::Opening;
use crate::log::Event;
use crate::policy::Refusal;
use crate::privsep::message::Verdict;

impl Monitor {
    /// Forgets a profile whose file is gone; what to tell the admin, and whether it is what he wants to hear.
    pub(super) fn remove(&mut self, name: &str) -> Reply {
        let before = self.live_grants(name);
        let kept = match self.reload() {
            Ok(_) => Vec::new(),
            Err(errors) => {
                self.forget(name);
                errors
            }
        };
        if self.config.profiles.iter().any(|profile| profile.name.as_str() == name) {
            let dir = self.directories.config.display();
            return Reply::Refused(vec![format!(
                "{name} is still a profile of this daemon: its file is in {dir}/{PROFILES_DIR}; remove that one"
            )]);
        }
        let left = self.live_grants(name);
        if left > 0 {
            let grants = plural(left, "grant");
            return Reply::Refused(vec![format!(
                "the knocks of {name} are refused from now on, and {left} {grants} of it could not be ended; see the \
                 daemon's log, then: knockd-rs revoke {name}"
            )]);
        }
        let ended = before;
        let mut lines = vec![match ended {
            0 => format!("{name} had no live grant; its knocks are refused from now on"),
            count => {
                let grants = plural(count, "grant");
                format!("{count} live {grants} of {name} ended; its knocks are refused from now on")
            }
        }];
        if !kept.is_empty() {
            lines.push("the rest of the configuration could not be read again:".to_owned());
            lines.extend(kept);
        }
        Reply::Done(lines)
    }

    /// Takes it out of the configuration in force. The worker that knows it is replaced, and until then none of its
    /// requests is allowed.
    fn forget(&mut self, name: &str) {
        self.config.profiles.retain(|profile| profile.name.as_str() != name);
        let events = self.desk.end_profile(name);
        self.log_all(&events);
        self.departures.release(|entry| is_orphan(&self.config, entry));
        self.generation += 1;
        self.begin_worker();
        let text = format!("the profile {name} is forgotten, and everything else is as it was");
        self.say(LogLevel::Warning, "reloaded", &text);
    }

    /// How many grants it has in the kernel.
    fn live_grants(&mut self, name: &str) -> usize {
        // Where the kernel cannot be asked, what is known counts.
        let _ = self.desk.read_kernel();
        self.desk.ledger.entries().filter(|entry| entry.profile == name).count()
    }
}

/// The worker knows no later than the monitor that a profile is over, and an admin may not know.
pub(super) fn expired(opening: &Opening, source: Option<IpAddr>) -> (Verdict, Vec<Event>) {
    let refusal = Refusal::Expired { since: opening.expires.unwrap_or_default() };
    let event = Event::new(LogLevel::Warning, "refused", refusal.to_string());
    (Verdict::Failed, vec![event.of(&opening.profile, source).because(refusal.name())])
}
