//! Tasks that fall due while there is no worker find one that is up.

use std::time::Instant;

use poolwright_tests::scenario::LIMIT;
use poolwright_tests::*;
use serde_json::json;

use super::set;

/// One pod for a few tasks is up ahead of them; several come up when theirs are due, so that the first takes not all.
#[tokio::test]
async fn workers_are_up_when_tasks_with_a_countdown_fall_due() -> Result<()> {
    let (stage, redis) = set("r-due").await?;
    let wire = Wire::redis(&redis, 0);
    for (name, slots) in [("one", 6), ("many", 2)] {
        let shape = json!({"celery": {"concurrency": slots, "executionPool": "Threads"}, "scaling": {"scaleDownDelaySeconds": 3}});
        wire.pool(&stage, name, &[name], shape).await?;
    }
    let mut publisher = wire.publisher().await?;
    // How long a pod takes is seen first.
    let mut ids = Vec::new();
    for name in ["one", "many"] {
        ids.extend(publisher.publish(&Batch::sleep(name, 6, 1.0)).await?);
    }
    stage.await_ended(12, LIMIT).await?;
    for name in ["one", "many"] {
        stage.await_no_pods(name, LIMIT).await?;
    }
    let countdown = 25.0;
    let mut all = Vec::new();
    for name in ["one", "many"] {
        let batch = Batch {
            countdown: Some(countdown),
            ..Batch::sleep(name, 6, 1.0)
        };
        all.push(publisher.publish(&batch).await?);
    }
    let now = Instant::now();
    let due = jiff::Timestamp::now()
        .duration_since(jiff::Timestamp::UNIX_EPOCH)
        .as_secs_f64()
        + countdown;
    stage.await_ended(24, LIMIT).await?;
    let events = stage.events()?;
    for (name, batch) in ["one", "many"].into_iter().zip(&all) {
        let timeline = stage.timeline(name);
        let first = timeline.iter().find(|(at, replicas)| *at > now && *replicas > 0);
        let (at, pods) = *first.ok_or("no pod came")?;
        let after = at.duration_since(now).as_secs_f64();
        let of_batch = |one: &&TaskEvent| one.event == "start" && batch.contains(&one.id);
        let starts = events.iter().filter(of_batch).map(|one| one.at - due);
        let late = starts.fold((f64::MAX, f64::MIN), |(low, high), one| {
            (low.min(one), high.max(one))
        });
        println!("{name}: {pods} pods after {after:.1} s, tasks began {late:?} s after they were due");
        assert_eq!(pods, if name == "one" { 1 } else { 3 }, "{timeline:?}");
        assert!(
            after > 8.0,
            "{name}: a pod after {after} s, for what is due after {countdown} s"
        );
        assert!(
            late.0 > -1.0 && late.0 < 2.5,
            "{name}: began {late:?} s after they were due"
        );
        assert!(late.1 < 5.0, "{name}: began {late:?} s after they were due");
    }
    for name in ["one", "many"] {
        stage.await_no_pods(name, LIMIT).await?;
    }
    ids.extend(all.concat());
    stage.expect_all_done_once(&ids)
}
