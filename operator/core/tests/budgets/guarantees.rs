//! What is kept for a queue, and what of it is lent.

use poolwright_api::Reason;
use poolwright_api::v1alpha1::{Guarantee, Pool, PoolSpec, PoolStatus};
use poolwright_core::grants::{Request, Sight, raise};

use crate::world::World;
use crate::{
    BACKGROUND, CRITICAL, NORMAL, POD, budget, charge, decide, decided, load, on_pool, replicas, with,
};

/// The fast lane: what is guaranteed is kept free however full the Pool is, and is there at once.
#[test]
fn a_guarantee_is_kept_for_its_queue() {
    let mut kept = budget(40);
    kept.guarantees.insert("a".to_owned(), 10);
    let mut world = with([on_pool("a", CRITICAL), on_pool("b", BACKGROUND)], kept);
    load(&mut world, "a", 0, 0);
    load(&mut world, "b", 0, 100);
    decide(&mut world);
    assert_eq!((replicas(&world, "a"), replicas(&world, "b")), (0, 3));
    load(&mut world, "b", 3, 70);
    load(&mut world, "a", 0, 1);
    decide(&mut world);
    assert_eq!(
        (replicas(&world, "a"), decided(&world, "a").reason),
        (1, Reason::ScaledUp)
    );
    assert!(decided(&world, "b").parking.marks.is_empty());
}

/// Of a guarantee of 16 in pods of 10 a second pod could never start.
#[test]
fn the_rest_of_a_guarantee_is_lent() {
    let mut kept = budget(40);
    kept.guarantees.insert("a".to_owned(), 16);
    let mut small = on_pool("b", NORMAL);
    small.bid.charge = charge("b", 3);
    small.revisions[0].charge = charge("b", 3);
    let mut world = with([on_pool("a", NORMAL), small], kept);
    load(&mut world, "a", 0, 0);
    world.set("b", 100, 0);
    decide(&mut world);
    let b = decided(&world, "b");
    assert_eq!((b.to, b.reason), (10, Reason::ScaledUp), "{}", b.text());
}

/// What is kept for a queue is no room for others, also while somebody has more than his share.
#[test]
fn a_guarantee_is_kept_while_others_have_too_much() {
    let mut kept = budget(40);
    kept.guarantees.insert("g".to_owned(), POD);
    let mut world = with(["b", "c", "g"].map(|name| on_pool(name, NORMAL)), kept);
    load(&mut world, "g", 0, 0);
    load(&mut world, "b", 0, 50);
    load(&mut world, "c", 3, 50);
    decide(&mut world);
    let b = decided(&world, "b");
    assert_eq!(
        (replicas(&world, "b"), b.reason),
        (0, Reason::WaitingForSlots),
        "{}",
        b.text()
    );
    load(&mut world, "g", 0, 1);
    decide(&mut world);
    assert_eq!(replicas(&world, "g"), 1);
}

/// A high load leaves less than all guarantees together: what nobody asks for keeps nobody from his own.
#[test]
fn guarantees_that_do_not_fit_together_keep_nobody_from_his_own() {
    let mut kept = budget(8 * POD);
    kept.effective = Some(4 * POD);
    kept.guarantees = [("a".to_owned(), 4 * POD), ("b".to_owned(), 4 * POD)].into();
    let mut world = with(["a", "b", "c"].map(|name| on_pool(name, NORMAL)), kept);
    load(&mut world, "a", 0, 60);
    load(&mut world, "b", 0, 0);
    load(&mut world, "c", 0, 60);
    decide(&mut world);
    let numbers = |world: &World| ["a", "b", "c"].map(|name| replicas(world, name));
    assert_eq!(numbers(&world), [4, 0, 0], "{}", decided(&world, "a").text());
    load(&mut world, "b", 0, 60);
    decide(&mut world);
    assert_eq!(numbers(&world), [2, 2, 0]);
}

/// Who comes first gets his own, and of two at once it is the higher tier.
#[test]
fn of_guarantees_that_do_not_fit_together_the_higher_tier_is_served_first() {
    let mut kept = budget(8 * POD);
    kept.effective = Some(4 * POD);
    kept.guarantees = [("a".to_owned(), 4 * POD), ("b".to_owned(), 4 * POD)].into();
    let mut world = with([on_pool("a", NORMAL), on_pool("b", CRITICAL)], kept);
    load(&mut world, "a", 0, 60);
    load(&mut world, "b", 0, 30);
    decide(&mut world);
    assert_eq!((replicas(&world, "a"), replicas(&world, "b")), (1, 3));
}

/// The Pool `p` as the granter reads it, with what pods take.
fn live(slots: i32, guarantee: (&str, i32)) -> Pool {
    let (queue, kept) = (guarantee.0.to_owned(), guarantee.1);
    let spec = PoolSpec {
        slots,
        guarantees: vec![Guarantee { queue, slots: kept }],
        ..PoolSpec::default()
    };
    let mut pool = Pool::new("p", spec);
    pool.metadata.uid = Some("uid-p".to_owned());
    pool.status = Some(PoolStatus {
        pool_uid: pool.metadata.uid.clone(),
        epoch: Some(1),
        ..PoolStatus::default()
    });
    pool
}

/// What pods of a WorkerPool take whose spec cannot be used any more, or which is gone, is of its guarantee: the granter
/// permits what the cycle gives.
#[test]
fn what_is_left_of_a_workerpool_uses_its_guarantee_in_the_eyes_of_both() {
    let mut kept = budget(60);
    kept.guarantees.insert("high".to_owned(), 20);
    let mut world = with([on_pool("high", CRITICAL), on_pool("low", NORMAL)], kept);
    load(&mut world, "high", 2, 0);
    load(&mut world, "low", 0, 40);
    world.pools.get_mut("high").unwrap().terminating = true;
    decide(&mut world);
    assert_eq!(replicas(&world, "low"), 4);
    let pool = live(60, ("high", 20));
    let used = [("uid-high".to_owned(), 20)].into();
    let snapshot = world.snapshot();
    let sight = Sight::new(&pool, None, used, snapshot.pools.iter().map(AsRef::as_ref));
    let request = Request {
        uid: "uid-low".to_owned(),
        worker_pool: "low".to_owned(),
        slots: 40,
    };
    assert_eq!(raise(&pool, &sight, &[request]).1, [Ok(())]);
}
