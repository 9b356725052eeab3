//! Whether time depends on what is secret, after "Dude, is my code constant time?" (Reparaz, Balasch,
//! Verbauwhede, eprint 2016/1123): fixed against random inputs in random order, and Welch's t-test
//! on what is left when the slowest measurements are cropped.
//!
//! - *scalars, points, messages*: the ladder and the hash to the curve, on each vector unit.
//! - *factors, values*: what the sender of VOLE-PSI multiplies, by what.
//! - *tables, items*: decoding, of fixed or random tables and items, under a new seed each time.
//! - *sender*: all that the sender does with the masked table, for fixed or random items.
//! - *planted*: a comparison that ends at the first difference, in this file. It must be found.
//!
//! Addresses that decoding uses depend on the items and the seed (see `okvs`); what is measured is
//! that they do not show in the time, for sets of one size.
//!
//! `cargo run --release -p convelo-mpc --example timing`
//!
//! Run it on a quiet machine. The exit status is 1 if |t| exceeds 10 in each of three repetitions
//! of any but the planted test, or not in each of that one; a leak would show in all of them, an
//! interruption would not.

#![expect(clippy::print_stdout, reason = "it prints figures")]

use std::hint::black_box;
use std::process::ExitCode;
use std::time::Instant;

use convelo_mpc::curve::{self, Point, Scalar};
use convelo_mpc::gf128::{self, Gf128};
use convelo_mpc::okvs::{self, Parameters};
use convelo_mpc::vole::Hybrid;
use convelo_mpc::vole_psi::{ReceiverStart, SenderStart, Session};
use getrandom::SysRng;
use rand_core::{Rng, UnwrapErr};
use zeroize::Zeroizing;

const LIMIT: f64 = 10.0;
const REPETITIONS: usize = 3;
const SAMPLES: usize = 6_000;

/// A sender takes milliseconds to make.
const SENDERS: usize = 600;

/// What is decoded, and the items of a sender.
const ITEMS: usize = 256;

/// The shares of the samples, fastest first, that tests look at.
const KEPT: [f64; 4] = [0.5, 0.75, 0.9, 0.99];

/// A vector of the widest unit.
const POINTS: usize = 8;

type Random = UnwrapErr<SysRng>;

