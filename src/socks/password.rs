//! The name and the password that clients have to know.

use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::crypto::sha256;

/// Who may use the proxy. Holds a hash: what is compared has one length, whatever was said.
#[derive(Clone)]
pub struct Password(Zeroizing<[u8; 32]>);

impl Password {
    /// `None` for what SOCKS5 cannot carry: each has 1 to 255 bytes.
    #[must_use]
    pub fn new(name: &[u8], password: &[u8]) -> Option<Self> {
        let fits = |bytes: &[u8]| (1..=255).contains(&bytes.len());
        (fits(name) && fits(password)).then(|| Self(hash(name, password)))
    }

    /// Compares in constant time.
    pub(super) fn is(&self, name: &[u8], password: &[u8]) -> bool {
        self.0.ct_eq(&*hash(name, password)).into()
    }
}

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Password")
    }
}

/// The name's own hash separates it from the password, wherever one ends.
fn hash(name: &[u8], password: &[u8]) -> Zeroizing<[u8; 32]> {
    Zeroizing::new(sha256(&[b"knockd-rs proxy", &sha256(&[name]), password]))
}
