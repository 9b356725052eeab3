//! The platform: its root, its keys, its status and its findings.

use super::{CERTIFICATION, pem_parts, with_chain};
use crate::kit::{
    DAY, NOW, certificate, code, collateral, enclave, evidence, judge, judge_under, key, parse,
    platform, policy, policy_with, quote, spki,
};
use convelo_attest::{
    Matter, Policy, QuoteSource, Refusal, Stage, TcbStatus, Verdict, extension, report_data, verify,
};
use convelo_simulator::{
    CollateralKnobs, Enclave, Platform, PlatformKnobs, attested_certificate, policy_toml,
};

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

/// Good evidence of a platform that is odd in these respects, under a policy that names its root.
fn judge_on(knobs: &PlatformKnobs) -> Result<Verdict, Refusal> {
    let platform = std::sync::Arc::new(Platform::with_knobs(NOW, knobs).unwrap());
    let der = attested_certificate(&platform.enclave(enclave()), &key(), NOW).unwrap();
    let toml = policy_toml(&platform, &[("the service", &enclave())]);
    let policy = Policy::from_toml(&toml).unwrap();
    let collateral = platform.collateral(&CollateralKnobs::default());
    verify(&parse(&der)?, &collateral, &policy, NOW)
}
