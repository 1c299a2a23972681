//! Pods go only when everything is known, for a whole window, and only empty ones.

mod world;

use std::time::Duration;

use poolwright_api::Reason;
use poolwright_core::evidence::CLEARANCE_AGE;
use poolwright_core::sample::FaultKind;
use poolwright_core::snapshot::{Fallback, Hold};
use poolwright_core::time::Moment;
use world::{World, idle, left, pool, running, seconds, wall};

#[test]
fn all_goes_when_all_is_known() {
    let mut world = World::new([pool("p")]);
    for name in ["a", "b", "c"] {
        world.add(name, 0);
    }
    let mut decision = world.decide();
    while decision.to > 0 && world.now < Moment(700_000) {
        world.step();
        decision = world.decide();
    }
    assert_eq!((decision.to, decision.reason), (0, Reason::ScaledDown));
    assert_eq!(decision.parking.victims, ["a", "b", "c"]);
    assert_eq!(left(&decision), 3, "parked, and nothing is proven yet");
    let decision = world.settle(3);
    assert_eq!((decision.to, left(&decision)), (0, 0), "{}", decision.text());
}

#[test]
fn each_missing_source_holds() {
    let stale = |world: &mut World| {
        let at = world.now.before(seconds(10));
        world.queue("q").ready.last.as_mut().unwrap().at = at;
    };
    let unacked = |world: &mut World| {
        let at = world.now.before(seconds(10));
        world.queue("q").unacked.last.as_mut().unwrap().at = at;
    };
    let heartbeats = |world: &mut World| {
        let at = world.now.before(seconds(10));
        world.broker().heartbeats.last.as_mut().unwrap().at = at;
    };
    let other = |world: &mut World| {
        world.pool().queues = vec!["q".into(), "absent".into()];
        let (now, wall) = (world.now, wall(world.now));
        world
            .queue("absent")
            .ready
            .fail(FaultKind::QueueAbsent, "no queue", now, wall);
    };
    for change in [stale, unacked, heartbeats, other] {
        let world = idle(change);
        let decision = world.decision("p");
        assert_eq!(
            (decision.to, decision.reason),
            (3, Reason::HeldStale),
            "{}",
            decision.text()
        );
        assert!(!decision.facts.missing.is_empty() && decision.parking.victims.is_empty());
    }
}

/// A worker answers before it fetches for the first time: what it fetched then with an ETA is in no other number of `RabbitMQ`.
#[test]
fn the_last_goes_only_after_it_has_said_what_it_holds_for_later() {
    let idle = || {
        let mut world = World::new([pool("p")]).rabbitmq(false);
        for name in ["a", "b"] {
            world.add(name, 0);
            world.answered(name, |_| ());
        }
        for _ in 0..5 * 70 {
            world.now = world.now.after(Duration::from_millis(200));
            world.renew();
            world.decide();
        }
        world
    };
    let mut world = idle();
    let decision = world.decision("p");
    assert_eq!(decision.to, 1, "{}", decision.text());
    assert!(
        decision.text().contains("asked before others are parked"),
        "{}",
        decision.text()
    );
    assert_eq!(decision.parking.victims.len(), 1);
    let last = if decision.parking.victims == ["a"] {
        "b"
    } else {
        "a"
    };
    assert!(decision.ask.contains(&format!("celery@{last}")));
    world.answered(last, |answer| {
        answer.scheduled.insert("q".to_owned(), 6);
    });
    assert_eq!(world.decide().to, 1, "{}", world.decision("p").text());
    // One that holds nothing goes as soon as it has said so.
    let mut world = idle();
    world.answered(last, |_| ());
    assert_eq!(world.decide().to, 0, "{}", world.decision("p").text());
}

/// All may have been parked on answers from before they fetched: what they hold for later is seen then, and keeps one.
#[test]
fn one_comes_back_when_those_that_are_parked_hold_tasks_for_later() {
    for unacked_known in [false, true] {
        let mut world = World::new([pool("p")]).rabbitmq(unacked_known);
        for name in ["a", "b", "c"] {
            world.add(name, 0);
            world.answered(name, |_| ());
        }
        let mut passed = 0;
        while world.decide().to > 0 && passed < 700 {
            world.now = world.now.after(Duration::from_millis(200));
            world.renew();
            for name in ["a", "b", "c"] {
                world.answered(name, |_| ());
            }
            passed += 1;
        }
        let decision = world.decision("p");
        assert_eq!(decision.parking.victims.len(), 3, "{}", decision.text());
        world.mark(world.now);
        if unacked_known {
            world.set("q", 0, 12);
        }
        for name in ["a", "b", "c"] {
            world.answered(name, |answer| {
                answer.queues.clear();
                answer.scheduled.insert("q".to_owned(), 4);
            });
        }
        assert_eq!(world.decide().to, 1, "{}", world.decision("p").text());
    }
}

