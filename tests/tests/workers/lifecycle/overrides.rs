//! Pauses and recommendations, by kubectl as the documents have them.

use poolwright_api::ConditionType;
use poolwright_tests::*;
use serde_json::json;
use std::time::Duration;

use super::explain::explain;
use crate::ground::{Ground, LIMIT};

const CALM: Duration = Duration::from_secs(6);

/// The four things that can be asked for, one after the other, on one WorkerPool.
#[tokio::test]
async fn what_is_paused_or_only_recommended_is_not_done() -> Result<()> {
    let mut ground = Ground::new("override").await?;
    ground.pool("w", json!({"scaling": {"maxReplicas": 3}})).await?;
    let kubectl = ground.stage.kubectl()?;
    let annotate = |what: &'static str| kubectl.run(["annotate", "wp", "w", what]);
    let mode = |mode: &str| json!({"spec": {"scaling": {"mode": mode}}});

    // Recommended: the number is told, and nothing is done.
    ground.stage.patch_pool("w", mode("Recommend")).await?;
    let first = ground.publish(2, 8.0).await?;
    let active = ConditionType::ScalingActive;
    let recommended = |message: &str| message.contains("1 recommended");
    wait_until("a recommendation", LIMIT, || async {
        let (status, reason, message) = ground.stage.condition("w", active).await?;
        Ok(status == "False" && reason == "Recommended" && recommended(&message))
    })
    .await?;
    ground.stage.expect_steady("w", 0, CALM).await?;

    // Scale-out is paused: nothing is done either, and the condition says since when.
    annotate("poolwright.dev/paused-scale-out=true").await?;
    ground.stage.patch_pool("w", mode("Auto")).await?;
    let limited = ConditionType::ScalingLimited;
    let message = ground
        .stage
        .await_condition("w", limited, "True", "Paused", LIMIT)
        .await?;
    assert!(
        message.starts_with("scale-out is paused by annotation since 20"),
        "{message}"
    );
    ground.stage.expect_steady("w", 0, CALM).await?;
    annotate("poolwright.dev/paused-scale-out-").await?;
    ground.stage.await_replicas("w", 1, LIMIT).await?;

    // Scale-in is paused: the worker stays when its work is done, and more may come.
    annotate("poolwright.dev/paused-scale-in=true").await?;
    ground.stage.await_ended(2, LIMIT).await?;
    ground.stage.expect_steady("w", 1, 2 * CALM).await?;
    let second = ground.publish(4, 8.0).await?;
    ground.stage.await_replicas("w", 2, LIMIT).await?;

    // All is paused: neither more nor fewer.
    annotate("poolwright.dev/paused=true").await?;
    ground
        .stage
        .await_condition("w", active, "False", "Paused", LIMIT)
        .await?;
    let third = ground.publish(4, 0.5).await?;
    ground.stage.await_ended(10, LIMIT).await?;
    ground.stage.expect_steady("w", 2, 2 * CALM).await?;
    let status = ground.stage.wp("w").await?.status.unwrap();
    assert_eq!(status.last_decision.unwrap().reason, "Paused");
    let text = String::from_utf8(explain(&ground, "wp/w").await?.stdout)?;
    assert!(text.contains("kubectl annotate wp w -n"), "{text}");

    for one in ["poolwright.dev/paused-", "poolwright.dev/paused-scale-in-"] {
        annotate(one).await?;
    }
    ground.stage.await_no_pods("w", LIMIT).await?;
    ground.stage.expect_no_busy_victim()?;
    ground
        .stage
        .expect_all_done_once(&[first, second, third].concat())
}
