//! One job as a state machine: events in, effects out. No clock, no socket, no task.
//!
//! A job gathers its parties, relays what they need to agree on the job key, takes their sets,
//! hands them to the engine and gives every party what the reveal policy grants it. Once all
//! parties are there, anything that goes wrong ends the job for all of them, with the reason. The
//! exception is a broken connection: its party may come back on another one and continue. To allow
//! that, the job counts what it has received from each party and keeps what it has sent.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::time::Duration;

use convelo_channel::Holder;

use convelo_psi::agreement::{Assembled, Confirmation, KeyOffer, Member, SealedShare};
use convelo_psi::limits::{MAXIMUM_NAME_BYTES, SEALED_SHARE_BYTES};
use convelo_psi::reveal::{self, Answer};
use convelo_psi::{
    Bitmap, Job, JobDigest, KeyId, PSEUDONYM_BYTES, ReceivedSet, Service, SetError, SetReceiver,
    SignedStatement, Statement, engine,
};
use convelo_wire::limits::{MAXIMUM_CHUNK_BYTES, MAXIMUM_RELAYED_BYTES};
use convelo_wire::{
    self as wire, Announcement, Bytes, Failed, FromParty, MemberEvidence, OfferEvidence, Reason,
    ToParty,
};

use crate::budget::{Need, NoRoom, Reservation, Room};
use crate::limits::MAXIMUM_NOTICES;

/// Names one connection within the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ConnectionId(pub(crate) u64);

/// A party that asks for its seat.
pub(crate) struct Arrival {
    pub(crate) connection: ConnectionId,
    pub(crate) name: String,
    pub(crate) spki: Vec<u8>,
    pub(crate) offer: KeyOffer,
    /// How many messages of the job the party has received, if it is resuming a run.
    pub(crate) received: Option<u64>,
    /// What it shows about its one-time key, if the job asks for that and does not have it yet.
    pub(crate) evidence: Option<Shown>,
    /// Whose share of the memory its set counts for; nobody's, if the operator has admitted it.
    pub(crate) holders: Vec<Holder>,
}

/// What a party shows to the others, and the memory for it.
pub(crate) struct Shown {
    pub(crate) evidence: OfferEvidence,
    pub(crate) _room: Reservation,
}

/// What happens to a job.
pub(crate) enum Event {
    /// A party opened a stream with this very job.
    Arrived(Arrival),
    /// A message after the first one.
    Message(ConnectionId, Result<FromParty, wire::WireError>),
    /// Somebody who may take part in this job came with another one of its name.
    OtherTerms(wire::OtherTerms),
    /// A stream broke or ended.
    Left(ConnectionId),
    /// The party whose stream broke has not come back in time.
    Lost(ConnectionId),
    /// A party's attestation failed after it had come.
    Expelled(ConnectionId, Failed),
    /// The job's deadline passed.
    Deadline,
    /// The job has waited this long for its parties, as long as it may.
    Unfilled(Duration),
    /// The service has no room for the job any longer.
    Crowded,
    /// By now, every party should have uploaded this many bytes of its set, or all of it.
    Pace(u64),
    /// The service has been asked to stop.
    Shutdown,
    /// The engine is done.
    Joined(Vec<Bitmap>),
    /// The engine failed.
    JoinFailed,
    /// The engine got no memory.
    NoMemory,
}

/// What the job wants done.
pub(crate) enum Effect {
    /// Send a message.
    Send(ConnectionId, ToParty),
    /// End a stream, after what was sent before.
    Close(ConnectionId),
    /// Expect this many bytes of a set.
    Expect(ConnectionId, u64),
    /// Report when the party of this broken stream has run out of time to come back.
    Await(ConnectionId),
    /// Run the engine over the sets, ordered by party name; the reservation lives as long as they
    /// do.
    Join(Vec<ReceivedSet>, Option<Reservation>),
    /// What every party will be told is decided: anyone who arrives now means another run.
    Settled,
    /// The job is over and can be forgotten.
    Finished,
}

/// Signs statements with the key of the service's certificate.
pub(crate) trait Sign {
    fn sign(&self, message: &[u8]) -> Vec<u8>;
}

/// The state of one job.
pub(crate) struct JobMachine {
    job: Job,
    /// Random bytes that name this run to the parties.
    run: [u8; 32],
    memory: Room,
    /// Memory for what a running job takes beside its sets.
    beside_sets: Option<Reservation>,
    /// Memory for all sets, from their announcement until they are joined, and then for their bitmaps.
    room: Option<Reservation>,
    seats: BTreeMap<String, Seat>,
    phase: Phase,
    /// What those without a seat brought in place of this job.
    other_terms: BTreeMap<String, JobDigest>,
    /// How often the others may still be told of it.
    notices: u32,
    /// Why there is no result, once that is decided.
    failure: Option<Reason>,
}

struct Seat {
    /// The current connection, or the last one.
    connection: ConnectionId,
    attached: bool,
    spki: Vec<u8>,
    offer: KeyOffer,
    /// Until all parties have received it.
    evidence: Option<Shown>,
    holders: Vec<Holder>,
    /// How many messages have been taken from the party since all had arrived.
    taken: u64,
    /// What has been sent to the party since then.
    sent: Vec<ToParty>,
    shares: Option<Vec<SealedShare>>,
    confirmation: Option<Confirmation>,
    announced: Option<Announcement>,
    upload: Upload,
}

