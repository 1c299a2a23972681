//! Waiting messages that are not due: an estimate from a bounded sample of each list.
//!
//! Decides which lists are looked into and what a sample says of its list. A list is looked into when it is not
//! empty and has changed, or the last look is five seconds old; the oldest looks go first, at most 64 lists a
//! poll. The sample is up to 25 messages from each end, so the estimate is exact for lists of up to 50, and up to 24
//! between them. The two are counted apart: what has just arrived is at one end, and a thousand tasks of next hour
//! behind it must not be taken for its like.
//!
//! A sample speaks for the list as it was at that moment, which is one round trip after the poll counted it: workers
//! that fetch a thousand tasks of next hour between the two leave a list to which the poll's length does not belong.
//! So the due messages are estimated with the length at the look, and a list that is longer in the poll that looked
//! has lost the difference, and not gained it. What it lost was work only if no message of a later hour was seen.
//!
//! When messages fall due is told by the same sample, in the proportion in which it stands for the list.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use poolwright_core::later::Later;
use redis::Value;
use tokio::time::Instant;

use super::values;
use crate::signals::eta_milliseconds;

/// Messages read from each end of a list.
pub(super) const SIDE: usize = 25;
/// Messages read between the ends; an even number.
pub(super) const PROBES: usize = 24;
/// A probe is so far from an end at most: Redis walks there.
pub(super) const REACH: usize = 10_000;
/// Most lists in one look.
const LISTS: usize = 64;
/// A look lasts this long if the list's length does not change.
const LASTS: Duration = Duration::from_secs(5);

/// What the last look into a list saw.
#[derive(Debug)]
struct Look {
    at: Instant,
    /// Its length at that moment.
    length: u64,
    /// Its length as the poll had counted it before.
    counted: u64,
    ends: Sample,
    between: Sample,
}

impl Look {
    fn parse(row: &Value, counted: u64, at: Instant) -> Option<Self> {
        let [length, ends, between] = values::array(row)? else {
            return None;
        };
        Some(Self {
            at,
            length: values::count(length)?,
            counted,
            ends: Sample::parse(ends)?,
            between: Sample::parse(between)?,
        })
    }

    /// How many messages are due in the list when it has this length. What is not known to be late counts as work,
    /// so shares are rounded up.
    fn due(&self, length: u64, now_milliseconds: i64) -> u64 {
        let some_late = [&self.ends, &self.between]
            .iter()
            .any(|sample| sample.due(now_milliseconds) < sample.read);
        if !some_late && self.length > 0 {
            return length;
        }
        let ends = self.ends.due(now_milliseconds);
        let typical = if self.between.read > 0 {
            &self.between
        } else {
            &self.ends
        };
        let share = |of: u64| match typical.read {
            0 => of,
            read => of.saturating_mul(typical.due(now_milliseconds)).div_ceil(read),
        };
        let unread = self.length.saturating_sub(self.ends.read);
        let grown = if length == self.counted {
            0
        } else {
            length.saturating_sub(self.length)
        };
        (ends + share(unread + grown)).min(length)
    }

    /// The due times that were seen and have not come, and for how many messages each stands, as parts of one whole. The
    /// earliest of those that stand for many stands for itself alone: one in thousands is chance.
    fn weighted(&self, now_milliseconds: i64) -> Vec<(i64, u64)> {
        let late = |sample: &Sample| -> Vec<i64> {
            let late = sample.etas.iter().filter(|eta| **eta > now_milliseconds);
            late.copied().collect()
        };
        let unread = self.length.saturating_sub(self.ends.read);
        let (typical, one) = match self.between.read {
            0 => (&self.ends, self.ends.read),
            read => (&self.between, read),
        };
        let mut many = late(typical);
        many.sort_unstable();
        let ends = late(&self.ends).into_iter().map(|eta| (eta, one));
        let many = many.into_iter().enumerate();
        // No less than itself, where the list is read whole.
        let many = many.map(|(at, eta)| (eta, if at == 0 { unread.min(one) } else { unread }));
        ends.chain(many).collect()
    }
}

/// Some messages of a list.
#[derive(Debug)]
struct Sample {
    read: u64,
    etas: Vec<i64>,
}

impl Sample {
    fn parse(row: &Value) -> Option<Self> {
        let (read, found) = values::array(row)?.split_first()?;
        let text = |v| std::str::from_utf8(values::bytes(v)?).ok();
        let etas = found.iter().filter_map(|v| eta_milliseconds(text(v)?));
        Some(Self {
            read: values::count(read)?,
            etas: etas.collect(),
        })
    }

