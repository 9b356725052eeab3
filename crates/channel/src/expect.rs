//! What the dialling side demands.

use std::sync::Arc;

use convelo_attest::{Collateral, Matter, Policy, Refusal, Stage, Verdict};
use rustls::pki_types::CertificateDer;

use crate::certificate::{Certificate, fingerprint};
use crate::credential::{CredentialError, certificates, parse};
use crate::proven::ProvenPeer;

/// What a peer must prove before anything is sent to it.
#[derive(Clone)]
#[non_exhaustive]
pub enum Expect {
    /// The key with this SHA-256 of its `SubjectPublicKeyInfo`, in a certificate of any authority
    /// and age. Says nothing about what runs there.
    Key([u8; 32]),
    /// This certificate (DER), or another one over the same key, which must chain to the roots.
    /// Names and serial numbers are never compared.
    Certificate(Vec<u8>),
    /// Any certificate that chains to the roots: every party of the authority is accepted.
    Chained,
    /// Evidence that every one of the policies accepts; an empty list accepts nothing.
    Evidence {
        /// The policies: the job's, for example, and the party's own if it has one.
        policies: Vec<Arc<Policy>>,
        /// The collateral to verify the evidence with.
        collateral: Arc<Collateral>,
        /// The key demanded in addition to the evidence: SHA-256 of its `SubjectPublicKeyInfo`.
        key: Option<[u8; 32]>,
    },
    /// Like `Evidence`, but verified with collateral that the service itself offers on the
    /// connection. The handshake only reads its certificate, so it shows the service a key made for
    /// this one connection; the verdict comes from [`Dialled::attest`](crate::Dialled::attest), and
    /// nothing but a challenge can be sent before that. The policies say how old the collateral may
    /// be. Peers that offer nothing never pass.
    EvidenceWithOffer {
        /// The policies.
        policies: Vec<Arc<Policy>>,
        /// The key demanded in addition to the evidence: SHA-256 of its `SubjectPublicKeyInfo`.
        key: Option<[u8; 32]>,
    },
    /// The service that met `EvidenceWithOffer` on another connection: the handshake verifies its
    /// evidence with the collateral that it offered there. On this connection, it offers some again.
    SameService {
        /// The policies.
        policies: Vec<Arc<Policy>>,
        /// The collateral that it offered.
        collateral: Arc<Collateral>,
        /// Its key: SHA-256 of the `SubjectPublicKeyInfo`.
        key: [u8; 32],
    },
}

impl Expect {
    /// Demands the certificate in `file`: the first one if PEM, or DER.
    pub fn certificate(file: &[u8]) -> Result<Self, CredentialError> {
        let what = "the peer's certificate file";
        let der = if file.starts_with(&[0x30]) {
            CertificateDer::from(file)
        } else {
            certificates(file, what)?.swap_remove(0)
        };
        parse(&der, what, 1)?;
        Ok(Self::Certificate(der.to_vec()))
    }

    /// The key that a peer must have, SHA-256 of its `SubjectPublicKeyInfo`, if there is only one.
    pub fn pinned_key(&self) -> Option<[u8; 32]> {
        match self {
            Self::Key(key) | Self::SameService { key, .. } => Some(*key),
            Self::Certificate(der) => Certificate::parse(der).ok().map(|it| it.key_id()),
            Self::Chained => None,
            Self::Evidence { key, .. } | Self::EvidenceWithOffer { key, .. } => *key,
        }
    }

    /// Whether a peer that proved this is the expected one, at `now` (Unix seconds). Returns a
    /// verdict if evidence was demanded.
    pub fn accepts(&self, peer: &ProvenPeer, now: u64) -> Result<Option<Verdict>, Refusal> {
        match self {
            Self::Key(pinned) => demand_key(peer, pinned).map(|()| None),
            Self::Certificate(registered) => {
                peer.demand_path()?;
                demand_certificate(peer, registered).map(|()| None)
            }
            Self::Chained => peer.demand_path().map(|()| None),
            Self::Evidence { policies, collateral, key } => {
                demand_evidence(peer, key.as_ref())?;
                peer.verdict_under(policies, collateral, now).map(Some)
            }
            Self::SameService { policies, collateral, key } => {
                demand_evidence(peer, Some(key))?;
                peer.verdict_under(policies, collateral, now).map(Some)
            }
            Self::EvidenceWithOffer { .. } => {
                Err(Refusal::no_collateral("none here, and none was offered"))
            }
        }
    }

    /// Like [`Expect::accepts`], for a service that may still offer collateral: its evidence is
    /// present and bound to its key, but nobody has verified it.
    pub(crate) fn accepts_for_now(
        &self,
        peer: &ProvenPeer,
        now: u64,
    ) -> Result<Option<Verdict>, Refusal> {
        match self {
            Self::EvidenceWithOffer { key, .. } => {
                demand_evidence(peer, key.as_ref()).map(|()| None)
            }
            held => held.accepts(peer, now),
        }
    }
}

impl std::fmt::Debug for Expect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Key(key) => write!(f, "Key({})", fingerprint(key)),
            Self::Certificate(der) => match Certificate::parse(der) {
                Ok(certificate) => write!(f, "Certificate({})", certificate.describe()),
                Err(_) => write!(f, "Certificate({} unreadable bytes)", der.len()),
            },
            Self::Chained => f.write_str("Chained"),
            Self::Evidence { policies, key, .. } | Self::EvidenceWithOffer { policies, key } => f
                .debug_struct("Evidence")
                .field("policies", &policies.len())
                .field("key", &key.as_ref().map(fingerprint))
                .finish_non_exhaustive(),
            Self::SameService { key, .. } => write!(f, "SameService({})", fingerprint(key)),
        }
    }
}

fn demand_evidence(peer: &ProvenPeer, key: Option<&[u8; 32]>) -> Result<(), Refusal> {
    if let Some(pinned) = key {
        demand_key(peer, pinned)?;
    }
    peer.demand_evidence().map(|_| ())
}

fn demand_key(peer: &ProvenPeer, pinned: &[u8; 32]) -> Result<(), Refusal> {
    if peer.key_id() == *pinned {
        return Ok(());
    }
    Err(Refusal::new(Stage::KeyBinding, "pinned-key", Matter::Peer)
        .found(peer.describe())
        .expected(format!("the key {}", fingerprint(pinned)))
        .advice("ask the peer's owner for the fingerprint of its key, and check the address"))
}

fn demand_certificate(peer: &ProvenPeer, registered: &[u8]) -> Result<(), Refusal> {
    let expected = match Certificate::parse(registered) {
        Ok(certificate) if certificate.key_id() == peer.key_id() => return Ok(()),
        Ok(certificate) => certificate.describe(),
        Err(error) => format!("a registered certificate that cannot be read ({error})"),
    };
    Err(Refusal::new(Stage::Certificate, "peer-certificate", Matter::Peer)
        .found(peer.describe())
        .expected(expected)
        .advice(
            "this is another party, or the party has a new key: compare the fingerprints with its \
             owner before you register the new certificate",
        ))
}
