//! The memory that all jobs share, reserved before use.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use convelo_channel::Holder;

use crate::limits::MEMORY_SHARE;
use crate::memory::Limits;

/// A number of bytes that reservations are taken from.
#[derive(Clone)]
pub struct Budget {
    total: u64,
    used: Arc<Mutex<Used>>,
}

#[derive(Default)]
struct Used {
    all: u64,
    by: HashMap<Holder, u64>,
}

/// The memory that all jobs share.
#[derive(Clone)]
pub(crate) struct Room {
    /// For sets, and for all that grows with them.
    pub(crate) sets: Budget,
    /// For what a running job takes beside its sets.
    beside: Budget,
    limits: Limits,
}

impl Room {
    pub(crate) fn new(sets: u64, limits: Limits) -> Self {
        Self { sets: Budget::new(sets), beside: Budget::new(limits.beside_sets), limits }
    }

    /// Takes what a running job needs beside its sets. Each of its parties is known by whom its part counts
    /// for.
    pub(crate) fn begin(&self, parties: &[&[Holder]]) -> Result<Reservation, NoRoom> {
        let bytes = self.limits.beside_a_set(parties.len());
        let needs = parties.iter().map(|holders| Need { bytes, holders: holders.to_vec() });
        let of_all = Need { bytes: Limits::beside_all_sets(), holders: Vec::new() };
        self.beside.reserve_all(&needs.chain([of_all]).collect::<Vec<_>>())
    }

    /// What a running job with this many parties needs beside its sets.
    pub(crate) fn to_begin(&self, parties: usize) -> u64 {
        self.limits.beside_sets_of(parties)
    }

    /// How much there is for what jobs need beside their sets.
    pub(crate) fn beside(&self) -> &Budget {
        &self.beside
    }

    /// Whether a job of two parties could begin.
    pub(crate) fn is_left(&self) -> bool {
        self.beside.is_left(self.to_begin(2))
    }
}

/// What one party needs.
pub(crate) struct Need {
    pub(crate) bytes: u64,
    /// Whom it counts for; nobody, if the operator has admitted the party.
    pub(crate) holders: Vec<Holder>,
}

/// Why there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoRoom {
    /// There is less memory than that in all.
    Ever,
    /// Others have too much of it at present.
    Now,
    /// Nobody may have so much of it for themselves.
    Share,
}

impl Budget {
    pub(crate) fn new(bytes: u64) -> Self {
        Self { total: bytes, used: Arc::default() }
    }

    /// The size of the budget when nothing is reserved.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Whether this many are left.
    fn is_left(&self, bytes: u64) -> bool {
        self.total - self.lock().all >= bytes
    }

    /// Takes `bytes` if that many are left.
    pub fn reserve(&self, bytes: u64) -> Option<Reservation> {
        self.reserve_all(&[Need { bytes, holders: Vec::new() }]).ok()
    }

    /// The most that those from one address, or with one key, may have.
    pub(crate) fn share(&self) -> u64 {
        self.total / MEMORY_SHARE
    }

    /// Takes what all of these need, or nothing.
    pub(crate) fn reserve_all(&self, needs: &[Need]) -> Result<Reservation, NoRoom> {
        let bytes = needs.iter().map(|need| need.bytes).fold(0, u64::saturating_add);
        let mut by: HashMap<Holder, u64> = HashMap::new();
        for need in needs {
            for holder in &need.holders {
                let held = by.entry(*holder).or_default();
                *held = held.saturating_add(need.bytes);
            }
        }
        let mut used = self.lock();
        if bytes > self.total {
            return Err(NoRoom::Ever);
        }
        let beyond = |(holder, more): (&Holder, &u64)| {
            used.by.get(holder).copied().unwrap_or_default().saturating_add(*more) > self.share()
        };
        if by.iter().any(beyond) {
            return Err(NoRoom::Share);
        }
        if bytes > self.total - used.all {
            return Err(NoRoom::Now);
        }
        used.all += bytes;
        for (holder, more) in &by {
            *used.by.entry(*holder).or_default() += more;
        }
        drop(used);
        Ok(Reservation { budget: self.clone(), bytes, by })
    }

    fn lock(&self) -> MutexGuard<'_, Used> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bytes of the budget; given back when dropped.
pub struct Reservation {
    budget: Budget,
    bytes: u64,
    by: HashMap<Holder, u64>,
}

impl Reservation {
    /// Splits this many bytes off, or all, with as large a part of what each holder has.
    pub(crate) fn split_off(&mut self, bytes: u64) -> Self {
        let bytes = bytes.min(self.bytes);
        let part = |of: u64| {
            let part = u128::from(of) * u128::from(bytes) / u128::from(self.bytes.max(1));
            u64::try_from(part).unwrap_or(of)
        };
        let by: HashMap<_, _> = self.by.iter().map(|(holder, of)| (*holder, part(*of))).collect();
        for (holder, part) in &by {
            if let Some(held) = self.by.get_mut(holder) {
                *held -= part;
            }
        }
        self.bytes -= bytes;
        Self { budget: self.budget.clone(), bytes, by }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut used = self.budget.lock();
        used.all -= self.bytes;
        for (holder, bytes) in &self.by {
            if let Some(held) = used.by.get_mut(holder) {
                *held -= bytes;
                if *held == 0 {
                    used.by.remove(holder);
                }
            }
        }
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

    #[test]
    fn a_part_is_given_back_when_the_rest_is_dropped() {
        let budget = Budget::new(100);
        let mut all = budget.reserve_all(&[need(30, 1, 1), need(15, 2, 2)]).expect("room");
        let part = all.split_off(5);
        drop(all);
        assert!(budget.reserve(96).is_none() && budget.reserve(95).is_some());
        assert_eq!(budget.lock().by[&Holder::Key([1; 32])], 3);
        let refused = budget.reserve_all(&[need(48, 1, 1)]).map(drop).unwrap_err();
        assert_eq!(refused, NoRoom::Share);
        drop(part);
        assert!(budget.lock().by.is_empty());
        let mut all = budget.reserve(7).expect("room");
        let part = all.split_off(8);
        drop(all);
        assert!(budget.reserve(94).is_none());
        drop(part);
        assert!(budget.reserve(100).is_some());
    }

    fn need(bytes: u64, source: u8, key: u8) -> Need {
        let holders = vec![Holder::source([192, 0, 2, source].into()), Holder::Key([key; 32])];
        Need { bytes, holders }
    }

    #[test]
    fn nobody_has_more_than_half_for_themselves() {
        let budget = Budget::new(100);
        let refused = |needs: &[Need]| budget.reserve_all(needs).map(drop).unwrap_err();
        assert_eq!(refused(&[need(30, 1, 1), need(21, 1, 2)]), NoRoom::Share, "one source");
        assert_eq!(refused(&[need(30, 1, 1), need(21, 2, 1)]), NoRoom::Share, "one key");
        let first = budget.reserve_all(&[need(30, 1, 1), need(20, 1, 2)]).expect("a half");
        assert_eq!(refused(&[need(1, 1, 3)]), NoRoom::Share);
        let second = budget.reserve_all(&[need(30, 2, 4)]).expect("there is room");
        assert_eq!(refused(&[need(30, 3, 5)]), NoRoom::Now);
        assert_eq!(refused(&[need(101, 3, 5)]), NoRoom::Ever);
        drop((first, second));
        assert!(budget.lock().by.is_empty());
        let admitted = Need { bytes: 100, holders: Vec::new() };
        assert!(budget.reserve_all(&[admitted]).is_ok());
    }
}
