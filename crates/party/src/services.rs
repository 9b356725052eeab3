//! The attested services of a job, treated as one: a sorted set goes in, and marks over its order,
//! or a count, come out.
//!
//! One of the two engines of a run; [`direct`](crate::direct) is the other.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use convelo_attest::{Collateral, Verdict};
use convelo_channel::{Credential, Dialler, Identity};
use convelo_psi::agreement::{Assembled, JobKey};
use convelo_psi::{Bitmap, Job, JobDigest, KeyId, Outcome, PseudonymSet, RankedCanaries};
use futures_util::future::{join_all, select_all, try_join_all};
use tokio::task::JoinHandle;

use crate::attestation::{Proved, Terms};
use crate::error::Error;
use crate::event::Observer;
use crate::part::{Answer, Part};
use crate::plan::{self, Conditions, Consent};
use crate::progress::Progress;
use crate::providers::VerifiedProvider;
use crate::receipt::{Receipt, Service};
use crate::seen::Seen;
use crate::session::Contact;
use crate::shards;
use crate::summary::{Matched, Summary};

/// Contacts every service of a job and verifies, with this collateral, that it is what the job
/// says. Nothing of the job is sent. As in a run, revocation lists older than those in the file
/// `seen_lists` are refused, and newer ones remembered there. Returns the address of each service,
/// and its verdict unless it is known only by a pinned key.
///
/// # Errors
/// If a service does not answer or is refused, if the job's terms do not say what it must prove, if
/// they need a consent that is not given, or if the file cannot be read.
pub async fn verify_services(
    job: &Job,
    address: Option<String>,
    collateral: Option<Collateral>,
    seen_lists: Option<PathBuf>,
    consent: Consent,
) -> Result<Vec<(String, Option<Verdict>)>, Error> {
    let policies: Vec<_> = plan::policy_of(job)?.into_iter().map(Arc::new).collect();
    plan::check_consent(job, &policies, &[], consent)?;
    plan::check_collateral(&policies, collateral.as_ref())?;
    let terms = Terms {
        expect: plan::expectation(job, policies, collateral.map(Arc::new))?,
        source: None,
        job: job.digest(),
        insecure_ratls_only: true,
        seen: seen_lists.map(Seen::open).transpose()?.map(Arc::new),
    };
    terms.check_own_collateral()?;
    let dialler = dialler(job, Identity::generate().plain()?);
    let verifying = plan::addresses(job, address)?.into_iter().map(async |address| {
        let service = dialler.dial(&address, &terms.expect).await?;
        let proved = Proved::by_certificate(&service, &terms.expect);
        terms.admit(proved.collateral(), Error::from)?;
        Ok((address, proved.verdict().cloned()))
    });
    try_join_all(verifying).await
}

/// Dials the services of a job as it demands.
fn dialler(job: &Job, credential: Credential) -> Dialler {
    if job.service().is_some_and(|service| service.hybrid) {
        Dialler::hybrid(credential)
    } else {
        Dialler::new(credential)
    }
}

/// The services, and this party's part in the job at each.
pub(crate) struct Services {
    digest: JobDigest,
    parts: Vec<Part>,
    /// The run and the job's members, as each service shows them.
    assembled: Vec<Assembled>,
    /// The other providers, as this party verified them.
    providers: Vec<VerifiedProvider>,
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
        let dialler = dialler(&plan.job, credential);
        let jobs = plan.job.shards();
        let progress = Progress::of(observer, jobs.len());
        let opening = jobs.into_iter().zip(&plan.addresses).zip(progress);
        let terms = Terms {
            expect: plan.expect.clone(),
            source: plan.source.clone(),
            job: plan.job.digest(),
            insecure_ratls_only: plan.insecure_ratls_only,
            seen: plan.seen.clone(),
        };
        terms.check_own_collateral()?;
        let parts = try_join_all(opening.map(|((job, address), progress)| {
            let terms = Terms { job: job.digest(), ..terms.clone() };
            let contact = Contact { address: address.clone(), dialler: dialler.clone(), terms };
            let own = (plan.name.clone(), plan.identity.clone(), plan.providers.clone());
            Part::open(job, own, contact, progress)
        }))
        .await?;
        let (assembled, providers) = (Vec::new(), Vec::new());
        Ok(Self { digest: plan.job.digest(), parts, assembled, providers })
    }

    /// Waits for the other parties and agrees with them on the job key.
    pub(crate) async fn agree(&mut self) -> Result<JobKey, Error> {
        let agreed = try_join_all(self.parts.iter_mut().map(Part::agree)).await?;
        // Each part has verified all of them; they are the same parties, as is checked below.
        let providers = agreed.first().map_or(&[][..], |agreed| &agreed.providers);
        let providers =
            providers.iter().map(|(name, verdict)| VerifiedProvider::new(name, verdict));
        self.providers = providers.collect();
        let (keys, assembled): (Vec<_>, _) =
            agreed.into_iter().map(|agreed| (agreed.key, agreed.assembled)).unzip();
        self.assembled = assembled;
        shards::same_members(&self.assembled)?;
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
        canaries: &RankedCanaries,
    ) -> Result<(Outcome<Bitmap>, Witness), Error> {
        let ranks: Vec<Range<usize>> = shards::ranks(set, self.parts.len());
        let joining = self.parts.iter_mut().zip(&self.assembled).zip(ranks);
        let joining =
            joining.map(|((part, assembled), ranks)| part.join(set, canaries, ranks, assembled));
        let (outcomes, answers) = try_join_all(joining).await?.into_iter().unzip();
        let heard = self.parts.drain(..).map(Part::received).collect();
        let outcome = shards::whole(outcomes, set.len())?;
        let outcome = outcome.map(|marks| canaries.removed_from(marks), |count| count);
        Ok((outcome, Witness { answers, heard }))
    }

    /// The names of all parties.
    pub(crate) fn parties(&self) -> Vec<String> {
        let members = self.assembled.first().map_or(&[][..], |assembled| &assembled.members);
        members.iter().map(|member| member.name.clone()).collect()
    }

    /// The other providers, as this party verified them.
    pub(crate) fn providers(&self) -> &[VerifiedProvider] {
        &self.providers
    }

    /// Tells the services that this party gives up, and why. True if one that knew of this party
    /// has heard it: it tells the others.
    pub(crate) async fn leave(self, error: &Error) -> bool {
        // A single service that said why it ended the job already knows.
        if error.reason().is_some() && self.parts.len() == 1 {
            return true;
        }
        let leaving = self.parts.into_iter().map(|part| part.leave(error.told()));
        join_all(leaving).await.contains(&true)
    }
}

impl Witness {
    /// The verdict on the first service that showed evidence.
    pub(crate) fn verdict(&self) -> Option<&Verdict> {
        self.answers.iter().find_map(Answer::verdict)
    }

    /// Whether every service showed evidence.
    pub(crate) fn attested(&self) -> bool {
        self.answers.iter().all(|answer| answer.verdict().is_some())
    }

    /// Whether every service showed it on the connection itself.
    pub(crate) fn fresh(&self) -> bool {
        self.answers.iter().all(|answer| answer.verdict().is_some_and(Verdict::fresh))
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
        let mut first = None;
        let written = self.answers.iter().map(|answer| {
            let (shard, receipt) = (answer.job.shard(), receipt(answer, summary, times));
            let names = first.clone().into_iter().chain(shards::unused_names(path));
            let name = receipt.write(path, names, shard)?;
            let written = shards::numbered(&name, shard);
            first = Some(name);
            Ok(written)
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
