//! Rollouts: what works is never replaced by what does not, and nothing is lost on the way.

use crate::ground::{Ground, LIMIT, Part};
use kube::ResourceExt;
use poolwright_api::ConditionType;
use poolwright_tests::*;
use serde_json::json;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// A worker that starts, says nothing and ends.
const WRONG: [&str; 3] = ["python", "-c", "import time; time.sleep(1); raise SystemExit(3)"];
/// One that never speaks and takes its time to go.
const STUBBORN: [&str; 3] = [
    "python",
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(25)",
];

#[tokio::test]
async fn a_wrong_command_replaces_nothing_and_the_good_one_takes_over_under_load() -> Result<()> {
    let ground = Ground::new("wrong").await?;
    let scaling =
        json!({"policy": "WaitTarget", "minReplicas": 3, "maxReplicas": 3, "scaleDownDelaySeconds": 5});
    ground.pool("w", json!({"scaling": scaling})).await?;
    let feeder = ground.feed(6, 2.0, Duration::from_millis(2500)).await?;
    ground.stage.await_replicas("w", 3, LIMIT).await?;
    ground.await_running(6).await?;
    let old = ground.proven_revision("w").await?;

    let since = Instant::now();
    let patch = json!({"spec": {"worker": {"command": WRONG}}});
    ground.stage.patch_pool("w", patch).await?;
    let bad = ground.revision("w", &old).await?;
    let message = ground
        .stage
        .await_condition("w", ConditionType::Ready, "False", "CrashLoop", LIMIT)
        .await?;
    assert!(message.contains("exit code 3"), "{message}");
    let (status, _, said) = ground.stage.condition("w", ConditionType::Reconciling).await?;
    assert!(
        status == "True" && said.contains(&bad) && said.contains(&old),
        "{said}"
    );
    let unproven = scale::pick(15, 570);
    ground
        .watch("w", Duration::from_secs(unproven), |parts, ready| {
            let replicas = |name: &str| parts.get(name).map(|part| part.replicas);
            // A worker that ends at once is no worker, also in the second that it runs.
            match (parts.len(), replicas(&old), replicas(&bad), ready) {
                (2, Some(3), Some(1), "False") => Ok(()),
                _ => Err("the proven revision should have all pods, the wrong one one".into()),
            }
        })
        .await?;
    if scale::pick(false, true) {
        given_up(&ground, &old, &bad).await?;
    }

    let patch = json!({
        "metadata": {"annotations": {"poolwright.dev/restarted-at": "now"}},
        "spec": {"worker": {"command": ["celery"]}},
    });
    ground.stage.patch_pool("w", patch).await?;
    let good = ground.revision("w", &bad).await?;
    assert_ne!(good, old);
    ground.await_alone("w", &good, 3).await?;
    ground.expect_range("w", since, |least, most| least >= 3 && most <= 4)?;
    ground.await_ready("w").await?;
    let ids = feeder.end().await?;
    ground.stage.await_ended(ids.len(), LIMIT).await?;
    ground.stage.expect_no_busy_victim()?;
    ground.stage.expect_all_done_once(&ids)
}

/// After ten minutes the wrong one has no pod, is not tried again, and the condition says so.
async fn given_up(ground: &Ground, old: &str, bad: &str) -> Result<()> {
    let message = ground
        .stage
        .await_condition("w", ConditionType::Ready, "False", "RevisionUnproven", LIMIT)
        .await?;
    assert!(message.contains(bad) && message.contains(old), "{message}");
    ground
        .watch("w", Duration::from_secs(30), |parts, _| {
            match (&parts[old], &parts[bad]) {
                (old, bad) if old.replicas == 3 && bad.replicas == 0 => Ok(()),
                _ => Err("the wrong revision should have been given up".into()),
            }
        })
        .await
}

