//! Evidence of genuine hardware, at the clocks of `vectors/attestation/README.md`.

use std::fs;

use crate::kit::{code, enclave, evidence, key, policy, spki, vector};
use convelo_attest::{
    CertificateRules, Collateral, Evidence, PlatformId, Policy, Refusal, Stage, TcbStatus, Tee,
    Verdict, extension, inspect, verify,
};
use convelo_simulator::CertificateKnobs;
use serde_json::json;
use sha2::{Digest, Sha256};

const SGX_CLOCK: u64 = 1_750_334_171;
const SGX_MR_ENCLAVE: &str = "33d8736db756ed4997e04ba358d27833188f1932ff7b1d156904d3f560452fbb";
const CERTIFICATES_CLOCK: u64 = 1_680_000_000;
const CERTIFICATES: [&str; 3] = ["gramine", "intel-sgxsdk", "rats-tls"];

#[test]
fn the_vectors_are_unchanged() {
    for (name, digest) in [
        ("quotes/sgx_quote", "f8b81014b6e443609746822194910f5dc1c92c322fa0584298d1e33e505ca3b5"),
        (
            "quotes/sgx_quote_collateral.json",
            "bdd694bbe50f3a2a1cfe12f9e2bd83125921107a368edcf10780a5523b8501ce",
        ),
        (
            "ratls-certs/gramine-cert.pem",
            "fdab033991d7e36434ad1abd1880fbfa45a329301a2630f725af55716f6ecf32",
        ),
    ] {
        assert_eq!(hex::encode(Sha256::digest(read(name))), digest, "{name}");
    }
}

#[test]
fn genuine_collateral_verifies_by_itself_under_intels_root() {
    let text = String::from_utf8(read("quotes/sgx_quote_collateral.json")).unwrap();
    let genuine = Collateral::from_json(&text).unwrap();
    genuine.verify(&Policy::of_intels_root(), SGX_CLOCK).unwrap();
    let error = genuine.verify(&policy(), SGX_CLOCK).unwrap_err().to_string();
    assert!(error.contains("another root"), "{error}");
    let error = genuine.verify(&Policy::of_intels_root(), SGX_CLOCK + 31 * 86_400).unwrap_err();
    assert!(error.to_string().contains("expired"), "{error}");
}

#[test]
fn the_sgx_sample_is_refused_by_a_strict_policy() {
    let refusal = judge_sample(&policy_for_sample("", ""), SGX_CLOCK).unwrap_err();
    assert_eq!(refusal.code, "tcb-status");
    assert!(refusal.found.contains("ConfigurationAndSWHardeningNeeded"), "{refusal}");
    assert!(refusal.found.contains("INTEL-SA-00289 INTEL-SA-00615"), "{refusal}");
}

#[test]
fn the_sgx_sample_is_refused_if_one_advisory_is_not_named() {
    let policy = policy_for_sample(STATUS, "advisories = [\"INTEL-SA-00289\"]");
    let refusal = judge_sample(&policy, SGX_CLOCK).unwrap_err();
    assert_eq!(refusal.code, "advisory");
    assert!(refusal.found.contains("INTEL-SA-00615"), "{refusal}");
}

#[test]
fn the_sgx_sample_is_accepted_if_its_status_and_advisories_are_named() {
    let verdict = judge_sample(&policy_for_sample(STATUS, ADVISORIES), SGX_CLOCK).unwrap();
    assert!(!verdict.simulated());
    assert!(!verdict.summary().contains("SIMULATED"));
    assert_eq!(hex::encode(verdict.measurements().measurement()), SGX_MR_ENCLAVE);
    assert_eq!(verdict.tcb_status(), TcbStatus::ConfigurationAndSWHardeningNeeded);
    assert_eq!(verdict.advisories(), ["INTEL-SA-00289", "INTEL-SA-00615"]);
    assert_eq!(verdict.to_json()["fmspc"], "00a067110000");
    assert_eq!(verdict.expires(), 1_750_327_278 + 7 * 86_400, "the QE identity is the oldest");
}

