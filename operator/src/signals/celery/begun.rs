//! How many tasks of one route a worker runs, and for how long they have been running.
//!
//! Dates are those of another machine: what cannot be true is no time.

use std::time::Duration;

use jiff::Timestamp;

/// Beyond this a date (seconds of Unix time) and the time that a task may have run (milliseconds, thirty days) are no such
/// thing; clocks that differ make it a little less than nothing.
const DATE_MAX: f64 = 1e11;
const RAN_MAX: i64 = 30 * 24 * 3600 * 1000;

/// Running tasks of one route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Begun {
    pub(super) acknowledged: u64,
    pub(super) unacknowledged: u64,
    /// Of those that say when they began: how many, and these times added up, in Unix milliseconds.
    dated: i64,
    dates: i64,
}

impl Begun {
    /// Notes when one of them began.
    pub(super) fn date(&mut self, seconds: f64) {
        if !(seconds > 0.0 && seconds < DATE_MAX) {
            return;
        }
        #[allow(clippy::cast_possible_truncation, reason = "bounded just now")]
        let milliseconds = (seconds * 1000.0) as i64;
        self.dated += 1;
        self.dates = self.dates.saturating_add(milliseconds);
    }

    /// For how long they have been running, added up.
    pub(super) fn ran(&self, wall: Timestamp) -> Duration {
        let now = wall.as_millisecond().saturating_mul(self.dated);
        let ran = now.saturating_sub(self.dates).clamp(0, self.dated * RAN_MAX);
        Duration::from_millis(u64::try_from(ran).unwrap_or(0))
    }
}