    fn due(&self, now_milliseconds: i64) -> u64 {
        let late = self.etas.iter().filter(|eta| **eta > now_milliseconds).count() as u64;
        self.read.saturating_sub(late)
    }
}

/// The looks into all lists of one broker.
#[derive(Debug, Default)]
pub(super) struct Looks {
    by_list: HashMap<String, Look>,
}

impl Looks {
    /// Lists to look into now. Forgets lists that are empty or no longer asked for.
    pub(super) fn due(&mut self, lengths: &[(&str, u64)], now: Instant) -> Vec<String> {
        let full: HashSet<&str> = lengths
            .iter()
            .filter(|(_, n)| *n > 0)
            .map(|(list, _)| *list)
            .collect();
        self.by_list.retain(|list, _| full.contains(list.as_str()));
        let is_due = |list: &str, length: u64| {
            let look = self.by_list.get(list);
            look.is_none_or(|l| l.length != length || now.duration_since(l.at) >= LASTS)
        };
        let mut due: Vec<&str> = lengths
            .iter()
            .filter(|(list, n)| *n > 0 && is_due(list, *n))
            .map(|(list, _)| *list)
            .collect();
        due.sort_by_key(|list| self.by_list.get(*list).map(|look| look.at));
        due.into_iter().take(LISTS).map(str::to_owned).collect()
    }

    /// Takes in a look. Rows that the script did not reach are left as they were.
    pub(super) fn seen(
        &mut self,
        lists: &[String],
        lengths: &HashMap<&str, u64>,
        rows: &[Value],
        now: Instant,
    ) {
        for (list, row) in lists.iter().zip(rows) {
            let counted = lengths.get(list.as_str()).copied().unwrap_or_default();
            let Some(look) = Look::parse(row, counted, now) else {
                continue;
            };
            match self.by_list.get_mut(list) {
                // Fetched to the last message before the look: the look before knows better what they were.
                Some(before) if look.length == 0 => before.counted = counted,
                _ => {
                    self.by_list.insert(list.clone(), look);
                }
            }
        }
    }

    /// When so many of a list's messages fall due, which is how many are not due.
    pub(super) fn later(&self, list: &str, not_due: u64, now_milliseconds: i64) -> Later {
        let look = self.by_list.get(list).filter(|_| not_due > 0);
        look.map_or_else(Later::default, |look| {
            Later::sampled(look.weighted(now_milliseconds), not_due)
        })
    }

