//! Quotes, made for those who ask, and the verification of those that come.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use convelo_attest::{Collateral, Evidence, Policy, QuoteSource, Refusal, Role};
use convelo_channel::{Binding, Exchange, Peer, os_rng};
use convelo_wire::limits::MAXIMUM_COLLATERAL_BYTES;
use convelo_wire::{Challenge, Failed, Proof, Reason};
use rand_core::Rng as _;
use tokio::sync::{Semaphore, SemaphorePermit};
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

/// Proves what this service is, and judges what parties prove.
pub(crate) struct Attester {
    source: Arc<dyn QuoteSource>,
    collateral: Option<Arc<Collateral>>,
    offer: Option<PathBuf>,
    quotes: Semaphore,
    verifications: Semaphore,
}

impl Attester {
    pub(crate) fn new(
        source: Arc<dyn QuoteSource>,
        collateral: Option<Collateral>,
        offer: Option<PathBuf>,
    ) -> Self {
        Self {
            source,
            collateral: collateral.map(Arc::new),
            offer,
            quotes: Semaphore::new(QUOTES_AT_ONCE),
            verifications: Semaphore::new(VERIFICATIONS_AT_ONCE),
        }
    }

    /// Answers a challenge with a quote over it.
    ///
    /// # Errors
    /// Why none could be made in time.
    pub(crate) async fn answer(
        &self,
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
        let made = apart(&self.quotes, move || {
            source
                .quote(&report_data)
                .map(|quote| (quote, offer.as_deref().map(read).unwrap_or_default()))
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
        let collateral = self.collateral.clone().ok_or_else(|| {
            let text = "the service has no collateral to verify providers' evidence with; \
                        its operator gives it with --collateral";
            Failed::new(Reason::Internal, text)
        })?;
        let policies = policies.to_vec();
        let verified = apart(&self.verifications, move || {
            policies.iter().try_for_each(|policy| {
                convelo_attest::verify(&evidence, &collateral, policy, unix_now()).map(drop)
            })
        });
        verified.await?.map_err(refused)
    }
}

/// The collateral to offer, read anew each time because it is renewed there; what cannot be read is
/// not offered.
fn read(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    let limit = MAXIMUM_COLLATERAL_BYTES as u64;
    let read = File::open(path).and_then(|file| file.take(limit + 1).read_to_end(&mut bytes));
    match read {
        Ok(length) if length <= MAXIMUM_COLLATERAL_BYTES => bytes,
        Ok(_) => {
            tracing::warn!(file = %path.display(), "the collateral to offer is too long");
            Vec::new()
        }
        Err(error) => {
            tracing::warn!(file = %path.display(), %error, "the collateral to offer cannot be read");
            Vec::new()
        }
    }
}

/// Runs something that takes long beside the jobs, a bounded number at once: whoever floods the
/// service with evidence waits for others who do, and no running job for them.
async fn apart<T: Send + 'static>(
    gate: &Semaphore,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failed> {
    let busy = || Failed::new(Reason::NoRoom, "the service is busy with attestation; try later");
    let turn: Result<SemaphorePermit<'_>, _> =
        timeout(ATTEST_TIMEOUT, gate.acquire()).await.map_err(|_| busy())?;
    let _turn = turn.expect("the semaphore is never closed");
    match timeout(ATTEST_TIMEOUT, tokio::task::spawn_blocking(work)).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(_)) => Err(Failed::new(Reason::Internal, "attestation failed inside the service")),
        Err(_) => Err(busy()),
    }
}

pub(crate) fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
