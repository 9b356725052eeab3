use std::collections::BTreeSet;

use convelo_channel::{Identity, os_rng};
use convelo_psi::agreement::{Confirming, JobKey, Opening, Sealing};
use convelo_psi::limits::{MAXIMUM_KEYS, ONE_TIME_KEY_BYTES};
use convelo_psi::{Outcome, Parties, Party, PseudonymSet, Reveal, SetBuilder, Terms, What, terms};
use proptest::prelude::*;
use prost::Message as _;
use sha2::{Digest as _, Sha256};

use super::*;
use crate::budget::Budget;
use crate::memory::Limits;

const NAMES: [&str; 5] = ["alice", "bob", "carol", "dave", "erin"];

/// Bytes of pseudonyms that the jobs of these tests share.
const BUDGET: u64 = 1 << 20;

/// Names the run to its parties.
const RUN: [u8; 32] = [1; 32];

/// Stands in for a signature; what is signed can be compared.
struct Hash;

impl Sign for Hash {
    fn sign(&self, message: &[u8]) -> Vec<u8> {
        Sha256::digest(message).to_vec()
    }
}

/// A job as the service runs it, and all that came out of it.
struct World {
    job: Job,
    machine: JobMachine,
    budget: Budget,
    outboxes: BTreeMap<ConnectionId, Vec<ToParty>>,
    read: BTreeMap<ConnectionId, usize>,
    closed: BTreeSet<ConnectionId>,
    /// What the engine works on.
    joining: Option<(Vec<ReceivedSet>, Option<Reservation>)>,
    settled: bool,
    finished: bool,
    /// Connections that meant another job.
    refused: BTreeSet<ConnectionId>,
}

impl World {
    fn new(job: Job) -> Self {
        let room = Room::new(BUDGET, Limits::default());
        let budget = room.sets.clone();
        let machine = JobMachine::new(job.clone(), RUN, room);
        Self {
            job,
            machine,
            budget,
            outboxes: BTreeMap::new(),
            read: BTreeMap::new(),
            closed: BTreeSet::new(),
            joining: None,
            settled: false,
            finished: false,
            refused: BTreeSet::new(),
        }
    }

    /// Hands an event to the job and checks the rules of its effects.
    fn event(&mut self, event: Event) {
        if let Event::Arrived(arrival) = &event
            && !self.machine.is_meant_by(arrival)
        {
            let failed = Failed::new(Reason::JobRunning, "another job is meant");
            self.outboxes.entry(arrival.connection).or_default().push(ToParty::Failed(failed));
            self.closed.insert(arrival.connection);
            self.refused.insert(arrival.connection);
            return;
        }
        for effect in self.machine.handle(event, 60, 1_700_000_000, &Hash) {
            match effect {
                Effect::Send(connection, message) => {
                    assert!(!self.closed.contains(&connection), "sent after the end");
                    assert!(!self.finished, "sent after the job");
                    self.outboxes.entry(connection).or_default().push(message);
                }
                Effect::Close(connection) => {
                    assert!(self.closed.insert(connection), "closed twice");
                    assert!(!self.finished, "closed after the job");
                }
                Effect::Await(connection) => {
                    assert!(self.closed.contains(&connection), "awaited while it is there");
                }
                Effect::Join(sets, reservations) => {
                    assert!(self.joining.replace((sets, reservations)).is_none(), "joined twice");
                }
                Effect::Expect(..) => {}
                Effect::Settled => {
                    assert!(!std::mem::replace(&mut self.settled, true), "settled twice");
                }
                Effect::Finished => {
                    assert!(!std::mem::replace(&mut self.finished, true), "finished twice");
                }
            }
        }
    }

    fn send(&mut self, connection: ConnectionId, message: FromParty) {
        self.event(Event::Message(connection, Ok(message)));
    }

    /// Runs the engine, if it has something to do.
    fn join(&mut self) {
        if let Some((sets, room)) = self.joining.take() {
            let bitmaps = engine::intersect(sets).expect("memory");
            drop(room);
            self.event(Event::Joined(bitmaps));
        }
    }

    /// The next message to a connection.
    fn receive(&mut self, connection: ConnectionId) -> Option<&ToParty> {
        let read = self.read.entry(connection).or_default();
        let message = self.outboxes.get(&connection)?.get(*read)?;
        *read += 1;
        Some(message)
    }

    /// The failure with which a connection ended.
    fn failure(&self, connection: ConnectionId) -> &Failed {
        assert!(self.closed.contains(&connection), "it goes on");
        match self.outboxes[&connection].last() {
            Some(ToParty::Failed(failed)) => failed,
            _ => panic!("it did not fail"),
        }
    }

    /// The failure with which the job ended, for all of them the same.
    fn failure_of_all(&self, players: &[Player]) -> &Failed {
        assert!(self.finished);
        let failed = self.failure(players[0].connection);
        for player in players {
            assert_eq!(self.failure(player.connection), failed);
        }
        assert!(self.budget.reserve(BUDGET).is_some(), "the memory is not given back");
        failed
    }
}

/// An honest party.
struct Player {
    connection: ConnectionId,
    name: String,
    identity: Identity,
    keys: BTreeSet<u32>,
    stage: Stage,
    ranks: Vec<u32>,
    learned: Option<(Outcome<()>, u64)>,
    bits: Vec<u8>,
    assembled: Option<Assembled>,
    offer: Option<KeyOffer>,
    /// How many messages came, and which were sent, since all had come.
    received: u64,
    sent: Vec<FromParty>,
    /// Whether it waits to hear from where to go on.
    resuming: bool,
    /// What it had read of connections that broke, and which was the last.
    heard: Vec<ToParty>,
    broken: Option<ConnectionId>,
}

enum Stage {
    Outside,
    Opening(Opening),
    Sealing(Sealing),
    Confirming(Confirming),
    Announced(Vec<Vec<u8>>),
    Uploading(Vec<Vec<u8>>),
    Waiting,
}

impl Player {
    fn new(number: u64, name: &str, keys: impl IntoIterator<Item = u32>) -> Self {
        Self {
            connection: ConnectionId(number),
            name: name.to_owned(),
            identity: Identity::generate(),
            keys: keys.into_iter().collect(),
            stage: Stage::Outside,
            ranks: Vec::new(),
            learned: None,
            bits: Vec::new(),
            assembled: None,
            offer: None,
            received: 0,
            sent: Vec::new(),
            resuming: false,
            heard: Vec::new(),
            broken: None,
        }
    }

    fn arrival(&mut self, job: &Job) -> Arrival {
        let opening = Opening::new(job, &self.name, self.identity.signing_key(), &mut os_rng());
        let offer = opening.offer();
        self.stage = Stage::Opening(opening);
        let (connection, name) = (self.connection, self.name.clone());
        self.offer = Some(offer.clone());
        (self.received, self.sent) = (0, Vec::new());
        let (spki, holders) = (self.identity.spki().to_vec(), Vec::new());
        let (received, evidence) = (None, None);
        Arrival { connection, name, spki, offer, received, evidence, holders }
    }

    /// The connection breaks, with what was under way to the party in it.
    fn breaks(&mut self, world: &mut World) {
        world.event(Event::Left(self.connection));
        let outbox = world.outboxes.get(&self.connection).map_or(&[][..], Vec::as_slice);
        let read = world.read.insert(self.connection, outbox.len()).unwrap_or_default();
        if self.broken != Some(self.connection) {
            self.heard.extend_from_slice(&outbox[..read]);
            self.broken = Some(self.connection);
        }
    }

