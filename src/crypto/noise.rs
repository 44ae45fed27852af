//! The first message of `Noise_IKpsk1_25519_AESGCM_SHA256`, both directions (noiseprotocol.org, revision 34); the
//! same of `Noise_NK_25519_AESGCM_SHA256` is in [`nk`].
//!
//! ```text
//! <- s                        the server's static key is known beforehand
//! -> e, es, s, ss, psk        e (32) || s, sealed (32 + 16) || payload, sealed (n + 16)
//! ```
//!
//! The responder works in two steps, because it must learn who claims to knock before it can look up the rest:
//! [`Responder::claim`] costs one Diffie-Hellman and proves nothing about the client, [`Claim::open`] proves it.
//! Nothing is answered, so that no transport keys are derived.

use aes_gcm::{AeadInOut, Aes256Gcm, KeyInit};
use zeroize::Zeroizing;

use super::hash::{code, keyed};
use super::{KeyPair, PublicKey, Secret, sha256};

pub mod nk;

/// 32 random bytes that one client and the server share, or zeros where they share none.
pub type Psk = Secret<32>;

/// The length of an AES-GCM tag in bytes.
pub const TAG_LEN: usize = 16;

/// The length of a sealed static key in bytes.
pub const SEALED_KEY_LEN: usize = 32 + TAG_LEN;

/// The initiator's message: the ephemeral key, the sealed static key, and `payload` sealed, in this order.
///
/// `ephemeral` is a fresh key pair, used for this message only: the nonces are fixed, and the same key pair
/// with another payload would let the two be read. `None` when the server's key is of small order.
#[must_use]
pub fn write(
    prologue: &[u8],
    client: &KeyPair,
    server: &PublicKey,
    psk: &Psk,
    ephemeral: &KeyPair,
    payload: &[u8],
) -> Option<Vec<u8>> {
    let mut state = Symmetric::new(NAME, prologue, server);
    let mut message = Vec::with_capacity(32 + SEALED_KEY_LEN + payload.len() + TAG_LEN);
    // -> e
    message.extend_from_slice(&ephemeral.public().0);
    state.mix_ephemeral(&ephemeral.public().0);
    // -> es
    let key = state.mix_key(&ephemeral.agree(server)?);
    // -> s
    state.seal(&key, &client.public().0, &mut message)?;
    // -> ss
    state.mix_key(&client.agree(server)?);
    // -> psk
    let key = state.mix_key_and_hash(psk);
    state.seal(&key, payload, &mut message)?;
    Some(message)
}

/// The server's side: its key pair, and the state that every message starts from.
pub struct Responder {
    server: KeyPair,
    start: Symmetric,
}

impl Responder {
    /// A responder for messages with this prologue.
    #[must_use]
    pub fn new(prologue: &[u8], server: KeyPair) -> Self {
        let start = Symmetric::new(NAME, prologue, &server.public());
        Self { server, start }
    }

    /// The secret shared with a client (`ss`): the same for all of its messages, so worth keeping.
    #[must_use]
    pub fn shared(&self, client: &PublicKey) -> Option<Secret<32>> {
        self.server.agree(client)
    }

    /// Tokens `e`, `es`, `s`: whose message this claims to be. `None` when it was not made for this server.
    #[must_use]
    pub fn claim(&self, ephemeral: &[u8; 32], sealed_key: &[u8; SEALED_KEY_LEN]) -> Option<Claim> {
        let mut state = self.start.clone();
        // <- e
        state.mix_ephemeral(ephemeral);
        // <- es
        let key = state.mix_key(&self.server.agree(&PublicKey(*ephemeral))?);
        // <- s
        let mut client = [0; 32];
        state.open(&key, sealed_key, &mut client)?;
        Some(Claim { client: PublicKey(client), state })
    }
}

/// A message that names a client. Whoever knows the server's public key can make one in any client's name.
pub struct Claim {
    client: PublicKey,
    state: Symmetric,
}

impl Claim {
    /// The client that the message names.
    #[must_use]
    pub fn client(&self) -> PublicKey {
        self.client
    }

