//! Records in blocks.

use std::hint::black_box;

use memmap2::MmapMut;
use zeroize::Zeroize;

/// Records in a block: 128 KiB, so that what is compared within a block stays in a core's cache.
pub(crate) const BLOCK: usize = 1 << 13;

/// A fixed number of fingerprints in two arrays, the high and the low 64 bits of each, as
/// [`halves_of`] makes them.
pub(crate) type Block = [[i64; BLOCK]; 2];

/// Sorts behind every fingerprint; none is equal to it.
pub(crate) const PADDING: u128 = u128::MAX;

/// A fingerprint's high and low half, with the topmost bit of both inverted: vector units compare
/// signed numbers.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "two halves")]
pub(crate) fn halves_of(value: u128) -> [i64; 2] {
    [(value >> 64) as i64 ^ i64::MIN, value as i64 ^ i64::MIN]
}

/// Blocks for a list of known length, behind whose last record there is [`PADDING`]. Wiped when
/// dropped.
///
/// The memory is the system's, not an allocator's: it is claimed as blocks are begun, and given back when
/// this is dropped.
pub(crate) struct Blocks {
    memory: MmapMut,
    begun: usize,
}

impl Blocks {
    /// Room for so many records, none of it claimed yet, or nothing where the system refuses it.
    pub(crate) fn try_new(records: u64) -> Option<Self> {
        let blocks = usize::try_from(records.div_ceil(BLOCK as u64)).ok()?;
        let memory = MmapMut::map_anon(blocks.checked_mul(size_of::<Block>())?).ok()?;
        Some(Self { memory, begun: 0 })
    }

    /// The fingerprint at this place.
    pub(crate) fn get(&self, at: usize) -> u128 {
        let [high, low] = &self.begun()[at / BLOCK];
        let half = |word: i64| u128::from((word ^ i64::MIN).cast_unsigned());
        half(high[at % BLOCK]) << 64 | half(low[at % BLOCK])
    }

    /// The blocks that are in use.
    pub(crate) fn begun(&self) -> &[Block] {
        &bytemuck::cast_slice(&self.memory)[..self.begun]
    }

    /// The blocks that are in use.
    pub(super) fn begun_mut(&mut self) -> &mut [Block] {
        &mut bytemuck::cast_slice_mut(&mut self.memory)[..self.begun]
    }

    /// The block at this place, which is one of those in use or the next.
    ///
    /// # Panics
    /// If it is another one, or there is no room for it.
    pub(crate) fn block_mut(&mut self, at: usize) -> &mut Block {
        assert!(at <= self.begun, "blocks are begun in their order");
        let begins = at == self.begun;
        #[cfg(target_os = "linux")]
        if begins {
            self.claim(at);
        }
        let blocks: &mut [Block] = bytemuck::cast_slice_mut(&mut self.memory);
        let last = at + 1 == blocks.len();
        let block = &mut blocks[at];
        if begins {
            self.begun += 1;
            if last {
                block.as_flattened_mut().fill(i64::MAX);
            }
        }
        block
    }

    /// Claims the memory of a block at once: page by page, as it is touched, costs twice as much. Older
    /// systems refuse, and then it comes like that.
    #[cfg(target_os = "linux")]
    fn claim(&self, at: usize) {
        let length = size_of::<Block>();
        let _ = self.memory.advise_range(memmap2::Advice::PopulateWrite, at * length, length);
    }

    /// Said by whoever has wiped them, so that it is not done twice.
    pub(super) fn are_wiped(&mut self) {
        self.begun = 0;
    }
}

impl Drop for Blocks {
    fn drop(&mut self) {
        self.begun_mut().iter_mut().for_each(wipe);
    }
}

/// Turns the order of the records round.
pub(super) fn reverse(block: &mut Block) {
    for half in block {
        half.reverse();
    }
}

pub(super) fn wipe(block: &mut Block) {
    block.as_flattened_mut().zeroize();
}

/// Overwrites what calls that have returned left on so many words of this thread's stack: records for
/// which registers had no room.
#[inline(never)]
pub(crate) fn wipe_stack<const WORDS: usize>() {
    let mut stack = [0u64; WORDS];
    black_box(&mut stack).zeroize();
}
