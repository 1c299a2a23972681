//! Workers that should go are parked first: they take no more work, finish what they hold, come back if they are needed
//! again, and go only when they are empty.

mod churn;
mod ground;
mod held;

use ground::Yard;
use kube::ResourceExt;
use poolwright_api::v1alpha1::WorkerPoolStatus;
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

/// The same on a virtual host of RabbitMQ.
async fn set_on_rabbitmq(prefix: &str) -> Result<Yard> {
    let vhost = RabbitMq::shared().await?.vhost(prefix, "").await?;
    let stage = Stage::new(prefix).await?;
    let wire = Wire::vhost(&stage, &vhost).await?;
    Ok(Yard::new(stage, wire))
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
    yard.expect_well(&ids).await
}

#[tokio::test]
async fn demand_that_returns_brings_the_parked_back_before_it_creates_on_redis() -> Result<()> {
    let (yard, _redis) = set("p-back").await?;
    demand_that_returns(yard).await
}

#[tokio::test]
async fn demand_that_returns_brings_the_parked_back_before_it_creates_on_rabbitmq() -> Result<()> {
    demand_that_returns(set_on_rabbitmq("p-back-r").await?).await
}

async fn demand_that_returns(mut yard: Yard) -> Result<()> {
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
    yard.await_told_parked(1).await?;
    yard.expect_column_parked("1").await?;
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
    let moved = yard.moves.all().into_iter().filter(|one| one.pod == parked);
    let moved: Vec<_> = moved.filter(|one| one.act != Act::Created).collect();
    let written = stage.writes_since(jiff::Timestamp::UNIX_EPOCH, &[])?.into_iter();
    let written: Vec<AuditEntry> = written.filter(|entry| entry.name == parked).collect();
    assert_eq!(
        written.len(),
        moved.len(),
        "one patch each way: {moved:?} {written:#?}"
    );
    assert_eq!(stage.peak("q"), 2, "{:?}", stage.timeline("q"));
    yard.await_told_parked(0).await?;
    yard.at_least(0).await?;
    stage.await_ended(ids.len(), LIMIT).await?;
    stage.await_no_pods("q", LIMIT).await?;
    yard.expect_well(&ids).await
}

#[tokio::test]
async fn a_hung_worker_keeps_no_other_and_is_not_taken_as_empty_on_redis() -> Result<()> {
    let (yard, _redis) = set("p-hung").await?;
    hung_worker(yard).await
}

#[tokio::test]
async fn a_hung_worker_keeps_no_other_and_is_not_taken_as_empty_on_rabbitmq() -> Result<()> {
    hung_worker(set_on_rabbitmq("p-hung-r").await?).await
}

async fn hung_worker(yard: Yard) -> Result<()> {
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
    yard.expect_well(&ids).await
}

/// Kubernetes takes pods that are not ready before it looks at marks: a parked one waits until that would be itself.
#[tokio::test]
async fn a_busy_pod_that_is_not_ready_is_not_taken_for_the_parked_one_on_redis() -> Result<()> {
    let (yard, _redis) = set("p-unready").await?;
    busy_and_not_ready(yard).await
}

#[tokio::test]
async fn a_busy_pod_that_is_not_ready_is_not_taken_for_the_parked_one_on_rabbitmq() -> Result<()> {
    busy_and_not_ready(set_on_rabbitmq("p-unready-r").await?).await
}

async fn busy_and_not_ready(yard: Yard) -> Result<()> {
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
    yard.expect_well(&ids).await
}

#[tokio::test]
async fn four_idle_workers_go_with_one_mark_each_and_one_write_of_the_number_on_redis() -> Result<()> {
    let (yard, _redis) = set("p-writes").await?;
    four_idle(yard).await
}

#[tokio::test]
async fn four_idle_workers_go_with_one_mark_each_and_one_write_of_the_number_on_rabbitmq() -> Result<()> {
    four_idle(set_on_rabbitmq("p-writes-r").await?).await
}

async fn four_idle(yard: Yard) -> Result<()> {
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
    let written = stage.writes_since(since, &[])?;
    let count = |resource: &str, subresource: &str| {
        let same = |entry: &&AuditEntry| entry.resource == resource && entry.subresource == subresource;
        written.iter().filter(same).count()
    };
    let (marks, numbers) = (count("pods", ""), count("deployments", "scale"));
    println!("{marks} writes of pods, {numbers} of the number");
    assert!(numbers == 1 && (1..=4).contains(&marks), "{written:#?}");
    assert_eq!(count("deployments", ""), 0, "{written:#?}");
    yard.expect_well(&[]).await
}

impl Yard {
    /// Waits until the status tells of so many parked pods.
    async fn await_told_parked(&self, count: i32) -> Result<()> {
        let what = format!("{count} parked");
        let told = |status: &WorkerPoolStatus| status.parked_replicas == Some(count);
        self.stage.await_status("q", &what, LIMIT, told).await
    }

    /// What `kubectl get wp -o wide` shows under PARKED.
    async fn expect_column_parked(&self, shown: &str) -> Result<()> {
        let kubectl = self.stage.kubectl()?;
        let table = kubectl.run(["get", "wp", "q", "-o", "wide"]).await?;
        let columns = |line: usize| table.lines().nth(line).unwrap_or_default();
        // Columns are as wide as their longest cell, so a cell stands under its head.
        let at = columns(0)
            .find("PARKED")
            .ok_or_else(|| format!("no PARKED in\n{table}"))?;
        let cell = columns(1)
            .get(at..)
            .and_then(|rest| rest.split_whitespace().next());
        assert_eq!(cell, Some(shown), "{table}");
        Ok(())
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
