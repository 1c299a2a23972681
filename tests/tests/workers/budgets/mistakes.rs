//! Mistakes in what is written of budgets: each is said, and what runs stays.

use kube::api::{Patch, PatchParams};
use poolwright_api::v1alpha1::{Pool, TaskQueue};
use poolwright_api::{ConditionType, Reason};
use poolwright_tests::*;
use serde_json::json;
use std::time::{Duration, Instant};

use super::bank::Bank;
use crate::ground::LIMIT;

const AT_MAXIMUM: &str = "poolwright_worker_pool_at_maximum";
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

/// Waits until `w` is told that a pod of it is too large for its Pool, in these words.
async fn await_too_large(bank: &Bank, words: &str) -> Result<()> {
    let reason = Reason::PodLargerThanPool.as_str();
    let outcome = wait_until(words, LIMIT, || async {
        let (status, why, message) = bank.stage().condition("w", LIMITED).await?;
        Ok(status == "True" && why == reason && message.contains(words))
    })
    .await;
    if let Err(error) = outcome {
        return Err(format!("{error}; it is {:?}", bank.stage().condition("w", LIMITED).await?).into());
    }
    Ok(())
}

#[tokio::test]
async fn a_pod_that_is_larger_than_its_pool_is_told_what_fits() -> Result<()> {
    let bank = Bank::new("b-large").await?;
    bank.pool("gpu", json!({"slots": 6})).await?;
    bank.queue("w", "gpu", 7, json!({})).await?;
    let four = json!({"celery": {"concurrency": 4}});
    bank.workers("w", 4, four).await?;
    let ids = bank.wire.publish(&Batch::sleep("w", 3, 0.5)).await?;
    // Not even one task fits, whatever the concurrency.
    let words = "Pool \"gpu\" has 6 slots and one pod takes 28: raise spec.slots there, or lower \
                 spec.pool.slotsPerTask of its queues";
    await_too_large(&bank, words).await?;
    bank.stage().expect_steady("w", 0, Duration::from_secs(2)).await?;
    let lower = json!({"spec": {"pool": {"slotsPerTask": 2}}}).to_string();
    bank.stage()
        .kubectl()?
        .run(["patch", "tq", "w", "--type=merge", "-p", &lower])
        .await?;
    let words = "Pool \"gpu\" has 6 slots and one pod takes 8: the largest concurrency that fits is 3";
    await_too_large(&bank, words).await?;
    bank.stage().expect_steady("w", 0, Duration::from_secs(2)).await?;
    assert_eq!(bank.moves.count(|act| act == Act::Created), 0);
    let three = json!({"spec": {"celery": {"concurrency": 3}}});
    bank.stage().patch_pool("w", three).await?;
    bank.stage().await_ended(ids.len(), LIMIT).await?;
    bank.stage().await_no_pods("w", LIMIT).await?;
    bank.expect_well(&ids)
}

