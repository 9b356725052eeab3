//! The gRPC side: connections to streams.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use convelo_attest::{Policy, QuoteSource};
use convelo_channel::{Identity, Listener, ListenerError, Peer, PeerStream};
use convelo_wire::limits::MAXIMUM_MESSAGE_BYTES;
use convelo_wire::proto::join_service_server::{JoinService, JoinServiceServer};
use convelo_wire::{ToParty, proto};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::attester::Attester;
use crate::budget::Budget;
use crate::collateral::CollateralFile;
use crate::limits::{
    CONNECTION_AGE, FRAME_BYTES, KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT, MAXIMUM_STREAMS,
    OUTGOING_QUEUE, RECLAIM_AFTER, SHUTDOWN_GRACE, WINDOW_BYTES,
};
use crate::psi_wire::{PsiPort, PsiWire, Shared};
use crate::registry::Registry;
use crate::status::{Figures, Readings, StatusPort, health};
use crate::stream::{Entrance, serve};

/// What a service is made of.
pub struct Config {
    /// Where to listen, `address:port`; port 0 picks one.
    pub listen: String,
    /// The key of the service's certificate; fresh for every start, unless parties pin it.
    pub identity: Identity,
    /// Where the evidence of the certificate comes from.
    pub source: Arc<dyn QuoteSource>,
    /// What providers' evidence is verified with, where that is asked for.
    pub collateral: Option<Arc<CollateralFile>>,
    /// The collateral of this service's own platform, for parties that have none: offered beside
    /// every fresh quote.
    pub offer: Option<Arc<CollateralFile>>,
    /// What the operator requires of every provider's evidence, beside what the job says.
    pub provider_policy: Option<Policy>,
    /// Bytes of fingerprints that all jobs together may hold.
    pub memory: u64,
    /// How long a party whose connection broke in a running job may take to come back.
    pub reconnect_within: Duration,
    /// Takes parties that ask for no fresh attestation: plain RA-TLS, as peers of other make speak
    /// it. Such a party trusts a key that an enclave made at some time, not this connection.
    pub insecure_ratls_only: bool,
    /// Whether to serve the clients of Intel's "PSI with SGX" too, on a port of their own.
    pub psi_wire: Option<PsiWire>,
    /// Where to answer health checks and Prometheus in plain HTTP, `address:port`; nowhere if none.
    pub status: Option<String>,
}

/// A service that listens.
pub struct Service {
    listener: Listener,
    address: SocketAddr,
    entrance: Arc<Entrance>,
    figures: Arc<Figures>,
    status: Option<StatusPort>,
    psi: Option<PsiPort>,
}