#[test]
fn the_sgx_sample_ages() {
    let policy = policy_for_sample(STATUS, ADVISORIES);
    let at = |now| code(judge_sample(&policy, now));
    assert_eq!(at(SGX_CLOCK - 86_400), "collateral-future");
    assert_eq!(at(SGX_CLOCK + 8 * 86_400), "collateral-stale");
    assert_eq!(at(SGX_CLOCK + 31 * 86_400), "collateral-expired");
    assert_eq!(at(SGX_CLOCK + 365 * 86_400), "collateral-expired");
}

#[test]
fn a_genuine_quote_for_other_report_data() {
    let quote = read("quotes/sgx_quote");
    assert_eq!(code(Evidence::from_quote(&quote, &[0; 64], b"a key")), "key-binding");
    let key = key();
    let knobs = CertificateKnobs::at(SGX_CLOCK).with(extension(&quote, &spki(&key)));
    let der = convelo_simulator::certificate(&key, &knobs).unwrap();
    assert_eq!(code(Evidence::from_certificate(&der, SGX_CLOCK)), "key-binding");
}

#[test]
fn genuine_quote_under_the_simulated_root() {
    let refusal = verify(&sample(), &sample_collateral(), &policy(), SGX_CLOCK).unwrap_err();
    assert_eq!(refusal.code, "unknown-root");
    assert!(refusal.found.contains("Intel SGX Root CA"), "{refusal}");
    assert!(refusal.expected.contains("SIMULATED SGX Root CA"), "{refusal}");
}

#[test]
fn genuine_collateral_with_simulated_evidence() {
    let refusal = verify(&evidence(&enclave()), &sample_collateral(), &policy(), crate::kit::NOW)
        .unwrap_err();
    assert_eq!(refusal.code, "collateral-expired");
}

#[test]
fn genuine_certificates_bind_their_keys() {
    for name in CERTIFICATES {
        let evidence = certificate_evidence(name, &lenient()).unwrap();
        let spki = convelo_attest::spki_of(&certificate(name)).unwrap();
        assert_eq!(evidence.spki(), spki, "{name}");
    }
}

#[test]
fn genuine_certificates_live_too_long_for_us() {
    for name in CERTIFICATES {
        let rules = CertificateRules { skip_foreign_claims: true, ..CertificateRules::default() };
        assert_eq!(code(certificate_evidence(name, &rules)), "certificate-lifetime", "{name}");
    }
}

#[test]
fn a_genuine_certificate_with_foreign_claims() {
    let rules = CertificateRules { skip_foreign_claims: false, ..lenient() };
    assert_eq!(code(certificate_evidence("rats-tls", &rules)), "unknown-claim");
    certificate_evidence("gramine", &rules).unwrap();
}

#[test]
fn genuine_certificates_are_of_debug_enclaves() {
    let accepts_all_but_debugging = policy_for_sample(STATUS, ADVISORIES);
    for name in CERTIFICATES {
        let evidence = certificate_evidence(name, &lenient()).unwrap();
        let result =
            verify(&evidence, &sample_collateral(), &accepts_all_but_debugging, CERTIFICATES_CLOCK);
        assert_eq!(code(result), "debug-enclave", "{name}");
    }
}

