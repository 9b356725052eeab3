//! Hashing to the curve (RFC 9380), suite `curve25519_XMD:SHA-512_ELL2_RO_`.

use sha2::{Digest, Sha512};

use super::Point;
use super::ladder::{Fraction, doubled, root_power, store_affine};
use super::lanes::{Lanes, WIDEST, Work, constant, small};

/// Vectors whose denominators are inverted together.
const BATCH: usize = 64;

/// The curve's coefficient: v^2 = u^3 + 486662 u^2 + u.
const J: u32 = 486_662;

/// A square root of -1: 2^((p - 1) / 4).
const ROOT_OF_MINUS_ONE: Point = [
    0xb0, 0xa0, 0x0e, 0x4a, 0x27, 0x1b, 0xee, 0xc4, 0x78, 0xe4, 0x2f, 0xad, 0x06, 0x18, 0x43, 0x2f,
    0xa7, 0xd7, 0xfb, 0x3d, 0x99, 0x00, 0x4d, 0x2b, 0x0b, 0xdf, 0xc1, 0x4f, 0x80, 0x24, 0x83, 0x2b,
];

/// 2^((p + 3) / 8), which is 1 + i.
const TWO_TO_THE_EIGHTH: Point = [
    0xb1, 0xa0, 0x0e, 0x4a, 0x27, 0x1b, 0xee, 0xc4, 0x78, 0xe4, 0x2f, 0xad, 0x06, 0x18, 0x43, 0x2f,
    0xa7, 0xd7, 0xfb, 0x3d, 0x99, 0x00, 0x4d, 0x2b, 0x0b, 0xdf, 0xc1, 0x4f, 0x80, 0x24, 0x83, 0x2b,
];

/// Hashes messages to pairs of field elements (RFC 9380, sections 5.2 and 5.3.1).
pub(super) struct ToField {
    /// Has read the padding of one block.
    start: Sha512,
    /// The domain and its length.
    suffix: Vec<u8>,
}

impl ToField {
    pub(super) fn new(domain: &[u8]) -> Self {
        const LONG: &[u8] = b"H2C-OVERSIZE-DST-";
        let mut suffix = domain.to_vec();
        if domain.len() > 255 {
            suffix = Sha512::new().chain_update(LONG).chain_update(domain).finalize().to_vec();
        }
        suffix.push(u8::try_from(suffix.len()).expect("at most 255"));
        Self { start: Sha512::new().chain_update([0; 128]), suffix }
    }

    pub(super) fn hash(&self, message: &[u8]) -> [Point; 2] {
        // Two elements of 48 bytes.
        const LENGTH: [u8; 3] = [0, 96, 0];
        let start = self.start.clone().chain_update(message).chain_update(LENGTH);
        let start = start.chain_update(&self.suffix).finalize();
        let block = |of: &[u8], number: u8| {
            Sha512::new()
                .chain_update(of)
                .chain_update([number])
                .chain_update(&self.suffix)
                .finalize()
        };
        let first = block(&start, 1);
        let mut mixed = start;
        for (mixed, first) in mixed.iter_mut().zip(&first) {
            *mixed ^= first;
        }
        let second = block(&mixed, 2);
        let mut bytes = [0; 96];
        bytes[..64].copy_from_slice(&first);
        bytes[64..].copy_from_slice(&second[..32]);
        let [first, second] = bytes.as_chunks::<48>().0 else { unreachable!("two halves of 96") };
        [reduced(first), reduced(second)]
    }
}

/// A number of 384 bits, highest byte first, as an element below 2^255.
fn reduced(bytes: &[u8; 48]) -> Point {
    let mut words = [0; 6];
    for (word, bytes) in words.iter_mut().rev().zip(bytes.as_chunks::<8>().0) {
        *word = u64::from_be_bytes(*bytes);
    }
    let [a, b, c, d, e, f] = words;
    let mut low = [a, b, c, d];
    // 2^256 is 38.
    let over = add_scaled(&mut low, [e, f, 0, 0], 38);
    let over = add_scaled(&mut low, [over, 0, 0, 0], 38);
    add_scaled(&mut low, [over, 0, 0, 0], 38);
    // 2^255 is 19; the second time, only if it was almost 2^255.
    for _ in 0..2 {
        let over = low[3] >> 63;
        low[3] &= u64::MAX >> 1;
        add_scaled(&mut low, [over, 0, 0, 0], 19);
    }
    let mut point = [0; 32];
    for (bytes, word) in point.as_chunks_mut::<8>().0.iter_mut().zip(low) {
        *bytes = word.to_le_bytes();
    }
    point
}

/// Adds `scale` times the second number to the first. Returns what is left over.
#[expect(clippy::cast_possible_truncation, reason = "the low half is wanted")]
fn add_scaled(number: &mut [u64; 4], other: [u64; 4], scale: u64) -> u64 {
    let mut carry = 0;
    for (word, other) in number.iter_mut().zip(other) {
        let sum = u128::from(*word) + u128::from(other) * u128::from(scale) + carry;
        *word = sum as u64;
        carry = sum >> 64;
    }
    carry as u64
}

/// Maps pairs of field elements to points, adds the two points of a pair and multiplies the sum by
/// the cofactor, 8. The point at infinity becomes 0.
pub(super) struct Map<'a> {
    pub(super) fields: &'a [[Point; 2]],
    pub(super) out: &'a mut [Point],
}

