//! The conversation with one peer, as a state machine: which of its messages to accept, each once;
//! where to resume a broken one; who is waiting. No sockets, clocks or tasks.
//!
//! Its owner keeps it behind a lock, and acts on what an operation returned after releasing the
//! lock.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::body::Assembly;
use crate::error::{ReceiveError, ReceiveFailure, Restarted};
use crate::http::{Have, Rejection};
use crate::limits::{
    MAXIMUM_PARTIALS, PARTIAL_KEPT, REMEMBERED, REPETITION, ROOM_WAIT, SUPERSEDE_WAIT,
};
use crate::mailbox::{Delivered, Mailbox, Waiter};
use crate::message::{Incoming, MessageId, Wire};
use crate::quota::{Charge, Quota, Ticket};
use crate::session::{Counter, Place, Seen, Session, Standing};

/// Everything that changes with each of a peer's messages.
pub(crate) struct Conversation {
    pub(crate) mailbox: Mailbox<Incoming, Waiting>,
    pub(crate) seen: Seen,
    pub(crate) sending: Counter,
    pub(crate) receiving: Counter,
    pub(crate) prefix: String,
    text_ids: bool,
    quota: Arc<Quota>,
    /// Messages being read, by sequence number; each reader can be told to give way.
    reading: HashMap<u64, Interrupt>,
    partials: BTreeMap<u64, (Assembly, Instant)>,
    /// Recent messages on a wire without numbers.
    recent: Recent,
    /// Why nothing more is to be expected from the peer.
    pub(crate) gone: Option<ReceiveFailure>,
    /// Why the conversation began again, if the user has not yet been told.
    restarted: Option<Restarted>,
    pub(crate) probes: u32,
    /// How many parties had the peer's name before this one.
    party: u64,
}

/// What a message comes on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source {
    /// The number of the connection.
    pub(crate) connection: u64,
    /// Which of the parties that have had the peer's name is at its other end.
    pub(crate) party: u64,
}

/// Takes an awaited message, or returns it.
pub type Taker = Box<dyn FnOnce(Result<Incoming, ReceiveError>) -> Option<Incoming> + Send>;

/// A waiting receive.
pub(crate) struct Waiting {
    pub(crate) taker: Taker,
    pub(crate) place: Place,
}

/// Tells the reader of a message that another connection is delivering it.
pub(crate) type Interrupt = Arc<Notify>;

/// A message whose head has arrived.
pub(crate) struct Arrival {
    source: Source,
    /// On the second wire.
    numbered: Option<Numbered>,
    pub(crate) wire: Wire,
    total: u64,
    offset: u64,
    /// All of its body is already here: nobody can interfere.
    whole: bool,
    /// Held while the message is read.
    reading: Option<Interrupt>,
    ticket: Ticket,
    /// When to give up on it.
    until: Option<Instant>,
}

/// What makes a message on the second wire arrive exactly once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Numbered {
    pub(crate) session_id: u64,
    pub(crate) sequence_number: u64,
    pub(crate) floor: u64,
}

/// What to do about an arrival.
pub(crate) enum Step {
    /// Nothing yet: ask again when the quota has changed, and at this time at the latest.
    Wait(Instant),
    /// Read the body into this, until it is complete or another connection delivers it.
    Read(Assembly, Option<Interrupt>),
    /// The whole body is here: accept it.
    Take(Charge),
    /// It was received before: read the body, discard it and say so again.
    Discard,
}

impl Arrival {
    pub(crate) fn new(
        source: Source,
        wire: Wire,
        numbered: Option<Numbered>,
        total: u64,
        offset: u64,
        whole: bool,
    ) -> Self {
        let whole = whole && offset == 0 && numbered.is_some();
        let ticket = Ticket::default();
        Self { source, numbered, wire, total, offset, whole, reading: None, ticket, until: None }
    }

    /// The number of body bytes in this request.
    pub(crate) fn body(&self) -> u64 {
        self.total - self.offset
    }

    /// Whether it is waiting for room in the mailbox.
    pub(crate) fn is_queued(&self) -> bool {
        self.ticket.is_held()
    }

    /// Whether [`Conversation::leave`] must still be called.
    pub(crate) fn holds(&self) -> bool {
        self.reading.is_some() || self.ticket.is_held()
    }

    fn wait(&mut self, now: Instant, most: Duration, text: &str) -> Result<Step, Rejection> {
        let until = *self.until.get_or_insert(now + most);
        if now < until { Ok(Step::Wait(until)) } else { Err(Rejection::new(503, text)) }
    }
}

