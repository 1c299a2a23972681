//! An operator that dies in the middle of a rollout in a full Pool, with pods of both revisions: the rollout ends, and takes
//! no more than there is.

use poolwright_tests::*;
use serde_json::json;
use std::time::Duration;

use super::bank::{Bank, Broker, on_each};
use super::crashes::{WRITES, stop_before};
use crate::ground::{Feeder, LIMIT};

/// Pods of one slot each that fill the Pool.
const PODS: usize = 3;

#[tokio::test]
async fn an_operator_that_dies_before_a_write_of_a_rollout_never_exceeds_a_full_pool() -> Result<()> {
    on_each("b-midway", Broker::RabbitMq, stopped_in_rollouts).await
}

async fn stopped_in_rollouts(mut bank: Bank) -> Result<()> {
    bank.pool("db", json!({"slots": PODS})).await?;
    bank.queue("w", "db", 1, json!({})).await?;
    bank.workers("w", 4, json!({"scaling": {"minReplicas": PODS}}))
        .await?;
    bank.stage().await_consumers("w", 3, LIMIT).await?;
    // All are busy all the time, and what is parked is awaited.
    let length = scale::pick(3.0, 30.0);
    let batch = Batch::sleep("w", PODS, length);
    let feeder = Feeder::start(
        bank.wire.publisher().await?,
        batch,
        Duration::from_secs_f64(length * 1.5),
    );
    bank.ground.await_running(PODS).await?;
    let mut revision = bank.ground.proven_revision("w").await?;
    // The Deployment of the new revision is made at the beginning, and noted as proven when its first worker is up. All else
    // comes again while both have pods.
    for kind in WRITES.into_iter().rev() {
        let (is_creation, comes_once) = (kind.2, kind.0 == "deployments" && kind.1.is_empty());
        if is_creation {
            bank.ground.stage.operator.kill();
        }
        bank.ground
            .restart("w", &format!("{}-{}-{}", kind.0, kind.1, kind.2))
            .await?;
        if !comes_once {
            wait_until("pods of both revisions", LIMIT, || async {
                Ok(with_pods(&bank).await? > 1)
            })
            .await?;
        }
        let is_stopped = stop_before(kind, &mut bank.ground.stage).await?;
        let present = with_pods(&bank).await?;
        assert!(is_stopped, "it was not stopped before {kind:?}");
        assert!(
            comes_once || present > 1,
            "{present} revisions had pods before {kind:?}"
        );
        revision = bank.ground.revision("w", &revision).await?;
        bank.ground.await_alone("w", &revision, PODS).await?;
    }
    let ids = feeder.end().await?;
    let limit = LIMIT.max(Duration::from_secs(scale::pick(0, 600)));
    bank.stage().await_ended(ids.len(), limit).await?;
    bank.ground.await_ready("w").await?;
    assert_eq!(bank.charges.sheet("db")?.peak(), u64::try_from(PODS)?);
    bank.expect_well(&ids)
}

/// How many revisions have pods.
async fn with_pods(bank: &Bank) -> Result<usize> {
    let parts = bank.ground.parts("w").await?;
    Ok(parts.values().filter(|part| !part.pods.is_empty()).count())
}
