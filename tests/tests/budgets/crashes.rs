//! Operators that die at any moment, and two at once: what pods take stays within a tight Pool.

use poolwright_tests::operator::Operator;
use poolwright_tests::*;
use serde_json::json;
use std::time::{Duration, Instant};

use super::bank::Bank;
use super::ground::LIMIT;

/// Two WorkerPools that want more than a Pool of 5 slots has, one of them two slots a pod.
async fn tight(prefix: &str) -> Result<Bank> {
    let bank = Bank::new(prefix).await?;
    bank.pool("db", json!({"slots": 5})).await?;
    bank.queue("small", "db", 1, json!({})).await?;
    bank.queue("large", "db", 2, json!({"priority": {"weight": 2}}))
        .await?;
    bank.workers("small", 5, json!({})).await?;
    bank.workers("large", 3, json!({})).await?;
    Ok(bank)
}

/// Publishes bursts, now for one and now for the other, so that slots change hands all the time.
async fn waves(wire: &Wire, length: Duration) -> Result<Vec<String>> {
    let (since, mut publisher) = (Instant::now(), wire.publisher().await?);
    let mut ids = Vec::new();
    for queue in ["small", "large"].iter().cycle() {
        if since.elapsed() > length {
            break;
        }
        let (count, seconds) = (fastrand::usize(4..=7), 0.1 + 1.5 * fastrand::f64());
        ids.extend(publisher.publish(&Batch::sleep(queue, count, seconds)).await?);
        tokio::time::sleep(Duration::from_millis(fastrand::u64(1_000..7_000))).await;
    }
    Ok(ids)
}

async fn expect_all_settled(bank: &Bank, ids: &[String]) -> Result<()> {
    bank.stage().await_ended(ids.len(), LIMIT * 2).await?;
    for name in ["small", "large"] {
        bank.stage().await_no_pods(name, LIMIT).await?;
    }
    bank.await_pool("db", "nothing is held", |status| {
        status.holders.is_empty() && status.open == Some(5)
    })
    .await?;
    let sheet = bank.charges.sheet("db")?;
    let created = bank.moves.count(|act| act == Act::Created);
    println!(
        "{} tasks, {created} pods, at most {} slots",
        ids.len(),
        sheet.peak()
    );
    assert!(
        sheet.peak() == 5 && created > 7,
        "too little happened to show anything"
    );
    bank.charges.expect_within()?;
    bank.stage().expect_none_killed()?;
    bank.ground.expect_done(ids)
}

#[tokio::test]
async fn an_operator_that_is_killed_again_and_again_never_exceeds_a_pool() -> Result<()> {
    let mut bank = tight("b-crash").await?;
    let length = Duration::from_secs(scale::pick(60, 600));
    let wire = bank.wire.clone();
    let load = tokio::spawn(async move { waves(&wire, length).await });
    let (since, mut kills) = (Instant::now(), 0);
    while since.elapsed() < length {
        tokio::time::sleep(Duration::from_millis(fastrand::u64(1_000..9_000))).await;
        bank.ground.stage.operator.kill();
        kills += 1;
        tokio::time::sleep(Duration::from_millis(fastrand::u64(0..1_500))).await;
        bank.ground.stage.operator.start_again().await?;
    }
    println!("killed {kills} times");
    let ids = load.await??;
    expect_all_settled(&bank, &ids).await
}

#[tokio::test]
async fn two_operators_at_once_never_exceed_a_pool() -> Result<()> {
    let bank = tight("b-two").await?;
    let dir = tempfile::tempdir()?;
    let stage = bank.stage();
    let mut second =
        Operator::start(&stage.plane.kubeconfig(), &stage.namespace.name, dir.path(), &[]).await?;
    let length = Duration::from_secs(scale::pick(60, 600));
    let wire = bank.wire.clone();
    let load = tokio::spawn(async move { waves(&wire, length).await });
    let since = Instant::now();
    while since.elapsed() < length {
        tokio::time::sleep(Duration::from_millis(fastrand::u64(4_000..12_000))).await;
        second.kill();
        second.start_again().await?;
    }
    let ids = load.await??;
    expect_all_settled(&bank, &ids).await
}
