//! The memory that all jobs share, reserved before use.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A number of bytes that reservations are taken from.
#[derive(Clone)]
pub struct Budget {
    total: u64,
    left: Arc<AtomicU64>,
}

impl Budget {
    pub(crate) fn new(bytes: u64) -> Self {
        Self { total: bytes, left: Arc::new(AtomicU64::new(bytes)) }
    }

    /// The size of the budget when nothing is reserved.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Takes `bytes` if that many are left.
    pub fn reserve(&self, bytes: u64) -> Option<Reservation> {
        let take = |left: u64| left.checked_sub(bytes);
        let taken = self.left.fetch_update(Ordering::AcqRel, Ordering::Acquire, take);
        taken.is_ok().then(|| Reservation { budget: self.clone(), bytes })
    }
}

/// Bytes of the budget; given back when dropped.
pub struct Reservation {
    budget: Budget,
    bytes: u64,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.left.fetch_add(self.bytes, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reservation_is_given_back_when_dropped() {
        let budget = Budget::new(100);
        let first = budget.reserve(60).expect("there is room");
        assert!(budget.reserve(50).is_none());
        drop(first);
        assert!(budget.reserve(100).is_some());
        assert_eq!(budget.total(), 100);
    }
}
