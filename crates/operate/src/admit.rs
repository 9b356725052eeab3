//! The operator's list of admitted keys, in a file that changes while the service runs.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use convelo_psi::KeyId;
use convelo_service::AdmitList;

use crate::limits::{ADMIT_CHECK, MAXIMUM_ADMIT_BYTES};

/// A text file with one key on a line: its fingerprint, as `convelo keygen` prints it, and then
/// whose it is. Blank lines, and what follows a `#`, do not count. Read again when it changes; a
/// file that cannot be read leaves the last list in force.
pub struct AdmitFile {
    path: PathBuf,
    held: RwLock<Held>,
}

struct Held {
    changed: Option<SystemTime>,
    names: BTreeMap<KeyId, String>,
}

/// A list that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdmitError {
    /// The file cannot be read.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// The file is too large.
    #[error("larger than {} MiB; is this the right file?", MAXIMUM_ADMIT_BYTES >> 20)]
    Size,
    /// A line is wrong.
    #[error("line {line}: {why}")]
    Line {
        /// Its number, from 1.
        line: usize,
        /// What was found, and what was expected.
        why: String,
    },
}

impl AdmitFile {
    /// Reads the file at `path`.
    ///
    /// # Errors
    /// [`AdmitError`]; later, the log says what is wrong with a new version of the file.
    pub fn open(path: impl Into<PathBuf>) -> Result<Arc<Self>, AdmitError> {
        let path = path.into();
        let held = RwLock::new(read(&path)?);
        Ok(Arc::new(Self { path, held }))
    }

    /// How many keys are on the list.
    pub fn len(&self) -> usize {
        self.held.read().unwrap_or_else(PoisonError::into_inner).names.len()
    }

    /// Whether the list is empty: nobody may use the service.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Looks at the file again and again.
    pub(crate) async fn keep_current(self: Arc<Self>) {
        loop {
            tokio::time::sleep(ADMIT_CHECK).await;
            let list = Arc::clone(&self);
            let _ = tokio::task::spawn_blocking(move || list.look()).await;
        }
    }

    /// Reads the file again if it has changed.
    fn look(&self) {
        let changed = fs::metadata(&self.path).and_then(|metadata| metadata.modified()).ok();
        if changed == self.held.read().unwrap_or_else(PoisonError::into_inner).changed {
            return;
        }
        let new = read(&self.path);
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        match new {
            Ok(new) => {
                tracing::info!(keys = new.names.len(), "the list of admitted keys has changed");
                *held = new;
            }
            Err(error) => {
                let file = self.path.display();
                tracing::warn!(%file, %error, "the new list of admitted keys was not accepted");
                held.changed = changed;
            }
        }
    }
}

impl AdmitList for AdmitFile {
    fn admits(&self, key: &[u8; 32]) -> bool {
        self.held.read().unwrap_or_else(PoisonError::into_inner).names.contains_key(&KeyId(*key))
    }
}

fn read(path: &Path) -> Result<Held, AdmitError> {
    let file = fs::File::open(path)?;
    let changed = file.metadata().and_then(|metadata| metadata.modified()).ok();
    let mut text = String::new();
    file.take(MAXIMUM_ADMIT_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAXIMUM_ADMIT_BYTES {
        return Err(AdmitError::Size);
    }
    Ok(Held { changed, names: parse(&text)? })
}

fn parse(text: &str) -> Result<BTreeMap<KeyId, String>, AdmitError> {
    let mut names: BTreeMap<KeyId, String> = BTreeMap::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let wrong = |why| AdmitError::Line { line: number, why };
        let (key, name) = line.split_once(char::is_whitespace).ok_or_else(|| {
            let expected = "a fingerprint, a blank, and the name of its owner";
            wrong(format!("found '{}', expected {expected}", line.escape_debug()))
        })?;
        let id: KeyId = key.parse().map_err(|error| {
            wrong(format!("'{}' is no fingerprint: {error}", key.escape_debug()))
        })?;
        let name = name.trim();
        if let Some(other) = names.insert(id, name.to_owned()) {
            let (name, other) = (name.escape_debug(), other.escape_debug());
            return Err(wrong(format!(
                "the key of '{name}' is already on the list, as that of '{other}'"
            )));
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn line(key: u8, name: &str) -> String {
        format!("{} {name}\n", KeyId([key; 32]))
    }

    #[test]
    fn keys_with_names_comments_and_blank_lines() {
        let text = format!("# partners\n\n{}  {}", line(1, "alice # of A"), line(2, "bob & sons"));
        let names = parse(&text).expect("a list");
        let names: Vec<_> = names.into_iter().map(|(key, name)| (key.0[0], name)).collect();
        assert_eq!(names, [(1, "alice".to_owned()), (2, "bob & sons".to_owned())]);
        assert!(parse("").expect("a list").is_empty());
    }

    #[test]
    fn lines_that_are_wrong_are_named() {
        let key = KeyId([1; 32]).to_string();
        for (text, words) in [
            (format!("\n{key}\n"), "line 2: found 'sha256:0101"),
            ("alice sha256:00\n".to_owned(), "line 1: 'alice' is no fingerprint"),
            (
                format!("{}{}", line(1, "alice"), line(1, "bob")),
                "line 2: the key of 'bob' is already",
            ),
            ("sha256:\u{1b}[31m x".to_owned(), "\\u{1b}[31m"),
        ] {
            let error = parse(&text).expect_err("it is wrong").to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn a_list_that_changes_gets_worse_and_is_lost() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("admitted.txt");
        assert!(AdmitFile::open(&path).is_err(), "there is none yet");
        let write = |text: &str, minute: u64| {
            fs::write(&path, text).expect("the directory can be written to");
            let file = fs::OpenOptions::new().write(true).open(&path).expect("the file");
            file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_mins(minute))
                .expect("a date");
        };
        write(&line(1, "alice"), 1);
        let list = AdmitFile::open(&path).expect("a list");
        assert!(list.admits(&[1; 32]) && !list.admits(&[2; 32]));
        write(&line(2, "bob"), 2);
        assert!(list.admits(&[1; 32]), "nobody has looked");
        list.look();
        assert!(!list.admits(&[1; 32]) && list.admits(&[2; 32]));
        write("nonsense", 3);
        list.look();
        assert!(list.admits(&[2; 32]), "a damaged one");
        fs::remove_file(&path).expect("the file is there");
        list.look();
        assert!(list.admits(&[2; 32]), "a lost one");
        write("", 4);
        list.look();
        assert!(list.is_empty());
    }
}
