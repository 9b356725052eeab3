//! The dual of an expand-convolute code, which turns sparse noise into pseudorandom vectors.
//!
//! Expand-convolute codes are from "Expand-Convolute Codes for Pseudorandom Correlation Generators
//! from LPN" (Raghuraman, Rindal, Tanguy; Crypto 2023, eprint 2023/882). This is their ExConv
//! 7 x 24 in systematic form and at rate 1/2, with the noise over GF(2^128): of 2n noise positions,
//! the second half is convolved twice, and output i is noise position i plus seven positions of
//! what was convolved.
//!
//! - *Expander*: seven positions an output, uniform and independent.
//! - *Convolution*: position i becomes x_i + y_(i-1) + sum over j of c_ij y_(i-j), with uniform
//!   bits c_ij for the 24 positions of the last three aligned blocks of eight and, within i's own
//!   block, all of those before it. The window thus has 24 to 31 positions. As in the authors'
//!   implementation (libOTe, ExConvCode.h) one tap is fixed to 1 so that the state does not die,
//!   and there are two passes of which the second begins with the state that the first ended
//!   with: after one pass, an output whose seven positions are all near one end would be a test of
//!   low weight.
//! - *Multiplication*: what comes from earlier blocks is multiplied by the field's generator x.
//!   Without that the code is binary and commutes with every linear map of the 128 bits, so the
//!   outputs lie in the span over GF(2) of the few noise values. Outputs whose combination cancels
//!   all but fewer than 128 noise positions (half of them cancel by linear algebra, more by the
//!   code's structure) are then told from uniform by their rank, in polynomial time, for every
//!   weight up to about 256 and more (this is Metzner and Kapturowski's decoding of interleaved
//!   codes). With it the code is linear over GF(2^128) alone.
//!
//! The code is public: its seed, and every index here, is known to both parties.

#![expect(
    clippy::inline_always,
    clippy::cast_possible_truncation,
    reason = "inlined into the vector unit's code; halves and bytes of words are meant"
)]

use bytemuck::{Pod, Zeroable};

use super::prg::Prg;

/// Positions that an output sums, besides its own.
const WEIGHT: usize = 7;
/// Positions that the convolution takes at a time.
pub(super) const BLOCK: usize = 8;
/// Blocks before the present one that the convolution sees.
const MEMORY: usize = 3;
/// Outputs and blocks for which pseudorandom words are made at a time.
const BATCH: usize = 64;

/// What is encoded: one or two field elements side by side.
pub(super) trait Cell: Pod + Send + Sync {
    fn add(self, other: Self) -> Self;

    /// The product with x.
    fn double(self) -> Self;
}

/// One element: its low and its high half.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C, align(16))]
pub(super) struct One(pub(super) [u64; 2]);

/// Two elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C, align(32))]
pub(super) struct Two(pub(super) [u64; 4]);

impl Cell for One {
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Self([self.0[0] ^ other.0[0], self.0[1] ^ other.0[1]])
    }

    #[inline(always)]
    fn double(self) -> Self {
        let [low, high] = self.0;
        Self([low << 1 ^ (high >> 63).wrapping_neg() & 0x87, high << 1 | low >> 63])
    }
}

impl Cell for Two {
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Self(std::array::from_fn(|at| self.0[at] ^ other.0[at]))
    }

    #[inline(always)]
    fn double(self) -> Self {
        let [a, b, c, d] = self.0;
        let [One([a, b]), One([c, d])] = [One([a, b]).double(), One([c, d]).double()];
        Self([a, b, c, d])
    }
}

/// All sums of four cells: entry i is the sum of those whose bit is set in i.
type Sums<T> = [T; 16];

#[inline(always)]
fn sums<T: Cell>(cells: &[T]) -> Sums<T> {
    let mut sums = [T::zeroed(); 16];
    for bit in 0..4 {
        for at in 0..1 << bit {
            sums[(1 << bit) + at] = sums[at].add(cells[bit]);
        }
    }
    sums
}

/// One of the session's codes.
#[derive(Clone, Copy)]
pub(super) struct Code {
    seed: u128,
}

