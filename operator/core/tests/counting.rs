//! What counts as demand: each task once, and nothing that more pods could not help.

mod world;

use poolwright_api::Reason;
use poolwright_api::v1alpha1::AckMode;
use poolwright_core::time::Moment;
use world::{World, key, pool, running, seconds, wall, worker};

#[test]
fn waiting_tasks_need_their_slots_at_once() {
    let mut world = World::new([pool("p")]);
    world.set("q", 95, 0);
    let decision = world.decide();
    assert_eq!(
        (decision.from, decision.to, decision.reason),
        (0, 10, Reason::ScaledUp)
    );
    assert_eq!(
        decision.text(),
        "10 = ceil((95 ready + 0 reserved + 0 busy) / 10 slots)"
    );
    assert_eq!(decision.allocation.target("r1"), Some(10));
    world.set("q", 1000, 0);
    let decision = world.decide();
    assert_eq!((decision.to, decision.reason), (10, Reason::AtMaximum));
    assert!(
        decision.text().contains("wanted 100") && decision.text().contains("maxReplicas 10"),
        "{}",
        decision.text()
    );
}

/// 20 slots run 20 tasks, 8 more are fetched, 12 wait: 40 tasks, however they acknowledge.
#[test]
fn early_late_and_unknown_acknowledgement_count_the_same_load_the_same() {
    for (mode, unacked, counts) in [
        (AckMode::Early, 8, 40),
        (AckMode::Late, 28, 40),
        (AckMode::Auto, 28, 40),
    ] {
        let mut world = World::new([pool("p")]);
        world.pool().ack_mode = mode;
        world.pool().prefetch = Some(4);
        world.add("a", 10);
        world.add("b", 10);
        for _ in 0..15 {
            world.step();
            world.set("q", 12, unacked);
            world.decide();
        }
        let decision = world.decide();
        assert_eq!(decision.to, counts / 10, "{mode:?}: {}", decision.text());
        assert!(
            decision.text().contains("12 ready + 8 reserved + 20 busy") || mode == AckMode::Auto,
            "{}",
            decision.text()
        );
    }
}

#[test]
fn acknowledgement_is_learned_from_answers_and_remembered() {
    let mut world = World::new([pool("p")]);
    world.pool().prefetch = Some(4);
    world.add("a", 10);
    world.answered("a", |answer| running(answer, 10, 0));
    for _ in 0..15 {
        world.step();
        world.set("q", 0, 20);
        world.decide();
    }
    assert_eq!(world.decide().to, 3, "{}", world.decision("p").text());
    world.worker("a").answer = None;
    assert_eq!(world.decide().to, 3, "still known");
    // One late task among them: growth counts for certain what both may be, scale-in what either may be.
    world.set("q", 0, 20);
    world.answered("a", |answer| running(answer, 0, 10));
    let decision = world.decide();
    assert!(
        decision.text().contains("10 reserved + 10 busy"),
        "{}",
        decision.text()
    );
}

#[test]
fn prefetched_tasks_are_seen_when_the_list_is_empty() {
    let mut world = World::new([pool("p")]);
    world.pool().prefetch = Some(4);
    world.pool().ack_mode = AckMode::Late;
    world.add("a", 10);
    for _ in 0..5 {
        world.step();
        world.set("q", 0, 40);
        world.decide();
    }
    let decision = world.decide();
    assert_eq!(decision.to, 4, "{}", decision.text());
    assert_eq!((decision.facts.queued, decision.facts.busy), (Some(30), Some(10)));
}

#[test]
fn draining_pods_that_are_full_start_nothing() {
    for prefetch in [Some(1), Some(4), None] {
        let mut world = World::new([pool("p")]);
        world.pool().prefetch = prefetch;
        for number in 0..10 {
            world.add(&format!("d{number}"), 10);
        }
        world.pool().revisions[0].replicas = 0;
        for pod in &mut world.pool().pods {
            pod.draining = true;
        }
        for worker in world.broker().workers.values_mut() {
            worker.offline = true;
        }
        world.set("q", 0, 400);
        let decision = world.decide();
        let least = u32::from(prefetch == Some(1));
        assert_eq!(
            decision.to,
            least,
            "beyond what they can hold, one pod: {}",
            decision.text()
        );
        world.set("q", 0, 100);
        assert_eq!(world.decide().to, 0);
    }
}

