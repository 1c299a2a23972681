//! Every metric, in one table from which both what is served and the reference page are made.
//!
//! May only hold numbers that others hand in. Series are labelled by namespace and name of the object and are removed
//! with it, so their number is bounded by the number of objects. A number that is not known has no series: a missing
//! one must never read as zero. What is held is the numbers: labels and texts are made when somebody reads them, a
//! metric at a time, for a fleet has twenty series for each of its objects.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use poolwright_api::Reason;
use prometheus::TextEncoder;

mod rows;
mod table;

use rows::{Rows, Series};
use table::Source;
pub use table::{Kind, Metric, TABLE};

/// What is shown of a WorkerPool.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct WorkerPoolNumbers {
    /// Workers that the last decision asks for; none is made while the spec is invalid.
    pub desired: Option<u64>,
    /// The last decision asks for no more than the maximum because it is the maximum.
    pub at_maximum: Option<bool>,
    /// What keeps the last decision from following the demand is no wish of anybody's.
    pub held: Option<bool>,
    /// Worker pods that are ready.
    pub ready: u64,
    /// Worker pods that are parked.
    pub parked: u64,
    /// Worker pods that are being deleted.
    pub draining: u64,
    /// Tasks that the workers can execute at a time, if the spec says so.
    pub slots: Option<u64>,
    /// Slots that execute a task, if that is known.
    pub busy: Option<u64>,
    /// Longest start-up time of the pods that take new work, if one is known.
    pub start_up_seconds: Option<f64>,
}

/// What is shown of a TaskQueue; a number that is not known is not shown.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TaskQueueNumbers {
    /// Messages that wait in the broker.
    pub ready: Option<u64>,
    /// Messages that a worker has fetched and not started.
    pub reserved: Option<u64>,
    /// Age of the newest good reading.
    pub sample_age_seconds: Option<f64>,
    /// Tasks that come in a minute.
    pub arrivals_per_minute: Option<f64>,
    /// How long a task that is pushed now would wait.
    pub estimated_wait_seconds: Option<f64>,
    /// Tasks have waited longer than the target for long enough to count.
    pub wait_target_missed: Option<bool>,
    /// How often that has begun.
    pub wait_target_misses: Option<u64>,
}

/// What is shown of a Pool; a number that is not known is not shown.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PoolNumbers {
    /// Slots that are granted from; -1 is no limit.
    pub slots: Option<i64>,
    /// Slots of tasks that execute.
    pub running: Option<u64>,
    /// Slots of tasks that wait.
    pub queued: Option<u64>,
    /// Slots that WorkerPools ask for and do not get.
    pub missing: Option<u64>,
    /// Pods take more than `spec.slots`; a load that halves it counts for nothing here.
    pub over: Option<bool>,
    /// Airflow's pool and the Pool say the same; `None` where it stands for none.
    pub in_sync: Option<bool>,
    /// What Airflow says of the pool that it stands for.
    pub airflow: Option<AirflowNumbers>,
}

/// What is shown of a pool of Airflow.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct AirflowNumbers {
    /// Slots of tasks that run.
    pub running: i64,
    /// Slots of tasks that an executor has.
    pub queued: i64,
    /// Slots of tasks that wait for the scheduler.
    pub scheduled: i64,
    /// Slots of tasks that are deferred.
    pub deferred: i64,
    /// Slots that are not taken.
    pub open: Option<i64>,
    /// Sensors that hold a slot while they wait.
    pub poking_sensors: Option<i64>,
}

/// All metrics of the process. Clones share their numbers.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    objects: Arc<Mutex<Objects>>,
    process: Arc<Process>,
}

/// The numbers of all objects.
#[derive(Debug, Default)]
struct Objects {
    worker_pools: Rows<WorkerPoolRow>,
    task_queues: Rows<TaskQueueNumbers>,
    pools: Rows<PoolRow>,
}

#[derive(Debug, Default)]
struct PoolRow {
    numbers: PoolNumbers,
    /// Of these there is a series from the first call.
    drifts: Option<u64>,
}

#[derive(Debug, Default)]
struct WorkerPoolRow {
    /// None before the first time.
    numbers: Option<WorkerPoolNumbers>,
    decisions: Vec<(Reason, u64)>,
    /// Of these there is a series from the first call.
    misplaced: Option<u64>,
    /// None before its status was made.
    stalled: Option<bool>,
}

/// What concerns no object.
#[derive(Debug, Default)]
struct Process {
    /// By outcome, in the order of [`OUTCOMES`].
    requests: [AtomicU64; 2],
    connections: AtomicU64,
    leads: AtomicBool,
}

/// How a request to a broker ends.
const OUTCOMES: [&str; 2] = ["success", "failure"];

impl Metrics {
    fn objects(&self) -> MutexGuard<'_, Objects> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows the numbers of a WorkerPool.
    pub fn worker_pool(&self, namespace: &str, name: &str, numbers: WorkerPoolNumbers) {
        self.objects().worker_pools.of(namespace, name).numbers = Some(numbers);
    }

    /// Counts a decision of a WorkerPool. A reason that is none of [`Reason`] is not counted, so that the series stay
    /// bounded.
    pub fn decision(&self, namespace: &str, name: &str, reason: &str) {
        let Ok(reason) = reason.parse::<Reason>() else {
            return;
        };
        let mut objects = self.objects();
        let decisions = &mut objects.worker_pools.of(namespace, name).decisions;
        match decisions.iter_mut().find(|(one, _)| *one == reason) {
            Some((_, count)) => *count += 1,
            None => decisions.push((reason, 1)),
        }
    }

