//! Silent VOLE over GF(2^128): long correlated vectors from a short conversation.
//!
//! The receiver gets vectors A and C, the sender Delta and B, with C = A Delta + B, for any length
//! up to [`MAX_OUTPUTS`]. A and B are pseudorandom; the receiver learns nothing about Delta, the
//! sender nothing about A. **Both parties are assumed to follow the protocol** (semi-honest). The
//! construction is that of Boyle, Couteau, Gilboa and Ishai (CCS 2018, eprint 2019/273) with
//! regular noise and the code of `code`.
//!
//! | message | from | holds |
//! |---|---|---|
//! | choice | sender | public keys of the 128 base transfers, chosen by the bits of Delta |
//! | answer | receiver | their answer, seeds, choices of the trees' transfers, the first noise |
//! | trees | sender | the trees of one code, one message for each code |
//!
//! [`Sender::new`] makes the choice and [`SenderStart::read`] reads the answer;
//! [`Receiver::new`] reads the choice and makes the answer. After that [`Sender::next`] and
//! [`Receiver::read`] go through the codes, in order, each giving its part of the vectors. The
//! noise values of the first code come from `noisy`; of each later one, from outputs of the one
//! before that are given to nobody.
//!
//! Each message begins with 16 bytes that are hashed from the session and the message's kind and
//! number. So a message of another session, or at another place, is refused, as is one of another
//! length, an encoding that is not a group element, or a vector with a coefficient at or above 3329.
//! Any other change of a message is not noticed, and makes the correlation wrong: what carries the
//! messages must authenticate them.
//!
//! # Parameters
//!
//! A code has N = 2n noise positions in [`NOISE`] = 288 equal blocks with one nonzero value each
//! and n outputs. What is assumed (dual LPN with regular noise over GF(2^128)) is argued as follows.
//!
//! - *Linear tests.* If every combination of outputs involves at least dN positions, a test is
//!   biased by at most (1 - d)^t, since a noise value that is hit is uniform over the field. Over
//!   GF(2) it would be (1 - 2d)^t, the formula of RRT23 (eprint 2023/882); over a field
//!   of q elements it is (1 - dq/(q - 1))^t.
//! - *Minimum distance.* No bound is proven for ExConv 7 x 24 at these lengths. The authors'
//!   implementation (libOTe, ConfigureCode.cpp) assumes d = 0.15 as the distance below which no
//!   combination can be found, and calls that aggressive; d = 0.20 with 21 positions an output.
//!   It once took t = 128 / -log2(1 - 2 x 0.15) = 249 for every field, and now asks for
//!   (1 - d)^t <= 2^-64 over large ones, which is t >= 273, and for t >= 128 at any d. With t = 288
//!   the three figures are (1 - 2d)^t = 2^-148, (1 - d)^t = 2^-67 and t = 288.
//! - *Information set decoding.* Combinations that Gaussian elimination finds involve half of the
//!   positions: they miss all noise with probability 2^-t.
//! - *Intervals.* Better is what uses that the convolution is causal: a combination of outputs whose
//!   seven positions lie in an interval of the convolved half involves no position outside if 48
//!   linear conditions hold, for the 24 positions below the interval in each pass; fewer where taps
//!   are singular (44 in the test of `code` that counts them). Take one interval for every two
//!   blocks, around their common border, so that a share 1 - r of each block is left out. About n r^7
//!   outputs lie in the intervals, and there are more combinations if outputs with one or two
//!   positions outside are added so that these cancel. There must be more than 48 t/4. For n = 2^19
//!   and t = 288 that is so from r = 0.47 on (by simulation; 0.49 without the latter), and such a
//!   combination misses all noise with probability 2^-134, some 2^-130 if borders are chosen. To find
//!   one takes the solution of some 3,500 equations. t = 320, 400 and 560 would give 2^-150, 2^-195
//!   and 2^-294.
//! - *Rank.* Were the code binary, none of this would hold; see `code`.
//!
//! d = 0.15 alone, taken as exact and as findable, would ask for t = 546. This is the least
//! established figure of the protocol.

mod base_ot;
mod code;
mod ggm;
mod noisy;
mod ot_extension;
mod prg;
pub(crate) mod transfers;

use rand_core::CryptoRng;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

pub use base_ot::Hybrid;

use crate::gf128::Gf128;
use crate::message::{MessageError, Places};
use base_ot::Chooser;
use code::{Code, One, Two};
use ggm::{Forest, Tree};
use ot_extension::{Doubling, Folded, GROUPS, SEEDS_LEN};

