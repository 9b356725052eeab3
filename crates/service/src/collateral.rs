//! Collateral that others renew while the service runs.

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use convelo_attest::{Collateral, MAXIMUM_COLLATERAL_BYTES};

/// A source of the collateral in force, which something else keeps fresh while the service runs.
pub trait CollateralSource: Send + Sync {
    /// The collateral in force now, if there is any. May block.
    fn current(&self) -> Option<Arc<Collateral>>;
}

/// Collateral in a file, read again whenever the file changes. If the file becomes unreadable, or
/// older, the last version stays in use: anyone who can write the file must not be able to set a
/// service back behind what it already knows.
pub struct CollateralFile {
    path: PathBuf,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    changed: Option<SystemTime>,
    collateral: Option<Arc<Collateral>>,
}

impl CollateralFile {
    /// The file at `path`, which need not exist yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), held: Mutex::default() }
    }

    fn read(&self) -> Result<Collateral, String> {
        let length = fs::metadata(&self.path).map_err(|error| error.to_string())?.len();
        if length > MAXIMUM_COLLATERAL_BYTES as u64 {
            return Err(format!("{length} bytes, expected at most {MAXIMUM_COLLATERAL_BYTES}"));
        }
        let text = fs::read_to_string(&self.path).map_err(|error| error.to_string())?;
        Collateral::from_json(&text).map_err(|error| error.to_string())
    }

    fn warn(&self, error: &dyn std::fmt::Display) {
        tracing::warn!(file = %self.path.display(), %error, "new collateral was not accepted");
    }
}

impl CollateralSource for CollateralFile {
    /// The file's content, or what it was before it got worse. Reads the file's date, and its
    /// content if that is new; blocks.
    fn current(&self) -> Option<Arc<Collateral>> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = fs::metadata(&self.path).and_then(|metadata| metadata.modified()).ok();
        if changed.is_none() || changed != held.changed {
            held.changed = changed;
            match self.read() {
                Ok(new) => match held.collateral.as_ref().map(|old| new.may_replace(old)) {
                    None | Some(Ok(())) => held.collateral = Some(Arc::new(new)),
                    Some(Err(error)) => self.warn(&error),
                },
                Err(error) => self.warn(&error),
            }
        }
        held.collateral.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use convelo_simulator::{CollateralKnobs, Platform};

    use super::*;

    const NOW: u64 = 1_795_219_200;

    /// Writes the file, with a given date.
    fn write(path: &Path, text: &str, minute: u64) {
        fs::write(path, text).expect("the directory can be written to");
        let file = fs::OpenOptions::new().write(true).open(path).expect("the file");
        let date = SystemTime::UNIX_EPOCH + Duration::from_mins(minute);
        file.set_modified(date).expect("a date");
    }

    #[test]
    fn a_file_that_gets_newer_older_worse_and_lost() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("collateral.json");
        let platform = Platform::new(NOW).expect("a platform");
        let issued = |days_ago| {
            let knobs = CollateralKnobs { issued_days_ago: days_ago, ..CollateralKnobs::default() };
            platform.collateral(&knobs)
        };
        let file = CollateralFile::new(&path);
        assert!(file.current().is_none(), "there is none yet");
        write(&path, &issued(5).to_json(), 1);
        let old = file.current().expect("collateral");
        assert!(Arc::ptr_eq(&old, &file.current().expect("collateral")), "it was read again");
        write(&path, &issued(2).to_json(), 2);
        let new = file.current().expect("collateral");
        assert!(new.issued() > old.issued());
        write(&path, &issued(4).to_json(), 3);
        assert_eq!(file.current().expect("collateral").digest(), new.digest(), "an older one");
        write(&path, "{", 4);
        assert_eq!(file.current().expect("collateral").digest(), new.digest(), "a damaged one");
        write(&path, &" ".repeat(MAXIMUM_COLLATERAL_BYTES + 1), 5);
        assert_eq!(file.current().expect("collateral").digest(), new.digest(), "an oversize one");
        fs::remove_file(&path).expect("the file is there");
        assert_eq!(file.current().expect("collateral").digest(), new.digest(), "a lost one");
    }
}
