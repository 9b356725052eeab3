//! One element in general registers: five limbs of 51 bits.
//!
//! Limbs of products are below 2^51 + 2^18, of factors below 2^53.

use std::hint::black_box;

use super::Point;
use super::lanes::{Lanes, WIDEST, Work};

const BITS: u32 = 51;
const LOW: u64 = (1 << BITS) - 1;

/// Five limbs of 51 bits of a number below 2^255; the highest bit is not looked at.
#[inline(always)]
pub(super) fn limbs(point: &Point) -> [u64; 5] {
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(point.as_chunks::<8>().0) {
        *word = u64::from_le_bytes(*bytes);
    }
    let [a, b, c, d] = words;
    [
        a & LOW,
        (a >> 51 | b << 13) & LOW,
        (b >> 38 | c << 26) & LOW,
        (c >> 25 | d << 39) & LOW,
        d >> 12 & LOW,
    ]
}

/// The number that five limbs below 2^51 stand for.
#[inline(always)]
pub(super) fn point([a, b, c, d, e]: [u64; 5]) -> Point {
    let words = [a | b << 51, b >> 13 | c << 38, c >> 26 | d << 25, d >> 39 | e << 12];
    let mut point = [0; 32];
    for (bytes, word) in point.as_chunks_mut::<8>().0.iter_mut().zip(words) {
        *bytes = word.to_le_bytes();
    }
    point
}

#[derive(Clone, Copy)]
pub(super) struct Portable;

/// Carries the sums of products.
#[inline(always)]
fn carried(mut sums: [u128; 5]) -> [u64; 5] {
    let mut limbs = [0; 5];
    let mut carry = 0;
    for (limb, sum) in limbs.iter_mut().zip(&mut sums) {
        *sum += carry;
        *limb = low(*sum);
        carry = *sum >> BITS;
    }
    let first = u128::from(limbs[0]) + 19 * carry;
    limbs[0] = low(first);
    #[expect(clippy::cast_possible_truncation, reason = "below 2^30")]
    let carry = (first >> BITS) as u64;
    limbs[1] += carry;
    limbs
}

#[inline(always)]
fn low(sum: u128) -> u64 {
    #[expect(clippy::cast_possible_truncation, reason = "the low bits are wanted")]
    let low = sum as u64 & LOW;
    low
}

/// The only form below 2^255 - 19.
#[inline(always)]
fn canonical(mut limbs: [u64; 5]) -> [u64; 5] {
    // The second time it is below 2^255 + 19, and the third nothing is left to carry.
    for _ in 0..2 {
        limbs = carried(limbs.map(u128::from));
    }
    // 1 if it is not below 2^255 - 19.
    let mut over = (limbs[0] + 19) >> BITS;
    for limb in &limbs[1..] {
        over = (limb + over) >> BITS;
    }
    let mut carry = 19 * over;
    for limb in &mut limbs {
        *limb += carry;
        carry = *limb >> BITS;
        *limb &= LOW;
    }
    limbs
}

#[inline(always)]
fn choose(mask: u64, yes: [u64; 5], no: [u64; 5]) -> [u64; 5] {
    let mut chosen = no;
    for (chosen, yes) in chosen.iter_mut().zip(yes) {
        *chosen ^= mask & (*chosen ^ yes);
    }
    chosen
}

impl Lanes for Portable {
    type Product = [u64; 5];
    type Factor = [u64; 5];
    type Mask = u64;

    const WIDTH: usize = 1;

    #[inline(always)]
    fn run<W: Work>(self, work: W) -> W::Output {
        work.with(self)
    }

    #[inline(always)]
    fn load(self, points: &[Point; WIDEST]) -> [u64; 5] {
        limbs(&points[0])
    }

    #[inline(always)]
    fn store(self, value: [u64; 5], points: &mut [Point; WIDEST]) {
        points[0] = point(canonical(value));
    }

