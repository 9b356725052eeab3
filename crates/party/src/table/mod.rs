//! Tables in and out: the key fields of every row, and the rows that matched.
//!
//! A table is a CSV file or a text file of one id a line. It is read twice, in memory that does not
//! grow with the file: [`Table::scan`] yields the key fields of every row, and
//! [`Table::write_matched`] reads the same rows again and writes those that are kept, with all
//! their columns and in input order. Both passes read the file that [`Table::open`] opened, and
//! refuse it when it changed in between.
//!
//! What is read:
//! - UTF-8 with or without a byte order mark; any other encoding is refused with the line.
//! - CSV as in RFC 4180 with any one-character ASCII delimiter. Lines end in LF, CRLF or CR. Every
//!   record has as many fields as the first. A line with nothing on it is no record: it is skipped
//!   and not counted, in a table of one column too.
//! - One id a line: lines end in LF, CR before it is dropped, nothing else is. A blank line is a
//!   blank id: a row that is counted.
//! - A file without any byte is an empty table, whatever columns are asked for.
//!
//! What is written: the same format and delimiter, the header if there was one, lines that end in
//! LF, no byte order mark, quotes only where they are needed.

mod column;
mod error;
mod format;
mod output;
mod rows;
mod source;

use std::fs::{File, Metadata};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

pub use self::column::{Column, ColumnNameError};
pub use self::error::{ColumnList, Fault, TableError};
pub use self::format::Format;
pub use self::output::Output;
pub use self::rows::KeyFields;

use self::output::{Draft, Input, check_target};
use self::rows::{Row, Rows};

/// How a table is to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableOptions {
    /// The layout of the file.
    pub format: Format,
    /// The columns that make the key, in the key's order; empty for [`Format::Lines`].
    pub key: Vec<Column>,
}

/// A table that was opened: its columns are known and its key was found among them.
pub struct Table {
    path: PathBuf,
    file: File,
    stamp: Stamp,
    start: u64,
    format: Format,
    columns: Vec<String>,
    key: Vec<usize>,
}

/// What the first pass over a table counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Rows, without the header; blank and repeated keys are counted.
    pub rows: u64,
}

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Written {
    /// Rows, without the header.
    pub rows: u64,
    /// Bytes, with the header.
    pub bytes: u64,
}

impl Table {
    /// Opens a table, reads its first record and finds the key's columns.
    ///
    /// # Errors
    /// When the file is not a regular one or not UTF-8 text, when its first record cannot be read,
    /// and when a key column is not there; the error then lists the columns.
    pub fn open(path: &Path, options: &TableOptions) -> Result<Self, TableError> {
        let refuse = |fault| TableError::new(path, fault);
        options.format.check().map_err(refuse)?;
        let (file, metadata) = format::open_regular(path)?;
        let start = source::text_start(&file).map_err(refuse)?;
        let mut table = Self {
            path: path.to_owned(),
            file,
            stamp: Stamp::of(&metadata),
            start,
            format: options.format,
            columns: Vec::new(),
            key: vec![0],
        };
        if table.format == Format::Lines {
            if !options.key.is_empty() {
                return Err(refuse(Fault::KeyOfLines));
            }
            table.columns.push("#1".to_owned());
            return Ok(table);
        }
        table.columns = table.first_record()?;
        if table.columns.is_empty() {
            return Ok(table);
        }
        let header = table.format.has_header();
        if options.key.is_empty() {
            let columns = ColumnList::new(&table.columns, header);
            return Err(refuse(Fault::NoKey { columns }));
        }
        let resolved = options.key.iter().map(|key| column::resolve(key, &table.columns, header));
        table.key = resolved.collect::<Result<_, _>>().map_err(refuse)?;
        Ok(table)
    }

    /// The file that is read.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The names of the columns: from the header, or `#1`, `#2` … where there is none. Empty for a
    /// CSV file without any record.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// The format that the table is read and written in.
    pub fn format(&self) -> Format {
        self.format
    }

    /// The file's size when it was opened: what `progress` counts up to in either pass.
    pub fn size_bytes(&self) -> u64 {
        self.stamp.size
    }

    /// Says whether matched rows could be written to `output`, so that a job need not run to its
    /// end to find that they cannot.
    ///
    /// # Errors
    /// When `output` is the input, is not a regular file, or its directory cannot be written to.
    pub fn check_output(&self, output: &Path) -> Result<(), TableError> {
        check_target(output, self.input())
    }

