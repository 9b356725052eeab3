//! One job, as a task of its own.
//!
//! A task owns its job's state machine and everything that the job holds; when it ends, so does all
//! of that. Parties reach it through a bounded queue of events.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use convelo_channel::{Identity, Lost, Place, Slot};
use convelo_psi::{KeyId, ReceivedSet, engine};
use convelo_wire::{Failed, FromParty, Reason, ToParty};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use super::lock;
use crate::attester::unix_now;
use crate::budget::Reservation;
use crate::job::{Arrival, ConnectionId, Effect, Event, JobMachine, Sign};
use crate::limits::{
    UPLOAD_BYTES_PER_SECOND, UPLOAD_CHECK, UPLOAD_GRACE, WAITING_QUEUE, WAITING_TIMEOUT,
};
use crate::shared::Shared;

/// The inputs of a job's task.
pub(super) enum Input {
    /// A party, and where to say that it was let in, or to return it if it means another job.
    Arrived(Newcomer, oneshot::Sender<Result<(), Newcomer>>),
    Event(Event),
}

/// An arrival and the way back to the party.
pub(super) struct Newcomer {
    pub(super) arrival: Arrival,
    pub(super) outbox: Outbox,
}

impl Newcomer {
    /// Asks a job to let the party in; returns the party if it means another job.
    pub(super) async fn knock(
        self,
        inbox: &mpsc::Sender<Input>,
    ) -> Result<Result<(), Self>, Failed> {
        let Ok(place) = inbox.reserve().await else { return Ok(Err(self)) };
        let (answer, answered) = oneshot::channel();
        place.send(Input::Arrived(self, answer));
        answered.await.map_err(|_| {
            let text = "the job failed inside the service; nothing of it is kept";
            Failed::new(Reason::Internal, text)
        })
    }
}

/// The way back to one party. Dropping it tells its reader that the job is finished with it.
pub(super) struct Outbox {
    pub(super) messages: mpsc::Sender<ToParty>,
    /// The connection, to tell it what is expected.
    pub(super) place: Option<Place>,
    pub(super) _open: oneshot::Sender<()>,
}

impl Outbox {
    /// Sends a message; false if too many wait to be sent already.
    fn takes(&self, message: ToParty, gathering: bool) -> bool {
        let waiting = self.messages.max_capacity() - self.messages.capacity();
        (!gathering || waiting < WAITING_QUEUE) && self.messages.try_send(message).is_ok()
    }
}

/// The keys of those who have a seat in a job.
pub(super) type SeatedKeys = Arc<Mutex<HashSet<KeyId>>>;

pub(super) struct Signer(pub(super) Identity);

impl Sign for Signer {
    fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.0.sign(message)
    }
}

/// One job, running.
pub(super) struct Task {
    pub(super) machine: JobMachine,
    pub(super) outboxes: HashMap<ConnectionId, Outbox>,
    pub(super) inbox: mpsc::WeakSender<Input>,
    /// For the registry, which wants to know who belongs here.
    pub(super) seated: SeatedKeys,
    pub(super) slot: Slot,
    pub(super) lost: Lost,
    pub(super) deadline: Instant,
    /// How long the job may wait for its parties.
    pub(super) waits_until: Instant,
    /// When the parties were told to upload, and when their pace is checked next.
    pub(super) uploading: Option<(Instant, Instant)>,
    /// How long a party whose connection broke may take to come back.
    pub(super) patience: Duration,
    /// Until when parties may come back, earliest first.
    pub(super) absent: VecDeque<(Instant, ConnectionId)>,
    pub(super) signer: Signer,
    pub(super) shared: Shared,
}

/// How a job ended.
pub(super) struct Ended {
    /// Why there was no result, if there was none.
    pub(super) failure: Option<Reason>,
    /// The keys of those who had a seat when that was decided.
    pub(super) parties: HashSet<KeyId>,
    /// How long it took to be decided.
    pub(super) elapsed: Duration,
}

/// What a job's task does besides sending.
#[derive(Default)]
struct Progress {
    settled: bool,
    finished: bool,
    /// The keys of those who had a seat before or after.
    parties: HashSet<KeyId>,
}

impl Task {
    /// Runs the job to its end. Calls `settled`, which returns its duration so far, once it is
    /// decided.
    pub(super) async fn run(
        mut self,
        mut inputs: mpsc::Receiver<Input>,
        settled: impl Fn() -> Duration,
    ) -> Ended {
        let (mut decided, mut parties) = (None, HashSet::new());
        loop {
            let Some(event) = self.next(&mut inputs).await else { continue };
            let progress = self.step(event);
            if (progress.settled || progress.finished) && decided.is_none() {
                parties = progress.parties;
                decided = Some(settled());
            }
            if progress.finished {
                break;
            }
        }
        // Anyone who has arrived in the meantime opens the job again.
        inputs.close();
        while let Some(input) = inputs.recv().await {
            if let Input::Arrived(newcomer, answer) = input {
                let _ = answer.send(Err(newcomer));
            }
        }
        let elapsed = decided.unwrap_or_else(settled);
        Ended { failure: self.machine.failure(), parties, elapsed }
    }

