//! The open jobs, with one task for each.
//!
//! A task owns its job's state machine and everything that the job holds; when it ends, so does all
//! of that. Parties reach it through a bounded queue of events.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use convelo_attest::{Policy, Refusal};
use convelo_channel::{Identity, Peer};
use convelo_psi::{Job, JobDigest, KeyId, Mode, Parties, ReceivedSet, Verify, engine};
use convelo_wire::{Failed, Hello, Reason, ToParty};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::attester::{Session, unix_now};
use crate::budget::Reservation;
use crate::job::{Arrival, ConnectionId, Effect, Event, JobMachine, Sign};
use crate::limits::{EVENT_QUEUE, MAXIMUM_JOBS};
use crate::shared::Shared;

/// The open jobs of a service.
pub(crate) struct Registry {
    open: Mutex<Open>,
    identity: Identity,
    /// The operator's policy for every party's evidence.
    provider_policy: Option<Policy>,
    /// How long a party whose connection broke may take to come back.
    patience: Duration,
    next_connection: AtomicU64,
    shared: Shared,
}

#[derive(Default)]
struct Open {
    jobs: HashMap<JobDigest, Handle>,
    /// Jobs that are decided, but whose outcome some parties have yet to hear.
    settled: Vec<Handle>,
    closing: bool,
}

struct Handle {
    job: Job,
    inbox: mpsc::Sender<Input>,
}

impl Open {
    fn count(&self) -> usize {
        self.jobs.len() + self.settled.len()
    }
}

impl Handle {
    fn is(&self, inbox: &mpsc::Sender<Input>) -> bool {
        self.inbox.same_channel(inbox)
    }
}

/// The inputs of a job's task.
enum Input {
    /// A party, and where to say that it was let in, or to return it if it means another job.
    Arrived(Newcomer, oneshot::Sender<Result<(), Newcomer>>),
    Event(Event),
}

/// An arrival and the way back to the party.
struct Newcomer {
    arrival: Arrival,
    outbox: Outbox,
}

