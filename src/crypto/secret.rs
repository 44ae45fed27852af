//! Bytes that must not be printed, compared in variable time, or left in memory.

use std::fmt;

use base64ct::{Base64, Encoding};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// `N` secret bytes: wiped on drop, never printed, compared in constant time.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Secret<const N: usize>([u8; N]);

impl<const N: usize> Secret<N> {
    /// Takes the bytes over. The caller wipes whatever copy it still holds.
    #[must_use]
    pub const fn new(bytes: [u8; N]) -> Self {
        Self(bytes)
    }

    /// Bytes that `make` writes in their place, so that there is no copy to wipe.
    pub(super) fn made(make: impl FnOnce(&mut [u8; N])) -> Self {
        let mut secret = Self([0; N]);
        make(&mut secret.0);
        secret
    }

    /// The bytes, for the primitive that needs them. The name is long so that each use is seen in review.
    #[must_use]
    pub const fn expose(&self) -> &[u8; N] {
        &self.0
    }

    /// From its text form: standard base64 with padding (RFC 4648, section 4), nothing before or after it.
    /// Decoded without a look-up table, so that the cache tells nothing about it.
    ///
    /// # Errors
    /// [`KeyTextError`] when the text is anything but the one text that stands for `N` bytes.
    pub fn from_base64(text: &str) -> Result<Self, KeyTextError> {
        let mut secret = Self([0; N]);
        decode(text, &mut secret.0)?;
        Ok(secret)
    }

    /// Its text form, for a file that only its owner can read.
    #[must_use]
    pub fn to_base64(&self) -> Zeroizing<String> {
        Zeroizing::new(Base64::encode_string(&self.0))
    }
}

/// As base64, for the brief that the monitor hands to its worker. The caller wipes what it serialises into.
impl<const N: usize> serde::Serialize for Secret<N> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_base64())
    }
}

impl<'de, const N: usize> serde::Deserialize<'de> for Secret<N> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Base64 has nothing to unescape, so the text is borrowed and leaves no copy behind.
        let text = <&str>::deserialize(deserializer)?;
        Self::from_base64(text).map_err(serde::de::Error::custom)
    }
}

/// Decodes exactly as many bytes as `bytes` holds.
pub(super) fn decode(text: &str, bytes: &mut [u8]) -> Result<(), KeyTextError> {
    let expected = bytes.len();
    match Base64::decode(text, bytes) {
        Ok(decoded) if decoded.len() == expected => Ok(()),
        _ => Err(KeyTextError { bytes: expected }),
    }
}

impl<const N: usize> PartialEq for Secret<N> {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl<const N: usize> Eq for Secret<N> {}

impl<const N: usize> fmt::Debug for Secret<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// The text is no key. It is not repeated, because it may be most of a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyTextError {
    bytes: usize,
}

impl fmt::Display for KeyTextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let characters = self.bytes.div_ceil(3).saturating_mul(4);
        write!(f, "not a key; write {} bytes in base64, which is {characters} characters", self.bytes)
    }
}

impl std::error::Error for KeyTextError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_never_printed() {
        assert_eq!(format!("{:?}", Secret::new([7; 32])), "Secret(..)");
    }

    #[test]
    fn secrets_are_equal_when_their_bytes_are() {
        assert_eq!(Secret::new([1, 2]), Secret::new([1, 2]));
        assert_ne!(Secret::new([1, 2]), Secret::new([1, 3]));
    }

    #[test]
    fn a_secret_reads_back_as_it_was_written() {
        let secret = Secret::new(*b"a secret of thirty-two bytes, ok");
        assert_eq!(secret.to_base64().as_str(), "YSBzZWNyZXQgb2YgdGhpcnR5LXR3byBieXRlcywgb2s=");
        assert_eq!(Secret::from_base64(&secret.to_base64()), Ok(secret));
    }

    #[test]
    fn a_text_that_is_no_key_is_not_repeated_in_the_error() {
        let texts = [
            "",
            "YSBzZWNyZXQgb2YgdGhpcnR5LXR3byBieXRlcywgb2s", // no padding
            "YSBzZWNyZXQgb2YgdGhpcnR5LXR3byBieXRlcywgb2s=\n", // the caller cuts the line
            "YSBzZWNyZXQgb2YgdGhpcnR5LXR3byBieXRlcywgb2t=", // bits behind the last byte
            "YSBzZWNyZXQgb2YgdGhpcnR5LXR3byBieXRlcywgbw==", // 31 bytes
            "YSBzZWNyZXQgb2YgdGhpcnR5LXR3byBieXRlcywgb2tr", // 33 bytes
            "YSBzZWNyZXQgb2YgdGhpcnR5LXR3byBieXRlcywgb2!=",
        ];
        for text in texts {
            let error = Secret::<32>::from_base64(text).unwrap_err();
            assert_eq!(
                error.to_string(),
                "not a key; write 32 bytes in base64, which is 44 characters",
                "{text}"
            );
        }
    }
}
