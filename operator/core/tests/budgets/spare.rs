//! Pods that are kept only because that is cheaper than to start them again: who needs their slots gets them.

use poolwright_core::bidder::Bidder;
use poolwright_core::budget::{Allowance, Pressed, divide};
use poolwright_core::demand::Share;
use poolwright_core::policy::Policy;
use poolwright_core::snapshot::Trouble;

use super::*;

fn by_wait(name: &str, tier: u32) -> PoolInput {
    let mut input = on_pool(name, tier);
    input.policy = Policy::WaitTarget {
        target: Duration::from_secs(30),
        delay: None,
    };
    input
}

/// A WorkerPool with four pods, of which three suffice for what they run.
fn a_little_less_suffices(name: &str, tier: u32, others: impl IntoIterator<Item = PoolInput>) -> World {
    let mut world = with(others.into_iter().chain([by_wait(name, tier)]), budget(50));
    load(&mut world, name, 4, 0);
    for (at, active) in [6, 6, 6, 4].into_iter().enumerate() {
        world.worker(&format!("{name}-{at}")).active = active;
    }
    world.set(name, 0, 0);
    world
}

#[test]
fn what_is_kept_only_in_case_is_left_to_a_lower_tier() {
    // Whether a mark is seen at once or late, it is given up once.
    for at_once in [true, false] {
        left_to_a_lower_tier(at_once);
    }
}

fn left_to_a_lower_tier(at_once: bool) {
    let mut world = a_little_less_suffices("high", CRITICAL, [on_pool("low", BACKGROUND)]);
    world.marks_at_once = at_once;
    load(&mut world, "low", 1, 100);
    wait(&mut world, 20);
    let high = decided(&world, "high");
    assert_eq!(high.to, 4, "{}", high.text());
    assert!(
        high.text().contains("a little less must suffice"),
        "{}",
        high.text()
    );
    let mut halves = 40;
    while decided(&world, "high").to == 4 {
        wait_half(&mut world);
        halves += 1;
    }
    // Ten of data without a gap, and then thirty for which others must have waited.
    assert!((78..=86).contains(&halves), "after {halves} half seconds");
    let high = decided(&world, "high");
    let words = "1 pod is not needed now, and Pool \"p\" has no slots for that";
    assert!(high.text().contains(words), "{}", high.text());
    // That is not what its tasks ask for.
    assert_eq!(
        (high.to, high.lacks(), &high.budget),
        (3, 0, &None),
        "{}",
        high.text()
    );
    assert_ne!(high.reason, Reason::PoolLimited);
    if !at_once {
        // Less is needed before the first is seen to be parked: that is another matter.
        (0..3).for_each(|at| world.worker(&format!("high-{at}")).active = 3);
    }
    wait(&mut world, if at_once { 10 } else { 3 });
    let high = decided(&world, "high");
    assert_eq!(high.to, 3, "one after the other: {}", high.text());
}

/// Somebody has said that they stay.
#[test]
fn what_is_promised_is_left_to_nobody() {
    let kept = |change: fn(&mut PoolInput)| {
        let mut world = a_little_less_suffices("high", CRITICAL, [on_pool("low", BACKGROUND)]);
        load(&mut world, "low", 1, 100);
        change(world.pools.get_mut("high").unwrap());
        wait(&mut world, 43);
        decided(&world, "high").to == 4
    };
    assert!(!kept(|_| ()));
    assert!(kept(|input| input.min = 4));
    assert!(kept(|input| input.pause.scale_in = true));
    assert!(kept(|input| input.recommend = true));
    let delay = |input: &mut PoolInput| {
        input.policy = Policy::WaitTarget {
            target: Duration::from_secs(30),
            delay: Some(Duration::from_secs(10)),
        };
    };
    assert!(kept(delay));
}

/// What one keeps whatever its share is, is not given away twice: the highest tier takes it from the lowest.
#[test]
fn who_may_not_shrink_gives_nothing_that_a_lower_tier_keeps() {
    let others = [on_pool("high", CRITICAL), on_pool("low", BACKGROUND)];
    let mut world = a_little_less_suffices("paused", NORMAL, others);
    load(&mut world, "low", 1, 100);
    wait(&mut world, 20);
    world.pools.get_mut("paused").unwrap().pause.scale_in = true;
    load(&mut world, "high", 0, 5);
    wait(&mut world, 5);
    let (low, paused) = (decided(&world, "low"), decided(&world, "paused"));
    assert_eq!((low.to, paused.to), (0, 4), "{}", low.text());
}

/// What the cluster refuses takes slots and does nothing: others get them, also those of a lower tier, but for one, by which
/// it is seen when that is over.
#[test]
fn slots_of_pods_that_the_cluster_refuses_are_left_to_others() {
    for there in [0, 2] {
        let mut world = with(
            [on_pool("high", CRITICAL), on_pool("low", BACKGROUND)],
            budget(40),
        );
        load(&mut world, "high", there, 100);
        let high = world.pools.get_mut("high").unwrap();
        high.min = 3;
        high.revisions[0].replicas = 4;
        let refusal = Trouble {
            reason: Reason::QuotaExceeded,
            message: "exceeded quota".to_owned(),
        };
        high.revisions[0].refused = Some(refusal);
        wait(&mut world, 40);
        assert_eq!(replicas(&world, "high"), 4, "nobody else needs them");
        world.set("low", 100, 0);
        let mut said = String::new();
        for _ in 0..30 {
            wait(&mut world, 5);
            let (high, low) = (decided(&world, "high"), replicas(&world, "low"));
            said = high.text();
            world.pools.get_mut("high").unwrap().revisions[0].replicas = high.parking.replicas("r1").unwrap();
            let have = world.pools["low"].revisions[0].replicas;
            load(&mut world, "low", low - have, 100);
        }
        let words = "pods are refused by the cluster, and Pool \"p\" has no slots for that";
        assert!(said.contains(words), "{said}");
        assert_eq!(
            (replicas(&world, "high"), replicas(&world, "low")),
            (there + 1, 3 - there),
            "{said}"
        );
        // It is over.
        world.pools.get_mut("high").unwrap().revisions[0].refused = None;
        wait(&mut world, 2);
        assert_eq!(decided(&world, "high").reason, Reason::WaitingForSlots);
    }
}

