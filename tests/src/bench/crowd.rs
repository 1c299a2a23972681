//! Many WorkerPools on one Redis, all active: what a burst on fifty of them waits for, and what the operator costs.

use super::percentile;
use super::rig::{Rig, USER, heartbeat, message, processor_seconds};
use crate::brokers::connect;
use crate::{Result, wait_until};
use futures::StreamExt;
use futures::stream;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, ListParams, PostParams};
use kube::runtime::watcher::{self, Event};
use poolwright_api::LABEL_WORKER_POOL;
use poolwright_api::v1alpha1::{TaskQueue, WorkerPool};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Queues that get a burst.
const BURST: usize = 50;
/// Until every worker is heard, proven and reported, and the first task of each queue is too long ago to be a rate.
const SETTLE: Duration = Duration::from_secs(150);
/// How long the quiet state is watched.
const QUIET: Duration = Duration::from_secs(30);

/// What one size of fleet gave.
#[derive(Debug, Default)]
pub struct Crowd {
    /// WorkerPools.
    pub pools: usize,
    /// Seconds from a push to more replicas, for each queue of the burst.
    pub burst: Vec<f64>,
    /// Connections of the operator to Redis.
    pub connections: usize,
    /// Commands a second that Redis ran for the operator in the quiet state.
    pub commands: f64,
    /// Writes of the operator a second in the quiet state.
    pub writes: f64,
    /// Processor cores of the API server in the quiet state with and without the operator.
    pub apiserver: (f64, f64),
    /// Processor cores of the operator in the quiet state.
    pub cores: f64,
    /// Resident memory of the operator in MB.
    pub resident: f64,
    /// Seconds from the start of a new operator process until every pool has a decision.
    pub restart: f64,
}

impl Crowd {
    /// The first column of the table's rows for a fleet of so many pools. What both API-server figures were stands behind
    /// its label.
    #[must_use]
    pub fn labels(pools: usize) -> [String; 9] {
        let label = |what: &str| format!("{} pools: {what}", thousands(pools));
        [
            label(&format!("burst on {BURST}, p99 to more replicas")),
            label("the same, p50"),
            label("Redis connections"),
            label("Redis commands a second"),
            label("API writes a second, nothing changing"),
            label("API-server cores added"),
            label("operator cores"),
            label("operator RSS"),
            label("restart until every pool is decided"),
        ]
    }

    /// The table's rows.
    pub fn print(&self) {
        let (soon, small) = if self.pools <= 100 {
            ("≤ 1 s", "≤ 40 MB")
        } else {
            ("≤ 2 s", "≤ 80 MB")
        };
        let [
            slowest,
            median,
            connections,
            commands,
            writes,
            apiserver,
            cores,
            resident,
            restart,
        ] = Self::labels(self.pools);
        println!("| {slowest} | {:.3} s | {soon} |", percentile(&self.burst, 0.99));
        println!("| {median} | {:.3} s | – |", percentile(&self.burst, 0.5));
        println!("| {connections} | {} | ≤ 3 |", self.connections);
        println!("| {commands} | {:.0} | – |", self.commands);
        println!("| {writes} | {:.2} | 0 |", self.writes);
        let (with, without) = self.apiserver;
        println!(
            "| {apiserver} ({with:.3} with, {without:.3} without) | {:.3} | ≤ 0.1 |",
            with - without
        );
        println!("| {cores} | {:.3} | – |", self.cores);
        println!("| {resident} | {:.0} MB | {small} |", self.resident);
        println!("| {restart} | {:.2} s | ≤ 5 s |", self.restart);
    }
}

/// A number below a million, with a comma as the page has it.
fn thousands(number: usize) -> String {
    match (number / 1000, number % 1000) {
        (0, rest) => rest.to_string(),
        (thousands, rest) => format!("{thousands},{rest:03}"),
    }
}

