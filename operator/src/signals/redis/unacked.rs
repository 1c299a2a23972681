//! Fetched messages by queue, from kombu's `unacked_index` and `unacked`.
//!
//! Decides which entries have to be read and how the known ones stand for the rest. An entry never changes under
//! its tag (kombu writes it once), so each is read once and remembered while the index lists it.
//!
//! Up to 2,000 entries are all seen. Above, the 1,000 oldest and the 1,000 newest are, and stand in proportion for
//! those between; entries that have not been read yet count in the proportion of those that have. So the sum over
//! all queues is the true number but for rounding, and all is exact as soon as every entry is known.
//!
//! Which of them are due is told with more care: while some of the known ones are not, an unread one counts as due only
//! as far as the known ones make that certain. One due task among a thousand of next hour must not look like three
//! until all are read, or a pod is started for two that do not exist.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use poolwright_core::later::Later;
use poolwright_core::sample::{Fetched, Unacked};
use redis::Value;

use super::scripts::Entry;
use super::values;

/// Entries taken from each end of the index.
pub(super) const EDGE: usize = 1000;
/// Most entries that one poll reads.
const NEW_TAGS: usize = 500;
/// Most entries of [`Unacked::fetched`].
const FETCHED: usize = 256;
/// Longest delivery tag that is remembered (kombu's are UUIDs).
const MAX_TAG: usize = 256;

/// What is known of one entry.
#[derive(Clone, Debug)]
enum Known {
    /// Its exchange, routing key and ETA.
    Entry(Entry),
    /// It is no message of kombu's, so it belongs to no queue.
    Opaque,
}

/// The index as one poll saw it.
#[derive(Debug, Default)]
struct Index {
    /// All entries of the index.
    total: u64,
    /// Tag and fetch time of those that were listed.
    listed: Vec<(Vec<u8>, f64)>,
    /// Listed, but no longer there when they were to be read.
    gone: HashSet<Vec<u8>>,
}

/// The entries of one broker, across polls.
#[derive(Debug, Default)]
pub(super) struct Entries {
    known: HashMap<Vec<u8>, Known>,
    index: Index,
}

impl Entries {
    /// Takes in a poll's view of the index: its size and its two ends, each a flat list of tag and score. Forgets
    /// entries that are no longer listed. `None` if the answers have the wrong shape.
    pub(super) fn listed(&mut self, total: u64, ends: [&Value; 2]) -> Option<()> {
        let mut seen = HashSet::new();
        let mut listed = Vec::new();
        for end in ends {
            for pair in values::array(end)?.chunks_exact(2) {
                let tag = values::bytes(pair.first()?)?;
                let score = std::str::from_utf8(values::bytes(pair.get(1)?)?)
                    .ok()?
                    .parse()
                    .ok()?;
                if tag.len() <= MAX_TAG && seen.insert(tag.to_vec()) {
                    listed.push((tag.to_vec(), score));
                }
            }
        }
        self.known.retain(|tag, _| seen.contains(tag));
        self.index = Index {
            total: total.max(listed.len() as u64),
            listed,
            gone: HashSet::new(),
        };
        Some(())
    }

    /// Nothing is fetched, or nothing could be seen.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Tags to read now: evenly spread over those that are not known, so that the known ones are a fair sample.
    pub(super) fn unread(&self) -> Vec<Vec<u8>> {
        let unread: Vec<&Vec<u8>> = self
            .index
            .listed
            .iter()
            .map(|(tag, _)| tag)
            .filter(|tag| !self.known.contains_key(*tag))
            .collect();
        let stride = unread.len().div_ceil(NEW_TAGS).max(1);
        unread.into_iter().step_by(stride).cloned().collect()
    }

    /// Remembers an entry; `None` for one that is no message.
    pub(super) fn learn(&mut self, tag: Vec<u8>, entry: Option<Entry>) {
        self.known.insert(tag, entry.map_or(Known::Opaque, Known::Entry));
    }

    /// Notes that an entry was gone when it was to be read.
    pub(super) fn gone(&mut self, tag: Vec<u8>) {
        self.index.gone.insert(tag);
    }

    /// The named exchanges of known entries.
    pub(super) fn exchanges(&self) -> BTreeSet<&str> {
        let entries = self.known.values().filter_map(|known| match known {
            Known::Entry((exchange, _, _)) => Some(exchange.as_str()),
            Known::Opaque => None,
        });
        entries.filter(|exchange| !exchange.is_empty()).collect()
    }