enum Upload {
    None,
    Running(SetReceiver),
    Complete(ReceivedSet),
    /// Handed to the engine.
    Taken,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Gathering,
    Sharing,
    Confirming,
    Announcing,
    Uploading,
    Joining,
    /// Every seat has everything it will be sent: a result, or a failure.
    Settled,
    Over,
}

impl JobMachine {
    /// A job without parties. `run` are random bytes.
    pub(crate) fn new(job: Job, run: [u8; 32], memory: Room) -> Self {
        Self {
            job,
            run,
            memory,
            beside_sets: None,
            room: None,
            seats: BTreeMap::new(),
            phase: Phase::Gathering,
            other_terms: BTreeMap::new(),
            notices: MAXIMUM_NOTICES,
            failure: None,
        }
    }

    /// Whether an arrival means this job. A settled job is not meant, except by a party that comes
    /// back to it; a party that resumes a run finds it nowhere else.
    pub(crate) fn is_meant_by(&self, arrival: &Arrival) -> bool {
        let seat = self.seats.get(&arrival.name);
        match (self.phase, arrival.received) {
            (Phase::Over, _) => false,
            // A party that has received nothing may as well start over.
            (phase, None | Some(0)) if phase != Phase::Settled => true,
            _ => seat.is_some_and(|seat| seat.is_of(arrival)),
        }
    }

    /// Whether the job still waits for parties.
    pub(crate) fn is_gathering(&self) -> bool {
        self.phase == Phase::Gathering
    }

    /// Whether the parties are uploading their sets.
    pub(crate) fn is_uploading(&self) -> bool {
        self.phase == Phase::Uploading
    }

    /// The keys of those who have a seat.
    pub(crate) fn keys(&self) -> impl Iterator<Item = KeyId> {
        self.seats.values().map(|seat| KeyId::of_spki(&seat.spki))
    }

    /// Why the job has no result, once that is decided; none while it is open, and if it has one.
    pub(crate) fn failure(&self) -> Option<Reason> {
        self.failure
    }

    /// Handles one event. `seconds_left` is the time to the deadline, for those waiting;
    /// `finished_at` is the service's clock, for statements.
    pub(crate) fn handle(
        &mut self,
        event: Event,
        seconds_left: u64,
        finished_at: u64,
        signer: &dyn Sign,
    ) -> Vec<Effect> {
        match event {
            _ if self.phase == Phase::Over => Vec::new(),
            Event::Message(connection, _) | Event::Expelled(connection, _)
                if self.phase == Phase::Settled =>
            {
                self.acknowledged(connection)
            }
            Event::Shutdown | Event::Deadline if self.phase == Phase::Settled => self.over(),
            Event::Arrived(arrival) => self.arrived(arrival, seconds_left),
            Event::Message(connection, message) => {
                let Some(name) = self.name_of(connection) else { return Vec::new() };
                let result = match message {
                    Ok(FromParty::Leave(reason)) => {
                        return self.left(&name, reason, seconds_left);
                    }
                    Ok(message) => {
                        self.taken(&name);
                        self.message(&name, message)
                    }
                    Err(error) => Err(protocol(&name, &error.to_string())),
                };
                match result {
                    Ok(effects) => effects,
                    Err(failed) if self.phase == Phase::Gathering => {
                        self.unseat(&name, Some(failed), seconds_left)
                    }
                    Err(failed) => self.fail(&failed),
                }
            }
            Event::OtherTerms(brought) => self.brought(brought, seconds_left),
            Event::Left(connection) => match self.name_of(connection) {
                Some(name) if self.phase == Phase::Gathering => {
                    self.unseat(&name, None, seconds_left)
                }
                Some(name) => self.detach(&name),
                None => Vec::new(),
            },
            Event::Lost(connection) => {
                let mut seats = self.seats.iter();
                match seats.find(|(_, seat)| seat.connection == connection && !seat.attached) {
                    Some((name, _)) => self.lost(&name.clone()),
                    None => Vec::new(),
                }
            }
            Event::Expelled(connection, failed) => match self.name_of(connection) {
                Some(name) if self.phase == Phase::Gathering => {
                    self.unseat(&name, Some(failed), seconds_left)
                }
                Some(name) => {
                    let text =
                        format!("'{name}': {}; nothing of the job is kept", failed.explanation);
                    self.fail(&Failed::of_party(failed.reason, &name, text))
                }
                None => Vec::new(),
            },
            Event::Deadline => self.deadline(),
            Event::Unfilled(waited) if self.phase == Phase::Gathering => self.unfilled(waited),
            Event::Crowded if self.phase != Phase::Settled => self.crowded(),
            Event::Pace(bytes) if self.phase == Phase::Uploading => self.pace(bytes),
            Event::Unfilled(_) | Event::Crowded | Event::Pace(_) => Vec::new(),
            Event::Shutdown => {
                let text = "the service is shutting down; nothing of the job is kept, run it again";
                self.fail(&Failed::new(Reason::Shutdown, text))
            }
            Event::Joined(bitmaps) => self.joined(bitmaps, finished_at, signer),
            Event::JoinFailed | Event::NoMemory if self.phase != Phase::Joining => Vec::new(),
            Event::JoinFailed => {
                let text = "the join failed inside the service; nothing of the job is kept";
                self.fail(&Failed::new(Reason::Internal, text))
            }
            Event::NoMemory => self.fail(&no_memory()),
        }
    }

