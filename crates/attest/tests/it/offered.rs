//! Collateral that is offered along with evidence, by whoever hands it over.

use std::sync::Arc;

use convelo_attest::{Collateral, Evidence, MAXIMUM_COLLATERAL_BYTES, Refusal, Verdict};
use convelo_simulator::CollateralKnobs;
use proptest::prelude::*;

use super::kit::*;

/// Another platform's FMSPC.
const ELSEWHERE: [u8; 6] = [9; 6];

fn own(knobs: &CollateralKnobs) -> Arc<Collateral> {
    Arc::new(collateral(knobs))
}

/// A bundle about our platform that no other bundle here is like.
fn ours() -> CollateralKnobs {
    CollateralKnobs { issued_days_ago: 1, ..CollateralKnobs::default() }
}

fn elsewhere() -> CollateralKnobs {
    CollateralKnobs { fmspc: ELSEWHERE, ..CollateralKnobs::default() }
}

fn offer(knobs: &CollateralKnobs) -> Vec<u8> {
    collateral(knobs).to_json().into_bytes()
}

/// The whole way: which collateral, then the verdict under it.
fn judged(
    own: Option<Arc<Collateral>>,
    offered: &[u8],
    evidence: &Evidence,
) -> Result<Verdict, Refusal> {
    let collateral = Collateral::own_or_offered(own, offered, evidence)?;
    convelo_attest::verify(evidence, &collateral, &policy(), NOW)
}

#[test]
fn without_our_own_the_offer_is_used() {
    let (evidence, offered) = (evidence(&enclave()), offer(&CollateralKnobs::default()));
    let used = Collateral::own_or_offered(None, &offered, &evidence).unwrap();
    assert_eq!(used.to_json().into_bytes(), offered);
    judged(None, &offered, &evidence).unwrap();
}

#[test]
fn our_own_wins_if_it_is_about_the_platform() {
    let (evidence, own) = (evidence(&enclave()), own(&ours()));
    for offered in [offer(&CollateralKnobs::default()), offer(&elsewhere()), b"garbage".to_vec()] {
        let used = Collateral::own_or_offered(Some(own.clone()), &offered, &evidence).unwrap();
        assert!(Arc::ptr_eq(&used, &own));
    }
    judged(Some(own), b"garbage", &evidence).unwrap();
}

#[test]
fn our_own_about_another_platform_gives_way_to_the_offer() {
    let (evidence, offered) = (evidence(&enclave()), offer(&CollateralKnobs::default()));
    let used = Collateral::own_or_offered(Some(own(&elsewhere())), &offered, &evidence).unwrap();
    assert_eq!(used.to_json().into_bytes(), offered);
    judged(Some(own(&elsewhere())), &offered, &evidence).unwrap();
}

#[test]
fn offer_cannot_take_back_what_our_own_revokes() {
    let evidence = evidence(&enclave());
    let revoked = CollateralKnobs { revoke_pck: true, ..ours() };
    let refused = judged(Some(own(&revoked)), &offer(&CollateralKnobs::default()), &evidence);
    assert_eq!(code(refused), "revoked");
}

#[test]
fn nothing_offered() {
    let evidence = evidence(&enclave());
    assert_eq!(code(judged(None, b"", &evidence)), "no-collateral");
    // What our own is about is said instead.
    assert_eq!(code(judged(Some(own(&elsewhere())), b"", &evidence)), "collateral-platform");
}

#[test]
fn offer_about_another_platform() {
    let evidence = evidence(&enclave());
    assert_eq!(code(judged(None, &offer(&elsewhere()), &evidence)), "collateral-platform");
    let other_still = CollateralKnobs { fmspc: [8; 6], ..elsewhere() };
    let refusal = judged(Some(own(&elsewhere())), &offer(&other_still), &evidence).unwrap_err();
    assert_eq!(refusal.code, "collateral-platform");
    assert!(refusal.found.contains("FMSPC 080808080808"), "{refusal}");
}

#[test]
fn offer_of_garbage() {
    let evidence = evidence(&enclave());
    let whole = String::from_utf8(offer(&CollateralKnobs::default())).unwrap();
    let half = &whole[..whole.len() / 2];
    let without_a_date = whole.replace("nextUpdate", "nextUpdat");
    for (offered, said) in [
        (&b"\xff\xfe"[..], "not text"),
        (b"secret words", "(line 1, column 1)"),
        (b"{\"secret words\": 1}", "not the JSON of a collateral bundle"),
        (half.as_bytes(), "not the JSON of a collateral bundle"),
        (without_a_date.as_bytes(), "TCB info cannot be used"),
    ] {
        for own in [None, Some(own(&elsewhere()))] {
            let refusal = judged(own, offered, &evidence).unwrap_err();
            assert_eq!(refusal.code, "no-collateral");
            let text = refusal.to_string();
            assert!(text.contains(said) && !text.contains("secret words"), "{text}");
        }
    }
}

#[test]
fn offer_that_is_too_long() {
    let evidence = evidence(&enclave());
    let mut offered = offer(&CollateralKnobs::default());
    offered.resize(MAXIMUM_COLLATERAL_BYTES, b' ');
    judged(None, &offered, &evidence).unwrap();
    offered.push(b' ');
    let refusal = judged(None, &offered, &evidence).unwrap_err();
    assert_eq!(refusal.code, "no-collateral");
    let found = format!("{} bytes, which is too long", MAXIMUM_COLLATERAL_BYTES + 1);
    assert!(refusal.found.contains(&found), "{refusal}");
}

/// Each bracket in another one: what reads it must not take the stack for that.
#[test]
fn offer_of_brackets() {
    for bracket in ["[", "{\"tcb_info\":"] {
        let offered = bracket.repeat(MAXIMUM_COLLATERAL_BYTES / bracket.len());
        assert_eq!(code(Collateral::from_offer(offered.as_bytes())), "no-collateral");
    }
}

proptest! {
    #[test]
    fn offer_of_any_bytes(offered in prop::collection::vec(any::<u8>(), 0..2048)) {
        prop_assert_eq!(code(Collateral::from_offer(&offered)), "no-collateral");
    }

    /// A spoilt bundle is refused in words, or still says what its issuer signed.
    #[test]
    fn offer_with_bytes_changed(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in prop::option::weighted(0.2, any::<prop::sample::Index>()),
    ) {
        let evidence = evidence(&enclave());
        let mut offered = offer(&CollateralKnobs::default());
        for (place, byte) in changes {
            let place = place.index(offered.len());
            offered[place] = byte;
        }
        if let Some(cut) = cut {
            offered.truncate(cut.index(offered.len()));
        }
        match judged(None, &offered, &evidence) {
            Ok(verdict) => prop_assert_eq!(verdict.tcb_status(), judge(&enclave()).unwrap().tcb_status()),
            refused @ Err(_) => prop_assert!(!code(refused).is_empty()),
        }
    }
}
