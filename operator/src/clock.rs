//! The process's two clocks, read in one place.
//!
//! Everything that decides takes time as a parameter; this is where adapters get it. The monotonic side is
//! tokio's, so that a paused clock in a test moves all of it.

use jiff::Timestamp;
use poolwright_core::time::Moment;
use tokio::time::Instant;

/// Monotonic time since the process started, and the wall clock.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
    wall: fn() -> Timestamp,
}

impl Clock {
    /// Starts counting now; `wall` tells the time of day.
    #[must_use]
    pub fn new(wall: fn() -> Timestamp) -> Self {
        Self {
            start: Instant::now(),
            wall,
        }
    }

    /// The moment that is now.
    #[must_use]
    pub fn now(&self) -> Moment {
        Moment::default().after(self.start.elapsed())
    }

    /// The wall clock, for people and for times that other machines wrote.
    #[must_use]
    pub fn wall(&self) -> Timestamp {
        (self.wall)()
    }
}
