//! The devices' file protocols, on directories that stand in for them.

use std::fs;
use std::path::Path;

use crate::kit::{enclave, key, platform, spki};
use convelo_attest::{Gramine, MAXIMUM_QUOTE_BYTES, QuoteError, QuoteSource, Tsm, report_data};
use convelo_simulator::TrustDomain;
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
    let good = platform().enclave(enclave()).quote(&[7; 64]).unwrap();
    let mut filled = good.clone();
    filled.resize(MAXIMUM_QUOTE_BYTES, 0);
    assert_eq!(quote(device("dcap", &filled).path(), &[7; 64]).unwrap(), good);
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

/// Stands in for the kernel: fills the directories that appear in `dir` with attributes, as pipes,
/// and answers `requests` of them. What it was given in `inblob` goes through `quote`.
#[cfg(unix)]
fn kernel(
    dir: &Path,
    provider: &str,
    generations: &[(u32, u32)],
    quote: impl Fn([u8; 64]) -> Vec<u8>,
) -> Vec<std::path::PathBuf> {
    let mut seen = Vec::new();
    for (before, after) in generations {
        let request = loop {
            let mut paths = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
            match paths.find(|path| !seen.contains(path)) {
                Some(path) => break path,
                None => std::thread::sleep(std::time::Duration::from_millis(1)),
            }
        };
        seen.push(request.clone());
        let at = |name: &str| request.join(name);
        fs::write(at("provider"), provider).unwrap();
        for name in ["inblob", "outblob"] {
            let made = std::process::Command::new("mkfifo").arg(at(name)).status().unwrap();
            assert!(made.success());
        }
        fs::write(at("next"), format!("{before}\n")).unwrap();
        fs::rename(at("next"), at("generation")).unwrap();
        if provider.trim() != "tdx_guest" {
            continue;
        }
        // Opening and reading wait for the other end.
        let asked: [u8; 64] = fs::read(at("inblob")).unwrap().try_into().unwrap();
        let quote = quote(asked);
        let mut outblob = fs::OpenOptions::new().write(true).open(at("outblob")).unwrap();
        fs::write(at("next"), format!("{after}\n")).unwrap();
        fs::rename(at("next"), at("generation")).unwrap();
        std::io::Write::write_all(&mut outblob, &quote).unwrap();
        drop(outblob);
    }
    seen
}

#[cfg(unix)]
fn ask(
    provider: &str,
    generations: &[(u32, u32)],
    quote: impl Fn([u8; 64]) -> Vec<u8> + Send,
) -> Result<Vec<u8>, QuoteError> {
    let dir = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| kernel(dir.path(), provider, generations, quote));
        Tsm::new(dir.path()).quote(&[7; 64])
    })
}

#[cfg(unix)]
#[test]
fn a_tdx_guest_quotes_what_was_written_in_one_write() {
    let domain = platform().trust_domain(TrustDomain::named("convelo-service"));
    let expected = domain.quote(&[7; 64]).unwrap();
    let quote = |data| domain.quote(&data).unwrap();
    // The kernel fills its buffer with zeros.
    let filled = |data| [domain.quote(&data).unwrap(), vec![0; 70]].concat();
    for found in [
        ask("tdx_guest\n", &[(0, 1)], quote).unwrap(),
        ask("tdx_guest\n", &[(0, 1)], filled).unwrap(),
    ] {
        // No two signatures are equal.
        assert_eq!((found.len(), &found[..632]), (expected.len(), &expected[..632]));
    }
}

#[cfg(unix)]
#[test]
fn another_writer_in_the_same_directory_of_a_tdx_guest() {
    let domain = platform().trust_domain(TrustDomain::named("convelo-service"));
    let quote = |data| domain.quote(&data).unwrap();
    // Written twice in one directory; the next one is left alone.
    assert!(ask("tdx_guest\n", &[(0, 2), (0, 1)], quote).is_ok());
    let error = ask("tdx_guest\n", &[(0, 2), (0, 3), (5, 7), (1, 3)], quote).unwrap_err();
    assert!(error.to_string().contains("another writer"), "{error}");
    let other = |_| domain.quote(&[8; 64]).unwrap();
    let error = ask("tdx_guest\n", &[(0, 1)], other).unwrap_err();
    assert!(matches!(error, QuoteError::OtherReportData { .. }), "{error}");
}

#[cfg(unix)]
#[test]
fn reports_of_another_technology_than_tdx() {
    let error = ask("sev_guest\n", &[(0, 0)], |_| Vec::new()).unwrap_err();
    assert!(matches!(&error, QuoteError::Provider { found } if found == "sev_guest"), "{error}");
}

#[test]
fn no_directory_of_reports() {
    let dir = tempfile::tempdir().unwrap();
    let error = Tsm::new(dir.path().join("report")).quote(&[7; 64]).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, QuoteError::Device { action: "create", .. }), "{text}");
    assert!(text.contains("TDX guest"), "{text}");
}
