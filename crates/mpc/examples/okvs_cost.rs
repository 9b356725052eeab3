//! What an oblivious key-value store costs, in CPU time of the process. Partitioning includes
//! hashing. `decode` is in the order of items, `by row` in that of rows. For one core:
//! `RAYON_NUM_THREADS=1 cargo run --release -p convelo-mpc --example okvs_cost`.

#![expect(clippy::print_stdout, reason = "printing is what it is for")]

use convelo_mpc::gf128::Gf128;
use convelo_mpc::okvs::{Parameters, Rows, Value};
use rustix::time::{ClockId, clock_gettime};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("ns an item, the least of {REPETITIONS}");
    println!(
        "{:>6} {:>8} {:>6} {:>10} {:>7} {:>7} {:>7}",
        "items", "bits", "rate", "partition", "encode", "decode", "by row"
    );
    for log in [16, 18, 20] {
        cost(1 << log, |word| Gf128(u128::from(word) << 64))?;
        cost(1 << log, |word| {
            let mut bytes = [0; 10];
            bytes[..8].copy_from_slice(&word.to_le_bytes());
            bytes
        })?;
        cost(1 << log, |word| word)?;
    }
    Ok(())
}

const REPETITIONS: usize = 5;

fn cost<V: Value + PartialEq>(
    n: usize,
    value: impl Fn(u64) -> V,
) -> Result<(), Box<dyn std::error::Error>> {
    const ODD: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;
    let items: Vec<u128> = (1..).take(n).map(|i: u128| i.wrapping_mul(ODD)).collect();
    let values: Vec<V> = (0..).take(n).map(value).collect();
    let mut decoded = vec![V::zeroed(); n];
    let parameters = Parameters::for_items(n)?;
    let mut rng = getrandom::SysRng;
    let mut least = [f64::INFINITY; 4];
    for repetition in 0..REPETITIONS {
        let seed = [u8::try_from(repetition)?; 16];
        let start = cpu_seconds();
        let rows = Rows::new(&parameters, &seed, &items)?;
        let partitioned = cpu_seconds();
        let table = rows.encode(&values, &mut rand_core::UnwrapErr(&mut rng))?;
        let encoded = cpu_seconds();
        rows.decode(&table, &mut decoded)?;
        let end = cpu_seconds();
        assert!(values == decoded, "what is encoded is decoded");
        let by_row = cpu_seconds();
        rows.decode_bins(0..parameters.bins(), &table, &mut decoded)?;
        let by_row = cpu_seconds() - by_row;
        let taken = [partitioned - start, encoded - partitioned, end - encoded, by_row];
        for (least, taken) in least.iter_mut().zip(taken) {
            *least = least.min(taken);
        }
    }
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    let (n, size) = (n as f64, parameters.size() as f64);
    let [partition, encode, decode, by_row] = least.map(|seconds| seconds * 1e9 / n);
    println!(
        "{:>6} {:>8} {:>6.3} {partition:>10.1} {encode:>7.1} {decode:>7.1} {by_row:>7.1}",
        format!("2^{}", n.log2()),
        8 * size_of::<V>(),
        size / n,
    );
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "nanoseconds of a short process")]
fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}
