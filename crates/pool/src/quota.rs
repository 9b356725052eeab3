//! How many bytes of a peer may be parked here or on their way in. What is beyond that waits, unread:
//! so its sender's connection fills up, and its sender waits.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::limits::MINIMUM_CHARGE;

/// The quota of one peer. Messages take of it before they are read and give it back when they are
/// received.
pub(crate) struct Quota {
    total: u32,
    units: Mutex<Units>,
    /// Whoever waits may look again.
    pub(crate) changed: Notify,
}

#[derive(Default)]
struct Units {
    taken: u32,
    /// What is taken beyond the quota while a receive waits: the message that it waits for may stand
    /// behind those that fill the quota.
    beyond: u32,
    /// Those that wait, in the order in which they came: a large message is not overtaken for ever.
    queue: VecDeque<u64>,
    tickets: u64,
}

/// What a message has taken; given back when it is dropped.
pub(crate) struct Charge {
    quota: Arc<Quota>,
    units: u32,
    beyond: bool,
}

/// A place in the queue, where there is one.
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

    /// Takes for a message of so many bytes, or queues it; `awaited` while a receive waits.
    pub(crate) fn take(
        self: &Arc<Self>,
        bytes: u64,
        awaited: bool,
        ticket: &mut Ticket,
    ) -> Option<Charge> {
        // A message larger than the whole quota takes all of it.
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

    /// Leaves the queue; whoever stood behind may be the first now.
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
