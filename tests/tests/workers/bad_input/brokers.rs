//! Brokers that cannot be read: the reason and its fix in conditions, and what runs is held.

use super::{LIMIT, await_queue, await_words, expect_words};
use poolwright_api::ConditionType::{Ready, SignalsFresh};
use poolwright_tests::*;
use serde_json::{Value, json};
use std::time::Duration;

const PASSWORD: &str = "canary-password-51ce";
const WRONG: &str = "canary-wrong-60aa";

struct Case {
    name: &'static str,
    broker: Value,
    reason: &'static str,
    words: &'static [&'static str],
}

fn secret(name: &str, key: &str) -> Value {
    json!({"urlSecretRef": {"name": name, "key": key}})
}

/// Every broker is a Secret's, so that the Secret alone goes bad; or a URL in the spec.
fn cases(other: &Redis, web: &str) -> Vec<Case> {
    let url = |url: String| json!({"url": url});
    vec![
        Case {
            name: "missing-secret",
            broker: secret("nowhere", "url"),
            reason: "SecretMissing",
            words: &["Secret \"nowhere\" does not exist in namespace \"bad-broker-"],
        },
        Case {
            name: "missing-key",
            broker: secret("broker", "nothing"),
            reason: "SecretMissing",
            words: &["Secret \"broker\" has no key \"nothing\""],
        },
        Case {
            name: "no-url",
            broker: secret("odd", "words"),
            reason: "InvalidSpec",
            words: &["redis", "amqp"],
        },
        Case {
            name: "other-scheme",
            broker: secret("odd", "kafka"),
            reason: "InvalidSpec",
            words: &["redis", "amqp"],
        },
        Case {
            name: "unreachable",
            broker: url("redis://127.0.0.1:1/0".into()),
            reason: "BrokerUnreachable",
            words: &["nothing listens at this address"],
        },
        Case {
            name: "unknown-host",
            broker: url("redis://no-such-host.invalid/0".into()),
            reason: "BrokerUnreachable",
            words: &["spec.broker", "host name"],
        },
        Case {
            name: "no-redis",
            broker: url(format!("redis://{web}/0")),
            reason: "BrokerUnreachable",
            words: &["was closed", "another service"],
        },
        Case {
            name: "wrong-password",
            broker: secret("odd", "wrong"),
            reason: "BrokerRefused",
            words: &["refuses the user name or password"],
        },
        Case {
            name: "no-password",
            broker: secret("odd", "bare"),
            reason: "BrokerRefused",
            words: &["asks for a password"],
        },
        Case {
            name: "no-database",
            broker: url(format!("{}9", other.url(9))),
            reason: "InvalidSpec",
            words: &["database"],
        },
        Case {
            name: "wrong-type",
            broker: url(other.url(0)),
            reason: "HeldStale",
            words: &["key \"wrong-type\"", "is no list"],
        },
    ]
}

/// A Secret's URLs, of which none can be used.
async fn odd_secret(stage: &Stage, redis: &Redis) -> Result<()> {
    let address = format!("127.0.0.1:{}/0", redis.port);
    let all = json!({
        "words": format!("no URL at all {PASSWORD}"),
        "kafka": format!("kafka://user:{PASSWORD}@{address}"),
        "wrong": format!("redis://:{WRONG}@{address}"),
        "bare": format!("redis://{address}"),
    });
    let manifest =
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "odd"}, "stringData": all});
    stage.kubectl()?.apply(&manifest.to_string()).await?;
    Ok(())
}

