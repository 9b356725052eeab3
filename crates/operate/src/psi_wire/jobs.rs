//! The jobs of this wire: who waits for others, whose job is running, what everyone gets. No clock,
//! no socket, no task.
//!
//! A client says how many clients it expects, and nothing else about its job. So clients wait in
//! one line, and whenever no job is running, the first complete group among them starts one. A
//! client is identified by its key, for all calls; its connection only tells whether it is still
//! there.

use std::sync::Arc;

use convelo_channel::{Holder, os_rng};
use convelo_psi::{Bitmap, KeyId, Pseudonymiser};
use convelo_wire::limits::MAXIMUM_PARTIES;
use rand_core::Rng as _;
use tonic::{Code, Status};
use zeroize::Zeroizing;

use super::ids::Ids;
use crate::limits::{MAXIMUM_PSI_WAITING, MAXIMUM_PSI_WAITING_EACH, PSI_FIRST_UPLOAD};

/// Names one connection.
pub(crate) type ConnectionId = u64;

/// Names one job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Number(u64);

/// The caller.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Client {
    pub(crate) key: KeyId,
    pub(crate) connection: ConnectionId,
    /// Where it comes from.
    pub(crate) source: Holder,
}

/// Why a call is refused.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    code: Code,
    text: String,
}

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// A job has begun; call [`Jobs::idle`] after [`PSI_FIRST_UPLOAD`], and [`Jobs::late`] when its
    /// deadline passes.
    Begun(Number),
    /// A job is decided, with or without a result; call [`Jobs::forget`] once its clients have had
    /// time to hear of it.
    Settled(Number, bool),
    /// Call [`Jobs::lost`] when the client has run out of time to come back.
    Await(ConnectionId),
    /// Join the sets of this job, from [`Jobs::sets`].
    Join(Number),
}

/// All jobs.
#[derive(Default)]
pub(crate) struct Jobs {
    waiting: Vec<Waiting>,
    running: Option<Job>,
    settled: Vec<Job>,
    next: u64,
    closed: bool,
}

/// A client that waits for others, or for its job's turn.
struct Waiting {
    client: Client,
    wanted: usize,
}

struct Job {
    number: Number,
    seats: Vec<Seat>,
    /// Under a key used only in this job, which nobody sees.
    pseudonymiser: Arc<Pseudonymiser>,
}

struct Seat {
    client: Client,
    /// Whether its connection stands.
    attached: bool,
    /// Whether it has begun to upload.
    uploads: bool,
    ids: Option<Arc<Ids>>,
    answer: Option<Result<Bitmap, Refusal>>,
}

impl Refusal {
    pub(crate) fn new(code: Code, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        Self::new(refusal.code, refusal.text)
    }
}

impl Jobs {
    /// Makes a client wait until this many are there, including itself.
    pub(crate) fn connect(&mut self, client: Client, wanted: i64) -> Result<Vec<Effect>, Refusal> {
        let count =
            usize::try_from(wanted).ok().filter(|count| (2..=MAXIMUM_PARTIES).contains(count));
        let Some(count) = count else {
            let text = format!(
                "client_num is {wanted}; a job has 2 to {MAXIMUM_PARTIES} clients; start all of them with \
                 the same -client_num"
            );
            return Err(Refusal::new(Code::InvalidArgument, text));
        };
        if self.closed {
            return Err(closing());
        }
        if self.is_here(client.key) {
            let text = "a client with this key already takes part and is still connected; every client \
                        needs a key of its own, and calls Connect once";
            return Err(Refusal::new(Code::AlreadyExists, text));
        }
        let gathering = self.gathering(client.source);
        if let Some(other) = gathering.first().filter(|_| !gathering.contains(&count)) {
            let text = format!(
                "the clients waiting here expect {other} clients, and this one expects {count}; start all \
                 of them with the same -client_num"
            );
            return Err(Refusal::new(Code::FailedPrecondition, text));
        }
        if self.waiting.len() >= MAXIMUM_PSI_WAITING {
            let text =
                format!("{MAXIMUM_PSI_WAITING} clients are waiting here, the limit; try later");
            return Err(Refusal::new(Code::ResourceExhausted, text));
        }
        let same = |waiting: &&Waiting| waiting.client.source == client.source;
        if self.waiting.iter().filter(same).count() >= MAXIMUM_PSI_WAITING_EACH {
            let text = format!(
                "{MAXIMUM_PSI_WAITING_EACH} clients from this address are waiting here, the limit; try later"
            );
            return Err(Refusal::new(Code::ResourceExhausted, text));
        }
        let mut effects = self.comes_anew(client.key);
        self.waiting.push(Waiting { client, wanted: count });
        effects.extend(self.advance());
        Ok(effects)
    }

