//! Pools as objects: what the API server lets happen to `default-pool`, with the policy of `deploy/policies`.

use crate::ground::{Ground, LIMIT};
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use poolwright_api::v1alpha1::{Pool, TaskQueue};
use poolwright_tests::*;
use serde_json::json;

const DEFAULT: &str = poolwright_api::DEFAULT_POOL;
/// What a denied deletion says.
const DENIED: &str = "default-pool stays while this namespace has a TaskQueue, and it has \"q\": to change the budget, \
                      edit spec.slots; to remove it, delete the TaskQueues first";

async fn apply(stage: &Stage, name: &str, slots: i32) -> Result<()> {
    let pool = json!({
        "apiVersion": "poolwright.dev/v1alpha1", "kind": "Pool",
        "metadata": {"name": name}, "spec": {"slots": slots}});
    stage.kubectl()?.apply(&pool.to_string()).await.map(|_| ())
}

/// The policy may be so new that the API server does not obey it yet.
async fn await_policy(stage: &Stage) -> Result<()> {
    let kubectl = stage.kubectl()?;
    let tried = || async {
        let args = ["delete", "pool", DEFAULT, "--dry-run=server"];
        let output = kubectl.output(args).await?;
        Ok(String::from_utf8_lossy(&output.stderr).contains(DENIED))
    };
    wait_until("the policy to be obeyed", LIMIT, tried).await
}

#[tokio::test]
async fn a_namespace_with_a_task_queue_gets_a_pool_of_the_size_that_the_flag_says() -> Result<()> {
    let stage = Stage::with_args("made", &["--default-pool-slots", "7"]).await?;
    let pools = stage.namespace.api::<Pool>();
    assert!(pools.get_opt(DEFAULT).await?.is_none());
    stage.queue("q", json!({"url": "redis://127.0.0.1:1/0"})).await?;
    let kubectl = stage.kubectl()?;
    wait_until("the Pool with its columns", LIMIT, || async {
        let table = kubectl.run(["get", "pools"]).await?;
        let rows: Vec<Vec<&str>> = table
            .lines()
            .map(|row| row.split_whitespace().collect())
            .collect();
        let columns = ["NAME", "SLOTS", "RUNNING", "QUEUED", "OPEN", "UTIL", "AGE"];
        let is_it = |row: &Vec<&str>| row.starts_with(&[DEFAULT, "7", "0", "0", "7", "0"]);
        Ok(rows.first().is_some_and(|row| *row == columns) && rows.get(1).is_some_and(is_it))
    })
    .await
}

#[tokio::test]
async fn the_default_pool_stays_while_a_task_queue_is_left() -> Result<()> {
    let stage = Stage::new("default-pool").await?;
    stage.queue("q", json!({"url": "redis://127.0.0.1:1/0"})).await?;
    apply(&stage, DEFAULT, 128).await?;
    apply(&stage, "gpu", 4).await?;
    await_policy(&stage).await?;

    let (kubectl, pools) = (stage.kubectl()?, stage.namespace.api::<Pool>());
    let one = kubectl.run(["delete", "pool", DEFAULT]).await;
    let one = one.err().ok_or("it was deleted by its name")?.to_string();
    // A collection is deleted object by object, by a request that names none.
    let all = pools
        .delete_collection(&DeleteParams::default(), &ListParams::default())
        .await;
    let all = all.err().ok_or("it was deleted with all")?.to_string();
    for text in [one, all] {
        assert!(text.contains(DENIED), "{text}");
    }
    assert!(pools.get_opt(DEFAULT).await?.is_some());
    // Any other is as free as it was, and this one is edited.
    wait_until("another Pool to be gone", LIMIT, || async {
        kubectl
            .run(["delete", "pool", "gpu", "--ignore-not-found"])
            .await?;
        Ok(pools.get_opt("gpu").await?.is_none())
    })
    .await?;
    let patch = r#"{"spec": {"slots": 5}}"#;
    kubectl
        .run(["patch", "pool", DEFAULT, "--type=merge", "-p", patch])
        .await?;
    assert_eq!(pools.get(DEFAULT).await?.spec.slots, 5);

    let queues = stage.namespace.api::<TaskQueue>();
    queues.delete("q", &DeleteParams::default()).await?;
    wait_until("it to be deleted with no TaskQueue left", LIMIT, || async {
        kubectl
            .run(["delete", "pool", DEFAULT, "--ignore-not-found"])
            .await?;
        Ok(pools.get_opt(DEFAULT).await?.is_none())
    })
    .await
}

#[tokio::test]
async fn a_namespace_with_queues_and_running_tasks_can_be_deleted() -> Result<()> {
    let mut ground = Ground::new("ends").await?;
    apply(&ground.stage, DEFAULT, 128).await?;
    await_policy(&ground.stage).await?;
    // The namespace's controller looks again half a grace period later.
    ground.pool("w", json!({"drain": {"graceSeconds": 20}})).await?;
    let ids = ground.publish(2, 5.0).await?;
    wait_until("both tasks to run", LIMIT, || async {
        Ok(ground.running()?.len() == 2)
    })
    .await?;
    let (queues, pools) = (
        ground.stage.namespace.api::<TaskQueue>(),
        ground.stage.namespace.api::<Pool>(),
    );
    // A TaskQueue that is slow to go keeps no Pool.
    let params = PatchParams::default();
    let finalizers = |all: &[&str]| Patch::Merge(json!({"metadata": {"finalizers": all}}));
    queues
        .patch("q", &params, &finalizers(&["poolwright.test/slow"]))
        .await?;
    ground.stage.namespace.delete().await?;
    wait_until("the Pool to be gone", LIMIT, || async {
        Ok(pools.get_opt(DEFAULT).await?.is_none())
    })
    .await?;
    queues.patch("q", &params, &finalizers(&[])).await?;
    let namespaces: Api<Namespace> = Api::all(ground.stage.plane.client().await?);
    wait_until("the namespace to be gone", LIMIT, || async {
        Ok(namespaces.get_opt(&ground.stage.namespace.name).await?.is_none())
    })
    .await?;
    ground.stage.expect_all_done_once(&ids)
}
