//! Tables in and out: the key fields of every row, and the rows that matched.
//!
//! A table is a CSV file or a text file of one id a line, plain or packed by gzip or Zstandard, or such a
//! text from standard input; or a Parquet file; or a stream of Arrow batches. It is read twice, in memory that does
//! not grow with it: [`Table::scan`] yields the key fields of every row, and [`Table::write_matched`] reads the same
//! rows again and gives those that are kept to an [`Output`], with all or selected columns and in input order. Both
//! passes read the file that [`Input::open`] opened, and refuse it when it changed in between; what comes but once
//! is kept encrypted meanwhile.
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
//! LF, no byte order mark, quotes only where they are needed; Parquet of batches. What takes batches gets them of
//! any table: of a text, columns of text.

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

/// How a table is to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableOptions {
    /// The layout of the file.
    pub format: Format,
    /// The columns that make the key, in the key's order; empty for [`Format::Lines`].
    pub key: Vec<Column>,
    /// The columns that are written of a matched row, in this order; empty for all.
    pub select: Vec<Column>,
}

/// A table that was opened: its columns are known and its key was found among them.
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
    /// Rows, without the header; blank and repeated keys are counted.
    pub rows: u64,
}

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Written {
    /// Rows, without the header.
    pub rows: u64,
    /// Bytes, with the header; none where batches were given.
    pub bytes: u64,
}

impl Table {
    /// Reads the first record of a table and finds the columns that are asked for.
    ///
    /// # Errors
    /// When the text is not UTF-8, when its first record cannot be read, and when a column is not
    /// there; the error then lists the columns.
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

    /// The file that is read, or what it is that has no name, such as "standard input".
    pub fn path(&self) -> &Path {
        self.input.path()
    }

    /// The names of the columns: from the header, or `#1`, `#2` … where there is none. Empty for a
    /// CSV file without any record.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// How many columns make the key; unknown where there are no columns at all.
    pub(crate) fn key_columns(&self) -> Option<usize> {
        (!self.columns.is_empty()).then_some(self.key.len())
    }

    /// The format that the table is read and written in.
    pub fn format(&self) -> Format {
        self.format
    }

    /// The file's size when it was opened: what `progress` counts up to in either pass.
    pub fn size_bytes(&self) -> u64 {
        self.input.size()
    }

    /// Says whether matched rows could be written to `output`, so that a job need not run to its
    /// end to find that they cannot.
    ///
    /// # Errors
    /// When a file is the input, is not a regular one, or its directory cannot be written to; and when the
    /// columns are not of types that are written.
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
        // Blocks of batches have the key's columns alone.
        let (width, columns) = (self.key.len(), (0..self.key.len()).collect());
        Keys { layout: Layout::new(self.format, Some(width)), header: 0, columns }
    }

    /// Reads the table in blocks, in input order. `progress` is as in [`Table::scan`].
    ///
    /// # Errors
    /// As for [`Table::scan`], but for what [`Keys::visit`] finds.
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

    /// The second pass: writes the rows that `keep` wants by their number, from 0.
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

    /// The error for a row that is not like the others.
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

    /// The names of the columns; none when there is no record.
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
    /// Gives every row's number, from 0 and without the header, and its key fields.
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

/// Why the rows of a block were not all visited.
pub(crate) enum Stop<E> {
    /// [`Table::refuse`] says what is wrong.
    Misfit(Misfit),
    /// The visitor would not go on.
    Visitor(E),
}

#[cfg(test)]
mod tests;
