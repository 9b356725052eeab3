//! The program: a debug enclave, another measurement, another configuration.

use crate::kit::{
    NOW, code, collateral, enclave, evidence, judge, key, parse, platform, policy, spki,
};
use convelo_attest::{
    Matter, Measurements, Policy, Refusal, Stage, TcbStatus, Tee, spki_of, verify,
};
use convelo_simulator::{CollateralKnobs, Enclave, attested_certificate, policy_toml};

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
