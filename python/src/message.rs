//! Messages between Python objects and the transport, without copying where that pays off.
#![expect(unsafe_code, reason = "memory of Python objects is read and written in place")]

use std::any::Any;
use std::mem::MaybeUninit;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use convelo_pool::{Allocate, Allocation, Buffer, Chunk, Incoming, MessageId};
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBool, PyBytes, PyInt, PyList, PyMemoryView, PySlice, PyString, PyTuple};
use tokio::io::ReadBuf;

/// Buffers below this size are copied: borrowing costs more.
const BORROW_BYTES: usize = 32 << 10;

/// Buffers of at least this size are bytes objects from the beginning.
const OBJECT_BYTES: usize = 256 << 10;

/// Buffers of at least this size ask for huge pages.
const HUGE_PAGE_BYTES: usize = 4 << 20;

/// Exported buffers that the transport has finished with. Releasing one needs the GIL, which the
/// transport does not take.
static GRAVEYARD: Mutex<Vec<PyBuffer<u8>>> = Mutex::new(Vec::new());

/// Releases the buffers that the transport has finished with.
pub(crate) fn bury(_: Python<'_>) {
    let dead = {
        let mut graveyard = GRAVEYARD.lock().unwrap_or_else(PoisonError::into_inner);
        if graveyard.is_empty() {
            return;
        }
        std::mem::take(&mut *graveyard)
    };
    drop(dead);
}

/// Memory that another Python object owns and does not change until the message is acknowledged.
struct Borrowed {
    start: *const u8,
    len: usize,
    buffer: Option<PyBuffer<u8>>,
}

// SAFETY: the memory is only read, and stays in place as long as the buffer is exported. `bury`
// releases the export itself, under the GIL.
unsafe impl Send for Borrowed {}
// SAFETY: as above.
unsafe impl Sync for Borrowed {}

impl AsRef<[u8]> for Borrowed {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: `start` and `len` belong to a C-contiguous buffer that is still exported.
        unsafe { std::slice::from_raw_parts(self.start, self.len) }
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        GRAVEYARD.lock().unwrap_or_else(PoisonError::into_inner).extend(self.buffer.take());
    }
}

/// The bytes of a Python object.
pub(crate) fn bytes_of(object: &Bound<'_, PyAny>) -> PyResult<Bytes> {
    if let Ok(bytes) = object.cast::<PyBytes>() {
        if bytes.as_bytes().len() < BORROW_BYTES {
            return Ok(Bytes::copy_from_slice(bytes.as_bytes()));
        }
        return Ok(Bytes::from_owner(PyBackedBytes::from(bytes.clone())));
    }
    let buffer: PyBuffer<u8> = PyBuffer::get(object).map_err(|_| {
        PyTypeError::new_err(
            "expected a bytes-like value or buffer with items of one byte: cast memoryviews to 'B'",
        )
    })?;
    if !buffer.is_c_contiguous() {
        return Err(PyValueError::new_err("expected a C-contiguous buffer: make a copy first"));
    }
    let len = buffer.len_bytes();
    if len == 0 {
        return Ok(Bytes::new());
    }
    if len < BORROW_BYTES {
        return Ok(Bytes::from(buffer.to_vec(object.py())?));
    }
    let start = buffer.buf_ptr().cast::<u8>().cast_const();
    Ok(Bytes::from_owner(Borrowed { start, len, buffer: Some(buffer) }))
}

/// The pieces of a value: one bytes-like object, or a tuple or list of them.
pub(crate) fn pieces_of(object: &Bound<'_, PyAny>) -> PyResult<Vec<Bytes>> {
    if object.is_instance_of::<PyTuple>() || object.is_instance_of::<PyList>() {
        return object.try_iter()?.map(|piece| bytes_of(&piece?)).collect();
    }
    Ok(vec![bytes_of(object)?])
}

/// A message id from Python: an int from -2^63 to 2^64 - 1, or a str.
pub(crate) fn id_of(object: &Bound<'_, PyAny>) -> PyResult<MessageId> {
    if let Ok(text) = object.cast::<PyString>() {
        return Ok(MessageId::Text(text.to_cow()?.as_ref().into()));
    }
    if object.is_instance_of::<PyInt>() && !object.is_instance_of::<PyBool>() {
        if let Ok(number) = object.extract::<i64>() {
            return Ok(MessageId::Int(number.into()));
        }
        if let Ok(number) = object.extract::<u64>() {
            return Ok(MessageId::Int(number.into()));
        }
        return Err(PyValueError::new_err("expected a message id from -2^63 to 2^64 - 1"));
    }
    let kind = object.get_type().name()?;
    Err(PyTypeError::new_err(format!("a message id must be a str or an int, not {kind}")))
}

pub(crate) fn id_to_python(py: Python<'_>, id: &MessageId) -> PyResult<Py<PyAny>> {
    Ok(match id {
        MessageId::Text(text) => PyString::new(py, text).into_any().unbind(),
        MessageId::Int(number) => match i64::try_from(*number) {
            Ok(number) => number.into_pyobject(py)?.into_any().unbind(),
            Err(_) => {
                u64::try_from(*number).unwrap_or(u64::MAX).into_pyobject(py)?.into_any().unbind()
            }
        },
    })
}

