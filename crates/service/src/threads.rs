//! All threads of the measured program, which exist before it listens.
//!
//! In an enclave, the number of threads is fixed, and a slot that is there at the start may be the last
//! one. So nothing asks the host how many processors there are, and nothing starts a thread later: the
//! program has them all, or says how many it needs and ends.

use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rayon::ThreadPoolBuilder;
use tokio::runtime::{Builder, Runtime};

use crate::limits::{
    JOINS_AT_ONCE, QUOTES_AT_ONCE, RECLAIMS_AT_ONCE, RENEWALS_AT_ONCE, THREADS_TIMEOUT,
    VERIFICATIONS_AT_ONCE,
};
use crate::memory::STACK_BYTES;

/// Threads for what blocks. Quotes and verifications have two queues, for those with a seat and those
/// without.
const BLOCKING: usize = 2 * (QUOTES_AT_ONCE + VERIFICATIONS_AT_ONCE)
    + JOINS_AT_ONCE
    + RENEWALS_AT_ONCE
    + RECLAIMS_AT_ONCE;

/// Threads that wait for work do so for as long as the program runs.
const FOREVER: Duration = Duration::from_hours(24 * 365 * 100);

/// Gramine has threads of its own.
pub(crate) const OF_GRAMINE: usize = 3;

/// How many threads the program has with this many workers: its first, the workers for connections, as
/// many for joins, and those for what blocks.
pub(crate) fn needed(workers: usize) -> usize {
    1 + 2 * workers + BLOCKING
}

/// Not all threads could be started.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot start all of its {needed} threads ({why}): raise the limit on threads (in an enclave, \
     sgx.max_threads to at least {}, three of which are Gramine's), give it more memory, or ask for fewer \
     --workers",
    .needed + OF_GRAMINE
)]
pub(crate) struct TooFew {
    needed: usize,
    why: String,
}

/// Starts all threads.
///
/// # Errors
/// If one of them cannot be started.
pub(crate) fn start(workers: usize) -> Result<Runtime, TooFew> {
    let too_few = |why: String| TooFew { needed: needed(workers), why };
    ThreadPoolBuilder::new()
        .num_threads(workers)
        .stack_size(STACK_BYTES)
        .build_global()
        .map_err(|error| too_few(error.to_string()))?;
    let gate = Arc::new(Gate::default());
    let count = Arc::clone(&gate);
    let runtime = quietly(|| {
        Builder::new_multi_thread()
            .worker_threads(workers)
            .max_blocking_threads(BLOCKING)
            .thread_stack_size(STACK_BYTES)
            .thread_keep_alive(FOREVER)
            .on_thread_start(move || count.started())
            .enable_all()
            .build()
    });
    let runtime = runtime
        .ok_or_else(|| too_few("the first worker was refused".to_owned()))?
        .map_err(|error| too_few(error.to_string()))?;
    // A thread that is refused is no error to tokio, which waits until one of the others has time.
    let asked = quietly(|| {
        for _ in 0..BLOCKING {
            let gate = Arc::clone(&gate);
            runtime.spawn_blocking(move || gate.pass());
        }
    });
    let expected = if asked.is_some() { (workers + BLOCKING, BLOCKING) } else { (0, 0) };
    let started = gate.wait_for(expected.0, expected.1);
    gate.open();
    if started < workers + BLOCKING {
        runtime.shutdown_background();
        return Err(too_few(format!("the system lets it have {}", 1 + workers + started)));
    }
    Ok(runtime)
}

/// What this returns; nothing if it panics, as tokio does without its first thread.
fn quietly<T>(run: impl FnOnce() -> T) -> Option<T> {
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let outcome = panic::catch_unwind(AssertUnwindSafe(run));
    panic::set_hook(hook);
    outcome.ok()
}

/// Keeps threads until all have come, so that none does the work of two.
#[derive(Default)]
struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    started: usize,
    came: usize,
    is_open: bool,
}

impl Gate {
    fn started(&self) {
        self.lock().started += 1;
        self.changed.notify_all();
    }

    fn pass(&self) {
        let mut state = self.lock();
        state.came += 1;
        self.changed.notify_all();
        let passed = self.changed.wait_while(state, |state| !state.is_open);
        drop(passed.unwrap_or_else(PoisonError::into_inner));
    }

    /// Waits until `started` threads have started and `came` of them have come, or until time is up;
    /// returns how many have started.
    fn wait_for(&self, started: usize, came: usize) -> usize {
        let missing = |state: &mut State| state.started < started || state.came < came;
        let waited = self.changed.wait_timeout_while(self.lock(), THREADS_TIMEOUT, missing);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.started
    }

    fn open(&self) {
        self.lock().is_open = true;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
