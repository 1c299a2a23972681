//! Rollouts are scaling: the proven revision serves until the newest has shown that it works.

mod world;

use std::time::Duration;

use poolwright_api::Reason;
use poolwright_core::decision::Decision;
use poolwright_core::snapshot::{Hold, Mark};
use poolwright_core::time::Moment;
use world::fleet::Sim;
use world::{World, pod, pool, revision, seconds, set_mark, wall, worker};

fn sim(replicas: u32, change: impl FnOnce(&mut poolwright_core::snapshot::PoolInput)) -> Sim {
    let mut pool = pool("p");
    pool.revisions = vec![revision("r1", replicas, true)];
    pool.min = replicas;
    change(&mut pool);
    let mut sim = Sim::new(pool);
    sim.run(5_000);
    sim
}

fn replicas(sim: &mut Sim) -> Vec<(String, u32)> {
    let mut all: Vec<_> = sim
        .world
        .pool()
        .revisions
        .iter()
        .map(|one| (one.name.to_string(), one.replicas))
        .collect();
    all.sort();
    all
}

fn of(list: &[(&str, u32)]) -> Vec<(String, u32)> {
    list.iter()
        .map(|(name, count)| ((*name).to_owned(), *count))
        .collect()
}

#[test]
fn a_wrong_revision_never_replaces_the_proven_one() {
    let mut sim = sim(3, |_| ());
    sim.broken.insert("r2".to_owned());
    sim.world.pool().revision = "r2".into();
    sim.run(10_000);
    assert_eq!(replicas(&mut sim), of(&[("r1", 3), ("r2", 1)]));
    assert_eq!(
        sim.decision().allocation.note.as_ref().unwrap().0,
        Reason::Progressing
    );
    sim.run(600_000);
    assert_eq!(replicas(&mut sim), of(&[("r1", 3), ("r2", 0)]));
    sim.run(1_000_000);
    let (reason, text) = sim.decision().allocation.note.clone().unwrap();
    assert_eq!(
        (reason, replicas(&mut sim)),
        (Reason::RevisionUnproven, of(&[("r1", 3), ("r2", 0)]))
    );
    assert!(
        text.contains("r2 was given up") && text.contains("r1 works on"),
        "{text}"
    );
    // Then a good one rolls out, and the wrong one is cleared away.
    sim.world.pool().revision = "r3".into();
    sim.run(60_000);
    assert_eq!(replicas(&mut sim), of(&[("r3", 3)]));
    assert!(sim.decision().allocation.complete && sim.decision().allocation.note.is_none());
    assert!(sim.most <= 11);
}

#[test]
fn a_rollout_under_load_loses_nothing() {
    for max in [1, 2, 5] {
        let mut sim = sim(0, |pool| {
            pool.max = max;
            pool.slots = 2;
        });
        sim.run_with(120_000, |sim| {
            if sim.queue.len() < 5 {
                sim.publish(5, 3_000);
            }
            if sim.world.now.0 == 620_000 {
                sim.world.pool().revision = "r2".into();
            }
        });
        assert_eq!(
            replicas(&mut sim),
            of(&[("r2", max)]),
            "{}",
            sim.decision().text()
        );
        assert!(sim.most <= max + 1, "{} pods of {max}", sim.most);
        assert_eq!(sim.wronged, 0);
        sim.run(300_000);
        assert_eq!((sim.queue.len(), sim.busy()), (0, 0));
    }
}

#[test]
fn at_zero_nothing_is_started_to_prove_a_revision() {
    let mut sim = sim(0, |_| ());
    sim.world.pool().revision = "r2".into();
    sim.run(60_000);
    assert_eq!(replicas(&mut sim), of(&[("r1", 0), ("r2", 0)]));
    sim.publish(25, 10_000);
    sim.run(400);
    assert_eq!(replicas(&mut sim), of(&[("r1", 3), ("r2", 1)]));
    sim.run(150_000);
    assert_eq!((replicas(&mut sim), sim.finished), (of(&[("r2", 0)]), 25));
}

