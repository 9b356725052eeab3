//! Collateral: altered, swapped, expired, held back.

use crate::kit::{DAY, NOW, code, collateral, enclave, evidence, judge_under, policy, policy_with};
use convelo_attest::{
    Collateral, CollateralError, MAXIMUM_COLLATERAL_BYTES, Matter, SeenLists, Stage, verify,
};
use convelo_simulator::{CollateralKnobs, Platform};

#[test]
fn the_verdict_ends_when_the_collateral_grows_too_old() {
    let knobs = CollateralKnobs { issued_days_ago: 6, ..CollateralKnobs::default() };
    let verdict = judge_under(&knobs, &policy(), NOW).unwrap();
    assert_eq!(verdict.expires(), NOW - 3600 + DAY);
}

#[test]
fn expired_collateral() {
    let knobs = CollateralKnobs { issued_days_ago: 31, ..CollateralKnobs::default() };
    let refusal = judge_under(&knobs, &policy(), NOW).unwrap_err();
    assert_eq!((refusal.stage, refusal.code), (Stage::Collateral, "collateral-expired"));
    assert_eq!(refusal.matter, Matter::Collateral);
    assert!(refusal.found.contains("2026-11-19T23:00:00Z"), "{refusal}");
    assert!(refusal.expected.contains("2026-11-21T00:00:00Z"), "{refusal}");
}

#[test]
fn expired_revocation_list() {
    let knobs =
        CollateralKnobs { issued_days_ago: 2, crl_valid_days: 1, ..CollateralKnobs::default() };
    let refusal = judge_under(&knobs, &policy(), NOW).unwrap_err();
    assert_eq!(refusal.code, "collateral-expired");
    assert!(refusal.found.contains("PCK revocation list"), "{refusal}");
}

#[test]
fn stale_collateral() {
    let knobs = CollateralKnobs { issued_days_ago: 7, ..CollateralKnobs::default() };
    assert_eq!(code(judge_under(&knobs, &policy(), NOW)), "collateral-stale");
    let patient = policy_with("maximum_collateral_age_days = 7", "maximum_collateral_age_days = 8");
    judge_under(&knobs, &patient, NOW).unwrap();
}

#[test]
fn future_collateral() {
    let knobs = CollateralKnobs { issued_days_ago: -1, ..CollateralKnobs::default() };
    let refusal = judge_under(&knobs, &policy(), NOW).unwrap_err();
    assert_eq!((refusal.code, refusal.matter), ("collateral-future", Matter::Clock));
}

#[test]
fn collateral_of_another_platform_with_the_same_names() {
    let other = Platform::new(NOW).unwrap();
    let foreign = other.collateral(&CollateralKnobs::default());
    assert_eq!(code(verify(&evidence(&enclave()), &foreign, &policy(), NOW)), "signature");
}

