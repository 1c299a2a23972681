//! Looking through task instances over Airflow's API, page by page: which queues they are in, and which of them are sensors
//! that poke.
//!
//! Airflow gives a hundred rows at a time and numbers of none, so this takes many looks where there are many tasks. First all
//! that run, are queued or scheduled are looked through; where they are too many for that, those alone that have run for
//! long, which tells of sensors but not of queues. What is told is always of a whole pass. Asks nothing itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use poolwright_core::airflow_pool::{Counts, POKE_SECONDS, PoolView};
use poolwright_core::executor::Executors;
use poolwright_core::sample::FaultKind;

use super::answers::{Task, Tasks};
use super::rest::PAGE;
use crate::signals::SignalError;

/// Rows that are looked through in one pass.
const ROWS_MAX: usize = 20 * PAGE;
/// Pages of one pass: there are twice as many as it takes, since each has some of the one before, and fewer rows where
/// `maximum_page_limit` says so. With the rows of a page this bounds what is kept.
const PAGES_MAX: usize = 2 * ROWS_MAX / PAGE;
/// So many rows a page has of the one before: where as many tasks end between the two, none falls between them. Of a
/// short page it is the half, so that a pass gets on.
const OVERLAP: usize = 20;
/// So long nothing is asked after a failure: pools are read without.
const PAUSE: SignedDuration = SignedDuration::from_mins(1);
/// So long what was seen stands while looking fails otherwise than by a refusal.
const STANDS: SignedDuration = SignedDuration::from_mins(5);

/// Which tasks the next page has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Filter {
    /// All that an executor has or may get.
    Active,
    /// All that have run since then.
    RunningSince(Timestamp),
}

/// The pass that is under way, and what the last one has seen.
pub(super) struct Pass {
    executors: Executors,
    offset: usize,
    /// Pages that this pass has taken.
    pages: usize,
    only_long: bool,
    /// Whether this pass has lost its place, so that rows may be in none of its pages.
    torn: bool,
    /// Whether the last one had.
    again: bool,
    rows: BTreeMap<String, Task>,
    /// Sensors that had run for long, in the pass before.
    long: Option<BTreeSet<String>>,
    seen: Option<Seen>,
    paused: Option<Timestamp>,
    /// Since when no pass has come to its end.
    failing: Option<Timestamp>,
    /// Why nothing is known.
    unread: Option<(FaultKind, Arc<str>)>,
}

/// By pool.
#[derive(Default)]
struct Seen {
    /// Not known after the first pass.
    poking: Option<BTreeMap<String, u32>>,
    queues: BTreeMap<String, BTreeMap<String, Counts>>,
}

fn long_before(now: Timestamp) -> Timestamp {
    now.checked_sub(SignedDuration::from_secs(POKE_SECONDS))
        .unwrap_or(now)
}

impl Pass {
    pub(super) fn new(executors: Executors) -> Self {
        Self {
            executors,
            offset: 0,
            pages: 0,
            only_long: false,
            torn: false,
            again: false,
            rows: BTreeMap::new(),
            long: None,
            seen: None,
            paused: None,
            failing: None,
            unread: None,
        }
    }

    /// Which page is next, with its offset; `None` while none is to be asked for.
    pub(super) fn next(&self, now: Timestamp) -> Option<(Filter, usize)> {
        if self.paused.is_some_and(|at| now.duration_since(at) < PAUSE) {
            return None;
        }
        let filter = if self.only_long {
            Filter::RunningSince(long_before(now))
        } else {
            Filter::Active
        };
        Some((filter, self.offset))
    }

    /// Takes the page that was asked for.
    pub(super) fn take(&mut self, page: Tasks, now: Timestamp) {
        if !self.only_long && page.total > ROWS_MAX {
            self.begin(true, false);
            return;
        }
        let seen = self.offset + page.rows.len();
        let is_last = page.rows.is_empty() || seen >= page.total || seen >= ROWS_MAX;
        self.torn |= self.offset > 0 && !page.rows.iter().any(|(id, _)| self.rows.contains_key(id));
        self.offset = seen.saturating_sub(OVERLAP.min(page.rows.len() / 2));
        self.pages += 1;
        self.rows.extend(page.rows);
        // Those that run for long are told as far as they go, which they come to by at least a row a page.
        if !is_last && (self.only_long || self.pages < PAGES_MAX) {
            return;
        }
        if !is_last {
            // Too many for pages that are so short: a part of them is not told.
            self.begin(true, false);
        } else if self.torn && !self.again {
            // Where that happens twice, what was seen is better than what is old.
            self.begin(self.only_long, true);
        } else {
            self.end(now);
        }
    }

    fn begin(&mut self, only_long: bool, again: bool) {
        (self.only_long, self.again) = (only_long, again);
        (self.torn, self.offset, self.pages) = (false, 0, 0);
        self.rows.clear();
    }

    /// Tasks may not be looked at: nothing is known of them. Or not now: what the last whole pass has seen stands for some
    /// minutes.
    pub(super) fn fail(&mut self, now: Timestamp, error: &SignalError) {
        self.begin(false, false);
        self.paused = Some(now);
        let since = *self.failing.get_or_insert(now);
        if error.kind == FaultKind::Refused || now.duration_since(since) >= STANDS {
            (self.seen, self.long) = (None, None);
            self.unread = Some((error.kind, error.message.as_str().into()));
        }
    }

