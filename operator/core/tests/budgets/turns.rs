//! Who has more than its share gives it back, and to whom.

use poolwright_core::cause::cut;
use poolwright_core::weight::Weights;

use super::*;

/// Equal weights: two pods each of four, and the one that has three gives one up after a while.
#[test]
fn equals_share_and_take_back_after_a_while() {
    let mut world = with([on_pool("a", NORMAL), on_pool("b", NORMAL)], budget(40));
    load(&mut world, "b", 3, 50);
    load(&mut world, "a", 0, 50);
    decide(&mut world);
    assert_eq!(
        (replicas(&world, "a"), decided(&world, "a").reason),
        (1, Reason::WaitingForSlots)
    );
    assert_eq!(
        (decided(&world, "b").to, decided(&world, "b").parking.marks.len()),
        (3, 0)
    );
    // Of five and eight pods that are wanted they have one and three.
    let figures = &world.last.figures[&("shop".to_owned(), "p".to_owned())];
    assert_eq!(figures.waiters, [("a".to_owned(), 40), ("b".to_owned(), 50)]);
    wait(&mut world, 25);
    let b = decided(&world, "b");
    assert_eq!(b.to, 3, "not yet");
    // The condition is made of the cause alone, and says the same.
    let (reason, words) = cut(b.budget.as_ref().unwrap());
    assert_eq!(reason, Reason::PoolLimited);
    assert_eq!(words, "Pool \"p\" gives 2 of 8 pods: 60 slots are missing");
    assert!(b.text().contains(&words), "{}", b.text());
    wait(&mut world, 10);
    let b = decided(&world, "b");
    assert_eq!((b.to, b.reason), (2, Reason::PoolLimited));
    assert_eq!(b.parking.victims.len(), 1);
    assert_eq!(replicas(&world, "b"), 3, "it is busy");
}

#[test]
fn a_higher_tier_takes_back_at_once_and_waits_until_pods_are_gone() {
    let mut world = with([on_pool("a", CRITICAL), on_pool("b", NORMAL)], budget(30));
    load(&mut world, "b", 3, 50);
    load(&mut world, "a", 0, 15);
    decide(&mut world);
    assert_eq!(decided(&world, "b").to, 3, "what comes and goes parks nobody");
    wait(&mut world, 3);
    let (a, b) = (decided(&world, "a"), decided(&world, "b"));
    assert_eq!((a.to, a.reason), (0, Reason::WaitingForSlots));
    assert_eq!((b.to, b.parking.victims.len(), replicas(&world, "b")), (1, 2, 3));
    // One has gone: its slots are free.
    let input = world.pools.get_mut("b").unwrap();
    input
        .pods
        .retain(|pod| pod.name != b_victim(&world.last.decisions[&world::key("b")]));
    input.revisions[0].replicas = 2;
    decide(&mut world);
    assert_eq!(replicas(&world, "a"), 1);
}

#[test]
fn a_budget_below_what_is_taken_parks_and_stops_nobody() {
    let mut world = with([on_pool("a", NORMAL)], budget(40));
    load(&mut world, "a", 4, 50);
    decide(&mut world);
    assert_eq!(decided(&world, "a").to, 4);
    let cut = world
        .namespaces
        .get_mut("shop")
        .unwrap()
        .pools
        .get_mut("p")
        .unwrap();
    (cut.slots, cut.effective) = (Some(20), Some(20));
    wait(&mut world, 3);
    let decision = decided(&world, "a");
    assert_eq!((decision.to, decision.parking.victims.len()), (2, 2));
    assert_eq!(replicas(&world, "a"), 4, "they work");
}

