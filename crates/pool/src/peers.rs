//! What is known about each peer, and which peer a connection comes from.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use convelo_channel::{Expect, LogLimit, ProvenPeer};
use tokio::sync::watch;

use crate::conversation::{Conversation, Source, Waiting};
use crate::error::{Closed, ReceiveError, ReceiveFailure, Restarted, SendError, SendFailure};
use crate::limits::{REPORT_PAUSE, REPORTS_AT_ONCE};
use crate::mailbox::{Delivered, Waiter};
use crate::message::{Incoming, MessageId, Wire};
use crate::outbox::{Outbox, Request};
use crate::quota::Quota;
use crate::session::Session;
use crate::strangers::canonical;

/// Which wire to speak with a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireChoice {
    /// Ask; if the peer does not know the second wire, use this one.
    Ask(Wire),
    /// Only this one.
    Only(Wire),
}

/// How a peer is recognised.
#[derive(Clone)]
pub enum PeerIdentity {
    /// By its address and the port it names, which does not protect against anyone who can send
    /// from that host. This is how the replaced package works without TLS.
    InsecureOrigin,
    /// By its address, the port it names and a certificate of the authority. The name belongs to
    /// the first party that proves all this, until one comes whose certificate names the peer's
    /// host when that of the first does not.
    FirstKey,
    /// By nothing: any party of the authority may answer at its address, and nothing is accepted
    /// from it. This is how the replaced package's 5.x line treats a peer without a certificate.
    SendOnly,
    /// By what it proves in the handshake.
    Proven(Arc<Expect>),
}

/// A peer, as described to its node.
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
    /// Whether ids are texts, as in the 5.x line: numbers, including default ids, become their
    /// digits.
    pub text_ids: bool,
}

pub(crate) struct Peer {
    pub(crate) config: PeerConfig,
    authority: String,
    pub(crate) quota: Arc<Quota>,
    pub(crate) outbox: Outbox,
    wire: AtomicU8,
    /// The number of this peer's open connections here.
    pub(crate) inbound: AtomicUsize,
    /// Whether it has ever been heard from.
    pub(crate) seen_once: AtomicBool,
    /// Whether the user has been told that the peer seems to speak another wire.
    pub(crate) hinted: AtomicBool,
    pub(crate) forgotten: AtomicBool,
    addresses: Mutex<Addresses>,
    conversation: Mutex<Conversation>,
    /// The party that has its name now, as [`Conversation::party`] counts them.
    pub(crate) party: watch::Sender<u64>,
    pub(crate) reports: LogLimit,
}

#[derive(Default)]
struct Addresses {
    known: Vec<IpAddr>,
    asked: Option<Instant>,
}

impl Peer {
    pub(crate) fn new(config: PeerConfig, mailbox_bytes: u64) -> Self {
        let wire = match config.wire {
            WireChoice::Ask(_) => 0,
            WireChoice::Only(wire) => wire.number(),
        };
        let quota = Arc::new(Quota::new(mailbox_bytes));
        let conversation = Conversation::new(Arc::clone(&quota), config.text_ids);
        let authority = format!("{}:{}", config.host, config.port);
        Self {
            config,
            authority,
            quota,
            outbox: Outbox::default(),
            wire: AtomicU8::new(wire),
            inbound: AtomicUsize::new(0),
            seen_once: AtomicBool::new(false),
            hinted: AtomicBool::new(false),
            forgotten: AtomicBool::new(false),
            addresses: Mutex::default(),
            conversation: Mutex::new(conversation),
            party: watch::Sender::new(0),
            reports: LogLimit::new(REPORTS_AT_ONCE, REPORT_PAUSE),
        }
    }

    /// The host and port of its server.
    pub(crate) fn authority(&self) -> &str {
        &self.authority
    }

    pub(crate) fn name(&self) -> &str {
        &self.config.name
    }

    /// One lock for everything that changes with each message.
    pub(crate) fn conversation(&self) -> MutexGuard<'_, Conversation> {
        self.conversation.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The wire spoken with it; `None` until that is known.
    pub(crate) fn wire(&self) -> Option<Wire> {
        match self.wire.load(Ordering::Acquire) {
            2 => Some(Wire::Two),
            4 => Some(Wire::Four),
            5 => Some(Wire::Five),
            _ => None,
        }
    }

    /// The wire of its bodies that come without our headers.
    pub(crate) fn compatible_wire(&self) -> Wire {
        match self.config.wire {
            WireChoice::Only(Wire::Five) | WireChoice::Ask(Wire::Five) => Wire::Five,
            _ => Wire::Four,
        }
    }

    /// It speaks the second wire, and from now on nothing else.
    pub(crate) fn speaks_second(&self) {
        if matches!(self.config.wire, WireChoice::Ask(_)) {
            self.wire.store(Wire::Two.number(), Ordering::Release);
        }
    }

    /// It does not know the second wire. False if it did before.
    pub(crate) fn speaks_compatible(&self) -> bool {
        let WireChoice::Ask(wire) = self.config.wire else { return true };
        let unknown = 0;
        let set =
            self.wire.compare_exchange(unknown, wire.number(), Ordering::AcqRel, Ordering::Acquire);
        set.is_ok_and(|_| true) || self.wire() != Some(Wire::Two)
    }

    pub(crate) fn has_address(&self, address: IpAddr) -> bool {
        let addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        addresses.known.iter().any(|known| canonical(*known) == canonical(address))
    }

    /// Looks up its host, but not more often than `pause` allows.
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

    /// Whether a request comes from this peer, if that can be said without a claim.
    pub(crate) fn is_sender(&self, origin: &Origin) -> bool {
        match (&self.config.identity, &origin.proven) {
            (PeerIdentity::InsecureOrigin, None) => self.is_origin(origin),
            (PeerIdentity::Proven(expect), Some(proven)) => expect.accepts(proven, now()).is_ok(),
            _ => false,
        }
    }

