//! Workers that should go are parked first: they take no more work, finish what they hold, come back if they are needed
//! again, and go only when they are empty.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "parking/churn.rs"]
mod churn;
#[path = "parking/ground.rs"]
mod ground;

use ground::{Told, Yard};
use kube::ResourceExt;
use poolwright_tests::process::Frozen;
use poolwright_tests::scenario::LIMIT;
use poolwright_tests::*;
use serde_json::json;
use std::time::Duration;

/// Parked workers of one slot, on Redis.
async fn set(prefix: &str) -> Result<(Yard, Redis)> {
    let redis = Redis::start(RedisConfig::default()).await?;
    let stage = Stage::new(prefix).await?;
    let wire = Wire::redis(&redis, 0);
    Ok((Yard::new(stage, wire), redis))
}

#[tokio::test]
async fn a_parked_worker_stays_so_when_redis_is_restarted() -> Result<()> {
    let (yard, mut redis) = set("p-redis").await?;
    let (ids, parked) = yard.park_one_of_two_busy(35.0).await?;
    redis.stop();
    redis.start_again().await?;
    expect_it_takes_nothing_and_goes(yard, ids, &parked).await
}

#[tokio::test]
async fn a_parked_worker_stays_so_when_rabbitmq_is_restarted() -> Result<()> {
    let rabbit = std::sync::Arc::new(RabbitMq::start(RabbitMqConfig::default()).await?);
    let vhost = rabbit.vhost("p-rabbit", "").await?;
    let stage = Stage::new("p-rabbit").await?;
    let wire = Wire::vhost(&stage, &vhost).await?;
    let yard = Yard::new(stage, wire);
    let (ids, parked) = yard.park_one_of_two_busy(45.0).await?;
    let stopped = std::sync::Arc::clone(&rabbit);
    tokio::task::spawn_blocking(move || stopped.stop()).await?;
    rabbit.start_again().await?;
    expect_it_takes_nothing_and_goes(yard, ids, &parked).await
}

/// After the broker was away: what comes is done by the other worker alone.
async fn expect_it_takes_nothing_and_goes(yard: Yard, mut ids: Vec<String>, parked: &str) -> Result<()> {
    let stage = &yard.stage;
    assert!(!yard.has_ended(parked)?, "the long task ended too early to tell");
    ids.extend(yard.wire.publish(&Batch::sleep("q", 6, 0.5)).await?);
    stage.await_ended(ids.len(), LIMIT).await?;
    let mine = stage.events()?.into_iter().filter(|event| event.pod == parked);
    let mine: Vec<TaskEvent> = mine.collect();
    assert_eq!(
        mine.len(),
        2,
        "{parked} took more work after it was parked: {mine:?}"
    );
    stage.await_no_pods("q", LIMIT).await?;
    assert!(yard.moves.all().iter().all(|one| one.act != Act::Back));
    yard.expect_well(&ids)
}

/// A worker that starts again consumes what its command line says, and knows nothing of the past. The operator is away
/// meanwhile: while a worker's container does not run, it holds nothing, and its pod would go.
#[tokio::test]
async fn a_parked_worker_that_is_started_again_is_told_again() -> Result<()> {
    let (mut yard, redis) = set("p-again").await?;
    let told = Told::listen(&redis).await?;
    let (_, parked) = yard.park_one_of_two_busy(60.0).await?;
    let before = told.stops(&parked);
    assert!(before > 0, "it was parked and not told");
    yard.stage.operator.kill();
    yard.stage.kill_worker(&parked)?;
    // The other worker can only fetch one of these while it is busy.
    yard.wire.publish(&Batch::sleep("q", 4, 0.5)).await?;
    wait_until("the worker to consume again by itself", LIMIT, || async {
        yard.has_ended(&parked)
    })
    .await?;
    assert_eq!(told.stops(&parked), before);
    yard.stage.operator.start_again().await?;
    wait_until("it to be told again", LIMIT, || async {
        Ok(told.stops(&parked) > before)
    })
    .await?;
    wait_until("it to go", LIMIT, || async { Ok(!yard.is_there(&parked).await?) }).await?;
    assert!(yard.moves.all().iter().all(|one| one.act != Act::Back));
    // The task that died with it had been acknowledged; all others are done.
    yard.stage.await_ended(5, LIMIT).await?;
    yard.stage.await_no_pods("q", LIMIT).await?;
    let events = yard.stage.events()?.into_iter();
    let ended = events.filter(|event| event.event == "end");
    let ended: Vec<String> = ended.map(|event| event.id).collect();
    assert_eq!(ended.len(), 5, "{ended:?}");
    yard.expect_well(&ended)
}

