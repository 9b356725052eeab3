//! Policies made from what people have: Gramine's settings, a signed enclave, a measurement.

use std::fmt::Write as _;

use convelo_attest::{Policy, certificate_from_pem, certificate_to_pem, inspect};
use convelo_simulator::Enclave;
use proptest::prelude::*;

use crate::kit::{NOW, certificate, enclave, key, platform, policy, policy_with, quote, spki};

const A: &str = "0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a";
const B: &str = "0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b";

fn env(settings: &[(&str, &str)]) -> Result<Policy, String> {
    let base = [
        ("RA_TLS_MRENCLAVE", A),
        ("RA_TLS_MRSIGNER", B),
        ("RA_TLS_ISV_PROD_ID", "7"),
        ("RA_TLS_ISV_SVN", "2"),
    ];
    let kept = base.iter().filter(|(name, _)| settings.iter().all(|(other, _)| other != name));
    let all = kept.chain(settings).filter(|(_, value)| *value != "ABSENT");
    Policy::from_gramine_env("x", all.copied()).map_err(|error| error.to_string())
}

#[test]
fn gramines_settings() {
    let policy = env(&[("PATH", "/bin")]).unwrap().to_json();
    assert_eq!(policy["enclave"][0]["mr_enclave"], A);
    assert_eq!(policy["enclave"][0]["mr_signer"], B);
    assert_eq!(policy["enclave"][0]["isv_prod_id"], 7);
    assert_eq!(policy["enclave"][0]["minimum_isv_svn"], 2, "Gramine compares >=");
    assert_eq!(policy["tcb_statuses"], serde_json::json!(["UpToDate"]));

    let any = env(&[("RA_TLS_MRENCLAVE", "any"), ("RA_TLS_ISV_SVN", "any")]).unwrap().to_json();
    assert!(any["enclave"][0].get("mr_enclave").is_none());
    assert_eq!(any["enclave"][0]["minimum_isv_svn"], 0);
}

#[test]
fn gramines_settings_for_statuses_count_only_as_1() {
    let statuses =
        |settings: &[(&str, &str)]| env(settings).unwrap().to_json()["tcb_statuses"].clone();
    assert_eq!(
        statuses(&[("RA_TLS_ALLOW_SW_HARDENING_NEEDED", "1")]),
        serde_json::json!(["UpToDate", "SWHardeningNeeded"])
    );
    let loose = env(&[("RA_TLS_ALLOW_HW_CONFIG_NEEDED", "true")]).unwrap();
    assert_eq!(loose.to_json()["tcb_statuses"], serde_json::json!(["UpToDate"]));
    assert_eq!(loose.warnings().len(), 1);
    let outdated = env(&[("RA_TLS_ALLOW_OUTDATED_TCB_INSECURE", "1")]).unwrap();
    assert!(outdated.to_json()["tcb_statuses"].to_string().contains("OutOfDate"));
    assert!(outdated.warnings()[0].contains("expired collateral"));
}

#[test]
fn gramines_settings_that_would_accept_too_much_or_say_nothing() {
    for (setting, value, says) in [
        ("RA_TLS_MRENCLAVE", "ABSENT", "missing"),
        ("RA_TLS_MRSIGNER", "", "missing"),
        ("RA_TLS_MRENCLAVE", "0a0a", "4 characters"),
        ("RA_TLS_ISV_SVN", "65536", "0 to 65535"),
        ("RA_TLS_ALLOW_DEBUG_ENCLAVE_INSECURE", "1", "debug enclaves"),
        ("RA_TLS_MRENCLAV", A, "not a setting"),
    ] {
        let error = env(&[(setting, value)]).unwrap_err();
        assert!(error.contains(says), "{setting}={value}: {error}");
    }
    let anybody = env(&[("RA_TLS_MRENCLAVE", "any"), ("RA_TLS_MRSIGNER", "any")]).unwrap_err();
    assert!(anybody.contains("anybody's code"), "{anybody}");
    let signer_alone = [("RA_TLS_MRENCLAVE", "any"), ("RA_TLS_ISV_PROD_ID", "any")];
    assert_eq!(env(&signer_alone).unwrap().to_json()["enclave"][0]["isv_prod_id"], "any");
}

/// A SIGSTRUCT with these fields; its signature is zeros, which nobody looks at.
fn sigstruct() -> Vec<u8> {
    let mut bytes = vec![0; 1808];
    bytes[..16].copy_from_slice(&[6, 0, 0, 0, 0xe1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0]);
    bytes[24..40].copy_from_slice(&[1, 1, 0, 0, 0x60, 0, 0, 0, 0x60, 0, 0, 0, 1, 0, 0, 0]);
    bytes[128..512].fill(0x5a);
    bytes[928] = 4;
    bytes[960..992].fill(0x0a);
    bytes[1024..1028].copy_from_slice(&[7, 0, 2, 0]);
    bytes
}

