//! Whether the time of a multiplication or of a hash to the curve depends on what is secret, after
//! "Dude, is my code constant time?" (Reparaz, Balasch, Verbauwhede, eprint 2016/1123): fixed
//! against random inputs in random order, and Welch's t-test on what is left when the slowest
//! measurements are cropped.
//!
//! `cargo run --release -p convelo-mpc --example curve_timing`
//!
//! Run it on a quiet machine. The exit status is 1 if |t| exceeds 10 in each of three repetitions
//! for any of the vector units; a leak would show in all of them, an interruption would not.

#![expect(clippy::print_stdout, reason = "it prints figures")]

use std::process::ExitCode;
use std::time::Instant;

use convelo_mpc::curve::{self, Point, Scalar};
use getrandom::SysRng;
use rand_core::{Rng, UnwrapErr};

const LIMIT: f64 = 10.0;
const REPETITIONS: usize = 3;
const SAMPLES: usize = 6_000;

/// The shares of the samples, fastest first, that tests look at.
const KEPT: [f64; 4] = [0.5, 0.75, 0.9, 0.99];

/// A vector of the widest unit.
const POINTS: usize = 8;

type Random = UnwrapErr<SysRng>;

fn main() -> ExitCode {
    let mut leaks = false;
    for unit in curve::units() {
        let scalars = test("scalars", unit, |fixed, rng| {
            let scalar = if fixed { Scalar::clamped(&[0; 32]) } else { Scalar::random(rng) };
            multiplication(unit, &scalar, &random_points(rng))
        });
        let points = test("points", unit, |fixed, rng| {
            let random = random_points(rng);
            let points = if fixed { [[0x11; 32]; POINTS] } else { random };
            multiplication(unit, &Scalar::clamped(&[0x5a; 32]), &points)
        });
        let messages = test("messages", unit, |fixed, rng| {
            let random = random_points(rng);
            let messages = if fixed { [[0; 32]; POINTS] } else { random };
            let mut out = [[0; 32]; POINTS];
            let start = Instant::now();
            curve::hash_to_curve_with(unit, b"curve_timing", &messages, &mut out);
            start.elapsed().as_nanos()
        });
        leaks |= scalars | points | messages;
    }
    if leaks { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn random_points(rng: &mut Random) -> [Point; POINTS] {
    let mut points = [[0; 32]; POINTS];
    rng.fill_bytes(points.as_flattened_mut());
    points
}

fn multiplication(unit: &str, scalar: &Scalar, points: &[Point]) -> u128 {
    let mut out = [[0; 32]; POINTS];
    let start = Instant::now();
    curve::multiply_with(unit, scalar, points, &mut out).expect("points of large order");
    start.elapsed().as_nanos()
}

/// Whether each repetition finds a difference.
fn test(what: &str, unit: &str, mut sample: impl FnMut(bool, &mut Random) -> u128) -> bool {
    let mut rng = UnwrapErr(SysRng);
    let mut found = 0;
    for _ in 0..REPETITIONS {
        let mut order = vec![0; SAMPLES];
        rng.fill_bytes(&mut order);
        let samples: Vec<(bool, u128)> = order
            .into_iter()
            .map(|byte| (byte & 1 == 1, sample(byte & 1 == 1, &mut rng)))
            .collect();
        let t = largest_t(&samples);
        println!("{unit:>12}, fixed against random {what:>8}: t = {t:7.2}");
        found += usize::from(t.abs() > LIMIT);
    }
    found == REPETITIONS
}

/// The t of largest size over the shares of the samples.
fn largest_t(samples: &[(bool, u128)]) -> f64 {
    let mut times: Vec<u128> = samples.iter().map(|(_, time)| *time).collect();
    times.sort_unstable();
    let mut largest: f64 = 0.0;
    for kept in KEPT {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_precision_loss,
            clippy::cast_sign_loss,
            reason = "an index"
        )]
        let slowest = times[(times.len() as f64 * kept) as usize];
        let group = |fixed: bool| {
            let group = samples.iter().filter(|(is, time)| *is == fixed && *time <= slowest);
            #[expect(clippy::cast_precision_loss, reason = "less than a second, in nanoseconds")]
            moments(group.map(|(_, time)| *time as f64))
        };
        let ((mean_a, error_a), (mean_b, error_b)) = (group(true), group(false));
        let t = (mean_a - mean_b) / (error_a + error_b).sqrt();
        if t.abs() > largest.abs() {
            largest = t;
        }
    }
    largest
}

/// The mean, and its variance.
fn moments(times: impl Iterator<Item = f64>) -> (f64, f64) {
    let (mut count, mut mean, mut squares) = (0.0, 0.0, 0.0);
    for time in times {
        count += 1.0;
        let away = time - mean;
        mean += away / count;
        squares += away * (time - mean);
    }
    (mean, squares / (count - 1.0) / count)
}
