//! Every metric, in one table from which both the registration and the reference page are made.
//!
//! May only hold numbers that others hand in. Series are labelled by namespace and name of the object and are removed
//! with it, so their number is bounded by the number of objects. A number that is not known has no series: a missing
//! one must never read as zero.

use std::fmt::Write as _;

use poolwright_api::Reason;
use prometheus::{Encoder as _, GaugeVec, IntCounterVec, Opts, Registry, TextEncoder};

mod table;

use table::{
    ARRIVALS, BUSY, CONNECTIONS, DECISIONS, DESIRED, DRAINING_REPLICAS, MISPLACED, PARKED_REPLICAS,
    POOL_QUEUED, POOL_RUNNING, POOL_SLOTS, READY, READY_REPLICAS, REQUESTS, RESERVED, SAMPLE_AGE, SLOTS,
    START_UP, WAIT,
};
pub use table::{Kind, Metric, TABLE};

/// What is shown of a WorkerPool.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct WorkerPoolNumbers {
    /// Workers that the last decision asks for; none is made while the spec is invalid.
    pub desired: Option<u64>,
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
}

/// All metrics of the process. Clones share their numbers.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    desired: GaugeVec,
    ready_replicas: GaugeVec,
    parked_replicas: GaugeVec,
    draining_replicas: GaugeVec,
    slots: GaugeVec,
    busy: GaugeVec,
    start_up: GaugeVec,
    decisions: IntCounterVec,
    misplaced: IntCounterVec,
    ready: GaugeVec,
    reserved: GaugeVec,
    sample_age: GaugeVec,
    arrivals: GaugeVec,
    wait: GaugeVec,
    pool_slots: GaugeVec,
    pool_running: GaugeVec,
    pool_queued: GaugeVec,
    requests: IntCounterVec,
    connections: GaugeVec,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Registers the whole table in a registry of its own.
    #[must_use]
    pub fn new() -> Self {
        let registry = Registry::new();
        Self {
            desired: register_gauge(&registry, &DESIRED),
            ready_replicas: register_gauge(&registry, &READY_REPLICAS),
            parked_replicas: register_gauge(&registry, &PARKED_REPLICAS),
            draining_replicas: register_gauge(&registry, &DRAINING_REPLICAS),
            slots: register_gauge(&registry, &SLOTS),
            busy: register_gauge(&registry, &BUSY),
            start_up: register_gauge(&registry, &START_UP),
            decisions: register_counter(&registry, &DECISIONS),
            misplaced: register_counter(&registry, &MISPLACED),
            ready: register_gauge(&registry, &READY),
            reserved: register_gauge(&registry, &RESERVED),
            sample_age: register_gauge(&registry, &SAMPLE_AGE),
            arrivals: register_gauge(&registry, &ARRIVALS),
            wait: register_gauge(&registry, &WAIT),
            pool_slots: register_gauge(&registry, &POOL_SLOTS),
            pool_running: register_gauge(&registry, &POOL_RUNNING),
            pool_queued: register_gauge(&registry, &POOL_QUEUED),
            requests: from_zero(register_counter(&registry, &REQUESTS)),
            connections: register_gauge(&registry, &CONNECTIONS),
            registry,
        }
    }

    /// Shows the numbers of a WorkerPool.
    pub fn worker_pool(&self, namespace: &str, name: &str, numbers: WorkerPoolNumbers) {
        let labels = [namespace, name];
        for (series, value) in [
            (&self.desired, numbers.desired.map(float)),
            (&self.ready_replicas, Some(float(numbers.ready))),
            (&self.parked_replicas, Some(float(numbers.parked))),
            (&self.draining_replicas, Some(float(numbers.draining))),
            (&self.slots, numbers.slots.map(float)),
            (&self.busy, numbers.busy.map(float)),
            (&self.start_up, numbers.start_up_seconds),
        ] {
            show(series, &labels, value);
        }
    }

    /// Counts a decision of a WorkerPool. A reason that is none of [`Reason`] is not counted, so that the series stay
    /// bounded.
    pub fn decision(&self, namespace: &str, name: &str, reason: &str) {
        if let Ok(reason) = reason.parse::<Reason>() {
            self.decisions
                .with_label_values(&[namespace, name, reason.as_str()])
                .inc();
        }
    }

    /// Counts pods of a WorkerPool that were ended in the place of others. The series is there from the first call, at 0.
    pub fn misplaced(&self, namespace: &str, name: &str, pods: u64) {
        self.misplaced.with_label_values(&[namespace, name]).inc_by(pods);
    }

    /// Shows the numbers of a TaskQueue; those that are `None` are removed.
    pub fn task_queue(&self, namespace: &str, name: &str, numbers: TaskQueueNumbers) {
        let labels = [namespace, name];
        for (series, value) in [
            (&self.ready, numbers.ready.map(float)),
            (&self.reserved, numbers.reserved.map(float)),
            (&self.sample_age, numbers.sample_age_seconds),
            (&self.arrivals, numbers.arrivals_per_minute),
            (&self.wait, numbers.estimated_wait_seconds),
        ] {
            show(series, &labels, value);
        }
    }

    /// Shows the numbers of a Pool; those that are `None` are removed.
    pub fn pool(&self, namespace: &str, name: &str, numbers: PoolNumbers) {
        let labels = [namespace, name];
        #[allow(clippy::cast_precision_loss)] // at most a million
        let slots = numbers.slots.map(|slots| slots as f64);
        for (series, value) in [
            (&self.pool_slots, slots),
            (&self.pool_running, numbers.running.map(float)),
            (&self.pool_queued, numbers.queued.map(float)),
        ] {
            show(series, &labels, value);
        }
    }

    /// Removes every series of a Pool.
    pub fn forget_pool(&self, namespace: &str, name: &str) {
        for series in [&self.pool_slots, &self.pool_running, &self.pool_queued] {
            forget(series, &[namespace, name]);
        }
    }

    /// Removes every series of a WorkerPool.
    pub fn forget_worker_pool(&self, namespace: &str, name: &str) {
        for series in [
            &self.desired,
            &self.ready_replicas,
            &self.parked_replicas,
            &self.draining_replicas,
            &self.slots,
            &self.busy,
            &self.start_up,
        ] {
            forget(series, &[namespace, name]);
        }
        let _ = self.misplaced.remove_label_values(&[namespace, name]);
        for reason in Reason::ALL {
            // An error says that the series does not exist, which is what is wanted.
            let _ = self
                .decisions
                .remove_label_values(&[namespace, name, reason.as_str()]);
        }
    }

    /// Removes every series of a TaskQueue.
    pub fn forget_task_queue(&self, namespace: &str, name: &str) {
        for series in [
            &self.ready,
            &self.reserved,
            &self.sample_age,
            &self.arrivals,
            &self.wait,
        ] {
            forget(series, &[namespace, name]);
        }
    }

    /// Counts one request to a broker (a connect, a poll, or a question to workers) as a `success` or a `failure`.
    pub fn broker_request(&self, succeeded: bool) {
        let outcome = if succeeded { "success" } else { "failure" };
        self.requests.with_label_values(&[outcome]).inc();
    }

    /// Shows the number of open connections to brokers.
    pub fn broker_connections(&self, count: u64) {
        self.connections.with_label_values::<&str>(&[]).set(float(count));
    }

    /// All numbers in Prometheus' text format.
    #[must_use]
    pub fn render(&self) -> String {
        let mut bytes = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut bytes) {
            tracing::error!(%error, "the metrics cannot be written");
        }
        String::from_utf8_lossy(&bytes).into_owned()
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

