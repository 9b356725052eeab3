//! Results on their way from the transport's threads to an event loop.
//!
//! The transport never takes the GIL: it pushes to a queue and, if the queue was idle, writes to an
//! eventfd that the loop watches. `drain` then settles everything there is, so a burst costs one
//! wake-up.

use std::collections::HashMap;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use convelo_pool::{
    Dropped, Incoming, Level, Notice, PeerHandle, ReceiveError, ReceiveErrorKind, ReceiveToken,
    SendError, SendErrorKind,
};
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyList;
use rustix::event::{EventfdFlags, eventfd};

use crate::message;

/// A loop's future; it is set by the time its result is taken from the queue.
pub(crate) type Slot = Arc<OnceLock<Py<PyAny>>>;

/// The waiting receives, by the address of their future.
#[derive(Clone, Default)]
pub(crate) struct Tokens(Arc<Mutex<HashMap<usize, Awaited>>>);

/// A waiting receive, and the queue that its message will come through.
pub(crate) type Awaited = (ReceiveToken, Arc<Queue>);

impl Tokens {
    fn lock(&self) -> MutexGuard<'_, HashMap<usize, Awaited>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn insert(&self, future: &Bound<'_, PyAny>, awaited: Awaited) {
        self.lock().insert(future.as_ptr() as usize, awaited);
    }

    pub(crate) fn take(&self, future: &Bound<'_, PyAny>) -> Option<Awaited> {
        self.lock().remove(&(future.as_ptr() as usize))
    }
}

/// One result.
pub(crate) enum Completion {
    /// A send.
    Sent(Py<PyAny>, Result<(), SendError>),
    /// The question of which wire a peer speaks.
    Prepared(Py<PyAny>, PeerHandle, Result<(), SendError>),
    /// A receive that had to wait.
    Received(Slot, Tokens, PeerHandle, Result<Incoming, ReceiveError>),
    /// A node has been closed.
    Closed(Py<PyAny>, Vec<Dropped>),
    /// For people.
    Notice(Arc<Py<PyAny>>, Notice),
}

pub(crate) struct Queue {
    items: Mutex<Vec<Completion>>,
    armed: AtomicBool,
    event: OwnedFd,
}

impl Queue {
    /// Pushes first and arms second: whoever finds the flag clear writes the wake-up.
    pub(crate) fn push(&self, completion: Completion) {
        self.items.lock().unwrap_or_else(PoisonError::into_inner).push(completion);
        if !self.armed.swap(true, Ordering::AcqRel) {
            // The counter cannot be full: it is reset before the flag is cleared.
            let _ = rustix::io::write(&self.event, &1u64.to_ne_bytes());
        }
    }

    /// Removes what arrived for a cancelled future.
    pub(crate) fn withdraw(
        &self,
        future: &Bound<'_, PyAny>,
    ) -> Option<Result<Incoming, ReceiveError>> {
        let is_its = |completion: &Completion| match completion {
            Completion::Received(slot, ..) => slot.get().is_some_and(|its| its.is(future)),
            _ => false,
        };
        let mut items = self.items.lock().unwrap_or_else(PoisonError::into_inner);
        let position = items.iter().position(is_its)?;
        match items.remove(position) {
            Completion::Received(_, _, _, result) => Some(result),
            _ => None,
        }
    }

