//! Very many WorkerPools without a worker: how soon a new operator has decided for all of them, and how old what it decides
//! by is then.
//!
//! Without workers, since ten thousand heartbeats every two seconds and as many pods would be work of the benchmark and of the
//! API server on the same processors. What workers cost is measured with a thousand, in `crowd`.

use super::crowd::create;
use super::percentile;
use super::rig::{Rig, processor_seconds, series};
use crate::{Result, wait_until};
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{Api, ListParams};
use std::time::{Duration, Instant};

/// Until the first operator has made every Deployment and said so.
const MADE_WITHIN: Duration = Duration::from_secs(1800);
/// Until a new one has decided for all.
const DECIDED_WITHIN: Duration = Duration::from_secs(600);
/// Until what was written has come back by the watches.
const SETTLE: Duration = Duration::from_secs(60);
/// How often ages are looked at, a second apart.
const LOOKS: usize = 30;

/// What so many objects gave.
#[derive(Debug)]
pub struct Many {
    /// WorkerPools, with a TaskQueue each.
    objects: usize,
    /// Seconds until every Deployment was made, from the first object on.
    made: f64,
    /// Seconds and processor seconds from the start of a new process until it has decided for every WorkerPool.
    start: (f64, f64),
    /// Resident memory after that, in MB.
    resident: f64,
    /// Ages of the newest reading of each queue, at each look.
    ages: Vec<f64>,
    /// Connections to Redis, but for the benchmark's own.
    connections: usize,
}

impl Many {
    /// The table's rows.
    pub fn print(&self) {
        let objects = self.objects;
        println!(
            "| {objects} WorkerPools without a worker: first Deployment of each | {:.0} s | – |",
            self.made
        );
        let (start, cores) = self.start;
        println!("| the same: start of a new operator until every one is decided | {start:.1} s | ≤ 60 s |");
        println!("| the same: processor seconds of it | {cores:.1} s | – |");
        println!("| the same: operator RSS | {:.0} MB | – |", self.resident);
        let (middle, late) = (percentile(&self.ages, 0.5), percentile(&self.ages, 0.99));
        println!(
            "| the same: age of what is decided by, p50 of {} | {middle:.2} s | – |",
            self.ages.len()
        );
        println!("| the same: p99 | {late:.2} s | < 2 polls |");
        println!("| the same: slowest | {:.2} s | – |", percentile(&self.ages, 1.0));
        println!("| the same: Redis connections | {} | – |", self.connections);
    }
}

/// Measures a fleet of so many WorkerPools, each on a queue of its own.
pub async fn run(rig: &mut Rig, objects: usize) -> Result<Many> {
    let names: Vec<String> = (0..objects).map(|index| format!("m-{index}")).collect();
    let began = Instant::now();
    create(rig, &names, 0).await?;
    let deployments: Api<Deployment> = rig.namespace.api();
    wait_until("a Deployment for each", MADE_WITHIN, || async {
        let all = deployments.list_metadata(&ListParams::default()).await?;
        Ok(all.items.len() >= objects)
    })
    .await?;
    let made = began.elapsed().as_secs_f64();
    tokio::time::sleep(SETTLE).await;
    let operator = rig.operator.as_mut().ok_or("the operator was never started")?;
    operator.kill();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let seconds = rig.start_again(objects, DECIDED_WITHIN).await?;
    let operator = rig.operator.as_ref().ok_or("the operator was never started")?;
    let processor = operator.pid().and_then(processor_seconds).unwrap_or(f64::NAN);
    tokio::time::sleep(SETTLE).await;
    let mut ages = Vec::with_capacity(objects * LOOKS);
    for _ in 0..LOOKS {
        let text = operator.metrics().await?;
        ages.extend(series(&text, "poolwright_task_queue_sample_age_seconds"));
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    Ok(Many {
        objects,
        made,
        start: (seconds, processor),
        resident: rig.resident(),
        ages,
        connections: rig.connections(0).await?,
    })
}
