//! The side that listens.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use convelo_attest::{EXPORTER_LABEL, Evidence, QuoteSource};
use rustls::pki_types::CertificateDer;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use zeroize::Zeroizing;

use crate::admission::Admission;
use crate::binding::Binding;
use crate::identity::{Credential, Identity, IdentityError};
use crate::limits::{
    ACCEPT_PAUSE, CERTIFICATE_RENEWAL, CERTIFICATE_RENEWAL_RETRY, HANDSHAKE_TIMEOUT,
    MAXIMUM_CONNECTIONS, MAXIMUM_HANDSHAKES,
};
use crate::peer::{PeerExpect, PeerTls};

/// Who a connection comes from: the key it proved, and the evidence it brought along, if any.
/// Evidence here is bound to the key and not yet verified.
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
    /// The address cannot be listened on.
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

/// Accepts connections with mutual TLS. The certificate carries evidence from the quote source and
/// is renewed long before it ends; or it is an ordinary one, and says nothing of what runs here.
pub struct Listener {
    tcp: TcpListener,
    presented: Presented,
}

/// What a listener shows of itself, and whom it takes.
enum Presented {
    /// Evidence. Any peer may connect that proves a key.
    Attested { source: Arc<dyn QuoteSource>, identity: Identity, current: Arc<Current> },
    /// A certificate as it is. A peer must be what one of these demands.
    Unattested(Arc<(PeerTls, Vec<PeerExpect>)>),
}