/// A genuine TDX sample under Intel's root at its clock, as whoever asked for its report data would
/// judge it.
fn judge_tdx(name: &str, quote: &[u8], now: u64) -> Result<Verdict, Refusal> {
    let version_5 = quote[0] == 5;
    let body = &quote[if version_5 { 54 } else { 48 }..];
    let hex = |at: usize| hex::encode(&body[at..at + 48]);
    let policy = Policy::from_toml(&format!(
        "version = 1\nallow_cached_keys = true\n[[trust_domain]]\nname = \"sample\"\nmr_td = \"{}\"\nrtmr0 = \"{}\"\n\
         rtmr1 = \"{}\"\nrtmr2 = \"{}\"\nrtmr3 = \"{}\"\nmr_config_id = \"{}\"\n\
         allowed_td_attributes = \"0000000010000000\"\nallowed_xfam = \"00000000000602e7\"\n",
        hex(136),
        hex(328),
        hex(376),
        hex(424),
        hex(472),
        hex(184),
    ))
    .unwrap();
    let collateral = text(&format!("quotes/{name}_collateral.json"));
    let collateral = Collateral::from_json(&collateral).unwrap();
    let report_data: &[u8; 64] = body[520..584].try_into().unwrap();
    verify(&Evidence::from_bare_quote(quote, report_data)?, &collateral, &policy, now)
}

const TDX_CLOCK: u64 = 1_750_332_747;
const TD15EX_CLOCK: u64 = 1_791_421_786;

/// The sample as its kernel returned it, with 70 zeros after it.
fn tdx_sample() -> Vec<u8> {
    let quote = read("quotes/tdx_quote");
    assert!(quote[TDX_BYTES..].iter().all(|byte| *byte == 0));
    quote
}

const TDX_BYTES: usize = 4936;

#[test]
fn the_tdx_samples_are_accepted_at_their_clocks_and_at_no_other() {
    for (name, quote, clock) in [
        ("tdx_quote", tdx_sample(), TDX_CLOCK),
        ("tdx_quote_td15ex", read("quotes/tdx_quote_td15ex"), TD15EX_CLOCK),
    ] {
        let verdict = judge_tdx(name, &quote, clock).unwrap();
        assert!(!verdict.simulated());
        assert_eq!((verdict.tee(), verdict.tcb_status()), (Tee::Tdx, TcbStatus::UpToDate));
        assert!(verdict.advisories().is_empty());
        assert_eq!(verdict.to_json()["fmspc"], "b0c06f000000");
        assert!(verdict.summary().contains("on a genuine TDX platform"), "{verdict}");
        for other in [clock - 90 * 86_400, clock + 8 * 86_400, clock + 365 * 86_400] {
            assert!(judge_tdx(name, &quote, other).is_err(), "{name} at {other}");
        }
    }
}

#[test]
fn zeros_after_a_bare_quote_and_nothing_else() {
    let zeros = |count| [&tdx_sample()[..TDX_BYTES], &vec![0; count]].concat();
    for count in [0, 1, 70, 8192, 32 << 10] {
        judge_tdx("tdx_quote", &zeros(count), TDX_CLOCK).unwrap();
        let inspection = inspect(&zeros(count), TDX_CLOCK).unwrap();
        let said = inspection.fields.iter().find(|(name, _)| *name == "after the quote");
        assert_eq!(said.is_some(), count > 0, "{inspection:?}");
        assert_eq!(PlatformId::of_quote(&zeros(count)).unwrap().fmspc, [0xB0, 0xC0, 0x6F, 0, 0, 0]);
    }
    for at in [TDX_BYTES, TDX_BYTES + 35, TDX_BYTES + 69] {
        let mut quote = zeros(70);
        quote[at] = 1;
        let refusal = judge_tdx("tdx_quote", &quote, TDX_CLOCK).unwrap_err();
        assert_eq!(refusal.code, "quote-form");
        assert!(refusal.found.contains("4370 bytes of signature data"), "{refusal}");
        assert!(inspect(&quote, TDX_CLOCK).is_err() && PlatformId::of_quote(&quote).is_err());
    }
}

/// A certificate or a connection carries the quote and nothing else.
#[test]
fn zeros_after_a_quote_that_is_not_bare() {
    let quote = tdx_sample();
    let report_data: &[u8; 64] = quote[48 + 520..][..64].try_into().unwrap();
    assert_eq!(code(Evidence::from_quote(&quote, report_data, b"a key")), "quote-form");
    let key = key();
    let knobs = CertificateKnobs::at(TDX_CLOCK).with(extension(&quote, &spki(&key)));
    let der = convelo_simulator::certificate(&key, &knobs).unwrap();
    assert_eq!(code(Evidence::from_certificate(&der, TDX_CLOCK)), "quote-form");
    assert_eq!(code(PlatformId::of_certificate(&der)), "quote-form");
}

