//! TaskQueue status: what the broker says of each queue and what it weighs, within the budget of status writes.
//!
//! Reads what the newest cycle saw; never waits for a broker. The only writer of TaskQueue status.

mod late;
mod places;
mod queued;
mod stray;
mod summary;
mod writes;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{Client, ResourceExt};
use poolwright_api::conditions::{condition, set, whole_seconds};
use poolwright_api::v1alpha1::{Pool, TaskQueue, TaskQueueStatus};
use poolwright_api::{ConditionType, Reason};
use poolwright_core::broker_key::BrokerKey;
use poolwright_core::ledger::QueueLedger;
use poolwright_core::outlook::settled;
use poolwright_core::sample::BrokerView;
use poolwright_core::time::Moment;
use poolwright_core::weight::Cycle;
use tokio::time::{MissedTickBehavior, interval};

use self::places::{Place, first_of_each, names_default, place};
use self::summary::summary;
use self::writes::WRITES_MAX;
use super::cycle::Latest;
use super::world::World;
use crate::clock::Clock;
use crate::kube::events::Events;
use crate::kube::status::{Budget, Written};
use crate::metrics::{Metrics, TaskQueueNumbers};
use crate::signals::board::Board;

/// Time between two looks.
const TICK: Duration = Duration::from_millis(500);
/// By then a process has read each queue, or failed to.
const FIRST_READING: Duration = Duration::from_secs(30);

/// Keeps TaskQueue statuses.
pub struct Controller {
    /// For writing.
    pub client: Client,
    /// The cluster.
    pub world: Arc<World>,
    /// The brokers.
    pub board: Arc<Board>,
    /// What the cycle saw.
    pub latest: Arc<Latest>,
    /// Events.
    pub events: Arc<Events>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Writes.
    pub budget: Arc<Budget>,
    /// Clocks.
    pub clock: Clock,
}

#[derive(Default)]
struct Past {
    written: BTreeMap<String, Written<TaskQueueStatus>>,
    /// By uid, of those whose last write failed: how many did in a row, and until when none is tried.
    failed: BTreeMap<String, (u32, Moment)>,
    names: BTreeSet<(String, String)>,
    /// Broker ids by uid, for the generation they were made from: a digest for each queue and look would be most of
    /// what the operator does.
    ids: BTreeMap<String, (Option<i64>, String)>,
    stray: stray::Stray,
    /// By uid.
    late: BTreeMap<String, late::Watched>,
    /// By uid, of those that Airflow's workers consume.
    queued: BTreeMap<String, queued::Queued>,
}

/// The first queues of a look whose status had to wait, so that every queue gets its turn.
#[derive(Default)]
struct Missed {
    /// As many as one look writes were written before it.
    writes: Option<usize>,
    /// A write failed.
    refused: bool,
}

/// What one look saw of one TaskQueue.
struct Seen<'a> {
    /// The broker.
    view: Option<&'a BrokerView>,
    /// Its tasks there.
    book: Option<&'a QueueLedger>,
    /// An older TaskQueue for the same queue.
    rival: Option<&'a TaskQueue>,
    /// The Pool that its tasks draw on.
    pool: Option<&'a Pool>,
    /// Why the operator could not make that Pool.
    unmade: Option<String>,
    /// Why that Pool cannot be read.
    unreadable: Option<String>,
    /// What it weighs, once that was calculated.
    weight: Option<u64>,
    /// The circle that it is on.
    cycle: Option<&'a Cycle>,
    /// Names in its `downstream` that no TaskQueue has.
    unknown: &'a [String],
    /// What is said of its wait target.
    late: late::Said,
    /// What is said of the time that Airflow leaves its tasks in it.
    queued: Option<late::Said>,
}

impl Past {
    fn broker_id(&mut self, queue: &TaskQueue) -> String {
        let (uid, generation) = (queue.uid().unwrap_or_default(), queue.metadata.generation);
        if let Some((_, id)) = self.ids.get(&uid).filter(|(known, _)| *known == generation) {
            return id.clone();
        }
        let id = BrokerKey::new(&queue.namespace().unwrap_or_default(), &queue.spec.broker).id();
        self.ids.insert(uid, (generation, id.clone()));
        id
    }
}

impl Controller {
    /// Runs for ever.
    pub async fn run(self) {
        let mut past = Past::default();
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut turn = 0usize;
        loop {
            ticks.tick().await;
            let missed = self.look(&mut past, turn).await;
            // What is pressing waits for no tick, but what is refused does.
            if missed.writes.is_some() && !missed.refused {
                ticks.reset_immediately();
            }
            turn = missed.writes.unwrap_or(0);
        }
    }

