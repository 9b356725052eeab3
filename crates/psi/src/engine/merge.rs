//! Two sorted lists become one, and what is known about the records of that one goes back to the
//! two.
//!
//! A bitonic merge (Batcher, AFIPS 1968) of any number of blocks: a falling list and a rising one,
//! read as one, followed by padding up to the next power of two. Padding is never exchanged, so
//! comparators with it are left out. What is compared with what depends only on the number of
//! blocks. Whether a comparator exchanged its records is kept as one bit; with these bits, one bit
//! per record is led back through the network.

use rayon::prelude::*;
use zeroize::Zeroize as _;

use super::block::{BLOCK, Block, Blocks, Extent, Words, reverse};
use super::lanes::{Lanes, TILE, TILE_LEVELS, Unit, Work, exchange_among};

/// Words of 64 bits for one bit per record of a block.
pub(super) const WORDS: usize = BLOCK / TILE;

/// Levels of comparators for which a pass has registers.
const LEVELS_IN_REGISTERS: u32 = 3;

/// Levels between blocks that one pass over memory does, except the last pass.
const LEVELS_AT_ONCE: u32 = 6;

/// Levels between blocks of the last pass over memory, which continues within each block: this many
/// levels combine blocks to 1 MiB, which stays in a core's second cache.
const LAST_LEVELS: u32 = 3;

/// Levels between the tiles of a block.
const LEVELS_WITHIN: u32 = WORDS.trailing_zeros();

/// Words for what the comparators between the tiles of a block did.
const BETWEEN_TILES: usize = LEVELS_WITHIN as usize * WORDS / 2;

/// Words for what all comparators within a block did: those between its tiles, and then one word a
/// level for each tile.
const WITHIN: usize = BETWEEN_TILES + WORDS * TILE_LEVELS;

/// A sorted list: the blocks of some sets, each with its padding, in the order of the sets or in
/// reverse.
pub(super) struct List(Vec<(Extent, Order)>);

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    Forwards,
    Backwards,
}

impl Order {
    /// The blocks of an extent in this order.
    pub(super) fn blocks_of(self, extent: &mut Extent) -> impl Iterator<Item = &mut Block> {
        let (forwards, backwards) = match self {
            Self::Forwards => (Some(extent.begun_mut()), None),
            Self::Backwards => (None, Some(extent.begun_mut())),
        };
        let backwards = backwards.into_iter().flat_map(|blocks| blocks.iter_mut().rev());
        forwards.into_iter().flatten().chain(backwards)
    }
}

impl List {
    pub(super) fn of(set: Option<Blocks>) -> Self {
        let extents = set.into_iter().flat_map(Blocks::into_extents);
        Self(extents.map(|extent| (extent, Order::Forwards)).collect())
    }

    /// Number of blocks.
    pub(super) fn len(&self) -> usize {
        self.0.iter().map(|(extent, _)| extent.begun()).sum()
    }

    pub(super) fn into_extents(self) -> Vec<(Extent, Order)> {
        self.0
    }

    fn blocks_mut(&mut self) -> Vec<&mut Block> {
        let mut all = Vec::with_capacity(self.len());
        self.0.iter_mut().for_each(|(extent, order)| all.extend(order.blocks_of(extent)));
        all
    }

    /// Reverses the order of the blocks, but not the order within them.
    fn reverse_blocks(&mut self) {
        self.0.reverse();
        for (_, order) in &mut self.0 {
            *order = match order {
                Order::Forwards => Order::Backwards,
                Order::Backwards => Order::Forwards,
            };
        }
    }
}

/// What the comparators of one merge did. It says how the two lists interleave, and is as secret as
/// they are. Wiped when dropped, part by part.
///
/// It grows with the sets, so its memory comes from the system, as theirs does.
pub(super) struct Exchanges {
    blocks: usize,
    left: usize,
    /// Of comparators between blocks: for each of the [`passes`], those of one of its [`groups`] after
    /// the other.
    between: Vec<Words>,
    /// Of comparators within a block, one block after the other.
    within: Words,
}