    fn arrived(&mut self, arrival: Arrival, seconds_left: u64) -> Vec<Effect> {
        let back = self.seats.get(&arrival.name).is_some_and(|seat| seat.is_of(&arrival));
        if back && self.phase != Phase::Gathering {
            return self.resumed(arrival);
        }
        let Arrival { connection, name, spki, offer, received, evidence, holders } = arrival;
        if self.phase == Phase::Gathering
            && let Some(shown) = &evidence
            && !self.has_room_to_relay(&name, &shown.evidence.collateral)
        {
            let text = format!(
                "the parties of this job offer more than {} KiB of collateral: those whose platforms are \
                 of one kind should offer the same file",
                MAXIMUM_RELAYED_BYTES >> 10
            );
            return refuse(connection, Failed::new(Reason::NoRoom, text));
        }
        let mut effects = Vec::new();
        if let Some(seat) = self.seats.get(&name) {
            if seat.spki != spki {
                let text = format!(
                    "another key already takes part as '{name}' in this job; \
                     every party needs a name of its own"
                );
                return refuse(connection, Failed::new(Reason::NameTaken, text));
            }
            if self.phase != Phase::Gathering {
                return self.started_anew(connection, &name);
            }
            let text = format!("a newer connection of '{name}', with the same key, took over");
            effects = refuse(seat.connection, Failed::new(Reason::Replaced, text));
        } else if self.phase != Phase::Gathering {
            let text = format!(
                "all {} seats of this job are taken and it is running",
                self.job.parties().count()
            );
            return refuse(connection, Failed::new(Reason::JobRunning, text));
        } else if let Some((other, _)) = self.seats.iter().find(|(_, seat)| seat.spki == spki) {
            let text = format!(
                "the key of this connection already takes part as '{other}'; \
                 a party has one name in a job"
            );
            return refuse(connection, Failed::new(Reason::NameTaken, text));
        }
        let seat = Seat {
            connection,
            attached: true,
            spki,
            offer,
            evidence,
            holders,
            taken: 0,
            sent: Vec::new(),
            shares: None,
            confirmation: None,
            announced: None,
            upload: Upload::None,
        };
        self.other_terms.remove(&name);
        self.seats.insert(name, seat);
        if received.is_some() {
            effects.push(Effect::Send(connection, ToParty::Resumed { taken: 0 }));
        }
        if self.seats.len() == self.job.parties().count() {
            match self.begin() {
                Ok(room) => self.beside_sets = Some(room),
                Err(failed) => {
                    effects.extend(self.fail(&failed));
                    return effects;
                }
            }
            self.phase = Phase::Sharing;
            let (assembled, evidence) = (self.assembled(), self.evidence());
            effects.extend(self.expect());
            effects
                .extend(self.tell_all(|_| ToParty::Assembled(assembled.clone(), evidence.clone())));
        } else {
            effects.extend(self.tell_waiting(seconds_left));
        }
        effects
    }

    /// Memory for a job that all parties have come to.
    fn begin(&self) -> Result<Reservation, Failed> {
        let parties: Vec<&[Holder]> =
            self.seats.values().map(|seat| seat.holders.as_slice()).collect();
        self.memory.begin(&parties).map_err(|why| {
            let why = match why {
                NoRoom::Ever | NoRoom::Now => "the service has no memory for another job at the moment",
                NoRoom::Share => {
                    "the service has no memory for another job of parties at one address, or with one key"
                }
            };
            let text = format!("{why}; nothing was uploaded; run the job again later");
            Failed::new(Reason::NoRoom, text)
        })
    }

    /// Somebody brought another job: those who wait for it are told, and wait on.
    fn brought(&mut self, brought: wire::OtherTerms, seconds_left: u64) -> Vec<Effect> {
        let wire::OtherTerms { party, job } = brought;
        let known = self.other_terms.get(&party);
        let room = known.is_some() || self.other_terms.len() < self.job.parties().count();
        if self.phase != Phase::Gathering || known == Some(&job) || !room || self.notices == 0 {
            return Vec::new();
        }
        self.notices -= 1;
        self.other_terms.insert(party, job);
        self.tell_waiting(seconds_left)
    }

    /// A party comes back: sends it again what it has not received.
    fn resumed(&mut self, arrival: Arrival) -> Vec<Effect> {
        let Arrival { connection, name, received, .. } = arrival;
        let (phase, parties) = (self.phase, self.job.parties().count());
        let Some(seat) = self.seats.get_mut(&name) else { return Vec::new() };
        let missed = received.and_then(|received| usize::try_from(received).ok());
        let Some(missed) = missed.and_then(|received| seat.sent.get(received..)) else {
            let text = "it has received more messages than it was sent";
            return refuse(connection, protocol(&name, text));
        };
        let mut effects = Vec::new();
        if seat.attached {
            let text = format!("a newer connection of '{name}', with the same key, took over");
            effects = refuse(seat.connection, Failed::new(Reason::Replaced, text));
        }
        (seat.connection, seat.attached) = (connection, true);
        effects.extend(seat.expect(phase, parties));
        effects.push(Effect::Send(connection, ToParty::Resumed { taken: seat.taken }));
        effects.extend(missed.iter().map(|message| Effect::Send(connection, message.clone())));
        if matches!(seat.sent.last(), Some(ToParty::Failed(_))) {
            effects.extend(self.release(&name));
        }
        effects
    }