/// Who wants so many pods, of which so many are spare, and has so many.
struct Wants {
    name: &'static str,
    tier: u32,
    wanted: u32,
    spare: u32,
    serving: u32,
    without: u64,
}

fn allowances<const N: usize>(slots: u64, all: &[Wants; N]) -> [Allowance; N] {
    let inputs = all.each_ref().map(|one| {
        let mut input = on_pool(one.name, one.tier);
        input.revisions[0].replicas = one.serving;
        input
    });
    let tasks = all.each_ref().map(|one| {
        [Share {
            name: one.name.into(),
            tasks: POD * u64::from(one.wanted - one.spare),
            waits: 0,
        }]
    });
    let bidders: Vec<Bidder> = (0..N)
        .map(|at| Bidder {
            input: &inputs[at],
            slots: 10,
            wanted: all[at].wanted,
            spare: all[at].spare,
            extra: 0,
            serving: all[at].serving,
            tasks: &tasks[at],
            lost: &[],
            without: Duration::from_secs(all[at].without),
        })
        .collect();
    let namespace = Namespace {
        pools: [("p".to_owned(), budget(slots))].into(),
        ..Namespace::default()
    };
    divide(&namespace, &bidders).try_into().unwrap()
}

const HIGH: Wants = Wants {
    name: "high",
    tier: CRITICAL,
    wanted: 4,
    spare: 1,
    serving: 4,
    without: 0,
};
const LOW: Wants = Wants {
    name: "low",
    tier: BACKGROUND,
    wanted: 5,
    spare: 0,
    serving: 1,
    without: 0,
};

/// A lower tier gets it after a while, as equals do: what is not needed now may be in a moment.
#[test]
fn a_lower_tier_presses_as_equals_do_and_a_higher_one_at_once() {
    let [high, low] = allowances(50, &[HIGH, LOW]);
    assert_eq!((high.target, low.target), (3, 2));
    assert_eq!((high.pressed, low.pressed), (Pressed::ByEquals, Pressed::No));
    let few = Wants {
        tier: BACKGROUND,
        ..HIGH
    };
    let many = Wants {
        tier: CRITICAL,
        ..LOW
    };
    let [few, many] = allowances(50, &[few, many]);
    assert_eq!((few.target, many.target), (0, 5));
    assert_eq!(few.pressed, Pressed::ByHigher);
}

#[test]
fn nobody_gives_up_a_pod_so_that_another_one_is_kept_in_case() {
    let spare = |name, wanted, serving| Wants {
        name,
        tier: NORMAL,
        wanted,
        spare: wanted,
        serving,
        without: 0,
    };
    let [a, b] = allowances(20, &[spare("a", 2, 2), spare("b", 2, 0)]);
    assert_eq!((a.target, b.target), (1, 1));
    assert_eq!(a.pressed, Pressed::No);
}

/// Who has had no pod for a while claims one: of what it needs.
#[test]
fn who_waits_for_its_first_pod_keeps_its_tier() {
    let waits = Wants {
        wanted: 5,
        spare: 3,
        serving: 0,
        without: 60,
        ..HIGH
    };
    let low = Wants {
        wanted: 10,
        serving: 10,
        ..LOW
    };
    let [high, low] = allowances(100, &[waits, low]);
    assert_eq!((high.target, low.target), (1, 9));
    assert_eq!(low.pressed, Pressed::ByHigher);
}

#[test]
fn what_is_missing_is_told_without_what_is_spare() {
    let wants = Wants { wanted: 8, ..HIGH };
    let [high] = allowances(50, &[wants]);
    let (_, words) = poolwright_core::cause::cut(&high.cause.unwrap());
    assert_eq!(words, "Pool \"p\" gives 5 of 7 pods: 20 slots are missing");
}

/// Six pods have their slots now: the one that is needed at the highest tier, and the five of the lowest before those that
/// would only be kept.
#[test]
fn what_is_needed_is_started_before_what_is_spare() {
    let high = Wants {
        wanted: 5,
        spare: 4,
        serving: 0,
        ..HIGH
    };
    let low = Wants { serving: 0, ..LOW };
    let other = Wants {
        name: "other",
        tier: NORMAL,
        wanted: 1,
        spare: 0,
        serving: 5,
        without: 0,
    };
    let [high, low, other] = allowances(110, &[high, low, other]);
    assert_eq!((high.target, low.target, other.target), (5, 5, 1));
    assert_eq!((high.room, low.room), (1, 5));
    assert_eq!(
        (high.waits, low.waits),
        (None, None),
        "nobody waits for what it would only keep"
    );
}
