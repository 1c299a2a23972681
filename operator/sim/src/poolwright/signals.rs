//! What the operator hears: counts of the broker, heartbeats and answers of workers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use poolwright_core::sample::{
    Answer, BrokerView, FaultKind as Unread, Fetched, Ready, Running, Sample, Unacked, WorkerView,
};
use poolwright_core::time::Moment;

use super::{BROKER, Poolwright, wall};
use crate::scenario::{FaultKind, Millis, Scenario};
use crate::world::{Pod, PodId, QueueSeen, World};

/// What a fault says of itself.
const OUTAGE: &str = "simulated outage";
/// Time between two heartbeats of a worker, as Celery's default.
const BEAT: Millis = 2000;
/// A worker that is busy is asked so often.
const ASKED_EVERY: Duration = Duration::from_secs(30);
/// A worker that is gone is forgotten after so long.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(600);

impl Poolwright {
    /// Polls the broker and takes in heartbeats and answers, as far as this fault lets it.
    pub(super) fn listen(&mut self, world: &World, fault: Option<FaultKind>) {
        match world.seen_with(fault) {
            Some(seen) => self.read(world, &seen, fault),
            None => self.miss(),
        }
        let (now, stamp) = (self.snapshot.now, self.snapshot.wall);
        let Some(view) = self.snapshot.brokers.get_mut(BROKER) else {
            return;
        };
        let heartbeats = &mut Arc::make_mut(view).heartbeats;
        if matches!(fault, Some(FaultKind::Silence | FaultKind::Unheard)) {
            heartbeats.fail(Unread::Unreachable, OUTAGE, now, stamp);
            return;
        }
        let since = if heartbeats.fault.is_some() {
            now
        } else {
            heartbeats.last.as_ref().map_or(now, |last| last.value)
        };
        heartbeats.succeed(since, now);
        self.hear(world);
    }

    /// No count can be read.
    fn miss(&mut self) {
        let (now, stamp) = (self.snapshot.now, self.snapshot.wall);
        let Some(view) = self.snapshot.brokers.get_mut(BROKER) else {
            return;
        };
        for queue in Arc::make_mut(view).queues.values_mut() {
            queue.ready.fail(Unread::Unreachable, OUTAGE, now, stamp);
            queue.unacked.fail(Unread::Unreachable, OUTAGE, now, stamp);
        }
    }

    /// Takes in the counts.
    fn read(&mut self, world: &World, seen: &[QueueSeen], fault: Option<FaultKind>) {
        let now = self.snapshot.now;
        let Some(view) = self.snapshot.brokers.get_mut(BROKER) else {
            return;
        };
        let view = Arc::make_mut(view);
        let is_true = matches!(fault, None | Some(FaultKind::Unheard));
        let mut fetched = if is_true {
            fetched(world)
        } else {
            vec![BTreeMap::new(); seen.len()]
        };
        for (at, seen) in seen.iter().enumerate() {
            let queue = view
                .queues
                .entry(world.scenario.queues[at].name.clone())
                .or_default();
            let ready = Ready {
                count: seen.ready,
                ..Ready::default()
            };
            queue.ready.succeed(ready, now);
            let second = wall(&world.scenario, world.now).as_second();
            let mut list = std::mem::take(&mut fetched[at]);
            if !is_true && seen.unacked > 0 {
                list.insert(second, seen.unacked);
            }
            let list = list
                .into_iter()
                .map(|(unix_seconds, count)| Fetched { unix_seconds, count });
            let unacked = Unacked {
                due: seen.unacked,
                fetched: list.collect(),
                ..Unacked::default()
            };
            queue.unacked.succeed(unacked, now);
        }
    }

