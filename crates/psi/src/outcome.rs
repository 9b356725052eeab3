//! What a party learns about a finished job: four kinds of outcome, whatever they carry.

use std::fmt;

use serde::{Deserialize, Serialize};
use subtle::{Choice, ConditionallySelectable};

/// What one party learns about a finished job. `I` conveys the intersection (a bitmap, keys, their
/// digest), `C` a count.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Outcome<I, C = u64> {
    /// Which of its own keys all parties have.
    Intersection(I),
    /// How many keys all parties have.
    Count(C),
    /// That the result has fewer keys than the job's minimum.
    Withheld,
    /// Nothing: not even whether a result was withheld.
    Nothing,
}

impl<I, C> Outcome<I, C> {
    /// The same outcome in another representation.
    pub fn map<J, D>(
        self,
        intersection: impl FnOnce(I) -> J,
        count: impl FnOnce(C) -> D,
    ) -> Outcome<J, D> {
        match self {
            Self::Intersection(told) => Outcome::Intersection(intersection(told)),
            Self::Count(told) => Outcome::Count(count(told)),
            Self::Withheld => Outcome::Withheld,
            Self::Nothing => Outcome::Nothing,
        }
    }

    /// The outcome, by reference.
    pub fn as_ref(&self) -> Outcome<&I, &C> {
        match self {
            Self::Intersection(told) => Outcome::Intersection(told),
            Self::Count(told) => Outcome::Count(told),
            Self::Withheld => Outcome::Withheld,
            Self::Nothing => Outcome::Nothing,
        }
    }

    /// Which of the four it is.
    pub fn kind(&self) -> OutcomeKind {
        match self {
            Self::Intersection(_) => OutcomeKind::INTERSECTION,
            Self::Count(_) => OutcomeKind::COUNT,
            Self::Withheld => OutcomeKind::WITHHELD,
            Self::Nothing => OutcomeKind::NOTHING,
        }
    }

    /// The word for its kind.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Intersection(_) => "intersection",
            Self::Count(_) => "count",
            Self::Withheld => "withheld",
            Self::Nothing => "nothing",
        }
    }
}

impl<I, C, E> Outcome<Result<I, E>, C> {
    /// The outcome, unless its intersection could not be converted.
    ///
    /// # Errors
    /// The error of that conversion.
    pub fn transpose(self) -> Result<Outcome<I, C>, E> {
        Ok(match self {
            Self::Intersection(told) => Outcome::Intersection(told?),
            Self::Count(told) => Outcome::Count(told),
            Self::Withheld => Outcome::Withheld,
            Self::Nothing => Outcome::Nothing,
        })
    }
}

/// Which of the four an [`Outcome`] is, as the number that the protocol has for it: it can be
/// selected without a branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutcomeKind(u8);

impl OutcomeKind {
    /// [`Outcome::Intersection`]
    pub const INTERSECTION: Self = Self(1);
    /// [`Outcome::Count`]
    pub const COUNT: Self = Self(2);
    /// [`Outcome::Withheld`]
    pub const WITHHELD: Self = Self(3);
    /// [`Outcome::Nothing`]
    pub const NOTHING: Self = Self(4);

    /// The kind with this number in the protocol.
    pub fn from_number(number: u64) -> Option<Self> {
        u8::try_from(number).ok().filter(|number| (1..=4).contains(number)).map(Self)
    }

    /// Its number in the protocol.
    pub fn number(self) -> u8 {
        self.0
    }

    /// The outcome of this kind that conveys this intersection, or this count.
    pub fn outcome<I, C>(self, intersection: I, count: C) -> Outcome<I, C> {
        match self {
            Self::INTERSECTION => Outcome::Intersection(intersection),
            Self::COUNT => Outcome::Count(count),
            Self::WITHHELD => Outcome::Withheld,
            _ => Outcome::Nothing,
        }
    }
}

impl ConditionallySelectable for OutcomeKind {
    fn conditional_select(a: &Self, b: &Self, choice: Choice) -> Self {
        Self(u8::conditional_select(&a.0, &b.0, choice))
    }
}

/// The word, and nothing about the result.
impl<I, C> fmt::Debug for Outcome<I, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_result() {
        assert_eq!(format!("{:?}", Outcome::<u64>::Count(7)), "count");
    }
}
