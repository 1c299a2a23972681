//! Ten thousand WorkerPools on one broker and a thousand Pools are decided in one go, and ten thousand claims on Pools divided.

// The lint knows test functions, not their helpers.
#![allow(clippy::unwrap_used)]

mod world;

use std::sync::Arc;
use std::time::Duration;

use poolwright_core::arbitrate::{Charge, Claim, Guarantee, PoolBudget, arbitrate};
use poolwright_core::charge::Charge as Charges;
use poolwright_core::cycle::cycle;
use poolwright_core::policy::Policy;
use poolwright_core::share::Want;
use poolwright_core::snapshot::{Bid, BidQueue, Budget, Namespace};
use world::{World, key, pod, pool, worker};

/// The operator's.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// What a pass may take, on a machine that is three to six times as slow as the one whose figures are published; an
/// unoptimised build only must not hang.
fn most(optimised: u64) -> Duration {
    if cfg!(debug_assertions) {
        return Duration::from_secs(4);
    }
    Duration::from_millis(optimised)
}

/// Ten WorkerPools to a Pool.
fn bid(number: usize, queues: &[Arc<str>]) -> Bid {
    let charge = Charges {
        holder: format!("uid-p{number}"),
        slots: [(format!("pool{}", number / 10), 10)].into(),
    };
    let queue = |name: &Arc<str>| BidQueue {
        object: name.to_string(),
        queue: name.to_string(),
        tier: 50,
    };
    Bid {
        charge: Arc::new(charge),
        queues: queues.iter().map(queue).collect(),
    }
}

/// So many WorkerPools, ten to a Pool, each on so many queues with one busy worker and tasks that wait.
fn fleet(policy: Policy, pools: usize, each: usize) -> World {
    let queues = |number: usize| -> Vec<Arc<str>> {
        let names = (0..each).map(|at| format!("q{}", number * each + at).into());
        names.collect()
    };
    let many = (0..pools).map(|number| {
        let mut one = pool(&format!("p{number}"));
        one.queues = queues(number);
        (one.policy, one.bid) = (policy, bid(number, &one.queues));
        one.revisions[0].charge = Arc::clone(&one.bid.charge);
        one
    });
    let mut world = World::new(many);
    let budget = Budget {
        slots: Some(128),
        effective: Some(128),
        ..Budget::default()
    };
    let budgets = (0..pools.div_ceil(10)).map(|at| (format!("pool{at}"), budget.clone()));
    let namespace = Namespace {
        pools: budgets.collect(),
        ..Namespace::default()
    };
    world.namespaces.insert("shop".to_owned(), namespace);
    let now = world.now;
    for number in 0..pools {
        for (at, queue) in queues(number).iter().enumerate() {
            // In all no more than one worker does.
            let (ready, held) = if at == 0 { (7, 3) } else { (0, 0) };
            world.set(queue, ready, held);
        }
        let name = format!("p{number}-0");
        world
            .pools
            .get_mut(&key(&format!("p{number}")).name)
            .unwrap()
            .pods
            .push(pod(&name, "r1", now));
        world
            .broker()
            .workers
            .insert(format!("celery@{name}"), worker(3, 3, now, now));
        world.answered(&name, |answer| {
            answer.queues = queues(number).iter().map(ToString::to_string).collect();
        });
    }
    world
}

#[test]
fn ten_thousand_pools_in_one_cycle() {
    cycles(10_000, 1);
}

#[test]
fn ten_thousand_queues_of_a_thousand_pools_in_one_cycle() {
    cycles(1_000, 10);
}

#[allow(clippy::disallowed_methods, reason = "this measures")]
fn cycles(pools: usize, each: usize) {
    let target = Policy::WaitTarget {
        target: Duration::from_secs(30),
        delay: None,
    };
    for policy in [Policy::Backlog, target] {
        let mut world = fleet(policy, pools, each);
        // A past, without which an estimate costs nothing.
        for _ in 0..22 {
            let _ = cycle(&world.snapshot(), &mut world.memory);
            world.now = world.now.after(Duration::from_secs(30));
            world.renew();
        }
        // The first of these looks at the last half minute once more, which the others do not.
        for _ in 0..4 {
            let snapshot = world.snapshot();
            let start = std::time::Instant::now();
            let result = cycle(&snapshot, &mut world.memory);
            let took = start.elapsed();
            println!("{pools} pools of {each} queues, {policy:?}: {took:?}");
            assert_eq!(result.decisions.len(), pools);
            assert!(result.decisions.values().all(|one| one.to == 1));
            assert!(took < most(200), "{took:?}");
            world.now = world.now.after(Duration::from_millis(200));
            world.renew();
        }
    }
}

/// One large pool: no pass over its pods for each of its pods.
#[test]
#[allow(clippy::disallowed_methods, reason = "this measures")]
fn ten_thousand_pods_of_one_pool() {
    let mut world = World::new([pool("p")]);
    world.pool().max = 10_000;
    for number in 0..10_000 {
        world.add(&format!("a{number}"), 0);
        world.answered(&format!("a{number}"), |_| ());
    }
    let snapshot = world.snapshot();
    for _ in 0..2 {
        let start = std::time::Instant::now();
        let result = cycle(&snapshot, &mut world.memory);
        let took = start.elapsed();
        assert_eq!(result.decisions[&key("p")].facts.pods.len(), 10_000);
        println!("10,000 pods: {took:?}");
        assert!(took < most(200), "{took:?}");
    }
}

/// Ten thousand queues with a WorkerPool each, on a thousand Pools that have too few slots for all; every tenth
/// WorkerPool draws on two of them.
#[test]
#[allow(clippy::disallowed_methods, reason = "this measures")]
fn ten_thousand_queues_on_a_thousand_pools() {
    let names: Vec<String> = (0..10_000).map(|at| format!("q{at:05}")).collect();
    let pools: Vec<PoolBudget> = (0..1000)
        .map(|at| PoolBudget {
            slots: Some(128),
            guarantees: vec![Guarantee {
                queue: &names[at * 10],
                slots: 16,
            }],
        })
        .collect();
    let tiers = [100, 75, 50, 25, 1];
    let claims: Vec<Claim> = names
        .iter()
        .enumerate()
        .map(|(at, name)| Claim {
            id: name,
            pods: 1 + u64::try_from(at % 9).unwrap(),
            spare: u64::try_from(at % 3).unwrap(),
            pod_slots: 4,
            wants: vec![Want {
                queue: name,
                tier: tiers[at % 5],
                weight: 1 + u64::try_from(at % 13).unwrap(),
                slots: 36,
            }],
            charges: [at / 10, (at * 7 + 1) % 1000][..if at % 10 == 9 { 2 } else { 1 }]
                .iter()
                .map(|pool| Charge {
                    pool: *pool,
                    slots: 4,
                })
                .collect(),
        })
        .collect();
    for _ in 0..5 {
        let start = std::time::Instant::now();
        let targets = arbitrate(&pools, &claims);
        let took = start.elapsed();
        println!("10,000 queues on 1,000 pools: {took:?}");
        assert_eq!(targets.len(), 10_000);
        assert!(targets.iter().sum::<u64>() > 20_000, "most slots are given");
        assert!(took < most(10), "{took:?}");
    }
}
