//! How old a number in a status may be: the writes of the whole fleet are bounded, so it depends on how many there are.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use kube::api::ListParams;
use poolwright_api::v1alpha1::TaskQueue;
use poolwright_tests::*;
use redis::AsyncCommands;

use super::set;

/// Ten writes a second for the whole fleet, as `docs/explanation/design.md` says.
const WRITES_A_SECOND: u32 = 10;

/// Puts tasks into all of so many queues at one moment; until the last status says so.
async fn until_all_say_so(stage: &Stage, redis: &Redis, queues: usize, tasks: i64) -> Result<Duration> {
    let mut raw = redis.connection(0).await?;
    let mut pipe = redis::pipe();
    for queue in 0..queues {
        pipe.lpush(format!("q{queue}"), vec!["{}"; usize::try_from(tasks)?])
            .ignore();
    }
    let () = pipe.query_async(&mut raw).await?;
    let since = Instant::now();
    let all = stage.namespace.api::<TaskQueue>();
    wait_until(
        "every queue to say how much waits",
        Duration::from_secs(90),
        || async {
            let shown = all.list(&ListParams::default()).await?;
            let ready: BTreeMap<_, _> = shown
                .items
                .iter()
                .map(|queue| {
                    (
                        queue.metadata.name.clone(),
                        queue.status.as_ref().and_then(|status| status.ready),
                    )
                })
                .collect();
            Ok(ready.values().all(|ready| *ready == Some(tasks)))
        },
    )
    .await?;
    let took = since.elapsed();
    for queue in 0..queues {
        let () = raw.del(format!("q{queue}")).await?;
    }
    Ok(took)
}

async fn look(prefix: &str, queues: usize, rounds: i64, most: Duration) -> Result<()> {
    let (stage, redis) = set(prefix).await?;
    for queue in 0..queues {
        stage
            .queue(&format!("q{queue}"), Wire::redis(&redis, 0).spec)
            .await?;
    }
    until_all_say_so(&stage, &redis, queues, 1).await?;
    let mut slowest = Duration::ZERO;
    for round in 1..=rounds {
        // Turns that were saved up while nothing changed are no rate.
        tokio::time::sleep(Duration::from_secs(2)).await;
        slowest = slowest.max(until_all_say_so(&stage, &redis, queues, 10 * round).await?);
    }
    println!("{queues} queues: all said so after {slowest:?}");
    assert!(slowest <= most, "{queues} queues: {slowest:?}");
    Ok(())
}

#[tokio::test]
async fn numbers_of_ten_queues_are_two_seconds_old() -> Result<()> {
    look("r-ten", 10, 3, Duration::from_secs(2)).await
}

#[tokio::test]
async fn numbers_of_many_queues_are_as_old_as_ten_writes_a_second_make_them() -> Result<()> {
    let queues = scale::pick(60, 300);
    let most = Duration::from_secs(queues as u64) / WRITES_A_SECOND;
    look("r-many", queues, 1, most + Duration::from_secs(2)).await
}
