//! Pods that the cluster refuses take slots of a Pool and do nothing with them: others get those.

use poolwright_api::ConditionType::Ready;
use poolwright_tests::*;
use serde_json::json;

use super::bank::{Bank, Broker, on_each};
use crate::ground::LIMIT;

#[tokio::test]
async fn slots_of_pods_that_are_refused_are_given_to_others_and_taken_back() -> Result<()> {
    on_each("b-refused", Broker::Redis, refused).await
}

async fn refused(bank: Bank) -> Result<()> {
    bank.pool("db", json!({"slots": 4})).await?;
    bank.queue("first", "db", 1, json!({"priority": {"tier": "Critical"}}))
        .await?;
    bank.queue("last", "db", 1, json!({"priority": {"tier": "Background"}}))
        .await?;
    bank.workers("first", 4, json!({"pod": {"priorityClassName": "nowhere"}}))
        .await?;
    bank.workers("last", 4, json!({})).await?;
    let mut ids = bank.wire.publish(&Batch::sleep("first", 6, 1.0)).await?;
    bank.stage()
        .await_condition("first", Ready, "False", "AdmissionDenied", LIMIT)
        .await?;
    // All of the Pool is granted to pods that there are not.
    bank.stage().await_replicas("first", 4, LIMIT).await?;
    ids.extend(
        bank.wire
            .publish(&Batch::sleep("last", 20, scale::pick(3.0, 10.0)))
            .await?,
    );
    bank.stage().await_running(3, LIMIT).await?;
    let (replicas, pods) = bank.stage().started("first").await?;
    assert_eq!((replicas, pods), (1, 0), "one is tried");
    let (_, reason, _) = bank.stage().condition("first", Ready).await?;
    assert_eq!(reason, "AdmissionDenied");
    // With its cause it is over: what is more urgent gets the slots back as they become empty.
    bank.stage()
        .patch_pool("first", json!({"spec": {"pod": {"priorityClassName": null}}}))
        .await?;
    bank.stage().await_ended(ids.len(), LIMIT).await?;
    for name in ["first", "last"] {
        bank.stage().await_no_pods(name, LIMIT).await?;
    }
    bank.await_pool("db", "nothing is held", |status| status.holders.is_empty())
        .await?;
    bank.expect_well(&ids)
}
