//! The table that grows while the fleet works: a line whenever a number changed, at most one a second, and each
//! decision in its own words.

use super::decisions::Told;
use jiff::Timestamp;
use poolwright_api::v1alpha1::{Pool, WorkerPool};
use std::time::{Duration, Instant};

/// Least time between two lines of numbers.
const PAUSE: Duration = Duration::from_secs(1);
/// Lines of numbers after which the heading is repeated.
const PAGE: usize = 24;

/// What is shown, and what was shown last.
pub struct Screen {
    began: Timestamp,
    names: &'static [&'static str],
    tasks: usize,
    budgets: &'static [&'static str],
    last: Option<(Instant, String)>,
    last_budgets: String,
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

/// What a Pool's pool in Airflow holds: slots of tasks that run, are queued and are scheduled, and slots that are open.
fn budget_cell(pool: Option<&Pool>) -> String {
    let held = pool
        .and_then(|pool| pool.status.clone()?.airflow)
        .unwrap_or_default();
    format!(
        "{:>3} {:>3} {:>3} {:>3}",
        held.running,
        held.queued,
        held.scheduled,
        held.open.map_or_else(|| "–".to_owned(), |open| open.to_string())
    )
}

impl Screen {
    /// Time is counted from `began`; WorkerPools are shown in the order of their names here, beside so many tasks.
    pub fn new(began: Timestamp, names: &'static [&'static str], tasks: usize) -> Self {
        Self {
            began,
            names,
            tasks,
            budgets: &[],
            last: None,
            last_budgets: String::new(),
            lines: 0,
        }
    }

    /// Shows what these Pools say of Airflow, too, in lines of their own.
    #[must_use]
    pub fn with_budgets(mut self, names: &'static [&'static str]) -> Self {
        self.budgets = names;
        self
    }

    /// Shows what Airflow's pools hold where that has changed.
    pub fn show_budgets(&mut self, pools: &[Pool]) {
        let find = |name: &&str| {
            pools
                .iter()
                .find(|pool| pool.metadata.name.as_deref() == Some(*name))
        };
        let cells: Vec<String> = self.budgets.iter().map(|name| budget_cell(find(name))).collect();
        let cells = cells.join("   ");
        if self.last_budgets != cells {
            println!("{:>5.1}  pool  {cells}", self.seconds(Timestamp::now()));
            self.lines += 1;
            self.last_budgets = cells;
        }
    }

    /// Shows what is new: `decisions`, then numbers.
    pub fn show(&mut self, pools: &[WorkerPool], decisions: &[Told], done: usize) {
        for told in decisions {
            self.decision(told);
        }
        let cells: Vec<String> = self.names.iter().map(|name| cell(find(pools, name))).collect();
        let numbers = format!("{done:>4}  {}", cells.join("   "));
        let now = Instant::now();
        if self
            .last
            .as_ref()
            .is_some_and(|(at, shown)| *shown == numbers || now - *at < PAUSE)
        {
            return;
        }
        if self.lines >= PAGE || self.last.is_none() {
            self.heading();
            self.lines = 0;
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

    fn heading(&self) {
        let row = |first: &str, second: &str, cells: Vec<String>| {
            let row = format!("{first:>5}  {second:>4}  {}", cells.join("   "));
            println!("{}", row.trim_end());
        };
        let cells = |of: fn(&str) -> String| self.names.iter().map(|name| of(name)).collect();
        row("", "done", cells(|name| format!("{name:^17}")));
        let workers = |_: &str| format!("{:>7} {:>4} {:>4}", "workers", "busy", "wait");
        row("s", &format!("/{}", self.tasks), cells(workers));
        if !self.budgets.is_empty() {
            let cells = |of: fn(&str) -> String| self.budgets.iter().map(|name| of(name)).collect();
            row("", "", cells(|name| format!("{:^15}", shortened(name, 15))));
            row("", "", cells(|_| "run que sch opn".to_owned()));
        }
    }
}

/// At most so many characters of a name.
fn shortened(name: &str, most: usize) -> String {
    if name.chars().count() <= most {
        return name.to_owned();
    }
    let kept: String = name.chars().take(most - 1).collect();
    format!("{kept}…")
}