/// No pod is parked for another's sake without fresh data of its own queue, nor where somebody has paused scale-in.
#[test]
fn what_is_not_known_or_paused_is_not_taken_back() {
    type Change = fn(&mut World);
    let changes: [Change; 2] = [
        |world| world.queue("b").ready.last = None,
        |world| world.pools.get_mut("b").unwrap().pause.scale_in = true,
    ];
    for change in changes {
        let mut world = with([on_pool("a", CRITICAL), on_pool("b", NORMAL)], budget(30));
        load(&mut world, "b", 3, 50);
        load(&mut world, "a", 0, 15);
        change(&mut world);
        for _ in 0..10 {
            wait(&mut world, 1);
            change(&mut world);
        }
        assert_eq!(decided(&world, "b").to, 3);
        assert!(decided(&world, "b").parking.marks.is_empty());
    }
}

/// Its queue has tasks, so the zero rule would keep it for ever.
#[test]
fn the_last_pod_goes_where_a_pool_gives_it_to_another() {
    let mut world = with([on_pool("a", CRITICAL), on_pool("b", BACKGROUND)], budget(POD));
    load(&mut world, "b", 1, 50);
    load(&mut world, "a", 0, 5);
    wait(&mut world, 3);
    assert_eq!(decided(&world, "b").parking.victims.len(), 1);
    finish(&mut world, "b", 20);
    assert!(world.pools["b"].pods.is_empty());
    assert_eq!(replicas(&world, "a"), 1);
}

/// What is within its share keeps it beside whoever wants ever more.
#[test]
fn who_is_within_its_share_is_not_pressed_by_one_that_is_never_met() {
    let mut world = with([on_pool("a", NORMAL), on_pool("b", NORMAL)], budget(120));
    load(&mut world, "a", 7, 900);
    load(&mut world, "b", 5, 0);
    for _ in 0..300 {
        wait(&mut world, 1);
        assert_eq!(decided(&world, "b").to, 5);
        assert!(decided(&world, "b").parking.marks.is_empty());
    }
}

/// Five that all want more share four slots by turns, a pod at a time.
#[test]
fn who_gets_nothing_has_its_turn_and_takes_one_pod_for_it() {
    let names = ["a", "b", "c", "d", "e"];
    let mut world = with(names.map(|name| on_pool(name, NORMAL)), budget(4 * POD));
    for name in names {
        load(&mut world, name, u32::from(name != "e"), 90);
    }
    decide(&mut world);
    assert_eq!(decided(&world, "e").to, 0);
    wait(&mut world, 100);
    let parked = names.map(|name| decided(&world, name).parking.victims.len());
    assert_eq!(parked.iter().sum::<usize>(), 1, "{parked:?}");
}

/// A turn lasts longer than any weight doubles for: whoever has waited longest is next, whatever the others weigh.
#[test]
fn everybody_has_a_turn_however_long_one_lasts() {
    let names = ["a", "b", "c"];
    let mut world = with(names.map(|name| on_pool(name, NORMAL)), budget(POD));
    let weights = [("a", 10), ("b", 10), ("c", 1)].map(|(name, weight)| (name.to_owned(), weight));
    world.namespaces.get_mut("shop").unwrap().weights = Arc::new(Weights {
        effective: weights.into(),
        ..Weights::default()
    });
    let mut holder = "a";
    load(&mut world, holder, 1, 90);
    load(&mut world, "b", 0, 90);
    load(&mut world, "c", 0, 90);
    let mut turns = vec![holder];
    for _ in 0..5 {
        // Twenty minutes, in looks that are as far apart as fresh data allows.
        wait(&mut world, 1200);
        assert_eq!(decided(&world, holder).parking.victims.len(), 1, "{turns:?}");
        finish(&mut world, holder, 20);
        holder = names
            .into_iter()
            .find(|name| replicas(&world, name) == 1)
            .unwrap();
        load(&mut world, holder, 1, 90);
        turns.push(holder);
    }
    assert_eq!(turns, ["a", "b", "c", "a", "b", "c"]);
}

