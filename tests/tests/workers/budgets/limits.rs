//! At the limit: rollouts, cuts, and the writes of a scale-in.

use poolwright_api::{ConditionType, Reason};
use poolwright_tests::*;
use serde_json::json;
use std::collections::BTreeSet;
use std::time::Duration;

use super::bank::{Bank, Broker, on_each};
use crate::ground::{Feeder, LIMIT};

#[tokio::test]
async fn a_rollout_in_a_full_pool_ends_and_never_takes_more() -> Result<()> {
    on_each("b-roll", Broker::RabbitMq, roll).await
}

async fn roll(bank: Bank) -> Result<()> {
    bank.pool("db", json!({"slots": 4})).await?;
    bank.queue("w", "db", 1, json!({})).await?;
    bank.workers("w", 4, json!({"scaling": {"minReplicas": 4}}))
        .await?;
    let length = scale::pick(6.0, 30.0);
    bank.stage().await_consumers("w", 4, LIMIT).await?;
    let publisher = bank.wire.publisher().await?;
    let batch = Batch::sleep("w", 4, length);
    let feeder = Feeder::start(publisher, batch, Duration::from_secs_f64(length));
    bank.ground.await_running(4).await?;
    let old = bank.ground.proven_revision("w").await?;
    bank.ground.restart("w", "once").await?;
    let new = bank.ground.revision("w", &old).await?;
    bank.ground.await_alone("w", &new, 4).await?;
    let ids = feeder.end().await?;
    bank.stage()
        .await_ended(ids.len(), LIMIT.max(Duration::from_secs(scale::pick(0, 600))))
        .await?;
    bank.ground.await_ready("w").await?;
    assert_eq!(bank.charges.sheet("db")?.peak(), 4);
    bank.expect_well(&ids)
}

#[tokio::test]
async fn a_budget_cut_below_what_is_taken_stops_nobody_and_is_reached() -> Result<()> {
    cut(&Bank::new("b-cut").await?).await
}

#[tokio::test]
async fn so_it_is_on_rabbitmq() -> Result<()> {
    cut(&Bank::on_rabbitmq("b-cut-rabbit").await?).await
}

async fn cut(bank: &Bank) -> Result<()> {
    bank.pool("db", json!({"slots": 6})).await?;
    bank.queue("w", "db", 1, json!({})).await?;
    bank.workers("w", 9, json!({})).await?;
    let length = scale::pick(12.0, 60.0);
    let mut ids = bank.wire.publish(&Batch::sleep("w", 14, length)).await?;
    bank.stage().await_running(6, LIMIT).await?;
    bank.pool("db", json!({"slots": 2})).await?;
    let message = bank.await_pool_ready("db", "False", Reason::OverBudget).await?;
    assert!(message.contains("6 slots are taken of 2"), "{message}");
    // They go as they become empty; two stay.
    wait_until(
        "two pods",
        LIMIT.max(Duration::from_secs_f64(length * 2.0)),
        || async { Ok(bank.stage().pods("w").await?.len() == 2) },
    )
    .await?;
    bank.await_pool_ready("db", "True", Reason::AsDesired).await?;
    let left = ids.len() - bank.begun()?.len();
    assert!(left > 0, "all was done before the cut was reached");
    // More room is used again.
    bank.pool("db", json!({"slots": 3})).await?;
    ids.extend(bank.wire.publish(&Batch::sleep("w", 4, 1.0)).await?);
    bank.stage().await_replicas("w", 3, LIMIT).await?;
    bank.stage().await_ended(ids.len(), LIMIT * 3).await?;
    bank.stage().await_no_pods("w", LIMIT).await?;
    bank.await_pool("db", "nothing is held", |status| status.holders.is_empty())
        .await?;
    bank.expect_well(&ids)
}

#[tokio::test]
async fn idle_workers_go_with_two_writes_more_than_there_are_workers() -> Result<()> {
    let bank = Bank::new("b-writes").await?;
    let told = Told::listen(&bank.wire).await?;
    bank.pool("db", json!({"slots": 5})).await?;
    bank.queue("w", "db", 1, json!({})).await?;
    bank.workers("w", 4, json!({"scaling": {"minReplicas": 4}}))
        .await?;
    bank.ground.await_heard("w", 4).await?;
    bank.await_pool("db", "a grant of 4 that is used", |status| {
        status.holders.iter().any(|one| one.granted == 4 && one.used == 4)
    })
    .await?;
    // Nothing that was under way is counted.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let since = jiff::Timestamp::now();
    let pods = bank.names("w").await?.into_iter();
    let nodes: Vec<String> = pods.map(|pod| format!("celery@{pod}")).collect();
    let patch = json!({"spec": {"scaling": {"minReplicas": 0}}});
    bank.stage().patch_pool("w", patch).await?;
    bank.stage().await_no_pods("w", LIMIT).await?;
    bank.await_pool("db", "nothing is held", |status| {
        status.holders.is_empty() && status.open == Some(5)
    })
    .await?;
    tokio::time::sleep(Duration::from_secs(8)).await;
    let writes = Writes::of(&bank, since)?;
    println!("four idle workers went with {writes:?}, {} in all", writes.all());
    assert!(
        writes.numbers == 1 && (1..=4).contains(&writes.marks),
        "{writes:?}"
    );
    assert!(writes.all() <= 4 + 2, "{writes:?}");
    // One message a decision, to all whose marks it has seen; each may be told once more, before its answer comes.
    let cancels = told.cancels();
    println!("they were told by {cancels:?}");
    let reached: BTreeSet<&String> = cancels.iter().flatten().collect();
    assert_eq!(reached, nodes.iter().collect(), "{cancels:?}");
    assert!(
        cancels.iter().any(|nodes| nodes.len() > 1),
        "each alone: {cancels:?}"
    );
    assert!(cancels.len() <= 4, "{cancels:?}");
    bank.expect_well(&[])
}

