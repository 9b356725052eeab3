//! Sums of the entries that rows name.

use std::ops::Range;

use rayon::prelude::*;
use thiserror::Error;
use zeroize::Zeroizing;

use super::{DENSE, Rows, Scratch, TooMany, Value, exist};

/// Dense columns that are looked up together.
const LOOKUP: usize = 8;

/// Why nothing was decoded.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// More items than a table can have.
    #[error(transparent)]
    TooMany(#[from] TooMany),
    /// The table has another length than its parameters say.
    #[error("{found} entries, and the bins have {expected}")]
    Table {
        /// How many there are.
        found: usize,
        /// How many there should be.
        expected: usize,
    },
    /// There is not one place for each value.
    #[error("places for {found} values, and there are {expected}")]
    Out {
        /// How many there are.
        found: usize,
        /// How many there should be.
        expected: usize,
    },
    /// Not all of the bins exist.
    #[error("bins up to {end}, and there are {bins}")]
    Bins {
        /// The end of the range.
        end: usize,
        /// How many there are.
        bins: usize,
    },
}

impl Rows {
    /// Decodes all items, into `out` in their order.
    ///
    /// # Errors
    /// If the table has not the size that the parameters say, or `out` not one place for each item.
    pub fn decode<V: Value>(&self, table: &[V], out: &mut [V]) -> Result<(), DecodeError> {
        let parameters = self.parameters();
        check(table.len(), parameters.size(), out.len(), self.len())?;
        // Some bins at a time, so that memory does not grow with their number.
        let mut values = Scratch::default();
        let group = rayon::current_num_threads();
        for start in (0..parameters.bins()).step_by(group) {
            let bins = start..(start + group).min(parameters.bins());
            let rows = self.range(&bins);
            let longest = values.len().max(rows.len());
            values.resize(longest, V::zeroed());
            let values = &mut values[..rows.len()];
            self.decode_bins(bins.clone(), &table[parameters.entries(&bins)], values)?;
            for (item, value) in self.items()[rows].iter().zip(values) {
                out[*item as usize] = *value;
            }
        }
        Ok(())
    }

    /// Decodes the items of some bins, into `out` in the order of their rows. `table` is the part
    /// that [`Parameters::entries`](super::Parameters::entries) names, and `out` as long as
    /// [`Rows::range`].
    ///
    /// # Errors
    /// If one of them has another length, or not all bins exist.
    pub fn decode_bins<V: Value>(
        &self,
        bins: Range<usize>,
        table: &[V],
        out: &mut [V],
    ) -> Result<(), DecodeError> {
        let parameters = self.parameters();
        if !exist(&bins, parameters) {
            return Err(DecodeError::Bins { end: bins.end, bins: parameters.bins() });
        }
        check(table.len(), parameters.entries(&bins).len(), out.len(), self.range(&bins).len())?;
        let mut rest = out;
        let work: Vec<_> = bins
            .zip(table.chunks_exact(parameters.bin_size()))
            .map(|(bin, table)| {
                let rows = self.range(&(bin..bin + 1)).len();
                let (out, after) = std::mem::take(&mut rest).split_at_mut(rows);
                rest = after;
                (bin, table, out)
            })
            .collect();
        work.into_par_iter().for_each_init(Scratch::default, |copy, (bin, table, out)| {
            self.decode_bin(copy, bin, table, out);
        });
        Ok(())
    }

    fn decode_bin<V: Value>(&self, copy: &mut Scratch<V>, bin: usize, table: &[V], out: &mut [V]) {
        // Reading it once from one end to the other brings it into the cache sooner than the rows
        // would.
        copy.clear();
        copy.extend_from_slice(table);
        let (sparse, dense) = copy.split_at(self.parameters().sparse());
        let dense = DenseSums::new(dense);
        for (row, out) in self.bin(bin).zip(out) {
            let [a, b, c] = row.columns(sparse.len()).map(|column| sparse[usize::from(column)]);
            *out = a.xor(b).xor(c).xor(dense.of(row.dense()));
        }
    }
}

/// Sums of a bin's dense entries, eight columns at a time.
pub(super) struct DenseSums<V: Value>(Zeroizing<Vec<[V; 1 << LOOKUP]>>);

impl<V: Value> DenseSums<V> {
    pub(super) fn new(dense: &[V]) -> Self {
        let sums = dense.chunks_exact(LOOKUP).map(|entries| {
            let mut sums = [V::zeroed(); 1 << LOOKUP];
            for bits in 1..sums.len() {
                let lowest = bits.trailing_zeros() as usize;
                sums[bits] = sums[bits & (bits - 1)].xor(entries[lowest]);
            }
            sums
        });
        Self(Zeroizing::new(sums.collect()))
    }

    /// The sum of the columns that have a bit.
    #[inline]
    pub(super) fn of(&self, bits: u64) -> V {
        const { assert!(DENSE.is_multiple_of(LOOKUP)) };
        let bytes = bits.to_le_bytes();
        let terms = self.0.iter().zip(bytes).map(|(sums, byte)| sums[usize::from(byte)]);
        terms.fold(V::zeroed(), V::xor)
    }
}

fn check(
    table: usize,
    expected_table: usize,
    out: usize,
    expected_out: usize,
) -> Result<(), DecodeError> {
    if table != expected_table {
        return Err(DecodeError::Table { found: table, expected: expected_table });
    }
    if out != expected_out {
        return Err(DecodeError::Out { found: out, expected: expected_out });
    }
    Ok(())
}
