//! Invariants over arbitrary histories of several WorkerPools that share several Pools: budgets are cut, guarantees come and
//! go, the operator starts anew, controllers lag, messages are lost. Checked against what workers really hold.

// The lint knows test functions, not their helpers.
#![allow(clippy::unwrap_used)]

#[path = "histories/town.rs"]
mod town;
mod world;

use std::collections::BTreeMap;
use std::sync::Arc;

use poolwright_core::cycle::{Memory, cycle};
use poolwright_core::demand::PodState;
use poolwright_core::snapshot::{PoolInput, Snapshot};
use proptest::prelude::*;
use town::{Ended, Kind, POOLS, Plan, QUEUES, TICK, Town, pool_of, queue_name};

/// One thing that happens.
#[derive(Clone, Debug)]
enum Event {
    /// So many tasks that take so many milliseconds come to a queue.
    Publish(usize, usize, u64),
    /// A Pool has so many slots from now on.
    Budget(usize, Option<u64>),
    /// So many slots are kept for a queue from now on.
    Guarantee(usize, u64),
    /// Bounds of a WorkerPool.
    Bounds(usize, u32, u32),
    /// The operator starts anew.
    Restart,
    /// Controllers act so many milliseconds after a number was written.
    Lag(u64),
    /// Messages to workers are lost, or not any more.
    Deaf(bool),
    /// Somebody deletes a pod.
    Delete(usize),
    /// A count is missing at the next look.
    QueueFails(usize),
    /// Heartbeats are missing at the next look.
    HeartbeatsFail,
    /// So many looks.
    Passes(u64),
}

fn event() -> impl Strategy<Value = Event> {
    let millis = || prop_oneof![2 => 200u64..3000, 2 => 3000u64..30_000, 1 => Just(90_000u64)];
    prop_oneof![
        6 => (0..QUEUES, 1usize..20, millis()).prop_map(|(queue, count, millis)| Event::Publish(queue, count, millis)),
        2 => (0..POOLS, slots()).prop_map(|(pool, slots)| Event::Budget(pool, slots)),
        1 => (0..QUEUES, 0u64..12).prop_map(|(queue, slots)| Event::Guarantee(queue, slots)),
        1 => (0usize..6, 0u32..3, 0u32..6).prop_map(|(at, min, more)| Event::Bounds(at, min, min + more)),
        1 => Just(Event::Restart),
        1 => (0u64..4000).prop_map(Event::Lag),
        1 => any::<bool>().prop_map(Event::Deaf),
        1 => (0usize..30).prop_map(Event::Delete),
        1 => (0..QUEUES).prop_map(Event::QueueFails),
        1 => Just(Event::HeartbeatsFail),
        6 => (1u64..12).prop_map(Event::Passes),
        3 => (12u64..70).prop_map(Event::Passes),
    ]
}

fn slots() -> impl Strategy<Value = Option<u64>> {
    prop_oneof![1 => Just(None), 9 => (0u64..24).prop_map(Some)]
}

fn plan() -> impl Strategy<Value = Plan> {
    let kind = (
        prop::collection::btree_set(0..QUEUES, 1..4),
        (1u32..4, 1u64..3),
        (0u32..2, 1u32..6),
        prop_oneof![Just(0u64), Just(5), Just(20)],
    );
    let kind = kind.prop_map(|(queues, (slots, cost), (min, more), delay)| Kind {
        queues,
        slots,
        cost,
        min,
        max: min + more,
        delay,
    });
    (
        prop::collection::vec(slots(), POOLS),
        prop::collection::vec(prop_oneof![2 => Just(0u64), 1 => 1u64..9], QUEUES),
        prop::collection::vec(0usize..3, QUEUES),
        prop::collection::vec(kind, 2..6),
        any::<(bool, bool)>(),
    )
        .prop_map(|(slots, guarantees, tiers, worker_pools, (late, redis))| Plan {
            slots,
            guarantees,
            tiers,
            worker_pools,
            late,
            redis,
        })
}

