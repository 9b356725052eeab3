//! The platform as others use it: made, written, opened again, issuing.

#![expect(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::fs;
use std::sync::Arc;

use convelo_attest::{Collateral, Evidence, Policy, QuoteSource, Tee, Verdict, verify};
use convelo_simulator::{
    CollateralKnobs, Enclave, Error, Platform, attested_certificate, policy_toml,
};
use rcgen::KeyPair;

const NOW: u64 = 1_795_219_200;
const DAY: u64 = 86_400;

fn judge(platform: &Arc<Platform>, collateral: &Collateral, policy: &str, now: u64) -> Verdict {
    let source = platform.enclave(Enclave::named("convelo-service"));
    let der = attested_certificate(&source, &KeyPair::generate().unwrap(), now).unwrap();
    let evidence = Evidence::from_certificate(&der, now).unwrap().unwrap();
    verify(&evidence, collateral, &Policy::from_toml(policy).unwrap(), now).unwrap()
}

fn policy(platform: &Platform) -> String {
    policy_toml(platform, &[("service", &Enclave::named("convelo-service"))])
}

#[test]
fn what_was_written_is_what_is_opened() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("platform");
    let made = Arc::new(Platform::create(&home, NOW, Tee::Sgx).unwrap());
    let opened = Arc::new(Platform::open(&home).unwrap());
    let root = fs::read_to_string(home.join("root.pem")).unwrap();
    assert_eq!(root, made.root_pem());
    assert_eq!(root, opened.root_pem());
    let written = fs::read_to_string(home.join("collateral.json")).unwrap();
    let written = Collateral::from_json(&written).unwrap();
    for platform in [&made, &opened] {
        let verdict = judge(platform, &written, &policy(&made), NOW);
        assert!(verdict.simulated());
        let fresh = opened.collateral(&CollateralKnobs::default());
        judge(platform, &fresh, &policy(&opened), NOW);
    }
}

#[cfg(unix)]
#[test]
fn the_private_keys_are_readable_by_their_owner_only() {
    use std::os::unix::fs::PermissionsExt;

    let dir = tempfile::tempdir().unwrap();
    Platform::create(dir.path(), NOW, Tee::Sgx).unwrap();
    let mode =
        |name: &str| fs::metadata(dir.path().join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("platform.json"), 0o600);
    for public in ["root.pem", "collateral.json"] {
        let text = fs::read_to_string(dir.path().join(public)).unwrap();
        assert!(!text.contains("PRIVATE KEY"), "{public}");
    }
}

#[test]
fn an_existing_platform_is_not_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    Platform::create(dir.path(), NOW, Tee::Sgx).unwrap();
    let before = fs::read(dir.path().join("platform.json")).unwrap();
    let again = Platform::create(dir.path(), NOW, Tee::Sgx);
    assert!(matches!(again, Err(Error::File { action: "write", .. })));
    assert_eq!(fs::read(dir.path().join("platform.json")).unwrap(), before);
}

#[test]
fn a_damaged_platform_is_reported_without_its_keys() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(Platform::open(dir.path()), Err(Error::File { action: "read", .. })));
    Platform::create(dir.path(), NOW, Tee::Sgx).unwrap();
    let path = dir.path().join("platform.json");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replacen("BEGIN PRIVATE KEY", "BEGIN SECRET", 1)).unwrap();
    let Err(error) = Platform::open(dir.path()) else { panic!("it was opened") };
    assert!(matches!(error, Error::Damaged { line: 0, .. }));
    assert!(!format!("{error} {error:?}").contains("MIG"));
    fs::write(&path, &text[..text.len() / 2]).unwrap();
    assert!(matches!(Platform::open(dir.path()), Err(Error::Damaged { line: 1.., .. })));
}

#[test]
fn collateral_is_issued_anew_at_a_later_time() {
    let platform = Arc::new(Platform::new(NOW).unwrap());
    let later = NOW + 100 * DAY;
    let knobs = CollateralKnobs { now: Some(later), ..CollateralKnobs::default() };
    let collateral = platform.collateral(&knobs);
    assert_eq!(collateral.issued(), later - 3600);
    judge(&platform, &collateral, &policy(&platform), later);
}

#[test]
fn platforms_do_not_share_a_root() {
    let (one, other) = (Platform::new(NOW).unwrap(), Platform::new(NOW).unwrap());
    assert_ne!(one.root_pem(), other.root_pem());
}

#[test]
fn a_measurement_is_fixed_by_the_name() {
    let enclave = Enclave::named("convelo-service");
    assert_eq!(enclave, Enclave::named("convelo-service"));
    assert_ne!(enclave.mr_enclave, Enclave::named("convelo-servicf").mr_enclave);
    assert_eq!(
        hex::encode(enclave.mr_enclave),
        "5dc6dc05f8c1c674c01484bff364e36e1d667884cd7c6e890f5b184b16143173"
    );
}

#[test]
fn a_quote_carries_what_was_asked_for() {
    let platform = Arc::new(Platform::new(NOW).unwrap());
    let source = platform.enclave(Enclave::default());
    assert!(source.describe().contains("SIMULATED"));
    let data: [u8; 64] = std::array::from_fn(|index| u8::try_from(index).unwrap());
    let quote = source.quote(&data).unwrap();
    assert_eq!(quote[368..432], data);
    assert!(quote.len() < convelo_attest::MAXIMUM_QUOTE_BYTES);
    Evidence::from_quote(&quote, &data, b"a key").unwrap();
}
