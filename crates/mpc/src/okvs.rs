//! Oblivious key-value store: a table of which a few entries add up to an item's value.
//!
//! [`Rows::encode`] makes, from items and their values, a table that is uniformly random if the
//! values are. [`Rows::decode`] gives the value of every encoded item, and of any other item the
//! sum of entries that are random. Decoding is linear: what holds for tables entry by entry holds
//! for what is decoded from them.
//!
//! # Construction
//! The one of Raghuraman and Rindal, "Blazing Fast PSI from Improved OKVS and Subfield VOLE",
//! eprint 2022/320, section 3: each item is a row of a linear system over GF(2), with three ones
//! in sparse columns, and random bits in a few dense columns. Items are divided into bins (clusters
//! there), each with its own columns, so that a bin fits into the processor's cache and bins can be
//! encoded side by side, or one after the other as they arrive. Rows are peeled: a row that alone
//! has some column is solved last, by that column. Rows that remain (the 2-core), usually none, are
//! solved by Gaussian elimination, with the dense columns' help.
//!
//! The dense part is binary, not powers of an element of a field as in that paper: so one
//! construction serves values of all widths. With 40 dense columns it costs five lookups in tables
//! of 256 sums, made once for a bin, where the other way costs products in GF(2^128).
//!
//! # Layout
//! A table consists of bins of [`Parameters::bin_size`] entries; a bin of its sparse columns
//! followed by its dense ones. A row follows from the item x, 128 bits, and the seed k, a key of
//! AES-128, which is agreed on after the items are fixed:
//! - AES_k(x) xor x, bytes lowest first as the items are, is the words `columns` (lower half) and
//!   `place` (upper half).
//! - `place` times the number of bins is the bin (upper word) and a fraction (lower word), of which
//!   the upper 40 bits are the dense part; their lowest is that of the first dense column.
//! - `columns` times the number m of sparse columns is a (upper word) and a fraction; that fraction
//!   times m - 1 is b and a fraction; that one times m - 2 is c. The sparse columns are a, the b-th
//!   of those that are not a, and the c-th of those that are neither.
//!
//! # Failure
//! Encoding can fail in two ways. Some bin may get more items than [`Parameters::bin_limit`], with
//! probability at most 2^-42 (Bernstein's inequality, over all bins). Or some rows of a bin add up
//! to zero, so that their values cannot be chosen freely. There is no other way: elimination solves
//! whatever has a solution. Of n random rows of weight 3 in m columns, the expected number of sets
//! that add up to zero is
//!
//! `sum over j of C(m, j) / 2^m * (1 + K(j) / C(m, 3))^n, minus 1`,
//!
//! with the Krawtchouk polynomial K(j), the sum over i of (-1)^i C(j, i) C(m - j, 3 - i). This is
//! the first moment of random 3-XORSAT; it stays small up to 0.889 rows a column (the threshold
//! itself is 0.918: Dubois and Mandler, "The 3-XORSAT Threshold", FOCS 2002), and there are at most
//! 0.83 here. A set adds up to zero in the dense columns too with probability 2^-40.
//! [`Parameters::failure`] computes the sum: it is below 2^-40 for all numbers of items, and 2^-42
//! at 2^20. The example `okvs_failure` prints it beside measured frequencies with fewer dense
//! columns.
//!
//! Peeling needs 1.222 columns a row (Molloy, "Cores in random hypergraphs and Boolean formulas",
//! Random Structures and Algorithms 27, 2005). A bin that happens to have fewer, one of 50 million
//! in large tables, is solved by elimination all the same, which for 2^15 rows takes 1.6 seconds
//! and 150 MB.
//!
//! # What it does not hide
//! Which addresses are used depends on the items, as in any hash table. Whoever encodes or decodes
//! has these items in the clear; they are secret to others, who must not share its caches.
//! A table that was made by a cheating peer may decode to chosen values for more items than the
//! honest encoder's limit, up to the table's size (overfitting); protocols account for it.

use std::ops::Range;

use rand_core::CryptoRng;
use zeroize::Zeroizing;

mod decode;
mod encode;
mod parameters;
mod rows;
#[cfg(test)]
mod tests;
mod value;

pub use decode::DecodeError;
pub use encode::{EncodeError, Filler};
pub use parameters::{DENSE, Parameters, TooMany};
pub use rows::Rows;
pub use value::Value;

/// The key of AES-128 that turns items into rows. It is chosen at random after the items are fixed:
/// who knows it beforehand can choose items whose encoding fails.
pub type Seed = [u8; 16];

/// Encodes all items at once. The values are in the order of the items; columns that remain free
/// come from `rng`.
///
/// # Errors
/// As [`Rows::encode`].
pub fn encode<V: Value>(
    parameters: &Parameters,
    seed: &Seed,
    items: &[u128],
    values: &[V],
    rng: &mut impl CryptoRng,
) -> Result<Vec<V>, EncodeError> {
    Rows::new(parameters, seed, items)?.encode(values, rng)
}

/// Decodes all items at once, into `out` in their order.
///
/// # Errors
/// As [`Rows::decode`].
pub fn decode<V: Value>(
    parameters: &Parameters,
    seed: &Seed,
    table: &[V],
    items: &[u128],
    out: &mut [V],
) -> Result<(), DecodeError> {
    Rows::new(parameters, seed, items)?.decode(table, out)
}

/// Memory for one bin, which is zeroed when it is dropped.
type Scratch<T> = Zeroizing<Vec<T>>;

/// Whether all bins of the range exist.
fn exist(bins: &Range<usize>, parameters: &Parameters) -> bool {
    bins.start <= bins.end && bins.end <= parameters.bins()
}