#[test]
fn without_a_proven_revision_the_newest_grows_straight_and_keeps_its_pods() {
    let mut sim = sim(0, |pool| pool.revisions[0].proven = None);
    sim.broken.insert("r1".to_owned());
    sim.publish(40, 1_000);
    sim.run(700_000);
    assert_eq!(replicas(&mut sim), of(&[("r1", 4)]));
    assert_eq!(
        sim.decision().allocation.note.as_ref().unwrap().0,
        Reason::RevisionUnproven
    );
    sim.world.pool().revision = "r2".into();
    sim.run(1_000);
    assert_eq!(sim.decision().allocation.target("r2"), Some(4));
    assert_eq!(
        sim.decision().allocation.target("r1"),
        Some(0),
        "it replaces the unproven one at once"
    );
    sim.run(14_000);
    assert_eq!(replicas(&mut sim), of(&[("r2", 4)]));
    sim.run(130_000);
    assert_eq!((replicas(&mut sim), sim.finished), (of(&[("r2", 0)]), 40));
}

#[test]
fn back_to_an_older_revision_that_is_proven() {
    let mut sim = sim(3, |_| ());
    sim.broken.insert("r2".to_owned());
    sim.world.pool().revision = "r2".into();
    sim.run(20_000);
    sim.replicas.clear();
    sim.world.pool().revision = "r1".into();
    sim.run(20_000);
    assert_eq!(
        (replicas(&mut sim), sim.replicas.clone()),
        (of(&[("r1", 3)]), vec![4, 3])
    );
}

#[test]
fn a_spec_that_changes_again_gives_up_the_unproven_one() {
    let mut sim = sim(3, |pool| pool.max = 3);
    sim.broken.insert("r2".to_owned());
    sim.world.pool().revision = "r2".into();
    sim.run(20_000);
    sim.world.pool().revision = "r3".into();
    sim.run(60_000);
    assert_eq!(replicas(&mut sim), of(&[("r3", 3)]));
    assert!(sim.most <= 4);
}

/// A third revision arrives while the second takes over from the first: the first still serves until it is replaced.
#[test]
fn a_third_revision_does_not_cut_short_a_take_over() {
    let mut sim = sim(20, |pool| pool.max = 20);
    sim.world.pool().revision = "r2".into();
    sim.run(2_600);
    let mut least = u32::MAX;
    sim.world.pool().revision = "r3".into();
    sim.run_with(120_000, |sim| least = least.min(sim.consuming()));
    assert_eq!(replicas(&mut sim), of(&[("r3", 20)]));
    assert!(least >= 15 && sim.most <= 21, "between {least} and {}", sim.most);
}

/// For every number and maximum it ends, never with more than one pod above the maximum, nor with fewer than the minimum
/// or three quarters.
#[test]
fn a_take_over_ends_for_every_number_and_maximum() {
    for max in 1..=50 {
        for number in 1..=max {
            for min in [0, number / 2, number] {
                assert!(take_over(min, number, max), "{number} of {max} does not end");
            }
        }
    }
}

fn take_over(min: u32, number: u32, max: u32) -> bool {
    let mut first = pool("p");
    (first.min, first.max, first.slots) = (min, max, 1);
    let mut world = World::new([first]);
    for count in 0..number {
        world.add(&format!("r1-{count}"), 0);
    }
    // As many as are wanted whatever the minimum is.
    world.set("q", u64::from(number), 0);
    world.pool().revision = "r2".into();
    for _ in 0..4 * max + 20 {
        world.now = world.now.after(seconds(1));
        let now = world.now;
        for pod in world
            .pool()
            .pods
            .clone()
            .iter()
            .filter(|pod| *pod.revision == *"r2")
        {
            let heard = worker(0, 0, now, now);
            world
                .broker()
                .workers
                .entry(pod.node().to_owned())
                .or_insert(heard);
        }
        world.renew();
        let decision = world.decide();
        assert_eq!(decision.to, number, "{}", decision.text());
        apply(&mut world, &decision, now);
        let total = world.pool().replicas();
        assert!(total <= max + 1, "{total} pods of {number}, {max}");
        let least = min.max(number - number / 4);
        assert!(total >= least, "{total} pods of {number}, {min} to {max}");
        if decision.allocation.complete && world.pool().revisions.len() == 1 {
            assert_eq!((total, world.pool().revisions[0].name.as_ref()), (number, "r2"));
            return true;
        }
    }
    false
}

