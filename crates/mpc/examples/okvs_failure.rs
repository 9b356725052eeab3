//! How often encoding an oblivious key-value store fails: the bound for the number of dense columns
//! that there are, and for fewer of them the bound beside what is measured on random rows.
//! `cargo run --release -p convelo-mpc --example okvs_failure`.

#![expect(clippy::print_stdout, reason = "printing is what it is for")]

use convelo_mpc::okvs::{DENSE, Parameters, TooMany};

fn main() -> Result<(), TooMany> {
    println!(
        "Bound on the probability of failure, as an exponent of two, with {DENSE} dense columns"
    );
    for log in (0..=28).step_by(4) {
        let parameters = Parameters::for_items(1 << log)?;
        println!("2^{log:<3} items {:7.1}", parameters.failure().log2());
    }

    println!("\nFailures in a million, bound and measured, by the number of dense columns");
    println!("{:>6} {:>8} {:>17} {:>17} {:>17}", "items", "seeds", "0", "2", "4");
    for (items, seeds) in [(2, 200_000), (5, 200_000), (20, 100_000), (100, 40_000), (300, 10_000)]
    {
        let parameters = Parameters::for_items(items)?;
        let mut random = Random(blake3::Hasher::new().finalize_xof());
        print!("{items:>6} {seeds:>8}");
        for dense in [0, 2, 4] {
            // The bound is that of one bin: proportional to 2^-dense.
            let bound =
                parameters.failure() * 2_f64.powi(i32::try_from(DENSE).unwrap_or(0) - dense);
            let failed = (0..seeds).filter(|_| {
                let rows = random.rows(items, parameters.bin_size() - DENSE, dense);
                dependent(core(rows))
            });
            let measured = f64::from(u32::try_from(failed.count()).unwrap_or(u32::MAX));
            print!(" {:>8.0} {:>8.0}", bound * 1e6, measured / f64::from(seeds) * 1e6);
        }
        println!();
    }

    println!("\nRows that peeling leaves (2-core): how often any, and the most");
    println!("{:>6} {:>8} {:>10} {:>6}", "items", "seeds", "non-empty", "most");
    for (items, seeds) in [(10, 20_000), (100, 20_000), (1000, 4_000), (10_000, 500), (40_000, 100)]
    {
        let sparse = Parameters::for_items(items)?.bin_size() - DENSE;
        let mut random = Random(blake3::Hasher::new().finalize_xof());
        let cores = (0..seeds).map(|_| core(random.rows(items, sparse, 0)).len());
        let cores: Vec<_> = cores.filter(|core| *core != 0).collect();
        let most = cores.iter().max().unwrap_or(&0);
        println!("{items:>6} {seeds:>8} {:>10} {most:>6}", cores.len());
    }
    Ok(())
}

/// Columns of a row: three sparse ones, and the bits of the dense ones.
type Row = ([usize; 3], u64);

struct Random(blake3::OutputReader);

impl Random {
    fn below(&mut self, range: usize) -> usize {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        let product = u128::from(u64::from_le_bytes(bytes)) * range as u128;
        usize::try_from(product >> 64).expect("below the range")
    }

    fn rows(&mut self, count: usize, sparse: usize, dense: i32) -> Vec<Row> {
        let mut rows = Vec::with_capacity(count);
        while rows.len() < count {
            let [a, b, c] = std::array::from_fn(|_| self.below(sparse));
            if a != b && b != c && a != c {
                rows.push(([a, b, c], self.below(1 << dense) as u64));
            }
        }
        rows
    }
}

/// What remains if rows that alone have some column are taken away, again and again.
fn core(rows: Vec<Row>) -> Vec<Row> {
    let columns = 1 + rows.iter().flat_map(|row| row.0).max().unwrap_or(0);
    let mut cells = vec![(0_u32, 0); columns];
    for (at, row) in rows.iter().enumerate() {
        for column in row.0 {
            cells[column].0 += 1;
            cells[column].1 ^= at;
        }
    }
    let mut remains = vec![true; rows.len()];
    let mut single: Vec<_> = (0..columns).filter(|column| cells[*column].0 == 1).collect();
    while let Some(column) = single.pop() {
        let (count, at) = cells[column];
        if count != 1 {
            continue;
        }
        remains[at] = false;
        for column in rows[at].0 {
            cells[column].0 -= 1;
            cells[column].1 ^= at;
            if cells[column].0 == 1 {
                single.push(column);
            }
        }
    }
    rows.into_iter().zip(remains).filter_map(|(row, remains)| remains.then_some(row)).collect()
}

/// Whether some rows add up to zero.
fn dependent(core: Vec<Row>) -> bool {
    // Each row as the sorted list of columns in which it has a one, dense ones above the others.
    const FIRST_DENSE: usize = 1 << 32;
    let mut rows: Vec<Vec<usize>> = core
        .into_iter()
        .map(|(columns, dense)| {
            let dense = (0..64).filter(|bit| dense >> bit & 1 == 1).map(|bit| FIRST_DENSE + bit);
            let mut ones: Vec<_> = columns.into_iter().chain(dense).collect();
            ones.sort_unstable();
            ones
        })
        .collect();
    while let Some(row) = rows.pop() {
        let Some(&pivot) = row.first() else { return true };
        for other in rows.iter_mut().filter(|other| other.contains(&pivot)) {
            for column in &row {
                match other.binary_search(column) {
                    Ok(at) => {
                        other.remove(at);
                    }
                    Err(at) => other.insert(at, *column),
                }
            }
        }
    }
    false
}
