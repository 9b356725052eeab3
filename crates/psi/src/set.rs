//! Sets of fingerprints: built at a party, received at the service.
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
        FingerprintSet { values: std::mem::take(&mut self.sorted), sha256: None }
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
    sha256: Option<[u8; 32]>,
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
            Ok(Self { values, sha256: None })
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

    /// The position of `fingerprint`, if it is in the set.
    pub fn rank(&self, fingerprint: Fingerprint) -> Option<usize> {
        self.values.binary_search(&fingerprint).ok()
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
        self.sha256.unwrap_or_else(|| {
            let mut hash = Sha256::new();
            for mut chunk in self.chunks(64 * 1024) {
                hash.update(&chunk);
                chunk.zeroize();
            }
            hash.finalize().into()
        })
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

/// Receives the form on the wire of a set whose size the sender has declared.
///
/// Memory is 16 bytes per declared fingerprint, claimed at once when the first chunk comes, so that
/// nothing is moved and left behind while the set grows. Whoever calls [`SetReceiver::new`] has
/// compared the declared size with the job's cap and its own budget. Wiped when dropped.
pub struct SetReceiver {
    values: Vec<Fingerprint>,
    declared: u64,
    hash: Sha256,
    broken: bool,
}

/// Why what a party sent is not the set it declared. Never carries a fingerprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SetError {
    /// A chunk is empty or ends inside a fingerprint.
    #[error(
        "a chunk of {bytes} bytes arrived, required is a nonzero multiple of 16: the sender's \
         encoding is wrong"
    )]
    ChunkLength {
        /// Bytes in the chunk.
        bytes: usize,
    },
    /// More fingerprints than declared.
    #[error(
        "{received} fingerprints or more arrived, {declared} were declared: the sender must \
         declare the size of its set"
    )]
    TooMany {
        /// What the sender declared.
        declared: u64,
        /// What would be there with the chunk that was refused.
        received: u64,
    },
    /// Fewer fingerprints than declared when the sender said it was done.
    #[error("{received} fingerprints arrived, {declared} were declared: the upload is incomplete")]
    TooFew {
        /// What the sender declared.
        declared: u64,
        /// What arrived.
        received: u64,
    },
    /// Not strictly ascending.
    #[error(
        "fingerprints are not strictly ascending within the first {received}: the sender must \
         sort them and remove repetitions"
    )]
    Unsorted {
        /// How many had arrived when it was noticed.
        received: u64,
    },
    /// There is no memory for a set of the declared size.
    #[error("there is no memory for the {declared} fingerprints that were declared")]
    Memory {
        /// What the sender declared.
        declared: u64,
    },
    /// The set was refused before and more of it arrived.
    #[error("this set was refused already: begin a new upload")]
    Refused,
}

impl SetReceiver {
    /// Expects a set of exactly `declared` fingerprints.
    pub fn new(declared: u64) -> Self {
        Self { values: Vec::new(), declared, hash: Sha256::new(), broken: false }
    }

    /// Takes the next piece of the form on the wire, at any whole number of fingerprints.
    ///
    /// # Errors
    /// If the piece does not continue a strictly ascending set of the declared size. The set is
    /// refused from then on.
    pub fn push_chunk(&mut self, bytes: &[u8]) -> Result<(), SetError> {
        if self.broken {
            return Err(SetError::Refused);
        }
        let result = self.append(bytes);
        self.broken = result.is_err();
        result
    }

    /// Number of fingerprints received so far.
    pub fn received(&self) -> u64 {
        self.values.len() as u64
    }

    /// Number of fingerprints declared.
    pub fn declared(&self) -> u64 {
        self.declared
    }

    /// SHA-256 over everything received so far.
    pub fn sha256(&self) -> [u8; 32] {
        self.hash.clone().finalize().into()
    }

    /// The set, complete.
    ///
    /// # Errors
    /// If fewer fingerprints than declared have arrived or a piece was refused.
    pub fn finish(mut self) -> Result<FingerprintSet, SetError> {
        if self.broken {
            return Err(SetError::Refused);
        }
        let received = self.received();
        if received < self.declared {
            return Err(SetError::TooFew { declared: self.declared, received });
        }
        let sha256 = Some(self.sha256());
        Ok(FingerprintSet { values: std::mem::take(&mut self.values), sha256 })
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), SetError> {
        let (chunk, rest) = bytes.as_chunks::<FINGERPRINT_BYTES>();
        if chunk.is_empty() || !rest.is_empty() {
            return Err(SetError::ChunkLength { bytes: bytes.len() });
        }
        let received = self.received() + chunk.len() as u64;
        if received > self.declared {
            return Err(SetError::TooMany { declared: self.declared, received });
        }
        if self.values.capacity() == 0 {
            let declared = usize::try_from(self.declared).unwrap_or(usize::MAX);
            let reserved = self.values.try_reserve_exact(declared);
            reserved.map_err(|_| SetError::Memory { declared: self.declared })?;
        }
        let mut ascending = true;
        let mut last = self.values.last().copied();
        for value in chunk {
            let value = Fingerprint::from_be_bytes(*value);
            ascending &= last < Some(value);
            last = Some(value);
            self.values.push(value);
        }
        if !ascending {
            return Err(SetError::Unsorted { received });
        }
        self.hash.update(bytes);
        Ok(())
    }
}

