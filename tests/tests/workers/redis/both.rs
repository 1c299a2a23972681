//! What both policies promise of tasks that are held, lost, short or not due.

use k8s_openapi::api::core::v1::ContainerStatus;
use kube::ResourceExt;
use poolwright_api::ConditionType;
use poolwright_api::v1alpha1::{TaskQueue, WorkerPoolStatus};
use poolwright_tests::scenario::LIMIT;
use poolwright_tests::*;
use serde_json::json;
use std::time::{Duration, Instant};

use super::set;

fn ready(queue: &TaskQueue) -> Option<i64> {
    queue.status.as_ref()?.ready
}

fn reserved(queue: &TaskQueue) -> Option<i64> {
    queue.status.as_ref()?.reserved
}

#[tokio::test]
async fn draining_pods_are_not_demand() -> Result<()> {
    draining("r-drain", "Backlog").await
}

#[tokio::test]
async fn nor_are_they_where_a_wait_target_is_kept() -> Result<()> {
    draining("r-drain-w", "WaitTarget").await
}

async fn draining(prefix: &str, policy: &str) -> Result<()> {
    let (stage, redis) = set(prefix).await?;
    let count = scale::pick(5, 10);
    let wire = Wire::redis(&redis, 0).late(true);
    // One for each task, which is not what either policy must ask for.
    let shape = json!({
        "celery": {"concurrency": 1},
        "scaling": {"policy": policy, "scaleDownDelaySeconds": 2}, "replicas": count,
    });
    wire.pool(&stage, "q", &["q"], shape).await?;
    let ids = wire.publish(&Batch::sleep("q", count, 30.0)).await?;
    stage.await_running(count, LIMIT).await?;
    let busy = i32::try_from(count)?;
    stage
        .await_status("q", "all busy", LIMIT, |status| status.busy_slots == Some(busy))
        .await?;
    // We take no busy worker, so somebody else does, while a pause keeps us from undoing it.
    let (kubectl, name) = (
        stage.kubectl()?,
        stage.deployments("q").await?.remove(0).name_any(),
    );
    kubectl
        .run(["annotate", "wp", "q", "poolwright.dev/paused=true"])
        .await?;
    stage.patch_pool("q", json!({"spec": {"replicas": null}})).await?;
    stage
        .await_condition("q", ConditionType::ScalingActive, "False", "Paused", LIMIT)
        .await?;
    kubectl
        .run(["scale", "deployment", &name, "--replicas=0"])
        .await?;
    wait_until("every pod to drain", LIMIT, || async {
        let pods = stage.pods("q").await?;
        Ok(pods.iter().all(|pod| pod.metadata.deletion_timestamp.is_some()))
    })
    .await?;
    let seen = |status: &WorkerPoolStatus| status.busy_slots == Some(0);
    stage
        .await_status("q", "that they are on their way out", LIMIT, seen)
        .await?;
    // The pause ends: what the draining pods hold must start nothing, to the last of them.
    kubectl
        .run(["annotate", "wp", "q", "poolwright.dev/paused-"])
        .await?;
    let since = Instant::now();
    // What runs and acknowledges late is among the fetched messages still; it is not reserved.
    stage
        .await_tq("q", "nothing but what runs", Duration::from_secs(5), |queue| {
            (ready(queue), reserved(queue)) == (Some(0), Some(0))
        })
        .await?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(stage.running()?.len(), count, "they drain, and are busy");
    stage.await_no_pods("q", LIMIT).await?;
    let later: Vec<_> = stage
        .timeline("q")
        .into_iter()
        .filter(|(at, _)| *at > since)
        .collect();
    let decisions = stage.status("q").await?.decisions;
    assert!(later.is_empty(), "{later:?}: {decisions:#?}");
    assert_eq!(stage.starts()?.len(), count, "a worker was started in vain");
    stage.expect_all_done_once(&ids)
}

#[tokio::test]
async fn a_killed_worker_with_a_hundred_prefetched_tasks_leads_to_one() -> Result<()> {
    orphans("r-orphans", "Backlog").await
}

#[tokio::test]
async fn it_leads_to_one_where_a_wait_target_is_kept() -> Result<()> {
    orphans("r-orphans-w", "WaitTarget").await
}

