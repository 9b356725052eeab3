//! Evidence that must be refused, each test named after the attack or the defect.

use crate::kit::vector;
use crate::kit::{
    DAY, DICE, NOW, accepted_changes, bytes, certificate, certificate_with_value, code, collateral,
    enclave, evidence, judge, judge_under, key, parse, platform, policy, policy_with, quote, spki,
    tagged, text,
};
use convelo_attest::{
    CertificateRules, Collateral, CollateralError, Evidence, MAXIMUM_CERTIFICATE_BYTES,
    MAXIMUM_COLLATERAL_BYTES, MAXIMUM_QUOTE_BYTES, Matter, Measurements, Policy, QuoteSource,
    Refusal, SeenLists, Stage, TcbStatus, Tee, Verdict, extension, extensions, report_data,
    spki_of, verify,
};
use convelo_simulator::{
    CertificateKnobs, CollateralKnobs, Enclave, Platform, PlatformKnobs, TrustDomain,
    attested_certificate, policy_toml,
};
use proptest::prelude::*;
use sha2::{Digest, Sha256};

#[test]
fn good_evidence_is_accepted_and_described() {
    let key = key();
    let source = platform().enclave(enclave());
    let der = attested_certificate(&source, &key, NOW).unwrap();
    let evidence = parse(&der).unwrap();
    let collateral = collateral(&CollateralKnobs::default());
    let verdict = verify(&evidence, &collateral, &policy(), NOW).unwrap();
    assert!(verdict.simulated());
    assert_eq!((verdict.name(), verdict.tee()), ("the service", Tee::Sgx));
    let Measurements::Sgx(found) = verdict.measurements() else { panic!("{verdict}") };
    assert_eq!(found.mr_enclave, enclave().mr_enclave);
    assert_eq!(found.mr_signer, enclave().mr_signer);
    assert_eq!((found.isv_prod_id, found.isv_svn), (3, 4));
    assert_eq!(verdict.tcb_status(), TcbStatus::UpToDate);
    assert!(verdict.advisories().is_empty());
    assert_eq!(verdict.root_key_id().len(), 48);
    assert_eq!(verdict.spki(), spki(&key));
    assert_eq!(spki_of(&der).unwrap(), spki(&key));
    assert_eq!(verdict.expires(), evidence.not_after(), "the certificate ends first");
    let names: Vec<_> = verdict.checks().iter().map(|check| check.name).collect();
    assert_eq!(
        names,
        [
            "root",
            "attributes",
            "key binding",
            "measurement",
            "collateral",
            "platform",
            "signatures",
            "TCB status",
            "advisories"
        ]
    );
    assert!(verdict.summary().contains("SIMULATED"));
    assert!(!verdict.summary().contains('\n'));
    let json = verdict.to_json();
    assert_eq!(json["simulated"], true);
    assert_eq!(json["collateral_sha256"], hex::encode(collateral.digest()));
    assert_eq!(json["policy_sha256"], hex::encode(policy().digest()));
}

#[test]
fn a_higher_security_version_is_accepted() {
    judge(&Enclave { isv_svn: 5, ..enclave() }).unwrap();
}

#[test]
fn the_verdict_ends_when_the_collateral_grows_too_old() {
    let knobs = CollateralKnobs { issued_days_ago: 6, ..CollateralKnobs::default() };
    let verdict = judge_under(&knobs, &policy(), NOW).unwrap();
    assert_eq!(verdict.expires(), NOW - 3600 + DAY);
}

#[test]
fn stolen_evidence_under_another_key() {
    let (owner, thief) = (key(), key());
    let quote = quote(&enclave(), &owner);
    let as_it_was = certificate(&thief, extension(&quote, &spki(&owner)));
    assert_eq!(code(parse(&as_it_was)), "key-binding");
    let own_claims = certificate(&thief, extension(&quote, &spki(&thief)));
    assert_eq!(code(parse(&own_claims)), "key-binding");
}

#[test]
fn debug_enclave() {
    assert_eq!(code(judge(&Enclave { debug: true, ..enclave() })), "debug-enclave");
}

#[test]
fn not_initialised() {
    assert_eq!(code(judge(&Enclave { initialised: false, ..enclave() })), "not-initialised");
}

#[test]
fn thirty_two_bit_enclave() {
    assert_eq!(code(judge(&Enclave { mode64: false, ..enclave() })), "mode64");
}

#[test]
fn provision_key() {
    assert_eq!(code(judge(&Enclave { provision_key: true, ..enclave() })), "provision-key");
}

#[test]
fn einittoken_key() {
    assert_eq!(code(judge(&Enclave { einittoken_key: true, ..enclave() })), "einittoken-key");
}

#[test]
fn wrong_measurement() {
    let other = Enclave { mr_enclave: [9; 32], ..enclave() };
    let refusal = judge(&other).unwrap_err();
    assert_eq!((refusal.stage, refusal.code), (Stage::Measurement, "measurement"));
    assert_eq!(refusal.matter, Matter::Policy);
    assert!(refusal.found.contains(&"09".repeat(32)), "{refusal}");
    assert!(refusal.expected.contains(&hex::encode(enclave().mr_enclave)), "{refusal}");
}

#[test]
fn wrong_signer() {
    assert_eq!(code(judge(&Enclave { mr_signer: [9; 32], ..enclave() })), "signer");
}

#[test]
fn wrong_product() {
    assert_eq!(code(judge(&Enclave { isv_prod_id: 4, ..enclave() })), "product");
}

#[test]
fn low_isv_svn() {
    let refusal = judge(&Enclave { isv_svn: 3, ..enclave() }).unwrap_err();
    assert_eq!(refusal.code, "isv-svn");
    assert!(refusal.found.contains('3') && refusal.expected.contains("at least 4"), "{refusal}");
}

#[test]
fn other_isv_svn_where_one_is_named() {
    let exact = policy().with_exact_isv_svn();
    let higher = evidence(&Enclave { isv_svn: 5, ..enclave() });
    let collateral = collateral(&CollateralKnobs::default());
    assert_eq!(code(verify(&higher, &collateral, &exact, NOW)), "isv-svn");
    verify(&evidence(&enclave()), &collateral, &exact, NOW).unwrap();
}

