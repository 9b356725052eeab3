//! Whose a name is, where nobody has said which key its party has: it belongs to the first party
//! that comes from its address with a certificate of the authority, or to a better one.

use std::collections::HashMap;

/// What a party shows that claims a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    /// SHA-256 of its key's `SubjectPublicKeyInfo`.
    pub(crate) key: [u8; 32],
    /// Whether the authority has certified that the key belongs to the peer's host.
    pub(crate) names_host: bool,
}

/// What becomes of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// The name belonged to nobody.
    First,
    /// The name belongs to this key already.
    Same,
    /// The name belonged to this other key, whose claim was weaker.
    Displaces([u8; 32]),
    /// The name belongs to this other key.
    Refused([u8; 32]),
}

/// The claims that hold, by name.
#[derive(Default)]
pub(crate) struct Bindings(HashMap<String, Claim>);

impl Bindings {
    /// Decides about a claim; if the name belongs to it now, that is kept. `registered` says which
    /// keys somebody has registered for other peers.
    pub(crate) fn claim(
        &mut self,
        name: &str,
        claim: Claim,
        registered: impl Fn(&[u8; 32]) -> bool,
    ) -> Decision {
        // A certificate that names the host wins over one that does not. A key that goes by
        // another name as well gives way to one that does not: its owner may be posing as its
        // neighbour.
        let strength = |claim: &Claim| {
            let mut others = self.0.iter().filter(|(other, _)| other.as_str() != name);
            let shared = others.any(|(_, held)| held.key == claim.key) || registered(&claim.key);
            (claim.names_host, !shared)
        };
        let decision = match self.0.get(name) {
            None => Decision::First,
            Some(held) if held.key == claim.key => return Decision::Same,
            Some(held) if strength(&claim) > strength(held) => Decision::Displaces(held.key),
            Some(held) => return Decision::Refused(held.key),
        };
        self.0.insert(name.to_owned(), claim);
        decision
    }

    /// The name belongs to nobody.
    pub(crate) fn release(&mut self, name: &str) {
        self.0.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What becomes of the claim of a key, if only this one is registered for another peer.
    fn claim(
        bindings: &mut Bindings,
        name: &str,
        key: u8,
        names_host: bool,
        registered: Option<u8>,
    ) -> Decision {
        let claim = Claim { key: [key; 32], names_host };
        bindings.claim(name, claim, |key| registered.is_some_and(|other| *key == [other; 32]))
    }

    #[test]
    fn the_first_of_equals_keeps_the_name() {
        for names in [false, true] {
            let mut bindings = Bindings::default();
            let mut bob = |key| claim(&mut bindings, "bob", key, names, None);
            assert_eq!([bob(1), bob(1)], [Decision::First, Decision::Same]);
            assert_eq!([bob(2), bob(1)], [Decision::Refused([1; 32]), Decision::Same]);
        }
    }

    #[test]
    fn a_certificate_that_names_the_host_wins() {
        let mut bindings = Bindings::default();
        let mut bob = |key, names| claim(&mut bindings, "bob", key, names, None);
        assert_eq!(bob(1, false), Decision::First);
        assert_eq!(bob(2, true), Decision::Displaces([1; 32]));
        assert_eq!(bob(1, false), Decision::Refused([2; 32]));
        assert_eq!(bob(3, true), Decision::Refused([2; 32]));
    }

    #[test]
    fn neighbour_that_poses_as_another_party_gives_way() {
        let mut bindings = Bindings::default();
        let mut claims = |name, key| claim(&mut bindings, name, key, true, Some(3));
        assert_eq!(claims("bob", 1), Decision::First);
        assert_eq!(claims("mallory", 1), Decision::First);
        assert_eq!(claims("bob", 2), Decision::Displaces([1; 32]));
        assert_eq!(claims("bob", 1), Decision::Refused([2; 32]));
        assert_eq!(claims("carol", 3), Decision::First);
        assert_eq!(claims("carol", 4), Decision::Displaces([3; 32]));
        assert_eq!(claims("carol", 3), Decision::Refused([4; 32]));
    }

    #[test]
    fn the_host_counts_for_more_than_another_name() {
        let mut bindings = Bindings::default();
        let registered = Some(1);
        assert_eq!(claim(&mut bindings, "bob", 1, true, registered), Decision::First);
        let other = claim(&mut bindings, "bob", 2, false, registered);
        assert_eq!(other, Decision::Refused([1; 32]));
    }

    #[test]
    fn a_name_that_was_given_up_belongs_to_nobody() {
        let mut bindings = Bindings::default();
        assert_eq!(claim(&mut bindings, "bob", 1, true, None), Decision::First);
        bindings.release("bob");
        assert_eq!(claim(&mut bindings, "bob", 2, false, None), Decision::First);
    }
}
