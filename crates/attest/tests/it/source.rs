//! Gramine's file protocol, on a directory that stands in for the device.

use std::fs;
use std::path::Path;

use crate::kit::{enclave, key, platform, spki};
use convelo_attest::{Gramine, MAXIMUM_QUOTE_BYTES, QuoteError, QuoteSource, report_data};
use tempfile::TempDir;

/// A device that is about to return this quote.
fn device(kind: &str, quote: &[u8]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("attestation_type"), kind).unwrap();
    fs::write(dir.path().join("user_report_data"), [0; 64]).unwrap();
    fs::write(dir.path().join("quote"), quote).unwrap();
    dir
}

fn quote(dir: &Path, data: &[u8; 64]) -> Result<Vec<u8>, QuoteError> {
    Gramine::new(dir).quote(data)
}

#[test]
fn report_data_is_written_and_the_quote_is_read_back() {
    let data = report_data(&spki(&key()));
    let expected = platform().enclave(enclave()).quote(&data).unwrap();
    for kind in ["dcap", "dcap\n"] {
        let dir = device(kind, &expected);
        assert_eq!(quote(dir.path(), &data).unwrap(), expected);
        assert_eq!(fs::read(dir.path().join("user_report_data")).unwrap(), data);
    }
}

#[cfg(unix)]
#[test]
fn the_quote_is_opened_after_the_report_data_is_complete() {
    use std::process::Command;

    let dir = device("dcap", &[]);
    let fifo = dir.path().join("quote");
    fs::remove_file(&fifo).unwrap();
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let data = report_data(b"a key");
    let enclave = platform().enclave(enclave());
    let written = dir.path().join("user_report_data");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Opening the other end waits until the reader opens its own.
            let mut fifo = fs::OpenOptions::new().write(true).open(&fifo).unwrap();
            let asked: [u8; 64] = fs::read(&written).unwrap().try_into().unwrap();
            std::io::Write::write_all(&mut fifo, &enclave.quote(&asked).unwrap()).unwrap();
        });
        let quote = quote(dir.path(), &data).unwrap();
        assert_eq!(quote[368..432], data);
    });
}

#[test]
fn no_attestation_in_the_manifest() {
    let dir = device("none", &[]);
    let error = quote(dir.path(), &[7; 64]).unwrap_err();
    assert!(matches!(&error, QuoteError::AttestationType { found } if found == "none"), "{error}");
    let untouched = fs::read(dir.path().join("user_report_data")).unwrap();
    assert_eq!(untouched, [0; 64]);
}

#[test]
fn oversize_quote() {
    let dir = device("dcap", &vec![0; MAXIMUM_QUOTE_BYTES + 1]);
    assert!(matches!(quote(dir.path(), &[0; 64]), Err(QuoteError::Oversize)));
    let largest = device("dcap", &vec![0; MAXIMUM_QUOTE_BYTES]);
    assert_eq!(quote(largest.path(), &[0; 64]).unwrap().len(), MAXIMUM_QUOTE_BYTES);
}

#[test]
fn a_quote_for_another_writer() {
    let other = platform().enclave(enclave()).quote(&[8; 64]).unwrap();
    let dir = device("dcap", &other);
    let error = quote(dir.path(), &[7; 64]).unwrap_err();
    assert!(matches!(error, QuoteError::OtherReportData { bytes } if bytes == other.len()));
    let empty = device("dcap", &[]);
    assert!(matches!(quote(empty.path(), &[7; 64]), Err(QuoteError::OtherReportData { bytes: 0 })));
}

#[test]
fn missing_directory() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("attestation");
    let error = quote(&missing, &[7; 64]).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, QuoteError::Device { action: "read", .. }), "{text}");
    assert!(text.contains("attestation_type") && text.contains("gramine-sgx"), "{text}");
    assert!(Gramine::new(&missing).describe().contains("attestation"));
}

#[test]
fn missing_report_data_file() {
    let dir = device("dcap", &[]);
    fs::remove_file(dir.path().join("user_report_data")).unwrap();
    let error = quote(dir.path(), &[7; 64]).unwrap_err();
    assert!(matches!(error, QuoteError::Device { action: "write", .. }), "{error}");
}