    /// A restarted program does not have the keys of the one that takes part. If that one has lost
    /// its connection, it is taken for dead, and the others need not wait for it.
    fn started_anew(&mut self, connection: ConnectionId, name: &str) -> Vec<Effect> {
        if self.seats.get(name).is_some_and(|seat| seat.attached) {
            let text = format!(
                "'{name}' already takes part in this job, which is running; \
                 the connection it has goes on"
            );
            return refuse(connection, Failed::new(Reason::JobRunning, text));
        }
        let text = format!(
            "the connection of '{name}' broke and its program was restarted, so the earlier run has \
             ended; nothing of the job is kept, run it again"
        );
        let failed = Failed::of_party(Reason::ConnectionLost, name, text);
        self.seats.remove(name);
        let mut effects = refuse(connection, failed.clone());
        effects.extend(self.fail(&failed));
        effects
    }

    /// The connection of a party broke; it may come back.
    fn detach(&mut self, name: &str) -> Vec<Effect> {
        let Some(seat) = self.seats.get_mut(name) else { return Vec::new() };
        seat.attached = false;
        vec![Effect::Close(seat.connection), Effect::Await(seat.connection)]
    }

    /// A party did not come back.
    fn lost(&mut self, name: &str) -> Vec<Effect> {
        if self.phase == Phase::Settled {
            return self.release(name);
        }
        self.seats.remove(name);
        let text = format!(
            "'{name}' left the job: its connection broke, and it did not come back in time; \
             nothing of the job is kept"
        );
        self.fail(&Failed::of_party(Reason::ConnectionLost, name, text))
    }

    /// A party speaks after everything has been said to it: it confirms that it has received it.
    fn acknowledged(&mut self, connection: ConnectionId) -> Vec<Effect> {
        // Whatever else it says, there is nothing new to tell it.
        self.name_of(connection).map_or_else(Vec::new, |name| self.release(&name))
    }

    /// A party needs nothing more of a settled job.
    fn release(&mut self, name: &str) -> Vec<Effect> {
        let mut effects = Vec::new();
        if let Some(seat) = self.seats.remove(name).filter(|seat| seat.attached) {
            effects.push(Effect::Close(seat.connection));
        }
        if self.seats.is_empty() {
            effects.extend(self.over());
        }
        effects
    }

    /// Nobody needs a settled job any longer, or nobody is allowed to.
    fn over(&mut self) -> Vec<Effect> {
        self.phase = Phase::Over;
        drop((self.beside_sets.take(), self.room.take()));
        let seats = mem::take(&mut self.seats).into_values();
        let attached = seats.filter(|seat| seat.attached);
        let mut effects: Vec<_> = attached.map(|seat| Effect::Close(seat.connection)).collect();
        effects.push(Effect::Finished);
        effects
    }

    /// Counts what is taken from a party once all have arrived.
    fn taken(&mut self, name: &str) {
        if self.phase != Phase::Gathering
            && let Some(seat) = self.seats.get_mut(name)
        {
            seat.taken += 1;
        }
    }

    /// A party gives up.
    fn left(&mut self, name: &str, reason: Reason, seconds_left: u64) -> Vec<Effect> {
        if self.phase == Phase::Gathering {
            return self.unseat(name, None, seconds_left);
        }
        let (reason, why) = match reason {
            Reason::Stopped => (reason, "it was stopped"),
            Reason::Table => (reason, "it could not read its table"),
            Reason::OverCap => (reason, "its set is larger than the job allows"),
            Reason::KeyAgreement => {
                (reason, "it refused the keys it was shown for the other parties")
            }
            Reason::Attestation if self.verifies_providers() => {
                (reason, "it refused the evidence it was shown of another party's program")
            }
            // Only the service may say these; no party says them for it.
            _ => (Reason::Stopped, "it gave up"),
        };
        let text = format!("'{name}' left the job: {why}; nothing of the job is kept");
        self.fail(&Failed::of_party(reason, name, text))
    }

    /// A party leaves before all have arrived: the others wait for it, or for a replacement.
    fn unseat(&mut self, name: &str, failed: Option<Failed>, seconds_left: u64) -> Vec<Effect> {
        let mut effects = Vec::new();
        if let Some(seat) = self.seats.remove(name) {
            effects.extend(failed.map(|why| Effect::Send(seat.connection, ToParty::Failed(why))));
            effects.push(Effect::Close(seat.connection));
        }
        if self.seats.is_empty() {
            self.phase = Phase::Over;
            self.failure = Some(Reason::Stopped);
            effects.push(Effect::Finished);
        } else {
            effects.extend(self.tell_waiting(seconds_left));
        }
        effects
    }

