//! How likely it is that two different keys get the same pseudonym.

use super::{Job, Parties, Party};
use crate::limits::MAXIMUM_ENCODED_KEY_BYTES;

impl Job {
    /// Base-2 logarithm of an upper bound on the probability that a run of this job, in which every
    /// party sends as many keys as it may, finds any false match: two different keys with the same
    /// pseudonym.
    ///
    /// With q keys in total and m the number of blocks of the longest encoded key
    /// ([`MAXIMUM_ENCODED_KEY_BYTES`] / 16), it is the sum of two terms. For a random function into
    /// 128 bits, the birthday bound: q (q - 1) / 2 pairs, each equal with probability 2^-128. For
    /// AES-CMAC instead of the random function, (5 m^2 + 1) q^2 / 2^128, the advantage of a
    /// distinguisher with q queries of at most m blocks (Iwata and Kurosawa, "OMAC: One-Key CBC
    /// MAC", FSE 2003, theorem 5.1), by which any event can become more likely; AES itself is
    /// assumed to be a random permutation. The keys of a table are chosen without knowing the job
    /// key, as both terms require. The second term is pessimistic: it allows keys of 4 KiB.
    #[expect(
        clippy::cast_precision_loss,
        reason = "a bound of a few dozen bits, rounding is 2^-52"
    )]
    ///
    /// In a mode without a service, the items are hashes instead (the first term), and the tags that
    /// the protocol compares are equal by chance with a probability of at most 2^-40.
    pub fn false_match_bound_log2(&self) -> f64 {
        let keys = match self.parties() {
            Parties::Named(parties) => {
                let most = |party: &Party| self.sent(self.maximum_keys_of(&party.name)) as f64;
                parties.iter().map(most).sum()
            }
            Parties::Unpinned { count } => *count as f64 * self.sent(self.maximum_keys()) as f64,
        };
        let keys = keys * self.services() as f64;
        let blocks = (MAXIMUM_ENCODED_KEY_BYTES / 16) as f64;
        let birthday = keys * (keys - 1.0) / 2.0;
        if self.protocol().is_some() {
            return (birthday * (-128_f64).exp2() + (-40_f64).exp2()).log2();
        }
        let distinguisher = (5.0 * blocks * blocks + 1.0) * keys * keys;
        (birthday + distinguisher).log2() - 128.0
    }
}
