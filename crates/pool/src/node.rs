//! One party's transport: its server, its connections, its mailboxes.

use std::io;
use std::net::TcpListener as StdListener;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::time::timeout;

use crate::error::{ReceiveError, ReceiveErrorKind, SendError, SendErrorKind};
use crate::http::Question;
use crate::limits::{MAXIMUM_COMPATIBLE_BYTES, MAXIMUM_QUEUED, PORT_PAUSE, PORT_WAIT};
use crate::listen::Open;
use crate::mailbox::Received;
use crate::message::{Incoming, MessageId, Payload, Wire};
use crate::notice::Level;
use crate::outbox::{Done, Kind, Message, Request};
use crate::peers::{Peer, PeerConfig, PeerIndex, State, Taker, Waiting};
use crate::session::Place;
use crate::shared::{NodeConfig, Shared};
use crate::{client, listen, watch};

/// How long a send may take.
#[derive(Clone, Copy, Debug, Default)]
pub struct SendOptions {
    /// In all; nothing is for ever.
    pub timeout: Option<Duration>,
    /// How many seconds an absent peer is waited for; nothing is for ever, 0 is one attempt.
    pub patience: Option<u32>,
    /// More is about to be sent: while other messages to this peer are on their way, the transport
    /// is not woken for this one until [`Node::flush`], so that a burst leaves in one write.
    pub corked: bool,
}

/// What became of a receive.
pub enum Receipt {
    /// The message was there.
    Now(Incoming),
    /// The taker will be called.
    Waiting(ReceiveToken),
    /// There is nothing to wait for.
    Failed(ReceiveError),
}

/// Names a receive that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReceiveToken {
    peer: PeerIndex,
    token: u64,
    place: Place,
}

/// Messages that had not been acknowledged when a node was closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// The peer's name.
    pub peer: String,
    /// The message's id.
    pub id: MessageId,
}

/// The transport of one party. Cheap to clone; closed by [`Node::close`] or with its last clone.
#[derive(Clone)]
pub struct Node(Arc<Owner>);

struct Owner {
    shared: Arc<Shared>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.shared.stop();
    }
}

impl Node {
    /// Makes a node whose tasks run on `runtime`. Nothing is opened yet.
    pub fn new(config: NodeConfig, runtime: Handle) -> Self {
        let shared = Shared::new(config, runtime);
        shared.spawn(watch::deadlines(Arc::clone(&shared)));
        shared.spawn(watch::peers(Arc::clone(&shared)));
        if let Some(tls) = &shared.tls {
            shared.spawn(watch::certificate(Arc::clone(tls), Arc::downgrade(&shared)));
        }
        Self(Arc::new(Owner { shared }))
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.0.shared
    }

    /// Listens on `host` and `port`, 0 for any; returns the port. Peers know this pool under
    /// `advertised`, where a gateway stands in between.
    ///
    /// # Errors
    /// What binding says.
    pub fn listen(&self, host: &str, port: u16, advertised: Option<u16>) -> io::Result<u16> {
        let shared = self.shared();
        let listener = StdListener::bind((host, port))?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        let _inside = shared.runtime.enter();
        let listener = TcpListener::from_std(listener)?;
        shared.port.store(port, Ordering::Release);
        shared.advertised.store(advertised.unwrap_or(port), Ordering::Release);
        shared.spawn(listen::accept(Open::new(listener, Arc::clone(shared))));
        if shared.tls.is_none() && !shared.plain_noted.swap(true, Ordering::AcqRel) {
            let text = "plain HTTP: messages are neither encrypted nor authenticated, whoever can \
                        send from a peer's host can be that peer; give key, certificate and \
                        authority for mutual TLS";
            shared.notice(Level::Warning, None, text);
        }
        Ok(port)
    }

    /// The port that is listened on.
    pub fn port(&self) -> Option<u16> {
        Some(self.shared().port.load(Ordering::Acquire)).filter(|port| *port != 0)
    }

    /// SHA-256 of the `SubjectPublicKeyInfo` that this node proves, with TLS.
    pub fn key_id(&self) -> Option<[u8; 32]> {
        self.shared().tls.as_ref().map(|tls| tls.credential().key_id())
    }

