//! What WorkerPools on one queue are to one another: each its share, and what the pods of one hold is no other's.

mod world;

use poolwright_api::Reason;
use poolwright_api::v1alpha1::AckMode;
use poolwright_core::cycle::cycle;
use poolwright_core::snapshot::{Hold, PoolInput, Trouble};
use world::{World, key, pool, running, seconds, wall, worker};

/// Two WorkerPools share a backlog, and say so. One that cannot work leaves it to the other, and goes on trying.
#[test]
fn a_worker_pool_that_cannot_work_leaves_the_backlog_to_the_other() {
    let mut world = World::new([pool("p"), pool("s")]);
    world.set("q", 100, 0);
    for name in ["p", "s"] {
        let decision = &world.decide();
        assert_eq!(decision.to, 5, "{name}: {}", decision.text());
        assert!(
            decision.text().contains("(50 of 100 ready"),
            "{}",
            decision.text()
        );
    }
    let now = world.now;
    stick(&mut world, "s", 5);
    let after = |world: &mut World, time: u64| {
        world.now = now.after(seconds(time));
        world.renew();
        world.decide();
        (world.decision("p").to, world.decision("s").to)
    };
    assert_eq!(after(&mut world, 59), (5, 5), "it may come");
    assert_eq!(after(&mut world, 61).0, 10, "{}", world.decision("p").text());
    assert!(
        world.decision("s").text().contains("(1 of 100 ready"),
        "{}",
        world.decision("s").text()
    );
    // Pods that it makes while it tries say nothing yet.
    let now = world.now;
    let fresh = world::pod("s9", "r1", now);
    world.pools.get_mut("s").unwrap().pods.push(fresh);
    assert_eq!(after(&mut world, 61).0, 10, "{}", world.decision("p").text());
    // Nor does a worker that is heard until its first task ends it.
    world
        .broker()
        .workers
        .insert("celery@s9".to_owned(), worker(1, 1, now, now));
    assert_eq!(after(&mut world, 62).0, 10, "{}", world.decision("p").text());
    assert_eq!(after(&mut world, 100), (5, 5), "this one lasts");
    world.pools.get_mut("s").unwrap().pods.pop();
    // One that only takes long has no trouble.
    for one in &mut world.pools.get_mut("s").unwrap().pods {
        one.trouble = None;
    }
    assert_eq!(after(&mut world, 101), (5, 5));
    // Where no pod can be made, none is in trouble.
    let refused = world.pools.get_mut("s").unwrap();
    refused.pods.clear();
    refused.revisions[0].refused = Some(Trouble {
        reason: Reason::QuotaExceeded,
        message: "exceeded quota".to_owned(),
    });
    assert_eq!(after(&mut world, 102).0, 10);
}

/// Pods of a WorkerPool that cannot be used any more hold what they hold: it is nobody's to rescue, nor to do.
#[test]
fn what_pods_without_a_usable_worker_pool_hold_is_theirs() {
    for (left, heard) in [(true, true), (true, false), (false, true)] {
        let mut world = World::new([pool("p"), pool("gone")]);
        for one in world.pools.values_mut() {
            one.ack_mode = AckMode::Late;
        }
        world.pools.get_mut("gone").unwrap().terminating = true;
        let now = world.now;
        let theirs: Vec<_> = (0..10).map(|number| format!("n{number}")).collect();
        for name in &theirs {
            let gone = world.pools.get_mut("gone").unwrap();
            gone.pods.push(world::pod(name, "r1", now));
            gone.pods.last_mut().unwrap().draining = !heard;
            let mut view = worker(10, 10, now, now);
            view.offline = !heard;
            world.broker().workers.insert(format!("celery@{name}"), view);
            world.answered(name, |answer| running(answer, 0, 10));
        }
        world
            .pools
            .get_mut("p")
            .unwrap()
            .pods
            .push(world::pod("mine", "r1", now));
        world.pools.get_mut("p").unwrap().revisions[0].replicas = 1;
        world
            .broker()
            .workers
            .insert("celery@mine".to_owned(), worker(0, 0, now, now));
        world.answered("mine", |_| ());
        world.now = now.after(seconds(5));
        world.renew();
        let fetched = wall(world.now).as_second() - 2;
        world.set_fetched("q", 0, &[(fetched, 100)]);
        let mut snapshot = world.snapshot();
        if !left {
            // As after a start: what it was is not known.
            snapshot.pools.retain(|one| one.key.name == "p");
        }
        let result = cycle(&snapshot, &mut world.memory);
        let (decision, book) = (&result.decisions[&key("p")], &result.queues["b"]["q"]);
        assert_eq!(decision.to, 1, "{left} {heard}: {}", decision.text());
        assert_eq!((book.orphaned, book.foreign_consumers), (0, 0), "{left} {heard}");
    }
}

