//! Two sorted lists become one, and what is known of the records of the one goes back to the two.
//!
//! A bitonic merge (Batcher, AFIPS 1968) of any number of blocks: a list that falls and one that
//! rises, read as one, followed by padding up to the next power of two. Padding is never exchanged,
//! so that comparators with it are left out. What is compared with what depends on the number of
//! blocks alone. Whether a comparator exchanged its records is kept as one bit; by these bits one
//! bit a record is led back through the network.

use rayon::prelude::*;
use zeroize::{Zeroize, Zeroizing};

use super::block::{BLOCK, Block};
use super::lanes::{Lanes, Record, TILE, TILE_LEVELS, Unit, Work};

/// Words of 64 bits for one bit per record of a block.
pub(super) const WORDS: usize = BLOCK / 64;

/// Levels of comparators that one pass over memory does.
const LEVELS_AT_ONCE: u32 = 3;

/// What the comparators of one merge did. It says how the two lists interleave, and is as secret as
/// they are. Wiped when dropped.
pub(super) struct Exchanges {
    blocks: usize,
    left: usize,
    /// Of comparators between blocks: one per group, in the order of [`passes`] and [`groups`].
    between: Vec<Vec<Vec<u8>>>,
    /// Of comparators within a block, one per block.
    within: Vec<Within>,
}

/// Of the comparators within one block.
struct Within {
    /// Distances of 64 and more: one per group.
    groups: Vec<u8>,
    /// Smaller distances: one word a level, for each tile.
    tiles: Vec<[u64; TILE_LEVELS]>,
}

impl Drop for Exchanges {
    fn drop(&mut self) {
        self.between.iter_mut().flatten().for_each(Zeroize::zeroize);
        for block in &mut self.within {
            block.groups.zeroize();
            block.tiles.zeroize();
        }
    }
}

/// Merges two ascending lists, each with its padding.
pub(super) fn merge(
    unit: Unit,
    mut left: Vec<Block>,
    mut right: Vec<Block>,
) -> (Vec<Block>, Exchanges) {
    left.reverse();
    left.par_iter_mut().for_each(Block::reverse);
    let lefts = left.len();
    left.append(&mut right);
    let mut blocks = left;
    let mut between = Vec::new();
    for pass in passes(blocks.len()) {
        let done = groups(&mut blocks, pass).into_par_iter().map(|group| {
            let (high, low) = group
                .into_iter()
                .map(|block| {
                    let (high, low) = block.halves_mut();
                    (high.as_mut_slice(), low.as_mut_slice())
                })
                .unzip();
            unit.run(Pass { high, low })
        });
        between.push(done.collect());
    }
    let within = blocks.par_iter_mut().map(|block| unit.run(WithinBlock(block))).collect();
    let exchanges = Exchanges { blocks: blocks.len(), left: lefts, between, within };
    (blocks, exchanges)
}

impl Exchanges {
    /// Takes one bit per record of the merged list back to the two lists: `bits` keeps those of the
    /// left one, those of the right one are returned.
    pub(super) fn undo(&self, bits: &mut Vec<u64>) -> Zeroizing<Vec<u64>> {
        assert_eq!(bits.len(), self.blocks * WORDS, "one bit per record");
        bits.par_chunks_mut(WORDS).zip(&self.within).for_each(|(bits, within)| within.undo(bits));
        for (pass, exchanged) in passes(self.blocks).into_iter().zip(&self.between).rev() {
            let mut blocks: Vec<&mut [u64]> = bits.chunks_mut(WORDS).collect();
            groups(&mut blocks, pass).into_par_iter().zip(exchanged).for_each(
                |(group, exchanged)| {
                    undo_pass(group.into_iter().map(|block| &mut **block).collect(), exchanged);
                },
            );
        }
        let right = Zeroizing::new(bits[self.left * WORDS..].to_vec());
        bits[self.left * WORDS..].zeroize();
        bits.truncate(self.left * WORDS);
        bits.reverse();
        for word in bits.iter_mut() {
            *word = word.reverse_bits();
        }
        right
    }
}