impl Conversation {
    pub(crate) fn new(quota: Arc<Quota>, text_ids: bool) -> Self {
        Self {
            mailbox: Mailbox::new(),
            seen: Seen::default(),
            sending: Counter::default(),
            receiving: Counter::default(),
            prefix: String::new(),
            text_ids,
            quota,
            reading: HashMap::new(),
            partials: BTreeMap::new(),
            recent: Recent::default(),
            gone: None,
            restarted: None,
            probes: 0,
            party: 0,
        }
    }

    /// The next step for a message whose head has arrived, possibly some time ago.
    pub(crate) fn step(&mut self, arrival: &mut Arrival, now: Instant) -> Result<Step, Rejection> {
        self.same_party(arrival.source)?;
        let mut kept = None;
        if let Some(numbered) = arrival.numbered {
            let number = numbered.sequence_number;
            self.same_session(numbered)?;
            let standing = self.seen.arrives(number, numbered.floor);
            // What the sender has given up is not resumed, and no longer needs room.
            self.partials.retain(|number, _| !self.seen.is_settled(*number));
            match standing {
                Standing::New => {}
                Standing::Settled => return Ok(Step::Discard),
                Standing::TooFarAhead => {
                    return Err(Rejection::new(503, "too many earlier messages are missing"));
                }
            }
            if !arrival.whole && arrival.reading.is_none() {
                if let Some(other) = self.reading.get(&number) {
                    other.notify_one();
                    let text = "this message is arriving on another connection";
                    return arrival.wait(now, SUPERSEDE_WAIT, text);
                }
                let interrupt = Interrupt::default();
                self.reading.insert(number, Arc::clone(&interrupt));
                (arrival.reading, arrival.until) = (Some(interrupt), None);
            }
            // At offset 0 it starts over, and must not wait for the room that it occupies itself.
            kept = self.partials.remove(&number).map(|(assembly, _)| assembly);
            if arrival.offset > 0 {
                return match kept {
                    Some(kept) if kept.is_continued(arrival.offset, arrival.total) => {
                        Ok(Step::Read(kept, arrival.reading.clone()))
                    }
                    kept => {
                        let received = kept.as_ref().map_or(0, Assembly::received);
                        if let Some(kept) = kept {
                            self.keep(number, kept, now);
                        }
                        let text = "the continuation does not fit what has arrived";
                        let have = Some(Have::Bytes(received));
                        Err(Rejection { have, ..Rejection::new(409, text) })
                    }
                };
            }
        }
        drop(kept);
        let awaited = self.mailbox.waiting() > 0;
        match self.quota.take(arrival.total, awaited, &mut arrival.ticket) {
            Some(charge) if arrival.whole => Ok(Step::Take(charge)),
            Some(charge) => {
                let assembly = Assembly::new(arrival.wire, arrival.total).charged(charge);
                Ok(Step::Read(assembly, arrival.reading.clone()))
            }
            None => {
                let text = "nobody is receiving your messages here: the mailbox is full";
                arrival.wait(now, ROOM_WAIT, text)
            }
        }
    }

    /// A message is complete. `body` is its hash if it has no number. Returns `None` if it has been
    /// received before.
    pub(crate) fn complete(
        &mut self,
        arrival: &Arrival,
        incoming: Incoming,
        body: u64,
        now: Instant,
    ) -> Result<Option<Delivered<Incoming, Waiting>>, Rejection> {
        // The name may have gone to another party while the message was being read.
        self.same_party(arrival.source)?;
        let first = if let Some(numbered) = arrival.numbered {
            // Its session may have ended while it was being read; in a new session, the same number
            // means another message.
            self.same_session(numbered)?;
            self.seen.settle(numbered.sequence_number)
        } else {
            self.gone = None;
            self.is_first(&incoming.id, body, arrival.source.connection, now)
        };
        Ok(first.then(|| self.mailbox.deliver(incoming.id.clone(), incoming)))
    }

    /// A connection broke inside a body, or gave way: keeps what has arrived for the continuation.
    pub(crate) fn broke(&mut self, arrival: &Arrival, assembly: Assembly, now: Instant) {
        if let Some(numbered) = arrival.numbered
            && self.same_session(numbered).is_ok()
        {
            self.keep(numbered.sequence_number, assembly, now);
        }
    }

    /// An arrival is over, however it ended.
    pub(crate) fn leave(&mut self, arrival: &mut Arrival) {
        self.quota.leave(&mut arrival.ticket);
        let Some(interrupt) = arrival.reading.take() else { return };
        // By now it may belong to another session.
        if let Some(numbered) = arrival.numbered
            && let number = numbered.sequence_number
            && self.reading.get(&number).is_some_and(|reading| Arc::ptr_eq(reading, &interrupt))
        {
            self.reading.remove(&number);
        }
        self.quota.changed.notify_waiters();
    }

