//! What both sides derive from the number of items.

use std::f64::consts::LN_2;
use std::ops::Range;

use thiserror::Error;

/// Dense columns of a bin.
pub const DENSE: usize = 40;

/// Items that a bin is meant for: a power of two, so that its rows and columns have indices of 16
/// bits even if the number of items is just below one and a half bins.
const BIN_ITEMS: usize = 1 << 15;

/// Sparse columns for a thousand rows. Peeling starts to succeed at 1221.8.
const COLUMNS_OF_THOUSAND: usize = 1222;

/// Sparse columns on top, in square roots of the number n of rows. What n rows need has a standard
/// deviation of 0.7 sqrt(n), as measured on 1000 and 32,768 of them: this is about four.
const SPARE: usize = 3;

/// The same if the number of rows varies, as a Poisson variable does. Then it is 1.4 sqrt(n): this
/// is five and a half, or one bin of 50 million that cannot be peeled.
const SPARE_OF_MANY: usize = 8;

/// The shape of a table. It follows from the number of items alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameters {
    pub(super) items: usize,
    pub(super) bins: usize,
    pub(super) bin_limit: usize,
    pub(super) sparse: usize,
}

/// More items than a table can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a table of {items} items: there can be {} at most", Parameters::MOST_ITEMS)]
pub struct TooMany {
    /// How many.
    pub items: usize,
}

impl Parameters {
    /// The most items of a table. Up to here, encoding fails with a probability below 2^-40.
    pub const MOST_ITEMS: usize = 1 << 28;

    /// The shape of a table for so many items.
    ///
    /// # Errors
    /// If there are more than [`Parameters::MOST_ITEMS`].
    pub fn for_items(items: usize) -> Result<Self, TooMany> {
        if items > Self::MOST_ITEMS {
            return Err(TooMany { items });
        }
        // Integers throughout: the two sides' machines must agree.
        let bins = ((items + BIN_ITEMS / 2) / BIN_ITEMS).max(1);
        let mean = items.div_ceil(bins);
        let (spare, bin_limit) = if bins == 1 {
            (SPARE, items)
        } else {
            // Bernstein: a deviation t has probability exp(-t^2 / 2 (mean + t / 3)) at most, which
            // is exp(-l) for t = sqrt(2 l mean) + 2 l / 3. In thousandths, l is that of 2^-42 over
            // 2^14 bins, more than there are.
            let l = 38_816;
            (SPARE_OF_MANY, mean + (2 * l * mean / 1000).isqrt() + 2 * l / 3000 + 2)
        };
        // Three distinct ones in all cases.
        let sparse = (COLUMNS_OF_THOUSAND * mean).div_ceil(1000) + spare * mean.isqrt() + 3;
        Ok(Self { items, bins, bin_limit, sparse })
    }

    /// The number of items that can be encoded. Any number can be decoded.
    pub fn items(&self) -> usize {
        self.items
    }

    /// The number of bins, at least one.
    pub fn bins(&self) -> usize {
        self.bins
    }

    /// The most items that a bin may get in encoding.
    pub fn bin_limit(&self) -> usize {
        self.bin_limit
    }

    /// Sparse columns of a bin; at most 2^16.
    pub(super) fn sparse(&self) -> usize {
        self.sparse
    }

    /// Entries of a bin.
    pub fn bin_size(&self) -> usize {
        self.sparse + DENSE
    }

    /// Entries of a table.
    pub fn size(&self) -> usize {
        self.bins * self.bin_size()
    }

    /// Where the entries of these bins are in a table.
    pub fn entries(&self, bins: &Range<usize>) -> Range<usize> {
        bins.start * self.bin_size()..bins.end * self.bin_size()
    }

    /// A bound on the probability that encoding fails, with its two parts added: see the module's
    /// documentation. Takes time in proportion to [`Parameters::bin_size`].
    pub fn failure(&self) -> f64 {
        let sets = dependent_sets(self.bin_limit, self.sparse);
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let dependent = self.bins as f64 * sets * (-(DENSE as f64) * LN_2).exp();
        let overfull = if self.bins == 1 { 0.0 } else { (-42.0 * LN_2).exp() };
        dependent + overfull
    }
}

/// The expected number of sets of rows that add up to zero in the sparse columns.
#[expect(clippy::cast_precision_loss, reason = "numbers below 2^17")]
fn dependent_sets(rows: usize, columns: usize) -> f64 {
    let (n, m) = (rows as f64, columns as f64);
    let all = m * (m - 1.0) * (m - 2.0) / 6.0;
    let mut sets = 0.0;
    // The logarithm of C(m, j) / 2^m.
    let mut weight = -m * LN_2;
    for j in 0..=columns {
        let j = j as f64;
        let rest = m - j;
        let krawtchouk = rest * (rest - 1.0) * (rest - 2.0) / 6.0 - j * rest * (rest - 1.0) / 2.0
            + j * (j - 1.0) / 2.0 * rest
            - j * (j - 1.0) * (j - 2.0) / 6.0;
        let power = if rows == 0 { 0.0 } else { n * (krawtchouk / all).max(-1.0).ln_1p() };
        // Apart, so that neither overflows nor cancels.
        sets += if power > 30.0 { (weight + power).exp() } else { weight.exp() * power.exp_m1() };
        weight += (rest / (j + 1.0)).ln();
    }
    sets
}