#[test]
fn the_measurement_of_one_entry_with_the_signer_of_another() {
    let other = Enclave { mr_enclave: [1; 32], mr_signer: [2; 32], ..enclave() };
    let toml = convelo_simulator::policy_toml(
        &platform(),
        &[("the service", &enclave()), ("another", &other)],
    );
    let policy = Policy::from_toml(&toml).unwrap();
    let collateral = collateral(&CollateralKnobs::default());
    let judge = |enclave| verify(&evidence(&enclave), &collateral, &policy, NOW);
    assert_eq!(judge(enclave()).unwrap().name(), "the service");
    assert_eq!(judge(other.clone()).unwrap().name(), "another");
    assert_eq!(code(judge(Enclave { mr_signer: [2; 32], ..enclave() })), "signer");
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
fn simulated_evidence_under_intel_root() {
    let toml = convelo_simulator::policy_toml(&platform(), &[("the service", &enclave())]);
    let start = toml.find("insecure_simulated_root").unwrap();
    let end = toml.find("[[enclave]]").unwrap();
    let genuine = Policy::from_toml(&[&toml[..start], &toml[end..]].concat()).unwrap();
    assert!(!genuine.is_simulated());
    let refusal = judge_under(&CollateralKnobs::default(), &genuine, NOW).unwrap_err();
    assert_eq!((refusal.stage, refusal.code), (Stage::Quote, "unknown-root"));
    assert!(refusal.found.contains("SIMULATED SGX Root CA"), "{refusal}");
    assert!(refusal.expected.contains("Intel SGX Root CA"), "{refusal}");
    assert!(refusal.advice.contains("name its root in the policy"), "{refusal}");
}

#[test]
fn evidence_of_another_simulated_platform() {
    let other = std::sync::Arc::new(Platform::new(NOW).unwrap());
    let der = attested_certificate(&other.enclave(enclave()), &key(), NOW).unwrap();
    let evidence = parse(&der).unwrap();
    let knobs = CollateralKnobs::default();
    assert_eq!(code(verify(&evidence, &collateral(&knobs), &policy(), NOW)), "unknown-root");
    assert_eq!(code(verify(&evidence, &other.collateral(&knobs), &policy(), NOW)), "unknown-root");
}

#[test]
fn the_accepted_root_appended_to_a_foreign_chain() {
    let other = std::sync::Arc::new(Platform::new(NOW).unwrap());
    let key = key();
    let foreign = other.enclave(enclave()).quote(&report_data(&spki(&key))).unwrap();
    let mut chain = pem_parts(&foreign);
    chain[2] = pem_parts(&quote(&enclave(), &key))[2].clone();
    let forged = with_chain(&foreign, &format!("{}\0", chain.concat()));
    let evidence = parse(&certificate(&key, extension(&forged, &spki(&key)))).unwrap();
    let collateral = collateral(&CollateralKnobs::default());
    assert_eq!(code(verify(&evidence, &collateral, &policy(), NOW)), "signature");
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
    bundle["pck_certificate_chain"] = platform().root_pem().into();
    assert_eq!(
        Collateral::from_json(&bundle.to_string()).unwrap_err(),
        CollateralError::CertificateChain
    );
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

#[test]
fn machine_that_the_policy_does_not_name() {
    let other = "5".repeat(64);
    let named = |machines: &str| {
        policy_with("version = 1", &format!("version = 1\nplatforms = [{machines}]"))
    };
    let judged = |policy: &Policy| {
        verify(&evidence(&enclave()), &collateral(&CollateralKnobs::default()), policy, NOW)
    };
    let refusal = judged(&named(&format!("\"{other}\""))).unwrap_err();
    assert_eq!(refusal.code, "platform");
    let own = refusal.found.rsplit(' ').next().unwrap().to_owned();
    judged(&named(&format!("\"{other}\", \"{own}\""))).unwrap();
    // It is what 'attest inspect' shows.
    let shown = convelo_attest::inspect(&quote(&enclave(), &key()), NOW).unwrap();
    assert!(shown.fields.iter().any(|(_, value)| value.contains(&own)), "{own}");
}

/// A key taken out of one genuine machine signs evidence of any program. Only the list of machines
/// refuses it, and whoever reads about a policy without one is told so.
#[test]
fn leaked_key_of_another_machine() {
    let any = policy();
    assert!(any.accepts_any_platform());
    let told =
        |policy: &Policy| policy.describe().into_iter().find(|l| l.starts_with("platforms: "));
    assert!(told(&any).unwrap().contains("any Intel platform"));
    let measurement = "ab".repeat(32);
    let intel = format!("version = 1\n[[enclave]]\nname = \"x\"\nmr_enclave = \"{measurement}\"\n");
    let intel = Policy::from_toml(&intel).unwrap();
    assert_eq!(told(&intel).unwrap(), "platforms: any Intel platform");
    let verdict = judge(&enclave()).unwrap();
    assert!(verdict.any_platform() && verdict.platforms_in_words().contains("any Intel platform"));
    assert_eq!(verdict.to_json()["any_platform"], true);

    let machine = "5".repeat(64);
    let named = policy_with("version = 1", &format!("version = 1\nplatforms = [\"{machine}\"]"));
    assert!(!named.accepts_any_platform());
    assert_eq!(told(&named).unwrap(), "platforms: only the 1 named");
    let leaked =
        verify(&evidence(&enclave()), &collateral(&CollateralKnobs::default()), &named, NOW);
    assert_eq!(leaked.unwrap_err().code, "platform");
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

/// The author of a policy names a program, and the root of a simulated platform.
#[test]
fn names_in_a_policy_paint_on_the_terminal() {
    let plain = |text: &str| {
        assert!(text.chars().all(convelo_untrusted::is_plain), "{text:?}");
    };
    let toml = policy_toml(&platform(), &[("the service", &enclave())]);
    for name in ["\\u202Eecivres", "\\u200B", "e\\u0301", "\\u05D0\\u0661", "\\u3164"] {
        let policy = Policy::from_toml(&toml.replace("the service", name)).unwrap();
        policy.describe().iter().for_each(|line| plain(line));
        let judged = |enclave: &Enclave| {
            verify(&evidence(enclave), &collateral(&CollateralKnobs::default()), &policy, NOW)
        };
        plain(&judged(&enclave()).unwrap().to_string());
        let another = Enclave { isv_svn: 0, ..enclave() };
        plain(&judged(&another).unwrap_err().to_string());
    }
    for key in ["\\u001B[2K", "\\u202Eecivres", "a\\nb"] {
        let error = Policy::from_toml(&format!("\"{key}\" = 1\n{toml}")).unwrap_err();
        plain(&error.to_string());
    }
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    let name = "Intel SGX Root CA\u{1b}[8m\u{202e}'";
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    let root = params.self_signed(&key()).unwrap().pem();
    let policy = policy().with_insecure_simulated_root(&root).unwrap();
    let lines = policy.describe();
    assert!(lines.iter().all(|line| line.chars().all(convelo_untrusted::is_plain)), "{lines:?}");
    let root = lines.iter().find(|line| line.starts_with("root: ")).unwrap();
    assert!(root.starts_with("root: not Intel's; it calls itself 'CN=Intel SGX Root CA"), "{root}");
}

#[test]
fn cached_keys() {
    let knobs = PlatformKnobs { cached_keys: true, ..PlatformKnobs::default() };
    assert_eq!(code(judge_on(&knobs)), "cached-keys");
}

#[test]
fn a_pck_certificate_with_its_extension_twice() {
    let knobs = PlatformKnobs { repeated_sgx_extension: true, ..PlatformKnobs::default() };
    assert_eq!(code(judge_on(&knobs)), "pck-extension");
}

#[test]
fn other_quoting_enclaves() {
    let quoting = Enclave::quoting();
    let judged = |quoting_enclave: Enclave| {
        judge_on(&PlatformKnobs { quoting_enclave, ..PlatformKnobs::default() })
    };
    judged(quoting.clone()).unwrap();
    judged(Enclave { isv_svn: quoting.isv_svn + 1, ..quoting.clone() }).unwrap();
    for (what, other) in [
        ("debug", Enclave { debug: true, ..quoting.clone() }),
        ("signer", Enclave { mr_signer: enclave().mr_signer, ..quoting.clone() }),
        ("product", Enclave { isv_prod_id: 2, ..quoting.clone() }),
        ("attributes", Enclave { provision_key: false, ..quoting.clone() }),
        ("MISCSELECT", Enclave { misc_select: 1, ..quoting.clone() }),
        ("security version", Enclave { isv_svn: quoting.isv_svn - 1, ..quoting.clone() }),
    ] {
        let refusal = judged(other).unwrap_err();
        assert_eq!(refusal.code, "quoting-enclave", "{what}: {refusal}");
    }
}

#[test]
fn an_attestation_key_that_its_quoting_enclave_did_not_certify() {
    let key = key();
    let good = quote(&enclave(), &key);
    let other = std::sync::Arc::new(Platform::new(NOW).unwrap());
    let foreign = other.enclave(enclave()).quote(&report_data(&spki(&key))).unwrap();
    let judged = |quote: &[u8]| {
        let evidence = parse(&certificate(&key, extension(quote, &spki(&key)))).unwrap();
        code(verify(&evidence, &collateral(&CollateralKnobs::default()), &policy(), NOW))
    };
    // Signature and attestation key of another platform, certified by this one's quoting enclave.
    let signature_and_key = 436..436 + 128;
    let mut spliced = good.clone();
    spliced[signature_and_key.clone()].copy_from_slice(&foreign[signature_and_key]);
    assert_eq!(judged(&spliced), "signature");
    // Other authentication data beside the same attestation key.
    let mut authenticated = good.clone();
    authenticated[CERTIFICATION - 1] ^= 1;
    assert_eq!(judged(&authenticated), "signature");
}

#[test]
fn platform_properties_that_the_policy_forbids_or_allows() {
    let named = "advisories = []\n";
    let with = |rule: &str| policy_with(named, &format!("{named}{rule}\n"));
    let knobs = CollateralKnobs::default();
    assert_eq!(code(judge_under(&knobs, &with("allow_smt = false"), NOW)), "smt");
    let refusal = judge_under(&knobs, &with("allow_dynamic_platform = false"), NOW).unwrap_err();
    assert_eq!(refusal.code, "dynamic-platform");
    assert!(refusal.expected.contains("allow_dynamic_platform = true"), "{refusal}");
    for rule in ["allow_cached_keys = true", "allow_smt = true"] {
        let policy = with(rule);
        judge_under(&knobs, &policy, NOW).unwrap();
        assert_eq!(Policy::from_toml(&policy.to_toml()).unwrap().digest(), policy.digest());
        assert_eq!(Policy::from_json(&policy.to_json()).unwrap().digest(), policy.digest());
    }
}

#[test]
fn every_tcb_status_under_every_policy() {
    const STATUSES: [TcbStatus; 6] = [
        TcbStatus::UpToDate,
        TcbStatus::SWHardeningNeeded,
        TcbStatus::ConfigurationNeeded,
        TcbStatus::ConfigurationAndSWHardeningNeeded,
        TcbStatus::OutOfDate,
        TcbStatus::OutOfDateConfigurationNeeded,
    ];
    for status in STATUSES {
        let knobs =
            CollateralKnobs { tcb_status: status.to_string(), ..CollateralKnobs::default() };
        for accepted in STATUSES {
            // The quoting enclave's own level stays UpToDate, which therefore has to be named too.
            let policy = policy_with("[\"UpToDate\"]", &format!("[\"UpToDate\", \"{accepted}\"]"));
            let result = judge_under(&knobs, &policy, NOW);
            if status == accepted || status == TcbStatus::UpToDate {
                assert_eq!(result.unwrap().tcb_status(), status);
            } else {
                assert_eq!(code(result), "tcb-status", "{status} under {accepted}");
            }
        }
    }
}

#[test]
fn revoked_tcb_status() {
    let revoked = || "Revoked".to_owned();
    let everything = policy_with(
        "[\"UpToDate\"]",
        "[\"UpToDate\", \"OutOfDate\", \"OutOfDateConfigurationNeeded\"]",
    );
    for knobs in [
        CollateralKnobs { tcb_status: revoked(), ..CollateralKnobs::default() },
        CollateralKnobs { qe_status: revoked(), ..CollateralKnobs::default() },
    ] {
        assert_eq!(code(judge_under(&knobs, &everything, NOW)), "tcb-status");
    }
}

#[test]
fn out_of_date_quoting_enclave() {
    for status in ["OutOfDate", "ConfigurationNeeded"] {
        let knobs = CollateralKnobs { qe_status: status.to_owned(), ..CollateralKnobs::default() };
        assert_eq!(code(judge_under(&knobs, &policy(), NOW)), "tcb-status", "{status}");
    }
}

#[test]
fn tcb_recovery() {
    let knobs = CollateralKnobs {
        tcb_status: "OutOfDate".to_owned(),
        better_level: Some(12),
        ..CollateralKnobs::default()
    };
    let refusal = judge_under(&knobs, &policy(), NOW).unwrap_err();
    assert_eq!((refusal.code, refusal.matter), ("tcb-status", Matter::Platform));
    assert!(refusal.found.contains("CPUSVN[0] is 11, needs 12"), "{refusal}");
}

#[test]
fn an_advisory_that_is_not_named() {
    let knobs = CollateralKnobs {
        tcb_status: "SWHardeningNeeded".to_owned(),
        advisories: vec!["INTEL-SA-00657".to_owned(), "INTEL-SA-00828".to_owned()],
        ..CollateralKnobs::default()
    };
    let accepting = |advisories: &str| {
        let toml = convelo_simulator::policy_toml(&platform(), &[("the service", &enclave())])
            .replace("[\"UpToDate\"]", "[\"UpToDate\", \"SWHardeningNeeded\"]")
            .replace("advisories = []", &format!("advisories = [{advisories}]"));
        judge_under(&knobs, &Policy::from_toml(&toml).unwrap(), NOW)
    };
    assert_eq!(code(accepting("")), "advisory");
    let one = accepting("\"INTEL-SA-00657\"").unwrap_err();
    assert!(one.found.contains("INTEL-SA-00828") && !one.found.contains("00657"), "{one}");
    let verdict = accepting("\"INTEL-SA-00828\", \"INTEL-SA-00657\"").unwrap();
    assert_eq!(verdict.advisories(), ["INTEL-SA-00657", "INTEL-SA-00828"]);
}

#[test]
fn wrong_clock() {
    let good = evidence(&enclave());
    let collateral = collateral(&CollateralKnobs::default());
    let at = |now| code(verify(&good, &collateral, &policy(), now));
    assert_eq!(at(NOW - 90 * DAY), "certificate-not-yet-valid");
    assert_eq!(at(NOW + 8 * 365 * DAY), "certificate-expired");
}

#[test]
fn platform_certificates_that_are_over() {
    let platform = std::sync::Arc::new(Platform::new(NOW - 8 * 365 * DAY).unwrap());
    let der = attested_certificate(&platform.enclave(enclave()), &key(), NOW).unwrap();
    let toml = convelo_simulator::policy_toml(&platform, &[("the service", &enclave())]);
    let knobs = CollateralKnobs { now: Some(NOW), ..CollateralKnobs::default() };
    let result = verify(
        &parse(&der).unwrap(),
        &platform.collateral(&knobs),
        &Policy::from_toml(&toml).unwrap(),
        NOW,
    );
    assert_eq!(code(result), "platform-certificate");
}

#[test]
fn trailing_bytes() {
    let key = key();
    let good = quote(&enclave(), &key);
    let form = |quote: &[u8]| code(parse(&certificate(&key, extension(quote, &spki(&key)))));

    let after_the_quote = [good.as_slice(), &[0]].concat();
    assert_eq!(form(&after_the_quote), "quote-form");

    let mut inside_the_signature_data = after_the_quote.clone();
    let length = u32::try_from(good.len() - 436 + 1).unwrap();
    inside_the_signature_data[432..436].copy_from_slice(&length.to_le_bytes());
    assert_eq!(form(&inside_the_signature_data), "quote-form");

    let chain = pem_parts(&good).concat();
    for tail in ["\0\0", "\n\0", "x\0", ""] {
        assert_eq!(form(&with_chain(&good, &format!("{chain}{tail}"))), "quote-form", "{tail:?}");
    }
    assert_eq!(with_chain(&good, &format!("{chain}\0")), good);
}

#[test]
fn wrong_number_or_form_of_certificates() {
    let key = key();
    let good = quote(&enclave(), &key);
    let parts = pem_parts(&good);
    let [leaf, ca, root] = &parts;
    let crlf = parts.concat().replace('\n', "\r\n");
    let one_line = format!(
        "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
        leaf.lines().filter(|line| !line.starts_with('-')).collect::<String>()
    );
    for chain in [
        String::new(),
        leaf.clone(),
        format!("{leaf}{ca}"),
        format!("{leaf}{ca}{root}{root}"),
        format!("note\n{leaf}{ca}{root}"),
        format!("{leaf}\n{ca}{root}"),
        format!("{one_line}{ca}{root}"),
        format!("{leaf}{}{root}", ca.replace("CERTIFICATE", "X509 CRL")),
        crlf,
    ] {
        let spoilt = with_chain(&good, &format!("{chain}\0"));
        let der = certificate(&key, extension(&spoilt, &spki(&key)));
        assert_eq!(code(parse(&der)), "quote-form", "{chain}");
    }
}

#[test]
fn certificates_in_another_order() {
    let key = key();
    let good = quote(&enclave(), &key);
    let [leaf, ca, root] = pem_parts(&good);
    let collateral = collateral(&CollateralKnobs::default());
    for (chain, expected) in [
        (format!("{root}{ca}{leaf}\0"), "unknown-root"),
        (format!("{ca}{leaf}{root}\0"), "pck-extension"),
        (format!("{leaf}{leaf}{root}\0"), "signature"),
    ] {
        let spoilt = with_chain(&good, &chain);
        let evidence = parse(&certificate(&key, extension(&spoilt, &spki(&key)))).unwrap();
        assert_eq!(code(verify(&evidence, &collateral, &policy(), NOW)), expected);
    }
}

#[test]
fn certification_types_other_than_a_chain() {
    let key = key();
    for kind in [1u16, 2, 3, 4, 6, 7] {
        let mut quote = quote(&enclave(), &key);
        quote[CERTIFICATION..CERTIFICATION + 2].copy_from_slice(&kind.to_le_bytes());
        let der = certificate(&key, extension(&quote, &spki(&key)));
        assert_eq!(code(parse(&der)), "certification-type", "{kind}");
    }
}

#[test]
fn other_kinds_of_quotes() {
    let key = key();
    for (at, value, expected) in [
        (0, vec![4, 0], "quote-type"),
        (0, vec![5, 0], "quote-type"),
        (4, vec![0x81, 0, 0, 0], "quote-type"),
        (2, vec![3, 0], "quote-form"),
        (12, vec![0], "quote-form"),
    ] {
        let mut quote = quote(&enclave(), &key);
        quote[at..at + value.len()].copy_from_slice(&value);
        let der = certificate(&key, extension(&quote, &spki(&key)));
        assert_eq!(code(parse(&der)), expected, "byte {at}");
    }
}

#[test]
fn other_bits_in_the_attributes() {
    let quoted = |change: fn(&mut Enclave)| {
        let mut enclave = enclave();
        change(&mut enclave);
        judge_with(
            &enclave,
            "allowed_xfrm = \"00000000000000e7\"\n\
             allowed_misc_select = \"00000000\"\n\
             minimum_config_svn = 0\n",
        )
    };
    quoted(|_| {}).unwrap();
    quoted(|enclave| enclave.xfrm = 0x07).unwrap();
    assert_eq!(code(quoted(|enclave| enclave.xfrm = 0x602E7)), "xfrm");
    assert_eq!(code(quoted(|enclave| enclave.misc_select = 1)), "misc-select");
    // Where the policy says nothing of them, they are not looked at.
    judge(&Enclave { xfrm: 0x602E7, misc_select: 1, ..enclave() }).unwrap();
}

#[test]
fn another_configuration_by_the_host() {
    let ours = Enclave {
        config_id: [7; 64],
        config_svn: 3,
        isv_family_id: [8; 16],
        isv_ext_prod_id: [9; 16],
        ..enclave()
    };
    let rules = format!(
        "config_id = \"{}\"\nminimum_config_svn = 3\nisv_family_id = \"{}\"\n\
         isv_ext_prod_id = \"{}\"\n",
        "07".repeat(64),
        "08".repeat(16),
        "09".repeat(16)
    );
    judge_with(&ours, &rules).unwrap();
    judge_with(&Enclave { config_svn: 4, ..ours.clone() }, &rules).unwrap();
    for (other, expected) in [
        (Enclave { config_id: [6; 64], ..ours.clone() }, "config-id"),
        (Enclave { config_svn: 2, ..ours.clone() }, "config-svn"),
        (Enclave { isv_family_id: [6; 16], ..ours.clone() }, "family"),
        (Enclave { isv_ext_prod_id: [6; 16], ..ours.clone() }, "product"),
        (enclave(), "config-id"),
    ] {
        assert_eq!(code(judge_with(&other, &rules)), expected);
    }
}

/// The whole way for an enclave under the policy with more rules about it.
fn judge_with(enclave: &Enclave, rules: &str) -> Result<convelo_attest::Verdict, Refusal> {
    let toml = policy_toml(&platform(), &[("the service", &self::enclave())]);
    let policy = Policy::from_toml(&format!("{toml}{rules}")).unwrap();
    let again = Policy::from_toml(&policy.to_toml()).unwrap();
    assert_eq!(again.digest(), policy.digest(), "written and read again");
    assert_eq!(Policy::from_json(&policy.to_json()).unwrap().digest(), policy.digest());
    verify(&evidence(enclave), &collateral(&CollateralKnobs::default()), &policy, NOW)
}

#[test]
fn out_of_date_within_its_grace_period_and_after() {
    let since = |date: &str, qe_date: &str| CollateralKnobs {
        tcb_status: "OutOfDate".to_owned(),
        tcb_date: date.to_owned(),
        qe_tcb_date: qe_date.to_owned(),
        ..CollateralKnobs::default()
    };
    let named = "advisories = []\n";
    let grace = policy_with(named, &format!("{named}grace_period_days = 30\n"));
    // NOW is 2026-11-21.
    let recent = since("2026-11-01T00:00:00Z", "2026-11-01T00:00:00Z");
    assert_eq!(code(judge_under(&recent, &policy(), NOW)), "tcb-status");
    let verdict = judge_under(&recent, &grace, NOW).unwrap();
    assert_eq!(verdict.tcb_status(), TcbStatus::OutOfDate);
    assert!(verdict.expires() <= NOW + 10 * DAY, "it ends with the grace");
    let text = verdict.checks().iter().find(|check| check.name == "TCB status").unwrap();
    assert!(text.found.contains("in grace until 2026-12-01"), "{text:?}");

    let old = since("2026-10-20T00:00:00Z", "2026-11-01T00:00:00Z");
    let refusal = judge_under(&old, &grace, NOW).unwrap_err();
    assert!(refusal.found.contains("since 2026-10-20"), "{refusal}");
    assert!(refusal.expected.contains("out of date for at most 30 days"), "{refusal}");

    // The older of the platform's date and the quoting enclave's counts.
    let old_qe = CollateralKnobs {
        tcb_status: "UpToDate".to_owned(),
        qe_status: "OutOfDate".to_owned(),
        ..since("2026-11-01T00:00:00Z", "2026-10-20T00:00:00Z")
    };
    assert_eq!(code(judge_under(&old_qe, &grace, NOW)), "tcb-status");
    let recent_qe = CollateralKnobs { qe_tcb_date: "2026-11-02T00:00:00Z".to_owned(), ..old_qe };
    judge_under(&recent_qe, &grace, NOW).unwrap();

    // Grace is about being out of date, not about the configuration, and not about advisories.
    let configured =
        CollateralKnobs { tcb_status: "OutOfDateConfigurationNeeded".to_owned(), ..recent.clone() };
    assert_eq!(code(judge_under(&configured, &grace, NOW)), "tcb-status");
    let open = CollateralKnobs { advisories: vec!["INTEL-SA-00657".to_owned()], ..recent };
    assert_eq!(code(judge_under(&open, &grace, NOW)), "advisory");
}

#[test]
fn truncated_quote() {
    let key = key();
    let good = quote(&enclave(), &key);
    for length in (0..good.len()).step_by(7).chain(good.len() - 10..good.len()) {
        let der = certificate(&key, extension(&good[..length], &spki(&key)));
        let code = code(parse(&der));
        assert!(matches!(code, "quote-form" | "key-binding"), "{length}: {code}");
    }
}

#[test]
fn oversize_quote() {
    let key = key();
    let long = vec![0; MAXIMUM_QUOTE_BYTES + 1];
    let der = certificate(&key, extension(&long, &spki(&key)));
    assert_eq!(code(parse(&der)), "quote-size");
}

#[test]
fn a_quote_that_declares_a_gigabyte() {
    let key = key();
    for at in [432, CERTIFICATION + 2] {
        let mut quote = quote(&enclave(), &key);
        quote[at..at + 4].copy_from_slice(&(1u32 << 30).to_le_bytes());
        let der = certificate(&key, extension(&quote, &spki(&key)));
        assert_eq!(code(parse(&der)), "quote-form");
    }
}

#[test]
fn oversize_certificate() {
    let knobs = CertificateKnobs {
        extensions: vec![(vec![1, 3, 6, 1, 4, 1, 99999], vec![0; MAXIMUM_CERTIFICATE_BYTES])],
        ..CertificateKnobs::at(NOW)
    };
    let der = convelo_simulator::certificate(&key(), &knobs).unwrap();
    assert_eq!(code(Evidence::from_certificate(&der, NOW)), "certificate-size");
    assert_eq!(code(spki_of(&der)), "certificate-size");
}

#[test]
fn two_evidence_extensions() {
    let key = key();
    let extension = extension(&quote(&enclave(), &key), &spki(&key));
    let knobs = CertificateKnobs::at(NOW).with(extension.clone()).with(extension);
    let der = convelo_simulator::certificate(&key, &knobs).unwrap();
    assert_eq!(code(Evidence::from_certificate(&der, NOW)), "evidence-extensions");
}

#[test]
fn no_evidence() {
    let der = convelo_simulator::certificate(&key(), &CertificateKnobs::at(NOW)).unwrap();
    assert!(Evidence::from_certificate(&der, NOW).unwrap().is_none());
    assert_eq!(convelo_attest::Refusal::missing_evidence().code, "no-evidence");
}

#[test]
fn legacy_evidence_alone() {
    let key = key();
    for oid in [
        vec![0, 6, 9, 42, 840, 113_741, 1337, 6],
        vec![1, 2, 840, 113_741, 1337, 6],
        vec![1, 2, 840, 113_741, 1],
    ] {
        let knobs = CertificateKnobs {
            extensions: vec![(oid, quote(&enclave(), &key))],
            ..CertificateKnobs::at(NOW)
        };
        let der = convelo_simulator::certificate(&key, &knobs).unwrap();
        assert_eq!(code(Evidence::from_certificate(&der, NOW)), "legacy-evidence");
    }
}

/// A certificate as Gramine writes it: DICE evidence, and a bare quote under the legacy OID.
fn pair(legacy: Vec<Vec<u8>>, key: &rcgen::KeyPair) -> Result<Option<Evidence>, Refusal> {
    let dice = extension(&quote(&enclave(), key), &spki(key));
    let mut knobs = CertificateKnobs::at(NOW).with(dice);
    knobs
        .extensions
        .extend(legacy.into_iter().map(|quote| (vec![0, 6, 9, 42, 840, 113_741, 1337, 6], quote)));
    Evidence::from_certificate(&convelo_simulator::certificate(key, &knobs).unwrap(), NOW)
}

#[test]
fn evidence_is_written_as_gramine_writes_it() {
    let key = key();
    let written = extensions(&platform().enclave(enclave()), &spki(&key)).unwrap();
    let oids: Vec<&[u64]> = written.iter().map(|extension| extension.oid).collect();
    assert_eq!(oids, [DICE, &[0, 6, 9, 42, 840, 113_741, 1337, 6]]);
    let mut knobs = CertificateKnobs::at(NOW);
    for extension in written {
        knobs = knobs.with(extension);
    }
    let der = convelo_simulator::certificate(&key, &knobs).unwrap();
    parse(&der).unwrap();
    // The identifier as it stands in Gramine's own certificates.
    let oid = [0x06, 0x0B, 0x06, 0x09, 0x2A, 0x86, 0x48, 0x86, 0xF8, 0x4D, 0x8A, 0x39, 0x06];
    let genuine = std::fs::read_to_string(vector("ratls-certs/gramine-cert.pem")).unwrap();
    let (_, genuine) = x509_cert::der::pem::decode_vec(genuine.trim().as_bytes()).unwrap();
    for certificate in [&der, &genuine] {
        assert!(certificate.windows(oid.len()).any(|bytes| bytes == oid));
    }
    // Gramine does not run in trust domains.
    let domain = platform().trust_domain(TrustDomain::named("convelo-service"));
    assert_eq!(extensions(&domain, &spki(&key)).unwrap().len(), 1);
}

/// A quote over the bare key, as the legacy evidence has it.
fn legacy_quote(enclave: &Enclave, key: &rcgen::KeyPair) -> Vec<u8> {
    let mut data = [0; 64];
    data[..32].copy_from_slice(&Sha256::digest(spki(key)));
    platform().enclave(enclave.clone()).quote(&data).unwrap()
}

#[test]
fn dice_and_legacy_evidence_disagree() {
    let (ours, other) = (key(), key());
    assert!(pair(vec![legacy_quote(&enclave(), &ours)], &ours).unwrap().is_some());
    let another = Enclave { mr_enclave: [7; 32], ..enclave() };
    let debug = Enclave { debug: true, ..enclave() };
    for legacy in [
        legacy_quote(&enclave(), &other),
        legacy_quote(&another, &ours),
        legacy_quote(&debug, &ours),
        quote(&enclave(), &ours),
    ] {
        assert_eq!(code(pair(vec![legacy], &ours)), "evidence-disagrees");
    }
    let twice = vec![legacy_quote(&enclave(), &ours), legacy_quote(&enclave(), &ours)];
    assert!(pair(twice, &ours).is_err());
    assert_eq!(code(pair(vec![vec![1, 2, 3]], &ours)), "quote-form");
}

#[test]
fn not_a_certificate() {
    let good = certificate(&key(), extension(&[], &[]));
    let trailing = [good.as_slice(), &[0]].concat();
    for der in [&[][..], &[0x30, 0x80], &good[..good.len() - 1], &trailing] {
        assert_eq!(code(Evidence::from_certificate(der, NOW)), "certificate-form");
    }
}

#[test]
fn key_of_another_algorithm() {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let der = certificate(&key, extension(&quote(&enclave(), &key), &spki(&key)));
    assert_eq!(code(parse(&der)), "key-type");
    let p384 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    parse(&certificate(&p384, extension(&quote(&enclave(), &p384), &spki(&p384)))).unwrap();
}

#[test]
fn expired_certificate() {
    assert_eq!(code(lived(NOW - 2 * 3600, NOW - 1)), "certificate-expired");
    lived(NOW - 3600, NOW).unwrap();
}

#[test]
fn future_certificate() {
    let refusal = lived(NOW + 60, NOW + 3600).unwrap_err();
    assert_eq!((refusal.code, refusal.matter), ("certificate-not-yet-valid", Matter::Clock));
}

#[test]
fn ten_year_certificate() {
    assert_eq!(code(lived(NOW - 1, NOW + 3650 * DAY)), "certificate-lifetime");
    assert_eq!(code(lived(NOW - 3600, NOW + DAY + 1)), "certificate-lifetime");
    lived(NOW - 3600, NOW + DAY).unwrap();
}

#[test]
fn high_half_of_report_data_not_zero() {
    let key = key();
    let mut data = report_data(&spki(&key));
    data[63] = 1;
    assert_eq!(code(quoted_over(&key, &data)), "key-binding");
}

#[test]
fn quote_over_raw_point_not_spki() {
    let key = key();
    let point = key.public_key_raw();
    assert_eq!(code(quoted_over(&key, &report_data(point))), "key-binding");
    let claims_over_point = certificate(
        &key,
        extension(&platform().enclave(enclave()).quote(&report_data(point)).unwrap(), point),
    );
    assert_eq!(code(parse(&claims_over_point)), "key-binding");
}

#[test]
fn quote_over_the_key_without_claims() {
    let key = key();
    let mut data = [0; 64];
    data[..32].copy_from_slice(&Sha256::digest(spki(&key)));
    assert_eq!(code(quoted_over(&key, &data)), "key-binding");
}

#[test]
fn no_pubkey_hash() {
    let key = key();
    assert_eq!(code(with_claims(&key, &[0xA0])), "no-pubkey-hash");
    let nonce_only = [&[0xA1][..], &text("nonce"), &bytes(&[7; 32])].concat();
    assert_eq!(code(with_claims(&key, &nonce_only)), "no-pubkey-hash");
    let foreign_only = [&[0xA1][..], &text("key_0"), &bytes(b"value_0")].concat();
    let der = claims_certificate(&key, &foreign_only);
    let rules = CertificateRules { skip_foreign_claims: true, ..CertificateRules::default() };
    assert_eq!(code(Evidence::from_certificate_with(&der, NOW, &rules)), "no-pubkey-hash");
}

#[test]
fn unknown_claim() {
    let key = key();
    let claims = [&[0xA2][..], &text("key_0"), &bytes(b"value_0"), &pubkey_hash(&key)].concat();
    let refusal = with_claims(&key, &claims).unwrap_err();
    assert_eq!(refusal.code, "unknown-claim");
    assert!(refusal.found.contains("key_0"), "{refusal}");
    let rules = CertificateRules { skip_foreign_claims: true, ..CertificateRules::default() };
    let der = claims_certificate(&key, &claims);
    assert!(Evidence::from_certificate_with(&der, NOW, &rules).unwrap().is_some());
}

#[test]
fn a_nonce_beside_the_pubkey_hash_is_accepted() {
    let key = key();
    let claims = [&[0xA2][..], &text("nonce"), &bytes(&[7; 32]), &pubkey_hash(&key)].concat();
    with_claims(&key, &claims).unwrap();
}

#[test]
fn two_pubkey_hashes() {
    let (key, other) = (key(), key());
    let claims = [&[0xA2][..], &pubkey_hash(&other), &pubkey_hash(&key)].concat();
    assert_eq!(code(with_claims(&key, &claims)), "evidence-form");
}

#[test]
fn non_canonical_cbor() {
    let key = key();
    let hash = Sha256::digest(spki(&key));
    let name = text("pubkey-hash");
    let inner = [&[0x82, 0x01][..], &bytes(&hash)].concat();
    let good = [&[0xA1][..], &name, &bytes(&inner)].concat();
    with_claims(&key, &good).unwrap();

    let long_map_head = [&[0xB8, 0x01][..], &name, &bytes(&inner)].concat();
    let endless_map = [&[0xBF][..], &name, &bytes(&inner), &[0xFF]].concat();
    let two_byte_length = [&[0xA1][..], &name, &[0x59, 0, 36], &inner].concat();
    let endless_string = [&[0xA1][..], &name, &[0x5F], &bytes(&inner), &[0xFF]].concat();
    let long_hash_id =
        [&[0xA1][..], &name, &bytes(&[&[0x82, 0x18, 0x01][..], &bytes(&hash)].concat())].concat();
    let name_as_bytes = [&[0xA1][..], &bytes(b"pubkey-hash"), &bytes(&inner)].concat();
    let text_as_value = [&[0xA1][..], &name, &text("hash")].concat();
    let unsorted = [&[0xA2][..], &name, &bytes(&inner), &text("nonce"), &bytes(&[7; 32])].concat();
    let trailing = [good.as_slice(), &[0xF6]].concat();
    let hash_id_zero =
        [&[0xA1][..], &name, &bytes(&[&[0x82, 0x00][..], &bytes(&hash)].concat())].concat();
    for claims in [
        long_map_head,
        endless_map,
        two_byte_length,
        endless_string,
        long_hash_id,
        name_as_bytes,
        text_as_value,
        unsorted,
        trailing,
        hash_id_zero,
        good[..good.len() - 1].to_vec(),
    ] {
        assert_eq!(code(with_claims(&key, &claims)), "evidence-form", "{}", hex::encode(claims));
    }
}

#[test]
fn non_canonical_evidence() {
    let key = key();
    let value = extension(&quote(&enclave(), &key), &spki(&key)).value;
    parse(&certificate_with_value(&key, value.clone())).unwrap();
    let long_tag = [&[0xDA, 0, 0, 0xEA, 0x60][..], &value[3..]].concat();
    let other_tag = [&[0xD9, 0xEA, 0x61][..], &value[3..]].concat();
    let array_of_three = [&value[..3], &[0x83], &value[4..], &[0x40]].concat();
    let trailing = [value.as_slice(), &[0]].concat();
    let long_length = [&value[..4], &[0x5A, 0, 0], &value[5..]].concat();
    for spoilt in [Vec::new(), long_tag, other_tag, array_of_three, trailing, long_length] {
        assert_eq!(code(parse(&certificate_with_value(&key, spoilt))), "evidence-form");
    }
}

#[test]
fn oversize_claims() {
    let key = key();
    let claims = [&[0xA2][..], &text("nonce"), &bytes(&[7; 1000]), &pubkey_hash(&key)].concat();
    assert_eq!(code(with_claims(&key, &claims)), "evidence-form");
}

#[test]
fn every_altered_bit_of_a_quote() {
    let data = report_data(b"a key");
    let good = platform().enclave(enclave()).quote(&data).unwrap();
    let (collateral, policy) = (collateral(&CollateralKnobs::default()), policy());
    let judge = |quote: &[u8]| {
        let evidence = Evidence::from_quote(quote, &data, b"a key")?;
        verify(&evidence, &collateral, &policy, NOW)
    };
    judge(&good).unwrap();
    assert_eq!(accepted_changes("SGX v3", &good, judge), [0; 0]);
}

proptest! {
    #[test]
    fn no_altered_bit_of_a_certificate_causes_a_panic(position in any::<prop::sample::Index>()) {
        let key = key();
        let mut der = certificate(&key, extension(&quote(&enclave(), &key), &spki(&key)));
        let bit = position.index(der.len() * 8);
        der[bit / 8] ^= 1 << (bit % 8);
        let collateral = collateral(&CollateralKnobs::default());
        if let Ok(Some(evidence)) = Evidence::from_certificate(&der, NOW)
            && let Ok(verdict) = verify(&evidence, &collateral, &policy(), NOW)
        {
            prop_assert_eq!(verdict.spki(), spki(&key), "bit {}", bit);
        }
    }
}

/// Where the type of the certification data stands in a quote.
const CERTIFICATION: usize = 436 + 64 + 64 + 384 + 64 + 2 + 32;

/// Good evidence of a platform that is odd in these respects, under a policy that names its root.
fn judge_on(knobs: &PlatformKnobs) -> Result<Verdict, Refusal> {
    let platform = std::sync::Arc::new(Platform::with_knobs(NOW, knobs).unwrap());
    let der = attested_certificate(&platform.enclave(enclave()), &key(), NOW).unwrap();
    let toml = policy_toml(&platform, &[("the service", &enclave())]);
    let policy = Policy::from_toml(&toml).unwrap();
    let collateral = platform.collateral(&CollateralKnobs::default());
    verify(&parse(&der)?, &collateral, &policy, NOW)
}

/// Good collateral as JSON, for changes.
fn bundle() -> serde_json::Value {
    serde_json::from_str(&collateral(&CollateralKnobs::default()).to_json()).unwrap()
}

/// The three certificates of a quote, PEM.
fn pem_parts(quote: &[u8]) -> [String; 3] {
    let pem = std::str::from_utf8(&quote[CERTIFICATION + 6..quote.len() - 1]).unwrap();
    let parts: Vec<String> =
        pem.split_inclusive("-----END CERTIFICATE-----\n").map(str::to_owned).collect();
    parts.try_into().unwrap()
}

/// The quote with other certification data, both lengths set right.
fn with_chain(quote: &[u8], chain: &str) -> Vec<u8> {
    let mut out = quote[..CERTIFICATION + 2].to_vec();
    out.extend(u32::try_from(chain.len()).unwrap().to_le_bytes());
    out.extend(chain.as_bytes());
    let length = u32::try_from(out.len() - 436).unwrap();
    out[432..436].copy_from_slice(&length.to_le_bytes());
    out
}

/// A certificate that is valid for this span.
fn lived(not_before: u64, not_after: u64) -> Result<Evidence, Refusal> {
    let key = key();
    let knobs = CertificateKnobs { not_before, not_after, extensions: Vec::new() }
        .with(extension(&quote(&enclave(), &key), &spki(&key)));
    parse(&convelo_simulator::certificate(&key, &knobs).unwrap())
}

/// Good claims, but a quote over this report data.
fn quoted_over(key: &rcgen::KeyPair, data: &[u8; 64]) -> Result<Evidence, Refusal> {
    let quote = platform().enclave(enclave()).quote(data).unwrap();
    parse(&certificate(key, extension(&quote, &spki(key))))
}

/// A quote over these claims, in a certificate.
fn claims_certificate(key: &rcgen::KeyPair, claims: &[u8]) -> Vec<u8> {
    let mut data = [0; 64];
    data[..32].copy_from_slice(&Sha256::digest(claims));
    let quote = platform().enclave(enclave()).quote(&data).unwrap();
    let knobs = CertificateKnobs {
        extensions: vec![(DICE.to_vec(), tagged(&quote, claims))],
        ..CertificateKnobs::at(NOW)
    };
    convelo_simulator::certificate(key, &knobs).unwrap()
}

fn with_claims(key: &rcgen::KeyPair, claims: &[u8]) -> Result<Evidence, Refusal> {
    parse(&claims_certificate(key, claims))
}

/// The good `pubkey-hash` pair of a claims map.
fn pubkey_hash(key: &rcgen::KeyPair) -> Vec<u8> {
    let inner = [&[0x82, 0x01][..], &bytes(&Sha256::digest(spki(key)))].concat();
    [text("pubkey-hash"), bytes(&inner)].concat()
}
