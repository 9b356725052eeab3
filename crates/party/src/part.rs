//! A provider's part in the job at one service: if the job has several, one shard.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use convelo_attest::Verdict;
use convelo_channel::{Identity, os_rng};
use convelo_psi::agreement::{Assembled, JobKey, Opening};
use convelo_psi::reveal::Told;
use convelo_psi::statement::Seen;
use convelo_psi::{
    Bitmap, Job, KeyId, Outcome, Parties, PseudonymSet, RankedCanaries, SignedStatement, Statement,
    reveal,
};
use convelo_wire::{Announcement, FromParty, Hello, Reason, ToParty};
use tokio::task::JoinHandle;

use crate::attestation::Proved;
use crate::error::{Error, Kind};
use crate::event::{Event, Observer as _};
use crate::pieces::{PIECE_KEYS, Pieces, blake3};
use crate::progress::Progress;
use crate::providers::Providers;
use crate::session::{Contact, Session};

/// The part.
pub(crate) struct Part {
    /// The job in the form that this service has.
    job: Job,
    name: String,
    identity: Identity,
    /// Present where the job has its providers prove their programs.
    providers: Option<Providers>,
    session: Session,
    progress: Progress,
    address: String,
}

/// What the parties agreed on through one service before the table was read.
pub(crate) struct Agreed {
    pub(crate) key: JobKey,
    pub(crate) assembled: Assembled,
    /// The other providers whose programs this party verified.
    pub(crate) providers: Vec<(String, Verdict)>,
}

/// What one service answered, verified; without its bitmap.
pub(crate) struct Answer {
    pub(crate) job: Job,
    pub(crate) address: String,
    /// What this party learned; for an intersection, its size.
    pub(crate) told: Outcome<u64>,
    pub(crate) statement: Statement,
    pub(crate) signed: SignedStatement,
    pub(crate) certificate: Vec<u8>,
    pub(crate) spki: Vec<u8>,
    pub(crate) proved: Proved,
}

impl Answer {
    pub(crate) fn verdict(&self) -> Option<&Verdict> {
        self.proved.verdict()
    }
}

impl Part {
    /// Contacts the service, which must prove what it is.
    pub(crate) async fn open(
        job: Job,
        (name, identity, providers): (String, Identity, Option<Providers>),
        contact: Contact,
        progress: Progress,
    ) -> Result<Self, Error> {
        let patience = Duration::from_secs(job.deadline_seconds());
        let address = contact.address.clone();
        let session = Session::open(contact, patience, Arc::new(progress.clone())).await;
        let session = session.map_err(|error| at(&job, &address, error))?;
        match session.proved().verdict() {
            Some(verdict) => progress.on(Event::EvidenceVerified(verdict)),
            None => progress.on(Event::KeyRecognised),
        }
        Ok(Self { job, name, identity, providers, session, progress, address })
    }

    /// The next message. While nothing is asked of the service, it can only be the end.
    pub(crate) async fn interrupted(&mut self) -> Error {
        let error = match self.session.next().await {
            Ok(_) => out_of_turn("while the table was read"),
            Err(error) => error,
        };
        at(&self.job, &self.address, error)
    }

    /// From Hello to the job key.
    pub(crate) async fn agree(&mut self) -> Result<Agreed, Error> {
        let agreed = self.agree_on_key().await;
        agreed.map_err(|error| at(&self.job, &self.address, error))
    }

    /// Sends the pseudonyms of these ranks. Returns the service's answer.
    pub(crate) async fn join(
        &mut self,
        set: &Arc<PseudonymSet>,
        canaries: &RankedCanaries,
        ranks: Range<usize>,
        assembled: &Assembled,
    ) -> Result<(Outcome<Bitmap>, Answer), Error> {
        let answer = self.upload(set, canaries, ranks, assembled).await;
        answer.map_err(|error| at(&self.job, &self.address, error))
    }

