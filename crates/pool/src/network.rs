//! Two pools without sockets: lanes on one side, a conversation on the other, and between them a
//! network that loses, cuts and delays connections. [`World`] does what the shells do between their
//! awaits, in random order.

use std::collections::{BTreeMap, HashMap};
use std::mem;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::{Buf as _, Bytes, BytesMut};
use proptest::prelude::*;

use crate::body::tests::complete;
use crate::body::{self, Assembly, BodyError};
use crate::conversation::{Arrival, Interrupt, Source, Step};
use crate::error::{ConnectionError, SendError, SendErrorKind};
use crate::http::{self, Have, Method, Rejection, RequestHead};
use crate::lane::{Ended, Introduction, Lane, LaneKind, give_back};
use crate::limits::{BULK_BYTES, SUPERSEDE_WAIT};
use crate::memory::Ordinary;
use crate::message::{MessageId, Payload, Wire};
use crate::outbox::{Kind, Message, Request};
use crate::peers::{Peer, PeerConfig, PeerIdentity, WireChoice};
use crate::server::admit;
use crate::session::Session;
use crate::stream::Carried;

/// Room for two bulk messages.
const MAILBOX: u64 = 5 << 19;
const LIMIT: u64 = 1 << 30;

/// What happens next.
#[derive(Clone, Debug)]
enum Event {
    /// A message is sent, under one of a few ids or a default one.
    Send {
        id: Option<u8>,
        bulk: bool,
        bounded: bool,
    },
    /// A lane connects, or writes this many bytes.
    Write(usize, usize),
    /// This many bytes reach the receiver, through any connection that ever existed.
    Up(usize, usize),
    /// This many bytes of the answers reach a lane.
    Down(usize, usize),
    /// A lane's connection breaks; what is under way may still arrive.
    Cut(usize),
    /// The receiver notices that a connection is broken.
    Noticed(usize),
    /// What is parked is received.
    Receive,
    /// This many seconds pass.
    Time(u64),
    RestartSender,
    RestartReceiver,
}

fn event() -> impl Strategy<Value = Event> {
    let bytes = || prop_oneof![Just(usize::MAX), Just(1), 1..2_000usize, 1..1_200_000usize];
    let lane = || 0..3usize;
    prop_oneof![
        6 => (proptest::option::of(0..3u8), proptest::bool::weighted(0.2), any::<bool>())
            .prop_map(|(id, bulk, bounded)| Event::Send { id, bulk, bounded }),
        12 => (lane(), bytes()).prop_map(|(lane, bytes)| Event::Write(lane, bytes)),
        12 => (any::<usize>(), bytes()).prop_map(|(link, bytes)| Event::Up(link, bytes)),
        10 => (lane(), bytes()).prop_map(|(lane, bytes)| Event::Down(lane, bytes)),
        3 => lane().prop_map(Event::Cut),
        2 => any::<usize>().prop_map(Event::Noticed),
        4 => Just(Event::Receive),
        1 => (1..40u64).prop_map(Event::Time),
        1 => Just(Event::RestartSender),
        1 => Just(Event::RestartReceiver),
    ]
}

/// A connection. What is under way stays so after the sender's end is gone.
struct Link {
    up: BytesMut,
    down: BytesMut,
    /// What the receiver has read and not yet examined.
    buffered: BytesMut,
    server: Server,
}

/// The receiver's state on a connection.
enum Server {
    Head,
    Asked(u64, Instant),
    Waiting(Arrival),
    Reading(Arrival, Assembly, Option<Interrupt>),
    Discarding(Arrival, u64),
    Over,
}

type Outcomes = Arc<Mutex<BTreeMap<u32, Result<(), SendError>>>>;

struct World {
    now: Instant,
    sessions: u64,
    sender: Peer,
    ours: Introduction,
    lanes: [(Lane, Option<usize>); 3],
    receiver: Peer,
    receiver_session: u64,
    links: Vec<Link>,
    sent: u32,
    outcomes: Outcomes,
    /// Messages by the receiver's session that got them.
    delivered: Vec<(u64, MessageId, u32)>,
    /// Messages whose sender is gone.
    orphans: u32,
}

fn peer(name: &str) -> Peer {
    let config = PeerConfig {
        name: name.to_owned(),
        host: "localhost".to_owned(),
        port: 1,
        wire: WireChoice::Only(Wire::Two),
        identity: PeerIdentity::InsecureOrigin,
        text_ids: false,
    };
    Peer::new(config, MAILBOX)
}