    /// Comes back with another connection.
    fn comes_back(&mut self, world: &mut World, number: u64) {
        (self.connection, self.resuming) = (ConnectionId(number), true);
        let offer = self.offer.clone().expect("it was there before");
        let (spki, received) = (self.identity.spki().to_vec(), Some(self.received));
        let (connection, name) = (self.connection, self.name.clone());
        let (evidence, holders) = (None, Vec::new());
        let arrival = Arrival { connection, name, spki, offer, received, evidence, holders };
        world.event(Event::Arrived(arrival));
    }

    fn says(&mut self, world: &mut World, message: FromParty) {
        self.sent.push(message.clone());
        world.send(self.connection, message);
    }

    fn arrive(&mut self, world: &mut World) {
        let arrival = self.arrival(&world.job.clone());
        world.event(Event::Arrived(arrival));
    }

    /// Sends what is due, or takes the next message in; false when there is nothing to do.
    fn act(&mut self, world: &mut World) -> bool {
        if world.closed.contains(&self.connection) && !self.unread(world) {
            return false;
        }
        if let Stage::Uploading(chunks) = &mut self.stage
            && !self.resuming
        {
            let chunk = chunks.pop();
            if let Some(chunk) = chunk {
                self.says(world, FromParty::Chunk(chunk.into()));
                return true;
            }
            self.stage = Stage::Waiting;
        }
        let job = world.job.clone();
        let Some(message) = world.receive(self.connection) else { return false };
        let progress = matches!(message, ToParty::Waiting(_) | ToParty::Uploads { .. });
        if !progress && !matches!(message, ToParty::Resumed { .. }) {
            self.received += 1;
        }
        let answer = match (std::mem::replace(&mut self.stage, Stage::Waiting), message) {
            (stage, ToParty::Waiting(_) | ToParty::Uploads { .. }) => {
                self.stage = stage;
                None
            }
            (Stage::Opening(opening), ToParty::Assembled(assembled, _)) => {
                self.assembled = Some(assembled.clone());
                Some(match opening.assembled(&job, assembled, &mut os_rng()) {
                    Ok((sealing, shares)) => {
                        self.stage = Stage::Sealing(sealing);
                        FromParty::Shares(shares)
                    }
                    Err(_) => FromParty::Leave(Reason::KeyAgreement),
                })
            }
            (Stage::Sealing(sealing), ToParty::Shares(shares)) => {
                Some(match sealing.shares(shares) {
                    Ok((confirming, tag)) => {
                        self.stage = Stage::Confirming(confirming);
                        FromParty::Confirmation(tag)
                    }
                    Err(_) => FromParty::Leave(Reason::KeyAgreement),
                })
            }
            (Stage::Confirming(confirming), ToParty::Confirmations(all)) => {
                let all: Vec<_> = all
                    .iter()
                    .map(|entry| (entry.party.clone(), entry.confirmation.clone()))
                    .collect();
                Some(match confirming.confirmed(&all) {
                    Ok(key) => {
                        let set = self.set(&key);
                        let chunks = set.chunks(48).collect::<Result<Vec<_>, _>>();
                        let mut chunks = chunks.expect("in memory");
                        chunks.reverse();
                        self.stage = Stage::Announced(chunks);
                        let (keys, blake3) = (set.len() as u64, set.blake3().expect("in memory"));
                        FromParty::Announcement(Announcement { keys, blake3 })
                    }
                    Err(_) => FromParty::Leave(Reason::KeyAgreement),
                })
            }
            (Stage::Announced(chunks), ToParty::Ready) => {
                self.stage = Stage::Uploading(chunks);
                None
            }
            (stage, ToParty::Resumed { taken }) => {
                (self.stage, self.resuming) = (stage, false);
                let again = self.sent.split_off(usize::try_from(*taken).expect("it was sent"));
                for message in again {
                    self.says(world, message);
                }
                None
            }
            (_, ToParty::Outcome { kind, count, bitmap_bytes, signed }) => {
                assert_eq!(signed.signature, Hash.sign(&signed.statement));
                let statement = Statement::decode(&signed.statement).unwrap();
                assert_eq!(statement.told.kind, *kind);
                assert_eq!(statement.told.count, *count);
                self.check(&statement, &job);
                self.learned = Some((kind.outcome((), *count), *bitmap_bytes));
                self.has_all().then_some(FromParty::Received)
            }
            (_, ToParty::Bitmap(bits)) => {
                self.bits.extend_from_slice(bits);
                self.has_all().then_some(FromParty::Received)
            }
            (_, ToParty::Failed(_)) => None,
            _ => panic!("a message arrived out of turn"),
        };
        if let Some(answer) = answer {
            self.says(world, answer);
        }
        true
    }

    /// Whether the whole result has come.
    fn has_all(&self) -> bool {
        self.learned.is_some_and(|(_, bytes)| self.bits.len() as u64 == bytes)
    }

    fn unread(&self, world: &World) -> bool {
        let read = world.read.get(&self.connection).copied().unwrap_or(0);
        world.outboxes.get(&self.connection).is_some_and(|outbox| outbox.len() > read)
    }

    /// The set under the job key; notes which key has which rank.
    fn set(&mut self, key: &JobKey) -> PseudonymSet {
        let pseudonymiser = key.pseudonymiser();
        let mut ranked: Vec<_> = self
            .keys
            .iter()
            .map(|key| (pseudonymiser.pseudonym(&key.to_be_bytes()), *key))
            .collect();
        ranked.sort_unstable();
        self.ranks = ranked.iter().map(|(_, key)| *key).collect();
        let mut builder = SetBuilder::new();
        for (row, (pseudonym, _)) in (0..).zip(ranked) {
            builder.push(pseudonym, row).expect("in memory");
        }
        builder.finish().expect("in memory")
    }

    fn check(&self, statement: &Statement, job: &Job) {
        assert_eq!(statement.job, job.digest());
        assert_eq!(statement.party, self.name);
        assert_eq!(statement.party_key, KeyId::of_spki(self.identity.spki()));
        let assembled = self.assembled.as_ref().expect("all had come");
        let members = assembled.members.iter();
        let members = members.map(|member| (&*member.name, KeyId::of_spki(&member.spki)));
        assert!(statement.members().eq(members));
        assert_eq!(statement.transcript, Some(assembled.transcript(job.digest())));
        assert_eq!(statement.keys, self.keys.len() as u64);
        assert_eq!(statement.finished_at, 1_700_000_000);
    }

    /// The keys in the bitmap that arrived.
    fn matched(&self) -> BTreeSet<u32> {
        let Some((Outcome::Intersection(()), bitmap_bytes)) = self.learned else {
            panic!("no intersection arrived")
        };
        assert_eq!(bitmap_bytes, self.bits.len() as u64);
        let bitmap = Bitmap::from_bytes(self.ranks.len(), self.bits.clone()).unwrap();
        let ranks = self.ranks.iter().enumerate();
        ranks.filter(|(rank, _)| bitmap.is_set(*rank)).map(|(_, key)| *key).collect()
    }
}

/// The phases of a job whose parties are all there.
const RUNNING: [Phase; 5] =
    [Phase::Sharing, Phase::Confirming, Phase::Announcing, Phase::Uploading, Phase::Joining];