fn register_gauge(registry: &Registry, metric: &Metric) -> GaugeVec {
    let series = GaugeVec::new(Opts::new(metric.name, metric.help), metric.labels).expect(VALID);
    registry.register(Box::new(series.clone())).expect(VALID);
    series
}

/// How a request to a broker ends.
const OUTCOMES: [&str; 2] = ["success", "failure"];

/// Both outcomes from the start: a rate over a series that begins with the first failure misses it.
fn from_zero(requests: IntCounterVec) -> IntCounterVec {
    for outcome in OUTCOMES {
        requests.with_label_values(&[outcome]);
    }
    requests
}

fn register_counter(registry: &Registry, metric: &Metric) -> IntCounterVec {
    let series = IntCounterVec::new(Opts::new(metric.name, metric.help), metric.labels).expect(VALID);
    registry.register(Box::new(series.clone())).expect(VALID);
    series
}

const VALID: &str = "the table's names are valid and each is there once, which a test checks";

fn show(series: &GaugeVec, labels: &[&str], value: Option<f64>) {
    match value {
        Some(value) => series.with_label_values(labels).set(value),
        None => forget(series, labels),
    }
}

fn forget(series: &GaugeVec, labels: &[&str]) {
    // An error says that the series does not exist, which is what is wanted.
    let _ = series.remove_label_values(labels);
}

/// Prometheus holds every number as a float; counts beyond 2⁵³ do not occur.
#[allow(clippy::cast_precision_loss)]
fn float(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests;