fn lanes() -> [(Lane, Option<usize>); 3] {
    [LaneKind::Primary, LaneKind::Extra, LaneKind::Extra].map(|kind| (Lane::new(kind), None))
}

fn introduction(session_id: u64) -> Introduction {
    Introduction { session_id, port: 1, key: None }
}

impl World {
    fn new() -> Self {
        Self {
            now: Instant::now(),
            sessions: 2,
            sender: peer("bob"),
            ours: introduction(1),
            lanes: lanes(),
            receiver: peer("alice"),
            receiver_session: 2,
            links: Vec::new(),
            sent: 0,
            outcomes: Outcomes::default(),
            delivered: Vec::new(),
            orphans: 0,
        }
    }

    fn happen(&mut self, event: &Event) {
        match *event {
            Event::Send { id, bulk, bounded } => self.send(id, bulk, bounded),
            Event::Write(lane, bytes) => self.write(lane, bytes),
            Event::Up(link, bytes) if !self.links.is_empty() => {
                self.up(link % self.links.len(), bytes);
            }
            Event::Down(lane, bytes) => self.down(lane, bytes),
            Event::Cut(lane) => {
                if self.lanes[lane].1.is_some() {
                    self.end(lane, &Ended::Broken(ConnectionError::Closed));
                }
            }
            Event::Noticed(link) if !self.links.is_empty() => {
                let link = link % self.links.len();
                if self.lanes.iter().all(|(_, its)| *its != Some(link)) {
                    self.break_off(link);
                }
            }
            Event::Receive => self.receive(),
            Event::Time(seconds) => {
                self.now += Duration::from_secs(seconds);
                self.sender.expire(self.now);
                self.receiver.conversation().expire(self.now);
            }
            Event::RestartSender => {
                self.sessions += 1;
                self.sender = peer("bob");
                self.ours = introduction(self.sessions);
                self.lanes = lanes();
                self.orphans = self.sent;
            }
            Event::RestartReceiver => {
                self.sessions += 1;
                self.receiver_session = self.sessions;
                self.receiver = peer("alice");
                for link in &mut self.links {
                    (link.server, link.down) = (Server::Over, BytesMut::new());
                }
            }
            Event::Up(..) | Event::Noticed(_) => {}
        }
        // Everything waiting looks again.
        for link in 0..self.links.len() {
            self.serve(link);
        }
    }

    fn send(&mut self, id: Option<u8>, bulk: bool, bounded: bool) {
        self.send_with(id, bulk, bounded, None);
    }

    fn send_with(&mut self, id: Option<u8>, bulk: bool, bounded: bool, patience: Option<u32>) {
        self.sent += 1;
        let tag = self.sent;
        let id = id.map(|id| MessageId::from(format!("id {id}")));
        let (id, place) = self.sender.conversation().send_id(id);
        let size = if bulk { BULK_BYTES } else { 40 + u64::from(tag) * 977 % 100_000 };
        let times = usize::try_from(size / 4).unwrap();
        let payload = Payload::new(tag.to_be_bytes().repeat(times));
        let message = Message::new(id, place, Wire::Two, payload).unwrap();
        let deadline = bounded.then(|| self.now + Duration::from_secs(20));
        let outcomes = Arc::clone(&self.outcomes);
        let done = Box::new(move |result| {
            let before = outcomes.lock().unwrap().insert(tag, result);
            assert!(before.is_none(), "message {tag} was settled twice");
        });
        self.sender.outbox.push(false, |number| {
            Request::new(Kind::Message(message), number, deadline, patience, done)
        });
    }

    fn write(&mut self, lane: usize, bytes: usize) {
        let (machine, link) = &mut self.lanes[lane];
        if link.is_none() {
            let Some(request) = machine.kind.take(&self.sender) else { return };
            give_back(&self.sender, vec![request]);
            *link = Some(self.links.len());
            machine.source.connection = self.links.len() as u64;
            self.links.push(Link {
                up: BytesMut::new(),
                down: BytesMut::new(),
                buffered: BytesMut::new(),
                server: Server::Head,
            });
        }
        machine.fill(&self.sender, &self.ours);
        let link = &mut self.links[link.expect("it was connected")];
        link.up.extend_from_slice(&machine.out.drain(bytes));
        machine.wrote();
    }

