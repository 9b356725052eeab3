use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use csv_core::WriteResult;
use flate2::Compression;
use flate2::write::GzEncoder;
use tempfile::NamedTempFile;

use super::block::{Fields, Whole};
use super::error::{Fault, TableError};
use super::format::Format;
use super::input::{Input, extension, irregular};
use crate::limits::TABLE_BUFFER_BYTES;

/// Where matched rows go.
pub enum Output<'w> {
    /// A file. It appears, or replaces the one that was there, only when it is complete. It is packed
    /// by gzip if its name ends in `.gz`.
    ///
    /// Its mode is 0600 whatever the umask says: matched rows are personal data.
    File(&'w Path),
    /// A stream, such as standard output. It may have got a part of the rows when an error comes.
    Stream(&'w mut dyn Write),
}

/// Rows on their way to an output that is not complete yet.
pub(super) struct Draft<'w> {
    path: PathBuf,
    sheet: BufWriter<Sink<'w>>,
    /// None for lines.
    csv: Option<csv_core::Writer>,
    /// The columns that are written, counted from 0; all if empty.
    select: Vec<usize>,
}

impl<'w> Draft<'w> {
    pub(super) fn new(
        output: Output<'w>,
        input: &Input,
        format: Format,
        select: &[usize],
    ) -> Result<Self, TableError> {
        if let Output::File(path) = output {
            check_name(path, format)?;
        }
        let (path, target) = match output {
            Output::Stream(stream) => (PathBuf::from("the output"), Target::Stream(stream)),
            Output::File(path) => {
                let file = temporary_beside(path, input)?;
                let target = if extension(path).as_deref() == Some("gz") {
                    Target::Gzip(Box::new(GzEncoder::new(file, Compression::default())))
                } else {
                    Target::File(Box::new(file))
                };
                (path.to_owned(), target)
            }
        };
        let sheet = BufWriter::with_capacity(TABLE_BUFFER_BYTES, Sink { target, bytes: 0 });
        let csv = match format {
            Format::Csv { delimiter, .. } => {
                Some(csv_core::WriterBuilder::new().delimiter(delimiter).build())
            }
            Format::Lines | Format::Parquet => None,
        };
        Ok(Self { path, sheet, csv, select: select.to_vec() })
    }

    #[inline]
    pub(super) fn write(&mut self, row: &Whole<'_>) -> Result<(), TableError> {
        let written = match row {
            Whole::Line(line) => {
                self.sheet.write_all(line.as_bytes()).and_then(|()| self.sheet.write_all(b"\n"))
            }
            Whole::Record(fields) => self.record(*fields),
        };
        written.map_err(|error| TableError::new(&self.path, Fault::Write(error)))
    }

    fn record(&mut self, fields: Fields<'_>) -> io::Result<()> {
        let csv = self.csv.as_mut().expect("only a CSV file has records");
        let mut quoted = [0; 1024];
        let mut write = |number, field: &str| {
            if number > 0 {
                let (_, written) = csv.delimiter(&mut quoted);
                self.sheet.write_all(&quoted[..written])?;
            }
            let mut rest = field.as_bytes();
            loop {
                let (result, read, written) = csv.field(rest, &mut quoted);
                self.sheet.write_all(&quoted[..written])?;
                rest = &rest[read..];
                if result == WriteResult::InputEmpty {
                    return Ok::<_, io::Error>(());
                }
            }
        };
        if self.select.is_empty() {
            fields.all().enumerate().try_for_each(|(number, field)| write(number, field))?;
        } else {
            let columns = self.select.iter().enumerate();
            columns
                .into_iter()
                .try_for_each(|(number, column)| write(number, fields.get(*column)))?;
        }
        let (_, written) = csv.terminator(&mut quoted);
        self.sheet.write_all(&quoted[..written])
    }

    /// Writes what is a part of the output as it is.
    pub(super) fn put(&mut self, bytes: &[u8]) -> Result<(), TableError> {
        self.sheet.write_all(bytes).map_err(|error| self.error(error))
    }

    pub(super) fn error(&self, error: io::Error) -> TableError {
        TableError::new(&self.path, Fault::Write(error))
    }

    /// Writes what is buffered and puts a file in its place; the number of bytes written.
    pub(super) fn complete(self) -> Result<u64, TableError> {
        let Self { path, sheet, .. } = self;
        complete(sheet, &path).map_err(|error| TableError::new(&path, Fault::Write(error)))
    }
}

/// Says whether `path` could become the output of a table read from `input`.
pub(super) fn check_target(path: &Path, input: &Input, format: Format) -> Result<(), TableError> {
    check_name(path, format)?;
    temporary_beside(path, input).map(drop)
}

/// Rows are written as they were read, and the output's name must not say otherwise.
fn check_name(path: &Path, format: Format) -> Result<(), TableError> {
    let named = extension(path).as_deref() == Some("parquet");
    let fault = match (format, named) {
        (Format::Parquet, false) => {
            Fault::OutputFormat { format: "Parquet", name: "ends in .parquet" }
        }
        (Format::Csv { .. }, true) => {
            Fault::OutputFormat { format: "CSV", name: "does not end in .parquet" }
        }
        (Format::Lines, true) => {
            Fault::OutputFormat { format: "one id a line", name: "does not end in .parquet" }
        }
        _ => return Ok(()),
    };
    Err(TableError::new(path, fault))
}

enum Target<'w> {
    File(Box<NamedTempFile>),
    Gzip(Box<GzEncoder<NamedTempFile>>),
    Stream(&'w mut dyn Write),
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
            Target::Stream(stream) => stream.write(buffer),
        }?;
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.target {
            Target::File(file) => file.flush(),
            Target::Gzip(file) => file.flush(),
            Target::Stream(stream) => stream.flush(),
        }
    }
}

fn complete(sheet: BufWriter<Sink<'_>>, path: &Path) -> io::Result<u64> {
    let sink = sheet.into_inner().map_err(|failed| copy_of(failed.error()))?;
    let file = match sink.target {
        Target::Stream(stream) => {
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

/// The same error without the writer that is kept beside it.
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
    let directory = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    tempfile::Builder::new()
        .prefix(".convelo-")
        .suffix(".partial")
        .tempfile_in(directory)
        .map_err(|error| TableError::new(path, Fault::Write(error)))
}
