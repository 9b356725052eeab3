//! Rows of text on their way out: as lines, as CSV, or as columns of text.

use std::io::{self, Write as _};
use std::sync::Arc;

use arrow_array::builder::StringBuilder;
use arrow_array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow_schema::{DataType, Field, Schema, SchemaRef};

use super::batches;
use super::block::{Fields, Row, Whole};
use super::error::TableError;
use super::format::Format;
use super::input::Input;
use super::output::{Draft, Opened, Output, is_parquet};
use crate::limits::{BATCH_ROWS, TABLE_BUFFER_BYTES};

/// Rows of text on their way to an output, with all their columns or those of `select`.
pub(super) struct Sheet<'w> {
    to: To<'w>,
    /// The columns to write, counted from 0; empty for all.
    select: Vec<usize>,
}

enum To<'w> {
    /// Lines, or CSV with this delimiter.
    Text(Draft<'w>, u8),
    /// Columns of text, as Parquet or for a receiver of batches.
    Columns(Columns<'w>),
}

impl<'w> Sheet<'w> {
    pub(super) fn new(
        output: Output<'w>,
        input: &Input,
        format: Format,
        names: &[String],
        select: &[usize],
    ) -> Result<Self, TableError> {
        let columns = match &output {
            Output::Batches(_) => true,
            Output::File(path) => format != Format::Lines && is_parquet(path),
            Output::Writer(_) => false,
        };
        let to = if columns {
            let text = |name: &String| Field::new(name, DataType::Utf8, false);
            let fields: Vec<Field> = match select {
                [] => names.iter().map(text).collect(),
                select => select.iter().map(|column| text(&names[*column])).collect(),
            };
            let builders = fields.iter().map(|_| StringBuilder::new()).collect();
            let schema = Arc::new(Schema::new(fields));
            let sheet = batches::Sheet::new(output, input, Arc::clone(&schema))?;
            To::Columns(Columns { sheet, schema, builders, rows: 0, bytes: 0 })
        } else {
            let delimiter = format.dialect().map_or(b',', |dialect| dialect.delimiter);
            match output.open(input, format)? {
                Opened::Bytes(draft) => To::Text(draft, delimiter),
                Opened::Batches(_) => unreachable!("that is for columns"),
            }
        };
        Ok(Self { to, select: select.to_vec() })
    }

    /// Whether every row has to be split into its fields.
    pub(super) fn wants_fields(&self) -> bool {
        !self.select.is_empty() || self.names_columns()
    }

    /// Whether the columns get their names in another way than as a row.
    pub(super) fn names_columns(&self) -> bool {
        matches!(self.to, To::Columns(_))
    }

    #[inline]
    pub(super) fn write(&mut self, row: &Whole<'_>) -> Result<(), TableError> {
        match (&mut self.to, row) {
            (To::Text(draft, _), Whole::Line(line)) => {
                whole(draft, line).map_err(|error| draft.error(error))
            }
            (To::Text(draft, delimiter), Whole::Row(row)) => {
                let written = match &*self.select {
                    [] => whole(draft, row.whole),
                    select => selected(draft, row, *delimiter, select),
                };
                written.map_err(|error| draft.error(error))
            }
            (To::Columns(columns), Whole::Row(row)) => columns.add(&row.fields, &self.select),
            (To::Columns(_), Whole::Line(_)) => unreachable!("the fields were asked for"),
        }
    }

    /// Completes the output; returns the number of bytes written, 0 for batches.
    pub(super) fn complete(self) -> Result<u64, TableError> {
        match self.to {
            To::Text(draft, _) => draft.complete(),
            To::Columns(mut columns) => {
                columns.flush()?;
                columns.sheet.complete()
            }
        }
    }
}

/// Writes a row as it was read. Only the last row of a file can be without a line end.
#[inline]
fn whole(draft: &mut Draft<'_>, row: &[u8]) -> io::Result<()> {
    draft.write_all(row)?;
    if matches!(row, [.., b'\n' | b'\r']) { Ok(()) } else { draft.write_all(b"\n") }
}

/// Writes some fields of a row, each as it was read, and the row's line end.
fn selected(
    draft: &mut Draft<'_>,
    row: &Row<'_>,
    delimiter: u8,
    select: &[usize],
) -> io::Result<()> {
    for (number, column) in select.iter().enumerate() {
        if number > 0 {
            draft.write_all(&[delimiter])?;
        }
        draft.write_all(row.fields.raw(*column).as_bytes())?;
    }
    if let [one] = select
        && row.fields.raw(*one).is_empty()
    {
        // An empty line would be no row.
        draft.write_all(b"\"\"")?;
    }
    let ends = row.whole.iter().rev().take_while(|byte| matches!(byte, b'\n' | b'\r')).count();
    let (_, end) = row.whole.split_at(row.whole.len() - ends);
    draft.write_all(if end.is_empty() { b"\n" } else { end })
}

/// Passes on the chosen fields, each with its position among them.
#[inline]
fn each<E>(
    fields: &Fields<'_>,
    select: &[usize],
    mut each: impl FnMut(usize, &str) -> Result<(), E>,
) -> Result<(), E> {
    if select.is_empty() {
        return fields.all().enumerate().try_for_each(|(number, field)| each(number, field));
    }
    let mut columns = select.iter().enumerate();
    columns.try_for_each(|(number, column)| each(number, fields.get(*column)))
}

/// Columns of text that grow until they fill a batch.
struct Columns<'w> {
    sheet: batches::Sheet<'w>,
    schema: SchemaRef,
    builders: Vec<StringBuilder>,
    rows: usize,
    bytes: usize,
}

impl Columns<'_> {
    fn add(&mut self, fields: &Fields<'_>, select: &[usize]) -> Result<(), TableError> {
        each(fields, select, |number, field| {
            self.builders[number].append_value(field);
            self.bytes += field.len();
            Ok(())
        })?;
        self.rows += 1;
        if self.rows < BATCH_ROWS && self.bytes < TABLE_BUFFER_BYTES {
            return Ok(());
        }
        self.flush()
    }

    fn flush(&mut self) -> Result<(), TableError> {
        let finished = self.builders.iter_mut().map(|column| Arc::new(column.finish()) as ArrayRef);
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows));
        let schema = Arc::clone(&self.schema);
        let batch = RecordBatch::try_new_with_options(schema, finished.collect(), &options);
        (self.rows, self.bytes) = (0, 0);
        self.sheet.write(&batch.expect("every column has as many rows"))
    }
}
