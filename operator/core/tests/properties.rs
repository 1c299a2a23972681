//! Invariants over arbitrary histories: what brokers and workers say, what the cluster does, and what is lost.

mod world;

use std::sync::Arc;
use std::time::Duration;

use poolwright_core::cycle::{Memory, cycle};
use poolwright_core::decision::Decision;
use poolwright_core::demand::PodState;
use poolwright_core::evidence::CLEARANCE_AGE;
use poolwright_core::later::Later;
use poolwright_core::policy::Policy;
use poolwright_core::sample::Answer;
use poolwright_core::snapshot::{Hold, PodInput, PoolInput, Rank, RevisionInput, Snapshot};
use poolwright_core::time::Moment;
use proptest::prelude::*;
use world::{World, pod, pool, revision, running, wall, worker};

/// One thing that happens.
#[derive(Clone, Debug)]
enum Event {
    Ready(usize, u64),
    Unacked(usize, u64, i64),
    /// So many of what waits, and as many that are held, fall due so long after now.
    Later(usize, u64, i64),
    QueueFails(usize),
    HeartbeatsFail,
    Busy(usize, u64),
    Works(usize, u64),
    Silent(usize),
    Answers(usize, u64, u64, u64),
    Unreadable(usize),
    /// All that were asked answer that they hold nothing, and show it.
    Quiet,
    Consumes(usize),
    Restarts(usize),
    Apply,
    Drains(usize),
    Gone(usize),
    NotReady(usize),
    Bounds(u32, u32),
    Revision(u8),
    /// Somebody pauses scale-in, scale-out or both, wants recommendations only, or nothing of this any more.
    Brakes(bool, bool, bool),
    Holds(Option<u32>),
    Caps(Option<u32>),
    /// Pods of the present spec and of the older ones have other slots.
    Slots(u32, Option<u32>),
    Passes(u64),
    /// Another operator takes over, with the number in the status that was decided last, or with an old or edited one.
    Succeeds(Status),
}

/// The number that a status says.
#[derive(Clone, Debug)]
enum Status {
    Decided,
    Edited(Option<u32>),
}

fn event() -> impl Strategy<Value = Event> {
    let count = || prop_oneof![0u64..3, 0u64..200, any::<u64>()];
    let some = || 0usize..12;
    let ahead = || prop_oneof![0i64..90_000, Just(i64::MAX), Just(i64::MIN)];
    prop_oneof![
        2 => (0usize..3, count()).prop_map(|(queue, count)| Event::Ready(queue, count)),
        2 => (0usize..3, count(), 0i64..700).prop_map(|(queue, count, ago)| Event::Unacked(queue, count, ago)),
        2 => (0usize..3, count(), ahead()).prop_map(|(queue, count, after)| Event::Later(queue, count, after)),
        1 => (0usize..3).prop_map(Event::QueueFails),
        1 => Just(Event::HeartbeatsFail),
        3 => (some(), count()).prop_map(|(pod, count)| Event::Busy(pod, count)),
        2 => (some(), count()).prop_map(|(pod, count)| Event::Works(pod, count)),
        1 => some().prop_map(Event::Silent),
        3 => (some(), count(), count(), count()).prop_map(|(pod, a, b, c)| Event::Answers(pod, a, b, c)),
        1 => some().prop_map(Event::Unreadable),
        6 => Just(Event::Quiet),
        1 => some().prop_map(Event::Consumes),
        1 => some().prop_map(Event::Restarts),
        4 => Just(Event::Apply),
        1 => some().prop_map(Event::Drains),
        1 => some().prop_map(Event::Gone),
        1 => some().prop_map(Event::NotReady),
        1 => (0u32..4, 0u32..12).prop_map(|(min, more)| Event::Bounds(min, min + more)),
        1 => (0u8..4).prop_map(Event::Revision),
        1 => any::<(bool, bool, bool)>().prop_map(|(inward, out, tell)| Event::Brakes(inward, out, tell && !out)),
        1 => Just(Event::Brakes(false, false, false)),
        1 => prop_oneof![2 => Just(None), 1 => (0u32..12).prop_map(Some)].prop_map(Event::Holds),
        1 => prop_oneof![2 => Just(None), 1 => (0u32..12).prop_map(Some)].prop_map(Event::Caps),
        1 => (1u32..20, prop::option::of(1u32..20)).prop_map(|(slots, older)| Event::Slots(slots, older)),
        1 => prop_oneof![
            2 => Just(Status::Decided),
            1 => prop::option::of(0u32..40).prop_map(Status::Edited),
        ]
        .prop_map(Event::Succeeds),
        8 => (50u64..4000).prop_map(Event::Passes),
        2 => (4000u64..90_000).prop_map(Event::Passes),
    ]
}