    /// What happens to the job next; nothing if an arrival meant another job.
    async fn next(&mut self, inputs: &mut mpsc::Receiver<Input>) -> Option<Event> {
        let gathering = self.machine.is_gathering();
        let ends = if gathering { self.waits_until } else { self.deadline };
        let absent = self.absent.front().map(|(until, _)| *until);
        let check = self.uploading.map(|(_, next)| next);
        let wake = absent.into_iter().chain(check).fold(ends, Instant::min);
        let input = tokio::select! {
            input = inputs.recv() => input,
            () = &mut self.lost, if gathering => return Some(Event::Crowded),
            () = sleep_until(wake) => return Some(self.woken(gathering)),
        };
        match input {
            Some(Input::Event(event)) => Some(event),
            Some(Input::Arrived(newcomer, answer)) => {
                if !self.machine.is_meant_by(&newcomer.arrival) {
                    let _ = answer.send(Err(newcomer));
                    return None;
                }
                let Newcomer { arrival, outbox } = newcomer;
                self.outboxes.insert(arrival.connection, outbox);
                let _ = answer.send(Ok(()));
                Some(Event::Arrived(arrival))
            }
            // The registry holds a sender as long as the task runs.
            None => Some(Event::Shutdown),
        }
    }

    /// What the time has come for.
    fn woken(&mut self, gathering: bool) -> Event {
        let now = Instant::now();
        if let Some((until, connection)) = self.absent.front().copied()
            && until <= now
        {
            self.absent.pop_front();
            return Event::Lost(connection);
        }
        if now >= self.deadline {
            return Event::Deadline;
        }
        if gathering {
            return Event::Unfilled(WAITING_TIMEOUT);
        }
        let (since, _) = self.uploading.unwrap_or((now, now));
        self.uploading = Some((since, now + UPLOAD_CHECK));
        let late = now.saturating_duration_since(since + UPLOAD_GRACE).as_secs();
        Event::Pace(late * UPLOAD_BYTES_PER_SECOND)
    }

    /// Runs one event.
    fn step(&mut self, event: Event) -> Progress {
        let gathering = self.machine.is_gathering();
        let until = if gathering { self.waits_until } else { self.deadline };
        let left = until.saturating_duration_since(Instant::now()).as_secs();
        let mut queue = vec![event];
        let mut progress = Progress::default();
        while let Some(event) = queue.pop() {
            let stays = matches!(&event, Event::Message(_, Ok(FromParty::Chunk(_))));
            for effect in self.machine.handle(event, left, unix_now(), &self.signer) {
                match effect {
                    Effect::Send(connection, message) => {
                        let gathering = self.machine.is_gathering();
                        let outbox = self.outboxes.get(&connection);
                        if outbox.is_some_and(|outbox| !outbox.takes(message, gathering)) {
                            self.outboxes.remove(&connection);
                            queue.push(Event::Left(connection));
                        }
                    }
                    Effect::Expect(connection, bytes) => {
                        let outbox = self.outboxes.get(&connection);
                        if let Some(place) = outbox.and_then(|outbox| outbox.place.as_ref()) {
                            place.expect(bytes);
                        }
                    }
                    Effect::Close(connection) => {
                        self.outboxes.remove(&connection);
                    }
                    Effect::Await(connection) => {
                        self.absent.push_back((Instant::now() + self.patience, connection));
                    }
                    Effect::Join(sets, room) => self.join(sets, room),
                    Effect::Settled => progress.settled = true,
                    Effect::Finished => progress.finished = true,
                }
            }
            if !stays || progress.settled || progress.finished {
                let mut seated = lock(&self.seated);
                progress.parties.extend(seated.drain());
                seated.extend(self.machine.keys());
                progress.parties.extend(seated.iter());
            }
        }
        if gathering && !self.machine.is_gathering() && !progress.settled && !self.slot.keep() {
            let crowded = self.step(Event::Crowded);
            progress.parties.extend(crowded.parties);
            progress.settled |= crowded.settled;
            progress.finished |= crowded.finished;
        }
        let uploading = self.machine.is_uploading();
        if uploading && self.uploading.is_none() {
            let now = Instant::now();
            self.uploading = Some((now, now + UPLOAD_GRACE + UPLOAD_CHECK));
        } else if !uploading {
            self.uploading = None;
        }
        progress
    }

    fn join(&self, sets: Vec<ReceivedSet>, room: Option<Reservation>) {
        let (inbox, shared) = (self.inbox.clone(), self.shared.clone());
        tokio::spawn(async move {
            let joined = shared.join(move || {
                let bitmaps = engine::intersect(sets);
                drop(room);
                bitmaps
            });
            let event = match joined.await {
                Some(Ok(bitmaps)) => Event::Joined(bitmaps),
                Some(Err(engine::NoMemory)) => Event::NoMemory,
                None => Event::JoinFailed,
            };
            if let Some(inbox) = inbox.upgrade() {
                let _ = inbox.send(Input::Event(event)).await;
            }
        });
    }
}

#[cfg(test)]
mod tests;
