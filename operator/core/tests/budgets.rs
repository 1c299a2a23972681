//! What Pools leave to WorkerPools: how a decision is cut, and what happens while others still have the slots.

// The lint knows test functions, not their helpers.
#![allow(clippy::unwrap_used)]

#[path = "budgets/guarantees.rs"]
mod guarantees;
#[path = "budgets/rollouts.rs"]
mod rollouts;
#[path = "budgets/spare.rs"]
mod spare;
#[path = "budgets/turns.rs"]
mod turns;
mod world;

use std::sync::Arc;
use std::time::Duration;

use poolwright_api::Reason;
use poolwright_api::v1alpha1::{ConfigMapKeyRef, LoadSource};
use poolwright_core::charge::Charge;
use poolwright_core::decision::Decision;
use poolwright_core::shedding::LoadKey;
use poolwright_core::snapshot::{BidQueue, Budget, Hold, Namespace, PodInput, PoolInput, Shedding};
use world::{World, pod, pool, revision, worker};

const CRITICAL: u32 = 100;
const NORMAL: u32 = 50;
const BACKGROUND: u32 = 1;

/// Slots of one pod of the WorkerPools here; each task takes one.
const POD: u64 = 10;

fn charge(name: &str, slots: u64) -> Arc<Charge> {
    Arc::new(Charge {
        holder: format!("uid-{name}"),
        slots: [("p".to_owned(), slots)].into(),
    })
}

/// A WorkerPool on a queue of its own name, charged to the Pool `p`.
fn on_pool(name: &str, tier: u32) -> PoolInput {
    let mut input = pool(name);
    input.queues = vec![name.into()];
    input.bid.charge = charge(name, POD);
    input.bid.queues = vec![BidQueue {
        object: name.into(),
        queue: name.into(),
        tier,
    }];
    input.revisions[0].charge = charge(name, POD);
    input
}

fn budget(slots: u64) -> Budget {
    Budget {
        slots: Some(slots),
        effective: Some(slots),
        ..Budget::default()
    }
}

fn with(pools: impl IntoIterator<Item = PoolInput>, budget: Budget) -> World {
    let mut world = World::new(pools);
    let pools = [("p".to_owned(), budget)].into();
    let namespace = Namespace {
        pools,
        ..Namespace::default()
    };
    world.namespaces.insert("shop".to_owned(), namespace);
    world
}

/// Gives a WorkerPool so many pods that work on a task in each slot, and lets so many more tasks wait.
fn load(world: &mut World, name: &str, pods: u32, waiting: u64) {
    let now = world.now;
    for at in 0..pods {
        let pod_name = format!("{name}-{at}");
        let input = world.pools.get_mut(name).unwrap();
        let mut pod = pod(&pod_name, "r1", now);
        pod.charge = Arc::clone(&input.bid.charge);
        input.pods.push(pod);
        input.revisions[0].replicas += 1;
        let view = worker(POD, POD, now, now);
        world.broker().workers.insert(format!("celery@{pod_name}"), view);
    }
    world.set(name, waiting, u64::from(pods) * POD);
}

fn decided<'a>(world: &'a World, name: &str) -> &'a Decision {
    &world.last.decisions[&world::key(name)]
}

fn replicas(world: &World, name: &str) -> u32 {
    decided(world, name).parking.replicas("r1").unwrap()
}

/// A second reading of the same.
fn decide(world: &mut World) {
    for _ in 0..2 {
        world.now = world.now.after(Duration::from_millis(300));
        world.renew();
        world.answer_all();
        world.decide();
    }
}

/// So many seconds more of the same.
fn wait(world: &mut World, long: u64) {
    for _ in 0..long * 2 {
        world.now = world.now.after(Duration::from_millis(500));
        world.renew();
        world.answer_all();
        world.decide();
    }
}

#[test]
fn a_pool_caps_the_number_and_says_what_is_missing() {
    let mut world = with([on_pool("a", NORMAL)], budget(35));
    load(&mut world, "a", 0, 100);
    decide(&mut world);
    let decision = decided(&world, "a");
    assert_eq!((decision.to, decision.reason), (3, Reason::PoolLimited));
    let words = "Pool \"p\" gives 3 of 10 pods: 70 slots are missing";
    assert!(decision.text().contains(words), "{}", decision.text());
    assert_eq!(decision.limits.last().unwrap().name, "pool");
}

#[test]
fn a_pool_without_a_limit_changes_nothing() {
    let mut world = with([on_pool("a", NORMAL)], Budget::default());
    load(&mut world, "a", 0, 100);
    decide(&mut world);
    assert_eq!(
        (decided(&world, "a").to, decided(&world, "a").budget.clone()),
        (10, None)
    );
}