    fn message(&mut self, name: &str, message: FromParty) -> Result<Vec<Effect>, Failed> {
        match message {
            FromParty::Shares(shares) => self.shares(name, shares),
            FromParty::Confirmation(tag) => self.confirmation(name, tag),
            FromParty::Announcement(announcement) => self.announcement(name, announcement),
            FromParty::Chunk(bytes) => self.chunk(name, &bytes),
            FromParty::Hello(_) => Err(protocol(name, "a second Hello arrived")),
            FromParty::Challenge(_) | FromParty::Evidence(_) => {
                Err(protocol(name, "an attestation arrived out of turn"))
            }
            FromParty::Leave(_) | FromParty::Received => {
                Err(protocol(name, "a last word arrived out of turn"))
            }
        }
    }

    fn shares(&mut self, name: &str, shares: Vec<SealedShare>) -> Result<Vec<Effect>, Failed> {
        self.in_phase(name, Phase::Sharing, "shares")?;
        let mut recipients: Vec<&str> = shares.iter().map(|share| share.to.as_str()).collect();
        recipients.sort_unstable();
        let others = self.seats.keys().map(String::as_str).filter(|other| *other != name);
        let own = shares.iter().all(|share| share.from == name);
        if !own || !others.eq(recipients.iter().copied()) {
            let text = "it did not send exactly one share of its own for each other party";
            return Err(protocol(name, text));
        }
        let seat = self.seat(name)?;
        if seat.shares.replace(shares).is_some() {
            return Err(protocol(name, "shares arrived twice"));
        }
        if !self.seats.values().all(|seat| seat.shares.is_some()) {
            return Ok(Vec::new());
        }
        self.phase = Phase::Confirming;
        self.forget_evidence();
        let mut inboxes: BTreeMap<String, Vec<SealedShare>> = BTreeMap::new();
        for share in self.seats.values_mut().flat_map(|seat| seat.shares.take().unwrap_or_default())
        {
            inboxes.entry(share.to.clone()).or_default().push(share);
        }
        Ok(self.tell_all(|name| ToParty::Shares(inboxes.remove(name).unwrap_or_default())))
    }

    fn confirmation(
        &mut self,
        name: &str,
        confirmation: Confirmation,
    ) -> Result<Vec<Effect>, Failed> {
        self.in_phase(name, Phase::Confirming, "a confirmation")?;
        let seat = self.seat(name)?;
        if seat.confirmation.replace(confirmation).is_some() {
            return Err(protocol(name, "a confirmation arrived twice"));
        }
        if !self.seats.values().all(|seat| seat.confirmation.is_some()) {
            return Ok(Vec::new());
        }
        self.phase = Phase::Announcing;
        let all = self.seats.iter().filter_map(|(name, seat)| {
            let (party, confirmation) = (name.clone(), seat.confirmation.clone()?);
            Some(wire::NamedConfirmation { party, confirmation })
        });
        let all: Vec<_> = all.collect();
        Ok(self.tell_all(|name| {
            let others = all.iter().filter(|entry| entry.party != name);
            ToParty::Confirmations(others.cloned().collect())
        }))
    }

    fn announcement(
        &mut self,
        name: &str,
        announcement: Announcement,
    ) -> Result<Vec<Effect>, Failed> {
        self.in_phase(name, Phase::Announcing, "an announcement")?;
        let cap = self.job.maximum_keys_of(name);
        if announcement.keys > self.job.sent(cap) {
            let text = format!(
                "the set of '{name}' is larger than the job allows ({cap} keys); \
                 nothing was joined and nothing of the job is kept"
            );
            return Err(Failed::of_party(Reason::OverCap, name, text));
        }
        if self.job.services() == 1 && !self.job.is_sent(announcement.keys) {
            let text = "its set is not padded to a multiple of pad_keys_to, or has no canaries, as the \
                        job demands";
            return Err(protocol(name, text));
        }
        if self.seat(name)?.announced.replace(announcement).is_some() {
            return Err(protocol(name, "an announcement arrived twice"));
        }
        let sizes: Option<Vec<u64>> =
            self.seats.values().map(|seat| Some(seat.announced?.keys)).collect();
        let Some(sizes) = sizes else { return Ok(Vec::new()) };
        self.room = Some(self.reserve(&sizes)?);
        self.phase = Phase::Uploading;
        let mut empty = Vec::new();
        for ((name, seat), keys) in self.seats.iter_mut().zip(sizes) {
            let mut set = SetReceiver::new(keys);
            set.claim().map_err(|_| no_memory())?;
            seat.upload = Upload::Running(set);
            if keys == 0 {
                empty.push(name.clone());
            }
        }
        let mut effects = self.expect();
        effects.extend(self.tell_all(|_| ToParty::Ready));
        for name in empty {
            effects.extend(self.uploaded(&name)?);
        }
        Ok(effects)
    }

    /// What is still to come of every party in this phase.
    fn expect(&self) -> Vec<Effect> {
        let parties = self.job.parties().count();
        self.seats.values().filter_map(|seat| seat.expect(self.phase, parties)).collect()
    }

