//! What came of it.

use super::POOLS;
use super::load::{self, Load, Trace};
use crate::{History, Step};
use poolwright_api::v1alpha1::WorkerPool;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

/// One pool's results.
struct Row {
    pool: &'static str,
    published: usize,
    completed: usize,
    killed: usize,
    peak: i32,
    /// From the first publication to the first and the last scale-up.
    scale_ups: Option<(Duration, Duration)>,
    decision: String,
}

/// The demo's results.
pub struct Summary {
    rows: Vec<Row>,
    killed_workers: usize,
    peak: i32,
}

impl Summary {
    /// Adds up what tasks, the watch and the node have said.
    pub fn new(
        load: &Load,
        trace: &Trace,
        history: &History,
        pools: &[WorkerPool],
        killed_workers: usize,
    ) -> Self {
        let planned = load::planned();
        let row = |pool: &'static str| {
            let ups = history.scale_ups(pool);
            let after = |at: &Instant| at.saturating_duration_since(load.began);
            let found = pools.iter().find(|wp| wp.metadata.name.as_deref() == Some(pool));
            let decision = found.and_then(|wp| wp.status.as_ref()?.last_decision.clone());
            Row {
                pool,
                published: planned.get(pool).copied().unwrap_or(0),
                completed: trace.completed(pool),
                killed: trace.cut_short(pool),
                peak: history.peak(pool),
                scale_ups: ups
                    .first()
                    .zip(ups.last())
                    .map(|(first, last)| (after(first), after(last))),
                decision: decision.map(|decision| decision.text).unwrap_or_default(),
            }
        };
        Self {
            rows: POOLS.map(row).into(),
            killed_workers,
            peak: peak_of_all(history.steps()),
        }
    }

    /// Nothing was lost and nothing killed.
    pub fn is_clean(&self) -> bool {
        self.lost() == 0 && self.killed() == 0
    }

    fn lost(&self) -> usize {
        self.rows
            .iter()
            .map(|row| row.published.saturating_sub(row.completed))
            .sum()
    }

    /// A worker may be killed with no task in it, and a task may be killed without its worker.
    fn killed(&self) -> usize {
        self.rows
            .iter()
            .map(|row| row.killed)
            .sum::<usize>()
            .max(self.killed_workers)
    }

    /// A row for each pool.
    pub fn table(&self) -> String {
        let mut text = format!(
            "\n{:8} {:>9} {:>9} {:>5} {:>6} {:>5}  {:>14} {:>14}\n",
            "pool", "published", "completed", "lost", "killed", "peak", "first scale-up", "last scale-up"
        );
        for row in &self.rows {
            let seconds = |of: fn(&(Duration, Duration)) -> Duration| {
                row.scale_ups.as_ref().map_or_else(
                    || "–".to_owned(),
                    |both| format!("{:.2} s", of(both).as_secs_f32()),
                )
            };
            let _ = writeln!(
                text,
                "{:8} {:>9} {:>9} {:>5} {:>6} {:>5}  {:>14} {:>14}",
                row.pool,
                row.published,
                row.completed,
                row.published.saturating_sub(row.completed),
                row.killed,
                row.peak,
                seconds(|both| both.0),
                seconds(|both| both.1),
            );
        }
        text.push_str("\nlast decisions\n");
        for row in &self.rows {
            let _ = writeln!(text, "{:8} {}", row.pool, row.decision);
        }
        text.push('\n');
        text
    }

    /// The last line, for people and machines.
    pub fn line(&self) -> String {
        let sum = |of: fn(&Row) -> usize| self.rows.iter().map(of).sum::<usize>();
        let first = self.rows.iter().filter_map(|row| Some(row.scale_ups?.0)).min();
        format!(
            "demo: published={} completed={} lost={} killed={} peak_replicas={} first_scale_up_seconds={}",
            sum(|row| row.published),
            sum(|row| row.completed),
            self.lost(),
            self.killed(),
            self.peak,
            first.map_or_else(
                || "none".to_owned(),
                |first| format!("{:.2}", first.as_secs_f32())
            ),
        )
    }
}

/// Largest number of replicas of all WorkerPools at one moment.
pub(super) fn peak_of_all(steps: Vec<Step>) -> i32 {
    let (mut now, mut peak) = (BTreeMap::new(), 0);
    for step in steps {
        now.insert(step.deployment, step.replicas.unwrap_or(0));
        peak = peak.max(now.values().sum());
    }
    peak
}
