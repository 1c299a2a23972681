//! Queues and busy slots on real RabbitMQ scale real Celery workers: each test has its own virtual host.

use kube::api::PostParams;
use poolwright_api::ConditionType;
use poolwright_api::v1alpha1::Pool;
use poolwright_tests::scenario::{self, LIMIT};
use poolwright_tests::*;
use reqwest::Method;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// A stage and a virtual host of its own.
async fn set(prefix: &str) -> Result<(Stage, Vhost)> {
    let rabbit = RabbitMq::shared().await?;
    Ok((
        Stage::new(prefix).await?,
        rabbit.vhost(prefix, "monitoring").await?,
    ))
}

/// Unacked counts from the management API.
fn managed(wire: &Wire, vhost: &Vhost) -> Wire {
    let mut wire = wire.clone();
    wire.spec["rabbitmq"] = json!({"managementUrl": vhost.management_url});
    wire
}

/// Unacked counts from the Prometheus endpoint.
fn metered(wire: &Wire, vhost: &Vhost) -> Wire {
    let mut wire = wire.clone();
    wire.spec["rabbitmq"] = json!({"metricsUrl": vhost.prometheus_url});
    wire
}

#[tokio::test]
async fn there_and_back_with_early_and_with_late_acknowledgement() -> Result<()> {
    let (stage, vhost) = set("a-back").await?;
    let wire = Wire::vhost(&stage, &vhost).await?;
    scenario::there_and_back(&stage, &wire, "early").await?;
    scenario::there_and_back(&stage, &wire.late(true), "late").await?;
    let shown = stage.tq("late").await?.status.unwrap().broker.unwrap();
    assert!(
        shown.starts_with("amqp://127.0.0.1:") && shown.ends_with(&vhost.name),
        "{shown}"
    );
    stage.expect_unsaid(&[&vhost.password]).await
}

#[tokio::test]
async fn tls() -> Result<()> {
    let (stage, vhost) = set("a-tls").await?;
    let authority = RabbitMq::shared().await?.authority.as_ref().unwrap();
    stage.secret("authority", "ca.crt", &authority.ca_pem()?).await?;
    let mut wire = Wire::secret(&stage, "broker", vhost.tls_url.as_ref().unwrap()).await?;
    wire.spec["tls"] = json!({"caSecretRef": {"name": "authority", "key": "ca.crt"}});
    let wire = wire.with("TAPP_CA", authority.ca.to_str().unwrap());
    scenario::there_and_back(&stage, &wire, "q").await.map(drop)
}

/// The workers' login may not ask for counts. The one in the URL of another Secret may, and nothing else; without its
/// counts no worker would go.
#[tokio::test]
async fn counts_come_over_https_with_a_login_of_their_own() -> Result<()> {
    let (stage, rabbit) = (Stage::new("a-https").await?, RabbitMq::shared().await?);
    let vhost = rabbit.vhost("a-https", "").await?;
    let authority = rabbit.authority.as_ref().unwrap();
    stage.secret("authority", "ca.crt", &authority.ca_pem()?).await?;
    let reader = format!("reader-{}", vhost.name);
    let password = rabbit.reader(&vhost, &reader).await?;
    let port = rabbit.management_tls_port.unwrap();
    let url = format!("https://{reader}:{password}@localhost:{port}");
    stage.secret("management", "url", &url).await?;
    let mut wire = Wire::secret(&stage, "broker", vhost.tls_url.as_ref().unwrap()).await?;
    wire.spec["tls"] = json!({"caSecretRef": {"name": "authority", "key": "ca.crt"}});
    wire.spec["rabbitmq"] = json!({"managementUrlSecretRef": {"name": "management", "key": "url"}});
    let wire = wire.with("TAPP_CA", authority.ca.to_str().unwrap());
    scenario::there_and_back(&stage, &wire.late(true), "q").await?;
    stage.expect_unsaid(&[&vhost.password, &password]).await
}

#[tokio::test]
async fn a_long_task_survives_scale_in() -> Result<()> {
    let (stage, vhost) = set("a-long").await?;
    let wire = Wire::vhost(&stage, &vhost).await?;
    let late = managed(&wire, &vhost).late(true);
    tokio::try_join!(
        scenario::long_task(&stage, &wire, "early"),
        scenario::long_task(&stage, &late, "late")
    )?;
    Ok(())
}

