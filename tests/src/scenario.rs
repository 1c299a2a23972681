//! What must hold on every broker, written once and run on each.

use crate::process::Daemon;
use crate::{Batch, Celery, Publisher, Result, Stage, TaskEvent, Told, Wire, scale, wait_until};
use poolwright_api::ConditionType;
use poolwright_api::v1alpha1::WorkerPoolStatus;
use serde_json::json;
use std::cell::Cell;
use std::time::{Duration, Instant};

/// Longest wait for something that a busy machine may be slow to do.
pub const LIMIT: Duration = Duration::from_secs(90);
/// Changes that a WorkerPool may tell of one burst as `Scale` events: up, at most twice more while workers come up, and
/// down in a few steps. A decision record that chatters says dozens.
const NEWS: usize = 12;

/// From zero to as many workers as the tasks need, in one write, and back; every task runs once. Returns
/// their number.
pub async fn there_and_back(stage: &Stage, wire: &Wire, pool: &str) -> Result<usize> {
    let tasks: usize = scale::pick(10, 200);
    let workers = if tasks < 20 {
        i32::try_from(tasks.div_ceil(2))?
    } else {
        10
    };
    // Before the operator looks: a publisher sends one by one, and each look is a decision.
    let ids = wire.publish(&Batch::sleep(pool, tasks, 2.0)).await?;
    let begin = Instant::now();
    wire.pool(stage, pool, &[pool], json!({})).await?;
    stage.await_replicas(pool, workers, LIMIT).await?;
    expect_start_up(stage, pool, begin).await?;
    stage
        .await_ended(tasks, LIMIT.max(Duration::from_secs(tasks as u64)))
        .await?;
    stage.await_replicas(pool, 0, LIMIT).await?;
    stage.await_no_pods(pool, LIMIT).await?;
    let timeline = stage.timeline(pool);
    let rise: Vec<i32> = timeline
        .iter()
        .map(|(_, sum)| *sum)
        .filter(|sum| *sum > 0)
        .collect();
    if rise.first() != Some(&workers) || stage.peak(pool) != workers {
        return Err(format!("{workers} workers were not started in one write: {timeline:?}").into());
    }
    if stage.reversals(pool) > 1 {
        return Err(format!("{pool} flapped: {timeline:?}").into());
    }
    stage.expect_no_busy_victim()?;
    stage.expect_all_done_once(&ids)?;
    // As many as there may be are told by that.
    let said_up = if workers == 10 { "AtMaximum" } else { "ScaledUp" };
    wait_until("both directions to be told", LIMIT, || async {
        let up = stage.notes_about(pool, said_up).await?;
        let down = stage.notes_about(pool, "ScaledDown").await?;
        Ok(!up.is_empty() && !down.is_empty())
    })
    .await?;
    let mut told = stage.notes_about(pool, said_up).await?;
    told.extend(stage.notes_about(pool, "ScaledDown").await?);
    told.extend(stage.notes_about(pool, "AsDesired").await?);
    if told.len() > NEWS {
        return Err(format!("{} events for one burst: {told:#?}", told.len()).into());
    }
    Ok(tasks)
}

/// The start-up time of workers that were asked for since `begin` is told: no shorter than Python needs to come up, no
/// longer than there was time. A creation has whole seconds.
async fn expect_start_up(stage: &Stage, pool: &str, begin: Instant) -> Result<()> {
    let (name, label) = (
        "poolwright_worker_pool_start_up_seconds",
        format!("name=\"{pool}\""),
    );
    wait_until("a start-up time", LIMIT, || async {
        Ok(stage.metric(name, &label).await?.is_some())
    })
    .await?;
    let seconds = stage.metric(name, &label).await?.unwrap_or_default();
    let most = begin.elapsed().as_secs_f64() + 1.0;
    if !(0.3..most).contains(&seconds) {
        return Err(format!("{pool}: a start-up of {seconds} s within {most} s").into());
    }
    println!("{pool}: a start-up of {seconds} s");
    Ok(())
}

/// A task longer than every delay survives the scale-in of its neighbour, and its own.
pub async fn long_task(stage: &Stage, wire: &Wire, pool: &str) -> Result<()> {
    // At least so long, and until its neighbour is gone, however slow the machine.
    let seconds: f64 = scale::pick(15.0, 300.0);
    let gate = stage.dir.path().join(pool);
    let shape = json!({
        "celery": {"concurrency": 1, "timeLimitSeconds": 3600},
        "scaling": {"scaleDownDelaySeconds": 3},
    });
    wire.pool(stage, pool, &[pool], shape).await?;
    let mut publisher = wire.publisher().await?;
    // The short one first: whoever runs the long one may have fetched one more, which would wait for it.
    let mut ids = publisher.publish(&Batch::sleep(pool, 1, 0.5)).await?;
    let long = Batch {
        task: "tapp.hold".into(),
        extra: [("gate".to_owned(), json!(gate))].into(),
        ..Batch::sleep(pool, 1, seconds)
    };
    let long = publisher.publish(&long).await?;
    ids.extend(long.clone());
    stage.await_replicas(pool, 2, LIMIT).await?;
    let done = |id: &str| -> Result<bool> {
        Ok(stage
            .events()?
            .iter()
            .any(|event| event.id == id && event.event == "end"))
    };
    wait_until("one of two workers to go", LIMIT, || async {
        Ok(stage.peak(pool) == 2 && stage.replicas(pool).await? == 1)
    })
    .await?;
    std::fs::write(&gate, "")?;
    wait_until(
        "the long task to end",
        LIMIT + Duration::from_secs_f64(seconds),
        || async { done(&long[0]) },
    )
    .await?;
    stage.await_no_pods(pool, LIMIT).await?;
    let timeline = stage.timeline(pool);
    if stage.reversals(pool) > 1 {
        return Err(format!("{pool} flapped: {timeline:?}").into());
    }
    stage.expect_no_busy_victim()?;
    stage.expect_all_done_once(&ids)
}

