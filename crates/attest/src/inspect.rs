//! What a certificate or quote says about itself. None of it is proven: inspecting is not
//! verifying.

use convelo_untrusted::shown;
use dcap_qvl::intel;
use serde::{Serialize, Serializer};
use sha2::{Digest, Sha256};
use x509_cert::Certificate;
use x509_cert::der::Decode;

use crate::attributes;
use crate::date;
use crate::evidence::{CertificateRules, Evidence, spki_of};
use crate::policy::{INTEL_SGX_ROOT_CA, subject};
use crate::quote::{self, Quote};
use crate::refusal::Refusal;

/// Unproven statements, in reading order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Inspection {
    /// `certificate` or `quote`.
    pub kind: &'static str,
    /// Name and value of each statement; no name occurs twice. In JSON an object, whose names are in
    /// lower case with `_` between the words.
    #[serde(serialize_with = "object")]
    pub fields: Vec<(&'static str, String)>,
    /// What would get the peer refused under any policy, or is otherwise remarkable.
    pub warnings: Vec<String>,
}

/// Reads a certificate in DER, or a bare quote, at `now` (Unix seconds).
///
/// # Errors
/// The [`Refusal`] if the bytes cannot even be read.
pub fn inspect(bytes: &[u8], now: u64) -> Result<Inspection, Refusal> {
    const CERTIFICATE: u8 = 0x30;
    if bytes.first() == Some(&CERTIFICATE) {
        return certificate(bytes, now);
    }
    let mut inspection = Inspection { kind: "quote", fields: Vec::new(), warnings: Vec::new() };
    let bare = quote::without_padding(bytes);
    describe(&Quote::parse(bare)?, &mut inspection);
    if bare.len() < bytes.len() {
        let zeros = format!("{} zero bytes, which do not count", bytes.len() - bare.len());
        inspection.fields.push(("after the quote", zeros));
    }
    inspection.warnings.push(
        "a bare quote: without the certificate, nothing shows whose key its report data binds"
            .to_owned(),
    );
    Ok(inspection)
}

fn certificate(der: &[u8], now: u64) -> Result<Inspection, Refusal> {
    let spki = spki_of(der)?;
    let parsed = Certificate::from_der(der).expect("it was parsed before");
    let validity = parsed.tbs_certificate().validity();
    let begins = validity.not_before.to_unix_duration().as_secs();
    let ends = validity.not_after.to_unix_duration().as_secs();
    let mut inspection = Inspection {
        kind: "certificate",
        fields: vec![
            ("subject", format!("{:#}", subject(&parsed))),
            ("key", format!("sha256:{}", hex::encode(Sha256::digest(&spki)))),
            ("valid from", date::show(begins)),
            ("valid until", date::show(ends)),
        ],
        warnings: Vec::new(),
    };
    if !(begins..=ends).contains(&now) {
        inspection.warnings.push(format!("not valid now, at {}", date::show(now)));
    }
    let strict = CertificateRules::default();
    if ends.saturating_sub(begins) > strict.maximum_lifetime_seconds {
        inspection.warnings.push(format!(
            "valid for {}: our peers' certificates may be valid for at most {}",
            date::span(ends - begins),
            date::span(strict.maximum_lifetime_seconds)
        ));
    }
    let lenient = CertificateRules {
        maximum_lifetime_seconds: u64::MAX,
        skip_foreign_claims: true,
        ..Default::default()
    };
    match Evidence::from_certificate_with(der, begins, &lenient) {
        Ok(Some(evidence)) => {
            inspection.fields.push((
                "key binding",
                "the quote's report data binds the certificate's key".to_owned(),
            ));
            describe(evidence.parsed(), &mut inspection);
        }
        Ok(None) => inspection.warnings.push("no evidence: an ordinary certificate".to_owned()),
        Err(refusal) => inspection.warnings.push(format!(
            "its evidence would be refused at {} [{}]: expected {}, found {}",
            refusal.stage.words(),
            refusal.code,
            refusal.expected,
            refusal.found
        )),
    }
    Ok(inspection)
}

fn describe(quote: &Quote, inspection: &mut Inspection) {
    inspection.fields.push((
        "quote",
        format!("{}, version {}, {} bytes", quote.tee(), quote.version(), quote.bytes().len()),
    ));
    inspection.fields.extend(quote.measurements().fields());
    inspection.fields.push(("report data", hex::encode(quote.report_data())));
    match attributes::check(quote.report()) {
        Err(refusal) if matches!(refusal.code, "debug-enclave" | "debug-domain") => {
            inspection.warnings.push(format!(
                "DEBUG ENCLAVE: {}; its host can read its memory; every policy refuses it",
                refusal.found
            ));
        }
        Err(refusal) => {
            inspection.warnings.push(format!("{}: every policy refuses it", refusal.found));
        }
        Ok(_) => {}
    }
    let [leaf, _, root] = quote.chain();
    match intel::parse_pck_extension(leaf) {
        Ok(pck) => inspection.fields.extend([
            ("platform FMSPC", hex::encode(pck.fmspc)),
            ("platform PCE id", hex::encode(&pck.pce_id)),
            ("platform CPUSVN", hex::encode(pck.cpu_svn)),
            ("platform PCESVN", pck.pce_svn.to_string()),
            (
                "platform id",
                format!("sha256:{} (of its PPID)", hex::encode(Sha256::digest(&pck.ppid))),
            ),
        ]),
        Err(error) => inspection.warnings.push(shown(&format!("its PCK certificate: {error}"))),
    }
    let genuine = root.as_slice() == INTEL_SGX_ROOT_CA;
    let name = Certificate::from_der(root)
        .map_or_else(|_| "unreadable".to_owned(), |root| format!("{:#}", subject(&root)));
    let digest = hex::encode(Sha256::digest(root));
    inspection.fields.push(("root", format!("{name} (SHA-256 {digest})")));
    if !genuine {
        inspection.warnings.push(
            "NOT INTEL'S ROOT: a simulated platform, or a made-up one; it protects nothing"
                .to_owned(),
        );
    }
}

fn object<S: Serializer>(fields: &[(&str, String)], to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(
        fields.iter().map(|(name, value)| (name.to_lowercase().replace(' ', "_"), value)),
    )
}
