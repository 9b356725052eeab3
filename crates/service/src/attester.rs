//! Makes the quotes that parties ask for, and verifies those they send.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use convelo_attest::{Collateral, Evidence, Policy, QuoteSource, Refusal, Role};
use convelo_channel::{Binding, Exchange, Peer, os_rng};
use convelo_wire::{Challenge, Failed, Proof, Reason};
use rand_core::Rng as _;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use crate::limits::{ATTEST_TIMEOUT, QUOTES_AT_ONCE, VERIFICATIONS_AT_ONCE};

/// What was proved on a stream, and when.
pub(crate) struct Session {
    pub(crate) exchange: Exchange,
    pub(crate) since: Instant,
    evidence: Option<Arc<Evidence>>,
}

impl Session {
    pub(crate) fn new(exchange: Exchange) -> Self {
        Self { exchange, since: Instant::now(), evidence: None }
    }

    /// The job that the exchange was for.
    pub(crate) fn job(&self) -> &[u8; 32] {
        &self.exchange.job
    }

    /// The party's fresh evidence, not yet verified.
    pub(crate) fn evidence(&self) -> Result<Arc<Evidence>, Refusal> {
        self.evidence.clone().ok_or_else(Refusal::missing_fresh_evidence)
    }

    pub(crate) fn take(&mut self, peer: &Peer, quote: &[u8]) -> Result<(), Failed> {
        if self.evidence.is_some() {
            let text = "a second quote arrived for one challenge";
            return Err(Failed::new(Reason::Protocol, text));
        }
        let evidence = peer.binding.evidence(Role::Party, &self.exchange, quote);
        let evidence = evidence.map_err(|refusal| {
            Failed::new(Reason::Attestation, format!("this party's quote was refused: {refusal}"))
        })?;
        self.evidence = Some(Arc::new(evidence));
        Ok(())
    }
}

/// A source of the collateral in force, which something else keeps fresh while the service runs.
pub trait CollateralSource: Send + Sync {
    /// The collateral in force now, if there is any. May block.
    fn current(&self) -> Option<Arc<Collateral>>;
}

/// Proves what this service is, and judges what parties prove.
pub(crate) struct Attester {
    source: Arc<dyn QuoteSource>,
    collateral: Option<Arc<dyn CollateralSource>>,
    offer: Option<Arc<dyn CollateralSource>>,
    strangers: Gates,
    seated: Gates,
}

/// Who is waiting for a turn. Each queue has turns of its own: a crowd of strangers must not keep a
/// running job from attesting its connections again.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Queue {
    /// Those without a seat.
    Strangers,
    /// Parties of a job.
    Seated,
}

/// How many quotes are made, and how many verified, at once.
struct Gates {
    quotes: Arc<Semaphore>,
    verifications: Arc<Semaphore>,
}

impl Gates {
    fn new() -> Self {
        Self {
            quotes: Arc::new(Semaphore::new(QUOTES_AT_ONCE)),
            verifications: Arc::new(Semaphore::new(VERIFICATIONS_AT_ONCE)),
        }
    }
}

impl Attester {
    pub(crate) fn new(
        source: Arc<dyn QuoteSource>,
        collateral: Option<Arc<dyn CollateralSource>>,
        offer: Option<Arc<dyn CollateralSource>>,
    ) -> Self {
        Self { source, collateral, offer, strangers: Gates::new(), seated: Gates::new() }
    }

    fn gates(&self, queue: Queue) -> &Gates {
        match queue {
            Queue::Strangers => &self.strangers,
            Queue::Seated => &self.seated,
        }
    }

    /// Answers a challenge with a quote over it.
    ///
    /// # Errors
    /// Why there was no quote in time.
    pub(crate) async fn answer(
        &self,
        queue: Queue,
        binding: &Binding,
        challenge: Challenge,
    ) -> Result<(Exchange, Proof), Failed> {
        let mut nonce = [0; 32];
        os_rng().fill_bytes(&mut nonce);
        let exchange =
            Exchange { party_nonce: challenge.nonce, service_nonce: nonce, job: challenge.job.0 };
        let report_data = binding.report_data(Role::Service, &exchange);
        let source = Arc::clone(&self.source);
        let offer = self.offer.clone();
        let made = apart(&self.gates(queue).quotes, move || {
            let offered = offer.and_then(|offer| offer.current());
            let offered = offered.map(|offered| offered.to_json().into_bytes());
            source.quote(&report_data).map(|quote| (quote, offered.unwrap_or_default()))
        })
        .await?;
        let (quote, collateral) = made.map_err(|error| {
            tracing::error!(%error, "no quote could be made");
            Failed::new(Reason::Internal, "the service could not make a quote; its log says why")
        })?;
        Ok((exchange, Proof { nonce, quote, collateral }))
    }

