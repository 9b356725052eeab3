//! Evidence of TDX trust domains: accepted, and refused, each test named after the attack.

use convelo_attest::{
    Evidence, Measurements, Policy, QuoteSource as _, Refusal, TcbStatus, Tee, Verdict, extension,
    inspect, report_data, verify,
};
use convelo_simulator::{CollateralKnobs, TdQuoteForm, TrustDomain, domain_policy_toml};

use crate::kit::{
    NOW, accepted_changes, certificate, code, collateral, enclave, evidence, key, parse, platform,
    policy, spki,
};

const FORMS: [TdQuoteForm; 4] =
    [TdQuoteForm::V4, TdQuoteForm::V5, TdQuoteForm::V5Td15, TdQuoteForm::V5Td15Extended];

#[test]
fn good_evidence_of_every_form_is_accepted_and_described() {
    for form in FORMS {
        let domain = TrustDomain { form, ..domain() };
        let key = key();
        let quote = platform().trust_domain(domain.clone()).quote(&report_data(&spki(&key)));
        let der = certificate(&key, extension(&quote.unwrap(), &spki(&key)));
        let verdict = verify(&parse(&der).unwrap(), &of_tdx(), &domain_policy(), NOW).unwrap();
        assert_eq!((verdict.name(), verdict.tee()), ("the service", Tee::Tdx));
        assert!(verdict.simulated());
        assert_eq!(verdict.tcb_status(), TcbStatus::UpToDate);
        let Measurements::Tdx(found) = verdict.measurements() else { panic!("{verdict}") };
        assert_eq!((found.mr_td, found.rtmr), (domain.mr_td, domain.rtmr));
        let json = verdict.to_json();
        assert_eq!(
            (json["tee"].as_str(), json["mr_td"].as_str().map(str::len)),
            (Some("tdx"), Some(96))
        );
        assert!(verdict.summary().contains(&hex::encode(domain.mr_td)), "{verdict}");
        let read = inspect(&der, NOW).unwrap();
        assert!(read.fields.iter().any(|(name, _)| *name == "mr_td"), "{read:?}");
        assert!(read.warnings.iter().all(|warning| !warning.contains("DEBUG")), "{read:?}");
    }
}

#[test]
fn debug_domain() {
    refused("debug-domain", |domain| domain.attributes |= 1);
}

#[test]
fn pages_that_the_host_can_take_away_unseen() {
    refused("sept-ve", |domain| domain.attributes = 0);
}

#[test]
fn migratable_domain() {
    refused("migratable", |domain| domain.attributes |= 1 << 29);
}

#[test]
fn reserved_profiling_and_service_attributes() {
    for bit in [1, 4, 5, 6, 7, 17, 18, 22, 23, 32, 61, 62] {
        refused("td-attributes", |domain| domain.attributes |= 1 << bit);
    }
}

#[test]
fn harmless_attributes_are_accepted_unless_the_policy_forbids_them() {
    for bit in [16, 27, 30, 31, 63] {
        let domain = TrustDomain { attributes: (1 << 28) | (1 << bit), ..domain() };
        judge(&domain).unwrap();
        let strict = policy_with("allowed_td_attributes = \"0000000010000000\"\n");
        assert_eq!(code(judge_by(&domain, &strict)), "td-attributes");
    }
}

#[test]
fn every_measurement_that_is_not_the_policys() {
    refused("measurement", |domain| domain.mr_td = [1; 48]);
    for index in 0..4 {
        refused("measurement", |domain| domain.rtmr[index] = [1; 48]);
    }
    let zeros = "0".repeat(96);
    let rules = format!(
        "mr_config_id = \"{zeros}\"\nmr_owner = \"{zeros}\"\nmr_owner_config = \"{zeros}\"\n\
         allowed_xfam = \"00000000000602e7\"\n"
    );
    let strict = policy_with(&rules);
    judge_by(&domain(), &strict).unwrap();
    for (other, expected) in [
        (TrustDomain { mr_config_id: [1; 48], ..domain() }, "config-id"),
        (TrustDomain { mr_owner: [1; 48], ..domain() }, "owner"),
        (TrustDomain { mr_owner_config: [1; 48], ..domain() }, "owner"),
        (TrustDomain { xfam: 0x0006_02E7 | (1 << 8), ..domain() }, "xfam"),
    ] {
        judge(&other).unwrap();
        assert_eq!(code(judge_by(&other, &strict)), expected);
    }
}

#[test]
fn a_domain_with_services_bound_to_it() {
    for form in [TdQuoteForm::V5Td15, TdQuoteForm::V5Td15Extended] {
        refused("signature", |domain| {
            domain.form = form;
            domain.mr_service_td = [1; 48];
        });
    }
}

