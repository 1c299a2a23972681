//! For how long pods stay when there is nothing to do.
//!
//! Without a past: for one start-up time, which costs at most twice of what knowing the next task would (the
//! deterministic ski rental). With one: not even that where the last idle times say that ending at once, and starting anew,
//! would have cost less. It is told only whether there is something to do.

use std::collections::VecDeque;
use std::time::Duration;

use crate::time::Moment;

/// Idle times that are remembered.
const KEPT: usize = 20;
/// Fewer say nothing.
const ENOUGH: usize = 2;
/// A shorter one may be a task that was between a queue and a heartbeat.
const SHORTEST: Duration = Duration::from_secs(5);

/// The idle times of one WorkerPool.
#[derive(Clone, Debug, Default)]
pub struct Idle {
    since: Option<Moment>,
    last: VecDeque<Duration>,
}

impl Idle {
    /// Takes in whether there is something to do.
    pub fn observe(&mut self, something: bool, now: Moment) {
        if !something {
            self.since.get_or_insert(now);
            return;
        }
        let Some(gap) = self.since.take().map(|since| now.since(since)) else {
            return;
        };
        if gap >= SHORTEST {
            self.last.push_back(gap);
            if self.last.len() > KEPT {
                self.last.pop_front();
            }
        }
    }

    /// What was there meanwhile is not known: this idle time is none to learn from.
    pub fn gap(&mut self) {
        self.since = None;
    }

    /// For how long pods stay that take `start_up` to come back, and that stay no shorter than `least`.
    #[must_use]
    pub fn stay(&self, start_up: Duration, least: Duration) -> Duration {
        if self.since.is_none() || self.last.len() < ENOUGH || least >= start_up {
            return start_up;
        }
        // Pod-time that each idle time would have cost: until it ended, or what was stayed and a start.
        let cost = |stay: Duration| -> Duration {
            let each = |gap: &Duration| if *gap <= stay { *gap } else { stay + start_up };
            self.last.iter().map(each).sum()
        };
        if cost(least) < cost(start_up) {
            least
        } else {
            start_up
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After idle times of so many seconds, and idle again.
    fn after(gaps: &[u64]) -> Duration {
        let mut idle = Idle::default();
        let mut now = 0;
        for gap in gaps {
            idle.observe(false, Moment(now * 1000));
            now += gap;
            idle.observe(true, Moment(now * 1000));
            now += 10;
        }
        idle.observe(false, Moment(now * 1000));
        idle.stay(Duration::from_secs(30), Duration::from_secs(10))
    }

    #[test]
    fn pods_do_not_stay_where_nothing_ever_came_in_time() {
        assert_eq!(after(&[840; 2]).as_secs(), 10);
        assert_eq!(after(&[840]).as_secs(), 30, "too few");
        assert_eq!(after(&[840, 1, 1, 1, 2]).as_secs(), 30, "flicker is no idle time");
    }

    #[test]
    fn pods_stay_where_something_came_in_time() {
        assert_eq!(after(&[20; 9]).as_secs(), 30);
        // Staying costs 20 more each time and saves 20 and a start: one in three is enough.
        assert_eq!(after(&[20, 20, 900, 900, 900, 900]).as_secs(), 10);
        assert_eq!(after(&[20, 20, 20, 900, 900, 900]).as_secs(), 30);
    }

    /// The old ones are forgotten, and while there is something to do nothing is known of the next idle time.
    #[test]
    fn it_changes_its_mind_and_stays_bounded() {
        let mut gaps = vec![840; 100];
        gaps.extend([20; 20]);
        assert_eq!(after(&gaps).as_secs(), 30);
        let mut idle = Idle::default();
        for second in 0..1000 {
            idle.observe(second % 2 == 0, Moment(second * 100_000));
        }
        assert_eq!(idle.last.len(), KEPT);
        idle.observe(true, Moment(2_000_000_000));
        assert_eq!(
            idle.stay(Duration::from_secs(30), Duration::from_secs(10))
                .as_secs(),
            30
        );
    }
}
