//! Why a certificate of one of our authorities is not good: a name for machines and a sentence for people.

use std::fmt;
use std::time::Duration;

use webpki::Error;

/// Why a certificate of ours is not good. Its owner has proved to be its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// Its authority has revoked it.
    Revoked,
    /// It is past its time.
    Expired {
        /// For how long.
        by: Duration,
    },
    /// Its time has not come.
    Early {
        /// How long until then.
        by: Duration,
    },
    /// It is an authority's own.
    Authority,
    /// It is not for clients.
    Usage,
    /// It says something critical that is not known here.
    Critical,
    /// Its authority's own certificate is not valid now.
    AuthorityExpired {
        /// The authority.
        name: String,
    },
    /// Its authority's own certificate is revoked.
    AuthorityRevoked {
        /// The authority.
        name: String,
    },
    /// There is no revocation list of its authority.
    ListMissing {
        /// The authority.
        name: String,
    },
    /// The list is past its date, and past the grace.
    ListExpired {
        /// The authority.
        name: String,
        /// For how long.
        by: Duration,
    },
    /// The authority has not signed the list.
    ListForged {
        /// The authority.
        name: String,
    },
    /// A newer list was seen before.
    ListRolledBack {
        /// The authority.
        name: String,
    },
    /// No way leads to an authority that is trusted by itself.
    Path(String),
}

impl Rejection {
    /// A short, fixed name for machines.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Revoked => "cert-revoked",
            Self::Expired { .. } => "cert-expired",
            Self::Early { .. } => "cert-early",
            Self::Authority => "cert-is-ca",
            Self::Usage => "cert-usage",
            Self::Critical => "cert-critical",
            Self::AuthorityExpired { .. } => "ca-expired",
            Self::AuthorityRevoked { .. } => "ca-revoked",
            Self::ListMissing { .. } => "crl-missing",
            Self::ListExpired { .. } => "crl-expired",
            Self::ListForged { .. } => "crl-forged",
            Self::ListRolledBack { .. } => "crl-rolled-back",
            Self::Path(_) => "cert-path",
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Revoked => {
                f.write_str("its authority has revoked it; issue a new one, or let the client be")
            }
            Self::Expired { by } => write!(f, "it expired {} ago; issue a new one", span(*by)),
            Self::Early { by } => {
                write!(f, "it is valid from {} on; check this server's clock", after(*by))
            }
            Self::Authority => {
                f.write_str("it is an authority's (CA:TRUE), and clients need one of their own")
            }
            Self::Usage => f.write_str("it is not for clients; issue one with extendedKeyUsage = clientAuth"),
            Self::Critical => {
                f.write_str("it has a critical extension that is not known here; issue one without")
            }
            Self::AuthorityExpired { name } => {
                write!(
                    f,
                    "the certificate of the authority {name} is not valid now; renew it, or check the clock"
                )
            }
            Self::AuthorityRevoked { name } => {
                write!(f, "the certificate of the authority {name} is revoked")
            }
            Self::ListMissing { name } => write!(
                f,
                "there is no revocation list of {name}, and without one its certificates are refused; add it to crl"
            ),
            Self::ListExpired { name, by } => write!(
                f,
                "the revocation list of {name} is {} past its date, more than crl_grace allows; put a new one in place",
                span(*by)
            ),
            Self::ListForged { name } => write!(
                f,
                "the revocation list that names {name} is not signed by it; put the authority's own in place"
            ),
            Self::ListRolledBack { name } => write!(
                f,
                "the revocation list of {name} is older than one that was in force here before; put the newest in place"
            ),
            Self::Path(why) => write!(f, "no authority vouches for it: {why}"),
        }
    }
}

impl std::error::Error for Rejection {}

pub(super) fn rejection(error: &Error) -> Rejection {
    match error {
        Error::CertRevoked => Rejection::Revoked,
        Error::CaUsedAsEndEntity => Rejection::Authority,
        Error::RequiredEkuNotFoundContext(_) => Rejection::Usage,
        Error::UnsupportedCriticalExtension => Rejection::Critical,
        other => Rejection::Path(other.to_string()),
    }
}

/// In the largest unit that is not zero.
pub(super) fn span(duration: Duration) -> String {
    let seconds = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

fn after(duration: Duration) -> String {
    format!("{} from now", span(duration))
}
