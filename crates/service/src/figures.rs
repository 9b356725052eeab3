//! What a service counts about itself.
//!
//! Anyone who watches the service's network can see all of it: connections, when jobs begin and
//! end, whether a result was sent. No figure depends on what is in a set or a result.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::Notify;

use crate::limits::JOB_SECONDS;

/// The figures at one moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Figures {
    /// When the service started.
    pub started: SystemTime,
    /// Bytes available to the joins of all jobs together.
    pub memory: u64,
    /// Jobs that are waiting or running.
    pub jobs_open: u64,
    /// Jobs that ended with a result.
    pub results: u64,
    /// Jobs that ended without one.
    pub failures: u64,
    /// The time from a job's first party to its end.
    pub job_seconds: JobSeconds,
    /// Connections past their handshake.
    pub connections_open: u64,
}

/// How long jobs took.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct JobSeconds {
    /// How many took no longer than each of [`JOB_SECONDS`], but longer than the one before it; the
    /// last entry counts those that took longer than all of them.
    pub counts: [u64; JOB_SECONDS.len() + 1],
    /// The sum of their durations in seconds.
    pub sum: f64,
}

/// Keeps the figures.
pub(crate) struct Tally {
    figures: Mutex<Figures>,
    disconnected: Notify,
}

/// A connection, counted until this is dropped.
pub(crate) struct Counted(Arc<Tally>);

impl Tally {
    /// For a service with this much memory that starts now.
    pub(crate) fn new(memory: u64) -> Arc<Self> {
        let figures = Figures {
            started: SystemTime::now(),
            memory,
            jobs_open: 0,
            results: 0,
            failures: 0,
            job_seconds: JobSeconds::default(),
            connections_open: 0,
        };
        Arc::new(Self { figures: Mutex::new(figures), disconnected: Notify::new() })
    }

    pub(crate) fn figures(&self) -> Figures {
        self.lock().clone()
    }

    pub(crate) fn job_opened(&self) {
        self.lock().jobs_open += 1;
    }

    /// Records the end of a job after this time, with or without a result.
    pub(crate) fn job_over(&self, took: Duration, result: bool) {
        let took = took.as_secs_f64();
        let bucket = JOB_SECONDS.iter().take_while(|bound| took > **bound).count();
        let mut figures = self.lock();
        figures.jobs_open -= 1;
        *if result { &mut figures.results } else { &mut figures.failures } += 1;
        figures.job_seconds.counts[bucket] += 1;
        figures.job_seconds.sum += took;
    }

    pub(crate) fn connected(self: &Arc<Self>) -> Counted {
        self.lock().connections_open += 1;
        Counted(Arc::clone(self))
    }

    /// Returns once a connection has ended since the last call. For a single waiter.
    pub(crate) async fn disconnected(&self) {
        self.disconnected.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, Figures> {
        self.figures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.lock().connections_open -= 1;
        self.0.disconnected.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_and_connections_are_counted_until_they_end() {
        let tally = Tally::new(7);
        let connection = tally.connected();
        tally.job_opened();
        let figures = tally.figures();
        assert_eq!((figures.memory, figures.connections_open, figures.jobs_open), (7, 1, 1));
        drop(connection);
        tally.job_over(Duration::from_secs(1), true);
        tally.job_opened();
        tally.job_over(Duration::from_hours(2), false);
        let figures = tally.figures();
        assert_eq!((figures.connections_open, figures.jobs_open), (0, 0));
        assert_eq!((figures.results, figures.failures), (1, 1));
        let job_seconds = JobSeconds { counts: [1, 0, 0, 0, 0, 1], sum: 7201.0 };
        assert_eq!(figures.job_seconds, job_seconds);
    }
}