    /// The first pass: gives the key fields of every row, in input order, to `row`.
    ///
    /// `progress` gets the number of bytes read so far, once a buffer and at the end. Either pass
    /// stops at the first error that `row` returns, so that is the way to interrupt it.
    ///
    /// # Errors
    /// What `row` returns, and as [`TableError`] whatever is wrong with the table: text that is not
    /// UTF-8, a ragged row, a quote that is not closed, a file that changed.
    pub fn scan<E: From<TableError>>(
        &mut self,
        progress: impl FnMut(u64),
        mut row: impl FnMut(KeyFields<'_>) -> Result<(), E>,
    ) -> Result<Counts, E> {
        let key = &self.key;
        let rows = self.pass(progress, |place, found| match place {
            Place::Header => Ok(()),
            Place::Body => row(found.key(key)),
        })?;
        Ok(Counts { rows })
    }

    /// The second pass: writes the rows whose key fields `keep` wants.
    ///
    /// `scanned` is what the first pass returned. `progress` is as in [`Table::scan`].
    ///
    /// # Errors
    /// What `keep` returns, and as [`TableError`] whatever is wrong with the output or the table; a
    /// file that is the output is then as it was.
    pub fn write_matched<E: From<TableError>>(
        &mut self,
        scanned: &Counts,
        output: Output<'_>,
        progress: impl FnMut(u64),
        mut keep: impl FnMut(KeyFields<'_>) -> Result<bool, E>,
    ) -> Result<Written, E> {
        let mut draft = Draft::new(output, self.input(), self.format)?;
        let (key, mut kept) = (&self.key, 0);
        let rows = self.pass::<E>(progress, |place, found| {
            match place {
                Place::Header => draft.write(found)?,
                Place::Body if keep(found.key(key))? => {
                    draft.write(found)?;
                    kept += 1;
                }
                Place::Body => {}
            }
            Ok(())
        })?;
        if rows != scanned.rows {
            return Err(TableError::new(&self.path, Fault::Changed).into());
        }
        let bytes = draft.complete()?;
        Ok(Written { rows: kept, bytes })
    }

    fn input(&self) -> Input<'_> {
        Input { path: &self.path, file: &self.file }
    }

    /// The names of the columns; none when there is no record.
    fn first_record(&self) -> Result<Vec<String>, TableError> {
        let mut rows = Rows::new(&self.path, &self.file, self.start, self.format)?;
        let Some(row) = rows.next()? else { return Ok(Vec::new()) };
        let width = row.record().map_or(1, csv::ByteRecord::len);
        let columns: Vec<usize> = (0..width).collect();
        Ok(if self.format.has_header() {
            row.key(&columns).map(str::to_owned).collect()
        } else {
            columns.iter().map(|column| format!("#{}", column + 1)).collect()
        })
    }

    /// Visits the header, if there is one, and every row; the number of rows.
    fn pass<E: From<TableError>>(
        &self,
        mut progress: impl FnMut(u64),
        mut visit: impl FnMut(Place, Row<'_>) -> Result<(), E>,
    ) -> Result<u64, E> {
        self.check_unchanged()?;
        let mut rows = Rows::new(&self.path, &self.file, self.start, self.format)?;
        let mut place = if self.format.has_header() { Place::Header } else { Place::Body };
        let (mut count, mut reported) = (0, 0);
        loop {
            match rows.next() {
                Ok(Some(row)) => visit(place, row)?,
                Ok(None) => break,
                Err(error) => {
                    self.check_unchanged()?;
                    return Err(error.into());
                }
            }
            count += u64::from(place == Place::Body);
            place = Place::Body;
            if rows.position() != reported {
                reported = rows.position();
                progress(reported);
            }
        }
        self.check_unchanged()?;
        if rows.position() != self.stamp.size {
            return Err(TableError::new(&self.path, Fault::Changed).into());
        }
        progress(self.stamp.size);
        Ok(count)
    }

    fn check_unchanged(&self) -> Result<(), TableError> {
        let metadata = self.file.metadata();
        let metadata = metadata.map_err(|e| TableError::new(&self.path, Fault::Read(e)))?;
        if Stamp::of(&metadata) == self.stamp {
            Ok(())
        } else {
            Err(TableError::new(&self.path, Fault::Changed))
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Header,
    Body,
}

/// What tells that a file is still as it was.
#[derive(PartialEq, Eq)]
struct Stamp {
    size: u64,
    modified: Option<SystemTime>,
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self { size: metadata.len(), modified: metadata.modified().ok() }
    }
}

#[cfg(test)]
mod tests;
