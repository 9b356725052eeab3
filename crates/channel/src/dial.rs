//! The side that dials a service.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use convelo_attest::{Refusal, Verdict};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::attestation::{Answer, Answered, Attestation};
use crate::binding::Binding;
use crate::credential::Credential;
use crate::expect::Expect;
use crate::limits::{CONNECT_TIMEOUT, HANDSHAKE_TIMEOUT, MAXIMUM_BYTES_BEFORE_TRUST};
use crate::listen::unix_now;
use crate::proven::ProvenPeer;
use crate::tls::{PeerTls, PeerTlsError};

/// A connection that could not be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// Nobody answers there (yet): worth another try.
    #[error("cannot reach {address}: {source}")]
    Unreachable {
        /// Where.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// The address's host has no address of its own: it is misspelt, or this host cannot ask.
    #[error(
        "the name '{host}' does not resolve ({source}); compare it with the service's name, and check \
         this host's DNS"
    )]
    UnknownHost {
        /// The name.
        host: String,
        /// Why.
        source: io::Error,
    },
    /// The service's evidence or key was refused: final.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The service does not have the key exchange that is demanded: final.
    #[error(
        "{address} does not have the key exchange X25519MLKEM768, which the job demands: upgrade the \
         service, or have the job demand less"
    )]
    KeyExchange {
        /// Where.
        address: String,
    },
    /// The TLS handshake failed for another reason.
    #[error(
        "{address} answers, but the TLS handshake failed: {source}; \
         is it running this version of the convelo service?"
    )]
    Handshake {
        /// Where.
        address: String,
        /// Why.
        source: io::Error,
    },
}

/// Dials services under one credential, which a service only sees after the handshake has found what
/// is expected of it. Clones share what has been verified: evidence that was accepted a moment ago
/// costs only a look-up.
#[derive(Clone, Debug)]
pub struct Dialler(Arc<PeerTls>);

/// A dialled service. Its certificate is as expected, and nothing has been sent to it.
///
/// Nothing can be written here. First, [`Dialled::attest`] makes the service answer a challenge:
///
/// ```compile_fail,E0599
/// use tokio::io::AsyncWriteExt as _;
///
/// async fn upload(mut service: convelo_channel::Dialled) -> std::io::Result<()> {
///     service.write_all(b"records").await
/// }
/// ```
pub struct Dialled {
    tls: Box<TlsStream<TcpStream>>,
    expect: Expect,
    peer: ProvenPeer,
    binding: Binding,
}

/// A service that has answered its first challenge.
pub struct Attested<S> {
    /// The stream that carried the challenge, and now carries everything.
    pub carrier: S,
    /// What the answer yielded.
    pub answered: Answered,
    /// For the next challenge on the same connection.
    pub attestation: Attestation,
}

/// A service that failed to answer its first challenge.
#[derive(Debug, thiserror::Error)]
pub enum AttestError<E> {
    /// Its proof was refused: final.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The challenge or its answer did not get through.
    #[error(transparent)]
    Carrier(E),
}

impl Dialler {
    /// Dials under this credential.
    pub fn new(credential: Credential) -> Self {
        Self(Arc::new(PeerTls::new(credential, None).of_service()))
    }

    /// Dials under this credential, and accepts no other key exchange than X25519MLKEM768: what is
    /// recorded on the way stays secret from a later quantum computer.
    pub fn hybrid(credential: Credential) -> Self {
        Self(Arc::new(PeerTls::new(credential, None).of_service().hybrid_only()))
    }

    /// Dials `address` (`host:port`), where a service must meet `expect`.
    ///
    /// With [`Expect::EvidenceWithOffer`], the handshake verifies nothing. So this is only a look: the
    /// service sees a key made for this one connection. To meet it under this dialler's credential,
    /// have it [attest](Dialled::attest), and dial again with [`Attested::same_service`].
    ///
    /// # Errors
    /// [`DialError`]; each case says whether another try can help.
    pub async fn dial(&self, address: &str, expect: &Expect) -> Result<Dialled, DialError> {
        self.dial_over(reach(address).await?, address, expect).await
    }

    /// Like [`Dialler::dial`], but over an existing connection: from a chosen source address, or
    /// through a proxy. Messages name `address`.
    ///
    /// # Errors
    /// [`DialError`].
    pub async fn dial_over(
        &self,
        tcp: TcpStream,
        address: &str,
        expect: &Expect,
    ) -> Result<Dialled, DialError> {
        let tls = match expect {
            Expect::EvidenceWithOffer { .. } => {
                let anonymous = self.0.under_a_new_key().map_err(|error| {
                    failed(address, PeerTlsError::Handshake(io::Error::other(error)))
                })?;
                Arc::new(anonymous)
            }
            _ => Arc::clone(&self.0),
        };
        let own = Arc::clone(tls.credential().spki());
        let (tls, peer) = tls.connect(tcp, expect).await.map_err(|error| failed(address, error))?;
        let binding = Binding::of(tls.get_ref().1, own, Arc::clone(peer.spki()))
            .map_err(|error| failed(address, PeerTlsError::Handshake(error)))?;
        // Boxed, because the state of a connection would add kilobytes to every caller's future.
        Ok(Dialled { tls: Box::new(tls), expect: expect.clone(), peer, binding })
    }

    /// The certificate (DER) presented at `address`. The handshake stops there: nothing is verified
    /// and nothing sent.
    ///
    /// # Errors
    /// [`DialError`].
    pub async fn certificate_of(&self, address: &str) -> Result<Vec<u8>, DialError> {
        let shown = self.0.certificate_of(reach(address).await?).await;
        shown.map_err(|error| failed(address, error))
    }
}