/// A worker killed with 100 prefetched tasks: its container starts anew in place.
#[test]
fn a_dead_workers_leftovers_justify_one_pod() {
    let mut world = World::new([pool("p")]);
    world.pool().prefetch = Some(10);
    world.add("a", 0);
    let fetched = wall(world.now).as_second() + 3;
    world.now = world.now.after(seconds(5));
    let now = world.now;
    let pod = &mut world.pool().pods[0];
    pod.started = Some(wall(now));
    pod.running_since = Some(now);
    world.beat();
    world.set_fetched("q", 0, &[(fetched, 100)]);
    let decision = world.decide();
    assert_eq!(decision.to, 1, "{}", decision.text());
    assert_eq!(decision.facts.orphaned, 100);
    assert!(
        decision.text().contains("at least 1 for 100 orphaned"),
        "{}",
        decision.text()
    );
    // From none, one.
    world.pool().pods.clear();
    world.pool().revisions[0].replicas = 0;
    assert_eq!(world.decide().to, 1);
    // And that one, once it idles, stays.
    world.add("b", 0);
    let last = (0..900).fold(None, |_, _| {
        world.step();
        Some(world.decide())
    });
    assert_eq!(last.unwrap().to, 1);
}

/// The killed worker's neighbours could hold what it left; they are asked, and it turns out that they do not.
#[test]
fn leftovers_are_not_taken_for_the_neighbours() {
    let mut world = World::new([pool("p")]);
    world.pool().prefetch = Some(10);
    for name in ["a", "b", "c"] {
        world.add(name, 0);
    }
    world.now = world.now.after(seconds(20));
    world.renew();
    let fetched = wall(world.now).as_second() - 15;
    world.set_fetched("q", 0, &[(fetched, 100)]);
    let decision = world.decide();
    assert_eq!(decision.ask, ["celery@a", "celery@b", "celery@c"]);
    world.step();
    let decision = world.decide();
    assert_eq!(
        (decision.facts.orphaned, decision.facts.queued),
        (100, Some(0)),
        "{}",
        decision.text()
    );
    assert!(decision.ask.is_empty());
    assert!(decision.text().contains("wanted 1 ="), "{}", decision.text());
}

#[test]
fn leftovers_on_a_shared_queue_start_one_pod_in_one_pool() {
    let mut world = World::new([pool("p"), pool("r")]);
    let old = wall(world.now).as_second() - 100;
    world.set_fetched("q", 0, &[(old, 70)]);
    world.decide();
    let to: u32 = world.last.decisions.values().map(|decision| decision.to).sum();
    assert_eq!(to, 1);
}

#[test]
fn two_pools_share_a_backlog_by_capacity() {
    let mut large = pool("large");
    large.max = 30;
    let mut world = World::new([large, pool("small")]);
    world.set("q", 400, 0);
    world.decide();
    assert_eq!((world.decision("large").to, world.decision("small").to), (30, 10));
    world.set("q", 40, 0);
    world.decide();
    assert_eq!((world.decision("large").to, world.decision("small").to), (3, 1));
}

/// What one pool's draining pods hold is not the other pool's work.
#[test]
fn what_pods_hold_is_shared_by_what_they_can_hold() {
    let mut world = World::new([pool("a"), pool("b")]);
    world.add("a1", 10);
    world.pools.get_mut("a").unwrap().pods[0].draining = true;
    world.set("q", 0, 10);
    world.decide();
    assert_eq!(
        (world.decision("b").to, world.decision("b").facts.orphaned),
        (0, 0)
    );
    for name in ["a2", "a3", "a4"] {
        world.add(name, 0);
    }
    let now = world.now;
    world
        .pools
        .get_mut("b")
        .unwrap()
        .pods
        .push(world::pod("b1", "r1", now));
    world.set("q", 0, 35);
    world.decide();
    assert_eq!(
        world.decision("b").facts.queued,
        Some(7),
        "10 of the 50 that may be held"
    );
}

