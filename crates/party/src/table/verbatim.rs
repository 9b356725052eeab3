//! Rows of Parquet that are written as they were read: values and levels are copied column by column
//! under the same schema. Nothing is converted, so there is no type that a conversion could change.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::arrow::{ARROW_SCHEMA_META_KEY, encode_arrow_schema};
use parquet::basic::{Compression, Type as Physical};
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::column::writer::{ColumnWriter, ColumnWriterImpl};
use parquet::data_type::DataType;
use parquet::errors::ParquetError;
use parquet::file::metadata::{KeyValue, ParquetMetaData, ParquetMetaDataReader};
use parquet::file::properties::WriterProperties;
use parquet::file::reader::{FileReader as _, SerializedFileReader};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::{SchemaDescriptor, Type, TypePtr};

use super::batches::{damaged, unwritten};
use super::error::{Fault, TableError};
use super::format::Format;
use super::input::Input;
use super::output::Draft;
use crate::limits::{BATCH_ROWS, PARQUET_GROUP_ROWS};

/// What is copied: the schema of the output, and which columns of the input its leaves are.
struct Copied {
    schema: TypePtr,
    leaves: Vec<usize>,
    metadata: Vec<KeyValue>,
}

impl Copied {
    fn of(input: &Input, select: &[usize]) -> Result<Self, TableError> {
        let file = input.first_file()?;
        let failed = |error: ParquetError| damaged(input, Format::Parquet, &error);
        let reader = SerializedFileReader::new(file).map_err(failed)?;
        let found = reader.metadata().file_metadata();
        let described = found.schema_descr();
        let metadata = found.key_value_metadata().cloned().unwrap_or_default();
        if select.is_empty() {
            let leaves = (0..described.num_columns()).collect();
            return Ok(Self { schema: described.root_schema_ptr(), leaves, metadata });
        }
        let root = described.root_schema();
        let fields = select.iter().map(|column| Arc::clone(&root.get_fields()[*column])).collect();
        let schema = Type::group_type_builder(root.name()).with_fields(fields).build();
        let of_root = |root: usize| {
            let leaves = 0..described.num_columns();
            leaves.filter(move |leaf| described.get_column_root_idx(*leaf) == root)
        };
        Ok(Self {
            schema: Arc::new(schema.map_err(failed)?),
            leaves: select.iter().flat_map(|column| of_root(*column)).collect(),
            metadata: selected_metadata(input, metadata, select)?,
        })
    }

    fn properties(&self) -> Arc<WriterProperties> {
        let metadata = Some(self.metadata.clone()).filter(|metadata| !metadata.is_empty());
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_key_value_metadata(metadata);
        Arc::new(properties.build())
    }
}

/// The metadata of a file for some of its columns: the Arrow schema in it, if any, describes only those.
fn selected_metadata(
    input: &Input,
    mut metadata: Vec<KeyValue>,
    select: &[usize],
) -> Result<Vec<KeyValue>, TableError> {
    let Some(described) = metadata.iter_mut().find(|entry| entry.key == ARROW_SCHEMA_META_KEY)
    else {
        return Ok(metadata);
    };
    let file = input.first_file()?;
    let read =
        || ParquetRecordBatchReaderBuilder::try_new_with_options(file, ArrowReaderOptions::new());
    let schema = catch_unwind(AssertUnwindSafe(read)).ok().and_then(Result::ok);
    let schema = schema.and_then(|builder| builder.schema().project(select).ok());
    match schema {
        Some(schema) => described.value = Some(encode_arrow_schema(&schema)),
        // It is a hint, and worth nothing if it is wrong.
        None => metadata.retain(|entry| entry.key != ARROW_SCHEMA_META_KEY),
    }
    Ok(metadata)
}

/// Checks that a file with these columns can be written and says what the input says.
pub(super) fn check(input: &Input, select: &[usize]) -> Result<(), TableError> {
    let copied = Copied::of(input, select)?;
    let refuse = |error: String| TableError::new(input.path(), Fault::OutputColumns { error });
    let written = catch_unwind(AssertUnwindSafe(|| {
        let writer =
            SerializedFileWriter::new(Vec::new(), Arc::clone(&copied.schema), copied.properties())?;
        let bytes = writer.into_inner()?;
        let end = bytes.len().saturating_sub(8);
        let length = bytes[end..].first_chunk().map_or(0, |length| u32::from_le_bytes(*length));
        let begin = end.saturating_sub(usize::try_from(length).unwrap_or(usize::MAX));
        ParquetMetaDataReader::decode_metadata(&bytes[begin..end])
    }));
    let again = match written {
        Ok(again) => again.map_err(|error| refuse(error.to_string()))?,
        Err(_) => return Err(refuse("a column has a type that cannot be written".to_owned())),
    };
    if again.file_metadata().schema_descr().root_schema() == &*copied.schema {
        return Ok(());
    }
    Err(refuse("a column has a type that this program does not know".to_owned()))
}