#[test]
fn a_pod_larger_than_its_pool_names_the_concurrency_that_fits() {
    let mut world = with([on_pool("a", NORMAL)], budget(7));
    load(&mut world, "a", 0, 100);
    decide(&mut world);
    let decision = decided(&world, "a");
    assert_eq!((decision.to, decision.reason), (0, Reason::PodLargerThanPool));
    assert!(
        decision.text().contains("the largest concurrency that fits is 7"),
        "{}",
        decision.text()
    );
}

/// A lower concurrency does not help where one task alone takes more than there is.
#[test]
fn a_task_larger_than_its_pool_is_not_told_to_lower_the_concurrency() {
    let mut input = on_pool("a", NORMAL);
    input.slots = 1;
    let mut world = with([input], budget(7));
    load(&mut world, "a", 0, 100);
    decide(&mut world);
    let words = "one pod takes 10: raise spec.slots there, or lower spec.pool.slotsPerTask of its queues";
    assert!(
        decided(&world, "a").text().contains(words),
        "{}",
        decided(&world, "a").text()
    );
}

#[test]
fn while_a_pool_is_not_there_nothing_is_started_and_nothing_stopped() {
    let mut world = with([on_pool("a", NORMAL)], budget(100));
    world.namespaces.clear();
    load(&mut world, "a", 2, 50);
    decide(&mut world);
    let decision = decided(&world, "a");
    assert_eq!((decision.to, decision.reason), (2, Reason::PoolMissing));
    assert!(decision.parking.marks.is_empty());
}

/// What such a Pool has is not known: one that others wait for loses nothing to them, and whoever draws on another goes on.
#[test]
fn while_a_pool_cannot_be_read_nothing_is_started_from_it_and_nothing_stopped_for_it() {
    let mut other = on_pool("c", NORMAL);
    let charged = Charge {
        holder: "uid-c".to_owned(),
        slots: [("other".to_owned(), POD)].into(),
    };
    other.bid.charge = Arc::new(charged);
    other.revisions[0].charge = Arc::clone(&other.bid.charge);
    let mut world = with(
        [on_pool("a", BACKGROUND), on_pool("b", CRITICAL), other],
        budget(20),
    );
    let namespace = world.namespaces.get_mut("shop").unwrap();
    namespace.pools.insert("other".to_owned(), budget(100));
    load(&mut world, "a", 2, 50);
    load(&mut world, "b", 0, 50);
    load(&mut world, "c", 1, 50);
    // Were it read, the higher tier would have the slots of the lower one in seconds.
    let namespace = world.namespaces.get_mut("shop").unwrap();
    namespace.pools.remove("p");
    let why = "integer `3000000000`, expected i32".to_owned();
    namespace.unreadable.insert("p".to_owned(), why);
    wait(&mut world, 40);
    for (name, pods) in [("a", 2), ("b", 0)] {
        let decision = decided(&world, name);
        assert_eq!(
            (decision.to, decision.reason),
            (pods, Reason::PoolMissing),
            "{name}"
        );
        assert!(decision.parking.marks.is_empty(), "{name}");
        let text = decision.text();
        assert!(
            text.contains("Pool \"p\" cannot be read") && text.contains("3000000000"),
            "{text}"
        );
        assert!(!text.contains("does not exist"), "{text}");
    }
    assert!(decided(&world, "c").to > 1, "{}", decided(&world, "c").text());
}

fn b_victim(decision: &Decision) -> String {
    decision.parking.victims[0].clone()
}

/// What a pod on its way out takes, nobody else gets.
#[test]
fn a_draining_pod_keeps_its_slots() {
    let mut world = with([on_pool("a", NORMAL), on_pool("b", NORMAL)], budget(20));
    load(&mut world, "b", 1, 0);
    load(&mut world, "a", 1, 50);
    let input = world.pools.get_mut("b").unwrap();
    input.pods[0].draining = true;
    input.revisions[0].replicas = 0;
    decide(&mut world);
    assert_eq!(
        (replicas(&world, "a"), decided(&world, "a").reason),
        (1, Reason::WaitingForSlots)
    );
    world.pools.get_mut("b").unwrap().pods.clear();
    world.set("b", 0, 0);
    decide(&mut world);
    assert_eq!(replicas(&world, "a"), 2);
}

#[test]
fn a_grant_that_is_not_released_yet_is_nobodys() {
    let mut world = with([on_pool("a", NORMAL)], budget(40));
    load(&mut world, "a", 0, 100);
    let granted = &mut world
        .namespaces
        .get_mut("shop")
        .unwrap()
        .pools
        .get_mut("p")
        .unwrap()
        .granted;
    granted.insert("uid-gone".to_owned(), 20);
    decide(&mut world);
    assert_eq!(
        (replicas(&world, "a"), decided(&world, "a").reason),
        (2, Reason::WaitingForSlots)
    );
}

