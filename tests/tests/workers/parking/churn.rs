//! Load that comes and goes without end, on both brokers.

use poolwright_tests::scenario::LIMIT;
use poolwright_tests::*;
use serde_json::json;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

/// A WorkerPool of the churn: its policy, when its tasks acknowledge, how many messages a slot fetches, and how it executes.
struct Kind {
    name: &'static str,
    policy: &'static str,
    late: bool,
    prefetch: u32,
    execution: &'static str,
}

const fn kind(
    (name, policy): (&'static str, &'static str),
    late: bool,
    prefetch: u32,
    execution: &'static str,
) -> Kind {
    Kind {
        name,
        policy,
        late,
        prefetch,
        execution,
    }
}

/// Two a broker, so that each policy and each way to acknowledge, to fetch and to execute meets each broker.
const ON_REDIS: [Kind; 2] = [
    kind(("redis-early", "WaitTarget"), false, 4, "Prefork"),
    kind(("redis-late", "Backlog"), true, 1, "Gevent"),
];
const ON_RABBITMQ: [Kind; 2] = [
    kind(("rabbit-early", "Backlog"), false, 1, "Gevent"),
    kind(("rabbit-late", "WaitTarget"), true, 4, "Prefork"),
];

/// Publishes bursts with pauses in which some workers become idle, and no burst waits until all are gone.
async fn waves(queue: &str, mut publisher: Publisher, tasks: usize, length: Duration) -> Result<Vec<String>> {
    let (since, longest) = (Instant::now(), scale::pick(20.0_f64, 60.0));
    let all = u32::try_from(tasks)?;
    let mut ids = Vec::new();
    while ids.len() < tasks {
        // So many should have come by now.
        let due = (1..=all)
            .filter(|number| length * *number / all <= since.elapsed())
            .count();
        let burst = due.saturating_sub(ids.len()) + fastrand::usize(1..=4);
        for _ in 0..burst {
            // Most are short, and a few take as long as any may.
            let seconds = 0.1 * (longest / 0.1).powf(fastrand::f64().powi(2));
            ids.extend(publisher.publish(&Batch::sleep(queue, 1, seconds)).await?);
        }
        tokio::time::sleep(Duration::from_millis(fastrand::u64(3_000..18_000))).await;
    }
    Ok(ids)
}

/// What has not ended, and what is said of it.
async fn missing(stage: &Stage, ids: &[String]) -> Result<String> {
    let (events, running) = (stage.events()?, stage.running()?);
    let ended = |id: &&String| {
        events
            .iter()
            .any(|event| event.id == **id && event.event == "end")
    };
    let left: Vec<&String> = ids.iter().filter(|id| !ended(id)).collect();
    let mut text = format!("{left:?} have not ended, of which {running:?} run\n");
    for kind in ON_REDIS.iter().chain(&ON_RABBITMQ) {
        let queue = stage.tq(kind.name).await?.status;
        let decision = stage.decision(kind.name).await?;
        writeln!(text, "{}: {decision}; {queue:?}", kind.name)?;
        for pod in stage.pods(kind.name).await? {
            let meta = pod.metadata;
            writeln!(text, "  {:?} {:?}", meta.name, meta.annotations)?;
        }
    }
    Ok(text)
}

/// Fails unless enough pods were parked, came back and went to show anything.
fn expect_enough(moves: &Moves, tasks: usize) {
    let parked = moves.count(|act| act == Act::Parked);
    let went = moves.count(|act| matches!(act, Act::Went { .. }));
    let created = moves.count(|act| act == Act::Created);
    let all = moves.all();
    let back = [&ON_REDIS, &ON_RABBITMQ].map(|kinds| {
        let is_of = |pod: &str| kinds.iter().any(|kind| pod.starts_with(kind.name));
        let returns = all.iter().filter(|one| one.act == Act::Back);
        returns.filter(|one| is_of(&one.pod)).count()
    });
    println!(
        "churn: {tasks} tasks; pods: {created} created, {parked} parked, {} came back on Redis and {} on RabbitMQ, \
         {went} went",
        back[0], back[1]
    );
    // How a worker is told to work again is each broker's own way; the short form may be over before both have done it.
    let returns = scale::pick(back[0] + back[1], back[0].min(back[1]));
    assert!(
        parked > 4 && returns > 0 && went > 4,
        "too little happened to show anything"
    );
}

#[tokio::test]
async fn churn_takes_no_busy_worker_and_loses_nothing() -> Result<()> {
    let (tasks, length) = scale::pick((220, 90), (2200, 600));
    let length = Duration::from_secs(length);
    let stage = Stage::new("p-churn").await?;
    let moves = Moves::follow(stage.namespace.api());
    let redis = Redis::start(RedisConfig::default()).await?;
    let vhost = RabbitMq::shared().await?.vhost("p-churn", "monitoring").await?;
    let on_redis = Wire::redis(&redis, 0);
    let mut on_rabbitmq = Wire::vhost(&stage, &vhost).await?;
    on_rabbitmq.spec["rabbitmq"] = json!({"managementUrl": vhost.management_url});
    // The other half of the ways to fetch and to acknowledge has its turn in every second run.
    let swapped = fastrand::bool();
    println!(
        "churn: {}",
        if swapped {
            "prefetch of 1 and 4 swapped"
        } else {
            "as written"
        }
    );
    let mut publishers = Vec::new();
    let kinds = ON_REDIS.iter().map(|kind| (kind, &on_redis));
    for (kind, wire) in kinds.chain(ON_RABBITMQ.iter().map(|kind| (kind, &on_rabbitmq))) {
        let wire = wire.late(kind.late);
        let shape = json!({
            "celery": {"concurrency": 2, "prefetchMultiplier": if swapped { 5 - kind.prefetch } else { kind.prefetch }, "executionPool": kind.execution},
            "scaling": {"policy": kind.policy, "maxReplicas": 4, "scaleDownDelaySeconds": 3},
        });
        wire.pool(&stage, kind.name, &[kind.name], shape).await?;
        publishers.push((kind.name, wire.publisher().await?));
    }
    let all = publishers
        .into_iter()
        .map(|(queue, publisher)| waves(queue, publisher, tasks / 4, length));
    let ids = futures::future::try_join_all(all).await?.concat();
    if let Err(error) = stage.await_ended(ids.len(), LIMIT * 3).await {
        return Err(format!("{error}: {}", missing(&stage, &ids).await?).into());
    }
    for kind in ON_REDIS.iter().chain(&ON_RABBITMQ) {
        // After minutes of bursts a wait target may keep workers for the next one, which does not come.
        if kind.policy == "WaitTarget" {
            let name = format!("wp/{}", kind.name);
            stage.kubectl()?.run(["scale", &name, "--replicas=0"]).await?;
        }
        stage.await_no_pods(kind.name, LIMIT).await?;
    }
    expect_enough(&moves, ids.len());
    assert!(ids.len() >= scale::pick(200, 2000));
    moves.expect_all_parked_first()?;
    stage.expect_none_misplaced().await?;
    let went = moves.count(|act| matches!(act, Act::Went { .. }));
    let asked = stage.asked_to_end()?.len();
    assert!(asked >= went, "{went} pods went, and the node knows of {asked}");
    stage.expect_no_busy_victim()?;
    stage.expect_all_done_once(&ids)
}
