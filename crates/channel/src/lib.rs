//! Authenticated connections: TLS 1.3 between peers that know each other by key, by certificate or
//! by evidence.
//!
//! A [`Listener`] accepts connections from peers that prove a key of their own and yields each with
//! its [`Peer`]. A [`Dialler`] connects to a service that must prove what [`Expect`] says:
//! acceptable evidence (RA-TLS, the verdict comes from `convelo_attest::verify`) or a pinned key.
//! [`PeerTls`] is the same between the parties of a pool, who may also know each other through
//! certificate authorities ([`Roots`]); [`Authority`] makes certificates for them.
//!
//! Two parties that have pinned each other's keys:
//!
//! ```
//! use convelo_channel::{Expect, Identity, PeerTls};
//! use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
//! use tokio::net::{TcpListener, TcpStream};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let now = std::time::UNIX_EPOCH.elapsed()?.as_secs();
//! let alice = PeerTls::new(Identity::generate().plain()?, None);
//! let bob = PeerTls::new(Identity::generate().plain()?, None);
//! // Each has told the other the SHA-256 of its key, by some other means.
//! let from_alice = Expect::Key(alice.credential().key_id());
//! let to_bob = Expect::Key(bob.credential().key_id());
//!
//! let listener = TcpListener::bind("127.0.0.1:0").await?;
//! let address = listener.local_addr()?;
//! let listening = async {
//!     let (tcp, _) = listener.accept().await?;
//!     let (mut stream, peer) = bob.accept(tcp).await?;
//!     from_alice.accepts(&peer, now)?; // the accepting side asks who came after the handshake
//!     let mut heard = String::new();
//!     stream.read_to_string(&mut heard).await?;
//!     Ok::<_, Box<dyn std::error::Error>>(heard)
//! };
//! let dialling = async {
//!     let tcp = TcpStream::connect(address).await?;
//!     let (mut stream, _) = alice.connect(tcp, &to_bob).await?; // the dialling side, during it
//!     stream.write_all(b"hello Bob").await?;
//!     stream.shutdown().await?;
//!     Ok(())
//! };
//! let (heard, ()) = tokio::try_join!(listening, dialling)?;
//! assert_eq!(heard, "hello Bob");
//! # Ok(())
//! # }
//! ```
//!
//! A certificate says that an enclave made a key at some time. On an open connection, a [`Binding`]
//! ties a fresh quote to it: [`Dialled::attest`] asks for one, and until the answer is verified,
//! nothing else can be sent to the service. The types see to that: only [`Dialled`] opens a
//! [`ServiceStream`], and the program that opens it decides how the challenge travels.
//!
//! ```no_run
//! use std::io;
//! use std::sync::Arc;
//!
//! use convelo_attest::{Collateral, Policy};
//! use convelo_channel::{Answer, Attested, Dialler, Expect, Identity, ServiceStream};
//! use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
//!
//! /// Sends the nonce, and reads the service's nonce and its quote.
//! async fn carry(
//!     mut stream: ServiceStream,
//!     nonce: [u8; 32],
//! ) -> io::Result<(ServiceStream, Answer)> {
//!     stream.write_all(&nonce).await?;
//!     stream.flush().await?;
//!     let mut nonce = [0; 32];
//!     stream.read_exact(&mut nonce).await?;
//!     let mut quote = vec![0; usize::from(stream.read_u16().await?)];
//!     stream.read_exact(&mut quote).await?;
//!     Ok((stream, Answer { nonce, quote, collateral: Vec::new() }))
//! }
//!
//! # async fn upload(policy: &str, collateral: &str, job_digest: [u8; 32], records: &[u8])
//! # -> Result<(), Box<dyn std::error::Error>> {
//! let expect = Expect::Evidence {
//!     policies: vec![Arc::new(Policy::from_toml(policy)?)],
//!     collateral: Arc::new(Collateral::from_json(collateral)?),
//!     key: None,
//! };
//! let dialler = Dialler::new(Identity::generate().plain()?);
//! // The certificate's evidence is verified in the handshake. Nothing can be written yet.
//! let dialled = dialler.dial("psi.example.org:7443", &expect).await?;
//! // The enclave quotes this very connection. Only now is there a stream for records.
//! let Attested { mut carrier, answered, .. } = dialled.attest(job_digest, carry).await?;
//! println!("{}", answered.fresh.expect("evidence was expected").verdict());
//! carrier.write_all(records).await?;
//! # Ok(())
//! # }
//! ```
//!
//! Everywhere: TLS 1.3 only, hybrid post-quantum key exchange preferred, no session resumption and
//! no 0-RTT, since a resumed session would skip the verifier.

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
mod log_limit;
mod proven;
mod provider;
pub mod proxy_protocol;
mod roots;
mod slots;
mod tls;
mod verdicts;

pub use admission::network;
pub use attestation::{Answer, Answered, Attestation, Challenge, Fresh};
pub use authority::{
    Authority, AuthorityError, Issued, certificate_identity, certificate_key, self_signed,
};
pub use binding::{Binding, Exchange};
pub use credential::{Credential, CredentialError};
pub use dial::{AttestError, Attested, DialError, Dialled, Dialler, ServiceStream};
pub use expect::Expect;
pub use identity::{Identity, IdentityError};
pub use listen::{
    Acquaintance, Acquaintances, Kept, Listener, ListenerError, ListenerLimits, Peer, PeerStream,
    Place, Seated,
};
pub use log_limit::{LogLimit, stranger_line};
pub use proven::ProvenPeer;
pub use roots::Roots;
pub use slots::{Holder, Lost, Slot, SlotLimits, Slots};
pub use tls::{PeerTls, PeerTlsError, refused_by_peer};

/// The one provider of cryptography for TLS, passed explicitly wherever TLS is used.
pub fn tls_provider() -> std::sync::Arc<rustls::crypto::CryptoProvider> {
    provider::provider()
}

/// The operating system's randomness.
pub fn os_rng() -> impl rand_core::CryptoRng {
    rand_core::UnwrapErr(getrandom::SysRng)
}
