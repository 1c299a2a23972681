//! A simulated fleet under load: it grows at once, loses nothing, does not flap, and shrinks to what is needed.

mod world;

use poolwright_api::Reason;
use poolwright_api::v1alpha1::AckMode;
use poolwright_core::policy::Policy;
use world::fleet::Sim;
use world::{pool, revision};

fn sim(change: impl FnOnce(&mut poolwright_core::snapshot::PoolInput)) -> Sim {
    let mut pool = pool("p");
    change(&mut pool);
    Sim::new(pool)
}

#[test]
fn grows_in_one_write_and_returns_to_zero() {
    for late in [false, true] {
        let mut sim = sim(|_| ());
        sim.late = late;
        sim.run(1_000);
        assert_eq!(sim.total(), 0);
        sim.publish(95, 20_000);
        sim.run(400);
        assert_eq!(sim.total(), 10);
        sim.run(75_000);
        assert!(sim.total() > 0, "not before the window is over");
        sim.run(90_000);
        assert_eq!(
            (sim.total(), sim.finished, sim.wronged),
            (0, 95, 0),
            "{}",
            sim.decision().text()
        );
        assert_eq!(sim.replicas.iter().filter(|count| **count > 0).max(), Some(&10));
    }
}

#[test]
fn five_short_tasks_a_second_leave_one_pod_alone() {
    for late in [false, true] {
        for slots in [1, 2, 10] {
            let mut sim = sim(|pool| pool.slots = slots);
            sim.late = late;
            // A delay shorter than the time between two heartbeats must not matter.
            sim.world.pool().scale_down_delay = world::seconds(if late { 60 } else { 1 });
            sim.publish(1, 100);
            sim.run(5_000);
            sim.replicas.clear();
            sim.run_with(300_000, |sim| sim.publish(1, 100));
            assert_eq!(
                sim.replicas,
                [1],
                "{slots} slots, late {late}: {}",
                sim.decision().text()
            );
            assert!(sim.finished > 1450);
        }
    }
}

/// A trickle keeps every pod's count moving: it must shrink all the same.
#[test]
fn a_trickle_over_ten_pods_shrinks_to_one() {
    let mut sim = sim(|pool| pool.revisions = vec![revision("r1", 10, true)]);
    let mut turn = 0;
    sim.run_with(180_000, |sim| {
        turn += 1;
        sim.publish(usize::from(turn % 2 == 0), 100);
    });
    assert_eq!(sim.total(), 1, "{}", sim.decision().text());
    assert_eq!(sim.wronged, 0);
}

#[test]
fn a_pod_that_is_never_idle_stays() {
    let mut sim = sim(|pool| pool.revisions = vec![revision("r1", 3, true)]);
    sim.publish(3, 400_000);
    // One task to each.
    sim.world.pool().slots = 1;
    sim.run(5_000);
    sim.world.pool().slots = 10;
    sim.run(200_000);
    assert_eq!((sim.total(), sim.busy()), (3, 3), "{}", sim.decision().text());
    assert_eq!((sim.decision().to, sim.decision().facts.parked), (1, 2));
    sim.run(400_000);
    assert_eq!((sim.total(), sim.wronged), (0, 0));
}

/// Kubernetes takes a pod a while after the number fell. Until then the pod is seen as before, and one empty pod must not
/// be taken twice: the second would be a busy one.
#[test]
fn a_pod_that_is_about_to_go_pays_for_one() {
    for lag in [0, 200, 1_000, 10_000] {
        let mut sim = sim(|pool| pool.revisions = vec![revision("r1", 5, true)]);
        sim.lag = lag;
        sim.publish(3, 400_000);
        // One task to each.
        sim.world.pool().slots = 1;
        sim.run(5_000);
        sim.world.pool().slots = 10;
        sim.replicas.clear();
        sim.run(200_000);
        assert_eq!((sim.total(), sim.busy()), (3, 3), "lag {lag}: {:?}", sim.replicas);
        assert_eq!((sim.wronged, sim.world.pool().pods.len()), (0, 3), "lag {lag}");
        sim.run(400_000);
        assert_eq!((sim.total(), sim.wronged), (0, 0), "lag {lag}");
    }
}

#[test]
fn countdowns_on_redis_need_one_pod_at_most() {
    for pods in [0, 1] {
        let mut sim = sim(|pool| pool.revisions = vec![revision("r1", pods, true)]);
        sim.run(3_000);
        sim.publish_later(1_000, 3_600_000);
        sim.replicas.clear();
        sim.run(600_000);
        assert_eq!(sim.replicas, [pods], "{}", sim.decision().text());
    }
}