#[tokio::test]
async fn a_rollout_needs_one_pod_above_a_maximum_of_one() -> Result<()> {
    let ground = Ground::new("one").await?;
    let scaling = json!({"policy": "WaitTarget", "minReplicas": 1, "maxReplicas": 1});
    let shape = json!({"celery": {"concurrency": 1}, "scaling": scaling});
    ground.pool("w", shape).await?;
    let feeder = ground.feed(1, 0.5, Duration::from_millis(700)).await?;
    ground.await_running(1).await?;
    ground.await_ready("w").await?;
    let old = ground.proven_revision("w").await?;
    let since = Instant::now();
    ground.restart("w", "once").await?;
    let new = ground.revision("w", &old).await?;
    ground.await_alone("w", &new, 1).await?;
    ground.expect_range("w", since, |least, most| (least, most) == (1, 2))?;
    ground.await_ready("w").await?;
    let ids = feeder.end().await?;
    ground.stage.await_ended(ids.len(), LIMIT).await?;
    ground.stage.expect_no_busy_victim()?;
    ground.stage.expect_all_done_once(&ids)
}

/// Workers that are parked to make way are none that would come back.
#[tokio::test]
async fn a_pause_in_a_rollout_keeps_the_number_of_workers() -> Result<()> {
    let ground = Ground::new("paused").await?;
    let scaling = json!({"minReplicas": 2, "maxReplicas": 2, "scaleDownDelaySeconds": 5});
    ground
        .pool("w", json!({"celery": {"concurrency": 1}, "scaling": scaling}))
        .await?;
    // Long enough for the older workers to be parked for a while.
    let feeder = ground.feed(2, 6.0, Duration::from_secs(5)).await?;
    ground.await_running(2).await?;
    ground.await_ready("w").await?;
    let old = ground.proven_revision("w").await?;
    let since = Instant::now();
    ground.restart("w", "once").await?;
    let new = ground.revision("w", &old).await?;
    let kubectl = ground.stage.kubectl()?;
    kubectl
        .run(["annotate", "wp", "w", "poolwright.dev/paused=true"])
        .await?;
    ground.await_alone("w", &new, 2).await?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    ground.expect_range("w", since, |least, most| least >= 2 && most <= 4)?;
    let (status, reason, _) = ground.stage.condition("w", ConditionType::ScalingActive).await?;
    assert_eq!((status.as_str(), reason.as_str()), ("False", "Paused"));
    kubectl
        .run(["annotate", "wp", "w", "poolwright.dev/paused-"])
        .await?;
    let ids = feeder.end().await?;
    ground.stage.await_ended(ids.len(), LIMIT).await?;
    ground.stage.expect_no_busy_victim()?;
    ground.stage.expect_all_done_once(&ids)
}

#[tokio::test]
async fn at_zero_replicas_a_rollout_starts_nothing() -> Result<()> {
    let mut ground = Ground::new("none").await?;
    ground.pool("w", json!({})).await?;
    let mut ids = ground.publish(1, 0.1).await?;
    ground.stage.await_ended(1, LIMIT).await?;
    ground.stage.await_no_pods("w", LIMIT).await?;
    ground.await_ready("w").await?;
    let old = ground.revision("w", "").await?;
    let starts = ground.stage.records()?.len();
    ground.restart("w", "once").await?;
    let new = ground.revision("w", &old).await?;
    let seconds = scale::pick(10, 60);
    let both = |parts: &BTreeMap<String, Part>, _: &str| {
        let empty = Part::default();
        let whole = parts.get(&old) == Some(&empty) && parts.get(&new).is_none_or(|part| *part == empty);
        if whole {
            Ok(())
        } else {
            Err("no Deployment should have replicas or pods".into())
        }
    };
    ground.watch("w", Duration::from_secs(seconds), both).await?;
    assert!(
        ground.parts("w").await?.contains_key(&new),
        "the new Deployment should exist"
    );
    assert_eq!(ground.stage.records()?.len(), starts, "a worker was started");
    ground.await_ready("w").await?;
    // The first task is served although nothing has proven the new revision yet.
    ids.extend(ground.publish(1, 0.1).await?);
    ground.stage.await_ended(2, LIMIT).await?;
    ground.await_alone("w", &new, 0).await?;
    ground.expect_done(&ids)
}