/// Publishes a heartbeat for every pod of the namespace every two seconds until told to stop.
fn beat(rig: &Rig, stop: Arc<AtomicBool>) -> tokio::task::JoinHandle<Result<()>> {
    let (pods, url): (Api<Pod>, String) = (rig.namespace.api(), rig.redis.url(0));
    tokio::spawn(async move {
        let mut connection = connect(&url).await?;
        while !stop.load(Ordering::Relaxed) {
            let began = Instant::now();
            let names: Vec<String> = pods
                .list_metadata(&ListParams::default())
                .await?
                .iter()
                .map(ResourceExt::name_any)
                .collect();
            for chunk in names.chunks(200) {
                let mut pipeline = redis::pipe();
                for name in chunk {
                    let node = format!("celery@{name}");
                    // One task is always under way: an active pool that needs just what it has.
                    pipeline
                        .publish("/0.celeryev/worker.heartbeat", heartbeat(&node, 1, 1))
                        .ignore();
                }
                pipeline.query_async::<()>(&mut connection).await?;
            }
            tokio::time::sleep(Duration::from_secs(2).saturating_sub(began.elapsed())).await;
        }
        Ok(())
    })
}

/// Measures a fleet of `count` pools, each on a queue of its own with one worker that is busy.
pub async fn run(rig: &mut Rig, count: usize) -> Result<Crowd> {
    let mut crowd = Crowd {
        pools: count,
        ..Crowd::default()
    };
    let names: Vec<String> = (0..count).map(|index| format!("c{count}-{index}")).collect();
    create(rig, &names, 1).await?;
    let stop = Arc::new(AtomicBool::new(false));
    let beating = beat(rig, Arc::clone(&stop));
    let pods: Api<Pod> = rig.namespace.api();
    wait_until("a pod for each pool", Duration::from_secs(300), || async {
        Ok(pods.list_metadata(&ListParams::default()).await?.items.len() >= count)
    })
    .await?;
    tokio::time::sleep(SETTLE).await;
    quiet(rig, &mut crowd).await?;
    // What the API server does without the operator is seen in the same quiet: pods of a burst would be work of its own.
    restart(rig, &mut crowd, count).await?;
    tokio::time::sleep(QUIET).await;
    crowd.burst = burst(rig, &names).await?;
    stop.store(true, Ordering::Relaxed);
    beating.await??;
    Ok(crowd)
}

/// Makes a TaskQueue and a WorkerPool of each name, with at least so many workers.
pub(super) async fn create(rig: &Rig, names: &[String], least: u32) -> Result<()> {
    let (queues, pools) = (
        rig.namespace.api::<TaskQueue>(),
        rig.namespace.api::<WorkerPool>(),
    );
    let all = stream::iter(names).map(|name| {
        let (queues, pools) = (queues.clone(), pools.clone());
        async move {
            let (queue, pool) = rig.manifests(name, 2, least, 50)?;
            queues.create(&PostParams::default(), &queue).await?;
            pools.create(&PostParams::default(), &pool).await?;
            Ok::<(), crate::Error>(())
        }
    });
    all.buffer_unordered(16)
        .collect::<Vec<_>>()
        .await
        .into_iter()
        .collect()
}

