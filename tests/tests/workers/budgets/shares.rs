//! Who gets how much of a Pool that is too small for all.

use poolwright_api::ConditionType;
use poolwright_tests::*;
use serde_json::json;
use std::time::{Duration, Instant};

use super::bank::{Bank, Broker, on_each};
use crate::ground::LIMIT;

#[tokio::test]
async fn a_worker_pool_that_its_budget_limits_says_so_with_the_missing_number() -> Result<()> {
    let bank = Bank::new("b-says").await?;
    bank.pool("default-pool", json!({"slots": 4})).await?;
    // Before the operator looks: a publisher sends one by one, and each look is a decision.
    // They are as long as the pods may start apart.
    let ids = bank.wire.publish(&Batch::sleep("q", 8, 15.0)).await?;
    let shape = json!({"scaling": {"scaleDownDelaySeconds": 3}});
    bank.wire.workers(bank.stage(), "w", &["q"], shape).await?;
    // 8 tasks on 2 slots a pod.
    let words = "Pool \"default-pool\" gives 2 of 4 pods: 4 slots are missing";
    let told = |status: &poolwright_api::v1alpha1::WorkerPoolStatus| {
        let mut last = status.last_decision.iter();
        last.any(|one| one.reason == "PoolLimited" && one.text.contains(words))
    };
    bank.stage().await_status("w", words, LIMIT, told).await?;
    let limited = ConditionType::ScalingLimited;
    let message = bank
        .stage()
        .await_condition("w", limited, "True", "PoolLimited", LIMIT)
        .await?;
    assert!(message.contains("slots are missing"), "{message}");
    let waits = |status: &poolwright_api::v1alpha1::PoolStatus| {
        let mut waiters = status.waiters.iter();
        waiters.any(|one| one.worker_pool == "w" && one.missing > 0)
    };
    bank.await_pool("default-pool", "a waiter", waits).await?;
    bank.stage().await_replicas("w", 2, LIMIT).await?;
    // All four slots run, and four tasks wait for one each.
    let numbers = [
        ("slots", 4),
        ("running_slots", 4),
        ("queued_slots", 4),
        ("missing_slots", 4),
    ];
    wait_until("the metrics of the Pool", LIMIT, || async {
        let text = bank.stage().operator.metrics().await?;
        let of = |(what, number): &(&str, u32)| {
            let own = format!("namespace=\"{}\"}} {number}", bank.stage().namespace.name);
            let name = format!("poolwright_pool_{what}{{name=\"default-pool\"");
            text.lines()
                .any(|line| line.starts_with(&name) && line.ends_with(&own))
        };
        Ok(numbers.iter().all(of))
    })
    .await?;
    let shown = |status: &poolwright_api::v1alpha1::PoolStatus| {
        (status.running, status.queued, status.utilization_percent) == (Some(4), Some(4), Some(100))
    };
    bank.await_pool("default-pool", "the same numbers", shown).await?;
    bank.stage().await_ended(ids.len(), LIMIT).await?;
    bank.stage().await_no_pods("w", LIMIT).await?;
    bank.await_pool("default-pool", "nobody waits and nothing is held", |status| {
        status.waiters.is_empty() && status.holders.is_empty() && status.open == Some(4)
    })
    .await?;
    bank.expect_well(&ids)
}

#[tokio::test]
async fn three_share_by_weight_and_one_that_returns_gets_its_part_back() -> Result<()> {
    on_each("b-shares", Broker::Redis, three_share).await
}

async fn three_share(bank: Bank) -> Result<()> {
    bank.pool("db", json!({"slots": 18})).await?;
    let mut publisher = bank.wire.publisher().await?;
    // None may run out of tasks.
    let tasks = scale::pick(800, 1500);
    for (name, weight) in [("five", 5), ("three", 3), ("one", 1)] {
        publisher.publish(&Batch::sleep(name, tasks, 1.5)).await?;
        bank.queue(name, "db", 2, json!({"priority": {"weight": weight}}))
            .await?;
    }
    for name in ["five", "three", "one"] {
        bank.workers(name, 9, json!({})).await?;
    }
    let all = [("five", 5), ("three", 3), ("one", 1)];
    bank.await_shares(&all, 1, LIMIT).await?;
    expect_shares(&bank, &all, scale::pick(4, 30)).await?;
    bank.purge("five").await?;
    println!("five has nothing to do");
    bank.await_shares(&[("five", 0), ("three", 7), ("one", 2)], 1, LIMIT)
        .await?;
    expect_shares(
        &bank,
        &[("five", 0), ("three", 7), ("one", 2)],
        scale::pick(2, 30),
    )
    .await?;
    publisher.publish(&Batch::sleep("five", tasks, 1.5)).await?;
    println!("five is back");
    bank.await_shares(&all, 1, LIMIT).await?;
    expect_shares(&bank, &all, scale::pick(4, 30)).await?;
    for (name, _) in all {
        bank.purge(name).await?;
    }
    for (name, _) in all {
        bank.stage().await_no_pods(name, LIMIT).await?;
    }
    bank.expect_well(&bank.begun()?)
}