async fn orphans(prefix: &str, policy: &str) -> Result<()> {
    let (stage, redis) = set(prefix).await?;
    let patience = scale::pick(3600, 30);
    let mut wire = Wire::redis(&redis, 0)
        .late(true)
        .with("TAPP_VISIBILITY_TIMEOUT", &patience.to_string());
    wire.spec["redis"] = json!({"visibilityTimeoutSeconds": patience});
    let shape = json!({
        "celery": {"concurrency": 1, "prefetchMultiplier": 100},
        "scaling": {"policy": policy, "maxReplicas": 10, "scaleDownDelaySeconds": 2}, "replicas": 1,
    });
    wire.pool(&stage, "q", &["q"], shape).await?;
    stage.await_consumers("q", 1, LIMIT).await?;
    let mut publisher = wire.publisher().await?;
    let mut ids = publisher.publish(&Batch::sleep("q", 1, 60.0)).await?;
    ids.extend(publisher.publish(&Batch::sleep("q", 99, 0.01)).await?);
    let all = |queue: &TaskQueue| (ready(queue), reserved(queue)) == (Some(0), Some(99));
    stage
        .await_tq("q", "one running, the rest fetched", LIMIT, all)
        .await?;
    let pod = stage.pods("q").await?.remove(0).metadata.name.unwrap();
    stage.kill_worker(&pod)?;
    wait_until("the container to run anew", LIMIT, || async {
        let pod = stage.pods("q").await?.remove(0);
        let containers = pod.status.and_then(|status| status.container_statuses);
        let restarted = |one: &ContainerStatus| one.restart_count == 1 && one.started == Some(true);
        Ok(containers.is_some_and(|all| all.iter().any(restarted)))
    })
    .await?;
    // A hundred tasks for one slot at a time, and room for ten: whatever would start more can, from now on.
    stage.patch_pool("q", json!({"spec": {"replicas": null}})).await?;
    stage
        .await_tq("q", "all orphaned", LIMIT, |queue| {
            queue.status.as_ref().and_then(|status| status.orphaned) == Some(100)
        })
        .await?;
    stage.expect_steady("q", 1, Duration::from_secs(15)).await?;
    assert_eq!(stage.peak("q"), 1);
    let said = stage.decision("q").await?;
    assert!(said.contains("100 orphaned"), "{said}");
    if scale::pick(false, true) {
        // The living worker's sweep gives them back.
        stage.await_ended(100, Duration::from_secs(600)).await?;
        stage.await_no_pods("q", LIMIT).await?;
    }
    stage.strike().await
}

#[tokio::test]
async fn short_tasks_in_a_steady_stream_keep_the_replicas_where_they_are() -> Result<()> {
    stream("r-stream", "Backlog").await
}

#[tokio::test]
async fn so_they_do_where_a_wait_target_is_kept() -> Result<()> {
    stream("r-stream-w", "WaitTarget").await
}

async fn stream(prefix: &str, policy: &str) -> Result<()> {
    let (stage, redis) = set(prefix).await?;
    let wire = Wire::redis(&redis, 0);
    let shape = json!({
        "celery": {"concurrency": 10, "executionPool": "Threads"},
        "scaling": {"policy": policy, "minReplicas": 1, "scaleDownDelaySeconds": 2},
    });
    wire.pool(&stage, "q", &["q"], shape).await?;
    stage
        .await_condition("q", ConditionType::Ready, "True", "AsDesired", LIMIT)
        .await?;
    let mut publisher = wire.publisher().await?;
    let length = Duration::from_secs(scale::pick(25, 600));
    let warm = publisher.publish(&Batch::sleep("q", 1, 0.1)).await?;
    stage.await_ended(1, LIMIT).await?;
    let stream = async {
        let (since, mut ids) = (Instant::now(), warm);
        let mut beat = tokio::time::interval(Duration::from_millis(200));
        while since.elapsed() < length + Duration::from_secs(2) {
            beat.tick().await;
            ids.extend(publisher.publish(&Batch::sleep("q", 1, 0.1)).await?);
        }
        Ok::<_, Error>(ids)
    };
    let steady = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        // From here on only the tasks keep the worker.
        stage
            .patch_pool("q", json!({"spec": {"scaling": {"minReplicas": 0}}}))
            .await?;
        stage.expect_steady("q", 1, length).await
    };
    let (ids, ()) = tokio::try_join!(stream, steady)?;
    if scale::pick(false, policy == "WaitTarget") {
        // After so many minutes it keeps a worker for tasks like them, which do not come.
        stage.kubectl()?.run(["scale", "wp/q", "--replicas=0"]).await?;
    }
    stage.await_no_pods("q", LIMIT).await?;
    assert_eq!(stage.reversals("q"), 1, "{:?}", stage.timeline("q"));
    stage.expect_all_done_once(&ids)
}

#[tokio::test]
async fn tasks_that_are_not_due_start_at_most_one_worker() -> Result<()> {
    not_due("r-eta", "Backlog").await
}

#[tokio::test]
async fn nor_do_they_start_more_where_a_wait_target_is_kept() -> Result<()> {
    not_due("r-eta-w", "WaitTarget").await
}

async fn not_due(prefix: &str, policy: &str) -> Result<()> {
    let (stage, redis) = set(prefix).await?;
    let wire = Wire::redis(&redis, 0);
    let scaling = json!({"policy": policy, "scaleDownDelaySeconds": 3});
    wire.pool(&stage, "q", &["q"], json!({"scaling": scaling}))
        .await?;
    let batch = Batch {
        countdown: Some(3600.0),
        ..Batch::sleep("q", 1000, 1.0)
    };
    let mut publisher = wire.publisher().await?;
    publisher.publish(&batch).await?;
    tokio::time::sleep(Duration::from_secs(scale::pick(10, 300))).await;
    // One that is due among them needs one worker, which then fetches them all; and still nothing flaps.
    let due = publisher.publish(&Batch::sleep("q", 1, 1.0)).await?;
    stage.await_ended(1, LIMIT).await?;
    let since = Instant::now();
    tokio::time::sleep(Duration::from_secs(scale::pick(15, 300))).await;
    let told = stage.notes("ScaledUp").await?;
    assert!(stage.peak("q") <= 1, "{:?} {told:#?}", stage.timeline("q"));
    assert_eq!(stage.reversals("q"), 0, "{:?}", stage.timeline("q"));
    assert!(
        stage.falls("q", since).is_empty(),
        "what a worker holds is lost from sight: {:?}",
        stage.timeline("q")
    );
    assert!(stage.running()?.is_empty());
    assert_eq!(
        stage.events()?.iter().filter(|event| event.id == due[0]).count(),
        2
    );
    stage.strike().await
}
