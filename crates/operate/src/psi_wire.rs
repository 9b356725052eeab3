//! The wire of Intel's "PSI with SGX" (`psi.PSI`), for its unmodified clients, on this service's
//! engine.
//!
//! It is weaker than the service's own wire: the ids reach the program that joins them in the
//! clear, nothing says who the other clients should be, and all a client learns about the service
//! is what its TLS stack verifies. Outside enclaves, that is an ordinary certificate, which attests
//! nothing.

mod ids;
mod jobs;
mod paced;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use convelo_attest::{Evidence, Policy, QuoteSource, Refusal as EvidenceRefusal};
use convelo_channel::{
    Acquaintance, Expect, Holder, Identity, Listener, ListenerError, Peer, PeerStream, PeerTls,
    Seated, stranger_line,
};
use convelo_psi::{KeyId, Pseudonymiser, engine};
use convelo_service::limits::WINDOW_BYTES;
use convelo_service::{Observer, Reservation, Shared};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::{Code, Request, Response, Status};

use self::ids::Ids;
use self::jobs::{Client, ConnectionId, Effect, Jobs, Number, Refusal, fits};
use self::paced::Paced;
use crate::limits::{PSI_FIRST_UPLOAD, PSI_READING_FACTOR, PSI_RESULT_GRACE};
use crate::proto::psi_server::{Psi, PsiServer};
use crate::proto::{
    CalPsiRequest, ConnectReply, ConnectRequest, DataUploadRequest, RaReply, RaRequest, Results,
    UploadReply,
};

/// How to offer this wire.
pub struct PsiWire {
    /// Where to listen, `address:port`; port 0 picks one.
    pub listen: String,
    /// What the clients are shown.
    pub tls: PsiTls,
    /// The longest message of ids.
    pub message_bytes: u64,
    /// The longest result; clients that were not told otherwise receive no more than
    /// [`DEFAULT_PSI_RESULT_BYTES`](crate::limits::DEFAULT_PSI_RESULT_BYTES).
    pub result_bytes: u64,
    /// How long a client waits for the others, and then the job for its sets.
    pub deadline: Duration,
    /// How long a client whose connection broke may take to come back.
    pub reconnect_within: Duration,
    /// Whether every connection comes through a balancer that says where it comes from (PROXY
    /// protocol, version 2).
    pub behind_balancer: bool,
}

/// How the service and the clients identify each other.
#[expect(clippy::large_enum_variant, reason = "a program has one")]
pub enum PsiTls {
    /// RA-TLS: the service's certificate carries its evidence. Clients may use any key.
    Attested {
        /// The key of the certificate.
        identity: Identity,
        /// Where the certificate's evidence comes from.
        source: Arc<dyn QuoteSource>,
        /// The policy for the clients' evidence, if there is one.
        client_policy: Option<Policy>,
    },
    /// Ordinary mutual TLS. NOT ATTESTED: nothing shows what runs here.
    Unattested {
        /// The service's certificate, and the authorities of the clients' certificates.
        tls: PeerTls,
        /// Which clients to accept.
        expect: Vec<Expect>,
    },
}

/// The port of this wire.
pub struct PsiPort {
    listener: Listener,
    address: SocketAddr,
    hub: Arc<Hub>,
}

