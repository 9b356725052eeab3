//! A model of a job: its real state machine, parties as the protocol defines them, and a network
//! and a host that do their worst. It explores every interleaving, for a given number of things
//! going wrong.
//!
//! A party is its position in the protocol, plus the queues of its connections. Everything the
//! machine receives and sends goes through these queues: the order of reading is open. Messages of
//! the key agreement are empty, because the machine relays them without looking. The model also
//! plays the registry's part: a decided job may exist next to the open one.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::hash::{Hash, Hasher};

use convelo_psi::limits::ONE_TIME_KEY_BYTES;
use convelo_psi::terms;
use stateright::{Checker as _, Model, Property};

use super::*;
use crate::budget::Budget;
use crate::memory::Limits;

const NAMES: [&str; 3] = ["alice", "bob", "carol"];

/// Two is in every set.
const SETS: [&[u128]; 3] = [&[1, 2], &[2, 3], &[2]];

/// Messages from a party to the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Up {
    /// With the number of the run, which stands for the keys a program makes when it starts.
    Hello(u8),
    /// Resumes a run, having received this many messages.
    Back(u8, u8),
    Shares,
    Confirmation,
    Announcement,
    Chunk,
    Leave,
    Received,
    /// Something that is not the protocol's next message.
    Lie(Lie),
    /// The connection is broken.
    Broken,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Lie {
    NoShares,
    AnotherDigest,
    Unsorted,
}

const LIES: [Lie; 3] = [Lie::NoShares, Lie::AnotherDigest, Lie::Unsorted];

/// Messages from the service to a party.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Down {
    Waiting,
    Assembled,
    Shares,
    Confirmations,
    Ready,
    Uploads,
    Outcome,
    Bitmap(Vec<u8>),
    Failed(Reason),
    Resumed(u8),
    Close,
}

impl From<ToParty> for Down {
    fn from(message: ToParty) -> Self {
        match message {
            ToParty::Waiting(_) => Self::Waiting,
            ToParty::Assembled(..) => Self::Assembled,
            ToParty::Shares(_) => Self::Shares,
            ToParty::Confirmations(_) => Self::Confirmations,
            ToParty::Ready => Self::Ready,
            ToParty::Uploads { .. } => Self::Uploads,
            ToParty::Outcome { .. } => Self::Outcome,
            ToParty::Bitmap(bits) => Self::Bitmap(bits.to_vec()),
            ToParty::Failed(failed) => {
                assert!(!failed.explanation.is_empty());
                Self::Failed(failed.reason)
            }
            ToParty::Resumed { taken } => Self::Resumed(taken.try_into().expect("a few")),
            ToParty::Proof(_) => unreachable!("jobs do not attest"),
        }
    }
}

/// Where a party is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Stage {
    Outside,
    Waiting,
    Shared,
    Confirmed,
    Announced,
    Uploaded,
    Answered,
    /// It has the right result.
    Right,
    /// It has no result and knows why.
    Explained,
    /// It has a wrong result, has none without knowing why, or was sent something unexpected.
    Wrong(&'static str),
}

