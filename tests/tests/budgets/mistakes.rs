//! Mistakes in what is written of budgets: each is said, and what runs stays.

use poolwright_api::{ConditionType, Reason};
use poolwright_tests::*;
use serde_json::json;
use std::time::Duration;

use super::bank::Bank;
use super::ground::LIMIT;

const LIMITED: ConditionType = ConditionType::ScalingLimited;

#[tokio::test]
async fn a_queue_that_is_moved_to_an_unknown_pool_keeps_its_workers() -> Result<()> {
    let bank = Bank::new("b-unknown").await?;
    bank.pool("db", json!({"slots": 4})).await?;
    bank.queue("w", "db", 1, json!({})).await?;
    bank.workers("w", 4, json!({})).await?;
    let mut ids = bank.wire.publish(&Batch::sleep("w", 2, 15.0)).await?;
    bank.stage().await_running(2, LIMIT).await?;
    let before = bank.names("w").await?;
    let kubectl = bank.stage().kubectl()?;
    let to = |pool: &str| json!({"spec": {"pool": {"name": pool}}}).to_string();
    kubectl
        .run(["patch", "tq", "w", "--type=merge", "-p", &to("bd")])
        .await?;
    ids.extend(bank.wire.publish(&Batch::sleep("w", 4, 0.5)).await?);
    let message = bank
        .stage()
        .await_condition("w", LIMITED, "True", "PoolMissing", LIMIT)
        .await?;
    assert!(message.contains("Pool \"bd\" does not exist"), "{message}");
    bank.stage().expect_steady("w", 2, Duration::from_secs(4)).await?;
    assert_eq!(bank.names("w").await?, before);
    kubectl
        .run(["patch", "tq", "w", "--type=merge", "-p", &to("db")])
        .await?;
    bank.stage().await_ended(ids.len(), LIMIT).await?;
    bank.stage().await_no_pods("w", LIMIT).await?;
    bank.expect_well(&ids)
}

#[tokio::test]
async fn a_pod_that_is_larger_than_its_pool_is_told_the_largest_concurrency_that_fits() -> Result<()> {
    let bank = Bank::new("b-large").await?;
    bank.pool("gpu", json!({"slots": 6})).await?;
    bank.queue("w", "gpu", 2, json!({})).await?;
    let four = json!({"celery": {"concurrency": 4}});
    bank.workers("w", 4, four).await?;
    let ids = bank.wire.publish(&Batch::sleep("w", 3, 0.5)).await?;
    let message = bank
        .stage()
        .await_condition("w", LIMITED, "True", "PodLargerThanPool", LIMIT)
        .await?;
    let words = "Pool \"gpu\" has 6 slots and one pod takes 8: the largest concurrency that fits is 3";
    assert!(message.contains(words), "{message}");
    bank.stage().expect_steady("w", 0, Duration::from_secs(2)).await?;
    let three = json!({"spec": {"celery": {"concurrency": 3}}});
    bank.stage().patch_pool("w", three).await?;
    bank.stage().await_ended(ids.len(), LIMIT).await?;
    bank.stage().await_no_pods("w", LIMIT).await?;
    bank.expect_well(&ids)
}

#[tokio::test]
async fn max_active_tasks_caps_in_whole_pods() -> Result<()> {
    let bank = Bank::new("b-cap").await?;
    let cap = json!({"maxActiveTasks": 5});
    bank.queue("w", "default-pool", 1, cap).await?;
    let two = json!({"celery": {"concurrency": 2}});
    bank.workers("w", 9, two).await?;
    let ids = bank.wire.publish(&Batch::sleep("w", 12, 3.0)).await?;
    let message = bank
        .stage()
        .await_condition("w", LIMITED, "True", "AtMaximum", LIMIT)
        .await?;
    assert!(
        message.contains("capped at 2 pods by maxActiveTasks"),
        "{message}"
    );
    bank.stage().await_ended(ids.len(), LIMIT).await?;
    assert_eq!(bank.stage().peak("w"), 2);
    bank.stage().await_no_pods("w", LIMIT).await?;
    bank.expect_well(&ids)
}

#[tokio::test]
async fn a_guarantee_for_a_queue_that_is_not_there_is_said_on_the_pool() -> Result<()> {
    let bank = Bank::new("b-promise").await?;
    let guarantees = json!([{"queue": "hgih", "slots": 2}]);
    bank.pool("db", json!({"slots": 4, "guarantees": guarantees}))
        .await?;
    bank.queue("w", "db", 1, json!({})).await?;
    bank.workers("w", 4, json!({})).await?;
    let message = bank.await_pool_ready("db", "False", Reason::QueueUnknown).await?;
    assert!(message.contains("\"hgih\""), "{message}");
    // The others work with the rest.
    let ids = bank.wire.publish(&Batch::sleep("w", 8, 1.0)).await?;
    bank.stage().await_ended(ids.len(), LIMIT).await?;
    assert_eq!(bank.stage().peak("w"), 2);
    bank.stage().await_no_pods("w", LIMIT).await?;
    bank.expect_well(&ids)
}
