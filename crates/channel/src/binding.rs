//! What ties a quote to one connection.

use std::sync::Arc;

use convelo_attest::{Collateral, Evidence, Matter, Refusal, Role, Session, Stage, Verdict};
use zeroize::Zeroizing;

use crate::expect::Expect;
use crate::verdicts::{self, verify_evidence};

/// The secrets and keys of one TLS connection, which a fresh quote is bound to. Both ends compute
/// the same.
#[derive(Clone)]
pub struct Binding(Arc<Ends>);

struct Ends {
    exporter: Zeroizing<[u8; 32]>,
    party_spki: Arc<[u8]>,
    service_spki: Arc<[u8]>,
}

/// The nonces of one exchange, and the job that it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// Random bytes of the party.
    pub party_nonce: [u8; 32],
    /// Random bytes of the service.
    pub service_nonce: [u8; 32],
    /// SHA-256 of the canonical job.
    pub job: [u8; 32],
}

impl Binding {
    pub(crate) fn new(
        exporter: Zeroizing<[u8; 32]>,
        party_spki: Arc<[u8]>,
        service_spki: Arc<[u8]>,
    ) -> Self {
        Self(Arc::new(Ends { exporter, party_spki, service_spki }))
    }

    /// The report data that one end's quote must carry.
    pub fn report_data(&self, role: Role, exchange: &Exchange) -> [u8; 64] {
        Session {
            exporter: &self.0.exporter,
            party_nonce: &exchange.party_nonce,
            service_nonce: &exchange.service_nonce,
            party_spki: &self.0.party_spki,
            service_spki: &self.0.service_spki,
            job: &exchange.job,
        }
        .report_data(role)
    }

    /// Reads the quote with which the end in this role answers. It is bound to this connection and
    /// this exchange, and not yet verified.
    ///
    /// # Errors
    /// A [`Refusal`], also of a quote that is bound to anything else.
    pub fn evidence(
        &self,
        role: Role,
        exchange: &Exchange,
        quote: &[u8],
    ) -> Result<Evidence, Refusal> {
        let spki = match role {
            Role::Party => &self.0.party_spki,
            Role::Service => &self.0.service_spki,
        };
        Evidence::from_quote(quote, &self.report_data(role, exchange), spki)
    }

    /// The service's fresh verdict: its quote is of this exchange, every policy accepts it, and the
    /// enclave is that of the certificate (DER), which is verified, too. Nothing where evidence is not
    /// expected. `offered` is the collateral that the service sent, empty for none; it is used where
    /// there is no other.
    ///
    /// # Errors
    /// A [`Refusal`].
    pub fn verify_service(
        &self,
        exchange: &Exchange,
        (quote, offered): (&[u8], &[u8]),
        expect: &Expect,
        certificate: &[u8],
        now: u64,
    ) -> Result<Option<Fresh>, Refusal> {
        let (policies, collateral) = match expect {
            Expect::Evidence { policies, collateral, .. } => (policies, Arc::clone(collateral)),
            Expect::EvidenceWithOffer { policies, .. } => (policies, Arc::new(offer(offered)?)),
            Expect::Key(_) => return Ok(None),
        };
        let shown = Evidence::from_certificate(certificate, now)?;
        let shown = shown.ok_or_else(Refusal::missing_evidence)?;
        let shown = verdicts::verdict(certificate, &shown, policies, &collateral, now)?;
        let evidence = self.evidence(Role::Service, exchange, quote)?;
        let verdict = verify_evidence(&evidence, policies, &collateral, now)?;
        Ok(Some(Fresh { verdict: verdict.fresh_after(&shown)?, collateral }))
    }
}

/// What a fresh quote came to, and what it was verified with.
#[derive(Clone, Debug)]
pub struct Fresh {
    /// The verdict.
    pub verdict: Verdict,
    /// The collateral.
    pub collateral: Arc<Collateral>,
}

/// Reads the collateral that a service offers. It is signed and dated: whose hands it went through
/// does not matter.
fn offer(offered: &[u8]) -> Result<Collateral, Refusal> {
    let unusable = |found: String| Refusal {
        stage: Stage::Collateral,
        code: "no-collateral",
        found,
        required: "collateral of the service's platform".to_owned(),
        matter: Matter::Collateral,
        advice: "give collateral of its platform, or have the service's operator offer it"
            .to_owned(),
    };
    if offered.is_empty() {
        return Err(unusable("none here, and none offered by the service".to_owned()));
    }
    std::str::from_utf8(offered)
        .map_err(|_| unusable("an offer that is no text".to_owned()))
        .and_then(|text| Collateral::from_json(text).map_err(|error| unusable(error.to_string())))
}

impl std::fmt::Debug for Binding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Binding(..)")
    }
}