    /// Clears the flag before taking the queue: a push in between is either taken now or has
    /// written a new wake-up. None is lost.
    fn take(&self) -> Vec<Completion> {
        let _ = rustix::io::read(&self.event, &mut [0u8; 8]);
        self.armed.store(false, Ordering::Release);
        std::mem::take(&mut *self.items.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// See the stub file.
#[pyclass(frozen, module = "convelo._convelo")]
pub(crate) struct Completions {
    queue: Arc<Queue>,
    create_future: Py<PyAny>,
    create_receipt: Py<PyAny>,
    call_soon: Py<PyAny>,
    corked: Mutex<Vec<PeerHandle>>,
}

#[pymethods]
impl Completions {
    #[new]
    #[pyo3(signature = (r#loop, create_receipt=None))]
    fn new(r#loop: &Bound<'_, PyAny>, create_receipt: Option<Py<PyAny>>) -> PyResult<Self> {
        let event = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)
            .map_err(|error| PyOSError::new_err(error.to_string()))?;
        let queue = Queue { items: Mutex::default(), armed: AtomicBool::new(false), event };
        let create_future = r#loop.getattr("create_future")?.unbind();
        let create_receipt = create_receipt.unwrap_or_else(|| create_future.clone_ref(r#loop.py()));
        let call_soon = r#loop.getattr("call_soon")?.unbind();
        let (queue, corked) = (Arc::new(queue), Mutex::default());
        Ok(Self { queue, create_future, create_receipt, call_soon, corked })
    }

    fn fileno(&self) -> i32 {
        self.queue.event.as_raw_fd()
    }

    /// Settles everything that has completed. Runs on the loop's thread.
    fn drain(&self, py: Python<'_>) -> PyResult<()> {
        message::bury(py);
        for completion in self.queue.take() {
            settle(py, completion)?;
        }
        Ok(())
    }

    /// Sends everything that was queued in this turn of the loop.
    fn flush(&self) {
        let corked = std::mem::take(&mut *self.corked());
        for peer in corked {
            peer.flush();
        }
    }

    /// Drops what is queued, because the loop is gone. Messages go back to their mailbox.
    fn close(&self, py: Python<'_>) {
        for completion in self.queue.take() {
            if let Completion::Received(slot, tokens, peer, Ok(incoming)) = completion {
                let awaited = slot.get().and_then(|future| tokens.take(future.bind(py)));
                put_back(&peer, incoming, awaited);
            }
        }
    }
}

impl Completions {
    fn corked(&self) -> MutexGuard<'_, Vec<PeerHandle>> {
        self.corked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the transport at the end of this turn of the loop, once for a whole burst.
    pub(crate) fn flush_soon(slf: &Bound<'_, Self>, peer: &PeerHandle) -> PyResult<()> {
        let this = slf.get();
        let scheduled = {
            let mut corked = this.corked();
            let scheduled = !corked.is_empty();
            if !corked.contains(peer) {
                corked.push(peer.clone());
            }
            scheduled
        };
        if !scheduled {
            let flush = slf.getattr(pyo3::intern!(slf.py(), "flush"))?;
            this.call_soon.bind(slf.py()).call1((flush,))?;
        }
        Ok(())
    }

    pub(crate) fn queue(&self) -> &Arc<Queue> {
        &self.queue
    }

    pub(crate) fn future<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.create_future.bind(py).call0()
    }

    /// The future for a message.
    pub(crate) fn receipt<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.create_receipt.bind(py).call0()
    }
}

fn settle(py: Python<'_>, completion: Completion) -> PyResult<()> {
    match completion {
        Completion::Sent(future, result) => {
            finish(py, future.bind(py), result.map(|()| py.None()).map_err(|e| send_error(py, &e)))
        }
        Completion::Prepared(future, peer, result) => {
            let wire = peer.wire().map_or(0, convelo_pool::Wire::number);
            let wire = wire.into_pyobject(py)?.into_any().unbind();
            finish(py, future.bind(py), result.map(|()| wire).map_err(|e| send_error(py, &e)))
        }
        Completion::Received(slot, tokens, peer, result) => {
            let Some(future) = slot.get() else { return Ok(()) };
            let future = future.bind(py);
            let awaited = tokens.take(future);
            match result {
                Ok(incoming) if is_done(future)? => put_back(&peer, incoming, awaited),
                Ok(incoming) => {
                    let message = message::to_python(py, incoming)?;
                    future.call_method1(pyo3::intern!(py, "set_result"), (message,))?;
                }
                Err(error) => finish(py, future, Err(receive_error(py, &error)))?,
            }
            Ok(())
        }
        Completion::Closed(future, dropped) => {
            let texts = dropped
                .iter()
                .map(|message| format!("message {} to '{}'", message.id, message.peer));
            let list = PyList::new(py, texts.collect::<Vec<_>>())?.into_any().unbind();
            finish(py, future.bind(py), Ok(list))
        }
        Completion::Notice(hook, notice) => {
            let level = match notice.level {
                Level::Debug => 10,
                Level::Info => 20,
                Level::Warning => 30,
            };
            hook.bind(py).call1((level, notice.peer, notice.text))?;
            Ok(())
        }
    }
}

fn put_back(peer: &PeerHandle, incoming: Incoming, awaited: Option<Awaited>) {
    match awaited {
        Some((token, _)) => token.put_back(incoming),
        None => peer.put_back(incoming),
    }
}

/// A cancelled future accepts nothing.
fn finish(
    py: Python<'_>,
    future: &Bound<'_, PyAny>,
    result: Result<Py<PyAny>, PyErr>,
) -> PyResult<()> {
    if is_done(future)? {
        return Ok(());
    }
    match result {
        Ok(value) => future.call_method1(pyo3::intern!(py, "set_result"), (value,))?,
        Err(error) => {
            future.call_method1(pyo3::intern!(py, "set_exception"), (error.into_value(py),))?
        }
    };
    Ok(())
}

fn is_done(future: &Bound<'_, PyAny>) -> PyResult<bool> {
    future.call_method0(pyo3::intern!(future.py(), "done"))?.is_truthy()
}

static FROM_TRANSPORT: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// The exception from `convelo.exceptions` for a kind of failure.
fn exception(
    py: Python<'_>,
    kind: &str,
    text: String,
    peer: &str,
    id: Option<&convelo_pool::MessageId>,
    maybe_delivered: bool,
) -> PyErr {
    let make = || -> PyResult<Bound<'_, PyAny>> {
        let from_transport = FROM_TRANSPORT.get_or_try_init(py, || {
            let module = py.import("convelo.exceptions")?;
            Ok::<_, PyErr>(module.getattr("from_transport")?.unbind())
        })?;
        let id = id.map(|id| message::id_to_python(py, id)).transpose()?;
        from_transport.bind(py).call1((kind, text, peer, id, maybe_delivered))
    };
    match make() {
        Ok(value) => PyErr::from_value(value),
        Err(error) => error,
    }
}

pub(crate) fn send_error(py: Python<'_>, error: &SendError) -> PyErr {
    let kind = match error.kind {
        SendErrorKind::Unreachable => "unreachable",
        SendErrorKind::NotAuthenticated => "not_authenticated",
        SendErrorKind::TooLarge => "too_large",
        SendErrorKind::TimedOut => "timeout",
        SendErrorKind::Downgraded => "downgraded",
        SendErrorKind::Restarted => "restarted",
        SendErrorKind::QueueFull => "queue_full",
        SendErrorKind::Closed => "closed",
        _ => "refused",
    };
    exception(py, kind, error.to_string(), &error.peer, error.id.as_ref(), error.maybe_delivered)
}

pub(crate) fn receive_error(py: Python<'_>, error: &ReceiveError) -> PyErr {
    let kind = match error.kind {
        ReceiveErrorKind::Restarted => "restarted",
        ReceiveErrorKind::Closed => "closed",
        _ => "lost",
    };
    exception(py, kind, error.to_string(), &error.peer, error.id.as_ref(), false)
}
