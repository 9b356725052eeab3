//! The compiled half of the Python package: the transport, and nothing that knows about objects.
//!
//! `convelo/_convelo.pyi` describes its interface.

mod completions;
mod message;
mod node;
mod pki;
mod runtime;

use convelo_pool::footprint::Keys;
use convelo_pool::parquet::{Leaf, ParquetError};
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

/// Calls `read` with the bytes of an object that has the buffer protocol; copies what is not in one
/// piece.
fn with_bytes<T>(
    py: Python<'_>,
    object: &Bound<'_, PyAny>,
    read: impl FnOnce(&[u8]) -> T,
) -> PyResult<T> {
    if let Ok(bytes) = object.cast::<PyBytes>() {
        return Ok(read(bytes.as_bytes()));
    }
    let buffer: PyBuffer<u8> = PyBuffer::get(object)?;
    let owner = object.getattr("obj").ok();
    let Some(whole) = owner.as_ref().and_then(|owner| owner.cast::<PyBytes>().ok()) else {
        return Ok(read(&buffer.to_vec(py)?));
    };
    // A view of a bytes object, which nothing can change: what arrives is one.
    let start = (buffer.buf_ptr() as usize).wrapping_sub(whole.as_bytes().as_ptr() as usize);
    let part = start.checked_add(buffer.len_bytes()).filter(|_| buffer.is_c_contiguous());
    match part.and_then(|end| whole.as_bytes().get(start..end)) {
        Some(part) => Ok(read(part)),
        None => Ok(read(&buffer.to_vec(py)?)),
    }
}

/// How many maps in a msgpack document have both keys `type` and `data`.
#[pyfunction]
fn count_wrappers(py: Python<'_>, packed: &Bound<'_, PyAny>) -> PyResult<usize> {
    with_bytes(py, packed, convelo_pool::envelope::count_wrappers)
}

/// Bytes of memory that the objects of a msgpack document take, at most.
#[pyfunction]
#[pyo3(signature = (document, *, any_keys=false))]
fn footprint(py: Python<'_>, document: &Bound<'_, PyAny>, any_keys: bool) -> PyResult<u64> {
    let keys = if any_keys { Keys::Any } else { Keys::Texts };
    with_bytes(py, document, |bytes| convelo_pool::footprint::footprint(bytes, keys))?
        .map_err(|error| PyValueError::new_err(error.to_string()))
}

/// Width, whether of variable length, values, values that refer to a dictionary, bytes of it, bytes
/// of pages.
type Column = (u64, bool, u64, u64, u64, u64);

/// A key and its value.
type Entry<'py> = (Bound<'py, PyBytes>, Bound<'py, PyBytes>);

/// What a Parquet file claims: rows, memory for its metadata, columns, and its own key-value
/// metadata.
#[pyfunction]
fn parquet_claims<'py>(
    py: Python<'py>,
    file: &Bound<'py, PyAny>,
) -> PyResult<(u64, u64, Vec<Column>, Vec<Entry<'py>>)> {
    with_bytes(py, file, |bytes| {
        let claims = convelo_pool::parquet::claims(bytes)?;
        let piece = |range| PyBytes::new(py, bytes.get(range).unwrap_or_default());
        let entries =
            claims.entries.into_iter().map(|(key, value)| (piece(key), piece(value))).collect();
        let leaves = claims.leaves.iter().map(|leaf| {
            let Leaf { width, is_bytes, values, referring, dictionary, pages } = *leaf;
            (width, is_bytes, values, referring, dictionary, pages)
        });
        Ok((claims.rows, claims.metadata, leaves.collect(), entries))
    })?
    .map_err(|error: ParquetError| PyValueError::new_err(error.to_string()))
}

/// The compiled half of convelo.
#[pymodule]
fn _convelo(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("WIRE_UNKNOWN", 0)?;
    module.add("WIRE_SECOND", 2)?;
    module.add("WIRE_4", 4)?;
    module.add("WIRE_5", 5)?;
    module.add_class::<completions::Completions>()?;
    module.add_class::<node::Node>()?;
    module.add_class::<node::PeerHandle>()?;
    module.add_function(wrap_pyfunction!(count_wrappers, module)?)?;
    module.add_function(wrap_pyfunction!(footprint, module)?)?;
    module.add_function(wrap_pyfunction!(parquet_claims, module)?)?;
    module.add_function(wrap_pyfunction!(pki::make_authority, module)?)?;
    module.add_function(wrap_pyfunction!(pki::make_certificate, module)?)?;
    module.add_function(wrap_pyfunction!(pki::make_identity, module)?)?;
    module.add_function(wrap_pyfunction!(pki::key_fingerprint, module)?)?;
    module.add_function(wrap_pyfunction!(pki::certificate_identity, module)?)
}
