//! The intersection of sorted sets, and where it is in each set.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use rayon::prelude::*;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::block::{BLOCK, Block, Extent, wipe, wipe_stack};
use super::lanes::{Lanes, TILE, Unit, Work};
use super::merge::{Exchanges, List, Order, WORDS, alone, merge};
use crate::bitmap::Bitmap;
use crate::limits::MAXIMUM_PARTIES;
use crate::received::ReceivedSet;

/// Marks in every set the pseudonyms that all sets hold; one bitmap per set, in the order of the
/// sets.
///
/// Which addresses are touched and which branches are taken depends only on the sizes of the sets.
/// Memory: the sets themselves, plus what [`memory`](super::memory) says for the bits that lead
/// back; all of it is wiped.
///
/// # Errors
/// If the system has no memory for the bits that lead back.
///
/// # Panics
/// If there are more than 64 sets.
pub fn intersect(sets: Vec<ReceivedSet>) -> Result<Vec<Bitmap>, NoMemory> {
    intersect_on(Unit::widest(), sets)
}

/// The same without a vector unit, for measuring what the compiler made of it.
#[doc(hidden)]
pub fn intersect_without_vectors(sets: Vec<ReceivedSet>) -> Result<Vec<Bitmap>, NoMemory> {
    intersect_on(Unit::Portable, sets)
}

/// The system has no memory for a join.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system has no memory for the join")]
pub struct NoMemory;

/// Words of stack, 128 KiB, that are wiped after a join. A worker that waits for part of its work
/// does other work meanwhile, so calls pile up on its stack.
const STACK: usize = 16 << 10;

/// Where a list comes from.
enum Origin {
    /// It is the set of the party with this number.
    Set(usize),
    Merge(Box<Origin>, Box<Origin>, Exchanges),
}

pub(super) fn intersect_on(unit: Unit, sets: Vec<ReceivedSet>) -> Result<Vec<Bitmap>, NoMemory> {
    // Enters the pool once, not for every step of the join.
    rayon::scope(|_| intersect_in_pool(unit, sets))
}

fn intersect_in_pool(unit: Unit, sets: Vec<ReceivedSet>) -> Result<Vec<Bitmap>, NoMemory> {
    assert!(sets.len() <= MAXIMUM_PARTIES, "{} sets", sets.len());
    let parties = sets.len();
    let lengths: Vec<_> = sets.iter().map(ReceivedSet::len).collect();
    let lists = sets.into_iter().map(|set| List::of(set.into_blocks())).collect();
    let Some((list, origin)) = merged(unit, lists)? else { return Ok(Vec::new()) };
    let mut marks = marks(unit, list, lengths.iter().sum(), parties);
    let mut bitmaps: Vec<_> = lengths.into_iter().map(Bitmap::new).collect();
    lead_back(origin, &mut marks, &mut |party, marks| bitmaps[party].copy_words(marks));
    wipe_stack::<STACK>();
    rayon::broadcast(|_| wipe_stack::<STACK>());
    Ok(bitmaps)
}

/// Merges all lists into one, always the two shortest: as in Huffman's code, this minimises, over
/// all trees of merges, the total of what the merges handle. The tree depends only on the lengths.
/// None if there are no lists.
fn merged(unit: Unit, lists: Vec<List>) -> Result<Option<(List, Origin)>, NoMemory> {
    let mut waiting: BinaryHeap<_> =
        lists.iter().enumerate().map(|(at, list)| Reverse((list.len(), at))).collect();
    let mut made: Vec<_> = lists
        .into_iter()
        .enumerate()
        .map(|(party, list)| Some((list, Origin::Set(party))))
        .collect();
    while waiting.len() > 1 {
        let mut shortest = || waiting.pop().and_then(|Reverse((_, at))| made[at].take());
        let (Some((left, a)), Some((right, b))) = (shortest(), shortest()) else { break };
        let (list, exchanges) = merge(unit, left, right).ok_or(NoMemory)?;
        waiting.push(Reverse((list.len(), made.len())));
        made.push(Some((list, Origin::Merge(Box::new(a), Box::new(b), exchanges))));
    }
    Ok(made.pop().flatten())
}