impl Stage {
    fn ended(self) -> bool {
        matches!(self, Self::Right | Self::Explained | Self::Wrong(_))
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Player {
    stage: Stage,
    connection: u64,
    honest: bool,
    /// How often it may still run from the beginning.
    runs: u8,
    down: VecDeque<Down>,
    /// Its connection broke.
    cut: bool,
    /// How many messages have arrived, and which were sent, since all parties arrived.
    received: u8,
    sent: Vec<Up>,
}

/// What has happened to the current machine.
#[derive(Clone, Copy, Debug)]
enum Happened {
    Message(u64, Up),
    Lost(u64),
    Deadline,
    Joined,
}

/// A job that is not over.
#[derive(Clone, Debug, Default)]
struct Running {
    history: Vec<Happened>,
    /// Everything about the machine that its behaviour depends on.
    machine: String,
    settled: bool,
    joining: bool,
    /// The connections that belong to it.
    connections: BTreeSet<u64>,
    /// Connections that broke, and whose parties may come back.
    awaited: BTreeSet<u64>,
}

#[derive(Clone, Debug)]
struct State {
    running: Vec<Running>,
    players: Vec<Player>,
    up: BTreeMap<u64, VecDeque<Up>>,
    faults: u8,
    /// Whether something happened that a job need not survive, unlike a broken connection.
    spoiled: bool,
}

impl State {
    fn identity(&self) -> impl Hash + PartialEq + '_ {
        (&self.running, &self.players, &self.up, self.faults, self.spoiled)
    }

    fn open(&self) -> Option<usize> {
        self.running.iter().position(|job| !job.settled)
    }
}

impl Player {
    /// Another connection, or none, replaces the last one.
    fn begin(&mut self) {
        self.cut = false;
        self.down.clear();
    }
}

impl Running {
    fn identity(&self) -> impl Hash + PartialEq + '_ {
        let Self { machine, settled, joining, connections, awaited, .. } = self;
        (machine, *settled, *joining, connections, awaited)
    }
}

impl PartialEq for Running {
    fn eq(&self, other: &Self) -> bool {
        self.identity() == other.identity()
    }
}

impl Hash for Running {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.identity().hash(state);
    }
}

impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        self.identity() == other.identity()
    }
}

impl Hash for State {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.identity().hash(state);
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Action {
    /// A party starts.
    Run(usize),
    /// A party reads everything that has arrived.
    Read(usize),
    /// The service takes the next message of a connection.
    Take(u64),
    /// The engine of this job has finished.
    Joined(usize),
    Deadline(usize),
    /// A party does not come back to this job in time.
    Lost(usize, u64),
    /// A party whose connection broke continues on another one, or does not.
    Back(usize),
    GiveUp(usize),
    /// A party leaves, saying so.
    Leave(usize),
    /// A connection breaks, with everything in transit on it.
    Cut(usize),
    Lie(usize, Lie),
    /// The service restarts: all connections break, nothing is kept.
    Restart,
}

struct Jobs {
    parties: usize,
    /// How many things go wrong; a deadline does not count.
    faults: u8,
    runs: u8,
}

/// A machine with its history.
struct Replayed {
    machine: JobMachine,
    budget: Budget,
    joining: Option<(Vec<ReceivedSet>, Option<Reservation>)>,
    over: bool,
    effects: Vec<Effect>,
}

struct NoSignature;

impl Sign for NoSignature {
    fn sign(&self, _: &[u8]) -> Vec<u8> {
        Vec::new()
    }
}

const BUDGET: u64 = 1 << 20;

impl Jobs {
    fn replay(&self, history: &[Happened]) -> Replayed {
        let service = terms::Service::default();
        let job = Job::unpinned("model", self.parties, 1000, 60, service).expect("valid");
        let room = Room::new(BUDGET, Limits::default());
        let budget = room.sets.clone();
        let machine = JobMachine::new(job.clone(), [0; 32], room);
        let mut replayed =
            Replayed { machine, budget, joining: None, over: false, effects: Vec::new() };
        for happened in history {
            replayed.effects.clear();
            let event = self.event(*happened, &mut replayed);
            if let Event::Arrived(arrival) = &event {
                assert!(replayed.machine.is_meant_by(arrival), "another job is meant");
            }
            for effect in replayed.machine.handle(event, 60, 0, &NoSignature) {
                match effect {
                    Effect::Join(sets, room) => replayed.joining = Some((sets, room)),
                    Effect::Finished => replayed.over = true,
                    effect => replayed.effects.push(effect),
                }
            }
        }
        replayed
    }