#[test]
fn countdowns_on_rabbitmq_grow_once_and_never_flap() {
    for (known, busy) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut sim = sim(|pool| pool.prefetch = Some(4));
        sim.world = std::mem::replace(&mut sim.world, world::World::new([])).rabbitmq(known);
        if busy {
            sim.publish(1, 3_600_000);
        }
        sim.publish_later(1_000, 3_600_000);
        sim.run(600_000);
        let path = &sim.replicas;
        assert_eq!(path[0], 10, "{known} {busy}: {path:?}");
        assert!(
            path.is_sorted_by(|left, right| left > right),
            "{known} {busy}: {path:?}"
        );
        assert_eq!(path.last(), Some(&1), "{known} {busy}: {}", sim.decision().text());
    }
}

#[test]
fn tasks_that_come_due_grow_the_pool() {
    let mut sim = sim(|pool| pool.prefetch = Some(4));
    sim.world = std::mem::replace(&mut sim.world, world::World::new([])).rabbitmq(true);
    sim.publish_later(400, 300_000);
    sim.run(290_000);
    assert_eq!(sim.total(), 1, "{}", sim.decision().text());
    sim.run(120_000);
    assert_eq!(sim.finished, 400);
}

#[test]
fn a_killed_worker_leaves_one_pod() {
    let mut sim = sim(|pool| {
        pool.prefetch = Some(10);
        pool.ack_mode = AckMode::Late;
    });
    sim.late = true;
    sim.publish(100, 60_000);
    sim.world.pool().max = 1;
    sim.run(20_000);
    sim.kill_one();
    sim.world.pool().max = 10;
    sim.replicas.clear();
    sim.run(600_000);
    assert_eq!(sim.replicas, [1], "{}", sim.decision().text());
    assert_eq!(sim.decision().facts.orphaned, 100);
}

#[test]
fn a_broker_that_is_gone_for_30_s_holds_everything_for_a_window_more() {
    let mut sim = sim(|pool| pool.revisions = vec![revision("r1", 5, true)]);
    sim.publish(5, 20_000);
    sim.run(55_000);
    sim.broker_up = false;
    sim.run(5_000);
    assert_eq!((sim.total(), sim.decision().reason), (5, Reason::HeldStale));
    assert!(
        sim.decision().text().contains("no fresh data"),
        "{}",
        sim.decision().text()
    );
    sim.run(25_000);
    sim.broker_up = true;
    sim.run(59_000);
    assert_eq!(sim.total(), 5, "{}", sim.decision().text());
    sim.run(8_000);
    assert_eq!(sim.total(), 0, "{}", sim.decision().text());
}

#[test]
fn a_flush_while_busy_takes_no_pod_for_a_window() {
    let mut sim = sim(|pool| pool.max = 5);
    sim.publish(500, 15_000);
    sim.run(20_000);
    assert_eq!(sim.total(), 5);
    sim.flush();
    sim.run(30_000);
    assert_eq!(
        (sim.total(), sim.decision().reason),
        (5, Reason::HeldSuspect),
        "{}",
        sim.decision().text()
    );
    sim.run(60_000);
    assert_eq!((sim.total(), sim.wronged), (0, 0), "{}", sim.decision().text());
}

/// The broker counts what runs and acknowledges late: with that it cannot hold nothing, even if all that vanished could
/// have been started. It is doubted until nothing has been started for minutes, and not where workers say otherwise than
/// what was declared.
#[test]
fn a_zero_beside_tasks_that_acknowledge_late_is_suspect() {
    let flushed = |late, mode| {
        let mut sim = sim(|pool| (pool.max, pool.ack_mode) = (6, mode));
        sim.late = late;
        sim.publish(50, 900_000);
        sim.run(40_000);
        // One more pod starts for these.
        sim.start_up = 2_000_000;
        sim.publish(8, 900_000);
        sim.run(5_000);
        sim.flush();
        [15_000, 270_000, 30_000].map(|long| {
            sim.run(long);
            assert_eq!((sim.total(), sim.wronged), (6, 0), "{}", sim.decision().text());
            sim.decision().reason
        })
    };
    let (held, not) = (Reason::HeldSuspect, Reason::AsDesired);
    assert_eq!(flushed(true, AckMode::Auto), [held, held, not]);
    assert_eq!(flushed(true, AckMode::Late), [held, held, not]);
    assert_eq!(flushed(false, AckMode::Auto), [not; 3]);
    assert_eq!(flushed(false, AckMode::Late), [not; 3]);
}

