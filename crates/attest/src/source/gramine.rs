//! Gramine's attestation device.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use super::{Device, QuoteError, QuoteSource, checked};
use crate::limits::MAXIMUM_QUOTE_BYTES;

/// Gramine's attestation device, a directory of pseudo-files (`/dev/attestation`).
///
/// The protocol: write 64 bytes to `user_report_data`, then read `quote`, which is made when it is
/// opened. The device has one state per process, so only one caller at a time is let in, however
/// many [`Gramine`] values exist.
pub struct Gramine {
    dir: PathBuf,
}

impl Gramine {
    /// Uses the device at `dir`, which is `/dev/attestation` inside Gramine. Opens nothing yet.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }
}

impl QuoteSource for Gramine {
    fn quote(&self, report_data: &[u8; 64]) -> Result<Vec<u8>, QuoteError> {
        let _one_writer = ONE_WRITER.lock().unwrap_or_else(PoisonError::into_inner);
        let kind = DEVICE.read(&self.dir.join("attestation_type"), 16)?;
        if kind.trim_ascii() != b"dcap" {
            let found = String::from_utf8_lossy(&kind).trim().to_owned();
            return Err(QuoteError::AttestationType { found });
        }
        DEVICE.write(&self.dir.join("user_report_data"), report_data)?;
        let quote = DEVICE.read(&self.dir.join("quote"), MAXIMUM_QUOTE_BYTES + 1)?;
        checked(quote, report_data)
    }

    fn describe(&self) -> String {
        format!("Gramine SGX enclave ({})", self.dir.display())
    }
}

static ONE_WRITER: Mutex<()> = Mutex::new(());

const DEVICE: Device = Device {
    advice: "run under gramine-sgx with sgx.remote_attestation = \"dcap\" in the manifest",
};
