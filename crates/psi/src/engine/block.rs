//! Records in blocks.

use std::hint::black_box;

use memmap2::MmapMut;
use zeroize::Zeroize;

/// Records in a block: 128 KiB, so that comparisons within a block stay in a core's cache.
pub(crate) const BLOCK: usize = 1 << 13;

/// A fixed number of pseudonyms in two arrays, the high and the low 64 bits of each, as
/// [`halves_of`] makes them.
pub(crate) type Block = [[i64; BLOCK]; 2];

/// Sorts after every pseudonym; none is equal to it.
pub(crate) const PADDING: u128 = u128::MAX;

/// A pseudonym's high and low half, with the topmost bit of both inverted: vector units compare
/// signed numbers.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "two halves")]
pub(crate) fn halves_of(value: u128) -> [i64; 2] {
    [(value >> 64) as i64 ^ i64::MIN, value as i64 ^ i64::MIN]
}

/// Blocks for a list of known length, with [`PADDING`] after the last record. Wiped when dropped.
pub(crate) struct Blocks {
    extents: Vec<Extent>,
    begun: usize,
}

/// Blocks of one extent, 8 MiB: few extents, because each costs the system some time, but several,
/// because the system takes one back while others are being processed.
const EXTENT: usize = 64;

/// Consecutive blocks. Those in use are wiped when it is dropped.
///
/// The memory comes from the system, not from an allocator: it is claimed as blocks are begun, and
/// given back when this is dropped.
pub(super) struct Extent {
    memory: MmapMut,
    begun: usize,
}

impl Blocks {
    /// Room for this many records, none of it claimed yet; none if the system refuses.
    pub(crate) fn try_new(records: u64) -> Option<Self> {
        let mut left = usize::try_from(records.div_ceil(BLOCK as u64)).ok()?;
        let mut extents = Vec::new();
        extents.try_reserve_exact(left.div_ceil(EXTENT)).ok()?;
        while left > 0 {
            let blocks = left.min(EXTENT);
            let memory = MmapMut::map_anon(blocks * size_of::<Block>()).ok()?;
            extents.push(Extent { memory, begun: 0 });
            left -= blocks;
        }
        Some(Self { extents, begun: 0 })
    }

    /// The pseudonym at this position.
    pub(crate) fn get(&self, at: usize) -> u128 {
        let (block, at) = (at / BLOCK, at % BLOCK);
        let blocks: &[Block] = bytemuck::cast_slice(&self.extents[block / EXTENT].memory);
        let [high, low] = &blocks[block % EXTENT];
        let half = |word: i64| u128::from((word ^ i64::MIN).cast_unsigned());
        half(high[at]) << 64 | half(low[at])
    }

    /// The block at this position, which must be one of those in use or the next.
    ///
    /// # Panics
    /// If it is any other, or there is no room.
    pub(crate) fn block_mut(&mut self, at: usize) -> &mut Block {
        assert!(at <= self.begun, "blocks are begun in their order");
        let is_last_extent = at / EXTENT + 1 == self.extents.len();
        let extent = &mut self.extents[at / EXTENT];
        if at == self.begun {
            extent.begin(is_last_extent);
            self.begun += 1;
        }
        &mut extent.begun_mut()[at % EXTENT]
    }

    /// How many blocks are in use.
    #[cfg(test)]
    pub(crate) fn begun(&self) -> usize {
        self.begun
    }

    /// The extents that are in use.
    pub(super) fn into_extents(self) -> impl Iterator<Item = Extent> {
        self.extents.into_iter().filter(|extent| extent.begun > 0)
    }
}

impl Extent {
    /// How many blocks are in use.
    pub(super) fn begun(&self) -> usize {
        self.begun
    }

    /// The blocks that are in use.
    pub(super) fn begun_mut(&mut self) -> &mut [Block] {
        &mut bytemuck::cast_slice_mut(&mut self.memory)[..self.begun]
    }

    /// Notes that the caller has wiped them, so that it is not done twice.
    pub(super) fn are_wiped(&mut self) {
        self.begun = 0;
    }

    /// Begins the next block. The very last one has padding.
    fn begin(&mut self, is_last_extent: bool) {
        let at = self.begun;
        #[cfg(target_os = "linux")]
        claim(&self.memory, at);
        self.begun += 1;
        let blocks: &mut [Block] = bytemuck::cast_slice_mut(&mut self.memory);
        if is_last_extent && self.begun == blocks.len() {
            blocks[at].as_flattened_mut().fill(i64::MAX);
        }
    }
}

impl Drop for Extent {
    fn drop(&mut self) {
        self.begun_mut().iter_mut().for_each(wipe);
    }
}

/// Words of memory from the system, all zero at first. Wiped when dropped.
pub(super) struct Words {
    /// None for no words.
    memory: Option<MmapMut>,
    wiped: bool,
}

impl Words {
    /// This many; none if the system refuses.
    pub(super) fn try_new(words: usize) -> Option<Self> {
        if words == 0 {
            return Some(Self { memory: None, wiped: true });
        }
        let memory = MmapMut::map_anon(words.checked_mul(size_of::<u64>())?).ok()?;
        #[cfg(target_os = "linux")]
        let _ = memory.advise(memmap2::Advice::PopulateWrite);
        Some(Self { memory: Some(memory), wiped: false })
    }

    /// All of them.
    pub(super) fn all_mut(&mut self) -> &mut [u64] {
        self.memory.as_mut().map(|memory| bytemuck::cast_slice_mut(memory)).unwrap_or_default()
    }

    /// Notes that the caller has wiped them, so that it is not done twice.
    pub(super) fn are_wiped(&mut self) {
        self.wiped = true;
    }
}

impl Drop for Words {
    fn drop(&mut self) {
        if !self.wiped {
            self.all_mut().zeroize();
        }
    }
}

/// Claims the memory of a block at once: page by page, as it is touched, would cost twice as much.
/// Older systems refuse, and then it is claimed page by page.
#[cfg(target_os = "linux")]
fn claim(mapping: &MmapMut, block: usize) {
    let length = size_of::<Block>();
    let _ = mapping.advise_range(memmap2::Advice::PopulateWrite, block * length, length);
}

/// Reverses the order of the records.
pub(super) fn reverse(block: &mut Block) {
    for half in block {
        half.reverse();
    }
}

pub(super) fn wipe(block: &mut Block) {
    block.as_flattened_mut().zeroize();
}

/// Overwrites what returned calls left on this many words of this thread's stack: records for which
/// there were not enough registers.
#[inline(never)]
pub(crate) fn wipe_stack<const WORDS: usize>() {
    let mut stack = [0u64; WORDS];
    black_box(&mut stack).zeroize();
}
