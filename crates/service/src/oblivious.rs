//! A job's last step by itself, for `cargo xtask oblivious` to watch: from the engine's bitmaps to
//! the bytes of every party's answer.

use convelo_psi::agreement::{Confirmation, KeyOffer, SealedShare};
use convelo_psi::limits::ONE_TIME_KEY_BYTES;
use convelo_psi::{Bitmap, Job, SetReceiver};
use convelo_wire::{Announcement, FromParty, proto};
use prost::Message as _;

use crate::budget::Room;
use crate::job::{Arrival, ConnectionId, Effect, Event, JobMachine, Sign};
use crate::memory::Limits;

/// A job whose sets have been handed to the engine.
pub struct Joining(JobMachine);

/// Signs nothing: how long a signature is, and how it is made, does not depend on what is signed.
struct Unsigned;

impl Sign for Unsigned {
    fn sign(&self, _: &[u8]) -> Vec<u8> {
        vec![0; 70]
    }
}

/// Runs a job of unpinned parties up to its join. The sets are in wire form, each shorter than a
/// chunk.
///
/// # Panics
/// If a set is not sorted, or the job has another number of parties.
pub fn joining(job: &Job, sets: &[Vec<u8>]) -> Joining {
    let mut machine = JobMachine::new(job.clone(), [0; 32], Room::new(u64::MAX, Limits::default()));
    let names: Vec<String> = (0..sets.len()).map(|party| format!("party{party:02}")).collect();
    let mut joins = false;
    let mut handle = |event| {
        let effects = machine.handle(event, 0, 0, &Unsigned);
        joins |= effects.iter().any(|effect| matches!(effect, Effect::Join(..)));
    };
    let connections = || (0_u64..).map(ConnectionId);
    for ((connection, name), byte) in connections().zip(&names).zip(0_u8..) {
        let one_time_key = Box::new([byte; ONE_TIME_KEY_BYTES]);
        let offer = KeyOffer { one_time_key, signature: Vec::new() };
        let spki = vec![byte; 91];
        let name = name.clone();
        let (evidence, holders) = (None, Vec::new());
        let received = None;
        let arrival = Arrival { connection, name, spki, offer, received, evidence, holders };
        handle(Event::Arrived(arrival));
    }
    let mut all_say = |message: &dyn Fn(usize) -> FromParty| {
        for (connection, party) in connections().zip(0..names.len()) {
            handle(Event::Message(connection, Ok(message(party))));
        }
    };
    all_say(&|party| {
        let from = &names[party];
        let others = names.iter().filter(|to| *to != from);
        let share =
            |to: &String| SealedShare { from: from.clone(), to: to.clone(), sealed: Vec::new() };
        FromParty::Shares(others.map(share).collect())
    });
    all_say(&|_| FromParty::Confirmation(Confirmation { tag: [0; 32], signature: Vec::new() }));
    all_say(&|party| {
        let keys = (sets[party].len() / 16) as u64;
        let mut receiver = SetReceiver::new(keys);
        receiver.push_chunk(&sets[party]).expect("sorted");
        let blake3 = receiver.finish().expect("complete").blake3();
        FromParty::Announcement(Announcement { keys, blake3 })
    });
    all_say(&|party| FromParty::Chunk(sets[party].clone().into()));
    assert!(joins, "the sets are complete");
    Joining(machine)
}

impl Joining {
    /// The last step: all bytes that go to the parties.
    pub fn answers(mut self, bitmaps: Vec<Bitmap>) -> Vec<Vec<u8>> {
        let effects = self.0.handle(Event::Joined(bitmaps), 0, 1_700_000_000, &Unsigned);
        let sent = effects.into_iter().filter_map(|effect| match effect {
            Effect::Send(_, message) => Some(proto::ToParty::from(message).encode_to_vec()),
            _ => None,
        });
        sent.collect()
    }
}
