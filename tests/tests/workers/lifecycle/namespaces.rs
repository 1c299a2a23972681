//! An operator that is told which namespaces to work in.

use poolwright_api::v1alpha1::{TaskQueue, WorkerPool};
use poolwright_tests::*;
use serde_json::json;

use crate::ground::LIMIT;
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{ListParams, PostParams};

/// A WorkerPool `w` on a queue `q`, in this namespace, on a database of this number.
async fn populate(stage: &Stage, space: &TestNamespace, redis: &Redis, database: u8) -> Result<()> {
    let url = redis.url(database);
    let queue = json!({
        "apiVersion": "poolwright.dev/v1alpha1", "kind": "TaskQueue",
        "metadata": {"name": "q"}, "spec": {"broker": {"url": url}}});
    let mut pool = stage.pool_manifest("w", &["q"], &url, json!({}));
    pool["metadata"]["namespace"] = json!(space.name);
    let post = PostParams::default();
    space
        .api::<TaskQueue>()
        .create(&post, &serde_json::from_value(queue)?)
        .await?;
    space
        .api::<WorkerPool>()
        .create(&post, &serde_json::from_value(pool)?)
        .await?;
    let mut publisher = Celery::locate()?.publisher(&url, &[]).await?;
    publisher.publish(&Batch::sleep("q", 4, 0.1)).await?;
    Ok(())
}

/// The largest number of replicas of a namespace's Deployments now; `None` where there is none.
async fn replicas(space: &TestNamespace) -> Result<Option<i32>> {
    let all = space.api::<Deployment>().list(&ListParams::default()).await?;
    Ok(all.iter().filter_map(|one| one.spec.as_ref()?.replicas).max())
}

#[tokio::test]
async fn an_operator_of_two_namespaces_scales_in_both_and_leaves_a_third_alone() -> Result<()> {
    let plane = Plane::shared().await?;
    let [second, third] = ["second", "third"]
        .map(|prefix| async move { TestNamespace::create(plane.client().await?, prefix).await });
    let (second, third) = tokio::try_join!(second, third)?;
    // The stage itself gives the first.
    let stage = Stage::with_args("first", &["--namespace", &second.name]).await?;
    let redis = Redis::start(RedisConfig::default()).await?;
    // The third first: whoever takes it too has the most time to.
    for (database, space) in [(2, &third), (0, &stage.namespace), (1, &second)] {
        populate(&stage, space, &redis, database).await?;
    }
    stage.await_ended(8, LIMIT).await?;
    for space in [&stage.namespace, &second] {
        wait_until("both to be at rest again", LIMIT, || async {
            let pool = space.api::<WorkerPool>().get("w").await?;
            let last = pool.status.and_then(|status| status.last_decision);
            Ok(replicas(space).await? == Some(0) && last.is_some_and(|last| last.to == 0))
        })
        .await?;
    }
    let records = read_records(&plane.record())?;
    for (space, ran) in [(&stage.namespace, true), (&second, true), (&third, false)] {
        let started = records.iter().any(|record| record.namespace == space.name);
        assert_eq!(started, ran, "workers in {}", space.name);
    }
    assert_eq!(
        replicas(&third).await?,
        None,
        "a Deployment in a namespace that was not named"
    );
    let (queue, pool) = (
        third.api::<TaskQueue>().get("q").await?,
        third.api::<WorkerPool>().get("w").await?,
    );
    assert!(
        queue.status.is_none() && pool.status.is_none(),
        "{queue:?} {pool:?}"
    );
    assert_eq!(
        stage.events()?.len(),
        16,
        "eight tasks began and ended, those of the third did not"
    );
    stage.expect_none_killed()
}