#[test]
fn tampered_collateral() {
    let text = collateral(&CollateralKnobs {
        tcb_status: "OutOfDate".to_owned(),
        ..CollateralKnobs::default()
    })
    .to_json();
    let forged =
        text.replacen(r#"\"tcbStatus\":\"OutOfDate\""#, r#"\"tcbStatus\":\"UpToDate\""#, 1);
    assert_ne!(text, forged);
    let forged = Collateral::from_json(&forged).unwrap();
    assert_eq!(code(verify(&evidence(&enclave()), &forged, &policy(), NOW)), "signature");
}

#[test]
fn collateral_that_says_the_same_in_other_bytes() {
    let mut bundle = bundle();
    let signed = bundle["tcb_info"].as_str().unwrap();
    let value: serde_json::Value = serde_json::from_str(signed).unwrap();
    bundle["tcb_info"] = serde_json::to_string_pretty(&value).unwrap().into();
    let written_anew = Collateral::from_json(&bundle.to_string()).unwrap();
    assert_eq!(code(verify(&evidence(&enclave()), &written_anew, &policy(), NOW)), "signature");
}

#[test]
fn collateral_signed_by_another_than_its_signer() {
    let by_the_ca = CollateralKnobs { signed_by_pck_ca: true, ..CollateralKnobs::default() };
    assert_eq!(code(judge_under(&by_the_ca, &policy(), NOW)), "signature");

    let other = Platform::new(NOW).unwrap().collateral(&CollateralKnobs::default());
    let other: serde_json::Value = serde_json::from_str(&other.to_json()).unwrap();
    for part in ["tcb_info", "qe_identity"] {
        let mut bundle = bundle();
        for field in ["", "_signature", "_issuer_chain"] {
            let field = format!("{part}{field}");
            bundle[&field] = other[&field].clone();
        }
        let mixed = Collateral::from_json(&bundle.to_string()).unwrap();
        assert_eq!(code(verify(&evidence(&enclave()), &mixed, &policy(), NOW)), "signature");
    }
}

#[test]
fn collateral_without_a_revocation_list() {
    for list in ["pck_crl", "root_ca_crl"] {
        let mut bundle = bundle();
        bundle[list] = "".into();
        let error = Collateral::from_json(&bundle.to_string()).unwrap_err();
        assert!(matches!(error, CollateralError::Part { .. }), "{list}: {error}");
        bundle.as_object_mut().unwrap().remove(list);
        let error = Collateral::from_json(&bundle.to_string()).unwrap_err();
        assert!(matches!(error, CollateralError::Json { .. }), "{list}: {error}");
    }
}

#[test]
fn unsorted_tcb_levels() {
    // A level that asks for less is listed first, and the platform reaches it too.
    let knobs = CollateralKnobs {
        tcb_status: "OutOfDate".to_owned(),
        better_level: Some(3),
        ..CollateralKnobs::default()
    };
    let refusal = judge_under(&knobs, &policy(), NOW).unwrap_err();
    assert_eq!(refusal.code, "tcb-status");
    assert!(refusal.found.contains("OutOfDate"), "{refusal}");
}

#[test]
fn unsorted_levels_of_the_quoting_enclave() {
    let mut bundle = bundle();
    let signed = bundle["qe_identity"].as_str().unwrap();
    let mut identity: serde_json::Value = serde_json::from_str(signed).unwrap();
    let levels = identity["tcbLevels"].as_array_mut().unwrap();
    let mut lower = levels[0].clone();
    lower["tcb"]["isvsvn"] = 1.into();
    levels.insert(0, lower);
    bundle["qe_identity"] = identity.to_string().into();
    let error = Collateral::from_json(&bundle.to_string()).unwrap_err();
    assert!(error.to_string().contains("not in descending order"), "{error}");
}

#[test]
fn a_revocation_list_in_place_of_another() {
    let mut bundle = bundle();
    let other = Platform::new(NOW).unwrap().collateral(&CollateralKnobs::default());
    let other: serde_json::Value = serde_json::from_str(&other.to_json()).unwrap();
    let patient =
        policy_with("maximum_collateral_age_days = 7", "maximum_collateral_age_days = 30");
    for replacement in [other["pck_crl"].clone(), bundle["root_ca_crl"].clone()] {
        bundle["pck_crl"] = replacement;
        let swapped = Collateral::from_json(&bundle.to_string()).unwrap();
        assert_eq!(code(verify(&evidence(&enclave()), &swapped, &patient, NOW)), "signature");
    }
}

#[test]
fn collateral_that_replaces_the_quotes_certificates() {
    let mut bundle = bundle();
    let without = Collateral::from_json(&bundle.to_string()).unwrap();
    // Taken in place of the quote's own, it would change what the signatures are checked with.
    bundle["pck_certificate_chain"] = Platform::new(NOW).unwrap().root_pem().into();
    let with = Collateral::from_json(&bundle.to_string()).unwrap();
    assert_eq!((with.digest(), with.to_json()), (without.digest(), without.to_json()));
    verify(&evidence(&enclave()), &with, &policy(), NOW).unwrap();
}

#[test]
fn collateral_that_cannot_be_read() {
    let size = MAXIMUM_COLLATERAL_BYTES + 1;
    assert_eq!(
        Collateral::from_json(&" ".repeat(size)).unwrap_err(),
        CollateralError::Size { found: size }
    );
    let cut = "{\n\"pck_crl\": ";
    let Err(CollateralError::Json { line, .. }) = Collateral::from_json(cut) else { panic!() };
    assert_eq!(line, 2);
    let text = collateral(&CollateralKnobs::default()).to_json();
    for (from, to) in
        [("UpToDate", "Excellent"), ("T23:00:00Z", "T23:00:00+00:00"), ("00606A", "00606G")]
    {
        let spoilt = text.replacen(from, to, 1);
        assert_ne!(spoilt, text);
        let error = Collateral::from_json(&spoilt).unwrap_err();
        assert!(matches!(error, CollateralError::Part { part: "TCB info", .. }), "{error}");
    }
}

#[test]
fn wrong_pce_id() {
    let knobs = CollateralKnobs { pce_id: [0, 1], ..CollateralKnobs::default() };
    let refusal = judge_under(&knobs, &policy(), NOW).unwrap_err();
    assert_eq!(refusal.code, "collateral-platform");
    assert!(refusal.found.contains("PCE id 0001"), "{refusal}");
}

#[test]
fn wrong_fmspc() {
    let knobs = CollateralKnobs { fmspc: [9; 6], ..CollateralKnobs::default() };
    let refusal = judge_under(&knobs, &policy(), NOW).unwrap_err();
    assert_eq!(refusal.code, "collateral-platform");
    assert!(refusal.found.contains("FMSPC 090909090909"), "{refusal}");
}

#[test]
fn revoked_pck() {
    let knobs = CollateralKnobs { revoke_pck: true, ..CollateralKnobs::default() };
    let refusal = judge_under(&knobs, &policy(), NOW).unwrap_err();
    assert_eq!(refusal.code, "revoked");
    assert!(refusal.found.contains("PCK certificate"), "{refusal}");
}

#[test]
fn revoked_platform_ca() {
    let knobs = CollateralKnobs { revoke_ca: true, ..CollateralKnobs::default() };
    let refusal = judge_under(&knobs, &policy(), NOW).unwrap_err();
    assert_eq!(refusal.code, "revoked");
    assert!(refusal.found.contains("PCK CA certificate"), "{refusal}");
}

#[test]
fn revoked_tcb_signer() {
    let knobs = CollateralKnobs { revoke_tcb_signer: true, ..CollateralKnobs::default() };
    let refusal = judge_under(&knobs, &policy(), NOW).unwrap_err();
    assert_eq!(refusal.code, "revoked");
    assert!(refusal.found.contains("signer of the TCB info"), "{refusal}");
}

/// The PCK CA has been revoked. Whoever hands over collateral leaves out the root's new list; the old
/// one stays in force for a year.
#[test]
fn revocation_of_a_platform_ca_held_back() {
    let revoked = CollateralKnobs {
        revoke_ca: true,
        root_crl_days_ago: 1,
        crl_numbers: [2, 1],
        ..CollateralKnobs::default()
    };
    let held_back = CollateralKnobs { root_crl_days_ago: 300, ..CollateralKnobs::default() };
    assert_eq!(judge_under(&revoked, &policy(), NOW).unwrap_err().code, "revoked");
    judge_under(&held_back, &policy(), NOW).unwrap();

    let number = policy_with("version = 1", "version = 1\nminimum_root_crl_number = 2");
    let refusal = judge_under(&held_back, &number, NOW).unwrap_err();
    assert_eq!(refusal.code, "revocation-list-old");
    assert!(refusal.to_string().contains("number 1; "), "{refusal}");
    assert_eq!(judge_under(&revoked, &number, NOW).unwrap_err().code, "revoked");
    let pck = policy_with("version = 1", "version = 1\nminimum_pck_crl_number = 2");
    assert_eq!(judge_under(&held_back, &pck, NOW).unwrap_err().code, "revocation-list-old");
    // Intel does not raise the numbers; the date tells its lists apart.
    let since = "version = 1\nroot_crl_issued_since = \"2026-06-01T00:00:00Z\"";
    let since = policy_with("version = 1", since);
    assert_eq!(judge_under(&held_back, &since, NOW).unwrap_err().code, "revocation-list-old");

    // A party that has seen the new list, on whatever platform, notices as well.
    let mut seen = SeenLists::default();
    assert!(seen.admit(&collateral(&held_back)).unwrap(), "nothing was seen before");
    assert!(!seen.admit(&collateral(&held_back)).unwrap());
    let elsewhere = CollateralKnobs { fmspc: [9; 6], revoke_ca: false, ..revoked };
    assert!(seen.admit(&collateral(&elsewhere)).unwrap(), "it is newer");
    let mut seen = SeenLists::from_json(&seen.to_json()).unwrap();
    let before = seen.clone();
    let refusal = seen.admit(&collateral(&held_back)).unwrap_err();
    assert_eq!((refusal.code, refusal.matter), ("list-older-than-seen", Matter::Collateral));
    assert!(refusal.found.contains("root revocation list"), "{refusal}");
    assert_eq!(seen, before);
    assert!(!seen.admit(&collateral(&elsewhere)).unwrap());
}

#[test]
fn revocation_list_of_an_authority_held_back() {
    let newer = collateral(&CollateralKnobs::default());
    let older = collateral(&CollateralKnobs { issued_days_ago: 3, ..CollateralKnobs::default() });
    let (mut one, mut other) = (SeenLists::default(), SeenLists::default());
    one.admit(&newer).unwrap();
    other.admit(&older).unwrap();
    assert!(one.admit(&older).unwrap_err().found.contains("PCK revocation list"));
    // Two processes that remember in one file.
    assert_eq!(other.merged(&one), one);
    assert_eq!(one.clone().merged(&SeenLists::default()), one);
    // A number that falls under a later date.
    let low = CollateralKnobs { crl_numbers: [1, 0], ..CollateralKnobs::default() };
    assert!(one.admit(&collateral(&low)).is_err());
    let error = collateral(&low).may_replace(&newer).unwrap_err().to_string();
    assert!(error.contains("number 0") && error.contains("number 1"), "{error}");
}

#[test]
fn unreadable_memory_of_revocation_lists() {
    let entry = |number: usize| format!("\"{number}\": {{\"issued\": 1, \"number\": null}}");
    let lists = |count| (0..count).map(entry).collect::<Vec<_>>().join(",");
    let text =
        |version, count| format!("{{\"version\": {version}, \"lists\": {{{}}}}}", lists(count));
    SeenLists::from_json(&text(1, 64)).unwrap();
    for bad in ["", "[]", "{}", &text(2, 1), &text(1, 65), &text(1, 1).replace("null", "-1")] {
        SeenLists::from_json(bad).unwrap_err();
    }
    SeenLists::from_json(&" ".repeat(17_000)).unwrap_err();
}

#[test]
fn collateral_of_a_low_evaluation_number() {
    let strict = policy_with("version = 1", "version = 1\nminimum_evaluation_number = 17");
    let judged = |number| {
        let knobs = CollateralKnobs { evaluation_number: number, ..CollateralKnobs::default() };
        verify(&evidence(&enclave()), &collateral(&knobs), &strict, NOW)
    };
    judged(17).unwrap();
    judged(18).unwrap();
    let refusal = judged(16).unwrap_err();
    assert_eq!(refusal.code, "evaluation-number");
    assert!(refusal.found.contains("16") && refusal.expected.contains("17"), "{refusal}");
}

/// Whatever is written in collateral, refusals and errors show it plainly.
fn shown_plainly(bundle: &str) {
    let text = match Collateral::from_json(bundle) {
        Err(error) => error.to_string(),
        Ok(collateral) => match verify(&evidence(&enclave()), &collateral, &policy(), NOW) {
            Err(refusal) => refusal.to_string(),
            Ok(_) => return,
        },
    };
    assert!(text.chars().all(convelo_untrusted::is_plain), "{text:?}");
}

/// Replaces, one after another, every string in a value.
fn each_string(value: &serde_json::Value, text: &str, mut spoilt: impl FnMut(&serde_json::Value)) {
    fn pointers(value: &serde_json::Value, at: &str, found: &mut Vec<String>) {
        match value {
            serde_json::Value::String(_) => found.push(at.to_owned()),
            serde_json::Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    pointers(item, &format!("{at}/{index}"), found);
                }
            }
            serde_json::Value::Object(fields) => {
                for (name, field) in fields {
                    pointers(field, &format!("{at}/{name}"), found);
                }
            }
            _ => {}
        }
    }
    let mut found = Vec::new();
    pointers(value, "", &mut found);
    assert!(!found.is_empty());
    for pointer in found {
        let mut other = value.clone();
        *other.pointer_mut(&pointer).unwrap() = text.into();
        spoilt(&other);
    }
}