impl Newcomer {
    /// Asks a job to let the party in; returns the party if it means another job.
    async fn knock(self, inbox: &mpsc::Sender<Input>) -> Result<Result<(), Self>, Failed> {
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
struct Outbox {
    messages: mpsc::Sender<ToParty>,
    _open: oneshot::Sender<()>,
}

/// A party's place in a job, as its stream sees it.
pub(crate) struct Seat {
    connection: ConnectionId,
    inbox: mpsc::Sender<Input>,
    closed: oneshot::Receiver<()>,
}

impl Seat {
    /// Hands an event to the job; waits while its queue is full. False if the job is over.
    pub(crate) async fn send(&self, event: impl FnOnce(ConnectionId) -> Event) -> bool {
        self.inbox.send(Input::Event(event(self.connection))).await.is_ok()
    }

    /// Returns when the job is finished with this party.
    pub(crate) async fn closed(&mut self) {
        let _ = (&mut self.closed).await;
    }
}

/// A party with a seat in a job.
pub(crate) struct Entered {
    pub(crate) seat: Seat,
    pub(crate) name: String,
    /// The policies for its evidence, now and at every later attestation.
    pub(crate) policies: Vec<Policy>,
}

impl Registry {
    pub(crate) fn new(
        identity: Identity,
        provider_policy: Option<Policy>,
        patience: Duration,
        shared: Shared,
    ) -> Arc<Self> {
        Arc::new(Self {
            open: Mutex::default(),
            identity,
            provider_policy,
            patience,
            next_connection: AtomicU64::new(0),
            shared,
        })
    }

    /// Seats a party in the job that its Hello names, opening the job if the party is the first; or
    /// gives a party that resumes a run its seat back.
    ///
    /// # Errors
    /// Why the party is refused; no running job notices.
    pub(crate) async fn enter(
        self: &Arc<Self>,
        peer: &Peer,
        hello: Hello,
        session: Option<&Session>,
        outgoing: mpsc::Sender<ToParty>,
    ) -> Result<Entered, Failed> {
        let job = Job::from_canonical(&hello.job).map_err(|error| {
            Failed::new(Reason::InvalidJob, format!("the job is not valid: {error}"))
        })?;
        let digest = job.digest();
        if session.is_some_and(|session| *session.job() != digest.0) {
            let text = "the Hello names another job than the Challenge";
            return Err(Failed::new(Reason::NotAttested, text));
        }
        on_the_roster(&job, &hello.party, &peer.spki)?;
        let policies = self.policies(&job)?;
        let evidence = match (session, &peer.evidence) {
            (_, None) => Err(Refusal::missing_evidence()),
            (Some(session), Some(_)) => session.evidence(),
            (None, Some(evidence)) => Ok(Arc::clone(evidence)),
        };
        self.shared.judge(&hello.party, evidence, &policies).await?;
        let name = hello.party.clone();
        let connection = ConnectionId(self.next_connection.fetch_add(1, Ordering::Relaxed));
        let (open, closed) = oneshot::channel();
        let mut newcomer = Newcomer {
            arrival: Arrival {
                connection,
                name: hello.party,
                spki: peer.spki.to_vec(),
                offer: hello.offer,
                received: hello.received,
            },
            outbox: Outbox { messages: outgoing, _open: open },
        };
        let goes_on = newcomer.arrival.received;
        let known = goes_on.map(|_| self.may_go_on(digest));
        let mut known = known.unwrap_or_default().into_iter();
        // A job may end, or be decided, between the look-up and the arrival; then try the next one.
        loop {
            let inbox = match known.next() {
                Some(inbox) => inbox,
                None if goes_on.is_some_and(|received| received > 0) => {
                    let text = format!(
                        "the service does not know the run that '{name}' wants to resume: it was \
                         restarted, or gave up waiting for the connection; nothing of the job is kept, run \
                         it again"
                    );
                    return Err(Failed::of_party(Reason::ConnectionLost, &name, text));
                }
                None => self.inbox(&job, &peer.spki)?,
            };
            match newcomer.knock(&inbox).await? {
                Ok(()) => {
                    let seat = Seat { connection, inbox, closed };
                    return Ok(Entered { seat, name, policies });
                }
                Err(back) => newcomer = back,
            }
            if inbox.is_closed() {
                self.forget(&inbox);
            }
        }
    }

    /// The jobs with this digest, the decided ones first.
    fn may_go_on(&self, digest: JobDigest) -> Vec<mpsc::Sender<Input>> {
        let open = self.lock();
        let settled = open.settled.iter().filter(|handle| handle.job.digest() == digest);
        settled.chain(open.jobs.get(&digest)).map(|handle| handle.inbox.clone()).collect()
    }

    /// Whether another job could be opened.
    pub(crate) fn takes_jobs(&self) -> bool {
        let open = self.lock();
        !open.closing && open.count() < MAXIMUM_JOBS
    }

    /// Accepts no more jobs, and tells every party of every job that the service is stopping.
    pub(crate) async fn close(&self) {
        let inboxes: Vec<_> = {
            let mut open = self.lock();
            open.closing = true;
            let handles = open.jobs.values().chain(&open.settled);
            handles.map(|handle| handle.inbox.clone()).collect()
        };
        for inbox in inboxes {
            let _ = inbox.send(Input::Event(Event::Shutdown)).await;
            inbox.closed().await;
        }
    }

    /// The inbox of a job, which is opened first if necessary.
    fn inbox(self: &Arc<Self>, job: &Job, spki: &[u8]) -> Result<mpsc::Sender<Input>, Failed> {
        let digest = job.digest();
        let mut open = self.lock();
        if open.closing {
            return Err(Failed::new(Reason::Shutdown, "the service is shutting down"));
        }
        if let Some(handle) = open.jobs.get(&digest) {
            return Ok(handle.inbox.clone());
        }
        let key = KeyId::of_spki(spki);
        let rival = open
            .jobs
            .values()
            .find(|handle| handle.job.name() == job.name() && concerns(&handle.job, job, key));
        if let Some(rival) = rival {
            let differences = job.differences(&rival.job).join("; ");
            let text = format!(
                "the job '{}' is open here with other terms ({differences}; 'here' is this party, \
                 'there' the open job); all parties need the same job file",
                job.name()
            );
            return Err(Failed::new(Reason::OtherTerms, text));
        }
        if open.count() >= MAXIMUM_JOBS {
            let text = format!("the service has {MAXIMUM_JOBS} jobs open, its limit; try later");
            return Err(Failed::new(Reason::NoRoom, text));
        }
        let (inbox, inputs) = mpsc::channel(EVENT_QUEUE);
        let handle = Handle { job: job.clone(), inbox: inbox.clone() };
        open.jobs.insert(digest, handle);
        tracing::info!(job = %digest.short(), parties = job.parties().count(), "a job is opened");
        self.shared.job_opened();
        let opened = Instant::now();
        let task = Task {
            machine: JobMachine::new(job.clone(), self.shared.budget.clone()),
            outboxes: HashMap::new(),
            inbox: inbox.downgrade(),
            deadline: Instant::now() + Duration::from_secs(job.deadline_seconds()),
            patience: self.patience,
            absent: VecDeque::new(),
            signer: Signer(self.identity.clone()),
        };
        let registry = Arc::clone(self);
        let own = inbox.clone();
        tokio::spawn(async move {
            let settled = || {
                registry.settle(&own);
                opened.elapsed()
            };
            let (result, elapsed) = task.run(inputs, settled).await;
            registry.forget(&own);
            registry.shared.job_over(elapsed, result);
            tracing::info!(job = %digest.short(), "a job is over");
        });
        Ok(inbox)
    }

    /// Makes room for another run of a job that is decided.
    fn settle(&self, inbox: &mpsc::Sender<Input>) {
        let open = &mut *self.lock();
        open.settled
            .extend(open.jobs.extract_if(|_, handle| handle.is(inbox)).map(|(_, handle)| handle));
    }

    fn forget(&self, inbox: &mpsc::Sender<Input>) {
        let mut open = self.lock();
        open.jobs.retain(|_, handle| !handle.is(inbox));
        open.settled.retain(|handle| !handle.is(inbox));
    }

    /// The policies for providers' evidence: the job's, if it asks the service to verify them, and
    /// the operator's.
    fn policies(&self, job: &Job) -> Result<Vec<Policy>, Failed> {
        let Mode::Attested(service) = job.mode();
        let of_the_job = match &service.verify {
            Verify::Service { .. } => return Ok(self.provider_policy.iter().cloned().collect()),
            Verify::TwoWay { provider_policy, .. } | Verify::Provider { provider_policy } => {
                provider_policy.as_ref().map(Policy::from_json).transpose()
            }
        };
        let of_the_job = of_the_job.map_err(|error| {
            Failed::new(Reason::InvalidJob, format!("provider.policy: {error}"))
        })?;
        let policies: Vec<_> = of_the_job.into_iter().chain(self.provider_policy.clone()).collect();
        if policies.is_empty() {
            let text = "the job asks the service to verify the providers' evidence, but neither \
                        the job nor the service has a policy to verify it against";
            return Err(Failed::new(Reason::InvalidJob, text));
        }
        Ok(policies)
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A party may open or join a job only if the job lists it, with the key it proved.
fn on_the_roster(job: &Job, name: &str, spki: &[u8]) -> Result<(), Failed> {
    let Parties::Named(parties) = job.parties() else { return Ok(()) };
    let proven = KeyId::of_spki(spki);
    let Some(party) = parties.iter().find(|party| party.name == name) else {
        let text = format!("the job '{}' lists no party '{name}'", job.name());
        return Err(Failed::new(Reason::Stranger, text));
    };
    if party.key == proven {
        return Ok(());
    }
    let text = format!(
        "the job '{}' pins {} for '{name}', and this connection proved {proven}; \
         use the key file that belongs to the job file, or put its fingerprint there",
        job.name(),
        party.key
    );
    Err(Failed::new(Reason::Stranger, text))
}

/// Whether a party that brings `new` means `open`: the open job lists its key, or neither job lists
/// anybody.
fn concerns(open: &Job, new: &Job, key: KeyId) -> bool {
    match (open.parties(), new.parties()) {
        (Parties::Named(parties), _) => parties.iter().any(|party| party.key == key),
        (Parties::Unpinned { .. }, Parties::Unpinned { .. }) => true,
        (Parties::Unpinned { .. }, Parties::Named(_)) => false,
    }
}

struct Signer(Identity);

impl Sign for Signer {
    fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.0.sign(message)
    }
}

/// One job, running.
struct Task {
    machine: JobMachine,
    outboxes: HashMap<ConnectionId, Outbox>,
    inbox: mpsc::WeakSender<Input>,
    deadline: Instant,
    /// How long a party whose connection broke may take to come back.
    patience: Duration,
    /// Until when parties may come back, earliest first.
    absent: VecDeque<(Instant, ConnectionId)>,
    signer: Signer,
}

/// What a job's task does besides sending.
#[derive(Default)]
struct Progress {
    settled: bool,
    finished: bool,
}

impl Task {
    /// Runs the job to its end. Calls `settled` with its duration so far once it is decided.
    /// Returns whether there was a result, and how long it took.
    async fn run(
        mut self,
        mut inputs: mpsc::Receiver<Input>,
        settled: impl Fn() -> Duration,
    ) -> (bool, Duration) {
        let (mut result, mut decided) = (false, None);
        loop {
            let Some(event) = self.next(&mut inputs).await else { continue };
            result |= matches!(event, Event::Joined(_)) && decided.is_none();
            let progress = self.step(event);
            if progress.settled && decided.is_none() {
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
        (result, decided.unwrap_or_else(settled))
    }

    /// What happens to the job next; nothing if an arrival meant another job.
    async fn next(&mut self, inputs: &mut mpsc::Receiver<Input>) -> Option<Event> {
        let absent = self.absent.front().copied();
        let wake = absent.map_or(self.deadline, |(until, _)| until.min(self.deadline));
        match tokio::time::timeout_at(wake, inputs.recv()).await {
            Ok(Some(Input::Event(event))) => Some(event),
            Ok(Some(Input::Arrived(newcomer, answer))) => {
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
            Ok(None) => Some(Event::Shutdown),
            Err(_) => match absent {
                Some((until, connection)) if until <= self.deadline => {
                    self.absent.pop_front();
                    Some(Event::Lost(connection))
                }
                _ => Some(Event::Deadline),
            },
        }
    }

    /// Runs one event.
    fn step(&mut self, event: Event) -> Progress {
        let left = self.deadline.saturating_duration_since(Instant::now()).as_secs();
        let mut queue = vec![event];
        let mut progress = Progress::default();
        while let Some(event) = queue.pop() {
            for effect in self.machine.handle(event, left, unix_now(), &self.signer) {
                match effect {
                    Effect::Send(connection, message) => {
                        let outbox = self.outboxes.get(&connection);
                        let full =
                            outbox.is_some_and(|outbox| outbox.messages.try_send(message).is_err());
                        if full {
                            self.outboxes.remove(&connection);
                            queue.push(Event::Left(connection));
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
        }
        progress
    }

    fn join(&self, sets: Vec<ReceivedSet>, room: Option<Reservation>) {
        let inbox = self.inbox.clone();
        tokio::spawn(async move {
            let joined = tokio::task::spawn_blocking(move || {
                let bitmaps = engine::intersect(sets);
                drop(room);
                bitmaps
            })
            .await;
            let event = joined.map_or(Event::JoinFailed, Event::Joined);
            if let Some(inbox) = inbox.upgrade() {
                let _ = inbox.send(Input::Event(event)).await;
            }
        });
    }
}