#[test]
fn a_bare_quote_for_other_report_data() {
    let refusal = Evidence::from_bare_quote(&read("quotes/sgx_quote"), &[7; 64]).unwrap_err();
    assert_eq!((refusal.stage, refusal.code), (Stage::KeyBinding, "report-data"));
    assert!(refusal.expected.contains(&"07".repeat(64)), "{refusal}");
    assert!(refusal.found.contains(&hex::encode("Hello, world!")), "{refusal}");
}

/// A verdict on a bare quote says so, and is no peer's.
#[test]
fn a_bare_quote_binds_no_key() {
    let verdict = judge_sample(&policy_for_sample(STATUS, ADVISORIES), SGX_CLOCK).unwrap();
    assert!(verdict.spki().is_empty());
    assert!(verdict.checks().iter().any(|check| check.name == "report data"), "{verdict:?}");
    assert!(verdict.checks().iter().all(|check| check.name != "key binding"), "{verdict:?}");
}

/// Thirty years, an expired one, claims that we do not know: the platform is what it is.
#[test]
fn a_genuine_certificate_names_its_platform_whatever_its_lifetime() {
    for name in CERTIFICATES {
        let platform = PlatformId::of_certificate(&certificate(name)).unwrap();
        assert_eq!((platform.tee, platform.fmspc.len()), (Tee::Sgx, 6), "{name}");
    }
    let plain = convelo_simulator::certificate(&key(), &CertificateKnobs::at(SGX_CLOCK)).unwrap();
    assert_eq!(code(PlatformId::of_certificate(&plain)), "no-evidence");
}

#[test]
fn an_inspection_in_json_is_an_object() {
    let quotes =
        ["sgx_quote", "tdx_quote", "tdx_quote_td15ex"].map(|name| format!("quotes/{name}"));
    let inspections = quotes.iter().map(|name| inspect(&read(name), SGX_CLOCK).unwrap());
    let certificates = CERTIFICATES.map(|name| inspect(&certificate(name), SGX_CLOCK).unwrap());
    for inspection in inspections.chain(certificates) {
        let json = serde_json::to_value(&inspection).unwrap();
        let fields = json["fields"].as_object().unwrap();
        assert_eq!(fields.len(), inspection.fields.len(), "a name occurs twice: {inspection:?}");
        assert_eq!(fields["report_data"].as_str().unwrap().len(), 128);
        assert_eq!(fields["platform_fmspc"].as_str().unwrap().len(), 12);
        assert!(fields.keys().all(|name| !name.contains([' ', 'F'])), "{fields:?}");
    }
}

#[test]
fn a_tdx_sample_with_the_collateral_of_another_time_or_platform() {
    let result = judge_tdx("tdx_quote_td15ex", &tdx_sample(), TD15EX_CLOCK);
    assert!(result.is_err());
    let quote = read("quotes/tdx_quote_td15ex");
    assert_eq!(
        judge_tdx("tdx_quote", &quote, TD15EX_CLOCK).unwrap_err().code,
        "collateral-expired"
    );
}

#[test]
fn genuine_collateral_is_read() {
    let read = |name: &str| Collateral::from_json(&text(&format!("quotes/{name}_collateral.json")));
    assert_eq!(read("sgx_quote").unwrap().fmspc(), [0x00, 0xA0, 0x67, 0x11, 0, 0]);
    assert_eq!(read("tdx_quote").unwrap().fmspc(), [0xB0, 0xC0, 0x6F, 0, 0, 0]);
    let collateral = read("sgx_quote").unwrap();
    let again = Collateral::from_json(&collateral.to_json()).unwrap();
    assert_eq!(again.digest(), collateral.digest());
}