/// A service that could not start, or failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServiceError {
    /// It could not start.
    #[error(transparent)]
    Listener(#[from] ListenerError),
    /// The operating system refused.
    #[error("the service's socket failed: {0}")]
    Io(#[from] io::Error),
    /// The gRPC server failed.
    #[error("the gRPC server failed: {0}")]
    Transport(#[from] tonic::transport::Error),
}

impl Service {
    /// Makes the certificate and listens. Parties are served by [`Service::run`].
    ///
    /// # Errors
    /// [`ServiceError`], when the address or the evidence cannot be had.
    pub async fn bind(config: Config) -> Result<Self, ServiceError> {
        let Config { listen, identity, source, collateral, offer, provider_policy, memory, .. } =
            config;
        let patience = config.reconnect_within;
        let status = match &config.status {
            Some(address) => Some(StatusPort::bind(address).await.map_err(|error| {
                let text = format!("cannot listen on {address} for the status page: {error}");
                io::Error::new(error.kind(), text)
            })?),
            None => None,
        };
        let figures = Figures::new(memory);
        let budget = Budget::new(memory);
        let listen_attested = async |address: &str| {
            Listener::bind(address, identity.clone(), Arc::clone(&source)).await
        };
        let listener = listen_attested(&listen).await?;
        let address = listener.address()?;
        let psi = match config.psi_wire {
            Some(wire) => {
                let shared = Shared {
                    attester: Attester::new(Arc::clone(&source), collateral.clone(), None),
                    policy: provider_policy.clone(),
                    budget: budget.clone(),
                    patience,
                    figures: Arc::clone(&figures),
                };
                Some(PsiPort::bind(wire, shared, listen_attested).await?)
            }
            None => None,
        };
        let entrance = Arc::new(Entrance {
            registry: Registry::new(
                identity,
                provider_policy,
                budget,
                patience,
                Arc::clone(&figures),
            ),
            attester: Attester::new(source, collateral, offer),
            insecure_ratls_only: config.insecure_ratls_only,
        });
        Ok(Self { listener, address, entrance, figures, status, psi })
    }

    /// Where the service listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where the status port listens.
    pub fn status_address(&self) -> Option<SocketAddr> {
        self.status.as_ref().map(StatusPort::address)
    }

    /// What the service counts, for who wants to know while it runs.
    pub fn readings(&self) -> Readings {
        Readings(Arc::clone(&self.figures))
    }

    /// Where the clients of Intel's "PSI with SGX" are served.
    ///
    /// # Errors
    /// The operating system's.
    pub fn psi_address(&self) -> io::Result<Option<SocketAddr>> {
        self.psi.as_ref().map(PsiPort::address).transpose()
    }

    /// The certificate that parties are shown now, DER.
    pub fn certificate(&self) -> Vec<u8> {
        self.listener.certificate()
    }

    /// Serves until `stop` ends; then tells every party and returns within a few seconds.
    ///
    /// # Errors
    /// [`ServiceError`], when the server fails as a whole.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Result<(), ServiceError> {
        let (health, health_service) = health();
        let status = self.status.map(|port| {
            let (registry, figures) =
                (Arc::clone(&self.entrance.registry), Arc::clone(&self.figures));
            let reporter = health.clone();
            let serving = port.serve(registry, figures, reporter, health_service);
            tokio::spawn(async {
                if let Err(error) = serving.await {
                    tracing::error!(%error, "the status port answers no more");
                }
            })
        });
        let (close, closing) = tokio::sync::oneshot::channel::<()>();
        let psi = self.psi.map(|port| {
            let serving = port.run(async {
                let _ = closing.await;
            });
            tokio::spawn(async {
                if let Err(error) = serving.await {
                    tracing::error!(%error, "psi.PSI is served no more");
                }
            })
        });
        let reclaiming = tokio::spawn(reclaim(Arc::clone(&self.figures)));
        let figures = self.figures;
        let (accepted, connections) = mpsc::channel(1);
        let accept = tokio::spawn(self.listener.accept(accepted));
        let service = JoinServiceServer::new(Join { entrance: Arc::clone(&self.entrance) })
            .max_decoding_message_size(MAXIMUM_MESSAGE_BYTES)
            .max_encoding_message_size(MAXIMUM_MESSAGE_BYTES);
        let (drain, drained) = tokio::sync::oneshot::channel::<()>();
        let server = server().add_service(service).serve_with_incoming_shutdown(
            ReceiverStream::new(connections).map(move |stream| {
                stream.map(|stream| {
                    let peer = stream.peer().clone();
                    Connection::new(stream, peer, figures.connected())
                })
            }),
            async {
                let _ = drained.await;
            },
        );
        tokio::pin!(server);
        let result = tokio::select! {
            result = &mut server => result,
            () = stop => {
                tracing::info!("stopping: the parties are told");
                accept.abort();
                let _ = close.send(());
                health.set_not_serving::<JoinServiceServer<Join>>().await;
                let _ = tokio::time::timeout(SHUTDOWN_GRACE, async {
                    self.entrance.registry.close().await;
                    let _ = drain.send(());
                    let _ = server.await;
                    if let Some(psi) = psi {
                        let _ = psi.await;
                    }
                })
                .await;
                Ok(())
            }
        };
        accept.abort();
        reclaiming.abort();
        if let Some(status) = status {
            status.abort();
        }
        Ok(result?)
    }
}

/// Gives the system back what connections that ended have left in the allocator. Sets are not there:
/// they have pages of their own.
async fn reclaim(figures: Arc<Figures>) {
    loop {
        figures.disconnected().await;
        tokio::time::sleep(RECLAIM_AFTER).await;
        let _ = tokio::task::spawn_blocking(convelo_heap::give_back).await;
    }
}

/// A gRPC server within our limits.
pub(crate) fn server() -> tonic::transport::Server {
    tonic::transport::Server::builder()
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES)
        .max_concurrent_streams(MAXIMUM_STREAMS)
        .max_connection_age(CONNECTION_AGE)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
}

/// A connection as tonic wants it: who calls travels with every request.
pub(crate) struct Connection<C, P> {
    stream: PeerStream,
    caller: C,
    _presence: P,
}

impl<C, P> Connection<C, P> {
    /// `presence` is dropped when the connection has ended.
    pub(crate) fn new(stream: PeerStream, caller: C, presence: P) -> Self {
        Self { stream, caller, _presence: presence }
    }
}

impl<C: Clone + Send + Sync + 'static, P> tonic::transport::server::Connected for Connection<C, P> {
    type ConnectInfo = C;

    fn connect_info(&self) -> C {
        self.caller.clone()
    }
}

impl<C: Unpin, P: Unpin> AsyncRead for Connection<C, P> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<C: Unpin, P: Unpin> AsyncWrite for Connection<C, P> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

pub(crate) struct Join {
    entrance: Arc<Entrance>,
}

type Outgoing = Pin<Box<dyn tokio_stream::Stream<Item = Result<proto::ToParty, Status>> + Send>>;

#[tonic::async_trait]
impl JoinService for Join {
    type JoinStream = Outgoing;

    async fn join(
        &self,
        request: Request<Streaming<proto::FromParty>>,
    ) -> Result<Response<Outgoing>, Status> {
        let peer = request
            .extensions()
            .get::<Peer>()
            .cloned()
            .ok_or_else(|| Status::internal("a stream without a peer"))?;
        let incoming = request.into_inner();
        let (outgoing, messages) = mpsc::channel(OUTGOING_QUEUE);
        tokio::spawn(serve(Arc::clone(&self.entrance), peer, incoming, outgoing));
        let messages = ReceiverStream::new(messages).map(|message: ToParty| Ok(message.into()));
        Ok(Response::new(Box::pin(messages)))
    }
}