/// The first of these columns that has values of INT96, at any depth.
pub(super) fn int96(described: &SchemaDescriptor, select: &[usize]) -> Option<String> {
    let among =
        |leaf: &usize| select.is_empty() || select.contains(&described.get_column_root_idx(*leaf));
    let mut leaves = (0..described.num_columns()).filter(among);
    let found = leaves.find(|leaf| described.column(*leaf).physical_type() == Physical::INT96)?;
    Some(described.column(found).path().string())
}

/// Why copying stopped.
enum Stopped<E> {
    Read(ParquetError),
    Write(ParquetError),
    Keep(E),
}

/// Some rows of a file that are stored together.
struct Group {
    number: usize,
    first: u64,
    rows: u64,
}

/// Writes the rows that `keep` selects, which is asked about a row once for each column. Returns how
/// many rows were read and written, and the output, which is not complete yet.
pub(super) fn copy<'w, E: From<TableError>>(
    input: &Input,
    select: &[usize],
    draft: Draft<'w>,
    mut progress: impl FnMut(u64),
    mut keep: impl FnMut(u64) -> Result<bool, E>,
) -> Result<(u64, u64, Draft<'w>), E> {
    let copied = Copied::of(input, select)?;
    let path = draft.path().to_owned();
    let mut writer =
        SerializedFileWriter::new(draft, Arc::clone(&copied.schema), copied.properties())
            .map_err(|error| unwritten(&path, error))?;
    let (mut row, mut written, mut done) = (0, 0, 0);
    for file in input.files()? {
        let file = file?;
        let size = file.metadata().map_err(|error| input.error(error))?.len();
        let copy = || {
            let reader = SerializedFileReader::new(file).map_err(Stopped::Read)?;
            let groups = groups(reader.metadata(), row);
            let last = groups.len();
            let (mut pending, mut kept) = (Vec::new(), 0);
            for (number, group) in groups.into_iter().enumerate() {
                row = group.first + group.rows;
                let mut wanted = 0;
                for row in group.first..row {
                    wanted += u64::from(keep(row).map_err(Stopped::Keep)?);
                }
                if wanted > 0 {
                    pending.push(group);
                }
                kept += wanted;
                if kept > 0 && (kept >= PARQUET_GROUP_ROWS as u64 || number + 1 == last) {
                    copy_groups(&reader, &mut writer, &copied.leaves, &pending, &mut keep)?;
                    pending.clear();
                    written += std::mem::take(&mut kept);
                }
                progress(done + size * (number as u64 + 1) / last as u64);
            }
            Ok::<_, Stopped<E>>(())
        };
        // The library panics on some damaged files. Nothing that a panic leaves behind is used again.
        match catch_unwind(AssertUnwindSafe(copy)) {
            Ok(Ok(())) => {}
            Ok(Err(Stopped::Keep(error))) => return Err(error),
            Ok(Err(Stopped::Write(error))) => return Err(unwritten(&path, error).into()),
            Ok(Err(Stopped::Read(error))) => {
                return Err(damaged(input, Format::Parquet, &error).into());
            }
            Err(_) => return Err(damaged(input, Format::Parquet, &"it is damaged").into()),
        }
        done += size;
        progress(done);
    }
    let draft = writer.into_inner().map_err(|error| unwritten(&path, error))?;
    Ok((row, written, draft))
}

fn groups(metadata: &ParquetMetaData, mut first: u64) -> Vec<Group> {
    let groups = metadata.row_groups().iter().enumerate();
    let groups = groups.map(|(number, group)| {
        let rows = u64::try_from(group.num_rows()).unwrap_or(0);
        let group = Group { number, first, rows };
        first += rows;
        group
    });
    groups.collect()
}

