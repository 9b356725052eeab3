//! Authenticated connections: TLS 1.3 between peers that know each other by key, or by evidence.
//!
//! A [`Listener`] accepts connections of peers that prove a key of their own and yields each with
//! its [`Peer`]. [`dial`] connects to a service that must prove either acceptable evidence
//! ([`Expect::Evidence`]: RA-TLS, the verdict comes from `convelo_attest::verify`) or a pinned key
//! ([`Expect::Key`]). Both sides: TLS 1.3 only, hybrid post-quantum key exchange preferred, no
//! session resumption, no 0-RTT, since a resumed session would skip the verifier.

mod client;
mod expect;
mod identity;
pub mod limits;
mod provider;
mod server;
mod tls;

pub use client::{DialError, ServiceStream, dial};
pub use expect::Expect;
pub use identity::{Credential, Identity, IdentityError};
pub use server::{Listener, ListenerError, Peer, PeerStream};

/// The operating system's randomness.
pub fn os_rng() -> impl rand_core::CryptoRng {
    rand_core::UnwrapErr(getrandom::SysRng)
}
