//! Items as rows of the linear system, sorted by bin.

use std::ops::Range;

use aes::Aes128;
use aes::cipher::{Array, BlockCipherEncrypt, KeyInit};
use zeroize::Zeroizing;

use super::{DENSE, Parameters, Seed, TooMany};

/// Items that are hashed at once.
const BATCH: usize = 64;

/// Items as rows, sorted by bin. Both directions and all ranges of bins share it: 20 bytes an item.
pub struct Rows {
    parameters: Parameters,
    /// Where the rows of each bin begin, and the end of all.
    starts: Vec<u32>,
    /// The item of each row.
    items: Zeroizing<Vec<u32>>,
    /// What its columns follow from, and its dense bits.
    hashes: Zeroizing<Vec<[u64; 2]>>,
}

/// Row of a bin: the fractions that its columns follow from.
#[derive(Clone, Copy)]
pub(super) struct Row {
    columns: u64,
    dense: u64,
}

impl Row {
    /// Three distinct sparse columns, below `sparse`.
    #[inline]
    pub(super) fn columns(self, sparse: usize) -> [u16; 3] {
        let sparse = sparse as u64;
        let (a, rest) = scaled(self.columns, sparse);
        let (b, rest) = scaled(rest, sparse - 1);
        let (c, _) = scaled(rest, sparse - 2);
        let b = b + u64::from(b >= a);
        let c = c + u64::from(c >= a.min(b));
        let c = c + u64::from(c >= a.max(b));
        #[expect(clippy::cast_possible_truncation, reason = "there are at most 2^16 columns")]
        let columns = [a as u16, b as u16, c as u16];
        columns
    }

    /// One bit for each dense column.
    #[inline]
    pub(super) fn dense(self) -> u64 {
        self.dense >> (64 - DENSE)
    }

    /// Equal for equal items.
    pub(super) fn identity(self) -> (u64, u64) {
        (self.columns, self.dense)
    }
}

/// The fraction of a range: whole part and fraction.
#[expect(clippy::cast_possible_truncation, reason = "the halves of the product")]
#[inline]
fn scaled(fraction: u64, range: u64) -> (u64, u64) {
    let product = u128::from(fraction) * u128::from(range);
    ((product >> 64) as u64, product as u64)
}

impl Rows {
    /// Hashes the items and sorts them by bin. Their number need not be the one that the
    /// parameters are for.
    ///
    /// # Errors
    /// If there are more than [`Parameters::MOST_ITEMS`].
    pub fn new(parameters: &Parameters, seed: &Seed, items: &[u128]) -> Result<Self, TooMany> {
        if items.len() > Parameters::MOST_ITEMS {
            return Err(TooMany { items: items.len() });
        }
        let aes = Aes128::new(seed.into());
        let bins = parameters.bins() as u64;
        let bin = |place: u64| -> (usize, u64) {
            let (bin, fraction) = scaled(place, bins);
            #[expect(clippy::cast_possible_truncation, reason = "below the number of bins")]
            (bin as usize, fraction)
        };

        // Hashed twice, which costs less than to keep all hashes.
        let mut starts = vec![0; parameters.bins() + 1];
        if parameters.bins() == 1 {
            starts[1] = index(items.len());
        } else {
            hash_each(&aes, items, |_, [_, place]| starts[1 + bin(place).0] += 1);
        }
        for bin in 0..parameters.bins() {
            starts[bin + 1] += starts[bin];
        }
        let mut next = starts.clone();
        let mut of_rows = Zeroizing::new(vec![0; items.len()]);
        let mut hashes = Zeroizing::new(vec![[0; 2]; items.len()]);
        hash_each(&aes, items, |item, [columns, place]| {
            let (bin, dense) = bin(place);
            let row = next[bin] as usize;
            next[bin] += 1;
            of_rows[row] = index(item);
            hashes[row] = [columns, dense];
        });
        Ok(Self { parameters: *parameters, starts, items: of_rows, hashes })
    }

    /// The parameters that they were made for.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// The number of rows, one for each item.
    pub fn len(&self) -> usize {
        self.hashes.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    /// Where the rows of these bins are among all rows.
    ///
    /// # Panics
    /// If there are not so many bins.
    pub fn range(&self, bins: &Range<usize>) -> Range<usize> {
        self.starts[bins.start] as usize..self.starts[bins.end] as usize
    }

    /// The indices of the items, in the order of rows. Take the part that [`Rows::range`] names.
    pub fn items(&self) -> &[u32] {
        &self.items
    }

    /// The rows of one bin.
    pub(super) fn bin(&self, bin: usize) -> impl ExactSizeIterator<Item = Row> + Clone + '_ {
        let hashes = &self.hashes[self.range(&(bin..bin + 1))];
        hashes.iter().map(|&[columns, dense]| Row { columns, dense })
    }
}

/// An index of an item.
fn index(of: usize) -> u32 {
    u32::try_from(of).expect("there are at most 2^28 items")
}

/// Calls back for each item with its index and hash, lower half first: AES in the mode of Matyas,
/// Meyer and Oseas.
#[inline]
fn hash_each(aes: &Aes128, items: &[u128], mut each: impl FnMut(usize, [u64; 2])) {
    let mut blocks = Zeroizing::new([[0; 16]; BATCH]);
    for (batch, items) in items.chunks(BATCH).enumerate() {
        let blocks = &mut blocks[..items.len()];
        for (block, item) in blocks.iter_mut().zip(items) {
            *block = item.to_le_bytes();
        }
        aes.encrypt_blocks(Array::cast_slice_from_core_mut(blocks));
        for (at, (block, item)) in blocks.iter().zip(items).enumerate() {
            let hash = u128::from_le_bytes(*block) ^ item;
            #[expect(clippy::cast_possible_truncation, reason = "its halves")]
            each(batch * BATCH + at, [hash as u64, (hash >> 64) as u64]);
        }
    }
}
