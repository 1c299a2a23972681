//! A fleet of manifests as a scenario.
//!
//! Takes every number from the validated objects, with the defaults that the operator uses. What a scenario cannot
//! express is not passed over in silence: `notes` says it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use poolwright_api::DEFAULT_POOL;
use poolwright_api::v1alpha1::{AckMode, ExecutionPool, Pool, TaskQueue, WorkerPool};
use poolwright_core::observe::pause;
use poolwright_core::policy::Policy;
use poolwright_core::validate::{ValidPool, ValidQueue};
use poolwright_core::weight::weights;
use poolwright_sim::poolwright::Settings;
use poolwright_sim::scenario::{Budget, Fleet as Workers, Millis, Queue, Scenario, StartUp, Task};

use super::notes;
use crate::lint::fleet::Fleet;

/// Slots of a `default-pool` that no file holds: what the operator makes.
const DEFAULT_POOL_SLOTS: u64 = 128;
/// What is counted after the last arrival, so that workers that linger have their cost.
const TAIL: Millis = 600_000;
/// Prefetch of a worker that takes all that it gets (`prefetchMultiplier: 0`).
const UNLIMITED_PREFETCH: u32 = 1000;

/// What is run.
#[derive(Clone, Debug)]
pub(super) struct World {
    pub(super) scenario: Scenario,
    /// By fleet.
    pub(super) settings: Vec<Settings>,
    /// By fleet: its number of pods is held by hand.
    pub(super) held: Vec<bool>,
    /// By fleet: the field that forbids other slots of its pods, if one does: it says how many there are in place of
    /// `concurrency`, or how many pods.
    pub(super) fixed: Vec<Option<&'static str>>,
    /// By fleet: what `maxReplicas` may not be below, beside `minReplicas`.
    pub(super) floors: Vec<u32>,
    /// By fleet: the time after which Celery asks a task to end itself.
    pub(super) soft_limits: Vec<Option<Millis>>,
    /// What is not as it would be in a cluster, or is easily overlooked.
    pub(super) notes: Vec<String>,
}

impl World {
    pub(super) fn queue_names(&self) -> Vec<&str> {
        self.scenario
            .queues
            .iter()
            .map(|queue| queue.name.as_str())
            .collect()
    }

    /// Gives it its tasks, in order of arrival.
    pub(super) fn take(&mut self, tasks: Vec<Task>) {
        self.scenario.length = tasks.last().map_or(0, |task| task.arrives) + TAIL;
        self.scenario.tasks = tasks;
        self.notes
            .extend(notes::of_limits(&self.scenario, &self.soft_limits));
    }
}

/// The world of a fleet, without tasks.
///
/// # Errors
///
/// A Pool is missing: in a cluster its workers would never start.
pub(super) fn of(fleet: &Fleet, start_up: Millis) -> Result<World, String> {
    pools_are_there(fleet)?;
    let mut scenario = Scenario::plain("fleet", 0, Vec::new());
    scenario.start_up = vec![StartUp {
        from: 0,
        mean: start_up,
        spread: start_up / 5,
    }];
    (scenario.queues, scenario.fleets, scenario.budgets) = (Vec::new(), Vec::new(), Vec::new());
    let priorities = fleet
        .queues
        .iter()
        .map(|(name, queue)| (name.as_str(), &queue.spec.priority));
    let weights = weights(&priorities.collect()).effective;
    let mut settings = Vec::new();
    for (wp, valid) in &fleet.workers {
        let mut places = Vec::new();
        for name in valid.queues.iter().map(|queue| &queue.object) {
            let known = scenario.queues.iter().position(|queue| queue.name == *name);
            places.push(known.unwrap_or(scenario.queues.len()));
            if let (None, Some(task_queue)) = (known, fleet.queues.get(name)) {
                let weight = weights.get(name).copied().unwrap_or(1);
                let queue = queue(name, task_queue, weight, &fleet.pools, &mut scenario.budgets);
                scenario.queues.push(queue);
            }
        }
        scenario.fleets.push(workers(wp, valid, places));
        settings.push(of_policy(valid));
    }
    for one in &mut settings {
        *one = one.paced(scenario.fleets.len());
    }
    let soft = fleet.workers.iter().map(|(_, valid)| valid.soft_time_limit);
    Ok(World {
        settings,
        held: fleet
            .workers
            .iter()
            .map(|(_, valid)| valid.hold.is_some())
            .collect(),
        fixed: fleet.workers.iter().map(|(_, valid)| fixed(valid)).collect(),
        floors: fleet.workers.iter().map(|(wp, _)| floor(wp)).collect(),
        notes: notes::of(fleet),
        soft_limits: soft
            .map(|limit| {
                limit
                    .filter(|limit| limit.enforced)
                    .map(|limit| seconds(limit.seconds))
            })
            .collect(),
        scenario,
    })
}