    /// Tokens `ss`, `psk` and the payload: `None` unless the client itself made the message.
    #[must_use]
    pub fn open(mut self, shared: &Secret<32>, psk: &Psk, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        // <- ss
        self.state.mix_key(shared);
        // <- psk
        let key = self.state.mix_key_and_hash(psk);
        let mut payload = Zeroizing::new(vec![0; sealed.len().checked_sub(TAG_LEN)?]);
        self.state.open(&key, sealed, &mut payload)?;
        Some(payload)
    }
}

/// `SymmetricState` (section 5.2): the chaining key and the hash of everything said so far. Each cipher key
/// is used for one message under nonce 0, and is therefore returned rather than kept.
#[derive(Clone)]
struct Symmetric {
    chain: Secret<32>,
    hash: [u8; 32],
}

impl Symmetric {
    /// `InitializeSymmetric`, the prologue, and the pre-message `<- s`.
    fn new(name: &[u8; 32], prologue: &[u8], server: &PublicKey) -> Self {
        // A name that is no longer than a hash stands for itself, filled up with zeros.
        let mut state = Self { chain: Secret::new(*name), hash: *name };
        state.mix_hash(prologue);
        state.mix_hash(&server.0);
        state
    }

    fn mix_hash(&mut self, data: &[u8]) {
        self.hash = sha256(&[&self.hash, data]);
    }

    /// Token `e`; in a handshake with a psk it is mixed into the key too (section 9.2).
    fn mix_ephemeral(&mut self, ephemeral: &[u8; 32]) {
        self.mix_hash(ephemeral);
        self.mix_key(&Secret::new(*ephemeral));
    }

    /// `MixKey`: returns the cipher key.
    fn mix_key(&mut self, input: &Secret<32>) -> Secret<32> {
        let [chain, key, _] = hkdf(&self.chain, input);
        self.chain = chain;
        key
    }

    /// `MixKeyAndHash`: returns the cipher key.
    fn mix_key_and_hash(&mut self, input: &Secret<32>) -> Secret<32> {
        let [chain, hash, key] = hkdf(&self.chain, input);
        self.chain = chain;
        self.mix_hash(hash.expose());
        key
    }

    /// `EncryptAndHash`: the ciphertext and its tag are put behind `message`. `None` for 64 GiB and more.
    fn seal(&mut self, key: &Secret<32>, plain: &[u8], message: &mut Vec<u8>) -> Option<()> {
        let mut sealed = plain.to_vec();
        let tag = cipher(key)
            .encrypt_inout_detached(&NONCE.into(), &self.hash, sealed.as_mut_slice().into())
            .ok()?;
        sealed.extend_from_slice(&tag);
        self.mix_hash(&sealed);
        message.extend_from_slice(&sealed);
        Some(())
    }

    /// `DecryptAndHash`: fills `plain`, which is shorter than `sealed` by the tag. Nothing is written before
    /// the tag is verified.
    fn open(&mut self, key: &Secret<32>, sealed: &[u8], plain: &mut [u8]) -> Option<()> {
        let (text, tag) = sealed.split_last_chunk::<TAG_LEN>()?;
        let mut opened = Zeroizing::new(text.to_vec());
        let buffer = opened.as_mut_slice().into();
        cipher(key).decrypt_inout_detached(&NONCE.into(), &self.hash, buffer, &(*tag).into()).ok()?;
        self.mix_hash(sealed);
        for (to, from) in plain.iter_mut().zip(opened.iter()) {
            *to = *from;
        }
        Some(())
    }
}

/// The three outputs of `HKDF` (section 4.3). A caller that needs two pays for a third, which is a microsecond.
fn hkdf(chain: &Secret<32>, input: &Secret<32>) -> [Secret<32>; 3] {
    let extracted = keyed(code(&keyed(chain.expose()), &[input.expose()]).expose());
    let first = code(&extracted, &[&[1]]);
    let second = code(&extracted, &[first.expose(), &[2]]);
    let third = code(&extracted, &[second.expose(), &[3]]);
    [first, second, third]
}

fn cipher(key: &Secret<32>) -> Aes256Gcm {
    Aes256Gcm::new(key.expose().into())
}

const NAME: &[u8; 32] = b"Noise_IKpsk1_25519_AESGCM_SHA256";

/// AES-GCM's nonce for the first message under a key (section 12.4: 32 zero bits and a counter).
const NONCE: [u8; 12] = [0; 12];
