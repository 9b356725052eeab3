//! A merge of sorted sets in one pass.

use crate::bitmap::Bitmap;
use crate::keys::Fingerprint;
use crate::set::FingerprintSet;

/// Marks in every set the fingerprints that all sets hold; one bitmap per set, in their order.
///
/// One pass: every fingerprint is looked at once, memory is the bitmaps. Which addresses it
/// touches and how long it takes depends on the data: an observer of the memory learns the sizes,
/// the number of matches and their ranks.
pub fn intersect(sets: &[FingerprintSet]) -> Vec<Bitmap> {
    let mut bitmaps: Vec<_> = sets.iter().map(|set| Bitmap::new(set.len())).collect();
    let lists: Vec<_> = sets.iter().map(FingerprintSet::as_slice).collect();
    let Some(mut candidate) = lists.first().and_then(|list| list.first()).copied() else {
        return bitmaps;
    };
    let mut ranks = vec![0; lists.len()];
    let mut agreeing = 0;
    for at in (0..lists.len()).cycle() {
        let list = lists[at];
        let rank = advance(list, ranks[at], candidate);
        ranks[at] = rank;
        let Some(found) = list.get(rank).copied() else { break };
        if found == candidate {
            agreeing += 1;
        } else {
            candidate = found;
            agreeing = 1;
        }
        if agreeing == lists.len() {
            for (bitmap, rank) in bitmaps.iter_mut().zip(&ranks) {
                bitmap.set(*rank);
            }
            let Some(next) = list.get(rank + 1).copied() else { break };
            ranks[at] += 1;
            candidate = next;
            agreeing = 0;
        }
    }
    bitmaps
}

/// The first rank from `rank` on whose fingerprint is not below `bound`.
#[inline]
fn advance(list: &[Fingerprint], mut rank: usize, bound: Fingerprint) -> usize {
    while rank < list.len() && list[rank] < bound {
        rank += 1;
    }
    rank
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;
    use crate::ideal::{Learned, learned};
    use crate::job::{Reveal, What};

    fn set(values: &BTreeSet<u128>) -> FingerprintSet {
        let values = values.iter().map(|value| Fingerprint::from(*value)).collect();
        FingerprintSet::from_sorted(values).expect("ordered")
    }

    /// The engine's result must be the ideal one, for every party.
    fn check(parties: &[BTreeSet<u128>]) {
        let sets: Vec<_> = parties.iter().map(set).collect();
        let bitmaps = intersect(&sets);
        assert_eq!(bitmaps.len(), parties.len());
        let everybody = Reveal { what: What::Intersection, to: Vec::new(), minimum: 0 };
        let named: BTreeMap<_, _> = parties
            .iter()
            .enumerate()
            .map(|(at, keys)| (format!("{at:02}"), keys.clone()))
            .collect();
        for ((keys, bitmap), ideal) in
            parties.iter().zip(&bitmaps).zip(learned(&named, &everybody).into_values())
        {
            assert_eq!(bitmap.len(), keys.len());
            let marked: BTreeSet<_> = keys
                .iter()
                .enumerate()
                .filter(|(rank, _)| bitmap.is_set(*rank))
                .map(|(_, key)| *key)
                .collect();
            assert_eq!(Learned::Keys(marked), ideal);
        }
    }

    #[test]
    fn example_of_three_parties() {
        let words = |words: &str| -> BTreeSet<u128> {
            words
                .split(' ')
                .map(|word| word.bytes().fold(0, |sum, b| sum << 8 | u128::from(b)))
                .collect()
        };
        let parties = [
            words("car bicycle train cat dog"),
            words("train car e-car cat computer"),
            words("car bicycle train cat dog computer"),
        ];
        check(&parties);
        let sets: Vec<_> = parties.iter().map(set).collect();
        assert_eq!(intersect(&sets)[1].count_ones(), 3);
    }

    #[test]
    fn empty_sets_and_empty_intersections() {
        let range = |range: std::ops::Range<u128>| range.collect::<BTreeSet<_>>();
        check(&[range(0..0), range(0..9)]);
        check(&[range(0..9), range(0..0)]);
        check(&[range(0..0), range(0..0), range(0..0)]);
        check(&[range(0..9), range(9..18)]);
        check(&[range(0..9), range(0..9), range(9..18)]);
        check(&[range(0..100), range(99..200)]);
        check(&[BTreeSet::from([0, u128::MAX]), BTreeSet::from([5, u128::MAX])]);
    }

    #[test]
    fn fewer_than_two_sets() {
        assert!(intersect(&[]).is_empty());
        assert_eq!(intersect(&[set(&(0..9).collect())])[0].count_ones(), 9);
    }

    #[test]
    fn sixty_four_parties() {
        let parties: Vec<BTreeSet<u128>> =
            (0..64).map(|party| (0..2000).filter(|key| key % 67 != party).collect()).collect();
        check(&parties);
        let sets: Vec<_> = parties.iter().map(set).collect();
        let expected = (0..2000).filter(|key| key % 67 >= 64).count() as u64;
        assert!(intersect(&sets).iter().all(|bitmap| bitmap.count_ones() == expected));
    }

    proptest! {
        #[test]
        fn equals_the_ideal(
            parties in proptest::collection::vec(
                proptest::collection::btree_set(0u128..60, 0..60), 2..=8),
        ) {
            check(&parties);
        }

        #[test]
        fn equals_the_ideal_with_much_in_common(
            common in proptest::collection::btree_set(any::<u128>(), 0..100),
            own in proptest::collection::vec(
                proptest::collection::btree_set(any::<u128>(), 0..100), 2..=8),
        ) {
            let parties: Vec<_> =
                own.iter().map(|own| own.union(&common).copied().collect()).collect();
            check(&parties);
        }
    }
}