fn happen(town: &mut Town, event: &Event) {
    match event {
        Event::Publish(queue, count, millis) => town.publish(*queue, *count, *millis),
        Event::Budget(pool, slots) => {
            let budget = town.budget(*pool);
            (budget.slots, budget.effective) = (*slots, *slots);
        }
        Event::Guarantee(queue, slots) => {
            let guarantees = &mut town.budget(pool_of(*queue)).guarantees;
            guarantees.insert(queue_name(*queue), *slots);
        }
        Event::Bounds(at, min, max) => {
            if let Some(input) = town.world.pools.get_mut(&format!("w{at}")) {
                (input.min, input.max) = (*min, *max);
            }
        }
        Event::Restart => town.restart(),
        Event::Lag(millis) => town.lag = *millis,
        Event::Deaf(deaf) => town.deaf = *deaf,
        Event::Delete(at) => town.delete(*at),
        Event::QueueFails(queue) => town.world.queue(&queue_name(*queue)).ready.last = None,
        Event::HeartbeatsFail => town.world.broker().heartbeats.last = None,
        Event::Passes(_) => {}
    }
}

/// The same things in another order.
fn shuffled(snapshot: &Snapshot) -> Snapshot {
    let mut other = snapshot.clone();
    other.pools.reverse();
    for pool in &mut other.pools {
        let pool = Arc::make_mut(pool);
        pool.pods.reverse();
        let third = pool.pods.len() / 3;
        pool.pods.rotate_left(third);
        pool.queues.reverse();
        pool.bid.queues.reverse();
    }
    other
}

/// Whoever goes because a number fell was parked before, and is empty.
fn check_ended(ended: &[Ended]) -> Result<(), TestCaseError> {
    for one in ended.iter().filter(|one| one.pod.running_since.is_some()) {
        prop_assert!(one.pod.mark.is_some(), "never parked: {one:?}");
        prop_assert!(one.tasks == 0, "it held tasks: {one:?}");
    }
    Ok(())
}

/// Nobody who works is parked while somebody beside it has nothing to do and was not heard to hold anything.
fn check_parked(town: &Town, input: &PoolInput) -> Result<(), TestCaseError> {
    let decision = &town.world.last.decisions[&input.key];
    let state = |name: &str| {
        let mut pods = decision.facts.pods.iter();
        pods.find(|(pod, _)| pod == name).map(|(_, state)| *state)
    };
    let newly = decision.parking.marks.iter().filter(|(name, mark)| {
        let pod = input.pods.iter().find(|pod| pod.name == *name).unwrap();
        mark.is_some() && pod.mark.is_none()
    });
    let busy: Vec<&str> = newly
        .map(|(name, _)| name.as_str())
        .filter(|name| matches!(state(name), Some(PodState::Busy(_))))
        .collect();
    let holds = |pod: &str| {
        let view = town.world.brokers["b"].workers.get(&format!("celery@{pod}"));
        let answer = view.and_then(|view| view.answer.as_ref());
        answer.is_some_and(|answer| !answer.value.running.is_empty())
    };
    let spared = input.consuming().find(|pod| {
        let idle = matches!(state(&pod.name), Some(PodState::Idle(_)));
        idle && !holds(&pod.name) && !decision.parking.victims.iter().any(|name| *name == *pod.name)
    });
    prop_assert!(busy.is_empty() || spared.is_none(), "{busy:?} and not {spared:?}");
    Ok(())
}

/// Slots of each Pool that are taken.
fn taken(town: &Town) -> BTreeMap<String, u64> {
    let sum = |(pool, all): (String, BTreeMap<String, u64>)| (pool, all.values().sum());
    town.charges().into_iter().map(sum).collect()
}

/// One look: what is decided is checked and done.
fn look(town: &mut Town, other: &mut Memory) -> Result<(), TestCaseError> {
    let used = town.charges();
    for pool in 0..POOLS {
        let used = used.get(&town::pool_name(pool)).cloned().unwrap_or_default();
        town.budget(pool).used = used;
    }
    town.world.decide();
    let rest = cycle(&shuffled(&town.world.snapshot()), other).decisions;
    prop_assert_eq!(&town.world.last.decisions, &rest);
    for input in town.world.pools.values() {
        check_parked(town, input)?;
    }
    let before = taken(town);
    town.execute();
    for (pool, after) in taken(town) {
        let budget = &town.world.namespaces["shop"].pools[&pool];
        let most = budget
            .effective
            .map_or(u64::MAX, |slots| slots.max(before[&pool]));
        prop_assert!(
            after <= most,
            "{pool} of {:?}: {} to {after}",
            budget.effective,
            before[&pool]
        );
    }
    Ok(())
}

