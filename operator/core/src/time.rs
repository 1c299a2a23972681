//! The two clocks a decision may see.
//!
//! Ages and windows are measured on the process's own monotonic clock ([`Moment`]), so a stepped wall clock
//! can neither shorten a delay nor make a dead reading look fresh. Wall time ([`jiff::Timestamp`]) is only for
//! what people read and for times that other machines wrote. Both are parameters; nothing here reads a clock.

use std::time::Duration;

/// A point on the process's monotonic clock, in milliseconds since the process started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(pub u64);

impl Moment {
    /// Time from `earlier` to `self`; zero when `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Moment) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// The moment `by` later.
    #[must_use]
    pub fn after(self, by: Duration) -> Moment {
        Moment(
            self.0
                .saturating_add(u64::try_from(by.as_millis()).unwrap_or(u64::MAX)),
        )
    }

    /// The moment `by` earlier, or the start of the process.
    #[must_use]
    pub fn before(self, by: Duration) -> Moment {
        Moment(
            self.0
                .saturating_sub(u64::try_from(by.as_millis()).unwrap_or(u64::MAX)),
        )
    }
}