/// The same mistake while workers work: they are charged by what they were made with, and do all the work until it is mended.
#[tokio::test]
async fn busy_pods_of_a_queue_whose_tasks_become_too_large_work_on() -> Result<()> {
    let bank = Bank::new("b-grown").await?;
    bank.pool("db", json!({"slots": 4})).await?;
    bank.queue("w", "db", 1, json!({})).await?;
    bank.workers("w", 4, json!({})).await?;
    let mut ids = bank.wire.publish(&Batch::sleep("w", 2, 30.0)).await?;
    bank.stage().await_running(2, LIMIT).await?;
    bank.ground.proven_revision("w").await?;
    let before = bank.names("w").await?;
    let (kubectl, slots) = (bank.stage().kubectl()?, |slots: u32| {
        json!({"spec": {"pool": {"slotsPerTask": slots}}}).to_string()
    });
    kubectl
        .run(["patch", "tq", "w", "--type=merge", "-p", &slots(5)])
        .await?;
    // It is no limit of their number, and it is nothing that ends by itself.
    let words = "Pool \"db\" has 4 slots and one pod takes 5: raise spec.slots there, or lower \
                 spec.pool.slotsPerTask of its queues";
    let stuck = [(ConditionType::Ready, "False"), (ConditionType::Stalled, "True")];
    let reason = Reason::PodLargerThanPool.as_str();
    for (type_, status) in stuck {
        let message = bank
            .stage()
            .await_condition("w", type_, status, reason, LIMIT)
            .await?;
        assert!(message.contains(words), "{message}");
    }
    // None of them is stopped or parked for room that would not do, and the words stay.
    let since = Instant::now();
    while since.elapsed() < Duration::from_secs(12) {
        assert_eq!(bank.consuming("w").await?, 2, "one is parked");
        assert_eq!(bank.names("w").await?, before);
        for (type_, status) in stuck {
            let (is, why, message) = bank.stage().condition("w", type_).await?;
            assert_eq!((&*is, &*why), (status, reason), "{type_}: {message}");
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(bank.stage().running()?.len(), 2, "the tasks ended too early");
    kubectl
        .run(["patch", "tq", "w", "--type=merge", "-p", &slots(2)])
        .await?;
    ids.extend(bank.wire.publish(&Batch::sleep("w", 4, 1.0)).await?);
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
    let mut ids = bank.wire.publish(&Batch::sleep("w", 12, 3.0)).await?;
    let message = bank
        .stage()
        .await_condition("w", LIMITED, "True", "AtMaximum", LIMIT)
        .await?;
    assert!(
        message.contains("capped at 2 pods by maxActiveTasks"),
        "{message}"
    );
    bank.stage().await_metric(AT_MAXIMUM, "name=\"w\"", 1.0).await?;
    bank.stage().await_ended(ids.len(), LIMIT).await?;
    assert_eq!(bank.stage().peak("w"), 2);
    bank.stage().await_metric(AT_MAXIMUM, "name=\"w\"", 0.0).await?;
    // A lowered cap is reached as a pod becomes empty.
    ids.extend(bank.wire.publish(&Batch::sleep("w", 8, 6.0)).await?);
    bank.stage().await_running(4, LIMIT).await?;
    let queues = bank.stage().namespace.api::<TaskQueue>();
    let lower = Patch::Merge(json!({"spec": {"maxActiveTasks": 3}}));
    queues.patch("w", &PatchParams::default(), &lower).await?;
    wait_until("one pod that takes work", LIMIT, || async {
        Ok(bank.consuming("w").await? == 1)
    })
    .await?;
    let left = ids.len() - bank.begun()?.len();
    assert!(left > 0, "all was done before the cap was reached");
    bank.stage().await_ended(ids.len(), LIMIT).await?;
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

/// A status holds a thousand, and more are told so.
#[tokio::test]
async fn one_holder_more_than_fits_in_is_told_so() -> Result<()> {
    let bank = Bank::new("b-holders").await?;
    bank.pool("db", json!({"slots": 3000})).await?;
    bank.queue("w", "db", 1, json!({})).await?;
    bank.await_pool("db", "it is counted", |status| status.epoch.is_some())
        .await?;
    let holders: Vec<_> = (0..1000)
        .map(|at| json!({"workerPool": format!("h{at}"), "uid": format!("h{at}"), "granted": 1, "used": 0, "epoch": 1}))
        .collect();
    let patch = Patch::Merge(json!({"status": {"holders": holders}}));
    let api = bank.stage().namespace.api::<Pool>();
    api.patch_status("db", &PatchParams::default(), &patch).await?;
    let message = bank
        .await_pool_ready("db", "False", Reason::TooManyHolders)
        .await?;
    assert!(message.contains("give some another Pool"), "{message}");
    bank.workers("w", 2, json!({"scaling": {"minReplicas": 1}}))
        .await?;
    let ready = ConditionType::Ready;
    let message = bank
        .stage()
        .await_condition("w", ready, "False", "TooManyHolders", LIMIT)
        .await?;
    assert!(message.contains("Pool \"db\" has 1000 holders"), "{message}");
    // Nobody has the uids that hold them: a while later there is room.
    bank.ground.await_heard("w", 1).await?;
    bank.await_pool_ready("db", "True", Reason::AsDesired)
        .await
        .map(drop)
}
