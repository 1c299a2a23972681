//! `spec.celery`: which app the workers run and how.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema;
use crate::v1alpha1::load::HighLoad;

/// Which Celery app the workers run and how. Each field becomes a flag of `celery worker`.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.softTimeLimitSeconds) || !has(self.timeLimitSeconds) || self.softTimeLimitSeconds < self.timeLimitSeconds")
        .message(Message::Expression("'spec.celery.softTimeLimitSeconds must be less than spec.celery.timeLimitSeconds (%d), is %d'.format([self.timeLimitSeconds, self.softTimeLimitSeconds])".into())),
    validation = Rule::new("!has(self.autoscale) || !has(self.executionPool) || !(self.executionPool in ['Threads', 'Solo'])")
        .message("spec.celery.autoscale is not allowed with executionPool Threads or Solo, which cannot grow"),
    validation = Rule::new("!has(self.autoscale) || self.autoscale.min <= self.autoscale.max")
        .message(Message::Expression("'spec.celery.autoscale.min must be at most spec.celery.autoscale.max (%d), is %d'.format([self.autoscale.max, self.autoscale.min])".into())),
    validation = Rule::new("!has(self.autoscale) || !has(self.concurrency)")
        .message("spec.celery must have at most one of concurrency and autoscale"),
    validation = Rule::new("!has(self.dynamicConcurrency) || !has(self.executionPool) || !(self.executionPool in ['Threads', 'Solo'])")
        .message("spec.celery.dynamicConcurrency is not allowed with executionPool Threads or Solo, which cannot grow"),
    validation = Rule::new("!has(self.dynamicConcurrency) || !has(self.autoscale)")
        .message("spec.celery.dynamicConcurrency is not allowed with autoscale: Celery refuses to change the slots of such a worker"),
    validation = Rule::new("!has(self.dynamicConcurrency) || has(self.dynamicConcurrency.source.prometheus) != has(self.dynamicConcurrency.source.configMapKeyRef)")
        .message("spec.celery.dynamicConcurrency.source must have exactly one of prometheus and configMapKeyRef"),
    validation = Rule::new("!has(self.executionPool) || self.executionPool != 'Solo' || !has(self.concurrency) || self.concurrency == 1")
        .message("spec.celery.concurrency must be 1 or absent with executionPool Solo, which executes one task at a time")
)]
pub struct Celery {
    /// `app` to run, as for `celery -A`: a module, or module and attribute, such as `proj.celery:app`. 1 to 256
    /// characters without spaces. Required.
    #[schemars(length(min = 1, max = 256))]
    #[x_kube(
        validation = Rule::new("self.matches('^[!-,.-~][!-~]*$')")
            .message("spec.celery.app must be a module, or module and attribute such as proj.celery:app: no spaces, no - at its beginning, ASCII only")
    )]
    pub app: String,

    /// `executionPool` that executes tasks: Prefork, Gevent, Eventlet, Threads or Solo. Default: Prefork; with class Io
    /// it must be written.
    #[schemars(schema_with = "schema::embedded::<ExecutionPool>")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution_pool: Option<ExecutionPool>,

    /// `concurrency` is the number of tasks that one worker executes at a time, 1 to 10,000. Default: that of the
    /// class; without a class the CPU limit, rounded up.
    #[schemars(range(min = 1, max = 10_000))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<i32>,

    /// `autoscale` lets the worker itself add and remove execution slots. Default: off. Scaling counts with `max`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscale: Option<Autoscale>,

    /// `dynamicConcurrency` halves the slots of each running worker, but to no less than 1, while the load of what its
    /// tasks use is high, and gives them back afterwards. Default: off. No task is stopped for it, and scaling and a
    /// Pool count with all slots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dynamic_concurrency: Option<HighLoad>,

    /// `prefetchMultiplier` is how many messages a worker fetches for each slot, 1 to 1,000. Default: that of the
    /// class; without a class Celery's own, 4. Fetched messages wait for that one worker, which runs them before it makes
    /// room in a Pool: where queues of several tiers share one, 1 is best.
    #[schemars(range(min = 1, max = 1000))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefetch_multiplier: Option<i32>,

    /// `maxTasksPerChild` is the number of tasks after which a process is replaced, 1 to 1,000,000. Default: that of
    /// the class; without a class never. Prefork only.
    #[schemars(range(min = 1, max = 1_000_000))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tasks_per_child: Option<i32>,

    /// `maxMemoryPerChild` is the memory after which a process is replaced, as a quantity with a unit such as 300Mi.
    /// Default: no limit. Prefork only; the task that passes it is finished first.
    #[schemars(schema_with = "schema::memory")]
    #[x_kube(validation = Rule::new("self.matches('^[1-9][0-9]*(Ki|Mi|Gi|Ti|k|M|G|T)$')")
        .message("spec.celery.maxMemoryPerChild must be a quantity with a unit (Ki, Mi, Gi, Ti, k, M, G or T), such as 300Mi"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_memory_per_child: Option<Quantity>,

    /// `timeLimitSeconds` after which a task is killed, in seconds, 1 to 604,800. Default: that of the class; without a
    /// class none. Enforced by Prefork and, unless a task blocks, by Gevent.
    #[schemars(range(min = 1, max = 604_800))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_limit_seconds: Option<i32>,

    /// `softTimeLimitSeconds` after which a task gets an exception that it may handle, in seconds, 1 to 604,800 and
    /// less than `timeLimitSeconds`. Default: that of the class; without a class none. Enforced by Prefork.
    #[schemars(range(min = 1, max = 604_800))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub soft_time_limit_seconds: Option<i32>,

    /// `logLevel` of the worker: Debug, Info, Warning, Error or Critical. Default: Celery's own, Warning.
    #[schemars(schema_with = "schema::embedded::<LogLevel>")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_level: Option<LogLevel>,

    /// `extraArgs` are put at the end of the worker's command line, at most 32 of at most 512 characters. Default:
    /// none. Flags that a field of this resource or Poolwright itself sets are refused.
    #[schemars(length(max = 32), inner(length(min = 1, max = 512)))]
    #[x_kube(
        merge_strategy = ListMerge::Atomic,
        validation = Rule::new("self.all(a, !a.matches('^(-[EB]*[AQXcPnlbD]|--(app|queues|exclude-queues|concurrency|pool|hostname|loglevel|broker|detach|autoscale|prefetch-multiplier|max-tasks-per-child|max-memory-per-child|time-limit|soft-time-limit|without-heartbeat|without-gossip|purge|discard)(=|$))'))")
            .message("spec.celery.extraArgs must not hold flags that other fields or Poolwright set: -A, -Q, -X, -c, -P, -n, -l, -b, -D and their long forms, --autoscale, --prefetch-multiplier, --max-tasks-per-child, --max-memory-per-child, --time-limit, --soft-time-limit, --without-heartbeat, --without-gossip; nor --purge and --discard, with which each start empties the queues")
    )]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extra_args: Vec<String>,

    /// `ackMode` says when tasks are acknowledged: Early (before they run), Late (after), or Auto. Default: Auto, which
    /// learns it from the workers. It decides whether a running task is still among the broker's messages.
    #[serde(default)]
    pub ack_mode: AckMode,

    /// `brokerEnv` says whether the broker's URL is put into the worker's environment: None or Inject. Default: None,
    /// the app knows its broker. Inject sets `CELERY_BROKER_URL` to the queues' URL, from their Secret where they name
    /// one, which overrides the broker of every Celery app in the process.
    #[serde(default)]
    pub broker_env: BrokerEnv,
}

