//! Queues and busy slots on real Redis scale real Celery workers.

mod both;
mod due;
mod executors;
mod fresh;
mod rates;
mod strangers;

use kube::ResourceExt as _;
use poolwright_api::{ConditionType, WORKER_POOL_NAME_CHARACTERS_MAX};
use poolwright_tests::scenario::{self, LIMIT};
use poolwright_tests::*;
use serde_json::json;
use std::time::Duration;

async fn set(prefix: &str) -> Result<(Stage, Redis)> {
    Ok((
        Stage::new(prefix).await?,
        Redis::start(RedisConfig::default()).await?,
    ))
}

#[tokio::test]
async fn there_and_back_with_early_and_with_late_acknowledgement() -> Result<()> {
    let (stage, redis) = set("r-back").await?;
    let wire = Wire::redis(&redis, 0);
    scenario::there_and_back(&stage, &wire, "early").await?;
    scenario::there_and_back(&stage, &wire.late(true), "late")
        .await
        .map(drop)
}

#[tokio::test]
async fn a_long_task_survives_scale_in() -> Result<()> {
    let (stage, redis) = set("r-long").await?;
    let wire = Wire::redis(&redis, 0);
    let late = wire.late(true);
    tokio::try_join!(
        scenario::long_task(&stage, &wire, "early"),
        scenario::long_task(&stage, &late, "late")
    )?;
    Ok(())
}

#[tokio::test]
async fn early_and_late_acknowledgement_give_the_same_demand() -> Result<()> {
    let (stage, redis) = set("r-same").await?;
    let wire = Wire::redis(&redis, 0);
    scenario::same_demand(&stage, &[("early", wire.clone()), ("late", wire.late(true))]).await?;
    stage.strike().await
}

#[tokio::test]
async fn prefetched_tasks_are_seen_when_the_list_is_empty() -> Result<()> {
    let (stage, redis) = set("r-pre").await?;
    scenario::prefetched(&stage, &Wire::redis(&redis, 0), "q").await?;
    stage.strike().await
}

#[tokio::test]
async fn sublists_prefix_and_database_number_are_read() -> Result<()> {
    let (stage, redis) = set("r-sub").await?;
    let mut wire = Wire::redis(&redis, 3).with("TAPP_KEY_PREFIX", "app1:");
    wire.spec["redis"] = json!({"keyPrefix": "app1:"});
    let mut publisher = wire.publisher().await?;
    let mut ids = Vec::new();
    for priority in [4, 7, 9] {
        let batch = Batch {
            priority: Some(priority),
            ..Batch::sleep("q", 2, 1.0)
        };
        ids.extend(publisher.publish(&batch).await?);
    }
    // Two in each sublist of database 3, none in the list that carries the queue's name.
    let mut connection = redis.connection(3).await?;
    for (key, count) in [("q", 0), ("q\x06\x163", 2), ("q\x06\x166", 2), ("q\x06\x169", 2)] {
        let key = format!("app1:{key}");
        let length: usize = redis::cmd("LLEN").arg(&key).query_async(&mut connection).await?;
        assert_eq!(length, count, "{key:?}");
    }
    wire.pool(&stage, "q", &["q"], json!({})).await?;
    stage.await_ended(6, LIMIT).await?;
    stage.await_no_pods("q", LIMIT).await?;
    assert_eq!(stage.peak("q"), 3);
    stage.expect_all_done_once(&ids)
}

