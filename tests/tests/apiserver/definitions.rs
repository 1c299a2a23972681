//! Definitions that somebody removes while the operator runs, and with them every object of theirs.

use kube::Api;
use kube::api::PostParams;
use poolwright_api::ConditionType;
use poolwright_api::v1alpha1::TaskQueue;
use poolwright_tests::scenario::LIMIT;
use poolwright_tests::*;
use serde_json::{Value, json};
use std::time::Duration;

use super::{Alone, hasty};

/// A TaskQueue or WorkerPool as somebody has it in a file.
fn written(object: &Value, name: &str) -> Value {
    json!({
        "apiVersion": "poolwright.dev/v1alpha1", "kind": object["kind"],
        "metadata": {"name": name}, "spec": object["spec"],
    })
}

async fn remove(stage: &Stage, kind: &str) -> Result<()> {
    let name = format!("{kind}.poolwright.dev");
    let kubectl = stage.plane.kubectl()?;
    kubectl.run(["delete", "crd", &name, "--timeout=60s"]).await?;
    let told = format!("the cluster does not know {name}: apply the definitions");
    wait_for("the operator to name what is missing", LIMIT, || {
        stage.operator.log().contains(&told)
    })
    .await
}

/// A process that waits for a definition does all else and is not to be started anew for it, but is not ready, and says why.
async fn expect_degraded(stage: &Stage, kind: &str) -> Result<()> {
    assert_eq!(stage.operator.get("/healthz").await?.0, 200);
    let (code, words) = stage.operator.get("/readyz").await?;
    let told = format!("the cluster does not know {kind}.poolwright.dev: apply the definitions");
    assert!(code == 503 && words.contains(&told), "{code} {words}");
    Ok(())
}

async fn restore(stage: &Stage) -> Result<()> {
    apply_crds(stage.plane).await?;
    wait_until("the operator to be ready again", LIMIT, || async {
        Ok(stage.operator.get("/readyz").await?.0 == 200)
    })
    .await
}

/// Without TaskQueues nothing is known of the work: workers stay as they are.
#[tokio::test]
async fn without_the_definition_of_task_queues_no_worker_goes() -> Result<()> {
    let alone = Alone::new("a-tq", hasty()).await?;
    let stage = &alone.stage;
    let shape = json!({
        "celery": {"concurrency": 1}, "scaling": {"minReplicas": 2, "scaleDownDelaySeconds": 2},
    });
    alone.broker.pool(stage, "q", &["q"], shape).await?;
    stage
        .await_condition("q", ConditionType::Ready, "True", "AsDesired", LIMIT)
        .await?;
    stage.await_consumers("q", 2, LIMIT).await?;
    let mut ids = alone.broker.publish(&Batch::sleep("q", 2, 5.0)).await?;
    stage.await_running(2, LIMIT).await?;
    stage
        .patch_pool("q", json!({"spec": {"scaling": {"minReplicas": 0}}}))
        .await?;
    let queue = written(&serde_json::to_value(stage.tq("q").await?)?, "q");

    remove(stage, "taskqueues").await?;
    expect_degraded(stage, "taskqueues").await?;
    stage.await_ended(2, LIMIT).await?;
    stage
        .expect_steady("q", 2, Duration::from_secs(scale::pick(10, 60)))
        .await?;
    let (status, reason, message) = stage.condition("q", ConditionType::Ready).await?;
    assert_eq!((status.as_str(), reason.as_str()), ("False", "QueueUnknown"));
    assert!(
        message.contains("running workers are left as they are"),
        "{message}"
    );

    restore(stage).await?;
    let queues: Api<TaskQueue> = stage.namespace.api();
    let create = PostParams::default();
    wait_until("the TaskQueue to be made again", LIMIT, || async {
        Ok(queues
            .create(&create, &serde_json::from_value(queue.clone())?)
            .await
            .is_ok())
    })
    .await?;
    ids.extend(alone.broker.publish(&Batch::sleep("q", 4, 1.0)).await?);
    stage.await_ended(6, LIMIT).await?;
    stage.await_no_pods("q", LIMIT).await?;
    stage.expect_no_busy_victim()?;
    stage.expect_all_done_once(&ids)?;
    alone.end().await
}

