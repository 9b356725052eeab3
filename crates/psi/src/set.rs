//! Sets of fingerprints, as a party builds them.
//!
//! A set is strictly ascending. Its form on the wire is the fingerprints in that order, 16 bytes
//! big-endian each, so that the order of the numbers is the order of the bytes. The position of a
//! fingerprint in its set is its rank; results travel as a [`Bitmap`](crate::Bitmap) over ranks.

use std::fmt;

use sha2::{Digest, Sha256};
use zeroize::Zeroize;

use crate::keys::{FINGERPRINT_BYTES, Fingerprint};
use crate::limits::SET_BUILDER_TAIL;

/// Collects fingerprints in any order, with repetitions, into a [`FingerprintSet`].
///
/// Memory: 16 bytes per distinct fingerprint and a constant. What is sorted and distinct so far
/// stands in one vector; new fingerprints wait in a tail of at most [`SET_BUILDER_TAIL`] and are
/// merged into it in place when the tail is full. Wiped when dropped.
pub struct SetBuilder {
    sorted: Vec<Fingerprint>,
    tail: Vec<Fingerprint>,
    tail_limit: usize,
}

impl SetBuilder {
    /// An empty builder.
    pub fn new() -> Self {
        Self::with_tail(SET_BUILDER_TAIL)
    }

    /// An empty builder that merges whenever `limit` fingerprints (at least one) have come
    /// together.
    pub fn with_tail(limit: usize) -> Self {
        Self { sorted: Vec::new(), tail: Vec::new(), tail_limit: limit.max(1) }
    }

    /// Adds a fingerprint; one that is there already changes nothing.
    pub fn push(&mut self, fingerprint: Fingerprint) {
        if self.tail.len() >= self.tail_limit {
            self.merge();
        } else if self.tail.len() == self.tail.capacity() {
            let capacity = (self.tail.capacity() * 2).max(1024).min(self.tail_limit);
            grow(&mut self.tail, capacity);
        }
        self.tail.push(fingerprint);
    }

    /// The set of everything pushed.
    pub fn finish(mut self) -> FingerprintSet {
        self.merge();
        FingerprintSet { values: std::mem::take(&mut self.sorted) }
    }

    /// Empties the tail into the sorted part: what is new moves in from the back, so that no
    /// second vector is needed.
    fn merge(&mut self) {
        self.tail.sort_unstable();
        self.tail.dedup();
        drop_known(&self.sorted, &mut self.tail);
        let known = self.sorted.len();
        let total = known + self.tail.len();
        grow(&mut self.sorted, total);
        self.sorted.resize(total, Fingerprint::default());
        let (mut left, mut right) = (known, self.tail.len());
        for slot in (0..total).rev() {
            if right == 0 {
                break;
            }
            self.sorted[slot] = if left > 0 && self.sorted[left - 1] > self.tail[right - 1] {
                left -= 1;
                self.sorted[left]
            } else {
                right -= 1;
                self.tail[right]
            };
        }
        self.tail.clear();
    }
}

impl Default for SetBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for SetBuilder {
    fn drop(&mut self) {
        self.sorted.zeroize();
        self.tail.zeroize();
    }
}

impl fmt::Debug for SetBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SetBuilder").finish_non_exhaustive()
    }
}

/// A strictly ascending sequence of fingerprints. Wiped when dropped.
pub struct FingerprintSet {
    values: Vec<Fingerprint>,
}

/// A sequence of fingerprints was not strictly ascending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("fingerprints are not strictly ascending: sort them and remove repetitions")]
pub struct Unsorted;

impl FingerprintSet {
    /// Takes fingerprints that are strictly ascending already.
    ///
    /// # Errors
    /// If they are not. The vector is wiped then.
    pub fn from_sorted(mut values: Vec<Fingerprint>) -> Result<Self, Unsorted> {
        if values.is_sorted_by(|a, b| a < b) {
            Ok(Self { values })
        } else {
            values.zeroize();
            Err(Unsorted)
        }
    }

