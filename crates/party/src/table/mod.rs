//! Tables in and out: the key fields of every row, and the rows that matched.
//!
//! A table is a CSV file or a text file with one id per line, plain or packed with gzip or
//! Zstandard, or such text on standard input; or a Parquet file; or a stream of Arrow batches. It
//! is read twice, in constant memory: [`Table::scan`] yields the key fields of every row, and
//! [`Table::write_matched`] reads the same rows again and writes the selected ones to an
//! [`Output`], with all or selected columns and in input order. Both passes read the file that
//! [`Input::open`] opened, and refuse it if it changed in between; a one-time input is kept
//! encrypted meanwhile.
//!
//! What is read:
//! - UTF-8 with or without a byte order mark; any other encoding is refused, naming the line.
//! - CSV as in RFC 4180 with any one-character ASCII delimiter. Lines end in LF, CRLF or CR. Every
//!   record has as many fields as the first. An empty line is not a record: it is skipped and not
//!   counted, even in a table with one column.
//! - One id per line: lines end in LF, a CR before it is dropped, and nothing else is. A blank line
//!   is a blank id: a row that counts.
//! - An empty file is an empty table, whatever columns are requested.
//!
//! What is written: the same format and delimiter, the header if there was one, lines ending in LF,
//! no byte order mark, quotes only where needed; for batches, Parquet. An output that takes batches
//! gets them from any table: from text, as columns of text.

mod arrow_stream;
mod batches;
mod block;
mod column;
mod error;
mod format;
mod input;
mod output;
mod reader;
mod source;
mod text;

use std::path::Path;

use crate::limits::{FIRST_RECORD_BYTES, MAXIMUM_COLUMNS, TABLE_BUFFER_BYTES};

pub use self::block::KeyFields;
pub(crate) use self::block::{Block, Misfit};
pub use self::column::{Column, ColumnNameError};
pub use self::error::{ColumnList, Fault, TableError};
pub use self::format::Format;
pub use self::input::{Input, STANDARD_INPUT};
pub use self::output::Output;
pub use arrow_array::{RecordBatch, RecordBatchReader};

use self::block::Layout;
use self::output::check_target;
use self::reader::Reader;
use self::text::Sheet;

/// How to read a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableOptions {
    /// The layout of the file.
    pub format: Format,
    /// The columns that form the key, in the key's order; empty for [`Format::Lines`].
    pub key: Vec<Column>,
    /// The columns to write of a matched row, in this order; empty for all.
    pub select: Vec<Column>,
}

/// An open table: its columns are known, and its key has been found among them.
pub struct Table {
    input: Input,
    start: u64,
    format: Format,
    columns: Vec<String>,
    key: Vec<usize>,
    select: Vec<usize>,
}

/// What the first pass over a table counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Rows, without the header; blank and repeated keys count.
    pub rows: u64,
}

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Written {
    /// Rows, without the header.
    pub rows: u64,
    /// Bytes, with the header; 0 for batches.
    pub bytes: u64,
}

impl Table {
    /// Reads a table's first record and finds the requested columns.
    ///
    /// # Errors
    /// If the text is not UTF-8, the first record cannot be read, or a column does not exist; the
    /// error then lists the columns.
    pub fn open(input: Input, options: &TableOptions) -> Result<Self, TableError> {
        let (format, columns, select) = (options.format, Vec::new(), Vec::new());
        if input.is_batches() != (format == Format::Arrow) {
            return Err(TableError::new(input.path(), Fault::NotBatches));
        }
        let start = if format.is_text() { source::text_start(&input)? } else { 0 };
        let mut table = Self { input, start, format, columns, key: vec![0], select };
        format.check().map_err(|fault| table.error(fault))?;
        if table.format == Format::Lines {
            if !options.key.is_empty() || !options.select.is_empty() {
                return Err(table.error(Fault::ColumnsOfLines));
            }
            table.columns.push("#1".to_owned());
            return Ok(table);
        }
        table.columns = if format.is_text() {
            table.first_record()?
        } else {
            batches::columns(&table.input, format)?
        };
        if table.columns.is_empty() && format.is_text() {
            return Ok(table);
        }
        let header = table.format.has_names();
        if options.key.is_empty() {
            let columns = ColumnList::new(&table.columns, header);
            return Err(table.error(Fault::NoKey { columns }));
        }
        let resolve = |columns: &[Column]| {
            let resolved =
                columns.iter().map(|column| column::resolve(column, &table.columns, header));
            resolved.collect::<Result<_, _>>().map_err(|fault| table.error(fault))
        };
        (table.key, table.select) = (resolve(&options.key)?, resolve(&options.select)?);
        if !format.is_text() {
            batches::check_keys(&table.input, format, &table.key)?;
        }
        Ok(table)
    }

