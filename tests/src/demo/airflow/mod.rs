//! The demo of a real Airflow: its workers from zero, through a DAG of 200 tasks over six pools and three queues, back to
//! zero.
//!
//! What is applied is `deploy/examples/airflow`, made smaller. It is a test as well: it fails when a task fails or runs
//! again, when Airflow itself says that a pool held more than its slots, when a worker is killed, or when workers stay.

mod ground;
mod held;
mod summary;

use super::decisions::Decisions;
use super::place::{say, say_how_to_look};
use super::screen::Screen;
use super::{Options, await_ready, is_at_rest, note_unready};
use crate::airflow::ADMIN;
use crate::{Airflow, Result, leaks, process};
use ground::Ground;
use held::Held;
use jiff::Timestamp;
use kube::Api;
use kube::api::ListParams;
use poolwright_api::ConditionType;
use poolwright_api::v1alpha1::{Pool, WorkerPool};
use reqwest::Method;
use serde_json::json;
use std::time::{Duration, Instant};
use summary::Summary;

/// The WorkerPools of the example, in the order in which they are shown.
const KINDS: [&str; 3] = ["default", "high-memory", "gpu"];
/// The Pools of the example that stand for Airflow's, in that order, and their names there.
const POOLS: [&str; 6] = [
    "tier1-critical",
    "tier2-standard",
    "tier3-batch",
    "database-connections",
    "api-calls",
    "default-pool",
];
/// How many tasks the DAG `tiers` has.
const TASKS: usize = 200;
/// The first numbers of what was applied, on a machine that Airflow keeps busy.
const READY_LIMIT: Duration = Duration::from_secs(120);
/// From the start of the run; one that takes longer has failed.
const LIMIT: Duration = Duration::from_secs(480);
const LOOK: Duration = Duration::from_secs(1);

/// Runs the demo; true if every task succeeded, once, no pool was exceeded and no worker killed.
pub async fn run(options: &Options) -> Result<bool> {
    if options.current {
        return Err(
            "Airflow is shown on the local control plane only: run it without CLUSTER=current".into(),
        );
    }
    let began = Instant::now();
    let ground = Ground::set(began).await?;
    let played = tokio::select! {
        played = play(&ground, options, began) => played,
        stopped = process::until_told_to_stop(false) => stopped.and(Err("it was told to stop".into())),
    };
    if options.keep && played.is_ok() {
        process::until_told_to_stop(false).await?;
    }
    leaks::look_through(ground.stage.plane).await?;
    played
}

async fn play(ground: &Ground, options: &Options, began: Instant) -> Result<bool> {
    let (stage, airflow) = (&ground.stage, &ground.airflow);
    let (workers, budgets): (Api<WorkerPool>, Api<Pool>) = (stage.namespace.api(), stage.namespace.api());
    let decisions = Decisions::follow(workers.clone());
    ground.apply_example().await?;
    await_linked(&budgets).await?;
    await_ready(&stage.namespace.api(), &workers, READY_LIMIT).await?;
    say(
        began,
        "deploy/examples/airflow is applied: Airflow's pools are as the Pools say, every WorkerPool is Ready at 0 workers",
    );
    let run = airflow.trigger("tiers", &json!({})).await?;
    let (since, since_time) = (Instant::now(), Timestamp::now());
    say(
        began,
        "the DAG tiers is triggered: 200 tasks over six pools and three queues\n",
    );

    let mut screen = Screen::new(since_time, &KINDS, TASKS).with_budgets(&POOLS);
    let (mut held, everything) = (Held::default(), ListParams::default());
    loop {
        held.look(airflow).await?;
        let done = ended(airflow, &run).await?;
        let pools = workers.list(&everything).await?.items;
        screen.show(&pools, &decisions.take(since_time)?, done);
        screen.show_budgets(&budgets.list(&everything).await?.items);
        let over = done >= TASKS
            && is_over(airflow, &run).await?
            && is_at_rest(&stage.namespace.api(), &pools).await?;
        if over || since.elapsed() > LIMIT {
            let took = since.elapsed();
            let summary = Summary::new(stage, &held, &airflow.tasks(&run).await?, (since, took))?;
            print!("{}", summary.table());
            if !over {
                println!(
                    "It took longer than {} s, so it was stopped.{}",
                    LIMIT.as_secs(),
                    why(pools)
                );
            }
            if options.keep {
                say_where_it_is(ground);
            }
            println!("{}", summary.line());
            return Ok(over && summary.is_clean());
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// What keeps WorkerPools from being Ready.
fn why(pools: Vec<WorkerPool>) -> String {
    let mut said = String::new();
    for pool in pools {
        let conditions = pool.status.unwrap_or_default().conditions;
        note_unready(
            &mut said,
            "wp",
            pool.metadata.name,
            &conditions,
            ConditionType::Ready,
        );
    }
    said
}

/// How many tasks have ended, well or not.
async fn ended(airflow: &Airflow, run: &str) -> Result<usize> {
    let states = "state=success&state=failed&state=upstream_failed&state=skipped&state=removed";
    let path = format!("{run}/taskInstances?{states}&limit=1");
    let count = airflow.ask(Method::GET, &path, None).await?["total_entries"].as_u64();
    Ok(usize::try_from(
        count.ok_or("Airflow does not say how many tasks there are")?,
    )?)
}

async fn is_over(airflow: &Airflow, run: &str) -> Result<bool> {
    let run = airflow.ask(Method::GET, run, None).await?;
    Ok(matches!(run["state"].as_str(), Some("success" | "failed")))
}

/// Waits until Airflow has every pool as its Pool says.
async fn await_linked(pools: &Api<Pool>) -> Result<()> {
    let (since, mut waits) = (Instant::now(), String::new());
    while since.elapsed() < READY_LIMIT {
        waits.clear();
        for pool in pools.list(&ListParams::default()).await? {
            if pool.spec.airflow.is_some() {
                let conditions = pool.status.unwrap_or_default().conditions;
                note_unready(
                    &mut waits,
                    "pool",
                    pool.metadata.name,
                    &conditions,
                    ConditionType::AirflowInSync,
                );
            }
        }
        if waits.is_empty() {
            return Ok(());
        }
        tokio::time::sleep(LOOK).await;
    }
    Err(format!("Airflow's pools are not as the Pools say:{waits}").into())
}

fn say_where_it_is(ground: &Ground) {
    let stage = &ground.stage;
    let namespace = &stage.namespace.name;
    say_how_to_look(
        &stage.plane.kubeconfig(),
        true,
        &stage.operator,
        namespace,
        "default",
    );
    println!("  kubectl get pools");
    println!(
        "\nAirflow is at {}: user {}, password {}. What its DAG `tiers` does is started there once more.\n",
        ground.airflow.api, ADMIN.0, ADMIN.1
    );
}
