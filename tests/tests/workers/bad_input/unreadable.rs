//! An object that the API server takes and the operator cannot read: a definition cannot say all that a reader wants, and
//! a newer one may allow what this operator does not know.

use super::{LIMIT, expect_words};
use poolwright_api::ConditionType::Ready;
use poolwright_tests::*;
use serde_json::json;

#[tokio::test]
async fn one_that_cannot_be_read_is_told_so_and_keeps_no_other_from_being_scaled() -> Result<()> {
    let mut stage = Stage::new("unreadable").await?;
    let redis = Redis::start(RedisConfig::default()).await?;
    let url = redis.url(0);
    stage.queue("q", json!({"url": url})).await?;
    let fake = json!({"worker": {"image": FAKE_IMAGE, "env": []}, "scaling": {"minReplicas": 1}});
    stage.pool("bad", &["q"], "", fake.clone()).await?;
    stage.await_replicas("bad", 1, LIMIT).await?;
    // Numbers of a definition have no bounds of their own, and this is more than the type takes.
    let probe = json!({"httpGet": {"port": 3_000_000_000_u64}});
    let sidecar = json!({"name": "proxy", "image": FAKE_IMAGE, "livenessProbe": probe});
    stage
        .patch_pool("bad", json!({"spec": {"pod": {"sidecars": [sidecar]}}}))
        .await?;
    let told = stage
        .await_condition("bad", Ready, "False", "InvalidSpec", LIMIT)
        .await?;
    expect_words("bad", &told, &["cannot be read", "3000000000", "correct it"])?;

    // A new operator lists it with all the others.
    stage.operator.kill();
    stage.operator.start_again().await?;
    stage.pool("w", &["q"], "", fake).await?;
    stage.await_replicas("w", 1, LIMIT).await?;
    assert_eq!(stage.started("bad").await?, (1, 1), "what runs is left alone");
    let (_, reason, _) = stage.condition("bad", Ready).await?;
    assert_eq!(reason, "InvalidSpec");
    assert!(stage.operator.log().contains("a WorkerPool cannot be read"));

    stage.patch_pool("bad", json!({"spec": {"pod": null}})).await?;
    wait_until("it to be read again", LIMIT, || async {
        Ok(stage.condition("bad", Ready).await?.1 != "InvalidSpec")
    })
    .await
}