    /// Heartbeats of the workers that run, and answers of those that were asked.
    fn hear(&mut self, world: &World) {
        let now = self.snapshot.now;
        let Some(view) = self.snapshot.brokers.get_mut(BROKER) else {
            return;
        };
        let view = Arc::make_mut(view);
        for (fleet, places) in self.places.iter().enumerate() {
            for (id, input) in places.iter().zip(&self.snapshot.pools[fleet].pods) {
                let pod = &world.pods[*id];
                if pod.up_at <= world.now {
                    beat(view, input.node(), (*id, pod), world.now, now);
                }
            }
        }
        for node in &self.asked {
            let Some(pod) = super::place(node).map(|id| &world.pods[id]) else {
                continue;
            };
            answer(view, node, (pod, world.now), &world.scenario, now);
        }
        let often = |worker: &WorkerView| {
            worker.active > 0 && worker.asked.is_none_or(|asked| now.since(asked) >= ASKED_EVERY)
        };
        let busy: Vec<String> = view
            .workers
            .iter()
            .filter(|(_, worker)| often(worker))
            .map(|(node, _)| node.clone())
            .collect();
        for node in busy {
            if let Some(pod) = super::place(&node).map(|id| &world.pods[id]) {
                answer(view, &node, (pod, world.now), &world.scenario, now);
            }
        }
        view.workers
            .retain(|_, worker| now.since(worker.last_seen) < FORGOTTEN_AFTER);
    }
}

/// What workers hold of each queue, by the second in which it was fetched.
fn fetched(world: &World) -> Vec<BTreeMap<i64, u64>> {
    let scenario = &world.scenario;
    let mut all = vec![BTreeMap::new(); scenario.queues.len()];
    let mut note = |task: usize, at: Millis| {
        let second = wall(scenario, at).as_second();
        *all[scenario.tasks[task].queue].entry(second).or_default() += 1;
    };
    for (fleet, crew) in world.crews.iter().enumerate() {
        for pod in crew.pods.iter().map(|id| &world.pods[*id]) {
            pod.reserved.iter().for_each(|(task, at)| note(*task, *at));
            if scenario.fleets[fleet].late {
                pod.running.iter().for_each(|run| note(run.task, run.since));
            }
        }
    }
    all
}

/// A heartbeat, if it is time for one. A draining worker is silent.
fn beat(view: &mut BrokerView, node: &str, (id, pod): (PodId, &Pod), at: Millis, now: Moment) {
    if pod.draining {
        if let Some(worker) = view.workers.get_mut(node) {
            worker.offline = true;
        }
        return;
    }
    let active = pod.running.len() as u64;
    let Some(worker) = view.workers.get_mut(node) else {
        let worker = WorkerView {
            active,
            ..WorkerView::new(1, pod.started, Duration::from_millis(BEAT), now)
        };
        view.workers.insert(node.to_owned(), worker);
        return;
    };
    // Workers do not beat in step.
    let phase = (id as u64 % 2) * (BEAT / 2);
    if !(at + phase).is_multiple_of(BEAT) && now.since(worker.last_seen) < Duration::from_millis(BEAT) {
        return;
    }
    if worker.processed != pod.started || active > 0 || worker.active > 0 {
        worker.last_progress = now;
    }
    (worker.active, worker.processed, worker.last_seen) = (active, pod.started, now);
}

/// A worker says what it runs and holds, and what it consumes.
fn answer(view: &mut BrokerView, node: &str, (pod, at): (&Pod, Millis), scenario: &Scenario, now: Moment) {
    let Some(worker) = view.workers.get_mut(node) else {
        return;
    };
    if pod.draining || pod.gone {
        return;
    }
    let fleet = &scenario.fleets[pod.fleet];
    let name = |task: usize| scenario.queues[scenario.tasks[task].queue].name.clone();
    let mut running: BTreeMap<String, Running> = BTreeMap::new();
    for run in &pod.running {
        let one = running.entry(name(run.task)).or_default();
        one.ran += Duration::from_millis(at.saturating_sub(run.since));
        if fleet.late {
            one.unacknowledged += 1;
        } else {
            one.acknowledged += 1;
        }
    }
    let mut reserved: BTreeMap<String, u64> = BTreeMap::new();
    for (task, _) in &pod.reserved {
        *reserved.entry(name(*task)).or_default() += 1;
    }
    let queues = fleet.queues.iter().filter(|_| !pod.parked);
    let value = Answer {
        running,
        reserved,
        queues: queues.map(|queue| scenario.queues[*queue].name.clone()).collect(),
        processed: worker.processed,
        pid: worker.pid,
        asked_at: now,
        ..Answer::default()
    };
    worker.asked = Some(now);
    worker.answer = Some(Sample {
        value: Arc::new(value),
        at: now,
    });
}
