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
//! - Lines end in LF, CRLF or CR. Byte order marks and Ctrl-Z at the start of a line are no part of it:
//!   files that were put one behind the other leave them there.
//! - CSV as in RFC 4180 with any one-character ASCII delimiter, strictly: text after a closing quote is
//!   refused. Every record has as many fields as the first. An empty line is not a record: it is
//!   skipped and not counted, even in a table with one column. A record that repeats the header is
//!   none.
//! - One id per line. A blank line is a blank id: a row that counts.
//! - What programs leave after the last row is no row: a line of white space, Ctrl-Z, and lines such
//!   as `(2 rows affected)`. All of it is counted.
//! - An empty file is an empty table without columns.
//!
//! What is written: the header if there was one and the rows, byte for byte as they were read, with
//! their line ends, without a byte order mark; a row without an end gets one. Selected columns are
//! written as their fields were read. For batches, Parquet; CSV if the output's name ends in `.csv` or
//! `.tsv`. A table of CSV becomes Parquet if it ends in `.parquet`: columns of text, which is also what a
//! receiver of batches gets.

mod arrow_stream;
mod batches;
mod block;
mod column;
mod ending;
mod error;
mod format;
mod input;
mod noticed;
mod output;
mod reader;
mod recognise;
mod record;
mod shape;
mod signature;
mod source;
mod text;
mod value;
mod verbatim;

use std::path::Path;

use crate::limits::{FIRST_RECORD_BYTES, MAXIMUM_COLUMNS, TABLE_BUFFER_BYTES};

pub use self::block::KeyFields;
pub(crate) use self::block::{Block, KeyRow, Misfit};
pub use self::column::{Column, ColumnNameError};
pub use self::ending::Ending;
pub use self::error::{ColumnList, Fault, TableError};
pub use self::format::Format;
pub use self::input::{Input, STANDARD_INPUT};
pub use self::noticed::TextNotes;
pub use self::output::Output;
pub use self::recognise::{FileKind, Hints};
pub use self::shape::Shapes;
pub use arrow_array::{RecordBatch, RecordBatchReader};

use self::batches::KeyColumn;
use self::block::{Fields, Layout, Row, Whole};
use self::output::{check_target, csv_delimiter};
use self::reader::Reader;
use self::recognise::{First, Sample, Start};
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
    start: Start,
    format: Format,
    columns: Vec<String>,
    /// The columns of the key in a text.
    key: Vec<usize>,
    /// The columns of the key in batches.
    batch_key: Vec<KeyColumn>,
    select: Vec<usize>,
}

/// What a table was taken for.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Description {
    /// The format, in words.
    pub format: &'static str,
    /// The delimiter of CSV.
    pub delimiter: Option<char>,
    /// Whether the first record of CSV names the columns.
    pub header: bool,
    /// How many columns there are.
    pub columns: usize,
    /// The name of the first column, if columns have names.
    pub first_column: Option<String>,
    /// The name of the last one.
    pub last_column: Option<String>,
}