/// A Pool of so many pods, of which `b` has more than its share: one of its pods is gone, and its slots are free.
fn one_is_free(pods: u64, weights: &[(&str, u64)], loads: &[(&str, u32)]) -> World {
    let names = loads.iter().map(|(name, _)| on_pool(name, NORMAL));
    let mut world = with(names, budget(pods * POD));
    let weights = weights.iter().map(|(name, weight)| ((*name).to_owned(), *weight));
    world.namespaces.get_mut("shop").unwrap().weights = Arc::new(Weights {
        effective: weights.collect(),
        ..Weights::default()
    });
    for (name, pods) in loads {
        load(&mut world, name, *pods, 90);
    }
    wait(&mut world, 100);
    let victim = b_victim(decided(&world, "b"));
    let input = world.pools.get_mut("b").unwrap();
    input.pods.retain(|pod| pod.name != victim);
    input.revisions[0].replicas -= 1;
    decide(&mut world);
    world
}

#[test]
fn who_has_waited_for_its_first_pod_is_before_who_wants_one_more() {
    let world = one_is_free(4, &[("a", 3)], &[("a", 1), ("b", 3), ("e", 0)]);
    assert_eq!((replicas(&world, "a"), replicas(&world, "e")), (1, 1));
}

#[test]
fn of_equals_the_one_that_lacks_most_for_its_weight_is_first() {
    let weights = [("a", 5), ("z", 5)];
    let world = one_is_free(6, &weights, &[("a", 2), ("b", 3), ("z", 1)]);
    assert_eq!((replicas(&world, "a"), replicas(&world, "z")), (2, 2));
}

/// Who waits for another Pool has no use for slots of this one.
#[test]
fn only_those_are_pressed_who_have_what_is_waited_for() {
    let both = |name: &str| {
        let mut input = on_pool(name, CRITICAL);
        let mut two = (*input.bid.charge).clone();
        two.slots.insert("other".to_owned(), POD);
        input.bid.charge = Arc::new(two);
        input.revisions[0].charge = Arc::clone(&input.bid.charge);
        input
    };
    let mut world = with(
        [both("a"), on_pool("b", NORMAL), on_pool("c", NORMAL)],
        budget(40),
    );
    let other = Budget {
        granted: [("uid-else".to_owned(), 20)].into(),
        ..budget(20)
    };
    let pools = &mut world.namespaces.get_mut("shop").unwrap().pools;
    pools.insert("other".to_owned(), other);
    load(&mut world, "b", 3, 50);
    load(&mut world, "a", 0, 20);
    wait(&mut world, 40);
    assert_eq!(decided(&world, "a").reason, Reason::WaitingForSlots);
    // Its share is less now, and still nobody could use what it has above that.
    load(&mut world, "c", 1, 50);
    wait(&mut world, 40);
    assert_eq!(decided(&world, "a").reason, Reason::WaitingForSlots);
    assert_eq!(decided(&world, "b").reason, Reason::PoolLimited);
    assert!(decided(&world, "b").parking.victims.is_empty());
}

/// With 0 slots a Pool is closed: what runs is finished, nothing starts, and nothing is wrong with the size of a pod.
#[test]
fn a_closed_pool_drains_and_opens_again() {
    let mut world = with([on_pool("a", NORMAL)], budget(40));
    load(&mut world, "a", 2, 50);
    decide(&mut world);
    set_budget(&mut world, 0);
    wait(&mut world, 3);
    let a = decided(&world, "a");
    assert_eq!((a.to, a.reason), (0, Reason::PoolLimited), "{}", a.text());
    assert_eq!(
        (a.parking.victims.len(), replicas(&world, "a")),
        (2, 2),
        "they are busy"
    );
    finish(&mut world, "a", 30);
    let a = decided(&world, "a");
    assert_eq!(
        (a.to, replicas(&world, "a"), a.reason),
        (0, 0, Reason::PoolLimited)
    );
    assert!(a.text().contains("Pool \"p\" gives 0 of 5 pods"), "{}", a.text());
    set_budget(&mut world, 40);
    wait(&mut world, 3);
    assert!(replicas(&world, "a") > 0, "{}", decided(&world, "a").text());
}

fn set_budget(world: &mut World, slots: u64) {
    let pools = &mut world.namespaces.get_mut("shop").unwrap().pools;
    let pool = pools.get_mut("p").unwrap();
    (pool.slots, pool.effective) = (Some(slots), Some(slots));
}