impl Code {
    pub(super) fn new(seed: u128) -> Self {
        Self { seed }
    }

    /// Replaces the first half of `noise` by the outputs; the second half is used up.
    ///
    /// The length is a multiple of 16.
    pub(super) fn encode<T: Cell>(self, noise: &mut [T]) {
        #[cfg(target_arch = "x86_64")]
        if let Some(unit) = pulp::x86::V3::try_new() {
            return unit.vectorize(Encoding { code: self, noise });
        }
        self.encode_portable(noise);
    }

    #[inline(always)]
    fn encode_portable<T: Cell>(self, noise: &mut [T]) {
        let (outputs, positions) = noise.split_at_mut(noise.len() / 2);
        self.convolve(positions);
        self.expand(positions, outputs);
    }

    #[inline(always)]
    fn convolve<T: Cell>(self, positions: &mut [T]) {
        let mut words = Prg::new(self.seed);
        let mut history = [[[T::zeroed(); 16]; 2]; MEMORY];
        let mut age = 0;
        let mut random = [0_u128; 2 * BATCH];
        for _pass in 0..2 {
            for blocks in positions.chunks_mut(BATCH * BLOCK) {
                words.fill(&mut random);
                for (block, random) in blocks.chunks_exact_mut(BLOCK).zip(random.as_chunks().0) {
                    let block = block.try_into().expect("eight cells");
                    history[age % MEMORY] = convolve_block(block, &history, age % MEMORY, random);
                    age += 1;
                }
            }
        }
    }

    #[inline(always)]
    fn expand<T: Cell>(self, positions: &[T], outputs: &mut [T]) {
        let mut words = Prg::new(!self.seed);
        let mut random = [0_u128; BATCH * WEIGHT / 4];
        let count = positions.len() as u64;
        for outputs in outputs.chunks_mut(BATCH) {
            words.fill(&mut random);
            let random: &mut [u32] = bytemuck::cast_slice_mut(&mut random);
            for word in random.iter_mut() {
                *word = ((u64::from(*word) * count) >> 32) as u32;
            }
            for (output, places) in outputs.iter_mut().zip(random.as_chunks::<WEIGHT>().0) {
                let mut sum = *output;
                for place in places {
                    sum = sum.add(positions[*place as usize]);
                }
                *output = sum;
            }
        }
    }
}

/// Convolves a block in place and returns the sums of its two halves. `oldest` is the place in
/// `history` that these will take.
#[inline(always)]
fn convolve_block<T: Cell>(
    block: &mut [T; BLOCK],
    history: &[[Sums<T>; 2]; MEMORY],
    oldest: usize,
    random: &[u128; 2],
) -> [Sums<T>; 2] {
    let [first, second] = *random;
    // Bit j of byte r says whether position j of an earlier block is added to position r of this.
    let mut taps = [first as u64, (first >> 64) as u64, second as u64];
    taps[(oldest + MEMORY - 1) % MEMORY] |= 1 << (BLOCK - 1);
    let own = (second >> 64) as u64;
    for (row, cell) in block.iter_mut().enumerate() {
        let mut sum = T::zeroed();
        for (taps, [low, high]) in taps.iter().zip(history) {
            let taps = (taps >> (8 * row)) as usize;
            sum = sum.add(low[taps & 15]).add(high[taps >> 4 & 15]);
        }
        *cell = cell.add(sum.double());
    }
    // The part within the block is a lower triangular matrix with ones on and below the diagonal.
    let (low, high) = (sums(&block[..4]), sums(&block[4..]));
    for (row, cell) in block.iter_mut().enumerate().skip(1) {
        let earlier = (own >> (8 * row)) as usize & ((1 << row) - 1) | 1 << (row - 1);
        *cell = cell.add(low[earlier & 15]).add(high[earlier >> 4]);
    }
    [sums(&block[..4]), sums(&block[4..])]
}

/// The work of [`Code::encode`], for a vector unit.
struct Encoding<'a, T> {
    code: Code,
    noise: &'a mut [T],
}

impl<T: Cell> pulp::NullaryFnOnce for Encoding<'_, T> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        self.code.encode_portable(self.noise);
    }
}

#[cfg(test)]
mod tests;