/// The delay that stands for none, and how long pods stay then at least.
const UNWRITTEN: u64 = 30;
const UNWRITTEN_STAY: u64 = 10;

fn start(rabbitmq: bool, wait_target: bool, queues: usize, prefetch: Option<u32>, delay: u64) -> World {
    let mut first = pool("p");
    if wait_target {
        first.policy = Policy::WaitTarget {
            target: Duration::from_secs(30),
            delay: (delay != UNWRITTEN).then(|| Duration::from_secs(delay)),
        };
    }
    first.queues = (0..queues).map(|number| format!("q{number}").into()).collect();
    first.prefetch = prefetch;
    first.scale_down_delay = Duration::from_secs(delay);
    let mut second = pool("s");
    second.queues = vec!["q0".into()];
    let mut world = World::new([first, second]);
    world.marks_at_once = false;
    if rabbitmq {
        world = world.rabbitmq(delay.is_multiple_of(2));
    }
    for number in 0..queues {
        world.set(&format!("q{number}"), 0, 0);
    }
    for name in ["a", "b", "c", "d"] {
        world.add(name, 0);
    }
    world
}

/// Lets it happen.
fn happen(world: &mut World, event: &Event, last: Option<&Decision>, next: &mut u32) {
    let pods = world.pool().pods.len().max(1);
    let name =
        |world: &mut World, number: usize| world.pool().pods.get(number % pods).map(|pod| pod.name.clone());
    let (now, stamp) = (world.now, wall(world.now));
    match event {
        Event::Ready(queue, count) => {
            if let Some(sample) = &mut world.queue(&format!("q{queue}")).ready.last {
                sample.value.count = *count;
            }
        }
        Event::Unacked(queue, count, ago) => {
            let second = stamp.as_second() - ago;
            let ready = world
                .queue(&format!("q{queue}"))
                .ready
                .last
                .as_ref()
                .map_or(0, |one| one.value.count);
            world.set_fetched(&format!("q{queue}"), ready, &[(second, *count)]);
        }
        Event::Later(queue, count, after) => {
            let later = Later::new([(stamp.as_millisecond().saturating_add(*after), *count)]);
            let queue = world.queue(&format!("q{queue}"));
            if let Some(sample) = &mut queue.ready.last {
                sample.value.not_due = sample.value.count.min(*count);
                sample.value.later = later.clone();
            }
            if let Some(sample) = &mut queue.unacked.last {
                sample.value.later = later;
            }
        }
        Event::QueueFails(queue) => world.queue(&format!("q{queue}")).ready.last = None,
        Event::HeartbeatsFail => world.broker().heartbeats.last = None,
        Event::Apply => apply(world, last, next),
        Event::Quiet => {
            for worker in world.broker().workers.values_mut() {
                worker.active = 0;
            }
            world.answer_all();
        }
        Event::Bounds(min, max) => (world.pool().min, world.pool().max) = (*min, *max),
        Event::Revision(number) => world.pool().revision = format!("r{number}").into(),
        Event::Brakes(scale_in, scale_out, recommend) => {
            let pool = world.pool();
            (pool.pause.scale_in, pool.pause.scale_out) = (*scale_in, *scale_out);
            pool.recommend = *recommend;
        }
        Event::Holds(replicas) => {
            world.pool().hold = replicas.map(|replicas| Hold { replicas, by: None });
        }
        Event::Caps(cap) => world.pool().cap = *cap,
        Event::Slots(slots, older) => {
            let pool = world.pool();
            pool.slots = *slots;
            let others = pool.revisions.iter_mut().filter(|one| one.name != pool.revision);
            others.for_each(|one| one.slots = *older);
        }
        Event::Succeeds(status) => {
            world.memory = Memory::default();
            world.pool().desired = match status {
                Status::Decided => last.map(|last| last.to),
                Status::Edited(number) => *number,
            };
            for pod in world.pools.values_mut().flat_map(|pool| &mut pool.pods) {
                pod.see_anew(now);
            }
        }
        Event::Passes(millis) => world.now = now.after(Duration::from_millis(*millis)),
        Event::Gone(number) => {
            if let Some(name) = name(world, *number) {
                world.pool().pods.retain(|pod| pod.name != name);
            }
        }
        Event::Drains(number) | Event::NotReady(number) | Event::Restarts(number) => {
            let drains = matches!(event, Event::Drains(_));
            let restarts = matches!(event, Event::Restarts(_));
            if let Some(pod) = world.pool().pods.get_mut(number % pods) {
                pod.draining |= drains;
                pod.ready &= drains || restarts;
                pod.rank = if pod.ready { Rank::Ready } else { Rank::Unready };
                if restarts {
                    (pod.started, pod.running_since) = (Some(stamp), Some(now));
                }
            }
        }
        Event::Consumes(number) => {
            if let Some(name) = name(world, *number) {
                world.consumes(&name, &["q0"]);
            }
        }
        Event::Busy(number, _)
        | Event::Works(number, _)
        | Event::Silent(number)
        | Event::Answers(number, ..)
        | Event::Unreadable(number) => {
            if let Some(name) = name(world, *number) {
                says(world, &name, event, now);
            }
        }
    }
}