    /// Memory for all sets at once, so that no two jobs wait for what the other one holds.
    fn reserve(&self, sizes: &[u64]) -> Result<Reservation, Failed> {
        let parties = self.job.parties().count();
        let needs = self.seats.values().zip(sizes).map(|(seat, keys)| Need {
            bytes: engine::memory(*keys, parties),
            holders: seat.holders.clone(),
        });
        let needs: Vec<_> = needs.collect();
        self.memory.sets.reserve_all(&needs).map_err(|why| {
            let needed = needs.iter().map(|need| need.bytes).fold(0, u64::saturating_add);
            // A power of two: the exact figure would tell each party how large the others' sets
            // are.
            let most = needed.max(1 << 20).checked_next_power_of_two().unwrap_or(u64::MAX) >> 20;
            let (why, what) = match why {
                NoRoom::Ever => {
                    let total = self.memory.sets.total() >> 20;
                    let what = format!("it needs a service that may use {most} MiB");
                    (format!("has {total} MiB"), what)
                }
                NoRoom::Now => {
                    let why = "has given too much of its memory to other jobs for the moment";
                    (why.to_owned(), "run the job again later".to_owned())
                }
                NoRoom::Share => {
                    let share = self.memory.sets.share() >> 20;
                    let why = format!(
                        "lets all parties at one address, or with one key, use {share} MiB at once"
                    );
                    let what = "run the job again later, or have the service's operator admit the \
                                parties' keys";
                    (why, what.to_owned())
                }
            };
            let text = format!(
                "the sets of this job need up to {most} MiB at the service, which {why}; nothing was \
                 uploaded; {what}"
            );
            Failed::new(Reason::NoRoom, text)
        })
    }

    fn chunk(&mut self, name: &str, bytes: &[u8]) -> Result<Vec<Effect>, Failed> {
        self.in_phase(name, Phase::Uploading, "a chunk")?;
        let seat = self.seat(name)?;
        let Upload::Running(receiver) = &mut seat.upload else {
            return Err(protocol(name, "a chunk arrived after the end"));
        };
        receiver.push_chunk(bytes).map_err(|error| refused_upload(name, &error))?;
        if receiver.received() == receiver.declared() {
            self.uploaded(name)
        } else {
            Ok(Vec::new())
        }
    }

    /// The last chunk of a party is in.
    fn uploaded(&mut self, name: &str) -> Result<Vec<Effect>, Failed> {
        let seat = self.seat(name)?;
        let announced = seat.announced.map(|announcement| announcement.blake3);
        let Upload::Running(receiver) = mem::replace(&mut seat.upload, Upload::None) else {
            return Err(protocol(name, "an upload ended before it began"));
        };
        let set = receiver.finish().map_err(|error| refused_upload(name, &error))?;
        if announced != Some(set.blake3()) {
            return Err(protocol(name, "its upload does not have the BLAKE3 it announced"));
        }
        seat.upload = Upload::Complete(set);
        let (mut complete, mut missing) = (Vec::new(), Vec::new());
        for (name, seat) in &self.seats {
            let done = matches!(seat.upload, Upload::Complete(_));
            if done { &mut complete } else { &mut missing }.push(name.clone());
        }
        let done = missing.is_empty();
        let mut effects = self.tell_all(|_| ToParty::Uploads {
            complete: complete.clone(),
            missing: missing.clone(),
        });
        if done {
            self.phase = Phase::Joining;
            let sets = self
                .seats
                .values_mut()
                .filter_map(|seat| match mem::replace(&mut seat.upload, Upload::Taken) {
                    Upload::Complete(set) => Some(set),
                    _ => None,
                })
                .collect();
            let mut room = self.room.take();
            self.room = room.as_mut().map(|room| room.split_off(self.bytes_of_answers()));
            effects.push(Effect::Join(sets, room));
        }
        Ok(effects)
    }

    /// What the bitmaps take while they are made and until every party has its own.
    fn bytes_of_answers(&self) -> u64 {
        let keys = self.seats.values().filter_map(|seat| seat.announced);
        let bytes = keys.map(|announced| announced.keys.div_ceil(8));
        2 * bytes.fold(0, u64::saturating_add)
    }

    fn joined(&mut self, bitmaps: Vec<Bitmap>, finished_at: u64, signer: &dyn Sign) -> Vec<Effect> {
        if self.phase != Phase::Joining {
            return Vec::new();
        }
        self.phase = Phase::Settled;
        let names: Vec<String> = self.seats.keys().cloned().collect();
        let answers = reveal::answers(&self.job, &names, bitmaps);
        let transcript = self.assembled().transcript(self.job.digest());
        let members: Vec<_> =
            self.seats.iter().map(|(name, seat)| (name.clone(), seat.key())).collect();
        let mut effects = vec![Effect::Settled];
        // Nothing here may depend on what a party is told: the host might see which it was.
        for ((name, seat), Answer { told, bitmap }) in self.seats.iter_mut().zip(answers) {
            let announced = seat.announced.as_ref();
            let keys = announced.map_or(0, |announcement| announcement.keys);
            let statement = Statement {
                job: self.job.digest(),
                party: name.clone(),
                party_key: seat.key(),
                members: members.clone(),
                keys,
                set_blake3: announced.map_or([0; 32], |announcement| announcement.blake3),
                told,
                finished_at,
                transcript: Some(transcript),
            }
            .encode();
            let signature = signer.sign(&statement);
            let signed = SignedStatement { statement, signature };
            let bitmap_bytes = reveal::bitmap_bytes(&self.job, name, keys);
            let sent = usize::try_from(bitmap_bytes).expect("the set was in memory");
            let bitmap = bitmap.as_bytes()[..sent].to_vec();
            let (kind, count) = (told.kind, told.count);
            effects.extend(seat.send(ToParty::Outcome { kind, count, bitmap_bytes, signed }));
            let bitmap = Bytes::from(bitmap);
            for start in (0..bitmap.len()).step_by(MAXIMUM_CHUNK_BYTES) {
                let end = bitmap.len().min(start + MAXIMUM_CHUNK_BYTES);
                effects.extend(seat.send(ToParty::Bitmap(bitmap.slice(start..end))));
            }
        }
        effects
    }