/// Merges two ascending lists. None if the system has no memory for what leads back.
pub(super) fn merge(unit: Unit, mut left: List, mut right: List) -> Option<(List, Exchanges)> {
    left.reverse_blocks();
    let lefts = left.len();
    left.0.append(&mut right.0);
    let mut list = left;
    let mut blocks = list.blocks_mut();
    let count = blocks.len();
    let passes = passes(count);
    let mut between = Vec::new();
    let mut within = Words::try_new(count * WITHIN)?;
    for (number, &pass) in passes.iter().enumerate() {
        let groups = groups(&mut blocks, pass);
        let mut exchanged = Words::try_new(groups.iter().map(|group| words_of(group.len())).sum())?;
        let places = places(&mut exchanged, groups.iter().map(|group| words_of(group.len())));
        let last = number + 1 == passes.len();
        // Elsewhere, nothing is done within a block.
        let each = if last { WITHIN } else { 0 };
        let inner = self::places(&mut within, groups.iter().map(|group| each * group.len()));
        let work = groups.into_par_iter().zip(places).zip(inner).with_min_len(alone(count));
        work.enumerate().for_each(|(at, ((group, exchanged), within))| {
            let mut group: Vec<&mut Block> = group.into_iter().map(|block| &mut **block).collect();
            if number == 0 {
                // The members of the group are blocks `at`, `at` + stride and so on.
                let lefts = lefts.saturating_sub(at).div_ceil(pass.stride);
                group.iter_mut().take(lefts).for_each(|block| reverse(block));
            }
            unit.run(BetweenBlocks { blocks: &mut group, exchanged });
            if last {
                let blocks = group.into_par_iter().zip(within.par_chunks_mut(WITHIN));
                let blocks = blocks.with_min_len(alone(count));
                blocks.for_each(|(block, exchanged)| unit.run(WithinBlock { block, exchanged }));
            }
        });
        between.push(exchanged);
    }
    let exchanges = Exchanges { blocks: count, left: lefts, between, within };
    Some((list, exchanges))
}

/// Words for what all comparators between this many blocks did.
fn words_of(blocks: usize) -> usize {
    WORDS * comparators_of(blocks).len()
}

/// Consecutive parts of these lengths.
fn places(words: &mut Words, lengths: impl Iterator<Item = usize>) -> Vec<&mut [u64]> {
    let mut rest = words.all_mut();
    lengths.map(|length| rest.split_off_mut(..length).expect("room for all")).collect()
}

impl Exchanges {
    /// Takes one bit per record of the merged list back to the two lists; returns those of the left
    /// list first. What the comparators did is wiped right after use.
    pub(super) fn undo(mut self, bits: &mut [u64]) -> (&mut [u64], &mut [u64]) {
        assert_eq!(bits.len(), self.blocks * WORDS, "one bit per record");
        let between_tiles = comparators_of(WORDS);
        let alone = alone(self.blocks);
        bits.par_chunks_mut(WORDS)
            .zip(self.within.all_mut().par_chunks_mut(WITHIN))
            .with_min_len(alone)
            .for_each(|(bits, within)| {
                undo_within(&between_tiles, bits, within);
                within.zeroize();
            });
        self.within.are_wiped();
        drop(self.within);
        for (pass, mut exchanged) in passes(self.blocks).into_iter().zip(self.between).rev() {
            let mut blocks: Vec<&mut [u64]> = bits.chunks_mut(WORDS).collect();
            let groups = groups(&mut blocks, pass);
            let places = places(&mut exchanged, groups.iter().map(|group| words_of(group.len())));
            let work = groups.into_par_iter().zip(places).with_min_len(alone);
            work.for_each(|(group, exchanged)| {
                undo_between(group.into_iter().map(|block| &mut **block).collect(), exchanged);
                exchanged.zeroize();
            });
            exchanged.are_wiped();
        }
        let (left, right) = bits.split_at_mut(self.left * WORDS);
        left.reverse();
        for word in left.iter_mut() {
            *word = word.reverse_bits();
        }
        (left, right)
    }
}

/// The least share of the work on this many blocks that one thread does: all of it, if waking
/// another thread would take as long as that thread could save.
pub(super) fn alone(blocks: usize) -> usize {
    if blocks <= FEW_BLOCKS { blocks } else { 1 }
}

/// 262,144 records.
const FEW_BLOCKS: usize = 32;

