//! The one place that decides who learns what.

use crate::bitmap::Bitmap;
use crate::job::{Job, What};
use crate::outcome::Outcome;

/// What the job grants the party `name` if all parties have `common` keys in common: the rule by
/// which results are given out, and by which those who get them check them.
///
/// A minimum of 0 never withholds: an empty intersection is an ordinary result.
pub fn due(job: &Job, name: &str, common: u64) -> Outcome<(), ()> {
    if !job.learns(name) {
        Outcome::Nothing
    } else if common < job.reveal().minimum {
        Outcome::Withheld
    } else {
        match job.reveal().what {
            What::Intersection => Outcome::Intersection(()),
            What::Count => Outcome::Count(()),
        }
    }
}

/// Whether the job's terms allow the party `name` to be told this; of an intersection, only the
/// size counts.
pub fn allows(job: &Job, name: &str, told: Outcome<u64>) -> bool {
    let common = match told {
        Outcome::Intersection(keys) | Outcome::Count(keys) => keys,
        Outcome::Withheld | Outcome::Nothing => 0,
    };
    due(job, name, common) == told.kind()
}

/// What each party learns. `names` and `bitmaps` list the same parties in the same order, and so do
/// the outcomes. A bitmap covers the ranks of the set that the party sent.
///
/// # Panics
/// If there is not one bitmap per name, or the bitmaps mark different numbers of keys.
pub fn outcomes(job: &Job, names: &[String], bitmaps: Vec<Bitmap>) -> Vec<Outcome<Bitmap>> {
    assert_eq!(names.len(), bitmaps.len(), "one bitmap per party");
    let counts: Vec<_> = bitmaps.iter().map(Bitmap::count_ones).collect();
    let count = counts.first().copied().unwrap_or(0);
    assert!(counts.iter().all(|other| *other == count), "one result for all parties");
    let learn = |(name, bitmap): (&String, _)| due(job, name, count).map(|()| bitmap, |()| count);
    names.iter().zip(bitmaps).map(learn).collect()
}

/// The length of the bitmap that goes with an outcome to a party that sent `keys` keys. A withheld
/// result is as long as the real one would be, so the length tells nothing.
pub fn bitmap_bytes<I, C>(job: &Job, outcome: &Outcome<I, C>, keys: u64) -> u64 {
    match outcome {
        Outcome::Intersection(_) => keys.div_ceil(8),
        Outcome::Withheld if job.reveal().what == What::Intersection => keys.div_ceil(8),
        Outcome::Count(_) | Outcome::Withheld | Outcome::Nothing => 0,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;
    use crate::engine::intersect;
    use crate::ideal;
    use crate::job::tests::{changed, named};
    use crate::job::{KeyId, Reveal};
    use crate::received::received;

    const NAMES: [&str; 3] = ["alice", "bob", "carol"];

    fn job(reveal: Reveal) -> Job {
        let keys = (1..).map(|key| KeyId([key; 32]));
        changed(&named(NAMES.into_iter().zip(keys)), |terms| terms.reveal = reveal).unwrap()
    }

    /// What the parties learn about sets with `common` keys in common.
    fn of(common: usize, what: What, to: &[&str], minimum: u64) -> Vec<Outcome<Bitmap>> {
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
    fn a_party_takes_what_the_terms_allow_and_nothing_else() {
        let terms = |what, to: &[&str], minimum| {
            let to = to.iter().map(|name| (*name).to_owned()).collect();
            job(Reveal { what, to, minimum })
        };
        let told =
            [Outcome::Intersection(7), Outcome::Count(7), Outcome::Withheld, Outcome::Nothing];
        let allowed = |job: &Job| told.map(|told| allows(job, "alice", told));
        let every = terms(What::Intersection, &[], 0);
        assert_eq!(allowed(&every), [true, false, false, false]);
        assert_eq!(allowed(&terms(What::Count, &[], 7)), [false, true, true, false]);
        assert_eq!(allowed(&terms(What::Intersection, &["bob"], 7)), [false, false, false, true]);
        // A party may not learn a result below the minimum.
        assert_eq!(allowed(&terms(What::Intersection, &[], 8)), [false, false, true, false]);
        assert!(allows(&every, "alice", Outcome::Intersection(0)));
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
            let ideal = ideal::learned(&parties, &reveal);
            let real = outcomes(&job(reveal), &names, intersect(sets));
            for ((name, keys), outcome) in names.iter().zip(&keys).zip(real) {
                let marked = |bitmap: Bitmap| {
                    let ranked = keys.iter().enumerate();
                    ranked.filter(|(rank, _)| bitmap.is_set(*rank)).map(|(_, key)| *key).collect()
                };
                prop_assert!(outcome.map(marked, |count| count) == ideal[name], "{}", name);
            }
        }
    }
}
