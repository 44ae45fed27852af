//! Who may issue certificates here, what they have revoked, and whether one certificate is good now.
//!
//! Paths are rustls-webpki's to build and judge. Three things are done around it, each for a reason:
//!
//! - Whether a certificate was issued by one of ours at all is found out first, by its signature alone. Only then
//!   is its owner told what is wrong with it; anybody can make a certificate that has expired.
//! - webpki takes the first revocation list that it finds for a name. It gets one way up to an authority that is trusted
//!   by itself, and one list for each on it: the highest number that it really signed, never a lower one than before.
//! - `clientAuth` has to be among the purposes of the client's certificate. webpki can demand it of the whole path,
//!   authorities included, where it is rarely written, or only where there are purposes at all.

use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use rustls_pki_types::{CertificateDer, UnixTime};
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
        let (mut all, mut complaints) = match read_all(certificates) {
            Ok(all) => (all, Vec::new()),
            Err(complaints) => (Vec::new(), complaints),
        };
        complaints.extend(lists.iter().filter_map(|der| take_list(der, &mut all).err()));
        for authority in &mut all {
            let rolled_back =
                |crl: &Crl| seen.get(&authority.id).is_some_and(|seen| is_lower(&crl.number, seen));
            if matches!(&authority.list, List::Good(crl, _) if rolled_back(crl)) {
                authority.list = List::RolledBack;
            }
        }
        (Self { all, grace }, complaints)
    }

    /// The numbers of the lists that are in force.
    pub fn numbers(&self) -> impl Iterator<Item = (AuthorityId, &[u8])> {
        self.all.iter().filter_map(|authority| match &authority.list {
            List::Good(crl, _) => Some((authority.id, crl.number.as_slice())),
            _ => None,
        })
    }

    /// Every revoked certificate, as issuer and serial number.
    pub fn revoked(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.all.iter().flat_map(|authority| {
            let lists = match &authority.list {
                List::Good(crl, _) => Some(crl.serials()),
                _ => None,
            };
            lists.into_iter().flatten().map(|serial| (authority.name.der.as_slice(), serial))
        })
    }

    /// The newest date of the lists that are in force: it is at least that late.
    #[must_use]
    pub fn latest_update(&self) -> Option<Timestamp> {
        self.all
            .iter()
            .filter_map(|authority| match &authority.list {
                List::Good(crl, _) => Some(crl.this_update),
                _ => None,
            })
            .max()
    }

    /// Whether one of them bears the name of this certificate's issuer: asked before any signature is looked at.
    #[must_use]
    pub fn has_name_of_issuer(&self, certificate: &Certificate<'_>) -> bool {
        self.all.iter().any(|authority| authority.name.der == certificate.issuer)
    }

    /// The one that issued this certificate; `None` when none of ours did. Of two certificates of one authority, one
    /// that is valid `at` this time.
    #[must_use]
    pub fn issuer(&self, certificate: &Certificate<'_>, at: Timestamp) -> Option<Issuer> {
        let issued = |authority: &Authority| {
            authority.name.der == certificate.issuer
                && Certificate::parse(&authority.der).is_some_and(|ours| certificate.is_signed_by(&ours.key))
        };
        let all = self.all.iter().enumerate().filter(|(_, authority)| issued(authority));
        all.min_by_key(|(_, authority)| !authority.is_valid(at)).map(|(place, _)| Issuer(place))
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
        let way = self.walk(authority, at)?;
        verify(der, at, &way)?;
        Ok(way.until.min(certificate.not_after))
    }

    /// The way from an authority up to one that is trusted by itself.
    fn walk<'a>(&'a self, first: &'a Authority, at: Timestamp) -> Result<Way<'a>, Rejection> {
        let mut way = Way { until: Timestamp::from_nanos(u64::MAX), in_date: true, authorities: vec![first] };
        let mut authority = first;
        for _ in 0..=self.all.len() {
            if !authority.is_valid(at) {
                return Err(Rejection::AuthorityExpired { name: authority.name.to_string() });
            }
            let next_update = authority.list_until(at, self.grace)?;
            way.in_date &= at <= next_update;
            way.until = way.until.min(authority.not_after).min(next_update.saturating_add(self.grace));
            let issuers = self.all.iter().filter(|above| above.has_issued(authority));
            let Some(above) = issuers.min_by_key(|above| !above.is_valid(at)) else { return Ok(way) };
            if above.has_revoked(&authority.serial) {
                return Err(Rejection::AuthorityRevoked { name: authority.name.to_string() });
            }
            way.authorities.push(above);
            authority = above;
        }
        Err(Rejection::Path("its authorities certify each other in a circle".into()))
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
                List::Good(crl, _) => [crl.next_update, crl.next_update.saturating_add(self.grace)],
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

/// A way that was walked: the issuer first, last the one that is trusted by itself.
struct Way<'a> {
    /// Until when all of it is good.
    until: Timestamp,
    /// Whether all lists on it are within their own dates.
    in_date: bool,
    authorities: Vec<&'a Authority>,
}

