//! The thinnest whole path: one queue, from zero to workers and back.
#![allow(missing_docs, clippy::unwrap_used)]

use poolwright_tests::*;
use serde_json::json;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

#[tokio::test]
async fn from_zero_to_workers_and_back_on_redis() -> Result<()> {
    let stage = Stage::new("first").await?;
    let redis = Redis::start(RedisConfig::default()).await?;
    let broker = redis.url(0);
    stage.queue("q", json!({"url": broker})).await?;
    stage.pool("w", &["q"], &broker, json!({})).await?;
    stage
        .await_condition(
            "w",
            poolwright_api::ConditionType::Ready,
            "True",
            "AsDesired",
            LIMIT,
        )
        .await?;
    let mut publisher = Celery::locate()?.publisher(&broker, &[]).await?;
    let ids = publisher.publish(&Batch::sleep("q", 10, 2.0)).await?;
    stage.await_replicas("w", 5, Duration::from_secs(10)).await?;
    stage.await_ended(10, LIMIT).await?;
    stage.await_replicas("w", 0, LIMIT).await?;
    stage.await_no_pods("w", LIMIT).await?;
    assert_eq!(stage.peak("w"), 5);
    stage.expect_all_done_once(&ids)
}