#[test]
fn collateral_paints_on_the_terminal() {
    let genuine = collateral(&CollateralKnobs::default()).to_json();
    let genuine: serde_json::Value = serde_json::from_str(&genuine).unwrap();
    for text in
        ["\u{1b}[2K\u{9b}2J\nerror: verified\u{202e}\u{2066}\u{3164}", "\u{5d0}1\u{661}\u{300}"]
    {
        each_string(&genuine, text, |spoilt| shown_plainly(&spoilt.to_string()));
        for part in ["tcb_info", "qe_identity"] {
            let inner = serde_json::from_str(genuine[part].as_str().unwrap()).unwrap();
            each_string(&inner, text, |spoilt| {
                let mut bundle = genuine.clone();
                bundle[part] = spoilt.to_string().into();
                shown_plainly(&bundle.to_string());
            });
        }
        let mut bundle = genuine.clone();
        bundle[text] = 1.into();
        shown_plainly(&bundle.to_string());
    }
}

#[test]
fn wrong_clock() {
    let good = evidence(&enclave());
    let collateral = collateral(&CollateralKnobs::default());
    let at = |now| code(verify(&good, &collateral, &policy(), now));
    assert_eq!(at(NOW - 90 * DAY), "certificate-not-yet-valid");
    assert_eq!(at(NOW + 8 * 365 * DAY), "certificate-expired");
}

/// Good collateral as JSON, for changes.
fn bundle() -> serde_json::Value {
    serde_json::from_str(&collateral(&CollateralKnobs::default()).to_json()).unwrap()
}