    /// Writes into a pool what the last whole pass has seen of it.
    pub(super) fn tell(&self, name: &str, pool: &mut PoolView) {
        pool.unread.clone_from(&self.unread);
        let Some(seen) = &self.seen else { return };
        let poking = seen.poking.as_ref();
        pool.poking = poking.map(|poking| poking.get(name).copied().unwrap_or(0));
        pool.queues = seen.queues.get(name).cloned().unwrap_or_default();
    }

    fn end(&mut self, now: Timestamp) {
        let since = long_before(now);
        let mut seen = Seen::default();
        let (before, mut long) = (self.long.take(), BTreeSet::new());
        let mut poking = BTreeMap::new();
        for (id, task) in std::mem::take(&mut self.rows) {
            if task.is_sensor && task.state == "running" && task.start.is_some_and(|start| start <= since) {
                // One whose trigger has fired runs again for a moment, with the time of its first start.
                if before.as_ref().is_some_and(|before| before.contains(&id)) {
                    *poking.entry(task.pool.clone()).or_default() += 1;
                }
                long.insert(id);
            }
            if !self.only_long && self.executors.is_celery(task.executor.as_deref(), &task.queue) {
                let queues = seen.queues.entry(task.pool).or_default();
                queues.entry(task.queue).or_default().add(&task.state, 1);
            }
        }
        seen.poking = before.map(|_| poking);
        (self.long, self.seen) = (Some(long), Some(seen));
        self.begin(false, false);
        self.paused = None;
        // Not before: where each pass breaks off at a later page, the first ones are no reason to believe what is old.
        (self.failing, self.unread) = (None, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(ids: std::ops::Range<usize>, total: usize) -> Tasks {
        let row = |id: usize| {
            let task = Task {
                pool: "p".to_owned(),
                queue: "q".to_owned(),
                state: "running".to_owned(),
                executor: None,
                is_sensor: false,
                start: None,
            };
            (id.to_string(), task)
        };
        Tasks {
            total,
            rows: ids.map(row).collect(),
        }
    }

    #[test]
    fn a_pass_that_loses_its_place_is_gone_through_once_more() {
        let mut pass = Pass::new(Executors::read("CeleryExecutor"));
        let now = Timestamp::UNIX_EPOCH;
        let mut seen = |pages: [std::ops::Range<usize>; 2]| {
            for (ids, offset) in pages.into_iter().zip([0, 80]) {
                assert_eq!(pass.next(now), Some((Filter::Active, offset)));
                let total = if offset == 0 { 150 } else { offset + ids.len() };
                pass.take(page(ids, total), now);
            }
            let mut pool = PoolView::default();
            pass.tell("p", &mut pool);
            pool.queues.get("q").map(|counts| counts.running)
        };
        let lost = "ten are in no page, since thirty have ended";
        assert_eq!(seen([0..100, 110..150]), None, "{lost}");
        assert_eq!(
            seen([0..100, 110..150]),
            Some(140),
            "nor in one of the second pass"
        );
        assert_eq!(seen([0..100, 80..150]), Some(150));
        assert_eq!(seen([0..100, 99..149]), Some(149), "nineteen have ended");
        let stands = "what a whole pass has seen stands";
        assert_eq!(seen([0..100, 100..150]), Some(149), "{stands}");
    }

    /// A sensor for each id, that has run for ever.
    fn sensors(ids: std::ops::Range<usize>, total: usize) -> Tasks {
        let mut page = page(ids, total);
        for (_, task) in &mut page.rows {
            (task.is_sensor, task.start) = (true, Some(Timestamp::MIN));
        }
        page
    }

    #[test]
    fn a_pass_comes_to_its_end_however_short_the_pages_are() {
        for (most, total, pages) in [(20, 100, 9), (1, 30, 30), (2, 30, 29)] {
            let mut pass = Pass::new(Executors::read("CeleryExecutor"));
            let now = Timestamp::UNIX_EPOCH;
            let mut asked = 0;
            while pass.seen.is_none() {
                let (filter, offset) = pass.next(now).unwrap();
                assert_eq!(filter, Filter::Active);
                pass.take(page(offset..(offset + most).min(total), total), now);
                asked += 1;
                assert!(asked <= 2 * PAGES_MAX, "it does not end");
            }
            // Pages of one row cannot have any of the one before, so that a pass is gone through twice.
            let times = if most == 1 { 2 } else { 1 };
            assert_eq!(asked, times * pages, "{most}");
            let mut pool = PoolView::default();
            pass.tell("p", &mut pool);
            assert_eq!(pool.queues["q"].running, total as u64, "{most}");
        }
    }

    #[test]
    fn where_pages_are_too_short_for_all_those_that_run_for_long_are_told() {
        let mut pass = Pass::new(Executors::read("CeleryExecutor"));
        let now = Timestamp::UNIX_EPOCH;
        // Those that are seen twice are told.
        for _ in 0..2 {
            let (mut active, mut was_long) = (0, false);
            while !was_long || pass.only_long {
                was_long = pass.only_long;
                let (filter, offset) = pass.next(now).unwrap();
                assert_eq!(filter == Filter::Active, !was_long);
                active += usize::from(!was_long);
                pass.take(sensors(offset..offset + 20, ROWS_MAX), now);
                assert!(pass.rows.len() <= 2 * ROWS_MAX);
            }
            assert_eq!(active, PAGES_MAX, "all were tried first");
        }
        let mut pool = PoolView::default();
        pass.tell("p", &mut pool);
        let all = u32::try_from(ROWS_MAX).unwrap();
        assert!(
            pool.poking
                .is_some_and(|poking| (all..all + 20).contains(&poking))
        );
        assert!(pool.queues.is_empty());
    }
}
