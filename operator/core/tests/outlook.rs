//! What a task that is pushed now has to expect, as the status of its TaskQueue says it.

mod world;

use poolwright_core::outlook::{Outlook, settled};
use poolwright_core::sample::Running;
use poolwright_core::snapshot::Hold;
use world::{World, pool, seconds};

fn outlook(world: &World, queue: &str) -> Outlook {
    world.last.queues["b"][queue].outlook
}

/// A tenth of what is wanted may be missing.
#[track_caller]
fn waits(world: &World, queue: &str, wanted: f64) {
    let wait = outlook(world, queue).wait().expect("it is known");
    assert!((wait - wanted).abs() <= 0.1 * wanted + 0.01, "{queue}: {wait} s");
}

/// Ten slots of one pod that all work; tasks are taken to last five seconds.
fn busy() -> World {
    let mut one = pool("p");
    one.slots = 10;
    one.queues = vec!["q".into(), "r".into()];
    let mut world = World::new([one]);
    world.add("a", 10);
    world.set("q", 40, 10);
    world.set("r", 0, 0);
    world.answered("a", |answer| {
        answer.queues = ["q".to_owned(), "r".to_owned()].into();
        world::running(answer, 0, 10);
    });
    world.decide();
    world
}

#[test]
fn those_ahead_go_first_and_queues_take_turns() {
    let world = busy();
    waits(&world, "q", 41.0 * 5.0 / 10.0);
    // One of the other queue comes before it, and not all forty.
    waits(&world, "r", 2.0 * 5.0 / 10.0);
}

#[test]
fn an_idle_slot_takes_it_at_once() {
    let mut world = busy();
    world.set("q", 0, 5);
    world.worker("a").active = 5;
    world.decide();
    waits(&world, "q", 0.0);
    waits(&world, "r", 0.0);
}

#[test]
fn a_worker_pool_at_zero_needs_the_time_of_a_start() {
    let mut world = World::new([pool("p")]);
    world.decide();
    waits(&world, "q", 30.0);
    world.pool().hold = Some(Hold {
        replicas: 0,
        by: None,
    });
    world.decide();
    assert_eq!(outlook(&world, "q").wait(), None, "nobody would run it");
    assert!(outlook(&world, "q").nobody(1));
    assert!(!outlook(&world, "q").nobody(2), "of one more nothing is known");
}

#[test]
fn the_oldest_waits_since_it_came_where_one_worker_pool_has_one_queue() {
    let mut one = pool("p");
    one.hold = Some(Hold {
        replicas: 0,
        by: None,
    });
    let mut world = World::new([one]);
    world.decide();
    for _ in 0..20 {
        world.now = world.now.after(seconds(2));
        world.renew();
        world.set("q", 5, 0);
        world.decide();
    }
    let oldest = outlook(&world, "q").oldest.expect("it is known");
    assert!((seconds(38)..=seconds(42)).contains(&oldest), "{oldest:?}");
    assert_eq!(outlook(&busy(), "q").oldest, None, "its worker has two queues");
    world.fail_all();
    world.now = world.now.after(seconds(120));
    world.decide();
    assert_eq!(outlook(&world, "q").oldest, None, "nothing is read");
}

#[test]
fn worker_pools_on_one_queue_share_the_work() {
    let mut others = ["p", "s"].map(pool);
    for (pool, node) in others.iter_mut().zip(["a", "b"]) {
        pool.slots = 10;
        pool.pods.push(world::pod(node, "r1", world::World::new([]).now));
    }
    let mut world = World::new(others);
    world.set("q", 39, 20);
    for node in ["a", "b"] {
        let now = world.now;
        let worker = world::worker(10, 10, now.before(seconds(60)), now);
        world.broker().workers.insert(format!("celery@{node}"), worker);
        world.answered(node, |answer| world::running(answer, 0, 10));
    }
    world.decide();
    waits(&world, "q", 40.0 * 5.0 / 20.0);
}

/// Answers tell how long running tasks have been at it, by queue: tasks of `q` for a minute, those of `r` for a second.
fn told(idle_between: bool) -> World {
    let mut world = busy();
    for _ in 0..20 {
        for runs in [!idle_between, true] {
            world.now = world.now.after(seconds(30));
            world.renew();
            world.answered("a", |answer| {
                answer.running.clear();
                for (queue, ran) in [("q", 60), ("r", 1)].into_iter().filter(|_| runs) {
                    let running = Running {
                        unacknowledged: 5,
                        ran: seconds(5 * ran),
                        ..Running::default()
                    };
                    answer.running.insert(queue.to_owned(), running);
                }
            });
            world.decide();
        }
    }
    world.set("q", 10, 5);
    world.set("r", 10, 5);
    world.decide();
    world
}

#[test]
fn each_queue_counts_with_the_length_of_its_own_tasks() {
    let lengths = |world: &World| {
        let wait = |queue| outlook(world, queue).wait().expect("it is known");
        wait("q") / wait("r")
    };
    // One more of its own, at 60 s or at 1 s, beside ten of each.
    let apart = lengths(&told(false));
    assert!((1.08..1.11).contains(&apart), "{apart}");
    // What is told when a worker turns busy is of tasks that have just begun.
    let alike = lengths(&told(true));
    assert!((alike - 1.0).abs() < 1e-6, "{alike}");
}

#[test]
fn what_is_not_known_is_not_told() {
    let mut world = busy();
    world.now = world.now.after(seconds(120));
    world.fail_all();
    world.decide();
    assert_eq!(outlook(&world, "q").wait(), None);
    assert!(!outlook(&world, "q").nobody(1));

    let mut deaf = busy();
    deaf.broker().heartbeats.last = None;
    deaf.decide();
    assert_eq!(outlook(&deaf, "q").wait(), None, "who works is not known");
    assert!(!outlook(&deaf, "q").nobody(1));
}

#[test]
fn a_status_follows_what_has_changed_and_not_what_chance_does() {
    assert_eq!(settled(None, Some(40.4)), Some(40));
    for near in [31.0, 40.0, 49.0] {
        assert_eq!(settled(Some(40), Some(near)), Some(40));
    }
    assert_eq!(settled(Some(40), Some(51.0)), Some(51));
    assert_eq!(settled(Some(40), Some(29.0)), Some(29));
    // Nothing is not little, and little is not nothing.
    assert_eq!(settled(Some(1), Some(0.01)), Some(0));
    assert_eq!(settled(Some(0), Some(0.2)), Some(1));
    assert_eq!(settled(Some(1), Some(0.2)), Some(1));
    assert_eq!(settled(Some(0), Some(0.0)), Some(0));
    assert_eq!(settled(Some(40), None), None);
    assert_eq!(settled(None, Some(f64::MAX)), Some(i64::MAX));
}