fn apply(world: &mut World, decision: &Decision, now: Moment) {
    let stamp = wall(now);
    let allocation = &decision.allocation;
    let pool = world.pool();
    if allocation.create {
        pool.revisions.push(revision("r2", 0, false));
    }
    for one in &mut pool.revisions {
        if allocation.prove.iter().any(|name| **name == *one.name) {
            one.proven = Some(stamp);
        }
        let target = allocation.target(&one.name).unwrap_or(one.replicas);
        let name = one.name.clone();
        for count in one.replicas..target {
            pool.pods
                .push(pod(&format!("{name}-{}-{count}", now.0), &name, now));
        }
        let mut over = one.replicas.saturating_sub(target);
        pool.pods.retain(|pod| {
            let goes = pod.revision == name && over > 0;
            over -= u32::from(goes);
            !goes
        });
        one.replicas = target;
    }
    pool.revisions
        .retain(|one| !allocation.remove.iter().any(|name| **name == *one.name));
}

#[test]
fn a_full_cluster_makes_room_for_the_first_pod_and_the_rollout_ends() {
    for number in [1, 2, 3, 10] {
        let mut sim = sim(number, |pool| pool.max = number);
        sim.nodes = number as usize;
        sim.world.pool().revision = "r2".into();
        sim.run(25_000);
        assert_eq!(
            replicas(&mut sim),
            of(&[("r1", number), ("r2", 1)]),
            "not before 30 s"
        );
        sim.run(300_000);
        assert_eq!(replicas(&mut sim), of(&[("r2", number)]), "{number}");
    }
}

/// Eight pods in the middle of a rollout, with more to do than they can, when somebody wants nothing changed.
#[test]
fn a_pause_or_a_recommendation_in_a_rollout_keeps_the_number_of_pods() {
    let all = [
        (true, true, false),
        (true, false, false),
        (false, true, false),
        (false, false, true),
    ];
    for (scale_in, scale_out, recommend) in all {
        for early in [false, true] {
            let mut sim = sim(0, |pool| {
                (pool.max, pool.slots) = (8, 2);
            });
            let pause = |sim: &mut Sim| {
                let pool = sim.world.pool();
                (pool.pause.scale_in, pool.pause.scale_out, pool.recommend) =
                    (scale_in, scale_out, recommend);
            };
            sim.run_with(180_000, |sim| {
                if sim.queue.len() < 20 {
                    sim.publish(20, 10_000);
                }
                match sim.world.now.0 - 605_000 {
                    30_000 if early => pause(sim),
                    35_000 => sim.world.pool().revision = "r2".into(),
                    40_000 if !early => pause(sim),
                    _ => (),
                }
            });
            let what = format!(
                "{scale_in} {scale_out} {recommend} {early}: {}",
                sim.decision().text()
            );
            assert_eq!(replicas(&mut sim), of(&[("r2", 8)]), "{what}");
            assert!(sim.most <= 9 && sim.wronged == 0, "{} pods: {what}", sim.most);
        }
    }
}