    fn down(&mut self, lane: usize, bytes: usize) {
        let (machine, Some(link)) = &mut self.lanes[lane] else { return };
        let link = &mut self.links[*link];
        let bytes = link.down.len().min(bytes);
        machine.arrived.extend_from_slice(&link.down.split_to(bytes));
        let mut ended = machine.read(&self.sender, &self.ours).err();
        if ended.is_none() && link.down.is_empty() && matches!(link.server, Server::Over) {
            ended = Some(machine.closed());
        }
        if let Some(ended) = ended {
            self.end(lane, &ended);
        }
    }

    /// The sender's end of a connection is gone.
    fn end(&mut self, lane: usize, ended: &Ended) {
        let (machine, link) = &mut self.lanes[lane];
        *link = None;
        let aftermath = machine.ended(&self.sender, ended, None, self.now);
        if let Some((_, left)) = aftermath.pause {
            give_back(&self.sender, left);
        }
    }

    fn up(&mut self, link: usize, bytes: usize) {
        let its = &mut self.links[link];
        let bytes = its.up.len().min(bytes);
        its.buffered.extend_from_slice(&its.up.split_to(bytes));
        self.serve(link);
    }

    fn break_off(&mut self, link: usize) {
        let mut conversation = self.receiver.conversation();
        match mem::replace(&mut self.links[link].server, Server::Over) {
            Server::Reading(mut arrival, assembly, _) => {
                conversation.broke(&arrival, assembly, self.now);
                conversation.leave(&mut arrival);
            }
            Server::Waiting(mut arrival) | Server::Discarding(mut arrival, _) => {
                conversation.leave(&mut arrival);
            }
            Server::Head | Server::Asked(..) | Server::Over => {}
        }
    }

    fn receive(&mut self) {
        let mut conversation = self.receiver.conversation();
        let parked: Vec<MessageId> =
            conversation.mailbox.parked().map(|(id, _)| id.clone()).collect();
        for id in parked {
            let incoming = conversation.mailbox.take_parked(&id).expect("it is parked");
            let value = incoming.value();
            let tag = u32::from_be_bytes(value[..4].try_into().unwrap());
            assert!(value.chunks(4).all(|four| four == tag.to_be_bytes()), "{tag} is mixed up");
        }
    }

    fn serve(&mut self, link: usize) {
        while self.advance(link) {}
    }

    /// The receiver's next step on a connection; false if it has to wait.
    fn advance(&mut self, index: usize) -> bool {
        let now = self.now;
        let link = &mut self.links[index];
        match mem::replace(&mut link.server, Server::Over) {
            Server::Head => match RequestHead::parse(&link.buffered).unwrap() {
                None => link.server = Server::Head,
                Some((head, length)) => {
                    link.buffered.advance(length);
                    match self.begin(index, &head) {
                        Ok(server) => self.links[index].server = server,
                        Err(rejection) => self.reject(index, &rejection),
                    }
                    return true;
                }
            },
            Server::Asked(number, until) => {
                let have = self.receiver.conversation().have(number, until, now);
                match have {
                    None => link.server = Server::Asked(number, until),
                    Some(have) => {
                        self.answer(index, Some(have));
                        return true;
                    }
                }
            }
            Server::Waiting(mut arrival) => {
                let step = self.receiver.conversation().step(&mut arrival, now);
                link.server = match step {
                    Ok(Step::Wait(_)) => {
                        link.server = Server::Waiting(arrival);
                        return false;
                    }
                    Ok(Step::Read(assembly, interrupt)) => {
                        Server::Reading(arrival, assembly, interrupt)
                    }
                    Ok(Step::Discard) => {
                        let body = arrival.body();
                        Server::Discarding(arrival, body)
                    }
                    Ok(Step::Take(charge)) => {
                        let length = usize::try_from(arrival.body()).unwrap();
                        let body = Bytes::copy_from_slice(&link.buffered.split_to(length));
                        let mut incoming = body::parse(Wire::Two, body).unwrap();
                        incoming.charge = Some(charge);
                        self.deliver(index, arrival, incoming);
                        return true;
                    }
                    Err(rejection) => {
                        self.receiver.conversation().leave(&mut arrival);
                        self.reject(index, &rejection);
                        return false;
                    }
                };
                return true;
            }
            Server::Reading(arrival, mut assembly, interrupt) => {
                if interrupt.as_ref().is_some_and(|told| complete(told.notified()).is_some()) {
                    link.server = Server::Reading(arrival, assembly, interrupt);
                    self.break_off(index);
                    return false;
                }
                let mut nothing: Carried = Box::new(tokio::io::empty());
                let buffered = &mut link.buffered;
                match complete(assembly.fill(&mut nothing, buffered, &Ordinary)) {
                    Some(Ok(())) => {
                        let incoming = assembly.finish().unwrap();
                        self.deliver(index, arrival, incoming);
                        return true;
                    }
                    Some(Err(BodyError::Connection(_))) => {
                        link.server = Server::Reading(arrival, assembly, interrupt);
                    }
                    other => panic!("{other:?}"),
                }
            }
            Server::Discarding(mut arrival, left) => {
                let taken = left.min(link.buffered.len() as u64);
                link.buffered.advance(usize::try_from(taken).unwrap());
                if taken == left {
                    self.receiver.conversation().leave(&mut arrival);
                    self.answer(index, None);
                    return true;
                }
                link.server = Server::Discarding(arrival, left - taken);
            }
            Server::Over => {}
        }
        false
    }