    /// The job has waited long enough for its parties.
    fn unfilled(&mut self, waited: Duration) -> Vec<Effect> {
        let text = format!(
            "the job has waited {} s for {}, as long as this service lets a job wait whose first party \
             its operator has not admitted; start the parties at about the same time",
            waited.as_secs(),
            self.awaited()
        );
        self.fail(&Failed::new(Reason::Deadline, text))
    }

    fn crowded(&mut self) -> Vec<Effect> {
        let text = if self.phase == Phase::Gathering {
            format!(
                "the job was waiting for {}; too many jobs wait for parties at this service, and this \
                 one had waited longest; start it again once all parties are ready",
                self.awaited()
            )
        } else {
            "the service runs as many jobs as it can, or as many as were opened from one address or by \
             one key; nothing was uploaded; run the job again later"
                .to_owned()
        };
        self.fail(&Failed::new(Reason::NoRoom, text))
    }

    /// Ends a job whose memory is reserved for parties that do not use it.
    fn pace(&mut self, bytes: u64) -> Vec<Effect> {
        let behind = |seat: &Seat| match &seat.upload {
            Upload::Running(set) => {
                set.received() < set.declared().min(bytes / PSEUDONYM_BYTES as u64)
            }
            _ => false,
        };
        let slow = self.seats.iter().filter(|(_, seat)| behind(seat));
        let slow: Vec<String> = slow.map(|(name, _)| name.clone()).collect();
        if slow.is_empty() {
            return Vec::new();
        }
        let were = if slow.len() == 1 { "was" } else { "were" };
        let text = format!(
            "the upload of {} {were} too slow: the memory for the sets cannot be held back for so \
             long; nothing of the job is kept",
            quoted(&slow)
        );
        let failed = match &slow[..] {
            [one] => Failed::of_party(Reason::Deadline, one, text),
            _ => Failed::new(Reason::Deadline, text),
        };
        self.fail(&failed)
    }

    fn deadline(&mut self) -> Vec<Effect> {
        let seconds = self.job.deadline_seconds();
        let text = if self.phase == Phase::Gathering {
            let who = self.awaited();
            format!("the job's deadline of {seconds} s passed while waiting for {who}")
        } else {
            let late: Vec<String> = self
                .seats
                .iter()
                .filter(|(_, seat)| match self.phase {
                    Phase::Sharing => seat.shares.is_none(),
                    Phase::Confirming => seat.confirmation.is_none(),
                    Phase::Announcing => seat.announced.is_none(),
                    Phase::Uploading => !matches!(seat.upload, Upload::Complete(_)),
                    _ => false,
                })
                .map(|(name, _)| name.clone())
                .collect();
            if late.is_empty() {
                format!("the job's deadline of {seconds} s passed before the join was done")
            } else {
                let were = if late.len() == 1 { "was" } else { "were" };
                format!("the job's deadline of {seconds} s passed; {} {were} late", quoted(&late))
            }
        };
        self.fail(&Failed::new(Reason::Deadline, text))
    }

    /// Ends the job for all its parties; everything it held is wiped.
    fn fail(&mut self, failed: &Failed) -> Vec<Effect> {
        self.phase = Phase::Settled;
        self.failure = Some(failed.reason);
        self.room = None;
        let mut effects = vec![Effect::Settled];
        // A party that has lost its connection is told when it comes back.
        self.seats.retain(|_, seat| {
            seat.upload = Upload::None;
            effects.extend(seat.send(ToParty::Failed(failed.clone())));
            if seat.attached {
                effects.push(Effect::Close(seat.connection));
            }
            !seat.attached
        });
        if self.seats.is_empty() {
            effects.extend(self.over());
        }
        effects
    }

    fn in_phase(&self, name: &str, phase: Phase, what: &str) -> Result<(), Failed> {
        if self.phase == phase {
            return Ok(());
        }
        Err(protocol(name, &format!("{what} arrived out of turn")))
    }

    fn seat(&mut self, name: &str) -> Result<&mut Seat, Failed> {
        self.seats.get_mut(name).ok_or_else(|| protocol(name, "it has no seat"))
    }

    /// Whose connection it is; a broken one is nobody's.
    fn name_of(&self, connection: ConnectionId) -> Option<String> {
        let mut seats = self.seats.iter();
        let (name, _) = seats.find(|(_, seat)| seat.connection == connection && seat.attached)?;
        Some(name.clone())
    }

    fn assembled(&self) -> Assembled {
        let member = |(name, seat): (&String, &Seat)| Member {
            name: name.clone(),
            spki: seat.spki.clone(),
            offer: seat.offer.clone(),
        };
        Assembled { run: self.run, members: self.seats.iter().map(member).collect() }
    }

