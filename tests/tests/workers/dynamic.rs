//! While a load is high, workers run half of their slots: real ones, told by remote control, and no task is lost for it.

mod prometheus;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Patch, PatchParams, PostParams};
use poolwright_api::ConditionType;
use poolwright_tests::scenario::LIMIT;
use poolwright_tests::*;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::task::JoinHandle;

use prometheus::Prometheus;

/// A reading counts for 15 s; after so long it surely does not any more.
const FORGOTTEN: Duration = Duration::from_secs(20);

/// Two workers under load, of one WorkerPool `q`.
struct Set {
    stage: Stage,
    wire: Wire,
    stop: Arc<AtomicBool>,
    feeding: JoinHandle<Result<Vec<String>>>,
}

impl Set {
    /// Waits until both consume and `slots` are what the status says of them together.
    async fn new(stage: Stage, wire: Wire, celery: Value, slots: i32) -> Result<Self> {
        let shape = json!({
            "celery": celery, "scaling": {"minReplicas": 2, "maxReplicas": 2},
        });
        wire.pool(&stage, "q", &["q"], shape).await?;
        let (mut publisher, stop) = (wire.publisher().await?, Arc::new(AtomicBool::new(false)));
        let stopped = Arc::clone(&stop);
        // More than they can do at a time, and never far ahead of them.
        let feeding = tokio::spawn(async move {
            let mut ids = Vec::new();
            while !stopped.load(Ordering::SeqCst) {
                ids.extend(publisher.publish(&Batch::sleep("q", 8, 0.1)).await?);
                tokio::time::sleep(Duration::from_millis(150)).await;
            }
            Ok(ids)
        });
        let set = Self {
            stage,
            wire,
            stop,
            feeding,
        };
        set.await_slots(slots).await?;
        Ok(set)
    }

    async fn await_slots(&self, slots: i32) -> Result<()> {
        wait_until(&format!("{slots} slots in the status"), LIMIT, || async {
            let status = self.stage.status("q").await?;
            Ok(status.ready_replicas == Some(2) && status.slots == Some(slots))
        })
        .await
    }

    /// The sizes of both workers' pools by Celery's own client, the smaller first. On a busy machine it takes a while
    /// until both have answered.
    async fn sizes(&self) -> Result<Vec<u64>> {
        poll("answers of both workers", LIMIT, || async {
            let mut command = Celery::locate()?.command("celery", &self.wire.url, &[]);
            command.args(["-A", "tapp", "inspect", "stats", "--json", "-t", "3"]);
            let output = tokio::process::Command::from(command).output().await?;
            let answer: serde_json::Map<String, Value> =
                serde_json::from_slice(&output.stdout).unwrap_or_default();
            let mut sizes: Vec<u64> = answer.values().map(|stats| size(&stats["pool"])).collect();
            sizes.sort_unstable();
            Ok(Some(sizes).filter(|sizes| sizes.len() == 2))
        })
        .await
    }

    async fn await_sizes(&self, size: u64) -> Result<()> {
        let began = std::time::Instant::now();
        let outcome = wait_until(&format!("workers of {size} slots"), LIMIT, || async {
            Ok(self.sizes().await? == [size, size])
        })
        .await;
        println!(
            "workers have {size} slots after {:.1} s",
            began.elapsed().as_secs_f32()
        );
        outcome.map_err(|error| format!("{error}; {}", self.stage.operator.log()).into())
    }

    async fn await_text(&self, what: &str, is_it: impl Fn(&str) -> bool) -> Result<()> {
        let outcome = wait_until(what, LIMIT, || async {
            Ok(is_it(&self.stage.decision("q").await?))
        })
        .await;
        match outcome {
            Ok(()) => Ok(()),
            Err(error) => Err(format!("{error}; it says {:?}", self.stage.decision("q").await?).into()),
        }
    }

    /// Every task was done once, no worker was killed or replaced, and all take part.
    async fn expect_well(self) -> Result<()> {
        self.stop.store(true, Ordering::SeqCst);
        let ids = self.feeding.await??;
        self.stage.await_ended(ids.len(), LIMIT).await?;
        println!("{} tasks", ids.len());
        assert_eq!(self.stage.starts()?.len(), 2, "a worker was replaced");
        self.stage.expect_all_done_once(&ids)
    }
}

/// Of processes only their number is true.
fn size(pool: &Value) -> u64 {
    let processes = pool["processes"].as_array().map(|all| all.len() as u64);
    processes
        .or_else(|| pool["max-concurrency"].as_u64())
        .unwrap_or(0)
}