/// Levels of comparators among members that are a stride apart.
#[derive(Clone, Copy)]
struct Stride {
    stride: usize,
    members: usize,
}

/// The passes over this many blocks, longest distances first. There is at least one.
fn passes(blocks: usize) -> Vec<Stride> {
    let levels = blocks.next_power_of_two().trailing_zeros();
    let last = levels.min(LAST_LEVELS);
    let mut passes = strides(levels - last, LEVELS_AT_ONCE);
    for pass in &mut passes {
        pass.stride <<= last;
    }
    passes.push(Stride { stride: 1, members: 1 << last });
    passes
}

/// Splits this many levels into as few steps of at most `at_once` as possible, of about equal size.
fn strides(mut levels: u32, at_once: u32) -> Vec<Stride> {
    let steps = levels.div_ceil(at_once);
    let widest_first = (1..=steps).rev().map(|left| {
        let here = levels.div_ceil(left);
        levels -= here;
        Stride { stride: 1 << levels, members: 1 << here }
    });
    widest_first.collect()
}

/// The blocks that one pass compares with one another. The last group may have fewer members.
fn groups<T>(blocks: &mut [T], pass: Stride) -> Vec<Vec<&mut T>> {
    let mut groups = Vec::new();
    for span in blocks.chunks_mut(pass.stride * pass.members) {
        let mut rows: Vec<_> = span.chunks_mut(pass.stride).map(<[T]>::iter_mut).collect();
        let count = rows.first().map_or(0, ExactSizeIterator::len);
        groups.extend((0..count).map(|_| rows.iter_mut().filter_map(Iterator::next).collect()));
    }
    groups
}

/// Up to eight members of a pass, which fit into registers together: every `step`th one starting at
/// `first`.
#[derive(Clone, Copy)]
struct Few {
    first: usize,
    step: usize,
    members: usize,
}

impl Few {
    /// In this order they do all levels among this many members.
    fn of(members: usize) -> Vec<Self> {
        let mut few = Vec::new();
        let levels = members.next_power_of_two().trailing_zeros();
        for Stride { stride: step, members: at_most } in strides(levels, LEVELS_IN_REGISTERS) {
            for span in (0..members).step_by(step * at_most) {
                let end = members.min(span + step * at_most);
                few.extend((span..end.min(span + step)).map(|first| Self {
                    first,
                    step,
                    members: (end - first).div_ceil(step),
                }));
            }
        }
        few
    }

    /// The comparators among them: (lower, upper), in the order of [`exchange_among`].
    fn comparators(self) -> impl Iterator<Item = (usize, usize)> {
        let place = move |member| self.first + member * self.step;
        [4, 2, 1].into_iter().flat_map(move |step| {
            (0..self.members.saturating_sub(step))
                .filter(move |lower| lower & step == 0)
                .map(move |lower| (place(lower), place(lower + step)))
        })
    }

    fn places<const MEMBERS: usize>(self) -> [usize; MEMBERS] {
        std::array::from_fn(|at| self.first + at * self.step)
    }
}

/// All comparators among this many members, in the order of [`Few::of`].
fn comparators_of(members: usize) -> Vec<(usize, usize)> {
    Few::of(members).into_iter().flat_map(Few::comparators).collect()
}

/// All comparators between these blocks. Notes for each of them one bit per record: for each of the
/// [`Few`] and each of its comparators, the words of a block.
struct BetweenBlocks<'a, 'b> {
    blocks: &'a mut [&'b mut Block],
    exchanged: &'a mut [u64],
}

impl Work for BetweenBlocks<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with<L: Lanes>(self, lanes: L) {
        let Self { blocks, exchanged } = self;
        let all = Few::of(blocks.len());
        // So few records of each block, 1 KiB, that those of all blocks stay in a core's own
        // caches.
        for tile in 0..WORDS {
            let mut rest = &mut *exchanged;
            for few in &all {
                let (words, others) = rest.split_at_mut(few.comparators().count() * WORDS);
                rest = others;
                match few.members {
                    2 => between::<L, 2>(lanes, blocks, *few, tile, words),
                    3 => between::<L, 3>(lanes, blocks, *few, tile, words),
                    4 => between::<L, 4>(lanes, blocks, *few, tile, words),
                    5 => between::<L, 5>(lanes, blocks, *few, tile, words),
                    6 => between::<L, 6>(lanes, blocks, *few, tile, words),
                    7 => between::<L, 7>(lanes, blocks, *few, tile, words),
                    8 => between::<L, 8>(lanes, blocks, *few, tile, words),
                    _ => {}
                }
            }
        }
    }
}

