//! Bytes under a passphrase: Argon2id (RFC 9106) makes a key of it, AES-256-GCM seals.
//!
//! What this costs is written beside what is sealed, and bounded when it is read: whoever made the bytes chooses how
//! much memory and time the reader spends.

use aes_gcm::{AeadInOut, Aes256Gcm, KeyInit};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use zeroize::Zeroizing;

use super::noise::TAG_LEN;

/// The length of the salt in bytes (RFC 9106, section 3.1: 16 are enough for every application).
pub const SALT_LEN: usize = 16;

/// What one guess costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// The power of two that is the memory in KiB.
    memory: u8,
    passes: u8,
    lanes: u8,
}

impl Cost {
    /// 64 MiB and three passes, the second recommended set of RFC 9106, section 4; in one lane, since this is computed by
    /// one thread and more lanes help the one with many.
    pub const USUAL: Self = Self { memory: 16, passes: 3, lanes: 1 };

    /// The least that is accepted: 8 MiB, once.
    pub const LEAST: Self = Self { memory: 13, passes: 1, lanes: 1 };
    /// The most that is accepted: 256 MiB, eight times, in four lanes; a few seconds.
    pub const MOST: Self = Self { memory: 18, passes: 8, lanes: 4 };

    /// As [`to_bytes`](Self::to_bytes) wrote it; `None` outside of what is accepted.
    #[must_use]
    pub fn from_bytes([memory, passes, lanes]: [u8; 3]) -> Option<Self> {
        let within = (Self::LEAST.memory..=Self::MOST.memory).contains(&memory)
            && (Self::LEAST.passes..=Self::MOST.passes).contains(&passes)
            && (Self::LEAST.lanes..=Self::MOST.lanes).contains(&lanes);
        within.then_some(Self { memory, passes, lanes })
    }

    /// Memory, passes and lanes, a byte each.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 3] {
        [self.memory, self.passes, self.lanes]
    }
}

/// Seals `plain`; the tag is at its end. `header` is what a reader sees before, and cannot be changed afterwards.
///
/// The salt has to be new each time: the key follows from it, and is used for one message.
///
/// # Errors
/// [`SealError::Memory`].
pub fn seal(
    passphrase: &[u8],
    salt: &[u8; SALT_LEN],
    cost: Cost,
    header: &[u8],
    plain: &[u8],
) -> Result<Vec<u8>, SealError> {
    let cipher = cipher(passphrase, salt, cost)?;
    // Sealed in place; room for the tag, so that nothing moves and leaves a copy behind.
    let mut bytes = Vec::with_capacity(plain.len() + TAG_LEN);
    bytes.extend_from_slice(plain);
    cipher.encrypt_in_place(&NONCE.into(), header, &mut bytes).map_err(|_| SealError::Refused)?;
    Ok(bytes)
}

/// Opens what [`seal`] made.
///
/// # Errors
/// [`SealError::Refused`] when the passphrase is another one or a byte was changed, which nobody can tell apart.
pub fn open(
    passphrase: &[u8],
    salt: &[u8; SALT_LEN],
    cost: Cost,
    header: &[u8],
    sealed: &[u8],
) -> Result<Zeroizing<Vec<u8>>, SealError> {
    let cipher = cipher(passphrase, salt, cost)?;
    let mut bytes = Zeroizing::new(sealed.to_vec());
    cipher.decrypt_in_place(&NONCE.into(), header, &mut *bytes).map_err(|_| SealError::Refused)?;
    Ok(bytes)
}

/// Why nothing was sealed or opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealError {
    /// This machine has not the memory that it takes.
    Memory,
    /// Another passphrase, or other bytes.
    Refused,
}

/// One message under each key: see [`seal`].
const NONCE: [u8; 12] = [0; 12];

fn cipher(passphrase: &[u8], salt: &[u8; SALT_LEN], cost: Cost) -> Result<Aes256Gcm, SealError> {
    let memory = 1u32.checked_shl(u32::from(cost.memory)).ok_or(SealError::Memory)?;
    let params = Params::new(memory, u32::from(cost.passes), u32::from(cost.lanes), Some(32));
    let params = params.map_err(|_| SealError::Memory)?;
    let mut blocks: Zeroizing<Vec<Block>> = Zeroizing::new(Vec::new());
    blocks.try_reserve_exact(params.block_count()).map_err(|_| SealError::Memory)?;
    blocks.resize(params.block_count(), Block::new());
    let mut key = Zeroizing::new([0; 32]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into_with_memory(passphrase, salt, key.as_mut_slice(), blocks.as_mut_slice())
        .map_err(|_| SealError::Memory)?;
    Ok(Aes256Gcm::new((&*key).into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As cheap as it may be, for tests alone.
    const CHEAP: Cost = Cost::LEAST;

    #[test]
    fn what_is_sealed_opens_under_the_same_passphrase_and_header_only() {
        let (salt, header) = ([7; SALT_LEN], b"header");
        let sealed = seal(b"correct horse", &salt, CHEAP, header, b"plain").unwrap();
        let opened = |passphrase: &[u8], salt, header: &[u8], sealed: &[u8]| {
            open(passphrase, salt, CHEAP, header, sealed).map(|plain| plain.to_vec())
        };
        assert_eq!(opened(b"correct horse", &salt, header, &sealed), Ok(b"plain".to_vec()));
        assert_eq!(opened(b"correct hors", &salt, header, &sealed), Err(SealError::Refused));
        assert_eq!(opened(b"correct horse", &[8; SALT_LEN], header, &sealed), Err(SealError::Refused));
        assert_eq!(opened(b"correct horse", &salt, b"headex", &sealed), Err(SealError::Refused));
        let mut changed = sealed.clone();
        changed[0] ^= 1;
        assert_eq!(opened(b"correct horse", &salt, header, &changed), Err(SealError::Refused));
        assert_eq!(opened(b"correct horse", &salt, header, &[]), Err(SealError::Refused));
    }

    #[test]
    fn a_cost_outside_of_the_limits_is_none() {
        for bytes in [[13, 1, 1], [16, 3, 1], [18, 8, 4]] {
            assert_eq!(Cost::from_bytes(bytes).map(Cost::to_bytes), Some(bytes));
        }
        for bytes in [
            [12, 1, 1],
            [19, 1, 1],
            [32, 1, 1],
            [255, 255, 255],
            [16, 0, 1],
            [16, 9, 1],
            [16, 3, 0],
            [16, 3, 5],
        ] {
            assert_eq!(Cost::from_bytes(bytes), None, "{bytes:?}");
        }
    }

    #[test]
    fn a_derived_key_is_that_of_the_reference_program() {
        // echo -n password | argon2 somesaltsomesalt -id -t 2 -m 13 -p 1 -l 32 -r, of the reference implementation
        let salt = b"somesaltsomesalt";
        let cost = Cost { memory: 13, passes: 2, lanes: 1 };
        let key = [
            0xfd, 0x7e, 0x44, 0x55, 0x2d, 0x83, 0xdb, 0x6b, 0x9c, 0x2b, 0xc9, 0xdb, 0xd6, 0xd8, 0x8f, 0xe0,
            0xfa, 0xcd, 0x11, 0xdf, 0x46, 0x54, 0xac, 0x21, 0xfe, 0x80, 0x13, 0xfd, 0x7a, 0x05, 0xeb, 0xc3,
        ];
        let mut bytes = seal(b"password", salt, cost, b"", b"plain").unwrap();
        Aes256Gcm::new(&key.into()).decrypt_in_place(&NONCE.into(), b"", &mut bytes).unwrap();
        assert_eq!(bytes, b"plain");
    }
}