/// What befalls a world.
type Change = fn(&mut World);

/// A message that a killed worker left waits for a worker that sweeps: the WorkerPool that starts one, or keeps one, is one
/// that can.
#[test]
fn leftovers_are_given_to_a_worker_pool_that_can_rescue_them() {
    let unable: [(&str, Change); 6] = [
        ("stuck", |world| stick(world, "a", 1)),
        ("paused", |world| {
            world.pools.get_mut("a").unwrap().pause.scale_out = true;
        }),
        ("told", |world| world.pools.get_mut("a").unwrap().recommend = true),
        ("without a pod", |world| world.pools.get_mut("a").unwrap().max = 0),
        ("held", |world| {
            world.pools.get_mut("a").unwrap().hold = Some(Hold {
                replicas: 0,
                by: None,
            });
        }),
        ("terminating", |world| {
            world.pools.get_mut("a").unwrap().terminating = true;
        }),
    ];
    for (what, change) in unable {
        let mut world = World::new([pool("a"), pool("b")]);
        change(&mut world);
        world.now = world.now.after(seconds(61));
        world.renew();
        let fetched = wall(world.now).as_second() - 2;
        world.set_fetched("q", 0, &[(fetched, 1)]);
        world.decide();
        assert_eq!(world.last.queues["b"]["q"].orphaned, 1, "{what}");
        let (to, orphaned) = (world.decision("b").to, world.decision("b").facts.orphaned);
        assert_eq!((to, orphaned), (1, 1), "{what}: {}", world.decision("b").text());
        assert_eq!(world.decision("a").facts.orphaned, 0, "{what}");
    }
}

/// What is paused or only told keeps the worker that it has, and that sweeps. Where nobody is able it is still somebody's.
#[test]
fn leftovers_are_given_to_a_worker_that_runs() {
    for (pods, rescuer) in [(1, "b"), (0, "a")] {
        let mut world = World::new([pool("a"), pool("b")]);
        for one in world.pools.values_mut() {
            one.recommend = true;
        }
        let now = world.now;
        let b = world.pools.get_mut("b").unwrap();
        b.revisions[0].replicas = pods;
        b.pods.extend((0..pods).map(|_| world::pod("b0", "r1", now)));
        world.now = now.after(seconds(5));
        world.renew();
        let fetched = wall(world.now).as_second() - 65;
        world.set_fetched("q", 0, &[(fetched, 1)]);
        world.decide();
        assert_eq!(world.decision(rescuer).facts.orphaned, 1, "{pods}");
    }
}

/// One that may not grow, and has one pod of ten, does not keep the others from what it cannot do.
#[test]
fn a_worker_pool_that_may_not_grow_leaves_the_backlog_to_the_other() {
    let kept: [fn(&mut PoolInput); 2] = [|pool| pool.pause.scale_out = true, |pool| pool.recommend = true];
    for keep in kept {
        for (pods, to) in [(0, 10), (1, 10)] {
            let mut world = World::new([pool("p"), pool("s")]);
            world.set("q", 100, 0);
            let s = world.pools.get_mut("s").unwrap();
            keep(s);
            s.revisions[0].replicas = pods;
            world.settle(1);
            let (p, s) = (world.decision("p"), world.decision("s"));
            assert_eq!((p.to, s.to), (to, pods), "{}", p.text());
            // What it would do, it says as ever.
            assert!(s.text().contains("(50 of 100 ready"), "{}", s.text());
        }
    }
}

/// Gives a WorkerPool pods that cannot start, and have not for a minute when that has passed.
#[allow(clippy::unwrap_used)]
fn stick(world: &mut World, name: &str, pods: u32) {
    let now = world.now;
    let stuck = world.pools.get_mut(name).unwrap();
    stuck.revisions[0].replicas = pods;
    for number in 0..pods {
        let mut one = world::pod(&format!("{name}{number}"), "r1", now);
        (one.running_since, one.ready) = (None, false);
        one.trouble = Some(Trouble {
            reason: Reason::ImageNotPulled,
            message: "not found".to_owned(),
        });
        stuck.pods.push(one);
    }
}
