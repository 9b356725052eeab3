//! This party's half of the attestation of one connection: the service must show that its enclave
//! is at the other end, and show it again before an hour has passed.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use convelo_attest::{Collateral, QuoteSource, Refusal, Verdict};
use convelo_channel::{Answer, Attestation, Challenge, Dialled, Expect, Fresh};
use convelo_psi::JobDigest;
use convelo_psi::agreement::AGREEMENT_VERSION;
use convelo_wire::Proof;

use crate::error::{Error, Kind};
use crate::seen::Seen;

/// What this party asks of the service, and what it shows about itself.
#[derive(Clone)]
pub(crate) struct Terms {
    pub(crate) expect: Expect,
    /// The source of evidence about this party, if the job asks for it.
    pub(crate) source: Option<Arc<dyn QuoteSource>>,
    pub(crate) job: JobDigest,
    /// Asks for no fresh attestation.
    pub(crate) insecure_ratls_only: bool,
    /// The newest revocation lists that this party has seen.
    pub(crate) seen: Option<Arc<Seen>>,
}

impl Terms {
    /// Refuses what was proved under older revocation lists than this party has seen.
    pub(crate) fn admit(
        &self,
        verified: Option<&Collateral>,
        refused: impl FnOnce(Refusal) -> Error,
    ) -> Result<(), Error> {
        match (&self.seen, verified) {
            (Some(seen), Some(collateral)) => seen.admit(collateral, refused),
            _ => Ok(()),
        }
    }

    /// Refuses this party's own collateral if it has seen newer revocation lists: no service that is
    /// verified with it may learn who this party is.
    pub(crate) fn check_own_collateral(&self) -> Result<(), Error> {
        match (&self.seen, &self.expect) {
            (Some(seen), Expect::Evidence { collateral, .. }) => seen.check(collateral),
            _ => Ok(()),
        }
    }

    /// This party's own quote, if it has a source of quotes.
    pub(crate) fn quote(&self, report_data: &[u8; 64]) -> Result<Option<Vec<u8>>, Error> {
        self.source.as_ref().map(|source| quote(&**source, report_data)).transpose()
    }
}

/// A quote of this party's program.
pub(crate) fn quote(source: &dyn QuoteSource, report_data: &[u8; 64]) -> Result<Vec<u8>, Error> {
    source.quote(report_data).map_err(|error| {
        Error::new(Kind::Usage, format!("cannot make evidence about this party: {error}"))
    })
}

/// What a service has proved on a connection.
#[derive(Clone)]
pub(crate) enum Proved {
    /// Its enclave is at the other end.
    Fresh(Fresh),
    /// Its enclave made the key of its certificate at some time: plain RA-TLS.
    Certificate(Verdict, Arc<Collateral>),
    /// It holds the expected key.
    Key,
}

impl Proved {
    /// Only what the handshake found.
    pub(crate) fn by_certificate(service: &Dialled, expect: &Expect) -> Self {
        match (service.verdict(), expect) {
            (Some(verdict), Expect::Evidence { collateral, .. }) => {
                Self::Certificate(verdict.clone(), Arc::clone(collateral))
            }
            _ => Self::Key,
        }
    }

    pub(crate) fn verdict(&self) -> Option<&Verdict> {
        match self {
            Self::Fresh(fresh) => Some(fresh.verdict()),
            Self::Certificate(verdict, _) => Some(verdict),
            Self::Key => None,
        }
    }

    /// What the verdict is based on.
    pub(crate) fn collateral(&self) -> Option<&Collateral> {
        match self {
            Self::Fresh(fresh) => Some(fresh.collateral()),
            Self::Certificate(_, collateral) => Some(collateral),
            Self::Key => None,
        }
    }
}

/// The attestation of a connection that has been attested before.
pub(crate) struct Renewal {
    attestation: Attestation,
    terms: Terms,
    open: Option<Challenge>,
}

impl Renewal {
    pub(crate) fn new(attestation: Attestation, terms: Terms) -> Self {
        Self { attestation, terms, open: None }
    }

    /// Whether a challenge is waiting for its answer.
    pub(crate) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// A new challenge, which replaces the one before.
    pub(crate) fn challenge(&mut self) -> convelo_wire::Challenge {
        let challenge = self.open.insert(self.attestation.challenge());
        convelo_wire::Challenge { nonce: challenge.nonce(), job: self.terms.job }
    }

    /// Verifies the answer to the open challenge and uses the challenge up. Returns this party's
    /// own answer, if there is one.
    pub(crate) fn answered(&mut self, proof: Proof) -> Result<Option<Vec<u8>>, Error> {
        let Some(challenge) = self.open.take() else {
            let text =
                "the service did not follow the protocol: a proof arrived without a challenge";
            return Err(Error::new(Kind::Job, text));
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let answered = self.attestation.verify(challenge, &answer(proof)?, now);
        let answered = answered.map_err(Error::refused_since)?;
        let fresh = answered.fresh.as_ref();
        self.terms.admit(fresh.map(|fresh| &**fresh.collateral()), Error::refused_since)?;
        self.terms.quote(&answered.own_report_data)
    }
}

/// A proof, as it arrived.
///
/// # Errors
/// If it comes from a service that relays another version of the key agreement.
pub(crate) fn answer(proof: Proof) -> Result<Answer, Error> {
    let Proof { nonce, quote, collateral, agreement } = proof;
    if agreement != AGREEMENT_VERSION {
        let text = format!(
            "the service relays version {agreement} of the key agreement, expected version \
             {AGREEMENT_VERSION}: the older of the two programs must be upgraded; nothing was sent \
             to the service but a challenge with the job's digest"
        );
        return Err(Error::new(Kind::Job, text));
    }
    Ok(Answer { nonce, quote, collateral })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A service of the first version says nothing about one, which is read as 1.
    #[test]
    fn service_of_an_older_version() {
        let proof = |agreement| Proof {
            nonce: [0; 32],
            quote: Vec::new(),
            collateral: Vec::new(),
            agreement,
        };
        assert!(answer(proof(AGREEMENT_VERSION)).is_ok());
        for other in [1, 3] {
            let error = answer(proof(other)).err().map(|error| error.to_string());
            let error = error.unwrap_or_default();
            let expected = format!("version {other} of the key agreement, expected version 2");
            assert!(error.contains(&expected), "{error}");
        }
    }
}
