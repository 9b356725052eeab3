//! The ideal functionality: what a trusted third party would compute if every provider gave it its
//! keys. It is the specification of a job's result, and the oracle against which the engines and
//! the whole path are tested.

use std::collections::{BTreeMap, BTreeSet};

use crate::job::{Reveal, What};
use crate::outcome::Outcome;

/// What each party learns about the parties' key sets under a reveal policy.
pub fn learned<K: Ord + Clone>(
    parties: &BTreeMap<String, BTreeSet<K>>,
    reveal: &Reveal,
) -> BTreeMap<String, Outcome<BTreeSet<K>>> {
    let mut common = parties.values().next().cloned().unwrap_or_default();
    common.retain(|key| parties.values().all(|keys| keys.contains(key)));
    let count = common.len() as u64;
    let learn = |name: &String| {
        if !reveal.to.is_empty() && !reveal.to.contains(name) {
            return Outcome::Nothing;
        }
        if count < reveal.minimum {
            return Outcome::Withheld;
        }
        match reveal.what {
            What::Intersection => Outcome::Intersection(common.clone()),
            What::Count => Outcome::Count(count),
        }
    };
    parties.keys().map(|name| (name.clone(), learn(name))).collect()
}
