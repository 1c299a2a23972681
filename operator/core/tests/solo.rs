//! Workers without an execution pool, which beat and answer only between two tasks: silence is work.

mod world;

use std::time::Duration;

use poolwright_api::Reason;
use poolwright_api::v1alpha1::AckMode;
use poolwright_core::cycle::Memory;
use poolwright_core::decision::Decision;
use poolwright_core::snapshot::{Hold, PoolInput};
use world::fleet::Sim;
use world::{World, left, pool, revision, seconds, wall};

fn solo() -> PoolInput {
    PoolInput {
        slots: 1,
        solo: true,
        ack_mode: AckMode::Early,
        ..pool("p")
    }
}

/// Three pods whose workers were heard, each silent at work for a minute since.
fn at_work() -> World {
    let mut world = World::new([solo()]);
    for name in ["a", "b", "c"] {
        world.add(name, 0);
    }
    world.decide();
    pass(&mut world, 60, &[]);
    world
}

/// 200 ms later: what the broker said is read again, and only those that idle beat and answer.
fn step(world: &mut World, idle: &[&str]) -> Decision {
    let beats = |name: &str| idle.iter().any(|one| format!("celery@{one}") == name);
    let stands = world.broker().heartbeats.last.clone();
    let before: Vec<_> = world.broker().workers.clone().into_iter().collect();
    world.now = world.now.after(Duration::from_millis(200));
    world.renew();
    if let Some(sample) = stands {
        let now = world.now;
        world.broker().heartbeats.succeed(sample.value, now);
    }
    for (name, was) in before.into_iter().filter(|(name, _)| !beats(name)) {
        world.broker().workers.insert(name, was);
    }
    let asked = world.last.decisions.values().flat_map(|one| one.ask.clone());
    for node in asked.filter(|node| beats(node)).collect::<Vec<_>>() {
        let name = node.trim_start_matches("celery@");
        if world.worker(name).unreadable.is_none() {
            world.answered(name, |_| ());
        }
    }
    world.decide()
}

fn pass(world: &mut World, seconds: u64, idle: &[&str]) -> Decision {
    for _ in 1..seconds * 5 {
        step(world, idle);
    }
    step(world, idle)
}

/// A roster remembers nobody who has been silent for ten minutes.
fn forget(world: &mut World) {
    world.broker().workers.clear();
}

/// Another process of the operator: it has heard nobody, and hears from now on.
fn restart(world: &mut World) {
    forget(world);
    world.memory = Memory::default();
    let now = world.now;
    for pod in &mut world.pool().pods {
        pod.see_anew(now);
    }
    world.broker().heartbeats.succeed(now, now);
}

/// The stream breaks, and stands anew.
fn reconnect(world: &mut World) {
    let (now, wall) = (world.now, wall(world.now));
    let kind = poolwright_core::sample::FaultKind::Unreachable;
    world.broker().heartbeats.last = None;
    world.broker().heartbeats.fail(kind, "reset", now, wall);
    for _ in 0..5 * 30 {
        world.now = world.now.after(Duration::from_millis(200));
        let decision = world.decide();
        assert_eq!(left(&decision), 3, "nobody is heard: {}", decision.text());
    }
    let now = world.now;
    world.broker().heartbeats.succeed(now, now);
}

#[test]
fn a_hold_ends_no_worker_that_is_silent_at_work() {
    type Change = fn(&mut World);
    let nothing: Change = |_| ();
    for change in [nothing, forget, restart, reconnect] {
        let mut world = at_work();
        let by = None;
        world.pool().hold = Some(Hold { replicas: 1, by });
        let decision = step(&mut world, &[]);
        assert_eq!(decision.parking.victims.len(), 2, "{}", decision.text());
        change(&mut world);
        for _ in 0..5 * 120 {
            let decision = step(&mut world, &[]);
            assert_eq!(left(&decision), 3, "{}", decision.text());
        }
    }
    // Those that are done go.
    let mut world = at_work();
    world.pool().hold = Some(Hold {
        replicas: 1,
        by: None,
    });
    step(&mut world, &[]);
    let decision = pass(&mut world, 60, &["a", "b"]);
    assert_eq!(decision.parking.victims, ["a", "b"]);
    assert_eq!(left(&decision), 1, "{}", decision.text());
}

