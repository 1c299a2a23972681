//! When tasks that are not due fall due, in bounded form.
//!
//! Decides how much is kept of due times that come from messages and from workers, and what they say of a time to come.
//! What is not kept is not known, and stays what it was without: no demand before it is due. Holds counts; it knows no
//! task, no policy and no clock.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

/// Most seconds that are kept: the earliest. Tasks of any number may fall due within one.
pub const SECONDS_MAX: usize = 128;

/// Tasks that fall due, by the second.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Later {
    /// Unix second, rounded down, and how many; each second once, earliest first, at most [`SECONDS_MAX`].
    by_second: Vec<(i64, u64)>,
}

impl Later {
    /// From due times in Unix milliseconds with the number of tasks that each stands for, in any order.
    #[must_use]
    pub fn new(due: impl IntoIterator<Item = (i64, u64)>) -> Self {
        let mut seconds = BTreeMap::new();
        for (milliseconds, count) in due {
            put(&mut seconds, milliseconds.div_euclid(1000), count);
        }
        Self::earliest(seconds)
    }

    /// From a sample of due times in Unix milliseconds, each with its weight, that stands for `total` tasks: the counts add
    /// up to that, as far as they are kept. A sample of nothing says nothing.
    #[must_use]
    pub fn sampled(mut sample: Vec<(i64, u64)>, total: u64) -> Self {
        sample.sort_unstable();
        let whole: u128 = sample.iter().map(|(_, weight)| u128::from(*weight)).sum();
        let (mut sum, mut given) = (0u128, 0u64);
        let counts = sample.into_iter().map(|(due, weight)| {
            sum += u128::from(weight);
            // Rounded down: what is not certain yet is told later.
            let upto = u128::from(total).saturating_mul(sum) / whole.max(1);
            let upto = u64::try_from(upto).unwrap_or(u64::MAX);
            let count = upto - given;
            given = upto;
            (due, count)
        });
        Self::new(counts)
    }

    fn earliest(seconds: BTreeMap<i64, u64>) -> Self {
        let counted = seconds.into_iter().filter(|(_, count)| *count > 0);
        Self {
            by_second: counted.take(SECONDS_MAX).collect(),
        }
    }

    /// True if nothing is known to fall due.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_second.is_empty()
    }

    /// Takes in others, each count as `part` makes it.
    pub fn add(&mut self, other: &Self, part: impl Fn(u64) -> u64) {
        if other.is_empty() {
            return;
        }
        let mut seconds: BTreeMap<i64, u64> = self.by_second.drain(..).collect();
        for (second, count) in &other.by_second {
            put(&mut seconds, *second, part(*count));
        }
        *self = Self::earliest(seconds);
    }

    /// What falls due after this time.
    #[must_use]
    pub fn after(&self, wall: Timestamp) -> Self {
        let left = self.by_second.iter().filter(|(due, _)| *due > wall.as_second());
        Self {
            by_second: left.copied().collect(),
        }
    }

    /// How many fall due within `span` of this time. Those that were not due when they were read, and are by now, count.
    #[must_use]
    pub fn within(&self, span: Duration, wall: Timestamp) -> u64 {
        let span = i64::try_from(span.as_secs()).unwrap_or(i64::MAX);
        let until = wall.as_second().saturating_add(span);
        let soon = self.by_second.iter().take_while(|(due, _)| *due <= until);
        soon.fold(0, |sum, (_, count)| sum.saturating_add(*count))
    }

    /// The most that fall due in any stretch of `long` (a second at least) within `span` of this time.
    #[must_use]
    pub fn most_at_once(&self, long: Duration, span: Duration, wall: Timestamp) -> u64 {
        let whole = |span: Duration| i64::try_from(span.as_secs()).unwrap_or(i64::MAX);
        let (long, until) = (whole(long).max(1), wall.as_second().saturating_add(whole(span)));
        let soon = self.by_second.partition_point(|(due, _)| *due <= until);
        let (mut most, mut sum, mut first) = (0, 0_u64, 0);
        for (due, count) in &self.by_second[..soon] {
            sum = sum.saturating_add(*count);
            while self.by_second[first].0.saturating_add(long) <= *due {
                sum = sum.saturating_sub(self.by_second[first].1);
                first += 1;
            }
            most = most.max(sum);
        }
        most
    }

    /// How long it takes until the first falls due; zero if it is by now.
    #[must_use]
    pub fn first(&self, wall: Timestamp) -> Option<Duration> {
        let (due, _) = self.by_second.first()?;
        let left = due.saturating_sub(wall.as_second());
        Some(Duration::from_secs(u64::try_from(left).unwrap_or(0)))
    }
}

