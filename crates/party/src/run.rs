//! One provider's part in one job, from its table to its matched rows.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use convelo_attest::QuoteSource;
use convelo_channel::{Expect, Identity, os_rng};
use convelo_psi::agreement::{JobKey, Member, Opening};
use convelo_psi::{Bitmap, Fingerprint, FingerprintSet, Fingerprinter, Job, KeyId, Parties, What};
use convelo_wire::limits::MAXIMUM_CHUNK_BYTES;
use convelo_wire::{Announcement, Bytes, FromParty, Hello, Outcome, Statement, ToParty};
use rand_core::Rng as _;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use zeroize::Zeroizing;

use crate::attestation::Terms;
use crate::error::{Error, Kind};
use crate::event::{Counts, Event, Observer};
use crate::first_pass::{FirstPass, first_pass};
use crate::limits::{CHUNKS_IN_FLIGHT, LAST_ROW_TIMEOUT};
use crate::receipt::{Receipt, Service, Signed};
use crate::session::{Session, Way};
use crate::spill::Memory;
use crate::summary::{Learned, Summary};
use crate::table::{Output, Table};

/// Everything a provider brings to a job.
pub struct Run {
    /// The job, identical at every party.
    pub job: Job,
    /// The name under which the job lists this party.
    pub name: String,
    /// The party's key.
    pub identity: Identity,
    /// Where evidence about this party comes from, where the job asks for it.
    pub source: Option<Arc<dyn QuoteSource>>,
    /// `host:port` of the service.
    pub address: String,
    /// What the service must prove.
    pub expect: Expect,
    /// Asks the service for no fresh attestation of the connection: plain RA-TLS, as services of
    /// other make speak it. The verdict then rests on a key that an enclave made at some time.
    pub insecure_ratls_only: bool,
    /// How much memory the run may take, and where it puts keys that do not fit.
    pub memory: Memory,
    /// Where matched rows go; nothing is written for the other kinds of result.
    pub output: Option<Destination>,
    /// Where the receipt goes.
    pub receipt: Option<PathBuf>,
}

/// Where matched rows go.
#[derive(Clone, Debug)]
pub enum Destination {
    /// A file; every matched row, duplicates too, in input order.
    File(PathBuf),
    /// Standard output.
    Stdout {
        /// Whether only the first of rows with the same key goes there.
        only_first: bool,
    },
}

/// Runs a provider's part of a job on its table, which is open and has its key columns resolved.
/// `stop` ending asks for an orderly end: the other parties are
/// told, and nothing is written.
///
/// # Errors
/// [`Error`], whose kind tells whose matter it is.
pub async fn run(
    run: Run,
    table: Table,
    observer: Arc<dyn Observer>,
    stop: impl Future<Output = ()>,
) -> Result<Summary, Error> {
    let cancelled = Cancelled::default();
    let provider =
        Provider { run, observer, cancelled: cancelled.clone(), answered: AtomicBool::new(false) };
    tokio::pin!(stop);
    let mut session = None;
    let result = {
        // Boxed, because its state is several kilobytes in every caller's future.
        let mut performing = Box::pin(provider.perform(table, &mut session));
        tokio::select! {
            result = &mut performing => result,
            () = stop => {
                cancelled.cancel();
                if provider.answered.load(Ordering::Relaxed) {
                    // The pass that writes ends at its next row, or has just put the file in its place;
                    // but whoever reads a stream may have stopped to.
                    let text = "stopped on request while the result was written";
                    let written = tokio::time::timeout(LAST_ROW_TIMEOUT, performing).await;
                    written.unwrap_or_else(|_| Err(Error::new(Kind::Stopped, text)))
                } else {
                    Err(Error::new(Kind::Stopped, "stopped on request; the other parties are told"))
                }
            }
        }
    };
    if let Err(error) = &result {
        cancelled.cancel();
        if let (Some(session), None) = (session, error.reason()) {
            session.leave(error.told()).await;
        }
    }
    result
}

/// Tells the blocking passes over a table to end early.
#[derive(Clone, Default)]
struct Cancelled(Arc<AtomicBool>);

impl Cancelled {
    fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn check(&self) -> Result<(), Error> {
        if self.0.load(Ordering::Relaxed) {
            let text = "stopped on request in a pass over the table; an output file is as it was";
            return Err(Error::new(Kind::Stopped, text));
        }
        Ok(())
    }
}

struct Provider {
    run: Run,
    observer: Arc<dyn Observer>,
    cancelled: Cancelled,
    /// Whether the job is over for the others.
    answered: AtomicBool,
}

/// What the parties agreed on before anything was read.
struct Agreed {
    key: Arc<JobKey>,
    members: Vec<Member>,
}

