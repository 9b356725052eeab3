//! What matching is: jobs, keys and fingerprints, sets, the join, and who learns what of it.
//!
//! Everything here is a function of its arguments: time, randomness and bytes come in, bytes and
//! decisions go out. A record's walk through this crate: [`Normaliser`] makes a key of its columns,
//! [`Fingerprinter`] a pseudonym of the key under the job key of [`agreement`], [`SetBuilder`] a
//! sorted set of the pseudonyms; the service receives it by [`SetReceiver`], joins by
//! [`engine::intersect`], and [`reveal::outcomes`] decides who learns what. [`ideal`] says in a few
//! lines what all of it computes.

pub mod agreement;
mod bitmap;
pub mod engine;
pub mod ideal;
mod job;
mod keys;
pub mod limits;
mod outcome;
mod received;
pub mod reveal;
mod set;
pub mod statement;

pub use bitmap::{Bitmap, BitmapError};
pub use job::{
    JOB_VERSION, Job, JobDigest, JobDigestError, JobError, KeyId, KeyIdError, Mode, Parties, Party,
    Position, Reveal, Service, Shard, Terms, Verify, What, terms,
};
pub use keys::{
    Encoded, FINGERPRINT_BYTES, Fingerprint, FingerprintQueue, Fingerprinter, KeyPart, Normaliser,
    RECIPE_VERSION, Step, StepError, UNICODE_VERSION, encode_parts,
};
pub use outcome::Outcome;
pub use received::{ReceivedSet, SetError, SetReceiver};
pub use set::{Chunks, FingerprintSet, Segment, SetBuilder, Spill};
pub use statement::{SignedStatement, Statement};
