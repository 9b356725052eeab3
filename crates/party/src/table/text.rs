//! Rows of text on their way out: as lines, as CSV, or as columns of text.

use std::io::{self, Write as _};
use std::sync::Arc;

use arrow_array::builder::StringBuilder;
use arrow_array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow_schema::{DataType, Field, Schema};
use csv_core::WriteResult;

use super::block::{Fields, Whole};
use super::error::TableError;
use super::format::Format;
use super::input::Input;
use super::output::{BatchSink, Draft, Opened, Output};
use crate::limits::{BATCH_ROWS, TABLE_BUFFER_BYTES};

/// Rows of text on their way to an output, with all their columns or those of `select`.
pub(super) struct Sheet<'w> {
    to: To<'w>,
    /// The columns to write, counted from 0; empty for all.
    select: Vec<usize>,
}

enum To<'w> {
    /// Lines, or CSV through this writer.
    Text(Draft<'w>, Option<Box<csv_core::Writer>>),
    Batches(Columns<'w>),
}

impl<'w> Sheet<'w> {
    pub(super) fn new(
        output: Output<'w>,
        input: &Input,
        format: Format,
        names: &[String],
        select: &[usize],
    ) -> Result<Self, TableError> {
        let to = match (output.open(input, format)?, format) {
            (Opened::Bytes(draft), Format::Csv { delimiter, .. }) => {
                let csv = csv_core::WriterBuilder::new().delimiter(delimiter).build();
                To::Text(draft, Some(Box::new(csv)))
            }
            (Opened::Bytes(draft), _) => To::Text(draft, None),
            (Opened::Batches(give), _) => {
                let text = |name: &String| Field::new(name, DataType::Utf8, false);
                let fields: Vec<Field> = match select {
                    [] => names.iter().map(text).collect(),
                    select => select.iter().map(|column| text(&names[*column])).collect(),
                };
                let builders = fields.iter().map(|_| StringBuilder::new()).collect();
                let sink = BatchSink::new(give, Arc::new(Schema::new(fields)));
                To::Batches(Columns { sink, builders, rows: 0, bytes: 0 })
            }
        };
        Ok(Self { to, select: select.to_vec() })
    }

    /// Whether every row has to be split into its fields.
    pub(super) fn wants_fields(&self) -> bool {
        !self.select.is_empty() || self.names_columns()
    }

    /// Whether the columns get their names without the header.
    pub(super) fn names_columns(&self) -> bool {
        matches!(self.to, To::Batches(_))
    }

    #[inline]
    pub(super) fn write(&mut self, row: &Whole<'_>) -> Result<(), TableError> {
        match (&mut self.to, row) {
            (To::Text(draft, _), Whole::Line(line)) => {
                let written = draft.write_all(line.as_bytes());
                written.and_then(|()| draft.write_all(b"\n")).map_err(|error| draft.error(error))
            }
            (To::Text(draft, csv), Whole::Record(fields)) => {
                let csv = csv.as_mut().expect("only a CSV file has records");
                let written = record(draft, csv, *fields, &self.select);
                written.map_err(|error| draft.error(error))
            }
            (To::Batches(columns), Whole::Record(fields)) => columns.add(*fields, &self.select),
            (To::Batches(_), Whole::Line(_)) => unreachable!("the fields were asked for"),
        }
    }

    /// Completes the output; returns the number of bytes written, 0 for batches.
    pub(super) fn complete(self) -> Result<u64, TableError> {
        match self.to {
            To::Text(draft, _) => draft.complete(),
            To::Batches(mut columns) => {
                columns.flush()?;
                columns.sink.complete().map(|()| 0)
            }
        }
    }
}

fn record(
    draft: &mut Draft<'_>,
    csv: &mut csv_core::Writer,
    fields: Fields<'_>,
    select: &[usize],
) -> io::Result<()> {
    let mut quoted = [0; 1024];
    each(fields, select, |number, field| {
        if number > 0 {
            let (_, written) = csv.delimiter(&mut quoted);
            draft.write_all(&quoted[..written])?;
        }
        let mut rest = field.as_bytes();
        loop {
            let (result, read, written) = csv.field(rest, &mut quoted);
            draft.write_all(&quoted[..written])?;
            rest = &rest[read..];
            if result == WriteResult::InputEmpty {
                return Ok::<_, io::Error>(());
            }
        }
    })?;
    let (_, written) = csv.terminator(&mut quoted);
    draft.write_all(&quoted[..written])
}

/// Passes on the chosen fields, each with its position among them.
#[inline]
fn each<E>(
    fields: Fields<'_>,
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
    sink: BatchSink<'w>,
    builders: Vec<StringBuilder>,
    rows: usize,
    bytes: usize,
}

impl Columns<'_> {
    fn add(&mut self, fields: Fields<'_>, select: &[usize]) -> Result<(), TableError> {
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
        let schema = Arc::clone(self.sink.schema());
        let batch = RecordBatch::try_new_with_options(schema, finished.collect(), &options);
        (self.rows, self.bytes) = (0, 0);
        self.sink.give(batch)
    }
}
