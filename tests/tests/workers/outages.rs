//! A broker that is gone for a while: missing is not zero, and a worker that cannot be heard is not idle.

use futures::StreamExt as _;
use kube::ResourceExt;
use lapin::options::{BasicConsumeOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{Connection, ConnectionProperties};
use poolwright_api::ConditionType;
use poolwright_tests::scenario::LIMIT;
use poolwright_tests::*;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Workers of a test.
const WORKERS: i32 = 3;

fn length() -> Duration {
    Duration::from_secs(scale::pick(9, 30))
}

/// Three workers with one task each, and the scale-in delay of two seconds that every outage exceeds.
async fn busy(stage: &Stage, wire: &Wire, policy: &str, seconds: f64) -> Result<Vec<String>> {
    let shape = json!({
        "celery": {"concurrency": 1},
        "scaling": {"policy": policy, "minReplicas": WORKERS, "scaleDownDelaySeconds": 2},
    });
    wire.pool(stage, "q", &["q"], shape).await?;
    // One task for each: all consume before the first is sent.
    stage.await_consumers("q", WORKERS, LIMIT).await?;
    let ids = wire.publish(&Batch::sleep("q", 3, seconds)).await?;
    stage.await_running(3, LIMIT).await?;
    stage
        .await_status("q", "three busy slots", LIMIT, |status| {
            status.busy_slots == Some(3)
        })
        .await?;
    stage
        .patch_pool("q", json!({"spec": {"scaling": {"minReplicas": 0}}}))
        .await?;
    Ok(ids)
}

/// During the outage: replicas hold, and the condition says why and since when. Returns at its end.
async fn expect_held(stage: &Stage, began: jiff::Timestamp) -> Result<()> {
    let fresh = ConditionType::SignalsFresh;
    let watch = async {
        let limit = Duration::from_secs(8);
        let message = stage
            .await_condition("q", fresh, "False", "BrokerUnreachable", limit)
            .await?;
        let since = message
            .split("(since ")
            .nth(1)
            .and_then(|rest| rest.split(')').next()?.parse::<jiff::Timestamp>().ok())
            .ok_or_else(|| format!("no time in {message:?}"))?;
        let late = since.duration_since(began).as_secs_f64();
        // Whole seconds; a broker that hangs is given the deadline of a command.
        if !(-1.5..5.0).contains(&late) {
            return Err(format!("the outage began {late} s before what is said: {message}").into());
        }
        println!("{message}");
        Ok(())
    };
    tokio::try_join!(watch, stage.expect_steady("q", WORKERS, length()))?;
    let (status, reason, _) = stage.condition("q", ConditionType::Ready).await?;
    if (status.as_str(), reason.as_str()) != ("False", "BrokerUnreachable") {
        return Err(format!("Ready is {status}/{reason}").into());
    }
    Ok(())
}

/// Queue counts are fresh again within a second and a poll, by the operator's own record of the first reading.
async fn expect_fresh_in_time(stage: &Stage, began: jiff::Timestamp, back: jiff::Timestamp) -> Result<()> {
    let promised = Duration::from_millis(1200);
    // Other tests run beside the short form.
    let slack = Duration::from_millis(scale::pick(500, 100));
    let read_again = || {
        let log = stage.operator.log();
        let lines = log
            .lines()
            .filter(|line| line.contains("the queues can be read again"));
        let times = lines.filter_map(|line| line.split_whitespace().next()?.parse::<jiff::Timestamp>().ok());
        times.into_iter().find(|at| *at > began)
    };
    wait_until("a reading", LIMIT, || async { Ok(read_again().is_some()) }).await?;
    let took = read_again().ok_or("no reading")?.duration_since(back);
    println!("counts were read {took:#} after the broker's return");
    if took.as_secs_f64() > (promised + slack).as_secs_f64() {
        return Err(format!("counts were read only {took:#} after the broker's return").into());
    }
    wait_until("a small age", Duration::from_secs(2), || async {
        let age = stage
            .metric("poolwright_task_queue_sample_age_seconds", "name=\"q\"")
            .await?;
        Ok(age.is_some_and(|age| age < 1.0))
    })
    .await
}

/// When each worker was first heard since the broker's return, by a listener of the test's own.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<BTreeMap<String, Instant>>>);

impl Heard {
    /// Listens to heartbeats as they are on Redis, beside the operator.
    async fn on_redis(url: &str) -> Result<Self> {
        let heard = Self::default();
        let mut subscription = redis::Client::open(url)?.get_async_pubsub().await?;
        subscription.psubscribe("/0.celeryev/worker.heartbeat").await?;
        let into = heard.clone();
        tokio::spawn(async move {
            while let Some(message) = subscription.on_message().next().await {
                let envelope: Value = serde_json::from_slice(message.get_payload_bytes()).unwrap_or_default();
                into.note(&envelope["headers"]["hostname"]);
            }
        });
        Ok(heard)
    }

    /// The same on RabbitMQ. Celery's exchange of events is durable, so it is there as soon as the broker is.
    async fn on_rabbitmq(url: &str) -> Result<Self> {
        let heard = Self::default();
        let connection = Connection::connect(url, ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        let exclusive = QueueDeclareOptions {
            exclusive: true,
            ..QueueDeclareOptions::default()
        };
        let none = FieldTable::default;
        let queue = channel.queue_declare("".into(), exclusive, none()).await?;
        let name = queue.name().clone();
        let (exchange, key) = ("celeryev".into(), "worker.#".into());
        channel
            .queue_bind(name.clone(), exchange, key, QueueBindOptions::default(), none())
            .await?;
        let options = BasicConsumeOptions {
            no_ack: true,
            ..BasicConsumeOptions::default()
        };
        let mut consumer = channel.basic_consume(name, "".into(), options, none()).await?;
        let into = heard.clone();
        tokio::spawn(async move {
            // Either ends with its last handle.
            let _open = (connection, channel);
            while let Some(Ok(delivery)) = consumer.next().await {
                let event: Value = serde_json::from_slice(&delivery.data).unwrap_or_default();
                if event["type"] == "worker-heartbeat" {
                    into.note(&event["hostname"]);
                }
            }
        });
        Ok(heard)
    }

    fn times(&self) -> MutexGuard<'_, BTreeMap<String, Instant>> {
        self.0.lock().unwrap()
    }

    fn note(&self, node: &Value) {
        let node = node.as_str().unwrap_or_default().to_owned();
        self.times().entry(node).or_insert_with(Instant::now);
    }

    /// Fails if a worker was parked or taken since then that had not been heard again at that moment. Whom `parked` names was
    /// parked before, which the first list of `moves` may show later.
    fn expect_before_moves(&self, moves: &Moves, since: Instant, parked: &BTreeSet<String>) -> Result<()> {
        let heard = self.times().clone();
        let taken = |act: Act| matches!(act, Act::Parked | Act::Went { .. });
        let later = moves
            .all()
            .into_iter()
            .filter(|one| one.at > since && taken(one.act))
            .filter(|one| one.act != Act::Parked || !parked.contains(&one.pod));
        let later: Vec<Move> = later.collect();
        if !later.iter().any(|one| one.act == Act::Parked) {
            return Err(format!("nobody was parked after the broker's return: {later:?}").into());
        }
        for one in later {
            if heard
                .get(&format!("celery@{}", one.pod))
                .is_none_or(|at| *at > one.at)
            {
                return Err(format!("it had not been heard again: {one:?}; heard were {heard:?}").into());
            }
        }
        Ok(())
    }
}

/// The workers that take no more tasks now.
async fn parked(stage: &Stage) -> Result<BTreeSet<String>> {
    let pods = stage.pods("q").await?;
    let parked = pods.iter().filter(|pod| is_parked(pod));
    Ok(parked.map(ResourceExt::name_any).collect())
}

#[tokio::test]
async fn redis_is_stopped_and_the_workers_come_back_after_it() -> Result<()> {
    redis_is_stopped("o-stop", "Backlog").await
}

#[tokio::test]
async fn so_they_do_where_a_wait_target_is_kept() -> Result<()> {
    redis_is_stopped("o-stop-w", "WaitTarget").await
}

async fn redis_is_stopped(prefix: &str, policy: &str) -> Result<()> {
    let (stage, mut redis) = (
        Stage::new(prefix).await?,
        Redis::start(RedisConfig::default()).await?,
    );
    let wire = Wire::redis(&redis, 0);
    // They end while the broker is away: idle, and nobody hears it.
    let ids = busy(&stage, &wire, policy, length().as_secs_f64()).await?;
    let began = jiff::Timestamp::now();
    redis.stop();
    expect_held(&stage, began).await?;
    stage.await_ended(3, LIMIT).await?;
    assert_eq!(stage.replicas("q").await?, WORKERS);
    let parked = parked(&stage).await?;
    let moves = Moves::follow(stage.namespace.api());
    redis.start_again().await?;
    let (back, since) = (jiff::Timestamp::now(), Instant::now());
    let heard = Heard::on_redis(&redis.admin_url(0)).await?;
    expect_fresh_in_time(&stage, began, back).await?;
    // After longer tasks a wait target is slower to believe that no more come.
    let limit = LIMIT.max(Duration::from_secs(scale::pick(0, 900)));
    stage.await_no_pods("q", limit).await?;
    heard.expect_before_moves(&moves, since, &parked)?;
    stage.expect_no_busy_victim()?;
    stage.expect_all_done_once(&ids)
}

#[tokio::test]
async fn redis_hangs() -> Result<()> {
    let (stage, redis) = (
        Stage::new("o-hang").await?,
        Redis::start(RedisConfig::default()).await?,
    );
    let wire = Wire::redis(&redis, 0);
    let ids = busy(&stage, &wire, "Backlog", length().as_secs_f64() + 12.0).await?;
    let began = jiff::Timestamp::now();
    redis.freeze();
    expect_held(&stage, began).await?;
    let back = jiff::Timestamp::now();
    redis.thaw();
    expect_fresh_in_time(&stage, began, back).await?;
    stage
        .await_condition("q", ConditionType::SignalsFresh, "True", "AsDesired", LIMIT)
        .await?;
    stage.await_ended(3, LIMIT).await?;
    stage.await_no_pods("q", LIMIT).await?;
    assert_eq!(stage.reversals("q"), 1, "{:?}", stage.timeline("q"));
    stage.expect_no_busy_victim()?;
    stage.expect_all_done_once(&ids)
}

#[tokio::test]
async fn rabbitmq_is_restarted() -> Result<()> {
    let stage = Stage::new("o-rabbit").await?;
    let rabbit = Arc::new(RabbitMq::start(RabbitMqConfig::default()).await?);
    let vhost = rabbit.vhost("o-rabbit", "").await?;
    let wire = Wire::vhost(&stage, &vhost).await?;
    // They end while the broker is away: idle, and nobody hears it.
    let ids = busy(&stage, &wire, "Backlog", length().as_secs_f64()).await?;
    let stopped = Arc::clone(&rabbit);
    let began = jiff::Timestamp::now();
    tokio::task::spawn_blocking(move || stopped.stop()).await?;
    expect_held(&stage, began).await?;
    stage.await_ended(3, LIMIT).await?;
    assert_eq!(stage.replicas("q").await?, WORKERS);
    let parked = parked(&stage).await?;
    let moves = Moves::follow(stage.namespace.api());
    rabbit.start_again().await?;
    let (back, since) = (jiff::Timestamp::now(), Instant::now());
    let heard = Heard::on_rabbitmq(&vhost.url).await?;
    expect_fresh_in_time(&stage, began, back).await?;
    stage.await_no_pods("q", LIMIT).await?;
    heard.expect_before_moves(&moves, since, &parked)?;
    assert_eq!(stage.reversals("q"), 1, "{:?}", stage.timeline("q"));
    stage.expect_no_busy_victim()?;
    stage.expect_all_done_once(&ids)
}

#[tokio::test]
async fn rabbitmq_hangs() -> Result<()> {
    let stage = Stage::new("o-rhang").await?;
    let rabbit = RabbitMq::start(RabbitMqConfig::default()).await?;
    let vhost = rabbit.vhost("o-rhang", "").await?;
    let wire = Wire::vhost(&stage, &vhost).await?;
    let ids = busy(&stage, &wire, "Backlog", length().as_secs_f64() + 12.0).await?;
    let began = jiff::Timestamp::now();
    rabbit.freeze();
    expect_held(&stage, began).await?;
    let back = jiff::Timestamp::now();
    rabbit.thaw();
    expect_fresh_in_time(&stage, began, back).await?;
    stage.await_ended(3, LIMIT).await?;
    stage.await_no_pods("q", LIMIT).await?;
    assert_eq!(stage.reversals("q"), 1, "{:?}", stage.timeline("q"));
    stage.expect_no_busy_victim()?;
    stage.expect_all_done_once(&ids)
}

/// The operator's own user of Redis loses sight of one of two queues; the workers' has all rights.
#[tokio::test]
async fn one_of_several_queues_that_cannot_be_read_lets_workers_come_and_none_go() -> Result<()> {
    let (stage, redis) = (
        Stage::new("o-part").await?,
        Redis::start(RedisConfig::default()).await?,
    );
    let mut admin = redis.connection(0).await?;
    let mut sees = async |keys: &'static str| -> Result<()> {
        let user = "SETUSER reader on >canary-of-the-reader resetkeys allchannels +@all";
        let mut command = ::redis::cmd("ACL");
        command.arg(user.split(' ').collect::<Vec<_>>()).arg(keys);
        Ok(command.exec_async(&mut admin).await?)
    };
    sees("~*").await?;
    let url = format!("redis://reader:canary-of-the-reader@127.0.0.1:{}/0", redis.port);
    let reader = Wire::secret(&stage, "reader", &url).await?;
    for queue in ["seen", "hidden"] {
        stage.queue(queue, reader.spec.clone()).await?;
    }
    let wire = Wire::redis(&redis, 0);
    let shape = json!({
        "celery": {"concurrency": 1},
        "scaling": {"policy": "Backlog", "maxReplicas": WORKERS, "scaleDownDelaySeconds": 2},
    });
    wire.workers(&stage, "q", &["seen", "hidden"], shape).await?;
    let mut ids = wire.publish(&Batch::sleep("seen", 1, 10.0)).await?;
    stage.await_running(1, LIMIT).await?;

    sees("~[^h]*").await?;
    let fresh = ConditionType::SignalsFresh;
    stage
        .await_condition("q", fresh, "False", "BrokerRefused", LIMIT)
        .await?;
    ids.extend(wire.publish(&Batch::sleep("seen", 2, 1.0)).await?);
    stage.await_replicas("q", WORKERS, LIMIT).await?;
    stage.await_ended(3, LIMIT).await?;
    stage.expect_steady("q", WORKERS, length()).await?;

    sees("~*").await?;
    stage.await_no_pods("q", LIMIT).await?;
    stage.expect_no_busy_victim()?;
    stage.expect_all_done_once(&ids)
}
