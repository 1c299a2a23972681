//! An object that the API server takes and the operator cannot read: a definition cannot say all that a reader wants, and
//! a newer one may allow what this operator does not know.

use super::{LIMIT, expect_words};
use poolwright_tests::*;
use serde_json::{Value, json};

const CANARY: &str = "canary-token-77aa";

/// Changes the WorkerPool `bad` as a user does: what cannot be read cannot be changed by its type.
async fn patch(stage: &Stage, pod: Value) -> Result<()> {
    let patch = json!({"spec": {"pod": pod}}).to_string();
    let args = ["patch", "workerpool", "bad", "--type=merge", "-p", &patch];
    stage.kubectl()?.run(args).await.map(drop)
}

/// Reason and message of its `Ready`.
async fn ready(stage: &Stage) -> Result<(String, String)> {
    let text = stage
        .kubectl()?
        .run(["get", "workerpool", "bad", "-o", "json"])
        .await?;
    let object: Value = serde_json::from_str(&text)?;
    let conditions = object["status"]["conditions"].as_array();
    let found = conditions.and_then(|all| all.iter().find(|one| one["type"] == "Ready"));
    let words = |field: &str| {
        found
            .and_then(|one| one[field].as_str())
            .unwrap_or_default()
            .to_owned()
    };
    Ok((words("reason"), words("message")))
}

#[tokio::test]
async fn one_that_cannot_be_read_is_told_so_and_keeps_no_other_from_being_scaled() -> Result<()> {
    let mut stage = Stage::new("unreadable").await?;
    let redis = Redis::start(RedisConfig::default()).await?;
    stage.queue("q", json!({"url": redis.url(0)})).await?;
    let fake = json!({"worker": {"image": FAKE_IMAGE, "env": []}, "scaling": {"minReplicas": 1}});
    // Whoever cannot read it must not say it either.
    let mut told_nobody = fake.clone();
    told_nobody["worker"]["env"] = json!([{"name": "TOKEN", "value": CANARY}]);
    stage.pool("bad", &["q"], "", told_nobody).await?;
    stage.await_replicas("bad", 1, LIMIT).await?;
    // Numbers in Kubernetes' own types have no bounds in our definition, and this is more than the type takes.
    let probe = json!({"httpGet": {"port": 3_000_000_000_u64}});
    let sidecar = json!({"name": "proxy", "image": FAKE_IMAGE, "livenessProbe": probe});
    patch(&stage, json!({"sidecars": [sidecar]})).await?;
    wait_until("it to be told so", LIMIT, || async {
        Ok(ready(&stage).await?.0 == "InvalidSpec")
    })
    .await?;
    let told = ready(&stage).await?.1;
    expect_words("bad", &told, &["cannot be read", "3000000000", "correct it"])?;
    wait_until("its event", LIMIT, || async {
        Ok(!stage.notes_about("bad", "InvalidSpec").await?.is_empty())
    })
    .await?;

    // A new operator lists it with all the others.
    stage.operator.kill();
    stage.operator.start_again().await?;
    stage.pool("w", &["q"], "", fake).await?;
    stage.await_replicas("w", 1, LIMIT).await?;
    assert_eq!(stage.started("bad").await?, (1, 1), "what runs is left alone");
    assert_eq!(ready(&stage).await?.0, "InvalidSpec");
    let log = stage.operator.log();
    assert!(
        log.contains("a WorkerPool cannot be read") && !log.contains(CANARY),
        "{log}"
    );

    patch(&stage, Value::Null).await?;
    wait_until("it to be read again", LIMIT, || async {
        Ok(ready(&stage).await?.0 != "InvalidSpec")
    })
    .await
}