    /// Makes a peer known.
    pub fn add_peer(&self, config: PeerConfig) -> PeerIndex {
        let shared = self.shared();
        let mut peers = shared.peers.write().unwrap_or_else(PoisonError::into_inner);
        let index = PeerIndex(peers.len());
        let peer = Arc::new(Peer::new(index, config, shared.mailbox_bytes));
        peers.push(Arc::clone(&peer));
        drop(peers);
        let notify = Arc::clone(shared);
        shared.spawn(async move {
            peer.resolve(Duration::ZERO).await;
            notify.peers_changed.notify_waiters();
        });
        index
    }

    /// Makes a peer unknown: nothing is taken from it any more, and what waits for it ends.
    pub fn forget_peer(&self, peer: PeerIndex) {
        if let Some(peer) = self.shared().peer(peer) {
            peer.forgotten.store(true, Ordering::Release);
            peer.end_waiting(ReceiveErrorKind::Closed, "the peer was removed from this pool");
            for request in peer.outbox.pending() {
                let text = "the peer was removed from this pool";
                client::fail(&peer, &request, SendErrorKind::Closed, text);
            }
        }
    }

    /// Begins the conversation with a peer anew: counters at 0, nothing parked.
    pub fn reset_peer(&self, peer: PeerIndex) {
        if let Some(peer) = self.shared().peer(peer) {
            peer.end_waiting(ReceiveErrorKind::Closed, "the conversation was begun anew");
            let mut state = peer.state();
            state.mailbox.drop_parked();
            state.sending.reset();
            state.receiving.reset();
            state.prefix.clear();
            state.restarted = false;
        }
    }

    /// The wire that is spoken with a peer; nothing while that is not known.
    pub fn wire(&self, peer: PeerIndex) -> Option<Wire> {
        self.shared().peer(peer)?.wire()
    }

    /// Sets what all ids with this peer begin with.
    pub fn set_prefix(&self, peer: PeerIndex, prefix: &str) {
        if let Some(peer) = self.shared().peer(peer) {
            prefix.clone_into(&mut peer.state().prefix);
        }
    }

    /// The next default ids, of sending and receiving.
    pub fn counters(&self, peer: PeerIndex) -> (u64, u64) {
        self.shared().peer(peer).map_or((0, 0), |peer| {
            let state = peer.state();
            (state.sending.peek(), state.receiving.peek())
        })
    }

    /// The ids that are parked; each as often as it is there.
    pub fn parked(&self, peer: PeerIndex) -> Vec<MessageId> {
        self.shared().peer(peer).map_or_else(Vec::new, |peer| {
            let state = peer.state();
            let parked = state.mailbox.parked();
            parked.flat_map(|(id, count)| std::iter::repeat_n(id.clone(), count)).collect()
        })
    }

    /// Asks a peer which wire it speaks, as soon as it is there; afterwards [`Node::wire`] knows.
    pub fn prepare(&self, peer: PeerIndex, options: SendOptions, done: Done) {
        let shared = self.shared();
        let Some(peer) = shared.peer(peer) else { return done(Err(unknown_peer())) };
        if shared.closing.load(Ordering::Acquire) {
            return done(Err(closed(&peer, None)));
        }
        if peer.wire().is_some() {
            return done(Ok(()));
        }
        let kind = Kind::Ask(Question::Wire);
        dispatch(shared, &peer, kind, options, done);
    }

