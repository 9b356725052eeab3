//! What a service shares with other wires that are served next to its own.

use std::sync::Arc;
use std::time::Duration;

use convelo_attest::{Evidence, Policy, Refusal};
use convelo_wire::Failed;

use crate::attester::{Attester, Queue};
use crate::budget::Budget;
use crate::figures::Tally;

/// The memory, verifier, figures and limits of a service, shared by all wires: which wire serves a
/// client does not change how much there is of each.
#[derive(Clone)]
pub struct Shared {
    pub(crate) budget: Budget,
    pub(crate) attester: Arc<Attester>,
    pub(crate) tally: Arc<Tally>,
}

impl Shared {
    /// The memory for all jobs.
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Verifies, against every policy, the evidence of somebody who has no seat in a job yet; a
    /// refusal calls them `name`.
    ///
    /// # Errors
    /// The refusal, in words.
    pub async fn judge(
        &self,
        name: &str,
        evidence: Result<Arc<Evidence>, Refusal>,
        policies: &[Policy],
    ) -> Result<(), Failed> {
        self.attester.judge(Queue::Strangers, name, evidence, policies).await
    }

    /// Counts a job that begins.
    pub fn job_opened(&self) {
        self.tally.job_opened();
    }

    /// Counts a job that has ended after this time, with or without a result.
    pub fn job_over(&self, took: Duration, result: bool) {
        self.tally.job_over(took, result);
    }
}
