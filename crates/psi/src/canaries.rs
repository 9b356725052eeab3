//! Canaries: keys of no record that all parties agree on, whose answers each of them knows.
//!
//! The service cannot tell them from other keys: their pseudonyms are the same keyed function of
//! inputs that no record has. So a service that leaves matches out, or makes some up, answers
//! wrongly about canaries as often as about records. `docs/job-file.md` says which lies are found
//! with which probability, and which are not.
//!
//! There are as many canaries as the job says of each pattern, at each service: keys that all
//! parties have; for each party, keys that all others have; and from three parties on, for each
//! party, keys that only this one has.

use std::io;
use std::ops::Range;

use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use crate::bitmap::Bitmap;
use crate::job::Job;
use crate::keys::{Pseudonym, Pseudonymiser};
use crate::set::PseudonymSet;

/// Begins what a canary's pseudonym is of, in place of a recipe's version: no record's key begins
/// like this.
const NO_RECIPE: [u8; 4] = [0xff; 4];
const LABEL: &[u8] = b"convelo canary v1";

/// Who has a canary.
#[derive(Clone, Copy)]
enum Pattern<'a> {
    All,
    AllBut(&'a str),
    Only(&'a str),
}

/// The canaries of one party's set. Wiped when dropped.
#[derive(Default)]
pub struct Canaries {
    /// Ascending, with whether all parties have it.
    list: Vec<(Pseudonym, bool)>,
}

/// Canaries by their ranks in a party's set.
pub struct RankedCanaries {
    /// Ascending, with whether all parties have it.
    ranks: Vec<(usize, bool)>,
}

/// How many canaries a service answered, all of them rightly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CanaryCounts {
    /// Those that all parties have.
    pub in_all: u64,
    /// Those that some party does not have.
    pub not_in_all: u64,
}

/// A service that answered wrongly about canaries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the service does not join what it was sent: of {} canaries that all parties have it left out \
     {left_out}, and of {} that some party does not have it made {made_up} a match; its result is not \
     used", .asked.in_all, .asked.not_in_all
)]
pub struct CanaryError {
    /// What was asked.
    pub asked: CanaryCounts,
    /// Of those that all parties have, how many are not in the result.
    pub left_out: u64,
    /// Of the others, how many are.
    pub made_up: u64,
}

impl Canaries {
    /// The canaries of the party `name` in a job of these parties, under the job key.
    pub fn of<'a>(
        job: &Job,
        parties: impl IntoIterator<Item = &'a str>,
        name: &str,
        pseudonymiser: &Pseudonymiser,
    ) -> Self {
        let mut parties: Vec<&str> = parties.into_iter().collect();
        parties.sort_unstable();
        let others = parties.iter().filter(|party| **party != name);
        let mut patterns = vec![Pattern::All];
        patterns.extend(others.map(|party| Pattern::AllBut(party)));
        // Between two, what only one has is what all but the other have.
        patterns.extend((parties.len() > 2).then_some(Pattern::Only(name)));
        let mut list = Vec::new();
        for pattern in patterns.into_iter().filter(|_| job.canaries() > 0) {
            let mut missing = vec![job.canaries(); job.services()];
            for number in 0_u64.. {
                if missing.iter().all(|missing| *missing == 0) {
                    break;
                }
                let pseudonym = pseudonymiser.pseudonym(&pattern.encoded(number));
                let missing = &mut missing[pseudonym.shard(job.services())];
                if *missing > 0 {
                    *missing -= 1;
                    list.push((pseudonym, matches!(pattern, Pattern::All)));
                }
            }
        }
        list.sort_unstable();
        Self { list }
    }

    /// Their pseudonyms, for the set.
    pub fn pseudonyms(&self) -> impl Iterator<Item = Pseudonym> {
        self.list.iter().map(|(pseudonym, _)| *pseudonym)
    }

    /// Finds them in a set that has them.
    ///
    /// # Errors
    /// Those of the set's [`Spill`](crate::Spill); none without one.
    pub fn ranked(&self, set: &PseudonymSet) -> io::Result<RankedCanaries> {
        let ranks = set.ranks_of(self.pseudonyms())?;
        let in_all = self.list.iter().map(|(_, in_all)| *in_all);
        Ok(RankedCanaries { ranks: ranks.into_iter().zip(in_all).collect() })
    }
}

impl Drop for Canaries {
    fn drop(&mut self) {
        self.list.iter_mut().for_each(|(pseudonym, _)| pseudonym.zeroize());
    }
}

impl RankedCanaries {
    /// How many there are.
    pub fn counts(&self) -> CanaryCounts {
        counts(&self.ranks)
    }

    /// Checks the marks of these ranks, which one service made.
    ///
    /// # Errors
    /// If a canary that all parties have is not marked, or another one is.
    pub fn check(&self, of: Range<usize>, marks: &Bitmap) -> Result<(), CanaryError> {
        let begin = self.ranks.partition_point(|(rank, _)| *rank < of.start);
        let end = self.ranks.partition_point(|(rank, _)| *rank < of.end);
        let asked = &self.ranks[begin..end];
        let (mut left_out, mut made_up) = (0, 0);
        for (rank, in_all) in asked {
            match (marks.is_set(rank - of.start), in_all) {
                (false, true) => left_out += 1,
                (true, false) => made_up += 1,
                _ => {}
            }
        }
        if left_out + made_up == 0 {
            return Ok(());
        }
        Err(CanaryError { asked: counts(asked), left_out, made_up })
    }

    /// The marks without those of canaries.
    #[must_use]
    pub fn removed_from(&self, mut marks: Bitmap) -> Bitmap {
        self.ranks.iter().for_each(|(rank, _)| marks.clear(*rank));
        marks
    }
}

impl Pattern<'_> {
    /// What the pseudonym of a canary with this pattern is of.
    fn encoded(self, number: u64) -> Vec<u8> {
        let (kind, name) = match self {
            Self::All => (0_u8, ""),
            Self::AllBut(name) => (1, name),
            Self::Only(name) => (2, name),
        };
        [&NO_RECIPE[..], LABEL, &[kind], &number.to_be_bytes(), name.as_bytes()].concat()
    }
}

fn counts(ranks: &[(usize, bool)]) -> CanaryCounts {
    let in_all = ranks.iter().filter(|(_, in_all)| *in_all).count() as u64;
    CanaryCounts { in_all, not_in_all: ranks.len() as u64 - in_all }
}

#[cfg(test)]
mod tests;
