//! A decision in words.
//!
//! They are put together when somebody reads them: of ten thousand decisions a cycle nearly all are the same as the last
//! ones, and nobody does.

use std::fmt::Write as _;

use crate::ahead::Told;
use crate::decision::TEXT_MAX;
use crate::demand::{Counted, Demand};
use crate::draft::Draft;
use crate::policy::Wanted;
use crate::text::bounded;
use crate::wait_target::{Sight, Term, Wish};

/// What the words of a decision are made from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Words {
    /// Missing where there is nothing but clauses.
    formula: Option<Formula>,
    /// What limited the number, and what else there is to say of it.
    clauses: Vec<String>,
    /// What a load does to the workers.
    load: Option<String>,
}

/// The numbers of the formula.
#[derive(Clone, Debug, PartialEq)]
struct Formula {
    to: u32,
    wanted: u32,
    limited: bool,
    known: bool,
    slots: u32,
    counted: Counted,
    ready: u64,
    ready_of_all: u64,
    busy: u64,
    orphaned: u64,
    doubtful: u64,
    /// How the wait target came to it, with that policy.
    wish: Option<Box<(Sight, Wish)>>,
    /// What falls due soon.
    ahead: Told,
}

impl Words {
    /// The words for a number of pods.
    pub(crate) fn new(draft: &mut Draft, wanted: &mut Wanted, slots: u32, demand: &Demand) -> Self {
        let formula = Formula {
            to: draft.to,
            wanted: wanted.formula,
            limited: !draft.limits.is_empty() || wanted.formula != draft.to,
            known: demand.any,
            slots,
            counted: demand.counted,
            ready: demand.ready,
            ready_of_all: demand.ready_of_all,
            busy: demand.busy,
            orphaned: demand.orphaned,
            doubtful: demand.doubtful,
            wish: wanted.wish.take(),
            ahead: wanted.ahead,
        };
        Self {
            formula: Some(formula),
            clauses: std::mem::take(&mut draft.clauses),
            load: None,
        }
    }

    /// These very words.
    #[cfg(test)]
    pub(crate) fn plain(text: String) -> Self {
        Self {
            clauses: vec![text],
            ..Self::default()
        }
    }

    /// Adds what a load does to the workers.
    pub(crate) fn add_load(&mut self, words: &str) {
        self.load = Some(words.to_owned());
    }

    /// The formula filled in, then each limit; at most 512 bytes.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = self.formula.as_ref().map_or_else(String::new, Formula::text);
        for clause in &self.clauses {
            if !text.is_empty() {
                text.push_str("; ");
            }
            text.push_str(clause);
        }
        let text = bounded(&text, TEXT_MAX);
        match &self.load {
            Some(load) => bounded(&format!("{text}; {load}"), TEXT_MAX),
            None => text,
        }
    }
}

impl Formula {
    fn text(&self) -> String {
        let mut formula = self.wish.as_deref().map_or_else(
            || self.tasks_by_slots(),
            |(sight, wish)| target_kept(sight, wish, &self.soon()),
        );
        if self.orphaned > 0 {
            let _ = write!(formula, ", at least 1 for {} orphaned", self.orphaned);
        }
        if let Some((tasks, first)) = self.ahead.waits {
            let _ = write!(
                formula,
                ", without {tasks} of which the first is due in {} s: several pods start for them later, so that none is up \
                 before",
                first.as_secs()
            );
        }
        if self.doubtful > 0 {
            let _ = write!(
                formula,
                ", without {} that were given back and are not due",
                self.doubtful
            );
        }
        if !self.known {
            // A formula over nothing would look like a demand of nothing.
            format!("{}; demand unknown", self.to)
        } else if self.limited {
            format!("{}; wanted {} = {formula}", self.to, self.wanted)
        } else {
            format!("{} = {formula}", self.to)
        }
    }

    /// What is counted although it is not due.
    fn soon(&self) -> String {
        self.ahead.counted.map_or_else(String::new, |(tasks, within)| {
            format!(" + {tasks} due within {:.0} s", within.as_secs_f64())
        })
    }

    /// The tasks that there are, by the slots of a pod.
    fn tasks_by_slots(&self) -> String {
        let tasks = self.counted;
        // Of the busy slots only those count whose task is certain to run still.
        let of = |part: u64, all: u64| {
            if part < all {
                format!("{part} of {all}")
            } else {
                part.to_string()
            }
        };
        let ready = if self.ready < self.ready_of_all {
            of(tasks.ready, self.ready_of_all)
        } else {
            tasks.ready.to_string()
        };
        format!(
            "ceil(({ready} ready + {} reserved + {} busy{}) / {} slots)",
            tasks.reserved,
            of(tasks.busy, self.busy),
            self.soon(),
            self.slots
        )
    }
}

/// The need that won, with its numbers, and what the other would have been.
fn target_kept(sight: &Sight, wish: &Wish, soon: &str) -> String {
    let load = format!("{:.2} tasks/s x {:.1} s each", sight.rate, sight.coming_service);
    let waits = format!(
        "{:.0} waiting, the oldest for {:.0} s, {:.0} busy{soon}",
        sight.waiting, sight.age, sight.busy
    );
    let rest = format!("target {:.0} s, start-up {:.0} s", sight.target, sight.start_up);
    let slots = sight.slots;
    match wish.term {
        Term::Nothing => format!(
            "nothing waits, none came for {:.0} s, and {load} need no slot; {rest}",
            sight.quiet
        ),
        Term::One => format!("at least one: {waits}; {rest}"),
        Term::Steady => format!(
            "ceil({} for {load} / {slots:.0} slots); backlog alone {} ({waits}); {rest}",
            usable(wish.steady, wish.unbounded),
            alone(wish.backlog, wish.uncut)
        ),
        Term::Backlog => format!(
            "ceil({} for {waits} / {slots:.0} slots); load alone {:.0} ({load}); {rest}",
            usable(wish.backlog, wish.uncut),
            wish.steady
        ),
        Term::Floor => format!(
            "{} kept warm, which the last hour says is cheaper; without it {} for {waits}; {rest}",
            wish.floor,
            usable(wish.steady.max(wish.backlog), wish.unbounded.max(wish.uncut))
        ),
    }
}

