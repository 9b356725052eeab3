//! One provider's part in one job, from its table to its matched rows. It meets the services,
//! agrees on a key with the other parties, reads its table, has its set intersected, and writes the
//! rows and the receipts.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use convelo_attest::Verdict;
use convelo_psi::{Bitmap, Canaries, Outcome, Protocol};

use crate::dropped::DroppedList;
use crate::engine::Engine;
use crate::error::{Error, Kind};
use crate::event::{Event, Observer};
use crate::first_pass::{FirstPass, first_pass};
use crate::kept::Keeper;
use crate::key_hash::KeyHash;
use crate::limits::LAST_ROW_TIMEOUT;
use crate::plan::{Conditions, Plan};
use crate::second_pass::{MatchedRows, Scanned};
use crate::shards;
use crate::summary::{Counted, Matched, Summary};
use crate::table::{Output, Table};

/// Runs a provider's part of a job on its table. When `stop` completes, the run ends in an orderly
/// way: the other parties are told, if the service knows of this one, and nothing is written.
///
/// # Errors
/// [`Error`]; its kind says who has to act.
pub async fn run(
    plan: Plan,
    table: Table,
    observer: Arc<dyn Observer>,
    stop: impl Future<Output = ()>,
) -> Result<Summary, Error> {
    plan.check(&table)?;
    let Plan { conditions: plan, output } = plan;
    let cancelled = Cancelled::default();
    let provider = Provider {
        plan,
        observer,
        cancelled: cancelled.clone(),
        answered: AtomicBool::new(false),
        receipts: OnceLock::new(),
    };
    tokio::pin!(stop);
    let (mut met, mut stopped) = (None, false);
    let result = {
        // Boxed: its state would add several kilobytes to every caller's future.
        let mut performing = Box::pin(provider.perform(table, output, &mut met));
        tokio::select! {
            result = &mut performing => result,
            () = stop => {
                cancelled.cancel();
                if provider.answered.load(Ordering::Relaxed) {
                    // The writing pass ends at its next row, or has just put the file in place; but
                    // the reader of a stream may have stopped reading.
                    let written = tokio::time::timeout(LAST_ROW_TIMEOUT, performing).await;
                    written.unwrap_or_else(|_| {
                        let text = "stopped on request while the result was being written";
                        let receipts = provider.receipts.get().map_or(&[][..], Vec::as_slice);
                        Err(Error::new(Kind::Stopped, text).after_receipts(receipts))
                    })
                } else {
                    stopped = true;
                    Err(Error::new(Kind::Stopped, "stopped on request"))
                }
            }
        }
    };
    let Err(error) = result else { return result };
    cancelled.cancel();
    let told = match met {
        Some(engine) => engine.leave(&error).await,
        None => false,
    };
    if !stopped {
        return Err(error);
    }
    let told = if told {
        "the other parties have been told"
    } else {
        "nobody was told: no other side knew of this party, or none could be reached"
    };
    Err(Error::new(Kind::Stopped, format!("{error}; {told}")))
}

/// Tells the blocking passes over a table to end early.
#[derive(Clone, Default)]
struct Cancelled(Arc<AtomicBool>);

impl Cancelled {
    fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn check(&self) -> Result<(), Error> {
        if self.0.load(Ordering::Relaxed) { Err(Self::stopped()) } else { Ok(()) }
    }

    /// Apart from the check, which is made for every row.
    #[cold]
    fn stopped() -> Error {
        let text = "stopped on request during a pass over the table; an output file is unchanged";
        Error::new(Kind::Stopped, text)
    }
}

struct Provider {
    plan: Conditions,
    observer: Arc<dyn Observer>,
    cancelled: Cancelled,
    /// Whether the job is over for the other parties.
    answered: AtomicBool,
    /// The receipts, once they are written.
    receipts: OnceLock<Vec<PathBuf>>,
}