    /// How many clients are expected by the jobs that are not complete and for which somebody from this
    /// source waits. What strangers elsewhere expect is nothing to these clients.
    fn gathering(&self, source: Holder) -> Vec<usize> {
        let incomplete = |wanted: &usize| !self.count(*wanted).is_multiple_of(*wanted);
        let same = self.waiting.iter().filter(|waiting| waiting.client.source == source);
        same.map(|waiting| waiting.wanted).filter(incomplete).collect()
    }

    fn count(&self, wanted: usize) -> usize {
        self.waiting.iter().filter(|waiting| waiting.wanted == wanted).count()
    }

    /// Whether a client is waiting, or has a seat in a job.
    pub(crate) fn has(&self, key: KeyId) -> bool {
        let mut seats = self.running.iter().chain(&self.settled).flat_map(|job| &job.seats);
        self.waiting.iter().any(|waiting| waiting.client.key == key)
            || seats.any(|seat| seat.client.key == key)
    }

    /// Whether a client is waiting, or has a seat in the running job and is connected.
    fn is_here(&self, key: KeyId) -> bool {
        let mut seats = self.running.iter().flat_map(|job| &job.seats);
        self.waiting.iter().any(|waiting| waiting.client.key == key)
            || seats.any(|seat| seat.client.key == key && seat.attached)
    }

    /// A disconnected client comes back knowing nothing of its job: it was restarted.
    fn comes_anew(&mut self, key: KeyId) -> Vec<Effect> {
        let mut effects = Vec::new();
        if self.running.iter().flat_map(|job| &job.seats).any(|seat| seat.client.key == key) {
            let text = "a client of this job was restarted, so its earlier run has ended; nothing \
                        of the job is kept; start all clients again";
            effects = self.fail(&Refusal::new(Code::Aborted, text));
        }
        self.leave(key);
        effects
    }

    /// Starts the next job if none is running and one is complete.
    fn advance(&mut self) -> Vec<Effect> {
        let complete = |waiting: &&Waiting| self.count(waiting.wanted) >= waiting.wanted;
        let next = self.waiting.iter().find(complete).map(|waiting| waiting.wanted);
        let (None, Some(wanted)) = (&self.running, next) else { return Vec::new() };
        let mut key = Zeroizing::new([0; 16]);
        os_rng().fill_bytes(&mut *key);
        let pseudonymiser = Arc::new(Pseudonymiser::new(&key));
        let number = Number(self.next);
        self.next += 1;
        let mut left = wanted;
        let mut taken = |waiting: &mut Waiting| {
            let taken = waiting.wanted == wanted && left > 0;
            left -= usize::from(taken);
            taken
        };
        let seats = self.waiting.extract_if(.., |waiting| taken(waiting)).map(|waiting| Seat {
            client: waiting.client,
            attached: true,
            uploads: false,
            ids: None,
            answer: None,
        });
        self.running = Some(Job { number, seats: seats.collect(), pseudonymiser });
        vec![Effect::Begun(number)]
    }

    /// Whether a client may go on because its job has begun; if so, how many clients there are.
    pub(crate) fn connected(&mut self, client: Client) -> Result<Option<usize>, Refusal> {
        if self.waiting.iter().any(|waiting| waiting.client.key == client.key) {
            return Ok(None);
        }
        self.seat(client)?;
        Ok(self.running.as_ref().map(|job| job.seats.len()))
    }

    /// A client has waited long enough.
    pub(crate) fn waited(&mut self, client: Client) -> Refusal {
        let is_it = |waiting: &Waiting| waiting.client.key == client.key;
        let Some(at) = self.waiting.iter().position(is_it) else { return self.no_seat() };
        let wanted = self.waiting.remove(at).wanted;
        let here = (self.count(wanted) + 1).min(wanted);
        let others = self.waiting.iter().find(|waiting| waiting.wanted != wanted);
        let others = others.map_or_else(String::new, |other| {
            let other = other.wanted;
            format!(
                "; somebody waits here for {other} clients: all of a job need the same -client_num"
            )
        });
        let text = format!(
            "the deadline passed when {here} of {wanted} clients were here; the others did not come, or \
             other jobs had their turn{others}"
        );
        Refusal::new(Code::DeadlineExceeded, text)
    }

