//! This party's half of the attestation of one connection: the service must show that its enclave
//! is at the other end now, and again before an hour has passed.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use convelo_attest::{QuoteSource, Role, Verdict};
use convelo_channel::{Binding, Exchange, Expect, Fresh, ServiceStream, os_rng};
use convelo_psi::JobDigest;
use convelo_wire::{Challenge, Proof};
use rand_core::Rng as _;

use crate::error::{Error, Kind};

/// What this party asks of the service, and shows of itself.
#[derive(Clone)]
pub(crate) struct Terms {
    pub(crate) expect: Expect,
    /// Where evidence about this party comes from, where the job asks for it.
    pub(crate) source: Option<Arc<dyn QuoteSource>>,
    pub(crate) job: JobDigest,
    /// Asks for no fresh attestation.
    pub(crate) insecure_ratls_only: bool,
}

/// The attestation of one connection.
pub(crate) struct Attestation {
    terms: Terms,
    binding: Binding,
    certificate: Vec<u8>,
    /// What the handshake found.
    verdict: Option<Verdict>,
    open: Option<[u8; 32]>,
    /// Whether a challenge was answered well before.
    trusted: bool,
}

/// What an answered challenge comes to.
pub(crate) struct Attested {
    /// The fresh verdict; nothing where a pinned key was expected instead of evidence.
    pub(crate) fresh: Option<Fresh>,
    /// This party's own quote, where it has a source.
    pub(crate) quote: Option<Vec<u8>>,
}

impl Attestation {
    pub(crate) fn new(terms: Terms, stream: &ServiceStream) -> Self {
        Self {
            terms,
            binding: stream.binding().clone(),
            certificate: stream.certificate().to_vec(),
            verdict: stream.verdict().cloned(),
            open: None,
            trusted: false,
        }
    }

    /// Whether connections are attested at all.
    pub(crate) fn is_asked_for(&self) -> bool {
        !self.terms.insecure_ratls_only
    }

    /// What the handshake found, as all that there is.
    pub(crate) fn of_certificate(&self) -> Option<Fresh> {
        let Expect::Evidence { collateral, .. } = &self.terms.expect else { return None };
        let (verdict, collateral) = (self.verdict.clone()?, Arc::clone(collateral));
        Some(Fresh { verdict, collateral })
    }

    /// Whether a challenge waits for its answer.
    pub(crate) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// A new challenge; the one before counts no more.
    pub(crate) fn challenge(&mut self) -> Challenge {
        let mut nonce = [0; 32];
        os_rng().fill_bytes(&mut nonce);
        self.open = Some(nonce);
        Challenge { nonce, job: self.terms.job }
    }

    /// Verifies the answer to the open challenge, which is used up.
    pub(crate) fn answered(&mut self, proof: &Proof) -> Result<Attested, Error> {
        let Some(party_nonce) = self.open.take() else {
            let text =
                "the service did not follow the protocol: a proof arrived without a challenge";
            return Err(Error::new(Kind::Job, text));
        };
        let exchange = Exchange { party_nonce, service_nonce: proof.nonce, job: self.terms.job.0 };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let proved = (proof.quote.as_slice(), proof.collateral.as_slice());
        let (expect, certificate) = (&self.terms.expect, self.certificate.as_slice());
        let judged = self.binding.verify_service(&exchange, proved, expect, certificate, now);
        let fresh = judged.map_err(|refusal| {
            if self.trusted {
                Error::refused_since(refusal)
            } else {
                Error::refused_on_challenge(refusal)
            }
        })?;
        self.trusted = true;
        let own = self.terms.source.as_ref().map(|source| {
            source.quote(&self.binding.report_data(Role::Party, &exchange)).map_err(|error| {
                Error::new(Kind::Usage, format!("no evidence about this party: {error}"))
            })
        });
        Ok(Attested { fresh, quote: own.transpose()? })
    }
}