    async fn upload(
        &mut self,
        set: &Arc<PseudonymSet>,
        canaries: &RankedCanaries,
        ranks: Range<usize>,
        assembled: &Assembled,
    ) -> Result<(Outcome<Bitmap>, Answer), Error> {
        let blake3 = blake3(set, ranks.clone()).await?;
        let outcome = self.send(set, ranks.clone(), blake3).await?;
        let (outcome, signed) = self.outcome(outcome, ranks.len()).await?;
        // Marks over nothing are refused below: the job does not grant them.
        if let Outcome::Intersection(marks) = &outcome
            && marks.len() == ranks.len()
        {
            let checked = canaries.check(ranks.clone(), marks);
            checked.map_err(|error| Error::new(Kind::Job, error.to_string()))?;
        }
        let told = outcome.as_ref().map(|marks| reveal::common(&self.job, marks), |count| *count);
        if !reveal::allows(&self.job, &self.name, told) {
            let word = told.as_str();
            let text = format!("the service answered '{word}', which the job's terms do not allow");
            return Err(Error::new(Kind::Job, text));
        }
        let (certificate, proved) =
            (self.session.certificate().to_vec(), self.session.proved().clone());
        let spki = convelo_attest::spki_of(&certificate)?;
        let statement = signed.verify(&spki).map_err(|error| {
            Error::new(Kind::Job, format!("the service's signed statement is refused: {error}"))
        })?;
        let members = assembled.members.iter();
        let members = members.map(|member| (&*member.name, KeyId::of_spki(&member.spki)));
        let seen = Seen {
            job: self.job.digest(),
            party: &self.name,
            members: members.collect(),
            keys: ranks.len() as u64,
            set_blake3: blake3,
            told: Told::of(&self.job, &outcome),
            transcript: Some(assembled.transcript(self.job.digest())),
        };
        if let Some(contradiction) = statement.contradiction(&seen) {
            let text = format!(
                "the statement that the service signed does not say what it sent ({contradiction}); \
                 the result is not used"
            );
            return Err(Error::new(Kind::Job, text));
        }
        let (job, address) = (self.job.clone(), self.address.clone());
        Ok((outcome, Answer { job, address, told, statement, signed, certificate, spki, proved }))
    }

    /// Tells the service that this party gives up, and why. True if it had a seat there and the
    /// service has heard it.
    pub(crate) async fn leave(self, reason: Reason) -> bool {
        self.session.leave(reason).await
    }

    /// Tells the service that the result has arrived.
    pub(crate) fn received(self) -> JoinHandle<()> {
        self.session.received()
    }

    async fn agree_on_key(&mut self) -> Result<Agreed, Error> {
        let (job, name, session) = (&self.job, &self.name, &mut self.session);
        let opening = Opening::new(job, name, self.identity.signing_key(), &mut os_rng());
        let show = |providers: &Providers| {
            providers.show(job, (name, self.identity.spki()), &opening.offer())
        };
        let evidence = self.providers.as_ref().map(show).transpose()?;
        let hello = Hello {
            job: job.canonical().to_owned().into(),
            party: name.clone(),
            offer: opening.offer(),
            software: concat!("convelo ", env!("CARGO_PKG_VERSION")).to_owned(),
            received: None,
            evidence,
        };
        session.hello(hello).await?;
        let (assembled, shown) = loop {
            match session.next().await? {
                ToParty::Waiting(waiting) => self.progress.on(Event::Waiting(&waiting)),
                ToParty::Assembled(assembled, shown) => break (assembled, shown),
                _ => return Err(out_of_turn("before all parties had come")),
            }
        };
        let mut providers = Vec::new();
        if let Some(demands) = &self.providers {
            let (digest, members) = (job.digest(), &assembled.members);
            providers = demands.verify(&digest, name, members, &shown, unix_now())?;
        }
        let (sealing, shares) = opening.assembled(job, &assembled, &mut os_rng())?;
        let names = assembled.members.iter().map(|member| member.name.as_str()).collect();
        let pinned = matches!(job.parties(), Parties::Named(_));
        self.progress.on(Event::Assembled { names, pinned });
        for (name, verdict) in &providers {
            self.progress.on(Event::ProviderVerified { name, verdict });
        }
        session.send(FromParty::Shares(shares)).await?;
        let ToParty::Shares(shares) = session.next().await? else {
            return Err(out_of_turn("in place of the other parties' shares"));
        };
        let (confirming, own) = sealing.shares(&shares)?;
        session.send(FromParty::Confirmation(own)).await?;
        let ToParty::Confirmations(confirmations) = session.next().await? else {
            return Err(out_of_turn("in place of the other parties' confirmations"));
        };
        let confirmations: Vec<_> =
            confirmations.into_iter().map(|entry| (entry.party, entry.confirmation)).collect();
        let key = confirming.confirmed(&confirmations)?;
        self.progress.on(Event::KeyAgreed);
        Ok(Agreed { key, assembled, providers })
    }