impl Drop for SetReceiver {
    fn drop(&mut self) {
        self.values.zeroize();
    }
}

impl fmt::Debug for SetReceiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SetReceiver")
            .field("received", &self.received())
            .field("declared", &self.declared)
            .finish_non_exhaustive()
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

    fn wire(set: &FingerprintSet) -> Vec<u8> {
        set.chunks(64).flatten().collect()
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
        assert_eq!(set.rank(5.into()), Some(1));
        assert_eq!(set.rank(9.into()), Some(2));
        assert_eq!(set.rank(4.into()), None);
    }

    #[test]
    fn repeated_and_unsorted_are_refused() {
        let values = |values: &[u128]| values.iter().map(|v| Fingerprint::from(*v)).collect();
        assert_eq!(FingerprintSet::from_sorted(values(&[1, 1])).err(), Some(Unsorted));
        assert_eq!(FingerprintSet::from_sorted(values(&[2, 1])).err(), Some(Unsorted));
    }

    #[test]
    fn receiver_of_an_empty_set() {
        let set = SetReceiver::new(0).finish().expect("empty is ordinary");
        assert!(set.is_empty());
        assert_eq!(set.sha256(), <[u8; 32]>::from(Sha256::digest(b"")));
    }

    #[test]
    fn receiver_refuses_odd_and_empty_chunks() {
        for length in [0, 1, 15, 17] {
            let error = SetReceiver::new(9).push_chunk(&vec![1; length]).unwrap_err();
            assert_eq!(error, SetError::ChunkLength { bytes: length });
        }
    }

    #[test]
    fn receiver_refuses_disorder_within_and_across_chunks() {
        let bytes = |value: u128| value.to_be_bytes();
        let mut within = SetReceiver::new(3);
        assert_eq!(
            within.push_chunk(&[bytes(2), bytes(2)].concat()),
            Err(SetError::Unsorted { received: 2 })
        );
        assert_eq!(within.push_chunk(&bytes(7)), Err(SetError::Refused));
        assert_eq!(within.finish().err(), Some(SetError::Refused));

        let mut across = SetReceiver::new(3);
        across.push_chunk(&[bytes(2), bytes(9)].concat()).expect("ascending");
        assert_eq!(across.push_chunk(&bytes(5)), Err(SetError::Unsorted { received: 3 }));
    }

    #[test]
    fn receiver_refuses_more_and_less_than_declared() {
        let mut receiver = SetReceiver::new(1);
        let two = [1u128.to_be_bytes(), 2u128.to_be_bytes()].concat();
        assert_eq!(receiver.push_chunk(&two), Err(SetError::TooMany { declared: 1, received: 2 }));

        let mut receiver = SetReceiver::new(3);
        receiver.push_chunk(&two).expect("ascending");
        assert_eq!(receiver.finish().err(), Some(SetError::TooFew { declared: 3, received: 2 }));
    }

    #[test]
    fn declaring_alone_reserves_nothing_and_what_cannot_be_had_is_refused() {
        let mut receiver = SetReceiver::new(u64::MAX);
        assert_eq!(receiver.values.capacity(), 0);
        let refused = Err(SetError::Memory { declared: u64::MAX });
        assert_eq!(receiver.push_chunk(&[7; 16]), refused);
        assert_eq!(receiver.values.capacity(), 0);
    }

    #[test]
    fn receiver_memory_is_bounded_by_the_declared_size() {
        let mut receiver = SetReceiver::new(1000);
        for value in 0u128..1000 {
            receiver.push_chunk(&value.to_be_bytes()).expect("ascending");
            assert_eq!(receiver.values.capacity(), 1000, "claimed once, never moved");
        }
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

        #[test]
        fn receiver_takes_any_chunking(
            values in proptest::collection::btree_set(any::<u128>(), 0..200),
            cuts in proptest::collection::vec(1usize..40, 1..60),
        ) {
            let sent = set(&values.iter().copied().collect::<Vec<_>>());
            let bytes = wire(&sent);
            let mut receiver = SetReceiver::new(sent.len() as u64);
            let mut rest = &bytes[..];
            let mut cuts = cuts.iter().cycle();
            while !rest.is_empty() {
                let cut = (cuts.next().expect("cycle") * 16).min(rest.len());
                receiver.push_chunk(&rest[..cut]).unwrap();
                rest = &rest[cut..];
            }
            let received = receiver.finish().unwrap();
            prop_assert!(received.as_slice() == sent.as_slice());
            prop_assert_eq!(received.sha256(), sent.sha256());
            prop_assert_eq!(received.sha256(), <[u8; 32]>::from(Sha256::digest(&bytes)));
        }
    }
}
