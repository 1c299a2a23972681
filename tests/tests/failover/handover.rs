//! A leader that is told to end, and one that stands by.

use jiff::Timestamp;
use poolwright_tests::*;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::cast::{Cast, load};

/// From SIGTERM until the other holds the lease.
const HANDOVER_MAX: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_told_to_end_hands_over_at_once() -> Result<()> {
    let mut cast = Cast::new("term").await?;
    let (done, wire) = (AtomicBool::new(false), cast.bank.wire.clone());
    let mut took = Vec::new();
    let handovers = async {
        for _ in 0..scale::pick(3, 10) {
            let old = cast.leader().await?;
            tokio::time::sleep(Duration::from_millis(fastrand::u64(1_500..4_000))).await;
            let told = Timestamp::now();
            cast.both[old].operator.terminate();
            let status = cast.both[old].operator.await_end(Duration::from_secs(5)).await?;
            let ended = Timestamp::now();
            assert!(status.success(), "{status}");
            cast.both[1 - old].await_lead(Duration::from_secs(10)).await?;
            let taken = cast.taken(1 - old, told)?.ok_or("the lease was not taken")?;
            let late = cast.writes(old, taken, Timestamp::now())?;
            assert!(late.is_empty(), "written after the lease was another's: {late:?}");
            took.push((
                taken.duration_since(told).unsigned_abs(),
                ended.duration_since(told).unsigned_abs(),
            ));
            cast.both[old].operator.start_again().await?;
        }
        done.store(true, Ordering::SeqCst);
        Ok(())
    };
    let (ids, ()) = futures::try_join!(load(&wire, &done), handovers)?;
    println!("from SIGTERM until the other led, and until the process had ended: {took:.2?}");
    let longest = took.iter().map(|one| one.0).max().unwrap_or_default();
    println!("longest handover {:.2} s", longest.as_secs_f64());
    assert!(longest <= HANDOVER_MAX, "{longest:?}");
    cast.expect_settled(&ids).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_stands_by_is_ready_reads_no_broker_and_writes_nothing() -> Result<()> {
    let mut cast = Cast::new("standby").await?;
    let (done, wire, began) = (
        AtomicBool::new(false),
        cast.bank.wire.clone(),
        Timestamp::UNIX_EPOCH,
    );
    let length = async {
        tokio::time::sleep(Duration::from_secs(scale::pick(8, 60))).await;
        done.store(true, Ordering::SeqCst);
        Ok(())
    };
    let (ids, ()) = futures::try_join!(load(&wire, &done), length)?;
    let leader = cast.leader().await?;
    let waits = &cast.both[1 - leader].operator;
    for path in ["/healthz", "/readyz"] {
        assert_eq!(waits.get(path).await?.0, 200, "{path}");
    }
    let metrics = waits.metrics().await?;
    for line in [
        "poolwright_leader 0",
        "poolwright_broker_connections 0",
        r#"poolwright_broker_requests_total{outcome="success"} 0"#,
        r#"poolwright_broker_requests_total{outcome="failure"} 0"#,
    ] {
        assert!(
            metrics.lines().any(|one| one == line),
            "{line} is missing:\n{metrics}"
        );
    }
    let now = Timestamp::now();
    assert!(
        cast.writes(leader, began, now)?.len() > 10,
        "the log shows what a leader writes"
    );
    let written = cast.writes(1 - leader, began, now)?;
    assert!(written.is_empty(), "{written:?}");
    assert_eq!(cast.taken(1 - leader, began)?, None, "nor the lease of another");
    let waits = &mut cast.both[1 - leader].operator;
    waits.terminate();
    let status = waits.await_end(Duration::from_secs(2)).await?;
    assert!(status.success(), "{status}");
    cast.expect_settled(&ids).await
}