/// Fails if a share leaves its place by more than a pod within so many seconds, or if they leave more of the Pool
/// unused than one pod takes: all that may still happen is that one of them gives another one pod, which is parked
/// here before it comes there.
async fn expect_shares(bank: &Bank, wanted: &[(&str, u32)], seconds: u64) -> Result<()> {
    let (since, all) = (Instant::now(), wanted.iter().map(|one| one.1).sum::<u32>());
    while since.elapsed() < Duration::from_secs(seconds) {
        let mut sum = 0;
        for (name, want) in wanted {
            let have = bank.consuming(name).await?;
            if have.abs_diff(*want) > 1 {
                let text = bank.stage().decision(name).await?;
                return Err(format!("{name} has {have} pods instead of {want}: {text}").into());
            }
            sum += have;
        }
        if sum + 1 < all {
            let status = bank.status("db").await?;
            return Err(format!("{sum} of {all} pods that there is room for: {status:?}").into());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}

/// `Background` work fills all that it may of a Pool of 6 slots, less what is kept; then `Critical` work comes.
async fn critical_comes(bank: &Bank, seconds: f64, background: u32) -> Result<Vec<String>> {
    let tier = |tier: &str| json!({"priority": {"tier": tier}});
    bank.queue("low", "db", 1, tier("Background")).await?;
    bank.queue("high", "db", 1, tier("Critical")).await?;
    bank.workers("high", 2, json!({})).await?;
    bank.workers("low", 9, json!({})).await?;
    let mut publisher = bank.wire.publisher().await?;
    let mut ids = publisher
        .publish(&Batch::sleep("low", background as usize * 2, seconds))
        .await?;
    bank.stage().await_running(background as usize, LIMIT).await?;
    // Nobody finds more room: what is left is kept.
    bank.stage()
        .await_condition("low", ConditionType::ScalingLimited, "True", "PoolLimited", LIMIT)
        .await?;
    let pushed = (Instant::now(), jiff::Timestamp::now());
    let urgent = publisher.publish(&Batch::sleep("high", 1, 0.5)).await?;
    let start = poll("the critical task to start", LIMIT, || async {
        let events = bank.stage().events()?;
        Ok(events.into_iter().find(|event| event.id == urgent[0]))
    })
    .await?;
    let waited = start.at - pushed.1.as_duration().as_secs_f64();
    let moves = bank.moves.all();
    let created = moves
        .iter()
        .find(|one| one.pod == start.pod && one.act == Act::Created);
    let created = created.ok_or("its pod was not seen")?.at;
    let created = created.duration_since(pushed.0).as_secs_f64();
    let name = "poolwright_worker_pool_start_up_seconds";
    wait_until("a start-up time", LIMIT, || async {
        Ok(bank.stage().metric(name, "name=\"high\"").await?.is_some())
    })
    .await?;
    let start_up = bank
        .stage()
        .metric(name, "name=\"high\"")
        .await?
        .unwrap_or_default();
    println!("critical: pod after {created:.2} s, task after {waited:.2} s, a start-up of {start_up:.2} s");
    // A worker may begin a task before its first heartbeat is on its way.
    let rest = (waited - start_up).max(created);
    let most = if background < 6 { 2.0 } else { seconds + 10.0 };
    if rest > most {
        return Err(
            format!("the critical task waited {rest:.2} s beside the start-up, at most {most} s").into(),
        );
    }
    ids.extend(urgent);
    Ok(ids)
}

#[tokio::test]
async fn critical_work_with_a_guarantee_starts_at_once_beside_background_work() -> Result<()> {
    on_each("b-fast", Broker::Redis, expect_at_once).await
}

async fn expect_at_once(bank: Bank) -> Result<()> {
    let began = Instant::now();
    let guarantee = json!([{"queue": "high", "slots": 2}]);
    bank.pool("db", json!({"slots": 6, "guarantees": guarantee}))
        .await?;
    let ids = critical_comes(&bank, scale::pick(25.0, 60.0), 4).await?;
    bank.stage().await_ended(ids.len(), LIMIT * 2).await?;
    bank.stage().await_no_pods("low", LIMIT).await?;
    bank.stage().await_no_pods("high", LIMIT).await?;
    assert_eq!(bank.stage().most_consuming("low", began), 4);
    bank.expect_well(&ids)
}

#[tokio::test]
async fn critical_work_without_a_guarantee_gets_the_slot_of_the_next_background_task_that_ends() -> Result<()>
{
    let bank = Bank::new("b-tier").await?;
    expect_a_slot_of_the_next(&bank).await
}

#[tokio::test]
async fn so_it_does_on_rabbitmq() -> Result<()> {
    let bank = Bank::on_rabbitmq("b-tier-rabbit").await?;
    expect_a_slot_of_the_next(&bank).await
}

async fn expect_a_slot_of_the_next(bank: &Bank) -> Result<()> {
    bank.pool("db", json!({"slots": 6})).await?;
    let ids = critical_comes(bank, scale::pick(25.0, 60.0), 6).await?;
    bank.stage().await_ended(ids.len(), LIMIT * 2).await?;
    bank.stage().await_no_pods("low", LIMIT).await?;
    bank.stage().await_no_pods("high", LIMIT).await?;
    bank.expect_well(&ids)
}