#[tokio::test]
async fn early_and_late_acknowledgement_give_the_same_demand_from_answers() -> Result<()> {
    let (stage, vhost) = set("a-answers").await?;
    let wire = Wire::vhost(&stage, &vhost).await?;
    scenario::same_demand(&stage, &[("early", wire.clone()), ("late", wire.late(true))]).await?;
    stage.strike().await
}

#[tokio::test]
async fn early_and_late_acknowledgement_give_the_same_demand_from_unacked_counts() -> Result<()> {
    let (stage, vhost) = set("a-counts").await?;
    let wire = Wire::vhost(&stage, &vhost).await?;
    let wires = [
        ("managed", managed(&wire, &vhost).late(true)),
        ("metered", metered(&wire, &vhost)),
    ];
    scenario::same_demand(&stage, &wires).await?;
    stage.strike().await
}

#[tokio::test]
async fn prefetched_tasks_are_seen_in_answers() -> Result<()> {
    let (stage, vhost) = set("a-pre").await?;
    let wire = Wire::vhost(&stage, &vhost).await?;
    scenario::prefetched(&stage, &wire, "q").await?;
    stage.strike().await
}

/// Without the one nobody is heard, without the other nothing is known of what they fetched.
#[tokio::test]
async fn workers_are_heard_and_asked_over_exchanges_of_other_names() -> Result<()> {
    let (stage, vhost) = set("a-names").await?;
    let mut wire = Wire::vhost(&stage, &vhost)
        .await?
        .with("TAPP_EXCHANGES", "orders,orders-events");
    wire.spec["controlExchange"] = json!("orders");
    wire.spec["eventExchange"] = json!("orders-events");
    scenario::prefetched(&stage, &wire, "q").await?;
    stage.strike().await
}

#[tokio::test]
async fn prefetched_tasks_are_seen_in_metrics() -> Result<()> {
    let (stage, vhost) = set("a-meter").await?;
    let wire = Wire::vhost(&stage, &vhost).await?;
    scenario::prefetched(&stage, &metered(&wire, &vhost), "q").await?;
    stage.strike().await
}

#[tokio::test]
async fn a_thousand_tasks_that_are_not_due_stop_growth_and_nothing_flaps() -> Result<()> {
    let celery = json!({"concurrency": 250, "executionPool": "Threads"});
    not_due("a-eta", "Backlog", &[1000], celery, 4).await
}

/// Most of them come when workers already hold some.
#[tokio::test]
async fn they_stop_it_where_a_wait_target_is_kept() -> Result<()> {
    not_due("a-eta-w", "WaitTarget", &[6, 994], json!({}), 3).await
}

/// Messages cannot be read in place: the first starts workers for them, a slot for each or fewer, and `most` workers.
async fn not_due(prefix: &str, policy: &str, batches: &[usize], celery: Value, most: i32) -> Result<()> {
    let (stage, vhost) = set(prefix).await?;
    let wire = Wire::vhost(&stage, &vhost).await?;
    // A Pool that keeps nobody back.
    let pool = serde_json::from_value(json!({
        "apiVersion": "poolwright.dev/v1alpha1", "kind": "Pool", "metadata": {"name": "wide"}, "spec": {"slots": 10_000}}))?;
    let pools = stage.namespace.api::<Pool>();
    pools.create(&PostParams::default(), &pool).await?;
    let drawing = json!({"broker": wire.spec, "pool": {"name": "wide"}});
    stage.task_queue("q", drawing).await?;
    let shape = json!({"celery": celery, "scaling": {"policy": policy, "maxReplicas": 12, "scaleDownDelaySeconds": 3}});
    wire.workers(&stage, "q", &["q"], shape).await?;
    let mut publisher = wire.publisher().await?;
    let later = |count: usize| Batch {
        countdown: Some(3600.0),
        ..Batch::sleep("q", count, 1.0)
    };
    publisher.publish(&later(batches[0])).await?;
    if policy == "Backlog" {
        stage.await_replicas("q", most, LIMIT).await?;
    }
    wait_until("all pods to be ready", LIMIT, || async {
        let wanted = stage.replicas("q").await?;
        Ok(wanted > 0 && stage.status("q").await?.ready_replicas == Some(wanted))
    })
    .await?;
    tokio::time::sleep(Duration::from_secs(20)).await;
    let (first, since) = (stage.peak("q"), Instant::now());
    assert!(first <= most, "{:?}", stage.timeline("q"));
    for batch in &batches[1..] {
        publisher.publish(&later(*batch)).await?;
    }
    tokio::time::sleep(Duration::from_secs(scale::pick(20, 300))).await;
    let timeline = stage.timeline("q");
    assert_eq!(stage.peak("q"), first, "growth did not stop: {timeline:?}");
    assert!(stage.reversals("q") <= 1, "{timeline:?}");
    assert!(
        stage.replicas("q").await? >= 1,
        "what workers hold is lost from sight: {timeline:?}"
    );
    let rises = timeline
        .windows(2)
        .filter(|pair| pair[1].0 > since && pair[1].1 > pair[0].1);
    assert_eq!(rises.count(), 0, "{timeline:?}");
    assert!(stage.events()?.is_empty());
    stage.expect_none_killed()?;
    stage.strike().await
}