#[test]
fn a_held_pool_takes_no_more_of_a_shared_backlog_than_it_has() {
    let mut held = pool("held");
    held.hold = Some(poolwright_core::snapshot::Hold {
        replicas: 0,
        by: None,
    });
    let mut world = World::new([held, pool("p")]);
    world.set("q", 100, 0);
    world.decide();
    assert_eq!((world.decision("held").to, world.decision("p").to), (0, 10));
}

#[test]
fn ten_queues_of_one_pool_sum_up_before_they_are_rounded() {
    let mut world = World::new([pool("p")]);
    world.pool().queues = (0..10).map(|number| format!("q{number}").into()).collect();
    for number in 0..10 {
        world.set(&format!("q{number}"), 3, 0);
    }
    let decision = world.decide();
    assert_eq!(decision.to, 3, "{}", decision.text());
    assert!(decision.text().contains("30 ready"));
}

#[test]
fn foreign_workers_share_the_backlog_and_are_named() {
    let mut world = World::new([pool("p")]);
    for number in 0..20 {
        let now = world.now;
        let mut view = worker(5, 5, Moment(0), now);
        let mut value = world::answer();
        running(&mut value, 0, 5);
        view.answer = Some(poolwright_core::sample::Sample {
            value: std::sync::Arc::new(value),
            at: now,
        });
        world
            .broker()
            .workers
            .insert(format!("celery@theirs-{number}"), view);
    }
    // Our 10 × 10 slots beside their 20 × 5: half is ours; and the 100 that are fetched are theirs.
    world.set("q", 100, 100);
    let decision = world.decide();
    assert_eq!(decision.to, 5, "{}", decision.text());
    assert_eq!(
        (decision.facts.foreign.0.len(), decision.facts.foreign.1),
        (20, 20)
    );
    assert!(decision.ask.is_empty() && decision.parking.victims.is_empty());
}

/// A worker without an execution pool says nothing while it executes a task, and between two that it executes none.
#[test]
fn a_worker_that_is_silent_at_work_is_busy() {
    for solo in [true, false] {
        let mut one = pool("p");
        (one.slots, one.ack_mode, one.solo) = (1, AckMode::Early, solo);
        let mut world = World::new([one]);
        world.add("a", 0);
        world.set("q", 1, 0);
        world.decide();
        for second in 1..=60 {
            world.now = world.now.after(seconds(1));
            world.beat();
            world.set("q", 1, 0);
            let decision = world.decide();
            // One heartbeat may be late; after two, and a second reading, what waits wants a second worker.
            let expected = match (solo, second) {
                (true, 5) => (Some(1), 1),
                (true, 6..) => (Some(1), 2),
                _ => (Some(0), 1),
            };
            let found = (decision.facts.busy, decision.to);
            assert_eq!(found, expected, "{solo} after {second} s: {}", decision.text());
        }
        world.set("q", 0, 0);
        let decision = world.decide();
        assert_ne!(decision.reason == Reason::HeldUnseen, solo, "{}", decision.text());
    }
}