/// No answer of a worker shows what waits for its turn there: it is given back when the worker ends, and done elsewhere.
#[tokio::test]
async fn a_parked_worker_with_rate_limited_tasks_loses_none() -> Result<()> {
    let (yard, redis) = set("p-rate").await?;
    let stage = &yard.stage;
    yard.two(json!({"prefetchMultiplier": 2})).await?;
    let batch = Batch {
        task: "tapp.limited".into(),
        ..Batch::sleep("q", 6, 0.5)
    };
    let ids = yard.wire.publish(&batch).await?;
    // Each has done its first and has fetched two more.
    stage.await_ended(2, LIMIT).await?;
    yard.at_most(1).await?;
    let parked = yard.await_parked().await?;
    // No worker holds more than its prefetch of two, so what is above it is the parked one's.
    let held = fetched(&redis).await?;
    println!("{parked} is parked while {held} tasks are fetched and not begun");
    assert!(
        held > 2,
        "{parked} may have held none of the {held} that were fetched"
    );
    wait_until("one to go", LIMIT, || async {
        Ok(yard.moves.count(|act| matches!(act, Act::Went { .. })) == 1)
    })
    .await?;
    let done = ids.len() - stage.running()?.len();
    println!(
        "{done} tasks of {} were done or waited when one worker went",
        ids.len()
    );
    yard.at_most(3).await?;
    stage.await_ended(ids.len(), LIMIT * 2).await?;
    stage.await_no_pods("q", LIMIT).await?;
    yard.expect_well(&ids)
}

/// They are given back when it ends: an hour of countdown is no reason to keep a worker for an hour.
#[tokio::test]
async fn a_parked_worker_with_tasks_that_are_not_due_gives_them_back() -> Result<()> {
    let (yard, redis) = set("p-eta").await?;
    let stage = &yard.stage;
    yard.two(json!({})).await?;
    let batch = Batch {
        countdown: Some(75.0),
        ..Batch::sleep("q", 10, 0.5)
    };
    let ids = yard.wire.publish(&batch).await?;
    // With a minimum of none both are parked in the moment before these tasks are seen, and either may come back.
    let one = json!({"spec": {"scaling": {"minReplicas": 1, "maxReplicas": 1}}});
    stage.patch_pool("q", one).await?;
    let parked = yard.await_parked().await?;
    let held = yard.scheduled(&redis, &parked).await?;
    println!("{parked} holds {held} tasks that are not due");
    assert!(held > 0, "the other worker has fetched all");
    wait_until("it to go", LIMIT, || async { Ok(!yard.is_there(&parked).await?) }).await?;
    assert!(stage.events()?.is_empty(), "it went only when its tasks were due");
    yard.at_least(0).await?;
    stage.await_ended(ids.len(), LIMIT).await?;
    stage.await_no_pods("q", LIMIT).await?;
    yard.expect_well(&ids)
}

