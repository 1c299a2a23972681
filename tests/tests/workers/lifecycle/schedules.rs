//! A schedule, by the operator's own clock.

use jiff::{SignedDuration, Timestamp};
use poolwright_api::ConditionType;
use poolwright_tests::*;
use serde_json::{Value, json};
use std::time::Duration;

use crate::ground::{Ground, LIMIT};

/// How late what is due may be seen to happen, on a machine that is busy.
const LATE: Duration = Duration::from_secs(15);

/// One that begins each hour at this minute, for a minute.
fn scaling(minute: &str) -> Value {
    let schedule = json!({"name": "soon", "cron": format!("{minute} * * * *"), "timeZone": "Europe/Berlin",
        "durationSeconds": 60, "minReplicas": 2});
    json!({"scaling": {"schedules": [schedule]}})
}

/// Time until then; none when it has passed.
fn left(at: Timestamp) -> Duration {
    Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or_default()
}

#[tokio::test]
async fn a_schedule_starts_workers_at_its_time_without_a_task() -> Result<()> {
    let ground = Ground::new("schedule").await?;
    let soon = Timestamp::now().as_second() + 10;
    let start = Timestamp::from_second(soon + 60 - soon % 60)?;
    let end = start + SignedDuration::from_secs(60);
    let minute = start.strftime("%M").to_string();
    ground.pool("w", scaling(&minute)).await?;
    ground.await_ready("w").await?;
    let before = left(start).saturating_sub(Duration::from_secs(1));
    ground.stage.expect_steady("w", 0, before).await?;
    ground.stage.await_replicas("w", 2, left(start) + LATE).await?;
    let words =
        format!("schedule soon ({minute} * * * *, Europe/Berlin) raises the minimum from 0 to 2 until 20");
    // The status follows the number.
    wait_until("a status that says why", LIMIT, || async {
        Ok(ground.stage.decision("w").await?.contains(&words))
    })
    .await?;

    // One that cannot be read is named, and stops nothing; put right, it goes on.
    let patch = |minute: &str| ground.stage.patch_pool("w", json!({"spec": scaling(minute)}));
    patch("61").await?;
    let message = ground
        .stage
        .await_condition("w", ConditionType::Stalled, "True", "InvalidSpec", LIMIT)
        .await?;
    assert!(
        message.contains("spec.scaling.schedules[0].cron") && message.contains("\"soon\""),
        "{message}"
    );
    patch(&minute).await?;
    ground.stage.expect_steady("w", 2, left(end)).await?;
    ground.stage.await_no_pods("w", LIMIT).await?;
    ground.await_ready("w").await?;
    ground.stage.expect_none_killed()
}