    /// How many of a list's messages are not due.
    pub(super) fn not_due(&self, list: &str, length: u64, now_milliseconds: i64) -> u64 {
        let look = self.by_list.get(list);
        look.map_or(0, |look| {
            length.saturating_sub(look.due(length, now_milliseconds))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::time::Duration;

    use redis::Value;
    use tokio::time::Instant;

    use super::Looks;

    fn sample(read: i64, etas: &[&str]) -> Value {
        let etas = etas.iter().map(|e| Value::BulkString(e.as_bytes().to_vec()));
        Value::Array(std::iter::once(Value::Int(read)).chain(etas).collect())
    }

    fn row(length: i64, read: i64, etas: &[&str]) -> Value {
        Value::Array(vec![Value::Int(length), sample(read, etas), sample(0, &[])])
    }

    /// One look into the list "a" in a poll that had counted `counted`.
    fn looked(counted: u64, row: Value) -> Looks {
        let mut looks = Looks::default();
        let lengths = HashMap::from([("a", counted)]);
        looks.seen(&["a".into()], &lengths, &[row], Instant::now());
        looks
    }

    const LATER: [&str; 50] = ["1970-01-01T01:00:00Z"; 50];

    #[test]
    fn one_due_message_at_an_end_does_not_stand_for_those_between() {
        let row = |length, ends, between| {
            let (ends, between) = (sample(50, &LATER[..ends]), sample(24, &LATER[..between]));
            Value::Array(vec![Value::Int(length), ends, between])
        };
        assert_eq!(looked(1001, row(1001, 49, 24)).not_due("a", 1001, 0), 1000);
        assert_eq!(looked(1050, row(1050, 50, 12)).not_due("a", 1050, 0), 550);
        // A third of 52, rounded up, is due.
        assert_eq!(looked(102, row(102, 50, 16)).not_due("a", 102, 0), 84);
    }

    #[test]
    fn a_list_that_is_emptied_between_count_and_look_gains_no_due_message() {
        let looks = looked(600, row(30, 30, &LATER[..29]));
        assert_eq!(
            looks.not_due("a", 600, 0),
            599,
            "29 of next hour and a due one are left"
        );
        assert_eq!(looked(600, row(0, 0, &[])).not_due("a", 600, 0), 600);
        // Counts of later polls, until the next look: shorter, then grown.
        assert_eq!((looks.not_due("a", 20, 0), looks.not_due("a", 1, 0)), (19, 0));
        assert_eq!(looks.not_due("a", 90, 0), 87);
        assert_eq!(looked(20, row(60, 50, &LATER[..20])).not_due("a", 20, 0), 0);
    }

    #[test]
    fn a_list_without_late_messages_stays_work_while_it_is_emptied() {
        assert_eq!(looked(600, row(30, 30, &[])).not_due("a", 600, 0), 0);
        let again = |mut looks: Looks| {
            let lengths = HashMap::from([("a", 600)]);
            looks.seen(&["a".into()], &lengths, &[row(0, 0, &[])], Instant::now());
            looks.not_due("a", 600, 0)
        };
        assert_eq!(again(looked(40, row(40, 40, &[]))), 0);
        assert_eq!(again(looked(40, row(40, 40, &LATER[..39]))), 599);
    }

    #[test]
    fn a_list_of_which_nothing_was_read_is_work() {
        assert_eq!(looked(9, row(9, 0, &[])).not_due("a", 9, 0), 0);
        assert_eq!(Looks::default().not_due("a", 9, 0), 0);
    }

    #[test]
    fn when_messages_fall_due_is_told_by_the_sample() {
        let at = |second: i64| jiff::Timestamp::from_second(second).unwrap();
        let upto = |looks: &Looks, length, second| {
            let later = looks.later("a", looks.not_due("a", length, 0), 0);
            later.within(Duration::ZERO, at(second))
        };
        let (soon, late, far) = (
            "1970-01-01T00:00:10.5Z",
            "1970-01-01T01:00:00+00:00",
            "9999-12-31T23:59:59",
        );
        // Read whole: as they are. One that cannot be read as a time is due.
        let small = looked(5, row(5, 5, &[soon, "soon", late, far, soon]));
        let seen = [9, 10, 3599, 3600].map(|second| upto(&small, 5, second));
        assert_eq!(seen, [0, 2, 2, 3]);
        assert_eq!(upto(&small, 5, 253_402_207_200), 4);
        // Half of the probes are due in ten seconds, and so is about half of the list.
        let between: Vec<&str> = (0..24).map(|n| if n < 12 { soon } else { late }).collect();
        let large = row(1050, 50, &LATER);
        let Value::Array(mut parts) = large else {
            unreachable!()
        };
        parts[2] = sample(24, &between);
        let found = upto(&looked(1050, Value::Array(parts.clone())), 1050, 10);
        assert!((440..500).contains(&found), "{found}");
        // One of them is chance.
        (parts[0], parts[2]) = (Value::Int(100_050), sample(24, &[&[soon], &LATER[..23]].concat()));
        assert!(upto(&looked(100_050, Value::Array(parts)), 100_050, 10) <= 2);
        assert_eq!(upto(&Looks::default(), 9, 10), 0);
        assert_eq!(upto(&looked(9, row(9, 0, &[])), 9, 10), 0);
    }

    #[test]
    fn a_list_is_looked_into_when_it_changed_or_the_look_is_old() {
        let mut looks = Looks::default();
        let now = Instant::now();
        let lists = looks.due(&[("a", 4), ("b", 0)], now);
        assert_eq!(lists, ["a"]);
        let rows = [row(4, 4, &["1970-01-01T00:00:10Z", "nonsense"])];
        looks.seen(&lists, &HashMap::from([("a", 4)]), &rows, now);
        assert_eq!(
            (looks.not_due("a", 4, 9_999), looks.not_due("a", 4, 10_000)),
            (1, 0)
        );
        assert_eq!((looks.not_due("a", 40, 0), looks.not_due("b", 9, 0)), (10, 0));
        assert!(looks.due(&[("a", 4)], now + Duration::from_secs(4)).is_empty());
        assert_eq!(looks.due(&[("a", 5)], now), ["a"]);
        assert_eq!(looks.due(&[("a", 4)], now + Duration::from_secs(5)), ["a"]);
        assert!(looks.due(&[("a", 0)], now).is_empty() && looks.by_list.is_empty());
    }
}
