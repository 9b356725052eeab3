//! Where quotes come from.

mod gramine;
mod tsm;

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use crate::limits::MAXIMUM_QUOTE_BYTES;
use crate::quote;

pub use gramine::Gramine;
pub use tsm::Tsm;

/// Something inside an enclave or a trust domain that quotes report data.
///
/// Anyone who can choose report data can impersonate the enclave, so a quote source must not be
/// reachable from outside it.
pub trait QuoteSource: Send + Sync {
    /// Returns a quote whose report carries these 64 bytes.
    fn quote(&self, report_data: &[u8; 64]) -> Result<Vec<u8>, QuoteError>;

    /// Describes this source in a few words, for people.
    fn describe(&self) -> String;
}

/// Why there is no quote.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QuoteError {
    /// A file of the attestation device could not be opened, read or written. Usually this process
    /// is not running in an enclave or trust domain, or attestation is not set up there.
    #[error("cannot {action} {path}: {source}; {advice}")]
    Device {
        /// `read`, `write` or `create`.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
        /// What to do.
        advice: &'static str,
    },
    /// The enclave uses an attestation type other than DCAP, or none.
    #[error(
        "expected the enclave's attestation type \"dcap\", found {found:?}: set \
         sgx.remote_attestation = \"dcap\" in the manifest and sign it again"
    )]
    AttestationType {
        /// The value of `attestation_type`, cut to 16 bytes.
        found: String,
    },
    /// The machine makes reports for a technology other than TDX.
    #[error("expected the attestation provider \"tdx_guest\", found {found:?}: run in a TDX guest")]
    Provider {
        /// The value of `provider`, cut to 32 bytes.
        found: String,
    },
    /// The device returned more bytes than any quote has.
    #[error("the device returned a quote of more than {MAXIMUM_QUOTE_BYTES} bytes")]
    Oversize,
    /// The quote does not carry the requested report data: another writer used the device at the
    /// same time, or it is a different kind of quote.
    #[error(
        "the device returned a quote for other report data ({bytes} bytes): another writer is \
         using it, or its quotes are not SGX v3, TDX v4 or TDX v5"
    )]
    OtherReportData {
        /// The length of what was returned.
        bytes: usize,
    },
    /// The source could not make a quote, for a reason of its own.
    #[error("{0}")]
    Source(String),
}

/// A device's files, and what to do when they fail.
struct Device {
    advice: &'static str,
}

impl Device {
    fn read(&self, path: &Path, limit: usize) -> Result<Vec<u8>, QuoteError> {
        let mut bytes = Vec::new();
        File::open(path)
            .and_then(|file| file.take(limit as u64).read_to_end(&mut bytes))
            .map_err(|source| self.failed("read", path, source))?;
        Ok(bytes)
    }

    /// Writes all bytes at once.
    fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), QuoteError> {
        OpenOptions::new()
            .write(true)
            .open(path)
            .and_then(|mut file| file.write_all(bytes))
            .map_err(|source| self.failed("write", path, source))
    }

    fn failed(&self, action: &'static str, path: &Path, source: io::Error) -> QuoteError {
        QuoteError::Device { action, path: path.to_owned(), source, advice: self.advice }
    }
}

/// The quote that a device returned, if it carries the requested report data. Trailing zeros, with
/// which a device fills its buffer, are dropped.
fn checked(mut quote: Vec<u8>, report_data: &[u8; 64]) -> Result<Vec<u8>, QuoteError> {
    quote.truncate(quote::without_padding(&quote).len());
    if quote.len() > MAXIMUM_QUOTE_BYTES {
        return Err(QuoteError::Oversize);
    }
    if quote::report_data(&quote) != Some(report_data.as_slice()) {
        return Err(QuoteError::OtherReportData { bytes: quote.len() });
    }
    Ok(quote)
}