    /// Whether nobody has registered its key, and a request of a party of the authority comes from
    /// its address and names its port.
    pub(crate) fn is_unregistered_origin(&self, origin: &Origin) -> bool {
        matches!(self.config.identity, PeerIdentity::FirstKey | PeerIdentity::SendOnly)
            && self.is_origin(origin)
            && origin.proven.as_ref().is_some_and(|proven| proven.chained())
    }

    fn is_origin(&self, origin: &Origin) -> bool {
        origin.server_port == Some(self.config.port) && self.has_address(origin.address.ip())
    }

    /// The key that somebody has registered for it.
    pub(crate) fn registered_key(&self) -> Option<[u8; 32]> {
        match &self.config.identity {
            PeerIdentity::Proven(expect) => expect.pinned_key(),
            _ => None,
        }
    }

    pub(crate) fn is_forgotten(&self) -> bool {
        self.forgotten.load(Ordering::Acquire)
    }

    /// Another party has its name from now on; returns its number. What ends with the conversation
    /// so far is to be told so.
    pub(crate) fn displace(&self) -> (u64, Displaced) {
        let pending = self.outbox.pending().into_iter();
        let sends: Vec<_> = pending.filter(|request| request.message().is_some()).collect();
        let maybe_sent = sends.iter().filter(|request| request.may_arrive()).count();
        let mut conversation = self.conversation();
        let (party, receives) = conversation.displace(sends.len() - maybe_sent, maybe_sent);
        self.party.send_replace(party);
        if matches!(self.config.wire, WireChoice::Ask(_)) {
            self.wire.store(0, Ordering::Release);
        }
        (party, Displaced { sends, receives })
    }

    /// Tells all who waited for the party that had its name.
    pub(crate) fn tell(&self, displaced: Displaced) {
        for request in displaced.sends {
            self.fail(&request, SendFailure::Restarted(Restarted::Displaced));
        }
        self.end(displaced.receives, ReceiveFailure::Restarted(Restarted::Displaced));
    }

    /// Puts back a message that was handed out and not taken.
    pub(crate) fn put_back(&self, incoming: Incoming) {
        let delivered = self.conversation().mailbox.put_back(incoming.id.clone(), incoming);
        self.hand_over(delivered);
    }

    pub(crate) fn hand_over(&self, mut delivered: Delivered<Incoming, Waiting>) {
        while let Delivered::To(waiting, incoming) = delivered {
            let Some(back) = (waiting.taker)(Ok(incoming)) else { return };
            self.conversation().receiving.give_back(waiting.place);
            delivered = self.conversation().mailbox.put_back(back.id.clone(), back);
        }
    }

    /// Judges a session id. A new session starts here, and everything tied to the old one ends.
    pub(crate) fn meets(&self, session_id: u64, source: Source) -> Session {
        self.seen_once.store(true, Ordering::Release);
        let mut conversation = self.conversation();
        let session = conversation.meets(session_id, source);
        if session != Session::Restarted {
            return session;
        }
        let (unsent, kept) = self.outbox.take_defaults();
        let (ended, unreceived) =
            conversation.restart(session_id, source.connection, unsent.len(), kept);
        drop(conversation);
        let restarted = Restarted::Now { unreceived };
        tracing::warn!(peer = self.name(), "{restarted}");
        self.end(ended, ReceiveFailure::Restarted(restarted));
        for request in unsent {
            self.fail(&request, SendFailure::Restarted(restarted));
        }
        session
    }

    /// Ends every waiting receive.
    pub(crate) fn end_waiting(&self, cause: ReceiveFailure) {
        let mut conversation = self.conversation();
        let waiters = conversation.mailbox.take_waiting();
        for waiter in &waiters {
            conversation.receiving.give_back(waiter.waiter.place);
        }
        drop(conversation);
        self.end(waiters, cause);
    }

    fn end(&self, waiters: Vec<Waiter<Waiting>>, cause: ReceiveFailure) {
        for waiter in waiters {
            (waiter.waiter.taker)(Err(self.receive_error(Some(waiter.id), cause)));
        }
    }

    /// This side ends the conversation: everything waiting for the peer, in both directions, is
    /// told so.
    pub(crate) fn close(&self, sends: Closed, receives: Closed) {
        for request in self.outbox.pending() {
            self.fail(&request, SendFailure::Closed(sends));
        }
        self.end_waiting(ReceiveFailure::Closed(receives));
    }

    /// Ends a request with an error.
    pub(crate) fn fail(&self, request: &Arc<Request>, cause: SendFailure) {
        self.outbox.settle(request, |request| {
            let mut error = self.send_error(request.id(), cause);
            error.maybe_delivered = request.may_arrive();
            Err(error)
        });
    }

    /// Ends the requests whose deadline has passed; returns when the next deadline is.
    pub(crate) fn expire(&self, now: Instant) -> Option<Instant> {
        let mut next: Option<Instant> = None;
        for request in self.outbox.pending() {
            match request.deadline {
                Some(deadline) if deadline <= now => self.fail(&request, SendFailure::TimedOut),
                Some(deadline) => next = Some(next.map_or(deadline, |next| next.min(deadline))),
                None => {}
            }
        }
        next
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

/// What waited for a party that lost a peer's name to another one.
pub(crate) struct Displaced {
    sends: Vec<Arc<Request>>,
    receives: Vec<Waiter<Waiting>>,
}

/// Where a request comes from.
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    pub(crate) server_port: Option<u16>,
    pub(crate) proven: Option<Arc<ProvenPeer>>,
}

/// Unix seconds.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
