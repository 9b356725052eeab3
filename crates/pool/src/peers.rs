//! What is known about each peer, and who a connection comes from.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use convelo_channel::{Expect, ProvenPeer};
use tokio::sync::Notify;

use crate::body::Assembly;
use crate::error::{Closed, ReceiveError, ReceiveFailure, Restarted, SendError, SendFailure};
use crate::limits::{MAXIMUM_PARTIALS, PARTIAL_KEPT};
use crate::mailbox::{Delivered, Mailbox};
use crate::message::{Incoming, MessageId, Wire};
use crate::outbox::{Outbox, Request};
use crate::quota::Quota;
use crate::session::{Counter, Place, Seen, Session};

/// Which wire to speak with a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireChoice {
    /// Ask; a peer that does not know the second wire is spoken to on this one.
    Ask(Wire),
    /// This one alone.
    Only(Wire),
}

/// How a peer is told from others.
#[derive(Clone)]
pub enum PeerIdentity {
    /// By its address and the port it names: no protection against anybody who can send from that
    /// host. The form of the replaced package without TLS.
    InsecureOrigin,
    /// By its address, the port it names and a certificate of the authority; the first key that
    /// comes is bound to the name.
    FirstKey,
    /// By what it proves in the handshake.
    Proven(Arc<Expect>),
}

/// A peer, as its node is told of it.
#[derive(Clone)]
pub struct PeerConfig {
    /// Its name here.
    pub name: String,
    /// Where its server listens.
    pub host: String,
    /// The port there.
    pub port: u16,
    /// Which wire to speak.
    pub wire: WireChoice,
    /// How it is recognised.
    pub identity: PeerIdentity,
    /// Whether ids are texts, as in the 5.x line: numbers, default ones too, become their digits.
    pub text_ids: bool,
}

/// Takes a message that was waited for, or gives it back.
pub type Taker = Box<dyn FnOnce(Result<Incoming, ReceiveError>) -> Option<Incoming> + Send>;

pub(crate) struct Peer {
    pub(crate) config: PeerConfig,
    pub(crate) quota: Quota,
    pub(crate) outbox: Outbox,
    wire: AtomicU8,
    /// Connections of this peer that are open here.
    pub(crate) inbound: AtomicUsize,
    /// Whether it has ever been heard of.
    pub(crate) seen_once: AtomicBool,
    /// Whether it was said that the peer seems to speak another wire.
    pub(crate) hinted: AtomicBool,
    pub(crate) forgotten: AtomicBool,
    addresses: Mutex<Addresses>,
    bound_key: Mutex<Option<[u8; 32]>>,
    state: Mutex<State>,
    /// A message that was on its way has arrived or broken off.
    pub(crate) arrivals: Notify,
}

#[derive(Default)]
struct Addresses {
    known: Vec<IpAddr>,
    asked: Option<Instant>,
}

/// What changes with every message; one lock.
pub(crate) struct State {
    pub(crate) mailbox: Mailbox<Incoming, Waiting>,
    pub(crate) seen: Seen,
    pub(crate) sending: Counter,
    pub(crate) receiving: Counter,
    pub(crate) prefix: String,
    /// Messages that are being read, by number; whoever reads it can be told to give way.
    pub(crate) arriving: HashMap<u64, Arc<Notify>>,
    pub(crate) partials: BTreeMap<u64, (Assembly, Instant)>,
    /// Recent messages of a wire without numbers.
    pub(crate) recent: Recent,
    /// Why nothing more is to be expected.
    pub(crate) gone: Option<ReceiveFailure>,
    pub(crate) restarted: bool,
    pub(crate) probes: u32,
}

pub(crate) struct Waiting {
    pub(crate) taker: Taker,
    pub(crate) place: Place,
}

