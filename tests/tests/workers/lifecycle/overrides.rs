//! Pauses and recommendations, by kubectl as the documents have them.

use jiff::{SignedDuration, Timestamp};
use poolwright_api::ConditionType;
use poolwright_tests::*;
use serde_json::json;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::explain::explain;
use crate::ground::{Ground, LIMIT};

const CALM: Duration = Duration::from_secs(6);

/// When somebody asked for something.
type Asked = RangeInclusive<Timestamp>;

/// Asks for something.
async fn when<T>(act: impl Future<Output = Result<T>>) -> Result<Asked> {
    // What is told has whole seconds.
    let from = Timestamp::now() - SignedDuration::from_secs(1);
    act.await?;
    Ok(from..=Timestamp::now())
}

/// Fails unless this condition of `w` tells it, after these words, with the time at which it was asked for. To be called
/// some time after that: the time must stay, whatever else changes meanwhile.
async fn expect_since(
    ground: &Ground,
    (type_, status, reason): (ConditionType, &str, &str),
    words: &str,
    asked: &Asked,
) -> Result<()> {
    let message = ground
        .stage
        .await_condition("w", type_, status, reason, LIMIT)
        .await?;
    let told = message.strip_prefix(words).and_then(|rest| rest.get(..20));
    match told.map(str::parse) {
        Some(Ok(time)) if asked.contains(&time) => Ok(()),
        _ => Err(format!("{type_} is not {words:?} and a time in {asked:?}: {message:?}").into()),
    }
}

/// The four things that can be asked for, one after the other, on one WorkerPool.
#[tokio::test]
async fn what_is_paused_or_only_recommended_is_not_done() -> Result<()> {
    let mut ground = Ground::new("override").await?;
    ground.pool("w", json!({"scaling": {"maxReplicas": 3}})).await?;
    let kubectl = ground.stage.kubectl()?;
    let annotate = |what: &'static [&'static str]| {
        let command = ["annotate", "wp", "w"].into_iter().chain(what.iter().copied());
        when(kubectl.run(command))
    };
    let mode = |mode: &str| json!({"spec": {"scaling": {"mode": mode}}});
    let (active, limited) = (ConditionType::ScalingActive, ConditionType::ScalingLimited);

    // Recommended: the number is told, and since when, and nothing is done.
    let asked = when(ground.stage.patch_pool("w", mode("Recommend"))).await?;
    let first = ground.publish(2, 8.0).await?;
    let recommended = |message: &str| message.contains("1 recommended");
    wait_until("a recommendation", LIMIT, || async {
        let (status, reason, message) = ground.stage.condition("w", active).await?;
        Ok(status == "False" && reason == "Recommended" && recommended(&message))
    })
    .await?;
    ground.stage.expect_steady("w", 0, CALM).await?;
    let words = "spec.scaling.mode is Recommend since ";
    expect_since(&ground, (active, "False", "Recommended"), words, &asked).await?;

    // Scale-out is paused: nothing is done either.
    let asked = annotate(&["poolwright.dev/paused-scale-out=true"]).await?;
    ground.stage.patch_pool("w", mode("Auto")).await?;
    let paused = (limited, "True", "Paused");
    ground
        .stage
        .await_condition("w", limited, "True", "Paused", LIMIT)
        .await?;
    ground.stage.expect_steady("w", 0, CALM).await?;
    let words = "scale-out is paused by annotation since ";
    expect_since(&ground, paused, words, &asked).await?;

    // Scale-in is paused in its place: the worker comes and stays when its work is done, and more may come.
    let asked = annotate(&[
        "poolwright.dev/paused-scale-out-",
        "poolwright.dev/paused-scale-in=true",
    ])
    .await?;
    ground.stage.await_replicas("w", 1, LIMIT).await?;
    ground.stage.await_ended(2, LIMIT).await?;
    ground.stage.expect_steady("w", 1, 2 * CALM).await?;
    let second = ground.publish(4, 8.0).await?;
    ground.stage.await_replicas("w", 2, LIMIT).await?;
    let words = "scale-in is paused by annotation since ";
    expect_since(&ground, paused, words, &asked).await?;

    // All is paused: neither more nor fewer.
    let asked = annotate(&["poolwright.dev/paused=true"]).await?;
    ground
        .stage
        .await_condition("w", active, "False", "Paused", LIMIT)
        .await?;
    let third = ground.publish(4, 0.5).await?;
    ground.stage.await_ended(10, LIMIT).await?;
    ground.stage.expect_steady("w", 2, 2 * CALM).await?;
    let words = "paused by annotation since ";
    expect_since(&ground, (active, "False", "Paused"), words, &asked).await?;
    let status = ground.stage.wp("w").await?.status.unwrap();
    assert_eq!(status.last_decision.unwrap().reason, "Paused");
    let text = String::from_utf8(explain(&ground, "wp/w").await?.stdout)?;
    assert!(text.contains("kubectl annotate wp w -n"), "{text}");

    annotate(&["poolwright.dev/paused-", "poolwright.dev/paused-scale-in-"]).await?;
    ground.stage.await_no_pods("w", LIMIT).await?;
    ground.stage.expect_no_busy_victim()?;
    ground
        .stage
        .expect_all_done_once(&[first, second, third].concat())
}
