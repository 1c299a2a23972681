//! Rollouts within budgets: both revisions together take no more than there is.

use super::*;

/// A WorkerPool on the Pool `p` whose revision `r2` should take over from `r1`; it is to prove itself first, or has.
fn rolling(name: &str, proven: bool) -> PoolInput {
    let mut input = on_pool(name, NORMAL);
    input.revision = "r2".into();
    let mut newest = revision("r2", 0, proven);
    newest.charge = charge(name, POD);
    input.revisions.push(newest);
    input
}

/// The new revision proves itself in the place of an old pod, which is parked and awaited first.
#[test]
fn a_rollout_at_the_limit_takes_the_place_of_an_old_pod() {
    let mut world = with([rolling("a", false)], budget(30));
    load(&mut world, "a", 3, 50);
    decide(&mut world);
    let decision = decided(&world, "a");
    assert_eq!(decision.parking.replicas("r2"), Some(0));
    assert_eq!((replicas(&world, "a"), decision.parking.victims.len()), (3, 1));
    let gone = b_victim(decision);
    let input = world.pools.get_mut("a").unwrap();
    input.pods.retain(|pod| pod.name != gone);
    input.revisions[0].replicas = 2;
    decide(&mut world);
    let decision = decided(&world, "a");
    assert_eq!(
        (decision.parking.replicas("r2"), replicas(&world, "a")),
        (Some(1), 2)
    );
}

/// A revision that never works is given up: what its pod took goes back to the old one, and it is not tried again.
#[test]
fn a_wrong_revision_in_a_full_pool_gives_its_slots_back() {
    let mut input = rolling("a", false);
    input.revisions[1].replicas = 1;
    let mut world = with([input], budget(30));
    load(&mut world, "a", 2, 50);
    let (now, taken) = (world.now, charge("a", POD));
    let input = world.pools.get_mut("a").unwrap();
    let mut wrong = pod("a-9", "r2", now);
    wrong.charge = taken;
    input.pods.push(wrong);
    decide(&mut world);
    let of = |world: &World, name: &str| decided(world, "a").parking.replicas(name);
    assert_eq!(
        (of(&world, "r1"), of(&world, "r2")),
        (Some(2), Some(1)),
        "it is waited for"
    );
    world.pools.get_mut("a").unwrap().revisions[1].failed = true;
    decide(&mut world);
    assert_eq!(of(&world, "r1"), Some(2), "its pod takes slots until it is gone");
    let mark = &decided(&world, "a").parking.victims;
    assert_eq!(mark, &["a-9"]);
    wait(&mut world, 20);
    assert_eq!(of(&world, "r2"), Some(0));
    let input = world.pools.get_mut("a").unwrap();
    input.pods.retain(|pod| pod.name != "a-9");
    input.revisions[1].replicas = 0;
    wait(&mut world, 20);
    assert_eq!((of(&world, "r1"), of(&world, "r2")), (Some(3), Some(0)));
}

#[test]
fn a_rollout_with_room_takes_one_pod_more() {
    let mut world = with([rolling("a", false)], budget(40));
    load(&mut world, "a", 3, 0);
    decide(&mut world);
    let decision = decided(&world, "a");
    assert_eq!(
        (decision.parking.replicas("r2"), replicas(&world, "a")),
        (Some(1), 3)
    );
    assert!(decision.parking.victims.is_empty());
}

/// With one pod in a full Pool, the old one goes before the new one comes, proven or not.
#[test]
fn a_rollout_of_one_pod_at_the_limit_comes_to_its_end() {
    for proven in [false, true] {
        let mut input = rolling("a", proven);
        input.max = 1;
        let mut world = with([input], budget(POD));
        load(&mut world, "a", 1, 50);
        wait(&mut world, 1);
        finish(&mut world, "a", 20);
        assert!(world.pools["a"].pods.is_empty(), "{:?}", decided(&world, "a"));
        wait(&mut world, 1);
        assert_eq!(decided(&world, "a").parking.replicas("r2"), Some(1));
    }
}

#[test]
fn a_revision_that_fits_nowhere_takes_no_pod_of_the_old_one_proven_or_not() {
    for proven in [false, true] {
        let mut input = rolling("a", proven);
        input.bid.charge = charge("a", 50);
        input.revisions[1].charge = charge("a", 50);
        let mut world = with([input], budget(40));
        load(&mut world, "a", 4, 50);
        for _ in 0..10 {
            wait(&mut world, 5);
            let decision = decided(&world, "a");
            assert!(decision.parking.victims.is_empty(), "{decision:?}");
            assert_eq!(decision.reason, Reason::PodLargerThanPool);
        }
    }
}

/// Nor is room asked for that would not do: that would be refused again and again, and said in place of the mistake. The
/// old one grows into it, if it serves.
#[test]
fn a_revision_that_fits_nowhere_asks_for_no_room() {
    for (proven, grown) in [(false, 4), (true, 3)] {
        let mut input = rolling("a", proven);
        input.bid.charge = charge("a", 50);
        input.revisions[1].charge = charge("a", 50);
        let mut world = with([input], budget(40));
        load(&mut world, "a", 3, 50);
        wait(&mut world, 1);
        let decision = decided(&world, "a");
        let of = |name: &str| decision.parking.replicas(name);
        assert_eq!((of("r1"), of("r2")), (Some(grown), Some(0)), "{decision:?}");
        assert!(decision.parking.victims.is_empty(), "{decision:?}");
        assert_eq!(decision.reason, Reason::PodLargerThanPool);
    }
}

