//! What points cost: microseconds of processor time for each multiplication and each hash to the
//! curve, on every vector unit that this machine has, and beside them curve25519-dalek's X25519 and
//! Ristretto. The least of several repetitions counts.
//!
//! `cargo run --release -p convelo-mpc --example curve_cost`

#![expect(clippy::print_stdout, reason = "it prints figures")]

use convelo_mpc::curve::{self, BASE, Point, Scalar};
use curve25519_dalek::{MontgomeryPoint, RistrettoPoint, Scalar as DalekScalar};
use getrandom::SysRng;
use rand_core::{Rng, UnwrapErr};
use rustix::time::{ClockId, clock_gettime};
use sha2::Sha512;

const POINTS: usize = 2048;
const REPETITIONS: usize = 12;
const DOMAIN: &[u8] = b"curve_cost";

fn main() {
    let mut rng = UnwrapErr(SysRng);
    let scalar = Scalar::random(&mut rng);
    let messages: Vec<[u8; 16]> = (0..POINTS as u128).map(u128::to_le_bytes).collect();
    let mut points = vec![BASE; POINTS];
    curve::hash_to_curve(DOMAIN, &messages, &mut points);
    let mut out: Vec<Point> = points.clone();

    println!("this machine uses {}", curve::unit());
    println!("{:>24} {:>14} {:>10}", "", "multiplication", "hash");
    for unit in curve::units() {
        let multiplication = least(POINTS, || {
            curve::multiply_with(unit, &scalar, &points, &mut out).expect("points of large order");
        });
        let hash = least(POINTS, || curve::hash_to_curve_with(unit, DOMAIN, &messages, &mut out));
        println!("{unit:>24} {multiplication:>11.2} us {hash:>7.2} us");
    }

    let few = POINTS / 8;
    let mut bytes = [0; 32];
    rng.fill_bytes(&mut bytes);
    let x25519 = least(few, || {
        for (point, out) in points[..few].iter().zip(&mut out) {
            *out = MontgomeryPoint(*point).mul_clamped(bytes).to_bytes();
        }
    });
    println!("{:>24} {x25519:>11.2} us", "dalek, X25519");
    let mut hashed = vec![RistrettoPoint::default(); few];
    let hash = least(few, || {
        for (message, point) in messages.iter().zip(&mut hashed) {
            *point = RistrettoPoint::hash_from_bytes::<Sha512>(message);
        }
    });
    let scalar = DalekScalar::from_bytes_mod_order(bytes);
    let ristretto = least(few, || {
        for (point, out) in hashed.iter().zip(&mut out) {
            *out = (scalar * point).compress().to_bytes();
        }
    });
    println!("{:>24} {ristretto:>11.2} us {hash:>7.2} us", "dalek, Ristretto");
}

/// Microseconds of processor time for one of `count`.
#[expect(clippy::cast_precision_loss, reason = "a small count")]
fn least(count: usize, mut work: impl FnMut()) -> f64 {
    let once = |work: &mut dyn FnMut()| {
        let before = cpu();
        work();
        cpu() - before
    };
    let times = (0..REPETITIONS).map(|_| once(&mut work));
    times.fold(f64::INFINITY, f64::min) * 1e6 / count as f64
}

/// Seconds of processor time.
#[expect(clippy::cast_precision_loss, reason = "far fewer seconds than 2^52")]
fn cpu() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}
