//! Self-signed certificates, as well or as badly made as a test needs.

use convelo_attest::{Extension, QuoteSource, extension, report_data};
use rcgen::{
    CertificateParams, CustomExtension, DistinguishedName, DnType, IsCa, KeyPair, PublicKeyData,
    SerialNumber,
};

use crate::platform::{Error, time};

/// What the certificate says.
#[derive(Clone, Debug)]
pub struct CertificateKnobs {
    /// `notBefore`, Unix seconds.
    pub not_before: u64,
    /// `notAfter`, Unix seconds.
    pub not_after: u64,
    /// Extensions besides the usual ones, in order; repetitions are kept.
    pub extensions: Vec<(Vec<u64>, Vec<u8>)>,
}

impl CertificateKnobs {
    /// A certificate valid for 24 hours around `now`, without extensions.
    pub fn at(now: u64) -> Self {
        Self {
            not_before: now.saturating_sub(3600),
            not_after: now + 23 * 3600,
            extensions: Vec::new(),
        }
    }

    /// Adds an extension.
    #[must_use]
    pub fn with(mut self, extension: Extension) -> Self {
        self.extensions.push((extension.oid.to_vec(), extension.value));
        self
    }
}

/// Makes a self-signed certificate over a key. Returns DER.
pub fn certificate(key: &KeyPair, knobs: &CertificateKnobs) -> Result<Vec<u8>, Error> {
    let at = |seconds: u64| time(i64::try_from(seconds).unwrap_or(i64::MAX));
    let mut params = CertificateParams::default();
    params.not_before = at(knobs.not_before)?;
    params.not_after = at(knobs.not_after)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "RATLS");
    params.serial_number = Some(SerialNumber::from_slice(&[1]));
    params.is_ca = IsCa::ExplicitNoCa;
    params.custom_extensions = knobs
        .extensions
        .iter()
        .map(|(oid, value)| CustomExtension::from_oid_content(oid, value.clone()))
        .collect();
    Ok(params.self_signed(key)?.der().to_vec())
}

/// Makes a well-formed RA-TLS certificate at `now`: the key, quoted by the source, in one DICE
/// extension. Returns DER.
pub fn attested_certificate(
    source: &dyn QuoteSource,
    key: &KeyPair,
    now: u64,
) -> Result<Vec<u8>, Error> {
    let spki = key.subject_public_key_info();
    let quote = source.quote(&report_data(&spki))?;
    certificate(key, &CertificateKnobs::at(now).with(extension(&quote, &spki)))
}