/// Writes the load into a `ConfigMap`.
async fn write(stage: &Stage, data: Value) -> Result<()> {
    let api = stage.namespace.api::<ConfigMap>();
    if api.get_opt("load").await?.is_none() {
        let map = json!({"metadata": {"name": "load"}});
        api.create(&PostParams::default(), &serde_json::from_value(map)?)
            .await?;
    }
    let patch = Patch::Merge(json!({"data": data}));
    api.patch("load", &PatchParams::default(), &patch).await?;
    Ok(())
}

fn heeding(celery: &Value) -> Value {
    let mut celery = celery.clone();
    let source = json!({"configMapKeyRef": {"name": "load", "key": "percent"}});
    celery["dynamicConcurrency"] = json!({"highPercent": 90, "source": source});
    celery
}

/// High, then unknown, then low: half, half, and all.
async fn expect_half_and_back(stage: Stage, wire: Wire, celery: Value) -> Result<()> {
    let all = celery["concurrency"].as_u64().unwrap();
    let both = |size: u64| i32::try_from(2 * size).unwrap();
    write(&stage, json!({"percent": "50"})).await?;
    let set = Set::new(stage, wire, heeding(&celery), both(all)).await?;
    assert_eq!(set.sizes().await?, [all, all]);

    write(&set.stage, json!({"percent": "91"})).await?;
    set.await_sizes(all / 2).await?;
    set.await_slots(both(all / 2)).await?;
    let words = format!("workers run {} of {all} slots: load 91 % is above 90 %", all / 2);
    set.await_text("the load in the decision", |text| text.contains(&words))
        .await?;

    write(&set.stage, json!({"percent": null})).await?;
    tokio::time::sleep(FORGOTTEN).await;
    assert_eq!(set.sizes().await?, [all / 2, all / 2]);
    let fresh = set.stage.condition("q", ConditionType::SignalsFresh).await?;
    assert!(
        fresh.0 == "True" && fresh.2.contains(r#"ConfigMap "load" has no key "percent""#),
        "{fresh:?}"
    );

    write(&set.stage, json!({"percent": "90"})).await?;
    set.await_sizes(all).await?;
    set.await_slots(both(all)).await?;
    set.await_text("no load in the decision", |text| !text.contains("load"))
        .await?;
    set.expect_well().await
}

#[tokio::test]
async fn processes_are_halved_on_redis_and_come_back() -> Result<()> {
    let redis = Redis::start(RedisConfig::default()).await?;
    let wire = Wire::redis(&redis, 0);
    let stage = Stage::new("d-prefork").await?;
    let celery = json!({"concurrency": 4, "prefetchMultiplier": 2});
    expect_half_and_back(stage, wire, celery).await
}

#[tokio::test]
async fn green_threads_are_halved_on_rabbitmq_and_come_back() -> Result<()> {
    let rabbit = RabbitMq::start(RabbitMqConfig::default()).await?;
    let vhost = rabbit.vhost("d-gevent", "").await?;
    let stage = Stage::new("d-gevent").await?;
    let wire = Wire::vhost(&stage, &vhost).await?;
    let celery = json!({"executionPool": "Gevent", "concurrency": 10});
    expect_half_and_back(stage, wire, celery).await
}

#[tokio::test]
async fn green_threads_of_eventlet_are_halved_on_redis_and_come_back() -> Result<()> {
    let redis = Redis::start(RedisConfig::default()).await?;
    let wire = Wire::redis(&redis, 0);
    let stage = Stage::new("d-eventlet").await?;
    let celery = json!({"executionPool": "Eventlet", "concurrency": 10});
    expect_half_and_back(stage, wire, celery).await
}

/// The same load from a server that speaks as Prometheus does; and what a process of ours took, another gives back.
#[tokio::test]
async fn a_prometheus_tells_the_load_and_a_restart_of_the_operator_changes_nothing() -> Result<()> {
    let redis = Redis::start(RedisConfig::default()).await?;
    let wire = Wire::redis(&redis, 0);
    let stage = Stage::new("d-prom").await?;
    let prometheus = Prometheus::start().await?;
    prometheus.say("3");
    let source = json!({"prometheus": {"url": prometheus.url, "query": "max(connections)"}});
    let celery = json!({"concurrency": 2, "dynamicConcurrency": {"source": source}});
    let mut set = Set::new(stage, wire, celery, 4).await?;
    prometheus.say("80.5");
    set.await_sizes(1).await?;
    assert!(
        prometheus
            .asked()
            .contains("/api/v1/query?query=max%28connections%29")
    );
    // It is away while the operator begins anew: what was so stays so.
    prometheus.hush();
    set.stage.operator.kill();
    set.stage.operator.start_again().await?;
    tokio::time::sleep(FORGOTTEN).await;
    assert_eq!(set.sizes().await?, [1, 1]);
    prometheus.say("80");
    set.await_sizes(2).await?;
    set.expect_well().await
}