/// Both revisions' pods are there when another operator takes over: together they are no measure of what is wanted.
#[test]
fn an_operator_that_takes_over_in_a_rollout_keeps_the_number_of_pods() {
    for (most, scale_out, recommend) in [
        (8, false, false),
        (8, true, false),
        (8, false, true),
        (20, true, false),
        (20, false, true),
    ] {
        let mut sim = sim(0, |pool| (pool.max, pool.slots) = (8, 2));
        let (mut succeeded, mut least, mut to) = (false, u32::MAX, 0);
        sim.run_with(180_000, |sim| {
            if sim.queue.len() < 20 {
                sim.publish(20, 10_000);
            }
            if sim.world.now.0 == 640_000 {
                let pool = sim.world.pool();
                (pool.max, pool.pause.scale_out, pool.recommend) = (most, scale_out, recommend);
                pool.revision = "r2".into();
            }
            let proven = sim.world.pool().revisions.iter().all(|one| one.proven.is_some());
            if succeeded {
                least = least.min(sim.consuming());
                to = to.max(sim.decision().to);
            } else if proven && sim.consuming() >= 12.min(most + 1) {
                // Those of the new one come beside the old ones, a few of which are parked at once.
                succeeded = true;
                sim.succeed();
            }
        });
        let what = format!("{most} {scale_out} {recommend}: {}", sim.decision().text());
        assert!(succeeded, "{what}");
        assert_eq!(replicas(&mut sim), of(&[("r2", 8)]), "{what}");
        assert!(
            sim.most <= 16.min(most + 1) && sim.wronged == 0,
            "{} pods: {what}",
            sim.most
        );
        assert!(least >= 6 && to <= 8, "{least} pods, {to} wanted: {what}");
    }
}

/// The status may be old, or edited: it takes no pod of the revision that has most, and adds none.
#[test]
fn what_a_status_says_is_no_reason_for_fewer_or_more_pods() {
    for (desired, to) in [(None, 12), (Some(0), 7), (Some(9), 9), (Some(1000), 12)] {
        let mut input = pool("p");
        (input.max, input.desired, input.revision) = (30, desired, "r2".into());
        input.revisions = vec![revision("r1", 5, true), revision("r2", 7, true)];
        let mut world = World::new([input]);
        let now = world.now;
        for number in 0..12 {
            let of = if number < 5 { "r1" } else { "r2" };
            world.pool().pods.push(pod(&format!("p{number:02}"), of, now));
        }
        let decision = world.decide();
        assert_eq!(
            (decision.from, decision.to),
            (to, to),
            "{desired:?}: {}",
            decision.text()
        );
    }
    // Nothing rolls: the older revision has no pods any more.
    for (desired, to) in [(None, 3), (Some(0), 3), (Some(8), 8), (Some(1000), 10)] {
        let mut input = pool("p");
        (input.desired, input.recommend, input.revision) = (desired, true, "r2".into());
        input.revisions = vec![revision("r1", 0, true), revision("r2", 3, true)];
        let decision = World::new([input]).decide();
        assert_eq!(decision.to, to, "{desired:?}: {}", decision.text());
    }
}

/// A rollout is taken back while its older pods are parked: these come back in the place of the newer ones, and not
/// beside them.
#[test]
fn a_pause_while_a_rollout_is_taken_back_adds_no_pods() {
    let mut input = pool("p");
    (input.max, input.revision) = (20, "r2".into());
    input.revisions = vec![revision("r1", 2, true), revision("r2", 4, true)];
    let mut world = World::new([input]);
    world.marks_at_once = false;
    let now = world.now;
    for (name, of) in [
        ("a", "r1"),
        ("b", "r1"),
        ("c", "r2"),
        ("d", "r2"),
        ("e", "r2"),
        ("f", "r2"),
    ] {
        let mut one = pod(name, of, now);
        if of == "r1" {
            set_mark(&mut one, Some(Mark::Held), now);
        }
        world.pool().pods.push(one);
        let view = worker(10, 10, now, now);
        world.broker().workers.insert(format!("celery@{name}"), view);
    }
    world.set("q", 0, 40);
    assert_eq!(world.settle(1).to, 4, "{}", world.decision("p").text());
    world.pool().revision = "r1".into();
    (world.pool().pause.scale_in, world.pool().pause.scale_out) = (true, true);
    let decision = world.settle(1);
    assert_eq!(decision.to, 4, "{}", decision.text());
}

