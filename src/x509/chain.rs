//! Who may issue certificates here, what they have revoked, and whether one certificate is good now.
//!
//! Paths are rustls-webpki's to build and judge. Three things are done around it, each for a reason:
//!
//! - Whether a certificate was issued by one of ours at all is found out first, by its signature alone. Only then
//!   is its owner told what is wrong with it; anybody can make a certificate that has expired.
//! - webpki takes the first revocation list that it finds for an issuer, and lists past their date unless told
//!   otherwise. It gets exactly one list for each issuer: the one with the highest number that is really signed by
//!   it, and never a lower number than was seen before.
//! - `clientAuth` has to be among the purposes of the client's certificate. webpki can demand it of the whole path,
//!   authorities included, where it is rarely written, or only where there are purposes at all.

use std::collections::HashMap;
use std::time::Duration;

use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{
    ALL_VERIFICATION_ALGS, CertRevocationList, EndEntityCert, ExpirationPolicy, KeyUsage,
    OwnedCertRevocationList, RevocationCheckDepth, RevocationOptionsBuilder, UnknownStatusPolicy,
    anchor_from_trusted_cert,
};

use crate::time::Timestamp;

use super::authority::{Authority, List};
use super::crl::Crl;
use super::leaf::{Certificate, Leaf};
use super::name::Name;
use super::rejection::rejection;

pub use super::authority::AuthorityId;
pub use super::rejection::Rejection;

/// How many authorities one server can have, roots and those between.
pub const MAX_AUTHORITIES: usize = 64;

/// The highest number of a revocation list that was seen of each authority: big-endian, without leading zeros.
pub type Numbers = HashMap<AuthorityId, Vec<u8>>;

/// Those whose certificates are accepted, with what they have revoked.
pub struct Authorities {
    all: Vec<Authority>,
    anchors: Vec<TrustAnchor<'static>>,
    between: Vec<CertificateDer<'static>>,
    lists: Vec<CertRevocationList<'static>>,
    grace: Duration,
}

impl Authorities {
    /// Reads certificates and revocation lists, each DER, and says what of them is of no use.
    ///
    /// - `seen`: the numbers of lists that were accepted before.
    /// - `grace`: how long a list that is past its date still counts.
    #[must_use]
    pub fn new(
        certificates: &[Vec<u8>],
        lists: &[Vec<u8>],
        seen: &Numbers,
        grace: Duration,
    ) -> (Self, Vec<String>) {
        let mut complaints = Vec::new();
        let mut all: Vec<Authority> = Vec::new();
        for der in certificates.iter().take(MAX_AUTHORITIES) {
            match Authority::read(der) {
                Ok(authority) if all.iter().any(|known| known.der == authority.der) => {}
                Ok(authority) => all.push(authority),
                Err(complaint) => complaints.push(complaint),
            }
        }
        let mut good: HashMap<usize, (Crl, OwnedCertRevocationList)> = HashMap::new();
        for der in lists {
            if let Err(complaint) = take_list(der, &mut all, &mut good) {
                complaints.push(complaint);
            }
        }
        let mut accepted = Vec::new();
        for (index, (crl, list)) in good {
            let Some(authority) = all.get_mut(index) else { continue };
            if seen.get(&authority.id).is_some_and(|seen| is_lower(&crl.number, seen)) {
                authority.list = List::RolledBack;
            } else {
                authority.list = List::Good(crl);
                accepted.push(CertRevocationList::Owned(list));
            }
        }
        let (anchors, between) = split(&all);
        (Self { all, anchors, between, lists: accepted, grace }, complaints)
    }

    /// The numbers of the lists that are in force.
    pub fn numbers(&self) -> impl Iterator<Item = (AuthorityId, &[u8])> {
        self.all.iter().filter_map(|authority| match &authority.list {
            List::Good(crl) => Some((authority.id, crl.number.as_slice())),
            _ => None,
        })
    }

    /// Every revoked certificate, as issuer and serial number.
    pub fn revoked(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.all.iter().flat_map(|authority| {
            let lists = match &authority.list {
                List::Good(crl) => Some(crl.serials()),
                _ => None,
            };
            lists.into_iter().flatten().map(|serial| (authority.name.der.as_slice(), serial))
        })
    }

    /// The one that issued this certificate; `None` when none of ours did.
    #[must_use]
    pub fn issuer(&self, certificate: &Certificate<'_>) -> Option<Issuer> {
        let issued = |authority: &Authority| {
            authority.name.der == certificate.issuer
                && Certificate::parse(&authority.der).is_some_and(|ours| certificate.is_signed_by(&ours.key))
        };
        self.all.iter().position(issued).map(Issuer)
    }

    /// Whether a certificate that `issuer` issued is good `at` this time, and until when that can be relied on.
    ///
    /// # Errors
    /// The [`Rejection`].
    pub fn judge(
        &self,
        der: &[u8],
        certificate: &Certificate<'_>,
        leaf: &Leaf,
        issuer: Issuer,
        at: Timestamp,
    ) -> Result<Timestamp, Rejection> {
        let authority = self.all.get(issuer.0).ok_or(Rejection::Path("its authority is not known".into()))?;
        if authority.has_revoked(&leaf.serial) {
            return Err(Rejection::Revoked);
        }
        if at < certificate.not_before {
            return Err(Rejection::Early { by: certificate.not_before.since(at) });
        }
        if at > certificate.not_after {
            return Err(Rejection::Expired { by: at.since(certificate.not_after) });
        }
        if certificate.is_authority() {
            return Err(Rejection::Authority);
        }
        if !certificate.is_for_clients() {
            return Err(Rejection::Usage);
        }
        let (until, enforce) = self.walk(authority, at)?;
        let policy = if enforce { ExpirationPolicy::Enforce } else { ExpirationPolicy::Ignore };
        self.verify(der, at, policy)?;
        Ok(until.min(certificate.not_after))
    }

