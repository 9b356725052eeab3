//! The job key: agreed between the parties, relayed by a service that cannot read it.
//!
//! `docs/job-key.md` has the exact protocol and what each of its parts is for. Here are the
//! messages, which the service relays, and behind the feature `agreement` what a party does: each
//! state replaces the previous one, so no step can be left out or repeated.
//!
//! 1. [`Opening`] makes a one-time key (X-Wing: X25519 and ML-KEM-768) and signs it with the
//!    party's identity key for this job ([`KeyOffer`]).
//! 2. When all parties are there, [`Opening::assembled`] checks everybody's identity and offer and
//!    seals 32 random bytes, the party's share, to each other party's one-time key by HPKE. The
//!    HPKE `info` binds the job, sender, recipient, and the transcript: the run and all members as
//!    this party was shown them.
//! 3. [`Sealing::shares`] opens the others' shares, derives the keys from all shares under the job
//!    digest and the transcript, and gives a [`Confirmation`]: a tag derived alongside the key, and
//!    a signature by the identity key over the transcript and the tag.
//! 4. [`Confirming::confirmed`] compares everybody's tag, verifies everybody's signature, and
//!    releases the [`JobKey`].
//!
//! The key is unknown to anyone who holds no identity key of the roster, and it is fresh if at
//! least one party's share is. A relay that shows parties different offers is noticed in step 3,
//! because the shares do not open under different transcripts; one that replaces shares, a party
//! that gives the others different ones, and whoever plays a party with a one-time key of another
//! run is noticed in step 4. If a job pins no identities, the parties must trust the attested
//! service to identify the members; a dishonest service can then place itself between them.

#[cfg(feature = "agreement")]
mod error;
#[cfg(feature = "agreement")]
mod states;

use std::fmt;

use sha2::{Digest as _, Sha256};

use crate::job::JobDigest;
use crate::limits::ONE_TIME_KEY_BYTES;

#[cfg(feature = "agreement")]
pub use self::error::AgreementError;
#[cfg(feature = "agreement")]
pub use self::states::{Confirming, JobKey, Opening, Sealing};

/// The version of the agreement that this crate speaks. There is no other: nothing negotiates.
pub const AGREEMENT_VERSION: u32 = 2;

const TRANSCRIPT_LABEL: &[u8] = b"convelo key agreement members v2";

/// A party's one-time key for one run of one job. Public.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyOffer {
    /// X-Wing public key.
    pub one_time_key: Box<[u8; ONE_TIME_KEY_BYTES]>,
    /// ECDSA-P256-SHA256 signature (DER) of the party's identity key over label, job digest, party
    /// name and one-time key, each preceded by its length.
    pub signature: Vec<u8>,
}

/// A party of an assembled job, as the service shows it. Public.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The party's name.
    pub name: String,
    /// SubjectPublicKeyInfo (DER) of its identity key.
    pub spki: Vec<u8>,
    /// Its one-time key.
    pub offer: KeyOffer,
}

/// One run of a job whose parties are all there, as the service shows it. Public.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assembled {
    /// Random bytes that the service made for the run.
    pub run: [u8; 32],
    /// All members.
    pub members: Vec<Member>,
}

impl Assembled {
    /// SHA-256 over the job, the run and everything that is shown about each member, by name.
    pub fn transcript(&self, job: JobDigest) -> [u8; 32] {
        let mut sorted: Vec<_> = self.members.iter().collect();
        sorted.sort_by(|a, b| a.name.cmp(&b.name));
        let mut hash =
            Sha256::new_with_prefix(framed(&[TRANSCRIPT_LABEL, job.0.as_slice(), &self.run]));
        for Member { name, spki, offer } in sorted {
            let KeyOffer { one_time_key, signature } = offer;
            hash.update(framed(&[name.as_bytes(), spki, one_time_key.as_slice(), signature]));
        }
        hash.finalize().into()
    }
}

/// One party's share for one other party. Only that party can open it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedShare {
    /// Name of the party whose share it is.
    pub from: String,
    /// Name of the party that it is sealed to.
    pub to: String,
    /// HPKE's encapsulated key (1120 bytes), then the ciphertext (48 bytes).
    pub sealed: Vec<u8>,
}

/// Shows that a party derived the same keys as the others, in this run. Says nothing about them.
#[derive(Clone)]
pub struct Confirmation {
    /// Derived alongside the job key by HKDF, for this party's name.
    pub tag: [u8; 32],
    /// ECDSA-P256-SHA256 signature (DER) of the party's identity key over label, job digest,
    /// transcript, party name and tag, each preceded by its length.
    pub signature: Vec<u8>,
}

impl fmt::Debug for Confirmation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Confirmation(..)")
    }
}

/// The parts, each preceded by its length in 32 bits, big-endian.
fn framed(parts: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(parts.iter().map(|part| 4 + part.len()).sum());
    for part in parts {
        let length = u32::try_from(part.len()).expect("names and keys are short");
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(part);
    }
    bytes
}
