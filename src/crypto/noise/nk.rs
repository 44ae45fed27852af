//! The first message of `Noise_NK_25519_AESGCM_SHA256`: a client without a Noise key, a server that is known.
//!
//! ```text
//! <- s                        the server's static key is known beforehand
//! -> e, es                    e (32) || payload, sealed (n + 16)
//! ```
//!
//! The message proves nothing about its sender. What does is in the payload: a signature over the handshake hash,
//! which holds the server's key and the ephemeral key, so that it is good in this message alone.

use zeroize::Zeroizing;

use super::{Symmetric, TAG_LEN};
use crate::crypto::{KeyPair, PublicKey};

/// The handshake hash `h` after `e, es` and before the payload.
pub type Binding = [u8; 32];

/// The client's side, between the tokens and the payload, which is signed for this handshake.
pub struct Initiator {
    state: Symmetric,
    key: crate::crypto::Secret<32>,
    ephemeral: PublicKey,
}

impl Initiator {
    /// Tokens `e, es`. `ephemeral` is a fresh key pair, used for this message only. `None` when the server's key is
    /// of small order.
    #[must_use]
    pub fn new(prologue: &[u8], server: &PublicKey, ephemeral: &KeyPair) -> Option<Self> {
        let mut state = Symmetric::new(NAME, prologue, server);
        // -> e
        state.mix_hash(&ephemeral.public().0);
        // -> es
        let key = state.mix_key(&ephemeral.agree(server)?);
        Some(Self { state, key, ephemeral: ephemeral.public() })
    }

    /// What a signature in the payload has to cover.
    #[must_use]
    pub fn binding(&self) -> Binding {
        self.state.hash
    }

    /// The message: the ephemeral key and `payload` sealed. `None` for 64 GiB and more.
    #[must_use]
    pub fn seal(mut self, payload: &[u8]) -> Option<Vec<u8>> {
        let mut message = Vec::with_capacity(32 + payload.len() + TAG_LEN);
        message.extend_from_slice(&self.ephemeral.0);
        self.state.seal(&self.key, payload, &mut message)?;
        Some(message)
    }
}

/// The server's side.
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

    /// Tokens `e, es` and the payload: the plaintext, and what a signature in it has to cover. `None` when the
    /// message was not made for this server.
    #[must_use]
    pub fn open(&self, ephemeral: &[u8; 32], sealed: &[u8]) -> Option<(Binding, Zeroizing<Vec<u8>>)> {
        let mut state = self.start.clone();
        // <- e
        state.mix_hash(ephemeral);
        // <- es
        let key = state.mix_key(&self.server.agree(&PublicKey(*ephemeral))?);
        let binding = state.hash;
        let mut payload = Zeroizing::new(vec![0; sealed.len().checked_sub(TAG_LEN)?]);
        state.open(&key, sealed, &mut payload)?;
        Some((binding, payload))
    }
}

const NAME: &[u8; 32] = b"Noise_NK_25519_AESGCM_SHA256\0\0\0\0";
