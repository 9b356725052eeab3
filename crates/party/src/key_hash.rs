//! What a set holds in place of keys: pseudonyms for services, items for the protocols between parties.

use convelo_mpc::ItemHash;
use convelo_psi::{EncodedKey, JobDigest, Pseudonym, PseudonymQueue, Pseudonymiser};

/// Makes 128 bits of each key. Threads share it.
pub(crate) enum KeyHash {
    /// Pseudonyms under the job key, which no service has.
    Pseudonyms(Pseudonymiser),
    /// Items of the job with this digest, which its parties alone compute with.
    Items(JobDigest),
}

/// Keys on their way through it, in order.
pub(crate) enum KeyQueue<'h> {
    Pseudonyms(PseudonymQueue<'h>),
    Items(ItemHash),
}

impl KeyHash {
    pub(crate) fn queue(&self) -> KeyQueue<'_> {
        match self {
            Self::Pseudonyms(pseudonymiser) => KeyQueue::Pseudonyms(pseudonymiser.queue()),
            Self::Items(job) => KeyQueue::Items(ItemHash::of_job(*job)),
        }
    }
}

impl KeyQueue<'_> {
    /// Takes a key. What is made of it is appended now or later.
    #[inline]
    pub(crate) fn push(&mut self, key: EncodedKey<'_>, made: &mut Vec<Pseudonym>) {
        match self {
            Self::Pseudonyms(queue) => queue.push(key, made),
            Self::Items(hash) => made.push(hash.item(key)),
        }
    }

    /// Appends what is made of all keys that wait.
    pub(crate) fn finish(&mut self, made: &mut Vec<Pseudonym>) {
        if let Self::Pseudonyms(queue) = self {
            queue.finish(made);
        }
    }
}
