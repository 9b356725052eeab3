//! Curve25519 for many points at once.
//!
//! Points are u-coordinates, 32 bytes with the lowest first (RFC 7748). A vector unit does several
//! points side by side: eight with AVX-512 IFMA, four with AVX2. [`unit()`] says which one this
//! machine uses; all of them compute the same.
//!
//! Everything takes the same time whatever the scalar, the points and the messages are; only how
//! many there are, how long they are, and where a point was refused shows.
//!
//! A u-coordinate may belong to the curve's twist. The twist is secure as well, so the scalar is
//! safe; but a party's points stay on the side where they began, so items must be hashed with
//! [`hash_to_curve`], whose results are all on the curve, and must never be taken as u-coordinates
//! themselves: that would show one bit of each.

#![expect(clippy::inline_always, reason = "else it would lack the vector unit's instructions")]
#![expect(clippy::many_single_char_names, reason = "formulas")]

#[cfg(target_arch = "x86_64")]
mod avx2;
mod hash;
#[cfg(target_arch = "x86_64")]
mod ifma;
mod ladder;
mod lanes;
mod portable;

use rand_core::CryptoRng;
use thiserror::Error;
use zeroize::{Zeroize, ZeroizeOnDrop};

use self::hash::{Map, ToField};
use self::ladder::Multiply;
use self::lanes::Unit;

/// A u-coordinate, lowest byte first.
pub type Point = [u8; 32];

/// The point whose multiples are the curve's prime-order group: u = 9.
pub const BASE: Point = {
    let mut base = [0; 32];
    base[0] = 9;
    base
};

/// Messages that are hashed before their points are computed.
const CHUNK: usize = 512;

/// A secret scalar, clamped as RFC 7748 (section 5) says: a multiple of the cofactor, 8, from 2^254
/// to 2^255.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Scalar([u8; 32]);

impl Scalar {
    /// Draws one.
    pub fn random(rng: &mut impl CryptoRng) -> Self {
        let mut bytes = [0; 32];
        rng.fill_bytes(&mut bytes);
        let scalar = Self::clamped(&bytes);
        bytes.zeroize();
        scalar
    }

    /// Clamps these bytes, the lowest first.
    pub fn clamped(bytes: &[u8; 32]) -> Self {
        let mut scalar = Self(*bytes);
        scalar.0[0] &= 0b1111_1000;
        scalar.0[31] &= 0b0111_1111;
        scalar.0[31] |= 0b0100_0000;
        scalar
    }
}

/// A point is in a group of at most eight, so that its product would be the same for every scalar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("point {at} is of small order")]
pub struct SmallOrder {
    /// Its index, the first if there are several.
    pub at: usize,
}

/// A point is not written in its only proper form: its number is 2^255 - 19 or more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("point {at} is not below 2^255 - 19")]
pub struct NotCanonical {
    /// Its index, the first if there are several.
    pub at: usize,
}

/// The vector unit that computes here: `AVX-512 IFMA`, `AVX2` or `portable`.
pub fn unit() -> &'static str {
    Unit::fastest().name()
}

/// The names of all vector units that this machine can compute with, fastest first.
pub fn units() -> Vec<&'static str> {
    Unit::all().into_iter().map(Unit::name).collect()
}

/// Checks that points are written in their only proper form. A protocol should refuse others before
/// it multiplies them: what is the same point should be the same bytes.
///
/// # Errors
///
/// Names the first point that is not.
pub fn check_canonical(points: &[Point]) -> Result<(), NotCanonical> {
    let canonical = |point: &Point| {
        let [first, middle @ .., last] = point;
        let highest = *last == 0x7f && middle.iter().all(|byte| *byte == 0xff);
        *last < 0x80 && !(highest && *first >= 0xed)
    };
    match points.iter().position(|point| !canonical(point)) {
        Some(at) => Err(NotCanonical { at }),
        None => Ok(()),
    }
}

/// Multiplies every point by the scalar: X25519 of RFC 7748 (section 5), with `out[i]` for
/// `points[i]`. Like X25519 it ignores the highest bit of a point and takes numbers from
/// 2^255 - 19 on for what they are modulo 2^255 - 19; see [`check_canonical`].
///
/// # Errors
///
/// If a point is of small order; its product is 0, the other products are right nevertheless.
///
/// # Panics
///
/// If `out` is not as long as `points`.
pub fn multiply(scalar: &Scalar, points: &[Point], out: &mut [Point]) -> Result<(), SmallOrder> {
    multiply_on(Unit::fastest(), scalar, points, out)
}

/// [`multiply`] on the vector unit of this name, for tests and measurements; the one that [`unit`]
/// names if there is no such unit.
#[doc(hidden)]
pub fn multiply_with(
    unit: &str,
    scalar: &Scalar,
    points: &[Point],
    out: &mut [Point],
) -> Result<(), SmallOrder> {
    multiply_on(named(unit), scalar, points, out)
}

/// Hashes messages to points of the prime-order group, with `out[i]` for `messages[i]`: suite
/// `curve25519_XMD:SHA-512_ELL2_RO_` of RFC 9380, of which the u-coordinates are kept. `domain`
/// separates uses of the hash from each other (section 3.1); it should not be empty.
///
/// One in 2^252 results would be the point at infinity, which is written as 0 and which
/// [`multiply`] refuses.
///
/// # Panics
///
/// If `out` is not as long as `messages`.
pub fn hash_to_curve<M: AsRef<[u8]>>(domain: &[u8], messages: &[M], out: &mut [Point]) {
    hash_on(Unit::fastest(), domain, messages, out);
}

/// [`hash_to_curve`] on the vector unit of this name, for tests and measurements; the one that
/// [`unit`] names if there is no such unit.
#[doc(hidden)]
pub fn hash_to_curve_with<M: AsRef<[u8]>>(
    unit: &str,
    domain: &[u8],
    messages: &[M],
    out: &mut [Point],
) {
    hash_on(named(unit), domain, messages, out);
}

fn named(name: &str) -> Unit {
    Unit::all().into_iter().find(|unit| unit.name() == name).unwrap_or_else(Unit::fastest)
}

fn multiply_on(
    unit: Unit,
    Scalar(scalar): &Scalar,
    points: &[Point],
    out: &mut [Point],
) -> Result<(), SmallOrder> {
    assert_eq!(points.len(), out.len(), "a place for each product");
    unit.run(Multiply { scalar, points, out });
    match out.iter().position(|product| product.iter().fold(0, |any, byte| any | byte) == 0) {
        Some(at) => Err(SmallOrder { at }),
        None => Ok(()),
    }
}

fn hash_on<M: AsRef<[u8]>>(unit: Unit, domain: &[u8], messages: &[M], out: &mut [Point]) {
    assert_eq!(messages.len(), out.len(), "a place for each point");
    let to_field = ToField::new(domain);
    let mut fields = Vec::with_capacity(CHUNK.min(messages.len()));
    for (messages, out) in messages.chunks(CHUNK).zip(out.chunks_mut(CHUNK)) {
        fields.clear();
        fields.extend(messages.iter().map(|message| to_field.hash(message.as_ref())));
        unit.run(Map { fields: &fields, out });
    }
}

#[cfg(test)]
mod tests;