    /// Sends the set, and waits for the outcome.
    async fn send(
        &mut self,
        set: &Arc<PseudonymSet>,
        ranks: Range<usize>,
        blake3: [u8; 32],
    ) -> Result<ToParty, Error> {
        let (session, progress) = (&mut self.session, &self.progress);
        let (keys, total) = (ranks.len() as u64, set.len() as u64);
        let announcement = Announcement { keys, blake3 };
        session.send(FromParty::Announcement(announcement)).await?;
        progress.on(Event::Announced);
        let ToParty::Ready = session.next().await? else {
            return Err(out_of_turn("before the service had said that it has room"));
        };
        let mut pieces = Pieces::of(set, ranks);
        progress.sent(0, total);
        loop {
            let Some(piece) = pieces.number(session.due()).await? else {
                match session.next_or_rewound().await? {
                    Some(outcome @ ToParty::Outcome { .. }) => return Ok(outcome),
                    Some(message) => uploads(progress, message)?,
                    None => {}
                }
                continue;
            };
            let sender = session.sender();
            tokio::select! {
                sent = sender.send(FromParty::Chunk(piece)) => {
                    session.chunk(sent.is_ok()).await?;
                    let done = session.due() * PIECE_KEYS as u64;
                    progress.sent(done.min(keys), total);
                }
                message = session.next_or_rewound() => {
                    if let Some(message) = message? {
                        uploads(progress, message)?;
                    }
                }
            }
        }
    }

    /// What the outcome says, with the bitmap that follows it, and the signed statement about it.
    async fn outcome(
        &mut self,
        answer: ToParty,
        keys: usize,
    ) -> Result<(Outcome<Bitmap>, SignedStatement), Error> {
        let ToParty::Outcome { kind, count, bitmap_bytes, signed } = answer else {
            return Err(out_of_turn("in place of the outcome"));
        };
        let expected = reveal::bitmap_bytes(&self.job, &self.name, keys as u64);
        if bitmap_bytes != expected {
            let text = format!(
                "the service announces a bitmap of {bitmap_bytes} bytes for {keys} keys, expected \
                 {expected} bytes"
            );
            return Err(Error::new(Kind::Job, text));
        }
        let mut bits = Vec::new();
        while (bits.len() as u64) < expected {
            match self.session.next().await? {
                ToParty::Bitmap(piece) if (bits.len() + piece.len()) as u64 <= expected => {
                    bits.extend_from_slice(&piece);
                }
                _ => return Err(out_of_turn("in place of a piece of the bitmap")),
            }
        }
        let unsound = |error: &dyn std::fmt::Display| {
            Error::new(Kind::Job, format!("the service's bitmap: {error}"))
        };
        // A party that is told a count, or nothing, gets no bits.
        let keys = if expected == 0 { 0 } else { keys };
        let bitmap = Bitmap::from_bytes(keys, bits).map_err(|error| unsound(&error))?;
        let outcome = kind.outcome(bitmap, count);
        Ok((outcome, signed))
    }
}

/// What went wrong and, if there are several services, at which one.
fn at(job: &Job, address: &str, error: Error) -> Error {
    if job.shard().is_some() { error.at(address) } else { error }
}

fn uploads(progress: &Progress, message: ToParty) -> Result<(), Error> {
    let ToParty::Uploads { complete, missing } = message else {
        return Err(out_of_turn("while sets were uploaded"));
    };
    progress.on(Event::Uploads { complete: &complete, missing: &missing });
    if missing.is_empty() {
        progress.on(Event::JoinRunning);
    }
    Ok(())
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn out_of_turn(when: &str) -> Error {
    let text = format!("the service did not follow the protocol: a message arrived {when}");
    Error::new(Kind::Job, text)
}
