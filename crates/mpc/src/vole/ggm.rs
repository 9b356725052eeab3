//! Punctured trees: the receiver learns all leaves of the sender's tree but one.
//!
//! The trees are the pseudorandom correlated GGM trees of "Half-Tree" (Guo, Yang, Wang, Zhang, Xie,
//! Liu, Zhao; Eurocrypt 2023, eprint 2022/1431): the two nodes of the first
//! level add up to Delta, and the children of x are H(x) and x + H(x), so that each level adds up
//! to Delta. A level then costs one correlated oblivious transfer and 16 bytes: the sender sends
//! q + (sum of the left nodes), from which the receiver, who has q + r Delta, gets the sum of the
//! side r. Only the leaves come from two independent hashes, and the sums of both sides are sent,
//! masked with the hashes of q and q + Delta.
//!
//! A node's number has the turns of its path as bits, the first turn lowest. So the left nodes of
//! a level are its first half, and a tree of any number of leaves is one without its last ones.

use rand_core::CryptoRng;
use zeroize::Zeroize;

use super::prg::{Permutation, equal, spread};

/// Trees of one size, and the hashes that they grow by.
pub(super) struct Forest {
    /// Levels below the root; at least two.
    depth: usize,
    inner: Permutation,
    left: Permutation,
    right: Permutation,
    /// For the masks of the leaves' sums.
    mask_key: [u8; 32],
}

/// What a tree is for: the sender's and the receiver's shares of the noise at the position that
/// the receiver chose, and the number of the tree in the session.
pub(super) struct Tree {
    pub(super) number: usize,
    pub(super) share: u128,
}

impl Forest {
    /// Bytes of a tree's message.
    pub(super) fn message_len(&self) -> usize {
        16 * (self.depth + 2)
    }

    pub(super) fn depth(&self) -> usize {
        self.depth
    }

    /// Trees of `leaves` leaves, more than two.
    pub(super) fn new(leaves: usize, key: &[u8; 32]) -> Self {
        let permutation = |context| {
            let key = blake3::derive_key(context, key);
            Permutation::new(u128::from_le_bytes(key[..16].try_into().expect("16 bytes")))
        };
        Self {
            depth: depth(leaves),
            inner: permutation("convelo vole tree inner"),
            left: permutation("convelo vole tree left"),
            right: permutation("convelo vole tree right"),
            mask_key: blake3::derive_key("convelo vole tree mask", key),
        }
    }

    fn mask(&self, tree: usize, correlated: u128) -> u128 {
        let mut hasher = blake3::Hasher::new_keyed(&self.mask_key);
        hasher.update(&(tree as u64).to_le_bytes()).update(&correlated.to_le_bytes());
        let hash = hasher.finalize();
        u128::from_le_bytes(hash.as_bytes()[..16].try_into().expect("16 bytes"))
    }

    /// Grows `nodes`, a level, to the next one in place.
    fn grow(&self, nodes: &mut [u128], hashes: &mut [u128]) {
        let (parents, right) = nodes.split_at_mut(nodes.len() / 2);
        let hashes = &mut hashes[..parents.len()];
        self.inner.hash(parents, hashes);
        for ((node, right), hash) in parents.iter_mut().zip(right).zip(hashes) {
            *right = *node ^ *hash;
            *node = *hash;
        }
    }

    fn grow_leaves(&self, nodes: &[u128], leaves: &mut [u128]) {
        let (left, right) = leaves.split_at_mut(nodes.len());
        self.left.hash(nodes, left);
        self.right.hash(&nodes[..right.len()], right);
    }

