//! Peeling, elimination of what remains, and substitution.

use std::collections::HashMap;
use std::ops::Range;

use aes::Aes128;
use aes::cipher::{Array, BlockCipherEncrypt, KeyInit};
use rand_core::CryptoRng;
use rayon::prelude::*;
use thiserror::Error;
use zeroize::Zeroizing;

use super::decode::DenseSums;
use super::rows::Row;
use super::{DENSE, Rows, Scratch, TooMany, Value, exist};

/// Why there is no table.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum EncodeError {
    /// More items than a table can have.
    #[error(transparent)]
    TooMany(#[from] TooMany),
    /// More items than the parameters are for.
    #[error("{found} items, and the parameters are for {expected}")]
    Items {
        /// How many there are.
        found: usize,
        /// How many there can be.
        expected: usize,
    },
    /// Not one value for each item.
    #[error("{found} values for {expected} items")]
    Values {
        /// How many there are.
        found: usize,
        /// How many there should be.
        expected: usize,
    },
    /// The table has another length than its parameters say.
    #[error("{found} entries, and the bins have {expected}")]
    Table {
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
    /// Two items are equal.
    #[error("the items {first} and {second} are equal")]
    Duplicate {
        /// The index of one.
        first: usize,
        /// The index of the other.
        second: usize,
    },
    /// A bin has more items than the parameters allow. Distinct items fail so with a probability
    /// of 2^-42, unless they were chosen with knowledge of the seed.
    #[error("bin {bin} has {found} items of {limit}")]
    Overfull {
        /// Which.
        bin: usize,
        /// How many it has.
        found: usize,
        /// How many it can have.
        limit: usize,
    },
    /// Some rows add up to zero. Distinct items fail so with a probability below 2^-41, unless
    /// they were chosen with knowledge of the seed.
    #[error("rows of bin {bin} depend on each other")]
    Dependent {
        /// Which.
        bin: usize,
    },
}

/// What entries are that no row determines: the output of AES-128 in counter mode, so that a table
/// is the same whatever the order of its bins.
pub struct Filler(Aes128);

impl Filler {
    /// Takes its key from `rng`. One filler is for one table.
    pub fn new(rng: &mut impl CryptoRng) -> Self {
        let mut key = Zeroizing::new([0; 16]);
        rng.fill_bytes(&mut *key);
        Self(Aes128::new((&*key).into()))
    }

    fn fill(&self, bin: usize, entries: &mut [u8]) {
        const BATCH: usize = 64;
        let mut blocks = Zeroizing::new([[0; 16]; BATCH]);
        let mut counter = (bin as u128) << 64;
        for entries in entries.chunks_mut(16 * BATCH) {
            for block in blocks.iter_mut() {
                *block = counter.to_le_bytes();
                counter += 1;
            }
            self.0.encrypt_blocks(Array::cast_slice_from_core_mut(&mut *blocks));
            entries.copy_from_slice(&blocks.as_flattened()[..entries.len()]);
        }
    }
}

impl Rows {
    /// Makes the table in which each item has its value. The values are in the order of the items;
    /// columns that remain free come from `rng`.
    ///
    /// # Errors
    /// If there are more items than the parameters are for, not one value for each, two items are
    /// equal, or the rows cannot be solved: see the module's documentation.
    pub fn encode<V: Value>(
        &self,
        values: &[V],
        rng: &mut impl CryptoRng,
    ) -> Result<Vec<V>, EncodeError> {
        let mut table = vec![V::zeroed(); self.parameters().size()];
        let bins = 0..self.parameters().bins();
        self.encode_bins(bins, values, &Filler::new(rng), &mut table)?;
        Ok(table)
    }

    /// Makes some bins of the table. The values are those of all items, in the order of the items.
    /// `table` is the part that [`Parameters::entries`](super::Parameters::entries) names.
    ///
    /// # Errors
    /// As [`Rows::encode`]; also if `table` has another length or not all bins exist. What is in
    /// `table` then must not be used.
    pub fn encode_bins<V: Value>(
        &self,
        bins: Range<usize>,
        values: &[V],
        filler: &Filler,
        table: &mut [V],
    ) -> Result<(), EncodeError> {
        let parameters = self.parameters();
        let (found, expected) = (self.len(), parameters.items());
        if found > expected {
            return Err(EncodeError::Items { found, expected });
        }
        if !exist(&bins, parameters) {
            return Err(EncodeError::Bins { end: bins.end, bins: parameters.bins() });
        }
        let (found, expected) = (values.len(), self.len());
        if found != expected {
            return Err(EncodeError::Values { found, expected });
        }
        let (found, expected) = (table.len(), parameters.entries(&bins).len());
        if found != expected {
            return Err(EncodeError::Table { found, expected });
        }
        let bins = bins.into_par_iter().zip(table.par_chunks_exact_mut(parameters.bin_size()));
        // The first bin's error, whatever the number of threads.
        let results = bins.map_init(Solver::default, |solver, (bin, table)| {
            solver.solve(self, bin, values, filler, table)
        });
        results.collect::<Vec<_>>().into_iter().collect()
    }
}

/// The memory that solving a bin takes, used again for the next.
struct Solver<V: Value> {
    /// The sparse columns of each row; one more, so that they are aligned.
    columns: Scratch<[u16; 4]>,
    /// For each column the number of rows that have it, in the upper half, and their sum.
    cells: Scratch<u32>,
    /// Columns that one row has.
    single: Scratch<u16>,
    /// Row and column, in the order of peeling.
    peeled: Scratch<[u16; 2]>,
    /// Of each row, what its sparse entries add up to.
    values: Scratch<V>,
}

impl<V: Value> Default for Solver<V> {
    fn default() -> Self {
        Self {
            columns: Scratch::default(),
            cells: Scratch::default(),
            single: Scratch::default(),
            peeled: Scratch::default(),
            values: Scratch::default(),
        }
    }
}

impl<V: Value> Solver<V> {
    fn solve(
        &mut self,
        rows: &Rows,
        bin: usize,
        values: &[V],
        filler: &Filler,
        table: &mut [V],
    ) -> Result<(), EncodeError> {
        let (found, limit) = (rows.bin(bin).len(), rows.parameters().bin_limit());
        if found > limit {
            return Err(EncodeError::Overfull { bin, found, limit });
        }
        filler.fill(bin, bytemuck::cast_slice_mut(table));
        let sparse = rows.parameters().sparse();
        self.peel(rows.bin(bin), sparse);

        let items = &rows.items()[rows.range(&(bin..bin + 1))];
        if self.peeled.len() < items.len() {
            let core = self.core(rows.bin(bin), items);
            if let Some([first, second]) = duplicate(&core) {
                return Err(EncodeError::Duplicate { first, second });
            }
            let system = System::new(&core, values, sparse);
            system.solve(table).ok_or(EncodeError::Dependent { bin })?;
        }

        let (sparse, dense) = table.split_at_mut(sparse);
        let dense = DenseSums::new(dense);
        self.values.clear();
        self.values.extend(
            rows.bin(bin)
                .zip(items)
                .map(|(row, item)| values[*item as usize].xor(dense.of(row.dense()))),
        );
        for &[row, column] in self.peeled.iter().rev() {
            let [a, b, c, _] = self.columns[usize::from(row)].map(|at| sparse[usize::from(at)]);
            let entry = &mut sparse[usize::from(column)];
            // The entry itself is one of the three.
            *entry = self.values[usize::from(row)].xor(a).xor(b.xor(c)).xor(*entry);
        }
        Ok(())
    }

    /// Takes away rows that alone have some column, as long as there are any.
    fn peel(&mut self, rows: impl ExactSizeIterator<Item = Row>, sparse: usize) {
        const ONE: u32 = 1 << 16;
        self.cells.clear();
        self.cells.resize(sparse, 0);
        self.columns.clear();
        self.columns.extend(rows.zip(0..).map(|(row, at): (_, u32)| {
            let [a, b, c] = row.columns(sparse);
            for column in [a, b, c] {
                let cell = &mut self.cells[usize::from(column)];
                *cell = (*cell + ONE) ^ at;
            }
            [a, b, c, 0]
        }));
        self.single.clear();
        self.peeled.clear();
        for column in 0..sparse {
            if self.cells[column] >> 16 == 1 {
                #[expect(clippy::cast_possible_truncation, reason = "at most 2^16 columns")]
                self.single.push(column as u16);
            }
            while let Some(column) = self.single.pop() {
                let cell = self.cells[usize::from(column)];
                if cell >> 16 != 1 {
                    continue;
                }
                #[expect(clippy::cast_possible_truncation, reason = "the lower half")]
                let row = cell as u16;
                self.peeled.push([row, column]);
                let [a, b, c, _] = self.columns[usize::from(row)];
                for column in [a, b, c] {
                    let cell = &mut self.cells[usize::from(column)];
                    *cell = (*cell - ONE) ^ u32::from(row);
                    if *cell >> 16 == 1 {
                        self.single.push(column);
                    }
                }
            }
        }
    }

    /// The rows that remain, each with its sparse columns and the index of its item.
    fn core(&self, rows: impl Iterator<Item = Row>, items: &[u32]) -> Vec<CoreRow> {
        let mut remains = vec![true; items.len()];
        for [row, _] in self.peeled.iter() {
            remains[usize::from(*row)] = false;
        }
        let all = rows.zip(items).zip(&*self.columns);
        let core = all.zip(remains).filter(|(_, remains)| *remains);
        core.map(|(((row, item), columns), _)| CoreRow {
            row,
            item: *item as usize,
            columns: [columns[0], columns[1], columns[2]],
        })
        .collect()
    }
}

/// A row of the 2-core.
struct CoreRow {
    row: Row,
    item: usize,
    columns: [u16; 3],
}

/// Two equal items, if there are any. Their rows are never peeled.
fn duplicate(core: &[CoreRow]) -> Option<[usize; 2]> {
    let mut seen = HashMap::with_capacity(core.len());
    core.iter().find_map(|row| {
        let before = seen.insert(row.row.identity(), row.item)?;
        Some([before, row.item])
    })
}

/// Linear equations over GF(2).
struct System<V: Value> {
    /// The entry of the bin that each unknown is.
    entries: Vec<usize>,
    /// Words of a row of the matrix.
    words: usize,
    /// Row after row, a bit for each unknown.
    matrix: Vec<u64>,
    values: Scratch<V>,
}

impl<V: Value> System<V> {
    /// The equations of the 2-core. Unknowns are its sparse columns, then the dense ones.
    fn new(core: &[CoreRow], values: &[V], sparse: usize) -> Self {
        let mut entries: Vec<_> =
            core.iter().flat_map(|row| row.columns).map(usize::from).collect();
        entries.sort_unstable();
        entries.dedup();
        let first_dense = entries.len();
        entries.extend(sparse..sparse + DENSE);
        let words = entries.len().div_ceil(64);
        let mut matrix = vec![0; words * core.len()];
        for (core, row) in core.iter().zip(matrix.chunks_exact_mut(words)) {
            let sparse = core.columns.map(|column| {
                entries.binary_search(&usize::from(column)).expect("it is one of the unknowns")
            });
            let dense = (0..DENSE).filter(|bit| core.row.dense() >> bit & 1 == 1);
            for unknown in sparse.into_iter().chain(dense.map(|bit| first_dense + bit)) {
                row[unknown / 64] |= 1 << (unknown % 64);
            }
        }
        let values = core.iter().map(|row| values[row.item]).collect();
        Self { entries, words, matrix, values: Zeroizing::new(values) }
    }

    /// Gives unknowns values such that all equations hold; those that are free keep theirs. `None`
    /// if some equations depend on others.
    fn solve(mut self, table: &mut [V]) -> Option<()> {
        let mut pivots = Vec::with_capacity(self.values.len());
        for row in 0..self.values.len() {
            let (done, below) = self.matrix.split_at_mut((row + 1) * self.words);
            let this = &done[row * self.words..];
            let first = this.iter().position(|word| *word != 0)?;
            let bit = this[first].trailing_zeros();
            pivots.push(64 * first + bit as usize);
            let value = self.values[row];
            let others = below.chunks_exact_mut(self.words).zip(&mut self.values[row + 1..]);
            for (other, other_value) in others.filter(|(other, _)| other[first] >> bit & 1 == 1) {
                for (other, this) in other[first..].iter_mut().zip(&this[first..]) {
                    *other ^= this;
                }
                *other_value = other_value.xor(value);
            }
        }
        // A row has, besides its pivot, free unknowns and pivots of later rows.
        for (row, pivot) in pivots.into_iter().enumerate().rev() {
            let bits = &self.matrix[row * self.words..][..self.words];
            let mut value = self.values[row];
            for (at, word) in bits.iter().enumerate() {
                let mut word = *word;
                while word != 0 {
                    let unknown = 64 * at + word.trailing_zeros() as usize;
                    word &= word - 1;
                    if unknown != pivot {
                        value = value.xor(table[self.entries[unknown]]);
                    }
                }
            }
            table[self.entries[pivot]] = value;
        }
        Some(())
    }
}
