//! Tags: short hashes by which two parties find the items that both have.
//!
//! A tag has 40 bits more than the logarithms of both sets' sizes together, so that the probability
//! that any two different items get the same tag is at most 2^-40.

use std::cmp::Ordering;

/// Statistical security: the logarithm of the probability of a wrong result.
const STATISTICAL_BITS: u32 = 40;

/// The most items that a side may have; a tag then takes 96 bits.
pub const MAXIMUM_ITEMS: usize = 1 << 28;

/// Bits of an index.
const INDEX_BITS: u32 = 32;

/// Items of a bucket, before it is sorted.
const BUCKET_ITEMS: usize = 64;

/// The most buckets: more would no longer fit into the processor's cache when they are filled.
const MAXIMUM_BUCKETS: usize = 1 << 13;

/// A tag, in the upper 96 bits, and the index of the item that it is of.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Tagged(u128);

/// How many bytes the tags of two sets have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TagLength(usize);

impl TagLength {
    pub(crate) fn of(first: usize, second: usize) -> Self {
        let bits = |items: usize| items.max(1).next_power_of_two().ilog2();
        Self((STATISTICAL_BITS + bits(first) + bits(second)).div_ceil(8) as usize)
    }

    pub(crate) fn bytes(self) -> usize {
        self.0
    }

    /// The tag of an item, from a hash of it that is as good as random.
    pub(crate) fn tag(self, hash: u128, index: usize) -> Tagged {
        let kept = hash >> (128 - 8 * self.0) << (128 - 8 * self.0);
        Tagged(kept | index as u128)
    }

    /// Appends a tag without its index.
    pub(crate) fn write(self, tag: Tagged, message: &mut Vec<u8>) {
        message.extend(&tag.0.to_be_bytes()[..self.0]);
    }

    /// The tags in these bytes, with no indices.
    pub(crate) fn read(self, bytes: &[u8]) -> impl ExactSizeIterator<Item = Tagged> + '_ {
        bytes.chunks_exact(self.0).map(|bytes| {
            let mut tag = [0; 16];
            tag[..bytes.len()].copy_from_slice(bytes);
            Tagged(u128::from_be_bytes(tag))
        })
    }
}

impl Tagged {
    /// The same tag, of the item with this index.
    pub(crate) fn with_index(self, index: usize) -> Self {
        Self(self.0 >> INDEX_BITS << INDEX_BITS | index as u128)
    }

    pub(crate) fn index(self) -> usize {
        (self.0 & ((1 << INDEX_BITS) - 1)) as usize
    }

    /// By the tags alone.
    pub(crate) fn compare(self, other: Self) -> Ordering {
        (self.0 >> INDEX_BITS).cmp(&(other.0 >> INDEX_BITS))
    }
}

/// Sorts tags: first into buckets by their first bits, which are as good as random.
pub(crate) fn sort(tags: &mut Vec<Tagged>) {
    let buckets = (tags.len() / BUCKET_ITEMS).clamp(1, MAXIMUM_BUCKETS).next_power_of_two();
    if buckets == 1 {
        tags.sort_unstable();
        return;
    }
    let bucket = |tag: Tagged| (tag.0 >> (128 - buckets.ilog2())) as usize;
    let mut ends = vec![0_u32; buckets];
    for tag in &*tags {
        ends[bucket(*tag)] += 1;
    }
    let mut begun = 0;
    for end in &mut ends {
        (*end, begun) = (begun, begun + *end);
    }
    let mut sorted = vec![Tagged(0); tags.len()];
    for tag in tags.drain(..) {
        let next = &mut ends[bucket(tag)];
        sorted[*next as usize] = tag;
        *next += 1;
    }
    *tags = sorted;
    let mut rest = tags.as_mut_slice();
    let mut begun = 0;
    for end in ends {
        let (bucket, after) = rest.split_at_mut((end - begun) as usize);
        bucket.sort_unstable();
        (rest, begun) = (after, end);
    }
}