    /// The sender's side. Overwrites `leaves`, appends the tree's message to `message`;
    /// `correlated` are the sender's words of the tree's transfers, one a level.
    pub(super) fn plant(
        &self,
        tree: &Tree,
        delta: u128,
        correlated: &[u128],
        leaves: &mut [u128],
        message: &mut Vec<u8>,
        rng: &mut impl CryptoRng,
    ) {
        let inner = self.depth - 1;
        let mut nodes = vec![0; 1 << inner];
        let mut hashes = vec![0; 1 << inner];
        let mut root = [0; 16];
        rng.fill_bytes(&mut root);
        nodes[0] = u128::from_le_bytes(root);
        nodes[1] = nodes[0] ^ delta;
        for level in 1..=inner {
            let level_nodes = &mut nodes[..1 << level];
            if level > 1 {
                self.grow(level_nodes, &mut hashes);
            }
            let sum = sum(&level_nodes[..1 << (level - 1)]);
            message.extend((correlated[level - 1] ^ sum).to_le_bytes());
        }
        self.grow_leaves(&nodes, leaves);
        let sums = [sum(&leaves[..1 << inner]), sum(&leaves[1 << inner..])];
        for (side, sum) in sums.into_iter().enumerate() {
            let correlated = correlated[inner] ^ delta & (side as u128).wrapping_neg();
            message.extend((self.mask(tree.number, correlated) ^ sum).to_le_bytes());
        }
        message.extend((tree.share ^ sums[0] ^ sums[1]).to_le_bytes());
        nodes.zeroize();
        hashes.zeroize();
        root.zeroize();
    }

    /// The receiver's side. Overwrites `leaves` with the sender's, but for the one at `position`,
    /// which is the sender's plus Delta times the noise. `correlated` are the receiver's words of
    /// the tree's transfers; the choice of each is the turn that the path to `position` does not
    /// take. `message` has [`Forest::message_len`] bytes.
    pub(super) fn harvest(
        &self,
        tree: &Tree,
        position: usize,
        correlated: &[u128],
        message: &[u8],
        leaves: &mut [u128],
    ) {
        let inner = self.depth - 1;
        let words: Vec<_> =
            message.as_chunks().0.iter().map(|bytes| u128::from_le_bytes(*bytes)).collect();
        let mut nodes = vec![0; 1 << inner];
        let mut hashes = vec![0; 1 << inner];
        for level in 1..=inner {
            let level_nodes = &mut nodes[..1 << level];
            if level > 1 {
                self.grow(level_nodes, &mut hashes);
            }
            restore(level_nodes, level, position, words[level - 1] ^ correlated[level - 1]);
        }
        self.grow_leaves(&nodes, leaves);
        let taken = position >> inner & 1;
        let masked = words[inner] ^ (words[inner] ^ words[inner + 1]) & !equal(taken, 1);
        let known = masked ^ self.mask(tree.number, correlated[inner]);
        restore(leaves, self.depth, position, known);
        let last = words[inner + 2] ^ tree.share ^ sum(leaves);
        for (at, leaf) in leaves.iter_mut().enumerate() {
            *leaf ^= last & equal(at, position);
        }
        nodes.zeroize();
        hashes.zeroize();
    }
}

/// Sets the node on the path to 0 and the one next to it to what makes its side add up to `sum`.
/// All nodes are touched, so that the addresses do not tell the position.
fn restore(nodes: &mut [u128], level: usize, position: usize, sum_of_side: u128) {
    let half = 1 << (level - 1);
    let hidden = position & (2 * half - 1);
    let beside = hidden ^ half;
    let (left, right) = nodes.split_at_mut(half);
    let mut sums = [0; 2];
    for (side, nodes) in [&mut *left, &mut *right].into_iter().enumerate() {
        for (at, node) in nodes.iter_mut().enumerate() {
            *node &= !equal(at, hidden & (half - 1));
            sums[side] ^= *node;
        }
    }
    let take_right = equal(beside & half, half);
    let value = sum_of_side ^ sums[0] ^ (sums[0] ^ sums[1]) & take_right;
    for (side, nodes) in [left, right].into_iter().enumerate() {
        let value = value & equal(beside & half, side * half);
        for (at, node) in nodes.iter_mut().enumerate() {
            *node |= value & equal(at, hidden & (half - 1));
        }
    }
}

fn sum(words: &[u128]) -> u128 {
    words.iter().fold(0, |sum, word| sum ^ word)
}

/// Levels of a tree with `leaves` leaves.
pub(super) fn depth(leaves: usize) -> usize {
    leaves.next_power_of_two().trailing_zeros() as usize
}

/// The choice bits of a position's path, the first level lowest: the turns that it does not take.
pub(super) fn choices(position: usize, depth: usize) -> impl Iterator<Item = bool> {
    (0..depth).map(move |level| spread(position as u128, level) == 0)
}

#[cfg(test)]
mod tests;