#[test]
fn an_outage_neither_condemns_a_revision_nor_moves_a_rollout() {
    let mut sim = sim(8, |pool| pool.max = 8);
    sim.start_up = 20_000;
    sim.world.pool().revision = "r2".into();
    sim.run(5_000);
    sim.broker_up = false;
    sim.run(700_000);
    assert_eq!(replicas(&mut sim), of(&[("r1", 8), ("r2", 1)]));
    sim.broker_up = true;
    sim.run(300);
    assert!(sim.decision().allocation.fail.is_empty());
    sim.run(1_900);
    assert!(replicas(&mut sim)[0].1 >= 5, "{:?}", replicas(&mut sim));
    sim.broker_up = false;
    sim.run(4_000);
    let before = replicas(&mut sim);
    sim.run(60_000);
    assert_eq!(replicas(&mut sim), before);
    sim.broker_up = true;
    sim.run(300_000);
    assert_eq!(replicas(&mut sim), of(&[("r2", 8)]));
}

/// The leader's busy pods stay while the last old pod goes.
#[test]
fn a_take_over_is_no_reason_to_drop_busy_pods_of_the_new_revision() {
    let mut world = World::new([pool("p")]);
    for name in ["a", "b", "c"] {
        world.add(name, 1);
    }
    world.pool().revisions.push(revision("r0", 1, true));
    let now = world.now;
    world.pool().pods.push(pod("old", "r0", now));
    world
        .broker()
        .workers
        .insert("celery@old".to_owned(), worker(1, 1, now, now));
    world.set("q", 0, 0);
    let decision = world.settle(70);
    assert_eq!(decision.allocation.target("r1"), Some(1), "{}", decision.text());
    assert_eq!(decision.allocation.target("r0"), Some(0));
    let left = |revision| decision.parking.replicas(revision);
    assert_eq!((left("r1"), left("r0")), (Some(3), Some(1)), "they finish first");
}

#[test]
fn without_heartbeats_a_consumer_proves_a_revision() {
    let mut world = World::new([pool("p")]).rabbitmq(false);
    world.add_silent("a");
    world.pool().revisions[0].proven = None;
    let consumers = |world: &mut World, count| {
        world.queue("q").ready.last.as_mut().unwrap().value.consumers = Some(count);
    };
    consumers(&mut world, 1);
    assert!(world.settle(29).allocation.prove.is_empty());
    assert_eq!(world.settle(2).allocation.prove, ["r1"]);
    consumers(&mut world, 0);
    assert!(world.decide().allocation.prove.is_empty());
    // And it is no worker on the wrong broker, so the pool may grow.
    consumers(&mut world, 1);
    world.now = world.now.after(Duration::from_secs(60));
    world.renew();
    world.queue("q").ready.last.as_mut().unwrap().value.count = 100;
    assert_eq!(world.decide().to, 10);
    consumers(&mut world, 0);
    let decision = world.decide();
    assert_eq!(
        (decision.to, decision.reason),
        (1, Reason::WrongBroker),
        "{}",
        decision.text()
    );
}

