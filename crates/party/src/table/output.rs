use std::fmt;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use arrow_array::RecordBatch;
use arrow_schema::{ArrowError, SchemaRef};
use flate2::Compression;
use flate2::write::GzEncoder;
use tempfile::NamedTempFile;

use super::error::{Fault, TableError};
use super::format::Format;
use super::input::{Input, ending, extension, irregular};
use super::signature;
use crate::limits::{LEAST_ROOM_BYTES, TABLE_BUFFER_BYTES};

/// Where matched rows go.
pub enum Output<'w> {
    /// A file. It appears, or replaces an existing one, only when it is complete. It is packed with
    /// gzip if its name ends in `.gz`.
    ///
    /// Its mode is 0600 whatever the umask says: matched rows are personal data.
    File(PathBuf),
    /// A stream, such as standard output. It may have received some of the rows when an error
    /// occurs.
    Writer(Box<dyn Write + Send + 'w>),
    /// A receiver of batches. It gets at least one: an empty one if no row matched. It may have
    /// received some of the rows when an error occurs.
    Batches(Box<dyn FnMut(RecordBatch) -> io::Result<()> + Send + 'w>),
}

impl fmt::Debug for Output<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Writer(_) => f.write_str("Writer"),
            Self::Batches(_) => f.write_str("Batches"),
        }
    }
}

/// An output that has been opened.
pub(super) enum Opened<'w> {
    Bytes(Draft<'w>),
    Batches(Box<Give<'w>>),
}

type Give<'w> = dyn FnMut(RecordBatch) -> io::Result<()> + Send + 'w;

impl<'w> Output<'w> {
    /// The file, if it is one.
    pub fn file(&self) -> Option<&Path> {
        if let Self::File(path) = self { Some(path) } else { None }
    }

    pub(crate) fn is_batches(&self) -> bool {
        matches!(self, Self::Batches(_))
    }

    pub(super) fn open(self, input: &Input, format: Format) -> Result<Opened<'w>, TableError> {
        let (path, target) = match self {
            Self::Batches(give) => return Ok(Opened::Batches(give)),
            Self::Writer(stream) => (PathBuf::from(NAMELESS), Target::Writer(stream)),
            Self::File(path) => {
                check_name(&path, format)?;
                let file = temporary_beside(&path, input)?;
                let target = if extension(&path).as_deref() == Some("gz") {
                    Target::Gzip(Box::new(GzEncoder::new(file, Compression::default())))
                } else {
                    Target::File(Box::new(file))
                };
                (path, target)
            }
        };
        let sheet = BufWriter::with_capacity(TABLE_BUFFER_BYTES, Sink { target, bytes: 0 });
        Ok(Opened::Bytes(Draft { path, sheet }))
    }
}

/// How messages name an output without a name.
const NAMELESS: &str = "the output";

/// Bytes on their way to an output that is not yet complete.
pub(super) struct Draft<'w> {
    path: PathBuf,
    sheet: BufWriter<Sink<'w>>,
}

impl Draft<'_> {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn error(&self, error: io::Error) -> TableError {
        TableError::new(&self.path, Fault::Write(error))
    }

    /// Writes what is buffered and puts a file in place; returns the number of bytes written.
    pub(super) fn complete(self) -> Result<u64, TableError> {
        let Self { path, sheet } = self;
        complete(sheet, &path).map_err(|error| TableError::new(&path, Fault::Write(error)))
    }
}

impl Write for Draft<'_> {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.sheet.write(bytes)
    }

    #[inline]
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.sheet.write_all(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sheet.flush()
    }
}

/// Batches on their way to their receiver.
pub(super) struct BatchSink<'w> {
    give: Box<Give<'w>>,
    schema: SchemaRef,
    given: bool,
}

impl<'w> BatchSink<'w> {
    pub(super) fn new(give: Box<Give<'w>>, schema: SchemaRef) -> Self {
        Self { give, schema, given: false }
    }

    /// Passes on a batch, unless it is empty.
    pub(super) fn give(
        &mut self,
        batch: Result<RecordBatch, ArrowError>,
    ) -> Result<(), TableError> {
        let given = batch.map_err(io::Error::other).and_then(|batch| {
            if batch.num_rows() == 0 {
                return Ok(());
            }
            self.given = true;
            (self.give)(batch)
        });
        given.map_err(|error| TableError::new(Path::new(NAMELESS), Fault::Write(error)))
    }

    /// Passes on an empty batch if there was no other.
    pub(super) fn complete(mut self) -> Result<(), TableError> {
        if self.given {
            return Ok(());
        }
        let given = (self.give)(RecordBatch::new_empty(self.schema));
        given.map_err(|error| TableError::new(Path::new(NAMELESS), Fault::Write(error)))
    }
}