/// Why this wire's port could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PsiError {
    /// The service has too little memory to read one message.
    #[error(
        "a message of ids of {} MiB takes {} MiB to read, but the service may use only {} MiB",
        message_bytes >> 20, reading_bytes >> 20, memory_bytes >> 20
    )]
    Memory {
        /// The longest message.
        message_bytes: u64,
        /// How much memory reading it takes.
        reading_bytes: u64,
        /// All the memory that the service has.
        memory_bytes: u64,
    },
    /// It could not listen.
    #[error(transparent)]
    Listener(#[from] ListenerError),
    /// The operating system refused.
    #[error("the socket failed: {0}")]
    Io(#[from] io::Error),
    /// The gRPC server failed.
    #[error("the gRPC server failed: {0}")]
    Transport(#[from] tonic::transport::Error),
}

/// State shared by the calls.
struct Hub {
    jobs: Mutex<Jobs>,
    /// Wakes the waiting calls when something has changed.
    changed: Notify,
    /// Whether the service's certificate carries evidence.
    attested: bool,
    /// The policies for clients' evidence.
    policies: Vec<Policy>,
    shared: Shared,
    message_bytes: u64,
    result_bytes: u64,
    deadline: Duration,
    reconnect_within: Duration,
    /// When the running job began.
    began: Mutex<Instant>,
    next_connection: AtomicU64,
}

impl PsiPort {
    /// Listens for clients, which are served from what a service shares.
    ///
    /// # Errors
    /// [`PsiError`].
    pub async fn bind(wire: PsiWire, shared: Shared) -> Result<Self, PsiError> {
        let PsiWire { listen, message_bytes, result_bytes, deadline, reconnect_within, .. } = wire;
        let reading_bytes = message_bytes.saturating_mul(PSI_READING_FACTOR);
        let memory_bytes = shared.budget().total();
        if reading_bytes > memory_bytes {
            return Err(PsiError::Memory { message_bytes, reading_bytes, memory_bytes });
        }
        // Clients of this wire show certificates of every kind, and learn from a call's status what
        // is wrong with theirs.
        let (tls, attested, expect, policy) = match wire.tls {
            PsiTls::Attested { identity, source, client_policy } => {
                let tls = PeerTls::attested(identity, source, None);
                (tls.map_err(ListenerError::from)?, true, None, client_policy)
            }
            PsiTls::Unattested { tls, expect } => (tls, false, Some(expect), None),
        };
        let listener = Listener::bind_judging_later(&listen, tls.for_http2(), expect).await?;
        let hub = Hub {
            jobs: Mutex::default(),
            changed: Notify::new(),
            attested,
            policies: policy.into_iter().collect(),
            shared,
            message_bytes,
            result_bytes,
            deadline,
            reconnect_within,
            began: Mutex::new(Instant::now()),
            next_connection: AtomicU64::new(0),
        };
        let (address, hub) = (listener.address()?, Arc::new(hub));
        let door = Arc::clone(&hub);
        let listener = listener
            .knowing(Arc::new(move |key| door.knows(key)))
            .behind_balancer(wire.behind_balancer);
        Ok(Self { listener, address, hub })
    }

    /// The address the port listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether the certificate tells clients which program runs here.
    pub fn is_attested(&self) -> bool {
        self.hub.attested
    }

    pub(crate) fn observer(&self) -> Observer {
        self.hub.shared.observer()
    }

    /// Serves until `stop` ends; then tells every client, and returns when all have heard.
    pub(crate) async fn run(
        self,
        stop: impl Future<Output = ()>,
    ) -> Result<(), tonic::transport::Error> {
        let Self { listener, hub, .. } = self;
        let limit = usize::try_from(hub.message_bytes).unwrap_or(usize::MAX);
        let service = PsiServer::new(Calls(Arc::clone(&hub))).max_decoding_message_size(limit);
        let service = Gate { inner: service, hub: Arc::clone(&hub) };
        let meet = |stream: &PeerStream| {
            let connection = hub.next_connection.fetch_add(1, Ordering::Relaxed);
            let peer = stream.peer().clone();
            let source = Holder::source(peer.address.ip());
            let client = Client { key: KeyId::of_spki(&peer.spki), connection, source };
            (
                Caller { client, peer, seated: Arc::default() },
                Presence(Arc::clone(&hub), connection),
            )
        };
        let close = async {
            let _ = hub.change(|jobs| Ok(jobs.close()));
        };
        hub.shared.serve(listener, service, meet, stop, close).await
    }
}

/// The client that makes a call.
#[derive(Clone)]
struct Caller {
    client: Client,
    peer: Peer,
    seated: Arc<Mutex<Option<Seated>>>,
}

impl Caller {
    /// Gives the connection of a client that takes part a seat.
    fn seat(&self) -> Result<(), Refusal> {
        let mut seated = self.seated.lock().unwrap_or_else(PoisonError::into_inner);
        if seated.is_none() {
            let kept = self.peer.place.keep().ok_or_else(|| {
                let text =
                    "too many clients are connected from this address, or with this key; try later";
                Refusal::new(Code::ResourceExhausted, text)
            })?;
            *seated = Some(kept.seat());
            // Their clients send as much as flow control lets them before they hear whose turn it is.
            self.peer.place.expect(u64::from(WINDOW_BYTES));
        }
        Ok(())
    }
}

/// A client is present as long as its connection stands.
struct Presence(Arc<Hub>, ConnectionId);

impl Drop for Presence {
    fn drop(&mut self) {
        let _ = self.0.change(|jobs| Ok(jobs.left(self.1)));
    }
}

impl Hub {
    fn jobs(&self) -> MutexGuard<'_, Jobs> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn knows(&self, key: &[u8; 32]) -> Acquaintance {
        match self.shared.acquaintance(key) {
            Some(Acquaintance::Admitted) => Acquaintance::Admitted,
            Some(_) if self.jobs().has(KeyId(*key)) => Acquaintance::Seated,
            _ => Acquaintance::Stranger,
        }
    }

    /// Why a client may call nothing at all, if that is so.
    fn refused(&self, caller: &Caller) -> Result<(), Refusal> {
        if let Some(refusal) = &caller.peer.refusal {
            let text = format!("this client's certificate was refused: {refusal}");
            return Err(Refusal::new(Code::Unauthenticated, text));
        }
        if self.shared.acquaintance(&caller.client.key.0).is_none() {
            let text = format!(
                "this service's operator has not admitted the key {}; have it added to the service's list",
                caller.client.key
            );
            return Err(Refusal::new(Code::PermissionDenied, text));
        }
        Ok(())
    }

    /// Verifies a client's evidence, if there are policies for it.
    async fn judge(&self, peer: &Peer) -> Result<(), Status> {
        for policy in &self.policies {
            let evidence = Evidence::from_certificate_with(
                &peer.certificate,
                unix_now(),
                policy.certificate_rules(),
            )
            .and_then(|evidence| evidence.ok_or_else(EvidenceRefusal::missing_evidence));
            let (source, policies) = (peer.address.ip(), Arc::from([policy.clone()]));
            let judged =
                self.shared.judge(source, "this client", evidence.map(Arc::new), policies).await;
            judged.map_err(|failed| Status::unauthenticated(failed.explanation))?;
        }
        Ok(())
    }

    /// Applies a change to the jobs and carries out its effects.
    fn change(
        self: &Arc<Self>,
        happens: impl FnOnce(&mut Jobs) -> Result<Vec<Effect>, Refusal>,
    ) -> Result<(), Refusal> {
        let effects = happens(&mut self.jobs())?;
        for effect in effects {
            self.act(&effect);
        }
        self.changed.notify_waiters();
        Ok(())
    }

    fn act(self: &Arc<Self>, effect: &Effect) {
        match *effect {
            Effect::Begun(number) => {
                if let Some(left_out) = stranger_line() {
                    tracing::info!(left_out, "a job of psi.PSI clients begins");
                }
                *self.began.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
                self.shared.job_opened();
                self.after(PSI_FIRST_UPLOAD, move |jobs| jobs.idle(number));
                self.after(self.deadline, move |jobs| jobs.late(number));
            }
            Effect::Settled(number, result) => {
                if let Some(left_out) = stranger_line() {
                    tracing::info!(left_out, "a job of psi.PSI clients is over");
                }
                let began = *self.began.lock().unwrap_or_else(PoisonError::into_inner);
                self.shared.job_over(began.elapsed(), result);
                self.after(self.deadline, move |jobs| {
                    jobs.forget(number);
                    Vec::new()
                });
            }
            Effect::Await(connection) => {
                self.after(self.reconnect_within, move |jobs| jobs.lost(connection));
            }
            Effect::Join(number) => {
                let hub = Arc::clone(self);
                tokio::spawn(async move { hub.join(number).await });
            }
        }
    }

    fn after(
        self: &Arc<Self>,
        time: Duration,
        happens: impl FnOnce(&mut Jobs) -> Vec<Effect> + Send + 'static,
    ) {
        let hub = Arc::clone(self);
        tokio::spawn(async move {
            tokio::time::sleep(time).await;
            let _ = hub.change(|jobs| Ok(happens(jobs)));
        });
    }

    async fn join(self: Arc<Self>, number: Number) {
        let sets = self.jobs().sets(number);
        let needed = sets.iter().map(|ids| engine::memory(ids.len() as u64, sets.len()));
        let needed = needed.fold(0, u64::saturating_add);
        let result = match self.shared.budget().reserve(needed) {
            None => {
                let text = format!(
                    "joining the sets of this job needs {} MiB, which the service does not have left; nothing \
                     of the job is kept",
                    (needed >> 20) + 1
                );
                Err(Refusal::new(Code::ResourceExhausted, text))
            }
            Some(room) => {
                let joined = self.shared.join(move || {
                    let sets: io::Result<Vec<_>> = sets.iter().map(|ids| ids.received()).collect();
                    let bitmaps = sets.map(engine::intersect);
                    drop(room);
                    bitmaps
                });
                match joined.await {
                    Some(Ok(Ok(bitmaps))) => Ok(bitmaps),
                    Some(Ok(Err(engine::NoMemory))) => {
                        let text =
                            "the service has no memory for the join after all; run it again later";
                        Err(Refusal::new(Code::ResourceExhausted, text))
                    }
                    Some(Err(_)) | None => Err(failed()),
                }
            }
        };
        let _ = self.change(|jobs| Ok(jobs.joined(number, result)));
    }

    /// Waits until `check` has an answer; returns none if the deadline passes first.
    async fn wait<T>(
        &self,
        check: impl FnMut(&mut Jobs) -> Result<Option<T>, Refusal>,
    ) -> Result<Option<T>, Refusal> {
        self.wait_until(Instant::now() + self.deadline, check).await
    }

    async fn wait_until<T>(
        &self,
        deadline: Instant,
        mut check: impl FnMut(&mut Jobs) -> Result<Option<T>, Refusal>,
    ) -> Result<Option<T>, Refusal> {
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            if let Some(answer) = check(&mut self.jobs())? {
                return Ok(Some(answer));
            }
            if timeout_at(deadline, changed).await.is_err() {
                return Ok(None);
            }
        }
    }

    /// Decides on a call before any of it is read.
    async fn let_in(&self, caller: &Caller, uploads: bool) -> Result<Option<Reading>, Refusal> {
        self.refused(caller)?;
        // One that comes back to its job may not have to connect again.
        if self.jobs().has(caller.client.key) {
            caller.seat()?;
        }
        if !uploads {
            return Ok(None);
        }
        let reading = self.admit(caller.client).await?;
        caller.peer.place.expect(self.message_bytes);
        Ok(Some(reading))
    }

    /// Admits a message of ids before any of it is read: it must be this client's turn, and there
    /// must be memory for the message.
    async fn admit(&self, client: Client) -> Result<Reading, Refusal> {
        let needed = self.message_bytes * PSI_READING_FACTOR;
        let admitted = self.wait(|jobs| {
            let pseudonymiser = jobs.may_upload(client)?;
            let room = self.shared.budget().reserve(needed);
            Ok(room.map(|room| Reading { pseudonymiser, _room: Arc::new(room) }))
        });
        admitted.await?.ok_or_else(|| {
            let text =
                "the service had no memory left to read the ids before the deadline; try later";
            Refusal::new(Code::ResourceExhausted, text)
        })
    }
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn failed() -> Refusal {
    let text = "the join failed inside the service; nothing of the job is kept";
    Refusal::new(Code::Internal, text)
}

/// The right to have one message read.
#[derive(Clone)]
struct Reading {
    pseudonymiser: Arc<Pseudonymiser>,
    _room: Arc<Reservation>,
}

/// Runs before the calls: a message of ids is decoded as a whole, so its client is checked first.
#[derive(Clone)]
struct Gate {
    inner: PsiServer<Calls>,
    hub: Arc<Hub>,
}

impl Service<http::Request<Body>> for Gate {
    type Response = http::Response<Body>;
    type Error = std::convert::Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Service::<http::Request<Body>>::poll_ready(&mut self.inner, context)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let (hub, mut inner) = (Arc::clone(&self.hub), self.inner.clone());
        let caller = request.extensions().get::<Caller>().cloned();
        let uploads = request.uri().path() == "/psi.PSI/DataUpload";
        Box::pin(async move {
            let Some(caller) = caller else { return inner.call(request).await };
            match hub.let_in(&caller, uploads).await {
                Ok(reading) => reading.map(|reading| request.extensions_mut().insert(reading)),
                Err(refusal) => return Ok(Status::from(refusal).into_http()),
            };
            inner.call(request.map(|body| Body::new(Paced::new(body)))).await
        })
    }
}

