//! What parked workers are told over all WorkerPools of a broker, and for how long one that cannot be asked must show nothing.

// The lint knows test functions, not their helpers.
#![allow(clippy::unwrap_used)]

mod world;

use std::collections::BTreeSet;
use std::time::Duration;

use poolwright_core::snapshot::Mark;
use world::{World, left, pod, pool, seconds, set_mark, worker};

/// WorkerPools with so many victims each, on these queues.
fn victims(pools: &[(&str, usize, &[&str])]) -> World {
    let inputs = pools.iter().map(|(name, _, queues)| {
        let mut input = pool(name);
        input.queues = queues.iter().map(|queue| (*queue).into()).collect();
        input
    });
    let mut world = World::new(inputs);
    world.marks_at_once = false;
    let now = world.now;
    for (name, many, queues) in pools {
        for queue in *queues {
            world.set(queue, 0, 0);
        }
        for at in 0..*many {
            let own = format!("{name}-{at}");
            let mut pod = pod(&own, "r1", now);
            set_mark(&mut pod, Some(Mark::Empty), now);
            let input = world.pools.get_mut(*name).unwrap();
            input.pods.push(pod);
            input.revisions[0].replicas += 1;
            let view = worker(0, 0, now, now);
            world.broker().workers.insert(format!("celery@{own}"), view);
            world.answered(&own, |answer| {
                answer.queues = queues.iter().map(|queue| (*queue).to_owned()).collect();
            });
        }
    }
    world
}

/// What is told in so many looks: the queue and to how many, each time.
fn told(world: &mut World, looks: usize) -> Vec<(String, usize)> {
    let mut all = Vec::new();
    for _ in 0..looks {
        world.decide();
        assert!(world.last.calls.len() <= 1, "one broker");
        for call in world.last.calls.values() {
            assert!(!call.consume);
            let nodes: BTreeSet<&String> = call.nodes.iter().collect();
            assert_eq!(nodes.len(), call.nodes.len(), "nobody is named twice");
            all.push((call.queue.clone(), call.nodes.len()));
        }
        world.now = world.now.after(Duration::from_millis(200));
        world.renew();
    }
    all
}

#[test]
fn victims_on_one_queue_are_told_in_one_message_whatever_their_worker_pool() {
    let mut world = victims(&[("a", 2, &["x"]), ("b", 3, &["x"])]);
    assert_eq!(told(&mut world, 5), [("x".to_owned(), 5)]);
}

/// Celery's command names one queue: n victims on m queues are m messages, and never two in one look.
#[test]
fn as_many_messages_as_queues_and_one_a_look_however_many_victims_there_are() {
    let mut world = victims(&[("a", 2, &["x", "y"]), ("b", 3, &["y", "z"]), ("c", 1, &["z"])]);
    let first = [("x", 2), ("y", 5), ("z", 4)].map(|(queue, many)| (queue.to_owned(), many));
    assert_eq!(told(&mut world, 10), first, "and then they are waited for");
}

/// A message names 200 workers at most; the others of the queue have their turn before anybody is told again.
#[test]
fn more_victims_than_a_message_names_are_told_one_look_later() {
    let mut world = victims(&[("a", 150, &["x"]), ("b", 100, &["x"])]);
    let two = [("x".to_owned(), 200), ("x".to_owned(), 50)];
    assert_eq!(told(&mut world, 10), two);
}

/// Looks of 100 ms until a parked worker that cannot be asked goes, where a need must be gone for `delay` seconds: its last
/// task began `shown` ms after it was parked.
fn quiet_for(delay: u64, shown: u64) -> u64 {
    let mut world = World::new([pool("p")]);
    let input = world.pool();
    (input.min, input.max, input.scale_down_delay) = (1, 1, seconds(delay));
    world.marks_at_once = false;
    world.add("a", 0);
    world.add("b", 0);
    world.set("q", 0, 0);
    let start = world.now;
    set_mark(&mut world.pool().pods[0], Some(Mark::Empty), start);
    let view = world.worker("a");
    (view.unreadable, view.unreadable_since) = (Some("pickle".to_owned()), Some(start));
    for _ in 0..1000 {
        world.now = world.now.after(Duration::from_millis(100));
        world.renew();
        let (now, view) = (world.now, world.worker("a"));
        if now.since(start) == Duration::from_millis(shown) {
            view.processed += 1;
            view.last_progress = now;
        }
        if left(&world.decide()) == 1 {
            return u64::try_from(world.now.since(start).as_millis()).unwrap();
        }
    }
    u64::MAX
}

/// The whole window, ten seconds at least, since the mark or the last task, whichever is later: not a moment before.
#[test]
fn who_cannot_be_asked_is_empty_when_the_window_is_over_and_not_a_moment_before() {
    assert_eq!(quiet_for(0, 0), 10_000);
    assert_eq!(quiet_for(10, 0), 10_000);
    assert_eq!(quiet_for(11, 0), 11_000);
    assert_eq!(quiet_for(30, 0), 30_000);
    assert_eq!(quiet_for(0, 2_000), 12_000, "from its last task on");
    assert_eq!(quiet_for(30, 29_900), 59_900);
    assert_eq!(
        quiet_for(30, 30_000),
        60_000,
        "a task at the last moment starts it anew"
    );
}