/// Outputs that a session can have at most.
pub const MAX_OUTPUTS: usize = 1 << 26;

/// Noise positions of a code, one in each of as many blocks.
pub const NOISE: usize = 288;

/// Outputs that a code gives at most, besides the next one's noise.
const CODE_OUTPUTS: usize = 1 << 19;

/// The shortest block. The assumption is about long codes, so a short request makes one as well.
const SHORTEST_BLOCK: usize = 128;

/// Why a message was refused, or a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A session of no outputs, or of more than [`MAX_OUTPUTS`].
    #[error("a session has 1 to {MAX_OUTPUTS} outputs, not {0}")]
    Outputs(usize),
    /// A message has another length than its place in the session gives it, or is of another place or
    /// session.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// A base transfer's group element is not the encoding of one; number 128 is the answer's.
    #[error("group element {number} of the base transfers is not valid")]
    Point {
        /// Which transfer's.
        number: usize,
    },
    /// A base transfer's ML-KEM key is not the encoding of one.
    #[error("ML-KEM key {number} of the base transfers is not valid")]
    Key {
        /// Which transfer's.
        number: usize,
    },
    /// A message after the last one.
    #[error("the session is complete")]
    Complete,
}

/// What both parties must agree on before the first message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    /// Hashed from all that the session is bound to; never used twice.
    pub sid: [u8; 32],
    /// How long the vectors are.
    pub outputs: usize,
    /// How the base transfers are protected.
    pub hybrid: Hybrid,
}

/// The sizes that follow from a session's outputs, and its public keys.
struct Layout {
    session: Session,
    sid: [u8; 32],
    places: Places,
    codes: usize,
    block: usize,
    forest: Forest,
    code: Code,
}

impl Layout {
    fn new(session: Session) -> Result<Self, Error> {
        if session.outputs == 0 || session.outputs > MAX_OUTPUTS {
            return Err(Error::Outputs(session.outputs));
        }
        let codes = session.outputs.div_ceil(CODE_OUTPUTS);
        let reserve = if codes > 1 { NOISE } else { 0 };
        let outputs = session.outputs.div_ceil(codes) + reserve;
        let block = (2 * outputs).div_ceil(NOISE).max(SHORTEST_BLOCK);
        let mut hasher = blake3::Hasher::new_derive_key("convelo vole session");
        hasher.update(&session.sid).update(&(session.outputs as u64).to_le_bytes());
        let sid = *hasher.update(&[u8::from(session.hybrid == Hybrid::Yes)]).finalize().as_bytes();
        let seed = blake3::derive_key("convelo vole code", &sid);
        let code = Code::new(u128::from_le_bytes(seed[..16].try_into().expect("16 bytes")));
        let (places, forest) = (Places::new(sid), Forest::new(block, &sid));
        Ok(Self { session, sid, places, codes, block, forest, code })
    }

    /// Where the outputs of a code lie among the session's.
    fn outputs(&self, code: usize) -> std::ops::Range<usize> {
        let each = self.session.outputs.div_ceil(self.codes);
        code * each..((code + 1) * each).min(self.session.outputs)
    }

    fn noise_positions(&self) -> usize {
        NOISE * self.block
    }

    /// Transfers of a code.
    fn transfers(&self) -> usize {
        NOISE * self.forest.depth()
    }

    /// Words that hold a bit for each transfer of the session.
    fn bit_words(&self) -> usize {
        (self.codes * self.transfers()).div_ceil(128)
    }

    fn answer_len(&self) -> usize {
        let extension = 16 * GROUPS * self.bit_words();
        self.session.hybrid.answer_len() + SEEDS_LEN + extension + noisy::ELEMENT_LEN * NOISE
    }

    fn trees_len(&self) -> usize {
        NOISE * self.forest.message_len()
    }

    fn doubling(&self) -> Doubling {
        Doubling::new(&self.sid)
    }
}

const CHOICE: &str = "choice";
const ANSWER: &str = "answer";
const TREES: &str = "trees";

/// The sender that has sent its choice and waits for the answer.
pub struct SenderStart {
    layout: Layout,
    delta: u128,
    chooser: Chooser,
}

/// The sender that has sent its choice and read the answer.
#[derive(ZeroizeOnDrop)]
pub struct Sender {
    #[zeroize(skip)]
    layout: Layout,
    delta: u128,
    /// Its words of all transfers.
    correlated: Vec<u128>,
    /// Its shares of the next code's noise.
    shares: Vec<u128>,
    next: usize,
}