fn unpinned(parties: usize) -> Job {
    Job::unpinned("test", parties, 1000, 60, terms::Service::default()).expect("valid")
}

fn named(players: &[Player]) -> Job {
    named_with(players, |_| {})
}

/// A job of these players, with a change to its terms.
fn named_with(players: &[Player], change: impl FnOnce(&mut Terms)) -> Job {
    let parties = players.iter().map(|player| Party {
        name: player.name.clone(),
        key: KeyId::of_spki(player.identity.spki()),
        maximum_keys: None,
        address: None,
    });
    let mut terms = unpinned(players.len()).terms();
    terms.parties = Parties::Named(parties.collect());
    terms.service.as_mut().unwrap().policy = "{}".parse().ok();
    change(&mut terms);
    terms.try_into().expect("valid")
}

/// Parties of which each has its own keys, and all have 0, 1 and 2.
fn players(count: u32) -> Vec<Player> {
    let keys = |index: u32| (0..3).chain(100 * (index + 1)..100 * (index + 1) + index * 7);
    (0..count).map(|index| Player::new(index.into(), NAMES[index as usize], keys(index))).collect()
}

fn arrive_all(world: &mut World, players: &mut [Player]) {
    for player in players {
        player.arrive(world);
    }
}

/// Lets everybody act until nobody has anything to do.
fn play(world: &mut World, players: &mut [Player]) {
    let mut acted = true;
    while acted {
        acted = false;
        for player in players.iter_mut() {
            acted |= player.act(world);
        }
    }
}

/// Lets everybody act until the job is in this phase.
fn play_to(world: &mut World, players: &mut [Player], phase: Phase) {
    while world.machine.phase != phase {
        if phase == Phase::Settled {
            world.join();
        }
        let acted =
            players.iter_mut().any(|player| world.machine.phase != phase && player.act(world));
        assert!(acted || world.machine.phase == phase, "the phase is never reached");
    }
}

fn world_in(phase: Phase, count: u32) -> (World, Vec<Player>) {
    let mut players = players(count);
    let mut world = World::new(named(&players));
    arrive_all(&mut world, &mut players);
    play_to(&mut world, &mut players, phase);
    (world, players)
}

/// Runs an honest job to its end.
fn run(mut world: World, players: &mut [Player]) {
    arrive_all(&mut world, players);
    play(&mut world, players);
    world.join();
    play(&mut world, players);
    assert!(world.finished);
    assert!(players.iter().all(|player| world.closed.contains(&player.connection)));
    assert!(world.budget.reserve(BUDGET).is_some(), "the memory is not given back");
}

#[test]
fn every_party_learns_the_intersection() {
    for count in [2, 5] {
        for pinned in [true, false] {
            let mut players = players(count);
            let job = if pinned { named(&players) } else { unpinned(players.len()) };
            run(World::new(job), &mut players);
            for player in &players {
                assert_eq!(player.matched(), BTreeSet::from([0, 1, 2]), "{}", player.name);
            }
        }
    }
}

#[test]
fn empty_sets_are_ordinary() {
    let mut players: Vec<_> = vec![Player::new(0, "alice", []), Player::new(1, "bob", 0..9)];
    run(World::new(unpinned(2)), &mut players);
    assert!(players.iter().all(|player| player.matched().is_empty()));
}

#[test]
fn a_count_goes_to_whom_the_job_names() {
    let mut players = players(3);
    let reveal = Reveal { what: What::Count, to: vec!["bob".to_owned()], minimum: 0 };
    let job = named_with(&players, |terms| terms.reveal = reveal);
    run(World::new(job), &mut players);
    assert!(players[1].learned == Some((Outcome::Count(3), 0)));
    for player in [&players[0], &players[2]] {
        assert!(player.learned == Some((Outcome::Nothing, 0)));
        assert!(player.bits.is_empty());
    }
}

#[test]
fn a_small_result_is_withheld_from_everybody() {
    let mut players = players(3);
    let reveal = Reveal { what: What::Intersection, to: Vec::new(), minimum: 4 };
    let job = named_with(&players, |terms| terms.reveal = reveal);
    run(World::new(job), &mut players);
    for player in players {
        let bitmap_bytes = player.keys.len().div_ceil(8) as u64;
        assert!(player.learned == Some((Outcome::Withheld, bitmap_bytes)));
        assert!(player.bits.iter().all(|byte| *byte == 0));
    }
}

/// What goes to each connection, in lengths.
#[test]
fn withheld_result_in_the_length_of_the_reply() {
    for what in [What::Intersection, What::Count] {
        let lengths = [0, 4].map(|minimum| {
            let mut players = players(3);
            let reveal = Reveal { what, to: vec!["bob".to_owned()], minimum };
            let job = named_with(&players, |terms| terms.reveal = reveal);
            let mut world = World::new(job);
            arrive_all(&mut world, &mut players);
            play(&mut world, &mut players);
            world.join();
            // Signatures over offers and confirmations differ in length, before the result.
            let lengths = |messages: Vec<ToParty>| {
                let from = messages.len() - 2;
                let last = messages.into_iter().skip(from);
                last.map(|message| wire::proto::ToParty::from(message).encoded_len())
                    .collect::<Vec<_>>()
            };
            world.outboxes.into_values().map(lengths).collect::<Vec<_>>()
        });
        assert_eq!(lengths[0], lengths[1]);
    }
}

#[test]
fn the_waiting_hear_whom_they_wait_for() {
    let mut players = players(3);
    let mut world = World::new(named(&players));
    players[1].arrive(&mut world);
    let Some(ToParty::Waiting(waiting)) = world.receive(ConnectionId(1)) else { panic!() };
    assert_eq!(waiting.present, ["bob"]);
    assert_eq!(waiting.missing, ["alice", "carol"]);
    assert_eq!((waiting.missing_count, waiting.seconds_left), (2, 60));
    players[0].arrive(&mut world);
    for connection in [ConnectionId(0), ConnectionId(1)] {
        let Some(ToParty::Waiting(waiting)) = world.receive(connection) else { panic!() };
        assert_eq!(waiting.missing, ["carol"]);
    }

    let mut world = World::new(unpinned(3));
    players[1].arrive(&mut world);
    world.read.clear();
    let Some(ToParty::Waiting(waiting)) = world.receive(ConnectionId(1)) else { panic!() };
    assert!(waiting.missing.is_empty());
    assert_eq!(waiting.missing_count, 2);
}

#[test]
fn a_party_that_leaves_before_all_are_there_may_come_back() {
    for says_so in [true, false] {
        let mut players = players(3);
        let mut world = World::new(named(&players));
        players[0].arrive(&mut world);
        players[1].arrive(&mut world);
        if says_so {
            world.send(ConnectionId(1), FromParty::Leave(Reason::Stopped));
        } else {
            world.event(Event::Left(ConnectionId(1)));
        }
        assert!(world.closed.contains(&ConnectionId(1)));
        let Some(ToParty::Waiting(waiting)) = world.outboxes[&ConnectionId(0)].last() else {
            panic!()
        };
        assert_eq!(waiting.missing, ["bob", "carol"]);
        players[1].connection = ConnectionId(11);
        players[1].arrive(&mut world);
        players[2].arrive(&mut world);
        finish(&mut world, &mut players);
    }
}

