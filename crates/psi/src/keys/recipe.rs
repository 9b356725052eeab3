//! Which recipe decides what texts are the same key.

use serde::{Deserialize, Serialize};

use super::{KeyPart, Step};

/// The version of all that the steps do. It begins every encoded key, so that keys of different
/// recipes never match.
pub const RECIPE_VERSION: u32 = 2;

/// The version of Unicode whose tables the steps use.
pub const UNICODE_VERSION: &str = "18.0.0";

/// The version of libphonenumber's metadata by which telephone numbers are read.
pub const TELEPHONE_VERSION: &str = "9.0.43";

/// All that decides which texts are the same key, besides the steps that a job names. It is part of a
/// job, and hence of its digest: parties whose programs differ in it never start together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// [`RECIPE_VERSION`].
    pub version: u32,
    /// [`UNICODE_VERSION`].
    pub unicode: String,
    /// [`TELEPHONE_VERSION`], if a step reads telephone numbers: a new numbering plan somewhere
    /// changes nothing for other jobs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub telephone: Option<String>,
}

/// A job is of another recipe than this program applies.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the job's keys are normalised by {found}, and this program applies {expected}: all parties need \
     programs with the same recipe"
)]
pub struct RecipeError {
    found: String,
    expected: String,
}

impl Recipe {
    /// The recipe that this program applies to keys of these parts.
    pub fn of(parts: &[KeyPart]) -> Self {
        let telephone =
            |part: &KeyPart| part.normalise.iter().copied().any(Step::reads_telephone_numbers);
        Self {
            version: RECIPE_VERSION,
            unicode: UNICODE_VERSION.to_owned(),
            telephone: parts.iter().any(telephone).then(|| TELEPHONE_VERSION.to_owned()),
        }
    }

    /// Checks that a job with keys of these parts can be run by this program; `None` is recipe 1,
    /// which jobs do not name.
    pub(crate) fn check(found: Option<&Self>, parts: &[KeyPart]) -> Result<(), RecipeError> {
        let expected = Self::of(parts);
        if found == Some(&expected) {
            return Ok(());
        }
        Err(RecipeError { found: in_words(found), expected: expected.to_string() })
    }
}

impl std::fmt::Display for Recipe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "recipe {} (Unicode {}", self.version, self.unicode)?;
        if let Some(telephone) = &self.telephone {
            write!(f, ", telephone numbers {telephone}")?;
        }
        f.write_str(")")
    }
}

/// `None` is recipe 1.
pub(crate) fn in_words(recipe: Option<&Recipe>) -> String {
    recipe.map_or_else(|| "recipe 1".to_owned(), Recipe::to_string)
}
