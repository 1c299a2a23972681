//! As many pods as somebody once decided, for ever.
//!
//! Two peers. A *static size* is what most fleets have: sized for the mean, the 99th percentile or the peak of the
//! load, and paid for at all hours. Its size is computed from the tasks of the scenario, so it is **clairvoyant**: no
//! one knows next year's peak that well. *Celery's `--autoscale`* grows and shrinks the processes inside a worker
//! (`celery/worker/autoscale.py`: to `min(reserved, max)` on each message, down 30 s after the last growth). Pods are
//! what is paid for, and it neither makes nor ends one, so its cost is flat; new processes of a pool are there well
//! within a second, so its waits are those of as many fixed pods. It is therefore a static size with the maximum of
//! `--autoscale` at the slots of the fleet.
//!
//! Both ask for their number at the first look and never look again: faults of the signals cannot touch them.

use super::view::{Each, Rule, View, ceil, real};
use crate::scenario::{Millis, Scenario, Task};

/// By which part of the offered load the pods are counted. The offered load is the number of slots that would be busy
/// if every task started when it arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// Its mean over the length of the scenario: the least that can do the work, with no room for chance.
    Mean,
    /// What it stays at or below for 99 % of the time.
    P99,
    /// Its peak: no task ever waits, once the pods are up.
    Max,
    /// Not by the load: so many pods.
    Pods(u32),
}

impl Size {
    /// The three that follow from the load.
    pub const STATIC: [Self; 3] = [Self::Mean, Self::P99, Self::Max];

    /// A short name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mean => "static-mean",
            Self::P99 => "static-p99",
            Self::Max => "static-max",
            Self::Pods(_) => "static",
        }
    }

    /// Pods of a fleet. Where fleets share a queue, each is sized for all of it.
    #[must_use]
    pub fn pods(self, scenario: &Scenario, fleet: usize) -> u32 {
        let slots = match self {
            Self::Pods(pods) => return pods,
            Self::Mean => mean(scenario, fleet),
            Self::P99 => real(quantile(scenario, fleet, 0.99)),
            Self::Max => real(quantile(scenario, fleet, 1.0)),
        };
        ceil(slots / f64::from(scenario.fleets[fleet].slots.max(1)))
    }
}

/// The rule of one fleet.
#[derive(Clone, Copy, Debug)]
pub struct Fixed {
    pods: u32,
}

/// One number for each fleet; it looks each minute only because a scaler must.
#[must_use]
pub fn build(size: Size, scenario: &Scenario) -> Each<Fixed> {
    let rule = |fleet| Fixed {
        pods: size.pods(scenario, fleet),
    };
    Each::new(60_000, scenario, rule)
}

impl Rule for Fixed {
    fn decide(&mut self, _view: &View) -> Option<u32> {
        Some(self.pods)
    }
}

/// Every execution of a fleet's tasks, those that will fail included: begin and length.
fn executions(scenario: &Scenario, fleet: usize) -> impl Iterator<Item = (Millis, Millis)> + '_ {
    let queues = &scenario.fleets[fleet].queues;
    let tasks = scenario.tasks.iter().filter(|task| queues.contains(&task.queue));
    let tries = |task: &Task| {
        let (arrives, service) = (task.arrives, task.service.max(1));
        let gap = service + scenario.retry_after;
        (0..=u64::from(task.failures)).map(move |past| (arrives + past * gap, service))
    };
    tasks.flat_map(tries)
}

fn mean(scenario: &Scenario, fleet: usize) -> f64 {
    let work: Millis = executions(scenario, fleet).map(|(_, long)| long).sum();
    real(work) / real(scenario.length.max(1))
}

/// The load that is not exceeded during this part of the scenario's length, 0 to 1.
fn quantile(scenario: &Scenario, fleet: usize, part: f64) -> u64 {
    let mut steps: Vec<(Millis, bool)> = Vec::new();
    for (from, long) in executions(scenario, fleet) {
        steps.extend([(from, true), (from + long, false)]);
    }
    // Ends go before begins of the same time.
    steps.sort_unstable();
    let length = scenario.length.max(1);
    let (mut load, mut since) = (0_u64, 0);
    let mut spans: Vec<(u64, Millis)> = Vec::new();
    for (at, begins) in steps.into_iter().filter(|(at, _)| *at < length) {
        spans.push((load, at - since));
        since = at;
        load = if begins { load + 1 } else { load - 1 };
    }
    spans.push((load, length - since));
    spans.retain(|(_, long)| *long > 0);
    spans.sort_unstable();
    let mut passed = 0;
    let reached = spans.iter().find(|(_, long)| {
        passed += long;
        real(passed) >= part * real(length)
    });
    reached.or_else(|| spans.last()).map_or(0, |(load, _)| *load)
}

#[cfg(test)]
mod tests {
    use super::Size;
    use crate::scenario::{Scenario, Task};

    fn task(arrives: u64, service: u64) -> Task {
        Task {
            arrives,
            service,
            queue: 0,
            failures: 0,
        }
    }

    #[test]
    fn static_sizes_follow_the_offered_load() {
        // 100 s: one task runs throughout, eight more for the first 5 s, 40 more for half a second.
        let mut tasks = vec![task(0, 100_000)];
        tasks.extend((0..8).map(|_| task(0, 5_000)));
        tasks.extend((0..40).map(|_| task(50_000, 500)));
        let scenario = Scenario::plain("static", 100_000, tasks);
        // Work: 100 + 8 × 5 + 40 × 0.5 = 160 slot-seconds in 100 s = 1.6 slots, one pod of four.
        assert_eq!(Size::Mean.pods(&scenario, 0), 1);
        // Load 1 for 94.5 s, 9 for 5 s (up to 99.5 %), 41 for 0.5 s: the 99th percentile is 9, three pods.
        assert_eq!(Size::P99.pods(&scenario, 0), 3);
        // 41 slots, eleven pods.
        assert_eq!(Size::Max.pods(&scenario, 0), 11);
    }

    #[test]
    fn what_fails_is_offered_again() {
        let mut again = task(0, 10_000);
        again.failures = 3;
        let scenario = Scenario::plain("retries", 40_000, vec![again; 8]);
        // Eight tasks run four times for 10 s: 320 slot-seconds in 40 s = 8 slots, two pods; once each, it would be 2.
        assert_eq!(Size::Mean.pods(&scenario, 0), 2);
        // They follow one another, so no more than eight run at a time.
        assert_eq!(Size::Max.pods(&scenario, 0), 2);
    }
}