/// The pod that proves a new revision may pass the maximum by one, and no cap.
#[test]
fn a_rollout_at_a_cap_takes_the_place_of_an_old_pod() {
    let mut input = rolling("a", false);
    input.cap = Some(3);
    let mut world = with([input], Budget::default());
    load(&mut world, "a", 3, 50);
    decide(&mut world);
    let decision = decided(&world, "a");
    assert_eq!(decision.parking.replicas("r2"), Some(1));
    assert_eq!((replicas(&world, "a"), decision.parking.victims.len()), (3, 1));
}

/// A proven one grows as the old one's pods go, and by no more than there is room for.
#[test]
fn a_proven_revision_takes_over_pod_by_pod_at_the_limit() {
    let mut world = with([rolling("a", true)], budget(30));
    load(&mut world, "a", 3, 50);
    wait(&mut world, 20);
    let decision = decided(&world, "a");
    assert_eq!(decision.parking.replicas("r2"), Some(0));
    assert_eq!((replicas(&world, "a"), decision.parking.victims.len()), (3, 1));
}

/// The same within a cap: both revisions together never take more work.
#[test]
fn a_proven_revision_takes_over_within_a_cap() {
    let mut input = rolling("a", true);
    input.cap = Some(3);
    let mut world = with([input], Budget::default());
    load(&mut world, "a", 3, 50);
    wait(&mut world, 1);
    let decision = decided(&world, "a");
    let of = |name: &str| decision.allocation.target(name).unwrap();
    assert_eq!((of("r1"), of("r2")), (2, 1), "{decision:?}");
}

/// A change that fits nowhere leaves what works its share, also beside others who want it.
#[test]
fn who_cannot_roll_out_keeps_its_share() {
    let mut world = with([on_pool("a", NORMAL), on_pool("b", NORMAL)], budget(40));
    load(&mut world, "a", 2, 50);
    load(&mut world, "b", 2, 50);
    let input = world.pools.get_mut("a").unwrap();
    input.bid.charge = charge("a", 50);
    wait(&mut world, 40);
    let (a, b) = (decided(&world, "a"), decided(&world, "b"));
    assert_eq!(a.reason, Reason::PodLargerThanPool);
    assert!(a.parking.victims.is_empty(), "{:?}", a.parking);
    assert_eq!((a.to, b.to), (2, 2));
}

/// What a pod of the older revision takes is no measure for one of the newest, whose spec was made to fit.
#[test]
fn a_smaller_pod_rolls_out_where_the_older_one_does_not_fit_any_more() {
    for running in [false, true] {
        let mut input = rolling("a", false);
        input.bid.charge = charge("a", 6);
        input.revisions[0].charge = charge("a", 8);
        input.revisions[1].charge = charge("a", 6);
        let mut world = with([input], budget(6));
        load(&mut world, "a", 0, 30);
        if running {
            let now = world.now;
            let input = world.pools.get_mut("a").unwrap();
            input.revisions[0].replicas = 1;
            let mut pod = pod("a-0", "r1", now);
            pod.charge = charge("a", 8);
            input.pods.push(pod);
            let view = worker(0, 0, now, now);
            world.broker().workers.insert("celery@a-0".to_owned(), view);
            wait(&mut world, 2);
            finish(&mut world, "a", 30);
            assert!(world.pools["a"].pods.is_empty(), "{:?}", decided(&world, "a"));
        }
        wait(&mut world, 2);
        assert_eq!(decided(&world, "a").parking.replicas("r2"), Some(1), "{running}");
    }
}

/// A queue was moved from a full Pool to an empty one: nothing is waited for in the first.
#[test]
fn a_rollout_into_an_empty_pool_waits_for_no_slots_of_the_pool_that_it_leaves() {
    let mut input = rolling("a", false);
    let away = Charge {
        holder: "uid-a".to_owned(),
        slots: [("empty".to_owned(), POD)].into(),
    };
    input.bid.charge = Arc::new(away.clone());
    input.revisions[1].charge = Arc::new(away);
    let mut world = with([input, on_pool("b", NORMAL)], budget(20));
    let pools = &mut world.namespaces.get_mut("shop").unwrap().pools;
    pools.insert("empty".to_owned(), budget(20));
    load(&mut world, "b", 2, 50);
    world.set("a", 10, 0);
    wait(&mut world, 2);
    let decision = decided(&world, "a");
    assert_eq!(decision.parking.replicas("r2"), Some(1), "{decision:?}");
}

/// In new and smaller pods everything would fit, one pod more included; in the pods that there are nothing more does.
#[test]
fn a_rollout_to_smaller_pods_makes_room_in_a_pool_that_its_own_older_pods_fill() {
    let mut input = rolling("a", false);
    input.revisions[0].charge = charge("a", 4);
    let mut world = with([input], budget(8));
    world.pools.get_mut("a").unwrap().bid.charge = charge("a", 4);
    load(&mut world, "a", 2, 10);
    let input = world.pools.get_mut("a").unwrap();
    input.bid.charge = charge("a", 2);
    input.revisions[1].charge = charge("a", 2);
    wait(&mut world, 20);
    let decision = decided(&world, "a");
    assert_eq!(decision.parking.victims.len(), 1, "{decision:?}");
}
