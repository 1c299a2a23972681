//! A Pool that heeds a load grants half while it is high.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Patch, PatchParams, PostParams};
use poolwright_tests::*;
use serde_json::{Value, json};
use std::time::Duration;

use super::bank::Bank;
use crate::ground::LIMIT;

async fn tell(bank: &Bank, data: Value) -> Result<()> {
    let api = bank.stage().namespace.api::<ConfigMap>();
    let patch = Patch::Merge(json!({"data": data}));
    api.patch("load", &PatchParams::default(), &patch).await?;
    Ok(())
}

#[tokio::test]
async fn while_a_load_is_high_half_the_slots_are_granted_and_nobody_is_stopped() -> Result<()> {
    let bank = Bank::new("b-load").await?;
    let map = serde_json::from_value(json!({"metadata": {"name": "load"}, "data": {"percent": "12"}}))?;
    let api = bank.stage().namespace.api::<ConfigMap>();
    api.create(&PostParams::default(), &map).await?;
    let source = json!({"configMapKeyRef": {"name": "load", "key": "percent"}});
    bank.pool("db", json!({"slots": 4, "loadShedding": {"source": source}}))
        .await?;
    bank.queue("w", "db", 1, json!({})).await?;
    bank.workers("w", 9, json!({})).await?;
    let length = scale::pick(4.0, 30.0);
    let mut ids = bank.wire.publish(&Batch::sleep("w", 24, length)).await?;
    bank.stage().await_running(4, LIMIT).await?;

    tell(&bank, json!({"percent": "91"})).await?;
    bank.await_pool("db", "half", |status| status.effective_slots == Some(2))
        .await?;
    let pods = |count: usize| {
        let bank = &bank;
        wait_until("fewer pods", LIMIT * 2, move || async move {
            Ok(bank.stage().pods("w").await?.len() == count)
        })
    };
    pods(2).await?;
    // What cannot be read changes nothing.
    tell(&bank, json!({"percent": null})).await?;
    tokio::time::sleep(Duration::from_secs(20)).await;
    let status = bank.status("db").await?;
    assert_eq!(status.effective_slots, Some(2), "{status:?}");
    tell(&bank, json!({"percent": "80"})).await?;
    bank.await_pool("db", "all of it", |status| status.effective_slots == Some(4))
        .await?;
    // Of the first ones too few may be left by now.
    ids.extend(bank.wire.publish(&Batch::sleep("w", 12, length)).await?);
    bank.stage().await_running(4, LIMIT).await?;
    let all = Duration::from_secs_f64(length / 4.0 * f64::from(u32::try_from(ids.len())?));
    bank.stage().await_ended(ids.len(), all + LIMIT * 2).await?;
    bank.expect_well(&ids)
}