/// Copies the kept rows of some groups into one.
fn copy_groups<E>(
    reader: &SerializedFileReader<std::fs::File>,
    writer: &mut SerializedFileWriter<Draft<'_>>,
    leaves: &[usize],
    groups: &[Group],
    keep: &mut impl FnMut(u64) -> Result<bool, E>,
) -> Result<(), Stopped<E>> {
    let mut into = writer.next_row_group().map_err(Stopped::Write)?;
    for leaf in leaves {
        let column = into.next_column().map_err(Stopped::Write)?;
        let mut column = column.ok_or_else(|| Stopped::Write(changed("has too few columns")))?;
        for group in groups {
            let from = reader.get_row_group(group.number).map_err(Stopped::Read)?;
            let from = from.get_column_reader(*leaf).map_err(Stopped::Read)?;
            copy_column(from, column.untyped(), reader, *leaf, group, keep)?;
        }
        column.close().map_err(Stopped::Write)?;
    }
    into.close().map_err(Stopped::Write)?;
    Ok(())
}

fn copy_column<E>(
    from: ColumnReader,
    into: &mut ColumnWriter<'_>,
    reader: &SerializedFileReader<std::fs::File>,
    leaf: usize,
    group: &Group,
    keep: &mut impl FnMut(u64) -> Result<bool, E>,
) -> Result<(), Stopped<E>> {
    let column = reader.metadata().file_metadata().schema_descr().column(leaf);
    let levels = (column.max_def_level(), column.max_rep_level());
    macro_rules! by_type {
        ($(($from:ident, $into:ident)),+) => {
            match (from, into) {
                $((ColumnReader::$from(from), ColumnWriter::$into(into)) => {
                    copy_values(from, into, levels, group, keep)
                })+
                _ => Err(Stopped::Read(changed("has a column of another type"))),
            }
        };
    }
    by_type!(
        (BoolColumnReader, BoolColumnWriter),
        (Int32ColumnReader, Int32ColumnWriter),
        (Int64ColumnReader, Int64ColumnWriter),
        (Int96ColumnReader, Int96ColumnWriter),
        (FloatColumnReader, FloatColumnWriter),
        (DoubleColumnReader, DoubleColumnWriter),
        (ByteArrayColumnReader, ByteArrayColumnWriter),
        (FixedLenByteArrayColumnReader, FixedLenByteArrayColumnWriter)
    )
}

fn copy_values<T: DataType, E>(
    mut from: ColumnReaderImpl<T>,
    into: &mut ColumnWriterImpl<'_, T>,
    (most_defined, most_repeated): (i16, i16),
    group: &Group,
    keep: &mut impl FnMut(u64) -> Result<bool, E>,
) -> Result<(), Stopped<E>> {
    let (mut values, mut defined, mut repeated) = (Vec::new(), Vec::new(), Vec::new());
    let (mut kept, mut kept_defined, mut kept_repeated) = (Vec::new(), Vec::new(), Vec::new());
    let (mut row, end) = (group.first, group.first + group.rows);
    while row < end {
        values.clear();
        defined.clear();
        repeated.clear();
        kept.clear();
        kept_defined.clear();
        kept_repeated.clear();
        let most = usize::try_from(end - row).unwrap_or(BATCH_ROWS).min(BATCH_ROWS);
        let (records, _, levels) = from
            .read_records(
                most,
                (most_defined > 0).then_some(&mut defined),
                (most_repeated > 0).then_some(&mut repeated),
                &mut values,
            )
            .map_err(Stopped::Read)?;
        if records == 0 {
            return Err(Stopped::Read(changed("has fewer values than rows")));
        }
        let (mut values, mut wanted, mut next) = (values.drain(..), false, row);
        for level in 0..levels {
            let (is_defined, begins) = (
                most_defined == 0 || defined[level] == most_defined,
                most_repeated == 0 || repeated[level] == 0,
            );
            if begins {
                wanted = keep(next).map_err(Stopped::Keep)?;
                next += 1;
            }
            let value = if is_defined { values.next() } else { None };
            if wanted {
                kept.extend(value);
                kept_defined.extend((most_defined > 0).then(|| defined[level]));
                kept_repeated.extend((most_repeated > 0).then(|| repeated[level]));
            }
        }
        if !kept.is_empty() || !kept_defined.is_empty() {
            into.write_batch(
                &kept,
                (most_defined > 0).then_some(&kept_defined),
                (most_repeated > 0).then_some(&kept_repeated),
            )
            .map_err(Stopped::Write)?;
        }
        row += records as u64;
    }
    Ok(())
}

fn changed(what: &str) -> ParquetError {
    ParquetError::External(Box::new(io::Error::other(format!("the file {what}"))))
}