    async fn look(&self, past: &mut Past, turn: usize) -> Missed {
        let queues = self.world.queues.all(None);
        let names: BTreeSet<(String, String)> = queues
            .iter()
            .map(|queue| (queue.namespace().unwrap_or_default(), queue.name_any()))
            .collect();
        for (namespace, name) in past.names.difference(&names) {
            self.metrics.forget_task_queue(namespace, name);
        }
        let uids: BTreeSet<String> = queues.iter().filter_map(|queue| queue.uid()).collect();
        past.written.retain(|uid, _| uids.contains(uid));
        past.failed.retain(|uid, _| uids.contains(uid));
        past.ids.retain(|uid, _| uids.contains(uid));
        past.late.retain(|uid, _| uids.contains(uid));
        past.queued.retain(|uid, _| uids.contains(uid));
        let timeouts = queued::timeouts(&self.world);
        let ids: Vec<String> = queues.iter().map(|queue| past.broker_id(queue)).collect();
        past.stray.forget(&ids, self.clock.now());
        past.names = names;
        let (views, books) = (self.board.views(), self.latest.queues());
        let places: Vec<Place> = queues
            .iter()
            .zip(&ids)
            .map(|(queue, id)| place(queue, id, &views))
            .collect();
        let first = first_of_each(&queues, &places);
        let weights = self.world.weights();
        let (mut missed, mut due) = (Missed::default(), Vec::new());
        let count = queues.len();
        for offset in 0..count {
            let at = (turn + offset) % count;
            let (queue, id) = (&queues[at], &ids[at]);
            let view = views.get(id);
            let book = books.get(id).and_then(|books| books.get(queue.queue_name()));
            let late = self.look_for_lateness(past, queue, book);
            self.count(queue, view, book, late.1);
            let rival = first
                .get(&places[at])
                .filter(|first| first.metadata.uid != queue.metadata.uid)
                .map(AsRef::as_ref);
            let (namespace, name) = (queue.namespace().unwrap_or_default(), queue.name_any());
            let weights = weights.get(&namespace);
            let pool = self.world.budgets.get(&namespace, queue.pool_name());
            let seen = Seen {
                view: view.map(AsRef::as_ref),
                book,
                rival,
                pool: pool.as_deref(),
                unmade: self
                    .world
                    .no_default(&namespace, self.clock.now())
                    .map(|trouble| trouble.message),
                unreadable: self.world.budgets.unreadable(&namespace, queue.pool_name()),
                weight: weights.and_then(|weights| weights.effective.get(&name).copied()),
                cycle: weights.and_then(|weights| weights.cycle(&name)),
                unknown: weights
                    .and_then(|weights| weights.unknown.get(&name))
                    .map_or(&[], Vec::as_slice),
                late: late.0,
                queued: timeouts.get(&(namespace, name)).map(|timeout| {
                    let time = past.queued.entry(queue.uid().unwrap_or_default()).or_default();
                    time.look(*timeout, book, (self.clock.now(), self.clock.wall()))
                }),
            };
            if due.len() == WRITES_MAX {
                missed.writes = missed.writes.or(Some(at));
            } else {
                due.extend(self.change(past, queue, &seen));
            }
            if let Some(view) = view.filter(|view| view.stray > 0 && !names_default(&first, &places[at])) {
                self.tell_stray(past, (queue, id), view);
            }
        }
        missed.refused = !self.write(past, due).await;
        missed
    }

    /// What is said of a queue's wait target, and its numbers.
    fn look_for_lateness(
        &self,
        past: &mut Past,
        queue: &TaskQueue,
        book: Option<&QueueLedger>,
    ) -> (late::Said, (Option<bool>, u64)) {
        let now = self.clock.now();
        let watched = past.late.entry(queue.uid().unwrap_or_default());
        let watched = watched.or_insert_with(|| late::Watched::of(queue));
        watched.look(queue, book, (now, self.clock.wall()));
        let said = watched.said(queue.wait_target(), now, || late::holding(&self.world, queue));
        (said, watched.numbers())
    }

