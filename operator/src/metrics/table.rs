//! The metrics by name: what the registration and the reference page are both made of.

/// One metric as it is documented and registered.
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

const fn gauge(
    name: &'static str,
    labels: &'static [&'static str],
    unit: &'static str,
    help: &'static str,
) -> Metric {
    Metric {
        name,
        kind: Kind::Gauge,
        labels,
        unit,
        help,
    }
}

pub(super) const DESIRED: Metric = gauge(
    "poolwright_worker_pool_desired_replicas",
    OBJECT,
    "pods",
    "Workers that the last decision asks for.",
);
pub(super) const READY_REPLICAS: Metric = gauge(
    "poolwright_worker_pool_ready_replicas",
    OBJECT,
    "pods",
    "Worker pods that are ready.",
);
pub(super) const PARKED_REPLICAS: Metric = gauge(
    "poolwright_worker_pool_parked_replicas",
    OBJECT,
    "pods",
    "Worker pods that take no new work and finish what they hold.",
);
pub(super) const DRAINING_REPLICAS: Metric = gauge(
    "poolwright_worker_pool_draining_replicas",
    OBJECT,
    "pods",
    "Worker pods that are being deleted.",
);
pub(super) const SLOTS: Metric = gauge(
    "poolwright_worker_pool_slots",
    OBJECT,
    "slots",
    "Tasks that the workers can execute at a time.",
);
pub(super) const BUSY: Metric = gauge(
    "poolwright_worker_pool_busy_slots",
    OBJECT,
    "slots",
    "Slots that execute a task.",
);
pub(super) const START_UP: Metric = gauge(
    "poolwright_worker_pool_start_up_seconds",
    OBJECT,
    "seconds",
    "From a pod's creation to its worker's first heartbeat, the longest of the pods that take new work; absent where \
     the operator watched none start.",
);
pub(super) const DECISIONS: Metric = Metric {
    name: "poolwright_worker_pool_decisions_total",
    kind: Kind::Counter,
    labels: &["namespace", "name", "reason"],
    unit: "decisions",
    help: "Decisions that were stored, by reason; the reasons are those of conditions and events.",
};
pub(super) const MISPLACED: Metric = Metric {
    name: "poolwright_worker_pool_misplaced_pods_total",
    kind: Kind::Counter,
    labels: OBJECT,
    unit: "pods",
    help: "Worker pods that Kubernetes ended in the place of parked ones, within their grace; anything but 0 is worth a look.",
};
pub(super) const READY: Metric = gauge(
    "poolwright_task_queue_ready",
    OBJECT,
    "messages",
    "Messages that wait in the broker.",
);
pub(super) const RESERVED: Metric = gauge(
    "poolwright_task_queue_reserved",
    OBJECT,
    "messages",
    "Messages that a worker has fetched and not started; absent while nothing can tell.",
);
pub(super) const SAMPLE_AGE: Metric = gauge(
    "poolwright_task_queue_sample_age_seconds",
    OBJECT,
    "seconds",
    "Age of the newest good reading of the queue; absent before the first.",
);
pub(super) const ARRIVALS: Metric = gauge(
    "poolwright_task_queue_arrivals_per_minute",
    OBJECT,
    "tasks a minute",
    "Tasks that came, over the last five minutes; an estimate where queues share workers.",
);
pub(super) const WAIT: Metric = gauge(
    "poolwright_task_queue_estimated_wait_seconds",
    OBJECT,
    "seconds",
    "How long a task that is pushed now would wait; absent while it is not known.",
);
pub(super) const POOL_SLOTS: Metric = gauge(
    "poolwright_pool_slots",
    OBJECT,
    "slots",
    "Slots that a Pool grants from at the moment; -1 is no limit.",
);
pub(super) const POOL_RUNNING: Metric = gauge(
    "poolwright_pool_running_slots",
    OBJECT,
    "slots",
    "Slots of a Pool whose tasks execute.",
);
pub(super) const POOL_QUEUED: Metric = gauge(
    "poolwright_pool_queued_slots",
    OBJECT,
    "slots",
    "Slots of a Pool that waiting tasks ask for.",
);
pub(super) const REQUESTS: Metric = Metric {
    name: "poolwright_broker_requests_total",
    kind: Kind::Counter,
    labels: &["outcome"],
    unit: "requests",
    help: "Connects, polls and questions to workers, at all brokers together, by outcome: success or failure.",
};
pub(super) const CONNECTIONS: Metric = gauge(
    "poolwright_broker_connections",
    &[],
    "connections",
    "Open connections to brokers, all of them together.",
);

/// Every metric, in the order of the reference page.
pub const TABLE: &[Metric] = &[
    DESIRED,
    READY_REPLICAS,
    PARKED_REPLICAS,
    DRAINING_REPLICAS,
    SLOTS,
    BUSY,
    START_UP,
    DECISIONS,
    MISPLACED,
    READY,
    RESERVED,
    SAMPLE_AGE,
    ARRIVALS,
    WAIT,
    POOL_SLOTS,
    POOL_RUNNING,
    POOL_QUEUED,
    REQUESTS,
    CONNECTIONS,
];
