//! What a task that is pushed now has to expect of its queue. For people: no decision follows from it.
//!
//! Workers take from their queues in turn. So before a task runs, those ahead of it in its own queue have begun, and of each
//! other queue as many, if there are so many. Several WorkerPools on one queue do that side by side.

use std::time::Duration;

use crate::books::Books;
use crate::decision::Decision;
use crate::estimate::float;
use crate::fleet::Fleet;
use crate::ledger::QueueLedger;
use crate::memory::PoolMemory;
use crate::time::Moment;

/// What is expected of one queue.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Outlook {
    /// Tasks that come in a minute, over the last minutes; `None` while no WorkerPool knows.
    pub each_minute: Option<f64>,
    /// For how long the oldest waiting task has waited, at least; `None` where it is not known. Of queues that share
    /// workers and of WorkerPools that share a queue it is not: whose task began, nobody says.
    pub oldest: Option<Duration>,
    /// A WorkerPool doubts what it sees.
    pub doubted: bool,
    /// WorkerPools of which it is known when they would come to the new task, or that they would not.
    known: usize,
    /// Turns a second: each WorkerPool would have come to the new task after some time, of which this is the reciprocal.
    turns: f64,
}

impl Outlook {
    pub(crate) fn add(&mut self, each_minute: Option<f64>, turn: Option<f64>) {
        self.each_minute = each_minute.map(|rate| rate + self.each_minute.unwrap_or(0.0));
        self.known += usize::from(turn.is_some());
        self.turns += turn.map_or(0.0, |turn| 1.0 / turn);
    }

    /// Seconds until a task that is pushed now begins; `None` where nobody would run it or it is not known.
    #[must_use]
    pub fn wait(&self) -> Option<f64> {
        (self.turns > 0.0).then(|| 1.0 / self.turns)
    }

    /// True if of all these WorkerPools it is known that they would not run it.
    #[must_use]
    pub const fn nobody(&self, claimants: usize) -> bool {
        self.turns <= 0.0 && self.known == claimants
    }
}

/// An estimate as a status says it: as before, unless that is off by more than a quarter and more than one. So a steady
/// load is no reason to write.
#[must_use]
pub fn settled(old: Option<i64>, new: Option<f64>) -> Option<i64> {
    /// Less is nothing.
    const NOTHING: f64 = 0.05;
    let new = new?;
    #[allow(clippy::cast_precision_loss, reason = "counts far below 2^52")]
    let stays = |old: &i64| {
        let off = (new - *old as f64).abs();
        off <= (*old as f64 / 4.0).max(1.0) && (*old == 0) == (new < NOTHING)
    };
    #[allow(clippy::cast_possible_truncation, reason = "saturates")]
    let rounded = new.round() as i64;
    Some(
        old.filter(stays)
            .unwrap_or_else(|| rounded.max(i64::from(new >= NOTHING))),
    )
}

/// Adds what the WorkerPool at this place does for its queues.
pub(crate) fn look(
    books: &mut Books,
    at: usize,
    fleet: &Fleet,
    memory: &PoolMemory,
    decision: &Decision,
    now: Moment,
) {
    let flows = &memory.flows;
    let service = memory.estimates.service();
    let is_doubted = memory.suspect_until.is_some_and(|until| now < until);
    let turn = |queues: &[(f64, f64)], at| turn(queues, at, fleet, memory, decision, now);
    if flows.names().len() == 1 {
        // Most have one queue: it is looked up once, and no list is made.
        for name in flows.names() {
            let Some(place) = books.place(at, 0, name) else {
                continue;
            };
            let book = books.at(place);
            let turn = waits(book).and_then(|waits| turn(&[(float(waits), service)], 0));
            book.outlook.add(flows.each_minute(name, now), turn);
            book.outlook.doubted |= is_doubted;
            if book.claimants == 1 && memory.stale_since.is_none() {
                book.outlook.oldest = waits(book).map(|waits| memory.age(waits, now));
            }
        }
        return;
    }
    let names = flows.names().enumerate();
    let places: Vec<Option<usize>> = names
        .map(|(number, name)| books.place(at, number, name))
        .collect();
    let known = places.iter().zip(flows.services(service));
    let known = known.map(|(place, service)| Some((float(waits(books.at((*place)?))?), service)));
    let queues: Option<Vec<(f64, f64)>> = known.collect();
    for (number, (name, place)) in flows.names().zip(places).enumerate() {
        let turn = queues.as_ref().and_then(|queues| turn(queues, number));
        if let Some(place) = place {
            let outlook = &mut books.at(place).outlook;
            outlook.add(flows.each_minute(name, now), turn);
            outlook.doubted |= is_doubted;
        }
    }
}

/// What waits in a queue or is fetched from it.
fn waits(book: &QueueLedger) -> Option<u64> {
    Some(book.ready?.saturating_add(book.reserved?))
}

/// Seconds until one more task of the queue at this place begins on this WorkerPool, never quite zero; infinitely many where
/// nobody would run it, and `None` where it is not known. `queues` are what waits in each and how long its tasks run.
fn turn(
    queues: &[(f64, f64)],
    at: usize,
    fleet: &Fleet,
    memory: &PoolMemory,
    decision: &Decision,
    now: Moment,
) -> Option<f64> {
    /// Less than a person would notice.
    const AT_ONCE: f64 = 1e-3;
    let own = queues[at].0;
    let (up, busy) = (float(decision.facts.slots), float(decision.facts.busy?));
    let ahead: f64 = queues.iter().map(|(waits, _)| waits.min(own)).sum();
    if ahead < up - busy {
        return Some(AT_ONCE);
    }
    let others = queues.iter().enumerate().filter(|(other, _)| *other != at);
    let work = others
        .map(|(_, (waits, service))| waits.min(own + 1.0) * service)
        .sum::<f64>()
        + (own + 1.0) * queues[at].1
        // The first slot gets free when one does that is held: a few long tasks may hold all of them.
        + (memory.estimates.running_service() - memory.estimates.service()).max(0.0);
    let slots = f64::from(fleet.slots);
    if up > 0.0 {
        return Some((work / up).max(AT_ONCE));
    }
    // Nobody is up. If it is decided that somebody will be, or would be for this task: after the start.
    let start_up = memory.start_up(fleet, now).as_secs_f64();
    let seconds = match decision.to {
        0 if own > 0.0 || is_kept_down(fleet, decision) => f64::INFINITY,
        pods => start_up + work / (slots * f64::from(pods.max(1))) - queues[at].1 / slots,
    };
    Some(seconds.max(AT_ONCE))
}

/// True where no worker would be started for a task.
fn is_kept_down(fleet: &Fleet, decision: &Decision) -> bool {
    let pool = fleet.pool;
    pool.hold.is_some()
        || pool.pause.scale_out
        || pool.recommend
        || pool.terminating
        || pool.conflict.is_some()
        || decision.budget.is_some()
}
