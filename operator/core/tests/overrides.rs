//! What people have asked for goes before the demand, and is said.

mod world;

use poolwright_api::Reason;
use poolwright_core::decision::Decision;
use poolwright_core::snapshot::{Hold, Mark, Pause};
use world::{World, pool, seconds, set_mark};

/// Three pods, one of them parked, and so many tasks that wait.
fn stand(ready: u64) -> World {
    let mut world = World::new([pool("p")]);
    for name in ["a", "b", "c"] {
        world.add(name, 0);
    }
    let now = world.now;
    set_mark(&mut world.pool().pods[2], Some(Mark::Empty), now);
    world.marks_at_once = false;
    world.set("q", ready, 0);
    world
}

fn limits(decision: &Decision) -> Vec<&str> {
    decision.limits.iter().map(|limit| limit.name).collect()
}

#[test]
fn a_pause_keeps_the_number_of_pods_and_brings_parked_ones_back() {
    for ready in [0, 1000] {
        let mut world = stand(ready);
        world.pool().pause = Pause {
            scale_in: true,
            scale_out: true,
        };
        let decision = world.settle(70);
        assert_eq!((decision.from, decision.to), (2, 3), "{}", decision.text());
        assert_eq!(decision.parking.replicas("r1"), Some(3));
        assert_eq!(decision.parking.marks, [("c".to_owned(), None)]);
        assert_eq!(decision.reason, Reason::Paused);
    }
}

#[test]
fn one_direction_can_be_paused() {
    let mut world = stand(0);
    world.pool().pause.scale_in = true;
    let decision = world.settle(70);
    assert_eq!(
        (decision.to, limits(&decision).last()),
        (3, Some(&"pausedScaleIn"))
    );
    world.set("q", 50, 0);
    let decision = world.decide();
    assert_eq!((decision.to, decision.reason), (5, Reason::ScaledUp));

    let mut world = stand(50);
    world.pool().pause.scale_out = true;
    let decision = world.decide();
    assert_eq!(
        (decision.to, decision.reason, limits(&decision)),
        (2, Reason::Paused, vec!["pausedScaleOut"]),
        "not even a parked one comes back"
    );
    // Nor is a minimum reached.
    world.pool().min = 4;
    assert_eq!(world.decide().to, 2);
    world.pool().min = 0;
    world.set("q", 0, 0);
    assert_eq!(world.settle(70).to, 0, "{}", world.decision("p").text());
}

#[test]
fn a_recommendation_is_told_and_not_carried_out() {
    let mut world = stand(50);
    world.pool().recommend = true;
    let decision = world.decide();
    assert_eq!((decision.to, decision.reason), (2, Reason::Recommended));
    assert!(decision.text().contains("5 recommended"), "{}", decision.text());
    assert_eq!(decision.limits[0].from, 5);
    // One that agrees with what runs is none.
    world.set("q", 15, 0);
    assert_eq!(world.decide().reason, Reason::AsDesired);
    // A number by hand goes before it, and before a pause.
    world.pool().pause.scale_out = true;
    world.pool().hold = Some(Hold {
        replicas: 7,
        by: None,
    });
    let decision = world.decide();
    assert_eq!((decision.to, decision.reason), (7, Reason::ManualHold));
}

/// The fallback adds workers, and so does not pass a pause.
#[test]
fn a_fallback_does_not_pass_a_pause() {
    let mut world = stand(0);
    world.pool().fallback = Some(poolwright_core::snapshot::Fallback {
        replicas: 5,
        after: seconds(10),
    });
    world.pool().pause.scale_out = true;
    world.brokers.clear();
    world.decide();
    world.now = world.now.after(seconds(20));
    assert_eq!(world.decide().to, 2, "{}", world.decision("p").text());
}
