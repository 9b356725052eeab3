//! The gRPC side: connections to streams, streams to jobs.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use convelo_attest::{Collateral, Policy, QuoteSource};
use convelo_channel::{Identity, Listener, ListenerError, Peer, PeerStream};
use convelo_wire::limits::MAXIMUM_MESSAGE_BYTES;
use convelo_wire::proto::join_service_server::{JoinService, JoinServiceServer};
use convelo_wire::{Failed, FromParty, Hello, Reason, ToParty, proto};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;
use tonic::{Request, Response, Status, Streaming};

use crate::job::Event;
use crate::limits::{
    CONNECTION_AGE, FRAME_BYTES, HELLO_TIMEOUT, KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT,
    MAXIMUM_STREAMS, OUTGOING_QUEUE, SHUTDOWN_GRACE, WINDOW_BYTES,
};
use crate::registry::{Provers, Registry};

/// What a service is made of.
pub struct Config {
    /// Where to listen, `address:port`; port 0 picks one.
    pub listen: String,
    /// The key of the service's certificate; fresh for every start, unless parties pin it.
    pub identity: Identity,
    /// Where the evidence of the certificate comes from.
    pub source: Arc<dyn QuoteSource>,
    /// What providers' evidence is verified with, where that is asked for.
    pub collateral: Option<Collateral>,
    /// What the operator requires of every provider's evidence, beside what the job says.
    pub provider_policy: Option<Policy>,
    /// Bytes of fingerprints that all jobs together may hold.
    pub memory: u64,
}

/// A service that listens.
pub struct Service {
    listener: Listener,
    address: SocketAddr,
    registry: Arc<Registry>,
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
        let Config { listen, identity, source, collateral, provider_policy, memory } = config;
        let listener = Listener::bind(&listen, identity.clone(), source).await?;
        let address = listener.address()?;
        let provers = Provers { collateral, policy: provider_policy };
        Ok(Self { listener, address, registry: Registry::new(identity, provers, memory) })
    }

    /// Where the service listens.
    pub fn address(&self) -> SocketAddr {
        self.address
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
        let (accepted, connections) = mpsc::channel(1);
        let accept = tokio::spawn(self.listener.accept(accepted));
        let service = JoinServiceServer::new(Join { registry: Arc::clone(&self.registry) })
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
                ReceiverStream::new(connections).map(|stream| stream.map(Connection)),
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
                let _ = tokio::time::timeout(SHUTDOWN_GRACE, async {
                    self.registry.close().await;
                    let _ = drain.send(());
                    server.await
                })
                .await;
                Ok(())
            }
        };
        accept.abort();
        Ok(result?)
    }
}

/// A connection as tonic wants it: the peer travels with every request.
struct Connection(PeerStream);

impl Connected for Connection {
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

struct Join {
    registry: Arc<Registry>,
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
        tokio::spawn(serve(Arc::clone(&self.registry), peer, incoming, outgoing));
        let messages = ReceiverStream::new(messages).map(|message: ToParty| Ok(message.into()));
        Ok(Response::new(Box::pin(messages)))
    }
}

/// Carries one stream from its Hello to its end.
async fn serve(
    registry: Arc<Registry>,
    peer: Peer,
    mut incoming: Streaming<proto::FromParty>,
    outgoing: mpsc::Sender<ToParty>,
) {
    let entered = match hello(&mut incoming).await {
        Ok(hello) => registry.enter(&peer, hello, outgoing.clone()).await,
        Err(failed) => Err(failed),
    };
    let mut seat = match entered {
        Ok(seat) => seat,
        Err(failed) => {
            tracing::info!(address = %peer.address, reason = ?failed.reason, "a party was refused");
            let _ = outgoing.send(ToParty::Failed(failed)).await;
            return;
        }
    };
    // From here on the job alone keeps the way back open: when it lets go, the stream ends.
    drop(outgoing);
    loop {
        let message = tokio::select! {
            message = incoming.message() => message,
            () = seat.closed() => return,
        };
        let Ok(Some(message)) = message else {
            seat.send(Event::Left).await;
            return;
        };
        if !seat.send(|connection| Event::Message(connection, message.try_into())).await {
            return;
        }
    }
}

/// The first message of a stream.
async fn hello(incoming: &mut Streaming<proto::FromParty>) -> Result<Hello, Failed> {
    let protocol = |text: &str| Failed::new(Reason::Protocol, text);
    let message = tokio::time::timeout(HELLO_TIMEOUT, incoming.message())
        .await
        .map_err(|_| protocol("no Hello arrived in time"))?
        .map_err(|_| protocol("the stream broke before its Hello"))?
        .ok_or_else(|| protocol("the stream ended before its Hello"))?;
    match message.try_into() {
        Ok(FromParty::Hello(hello)) => Ok(hello),
        Ok(_) => Err(protocol("the first message of a stream is Hello, and another arrived")),
        Err(error) => Err(protocol(&error.to_string())),
    }
}
