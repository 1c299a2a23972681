//! Whose turn it is: which WorkerPools wait, which are at work, and which half of a round comes next.
//!
//! What runs pods goes before what reports, so that with fifty WorkerPools to scale none waits for another's status. The
//! namespaces take turns, and of one there is always room for others: where each write of one takes ten seconds and fails,
//! nobody else's workers wait for that. Knows no cluster and no clock; the controller runs what this hands out.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;

use crate::kube::index::Group;

/// WorkerPools that are written at the same time: enough to hide a write's latency, few enough for any server.
pub(super) const CONCURRENCY: usize = 32;
/// Of these, how many may be busy with reports: there is always room for what scales.
const REPORTING: usize = 8;
/// And how many may be of one namespace.
const OF_NAMESPACE: usize = 24;

/// The two halves of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Half {
    /// Deployments and pod marks.
    Act,
    /// Status, events and numbers; follows each `Act`.
    Report,
}

/// Those of one half that wait, by namespace, in the order in which they came.
#[derive(Debug, Default)]
struct Line {
    waiting: BTreeMap<String, VecDeque<String>>,
    known: BTreeSet<Group>,
    /// The namespace that had the last turn.
    last: String,
}

impl Line {
    fn push(&mut self, group: Group) {
        if self.known.insert(group.clone()) {
            let (namespace, name) = group;
            self.waiting.entry(namespace).or_default().push_back(name);
        }
    }

    /// The next that is not at work, from the namespace after the one that had the last turn. Those at work are few, so that
    /// not many are passed over.
    fn take(&mut self, work: &Work) -> Option<Group> {
        let after = (Bound::Excluded(self.last.as_str()), Bound::Unbounded);
        let until = (Bound::Unbounded, Bound::Included(self.last.as_str()));
        let later = self.waiting.range::<str, _>(after);
        let all = later.chain(self.waiting.range::<str, _>(until));
        let mut open = all.filter(|(namespace, _)| work.has_room(namespace));
        let (namespace, at) = open.find_map(|(namespace, names)| {
            let free = |name: &String| !work.running.contains_key(&(namespace.clone(), name.clone()));
            Some((namespace.clone(), names.iter().position(free)?))
        })?;
        let names = self.waiting.get_mut(&namespace)?;
        let group = (namespace, names.remove(at)?);
        if names.is_empty() {
            self.waiting.remove(&group.0);
        }
        self.known.remove(&group);
        self.last.clone_from(&group.0);
        Some(group)
    }
}

/// Who is at work.
#[derive(Debug, Default)]
struct Work {
    /// True if it was woken meanwhile.
    running: BTreeMap<Group, bool>,
    /// How many of them a namespace has.
    of_namespace: BTreeMap<String, usize>,
    reporting: usize,
}

impl Work {
    fn has_room(&self, namespace: &str) -> bool {
        self.of_namespace
            .get(namespace)
            .is_none_or(|count| *count < OF_NAMESPACE)
    }
}

/// Who waits and who is at work.
#[derive(Debug, Default)]
pub struct Turns {
    acts: Line,
    reports: Line,
    work: Work,
}

impl Turns {
    /// A WorkerPool has something to do.
    pub fn wake(&mut self, group: Group) {
        match self.work.running.get_mut(&group) {
            Some(again) => *again = true,
            None => self.acts.push(group),
        }
    }

    /// What to run next, if there is room for it. Of one WorkerPool only one half runs at a time: the other would wait
    /// for it and hold a place.
    pub fn take(&mut self) -> Option<(Half, Group)> {
        let work = &mut self.work;
        if work.running.len() >= CONCURRENCY {
            return None;
        }
        let act = self.acts.take(work).map(|group| (Half::Act, group));
        let report = |reports: &mut Line| Some((Half::Report, reports.take(work)?));
        let next = match act {
            None if work.reporting < REPORTING => report(&mut self.reports),
            act => act,
        };
        let (half, group) = next?;
        work.reporting += usize::from(half == Half::Report);
        work.running.insert(group.clone(), false);
        *work.of_namespace.entry(group.0.clone()).or_default() += 1;
        Some((half, group))
    }

    /// True while one of its halves runs.
    #[must_use]
    pub fn runs(&self, group: &Group) -> bool {
        self.work.running.contains_key(group)
    }

