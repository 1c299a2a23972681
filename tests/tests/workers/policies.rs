//! Both policies meet the same arrivals side by side, on real workers, and what the simulator says of them is compared with
//! what happened.
#![allow(
    missing_docs,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)]

mod missed;

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use poolwright_sim::outcome::quantile;
use poolwright_sim::poolwright::{Poolwright, Settings};
use poolwright_sim::scenario::{Scenario, Task};
use poolwright_sim::world::run;
use poolwright_tests::*;
use serde_json::json;

/// The target of both queues, in seconds.
const TARGET: u64 = 30;
const SLOTS: u32 = 2;
const MOST: u32 = 12;
/// Runs of the simulator.
const SEEDS: u64 = 10;

/// At which second how many tasks are published, and how long each takes: a trickle, and a burst every minute and a half, of
/// short and of longer tasks by turns.
fn plan(length: u64) -> Vec<(u64, usize, f64)> {
    let trickle = (0..length).step_by(6).map(|second| (second, 1, 3.0));
    let bursts = (20..length)
        .step_by(90)
        .enumerate()
        .map(|(at, second)| (second, 24, if at.is_multiple_of(2) { 2.0 } else { 5.0 }));
    let mut plan: Vec<_> = trickle.chain(bursts).collect();
    plan.sort_by_key(|(second, ..)| *second);
    plan
}

/// What a policy came to.
#[derive(Debug)]
struct Account {
    waits: Vec<u64>,
    slot_seconds: f64,
    peak: i32,
}

impl Account {
    fn p95(&self) -> f64 {
        quantile(&self.waits, 0.95) as f64 / 1000.0
    }
}

/// Waits and cost of one WorkerPool, from the tasks' own log and the numbers that were written.
fn account(stage: &Stage, pool: &str, came: &BTreeMap<String, f64>) -> Result<Account> {
    let mut waits: Vec<u64> = stage
        .events()?
        .iter()
        .filter(|event| event.event == "start")
        .filter_map(|event| Some(((event.at - came.get(&event.id)?).max(0.0) * 1000.0) as u64))
        .collect();
    waits.sort_unstable();
    let timeline = stage.timeline(pool);
    let now = Instant::now();
    let (mut paid, mut last) = (0.0, None::<(Instant, i32)>);
    for (at, pods) in timeline.iter().copied().chain([(now, 0)]) {
        if let Some((since, before)) = last {
            paid += f64::from(before) * (at - since).as_secs_f64();
        }
        last = Some((at, pods));
    }
    Ok(Account {
        waits,
        slot_seconds: paid * f64::from(SLOTS),
        peak: stage.peak(pool),
    })
}

fn wall() -> f64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or_default().as_secs_f64()
}

/// Start-up times of one WorkerPool's workers: mean and standard deviation, in milliseconds. What the operator tells is of no
/// use here, because it plans with the longest.
#[derive(Clone, Copy)]
struct StartUps {
    workers: usize,
    mean: u64,
    spread: u64,
}

/// From the pod's appearance to its first task, of the workers whose first task had waited before: these came up no later.
fn start_ups(stage: &Stage, pool: &str, begin: Instant, came: &BTreeMap<String, f64>) -> Result<StartUps> {
    let now = (Instant::now(), wall());
    let mut created: BTreeMap<String, f64> = BTreeMap::new();
    for one in stage.consuming(pool, begin) {
        let at = now.1 - (now.0 - one.at).as_secs_f64();
        created.entry(one.pod).or_insert(at);
    }
    let mut events = stage.events()?;
    events.retain(|event| event.event == "start");
    events.sort_by(|left, right| left.at.total_cmp(&right.at));
    let mut took = Vec::new();
    for event in &events {
        let (Some(pushed), Some(since)) = (came.get(&event.id), created.remove(&event.pod)) else {
            continue;
        };
        if event.at - pushed > 1.0 {
            took.push(event.at - since);
        }
    }
    if took.len() < 2 {
        return Err(format!(
            "{pool}: only {} workers were seen to come up for a task",
            took.len()
        )
        .into());
    }
    let mean = took.iter().sum::<f64>() / took.len() as f64;
    let variance = took.iter().map(|one| (one - mean).powi(2)).sum::<f64>() / (took.len() - 1) as f64;
    Ok(StartUps {
        workers: took.len(),
        mean: (mean * 1000.0) as u64,
        spread: (variance.sqrt() * 1000.0) as u64,
    })
}

/// The same arrivals in the simulator, with the start-up times that were seen: the mean, and how far start-up times that
/// scatter carry it to both sides.
struct Prediction {
    waits: (f64, f64),
    slot_seconds: f64,
    peak: (i32, i32),
}