struct Calls(Arc<Hub>);

fn caller<T>(request: &Request<T>) -> Result<Caller, Status> {
    let caller = request.extensions().get::<Caller>().cloned();
    caller.ok_or_else(|| Status::internal("a call without a client"))
}

#[tonic::async_trait]
impl Psi for Calls {
    async fn remote_attestation(
        &self,
        request: Request<RaRequest>,
    ) -> Result<Response<RaReply>, Status> {
        // The request holds a record. It goes nowhere.
        let mut request = request.into_inner();
        zeroize::Zeroize::zeroize(&mut request.name);
        let message = if self.0.attested {
            "Remote attestation: the service's certificate carries its evidence; whether that is what it \
             should be, this client's own TLS stack has decided"
        } else {
            "NOT ATTESTED: the service is identified only by an ordinary certificate; nothing shows which \
             program runs there"
        };
        Ok(Response::new(RaReply { message: message.to_owned() }))
    }

    async fn connect(
        &self,
        request: Request<ConnectRequest>,
    ) -> Result<Response<ConnectReply>, Status> {
        let caller = caller(&request)?;
        let client = caller.client;
        let wanted = request.into_inner().client_num;
        let hub = &self.0;
        hub.judge(&caller.peer).await?;
        caller.seat()?;
        hub.change(|jobs| jobs.connect(client, wanted))?;
        let Some(count) = hub.wait(|jobs| jobs.connected(client)).await? else {
            return Err(hub.jobs().waited(client).into());
        };
        let message = format!("All {count} clients are connected");
        Ok(Response::new(ConnectReply { message }))
    }

