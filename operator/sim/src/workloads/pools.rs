//! Workloads of queues that share the slots of Pools.

use super::arrivals::{Wave, level, poisson};
use super::sizes::{exponential, log_normal, tasks};
use super::{HOUR, LENGTH, chance, millis, plain};
use crate::scenario::{Budget, Fleet, Queue, Scenario, Task};

/// Queues of [`tenants`].
const QUEUES: u32 = 500;

/// Pools of [`tenants`].
const POOLS: u32 = 20;

/// Tasks a second of all tenants together: 302 400 in a day.
const RATE: f64 = 3.5;

/// Mean seconds that a task takes, by the rank of its queue in turn.
const SIZES: [f64; 3] = [15.0, 5.0, 45.0];

/// Slots of a worker, as in every scenario of the suite.
const UNIT: u64 = 4;

/// One queue of [`tenants`], by its rank.
struct Tenant {
    rate: f64,
    size: f64,
    pool: usize,
    queue: Queue,
}

/// 24 hours of 500 queues in 20 Pools of 25, with one fleet each, 3.5 tasks/s in all, shared out by Zipf's law of
/// exponent 1.1: the first queue has 19 % of the tasks and the last 62 of them in a day. Sizes are log-normal with a
/// coefficient of variation of 1.5 and a mean of 15, 5 or 45 s, by rank in turn: 69 busy slots, 1 663 slot-hours.
///
/// Every Pool gets each twentieth rank, so the first has 18 % of all work and the last one 2 %. Inside a Pool the
/// tiers are 10, 50 and 90 in turn (targets 300, 60 and 30 s), which makes the Pool's largest queue one that can wait,
/// and the weights 1, 2 and 4. All follow the sun with a peak of 4.3 times the trough, their troughs spread over eight
/// hours from Pool to Pool. A Pool has slots for 1.25 times its mean load and four workers more. That is enough for its
/// work and too little for its 25 queues, most of which want a worker for one task now and then.
#[must_use]
pub fn tenants(seed: u64) -> Scenario {
    let mut chance = chance(seed, 12);
    let tenants = all_tenants();
    let length = 24.0 * HOUR;
    let mut all: Vec<Task> = Vec::new();
    let mut loads = vec![0.0; POOLS as usize];
    for (place, tenant) in (0_usize..).zip(&tenants) {
        let wave = Wave {
            length,
            mean: tenant.rate,
            ratio: 4.3,
            period: length,
            trough: f64::from(u32::try_from(tenant.pool).unwrap_or(0)) / f64::from(POOLS) / 3.0,
        };
        let arrivals = poisson(&wave.pieces(), &mut chance);
        all.extend(tasks(
            &arrivals,
            &log_normal(tenant.size, 1.5),
            place,
            &mut chance,
        ));
        loads[tenant.pool] += tenant.rate * tenant.size;
    }
    let mut scenario = of_queues("tenants", length, all, tenants.into_iter().map(|one| one.queue));
    let budget = |(pool, load): (usize, &f64)| Budget {
        name: format!("p{pool}"),
        slots: vec![(0, Some(whole_workers(1.25 * load) + 4 * UNIT))],
        guarantees: Vec::new(),
    };
    scenario.budgets = loads.iter().enumerate().map(budget).collect();
    scenario
}

fn all_tenants() -> Vec<Tenant> {
    let shares: Vec<f64> = (1..=QUEUES).map(|rank| f64::from(rank).powf(-1.1)).collect();
    let whole: f64 = shares.iter().sum();
    let tenant = |(rank, share): (usize, f64)| {
        let (pool, place) = (rank % POOLS as usize, rank / POOLS as usize);
        let (tier, wait_target) = [(10, 300.0), (50, 60.0), (90, 30.0)][place % 3];
        Tenant {
            rate: RATE * share / whole,
            size: SIZES[rank % SIZES.len()],
            pool,
            queue: Queue {
                name: format!("q{rank}"),
                wait_target: millis(wait_target),
                tier,
                weight: [1, 2, 4][(place / 3) % 3],
                budget: Some(pool),
                slots_per_task: 1,
            },
        }
    };
    shares.into_iter().enumerate().map(tenant).collect()
}

/// Slots of as many workers as this load fills.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss
)]
fn whole_workers(load: f64) -> u64 {
    (load / UNIT as f64).ceil() as u64 * UNIT
}

/// A scenario of these queues, each with a fleet of its own, and of these tasks in any order.
fn of_queues(name: &str, length: f64, mut tasks: Vec<Task>, queues: impl Iterator<Item = Queue>) -> Scenario {
    tasks.sort_by_key(|task| (task.arrives, task.queue));
    let mut scenario = plain(name, length, tasks);
    let fleet = scenario.fleets[0].clone();
    scenario.queues = queues.collect();
    scenario.fleets = scenario
        .queues
        .iter()
        .enumerate()
        .map(|(place, queue)| Fleet {
            name: queue.name.clone(),
            queues: vec![place],
            ..fleet.clone()
        })
        .collect();
    scenario
}

/// The queues of [`pool_shrink`]: name, tier, weight and tasks a second.
const SHRINKING: [(&str, u32, u32, f64); 4] = [
    ("urgent", 90, 1, 0.8),
    ("normal", 50, 1, 0.6),
    ("heavy", 50, 3, 0.6),
    ("bulk", 10, 1, 0.3),
];

/// Four queues, Poisson, of exponential size, mean 10 s, with 8, 6, 6 and 3 busy slots: tier 90, tier 50 with weights 1
/// and 3, tier 10. Their Pool has 64 slots and 32 from the middle on: eight workers of four for 23 busy slots, so that
/// whoever shares them badly has a queue that never recovers. 33 120 tasks, 92 slot-hours.
#[must_use]
pub fn pool_shrink(seed: u64) -> Scenario {
    let mut chance = chance(seed, 13);
    let mut all = Vec::new();
    for (place, (.., rate)) in SHRINKING.into_iter().enumerate() {
        let arrivals = poisson(&[level(0.0, LENGTH, rate)], &mut chance);
        all.extend(tasks(&arrivals, &exponential(10.0), place, &mut chance));
    }
    let queues = SHRINKING.into_iter().map(|(name, tier, weight, _)| Queue {
        name: name.to_owned(),
        wait_target: millis(30.0),
        tier,
        weight,
        budget: Some(0),
        slots_per_task: 1,
    });
    let mut scenario = of_queues("pool-shrink", LENGTH, all, queues);
    scenario.budgets = vec![Budget {
        name: "p".to_owned(),
        slots: vec![(0, Some(64)), (millis(LENGTH / 2.0), Some(32))],
        guarantees: Vec::new(),
    }];
    scenario
}