    /// Sends a message. `done` is called once, on the transport's threads: with nothing when the
    /// peer has acknowledged it, or with the reason why it has not. Without an id the next default
    /// one is used; it is free again if the message surely did not arrive. Returns whether
    /// [`Node::flush`] is still to be called, which is only so for a corked message.
    pub fn send(
        &self,
        peer: PeerIndex,
        id: Option<MessageId>,
        wire: Wire,
        payload: Payload,
        options: SendOptions,
        done: Done,
    ) -> bool {
        let shared = self.shared();
        let Some(peer) = shared.peer(peer) else {
            done(Err(unknown_peer()));
            return false;
        };
        if shared.closing.load(Ordering::Acquire) {
            done(Err(closed(&peer, id.as_ref())));
            return false;
        }
        let mut state = peer.state();
        if id.is_none() && std::mem::take(&mut state.restarted) {
            drop(state);
            done(Err(peer.send_error(SendErrorKind::Restarted, None, RESTARTED)));
            return false;
        }
        let State { prefix, sending, .. } = &mut *state;
        let (id, place) = State::id(prefix, peer.config.text_ids, sending, id);
        drop(state);
        let fail = |kind, text: &str, done: Done| {
            peer.state().sending.give_back(place);
            done(Err(peer.send_error(kind, Some(&id), text)));
            false
        };
        if peer.outbox.len() >= MAXIMUM_QUEUED {
            let text = format!("{MAXIMUM_QUEUED} messages wait for being sent already");
            return fail(SendErrorKind::QueueFull, &text, done);
        }
        let (head, tail, total) = match client::wrap(wire, &id, &payload) {
            Ok(wrapped) => wrapped,
            Err(text) => return fail(SendErrorKind::TooLarge, &text, done),
        };
        let most = match wire {
            Wire::Two => shared.message_limit,
            _ => shared.message_limit.min(MAXIMUM_COMPATIBLE_BYTES),
        };
        if total > most {
            let text = format!("it has {total} bytes; at most {most} are sent on this wire");
            return fail(SendErrorKind::TooLarge, &text, done);
        }
        let message = Message { id: id.clone(), place, wire, head, payload, tail, total };
        let owner = Arc::clone(&peer);
        let done: Done = Box::new(move |result: Result<(), SendError>| {
            if result.as_ref().is_err_and(|error| !error.maybe_delivered) {
                owner.state().sending.give_back(place);
            }
            done(result);
        });
        dispatch(shared, &peer, Kind::Message(message), options, done)
    }

    /// Whether two are clones of one node.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Wakes the transport for corked messages.
    pub fn flush(&self, peer: PeerIndex) {
        if let Some(peer) = self.shared().peer(peer) {
            peer.outbox.wake();
        }
    }

    /// Receives the message of an id, of the next default id without one. `make_taker` is called
    /// when the message is not there yet; the taker is called once, on the transport's threads,
    /// and may give the message back.
    pub fn receive(
        &self,
        peer: PeerIndex,
        id: Option<MessageId>,
        make_taker: impl FnOnce() -> Taker,
    ) -> Receipt {
        let shared = self.shared();
        let Some(peer) = shared.peer(peer) else {
            return Receipt::Failed(ReceiveError {
                kind: ReceiveErrorKind::Closed,
                peer: String::new(),
                id,
                text: "there is no such peer".to_owned(),
            });
        };
        let mut state = peer.state();
        if id.is_none() && std::mem::take(&mut state.restarted) {
            drop(state);
            return Receipt::Failed(peer.receive_error(
                ReceiveErrorKind::Restarted,
                None,
                RESTARTED,
            ));
        }
        let State { prefix, receiving, .. } = &mut *state;
        let (id, place) = State::id(prefix, peer.config.text_ids, receiving, id);
        if let Some(incoming) = state.mailbox.take_parked(&id) {
            return Receipt::Now(incoming);
        }
        let over = if shared.closing.load(Ordering::Acquire) {
            Some((ReceiveErrorKind::Closed, "the pool is shut down"))
        } else {
            state.gone.map(|why| (ReceiveErrorKind::Lost, why))
        };
        if let Some((kind, why)) = over {
            state.receiving.give_back(place);
            drop(state);
            return Receipt::Failed(peer.receive_error(kind, Some(id), why));
        }
        let token = shared.tokens.fetch_add(1, Ordering::Relaxed);
        let waiting = Waiting { taker: make_taker(), place };
        let received = state.mailbox.receive(id, waiting, token);
        drop(state);
        peer.room.wake();
        match received {
            Received::Waiting => Receipt::Waiting(ReceiveToken { peer: peer.index, token, place }),
            Received::Now(incoming, _) => Receipt::Now(incoming),
        }
    }

    /// Takes a receive back, if it still waits: as if it had not been. False when its taker has
    /// been called.
    pub fn cancel_receive(&self, token: ReceiveToken) -> bool {
        let Some(peer) = self.shared().peer(token.peer) else { return false };
        let mut state = peer.state();
        let cancelled = state.mailbox.cancel(token.token);
        if cancelled.is_some() {
            state.receiving.give_back(token.place);
        }
        drop(state);
        cancelled.is_some()
    }