#[test]
fn a_manual_hold_passes_the_maximum_and_never_a_budget() {
    let mut input = on_pool("a", NORMAL);
    input.hold = Some(Hold {
        replicas: 12,
        by: None,
    });
    let mut world = with([input], budget(110));
    load(&mut world, "a", 0, 0);
    decide(&mut world);
    assert_eq!(
        (replicas(&world, "a"), decided(&world, "a").reason),
        (11, Reason::PoolLimited)
    );
}

#[test]
fn tasks_at_a_time_are_capped_in_whole_pods() {
    let mut input = on_pool("a", NORMAL);
    input.cap = Some(2);
    let mut world = with([input], Budget::default());
    load(&mut world, "a", 0, 100);
    decide(&mut world);
    let decision = decided(&world, "a");
    assert_eq!((decision.to, decision.reason), (2, Reason::AtMaximum));
    assert!(
        decision.text().contains("capped at 2 pods by maxActiveTasks"),
        "{}",
        decision.text()
    );
}

/// A cap is reached as pods empty, as a lowered maximum is; no hold passes it.
#[test]
fn a_cap_below_what_runs_is_reached_and_holds_against_a_hold() {
    let mut world = with([on_pool("a", NORMAL)], Budget::default());
    load(&mut world, "a", 4, 50);
    wait(&mut world, 70);
    assert_eq!(decided(&world, "a").to, 9);
    world.pools.get_mut("a").unwrap().cap = Some(2);
    wait(&mut world, 70);
    let decision = decided(&world, "a");
    assert_eq!(
        (decision.to, decision.parking.victims.len()),
        (2, 2),
        "{}",
        decision.text()
    );
    let by = None;
    world.pools.get_mut("a").unwrap().hold = Some(Hold { replicas: 9, by });
    decide(&mut world);
    assert_eq!(decided(&world, "a").to, 2);
}

/// A draining worker sends no heartbeat, so silence alone says nothing: it must be overdue, and others would be heard.
#[test]
fn a_pod_that_is_lost_with_its_node_gives_its_slots_back() {
    let world = |overdue: i64, audible: bool| {
        let mut world = with([on_pool("a", NORMAL)], budget(20));
        load(&mut world, "a", 1, 50);
        let name = "celery@a-0".to_owned();
        world.broker().workers.remove(&name);
        if !audible {
            world.broker().heartbeats.last = None;
        }
        let due = world::wall(world.now).as_second() - overdue;
        let input = world.pools.get_mut("a").unwrap();
        input.revisions[0].replicas = 0;
        input.pods[0].draining = true;
        input.pods[0].due = jiff::Timestamp::from_second(due).ok();
        world.decide();
        let decision = decided(&world, "a").clone();
        (decision.facts.lost.clone(), replicas(&world, "a"))
    };
    assert_eq!(world(59, true), (vec![], 1));
    assert_eq!(world(60, true), (vec!["a-0".to_owned()], 2));
    assert_eq!(world(60, false), (vec![], 1));
}

/// Above the limit of the load half the slots are granted; what is not known changes nothing, also after a start.
#[test]
fn a_high_load_halves_a_pool() {
    let source = LoadSource {
        config_map_key_ref: Some(ConfigMapKeyRef {
            name: "load".to_owned(),
            key: "percent".to_owned(),
        }),
        ..LoadSource::default()
    };
    let key = LoadKey {
        namespace: "shop".to_owned(),
        source,
    };
    let shedding = |was| Shedding {
        high_percent: 80,
        load: key.clone(),
        was,
    };
    let to = |was: bool, load: Option<f64>| {
        let budget = Budget {
            shedding: Some(shedding(was)),
            ..budget(40)
        };
        let mut world = with([on_pool("a", NORMAL)], budget);
        load_of(&mut world, &key, load);
        load_of(&mut world, &key, None);
        crate::load(&mut world, "a", 0, 100);
        decide(&mut world);
        let figures = &world.last.figures[&("shop".to_owned(), "p".to_owned())];
        assert_eq!(figures.effective, Some(u64::from(decided(&world, "a").to) * POD));
        decided(&world, "a").to
    };
    assert_eq!((to(false, Some(80.0)), to(false, Some(81.0))), (4, 2));
    assert_eq!((to(false, None), to(true, None)), (4, 2));
    assert_eq!(to(true, Some(10.0)), 4);
}