    fn verifies_providers(&self) -> bool {
        self.job.service().is_some_and(Service::verifies_providers)
    }

    /// What the members show about their one-time keys.
    fn evidence(&self) -> MemberEvidence {
        let shown = |(name, seat): (&String, &Seat)| {
            seat.evidence.as_ref().map(|shown| (name.clone(), shown.evidence.clone()))
        };
        self.seats.iter().filter_map(shown).collect()
    }

    /// Everybody who has sent shares has received it.
    fn forget_evidence(&mut self) {
        for seat in self.seats.values_mut() {
            seat.evidence = None;
            if let Some(ToParty::Assembled(_, evidence)) = seat.sent.first_mut() {
                evidence.clear();
            }
        }
    }

    /// Whether this collateral of a party can be passed on together with those of the others.
    fn has_room_to_relay(&self, name: &str, collateral: &[u8]) -> bool {
        let others = self.seats.iter().filter(|(other, _)| *other != name);
        let others = others.filter_map(|(_, seat)| seat.evidence.as_ref());
        let others = others.map(|shown| shown.evidence.collateral.as_ref());
        let each: BTreeSet<&[u8]> = others.chain([collateral]).collect();
        each.into_iter().map(<[u8]>::len).sum::<usize>() <= MAXIMUM_RELAYED_BYTES
    }

    fn missing(&self) -> Vec<String> {
        let names = self.job.parties().named().iter().map(|party| &party.name);
        names.filter(|name| !self.seats.contains_key(*name)).cloned().collect()
    }

    /// Who is missing, in words.
    fn awaited(&self) -> String {
        let missing = self.missing();
        let who = if missing.is_empty() {
            let count = self.job.parties().count() - self.seats.len();
            format!("{count} of {} parties", self.job.parties().count())
        } else {
            quoted(&missing)
        };
        let others: Vec<String> = self.other_terms.keys().cloned().collect();
        if others.is_empty() {
            return who;
        }
        format!("{who} ({} came with another job file)", quoted(&others))
    }

    fn tell_waiting(&mut self, seconds_left: u64) -> Vec<Effect> {
        let present: Vec<String> = self.seats.keys().cloned().collect();
        let missing_count = self.job.parties().count() - present.len();
        let waiting = wire::Waiting {
            present,
            missing: self.missing(),
            missing_count: u32::try_from(missing_count).unwrap_or(u32::MAX),
            seconds_left,
            other_terms: self
                .other_terms
                .iter()
                .map(|(party, job)| wire::OtherTerms { party: party.clone(), job: *job })
                .collect(),
        };
        self.tell_all(|_| ToParty::Waiting(waiting.clone()))
    }

    fn tell_all(&mut self, mut message: impl FnMut(&str) -> ToParty) -> Vec<Effect> {
        let seats = self.seats.iter_mut();
        seats.filter_map(|(name, seat)| seat.send(message(name))).collect()
    }
}

impl Seat {
    fn key(&self) -> KeyId {
        KeyId::of_spki(&self.spki)
    }

    /// Whether it is the seat of a party that comes back, and not of another program with its key.
    fn is_of(&self, arrival: &Arrival) -> bool {
        arrival.received.is_some() && self.spki == arrival.spki && self.offer == arrival.offer
    }

    /// What is still to come of the party in this phase: its shares for all others, or its set.
    fn expect(&self, phase: Phase, parties: usize) -> Option<Effect> {
        let bytes = match &self.upload {
            Upload::Running(set) => {
                let keys = set.declared().saturating_sub(set.received());
                keys.saturating_mul(PSEUDONYM_BYTES as u64)
            }
            _ if phase == Phase::Sharing && self.shares.is_none() => {
                (parties * (SEALED_SHARE_BYTES + 3 * MAXIMUM_NAME_BYTES)) as u64
            }
            _ => return None,
        };
        self.attached.then_some(Effect::Expect(self.connection, bytes))
    }

    /// Sends a message, and keeps it if parties count it.
    fn send(&mut self, message: ToParty) -> Option<Effect> {
        if !matches!(message, ToParty::Waiting(_) | ToParty::Uploads { .. }) {
            self.sent.push(message.clone());
        }
        self.attached.then_some(Effect::Send(self.connection, message))
    }
}

fn refuse(connection: ConnectionId, failed: Failed) -> Vec<Effect> {
    vec![Effect::Send(connection, ToParty::Failed(failed)), Effect::Close(connection)]
}

/// What there was memory for by our account, the system refused: nobody's fault but ours.
fn no_memory() -> Failed {
    let text = "the service has no memory for the sets of this job after all; nothing of the job is kept; \
                run it again later, and tell the service's operator if that happens again";
    Failed::new(Reason::NoRoom, text)
}

fn refused_upload(name: &str, error: &SetError) -> Failed {
    match error {
        SetError::Memory { .. } => no_memory(),
        _ => protocol(name, &format!("its upload was refused: {error}")),
    }
}

fn protocol(name: &str, what: &str) -> Failed {
    let text = format!("'{name}' did not follow the protocol: {what}; nothing of the job is kept");
    Failed::of_party(Reason::Protocol, name, text)
}

fn quoted(names: &[String]) -> String {
    names.iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