/// Two waves that overlap lead to the same demand whenever tasks acknowledge. Counting the running task
/// twice would start five, not counting it three. Leaves the tasks running, which are longer than the time between two
/// questions to a busy worker: where only its answers tell what it has fetched, the fourth comes with the next one.
pub async fn same_demand(stage: &Stage, wires: &[(&str, Wire)]) -> Result<()> {
    let mut publishers = Vec::new();
    for (pool, wire) in wires {
        wire.pool(stage, pool, &[pool], json!({"celery": {"concurrency": 1}}))
            .await?;
        publishers.push(wire.publisher().await?);
    }
    for ((pool, _), publisher) in wires.iter().zip(&mut publishers) {
        publisher.publish(&Batch::sleep(pool, 1, 200.0)).await?;
    }
    for (pool, _) in wires {
        stage
            .await_status(pool, "one busy slot", LIMIT, |status| {
                status.busy_slots == Some(1)
            })
            .await?;
    }
    for ((pool, _), publisher) in wires.iter().zip(&mut publishers) {
        // Longer than a worker may go unasked: where only answers tell, a fetched task is seen within half a minute.
        publisher.publish(&Batch::sleep(pool, 3, 200.0)).await?;
    }
    let mut pods = Vec::new();
    for (pool, _) in wires {
        let seen = Cell::new(0);
        stage
            .await_status(pool, "a demand of four", LIMIT, |status| {
                workers(status).inspect(|workers| seen.set(*workers)).is_some()
            })
            .await?;
        pods.push(seen.get());
    }
    let length = Duration::from_secs(8);
    let steady = wires.iter().zip(&pods);
    let steady = steady.map(|((pool, _), pods)| stage.expect_steady(pool, *pods, length));
    futures::future::try_join_all(steady).await?;
    for ((pool, _), pods) in wires.iter().zip(pods) {
        if stage.peak(pool) != pods || stage.reversals(pool) > 0 {
            return Err(format!("{pool}: {:?}", stage.timeline(pool)).into());
        }
    }
    stage.expect_no_busy_victim()
}

/// How many workers a demand of four leads to: four; or three, where a worker that acknowledges early has fetched the
/// task that the third should have had, and more workers would find nothing to do either.
fn workers(status: &WorkerPoolStatus) -> Option<i32> {
    let demand = status.queued.unwrap_or(0) + i64::from(status.busy_slots.unwrap_or(0));
    let reason = status.last_decision.as_ref().map(|last| last.reason.as_str());
    match status.desired_replicas? {
        4 if demand == 4 => Some(4),
        3 if demand == 4 && reason == Some("NoProgress") => Some(3),
        _ => None,
    }
}

/// Tasks that a worker has fetched and not started are seen although the queue is empty. Leaves a task running.
pub async fn prefetched(stage: &Stage, wire: &Wire, pool: &str) -> Result<()> {
    let shape = json!({
        "celery": {"concurrency": 1, "prefetchMultiplier": 4},
        "scaling": {"minReplicas": 1, "maxReplicas": 1},
    });
    wire.pool(stage, pool, &[pool], shape).await?;
    stage
        .await_condition(pool, ConditionType::Ready, "True", "AsDesired", LIMIT)
        .await?;
    let mut publisher = wire.publisher().await?;
    publisher.publish(&Batch::sleep(pool, 1, 200.0)).await?;
    publisher.publish(&Batch::sleep(pool, 4, 0.5)).await?;
    // A pod that looks idle when the minimum falls would be parked, and what it holds then is no demand.
    stage
        .await_status(pool, "one busy slot", LIMIT, |status| {
            status.busy_slots == Some(1)
        })
        .await?;
    stage
        .await_tq(pool, "empty", LIMIT, |queue| {
            queue
                .status
                .as_ref()
                .is_some_and(|status| status.ready == Some(0))
        })
        .await?;
    stage
        .patch_pool(
            pool,
            json!({"spec": {"scaling": {"maxReplicas": 9, "minReplicas": 0}}}),
        )
        .await?;
    stage.await_replicas(pool, 5, LIMIT).await?;
    stage.expect_steady(pool, 5, Duration::from_secs(7)).await
}

