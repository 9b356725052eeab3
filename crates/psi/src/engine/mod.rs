//! The join of the parties' sets, without a trace of what is in them.
//!
//! Two sorted lists are merged by a network of comparators that is fixed by their lengths; in the
//! merged list, equal pseudonyms are next to each other; whether a record has as many equals as
//! there are parties is one bit, which goes back through the same network to the place from which
//! the party sent the record. Pseudonyms are compared nowhere else, and an observer of addresses,
//! branches and time learns only the lengths.
//!
//! Source: Batcher, Sorting networks and their applications, AFIPS 1968. That a bitonic merge with
//! recorded exchanges serves both as join and as way back is folklore of oblivious databases
//! (Krastnikov, Kerschbaum, Stebila, VLDB 2020, has the general join).

#![expect(
    clippy::inline_always,
    reason = "what is not inlined is compiled without the vector unit's instructions"
)]

mod block;
mod join;
mod lanes;
mod merge;

pub(crate) use block::{BLOCK, Blocks, PADDING, halves_of, wipe_stack};
pub use join::{NoMemory, intersect, intersect_without_vectors};

/// The most memory, in bytes, that a set of this many pseudonyms takes at the service in a job with
/// this many parties: 16 bytes each and two and a half for every round of merging, rounded up to
/// whole blocks of 8192.
pub fn memory(pseudonyms: u64, parties: usize) -> u64 {
    pseudonyms.div_ceil(BLOCK as u64).saturating_mul(memory_of_a_block(parties))
}

fn memory_of_a_block(parties: usize) -> u64 {
    let rounds = u64::from(parties.next_power_of_two().trailing_zeros());
    BLOCK as u64 * (32 + 5 * rounds) / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_set_takes() {
        assert_eq!(memory(0, 2), 0);
        assert_eq!(memory(1, 2), 8192 * 37 / 2);
        assert_eq!(memory(10_000_000, 4) / 10_000_000, 21);
        memory(u64::MAX, 64);
    }
}
