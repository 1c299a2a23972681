//! Whether a queue misses its wait target: what is known of how long its tasks wait, over time.
//!
//! A task waits too long if it has waited longer than the target already, or would if it were pushed now. While none waits
//! nobody is late: that workers of an empty queue at zero need longer to start than the target is no miss of it. That one
//! does so for a moment is no miss: a burst that comes while no worker is up is late under any rule. What is not known
//! counts for neither side: it begins no miss and ends none, and its time is not counted. For people: no decision
//! follows from it.

use std::time::Duration;

use jiff::Timestamp;

use crate::ledger::QueueLedger;
use crate::time::Moment;

/// A miss is over once tasks have waited no longer than the target for so long: an estimate swings.
const OVER_AFTER: Duration = Duration::from_secs(10);
/// The same of a miss that another process saw begin: the first estimates of this one are made from nothing.
const INHERITED_OVER_AFTER: Duration = Duration::from_secs(60);

/// How long tasks of a queue wait, as far as it is known, in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Wait {
    /// A task that is pushed now.
    pub expected: Option<f64>,
    /// The one that has waited longest, at least.
    pub oldest: Option<f64>,
    /// Tasks wait, and nobody takes them or would be started for them.
    pub unserved: bool,
}

impl Wait {
    /// What there is to say of it against a target: whether tasks wait longer.
    fn exceeds(&self, target: f64) -> Option<bool> {
        let known = [self.expected, self.oldest].into_iter().flatten();
        if known.clone().any(|wait| wait > target) {
            return Some(true);
        }
        // Those that nobody takes wait within the target as yet, and it does not get better.
        (known.count() > 0 && !self.unserved).then_some(false)
    }
}

/// A miss.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Miss {
    /// Since when tasks have waited longer than the target.
    pub since: Timestamp,
    /// How long they wait.
    pub wait: Wait,
}

/// What is remembered of one queue.
#[derive(Clone, Debug, Default)]
pub struct Lateness {
    /// Whether the target is missed; `None` before anything is known.
    missed: Option<bool>,
    /// Misses that this process saw begin.
    misses: u64,
    /// Another process saw this one begin.
    inherited: bool,
    /// Since when tasks wait longer, while they do or it counts as missed.
    since: Option<Timestamp>,
    /// On which side of the target it is, and for how long that is known.
    side: Option<(bool, Duration)>,
    /// The last look, if something was known then.
    last: Option<Moment>,
    /// The last wait that was known.
    wait: Wait,
    /// Since when tasks have waited and nobody takes them.
    unserved_since: Option<Moment>,
    /// What a task that is pushed now would wait counts, too, while none waits.
    ahead: bool,
}

impl Lateness {
    /// Takes over what a process has told that was there before: since when there is a miss, or that there is none.
    #[must_use]
    pub fn inherited(since: Option<Timestamp>) -> Self {
        Self {
            missed: Some(since.is_some()),
            inherited: since.is_some(),
            since,
            ..Self::default()
        }
    }

    /// One that also counts what a task would wait where none waits: a warning, and no miss.
    #[must_use]
    pub fn ahead() -> Self {
        Self {
            ahead: true,
            ..Self::default()
        }
    }

    /// Whether the target is missed; `None` before anything is known.
    #[must_use]
    pub const fn is_missed(&self) -> Option<bool> {
        self.missed
    }

    /// Misses that this process saw begin.
    #[must_use]
    pub const fn misses(&self) -> u64 {
        self.misses
    }

    /// The miss, while there is one.
    #[must_use]
    pub fn miss(&self) -> Option<Miss> {
        let since = self.since.filter(|_| self.missed == Some(true))?;
        Some(Miss {
            since,
            wait: self.wait,
        })
    }

    /// Takes in what is known of a queue now; `None` where it was not read.
    pub fn look(
        &mut self,
        book: Option<&QueueLedger>,
        (target, after): (Duration, Duration),
        (now, wall): (Moment, Timestamp),
    ) {
        let wait = book.map_or_else(Wait::default, |book| self.wait(book, now));
        let exceeds = wait.exceeds(target.as_secs_f64());
        if exceeds.is_some() || wait.unserved {
            self.wait = wait;
        }
        self.weigh(exceeds, after, (now, wall));
    }

    /// What is known of its tasks.
    fn wait(&mut self, book: &QueueLedger, now: Moment) -> Wait {
        let outlook = &book.outlook;
        let Some(ready) = book.ready.filter(|_| !outlook.doubted) else {
            return Wait::default();
        };
        let expected = outlook.wait();
        // Who consumes it and is not ours is not known to be at work or to stand.
        let nobody = outlook.nobody(book.claimants) && book.consumers == 0 && book.foreign_consumers == 0;
        if expected.is_some() || ready == 0 {
            self.unserved_since = None;
        } else if nobody {
            self.unserved_since.get_or_insert(now);
        }
        let unserved = self.unserved_since.filter(|_| nobody);
        let unserved_for = unserved.map(|since| now.since(since));
        let nothing = ready == 0 && (nobody || book.reserved == Some(0));
        let oldest = outlook
            .oldest
            .max(unserved_for)
            .or_else(|| nothing.then_some(Duration::ZERO));
        Wait {
            expected: expected.filter(|_| self.ahead || !nothing),
            oldest: oldest.map(|age| age.as_secs_f64()),
            unserved: unserved.is_some(),
        }
    }

    /// Begins and ends a miss.
    fn weigh(&mut self, exceeds: Option<bool>, after: Duration, (now, wall): (Moment, Timestamp)) {
        let before = self.last.take();
        let Some(exceeds) = exceeds else { return };
        self.last = Some(now);
        let so_far = match self.side {
            Some((side, long)) if side == exceeds => {
                long + before.map_or(Duration::ZERO, |before| now.since(before))
            }
            _ => Duration::ZERO,
        };
        self.side = Some((exceeds, so_far));
        let was_missed = self.missed == Some(true);
        if exceeds {
            self.since.get_or_insert(wall);
            if so_far >= after && !was_missed {
                self.misses += 1;
                self.inherited = false;
                self.missed = Some(true);
            }
        } else {
            let enough = if self.inherited {
                INHERITED_OVER_AFTER
            } else {
                OVER_AFTER
            };
            if !was_missed || so_far >= enough {
                self.missed = Some(false);
                self.since = None;
            }
        }
        self.missed.get_or_insert(false);
    }
}

#[cfg(test)]
#[path = "late_tests.rs"]
mod tests;
