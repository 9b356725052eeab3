//! Messages to one peer on their way out.
//!
//! A request is in `pending` from the call until it completes, and in one of the queues whenever no
//! connection carries it. Only the first request with a given id is queued; the next one follows
//! once it is settled, so that messages with the same id arrive in order.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::Notify;

use crate::error::{SendError, SendFailure};
use crate::http::Question;
use crate::limits::BULK_BYTES;
use crate::message::{MessageId, Payload, Wire};
use crate::session::Place;
use crate::{envelope, frame};

/// Called once, with the outcome of a request.
pub type Done = Box<dyn FnOnce(Result<(), SendError>) + Send>;

pub(crate) struct Request {
    pub(crate) kind: Kind,
    pub(crate) number: u64,
    pub(crate) deadline: Option<Instant>,
    /// How many seconds of absence to tolerate, and how many repetitions if each sends the whole
    /// message again; `None` for no limit.
    pub(crate) patience: Option<u32>,
    done: Mutex<Option<Done>>,
    over: AtomicBool,
    absence: Mutex<Absence>,
    /// Whether all of it has been written at least once.
    pub(crate) written: AtomicBool,
    /// Whether a connection has carried part of it.
    pub(crate) begun: AtomicBool,
    /// Whether a connection is carrying it, which it continues to do even if nobody waits for it
    /// any more.
    on_the_way: AtomicBool,
    /// Whether an earlier connection may have delivered it without an answer.
    stranded: AtomicBool,
}

#[derive(Default)]
struct Absence {
    /// When the peer first could not be reached for it.
    since: Option<Instant>,
    /// How many connections broke while carrying it.
    breaks: u32,
}

pub(crate) enum Kind {
    Ask(Question),
    Message(Message),
}

pub(crate) struct Message {
    pub(crate) id: MessageId,
    pub(crate) place: Place,
    pub(crate) wire: Wire,
    pub(crate) head: Bytes,
    pub(crate) payload: Payload,
    pub(crate) tail: Bytes,
    pub(crate) total: u64,
}

impl Message {
    /// Makes a message, including what is written around the value.
    pub(crate) fn new(
        id: MessageId,
        place: Place,
        wire: Wire,
        payload: Payload,
    ) -> Result<Self, SendFailure> {
        let (head, tail) = match wire {
            Wire::Two => {
                let lengths: Vec<u64> =
                    payload.buffers.iter().map(|buffer| buffer.len() as u64).collect();
                let head = frame::encode(&id, payload.value_len() as u64, &lengths);
                (head.map_err(SendFailure::Frame)?, Bytes::new())
            }
            Wire::Four | Wire::Five => {
                envelope::build(wire, &id, payload.value_len()).map_err(SendFailure::Envelope)?
            }
        };
        let value = if wire == Wire::Two { payload.len() } else { payload.value_len() };
        let total = (head.len() + value + tail.len()) as u64;
        Ok(Self { id, place, wire, head, payload, tail, total })
    }
}

impl Request {
    pub(crate) fn new(
        kind: Kind,
        number: u64,
        deadline: Option<Instant>,
        patience: Option<u32>,
        done: Done,
    ) -> Self {
        Self {
            kind,
            number,
            deadline,
            patience,
            done: Mutex::new(Some(done)),
            over: AtomicBool::new(false),
            absence: Mutex::default(),
            written: AtomicBool::new(false),
            begun: AtomicBool::new(false),
            on_the_way: AtomicBool::new(false),
            stranded: AtomicBool::new(false),
        }
    }

    pub(crate) fn id(&self) -> Option<&MessageId> {
        match &self.kind {
            Kind::Message(message) => Some(&message.id),
            Kind::Ask(_) => None,
        }
    }

    pub(crate) fn message(&self) -> Option<&Message> {
        match &self.kind {
            Kind::Message(message) => Some(message),
            Kind::Ask(_) => None,
        }
    }

    pub(crate) fn is_bulk(&self) -> bool {
        self.message().is_some_and(|message| message.total >= BULK_BYTES)
    }

    /// Whether nobody is waiting for it any more.
    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    /// Marks it as about to be written. False if nobody is waiting for it any more: anyone who was
    /// told that it did not arrive was told the truth.
    pub(crate) fn depart(&self) -> bool {
        self.on_the_way.store(true, Ordering::SeqCst);
        !self.is_over()
    }

    /// The connection that carried it has ended. Bulk that was not written in full does not arrive.
    pub(crate) fn strand(&self) {
        let carried = self.on_the_way.load(Ordering::SeqCst);
        if carried && (!self.is_bulk() || self.written.load(Ordering::Acquire)) {
            self.stranded.store(true, Ordering::SeqCst);
        }
        self.on_the_way.store(false, Ordering::SeqCst);
    }

    /// The peer is there, and answered that it did not accept what this connection carried.
    pub(crate) fn declined(&self) {
        self.absence.lock().unwrap_or_else(PoisonError::into_inner).since = None;
        self.on_the_way.store(false, Ordering::SeqCst);
    }

    /// Whether it has arrived or still may: an answer says nothing about earlier connections.
    pub(crate) fn may_arrive(&self) -> bool {
        self.stranded.load(Ordering::SeqCst) || self.on_the_way.load(Ordering::SeqCst)
    }

    /// Records that the peer is absent, and whether a broken connection `carried` the request.
    /// Returns how many times one did, and for how long the peer has been absent.
    pub(crate) fn bear(&self, carried: bool, now: Instant) -> (u32, Duration) {
        let mut absence = self.absence.lock().unwrap_or_else(PoisonError::into_inner);
        absence.breaks += u32::from(carried);
        (absence.breaks, now.duration_since(*absence.since.get_or_insert(now)))
    }