fn says(world: &mut World, name: &str, event: &Event, now: Moment) {
    let node = format!("celery@{name}");
    let view = world
        .broker()
        .workers
        .entry(node)
        .or_insert_with(|| worker(0, 0, now, now));
    match event {
        Event::Busy(_, count) => view.active = *count,
        Event::Works(_, count) => {
            view.processed = view.processed.saturating_add(*count);
            view.last_progress = now;
        }
        Event::Silent(_) => view.offline = !view.offline,
        Event::Unreadable(_) => view.unreadable = Some("pickle".to_owned()),
        Event::Answers(_, late, early, reserved) => world.answered(name, |answer| {
            running(answer, *early, *late);
            answer.reserved.insert("q0".to_owned(), *reserved);
        }),
        _ => {}
    }
}

fn apply(world: &mut World, last: Option<&Decision>, next: &mut u32) {
    let Some(decision) = last else { return };
    world.mark(world.now);
    let (now, stamp) = (world.now, wall(world.now));
    let pool = world.pool();
    if decision.allocation.create && pool.revisions.iter().all(|one| one.name != pool.revision) {
        let name = pool.revision.clone();
        pool.revisions.push(revision(&name, 0, false));
    }
    for one in &mut pool.revisions {
        if decision.allocation.prove.iter().any(|name| **name == *one.name) {
            one.proven = Some(stamp);
        }
        one.failed |= decision.allocation.fail.iter().any(|name| **name == *one.name);
        let Some(target) = decision.parking.replicas(&one.name) else {
            continue;
        };
        one.replicas = target;
        let own = |pod: &&mut PodInput| pod.revision == one.name && !pod.draining;
        let have = pool.pods.iter_mut().filter(own).count();
        for _ in have..(target as usize).min(have + 20) {
            *next += 1;
            pool.pods
                .push(pod(&format!("{}-{next}", one.name), &one.name, now));
        }
        let mut own: Vec<_> = pool.pods.iter_mut().filter(own).collect();
        own.sort_by_key(|pod| (pod.rank, pod.mark.map_or(2, |mark| mark as u8)));
        for pod in own.into_iter().take(have.saturating_sub(target as usize)) {
            pod.draining = true;
        }
    }
    pool.revisions
        .retain(|one| !decision.allocation.remove.iter().any(|name| **name == *one.name));
}

/// Renews all readings unless one failed just now, as an adapter does each poll. True if every source of the first
/// pool is fresh.
fn renewed(world: &mut World, event: &Event) -> bool {
    let fails = matches!(event, Event::QueueFails(_) | Event::HeartbeatsFail);
    if !fails {
        for number in 0..3 {
            let name = format!("q{number}");
            if world.queue(&name).ready.last.is_none() {
                world.set(&name, 0, 0);
            }
        }
        world.renew();
    }
    let queues = world.pool().queues.clone();
    let known = world.broker().unacked_known;
    let fresh = |world: &mut World, name: &str| {
        let now = world.now;
        let queue = world.queue(name);
        let age = Duration::from_secs(3);
        queue.ready.fresh(now, age).is_some() && (!known || queue.unacked.fresh(now, age).is_some())
    };
    let now = world.now;
    queues.iter().all(|name| fresh(world, name))
        && world
            .broker()
            .heartbeats
            .fresh(now, Duration::from_secs(3))
            .is_some()
}