/// Busy workers become empty at different times: each goes with a number and a status of its own.
#[tokio::test]
async fn busy_workers_go_one_by_one_and_their_writes_are_bounded() -> Result<()> {
    let bank = Bank::new("b-busy").await?;
    bank.pool("db", json!({"slots": 5})).await?;
    bank.queue("w", "db", 1, json!({})).await?;
    bank.workers("w", 4, json!({"scaling": {"minReplicas": 1}}))
        .await?;
    bank.ground.await_heard("w", 1).await?;
    let mut ids = Vec::new();
    for longer in 0..4 {
        let seconds = scale::pick(25.0, 60.0) + 6.0 * f64::from(longer);
        ids.extend(bank.wire.publish(&Batch::sleep("w", 1, seconds)).await?);
    }
    bank.stage().await_running(4, LIMIT).await?;
    bank.ground.await_heard("w", 4).await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let since = jiff::Timestamp::now();
    let patch = json!({"spec": {"scaling": {"maxReplicas": 1}}});
    bank.stage().patch_pool("w", patch).await?;
    let limit = LIMIT.max(Duration::from_secs(scale::pick(0, 120)));
    wait_until("one pod", limit, || async {
        Ok(bank.stage().pods("w").await?.len() == 1)
    })
    .await?;
    bank.await_pool("db", "one pod's slot is held", |status| {
        status.holders.iter().map(|one| one.granted).sum::<i64>() == 1
    })
    .await?;
    let writes = Writes::of(&bank, since)?;
    println!(
        "three busy workers of four went with {writes:?}, {} in all",
        writes.all()
    );
    // A number each, and a mark that keeps others back for 15 s is changed once. The Pool says for each when its task has
    // ended and when its slot is given back, and now and then for one more number.
    assert!(writes.numbers <= 3 && writes.marks <= 2 * 3, "{writes:?}");
    assert!(writes.pools <= 3 * 3 + 1 && writes.deployments <= 3, "{writes:?}");
    bank.stage().await_ended(ids.len(), limit).await?;
    bank.expect_well(&ids)
}

/// What the operator wrote of a WorkerPool and its Pool, but for the WorkerPool's status, events and TaskQueues.
#[derive(Debug)]
struct Writes {
    marks: usize,
    numbers: usize,
    deployments: usize,
    pools: usize,
}

impl Writes {
    fn of(bank: &Bank, since: jiff::Timestamp) -> Result<Self> {
        let written = bank.stage().writes_since(since, &[])?;
        let count = |resource: &str, subresource: &str| {
            let same = |entry: &&AuditEntry| entry.resource == resource && entry.subresource == subresource;
            written.iter().filter(same).count()
        };
        Ok(Self {
            marks: count("pods", ""),
            numbers: count("deployments", "scale"),
            deployments: count("deployments", ""),
            pools: count("pools", "status"),
        })
    }

    const fn all(&self) -> usize {
        self.marks + self.numbers + self.deployments + self.pools
    }
}

/// Who waits asks again and again; nothing of it is written.
#[tokio::test]
async fn nothing_is_written_while_a_full_pool_keeps_others_waiting() -> Result<()> {
    let bank = Bank::new("b-quiet").await?;
    bank.pool("db", json!({"slots": 2})).await?;
    // It may take nothing back from the other one.
    let low = json!({"priority": {"tier": "Low"}});
    bank.queue("waits", "db", 1, low).await?;
    bank.queue("w", "db", 1, json!({})).await?;
    let two = json!({"scaling": {"minReplicas": 2}, "celery": {"timeLimitSeconds": 600}});
    bank.workers("w", 2, two).await?;
    let mut ids = bank
        .wire
        .publish(&Batch::sleep("w", 2, scale::pick(45.0, 200.0)))
        .await?;
    bank.stage().await_running(2, LIMIT).await?;
    bank.workers("waits", 2, json!({})).await?;
    ids.extend(bank.wire.publish(&Batch::sleep("waits", 2, 0.5)).await?);
    bank.stage()
        .await_condition(
            "waits",
            ConditionType::ScalingLimited,
            "True",
            "PoolLimited",
            LIMIT,
        )
        .await?;
    let calm = jiff::SignedDuration::from_secs(3);
    wait_until("writes to end", LIMIT, || async {
        let since = jiff::Timestamp::now() - calm;
        Ok(bank.stage().writes_since(since, &[])?.is_empty())
    })
    .await?;
    let since = jiff::Timestamp::now();
    tokio::time::sleep(Duration::from_secs(scale::pick(8, 60))).await;
    assert_eq!(bank.stage().running()?.len(), 2, "the long tasks ended too early");
    let mut writes = bank.stage().writes_since(since, &[])?;
    // In full: a queue's rate falls for minutes and is written now and then, whoever waits.
    let rates = scale::pick("", "taskqueues");
    writes.retain(|entry| entry.resource != rates);
    assert!(writes.is_empty(), "{writes:#?}");
    let patch = json!({"spec": {"scaling": {"minReplicas": 0}}});
    bank.stage().patch_pool("w", patch).await?;
    bank.stage().await_ended(ids.len(), LIMIT * 3).await?;
    for name in ["w", "waits"] {
        bank.stage().await_no_pods(name, LIMIT).await?;
    }
    bank.expect_well(&ids)
}
