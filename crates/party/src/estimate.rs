//! What a job without a service costs, before it runs.

use std::time::{Duration, Instant};

use convelo_mpc::curve;
use convelo_psi::{Job, Protocol};

/// What a run takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Estimate {
    /// The time of one processor, at the party that computes most.
    pub cpu: Duration,
    /// Bytes that all parties send, together.
    pub bytes: u64,
    /// Bytes of memory, at that party.
    pub memory: u64,
}

/// Estimates a run of a job without a service on tables of this many keys each; none if it has a
/// service. What the protocol costs on the curve is measured here, in a few milliseconds; the rest are
/// figures of `docs/protocols.md`, which a processor of another kind may double.
pub fn estimate(job: &Job, keys: u64) -> Option<Estimate> {
    let sent = job.padded(keys);
    let parties = job.parties().named();
    let told = parties.iter().filter(|party| job.learns(&party.name)).count() as u64;
    // The first of them computes it; the others are told.
    let matches = told.saturating_sub(1).saturating_mul(sent / 8);
    let members = parties.len().saturating_sub(1) as u64;
    // Reading a table, and its keys.
    let table = keys.saturating_mul(200);
    let (nanoseconds, bytes, memory) = match job.protocol()? {
        Protocol::Vole if members == 1 => (
            sent.saturating_mul(350) + 20_000_000,
            sent.saturating_mul(31) + 700_000,
            sent.saturating_mul(100) + (64 << 20),
        ),
        // The leader, who computes with every member, is the one that these are about.
        Protocol::Vole => (
            sent.saturating_mul(450 * members) + 20_000_000 * members,
            (sent.saturating_mul(35) + 700_000).saturating_mul(members),
            sent.saturating_mul(150) + (64 << 20),
        ),
        Protocol::Ecdh => {
            let each = nanoseconds_of_a_multiplication();
            // Two multiplications for each item, one for its hash, which takes half as long.
            (
                sent.saturating_mul(each * 5 / 2),
                sent.saturating_mul(74),
                sent.saturating_mul(96) + (32 << 20),
            )
        }
    };
    Some(Estimate {
        cpu: Duration::from_nanos(nanoseconds.saturating_add(table)),
        bytes: bytes.saturating_add(matches),
        memory,
    })
}

/// How long a multiplication on the curve takes here.
fn nanoseconds_of_a_multiplication() -> u64 {
    const POINTS: usize = 256;
    let points = [curve::BASE; POINTS];
    let mut products = [curve::Point::default(); POINTS];
    let secret = curve::Scalar::clamped(&[7; 32]);
    let began = Instant::now();
    let _ = curve::multiply(&secret, &points, &mut products);
    let each = began.elapsed().as_nanos() / POINTS as u128;
    u64::try_from(each).unwrap_or(u64::MAX >> 32).max(1)
}