/// One bit for each record, set if it is in a run of as many equal ones as there are parties: since
/// a set has no value twice, all of them have it. Records from `total` on are padding. Blocks are
/// wiped while they are in the cache, and given back, which takes the system a while, once others
/// are being examined.
fn marks(unit: Unit, list: List, total: usize, parties: usize) -> Zeroizing<Vec<u64>> {
    let blocks = list.len();
    let mut marks = Zeroizing::new(vec![0; blocks * WORDS]);
    if total < parties {
        return marks;
    }
    let mut extents = list.into_extents();
    let first = |(extent, order): &mut (Extent, Order)| {
        order.blocks_of(extent).next().map(|block| Head::of(block))
    };
    let heads: Vec<_> = extents.iter_mut().map(first).collect();
    let (mut rest, mut places) = (marks.as_mut_slice(), Vec::with_capacity(extents.len()));
    for (extent, _) in &extents {
        places.push(rest.split_off_mut(..extent.begun() * WORDS).expect("a word for 64 records"));
    }
    let parts = extents.into_par_iter().zip(places).enumerate().with_min_len(alone(blocks));
    parts.for_each(|(at, ((mut extent, order), marks))| {
        let mut blocks = order.blocks_of(&mut extent).peekable();
        for marks in marks.chunks_mut(WORDS) {
            let Some(block) = blocks.next() else { break };
            let next = match blocks.peek() {
                Some(block) => Head::of(block),
                None => heads.get(at + 1).cloned().flatten().unwrap_or_else(Head::padding),
            };
            unit.run(Runs { block, next: &next, apart: parties - 1, marks });
            wipe(block);
        }
        drop(blocks);
        extent.are_wiped();
    });
    // Where a run can begin.
    let places = total - parties + 1;
    marks[places.div_ceil(64)..].fill(0);
    if !places.is_multiple_of(64) {
        marks[places / 64] &= !(u64::MAX << (places % 64));
    }
    // From the start of a run to all of it.
    let mut covered = 1;
    while covered < parties {
        let shift = covered.min(parties - covered);
        for at in (0..marks.len()).rev() {
            let before = at.checked_sub(1).map_or(0, |before| marks[before]);
            marks[at] |= marks[at] << shift | before >> (64 - shift);
        }
        covered += shift;
    }
    marks
}

/// The first records of a block. Wiped when dropped.
#[derive(Clone, ZeroizeOnDrop)]
struct Head([[i64; TILE]; 2]);

impl Head {
    fn of(block: &Block) -> Self {
        Self(block.each_ref().map(|half| half.as_chunks().0[0]))
    }

    /// The same for a block of padding.
    fn padding() -> Self {
        Self([[i64::MAX; TILE]; 2])
    }
}

/// Which records of a block are equal to the one `apart` places after them.
struct Runs<'a> {
    block: &'a Block,
    next: &'a Head,
    apart: usize,
    marks: &'a mut [u64],
}

impl Work for Runs<'_> {
    type Output = ();

    #[inline(always)]
    fn with<L: Lanes>(self, lanes: L) {
        let [high, low] = self.block;
        let mut ends = [[0; 2 * TILE]; 2];
        for ((end, half), next) in ends.iter_mut().zip(self.block).zip(&self.next.0) {
            end[..TILE].copy_from_slice(&half[BLOCK - TILE..]);
            end[TILE..].copy_from_slice(next);
        }
        let (highs, lows) = (high.as_chunks::<TILE>().0, low.as_chunks::<TILE>().0);
        for (word, mark) in self.marks.iter_mut().enumerate() {
            let from = word * TILE + self.apart;
            let (high, low, from) = if word + 1 < WORDS {
                (&high[..], &low[..], from)
            } else {
                (&ends[0][..], &ends[1][..], self.apart)
            };
            let behind = (tile_at(high, from), tile_at(low, from));
            *mark = lanes.equal((&highs[word], &lows[word]), behind);
        }
        ends.zeroize();
    }
}

#[inline(always)]
fn tile_at(words: &[i64], from: usize) -> &[i64; TILE] {
    words[from..]
        .first_chunk()
        .expect("a record and what stands behind it are in a block or its ends")
}

