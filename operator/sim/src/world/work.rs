//! Messages and the workers that fetch them.

use std::cmp::Reverse;

use super::{Event, PodId, Run, World};
use crate::scenario::Millis;

impl World {
    /// The next task of the scenario is published.
    pub(super) fn arrive(&mut self) {
        let task = self.arrived;
        self.arrived += 1;
        self.publish(task);
    }

    pub(super) fn publish(&mut self, task: usize) {
        let queue = self.scenario.tasks[task].queue;
        self.published[task].0 = self.now;
        self.counts[queue] += 1;
        self.slots.waiting[queue] += 1;
        self.queues[queue].push_back(task);
        self.offer(queue);
    }

    /// Whoever has waited longest for a message of the queue gets the next.
    pub(super) fn offer(&mut self, queue: usize) {
        for at in 0..self.consumers[queue].len() {
            let fleet = self.consumers[queue][at];
            while !self.queues[queue].is_empty() {
                let Some(pod) = self.crews[fleet].line.pop_front() else {
                    break;
                };
                self.pods[pod].in_line = false;
                self.pull(pod);
            }
        }
    }

    /// True if it may fetch one more.
    fn has_room(&self, pod: PodId) -> bool {
        let pod = &self.pods[pod];
        let fleet = &self.scenario.fleets[pod.fleet];
        let held = pod.reserved.len() + if fleet.late { pod.running.len() } else { 0 };
        held < (fleet.slots * fleet.prefetch) as usize
    }

    fn fetches(&self, pod: PodId) -> bool {
        let pod = &self.pods[pod];
        !pod.gone && !pod.draining && !pod.parked && pod.up_at <= self.now
    }

    /// Fetches while it has room, its queues in turn, and starts what it can.
    pub(super) fn pull(&mut self, id: PodId) {
        if !self.fetches(id) {
            return;
        }
        let fleet = self.pods[id].fleet;
        let count = self.scenario.fleets[fleet].queues.len();
        let mut dry = 0;
        while dry < count && self.has_room(id) {
            let turn = self.pods[id].turn % count;
            self.pods[id].turn = turn + 1;
            let queue = self.scenario.fleets[fleet].queues[turn];
            let Some(task) = self.queues[queue].pop_front() else {
                dry += 1;
                continue;
            };
            dry = 0;
            self.unacked[queue] += 1;
            let now = self.now;
            self.pods[id].reserved.push_back((task, now));
            self.begin(id);
        }
        if self.has_room(id) && !self.pods[id].in_line {
            self.pods[id].in_line = true;
            self.crews[fleet].line.push_back(id);
        }
    }

    /// Starts what it holds in its free slots.
    fn begin(&mut self, id: PodId) {
        let fleet = self.pods[id].fleet;
        let (slots, late, limit) = {
            let fleet = &self.scenario.fleets[fleet];
            (fleet.slots as usize, fleet.late, fleet.time_limit)
        };
        while self.pods[id].running.len() < slots {
            let Some((task, _)) = self.pods[id].reserved.pop_front() else {
                break;
            };
            let spec = self.scenario.tasks[task];
            if !late {
                self.unacked[spec.queue] -= 1;
            }
            self.busy += 1;
            self.crews[fleet].running += 1;
            let number = self.sequence;
            let lasts = self.lasts(spec.service);
            let long = limit.map_or(lasts, |limit| lasts.min(limit));
            self.outcome.started(task, self.now - self.published[task].0);
            self.note_scarce(spec.queue, long);
            self.slots.waiting[spec.queue] -= 1;
            let pod = &mut self.pods[id];
            pod.started += 1;
            pod.running.push(Run {
                number,
                task,
                since: self.now,
                cut: long < lasts,
            });
            self.push(self.now + long, Event::End(id, number));
        }
    }

    /// How long a task takes that starts now.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss
    )]
    fn lasts(&self, service: Millis) -> Millis {
        let crowd = self.scenario.downstream.map_or(1.0, |shared| {
            f64::from(self.busy) / f64::from(shared.bears.max(1))
        });
        ((service as f64 * crowd.max(1.0)) as Millis).max(1)
    }

    pub(super) fn end(&mut self, id: PodId, number: u64) {
        let pod = &mut self.pods[id];
        let Some(at) = pod.running.iter().position(|run| run.number == number) else {
            return;
        };
        let run = pod.running.swap_remove(at);
        let (fleet, draining) = (pod.fleet, pod.draining);
        self.busy -= 1;
        self.crews[fleet].running -= 1;
        let queue = self.scenario.tasks[run.task].queue;
        if self.scenario.fleets[fleet].late {
            self.unacked[queue] -= 1;
        }
        self.outcome.worked(self.now - run.since);
        let failures = &mut self.published[run.task].1;
        if run.cut {
            self.outcome.over_limit += 1;
            self.is_over();
        } else if *failures > 0 {
            *failures -= 1;
            let at = self.now + self.scenario.retry_after;
            self.push(at, Event::Again(run.task));
        } else {
            self.outcome.done(run.task, self.now);
            self.is_over();
        }
        self.begin(id);
        self.pull(id);
        self.rest(id);
        if draining && self.pods[id].running.is_empty() {
            self.go(id);
        }
    }

    /// Notes since when it holds nothing.
    pub(super) fn rest(&mut self, id: PodId) {
        let now = self.now;
        let pod = &mut self.pods[id];
        if pod.running.is_empty() && pod.reserved.is_empty() {
            pod.empty_since = now;
        }
    }

    /// Gives back what a worker has fetched and not started, to the head of the queues.
    pub(super) fn give_back(&mut self, id: PodId) {
        let reserved = std::mem::take(&mut self.pods[id].reserved);
        for (task, _) in reserved.into_iter().rev() {
            let queue = self.scenario.tasks[task].queue;
            self.unacked[queue] -= 1;
            self.queues[queue].push_front(task);
        }
    }

    /// Its grace is over: what it runs starts anew elsewhere.
    pub(super) fn kill(&mut self, id: PodId) {
        if self.pods[id].gone {
            return;
        }
        let fleet = self.pods[id].fleet;
        let late = self.scenario.fleets[fleet].late;
        let mut runs = std::mem::take(&mut self.pods[id].running);
        runs.sort_by_key(|run| Reverse(run.since));
        for run in runs {
            let queue = self.scenario.tasks[run.task].queue;
            self.busy -= 1;
            self.crews[fleet].running -= 1;
            self.outcome.killed(self.now - run.since);
            if late {
                self.unacked[queue] -= 1;
            }
            self.queues[queue].push_front(run.task);
            self.slots.waiting[queue] += 1;
        }
        self.go(id);
        for queue in 0..self.queues.len() {
            self.offer(queue);
        }
    }
}
