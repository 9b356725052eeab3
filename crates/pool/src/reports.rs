//! Lines in the log about strangers, who could otherwise fill it.

use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::limits::{REPORT_PAUSE, REPORTS_AT_ONCE};

/// Says which lines may be written.
#[derive(Default)]
pub(crate) struct Reports(Mutex<Written>);

#[derive(Default)]
struct Written {
    /// When all of them will be forgotten.
    forgotten: Option<Instant>,
    left_out: u64,
}

impl Reports {
    /// The line to write, if there is to be one. It says how many others were not written.
    pub(crate) fn line(&self, text: &str, now: Instant) -> Option<String> {
        let mut written = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let busy_until = written.forgotten.map_or(now, |forgotten| forgotten.max(now));
        if busy_until.duration_since(now) > REPORT_PAUSE * (REPORTS_AT_ONCE - 1) {
            written.left_out += 1;
            return None;
        }
        written.forgotten = Some(busy_until + REPORT_PAUSE);
        let mut line = text.to_owned();
        let left_out = std::mem::take(&mut written.left_out);
        if left_out > 0 {
            let _ = write!(line, " (lines like this that were left out since: {left_out})");
        }
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_strangers_does_not_flood_the_log() {
        let (reports, start) = (Reports::default(), Instant::now());
        let lines =
            |now| (0..1000).filter_map(|_| reports.line("refused", now)).collect::<Vec<_>>();
        assert_eq!(lines(start), ["refused"; REPORTS_AT_ONCE as usize]);
        let later = lines(start + REPORT_PAUSE);
        assert_eq!(later, ["refused (lines like this that were left out since: 990)"]);
        let much_later = start + REPORT_PAUSE * 100;
        assert_eq!(lines(much_later).len(), REPORTS_AT_ONCE as usize);
    }
}