#[tokio::test]
async fn scaling_fields_make_no_revision_and_five_deployments_are_the_most() -> Result<()> {
    let ground = Ground::new("five").await?;
    ground.pool("w", json!({"scaling": {"minReplicas": 1}})).await?;
    ground.await_ready("w").await?;
    let first = ground.revision("w", "").await?;
    wait_until("the first revision to be proven", LIMIT, || async {
        let deployments = ground.stage.deployments("w").await?;
        Ok(deployments
            .iter()
            .all(|one| one.annotations().contains_key("poolwright.dev/proven-at")))
    })
    .await?;
    let print = ground.stage.deployments("w").await?[0].metadata.generation;
    let scaling = json!({"maxReplicas": 7, "scaleDownDelaySeconds": 9, "fallback": {"replicas": 1, "afterSeconds": 60}});
    let patch = json!({"spec": {"scaling": scaling, "celery": {"ackMode": "Early"}}});
    ground.stage.patch_pool("w", patch).await?;
    wait_until("the new fields to be observed", LIMIT, || async {
        let wp = ground.stage.wp("w").await?;
        Ok(wp.status.and_then(|status| status.observed_generation) == wp.metadata.generation)
    })
    .await?;
    let deployments = ground.stage.deployments("w").await?;
    assert_eq!(deployments.len(), 1);
    assert_eq!(deployments[0].metadata.generation, print);

    let mut last = first.clone();
    let mut most = 0;
    for round in 0..7 {
        let patch = json!({
            "metadata": {"annotations": {"poolwright.dev/restarted-at": format!("{round}")}},
            "spec": {"worker": {"command": STUBBORN}},
        });
        ground.stage.patch_pool("w", patch).await?;
        last = ground.revision("w", &last).await?;
        ground
            .watch("w", Duration::from_secs(2), |parts, _| {
                most = most.max(parts.len());
                let first = parts.get(&first).is_some_and(|part| part.replicas == 1);
                if parts.len() <= 5 && first {
                    Ok(())
                } else {
                    Err("too many, or the first is gone".into())
                }
            })
            .await?;
    }
    assert_eq!(most, 5, "the bound was not reached");
    let patch = json!({"spec": {"worker": {"command": ["celery"]}}});
    ground.stage.patch_pool("w", patch).await?;
    last = ground.revision("w", &last).await?;
    ground.await_alone("w", &last, 1).await?;
    ground.stage.expect_none_killed()
}

#[tokio::test]
async fn an_operator_that_dies_in_a_rollout_ends_it() -> Result<()> {
    let mut ground = Ground::new("dies").await?;
    let scaling = json!({"minReplicas": 3, "maxReplicas": 3, "scaleDownDelaySeconds": 5});
    ground.pool("w", json!({"scaling": scaling})).await?;
    let feeder = ground.feed(4, 2.0, Duration::from_secs(2)).await?;
    ground.stage.await_replicas("w", 3, LIMIT).await?;
    ground.await_running(4).await?;
    let old = ground.proven_revision("w").await?;
    let since = Instant::now();
    ground.restart("w", "once").await?;
    let new = ground.revision("w", &old).await?;
    for pods in [1, 2] {
        wait_until(&format!("{pods} pods of the new revision"), LIMIT, || async {
            let parts = ground.parts("w").await?;
            Ok(parts.get(&new).is_some_and(|part| part.replicas >= pods))
        })
        .await?;
        ground.stage.operator.kill();
        tokio::time::sleep(Duration::from_secs(2)).await;
        ground.stage.operator.start_again().await?;
    }
    ground.await_alone("w", &new, 3).await?;
    ground.await_ready("w").await?;
    ground.expect_range("w", since, |least, most| least >= 3 && most <= 4)?;
    let ids = feeder.end().await?;
    ground.stage.await_ended(ids.len(), LIMIT).await?;
    ground.stage.expect_no_busy_victim()?;
    ground.stage.expect_all_done_once(&ids)
}
