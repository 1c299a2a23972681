//! Tasks with an ETA are demand when they fall due: workers are up by then, not before, and none starts in vain.

mod world;

use std::time::Duration;

use poolwright_core::later::Later;
use poolwright_core::policy::Policy;
use proptest::prelude::*;
use world::fleet::Sim;
use world::{World, pool, seconds, wall};

/// A fleet whose workers have been seen to need three seconds, at zero.
fn sim(slots: u32, policy: Policy) -> Sim {
    let mut pool = pool("p");
    (pool.slots, pool.policy) = (slots, policy);
    pool.scale_down_delay = seconds(4);
    let mut sim = Sim::new(pool);
    sim.start_up = 3_000;
    sim.publish(10, 100);
    sim.run(60_000);
    assert_eq!((sim.total(), sim.finished), (0, 10), "{}", sim.decision().text());
    sim
}

fn wait_target(target: u64) -> Policy {
    Policy::WaitTarget {
        target: seconds(target),
        delay: Some(seconds(4)),
    }
}

/// Runs until there is a pod; how long that took, in milliseconds.
fn until_a_pod(sim: &mut Sim, limit: u64) -> u64 {
    let since = sim.world.now.0;
    while sim.total() == 0 && sim.world.now.0 < since + limit {
        sim.run(200);
    }
    sim.world.now.0 - since
}

#[test]
fn one_pod_is_up_just_before_its_tasks_fall_due() {
    for policy in [Policy::Backlog, wait_target(30)] {
        let mut sim = sim(10, policy);
        sim.publish_later(6, 60_000);
        let waited = until_a_pod(&mut sim, 90_000);
        assert!(
            (49_000..57_000).contains(&waited),
            "{waited}: {}",
            sim.decision().text()
        );
        let text = sim.decision().text();
        assert!(text.contains(" + 6 due within "), "{text}");
        sim.run(60_000 - waited + 600);
        assert_eq!((sim.total(), sim.finished), (1, 16), "{}", sim.decision().text());
        // What it said that it held is believed until it is asked again.
        sim.run(100_000);
        assert_eq!((sim.total(), sim.wronged), (0, 0), "{}", sim.decision().text());
    }
}

/// The first of several that came up early would take all tasks and run them one by one.
#[test]
fn several_pods_come_up_when_their_tasks_are_due_and_share_them() {
    for policy in [Policy::Backlog, wait_target(1)] {
        let mut sim = sim(1, policy);
        sim.publish_later(6, 60_000);
        let waited = until_a_pod(&mut sim, 90_000);
        let text = sim.decision().text();
        assert!((56_000..60_000).contains(&waited), "{waited}: {text}");
        assert!(sim.total() > 1, "{text}");
        let (mut most, end) = (0, sim.world.now.0 + 8_000);
        while sim.world.now.0 < end {
            sim.run(50);
            most = most.max(sim.busy());
        }
        assert_eq!(sim.finished, 16, "{}", sim.decision().text());
        assert!(most > 1, "they were run one by one");
        sim.run(60_000);
        assert_eq!((sim.total(), sim.wronged), (0, 0), "{}", sim.decision().text());
    }
}

#[test]
fn that_several_pods_wait_is_said() {
    let mut sim = sim(1, Policy::Backlog);
    sim.publish_later(6, 60_000);
    sim.run(54_000);
    let text = sim.decision().text();
    assert!(
        sim.total() == 0 && text.contains("without 6 of which the first is due in"),
        "{text}"
    );
}

#[test]
fn what_a_worker_holds_keeps_it_and_starts_no_other() {
    let mut sim = sim(1, Policy::Backlog);
    sim.publish(1, 100);
    sim.publish_later(6, 60_000);
    sim.run(59_000);
    assert_eq!(
        (sim.total(), sim.replicas.iter().max()),
        (1, Some(&10)),
        "{}",
        sim.decision().text()
    );
    assert_eq!(sim.finished, 11);
    sim.run(30_000);
    assert_eq!((sim.finished, sim.wronged), (17, 0), "{}", sim.decision().text());
}

/// A world at zero whose queue holds only what is not due, by these times from now.
fn at_zero(rabbitmq: bool, due: &[(i64, u64)]) -> World {
    let mut world = World::new([pool("p")]);
    if rabbitmq {
        world = world.rabbitmq(true);
    }
    let now = wall(world.now).as_millisecond();
    let count = due
        .iter()
        .map(|(_, count)| count)
        .fold(0, |sum: u64, one| sum.saturating_add(*one));
    world.set("q", count, 0);
    let ready = &mut world.queue("q").ready.last.as_mut().expect("a reading").value;
    ready.not_due = count;
    ready.later = Later::new(
        due.iter()
            .map(|(after, count)| (now.saturating_add(*after), *count)),
    );
    world
}

