//! How much a peer may have parked here.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::limits::MINIMUM_CHARGE;

/// The room of one peer. Messages take of it before they are read and give it back when they are
/// received.
pub(crate) struct Quota {
    units: Arc<Semaphore>,
    total: u32,
    /// What may be taken beyond the room while a receive waits: the message it waits for may stand
    /// behind those that fill the room.
    beyond: Arc<Semaphore>,
    awaited: Notify,
}

/// What a message has taken; given back when it is dropped.
pub(crate) struct Charge {
    _units: OwnedSemaphorePermit,
}

impl Quota {
    pub(crate) fn new(bytes: u64) -> Self {
        let total = u32::try_from(bytes.div_ceil(MINIMUM_CHARGE)).unwrap_or(u32::MAX).max(1);
        let semaphore =
            |units: u32| Arc::new(Semaphore::new((units as usize).min(Semaphore::MAX_PERMITS)));
        Self { units: semaphore(total), total, beyond: semaphore(total), awaited: Notify::new() }
    }

    fn charge(&self, bytes: u64) -> u32 {
        // A message larger than the whole room takes all of it.
        u32::try_from(bytes.div_ceil(MINIMUM_CHARGE)).unwrap_or(u32::MAX).clamp(1, self.total)
    }

    /// Takes room at once, if there is some.
    pub(crate) fn try_take(&self, bytes: u64, awaited: bool) -> Option<Charge> {
        let units = self.charge(bytes);
        let from = |pool: &Arc<Semaphore>| Arc::clone(pool).try_acquire_many_owned(units).ok();
        let taken = from(&self.units).or_else(|| awaited.then(|| from(&self.beyond)).flatten());
        taken.map(|units| Charge { _units: units })
    }

    /// Waits for room, at most `wait`.
    pub(crate) async fn take(
        &self,
        bytes: u64,
        awaited: impl Fn() -> bool,
        wait: Duration,
    ) -> Option<Charge> {
        let units = self.charge(bytes);
        let acquire = async {
            let mut units_free = std::pin::pin!(Arc::clone(&self.units).acquire_many_owned(units));
            loop {
                let awaits = self.awaited.notified();
                if awaited()
                    && let Ok(beyond) = Arc::clone(&self.beyond).try_acquire_many_owned(units)
                {
                    return Some(beyond);
                }
                tokio::select! {
                    permit = &mut units_free => return permit.ok(),
                    () = awaits => {}
                }
            }
        };
        let taken = tokio::time::timeout(wait, acquire).await.ok().flatten();
        taken.map(|units| Charge { _units: units })
    }

    /// A receive began to wait.
    pub(crate) fn wake(&self) {
        self.awaited.notify_waiters();
    }
}