/// Whom nobody can ask goes all the same, and not while it works.
#[tokio::test]
async fn deaf_workers_go_when_they_have_nothing_to_do() -> Result<()> {
    let (stage, vhost) = set("a-deaf").await?;
    let wire = Wire::vhost(&stage, &vhost)
        .await?
        .with("TAPP_REMOTE_CONTROL", "0");
    wire.pool(&stage, "deaf", &["deaf"], json!({})).await?;
    let all = wire.publish(&Batch::sleep("deaf", 4, 8.0)).await?;
    let advice = ConditionType::ConfigurationAdvised;
    stage
        .await_condition("deaf", advice, "True", "AnswersUnreadable", LIMIT)
        .await?;
    stage.await_ended(4, LIMIT).await?;
    stage.await_no_pods("deaf", LIMIT).await?;
    stage.expect_no_busy_victim()?;
    stage.expect_all_done_once(&all)
}

#[tokio::test]
async fn foreign_workers_are_counted_named_and_left_alone() -> Result<()> {
    let (stage, vhost) = set("a-foreign").await?;
    let wire = Wire::vhost(&stage, &vhost).await?;
    scenario::foreign(&stage, &wire, "q").await
}

/// A queue that nobody has declared is absent, not empty. The fallback's worker declares it.
#[tokio::test]
async fn an_absent_queue_is_said_and_ends_with_the_fallbacks_worker() -> Result<()> {
    let (stage, vhost) = set("a-absent").await?;
    let wire = managed(&Wire::vhost(&stage, &vhost).await?, &vhost);
    let fallback = json!({"scaling": {"fallback": {"replicas": 1, "afterSeconds": 10}}});
    wire.pool(&stage, "q", &["q"], fallback).await?;
    let (ready, active) = (ConditionType::Ready, ConditionType::ScalingActive);
    stage
        .await_condition("q", ready, "False", "QueueAbsent", LIMIT)
        .await?;
    wait_until("the TaskQueue to say so", LIMIT, || async {
        let (status, reason, _) = stage.queue_ready("q").await?;
        Ok((status.as_str(), reason.as_str()) == ("False", "QueueAbsent"))
    })
    .await?;
    let shown = stage.kubectl()?.run(["get", "tq", "q", "-o", "wide"]).await?;
    assert!(shown.contains("QueueAbsent"), "{shown}");
    assert_eq!(stage.peak("q"), 0, "before the fallback's time");
    stage
        .await_condition("q", active, "False", "Fallback", LIMIT)
        .await?;
    stage
        .await_condition("q", ready, "True", "AsDesired", LIMIT)
        .await?;
    let ids = wire.publish(&Batch::sleep("q", 2, 1.0)).await?;
    stage.await_ended(2, LIMIT).await?;
    stage.await_no_pods("q", LIMIT).await?;
    assert_eq!(stage.peak("q"), 1);
    stage.expect_all_done_once(&ids)
}

