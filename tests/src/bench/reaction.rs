//! From push to `spec.replicas`: 1,000 tasks at once on an empty queue, ten slots a pod, from zero.
//!
//! Pushed in one pipeline, as a client does it, and once more as a transaction. A poll that falls into the middle of a
//! plain pipeline sees a part of it and rightly asks for a part, so the two are not one figure.

use super::percentile;
use super::rig::{Rig, message};
use crate::{Result, wait_until};
use futures::stream::{BoxStream, StreamExt};
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{Api, PostParams};
use kube::runtime::watcher::{self, Event};
use poolwright_api::v1alpha1::{TaskQueue, WorkerPool};
use std::time::{Duration, Instant};

type Events = BoxStream<'static, watcher::Result<Event<Deployment>>>;

/// How the tasks reach Redis.
#[derive(Clone, Copy, Debug)]
pub enum Push {
    /// One pipeline.
    Pipeline,
    /// The same between MULTI and EXEC: all at one moment.
    Transaction,
}

impl Push {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Pipeline, Self::Transaction];

    /// The first column of the table's rows: p50, p99 and replica writes. A row names the runs, so that the page
    /// says how many its numbers come from.
    #[must_use]
    pub fn labels(self, runs: usize) -> [String; 3] {
        let how = match self {
            Self::Pipeline => "one pipeline",
            Self::Transaction => "one transaction",
        };
        [
            format!("push of 1,000 tasks in {how} to `spec.replicas` = 100, p50 of {runs} runs"),
            format!("{how}: the same, p99 (here: the slowest)"),
            format!("{how}: replica writes a run, most"),
        ]
    }

    fn letter(self) -> char {
        match self {
            Self::Pipeline => 'p',
            Self::Transaction => 't',
        }
    }
}

/// What the runs gave.
pub struct Reaction {
    /// How it was pushed.
    pub push: Push,
    /// Seconds from push to the watch's word that 100 replicas are asked for, by run.
    pub seconds: Vec<f64>,
    /// Replica writes of each run.
    pub writes: Vec<usize>,
}

impl Reaction {
    /// The table's rows.
    pub fn print(&self) {
        let [p50, p99, writes] = self.push.labels(self.seconds.len());
        println!("| {p50} | {:.3} s | – |", percentile(&self.seconds, 0.5));
        println!("| {p99} | {:.3} s | ≤ 0.6 s |", percentile(&self.seconds, 0.99));
        println!(
            "| {writes} | {} | 1 |",
            self.writes.iter().max().copied().unwrap_or(0)
        );
    }
}

/// Runs it `runs` times, each on a queue and a WorkerPool of its own.
pub async fn run(rig: &Rig, push: Push, runs: usize) -> Result<Reaction> {
    let mut reaction = Reaction {
        push,
        seconds: Vec::new(),
        writes: Vec::new(),
    };
    for run in 0..runs {
        let name = format!("{}{run}", push.letter());
        let mut events = prepare(rig, &name).await?;
        let before = scale_writes(rig, &name)?;
        let (seconds, steps) = measure(rig, push, &name, &mut events).await?;
        reaction.seconds.push(seconds);
        tokio::time::sleep(Duration::from_secs(1)).await;
        let writes = scale_writes(rig, &name)? - before;
        if writes > 1 {
            eprintln!("{name}: {writes} writes, replicas were seen as {steps:?}");
        }
        reaction.writes.push(writes);
        clear(rig, &name).await?;
    }
    Ok(reaction)
}

/// A TaskQueue and a WorkerPool at rest, and the watch of its Deployment, up to date.
async fn prepare(rig: &Rig, name: &str) -> Result<Events> {
    let (queue, pool) = rig.manifests(name, 10, 0, 200)?;
    let post = PostParams::default();
    rig.namespace.api::<TaskQueue>().create(&post, &queue).await?;
    rig.namespace.api::<WorkerPool>().create(&post, &pool).await?;
    let deployments: Api<Deployment> = rig.namespace.api();
    let ours = format!("poolwright.dev/worker-pool={name}");
    wait_until("the Deployment to be paused", Duration::from_secs(30), || async {
        let list = deployments
            .list(&kube::api::ListParams::default().labels(&ours))
            .await?;
        Ok(list.items.first().and_then(|one| one.spec.as_ref()?.paused) == Some(true))
    })
    .await?;
    // Not in step with the operator's polls.
    tokio::time::sleep(Duration::from_millis(1000 + fastrand::u64(0..400))).await;
    let mut events = watcher::watcher(deployments, watcher::Config::default().labels(&ours)).boxed();
    while let Some(event) = events.next().await {
        if matches!(event?, Event::InitDone) {
            break;
        }
    }
    Ok(events)
}

/// Pushes; the seconds until 100 replicas are asked for, and every number that was seen on the way.
async fn measure(rig: &Rig, push: Push, name: &str, events: &mut Events) -> Result<(f64, Vec<i32>)> {
    let mut connection = rig.redis.connection(0).await?;
    let mut pipeline = redis::pipe();
    if matches!(push, Push::Transaction) {
        pipeline.atomic();
    }
    for _ in 0..1000 {
        pipeline.lpush(name, message(name)).ignore();
    }
    let pushed = Instant::now();
    pipeline.query_async::<()>(&mut connection).await?;
    let mut steps = Vec::new();
    let reached = async {
        while let Some(event) = events.next().await {
            let Event::Apply(deployment) = event? else {
                continue;
            };
            steps.extend(deployment.spec.and_then(|spec| spec.replicas));
            if steps.last() == Some(&100) {
                return Ok::<f64, crate::Error>(pushed.elapsed().as_secs_f64());
            }
        }
        Err("the watch ended".into())
    };
    let seconds = tokio::time::timeout(Duration::from_secs(30), reached).await??;
    Ok((seconds, steps))
}

async fn clear(rig: &Rig, name: &str) -> Result<()> {
    let pools = rig.namespace.api::<WorkerPool>();
    pools.delete(name, &kube::api::DeleteParams::default()).await?;
    let mut connection = rig.redis.connection(0).await?;
    redis::cmd("DEL")
        .arg(name)
        .query_async::<()>(&mut connection)
        .await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    Ok(())
}

/// Writes that took effect: one that met a newer resourceVersion was refused and changed nothing.
fn scale_writes(rig: &Rig, pool: &str) -> Result<usize> {
    let prefix = format!("{pool}-");
    Ok(rig
        .writes()?
        .iter()
        .filter(|entry| entry.subresource == "scale" && entry.code < 300 && entry.name.starts_with(&prefix))
        .count())
}
