//! One peer of a node: what is sent to it, received from it and known about it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::client;
use crate::conversation::{Taker, Waiting};
use crate::error::{Closed, ReceiveError, ReceiveFailure, SendError, SendFailure};
use crate::http::Question;
use crate::limits::{MAXIMUM_COMPATIBLE_BYTES, MAXIMUM_QUEUED};
use crate::mailbox::Received;
use crate::message::{Incoming, MessageId, Payload, Wire};
use crate::outbox::{Done, Kind, Message, Request};
use crate::peers::Peer;
use crate::session::Place;
use crate::shared::Shared;

/// How long a send may take.
#[derive(Clone, Copy, Debug, Default)]
pub struct SendOptions {
    /// In all; `None` for no limit.
    pub timeout: Option<Duration>,
    /// For how many seconds to wait for an absent peer; `None` for no limit, 0 for a single
    /// attempt.
    pub patience: Option<u32>,
    /// More is about to be sent. While other messages to this peer are on their way, this one does
    /// not wake the transport until [`PeerHandle::flush`], so that a burst leaves in one write.
    pub corked: bool,
}

/// The outcome of a receive.
pub enum Receipt {
    /// The message was there.
    Now(Incoming),
    /// The taker will be called.
    Waiting(ReceiveToken),
    /// There is nothing to wait for.
    Failed(ReceiveError),
}

/// A waiting receive.
#[derive(Clone)]
pub struct ReceiveToken {
    peer: Arc<Peer>,
    token: u64,
    place: Place,
}

impl ReceiveToken {
    /// Withdraws the receive if it is still waiting, as if it had never been made. Returns false if
    /// its taker has already been called.
    pub fn cancel(&self) -> bool {
        let mut conversation = self.peer.conversation();
        let cancelled = conversation.mailbox.cancel(self.token).is_some();
        if cancelled {
            conversation.receiving.give_back(self.place);
        }
        cancelled
    }

    /// Puts back the message that came through the taker, and frees the id that was used.
    pub fn put_back(&self, incoming: Incoming) {
        self.peer.conversation().receiving.give_back(self.place);
        self.peer.put_back(incoming);
    }
}

/// A peer of one node, returned by [`Node::add_peer`](crate::Node::add_peer). Cheap to clone; it
/// does not keep the node open.
#[derive(Clone)]
pub struct PeerHandle {
    shared: Arc<Shared>,
    peer: Arc<Peer>,
}

impl PartialEq for PeerHandle {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.peer, &other.peer)
    }
}

impl Eq for PeerHandle {}

impl fmt::Debug for PeerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerHandle('{}')", self.name())
    }
}

impl PeerHandle {
    pub(crate) fn new(shared: Arc<Shared>, peer: Arc<Peer>) -> Self {
        Self { shared, peer }
    }

    /// The peer's name here.
    pub fn name(&self) -> &str {
        self.peer.name()
    }

    /// Removes the peer: nothing more is accepted from it, and everything waiting for it ends.
    pub fn forget(&self) {
        self.peer.forgotten.store(true, Ordering::Release);
        self.shared.release(&self.peer);
        self.peer.close(Closed::Peer, Closed::Peer);
    }

    /// Restarts the conversation: counters at 0, nothing parked.
    pub fn reset(&self) {
        self.peer.end_waiting(ReceiveFailure::Closed(Closed::Conversation));
        self.peer.conversation().reset();
    }

    /// The wire spoken with it; `None` until that is known.
    pub fn wire(&self) -> Option<Wire> {
        self.peer.wire()
    }

    /// Sets the prefix of all ids exchanged with it.
    pub fn set_prefix(&self, prefix: &str) {
        prefix.clone_into(&mut self.peer.conversation().prefix);
    }

    /// The next default ids, for sending and for receiving.
    pub fn counters(&self) -> (u64, u64) {
        let conversation = self.peer.conversation();
        (conversation.sending.peek(), conversation.receiving.peek())
    }

    /// The ids of the parked messages, each once per message.
    pub fn parked(&self) -> Vec<MessageId> {
        let conversation = self.peer.conversation();
        let parked = conversation.mailbox.parked();
        parked.flat_map(|(id, count)| std::iter::repeat_n(id.clone(), count)).collect()
    }

    /// Asks the peer, as soon as it is reachable, which wire it speaks; afterwards
    /// [`PeerHandle::wire`] knows. Fails like [`PeerHandle::send`] if too much is queued.
    pub fn prepare(&self, options: SendOptions, done: Done) {
        if self.shared.closing.load(Ordering::Acquire) {
            return done(Err(self.closed(None)));
        }
        if self.peer.wire().is_some() {
            return done(Ok(()));
        }
        // There is a question for each message that waits for the answer.
        if self.peer.outbox.len() >= MAXIMUM_QUEUED {
            return done(Err(self.peer.send_error(None, SendFailure::QueueFull)));
        }
        self.ask(Question::Wire, options, done);
    }