#[test]
fn a_restarted_operator_takes_no_pod_before_a_full_window() {
    let mut sim = sim(|pool| pool.revisions = vec![revision("r1", 4, true)]);
    sim.run(50_000);
    sim.world.memory = poolwright_core::cycle::Memory::default();
    sim.run(59_000);
    assert_eq!(sim.total(), 4, "{}", sim.decision().text());
    sim.run(10_000);
    assert_eq!(sim.total(), 0);
}

/// It has seen no task come, and thirty run: they have come before its time.
#[test]
fn a_restarted_operator_parks_nobody_for_want_of_a_past() {
    let mut sim = sim(|pool| {
        (pool.slots, pool.max) = (4, 20);
        pool.policy = Policy::WaitTarget {
            target: world::seconds(30),
            delay: None,
        };
    });
    let mut polls = 0;
    // One in twenty seconds.
    sim.run_with(1_800_000, |sim| {
        polls += 1;
        sim.publish(usize::from(polls % 100 == 0), 600_000);
    });
    let before = sim.consuming();
    assert!(sim.busy() >= 29 && before >= 8, "{} on {before}", sim.busy());
    sim.world.memory = poolwright_core::cycle::Memory::default();
    sim.run(60_000);
    assert_eq!(sim.consuming(), before, "{}", sim.decision().text());
    // With nothing more to come they go all the same.
    sim.run(1_500_000);
    assert_eq!((sim.total(), sim.wronged), (0, 0), "{}", sim.decision().text());
}

/// Forty tasks at once every two minutes: workers that wait for the next burst cost less than its waiting, and the decision
/// between two bursts says so.
#[test]
fn a_floor_that_pays_is_told_while_nothing_is_to_be_done() {
    let mut sim = sim(|pool| {
        (pool.slots, pool.max) = (4, 40);
        pool.policy = Policy::WaitTarget {
            target: world::seconds(30),
            delay: None,
        };
    });
    sim.start_up = 30_000;
    let mut polls = 0u64;
    sim.run_with(1_910_000, |sim| {
        polls += 1;
        sim.publish(if polls % 600 == 1 { 40 } else { 0 }, 20_000);
    });
    let (busy, waiting, total) = (sim.busy(), sim.queue.len(), sim.total());
    let decision = sim.decision();
    let text = decision.text();
    assert_eq!((busy, waiting), (0, 0), "{text}");
    assert_eq!(total, decision.to, "{text}");
    let words = "4 = 4 kept warm, which the last hour says is cheaper; without it 0 slots for 0 waiting, ";
    assert!(text.starts_with(words), "{text}");
}

/// Ages and windows are measured on the process's own clock: a wall clock that is set does not change what is asked for.
#[test]
fn a_wall_clock_that_jumps_changes_no_decision_of_the_wait_target() {
    let mut sim = sim(|pool| {
        (pool.slots, pool.max) = (4, 40);
        pool.policy = Policy::WaitTarget {
            target: world::seconds(30),
            delay: None,
        };
    });
    let mut polls = 0u64;
    // One a second, each of ten seconds.
    sim.run_with(1_200_000, |sim| {
        polls += 1;
        sim.publish(usize::from(polls.is_multiple_of(5)), 10_000);
    });
    let jumped = |sim: &mut Sim, seconds: i64| {
        let mut snapshot = sim.world.snapshot();
        let by = jiff::SignedDuration::from_secs(seconds);
        snapshot.wall = snapshot.wall.saturating_add(by).unwrap();
        let cycle = poolwright_core::cycle::cycle(&snapshot, &mut sim.world.memory);
        let decision = cycle.decisions.values().next().unwrap();
        (decision.to, decision.parking.victims.clone(), decision.text())
    };
    let before = jumped(&mut sim, 0);
    assert!((3..=6).contains(&before.0) && before.1.is_empty(), "{before:?}");
    for seconds in [-3_600, -1_000_000_000, 3_600, 1_000_000_000, 0] {
        assert_eq!(jumped(&mut sim, seconds), before, "{seconds} s");
    }
    // Nor while workers start for a burst: there may be no fewer, and no more than there are tasks for.
    sim.start_up = 30_000;
    sim.publish(60, 60_000);
    sim.run(5_000);
    let before = jumped(&mut sim, 0);
    assert!(before.0 > 8, "{before:?}");
    for seconds in [-3_600, -1_000_000_000, 3_600, 1_000_000_000, 0] {
        let after = jumped(&mut sim, seconds);
        assert!(
            (before.0..=18).contains(&after.0),
            "{seconds} s: {after:?} after {before:?}"
        );
        assert_eq!(after.1, before.1, "{seconds} s");
    }
}

