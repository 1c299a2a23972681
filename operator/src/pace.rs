//! How many of something there may be in a while: a token bucket of which only one moment is kept.

use std::time::Duration;

use tokio::time::Instant;

/// One in each while, and so many at once where there was none for long enough.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// In which time one more may come.
    pub(crate) every: Duration,
    /// How many may come at once.
    pub(crate) in_a_row: u32,
}

impl Pace {
    /// From when on nothing counts any more if there is one `now`, where that was `free` before it; `None` if there may be
    /// none.
    pub(crate) fn next(self, free: Instant, now: Instant) -> Option<Instant> {
        let next = free.max(now) + self.every;
        (next <= now + self.every * self.in_a_row).then_some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_come_at_once_and_then_one_in_each_while() {
        let pace = Pace {
            every: Duration::from_secs(10),
            in_a_row: 3,
        };
        let begin = Instant::now();
        let mut free = begin;
        let mut come = |second| {
            let now = begin + Duration::from_secs(second);
            let next = pace.next(free, now);
            free = next.unwrap_or(free);
            next.is_some()
        };
        assert_eq!(
            [0, 0, 0, 0, 9, 11, 11].map(&mut come),
            [true, true, true, false, false, true, false]
        );
        assert_eq!(
            [90, 90, 90, 90].map(&mut come),
            [true, true, true, false],
            "as at first"
        );
    }
}
