//! The certificate that carries evidence, and the binding of its key.

use crate::kit::{
    DAY, DICE, NOW, bytes, certificate, certificate_with_value, code, enclave, key, parse,
    platform, quote, spki, tagged, text, vector,
};
use convelo_attest::{
    CertificateRules, Evidence, MAXIMUM_CERTIFICATE_BYTES, Matter, QuoteSource, Refusal, extension,
    extensions, report_data, spki_of,
};
use convelo_simulator::{CertificateKnobs, Enclave, TrustDomain};
use sha2::{Digest, Sha256};

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