#[test]
fn without_heartbeats_a_workers_own_answer_proves_a_revision() {
    let mut world = World::new([pool("p")]);
    world.add_silent("a");
    world.pool().revisions[0].proven = None;
    assert!(world.settle(29).ask.is_empty());
    let decision = world.settle(1);
    assert_eq!(decision.ask, ["celery@a"], "asked as soon as its answer counts");
    assert!(decision.allocation.prove.is_empty());
    world.consumes("a", &["other"]);
    assert!(
        world.decide().allocation.prove.is_empty(),
        "it consumes none of ours"
    );
    world.consumes("a", &["other", "q"]);
    assert_eq!(world.decide().allocation.prove, ["r1"]);
    assert_eq!(world.last.queues["b"]["q"].consumers, 1);
    world.pool().pods[0].ready = false;
    assert!(world.decide().allocation.prove.is_empty());
    world.pool().pods[0].ready = true;
    // The answer of the container before this one says nothing of it, even where both have run for long.
    let now = world.now;
    world.pool().pods[0].running_since = Some(now.after(Duration::from_millis(1)));
    world.now = now.after(Duration::from_secs(31));
    world.renew();
    assert!(world.decide().allocation.prove.is_empty());
    world.pool().pods[0].running_since = Some(now);
    assert_eq!(world.decide().allocation.prove, ["r1"]);
    // And none is used when it is older than any other answer may be.
    world.now = now.after(Duration::from_millis(90_001));
    world.renew();
    assert!(world.decide().allocation.prove.is_empty());
    assert_eq!(world.last.queues["b"]["q"].consumers, 0);
}

#[test]
fn a_worker_that_says_it_consumes_is_no_worker_on_the_wrong_broker() {
    let mut world = World::new([pool("p")]);
    for name in ["a", "b"] {
        world.add_silent(name);
    }
    world.settle(60);
    world.set("q", 100, 0);
    let decision = world.decide();
    assert_eq!((decision.to, decision.reason), (2, Reason::WrongBroker));
    assert!(decision.facts.elsewhere);
    world.consumes("b", &["q"]);
    let decision = world.decide();
    assert_eq!((decision.to, decision.reason), (10, Reason::ScaledUp));
    assert!(
        !decision.facts.elsewhere,
        "one shows that the broker is the right one"
    );
    // Nothing else is known of them: their slots stay full, and none goes.
    world.set("q", 0, 0);
    let mut decision = world.decide();
    for _ in 0..200 {
        decision = world.settle(1);
        world.consumes("b", &["q"]);
    }
    assert_eq!(
        (decision.to, decision.reason),
        (2, Reason::HeldUnseen),
        "{}",
        decision.text()
    );
    assert!(decision.parking.victims.is_empty() && decision.allocation.target("r1") == Some(2));
    assert_eq!(decision.facts.unseen, ["a", "b"]);
    // One that drains consumes no longer.
    world.set("q", 100, 0);
    world.pool().pods[1].draining = true;
    assert!(world.decide().facts.elsewhere);
}

#[test]
fn without_heartbeats_a_rollout_comes_to_its_end() {
    let mut world = World::new([pool("p")]).rabbitmq(false);
    world.add_silent("a");
    let now = world.now;
    let pool = world.pool();
    pool.hold = Some(Hold {
        replicas: 1,
        by: None,
    });
    pool.pods.push(pod("old", "r0", now));
    pool.revisions.push(revision("r0", 1, true));
    let consumers = |world: &mut World, count| {
        world.queue("q").ready.last.as_mut().unwrap().value.consumers = Some(count);
    };
    consumers(&mut world, 2);
    let decision = world.settle(29);
    assert_eq!(
        decision.allocation.target("r0"),
        Some(1),
        "not up for long enough"
    );
    world.marks_at_once = false;
    let decision = world.settle(2);
    assert_eq!(
        (decision.allocation.target("r0"), decision.allocation.target("r1")),
        (Some(0), Some(1)),
        "{}",
        decision.text()
    );
    world.mark(world.now);
    assert_eq!(
        world.settle(59).parking.replicas("r0"),
        Some(1),
        "nobody knows what it does"
    );
    assert_eq!(world.settle(2).parking.replicas("r0"), Some(0));
}

#[test]
fn five_revisions_at_most() {
    let mut world = World::new([pool("p")]);
    for number in 2..=5 {
        let name = format!("r{number}");
        world.pool().revisions.push(revision(&name, 0, true));
        let now = world.now;
        let mut old = pod(&name, &name, now);
        old.draining = true;
        world.pool().pods.push(old);
    }
    world.pool().revision = "r6".into();
    let decision = world.decide();
    assert!(!decision.allocation.create);
    assert!(decision.allocation.note.is_some());
    world.pool().pods.clear();
    assert_eq!(
        world.decide().allocation.remove,
        ["r1", "r2", "r3", "r4"],
        "all but the latest proven one"
    );
}

