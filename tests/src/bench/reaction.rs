//! From push to `spec.replicas`: 1,000 tasks in one pipeline, which is a transaction, on an empty queue, ten slots a pod, from zero.

use super::percentile;
use super::rig::{Rig, message};
use crate::{Result, wait_until};
use futures::StreamExt;
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{Api, PostParams};
use kube::runtime::watcher::{self, Event};
use poolwright_api::v1alpha1::{TaskQueue, WorkerPool};
use std::time::{Duration, Instant};

/// What the runs gave.
pub struct Reaction {
    /// Seconds from push to the watch's word that 100 replicas are asked for, by run.
    pub seconds: Vec<f64>,
    /// Replica writes of each run.
    pub writes: Vec<usize>,
}

impl Reaction {
    /// The table's rows.
    pub fn print(&self) {
        let (p50, p99) = (percentile(&self.seconds, 0.5), percentile(&self.seconds, 0.99));
        println!(
            "| push of 1,000 tasks to `spec.replicas` = 100, p50 of {} runs | {p50:.3} s | – |",
            self.seconds.len()
        );
        println!("| the same, p99 (here: the slowest) | {p99:.3} s | ≤ 0.6 s |");
        println!(
            "| replica writes a run, most | {} | 1 |",
            self.writes.iter().max().copied().unwrap_or(0)
        );
    }
}

/// Runs it `runs` times, each on a queue and a WorkerPool of its own.
pub async fn run(rig: &Rig, runs: usize) -> Result<Reaction> {
    let mut reaction = Reaction {
        seconds: Vec::new(),
        writes: Vec::new(),
    };
    for run in 0..runs {
        let name = format!("r{run}");
        let (queue, pool) = rig.manifests(&name, 10, 0, 200)?;
        rig.namespace
            .api::<TaskQueue>()
            .create(&PostParams::default(), &queue)
            .await?;
        rig.namespace
            .api::<WorkerPool>()
            .create(&PostParams::default(), &pool)
            .await?;
        let deployments: Api<Deployment> = rig.namespace.api();
        let ours = watcher::Config::default().labels(&format!("poolwright.dev/worker-pool={name}"));
        wait_until("the Deployment to be paused", Duration::from_secs(30), || async {
            let list = deployments
                .list(&kube::api::ListParams::default().labels(&format!("poolwright.dev/worker-pool={name}")))
                .await?;
            Ok(list.items.first().and_then(|one| one.spec.as_ref()?.paused) == Some(true))
        })
        .await?;
        // Not in step with the operator's polls.
        tokio::time::sleep(Duration::from_millis(1000 + fastrand::u64(0..400))).await;
        let mut events = watcher::watcher(deployments, ours).boxed();
        while let Some(event) = events.next().await {
            if matches!(event?, Event::InitDone) {
                break;
            }
        }
        let before = scale_writes(rig, &name)?;
        let mut connection = rig.redis.connection(0).await?;
        let mut pipeline = redis::pipe();
        // A poll that falls into the middle of a plain pipeline sees a part of it, and rightly asks for a part.
        pipeline.atomic();
        for _ in 0..1000 {
            pipeline.lpush(&name, message(&name)).ignore();
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
        reaction
            .seconds
            .push(tokio::time::timeout(Duration::from_secs(30), reached).await??);
        tokio::time::sleep(Duration::from_secs(1)).await;
        let writes = scale_writes(rig, &name)? - before;
        if writes > 1 {
            eprintln!("run {run}: {writes} writes, replicas were seen as {steps:?}");
        }
        reaction.writes.push(writes);
        rig.namespace
            .api::<WorkerPool>()
            .delete(&name, &kube::api::DeleteParams::default())
            .await?;
        redis::cmd("DEL")
            .arg(&name)
            .query_async::<()>(&mut connection)
            .await?;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    Ok(reaction)
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