/// WorkerPools that have nothing free, whose queue has waiting tasks, and for one more pod of which there is room in all
/// their Pools beside what is kept for others.
fn starving(town: &Town) -> Vec<String> {
    let charges = town.charges();
    let none = BTreeMap::new();
    let has_room = |input: &PoolInput| {
        input.bid.charge.slots.iter().all(|(pool, cost)| {
            let budget = &town.world.namespaces["shop"].pools[pool];
            let Some(slots) = budget.effective else {
                return true;
            };
            let held = charges.get(pool).unwrap_or(&none);
            let consumes =
                |input: &PoolInput, queue: &str| input.bid.queues.iter().any(|one| one.object == *queue);
            let kept = budget.guarantees.iter().map(|(queue, slots)| {
                let rivals: Vec<&PoolInput> = town
                    .world
                    .pools
                    .values()
                    .filter(|other| consumes(other, queue))
                    .collect();
                // Of several each has a part of its own, which is kept for it also while another Pool withholds it.
                let is_shared = rivals.len() > 1 || consumes(input, queue) && input.queues.len() > 1;
                if is_shared || consumes(input, queue) {
                    return if is_shared { *slots } else { 0 };
                }
                let used: u64 = rivals.iter().filter_map(|other| held.get(&other.key.uid)).sum();
                slots.saturating_sub(used)
            });
            held.values().sum::<u64>() + kept.sum::<u64>() + cost <= slots
        })
    };
    // What is open is being collected for somebody, a pod of whom takes more.
    let is_collected = |input: &PoolInput| {
        let pools = &input.bid.charge.slots;
        town.world.pools.values().any(|other| {
            let words = town.world.last.decisions[&other.key].text();
            let shares = other.bid.charge.slots.keys().any(|pool| pools.contains_key(pool));
            other.key != input.key && shares && words.contains("that others still have")
        })
    };
    let starves = |input: &&PoolInput| {
        let (running, slots) = town.load(input);
        let waits = input
            .queues
            .iter()
            .any(|queue| !town.waiting[&**queue].is_empty());
        let may_grow = input.consuming().count() < input.max as usize
            && input.staying().count() == input.consuming().count();
        waits && may_grow && running == slots && has_room(input) && !is_collected(input)
    };
    let all = town.world.pools.values();
    all.filter(starves).map(|input| input.key.name.clone()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn invariants_hold_for_all_who_share(plan in plan(), events in prop::collection::vec(event(), 1..40)) {
        let mut town = Town::new(&plan);
        let mut other = Memory::default();
        for event in &events {
            let looks = if let Event::Passes(looks) = event { *looks } else { 1 };
            for _ in 0..looks {
                check_ended(&town.tick())?;
                happen(&mut town, event);
                if matches!(event, Event::Restart) {
                    other = Memory::default();
                }
                look(&mut town, &mut other)?;
            }
        }
        // After all faults have ended there is work for everybody, for a while.
        (town.lag, town.deaf) = (0, false);
        let mut starved: BTreeMap<String, u64> = BTreeMap::new();
        for look_at in 0..200_000 / TICK {
            for queue in 0..QUEUES {
                let waiting = town.waiting[&queue_name(queue)].len();
                town.publish(queue, 40usize.saturating_sub(waiting), 10_000);
            }
            check_ended(&town.tick())?;
            look(&mut town, &mut other)?;
            // Until then tasks of the history may run on pods that are to make room.
            let now = if look_at * TICK < 110_000 { Vec::new() } else { starving(&town) };
            starved.retain(|name, _| now.contains(name));
            for name in now {
                *starved.entry(name).or_default() += TICK;
            }
            prop_assert!(starved.values().all(|millis| *millis < 60_000), "{starved:?}");
        }
    }
}
