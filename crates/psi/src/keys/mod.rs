//! What a record's key is: the parts of a job's key with the steps that normalise them, the recipe
//! that the steps belong to, the encoding of a normalised key, and its pseudonym.
//!
//! The steps are only named here. `convelo-keys` applies them, and a service never does.

mod calling_codes;
mod encoding;
mod pseudonym;
mod recipe;
mod step;

use serde::{Deserialize, Serialize};

pub use calling_codes::CALLING_CODES;
pub use encoding::{EncodedKey, KeyEncoder, encode_parts};
pub use pseudonym::{PSEUDONYM_BYTES, Pseudonym, PseudonymQueue, Pseudonymiser};
pub(crate) use recipe::in_words;
pub use recipe::{RECIPE_VERSION, Recipe, RecipeError, TELEPHONE_VERSION, UNICODE_VERSION};
pub use step::{DateOrder, Extension, Grouping, Letters, Profile, STEPS, Step, StepError};

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
    /// Values that mean "unknown": a row that has one of them counts as a row without this part.
    /// They are compared after the steps, without regard to letter case. Their order means nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ignore: Vec<String>,
}

impl KeyPart {
    /// A part in which no value means "unknown".
    pub fn new(name: impl Into<String>, normalise: Vec<Step>) -> Self {
        Self { name: name.into(), normalise, ignore: Vec::new() }
    }
}