/// It idled for long and could not be asked; a task that it began after it was parked keeps it.
#[test]
fn one_that_cannot_be_asked_does_not_go_in_its_task() {
    for (works_after, goes) in [(20, true), (5, false)] {
        let mut world = World::new([solo()]);
        world.pool().scale_down_delay = seconds(10);
        world.marks_at_once = false;
        world.add("a", 0);
        world.add("b", 0);
        world.pool().min = 1;
        let mut parked = None;
        for _ in 0..5 * 200 {
            for name in ["a", "b"] {
                let worker = world.worker(name);
                worker.unreadable = Some("pickle".to_owned());
                worker.unreadable_since = Some(worker.first_seen);
                worker.answer = None;
            }
            let idles = parked.is_none_or(|at| world.now.since(at) < seconds(works_after));
            let decision = step(&mut world, if idles { &["a", "b"] } else { &["b"] });
            if parked.is_none() && !decision.parking.victims.is_empty() {
                assert_eq!(decision.parking.victims, ["a"]);
                parked = Some(world.now);
            }
            world.mark(world.now);
            if left(&decision) == 1 {
                break;
            }
        }
        assert!(parked.is_some());
        assert_eq!(left(world.decision("p")) == 1, goes, "{works_after}");
    }
}

/// One that was never heard is not at work, and holds nobody's number up.
#[test]
fn a_hold_ends_one_that_was_never_heard() {
    let mut world = World::new([solo()]);
    world.add_silent("a");
    pass(&mut world, 70, &[]);
    world.pool().hold = Some(Hold {
        replicas: 0,
        by: None,
    });
    assert_eq!(left(&pass(&mut world, 70, &[])), 0);
}

#[test]
fn under_a_hold_one_that_idles_is_parked_before_those_at_work() {
    let mut world = at_work();
    pass(&mut world, 5, &["c"]);
    world.pool().hold = Some(Hold {
        replicas: 2,
        by: None,
    });
    assert_eq!(step(&mut world, &["c"]).parking.victims, ["c"]);
    // Silent for two heartbeats, and still counted as heard.
    let mut world = at_work();
    pass(&mut world, 30, &["b", "c"]);
    pass(&mut world, 7, &["c"]);
    world.worker("b").last_progress = world.now.before(seconds(100));
    world.pool().hold = Some(Hold {
        replicas: 2,
        by: None,
    });
    assert_eq!(step(&mut world, &["c"]).parking.victims, ["c"]);
}

#[test]
fn a_task_may_last_longer_than_a_worker_is_remembered_and_than_the_operator() {
    type Change = fn(&mut World);
    let changes: [Change; 2] = [forget, restart];
    for change in changes {
        let mut world = at_work();
        change(&mut world);
        let decision = pass(&mut world, 70, &[]);
        assert_eq!(decision.facts.busy, Some(3), "{}", decision.text());
        assert!(decision.facts.unseen.is_empty() && !decision.facts.elsewhere);
        world.set("q", 2, 0);
        step(&mut world, &[]);
        world.set("q", 2, 0);
        let decision = pass(&mut world, 2, &[]);
        assert_eq!(
            (decision.to, decision.reason),
            (5, Reason::ScaledUp),
            "{}",
            decision.text()
        );
        // Its first heartbeat after that is no sign of a slow start.
        world.set("q", 0, 0);
        let now = world.now;
        world
            .broker()
            .workers
            .insert("celery@a".to_owned(), world::worker(0, 1, now, now));
        let decision = pass(&mut world, 2, &["a"]);
        assert_eq!(decision.facts.busy, Some(2), "{}", decision.text());
        assert!(decision.facts.start_up.is_none_or(|time| time < seconds(10)));
    }
}