    /// Counts pods of a WorkerPool that were ended in the place of others. The series is there from the first call, at 0.
    pub fn misplaced(&self, namespace: &str, name: &str, pods: u64) {
        let mut objects = self.objects();
        let misplaced = &mut objects.worker_pools.of(namespace, name).misplaced;
        *misplaced.get_or_insert_default() += pods;
    }

    /// Shows whether a WorkerPool is stalled.
    pub fn stalled(&self, namespace: &str, name: &str, stalled: bool) {
        self.objects().worker_pools.of(namespace, name).stalled = Some(stalled);
    }

    /// Shows the numbers of a TaskQueue; those that are `None` are removed.
    pub fn task_queue(&self, namespace: &str, name: &str, numbers: TaskQueueNumbers) {
        *self.objects().task_queues.of(namespace, name) = numbers;
    }

    /// Shows the numbers of a Pool; those that are `None` are removed.
    pub fn pool(&self, namespace: &str, name: &str, numbers: PoolNumbers) {
        self.objects().pools.of(namespace, name).numbers = numbers;
    }

    /// Counts how often somebody had changed the pool of Airflow that a Pool stands for. The series is there from the first
    /// call, at 0.
    pub fn drifts(&self, namespace: &str, name: &str, drifts: u64) {
        let mut objects = self.objects();
        *objects.pools.of(namespace, name).drifts.get_or_insert_default() += drifts;
    }

    /// Removes every series of a Pool.
    pub fn forget_pool(&self, namespace: &str, name: &str) {
        self.objects().pools.forget(namespace, name);
    }

    /// Removes every series of a WorkerPool.
    pub fn forget_worker_pool(&self, namespace: &str, name: &str) {
        self.objects().worker_pools.forget(namespace, name);
    }

    /// Removes every series of a TaskQueue.
    pub fn forget_task_queue(&self, namespace: &str, name: &str) {
        self.objects().task_queues.forget(namespace, name);
    }

    /// Counts one request to a broker (a connect, a poll, or a question to workers) as a `success` or a `failure`.
    pub fn broker_request(&self, succeeded: bool) {
        self.process.requests[usize::from(!succeeded)].fetch_add(1, Ordering::Relaxed);
    }

    /// Shows the number of open connections to brokers.
    pub fn broker_connections(&self, count: u64) {
        self.process.connections.store(count, Ordering::Relaxed);
    }

    /// Shows whether this process decides.
    pub fn leads(&self, leads: bool) {
        self.process.leads.store(leads, Ordering::Relaxed);
    }

    /// All numbers in Prometheus' text format.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::new();
        for metric in TABLE {
            let Some(family) = self.series(metric.source).into_family(metric) else {
                continue;
            };
            if let Err(error) = TextEncoder::new().encode_utf8(&[family], &mut text) {
                tracing::error!(%error, metric = metric.name, "a metric cannot be written");
            }
        }
        text
    }

    fn series(&self, source: Source) -> Series {
        let objects = self.objects();
        let mut series = Series::default();
        match source {
            Source::WorkerPool(read) => {
                series.add_all(&objects.worker_pools, |row| row.numbers.as_ref().and_then(read));
            }
            Source::TaskQueue(read) => series.add_all(&objects.task_queues, read),
            Source::Pool(read) => series.add_all(&objects.pools, |row| read(&row.numbers)),
            Source::Drifts => series.add_all(&objects.pools, |row| row.drifts.map(float)),
            Source::Misplaced => series.add_all(&objects.worker_pools, |row| row.misplaced.map(float)),
            Source::Stalled => {
                series.add_all(&objects.worker_pools, |row| row.stalled.map(yes));
            }
            Source::Decisions => {
                for (namespace, name, row) in objects.worker_pools.iter() {
                    for (reason, count) in &row.decisions {
                        let labels = [
                            ("name", name),
                            ("namespace", namespace),
                            ("reason", reason.as_str()),
                        ];
                        series.add(&labels, float(*count));
                    }
                }
            }
            Source::Requests => {
                // Both outcomes from the start: a rate over a series that begins with the first failure misses it.
                for (outcome, count) in OUTCOMES.iter().zip(&self.process.requests) {
                    series.add(&[("outcome", outcome)], float(count.load(Ordering::Relaxed)));
                }
            }
            Source::Leader => series.add(&[], float(self.process.leads.load(Ordering::Relaxed).into())),
            Source::Connections => series.add(&[], float(self.process.connections.load(Ordering::Relaxed))),
        }
        series
    }
}

/// The reference page of all metrics.
#[must_use]
pub fn reference() -> String {
    let mut page = String::from(
        "# Metrics\n\n\
         <!-- Generated from the table in operator/src/metrics/table.rs. Do not edit. -->\n\n\
         Served at `/metrics` of the operator's HTTP address, in Prometheus' text format. The series of an object are \
         removed with it. A number that is not known has no series: absence is not zero.\n\n\
         | metric | type | labels | unit | meaning |\n|---|---|---|---|---|\n",
    );
    for metric in TABLE {
        let labels = metric
            .labels
            .iter()
            .map(|label| format!("`{label}`"))
            .collect::<Vec<_>>()
            .join(", ");
        let labels = if labels.is_empty() { "–" } else { &labels };
        // Writing to a String cannot fail.
        let _ = writeln!(
            page,
            "| `{}` | {} | {labels} | {} | {} |",
            metric.name,
            metric.kind.as_str(),
            metric.unit,
            metric.help
        );
    }
    page
}

/// A gauge of what is so or is not.
fn yes(is_so: bool) -> f64 {
    float(is_so.into())
}

/// Prometheus holds every number as a float; counts beyond 2⁵³ do not occur.
#[allow(clippy::cast_precision_loss)]
fn float(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests;