    /// How much of a message has arrived. `None` while another connection is still reading it; that
    /// one is told to give way, and has until `until`.
    pub(crate) fn have(&mut self, number: u64, until: Instant, now: Instant) -> Option<Have> {
        if self.seen.is_settled(number) {
            return Some(Have::All);
        }
        if let Some(reader) = self.reading.get(&number)
            && now < until
        {
            reader.notify_one();
            return None;
        }
        self.expire(now);
        let kept = self.partials.get(&number);
        Some(Have::Bytes(kept.map_or(0, |(assembly, _)| assembly.received())))
    }

    /// The connection broke before its last answer was sent.
    pub(crate) fn unanswered(&mut self, connection: u64) {
        self.recent.unanswered(connection);
    }

    /// Drops partial messages that nobody resumed.
    pub(crate) fn expire(&mut self, now: Instant) {
        self.partials.retain(|_, (_, since)| now.duration_since(*since) < PARTIAL_KEPT);
    }

    /// Judges a session id. After [`Session::Restarted`], call [`Self::restart`] under the same
    /// lock.
    pub(crate) fn meets(&mut self, session_id: u64, source: Source) -> Session {
        if source.party != self.party {
            return Session::Past;
        }
        let session = self.seen.session(session_id, source.connection);
        match session {
            Session::First => self.seen.begin(session_id, source.connection),
            Session::Same => self.gone = None,
            Session::Past | Session::Restarted => {}
        }
        session
    }

    /// Begins another session of the peer: everything tied to the old one ends. Returns the
    /// receives that end, and how many of its messages were never received. Of the sends, `unsent`
    /// have ended and `kept` continue.
    pub(crate) fn restart(
        &mut self,
        session_id: u64,
        connection: u64,
        unsent: usize,
        kept: usize,
    ) -> (Vec<Waiter<Waiting>>, usize) {
        self.seen.begin(session_id, connection);
        self.partials.clear();
        for (_, interrupt) in self.reading.drain() {
            interrupt.notify_one();
        }
        self.gone = None;
        let used = self.sending.is_used() || self.receiving.is_used();
        let waiting = self.mailbox.take_waiting();
        let (ended, stay): (Vec<_>, Vec<_>) =
            waiting.into_iter().partition(|waiter| waiter.waiter.place.is_default);
        let (prefix, text_ids) = (&self.prefix, self.text_ids);
        let dropped = self.mailbox.drop_parked_if(|id| is_default_id(id, prefix, text_ids));
        self.sending.reset();
        self.receiving.reset();
        // What continues under a chosen id also counts in the peer's new session.
        for _ in 0..kept {
            self.sending.take(false);
        }
        for waiter in stay {
            self.receiving.take(false);
            self.mailbox.receive(waiter.id, waiter.waiter, waiter.token);
        }
        let untold = used && ended.is_empty() && unsent == 0;
        self.restarted = untold.then_some(Restarted::Before);
        (ended, dropped.len())
    }

    /// Another party has the name now: nothing that came from the one before is left. Of the sends,
    /// `unsent` end and surely do not arrive, and `maybe_sent` end and may. Returns the number of
    /// the party, and the receives that end: all of them, if anything has been exchanged.
    pub(crate) fn displace(
        &mut self,
        unsent: usize,
        maybe_sent: usize,
    ) -> (u64, Vec<Waiter<Waiting>>) {
        self.party += 1;
        self.seen = Seen::default();
        self.partials.clear();
        for (_, interrupt) in self.reading.drain() {
            interrupt.notify_one();
        }
        self.recent = Recent::default();
        (self.gone, self.probes) = (None, 0);
        self.mailbox.drop_parked();
        let (sent, received) = (self.sending.taken(), self.receiving.taken());
        if sent <= unsent as u64 && received <= self.mailbox.waiting() as u64 {
            return (self.party, Vec::new());
        }
        self.sending.reset();
        self.receiving.reset();
        let ended = self.mailbox.take_waiting();
        let untold = ended.is_empty() && unsent + maybe_sent == 0;
        self.restarted = untold.then_some(Restarted::Displaced);
        (self.party, ended)
    }

    /// Which of the parties that have had the peer's name this is, counted from 0.
    pub(crate) fn party(&self) -> u64 {
        self.party
    }

    /// Why the conversation began again, if that concerns a message with a chosen id, or with a
    /// default one, and nobody has been told.
    pub(crate) fn untold(&mut self, chosen: bool) -> Option<Restarted> {
        self.restarted.take_if(|why| !chosen || *why == Restarted::Displaced)
    }