    /// Fetched messages by queue; `queue_of` tells the queue of an exchange and routing key. `None` if there are
    /// entries and nothing is known of any.
    pub(super) fn tally(
        &self,
        now_milliseconds: i64,
        queue_of: impl Fn(&str, &str) -> String,
    ) -> Option<BTreeMap<String, Unacked>> {
        let mut seconds: BTreeMap<String, BTreeMap<i64, u64>> = BTreeMap::new();
        let mut not_due: BTreeMap<String, Vec<i64>> = BTreeMap::new();
        let mut known: u64 = 0;
        for (tag, score) in &self.index.listed {
            match self.known.get(tag) {
                Some(Known::Entry((exchange, key, eta))) => {
                    known += 1;
                    let queue = queue_of(exchange, key);
                    if let Some(eta) = eta.filter(|eta| *eta > now_milliseconds) {
                        not_due.entry(queue).or_default().push(eta);
                    } else {
                        *seconds
                            .entry(queue)
                            .or_default()
                            .entry(whole_seconds(*score))
                            .or_default() += 1;
                    }
                }
                Some(Known::Opaque) => known += 1,
                None => {}
            }
        }
        let listed = self.index.listed.len() as u64;
        let present = listed.saturating_sub(self.index.gone.len() as u64);
        if known == 0 && present > 0 {
            return None;
        }
        let scale = Scale {
            total: share(self.index.total, present, listed),
            known,
            late: not_due.values().map(|etas| etas.len() as u64).sum(),
        };
        let queues: BTreeSet<&String> = seconds.keys().chain(not_due.keys()).collect();
        let one = |queue: &String| {
            let by_second = seconds.get(queue);
            let due = by_second.map_or(0, |by_second| by_second.values().sum());
            let late = not_due.get(queue).map_or(&[][..], Vec::as_slice);
            scale.unacked(due, late, by_second)
        };
        Some(
            queues
                .into_iter()
                .map(|queue| (queue.clone(), one(queue)))
                .collect(),
        )
    }
}

/// How known entries stand for all.
struct Scale {
    total: u64,
    known: u64,
    /// Of the known ones, those of any queue that are not due.
    late: u64,
}

impl Scale {
    /// `late` are the due times of the known ones that are not due.
    fn unacked(&self, due: u64, late: &[i64], by_second: Option<&BTreeMap<i64, u64>>) -> Unacked {
        let all = share(self.total, due + late.len() as u64, self.known);
        let scaled = self.due(due).min(all);
        let fetched = by_second.map_or_else(Vec::new, |by_second| spread(by_second, due, scaled));
        Unacked {
            due: scaled,
            not_due: all - scaled,
            later: Later::sampled(late.iter().map(|eta| (*eta, 1)).collect(), all - scaled),
            fetched: newest(fetched),
        }
    }

    /// The due entries of a queue with `due` known ones. Where some are late, those that were not read count in a
    /// share that is lower by two standard deviations.
    fn due(&self, due: u64) -> u64 {
        if self.late == 0 {
            return share(self.total, due, self.known);
        }
        let deviations = (4 * due * self.late / (due + self.late)).isqrt();
        let unread = self.total.saturating_sub(self.known);
        due + unread.saturating_mul(due.saturating_sub(deviations)) / self.known.max(1)
    }
}

/// Scales the `known` entries by second so that their sum is `scaled`.
fn spread(by_second: &BTreeMap<i64, u64>, known: u64, scaled: u64) -> Vec<Fetched> {
    let (mut sum, mut given) = (0, 0);
    let mut out = Vec::with_capacity(by_second.len());
    for (unix_seconds, count) in by_second {
        sum += count;
        let upto = share(scaled, sum, known);
        out.push(Fetched {
            unix_seconds: *unix_seconds,
            count: upto.saturating_sub(given),
        });
        given = upto;
    }
    out
}

/// `total × part ÷ whole`, rounded.
fn share(total: u64, part: u64, whole: u64) -> u64 {
    if whole == 0 {
        return 0;
    }
    let wide = (u128::from(total) * u128::from(part) + u128::from(whole) / 2) / u128::from(whole);
    u64::try_from(wide).unwrap_or(u64::MAX)
}

/// At most [`FETCHED`] seconds: the oldest are merged into the newest of themselves, so that none looks older than
/// it is (what is too old counts as orphaned).
fn newest(mut fetched: Vec<Fetched>) -> Vec<Fetched> {
    let surplus = fetched.len().saturating_sub(FETCHED);
    if surplus > 0 {
        let merged: u64 = fetched.drain(..surplus).map(|f| f.count).sum();
        if let Some(first) = fetched.first_mut() {
            first.count += merged;
        }
    }
    fetched
}

/// A Redis score as whole seconds.
fn whole_seconds(score: f64) -> i64 {
    #[allow(
        clippy::cast_possible_truncation,
        reason = "a cast from float to integer saturates, and NaN is 0"
    )]
    let seconds = score.floor() as i64;
    seconds
}

#[cfg(test)]
mod tests {
    use poolwright_core::later::Later;
    use redis::Value;

    use super::{Entries, FETCHED};

    fn index(entries: &[(String, f64)]) -> Value {
        let text = |t: &str| Value::BulkString(t.as_bytes().to_vec());
        Value::Array(
            entries
                .iter()
                .flat_map(|(t, s)| [text(t), text(&s.to_string())])
                .collect(),
        )
    }

    fn rows(from: u32, to: u32) -> Vec<(String, f64)> {
        (from..to)
            .map(|n| (format!("t{n}"), f64::from(n) / 10.0))
            .collect()
    }