impl Work for Map<'_> {
    type Output = ();

    #[inline(always)]
    fn with<L: Lanes>(self, lanes: L) {
        let size = BATCH * L::WIDTH;
        for (fields, out) in self.fields.chunks(size).zip(self.out.chunks_mut(size)) {
            let mut sums = Vec::with_capacity(BATCH);
            for pairs in fields.chunks(L::WIDTH) {
                let mut blocks = [[[0; 32]; WIDEST]; 2];
                for (lane, [first, second]) in pairs.iter().enumerate() {
                    blocks[0][lane] = *first;
                    blocks[1][lane] = *second;
                }
                let mut points = [elligator(lanes, lanes.load(&blocks[0])); 2];
                points[1] = elligator(lanes, lanes.load(&blocks[1]));
                let mut sum = added(lanes, points);
                for _ in 0..3 {
                    sum = doubled(lanes, sum);
                }
                sums.push(sum);
            }
            store_affine(lanes, &sums, out);
        }
    }
}

/// A point of the curve: u as a fraction, and v.
#[derive(Clone, Copy)]
struct Affine<L: Lanes> {
    u: Fraction<L>,
    v: L::Product,
}

macro_rules! arithmetic {
    ($lanes:ident) => {
        macro_rules! times {
            ($a:expr, $b:expr) => {
                $lanes.mul($lanes.factor($a), $lanes.factor($b))
            };
        }
        macro_rules! square {
            ($a:expr) => {
                $lanes.square($lanes.factor($a))
            };
        }
        macro_rules! plus {
            ($a:expr, $b:expr) => {
                $lanes.product($lanes.add($a, $b))
            };
        }
        macro_rules! minus {
            ($a:expr, $b:expr) => {
                $lanes.product($lanes.sub($a, $b))
            };
        }
    };
}

/// Elligator 2 (RFC 9380, section 6.7.1; appendix G.2.1 without fractions of v).
#[inline(always)]
fn elligator<L: Lanes>(lanes: L, field: L::Product) -> Affine<L> {
    arithmetic!(lanes);
    let nothing = constant(lanes, &[0; 32]);
    let i = constant(lanes, &ROOT_OF_MINUS_ONE);
    let j = small(lanes, J);
    // The first candidate is u = -J / (1 + 2 field^2); the second is 2 field^2 times the first.
    let ratio = square!(field);
    let ratio = plus!(ratio, ratio);
    let z = plus!(ratio, small(lanes, 1));
    let x = minus!(nothing, j);
    // The curve's equation at the first candidate gives g / z^3, which is never 0.
    let zz = square!(z);
    let zzz = times!(zz, z);
    let g = times!(plus!(times!(times!(j, ratio), x), zz), x);
    // root = g z^9 (g z^21)^((p - 5) / 8), so root^2 z^3 is g times a fourth root of 1.
    let z6 = square!(zzz);
    let gz9 = times!(times!(z6, zzz), g);
    let gz21 = times!(square!(z6), gz9);
    let root = times!(root_power(lanes, lanes.factor(gz21)), gz9);
    let check = times!(square!(root), zzz);
    let is_one = lanes.zero(minus!(check, g));
    let is_minus_one = lanes.zero(plus!(check, g));
    let is_i = lanes.zero(minus!(check, times!(g, i)));
    let other = times!(times!(root, field), constant(lanes, &TWO_TO_THE_EIGHTH));
    // The second candidate's right side is the first's times 2 field^2; 2^((p - 1) / 4) = i.
    let turned = times!(other, i);
    let v = lanes.select(is_i, turned, other);
    let u = times!(ratio, x);
    let v = lanes.select(is_minus_one, times!(root, i), v);
    let v = lanes.select(is_one, root, v);
    let u = lanes.select(is_minus_one, x, u);
    let u = lanes.select(is_one, x, u);
    // v is odd for the first candidate and even for the second.
    let v = lanes.select(lanes.odd(v), minus!(nothing, v), v);
    let negative = minus!(nothing, v);
    let v = lanes.select(is_one, negative, v);
    let v = lanes.select(is_minus_one, negative, v);
    Affine { u: Fraction { x: u, z }, v }
}

/// The u-coordinate of the sum.
#[inline(always)]
fn added<L: Lanes>(lanes: L, [a, b]: [Affine<L>; 2]) -> Fraction<L> {
    arithmetic!(lanes);
    let (left, right) = (times!(a.u.x, b.u.z), times!(b.u.x, a.u.z));
    let difference = minus!(right, left);
    let z = times!(a.u.z, b.u.z);
    let rise = minus!(b.v, a.v);
    // u = (rise / difference)^2 - J - a - b, with the slope's denominator in units of z.
    let squared = square!(difference);
    let slope = times!(times!(square!(rise), square!(z)), z);
    let rest = plus!(times!(small(lanes, J), z), plus!(left, right));
    let sum = Fraction::<L> { x: minus!(slope, times!(rest, squared)), z: times!(z, squared) };
    // The same point twice has no slope. A point and its negative make infinity, as they should.
    let double = doubled(lanes, a.u);
    let same_v = lanes.zero(rise);
    let same_u = lanes.zero(difference);
    let x = lanes.select(same_v, double.x, sum.x);
    let z = lanes.select(same_v, double.z, sum.z);
    Fraction { x: lanes.select(same_u, x, sum.x), z: lanes.select(same_u, z, sum.z) }
}
