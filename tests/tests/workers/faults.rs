//! What happens to workers when brokers, workers or the operator fail: nothing is guessed, nothing is lost.

use kube::ResourceExt;
use poolwright_api::ConditionType;
use poolwright_api::v1alpha1::WorkerPoolStatus;
use poolwright_tests::scenario::LIMIT;
use poolwright_tests::*;
use redis::AsyncCommands as _;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

mod silence;

#[tokio::test]
async fn a_flush_while_workers_are_busy_takes_no_worker() -> Result<()> {
    flush("f-flush", "Backlog").await
}

#[tokio::test]
async fn nor_does_it_where_a_wait_target_is_kept() -> Result<()> {
    flush("f-flush-w", "WaitTarget").await
}

async fn flush(prefix: &str, policy: &str) -> Result<()> {
    let (stage, redis) = (
        Stage::new(prefix).await?,
        Redis::start(RedisConfig::default()).await?,
    );
    // Late: the flush takes the running tasks out of the broker's sight, too.
    let wire = Wire::redis(&redis, 0).late(true);
    // Longer than the running tasks, so that some of it is left when nobody is busy any more.
    let window = Duration::from_secs(15);
    let shape = json!({
        "celery": {"concurrency": 1},
        "scaling": {"policy": policy, "maxReplicas": 3, "scaleDownDelaySeconds": window.as_secs()},
    });
    let mut publisher = wire.publisher().await?;
    let running = publisher.publish(&Batch::sleep("q", 3, 10.0)).await?;
    publisher.publish(&Batch::sleep("q", 40, 1.0)).await?;
    wire.pool(&stage, "q", &["q"], shape).await?;
    stage.await_running(3, LIMIT).await?;
    stage
        .await_tq("q", "forty waiting", LIMIT, |queue| {
            queue
                .status
                .as_ref()
                .is_some_and(|status| status.ready == Some(40))
        })
        .await?;
    let mut connection = redis.connection(0).await?;
    let flushed = Instant::now();
    let _: () = redis::cmd("FLUSHALL").query_async(&mut connection).await?;
    let held = async {
        while stage.running()?.len() == 3 {
            if stage.replicas("q").await? != 3 {
                return Err(format!("workers went while busy: {:?}", stage.timeline("q")).into());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok::<_, Error>(())
    };
    held.await?;
    let message = stage
        .await_condition("q", ConditionType::ScalingActive, "False", "HeldSuspect", LIMIT)
        .await?;
    assert!(
        message.contains("no worker says that it did the work"),
        "{message}"
    );
    stage.await_no_pods("q", LIMIT).await?;
    let falls = stage.falls("q", flushed);
    assert!(
        falls[0].0 - flushed >= window,
        "a zero was believed at once: {falls:?}"
    );
    stage.expect_all_done_once(&running)?;
    // And it works on.
    let ids = wire.publish(&Batch::sleep("q", 2, 1.0)).await?;
    stage.await_ended(5, LIMIT).await?;
    stage.await_no_pods("q", LIMIT).await?;
    stage.expect_all_done_once(&ids)
}

#[tokio::test]
async fn an_operator_that_is_killed_comes_back_without_haste() -> Result<()> {
    let (mut stage, redis) = (
        Stage::new("f-kill").await?,
        Redis::start(RedisConfig::default()).await?,
    );
    let wire = Wire::redis(&redis, 0);
    // Longer than it takes to prove a worker empty, which a process without a window would do at once.
    let window = Duration::from_secs(20);
    let moves = Moves::follow(stage.namespace.api());
    for (name, policy) in [("q", "Backlog"), ("w", "WaitTarget")] {
        let shape = json!({
            "celery": {"concurrency": 1},
            "scaling": {"policy": policy, "maxReplicas": 4, "scaleDownDelaySeconds": window.as_secs()},
        });
        wire.pool(&stage, name, &[name], shape).await?;
    }
    let mut publisher = wire.publisher().await?;
    let mut ids = Vec::new();
    let mut starts = Vec::new();
    for round in 0..scale::pick(2, 10) {
        for queue in ["q", "w"] {
            ids.extend(publisher.publish(&Batch::sleep(queue, 8, 2.0)).await?);
        }
        let pause = Duration::from_millis(fastrand::u64(0..7000));
        println!("round {round}: killed after {pause:?}");
        tokio::time::sleep(pause).await;
        starts.push(restart(&mut stage, Duration::from_millis(fastrand::u64(0..2000))).await?);
    }
    // Once more when all work is done, so that only haste could take the idle workers early.
    stage.await_ended(ids.len(), LIMIT).await?;
    let before = [stage.replicas("q").await?, stage.replicas("w").await?];
    let ready = async |stage: &Stage| -> Result<_> {
        let conditions = stage.tq("q").await?.status.unwrap_or_default().conditions;
        Ok(conditions.into_iter().find(|one| one.type_ == "Ready"))
    };
    let said = ready(&stage).await?;
    starts.push(restart(&mut stage, Duration::ZERO).await?);
    assert!(
        before.iter().all(|pods| *pods > 0),
        "no worker was left to test with: {before:?}"
    );
    let last = starts[starts.len() - 1];
    tokio::time::sleep_until((last + Duration::from_secs(4)).into()).await;
    assert_eq!(
        ready(&stage).await?,
        said,
        "a new process knew nothing and said so"
    );
    for pool in ["q", "w"] {
        stage.await_no_pods(pool, LIMIT).await?;
        for start in &starts {
            let falls = stage.falls(pool, *start).into_iter();
            let hasty: Vec<_> = falls.filter(|fall| fall.0 - *start < window).collect();
            assert!(
                hasty.is_empty(),
                "scale-in of {pool} before a full window of fresh data: {hasty:?}"
            );
        }
        assert!(stage.peak(pool) <= 4);
        stage
            .await_condition(pool, ConditionType::Ready, "True", "AsDesired", LIMIT)
            .await?;
    }
    // To be parked is the beginning of it; who was parked before may go.
    for start in &starts {
        let parked = moves.all().into_iter().filter(|one| one.act == Act::Parked);
        let hasty: Vec<Move> = parked
            .filter(|one| (*start..*start + window).contains(&one.at))
            .collect();
        assert!(
            hasty.is_empty(),
            "parked before a full window of fresh data: {hasty:?}"
        );
    }
    assert!(
        moves.count(|act| act == Act::Parked) >= 2,
        "nobody was parked at all"
    );
    stage.expect_no_busy_victim()?;
    stage.expect_all_done_once(&ids)
}

/// Kills the operator, starts it again after a while, and tells when.
async fn restart(stage: &mut Stage, after: Duration) -> Result<Instant> {
    stage.operator.kill();
    // What it had written is seen before the next one begins.
    tokio::time::sleep(after.max(Duration::from_millis(500))).await;
    let start = Instant::now();
    stage.operator.start_again().await?;
    Ok(start)
}

#[tokio::test]
async fn workers_that_are_not_heard_are_neither_multiplied_nor_taken_away() -> Result<()> {
    let stage = Stage::new("f-unseen").await?;
    let redis = Redis::start(RedisConfig::default()).await?;
    let elsewhere = Redis::start(RedisConfig::default()).await?;
    let wire = Wire::redis(&redis, 0);
    let window = json!({"scaleDownDelaySeconds": 3});
    // One runs no Celery at all; the other's Celery works on another broker.
    let mute = json!({"worker": {"command": ["sh", "-c", "exec sleep 3600"]}, "scaling": window});
    wire.pool(&stage, "mute", &["mute"], mute).await?;
    let astray = json!({"scaling": window, "worker": {"env": [
        {"name": "CELERY_BROKER_URL", "value": elsewhere.url(0)}]}});
    wire.pool(&stage, "astray", &["astray"], astray).await?;
    let mut publisher = wire.publisher().await?;
    for queue in ["mute", "astray"] {
        publisher.publish(&Batch::sleep(queue, 4, 1.0)).await?;
        stage.await_replicas(queue, 2, LIMIT).await?;
    }
    let limit = Duration::from_secs(120);
    for queue in ["mute", "astray"] {
        let said = stage
            .await_condition(queue, ConditionType::Ready, "False", "WrongBroker", limit)
            .await?;
        println!("{queue}: {said}");
    }
    for queue in ["mute", "astray"] {
        publisher.publish(&Batch::sleep(queue, 12, 1.0)).await?;
    }
    let steady = Duration::from_secs(6);
    tokio::try_join!(
        stage.expect_steady("mute", 2, steady),
        stage.expect_steady("astray", 2, steady)
    )?;
    // Nothing left to do does not make a worker that nobody hears an idle one.
    let mut connection = redis.connection(0).await?;
    for queue in ["mute", "astray"] {
        let _: () = connection.del(queue).await?;
    }
    let steady = Duration::from_secs(12);
    tokio::try_join!(
        stage.expect_steady("mute", 2, steady),
        stage.expect_steady("astray", 2, steady)
    )?;
    // Nor after the minute for which such a zero is doubted.
    for queue in ["mute", "astray"] {
        let said = stage
            .await_condition(queue, ConditionType::Ready, "False", "HeldUnseen", limit)
            .await?;
        println!("{queue}: {said}");
    }
    tokio::try_join!(
        stage.expect_steady("mute", 2, steady),
        stage.expect_steady("astray", 2, steady)
    )?;
    stage.expect_none_killed()?;
    stage.strike().await
}

/// They are heard and idle while messages wait, as behind a lock or a cancelled consumer.
#[tokio::test]
async fn workers_that_take_nothing_are_not_multiplied() -> Result<()> {
    let stage = Stage::new("f-idle").await?;
    let redis = Redis::start(RedisConfig::default()).await?;
    let wire = Wire::redis(&redis, 0);
    let shape =
        json!({"worker": {"command": ["sh", "-c", "exec celery \"$@\" --exclude-queues q", "celery"]}});
    wire.pool(&stage, "q", &["q"], shape).await?;
    let mut publisher = wire.publisher().await?;
    publisher.publish(&Batch::sleep("q", 4, 1.0)).await?;
    stage.await_replicas("q", 2, LIMIT).await?;
    let two = |status: &WorkerPoolStatus| status.ready_replicas == Some(2);
    stage.await_status("q", "two ready pods", LIMIT, two).await?;
    // As long as new workers have to begin with something.
    tokio::time::sleep(Duration::from_secs(12)).await;
    publisher.publish(&Batch::sleep("q", 8, 1.0)).await?;
    stage
        .await_condition("q", ConditionType::Ready, "False", "NoProgress", LIMIT)
        .await?;
    stage.expect_steady("q", 2, Duration::from_secs(6)).await?;
    assert_eq!(stage.peak("q"), 2);
    stage.strike().await
}

/// Kubernetes takes a pod a while after the number fell. Until then it is seen as before, and does not pay for a second
/// one: that would be a busy one, where one worker could do what three do.
#[tokio::test]
async fn a_late_controller_manager_costs_no_busy_worker() -> Result<()> {
    let stage = Stage::new("f-late").await?;
    let redis = Redis::start(RedisConfig::default()).await?;
    let wire = Wire::redis(&redis, 0);
    let shape = json!({
        "celery": {"concurrency": 10, "executionPool": "Threads"},
        "scaling": {"minReplicas": 4, "maxReplicas": 4, "scaleDownDelaySeconds": 2},
    });
    wire.pool(&stage, "q", &["q"], shape).await?;
    stage.await_consumers("q", 4, LIMIT).await?;
    let ids = wire.publish(&Batch::sleep("q", 3, 30.0)).await?;
    stage.await_running(3, LIMIT).await?;
    let three = |status: &WorkerPoolStatus| status.busy_slots == Some(3);
    stage.await_status("q", "three busy slots", LIMIT, three).await?;
    let busy: BTreeSet<String> = stage.events()?.into_iter().map(|event| event.pod).collect();
    assert!(busy.len() > 1, "one worker took all");
    let since = Instant::now();
    stage
        .patch_pool("q", json!({"spec": {"scaling": {"minReplicas": 0}}}))
        .await?;
    stage
        .plane
        .pause("kube-controller-manager", Duration::from_secs(8))
        .await?;
    stage
        .await_replicas("q", i32::try_from(busy.len())?, LIMIT)
        .await?;
    let least = stage.falls("q", since).into_iter().map(|fall| fall.2).min();
    assert_eq!(
        least,
        Some(i32::try_from(busy.len())?),
        "{:?}",
        stage.timeline("q")
    );
    stage
        .expect_steady("q", i32::try_from(busy.len())?, Duration::from_secs(4))
        .await?;
    stage.await_no_pods("q", LIMIT).await?;
    stage.expect_no_busy_victim()?;
    stage.expect_all_done_once(&ids)
}

/// The heard one shows that the broker is the right one; so the mute one is unseen, and nothing else.
#[tokio::test]
async fn a_mute_worker_stays_when_the_heard_one_beside_it_goes() -> Result<()> {
    let stage = Stage::new("f-mute").await?;
    let redis = Redis::start(RedisConfig::default()).await?;
    let wire = Wire::redis(&redis, 0);
    // Whoever comes first is mute.
    let script = format!(
        "mkdir {}/mute 2>/dev/null && exec sleep 3600; exec celery \"$@\"",
        stage.dir.path().display()
    );
    let shape = json!({
        "worker": {"command": ["sh", "-c", script, "celery"]},
        "scaling": {"minReplicas": 2, "maxReplicas": 2, "scaleDownDelaySeconds": 3},
    });
    wire.pool(&stage, "q", &["q"], shape).await?;
    let limit = Duration::from_secs(120);
    let ready = ConditionType::Ready;
    let said = stage
        .await_condition("q", ready, "False", "HeldUnseen", limit)
        .await?;
    let pods: Vec<String> = stage.pods("q").await?.iter().map(ResourceExt::name_any).collect();
    let mute: Vec<&String> = pods.iter().filter(|name| said.contains(name.as_str())).collect();
    assert!(pods.len() == 2 && mute.len() == 1, "{pods:?}: {said}");
    stage
        .patch_pool("q", json!({"spec": {"scaling": {"minReplicas": 0}}}))
        .await?;
    stage.await_replicas("q", 1, LIMIT).await?;
    let active = ConditionType::ScalingActive;
    let said = stage
        .await_condition("q", active, "False", "HeldUnseen", LIMIT)
        .await?;
    assert!(said.contains("not heard, and count"), "{said}");
    stage.expect_steady("q", 1, Duration::from_secs(12)).await?;
    let left = stage.pods("q").await?;
    assert!(
        left.len() == 1 && left[0].name_any() == *mute[0],
        "{mute:?} went: {left:?}"
    );
    let (_, reason, message) = stage.condition("q", ready).await?;
    assert_eq!(reason, "HeldUnseen", "{message}");
    stage.expect_none_killed()?;
    stage.strike().await
}

#[tokio::test]
async fn a_new_password_is_taken_from_the_secret_after_a_refusal() -> Result<()> {
    let stage = Stage::new("f-password").await?;
    let redis = Redis::start(RedisConfig {
        user: Some(("worker".into(), "canary-old-word".into())),
        ..RedisConfig::default()
    })
    .await?;
    let wire = Wire::secret(&stage, "broker", &redis.url(0)).await?;
    wire.pool(&stage, "q", &["q"], json!({})).await?;
    stage
        .await_condition("q", ConditionType::Ready, "True", "AsDesired", LIMIT)
        .await?;
    let mut connection = redis.connection(0).await?;
    let user = ["worker", "resetpass", ">canary-new-word"];
    let _: () = redis::cmd("ACL")
        .arg("SETUSER")
        .arg(&user)
        .query_async(&mut connection)
        .await?;
    let _: i64 = redis::cmd("CLIENT")
        .arg(&["KILL", "USER", "worker"])
        .query_async(&mut connection)
        .await?;
    let fresh = ConditionType::SignalsFresh;
    stage
        .await_condition("q", fresh, "False", "BrokerRefused", LIMIT)
        .await?;
    let new = redis.url(0).replace("canary-old-word", "canary-new-word");
    stage.secret("broker", "url", &new).await?;
    let since = Instant::now();
    stage
        .await_condition("q", fresh, "True", "AsDesired", LIMIT)
        .await?;
    let took = since.elapsed();
    assert!(took < Duration::from_secs(10), "{took:?}");
    let ids = Wire { url: new, ..wire }
        .publish(&Batch::sleep("q", 4, 1.0))
        .await?;
    stage.await_ended(4, LIMIT).await?;
    stage.await_no_pods("q", LIMIT).await?;
    stage.expect_all_done_once(&ids)?;
    stage.expect_unsaid(&["canary-old-word", "canary-new-word"]).await
}

/// Takes as long as the time between two looks at a Secret, and no processor.
#[tokio::test]
async fn a_new_address_is_taken_from_the_secret_in_time() -> Result<()> {
    let (stage, redis) = (
        Stage::new("f-rotate").await?,
        Redis::start(RedisConfig::default()).await?,
    );
    let wire = Wire::secret(&stage, "broker", &redis.url(0)).await?;
    wire.pool(&stage, "q", &["q"], json!({"celery": {"concurrency": 1}}))
        .await?;
    stage
        .await_condition("q", ConditionType::Ready, "True", "AsDesired", LIMIT)
        .await?;
    let moved = Wire::redis(&redis, 7);
    moved.publish(&Batch::sleep("q", 1, 1.0)).await?;
    stage.secret("broker", "url", &moved.url).await?;
    let since = Instant::now();
    stage.await_replicas("q", 1, Duration::from_secs(100)).await?;
    let took = since.elapsed();
    assert!(took < Duration::from_secs(80), "{took:?}");
    let shown = stage
        .await_tq("q", "the new address", LIMIT, |queue| {
            queue
                .status
                .as_ref()
                .is_some_and(|status| status.broker.as_ref().is_some_and(|shown| shown.ends_with("/7")))
        })
        .await?;
    drop(shown);
    stage.strike().await
}

/// SIGKILL, as of an out-of-memory killer: what is acknowledged late runs again, and only what was running when it came.
#[tokio::test]
async fn tasks_of_killed_workers_run_again_and_none_is_lost() -> Result<()> {
    let kills = scale::pick(3, 10);
    let rabbit = RabbitMq::shared().await?;
    let vhost = rabbit.vhost("f-kill", "").await?;
    let stage = Stage::new("f-kill").await?;
    let wire = Wire::vhost(&stage, &vhost).await?.late(true);
    let shape = json!({"scaling": {"maxReplicas": 3, "scaleDownDelaySeconds": 5}});
    wire.pool(&stage, "q", &["q"], shape).await?;
    let mut publisher = wire.publisher().await?;
    let mut ids = BTreeSet::new();
    for _ in 0..kills {
        ids.extend(publisher.publish(&Batch::sleep("q", 12, 2.0)).await?);
        let busy = async || {
            let running = stage.running()?;
            let found = stage.events()?.into_iter().rfind(|one| running.contains(&one.id));
            Ok::<_, Error>(found.map(|one| one.pod))
        };
        wait_until("a busy worker", LIMIT, async || Ok(busy().await?.is_some())).await?;
        let pod = busy().await?.ok_or("nobody is busy any more")?;
        stage.kill_worker(&pod)?;
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
    wait_until("every task to end", LIMIT, || async {
        let ended: BTreeSet<String> = stage
            .events()?
            .into_iter()
            .filter(|one| one.event == "end")
            .map(|one| one.id)
            .collect();
        Ok(ended == ids)
    })
    .await?;
    stage.await_no_pods("q", LIMIT).await?;
    let mut runs: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for event in stage.events()? {
        let (starts, ends) = runs.entry(event.id).or_default();
        *starts += usize::from(event.event == "start");
        *ends += usize::from(event.event == "end");
    }
    let cut_short = runs.values().filter(|(starts, ends)| starts > ends).count();
    let done_twice = runs.values().filter(|(_, ends)| *ends > 1).count();
    println!(
        "kills: killed={kills} published={} done={} cut_short_and_run_again={cut_short} done_twice={done_twice}",
        ids.len(),
        runs.values().filter(|(_, ends)| *ends > 0).count()
    );
    // A worker has two slots; of what had just ended in them, the acknowledgement may not have gone out.
    assert!((1..=2 * kills).contains(&cut_short) && done_twice <= kills);
    stage.expect_no_busy_victim()
}