    /// Number of fingerprints.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// An index for many searches, half a byte to a byte for each fingerprint.
    pub fn ranks(&self) -> Ranks<'_> {
        Ranks::new(&self.values)
    }

    /// The fingerprints in ascending order.
    pub fn as_slice(&self) -> &[Fingerprint] {
        &self.values
    }

    /// The form on the wire in pieces of at most `max_bytes` (taken as at least one fingerprint),
    /// each a whole number of fingerprints. The empty set has no piece.
    pub fn chunks(&self, max_bytes: usize) -> impl Iterator<Item = Vec<u8>> + '_ {
        let per_chunk = (max_bytes / FINGERPRINT_BYTES).max(1);
        self.values.chunks(per_chunk).map(|chunk| {
            let mut bytes = Vec::with_capacity(chunk.len() * FINGERPRINT_BYTES);
            for value in chunk {
                bytes.extend_from_slice(&value.to_be_bytes());
            }
            bytes
        })
    }

    /// SHA-256 over the form on the wire.
    pub fn sha256(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        for mut chunk in self.chunks(64 * 1024) {
            hash.update(&chunk);
            chunk.zeroize();
        }
        hash.finalize().into()
    }
}

impl Drop for FingerprintSet {
    fn drop(&mut self) {
        self.values.zeroize();
    }
}

impl fmt::Debug for FingerprintSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FingerprintSet").field("len", &self.len()).finish_non_exhaustive()
    }
}

/// Finds the rank of a fingerprint in a set.
///
/// Fingerprints are as good as random, so that the first bits of one say where it stands, to within a
/// few places; other numbers are found as well, but not faster than by bisection.
pub struct Ranks<'a> {
    values: &'a [Fingerprint],
    /// Where the fingerprints begin whose first bits are these or greater.
    starts: Vec<u32>,
}

impl<'a> Ranks<'a> {
    /// Fingerprints that have the same first bits, on average.
    const TOGETHER: usize = 8;

    fn new(values: &'a [Fingerprint]) -> Self {
        // A set of more than 2^32 is searched by bisection alone.
        let small = u32::try_from(values.len()).is_ok();
        let count = if small { values.len() / Self::TOGETHER + 1 } else { 1 };
        let mut ranks = Self { values, starts: Vec::with_capacity(count) };
        ranks.starts.push(0);
        if count > 1 {
            for (at, value) in (0u32..).zip(values) {
                let bucket = Self::bucket(*value, count);
                while ranks.starts.len() <= bucket {
                    ranks.starts.push(at);
                }
            }
        }
        let end = u32::try_from(values.len()).unwrap_or(u32::MAX);
        ranks.starts.resize(count, end);
        ranks
    }

    /// The position of `fingerprint`, if it is in the set.
    pub fn of(&self, fingerprint: Fingerprint) -> Option<usize> {
        let bucket = Self::bucket(fingerprint, self.starts.len());
        let start = self.starts[bucket] as usize;
        let end = self.starts.get(bucket + 1).map_or(self.values.len(), |end| *end as usize);
        let found = self.values[start..end].binary_search(&fingerprint).ok()?;
        Some(start + found)
    }

    fn bucket(value: Fingerprint, count: usize) -> usize {
        let first_bits = value.to_u128() >> 64;
        usize::try_from((first_bits * count as u128) >> 64).expect("it is below count")
    }
}

/// Vectors up to this many fingerprints (64 MiB) are grown by copy and wipe.
const COPY_AND_WIPE: usize = 4 * 1024 * 1024;

/// Raises the capacity of `values` to exactly `capacity`.
///
/// A small vector is copied and the old memory wiped. A large one is left to the allocator, which
/// on the platforms we build for moves the pages of a block of that size (`mremap`) and so neither
/// holds it twice nor leaves a copy behind.
fn grow(values: &mut Vec<Fingerprint>, capacity: usize) {
    if capacity <= values.capacity() {
        return;
    }
    if values.len() <= COPY_AND_WIPE {
        let mut larger = Vec::with_capacity(capacity);
        larger.extend_from_slice(values);
        let mut smaller = std::mem::replace(values, larger);
        smaller.zeroize();
    } else {
        values.reserve_exact(capacity - values.len());
    }
}

