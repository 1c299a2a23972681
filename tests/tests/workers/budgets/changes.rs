//! What somebody changes while workers run: the kind of a budget, which one a queue draws on, how many hold it.

use poolwright_api::{ConditionType, Reason};
use poolwright_tests::*;
use serde_json::json;

use super::bank::Bank;
use crate::ground::LIMIT;

#[tokio::test]
async fn a_pool_that_gets_a_limit_and_loses_it_again_stops_nobody() -> Result<()> {
    let bank = Bank::new("b-open").await?;
    bank.pool("db", json!({"slots": -1})).await?;
    bank.queue("w", "db", 1, json!({})).await?;
    bank.workers("w", 6, json!({})).await?;
    let ids = bank
        .wire
        .publish(&Batch::sleep("w", 20, scale::pick(8.0, 60.0)))
        .await?;
    bank.stage().await_running(6, LIMIT).await?;
    bank.await_pool("db", "no limit", |status| status.effective_slots == Some(-1))
        .await?;
    bank.pool("db", json!({"slots": 2})).await?;
    let message = bank.await_pool_ready("db", "False", Reason::OverBudget).await?;
    assert!(message.contains("slots are taken of 2"), "{message}");
    bank.await_pool_ready("db", "True", Reason::AsDesired).await?;
    assert_eq!(bank.stage().pods("w").await?.len(), 2);
    bank.pool("db", json!({"slots": -1})).await?;
    bank.stage().await_replicas("w", 6, LIMIT).await?;
    bank.stage().await_ended(ids.len(), LIMIT * 3).await?;
    bank.stage().await_no_pods("w", LIMIT).await?;
    bank.expect_well(&ids)
}

#[tokio::test]
async fn a_queue_that_is_moved_to_another_pool_is_charged_to_both_until_its_old_pods_are_gone() -> Result<()>
{
    let bank = Bank::new("b-move").await?;
    bank.pool("old", json!({"slots": 3})).await?;
    bank.pool("new", json!({"slots": 2})).await?;
    bank.queue("w", "old", 1, json!({})).await?;
    bank.workers("w", 5, json!({})).await?;
    let ids = bank
        .wire
        .publish(&Batch::sleep("w", 18, scale::pick(5.0, 60.0)))
        .await?;
    bank.stage().await_running(3, LIMIT).await?;
    let patch = json!({"spec": {"pool": {"name": "new"}}}).to_string();
    bank.stage()
        .kubectl()?
        .run(["patch", "tq", "w", "--type=merge", "-p", &patch])
        .await?;
    bank.await_pool("new", "two slots held", |status| {
        status.holders.iter().any(|one| one.used == 2)
    })
    .await?;
    bank.await_pool("old", "nothing is held", |status| status.holders.is_empty())
        .await?;
    bank.stage().await_ended(ids.len(), LIMIT * 3).await?;
    bank.stage().await_no_pods("w", LIMIT).await?;
    assert_eq!(bank.charges.sheet("old")?.peak(), 3);
    assert_eq!(bank.charges.sheet("new")?.peak(), 2);
    bank.expect_well(&ids)
}

#[tokio::test]
async fn a_worker_pool_on_two_pools_gets_what_both_allow_and_leaves_the_rest() -> Result<()> {
    let bank = Bank::new("b-both").await?;
    bank.pool("a", json!({"slots": 5})).await?;
    bank.pool("b", json!({"slots": 4})).await?;
    bank.queue("x", "a", 1, json!({})).await?;
    bank.queue("y", "b", 2, json!({})).await?;
    bank.queue("z", "a", 1, json!({})).await?;
    let mut publisher = bank.wire.publisher().await?;
    let mut ids = Vec::new();
    for queue in ["x", "y", "z"] {
        ids.extend(publisher.publish(&Batch::sleep(queue, 12, 4.0)).await?);
    }
    bank.workers("z", 9, json!({})).await?;
    let shape = json!({
        "celery": {"concurrency": 1}, "scaling": {"maxReplicas": 9, "scaleDownDelaySeconds": 3},
    });
    bank.wire
        .workers(bank.stage(), "both", &["x", "y"], shape)
        .await?;
    bank.await_shares(&[("both", 2), ("z", 3)], 0, LIMIT).await?;
    bank.stage().await_ended(ids.len(), LIMIT).await?;
    for name in ["both", "z"] {
        bank.stage().await_no_pods(name, LIMIT).await?;
    }
    assert_eq!(bank.charges.sheet("a")?.peak(), 5);
    assert_eq!(bank.charges.sheet("b")?.peak(), 4);
    bank.expect_well(&ids)
}