impl Provider {
    /// All the steps. It leaves the engine in `met`, so that the other sides can be told if it does not
    /// finish.
    async fn perform(
        &self,
        table: Table,
        output: Option<Output<'static>>,
        met: &mut Option<Engine>,
    ) -> Result<Summary, Error> {
        let plan = &self.plan;
        let started = unix_now();
        let met = met.insert(Engine::meet(plan, &self.observer).await?);
        let hash = met.agree().await?;
        let scanned = self.read(met, hash, table).await?;
        let (outcome, witness) = met.intersect(&scanned.set, &scanned.canaries).await?;
        self.answered.store(true, Ordering::Relaxed);
        self.observer.on(Event::Result);
        let input = scanned.counts;
        let canaries = match &outcome {
            Outcome::Intersection(_) => Some(scanned.canaries.counts()),
            _ => None,
        };
        let canaries = canaries.filter(|asked| asked.in_all > 0);
        let (mut file, mut due, mut keeper) = (None, None, None);
        let survey = scanned.survey.clone();
        let result = match outcome {
            Outcome::Count(keys) => Outcome::Count(Counted { keys }),
            Outcome::Withheld => Outcome::Withheld,
            Outcome::Nothing => Outcome::Nothing,
            Outcome::Intersection(marks) => {
                let keys = marks.count_ones();
                let rows = match output {
                    Some(output) => {
                        let at = plan.keep_answer.as_ref().filter(|_| !output.is_batches());
                        keeper = at.map(|path| Keeper {
                            job_digest: plan.job.digest(),
                            party: plan.name.clone(),
                            path: path.clone(),
                            temporary: plan.memory.directory.clone(),
                        });
                        file = output.file().map(Path::to_owned);
                        let matched = self.matched(scanned, marks).await?;
                        let rows = matched.count();
                        due = Some((matched, output));
                        rows
                    }
                    None => 0,
                };
                Outcome::Intersection(Matched { keys, rows })
            }
        };
        let mut summary = Summary {
            party: plan.name.clone(),
            job: plan.job.name().to_owned(),
            job_digest: plan.job.digest(),
            protocol: plan.job.protocol().map(Protocol::as_str),
            simulated: witness.simulated(),
            attested: witness.attested(),
            fresh: witness.fresh(),
            verdict: witness.verdict().map(Verdict::to_json),
            providers: plan.providers.as_ref().map(|_| met.providers().to_vec()),
            input,
            survey,
            result,
            canaries,
            output: file,
            receipts: Vec::new(),
        };
        if let Some(path) = &plan.receipt {
            // Before the rows: what was learned is on record even if they cannot be written.
            let times = (started, unix_now());
            let write = |path: &Path| witness.write_receipts(path, &summary, times);
            let written = write(path).or_else(|error| {
                let elsewhere = path.file_name().map(|name| plan.memory.directory.join(name));
                elsewhere.and_then(|path| write(&path).ok()).ok_or(error)
            });
            summary.receipts = written.map_err(|error| error.after_receipts(&[]))?;
            let _ = self.receipts.set(summary.receipts.clone());
        }
        if let Some((matched, output)) = due {
            let written = self.write(matched, output, keeper).await;
            written.map_err(|error| error.after_receipts(&summary.receipts))?;
        }
        witness.heard().await;
        Ok(summary)
    }

    /// First pass over the table, while the other sides may report that the job has failed. Drops the
    /// job key, if there is one, when it ends.
    async fn read(&self, met: &mut Engine, hash: KeyHash, table: Table) -> Result<Scanned, Error> {
        let (observer, cancelled) = (Arc::clone(&self.observer), self.cancelled.clone());
        let (job, memory) = (self.plan.job.clone(), self.plan.memory.clone());
        let (name, allow_empty) = (self.plan.name.clone(), self.plan.allow_empty);
        let (list, no_rows) = (self.plan.list_dropped.clone(), self.plan.allow_no_rows);
        let parties = met.parties();
        let mut pass = tokio::task::spawn_blocking(move || {
            let total = table.size_bytes();
            let list = list.map(|path| DroppedList::new(&path, job.keys())).transpose()?;
            let FirstPass { set, counts, scanned, survey } = first_pass(
                &table,
                job.keys(),
                &hash,
                &memory,
                list,
                |done| observer.on(Event::Reading { done, total }),
                || cancelled.check(),
            )?;
            observer.on(Event::Read { counts, survey: &survey });
            survey.check_keys(counts, allow_empty || (no_rows && counts.rows == 0))?;
            counts.check_cap(job.maximum_keys_of(&name))?;
            let parties = parties.iter().map(String::as_str);
            let canaries = match &hash {
                KeyHash::Pseudonyms(hash) => Canaries::of(&job, parties, &name, hash),
                KeyHash::Items(_) => Canaries::default(),
            };
            let set = Arc::new(shards::filled(set, &canaries, &job)?);
            let canaries = canaries.ranked(&set).map_err(Error::spill)?;
            Ok(Scanned { table, rows: scanned, set, canaries, counts, survey })
        });
        tokio::select! {
            done = &mut pass => done?,
            error = met.interrupted() => Err(error),
        }
    }

    /// Which rows of the table are in the intersection.
    async fn matched(&self, scanned: Scanned, marks: Bitmap) -> Result<MatchedRows, Error> {
        let only_first = self.plan.only_first;
        tokio::task::spawn_blocking(move || MatchedRows::of(scanned, &marks, only_first)).await?
    }

    /// Second pass. If the output fails, the answer is kept.
    async fn write(
        &self,
        matched: MatchedRows,
        output: Output<'static>,
        keeper: Option<Keeper>,
    ) -> Result<(), Error> {
        let (observer, cancelled) = (Arc::clone(&self.observer), self.cancelled.clone());
        let total = matched.size_bytes();
        let pass = tokio::task::spawn_blocking(move || {
            let progress = |done| observer.on(Event::Writing { done, total });
            matched.write(output, progress, || cancelled.check()).map_err(|failed| {
                let (error, matched) = *failed;
                let keeper = keeper.filter(|_| error.is_of_output());
                let kept = keeper.and_then(|keeper| keeper.keep(&matched));
                error.with_kept_answer(kept)
            })
        });
        pass.await?.map_err(Error::since_answered)
    }
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