/// Removes from the ascending `new` what the ascending `known` holds, by one scan of both.
fn drop_known(known: &[Fingerprint], new: &mut Vec<Fingerprint>) {
    let Some(first) = new.first() else { return };
    let mut at = known.partition_point(|value| value < first);
    new.retain(|value| {
        while at < known.len() && known[at] < *value {
            at += 1;
        }
        at >= known.len() || known[at] != *value
    });
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn set(values: &[u128]) -> FingerprintSet {
        let values = values.iter().map(|value| Fingerprint::from(*value)).collect();
        FingerprintSet::from_sorted(values).expect("ascending")
    }

    #[test]
    fn wire_form_is_big_endian_and_chunks_hold_whole_fingerprints() {
        let set = set(&[1, 0x0102, u128::MAX]);
        let chunks: Vec<_> = set.chunks(40).collect();
        assert_eq!(chunks.iter().map(Vec::len).collect::<Vec<_>>(), [32, 16]);
        assert_eq!(chunks[0][14..], [0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(chunks[1], [0xff; 16]);
        assert_eq!(set.chunks(0).count(), 3);
        assert_eq!(self::set(&[]).chunks(1024).count(), 0);
    }

    #[test]
    fn rank_is_the_position_on_the_wire() {
        let set = set(&[3, 5, 9]);
        let ranks = set.ranks();
        assert_eq!(ranks.of(5.into()), Some(1));
        assert_eq!(ranks.of(9.into()), Some(2));
        assert_eq!(ranks.of(4.into()), None);
        assert_eq!(self::set(&[]).ranks().of(4.into()), None);
    }

    #[test]
    fn repeated_and_unsorted_are_refused() {
        let values = |values: &[u128]| values.iter().map(|v| Fingerprint::from(*v)).collect();
        assert_eq!(FingerprintSet::from_sorted(values(&[1, 1])).err(), Some(Unsorted));
        assert_eq!(FingerprintSet::from_sorted(values(&[2, 1])).err(), Some(Unsorted));
    }

    #[test]
    fn debug_shows_no_fingerprint() {
        let set = set(&[0xdead_beef]);
        assert_eq!(format!("{set:?}"), "FingerprintSet { len: 1, .. }");
    }

    #[test]
    fn builder_with_a_tail_that_grows_and_fills() {
        let values = (0u64..20_000).map(|i| u128::from(i.wrapping_mul(0x9e37_79b9) % 15_000));
        let mut builder = SetBuilder::with_tail(5000);
        for value in values.clone() {
            builder.push(value.into());
            assert!(builder.tail.capacity() <= 5000);
        }
        let built = builder.finish();
        let expected: Vec<_> = values.collect::<BTreeSet<_>>().into_iter().collect();
        assert!(built.as_slice() == set(&expected).as_slice());
    }

    proptest! {
        #[test]
        fn ranks_of_small_and_of_spread_numbers(
            values in proptest::collection::btree_set(
                prop_oneof![any::<u128>(), 0u128..300, Just(u128::MAX)], 0..300),
            others in proptest::collection::vec(any::<u128>(), 20),
        ) {
            let values: Vec<u128> = values.into_iter().collect();
            let set = set(&values);
            let ranks = set.ranks();
            for (rank, value) in values.iter().enumerate() {
                prop_assert_eq!(ranks.of((*value).into()), Some(rank));
            }
            for other in others {
                let expected = values.binary_search(&other).ok();
                prop_assert_eq!(ranks.of(other.into()), expected);
            }
        }

        #[test]
        fn builder_equals_ordered_set(
            values in proptest::collection::vec(0u128..500, 0..600),
            tail in 0usize..40,
        ) {
            let mut builder = SetBuilder::with_tail(tail);
            for value in &values {
                builder.push(Fingerprint::from(*value));
            }
            let built: Vec<u128> =
                builder.finish().as_slice().iter().map(|value| value.to_u128()).collect();
            let expected: Vec<u128> =
                values.iter().copied().collect::<BTreeSet<_>>().into_iter().collect();
            prop_assert_eq!(built, expected);
        }
    }
}
