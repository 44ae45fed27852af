//! An authority whose certificates are accepted, and what is known of its revocations.

use std::rc::Rc;
use std::time::Duration;

use rustls_pki_types::CertificateDer;
use webpki::{CertRevocationList, EndEntityCert};

use super::crl::Crl;
use super::leaf::Certificate;
use super::name::Name;
use super::rejection::{Rejection, span};
use crate::crypto::sha256;
use crate::time::Timestamp;

/// An authority, as the name under which its last list's number is remembered: the first 8 bytes of SHA-256 over its
/// key and its name.
pub type AuthorityId = [u8; 8];

/// How far ahead of this clock the date of a list may be before it is told.
const AHEAD: Duration = Duration::from_secs(300);

pub(super) struct Authority {
    pub(super) der: Vec<u8>,
    pub(super) id: AuthorityId,
    pub(super) name: Name,
    pub(super) issuer: Vec<u8>,
    pub(super) serial: Vec<u8>,
    pub(super) not_before: Timestamp,
    pub(super) not_after: Timestamp,
    pub(super) list: List,
}

/// What is known of an authority's revocations.
pub(super) enum List {
    Missing,
    Forged,
    RolledBack,
    /// The newest, and the same as webpki has it.
    Good(Crl, Rc<CertRevocationList<'static>>),
}

impl List {
    pub(super) fn good(&self) -> Option<&CertRevocationList<'static>> {
        if let Self::Good(_, list) = self { Some(list) } else { None }
    }
}

impl Authority {
    pub(super) fn read(der: &[u8]) -> Result<Self, String> {
        let parsed = Certificate::parse(der).and_then(|parsed| Some((Name::read(parsed.subject)?, parsed)));
        let (name, parsed) = parsed.ok_or("one of the authorities is no certificate of version 3")?;
        if !parsed.is_authority() {
            return Err(format!("{name} is no authority: its certificate has no CA:TRUE"));
        }
        let der_type = CertificateDer::from(der);
        EndEntityCert::try_from(&der_type)
            .map_err(|error| format!("the certificate of the authority {name} cannot be used: {error}"))?;
        Ok(Self {
            id: sha256(&[parsed.key.whole, parsed.subject]).first_chunk().copied().unwrap_or_default(),
            issuer: parsed.issuer.to_vec(),
            serial: parsed.serial.to_vec(),
            not_before: parsed.not_before,
            not_after: parsed.not_after,
            list: List::Missing,
            der: der.to_vec(),
            name,
        })
    }

    pub(super) fn is_valid(&self, at: Timestamp) -> bool {
        self.not_before <= at && at <= self.not_after
    }

    pub(super) fn is_self_issued(&self) -> bool {
        self.issuer == self.name.der
    }

    pub(super) fn has_issued(&self, other: &Self) -> bool {
        !other.is_self_issued()
            && self.name.der == other.issuer
            && Certificate::parse(&self.der)
                .zip(Certificate::parse(&other.der))
                .is_some_and(|(ours, theirs)| theirs.is_signed_by(&ours.key))
    }

    pub(super) fn has_revoked(&self, serial: &[u8]) -> bool {
        matches!(&self.list, List::Good(crl, _) if crl.is_revoked(serial))
    }

    /// Until when its list is good by its own date, unless that is too long ago.
    pub(super) fn list_until(&self, at: Timestamp, grace: Duration) -> Result<Timestamp, Rejection> {
        let name = self.name.to_string();
        match &self.list {
            List::Missing => Err(Rejection::ListMissing { name }),
            List::Forged => Err(Rejection::ListForged { name }),
            List::RolledBack => Err(Rejection::ListRolledBack { name }),
            List::Good(crl, _) if at > crl.next_update.saturating_add(grace) => {
                Err(Rejection::ListExpired { name, by: at.since(crl.next_update) })
            }
            List::Good(crl, _) => Ok(crl.next_update),
        }
    }

    pub(super) fn trouble(&self, at: Timestamp, grace: Duration) -> Option<(&'static str, String)> {
        let told = |rejection: Rejection| Some((rejection.name(), rejection.to_string()));
        if at > self.not_after {
            return told(Rejection::AuthorityExpired { name: self.name.to_string() });
        }
        match self.list_until(at, grace) {
            Err(rejection) => told(rejection),
            Ok(next_update) if at > next_update => {
                let late = format!(
                    "the revocation list of {} is {} past its date; it still counts for {}, and then its certificates \
                     are refused; put a new one in place",
                    self.name,
                    span(at.since(next_update)),
                    span(next_update.saturating_add(grace).since(at)),
                );
                Some(("crl-late", late))
            }
            Ok(_) => {
                let ahead = match &self.list {
                    List::Good(crl, _) => crl.this_update.since(at),
                    _ => Duration::ZERO,
                };
                let early = format!(
                    "the revocation list of {} is from {} in the future; check this server's clock, and the authority's",
                    self.name,
                    span(ahead),
                );
                (ahead > AHEAD).then_some(("crl-early", early))
            }
        }
    }
}
