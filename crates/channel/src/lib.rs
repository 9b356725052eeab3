//! Authenticated connections: TLS 1.3 between peers that know each other by key, by certificate or
//! by evidence.
//!
//! A [`Listener`] accepts connections of peers that prove a key of their own and yields each with
//! its [`Peer`]. A [`Dialler`] connects to a service that must prove what [`Expect`] says:
//! acceptable evidence (RA-TLS, the verdict comes from `convelo_attest::verify`) or a pinned key.
//! [`PeerTls`] is the same between the parties of a pool, who may also know each other through
//! certificate authorities ([`Roots`]); [`Authority`] makes certificates for them.
//!
//! A certificate says that an enclave made a key at some time. On a connection that stands, a
//! [`Binding`] ties a fresh quote to it: [`Dialled::attest`] asks for one, and nothing else can be
//! sent to a service before.
//!
//! Everywhere: TLS 1.3 only, hybrid post-quantum key exchange preferred, no session resumption, no
//! 0-RTT, since a resumed session would skip the verifier.

mod admission;
mod attestation;
mod authority;
mod binding;
mod certificate;
mod credential;
mod dial;
mod expect;
mod handshake;
mod identity;
pub mod limits;
mod listen;
mod proven;
mod provider;
mod roots;
mod tls;
mod verdicts;

pub use attestation::{Answer, Answered, Attestation, Challenge, Fresh};
pub use authority::{
    Authority, AuthorityError, Issued, certificate_identity, certificate_key, self_signed,
};
pub use binding::{Binding, Exchange};
pub use credential::{Credential, CredentialError};
pub use dial::{AttestError, Attested, DialError, Dialled, Dialler, ServiceStream};
pub use expect::Expect;
pub use identity::{Identity, IdentityError};
pub use listen::{Listener, ListenerError, Peer, PeerStream};
pub use proven::ProvenPeer;
pub use roots::Roots;
pub use tls::{PeerTls, PeerTlsError, refused_by_peer};

/// The one provider of TLS's cryptography, passed explicitly wherever TLS is spoken.
pub fn tls_provider() -> std::sync::Arc<rustls::crypto::CryptoProvider> {
    provider::provider()
}

/// The operating system's randomness.
pub fn os_rng() -> impl rand_core::CryptoRng {
    rand_core::UnwrapErr(getrandom::SysRng)
}
