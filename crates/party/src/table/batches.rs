//! Tables of batches, that is Parquet files and Arrow streams: the key columns of every row as
//! text, and the matched rows unchanged.
//!
//! A key column holds values that have one text (`value.rs`). A null counts as blank, and a dictionary
//! entry as its value. Matched rows of Parquet are written as they were read (`verbatim.rs`). Those of
//! an Arrow stream keep their columns' types, with one exception: Parquet has no time zone for
//! timestamps in seconds, so it becomes UTC; the instant stays the same.

use std::fmt::Display;
use std::io::{self, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::cast::AsArray as _;
use arrow_array::{
    Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchReader, StructArray, new_null_array,
};
use arrow_ipc::reader::StreamReader;
use arrow_schema::{ArrowError, DataType, Field, FieldRef, Fields, Schema, SchemaRef};
use arrow_select::filter::filter_record_batch;
use arrow_select::take::take;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::arrow::{ArrowWriter, ProjectionMask};
use parquet::basic::{Compression, LogicalType, Type as Physical};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::schema::types::{ColumnDescPtr, SchemaDescriptor};

use super::arrow_stream;
use super::block::{Block, Form};
use super::column::{self, Column};
use super::error::{ColumnList, Fault, TableError};
use super::format::Format;
use super::input::Input;
use super::output::{BatchSink, Draft, Opened, Output, csv_delimiter};
use super::value::{NoKey, Text};
use super::verbatim;
use crate::limits::{BATCH_ROWS, PARQUET_GROUP_ROWS};

type Builder = ParquetRecordBatchReaderBuilder<std::fs::File>;

/// A column of a key: a column of the table, or a field of a struct in one.
#[derive(Clone, Debug)]
pub(super) struct KeyColumn {
    /// The number of the table's column.
    root: usize,
    /// The names of the fields from there on.
    inner: Vec<String>,
    /// As an error calls it.
    name: String,
    text: Text,
}

/// The names of the columns.
pub(super) fn columns(input: &Input, format: Format) -> Result<Vec<String>, TableError> {
    if format == Format::Parquet {
        check_parts(input)?;
    }
    let schema = schema(input, format, true)?;
    Ok(schema.fields().iter().map(|field| field.name().clone()).collect())
}

/// All files of a directory must have the columns of the first.
fn check_parts(input: &Input) -> Result<(), TableError> {
    let mut first = None;
    for file in input.files()? {
        let builder = parquet(input, file?, true)?;
        let root = builder.parquet_schema().root_schema_ptr();
        if *first.get_or_insert_with(|| Arc::clone(&root)) != root {
            return Err(TableError::new(input.path(), Fault::OtherColumns));
        }
    }
    Ok(())
}

/// Finds the columns of a key. Refuses those whose values have no one text.
pub(super) fn key_columns(
    input: &Input,
    format: Format,
    key: &[Column],
) -> Result<Vec<KeyColumn>, TableError> {
    let schema = schema(input, format, true)?;
    let builder = match format {
        Format::Parquet => Some(parquet(input, input.first_file()?, true)?),
        _ => None,
    };
    let described = builder.as_ref().map(Builder::parquet_schema);
    let found = key.iter().map(|column| key_column(column, &schema, described));
    found.collect::<Result<_, _>>().map_err(|fault| TableError::new(input.path(), fault))
}

fn key_column(
    column: &Column,
    schema: &Schema,
    described: Option<&SchemaDescriptor>,
) -> Result<KeyColumn, Fault> {
    let names: Vec<String> = schema.fields().iter().map(|field| field.name().clone()).collect();
    let list = || ColumnList::new(&names, true);
    let (root, inner) = match (column::resolve(column, &names, true, list), column) {
        (Ok(root), _) => (root, Vec::new()),
        (Err(fault), Column::Name(name)) => match inner_field(name, schema.fields()) {
            Some((root, inner)) => (root, inner),
            None => return Err(fault),
        },
        (Err(fault), Column::Number(_)) => return Err(fault),
    };
    let mut field: &FieldRef = &schema.fields()[root];
    let mut name = field.name().clone();
    for inner in &inner {
        let DataType::Struct(fields) = field.data_type() else { break };
        field = fields.iter().find(|field| field.name() == inner).unwrap_or(field);
        name += ".";
        name += inner;
    }
    let leaf = described.and_then(|described| leaf(described, root, &inner));
    let leaf = leaf.map(|(_, leaf)| leaf);
    let uuid = is_uuid(field, leaf.as_ref());
    let int96 = leaf.is_some_and(|leaf| leaf.physical_type() == Physical::INT96);
    let named = Field::clone(field).with_name(&name);
    match Text::of_key(&named, uuid, int96) {
        Ok(text) => Ok(KeyColumn { root, inner, name, text }),
        Err(NoKey { advice }) => {
            let found = if int96 { "INT96".to_owned() } else { field.data_type().to_string() };
            Err(Fault::KeyType { column: name, found, advice })
        }
    }
}

/// Whether 16 bytes are a UUID.
fn is_uuid(field: &Field, leaf: Option<&ColumnDescPtr>) -> bool {
    let name = field.metadata().get("ARROW:extension:name");
    name.is_some_and(|name| name == "arrow.uuid")
        || leaf.is_some_and(|leaf| leaf.logical_type_ref() == Some(&LogicalType::Uuid))
}

/// The place of a field of a struct, which is named as in `a.b`.
fn inner_field(name: &str, fields: &Fields) -> Option<(usize, Vec<String>)> {
    fields.iter().enumerate().find_map(|(number, field)| {
        // A name may itself contain dots.
        let mut dots = name.match_indices('.').map(|(at, _)| at);
        let at = dots.find(|at| column::look_alike(field.name(), &name[..*at]))?;
        let rest = &name[at + 1..];
        let DataType::Struct(inner) = field.data_type() else { return None };
        if let Some(field) = inner.iter().find(|field| column::look_alike(field.name(), rest)) {
            return Some((number, vec![field.name().clone()]));
        }
        let (deeper, mut names) = inner_field(rest, inner)?;
        names.insert(0, inner[deeper].name().clone());
        Some((number, names))
    })
}

/// The leaf of a Parquet schema that is this field of this column.
fn leaf(
    described: &SchemaDescriptor,
    root: usize,
    inner: &[String],
) -> Option<(usize, ColumnDescPtr)> {
    (0..described.num_columns())
        .filter(|leaf| described.get_column_root_idx(*leaf) == root)
        .map(|leaf| (leaf, described.column(leaf)))
        .find(|(_, leaf)| leaf.path().parts()[1..] == *inner)
}

/// Checks whether batches of the columns say what the table says.
pub(super) fn check_batches(
    input: &Input,
    format: Format,
    select: &[usize],
) -> Result<(), TableError> {
    if format != Format::Parquet {
        return Ok(());
    }
    let builder = parquet(input, input.first_file()?, true)?;
    match verbatim::int96(builder.parquet_schema(), select) {
        Some(column) => {
            let error =
                format!("\"{column}\" has type INT96, whose times batches cannot hold exactly");
            Err(TableError::new(input.path(), Fault::OutputColumns { error }))
        }
        None => Ok(()),
    }
}

/// Checks whether the columns can be written as Parquet: those of a stream by writing a row of nulls.
pub(super) fn check_parquet(
    input: &Input,
    format: Format,
    select: &[usize],
) -> Result<(), TableError> {
    if format == Format::Parquet {
        return verbatim::check(input, select);
    }
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
    key: &[KeyColumn],
    progress: impl FnMut(u64),
    mut visit: impl FnMut(&mut Block) -> Result<(), E>,
) -> Result<u64, E> {
    let mut block = Block::default();
    // Without the Arrow schema that a Parquet file may contain, types are plain: text is not a
    // dictionary.
    let wanted = Wanted { roots: key.iter().map(|column| column.root).collect(), inner: Some(key) };
    each_batch(input, format, &wanted, true, progress, |first, batch| {
        let columns =
            key.iter().zip(batch.columns()).map(|(column, array)| Leaf::of(array, &column.inner));
        let columns = columns.collect::<Result<Vec<_>, _>>();
        let columns = columns.map_err(|error| damaged(input, format, &error))?;
        put(key, &columns, batch.num_rows(), first, &mut block)
            .map_err(|fault| TableError::new(input.path(), fault))?;
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
    if let Some(delimiter) = output.file().and_then(csv_delimiter) {
        return copy_as_csv(input, format, select, output, delimiter, progress, keep);
    }
    if format == Format::Parquet && !matches!(output, Output::Batches(_)) {
        let Opened::Bytes(draft) = output.open(input, format)? else {
            unreachable!("it takes no batches")
        };
        let (rows, kept, draft) = verbatim::copy(input, select, draft, progress, keep)?;
        return Ok((rows, kept, Sheet::Verbatim(draft)));
    }
    check_batches(input, format, select)?;
    let (columns, schema) = selected(input, format, select)?;
    let mut sheet = Sheet::new(output, input, Arc::clone(&schema))?;
    let mut kept = 0;
    let wanted = Wanted { roots: columns, inner: None };
    let rows = each_batch::<E>(input, format, &wanted, false, progress, |first, batch| {
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

/// How the values of the columns are written in CSV.
pub(super) fn texts(
    input: &Input,
    format: Format,
    select: &[usize],
) -> Result<Vec<Text>, TableError> {
    check_batches(input, format, select)?;
    let builder = match format {
        Format::Parquet => Some(parquet(input, input.first_file()?, true)?),
        _ => None,
    };
    let schema = schema(input, format, true)?;
    let all: Vec<usize> = (0..schema.fields().len()).collect();
    let columns = if select.is_empty() { &all } else { select };
    let texts = columns.iter().map(|column| {
        let field = &schema.fields()[*column];
        let leaf =
            builder.as_ref().and_then(|builder| leaf(builder.parquet_schema(), *column, &[]));
        Text::of_output(field, is_uuid(field, leaf.map(|(_, leaf)| leaf).as_ref())).ok_or_else(
            || {
                let error = format!(
                    "\"{}\" has type {}, whose values are no text in CSV",
                    field.name(),
                    field.data_type()
                );
                TableError::new(input.path(), Fault::OutputColumns { error })
            },
        )
    });
    texts.collect()
}

/// Writes the rows as CSV (RFC 4180): values as `value.rs` says, a null as an empty field.
fn copy_as_csv<'w, E: From<TableError>>(
    input: &Input,
    format: Format,
    select: &[usize],
    output: Output<'w>,
    delimiter: u8,
    progress: impl FnMut(u64),
    mut keep: impl FnMut(u64) -> Result<bool, E>,
) -> Result<(u64, u64, Sheet<'w>), E> {
    let texts = texts(input, format, select)?;
    let schema = schema(input, format, true)?;
    let roots = if select.is_empty() { (0..texts.len()).collect() } else { select.to_vec() };
    let Opened::Bytes(mut draft) = output.open(input, format)? else {
        unreachable!("it is a file")
    };
    let names: Vec<&str> = roots.iter().map(|root| schema.field(*root).name().as_str()).collect();
    let mut line = String::new();
    for name in &names {
        csv_field(name, delimiter, &mut line);
    }
    csv_line(&mut draft, &mut line)?;
    let (mut kept, mut value) = (0, String::new());
    let wanted = Wanted { roots, inner: None };
    let rows = each_batch::<E>(input, format, &wanted, true, progress, |first, batch| {
        let columns = batch.columns().iter().map(|column| Leaf::of(column, &[]));
        let columns = columns.collect::<Result<Vec<_>, _>>();
        let columns = columns.map_err(|error| damaged(input, format, &error))?;
        for (row, number) in (0..batch.num_rows()).zip(first..) {
            if !keep(number)? {
                continue;
            }
            kept += 1;
            for (place, (text, column)) in texts.iter().zip(&columns).enumerate() {
                value.clear();
                if !column.is_valid(row) {
                    line.push(char::from(delimiter));
                    continue;
                }
                text.put(&*column.values, row, &mut value).map_err(|found| {
                    let (column, row) = (names[place].to_owned(), number + 1);
                    TableError::new(input.path(), Fault::Value { column, row, found })
                })?;
                csv_field(&value, delimiter, &mut line);
            }
            csv_line(&mut draft, &mut line)?;
        }
        Ok(())
    })?;
    Ok((rows, kept, Sheet::Verbatim(draft)))
}

/// Appends a field and a delimiter. A text without characters is quoted, to be told from a null.
fn csv_field(value: &str, delimiter: u8, line: &mut String) {
    let special = |c| matches!(c, '"' | '\r' | '\n') || c == char::from(delimiter);
    if value.is_empty() || value.contains(special) || value.trim().len() < value.len() {
        line.push('"');
        for (number, part) in value.split('"').enumerate() {
            line.push_str(if number > 0 { "\"\"" } else { "" });
            line.push_str(part);
        }
        line.push('"');
    } else {
        line.push_str(value);
    }
    line.push(char::from(delimiter));
}

/// Writes a line of fields, each with a delimiter behind it, and empties it.
fn csv_line(draft: &mut Draft<'_>, line: &mut String) -> Result<(), TableError> {
    line.pop();
    line.push_str(if line.is_empty() { "\"\"\n" } else { "\n" });
    let written = draft.write_all(line.as_bytes());
    line.clear();
    written.map_err(|error| draft.error(error))
}

/// Rows on their way to an output.
pub(super) enum Sheet<'w> {
    Parquet(Box<ArrowWriter<Draft<'w>>>, PathBuf),
    Batches(BatchSink<'w>),
    /// All rows have been written.
    Verbatim(Draft<'w>),
}

impl<'w> Sheet<'w> {
    pub(super) fn new(
        output: Output<'w>,
        input: &Input,
        schema: SchemaRef,
    ) -> Result<Self, TableError> {
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

    pub(super) fn write(&mut self, batch: &RecordBatch) -> Result<(), TableError> {
        match self {
            Self::Parquet(writer, path) => {
                writer.write(batch).map_err(|error| unwritten(path, error))
            }
            Self::Batches(sink) => sink.give(arrow_stream::compact(batch)),
            Self::Verbatim(_) => unreachable!("nothing comes after the last row"),
        }
    }

    /// Completes the output; returns the number of bytes written, 0 for batches.
    pub(super) fn complete(self) -> Result<u64, TableError> {
        match self {
            Self::Parquet(writer, path) => {
                writer.into_inner().map_err(|error| unwritten(&path, error))?.complete()
            }
            Self::Batches(sink) => sink.complete().map(|()| 0),
            Self::Verbatim(draft) => draft.complete(),
        }
    }
}

pub(super) fn unwritten(path: &Path, error: ParquetError) -> TableError {
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
        _ => Arc::clone(parquet(input, input.first_file()?, plain)?.schema()),
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

fn parquet(input: &Input, file: std::fs::File, plain: bool) -> Result<Builder, TableError> {
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

/// What to read of every row.
struct Wanted<'k> {
    /// The columns, in this order.
    roots: Vec<usize>,
    /// Only these fields of them, if given.
    inner: Option<&'k [KeyColumn]>,
}

impl Wanted<'_> {
    fn mask(&self, described: &SchemaDescriptor, roots: &[usize]) -> ProjectionMask {
        let leaves = self.inner.and_then(|key| {
            let leaves = key.iter().map(|column| leaf(described, column.root, &column.inner));
            leaves.map(|leaf| leaf.map(|(leaf, _)| leaf)).collect::<Option<Vec<_>>>()
        });
        match leaves {
            Some(leaves) => ProjectionMask::leaves(described, leaves),
            None => ProjectionMask::roots(described, roots.to_vec()),
        }
    }
}

/// Reads what is wanted, some rows at a time. Each batch comes with the number of its first row.
/// Returns the number of rows. `progress` gets the number of bytes read.
fn each_batch<E: From<TableError>>(
    input: &Input,
    format: Format,
    wanted: &Wanted<'_>,
    plain: bool,
    mut progress: impl FnMut(u64),
    mut each: impl FnMut(u64, RecordBatch) -> Result<(), E>,
) -> Result<u64, E> {
    // The library reads columns in table order, and each once.
    let mut present = wanted.roots.clone();
    present.sort_unstable();
    present.dedup();
    let place = |column: &usize| present.binary_search(column).unwrap_or(0);
    let places: Vec<usize> = wanted.roots.iter().map(place).collect();
    let (size, mut rows) = (input.size(), 0);
    let mut read = |batches: &mut dyn RecordBatchReader, done: &dyn Fn(u64) -> u64| {
        let begin = rows;
        while let Some(batch) = unharmed(input, format, || batches.next().transpose())? {
            let batch = batch.project(&places).map_err(|error| damaged(input, format, &error))?;
            let first = rows;
            rows += batch.num_rows() as u64;
            each(first, batch)?;
            progress(done(rows - begin));
        }
        Ok::<_, E>(())
    };
    if format == Format::Arrow {
        read(&mut arrow(input, Some(present.clone()))?, &|_| input.done())?;
    } else {
        let mut before = 0;
        for file in input.files()? {
            let file = file?;
            let own = file.metadata().map_err(|error| input.error(error))?.len();
            let builder = parquet(input, file, plain)?;
            let total = u64::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or(0);
            let mask = wanted.mask(builder.parquet_schema(), &present);
            let builder = builder.with_projection(mask).with_batch_size(BATCH_ROWS);
            let mut batches = unharmed(input, format, || builder.build())?;
            read(&mut batches, &|rows| before + share(own, rows, total))?;
            before += own;
        }
    }
    progress(size);
    Ok(rows)
}

/// Converts progress in rows to progress in bytes of a file of this size.
fn share(size: u64, rows: u64, total: u64) -> u64 {
    let share = u128::from(size) * u128::from(rows) / u128::from(total.max(1));
    u64::try_from(share).unwrap_or(size)
}

pub(super) fn damaged(input: &Input, format: Format, error: &dyn Display) -> TableError {
    TableError::new(input.path(), fault(format, error))
}

fn fault(format: Format, error: &dyn Display) -> Fault {
    let format = if format == Format::Arrow { "Arrow" } else { "Parquet" };
    Fault::Batches { format, error: error.to_string() }
}

/// A key column in a batch.
struct Leaf {
    values: ArrayRef,
    /// The structs around it: where one is null, so is the value.
    around: Vec<StructArray>,
}

impl Leaf {
    fn of(array: &ArrayRef, inner: &[String]) -> Result<Self, ArrowError> {
        let (mut values, mut around) = (Arc::clone(array), Vec::new());
        for name in inner {
            let outer = values.as_struct_opt().cloned();
            let field = outer.as_ref().and_then(|outer| outer.column_by_name(name)).cloned();
            let missing = || ArrowError::SchemaError(format!("there is no field {name}"));
            values = field.ok_or_else(missing)?;
            around.extend(outer);
        }
        if let Some(dictionary) = values.as_any_dictionary_opt() {
            values = take(dictionary.values(), dictionary.keys(), None)?;
        }
        Ok(Self { values, around })
    }

    fn is_valid(&self, row: usize) -> bool {
        self.values.is_valid(row) && self.around.iter().all(|outer| outer.is_valid(row))
    }
}

/// Puts the fields of a batch into a block, row by row. A null is an empty field.
fn put(
    key: &[KeyColumn],
    columns: &[Leaf],
    rows: usize,
    first: u64,
    block: &mut Block,
) -> Result<(), Fault> {
    (block.first, block.offset, block.line, block.count) = (first, 0, 0, rows as u64);
    block.form = Form::Packed;
    let mut text = std::mem::take(&mut block.text);
    text.clear();
    block.ends.clear();
    for row in 0..rows {
        for (KeyColumn { text: kind, name, .. }, column) in key.iter().zip(columns) {
            if column.is_valid(row) {
                kind.put(&*column.values, row, &mut text).map_err(|found| Fault::KeyValue {
                    column: name.clone(),
                    row: first + row as u64 + 1,
                    found,
                })?;
            }
            block.ends.push(text.len());
        }
    }
    block.text = text;
    Ok(())
}
