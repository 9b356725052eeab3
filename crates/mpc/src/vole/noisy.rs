//! The VOLE of a few field elements, for the noise of the first code: c = a Delta + b.
//!
//! It is the part of [`super::ot_extension`]'s streams that are field elements: a is the U of the
//! first group, and the receiver sends what the U of the other fifteen differ by. An element costs
//! 240 bytes, where multiplying it bit by bit (Gilboa) would cost 2048.

use super::ot_extension::{Folded, GROUP, GROUPS};
use super::prg::spread;

/// Bytes of an element in the receiver's message.
pub(super) const ELEMENT_LEN: usize = 16 * (GROUPS - 1);

/// sum over i of x^i `columns[i]`, element by element.
pub(super) fn combine(groups: &[Folded], elements: usize) -> Vec<u128> {
    let mut sums = vec![0_u128; elements];
    for column in groups.iter().rev().flat_map(|group| group.bits.iter().rev()) {
        for (sum, word) in sums.iter_mut().zip(column) {
            *sum = *sum << 1 ^ spread(*sum, 127) & 0x87 ^ word;
        }
    }
    sums
}

/// Makes a group of the sender's that of the wanted sum: its bits become V_i + Delta_i wanted, from
/// the words by which the receiver's sum differs from what is wanted.
pub(super) fn correct(
    group: &mut Folded,
    number: usize,
    delta: u128,
    from: usize,
    words: impl Iterator<Item = u128>,
) {
    for (at, word) in words.enumerate() {
        let at = from + at;
        let difference = group.all[at] ^ word;
        for (bit, column) in group.bits.iter_mut().enumerate() {
            column[at] ^= difference & spread(delta, GROUP * number + bit);
        }
    }
}

#[cfg(test)]
mod tests;