#[test]
fn an_enclave_where_the_policy_names_trust_domains_and_the_reverse() {
    let result = verify(&evidence(&enclave()), &collateral_of(Tee::Sgx), &domain_policy(), NOW);
    let refusal = result.unwrap_err();
    assert_eq!(refusal.code, "other-technology");
    assert!(refusal.found.contains("SGX") && refusal.expected.contains("TDX"), "{refusal}");
    let refusal = judge_by(&domain(), &policy()).unwrap_err();
    assert_eq!(refusal.code, "other-technology");
}

#[test]
fn sgx_and_tdx_collateral_swapped() {
    let evidence_of_sgx = evidence(&enclave());
    let result = verify(&evidence_of_sgx, &of_tdx(), &policy(), NOW);
    assert_eq!(code(result), "collateral-technology");
    let result = verify(&evidence_of(&domain()), &collateral_of(Tee::Sgx), &domain_policy(), NOW);
    assert_eq!(code(result), "collateral-technology");
}

#[test]
fn out_of_date_or_foreign_tdx_module() {
    let under = |knobs: CollateralKnobs| {
        let knobs = CollateralKnobs { tee: Tee::Tdx, ..knobs };
        verify(&evidence_of(&domain()), &collateral(&knobs), &domain_policy(), NOW)
    };
    let old =
        CollateralKnobs { module_status: "OutOfDate".to_owned(), ..CollateralKnobs::default() };
    let refusal = under(old).unwrap_err();
    assert_eq!(refusal.code, "tcb-status");
    assert!(refusal.found.contains("OutOfDate"), "{refusal}");
    let foreign = CollateralKnobs { module_signer: [1; 48], ..CollateralKnobs::default() };
    assert_eq!(code(under(foreign)), "signature");
    let better = CollateralKnobs {
        tcb_status: "OutOfDate".to_owned(),
        better_level: Some(12),
        ..CollateralKnobs::default()
    };
    let refusal = under(better).unwrap_err();
    assert!(refusal.found.contains("CPUSVN[0] is 11, needs 12"), "{refusal}");
}

#[test]
fn a_module_that_was_updated_under_the_running_domain() {
    let mut domain = TrustDomain { form: TdQuoteForm::V5Td15, ..domain() };
    domain.tee_tcb_svn2[0] = 4;
    assert_eq!(code(judge(&domain)), "signature", "the module that runs now has no known level");
}

#[test]
fn trailing_bytes_and_gaps_in_every_form() {
    for form in FORMS {
        let domain = TrustDomain { form, ..domain() };
        let quote = platform().trust_domain(domain).quote(&[7; 64]).unwrap();
        let parsed = |quote: &[u8]| Evidence::from_quote(quote, &[7; 64], b"a key");
        parsed(&quote).unwrap();
        assert_eq!(code(parsed(&[quote.as_slice(), &[0]].concat())), "quote-form");
        // Inside the outer certification data.
        let auth = if form == TdQuoteForm::V4 {
            48 + 584
        } else {
            54 + usize::from(quote[50]) + 256 * usize::from(quote[51])
        };
        let mut longer = [quote.as_slice(), &[0]].concat();
        let length = u32::try_from(longer.len() - auth - 4).unwrap();
        longer[auth..auth + 4].copy_from_slice(&length.to_le_bytes());
        assert_eq!(code(parsed(&longer)), "quote-form");
        for kind in [1u16, 2, 3, 4, 5, 7] {
            let mut other = quote.clone();
            other[auth + 132..auth + 134].copy_from_slice(&kind.to_le_bytes());
            assert_eq!(code(parsed(&other)), "certification-type", "{form:?}: {kind}");
        }
    }
}

#[test]
fn bodies_of_other_types_and_lengths() {
    let domain = TrustDomain { form: TdQuoteForm::V5, ..domain() };
    let good = platform().trust_domain(domain).quote(&[7; 64]).unwrap();
    for (at, value) in [(48, 1), (48, 3), (48, 5), (50, 0), (53, 1)] {
        let mut quote = good.clone();
        quote[at] = value;
        let result = Evidence::from_quote(&quote, &[7; 64], b"a key");
        assert_eq!(code(result), "quote-form", "byte {at}: {value}");
    }
}

#[test]
fn every_altered_bit_of_a_tdx_quote() {
    let (collateral, policy) = (of_tdx(), domain_policy());
    let judge = |quote: &[u8]| {
        verify(&Evidence::from_quote(quote, &[7; 64], b"a key")?, &collateral, &policy, NOW)
    };
    let good = platform().trust_domain(domain()).quote(&[7; 64]).unwrap();
    assert_eq!(accepted_changes("TDX v4", &good, judge), [0; 0]);
}

