//! Execution pools whose size Celery changes, and the one that is no pool.

use poolwright_tests::scenario::LIMIT;
use poolwright_tests::*;
use serde_json::json;
use std::time::Duration;

use super::set;

/// Waits until every slot is busy, by the operator's count and by the tasks' own account.
async fn await_all_busy(stage: &Stage, slots: i32) -> Result<()> {
    wait_until("every slot to be busy", LIMIT, || async {
        let status = stage.status("q").await?;
        let running = i32::try_from(stage.running()?.len())?;
        Ok((status.slots, status.busy_slots, running) == (Some(slots), Some(slots), slots))
    })
    .await
}

/// A worker begins with one process. Its slots are what it may have, and it comes to have them.
#[tokio::test]
async fn workers_that_celery_grows_go_there_and_back() -> Result<()> {
    let (stage, redis) = set("r-grown").await?;
    let wire = Wire::redis(&redis, 0);
    let shape = json!({
        "celery": {"concurrency": null, "autoscale": {"min": 1, "max": 3}},
        "scaling": {"maxReplicas": 2},
    });
    let ids = wire.publish(&Batch::sleep("q", 30, 5.0)).await?;
    wire.pool(&stage, "q", &["q"], shape).await?;
    await_all_busy(&stage, 6).await?;
    stage.await_ended(30, LIMIT).await?;
    stage.await_no_pods("q", LIMIT).await?;
    assert_eq!(stage.peak("q"), 2);
    assert_eq!(stage.reversals("q"), 1, "{:?}", stage.timeline("q"));
    stage.expect_no_busy_victim()?;
    stage.expect_all_done_once(&ids)
}

/// A worker that executes tasks by itself is silent while it does.
#[tokio::test]
async fn workers_without_a_pool_go_there_and_back() -> Result<()> {
    let (stage, redis) = set("r-solo").await?;
    let wire = Wire::redis(&redis, 0);
    let shape = json!({
        "celery": {"concurrency": null, "executionPool": "Solo"},
        "scaling": {"maxReplicas": 3},
    });
    let ids = wire.publish(&Batch::sleep("q", 9, 15.0)).await?;
    wire.pool(&stage, "q", &["q"], shape).await?;
    await_all_busy(&stage, 3).await?;
    stage.await_ended(9, LIMIT).await?;
    stage.await_no_pods("q", LIMIT).await?;
    assert_eq!(stage.peak("q"), 3);
    assert_eq!(stage.reversals("q"), 1, "{:?}", stage.timeline("q"));
    stage.expect_no_busy_victim()?;
    stage.expect_all_done_once(&ids)
}

/// Held at fewer than there are, those that are at work finish what they hold, and go.
#[tokio::test]
async fn a_hold_ends_no_worker_without_a_pool_in_its_task() -> Result<()> {
    let (stage, redis) = set("r-solo-held").await?;
    let wire = Wire::redis(&redis, 0);
    let shape = json!({
        "celery": {"concurrency": null, "executionPool": "Solo"},
        "scaling": {"maxReplicas": 3, "scaleDownDelaySeconds": 2},
    });
    let ids = wire.publish(&Batch::sleep("q", 6, 25.0)).await?;
    wire.pool(&stage, "q", &["q"], shape).await?;
    await_all_busy(&stage, 3).await?;
    stage.kubectl()?.run(["scale", "wp/q", "--replicas=1"]).await?;
    stage.expect_steady("q", 3, Duration::from_secs(12)).await?;
    stage.await_ended(4, LIMIT).await?;
    wait_until("one worker to be left", LIMIT, || async {
        Ok(stage.pods("q").await?.len() == 1)
    })
    .await?;
    stage.await_ended(6, LIMIT).await?;
    stage.expect_no_busy_victim()?;
    stage.expect_all_done_once(&ids)
}
