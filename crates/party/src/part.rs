//! A provider's part in the job at one service: of a job that has several, one shard.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use convelo_attest::Verdict;
use convelo_channel::{Fresh, Identity, os_rng};
use convelo_psi::agreement::{JobKey, Member, Opening};
use convelo_psi::{Bitmap, FingerprintSet, Job, KeyId, Parties, What};
use convelo_wire::{Announcement, FromParty, Hello, Outcome, Reason, Statement, ToParty};
use sha2::{Digest as _, Sha256};
use tokio::task::JoinHandle;

use crate::error::{Error, Kind};
use crate::event::{Event, Observer as _};
use crate::pieces::{PIECE_KEYS, Pieces, blake3};
use crate::progress::Progress;
use crate::receipt::Signed;
use crate::session::{Contact, Session};

/// The part.
pub(crate) struct Part {
    /// The job as this service has it.
    job: Job,
    name: String,
    identity: Identity,
    session: Session,
    progress: Progress,
    address: String,
}

/// What the parties agreed on through one service before anything was read.
pub(crate) struct Agreed {
    pub(crate) key: JobKey,
    pub(crate) members: Vec<Member>,
}

/// What one service answered, verified.
pub(crate) struct Answer {
    pub(crate) job: Job,
    pub(crate) address: String,
    pub(crate) outcome: Outcome,
    pub(crate) bitmap: Option<Bitmap>,
    pub(crate) statement: Statement,
    pub(crate) signed: Signed,
    pub(crate) certificate: Vec<u8>,
    pub(crate) spki: Vec<u8>,
    pub(crate) fresh: Option<Fresh>,
}

impl Answer {
    pub(crate) fn verdict(&self) -> Option<&Verdict> {
        self.fresh.as_ref().map(|fresh| &fresh.verdict)
    }
}

impl Part {
    /// Contacts the service, which must prove what it is.
    pub(crate) async fn open(
        job: Job,
        (name, identity): (String, Identity),
        contact: Contact,
        progress: Progress,
    ) -> Result<Self, Error> {
        let patience = Duration::from_secs(job.deadline_seconds());
        let address = contact.address.clone();
        let session = Session::open(contact, patience, Arc::new(progress.clone())).await;
        let session = session.map_err(|error| at(&job, &address, error))?;
        match session.fresh() {
            Some(fresh) => progress.on(Event::EvidenceVerified(&fresh.verdict)),
            None => progress.on(Event::KeyRecognised),
        }
        Ok(Self { job, name, identity, session, progress, address })
    }

    /// The next message, which while nothing is asked of the service can only be the end.
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

    /// Sends the fingerprints of these ranks; what the service answers.
    pub(crate) async fn join(
        &mut self,
        set: &Arc<FingerprintSet>,
        ranks: Range<usize>,
        members: &[Member],
    ) -> Result<Answer, Error> {
        let answer = self.upload(set, ranks, members).await;
        answer.map_err(|error| at(&self.job, &self.address, error))
    }

    async fn upload(
        &mut self,
        set: &Arc<FingerprintSet>,
        ranks: Range<usize>,
        members: &[Member],
    ) -> Result<Answer, Error> {
        let blake3 = blake3(set, ranks.clone()).await?;
        let outcome = self.send(set, ranks.clone(), blake3).await?;
        let (outcome, signed, bitmap) = self.outcome(outcome, ranks.len()).await?;
        let (certificate, fresh) =
            (self.session.certificate().to_vec(), self.session.fresh().cloned());
        let spki = convelo_attest::spki_of(&certificate)?;
        let statement = signed.verify(&spki)?;
        self.check(&statement, members, blake3, ranks.len(), outcome, bitmap.as_ref())?;
        let (job, address) = (self.job.clone(), self.address.clone());
        Ok(Answer { job, address, outcome, bitmap, statement, signed, certificate, spki, fresh })
    }

    /// Tells the service that this party gives up, and why.
    pub(crate) async fn leave(self, reason: Reason) {
        self.session.leave(reason).await;
    }

    /// Tells the service that the result is here.
    pub(crate) fn received(self) -> JoinHandle<()> {
        self.session.received()
    }

    async fn agree_on_key(&mut self) -> Result<Agreed, Error> {
        let (job, name, session) = (&self.job, &self.name, &mut self.session);
        let opening = Opening::new(job, name, self.identity.signing_key(), &mut os_rng());
        let hello = Hello {
            job: job.canonical().to_owned().into(),
            party: name.clone(),
            offer: opening.offer(),
            software: concat!("convelo ", env!("CARGO_PKG_VERSION")).to_owned(),
            received: None,
        };
        session.hello(hello).await?;
        let members = loop {
            match session.next().await? {
                ToParty::Waiting(waiting) => self.progress.on(Event::Waiting(&waiting)),
                ToParty::Assembled(members) => break members,
                _ => return Err(out_of_turn("before all parties had come")),
            }
        };
        let (sealing, shares) = opening.assembled(job, &members, &mut os_rng())?;
        let names = members.iter().map(|member| member.name.as_str()).collect();
        let pinned = matches!(job.parties(), Parties::Named(_));
        self.progress.on(Event::Assembled { names, pinned });
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
            confirmations.into_iter().map(|entry| (entry.party, entry.tag)).collect();
        let key = confirming.confirmed(&confirmations)?;
        self.progress.on(Event::KeyAgreed);
        Ok(Agreed { key, members })
    }

