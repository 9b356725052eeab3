use bytemuck::Pod;
use zeroize::Zeroize;

use crate::gf128::Gf128;

/// What a table holds: bits that are added without carry. All zeros is the neutral element.
pub trait Value: Pod + Zeroize + Send + Sync {
    /// The sum.
    #[must_use]
    fn xor(self, other: Self) -> Self;
}

impl Value for Gf128 {
    #[inline]
    fn xor(self, other: Self) -> Self {
        self + other
    }
}

impl Value for u64 {
    #[inline]
    fn xor(self, other: Self) -> Self {
        self ^ other
    }
}

/// 80 bits: 2^-40 for each of 2^40 pairs of items.
impl Value for [u8; 10] {
    #[inline]
    fn xor(self, other: Self) -> Self {
        // Two words, not ten bytes.
        let [(low, high), (other_low, other_high)] = [self, other].map(words);
        let mut sum = [0; 10];
        sum[..8].copy_from_slice(&(low ^ other_low).to_le_bytes());
        sum[8..].copy_from_slice(&(high ^ other_high).to_le_bytes());
        sum
    }
}

#[inline]
fn words(value: [u8; 10]) -> (u64, u16) {
    let low = value.first_chunk().expect("ten are more than eight");
    let high = value.last_chunk().expect("ten are more than two");
    (u64::from_le_bytes(*low), u16::from_le_bytes(*high))
}
