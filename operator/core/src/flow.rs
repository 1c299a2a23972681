//! What flows through each queue of a WorkerPool: how many tasks come, and how long those of each run.
//!
//! A worker's heartbeat counts starts and names no queue. Two things tell the queues apart. What starts is first taken to
//! be what was seen to leave each queue, and only the rest is divided: those came and began between two looks. And
//! the ages of running tasks, which workers tell by queue, are to each other as the lengths are, if
//! lengths are spread alike; they are scaled so that together they make what the WorkerPool's counts say, which
//! name no queue and are exact. Memory is bounded by the number of queues. This module knows no policy.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::demand::{MILLI, Share};
use crate::estimate::float;
use crate::sample::Running;
use crate::time::Moment;

/// Arrivals are counted in minutes, of which so many are kept, the present one included.
const MINUTE: u64 = 60_000;
const MINUTES: usize = 6;
/// What was seen of running tasks counts half after so many minutes.
const HALF: f64 = 10.0;
/// So many tasks of the usual age are taken to have been seen of each queue.
const PRIOR: f64 = 2.0;
/// A task is no shorter (seconds).
const SHORTEST: f64 = 1e-3;

/// One queue.
#[derive(Clone, Debug, Default)]
struct Flow {
    name: Arc<str>,
    /// Tasks that waited at the last look.
    waits: f64,
    /// Tasks that left it since and are not known to have started: they are on their way, or with a worker.
    left: f64,
    /// Tasks that came in each of the last minutes, the present one last.
    came: [f64; MINUTES],
    /// Running tasks that workers told of, and for how long these had run, in seconds.
    seen: f64,
    ran: f64,
}

/// The queues of one WorkerPool, in the order of their names.
#[derive(Clone, Debug, Default)]
pub struct Flows {
    queues: Vec<Flow>,
    /// The present minute, and when the first look was.
    minute: u64,
    since: Option<Moment>,
}

impl Flows {
    /// Takes in what one worker told of the tasks that it runs. Not its first answer after it was idle: that tells of
    /// tasks that have just begun.
    pub fn told(&mut self, running: &BTreeMap<String, Running>) {
        for flow in &mut self.queues {
            let Some(running) = running.get(&*flow.name) else {
                continue;
            };
            flow.seen += float(running.acknowledged.saturating_add(running.unacknowledged));
            flow.ran += running.ran.as_secs_f64();
        }
    }

    /// Takes in what waits in each queue, in the order of the names, and how many tasks were started since the last look. Workers hold at most `held` tasks that they have not started.
    pub fn observe(&mut self, queues: &[Share], started: u64, held: u64, now: Moment) {
        self.turn(now);
        let names = || queues.iter().map(|queue| &queue.name);
        if !names().eq(self.queues.iter().map(|flow| &flow.name)) {
            self.keep(queues);
        }
        let mut started = float(started);
        let mut left = 0.0;
        for (flow, queue) in self.queues.iter_mut().zip(queues) {
            let waits = float(queue.waits) / float(MILLI);
            let more = waits - flow.waits;
            flow.waits = waits;
            flow.came[MINUTES - 1] += more.max(0.0);
            flow.left += (-more).max(0.0);
            left += flow.left;
        }
        let explained = if left > 0.0 {
            (started / left).min(1.0)
        } else {
            0.0
        };
        started -= explained * left;
        // What is neither started nor held was taken by somebody else, or is gone.
        let most = float(held);
        let rest = (1.0 - explained) * left;
        let keep = if rest > most { most / rest } else { 1.0 } * (1.0 - explained);
        self.queues.iter_mut().for_each(|flow| flow.left *= keep);
        if started > 0.0 {
            let shares = self.shares();
            for (flow, share) in self.queues.iter_mut().zip(shares) {
                flow.came[MINUTES - 1] += started * share;
            }
        }
    }

    /// Tasks of this queue that come in a minute, over the last minutes; `None` before the first look.
    #[must_use]
    pub fn each_minute(&self, queue: &str, now: Moment) -> Option<f64> {
        let flow = self.queues.iter().find(|flow| &*flow.name == queue)?;
        let oldest = Moment((self.minute + 1).saturating_sub(MINUTES as u64) * MINUTE);
        let known = now.since(self.since?.max(oldest)).as_secs_f64() / 60.0;
        // Within the first moments a rate would be a guess from one look.
        Some(flow.came.iter().sum::<f64>() / known.max(0.5))
    }