/// Nothing that another program adds to a bundle has an effect, and it can be told what was ignored.
#[test]
fn fields_that_other_programs_add_to_a_bundle() {
    let genuine = text("quotes/tdx_quote_td15ex_collateral.json");
    let ignored = |text: &str| -> Vec<String> {
        let fields = Collateral::ignored_fields(text);
        fields.iter().map(|field| field.as_arrived().to_owned()).collect()
    };
    assert_eq!(ignored(&genuine), ["pck_certificate_chain"]);
    let mut bundle: serde_json::Value = serde_json::from_str(&genuine).unwrap();
    let with = Collateral::from_json(&genuine).unwrap();
    bundle.as_object_mut().unwrap().remove("pck_certificate_chain");
    let without = Collateral::from_json(&bundle.to_string()).unwrap();
    assert_eq!((with.digest(), with.to_json()), (without.digest(), without.to_json()));
    assert!(ignored(&with.to_json()).is_empty());
    for (name, value) in
        [("version", json!(3)), ("tee_type", json!("0x81")), ("expires", json!({"at": [1]}))]
    {
        bundle[name] = value;
        let read = Collateral::from_json(&bundle.to_string()).unwrap();
        assert_eq!(read.digest(), without.digest(), "{name}");
        assert!(ignored(&bundle.to_string()).contains(&name.to_owned()));
    }
}

#[test]
fn intels_root_is_the_one_it_publishes() {
    let lines = policy_for_sample("", "").describe();
    let digest = "44a0196b2b99f889b8e149e95b807a350e7424964399e885a7cbb8ccfab674d3";
    assert!(lines[0].contains(digest), "{lines:?}");
    let simulated = policy().describe();
    assert!(simulated[0].starts_with("SIMULATED"), "{simulated:?}");
}

const STATUS: &str = "tcb_statuses = [\"UpToDate\", \"ConfigurationAndSWHardeningNeeded\"]";
const ADVISORIES: &str = "advisories = [\"INTEL-SA-00289\", \"INTEL-SA-00615\"]";

fn policy_for_sample(statuses: &str, advisories: &str) -> Policy {
    Policy::from_toml(&format!(
        "version = 1\n{statuses}\n{advisories}\n[[enclave]]\nname = \"sample\"\n\
         mr_enclave = \"{SGX_MR_ENCLAVE}\"\n"
    ))
    .unwrap()
}

/// The sample quotes a greeting; whoever asked for that would accept it.
fn sample() -> Evidence {
    let mut greeting = [0; 64];
    greeting[..13].copy_from_slice(b"Hello, world!");
    Evidence::from_bare_quote(&read("quotes/sgx_quote"), &greeting).unwrap()
}

fn sample_collateral() -> Collateral {
    Collateral::from_json(&text("quotes/sgx_quote_collateral.json")).unwrap()
}

fn judge_sample(policy: &Policy, now: u64) -> Result<Verdict, Refusal> {
    verify(&sample(), &sample_collateral(), policy, now)
}

fn lenient() -> CertificateRules {
    CertificateRules {
        maximum_lifetime_seconds: 40 * 365 * 86_400,
        skip_foreign_claims: true,
        ..CertificateRules::default()
    }
}

fn certificate(name: &str) -> Vec<u8> {
    let pem = text(&format!("ratls-certs/{name}-cert.pem"));
    let (_, der) = x509_cert::der::pem::decode_vec(pem.trim().as_bytes()).unwrap();
    der
}

fn certificate_evidence(name: &str, rules: &CertificateRules) -> Result<Evidence, Refusal> {
    Evidence::from_certificate_with(&certificate(name), CERTIFICATES_CLOCK, rules)
        .map(|evidence| evidence.expect("it carries evidence"))
}

fn read(name: &str) -> Vec<u8> {
    fs::read(vector(name)).unwrap()
}

fn text(name: &str) -> String {
    fs::read_to_string(vector(name)).unwrap()
}
