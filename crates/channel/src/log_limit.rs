//! How much is logged about strangers, who decide how often they come.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::limits::{LOG_LINES_AT_ONCE, LOG_LINES_PER_SECOND};

/// Lines that may be logged, in all: a burst, and then so many a second.
struct LogLimit(Mutex<State>);

struct State {
    /// When all lines of the burst may be used again.
    rested: Option<Instant>,
    left_out: u64,
}

impl LogLimit {
    /// With the whole burst.
    const fn new() -> Self {
        Self(Mutex::new(State { rested: None, left_out: 0 }))
    }

    /// Whether another line may be logged at `now`; if so, how many have been left out before it.
    fn line(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let rested = state.rested.map_or(now, |rested| rested.max(now));
        if rested.duration_since(now) + span(1) > span(LOG_LINES_AT_ONCE) {
            state.left_out += 1;
            return None;
        }
        state.rested = Some(rested + span(1));
        Some(std::mem::take(&mut state.left_out))
    }
}

/// What all strangers of this process share.
static STRANGERS: LogLimit = LogLimit::new();

/// Whether another line about a stranger may be logged; if so, how many have been left out before
/// it.
pub fn stranger_line() -> Option<u64> {
    STRANGERS.line(Instant::now())
}

/// How long it takes until this many more lines may be logged.
fn span(lines: u32) -> Duration {
    Duration::from_secs(1) * lines / LOG_LINES_PER_SECOND
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_a_few_a_second_and_the_rest_is_counted() {
        let (limit, now) = (LogLimit::new(), Instant::now());
        let burst = (0..3 * LOG_LINES_AT_ONCE).filter_map(|_| limit.line(now));
        assert_eq!(burst.collect::<Vec<_>>(), vec![0; LOG_LINES_AT_ONCE as usize]);
        let later = now + span(1);
        assert_eq!(limit.line(later), Some(u64::from(2 * LOG_LINES_AT_ONCE)));
        assert_eq!(limit.line(later), None);
        assert_eq!(limit.line(later + span(LOG_LINES_AT_ONCE)), Some(1));
    }
}