    /// Whether a client may upload its ids, and what to pseudonymise them with.
    pub(crate) fn may_upload(&mut self, client: Client) -> Result<Arc<Pseudonymiser>, Refusal> {
        if self.seat(client)?.ids.is_some() {
            let text = "this client has already uploaded its ids; they go in one message";
            return Err(Refusal::new(Code::AlreadyExists, text));
        }
        self.seat(client)?.uploads = true;
        let running = self.running.as_ref();
        running.map(|job| Arc::clone(&job.pseudonymiser)).ok_or_else(|| self.no_seat())
    }

    /// Takes in a client's ids.
    pub(crate) fn upload(&mut self, client: Client, ids: Ids) -> Result<Vec<Effect>, Refusal> {
        self.may_upload(client)?;
        self.seat(client)?.ids = Some(Arc::new(ids));
        let complete = self.running.iter().filter(|job| job.late() == 0);
        Ok(complete.map(|job| Effect::Join(job.number)).collect())
    }

    /// The sets of a job, in the order its bitmaps must have.
    pub(crate) fn sets(&self, number: Number) -> Vec<Arc<Ids>> {
        let job = self.running.iter().filter(|job| job.number == number);
        job.flat_map(|job| &job.seats).filter_map(|seat| seat.ids.clone()).collect()
    }

    /// The join of a job has finished, or failed.
    pub(crate) fn joined(
        &mut self,
        number: Number,
        result: Result<Vec<Bitmap>, Refusal>,
    ) -> Vec<Effect> {
        if self.running.as_ref().is_none_or(|job| job.number != number) {
            return Vec::new();
        }
        match result {
            Ok(bitmaps) => self.settle(bitmaps.into_iter().map(Ok)),
            Err(refusal) => self.fail(&refusal),
        }
    }

    /// A client's ids and which of them all clients have, once that is known. A client gets them
    /// once.
    pub(crate) fn result(&mut self, client: Client) -> Result<Option<(Arc<Ids>, Bitmap)>, Refusal> {
        let seat = self.seat(client)?;
        let Some(ids) = seat.ids.clone() else {
            let text = "this client has uploaded no ids; call DataUpload before CalPsi";
            return Err(Refusal::new(Code::FailedPrecondition, text));
        };
        let Some(Ok(bitmap)) = seat.answer.take() else { return Ok(None) };
        self.leave(client.key);
        Ok(Some((ids, bitmap)))
    }

    /// A connection has ended.
    pub(crate) fn left(&mut self, connection: ConnectionId) -> Vec<Effect> {
        self.waiting.retain(|waiting| waiting.client.connection != connection);
        let jobs = self.running.iter_mut().chain(&mut self.settled);
        let seat =
            jobs.flat_map(|job| &mut job.seats).find(|seat| seat.client.connection == connection);
        match seat {
            Some(seat) => {
                seat.attached = false;
                vec![Effect::Await(connection)]
            }
            None => Vec::new(),
        }
    }

    /// A client has not come back in time.
    pub(crate) fn lost(&mut self, connection: ConnectionId) -> Vec<Effect> {
        let is_it = |seat: &Seat| !seat.attached && seat.client.connection == connection;
        self.settled.iter_mut().for_each(|job| job.seats.retain(|seat| !is_it(seat)));
        self.settled.retain(|job| !job.seats.is_empty());
        if !self.running.iter().flat_map(|job| &job.seats).any(is_it) {
            return Vec::new();
        }
        let text =
            "a client of this job has left; nothing of the job is kept; start all clients again";
        self.fail(&Refusal::new(Code::Aborted, text))
    }

    /// The clients of a settled job have had time to hear of it.
    pub(crate) fn forget(&mut self, number: Number) {
        self.settled.retain(|job| job.number != number);
    }

    /// Ends a job whose clients have not all begun to upload: others wait for their turn.
    pub(crate) fn idle(&mut self, number: Number) -> Vec<Effect> {
        let Some(job) = self.running.as_ref().filter(|job| job.number == number) else {
            return Vec::new();
        };
        let idle = job.seats.iter().filter(|seat| !seat.uploads).count();
        if idle == 0 {
            return Vec::new();
        }
        let text = format!(
            "{idle} of {} clients did not begin to upload their ids within {} s; nothing of the job is kept; \
             start all clients again",
            job.seats.len(),
            PSI_FIRST_UPLOAD.as_secs()
        );
        self.fail(&Refusal::new(Code::DeadlineExceeded, text))
    }