fn predicted(plan: &[(u64, usize, f64)], length: u64, start_ups: StartUps, wait_target: bool) -> Prediction {
    let mut tasks: Vec<Task> = Vec::new();
    for (second, count, seconds) in plan {
        tasks.extend((0..*count).map(|_| Task {
            arrives: second * 1000 + 5000,
            service: (seconds * 1000.0) as u64,
            queue: 0,
            failures: 0,
        }));
    }
    let mut scenario = Scenario::plain("side-by-side", (length + 90) * 1000, tasks);
    scenario.queues[0].wait_target = TARGET * 1000;
    (scenario.fleets[0].slots, scenario.fleets[0].bounds) = (SLOTS, (0, MOST));
    scenario.fleets[0].late = false;
    (scenario.start_up[0].mean, scenario.start_up[0].spread) = (start_ups.mean, start_ups.spread);
    let settings = Settings {
        wait_target,
        ..Settings::default()
    };
    let runs: Vec<Account> = (1..=SEEDS)
        .map(|seed| {
            let outcome = run(&scenario, &mut Poolwright::new(&scenario, settings), seed);
            Account {
                waits: outcome.sorted_waits(),
                slot_seconds: outcome.slot_hours() * 3600.0,
                peak: outcome.peak[0].try_into().unwrap_or(i32::MAX),
            }
        })
        .collect();
    let waits = || runs.iter().map(Account::p95);
    let peaks = || runs.iter().map(|run| run.peak);
    Prediction {
        waits: (waits().fold(f64::MAX, f64::min), waits().fold(0.0, f64::max)),
        slot_seconds: runs.iter().map(|run| run.slot_seconds).sum::<f64>() / SEEDS as f64,
        peak: (peaks().min().unwrap_or(0), peaks().max().unwrap_or(0)),
    }
}

#[tokio::test]
async fn the_wait_target_costs_less_than_a_slot_for_each_task_and_is_kept() -> Result<()> {
    let length: u64 = scale::pick(180, 600);
    let stage = Stage::new("policies").await?;
    let redis = Redis::start(RedisConfig::default()).await?;
    let wire = Wire::redis(&redis, 0);
    for policy in ["WaitTarget", "Backlog"] {
        let scaling = json!({"policy": policy, "maxReplicas": MOST, "scaleDownDelaySeconds": null});
        let name = policy.to_lowercase();
        wire.pool(&stage, &name, &[&name], json!({"scaling": scaling}))
            .await?;
    }
    let mut publisher = wire.publisher().await?;
    let plan = plan(length);
    let begin = Instant::now();
    let mut came: [BTreeMap<String, f64>; 2] = Default::default();
    for (second, count, seconds) in &plan {
        tokio::time::sleep_until((begin + Duration::from_secs(*second)).into()).await;
        for (queue, times) in ["waittarget", "backlog"].into_iter().zip(&mut came) {
            let ids = publisher.publish(&Batch::sleep(queue, *count, *seconds)).await?;
            times.extend(ids.into_iter().map(|id| (id, wall())));
        }
    }
    let all = came.iter().map(BTreeMap::len).sum();
    stage.await_ended(all, Duration::from_secs(120)).await?;
    stage.await_no_pods("backlog", Duration::from_secs(150)).await?;
    // After ten minutes of such bursts workers may be kept warm for the next, which does not come.
    stage
        .kubectl()?
        .run(["scale", "wp/waittarget", "--replicas=0"])
        .await?;
    stage.await_no_pods("waittarget", Duration::from_secs(60)).await?;
    let ids: Vec<String> = came.iter().flat_map(BTreeMap::keys).cloned().collect();
    stage.expect_all_done_once(&ids)?;
    stage.expect_no_busy_victim()?;
    let mut both = Vec::new();
    for (at, name) in ["waittarget", "backlog"].into_iter().enumerate() {
        let seen = account(&stage, name, &came[at])?;
        let start_ups = start_ups(&stage, name, begin, &came[at])?;
        let said = predicted(&plan, length, start_ups, at == 0);
        println!(
            "{name}, start-up {:.1} s ± {:.1} of {} workers: p50 {:.1} s, p95 {:.1} s (simulated {:.1} to {:.1} s); {:.0} slot-seconds (simulated {:.0}: {:+.0} %); peak {} (simulated {} to {})",
            start_ups.mean as f64 / 1000.0,
            start_ups.spread as f64 / 1000.0,
            start_ups.workers,
            quantile(&seen.waits, 0.5) as f64 / 1000.0,
            seen.p95(),
            said.waits.0,
            said.waits.1,
            seen.slot_seconds,
            said.slot_seconds,
            100.0 * (said.slot_seconds / seen.slot_seconds - 1.0),
            seen.peak,
            said.peak.0,
            said.peak.1
        );
        both.push((seen, said));
    }
    let (target, backlog) = (&both[0].0, &both[1].0);
    assert!(target.p95() <= TARGET as f64, "{:?}", target.waits);
    assert!(
        target.slot_seconds < 0.9 * backlog.slot_seconds,
        "{} slot-seconds, and {} with a slot for each task",
        target.slot_seconds,
        backlog.slot_seconds
    );
    for (seen, said) in &both {
        let error = said.slot_seconds / seen.slot_seconds;
        assert!((0.6..1.6).contains(&error), "the simulator is off by {error}");
        let slack = f64::max(5.0, 0.5 * seen.p95());
        assert!(
            (said.waits.0 - slack..=said.waits.1 + slack).contains(&seen.p95()),
            "p95 {} s, simulated {:?}",
            seen.p95(),
            said.waits
        );
        let slack = 2.max(seen.peak / 3);
        assert!(
            (said.peak.0 - slack..=said.peak.1 + slack).contains(&seen.peak),
            "peak {}, simulated {:?}: {seen:?}",
            seen.peak,
            said.peak
        );
    }
    stage.strike().await
}
