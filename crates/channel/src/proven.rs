//! What a peer proved.

use std::sync::Arc;

use convelo_attest::{Collateral, Evidence, Matter, Policy, Refusal, Stage, Verdict};
use sha2::{Digest as _, Sha256};

use crate::certificate::Certificate;
use crate::verdicts::Verdicts;

/// What a peer proved in a handshake: that it holds the key of this certificate. Only a handshake
/// can create one.
#[derive(Clone)]
pub struct ProvenPeer {
    pub(crate) certificate: Arc<[u8]>,
    pub(crate) spki: Arc<[u8]>,
    /// Nothing if we trust no authorities.
    pub(crate) chained: Option<Result<(), Refusal>>,
    pub(crate) evidence: Result<Option<Arc<Evidence>>, Refusal>,
    pub(crate) verdict: Option<Verdict>,
    /// The cache of the side that ran the handshake.
    pub(crate) verdicts: Arc<Verdicts>,
}

impl ProvenPeer {
    /// The certificate, DER.
    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// `SubjectPublicKeyInfo` of the proven key, DER.
    pub fn spki(&self) -> &Arc<[u8]> {
        &self.spki
    }

    /// SHA-256 of the proven key's `SubjectPublicKeyInfo`.
    pub fn key_id(&self) -> [u8; 32] {
        Sha256::digest(&self.spki).into()
    }

    /// Whether the certificate chains to our [`Roots`](crate::Roots), now and for its side of TLS.
    pub fn chained(&self) -> bool {
        matches!(self.chained, Some(Ok(())))
    }

    /// Whether an authority of our [`Roots`](crate::Roots) has certified that the key belongs to
    /// this host: a DNS name or IP address among the certificate's alternative names or, if it has
    /// none, its common name.
    pub fn names_host(&self, host: &str) -> bool {
        self.chained()
            && Certificate::parse(&self.certificate)
                .is_ok_and(|certificate| certificate.names_host(&self.certificate, host))
    }

    /// Evidence from the certificate, bound to the key; nobody has accepted it yet. Also nothing if
    /// we dialled and demanded only a key, because then we ignore it.
    pub fn evidence(&self) -> Option<&Arc<Evidence>> {
        self.evidence.as_ref().ok().and_then(Option::as_ref)
    }

    /// What verification found, if we dialled and expected evidence.
    pub fn verdict(&self) -> Option<&Verdict> {
        self.verdict.as_ref()
    }

    /// Key and names in one line, for logs and errors; never for a decision.
    pub fn describe(&self) -> String {
        Certificate::parse(&self.certificate)
            .expect("a handshake reads the certificate before it makes this")
            .describe()
    }

    pub(crate) fn demand_path(&self) -> Result<(), Refusal> {
        self.chained.clone().unwrap_or_else(|| Err(no_authorities(self)))
    }

    pub(crate) fn demand_evidence(&self) -> Result<&Arc<Evidence>, Refusal> {
        self.evidence.as_ref().map_err(Clone::clone)?.as_ref().ok_or_else(Refusal::missing_evidence)
    }

    pub(crate) fn verdict_under(
        &self,
        policies: &[Arc<Policy>],
        collateral: &Collateral,
        now: u64,
    ) -> Result<Verdict, Refusal> {
        let evidence = self.demand_evidence()?;
        self.verdicts.verdict(&self.certificate, evidence, policies, collateral, now)
    }
}

impl std::fmt::Debug for ProvenPeer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProvenPeer")
            .field("who", &self.describe())
            .field("chained", &self.chained())
            .field("evidence", &self.evidence())
            .finish_non_exhaustive()
    }
}

fn no_authorities(peer: &ProvenPeer) -> Refusal {
    Refusal::new(Stage::Certificate, "no-authorities", Matter::Policy)
        .found(peer.describe())
        .expected("trusted authorities to verify it with, but this side was given none")
        .advice("name the file of trusted authorities (ca_cert), or pin the peer's key")
}