    /// Gives a message back that was handed out; `token` where it came through a taker.
    pub fn put_back(&self, peer: PeerIndex, incoming: Incoming, token: Option<ReceiveToken>) {
        let Some(peer) = self.shared().peer(peer) else { return };
        if let Some(token) = token {
            peer.state().receiving.give_back(token.place);
        }
        peer.put_back(incoming);
    }

    /// Ends the node: what is on its way gets `flush` to be acknowledged, receives end, peers are
    /// told. Returns what was not acknowledged.
    pub async fn close(&self, flush: Duration) -> Vec<Dropped> {
        let shared = self.shared();
        shared.closing.store(true, Ordering::Release);
        let peers = shared.all_peers();
        let settled = async {
            for peer in &peers {
                loop {
                    let settled = peer.outbox.settled.notified();
                    if peer.outbox.len() == 0 {
                        break;
                    }
                    settled.await;
                }
            }
        };
        let _ = timeout(flush, settled).await;
        let mut dropped = Vec::new();
        for peer in &peers {
            for request in peer.outbox.pending() {
                if let Some(id) = request.id() {
                    dropped.push(Dropped { peer: peer.name().to_owned(), id: id.clone() });
                }
                let text = "the pool was shut down before it was acknowledged";
                client::fail(peer, &request, SendErrorKind::Closed, text);
            }
            peer.end_waiting(ReceiveErrorKind::Closed, "the pool is shut down");
        }
        say_goodbye(shared, &peers).await;
        shared.stop();
        let mut listening = shared.listening.subscribe();
        let _ = timeout(PORT_WAIT, listening.wait_for(|open| *open == 0)).await;
        dropped
    }

    /// Ends the node at once. Outside of a runtime it waits until its port is free again.
    pub fn abort(&self) {
        let shared = self.shared();
        shared.closing.store(true, Ordering::Release);
        for peer in shared.all_peers() {
            for request in peer.outbox.pending() {
                client::fail(&peer, &request, SendErrorKind::Closed, "the pool was shut down");
            }
            peer.end_waiting(ReceiveErrorKind::Closed, "the pool is shut down");
        }
        shared.stop();
        let began = Instant::now();
        while Handle::try_current().is_err()
            && *shared.listening.borrow() > 0
            && began.elapsed() < PORT_WAIT
        {
            std::thread::sleep(PORT_PAUSE);
        }
    }
}

const RESTARTED: &str =
    "the peer was restarted since the last message: default ids begin at 0 again";

/// How long peers are given to hear that we leave.
const GOODBYE: Duration = Duration::from_millis(500);

fn unknown_peer() -> SendError {
    SendError {
        kind: SendErrorKind::Refused,
        peer: String::new(),
        id: None,
        maybe_delivered: false,
        text: "there is no such peer".to_owned(),
    }
}

fn closed(peer: &Peer, id: Option<&MessageId>) -> SendError {
    peer.send_error(SendErrorKind::Closed, id, "the pool is shut down")
}

/// Queues a request and has it carried. True when the transport was not woken for it.
fn dispatch(
    shared: &Arc<Shared>,
    peer: &Arc<Peer>,
    kind: Kind,
    options: SendOptions,
    done: Done,
) -> bool {
    let deadline = options.timeout.map(|timeout| Instant::now() + timeout);
    if let Some(deadline) = deadline {
        shared.expect_deadline(deadline);
    }
    let patience = options.patience;
    let make = |nonce| Request::new(kind, nonce, deadline, patience, done);
    let (request, waits) = peer.outbox.push(options.corked, make);
    client::provide(shared, peer, request.is_bulk());
    waits
}

async fn say_goodbye(shared: &Arc<Shared>, peers: &[Arc<Peer>]) {
    let mut told = Vec::new();
    for peer in peers {
        let heard = peer.wire() == Some(Wire::Two) && peer.state().seen.epoch().is_some();
        if heard && !peer.forgotten.load(Ordering::Acquire) {
            let (said, done) = tokio::sync::oneshot::channel();
            let options =
                SendOptions { timeout: Some(GOODBYE), patience: Some(0), ..SendOptions::default() };
            let kind = Kind::Ask(Question::Bye);
            dispatch(
                shared,
                peer,
                kind,
                options,
                Box::new(move |_| {
                    let _ = said.send(());
                }),
            );
            told.push(done);
        }
    }
    let all = async {
        for done in told {
            let _ = done.await;
        }
    };
    let _ = timeout(GOODBYE, all).await;
}