    fn begin(&mut self, index: usize, head: &RequestHead) -> Result<Server, Rejection> {
        let source = Source { connection: index as u64, party: 0 };
        if head.method == Method::Get {
            let number = head.sequence_number.expect("nothing else is asked here");
            if self.receiver.meets(head.session_id.unwrap(), source) == Session::Past {
                return Err(Rejection::new(409, "your session has ended"));
            }
            return Ok(Server::Asked(number, self.now + SUPERSEDE_WAIT));
        }
        let (length, here) = (head.content_length.unwrap(), self.links[index].buffered.len());
        let session_id = self.receiver_session;
        let arrival = admit(&self.receiver, head, length, here as u64, session_id, LIMIT, source)?;
        Ok(Server::Waiting(arrival))
    }

    fn deliver(&mut self, index: usize, mut arrival: Arrival, incoming: crate::Incoming) {
        let tag = u32::from_be_bytes(incoming.value()[..4].try_into().unwrap());
        let id = incoming.id.clone();
        let mut conversation = self.receiver.conversation();
        let outcome = conversation.complete(&arrival, incoming, 0, self.now);
        conversation.leave(&mut arrival);
        drop(conversation);
        match outcome {
            Ok(delivered) => {
                if delivered.is_some() {
                    self.delivered.push((self.receiver_session, id, tag));
                }
                self.answer(index, None);
            }
            Err(rejection) => self.reject(index, &rejection),
        }
    }

    fn answer(&mut self, index: usize, have: Option<Have>) {
        let link = &mut self.links[index];
        link.server = Server::Head;
        http::write_response(&mut link.down, 200, "", self.receiver_session, have, false);
    }

    fn reject(&mut self, index: usize, rejection: &Rejection) {
        let link = &mut self.links[index];
        link.server = Server::Over;
        http::write_rejection(&mut link.down, rejection, self.receiver_session);
    }

    /// From now on nothing goes wrong: everything sent gets settled, and late bytes arrive.
    fn come_to_rest(&mut self) {
        for _ in 0..400 {
            for lane in 0..3 {
                self.happen(&Event::Write(lane, usize::MAX));
            }
            for link in 0..self.links.len() {
                self.up(link, usize::MAX);
                self.happen(&Event::Noticed(link));
            }
            for lane in 0..3 {
                self.happen(&Event::Down(lane, usize::MAX));
            }
            self.happen(&Event::Receive);
            if self.sender.outbox.len() == 0 && self.links.iter().all(|link| link.up.is_empty()) {
                return;
            }
        }
        panic!("{} messages are stuck", self.sender.outbox.len());
    }

