//! The newest revocation lists that this party has seen, in a file.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::{fs, io};

use convelo_attest::{Collateral, MAXIMUM_SEEN_BYTES, Refusal, SeenLists};

use crate::error::{Error, Hint, Kind};
use crate::refresh::write;

/// The file and what is known of it.
#[derive(Debug)]
pub(crate) struct Seen {
    path: PathBuf,
    lists: Mutex<SeenLists>,
}

impl Seen {
    /// Reads the file; if there is none, nothing has been seen.
    ///
    /// # Errors
    /// If it cannot be read: whoever can damage it must not make this party forget.
    pub(crate) fn open(path: PathBuf) -> Result<Self, Error> {
        let lists = Mutex::new(read(&path)?);
        Ok(Self { path, lists })
    }

    /// Checks that no revocation list of collateral, verified or not, is older than what was seen here.
    ///
    /// # Errors
    /// If one is older.
    pub(crate) fn check(&self, collateral: &Collateral) -> Result<(), Error> {
        // On a copy: what is not verified is not remembered.
        let mut lists = self.lists.lock().unwrap_or_else(PoisonError::into_inner).clone();
        lists.admit(collateral).map(drop).map_err(Error::from)
    }

    /// Checks that no revocation list of verified collateral is older than what was seen here, and
    /// remembers those that are newer. That they cannot be written to the file is only logged: what
    /// is verified now is sound.
    ///
    /// # Errors
    /// If one is older: what `refused` makes of the refusal.
    pub(crate) fn admit(
        &self,
        verified: &Collateral,
        refused: impl FnOnce(Refusal) -> Error,
    ) -> Result<(), Error> {
        let mut lists = self.lists.lock().unwrap_or_else(PoisonError::into_inner);
        if !lists.admit(verified).map_err(refused)? {
            return Ok(());
        }
        // Another run may have remembered something in the meantime.
        *lists = lists.clone().merged(&read(&self.path)?);
        if let Err(error) = write(&self.path, lists.to_json().as_bytes()) {
            let file = self.path.display();
            tracing::warn!(%file, %error, "the newest revocation lists seen are not remembered");
        }
        Ok(())
    }
}

fn read(path: &Path) -> Result<SeenLists, Error> {
    let unusable = |error: &dyn std::fmt::Display| {
        let text = format!(
            "cannot read {}, which remembers the newest revocation lists that were seen: {error}",
            path.display()
        );
        Error::new(Kind::Usage, text).with_hint(Hint::SeenLists)
    };
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(SeenLists::default()),
        Err(error) => return Err(unusable(&error)),
        Ok(metadata) if metadata.len() > MAXIMUM_SEEN_BYTES as u64 => {
            let text = format!("it has {} bytes", metadata.len());
            return Err(unusable(&text));
        }
        Ok(_) => {}
    }
    let text = fs::read_to_string(path).map_err(|error| unusable(&error))?;
    SeenLists::from_json(&text).map_err(|error| unusable(&error))
}