    fn count(
        &self,
        queue: &TaskQueue,
        view: Option<&Arc<BrokerView>>,
        book: Option<&QueueLedger>,
        (missed, begun): (Option<bool>, u64),
    ) {
        let ready = view.and_then(|view| Some(&view.queues.get(queue.queue_name())?.ready));
        // One that was never read is as old as the failure to read it.
        let since = ready.and_then(|ready| match &ready.last {
            Some(sample) => Some(sample.at),
            None => ready.fault.as_ref().map(|fault| fault.since),
        });
        let age = since.map(|since| self.clock.now().since(since).as_secs_f64());
        let numbers = TaskQueueNumbers {
            ready: book.and_then(|book| Some(book.ready? + book.not_due)),
            reserved: book.and_then(|book| book.reserved),
            sample_age_seconds: age,
            arrivals_per_minute: book.and_then(|book| book.outlook.each_minute),
            estimated_wait_seconds: book.and_then(|book| book.outlook.wait()),
            wait_target_missed: missed,
            wait_target_misses: Some(begun),
        };
        self.metrics
            .task_queue(&queue.namespace().unwrap_or_default(), &queue.name_any(), numbers);
    }

    fn status(&self, queue: &TaskQueue, old: &TaskQueueStatus, seen: &Seen<'_>) -> TaskQueueStatus {
        let wall = self.clock.wall();
        let wide = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let narrow = |number: u64| i32::try_from(number).unwrap_or(i32::MAX);
        let mut new = old.clone();
        new.observed_generation = queue.metadata.generation;
        if let Some(view) = seen.view.filter(|view| !view.address.is_empty()) {
            new.broker = Some(view.address.clone());
        }
        if let Some((book, ready)) = seen.book.and_then(|book| Some((book, book.ready?))) {
            new.ready = Some(wide(ready + book.not_due));
            new.reserved = book.reserved.map(wide);
            new.orphaned = Some(wide(book.orphaned));
            new.consumers = Some(narrow(book.consumers));
            new.foreign_consumers = Some(narrow(book.foreign_consumers));
            if new != *old || is_due(old, wall) {
                new.arrivals_per_minute = settled(old.arrivals_per_minute, book.outlook.each_minute);
                new.estimated_wait_seconds = settled(old.estimated_wait_seconds, book.outlook.wait());
            }
            let moved = TaskQueueStatus {
                observed_at: None,
                ..new.clone()
            } != TaskQueueStatus {
                observed_at: None,
                ..old.clone()
            };
            if moved || new.observed_at.is_none() {
                new.observed_at = Some(Time(whole_seconds(wall)));
            }
        }
        new.effective_weight = seen.weight.map(wide);
        let (status, reason, message) = summary(queue, seen);
        let young = self.clock.now().since(Moment(0)) < FIRST_READING;
        let said = !old.conditions.is_empty() && old.observed_generation == new.observed_generation;
        if young && status.is_none() && said {
            // A process that has just started knows nothing yet; what its predecessor said stands until it does.
            return old.clone();
        }
        let stalled = matches!(
            reason,
            Reason::Conflict | Reason::InvalidSpec | Reason::PoolMissing
        );
        let reconciling = status.is_none();
        let (met, met_reason, met_message) = seen.late.clone();
        for (type_, status, reason, message) in [
            (
                ConditionType::Reconciling,
                Some(reconciling),
                if reconciling {
                    Reason::Progressing
                } else {
                    Reason::AsDesired
                },
                if reconciling {
                    message.clone()
                } else {
                    String::new()
                },
            ),
            (
                ConditionType::Stalled,
                Some(stalled),
                if stalled { reason } else { Reason::AsDesired },
                if stalled { message.clone() } else { String::new() },
            ),
            (ConditionType::Ready, status, reason, message),
            (ConditionType::WaitTargetMet, met, met_reason, met_message),
        ] {
            let one = condition(type_, status, reason, message, queue.metadata.generation);
            let _ = set(&mut new.conditions, one, wall);
        }
        let type_ = ConditionType::QueuedInTime;
        match &seen.queued {
            Some((is, reason, message)) => {
                let one = condition(type_, *is, *reason, message, queue.metadata.generation);
                let _ = set(&mut new.conditions, one, wall);
            }
            None => new.conditions.retain(|one| one.type_ != type_.as_str()),
        }
        new
    }
}

/// Estimates alone are told so often at most.
const ESTIMATES_EVERY: Duration = Duration::from_secs(30);

fn is_due(old: &TaskQueueStatus, wall: Timestamp) -> bool {
    let told = old.observed_at.as_ref().map(|time| time.0);
    told.is_none_or(|told| wall.duration_since(told).unsigned_abs() >= ESTIMATES_EVERY)
}

#[cfg(test)]
#[path = "task_queue/look_tests.rs"]
mod tests;
