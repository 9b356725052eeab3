//! What a peer proved, and what is demanded of it.

use std::sync::Arc;

use convelo_attest::{Collateral, Evidence, Matter, Policy, Refusal, Stage, Verdict};
use rustls::pki_types::CertificateDer;

use super::credential::{PeerCredentialError, parse};
use super::roots::refusal;
use crate::certificate::{Certificate, fingerprint};
use crate::verdicts;

/// What a peer proved in a handshake: that it holds the key of this certificate. Only a handshake
/// makes one.
#[derive(Clone)]
pub struct ProvenPeer {
    pub(super) certificate: Vec<u8>,
    pub(super) key_id: [u8; 32],
    /// Who it is in words, for refusals.
    pub(super) description: String,
    pub(super) chained: Result<(), Refusal>,
    pub(super) evidence: Result<Option<Arc<Evidence>>, Refusal>,
    pub(super) verdict: Option<Verdict>,
}

/// What is demanded of one peer.
#[derive(Clone)]
#[non_exhaustive]
pub enum PeerExpect {
    /// The key with this SHA-256 of its `SubjectPublicKeyInfo`, in a certificate of whatever
    /// authority and age.
    Key([u8; 32]),
    /// This certificate (DER), or another one over the same key, and it must chain to the roots.
    /// Names and serial numbers are never compared.
    Certificate(Vec<u8>),
    /// Any certificate that chains to the roots: every party of the authority is accepted.
    Chained,
    /// Evidence that every one of the policies accepts; no policy accepts nothing.
    Evidence {
        /// The policies.
        policies: Vec<Arc<Policy>>,
        /// What the evidence is verified with.
        collateral: Arc<Collateral>,
        /// The key that is demanded beside the evidence: SHA-256 of its `SubjectPublicKeyInfo`.
        key: Option<[u8; 32]>,
    },
}

impl ProvenPeer {
    /// The certificate, DER.
    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// SHA-256 of the proven key's `SubjectPublicKeyInfo`.
    pub fn key_id(&self) -> [u8; 32] {
        self.key_id
    }

    /// Whether the certificate chains to our [`Roots`](crate::Roots), now and for its side of TLS.
    pub fn chained(&self) -> bool {
        self.chained.is_ok()
    }

    /// Evidence from the certificate, bound to the key; nobody has accepted it yet.
    pub fn evidence(&self) -> Option<&Arc<Evidence>> {
        self.evidence.as_ref().ok().and_then(Option::as_ref)
    }

    /// What verification found, where we connected and expected evidence.
    pub fn verdict(&self) -> Option<&Verdict> {
        self.verdict.as_ref()
    }

    /// Key and names in one line, for logs and errors; never for a decision.
    pub fn describe(&self) -> &str {
        &self.description
    }
}

impl std::fmt::Debug for ProvenPeer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProvenPeer")
            .field("who", &self.description)
            .field("chained", &self.chained())
            .field("evidence", &self.evidence())
            .finish_non_exhaustive()
    }
}

impl PeerExpect {
    /// Demands the certificate in `file`: PEM, the first one of it, or DER.
    pub fn certificate(file: &[u8]) -> Result<Self, PeerCredentialError> {
        let what = "the peer's certificate file";
        let der = if file.starts_with(&[0x30]) {
            CertificateDer::from(file)
        } else {
            super::credential::certificates(file, what)?.swap_remove(0)
        };
        parse(&der, what, 1)?;
        Ok(Self::Certificate(der.to_vec()))
    }

    /// Whether a peer that proved this is the one that is meant, at `now` (Unix seconds). The
    /// verdict is there where evidence was demanded.
    pub fn accepts(&self, peer: &ProvenPeer, now: u64) -> Result<Option<Verdict>, Refusal> {
        match self {
            Self::Key(pinned) => demand_key(peer, pinned).map(|()| None),
            Self::Certificate(registered) => {
                peer.chained.clone()?;
                demand_certificate(peer, registered).map(|()| None)
            }
            Self::Chained => peer.chained.clone().map(|()| None),
            Self::Evidence { policies, collateral, key } => {
                if let Some(pinned) = key {
                    demand_key(peer, pinned)?;
                }
                let evidence = peer.evidence.clone()?.ok_or_else(Refusal::missing_evidence)?;
                verdicts::verdict(&peer.certificate, &evidence, policies, collateral, now).map(Some)
            }
        }
    }
}

impl std::fmt::Debug for PeerExpect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Key(key) => write!(f, "Key({})", fingerprint(key)),
            Self::Certificate(der) => match Certificate::parse(der) {
                Ok(certificate) => write!(f, "Certificate({})", certificate.describe()),
                Err(_) => write!(f, "Certificate({} unreadable bytes)", der.len()),
            },
            Self::Chained => f.write_str("Chained"),
            Self::Evidence { policies, key, .. } => f
                .debug_struct("Evidence")
                .field("policies", &policies.len())
                .field("key", &key.as_ref().map(fingerprint))
                .finish_non_exhaustive(),
        }
    }
}

fn demand_key(peer: &ProvenPeer, pinned: &[u8; 32]) -> Result<(), Refusal> {
    if peer.key_id == *pinned {
        return Ok(());
    }
    Err(Refusal {
        stage: Stage::KeyBinding,
        code: "peer-key",
        found: peer.description.clone(),
        required: format!("the key {}", fingerprint(pinned)),
        matter: Matter::Peer,
        advice: "ask the peer's owner for the fingerprint of its key, and check the address"
            .to_owned(),
    })
}

fn demand_certificate(peer: &ProvenPeer, registered: &[u8]) -> Result<(), Refusal> {
    let required = match Certificate::parse(registered) {
        Ok(certificate) if certificate.key_id() == peer.key_id => return Ok(()),
        Ok(certificate) => certificate.describe(),
        Err(error) => format!("a registered certificate that cannot be read ({error})"),
    };
    Err(refusal(
        "peer-certificate",
        Matter::Peer,
        peer.description.clone(),
        &required,
        "this is another party, or the party has a new key: compare the fingerprints with its \
         owner, and register the new certificate only then",
    ))
}