    /// Starts over at the user's request: counters at 0, nothing parked.
    pub(crate) fn reset(&mut self) {
        self.mailbox.drop_parked();
        self.sending.reset();
        self.receiving.reset();
        self.prefix.clear();
        self.restarted = None;
    }

    /// The id for a message to send, and its place.
    pub(crate) fn send_id(&mut self, chosen: Option<MessageId>) -> (MessageId, Place) {
        let place = self.sending.take(chosen.is_none());
        (self.id(chosen, place), place)
    }

    /// The id of a message to receive, and its place.
    pub(crate) fn receive_id(&mut self, chosen: Option<MessageId>) -> (MessageId, Place) {
        let place = self.receiving.take(chosen.is_none());
        (self.id(chosen, place), place)
    }

    fn id(&self, chosen: Option<MessageId>, place: Place) -> MessageId {
        let (prefix, text_ids) = (&self.prefix, self.text_ids);
        match chosen.unwrap_or(MessageId::Int(place.number.into())) {
            MessageId::Int(number) if prefix.is_empty() && !text_ids => MessageId::Int(number),
            MessageId::Int(number) => format!("{prefix}{number}").into(),
            MessageId::Text(text) if prefix.is_empty() => MessageId::Text(text),
            MessageId::Text(text) => format!("{prefix}{text}").into(),
        }
    }

    fn same_party(&self, source: Source) -> Result<(), Rejection> {
        if source.party == self.party {
            return Ok(());
        }
        Err(Rejection::new(401, "another party has proved that it is the one you spoke as"))
    }

    fn same_session(&self, numbered: Numbered) -> Result<(), Rejection> {
        if self.seen.session_id() == Some(numbered.session_id) {
            return Ok(());
        }
        Err(Rejection::new(409, "your session has ended"))
    }

    fn keep(&mut self, number: u64, assembly: Assembly, now: Instant) {
        self.expire(now);
        if self.partials.len() >= MAXIMUM_PARTIALS {
            self.partials.pop_first();
        }
        self.partials.insert(number, (assembly, now));
    }

