//! The open jobs, with one task for each.

mod task;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use convelo_attest::{Evidence, OneTimeKey, Policy, Refusal};
use convelo_channel::{
    Acquaintance, Holder, Identity, Peer, SlotLimits, Slots, os_rng, stranger_line,
};
use convelo_psi::{Job, JobDigest, KeyId, Parties, Service};
use convelo_wire::{Bytes, Failed, Hello, OfferEvidence, OtherTerms, Reason, ToParty};
use rand_core::Rng as _;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::attester::{Claim, Queue, Session};
use crate::budget::Need;
use crate::job::{Arrival, ConnectionId, Event, JobMachine, Shown};
use crate::limits::{
    EVENT_QUEUE, MAXIMUM_JOB_LISTS, MAXIMUM_JOB_VALUES, MAXIMUM_JOBS_EACH, WAITING_TIMEOUT,
};
use crate::memory::{Limits, size};
use crate::policies::Policies;
use crate::shared::Shared;

use self::task::{Ended, Input, Newcomer, Outbox, SeatedKeys, Signer, Task};

/// The open jobs of a service.
pub(crate) struct Registry {
    open: Mutex<Open>,
    reading: Mutex<()>,
    identity: Identity,
    /// The operator's policy for every party's evidence, if there is one.
    provider_policy: Arc<[Policy]>,
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
    /// What its evidence must meet, now and at every later attestation.
    pub(crate) policies: Policies,
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
            reading: Mutex::default(),
            identity,
            provider_policy: provider_policy.into_iter().collect(),
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
        let (job, policies) = self.read(&hello.job)?;
        let digest = job.digest();
        if session.is_some_and(|session| *session.job() != digest.0) {
            let text = "the Hello names another job than the Challenge";
            return Err(Failed::new(Reason::NotAttested, text));
        }
        on_the_roster(&job, &hello.party, &peer.spki)?;
        self.could_run(&job)?;
        let holders = match acquaintance {
            Acquaintance::Admitted => Vec::new(),
            _ => peer.holders().into(),
        };
        let verifies_providers = job.service().is_some_and(Service::verifies_providers);
        let shown = hello.evidence.clone().filter(|_| verifies_providers);
        let collateral = shown.as_ref().map(|shown| shown.collateral.clone()).unwrap_or_default();
        let claim = claim(&job, &hello, peer, session).map_err(|refusal| {
            if verifies_providers {
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

    /// The job that a Hello brings, and the policies for its parties' evidence. What is read takes many
    /// times as much memory as what is kept of it, so one text is read at a time.
    fn read(&self, text: &[u8]) -> Result<(Job, Policies), Failed> {
        let _one_at_a_time = lock(&self.reading);
        is_plain_enough(text)?;
        let invalid = |text: String| Failed::new(Reason::InvalidJob, text);
        let job = Job::from_canonical(text);
        let job = job.map_err(|error| invalid(format!("the job is not valid: {error}")))?;
        if job.recipe().is_none() {
            let text = "the job is of recipe 1, by which different records can have the same key: all \
                        parties need programs of recipe 2 or later, which derive a new job from its file";
            return Err(invalid(text.to_owned()));
        }
        if let Some(protocol) = job.protocol() {
            let text = format!(
                "the job has mode = \"{}\": its parties meet each other, and no service takes part",
                protocol.as_str()
            );
            return Err(invalid(text));
        }
        let policies = Policies::of(&job, Arc::clone(&self.provider_policy));
        if policies.read()?.iter().any(Policy::is_simulated) && !self.insecure_simulated {
            let text = "the policy for the providers accepts a simulated platform, whose evidence proves \
                        nothing, and this service was not started with --insecure-simulated";
            return Err(invalid(text.to_owned()));
        }
        Ok((job, policies))
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
    if job.service().is_some_and(Service::verifies_providers) {
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
    use super::*;

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
}
