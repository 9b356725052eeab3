//! How many of a peer's bytes may be parked here or on their way in. Anything beyond that waits
//! unread, so that the connection fills up and the sender waits.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::limits::MINIMUM_CHARGE;

/// One peer's quota. Messages draw on it before they are read, and return their share when they are
/// received.
pub(crate) struct Quota {
    total: u32,
    units: Mutex<Units>,
    /// Waiters may look again.
    pub(crate) changed: Notify,
}

#[derive(Default)]
struct Units {
    taken: u32,
    /// What is drawn beyond the quota while a receive waits: the message that it waits for may be
    /// behind those that fill the quota.
    beyond: u32,
    /// The waiters, in order of arrival, so that a large message is not overtaken indefinitely.
    queue: VecDeque<u64>,
    tickets: u64,
}

/// A message's share of the quota; dropping it returns the share.
pub(crate) struct Charge {
    quota: Arc<Quota>,
    units: u32,
    beyond: bool,
}

/// A position in the queue, if there is one.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Ticket(Option<u64>);

impl Ticket {
    pub(crate) fn is_held(&self) -> bool {
        self.0.is_some()
    }
}

impl Quota {
    pub(crate) fn new(bytes: u64) -> Self {
        let total = u32::try_from(bytes.div_ceil(MINIMUM_CHARGE)).unwrap_or(u32::MAX).max(1);
        Self { total, units: Mutex::default(), changed: Notify::new() }
    }

    fn units(&self) -> MutexGuard<'_, Units> {
        self.units.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Draws the share of a message of this many bytes, or queues it; `awaited` while a receive
    /// waits.
    pub(crate) fn take(
        self: &Arc<Self>,
        bytes: u64,
        awaited: bool,
        ticket: &mut Ticket,
    ) -> Option<Charge> {
        // A message larger than the whole quota draws all of it.
        let needed =
            u32::try_from(bytes.div_ceil(MINIMUM_CHARGE)).unwrap_or(u32::MAX).clamp(1, self.total);
        let mut units = self.units();
        let first = units.queue.front().is_none_or(|front| Some(*front) == ticket.0);
        let beyond = if first && self.total - units.taken >= needed {
            units.taken += needed;
            false
        } else if awaited && self.total - units.beyond >= needed {
            units.beyond += needed;
            true
        } else {
            if ticket.0.is_none() {
                units.tickets += 1;
                ticket.0 = Some(units.tickets);
                let place = units.tickets;
                units.queue.push_back(place);
            }
            return None;
        };
        drop(units);
        self.leave(ticket);
        Some(Charge { quota: Arc::clone(self), units: needed, beyond })
    }

    /// Leaves the queue; the next in line may now be first.
    pub(crate) fn leave(&self, ticket: &mut Ticket) {
        let Some(place) = ticket.0.take() else { return };
        self.units().queue.retain(|other| *other != place);
        self.changed.notify_waiters();
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        let mut units = self.quota.units();
        if self.beyond {
            units.beyond -= self.units;
        } else {
            units.taken -= self.units;
        }
        let awaited = !units.queue.is_empty();
        drop(units);
        if awaited {
            self.quota.changed.notify_waiters();
        }
    }
}
