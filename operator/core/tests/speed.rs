//! Ten thousand WorkerPools on one broker are decided in one go.

mod world;

use std::time::Duration;

use poolwright_api::Reason;
use poolwright_core::cycle::cycle;
use poolwright_core::decision::Decision;
use world::{World, key, pod, pool, worker};

#[test]
#[allow(clippy::disallowed_methods, reason = "this measures")]
fn ten_thousand_pools_in_one_cycle() {
    let many = (0..10_000).map(|number| {
        let mut one = pool(&format!("p{number}"));
        one.queues = vec![format!("q{number}")];
        one
    });
    let mut world = World::new(many);
    let now = world.now;
    for number in 0..10_000 {
        world.set(&format!("q{number}"), 7, 3);
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
        world.answered(&name, |answer| answer.queues = [format!("q{number}")].into());
    }
    let snapshot = world.snapshot();
    for _ in 0..2 {
        let start = std::time::Instant::now();
        let result = cycle(&snapshot, &mut world.memory);
        let took = start.elapsed();
        println!("10,000 pools: {took:?}");
        assert_eq!(result.decisions.len(), 10_000);
        let right = |decision: &Decision| (decision.to, decision.reason) == (1, Reason::ScaledUp);
        assert!(result.decisions.values().all(right));
        assert!(took < Duration::from_secs(4), "{took:?}");
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
        assert!(took < Duration::from_secs(4), "{took:?}");
    }
}
