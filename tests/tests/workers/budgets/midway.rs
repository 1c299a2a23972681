//! An operator that dies in the middle of a rollout in a full Pool, with pods of both revisions: the rollout ends, and takes
//! no more than there is.

use poolwright_tests::*;
use serde_json::json;
use std::time::{Duration, Instant};

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
    let length = scale::pick(6.0, 30.0);
    let batch = Batch::sleep("w", PODS, length);
    let feeder = Feeder::start(
        bank.wire.publisher().await?,
        batch,
        Duration::from_secs_f64(length * 1.5),
    );
    bank.ground.await_running(PODS).await?;
    let mut revision = bank.ground.proven_revision("w").await?;
    let (mut hits, since) = ([0; WRITES.len()], Instant::now());
    for round in 1.. {
        // So that it does not make the Deployment before it is watched.
        bank.ground.stage.operator.kill();
        bank.ground.restart("w", &round.to_string()).await?;
        roll(&mut bank, &revision, &mut hits).await?;
        revision = bank.ground.revision("w", &revision).await?;
        bank.ground.await_alone("w", &revision, PODS).await?;
        println!(
            "rollout {round} has ended after {:.0} s; stopped {hits:?} times before {WRITES:?}",
            since.elapsed().as_secs_f32()
        );
        if !hits.contains(&0) || since.elapsed() > LIMIT * 3 {
            break;
        }
    }
    assert!(
        !hits.contains(&0),
        "stopped {hits:?} times before {WRITES:?}: some have not been tried in a rollout"
    );
    let ids = feeder.end().await?;
    let limit = LIMIT.max(Duration::from_secs(scale::pick(0, 600)));
    bank.stage().await_ended(ids.len(), limit).await?;
    bank.ground.await_ready("w").await?;
    assert_eq!(bank.charges.sheet("db")?.peak(), u64::try_from(PODS)?);
    bank.expect_well(&ids)
}

/// Stops the operator before one kind of write after the other until nothing is left of the `old` revision. Counts how often it was stopped
/// while there were pods of both revisions; before the Deployment of the newest is made there can be none.
async fn roll(bank: &mut Bank, old: &str, hits: &mut [u32; WRITES.len()]) -> Result<()> {
    let mut is_made = false;
    loop {
        // The last first: it comes only at the beginning.
        for (kind, hit) in WRITES.into_iter().zip(&mut *hits).rev() {
            let (is_creation, is_note) = (kind.2, kind.0 == "deployments" && kind.1.is_empty());
            // Once in a rollout, and seldom.
            if is_creation && is_made || is_note && *hit > 0 {
                continue;
            }
            let is_stopped = stop_before(kind, &mut bank.ground.stage).await?;
            let parts = bank.ground.parts("w").await?;
            let present = parts.values().filter(|part| !part.pods.is_empty()).count();
            println!("before {kind:?}: {is_stopped}, {present} revisions have pods");
            *hit += u32::from(is_stopped && (is_creation || present > 1));
            is_made |= is_creation && is_stopped;
            if !parts.contains_key(old) {
                return Ok(());
            }
        }
    }
}