/// A virtual host is deleted under busy workers, and made again: what they hold runs to its end, none of them is taken
/// for queues that nobody can see, and work goes on with the new one.
#[tokio::test]
async fn a_virtual_host_that_is_deleted_takes_no_worker() -> Result<()> {
    let (stage, vhost) = set("a-gone").await?;
    let rabbit = RabbitMq::shared().await?;
    let wire = Wire::vhost(&stage, &vhost).await?;
    let shape = json!({
        "celery": {"concurrency": 1}, "scaling": {"minReplicas": 2, "maxReplicas": 2, "scaleDownDelaySeconds": 2},
    });
    wire.pool(&stage, "q", &["q"], shape).await?;
    stage.await_consumers("q", 2, LIMIT).await?;
    let mut ids = wire.publish(&Batch::sleep("q", 2, 10.0)).await?;
    stage.await_running(2, LIMIT).await?;
    stage
        .patch_pool("q", json!({"spec": {"scaling": {"minReplicas": 0}}}))
        .await?;

    let path = format!("/api/vhosts/{}", vhost.name);
    rabbit.manage(Method::DELETE, &path, &Value::Null).await?;
    let words = "the virtual host does not exist on this broker";
    let told = wait_until("the TaskQueue to say so", LIMIT, || async {
        let (status, reason, message) = stage.queue_ready("q").await?;
        Ok((status.as_str(), reason.as_str()) == ("False", "BrokerRefused") && message.contains(words))
    });
    if let Err(error) = told.await {
        return Err(format!("{error}: {:?}", stage.queue_ready("q").await?).into());
    }
    stage.await_ended(2, LIMIT).await?;
    stage
        .expect_steady("q", 2, Duration::from_secs(scale::pick(8, 60)))
        .await?;

    rabbit.open_vhost(&vhost.name).await?;
    ids.extend(wire.publish(&Batch::sleep("q", 4, 1.0)).await?);
    stage.await_ended(6, LIMIT).await?;
    stage.await_no_pods("q", LIMIT).await?;
    stage.expect_no_busy_victim()?;
    stage.expect_all_done_once(&ids)
}

/// On a broker that others use, too, anybody may publish where workers beat. What no worker sends ends nothing: not the
/// process, whose stack one frame of tables within tables fills, and not the connection.
#[tokio::test]
async fn messages_that_no_worker_sends_change_nothing() -> Result<()> {
    let (stage, vhost) = set("a-odd").await?;
    let (rabbit, wire) = (RabbitMq::shared().await?, Wire::vhost(&stage, &vhost).await?);
    let shape =
        json!({"celery": {"concurrency": 1}, "scaling": {"maxReplicas": 1, "scaleDownDelaySeconds": 2}});
    wire.pool(&stage, "q", &["q"], shape).await?;
    let mut ids = wire.publish(&Batch::sleep("q", 1, 5.0)).await?;
    stage.await_running(1, LIMIT).await?;

    let nested = (0..1000).fold(json!([]), |inner, _| json!([inner]));
    let odd = [
        (json!({"headers": {"k": nested}}), 1),
        (json!({"headers": {"k": "x".repeat(100_000)}}), 1),
        (json!({}), 1_000_000),
    ];
    let path = format!("/api/exchanges/{}/celeryev/publish", vhost.name);
    for (properties, length) in odd {
        let message = json!({
            "properties": properties, "routing_key": "worker.heartbeat",
            "payload": "x".repeat(length), "payload_encoding": "string",
        });
        let answer = rabbit.manage(Method::POST, &path, &message).await?;
        assert_eq!(answer, json!({"routed": true}), "the operator reads it");
    }
    stage.await_ended(1, LIMIT).await?;
    stage.await_no_pods("q", LIMIT).await?;
    ids.extend(wire.publish(&Batch::sleep("q", 1, 1.0)).await?);
    stage.await_ended(2, LIMIT).await?;
    stage.await_no_pods("q", LIMIT).await?;
    let log = stage.operator.log();
    let said = log
        .lines()
        .filter(|line| line.contains("WARN") && line.contains(&vhost.name));
    assert_eq!(said.collect::<Vec<_>>(), [""; 0]);
    stage.expect_all_done_once(&ids)
}
