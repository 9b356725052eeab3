//! Tables of batches, that is Parquet files and Arrow streams: the key columns of every row as
//! text, and the matched rows unchanged.
//!
//! A key column holds text or whole numbers; numbers count as their decimal digits. A null counts
//! as blank, and a dictionary entry as its value. Matched rows keep their columns' types, with one
//! exception: Parquet has no time zone for timestamps in seconds, so it becomes UTC; the instant
//! stays the same.

use std::fmt::{Display, Write as _};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::cast::AsArray as _;
use arrow_array::types::{
    Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchReader, new_null_array};
use arrow_ipc::reader::StreamReader;
use arrow_schema::{ArrowError, DataType, Field, Fields, Schema, SchemaRef};
use arrow_select::filter::filter_record_batch;
use arrow_select::take::take;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::arrow::{ArrowWriter, ProjectionMask};
use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;

use super::arrow_stream;
use super::block::Block;
use super::error::{Fault, TableError};
use super::format::Format;
use super::input::Input;
use super::output::{BatchSink, Draft, Opened, Output};
use crate::limits::{BATCH_ROWS, PARQUET_GROUP_ROWS};

type Builder = ParquetRecordBatchReaderBuilder<std::fs::File>;

/// The names of the columns.
pub(super) fn columns(input: &Input, format: Format) -> Result<Vec<String>, TableError> {
    let schema = schema(input, format, true)?;
    Ok(schema.fields().iter().map(|field| field.name().clone()).collect())
}

/// Refuses key columns that are neither text nor whole numbers.
pub(super) fn check_keys(input: &Input, format: Format, key: &[usize]) -> Result<(), TableError> {
    let schema = schema(input, format, true)?;
    for column in key {
        let field = schema.field(*column);
        if !is_key(field.data_type()) {
            let (column, found) = (field.name().clone(), field.data_type().to_string());
            return Err(TableError::new(input.path(), Fault::KeyType { column, found }));
        }
    }
    Ok(())
}

/// Checks, by writing a row of nulls, whether the columns can be written as Parquet.
pub(super) fn check_parquet(
    input: &Input,
    format: Format,
    select: &[usize],
) -> Result<(), TableError> {
    let (_, schema) = selected(input, format, select)?;
    let nullable = |field: &Arc<_>| Field::clone(field).with_nullable(true);
    let fields: Fields = schema.fields().iter().map(nullable).collect();
    let columns = fields.iter().map(|field| new_null_array(field.data_type(), 1)).collect();
    let schema = Arc::new(Schema::new(fields));
    let refuse = |error: String| TableError::new(input.path(), Fault::OutputColumns { error });
    // The library panics on these.
    let unions = |field: &&Field| matches!(field.data_type(), DataType::Union(..));
    if let Some(field) = schema.flattened_fields().into_iter().find(unions) {
        return Err(refuse(format!("\"{}\" has type {}", field.name(), field.data_type())));
    }
    let row = RecordBatch::try_new(Arc::clone(&schema), columns);
    let row = row.map_err(|error| refuse(error.to_string()))?;
    let written = ArrowWriter::try_new(io::sink(), schema, None).and_then(|mut writer| {
        writer.write(&row)?;
        writer.close()
    });
    written.map(drop).map_err(|error| refuse(error.to_string()))
}

/// Passes blocks of rows on. Their fields are the key's columns, in the key's order. Returns the
/// number of rows. `progress` gets the number of bytes read.
pub(super) fn read<E: From<TableError>>(
    input: &Input,
    format: Format,
    key: &[usize],
    progress: impl FnMut(u64),
    mut visit: impl FnMut(&mut Block) -> Result<(), E>,
) -> Result<u64, E> {
    let mut block = Block::default();
    // Without the Arrow schema that a Parquet file may contain, types are plain: text is not a
    // dictionary.
    each_batch(input, format, key, true, progress, |first, batch| {
        put(&batch, first, &mut block).map_err(|error| damaged(input, format, &error))?;
        visit(&mut block)
    })
}