/// What the first pass over a table counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Rows, without the header; blank and repeated keys count.
    pub rows: u64,
    /// Records that repeat the header or belong to one, which are no rows.
    pub repeated_headers: u64,
    /// What else was noticed in a text.
    pub notes: TextNotes,
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
        Self::unkeyed(input, options.format)?.keyed(&options.key, &options.select)
    }

    /// Opens a table of which the caller has said only `hints`.
    ///
    /// # Errors
    /// As for [`Table::open`] and [`Format::guess`]; and if nobody said whether there is a header, and
    /// the first record may be one or not.
    pub fn recognise(
        input: Input,
        hints: &Hints,
        key: &[Column],
        select: &[Column],
    ) -> Result<Self, TableError> {
        let format = Format::guess(&input, hints)?;
        let table = Self::unkeyed(input, format)?;
        match (format, hints.header) {
            (Format::Lines, Some(true)) => return Err(table.error(Fault::HeaderOfLines)),
            (Format::Lines, None)
                if First::of_lines(&Sample::of(&table.input)?.lines()) == First::Header =>
            {
                return Err(table.error(Fault::LineIsHeader));
            }
            (Format::Csv { .. }, None) => table.judge_header(key, select)?,
            _ => {}
        }
        table.keyed(key, select)
    }

    /// A table whose columns are known, and neither its key nor what to select.
    fn unkeyed(input: Input, format: Format) -> Result<Self, TableError> {
        if input.is_batches() != (format == Format::Arrow) {
            return Err(TableError::new(input.path(), Fault::NotBatches));
        }
        let start = if format.is_text() { text_start(&input, format)? } else { Start::default() };
        let (columns, key, select) = (Vec::new(), Vec::new(), Vec::new());
        let mut table = Self { input, start, format, columns, key, batch_key: Vec::new(), select };
        format.check().map_err(|fault| table.error(fault))?;
        table.columns = match format {
            Format::Lines => vec!["#1".to_owned()],
            Format::Csv { .. } => table.first_record()?,
            Format::Parquet | Format::Arrow => batches::columns(&table.input, format)?,
        };
        Ok(table)
    }

    /// Finds the key, and what to select.
    fn keyed(mut self, key: &[Column], select: &[Column]) -> Result<Self, TableError> {
        if self.format == Format::Lines {
            if !key.is_empty() || !select.is_empty() {
                return Err(self.error(Fault::ColumnsOfLines));
            }
            self.key = vec![0];
            return Ok(self);
        }
        if self.columns.is_empty() && self.format.is_text() {
            if !key.is_empty() || !select.is_empty() {
                return Err(self.error(Fault::NoColumns));
            }
            self.key = vec![0];
            return Ok(self);
        }
        if key.is_empty() {
            let columns = self.column_list();
            return Err(self.error(Fault::NoKey { columns }));
        }
        self.select = self.resolve(select)?;
        if self.format.is_text() {
            self.key = self.resolve(key)?;
        } else {
            self.batch_key = batches::key_columns(&self.input, self.format, key)?;
            // Blocks of batches contain only the key's columns.
            self.key = (0..key.len()).collect();
        }
        Ok(self)
    }

    /// Refuses a header that is not known to be one. Whoever names a column by a name in it knows.
    fn judge_header(&self, key: &[Column], select: &[Column]) -> Result<(), TableError> {
        let named = |column: &Column| match column {
            Column::Name(_) => {
                column::resolve(column, &self.columns, true, || self.column_list()).ok()
            }
            Column::Number(_) => None,
        };
        let in_key = |column: &Column| match column {
            Column::Name(_) => named(column),
            Column::Number(number) => number.checked_sub(1),
        };
        let known: Vec<usize> = key.iter().filter_map(in_key).collect();
        match self.first(&known) {
            First::Header => Ok(()),
            First::Record => Err(self.error(Fault::HeaderIsRecord { columns: self.columns.len() })),
            First::Unknown => {
                let numbers = key.iter().all(|column| matches!(column, Column::Number(_)));
                if numbers
                    && !key.is_empty()
                    && !select.iter().any(|column| named(column).is_some())
                {
                    return Err(self.error(Fault::HeaderUnknown));
                }
                Ok(())
            }
        }
    }

    /// What the first record of a CSV text is, going by those after it.
    fn first(&self, key: &[usize]) -> First {
        let sample = self.format.dialect().zip(Sample::of(&self.input).ok());
        let records = sample.map(|(dialect, sample)| sample.records(dialect)).unwrap_or_default();
        let Some((first, others)) = records.split_first() else { return First::Unknown };
        First::of(first, others, key)
    }

    /// The columns, for an error; by their names only if those cannot be a record.
    fn column_list(&self) -> ColumnList {
        let named = match self.format {
            Format::Csv { header, .. } => header && self.first(&[]) == First::Header,
            _ => true,
        };
        ColumnList::new(&self.columns, named)
    }

    fn resolve(&self, columns: &[Column]) -> Result<Vec<usize>, TableError> {
        let header = self.format.has_names();
        let resolve =
            |column| column::resolve(column, &self.columns, header, || self.column_list());
        let resolved = columns.iter().map(resolve).collect::<Result<_, _>>();
        resolved.map_err(|fault| self.error(fault))
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

    /// What the table was taken for.
    pub fn describe(&self) -> Description {
        let named = self.format.has_names() && !self.columns.is_empty();
        let name = |column: Option<&String>| column.filter(|_| named).cloned();
        Description {
            format: match self.format {
                Format::Csv { .. } => "CSV",
                Format::Lines => "one id per line",
                Format::Parquet => "Parquet",
                Format::Arrow => "Arrow",
            },
            delimiter: self.format.dialect().map(|dialect| char::from(dialect.delimiter)),
            header: self.format.has_header(),
            columns: self.columns.len(),
            first_column: name(self.columns.first()),
            last_column: name(self.columns.last()),
        }
    }

    /// The file's size when it was opened; `progress` counts up to it in either pass.
    pub fn size_bytes(&self) -> u64 {
        self.input.size()
    }

    /// SHA-256 of all that the table is read from, unpacked, in hexadecimal digits.
    pub(crate) fn sha256(&self) -> Result<String, TableError> {
        self.input.check_unchanged()?;
        self.input.sha256()
    }

    /// How many bytes are free for an output, if that is less than this table has; then its rows may
    /// not fit there.
    pub fn scarce_room(&self, output: &Output<'_>) -> Option<u64> {
        output.file().and_then(output::room).filter(|free| *free < self.size_bytes())
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
            _ if self.format.is_text() => Ok(()),
            Output::File(path) if csv_delimiter(path).is_some() => {
                batches::texts(&self.input, self.format, &self.select).map(drop)
            }
            Output::File(_) | Output::Writer(_) => {
                batches::check_parquet(&self.input, self.format, &self.select)
            }
            Output::Batches(_) => batches::check_batches(&self.input, self.format, &self.select),
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
        let (keys, mut repeated_headers) = (self.keys(), 0);
        let pass = self.read(progress, |block| {
            let visited = keys.visit(block, |_, entry| match entry {
                Entry::Row(found) => row(found.key()).map_err(Stop::Visitor),
                Entry::HeaderAgain => {
                    repeated_headers += 1;
                    Ok(())
                }
            });
            visited.map_err(|stop| match stop {
                Stop::Visitor(error) => error,
                Stop::Misfit(misfit) => self.refuse(misfit).into(),
            })
        })?;
        Ok(pass.counts(repeated_headers))
    }

    /// How to find the key fields in a block.
    pub(crate) fn keys(&self) -> Keys {
        if self.format.is_text() {
            let header = self.header_rows();
            return Keys {
                layout: self.layout(),
                header,
                names: if header > 0 { self.columns.clone() } else { Vec::new() },
                columns: self.key.clone(),
            };
        }
        let layout = Layout::new(self.format, Some(self.key.len()));
        Keys { layout, header: 0, names: Vec::new(), columns: self.key.clone() }
    }

    /// Reads the table in blocks, in input order. `progress` works as in [`Table::scan`].
    ///
    /// # Errors
    /// As for [`Table::scan`], except for what [`Keys::visit`] finds.
    pub(crate) fn read<E: From<TableError>>(
        &self,
        mut progress: impl FnMut(u64),
        mut visit: impl FnMut(&mut Block) -> Result<(), E>,
    ) -> Result<Pass, E> {
        self.input.check_unchanged()?;
        if !self.format.is_text() {
            let rows = batches::read(&self.input, self.format, &self.batch_key, progress, visit)?;
            self.input.check_unchanged()?;
            return Ok(Pass { rows, notes: TextNotes::default() });
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
        let rows = rows.saturating_sub(self.header_rows());
        Ok(Pass { rows, notes: reader.notes() })
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
        let again = self.header_again();
        let (mut header_due, mut kept) = (header > 0 && !named, 0);
        let pass = self.read::<E>(progress, |block| {
            layout.write_kept(
                block,
                fields,
                |_| changed().into(),
                |row| {
                    let Some(row) = row.checked_sub(header) else { return Ok(!named) };
                    if row >= scanned.numbered() {
                        return Err(changed().into());
                    }
                    keep(row)
                },
                |whole| {
                    if std::mem::take(&mut header_due) {
                        return Ok(sheet.write(&whole)?);
                    }
                    if again.is(&whole) {
                        return Ok(());
                    }
                    kept += 1;
                    Ok(sheet.write(&whole)?)
                },
            )
        })?;
        if (pass.rows, pass.notes) != (scanned.numbered(), scanned.notes) {
            return Err(changed().into());
        }
        Ok(Written { rows: kept, bytes: sheet.complete()? })
    }

    /// The error for a row that differs from the others in shape.
    pub(crate) fn refuse(&self, misfit: Misfit) -> TableError {
        let line = source::line_at(&self.input, self.start.offset + misfit.offset).ok();
        TableError::at(self.path(), line, misfit.fault)
    }

    fn error(&self, fault: Fault) -> TableError {
        TableError::new(self.path(), fault)
    }

    fn layout(&self) -> Layout {
        Layout::new(self.format, Some(self.columns.len()))
    }

    fn header_again(&self) -> HeaderAgain<'_> {
        let names = if self.header_rows() > 0 { &*self.columns } else { &[] };
        let delimiter = self.format.dialect().map_or(',', |dialect| char::from(dialect.delimiter));
        HeaderAgain { names, line: names.join(&delimiter.to_string()) }
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

/// Where the rows of a text begin.
fn text_start(input: &Input, format: Format) -> Result<Start, TableError> {
    let head = input.head(signature::SIGNATURE_BYTES)?;
    let other = signature::binary(&head);
    let other = other.or_else(|| (format != Format::Lines).then(|| signature::text(&head))?);
    match other {
        Some(fault) => Err(TableError::new(input.path(), fault)),
        None => Ok(Start::of(&head, format)),
    }
}

impl Counts {
    /// How many rows and repeated headers are numbered.
    pub(crate) fn numbered(&self) -> u64 {
        self.rows + self.repeated_headers
    }
}

/// What a pass over a table read.
#[derive(Clone, Copy)]
pub(crate) struct Pass {
    /// Rows and repeated headers, without the first.
    pub(crate) rows: u64,
    notes: TextNotes,
}

impl Pass {
    /// The counts, with what whoever examined the rows found.
    pub(crate) fn counts(self, repeated_headers: u64) -> Counts {
        let rows = self.rows.saturating_sub(repeated_headers);
        Counts { rows, repeated_headers, notes: self.notes }
    }
}

/// Recognises records that repeat the header, among those that are kept.
struct HeaderAgain<'t> {
    names: &'t [String],
    /// The header as a line without quotes.
    line: String,
}

impl HeaderAgain<'_> {
    #[inline]
    fn is(&self, whole: &Whole<'_>) -> bool {
        match whole {
            _ if self.names.is_empty() => false,
            // Nearly all lines differ in length already.
            Whole::Line(line) if line.len().wrapping_sub(self.line.len()) <= 2 => line
                .strip_prefix(self.line.as_bytes())
                .is_some_and(|end| matches!(end, b"" | b"\n" | b"\r\n" | b"\r")),
            Whole::Line(_) => false,
            Whole::Row(Row { fields, .. }) => repeats(fields, self.names),
        }
    }
}