    async fn data_upload(
        &self,
        request: Request<DataUploadRequest>,
    ) -> Result<Response<UploadReply>, Status> {
        let Caller { client, .. } = caller(&request)?;
        let (_, extensions, message) = request.into_parts();
        let Some(reading) = extensions.get::<Reading>().cloned() else {
            return Err(Status::internal("ids that were not admitted"));
        };
        let ids = tokio::task::spawn_blocking(move || {
            let ids = Ids::new(message.input_data, &reading.pseudonymiser);
            drop((extensions, reading));
            ids
        });
        let ids = ids.await.map_err(|_| failed())?.map_err(|_| failed())?;
        let room = self.0.shared.budget().reserve(ids.memory()).ok_or_else(|| {
            let text = "the service has no memory left for the ids; try later";
            Refusal::new(Code::ResourceExhausted, text)
        })?;
        let counts = ids.counts;
        self.0.change(|jobs| jobs.upload(client, ids.with_room(room)))?;
        let message = format!("Data uploaded: {counts}");
        Ok(Response::new(UploadReply { message }))
    }

    async fn cal_psi(&self, request: Request<CalPsiRequest>) -> Result<Response<Results>, Status> {
        let Caller { client, .. } = caller(&request)?;
        let hub = &self.0;
        // The job ends by its own deadline, and its refusal says more than that this one has passed.
        let deadline = Instant::now() + hub.deadline + PSI_RESULT_GRACE;
        let result = hub.wait_until(deadline, |jobs| jobs.result(client)).await?;
        let Some((ids, bitmap)) = result else {
            let text = "the deadline passed before all clients had uploaded their ids";
            return Err(Status::deadline_exceeded(text));
        };
        hub.changed.notify_waiters();
        let matched = tokio::task::spawn_blocking(move || ids.matched(&bitmap));
        let data = matched.await.map_err(|_| failed())?.map_err(|_| failed())?;
        fits(&data, hub.result_bytes)?;
        Ok(Response::new(Results { data }))
    }
}