/// Verifies a certificate along one way, and by the lists of that way alone: another authority may have the same name.
fn verify(der: &[u8], at: Timestamp, way: &Way<'_>) -> Result<(), Rejection> {
    let der = CertificateDer::from(der);
    let end = EndEntityCert::try_from(&der).map_err(|error| rejection(&error))?;
    let missing = || Rejection::ListMissing { name: String::new() };
    let lists: Vec<&CertRevocationList<'_>> =
        way.authorities.iter().filter_map(|one| one.list.good()).collect();
    let policy = if way.in_date { ExpirationPolicy::Enforce } else { ExpirationPolicy::Ignore };
    let revocation = RevocationOptionsBuilder::new(&lists)
        .map_err(|_| missing())?
        .with_depth(RevocationCheckDepth::Chain)
        .with_status_policy(UnknownStatusPolicy::Deny)
        .with_expiration_policy(policy)
        .build();
    let of = |authority: &Authority| CertificateDer::from(authority.der.clone());
    let (last, between) = way.authorities.split_last().ok_or_else(missing)?;
    let root = of(last);
    let anchor = anchor_from_trusted_cert(&root).map_err(|error| rejection(&error))?;
    let between: Vec<CertificateDer<'_>> = between.iter().map(|authority| of(authority)).collect();
    let usage = KeyUsage::client_auth();
    let time = UnixTime::since_unix_epoch(Duration::from_secs(at.as_secs()));
    end.verify_for_usage(ALL_VERIFICATION_ALGS, &[anchor], &between, time, usage, Some(revocation), None)
        .map(|_| ())
        .map_err(|error| rejection(&error))
}

/// All authorities, or none: one that is left out could be the one that has revoked another.
fn read_all(certificates: &[Vec<u8>]) -> Result<Vec<Authority>, Vec<String>> {
    const NONE: &str = "until that is put right, no certificate is accepted";
    if certificates.len() > MAX_AUTHORITIES {
        return Err(vec![format!(
            "{} authorities, and at most {MAX_AUTHORITIES} can be used; {NONE}",
            certificates.len()
        )]);
    }
    let mut all: Vec<Authority> = Vec::new();
    let mut complaints = Vec::new();
    for der in certificates {
        match Authority::read(der) {
            Ok(authority) if all.iter().any(|known| known.der == authority.der) => {}
            Ok(authority) => all.push(authority),
            Err(complaint) => complaints.push(format!("{complaint}; {NONE}")),
        }
    }
    let named_above = |authority: &Authority| {
        !authority.is_self_issued() && all.iter().any(|other| other.name.der == authority.issuer)
    };
    let orphans = all
        .iter()
        .filter(|authority| named_above(authority) && !all.iter().any(|other| other.has_issued(authority)));
    complaints.extend(orphans.map(|authority| {
        format!("{} bears the name of an authority that has not signed it, or whose key is of a kind that is not known here; {NONE}", authority.name)
    }));
    if complaints.is_empty() { Ok(all) } else { Err(complaints) }
}

/// Finds out whose list this is, and keeps it where it is the newest. An authority may have several certificates.
fn take_list(der: &[u8], all: &mut [Authority]) -> Result<(), String> {
    let crl = Crl::parse(der).map_err(|error| format!("one of the revocation lists {error}"))?;
    let issuer =
        Name::read(&crl.issuer).map_or_else(|| "an unreadable name".to_owned(), |name| name.to_string());
    let mut named: Vec<&mut Authority> =
        all.iter_mut().filter(|authority| authority.name.der == crl.issuer).collect();
    if named.is_empty() {
        return Err(format!("there is a revocation list of {issuer}, which is none of the authorities"));
    }
    let signed = |authority: &Authority| crl.verify(&authority.der).is_ok();
    if !named.iter().any(|authority| signed(authority)) {
        let without = named.iter_mut().filter(|authority| authority.list.good().is_none());
        without.for_each(|authority| authority.list = List::Forged);
        return Err(format!("a revocation list of {issuer} is not signed by it"));
    }
    let list = OwnedCertRevocationList::from_der(der)
        .map_err(|error| format!("the revocation list of {issuer} cannot be used: {error}"))?;
    let list = Rc::new(CertRevocationList::Owned(list));
    let order = |crl: &Crl| (crl.number.len(), crl.number.clone(), crl.this_update);
    for authority in named.into_iter().filter(|authority| signed(authority)) {
        if !matches!(&authority.list, List::Good(known, _) if order(known) >= order(&crl)) {
            authority.list = List::Good(crl.clone(), Rc::clone(&list));
        }
    }
    Ok(())
}

/// Numbers without leading zeros: the shorter one is the lower one.
fn is_lower(number: &[u8], than: &[u8]) -> bool {
    (number.len(), number) < (than.len(), than)
}
