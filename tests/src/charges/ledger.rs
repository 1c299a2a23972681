//! Reads the events of a namespace in the order in which they were stored, and says which of them broke a budget.
//!
//! A pod may be created although more is taken then than there is for two reasons only: it was granted before the budget
//! was cut, or its `ReplicaSet` made it in place of one that was not ended for a lower number. Everything else that comes
//! above the budget came by an act of ours. A grant of more than there is can only be one that was counted anew.
//!
//! A pod that others deleted takes its slots until it is gone, like any other. Only once another has come in its place are
//! they an overlap that nobody here is to blame for: what is given to somebody else before that is given twice.

use std::collections::{BTreeMap, BTreeSet};

use super::{Moment, News, Sheet, Told};

/// What one pod is.
#[derive(Clone, Debug, Default)]
pub(super) struct Seat {
    /// Its WorkerPool and revision.
    pub(super) kind: (String, String),
    /// What it takes, by Pool.
    pub(super) takes: BTreeMap<String, u64>,
}

/// A pod that is there.
struct Guest {
    name: String,
    seat: Seat,
    is_going: bool,
    /// Others have deleted it, and another pod has come in its place already.
    is_replaced: bool,
}

/// One Pool.
#[derive(Clone, Copy, Default)]
struct Budget {
    slots: Option<u64>,
    granted: u64,
    epoch: i64,
    /// Slots of pods that may still come above the budget: they were granted before it was cut. `None` while that is not
    /// known, as after there was no limit.
    late: Option<u64>,
}

/// The state of a namespace as its events are read.
#[derive(Default)]
pub(super) struct Ledger {
    others: BTreeSet<String>,
    scaled_in: BTreeSet<String>,
    pods: BTreeMap<String, Guest>,
    budgets: BTreeMap<String, Budget>,
    /// Pods that are to be replaced, by WorkerPool and revision.
    vacant: BTreeMap<(String, String), u64>,
    sheets: BTreeMap<String, Sheet>,
}

impl Ledger {
    /// `others` are names of pods that somebody else has deleted, `scaled_in` of those that were ended because fewer were
    /// asked for.
    pub(super) fn new(others: BTreeSet<String>, scaled_in: BTreeSet<String>) -> Self {
        Self {
            others,
            scaled_in,
            ..Self::default()
        }
    }

    pub(super) fn read(mut self, told: &[Told]) -> BTreeMap<String, Sheet> {
        for one in told {
            match &one.news {
                News::Slots(pool, slots, granted, epoch) => {
                    self.change(one, pool, (*slots, *granted, *epoch));
                }
                News::Pod(uid, seat, is_going) => self.pod(one, uid, seat, *is_going),
                News::Gone(uid) => {
                    let Some(guest) = self.pods.remove(uid) else {
                        continue;
                    };
                    self.leave(&one.name, &guest.seat, guest.is_going);
                    for pool in guest.seat.takes.keys() {
                        self.note(one, pool, "gone", false);
                    }
                }
            }
        }
        self.sheets
    }

    /// A Pool was written.
    fn change(&mut self, told: &Told, pool: &str, (slots, granted, epoch): (Option<u64>, u64, i64)) {
        let known = self.budgets.get(pool).copied();
        let old = known.unwrap_or_default();
        let (own, taken) = self.taken(pool);
        let to_come = granted.saturating_sub(own);
        // A raise is the next change; whatever else adds to grants has counted them anew.
        let (rose, is_raise) = (old.granted < granted, epoch == old.epoch.saturating_add(1));
        let late = match (old.slots, slots) {
            (Some(before), Some(now)) if now < before => Some(to_come),
            (Some(_), Some(_)) if rose && !is_raise => old.late.map(|late| late.max(to_come)),
            (Some(_), Some(_)) => old.late,
            _ => None,
        };
        let new = Budget {
            slots,
            granted,
            epoch,
            late,
        };
        self.budgets.insert(pool.to_owned(), new);
        if known.is_none() || (old.slots, old.granted) != (slots, granted) {
            let most = |slots: u64| if is_raise { slots } else { slots.max(taken) };
            let is_broken = known.is_some() && rose && slots.is_some_and(|slots| granted > most(slots));
            self.note(told, pool, "changed", is_broken);
        }
    }

