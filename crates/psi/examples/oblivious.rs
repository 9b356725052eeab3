//! Runs the join over sets of given sizes and of different content, for `cargo xtask oblivious`.
//!
//! `oblivious trace vector|general KIND SIZE...` runs it once on one thread, to be watched by another
//! program. `oblivious timing` compares the times of two kinds of content and prints Welch's t.
//!
//! Making the sets has to leave the same trace as well: nothing here depends on their content.

use std::env;
use std::hint::black_box;
use std::io::Write as _;
use std::time::Instant;

use convelo_psi::{ReceivedSet, SetReceiver, engine};
use rayon::ThreadPoolBuilder;

/// Times that are compared of each kind.
const ROUNDS: usize = 2000;

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    // The thread that calls does the work, so that there is one order of events.
    ThreadPoolBuilder::new()
        .num_threads(1)
        .use_current_thread()
        .build_global()
        .expect("it is the first use");
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["trace", unit, kind, ref sizes @ ..] => {
            let number = |text: &str| text.parse().expect("a number");
            let sizes: Vec<usize> = sizes.iter().map(|size| number(size)).collect();
            let sets = sets(number(kind) as u64, &sizes);
            let joined = match unit {
                "vector" => engine::intersect(sets),
                _ => engine::intersect_without_vectors(sets),
            };
            black_box(joined.expect("memory"));
        }
        ["timing"] => {
            let t = timing();
            let mut out = std::io::stdout().lock();
            writeln!(out, "{t:.2}").expect("stdout");
        }
        _ => panic!("oblivious trace UNIT KIND SIZE...; oblivious timing"),
    }
}

/// Ascending sets. KIND 0: all equal; 1: nothing in common, interleaved; 2: nothing in common, one
/// behind the other; 3: some in common; 4: other numbers, some in common.
fn sets(kind: u64, sizes: &[usize]) -> Vec<ReceivedSet> {
    let mut sets = Vec::new();
    for (set, size) in sizes.iter().enumerate() {
        let set = set as u64;
        let [interleaved, behind, some, other] =
            [1, 2, 3, 4].map(|of| u64::from(black_box(kind) == of));
        let some = some | other;
        let mut value = u128::from(set * behind) << 120;
        let mut wire = Vec::with_capacity(size * 16);
        for at in 0..*size as u64 {
            let step = mixed(at ^ other << 50) >> 16 << 9 | 1 << 9;
            value += u128::from(step) << 40;
            let own = (set + 1) * (interleaved | some & mixed(at << 8 | set) & 1);
            wire.extend((value + u128::from(own)).to_be_bytes());
        }
        let mut receiver = SetReceiver::new(*size as u64);
        receiver.push_chunk(&wire).expect("ascending");
        sets.push(receiver.finish().expect("complete"));
    }
    sets
}

/// Welch's t of the times of equal sets and of sets with nothing in common, the slowest tenth of both
/// left out.
fn timing() -> f64 {
    let mut times = [Vec::new(), Vec::new()];
    for round in 0..2 * ROUNDS {
        let kind = mixed(round as u64) & 1;
        let sets = sets(2 * kind, &[9000, 9000]);
        let begin = Instant::now();
        black_box(engine::intersect(sets).expect("memory"));
        times[usize::from(kind == 1)].push(begin.elapsed().as_secs_f64());
    }
    let [(a, a_error), (b, b_error)] = times.map(|mut times| {
        times.sort_by(f64::total_cmp);
        times.truncate(times.len() * 9 / 10);
        let count = f64::from(u32::try_from(times.len()).expect("some thousand"));
        let mean = times.iter().sum::<f64>() / count;
        let variance = times.iter().map(|time| (time - mean).powi(2)).sum::<f64>() / (count - 1.0);
        (mean, variance / count)
    });
    (a - b) / (a_error + b_error).sqrt()
}

/// splitmix64.
fn mixed(n: u64) -> u64 {
    let n = n.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let n = (n ^ n >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let n = (n ^ n >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    n ^ n >> 31
}
