//! One provider's part in one job, from its table to its matched rows.

use std::future::Future;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use convelo_attest::{QuoteSource, Verdict};
use convelo_channel::{Expect, Identity, os_rng};
use convelo_psi::agreement::{JobKey, Member};
use convelo_psi::{Bitmap, Fingerprint, FingerprintSet, Fingerprinter, Job, KeyId};
use convelo_wire::Outcome;
use futures_util::future::{join_all, select_all, try_join_all};
use rand_core::Rng as _;
use zeroize::Zeroizing;

use crate::attestation::Terms;
use crate::error::{Error, Kind};
use crate::event::{Counts, Event, Observer};
use crate::first_pass::{FirstPass, first_pass};
use crate::limits::LAST_ROW_TIMEOUT;
use crate::part::{Answer, Part, Progress, broken};
use crate::session::Way;
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
    /// `host:port` of each of the job's services, in their order.
    pub addresses: Vec<String>,
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
    let mut parts = Vec::new();
    let result = {
        // Boxed, because its state is several kilobytes in every caller's future.
        let mut performing = Box::pin(provider.perform(table, &mut parts));
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
        let told = error.told();
        let leaving = parts.into_iter().map(|part| part.leave(told));
        // A single service that said why it ended the job knows.
        if error.reason().is_none() || leaving.len() > 1 {
            join_all(leaving).await;
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

impl Provider {
    async fn perform(&self, table: Table, slot: &mut Vec<Part>) -> Result<Summary, Error> {
        let run = &self.run;
        let started = unix_now();
        *slot = self.open().await?;
        let agreed = try_join_all(slot.iter_mut().map(Part::agree)).await?;
        let (keys, members): (Vec<_>, Vec<_>) =
            agreed.into_iter().map(|agreed| (agreed.key, agreed.members)).unzip();
        same_members(&members)?;
        let key = Arc::new(JobKey::combined(keys, run.job.digest()));
        let (scanned, set, counts) = self.read(slot, &key, table).await?;
        let set = Arc::new(set);
        let joining = slot.iter_mut().zip(&members).zip(ranks(&set, run.job.services()));
        let joining = joining.map(|((part, members), ranks)| part.join(&set, ranks, members));
        let answers = try_join_all(joining).await?;
        // From here on the job is over for the others, whatever happens on this side.
        self.answered.store(true, Ordering::Relaxed);
        let heard: Vec<_> = slot.drain(..).map(Part::received).collect();
        self.observer.on(Event::Result);
        let (result, output) = match learned(&answers)? {
            Outcome::Count(keys) => (Learned::Count { keys }, None),
            Outcome::Withheld { .. } => (Learned::Withheld, None),
            Outcome::Nothing => (Learned::Nothing, None),
            Outcome::Intersection { .. } => {
                let bitmap = whole(&answers, set.len())?;
                let keys = bitmap.count_ones();
                let (rows, output) = self.write(scanned, set, bitmap).await?;
                (Learned::Intersection { keys, rows }, output)
            }
        };
        let simulated = |answer: &Answer| answer.verdict().is_some_and(Verdict::simulated);
        let mut summary = Summary {
            party: run.name.clone(),
            job: run.job.name().to_owned(),
            job_digest: run.job.digest(),
            simulated: answers.iter().any(simulated),
            verdict: answers.iter().find_map(Answer::verdict).map(Verdict::to_json),
            input: counts,
            result,
            output,
            receipts: Vec::new(),
        };
        if let Some(path) = &run.receipt {
            let times = (started, unix_now());
            for ((number, answer), job) in answers.into_iter().enumerate().zip(run.job.shards()) {
                let path =
                    if job.shard().is_some() { numbered(path, number) } else { path.clone() };
                let address = run.addresses[number].clone();
                answer.receipt(&job, address, &summary, times).write(&path)?;
                summary.receipts.push(path);
            }
        }
        for heard in heard {
            let _ = heard.await;
        }
        Ok(summary)
    }

    /// Contacts every service.
    async fn open(&self) -> Result<Vec<Part>, Error> {
        let run = &self.run;
        let credential = match &run.source {
            Some(source) => run.identity.attested(&**source),
            None => run.identity.plain(),
        }
        .map_err(|error| Error::new(Kind::Usage, error.to_string()))?;
        let jobs = run.job.shards();
        if jobs.len() != run.addresses.len() {
            let (services, addresses) = (jobs.len(), run.addresses.len());
            let text =
                format!("the job has {services} services, and {addresses} addresses are given");
            return Err(Error::new(Kind::Usage, text));
        }
        let progress = Progress::of(&self.observer, jobs.len());
        let opening = jobs.into_iter().zip(&run.addresses).zip(progress);
        try_join_all(opening.map(|((job, address), progress)| {
            let terms = Terms {
                expect: run.expect.clone(),
                source: run.source.clone(),
                job: job.digest(),
                insecure_ratls_only: run.insecure_ratls_only,
            };
            let way = Way { address: address.clone(), credential: credential.clone(), terms };
            Part::open(job, (run.name.clone(), run.identity.clone()), way, progress)
        }))
        .await
    }

    /// First pass over the table, while a service may tell that the job has failed.
    async fn read(
        &self,
        parts: &mut [Part],
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
                job.keys(),
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
            let set = if missing > 0 {
                set.padded(random().take(usize::try_from(missing).unwrap_or(usize::MAX)))
            } else {
                Ok(set)
            };
            let set = set.map_err(Error::spill)?;
            Ok::<_, Error>((Scanned { table, counts: scanned }, filled(set, &job)?, counts))
        });
        let interrupted = select_all(parts.iter_mut().map(|part| Box::pin(part.interrupted())));
        tokio::select! {
            done = &mut pass => done.map_err(|error| broken(&error))?,
            (error, ..) = interrupted => Err(error),
        }
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
            let matched = set.rows(&bitmap, rows, once).map_err(Error::spill)?;
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
fn random() -> impl Iterator<Item = Fingerprint> {
    let mut key = Zeroizing::new([0; 16]);
    os_rng().fill_bytes(&mut *key);
    let fingerprinter = Fingerprinter::new(&key);
    (0_u64..).map(move |number| fingerprinter.fingerprint(&number.to_be_bytes()))
}

/// The set with as many pseudonyms of nothing in each shard as the job's services expect.
fn filled(set: FingerprintSet, job: &Job) -> Result<FingerprintSet, Error> {
    let services = job.services();
    if services == 1 {
        return Ok(set);
    }
    // The set is filled up to a multiple already, and a multiple of it is itself.
    let size = usize::try_from(job.sent(set.len() as u64)).unwrap_or(usize::MAX);
    let missing = set.in_shards(services).into_iter().map(|length| size.checked_sub(length));
    let Some(mut missing) = missing.collect::<Option<Vec<usize>>>() else {
        let text = "by a chance of less than 2^-40 more of the keys go to one service than their number \
                    makes likely, and nothing was sent; run the job again";
        return Err(Error::new(Kind::Job, text));
    };
    let mut filler = Vec::with_capacity(missing.iter().sum());
    let mut candidates = random();
    while filler.len() < filler.capacity() && missing.iter().any(|missing| *missing > 0) {
        let Some(candidate) = candidates.next() else { break };
        let missing = &mut missing[candidate.shard(services)];
        if *missing > 0 {
            *missing -= 1;
            filler.push(candidate);
        }
    }
    Ok(set.filled(filler))
}

/// The ranks of each service's shard.
fn ranks(set: &FingerprintSet, services: usize) -> Vec<Range<usize>> {
    let mut end = 0;
    let lengths = set.in_shards(services).into_iter();
    lengths
        .map(|length| {
            end += length;
            end - length..end
        })
        .collect()
}

/// All services must show the same parties.
fn same_members(members: &[Vec<Member>]) -> Result<(), Error> {
    let known = |members: &[Member]| -> Vec<_> {
        members.iter().map(|member| (member.name.clone(), KeyId::of_spki(&member.spki))).collect()
    };
    let first = known(members.first().map_or(&[], Vec::as_slice));
    if members.iter().all(|members| known(members) == first) {
        return Ok(());
    }
    let text = "the services of the job show different parties; nothing was sent";
    Err(Error::new(Kind::Job, text))
}

/// What all services answered alike.
fn learned(answers: &[Answer]) -> Result<Outcome, Error> {
    let kinds = |answer: &Answer| answer.outcome.kind();
    match answers {
        [first, rest @ ..] if rest.iter().all(|answer| kinds(answer) == kinds(first)) => {
            Ok(first.outcome)
        }
        _ => Err(Error::new(
            Kind::Job,
            "the services of the job answered with different kinds of results",
        )),
    }
}

/// The bitmap of the whole set. A shard's ends at a whole byte.
fn whole(answers: &[Answer], keys: usize) -> Result<Bitmap, Error> {
    let bitmaps = answers.iter().filter_map(|answer| answer.bitmap.as_ref());
    let bytes = bitmaps.flat_map(Bitmap::as_bytes).copied().collect();
    Bitmap::from_bytes(keys, bytes)
        .map_err(|error| Error::new(Kind::Job, format!("the services' bitmaps: {error}")))
}

/// The path of the receipt of one of several services: `matched.csv.receipt.2.json`.
fn numbered(path: &Path, number: usize) -> PathBuf {
    let number = (number + 1).to_string();
    match (path.file_stem(), path.extension()) {
        (Some(stem), Some(extension)) => {
            let mut name = stem.to_owned();
            for part in [".", &number, "."] {
                name.push(part);
            }
            name.push(extension);
            path.with_file_name(name)
        }
        _ => path.with_extension(number),
    }
}

/// A table after its first pass.
struct Scanned {
    table: Table,
    counts: crate::table::Counts,
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
