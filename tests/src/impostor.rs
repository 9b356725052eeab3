//! A service that may say anything. Its connections and their evidence are genuine; what it answers is
//! up to the test. It notes who came, and what they showed about themselves.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use convelo_attest::{QuoteSource, Role};
use convelo_channel::{Exchange, Identity, Listener, Peer, PeerStream};
use convelo_psi::KeyId;
use convelo_psi::agreement::AGREEMENT_VERSION;
use convelo_wire::proto::join_service_server::{JoinService, JoinServiceServer};
use convelo_wire::{Challenge, FromParty, Proof, Reason, ToParty, proto};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use tonic::transport::server::Connected;
use tonic::{Request, Response, Status, Streaming};

/// What the service sends, in order.
pub type Answers = Vec<Answer>;

/// A message, or the status with which a stream ends.
pub type Answer = Result<proto::ToParty, Status>;

/// The service.
pub struct Impostor {
    /// `127.0.0.1:port`.
    pub address: String,
    /// The key of its certificate.
    pub key: KeyId,
    guests: Arc<Mutex<Vec<Guest>>>,
    _runtime: Runtime,
}

/// Somebody who completed a handshake, that is, showed a certificate.
#[derive(Clone, Debug)]
pub struct Guest {
    /// The key of the certificate.
    pub key: KeyId,
    /// Whether the certificate carries evidence.
    pub evidence: bool,
    /// The kinds of messages that came on this connection.
    pub sent: Vec<&'static str>,
}

impl Impostor {
    /// Starts a service with evidence from `source`. `answer` gets every message.
    ///
    /// # Panics
    /// If the machine does not permit it.
    pub fn new(
        source: Arc<dyn QuoteSource>,
        answer: impl Fn(&Peer, FromParty) -> Answers + Send + Sync + 'static,
    ) -> Self {
        Self::between(Identity::generate(), source, move |number, peer, message| {
            answer(peer, message).into_iter().map(|answer| (number, answer)).collect()
        })
    }

    /// Starts a service with this key. `answer` gets the number of a connection with every message,
    /// and says to which connection each answer goes.
    ///
    /// # Panics
    /// If the machine does not permit it.
    pub fn between(
        identity: Identity,
        source: Arc<dyn QuoteSource>,
        answer: impl Fn(usize, &Peer, FromParty) -> Vec<(usize, Answer)> + Send + Sync + 'static,
    ) -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let key = KeyId::of_spki(identity.spki());
        let listening = Listener::bind("127.0.0.1:0", identity, source);
        let listener = runtime.block_on(listening).expect("a listener");
        let address = listener.address().expect("an address").to_string();
        let guests = Arc::<Mutex<Vec<Guest>>>::default();
        let (accepted, connections) = mpsc::channel(1);
        runtime.spawn(listener.accept(accepted));
        let book = Arc::clone(&guests);
        let connections = ReceiverStream::new(connections).map(move |accepted| {
            accepted.map(|stream: PeerStream| {
                let peer = stream.peer();
                let key = KeyId::of_spki(&peer.spki);
                let evidence = peer.evidence.is_some();
                let mut guests = lock(&book);
                guests.push(Guest { key, evidence, sent: Vec::new() });
                Connection { number: guests.len() - 1, stream }
            })
        });
        let desk = Desk {
            guests: Arc::clone(&guests),
            outboxes: Arc::default(),
            answer: Arc::new(answer),
        };
        let service = JoinServiceServer::new(desk);
        let serving = Server::builder().serve_with_incoming(service, connections);
        runtime.spawn(serving);
        Self { address, key, guests, _runtime: runtime }
    }

    /// Who came so far.
    pub fn guests(&self) -> Vec<Guest> {
        lock(&self.guests).clone()
    }
}

/// The genuine answer to a challenge, with this collateral.
///
/// # Panics
/// If the source has no quote.
pub fn prove(
    source: &dyn QuoteSource,
    peer: &Peer,
    challenge: Challenge,
    collateral: &str,
) -> proto::ToParty {
    let exchange =
        Exchange { party_nonce: challenge.nonce, service_nonce: [9; 32], job: challenge.job.0 };
    let quote = source.quote(&peer.binding.report_data(Role::Service, &exchange));
    ToParty::Proof(Proof {
        nonce: exchange.service_nonce,
        quote: quote.expect("a quote"),
        collateral: collateral.as_bytes().to_vec(),
        agreement: AGREEMENT_VERSION,
    })
    .into()
}

type Script = dyn Fn(usize, &Peer, FromParty) -> Vec<(usize, Answer)> + Send + Sync;

struct Desk {
    guests: Arc<Mutex<Vec<Guest>>>,
    /// By the number of the connection.
    outboxes: Arc<Mutex<BTreeMap<usize, mpsc::Sender<Answer>>>>,
    answer: Arc<Script>,
}

#[tonic::async_trait]
impl JoinService for Desk {
    type JoinStream = ReceiverStream<Result<proto::ToParty, Status>>;

    async fn join(
        &self,
        request: Request<Streaming<proto::FromParty>>,
    ) -> Result<Response<Self::JoinStream>, Status> {
        let (number, peer) = request.extensions().get::<(usize, Peer)>().cloned().expect("a peer");
        let (guests, answer) = (Arc::clone(&self.guests), Arc::clone(&self.answer));
        let outboxes = Arc::clone(&self.outboxes);
        let mut incoming = request.into_inner();
        let (outgoing, messages) = mpsc::channel(64);
        lock(&outboxes).insert(number, outgoing);
        tokio::spawn(async move {
            while let Ok(Some(message)) = incoming.message().await {
                let message = FromParty::try_from(message).expect("parties' messages are sound");
                lock(&guests)[number].sent.push(kind(&message));
                let last = matches!(message, FromParty::Leave(_) | FromParty::Received);
                for (to, answer) in answer(number, &peer, message) {
                    let outbox = lock(&outboxes).get(&to).cloned();
                    if let Some(outbox) = outbox {
                        // Whoever has gone hears nothing.
                        let _ = outbox.send(answer).await;
                    }
                }
                if last {
                    break;
                }
            }
            // This ends the stream.
            lock(&outboxes).remove(&number);
        });
        Ok(Response::new(ReceiverStream::new(messages)))
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn kind(message: &FromParty) -> &'static str {
    match message {
        FromParty::Challenge(_) => "challenge",
        FromParty::Evidence(_) => "evidence",
        FromParty::Hello(_) => "hello",
        FromParty::Shares(_) => "shares",
        FromParty::Leave(Reason::Attestation) => "leave: attestation",
        FromParty::Leave(_) => "leave",
        _ => "another",
    }
}

/// A connection in the form tonic needs.
struct Connection {
    number: usize,
    stream: PeerStream,
}

impl Connected for Connection {
    type ConnectInfo = (usize, Peer);

    fn connect_info(&self) -> (usize, Peer) {
        (self.number, self.stream.peer().clone())
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
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