#[tokio::test]
async fn a_broker_that_cannot_be_read_is_said_and_what_runs_is_held() -> Result<()> {
    let stage = Stage::new("bad-broker").await?;
    let redis = Redis::start(RedisConfig {
        password: Some(PASSWORD.into()),
        ..RedisConfig::default()
    })
    .await?;
    let other = Redis::start(RedisConfig::default()).await?;
    stage.secret("broker", "url", &redis.url(0)).await?;
    odd_secret(&stage, &redis).await?;
    let mut connection = other.connection(0).await?;
    let _: () = redis::cmd("SET")
        .arg("wrong-type")
        .arg("no list")
        .query_async(&mut connection)
        .await?;
    let web = stage.operator.http().ok_or("the operator serves no HTTP")?;
    let all = cases(&other, &web);
    let good = secret("broker", "url");
    let mut publisher = Celery::locate()?.publisher(&redis.url(0), &[]).await?;
    for case in &all {
        stage.queue(case.name, good.clone()).await?;
        publisher.publish(&Batch::sleep(case.name, 6, 1.0)).await?;
        let patch = json!({
            "worker": {"image": FAKE_IMAGE, "env": []},
            "scaling": {"maxReplicas": 3, "scaleDownDelaySeconds": 1},
        });
        stage.pool(case.name, &[case.name], "", patch).await?;
    }
    for case in &all {
        wait_until("three pods and a paused Deployment", LIMIT, || async {
            let paused = stage
                .deployments(case.name)
                .await?
                .iter()
                .all(|one| one.spec.as_ref().and_then(|spec| spec.paused) == Some(true));
            Ok(paused && stage.started(case.name).await? == (3, 3))
        })
        .await?;
    }

    let mut before = Vec::new();
    for case in &all {
        before.push(stage.footprint(case.name).await?);
        stage.set_broker(case.name, &case.broker).await?;
    }
    for case in &all {
        await_words(case.name, case.words, async || {
            stage
                .await_condition(case.name, SignalsFresh, "False", case.reason, LIMIT)
                .await
        })
        .await?;
        let (_, reason, summary) = stage.condition(case.name, Ready).await?;
        assert_eq!(reason, case.reason, "{}: {summary}", case.name);
        await_words(case.name, case.words, async || {
            await_queue(&stage, case.name, "False", case.reason).await
        })
        .await?;
    }
    // Longer than the window in which a missing count that was taken for zero would end the pods.
    tokio::time::sleep(Duration::from_secs(3)).await;
    for (case, before) in all.iter().zip(&before) {
        assert_eq!(&stage.footprint(case.name).await?, before, "{}", case.name);
        stage.set_broker(case.name, &good).await?;
    }
    for (case, before) in all.iter().zip(&before) {
        stage
            .await_condition(case.name, SignalsFresh, "True", "AsDesired", LIMIT)
            .await?;
        await_queue(&stage, case.name, "True", "AsDesired").await?;
        assert_eq!(&stage.footprint(case.name).await?, before, "{}", case.name);
    }
    stage.expect_unsaid(&[PASSWORD, WRONG]).await
}

/// The workers' broker is not that of their queues: they are seen to run, and never heard.
#[tokio::test]
async fn workers_on_another_broker_are_said_and_not_multiplied() -> Result<()> {
    let stage = Stage::new("wrong-broker").await?;
    let (redis, other) = (
        Redis::start(RedisConfig::default()).await?,
        Redis::start(RedisConfig::default()).await?,
    );
    stage.queue("q", json!({"url": redis.url(0)})).await?;
    let patch = json!({"scaling": {"scaleDownDelaySeconds": 1}});
    stage.pool("w", &["q"], &other.url(0), patch).await?;
    let mut publisher = Celery::locate()?.publisher(&redis.url(0), &[]).await?;
    publisher.publish(&Batch::sleep("q", 2, 0.1)).await?;
    stage.await_replicas("w", 1, LIMIT).await?;
    let message = stage
        .await_condition("w", Ready, "False", "WrongBroker", LIMIT * 2)
        .await?;
    expect_words(
        "Ready",
        &message,
        &["1 pod runs", "none is heard", "queue \"q\"", "status.broker"],
    )?;
    // More waits, and still no second worker that nobody hears.
    publisher.publish(&Batch::sleep("q", 10, 0.1)).await?;
    wait_until("12 tasks to be seen", LIMIT, || async {
        let status = stage.wp("w").await?.status.unwrap_or_default();
        Ok(status.queued == Some(12))
    })
    .await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(stage.started("w").await?, (1, 1));
    assert_eq!(stage.peak("w"), 1);

    let env = json!([
        {"name": "CELERY_BROKER_URL", "value": redis.url(0)},
        {"name": "TAPP_LOG", "value": stage.task_log()},
    ]);
    stage
        .patch_pool("w", json!({"spec": {"worker": {"env": env}}}))
        .await?;
    stage.await_ended(12, LIMIT).await?;
    stage.await_replicas("w", 0, LIMIT).await?;
    stage
        .await_condition("w", Ready, "True", "AsDesired", LIMIT)
        .await?;
    stage.expect_none_killed()
}
