//! Sets for tests of the protocols.

use std::collections::BTreeSet;

/// Distinct items, of which the first `common` are those of any other call.
pub(crate) fn items(common: usize, own: usize, whose: u64) -> Vec<u128> {
    let item = |whose: u64, number: usize| {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&whose.to_le_bytes()).update(&number.to_le_bytes());
        u128::from_le_bytes(hasher.finalize().as_bytes()[..16].try_into().unwrap())
    };
    let mut items: Vec<_> = (0..common).map(|number| item(0, number)).collect();
    items.extend((0..own).map(|number| item(whose, number)));
    // In no order that says anything.
    items.sort_unstable_by_key(|item| item.rotate_left(64));
    items
}

/// The items that both have, in order.
pub(crate) fn ideal(receiver: &[u128], sender: &[u128]) -> Vec<u128> {
    let [a, b] = [receiver, sender].map(|items| items.iter().copied().collect::<BTreeSet<_>>());
    a.intersection(&b).copied().collect()
}
