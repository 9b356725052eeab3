//! The side that listens.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use convelo_attest::{Evidence, Matter, QuoteSource, Refusal, Stage};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_rustls::server::TlsStream;

use crate::admission::Admission;
use crate::binding::Binding;
use crate::expect::Expect;
use crate::identity::{Identity, IdentityError};
use crate::limits::{ACCEPT_PAUSE, MAXIMUM_CONNECTIONS, MAXIMUM_HANDSHAKES};
use crate::proven::ProvenPeer;
use crate::tls::{PeerTls, PeerTlsError};

/// Who a connection comes from: the key it proved and, if present, the evidence it presented. This
/// evidence is bound to the key but not yet verified.
#[derive(Clone)]
pub struct Peer {
    /// `SubjectPublicKeyInfo` of the proven key, DER.
    pub spki: Arc<[u8]>,
    /// Evidence from the certificate.
    pub evidence: Option<Arc<Evidence>>,
    /// Where the connection comes from; for logs, never for decisions.
    pub address: SocketAddr,
    /// What ties a quote to this connection.
    pub binding: Binding,
}

/// A listener that could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenerError {
    /// Cannot listen on the address.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// Where.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// The certificate could not be made.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// Accepts connections with mutual TLS. Its certificate carries evidence from the quote source and
/// is renewed long before it expires; or it is an ordinary one, which says nothing about what runs
/// here.
pub struct Listener {
    tcp: TcpListener,
    tls: Arc<PeerTls>,
    /// A peer must meet one of these demands; without them, anyone who proves a key may connect.
    expect: Option<Arc<[Expect]>>,
}

impl Listener {
    /// Binds `address` and makes the first certificate.
    ///
    /// # Errors
    /// [`ListenerError`].
    pub async fn bind(
        address: &str,
        identity: Identity,
        source: Arc<dyn QuoteSource>,
    ) -> Result<Self, ListenerError> {
        let tls = PeerTls::attested(identity, source, None)?.of_service();
        Self::with(address, tls, None).await
    }

    /// Binds `address` for ordinary mutual TLS: with the certificate of `tls`, and nothing that
    /// shows what runs here. A peer is accepted if it meets one of `expect`.
    ///
    /// # Errors
    /// [`ListenerError`].
    pub async fn bind_unattested(
        address: &str,
        tls: PeerTls,
        expect: Vec<Expect>,
    ) -> Result<Self, ListenerError> {
        Self::with(address, tls, Some(expect.into())).await
    }

    async fn with(
        address: &str,
        tls: PeerTls,
        expect: Option<Arc<[Expect]>>,
    ) -> Result<Self, ListenerError> {
        let tcp = TcpListener::bind(address)
            .await
            .map_err(|source| ListenerError::Bind { address: address.to_owned(), source })?;
        Ok(Self { tcp, tls: Arc::new(tls), expect })
    }

    /// The address we listen on, including the actual port if 0 was requested.
    ///
    /// # Errors
    /// The operating system's.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// The certificate presented now, DER.
    pub fn certificate(&self) -> Vec<u8> {
        self.tls.credential().certificate().to_vec()
    }

    /// Accepts until the receiver of `accepted` is dropped. Handshakes run concurrently, each under
    /// a deadline; a failed one is logged and forgotten.
    pub async fn accept(self, accepted: mpsc::Sender<io::Result<PeerStream>>) {
        let handshakes = Arc::new(Semaphore::new(MAXIMUM_HANDSHAKES));
        let connections = Arc::new(Semaphore::new(MAXIMUM_CONNECTIONS));
        let admission = Arc::new(Admission::default());
        let mut tasks = JoinSet::new();
        let renewal = self.tls.keep_fresh(|error| {
            tracing::error!(%error, "the certificate could not be renewed");
        });
        tokio::pin!(renewal);
        loop {
            let next = async {
                let seat = permit(&connections).await;
                let turn = permit(&handshakes).await;
                (self.tcp.accept().await, seat, turn)
            };
            tokio::select! {
                () = accepted.closed() => break,
                never = &mut renewal => match never {},
                Some(_) = tasks.join_next(), if !tasks.is_empty() => {}
                (connection, seat, turn) = next => match connection {
                    Ok((_, address)) if !admission.admits(address.ip(), Instant::now()) => {
                        tracing::debug!(%address, "turned away: too many failed handshakes from this source");
                    }
                    Ok((tcp, address)) => {
                        let admission = Arc::clone(&admission);
                        let (tls, expect) = (Arc::clone(&self.tls), self.expect.clone());
                        let accepted = accepted.clone();
                        tasks.spawn(async move {
                            match handshake(&tls, expect.as_deref(), tcp, address, seat).await {
                                Ok(stream) => {
                                    drop(turn);
                                    let _ = accepted.send(Ok(stream)).await;
                                }
                                Err(error) => {
                                    admission.failed(address.ip(), Instant::now());
                                    tracing::info!(%address, %error, "a connection was refused");
                                }
                            }
                        });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "accept failed");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
    }
}

async fn permit(semaphore: &Arc<Semaphore>) -> OwnedSemaphorePermit {
    Arc::clone(semaphore).acquire_owned().await.expect("the semaphore is never closed")
}

async fn handshake(
    tls: &PeerTls,
    expect: Option<&[Expect]>,
    tcp: TcpStream,
    address: SocketAddr,
    seat: OwnedSemaphorePermit,
) -> Result<PeerStream, PeerTlsError> {
    let (stream, proven) = tls.accept(tcp).await?;
    if let Some(expect) = expect {
        demand_one(expect, &proven)?;
    }
    let spki = Arc::clone(proven.spki());
    let own = Arc::clone(tls.credential().spki());
    let binding =
        Binding::of(stream.get_ref().1, Arc::clone(&spki), own).map_err(PeerTlsError::Handshake)?;
    let peer = Peer { spki, evidence: proven.evidence().cloned(), address, binding };
    Ok(PeerStream { tls: stream, peer, _seat: seat })
}

/// The last refusal if none of several demands accepts the peer.
fn demand_one(expect: &[Expect], peer: &ProvenPeer) -> Result<(), Refusal> {
    let nobody = Refusal::new(Stage::Certificate, "nobody-expected", Matter::Policy)
        .found(peer.describe())
        .expected("nobody")
        .advice("say whose connections to accept");
    let mut refused = Err(nobody);
    for expect in expect {
        match expect.accepts(peer, unix_now()) {
            Ok(_) => return Ok(()),
            Err(refusal) => refused = Err(refusal),
        }
    }
    refused
}

pub(crate) fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// A connection from a peer that proved its key.
pub struct PeerStream {
    tls: TlsStream<TcpStream>,
    peer: Peer,
    _seat: OwnedSemaphorePermit,
}

impl PeerStream {
    /// Who it is.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }
}

impl AsyncRead for PeerStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_read(context, buffer)
    }
}

impl AsyncWrite for PeerStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tls).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_shutdown(context)
    }
}
