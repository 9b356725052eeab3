//! From the text in a table's columns to a pseudonym: normalise, encode, apply the PRF.

mod normalise;
mod pseudonym;

use serde::{Deserialize, Serialize};

pub use normalise::{
    Encoded, Normaliser, RECIPE_VERSION, Step, StepError, UNICODE_VERSION, encode_parts,
};
pub use pseudonym::{PSEUDONYM_BYTES, Pseudonym, PseudonymQueue, Pseudonymiser};

/// One part of the key that identifies a record. All parts together make the key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyPart {
    /// What this part is, 1 to 64 of `A-Za-z0-9._-`, unique in the job. Every party says at run
    /// time which of its columns holds it.
    pub name: String,
    /// What is done to the text of the column before it is compared, in this order. Empty: the text
    /// is compared as it is.
    pub normalise: Vec<Step>,
}
