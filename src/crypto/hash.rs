//! SHA-256 and HMAC-SHA256 (RFC 2104) without an error path.

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::Secret;

/// HMAC-SHA256 with its key taken in: half of the work of a short message is done once.
pub(crate) type Keyed = Hmac<Sha256>;

/// The hash of the parts, one after the other.
pub(crate) fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
    }
    hash.finalize().into()
}

/// HMAC-SHA256 under a key of 32 bytes.
pub(crate) fn keyed(key: &[u8; 32]) -> Keyed {
    // RFC 2104, section 2: a key shorter than the hash's block of 64 bytes is filled up with zeros.
    let mut block = Zeroizing::new([0; 64]);
    for (to, from) in block.iter_mut().zip(key) {
        *to = *from;
    }
    Keyed::new((&*block).into())
}

/// The code of the parts, one after the other.
pub(crate) fn code(mac: &Keyed, parts: &[&[u8]]) -> Secret<32> {
    let mut mac = mac.clone();
    for part in parts {
        mac.update(part);
    }
    Secret::made(|out| hmac::digest::FixedOutput::finalize_into(mac, out.into()))
}

/// A key for one purpose, from what a client and the server share: HKDF-SHA256 (RFC 5869) without a salt, over
/// `shared || psk`, 32 bytes.
///
/// - `shared`: the X25519 secret of the two static keys.
/// - `psk`: zeros where there is none.
/// - `info`: names the purpose.
#[must_use]
pub fn derive(shared: &Secret<32>, psk: &Secret<32>, info: &[u8]) -> Secret<32> {
    // RFC 5869, section 2.2: without a salt the key of the extraction is a hash's length of zeros.
    let extracted = code(&keyed(&[0; 32]), &[shared.expose(), psk.expose()]);
    // Section 2.3: the first block, T(1), is all that 32 bytes need.
    code(&keyed(extracted.expose()), &[info, &[1]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_that_of_rfc_4231() {
        // RFC 4231, test case 1, whose key of 20 bytes is the same key when filled up with zeros.
        let mut key = [0; 32];
        key[..20].fill(0x0b);
        let code = code(&keyed(&key), &[b"Hi ", b"There"]);
        let expected = [
            0xb0, 0x34, 0x4c, 0x61, 0xd8, 0xdb, 0x38, 0x53, 0x5c, 0xa8, 0xaf, 0xce, 0xaf, 0x0b, 0xf1, 0x2b,
            0x88, 0x1d, 0xc2, 0x00, 0xc9, 0x83, 0x3d, 0xa7, 0x26, 0xe9, 0x37, 0x6c, 0x2e, 0x32, 0xcf, 0xf7,
        ];
        assert_eq!(code.expose(), &expected);
    }

    #[test]
    fn a_derived_key_is_that_of_another_hkdf() {
        // import hmac,hashlib as h; e = h2(bytes(32), b'\x01'*32 + b'\x02'*32); h2(e, b'knockd-rs v1 test\x01'),
        // where h2(k, m) = hmac.new(k, m, 'sha256').digest()
        let key = derive(&Secret::new([1; 32]), &Secret::new([2; 32]), b"knockd-rs v1 test");
        let hex: String = key.expose().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "0c339d1b8dff7cb2127bac3e7c248c922670ef1800ff2c86f0b01b69194af051");
    }

    #[test]
    fn the_state_of_a_hash_is_wiped() {
        // An HMAC is two such states, the key taken in; `hmac` itself names no wipe, its parts are wiped by
        // theirs. Without the feature `zeroize` of `sha2` and `hmac` this does not compile.
        fn wiped<T: zeroize::ZeroizeOnDrop>() {}
        wiped::<Sha256>();
        wiped::<<Sha256 as hmac::digest::block_api::CoreProxy>::Core>();
    }
}