/// Bounds of a worker's own autoscaling.
#[derive(KubeSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Autoscale {
    /// `min` is the least number of slots, 0 to 10,000. Required.
    #[schemars(range(min = 0, max = 10_000))]
    pub min: i32,

    /// `max` is the greatest number of slots, 1 to 10,000. Required.
    #[schemars(range(min = 1, max = 10_000))]
    pub max: i32,
}

/// What executes a worker's tasks.
#[derive(
    JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum ExecutionPool {
    /// A process for each slot.
    #[default]
    Prefork,
    /// A green thread for each slot, by gevent.
    Gevent,
    /// A green thread for each slot, by eventlet.
    Eventlet,
    /// A thread for each slot; time limits are ignored.
    Threads,
    /// One slot, in the worker's own process; time limits are ignored.
    Solo,
}

impl ExecutionPool {
    /// The value of Celery's flag `--pool`.
    #[must_use]
    pub const fn as_flag(self) -> &'static str {
        match self {
            Self::Prefork => "prefork",
            Self::Gevent => "gevent",
            Self::Eventlet => "eventlet",
            Self::Threads => "threads",
            Self::Solo => "solo",
        }
    }
}

/// When tasks are acknowledged.
#[derive(
    JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum AckMode {
    /// Learnt from the workers' own answers.
    #[default]
    Auto,
    /// Before they run.
    Early,
    /// After they ran.
    Late,
}

/// Whether the broker's URL is put into the worker's environment.
#[derive(
    JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum BrokerEnv {
    /// No: the app knows its broker.
    #[default]
    None,
    /// Yes, as `CELERY_BROKER_URL`.
    Inject,
}

/// Least severe messages that a worker logs.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum LogLevel {
    /// Everything.
    Debug,
    /// Each task, too.
    Info,
    /// Warnings and worse.
    Warning,
    /// Errors and worse.
    Error,
    /// Only what ends the worker.
    Critical,
}

impl LogLevel {
    /// The value of Celery's flag `--loglevel`.
    #[must_use]
    pub const fn as_flag(self) -> &'static str {
        match self {
            Self::Debug => "DEBUG",
            Self::Info => "INFO",
            Self::Warning => "WARNING",
            Self::Error => "ERROR",
            Self::Critical => "CRITICAL",
        }
    }
}
