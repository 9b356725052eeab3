use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::str::from_utf8;

use csv::ByteRecord;

use super::error::{Fault, TableError};
use super::format::Format;
use super::source::{END_MARK, Source, line_at};
use crate::limits::{MAXIMUM_COLUMNS, TABLE_BUFFER_BYTES};

/// The key fields of one row, in the order in which the key's columns were named.
///
/// Fields are given as they stand in the table, without quotes; normalisation is the job's.
/// There is no `Debug`: fields are records.
#[derive(Clone)]
pub struct KeyFields<'r> {
    row: Row<'r>,
    columns: std::slice::Iter<'r, usize>,
}

impl<'r> Iterator for KeyFields<'r> {
    type Item = &'r str;

    #[inline]
    fn next(&mut self) -> Option<&'r str> {
        let column = *self.columns.next()?;
        Some(self.row.field(column))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.columns.size_hint()
    }
}

impl ExactSizeIterator for KeyFields<'_> {}

/// One row as it lies in the reader's buffer.
#[derive(Clone, Copy)]
pub(super) struct Row<'r> {
    text: &'r str,
    record: Option<&'r ByteRecord>,
}

impl<'r> Row<'r> {
    /// The fields of these columns, counted from 0.
    pub(super) fn key(self, columns: &'r [usize]) -> KeyFields<'r> {
        KeyFields { row: self, columns: columns.iter() }
    }

    /// The row of a CSV file; none for a line.
    pub(super) fn record(self) -> Option<&'r ByteRecord> {
        self.record
    }

    /// The line, or all fields of a record one after the other.
    pub(super) fn text(self) -> &'r str {
        self.text
    }

    #[inline]
    fn field(self, column: usize) -> &'r str {
        match self.record {
            None => self.text,
            Some(record) => record.range(column).and_then(|range| self.text.get(range)).expect(
                "the key's columns were found in the first record, ragged rows are refused",
            ),
        }
    }
}

/// One pass over the rows of a file. It reads from `source` and allocates nothing per row.
pub(super) struct Rows<'f> {
    path: &'f Path,
    file: &'f std::fs::File,
    reader: Reader<'f>,
    record: ByteRecord,
    width: Option<usize>,
    consumed: u64,
}

enum Reader<'f> {
    Csv(Box<csv::Reader<Source<'f>>>),
    Lines(BufReader<Source<'f>>, Vec<u8>),
}

impl<'f> Rows<'f> {
    /// Starts a pass at byte `start` of the file.
    pub(super) fn new(
        path: &'f Path,
        file: &'f std::fs::File,
        start: u64,
        format: Format,
    ) -> Result<Self, TableError> {
        let source = |end_mark| {
            Source::new(file, start, end_mark)
                .map_err(|error| TableError::new(path, Fault::Read(error)))
        };
        let reader = match format {
            Format::Csv { delimiter, .. } => Reader::Csv(Box::new(
                csv::ReaderBuilder::new()
                    .delimiter(delimiter)
                    .has_headers(false)
                    .flexible(true)
                    .buffer_capacity(TABLE_BUFFER_BYTES)
                    .from_reader(source(END_MARK)?),
            )),
            Format::Lines => Reader::Lines(
                BufReader::with_capacity(TABLE_BUFFER_BYTES, source(&[])?),
                Vec::new(),
            ),
        };
        Ok(Self { path, file, reader, record: ByteRecord::new(), width: None, consumed: 0 })
    }

    /// The next row; none at the end of the file.
    #[inline]
    pub(super) fn next(&mut self) -> Result<Option<Row<'_>>, TableError> {
        match self.read() {
            Ok(false) => Ok(None),
            Ok(true) => Ok(Some(self.row())),
            Err(error) => Err(self.locate(error)),
        }
    }

    /// Bytes of the file that were read so far.
    #[inline]
    pub(super) fn position(&self) -> u64 {
        self.source().position()
    }

    #[inline]
    fn row(&self) -> Row<'_> {
        let (bytes, record) = match &self.reader {
            Reader::Csv(_) => (self.record.as_slice(), Some(&self.record)),
            Reader::Lines(_, line) => (line.as_slice(), None),
        };
        let text = from_utf8(bytes).expect("the source gives UTF-8, cut at ASCII characters only");
        Row { text, record }
    }

    #[inline]
    fn read(&mut self) -> Result<bool, ReadError> {
        match &mut self.reader {
            Reader::Csv(reader) => {
                let position = reader.position().byte();
                reader.get_mut().begin_record(position);
                if !reader.read_byte_record(&mut self.record)? {
                    return Ok(false);
                }
                if self.record.as_slice().last() == Some(&0) {
                    return match self.record.as_slice() {
                        [0] if self.record.len() == 1 => Ok(false),
                        _ => Err(ReadError::Refused(Fault::UnclosedQuote)),
                    };
                }
                let found = self.record.len();
                let expected = *self.width.get_or_insert(found);
                if found != expected {
                    return Err(ReadError::Refused(Fault::Ragged { found, expected }));
                }
                if found > MAXIMUM_COLUMNS {
                    return Err(ReadError::Refused(Fault::TooManyColumns { found }));
                }
                Ok(true)
            }
            Reader::Lines(reader, line) => {
                reader.get_mut().begin_record(self.consumed);
                line.clear();
                let count = reader.read_until(b'\n', line).map_err(ReadError::Io)?;
                self.consumed += count as u64;
                if line.last() == Some(&b'\n') {
                    line.pop();
                }
                while line.last() == Some(&b'\r') {
                    line.pop();
                }
                Ok(count > 0)
            }
        }
    }

    fn locate(&mut self, error: ReadError) -> TableError {
        let record = self.source().record_position();
        let (offset, fault) = match error {
            ReadError::Refused(fault) => (record, fault),
            ReadError::Io(error) => match self.source_mut().take_fault() {
                Some(located) => (located.offset, located.fault),
                None => return TableError::new(self.path, Fault::Read(error)),
            },
        };
        let cr_alone = matches!(self.reader, Reader::Csv(_));
        TableError::at(self.path, line_at(self.file, offset, cr_alone).ok(), fault)
    }

    #[inline]
    fn source(&self) -> &Source<'f> {
        match &self.reader {
            Reader::Csv(reader) => reader.get_ref(),
            Reader::Lines(reader, _) => reader.get_ref(),
        }
    }

    fn source_mut(&mut self) -> &mut Source<'f> {
        match &mut self.reader {
            Reader::Csv(reader) => reader.get_mut(),
            Reader::Lines(reader, _) => reader.get_mut(),
        }
    }
}

enum ReadError {
    Io(io::Error),
    Refused(Fault),
}

impl From<csv::Error> for ReadError {
    fn from(error: csv::Error) -> Self {
        match error.into_kind() {
            csv::ErrorKind::Io(error) => Self::Io(error),
            other => Self::Io(io::Error::other(format!("the CSV reader failed: {other:?}"))),
        }
    }
}