    /// The file's path, or a description of an input without a name, such as "standard input".
    pub fn path(&self) -> &Path {
        self.input.path()
    }

    /// The names of the columns: from the header, or `#1`, `#2` … without one. Empty for a CSV file
    /// without any record.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// How many columns form the key; unknown if the table has no columns at all.
    pub(crate) fn key_columns(&self) -> Option<usize> {
        (!self.columns.is_empty()).then_some(self.key.len())
    }

    /// The format in which the table is read and written.
    pub fn format(&self) -> Format {
        self.format
    }

    /// The file's size when it was opened; `progress` counts up to it in either pass.
    pub fn size_bytes(&self) -> u64 {
        self.input.size()
    }

    /// Checks whether matched rows could be written to `output`, so that a job does not have to run
    /// to its end to find out that they cannot.
    ///
    /// # Errors
    /// If the file is the input, is not a regular one, or its directory is not writable; or if the
    /// columns have types that cannot be written.
    pub fn check_output(&self, output: &Output<'_>) -> Result<(), TableError> {
        if let Output::File(path) = output {
            check_target(path, &self.input, self.format)?;
        }
        match output {
            Output::File(_) | Output::Writer(_) if !self.format.is_text() => {
                batches::check_parquet(&self.input, self.format, &self.select)
            }
            _ => Ok(()),
        }
    }

    /// The first pass: passes the key fields of every row to `row`, in input order.
    ///
    /// `progress` gets the number of bytes read so far, once per buffer and at the end. Either pass
    /// stops at the first error that `row` returns, so that is how to interrupt it.
    ///
    /// # Errors
    /// The error that `row` returns, or a [`TableError`] for whatever is wrong with the table: text
    /// that is not UTF-8, a ragged row, an unclosed quote, a file that changed.
    pub fn scan<E: From<TableError>>(
        &mut self,
        progress: impl FnMut(u64),
        mut row: impl FnMut(KeyFields<'_>) -> Result<(), E>,
    ) -> Result<Counts, E> {
        let keys = self.keys();
        self.read(progress, |block| {
            let visited = keys.visit(block, |_, fields| row(fields).map_err(Stop::Visitor));
            visited.map_err(|stop| match stop {
                Stop::Visitor(error) => error,
                Stop::Misfit(misfit) => self.refuse(misfit).into(),
            })
        })
    }

    /// How to find the key fields in a block.
    pub(crate) fn keys(&self) -> Keys {
        if self.format.is_text() {
            return Keys {
                layout: self.layout(),
                header: self.header_rows(),
                columns: self.key.clone(),
            };
        }
        // Blocks of batches contain only the key's columns.
        let (width, columns) = (self.key.len(), (0..self.key.len()).collect());
        Keys { layout: Layout::new(self.format, Some(width)), header: 0, columns }
    }

    /// Reads the table in blocks, in input order. `progress` works as in [`Table::scan`].
    ///
    /// # Errors
    /// As for [`Table::scan`], except for what [`Keys::visit`] finds.
    pub(crate) fn read<E: From<TableError>>(
        &self,
        mut progress: impl FnMut(u64),
        mut visit: impl FnMut(&mut Block) -> Result<(), E>,
    ) -> Result<Counts, E> {
        self.input.check_unchanged()?;
        if !self.format.is_text() {
            let rows = batches::read(&self.input, self.format, &self.key, progress, visit)?;
            self.input.check_unchanged()?;
            return Ok(Counts { rows });
        }
        let width = Some(self.columns.len());
        let mut reader =
            Reader::new(&self.input, self.start, self.format, width, TABLE_BUFFER_BYTES)?;
        let (mut block, mut rows, mut reported) = (Block::default(), 0, 0);
        loop {
            match reader.next(&mut block) {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    self.input.check_unchanged()?;
                    return Err(error.into());
                }
            }
            rows += block.rows();
            visit(&mut block)?;
            if self.input.done() != reported {
                reported = self.input.done();
                progress(reported);
            }
        }
        self.input.check_unchanged()?;
        if self.input.done() != self.input.size() {
            return Err(self.error(Fault::Changed).into());
        }
        progress(self.input.size());
        Ok(Counts { rows: rows.saturating_sub(self.header_rows()) })
    }