    /// The way from an authority up to one that is trusted by itself: until when all of it is good, and whether all
    /// lists on it are within their own dates.
    fn walk(&self, first: &Authority, at: Timestamp) -> Result<(Timestamp, bool), Rejection> {
        let (mut until, mut in_date, mut authority) = (Timestamp::from_nanos(u64::MAX), true, first);
        for _ in 0..=self.all.len() {
            if at < authority.not_before || at > authority.not_after {
                return Err(Rejection::AuthorityExpired { name: authority.name.to_string() });
            }
            let next_update = authority.list_until(at, self.grace)?;
            in_date &= at <= next_update;
            until = until.min(authority.not_after).min(next_update.saturating_add(self.grace));
            let above = self.all.iter().find(|above| above.has_issued(authority));
            let Some(above) = above else { return Ok((until, in_date)) };
            if above.has_revoked(&authority.serial) {
                return Err(Rejection::AuthorityRevoked { name: authority.name.to_string() });
            }
            authority = above;
        }
        Err(Rejection::Path("its authorities certify each other in a circle".into()))
    }

    fn verify(&self, der: &[u8], at: Timestamp, policy: ExpirationPolicy) -> Result<(), Rejection> {
        let der = CertificateDer::from(der);
        let end = EndEntityCert::try_from(&der).map_err(|error| rejection(&error))?;
        let lists: Vec<&CertRevocationList<'_>> = self.lists.iter().collect();
        let revocation = RevocationOptionsBuilder::new(&lists)
            .map_err(|_| Rejection::ListMissing { name: String::new() })?
            .with_depth(RevocationCheckDepth::Chain)
            .with_status_policy(UnknownStatusPolicy::Deny)
            .with_expiration_policy(policy)
            .build();
        end.verify_for_usage(
            ALL_VERIFICATION_ALGS,
            &self.anchors,
            &self.between,
            UnixTime::since_unix_epoch(Duration::from_secs(at.as_secs())),
            KeyUsage::client_auth(),
            Some(revocation),
            None,
        )
        .map(|_| ())
        .map_err(|error| rejection(&error))
    }

    /// What is wrong with authorities and their lists: which authority, what kind of trouble, and a sentence.
    #[must_use]
    pub fn troubles(&self, at: Timestamp) -> Vec<(Trouble, String)> {
        let trouble = |authority: &Authority| {
            let (kind, sentence) = authority.trouble(at, self.grace)?;
            Some(((authority.id, kind), sentence))
        };
        self.all.iter().filter_map(trouble).collect()
    }

    /// When [`troubles`](Self::troubles) changes by itself.
    #[must_use]
    pub fn next_change(&self, at: Timestamp) -> Option<Timestamp> {
        let times = self.all.iter().flat_map(|authority| {
            let list = match &authority.list {
                List::Good(crl) => [crl.next_update, crl.next_update.saturating_add(self.grace)],
                _ => [authority.not_after; 2],
            };
            list.into_iter().chain([authority.not_after])
        });
        times.filter(|time| *time >= at).min()
    }
}

/// Of which authority, and the name of what is wrong.
pub type Trouble = (AuthorityId, &'static str);

/// A place in the list of authorities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Issuer(usize);

/// Finds out whose list this is, and keeps it if it is the newest.
fn take_list(
    der: &[u8],
    all: &mut [Authority],
    good: &mut HashMap<usize, (Crl, OwnedCertRevocationList)>,
) -> Result<(), String> {
    let crl = Crl::parse(der).map_err(|error| format!("one of the revocation lists {error}"))?;
    let issuer =
        Name::read(&crl.issuer).map_or_else(|| "an unreadable name".to_owned(), |name| name.to_string());
    let of_name = all.iter().any(|authority| authority.name.der == crl.issuer);
    if !of_name {
        return Err(format!("there is a revocation list of {issuer}, which is none of the authorities"));
    }
    let Some(index) = all.iter().position(|authority| crl.verify(&authority.der).is_ok()) else {
        let named = |authority: &&mut Authority| authority.name.der == crl.issuer;
        all.iter_mut().filter(named).for_each(|authority| authority.list = List::Forged);
        return Err(format!("a revocation list of {issuer} is not signed by it"));
    };
    let list = OwnedCertRevocationList::from_der(der)
        .map_err(|error| format!("the revocation list of {issuer} cannot be used: {error}"))?;
    let newer = good.get(&index).is_none_or(|(known, _)| {
        (crl.number.len(), &crl.number, crl.this_update)
            > (known.number.len(), &known.number, known.this_update)
    });
    if newer {
        good.insert(index, (crl, list));
    }
    Ok(())
}

/// Numbers without leading zeros: the shorter one is the lower one.
fn is_lower(number: &[u8], than: &[u8]) -> bool {
    (number.len(), number) < (than.len(), than)
}

/// Roots, and whatever has no issuer among the rest, are trusted by themselves; the others by who issued them.
fn split(all: &[Authority]) -> (Vec<TrustAnchor<'static>>, Vec<CertificateDer<'static>>) {
    let (mut anchors, mut between) = (Vec::new(), Vec::new());
    for authority in all {
        let der = CertificateDer::from(authority.der.clone());
        if all.iter().any(|other| other.has_issued(authority)) {
            between.push(der);
        } else if let Ok(anchor) = anchor_from_trusted_cert(&der) {
            anchors.push(anchor.to_owned());
        }
    }
    (anchors, between)
}