/// Leads one bit per record back to the sets.
fn lead_back(origin: Origin, marks: &mut [u64], take: &mut impl FnMut(usize, &[u64])) {
    match origin {
        Origin::Set(party) => take(party, marks),
        Origin::Merge(left, right, exchanges) => {
            let (left_marks, right_marks) = exchanges.undo(marks);
            lead_back(*left, left_marks, take);
            lead_back(*right, right_marks, take);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;
    use crate::ideal::learned;
    use crate::job::{Reveal, What};
    use crate::outcome::Outcome;
    use crate::received::received;

    /// The engine's result must be the ideal one, for every party and on every vector unit.
    fn check(parties: &[BTreeSet<u128>]) {
        let everybody = Reveal { what: What::Intersection, to: Vec::new(), minimum: 0 };
        let named: BTreeMap<_, _> = parties
            .iter()
            .enumerate()
            .map(|(at, keys)| (format!("{at:02}"), keys.clone()))
            .collect();
        let ideal: Vec<_> = learned(&named, &everybody).into_values().collect();
        for unit in Unit::all() {
            let sets = parties.iter().map(|keys| received(keys.iter().copied())).collect();
            let bitmaps = intersect_on(unit, sets).expect("memory");
            assert_eq!(bitmaps.len(), parties.len());
            for ((keys, bitmap), ideal) in parties.iter().zip(&bitmaps).zip(&ideal) {
                assert_eq!(bitmap.len(), keys.len());
                let marked: BTreeSet<_> = keys
                    .iter()
                    .enumerate()
                    .filter(|(rank, _)| bitmap.is_set(*rank))
                    .map(|(_, key)| *key)
                    .collect();
                assert!(Outcome::Intersection(marked) == *ideal, "{unit:?}");
            }
        }
    }

    fn range(range: std::ops::Range<u128>) -> BTreeSet<u128> {
        range.collect()
    }

    /// Numbers spread over the whole range, some with equal high or low halves.
    fn spread(range: std::ops::Range<u128>) -> BTreeSet<u128> {
        range
            .map(|n| match n % 8 {
                0 => n << 64,
                1 => n,
                _ => (n << 96).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835) | n,
            })
            .collect()
    }

    #[test]
    fn example_of_three_parties() {
        let words = |words: &str| -> BTreeSet<u128> {
            words
                .split(' ')
                .map(|word| word.bytes().fold(0, |sum, b| sum << 8 | u128::from(b)))
                .collect()
        };
        check(&[
            words("car bicycle train cat dog"),
            words("train car e-car cat computer"),
            words("car bicycle train cat dog computer"),
        ]);
    }

    #[test]
    fn empty_sets_and_empty_intersections() {
        check(&[range(0..0), range(0..9)]);
        check(&[range(0..9), range(0..0)]);
        check(&[range(0..0), range(0..0), range(0..0)]);
        check(&[range(0..9), range(9..18)]);
        check(&[range(0..9), range(0..9), range(9..18)]);
        check(&[range(0..100), range(99..200)]);
        check(&[BTreeSet::from([0, u128::MAX - 1]), BTreeSet::from([5, u128::MAX - 1])]);
    }

    #[test]
    fn fewer_than_two_sets() {
        assert_eq!(intersect(Vec::new()).map(|bitmaps| bitmaps.len()), Ok(0));
        assert_eq!(intersect(vec![received(0..9)]).expect("memory")[0].count_ones(), 9);
    }

    #[test]
    fn sets_of_many_blocks_of_every_number() {
        let block = BLOCK as u128;
        for (first, second) in [
            (block, block),
            (block - 1, block + 1),
            (3 * block, 2 * block + 7),
            (block / 3, 9 * block),
            (12 * block + 5, 11 * block + 1),
        ] {
            check(&[spread(0..first), spread(first / 2..first / 2 + second)]);
        }
    }

    #[test]
    fn runs_across_the_borders_of_blocks() {
        let block = BLOCK as u128;
        for parties in [2, 3, 5, 64] {
            let common = block + 3 * parties;
            let sets: Vec<_> = (0..parties)
                .map(|party| {
                    let mut set = range(0..common);
                    set.extend((0..party).map(|n| 1 << 80 | party << 8 | n));
                    set
                })
                .collect();
            check(&sets);
        }
    }

    #[test]
    fn sixty_four_parties() {
        let parties: Vec<BTreeSet<u128>> =
            (0..64).map(|party| (0..2000).filter(|key| key % 67 != party).collect()).collect();
        check(&parties);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn equals_the_ideal(
            parties in proptest::collection::vec(
                proptest::collection::btree_set(0u128..60, 0..60), 2..=8),
        ) {
            check(&parties);
        }

        #[test]
        fn equals_the_ideal_with_much_in_common(
            common in proptest::collection::btree_set(0..u128::MAX, 0..100),
            own in proptest::collection::vec(
                proptest::collection::btree_set(0..u128::MAX, 0..100), 2..=8),
        ) {
            let parties: Vec<_> =
                own.iter().map(|own| own.union(&common).copied().collect()).collect();
            check(&parties);
        }

        #[test]
        fn equals_the_ideal_with_sets_of_many_sizes(
            sizes in proptest::collection::vec((0u128..20_000, 0u128..20_000), 2..=5),
        ) {
            let parties: Vec<_> =
                sizes.iter().map(|(from, length)| spread(*from..from + length)).collect();
            check(&parties);
        }
    }
}