impl Sender {
    #[expect(clippy::new_ret_no_self, reason = "a sender begins by waiting for the answer")]
    /// Starts a session with `delta`, and makes the choice, the first message.
    pub fn new(
        session: Session,
        delta: Gf128,
        rng: &mut impl CryptoRng,
    ) -> Result<(SenderStart, Vec<u8>), Error> {
        let layout = Layout::new(session)?;
        let mut message = layout.places.begin(CHOICE, 0, session.hybrid.choice_len());
        let chooser = Chooser::new(&layout.sid, delta.0, session.hybrid, &mut message, rng);
        Ok((SenderStart { layout, delta: delta.0, chooser }, message))
    }

    /// Messages that are still to be made.
    pub fn remaining(&self) -> usize {
        self.layout.codes - self.next
    }

    /// Makes the next message and the next part of B; nothing after the last one.
    pub fn next(&mut self, rng: &mut impl CryptoRng) -> Option<(Vec<u8>, Vec<Gf128>)> {
        let layout = &self.layout;
        if self.next == layout.codes {
            return None;
        }
        let mut message = layout.places.begin(TREES, self.next, layout.trees_len());
        let mut noise = vec![0; layout.noise_positions()];
        let depth = layout.forest.depth();
        for (at, leaves) in noise.chunks_exact_mut(layout.block).enumerate() {
            let number = self.next * NOISE + at;
            let tree = Tree { number, share: self.shares[at] };
            let correlated = &self.correlated[number * depth..][..depth];
            layout.forest.plant(&tree, self.delta, correlated, leaves, &mut message, rng);
        }
        layout.code.encode::<One>(bytemuck::cast_slice_mut(&mut noise));
        let outputs = noise.len() / 2;
        self.shares.copy_from_slice(&noise[outputs - NOISE..outputs]);
        noise[outputs..].zeroize();
        noise.truncate(layout.outputs(self.next).len());
        self.next += 1;
        Some((message, noise.into_iter().map(Gf128).collect()))
    }
}

impl SenderStart {
    /// Reads the answer to the choice.
    pub fn read(self, answer: &[u8]) -> Result<Sender, Error> {
        let Self { layout, delta, chooser } = self;
        let content = layout.places.open(ANSWER, 0, layout.answer_len(), answer)?;
        let (base, content) = content.split_at(layout.session.hybrid.answer_len());
        let (seeds, content) = content.split_at(SEEDS_LEN);
        let keys = chooser.finish(base)?;
        let groups = layout.doubling().all_but(delta, &keys, seeds);
        let words = NOISE + layout.bit_words();
        let mut folded = Vec::with_capacity(GROUPS);
        let mut content = content.as_chunks().0.iter().map(|bytes| u128::from_le_bytes(*bytes));
        for (number, seeds) in groups.iter().enumerate() {
            let mut group = ot_extension::fold(seeds, words);
            let sums = content.by_ref().take(layout.bit_words());
            noisy::correct(&mut group, number, delta, NOISE, sums);
            // The first group's sum is the noise, so there is nothing to correct in it.
            let sums = content.by_ref().take(if number == 0 { 0 } else { NOISE });
            let zeros = std::iter::repeat_n(0, if number == 0 { NOISE } else { 0 });
            noisy::correct(&mut group, number, delta, 0, sums.chain(zeros));
            folded.push(group);
        }
        let shares = noisy::combine(&folded, NOISE);
        let correlated = transfers(&folded);
        Ok(Sender { layout, delta, correlated, shares, next: 0 })
    }
}

/// The words of the transfers, from the groups' columns.
fn transfers(groups: &[Folded]) -> Vec<u128> {
    let columns = groups.iter().flat_map(|group| &group.bits);
    let columns: Vec<_> = columns.map(|column| &column[NOISE..]).collect();
    ot_extension::transpose(&columns)
}

/// The receiver that has sent its answer.
#[derive(ZeroizeOnDrop)]
pub struct Receiver {
    #[zeroize(skip)]
    layout: Layout,
    /// Its words of all transfers.
    correlated: Vec<u128>,
    /// The noise position in each block of each code.
    positions: Vec<usize>,
    /// The next code's noise: values and shares.
    values: Vec<u128>,
    shares: Vec<u128>,
    next: usize,
}

/// The next parts of the receiver's vectors.
pub struct Part {
    /// Of A.
    pub a: Vec<Gf128>,
    /// Of C.
    pub c: Vec<Gf128>,
}