#[test]
fn a_gap_within_the_window_starts_it_anew() {
    let mut world = World::new([pool("p")]);
    world.add("a", 0);
    world.settle(55);
    world.now = world.now.after(seconds(4));
    world.decide();
    world.renew();
    assert_eq!(world.settle(58).to, 1);
    assert_eq!(world.settle(8).to, 0, "{}", world.decision("p").text());
}

#[test]
fn time_in_which_nobody_looked_is_a_gap() {
    let mut world = World::new([pool("p")]);
    world.add("a", 0);
    world.settle(30);
    world.now = world.now.after(seconds(40));
    world.renew();
    assert_eq!(world.decide().to, 1);
    assert_eq!(world.settle(58).to, 1, "{}", world.decision("p").text());
}

#[test]
fn zero_needs_three_fresh_zeros_of_every_source() {
    let mut world = World::new([pool("p")]);
    world.pool().scale_down_delay = Duration::ZERO;
    world.add("a", 0);
    world.answered("a", |_| ());
    for zeros in 1..=3 {
        world.now = world.now.after(Duration::from_millis(200));
        world.renew();
        // The same reading seen again is not another one.
        for _ in 0..5 {
            assert_eq!(world.decide().to == 0, zeros == 3, "{zeros}");
        }
    }
    let mut world = World::new([pool("p")]);
    world.pool().scale_down_delay = Duration::ZERO;
    world.add("a", 0);
    world.answered("a", |_| ());
    let beat = world.now;
    for _ in 0..20 {
        world.now = world.now.after(Duration::from_millis(200));
        world.renew();
        world.worker("a").last_seen = beat;
        assert_eq!(world.decide().to, 1, "one heartbeat is one look at the worker");
    }
}

/// Short tasks run between two heartbeats: a count that moves is the only trace they leave.
#[test]
fn a_count_that_moves_is_work() {
    let world = idle(|world| {
        if world.now.0.is_multiple_of(20_000) {
            world.worker("a").processed += 1;
        }
    });
    assert_eq!(world.decision("p").to, 1, "{}", world.decision("p").text());
}

#[test]
fn a_busy_pod_is_parked_last_and_goes_when_it_is_done() {
    let mut world = idle(|world| {
        world.worker("a").active = 1;
        world.worker("b").active = 3;
    });
    let decision = world.decision("p").clone();
    assert_eq!((decision.to, left(&decision)), (1, 2), "{}", decision.text());
    assert_eq!(decision.parking.victims, ["c", "a"]);
    world.worker("a").active = 0;
    assert_eq!(left(&world.settle(3)), 1);
}

#[test]
fn a_pod_that_says_it_holds_tasks_stays_though_it_idles() {
    let world = idle(|world| {
        let now = world.now;
        world.answered("a", |answer| {
            answer.reserved.insert("q".to_owned(), 2);
        });
        world.worker("a").last_seen = now;
        world.answered("b", |answer| running(answer, 0, 1));
    });
    let decision = world.decision("p");
    assert_eq!((decision.to, left(decision)), (0, 2), "{}", decision.text());
    assert_eq!(decision.parking.victims[0], "c");
}

#[test]
fn pods_go_only_after_they_have_answered() {
    let mut world = World::new([pool("p")]);
    for name in ["a", "b", "c"] {
        world.add(name, 0);
    }
    let mut decision = world.decide();
    for _ in 0..85 * 5 {
        world.now = world.now.after(Duration::from_millis(200));
        world.renew();
        decision = world.decide();
    }
    assert_eq!((decision.to, left(&decision)), (0, 3), "{}", decision.text());
    assert_eq!(decision.ask, ["celery@a", "celery@b", "celery@c"]);
    // What it said before it was told to stop is no proof, nor is one answer.
    for _ in 0..5 {
        world.now = world.now.after(Duration::from_millis(200));
        world.renew();
        world.answered("b", |_| ());
        decision = world.decide();
    }
    assert_eq!(left(&world.decide()), 2, "{:?}", decision.parking);
    for second in 1..=CLEARANCE_AGE.as_secs() + 1 {
        world.now = world.now.after(seconds(1));
        world.renew();
        assert_eq!(
            left(&world.decide()) == 2,
            second <= CLEARANCE_AGE.as_secs(),
            "an old answer is none"
        );
    }
}

/// Where only workers tell what they have fetched, an idle pod may be wanted for what a busy one has just fetched.
#[test]
fn pods_are_parked_only_after_the_busy_ones_have_said_what_they_hold() {
    let stand = |reserved: u64| {
        let mut world = World::new([pool("p")]).rabbitmq(false);
        world.pool().slots = 1;
        world.marks_at_once = false;
        world.add("a", 1);
        world.add("b", 0);
        world.settle(65);
        // As it is a moment before the busy one is asked anew.
        let (old, now) = (world.now.before(seconds(31)), world.now);
        world.answered("a", |answer| running(answer, 1, 0));
        world.worker("a").answer.as_mut().unwrap().at = old;
        world.answered("b", |_| ());
        world.worker("b").last_seen = now;
        let decision = world.decide();
        assert_eq!(
            (decision.to, &decision.ask[..]),
            (2, &["celery@a".to_owned()][..]),
            "{}",
            decision.text()
        );
        assert!(
            decision.text().contains("1 worker is asked"),
            "{}",
            decision.text()
        );
        world.answered("a", |answer| {
            running(answer, 1, 0);
            answer.reserved.insert("q".to_owned(), reserved);
        });
        world.decide().to
    };
    assert_eq!((stand(0), stand(1)), (1, 2));
}

