//! The largest need of the last while, and whether that while was seen without a gap.
//!
//! Scale-in follows the largest need of the whole window, and only when every moment of it was backed by fresh
//! data: a gap starts the window anew, so neither an outage nor a restart of this process can shorten it.

use std::collections::VecDeque;
use std::time::Duration;

use crate::time::Moment;

/// A sliding maximum over gapless time.
#[derive(Clone, Debug, Default)]
pub struct Window {
    /// When a need was last seen, oldest first, values strictly falling: so never more entries than distinct needs.
    falling: VecDeque<(Moment, u32)>,
    /// Start of the unbroken run of fresh data of which the largest need is known.
    since: Option<Moment>,
    /// The longest that was asked for: nothing within it is forgotten.
    longest: Duration,
    /// The newest zero's data time, and how many distinct zeros stand in a row.
    zeros: (Option<Moment>, u32),
}

impl Window {
    /// Takes in the need at `now`, computed from data read at `read_at`.
    pub fn push(&mut self, now: Moment, read_at: Moment, need: u32) {
        self.since.get_or_insert(now);
        if need > 0 {
            self.zeros = (None, 0);
        } else if self.zeros.0 != Some(read_at) {
            self.zeros = (Some(read_at), self.zeros.1.saturating_add(1));
        }
        while self.falling.back().is_some_and(|(_, value)| *value <= need) {
            self.falling.pop_back();
        }
        self.falling.push_back((now, need));
    }

    /// Data was missing: what is known of the past no longer counts as unbroken.
    pub fn gap(&mut self) {
        *self = Self {
            longest: self.longest,
            ..Self::default()
        };
    }

    /// The largest need of the last `length`, if all of it was seen; `None` while the window is not yet full.
    pub fn settled(&mut self, now: Moment, length: Duration) -> Option<u32> {
        // Also while it is not known yet: a shorter one that is asked for in between must not let it go.
        self.longest = self.longest.max(length);
        let since = self.since?;
        if now.since(since) < length {
            return None;
        }
        let is_old = |at: Moment, length: Duration| now.since(at) > length;
        while self.falling.len() > 1
            && self
                .falling
                .front()
                .is_some_and(|(at, _)| is_old(*at, self.longest))
        {
            self.falling.pop_front();
            // A longer window that somebody asks for next is not known from the start.
            self.since = Some(now.before(self.longest));
        }
        let young = self.falling.iter().find(|(at, _)| !is_old(*at, length));
        young.or_else(|| self.falling.back()).map(|(_, value)| *value)
    }

    /// How long the data has been unbroken.
    #[must_use]
    pub fn covered(&self, now: Moment) -> Duration {
        self.since.map_or(Duration::ZERO, |since| now.since(since))
    }

    /// Zeros in a row, each from another reading.
    #[must_use]
    pub fn zeros(&self) -> u32 {
        self.zeros.1
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment(seconds * 1000)
    }

    #[test]
    fn a_longer_window_is_not_answered_from_a_shorter_one() {
        let (mut window, short, long) = (
            Window::default(),
            Duration::from_secs(60),
            Duration::from_secs(3600),
        );
        for second in 0..4000 {
            window.push(at(second), at(second), if second < 2000 { 9 } else { 1 });
            if second >= 2100 {
                assert_eq!(window.settled(at(second), short), Some(1));
            }
        }
        assert_eq!(
            window.settled(at(4000), long),
            None,
            "the nine of half an hour ago is forgotten"
        );
        assert_eq!(window.settled(at(4000), short), Some(1));
    }

    #[test]
    fn a_longer_one_is_full_after_its_time_however_often_a_shorter_one_is_asked_for() {
        let mut window = Window::default();
        let [short, long] = [5, 30].map(Duration::from_secs);
        for second in 0..100 {
            window.push(at(second), at(second), if second % 40 == 0 { 9 } else { 1 });
            assert_eq!(
                window.settled(at(second), long).is_some(),
                second >= 30,
                "{second}"
            );
            assert_eq!(
                window.settled(at(second), short).is_some(),
                second >= 5,
                "{second}"
            );
        }
        assert_eq!(window.settled(at(100), long), Some(9));
        assert_eq!(window.settled(at(100), short), Some(1));
    }

    #[test]
    fn follows_the_largest_need_until_it_leaves() {
        let mut window = Window::default();
        let length = Duration::from_secs(60);
        window.push(at(0), at(0), 9);
        for second in 1..=59 {
            window.push(at(second), at(second), 2);
            assert_eq!(window.settled(at(second), length), None, "not full at {second}");
        }
        window.push(at(60), at(60), 2);
        assert_eq!(window.settled(at(60), length), Some(9));
        window.push(at(61), at(61), 2);
        assert_eq!(window.settled(at(61), length), Some(2));
    }

    #[test]
    fn a_gap_starts_anew() {
        let mut window = Window::default();
        for second in 0..100 {
            window.push(at(second), at(second), 0);
        }
        window.gap();
        window.push(at(100), at(100), 0);
        assert_eq!(window.settled(at(120), Duration::from_secs(60)), None);
        assert_eq!(window.zeros(), 1);
    }

    #[test]
    fn one_reading_is_one_zero_however_often_it_is_used() {
        let mut window = Window::default();
        for _ in 0..5 {
            window.push(at(1), at(1), 0);
        }
        assert_eq!(window.zeros(), 1);
        window.push(at(2), at(2), 0);
        assert_eq!(window.zeros(), 2);
        window.push(at(3), at(3), 1);
        assert_eq!(window.zeros(), 0);
    }

    proptest! {
        /// Against the definition.
        #[test]
        fn is_the_maximum_of_the_window(needs in prop::collection::vec((0u64..1500, 0u32..20), 1..200), length in 0u64..30) {
            let mut window = Window::default();
            let mut seen = Vec::new();
            let mut now = 0;
            let length = Duration::from_secs(length);
            for (step, need) in needs {
                now += step;
                window.push(Moment(now), Moment(now), need);
                seen.push((Moment(now), need));
                if let Some(found) = window.settled(Moment(now), length) {
                    let largest = seen.iter().filter(|(at, _)| Moment(now).since(*at) <= length).map(|(_, need)| *need).max();
                    prop_assert_eq!(Some(found), largest);
                }
            }
            prop_assert!(window.falling.len() <= 20);
        }
    }
}