/// Without a limit there is nothing to halve, and that is said.
#[test]
fn a_high_load_takes_nothing_from_a_pool_without_a_limit_and_says_so() {
    let key = LoadKey {
        namespace: "shop".to_owned(),
        source: LoadSource::default(),
    };
    let shedding = Some(Shedding {
        high_percent: 80,
        load: key.clone(),
        was: false,
    });
    let budget = Budget {
        shedding,
        ..Budget::default()
    };
    let mut world = with([on_pool("a", NORMAL)], budget);
    load_of(&mut world, &key, Some(99.0));
    load(&mut world, "a", 0, 100);
    decide(&mut world);
    let figures = &world.last.figures[&("shop".to_owned(), "p".to_owned())];
    assert_eq!((decided(&world, "a").to, figures.effective), (10, None));
    let words = "the load is above 80 %, and of spec.slots -1 there is nothing to halve";
    assert_eq!(figures.load.as_deref(), Some(words));
}

/// Of one that is left out nobody knows what it runs, so the sum is not known: missing is not zero.
#[test]
fn what_a_pool_runs_is_not_told_while_a_worker_pool_was_not_read_yet() {
    let mut world = with([on_pool("a", NORMAL)], Budget::default());
    load(&mut world, "a", 2, 3);
    let sums = |world: &mut World| {
        decide(world);
        let figures = &world.last.figures[&("shop".to_owned(), "p".to_owned())];
        (figures.running, figures.queued)
    };
    let (running, queued) = sums(&mut world);
    assert!(running.is_some() && queued > Some(0));
    world.unread = ["shop".to_owned()].into();
    assert_eq!(sums(&mut world), (None, None));
    world.unread = ["elsewhere".to_owned()].into();
    assert_eq!(sums(&mut world), (running, queued));
}

fn load_of(world: &mut World, key: &LoadKey, percent: Option<f64>) {
    let now = world.now;
    let load = world.loads.entry(key.clone()).or_default();
    if let Some(percent) = percent {
        load.succeed(percent, now);
    }
}

/// Lets the pods of a WorkerPool finish what they hold, and Kubernetes end those that the number does not cover.
fn finish(world: &mut World, name: &str, seconds: u64) {
    let queue = name.to_owned();
    for _ in 0..seconds * 2 {
        for at in 0..9 {
            let node = format!("celery@{name}-{at}");
            if let Some(view) = world.broker().workers.get_mut(&node) {
                view.active = 0;
            }
        }
        let waiting = world
            .queue(&queue)
            .ready
            .last
            .as_ref()
            .map_or(0, |last| last.value.count);
        world.set(&queue, waiting, 0);
        wait_half(world);
        let decision = decided(world, name).clone();
        let input = world.pools.get_mut(name).unwrap();
        for revision in &mut input.revisions {
            let Some(to) = decision.parking.replicas(&revision.name) else {
                continue;
            };
            let own = |pod: &PodInput| pod.revision == revision.name;
            let mut surplus = input.pods.iter().filter(|pod| own(pod)).count();
            while surplus > to as usize {
                let parked = input.pods.iter().position(|pod| own(pod) && pod.mark.is_some());
                input.pods.remove(parked.expect("only parked pods go"));
                surplus -= 1;
            }
            revision.replicas = revision.replicas.min(to);
            revision.made = revision.replicas;
        }
    }
}

fn wait_half(world: &mut World) {
    world.now = world.now.after(Duration::from_millis(500));
    world.renew();
    world.answer_all();
    world.decide();
}

/// What a namesake left behind is on its own account, and counts once.
#[test]
fn a_successor_gets_what_is_left() {
    let mut world = with([on_pool("a", NORMAL)], budget(100));
    load(&mut world, "a", 5, 0);
    let old = charge("old", POD);
    let input = world.pools.get_mut("a").unwrap();
    for pod in &mut input.pods {
        (pod.draining, pod.charge) = (true, Arc::clone(&old));
    }
    (input.revisions[0].replicas, input.revisions[0].made) = (0, 0);
    let used = &mut world
        .namespaces
        .get_mut("shop")
        .unwrap()
        .pools
        .get_mut("p")
        .unwrap()
        .used;
    used.insert("uid-old".to_owned(), 50);
    world.set("a", 100, 0);
    decide(&mut world);
    assert_eq!(replicas(&world, "a"), 5);
}

#[test]
fn who_cannot_start_for_want_of_a_pool_keeps_no_slots_of_another() {
    let mut input = on_pool("a", CRITICAL);
    let mut two = (*input.bid.charge).clone();
    two.slots.insert("ghost".to_owned(), POD);
    input.bid.charge = Arc::new(two);
    let mut world = with([input, on_pool("b", NORMAL)], budget(40));
    load(&mut world, "a", 0, 100);
    load(&mut world, "b", 0, 100);
    decide(&mut world);
    assert_eq!((replicas(&world, "a"), replicas(&world, "b")), (0, 4));
}
