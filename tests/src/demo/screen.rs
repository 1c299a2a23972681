//! The table that grows while the fleet works: a line whenever a number changed, at most one a second, and each
//! decision in its own words.

use super::POOLS;
use super::decisions::Told;
use super::load::TASKS;
use jiff::Timestamp;
use poolwright_api::v1alpha1::WorkerPool;
use std::time::{Duration, Instant};

/// Least time between two lines of numbers.
const PAUSE: Duration = Duration::from_secs(1);
/// Lines of numbers after which the heading is repeated.
const PAGE: usize = 24;

/// What was shown last.
pub struct Screen {
    began: Timestamp,
    last: Option<(Instant, String)>,
    lines: usize,
}

/// A pool's numbers: ready and wanted workers, busy slots, waiting tasks.
fn cell(pool: Option<&WorkerPool>) -> String {
    let status = pool.and_then(|pool| pool.status.clone()).unwrap_or_default();
    let workers = format!(
        "{}/{}",
        status.ready_replicas.unwrap_or(0),
        status.desired_replicas.unwrap_or(0)
    );
    format!(
        "{workers:>7} {:>4} {:>4}",
        status.busy_slots.unwrap_or(0),
        status.queued.unwrap_or(0)
    )
}

fn find<'a>(pools: &'a [WorkerPool], name: &str) -> Option<&'a WorkerPool> {
    pools
        .iter()
        .find(|pool| pool.metadata.name.as_deref() == Some(name))
}

impl Screen {
    /// Time is counted from `began`.
    pub fn new(began: Timestamp) -> Self {
        Self {
            began,
            last: None,
            lines: 0,
        }
    }

    /// Shows what is new: `decisions`, then numbers.
    pub fn show(&mut self, pools: &[WorkerPool], decisions: &[Told], done: usize) {
        for told in decisions {
            self.decision(told);
        }
        let cells: Vec<String> = POOLS.map(|name| cell(find(pools, name))).into();
        let numbers = format!("{done:>4}  {}", cells.join("   "));
        let now = Instant::now();
        if self
            .last
            .as_ref()
            .is_some_and(|(at, shown)| *shown == numbers || now - *at < PAUSE)
        {
            return;
        }
        if self.lines.is_multiple_of(PAGE) {
            heading();
        }
        println!("{:>5.1}  {numbers}", self.seconds(Timestamp::now()));
        self.lines += 1;
        self.last = Some((now, numbers));
    }

    fn seconds(&self, at: Timestamp) -> f32 {
        at.duration_since(self.began).as_secs_f32()
    }

    fn decision(&self, told: &Told) {
        let decision = &told.decision;
        let change = if decision.from == decision.to {
            format!("stays at {}", decision.to)
        } else {
            format!("{} → {}", decision.from, decision.to)
        };
        println!(
            "{:>5.1}  {} {change}, {}: {}",
            self.seconds(told.at),
            told.pool,
            decision.reason,
            decision.text
        );
    }
}

fn heading() {
    let names: Vec<String> = POOLS.map(|name| format!("{name:^17}")).into();
    println!(
        "{}",
        format!("{:5}  {:>4}  {}", "", "done", names.join("   ")).trim_end()
    );
    let columns: Vec<String> = POOLS
        .map(|_| format!("{:>7} {:>4} {:>4}", "workers", "busy", "wait"))
        .into();
    println!("{:>5}  {:>4}  {}", "s", format!("/{TASKS}"), columns.join("   "));
}