    /// Sends the set, and waits for the outcome.
    async fn send(
        &mut self,
        set: &Arc<FingerprintSet>,
        ranks: Range<usize>,
        blake3: [u8; 32],
    ) -> Result<ToParty, Error> {
        let (session, progress) = (&mut self.session, &self.progress);
        let (keys, total) = (ranks.len() as u64, set.len() as u64);
        let announcement = Announcement { keys, blake3 };
        session.send(FromParty::Announcement(announcement)).await?;
        progress.on(Event::Announced);
        let ToParty::Room = session.next().await? else {
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

    /// What the outcome says, and the bitmap that follows it.
    async fn outcome(
        &mut self,
        outcome: ToParty,
        keys: usize,
    ) -> Result<(Outcome, Signed, Option<Bitmap>), Error> {
        let ToParty::Outcome { outcome, statement, signature } = outcome else {
            return Err(out_of_turn("in place of the outcome"));
        };
        let signed = Signed { statement: statement.to_vec(), signature };
        let (bitmap_bytes, expected) = match outcome {
            Outcome::Intersection { bitmap_bytes } => (bitmap_bytes, keys.div_ceil(8)),
            Outcome::Withheld { bitmap_bytes } => match self.job.reveal().what {
                What::Intersection => (bitmap_bytes, keys.div_ceil(8)),
                What::Count => (bitmap_bytes, 0),
            },
            Outcome::Count(_) | Outcome::Nothing => (0, 0),
        };
        if bitmap_bytes != expected as u64 {
            let text = format!(
                "the service announces a bitmap of {bitmap_bytes} bytes for {keys} keys; \
                 {expected} bytes are expected"
            );
            return Err(Error::new(Kind::Job, text));
        }
        let mut bits = Vec::with_capacity(expected);
        while bits.len() < expected {
            match self.session.next().await? {
                ToParty::Bitmap(piece) if bits.len() + piece.len() <= expected => {
                    bits.extend_from_slice(&piece);
                }
                _ => return Err(out_of_turn("in place of a piece of the bitmap")),
            }
        }
        if !matches!(outcome, Outcome::Intersection { .. }) {
            return Ok((outcome, signed, None));
        }
        let bitmap = Bitmap::from_bytes(keys, bits)
            .map_err(|error| Error::new(Kind::Job, format!("the service's bitmap: {error}")))?;
        Ok((outcome, signed, Some(bitmap)))
    }

    /// The signed statement must say what this party saw, word for word.
    fn check(
        &self,
        statement: &Statement,
        members: &[Member],
        set_blake3: [u8; 32],
        keys: usize,
        outcome: Outcome,
        bitmap: Option<&Bitmap>,
    ) -> Result<(), Error> {
        let result = match outcome {
            Outcome::Intersection { .. } => {
                bitmap.map(|bitmap| <[u8; 32]>::from(Sha256::digest(bitmap.as_bytes())))
            }
            Outcome::Count(count) => Some(Sha256::digest(count.to_be_bytes()).into()),
            Outcome::Withheld { .. } | Outcome::Nothing => None,
        };
        let same_members = statement.members.len() == members.len()
            && statement
                .members
                .iter()
                .zip(members)
                .all(|(signed, seen)| signed.name == seen.name && signed.spki == seen.spki);
        let entitled = self.job.learns(&self.name);
        let as_the_job_says = match outcome {
            Outcome::Intersection { .. } => {
                entitled && self.job.reveal().what == What::Intersection
            }
            Outcome::Count(_) => entitled && self.job.reveal().what == What::Count,
            Outcome::Withheld { .. } => entitled && self.job.reveal().minimum > 0,
            Outcome::Nothing => !entitled,
        };
        if !as_the_job_says {
            let word = outcome.kind().as_str();
            let text = format!("the service answered '{word}', which the job's terms do not allow");
            return Err(Error::new(Kind::Job, text));
        }
        let holds = statement.job == self.job.digest()
            && statement.party == self.name
            && statement.party_key == KeyId::of_spki(self.identity.spki())
            && same_members
            && statement.keys == keys as u64
            && statement.set_blake3 == set_blake3
            && statement.kind == outcome.kind()
            && statement.result_sha256 == result;
        if holds {
            return Ok(());
        }
        let text = "the statement that the service signed does not say what it sent; \
                    the result is not used";
        Err(Error::new(Kind::Job, text))
    }
}

/// What went wrong, and at which of several services.
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

fn out_of_turn(when: &str) -> Error {
    let text = format!("the service did not follow the protocol: a message arrived {when}");
    Error::new(Kind::Job, text)
}