/// Slots, and how many there would be if there were a task for each.
fn usable(slots: f64, uncut: f64) -> String {
    if is_cut(slots, uncut) {
        format!("there are tasks for {slots:.0} of {uncut:.0} slots")
    } else {
        format!("{slots:.0} slots")
    }
}

/// The same as a number.
fn alone(slots: f64, uncut: f64) -> String {
    if is_cut(slots, uncut) {
        format!("{slots:.0} of {uncut:.0} for want of tasks")
    } else {
        format!("{slots:.0}")
    }
}

/// True if the two are different as they are told.
fn is_cut(slots: f64, uncut: f64) -> bool {
    slots.round() < uncut.round()
}

/// The sources besides the first, as ` and heartbeats`, or `, 2 more queues and heartbeats`.
pub(crate) fn besides<'a>(first: &str, all: impl Iterator<Item = &'a str>) -> String {
    let others = all.filter(|name| *name != first);
    let (queues, mut rest): (Vec<&str>, Vec<&str>) = others.partition(|name| name.starts_with("queue "));
    let counted = format!("{} more queues", queues.len());
    match queues[..] {
        [] => {}
        [one] => rest.insert(0, one),
        _ => rest.insert(0, &counted),
    }
    let Some((last, before)) = rest.split_last() else {
        return String::new();
    };
    let before: String = before.iter().flat_map(|name| [", ", name]).collect();
    format!("{before} and {last}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_queues_one_is_named_and_the_others_counted() {
        let first = "queue \"a\"";
        let more =
            |others: &[&'static str]| besides(first, [first].into_iter().chain(others.iter().copied()));
        assert_eq!(more(&[]), "");
        assert_eq!(more(&["heartbeats"]), " and heartbeats");
        assert_eq!(more(&["queue \"b\""]), " and queue \"b\"");
        assert_eq!(
            more(&["queue \"b\"", "heartbeats"]),
            ", queue \"b\" and heartbeats"
        );
        let three = ["queue \"b\"", "queue \"c\"", "heartbeats"];
        assert_eq!(more(&three), ", 2 more queues and heartbeats");
    }

    /// Of several queues each has tasks of its own length: the load is told by those that come.
    #[test]
    fn a_load_is_told_by_the_numbers_that_it_was_calculated_from() {
        let sight = Sight {
            waiting: 0.0,
            age: 0.0,
            busy: 5.0,
            rate: 2.0,
            service: 10.0,
            coming_service: 3.0,
            waiting_service: 7.0,
            start_up: 30.0,
            slots: 4.0,
            up: 2.0,
            starting: 0.0,
            starting_for: 0.0,
            quiet: 0.0,
            target: 30.0,
        };
        let wish = crate::wait_target::desired(&sight, 0);
        assert_eq!(wish.term, Term::Steady);
        let text = target_kept(&sight, &wish, "");
        assert!(text.contains("2.00 tasks/s x 3.0 s each"), "{text}");
        // Of long tasks no more are there than run.
        let long = Sight {
            rate: 0.05,
            coming_service: 600.0,
            busy: 10.0,
            ..sight
        };
        let text = target_kept(&long, &crate::wait_target::desired(&long, 0), "");
        let words = "ceil(there are tasks for 14 of 39 slots for 0.05 tasks/s x 600.0 s each / 4 slots)";
        assert!(text.starts_with(words), "{text}");
    }

    /// Three tasks of ten minutes wait behind six on workers of one slot: what is needed for the load, and one slot for each
    /// of the three, would be more slots than there are tasks.
    #[test]
    fn a_backlog_that_is_cut_to_its_tasks_says_so() {
        let sight = Sight {
            waiting: 3.0,
            age: 1.0,
            busy: 6.0,
            rate: 0.007,
            service: 600.0,
            coming_service: 600.0,
            waiting_service: 600.0,
            start_up: 30.0,
            slots: 1.0,
            up: 6.0,
            starting: 0.0,
            starting_for: 0.0,
            quiet: 0.0,
            target: 30.0,
        };
        let wish = crate::wait_target::desired(&sight, 0);
        assert_eq!((wish.term, wish.pods), (Term::Backlog, 9), "{wish:?}");
        let text = target_kept(&sight, &wish, "");
        let words =
            "ceil(there are tasks for 9 of 11 slots for 3 waiting, the oldest for 1 s, 6 busy / 1 slots)";
        assert!(text.starts_with(words), "{text}");
        // Beside a load that needs more, it is told of the number that did not win.
        let more = Sight { rate: 0.01, ..sight };
        let text = target_kept(&more, &crate::wait_target::desired(&more, 0), "");
        assert!(
            text.contains("; backlog alone 9 of 14 for want of tasks (3 waiting"),
            "{text}"
        );
        // Where each has its task, there is nothing to say.
        let less = Sight { rate: 0.005, ..sight };
        let text = target_kept(&less, &crate::wait_target::desired(&less, 0), "");
        assert!(text.starts_with("ceil(9 slots for 3 waiting"), "{text}");
    }
}
