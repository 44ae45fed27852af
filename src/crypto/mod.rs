//! Keys and the primitives made from them: [`Secret`], X25519 key pairs, Noise, the `mac1` [`Gate`].
//!
//! Pure: no I/O, no clock; randomness is an argument. What leaves this module unwiped is public.
#![forbid(unsafe_code)]

mod gate;
mod hash;
mod keys;
pub mod noise;
pub mod passphrase;
mod secret;
mod stream;

pub use gate::{Code, Gate, GateKey, MAC1_LEN, Mac1, Pseudonym, pseudonym};
pub use hash::derive;
pub(crate) use hash::{Keyed, code, keyed, sha256};
pub use keys::{KeyPair, PublicKey};
pub use noise::Psk;
pub use secret::{KeyTextError, Secret};
pub(crate) use stream::xor_stream;