/// `before` is the number that was decided before, and that whoever decides knows of.
fn check_bounds(pool: &PoolInput, decision: &Decision, before: Option<u32>) -> Result<(), TestCaseError> {
    prop_assert!(
        decision.text().len() <= 512 && decision.text().contains(&decision.to.to_string()),
        "{}",
        decision.text()
    );
    let said = [" ready + ", "demand unknown", "; target ", "kept warm"];
    prop_assert!(
        said.iter().any(|words| decision.text().contains(words)),
        "{}",
        decision.text()
    );
    let brakes = pool.pause.scale_in || pool.pause.scale_out || pool.recommend;
    let obeys = brakes || pool.hold.is_some() || pool.cap.is_some();
    prop_assert!(
        decision.to >= pool.min || decision.to >= decision.from || obeys,
        "{}",
        decision.text()
    );
    // Pods that take work, or will.
    let serving = |revision: &RevisionInput| {
        let own = || pool.staying().filter(|pod| pod.revision == revision.name);
        let parked = own().filter(|pod| pod.mark.is_some()).count();
        (revision.replicas as usize).max(own().count()) - parked
    };
    let all: usize = pool.revisions.iter().map(serving).sum();
    // What several revisions have together is no number that anybody wanted.
    let led = pool
        .revisions
        .iter()
        .any(|one| one.name == pool.revision || one.proven.is_some());
    let several = led && pool.revisions.iter().filter(|one| serving(one) > 0).count() > 1;
    let largest = pool.revisions.iter().map(serving).max().unwrap_or(0);
    let from = match before {
        Some(before) if several => before.max(u32::try_from(largest).unwrap_or(u32::MAX)),
        _ => decision.from,
    };
    let hold = pool.hold.as_ref().map_or(0, |hold| hold.replicas);
    let most = pool.max.max(hold).max(from).max(before.unwrap_or(0));
    prop_assert!(decision.to <= most, "{} {most} {}", decision.to, decision.text());
    let wanted = |one: &RevisionInput| {
        decision
            .allocation
            .target(&one.name)
            .map(|target| target as usize)
    };
    let sum: usize = pool
        .revisions
        .iter()
        .map(|one| wanted(one).unwrap_or_else(|| serving(one)))
        .sum();
    prop_assert!(
        sum <= (pool.max.max(decision.to) as usize).max(all) + 1,
        "{sum} asked for: {decision:?}"
    );
    Ok(())
}

/// Whatever the ties in its order, Kubernetes ends no pod of which it is not known that it may go.
fn check_falls(world: &mut World, decision: &Decision) -> Result<(), TestCaseError> {
    let (now, pool) = (world.now, world.pool().clone());
    let state = |name: &str| {
        let mut pods = decision.facts.pods.iter();
        pods.find(|(pod, _)| pod == name)
            .map_or(PodState::Pending, |(_, state)| *state)
    };
    for revision in &pool.revisions {
        let target = decision
            .parking
            .replicas(&revision.name)
            .unwrap_or(revision.replicas);
        if target >= revision.replicas {
            continue;
        }
        let own = pool.staying().filter(|pod| pod.revision == revision.name);
        let mut own: Vec<_> = own.collect();
        let busy = |pod: &PodInput| matches!(state(&pod.name), PodState::Busy(_));
        own.sort_by_key(|pod| (pod.rank, pod.mark.map_or(2, |mark| mark as u8), !busy(pod)));
        let go = own.len().saturating_sub(target as usize);
        for pod in own.into_iter().take(go).filter(|pod| pod.running_since.is_some()) {
            let view = world.broker().workers.get(pod.node());
            let proven = match (state(&pod.name), view) {
                (PodState::Idle(_), Some(view)) => {
                    let answer = view.answer.as_ref().filter(|_| view.unreadable.is_none());
                    let empty = |answer: &Answer| {
                        answer.queues.is_empty() && answer.reserved.values().all(|n| *n == 0)
                    };
                    view.unreadable.is_some()
                        || answer.is_some_and(|one| now.since(one.at) <= CLEARANCE_AGE && empty(&one.value))
                }
                // Never heard, and another revision takes its place; or somebody holds fewer by hand.
                (state, _) => {
                    let meant = revision.proven.is_none() || pool.hold.is_some();
                    !matches!(state, PodState::Busy(_)) && meant
                }
            };
            prop_assert!(
                pod.mark.is_some() && proven,
                "{pod:?} is {:?}: {decision:?}",
                state(&pod.name)
            );
        }
    }
    Ok(())
}

/// The same things in another order.
fn shuffled(snapshot: &Snapshot) -> Snapshot {
    let mut other = snapshot.clone();
    other.pools.reverse();
    for pool in &mut other.pools {
        let pool = std::sync::Arc::make_mut(pool);
        pool.pods.reverse();
        let third = pool.pods.len() / 3;
        pool.pods.rotate_left(third);
        pool.queues.reverse();
        pool.revisions.reverse();
    }
    other
}