/// `(wire, id, value, buffers)`.
pub(crate) fn to_python(py: Python<'_>, mut incoming: Incoming) -> PyResult<Bound<'_, PyTuple>> {
    incoming.release();
    let id = id_to_python(py, &incoming.id)?;
    let wire = incoming.wire.number();
    let range = incoming.value_range.clone();
    let whole = range == (0..incoming.value.as_slice().len());
    let buffers = std::mem::take(&mut incoming.buffers);
    let value = match incoming.value {
        Chunk::Bytes(bytes) => PyBytes::new(py, bytes.get(range).unwrap_or_default()).into_any(),
        chunk @ Chunk::Foreign(_) if whole => chunk_to_python(py, chunk),
        chunk @ Chunk::Foreign(_) => {
            let object = chunk_to_python(py, chunk);
            let start = isize::try_from(range.start).unwrap_or(isize::MAX);
            let end = isize::try_from(range.end).unwrap_or(isize::MAX);
            PyMemoryView::from(&object)?.get_item(PySlice::new(py, start, end, 1))?
        }
    };
    let buffers = if buffers.is_empty() {
        py.None().into_bound(py)
    } else {
        let objects = buffers.into_iter().map(|chunk| chunk_to_python(py, chunk));
        PyList::new(py, objects.collect::<Vec<_>>())?.into_any()
    };
    (wire, id, value, buffers).into_pyobject(py)
}

fn chunk_to_python(py: Python<'_>, chunk: Chunk) -> Bound<'_, PyAny> {
    match chunk {
        Chunk::Bytes(bytes) => PyBytes::new(py, &bytes).into_any(),
        Chunk::Foreign(buffer) => match buffer.into_any().downcast::<Object>() {
            Ok(object) => object.bytes.into_bound(py).into_any(),
            Err(other) => match other.downcast::<Vec<u8>>() {
                Ok(vector) => PyBytes::new(py, &vector).into_any(),
                Err(_) => PyBytes::new(py, &[]).into_any(),
            },
        },
    }
}

/// Hands out bytes objects, so that arriving bytes are read straight into them.
pub(crate) struct Objects;

impl Allocate for Objects {
    fn allocate(&self, len: usize) -> Allocation {
        if len < OBJECT_BYTES {
            let buffer: Box<dyn Buffer> = Box::new(vec![0u8; len]);
            return Box::pin(std::future::ready(Some(buffer)));
        }
        // Off the transport's thread: taking the GIL may take long.
        let made = tokio::task::spawn_blocking(move || Object::new(len));
        Box::pin(async move {
            let object = made.await.ok().flatten()?;
            let buffer: Box<dyn Buffer> = Box::new(object);
            Some(buffer)
        })
    }
}

/// A bytes object that nobody else has seen yet.
struct Object {
    bytes: Py<PyBytes>,
    start: *mut u8,
    len: usize,
}

// SAFETY: until the object is handed to Python, which ends this value, nobody else has a reference
// to it: its memory belongs to this value alone.
unsafe impl Send for Object {}
// SAFETY: as above.
unsafe impl Sync for Object {}

impl Object {
    fn new(len: usize) -> Option<Self> {
        let size = isize::try_from(len).ok()?;
        let (bytes, start) = Python::try_attach(|py| {
            // SAFETY: with a null pointer, this returns a new, uninitialised bytes object of this
            // size, or null and an exception, which is cleared.
            unsafe {
                let object = ffi::PyBytes_FromStringAndSize(std::ptr::null(), size);
                if object.is_null() {
                    drop(PyErr::take(py));
                    return None;
                }
                let start = ffi::PyBytes_AsString(object).cast::<u8>();
                let object = Bound::from_owned_ptr(py, object).cast_into_unchecked::<PyBytes>();
                Some((object.unbind(), start))
            }
        })??;
        if len >= HUGE_PAGE_BYTES {
            let page = 4096;
            let begin = (start as usize).next_multiple_of(page);
            let inside = (start as usize + len).saturating_sub(begin) / page * page;
            // SAFETY: whole pages inside the object; this is only advice and changes no contents.
            let _ = unsafe {
                rustix::mm::madvise(
                    begin as *mut std::ffi::c_void,
                    inside,
                    rustix::mm::Advice::LinuxHugepage,
                )
            };
        }
        Some(Self { bytes, start, len })
    }
}

impl Buffer for Object {
    fn read_buf(&mut self, from: usize) -> ReadBuf<'_> {
        let from = from.min(self.len);
        // SAFETY: inside the object's memory, which nobody else refers to; this type allows
        // uninitialised memory.
        let space = unsafe {
            let start = self.start.add(from).cast::<MaybeUninit<u8>>();
            std::slice::from_raw_parts_mut(start, self.len - from)
        };
        ReadBuf::uninit(space)
    }

    fn filled(&self) -> &[u8] {
        // SAFETY: called only after every byte has been written.
        unsafe { std::slice::from_raw_parts(self.start, self.len) }
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any + Send> {
        self
    }
}