fn main() -> ExitCode {
    if !test("planted", "early exit", SAMPLES, early_exit) {
        println!("The planted leak was not found, so the rest would say nothing.");
        return ExitCode::FAILURE;
    }
    let mut leaks = false;
    for unit in curve::units() {
        leaks |= test("scalars", unit, SAMPLES, |fixed, rng| {
            let scalar = if fixed { Scalar::clamped(&[0; 32]) } else { Scalar::random(rng) };
            multiplication(unit, &scalar, &random_points(rng))
        });
        leaks |= test("points", unit, SAMPLES, |fixed, rng| {
            let random = random_points(rng);
            let points = if fixed { [[0x11; 32]; POINTS] } else { random };
            multiplication(unit, &Scalar::clamped(&[0x5a; 32]), &points)
        });
        leaks |= test("messages", unit, SAMPLES, |fixed, rng| {
            let random = random_points(rng);
            let messages = if fixed { [[0; 32]; POINTS] } else { random };
            let mut out = [[0; 32]; POINTS];
            let start = Instant::now();
            curve::hash_to_curve_with(unit, b"timing", &messages, &mut out);
            start.elapsed().as_nanos()
        });
    }
    leaks |= test("factors", "gf128", SAMPLES, |fixed, rng| {
        let (values, random) = (words(rng), words(rng));
        scaling(&values, if fixed { 0 } else { random[0] })
    });
    leaks |= test("values", "gf128", SAMPLES, |fixed, rng| {
        let (values, random) = (words(rng), words(rng));
        scaling(if fixed { &[0; ITEMS] } else { &values }, random[0])
    });
    let parameters = Parameters::for_items(ITEMS).expect("few items");
    leaks |= test("tables", "okvs", SAMPLES, |fixed, rng| {
        let mut table = vec![0_u128; parameters.size()];
        rng.fill_bytes(bytemuck::cast_slice_mut(&mut table));
        if fixed {
            table.fill(0);
        }
        decoding(&parameters, &table, &words(rng), rng)
    });
    leaks |= test("items", "okvs", SAMPLES, |fixed, rng| {
        let mut table = vec![0_u128; parameters.size()];
        rng.fill_bytes(bytemuck::cast_slice_mut(&mut table));
        let random = words(rng);
        decoding(&parameters, &table, &if fixed { counted() } else { random }, rng)
    });
    let recorded = Recorded::new();
    leaks |= test("sender", "vole_psi", SENDERS, |fixed, rng| {
        let random = words(rng);
        recorded.unmasking(&if fixed { counted() } else { random }, rng)
    });
    if leaks { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// A leak as one would write it: whether points are the expected ones, up to the first that is not.
fn early_exit(fixed: bool, rng: &mut Random) -> u128 {
    let random = random_points(rng);
    let expected = [[0x11; 32]; POINTS];
    let points = if fixed { expected } else { random };
    let start = Instant::now();
    let mut equal = true;
    for (point, expected) in points.iter().flatten().zip(expected.iter().flatten()) {
        if black_box(point) != black_box(expected) {
            equal = false;
            break;
        }
    }
    black_box(equal);
    start.elapsed().as_nanos()
}

fn words(rng: &mut Random) -> [u128; ITEMS] {
    let mut words = [0; ITEMS];
    rng.fill_bytes(bytemuck::cast_slice_mut(&mut words));
    words
}

/// Items that are as far from random as they can be.
fn counted() -> [u128; ITEMS] {
    std::array::from_fn(|at| at as u128)
}

fn scaling(values: &[u128; ITEMS], factor: u128) -> u128 {
    let mut sums = [Gf128::ONE; ITEMS];
    let start = Instant::now();
    gf128::add_scaled(&mut sums, bytemuck::cast_slice(values), Gf128(factor));
    black_box(&sums);
    start.elapsed().as_nanos()
}

fn decoding(
    parameters: &Parameters,
    table: &[u128],
    items: &[u128; ITEMS],
    rng: &mut Random,
) -> u128 {
    let mut seed = [0; 16];
    rng.fill_bytes(&mut seed);
    let table: &[Gf128] = bytemuck::cast_slice(table);
    let mut out = [Gf128::ZERO; ITEMS];
    let start = Instant::now();
    okvs::decode(parameters, &seed, table, items, &mut out).expect("a table of this size");
    black_box(&out);
    start.elapsed().as_nanos()
}

/// The receiver's messages of one run. They are accepted in every other run of the session; what
/// these get from them is as random as in a run of their own.
struct Recorded {
    session: Session,
    answer: Vec<u8>,
    masked: Vec<u8>,
}

impl Recorded {
    fn new() -> Self {
        let session = Session {
            sid: [7; 32],
            receiver_items: ITEMS,
            sender_items: ITEMS,
            hybrid: Hybrid::No,
            both_learn: false,
        };
        let mut rng = UnwrapErr(SysRng);
        let items = || Zeroizing::new(counted().to_vec());
        let receiver = ReceiverStart::new(session, items()).expect("as many as agreed");
        let (sender, choice) =
            SenderStart::new(session, items(), &mut rng).expect("as many as agreed");
        let (mut receiver, answer) = receiver.choice(&choice, &mut rng).expect("a choice");
        let mut sender = sender.answer(&answer).expect("an answer");
        let trees = sender.trees(&mut rng).expect("the only trees");
        let masked = receiver.trees(&trees).expect("the trees");
        Self { session, answer, masked }
    }

    /// How long a sender takes from the masked table to tags.
    fn unmasking(&self, items: &[u128; ITEMS], rng: &mut Random) -> u128 {
        let items = Zeroizing::new(items.to_vec());
        let (sender, _choice) = SenderStart::new(self.session, items, rng).expect("a sender");
        let mut sender = sender.answer(&self.answer).expect("an answer");
        sender.trees(rng).expect("the only trees");
        let start = Instant::now();
        sender.masked(&self.masked).expect("the masked table");
        black_box(&sender);
        start.elapsed().as_nanos()
    }
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
fn test(
    what: &str,
    unit: &str,
    samples: usize,
    mut sample: impl FnMut(bool, &mut Random) -> u128,
) -> bool {
    let mut rng = UnwrapErr(SysRng);
    let mut found = 0;
    for _ in 0..REPETITIONS {
        let mut order = vec![0; samples];
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