/// Checks whether `path` could become the output of a table read from `input`.
pub(super) fn check_target(path: &Path, input: &Input, format: Format) -> Result<(), TableError> {
    check_name(path, format)?;
    temporary_beside(path, input)?;
    match room(path) {
        Some(free) if free < LEAST_ROOM_BYTES.min(input.size()) => {
            Err(TableError::new(path, Fault::NoRoom { free }))
        }
        _ => Ok(()),
    }
}

/// How many bytes may still be written beside `path`, if the system tells.
pub(super) fn room(path: &Path) -> Option<u64> {
    let found = rustix::fs::statvfs(directory_of(path)).ok()?;
    Some(found.f_bavail.saturating_mul(found.f_frsize))
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

/// Whether an output's name asks for Parquet.
pub(super) fn is_parquet(path: &Path) -> bool {
    extension(path).as_deref() == Some("parquet")
}

/// The delimiter of CSV, if an output's name asks for that.
pub(super) fn csv_delimiter(path: &Path) -> Option<u8> {
    match ending(path).as_deref() {
        Some("csv") => Some(b','),
        Some("tsv" | "tab") => Some(b'\t'),
        _ => None,
    }
}

/// The output's name must not claim a format that the rows cannot have.
fn check_name(path: &Path, format: Format) -> Result<(), TableError> {
    if let Some(found) = ending(path).and_then(|ending| signature::unwritten(&ending)) {
        let endings = match format {
            Format::Lines => ".txt",
            Format::Csv { .. } | Format::Parquet | Format::Arrow => ".csv, .tsv or .parquet",
        };
        return Err(TableError::new(path, Fault::OutputName { found, endings }));
    }
    let (format, name) = match format {
        Format::Parquet | Format::Arrow if !is_parquet(path) && csv_delimiter(path).is_none() => {
            ("Parquet or CSV", "ends in .parquet, .csv or .tsv")
        }
        Format::Lines if is_parquet(path) => ("one id per line", "does not end in .parquet"),
        _ => return Ok(()),
    };
    Err(TableError::new(path, Fault::OutputFormat { format, name }))
}

enum Target<'w> {
    File(Box<NamedTempFile>),
    Gzip(Box<GzEncoder<NamedTempFile>>),
    Writer(Box<dyn Write + Send + 'w>),
}

/// Counts the bytes of text that reach the target.
struct Sink<'w> {
    target: Target<'w>,
    bytes: u64,
}

impl Write for Sink<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let count = match &mut self.target {
            Target::File(file) => file.write(buffer),
            Target::Gzip(file) => file.write(buffer),
            Target::Writer(stream) => stream.write(buffer),
        }?;
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.target {
            Target::File(file) => file.flush(),
            Target::Gzip(file) => file.flush(),
            Target::Writer(stream) => stream.flush(),
        }
    }
}

fn complete(sheet: BufWriter<Sink<'_>>, path: &Path) -> io::Result<u64> {
    let sink = sheet.into_inner().map_err(|failed| copy_of(failed.error()))?;
    let file = match sink.target {
        Target::Writer(mut stream) => {
            stream.flush()?;
            return Ok(sink.bytes);
        }
        Target::File(file) => *file,
        Target::Gzip(file) => file.finish()?,
    };
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(sink.bytes)
}

/// The same error without the writer attached to it.
fn copy_of(error: &io::Error) -> io::Error {
    error.raw_os_error().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error)
}

fn temporary_beside(path: &Path, input: &Input) -> Result<NamedTempFile, TableError> {
    let refuse = |fault| Err(TableError::new(path, fault));
    if extension(path).as_deref() == Some("zst") {
        return refuse(Fault::OutputPacking);
    }
    match std::fs::metadata(path) {
        Ok(metadata) => {
            if let Some(found) = irregular(metadata.file_type()) {
                return refuse(Fault::OutputNotRegular { found });
            }
            match input.is(path, &metadata) {
                Ok(true) => return refuse(Fault::OutputIsInput),
                Ok(false) => {}
                Err(error) => return refuse(Fault::Write(error)),
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return refuse(Fault::Write(error)),
    }
    let directory = directory_of(path);
    if !directory.is_dir() {
        return refuse(Fault::NoDirectory(directory.to_owned()));
    }
    tempfile::Builder::new()
        .prefix(".convelo-")
        .suffix(".partial")
        .tempfile_in(directory)
        // The library's error names its own file.
        .map_err(|error| TableError::new(path, Fault::Write(error.kind().into())))
}