/// Beside those at work, one of a new revision that is not heard says nothing of the broker of all.
#[test]
fn workers_at_work_are_on_the_right_broker() {
    let mut world = at_work();
    world.pool().revisions.push(revision("r2", 0, false));
    world.pool().revision = "r2".into();
    world.add_silent("n");
    let decision = pass(&mut world, 70, &[]);
    assert_eq!(decision.facts.unseen, ["n"]);
    assert!(!decision.facts.elsewhere, "{}", decision.text());
}

#[test]
fn workers_that_were_never_heard_may_be_on_the_wrong_broker() {
    // Whether its revision is proven, and whether this process has watched it start.
    for (proven, watched) in [(false, true), (false, false), (true, true)] {
        let mut world = World::new([solo()]);
        world.pool().revisions = vec![revision("r1", 0, proven)];
        world.add_silent("a");
        pass(&mut world, 70, &[]);
        if !watched {
            restart(&mut world);
        }
        world.set("q", 5, 0);
        // Longer than any worker is remembered.
        let decision = pass(&mut world, 610, &[]);
        assert_eq!(
            (decision.to, decision.reason),
            (1, Reason::WrongBroker),
            "{proven} {watched}: {}",
            decision.text()
        );
    }
}

/// A command waits for a worker until its task is done: it is given meanwhile, now and then.
#[test]
fn a_parked_worker_is_told_while_it_works_stays_parked_and_goes_when_it_is_done() {
    let mut world = at_work();
    world.set("q", 5, 0);
    pass(&mut world, 60, &[]);
    world.pool().max = 2;
    let decision = step(&mut world, &[]);
    let [victim] = &decision.parking.victims[..] else {
        panic!("{}", decision.text())
    };
    let victim = victim.clone();
    let mut calls = 0;
    // Two tasks of five minutes, and one heartbeat between them.
    for look in 0..5 * 600 {
        let idle = [&*victim];
        let decision = step(&mut world, if look == 1500 { &idle } else { &[] });
        assert_eq!(decision.parking.victims, idle, "{}", decision.text());
        assert_eq!(left(&decision), 3, "{}", decision.text());
        calls += world.last.calls.len();
    }
    assert!(world.told.contains(&format!("celery@{victim}")));
    assert!((2..30).contains(&calls), "{calls}");
    let decision = pass(&mut world, 10, &[&victim]);
    assert_eq!(left(&decision), 2, "{}", decision.text());
}

#[test]
fn a_worker_that_comes_back_is_told_so_until_it_has_said_that_it_consumes() {
    let mut world = at_work();
    world.set("q", 5, 0);
    pass(&mut world, 60, &[]);
    world.pool().max = 2;
    let victim = step(&mut world, &[]).parking.victims[0].clone();
    pass(&mut world, 120, &[]);
    let node = format!("celery@{victim}");
    assert!(world.told.contains(&node));
    world.pool().max = 3;
    assert!(step(&mut world, &[]).parking.victims.is_empty());
    step(&mut world, &[]);
    assert!(!world.told.contains(&node), "it is told in its task");
    // One message was lost.
    world.told.insert(node.clone());
    pass(&mut world, 40, &[]);
    assert!(!world.told.contains(&node));
    pass(&mut world, 5, &[&victim]);
    let mut calls = 0;
    for _ in 0..5 * 200 {
        step(&mut world, &[]);
        calls += world.last.calls.len();
    }
    assert_eq!(calls, 0, "it has said so");
}

/// Of the old revision each worker is silent but for a moment after each task.
#[test]
fn a_rollout_under_steady_load_ends_and_cuts_no_task_short() {
    let mut sim = Sim::new(PoolInput {
        min: 3,
        max: 3,
        revisions: vec![revision("r1", 3, true)],
        ..solo()
    });
    sim.publish(200, 45_000);
    sim.run(120_000);
    sim.world.pool().revision = "r2".into();
    sim.run(400_000);
    let old = sim
        .world
        .pool()
        .pods
        .iter()
        .filter(|pod| *pod.revision == *"r1")
        .count();
    assert_eq!((old, sim.wronged), (0, 0), "{}", sim.decision().text());
    assert_eq!(sim.busy(), 3);
}
