//! The field GF(2^128), modulo x^128 + x^7 + x^2 + x + 1.
//!
//! Bit i of an element is the coefficient of x^i. That is the polynomial of GCM (NIST SP 800-38D,
//! section 6.3) with the bits in the opposite order.
//!
//! Nothing here branches on values or uses addresses that depend on them. Products of slices run
//! on the widest unit that the machine has: four at once with VPCLMULQDQ and AVX-512, one at a
//! time with PCLMULQDQ, else integer multiplications.

use std::ops::{Add, AddAssign, Mul, MulAssign, Sub, SubAssign};

use bytemuck::{Pod, Zeroable};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};
use zeroize::Zeroize;

#[cfg(target_arch = "x86_64")]
mod clmul;
mod portable;
#[cfg(test)]
mod tests;
mod unit;

use unit::Unit;

/// An element. It has no `Debug`, because most elements are secret.
#[derive(Clone, Copy, PartialEq, Eq, Default, Pod, Zeroable)]
#[repr(transparent)]
pub struct Gf128(pub u128);

impl Gf128 {
    /// The neutral element of addition.
    pub const ZERO: Self = Self(0);

    /// The neutral element of multiplication.
    pub const ONE: Self = Self(1);

    /// The element x.
    pub const X: Self = Self(2);

    /// Bit i of the number that the bytes are, lowest byte first, is the coefficient of x^i.
    pub const fn from_le_bytes(bytes: [u8; 16]) -> Self {
        Self(u128::from_le_bytes(bytes))
    }

    /// The inverse of [`Gf128::from_le_bytes`].
    pub const fn to_le_bytes(self) -> [u8; 16] {
        self.0.to_le_bytes()
    }

    /// The multiplicative inverse; zero for zero.
    #[must_use]
    pub fn inverse(self) -> Self {
        // The exponent 2^128 - 2 has the bits 1 to 127.
        let mut square = self;
        let mut inverse = Self::ONE;
        for _ in 1..128 {
            square *= square;
            inverse *= square;
        }
        inverse
    }
}

/// Multiplies every value by the same element.
pub fn mul_each(values: &mut [Gf128], by: Gf128) {
    Unit::widest().mul_each(values, by);
}

/// `out[i] += a[i] * by`.
///
/// # Panics
/// If the lengths differ.
pub fn add_scaled(out: &mut [Gf128], a: &[Gf128], by: Gf128) {
    assert_eq!(out.len(), a.len(), "as many products as sums");
    Unit::widest().add_scaled(out, a, by);
}

/// `out[i] += a[i] * b[i]`.
///
/// # Panics
/// If the lengths differ.
pub fn add_products(out: &mut [Gf128], a: &[Gf128], b: &[Gf128]) {
    assert_eq!(out.len(), a.len(), "as many products as sums");
    assert_eq!(out.len(), b.len(), "as many products as sums");
    Unit::widest().add_products(out, a, b);
}

/// The sum of all `a[i] * b[i]`.
///
/// # Panics
/// If the lengths differ.
pub fn dot(a: &[Gf128], b: &[Gf128]) -> Gf128 {
    assert_eq!(a.len(), b.len(), "as many factors on either side");
    Unit::widest().dot(a, b)
}

impl Mul for Gf128 {
    type Output = Self;

    #[inline]
    fn mul(self, by: Self) -> Self {
        Unit::narrow().mul(self, by)
    }
}

impl MulAssign for Gf128 {
    fn mul_assign(&mut self, by: Self) {
        *self = *self * by;
    }
}

#[expect(clippy::suspicious_arithmetic_impl, reason = "the field has characteristic 2")]
impl Add for Gf128 {
    type Output = Self;

    #[inline]
    fn add(self, other: Self) -> Self {
        Self(self.0 ^ other.0)
    }
}

#[expect(clippy::suspicious_op_assign_impl, reason = "the field has characteristic 2")]
impl AddAssign for Gf128 {
    #[inline]
    fn add_assign(&mut self, other: Self) {
        self.0 ^= other.0;
    }
}

#[expect(clippy::suspicious_arithmetic_impl, reason = "the field has characteristic 2")]
impl Sub for Gf128 {
    type Output = Self;

    #[inline]
    fn sub(self, other: Self) -> Self {
        self + other
    }
}

#[expect(clippy::suspicious_op_assign_impl, reason = "the field has characteristic 2")]
impl SubAssign for Gf128 {
    #[inline]
    fn sub_assign(&mut self, other: Self) {
        *self += other;
    }
}

impl Zeroize for Gf128 {
    fn zeroize(&mut self) {
        self.0.zeroize();
    }
}

impl ConstantTimeEq for Gf128 {
    fn ct_eq(&self, other: &Self) -> Choice {
        self.0.ct_eq(&other.0)
    }
}

impl ConditionallySelectable for Gf128 {
    fn conditional_select(a: &Self, b: &Self, choice: Choice) -> Self {
        Self(u128::conditional_select(&a.0, &b.0, choice))
    }
}
