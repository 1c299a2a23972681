//! A decision in words.

use std::fmt::Write as _;

use crate::decision::TEXT_MAX;
use crate::demand::Demand;
use crate::policy::Wanted;
use crate::scaling::Draft;
use crate::snapshot::PoolInput;
use crate::text::bounded;
use crate::wait_target::{Sight, Term, Wish};

/// The formula filled in, then each limit; at most 512 bytes.
pub(crate) fn words(draft: &Draft, wanted: &Wanted, pool: &PoolInput, demand: &Demand) -> String {
    let mut formula = wanted.wish.map_or_else(
        || tasks_by_slots(pool, demand),
        |(sight, wish)| target_kept(&sight, &wish),
    );
    if demand.orphaned > 0 {
        let _ = write!(formula, ", at least 1 for {} orphaned", demand.orphaned);
    }
    if demand.doubtful > 0 {
        let _ = write!(
            formula,
            ", without {} that were given back and are not due",
            demand.doubtful
        );
    }
    let mut text = if !demand.any {
        // A formula over nothing would look like a demand of nothing.
        format!("{}; demand unknown", draft.to)
    } else if draft.limits.is_empty() && wanted.pods == draft.to {
        format!("{} = {formula}", draft.to)
    } else {
        format!("{}; wanted {} = {formula}", draft.to, wanted.pods)
    };
    for clause in &draft.clauses {
        text.push_str("; ");
        text.push_str(clause);
    }
    bounded(&text, TEXT_MAX)
}

/// The need that won, with its numbers, and what the other would have been.
fn target_kept(sight: &Sight, wish: &Wish) -> String {
    let load = format!("{:.2} tasks/s x {:.1} s each", sight.rate, sight.service);
    let waits = format!(
        "{:.0} waiting, the oldest for {:.0} s, {:.0} busy",
        sight.waiting, sight.age, sight.busy
    );
    let rest = format!("target {:.0} s, start-up {:.0} s", sight.target, sight.start_up);
    let slots = sight.slots;
    match wish.term {
        Term::Nothing => format!("nothing waits and {load} need no slot; {rest}"),
        Term::One => format!("at least one: {waits}; {rest}"),
        Term::Steady => format!(
            "ceil({:.0} slots for {load} / {slots:.0} slots); backlog alone {:.0} ({waits}); {rest}",
            wish.steady, wish.backlog
        ),
        Term::Backlog => format!(
            "ceil({:.0} slots for {waits} / {slots:.0} slots); load alone {:.0} ({load}); {rest}",
            wish.backlog, wish.steady
        ),
        Term::Floor => format!(
            "{} kept warm, which the last hour says is cheaper; without it {:.0} slots for {waits}; {rest}",
            wish.floor,
            wish.steady.max(wish.backlog)
        ),
    }
}

/// The tasks that there are, by the slots of a pod.
fn tasks_by_slots(pool: &PoolInput, demand: &Demand) -> String {
    let tasks = demand.counted;
    // Of the busy slots only those count whose task is certain to run still.
    let of = |part: u64, all: u64| {
        if part < all {
            format!("{part} of {all}")
        } else {
            part.to_string()
        }
    };
    let ready = if demand.ready < demand.ready_of_all {
        of(tasks.ready, demand.ready_of_all)
    } else {
        tasks.ready.to_string()
    };
    format!(
        "ceil(({ready} ready + {} reserved + {} busy) / {} slots)",
        tasks.reserved,
        of(tasks.busy, demand.busy),
        pool.slots
    )
}
