//! GF(2^255 - 19) on vector units, chosen at run time: several elements at once, one per lane.
//!
//! What is multiplied and what is added have types of their own, [`Lanes::Factor`] and
//! [`Lanes::Product`]. They say how large limbs may be, which each unit decides for itself: one
//! carries after multiplying, another after adding. So code written against [`Lanes`] carries as
//! seldom as the unit allows, and cannot overflow.

use std::sync::LazyLock;

#[cfg(target_arch = "x86_64")]
use pulp::x86::V3;

#[cfg(target_arch = "x86_64")]
use super::ifma::Ifma;
use super::portable::Portable;
use super::{Point, hash, ladder};

/// The most lanes that any unit has.
pub(super) const WIDEST: usize = 8;

/// `WIDTH` field elements side by side.
pub(super) trait Lanes: Copy + Send + Sync {
    /// What multiplication gives, and what can be added and subtracted.
    type Product: Copy;

    /// What can be multiplied: a product, or the sum or difference of two.
    type Factor: Copy;

    /// One choice per lane.
    type Mask: Copy;

    /// At most [`WIDEST`].
    const WIDTH: usize;

    /// Runs `work` with the vector unit's instructions enabled.
    fn run<W: Work>(self, work: W) -> W::Output;

    /// Reads the first `WIDTH` points, without their highest bits.
    fn load(self, points: &[Point; WIDEST]) -> Self::Product;

    /// Writes the only forms below 2^255 - 19. Leaves the points after the first `WIDTH`.
    fn store(self, value: Self::Product, points: &mut [Point; WIDEST]);

    fn mul(self, a: Self::Factor, b: Self::Factor) -> Self::Product;

    fn square(self, a: Self::Factor) -> Self::Product;

    fn add(self, a: Self::Product, b: Self::Product) -> Self::Factor;

    fn sub(self, a: Self::Product, b: Self::Product) -> Self::Factor;

    /// a + 121665 b.
    fn add_scaled(self, a: Self::Product, b: Self::Factor) -> Self::Factor;

    fn factor(self, a: Self::Product) -> Self::Factor;

    fn product(self, a: Self::Factor) -> Self::Product;

    /// The same choice in all lanes: `bit` is 0 or 1.
    fn mask(self, bit: u8) -> Self::Mask;

    /// Where the element is 0.
    fn zero(self, a: Self::Product) -> Self::Mask;

    /// Where the element, taken below 2^255 - 19, is odd.
    fn odd(self, a: Self::Product) -> Self::Mask;

    /// `yes` where the mask is set, otherwise `no`.
    fn select(self, mask: Self::Mask, yes: Self::Product, no: Self::Product) -> Self::Product;

    fn select_factor(self, mask: Self::Mask, yes: Self::Factor, no: Self::Factor) -> Self::Factor;
}

/// Something that any unit can do.
pub(super) trait Work {
    type Output;

    fn with<L: Lanes>(self, lanes: L) -> Self::Output;
}

/// The same element in all lanes.
#[inline(always)]
pub(super) fn constant<L: Lanes>(lanes: L, value: &Point) -> L::Product {
    lanes.load(&[*value; WIDEST])
}

/// A small number in all lanes.
#[inline(always)]
pub(super) fn small<L: Lanes>(lanes: L, value: u32) -> L::Product {
    let mut bytes = [0; 32];
    bytes[..4].copy_from_slice(&value.to_le_bytes());
    constant(lanes, &bytes)
}

/// A vector unit that this machine has.
#[derive(Clone, Copy, Debug)]
pub(super) enum Unit {
    #[cfg(target_arch = "x86_64")]
    Ifma(Ifma),
    #[cfg(target_arch = "x86_64")]
    Avx2(V3),
    Portable,
}

impl Unit {
    /// All that this machine has, fastest first.
    pub(super) fn all() -> Vec<Self> {
        let mut units = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            units.extend(Ifma::try_new().map(Self::Ifma));
            units.extend(V3::try_new().map(Self::Avx2));
        }
        units.push(Self::Portable);
        units
    }

    /// The fastest that this machine has and that computes what the portable code does.
    pub(super) fn fastest() -> Self {
        static FASTEST: LazyLock<Unit> = LazyLock::new(|| {
            let expected = Unit::Portable.probe();
            let right = |unit: &Unit| unit.probe() == expected;
            Unit::all().into_iter().find(right).unwrap_or(Unit::Portable)
        });
        *FASTEST
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Ifma(_) => "AVX-512 IFMA",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => "AVX2",
            Self::Portable => "portable",
        }
    }

    /// Does it on this unit.
    pub(super) fn run<W: Work>(self, work: W) -> W::Output {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Ifma(lanes) => lanes.run(work),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(lanes) => lanes.run(work),
            Self::Portable => Portable.run(work),
        }
    }

    /// What it makes of a few fixed points.
    fn probe(self) -> [[Point; WIDEST]; 2] {
        let mut fields = [[[0; 32]; 2]; WIDEST];
        for (at, pair) in (0..).zip(&mut fields) {
            *pair = [[at; 32], [at ^ 0x55; 32]];
        }
        let [mut hashed, mut multiplied] = [[[0; 32]; WIDEST]; 2];
        self.run(hash::Map { fields: &fields, out: &mut hashed });
        let scalar = [0x58; 32];
        self.run(ladder::Multiply { scalar: &scalar, points: &hashed, out: &mut multiplied });
        [hashed, multiplied]
    }
}