#[test]
fn a_job_that_everybody_left_is_over() {
    let mut players = players(3);
    let mut world = World::new(named(&players));
    players[0].arrive(&mut world);
    players[1].arrive(&mut world);
    world.event(Event::Left(ConnectionId(0)));
    assert!(!world.finished);
    world.event(Event::Left(ConnectionId(1)));
    assert!(world.finished && world.closed.len() == 2);
}

/// Plays a job of honest parties, who are all there, to its result.
fn finish(world: &mut World, players: &mut [Player]) {
    play(world, players);
    world.join();
    play(world, players);
    assert!(players.iter().all(|player| player.matched() == BTreeSet::from([0, 1, 2])));
}

#[test]
fn a_newer_connection_of_a_waiting_party_takes_over() {
    let mut players = players(2);
    let mut world = World::new(named(&players));
    players[0].arrive(&mut world);
    players[0].connection = ConnectionId(10);
    players[0].arrive(&mut world);
    let replaced = world.failure(ConnectionId(0));
    assert_eq!(replaced.reason, Reason::Replaced);
    assert!(replaced.explanation.contains("'alice'"), "{replaced}");
    // What still comes from the old connection is of no account.
    world.event(Event::Left(ConnectionId(0)));
    world.send(ConnectionId(0), FromParty::Leave(Reason::Stopped));
    world.send(ConnectionId(0), FromParty::Chunk(vec![0; 16].into()));
    assert!(!world.finished);
    players[1].arrive(&mut world);
    finish(&mut world, &mut players);
}

/// Somebody arrives who is refused; the job goes on to its end as if nothing had happened.
fn refused(phase: Phase, mut newcomer: Player, key_of: Option<usize>) -> Failed {
    let mut players = players(3);
    let mut world = World::new(unpinned(3));
    if phase == Phase::Gathering {
        players[0].arrive(&mut world);
        players[1].arrive(&mut world);
    } else {
        arrive_all(&mut world, &mut players);
        play_to(&mut world, &mut players, phase);
    }
    if let Some(index) = key_of {
        newcomer.identity = players[index].identity.clone();
    }
    newcomer.arrive(&mut world);
    let failed = world.failure(newcomer.connection).clone();
    assert_eq!(world.outboxes[&newcomer.connection].len(), 1);
    if phase == Phase::Gathering {
        players[2].arrive(&mut world);
    }
    finish(&mut world, &mut players);
    failed
}

#[test]
fn another_key_cannot_take_a_name() {
    for phase in [Phase::Gathering, Phase::Sharing, Phase::Confirming, Phase::Uploading] {
        let failed = refused(phase, Player::new(9, "bob", []), None);
        assert_eq!(failed.reason, Reason::NameTaken);
        assert!(failed.explanation.starts_with("another key already takes part as 'bob'"));
    }
}

#[test]
fn one_key_cannot_take_two_names() {
    let failed = refused(Phase::Gathering, Player::new(9, "mallory", []), Some(1));
    assert_eq!(failed.reason, Reason::NameTaken);
    assert!(failed.explanation.contains("already takes part as 'bob'"), "{failed}");
}

#[test]
fn a_party_cannot_join_a_running_job_again() {
    for phase in RUNNING {
        let failed = refused(phase, Player::new(9, "bob", []), Some(1));
        assert_eq!(failed.reason, Reason::JobRunning);
        assert!(failed.explanation.contains("the connection it has goes on"), "{failed}");
    }
}

#[test]
fn one_more_than_the_job_has_seats() {
    for phase in RUNNING {
        let failed = refused(phase, Player::new(9, "mallory", []), None);
        assert_eq!(failed.reason, Reason::JobRunning);
        assert!(failed.explanation.starts_with("all 3 seats of this job are taken"), "{failed}");
    }
}

#[test]
fn whoever_comes_anew_after_the_end_means_another_job() {
    let (mut world, mut players) = world_in(Phase::Joining, 2);
    world.join();
    let again = Player::new(9, "alice", []).arrival(&world.job);
    assert!(!world.machine.is_meant_by(&again));
    play(&mut world, &mut players);
    assert!(world.finished && !world.machine.is_meant_by(&again));
}

#[test]
fn who_goes_on_finds_its_own_seat_and_no_other() {
    for phase in RUNNING.into_iter().chain([Phase::Settled]) {
        let (mut world, mut players) = world_in(phase, 3);
        players[1].breaks(&mut world);
        let back = |player: &mut Player| {
            let (offer, received) = (player.offer.clone(), Some(player.received.max(1)));
            let mut arrival = player.arrival(&world.job.clone());
            arrival.received = received;
            arrival.offer = offer.unwrap_or(arrival.offer);
            arrival
        };
        assert!(world.machine.is_meant_by(&back(&mut players[1])));
        // Another program of the party, another key, another job.
        let mut arrival = back(&mut players[1]);
        arrival.offer = offer(7);
        assert!(!world.machine.is_meant_by(&arrival));
        let mut arrival = back(&mut players[1]);
        arrival.spki = Identity::generate().spki().to_vec();
        assert!(!world.machine.is_meant_by(&arrival));
        assert!(!World::new(world.job.clone()).machine.is_meant_by(&back(&mut players[1])));
    }
}

#[test]
fn a_connection_that_breaks_is_followed_by_another() {
    for phase in RUNNING.into_iter().chain([Phase::Settled]) {
        // What was under way is lost, or was read; the service noticed, or did not.
        for case in 0..4 {
            let (read, noticed) = (case % 2 == 0, case / 2 == 0);
            let (mut world, mut players) = world_in(phase, 3);
            if read {
                players[1].act(&mut world);
            }
            let broken = players[1].connection;
            if noticed {
                players[1].breaks(&mut world);
            }
            players[1].comes_back(&mut world, 11);
            assert!(world.closed.contains(&broken));
            // What still comes of the old connection is of no account.
            world.send(broken, FromParty::Leave(Reason::Stopped));
            world.event(Event::Lost(broken));
            finish(&mut world, &mut players);
            assert!(world.finished);
        }
    }
}

#[test]
fn a_connection_that_breaks_again_and_again() {
    let (mut world, mut players) = world_in(Phase::Sharing, 3);
    let mut number = 100;
    while !world.finished {
        for player in &mut players {
            if world.closed.contains(&player.connection) && world.settled {
                continue;
            }
            player.breaks(&mut world);
            number += 1;
            player.comes_back(&mut world, number);
            // Resumed, and one message more.
            player.act(&mut world);
            player.act(&mut world);
        }
        world.join();
        assert!(number < 1000, "it does not come further");
    }
    assert!(players.iter().all(|player| player.matched() == BTreeSet::from([0, 1, 2])));
}

#[test]
fn a_party_that_does_not_come_back_is_named() {
    for phase in RUNNING {
        let (mut world, mut players) = world_in(phase, 3);
        drop(world.joining.take());
        let broken = players.remove(1).connection;
        world.event(Event::Left(broken));
        assert!(!world.settled);
        world.event(Event::Lost(broken));
        let failed = world.failure_of_all(&players);
        assert_eq!((failed.reason, failed.party.as_deref()), (Reason::ConnectionLost, Some("bob")));
        let text = "'bob' left the job: its connection broke, and it did not come back in time; \
                    nothing of the job is kept";
        assert_eq!(failed.explanation, text);
    }
}