    /// A job has taken too long.
    pub(crate) fn late(&mut self, number: Number) -> Vec<Effect> {
        let Some(job) = self.running.as_ref().filter(|job| job.number == number) else {
            return Vec::new();
        };
        let text = match job.late() {
            0 => "the deadline passed before the join was done; nothing of the job is kept"
                .to_owned(),
            late => format!(
                "{late} of {} clients did not upload their ids before the deadline; nothing of the job is \
                 kept",
                job.seats.len()
            ),
        };
        self.fail(&Refusal::new(Code::DeadlineExceeded, text))
    }

    /// The service is stopping: everyone who waits is told.
    pub(crate) fn close(&mut self) -> Vec<Effect> {
        self.closed = true;
        self.waiting.clear();
        self.fail(&closing())
    }

    /// Ends the running job, if any, for all its clients.
    fn fail(&mut self, refusal: &Refusal) -> Vec<Effect> {
        if let Some(job) = &mut self.running {
            job.seats.iter_mut().for_each(|seat| seat.ids = None);
        }
        self.settle(std::iter::repeat_with(|| Err(refusal.clone())))
    }

    fn settle(&mut self, answers: impl Iterator<Item = Result<Bitmap, Refusal>>) -> Vec<Effect> {
        let Some(mut job) = self.running.take() else { return Vec::new() };
        let mut result = false;
        for (seat, answer) in job.seats.iter_mut().zip(answers) {
            result = answer.is_ok();
            seat.answer = Some(answer);
        }
        let mut effects = vec![Effect::Settled(job.number, result)];
        self.settled.push(job);
        effects.extend(self.advance());
        effects
    }

    /// The seat of a client whose job has begun. If a refusal is waiting there for the client, it
    /// is the last thing the client hears.
    fn seat(&mut self, client: Client) -> Result<&mut Seat, Refusal> {
        let jobs = self.settled.iter().chain(&self.running);
        let seat = jobs.flat_map(|job| &job.seats).find(|seat| seat.client.key == client.key);
        if let Some(Err(refusal)) = seat.and_then(|seat| seat.answer.as_ref()) {
            let refusal = refusal.clone();
            self.leave(client.key);
            return Err(refusal);
        }
        if seat.is_none() {
            return Err(self.no_seat());
        }
        let jobs = self.settled.iter_mut().chain(&mut self.running);
        let mut seats = jobs.flat_map(|job| &mut job.seats);
        let seat = seats.find(|seat| seat.client.key == client.key).expect("it was there");
        (seat.client, seat.attached) = (client, true);
        Ok(seat)
    }

    fn no_seat(&self) -> Refusal {
        if self.closed {
            return closing();
        }
        let text = "this client takes part in no job; call RemoteAttestation, Connect, DataUpload and \
                    CalPsi in this order, each once";
        Refusal::new(Code::FailedPrecondition, text)
    }

    /// A client is finished with a settled job.
    fn leave(&mut self, key: KeyId) {
        self.settled.iter_mut().for_each(|job| job.seats.retain(|seat| seat.client.key != key));
        self.settled.retain(|job| !job.seats.is_empty());
    }
}

impl Job {
    /// How many have not uploaded.
    fn late(&self) -> usize {
        self.seats.iter().filter(|seat| seat.ids.is_none()).count()
    }
}

fn closing() -> Refusal {
    let text = "the service is shutting down; nothing of the job is kept, start all clients again";
    Refusal::new(Code::Unavailable, text)
}

/// Refuses a result that these clients cannot receive.
pub(crate) fn fits(result: &[String], most: u64) -> Result<(), Refusal> {
    // One field of a message: tag, length, text.
    let field = |id: &String| 1 + prost::length_delimiter_len(id.len()) + id.len();
    let bytes: usize = result.iter().map(field).sum();
    if bytes as u64 <= most {
        return Ok(());
    }
    let text = format!(
        "the result has {} ids in {bytes} bytes, and this service sends clients of this kind at most {most}; \
         nothing of it was sent; raise the clients' limit (grpc.max_receive_message_length) and then the \
         service's, or use 'convelo run' or 'convelo join', which take results of any size",
        result.len()
    );
    Err(Refusal::new(Code::ResourceExhausted, text))
}

#[cfg(test)]
mod tests;
