//! What a service shares with other wires that are served next to its own.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use convelo_attest::{Evidence, Policy, Refusal};
use convelo_channel::Acquaintance;
use convelo_wire::{Bytes, Failed};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use crate::attester::{Claim, Queue, Verifier};
use crate::budget::{Budget, Room};
use crate::collateral::CollateralSource;
use crate::figures::Tally;
use crate::limits::JOINS_AT_ONCE;
use crate::memory::Limits;
use crate::policies::Policies;
use crate::server::Observer;

/// The keys that the operator admits, which something else keeps up to date while the service runs.
pub trait AdmitList: Send + Sync {
    /// Whether the list has this key: SHA-256 of its `SubjectPublicKeyInfo`. Must not block.
    fn admits(&self, key: &[u8; 32]) -> bool;
}

/// The memory, verifier, figures and limits of a service, shared by all wires: which wire serves a
/// client does not change how much there is of each.
#[derive(Clone)]
pub struct Shared {
    pub(crate) room: Room,
    pub(crate) limits: Limits,
    joins: Arc<Semaphore>,
    pub(crate) verifier: Arc<Verifier>,
    pub(crate) tally: Arc<Tally>,
    pub(crate) admit: Option<Arc<dyn AdmitList>>,
}

impl Shared {
    /// For wires that are served without the service's own: this many bytes for all jobs, and a list
    /// of the keys that may use them, if there is one. No evidence can be verified.
    pub fn alone(memory: u64, admit: Option<Arc<dyn AdmitList>>) -> Self {
        Self::new(memory, Limits::default(), None, admit)
    }

    pub(crate) fn new(
        memory: u64,
        limits: Limits,
        collateral: Option<Arc<dyn CollateralSource>>,
        admit: Option<Arc<dyn AdmitList>>,
    ) -> Self {
        Self {
            room: Room::new(memory, limits),
            limits,
            joins: Arc::new(Semaphore::new(JOINS_AT_ONCE)),
            verifier: Arc::new(Verifier::new(collateral)),
            tally: Tally::new(memory),
            admit,
        }
    }

    /// For those who observe what is served without the service's own wire.
    pub fn observer(&self) -> Observer {
        Observer { shared: self.clone(), entrance: None }
    }

    /// The memory for the sets of all jobs.
    pub fn budget(&self) -> &Budget {
        &self.room.sets
    }

    /// Runs a join once it has its turn: all joins share the same workers, so only a few run at once.
    /// None if it panics.
    pub async fn join<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let turn = Arc::clone(&self.joins).acquire_owned().await;
        let turn = turn.expect("the semaphore is never closed");
        let done = spawn_blocking(move || {
            let _turn = turn;
            work()
        });
        done.await.ok()
    }

    /// Whether somebody with this key may use the service, and as whom: anyone may, unless there is
    /// a list. Nothing if they may not.
    pub fn acquaintance(&self, key: &[u8; 32]) -> Option<Acquaintance> {
        match &self.admit {
            None => Some(Acquaintance::Stranger),
            Some(list) => list.admits(key).then_some(Acquaintance::Admitted),
        }
    }

    /// Verifies, against every policy, the evidence of somebody who has no seat in a job yet, comes
    /// from `source` and offers no collateral; a refusal calls them `name`.
    ///
    /// # Errors
    /// The refusal, in words.
    pub async fn judge(
        &self,
        source: IpAddr,
        name: &str,
        evidence: Result<Arc<Evidence>, Refusal>,
        policies: Arc<[Policy]>,
    ) -> Result<(), Failed> {
        let claim =
            evidence.map(|evidence| Claim { evidence: vec![evidence], collateral: Bytes::new() });
        let policies = Policies::of_the_operator(policies);
        self.verifier.judge(Queue::Strangers, source, name, claim, &policies).await
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
