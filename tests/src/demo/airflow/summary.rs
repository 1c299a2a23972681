//! What came of it, by Airflow's API, the watch of Deployments and the nodes' record.

use super::super::summary::peak_of_all;
use super::held::{Held, Most};
use super::{KINDS, TASKS};
use crate::{Result, Stage};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

/// One WorkerPool's results.
struct Row {
    name: &'static str,
    peak: i32,
    /// From the trigger to the first scale-up.
    first: Option<Duration>,
    ended: usize,
}

/// The demo's results.
pub struct Summary {
    rows: Vec<Row>,
    pools: BTreeMap<String, Most>,
    ended_in: BTreeMap<String, usize>,
    completed: usize,
    again: usize,
    killed: usize,
    peak: i32,
    took: Duration,
}

fn succeeded(task: &Value) -> bool {
    task["state"] == "success"
}

impl Summary {
    /// Adds it up; `run` is when the DAG was triggered and how long it took until all was over.
    pub fn new(stage: &Stage, held: &Held, tasks: &[Value], run: (Instant, Duration)) -> Result<Self> {
        let count = |key: &str, value: &str| {
            let own = tasks.iter().filter(|task| task[key] == value);
            own.filter(|task| succeeded(task)).count()
        };
        let pools = held.with_tasks(tasks)?;
        let row = |name: &'static str| {
            let rise = stage.sums(name).into_iter().find(|(_, sum)| *sum > 0);
            Row {
                name,
                peak: stage.peak(name),
                first: rise.map(|(at, _)| at.saturating_duration_since(run.0)),
                // Names of queues have underscores in Airflow.
                ended: count("queue", &name.replace('-', "_")),
            }
        };
        let tries = |task: &&Value| task["try_number"].as_i64().is_some_and(|tries| tries > 1);
        Ok(Self {
            rows: KINDS.map(row).into(),
            ended_in: pools
                .keys()
                .map(|name| (name.clone(), count("pool", name)))
                .collect(),
            pools,
            completed: tasks.iter().filter(|task| succeeded(task)).count(),
            again: tasks.iter().filter(tries).count(),
            killed: stage.records()?.iter().filter(|record| record.killed).count(),
            peak: peak_of_all(stage.history()),
            took: run.1,
        })
    }

    /// Every task succeeded, once, no pool was exceeded and no worker killed.
    pub fn is_clean(&self) -> bool {
        let mut pools = self.pools.values();
        self.completed == TASKS
            && self.again == 0
            && self.killed == 0
            && pools.all(|pool| !pool.is_exceeded())
    }

    /// A row for each WorkerPool, and one for each pool of Airflow.
    pub fn table(&self) -> String {
        let mut text = format!(
            "\n{:20} {:>9} {:>5} {:>15}\n",
            "workers", "completed", "peak", "first scale-up"
        );
        for row in &self.rows {
            let first = row
                .first
                .map_or_else(|| "–".to_owned(), |first| format!("{:.2} s", first.as_secs_f32()));
            let _ = writeln!(
                text,
                "{:20} {:>9} {:>5} {:>15}",
                row.name, row.ended, row.peak, first
            );
        }
        let _ = writeln!(
            text,
            "\n{:20} {:>9} {:>5} {:>15}",
            "pool", "completed", "slots", "most at a time"
        );
        for (name, most) in &self.pools {
            let note = if most.is_exceeded() { "  exceeded" } else { "" };
            let ended = self.ended_in[name];
            let _ = writeln!(
                text,
                "{name:20} {ended:>9} {:>5} {:>15}{note}",
                most.slots, most.taken
            );
        }
        text.push('\n');
        text
    }

    /// The last line, for people and machines.
    pub fn line(&self) -> String {
        let mut line = format!(
            "demo-airflow: published={TASKS} completed={} lost={} killed={} run_again={} peak_replicas={}",
            self.completed,
            TASKS.saturating_sub(self.completed),
            self.killed,
            self.again,
            self.peak
        );
        for (name, most) in &self.pools {
            let _ = write!(line, " {name}={}/{}", most.taken, most.slots);
        }
        let _ = write!(line, " seconds={}", self.took.as_secs());
        line
    }
}