#[tokio::test]
async fn ten_queues_on_one_pool_sum_up() -> Result<()> {
    let (stage, redis) = set("r-ten").await?;
    let wire = Wire::redis(&redis, 0);
    let names: Vec<String> = (0..10).map(|index| format!("q{index}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut publisher = wire.publisher().await?;
    let mut ids = Vec::new();
    for name in &names {
        ids.extend(publisher.publish(&Batch::sleep(name, 1, 8.0)).await?);
    }
    // Its pods' names are cut at 63 characters, in the middle of the name of their ReplicaSet.
    let pool = "w".repeat(WORKER_POOL_NAME_CHARACTERS_MAX);
    wire.pool(&stage, &pool, &names, json!({"celery": {"concurrency": 5}}))
        .await?;
    stage
        .await_status(&pool, "a busy worker", LIMIT, |status| {
            status.busy_slots.is_some_and(|busy| busy > 0)
        })
        .await?;
    let pods = stage.pods(&pool).await?;
    assert!(pods.iter().all(|pod| pod.name_any().len() == 63), "{pods:?}");
    stage.await_ended(10, LIMIT).await?;
    stage.await_no_pods(&pool, LIMIT).await?;
    // Not ten: one pool rounds once. TaskQueues appear one by one, so that fewer may come first.
    assert_eq!(stage.peak(&pool), 2, "{:?}", stage.timeline(&pool));
    stage.expect_all_done_once(&ids)
}

/// Two WorkerPools of equal size share a backlog, half and half, and say so. One that has not been able to start a pod
/// for a minute keeps one to try with, and leaves the rest.
#[tokio::test]
async fn two_worker_pools_share_a_queue_as_long_as_both_can_work() -> Result<()> {
    let (stage, redis) = set("r-share").await?;
    // Late: nobody fetches more than runs.
    let wire = Wire::redis(&redis, 0).late(true);
    let shape = json!({
        "celery": {"concurrency": 10, "executionPool": "Threads", "prefetchMultiplier": 1},
        "scaling": {"maxReplicas": 2, "scaleDownDelaySeconds": 2},
    });
    let mut broken = shape.clone();
    stage::merge(
        &mut broken,
        json!({"worker": {"image": "registry.test/missing:1"}}),
    );
    wire.pool(&stage, "well", &["q"], shape).await?;
    wire.workers(&stage, "broken", &["q"], broken).await?;
    for name in ["well", "broken"] {
        let ready = ConditionType::Ready;
        stage
            .await_condition(name, ready, "True", "AsDesired", LIMIT)
            .await?;
    }
    wire.publish(&Batch::sleep("q", 60, 1_000.0)).await?;
    for name in ["well", "broken"] {
        stage.await_replicas(name, 2, LIMIT).await?;
    }
    // Of 60, or of down to 40 that wait while the other's workers take theirs: whichever is seen when its number is stored.
    wait_until("half of what waits", LIMIT, || async {
        let decision = stage.decision("broken").await?;
        let half = |all: u64| [all / 2, all.div_ceil(2)].map(|half| format!("({half} of {all} ready"));
        Ok((40..=60).flat_map(half).any(|half| decision.contains(&half)))
    })
    .await?;
    stage.await_replicas("broken", 1, LIMIT).await?;
    stage
        .await_condition("broken", ConditionType::Ready, "False", "ImageNotPulled", LIMIT)
        .await?;
    stage.expect_steady("broken", 1, Duration::from_secs(8)).await?;
    assert_eq!(stage.replicas("well").await?, 2);
    stage.strike().await
}

/// Redis counts no consumers: that a worker without heartbeats is at work, only its own answer can tell.
#[tokio::test]
async fn workers_without_heartbeats_prove_their_revision_and_grow_by_what_they_answer() -> Result<()> {
    let (stage, redis) = set("r-mute").await?;
    let wire = Wire::redis(&redis, 0);
    let shape = json!({
        "worker": {"command": ["sh", "-c", "exec celery \"$@\" --without-heartbeat", "celery"]},
        "scaling": {"minReplicas": 1, "maxReplicas": 3, "scaleDownDelaySeconds": 3},
    });
    wire.pool(&stage, "q", &["q"], shape).await?;
    wait_until("a proven revision", LIMIT, || async {
        let all = stage.deployments("q").await?;
        Ok(all.iter().any(|one| {
            one.annotations()
                .contains_key(poolwright_api::ANNOTATION_PROVEN_AT)
        }))
    })
    .await?;
    let limit = Duration::from_secs(120);
    let said = stage
        .await_condition("q", ConditionType::Ready, "False", "HeldUnseen", limit)
        .await?;
    assert!(said.contains("their slots count as full"), "{said}");
    let status = stage.tq("q").await?.status;
    assert_eq!(status.and_then(|status| status.consumers), Some(1));
    let ids = wire.publish(&Batch::sleep("q", 20, 2.0)).await?;
    stage.await_replicas("q", 3, LIMIT).await?;
    stage.await_ended(20, LIMIT).await?;
    // What they run is not known, nor when they are empty: none goes by guess.
    stage.expect_steady("q", 3, Duration::from_secs(12)).await?;
    let (_, reason, message) = stage.condition("q", ConditionType::Ready).await?;
    assert_eq!(reason, "HeldUnseen", "{message}");
    assert!(stage.notes("WrongBroker").await?.is_empty());
    stage.await_consumers("q", 3, LIMIT).await?;
    stage.expect_all_done_once(&ids)?;
    stage.strike().await
}

#[tokio::test]
async fn tls_and_an_acl_user() -> Result<()> {
    let stage = Stage::new("r-tls").await?;
    let redis = Redis::start(RedisConfig {
        tls: true,
        user: Some(("worker".into(), "canary-of-the-worker".into())),
        password: Some("canary-of-nobody".into()),
        ..RedisConfig::default()
    })
    .await?;
    let authority = redis.authority.as_ref().unwrap();
    stage.secret("authority", "ca.crt", &authority.ca_pem()?).await?;
    let mut wire = Wire::secret(&stage, "broker", &redis.url(2)).await?;
    wire.spec["tls"] = json!({"caSecretRef": {"name": "authority", "key": "ca.crt"}});
    let wire = wire.with("TAPP_CA", authority.ca.to_str().unwrap());
    scenario::there_and_back(&stage, &wire, "q").await?;
    let shown = stage.tq("q").await?.status.unwrap().broker.unwrap();
    assert!(
        shown.starts_with("rediss://127.0.0.1:") && shown.ends_with("/2"),
        "{shown}"
    );
    stage
        .expect_unsaid(&["canary-of-the-worker", "canary-of-nobody"])
        .await
}

#[tokio::test]
async fn sentinel_and_the_failover_of_its_master() -> Result<()> {
    let stage = Stage::new("r-sentinel").await?;
    let mut master = Redis::start(RedisConfig::default()).await?;
    let replica = Redis::start(RedisConfig {
        replica_of: Some(master.port),
        ..RedisConfig::default()
    })
    .await?;
    let sentinel = Sentinel::start(&master, "tasks", 3).await?;
    let mut wire = Wire::secret(&stage, "broker", &sentinel.url(1)).await?;
    wire.spec["redis"] = json!({"sentinelMaster": "tasks"});
    let wire = wire.with("TAPP_SENTINEL_MASTER", "tasks");
    let before = scenario::there_and_back(&stage, &wire, "q").await?;
    // The Sentinels must know the replica before they can choose it.
    wait_until("a replica that the Sentinels know", LIMIT, || async {
        let mut connection = brokers::connect(&format!("redis://127.0.0.1:{}", sentinel.ports[0])).await?;
        let replicas: Vec<redis::Value> = redis::cmd("SENTINEL")
            .arg(&["replicas", "tasks"])
            .query_async(&mut connection)
            .await?;
        Ok(!replicas.is_empty())
    })
    .await?;
    master.stop();
    wait_until("another master", LIMIT, || async {
        Ok(sentinel.master_port().await? == replica.port)
    })
    .await?;
    let ids = wire.publish(&Batch::sleep("q", 4, 1.0)).await?;
    stage.await_ended(before + 4, LIMIT).await?;
    stage.await_no_pods("q", LIMIT).await?;
    stage.expect_all_done_once(&ids)
}

#[tokio::test]
async fn foreign_workers_are_counted_named_and_left_alone() -> Result<()> {
    let (stage, redis) = set("r-foreign").await?;
    scenario::foreign(&stage, &Wire::redis(&redis, 0), "q").await
}

#[tokio::test]
async fn messages_in_the_unnamed_queue_raise_an_event() -> Result<()> {
    let (stage, redis) = set("r-stray").await?;
    let wire = Wire::redis(&redis, 0);
    wire.pool(&stage, "q", &["q"], json!({})).await?;
    wire.publish(&Batch::sleep("celery", 3, 1.0)).await?;
    wait_until("an event", LIMIT, || async {
        let notes = stage.notes("QueueUnknown").await?;
        Ok(notes
            .iter()
            .any(|note| note.starts_with("3 messages wait in the queue \"celery\"")))
    })
    .await?;
    assert_eq!(stage.peak("q"), 0);
    Ok(())
}

/// What works and could be better is said, and keeps nothing from working.
#[tokio::test]
async fn a_known_mistake_a_bound_and_deaf_workers_are_told() -> Result<()> {
    let (stage, redis) = set("r-told").await?;
    let wire = Wire::redis(&redis, 0);
    let unwise = json!({"class": "Cpu", "celery": {"prefetchMultiplier": 2}, "scaling": {"minReplicas": 1}});
    wire.pool(&stage, "unwise", &["unwise"], unwise).await?;
    let deaf = wire.with("TAPP_REMOTE_CONTROL", "0");
    deaf.pool(&stage, "deaf", &["deaf"], json!({})).await?;
    let all = deaf.publish(&Batch::sleep("deaf", 4, 8.0)).await?;

    let (advice, limited) = (ConditionType::ConfigurationAdvised, ConditionType::ScalingLimited);
    let message = stage
        .await_condition("unwise", advice, "True", "Advised", LIMIT)
        .await?;
    assert!(message.contains("spec.celery.prefetchMultiplier: "), "{message}");
    let message = stage
        .await_condition("unwise", limited, "True", "AtMinimum", LIMIT)
        .await?;
    assert!(message.ends_with("minReplicas 1"), "{message}");
    let message = stage
        .await_condition("deaf", advice, "True", "AnswersUnreadable", LIMIT)
        .await?;
    assert!(message.contains("worker_enable_remote_control"), "{message}");
    stage.await_ended(4, LIMIT).await?;
    stage.await_no_pods("deaf", LIMIT).await?;
    stage.expect_no_busy_victim()?;
    stage.expect_all_done_once(&all)
}