    fn learn_all(entries: &mut Entries, queue: &str, eta: Option<i64>) {
        for tag in entries.unread() {
            entries.learn(tag, Some((String::new(), queue.to_owned(), eta)));
        }
    }

    fn tally(entries: &Entries) -> Vec<(String, u64, u64, u64)> {
        let tally = entries.tally(1000, |_, key| key.to_owned()).unwrap();
        tally
            .into_iter()
            .map(|(q, u)| (q, u.due, u.not_due, u.fetched.iter().map(|f| f.count).sum()))
            .collect()
    }

    #[test]
    fn small_indexes_are_counted_exactly_and_forgotten_with_the_tags() {
        let mut entries = Entries::default();
        let empty = index(&[]);
        entries
            .listed(15, [&index(&rows(0, 15)), &index(&rows(5, 15))])
            .unwrap();
        assert_eq!(entries.unread().len(), 15);
        assert!(
            entries.tally(0, |_, k| k.to_owned()).is_none(),
            "nothing is known yet"
        );
        learn_all(&mut entries, "q", None);
        assert_eq!(tally(&entries), [("q".to_owned(), 15, 0, 15)]);
        let fetched = entries
            .tally(0, |_, k| k.to_owned())
            .unwrap()
            .remove("q")
            .unwrap()
            .fetched;
        assert_eq!(
            fetched
                .iter()
                .map(|f| (f.unix_seconds, f.count))
                .collect::<Vec<_>>(),
            [(0, 10), (1, 5)]
        );
        entries.listed(17, [&index(&rows(0, 17)), &empty]).unwrap();
        assert_eq!(entries.unread().len(), 2);
        learn_all(&mut entries, "later", Some(2000));
        assert_eq!(
            tally(&entries),
            [("later".to_owned(), 0, 2, 0), ("q".to_owned(), 15, 0, 15)]
        );
        entries.listed(0, [&empty, &empty]).unwrap();
        assert_eq!((tally(&entries), entries.known.len()), (vec![], 0));
    }

    #[test]
    fn what_is_not_known_counts_in_proportion() {
        let mut entries = Entries::default();
        entries
            .listed(10_000, [&index(&rows(0, 1000)), &index(&rows(9000, 10_000))])
            .unwrap();
        let unread = entries.unread();
        assert_eq!(unread.len(), 500);
        for (n, tag) in unread.into_iter().enumerate() {
            entries.learn(
                tag,
                Some((String::new(), if n % 4 == 0 { "a" } else { "b" }.to_owned(), None)),
            );
        }
        assert_eq!(
            tally(&entries),
            [("a".to_owned(), 2500, 0, 2500), ("b".to_owned(), 7500, 0, 7500)]
        );
        let fetched = entries
            .tally(0, |_, k| k.to_owned())
            .unwrap()
            .remove("b")
            .unwrap()
            .fetched;
        assert!(fetched.len() <= FETCHED);
    }

    /// An index of `total`, of which one poll reads: `due` of the queue "q", the others late in the queue `late`.
    fn burst(total: u32, due: usize, late: &str) -> Entries {
        let mut entries = Entries::default();
        let half = total / 2;
        let ends = [index(&rows(0, half)), index(&rows(half, total))];
        entries.listed(total.into(), [&ends[0], &ends[1]]).unwrap();
        for (n, tag) in entries.unread().into_iter().enumerate() {
            let (queue, eta) = if n < due { ("q", None) } else { (late, Some(2000)) };
            entries.learn(tag, Some((String::new(), queue.to_owned(), eta)));
        }
        entries
    }

    #[test]
    fn a_due_entry_among_late_ones_is_one_before_all_are_read() {
        assert_eq!(tally(&burst(1001, 1, "q")), [("q".to_owned(), 1, 1000, 1)]);
        let all = burst(1001, 1, "q").tally(1000, |_, key| key.to_owned()).unwrap();
        assert_eq!(
            all["q"].later,
            Later::new([(2000, 1000)]),
            "those that are unread, too"
        );
        let other = tally(&burst(1001, 1, "late"));
        let late = ("late".to_owned(), 0, 998, 0);
        assert_eq!(other, [late, ("q".to_owned(), 1, 2, 1)]);
        // Many are not without meaning: 200 of 334 known make at least 500 of 1001 certain.
        let many = tally(&burst(1001, 200, "q"));
        assert!((500..=600).contains(&many[0].1), "{many:?}");
        assert_eq!((many[0].1 + many[0].2, many[0].3), (1001, many[0].1));
    }

    #[test]
    fn entries_that_are_gone_are_not_counted() {
        let mut entries = Entries::default();
        entries.listed(4, [&index(&rows(0, 4)), &index(&[])]).unwrap();
        for tag in entries.unread().into_iter().skip(1) {
            entries.learn(tag, Some((String::new(), "q".to_owned(), None)));
        }
        entries.gone(b"t0".to_vec());
        assert_eq!(tally(&entries), [("q".to_owned(), 3, 0, 3)]);
        assert!(entries.listed(1, [&Value::Nil, &Value::Nil]).is_none());
    }
}
