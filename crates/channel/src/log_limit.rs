//! How much is logged about strangers, who decide how often they come.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::limits::{LOG_LINE_PAUSE, LOG_LINES_AT_ONCE};

/// Lines that may be logged, in all: a burst, and then one in each pause.
pub struct LogLimit {
    at_once: u32,
    pause: Duration,
    state: Mutex<State>,
}

struct State {
    /// When all lines of the burst may be used again.
    rested: Option<Instant>,
    left_out: u64,
}

impl LogLimit {
    /// With the whole burst of `at_once` lines.
    pub const fn new(at_once: u32, pause: Duration) -> Self {
        Self { at_once, pause, state: Mutex::new(State { rested: None, left_out: 0 }) }
    }

    /// Whether another line may be logged at `now`; if so, how many have been left out before it.
    pub fn line(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let rested = state.rested.map_or(now, |rested| rested.max(now)) + self.pause;
        if rested.duration_since(now) > self.pause * self.at_once {
            state.left_out += 1;
            return None;
        }
        state.rested = Some(rested);
        Some(std::mem::take(&mut state.left_out))
    }
}

/// What all strangers of this process share.
static STRANGERS: LogLimit = LogLimit::new(LOG_LINES_AT_ONCE, LOG_LINE_PAUSE);

/// Whether another line about a stranger may be logged; if so, how many have been left out before
/// it.
pub fn stranger_line() -> Option<u64> {
    STRANGERS.line(Instant::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_strangers_does_not_flood_the_log() {
        const PAUSE: Duration = Duration::from_secs(10);
        let (limit, now) = (LogLimit::new(5, PAUSE), Instant::now());
        let lines = |now| (0..20).filter_map(|_| limit.line(now)).collect::<Vec<_>>();
        assert_eq!(lines(now), [0; 5]);
        assert_eq!(lines(now + PAUSE), [15]);
        assert_eq!(lines(now + PAUSE * 100), [19, 0, 0, 0, 0]);
    }
}
