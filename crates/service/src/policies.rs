//! The policies for providers' evidence.

use std::sync::Arc;

use convelo_attest::Policy;
use convelo_psi::{Job, Service};
use convelo_wire::{Failed, Reason};

/// What a party's evidence must meet: the job's policy, if the job asks the service to verify its
/// providers, and the operator's. Clones share their content, and the job's policy is read anew for
/// each verification: read, it takes many times as much memory as its text.
#[derive(Clone)]
pub(crate) struct Policies {
    /// Of a job that asks for it.
    job: Option<Job>,
    operator: Arc<[Policy]>,
}

impl Policies {
    /// For parties of this job.
    pub(crate) fn of(job: &Job, operator: Arc<[Policy]>) -> Self {
        let verifies = job.service().is_some_and(Service::verifies_providers);
        Self { job: verifies.then(|| job.clone()), operator }
    }

    /// The operator's alone.
    pub(crate) fn of_the_operator(operator: Arc<[Policy]>) -> Self {
        Self { job: None, operator }
    }

    /// Whether no evidence is asked for.
    pub(crate) fn are_none(&self) -> bool {
        self.job.is_none() && self.operator.is_empty()
    }

    /// All of them.
    ///
    /// # Errors
    /// If the job's cannot be read, or the job asks for evidence and there is nothing to judge it by.
    pub(crate) fn read(&self) -> Result<Vec<Policy>, Failed> {
        let invalid = |text: String| Failed::new(Reason::InvalidJob, text);
        let of_the_job =
            self.job.as_ref().and_then(Job::service).and_then(Service::provider_policy);
        let of_the_job = of_the_job.map(|policy| Policy::from_json(&policy.read())).transpose();
        let of_the_job =
            of_the_job.map_err(|error| invalid(format!("provider.policy: {error}")))?;
        let all: Vec<_> = of_the_job.into_iter().chain(self.operator.iter().cloned()).collect();
        if self.job.is_some() && all.is_empty() {
            let text = "the job asks the service to verify the providers' evidence, but neither \
                        the job nor the service has a policy to verify it against";
            return Err(invalid(text.to_owned()));
        }
        Ok(all)
    }
}