#[test]
fn a_party_whose_program_was_started_anew_is_not_waited_for() {
    for phase in RUNNING {
        let (mut world, mut players) = world_in(phase, 3);
        drop(world.joining.take());
        players[1].breaks(&mut world);
        let mut anew = Player::new(9, "bob", []);
        anew.identity = players[1].identity.clone();
        anew.arrive(&mut world);
        players[1] = anew;
        let failed = world.failure_of_all(&players);
        assert_eq!((failed.reason, failed.party.as_deref()), (Reason::ConnectionLost, Some("bob")));
        assert!(failed.explanation.contains("was restarted"), "{failed}");
    }
}

#[test]
fn who_was_cut_off_when_the_job_failed_is_told_when_it_comes_back() {
    for phase in RUNNING {
        let (mut world, mut players) = world_in(phase, 3);
        drop(world.joining.take());
        players[1].breaks(&mut world);
        world.send(ConnectionId(2), FromParty::Leave(Reason::Table));
        assert!(world.settled && !world.finished);
        players[1].comes_back(&mut world, 11);
        let failed = world.failure_of_all(&players);
        assert_eq!((failed.reason, failed.party.as_deref()), (Reason::Table, Some("carol")));
    }
}

/// It has received nothing yet, so it may be one that still waits; but its seat is another program's.
#[test]
fn who_goes_on_from_the_beginning_while_another_program_of_the_party_takes_part() {
    for phase in RUNNING {
        let (mut world, mut players) = world_in(phase, 3);
        let mut arrival = Player::new(9, "bob", []).arrival(&world.job);
        arrival.spki = players[1].identity.spki().to_vec();
        arrival.received = Some(0);
        world.event(Event::Arrived(arrival));
        assert!(!world.refused.contains(&ConnectionId(9)), "no job would be meant");
        let failed = world.failure(ConnectionId(9));
        assert_eq!(failed.reason, Reason::JobRunning);
        assert!(failed.explanation.contains("the connection it has goes on"), "{failed}");
        finish(&mut world, &mut players);
    }
}

#[test]
fn nobody_claims_more_than_was_sent() {
    let (mut world, mut players) = world_in(Phase::Uploading, 3);
    players[1].breaks(&mut world);
    players[1].received += 100;
    players[1].comes_back(&mut world, 11);
    assert_eq!(world.failure(ConnectionId(11)).reason, Reason::Protocol);
    players[1].received -= 100;
    players[1].comes_back(&mut world, 12);
    finish(&mut world, &mut players);
}

#[test]
fn a_malformed_message_of_a_waiting_party_costs_the_others_nothing() {
    let mut players = players(3);
    let mut world = World::new(named(&players));
    players[0].arrive(&mut world);
    players[1].arrive(&mut world);
    world.send(ConnectionId(1), FromParty::Chunk(vec![0; 16].into()));
    let failed = world.failure(ConnectionId(1));
    assert_eq!((failed.reason, failed.party.as_deref()), (Reason::Protocol, Some("bob")));
    assert!(!world.finished && !world.closed.contains(&ConnectionId(0)));
    players[1].connection = ConnectionId(10);
    players[1].arrive(&mut world);
    world.event(Event::Message(ConnectionId(10), Err(wire::WireError::Unknown)));
    assert_eq!(world.failure(ConnectionId(10)).reason, Reason::Protocol);
    assert!(!world.finished && !world.closed.contains(&ConnectionId(0)));
}

#[test]
fn deadline_tells_who_is_missing() {
    let mut players = players(3);
    let mut world = World::new(named(&players));
    players[1].arrive(&mut world);
    world.event(Event::Deadline);
    let failed = world.failure_of_all(&players[1..2]);
    assert_eq!(failed.reason, Reason::Deadline);
    let text = "the job's deadline of 60 s passed while waiting for 'alice', 'carol'";
    assert_eq!(failed.explanation, text);

    let mut world = World::new(unpinned(3));
    players[1].arrive(&mut world);
    world.event(Event::Deadline);
    let text = "the job's deadline of 60 s passed while waiting for 2 of 3 parties";
    assert_eq!(world.failure(ConnectionId(1)).explanation, text);
}

#[test]
fn deadline_tells_who_is_late() {
    for phase in [Phase::Sharing, Phase::Confirming, Phase::Uploading] {
        let (mut world, players) = world_in(phase, 3);
        world.event(Event::Deadline);
        let failed = world.failure_of_all(&players);
        let text = "the job's deadline of 60 s passed; 'alice', 'bob', 'carol' were late";
        assert_eq!((failed.reason, failed.explanation.as_str()), (Reason::Deadline, text));

        let (mut world, mut players) = world_in(phase, 3);
        // Everybody but bob does what the phase asks for.
        while players[0].act(&mut world) || players[2].act(&mut world) {}
        assert!(world.machine.phase == phase);
        world.event(Event::Deadline);
        let failed = world.failure_of_all(&players);
        let text = "the job's deadline of 60 s passed; 'bob' was late";
        assert_eq!((failed.reason, failed.explanation.as_str()), (Reason::Deadline, text));
    }

    let (mut world, players) = world_in(Phase::Joining, 3);
    drop(world.joining.take());
    world.event(Event::Deadline);
    let text = "the job's deadline of 60 s passed before the join was done";
    assert_eq!(world.failure_of_all(&players).explanation, text);
}

#[test]
fn a_party_that_leaves_a_running_job_is_named() {
    let cases = [
        (Reason::Stopped, "it was stopped"),
        (Reason::Table, "it could not read its table"),
        (Reason::OverCap, "its set is larger than the job allows"),
        (Reason::KeyAgreement, "it refused the keys it was shown for the other parties"),
    ];
    for phase in RUNNING {
        for (reason, why) in cases {
            let (mut world, players) = world_in(phase, 3);
            drop(world.joining.take());
            world.send(ConnectionId(1), FromParty::Leave(reason));
            let failed = world.failure_of_all(&players);
            assert_eq!((failed.reason, failed.party.as_deref()), (reason, Some("bob")));
            let text = format!("'bob' left the job: {why}; nothing of the job is kept");
            assert_eq!(failed.explanation, text);
        }
    }
}

#[test]
fn a_party_that_leaves_cannot_speak_for_the_service() {
    for claimed in [Reason::Attestation, Reason::InvalidJob, Reason::Shutdown, Reason::Internal] {
        let (mut world, players) = world_in(Phase::Uploading, 2);
        world.send(ConnectionId(1), FromParty::Leave(claimed));
        let failed = world.failure_of_all(&players);
        assert_eq!(failed.reason, Reason::Stopped, "{claimed:?}");
        assert!(failed.explanation.starts_with("'bob' left the job: it gave up"), "{failed}");
    }
}

#[test]
fn shutdown_tells_everybody() {
    for phase in RUNNING {
        let (mut world, players) = world_in(phase, 3);
        drop(world.joining.take());
        world.event(Event::Shutdown);
        assert_eq!(world.failure_of_all(&players).reason, Reason::Shutdown);
    }
}

#[test]
fn a_failed_engine_is_a_failure_of_the_service() {
    let (mut world, players) = world_in(Phase::Joining, 3);
    drop(world.joining.take());
    world.event(Event::JoinFailed);
    let failed = world.failure_of_all(&players);
    assert_eq!((failed.reason, failed.party.as_deref()), (Reason::Internal, None));
}