    /// A pod was written.
    fn pod(&mut self, told: &Told, uid: &str, seat: &Seat, is_going: bool) {
        if let Some(guest) = self.pods.get_mut(uid) {
            let was_going = std::mem::replace(&mut guest.is_going, is_going);
            guest.seat = seat.clone();
            if is_going {
                self.leave(&told.name, seat, was_going);
            }
            return;
        }
        let replaces = self.replace(&seat.kind);
        let guest = Guest {
            name: told.name.clone(),
            seat: seat.clone(),
            is_going,
            is_replaced: false,
        };
        self.pods.insert(uid.to_owned(), guest);
        for (pool, slots) in &seat.takes {
            let is_broken = self.is_one_too_many(pool, *slots, replaces);
            self.note(told, pool, "created", is_broken);
        }
    }

    /// A pod of this kind comes; true if it does so in the place of another. If that one is still there because others
    /// deleted it, both are from now on.
    fn replace(&mut self, kind: &(String, String)) -> bool {
        let Some(vacant) = self.vacant.get_mut(kind).filter(|vacant| **vacant > 0) else {
            return false;
        };
        *vacant -= 1;
        let mut going = self.pods.values_mut().filter(|one| one.is_going);
        let deleted =
            going.find(|one| one.seat.kind == *kind && !one.is_replaced && self.others.contains(&one.name));
        if let Some(deleted) = deleted {
            deleted.is_replaced = true;
        }
        true
    }

    /// A pod leaves; unless it was ended for a lower number, another takes its place.
    fn leave(&mut self, name: &str, seat: &Seat, was_going: bool) {
        if !was_going && (!self.scaled_in.contains(name) || self.others.contains(name)) {
            *self.vacant.entry(seat.kind.clone()).or_default() += 1;
        }
    }

    /// A pod that takes so many slots has just come: the Pool has neither room for it nor another reason.
    fn is_one_too_many(&mut self, pool: &str, slots: u64, replaces: bool) -> bool {
        let (own, _) = self.taken(pool);
        let Some(budget) = self.budgets.get_mut(pool) else {
            return false;
        };
        let Some(most) = budget.slots else { return false };
        if own > most.max(budget.granted) {
            return true;
        }
        if own <= most || replaces {
            return false;
        }
        let is_late = budget.late.is_none_or(|late| late >= slots);
        budget.late = budget.late.map(|late| late.saturating_sub(slots));
        !is_late
    }

    /// What is taken of a Pool, without and with what others have deleted and Kubernetes has replaced.
    fn taken(&self, pool: &str) -> (u64, u64) {
        let of = |seat: &Seat| seat.takes.get(pool).copied().unwrap_or(0);
        let (mut own, mut all) = (0, 0);
        for one in self.pods.values() {
            all += of(&one.seat);
            own += if one.is_replaced { 0 } else { of(&one.seat) };
        }
        (own, all)
    }

