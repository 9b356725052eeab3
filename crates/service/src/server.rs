//! The service as a whole: its parts, how it starts, and how it stops.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use convelo_attest::{Policy, QuoteSource};
use convelo_channel::{Identity, Listener, ListenerError, Peer, PeerStream};
use convelo_wire::limits::{MAXIMUM_FROM_PARTY_BYTES, MAXIMUM_TO_PARTY_BYTES};
use convelo_wire::proto::join_service_server::{JoinService, JoinServiceServer};
use convelo_wire::{ToParty, proto};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::attester::Attester;
use crate::collateral::CollateralSource;
use crate::device::Device;
use crate::figures::{Figures, Tally};
use crate::limits::{FIRST_QUOTE_TIMEOUT, OUTGOING_QUEUE, RECLAIM_AFTER};
use crate::memory::Limits;
use crate::registry::Registry;
use crate::shared::{AdmitList, Shared};
use crate::stream::{Entrance, serve};

/// What a service needs to start.
pub struct Config {
    /// Where to listen, `address:port`; port 0 picks one.
    pub listen: String,
    /// The key of the service's certificate; a new one for every start, unless parties pin it.
    pub identity: Identity,
    /// Where the certificate's evidence comes from.
    pub source: Arc<dyn QuoteSource>,
    /// The collateral to verify providers' evidence with, where it is about their platform; otherwise
    /// a provider's own is used.
    pub collateral: Option<Arc<dyn CollateralSource>>,
    /// The collateral for this service's own platform, offered with every fresh quote to parties
    /// that have none.
    pub offer: Option<Arc<dyn CollateralSource>>,
    /// What the operator requires of every provider's evidence, in addition to what the job says.
    pub provider_policy: Option<Policy>,
    /// The keys that may use the service; anyone may, if there is no list.
    pub admit: Option<Arc<dyn AdmitList>>,
    /// Whether every connection comes through a balancer that says where it comes from (PROXY
    /// protocol, version 2).
    pub behind_balancer: bool,
    /// Accepts policies for providers, the operator's or a job's, that name a simulated platform's
    /// root: such evidence proves nothing.
    pub insecure_simulated: bool,
    /// How many bytes the sets of all jobs may take, with all that grows with them.
    pub memory: u64,
    /// How much there may be of what takes memory besides.
    pub limits: Limits,
    /// How long a party whose connection broke in a running job may take to come back.
    pub reconnect_within: Duration,
    /// Accepts parties that do not ask for fresh attestation: plain RA-TLS, as other
    /// implementations speak it. Such a party trusts a key that an enclave made at some time, not
    /// this connection.
    pub insecure_ratls_only: bool,
}

/// A service that listens.
pub struct Service {
    listener: Listener,
    address: SocketAddr,
    entrance: Arc<Entrance>,
}

/// Shows what a service counts and whether it accepts jobs, while it runs.
#[derive(Clone)]
pub struct Observer {
    pub(crate) shared: Shared,
    /// None if the service's own wire is not served.
    pub(crate) entrance: Option<Arc<Entrance>>,
}

/// A service that could not start, or failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServiceError {
    /// It could not start.
    #[error(transparent)]
    Listener(#[from] ListenerError),
    /// The attestation device does not answer.
    #[error(
        "the attestation device has not answered for {} seconds: see whether what makes the quotes runs on this \
         host (for SGX, aesmd or the quote provider), and start the service again",
        FIRST_QUOTE_TIMEOUT.as_secs()
    )]
    NoQuote,
    /// The operating system refused.
    #[error("the service's socket failed: {0}")]
    Io(#[from] io::Error),
    /// The gRPC server failed.
    #[error("the gRPC server failed: {0}")]
    Transport(#[from] tonic::transport::Error),
}

impl Service {
    /// Makes the certificate and listens. [`Service::run`] then serves the parties.
    ///
    /// # Errors
    /// [`ServiceError`] if the address or the evidence is unavailable.
    pub async fn bind(config: Config) -> Result<Self, ServiceError> {
        let device = Device::new(config.source);
        let source = Arc::clone(&device) as Arc<dyn QuoteSource>;
        let binding = Listener::bind(&config.listen, config.identity.clone(), source);
        let listener = timeout(FIRST_QUOTE_TIMEOUT, binding).await;
        let listener = listener.map_err(|_| ServiceError::NoQuote)??;
        let address = listener.address()?;
        let shared = Shared::new(config.memory, config.limits, config.collateral, config.admit);
        let entrance = Arc::new(Entrance {
            registry: Registry::new(
                config.identity,
                config.provider_policy,
                config.insecure_simulated,
                config.reconnect_within,
                shared.clone(),
            ),
            shared,
            attester: Attester::new(device, config.offer),
            insecure_ratls_only: config.insecure_ratls_only,
        });
        let door = Arc::clone(&entrance);
        let listener = listener
            .knowing(Arc::new(move |key| door.knows(key)))
            .behind_balancer(config.behind_balancer);
        Ok(Self { listener, address, entrance })
    }

    /// The address the service listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// For those who observe the service.
    pub fn observer(&self) -> Observer {
        Observer { entrance: Some(Arc::clone(&self.entrance)), ..self.shared().observer() }
    }

    /// For a wire that is served next to the service's own.
    pub fn shared(&self) -> Shared {
        self.entrance.shared.clone()
    }

    /// Serves until `stop` ends; then tells every party and returns within a few seconds.
    ///
    /// # Errors
    /// [`ServiceError`] if the server fails as a whole.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Result<(), ServiceError> {
        let Self { listener, entrance, .. } = self;
        let (shared, registry) = (entrance.shared.clone(), Arc::clone(&entrance.registry));
        let reclaiming = tokio::spawn(reclaim(Arc::clone(&shared.tally)));
        let attester = Arc::clone(&entrance);
        let recovering = tokio::spawn(async move { attester.attester.recover().await });
        let service = JoinServiceServer::new(Join { entrance })
            .max_decoding_message_size(MAXIMUM_FROM_PARTY_BYTES)
            .max_encoding_message_size(MAXIMUM_TO_PARTY_BYTES);
        let meet = |stream: &PeerStream| (stream.peer().clone(), ());
        let stop = async {
            stop.await;
            tracing::info!("stopping: the parties are told");
        };
        let result = shared.serve(listener, service, meet, stop, registry.close()).await;
        reclaiming.abort();
        recovering.abort();
        Ok(result?)
    }
}

impl Observer {
    /// The current figures.
    pub fn figures(&self) -> Figures {
        self.shared.tally.figures()
    }

    /// Whether another job could run.
    pub fn takes_jobs(&self) -> bool {
        self.attests()
            && self.entrance.as_ref().is_none_or(|entrance| entrance.registry.takes_jobs())
    }

    /// Whether the attestation device answers, as far as anybody has noticed.
    pub fn attests(&self) -> bool {
        self.entrance.as_ref().is_none_or(|entrance| entrance.attester.answers())
    }

    /// Whether the service has been told to stop.
    pub fn is_stopping(&self) -> bool {
        self.entrance.as_ref().is_some_and(|entrance| entrance.registry.is_closing())
    }
}

/// Gives memory that ended connections left in the allocator back to the system. Sets are not in
/// there: they have pages of their own.
async fn reclaim(tally: Arc<Tally>) {
    loop {
        tally.disconnected().await;
        tokio::time::sleep(RECLAIM_AFTER).await;
        let _ = tokio::task::spawn_blocking(convelo_heap::give_back).await;
    }
}

/// The gRPC methods.
struct Join {
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
