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
use crate::collateral::CollateralFile;
use crate::limits::{
    CONNECTION_AGE, FRAME_BYTES, KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT, MAXIMUM_STREAMS,
    OUTGOING_QUEUE, SHUTDOWN_GRACE, WINDOW_BYTES,
};
use crate::registry::Registry;
use crate::status::{Connected, Figures, StatusPort, health};
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
    /// Where to answer health checks and Prometheus in plain HTTP, `address:port`; nowhere if none.
    pub status: Option<String>,
}

/// A service that listens.
pub struct Service {
    listener: Listener,
    address: SocketAddr,
    entrance: Arc<Entrance>,
    figures: Arc<Figures>,
    memory: u64,
    status: Option<StatusPort>,
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
                let text = format!("cannot listen on {address} for --status: {error}");
                io::Error::new(error.kind(), text)
            })?),
            None => None,
        };
        let figures = Figures::new();
        let listener = Listener::bind(&listen, identity.clone(), Arc::clone(&source)).await?;
        let address = listener.address()?;
        let entrance = Arc::new(Entrance {
            registry: Registry::new(
                identity,
                provider_policy,
                memory,
                patience,
                Arc::clone(&figures),
            ),
            attester: Attester::new(source, collateral, offer),
            insecure_ratls_only: config.insecure_ratls_only,
        });
        Ok(Self { listener, address, entrance, figures, memory, status })
    }

    /// Where the service listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where the status port listens.
    pub fn status_address(&self) -> Option<SocketAddr> {
        self.status.as_ref().map(StatusPort::address)
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
            let serving = port.serve(registry, figures, self.memory, reporter, health_service);
            tokio::spawn(async {
                if let Err(error) = serving.await {
                    tracing::error!(%error, "the status port answers no more");
                }
            })
        });
        let figures = self.figures;
        let (accepted, connections) = mpsc::channel(1);
        let accept = tokio::spawn(self.listener.accept(accepted));
        let service = JoinServiceServer::new(Join { entrance: Arc::clone(&self.entrance) })
            .max_decoding_message_size(MAXIMUM_MESSAGE_BYTES)
            .max_encoding_message_size(MAXIMUM_MESSAGE_BYTES);
        let (drain, drained) = tokio::sync::oneshot::channel::<()>();
        let server = tonic::transport::Server::builder()
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .max_frame_size(FRAME_BYTES)
            .max_concurrent_streams(MAXIMUM_STREAMS)
            .max_connection_age(CONNECTION_AGE)
            .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
            .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
            .add_service(service)
            .serve_with_incoming_shutdown(
                ReceiverStream::new(connections).map(move |stream| {
                    stream.map(|stream| Connection(stream, figures.connected()))
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
                health.set_not_serving::<JoinServiceServer<Join>>().await;
                let _ = tokio::time::timeout(SHUTDOWN_GRACE, async {
                    self.entrance.registry.close().await;
                    let _ = drain.send(());
                    server.await
                })
                .await;
                Ok(())
            }
        };
        accept.abort();
        if let Some(status) = status {
            status.abort();
        }
        Ok(result?)
    }
}

/// A connection as tonic wants it: the peer travels with every request.
struct Connection(PeerStream, #[expect(dead_code, reason = "counts while it lives")] Connected);

impl tonic::transport::server::Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.0.peer().clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
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
