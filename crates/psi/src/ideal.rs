//! The ideal functionality: what a trusted third party would compute if every provider handed it
//! its keys. It is the specification of a job's result and the oracle that the engines and the
//! whole path are tested against.

use std::collections::{BTreeMap, BTreeSet};

use crate::job::{Reveal, What};

/// What one party learns, in terms of its own keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Learned<K> {
    /// The keys that all parties have.
    Keys(BTreeSet<K>),
    /// How many keys all parties have.
    Count(u64),
    /// That they are fewer than the minimum.
    Withheld,
    /// Nothing.
    Nothing,
}

/// What each party learns of the parties' key sets under a reveal policy.
pub fn learned<K: Ord + Clone>(
    parties: &BTreeMap<String, BTreeSet<K>>,
    reveal: &Reveal,
) -> BTreeMap<String, Learned<K>> {
    let mut common = parties.values().next().cloned().unwrap_or_default();
    common.retain(|key| parties.values().all(|keys| keys.contains(key)));
    let count = common.len() as u64;
    let learn = |name: &String| {
        if !reveal.to.is_empty() && !reveal.to.contains(name) {
            return Learned::Nothing;
        }
        if count < reveal.minimum {
            return Learned::Withheld;
        }
        match reveal.what {
            What::Intersection => Learned::Keys(common.clone()),
            What::Count => Learned::Count(count),
        }
    };
    parties.keys().map(|name| (name.clone(), learn(name))).collect()
}
