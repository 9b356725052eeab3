//! Products from integer multiplications, which take the same time for all operands.

use super::Gf128;

pub(super) fn mul_each(values: &mut [Gf128], by: Gf128) {
    for value in values {
        *value = mul(*value, by);
    }
}

pub(super) fn add_scaled(out: &mut [Gf128], a: &[Gf128], by: Gf128) {
    for (out, a) in out.iter_mut().zip(a) {
        *out += mul(*a, by);
    }
}

pub(super) fn add_products(out: &mut [Gf128], a: &[Gf128], b: &[Gf128]) {
    for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
        *out += mul(*a, *b);
    }
}

pub(super) fn dot(a: &[Gf128], b: &[Gf128]) -> Gf128 {
    a.iter().zip(b).fold(Gf128::ZERO, |sum, (a, b)| sum + mul(*a, *b))
}

/// Karatsuba's method, then the upper half folded into the lower one: x^128 is x^7 + x^2 + x + 1.
pub(super) fn mul(a: Gf128, b: Gf128) -> Gf128 {
    let [a_low, a_high] = halves(a.0);
    let [b_low, b_high] = halves(b.0);
    let low = carryless(a_low, b_low);
    let high = carryless(a_high, b_high);
    let middle = carryless(a_low ^ a_high, b_low ^ b_high) ^ low ^ high;
    let low = low ^ middle << 64;
    let high = high ^ middle >> 64;
    let over = high >> 127 ^ high >> 126 ^ high >> 121;
    let fold = |h: u128| h ^ h << 1 ^ h << 2 ^ h << 7;
    Gf128(low ^ fold(high) ^ fold(over))
}

#[expect(clippy::cast_possible_truncation, reason = "halves")]
fn halves(word: u128) -> [u64; 2] {
    [word as u64, (word >> 64) as u64]
}

/// The product of two polynomials over GF(2). Every fifth bit is multiplied at a time, so that the
/// sums of at most 13 bits do not reach the next bit that counts.
fn carryless(a: u64, b: u64) -> u128 {
    const EVERY_FIFTH: u128 = {
        let mut mask = 0;
        let mut bit = 0;
        while bit < 128 {
            mask |= 1 << bit;
            bit += 5;
        }
        mask
    };
    let fifth = |word: u64, at: usize| u128::from(word) & EVERY_FIFTH << at;
    let a: [u128; 5] = std::array::from_fn(|at| fifth(a, at));
    let b: [u128; 5] = std::array::from_fn(|at| fifth(b, at));
    let mut product = 0;
    for at in 0..5 {
        let sum = (0..5).fold(0, |sum, i| sum ^ (a[i] * b[(5 + at - i) % 5]));
        // Shifted up by `at`, the mask lacks no bit: it has all that are `at` modulo 5.
        product |= sum & EVERY_FIFTH << at;
    }
    product
}