impl<S> Attested<S> {
    /// What the same service must show on another connection: if it offered collateral, its evidence
    /// under that collateral and its key; otherwise what was expected of it here.
    pub fn same_service(&self) -> Expect {
        let Attestation { expect, peer, .. } = &self.attestation;
        match (expect, &self.answered.fresh) {
            (Expect::EvidenceWithOffer { policies, .. }, Some(fresh)) => Expect::SameService {
                policies: policies.clone(),
                collateral: Arc::clone(fresh.collateral()),
                key: peer.key_id(),
            },
            (expect, _) => expect.clone(),
        }
    }
}

impl Dialled {
    /// The service's certificate, DER.
    pub fn certificate(&self) -> &[u8] {
        self.peer.certificate()
    }

    /// What the handshake found: an enclave made the key of this certificate at some time. Nothing
    /// if a pinned key was expected, or if the evidence could not be verified yet.
    pub fn verdict(&self) -> Option<&Verdict> {
        self.peer.verdict()
    }

    /// What ties a quote to this connection.
    pub fn binding(&self) -> &Binding {
        &self.binding
    }

    /// Makes the service prove that it is at the other end of this connection, now, for the job
    /// with this SHA-256. `carry` sends a nonce and returns the answer. Until that is verified, the
    /// stream lets out no more than a challenge needs. If the answer is accepted, what `carry` made
    /// of the stream is returned with the verdict; otherwise it is dropped.
    ///
    /// # Errors
    /// [`AttestError`].
    pub async fn attest<S, E>(
        self,
        job: [u8; 32],
        carry: impl AsyncFnOnce(ServiceStream, [u8; 32]) -> Result<(S, Answer), E>,
    ) -> Result<Attested<S>, AttestError<E>> {
        let Self { tls, expect, peer, binding } = self;
        let attestation = Attestation { expect, peer, binding, job };
        let trusted = Arc::new(AtomicBool::new(false));
        let stream =
            ServiceStream { tls, trusted: Arc::clone(&trusted), left: MAXIMUM_BYTES_BEFORE_TRUST };
        let challenge = attestation.challenge();
        let carried = carry(stream, challenge.nonce()).await;
        let (carrier, answer) = carried.map_err(AttestError::Carrier)?;
        let answered = attestation.verify(challenge, &answer, unix_now())?;
        trusted.store(true, Ordering::Release);
        Ok(Attested { carrier, answered, attestation })
    }

    /// Relies on the certificate alone, like plain RA-TLS: anyone who got hold of the key since the
    /// enclave made it passes too.
    ///
    /// # Errors
    /// A [`Refusal`] if the evidence could not be verified in the handshake.
    pub fn insecure_ratls_only(self) -> Result<ServiceStream, Refusal> {
        if let Expect::EvidenceWithOffer { .. } | Expect::SameService { .. } = self.expect {
            return Err(Refusal::no_collateral("none when the certificate was presented"));
        }
        Ok(ServiceStream { tls: self.tls, trusted: Arc::new(AtomicBool::new(true)), left: 0 })
    }
}

impl std::fmt::Debug for Dialled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dialled").field("peer", &self.peer).finish_non_exhaustive()
    }
}

/// The stream to a service. Only [`Dialled`] opens one.
#[derive(Debug)]
pub struct ServiceStream {
    tls: Box<TlsStream<TcpStream>>,
    trusted: Arc<AtomicBool>,
    /// How many bytes may leave before the service is trusted.
    left: usize,
}

async fn reach(address: &str) -> Result<TcpStream, DialError> {
    let unreachable = |source| DialError::Unreachable { address: address.to_owned(), source };
    let connect = async {
        let found = tokio::net::lookup_host(address).await.map_err(|source| {
            let host = address.rsplit_once(':').map_or(address, |(host, _)| host).to_owned();
            DialError::UnknownHost { host, source }
        })?;
        let found: Vec<_> = found.collect();
        TcpStream::connect(&*found).await.map_err(unreachable)
    };
    let late = |_| unreachable(timed_out(CONNECT_TIMEOUT));
    tokio::time::timeout(CONNECT_TIMEOUT, connect).await.map_err(late)?
}

fn failed(address: &str, error: PeerTlsError) -> DialError {
    let source = match error {
        PeerTlsError::Refused(refusal) => return DialError::Refused(refusal),
        PeerTlsError::Handshake(source) if nothing_in_common(&source) => {
            return DialError::KeyExchange { address: address.to_owned() };
        }
        PeerTlsError::Handshake(source) => source,
        PeerTlsError::TimedOut | PeerTlsError::Silent => timed_out(HANDSHAKE_TIMEOUT),
        PeerTlsError::RefusedByPeer(_) => io::Error::new(io::ErrorKind::InvalidData, error),
    };
    DialError::Handshake { address: address.to_owned(), source }
}

/// Whether the service found no key exchange that it has in ours, which include every usual one
/// unless only a hybrid one is accepted.
fn nothing_in_common(error: &io::Error) -> bool {
    let alert = rustls::Error::AlertReceived(rustls::AlertDescription::HandshakeFailure);
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
    cause == Some(&alert)
}

fn timed_out(after: std::time::Duration) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {} s", after.as_secs()))
}

impl AsyncRead for ServiceStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_read(context, buffer)
    }
}

impl AsyncWrite for ServiceStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.trusted.load(Ordering::Acquire) {
            return Pin::new(&mut self.tls).poll_write(context, bytes);
        }
        if bytes.len() > self.left {
            let text = "the service is not verified yet; only a challenge may be sent to it";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::PermissionDenied, text)));
        }
        let written = ready!(Pin::new(&mut self.tls).poll_write(context, bytes))?;
        self.left -= written;
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_shutdown(context)
    }
}
