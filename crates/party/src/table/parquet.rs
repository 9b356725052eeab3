//! Parquet files: the key columns of every row as text, and the rows that matched as they are.
//!
//! A key column holds text or whole numbers; the latter count as their decimal digits. A null is a blank.
//! Matched rows keep their columns' types, but for the time zone of a timestamp in seconds, which Parquet does
//! not have: it becomes UTC, and the instant stays.

use std::fmt::{Display, Write as _};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use arrow_array::cast::AsArray as _;
use arrow_array::types::{
    Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, BooleanArray, RecordBatch};
use arrow_schema::DataType;
use arrow_select::filter::filter_record_batch;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::arrow::{ArrowWriter, ProjectionMask};
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;

use super::block::Block;
use super::error::{Fault, TableError};
use super::input::Input;
use super::output::Draft;
use crate::limits::{PARQUET_BATCH_ROWS, PARQUET_GROUP_ROWS};

type Builder = ParquetRecordBatchReaderBuilder<std::fs::File>;

/// The names of the columns.
pub(super) fn columns(input: &Input) -> Result<Vec<String>, TableError> {
    let builder = open(input, true)?;
    Ok(builder.schema().fields().iter().map(|field| field.name().clone()).collect())
}

/// Refuses key columns that are neither text nor whole numbers.
pub(super) fn check_keys(input: &Input, key: &[usize]) -> Result<(), TableError> {
    let builder = open(input, true)?;
    for column in key {
        let field = builder.schema().field(*column);
        if !is_key(field.data_type()) {
            let (column, found) = (field.name().clone(), field.data_type().to_string());
            return Err(TableError::new(input.path(), Fault::KeyType { column, found }));
        }
    }
    Ok(())
}

/// Gives blocks of rows whose fields are those of the key's columns, in the key's order; how many rows
/// there were. `progress` gets how many rows of how many are read.
pub(super) fn read<E: From<TableError>>(
    input: &Input,
    key: &[usize],
    mut progress: impl FnMut(u64, u64),
    mut visit: impl FnMut(&mut Block) -> Result<(), E>,
) -> Result<u64, E> {
    // Without the Arrow schema that may be beside it, types are plain: text is no dictionary.
    let builder = open(input, true)?;
    let (total, mut block, mut rows) = (rows_of(&builder), Block::default(), 0);
    each_batch::<E>(input, builder, key, |batch| {
        put(&batch, rows, &mut block);
        rows += batch.num_rows() as u64;
        visit(&mut block)?;
        progress(rows, total);
        Ok(())
    })?;
    Ok(rows)
}

/// Writes the rows that `keep` wants, all their columns or those of `select`; how many were read, and how
/// many written.
pub(super) fn copy<E: From<TableError>>(
    input: &Input,
    select: &[usize],
    draft: &mut Draft<'_>,
    mut progress: impl FnMut(u64, u64),
    mut keep: impl FnMut(u64) -> Result<bool, E>,
) -> Result<(u64, u64), E> {
    let builder = open(input, false)?;
    let columns: Vec<usize> = match select {
        [] => (0..builder.schema().fields().len()).collect(),
        select => select.to_vec(),
    };
    let schema = builder.schema().project(&columns).map_err(|error| damaged(input, &error))?;
    let properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_max_row_group_row_count(Some(PARQUET_GROUP_ROWS))
        .build();
    let made = Made::default();
    let mut writer = ArrowWriter::try_new(made.clone(), Arc::new(schema), Some(properties))
        .map_err(|error| draft.error(io::Error::other(error)))?;
    let (total, mut rows, mut kept) = (rows_of(&builder), 0, 0);
    each_batch::<E>(input, builder, &columns, |batch| {
        let wanted =
            (rows..).take(batch.num_rows()).map(&mut keep).collect::<Result<Vec<_>, E>>()?;
        let matched = filter_record_batch(&batch, &BooleanArray::from(wanted))
            .map_err(|error| damaged(input, &error))?;
        writer.write(&matched).map_err(|error| draft.error(io::Error::other(error)))?;
        draft.put(&made.take())?;
        rows += batch.num_rows() as u64;
        kept += matched.num_rows() as u64;
        progress(rows, total);
        Ok(())
    })?;
    writer.close().map_err(|error| draft.error(io::Error::other(error)))?;
    draft.put(&made.take())?;
    Ok((rows, kept))
}

fn open(input: &Input, plain: bool) -> Result<Builder, TableError> {
    let file = input.file()?;
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(plain);
    unharmed(input, || ParquetRecordBatchReaderBuilder::try_new_with_options(file, options))
}

/// What the library says, also where it panics: it does for some damaged files.
fn unharmed<T, E: Display>(
    input: &Input,
    work: impl FnOnce() -> Result<T, E>,
) -> Result<T, TableError> {
    // What a panic leaves behind is not used again.
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(done) => done.map_err(|error| damaged(input, &error)),
        Err(_) => Err(damaged(input, &"the file is damaged")),
    }
}

fn rows_of(builder: &Builder) -> u64 {
    u64::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or(0)
}

/// Reads the columns in this order, some rows at a time.
fn each_batch<E: From<TableError>>(
    input: &Input,
    builder: Builder,
    columns: &[usize],
    mut each: impl FnMut(RecordBatch) -> Result<(), E>,
) -> Result<(), E> {
    let mask = ProjectionMask::roots(builder.parquet_schema(), columns.iter().copied());
    // What is read is in the order of the file, and each once.
    let mut present = columns.to_vec();
    present.sort_unstable();
    present.dedup();
    let place = |column: &usize| present.binary_search(column).unwrap_or(0);
    let places: Vec<usize> = columns.iter().map(place).collect();
    let builder = builder.with_projection(mask).with_batch_size(PARQUET_BATCH_ROWS);
    let mut batches = unharmed(input, || builder.build())?;
    while let Some(batch) = unharmed(input, || batches.next().transpose())? {
        each(batch.project(&places).map_err(|error| damaged(input, &error))?)?;
    }
    Ok(())
}

fn damaged(input: &Input, error: &dyn Display) -> TableError {
    TableError::new(input.path(), Fault::Parquet { error: error.to_string() })
}

fn is_key(kind: &DataType) -> bool {
    kind.is_integer() || matches!(kind, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

/// Puts the fields of a batch into a block, row by row.
fn put(batch: &RecordBatch, first: u64, block: &mut Block) {
    (block.first, block.offset, block.count) = (first, 0, batch.num_rows() as u64);
    let mut text = std::mem::take(&mut block.text);
    text.clear();
    block.ends.clear();
    for row in 0..batch.num_rows() {
        for column in batch.columns() {
            if column.is_valid(row) {
                field(column, row, &mut text);
            }
            block.ends.push(text.len());
        }
    }
    block.text = text;
}

/// Appends one field, which is none of a null.
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

/// What the writer has made: it wants to be sent between threads, and an output need not be.
#[derive(Clone, Default)]
struct Made(Arc<Mutex<Vec<u8>>>);

impl Made {
    fn take(&self) -> Vec<u8> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl io::Write for Made {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