fn repeats(fields: &Fields<'_>, names: &[String]) -> bool {
    fields.all().eq(names.iter().map(String::as_str))
}

/// Whether a record with this value in its key is what programs write with a header and no row: a ruler
/// of dashes under it, `sep=;` before it, or, in a table of one column, how many rows the file before
/// it had.
#[inline]
fn belongs_to_header(value: &str, fields: &Fields<'_>) -> bool {
    match value.as_bytes() {
        [b'-', b'-', ..] => is_ruler(fields),
        [b's' | b'S', _, _, b'=', ..] => is_told_delimiter(fields),
        [b'(', .., b')'] => fields.all().count() == 1 && ending::is_footer(value),
        _ => false,
    }
}

#[cold]
fn is_ruler(fields: &Fields<'_>) -> bool {
    fields.all().all(|field| !field.is_empty() && field.bytes().all(|byte| byte == b'-'))
}

#[cold]
fn is_told_delimiter(fields: &Fields<'_>) -> bool {
    let mut fields = fields.all();
    let told = |field: &str| {
        field.get(..4).is_some_and(|told| told.eq_ignore_ascii_case("sep=")) && field.len() <= 5
    };
    fields.next().is_some_and(told) && fields.all(str::is_empty)
}

/// Finds the key fields in the blocks of one table.
#[derive(Clone)]
pub(crate) struct Keys {
    layout: Layout,
    header: u64,
    /// The header; empty without one.
    names: Vec<String>,
    columns: Vec<usize>,
}

