//! Correlations under the sender's Delta from 128 oblivious transfers.
//!
//! This is the VOLE over small fields of SoftSpokenOT (Roy, Crypto 2022, eprint 2022/192) without its consistency check, so for semi-honest parties. Delta's bits are taken in groups
//! of eight. For each group the receiver makes 256 seeds, the leaves of a GGM tree, and by eight
//! transfers the sender gets all but the one whose number is the group's part of Delta. With S_x
//! the stream of seed x, the receiver computes U = sum of all S_x and, for each bit i,
//! V_i = sum of the S_x whose x has bit i. The sender computes the same of x + Delta, where the
//! seed that it lacks has the factor zero: W_i = V_i + Delta_i U. The receiver sends what makes the
//! U of each group the one it wants, in one sixteenth of the bytes that IKNP takes.
//!
//! The streams hold two things:
//! - *bits* (choices r of transfers): W_i = V_i + Delta_i r are the columns of q = v + r Delta, two
//!   bytes each on the wire;
//! - *field elements* (noise values): sum over i of x^i W_i = sum of x^i V_i + Delta U, which is the
//!   VOLE of [`super::noisy`].

use zeroize::{Zeroize, Zeroizing};

use super::prg::{Permutation, Prg, equal, spread};

/// Bits of Delta to a group.
pub(super) const GROUP: usize = 8;
/// Groups.
pub(super) const GROUPS: usize = 128 / GROUP;

/// Bytes of the message that gives the sender its seeds.
pub(super) const SEEDS_LEN: usize = 128 * 2 * 16;

/// The seeds of one group; the sender's lack one, which is zero.
type Group = Zeroizing<Vec<u128>>;

/// The streams of a group, added up.
pub(super) struct Folded {
    /// The sum of all.
    pub(super) all: Vec<u128>,
    /// For each of the group's bits, the sum of those whose number has it.
    pub(super) bits: [Vec<u128>; GROUP],
}

impl Drop for Folded {
    fn drop(&mut self) {
        self.all.zeroize();
        self.bits.zeroize();
    }
}

/// The hashes by which the small trees grow, for the left and the right children.
pub(super) struct Doubling([Permutation; 2]);

impl Doubling {
    pub(super) fn new(key: &[u8; 32]) -> Self {
        let permutation = |context| {
            let key = blake3::derive_key(context, key);
            Permutation::new(u128::from_le_bytes(key[..16].try_into().expect("16 bytes")))
        };
        Self([permutation("convelo vole seeds left"), permutation("convelo vole seeds right")])
    }

    fn grow(&self, parents: &[u128]) -> [Group; 2] {
        self.0.each_ref().map(|permutation| {
            let mut children = Zeroizing::new(vec![0; parents.len()]);
            permutation.hash(parents, &mut children);
            children
        })
    }

    /// The receiver's groups, from a root each, and the message for the sender, encrypted under
    /// the keys of the 128 transfers.
    pub(super) fn all(&self, roots: &[u128; GROUPS], keys: &[[u128; 2]]) -> (Vec<Group>, Vec<u8>) {
        let mut message = Vec::with_capacity(SEEDS_LEN);
        let mut groups = Vec::with_capacity(GROUPS);
        for (root, keys) in roots.iter().zip(keys.chunks(GROUP)) {
            let mut nodes = Zeroizing::new(vec![*root]);
            for keys in keys {
                let children = self.grow(&nodes);
                for (side, children) in children.iter().enumerate() {
                    let sum = children.iter().fold(0, |sum, node| sum ^ node);
                    // The sender's bit is the turn towards the seed that it must not get, so its
                    // key opens the sum of the other side.
                    message.extend((sum ^ keys[1 - side]).to_le_bytes());
                }
                nodes = Zeroizing::new(children.iter().flat_map(|side| side.to_vec()).collect());
            }
            groups.push(nodes);
        }
        (groups, message)
    }