#[test]
fn the_result_of_a_job_that_failed_meanwhile_goes_nowhere() {
    let (mut world, mut players) = world_in(Phase::Joining, 3);
    players.pop();
    world.event(Event::Left(ConnectionId(2)));
    world.event(Event::Lost(ConnectionId(2)));
    assert!(world.budget.reserve(BUDGET).is_none(), "the engine still holds its sets");
    world.join();
    assert_eq!(world.failure_of_all(&players).reason, Reason::ConnectionLost);
}

/// A message of bob's that ends the job for all, with what is said of it.
fn ends(phase: Phase, message: FromParty, what: &str) {
    let (mut world, players) = world_in(phase, 3);
    drop(world.joining.take());
    world.send(ConnectionId(1), message);
    let failed = world.failure_of_all(&players);
    assert_eq!((failed.reason, failed.party.as_deref()), (Reason::Protocol, Some("bob")));
    assert!(failed.explanation.contains(what), "{failed}; expected: {what}");
}

fn share(from: &str, to: &str) -> SealedShare {
    SealedShare { from: from.to_owned(), to: to.to_owned(), sealed: vec![0; 80] }
}

fn hello() -> FromParty {
    let (job, software) = (unpinned(2).canonical().to_owned().into(), String::new());
    FromParty::Hello(wire::Hello {
        job,
        party: "bob".to_owned(),
        offer: offer(0),
        software,
        received: None,
        evidence: None,
    })
}

fn offer(number: u8) -> KeyOffer {
    KeyOffer { one_time_key: Box::new([number; ONE_TIME_KEY_BYTES]), signature: Vec::new() }
}

fn no_confirmation() -> Confirmation {
    Confirmation { tag: [0; 32], signature: Vec::new() }
}

fn announcement(keys: u64) -> FromParty {
    FromParty::Announcement(Announcement { keys, blake3: [0; 32] })
}

#[test]
fn messages_out_of_turn() {
    for phase in RUNNING {
        let shares = FromParty::Shares(Vec::new());
        let confirmation = FromParty::Confirmation(no_confirmation());
        let chunk = FromParty::Chunk(vec![0; 16].into());
        for (message, what, due) in [
            (shares, "shares", Some(Phase::Sharing)),
            (confirmation, "a confirmation", Some(Phase::Confirming)),
            (announcement(1), "an announcement", Some(Phase::Announcing)),
            (chunk, "a chunk", Some(Phase::Uploading)),
            (hello(), "a second Hello", None),
        ] {
            if due != Some(phase) {
                ends(phase, message, &format!("{what} arrived"));
            }
        }
    }
}

#[test]
fn shares_that_are_not_one_for_each_other() {
    let what = "it did not send exactly one share of its own for each other party";
    for shares in [
        vec![],
        vec![share("bob", "alice")],
        vec![share("bob", "alice"), share("bob", "alice")],
        vec![share("bob", "alice"), share("bob", "bob")],
        vec![share("bob", "alice"), share("bob", "mallory")],
        vec![share("alice", "bob"), share("alice", "carol")],
        vec![share("bob", "alice"), share("alice", "carol")],
        vec![share("bob", "alice"), share("bob", "carol"), share("bob", "carol")],
    ] {
        ends(Phase::Sharing, FromParty::Shares(shares), what);
    }
}

#[test]
fn what_is_sent_twice() {
    let shares = || FromParty::Shares(vec![share("bob", "carol"), share("bob", "alice")]);
    let (mut world, players) = world_in(Phase::Sharing, 3);
    world.send(ConnectionId(1), shares());
    world.send(ConnectionId(1), shares());
    assert!(world.failure_of_all(&players).explanation.contains("shares arrived twice"));

    let (mut world, players) = world_in(Phase::Confirming, 3);
    let confirmation = || FromParty::Confirmation(no_confirmation());
    world.send(ConnectionId(1), confirmation());
    world.send(ConnectionId(1), confirmation());
    assert!(world.failure_of_all(&players).explanation.contains("a confirmation arrived twice"));

    let (mut world, players) = world_in(Phase::Announcing, 3);
    world.send(ConnectionId(1), announcement(5));
    world.send(ConnectionId(1), announcement(5));
    assert!(world.failure_of_all(&players).explanation.contains("an announcement arrived twice"));
}

#[test]
fn uploads_that_are_not_what_was_announced() {
    let chunk = |bytes: &[u8]| FromParty::Chunk(bytes.to_vec().into());
    let after_announcement = |keys, bytes: &[u8], what: &str| {
        let (mut world, mut players) = world_in(Phase::Announcing, 3);
        world.send(ConnectionId(1), announcement(keys));
        play_to(&mut world, &mut [players.remove(0), players.remove(1)], Phase::Uploading);
        world.send(ConnectionId(1), chunk(bytes));
        let failed = world.failure_of_all(&players);
        assert_eq!((failed.reason, failed.party.as_deref()), (Reason::Protocol, Some("bob")));
        assert!(failed.explanation.contains(what), "{failed}; expected: {what}");
    };
    after_announcement(1, &[0; 16], "the BLAKE3 it announced");
    after_announcement(1, &[0; 32], "at least 2 pseudonyms arrived, expected 1");
    after_announcement(2, &[0; 32], "not strictly ascending");
    after_announcement(2, &[0; 15], "a chunk of 15 bytes arrived");
    after_announcement(2, &[], "a chunk of 0 bytes arrived");

    // More of it after the end.
    let (mut world, mut players) = world_in(Phase::Uploading, 3);
    while players[1].act(&mut world) {}
    assert!(matches!(world.machine.seats["bob"].upload, Upload::Complete(_)));
    world.send(ConnectionId(1), chunk(&[0; 16]));
    assert!(world.failure_of_all(&players).explanation.contains("after the end"));
}

#[test]
fn a_set_over_the_cap_is_named_and_not_numbered() {
    let mut players = players(3);
    let mut world = World::new(named_with(&players, |terms| {
        let Parties::Named(parties) = &mut terms.parties else { panic!() };
        parties[1].maximum_keys = Some(10);
    }));
    arrive_all(&mut world, &mut players);
    play_to(&mut world, &mut players, Phase::Announcing);
    // The others may send as many as the job allows.
    world.send(ConnectionId(0), announcement(1000));
    assert!(!world.finished);
    world.send(ConnectionId(1), announcement(834_759));
    let failed = world.failure_of_all(&players);
    assert_eq!((failed.reason, failed.party.as_deref()), (Reason::OverCap, Some("bob")));
    assert!(failed.explanation.contains("'bob'") && failed.explanation.contains("10 keys"));
    let digits = |text: &str| text.contains("834759") || text.contains("834_759");
    assert!(!digits(&failed.explanation), "{failed}");
}

#[test]
fn a_set_at_the_cap_is_taken() {
    let (mut world, _) = world_in(Phase::Announcing, 2);
    world.send(ConnectionId(1), announcement(1000));
    assert!(!world.finished);
}

#[test]
fn no_room_is_nobodys_fault_and_nothing_is_uploaded() {
    let (mut world, players) = world_in(Phase::Announcing, 3);
    let others = world.budget.reserve(BUDGET - 2 * engine::memory(1, 3)).expect("it is all there");
    for connection in [0, 1] {
        world.send(ConnectionId(connection), announcement(1));
        assert!(!world.finished);
    }
    world.send(ConnectionId(2), announcement(500));
    drop(others);
    let failed = world.failure_of_all(&players);
    assert_eq!((failed.reason, failed.party.as_deref()), (Reason::NoRoom, None));
    assert!(failed.explanation.contains("up to 1 MiB"), "{failed}");
    assert!(failed.explanation.contains("run the job again later"), "{failed}");
}

