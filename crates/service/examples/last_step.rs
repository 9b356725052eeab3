//! Runs a job's last step over results of the same size and of different content, for
//! `cargo xtask oblivious`: `last_step trace intersection|count KIND SIZE...`.
//!
//! Making the results has to leave the same trace as well: nothing here depends on their content.

use std::env;
use std::hint::black_box;

use convelo_psi::{Bitmap, Job, What, terms};
use convelo_service::oblivious::joining;

/// A result of fewer keys is withheld.
const MINIMUM: u64 = 40;

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let ["trace", what, kind, ref sizes @ ..] = words[..] else {
        panic!("last_step trace intersection|count KIND SIZE...");
    };
    let number = |text: &str| text.parse().expect("a number");
    let sizes: Vec<usize> = sizes.iter().map(|size| number(size)).collect();
    let what = if what == "count" { What::Count } else { What::Intersection };
    let sets = sizes.iter().map(|size| {
        (0..*size as u128).flat_map(|key| (key << 90).to_be_bytes()).collect::<Vec<u8>>()
    });
    let joining = joining(&job(sizes.len(), what), &sets.collect::<Vec<_>>());
    let marked = marked(number(kind) as u64);
    let bitmaps = sizes.iter().map(|size| bitmap(*size, marked));
    black_box(joining.answers(bitmaps.collect()));
}

/// Unpinned parties that all learn the result.
fn job(parties: usize, what: What) -> Job {
    let job = Job::unpinned("watched", parties, 1000, 60, terms::Service::default());
    let mut terms = job.expect("valid").terms();
    (terms.reveal.what, terms.reveal.minimum) = (what, MINIMUM);
    Job::try_from(terms).expect("valid")
}

/// How many keys are common and where. KIND 0: none; 1: one fewer than the minimum; 2: as many as the
/// minimum; 3: more; 4: more, elsewhere.
fn marked(kind: u64) -> [u64; 2] {
    let [fewer, as_many, more, elsewhere] = [1, 2, 3, 4].map(|of| u64::from(black_box(kind) == of));
    let count = (MINIMUM - 1) * fewer + MINIMUM * as_many + 2 * MINIMUM * (more | elsewhere);
    [count, 17 * elsewhere]
}

/// Marks so many ranks, from this one on.
fn bitmap(size: usize, [count, from]: [u64; 2]) -> Bitmap {
    let mut bytes = vec![0; size.div_ceil(8)];
    for rank in 0..size {
        // Without a branch: all ones below the count, from there on zeros.
        let below = (rank as u64).wrapping_sub(from).wrapping_sub(count) >> 63;
        let behind = 1 ^ (rank as u64).wrapping_sub(from) >> 63;
        bytes[rank / 8] |= u8::try_from(below & behind).unwrap_or(0) << (rank % 8);
    }
    Bitmap::from_bytes(size, bytes).expect("as long as the set")
}
