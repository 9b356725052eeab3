//! What normalising costs: `normalise_cost ROWS` makes keys of ROWS ids, mail addresses and telephone
//! numbers each, and prints nanoseconds a row as JSON, beside those of copying the same bytes.

use std::hint::black_box;
use std::io::Write as _;
use std::time::Instant;

use convelo_keys::{Encoded, Normaliser};
use convelo_psi::KeyPart;
use serde_json::{Value, json};

/// The least of so many runs counts: a neighbour on the machine only slows.
const RUNS: usize = 5;

fn main() {
    let rows: u64 = std::env::args().nth(1).map_or(1_000_000, |rows| rows.parse().expect("ROWS"));
    let figures: Value = [
        ("id", "trim", ids as fn(u64) -> String),
        ("email", "email", addresses),
        ("phone_international", "phone", international),
        ("phone_national", "phone:49", national),
    ]
    .into_iter()
    .map(|(name, step, text)| {
        (name.to_owned(), figures(step, &(0..rows).map(text).collect::<Vec<_>>()))
    })
    .collect::<serde_json::Map<_, _>>()
    .into();
    writeln!(std::io::stdout().lock(), "{figures}").expect("standard output");
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn figures(step: &str, texts: &[String]) -> Value {
    let part = KeyPart::new("part", vec![step.parse().expect("a step")]);
    let mut normaliser = Normaliser::new(&[part]);
    let mut copy = Vec::with_capacity(512);
    let (mut normalise, mut copied) = (f64::INFINITY, f64::INFINITY);
    for _ in 0..RUNS {
        let begin = Instant::now();
        for text in texts {
            match normaliser.encode([text.as_str()]) {
                Encoded::Key(key) => drop(black_box(key)),
                Encoded::Dropped { why, .. } => panic!("{step} of {text}: {why}"),
            }
        }
        normalise = normalise.min(begin.elapsed().as_secs_f64());
        let begin = Instant::now();
        for text in texts {
            copy.clear();
            copy.extend_from_slice(black_box(text.as_bytes()));
            black_box(&copy);
        }
        copied = copied.min(begin.elapsed().as_secs_f64());
    }
    let nanoseconds = |seconds: f64| seconds * 1e9 / texts.len() as f64;
    json!({"nanoseconds": nanoseconds(normalise), "copy_nanoseconds": nanoseconds(copied)})
}

fn mixed(n: u64) -> u64 {
    let n = (n ^ n >> 31).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (n ^ n >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 16
}

fn ids(n: u64) -> String {
    format!("{:012}", mixed(n) % 1_000_000_000_000)
}

fn addresses(n: u64) -> String {
    format!("Person.{:x}@Example{}.org", mixed(n), n % 97)
}

fn international(n: u64) -> String {
    let number = 100_000 + mixed(n) % 900_000;
    match n % 4 {
        0 => format!("+49 30 {number}"),
        1 => format!("+44 20 7946 {:04}", number % 10_000),
        2 => format!("+1 (415) 555-{:04}", number % 10_000),
        _ => format!("+33 1 23 45 {:02} {:02}", number % 100, number / 100 % 100),
    }
}

fn national(n: u64) -> String {
    let number = 100_000 + mixed(n) % 900_000;
    if n.is_multiple_of(2) { format!("030 {number}") } else { format!("0171/1{number}") }
}
