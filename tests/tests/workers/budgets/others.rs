//! What others do: they delete pods, Pools and whole WorkerPools, and everything converges.

use kube::ResourceExt;
use kube::api::DeleteParams;
use poolwright_api::v1alpha1::{Pool, PoolStatus, TaskQueue, WorkerPool, WorkerPoolStatus};
use poolwright_api::{ConditionType, DEFAULT_POOL, Reason};
use poolwright_tests::*;
use serde_json::json;
use std::time::Duration;

use super::bank::Bank;
use crate::ground::LIMIT;

const OVER: &str = "poolwright_pool_over_budget";

/// Sum of what is granted, and the number of the last change of a grant.
fn granted(status: &PoolStatus) -> (i64, i64) {
    let sum = status.holders.iter().map(|one| one.granted).sum();
    (sum, status.epoch.unwrap_or(0))
}

/// Waits until the status of `w` tells of so many pods that are being deleted.
async fn await_draining(bank: &Bank, count: i32) -> Result<()> {
    let what = format!("{count} draining");
    let told = |status: &WorkerPoolStatus| status.draining_replicas == Some(count);
    bank.stage().await_status("w", &what, LIMIT, told).await
}

#[tokio::test]
async fn a_pod_that_somebody_deletes_is_an_overlap_that_ends_and_nothing_is_granted_in_it() -> Result<()> {
    let bank = Bank::new("b-evict").await?;
    bank.pool("db", json!({"slots": 4})).await?;
    bank.queue("w", "db", 1, json!({})).await?;
    bank.queue("wants", "db", 1, json!({})).await?;
    let full = json!({"scaling": {"minReplicas": 4, "maxReplicas": 4}});
    bank.workers("w", 4, full).await?;
    bank.ground.await_heard("w", 4).await?;
    bank.workers("wants", 2, json!({})).await?;
    let mut ids = bank.wire.publish(&Batch::sleep("w", 1, 15.0)).await?;
    bank.stage().await_running(1, LIMIT).await?;
    let busy = bank.stage().events()?.remove(0).pod;
    let before = bank
        .await_pool("db", "four slots granted", |status| granted(status).0 == 4)
        .await?;
    let kubectl = bank.stage().kubectl()?;
    kubectl.run(["delete", "pod", &busy, "--wait=false"]).await?;
    let message = bank.await_pool_ready("db", "False", Reason::OverBudget).await?;
    assert!(message.contains("5 slots are taken of 4"), "{message}");
    bank.stage().await_metric(OVER, "name=\"db\"", 1.0).await?;
    await_draining(&bank, 1).await?;
    // Somebody else wants a slot in the overlap, and gets none.
    let more = bank.wire.publish(&Batch::sleep("wants", 1, 0.5)).await?;
    let waits = ConditionType::ScalingLimited;
    wait_until("the other one to be limited", LIMIT, || async {
        Ok(bank.stage().condition("wants", waits).await?.0 == "True")
    })
    .await?;
    let during = bank.status("db").await?;
    assert_eq!(granted(&during), granted(&before), "{during:?}");
    bank.stage().await_ended(ids.len(), LIMIT).await?;
    bank.await_pool_ready("db", "True", Reason::AsDesired).await?;
    bank.stage().await_metric(OVER, "name=\"db\"", 0.0).await?;
    await_draining(&bank, 0).await?;
    // An idle one is gone in a moment.
    let idle = bank.names("w").await?.into_iter().next().unwrap_or_default();
    kubectl.run(["delete", "pod", &idle]).await?;
    wait_until("four pods", LIMIT, || async {
        Ok(bank.stage().pods("w").await?.len() == 4)
    })
    .await?;
    // Where there is room, the other one gets its turn.
    let patch = json!({"spec": {"scaling": {"minReplicas": 0}}});
    bank.stage().patch_pool("w", patch).await?;
    ids.extend(more);
    bank.stage().await_ended(ids.len(), LIMIT).await?;
    for name in ["w", "wants"] {
        bank.stage().await_no_pods(name, LIMIT).await?;
    }
    bank.await_pool("db", "nothing is held", |status| status.holders.is_empty())
        .await?;
    let sheet = bank.charges.sheet("db")?;
    assert_eq!((sheet.peak(), sheet.peak_of_all()), (4, 5));
    bank.charges.expect_within()?;
    // The one that was deleted while it was busy had the time to finish.
    bank.stage().expect_none_killed()?;
    bank.ground.expect_done(&ids)
}

