//! The Montgomery ladder (RFC 7748, section 5), inversion, and the way back to bytes.

use std::hint::black_box;

use super::Point;
use super::lanes::{Lanes, WIDEST, Work, constant, small};

/// Vectors whose denominators are inverted together.
const BATCH: usize = 64;

/// A u-coordinate as a fraction; a denominator of 0 is the point at infinity.
#[derive(Clone, Copy)]
pub(super) struct Fraction<L: Lanes> {
    pub(super) x: L::Product,
    pub(super) z: L::Product,
}

/// Multiplies points by a clamped scalar; the point at infinity becomes 0.
pub(super) struct Multiply<'a> {
    pub(super) scalar: &'a [u8; 32],
    pub(super) points: &'a [Point],
    pub(super) out: &'a mut [Point],
}

impl Work for Multiply<'_> {
    type Output = ();

    #[inline(always)]
    fn with<L: Lanes>(self, lanes: L) {
        let size = BATCH * L::WIDTH;
        for (points, out) in self.points.chunks(size).zip(self.out.chunks_mut(size)) {
            let mut results = Vec::with_capacity(BATCH);
            for points in points.chunks(L::WIDTH) {
                let mut block = [[0; 32]; WIDEST];
                block[..points.len()].copy_from_slice(points);
                results.push(ladder(lanes, self.scalar, lanes.load(&block)));
            }
            store_affine(lanes, &results, out);
        }
    }
}

/// The scalar has its highest bit, 254, set and its lowest three clear.
#[inline(always)]
fn ladder<L: Lanes>(lanes: L, scalar: &[u8; 32], point: L::Product) -> Fraction<L> {
    let base = lanes.factor(point);
    let mut first = Fraction::<L> { x: point, z: small(lanes, 1) };
    // The point times what has been read of the scalar is `first` if the last bit was 0, otherwise
    // `second`; the other one is next to it.
    let mut second = first;
    first = doubled(lanes, first);
    let mut last = 1;
    for at in (3..254).rev() {
        let bit = black_box(scalar[at / 8] >> (at % 8) & 1);
        let (a, b) = (lanes.add(first.x, first.z), lanes.sub(first.x, first.z));
        let (c, d) = (lanes.add(second.x, second.z), lanes.sub(second.x, second.z));
        let (da, cb) = (lanes.mul(d, a), lanes.mul(c, b));
        // Which of the two is doubled: exchanging them changes nothing in the sum of both.
        let mask = lanes.mask(bit ^ last);
        last = bit;
        let plus = lanes.select_factor(mask, c, a);
        let minus = lanes.select_factor(mask, d, b);
        let difference = lanes.square(lanes.sub(da, cb));
        second = Fraction {
            x: lanes.square(lanes.add(da, cb)),
            z: lanes.mul(base, lanes.factor(difference)),
        };
        first = doubled_from(lanes, plus, minus);
    }
    let mask = lanes.mask(last);
    let mut result = Fraction {
        x: lanes.select(mask, second.x, first.x),
        z: lanes.select(mask, second.z, first.z),
    };
    for _ in 0..3 {
        result = doubled(lanes, result);
    }
    result
}

#[inline(always)]
pub(super) fn doubled<L: Lanes>(lanes: L, point: Fraction<L>) -> Fraction<L> {
    doubled_from(lanes, lanes.add(point.x, point.z), lanes.sub(point.x, point.z))
}

/// From x + z and x - z.
#[inline(always)]
fn doubled_from<L: Lanes>(lanes: L, plus: L::Factor, minus: L::Factor) -> Fraction<L> {
    let (aa, bb) = (lanes.square(plus), lanes.square(minus));
    let e = lanes.sub(aa, bb);
    Fraction {
        x: lanes.mul(lanes.factor(aa), lanes.factor(bb)),
        z: lanes.mul(e, lanes.add_scaled(aa, e)),
    }
}

/// a^(2^times).
#[inline(always)]
fn squared<L: Lanes>(lanes: L, a: L::Factor, times: usize) -> L::Factor {
    let mut power = a;
    for _ in 0..times {
        power = lanes.factor(lanes.square(power));
    }
    power
}

/// a^(2^250 - 1) and a^11, of which the other powers are made.
#[inline(always)]
fn powers<L: Lanes>(lanes: L, a: L::Factor) -> [L::Factor; 2] {
    macro_rules! times {
        ($a:expr, $b:expr) => {
            lanes.factor(lanes.mul($a, $b))
        };
    }
    let two = squared(lanes, a, 1);
    let nine = times!(squared(lanes, two, 2), a);
    let eleven = times!(nine, two);
    // Named by how many ones the exponent has in binary.
    let ones_5 = times!(squared(lanes, eleven, 1), nine);
    let mut ones = ones_5;
    let mut ones_50 = ones_5;
    // 10, 20, 40, 50, 100, 200, 250.
    let mut ones_10 = ones_5;
    for (step, shift) in [5, 10, 20, 10, 50, 100, 50].into_iter().enumerate() {
        let other = match step {
            3 => ones_10,
            6 => ones_50,
            _ => ones,
        };
        ones = times!(squared(lanes, ones, shift), other);
        match step {
            0 => ones_10 = ones,
            3 => ones_50 = ones,
            _ => {}
        }
    }
    [ones, eleven]
}

/// a^(p - 2); that of 0 is 0.
#[inline(always)]
fn inverse<L: Lanes>(lanes: L, a: L::Factor) -> L::Product {
    let [ones, eleven] = powers(lanes, a);
    lanes.mul(squared(lanes, ones, 5), eleven)
}

/// a^((p - 5) / 8).
#[inline(always)]
pub(super) fn root_power<L: Lanes>(lanes: L, a: L::Factor) -> L::Product {
    let [ones, _] = powers(lanes, a);
    lanes.mul(squared(lanes, ones, 2), a)
}

/// Writes the fractions as bytes, with one inversion for all (Montgomery's trick). `out` may end
/// within the last vector.
#[inline(always)]
pub(super) fn store_affine<L: Lanes>(lanes: L, fractions: &[Fraction<L>], out: &mut [Point]) {
    let (nothing, one) = (constant(lanes, &[0; 32]), small(lanes, 1));
    // A denominator of 0 would spoil the others: x / z becomes 0 / 1.
    let mut safe = Vec::with_capacity(fractions.len());
    // The product of the denominators before each.
    let mut before = Vec::with_capacity(fractions.len());
    let mut product = lanes.factor(one);
    for fraction in fractions {
        let infinite = lanes.zero(fraction.z);
        let x = lanes.factor(lanes.select(infinite, nothing, fraction.x));
        let z = lanes.factor(lanes.select(infinite, one, fraction.z));
        safe.push((x, z));
        before.push(product);
        product = lanes.factor(lanes.mul(product, z));
    }
    let mut inverse = lanes.factor(inverse(lanes, product));
    let parts = out.chunks_mut(L::WIDTH).zip(safe).zip(before);
    for ((out, (x, z)), before) in parts.rev() {
        let u = lanes.mul(x, lanes.factor(lanes.mul(inverse, before)));
        inverse = lanes.factor(lanes.mul(inverse, z));
        let mut block = [[0; 32]; WIDEST];
        lanes.store(u, &mut block);
        out.copy_from_slice(&block[..out.len()]);
    }
}