impl Provider {
    async fn perform(&self, table: Table, slot: &mut Option<Session>) -> Result<Summary, Error> {
        let run = &self.run;
        let started = unix_now();
        let patience = Duration::from_secs(run.job.deadline_seconds);
        let credential = match &run.source {
            Some(source) => run.identity.attested(&**source),
            None => run.identity.plain(),
        }
        .map_err(|error| Error::new(Kind::Usage, error.to_string()))?;
        let terms = Terms {
            expect: run.expect.clone(),
            source: run.source.clone(),
            job: run.job.digest(),
            insecure_ratls_only: run.insecure_ratls_only,
        };
        let way = Way { address: run.address.clone(), credential, terms };
        let session = Session::open(way, patience, Arc::clone(&self.observer)).await?;
        match session.fresh() {
            Some(fresh) => self.observer.on(Event::EvidenceVerified(&fresh.verdict)),
            None => self.observer.on(Event::KeyRecognised),
        }
        let session = slot.insert(session);
        let agreed = self.agree(session).await?;
        let (scanned, set, counts) = self.read(session, &agreed.key, table).await?;
        let blake3 = set.blake3();
        let set = Arc::new(set);
        let outcome = self.send(session, &set).await?;
        let (outcome, statement, signature, bitmap) =
            self.outcome(session, outcome, set.len()).await?;
        // From here on the job is over for the others, whatever happens on this side.
        self.answered.store(true, Ordering::Relaxed);
        let (certificate, fresh) = (session.certificate().to_vec(), session.fresh().cloned());
        let verdict = fresh.as_ref().map(|fresh| fresh.verdict.clone());
        let heard = slot.take().map(Session::received);
        let signed = Signed { statement, signature };
        let spki = convelo_attest::spki_of(&certificate)?;
        let statement = signed.verify(&spki)?;
        self.check(&statement, &agreed.members, blake3, set.len(), outcome, bitmap.as_ref())?;
        self.observer.on(Event::Result);
        let (result, output) = match outcome {
            Outcome::Count(keys) => (Learned::Count { keys }, None),
            Outcome::Withheld { .. } => (Learned::Withheld, None),
            Outcome::Nothing => (Learned::Nothing, None),
            Outcome::Intersection { .. } => {
                let bitmap = bitmap.unwrap_or_else(|| Bitmap::new(0));
                let keys = bitmap.count_ones();
                let (rows, output) = self.write(scanned, set, bitmap).await?;
                (Learned::Intersection { keys, rows }, output)
            }
        };
        let digest = run.job.digest();
        let summary = Summary {
            party: run.name.clone(),
            job: run.job.name.clone(),
            job_digest: digest,
            simulated: verdict.as_ref().is_some_and(convelo_attest::Verdict::simulated),
            verdict: verdict.as_ref().map(convelo_attest::Verdict::to_json),
            input: counts,
            result,
            output,
            receipt: run.receipt.clone(),
        };
        if let Some(path) = &run.receipt {
            let collateral = fresh.map(|fresh| fresh.collateral.to_json());
            let (address, key) = (run.address.clone(), KeyId::of_spki(&spki));
            let service = Service { address, key, certificate, collateral };
            Receipt::new(&run.job, &summary, &statement, &signed, service, (started, unix_now()))
                .write(path)?;
        }
        if let Some(heard) = heard {
            let _ = heard.await;
        }
        Ok(summary)
    }

    /// From Hello to the job key.
    async fn agree(&self, session: &mut Session) -> Result<Agreed, Error> {
        let (job, name) = (&self.run.job, &self.run.name);
        let opening = Opening::new(job, name, self.run.identity.signing_key(), &mut os_rng());
        let hello = Hello {
            job: job.canonical().into(),
            party: name.clone(),
            offer: opening.offer(),
            software: concat!("convelo ", env!("CARGO_PKG_VERSION")).to_owned(),
            received: None,
        };
        session.hello(hello).await?;
        let members = loop {
            match session.next().await? {
                ToParty::Waiting(waiting) => self.observer.on(Event::Waiting(&waiting)),
                ToParty::Assembled(members) => break members,
                _ => return Err(out_of_turn("before all parties had come")),
            }
        };
        let (sealing, shares) = opening.assembled(job, &members, &mut os_rng())?;
        let names = members.iter().map(|member| member.name.as_str()).collect();
        let pinned = matches!(job.parties, Parties::Named(_));
        self.observer.on(Event::Assembled { names, pinned });
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
        let key = Arc::new(confirming.confirmed(&confirmations)?);
        self.observer.on(Event::KeyAgreed);
        Ok(Agreed { key, members })
    }