/// Writes the rows that `keep` selects, with all their columns or those of `select`. Returns how
/// many rows were read, how many were written, and the output, which is not complete yet.
pub(super) fn copy<'w, E: From<TableError>>(
    input: &Input,
    format: Format,
    select: &[usize],
    output: Output<'w>,
    progress: impl FnMut(u64),
    mut keep: impl FnMut(u64) -> Result<bool, E>,
) -> Result<(u64, u64, Sheet<'w>), E> {
    let (columns, schema) = selected(input, format, select)?;
    let mut sheet = Sheet::new(output, input, Arc::clone(&schema))?;
    let mut kept = 0;
    let rows = each_batch::<E>(input, format, &columns, false, progress, |first, batch| {
        let wanted =
            (first..).take(batch.num_rows()).map(&mut keep).collect::<Result<Vec<_>, E>>()?;
        let matched = filter_record_batch(&batch, &BooleanArray::from(wanted))
            .and_then(|matched| matched.with_schema(Arc::clone(&schema)))
            .map_err(|error| damaged(input, format, &error))?;
        kept += matched.num_rows() as u64;
        Ok(sheet.write(&matched)?)
    })?;
    Ok((rows, kept, sheet))
}

/// Rows on their way to an output.
pub(super) enum Sheet<'w> {
    Parquet(Box<ArrowWriter<Draft<'w>>>, PathBuf),
    Batches(BatchSink<'w>),
}

impl<'w> Sheet<'w> {
    fn new(output: Output<'w>, input: &Input, schema: SchemaRef) -> Result<Self, TableError> {
        let draft = match output.open(input, Format::Parquet)? {
            Opened::Batches(give) => return Ok(Self::Batches(BatchSink::new(give, schema))),
            Opened::Bytes(draft) => draft,
        };
        let path = draft.path().to_owned();
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_max_row_group_row_count(Some(PARQUET_GROUP_ROWS))
            .build();
        match ArrowWriter::try_new(draft, schema, Some(properties)) {
            Ok(writer) => Ok(Self::Parquet(Box::new(writer), path)),
            Err(error) => Err(unwritten(&path, error)),
        }
    }

    fn write(&mut self, batch: &RecordBatch) -> Result<(), TableError> {
        match self {
            Self::Parquet(writer, path) => {
                writer.write(batch).map_err(|error| unwritten(path, error))
            }
            Self::Batches(sink) => sink.give(arrow_stream::compact(batch)),
        }
    }

    /// Completes the output; returns the number of bytes written, 0 for batches.
    pub(super) fn complete(self) -> Result<u64, TableError> {
        match self {
            Self::Parquet(writer, path) => {
                writer.into_inner().map_err(|error| unwritten(&path, error))?.complete()
            }
            Self::Batches(sink) => sink.complete().map(|()| 0),
        }
    }
}

fn unwritten(path: &Path, error: ParquetError) -> TableError {
    let error = match error {
        ParquetError::External(cause) => {
            cause.downcast().map_or_else(io::Error::other, |error: Box<io::Error>| *error)
        }
        other => io::Error::other(other),
    };
    TableError::new(path, Fault::Write(error))
}

/// The columns of the whole table. With `plain`, a Parquet file's types have no dictionaries.
fn schema(input: &Input, format: Format, plain: bool) -> Result<SchemaRef, TableError> {
    Ok(match format {
        Format::Arrow => arrow(input, None)?.schema(),
        _ => Arc::clone(parquet(input, plain)?.schema()),
    })
}

/// The columns of `select`, or all of them: their numbers, and their schema.
fn selected(
    input: &Input,
    format: Format,
    select: &[usize],
) -> Result<(Vec<usize>, SchemaRef), TableError> {
    let schema = schema(input, format, false)?;
    let columns: Vec<usize> = match select {
        [] => (0..schema.fields().len()).collect(),
        select => select.to_vec(),
    };
    let selected = schema.project(&columns).map_err(|error| damaged(input, format, &error))?;
    Ok((columns, Arc::new(selected)))
}

fn arrow(
    input: &Input,
    columns: Option<Vec<usize>>,
) -> Result<StreamReader<impl io::Read + '_>, TableError> {
    let bytes = input.read().map_err(|error| input.error(error))?;
    unharmed(input, Format::Arrow, || StreamReader::try_new_buffered(bytes, columns))
}

fn parquet(input: &Input, plain: bool) -> Result<Builder, TableError> {
    let file = input.file()?;
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(plain);
    let open = || ParquetRecordBatchReaderBuilder::try_new_with_options(file, options);
    unharmed(input, Format::Parquet, open)
}

/// Runs the library and turns its errors into ours, even panics: it panics on some damaged files.
fn unharmed<T, E: Display>(
    input: &Input,
    format: Format,
    work: impl FnOnce() -> Result<T, E>,
) -> Result<T, TableError> {
    // Nothing that a panic leaves behind is used again.
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(done) => done.map_err(|error| damaged(input, format, &error)),
        Err(_) => Err(damaged(input, format, &"it is damaged")),
    }
}

