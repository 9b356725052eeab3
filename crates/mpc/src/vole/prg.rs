//! What is derived from seeds: AES in counter mode, and fixed-key AES as a hash of many blocks.

#![expect(clippy::cast_possible_truncation, reason = "halves of words are meant")]

use aes::cipher::{BlockCipherEncrypt, KeyInit};
use aes::{Aes128Enc, Block};
use zeroize::Zeroize;

/// AES-128 over whole slices of 128-bit words, as many blocks at a time as the machine can.
pub(super) fn encrypt(key: &Aes128Enc, words: &mut [u128]) {
    let blocks: &mut [[u8; 16]] = bytemuck::cast_slice_mut(words);
    key.encrypt_blocks(Block::cast_slice_from_core_mut(blocks));
}

/// An AES key from 16 bytes.
pub(super) fn aes(key: u128) -> Aes128Enc {
    Aes128Enc::new(&key.to_le_bytes().into())
}

/// A stream of pseudorandom words: AES-128 in counter mode.
pub(super) struct Prg {
    key: Aes128Enc,
    next: u128,
}

impl Prg {
    pub(super) fn new(seed: u128) -> Self {
        Self { key: aes(seed), next: 0 }
    }

    /// Overwrites `words` with the next ones of the stream.
    pub(super) fn fill(&mut self, words: &mut [u128]) {
        for word in words.iter_mut() {
            *word = self.next.to_le();
            self.next += 1;
        }
        encrypt(&self.key, words);
    }
}

/// A hash that is correlation robust and circular correlation robust if AES under a known key is
/// a random permutation P: P(s(x)) + s(x) with the orthomorphism s(high, low) = (high + low, high)
/// (Guo, Katz, Wang, Yu, eprint 2019/074).
pub(super) struct Permutation(Aes128Enc);

impl Permutation {
    pub(super) fn new(key: u128) -> Self {
        Self(aes(key))
    }

    /// Hashes each word into `out`, which is as long.
    pub(super) fn hash(&self, words: &[u128], out: &mut [u128]) {
        const BATCH: usize = 64;
        let mut input = [0; BATCH];
        for (words, out) in words.chunks(BATCH).zip(out.chunks_mut(BATCH)) {
            let input = &mut input[..words.len()];
            for ((word, kept), out) in words.iter().zip(&mut *input).zip(&mut *out) {
                let (high, low) = ((word >> 64) as u64, *word as u64);
                *kept = u128::from(high ^ low) << 64 | u128::from(high);
                *out = *kept;
            }
            encrypt(&self.0, out);
            for (out, kept) in out.iter_mut().zip(&*input) {
                *out ^= *kept;
            }
        }
        input.zeroize();
    }
}

/// All ones if `a` is `b`, else 0, without a branch.
pub(super) fn equal(a: usize, b: usize) -> u128 {
    let differ = (a ^ b) as u64;
    let nonzero = (differ | differ.wrapping_neg()) >> 63;
    u128::from(nonzero).wrapping_sub(1)
}

/// All ones if the bit at `place` is set, else 0.
pub(super) fn spread(bits: u128, place: usize) -> u128 {
    (bits >> place & 1).wrapping_neg()
}

#[cfg(test)]
mod tests;