    /// First pass over the table, while the service may tell that the job has failed.
    async fn read(
        &self,
        session: &mut Session,
        key: &Arc<JobKey>,
        table: Table,
    ) -> Result<(Scanned, FingerprintSet, Counts), Error> {
        let (key, observer, cancelled) =
            (Arc::clone(key), Arc::clone(&self.observer), self.cancelled.clone());
        let (job, memory) = (self.run.job.clone(), self.run.memory.clone());
        let cap = job.maximum_keys_of(&self.run.name);
        let mut pass = tokio::task::spawn_blocking(move || {
            let total = table.size_bytes();
            let FirstPass { set, counts, scanned } = first_pass(
                &table,
                &job.keys,
                &key.fingerprinter(),
                &memory,
                |done| observer.on(Event::Reading { done, total }),
                || cancelled.check(),
            )?;
            observer.on(Event::Read(counts));
            if counts.keys > cap {
                let text = format!(
                    "the table has {} distinct keys and the job allows {cap}; nothing was sent",
                    counts.keys
                );
                return Err(Error::new(Kind::RevealPolicy, text));
            }
            let missing = job.padded(counts.keys) - counts.keys;
            let set = if missing > 0 { set.padded(random(missing)) } else { Ok(set) };
            let set = set.map_err(|error| Memory::error(&error))?;
            Ok::<_, Error>((Scanned { table, counts: scanned }, set, counts))
        });
        tokio::select! {
            done = &mut pass => done.map_err(|error| broken(&error))?,
            message = session.next() => {
                message?;
                Err(out_of_turn("while the table was read"))
            }
        }
    }

    /// Sends the set, and waits for the outcome.
    async fn send(
        &self,
        session: &mut Session,
        set: &Arc<FingerprintSet>,
    ) -> Result<ToParty, Error> {
        let total = set.len() as u64;
        let announcement = Announcement { keys: total, blake3: set.blake3() };
        session.send(FromParty::Announcement(announcement)).await?;
        self.observer.on(Event::Announced);
        let ToParty::Room = session.next().await? else {
            return Err(out_of_turn("before the service had said that it has room"));
        };
        let mut pieces = Pieces::of(set);
        self.observer.on(Event::Sending { done: 0, total });
        loop {
            let Some(piece) = pieces.number(session.due()).await? else {
                match session.next_or_rewound().await? {
                    Some(outcome @ ToParty::Outcome { .. }) => return Ok(outcome),
                    Some(message) => self.uploads(message)?,
                    None => {}
                }
                continue;
            };
            let sender = session.sender();
            tokio::select! {
                sent = sender.send(FromParty::Chunk(piece)) => {
                    session.chunk(sent.is_ok()).await?;
                    let done = total.min(session.due() * (MAXIMUM_CHUNK_BYTES / 16) as u64);
                    self.observer.on(Event::Sending { done, total });
                }
                message = session.next_or_rewound() => {
                    if let Some(message) = message? {
                        self.uploads(message)?;
                    }
                }
            }
        }
    }

