//! The one place that decides who learns what.

use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConditionallySelectable as _, ConstantTimeLess as _};

use crate::bitmap::Bitmap;
use crate::job::{Job, What};
use crate::outcome::{Outcome, OutcomeKind};

/// What one party is told. Whether a result is withheld makes no difference to how long it is, or to
/// the work and memory accesses that made it.
pub struct Answer {
    /// What the statement says about it.
    pub told: Told,
    /// The bits that travel: all zero if they convey no intersection.
    pub bitmap: Bitmap,
}

/// What a party is told, in numbers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Told {
    /// The kind.
    pub kind: OutcomeKind,
    /// How many keys all parties have, canaries not counted, if the kind is an intersection or a
    /// count; otherwise 0.
    pub count: u64,
    /// SHA-256 of the bitmap's bytes if it is an intersection, of the count as 8 bytes, big-endian,
    /// if it is a count; otherwise zeros.
    pub sha256: [u8; 32],
}

impl Answer {
    /// What it conveys.
    pub fn outcome(self) -> Outcome<Bitmap> {
        self.told.kind.outcome(self.bitmap, self.told.count)
    }
}

impl Told {
    /// About this outcome of a job, at one service.
    pub fn of(job: &Job, outcome: &Outcome<Bitmap>) -> Self {
        let (count, sha256) = match outcome {
            Outcome::Intersection(bitmap) => (common(job, bitmap), sha256(bitmap.as_bytes())),
            Outcome::Count(count) => (*count, sha256_of_count(*count)),
            Outcome::Withheld | Outcome::Nothing => (0, [0; 32]),
        };
        Self { kind: outcome.kind(), count, sha256 }
    }

    /// The digests of what it conveys.
    pub fn sha256(&self) -> Outcome<[u8; 32], [u8; 32]> {
        self.kind.outcome(self.sha256, self.sha256)
    }
}

/// SHA-256 of a count as 8 bytes, big-endian.
pub fn sha256_of_count(count: u64) -> [u8; 32] {
    sha256(&count.to_be_bytes())
}

/// What the job grants the party `name` if all parties have `common` keys in common: the rule by
/// which results are given out, and by which those who get them check them.
///
/// A minimum of 0 never withholds: an empty intersection is an ordinary result.
pub fn due(job: &Job, name: &str, common: u64) -> OutcomeKind {
    let granted = granted(job, name);
    if granted == OutcomeKind::NOTHING {
        return granted;
    }
    OutcomeKind::conditional_select(
        &granted,
        &OutcomeKind::WITHHELD,
        common.ct_lt(&job.reveal().minimum),
    )
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

/// What each party is told. `names` and `bitmaps` list the same parties in the same order, and so do
/// the answers. A bitmap covers the ranks of the set that the party sent.
///
/// The terms of the job, and thus who is granted what, are no secret from the host; how many keys
/// are common is one, and with it whether they are fewer than the minimum.
///
/// # Panics
/// If there is not one bitmap per name, or the bitmaps mark different numbers of keys.
pub fn answers(job: &Job, names: &[String], bitmaps: Vec<Bitmap>) -> Vec<Answer> {
    assert_eq!(names.len(), bitmaps.len(), "one bitmap per party");
    let counts: Vec<_> = bitmaps.iter().map(|bitmap| common(job, bitmap)).collect();
    let common = counts.first().copied().unwrap_or(0);
    assert!(counts.iter().all(|other| *other == common), "one result for all parties");
    let answer = |(name, bitmap): (&String, _)| answer(job, name, common, bitmap);
    names.iter().zip(bitmaps).map(answer).collect()
}

fn answer(job: &Job, name: &str, common: u64, mut bitmap: Bitmap) -> Answer {
    let granted = granted(job, name);
    let withheld = common.ct_lt(&job.reveal().minimum);
    let sha256 = match granted {
        OutcomeKind::INTERSECTION => sha256(bitmap.as_bytes()),
        OutcomeKind::COUNT => sha256_of_count(common),
        _ => [0; 32],
    };
    let told = !withheld & Choice::from(u8::from(granted != OutcomeKind::NOTHING));
    bitmap.keep_if(told & Choice::from(u8::from(granted == OutcomeKind::INTERSECTION)));
    let told = Told {
        kind: due(job, name, common),
        count: u64::conditional_select(&0, &common, told),
        sha256: <[u8; 32]>::conditional_select(&[0; 32], &sha256, told),
    };
    Answer { told, bitmap }
}

/// How many keys are marked, without the canaries that all parties have.
pub fn common(job: &Job, marks: &Bitmap) -> u64 {
    marks.count_ones().saturating_sub(job.canaries())
}

/// What the job grants a party unless the result is withheld.
fn granted(job: &Job, name: &str) -> OutcomeKind {
    match job.reveal().what {
        _ if !job.learns(name) => OutcomeKind::NOTHING,
        What::Intersection => OutcomeKind::INTERSECTION,
        What::Count => OutcomeKind::COUNT,
    }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// The length of the bitmap that is sent to the party `name`, which sent `keys` keys. It does not
/// depend on the result: if that is withheld, the bitmap is zeros.
pub fn bitmap_bytes(job: &Job, name: &str, keys: u64) -> u64 {
    match granted(job, name) {
        OutcomeKind::INTERSECTION => keys.div_ceil(8),
        _ => 0,
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

    fn outcomes(job: &Job, names: &[String], bitmaps: Vec<Bitmap>) -> Vec<Outcome<Bitmap>> {
        answers(job, names, bitmaps).into_iter().map(Answer::outcome).collect()
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
            let real = outcomes(&job(reveal), &names, intersect(sets).expect("memory"));
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