#[tokio::test]
async fn a_pool_that_is_deleted_in_use_stops_nothing_and_is_said() -> Result<()> {
    let bank = Bank::new("b-gone").await?;
    bank.pool("db", json!({"slots": 3})).await?;
    bank.queue("w", "db", 1, json!({})).await?;
    bank.workers("w", 5, json!({})).await?;
    let mut ids = bank.wire.publish(&Batch::sleep("w", 6, 10.0)).await?;
    bank.stage().await_running(3, LIMIT).await?;
    let (before, pools) = (bank.names("w").await?, bank.stage().namespace.api::<Pool>());
    pools.delete("db", &DeleteParams::default()).await?;
    let limited = ConditionType::ScalingLimited;
    let message = bank
        .stage()
        .await_condition("w", limited, "True", "PoolMissing", LIMIT)
        .await?;
    assert!(message.contains("Pool \"db\" does not exist"), "{message}");
    bank.stage().expect_steady("w", 3, Duration::from_secs(5)).await?;
    assert_eq!(bank.names("w").await?, before);
    // Back again, with less room than is taken: that too stops nobody.
    bank.pool("db", json!({"slots": 1})).await?;
    bank.await_pool_ready("db", "False", Reason::OverBudget).await?;
    bank.pool("db", json!({"slots": 3})).await?;
    bank.await_pool_ready("db", "True", Reason::AsDesired).await?;
    ids.extend(bank.wire.publish(&Batch::sleep("w", 4, 0.5)).await?);
    bank.stage().await_ended(ids.len(), LIMIT).await?;
    bank.stage().await_no_pods("w", LIMIT).await?;
    bank.expect_well(&ids)
}

/// More slots than a new default-pool has by default.
const MANY: i64 = 132;

#[tokio::test]
async fn a_fleet_that_is_larger_than_a_new_default_pool_is_not_cut() -> Result<()> {
    let mut bank = Bank::new("b-fleet").await?;
    let pools = bank.stage().namespace.api::<Pool>();
    let queues = bank.stage().namespace.api::<TaskQueue>();
    bank.pool(DEFAULT_POOL, json!({"slots": -1})).await?;
    bank.queue("w", DEFAULT_POOL, 66, json!({})).await?;
    let two = json!({"scaling": {"minReplicas": 2}});
    bank.workers("w", 2, two).await?;
    bank.ground.await_heard("w", 2).await?;
    let before = bank.names("w").await?;
    for round in ["while the operator works", "while it is away"] {
        if round.ends_with("away") {
            bank.ground.stage.operator.kill();
        }
        // As the policy wants it: the Pool goes when no TaskQueue is left. The workers stay.
        for queue in ["q", "w"] {
            queues.delete(queue, &DeleteParams::default()).await?;
        }
        let uid = pools.get(DEFAULT_POOL).await?.uid();
        wait_until("default-pool to go", LIMIT, || async {
            match pools.delete(DEFAULT_POOL, &DeleteParams::default()).await {
                Ok(_) => Ok(true),
                Err(error) => Err(error.into()),
            }
        })
        .await?;
        bank.queue("q", DEFAULT_POOL, 1, json!({})).await?;
        bank.queue("w", DEFAULT_POOL, 66, json!({})).await?;
        if round.ends_with("away") {
            bank.ground.stage.operator.start_again().await?;
        }
        let made = poll("another default-pool", LIMIT, || async {
            let made = pools.get_opt(DEFAULT_POOL).await?;
            Ok(made.filter(|made| made.uid() != uid))
        })
        .await?;
        assert_eq!(i64::from(made.spec.slots), MANY, "{round}");
        bank.await_pool(DEFAULT_POOL, "all granted", |status| granted(status).0 == MANY)
            .await?;
        bank.await_pool_ready(DEFAULT_POOL, "True", Reason::AsDesired)
            .await?;
        bank.stage().expect_steady("w", 2, Duration::from_secs(4)).await?;
        assert_eq!(bank.names("w").await?, before, "{round}");
    }
    // It still works.
    let ids = bank.wire.publish(&Batch::sleep("w", 4, 0.5)).await?;
    bank.stage().await_ended(ids.len(), LIMIT).await?;
    bank.stage()
        .namespace
        .api::<WorkerPool>()
        .delete("w", &DeleteParams::default())
        .await?;
    bank.stage().await_no_pods("w", LIMIT).await?;
    bank.charges.expect_within()?;
    bank.stage().expect_all_done_once(&ids)
}