    /// What the outcome says, and the bitmap that follows it.
    async fn outcome(
        &self,
        session: &mut Session,
        outcome: ToParty,
        keys: usize,
    ) -> Result<(Outcome, Vec<u8>, Vec<u8>, Option<Bitmap>), Error> {
        let ToParty::Outcome { outcome, statement, signature } = outcome else {
            return Err(out_of_turn("in place of the outcome"));
        };
        let statement = statement.to_vec();
        let (bitmap_bytes, expected) = match outcome {
            Outcome::Intersection { bitmap_bytes } => (bitmap_bytes, keys.div_ceil(8)),
            Outcome::Withheld { bitmap_bytes } => match self.run.job.reveal.what {
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
            match session.next().await? {
                ToParty::Bitmap(piece) if bits.len() + piece.len() <= expected => {
                    bits.extend_from_slice(&piece);
                }
                _ => return Err(out_of_turn("in place of a piece of the bitmap")),
            }
        }
        if !matches!(outcome, Outcome::Intersection { .. }) {
            return Ok((outcome, statement, signature, None));
        }
        let bitmap = Bitmap::from_bytes(keys, bits)
            .map_err(|error| Error::new(Kind::Job, format!("the service's bitmap: {error}")))?;
        Ok((outcome, statement, signature, Some(bitmap)))
    }

    fn uploads(&self, message: ToParty) -> Result<(), Error> {
        let ToParty::Uploads { complete, missing } = message else {
            return Err(out_of_turn("while sets were uploaded"));
        };
        self.observer.on(Event::Uploads { complete: &complete, missing: &missing });
        if missing.is_empty() {
            self.observer.on(Event::JoinRunning);
        }
        Ok(())
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
        let run = &self.run;
        let same_members = statement.members.len() == members.len()
            && statement
                .members
                .iter()
                .zip(members)
                .all(|(signed, seen)| signed.name == seen.name && signed.spki == seen.spki);
        let entitled = run.job.learns(&run.name);
        let as_the_job_says = match outcome {
            Outcome::Intersection { .. } => entitled && run.job.reveal.what == What::Intersection,
            Outcome::Count(_) => entitled && run.job.reveal.what == What::Count,
            Outcome::Withheld { .. } => entitled && run.job.reveal.minimum > 0,
            Outcome::Nothing => !entitled,
        };
        if !as_the_job_says {
            let word = outcome.kind().as_str();
            let text = format!("the service answered '{word}', which the job's terms do not allow");
            return Err(Error::new(Kind::Job, text));
        }
        let holds = statement.job == run.job.digest()
            && statement.party == run.name
            && statement.party_key == KeyId::of_spki(run.identity.spki())
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

    /// Second pass: the rows whose keys are in the intersection.
    async fn write(
        &self,
        scanned: Scanned,
        set: Arc<FingerprintSet>,
        bitmap: Bitmap,
    ) -> Result<(u64, Option<PathBuf>), Error> {
        let Some(destination) = self.run.output.clone() else { return Ok((0, None)) };
        let (observer, cancelled) = (Arc::clone(&self.observer), self.cancelled.clone());
        let Scanned { mut table, counts } = scanned;
        let pass = tokio::task::spawn_blocking(move || {
            let mut stdout = std::io::stdout().lock();
            let (output, path, once) = match &destination {
                Destination::File(path) => (Output::File(path), Some(path.clone()), false),
                Destination::Stdout { only_first } => {
                    (Output::Stream(&mut stdout), None, *only_first)
                }
            };
            let rows = u32::try_from(counts.rows).expect("rows are counted in 32 bits");
            let matched = set.rows(&bitmap, rows, once).map_err(|error| Memory::error(&error))?;
            drop((set, bitmap));
            let total = table.size_bytes();
            let written = table.write_matched(
                &counts,
                output,
                |done| observer.on(Event::Writing { done, total }),
                |row| {
                    cancelled.check()?;
                    Ok::<_, Error>(usize::try_from(row).is_ok_and(|row| matched.is_set(row)))
                },
            )?;
            Ok::<_, Error>((written.rows, path))
        });
        pass.await.map_err(|error| broken(&error))?
    }
}

/// Pseudonyms of nothing, which look like all others: the same function of other inputs, under a key that
/// is gone when they are made.
fn random(count: u64) -> impl Iterator<Item = Fingerprint> {
    let mut key = Zeroizing::new([0; 16]);
    os_rng().fill_bytes(&mut *key);
    let fingerprinter = Fingerprinter::new(&key);
    (0..count).map(move |number| fingerprinter.fingerprint(&number.to_be_bytes()))
}

/// The pieces of a set, made while others are sent.
struct Pieces {
    set: Arc<FingerprintSet>,
    number: u64,
    present: Option<Bytes>,
    made: mpsc::Receiver<std::io::Result<Vec<u8>>>,
}

impl Pieces {
    fn of(set: &Arc<FingerprintSet>) -> Self {
        Self { set: Arc::clone(set), number: 0, present: None, made: chunks(set, 0) }
    }

    /// The piece of this number; nothing behind the last.
    async fn number(&mut self, number: u64) -> Result<Option<Bytes>, Error> {
        if number == self.number + 1 && self.present.is_some() {
            (self.number, self.present) = (number, None);
        } else if number != self.number {
            (self.number, self.present) = (number, None);
            self.made = chunks(&self.set, number);
        }
        if self.present.is_none() {
            let made = self.made.recv().await.transpose();
            self.present = made.map_err(|error| Memory::error(&error))?.map(Bytes::from);
        }
        Ok(self.present.clone())
    }
}

/// Makes the pieces of a set, from one on. Nobody waits for the thread that does: it ends when nobody
/// takes them.
fn chunks(set: &Arc<FingerprintSet>, from: u64) -> mpsc::Receiver<std::io::Result<Vec<u8>>> {
    let (made, chunks) = mpsc::channel(CHUNKS_IN_FLIGHT);
    let (set, from) = (Arc::clone(set), usize::try_from(from).unwrap_or(usize::MAX));
    tokio::task::spawn_blocking(move || {
        for chunk in set.chunks(MAXIMUM_CHUNK_BYTES).skip(from) {
            if made.blocking_send(chunk).is_err() {
                break;
            }
        }
    });
    chunks
}

/// A table after its first pass.
struct Scanned {
    table: Table,
    counts: crate::table::Counts,
}

fn out_of_turn(when: &str) -> Error {
    let text = format!("the service did not follow the protocol: a message arrived {when}");
    Error::new(Kind::Job, text)
}

fn broken(error: &tokio::task::JoinError) -> Error {
    Error::new(Kind::Job, format!("a pass over the table failed inside the program: {error}"))
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
