//! A platform, a key, and the pieces of one accepted verification, to be spoilt one at a time.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use convelo_attest::{
    Collateral, Evidence, Extension, Policy, QuoteSource, Refusal, Verdict, extension, report_data,
    verify,
};
use convelo_simulator::{CertificateKnobs, CollateralKnobs, Enclave, Platform, policy_toml};
use rcgen::{KeyPair, PublicKeyData};

/// 2026-11-21T00:00:00Z.
pub(crate) const NOW: u64 = 1_795_219_200;
pub(crate) const DAY: u64 = 86_400;
pub(crate) const DICE: &[u64] = &[2, 23, 133, 5, 4, 9];

/// One platform for all tests of a file: its keys take a moment.
pub(crate) fn platform() -> Arc<Platform> {
    static PLATFORM: OnceLock<Arc<Platform>> = OnceLock::new();
    Arc::clone(PLATFORM.get_or_init(|| Arc::new(Platform::new(NOW).unwrap())))
}

/// The enclave that [`policy`] accepts.
pub(crate) fn enclave() -> Enclave {
    Enclave { isv_prod_id: 3, isv_svn: 4, ..Enclave::named("convelo-service") }
}

pub(crate) fn policy() -> Policy {
    Policy::from_toml(&policy_toml(&platform(), &[("the service", &enclave())])).unwrap()
}

/// The policy with one line replaced.
pub(crate) fn policy_with(from: &str, to: &str) -> Policy {
    let toml = policy_toml(&platform(), &[("the service", &enclave())]);
    assert!(toml.contains(from), "{from}");
    Policy::from_toml(&toml.replace(from, to)).unwrap()
}

pub(crate) fn collateral(knobs: &CollateralKnobs) -> Collateral {
    platform().collateral(knobs)
}

pub(crate) fn key() -> KeyPair {
    KeyPair::generate().unwrap()
}

pub(crate) fn spki(key: &KeyPair) -> Vec<u8> {
    key.subject_public_key_info()
}

/// A quote by this enclave, bound to this key.
pub(crate) fn quote(enclave: &Enclave, key: &KeyPair) -> Vec<u8> {
    platform().enclave(enclave.clone()).quote(&report_data(&spki(key))).unwrap()
}

/// A certificate over this key with this evidence.
pub(crate) fn certificate(key: &KeyPair, extension: Extension) -> Vec<u8> {
    let knobs = CertificateKnobs::at(NOW).with(extension);
    convelo_simulator::certificate(key, &knobs).unwrap()
}

/// A certificate with the bytes of a DICE extension as given.
pub(crate) fn certificate_with_value(key: &KeyPair, value: Vec<u8>) -> Vec<u8> {
    certificate(key, Extension { oid: DICE, value })
}

pub(crate) fn parse(der: &[u8]) -> Result<Evidence, Refusal> {
    Evidence::from_certificate(der, NOW).map(|evidence| evidence.expect("it carries evidence"))
}

/// Well-made evidence of an enclave.
pub(crate) fn evidence(enclave: &Enclave) -> Evidence {
    let key = key();
    parse(&certificate(&key, extension(&quote(enclave, &key), &spki(&key)))).unwrap()
}

/// The whole way for an enclave: evidence, fresh collateral, the policy.
pub(crate) fn judge(enclave: &Enclave) -> Result<Verdict, Refusal> {
    verify(&evidence(enclave), &collateral(&CollateralKnobs::default()), &policy(), NOW)
}

/// The whole way for a platform: good evidence under this collateral.
pub(crate) fn judge_under(
    knobs: &CollateralKnobs,
    policy: &Policy,
    now: u64,
) -> Result<Verdict, Refusal> {
    verify(&evidence(&enclave()), &collateral(knobs), policy, now)
}

/// The refusal's code, and proof that its text is complete.
pub(crate) fn code<T>(result: Result<T, Refusal>) -> &'static str {
    let Err(refusal) = result else { panic!("it was accepted") };
    for part in [&refusal.found, &refusal.expected, &refusal.advice] {
        assert!(!part.is_empty(), "{refusal:?}");
    }
    let line = refusal.to_string();
    assert!(line.contains(refusal.code) && !line.contains('\n'), "{line}");
    refusal.code
}

/// Flips every bit of a quote, cuts it at every length, and says how many of the outcomes were
/// accepted: bits, and lengths in bytes.
#[expect(clippy::print_stdout, reason = "the count is a claim; --nocapture shows it")]
pub(crate) fn accepted_changes(
    name: &str,
    good: &[u8],
    judge: impl Fn(&[u8]) -> Result<Verdict, Refusal>,
) -> Vec<usize> {
    judge(good).unwrap();
    let flipped = (0..good.len() * 8).filter(|bit| {
        let mut quote = good.to_vec();
        quote[bit / 8] ^= 1 << (bit % 8);
        judge(&quote).is_ok()
    });
    let cut = (0..good.len()).filter(|length| judge(&good[..*length]).is_ok());
    let accepted: Vec<usize> = flipped.chain(cut).collect();
    println!(
        "{name}: {} bits flipped, {} truncations, {} accepted",
        good.len() * 8,
        good.len(),
        accepted.len()
    );
    accepted
}

pub(crate) fn vector(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../vectors/attestation").join(name)
}

/// Wraps a byte string in CBOR.
pub(crate) fn bytes(content: &[u8]) -> Vec<u8> {
    string(0x40, content)
}

/// Wraps text in CBOR.
pub(crate) fn text(content: &str) -> Vec<u8> {
    string(0x60, content.as_bytes())
}

/// `tag 60000 [quote, claims]`.
pub(crate) fn tagged(quote: &[u8], claims: &[u8]) -> Vec<u8> {
    [&[0xD9, 0xEA, 0x60, 0x82][..], &bytes(quote), &bytes(claims)].concat()
}

fn string(major: u8, content: &[u8]) -> Vec<u8> {
    let [a, b] = u16::try_from(content.len()).unwrap().to_be_bytes();
    let head = match (a, b) {
        (0, n @ 0..24) => vec![major | n],
        (0, n) => vec![major | 0x18, n],
        (a, b) => vec![major | 0x19, a, b],
    };
    [head, content.to_vec()].concat()
}