#[test]
fn a_signed_enclave() {
    let policy = Policy::from_sigstruct("x", &sigstruct()).unwrap().to_json();
    assert_eq!(policy["enclave"][0]["mr_enclave"], A);
    // SHA-256 of 384 bytes 0x5a, by coreutils.
    let signer = "9dd3657b6f964138d557ee18bb2095a19ff5b0a3a777287ead663273bbc6aa34";
    assert_eq!(policy["enclave"][0]["mr_signer"], signer);
    assert_eq!(policy["enclave"][0]["isv_prod_id"], 7);
    assert_eq!(policy["enclave"][0]["minimum_isv_svn"], 2);
}

#[test]
fn what_is_no_signed_enclave() {
    let refused = |bytes: &[u8]| Policy::from_sigstruct("x", bytes).unwrap_err().to_string();
    assert!(refused(&[]).contains("1808"));
    assert!(refused(&sigstruct()[1..]).contains("1807 bytes"));
    let mut other = sigstruct();
    other[30] ^= 1;
    assert!(refused(&other).contains("not a SIGSTRUCT"));
    let mut debug = sigstruct();
    debug[928] |= 2;
    assert!(refused(&debug).contains("DEBUG"));
    let mut unmeasured = sigstruct();
    unmeasured[960..992].fill(0);
    assert!(refused(&unmeasured).contains("zeros"));
}

#[test]
fn a_policy_file_says_the_same_as_the_policy() {
    let machines = format!("version = 1\nminimum_evaluation_number = 3\nplatforms = [\"{A}\"]");
    let lists = "version = 1\nminimum_root_crl_number = 2\nminimum_pck_crl_number = 3\n\
                 root_crl_issued_since = \"2026-02-26T13:04:00Z\"";
    assert_eq!(policy_with("version = 1", lists).to_json()["minimum_root_crl_number"], 2);
    let all = [
        policy(),
        policy_with("version = 1", &machines),
        policy_with("version = 1", lists),
        env(&[("RA_TLS_ALLOW_SW_HARDENING_NEEDED", "1")]).unwrap(),
        Policy::from_measurement("a \"quoted\" name\u{e9}", A, None, None, 3).unwrap(),
        Policy::from_sigstruct("x", &sigstruct()).unwrap().with_exact_isv_svn(),
    ];
    for policy in all {
        let text = policy.to_toml();
        let read = Policy::from_toml(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        assert_eq!(read.to_json(), policy.to_json(), "{text}");
    }
}

proptest! {
    #[test]
    fn any_name_survives_the_file(name in "[^\\p{Cc}]{1,16}") {
        let policy = Policy::from_measurement(&name, A, Some(B), Some(1), 2).unwrap();
        prop_assert_eq!(Policy::from_toml(&policy.to_toml()).unwrap().to_json(), policy.to_json());
    }

    #[test]
    fn no_sigstruct_causes_a_panic(position in 0..1808usize, byte in any::<u8>()) {
        let mut bytes = sigstruct();
        bytes[position] = byte;
        let _ = Policy::from_sigstruct("x", &bytes);
    }
}

#[test]
fn pem_and_back() {
    let key = key();
    let der = certificate(&key, convelo_attest::extension(&quote(&enclave(), &key), &spki(&key)));
    assert_eq!(certificate_from_pem(&certificate_to_pem(&der)), Some(der));
    assert_eq!(certificate_from_pem("-----BEGIN PRIVATE KEY-----"), None);
}

fn shown(bytes: &[u8]) -> String {
    let inspection = inspect(bytes, NOW).unwrap();
    let mut text = String::new();
    for (name, value) in &inspection.fields {
        writeln!(text, "{name}: {value}").unwrap();
    }
    text + &inspection.warnings.join("\n")
}

#[test]
fn inspecting_a_certificate() {
    let key = key();
    let der = certificate(&key, convelo_attest::extension(&quote(&enclave(), &key), &spki(&key)));
    let text = shown(&der);
    assert!(text.contains(&format!("mr_enclave: {}", hex::encode(enclave().mr_enclave))), "{text}");
    assert!(text.contains("binds the certificate's key"), "{text}");
    assert!(text.contains("NOT INTEL'S ROOT"), "{text}");
    assert!(!text.contains("DEBUG"), "{text}");
}

#[test]
fn inspecting_what_would_be_refused() {
    let (ours, other) = (key(), key());
    let debug = Enclave { debug: true, ..enclave() };
    let evidence = convelo_attest::extension(&quote(&debug, &ours), &spki(&ours));
    assert!(shown(&certificate(&ours, evidence.clone())).contains("DEBUG ENCLAVE"));
    assert!(shown(&certificate(&other, evidence)).contains("[key-binding]"));
    let bare = platform().enclave(enclave());
    let bare = convelo_attest::QuoteSource::quote(&bare, &[7; 64]).unwrap();
    assert!(shown(&bare).contains("bare quote"));
    assert!(inspect(b"hello", NOW).is_err());
    assert!(inspect(&[], NOW).is_err());
}