    fn check(&self) {
        let outcomes = self.outcomes.lock().unwrap();
        for tag in self.orphans + 1..=self.sent {
            let count = |tag| self.delivered.iter().filter(|(_, _, other)| *other == tag).count();
            match outcomes.get(&tag) {
                Some(Ok(())) => assert!(count(tag) > 0, "{tag} was acknowledged and is lost"),
                Some(Err(error)) if !error.maybe_delivered => {
                    assert_eq!(count(tag), 0, "{tag} arrived after {error}");
                }
                Some(Err(error)) => assert!(
                    matches!(error.kind, SendErrorKind::TimedOut | SendErrorKind::Restarted),
                    "{error}"
                ),
                None => panic!("{tag} was never settled"),
            }
        }
        let mut latest: HashMap<(u64, &MessageId), u32> = HashMap::new();
        for (session, id, tag) in &self.delivered {
            let times = self.delivered.iter().filter(|(s, _, t)| (s, t) == (session, tag)).count();
            assert_eq!(times, 1, "{tag} came twice to session {session}");
            // Default ids start at 0 again in the sender's next session. Nobody waits for a message
            // that was given up on its way: the next one with its id goes ahead.
            let given_up = outcomes.get(tag).is_some_and(Result::is_err);
            if matches!(id, MessageId::Text(_)) && !given_up {
                let before = latest.insert((*session, id), *tag);
                assert!(before < Some(*tag), "{tag} of {id} came after {before:?}");
            }
        }
    }
}

const ALL: usize = usize::MAX;

impl World {
    fn after(events: &[Event]) -> Self {
        let mut world = Self::new();
        for event in events {
            world.happen(event);
        }
        world
    }

    /// What a message's sender was told, if anything.
    fn told(&self, tag: u32) -> Option<Result<(), (SendErrorKind, bool)>> {
        let outcomes = self.outcomes.lock().unwrap();
        let outcome = outcomes.get(&tag)?;
        Some(outcome.clone().map_err(|error| (error.kind, error.maybe_delivered)))
    }

    fn delivered(&self) -> Vec<u32> {
        self.delivered.iter().map(|(_, _, tag)| *tag).collect()
    }
}

fn small(id: Option<u8>) -> Event {
    Event::Send { id, bulk: false, bounded: false }
}

fn bulk(bounded: bool) -> Event {
    Event::Send { id: None, bulk: true, bounded }
}

/// Its bytes were on their way and continued: its sender was told that it had not arrived, and used
/// its id for another message.
#[test]
fn a_send_that_times_out_while_it_is_written_may_arrive() {
    let send = Event::Send { id: None, bulk: false, bounded: true };
    let mut world = World::after(&[send, Event::Write(0, 10), Event::Time(21)]);
    assert_eq!(world.told(1), Some(Err((SendErrorKind::TimedOut, true))));
    world.happen(&Event::Write(0, ALL));
    world.happen(&Event::Up(0, ALL));
    assert_eq!(world.delivered(), [1]);
}

#[test]
fn a_send_that_times_out_in_the_queue_does_not_arrive() {
    let send = Event::Send { id: None, bulk: false, bounded: true };
    let mut world = World::after(&[send, Event::Time(21)]);
    assert_eq!(world.told(1), Some(Err((SendErrorKind::TimedOut, false))));
    world.come_to_rest();
    assert!(world.delivered().is_empty());
}

/// The peer was asked how much had arrived; then the deadline passed, and the rest was sent anyway.
#[test]
fn bulk_that_is_given_up_is_not_gone_on_with() {
    let mut world = World::after(&[
        bulk(true),
        Event::Write(1, 1_000),
        Event::Up(0, ALL),
        Event::Cut(1),
        Event::Noticed(0),
        Event::Write(1, ALL),
        Event::Time(21),
    ]);
    assert_eq!(world.told(1), Some(Err((SendErrorKind::TimedOut, false))));
    world.come_to_rest();
    assert!(world.delivered().is_empty());
}

#[test]
fn bulk_goes_on_where_it_was_cut() {
    let mut world = World::after(&[
        bulk(false),
        Event::Write(1, 900_000),
        Event::Up(0, ALL),
        Event::Cut(1),
        Event::Write(2, ALL),
        Event::Up(1, ALL),
        Event::Down(2, ALL),
        Event::Write(2, ALL),
    ]);
    let rest = world.links[1].up.len();
    assert!(rest < 200_000, "{rest} bytes are sent again");
    world.come_to_rest();
    assert_eq!((world.told(1), world.delivered()), (Some(Ok(())), vec![1]));
}

/// The second lane's refusal named a session that was already known by then, so its message was
/// refused for good.
#[test]
fn messages_of_two_lanes_go_again_when_the_peer_was_restarted() {
    let mut world = World::after(&[small(None)]);
    world.come_to_rest();
    world.send(Some(0), false, false);
    world.send(Some(1), true, false);
    for event in [Event::RestartReceiver, Event::Down(0, ALL)] {
        world.happen(&event);
    }
    world.write(0, ALL);
    world.write(1, ALL);
    for link in 1..world.links.len() {
        world.up(link, ALL);
    }
    world.down(0, ALL);
    world.down(1, ALL);
    world.come_to_rest();
    assert_eq!((world.told(2), world.told(3)), (Some(Ok(())), Some(Ok(()))));
    world.check();
}