#[test]
fn silent_and_unseen_workers_count_as_full() {
    let world = idle(|world| {
        let old = world
            .now
            .before(seconds(30))
            .max(world.pool().pods[0].running_since.unwrap());
        world.worker("a").last_seen = old;
        world.broker().workers.remove("celery@b");
    });
    let decision = world.decision("p");
    assert_eq!(
        (decision.to, &decision.parking.victims[..]),
        (2, &["c".to_owned()][..]),
        "{}",
        decision.text()
    );
    assert_eq!(
        (decision.facts.unseen.as_slice(), decision.reason),
        (&["b".to_owned()][..], Reason::HeldUnseen)
    );
    let mut world = world;
    world.pool().pods.retain(|pod| pod.name != "c");
    world.pool().revisions[0].replicas = 2;
    world.renew();
    let old = world.now.before(seconds(30));
    world.worker("a").last_seen = old;
    let decision = world.decide();
    assert_eq!(
        (decision.to, decision.reason),
        (2, Reason::HeldUnseen),
        "{}",
        decision.text()
    );
}

#[test]
fn a_worker_that_cannot_be_asked_goes_after_a_whole_idle_window() {
    let unreadable = |world: &mut World, since: Moment| {
        for name in ["a", "b", "c"] {
            let worker = world.worker(name);
            worker.unreadable = Some("pickle".to_owned());
            worker.unreadable_since = Some(since);
            worker.answer = None;
        }
        let now = world.now;
        world.worker("a").last_progress = now;
    };
    let world = idle(|world| unreadable(world, Moment(600_000)));
    let decision = world.decision("p");
    assert_eq!((decision.to, left(decision)), (0, 1), "{}", decision.text());
    assert_eq!(decision.parking.victims[..2], ["b", "c"]);
    assert_eq!(decision.facts.unreadable, Some((3, "pickle".to_owned())));
    // One answer that is missed is not enough, however long it idled before.
    let world = idle(|world| unreadable(world, world.now.before(seconds(59))));
    assert_eq!(left(world.decision("p")), 3);
}

#[test]
fn what_ran_before_the_container_started_anew_is_no_news() {
    let mut world = World::new([pool("p")]);
    world.add("a", 5);
    world.now = world.now.after(seconds(1));
    let now = world.now;
    world.pool().pods[0].running_since = Some(now);
    world.beat();
    assert_eq!(world.decide().facts.busy, Some(0));
}

#[test]
fn the_minimum_needs_no_broker_and_the_fallback_comes_after_its_time() {
    let mut first = pool("p");
    first.min = 2;
    first.fallback = Some(Fallback {
        replicas: 5,
        after: seconds(30),
    });
    let mut world = World::new([first]);
    world.brokers.clear();
    let decision = world.decide();
    assert_eq!(
        (decision.to, decision.reason),
        (2, Reason::HeldStale),
        "{}",
        decision.text()
    );
    world.pool().revisions[0].replicas = 2;
    world.now = world.now.after(seconds(30));
    let decision = world.decide();
    assert_eq!((decision.to, decision.reason), (5, Reason::Fallback));
    assert!(decision.text().contains("at least 5 pods"), "{}", decision.text());
    // Reached, it is still what keeps them.
    world.pool().revisions[0].replicas = 5;
    let decision = world.decide();
    assert_eq!((decision.to, decision.reason), (5, Reason::Fallback));
    assert!(decision.text().contains("at least 5 pods"), "{}", decision.text());
    world.pool().revisions[0].replicas = 7;
    let decision = world.decide();
    assert_eq!((decision.to, decision.reason), (7, Reason::HeldStale));
}

#[test]
fn a_manual_hold_passes_the_bounds_and_prefers_empty_pods() {
    let mut world = idle(|world| {
        world.worker("a").active = 1;
        world.queue("q").ready.last.as_mut().unwrap().value.count = 50;
    });
    let hold = |replicas| Some(Hold { replicas, by: None });
    world.pool().hold = hold(20);
    assert_eq!(
        (world.decide().to, world.decide().reason),
        (20, Reason::ManualHold)
    );
    world.pool().hold = hold(1);
    let decision = world.decide();
    assert_eq!(
        (decision.to, &decision.parking.victims[..]),
        (1, &["b".to_owned(), "c".to_owned()][..])
    );
}
