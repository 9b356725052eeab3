//! The memory that all jobs share, reserved before it is used.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A number of bytes that reservations are taken from.
#[derive(Clone)]
pub(crate) struct Budget(Arc<AtomicU64>);

impl Budget {
    pub(crate) fn new(bytes: u64) -> Self {
        Self(Arc::new(AtomicU64::new(bytes)))
    }

    /// Takes `bytes`, or tells how many are left.
    pub(crate) fn reserve(&self, bytes: u64) -> Result<Reservation, u64> {
        self.0
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(bytes))
            .map(|_| Reservation { budget: self.clone(), bytes })
    }
}

/// Bytes of the budget; given back when dropped.
pub(crate) struct Reservation {
    budget: Budget,
    bytes: u64,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.0.fetch_add(self.bytes, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reservation_is_given_back_when_dropped() {
        let budget = Budget::new(100);
        let first = budget.reserve(60).ok().unwrap();
        assert_eq!(budget.reserve(50).err(), Some(40));
        drop(first);
        assert!(budget.reserve(100).is_ok());
    }
}
