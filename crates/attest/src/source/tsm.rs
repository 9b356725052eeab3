//! Linux's directory of attestation reports, for TDX guests.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use super::{Device, QuoteError, QuoteSource, checked};

/// A TDX guest's reports under configfs (`/sys/kernel/config/tsm/report`, Linux 6.7 and later;
/// Documentation/ABI/testing/configfs-tsm).
///
/// Each quote gets a directory of its own, which the kernel fills with attributes: we write 64
/// bytes to `inblob`, read the quote from `outblob`, and `generation` tells whether anybody else
/// has written in the meantime.
pub struct Tsm {
    dir: PathBuf,
}

impl Tsm {
    /// Uses the directory `dir`, which is `/sys/kernel/config/tsm/report` in a guest. Opens nothing
    /// yet.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }
}

impl QuoteSource for Tsm {
    fn quote(&self, report_data: &[u8; 64]) -> Result<Vec<u8>, QuoteError> {
        for _ in 0..TRIES {
            if let Some(quote) = Request::new(&self.dir)?.quote(report_data)? {
                return checked(quote, report_data);
            }
        }
        Err(QuoteError::Source(format!(
            "another writer used each of {TRIES} new directories in {}: find out which program \
             writes there",
            self.dir.display()
        )))
    }

    fn describe(&self) -> String {
        format!("TDX trust domain ({})", self.dir.display())
    }
}

/// One directory for one quote.
struct Request {
    dir: PathBuf,
}

impl Request {
    fn new(parent: &Path) -> Result<Self, QuoteError> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let dir = loop {
            let count = COUNT.fetch_add(1, Ordering::Relaxed);
            let dir = parent.join(format!("convelo-{count}"));
            match fs::create_dir(&dir) {
                Ok(()) => break dir,
                // Another program's directory, or left behind by one that crashed.
                Err(error) if error.kind() == ErrorKind::AlreadyExists && count < MOST_NAMES => {}
                Err(source) => return Err(DEVICE.failed("create", &dir, source)),
            }
        };
        let request = Self { dir };
        // configfs creates the attributes together with the directory; a stand-in for it in a
        // container may take a moment.
        let generation = request.dir.join("generation");
        for _ in (0..PATIENCE_MILLISECONDS).take_while(|_| !generation.exists()) {
            thread::sleep(Duration::from_millis(1));
        }
        Ok(request)
    }

    /// The quote, or `None` if somebody else wrote to the same directory.
    fn quote(&self, report_data: &[u8; 64]) -> Result<Option<Vec<u8>>, QuoteError> {
        let provider = DEVICE.read(&self.dir.join("provider"), 32)?;
        if provider.trim_ascii() != b"tdx_guest" {
            let found = String::from_utf8_lossy(&provider).trim().to_owned();
            return Err(QuoteError::Provider { found });
        }
        let before = self.generation()?;
        DEVICE.write(&self.dir.join("inblob"), report_data)?;
        let quote = DEVICE.read(&self.dir.join("outblob"), MAXIMUM_BLOB_BYTES)?;
        let writes = self.generation()?.wrapping_sub(before);
        Ok((writes == 1).then_some(quote))
    }

    /// How often the attributes have been written.
    fn generation(&self) -> Result<u64, QuoteError> {
        let path = self.dir.join("generation");
        let text = DEVICE.read(&path, 32)?;
        std::str::from_utf8(text.trim_ascii())
            .ok()
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| QuoteError::Source(format!("{} is not a number", path.display())))
    }
}

impl Drop for Request {
    /// If the kernel refuses, a few bytes of its memory stay in use and nothing else happens.
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.dir);
    }
}

const TRIES: usize = 4;
const MOST_NAMES: u64 = 1 << 20;
const PATIENCE_MILLISECONDS: u32 = 1000;

/// The kernel's own limit for what a provider returns.
const MAXIMUM_BLOB_BYTES: usize = 32 << 10;

const DEVICE: Device =
    Device { advice: "run in a TDX guest with Linux 6.7 or later, as a user who may write there" };
