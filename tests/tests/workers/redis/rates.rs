//! How many tasks come to each queue, and how long the next one would wait, as the status says it.

use std::time::Duration;

use poolwright_api::v1alpha1::TaskQueue;
use poolwright_tests::scenario::LIMIT;
use poolwright_tests::*;
use serde_json::json;

use super::set;

fn estimates(queue: &TaskQueue) -> Option<(i64, i64)> {
    let status = queue.status.as_ref()?;
    Some((status.arrivals_per_minute?, status.estimated_wait_seconds?))
}

/// One pod with four slots works on two queues.
#[tokio::test]
async fn a_queue_says_how_many_tasks_come_and_how_long_the_next_would_wait() -> Result<()> {
    let (stage, redis) = set("r-rate").await?;
    let wire = Wire::redis(&redis, 0);
    let shape = json!({
        "celery": {"concurrency": 4, "executionPool": "Threads"},
        "scaling": {"minReplicas": 1, "maxReplicas": 1},
    });
    wire.pool(&stage, "both", &["short", "long"], shape).await?;
    for queue in ["short", "long"] {
        stage
            .await_tq(queue, "nothing comes, and nothing would wait", LIMIT, |queue| {
                estimates(queue) == Some((0, 0))
            })
            .await?;
    }
    // A rate over less than half a minute would be none.
    tokio::time::sleep(Duration::from_secs(30)).await;
    let mut publisher = wire.publisher().await?;
    publisher.publish(&Batch::sleep("short", 60, 0.5)).await?;
    publisher.publish(&Batch::sleep("long", 20, 3.0)).await?;
    for (queue, came) in [("short", 20..=120), ("long", 7..=40)] {
        let seen = stage
            .await_tq(queue, "tasks come, and the next would wait", LIMIT, |queue| {
                estimates(queue).is_some_and(|(rate, wait)| came.contains(&rate) && (2..150).contains(&wait))
            })
            .await?;
        println!("{queue}: {:?} a minute and seconds", estimates(&seen));
    }
    for metric in ["arrivals_per_minute", "estimated_wait_seconds"] {
        let name = format!("poolwright_task_queue_{metric}");
        let shown = stage.metric(&name, "name=\"long\"").await?;
        assert!(shown.is_some_and(|value| value > 1.0), "{name}: {shown:?}");
    }
    stage.await_ended(80, LIMIT).await?;
    for queue in ["short", "long"] {
        stage
            .await_tq(queue, "nothing would wait any more", LIMIT, |queue| {
                estimates(queue).is_some_and(|(rate, wait)| rate > 0 && wait == 0)
            })
            .await?;
    }
    Ok(())
}