#[tokio::test]
async fn a_manual_hold_gets_no_more_than_its_pool_has() -> Result<()> {
    let bank = Bank::new("b-hold").await?;
    bank.pool("db", json!({"slots": 3})).await?;
    bank.queue("w", "db", 1, json!({})).await?;
    bank.workers("w", 2, json!({})).await?;
    let kubectl = bank.stage().kubectl()?;
    kubectl.run(["scale", "wp/w", "--replicas=6"]).await?;
    // Above its maximum, and no further than the Pool.
    bank.stage().await_replicas("w", 3, LIMIT).await?;
    let (hold, limited) = (ConditionType::ManualHold, ConditionType::ScalingLimited);
    bank.stage()
        .await_condition("w", hold, "True", "ManualHold", LIMIT)
        .await?;
    let message = bank
        .stage()
        .await_condition("w", limited, "True", "PoolLimited", LIMIT)
        .await?;
    assert!(message.contains("3 slots are missing"), "{message}");
    bank.ground.await_heard("w", 3).await?;
    let patch = json!({"spec": {"replicas": null}});
    bank.stage().patch_pool("w", patch).await?;
    bank.stage().await_no_pods("w", LIMIT).await?;
    bank.expect_well(&[])
}

#[tokio::test]
async fn a_worker_pool_that_is_made_again_gets_what_its_predecessor_leaves() -> Result<()> {
    let bank = Bank::new("b-again").await?;
    bank.pool("db", json!({"slots": 3})).await?;
    bank.queue("w", "db", 1, json!({})).await?;
    bank.workers("w", 3, json!({})).await?;
    let mut ids = bank.wire.publish(&Batch::sleep("w", 3, 20.0)).await?;
    bank.stage().await_running(3, LIMIT).await?;
    let (before, kubectl) = (bank.names("w").await?, bank.stage().kubectl()?);
    kubectl.run(["delete", "wp", "w", "--wait=false"]).await?;
    // The garbage collector would: it learns of a new kind of owner only within half a minute.
    let label = "-l=poolwright.dev/worker-pool=w";
    kubectl
        .run(["delete", "deployment", label, "--wait=false"])
        .await?;
    bank.workers("w", 3, json!({})).await?;
    ids.extend(bank.wire.publish(&Batch::sleep("w", 6, 1.0)).await?);
    // All slots are still taken by pods that finish their tasks.
    let waits = ConditionType::ScalingLimited;
    let reason = "WaitingForSlots";
    bank.stage()
        .await_condition("w", waits, "True", reason, LIMIT)
        .await?;
    assert_eq!(bank.stage().running()?.len(), 3, "the old tasks ended too early");
    let living = bank.names("w").await?;
    assert!(living.is_disjoint(&before) && living.is_empty(), "{living:?}");
    bank.stage().await_ended(ids.len(), LIMIT).await?;
    bank.stage().await_no_pods("w", LIMIT).await?;
    bank.await_pool("db", "nothing is held", |status| status.holders.is_empty())
        .await?;
    bank.charges.expect_within()?;
    bank.stage().expect_none_killed()?;
    bank.ground.expect_done(&ids)
}