async fn quiet(rig: &mut Rig, crowd: &mut Crowd) -> Result<()> {
    let operator = rig
        .operator
        .as_ref()
        .and_then(crate::Operator::pid)
        .ok_or("the operator does not run")?;
    let commands = |stats: &str| -> f64 {
        // The heartbeats are the benchmark's own.
        let lines = stats
            .lines()
            .filter(|line| line.starts_with("cmdstat_") && !line.starts_with("cmdstat_publish"));
        lines
            .filter_map(|line| {
                line.split("calls=")
                    .nth(1)?
                    .split(',')
                    .next()?
                    .parse::<f64>()
                    .ok()
            })
            .sum()
    };
    let mut connection = rig.redis.connection(0).await?;
    let mut stats = async || -> Result<f64> {
        let text: String = redis::cmd("INFO")
            .arg("commandstats")
            .query_async(&mut connection)
            .await?;
        Ok(commands(&text))
    };
    let before = (
        rig.writes()?.len(),
        stats().await?,
        rig.apiserver_seconds(),
        processor_seconds(operator),
    );
    tokio::time::sleep(QUIET).await;
    let after = (
        rig.writes()?.len(),
        stats().await?,
        rig.apiserver_seconds(),
        processor_seconds(operator),
    );
    let seconds = QUIET.as_secs_f64();
    let rate = |before: Option<f64>, after: Option<f64>| {
        before
            .zip(after)
            .map_or(f64::NAN, |(before, after)| (after - before) / seconds)
    };
    crowd.writes = f64::from(u32::try_from(after.0 - before.0)?) / seconds;
    for entry in rig.writes()?.iter().skip(before.0).take(5) {
        eprintln!(
            "a write while nothing changes: {} {} {}/{}",
            entry.verb, entry.resource, entry.name, entry.subresource
        );
    }
    crowd.commands = (after.1 - before.1) / seconds;
    crowd.apiserver.0 = rate(before.2, after.2);
    crowd.cores = rate(before.3, after.3);
    crowd.resident = rig.resident();
    // The benchmark's own besides the one that asks: those of this look and of the heartbeats.
    crowd.connections = rig.connections(2).await?;
    Ok(())
}

async fn burst(rig: &Rig, names: &[String]) -> Result<Vec<f64>> {
    let deployments: Api<Deployment> = rig.namespace.api();
    let mut events = watcher::watcher(deployments, watcher::Config::default()).boxed();
    let mut replicas: BTreeMap<String, i32> = BTreeMap::new();
    while let Some(event) = events.next().await {
        match event? {
            Event::InitApply(one) => {
                replicas.insert(
                    one.name_any(),
                    one.spec.and_then(|spec| spec.replicas).unwrap_or(0),
                );
            }
            Event::InitDone => break,
            _ => {}
        }
    }
    let step = (names.len() / BURST).max(1);
    let chosen: Vec<&String> = names.iter().step_by(step).take(BURST).collect();
    let mut connection = rig.redis.connection(0).await?;
    let mut pipeline = redis::pipe();
    for name in &chosen {
        let messages: Vec<String> = (0..10).map(|_| message(name)).collect();
        pipeline.lpush(name.as_str(), messages).ignore();
    }
    let pushed = Instant::now();
    pipeline.query_async::<()>(&mut connection).await?;
    let mut seconds = Vec::new();
    let mut waiting: BTreeSet<&str> = chosen.iter().map(|name| name.as_str()).collect();
    let limit = tokio::time::sleep(Duration::from_secs(60));
    tokio::pin!(limit);
    while seconds.len() < chosen.len() {
        tokio::select! {
            event = events.next() => {
                let Some(Event::Apply(one)) = event.transpose()? else { continue };
                let (name, pool) = (one.name_any(), one.labels().get(LABEL_WORKER_POOL).cloned());
                let now = one.spec.and_then(|spec| spec.replicas).unwrap_or(0);
                let before = replicas.insert(name, now).unwrap_or(0);
                // Of each pool the first growth counts; a second reading may raise it once more.
                if now > before && pool.is_some_and(|pool| waiting.remove(pool.as_str())) {
                    seconds.push(pushed.elapsed().as_secs_f64());
                }
            }
            () = &mut limit => return Err(format!("only {} of {} pools grew", seconds.len(), chosen.len()).into()),
        }
    }
    Ok(seconds)
}

async fn restart(rig: &mut Rig, crowd: &mut Crowd, count: usize) -> Result<()> {
    if let Some(operator) = &mut rig.operator {
        operator.kill();
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    let before = rig.apiserver_seconds();
    tokio::time::sleep(QUIET).await;
    let after = rig.apiserver_seconds();
    crowd.apiserver.1 = before
        .zip(after)
        .map_or(f64::NAN, |(before, after)| (after - before) / QUIET.as_secs_f64());
    crowd.restart = rig.start_again(count, Duration::from_secs(120)).await?;
    eprintln!("restarted as {USER}");
    Ok(())
}
