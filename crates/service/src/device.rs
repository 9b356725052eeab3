//! The attestation device, and whether it answers.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use std::collections::BTreeMap;

use convelo_attest::{QuoteError, QuoteSource};

use crate::limits::ATTEST_TIMEOUT;

/// Makes the quotes of a service, all of them: for its certificate, when that is renewed, and for
/// parties. Says in the log when the device fails or stops answering, and when it answers again,
/// once each however many ask.
pub(crate) struct Device {
    source: Arc<dyn QuoteSource>,
    /// When the quotes that are being made were asked for.
    pending: Mutex<BTreeMap<u64, Instant>>,
    next: AtomicU64,
    /// Whether the last quote failed.
    failing: AtomicBool,
    /// Whether the log says that it does not answer.
    said: AtomicBool,
}

impl Device {
    pub(crate) fn new(source: Arc<dyn QuoteSource>) -> Arc<Self> {
        Arc::new(Self {
            source,
            pending: Mutex::default(),
            next: AtomicU64::new(0),
            failing: AtomicBool::new(false),
            said: AtomicBool::new(false),
        })
    }

    /// Whether it answers: the last quote was made, and none is overdue.
    pub(crate) fn answers(&self) -> bool {
        let overdue = |asked: &Instant| asked.elapsed() >= ATTEST_TIMEOUT;
        !self.failing() && !self.pending().values().any(overdue)
    }

    /// Whether the last quote failed.
    pub(crate) fn failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }

    /// Says that it has not answered in time.
    pub(crate) fn is_late(&self) {
        if !self.said.swap(true, Ordering::Relaxed) {
            let seconds = ATTEST_TIMEOUT.as_secs();
            tracing::error!(
                "the attestation device has not answered for {seconds} seconds; no party can verify \
                 this service, and no job begins, until it does"
            );
        }
    }

    fn pending(&self) -> MutexGuard<'_, BTreeMap<u64, Instant>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl QuoteSource for Device {
    fn quote(&self, report_data: &[u8; 64]) -> Result<Vec<u8>, QuoteError> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.pending().insert(number, Instant::now());
        let made = self.source.quote(report_data);
        self.pending().remove(&number);
        self.failing.store(made.is_err(), Ordering::Relaxed);
        match &made {
            Err(error) => {
                if !self.said.swap(true, Ordering::Relaxed) {
                    tracing::error!(
                        %error,
                        "no quote could be made; no party can verify this service, and no job begins, \
                         until one can"
                    );
                }
            }
            Ok(_) => {
                if self.said.swap(false, Ordering::Relaxed) {
                    tracing::info!("the attestation device answers again");
                }
            }
        }
        made
    }

    fn describe(&self) -> String {
        self.source.describe()
    }
}
