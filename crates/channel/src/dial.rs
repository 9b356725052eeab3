//! The side that connects to a service.

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
use crate::expect::{Expect, no_collateral};
use crate::limits::{CONNECT_TIMEOUT, HANDSHAKE_TIMEOUT, MAXIMUM_BYTES_BEFORE_TRUST};
use crate::listen::unix_now;
use crate::proven::ProvenPeer;
use crate::tls::{PeerTls, PeerTlsError};

/// A connection that did not come to be.
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
    /// The service's evidence or key was refused: final.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The TLS handshake failed for another reason.
    #[error(
        "{address} answers, but the TLS handshake failed: {source}; \
         is a convelo service of this version running there?"
    )]
    Handshake {
        /// Where.
        address: String,
        /// Why.
        source: io::Error,
    },
}

/// Connects to services under one credential. Clones share what has been verified: evidence that was
/// accepted a moment ago costs a look-up.
#[derive(Clone, Debug)]
pub struct Dialler(Arc<PeerTls>);

/// A service that was dialled. Its certificate is what was expected, and nothing has been sent to it.
///
/// Nothing can be written here. [`Dialled::attest`] has the service answer a challenge first:
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
    /// What carried the challenge, and now carries everything.
    pub carrier: S,
    /// What the answer came to.
    pub answered: Answered,
    /// For the next challenge on the same connection.
    pub attestation: Attestation,
}

/// A service that did not answer its first challenge as it must.
#[derive(Debug, thiserror::Error)]
pub enum AttestError<E> {
    /// What it proved was refused: final.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The challenge or its answer did not arrive.
    #[error(transparent)]
    Carrier(E),
}

impl Dialler {
    /// Connects under this credential.
    pub fn new(credential: Credential) -> Self {
        Self(Arc::new(PeerTls::new(credential, None).of_service()))
    }

    /// Connects to `address` (`host:port`), where a service must show what `expect` says.
    ///
    /// # Errors
    /// [`DialError`]; each case says whether another try can help.
    pub async fn dial(&self, address: &str, expect: &Expect) -> Result<Dialled, DialError> {
        self.dial_over(reach(address).await?, address, expect).await
    }

    /// As [`Dialler::dial`], over a connection that is there already: from an address of one's own
    /// choice, through a proxy. `address` is what messages name.
    ///
    /// # Errors
    /// [`DialError`].
    pub async fn dial_over(
        &self,
        tcp: TcpStream,
        address: &str,
        expect: &Expect,
    ) -> Result<Dialled, DialError> {
        let (tls, peer) =
            self.0.connect(tcp, expect).await.map_err(|error| failed(address, error))?;
        let own = Arc::clone(self.0.credential().spki());
        let binding = Binding::of(tls.get_ref().1, own, Arc::clone(peer.spki()))
            .map_err(|error| failed(address, PeerTlsError::Handshake(error)))?;
        // Boxed, because the state of a connection is kilobytes in every caller's future.
        Ok(Dialled { tls: Box::new(tls), expect: expect.clone(), peer, binding })
    }

    /// The certificate (DER) that whoever listens at `address` presents. The handshake is broken off
    /// there: nothing is verified and nothing sent.
    ///
    /// # Errors
    /// [`DialError`].
    pub async fn certificate_of(&self, address: &str) -> Result<Vec<u8>, DialError> {
        let shown = self.0.certificate_of(reach(address).await?).await;
        shown.map_err(|error| failed(address, error))
    }
}

impl Dialled {
    /// The service's certificate, DER.
    pub fn certificate(&self) -> &[u8] {
        self.peer.certificate()
    }

    /// What the handshake found: an enclave made the key of this certificate at some time. Nothing where
    /// a pinned key was expected, or evidence that could not be verified yet.
    pub fn verdict(&self) -> Option<&Verdict> {
        self.peer.verdict()
    }

    /// What ties a quote to this connection.
    pub fn binding(&self) -> &Binding {
        &self.binding
    }

    /// Has the service prove that it is at the other end of this connection, now, for the job of this
    /// SHA-256. `carry` takes a nonce there and brings the answer back; until that is verified, the
    /// stream lets out what a challenge takes and no more. What `carry` made of the stream comes back
    /// with the verdict, and is dropped without one.
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

    /// Goes by the certificate alone, as plain RA-TLS does: whoever got hold of its key since the enclave
    /// made it passes, too.
    ///
    /// # Errors
    /// A [`Refusal`], where the evidence could not be verified in the handshake.
    pub fn insecure_ratls_only(self) -> Result<ServiceStream, Refusal> {
        if let Expect::EvidenceWithOffer { .. } = self.expect {
            return Err(no_collateral("none when the certificate was shown"));
        }
        Ok(ServiceStream { tls: self.tls, trusted: Arc::new(AtomicBool::new(true)), left: 0 })
    }
}

impl std::fmt::Debug for Dialled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dialled").field("peer", &self.peer).finish_non_exhaustive()
    }
}

/// The way to a service. Only [`Dialled`] opens one.
#[derive(Debug)]
pub struct ServiceStream {
    tls: Box<TlsStream<TcpStream>>,
    trusted: Arc<AtomicBool>,
    /// Bytes that may leave before the service is trusted.
    left: usize,
}

async fn reach(address: &str) -> Result<TcpStream, DialError> {
    let unreachable = |source| DialError::Unreachable { address: address.to_owned(), source };
    tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address))
        .await
        .map_err(|_| unreachable(timed_out(CONNECT_TIMEOUT)))?
        .map_err(unreachable)
}

fn failed(address: &str, error: PeerTlsError) -> DialError {
    let source = match error {
        PeerTlsError::Refused(refusal) => return DialError::Refused(refusal),
        PeerTlsError::Handshake(source) => source,
        PeerTlsError::TimedOut => timed_out(HANDSHAKE_TIMEOUT),
        PeerTlsError::RefusedByPeer(_) => io::Error::new(io::ErrorKind::InvalidData, error),
    };
    DialError::Handshake { address: address.to_owned(), source }
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
            let text = "the service is not verified yet; nothing but a challenge is sent to it";
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