fn put(seconds: &mut BTreeMap<i64, u64>, second: i64, count: u64) {
    let sum = seconds.entry(second).or_default();
    *sum = sum.saturating_add(count);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// A stream needs a slot at a time, a burst one for each.
    #[test]
    fn most_at_once_is_of_one_service_time() {
        let stream = Later::new((100..130).map(|second| (second * 1000, 20)));
        assert_eq!(
            stream.most_at_once(Duration::from_millis(50), seconds(35), at(90)),
            20
        );
        assert_eq!(stream.most_at_once(seconds(3), seconds(35), at(90)), 60);
        assert_eq!(
            stream.most_at_once(seconds(600), seconds(12), at(90)),
            60,
            "the rest is too far"
        );
        let burst = Later::new([(100_000, 6), (900_000, 9)]);
        assert_eq!(burst.most_at_once(seconds(1), seconds(35), at(90)), 6);
        assert_eq!(burst.most_at_once(seconds(1), Duration::MAX, at(90)), 9);
        let full = Later::new([(100_000, u64::MAX), (101_000, u64::MAX)]);
        assert_eq!(full.most_at_once(seconds(9), seconds(35), at(90)), u64::MAX);
    }

    #[test]
    fn counts_what_falls_due_within_a_time() {
        let later = Later::new([(130_500, 2), (100_999, 1), (130_001, 3), (999_000, 7)]);
        assert_eq!(later.within(seconds(9), at(90)), 0);
        assert_eq!(later.within(seconds(10), at(90)), 1);
        assert_eq!(later.within(seconds(40), at(90)), 6);
        assert_eq!(later.within(Duration::MAX, at(90)), 13);
        assert_eq!(
            later.within(Duration::ZERO, at(131)),
            6,
            "due since they were read"
        );
        assert_eq!(
            (later.first(at(90)), later.first(at(200))),
            (Some(seconds(10)), Some(seconds(0)))
        );
        assert_eq!(later.after(at(130)), Later::new([(999_000, 7)]));
        assert_eq!(Later::default().first(at(0)), None);
    }

    #[test]
    fn a_sample_stands_for_all() {
        let later = Later::sampled(vec![(9000, 1), (1000, 1), (5000, 2)], 400);
        let upto = |second| later.within(Duration::ZERO, at(second));
        assert_eq!((upto(0), upto(1), upto(5), upto(9)), (0, 100, 300, 400));
        assert!(Later::sampled(Vec::new(), 400).is_empty());
        assert!(Later::sampled(vec![(1000, 0)], 400).within(Duration::MAX, at(0)) <= 400);
    }

    /// Year 9999, before the first, and no number that could be added to.
    #[test]
    fn absurd_times_and_counts_saturate() {
        let absurd = [
            (i64::MAX, u64::MAX),
            (i64::MIN, u64::MAX),
            (253_402_300_799_999, 1),
            (-1, 1),
        ];
        let mut later = Later::new(absurd);
        later.add(&Later::new(absurd), |count| count);
        assert_eq!(later.within(Duration::MAX, Timestamp::MAX), u64::MAX);
        assert_eq!(later.within(seconds(60), Timestamp::MIN), u64::MAX);
        assert!(later.first(Timestamp::MAX).is_some() && !later.after(Timestamp::MIN).is_empty());
        assert!(Later::sampled(absurd.to_vec(), u64::MAX).within(Duration::MAX, at(0)) > 0);
    }

    fn dues() -> impl Strategy<Value = Vec<(i64, u64)>> {
        prop::collection::vec((-1000i64..2_000_000, 0u64..50), 0..600)
    }

    proptest! {
        /// Against the definition, as far as is kept; and never more.
        #[test]
        fn is_bounded_and_the_order_does_not_matter(due in dues(), now in 0i64..2000, span in 0u64..500) {
            let later = Later::new(due.clone());
            prop_assert!(later.by_second.len() <= SECONDS_MAX);
            let until = now + i64::try_from(span).unwrap();
            let true_count: u64 = due.iter().filter(|(at, _)| at.div_euclid(1000) <= until).map(|(_, count)| count).sum();
            let found = later.within(seconds(span), at(now));
            prop_assert!(found <= true_count);
            if later.by_second.len() < SECONDS_MAX {
                prop_assert_eq!(found, true_count);
            }
            let (mut other, half) = (due.clone(), due.len() / 2);
            other.reverse();
            prop_assert_eq!(&Later::new(other), &later);
            let mut sum = Later::new(due[half..].iter().copied());
            sum.add(&Later::new(due[..half].iter().copied()), |count| count);
            prop_assert!(sum.by_second.len() <= SECONDS_MAX);
            prop_assert!(sum.within(seconds(span), at(now)) <= true_count);
        }

        #[test]
        fn a_sample_makes_no_task(due in dues(), total in 0u64..10_000, now in 0i64..2000) {
            let later = Later::sampled(due, total);
            prop_assert!(later.by_second.len() <= SECONDS_MAX);
            prop_assert!(later.within(Duration::MAX, at(now)) <= total);
        }
    }
}