#[test]
fn a_job_that_can_never_fit_is_told_what_it_takes() {
    let mut players = players(2);
    let job = named_with(&players, |terms| terms.maximum_keys = MAXIMUM_KEYS);
    let mut world = World::new(job);
    arrive_all(&mut world, &mut players);
    play_to(&mut world, &mut players, Phase::Announcing);
    world.send(ConnectionId(0), announcement(1));
    // A key takes eighteen bytes and a half.
    world.send(ConnectionId(1), announcement(BUDGET / 12));
    let failed = world.failure_of_all(&players);
    assert_eq!((failed.reason, failed.party.as_deref()), (Reason::NoRoom, None));
    let needed = engine::memory(BUDGET / 12, 2) + engine::memory(1, 2);
    let words = format!("may use {} MiB", needed.next_power_of_two() >> 20);
    assert!(failed.explanation.contains(&words), "{failed}; expected: {words}");
}

#[test]
fn a_declared_size_cannot_overflow_the_budget() {
    let mut players = players(2);
    let job = named_with(&players, |terms| terms.maximum_keys = MAXIMUM_KEYS);
    let mut world = World::new(job.clone());
    arrive_all(&mut world, &mut players);
    play_to(&mut world, &mut players, Phase::Announcing);
    world.send(ConnectionId(0), announcement(MAXIMUM_KEYS));
    world.send(ConnectionId(1), announcement(MAXIMUM_KEYS));
    assert_eq!(world.failure_of_all(&players).reason, Reason::NoRoom);
    let mut world = World::new(job);
    arrive_all(&mut world, &mut players);
    play_to(&mut world, &mut players, Phase::Announcing);
    world.send(ConnectionId(0), announcement(u64::MAX));
    assert_eq!(world.failure_of_all(&players).reason, Reason::OverCap);
}

#[test]
fn a_relay_that_swaps_an_offer_is_noticed_by_the_parties() {
    let mut players = players(2);
    let mut world = World::new(named(&players));
    let mut arrival = players[0].arrival(&world.job.clone());
    arrival.offer = offer(7);
    world.event(Event::Arrived(arrival));
    players[1].arrive(&mut world);
    let job = world.job.clone();
    let Some(ToParty::Assembled(assembled, _)) = world.receive(ConnectionId(1)) else { panic!() };
    let Stage::Opening(opening) = std::mem::replace(&mut players[1].stage, Stage::Waiting) else {
        panic!()
    };
    assert!(opening.assembled(&job, assembled, &mut os_rng()).is_err());
}

/// What may happen to a job, in any order.
#[derive(Clone, Debug)]
enum Happening {
    /// A new connection asks for a seat, under one of five names with one of five keys.
    Arrives {
        name: usize,
        key: usize,
    },
    /// One of the connections does what an honest party does next.
    Acts(prop::sample::Index),
    /// One of the connections sends something out of turn.
    Sends(prop::sample::Index, u8),
    /// One of the connections breaks.
    Breaks(prop::sample::Index),
    /// One of the parties whose connection broke comes back, or has had its time.
    ComesBack(prop::sample::Index),
    IsLost(prop::sample::Index),
    /// The engine is done, if it runs.
    Joined,
    /// The engine reports without having been asked.
    JoinedUnasked,
    JoinFailed,
    Deadline,
    Shutdown,
}

fn happening() -> impl Strategy<Value = Happening> {
    let connection = any::<prop::sample::Index>;
    prop_oneof![
        60 => (0..5usize, 0..5usize, prop::bool::weighted(0.8)).prop_map(|(name, key, own)| {
            Happening::Arrives { name, key: if own { name } else { key } }
        }),
        400 => connection().prop_map(Happening::Acts),
        2 => (connection(), 0..9u8).prop_map(|(at, kind)| Happening::Sends(at, kind)),
        8 => connection().prop_map(Happening::Breaks),
        8 => connection().prop_map(Happening::ComesBack),
        1 => connection().prop_map(Happening::IsLost),
        20 => Just(Happening::Joined),
        1 => Just(Happening::JoinedUnasked),
        1 => Just(Happening::JoinFailed),
        1 => Just(Happening::Deadline),
        1 => Just(Happening::Shutdown),
    ]
}

fn out_of_turn(kind: u8) -> Result<FromParty, wire::WireError> {
    Ok(match kind {
        0 => FromParty::Shares(Vec::new()),
        1 => FromParty::Confirmation(no_confirmation()),
        2 => announcement(1),
        3 => announcement(0),
        4 => FromParty::Chunk(vec![0; 16].into()),
        5 => FromParty::Leave(Reason::Table),
        6 => hello(),
        7 => announcement(u64::MAX),
        _ => return Err(wire::WireError::Unknown),
    })
}

/// How a connection's stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Outcome,
    Failed(Reason),
    /// It left while others were still awaited.
    Silent,
}

