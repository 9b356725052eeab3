//! The open jobs, with one task for each.
//!
//! A task owns its job's state machine and everything that the job holds; when it ends, so does all
//! of that. Parties reach it through a bounded queue of events.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use convelo_attest::{Evidence, OneTimeKey, Policy, Refusal};
use convelo_channel::{
    Acquaintance, Holder, Identity, Lost, Peer, Place, Slot, SlotLimits, Slots, os_rng,
    stranger_line,
};
use convelo_psi::{Job, JobDigest, KeyId, Mode, Parties, ReceivedSet, Verify, engine};
use convelo_wire::{Bytes, Failed, FromParty, Hello, OfferEvidence, OtherTerms, Reason, ToParty};
use rand_core::Rng as _;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use crate::attester::{Claim, Queue, Session, unix_now};
use crate::budget::{Need, Reservation};
use crate::job::{Arrival, ConnectionId, Effect, Event, JobMachine, Shown, Sign};
use crate::limits::{
    EVENT_QUEUE, MAXIMUM_JOB_LISTS, MAXIMUM_JOB_VALUES, MAXIMUM_JOBS_EACH, UPLOAD_BYTES_PER_SECOND,
    UPLOAD_CHECK, UPLOAD_GRACE, WAITING_QUEUE, WAITING_TIMEOUT,
};
use crate::memory::{Limits, size};
use crate::shared::Shared;

/// The open jobs of a service.
pub(crate) struct Registry {
    open: Mutex<Open>,
    identity: Identity,
    /// The operator's policy for every party's evidence.
    provider_policy: Option<Policy>,
    /// Whether the operator accepts policies for a simulated platform.
    insecure_simulated: bool,
    /// How long a party whose connection broke may take to come back.
    patience: Duration,
    next_connection: AtomicU64,
    shared: Shared,
    /// A job is kept once all its parties have come.
    slots: Arc<Slots>,
}

#[derive(Default)]
struct Open {
    jobs: HashMap<JobDigest, Handle>,
    /// Jobs that are decided, but whose outcome some parties have yet to hear.
    settled: Vec<Handle>,
    closing: bool,
}

impl Open {
    /// Compares a new job with the open ones of its name. Those who wait in them are told of it, if they
    /// may be meant; returns what to tell the new one of them.
    ///
    /// # Errors
    /// If one of them is meant for certain.
    fn compare(
        &self,
        new: &Job,
        (name, key): (&str, KeyId),
        holders: &[Holder],
    ) -> Result<Vec<OtherTerms>, Failed> {
        let same_name = self.jobs.values().filter(|open| open.job.name() == new.name());
        let rivals: Vec<_> =
            same_name.filter_map(|open| Some((open, rivalry(open, new, key, holders)?))).collect();
        for (open, _) in &rivals {
            // A notice at most: a queue that is full has more important things in it.
            let brought = OtherTerms { party: open.name_of(key, name), job: new.digest() };
            let _ = open.inbox.try_send(Input::Event(Event::OtherTerms(brought)));
        }
        if let Some((open, _)) = rivals.iter().find(|(_, rivalry)| *rivalry == Rivalry::Certain) {
            let differences = new.differences(&open.job).join("; ");
            let text = format!(
                "the job '{}' is open here with other terms ({differences}; 'here' is this party, \
                 'there' the open job); all parties need the same job file",
                new.name()
            );
            return Err(Failed::new(Reason::OtherTerms, text));
        }
        let notice =
            |open: &Handle| OtherTerms { party: open.opener_name.clone(), job: open.job.digest() };
        Ok(rivals.iter().map(|(open, _)| notice(open)).collect())
    }
}

struct Handle {
    job: Job,
    /// The key of the party that opened it, what that calls itself, and whom its slot counts for.
    opener: KeyId,
    opener_name: String,
    holders: Vec<Holder>,
    inbox: mpsc::Sender<Input>,
    seated: SeatedKeys,
}

/// The keys of those who have a seat in a job.
type SeatedKeys = Arc<Mutex<HashSet<KeyId>>>;