#[tokio::test]
async fn demand_that_returns_brings_the_parked_back_before_it_creates() -> Result<()> {
    let (mut yard, _redis) = set("p-back").await?;
    // Late, so that a worker holds no more than it runs.
    yard.wire = yard.wire.late(true);
    let stage = &yard.stage;
    let shape = json!({
        "celery": {"concurrency": 2},
        "scaling": {"minReplicas": 1, "maxReplicas": 4, "scaleDownDelaySeconds": 3},
    });
    yard.wire.pool(stage, "q", &["q"], shape).await?;
    yard.await_consumers(1).await?;
    let mut publisher = yard.wire.publisher().await?;
    // The first worker is full when the second long task comes, so each gets one.
    let mut ids = publisher.publish(&Batch::sleep("q", 1, 70.0)).await?;
    ids.extend(publisher.publish(&Batch::sleep("q", 1, 20.0)).await?);
    stage.await_running(2, LIMIT).await?;
    ids.extend(publisher.publish(&Batch::sleep("q", 1, 60.0)).await?);
    stage.await_running(3, LIMIT).await?;
    let parked = yard.await_parked().await?;
    yard.await_deaf(&parked).await?;
    let since = yard.moves.all().len();
    let new = publisher.publish(&Batch::sleep("q", 2, 8.0)).await?;
    ids.extend(new.clone());
    stage.await_running(4, LIMIT).await?;
    let events = stage.events()?;
    let by_it = |event: &TaskEvent| event.pod == parked && new.contains(&event.id);
    assert!(
        events.iter().any(by_it),
        "the parked one did none of the new tasks"
    );
    let later = yard.moves.all().split_off(since);
    assert!(
        later.iter().any(|one| one.act == Act::Back && one.pod == parked),
        "{later:?}"
    );
    assert!(later.iter().all(|one| one.act != Act::Created), "{later:?}");
    assert_eq!(stage.peak("q"), 2, "{:?}", stage.timeline("q"));
    yard.at_least(0).await?;
    stage.await_ended(ids.len(), LIMIT).await?;
    stage.await_no_pods("q", LIMIT).await?;
    yard.expect_well(&ids)
}

#[tokio::test]
async fn a_hung_worker_keeps_no_other_and_is_not_taken_as_empty() -> Result<()> {
    let (yard, _redis) = set("p-hung").await?;
    let stage = &yard.stage;
    let shape = json!({
        "celery": {"concurrency": 1},
        "scaling": {"minReplicas": 4, "maxReplicas": 4, "scaleDownDelaySeconds": 3},
    });
    yard.wire.pool(stage, "q", &["q"], shape).await?;
    yard.await_consumers(4).await?;
    // One that hangs in the middle of a task, which nobody sees to end.
    let ids = yard.wire.publish(&Batch::sleep("q", 1, 5.0)).await?;
    stage.await_running(1, LIMIT).await?;
    let hung = stage.events()?.remove(0).pod;
    let starts = stage.starts()?;
    let pid = starts.iter().find(|one| one.pod == hung).unwrap().pid;
    let frozen = Frozen::new(pid);
    yard.at_least(0).await?;
    stage.await_replicas("q", 1, LIMIT).await?;
    stage.expect_steady("q", 1, Duration::from_secs(12)).await?;
    assert!(yard.is_there(&hung).await?, "the hung worker was taken");
    drop(frozen);
    stage.await_ended(1, LIMIT).await?;
    stage.await_no_pods("q", LIMIT).await?;
    yard.expect_well(&ids)
}

