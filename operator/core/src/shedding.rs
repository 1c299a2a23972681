//! What a high load of a shared resource takes away.
//!
//! A load is a percentage that something outside tells, a Prometheus or a `ConfigMap`. Above the limit half the slots are
//! taken away, at the limit or below none. Missing is not low, and not high either: without a fresh reading what was so
//! before stays so, and a process that has just started takes nothing away before its first reading.

use std::collections::BTreeMap;

use poolwright_api::v1alpha1::{HighLoad, LoadSource};

use crate::constants::LOAD_FRESH;
use crate::sample::Signal;
use crate::time::Moment;

/// The greatest load that is believed, in percent.
pub const PERCENT_MAX: f64 = 1_000_000.0;

/// One source of a load: those of two namespaces are two, for a `ConfigMap` belongs to its namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LoadKey {
    /// Where it is written.
    pub namespace: String,
    /// What is read.
    pub source: LoadSource,
}

impl LoadKey {
    /// The load that an object of this namespace heeds.
    #[must_use]
    pub fn new(namespace: &str, high: &HighLoad) -> Self {
        Self {
            namespace: namespace.to_owned(),
            source: high.source.clone(),
        }
    }
}

/// The last good reading of a load in percent, and why the newest is missing.
pub type Load = Signal<f64>;

/// All loads that somebody heeds.
pub type Loads = BTreeMap<LoadKey, Load>;

/// A load as a number, if it can be one.
#[must_use]
pub fn percent(text: &str) -> Option<f64> {
    let number = text.trim().parse::<f64>().ok()?;
    (0.0..=PERCENT_MAX).contains(&number).then_some(number)
}

/// The load now, in percent; `None` while there is no fresh reading.
#[must_use]
pub fn fresh(load: Option<&Load>, now: Moment) -> Option<f64> {
    load?.fresh(now, LOAD_FRESH).copied()
}

/// Whether the load is high: above `high_percent`, or unknown and high before.
#[must_use]
pub fn is_high(high_percent: u8, load: Option<f64>, was_high: bool) -> bool {
    load.map_or(was_high, |load| load > f64::from(high_percent))
}

/// Half of a number of slots, but no less than 1 of those that there are.
#[must_use]
pub fn half(slots: u64) -> u64 {
    (slots / 2).max(1).min(slots)
}

/// What is left of a budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effective {
    /// Slots that may be granted from; `None` is no limit.
    pub slots: Option<u64>,
    /// The load is high: the next look needs it.
    pub high: bool,
}

/// What is left of `slots` (`None` is no limit) at this load.
#[must_use]
pub fn effective(slots: Option<u64>, high_percent: u8, load: Option<f64>, was_high: bool) -> Effective {
    let high = is_high(high_percent, load, was_high);
    let left = slots.map(|slots| if high { half(slots) } else { slots });
    Effective { slots: left, high }
}

/// A load for people: `91 %`, `80.5 %`.
#[must_use]
pub fn words(load: f64) -> String {
    format!("{} %", (load * 10.0).round() / 10.0)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::Timestamp;
    use proptest::prelude::{any, proptest};

    use super::*;
    use crate::sample::FaultKind;

    #[test]
    fn half_is_left_above_the_limit_and_never_less_than_one() {
        let left = |slots, load| effective(slots, 80, Some(load), false).slots;
        assert_eq!(left(Some(9), 80.0), Some(9), "at the limit");
        assert_eq!(left(Some(9), 80.1), Some(4));
        assert_eq!(left(Some(1), 99.0), Some(1));
        assert_eq!(left(Some(0), 99.0), Some(0));
        assert_eq!(left(None, 99.0), None);
    }

    #[test]
    fn what_is_taken_away_is_told_and_nothing_of_a_budget_without_a_limit() {
        let of = |slots| effective(slots, 80, Some(99.0), false);
        assert_eq!((of(Some(9)).slots, of(Some(9)).high), (Some(4), true));
        assert_eq!((of(Some(1)).slots, of(Some(1)).high), (Some(1), true));
        assert_eq!((of(None).slots, of(None).high), (None, true));
    }

    #[test]
    fn a_missing_reading_changes_nothing() {
        assert_eq!(effective(Some(8), 80, None, true).slots, Some(4));
        assert_eq!(effective(Some(8), 80, None, false).slots, Some(8));
    }

    #[test]
    fn a_reading_ends_with_its_age_and_a_failure_after_it_does_not_end_it() {
        let mut load = Load::default();
        assert_eq!(fresh(Some(&load), Moment(0)), None);
        load.succeed(91.0, Moment(1000));
        load.fail(
            FaultKind::Unreachable,
            "gone",
            Moment(6000),
            Timestamp::UNIX_EPOCH,
        );
        let last = Moment(1000).after(LOAD_FRESH);
        assert_eq!(fresh(Some(&load), last), Some(91.0));
        assert_eq!(fresh(Some(&load), last.after(Duration::from_millis(1))), None);
        assert_eq!(fresh(None, last), None);
    }

    #[test]
    fn only_a_plain_percentage_is_a_load() {
        for (text, load) in [(" 72.5\n", 72.5), ("0", 0.0), ("1e3", 1000.0), ("1000000", 1e6)] {
            assert_eq!(percent(text), Some(load), "{text:?}");
        }
        for text in [
            "",
            " ",
            "72%",
            "NaN",
            "inf",
            "-inf",
            "-0.1",
            "1000000.1",
            "1e999",
            "1,5",
            "0x10",
        ] {
            assert_eq!(percent(text), None, "{text:?}");
        }
    }

    #[test]
    fn words_have_one_decimal_at_most() {
        assert_eq!(
            (words(91.0), words(80.46)),
            ("91 %".to_owned(), "80.5 %".to_owned())
        );
    }

    proptest! {
        #[test]
        fn nothing_is_added_and_one_slot_is_left(
            slots in any::<u64>(), high in 1u8..=100, load in proptest::option::of(0.0..1e6f64), was in any::<bool>()
        ) {
            let result = effective(Some(slots), high, load, was);
            let left = result.slots.unwrap();
            assert!(left <= slots && (left > 0 || slots == 0));
            assert!(left == slots || left == half(slots));
            assert!(result.high || left == slots);
            // The same look again, or none, changes nothing.
            assert_eq!(effective(Some(slots), high, load, result.high), result);
            assert_eq!(effective(Some(slots), high, None, result.high), result);
        }
    }
}
