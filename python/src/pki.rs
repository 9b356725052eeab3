//! Keys and certificates for tests and small deployments.

use convelo_channel::{Authority, Expect, Identity, certificate_identity as identity_of};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

fn wrong(error: impl std::fmt::Display) -> PyErr {
    PyValueError::new_err(error.to_string())
}

type Pair = (Vec<u8>, Vec<u8>);

/// A new authority: its key and certificate in PEM.
#[pyfunction]
pub(crate) fn make_authority(common_name: &str, days: u32) -> PyResult<Pair> {
    let authority = Authority::generate(common_name, days).map_err(wrong)?;
    Ok((authority.key_pem().as_bytes().to_vec(), authority.certificate_pem().as_bytes().to_vec()))
}

/// An authority's certificate for a new key: key and certificate in PEM.
#[pyfunction]
#[expect(clippy::needless_pass_by_value, reason = "arguments come from Python")]
pub(crate) fn make_certificate(
    authority_key: &[u8],
    authority_certificate: &[u8],
    common_name: &str,
    names: Vec<String>,
    days: u32,
) -> PyResult<Pair> {
    let text = |bytes| std::str::from_utf8(bytes).map_err(|_| wrong("this is not a PEM file"));
    let authority =
        Authority::from_pem(text(authority_key)?, text(authority_certificate)?).map_err(wrong)?;
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let issued = authority.issue(common_name, &names, days).map_err(wrong)?;
    Ok((issued.key_pem.as_bytes().to_vec(), issued.certificate_pem.into_bytes()))
}

/// A new key, its self-signed certificate, and the fingerprint that peers pin.
#[pyfunction]
pub(crate) fn make_identity(common_name: &str, days: u32) -> PyResult<(Vec<u8>, Vec<u8>, String)> {
    let identity = Identity::generate();
    let certificate = convelo_channel::self_signed(&identity, common_name, days).map_err(wrong)?;
    let fingerprint = key_fingerprint(certificate.as_bytes())?;
    Ok((identity.to_pem().as_bytes().to_vec(), certificate.into_bytes(), fingerprint))
}

/// The fingerprint of a certificate's key, for peers to pin.
#[pyfunction]
pub(crate) fn key_fingerprint(certificate: &[u8]) -> PyResult<String> {
    let key = convelo_channel::certificate_key(&der(certificate)?).map_err(wrong)?;
    Ok(format!("sha256:{}", hex::encode(key)))
}

/// The issuer's common name and the serial number, which is how the replaced package shows a party.
#[pyfunction]
pub(crate) fn certificate_identity(certificate: &[u8]) -> PyResult<(String, String)> {
    identity_of(&der(certificate)?).map_err(wrong)
}

fn der(file: &[u8]) -> PyResult<Vec<u8>> {
    match Expect::certificate(file).map_err(wrong)? {
        Expect::Certificate(der) => Ok(der),
        _ => Err(wrong("this is not a certificate")),
    }
}