fn end(world: &World, player: &Player) -> End {
    let outbox = world.outboxes.get(&player.connection).map_or(&[][..], Vec::as_slice);
    let mut bits = None;
    for message in player.heard.iter().chain(outbox) {
        match message {
            ToParty::Outcome { bitmap_bytes, .. } => bits = Some(*bitmap_bytes),
            ToParty::Bitmap(piece) => {
                bits = bits.and_then(|left| left.checked_sub(piece.len() as u64));
            }
            _ => {}
        }
    }
    match (outbox.last(), bits) {
        (Some(ToParty::Failed(failed)), None) => End::Failed(failed.reason),
        (_, Some(0)) => End::Outcome,
        (_, None) => End::Silent,
        _ => panic!("an incomplete outcome"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_order_of_honest_messages_ends_in_the_result(
        count in 2..=5u32,
        turns in proptest::collection::vec(any::<prop::sample::Index>(), 0..200),
    ) {
        let mut players = players(count);
        let mut world = World::new(named(&players));
        let mut outside: Vec<usize> = (0..players.len()).collect();
        for turn in turns {
            let index = turn.index(players.len());
            if let Some(position) = outside.iter().position(|other| *other == index) {
                outside.swap_remove(position);
                players[index].arrive(&mut world);
            } else {
                players[index].act(&mut world);
            }
        }
        for index in outside {
            players[index].arrive(&mut world);
        }
        finish(&mut world, &mut players);
        prop_assert!(world.finished);
        prop_assert!(world.budget.reserve(BUDGET).is_some());
    }

    #[test]
    fn whatever_happens_every_party_hears_the_end(
        parties in 2..=4usize,
        happenings in proptest::collection::vec(happening(), 0..250),
    ) {
        let identities: Vec<Identity> = NAMES.iter().map(|_| Identity::generate()).collect();
        let mut world = World::new(unpinned(parties));
        let mut players: Vec<Player> = Vec::new();
        // Those that held a seat when the job was complete.
        let mut seated: BTreeSet<ConnectionId> = BTreeSet::new();
        let mut cut: BTreeSet<ConnectionId> = BTreeSet::new();
        // One deadline ends the job, and one the wait for those that are cut off.
        let ends = [Happening::Deadline, Happening::Deadline];
        for (at, happening) in (1000..).zip(happenings.into_iter().chain(ends)) {
            let connection = |at: prop::sample::Index, players: &[Player]| {
                (!players.is_empty()).then(|| at.index(players.len()))
            };
            match happening {
                Happening::Arrives { name, key } => {
                    let number = u32::try_from(players.len()).unwrap();
                    let mut player = Player::new(number.into(), NAMES[name], 0..number);
                    player.identity = identities[key].clone();
                    player.arrive(&mut world);
                    players.push(player);
                }
                Happening::Acts(at) => {
                    if let Some(index) = connection(at, &players) {
                        players[index].act(&mut world);
                    }
                }
                Happening::Sends(at, kind) => {
                    if let Some(index) = connection(at, &players) {
                        let message = out_of_turn(kind);
                        world.event(Event::Message(players[index].connection, message));
                    }
                }
                Happening::Breaks(at) => {
                    if let Some(index) = connection(at, &players) {
                        players[index].breaks(&mut world);
                        cut.insert(players[index].connection);
                    }
                }
                Happening::ComesBack(at_index) => {
                    if let Some(index) = connection(at_index, &players)
                        && cut.remove(&players[index].connection)
                    {
                        let before = players[index].connection;
                        players[index].comes_back(&mut world, at);
                        let known = !world.refused.contains(&players[index].connection);
                        if seated.remove(&before) && known {
                            seated.insert(players[index].connection);
                        }
                    }
                }
                Happening::IsLost(at) => {
                    if let Some(index) = connection(at, &players) {
                        world.event(Event::Lost(players[index].connection));
                    }
                }
                Happening::Joined => world.join(),
                Happening::JoinedUnasked => {
                    if world.machine.phase != Phase::Joining {
                        world.event(Event::Joined(Vec::new()));
                    }
                }
                Happening::JoinFailed => {
                    // The engine is gone, and so is what it held.
                    drop(world.joining.take());
                    world.event(Event::JoinFailed);
                }
                Happening::Deadline => world.event(Event::Deadline),
                Happening::Shutdown => world.event(Event::Shutdown),
            }
            if !matches!(world.machine.phase, Phase::Gathering | Phase::Settled | Phase::Over) {
                seated = world.machine.seats.values().map(|seat| seat.connection).collect();
            }
        }
        drop(world.joining.take());
        prop_assert!(world.finished);
        prop_assert!(world.machine.seats.is_empty());
        prop_assert!(world.budget.reserve(BUDGET).is_some(), "the memory is not given back");
        let ends: Vec<End> = players
            .iter()
            .filter(|player| seated.contains(&player.connection) && !cut.contains(&player.connection))
            .map(|player| end(&world, player))
            .collect();
        prop_assert!(ends.iter().all(|end| *end == ends[0]), "{:?}", ends);
        prop_assert!(!ends.contains(&End::Silent));
        for player in &players {
            prop_assert!(world.closed.contains(&player.connection));
            let outside = !seated.contains(&player.connection);
            // On this connection: who came back to a job that is over may have had its result before.
            let outbox = world.outboxes.get(&player.connection).map_or(&[][..], Vec::as_slice);
            let result = outbox.iter().any(|message| matches!(message, ToParty::Outcome { .. }));
            prop_assert!(!outside || !result);
        }
    }
}

/// Evidence of this many bytes, of which the last is this one.
fn evidence(bytes: usize, last: u8) -> OfferEvidence {
    let mut collateral = vec![b' '; bytes];
    collateral.push(last);
    OfferEvidence { quote: vec![7; 100].into(), collateral: collateral.into() }
}

/// All players arrive, showing evidence for which half of the memory is reserved.
fn arrive_showing(world: &mut World, players: &mut [Player]) {
    for (player, number) in players.iter_mut().zip(0..) {
        let mut arrival = player.arrival(&world.job.clone());
        let room = world.budget.reserve(BUDGET / 4).expect("there is room");
        arrival.evidence = Some(Shown { evidence: evidence(1000, number), _room: room });
        world.event(Event::Arrived(arrival));
    }
}

#[test]
fn evidence_is_shown_to_all_and_then_forgotten() {
    let mut players = players(3);
    let mut world = World::new(named(&players));
    arrive_showing(&mut world, &mut players);
    for player in &players {
        let Some(ToParty::Assembled(_, shown)) = world.outboxes[&player.connection].last() else {
            panic!("not assembled")
        };
        assert_eq!(shown.len(), 3);
        for (player, number) in players.iter().zip(0..) {
            assert_eq!(shown[&player.name], evidence(1000, number));
        }
    }
    assert!(world.budget.reserve(BUDGET / 2).is_none(), "it takes memory");
    // A party whose connection breaks gets it again, until it has answered.
    players[1].breaks(&mut world);
    players[1].comes_back(&mut world, 21);
    let again = world.outboxes[&ConnectionId(21)].iter();
    let mut again = again.filter_map(|message| match message {
        ToParty::Assembled(_, shown) => Some(shown.len()),
        _ => None,
    });
    assert_eq!(again.next(), Some(3));
    play_to(&mut world, &mut players, Phase::Confirming);
    assert!(world.budget.reserve(BUDGET).is_some(), "the memory is given back");
    let kept = world.machine.seats.values().flat_map(|seat| &seat.sent);
    for message in kept {
        assert!(!matches!(message, ToParty::Assembled(_, shown) if !shown.is_empty()));
    }
    finish(&mut world, &mut players);
}

#[test]
fn evidence_of_a_party_that_leaves_is_forgotten() {
    let mut players = players(3);
    let mut world = World::new(named(&players));
    arrive_showing(&mut world, &mut players[..2]);
    world.send(ConnectionId(0), FromParty::Leave(Reason::Stopped));
    world.send(ConnectionId(1), FromParty::Leave(Reason::Stopped));
    assert!(world.finished && world.budget.reserve(BUDGET).is_some());
}

/// Collaterals count once however many parties offer them; beyond the limit, the last to come is
/// refused, and the others wait on.
#[test]
fn more_collateral_than_can_be_passed_on() {
    let bytes = MAXIMUM_RELAYED_BYTES / 2 - 1;
    let mut players = players(3);
    let mut world = World::new(named(&players));
    let mut arrive = |world: &mut World, player: usize, last: u8| {
        let mut arrival = players[player].arrival(&world.job.clone());
        let room = world.budget.reserve(1).expect("there is room");
        arrival.evidence = Some(Shown { evidence: evidence(bytes, last), _room: room });
        world.event(Event::Arrived(arrival));
    };
    arrive(&mut world, 0, 1);
    arrive(&mut world, 1, 2);
    arrive(&mut world, 2, 3);
    assert_eq!(world.failure(ConnectionId(2)).reason, Reason::NoRoom);
    assert!(world.machine.is_gathering() && !world.closed.contains(&ConnectionId(0)));
}

/// A party that refuses another's evidence says so in a word.
#[test]
fn a_party_that_refuses_evidence_ends_the_job() {
    let mut players = players(3);
    let service = terms::Service { verify: terms::Verify::TwoWay, ..terms::Service::default() };
    let job = Job::unpinned("test", players.len(), 1000, 60, service).expect("valid");
    let mut world = World::new(job);
    arrive_all(&mut world, &mut players);
    world.send(ConnectionId(1), FromParty::Leave(Reason::Attestation));
    let failed = world.failure_of_all(&players);
    assert_eq!((failed.reason, failed.party.as_deref()), (Reason::Attestation, Some("bob")));
    assert!(failed.explanation.contains("refused the evidence"), "{failed}");
}