/// Kubernetes takes pods that are not ready before it looks at marks: a parked one waits until that would be itself.
#[tokio::test]
async fn a_busy_pod_that_is_not_ready_is_not_taken_for_the_parked_one() -> Result<()> {
    let (yard, _redis) = set("p-unready").await?;
    let stage = &yard.stage;
    // The sidecar ends, and ends again at each start, while a file with its pod's name is there.
    let dir = stage.dir.path().display();
    let script = format!("while [ ! -e {dir}/$HOSTNAME ]; do sleep 0.2; done; exit 1");
    let sidecar = json!({"name": "proxy", "image": CELERY_IMAGE, "command": ["sh", "-c", script]});
    let shape = json!({
        "celery": {"concurrency": 1}, "pod": {"sidecars": [sidecar]},
        "scaling": {"minReplicas": 2, "maxReplicas": 2, "scaleDownDelaySeconds": 3},
    });
    yard.wire.pool(stage, "q", &["q"], shape).await?;
    yard.await_consumers(2).await?;
    let ids = yard.wire.publish(&Batch::sleep("q", 1, 60.0)).await?;
    stage.await_running(1, LIMIT).await?;
    let busy = stage.events()?.remove(0).pod;
    let file = stage.dir.path().join(&busy);
    std::fs::write(&file, "")?;
    wait_until("the busy pod to be seen busy and not ready", LIMIT, || async {
        let status = stage.status("q").await?;
        Ok(status.ready_replicas == Some(1) && status.busy_slots == Some(1))
    })
    .await?;
    yard.at_least(0).await?;
    let parked = yard.await_parked().await?;
    assert_ne!(parked, busy, "the busy one was parked beside an idle one");
    stage.expect_steady("q", 2, Duration::from_secs(15)).await?;
    std::fs::remove_file(&file)?;
    // Ready again, it is the marked one's turn.
    stage.await_replicas("q", 1, LIMIT).await?;
    assert_eq!(stage.running()?.len(), 1, "it went only after the task");
    stage.await_ended(1, LIMIT).await?;
    stage.await_no_pods("q", LIMIT).await?;
    yard.expect_well(&ids)
}

#[tokio::test]
async fn four_idle_workers_go_with_one_mark_each_and_one_write_of_the_number() -> Result<()> {
    let (yard, _redis) = set("p-writes").await?;
    let stage = &yard.stage;
    let shape = json!({
        "celery": {"concurrency": 1},
        "scaling": {"minReplicas": 4, "maxReplicas": 4, "scaleDownDelaySeconds": 3},
    });
    yard.wire.pool(stage, "q", &["q"], shape).await?;
    yard.await_consumers(4).await?;
    let since = jiff::Timestamp::now();
    yard.at_least(0).await?;
    stage.await_no_pods("q", LIMIT).await?;
    let written = audit_entries(&stage.plane.audit_log())?.into_iter();
    let written: Vec<AuditEntry> = written
        .filter(|entry| entry.namespace == stage.namespace.name && entry.user == "admin")
        .filter(|entry| entry.is_write() && entry.at > since)
        .collect();
    let count = |resource: &str, subresource: &str| {
        let same = |entry: &&AuditEntry| entry.resource == resource && entry.subresource == subresource;
        written.iter().filter(same).count()
    };
    let (marks, numbers) = (count("pods", ""), count("deployments", "scale"));
    println!("{marks} writes of pods, {numbers} of the number");
    assert!(numbers == 1 && (1..=4).contains(&marks), "{written:#?}");
    assert_eq!(count("deployments", ""), 0, "{written:#?}");
    yard.expect_well(&[])
}

/// Messages that workers have fetched and not acknowledged, by the broker.
async fn fetched(redis: &Redis) -> Result<u64> {
    let mut connection = brokers::connect(&redis.url(0)).await?;
    Ok(redis::cmd("HLEN")
        .arg("unacked")
        .query_async(&mut connection)
        .await?)
}

impl Yard {
    /// Tasks that are not due and that a pod's worker holds, by Celery's own client.
    async fn scheduled(&self, redis: &Redis, pod: &str) -> Result<usize> {
        let node = format!("celery@{pod}");
        let mut command = Celery::locate()?.command("celery", &redis.url(0), &[]);
        command.args([
            "-A",
            "tapp",
            "inspect",
            "scheduled",
            "--json",
            "-t",
            "5",
            "-d",
            &node,
        ]);
        let output = tokio::process::Command::from(command).output().await?;
        let answer: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        Ok(answer[&node].as_array().map_or(0, Vec::len))
    }

    /// True while the pod is there and is not being deleted.
    async fn is_there(&self, name: &str) -> Result<bool> {
        let pods = self.stage.pods("q").await?;
        let mut living = pods
            .iter()
            .filter(|pod| pod.metadata.deletion_timestamp.is_none());
        Ok(living.any(|pod| pod.name_any() == name))
    }
}