/// One pass over all blocks: up to [`LEVELS_AT_ONCE`] levels among blocks that are a stride apart.
#[derive(Clone, Copy)]
struct Stride {
    stride: usize,
    members: usize,
}

/// The passes over so many blocks, widest distances first.
fn passes(blocks: usize) -> Vec<Stride> {
    let mut levels = blocks.next_power_of_two().trailing_zeros();
    let mut passes = Vec::new();
    while levels > 0 {
        let at_once = (levels - 1) % LEVELS_AT_ONCE + 1;
        levels -= at_once;
        passes.push(Stride { stride: 1 << levels, members: 1 << at_once });
    }
    passes
}

/// The blocks that one pass compares with each other. A group at the end has fewer members.
fn groups<T>(blocks: &mut [T], pass: Stride) -> Vec<Vec<&mut T>> {
    let mut groups = Vec::new();
    for span in blocks.chunks_mut(pass.stride * pass.members) {
        let mut rows: Vec<_> = span.chunks_mut(pass.stride).map(<[T]>::iter_mut).collect();
        let count = rows.first().map_or(0, ExactSizeIterator::len);
        groups.extend((0..count).map(|_| rows.iter_mut().filter_map(Iterator::next).collect()));
    }
    groups
}

/// The comparators among so many members: (lower, upper), widest distances first.
fn comparators(members: usize) -> impl DoubleEndedIterator<Item = (usize, usize)> + Clone {
    [4, 2, 1].into_iter().flat_map(move |step| {
        (0..members.saturating_sub(step))
            .filter(move |lower| lower & step == 0)
            .map(move |lower| (lower, lower + step))
    })
}

/// Compares members of equal length, record by record. Gives for each comparator one bit a record.
struct Pass<'a> {
    high: Vec<&'a mut [i64]>,
    low: Vec<&'a mut [i64]>,
}

impl Work for Pass<'_> {
    type Output = Vec<u8>;

    #[inline(always)]
    fn with<L: Lanes>(self, lanes: L) -> Vec<u8> {
        let length = self.high.first().map_or(0, |first| first.len());
        let mut exchanged = vec![0; comparators(self.high.len()).count() * length / 8];
        pass(lanes, self.high, self.low, &mut exchanged);
        exchanged
    }
}

#[inline(always)]
fn pass<L: Lanes>(lanes: L, high: Vec<&mut [i64]>, low: Vec<&mut [i64]>, exchanged: &mut [u8]) {
    match high.len() {
        2 => pass_of::<L, 2>(lanes, high, low, exchanged),
        3 => pass_of::<L, 3>(lanes, high, low, exchanged),
        4 => pass_of::<L, 4>(lanes, high, low, exchanged),
        5 => pass_of::<L, 5>(lanes, high, low, exchanged),
        6 => pass_of::<L, 6>(lanes, high, low, exchanged),
        7 => pass_of::<L, 7>(lanes, high, low, exchanged),
        8 => pass_of::<L, 8>(lanes, high, low, exchanged),
        _ => {}
    }
}