#[test]
fn nothing_moves_while_it_is_deleted_or_contested() {
    for contested in [false, true] {
        let mut world = World::new([pool("p")]);
        world.add("a", 0);
        world.pool().conflict = contested.then(|| "an HPA scales it".to_owned());
        world.pool().terminating = !contested;
        world.pool().revision = "r2".into();
        world.set("q", 100, 0);
        let decision = world.settle(100);
        assert_eq!((decision.to, decision.allocation.create), (1, contested));
        assert!(decision.allocation.targets.is_empty() && decision.parking.victims.is_empty());
    }
}

#[test]
fn an_old_pod_goes_only_on_fresh_data() {
    let mut world = World::new([pool("p")]);
    (world.pool().min, world.pool().max) = (1, 1);
    world.add("new", 0);
    world.pool().revisions.push(revision("r0", 1, true));
    let now = world.now;
    world.pool().pods.push(pod("old", "r0", now));
    world.marks_at_once = false;
    assert_eq!(world.decide().allocation.target("r0"), Some(0));
    world.queue("q").ready.last = None;
    assert_eq!(world.decide().allocation.target("r0").unwrap_or(1), 1);
}

/// Nobody is heard, so nothing is proven: what runs may work all the same.
#[test]
fn an_unproven_pod_that_runs_goes_only_on_fresh_data() {
    let mut world = World::new([pool("p")]);
    (world.pool().min, world.pool().max) = (3, 3);
    world.pool().revisions = vec![revision("r1", 0, false), revision("r0", 3, false)];
    let now = world.now;
    for name in ["a", "b", "c"] {
        world.pool().pods.push(pod(name, "r0", now));
    }
    world.pool().pods[2].running_since = None;
    world.marks_at_once = false;
    assert_eq!(world.decide().allocation.target("r0"), Some(0));
    world.fail_all();
    world.now = world.now.after(seconds(30));
    assert_eq!(
        world.decide().allocation.target("r0"),
        Some(2),
        "one does not run"
    );
}

#[test]
fn the_order_of_revisions_is_no_input() {
    let decide = |reverse: bool| {
        let mut world = World::new([pool("p")]);
        world.pool().revisions.clear();
        let now = world.now;
        for name in ["r1", "r2", "r3"] {
            world.pool().revisions.push(revision(name, 1, false));
            world.pool().pods.push(pod(name, name, now));
            world
                .broker()
                .workers
                .insert(format!("celery@{name}"), worker(0, 0, now, now));
        }
        if reverse {
            world.pool().revisions.reverse();
        }
        world.decide()
    };
    assert_eq!(decide(false).allocation.prove, ["r1", "r2", "r3"]);
    assert_eq!(decide(false), decide(true));
}

/// While the older revision serves, its pods do the work, and each does what it was made for.
#[test]
fn what_serves_is_counted_by_its_own_slots() {
    for (older, newer, pods) in [(8, 2, 3), (2, 8, 12)] {
        let mut input = pool("p");
        (input.slots, input.max, input.revision) = (newer, 20, "r2".into());
        input.revisions = vec![revision("r1", 0, true), revision("r2", 0, false)];
        input.revisions[0].slots = Some(older);
        let mut world = World::new([input]);
        world.set("q", 24, 0);
        let decision = world.settle(1);
        assert_eq!(decision.to, pods, "{}", decision.text());
        assert!(
            decision.text().contains(&format!("/ {older} slots")),
            "{}",
            decision.text()
        );
        world.pool().revisions[1].proven = world.pool().revisions[0].proven;
        let decision = world.settle(1);
        assert_eq!(decision.to, 24 / newer, "{}", decision.text());
    }
}
