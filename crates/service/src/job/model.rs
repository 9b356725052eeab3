//! A model of a job: its state machine as it is, parties as the protocol has them, and a network and a
//! host that do their worst. Every interleaving is looked at, for so many things going wrong.
//!
//! A party is its place in the protocol, and the queues of its connections. What the machine is sent and
//! sends goes through these queues: who reads what first is open. Messages of the key agreement have
//! empty contents, for the machine relays them and does not look.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::hash::{Hash, Hasher};

use convelo_psi::Verify;
use stateright::{Checker as _, Model, Property};

use super::*;

const NAMES: [&str; 3] = ["alice", "bob", "carol"];

/// Two is in every set.
const SETS: [&[u128]; 3] = [&[1, 2], &[2, 3], &[2]];

/// What goes from a party to the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Up {
    Hello,
    Shares,
    Confirmation,
    Announcement,
    Chunk,
    Leave,
    /// Something that is not what the protocol has next.
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

/// What goes from the service to a party.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Down {
    Waiting,
    Assembled,
    Shares,
    Confirmations,
    Room,
    Uploads,
    Outcome,
    Bitmap(Vec<u8>),
    Failed(Reason),
    Close,
}

impl From<ToParty> for Down {
    fn from(message: ToParty) -> Self {
        match message {
            ToParty::Waiting(_) => Self::Waiting,
            ToParty::Assembled(_) => Self::Assembled,
            ToParty::Shares(_) => Self::Shares,
            ToParty::Confirmations(_) => Self::Confirmations,
            ToParty::Room => Self::Room,
            ToParty::Uploads { .. } => Self::Uploads,
            ToParty::Outcome { .. } => Self::Outcome,
            ToParty::Bitmap(bits) => Self::Bitmap(bits.to_vec()),
            ToParty::Failed(failed) => {
                assert!(!failed.explanation.is_empty());
                Self::Failed(failed.reason)
            }
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
    /// It has a wrong result, or none and does not know why, or was sent what it did not expect.
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
    /// How often it may still run, from the beginning.
    runs: u8,
    down: VecDeque<Down>,
}

/// What has happened to the present machine.
#[derive(Clone, Copy, Debug)]
enum Happened {
    Message(u64, Up),
    Deadline,
    Joined,
}

#[derive(Clone, Debug)]
struct State {
    history: Vec<Happened>,
    /// All of the machine that its behaviour depends on.
    machine: String,
    over: bool,
    joining: bool,
    players: Vec<Player>,
    up: BTreeMap<u64, VecDeque<Up>>,
    faults: u8,
}

impl State {
    fn identity(&self) -> impl Hash + PartialEq + '_ {
        let Self { machine, over, joining, players, up, faults, .. } = self;
        (machine, *over, *joining, players, up, *faults)
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
    /// A party reads all that has come.
    Read(usize),
    /// The service takes the next message of a connection.
    Take(u64),
    /// The engine is done.
    Joined,
    Deadline,
    /// A party breaks off with a word.
    Leave(usize),
    /// A connection breaks, with all that is under way in it.
    Cut(usize),
    Lie(usize, Lie),
    /// The service starts anew: all connections break, nothing is kept.
    Restart,
}

struct Jobs {
    parties: usize,
    /// How many things go wrong; a deadline is not counted.
    faults: u8,
    runs: u8,
}

/// A machine with its past.
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
        let job = Job::open("model", self.parties, 1000, 60, Verify::Service);
        let budget = Budget::new(BUDGET);
        let machine = JobMachine::new(job.clone(), job.digest(), budget.clone());
        let mut replayed =
            Replayed { machine, budget, joining: None, over: false, effects: Vec::new() };
        for happened in history {
            replayed.effects.clear();
            let event = self.event(*happened, &mut replayed);
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
            Up::Hello => {
                let offer = KeyOffer { one_time_key: [0; 32], signature: Vec::new() };
                let (name, spki) = (name.to_owned(), vec![party.try_into().unwrap_or(0)]);
                return Event::Arrived(Arrival { connection, name, spki, offer });
            }
            Up::Shares => {
                let others = NAMES[..self.parties].iter().filter(|other| **other != name);
                let share = |to: &&str| SealedShare {
                    from: name.to_owned(),
                    to: (*to).to_owned(),
                    sealed: Vec::new(),
                };
                FromParty::Shares(others.map(share).collect())
            }
            Up::Confirmation => FromParty::Confirmation(Confirmation([0; 32])),
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

    fn party(connection: u64) -> usize {
        usize::try_from(connection % 4).expect("below four")
    }

    /// Has something happen to the machine, or to a new one if there is none.
    fn happens(&self, state: &mut State, happened: Happened) {
        if state.over {
            state.history.clear();
        }
        state.history.push(happened);
        let Replayed { machine, budget, joining, over, effects } = self.replay(&state.history);
        for effect in effects {
            let (connection, down) = match effect {
                Effect::Send(connection, message) => (connection.0, message.into()),
                Effect::Close(connection) => (connection.0, Down::Close),
                Effect::Join(..) | Effect::Finished => continue,
            };
            let player = &mut state.players[Self::party(connection)];
            // A connection that is broken, or that a newer one took the place of, has no reader.
            if player.connection == connection && !player.stage.ended() {
                player.down.push_back(down);
            }
        }
        (state.machine, state.over) = (view(&machine, over), over);
        state.joining = joining.is_some() && !over;
        drop((machine, joining));
        assert!(budget.reserve(BUDGET).is_some(), "memory is not given back");
    }

    /// A party reads one message.
    fn read(state: &mut State, party: usize, down: &Down) {
        let player = &mut state.players[party];
        let next = match (player.stage, down) {
            (Stage::Waiting, Down::Waiting) | (Stage::Uploaded, Down::Uploads) => return,
            (Stage::Waiting, Down::Assembled) => (Stage::Shared, Some(Up::Shares)),
            (Stage::Shared, Down::Shares) => (Stage::Confirmed, Some(Up::Confirmation)),
            (Stage::Confirmed, Down::Confirmations) => (Stage::Announced, Some(Up::Announcement)),
            (Stage::Announced, Down::Room) => (Stage::Uploaded, Some(Up::Chunk)),
            (Stage::Uploaded, Down::Outcome) => (Stage::Answered, None),
            (Stage::Answered, Down::Bitmap(bits)) => {
                let rank = SETS[party].iter().position(|key| *key == 2).expect("all have two");
                let right = *bits == [1 << rank];
                (if right { Stage::Right } else { Stage::Wrong("another result") }, None)
            }
            (stage, Down::Close) if stage.ended() => return,
            (stage, Down::Failed(_)) if !stage.ended() => (Stage::Explained, None),
            (_, Down::Close) => (Stage::Wrong("closed without a word"), None),
            _ => (Stage::Wrong("a message out of turn"), None),
        };
        player.stage = match next.0 {
            // Who lies has no claim to anything.
            Stage::Wrong(_) if !player.honest => Stage::Explained,
            stage => stage,
        };
        state.up.entry(player.connection).or_default().extend(next.1);
    }
}

/// All of a machine that its behaviour depends on.
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
        let connection = seat.connection.0;
        write!(view, " {name} {connection} {shares} {confirmation} {announced:?} {upload}")
            .expect("a string");
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
        };
        vec![State {
            history: Vec::new(),
            machine: String::new(),
            over: true,
            joining: false,
            players: (0..self.parties as u64).map(player).collect(),
            up: BTreeMap::new(),
            faults: self.faults,
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
            if state.faults > 0 && !player.stage.ended() && player.stage != Stage::Outside {
                actions.extend([Action::Leave(party), Action::Cut(party)]);
                if player.honest {
                    actions.extend(LIES.map(|lie| Action::Lie(party, lie)));
                }
            }
        }
        let waiting = state.up.iter().filter(|(_, queue)| !queue.is_empty());
        actions.extend(waiting.map(|(connection, _)| Action::Take(*connection)));
        if state.joining {
            actions.push(Action::Joined);
        }
        if !state.over {
            actions.push(Action::Deadline);
            if state.faults > 0 {
                actions.push(Action::Restart);
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Run(party) => {
                let player = &mut state.players[party];
                player.connection += 4;
                player.runs -= 1;
                (player.stage, player.honest) = (Stage::Waiting, true);
                player.down.clear();
                state.up.insert(player.connection, VecDeque::from([Up::Hello]));
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
                // Without a machine only a Hello finds one.
                if !state.over || up == Up::Hello {
                    self.happens(&mut state, Happened::Message(connection, up));
                }
            }
            Action::Joined => self.happens(&mut state, Happened::Joined),
            Action::Deadline => self.happens(&mut state, Happened::Deadline),
            Action::Leave(party) => {
                let player = &mut state.players[party];
                player.stage = Stage::Explained;
                player.down.clear();
                state.up.entry(player.connection).or_default().push_back(Up::Leave);
                state.faults -= 1;
            }
            Action::Cut(party) => {
                let player = &mut state.players[party];
                player.stage = Stage::Explained;
                player.down.clear();
                state.up.insert(player.connection, VecDeque::from([Up::Broken]));
                state.faults -= 1;
            }
            Action::Lie(party, lie) => {
                let player = &mut state.players[party];
                player.honest = false;
                state.up.entry(player.connection).or_default().push_back(Up::Lie(lie));
                state.faults -= 1;
            }
            Action::Restart => {
                state.history.clear();
                state.machine.clear();
                (state.over, state.joining) = (true, false);
                state.up.clear();
                for player in &mut state.players {
                    player.down.clear();
                    if player.stage != Stage::Outside && !player.stage.ended() {
                        player.stage = Stage::Explained;
                    }
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
            // Every action uses something up, so all paths end; here they do.
            Property::always(
                "nobody waits when nothing more happens",
                |jobs: &Self, state: &State| {
                    let mut actions = Vec::new();
                    jobs.actions(state, &mut actions);
                    let ended = state.players.iter().all(|player| player.stage.ended());
                    !actions.is_empty() || (ended && state.over)
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
fn three_parties_and_two_things_that_go_wrong() {
    check(Jobs { parties: 3, faults: 2, runs: 1 });
}
