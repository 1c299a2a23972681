//! The demo: the fleet of `deploy/examples/fleet.yaml` from zero, through 200 tasks, back to zero.
//!
//! It is what a person sees first, and it is a test as well: it fails when a task is lost or killed. What it
//! starts and applies is what a user would; its numbers come from what tasks, watches and the node say, not from
//! the operator.

pub mod airflow;
pub mod decisions;
pub mod load;
pub mod place;
pub mod screen;
pub mod summary;

use crate::{History, Result, process};
use decisions::Decisions;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;
use load::{Load, Trace};
use place::Place;
use poolwright_api::v1alpha1::{TaskQueue, WorkerPool};
use poolwright_api::{ConditionType, LABEL_WORKER_POOL, conditions};
use screen::Screen;
use std::fmt::Write as _;
use std::time::{Duration, Instant};
use summary::Summary;

/// The WorkerPools of the fleet, in the order in which they are shown.
pub const POOLS: [&str; 4] = ["cpu", "io", "memory", "general"];
/// From the start of the program; a demo that takes longer has failed.
const LIMIT: Duration = Duration::from_secs(170);
/// The fleet's first numbers after it was applied.
const READY_LIMIT: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(250);

/// How the demo is to run.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// In the cluster of the kubeconfig rather than in one of its own.
    pub current: bool,
    /// Leaves everything running at the end, until it is told to stop.
    pub keep: bool,
    /// The broker; needed with `current`.
    pub broker: Option<String>,
    /// The workers' image; needed with `current`.
    pub image: Option<String>,
}

/// Runs the demo; true if nothing was lost or killed.
pub async fn run(options: &Options) -> Result<bool> {
    let began = Instant::now();
    let place = Place::set(options).await?;
    let played = tokio::select! {
        played = play(&place, options, began) => played,
        stopped = process::until_told_to_stop(false) => stopped.and(Err("it was told to stop".into())),
    };
    if !options.keep {
        place.leave().await?;
    } else if played.is_ok() {
        process::until_told_to_stop(false).await?;
    }
    played
}

async fn play(place: &Place, options: &Options, began: Instant) -> Result<bool> {
    let (history, decisions) = (
        History::follow(place.api(), place.api()),
        Decisions::follow(place.api()),
    );
    place.apply_fleet().await?;
    await_ready(&place.api(), &place.api(), READY_LIMIT).await?;
    println!(
        "{:5.1} s  the fleet of deploy/examples/fleet.yaml is applied: every WorkerPool is Ready at 0 workers\n",
        began.elapsed().as_secs_f32()
    );

    let mut load = Load::begin(&place.celery, &place.broker).await?;
    let mut trace = Trace::open(&place.broker).await?;
    let began_at = Timestamp::now() - SignedDuration::try_from(load.began.elapsed())?;
    let mut screen = Screen::new(began_at, &POOLS, load::TASKS);
    loop {
        trace.read().await?;
        let pools = place
            .api::<WorkerPool>()
            .list(&ListParams::default())
            .await?
            .items;
        screen.show(&pools, &decisions.take(began_at)?, trace.ended());
        let over =
            load.is_published() && trace.ended() >= load::TASKS && is_at_rest(&place.api(), &pools).await?;
        if over || began.elapsed() > LIMIT {
            load.check().await?;
            let killed_workers = place.killed_workers()?;
            let summary = Summary::new(&load, &trace, &history, &pools, killed_workers);
            print!("{}", summary.table());
            if !over {
                println!("It took longer than {} s, so it was stopped.", LIMIT.as_secs());
            }
            if options.keep {
                place.say_how_to_look();
            }
            println!("{}", summary.line());
            return Ok(over && summary.is_clean());
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Every pool wants nothing, and no pod is left.
async fn is_at_rest(pods: &Api<Pod>, pools: &[WorkerPool]) -> Result<bool> {
    let wants = |pool: &WorkerPool| pool.status.as_ref().and_then(|status| status.desired_replicas);
    if pools.iter().any(|pool| wants(pool) != Some(0)) {
        return Ok(false);
    }
    let workers = ListParams::default().labels(LABEL_WORKER_POOL);
    Ok(pods.list(&workers).await?.items.is_empty())
}

/// Waits until every queue has been read and every pool decided on.
async fn await_ready(queues: &Api<TaskQueue>, pools: &Api<WorkerPool>, limit: Duration) -> Result<()> {
    let mut waits = String::new();
    let since = Instant::now();
    while since.elapsed() < limit {
        waits.clear();
        let everything = ListParams::default();
        for queue in queues.list(&everything).await? {
            let conditions = queue.status.unwrap_or_default().conditions;
            note_unready(
                &mut waits,
                "tq",
                queue.metadata.name,
                &conditions,
                ConditionType::Ready,
            );
        }
        for pool in pools.list(&everything).await? {
            let conditions = pool.status.unwrap_or_default().conditions;
            note_unready(
                &mut waits,
                "wp",
                pool.metadata.name,
                &conditions,
                ConditionType::Ready,
            );
        }
        if waits.is_empty() {
            return Ok(());
        }
        tokio::time::sleep(LOOK).await;
    }
    let namespace = queues.namespace().unwrap_or_default();
    Err(format!("what was applied in namespace {namespace} has not become Ready:{waits}").into())
}

fn note_unready(
    waits: &mut String,
    kind: &str,
    name: Option<String>,
    all: &[k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition],
    wanted: ConditionType,
) {
    let ready = conditions::find(all, wanted);
    if ready.is_some_and(|ready| ready.status == "True") {
        return;
    }
    let why = ready.map_or("nothing is known yet", |ready| ready.message.as_str());
    let _ = write!(waits, "\n  {kind}/{}: {why}", name.unwrap_or_default());
}