/// Workers that are not ours are counted and named, keep the tasks that they run, do their share of those that wait, and
/// are told nothing, by name or with all others.
pub async fn foreign(stage: &Stage, wire: &Wire, pool: &str) -> Result<()> {
    // Late, so that nobody takes more than runs.
    let wire = wire.late(true);
    let told = Told::listen(&wire).await?;
    stage.queue(pool, wire.spec.clone()).await?;
    let mut theirs = Vec::new();
    for name in ["legacy1", "legacy2"] {
        theirs.push(not_ours(stage, &wire, pool, name)?);
    }
    stage
        .await_tq(pool, "two foreign consumers", LIMIT, |queue| {
            queue.status.as_ref().and_then(|status| status.foreign_consumers) == Some(2)
        })
        .await?;
    let gate = stage.dir.path().join(pool);
    let held = Batch {
        task: "tapp.hold".into(),
        extra: [("gate".to_owned(), json!(gate))].into(),
        ..Batch::sleep(pool, 2, 1.0)
    };
    let mut publisher = wire.publisher().await?;
    let mut ids = publisher.publish(&held).await?;
    stage.await_running(2, LIMIT).await?;
    // As many slots as theirs, twice.
    let shape = json!({"celery": {"concurrency": 1}, "scaling": {"maxReplicas": 4}});
    wire.workers(stage, pool, &[pool], shape).await?;
    expect_named(stage, pool).await?;
    // What they run is theirs, whatever the broker counts.
    stage.expect_steady(pool, 0, Duration::from_secs(6)).await?;
    ids.extend(share(stage, pool, &mut publisher).await?);
    std::fs::write(&gate, "")?;
    stage.await_ended(5, LIMIT).await?;
    stage.await_no_pods(pool, LIMIT).await?;
    if stage.peak(pool) != 2 {
        return Err(format!("two thirds of three are two: {:?}", stage.timeline(pool)).into());
    }
    // With no worker of ours left, theirs still do the work, and nobody has told them to stop.
    ids.extend(publisher.publish(&Batch::sleep(pool, 2, 1.0)).await?);
    stage.await_ended(7, LIMIT).await?;
    for one in &mut theirs {
        one.check()?;
    }
    let events = stage.events()?;
    let by_them = |event: &&TaskEvent| event.event == "end" && event.pod.starts_with("legacy");
    if events.iter().filter(by_them).count() < 4 {
        return Err(format!("theirs did not do their part: {events:?}").into());
    }
    told.expect_none_told(|node| node.starts_with("celery@legacy"))?;
    stage.expect_all_done_once(&ids)
}

/// Status of the queue and advice of the WorkerPool name those that are not ours.
async fn expect_named(stage: &Stage, pool: &str) -> Result<()> {
    let named = |message: &str| message.contains("celery@legacy1") && message.contains("celery@legacy2");
    wait_until("their names", LIMIT, || async {
        let (status, reason, message) = stage.queue_ready(pool).await?;
        Ok(status == "True" && reason == "ForeignConsumers" && named(&message))
    })
    .await?;
    let advice = ConditionType::ConfigurationAdvised;
    let message = stage
        .await_condition(pool, advice, "True", "ForeignConsumers", LIMIT)
        .await?;
    if !message.contains("celery@legacy1") {
        return Err(message.into());
    }
    Ok(())
}

/// Publishes three tasks, of which two are for our four slots and one for their two, and waits until so many workers are
/// asked for.
async fn share(stage: &Stage, pool: &str, publisher: &mut Publisher) -> Result<Vec<String>> {
    // All three are seen at once: what is seen of the first alone is rounded up.
    stage.patch_pool(pool, json!({"spec": {"replicas": 0}})).await?;
    stage
        .await_condition(pool, ConditionType::ManualHold, "True", "ManualHold", LIMIT)
        .await?;
    let ids = publisher.publish(&Batch::sleep(pool, 3, 1.0)).await?;
    stage
        .await_tq(pool, "three waiting", LIMIT, |queue| {
            queue.status.as_ref().and_then(|status| status.ready) == Some(3)
        })
        .await?;
    stage
        .patch_pool(pool, json!({"spec": {"replicas": null}}))
        .await?;
    stage.await_replicas(pool, 2, LIMIT).await?;
    Ok(ids)
}

/// A worker of somebody else's on the queue.
fn not_ours(stage: &Stage, wire: &Wire, queue: &str, name: &str) -> Result<Daemon> {
    let log = stage.task_log();
    let env = [
        ("TAPP_LOG", log.to_str().ok_or("a path that is no text")?),
        ("TAPP_ACKS_LATE", "1"),
        ("HOSTNAME", name),
    ];
    let mut command = Celery::locate()?.command("celery", &wire.url, &env);
    let node = format!("celery@{name}");
    command.args(["-A", "tapp", "worker", "-Q", queue, "-c", "1", "-n", &node]);
    Daemon::start(name, command, &stage.dir.path().join(name))
}