/// `7 = ceil(26 slots for … / 4 slots)`, whatever comes after it.
fn formula(text: &str) -> Option<(u32, u32)> {
    let (before, after) = text.split_once(" = ceil(")?;
    let pods = before.split_whitespace().last()?.parse().ok()?;
    let slots = after
        .trim_start_matches("there are tasks for ")
        .split(' ')
        .next()?;
    Some((pods, slots.parse().ok()?))
}

/// Whatever changed the number afterwards is a limit of its own.
#[test]
fn the_formula_of_a_wait_target_is_true_in_every_decision() {
    let mut sim = sim(|pool| {
        (pool.slots, pool.max) = (4, 40);
        pool.policy = Policy::WaitTarget {
            target: world::seconds(30),
            delay: None,
        };
    });
    let (mut polls, mut seen) = (0u64, std::collections::BTreeSet::new());
    sim.run_with(4_000_000, |sim| {
        polls += 1;
        // Ten to thirty busy slots, up and down in twenty minutes.
        let wave = (polls / 1500) % 4;
        let every = [10, 7, 5, 7][usize::try_from(wave).unwrap()];
        sim.publish(usize::from(polls % every == 0), 20_000 + polls * 7919 % 15_000);
        if polls < 2 {
            return;
        }
        let decision = sim.decision();
        seen.extend(decision.limits.iter().map(|limit| limit.name));
        let text = decision.text();
        // A backlog's slots may be a fraction, which the words round.
        if let Some((pods, slots)) = formula(&text).filter(|_| text.contains("backlog alone")) {
            assert_eq!(pods, slots.div_ceil(4), "{text}");
        }
        let reached = decision.limits.last().map_or(decision.to, |limit| limit.to);
        assert_eq!(decision.to, reached, "{text}");
    });
    assert!(
        seen.contains("littleMore") && seen.contains("littleLess"),
        "{seen:?}"
    );
    // What it went by is told, too: two tasks in five to seven seconds, of 20 to 35 s.
    let decision = sim.decision();
    let input = |name: &str, within: std::ops::RangeInclusive<u64>| {
        let told = decision.inputs.iter().find(|input| input.name == name);
        assert!(
            told.is_some_and(|told| within.contains(&told.value)),
            "{name}: {told:?}"
        );
    };
    input("arrivalsPerHour", 1_700..=3_700);
    input("serviceMilliseconds", 20_000..=35_000);
    input("oldestWaitMilliseconds", 0..=30_000);
    input("startUpMilliseconds", 1_000..=30_000);
    input("waitTargetSeconds", 30..=30);
}

/// Sixty tasks of four seconds at once, for ten slots a pod: two pods are done with them within the target. Neither are they
/// a stream, nor do tasks last ever longer because those that began together end together.
#[test]
fn the_first_burst_of_a_new_worker_pool_is_no_stream() {
    for (late, start_up, most) in [(false, 1_500, 3), (true, 1_500, 3), (false, 5_000, 5)] {
        let mut sim = sim(|pool| {
            pool.policy = Policy::WaitTarget {
                target: world::seconds(30),
                delay: None,
            };
        });
        (sim.late, sim.start_up) = (late, start_up);
        sim.run(3_000);
        sim.publish(60, 4_000);
        sim.run(65_000);
        let peak = sim.replicas.iter().max().copied();
        assert!(
            peak <= Some(most),
            "{:?} with a start-up of {start_up}",
            sim.replicas
        );
        assert_eq!((sim.finished, sim.total()), (60, 0), "{}", sim.decision().text());
    }
}

#[test]
fn a_lowered_maximum_is_reached_as_pods_empty() {
    let mut sim = sim(|pool| pool.slots = 1);
    sim.publish(5, 100_000);
    sim.publish(5, 300_000);
    sim.run(10_000);
    sim.world.pool().max = 2;
    sim.run(80_000);
    assert_eq!(sim.total(), 10);
    sim.run(60_000);
    assert_eq!((sim.total(), sim.busy()), (5, 5), "{}", sim.decision().text());
    sim.run(300_000);
    assert_eq!((sim.total(), sim.finished, sim.wronged), (0, 10, 0));
}

#[test]
fn pods_that_find_no_node_are_not_multiplied_and_go_first() {
    let mut sim = sim(|pool| pool.max = 20);
    sim.nodes = 2;
    sim.publish(100, 30_000);
    sim.run(60_000);
    assert_eq!(sim.total(), 10, "{}", sim.decision().text());
    sim.run(300_000);
    assert_eq!((sim.total(), sim.finished, sim.wronged), (0, 100, 0));
}
