//! Who may publish where workers beat, and is none.

use poolwright_tests::scenario::LIMIT;
use poolwright_tests::*;
use serde_json::json;
use std::fs;

use super::set;

const MEBIBYTE: u64 = 1 << 20;

/// The most memory that the operator has had.
fn peak(stage: &Stage) -> Result<u64> {
    let pid = stage.operator.pid().ok_or("the operator runs")?;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kibibytes = line
        .and_then(|line| line.split_whitespace().next())
        .ok_or("a peak")?;
    Ok(kibibytes.parse::<u64>()? * 1024)
}

#[tokio::test]
async fn what_no_worker_sends_fills_no_memory_and_ends_no_connection() -> Result<()> {
    let (stage, redis) = set("r-odd").await?;
    let wire = Wire::redis(&redis, 0);
    let shape =
        json!({"celery": {"concurrency": 1}, "scaling": {"maxReplicas": 1, "scaleDownDelaySeconds": 2}});
    let mut ids = wire.publish(&Batch::sleep("q", 1, 5.0)).await?;
    wire.pool(&stage, "q", &["q"], shape).await?;
    stage.await_running(1, LIMIT).await?;

    let before = peak(&stage)?;
    // As much as Redis lets wait for a subscriber before it cuts it off.
    let text = vec![b'x'; 24 << 20];
    let heard: u64 = redis::cmd("PUBLISH")
        .arg("/0.celeryev/worker.heartbeat")
        .arg(text)
        .query_async(&mut redis.connection(0).await?)
        .await?;
    assert_eq!(heard, 1, "the operator reads it");
    stage.await_ended(1, LIMIT).await?;
    stage.await_no_pods("q", LIMIT).await?;
    ids.extend(wire.publish(&Batch::sleep("q", 1, 1.0)).await?);
    stage.await_ended(2, LIMIT).await?;
    stage.await_no_pods("q", LIMIT).await?;
    let more = peak(&stage)?.saturating_sub(before);
    assert!(more < 12 * MEBIBYTE, "{more} bytes more");
    let log = stage.operator.log();
    let said = log
        .lines()
        .filter(|line| line.contains("WARN") && line.contains("broker"));
    assert_eq!(said.collect::<Vec<_>>(), [""; 0]);
    stage.expect_all_done_once(&ids)
}
