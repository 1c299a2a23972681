//! The metrics by name: what is served and the reference page are both made of it.

use super::{PoolNumbers, TaskQueueNumbers, WorkerPoolNumbers, float, yes};

/// One metric as it is documented and served.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Full name.
    pub name: &'static str,
    /// What kind of number it is.
    pub kind: Kind,
    /// Names of its labels.
    pub labels: &'static [&'static str],
    /// What it counts.
    pub unit: &'static str,
    /// What it says, as one sentence.
    pub help: &'static str,
    /// Where its numbers are.
    pub(super) source: Source,
}

/// Where the numbers of a metric are, and which it is; a number that is not known has no series.
#[derive(Clone, Copy, Debug)]
pub(super) enum Source {
    WorkerPool(fn(&WorkerPoolNumbers) -> Option<f64>),
    Decisions,
    Misplaced,
    Stalled,
    TaskQueue(fn(&TaskQueueNumbers) -> Option<f64>),
    Pool(fn(&PoolNumbers) -> Option<f64>),
    Drifts,
    Requests,
    Connections,
    Leader,
}

/// Kind of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A number that goes up and down.
    Gauge,
    /// A number that only grows while the process runs.
    Counter,
}

impl Kind {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Gauge => "gauge",
            Self::Counter => "counter",
        }
    }
}

const OBJECT: &[&str] = &["namespace", "name"];

const fn gauge(name: &'static str, unit: &'static str, help: &'static str, source: Source) -> Metric {
    Metric {
        name,
        kind: Kind::Gauge,
        labels: OBJECT,
        unit,
        help,
        source,
    }
}