/// Where a row is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Its number, from 0 and without the header.
    pub(crate) row: u64,
    /// The line where it begins, from 1; 0 for batches.
    pub(crate) line: u64,
}

/// What is at a place.
pub(crate) enum Entry<'r> {
    Row(&'r KeyRow<'r>),
    /// A record that repeats the header.
    HeaderAgain,
}

impl Keys {
    /// Passes on what every row below the header is, and where.
    #[inline]
    pub(crate) fn visit<E>(
        &self,
        block: &Block,
        mut visit: impl FnMut(Place, Entry<'_>) -> Result<(), Stop<E>>,
    ) -> Result<(), Stop<E>> {
        let first =
            self.columns.first().and_then(|column| Some((*column, self.names.get(*column)?)));
        self.layout.visit(block, Stop::Misfit, |Row { number, line, fields, .. }| {
            let Some(row) = number.checked_sub(self.header) else { return Ok(()) };
            let line = *line;
            let again = first.is_some_and(|(column, name)| {
                let value = fields.get(column);
                (value == name && repeats(fields, &self.names)) || belongs_to_header(value, fields)
            });
            let found = KeyRow { fields, columns: &self.columns };
            visit(Place { row, line }, if again { Entry::HeaderAgain } else { Entry::Row(&found) })
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