    /// A half has ended. An act is followed by its report, if that may be; returns true for whoever was woken meanwhile,
    /// who acts again first.
    pub fn done(&mut self, half: Half, group: &Group, may_report: bool) -> bool {
        let work = &mut self.work;
        let again = work.running.remove(group).unwrap_or(false);
        if let Some(count) = work.of_namespace.get_mut(&group.0) {
            *count -= 1;
            if *count == 0 {
                work.of_namespace.remove(&group.0);
            }
        }
        match half {
            Half::Act if may_report => self.reports.push(group.clone()),
            Half::Act => {}
            Half::Report => work.reporting -= 1,
        }
        again
    }
}

#[cfg(test)]
mod tests {
    use super::{CONCURRENCY, Half, OF_NAMESPACE, REPORTING, Turns};
    use crate::kube::index::Group;

    fn group(name: &str) -> Group {
        ("shop".to_owned(), name.to_owned())
    }

    fn done(turns: &mut Turns, half: Half, group: &Group) {
        if turns.done(half, group, true) {
            turns.wake(group.clone());
        }
    }

    #[test]
    fn who_is_woken_at_work_acts_again_before_it_reports() {
        let mut turns = Turns::default();
        turns.wake(group("a"));
        assert_eq!(turns.take(), Some((Half::Act, group("a"))));
        turns.wake(group("a"));
        assert_eq!(turns.take(), None, "one half at a time");
        done(&mut turns, Half::Act, &group("a"));
        assert_eq!(turns.take(), Some((Half::Act, group("a"))));
        assert_eq!(
            turns.take(),
            None,
            "the report of the first act waits for the second"
        );
        done(&mut turns, Half::Act, &group("a"));
        assert_eq!(turns.take(), Some((Half::Report, group("a"))));
        turns.wake(group("a"));
        assert_eq!(turns.take(), None, "one half at a time");
        done(&mut turns, Half::Report, &group("a"));
        assert_eq!(turns.take(), Some((Half::Act, group("a"))));
        done(&mut turns, Half::Act, &group("a"));
        assert_eq!(turns.take(), Some((Half::Report, group("a"))));
        done(&mut turns, Half::Report, &group("a"));
        assert_eq!(turns.take(), None);
    }

    #[test]
    fn acts_go_before_reports_and_always_find_room() {
        let mut turns = Turns::default();
        for index in 0..2 * CONCURRENCY {
            turns.wake((format!("n{}", index % 4), format!("p{index}")));
        }
        let first: Vec<_> = std::iter::from_fn(|| turns.take()).collect();
        assert_eq!(first.len(), CONCURRENCY);
        for (half, group) in &first {
            done(&mut turns, *half, group);
        }
        let second: Vec<_> = std::iter::from_fn(|| turns.take()).collect();
        assert!(second.iter().all(|(half, _)| *half == Half::Act));
        for (half, group) in &second {
            done(&mut turns, *half, group);
        }
        let reports = std::iter::from_fn(|| turns.take()).count();
        assert_eq!(reports, REPORTING);
        turns.wake(group("late"));
        assert_eq!(turns.take(), Some((Half::Act, group("late"))));
    }

    #[test]
    fn namespaces_take_turns_and_none_has_all_places() {
        let mut turns = Turns::default();
        for index in 0..100 {
            turns.wake(("a".to_owned(), format!("p{index}")));
        }
        let first: Vec<_> = std::iter::from_fn(|| turns.take()).collect();
        assert_eq!(first.len(), OF_NAMESPACE, "there is room for others");
        for name in ["b", "c"] {
            turns.wake((name.to_owned(), "p".to_owned()));
        }
        let others: Vec<_> = std::iter::from_fn(|| turns.take())
            .map(|(_, group)| group.0)
            .collect();
        assert_eq!(others, ["b", "c"]);
        // Who fails is woken again at once, and waits behind those that have not had their turn.
        for (half, group) in &first[..2] {
            turns.wake(group.clone());
            done(&mut turns, *half, group);
        }
        let next: Vec<_> = std::iter::from_fn(|| turns.take())
            .map(|(_, group)| group.1)
            .collect();
        assert_eq!(next, ["p24", "p25"]);
    }
}