    fn event(&self, happened: Happened, replayed: &mut Replayed) -> Event {
        let (connection, up) = match happened {
            Happened::Message(connection, up) => (connection, up),
            Happened::Deadline => return Event::Deadline,
            Happened::Lost(connection) => return Event::Lost(ConnectionId(connection)),
            Happened::Joined => {
                let sets = replayed.joining.take().expect("the engine runs").0;
                assert!(sets.iter().zip(SETS).all(|(set, own)| set.len() == own.len()));
                let bitmap = |set: &[u128]| {
                    let mut bitmap = Bitmap::new(set.len());
                    let common = SETS[..self.parties].iter().all(|other| other.contains(&2));
                    let rank = set.iter().position(|key| *key == 2).filter(|_| common);
                    if let Some(rank) = rank {
                        bitmap.set(rank);
                    }
                    bitmap
                };
                return Event::Joined(SETS[..self.parties].iter().map(|set| bitmap(set)).collect());
            }
        };
        let (party, name) = (Self::party(connection), NAMES[Self::party(connection)]);
        let wire: Vec<u8> = SETS[party].iter().flat_map(|key| key.to_be_bytes()).collect();
        let connection = ConnectionId(connection);
        let keys = SETS[party].len() as u64;
        let message = match up {
            Up::Broken => return Event::Left(connection),
            Up::Hello(..) | Up::Back(..) => return Event::Arrived(Self::arrival(connection.0, up)),
            Up::Received => FromParty::Received,
            Up::Shares => {
                let others = NAMES[..self.parties].iter().filter(|other| **other != name);
                let share = |to: &&str| SealedShare {
                    from: name.to_owned(),
                    to: (*to).to_owned(),
                    sealed: Vec::new(),
                };
                FromParty::Shares(others.map(share).collect())
            }
            Up::Confirmation => {
                FromParty::Confirmation(Confirmation { tag: [0; 32], signature: Vec::new() })
            }
            Up::Announcement => {
                let blake3 = blake3::hash(&wire).into();
                FromParty::Announcement(Announcement { keys, blake3 })
            }
            Up::Chunk => FromParty::Chunk(wire.into()),
            Up::Leave => FromParty::Leave(Reason::Stopped),
            Up::Lie(Lie::NoShares) => FromParty::Shares(Vec::new()),
            Up::Lie(Lie::AnotherDigest) => {
                FromParty::Announcement(Announcement { keys, blake3: [0; 32] })
            }
            Up::Lie(Lie::Unsorted) => FromParty::Chunk(vec![0; 32].into()),
        };
        Event::Message(connection, Ok(message))
    }

    fn arrival(connection: u64, up: Up) -> Arrival {
        let (run, received) = match up {
            Up::Hello(run) => (run, None),
            Up::Back(run, received) => (run, Some(received.into())),
            _ => unreachable!("a party arrives once"),
        };
        let party = Self::party(connection);
        Arrival {
            connection: ConnectionId(connection),
            name: NAMES[party].to_owned(),
            spki: vec![party.try_into().unwrap_or(0)],
            offer: KeyOffer {
                one_time_key: Box::new([run; ONE_TIME_KEY_BYTES]),
                signature: Vec::new(),
            },
            received,
            evidence: None,
            holders: Vec::new(),
        }
    }

    fn party(connection: u64) -> usize {
        usize::try_from(connection % 4).expect("below four")
    }

    /// The service takes a message of a connection.
    fn take(&self, state: &mut State, connection: u64, up: Up) {
        let job = match up {
            Up::Hello(_) => Some(state.open().unwrap_or(state.running.len())),
            Up::Back(_, received) => {
                let arrival = Self::arrival(connection, up);
                let settled = (0..state.running.len()).filter(|job| state.running[*job].settled);
                let found = settled.chain(state.open()).find(|job| {
                    self.replay(&state.running[*job].history).machine.is_meant_by(&arrival)
                });
                let anew = (received == 0).then(|| state.open().unwrap_or(state.running.len()));
                found.or(anew)
            }
            _ => state.running.iter().position(|job| job.connections.contains(&connection)),
        };
        match (job, up) {
            (Some(job), _) => self.happens(state, job, Happened::Message(connection, up)),
            (None, Up::Back(..)) => {
                let player = &mut state.players[Self::party(connection)];
                if player.connection == connection && !player.stage.ended() {
                    player.down.push_back(Down::Failed(Reason::ConnectionLost));
                }
            }
            // The stream has ended with its job.
            (None, _) => {}
        }
    }