#[test]
fn policies_that_leave_a_part_of_the_machine_open() {
    let whole = domain_policy_toml(&platform(), &[("the service", &domain())]);
    for missing in ["mr_td", "rtmr0", "rtmr1", "rtmr2"] {
        let lines: Vec<&str> = whole.lines().filter(|line| !line.starts_with(missing)).collect();
        let error = Policy::from_toml(&lines.join("\n")).unwrap_err();
        assert!(error.message.contains("needs mr_td, rtmr0, rtmr1 and rtmr2"), "{error}");
        assert!(error.line.is_some(), "{error}");
    }
    let lines: Vec<&str> = whole.lines().filter(|line| !line.starts_with("rtmr3")).collect();
    Policy::from_toml(&lines.join("\n")).unwrap();
    for wrong in ["\"all\"", "\"\"", "0"] {
        Policy::from_toml(&configured(&whole, wrong)).unwrap_err();
    }
    let short = whole.replace("rtmr1 = \"", "rtmr1 = \"00");
    let error = Policy::from_toml(&short).unwrap_err();
    assert!(error.message.contains("98 characters, expected 96"), "{error}");
    let neither = whole.split("[[trust_domain]]").next().unwrap();
    let error = Policy::from_toml(neither).unwrap_err();
    assert!(error.message.contains("[[enclave]]"), "{error}");
}

/// The policy with another `rtmr0`.
fn configured(policy: &str, rtmr0: &str) -> String {
    let line = policy.lines().find(|line| line.starts_with("rtmr0")).unwrap();
    policy.replace(line, &format!("rtmr0 = {rtmr0}"))
}

/// The host supplies the virtual machine's tables and devices, which `rtmr0` measures: whoever wants to
/// accept any of them says so.
#[test]
fn another_configuration_of_the_virtual_machine() {
    let other =
        TrustDomain { rtmr: [[1; 48], domain().rtmr[1], domain().rtmr[2], [0; 48]], ..domain() };
    assert_eq!(code(judge_by(&other, &domain_policy())), "measurement");
    let whole = domain_policy_toml(&platform(), &[("the service", &domain())]);
    let any = Policy::from_toml(&configured(&whole, "\"any\"")).unwrap();
    judge_by(&other, &any).unwrap();
    assert_eq!(any.to_json()["trust_domain"][0]["rtmr0"], "any");
    assert_eq!(Policy::from_json(&any.to_json()).unwrap(), any);
    assert_eq!(Policy::from_toml(&any.to_toml()).unwrap(), any);
    assert!(any.describe().iter().any(|line| line.contains("rtmr0 any")), "{:?}", any.describe());
}

fn domain() -> TrustDomain {
    TrustDomain::named("convelo-service")
}

fn domain_policy() -> Policy {
    policy_with("")
}

/// The policy with more rules about the domain.
fn policy_with(rules: &str) -> Policy {
    let toml = domain_policy_toml(&platform(), &[("the service", &domain())]);
    let policy = Policy::from_toml(&format!("{toml}{rules}")).unwrap();
    let again = Policy::from_toml(&policy.to_toml()).unwrap();
    assert_eq!(again.digest(), policy.digest(), "written and read again");
    assert_eq!(Policy::from_json(&policy.to_json()).unwrap().digest(), policy.digest());
    policy
}

fn collateral_of(tee: Tee) -> convelo_attest::Collateral {
    collateral(&CollateralKnobs { tee, ..CollateralKnobs::default() })
}

fn of_tdx() -> convelo_attest::Collateral {
    collateral_of(Tee::Tdx)
}

fn evidence_of(domain: &TrustDomain) -> Evidence {
    let key = key();
    let quote = platform().trust_domain(domain.clone()).quote(&report_data(&spki(&key))).unwrap();
    parse(&certificate(&key, extension(&quote, &spki(&key)))).unwrap()
}

fn judge_by(domain: &TrustDomain, policy: &Policy) -> Result<Verdict, Refusal> {
    verify(&evidence_of(domain), &of_tdx(), policy, NOW)
}

fn judge(domain: &TrustDomain) -> Result<Verdict, Refusal> {
    judge_by(domain, &domain_policy())
}

fn refused(expected: &str, change: impl Fn(&mut TrustDomain)) {
    let mut domain = domain();
    change(&mut domain);
    assert_eq!(code(judge(&domain)), expected, "{domain:?}");
}