    /// Verifies a party's evidence against every policy.
    ///
    /// # Errors
    /// The refusal, in words.
    pub(crate) async fn judge(
        &self,
        queue: Queue,
        name: &str,
        evidence: Result<Arc<Evidence>, Refusal>,
        policies: &[Policy],
    ) -> Result<(), Failed> {
        if policies.is_empty() {
            return Ok(());
        }
        let refused = |refusal: Refusal| {
            let text = format!("the evidence of '{name}' was refused: {refusal}");
            Failed::of_party(Reason::Attestation, name, text)
        };
        let evidence = evidence.map_err(refused)?;
        let collateral = self.collateral.clone();
        let policies = policies.to_vec();
        let verified = apart(&self.gates(queue).verifications, move || {
            let collateral = collateral.and_then(|collateral| collateral.current())?;
            Some(policies.iter().try_for_each(|policy| {
                convelo_attest::verify(&evidence, &collateral, policy, unix_now()).map(drop)
            }))
        });
        let verified = verified.await?.ok_or_else(|| {
            let text = "the service has no collateral to verify providers' evidence with; \
                        its operator must supply it";
            Failed::new(Reason::Internal, text)
        })?;
        verified.map_err(refused)
    }
}

/// Runs slow work away from the jobs, a bounded number at once: those who flood the service with
/// evidence wait for each other, and no running job waits for them. A turn lasts until the work is
/// done, even if nobody is waiting for it any more: a device that hangs must not pile up threads.
async fn apart<T: Send + 'static>(
    gate: &Arc<Semaphore>,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failed> {
    let busy = || Failed::new(Reason::NoRoom, "the service is busy with attestation; try later");
    let turn = timeout(ATTEST_TIMEOUT, Arc::clone(gate).acquire_owned()).await;
    let turn = turn.map_err(|_| busy())?.expect("the semaphore is never closed");
    let done = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        work()
    });
    match timeout(ATTEST_TIMEOUT, done).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(_)) => Err(Failed::new(Reason::Internal, "attestation failed inside the service")),
        Err(_) => Err(busy()),
    }
}

pub(crate) fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_device_that_hangs_keeps_its_turn() {
        let gate = Arc::new(Semaphore::new(1));
        let (release, hang) = mpsc::sync_channel::<()>(1);
        let first = tokio::spawn({
            let gate = Arc::clone(&gate);
            async move { apart(&gate, move || hang.recv().is_ok()).await }
        });
        while gate.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        tokio::time::advance(ATTEST_TIMEOUT * 2).await;
        assert_eq!(first.await.expect("no panic").unwrap_err().reason, Reason::NoRoom);
        assert_eq!(gate.available_permits(), 0, "the work still runs");
        release.send(()).expect("the work still runs");
        let turn = Arc::clone(&gate).acquire_owned().await;
        drop(turn.expect("a turn"));
        assert!(apart(&gate, || true).await.expect("done"));
    }

    #[tokio::test]
    async fn a_crowd_of_strangers_does_not_keep_a_party_from_its_turn() {
        let attester = Attester::new(Arc::new(Echo), None, None);
        let crowd = &attester.gates(Queue::Strangers).quotes;
        let _turns = crowd.acquire_many(4).await.expect("all turns");
        assert_eq!(QUOTES_AT_ONCE, 4);
        assert_eq!(crowd.available_permits(), 0);
        let gate = &attester.gates(Queue::Seated).quotes;
        assert!(apart(gate, || true).await.expect("a turn"));
    }

    struct Echo;

    impl QuoteSource for Echo {
        fn quote(&self, report_data: &[u8; 64]) -> Result<Vec<u8>, convelo_attest::QuoteError> {
            Ok(report_data.to_vec())
        }

        fn describe(&self) -> String {
            "an echo".to_owned()
        }
    }
}
