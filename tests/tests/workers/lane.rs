//! The fast lane: how long a task of a critical queue waits for the slot of its worker. Alone in its group: other tests
//! beside it would be measured with it.

use poolwright_tests::*;
use serde_json::json;
use std::time::{Duration, Instant};

use crate::budgets::bank::Bank;
use crate::ground::LIMIT;

/// From the push of a task to the grant of its worker's slot, which is written before the number of replicas is. The pods
/// are without a process: nothing but the way of the task is measured.
#[tokio::test]
async fn a_critical_task_has_its_slot_within_a_second_of_its_push() -> Result<()> {
    let samples: usize = scale::pick(25, 100);
    let bank = Bank::new("b-lane").await?;
    let names: Vec<String> = (0..samples).map(|number| format!("high-{number}")).collect();
    let guarantees: Vec<_> = names
        .iter()
        .map(|name| json!({"queue": name, "slots": 1}))
        .collect();
    bank.pool("db", json!({"slots": samples + 4, "guarantees": guarantees}))
        .await?;
    let fake = json!({"worker": {"image": FAKE_IMAGE}});
    bank.queue("low", "db", 1, json!({"priority": {"tier": "Background"}}))
        .await?;
    bank.workers("low", 20, fake.clone()).await?;
    for name in &names {
        bank.queue(name, "db", 1, json!({"priority": {"tier": "Critical"}}))
            .await?;
        bank.workers(name, 1, fake.clone()).await?;
    }
    // Whoever waits there waits in vain: what is left is kept.
    let mut publisher = bank.wire.publisher().await?;
    publisher.publish(&Batch::sleep("low", 20, 1.0)).await?;
    bank.stage().await_replicas("low", 4, LIMIT).await?;
    for name in &names {
        bank.ground.await_ready(name).await?;
    }
    let mut waits = Vec::new();
    for name in &names {
        tokio::time::sleep(Duration::from_millis(fastrand::u64(100..700))).await;
        let pushed = Instant::now();
        publisher.publish(&Batch::sleep(name, 1, 1.0)).await?;
        let granted = poll("a pod to be asked for", LIMIT, || async {
            let steps = bank.stage().history().into_iter();
            let mut own = steps.filter(|step| step.pool == *name && step.replicas == Some(1));
            Ok(own.next().map(|step| step.at))
        })
        .await?;
        waits.push(granted.duration_since(pushed).as_secs_f64());
    }
    waits.sort_by(f64::total_cmp);
    let at = |percent: usize| waits[(waits.len() * percent).div_ceil(100).max(1) - 1];
    println!(
        "push to grant, {samples} samples: p50 {:.3} s, p90 {:.3} s, p99 {:.3} s",
        at(50),
        at(90),
        at(99)
    );
    assert_eq!(bank.stage().peak("low"), 4);
    bank.charges.expect_within()?;
    assert!(at(99) <= 1.0, "{waits:?}");
    Ok(())
}
