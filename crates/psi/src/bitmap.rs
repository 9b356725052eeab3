//! One bit per rank of a set: which of a party's pseudonyms are in the result.

use std::fmt;

use subtle::Choice;
use zeroize::Zeroize;

/// One bit for every rank `0..n` of a [`PseudonymSet`](crate::PseudonymSet).
///
/// Rank `i` is bit `i % 8`, least significant first, of byte `i / 8`. On the wire it always has
/// `n.div_ceil(8)` bytes, whatever the result, and its padding bits are zero. Wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Bitmap {
    length: usize,
    bytes: Vec<u8>,
}

/// Why bytes are not the bitmap of a set of the given size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BitmapError {
    /// The number of bytes does not fit the size of the set.
    #[error(
        "a bitmap over {bits} keys has {found} bytes, expected {expected}: the sender means another \
         set"
    )]
    Length {
        /// Size of the set.
        bits: usize,
        /// Bytes that arrived.
        found: usize,
        /// Bytes that such a bitmap has.
        expected: usize,
    },
    /// A bit beyond the last rank is set.
    #[error(
        "a bitmap over {bits} keys has a bit set beyond its end: the sender's encoding is wrong"
    )]
    Padding {
        /// Size of the set.
        bits: usize,
    },
}

impl Bitmap {
    /// A bitmap over `n` ranks with no bit set.
    pub fn new(n: usize) -> Self {
        Self { length: n, bytes: vec![0; n.div_ceil(8)] }
    }

    /// Reads a bitmap over `n` ranks in its wire form.
    ///
    /// # Errors
    /// If the length is not `n.div_ceil(8)` or a padding bit is set.
    pub fn from_bytes(n: usize, bytes: Vec<u8>) -> Result<Self, BitmapError> {
        let bitmap = Self { length: n, bytes };
        let (found, expected) = (bitmap.bytes.len(), n.div_ceil(8));
        if found != expected {
            return Err(BitmapError::Length { bits: n, found, expected });
        }
        if !n.is_multiple_of(8) && bitmap.bytes[expected - 1] >> (n % 8) != 0 {
            return Err(BitmapError::Padding { bits: n });
        }
        Ok(bitmap)
    }

    /// Takes its bits from these words, least significant first. There must be enough of them.
    pub(crate) fn copy_words(&mut self, words: &[u64]) {
        for (bytes, word) in self.bytes.chunks_mut(8).zip(words) {
            bytes.copy_from_slice(&word.to_le_bytes()[..bytes.len()]);
        }
    }

    /// Number of ranks.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether it is a bitmap over the empty set.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Sets the bit of `rank`.
    ///
    /// # Panics
    /// If `rank` is not below [`Bitmap::len`].
    pub fn set(&mut self, rank: usize) {
        assert!(rank < self.length, "rank {rank} of a bitmap over {} keys", self.length);
        self.bytes[rank / 8] |= 1 << (rank % 8);
    }

    /// Clears the bit of `rank`.
    ///
    /// # Panics
    /// If `rank` is not below [`Bitmap::len`].
    pub fn clear(&mut self, rank: usize) {
        assert!(rank < self.length, "rank {rank} of a bitmap over {} keys", self.length);
        self.bytes[rank / 8] &= !(1 << (rank % 8));
    }

    /// Like [`Bitmap::set`] if it is `wanted`; otherwise does nothing. There is no branch on which
    /// of the two it is, so there is nothing for a processor to predict.
    pub(crate) fn set_if(&mut self, rank: usize, wanted: bool) {
        assert!(rank < self.length, "rank {rank} of a bitmap over {} keys", self.length);
        self.bytes[rank / 8] |= u8::from(wanted) << (rank % 8);
    }

    /// Clears all bits unless they are `wanted`, with the same work either way.
    pub(crate) fn keep_if(&mut self, wanted: Choice) {
        let mask = wanted.unwrap_u8().wrapping_neg();
        self.bytes.iter_mut().for_each(|byte| *byte &= mask);
    }

    /// Whether the bit of `rank` is set.
    ///
    /// # Panics
    /// If `rank` is not below [`Bitmap::len`].
    pub fn is_set(&self, rank: usize) -> bool {
        assert!(rank < self.length, "rank {rank} of a bitmap over {} keys", self.length);
        self.bytes[rank / 8] >> (rank % 8) & 1 == 1
    }

    /// Number of set bits.
    pub fn count_ones(&self) -> u64 {
        let (words, rest) = self.bytes.as_chunks::<8>();
        words.iter().map(|word| u64::from(u64::from_le_bytes(*word).count_ones())).sum::<u64>()
            + rest.iter().map(|byte| u64::from(byte.count_ones())).sum::<u64>()
    }

    /// The wire form.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Bitmap {
    fn drop(&mut self) {
        self.bytes.zeroize();
    }
}

impl fmt::Debug for Bitmap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bitmap").field("length", &self.length).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bit_order_is_least_significant_first() {
        let mut bitmap = Bitmap::new(10);
        bitmap.set(0);
        bitmap.set(3);
        bitmap.set(9);
        assert_eq!(bitmap.as_bytes(), [0b0000_1001, 0b0000_0010]);
    }

    #[test]
    fn bitmap_of_the_empty_set_has_no_bytes() {
        assert_eq!(Bitmap::new(0).as_bytes(), [0u8; 0]);
        assert_eq!(Bitmap::from_bytes(0, Vec::new()).unwrap().count_ones(), 0);
        assert_eq!(
            Bitmap::from_bytes(0, vec![0]),
            Err(BitmapError::Length { bits: 0, found: 1, expected: 0 })
        );
    }

    #[test]
    fn bit_in_the_padding_is_refused() {
        assert_eq!(Bitmap::from_bytes(9, vec![0xff, 0b10]), Err(BitmapError::Padding { bits: 9 }));
        assert!(Bitmap::from_bytes(9, vec![0xff, 0b01]).is_ok());
    }

    proptest! {
        #[test]
        fn codec_round_trip(bits in proptest::collection::vec(any::<bool>(), 0..300)) {
            let mut bitmap = Bitmap::new(bits.len());
            for (rank, _) in bits.iter().enumerate().filter(|(_, bit)| **bit) {
                bitmap.set(rank);
            }
            prop_assert_eq!(bitmap.as_bytes().len(), bits.len().div_ceil(8));
            let read = Bitmap::from_bytes(bits.len(), bitmap.as_bytes().to_vec()).unwrap();
            prop_assert!(read == bitmap);
            for (rank, bit) in bits.iter().enumerate() {
                prop_assert_eq!(read.is_set(rank), *bit);
            }
            prop_assert_eq!(read.count_ones(), bits.iter().filter(|bit| **bit).count() as u64);
        }

        #[test]
        fn any_bytes_are_refused_or_read_exactly(
            n in 0usize..40,
            bytes in proptest::collection::vec(any::<u8>(), 0..6),
        ) {
            if let Ok(bitmap) = Bitmap::from_bytes(n, bytes.clone()) {
                prop_assert_eq!(bitmap.as_bytes(), &bytes[..]);
                let counted = (0..n).filter(|rank| bitmap.is_set(*rank)).count() as u64;
                prop_assert_eq!(bitmap.count_ones(), counted);
            }
        }
    }
}