/// Reads the columns in this order, some rows at a time. Each batch comes with the number of its
/// first row. Returns the number of rows. `progress` gets the number of bytes read.
fn each_batch<E: From<TableError>>(
    input: &Input,
    format: Format,
    columns: &[usize],
    plain: bool,
    mut progress: impl FnMut(u64),
    mut each: impl FnMut(u64, RecordBatch) -> Result<(), E>,
) -> Result<u64, E> {
    // The library reads columns in table order, and each once.
    let mut present = columns.to_vec();
    present.sort_unstable();
    present.dedup();
    let place = |column: &usize| present.binary_search(column).unwrap_or(0);
    let places: Vec<usize> = columns.iter().map(place).collect();
    let (mut batches, total): (Box<dyn RecordBatchReader + '_>, u64) = if format == Format::Arrow {
        (Box::new(arrow(input, Some(present))?), 0)
    } else {
        let builder = parquet(input, plain)?;
        let total = u64::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or(0);
        let mask = ProjectionMask::roots(builder.parquet_schema(), present);
        let builder = builder.with_projection(mask).with_batch_size(BATCH_ROWS);
        (Box::new(unharmed(input, format, || builder.build())?), total)
    };
    let (size, mut rows) = (input.size(), 0);
    while let Some(batch) = unharmed(input, format, || batches.next().transpose())? {
        let batch = batch.project(&places).map_err(|error| damaged(input, format, &error))?;
        let first = rows;
        rows += batch.num_rows() as u64;
        each(first, batch)?;
        progress(match format {
            Format::Arrow => input.done(),
            _ => share(size, rows, total),
        });
    }
    progress(size);
    Ok(rows)
}

/// Converts progress in rows to progress in bytes of a file of this size.
fn share(size: u64, rows: u64, total: u64) -> u64 {
    let share = u128::from(size) * u128::from(rows) / u128::from(total.max(1));
    u64::try_from(share).unwrap_or(size)
}

fn damaged(input: &Input, format: Format, error: &dyn Display) -> TableError {
    TableError::new(input.path(), fault(format, error))
}

fn fault(format: Format, error: &dyn Display) -> Fault {
    let format = if format == Format::Arrow { "Arrow" } else { "Parquet" };
    Fault::Batches { format, error: error.to_string() }
}

fn is_key(kind: &DataType) -> bool {
    let plain = match kind {
        DataType::Dictionary(_, values) => values,
        kind => kind,
    };
    plain.is_integer() || matches!(plain, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

/// Puts the fields of a batch into a block, row by row.
fn put(batch: &RecordBatch, first: u64, block: &mut Block) -> Result<(), ArrowError> {
    let columns = batch.columns().iter().map(|column| match column.as_any_dictionary_opt() {
        Some(dictionary) => take(dictionary.values(), dictionary.keys(), None),
        None => Ok(Arc::clone(column)),
    });
    let columns = columns.collect::<Result<Vec<ArrayRef>, _>>()?;
    (block.first, block.offset, block.count) = (first, 0, batch.num_rows() as u64);
    let mut text = std::mem::take(&mut block.text);
    text.clear();
    block.ends.clear();
    for row in 0..batch.num_rows() {
        for column in &columns {
            if column.is_valid(row) {
                field(column, row, &mut text);
            }
            block.ends.push(text.len());
        }
    }
    block.text = text;
    Ok(())
}

/// Appends one field; a null appends nothing.
fn field(column: &dyn Array, row: usize, text: &mut String) {
    macro_rules! number {
        ($kind:ty) => {
            write!(text, "{}", column.as_primitive::<$kind>().value(row))
        };
    }
    let written = match column.data_type() {
        DataType::Utf8 => text.write_str(column.as_string::<i32>().value(row)),
        DataType::LargeUtf8 => text.write_str(column.as_string::<i64>().value(row)),
        DataType::Utf8View => text.write_str(column.as_string_view().value(row)),
        DataType::Int8 => number!(Int8Type),
        DataType::Int16 => number!(Int16Type),
        DataType::Int32 => number!(Int32Type),
        DataType::Int64 => number!(Int64Type),
        DataType::UInt8 => number!(UInt8Type),
        DataType::UInt16 => number!(UInt16Type),
        DataType::UInt32 => number!(UInt32Type),
        DataType::UInt64 => number!(UInt64Type),
        _ => unreachable!("key columns are checked when the table is opened"),
    };
    written.expect("a text takes everything");
}
