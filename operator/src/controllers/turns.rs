//! Whose turn it is: which WorkerPools wait, which are at work, and which half of a round comes next.
//!
//! What runs pods goes before what reports, so that with fifty WorkerPools to scale none waits for another's status.
//! Knows no cluster and no clock; the controller runs what this hands out.

use std::collections::{BTreeMap, BTreeSet};

use crate::kube::index::Group;

/// WorkerPools that are written at the same time: enough to hide a write's latency, few enough for any server.
pub(super) const CONCURRENCY: usize = 32;
/// Of these, how many may be busy with reports: there is always room for what scales.
const REPORTING: usize = 8;

/// The two halves of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Half {
    /// Deployments and pod marks.
    Act,
    /// Status, events and numbers; follows each `Act`.
    Report,
}

/// Who waits and who is at work.
#[derive(Debug, Default)]
pub struct Turns {
    pending: BTreeSet<(Half, Group)>,
    /// True if it was woken meanwhile.
    running: BTreeMap<Group, bool>,
    reporting: usize,
}

impl Turns {
    /// A WorkerPool has something to do.
    pub fn wake(&mut self, group: Group) {
        match self.running.get_mut(&group) {
            Some(again) => *again = true,
            None => {
                self.pending.insert((Half::Act, group));
            }
        }
    }

    /// What to run next, if there is room for it. Of one WorkerPool only one half runs at a time: the other would wait
    /// for it and hold a place.
    pub fn take(&mut self) -> Option<(Half, Group)> {
        if self.running.len() >= CONCURRENCY {
            return None;
        }
        let room = |half: Half| half == Half::Act || self.reporting < REPORTING;
        let free = |(half, group): &&(Half, Group)| room(*half) && !self.running.contains_key(group);
        let next = self.pending.iter().find(free)?.clone();
        self.pending.remove(&next);
        self.reporting += usize::from(next.0 == Half::Report);
        self.running.insert(next.1.clone(), false);
        Some(next)
    }

    /// A half has ended. An act is followed by its report, and whoever was woken meanwhile acts again first.
    pub fn done(&mut self, half: Half, group: &Group) {
        let again = self.running.remove(group).unwrap_or(false);
        match half {
            Half::Act => {
                self.pending.insert((Half::Report, group.clone()));
            }
            Half::Report => self.reporting -= 1,
        }
        if again {
            self.pending.insert((Half::Act, group.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{CONCURRENCY, Half, REPORTING, Turns};
    use crate::kube::index::Group;

    fn group(name: &str) -> Group {
        ("shop".to_owned(), name.to_owned())
    }

    #[test]
    fn who_is_woken_at_work_acts_again_before_it_reports() {
        let mut turns = Turns::default();
        turns.wake(group("a"));
        assert_eq!(turns.take(), Some((Half::Act, group("a"))));
        turns.wake(group("a"));
        assert_eq!(turns.take(), None, "one half at a time");
        turns.done(Half::Act, &group("a"));
        assert_eq!(turns.take(), Some((Half::Act, group("a"))));
        assert_eq!(
            turns.take(),
            None,
            "the report of the first act waits for the second"
        );
        turns.done(Half::Act, &group("a"));
        assert_eq!(turns.take(), Some((Half::Report, group("a"))));
        turns.wake(group("a"));
        assert_eq!(turns.take(), None, "one half at a time");
        turns.done(Half::Report, &group("a"));
        assert_eq!(turns.take(), Some((Half::Act, group("a"))));
        turns.done(Half::Act, &group("a"));
        assert_eq!(turns.take(), Some((Half::Report, group("a"))));
        turns.done(Half::Report, &group("a"));
        assert_eq!(turns.take(), None);
    }

    #[test]
    fn acts_go_before_reports_and_always_find_room() {
        let mut turns = Turns::default();
        for index in 0..2 * CONCURRENCY {
            turns.wake(group(&format!("p{index}")));
        }
        let first: Vec<_> = std::iter::from_fn(|| turns.take()).collect();
        assert_eq!(first.len(), CONCURRENCY);
        for (half, group) in &first {
            turns.done(*half, group);
        }
        let second: Vec<_> = std::iter::from_fn(|| turns.take()).collect();
        assert!(second.iter().all(|(half, _)| *half == Half::Act));
        for (half, group) in &second {
            turns.done(*half, group);
        }
        let reports = std::iter::from_fn(|| turns.take()).count();
        assert_eq!(reports, REPORTING);
        turns.wake(group("late"));
        assert_eq!(turns.take(), Some((Half::Act, group("late"))));
    }
}
