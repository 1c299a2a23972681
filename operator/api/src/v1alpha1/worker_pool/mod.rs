//! `WorkerPool`: workers of one kind, how they are started, scaled and stopped, and what is known of them.

mod airflow;
mod celery;
mod pod;
mod scaling;
mod status;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema;

pub use airflow::Airflow;
pub use celery::{AckMode, Autoscale, BrokerEnv, Celery, ExecutionPool, LogLevel};
pub use pod::{Pod, Worker};
pub use scaling::{Drain, Fallback, Scaling, ScalingMode, ScalingPolicy, Schedule};
pub use status::{Decision, DecisionInput, DecisionLimit, PastDecision, WorkerPoolStatus};

/// `spec` of a WorkerPool: what the workers consume and run, how many there may be, and how they stop.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "poolwright.dev",
    version = "v1alpha1",
    kind = "WorkerPool",
    plural = "workerpools",
    shortname = "wp",
    category = "poolwright",
    namespaced,
    status = "WorkerPoolStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "WorkerPool is a set of Celery or Airflow workers of one kind. Poolwright starts, scales and stops them, and writes down why. Its name has at most 52 characters.",
    validation = Rule::new("self.metadata.name.size() <= 52").message("metadata.name must be at most 52 characters long"),
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(
        name = "Queues",
        type_ = "string",
        json_path = ".status.queueNames",
        description = "Queues that the workers consume"
    ),
    printcolumn(
        name = "Desired",
        type_ = "integer",
        json_path = ".status.desiredReplicas",
        description = "Workers that are wanted"
    ),
    printcolumn(
        name = "Ready",
        type_ = "integer",
        json_path = ".status.readyReplicas",
        description = "Workers that are ready"
    ),
    printcolumn(
        name = "Busy",
        type_ = "integer",
        json_path = ".status.busySlots",
        description = "Slots that execute a task"
    ),
    printcolumn(
        name = "Queued",
        type_ = "integer",
        json_path = ".status.queued",
        description = "Tasks that wait to be executed"
    ),
    printcolumn(
        name = "Min",
        type_ = "integer",
        json_path = ".spec.scaling.minReplicas",
        description = "Least number of workers"
    ),
    printcolumn(
        name = "Max",
        type_ = "integer",
        json_path = ".spec.scaling.maxReplicas",
        description = "Greatest number of workers"
    ),
    printcolumn(
        name = "Ready-Cond",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status",
        description = "Status of the condition Ready"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason",
        description = "Reason of the condition Ready"
    ),
    printcolumn(
        name = "Parked",
        type_ = "integer",
        json_path = ".status.parkedReplicas",
        description = "Workers that take no more tasks and go when they are empty",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.celery) != has(self.airflow)")
        .message("spec.celery is required, or spec.airflow in its place, and not both"),
    validation = Rule::new("!has(self.airflow) || !has(self.class)")
        .message("spec.class sets the defaults of spec.celery and is not allowed with spec.airflow"),
    validation = Rule::new("!has(self.airflow) || !has(self.worker.env) || self.worker.env.all(e, !(e.name in ['AIRFLOW__CELERY__WORKER_AUTOSCALE', 'AIRFLOW__CELERY__WORKER_PREFETCH_MULTIPLIER', 'AIRFLOW__CELERY__POOL']))")
        .message("spec.worker.env must not set AIRFLOW__CELERY__WORKER_AUTOSCALE, AIRFLOW__CELERY__WORKER_PREFETCH_MULTIPLIER or AIRFLOW__CELERY__POOL with spec.airflow, which says how many tasks a worker takes"),
    validation = Rule::new("!has(self.class) || self.class != 'Io' || !has(self.celery) || has(self.celery.executionPool)")
        .message("spec.celery.executionPool is required with class Io: Gevent or Eventlet if the image has it, else Threads or Prefork"),
    validation = Rule::new("has(self.class) || !has(self.celery) || has(self.celery.concurrency) || has(self.celery.autoscale) || (has(self.celery.executionPool) && self.celery.executionPool == 'Solo') || (has(self.worker.resources) && has(self.worker.resources.limits) && 'cpu' in self.worker.resources.limits)")
        .message("spec.celery.concurrency (1 to 10000) is required without a class, unless spec.worker.resources.limits.cpu says how many processes fit"),
    validation = Rule::new("!has(self.celery) || !has(self.celery.brokerEnv) || self.celery.brokerEnv != 'Inject' || !has(self.worker.env) || self.worker.env.all(e, e.name != 'CELERY_BROKER_URL')")
        .message("spec.worker.env must not set CELERY_BROKER_URL with spec.celery.brokerEnv: Inject, which sets it"),
    validation = Rule::new("!has(self.worker.volumeMounts) || self.worker.volumeMounts.all(m, has(self.pod) && has(self.pod.volumes) && self.pod.volumes.exists(v, v.name == m.name))")
        .message("spec.worker.volumeMounts must each name a volume of spec.pod.volumes")
)]
pub struct WorkerPoolSpec {
    /// `class` of work, which sets the defaults of `celery`: Cpu, Io, Memory or General. Default: none, and then
    /// `celery.concurrency` or a CPU limit is required. A field that is written always wins over the class.
    #[schemars(schema_with = "schema::embedded::<WorkerClass>")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<WorkerClass>,

    /// `queues` that the workers consume: 1 to 64 TaskQueues of this namespace, all on one broker. A worker takes from
    /// them in turn, whatever their tiers and guarantees.
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub queues: Vec<QueueRef>,

    /// `celery` says which app the workers run and how. Required, unless `airflow` is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub celery: Option<Celery>,

    /// `airflow` makes them workers of Airflow's `CeleryExecutor`: `airflow celery worker`. Required, unless `celery` is
    /// written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub airflow: Option<Airflow>,

    /// `worker` is the container that runs the worker.
    pub worker: Worker,

    /// `pod` that the worker container runs in. Default: a pod with nothing but that container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Pod>,

    /// `scaling` bounds the number of workers and says how it follows the demand. Default: 0 to 10 workers.
    #[serde(default)]
    pub scaling: Scaling,

    /// `replicas` holds the number of workers at 0 to 10,000, whatever the demand; `kubectl scale` writes it. Default:
    /// none, and the number follows the demand. The hold passes `scaling.minReplicas` and `scaling.maxReplicas`, but
    /// neither a Pool nor `maxActiveTasks`, and ends when the field is removed.
    #[schemars(range(min = 0, max = 10_000))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,

    /// `drain` says how long a worker may take to finish what it holds. Default: derived from the time limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<Drain>,
}

/// A TaskQueue in the same namespace.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QueueRef {
    /// `name` of the TaskQueue, in the same namespace.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
    )]
    pub name: String,
}

/// Kind of work, which sets defaults.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum WorkerClass {
    /// Work that keeps a processor busy: as many processes as processors, prefetch 1.
    Cpu,
    /// Work that waits for others: 50 tasks at a time, prefetch 10; the execution pool must be written.
    Io,
    /// Work that needs much memory: 2 processes, prefetch 1, a new process every 50 tasks.
    Memory,
    /// Anything else: 10 processes, prefetch 4.
    General,
}
