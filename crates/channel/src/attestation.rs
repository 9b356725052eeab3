//! The fresh exchange: a service shows that its enclave is at the other end of this connection,
//! now.

use std::sync::Arc;

use convelo_attest::{Collateral, Refusal, Role, Verdict};
use rand_core::Rng as _;

use crate::binding::{Binding, Exchange};
use crate::expect::Expect;
use crate::proven::ProvenPeer;
use crate::verdicts::verify_evidence;

/// The attestation of one connection for one job; it can be repeated.
pub struct Attestation {
    pub(crate) expect: Expect,
    pub(crate) peer: ProvenPeer,
    pub(crate) binding: Binding,
    pub(crate) job: [u8; 32],
}

/// Random bytes that an answer must be about; good for one answer.
#[derive(Debug)]
pub struct Challenge {
    nonce: [u8; 32],
}

/// How a service answers a challenge.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its own random bytes.
    pub nonce: [u8; 32],
    /// Its quote over the exchange.
    pub quote: Vec<u8>,
    /// The collateral that it offers; empty for none. It is signed and dated, so it does not matter
    /// who passed it on.
    pub collateral: Vec<u8>,
}

/// What a good answer yields.
#[derive(Clone, Debug)]
pub struct Answered {
    /// The fresh verdict; nothing if no evidence was expected.
    pub fresh: Option<Fresh>,
    /// The report data for the quote with which this side may answer in turn.
    pub own_report_data: [u8; 64],
}

/// A fresh verdict and the collateral it rests on. Only the exchange can create one:
///
/// ```compile_fail,E0451
/// use std::sync::Arc;
/// use convelo_attest::{Collateral, Verdict};
/// use convelo_channel::Fresh;
///
/// fn claim(verdict: Verdict, collateral: Arc<Collateral>) -> Fresh {
///     Fresh { verdict, collateral }
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Fresh {
    verdict: Verdict,
    collateral: Arc<Collateral>,
}

impl Attestation {
    /// What ties a quote to this connection.
    pub fn binding(&self) -> &Binding {
        &self.binding
    }

    /// Makes a new challenge.
    pub fn challenge(&self) -> Challenge {
        let mut nonce = [0; 32];
        crate::os_rng().fill_bytes(&mut nonce);
        Challenge { nonce }
    }

    /// Verifies an answer at `now` (Unix seconds): the quote belongs to this exchange, every policy
    /// accepts it, and it comes from the enclave in the certificate, which is verified too. If we
    /// have no collateral, the service's offer is used.
    ///
    /// # Errors
    /// A [`Refusal`].
    #[expect(clippy::needless_pass_by_value, reason = "a challenge is good for one answer")]
    pub fn verify(
        &self,
        challenge: Challenge,
        answer: &Answer,
        now: u64,
    ) -> Result<Answered, Refusal> {
        let Challenge { nonce: party_nonce } = challenge;
        let exchange = Exchange { party_nonce, service_nonce: answer.nonce, job: self.job };
        let own_report_data = self.binding.report_data(Role::Party, &exchange);
        let (policies, collateral) = match &self.expect {
            Expect::Evidence { policies, collateral, .. } => (policies, Arc::clone(collateral)),
            Expect::EvidenceWithOffer { policies, .. } | Expect::SameService { policies, .. } => {
                (policies, Arc::new(Collateral::from_offer(&answer.collateral)?))
            }
            Expect::Key(_) | Expect::Certificate(_) | Expect::Chained => {
                return Ok(Answered { fresh: None, own_report_data });
            }
        };
        let shown = self.peer.verdict_under(policies, &collateral, now)?;
        let evidence = self.binding.evidence(Role::Service, &exchange, &answer.quote)?;
        let verdict = verify_evidence(&evidence, policies, &collateral, now)?;
        let fresh = Fresh { verdict: verdict.fresh_after(&shown)?, collateral };
        Ok(Answered { fresh: Some(fresh), own_report_data })
    }
}

impl std::fmt::Debug for Attestation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Attestation").field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl Challenge {
    /// The bytes to send.
    pub fn nonce(&self) -> [u8; 32] {
        self.nonce
    }
}

impl Fresh {
    /// The verdict.
    pub fn verdict(&self) -> &Verdict {
        &self.verdict
    }

    /// The collateral it rests on.
    pub fn collateral(&self) -> &Arc<Collateral> {
        &self.collateral
    }
}
