use getrandom::SysRng;
use rand_core::{Rng, UnwrapErr};

use super::*;
use crate::gf128::Gf128;

type Random = UnwrapErr<SysRng>;

fn word(rng: &mut Random) -> u128 {
    let mut bytes = [0; 16];
    rng.fill_bytes(&mut bytes);
    u128::from_le_bytes(bytes)
}

/// One tree's two sides, as far as they are before it is planted.
struct Sides {
    forest: Forest,
    leaves: usize,
    delta: u128,
    noise: u128,
    shares: [u128; 2],
    correlated: [Vec<u128>; 2],
    position: usize,
}

impl Sides {
    fn new(leaves: usize, position: usize, rng: &mut Random) -> Self {
        let forest = Forest::new(leaves, &[3; 32]);
        let (delta, noise, share) = (word(rng), word(rng), word(rng));
        let product = Gf128(delta) * Gf128(noise);
        let sender: Vec<_> = (0..forest.depth()).map(|_| word(rng)).collect();
        let receiver = sender.iter().zip(choices(position, forest.depth()));
        let receiver = receiver.map(|(q, choice)| if choice { q ^ delta } else { *q }).collect();
        Self {
            forest,
            leaves,
            delta,
            noise,
            shares: [share, share ^ product.0],
            correlated: [sender, receiver],
            position,
        }
    }

    fn plant(&self, number: usize, rng: &mut Random) -> (Vec<u128>, Vec<u8>) {
        let mut leaves = vec![7; self.leaves];
        let mut message = Vec::new();
        let tree = Tree { number, share: self.shares[0] };
        let correlated = &self.correlated[0];
        self.forest.plant(&tree, self.delta, correlated, &mut leaves, &mut message, rng);
        assert_eq!(message.len(), self.forest.message_len());
        (leaves, message)
    }

    fn harvest(&self, number: usize, message: &[u8]) -> Vec<u128> {
        let mut leaves = vec![9; self.leaves];
        let tree = Tree { number, share: self.shares[1] };
        self.forest.harvest(&tree, self.position, &self.correlated[1], message, &mut leaves);
        leaves
    }

    /// How many of the receiver's leaves are not what they should be.
    fn wrong(&self, planted: &[u128], harvested: &[u128]) -> usize {
        let product = (Gf128(self.delta) * Gf128(self.noise)).0;
        let expected = |at| planted[at] ^ if at == self.position { product } else { 0 };
        (0..self.leaves).filter(|at| harvested[*at] != expected(*at)).count()
    }
}

#[test]
fn every_leaf_but_one_at_every_position() {
    let rng = &mut UnwrapErr(SysRng);
    for leaves in 3..=40 {
        for position in 0..leaves {
            let sides = Sides::new(leaves, position, rng);
            let (planted, message) = sides.plant(position, rng);
            assert_eq!(sides.wrong(&planted, &sides.harvest(position, &message)), 0, "{leaves}");
        }
    }
}

/// The sizes of real blocks, and those around a power of two.
#[test]
fn every_leaf_but_one_in_large_trees() {
    let rng = &mut UnwrapErr(SysRng);
    for leaves in [127_usize, 128, 129, 255, 256, 257, 1023, 1024, 1025, 3643] {
        for position in [0, 1, leaves / 2, leaves.next_power_of_two() / 2, leaves - 2, leaves - 1] {
            let sides = Sides::new(leaves, position.min(leaves - 1), rng);
            let (planted, message) = sides.plant(2, rng);
            assert_eq!(sides.wrong(&planted, &sides.harvest(2, &message)), 0, "{leaves}");
            let mut sorted = planted;
            sorted.sort_unstable();
            sorted.dedup();
            assert_eq!(sorted.len(), leaves, "all leaves differ");
        }
    }
}

#[test]
fn depths_and_choices() {
    for leaves in 3..5000_usize {
        let depth = depth(leaves);
        assert!(1 << depth >= leaves && 1 << (depth - 1) < leaves, "{leaves}");
    }
    assert_eq!(choices(0b0110, 4).collect::<Vec<_>>(), [true, false, false, true]);
    assert_eq!(choices(0, 3).collect::<Vec<_>>(), [true; 3]);
}

/// The masks of the last level belong to a tree: in another's place its leaves are lost.
#[test]
fn a_tree_in_the_place_of_another() {
    let rng = &mut UnwrapErr(SysRng);
    let sides = Sides::new(200, 7, rng);
    let (planted, message) = sides.plant(5, rng);
    assert_ne!(sides.wrong(&planted, &sides.harvest(6, &message)), 0);
}

/// A word that is changed on the way is not noticed, and spoils all leaves below the node that the
/// path has come to: which ones tells the position. So what carries the messages must authenticate
/// them, and the sender is one that follows the protocol.
#[test]
fn a_changed_word_spoils_the_leaves_below_it() {
    let rng = &mut UnwrapErr(SysRng);
    let (leaves, position) = (256, 0b1011_0010);
    let sides = Sides::new(leaves, position, rng);
    let (planted, message) = sides.plant(1, rng);
    for level in 0..sides.forest.depth() + 2 {
        let mut changed = message.clone();
        changed[16 * level + 3] ^= 0x10;
        let wrong = sides.wrong(&planted, &sides.harvest(1, &changed));
        let expected = match level {
            0..=7 => leaves >> level,
            // The sum of the side that the path takes is not read: here, of the right one.
            8 => 0,
            // The sum of all leaves gives only the one at the position.
            _ => 1,
        };
        assert_eq!(wrong, expected, "word {level}");
    }
}

/// Whatever arrives, the receiver does the same work and gets some leaves.
#[test]
fn any_bytes_are_a_message() {
    let rng = &mut UnwrapErr(SysRng);
    let sides = Sides::new(130, 129, rng);
    let (planted, message) = sides.plant(0, rng);
    for fill in [0, 0xff] {
        let harvested = sides.harvest(0, &vec![fill; message.len()]);
        assert!(sides.wrong(&planted, &harvested) > 100);
    }
}
