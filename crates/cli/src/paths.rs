//! The files of a run: none may be written over another. Checked before anything is sent.

use std::fs;
use std::path::{Path, PathBuf};

use crate::exit::Failure;

/// All files that a command reads and writes, each with the words for what it is.
#[derive(Default)]
pub(crate) struct Paths {
    read: Vec<Named>,
    written: Vec<Named>,
}

struct Named {
    what: &'static str,
    path: PathBuf,
}

/// Stands for standard input, or standard output.
const STREAM: &str = "-";

impl Paths {
    /// Adds a file that is read; standard input is none.
    #[must_use]
    pub(crate) fn reads(mut self, what: &'static str, path: Option<&Path>) -> Self {
        let path = path.filter(|path| *path != Path::new(STREAM));
        self.read.extend(path.map(|path| Named { what, path: path.to_owned() }));
        self
    }

    /// Adds a file that is written.
    #[must_use]
    pub(crate) fn writes(mut self, what: &'static str, path: Option<&Path>) -> Self {
        self.written.extend(path.map(|path| Named { what, path: path.to_owned() }));
        self
    }

    /// Refuses a file that would be written over another one of them, or in a directory that is read as
    /// one table.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        for (index, written) in self.written.iter().enumerate() {
            written.check_place()?;
            let mut others = self.read.iter().chain(&self.written[..index]);
            if let Some(other) = others.find(|other| is_same(&written.path, &other.path)) {
                return Err(Failure::usage(format!(
                    "{} would be written over {}, {}: give it another name",
                    written.what,
                    other.what,
                    other.path.display()
                )));
            }
            if let Some(table) = self.read.iter().find(|read| is_in(&written.path, &read.path)) {
                return Err(Failure::usage(format!(
                    "{} would be written into {}, the directory {}: give another directory",
                    written.what,
                    table.what,
                    table.path.display()
                )));
            }
        }
        Ok(())
    }
}

impl Named {
    fn check_place(&self) -> Result<(), Failure> {
        let Self { what, path } = self;
        if path == Path::new(STREAM) {
            return Err(Failure::usage(format!(
                "{what} cannot go to standard output; give a file, or './-' for one of that name"
            )));
        }
        match fs::metadata(path) {
            Ok(found) if !found.is_file() => Err(Failure::usage(format!(
                "{what} would be written to {}, which is no regular file; give another name",
                path.display()
            ))),
            _ => Ok(()),
        }
    }
}

/// Whether two paths lead to the same file, or would once it exists.
fn is_same(one: &Path, other: &Path) -> bool {
    #[cfg(unix)]
    if let (Ok(one), Ok(other)) = (fs::metadata(one), fs::metadata(other)) {
        use std::os::unix::fs::MetadataExt as _;
        return (one.dev(), one.ino()) == (other.dev(), other.ino());
    }
    one == other || resolved(one).is_some_and(|one| resolved(other) == Some(one))
}

/// Whether a file is, or would be, in this directory.
fn is_in(path: &Path, directory: &Path) -> bool {
    directory.is_dir()
        && resolved(path)
            .is_some_and(|path| path.parent().map(Path::to_owned) == resolved(directory))
}

/// The path without links, of a file that may not exist yet.
fn resolved(path: &Path) -> Option<PathBuf> {
    path.canonicalize().ok().or_else(|| {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        Some(parent.unwrap_or(Path::new(".")).canonicalize().ok()?.join(path.file_name()?))
    })
}