    /// Whether a message without a number has not been received before.
    fn is_first(&mut self, id: &MessageId, body: u64, connection: u64, now: Instant) -> bool {
        let passed = match id {
            MessageId::Int(number) => {
                u64::try_from(*number).is_ok_and(|number| number < self.receiving.peek())
                    && !self.mailbox.is_awaited(id)
            }
            MessageId::Text(_) => false,
        };
        let expected = passed || self.mailbox.is_parked(id);
        let first = !self.recent.repeats(id, body, connection, expected, now);
        if first {
            self.recent.note(id.clone(), body, connection, now);
        }
        first
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

/// Recent arrivals on a wire without numbers: a sender that lost the answer sends the same body
/// under the same id again.
#[derive(Default)]
struct Recent(VecDeque<Arrived>);

struct Arrived {
    id: MessageId,
    body: u64,
    connection: u64,
    at: Instant,
    /// Its answer was certainly not delivered.
    unanswered: bool,
}

impl Recent {
    /// Whether this message is a repetition: the same body under the same id, either on another
    /// connection while a repetition is `expected`, or after its answer could not be delivered.
    fn repeats(
        &mut self,
        id: &MessageId,
        body: u64,
        connection: u64,
        expected: bool,
        now: Instant,
    ) -> bool {
        self.0.retain(|arrived| now.duration_since(arrived.at) < REPETITION);
        self.0.iter().any(|arrived| {
            arrived.body == body
                && arrived.connection != connection
                && arrived.id == *id
                && (expected || arrived.unanswered)
        })
    }

    fn note(&mut self, id: MessageId, body: u64, connection: u64, at: Instant) {
        if self.0.len() >= REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back(Arrived { id, body, connection, at, unanswered: false });
    }

    fn unanswered(&mut self, connection: u64) {
        if let Some(last) = self.0.iter_mut().rfind(|arrived| arrived.connection == connection) {
            last.unanswered = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::body::tests::{complete, feed};
    use crate::frame;
    use crate::limits::SEQUENCE_WINDOW;
    use crate::mailbox::Received;

    const SESSION: u64 = 7;
    const MAILBOX: u64 = 64 << 10;

    /// A connection of the first party.
    fn on(connection: u64) -> Source {
        Source { connection, party: 0 }
    }

    /// A conversation with a peer whose session has started.
    fn conversation() -> Conversation {
        let mut conversation = Conversation::new(Arc::new(Quota::new(MAILBOX)), false);
        assert_eq!(conversation.meets(SESSION, on(0)), Session::First);
        conversation
    }

    /// A body of the second wire whose value has this many bytes.
    fn body(id: &str, bytes: usize) -> Bytes {
        let head = frame::encode(&id.into(), bytes as u64, &[]).unwrap();
        [&head[..], &vec![7; bytes]].concat().into()
    }

    fn arrival(session_id: u64, number: u64, total: usize, offset: usize) -> Arrival {
        let numbered = Numbered { session_id, sequence_number: number, floor: 0 };
        Arrival::new(on(0), Wire::Two, Some(numbered), total as u64, offset as u64, false)
    }

    fn unnumbered(connection: u64, total: usize) -> Arrival {
        Arrival::new(on(connection), Wire::Four, None, total as u64, 0, false)
    }

    fn read(conversation: &mut Conversation, arrival: &mut Arrival, now: Instant) -> Assembly {
        match conversation.step(arrival, now) {
            Ok(Step::Read(assembly, _)) => assembly,
            other => panic!("{}", shown(&other)),
        }
    }

    fn shown(step: &Result<Step, Rejection>) -> String {
        match step {
            Ok(Step::Wait(_)) => "wait".to_owned(),
            Ok(Step::Read(assembly, _)) => format!("read from {}", assembly.received()),
            Ok(Step::Take(_)) => "take".to_owned(),
            Ok(Step::Discard) => "discard".to_owned(),
            Err(rejection) => format!("{} {:?}", rejection.status, rejection.have),
        }
    }

    fn step(conversation: &mut Conversation, arrival: &mut Arrival, now: Instant) -> String {
        shown(&conversation.step(arrival, now))
    }

    /// Delivers a complete message; false if it was received before.
    fn bring(conversation: &mut Conversation, number: u64, body: &Bytes, now: Instant) -> bool {
        let mut arrival = arrival(SESSION, number, body.len(), 0);
        let step = conversation.step(&mut arrival, now);
        let taken = match step {
            Ok(Step::Read(mut assembly, _)) => {
                assert!(feed(&mut assembly, body));
                let incoming = assembly.finish().unwrap();
                conversation.complete(&arrival, incoming, 0, now).unwrap().is_some()
            }
            Ok(Step::Discard) => false,
            other => panic!("{}", shown(&other)),
        };
        conversation.leave(&mut arrival);
        taken
    }

    fn receive(conversation: &mut Conversation, id: &str) -> Option<Incoming> {
        conversation.mailbox.take_parked(&id.into())
    }

    /// Waits for an id that nobody sends.
    fn wait_for_another(conversation: &mut Conversation) {
        let place = conversation.receiving.take(false);
        let waiting = Waiting { taker: Box::new(|_| None), place };
        let received = conversation.mailbox.receive("another".into(), waiting, 1);
        assert!(matches!(received, Received::Waiting));
    }

    #[test]
    fn a_message_arrives_once_however_often_it_comes() {
        let (mut conversation, now) = (conversation(), Instant::now());
        let body = body("x", 10);
        for number in [1, 0, 1, 0] {
            let first = conversation.mailbox.parked().map(|(_, count)| count).sum::<usize>() < 2;
            assert_eq!(bring(&mut conversation, number, &body, now), first, "{number}");
        }
        assert!(receive(&mut conversation, "x").is_some());
        assert!(receive(&mut conversation, "x").is_some());
        assert!(!bring(&mut conversation, 0, &body, now), "it was received");
        assert!(receive(&mut conversation, "x").is_none());
    }

    #[test]
    fn a_message_goes_on_where_it_was_cut() {
        let (mut conversation, now) = (conversation(), Instant::now());
        let body = body("x", 1000);
        let mut first = arrival(SESSION, 0, body.len(), 0);
        let mut assembly = read(&mut conversation, &mut first, now);
        assert!(!feed(&mut assembly, &body[..300]));
        conversation.broke(&first, assembly, now);
        conversation.leave(&mut first);
        assert_eq!(conversation.have(0, now, now), Some(Have::Bytes(300)));

        let mut elsewhere = arrival(SESSION, 0, body.len(), 299);
        assert_eq!(step(&mut conversation, &mut elsewhere, now), "409 Some(Bytes(300))");
        conversation.leave(&mut elsewhere);
        let mut next = arrival(SESSION, 0, body.len(), 300);
        let mut assembly = read(&mut conversation, &mut next, now);
        assert!(feed(&mut assembly, &body[300..]));
        let incoming = assembly.finish().unwrap();
        assert_eq!(incoming.value(), [7; 1000]);
        assert!(conversation.complete(&next, incoming, 0, now).unwrap().is_some());
        conversation.leave(&mut next);
        assert_eq!(conversation.have(0, now, now), Some(Have::All));
    }

    #[test]
    fn what_nobody_goes_on_with_is_forgotten() {
        let (mut conversation, now) = (conversation(), Instant::now());
        let body = body("x", 1000);
        for number in 0..=MAXIMUM_PARTIALS as u64 {
            let mut arrival = arrival(SESSION, number, body.len(), 0);
            let mut assembly = read(&mut conversation, &mut arrival, now);
            feed(&mut assembly, &body[..300]);
            conversation.broke(&arrival, assembly, now);
            conversation.leave(&mut arrival);
        }
        assert_eq!(conversation.have(0, now, now), Some(Have::Bytes(0)), "too many");
        assert_eq!(conversation.have(1, now, now), Some(Have::Bytes(300)));
        let later = now + PARTIAL_KEPT;
        assert_eq!(conversation.have(1, later, later), Some(Have::Bytes(0)), "too long");
    }

    #[test]
    fn a_newer_connection_takes_a_message_over() {
        let (mut conversation, now) = (conversation(), Instant::now());
        let body = body("x", 1000);
        let mut old = arrival(SESSION, 0, body.len(), 0);
        let Ok(Step::Read(mut assembly, Some(interrupt))) = conversation.step(&mut old, now) else {
            panic!("it is not read");
        };
        feed(&mut assembly, &body[..300]);
        let until = now + SUPERSEDE_WAIT;
        assert_eq!(conversation.have(0, until, now), None);
        let mut new = arrival(SESSION, 0, body.len(), 0);
        assert_eq!(step(&mut conversation, &mut new, now), "wait");
        assert!(complete(interrupt.notified()).is_some(), "the old one is told");
        conversation.broke(&old, assembly, now);
        conversation.leave(&mut old);
        assert_eq!(conversation.have(0, until, now), Some(Have::Bytes(300)));
        assert_eq!(step(&mut conversation, &mut new, now), "read from 0");

        let mut third = arrival(SESSION, 0, body.len(), 0);
        assert_eq!(step(&mut conversation, &mut third, now), "wait");
        assert_eq!(
            step(&mut conversation, &mut third, until),
            "503 None",
            "the reader did not give way"
        );
    }

    #[test]
    fn heads_wait_for_the_mailbox_in_their_order() {
        let (mut conversation, now) = (conversation(), Instant::now());
        let half = body("x", 40 << 10);
        assert!(bring(&mut conversation, 0, &half, now));
        let mut large = arrival(SESSION, 1, half.len(), 0);
        assert_eq!(step(&mut conversation, &mut large, now), "wait");
        assert!(large.is_queued());
        // There would be room for it, but nobody may overtake.
        let small = body("y", 10);
        let mut behind = arrival(SESSION, 2, small.len(), 0);
        assert_eq!(step(&mut conversation, &mut behind, now), "wait");
        drop(receive(&mut conversation, "x").unwrap());
        assert_eq!(step(&mut conversation, &mut behind, now), "wait");
        assert_eq!(step(&mut conversation, &mut large, now), "read from 0");
        assert_eq!(step(&mut conversation, &mut behind, now), "read from 0");
    }

    #[test]
    fn a_head_whose_connection_is_gone_leaves_the_queue() {
        let (mut conversation, now) = (conversation(), Instant::now());
        let half = body("x", 40 << 10);
        assert!(bring(&mut conversation, 0, &half, now));
        let mut large = arrival(SESSION, 1, half.len(), 0);
        let mut behind = arrival(SESSION, 2, 100, 0);
        assert_eq!(step(&mut conversation, &mut large, now), "wait");
        assert_eq!(step(&mut conversation, &mut behind, now), "wait");
        conversation.leave(&mut large);
        assert_eq!(step(&mut conversation, &mut behind, now), "read from 0");
        assert_eq!(conversation.have(1, now, now), Some(Have::Bytes(0)), "nobody is reading it");
    }

    #[test]
    fn a_receive_that_waits_lets_more_in() {
        let (mut conversation, now) = (conversation(), Instant::now());
        let large = body("x", 60 << 10);
        assert!(bring(&mut conversation, 0, &large, now));
        let mut next = arrival(SESSION, 1, large.len(), 0);
        assert_eq!(step(&mut conversation, &mut next, now), "wait");
        wait_for_another(&mut conversation);
        let assembly = read(&mut conversation, &mut next, now);
        let mut third = arrival(SESSION, 2, large.len(), 0);
        assert_eq!(step(&mut conversation, &mut third, now), "wait", "as much again, no more");
        drop(assembly);
        assert_eq!(step(&mut conversation, &mut third, now), "read from 0");
    }

    #[test]
    fn a_head_that_waits_too_long_is_told_why() {
        let (mut conversation, now) = (conversation(), Instant::now());
        assert!(bring(&mut conversation, 0, &body("x", 60 << 10), now));
        let mut next = arrival(SESSION, 1, 60 << 10, 0);
        assert_eq!(step(&mut conversation, &mut next, now), "wait");
        let rejection = conversation.step(&mut next, now + ROOM_WAIT).err().unwrap();
        assert_eq!(rejection.status, 503);
        assert!(rejection.text.contains("mailbox is full"), "{}", rejection.text);
    }

    /// What is kept of it holds room in the mailbox; for a large message, all of it. It used to
    /// wait for that room until it was refused.
    #[test]
    fn a_message_that_begins_anew_does_not_wait_for_its_own_room() {
        let (mut conversation, now) = (conversation(), Instant::now());
        let large = body("x", 100 << 10);
        let mut first = arrival(SESSION, 0, large.len(), 0);
        let mut assembly = read(&mut conversation, &mut first, now);
        feed(&mut assembly, &large[..80 << 10]);
        conversation.broke(&first, assembly, now);
        conversation.leave(&mut first);
        let mut again = arrival(SESSION, 0, large.len(), 0);
        assert_eq!(step(&mut conversation, &mut again, now), "read from 0");
    }

    /// The late message used up a number in the next session: the message that really had that
    /// number was acknowledged and never seen.
    #[test]
    fn a_late_message_of_an_ended_session_uses_no_number_of_the_next() {
        let (mut conversation, now) = (conversation(), Instant::now());
        let body = body("x", 1000);
        let mut late = arrival(SESSION, 0, body.len(), 0);
        let Ok(Step::Read(mut assembly, Some(interrupt))) = conversation.step(&mut late, now)
        else {
            panic!("it is not read");
        };
        assert_eq!(conversation.meets(8, on(1)), Session::Restarted);
        conversation.restart(8, 1, 0, 0);
        assert!(complete(interrupt.notified()).is_some(), "its reader is told");
        assert!(feed(&mut assembly, &body));
        let refused = conversation.complete(&late, assembly.finish().unwrap(), 0, now);
        assert_eq!(refused.err().map(|rejection| rejection.status), Some(409));
        conversation.leave(&mut late);
        let mut present = arrival(8, 0, body.len(), 0);
        assert_eq!(step(&mut conversation, &mut present, now), "read from 0");
        let mut later = arrival(SESSION, 1, body.len(), 0);
        assert_eq!(step(&mut conversation, &mut later, now), "409 None");
    }

    #[test]
    fn nothing_is_left_of_a_party_that_lost_the_name() {
        let (mut conversation, now) = (conversation(), Instant::now());
        let body = body("x", 1000);
        assert!(bring(&mut conversation, 0, &body, now));
        let mut numbered = arrival(SESSION, 1, body.len(), 0);
        let Ok(Step::Read(mut assembly, Some(interrupt))) = conversation.step(&mut numbered, now)
        else {
            panic!("it is not read");
        };
        let mut late = unnumbered(1, 100);
        assert_eq!(step(&mut conversation, &mut late, now), "read from 0");
        let (party, ended) = conversation.displace(0, 0);
        assert_eq!((party, ended.len()), (1, 0));
        assert!(complete(interrupt.notified()).is_some(), "its reader is told");
        assert!(!conversation.mailbox.is_parked(&"x".into()));
        // What it was sending, and what it sends now, is refused.
        assert!(feed(&mut assembly, &body));
        let refused = conversation.complete(&numbered, assembly.finish().unwrap(), 0, now);
        assert_eq!(refused.err().map(|rejection| rejection.status), Some(401));
        conversation.leave(&mut numbered);
        let incoming = crate::body::parse(Wire::Two, body.clone()).unwrap();
        let refused = conversation.complete(&late, incoming, 0, now);
        assert_eq!(refused.err().map(|rejection| rejection.status), Some(401));
        assert_eq!(step(&mut conversation, &mut unnumbered(1, 100), now), "401 None");
        assert_eq!(conversation.meets(SESSION, on(1)), Session::Past);
        let next = Source { connection: 0, party };
        assert_eq!(conversation.meets(8, next), Session::First);
        // Nothing had been taken from it, so nobody has to know.
        assert!(conversation.untold(false).is_none());
    }

    #[test]
    fn whoever_dealt_with_a_party_that_lost_the_name_is_told() {
        for sent in [false, true] {
            let mut conversation = conversation();
            let _ = if sent { conversation.send_id(None) } else { conversation.receive_id(None) };
            conversation.displace(0, 0);
            assert_eq!(conversation.untold(true), Some(Restarted::Displaced));
            assert!(conversation.untold(true).is_none(), "only once");
            assert_eq!((conversation.sending.peek(), conversation.receiving.peek()), (0, 0));
        }
        // A send that surely did not arrive was no deal.
        let mut conversation = conversation();
        conversation.send_id(None);
        conversation.displace(1, 0);
        assert!(conversation.untold(false).is_none());
    }

    /// It held room in the mailbox for as long as it might have been resumed.
    #[test]
    fn what_the_sender_has_given_up_needs_no_room() {
        let (mut conversation, now) = (conversation(), Instant::now());
        let large = body("x", 60 << 10);
        let mut given_up = arrival(SESSION, 0, large.len(), 0);
        let mut assembly = read(&mut conversation, &mut given_up, now);
        feed(&mut assembly, &large[..300]);
        conversation.broke(&given_up, assembly, now);
        conversation.leave(&mut given_up);
        let numbered = Numbered { session_id: SESSION, sequence_number: 1, floor: 1 };
        let mut next = Arrival::new(on(1), Wire::Two, Some(numbered), large.len() as u64, 0, false);
        assert_eq!(step(&mut conversation, &mut next, now), "read from 0");
    }

    /// A partial message was continued by another one with the same number and length.
    #[test]
    fn a_message_of_an_ended_session_is_not_gone_on_with_in_the_next() {
        let (mut conversation, now) = (conversation(), Instant::now());
        let body = body("x", 1000);
        let mut late = arrival(SESSION, 0, body.len(), 0);
        let mut assembly = read(&mut conversation, &mut late, now);
        feed(&mut assembly, &body[..300]);
        assert_eq!(conversation.meets(8, on(1)), Session::Restarted);
        conversation.restart(8, 1, 0, 0);
        conversation.broke(&late, assembly, now);
        conversation.leave(&mut late);
        assert_eq!(conversation.have(0, now, now), Some(Have::Bytes(0)));
    }

    /// It was refused because so many later messages had arrived, and so could never arrive itself.
    #[test]
    fn the_message_that_all_others_wait_for_is_taken() {
        let (mut conversation, now) = (conversation(), Instant::now());
        for number in 1..=SEQUENCE_WINDOW as u64 {
            assert!(conversation.seen.settle(number));
        }
        let mut more = arrival(SESSION, SEQUENCE_WINDOW as u64 + 1, 100, 0);
        assert_eq!(step(&mut conversation, &mut more, now), "503 None");
        let body = body("x", 10);
        assert!(bring(&mut conversation, 0, &body, now));
        assert_eq!(step(&mut conversation, &mut more, now), "read from 0");
    }

    #[test]
    fn a_restart_ends_what_hangs_on_default_ids_and_nothing_else() {
        let (mut conversation, now) = (conversation(), Instant::now());
        assert!(bring(&mut conversation, 0, &body("chosen", 1), now));
        let (id, place) = conversation.receive_id(None);
        let waiting = Waiting { taker: Box::new(|_| None), place };
        assert!(matches!(conversation.mailbox.receive(id, waiting, 2), Received::Waiting));
        wait_for_another(&mut conversation);
        let (ended, unreceived) = conversation.restart(8, 1, 0, 1);
        assert_eq!((ended.len(), unreceived), (1, 0));
        assert_eq!(conversation.mailbox.waiting(), 1);
        assert_eq!((conversation.sending.peek(), conversation.receiving.peek()), (1, 1));
        assert!(receive(&mut conversation, "chosen").is_some());
    }

    #[test]
    fn a_repetition_without_a_number_is_recognised_where_that_is_safe() {
        let now = Instant::now();
        let bring = |conversation: &mut Conversation, connection, body, now| {
            let arrival = unnumbered(connection, 100);
            let incoming = crate::body::parse(
                Wire::Four,
                Bytes::from_static(b"\x82\xa6object\x01\xa2id\xa1x"),
            );
            conversation.complete(&arrival, incoming.unwrap(), body, now).unwrap().is_some()
        };
        let mut conversation = conversation();
        assert!(bring(&mut conversation, 1, 5, now));
        assert!(bring(&mut conversation, 1, 5, now), "a connection that works repeats nothing");
        assert!(!bring(&mut conversation, 2, 5, now), "parked, and on another connection");
        assert!(bring(&mut conversation, 2, 6, now), "another body");
        for _ in 0..3 {
            assert!(receive(&mut conversation, "x").is_some());
        }
        assert!(bring(&mut conversation, 3, 5, now), "the answer arrived, and so it is a new one");
        assert!(receive(&mut conversation, "x").is_some());
        conversation.unanswered(3);
        assert!(!bring(&mut conversation, 4, 5, now), "the answer got lost");
        assert!(bring(&mut conversation, 5, 5, now + REPETITION), "long ago");
    }
}
