//! Records in blocks.

use std::hint::black_box;

use memmap2::MmapMut;
use zeroize::Zeroize;

/// Records in a block: 128 KiB, so that what is compared within a block stays in a core's cache.
pub(crate) const BLOCK: usize = 1 << 13;

/// A fixed number of fingerprints in two arrays, the high and the low 64 bits of each, with the
/// topmost bit of both inverted: vector units compare signed numbers. Wiped when dropped.
///
/// What follows the last record of a list in its last block is [`Block::PADDING`]. The memory is
/// the system's, not an allocator's: it is given back when the block is dropped.
pub(crate) struct Block(MmapMut);

/// The high and the low halves of a block's records.
pub(crate) type Halves<T> = (T, T);

impl Block {
    /// Sorts behind every fingerprint; none is equal to it.
    pub(crate) const PADDING: u128 = u128::MAX;

    /// A block of padding, or nothing where there is no memory for it.
    pub(crate) fn try_new() -> Option<Self> {
        let mut block = Self(MmapMut::map_anon(2 * BLOCK * size_of::<i64>()).ok()?);
        let (high, low) = block.halves_mut();
        high.fill(i64::MAX);
        low.fill(i64::MAX);
        Some(block)
    }

    pub(crate) fn halves(&self) -> Halves<&[i64; BLOCK]> {
        let words: &[[i64; BLOCK]] = bytemuck::cast_slice(&self.0);
        (&words[0], &words[1])
    }

    pub(crate) fn halves_mut(&mut self) -> Halves<&mut [i64; BLOCK]> {
        let words: &mut [[i64; BLOCK]] = bytemuck::cast_slice_mut(&mut self.0);
        let (high, low) = words.split_at_mut(1);
        (&mut high[0], &mut low[0])
    }

    /// The fingerprint at this place.
    pub(crate) fn get(&self, at: usize) -> u128 {
        let (high, low) = self.halves();
        let half = |word: i64| u128::from((word ^ i64::MIN).cast_unsigned());
        half(high[at]) << 64 | half(low[at])
    }

    /// Turns the order of the records round.
    pub(crate) fn reverse(&mut self) {
        let (high, low) = self.halves_mut();
        high.reverse();
        low.reverse();
    }
}

/// A fingerprint's halves as a block holds them.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "two halves")]
pub(crate) fn halves_of(value: u128) -> Halves<i64> {
    ((value >> 64) as i64 ^ i64::MIN, value as i64 ^ i64::MIN)
}

impl Drop for Block {
    fn drop(&mut self) {
        let (high, low) = self.halves_mut();
        high.zeroize();
        low.zeroize();
    }
}

/// Overwrites what calls that have returned left on this thread's stack: records for which registers
/// had no room.
#[inline(never)]
pub(crate) fn wipe_stack() {
    let mut stack = [0u64; 1 << 11];
    black_box(&mut stack).zeroize();
}