impl Receiver {
    /// Reads the sender's choice and makes the answer.
    pub fn new(
        session: Session,
        choice: &[u8],
        rng: &mut impl CryptoRng,
    ) -> Result<(Self, Vec<u8>), Error> {
        let layout = Layout::new(session)?;
        let choice = layout.places.open(CHOICE, 0, session.hybrid.choice_len(), choice)?;
        let mut message = layout.places.begin(ANSWER, 0, layout.answer_len());
        let keys = base_ot::answer(&layout.sid, session.hybrid, choice, &mut message, rng)?;

        let mut roots = Zeroizing::new([0; GROUPS]);
        rng.fill_bytes(bytemuck::cast_slice_mut(&mut *roots));
        let (groups, seeds) = layout.doubling().all(&roots, &keys);
        message.extend(seeds);

        let positions: Vec<_> =
            (0..layout.codes * NOISE).map(|_| uniform(layout.block, rng.next_u64())).collect();
        let choices = layout.choices(&positions);
        let words = NOISE + layout.bit_words();
        let folded: Vec<_> = groups.iter().map(|seeds| ot_extension::fold(seeds, words)).collect();
        let values = folded[0].all[..NOISE].to_vec();
        for (number, group) in folded.iter().enumerate() {
            let (noise, bits) = group.all.split_at(NOISE);
            message.extend(bits.iter().zip(&*choices).flat_map(|(a, b)| (a ^ b).to_le_bytes()));
            if number > 0 {
                message.extend(noise.iter().zip(&values).flat_map(|(a, b)| (a ^ b).to_le_bytes()));
            }
        }
        let shares = noisy::combine(&folded, NOISE);
        let correlated = transfers(&folded);
        Ok((Self { layout, correlated, positions, values, shares, next: 0 }, message))
    }

    /// Messages that are still to be read.
    pub fn remaining(&self) -> usize {
        self.layout.codes - self.next
    }

    /// Reads the sender's next message. After an error nothing has changed.
    pub fn read(&mut self, message: &[u8]) -> Result<Part, Error> {
        let layout = &self.layout;
        if self.next == layout.codes {
            return Err(Error::Complete);
        }
        let content = layout.places.open(TREES, self.next, layout.trees_len(), message)?;
        let mut noise = vec![Two([0; 4]); layout.noise_positions()];
        let mut leaves = Zeroizing::new(vec![0; layout.block]);
        let depth = layout.forest.depth();
        let messages = content.chunks_exact(layout.forest.message_len());
        for (at, (cells, message)) in noise.chunks_exact_mut(layout.block).zip(messages).enumerate()
        {
            let number = self.next * NOISE + at;
            let tree = Tree { number, share: self.shares[at] };
            let position = self.positions[number];
            let correlated = &self.correlated[number * depth..][..depth];
            layout.forest.harvest(&tree, position, correlated, message, &mut leaves);
            for (at, (cell, leaf)) in cells.iter_mut().zip(&*leaves).enumerate() {
                let value = self.values[at_noise(number)] & prg::equal(at, position);
                *cell = Two(bytemuck::cast([*leaf, value]));
            }
        }
        layout.code.encode(&mut noise);
        let outputs = noise.len() / 2;
        let halves = |cell: &Two| bytemuck::cast::<_, [u128; 2]>(cell.0);
        for (at, cell) in noise[outputs - NOISE..outputs].iter().enumerate() {
            [self.shares[at], self.values[at]] = halves(cell);
        }
        let mine = &noise[..layout.outputs(self.next).len()];
        let a = mine.iter().map(|cell| Gf128(halves(cell)[1])).collect();
        let c = mine.iter().map(|cell| Gf128(halves(cell)[0])).collect();
        bytemuck::cast_slice_mut::<_, u64>(&mut noise).zeroize();
        self.next += 1;
        Ok(Part { a, c })
    }
}

/// A number below `bound` from 64 random bits, uniform but for 2^-50.
#[expect(clippy::cast_possible_truncation, reason = "it is less than `bound`")]
fn uniform(bound: usize, random: u64) -> usize {
    ((u128::from(random) * bound as u128) >> 64) as usize
}

fn at_noise(number: usize) -> usize {
    number % NOISE
}

impl Layout {
    /// The choices of all transfers, packed.
    fn choices(&self, positions: &[usize]) -> Zeroizing<Vec<u128>> {
        let mut words = Zeroizing::new(vec![0; self.bit_words()]);
        let depth = self.forest.depth();
        let bits = positions.iter().flat_map(|&position| ggm::choices(position, depth));
        for (at, bit) in bits.enumerate() {
            words[at / 128] |= u128::from(bit) << (at % 128);
        }
        words
    }
}

#[cfg(test)]
mod tests;