#[inline(always)]
fn between<L: Lanes, const MEMBERS: usize>(
    lanes: L,
    blocks: &mut [&mut Block],
    few: Few,
    tile: usize,
    exchanged: &mut [u64],
) {
    let Ok(blocks) = blocks.get_disjoint_mut::<_, MEMBERS>(few.places()) else { return };
    let tiles = blocks.map(|block| block.each_mut().map(|half| &mut half.as_chunks_mut().0[tile]));
    let words = exchange_among(lanes, tiles);
    for (row, word) in exchanged.chunks_exact_mut(WORDS).zip(words) {
        row[tile] = word;
    }
}

/// All comparators within a block. Notes what they did as [`WITHIN`] says.
struct WithinBlock<'a> {
    block: &'a mut Block,
    exchanged: &'a mut [u64],
}

impl Work for WithinBlock<'_> {
    type Output = ();

    #[inline(always)]
    fn with<L: Lanes>(self, lanes: L) {
        let [high, low] = self.block.each_mut().map(|half| half.as_chunks_mut().0);
        let (mut rest, tiles) = self.exchanged.split_at_mut(BETWEEN_TILES);
        for few in Few::of(WORDS) {
            let (words, others) = rest.split_at_mut(few.comparators().count());
            rest = others;
            match few.members {
                2 => between_tiles_of::<L, 2>(lanes, high, low, few, words),
                4 => between_tiles_of::<L, 4>(lanes, high, low, few, words),
                8 => between_tiles_of::<L, 8>(lanes, high, low, few, words),
                _ => {}
            }
        }
        for ((high, low), levels) in high.iter_mut().zip(low).zip(tiles.as_chunks_mut().0) {
            *levels = lanes.tile(high, low);
        }
    }
}

#[inline(always)]
fn between_tiles_of<L: Lanes, const MEMBERS: usize>(
    lanes: L,
    high: &mut [[i64; TILE]],
    low: &mut [[i64; TILE]],
    few: Few,
    exchanged: &mut [u64],
) {
    let Ok(high) = high.get_disjoint_mut::<_, MEMBERS>(few.places()) else { return };
    let Ok(low) = low.get_disjoint_mut::<_, MEMBERS>(few.places()) else { return };
    let mut low = low.into_iter();
    let tiles = high.map(|high| [high, low.next().expect("there are as many")]);
    exchanged.copy_from_slice(&exchange_among(lanes, tiles)[..exchanged.len()]);
}

/// The way back through the comparators within a block; `between_tiles` are those between its tiles.
fn undo_within(between_tiles: &[(usize, usize)], bits: &mut [u64], exchanged: &[u64]) {
    let (between, tiles) = exchanged.split_at(BETWEEN_TILES);
    for (word, levels) in bits.iter_mut().zip(tiles.as_chunks::<TILE_LEVELS>().0) {
        for (level, exchanged) in levels.iter().enumerate().rev() {
            let distance = TILE >> (level + 1);
            let moved = (*word ^ *word >> distance) & exchanged;
            *word ^= moved | moved << distance;
        }
    }
    for (&(lower, upper), exchanged) in between_tiles.iter().zip(between).rev() {
        let moved = (bits[lower] ^ bits[upper]) & exchanged;
        bits[lower] ^= moved;
        bits[upper] ^= moved;
    }
}

/// The way back through the comparators between blocks.
fn undo_between(mut blocks: Vec<&mut [u64]>, exchanged: &[u64]) {
    let comparators = comparators_of(blocks.len());
    for ((lower, upper), row) in comparators.into_iter().zip(exchanged.chunks_exact(WORDS)).rev() {
        let (below, above) = blocks.split_at_mut(upper);
        for ((a, b), exchanged) in below[lower].iter_mut().zip(&mut *above[0]).zip(row) {
            let moved = (*a ^ *b) & exchanged;
            *a ^= moved;
            *b ^= moved;
        }
    }
}
