//! The compiled half of the Python package: the transport, and nothing that knows about objects.
//!
//! `convelo/_convelo.pyi` describes its interface.

mod completions;
mod message;
mod node;
mod pki;
mod runtime;

use pyo3::buffer::PyBuffer;
use pyo3::prelude::*;

/// How many maps in a msgpack document have both keys `type` and `data`.
#[pyfunction]
fn count_wrappers(py: Python<'_>, packed: &Bound<'_, PyAny>) -> PyResult<usize> {
    if let Ok(bytes) = packed.cast::<pyo3::types::PyBytes>() {
        return Ok(convelo_pool::envelope::count_wrappers(bytes.as_bytes()));
    }
    let buffer: PyBuffer<u8> = PyBuffer::get(packed)?;
    Ok(convelo_pool::envelope::count_wrappers(&buffer.to_vec(py)?))
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
    module.add_function(wrap_pyfunction!(pki::make_authority, module)?)?;
    module.add_function(wrap_pyfunction!(pki::make_certificate, module)?)?;
    module.add_function(wrap_pyfunction!(pki::make_identity, module)?)?;
    module.add_function(wrap_pyfunction!(pki::key_fingerprint, module)?)?;
    module.add_function(wrap_pyfunction!(pki::certificate_identity, module)?)
}