impl Handle {
    /// What the job calls the party with this key, which calls itself `name`.
    fn name_of(&self, key: KeyId, name: &str) -> String {
        let listed = self.job.parties().named().iter().find(|party| party.key == key);
        listed.map_or(name, |party| party.name.as_str()).to_owned()
    }

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
    /// The connection, to tell it what is expected.
    place: Option<Place>,
    _open: oneshot::Sender<()>,
}

impl Outbox {
    /// Sends a message; false if too many wait to be sent already.
    fn takes(&self, message: ToParty, gathering: bool) -> bool {
        let waiting = self.messages.max_capacity() - self.messages.capacity();
        (!gathering || waiting < WAITING_QUEUE) && self.messages.try_send(message).is_ok()
    }
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
    /// The collateral that it offers for its platform.
    collateral: Bytes,
}

impl Entered {
    /// This evidence of the party, with its collateral.
    pub(crate) fn claim(&self, evidence: Arc<Evidence>) -> Claim {
        Claim { evidence: vec![evidence], collateral: self.collateral.clone() }
    }
}

impl Registry {
    pub(crate) fn new(
        identity: Identity,
        provider_policy: Option<Policy>,
        insecure_simulated: bool,
        patience: Duration,
        shared: Shared,
    ) -> Arc<Self> {
        let Limits { waiting_jobs, running_jobs, .. } = shared.limits;
        let slots = Slots::new(SlotLimits {
            open: waiting_jobs,
            open_each: waiting_jobs.div_ceil(2).min(MAXIMUM_JOBS_EACH),
            kept: running_jobs,
            kept_each: running_jobs.div_ceil(2).min(MAXIMUM_JOBS_EACH),
        });
        Arc::new(Self {
            open: Mutex::default(),
            identity,
            provider_policy,
            insecure_simulated,
            patience,
            next_connection: AtomicU64::new(0),
            shared,
            slots,
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
        acquaintance: Acquaintance,
        hello: Hello,
        session: Option<&Session>,
        outgoing: mpsc::Sender<ToParty>,
    ) -> Result<Entered, Failed> {
        is_plain_enough(&hello.job)?;
        let job = Job::from_canonical(&hello.job).map_err(|error| {
            Failed::new(Reason::InvalidJob, format!("the job is not valid: {error}"))
        })?;
        if job.recipe().is_none() {
            let text = "the job is of recipe 1, by which different records can have the same key: all \
                        parties need programs of recipe 2 or later, which derive a new job from its file";
            return Err(Failed::new(Reason::InvalidJob, text));
        }
        let digest = job.digest();
        if session.is_some_and(|session| *session.job() != digest.0) {
            let text = "the Hello names another job than the Challenge";
            return Err(Failed::new(Reason::NotAttested, text));
        }
        on_the_roster(&job, &hello.party, &peer.spki)?;
        self.could_run(&job)?;
        let policies = self.policies(&job)?;
        let holders = match acquaintance {
            Acquaintance::Admitted => Vec::new(),
            _ => peer.holders().into(),
        };
        let Mode::Attested(service) = job.mode();
        let shown = hello.evidence.clone().filter(|_| service.verifies_providers());
        let collateral = shown.as_ref().map(|shown| shown.collateral.clone()).unwrap_or_default();
        let claim = claim(&job, &hello, peer, session).map_err(|refusal| {
            if service.verifies_providers() {
                return refusal;
            }
            refusal.advice(
                "this service's operator demands every provider's evidence, which a party shows only \
                 where the job asks for it: have the job say verify = \"two-way\", run inside an enclave, \
                 or use another service",
            )
        });
        let claim = claim.map(|evidence| Claim { evidence, collateral: collateral.clone() });
        let (source, verifier) = (peer.address.ip(), &self.shared.verifier);
        verifier.judge(Queue::of(acquaintance), source, &hello.party, claim, &policies).await?;
        // The job has the evidence of a party that goes on.
        let shown = shown.filter(|_| hello.received.is_none_or(|received| received == 0));
        let evidence = shown.map(|shown| self.room_for(shown, &job, &holders)).transpose()?;
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
                evidence,
                holders: holders.clone(),
            },
            outbox: Outbox { messages: outgoing, place: Some(peer.place.clone()), _open: open },
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
                None => self.inbox(&job, &name, &peer.spki, &holders)?,
            };
            match newcomer.knock(&inbox).await? {
                Ok(()) => {
                    let seat = Seat { connection, inbox, closed };
                    return Ok(Entered { seat, name, policies, collateral });
                }
                Err(back) => newcomer = back,
            }
            if inbox.is_closed() {
                self.forget(&inbox);
            }
        }
    }

    /// Whether a job of so many parties could run here, if nothing else did.
    fn could_run(&self, job: &Job) -> Result<(), Failed> {
        let (room, parties) = (&self.shared.room, job.parties().count());
        let (needed, total) = (room.to_begin(parties), room.beside().total());
        if needed <= total {
            return Ok(());
        }
        let text = format!(
            "a job of {parties} parties needs {} at the service beside its sets, which has {} for that; it needs \
             a service with more memory",
            size(needed),
            size(total)
        );
        Err(Failed::new(Reason::NoRoom, text))
    }

    /// The jobs with this digest, the decided ones first.
    fn may_go_on(&self, digest: JobDigest) -> Vec<mpsc::Sender<Input>> {
        let open = self.lock();
        let settled = open.settled.iter().filter(|handle| handle.job.digest() == digest);
        settled.chain(open.jobs.get(&digest)).map(|handle| handle.inbox.clone()).collect()
    }

    /// Whether another job could run.
    pub(crate) fn takes_jobs(&self) -> bool {
        let Shared { limits, room, .. } = &self.shared;
        !self.is_closing() && self.slots.kept() < limits.running_jobs && room.is_left()
    }

    /// Whether the service has been told to stop.
    pub(crate) fn is_closing(&self) -> bool {
        self.lock().closing
    }

    /// Whether somebody with this key has a seat in a job.
    pub(crate) fn has_seated(&self, key: &[u8; 32]) -> bool {
        let open = self.lock();
        let mut handles = open.jobs.values().chain(&open.settled);
        handles.any(|handle| lock(&handle.seated).contains(&KeyId(*key)))
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
    fn inbox(
        self: &Arc<Self>,
        job: &Job,
        name: &str,
        spki: &[u8],
        holders: &[Holder],
    ) -> Result<mpsc::Sender<Input>, Failed> {
        let digest = job.digest();
        let mut open = self.lock();
        if open.closing {
            return Err(Failed::new(Reason::Shutdown, "the service is shutting down"));
        }
        if let Some(handle) = open.jobs.get(&digest) {
            return Ok(handle.inbox.clone());
        }
        let key = KeyId::of_spki(spki);
        let notices = open.compare(job, (name, key), holders)?;
        let (slot, lost) = self.slots.take(holders);
        let now = Instant::now();
        let deadline = now + Duration::from_secs(job.deadline_seconds());
        let waits_until = if holders.is_empty() {
            slot.welcome();
            deadline
        } else {
            deadline.min(now + WAITING_TIMEOUT)
        };
        let (inbox, inputs) = mpsc::channel(EVENT_QUEUE);
        for notice in notices {
            let _ = inbox.try_send(Input::Event(Event::OtherTerms(notice)));
        }
        let seated = SeatedKeys::default();
        let handle = Handle {
            job: job.clone(),
            opener: key,
            opener_name: name.to_owned(),
            holders: holders.to_vec(),
            inbox: inbox.clone(),
            seated: Arc::clone(&seated),
        };
        open.jobs.insert(digest, handle);
        let told = if holders.is_empty() { Some(0) } else { stranger_line() };
        if let Some(left_out) = told {
            let (job, parties) = (digest.short(), job.parties().count());
            tracing::info!(%job, parties, left_out, "a job is opened");
        }
        self.shared.job_opened();
        let opened = Instant::now();
        let mut run = [0; 32];
        os_rng().fill_bytes(&mut run);
        let task = Task {
            machine: JobMachine::new(job.clone(), run, self.shared.room.clone()),
            outboxes: HashMap::new(),
            inbox: inbox.downgrade(),
            seated,
            slot,
            lost,
            deadline,
            waits_until,
            uploading: None,
            patience: self.patience,
            absent: VecDeque::new(),
            signer: Signer(self.identity.clone()),
            shared: self.shared.clone(),
        };
        let registry = Arc::clone(self);
        let own = inbox.clone();
        tokio::spawn(async move {
            let settled = || {
                registry.settle(&own);
                opened.elapsed()
            };
            let Ended { failure, parties, elapsed } = task.run(inputs, settled).await;
            registry.forget(&own);
            registry.shared.job_over(elapsed, failure.is_none());
            if told.is_some() {
                tracing::info!(
                    job = %digest.short(),
                    outcome = if failure.is_none() { "result" } else { "no result" },
                    reason = failure.map(tracing::field::display),
                    seconds = elapsed.as_secs(),
                    parties = %listed(&parties),
                    "a job is over"
                );
            }
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

    /// Reserves memory for what a party shows: once here, and once on its way to each party.
    fn room_for(
        &self,
        evidence: OfferEvidence,
        job: &Job,
        holders: &[Holder],
    ) -> Result<Shown, Failed> {
        let copies = job.parties().count() + 1;
        let need = Need { bytes: (evidence.len() * copies) as u64, holders: holders.to_vec() };
        let room = self.shared.budget().reserve_all(&[need]).map_err(|_| {
            let text = "the service has no room to pass this party's evidence on to the others: its \
                        memory is taken, or this party's share of it; try later";
            Failed::new(Reason::NoRoom, text)
        })?;
        Ok(Shown { evidence, _room: room })
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
        if policies.iter().any(Policy::is_simulated) && !self.insecure_simulated {
            let text = "the policy for the providers accepts a simulated platform, whose evidence proves \
                        nothing, and this service was not started with --insecure-simulated";
            return Err(Failed::new(Reason::InvalidJob, text));
        }
        Ok(policies)
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        lock(&self.open)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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

/// What a party has proved: on this connection and, if the job asks for it, about its one-time key. The
/// other parties verify the latter, too; who would fail there gets no seat, and spoils no job.
fn claim(
    job: &Job,
    hello: &Hello,
    peer: &Peer,
    session: Option<&Session>,
) -> Result<Vec<Arc<Evidence>>, Refusal> {
    let mut proved = vec![match (session, &peer.evidence) {
        (_, None) => return Err(Refusal::missing_evidence()),
        (Some(session), Some(_)) => session.evidence()?,
        (None, Some(evidence)) => Arc::clone(evidence),
    }];
    let Mode::Attested(service) = job.mode();
    if service.verifies_providers() {
        let key = OneTimeKey {
            job: &job.digest().0,
            party: &hello.party,
            identity: &peer.spki,
            key: hello.offer.one_time_key.as_slice(),
        };
        let quote = hello.evidence.as_ref().map(|shown| shown.quote.clone()).unwrap_or_default();
        proved.push(Arc::new(key.evidence(&quote)?));
    }
    Ok(proved)
}

/// How surely an open job is meant by a party that brings another one of its name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rivalry {
    Certain,
    /// Neither job lists anybody, and a stranger elsewhere could have opened the other: both wait.
    Possible,
}

/// Whether a party that brings `new` means `open`: the open job lists its key and was opened by
/// somebody whom its own job lists, or neither job lists anybody. A stranger may list whom it
/// likes. Where nobody is listed, it is certain if the other was opened from the same address, by the
/// same key, or by somebody whom the operator admits as well.
fn rivalry(open: &Handle, new: &Job, key: KeyId, holders: &[Holder]) -> Option<Rivalry> {
    let lists = |job: &Job, key| job.parties().named().iter().any(|party| party.key == key);
    let meant = match (open.job.parties(), new.parties()) {
        (Parties::Named(_), Parties::Named(_)) => lists(&open.job, key) && lists(new, open.opener),
        (Parties::Named(_), Parties::Unpinned { .. }) => lists(&open.job, key),
        (Parties::Unpinned { .. }, Parties::Named(_)) => false,
        (Parties::Unpinned { .. }, Parties::Unpinned { .. }) => {
            let admitted = open.holders.is_empty() && holders.is_empty();
            let near = admitted || open.holders.iter().any(|holder| holders.contains(holder));
            return Some(if near { Rivalry::Certain } else { Rivalry::Possible });
        }
    };
    meant.then_some(Rivalry::Certain)
}

/// Fingerprints in a line of the log, in an order that says nothing.
fn listed(keys: &HashSet<KeyId>) -> String {
    let mut keys: Vec<String> = keys.iter().map(ToString::to_string).collect();
    keys.sort_unstable();
    keys.join(",")
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
    /// For the registry, which wants to know who belongs here.
    seated: SeatedKeys,
    slot: Slot,
    lost: Lost,
    deadline: Instant,
    /// How long the job may wait for its parties.
    waits_until: Instant,
    /// When the parties were told to upload, and when their pace is checked next.
    uploading: Option<(Instant, Instant)>,
    /// How long a party whose connection broke may take to come back.
    patience: Duration,
    /// Until when parties may come back, earliest first.
    absent: VecDeque<(Instant, ConnectionId)>,
    signer: Signer,
    shared: Shared,
}

/// How a job ended.
struct Ended {
    /// Why there was no result, if there was none.
    failure: Option<Reason>,
    /// The keys of those who had a seat when that was decided.
    parties: HashSet<KeyId>,
    /// How long it took to be decided.
    elapsed: Duration,
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
    async fn run(
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

/// Refuses a job whose text would take far more memory as values than as text: 64 KiB of brackets are
/// megabytes of lists. Counted before anything of it is read.
fn is_plain_enough(text: &[u8]) -> Result<(), Failed> {
    let (mut quoted, mut escaped, mut lists, mut values) = (false, false, 0, 0);
    for byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'[' | b'{' if !quoted => lists += 1,
            b',' | b':' if !quoted => values += 1,
            _ => {}
        }
    }
    if lists <= MAXIMUM_JOB_LISTS && values <= MAXIMUM_JOB_VALUES {
        return Ok(());
    }
    let text = format!(
        "the job has {lists} lists and tables with {values} values in them; at most {MAXIMUM_JOB_LISTS} and \
         {MAXIMUM_JOB_VALUES} are taken: shorten its policy"
    );
    Err(Failed::new(Reason::InvalidJob, text))
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use convelo_psi::agreement::{Confirmation, KeyOffer, SealedShare};
    use convelo_psi::limits::ONE_TIME_KEY_BYTES;
    use convelo_psi::terms;
    use convelo_wire::Announcement;

    use super::*;
    use crate::budget::Budget;

    const SOURCE: Holder = Holder::Source(IpAddr::V4(Ipv4Addr::LOCALHOST));
    const DEADLINE: Duration = Duration::from_hours(7 * 24);
    const NAMES: [&str; 2] = ["alice", "bob"];

    /// A job of two parties and seven days, whose task runs.
    struct Scene {
        inbox: mpsc::Sender<Input>,
        budget: Budget,
        slots: Arc<Slots>,
        seated: SeatedKeys,
        messages: Vec<mpsc::Receiver<ToParty>>,
        opened: Instant,
    }

    impl Scene {
        fn new(waits: Duration) -> Self {
            let service = terms::Service::default();
            let deadline = DEADLINE.as_secs();
            let job = Job::unpinned("job", 2, 10_000_000, deadline, service).expect("valid");
            let shared = Shared::alone(1 << 30, None);
            let (budget, opened) = (shared.budget().clone(), Instant::now());
            let slots = Slots::new(SlotLimits { open: 2, open_each: 2, kept: 1, kept_each: 1 });
            let (slot, lost) = slots.take([SOURCE]);
            let (inbox, inputs) = mpsc::channel(EVENT_QUEUE);
            let seated = SeatedKeys::default();
            let task = Task {
                machine: JobMachine::new(job, [0; 32], shared.room.clone()),
                outboxes: HashMap::new(),
                inbox: inbox.downgrade(),
                seated: Arc::clone(&seated),
                slot,
                lost,
                deadline: opened + DEADLINE,
                waits_until: opened + waits,
                uploading: None,
                patience: Duration::from_secs(30),
                absent: VecDeque::new(),
                signer: Signer(Identity::generate()),
                shared,
            };
            tokio::spawn(async move { task.run(inputs, || opened.elapsed()).await });
            Self { inbox, budget, slots, seated, messages: Vec::new(), opened }
        }

        async fn arrive(&mut self) {
            let number = self.messages.len();
            let (messages, received) = mpsc::channel(100);
            let (open, _closed) = oneshot::channel();
            self.messages.push(received);
            let key = u8::try_from(number).expect("two");
            let arrival = Arrival {
                connection: ConnectionId(number as u64),
                name: NAMES[number].to_owned(),
                spki: vec![key],
                offer: KeyOffer {
                    one_time_key: Box::new([key; ONE_TIME_KEY_BYTES]),
                    signature: Vec::new(),
                },
                received: None,
                evidence: None,
                holders: vec![SOURCE],
            };
            let newcomer =
                Newcomer { arrival, outbox: Outbox { messages, place: None, _open: open } };
            assert!(newcomer.knock(&self.inbox).await.expect("a job").is_ok());
        }

        async fn say(&self, party: usize, message: FromParty) {
            let event = Event::Message(ConnectionId(party as u64), Ok(message));
            self.inbox.send(Input::Event(event)).await.expect("a job");
        }

        /// Both parties come, agree, and announce this many keys.
        async fn announce(&mut self, keys: u64) {
            self.arrive().await;
            self.arrive().await;
            let each = [(0, 1), (1, 0)];
            for (party, other) in each {
                let (from, to) = (NAMES[party].to_owned(), NAMES[other].to_owned());
                let share = SealedShare { from, to, sealed: vec![7; 80] };
                self.say(party, FromParty::Shares(vec![share])).await;
            }
            for (party, _) in each {
                self.say(
                    party,
                    FromParty::Confirmation(Confirmation { tag: [7; 32], signature: Vec::new() }),
                )
                .await;
            }
            for (party, _) in each {
                let announcement = Announcement { keys, blake3: [7; 32] };
                self.say(party, FromParty::Announcement(announcement)).await;
            }
            for messages in &mut self.messages {
                while !matches!(messages.recv().await, None | Some(ToParty::Ready)) {}
            }
        }

        /// Why a party's stream ends, and how long after the job was opened.
        async fn failure(&mut self, party: usize) -> (Failed, Duration) {
            loop {
                let message = self.messages[party].recv().await;
                if let ToParty::Failed(failed) = message.expect("the stream ends with a reason") {
                    return (failed, self.opened.elapsed());
                }
            }
        }
    }

    #[test]
    fn job_of_nothing_but_brackets() {
        let brackets =
            |count: usize| format!("{{\"x\":{}{}}}", "[".repeat(count), "]".repeat(count));
        let (lists, numbers) = ("[],".repeat(20_000), "0,".repeat(9000));
        for hostile in [brackets(30_000), format!("[{lists}0]"), format!("[{numbers}0]")] {
            let refused = is_plain_enough(hostile.as_bytes()).expect_err("too much");
            assert_eq!(refused.reason, Reason::InvalidJob);
        }
        // What stands in a text is no list.
        let text = format!("{{\"x\":\"\\\"{}\"}}", "[{,:".repeat(5000));
        assert!(is_plain_enough(text.as_bytes()).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_of_strangers_does_not_wait_as_long_as_its_first_party_wishes() {
        let mut scene = Scene::new(WAITING_TIMEOUT);
        scene.arrive().await;
        let Some(ToParty::Waiting(waiting)) = scene.messages[0].recv().await else {
            panic!("not told to wait");
        };
        assert_eq!(waiting.seconds_left, WAITING_TIMEOUT.as_secs());
        let (failed, after) = scene.failure(0).await;
        assert_eq!((failed.reason, after), (Reason::Deadline, WAITING_TIMEOUT));
        let text = "the job has waited 3600 s for 1 of 2 parties, as long as this service lets";
        assert!(failed.explanation.starts_with(text), "{failed}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_that_is_admitted_waits_until_its_deadline() {
        let mut scene = Scene::new(DEADLINE);
        scene.arrive().await;
        let (failed, after) = scene.failure(0).await;
        assert_eq!((failed.reason, after), (Reason::Deadline, DEADLINE));
        assert!(failed.explanation.contains("the job's deadline of 604800 s passed"), "{failed}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_job_that_waits_makes_room() {
        let mut scene = Scene::new(WAITING_TIMEOUT);
        scene.arrive().await;
        let _newcomers = [(); 2].map(|()| scene.slots.take([SOURCE]));
        let (failed, _) = scene.failure(0).await;
        assert_eq!(failed.reason, Reason::NoRoom);
        assert!(failed.explanation.contains("this one had waited longest"), "{failed}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_that_runs_makes_no_room() {
        let mut scene = Scene::new(WAITING_TIMEOUT);
        scene.announce(1000).await;
        let newcomers = [(); 3].map(|()| scene.slots.take([SOURCE]));
        assert!(!newcomers[2].0.keep());
        assert_eq!(scene.failure(0).await.1, UPLOAD_GRACE + UPLOAD_CHECK, "nobody uploads");
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_that_cannot_run_says_so() {
        let mut scene = Scene::new(WAITING_TIMEOUT);
        let (other, _lost) = scene.slots.take([SOURCE]);
        assert!(other.keep());
        scene.arrive().await;
        scene.arrive().await;
        for party in [0, 1] {
            let (failed, _) = scene.failure(party).await;
            assert_eq!(failed.reason, Reason::NoRoom);
            assert!(failed.explanation.contains("runs as many jobs as it can"), "{failed}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn memory_for_sets_that_nobody_uploads_is_given_back() {
        let mut scene = Scene::new(WAITING_TIMEOUT);
        scene.announce(10_000_000).await;
        let (failed, after) = scene.failure(1).await;
        assert_eq!((failed.reason, after), (Reason::Deadline, UPLOAD_GRACE + UPLOAD_CHECK));
        let text = "the upload of 'alice', 'bob' were too slow";
        assert!(failed.explanation.starts_with(text), "{failed}");
        assert!(scene.budget.reserve(1 << 30).is_some(), "all memory is free");
    }

    #[tokio::test(start_paused = true)]
    async fn an_upload_that_drips_holds_no_memory() {
        let mut scene = Scene::new(WAITING_TIMEOUT);
        scene.announce(10_000_000).await;
        for value in 0..100_u128 {
            let chunk = (value + 1).to_be_bytes().to_vec();
            for party in [0, 1] {
                let event =
                    Event::Message(ConnectionId(party), Ok(FromParty::Chunk(chunk.clone().into())));
                let _ = scene.inbox.send(Input::Event(event)).await;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        let (failed, after) = scene.failure(0).await;
        assert_eq!(failed.reason, Reason::Deadline);
        assert!(failed.explanation.contains("too slow"), "{failed}");
        assert!(after < Duration::from_secs(110));
        assert!(scene.budget.reserve(1 << 30).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_upload_goes_on() {
        const A_SECOND: u128 = UPLOAD_BYTES_PER_SECOND as u128 / 16;
        let mut scene = Scene::new(WAITING_TIMEOUT);
        scene.announce(10_000_000).await;
        for second in 0..600 {
            let values = (0..A_SECOND).map(|value| second * A_SECOND + value + 1);
            let chunk: Vec<u8> = values.flat_map(u128::to_be_bytes).collect();
            for party in [0, 1] {
                scene.say(party, FromParty::Chunk(chunk.clone().into())).await;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        for messages in &mut scene.messages {
            while let Ok(message) = messages.try_recv() {
                assert!(!matches!(message, ToParty::Failed(_)));
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn those_with_a_seat_are_known() {
        let mut scene = Scene::new(WAITING_TIMEOUT);
        scene.arrive().await;
        let has = |scene: &Scene, key: u8| lock(&scene.seated).contains(&KeyId::of_spki(&[key]));
        let _ = scene.messages[0].recv().await;
        assert!(has(&scene, 0) && !has(&scene, 1));
        scene.inbox.send(Input::Event(Event::Left(ConnectionId(0)))).await.expect("a job");
        scene.inbox.closed().await;
        assert!(!has(&scene, 0));
    }
}