    #[inline(always)]
    fn mul(self, a: [u64; 5], b: [u64; 5]) -> [u64; 5] {
        let times = |a: u64, b: u64| u128::from(a) * u128::from(b);
        let [_, b1, b2, b3, b4] = b.map(|limb| 19 * limb);
        let [a0, a1, a2, a3, a4] = a;
        let b0 = b[0];
        carried([
            times(a0, b0) + times(a1, b4) + times(a2, b3) + times(a3, b2) + times(a4, b1),
            times(a0, b[1]) + times(a1, b0) + times(a2, b4) + times(a3, b3) + times(a4, b2),
            times(a0, b[2]) + times(a1, b[1]) + times(a2, b0) + times(a3, b4) + times(a4, b3),
            times(a0, b[3]) + times(a1, b[2]) + times(a2, b[1]) + times(a3, b0) + times(a4, b4),
            times(a0, b[4]) + times(a1, b[3]) + times(a2, b[2]) + times(a3, b[1]) + times(a4, b0),
        ])
    }

    #[inline(always)]
    fn square(self, [a, b, c, d, e]: [u64; 5]) -> [u64; 5] {
        let times = |a: u64, b: u64| u128::from(a) * u128::from(b);
        let [d19, e19] = [19 * d, 19 * e];
        carried([
            times(a, a) + 2 * (times(b, e19) + times(c, d19)),
            times(d, d19) + 2 * (times(a, b) + times(c, e19)),
            times(b, b) + 2 * (times(a, c) + times(d, e19)),
            times(e, e19) + 2 * (times(a, d) + times(b, c)),
            times(c, c) + 2 * (times(a, e) + times(b, d)),
        ])
    }

    #[inline(always)]
    fn add(self, mut a: [u64; 5], b: [u64; 5]) -> [u64; 5] {
        for (a, b) in a.iter_mut().zip(b) {
            *a += b;
        }
        a
    }

    #[inline(always)]
    fn sub(self, mut a: [u64; 5], b: [u64; 5]) -> [u64; 5] {
        // Twice the prime keeps every limb from falling below zero.
        const TWICE: [u64; 5] = [2 * (LOW - 18), 2 * LOW, 2 * LOW, 2 * LOW, 2 * LOW];
        for ((a, b), twice) in a.iter_mut().zip(b).zip(TWICE) {
            *a = *a + twice - b;
        }
        a
    }

    #[inline(always)]
    fn add_scaled(self, a: [u64; 5], b: [u64; 5]) -> [u64; 5] {
        let mut sums = a.map(u128::from);
        for (sum, b) in sums.iter_mut().zip(b) {
            *sum += 121_665 * u128::from(b);
        }
        carried(sums)
    }

    #[inline(always)]
    fn factor(self, a: [u64; 5]) -> [u64; 5] {
        a
    }

    #[inline(always)]
    fn product(self, a: [u64; 5]) -> [u64; 5] {
        carried(a.map(u128::from))
    }

    #[inline(always)]
    fn mask(self, bit: u8) -> u64 {
        // Without the barrier, the compiler would be free to make branches of it.
        black_box(0u64.wrapping_sub(bit.into()))
    }

    #[inline(always)]
    fn zero(self, a: [u64; 5]) -> u64 {
        let [a, b, c, d, e] = canonical(a);
        let any = a | b | c | d | e;
        let is = ((any | any.wrapping_neg()) >> 63) ^ 1;
        black_box(is.wrapping_neg())
    }

    #[inline(always)]
    fn odd(self, a: [u64; 5]) -> u64 {
        black_box((canonical(a)[0] & 1).wrapping_neg())
    }

    #[inline(always)]
    fn select(self, mask: u64, yes: [u64; 5], no: [u64; 5]) -> [u64; 5] {
        choose(mask, yes, no)
    }

    #[inline(always)]
    fn select_factor(self, mask: u64, yes: [u64; 5], no: [u64; 5]) -> [u64; 5] {
        choose(mask, yes, no)
    }
}