/// A foreign worker is asked now and then: what was fetched since may be its own, and wants no pod of ours.
#[test]
fn what_foreign_workers_may_have_fetched_since_they_were_heard_is_not_orphaned() {
    let mut world = World::new([pool("p")]);
    let (began, second) = (world.now, wall(world.now).as_second());
    let heard = |world: &mut World, active: u64, answered: Moment, held: u64| {
        let mut view = worker(active, active, Moment(0), world.now);
        let mut value = world::answer();
        running(&mut value, 0, held);
        view.answer = Some(poolwright_core::sample::Sample {
            value: std::sync::Arc::new(value),
            at: answered,
        });
        world.broker().workers.insert("celery@theirs".to_owned(), view);
    };
    let orphaned = |world: &mut World, after: u64| {
        world.beat();
        world.set_fetched("q", 0, &[(second + i64::try_from(after).unwrap(), 2)]);
        let decision = world.decide();
        (decision.facts.orphaned, decision.to)
    };
    // Idle when it was heard last, two seconds ago.
    heard(&mut world, 0, began, 0);
    world.now = began.after(seconds(2));
    assert_eq!(orphaned(&mut world, 1), (0, 0));
    // Busy since, and not asked yet.
    world.now = began.after(seconds(20));
    heard(&mut world, 2, began, 0);
    assert_eq!(orphaned(&mut world, 1), (0, 0));
    // It has answered since: they are its own, or nobody's.
    world.now = began.after(seconds(21));
    heard(&mut world, 2, began.after(seconds(21)), 2);
    assert_eq!(orphaned(&mut world, 1), (0, 0));
    heard(&mut world, 2, began.after(seconds(21)), 0);
    assert_eq!(orphaned(&mut world, 1), (2, 1));
    // Or it idles, which an old answer does not contradict.
    heard(&mut world, 0, began, 0);
    assert_eq!(orphaned(&mut world, 1), (2, 1));
}

#[test]
fn tasks_that_are_not_due_need_no_pod() {
    let mut world = World::new([pool("p")]);
    world.set("q", 1000, 0);
    world.queue("q").ready.last.as_mut().unwrap().value.not_due = 1000;
    assert_eq!(world.decide().to, 0);
    world.queue("q").ready.last.as_mut().unwrap().value.not_due = 999;
    assert_eq!(world.decide().to, 1);
}

#[test]
fn a_heartbeat_that_may_be_outdated_starts_nothing_by_itself() {
    let mut one = pool("p");
    one.slots = 1;
    one.ack_mode = AckMode::Early;
    let mut world = World::new([one]);
    world.add("a", 1);
    world.set("q", 1, 0);
    assert_eq!(world.decide().to, 1, "the task may have ended");
    world.step();
    assert_eq!(
        world.decide().to,
        1,
        "it runs for two heartbeats now, one reading says so"
    );
    world.step();
    assert_eq!(world.decide().to, 2, "{}", world.decision("p").text());
}

/// What a worker said before it worked on is no demand while others drain.
#[test]
fn an_old_answer_is_no_demand_while_others_drain() {
    let mut world = World::new([pool("p")]);
    world.pool().prefetch = Some(4);
    world.pool().ack_mode = AckMode::Late;
    world.add("a", 10);
    world.answered("a", |answer| {
        running(answer, 0, 10);
        answer.reserved.insert("q".to_owned(), 30);
    });
    for number in 0..10 {
        let mut leaving = world::pod(&format!("d{number}"), "r1", Moment(600_000));
        leaving.draining = true;
        world.pool().pods.push(leaving);
    }
    world.now = world.now.after(seconds(20));
    world.renew();
    let fetched = wall(world.now).as_second() - 10;
    world.set_fetched("q", 0, &[(fetched, 100)]);
    // It is in the middle of these tasks still: thirty wait for a slot.
    world.decide();
    assert_eq!(world.decide().to, 4, "{}", world.decision("p").text());
    let worker = world.worker("a");
    (worker.active, worker.processed) = (0, 1_000);
    for _ in 0..3 {
        world.step();
        let decision = world.decide();
        assert!(decision.to <= 1, "{}", decision.text());
    }
}

#[test]
fn absurd_numbers_saturate() {
    let mut world = World::new([pool("p"), pool("r")]);
    world.pool().prefetch = None;
    world.pool().max = u32::MAX;
    world.add("a", u64::MAX);
    world.add("b", u64::MAX);
    for name in ["a", "b"] {
        world.answered(name, |answer| {
            running(answer, u64::MAX, u64::MAX);
            answer.reserved.insert("q".to_owned(), u64::MAX);
            answer.scheduled.insert("q".to_owned(), u64::MAX);
        });
        world.worker(name).interval = std::time::Duration::MAX;
        world.worker(name).processed = u64::MAX;
    }
    world.set("q", u64::MAX, u64::MAX);
    world.pool().revisions.push(world::revision("r0", u32::MAX, true));
    for _ in 0..10 {
        world.decide();
        world.step();
    }
    let to = |name: &str| world.last.decisions[&key(name)].to;
    assert_eq!((to("p"), to("r")), (u32::MAX, 10));
}