    /// Mean time that a task of each queue runs, in seconds and in the order of the queues, where all together run for
    /// `service`.
    #[must_use]
    pub fn services(&self, service: f64) -> Vec<f64> {
        let (seen, ages) = (self.seen(), self.ages());
        if seen <= 0.0 {
            return vec![service; self.queues.len()];
        }
        // Of the slots' time a share goes to each queue, and so of the tasks a share by its length.
        let parts = self.queues.iter().zip(&ages);
        let each_second: f64 = parts.map(|(flow, age)| flow.seen / seen / age).sum();
        ages.into_iter()
            .map(|age| (age * service * each_second).max(SHORTEST))
            .collect()
    }

    /// Mean time that a task runs of those that have come lately, and of those that wait.
    #[must_use]
    pub fn coming_and_waiting(&self, service: f64) -> (f64, f64) {
        if self.queues.len() < 2 {
            return (service, service);
        }
        let services = self.services(service);
        let mean = |weight: &dyn Fn(&Flow) -> f64| {
            let weights = || self.queues.iter().map(weight);
            let all: f64 = weights().sum();
            let sum: f64 = weights().zip(&services).map(|(weight, each)| weight * each).sum();
            (all > 0.0).then(|| sum / all)
        };
        let coming = mean(&|flow| flow.came.iter().sum()).unwrap_or(service);
        (coming, mean(&|flow| flow.waits).unwrap_or(coming))
    }

    /// The queues' names, in order.
    #[must_use]
    pub fn names(&self) -> impl ExactSizeIterator<Item = &Arc<str>> {
        self.queues.iter().map(|flow| &flow.name)
    }

    fn seen(&self) -> f64 {
        self.queues.iter().map(|flow| flow.seen).sum()
    }

    /// Mean age of each queue's running tasks, in seconds. Of a queue of which few were seen it is near that of all tasks,
    /// each counted once and not as often as it was seen to run: the harmonic mean.
    fn ages(&self) -> Vec<f64> {
        let seen = self.queues.iter().filter(|flow| flow.seen > 0.0);
        let all: f64 = seen
            .map(|flow| flow.seen / (flow.ran / flow.seen).max(SHORTEST))
            .sum();
        let usual = if all > 0.0 { self.seen() / all } else { SHORTEST };
        let age = |flow: &Flow| (flow.ran + PRIOR * usual) / (flow.seen + PRIOR);
        self.queues.iter().map(|flow| age(flow).max(SHORTEST)).collect()
    }

    /// What part of the tasks that start is each queue's.
    fn shares(&self) -> Vec<f64> {
        let parts: Vec<f64> = match self.queues.len() {
            0 | 1 => return vec![1.0; self.queues.len()],
            _ if self.seen() > 0.0 => {
                let ages = self.ages();
                let parts = self.queues.iter().zip(ages);
                parts.map(|(flow, age)| flow.seen / age).collect()
            }
            _ => vec![1.0; self.queues.len()],
        };
        let all: f64 = parts.iter().sum();
        parts.into_iter().map(|part| part / all).collect()
    }

    /// Begins a new minute, where it is time.
    fn turn(&mut self, now: Moment) {
        let minute = now.0 / MINUTE;
        if self.since.is_none() {
            (self.since, self.minute) = (Some(now), minute);
        }
        let passed = usize::try_from(minute.saturating_sub(self.minute)).unwrap_or(usize::MAX);
        if passed == 0 {
            return;
        }
        self.minute = minute;
        let passed = passed.min(MINUTES);
        #[allow(clippy::cast_precision_loss, reason = "six at most")]
        let kept = 0.5f64.powf(passed as f64 / HALF);
        for flow in &mut self.queues {
            flow.came.rotate_left(passed % MINUTES);
            flow.came[MINUTES - passed..].fill(0.0);
            flow.seen *= kept;
            flow.ran *= kept;
        }
    }

    /// Takes over what is known of queues that are still there. What waits in a new one has come before.
    fn keep(&mut self, queues: &[Share]) {
        let mut old = std::mem::take(&mut self.queues);
        let flow = |queue: &Share| {
            let known = old.iter().position(|flow| flow.name == queue.name);
            known.map_or_else(
                || Flow {
                    name: Arc::clone(&queue.name),
                    waits: float(queue.waits) / float(MILLI),
                    ..Flow::default()
                },
                |at| old.swap_remove(at),
            )
        };
        self.queues = queues.iter().map(flow).collect();
    }
}

#[cfg(test)]
#[path = "flow_tests.rs"]
mod tests;