    /// Reports the outcome; false if it was reported before.
    pub(crate) fn complete(&self, result: impl FnOnce(&Self) -> Result<(), SendError>) -> bool {
        if self.over.swap(true, Ordering::SeqCst) {
            return false;
        }
        let done = self.done.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(done) = done {
            done(result(self));
        }
        true
    }
}

#[derive(Default)]
pub(crate) struct Outbox {
    queues: Mutex<Queues>,
    /// Work for the primary lane.
    pub(crate) small_ready: Notify,
    /// Work for any other lane.
    pub(crate) bulk_ready: Notify,
    /// Everything is settled.
    pub(crate) settled: Notify,
    pub(crate) primary: AtomicBool,
    pub(crate) extra_lanes: AtomicUsize,
    pub(crate) idle_lanes: AtomicUsize,
}

#[derive(Default)]
struct Queues {
    next_number: u64,
    pending: BTreeMap<u64, Arc<Request>>,
    small: VecDeque<Arc<Request>>,
    bulk: VecDeque<Arc<Request>>,
    /// For each id on its way, the requests queued behind it.
    ids: HashMap<MessageId, VecDeque<Arc<Request>>>,
}

impl Outbox {
    fn lock(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of unsettled messages.
    pub(crate) fn len(&self) -> usize {
        self.lock().pending.len()
    }

    /// Accepts a request and numbers it. A corked one wakes nobody while others are on their way;
    /// the second result says that [`Self::wake`] must still be called.
    pub(crate) fn push(
        &self,
        corked: bool,
        make: impl FnOnce(u64) -> Request,
    ) -> (Arc<Request>, bool) {
        let mut queues = self.lock();
        let number = queues.next_number;
        queues.next_number += 1;
        let request = Arc::new(make(number));
        let waits = corked && !queues.pending.is_empty() && !request.is_bulk();
        queues.pending.insert(number, Arc::clone(&request));
        if let Some(id) = request.id() {
            if let Some(behind) = queues.ids.get_mut(id) {
                behind.push_back(Arc::clone(&request));
                return (request, false);
            }
            queues.ids.insert(id.clone(), VecDeque::new());
        }
        if waits {
            queues.small.push_back(Arc::clone(&request));
        } else {
            self.enqueue(&mut queues, Arc::clone(&request));
        }
        (request, waits)
    }

    /// Wakes the lane that carries small requests.
    pub(crate) fn wake(&self) {
        self.small_ready.notify_one();
    }

    fn enqueue(&self, queues: &mut Queues, request: Arc<Request>) {
        if request.is_bulk() {
            queues.bulk.push_back(request);
            self.bulk_ready.notify_one();
        } else {
            queues.small.push_back(request);
            self.small_ready.notify_one();
        }
    }

    /// Returns a request that a connection could not settle, ahead of all others.
    pub(crate) fn return_to_front(&self, request: Arc<Request>) {
        let mut queues = self.lock();
        if request.is_bulk() {
            queues.bulk.push_front(request);
            self.bulk_ready.notify_one();
        } else {
            queues.small.push_front(request);
            self.small_ready.notify_one();
        }
    }

    /// The next small request.
    pub(crate) fn take_small(&self) -> Option<Arc<Request>> {
        let mut queues = self.lock();
        std::iter::from_fn(|| queues.small.pop_front()).find(|request| !request.is_over())
    }

    /// The next bulk request.
    pub(crate) fn take_bulk(&self) -> Option<Arc<Request>> {
        let mut queues = self.lock();
        std::iter::from_fn(|| queues.bulk.pop_front()).find(|request| !request.is_over())
    }

    /// Whether any bulk message is unsettled, queued or not.
    pub(crate) fn has_bulk(&self) -> bool {
        self.lock().pending.values().any(|request| request.is_bulk())
    }

    /// All numbers below this one are settled.
    pub(crate) fn floor(&self) -> u64 {
        let queues = self.lock();
        queues.pending.first_key_value().map_or(queues.next_number, |(number, _)| *number)
    }

    /// Completes a request and releases the next one with its id.
    pub(crate) fn settle(
        &self,
        request: &Arc<Request>,
        result: impl FnOnce(&Request) -> Result<(), SendError>,
    ) {
        self.forget(request);
        request.complete(result);
    }

    /// Removes a request without completing it.
    pub(crate) fn forget(&self, request: &Arc<Request>) {
        let mut queues = self.lock();
        if queues.pending.remove(&request.number).is_none() {
            return;
        }
        if let Some(id) = request.id()
            && let Some(behind) = queues.ids.get_mut(id)
        {
            // If it was waiting behind another, it just leaves; if it was first, it releases the
            // next. They are in the order of their numbers, and may be very many.
            if let Ok(position) = behind.binary_search_by_key(&request.number, |it| it.number) {
                behind.remove(position);
            } else {
                let next = std::iter::from_fn(|| behind.pop_front()).find(|next| !next.is_over());
                match next {
                    Some(next) => self.enqueue(&mut queues, next),
                    None => {
                        queues.ids.remove(id);
                    }
                }
            }
        }
        if queues.pending.is_empty() {
            self.settled.notify_waiters();
        }
    }

    /// Everything unsettled, in order.
    pub(crate) fn pending(&self) -> Vec<Arc<Request>> {
        self.lock().pending.values().cloned().collect()
    }

    /// Removes all messages with default ids; also returns the number of the others.
    pub(crate) fn take_defaults(&self) -> (Vec<Arc<Request>>, usize) {
        let pending = self.pending();
        let messages = pending.into_iter().filter(|request| request.message().is_some());
        let (taken, kept): (Vec<_>, Vec<_>) =
            messages.partition(|request| request.message().is_some_and(|m| m.place.is_default));
        for request in &taken {
            self.forget(request);
        }
        (taken, kept.len())
    }
}
