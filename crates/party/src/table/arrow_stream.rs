//! The form in which a stream of batches is kept between the two passes.

use std::io;
use std::sync::Arc;

use arrow_array::cast::AsArray as _;
use arrow_array::{ArrayRef, RecordBatch, RecordBatchOptions, RecordBatchReader};
use arrow_ipc::writer::StreamWriter;
use arrow_schema::{ArrowError, DataType};

use super::error::Fault;
use crate::limits::BATCH_ROWS;

/// Writes batches as an Arrow stream, in pieces of about this many bytes.
pub(super) fn write(
    batches: impl RecordBatchReader,
    bytes: usize,
    mut give: impl FnMut(&mut Vec<u8>) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let schema = batches.schema();
    let unfit = |error: ArrowError| Fault::Batches { format: "Arrow", error: error.to_string() };
    let mut writer = StreamWriter::try_new(Vec::new(), &schema).map_err(unfit)?;
    // A slice of a nested column may carry the whole column along.
    let nested = schema.fields().iter().any(|field| field.data_type().is_nested());
    for batch in batches {
        let batch = batch.map_err(|error| Fault::Read(io::Error::other(error)))?;
        let at_once = if nested { batch.num_rows().max(1) } else { BATCH_ROWS };
        for first in (0..batch.num_rows()).step_by(at_once) {
            let slice = batch.slice(first, at_once.min(batch.num_rows() - first));
            writer.write(&compact(&slice).map_err(unfit)?).map_err(unfit)?;
            if writer.get_ref().len() >= bytes {
                give(writer.get_mut())?;
            }
        }
    }
    writer.finish().map_err(unfit)?;
    give(writer.get_mut())
}

/// The same rows, in views that keep no other rows alive.
pub(super) fn compact(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let columns = batch.columns().iter().map(|column| match column.data_type() {
        DataType::Utf8View => Arc::new(column.as_string_view().gc()) as ArrayRef,
        DataType::BinaryView => Arc::new(column.as_binary_view().gc()),
        _ => Arc::clone(column),
    });
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(batch.schema(), columns.collect(), &options)
}
