//! A fleet of manifests as a scenario.
//!
//! Takes every number from the validated objects, with the defaults that the operator uses. What a scenario cannot
//! express is not passed over in silence: it becomes a note that is printed with the answer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use poolwright_api::DEFAULT_POOL;
use poolwright_api::v1alpha1::{AckMode, Pool, ScalingMode, TaskQueue, WorkerPool};
use poolwright_core::policy::Policy;
use poolwright_core::validate::ValidPool;
use poolwright_core::weight::weights;
use poolwright_sim::poolwright::Settings;
use poolwright_sim::scenario::{Budget, Fleet as Workers, Millis, Queue, Scenario, StartUp, Task};

use crate::lint::fleet::Fleet;

/// Slots of a `default-pool` that no file holds: what the operator makes.
const DEFAULT_POOL_SLOTS: u64 = 128;
/// What is counted after the last arrival, so that workers that linger have their cost.
const TAIL: Millis = 600_000;
/// Prefetch of a worker that takes all that it gets (`prefetchMultiplier: 0`).
const UNLIMITED_PREFETCH: u32 = 1000;
/// Scenarios with more fleets are decided each ten seconds, as in the suite.
const MANY_FLEETS: usize = 100;

/// What is run.
#[derive(Clone, Debug)]
pub(super) struct World {
    pub(super) scenario: Scenario,
    /// By fleet.
    pub(super) settings: Vec<Settings>,
    /// What is not as it would be in a cluster.
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
    }
}

/// The world of a fleet, without tasks.
pub(super) fn of(fleet: &Fleet, start_up_seconds: u32) -> World {
    let mut notes = Vec::new();
    let mean = u64::from(start_up_seconds) * 1000;
    let mut scenario = Scenario::plain("fleet", 0, Vec::new());
    scenario.start_up = vec![StartUp {
        from: 0,
        mean,
        spread: mean / 5,
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
                let queue = queue(
                    name,
                    task_queue,
                    weight,
                    &fleet.pools,
                    &mut scenario.budgets,
                    &mut notes,
                );
                scenario.queues.push(queue);
            }
        }
        scenario.fleets.push(workers(wp, valid, places, &mut notes));
        settings.push(of_policy(valid));
    }
    slots_per_task(fleet, &mut scenario, &mut notes);
    let many = scenario.fleets.len() > MANY_FLEETS;
    for one in settings.iter_mut().filter(|_| many) {
        one.poll = 10_000;
    }
    World {
        scenario,
        settings,
        notes,
    }
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

fn queue(
    name: &str,
    queue: &TaskQueue,
    weight: u64,
    pools: &BTreeMap<String, Pool>,
    budgets: &mut Vec<Budget>,
    notes: &mut Vec<String>,
) -> Queue {
    let pool = queue.pool_name();
    let budget = budgets
        .iter()
        .position(|budget| budget.name == pool)
        .unwrap_or_else(|| {
            budgets.push(budget(pool, pools.get(pool), notes));
            budgets.len() - 1
        });
    if queue.spec.max_active_tasks.is_some() {
        notes.push(format!("maxActiveTasks of TaskQueue {name} is not simulated"));
    }
    Queue {
        name: name.to_owned(),
        wait_target: millis(queue.wait_target()),
        tier: queue.tier().value(),
        weight: u32::try_from(weight).unwrap_or(u32::MAX),
        budget: Some(budget),
    }
}

fn budget(name: &str, pool: Option<&Pool>, notes: &mut Vec<String>) -> Budget {
    let slots = match pool {
        Some(pool) => pool.spec.limit(),
        None if name == DEFAULT_POOL => Some(DEFAULT_POOL_SLOTS),
        None => {
            notes.push(format!("Pool {name} is not in the files, and has no limit here"));
            None
        }
    };
    if let Some(pool) = pool {
        if !pool.spec.guarantees.is_empty() {
            notes.push(format!("guarantees of Pool {name} are not simulated"));
        }
        if pool.spec.load_shedding.is_some() {
            notes.push(format!("loadShedding of Pool {name} is not simulated"));
        }
    }
    Budget {
        name: name.to_owned(),
        slots: vec![(0, slots)],
    }
}

fn workers(wp: &WorkerPool, valid: &ValidPool, queues: Vec<usize>, notes: &mut Vec<String>) -> Workers {
    let name = &valid.name;
    let mut note = |words: &str| notes.push(format!("WorkerPool {name}: {words}"));
    if valid.autoscale.is_some() || valid.dynamic_concurrency.is_some() {
        note("slots of a worker stay at their most");
    }
    if wp.spec.scaling.mode == ScalingMode::Recommend {
        note("decisions are carried out, though its mode is Recommend");
    }
    if valid.ack_mode == AckMode::Auto {
        note("tasks acknowledge before they run, which is Celery's default; write ackMode if they do not");
    }
    let prefetch = count(valid.effective_prefetch());
    Workers {
        name: name.clone(),
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
    }
}

/// A scenario's task takes one slot of its Pool. Where all tasks of a Pool take the same number, the Pool has so many
/// times fewer; where they do not, the most is taken for all.
fn slots_per_task(fleet: &Fleet, scenario: &mut Scenario, notes: &mut Vec<String>) {
    for (at, budget) in scenario.budgets.iter_mut().enumerate() {
        let of_pool = scenario.queues.iter().filter(|queue| queue.budget == Some(at));
        let each = of_pool
            .filter_map(|queue| fleet.queues.get(&queue.name))
            .map(TaskQueue::slots_per_task);
        let (least, most) = each.fold((u64::MAX, 1), |(least, most), one| {
            (least.min(one), most.max(one))
        });
        if least < most {
            notes.push(format!(
                "every task takes {most} slots of Pool {}, the most of its queues",
                budget.name
            ));
        }
        for (_, slots) in &mut budget.slots {
            *slots = slots.map(|slots| slots / most);
        }
    }
}
