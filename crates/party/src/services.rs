//! The attested services of a job, treated as one: a sorted set goes in, and marks over its order,
//! or a count, come out.
//!
//! This is the seam of [`run`](crate::run): any other engine for a job would have the same steps.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use convelo_attest::{Collateral, Verdict};
use convelo_channel::{Dialler, Identity};
use convelo_psi::agreement::{JobKey, Member};
use convelo_psi::{Bitmap, Job, JobDigest, KeyId, Outcome, PseudonymSet};
use futures_util::future::{join_all, select_all, try_join_all};
use tokio::task::JoinHandle;

use crate::attestation::Terms;
use crate::error::Error;
use crate::event::Observer;
use crate::part::{Answer, Part};
use crate::plan::{self, Conditions};
use crate::progress::Progress;
use crate::receipt::{Receipt, Service};
use crate::session::Contact;
use crate::shards;
use crate::summary::{Matched, Summary};

/// Contacts every service of a job and verifies, with this collateral, that it is what the job
/// says. Nothing of the job is sent. Returns the address of each service, and its verdict unless it
/// is known only by a pinned key.
///
/// # Errors
/// If a service does not answer or is refused, or if the job's terms do not say what it must prove.
pub async fn verify_services(
    job: &Job,
    collateral: Option<Collateral>,
) -> Result<Vec<(String, Option<Verdict>)>, Error> {
    let policies: Vec<_> = plan::policy_of(job)?.into_iter().map(Arc::new).collect();
    plan::check_collateral(&policies, collateral.as_ref())?;
    let expect = plan::expectation(job, policies, collateral)?;
    let dialler = Dialler::new(Identity::generate().plain()?);
    let verifying = plan::addresses(job, None)?.into_iter().map(async |address| {
        let stream = dialler.dial(&address, &expect).await?;
        Ok((address, stream.verdict().cloned()))
    });
    try_join_all(verifying).await
}

/// The services, and this party's part in the job at each.
pub(crate) struct Services {
    digest: JobDigest,
    parts: Vec<Part>,
    /// The job's members, as each service lists them.
    members: Vec<Vec<Member>>,
}

/// The services as witnesses to the answer, by their evidence and signed statements.
pub(crate) struct Witness {
    answers: Vec<Answer>,
    heard: Vec<JoinHandle<()>>,
}

impl Services {
    /// Dials all services; each must prove what it is.
    pub(crate) async fn meet(
        plan: &Conditions,
        observer: &Arc<dyn Observer>,
    ) -> Result<Self, Error> {
        let credential = match &plan.source {
            Some(source) => plan.identity.attested(&**source),
            None => plan.identity.plain(),
        }?;
        let dialler = Dialler::new(credential);
        let jobs = plan.job.shards();
        let progress = Progress::of(observer, jobs.len());
        let opening = jobs.into_iter().zip(&plan.addresses).zip(progress);
        let parts = try_join_all(opening.map(|((job, address), progress)| {
            let terms = Terms {
                expect: plan.expect.clone(),
                source: plan.source.clone(),
                job: job.digest(),
                insecure_ratls_only: plan.insecure_ratls_only,
            };
            let contact = Contact { address: address.clone(), dialler: dialler.clone(), terms };
            Part::open(job, (plan.name.clone(), plan.identity.clone()), contact, progress)
        }))
        .await?;
        Ok(Self { digest: plan.job.digest(), parts, members: Vec::new() })
    }

    /// Waits for the other parties and agrees with them on the job key.
    pub(crate) async fn agree(&mut self) -> Result<JobKey, Error> {
        let agreed = try_join_all(self.parts.iter_mut().map(Part::agree)).await?;
        let (keys, members): (Vec<_>, _) =
            agreed.into_iter().map(|agreed| (agreed.key, agreed.members)).unzip();
        self.members = members;
        shards::same_members(&self.members)?;
        Ok(JobKey::combined(keys, self.digest))
    }

    /// Waits for the job to fail while nothing has been asked of the services; returns why.
    pub(crate) async fn interrupted(&mut self) -> Error {
        select_all(self.parts.iter_mut().map(|part| Box::pin(part.interrupted()))).await.0
    }

    /// Has the set intersected with the other parties' sets. Returns what this party learns, and
    /// the witness to it. After this, the job is over for the others.
    pub(crate) async fn intersect(
        &mut self,
        set: &Arc<PseudonymSet>,
    ) -> Result<(Outcome<Bitmap>, Witness), Error> {
        let ranks: Vec<Range<usize>> = shards::ranks(set, self.parts.len());
        let joining = self.parts.iter_mut().zip(&self.members).zip(ranks);
        let joining = joining.map(|((part, members), ranks)| part.join(set, ranks, members));
        let (outcomes, answers) = try_join_all(joining).await?.into_iter().unzip();
        let heard = self.parts.drain(..).map(Part::received).collect();
        let outcome = shards::whole(outcomes, set.len())?;
        Ok((outcome, Witness { answers, heard }))
    }

    /// Tells the services that this party gives up, and why.
    pub(crate) async fn leave(self, error: &Error) {
        // A single service that said why it ended the job already knows.
        if error.reason().is_none() || self.parts.len() > 1 {
            join_all(self.parts.into_iter().map(|part| part.leave(error.told()))).await;
        }
    }
}

impl Witness {
    /// The verdict on the first service that showed evidence.
    pub(crate) fn verdict(&self) -> Option<&Verdict> {
        self.answers.iter().find_map(Answer::verdict)
    }

    /// Whether any evidence came from a simulated platform.
    pub(crate) fn simulated(&self) -> bool {
        self.answers.iter().filter_map(Answer::verdict).any(Verdict::simulated)
    }

    /// Writes a receipt for each service, with the result of the whole run; returns the paths.
    pub(crate) fn write_receipts(
        &self,
        path: &Path,
        summary: &Summary,
        times: (u64, u64),
    ) -> Result<Vec<PathBuf>, Error> {
        let written = self.answers.iter().map(|answer| {
            let path = shards::numbered(path, answer.job.shard());
            receipt(answer, summary, times).write(&path)?;
            Ok(path)
        });
        written.collect()
    }

    /// Waits until the services know that the result has arrived.
    pub(crate) async fn heard(self) {
        join_all(self.heard).await;
    }
}

fn receipt(answer: &Answer, summary: &Summary, times: (u64, u64)) -> Receipt {
    let result = match (summary.result, answer.told) {
        (Outcome::Intersection(Matched { rows, .. }), Outcome::Intersection(keys)) => {
            Outcome::Intersection(Matched { keys, rows })
        }
        (result, _) => result,
    };
    let verdict = answer.verdict().map(Verdict::to_json);
    let job = &answer.job;
    let summary = Summary { result, verdict, job_digest: job.digest(), ..summary.clone() };
    let service = Service {
        address: answer.address.clone(),
        key: KeyId::of_spki(&answer.spki),
        certificate: answer.certificate.clone(),
        collateral: answer.proved.collateral().map(Collateral::to_json),
    };
    Receipt::new(job, &summary, &answer.statement, &answer.signed, service, times)
}
