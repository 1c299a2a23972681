//! Waiting messages that are not due: an estimate from a bounded sample of each list.
//!
//! Decides which lists are looked into and what a sample says of its list. A list is looked into when it is not
//! empty and has changed, or the last look is five seconds old; the oldest looks go first, at most 64 lists a
//! poll. The sample is up to 25 messages from each end, so the estimate is exact for lists of up to 50, and up to 24
//! between them. The two are counted apart: what has just arrived is at one end, and a thousand tasks of next hour
//! behind it must not be taken for its like.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use redis::Value;
use tokio::time::Instant;

use super::{scripts, values};

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
    length: u64,
    ends: Sample,
    between: Sample,
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
        let etas = found.iter().filter_map(|v| scripts::eta_milliseconds(text(v)?));
        Some(Self {
            read: values::count(read)?,
            etas: etas.collect(),
        })
    }

    fn ahead(&self, now_milliseconds: i64) -> u64 {
        self.etas.iter().filter(|eta| **eta > now_milliseconds).count() as u64
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
            let samples = values::array(row).and_then(|row| match row {
                [ends, between] => Some((Sample::parse(ends)?, Sample::parse(between)?)),
                _ => None,
            });
            let Some((ends, between)) = samples else { continue };
            let length = lengths.get(list.as_str()).copied().unwrap_or_default();
            self.by_list.insert(
                list.clone(),
                Look {
                    at: now,
                    length,
                    ends,
                    between,
                },
            );
        }
    }

    /// How many of a list's messages are not due.
    pub(super) fn not_due(&self, list: &str, length: u64, now_milliseconds: i64) -> u64 {
        let Some(look) = self.by_list.get(list) else {
            return 0;
        };
        let (ends, between) = (
            look.ends.ahead(now_milliseconds),
            look.between.ahead(now_milliseconds),
        );
        let rest = length.saturating_sub(look.ends.read);
        // Rounded down: what is not known to be late work counts as work.
        let rest = match (look.between.read, look.ends.read) {
            (0, 0) => 0,
            (0, read) => rest.saturating_mul(ends) / read,
            (read, _) => rest.saturating_mul(between) / read,
        };
        (ends + rest).min(length)
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

    fn row(sampled: i64, etas: &[&str]) -> Value {
        Value::Array(vec![sample(sampled, etas), sample(0, &[])])
    }

    #[test]
    fn one_due_message_at_an_end_does_not_stand_for_those_between() {
        let mut looks = Looks::default();
        let later = ["1970-01-01T01:00:00Z"; 50];
        let row = Value::Array(vec![sample(50, &later[..49]), sample(24, &later[..24])]);
        looks.seen(
            &["a".into()],
            &HashMap::from([("a", 1001)]),
            &[row],
            Instant::now(),
        );
        assert_eq!(looks.not_due("a", 1001, 0), 1000);
        let row = Value::Array(vec![sample(50, &later), sample(24, &later[..12])]);
        looks.seen(
            &["a".into()],
            &HashMap::from([("a", 1050)]),
            &[row],
            Instant::now(),
        );
        assert_eq!(looks.not_due("a", 1050, 0), 550);
    }

    #[test]
    fn a_list_is_looked_into_when_it_changed_or_the_look_is_old() {
        let mut looks = Looks::default();
        let now = Instant::now();
        let lists = looks.due(&[("a", 4), ("b", 0)], now);
        assert_eq!(lists, ["a"]);
        let rows = [row(4, &["1970-01-01T00:00:10Z", "nonsense"])];
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
