//! For how long pods stay that are not needed at this moment, where nobody has written it, and who is kept at work.

mod world;

use poolwright_api::Reason;
use poolwright_core::policy::Policy;
use world::fleet::Sim;
use world::{World, pool};

/// Workers of four slots that need twenty seconds to come up, by the wait target.
fn sim(target: u64) -> Sim {
    let mut pool = pool("p");
    (pool.slots, pool.max) = (4, 40);
    pool.policy = Policy::WaitTarget {
        target: world::seconds(target),
        delay: None,
    };
    let mut sim = Sim::new(pool);
    sim.start_up = 20_000;
    sim
}

/// Twenty tasks at once, each of so many milliseconds.
fn burst(sim: &mut Sim, millis: u64) {
    sim.publish(20, millis);
    sim.run(55_000);
}

/// Lets whatever is there go; returns within how many seconds pods were needed that stayed, as told meanwhile.
fn stayed(sim: &mut Sim, millis: u64) -> Vec<u64> {
    let mut told = Vec::new();
    sim.run_with(millis, |sim| {
        let text = sim.decision().text();
        let words = text.split("needed within the last ").nth(1);
        told.extend(words.and_then(|words| words.split(' ').next()?.parse::<u64>().ok()));
    });
    told.dedup();
    told
}

#[test]
fn after_some_bursts_nobody_stays_for_the_next() {
    let mut sim = sim(60);
    burst(&mut sim, 10_000);
    assert_eq!(stayed(&mut sim, 180_000), [20], "{}", sim.decision().text());
    for _ in 0..4 {
        burst(&mut sim, 10_000);
        stayed(&mut sim, 180_000);
    }
    burst(&mut sim, 10_000);
    assert_eq!(stayed(&mut sim, 180_000), [5], "{}", sim.decision().text());
    assert_eq!((sim.total(), sim.wronged), (0, 0));
}

/// Whatever is needed, the least stays: nobody learns from it that nothing came in time.
#[test]
fn of_workers_that_never_go_nothing_is_learnt() {
    let mut sim = sim(60);
    for _ in 0..5 {
        sim.world.pool().min = 5;
        burst(&mut sim, 10_000);
        sim.run(180_000);
        assert_eq!(sim.total(), 5, "{}", sim.decision().text());
    }
    burst(&mut sim, 10_000);
    sim.world.pool().min = 0;
    assert_eq!(stayed(&mut sim, 180_000), [20], "{}", sim.decision().text());
    assert_eq!(sim.total(), 0);
}

/// What is not believed is not learnt from: a queue that was emptied before anybody took what it held is no idle time.
#[test]
fn of_a_zero_that_is_suspect_nothing_is_learnt() {
    let mut sim = sim(60);
    for _ in 0..6 {
        sim.publish(20, 10_000);
        sim.run(10_000);
        sim.flush();
        sim.run(50_000);
        assert_eq!(
            sim.decision().reason,
            Reason::HeldSuspect,
            "{}",
            sim.decision().text()
        );
    }
    burst(&mut sim, 10_000);
    assert_eq!(stayed(&mut sim, 180_000), [20], "{}", sim.decision().text());
}

/// From now on what waits may wait for an hour, and pods stay for a second.
fn relax(sim: &mut Sim) {
    sim.world.pool().policy = Policy::WaitTarget {
        target: world::seconds(3600),
        delay: Some(world::seconds(1)),
    };
}

/// Few would do until the target, and all of them cost the same work: whoever is there stays until there is less of it.
#[test]
fn nobody_at_work_goes_while_tasks_wait_and_that_is_told() {
    let mut sim = sim(20);
    sim.publish(200, 60_000);
    sim.run(15_000);
    let before = sim.consuming();
    assert_eq!(before, 10, "{}", sim.decision().text());
    relax(&mut sim);
    let (mut least, mut is_told) = (before, false);
    sim.run_with(60_000, |sim| {
        least = least.min(sim.consuming());
        let text = sim.decision().text();
        is_told |= text.contains("at work or will be up in time, and tasks wait");
    });
    assert_eq!(least, before, "{}", sim.decision().text());
    assert!(is_told, "{}", sim.decision().text());
    sim.run(300_000);
    assert_eq!((sim.finished, sim.wronged), (200, 0));
}

/// Of twenty pods five have a node. The others may never be up.
#[test]
fn who_finds_no_node_is_not_kept_for_what_waits() {
    let mut sim = sim(20);
    sim.nodes = 5;
    sim.publish(200, 60_000);
    sim.run(45_000);
    assert!(sim.consuming() >= 20, "{}", sim.decision().text());
    relax(&mut sim);
    sim.run(45_000);
    let (pods, text) = (sim.consuming(), sim.decision().text());
    // One more or less is no matter.
    assert!((5..=6).contains(&pods), "{pods}: {text}");
}

/// A limit that no queue shows, as a full pool of Airflow: what waits is not theirs.
#[test]
fn who_idles_is_not_kept_for_what_nobody_takes() {
    let mut world = World::new([pool("p")]);
    world.pool().policy = Policy::WaitTarget {
        target: world::seconds(3600),
        delay: Some(world::seconds(1)),
    };
    for name in ["a", "b", "c"] {
        world.add(name, 0);
    }
    world.set("q", 200, 0);
    let decision = world.settle(60);
    assert_eq!(decision.to, 1, "{}", decision.text());
}