impl Peer {
    pub(crate) fn new(config: PeerConfig, mailbox_bytes: u64) -> Self {
        let wire = match config.wire {
            WireChoice::Ask(_) => 0,
            WireChoice::Only(wire) => wire.number(),
        };
        let state = State {
            mailbox: Mailbox::new(),
            seen: Seen::default(),
            sending: Counter::default(),
            receiving: Counter::default(),
            prefix: String::new(),
            arriving: HashMap::new(),
            partials: BTreeMap::new(),
            recent: Recent::default(),
            gone: None,
            restarted: false,
            probes: 0,
        };
        Self {
            config,
            quota: Quota::new(mailbox_bytes),
            outbox: Outbox::default(),
            wire: AtomicU8::new(wire),
            inbound: AtomicUsize::new(0),
            seen_once: AtomicBool::new(false),
            hinted: AtomicBool::new(false),
            forgotten: AtomicBool::new(false),
            addresses: Mutex::default(),
            bound_key: Mutex::new(None),
            state: Mutex::new(state),
            arrivals: Notify::new(),
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.config.name
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The wire that is spoken with it; nothing while that is not known.
    pub(crate) fn wire(&self) -> Option<Wire> {
        match self.wire.load(Ordering::Acquire) {
            2 => Some(Wire::Two),
            4 => Some(Wire::Four),
            5 => Some(Wire::Five),
            _ => None,
        }
    }

    /// The wire of its bodies without our headers.
    pub(crate) fn compatible_wire(&self) -> Wire {
        match self.config.wire {
            WireChoice::Only(Wire::Five) | WireChoice::Ask(Wire::Five) => Wire::Five,
            _ => Wire::Four,
        }
    }

    /// It speaks the second wire: from now on, nothing else.
    pub(crate) fn speaks_second(&self) {
        if matches!(self.config.wire, WireChoice::Ask(_)) {
            self.wire.store(Wire::Two.number(), Ordering::Release);
        }
    }

    /// It does not know the second wire. False when it did before.
    pub(crate) fn speaks_compatible(&self) -> bool {
        let WireChoice::Ask(wire) = self.config.wire else { return true };
        let unknown = 0;
        let set =
            self.wire.compare_exchange(unknown, wire.number(), Ordering::AcqRel, Ordering::Acquire);
        set.is_ok_and(|_| true) || self.wire() != Some(Wire::Two)
    }

    pub(crate) fn has_address(&self, address: IpAddr) -> bool {
        let addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        addresses.known.iter().any(|known| same_host(*known, address))
    }

    /// Looks its host up; not more often than `pause` allows.
    pub(crate) async fn resolve(&self, pause: Duration) {
        {
            let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
            if addresses.asked.is_some_and(|asked| asked.elapsed() < pause) {
                return;
            }
            addresses.asked = Some(Instant::now());
            if let Ok(address) = self.config.host.parse() {
                addresses.known = vec![address];
                return;
            }
        }
        let found = tokio::net::lookup_host((self.config.host.as_str(), self.config.port)).await;
        if let Ok(found) = found {
            let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
            addresses.known = found.map(|address| address.ip()).collect();
        }
    }

    /// Whether a request is this peer's.
    pub(crate) fn is_sender(&self, origin: &Origin) -> bool {
        if self.forgotten.load(Ordering::Acquire) {
            return false;
        }
        let from = origin.server_port == Some(self.config.port)
            && self.has_address(origin.address.ip().to_canonical());
        match (&self.config.identity, &origin.proven) {
            (PeerIdentity::InsecureOrigin, None) => from,
            (PeerIdentity::FirstKey, Some(proven)) => {
                from && proven.chained() && self.bind(proven.key_id())
            }
            (PeerIdentity::Proven(expect), Some(proven)) => {
                expect.accepts(proven, crate::shared::now()).is_ok()
            }
            _ => false,
        }
    }

    /// Binds the first key that comes; false for another one.
    pub(crate) fn bind(&self, key: [u8; 32]) -> bool {
        let mut bound = self.bound_key.lock().unwrap_or_else(PoisonError::into_inner);
        *bound.get_or_insert(key) == key
    }

    /// Hands a message to whoever waits for it, or parks it.
    pub(crate) fn deliver(&self, incoming: Incoming) {
        let delivered = self.state().mailbox.deliver(incoming.id.clone(), incoming);
        self.hand_over(delivered);
    }

    /// A message that was handed out was not taken.
    pub(crate) fn put_back(&self, incoming: Incoming) {
        let delivered = self.state().mailbox.put_back(incoming.id.clone(), incoming);
        self.hand_over(delivered);
    }

    pub(crate) fn hand_over(&self, mut delivered: Delivered<Incoming, Waiting>) {
        while let Delivered::To(waiting, incoming) = delivered {
            let Some(back) = (waiting.taker)(Ok(incoming)) else { return };
            self.state().receiving.give_back(waiting.place);
            delivered = self.state().mailbox.put_back(back.id.clone(), back);
        }
    }

    /// What a session id says; a new session is begun, and whatever hung on the old one ends.
    pub(crate) fn meets(&self, session_id: u64) -> Session {
        let mut state = self.state();
        self.seen_once.store(true, Ordering::Release);
        let session = state.seen.session(session_id);
        match session {
            Session::First => state.seen.begin(session_id),
            Session::Same => state.gone = None,
            Session::Past => {}
            Session::Restarted => {
                drop(state);
                self.restart(session_id);
            }
        }
        session
    }

    fn restart(&self, session_id: u64) {
        let mut state = self.state();
        state.seen.begin(session_id);
        state.partials.clear();
        state.gone = None;
        let used = state.sending.is_used() || state.receiving.is_used();
        let (mut ended, mut kept) = (Vec::new(), Vec::new());
        for waiter in state.mailbox.take_waiting() {
            if waiter.waiter.place.is_default { &mut ended } else { &mut kept }.push(waiter);
        }
        let kept_receives = kept.len();
        for waiter in kept {
            state.mailbox.receive(waiter.id, waiter.waiter, waiter.token);
        }
        let prefix = state.prefix.clone();
        let text_ids = self.config.text_ids;
        let dropped = state.mailbox.drop_parked_if(|id| is_default_id(id, &prefix, text_ids));
        let (unsent, kept_sends) = self.outbox.take_defaults();
        state.sending.reset();
        state.receiving.reset();
        // What goes on under a chosen id counts at the new session of the peer, too.
        for _ in 0..kept_sends {
            state.sending.take(false);
        }
        for _ in 0..kept_receives {
            state.receiving.take(false);
        }
        state.restarted = used && ended.is_empty() && unsent.is_empty();
        drop(state);
        let restarted = Restarted::Now { unreceived: dropped.len() };
        tracing::warn!(peer = self.name(), "{restarted}");
        for waiter in ended {
            let cause = ReceiveFailure::Restarted(restarted);
            (waiter.waiter.taker)(Err(self.receive_error(Some(waiter.id), cause)));
        }
        for request in unsent {
            let cause = SendFailure::Restarted(restarted);
            request.complete(Err(self.send_error(request.id(), cause)));
        }
    }

    /// Ends every receive that waits.
    pub(crate) fn end_waiting(&self, cause: ReceiveFailure) {
        let mut state = self.state();
        let waiters = state.mailbox.take_waiting();
        for waiter in &waiters {
            state.receiving.give_back(waiter.waiter.place);
        }
        drop(state);
        for waiter in waiters {
            (waiter.waiter.taker)(Err(self.receive_error(Some(waiter.id), cause)));
        }
    }

    /// This side ends the conversation: what waits for it, in both directions, is told so.
    pub(crate) fn close(&self, sends: Closed, receives: Closed) {
        for request in self.outbox.pending() {
            self.fail(&request, SendFailure::Closed(sends));
        }
        self.end_waiting(ReceiveFailure::Closed(receives));
    }

    /// Ends a request with an error.
    pub(crate) fn fail(&self, request: &Arc<Request>, cause: SendFailure) {
        let maybe = request.written.load(Ordering::Acquire) && cause.leaves_open();
        let mut error = self.send_error(request.id(), cause);
        error.maybe_delivered = maybe;
        self.outbox.settle(request, Err(error));
    }

    pub(crate) fn receive_error(
        &self,
        id: Option<MessageId>,
        cause: ReceiveFailure,
    ) -> ReceiveError {
        ReceiveError::new(self.name(), id, cause)
    }

    pub(crate) fn send_error(&self, id: Option<&MessageId>, cause: SendFailure) -> SendError {
        SendError::new(self.name(), id, cause)
    }
}

impl State {
    /// The id of a message and its place.
    pub(crate) fn id(
        prefix: &str,
        text_ids: bool,
        counter: &mut Counter,
        chosen: Option<MessageId>,
    ) -> (MessageId, Place) {
        let place = counter.take(chosen.is_none());
        let number = place.number;
        let id = match chosen {
            Some(MessageId::Int(chosen)) if prefix.is_empty() && !text_ids => {
                MessageId::Int(chosen)
            }
            Some(MessageId::Text(text)) if prefix.is_empty() => MessageId::Text(text),
            Some(MessageId::Int(chosen)) => format!("{prefix}{chosen}").into(),
            Some(MessageId::Text(text)) => format!("{prefix}{text}").into(),
            None if prefix.is_empty() && !text_ids => MessageId::Int(number.into()),
            None => format!("{prefix}{number}").into(),
        };
        (id, place)
    }

    /// Keeps what has arrived of a message, for its continuation.
    pub(crate) fn keep_partial(&mut self, number: u64, assembly: Assembly) {
        self.expire_partials();
        if self.partials.len() >= MAXIMUM_PARTIALS {
            self.partials.pop_first();
        }
        self.partials.insert(number, (assembly, Instant::now()));
    }

    pub(crate) fn expire_partials(&mut self) {
        self.partials.retain(|_, (_, since)| since.elapsed() < PARTIAL_KEPT);
    }
}

fn is_default_id(id: &MessageId, prefix: &str, text_ids: bool) -> bool {
    match id {
        MessageId::Int(_) => !text_ids && prefix.is_empty(),
        MessageId::Text(text) => text.strip_prefix(prefix).is_some_and(|number| {
            (text_ids || !prefix.is_empty())
                && !number.is_empty()
                && number.bytes().all(|byte| byte.is_ascii_digit())
        }),
    }
}

/// Where a request comes from.
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    pub(crate) server_port: Option<u16>,
    pub(crate) proven: Option<Arc<ProvenPeer>>,
}

/// One host has several loopback addresses.
fn same_host(a: IpAddr, b: IpAddr) -> bool {
    let canonical = |address: IpAddr| match address.to_canonical() {
        IpAddr::V6(address) if address.is_loopback() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        other => other,
    };
    canonical(a) == canonical(b)
}

/// What arrived lately on a wire without numbers: a sender that lost the answer sends the same body
/// under the same id once more.
#[derive(Default)]
pub(crate) struct Recent(VecDeque<Arrived>);

struct Arrived {
    id: MessageId,
    body: u64,
    connection: u64,
    at: Instant,
    /// Its answer was surely not delivered.
    unanswered: bool,
}

/// A repetition is expected within this time.
const REPETITION: Duration = Duration::from_secs(15);

/// Messages that are remembered.
const REMEMBERED: usize = 128;

impl Recent {
    /// Whether this is a message once more: the same body under the same id, on another connection,
    /// while the first is still `parked`, or after its answer could not be delivered.
    pub(crate) fn repeats(
        &mut self,
        id: &MessageId,
        body: u64,
        connection: u64,
        parked: bool,
        passed: bool,
    ) -> bool {
        self.0.retain(|arrived| arrived.at.elapsed() < REPETITION);
        self.0.iter().any(|arrived| {
            arrived.body == body
                && arrived.connection != connection
                && arrived.id == *id
                && (parked || passed || arrived.unanswered)
        })
    }

    pub(crate) fn note(&mut self, id: MessageId, body: u64, connection: u64) {
        if self.0.len() >= REMEMBERED {
            self.0.pop_front();
        }
        let at = Instant::now();
        self.0.push_back(Arrived { id, body, connection, at, unanswered: false });
    }

    /// The connection broke before the last answer left.
    pub(crate) fn unanswered(&mut self, connection: u64) {
        if let Some(last) = self.0.iter_mut().rfind(|arrived| arrived.connection == connection) {
            last.unanswered = true;
        }
    }
}
