//! The list of rows without a key, in a file: where each is and why, and nothing of what is in it.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};

use convelo_psi::KeyPart;
use tempfile::NamedTempFile;

use crate::error::{Error, Kind};
use crate::survey::Dropped;

/// A list in the making. The file appears when it is complete; its mode is 0600.
pub(crate) struct DroppedList {
    path: PathBuf,
    parts: Vec<String>,
    file: BufWriter<NamedTempFile>,
    /// Rows of blocks that have overtaken others, by the number of the block's first row.
    waiting: BTreeMap<u64, (u64, Vec<Dropped>)>,
    next: u64,
}

impl DroppedList {
    pub(crate) fn new(path: &Path, parts: &[KeyPart]) -> Result<Self, Error> {
        let directory = match path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        // The library's error names its own file.
        let file = NamedTempFile::new_in(directory);
        let file = file.map_err(|error| failed(path, &error.kind().into()))?;
        let mut file = BufWriter::new(file);
        writeln!(file, "row,line,part,reason").map_err(|error| failed(path, &error))?;
        let parts = parts.iter().map(|part| part.name.clone()).collect();
        Ok(Self { path: path.to_owned(), parts, file, waiting: BTreeMap::new(), next: 0 })
    }

    /// Takes the rows without a key of the block that begins with row `first` and has `count` rows.
    pub(crate) fn take(
        &mut self,
        first: u64,
        count: u64,
        dropped: &[Dropped],
    ) -> Result<(), Error> {
        if count > 0 {
            self.waiting.insert(first, (count, dropped.to_vec()));
        }
        while let Some((count, dropped)) = self.waiting.remove(&self.next) {
            self.next += count;
            for row in dropped {
                self.write(&row).map_err(|error| failed(&self.path, &error))?;
            }
        }
        Ok(())
    }

    fn write(&mut self, dropped: &Dropped) -> io::Result<()> {
        let Dropped { row, line, part, why } = dropped;
        let part = self.parts.get(*part).map_or("", String::as_str);
        let line = if *line > 0 { line.to_string() } else { String::new() };
        writeln!(self.file, "{},{line},{part},{}", row + 1, why.word())
    }

    pub(crate) fn complete(self) -> Result<(), Error> {
        let Self { path, file, .. } = self;
        let file = file.into_inner().map_err(|error| failed(&path, error.error()))?;
        file.persist(&path).map_err(|error| failed(&path, &error.error))?;
        Ok(())
    }
}

fn failed(path: &Path, error: &io::Error) -> Error {
    let text = format!("cannot write the list of dropped rows {}: {error}", path.display());
    Error::new(Kind::Usage, text)
}