/// One side of the handshakes of a listener.
#[derive(Clone)]
enum Acceptor {
    Attested(TlsAcceptor, Arc<[u8]>),
    Unattested(Arc<(PeerTls, Vec<PeerExpect>)>),
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
        let credential = identity.attested(&*source)?;
        let tcp = TcpListener::bind(address)
            .await
            .map_err(|source| ListenerError::Bind { address: address.to_owned(), source })?;
        let current = Arc::new(Current(RwLock::new(credential)));
        Ok(Self { tcp, presented: Presented::Attested { source, identity, current } })
    }

    /// Binds `address` for ordinary mutual TLS: the certificate of `tls` and nothing that shows what runs
    /// here. A peer is taken that is what one of `expect` demands.
    ///
    /// # Errors
    /// [`ListenerError`].
    pub async fn bind_unattested(
        address: &str,
        tls: PeerTls,
        expect: Vec<PeerExpect>,
    ) -> Result<Self, ListenerError> {
        let tcp = TcpListener::bind(address)
            .await
            .map_err(|source| ListenerError::Bind { address: address.to_owned(), source })?;
        Ok(Self { tcp, presented: Presented::Unattested(Arc::new((tls, expect))) })
    }

    /// Where the listener listens; tells the port when 0 was asked for.
    ///
    /// # Errors
    /// The operating system's.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// The certificate that is presented now, DER.
    pub fn certificate(&self) -> Vec<u8> {
        match &self.presented {
            Presented::Attested { current, .. } => current.credential().certificate().to_vec(),
            Presented::Unattested(ordinary) => ordinary.0.credential().certificate().to_vec(),
        }
    }

    /// Accepts until the receiver of `accepted` is dropped. Handshakes run beside each other, each
    /// under a deadline; a failed one is logged and forgotten.
    pub async fn accept(self, accepted: mpsc::Sender<io::Result<PeerStream>>) {
        let acceptor = self.presented.acceptor();
        let handshakes = Arc::new(Semaphore::new(MAXIMUM_HANDSHAKES));
        let connections = Arc::new(Semaphore::new(MAXIMUM_CONNECTIONS));
        let admission = Arc::new(Admission::default());
        let mut tasks = JoinSet::new();
        let mut renewal = CERTIFICATE_RENEWAL;
        let mut renew_at = tokio::time::Instant::now() + renewal;
        loop {
            let next = async {
                let seat = permit(&connections).await;
                let turn = permit(&handshakes).await;
                (self.tcp.accept().await, seat, turn)
            };
            tokio::select! {
                () = accepted.closed() => break,
                () = tokio::time::sleep_until(renew_at) => {
                    renewal = match self.renew().await {
                        Ok(()) => CERTIFICATE_RENEWAL,
                        Err(error) => {
                            tracing::error!(%error, "the certificate could not be renewed");
                            CERTIFICATE_RENEWAL_RETRY
                        }
                    };
                    renew_at = tokio::time::Instant::now() + renewal;
                }
                Some(_) = tasks.join_next(), if !tasks.is_empty() => {}
                (connection, seat, turn) = next => match connection {
                    Ok((_, address)) if !admission.admits(address.ip(), Instant::now()) => {
                        tracing::debug!(%address, "turned away: too many handshakes from there failed");
                    }
                    Ok((tcp, address)) => {
                        let admission = Arc::clone(&admission);
                        let (acceptor, accepted) = (acceptor.clone(), accepted.clone());
                        tasks.spawn(async move {
                            match acceptor.handshake(tcp, address, seat).await {
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

    async fn renew(&self) -> Result<(), IdentityError> {
        let Presented::Attested { source, identity, current } = &self.presented else {
            return Ok(());
        };
        let (identity, source) = (identity.clone(), Arc::clone(source));
        let credential = tokio::task::spawn_blocking(move || identity.attested(&*source))
            .await
            .unwrap_or_else(|error| Err(IdentityError::Certificate(error.to_string())))?;
        *current.0.write().unwrap_or_else(PoisonError::into_inner) = credential;
        tracing::info!("the certificate was renewed");
        Ok(())
    }
}

async fn permit(semaphore: &Arc<Semaphore>) -> OwnedSemaphorePermit {
    Arc::clone(semaphore).acquire_owned().await.expect("the semaphore is never closed")
}

impl Presented {
    fn acceptor(&self) -> Acceptor {
        match self {
            Self::Attested { identity, current, .. } => {
                let resolver = Arc::clone(current) as Arc<dyn ResolvesServerCert>;
                let config = Arc::new(crate::tls::server_config(resolver));
                Acceptor::Attested(TlsAcceptor::from(config), identity.spki().into())
            }
            Self::Unattested(ordinary) => Acceptor::Unattested(Arc::clone(ordinary)),
        }
    }
}

impl Acceptor {
    async fn handshake(
        &self,
        tcp: TcpStream,
        address: SocketAddr,
        seat: OwnedSemaphorePermit,
    ) -> io::Result<PeerStream> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        match self {
            Self::Attested(acceptor, own_spki) => {
                tcp.set_nodelay(true)?;
                let tls = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(tcp));
                let late =
                    |_| io::Error::new(io::ErrorKind::TimedOut, "the handshake took too long");
                let tls = tls.await.map_err(late)??;
                let evidence = Evidence::from_certificate(certificate(&tls)?, now)
                    .map_err(io::Error::other)?;
                stream(tls, address, evidence.map(Arc::new), own_spki, seat)
            }
            Self::Unattested(ordinary) => {
                let (tls, expect) = &**ordinary;
                let (stream_tls, proven) = tls.accept(tcp).await.map_err(io::Error::other)?;
                let mut refusal = None;
                let taken = expect.iter().any(|expect| match expect.accepts(&proven, now) {
                    Ok(_) => true,
                    Err(refused) => {
                        refusal = Some(refused);
                        false
                    }
                });
                if !taken {
                    let text = refusal.map_or_else(
                        || "nobody is expected".to_owned(),
                        |refusal| format!("{}: {refusal}", proven.describe()),
                    );
                    return Err(io::Error::other(text));
                }
                let own = tls.credential();
                let own_spki =
                    convelo_attest::spki_of(own.certificate()).map_err(io::Error::other)?;
                stream(stream_tls, address, None, &own_spki.into(), seat)
            }
        }
    }
}

fn certificate(tls: &TlsStream<TcpStream>) -> io::Result<&CertificateDer<'static>> {
    let chain = tls.get_ref().1.peer_certificates();
    chain.and_then(|chain| chain.first()).ok_or_else(|| io::Error::other("no client certificate"))
}

fn stream(
    tls: TlsStream<TcpStream>,
    address: SocketAddr,
    evidence: Option<Arc<Evidence>>,
    own_spki: &Arc<[u8]>,
    seat: OwnedSemaphorePermit,
) -> io::Result<PeerStream> {
    let spki: Arc<[u8]> =
        convelo_attest::spki_of(certificate(&tls)?).map_err(io::Error::other)?.into();
    let exporter = tls
        .get_ref()
        .1
        .export_keying_material(Zeroizing::new([0; 32]), EXPORTER_LABEL, None)
        .map_err(io::Error::other)?;
    let binding = Binding::new(exporter, Arc::clone(&spki), Arc::clone(own_spki));
    Ok(PeerStream { tls, peer: Peer { spki, evidence, address, binding }, _seat: seat })
}

/// The certificate that new handshakes get.
struct Current(RwLock<Credential>);

impl Current {
    fn credential(&self) -> Credential {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl std::fmt::Debug for Current {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Current(..)")
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.credential().0)
    }
}

/// A connection of a peer that proved its key.
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