    fn note(&mut self, told: &Told, pool: &str, what: &str, is_broken: bool) {
        let (own, taken) = self.taken(pool);
        let known = self.budgets.get(pool).copied().unwrap_or_default();
        let moment = Moment {
            at: told.at,
            taken,
            overlap: taken - own,
            slots: known.slots,
            granted: known.granted,
            what: format!("{} {what}", told.name),
        };
        let sheet = self.sheets.entry(pool.to_owned()).or_default();
        if is_broken {
            sheet.broken.push(moment.clone());
        }
        sheet.moments.push(moment);
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    /// Reads events of a Pool `p` and of pods that take one slot each.
    #[derive(Default)]
    struct Story {
        told: Vec<Told>,
        ledger: Ledger,
    }

    impl Story {
        fn tell(mut self, name: &str, news: News) -> Self {
            self.told.push(Told {
                version: self.told.len() as u64,
                at: Timestamp::UNIX_EPOCH,
                name: name.to_owned(),
                news,
            });
            self
        }

        fn pool(self, slots: u64, granted: u64, epoch: i64) -> Self {
            self.tell("p", News::Slots("p".to_owned(), Some(slots), granted, epoch))
        }

        fn pods(self, names: &[&str], is_going: bool) -> Self {
            self.pods_of("w", names, is_going)
        }

        fn pods_of(self, worker_pool: &str, names: &[&str], is_going: bool) -> Self {
            names.iter().fold(self, |story, name| {
                let seat = Seat {
                    kind: (worker_pool.to_owned(), "r".to_owned()),
                    takes: [("p".to_owned(), 1)].into(),
                };
                story.tell(name, News::Pod((*name).to_owned(), seat, is_going))
            })
        }

        fn gone(self, name: &str) -> Self {
            self.tell(name, News::Gone(name.to_owned()))
        }

        fn deleted(mut self, name: &str) -> Self {
            self.ledger.others.insert(name.to_owned());
            self
        }

        fn scaled_in(mut self, names: &[&str]) -> Self {
            let names = names.iter().map(|name| (*name).to_owned());
            self.ledger.scaled_in.extend(names);
            self
        }

        fn broken(self) -> Vec<String> {
            let mut sheets = self.ledger.read(&self.told);
            let sheet = sheets.remove("p").expect("a sheet");
            sheet.broken.into_iter().map(|moment| moment.what).collect()
        }
    }

    /// Four of four run.
    fn full() -> Story {
        let made = Story::default().pool(4, 0, 1000).pool(4, 4, 1001);
        made.pods(&["a", "b", "c", "d"], false)
    }

    #[test]
    fn what_is_granted_and_fits_is_well() {
        assert!(full().broken().is_empty());
        assert_eq!(full().pods(&["e"], false).broken(), ["e created"]);
    }

    #[test]
    fn a_pod_that_somebody_deleted_is_replaced_at_once_and_nothing_is_granted_for_it() {
        let overlap = || full().deleted("a").pods(&["a"], true).pods(&["e"], false);
        assert!(overlap().gone("a").broken().is_empty());
        assert_eq!(overlap().pool(4, 5, 1002).broken(), ["p changed"]);
        // Counted anew, it is what there is.
        assert!(overlap().pool(4, 0, 0).pool(4, 5, 9000).broken().is_empty());
        assert_eq!(overlap().pool(4, 0, 0).pool(4, 6, 9000).broken(), ["p changed"]);
    }

    #[test]
    fn what_somebody_deleted_is_charged_until_it_is_gone_or_replaced() {
        let drains = || full().deleted("a").pods(&["a"], true);
        // Its slot is given to another WorkerPool while it drains: that is no replacement.
        let twice = || drains().pods_of("v", &["e"], false);
        assert_eq!(twice().broken(), ["e created"]);
        let late = drains().gone("a").pods_of("v", &["e"], false);
        assert!(late.broken().is_empty());
        // One is replaced, and for the other somebody else comes.
        let both = full().deleted("a").deleted("b").pods(&["a", "b"], true);
        let one = both.pods(&["e"], false).pods_of("v", &["f"], false);
        assert_eq!(one.broken(), ["f created"]);
    }

    #[test]
    fn after_a_cut_comes_what_was_granted_before_and_what_is_replaced() {
        let before = Story::default().pool(6, 0, 1000).pool(6, 6, 1001);
        let late = before.pods(&["a", "b", "c", "d"], false).pool(2, 6, 1001);
        let late = late.pods(&["e", "f"], false);
        let replaced = late.deleted("a").pods(&["a"], true).pods(&["g"], false).gone("a");
        // One that is force-deleted, and one whose node was lost, is replaced too.
        let replaced = replaced.gone("b").pods(&["h"], false);
        assert!(replaced.broken().is_empty());
    }

    #[test]
    fn after_a_cut_no_slack_of_a_grant_is_taken() {
        let cut = || {
            let before = Story::default().pool(6, 0, 1000).pool(6, 6, 1001);
            let all = ["a", "b", "c", "d", "e", "f"];
            let cut = before.pods(&all, false).pool(2, 6, 1001);
            let going = &all[2..];
            let fallen = cut.scaled_in(going).pods(going, true);
            going.iter().fold(fallen, |story, name| story.gone(name))
        };
        assert!(cut().broken().is_empty());
        assert_eq!(
            cut().pods(&["g", "h"], false).broken(),
            ["g created", "h created"]
        );
        assert!(cut().pool(2, 2, 1002).broken().is_empty());
    }

    #[test]
    fn what_runs_when_a_limit_comes_is_counted_and_replaced() {
        let limited = |counted: u64| {
            let news = News::Slots("p".to_owned(), None, 0, 1000);
            let open = Story::default().tell("p", news).pods(&["a", "b"], false);
            open.pool(1, 0, 1000).pool(1, counted, 9000)
        };
        assert!(limited(2).gone("a").pods(&["c"], false).broken().is_empty());
        assert_eq!(limited(3).broken(), ["p changed"]);
    }
}
