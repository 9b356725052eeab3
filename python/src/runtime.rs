//! The thread that runs all of this process's nodes.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// One thread: it sleeps and wakes more cheaply than a pool of threads that watch each other.
struct Thread {
    process: u32,
    handle: Handle,
    stop: oneshot::Sender<()>,
    joined: JoinHandle<()>,
}

static THREAD: Mutex<Option<Thread>> = Mutex::new(None);

fn lock() -> MutexGuard<'static, Option<Thread>> {
    THREAD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The runtime, started on first use. After a fork its thread is gone, and a new one is made.
pub(crate) fn runtime(py: Python<'_>) -> PyResult<Handle> {
    let mut current = lock();
    if let Some(thread) = &*current
        && thread.process == std::process::id()
    {
        return Ok(thread.handle.clone());
    }
    let failed = |error: std::io::Error| {
        PyRuntimeError::new_err(format!("no thread can be started: {error}"))
    };
    let runtime = Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let handle = runtime.handle().clone();
    let (stop, stopped) = oneshot::channel::<()>();
    let thread = std::thread::Builder::new()
        .name("convelo-pool".to_owned())
        .spawn(move || {
            let _ = runtime.block_on(stopped);
            runtime.shutdown_background();
        })
        .map_err(failed)?;
    let started =
        Thread { process: std::process::id(), handle: handle.clone(), stop, joined: thread };
    let forked = current.replace(started);
    drop(current);
    // Its thread does not exist in this process: there is nothing to wait for, and nothing may be
    // dropped.
    std::mem::forget(forked);
    let at_exit = pyo3::wrap_pyfunction!(stop_at_exit, py)?;
    py.import("atexit")?.call_method1("register", (at_exit,))?;
    Ok(handle)
}

/// Stops the thread while the interpreter still exists: what it holds belongs to Python.
#[pyfunction]
fn stop_at_exit(py: Python<'_>) {
    let Some(thread) = lock().take() else { return };
    if thread.process != std::process::id() {
        std::mem::forget(thread);
        return;
    }
    let _ = thread.stop.send(());
    // It may be waiting for the GIL, to make a bytes object.
    py.detach(|| {
        let _ = thread.joined.join();
    });
}