proptest! {
    #[test]
    fn invariants_hold_in_any_history(
        rabbitmq: bool,
        wait_target: bool,
        queues in 1usize..4,
        prefetch in prop_oneof![Just(None), (1u32..5).prop_map(Some), Just(Some(u32::MAX))],
        delay in prop_oneof![Just(0u64), Just(7), Just(UNWRITTEN), Just(60)],
        events in prop::collection::vec(event(), 1..120),
    ) {
        let mut world = start(rabbitmq, wait_target, queues, prefetch, delay);
        let mut other = Memory::default();
        let mut last: Option<Decision> = None;
        let (mut next, mut whole_since, mut before) = (0, None, world.now);
        for event in &events {
            happen(&mut world, event, last.as_ref(), &mut next);
            let complete = renewed(&mut world, event);
            let decision = world.decide();
            // Nobody looked for long, or a source was missing: what was seen before counts no more.
            let succeeds = matches!(event, Event::Succeeds(_));
            if succeeds {
                other = Memory::default();
            }
            if !complete || succeeds || world.now.since(before) > Duration::from_secs(6) {
                whole_since = None;
            }
            if complete {
                whole_since.get_or_insert(world.now);
            }
            before = world.now;
            let obeys = world.pool().hold.is_some() || world.pool().cap.is_some();
            if decision.to < decision.from && !obeys {
                let stay = if wait_target && delay == UNWRITTEN { UNWRITTEN_STAY } else { delay };
                let whole = whole_since.is_some_and(|since| world.now.since(since) >= Duration::from_secs(stay));
                prop_assert!(whole, "scale-in without data: {decision:?}");
            }
            let rest: Vec<Arc<Decision>> = cycle(&shuffled(&world.snapshot()), &mut other).decisions.into_values().collect();
            let same: Vec<Arc<Decision>> = world.last.decisions.values().cloned().collect();
            prop_assert_eq!(same, rest);
            let unknown = matches!(event, Event::Succeeds(Status::Edited(_)));
            let decided = last.as_ref().filter(|_| !unknown).map(|last| last.to);
            check_bounds(&world.pool().clone(), &decision, decided)?;
            check_falls(&mut world, &decision)?;
            last = Some(decision);
        }
    }

    /// More waiting tasks never mean fewer pods, and who looks again at the same decides the same.
    #[test]
    fn growth_is_monotone_in_what_waits_and_planning_twice_is_planning_once(
        ready in 0u64..500,
        more in 0u64..500,
        unacked in 0u64..100,
        busy in prop::collection::vec(0u64..11, 0..6),
        slots in 1u32..20,
        target in prop::option::of(1u64..120),
        (steps, waited) in prop_oneof![Just((3, 0)), (3u64..300, 0u64..40)],
    ) {
        let decide = |ready: u64| {
            let mut world = World::new([pool("p")]);
            world.pool().slots = slots;
            if let Some(target) = target {
                let target = Duration::from_secs(target);
                world.pool().policy = Policy::WaitTarget { target, delay: None };
            }
            for (number, active) in busy.iter().enumerate() {
                world.add(&format!("a{number}"), *active);
            }
            for step in 0..steps {
                world.step();
                world.set("q", waited * step / steps, unacked);
                world.decide();
            }
            world.set("q", ready, unacked);
            let first = world.decide();
            let again = world.decide();
            if target.is_none() {
                assert_eq!((first.to, first.text()), (again.to, again.text()));
            }
            // With the first look it becomes known that these tasks have come, so that some are older than none at all.
            assert!((first.to..=first.to + first.to / 10 + 1).contains(&again.to), "{} {}", first.text(), again.text());
            // From then on nothing is new.
            let third = world.decide();
            assert_eq!((again.to, again.text()), (third.to, third.text()));
            again.to
        };
        prop_assert!(decide(ready) <= decide(ready + more));
    }
}

/// Order of queues shows in no decision: neither in its inputs nor in what is missing.
#[test]
fn queues_are_named_in_one_order() {
    let mut world = World::new([pool("p")]);
    world.pool().queues = vec!["q2".into(), "q".into(), "q1".into(), "q".into()];
    world.set("q", 5, 0);
    let decision = world.decide();
    let missing: Vec<&str> = decision
        .facts
        .missing
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!((missing, decision.to), (vec!["queue \"q1\"", "queue \"q2\""], 1));
    assert_eq!(world.last.decisions.len(), 1);
}