/// What a dead process had written was attributed to a newer one, and from then on the living
/// process was told that its session had ended.
#[test]
fn what_a_dead_process_left_behind_does_not_displace_the_living_one() {
    let mut world = World::after(&[
        small(None),
        Event::Write(0, ALL),
        Event::RestartSender,
        small(None),
        Event::Write(0, ALL),
        Event::Up(1, ALL),
        Event::Up(0, ALL),
        small(None),
    ]);
    world.come_to_rest();
    assert_eq!(world.delivered(), [2, 3]);
    world.check();
}

/// The first attempt may have delivered it: the answer to the second is not the whole story.
#[test]
fn a_message_that_is_refused_at_the_second_attempt_may_have_arrived() {
    let mut world = World::after(&[small(None), Event::Write(0, ALL), Event::Up(0, ALL)]);
    world.happen(&Event::Cut(0));
    world.write(0, ALL);
    http::write_rejection(&mut world.links[1].down, &Rejection::new(401, "who are you?"), 2);
    world.down(0, ALL);
    assert_eq!(world.told(1), Some(Err((SendErrorKind::NotAuthenticated, true))));
    assert_eq!(world.delivered(), [1]);
}

#[test]
fn patience_with_an_absent_peer_ends() {
    let mut world = World::new();
    let absent = |world: &mut World| {
        let (lane, _) = &mut world.lanes[0];
        let held = lane.kind.take(&world.sender);
        let ended = Ended::Broken(ConnectionError::Closed);
        let aftermath = lane.ended(&world.sender, &ended, held, world.now);
        let (pause, left) = aftermath.pause.unwrap();
        give_back(&world.sender, left);
        pause
    };
    world.send_with(None, false, false, Some(3));
    let pauses = [absent(&mut world), absent(&mut world)];
    assert!(pauses[0] < pauses[1], "{pauses:?}");
    world.happen(&Event::Time(2));
    absent(&mut world);
    assert_eq!(world.told(1), None);
    world.happen(&Event::Time(1));
    absent(&mut world);
    assert_eq!(world.told(1), Some(Err((SendErrorKind::Unreachable, false))));
}

/// The peer was there and had no room: that does not count as absence, however long it takes.
#[test]
fn a_peer_that_has_no_room_is_not_absent() {
    let mut world = World::new();
    world.send_with(None, false, false, Some(3));
    for _ in 0..3 {
        world.write(0, ALL);
        world.happen(&Event::Cut(0));
        world.write(0, ALL);
        let link = world.links.len() - 1;
        http::write_rejection(&mut world.links[link].down, &Rejection::new(503, "full"), 2);
        world.down(0, ALL);
        world.happen(&Event::Time(10));
    }
    assert_eq!(world.told(1), None);
    world.come_to_rest();
    assert_eq!(world.told(1), Some(Ok(())));
}

#[test]
fn a_full_mailbox_holds_its_sender_back_and_loses_nothing() {
    let mut world = World::after(&[bulk(false), bulk(false), bulk(false), bulk(false)]);
    for round in 0..8 {
        for lane in 0..3 {
            world.write(lane, ALL);
        }
        for link in 0..world.links.len() {
            world.up(link, ALL);
        }
        for lane in 0..3 {
            world.down(lane, ALL);
        }
        let parked = world.delivered().len();
        assert!(parked <= 2, "{parked} are parked in round {round}");
    }
    assert_eq!((world.told(1), world.told(3)), (Some(Ok(())), None));
    world.come_to_rest();
    world.check();
    assert_eq!(world.delivered().len(), 4);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, max_shrink_iters: 2_000, ..ProptestConfig::default() })]

    /// Whatever the network does: no message arrives twice in a session, one that was acknowledged
    /// arrived, one that certainly failed never arrives, and messages with the same id keep their
    /// order.
    #[test]
    fn every_message_arrives_once_or_its_sender_knows(events in proptest::collection::vec(event(), 0..120)) {
        let mut world = World::new();
        for event in &events {
            world.happen(event);
        }
        world.come_to_rest();
        world.check();
    }
}