    pub(crate) fn ask(&self, question: Question, options: SendOptions, done: Done) {
        self.dispatch(Kind::Ask(question), options, done);
    }

    /// Sends a message. `done` is called once, on the transport's threads: with `Ok` when the peer
    /// has acknowledged it, or with the reason why not. Without an id, it gets the next default
    /// one, which becomes free again if the message certainly did not arrive. Returns whether
    /// [`PeerHandle::flush`] must still be called, which can only be so for a corked message.
    pub fn send(
        &self,
        id: Option<MessageId>,
        wire: Wire,
        payload: Payload,
        options: SendOptions,
        done: Done,
    ) -> bool {
        let (shared, peer) = (&self.shared, &self.peer);
        if shared.closing.load(Ordering::Acquire) {
            done(Err(self.closed(id.as_ref())));
            return false;
        }
        let mut conversation = peer.conversation();
        if let Some(restarted) = conversation.untold(id.is_some()) {
            drop(conversation);
            done(Err(peer.send_error(id.as_ref(), SendFailure::Restarted(restarted))));
            return false;
        }
        let (id, place) = conversation.send_id(id);
        drop(conversation);
        let fail = |cause, done: Done| {
            peer.conversation().sending.give_back(place);
            done(Err(peer.send_error(Some(&id), cause)));
            false
        };
        if peer.outbox.len() >= MAXIMUM_QUEUED {
            return fail(SendFailure::QueueFull, done);
        }
        let message = match Message::new(id.clone(), place, wire, payload) {
            Ok(message) => message,
            Err(cause) => return fail(cause, done),
        };
        let most = match wire {
            Wire::Two => shared.message_limit,
            _ => shared.message_limit.min(MAXIMUM_COMPATIBLE_BYTES),
        };
        if message.total > most {
            return fail(SendFailure::TooLarge { found: message.total, limit: most }, done);
        }
        let owner = Arc::clone(peer);
        let done: Done = Box::new(move |result: Result<(), SendError>| {
            if result.as_ref().is_err_and(|error| !error.maybe_delivered) {
                owner.conversation().sending.give_back(place);
            }
            done(result);
        });
        self.dispatch(Kind::Message(message), options, done)
    }

    /// Wakes the transport for corked messages.
    pub fn flush(&self) {
        self.peer.outbox.wake();
    }

    /// Receives the message with an id, or with the next default id. Calls `make_taker` if the
    /// message has not arrived yet; the taker is called once, on the transport's threads, and may
    /// return the message.
    pub fn receive(&self, id: Option<MessageId>, make_taker: impl FnOnce() -> Taker) -> Receipt {
        let (shared, peer) = (&self.shared, &self.peer);
        let mut conversation = peer.conversation();
        if let Some(restarted) = conversation.untold(id.is_some()) {
            drop(conversation);
            let failure = ReceiveFailure::Restarted(restarted);
            return Receipt::Failed(peer.receive_error(id, failure));
        }
        let (id, place) = conversation.receive_id(id);
        if let Some(incoming) = conversation.mailbox.take_parked(&id) {
            return Receipt::Now(incoming);
        }
        let ended = if shared.closing.load(Ordering::Acquire) {
            Some(ReceiveFailure::Closed(Closed::Pool))
        } else {
            conversation.gone
        };
        if let Some(cause) = ended {
            conversation.receiving.give_back(place);
            drop(conversation);
            return Receipt::Failed(peer.receive_error(Some(id), cause));
        }
        let token = shared.tokens.fetch_add(1, Ordering::Relaxed);
        let waiting = Waiting { taker: make_taker(), place };
        let received = conversation.mailbox.receive(id, waiting, token);
        drop(conversation);
        peer.quota.changed.notify_waiters();
        match received {
            Received::Waiting => {
                Receipt::Waiting(ReceiveToken { peer: Arc::clone(peer), token, place })
            }
            Received::Now(incoming, _) => Receipt::Now(incoming),
        }
    }

    /// Puts back a message that was handed out immediately.
    pub fn put_back(&self, incoming: Incoming) {
        self.peer.put_back(incoming);
    }

    /// Queues a request and has it carried. Returns true if that did not wake the transport.
    fn dispatch(&self, kind: Kind, options: SendOptions, done: Done) -> bool {
        let deadline = options.timeout.map(|timeout| Instant::now() + timeout);
        if let Some(deadline) = deadline {
            self.shared.expect_deadline(deadline);
        }
        let patience = options.patience;
        let make = |number| Request::new(kind, number, deadline, patience, done);
        let (request, waits) = self.peer.outbox.push(options.corked, make);
        client::provide(&self.shared, &self.peer, request.is_bulk());
        if self.shared.is_stopped() {
            self.peer.fail(&request, SendFailure::Closed(Closed::Pool));
        }
        waits
    }

    fn closed(&self, id: Option<&MessageId>) -> SendError {
        self.peer.send_error(id, SendFailure::Closed(Closed::Pool))
    }
}
