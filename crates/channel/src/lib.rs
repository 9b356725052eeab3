//! Authenticated connections: TLS 1.3 between peers that know each other by key, by certificate or
//! by evidence.
//!
//! A [`Listener`] accepts connections of peers that prove a key of their own and yields each with
//! its [`Peer`]. [`dial`] connects to a service that must prove either acceptable evidence
//! ([`Expect::Evidence`]: RA-TLS, the verdict comes from `convelo_attest::verify`) or a pinned key
//! ([`Expect::Key`]). [`PeerTls`] is the same between the parties of a pool, who may also know each
//! other through certificate authorities ([`Roots`]); [`Authority`] makes certificates for them.
//! On a connection that stands, a [`Binding`] ties a fresh quote to it.
//! Everywhere: TLS 1.3 only, hybrid post-quantum key exchange preferred, no session resumption, no
//! 0-RTT, since a resumed session would skip the verifier.

mod admission;
mod authority;
mod binding;
mod certificate;
mod client;
mod expect;
mod identity;
pub mod limits;
mod peer;
mod provider;
mod server;
mod tls;
mod verdicts;

pub use authority::{
    Authority, AuthorityError, Issued, certificate_identity, certificate_key, self_signed,
};
pub use binding::{Binding, Exchange, Fresh};
pub use client::{DialError, ServiceStream, certificate_of, dial, dial_over};
pub use expect::Expect;
pub use identity::{Credential, Identity, IdentityError};
pub use peer::{
    PeerCredential, PeerCredentialError, PeerExpect, PeerTls, PeerTlsError, ProvenPeer, Roots,
    refused_by_peer,
};
pub use server::{Listener, ListenerError, Peer, PeerStream};

/// The one provider of TLS's cryptography, passed explicitly wherever TLS is spoken.
pub fn tls_provider() -> std::sync::Arc<rustls::crypto::CryptoProvider> {
    provider::provider()
}

/// The operating system's randomness.
pub fn os_rng() -> impl rand_core::CryptoRng {
    rand_core::UnwrapErr(getrandom::SysRng)
}