/// True if every Pool that a consumed queue names is in the files. The one that the operator makes need not be.
fn pools_are_there(fleet: &Fleet) -> Result<(), String> {
    let missing = |(wp, queue): (&WorkerPool, &ValidQueue)| {
        let is_there = queue.pool == DEFAULT_POOL || fleet.pools.contains_key(&queue.pool);
        (!is_there).then(|| {
            format!(
                "Pool {:?} of TaskQueue {:?} is not in the files: in a cluster no worker of WorkerPool {:?} would start \
                 (PoolMissing)",
                queue.pool,
                queue.object,
                wp.metadata.name.as_deref().unwrap_or_default()
            )
        })
    };
    let queues = fleet.workers.iter();
    let all: Vec<String> = queues
        .flat_map(|(wp, valid)| valid.queues.iter().map(move |queue| (wp, queue)))
        .filter_map(missing)
        .collect();
    if all.is_empty() {
        Ok(())
    } else {
        Err(all.join("\n"))
    }
}

fn fixed(valid: &ValidPool) -> Option<&'static str> {
    let solo = valid.execution_pool == ExecutionPool::Solo;
    let fields = [
        (valid.hold.is_some(), "spec.replicas"),
        (valid.autoscale.is_some(), "autoscale"),
        (solo, "executionPool: Solo"),
    ];
    fields
        .into_iter()
        .find_map(|(is_so, field)| is_so.then_some(field))
}

fn floor(wp: &WorkerPool) -> u32 {
    let scaling = &wp.spec.scaling;
    let schedules = scaling.schedules.iter().map(|schedule| schedule.min_replicas);
    let fallback = scaling.fallback.map(|fallback| fallback.replicas);
    count(schedules.chain(fallback).max().unwrap_or(0))
}

fn of_policy(valid: &ValidPool) -> Settings {
    let (wait_target, delay) = match valid.policy {
        Policy::WaitTarget { delay, .. } => (true, delay),
        Policy::Backlog => (false, Some(valid.scale_down_delay)),
    };
    Settings {
        wait_target,
        scale_down_delay: delay,
        ..Settings::default()
    }
}

fn count(number: i32) -> u32 {
    u32::try_from(number).unwrap_or(0)
}

fn millis(time: Duration) -> Millis {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn seconds(seconds: i32) -> Millis {
    u64::from(count(seconds)) * 1000
}

fn queue(
    name: &str,
    queue: &TaskQueue,
    weight: u64,
    pools: &BTreeMap<String, Pool>,
    budgets: &mut Vec<Budget>,
) -> Queue {
    let pool = queue.pool_name();
    let known = budgets.iter().position(|budget| budget.name == pool);
    let budget = known.unwrap_or_else(|| {
        budgets.push(budget(pool, pools.get(pool)));
        budgets.len() - 1
    });
    Queue {
        name: name.to_owned(),
        wait_target: millis(queue.wait_target()),
        tier: queue.tier().value(),
        weight: u32::try_from(weight).unwrap_or(u32::MAX),
        budget: Some(budget),
        slots_per_task: u32::try_from(queue.slots_per_task()).unwrap_or(u32::MAX),
    }
}

fn budget(name: &str, pool: Option<&Pool>) -> Budget {
    let slots = pool.map_or(Some(DEFAULT_POOL_SLOTS), |pool| pool.spec.limit());
    let guarantees = pool.iter().flat_map(|pool| &pool.spec.guarantees);
    Budget {
        name: name.to_owned(),
        slots: vec![(0, slots)],
        guarantees: guarantees
            .map(|one| (one.queue.clone(), u64::from(count(one.slots))))
            .collect(),
    }
}

fn workers(wp: &WorkerPool, valid: &ValidPool, queues: Vec<usize>) -> Workers {
    let prefetch = count(valid.effective_prefetch());
    let caps = valid.queues.iter().filter_map(|queue| queue.max_active_tasks);
    Workers {
        name: valid.name.clone(),
        queues,
        slots: count(valid.concurrency).max(1),
        bounds: (
            count(valid.hold.unwrap_or(valid.min)),
            count(valid.hold.unwrap_or(valid.max)),
        ),
        schedules: if valid.hold.is_some() {
            Arc::default()
        } else {
            Arc::clone(&valid.schedules)
        },
        prefetch: if prefetch == 0 {
            UNLIMITED_PREFETCH
        } else {
            prefetch
        },
        late: valid.ack_mode == AckMode::Late,
        grace: u64::try_from(valid.grace.seconds).unwrap_or(1) * 1000,
        time_limit: valid.enforced_time_limit_seconds().map(seconds),
        max_active: caps.min(),
        pause: pause(wp),
    }
}
