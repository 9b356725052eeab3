//! Where quotes come from.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::limits::MAXIMUM_QUOTE_BYTES;
use crate::quote;

/// Something inside an enclave that quotes report data.
///
/// Whoever may choose report data may impersonate the enclave, so a quote source must not be
/// reachable from outside it.
pub trait QuoteSource: Send + Sync {
    /// Returns a quote whose report carries these 64 bytes.
    fn quote(&self, report_data: &[u8; 64]) -> Result<Vec<u8>, QuoteError>;

    /// Says what this source is, in a few words for a person.
    fn describe(&self) -> String;
}

/// Why no quote could be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QuoteError {
    /// A file of the attestation device could not be opened, read or written. Usually this process
    /// does not run in an SGX enclave, or its manifest lacks `sgx.remote_attestation = "dcap"`.
    #[error(
        "cannot {action} {path}: {source}; run under gramine-sgx with sgx.remote_attestation = \
         \"dcap\" in the manifest"
    )]
    Device {
        /// `read` or `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// The enclave attests in another way than DCAP, or not at all.
    #[error(
        "the enclave's attestation type is {found:?}, required \"dcap\": set \
         sgx.remote_attestation = \"dcap\" in the manifest and sign it again"
    )]
    AttestationType {
        /// What `attestation_type` said, cut to 16 bytes.
        found: String,
    },
    /// The device returned more bytes than any quote has.
    #[error("the device returned a quote of more than {MAXIMUM_QUOTE_BYTES} bytes")]
    Oversize,
    /// The quote does not carry the report data that was asked for: another writer used the device
    /// at the same time, or it is not an SGX v3 quote.
    #[error(
        "the device returned a quote for other report data ({bytes} bytes): another writer uses \
         it, or it does not make SGX v3 quotes"
    )]
    OtherReportData {
        /// The length of what was returned.
        bytes: usize,
    },
    /// The source could not make a quote for a reason of its own.
    #[error("{0}")]
    Source(String),
}

/// Gramine's attestation device, a directory of pseudo-files (`/dev/attestation`).
///
/// The protocol is: write 64 bytes to `user_report_data`, then read `quote`, which is made when it
/// is opened. The device has one state per process, so one caller at a time is let in, whatever
/// the number of [`Gramine`] values.
pub struct Gramine {
    dir: PathBuf,
}

impl Gramine {
    /// Uses the device at `dir`, `/dev/attestation` inside Gramine. Nothing is opened yet.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }
}

impl QuoteSource for Gramine {
    fn quote(&self, report_data: &[u8; 64]) -> Result<Vec<u8>, QuoteError> {
        let _one_writer = DEVICE.lock().unwrap_or_else(PoisonError::into_inner);
        let kind = read(&self.dir.join("attestation_type"), 16)?;
        if kind.trim_ascii() != b"dcap" {
            let found = String::from_utf8_lossy(&kind).trim().to_owned();
            return Err(QuoteError::AttestationType { found });
        }
        write(&self.dir.join("user_report_data"), report_data)?;
        let quote = read(&self.dir.join("quote"), MAXIMUM_QUOTE_BYTES + 1)?;
        if quote.len() > MAXIMUM_QUOTE_BYTES {
            return Err(QuoteError::Oversize);
        }
        if quote.get(quote::REPORT_DATA) != Some(report_data.as_slice()) {
            return Err(QuoteError::OtherReportData { bytes: quote.len() });
        }
        Ok(quote)
    }

    fn describe(&self) -> String {
        format!("Gramine SGX enclave ({})", self.dir.display())
    }
}

static DEVICE: Mutex<()> = Mutex::new(());

fn read(path: &Path, limit: usize) -> Result<Vec<u8>, QuoteError> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(limit as u64).read_to_end(&mut bytes))
        .map_err(|source| device("read", path, source))?;
    Ok(bytes)
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), QuoteError> {
    OpenOptions::new()
        .write(true)
        .open(path)
        .and_then(|mut file| file.write_all(bytes))
        .map_err(|source| device("write", path, source))
}

fn device(action: &'static str, path: &Path, source: io::Error) -> QuoteError {
    QuoteError::Device { action, path: path.to_owned(), source }
}