/// Kubernetes deletes every WorkerPool with its definition, and the Deployments of each with it: the workers end in their
/// grace, as with any WorkerPool that somebody deletes.
#[tokio::test]
async fn without_the_definition_of_worker_pools_workers_finish_and_come_back_with_it() -> Result<()> {
    let alone = Alone::new("a-wp", hasty()).await?;
    let stage = &alone.stage;
    let shape = json!({
        "celery": {"concurrency": 1}, "scaling": {"minReplicas": 2}, "drain": {"graceSeconds": 60},
    });
    alone.broker.pool(stage, "q", &["q"], shape).await?;
    stage.await_consumers("q", 2, LIMIT).await?;
    let mut ids = alone.broker.publish(&Batch::sleep("q", 2, 15.0)).await?;
    stage.await_running(2, LIMIT).await?;
    let pool = written(&serde_json::to_value(stage.wp("q").await?)?, "q");

    remove(stage, "workerpools").await?;
    expect_degraded(stage, "workerpools").await?;
    stage.await_ended(2, LIMIT).await?;
    stage.await_no_pods("q", LIMIT).await?;
    assert!(stage.deployments("q").await?.is_empty());

    restore(stage).await?;
    let kubectl = stage.kubectl()?;
    wait_until("the WorkerPool to be made again", LIMIT, || async {
        Ok(kubectl.apply(&pool.to_string()).await.is_ok())
    })
    .await?;
    ids.extend(alone.broker.publish(&Batch::sleep("q", 4, 1.0)).await?);
    stage.await_ended(6, LIMIT).await?;
    stage.expect_none_killed()?;
    stage.expect_all_done_once(&ids)?;
    alone.end().await
}

/// Without Pools nobody knows a budget: workers stay as they are, and none comes.
#[tokio::test]
async fn without_the_definition_of_pools_no_worker_goes_and_none_comes() -> Result<()> {
    let alone = Alone::new("a-pool", hasty()).await?;
    let stage = &alone.stage;
    let pool = json!({
        "apiVersion": "poolwright.dev/v1alpha1", "kind": "Pool", "metadata": {"name": "db"}, "spec": {"slots": 3},
    });
    let kubectl = stage.kubectl()?;
    kubectl.apply(&pool.to_string()).await?;
    let spec = json!({"broker": alone.broker.spec, "pool": {"name": "db"}});
    stage.task_queue("q", spec).await?;
    let shape = json!({
        "celery": {"concurrency": 1}, "scaling": {"minReplicas": 2, "scaleDownDelaySeconds": 2},
    });
    alone.broker.workers(stage, "q", &["q"], shape).await?;
    stage.await_consumers("q", 2, LIMIT).await?;
    let mut ids = alone.broker.publish(&Batch::sleep("q", 2, 10.0)).await?;
    stage.await_running(2, LIMIT).await?;
    stage
        .patch_pool("q", json!({"spec": {"scaling": {"minReplicas": 0}}}))
        .await?;

    remove(stage, "pools").await?;
    expect_degraded(stage, "pools").await?;
    ids.extend(alone.broker.publish(&Batch::sleep("q", 6, 5.0)).await?);
    let limited = ConditionType::ScalingLimited;
    stage
        .await_condition("q", limited, "True", "PoolMissing", LIMIT)
        .await?;
    stage
        .expect_steady("q", 2, Duration::from_secs(scale::pick(10, 60)))
        .await?;

    restore(stage).await?;
    wait_until("the Pool to be made again", LIMIT, || async {
        Ok(kubectl.apply(&pool.to_string()).await.is_ok())
    })
    .await?;
    wait_until("the operator to see it", LIMIT, || async {
        let slots = [
            "get",
            "pools.poolwright.dev",
            "db",
            "-o",
            "jsonpath={.status.slots}",
        ];
        Ok(kubectl.run(slots).await? == "3")
    })
    .await?;
    ids.extend(alone.broker.publish(&Batch::sleep("q", 9, 2.0)).await?);
    stage.await_running(3, LIMIT).await?;
    stage.await_ended(ids.len(), LIMIT).await?;
    stage.await_no_pods("q", LIMIT).await?;
    stage.expect_no_busy_victim()?;
    stage.expect_all_done_once(&ids)?;
    alone.end().await
}