    /// The sender's groups: all seeds but those whose number is a part of `delta`, which are 0.
    /// `keys` are those that the sender's transfers gave it for the bits of `delta`; `message` has
    /// [`SEEDS_LEN`] bytes.
    pub(super) fn all_but(&self, delta: u128, keys: &[u128], message: &[u8]) -> Vec<Group> {
        let words = message.as_chunks::<16>().0;
        let groups = delta.to_le_bytes().into_iter().enumerate().map(|(number, hidden)| {
            let mut nodes = Zeroizing::new(vec![0]);
            for level in 0..GROUP {
                let at = GROUP * number + level;
                let turn = spread(delta, at);
                let [left, right] = [words[2 * at], words[2 * at + 1]].map(u128::from_le_bytes);
                let wanted = right ^ (left ^ right) & turn ^ keys[at];
                let mut children = self.grow(&nodes);
                let parent = usize::from(hidden) & ((1 << level) - 1);
                for (side, children) in children.iter_mut().enumerate() {
                    let mut value = wanted;
                    for (at, node) in children.iter_mut().enumerate() {
                        *node &= !equal(at, parent);
                        value ^= *node;
                    }
                    // All ones for the side that the path does not take.
                    let value = value & (turn ^ (side as u128).wrapping_neg());
                    for (at, node) in children.iter_mut().enumerate() {
                        *node |= value & equal(at, parent);
                    }
                }
                nodes = Zeroizing::new(children.iter().flat_map(|side| side.to_vec()).collect());
            }
            nodes
        });
        groups.collect()
    }
}

/// Adds up the streams of a group, `words` words each. A seed that is zero has a stream of zeros.
pub(super) fn fold(seeds: &[u128], words: usize) -> Folded {
    let mut folded = Folded { all: vec![0; words], bits: std::array::from_fn(|_| vec![0; words]) };
    let mut scratch = vec![vec![0; words]; GROUP];
    let mut all = std::mem::take(&mut folded.all);
    fold_from(seeds, 0, 0, &mut all, &mut scratch, &mut folded.bits);
    folded.all = all;
    scratch.zeroize();
    folded
}

/// Overwrites `sum` with the sum of the streams whose number ends in the `level` bits of `number`,
/// and adds to `bits`, for the bits from `level` on, what these contribute.
fn fold_from(
    seeds: &[u128],
    level: usize,
    number: usize,
    sum: &mut [u128],
    scratch: &mut [Vec<u128>],
    bits: &mut [Vec<u128>; GROUP],
) {
    let Some((right, scratch)) = scratch.split_first_mut() else {
        Prg::new(seeds[number]).fill(sum);
        let missing = equal(0, (seeds[number] | seeds[number] >> 64) as usize);
        for word in sum {
            *word &= !missing;
        }
        return;
    };
    fold_from(seeds, level + 1, number, sum, scratch, bits);
    fold_from(seeds, level + 1, number | 1 << level, right, scratch, bits);
    for ((sum, right), bit) in sum.iter_mut().zip(right).zip(&mut bits[level]) {
        *sum ^= *right;
        *bit ^= *right;
    }
}

/// Rows from columns: word `j` of `columns[i]` has the bits `i` of the rows `128 j` to `128 j + 127`.
pub(super) fn transpose(columns: &[impl AsRef<[u128]>]) -> Vec<u128> {
    let words = columns[0].as_ref().len();
    let mut rows = Vec::with_capacity(128 * words);
    for word in 0..words {
        let mut square: [u128; 128] = std::array::from_fn(|column| columns[column].as_ref()[word]);
        let mut width = 64;
        let mut mask = u128::MAX >> 64;
        while width > 0 {
            for at in (0..128).filter(|at| at & width == 0) {
                let swap = (square[at] >> width ^ square[at + width]) & mask;
                square[at + width] ^= swap;
                square[at] ^= swap << width;
            }
            width /= 2;
            mask ^= mask << width;
        }
        rows.extend(square);
    }
    rows
}

#[cfg(test)]
mod tests;
