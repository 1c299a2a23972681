//! Connections to the API server that stay open and on which nothing comes any more.

use poolwright_tests::scenario::LIMIT;
use poolwright_tests::*;
use serde_json::json;
use std::time::{Duration, Instant};

/// After so long without a word a watch is begun anew; the API server ends each after two minutes, and says so.
const SILENCE: Duration = Duration::from_secs(150);

#[tokio::test]
async fn watches_that_fall_silent_are_begun_anew_and_cost_nothing_but_time() -> Result<()> {
    let plane = Plane::shared().await?;
    apply_crds(plane).await?;
    apply_rights(plane).await?;
    let (dir, api) = (tempfile::tempdir()?, Proxy::start(plane.server()?).await?);
    let kubeconfig = dir.path().join("kubeconfig");
    plane.kubeconfig_through(api.address(), &plane.token(plane::OPERATOR)?, &kubeconfig)?;
    let stage = Stage::on(plane, &kubeconfig, "f-silent", &[]).await?;
    let redis = Redis::start(RedisConfig::default()).await?;
    let wire = Wire::redis(&redis, 0);
    let shape = json!({
        "celery": {"concurrency": 1},
        "scaling": {"minReplicas": 1, "maxReplicas": 3, "scaleDownDelaySeconds": 2},
    });
    wire.pool(&stage, "q", &["q"], shape).await?;
    stage.await_consumers("q", 1, LIMIT).await?;

    api.hush();
    let hushed = Instant::now();
    stage
        .patch_pool("q", json!({"spec": {"scaling": {"minReplicas": 2}}}))
        .await?;
    // Brokers are heard, and what is written goes by connections that are made for it.
    let mut ids = wire.publish(&Batch::sleep("q", 1, 5.0)).await?;
    stage.await_ended(1, LIMIT).await?;
    assert_eq!(
        stage.replicas("q").await?,
        1,
        "it was told by a connection that is silent"
    );
    stage.await_replicas("q", 2, SILENCE + LIMIT).await?;
    let heard = hushed.elapsed();
    println!(
        "what changed was seen {:.0} s after all connections fell silent",
        heard.as_secs_f32()
    );
    assert!(heard > Duration::from_secs(60), "no watch was silent");

    ids.extend(wire.publish(&Batch::sleep("q", 9, 1.0)).await?);
    stage.await_ended(ids.len(), LIMIT).await?;
    stage
        .patch_pool("q", json!({"spec": {"scaling": {"minReplicas": 0}}}))
        .await?;
    stage.await_no_pods("q", LIMIT).await?;
    stage.expect_no_busy_victim()?;
    stage.expect_all_done_once(&ids)
}
