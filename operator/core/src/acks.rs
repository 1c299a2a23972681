//! Whether the tasks of one WorkerPool acknowledge early or late, as workers have told of those that run.
//!
//! What was told lately stands for what runs now: its least and its greatest. It is told only shares, and bounded.

use std::time::Duration;

use crate::time::Moment;

/// A share of early acknowledgement is remembered at least so long.
const ACKS_FOR: Duration = Duration::from_secs(300);

/// Shares of running tasks (thousandths) that were seen to acknowledge early: least and greatest of the last while.
#[derive(Clone, Debug, Default)]
pub struct Acks {
    since: Moment,
    now: Option<(u64, u64)>,
    before: Option<(u64, u64)>,
}

impl Acks {
    pub(crate) fn observe(&mut self, seen: Option<u64>, now: Moment) {
        if seen.is_none() {
            return;
        }
        if now.since(self.since) >= ACKS_FOR {
            self.before = self.now.take();
            self.since = now;
        }
        self.now = span(self.now, seen.map(|share| (share, share)));
    }

    /// Least and greatest share, with `seen` among them; `None` while none was ever seen.
    #[must_use]
    pub fn with(&self, seen: Option<u64>) -> Option<(u64, u64)> {
        span(span(self.now, self.before), seen.map(|share| (share, share)))
    }
}

fn span(left: Option<(u64, u64)>, right: Option<(u64, u64)>) -> Option<(u64, u64)> {
    match (left, right) {
        (Some(left), Some(right)) => Some((left.0.min(right.0), left.1.max(right.1))),
        (one, other) => one.or(other),
    }
}
