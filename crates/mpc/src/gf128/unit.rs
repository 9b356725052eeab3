//! Which instructions multiply, chosen at run time.

use super::{Gf128, portable};

#[cfg(target_arch = "x86_64")]
use super::clmul::{four, one};
#[cfg(target_arch = "x86_64")]
use archmage::{SimdToken, X64CryptoToken, X64V4xToken};

/// A unit that this machine has.
#[derive(Clone, Copy, Debug)]
pub(super) enum Unit {
    /// VPCLMULQDQ on AVX-512: four products at once.
    #[cfg(target_arch = "x86_64")]
    Four(X64V4xToken),
    /// PCLMULQDQ: one product at a time.
    #[cfg(target_arch = "x86_64")]
    One(X64CryptoToken),
    Portable,
}

/// Calls the function of this name of the unit's module.
macro_rules! on {
    ($unit:expr, $function:ident($($argument:expr),*)) => {
        match $unit {
            #[cfg(target_arch = "x86_64")]
            Unit::Four(token) => four::$function(token, $($argument),*),
            #[cfg(target_arch = "x86_64")]
            Unit::One(token) => one::$function(token, $($argument),*),
            Unit::Portable => portable::$function($($argument),*),
        }
    };
}

impl Unit {
    /// All that this machine has, widest first.
    #[cfg(test)]
    pub(super) fn all() -> Vec<Self> {
        let mut units = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            units.extend(X64V4xToken::summon().map(Self::Four));
            units.extend(X64CryptoToken::summon().map(Self::One));
        }
        units.push(Self::Portable);
        units
    }

    /// The best for slices.
    #[inline]
    pub(super) fn widest() -> Self {
        #[cfg(target_arch = "x86_64")]
        if let Some(token) = X64V4xToken::summon() {
            return Self::Four(token);
        }
        Self::narrow()
    }

    /// The best for a single product.
    #[inline]
    pub(super) fn narrow() -> Self {
        #[cfg(target_arch = "x86_64")]
        if let Some(token) = X64CryptoToken::summon() {
            return Self::One(token);
        }
        Self::Portable
    }

    #[inline]
    pub(super) fn mul(self, a: Gf128, b: Gf128) -> Gf128 {
        on!(self, mul(a, b))
    }

    pub(super) fn mul_each(self, values: &mut [Gf128], by: Gf128) {
        on!(self, mul_each(values, by));
    }

    pub(super) fn add_scaled(self, out: &mut [Gf128], a: &[Gf128], by: Gf128) {
        on!(self, add_scaled(out, a, by));
    }

    pub(super) fn add_products(self, out: &mut [Gf128], a: &[Gf128], b: &[Gf128]) {
        on!(self, add_products(out, a, b));
    }

    pub(super) fn dot(self, a: &[Gf128], b: &[Gf128]) -> Gf128 {
        on!(self, dot(a, b))
    }
}