    /// Applies an event to a job, which may be a new one.
    fn happens(&self, state: &mut State, at: usize, happened: Happened) {
        if at == state.running.len() {
            state.running.push(Running::default());
        }
        let job = &mut state.running[at];
        job.history.push(happened);
        if let Happened::Message(connection, Up::Hello(_) | Up::Back(..)) = happened {
            job.connections.insert(connection);
        }
        let Replayed { machine, budget, joining, over, effects } = self.replay(&job.history);
        for effect in effects {
            let (connection, down) = match effect {
                Effect::Send(connection, message) => (connection.0, message.into()),
                Effect::Close(connection) => {
                    job.connections.remove(&connection.0);
                    (connection.0, Down::Close)
                }
                Effect::Settled => {
                    job.settled = true;
                    continue;
                }
                Effect::Join(..) | Effect::Finished | Effect::Await(_) | Effect::Expect(..) => {
                    continue;
                }
            };
            let player = &mut state.players[Self::party(connection)];
            // A connection that is broken, or was replaced by a newer one, has no reader.
            if player.connection == connection && !player.cut && !player.stage.ended() {
                player.down.push_back(down);
            }
        }
        job.machine = view(&machine, over);
        job.joining = joining.is_some() && !job.settled;
        let seats = machine.seats.values().filter(|seat| !seat.attached);
        job.awaited = seats.map(|seat| seat.connection.0).collect();
        if over {
            state.running.remove(at);
        }
        drop((machine, joining));
        assert!(budget.reserve(BUDGET).is_some(), "memory is not given back");
    }