    /// The second pass: writes the rows that `keep` selects by number, from 0.
    ///
    /// `scanned` is what the first pass returned. `progress` works as in [`Table::scan`].
    ///
    /// # Errors
    /// The error that `keep` returns, or a [`TableError`] for whatever is wrong with the output or
    /// the table; an output file is then unchanged.
    pub fn write_matched<E: From<TableError>>(
        &mut self,
        scanned: &Counts,
        output: Output<'_>,
        progress: impl FnMut(u64),
        mut keep: impl FnMut(u64) -> Result<bool, E>,
    ) -> Result<Written, E> {
        let changed = || self.error(Fault::Changed);
        if !self.format.is_text() {
            self.input.check_unchanged()?;
            let (input, format) = (&self.input, self.format);
            let (rows, written, sheet) =
                batches::copy(input, format, &self.select, output, progress, keep)?;
            self.input.check_unchanged()?;
            if rows != scanned.rows {
                return Err(changed().into());
            }
            return Ok(Written { rows: written, bytes: sheet.complete()? });
        }
        let mut sheet = Sheet::new(output, &self.input, self.format, &self.columns, &self.select)?;
        let (layout, header) = (self.layout(), self.header_rows());
        let (fields, named) = (sheet.wants_fields(), sheet.names_columns());
        let mut kept = 0;
        let counts = self.read::<E>(progress, |block| {
            layout.write_kept(
                block,
                fields,
                |_| changed().into(),
                |row| {
                    let Some(row) = row.checked_sub(header) else { return Ok(!named) };
                    if row >= scanned.rows {
                        return Err(changed().into());
                    }
                    let wanted = keep(row)?;
                    kept += u64::from(wanted);
                    Ok(wanted)
                },
                |whole| Ok(sheet.write(&whole)?),
            )
        })?;
        if counts != *scanned {
            return Err(changed().into());
        }
        Ok(Written { rows: kept, bytes: sheet.complete()? })
    }

    /// The error for a row that differs from the others in shape.
    pub(crate) fn refuse(&self, misfit: Misfit) -> TableError {
        let cr_alone = self.format != Format::Lines;
        let line = source::line_at(&self.input, self.start + misfit.offset, cr_alone).ok();
        TableError::at(self.path(), line, misfit.fault)
    }

    fn error(&self, fault: Fault) -> TableError {
        TableError::new(self.path(), fault)
    }

    fn layout(&self) -> Layout {
        Layout::new(self.format, Some(self.columns.len()))
    }

    fn header_rows(&self) -> u64 {
        u64::from(self.format.has_header() && !self.columns.is_empty())
    }

    /// The names of the columns; empty if there is no record.
    fn first_record(&self) -> Result<Vec<String>, TableError> {
        let mut reader =
            Reader::new(&self.input, self.start, self.format, None, FIRST_RECORD_BYTES)?;
        let (header, mut block) = (self.format.has_header(), Block::default());
        let mut columns = Vec::new();
        while columns.is_empty() && reader.next(&mut block)? {
            columns = reader.layout().first(&block, |number, field| {
                if header { field.to_owned() } else { format!("#{number}") }
            });
        }
        if columns.len() > MAXIMUM_COLUMNS {
            let found = columns.len();
            return Err(self.refuse(Misfit { offset: 0, fault: Fault::TooManyColumns { found } }));
        }
        Ok(columns)
    }
}

/// Finds the key fields in the blocks of one table.
#[derive(Clone)]
pub(crate) struct Keys {
    layout: Layout,
    header: u64,
    columns: Vec<usize>,
}

impl Keys {
    /// Passes on every row's number, from 0 and without the header, and its key fields.
    #[inline]
    pub(crate) fn visit<E>(
        &self,
        block: &Block,
        mut visit: impl FnMut(u64, KeyFields<'_>) -> Result<(), Stop<E>>,
    ) -> Result<(), Stop<E>> {
        self.layout.visit(block, Stop::Misfit, |row, fields| match row.checked_sub(self.header) {
            Some(row) => visit(row, fields.key(&self.columns)),
            None => Ok(()),
        })
    }
}

/// Why not all rows of a block were visited.
pub(crate) enum Stop<E> {
    /// [`Table::refuse`] says what is wrong.
    Misfit(Misfit),
    /// The visitor returned an error.
    Visitor(E),
}

#[cfg(test)]
mod tests;
