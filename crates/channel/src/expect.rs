//! What the side that connects demands.

use std::sync::Arc;

use convelo_attest::{Collateral, Policy};

/// What a service must prove before anything is sent to it.
#[derive(Clone)]
pub enum Expect {
    /// Evidence that every one of the policies accepts; no policy accepts nothing.
    Evidence {
        /// The job's policy, and a party's own where it has one.
        policies: Vec<Arc<Policy>>,
        /// What the evidence is verified with.
        collateral: Arc<Collateral>,
        /// The key that is demanded beside the evidence: SHA-256 of its `SubjectPublicKeyInfo`.
        key: Option<[u8; 32]>,
    },
    /// As `Evidence`, but verified with what the service itself offers on the connection. In the
    /// handshake its certificate is only looked at; the verdict comes from
    /// [`Binding::verify_service`](crate::Binding::verify_service), and nothing may be sent before.
    /// How old the collateral may be, the policies say.
    EvidenceWithOffer {
        /// The job's policy, and a party's own where it has one.
        policies: Vec<Arc<Policy>>,
        /// The key that is demanded beside the evidence: SHA-256 of its `SubjectPublicKeyInfo`.
        key: Option<[u8; 32]>,
    },
    /// The key with this SHA-256 of its `SubjectPublicKeyInfo`. Says nothing about what runs there.
    Key([u8; 32]),
}