#[inline(always)]
fn pass_of<L: Lanes, const MEMBERS: usize>(
    lanes: L,
    high: Vec<&mut [i64]>,
    low: Vec<&mut [i64]>,
    exchanged: &mut [u8],
) {
    let Ok(high) = <[&mut [i64]; MEMBERS]>::try_from(high) else { return };
    let Ok(low) = <[&mut [i64]; MEMBERS]>::try_from(low) else { return };
    let length = high[0].len();
    let row = length / 8;
    for at in (0..length).step_by(8) {
        let mut bits = [0u8; 12];
        for from in (at..at + 8).step_by(L::WIDTH) {
            let mut records = [Record::load(lanes, &high[0][from..], &low[0][from..]); MEMBERS];
            for member in 1..MEMBERS {
                records[member] = Record::load(lanes, &high[member][from..], &low[member][from..]);
            }
            let mut comparator = 0;
            for step in [4, 2, 1] {
                for lower in 0..MEMBERS {
                    if lower & step == 0 && lower + step < MEMBERS {
                        let (mut a, mut b) = (records[lower], records[lower + step]);
                        bits[comparator] |= lanes.exchange(&mut a, &mut b) << (from - at);
                        (records[lower], records[lower + step]) = (a, b);
                        comparator += 1;
                    }
                }
            }
            for member in 0..MEMBERS {
                records[member].store(lanes, &mut high[member][from..], &mut low[member][from..]);
            }
        }
        for (row, bits) in exchanged.chunks_exact_mut(row).zip(bits) {
            row[at / 8] = bits;
        }
    }
}

/// The way back of [`pass`] for one bit a record.
fn undo_pass(mut members: Vec<&mut [u64]>, exchanged: &[u8]) {
    let length = members.first().map_or(0, |first| first.len());
    // A group of one has no comparators, and nothing is 0 bytes long.
    let rows = exchanged.chunks_exact((length * 8).max(1)).rev();
    for ((lower, upper), row) in comparators(members.len()).rev().zip(rows) {
        let (below, above) = members.split_at_mut(upper);
        let masks = row.as_chunks::<8>().0;
        for ((a, b), mask) in below[lower].iter_mut().zip(&mut *above[0]).zip(masks) {
            let moved = (*a ^ *b) & u64::from_le_bytes(*mask);
            *a ^= moved;
            *b ^= moved;
        }
    }
}

/// All comparators within a block.
struct WithinBlock<'a>(&'a mut Block);

/// Passes over a block until [`TILE`] is left: (members, distance between them).
const PASSES: [(usize, usize); 3] = [(2, BLOCK / 2), (8, BLOCK / 16), (8, TILE)];

impl Work for WithinBlock<'_> {
    type Output = Within;

    #[inline(always)]
    fn with<L: Lanes>(self, lanes: L) -> Within {
        let (high, low) = self.0.halves_mut();
        let levels = (BLOCK / TILE).trailing_zeros() as usize;
        let mut groups = vec![0; levels * BLOCK / 16];
        let mut rest = groups.as_mut_slice();
        for (members, distance) in PASSES {
            let spans = high.chunks_mut(members * distance).zip(low.chunks_mut(members * distance));
            for (high, low) in spans {
                let count = comparators(members).count() * distance / 8;
                let (exchanged, others) = rest.split_at_mut(count);
                rest = others;
                let high = high.chunks_mut(distance).collect();
                let low = low.chunks_mut(distance).collect();
                pass(lanes, high, low, exchanged);
            }
        }
        let (high, low) = (high.as_chunks_mut::<TILE>().0, low.as_chunks_mut::<TILE>().0);
        let mut tiles = Vec::with_capacity(high.len());
        for (high, low) in high.iter_mut().zip(low) {
            tiles.push(lanes.tile(high, low));
        }
        Within { groups, tiles }
    }
}

impl Within {
    fn undo(&self, bits: &mut [u64]) {
        for (word, levels) in bits.iter_mut().zip(&self.tiles) {
            for (level, exchanged) in levels.iter().enumerate().rev() {
                let distance = TILE >> (level + 1);
                let moved = (*word ^ *word >> distance) & exchanged;
                *word ^= moved | moved << distance;
            }
        }
        let mut rest = self.groups.as_slice();
        for (members, distance) in PASSES.into_iter().rev() {
            for span in bits.chunks_mut(members * distance / 64).rev() {
                let count = comparators(members).count() * distance / 8;
                let (others, exchanged) = rest.split_at(rest.len() - count);
                rest = others;
                undo_pass(span.chunks_mut(distance / 64).collect(), exchanged);
            }
        }
    }
}