/// Pods came up and take nothing from a queue that is not empty: more of them would not either.
#[test]
fn growth_stops_while_new_pods_start_no_task() {
    let mut world = World::new([pool("p")]);
    world.set("q", 30, 0);
    assert_eq!(world.decide().to, 3);
    for name in ["a", "b", "c"] {
        world.add(name, 0);
    }
    for _ in 0..32 {
        world.step();
        world.decide();
    }
    world.set("q", 90, 0);
    let decision = world.decide();
    assert_eq!(
        (decision.to, decision.reason),
        (3, Reason::NoProgress),
        "{}",
        decision.text()
    );
    world.worker("b").active = 1;
    assert_eq!(world.decide().to, 9, "one of them works");
}

/// Missing is not zero, in what is shown as in what is done.
#[test]
fn what_is_not_known_is_not_shown_as_zero() {
    let mut world = World::new([pool("p")]);
    world.add("a", 10);
    world.set("q", 30, 10);
    let facts = world.decide().facts;
    assert_eq!((facts.queued, facts.busy), (Some(30), Some(10)));
    let old = world.now;
    world.now = world.now.after(seconds(8));
    world.renew();
    world.queue("q").ready.last.as_mut().unwrap().at = old;
    let decision = world.decide();
    assert_eq!((decision.facts.queued, decision.facts.busy), (None, Some(10)));
    assert!(decision.text().contains("demand unknown"), "{}", decision.text());
    world.renew();
    world.broker().heartbeats.last.as_mut().unwrap().at = old;
    let facts = world.decide().facts;
    assert!(facts.queued.is_some());
    assert_eq!(facts.busy, None);
}

/// What a TaskQueue shows as reserved: fetched by living workers and not started.
#[test]
fn reserved_is_what_is_fetched_and_not_started() {
    let book = |world: &mut World| {
        world.decide();
        world.last.queues["b"]["q"].clone()
    };
    let mut world = World::new([pool("p")]);
    world.add("a", 2);
    world.set("q", 0, 5);
    world.answered("a", |answer| {
        running(answer, 0, 2);
        answer.reserved.insert("q".to_owned(), 3);
    });
    assert_eq!(
        book(&mut world).reserved,
        Some(3),
        "late: what runs is unacked too"
    );
    let old = world.now;
    world.now = world.now.after(seconds(8));
    world.renew();
    world.queue("q").unacked.last.as_mut().unwrap().at = old;
    assert_eq!(book(&mut world).reserved, None);

    let mut world = World::new([pool("p")]).rabbitmq(false);
    world.add("a", 2);
    world.answered("a", |answer| {
        running(answer, 0, 2);
        answer.reserved.insert("q".to_owned(), 3);
        answer.scheduled.insert("q".to_owned(), 4);
    });
    assert_eq!(
        book(&mut world).reserved,
        Some(7),
        "the workers' answers stand in"
    );
}

/// A message that a worker fetched after its queue was counted is in that count still.
#[test]
fn what_was_fetched_since_the_count_is_counted_with_the_next() {
    let mut world = World::new([pool("p")]).rabbitmq(false);
    world.pool().slots = 2;
    for name in ["a", "b"] {
        world.add(name, 0);
    }
    world.set("q", 6, 0);
    assert_eq!(world.decide().to, 3);
    let counted = world.now;
    world.now = world.now.after(seconds(1));
    world.renew();
    world.answered("a", |answer| {
        answer.reserved.insert("q".to_owned(), 2);
    });
    world.queue("q").ready.last.as_mut().unwrap().at = counted;
    assert_eq!(world.decide().to, 3, "{}", world.decision("p").text());
    world.set("q", 6, 0);
    assert_eq!(world.decide().to, 4, "{}", world.decision("p").text());
}
