//! The progress of a run that uses several services, shown as one.

use std::sync::{Arc, Mutex, PoisonError};

use crate::event::{Event, Observer};

/// What one service's part tells the observer: a step that all parts take is reported by the first.
#[derive(Clone)]
pub(crate) struct Progress {
    observer: Arc<dyn Observer>,
    number: usize,
    /// How many keys each part has sent.
    sent: Arc<Mutex<Vec<u64>>>,
}

impl Progress {
    /// Progress for each of this many parts.
    pub(crate) fn of(observer: &Arc<dyn Observer>, parts: usize) -> Vec<Self> {
        let sent = Arc::new(Mutex::new(vec![0; parts]));
        let part =
            |number| Self { observer: Arc::clone(observer), number, sent: Arc::clone(&sent) };
        (0..parts).map(part).collect()
    }

    /// This part has sent so many keys; `total` is what all parts send together.
    pub(crate) fn sent(&self, keys: u64, total: u64) {
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        sent[self.number] = keys;
        let done = sent.iter().sum();
        drop(sent);
        self.observer.on(Event::Sending { done, total });
    }
}

impl Observer for Progress {
    fn on(&self, event: Event<'_>) {
        let of_each = matches!(
            event,
            Event::Connecting { .. }
                | Event::ServiceAbsent { .. }
                | Event::ConnectionLost { .. }
                | Event::Reconnected
                | Event::EvidenceVerified(_)
                | Event::KeyRecognised
        );
        if self.number == 0 || of_each {
            self.observer.on(event);
        }
    }
}
