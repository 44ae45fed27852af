//! Until when a client may knock: as an administrator says it, and as a client is told.

#[cfg(feature = "client")]
use super::Failure;
#[cfg(feature = "client")]
use super::exit::warn;
use crate::clock;
#[cfg(feature = "client")]
use crate::enrol::Access;
use crate::text::Moment;
#[cfg(feature = "client")]
use crate::text::ServerName;
use crate::text::Span;

/// This moment, by the clock of this machine.
pub(super) fn now() -> Moment {
    Moment::from_secs(clock::wall().as_secs())
}

/// So much later than now.
#[cfg(feature = "daemon")]
pub(super) fn after(span: Span) -> Moment {
    Moment::from_secs(now().as_secs() + u64::from(span.as_secs()))
}

/// `--expires`: a moment, or how long from now.
#[cfg(feature = "daemon")]
#[derive(Clone, Copy, Debug)]
pub(super) struct Expiry(pub(super) Moment);

#[cfg(feature = "daemon")]
impl std::str::FromStr for Expiry {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let at = text.parse().or_else(|_| text.parse().map(after)).map_err(|_| {
            format!("`{}` is neither a moment nor a duration; write 2027-01-31, or 90d", text.escape_debug())
        })?;
        if at <= now() {
            Err(format!("{at} is over, so that no knock would count; use a later one"))
        } else {
            Ok(Self(at))
        }
    }
}

/// How long a knock may be tried: less when its time is over by this machine's clock, which is said.
#[cfg(feature = "client")]
pub(super) fn patience(access: &Access, server: &ServerName, wanted: Span) -> Span {
    let Some(since) = access.expired(now()) else { return wanted };
    warn(&format!(
        "knockd-rs: warning: {server} takes no knocks of this client since {since}, as its bundle said; ask its \
         administrator for a new one, or, where the time was extended, for the new `expires` in {server}.toml"
    ));
    wanted.min(Span::from_secs(2))
}

/// Refuses a bundle whose time is over.
#[cfg(feature = "client")]
pub(super) fn refuse_expired(access: &Access, file: &str) -> Result<(), Failure> {
    let Some(since) = access.expired(now()) else { return Ok(()) };
    Err(Failure::Broken(vec![format!(
        "{file}: the server takes no knocks by this bundle since {since}; ask its administrator for a new one"
    )]))
}
