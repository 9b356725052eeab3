//! The form of a quote: there is one.

use super::{CERTIFICATION, pem_parts, with_chain};
use crate::kit::{
    NOW, accepted_changes, certificate, code, collateral, enclave, key, parse, platform, policy,
    quote, spki,
};
use convelo_attest::{Evidence, MAXIMUM_QUOTE_BYTES, QuoteSource, extension, report_data, verify};
use convelo_simulator::CollateralKnobs;
use proptest::prelude::*;

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