#[test]
fn what_is_not_known_is_no_demand() {
    let mut world = at_zero(false, &[(i64::MAX, 100), (253_402_300_799_999, 9)]);
    assert_eq!(world.decide().to, 0);
    world = at_zero(false, &[(1_000, 100)]);
    world.queue("q").ready.last.as_mut().unwrap().value.later = Later::default();
    assert_eq!(world.decide().to, 0, "as long as nothing is due");
    // Nobody has seen how long a pod takes: 30 s are taken for one, and several wait until something is due.
    assert_eq!(at_zero(false, &[(34_000, 9)]).decide().to, 1);
    assert_eq!(at_zero(false, &[(36_000, 9)]).decide().to, 0);
    assert_eq!(at_zero(false, &[(34_000, 11)]).decide().to, 0);
    assert_eq!(at_zero(false, &[(-1_000, 11)]).decide().to, 2);
}

#[test]
fn clocks_that_jump_do_no_harm() {
    let mut world = at_zero(false, &[(3_600_000, 50)]);
    let snapshot = |world: &World, seconds: i64| {
        let mut snapshot = world.snapshot();
        snapshot.wall = snapshot
            .wall
            .saturating_add(jiff::SignedDuration::from_secs(seconds))
            .unwrap();
        snapshot
    };
    let mut to = |seconds| {
        let cycle = poolwright_core::cycle::cycle(&snapshot(&world, seconds), &mut world.memory);
        cycle.decisions.values().next().unwrap().to
    };
    assert_eq!((to(0), to(-1_000_000), to(4_000), to(i64::MAX / 4)), (0, 0, 5, 5));
}

/// It fetches them a moment later, and no other pod could run them.
#[test]
fn what_comes_while_a_worker_takes_from_the_queue_starts_no_other() {
    let mut world = at_zero(false, &[(400, 9)]);
    world.pool().slots = 1;
    assert_eq!(world.decide().to, 9, "{}", world.decision("p").text());
    world.add("a", 0);
    for _ in 0..5 {
        let decision = world.decide();
        assert_eq!(decision.to, 1, "{}", decision.text());
        world.step();
    }
}

#[test]
fn what_stays_in_a_queue_although_workers_take_from_it_counts_after_a_while() {
    let mut world = at_zero(false, &[(34_000, 9)]);
    world.pool().slots = 1;
    world.add("a", 1);
    let mut last = world.decide();
    for _ in 0..5 * 9 {
        world.step();
        last = world.decide();
    }
    assert_eq!(last.to, 1, "{}", last.text());
    // Full of others, or told not to take more of them.
    world.now = world.now.after(Duration::from_secs(25));
    for _ in 0..2 {
        world.step();
        last = world.decide();
    }
    assert_eq!(last.to, 10, "{}", last.text());
}

/// Pods that are there are kept for what they hold and must run soon.
#[test]
fn pods_stay_for_what_falls_due_soon() {
    for (after, stay) in [(4_000, 3), (3_000_000, 1)] {
        let mut world = World::new([pool("p")]);
        world.pool().scale_down_delay = seconds(4);
        for name in ["a", "b", "c"] {
            world.add(name, 0);
        }
        let mut last = world.decide();
        for _ in 0..5 * 12 {
            world.step();
            let due = wall(world.now).as_millisecond() + after;
            let unacked = &mut world.queue("q").unacked.last.as_mut().unwrap().value;
            (unacked.not_due, unacked.later) = (25, Later::new([(due, 25)]));
            last = world.decide();
        }
        assert_eq!(last.to, stay, "{}", last.text());
    }
}

/// RabbitMQ shows only what workers say, and that may be old: what was due since has begun.
#[test]
fn pods_stay_for_what_a_worker_said_that_it_held_until_it_is_due() {
    for (after, stay) in [(4_000, 3), (3_000_000, 1), (-1_000, 1)] {
        let mut world = World::new([pool("p")]).rabbitmq(true);
        world.pool().scale_down_delay = seconds(4);
        for name in ["a", "b", "c"] {
            world.add(name, 0);
        }
        let mut last = world.decide();
        for _ in 0..5 * 12 {
            world.step();
            let due = wall(world.now).as_millisecond() + after;
            world.answered("a", |answer| {
                answer.scheduled.insert("q".to_owned(), 25);
                answer.later = Later::new([(due, 25)]);
            });
            last = world.decide();
        }
        assert_eq!(last.to, stay, "{after}: {}", last.text());
    }
}

proptest! {
    /// Whatever the due times: no pod before the first is near, never more than for tasks that are due, and the same for
    /// RabbitMQ as without them.
    #[test]
    fn is_no_demand_before_and_no_more_than_when_due(
        due in prop::collection::vec((36_000i64..10_000_000, 1u64..500), 1..300),
        soon in prop::collection::vec((1i64..34_000, 1u64..9), 0..4),
    ) {
        prop_assert_eq!(at_zero(false, &due).decide().to, 0);
        let mut all = due.clone();
        all.extend(&soon);
        let mut world = at_zero(false, &all);
        let count: u64 = soon.iter().map(|(_, count)| count).sum();
        let most = u32::try_from(count.div_ceil(10)).unwrap();
        let to = world.decide().to;
        prop_assert!(to <= most && (to == most || most > 1), "{to} of {most}");
        let mut world = at_zero(true, &all);
        let ready = &mut world.queue("q").ready.last.as_mut().unwrap().value;
        ready.later = Later::default();
        prop_assert_eq!(world.decide().to, 0);
    }
}