/// Every metric, in the order of the reference page.
pub const TABLE: &[Metric] = &[
    gauge(
        "poolwright_worker_pool_desired_replicas",
        "pods",
        "Workers that the last decision asks for.",
        Source::WorkerPool(|of| of.desired.map(float)),
    ),
    gauge(
        "poolwright_worker_pool_at_maximum",
        "–",
        "1 while `maxReplicas` or a `maxActiveTasks` keeps the last decision from asking for more workers, 0 while neither does.",
        Source::WorkerPool(|of| of.at_maximum.map(yes)),
    ),
    gauge(
        "poolwright_worker_pool_held",
        "–",
        "1 while the number of workers does not follow the demand and nobody has wished it: the last decision's reason is \
     `Conflict`, `Fallback`, `HeldUnseen`, `NoProgress` or `WrongBroker`; 0 while it is another.",
        Source::WorkerPool(|of| of.held.map(yes)),
    ),
    gauge(
        "poolwright_worker_pool_stalled",
        "–",
        "1 while the condition `Stalled` is True: nothing moves until somebody changes something.",
        Source::Stalled,
    ),
    gauge(
        "poolwright_worker_pool_ready_replicas",
        "pods",
        "Worker pods that are ready.",
        Source::WorkerPool(|of| Some(float(of.ready))),
    ),
    gauge(
        "poolwright_worker_pool_parked_replicas",
        "pods",
        "Worker pods that take no new work and finish what they hold.",
        Source::WorkerPool(|of| Some(float(of.parked))),
    ),
    gauge(
        "poolwright_worker_pool_draining_replicas",
        "pods",
        "Worker pods that are being deleted.",
        Source::WorkerPool(|of| Some(float(of.draining))),
    ),
    gauge(
        "poolwright_worker_pool_slots",
        "slots",
        "Tasks that the workers can execute at a time.",
        Source::WorkerPool(|of| of.slots.map(float)),
    ),
    gauge(
        "poolwright_worker_pool_busy_slots",
        "slots",
        "Slots that execute a task.",
        Source::WorkerPool(|of| of.busy.map(float)),
    ),
    gauge(
        "poolwright_worker_pool_start_up_seconds",
        "seconds",
        "From a pod's creation to its worker's first heartbeat, the longest of the pods that take new work; absent where \
     the operator watched none start.",
        Source::WorkerPool(|of| of.start_up_seconds),
    ),
    Metric {
        name: "poolwright_worker_pool_decisions_total",
        kind: Kind::Counter,
        labels: &["namespace", "name", "reason"],
        unit: "decisions",
        help: "Decisions that were stored, by reason; the reasons are those of conditions and events.",
        source: Source::Decisions,
    },
    Metric {
        name: "poolwright_worker_pool_misplaced_pods_total",
        kind: Kind::Counter,
        labels: OBJECT,
        unit: "pods",
        help: "Worker pods that Kubernetes ended in the place of parked ones, within their grace; anything but 0 is worth a look.",
        source: Source::Misplaced,
    },
    gauge(
        "poolwright_task_queue_ready",
        "messages",
        "Messages that wait in the broker.",
        Source::TaskQueue(|of| of.ready.map(float)),
    ),
    gauge(
        "poolwright_task_queue_reserved",
        "messages",
        "Messages that a worker has fetched and not started; absent while nothing can tell.",
        Source::TaskQueue(|of| of.reserved.map(float)),
    ),
    gauge(
        "poolwright_task_queue_sample_age_seconds",
        "seconds",
        "Age of the newest good reading of the queue; before the first, time since it could not be read.",
        Source::TaskQueue(|of| of.sample_age_seconds),
    ),
    gauge(
        "poolwright_task_queue_arrivals_per_minute",
        "tasks a minute",
        "Tasks that came, over the last five minutes; an estimate where queues share workers.",
        Source::TaskQueue(|of| of.arrivals_per_minute),
    ),
    gauge(
        "poolwright_task_queue_estimated_wait_seconds",
        "seconds",
        "How long a task that is pushed now would wait; absent while it is not known.",
        Source::TaskQueue(|of| of.estimated_wait_seconds),
    ),
    gauge(
        "poolwright_task_queue_wait_target_missed",
        "–",
        "1 while the condition `WaitTargetMet` is False: tasks have waited longer than `waitTargetSeconds` for \
     `waitTargetMissedAfterSeconds`; absent before that is known.",
        Source::TaskQueue(|of| of.wait_target_missed.map(yes)),
    ),
    Metric {
        name: "poolwright_task_queue_wait_target_misses_total",
        kind: Kind::Counter,
        labels: OBJECT,
        unit: "misses",
        help: "How often a TaskQueue began to miss its wait target.",
        source: Source::TaskQueue(|of| of.wait_target_misses.map(float)),
    },
    gauge(
        "poolwright_pool_slots",
        "slots",
        "Slots that a Pool grants from at the moment; -1 is no limit.",
        Source::Pool(|of| of.slots.map(whole)),
    ),
    gauge(
        "poolwright_pool_running_slots",
        "slots",
        "Slots of a Pool whose tasks execute.",
        Source::Pool(|of| of.running.map(float)),
    ),
    gauge(
        "poolwright_pool_queued_slots",
        "slots",
        "Slots of a Pool that waiting tasks ask for.",
        Source::Pool(|of| of.queued.map(float)),
    ),
    gauge(
        "poolwright_pool_missing_slots",
        "slots",
        "Slots that WorkerPools ask a Pool for and do not get, of the 50 that lack most.",
        Source::Pool(|of| of.missing.map(float)),
    ),
    gauge(
        "poolwright_pool_over_budget",
        "–",
        "1 while pods take more slots of a Pool than `spec.slots`, 0 while they do not; a load that has halved it is not \
     looked at.",
        Source::Pool(|of| of.over.map(yes)),
    ),
    gauge(
        "poolwright_pool_airflow_in_sync",
        "–",
        "1 while the pool of Airflow that a Pool stands for is as it says, 0 while it is not or cannot be read.",
        Source::Pool(|of| of.in_sync.map(yes)),
    ),
    gauge(
        "poolwright_pool_airflow_running_slots",
        "slots",
        "Slots of Airflow's pool that running task instances take.",
        Source::Pool(|of| of.airflow.map(|of| whole(of.running))),
    ),
    gauge(
        "poolwright_pool_airflow_queued_slots",
        "slots",
        "Slots of Airflow's pool that task instances take which an executor has and no worker runs.",
        Source::Pool(|of| of.airflow.map(|of| whole(of.queued))),
    ),
    gauge(
        "poolwright_pool_airflow_scheduled_slots",
        "slots",
        "Slots of Airflow's pool that task instances want which wait for the scheduler; no worker is started for them.",
        Source::Pool(|of| of.airflow.map(|of| whole(of.scheduled))),
    ),
    gauge(
        "poolwright_pool_airflow_deferred_slots",
        "slots",
        "Slots of Airflow's pool that deferred task instances want; they take them where the pool includes them.",
        Source::Pool(|of| of.airflow.map(|of| whole(of.deferred))),
    ),
    gauge(
        "poolwright_pool_airflow_open_slots",
        "slots",
        "Slots of Airflow's pool that nothing takes; absent without a limit.",
        Source::Pool(|of| of.airflow.and_then(|of| of.open).map(whole)),
    ),
    gauge(
        "poolwright_pool_airflow_poking_sensors",
        "sensors",
        "Sensors of Airflow's pool that have held a slot for more than five minutes while they wait.",
        Source::Pool(|of| of.airflow.and_then(|of| of.poking_sensors).map(whole)),
    ),
    Metric {
        name: "poolwright_pool_airflow_drifts_total",
        kind: Kind::Counter,
        labels: OBJECT,
        unit: "changes",
        help: "Changes of Airflow's pool that were taken back or followed, and of a Pool with sync Mirror that were taken back.",
        source: Source::Drifts,
    },
    Metric {
        name: "poolwright_broker_requests_total",
        kind: Kind::Counter,
        labels: &["outcome"],
        unit: "requests",
        help: "Connects, polls and questions to workers, at all brokers together, by outcome: success or failure.",
        source: Source::Requests,
    },
    Metric {
        name: "poolwright_broker_connections",
        kind: Kind::Gauge,
        labels: &[],
        unit: "connections",
        help: "Open connections to brokers, all of them together.",
        source: Source::Connections,
    },
    Metric {
        name: "poolwright_leader",
        kind: Kind::Gauge,
        labels: &[],
        unit: "–",
        help: "1 while this process decides and writes, 0 while it stands by for the lease; without a lease always 1.",
        source: Source::Leader,
    },
];

#[allow(clippy::cast_precision_loss, reason = "counts beyond 2^53 do not occur")]
fn whole(number: i64) -> f64 {
    number as f64
}