    /// A party reads one message.
    fn read(state: &mut State, party: usize, down: &Down) {
        let player = &mut state.players[party];
        if player.stage.ended() {
            return;
        }
        if let Down::Resumed(taken) = down {
            match player.sent.get(usize::from(*taken)..) {
                Some(again) => {
                    state.up.entry(player.connection).or_default().extend(again.iter().copied());
                }
                None => player.stage = Stage::Wrong("more was taken than sent"),
            }
            return;
        }
        if !matches!(down, Down::Waiting | Down::Uploads) {
            player.received += 1;
        }
        let next = match (player.stage, down) {
            (Stage::Waiting, Down::Waiting) | (Stage::Uploaded, Down::Uploads) => return,
            (Stage::Waiting, Down::Assembled) => (Stage::Shared, Some(Up::Shares)),
            (Stage::Shared, Down::Shares) => (Stage::Confirmed, Some(Up::Confirmation)),
            (Stage::Confirmed, Down::Confirmations) => (Stage::Announced, Some(Up::Announcement)),
            (Stage::Announced, Down::Ready) => (Stage::Uploaded, Some(Up::Chunk)),
            (Stage::Uploaded, Down::Outcome) => (Stage::Answered, None),
            (Stage::Answered, Down::Bitmap(bits)) => {
                let rank = SETS[party].iter().position(|key| *key == 2).expect("all have two");
                let right = *bits == [1 << rank];
                if right {
                    (Stage::Right, Some(Up::Received))
                } else {
                    (Stage::Wrong("another result"), None)
                }
            }
            (_, Down::Failed(_)) => (Stage::Explained, None),
            (_, Down::Close) => (Stage::Wrong("closed without a word"), None),
            _ => (Stage::Wrong("a message out of turn"), None),
        };
        player.stage = match next.0 {
            // A party that lies has no claim to anything.
            Stage::Wrong(_) if !player.honest => Stage::Explained,
            stage => stage,
        };
        player.sent.extend(next.1);
        state.up.entry(player.connection).or_default().extend(next.1);
    }
}

/// Everything about a machine that its behaviour depends on.
fn view(machine: &JobMachine, over: bool) -> String {
    let mut view = String::new();
    if over {
        return view;
    }
    write!(view, "{:?}", machine.phase as u8).expect("a string");
    for (name, seat) in &machine.seats {
        let upload = match &seat.upload {
            Upload::None => "none".to_owned(),
            Upload::Running(receiver) => receiver.received().to_string(),
            Upload::Complete(_) => "complete".to_owned(),
            Upload::Taken => "taken".to_owned(),
        };
        let announced = seat.announced.map(|announced| announced.blake3);
        let (shares, confirmation) = (seat.shares.is_some(), seat.confirmation.is_some());
        let (connection, attached) = (seat.connection.0, seat.attached);
        let (run, taken, sent) = (seat.offer.one_time_key[0], seat.taken, seat.sent.len());
        write!(
            view,
            " {name} {connection} {attached} {run} {taken} {sent} {shares} {confirmation}"
        )
        .expect("a string");
        write!(view, " {announced:?} {upload}").expect("a string");
    }
    view
}

impl Model for Jobs {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let player = |party| Player {
            stage: Stage::Outside,
            connection: party,
            honest: true,
            runs: self.runs,
            down: VecDeque::new(),
            cut: false,
            received: 0,
            sent: Vec::new(),
        };
        vec![State {
            running: Vec::new(),
            players: (0..self.parties as u64).map(player).collect(),
            up: BTreeMap::new(),
            faults: self.faults,
            spoiled: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for (party, player) in state.players.iter().enumerate() {
            let outside = matches!(player.stage, Stage::Outside | Stage::Explained);
            if outside && player.runs > 0 {
                actions.push(Action::Run(party));
            }
            if !player.down.is_empty() {
                actions.push(Action::Read(party));
            }
            if player.cut {
                actions.extend([Action::Back(party), Action::GiveUp(party)]);
                continue;
            }
            if state.faults > 0 && !player.stage.ended() && player.stage != Stage::Outside {
                actions.extend([Action::Leave(party), Action::Cut(party)]);
                if player.honest {
                    actions.extend(LIES.map(|lie| Action::Lie(party, lie)));
                }
            }
        }
        let waiting = state.up.iter().filter(|(_, queue)| !queue.is_empty());
        actions.extend(waiting.map(|(connection, _)| Action::Take(*connection)));
        for (at, job) in state.running.iter().enumerate() {
            if job.joining {
                actions.push(Action::Joined(at));
            }
            actions.push(Action::Deadline(at));
            actions.extend(job.awaited.iter().map(|connection| Action::Lost(at, *connection)));
        }
        if state.faults > 0 && !state.running.is_empty() {
            actions.push(Action::Restart);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        state.spoiled |= matches!(
            action,
            Action::Deadline(_)
                | Action::Lost(..)
                | Action::GiveUp(_)
                | Action::Leave(_)
                | Action::Lie(..)
                | Action::Restart
        );
        match action {
            Action::Run(party) => {
                let player = &mut state.players[party];
                player.connection += 4;
                player.runs -= 1;
                (player.stage, player.honest) = (Stage::Waiting, true);
                player.begin();
                player.received = 0;
                player.sent.clear();
                state.up.insert(player.connection, VecDeque::from([Up::Hello(player.runs)]));
            }
            Action::Back(party) => {
                let player = &mut state.players[party];
                player.connection += 4;
                player.begin();
                let back = Up::Back(player.runs, player.received);
                state.up.insert(player.connection, VecDeque::from([back]));
            }
            Action::GiveUp(party) => {
                let player = &mut state.players[party];
                player.begin();
                player.stage = Stage::Explained;
            }
            Action::Read(party) => {
                for down in std::mem::take(&mut state.players[party].down) {
                    Self::read(&mut state, party, &down);
                }
            }
            Action::Take(connection) => {
                let queue = state.up.get_mut(&connection)?;
                let up = queue.pop_front()?;
                if queue.is_empty() {
                    state.up.remove(&connection);
                }
                self.take(&mut state, connection, up);
            }
            Action::Joined(job) => self.happens(&mut state, job, Happened::Joined),
            Action::Deadline(job) => self.happens(&mut state, job, Happened::Deadline),
            Action::Lost(job, connection) => {
                self.happens(&mut state, job, Happened::Lost(connection));
            }
            Action::Leave(party) => {
                let player = &mut state.players[party];
                player.stage = Stage::Explained;
                player.down.clear();
                state.up.entry(player.connection).or_default().push_back(Up::Leave);
                state.faults -= 1;
            }
            Action::Cut(party) => {
                let player = &mut state.players[party];
                player.cut = true;
                player.down.clear();
                state.up.insert(player.connection, VecDeque::from([Up::Broken]));
                state.faults -= 1;
            }
            Action::Lie(party, lie) => {
                let player = &mut state.players[party];
                player.honest = false;
                player.sent.push(Up::Lie(lie));
                state.up.entry(player.connection).or_default().push_back(Up::Lie(lie));
                state.faults -= 1;
            }
            Action::Restart => {
                state.running.clear();
                state.up.clear();
                for player in &mut state.players {
                    player.down.clear();
                    player.cut = player.stage != Stage::Outside && !player.stage.ended();
                }
                state.faults -= 1;
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(
                "nobody has a wrong result, or none without a reason",
                |_, state: &State| {
                    !state.players.iter().any(|player| matches!(player.stage, Stage::Wrong(_)))
                },
            ),
            Property::always("a broken connection costs nobody the result", |_, state: &State| {
                let explained = |player: &Player| player.stage == Stage::Explained;
                state.spoiled || !state.players.iter().any(explained)
            }),
            // Every action uses something up, so all paths end; they end here.
            Property::always(
                "nobody waits when nothing more happens",
                |jobs: &Self, state: &State| {
                    let mut actions = Vec::new();
                    jobs.actions(state, &mut actions);
                    let ended = state.players.iter().all(|player| player.stage.ended());
                    !actions.is_empty() || (ended && state.running.is_empty())
                },
            ),
            Property::sometimes("all have the result", |_, state: &State| {
                state.players.iter().all(|player| player.stage == Stage::Right)
            }),
            Property::sometimes(
                "all have the result of another run",
                |jobs: &Self, state: &State| {
                    let again = |player: &Player| player.stage == Stage::Right && player.runs == 0;
                    jobs.runs < 2 || state.players.iter().all(again)
                },
            ),
        ]
    }
}

fn check(jobs: Jobs) {
    let checker = jobs.checker().threads(2).spawn_dfs().join();
    println!(
        "{} states, {} of them different",
        checker.state_count(),
        checker.unique_state_count()
    );
    checker.assert_properties();
}

#[test]
fn two_parties_that_run_again_and_one_thing_that_goes_wrong() {
    check(Jobs { parties: 2, faults: 1, runs: 2 });
}

#[test]
fn two_parties_and_two_things_that_go_wrong() {
    check(Jobs { parties: 2, faults: 2, runs: 1 });
}

#[test]
fn three_parties_and_one_thing_that_goes_wrong() {
    check(Jobs { parties: 3, faults: 1, runs: 1 });
}

#[test]
#[ignore = "takes minutes and several GiB: cargo test -p convelo-service --lib two_things -- --ignored"]
fn three_parties_and_two_things_that_go_wrong() {
    check(Jobs { parties: 3, faults: 2, runs: 1 });
}
