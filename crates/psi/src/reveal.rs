//! The one place that decides who learns what.

use std::fmt;

use crate::bitmap::Bitmap;
use crate::job::{Job, What};

/// What one party learns of a finished job.
#[derive(Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Which of its own keys all parties have, by rank in the set it sent.
    Intersection(Bitmap),
    /// How many keys all parties have.
    Count(u64),
    /// The result has fewer keys than the job's minimum.
    Withheld,
    /// The job entitles it to nothing; it does not even learn whether a result was withheld.
    Nothing,
}

impl fmt::Debug for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Intersection(_) => "Intersection(..)",
            Self::Count(_) => "Count(..)",
            Self::Withheld => "Withheld",
            Self::Nothing => "Nothing",
        })
    }
}

/// Decides what each party learns. `names` and `bitmaps` are of the same parties in the same
/// order, the outcomes too.
///
/// A minimum of 0 never withholds: an empty intersection is an ordinary result.
///
/// # Panics
/// If there is not one bitmap per name, or the bitmaps mark different numbers of keys.
pub fn outcomes(job: &Job, names: &[String], bitmaps: Vec<Bitmap>) -> Vec<Outcome> {
    assert_eq!(names.len(), bitmaps.len(), "one bitmap per party");
    let counts: Vec<_> = bitmaps.iter().map(Bitmap::count_ones).collect();
    let count = counts.first().copied().unwrap_or(0);
    assert!(counts.iter().all(|other| *other == count), "one result for all parties");
    let learn = |(name, bitmap): (&String, Bitmap)| {
        if !job.learns(name) {
            Outcome::Nothing
        } else if count < job.reveal().minimum {
            Outcome::Withheld
        } else {
            match job.reveal().what {
                What::Intersection => Outcome::Intersection(bitmap),
                What::Count => Outcome::Count(count),
            }
        }
    };
    names.iter().zip(bitmaps).map(learn).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;
    use crate::engine::intersect;
    use crate::ideal::{Learned, learned};
    use crate::job::tests::{changed, named};
    use crate::job::{KeyId, Reveal};
    use crate::received::received;

    const NAMES: [&str; 3] = ["alice", "bob", "carol"];

    fn job(reveal: Reveal) -> Job {
        let keys = (1..).map(|key| KeyId([key; 32]));
        changed(&named(NAMES.into_iter().zip(keys)), |terms| terms.reveal = reveal).unwrap()
    }

    /// What the parties learn of sets that have `common` keys in common.
    fn of(common: usize, what: What, to: &[&str], minimum: u64) -> Vec<Outcome> {
        let to = to.iter().map(|name| (*name).to_owned()).collect();
        let bitmaps = NAMES.iter().map(|_| {
            let mut bitmap = Bitmap::new(9);
            (0..common).for_each(|rank| bitmap.set(rank));
            bitmap
        });
        let names: Vec<_> = NAMES.iter().map(|name| (*name).to_owned()).collect();
        outcomes(&job(Reveal { what, to, minimum }), &names, bitmaps.collect())
    }

    #[test]
    fn only_those_entitled_learn() {
        let outcomes = of(3, What::Count, &["bob"], 0);
        assert!(outcomes == [Outcome::Nothing, Outcome::Count(3), Outcome::Nothing]);
    }

    #[test]
    fn small_result_is_withheld_from_everybody_entitled() {
        let withheld = of(4, What::Intersection, &["alice", "carol"], 5);
        assert!(withheld == [Outcome::Withheld, Outcome::Nothing, Outcome::Withheld]);
        assert!(
            of(5, What::Count, &[], 5) == [Outcome::Count(5), Outcome::Count(5), Outcome::Count(5)]
        );
    }

    #[test]
    fn those_not_entitled_cannot_tell_whether_a_result_was_withheld() {
        assert!(of(0, What::Count, &["alice"], 5)[1] == of(9, What::Count, &["alice"], 5)[1]);
    }

    #[test]
    fn empty_result_is_ordinary_without_a_minimum() {
        assert!(of(0, What::Intersection, &[], 0)[0] == Outcome::Intersection(Bitmap::new(9)));
        assert!(of(0, What::Count, &[], 0)[0] == Outcome::Count(0));
    }

    #[test]
    fn debug_shows_no_result() {
        assert_eq!(format!("{:?}", Outcome::Count(7)), "Count(..)");
    }

    proptest! {
        #[test]
        fn engine_and_policy_equal_the_ideal(
            keys in proptest::collection::vec(
                proptest::collection::btree_set(0u128..20, 0..20), 3),
            count in any::<bool>(),
            to in proptest::sample::subsequence(NAMES.to_vec(), 0..=3),
            minimum in 0u64..8,
        ) {
            let what = if count { What::Count } else { What::Intersection };
            let to = to.into_iter().map(str::to_owned).collect();
            let reveal = Reveal { what, to, minimum };
            let names: Vec<_> = NAMES.iter().map(|name| (*name).to_owned()).collect();
            let sets = keys.iter().map(|keys| received(keys.iter().copied())).collect();
            let parties: BTreeMap<_, BTreeSet<_>> =
                names.iter().cloned().zip(keys.iter().cloned()).collect();
            let ideal = learned(&parties, &reveal);
            let real = outcomes(&job(reveal), &names, intersect(sets));
            for ((name, keys), outcome) in names.iter().zip(&keys).zip(real) {
                let real = match outcome {
                    Outcome::Intersection(bitmap) => Learned::Keys(
                        keys.iter().enumerate().filter(|(rank, _)| bitmap.is_set(*rank))
                            .map(|(_, key)| *key).collect()),
                    Outcome::Count(count) => Learned::Count(count),
                    Outcome::Withheld => Learned::Withheld,
                    Outcome::Nothing => Learned::Nothing,
                };
                prop_assert_eq!(&real, &ideal[name]);
            }
        }
    }
}
