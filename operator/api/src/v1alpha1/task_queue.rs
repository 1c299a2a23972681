//! `TaskQueue`: one queue on one broker, the budget that its tasks draw on, and what is known of it.

mod budget;

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::schema;

pub use budget::{PoolUse, Priority, PriorityTier, WeightRule};

/// `spec` of a TaskQueue: the broker that holds the queue, the name it has there, and what its tasks may take.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "poolwright.dev",
    version = "v1alpha1",
    kind = "TaskQueue",
    plural = "taskqueues",
    shortname = "tq",
    category = "poolwright",
    namespaced,
    status = "TaskQueueStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "TaskQueue is one queue on one broker: where it is, and how Celery lays it out there. WorkerPools name the TaskQueues they consume.",
    validation = Rule::new("!has(self.spec.priority) || !has(self.spec.priority.downstream) || !(self.metadata.name in self.spec.priority.downstream)")
        .message("spec.priority.downstream must not name the TaskQueue itself"),
    printcolumn(
        name = "Broker",
        type_ = "string",
        json_path = ".status.broker",
        description = "Address of the broker, without user or password"
    ),
    printcolumn(
        name = "Ready",
        type_ = "integer",
        json_path = ".status.ready",
        description = "Messages waiting in the broker"
    ),
    printcolumn(
        name = "Reserved",
        type_ = "integer",
        json_path = ".status.reserved",
        description = "Messages that workers have fetched and not started"
    ),
    printcolumn(
        name = "Consumers",
        type_ = "integer",
        json_path = ".status.consumers",
        description = "Workers that consume the queue"
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
        description = "Why the condition Ready is as it is",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct TaskQueueSpec {
    /// `broker` that holds the queue: its address, and how Celery uses it.
    pub broker: Broker,

    /// `queue` is the queue's name on the broker, at most 255 bytes, without commas and control characters. Default:
    /// the name of this object.
    #[schemars(length(min = 1, max = 255), regex(pattern = r"^[^\x00-\x1f\x7f,]+$"))]
    #[x_kube(validation = Rule::new("bytes(self).size() <= 255").message("spec.queue must be at most 255 bytes long"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,

    /// `pool` is the one budget that the tasks draw on. Default: one slot of default-pool for each task.
    #[serde(default)]
    pub pool: PoolUse,

    /// `priority` of the queue where its Pool has not enough slots for all. Default: tier Normal with weight 1.
    #[serde(default)]
    pub priority: Priority,

    /// `maxActiveTasks` caps how many tasks of the queue its workers can run at a time, 1 to 1,000,000: there are only
    /// as many whole pods as fit. Default: no cap. It needs a WorkerPool that consumes this queue alone, with a
    /// concurrency that is not above it.
    #[schemars(range(min = 1, max = 1_000_000))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_active_tasks: Option<i32>,

    /// `waitTargetSeconds` is how long a task should wait at most until a worker starts it, in seconds, 1 to 86,400.
    /// Default: 30. WorkerPools with policy WaitTarget have as few slots as keep it; of several queues the shortest
    /// counts.
    #[schemars(range(min = 1, max = 86_400))]
    #[serde(default = "wait_target_seconds")]
    pub wait_target_seconds: i32,

    /// `waitTargetMissedAfterSeconds` is for how long tasks must wait longer than `waitTargetSeconds`, without a break,
    /// until the target counts as missed, in seconds, 1 to 86,400. Default: 60. A miss is told by the condition
    /// WaitTargetMet, an event and a metric; it changes no number of workers.
    #[schemars(range(min = 1, max = 86_400))]
    #[serde(default = "wait_target_missed_after_seconds")]
    pub wait_target_missed_after_seconds: i32,
}

const fn wait_target_seconds() -> i32 {
    30
}

const fn wait_target_missed_after_seconds() -> i32 {
    60
}

/// What cannot be a time, and no schema lets through, counts as not written.
fn seconds_or(written: i32, default: i32) -> Duration {
    let seconds = if written > 0 { written } else { default };
    Duration::from_secs(u64::from(seconds.unsigned_abs()))
}

/// Where a broker is and how Celery uses it.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.url) != has(self.urlSecretRef)")
        .message("spec.broker must have exactly one of url and urlSecretRef"),
    validation = Rule::new("!has(self.url) || !self.url.startsWith('sentinel:') || (has(self.redis) && has(self.redis.sentinelMaster))")
        .message("spec.broker.redis.sentinelMaster is required with a sentinel:// url"),
    validation = Rule::new("!has(self.url) || self.url.startsWith('sentinel:') || !has(self.redis) || !has(self.redis.sentinelMaster)")
        .message("spec.broker.redis.sentinelMaster is allowed only with a sentinel:// url"),
    validation = Rule::new("!has(self.redis) || !has(self.rabbitmq)")
        .message("spec.broker must have at most one of redis and rabbitmq"),
    validation = Rule::new("!has(self.redis) || !has(self.url) || !self.url.startsWith('amqp')")
        .message("spec.broker.redis is allowed only with a redis://, rediss:// or sentinel:// url"),
    validation = Rule::new("!has(self.rabbitmq) || !has(self.url) || self.url.startsWith('amqp')")
        .message("spec.broker.rabbitmq is allowed only with an amqp:// or amqps:// url"),
    validation = Rule::new("!has(self.tls) || !has(self.url) || !(self.url.startsWith('redis:') || self.url.startsWith('amqp:'))")
        .message("spec.broker.tls is allowed only with a rediss://, amqps:// or sentinel:// url")
)]
pub struct Broker {
    /// `url` of the broker without user and password: `redis`, `rediss`, `sentinel`, `amqp` or `amqps`, at most 1,024
    /// characters. Exactly one of `url` and `urlSecretRef` is required; an address with a password belongs in a Secret.
    // Rules and not a pattern: the API server shows a value that fails a pattern, and this one may hold a password.
    #[schemars(length(min = 9, max = 1024))]
    #[x_kube(
        validation = Rule::new("self.matches('^(redis|rediss|sentinel|amqp|amqps)://[!-~]+$')")
            .message("spec.broker.url must start with redis://, rediss://, sentinel://, amqp:// or amqps:// and hold no spaces"),
        validation = Rule::new("!self.contains('@') && !self.matches('(?i)[?&;](user|username|password)=')")
            .message("spec.broker.url must hold no user or password (nor an unescaped @): put the url in a Secret and use urlSecretRef"),
        // What follows an @ may be a piece of a password: the rule before this one speaks, and these are silent.
        validation = Rule::new("self.contains('@') || !self.matches('(^|;)[A-Za-z]+://([/:?#;]|$)')")
            .message("spec.broker.url names no host: write it after ://, such as redis://redis:6379/0"),
        // A path with a segment . or .. is another one once it is resolved.
        validation = Rule::new("self.contains('@') || !self.matches('(^|;)(redis|rediss|sentinel)://[^/?#;]+/+([0-9]*[^0-9/?#;]|[0-9]+/)') || self.matches('/([.]|%2[eE])([.]|%2[eE])?(/|[?;]|$)')")
            .message("spec.broker.url names no database: the path of a Redis address must be a database number, such as /0")
    )]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,

    /// `urlSecretRef` names the Secret and the key in it that hold the broker's whole URL, credentials included. The
    /// Secret is in the same namespace. Exactly one of `url` and `urlSecretRef` is required.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url_secret_ref: Option<SecretKeyRef>,

    /// `redis` says how Celery lays a queue out on Redis. Default: each of its own defaults. Allowed only with a Redis
    /// broker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redis: Option<RedisOptions>,

    /// `rabbitmq` says where to find what AMQP alone does not tell. Default: the queue's length over AMQP, and no count
    /// of unacknowledged messages. Allowed only with a RabbitMQ broker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rabbitmq: Option<RabbitmqOptions>,

    /// `tls` for the operator's own connections; workers bring their own. Default: the system's authorities, with the
    /// server's certificate verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsOptions>,

    /// `controlExchange` is the exchange of Celery's remote control, `control_exchange` in Celery's configuration.
    /// Default: celery. Without the right name the operator cannot ask workers what they run.
    #[schemars(length(min = 1, max = 127), regex(pattern = r"^[!-~]+$"))]
    #[serde(default = "control_exchange")]
    pub control_exchange: String,

    /// `eventExchange` is the exchange of Celery's events, `event_exchange` in Celery's configuration. Default:
    /// celeryev. Without the right name the operator hears no heartbeats.
    #[schemars(length(min = 1, max = 127), regex(pattern = r"^[!-~]+$"))]
    #[serde(default = "event_exchange")]
    pub event_exchange: String,
}

/// How Celery lays a queue out on Redis.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RedisOptions {
    /// `keyPrefix` that the app puts before each key (`global_keyprefix` in Celery's transport options), at most 255
    /// characters. Default: none.
    #[schemars(length(min = 1, max = 255), regex(pattern = r"^[^\x00-\x1f\x7f]+$"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_prefix: Option<String>,

    /// `prioritySteps` into which Celery splits a queue on Redis (`priority_steps` in its transport options): 1 to 10
    /// different numbers from 0 to 255 in rising order, the first one 0. Default: 0, 3, 6, 9. A step that is missing
    /// here hides its messages from scaling.
    #[schemars(length(min = 1, max = 10), inner(range(min = 0, max = 255)))]
    #[x_kube(
        merge_strategy = ListMerge::Atomic,
        validation = Rule::new("size(self) == 0 || self[0] == 0")
            .message("spec.broker.redis.prioritySteps must start with 0"),
        validation = Rule::new("self.all(a, self.exists_one(b, a == b))")
            .message("spec.broker.redis.prioritySteps must not repeat a number"),
        validation = Rule::new("self.isSorted()")
            .message("spec.broker.redis.prioritySteps must be in rising order")
    )]
    #[serde(default = "priority_steps")]
    pub priority_steps: Vec<i32>,

    /// `sentinelMaster` is the name of the master that the sentinels watch. Required with a `sentinel` URL, allowed
    /// only there. At most 255 characters.
    #[schemars(length(min = 1, max = 255), regex(pattern = r"^[!-~]+$"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sentinel_master: Option<String>,

    /// `visibilityTimeoutSeconds` is how long, in seconds, a fetched message may stay unacknowledged before it is
    /// delivered again (`visibility_timeout` in Celery's transport options), 1 to 2,592,000. Default: 3600. Longer
    /// tasks than this run twice; the operator warns of them.
    #[schemars(range(min = 1, max = 2_592_000))]
    #[serde(default = "visibility_timeout_seconds")]
    pub visibility_timeout_seconds: i32,
}

/// Where to find what AMQP alone does not tell about a RabbitMQ queue.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.managementUrl) || !has(self.managementUrlSecretRef)")
        .message("spec.broker.rabbitmq must have at most one of managementUrl and managementUrlSecretRef")
)]
pub struct RabbitmqOptions {
    /// `managementUrl` of RabbitMQ's management API, http or https, without user and password, at most 1,024
    /// characters; the broker's own credentials are used, which are sent to no other host, and by TLS where the broker
    /// has it. Default: none. Adds the count of unacknowledged messages.
    #[schemars(length(min = 8, max = 1024))]
    #[x_kube(
        validation = Rule::new("self.matches('^https?://[!-~]+$') && !self.contains('@')")
            .message("spec.broker.rabbitmq.managementUrl must start with http:// or https:// and hold no user or password: put the url in a Secret and use managementUrlSecretRef")
    )]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub management_url: Option<String>,

    /// `managementUrlSecretRef` names the Secret and the key in it that hold the URL of the management API,
    /// credentials included. Default: none. At most one of `managementUrl` and `managementUrlSecretRef`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub management_url_secret_ref: Option<SecretKeyRef>,

    /// `metricsUrl` of RabbitMQ's Prometheus endpoint, http or https, without user and password, at most 1,024
    /// characters. Default: none. Adds the count of unacknowledged messages where the management API is closed.
    #[schemars(length(min = 8, max = 1024))]
    #[x_kube(
        validation = Rule::new("self.matches('^https?://[!-~]+$') && !self.contains('@')")
            .message("spec.broker.rabbitmq.metricsUrl must start with http:// or https:// and hold no user or password")
    )]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics_url: Option<String>,

    /// `consumerTimeoutSeconds` is how long, in seconds, RabbitMQ waits for an acknowledgement before it closes the
    /// channel and delivers again (`consumer_timeout` in RabbitMQ), 1 to 2,592,000. Default: 1800. Longer tasks than
    /// this that acknowledge late run twice; the operator warns of them.
    #[schemars(range(min = 1, max = 2_592_000))]
    #[serde(default = "consumer_timeout_seconds")]
    pub consumer_timeout_seconds: i32,
}

/// TLS of the operator's own connections to the broker.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TlsOptions {
    /// `caSecretRef` names the Secret and the key in it that hold the authorities to trust, as PEM. Default: the
    /// system's authorities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_secret_ref: Option<SecretKeyRef>,

    /// `clientCertSecretRef` names a Secret of type `kubernetes.io/tls` whose `tls.crt` and `tls.key` the operator
    /// shows to the broker. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_cert_secret_ref: Option<SecretRef>,

    /// `insecureSkipVerify` accepts any certificate of the broker. Default: false. With true, whoever can reach the
    /// network path can read the broker's credentials.
    #[serde(default)]
    pub insecure_skip_verify: bool,
}

/// A key of a Secret in the same namespace.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretKeyRef {
    /// `name` of the Secret, in the same namespace.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
    )]
    pub name: String,

    /// `key` in the Secret whose value is used.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[-._A-Za-z0-9]+$"))]
    pub key: String,
}

/// A Secret in the same namespace.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretRef {
    /// `name` of the Secret, in the same namespace.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
    )]
    pub name: String,
}

/// `status` of a TaskQueue: what the broker says of the queue, and when it said so.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskQueueStatus {
    /// `observedGeneration` is the `metadata.generation` that this status was written for.
    #[schemars(range(min = 0))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// `broker` is the address in use, without user and password.
    #[schemars(length(max = 1024))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broker: Option<String>,

    /// `ready` is the number of messages waiting in the broker.
    #[schemars(range(min = 0))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<i64>,

    /// `reserved` is the number of messages that workers have fetched and not started.
    #[schemars(range(min = 0))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reserved: Option<i64>,

    /// `orphaned` is the number of unacknowledged messages that no running worker can hold: what a killed worker left
    /// behind until the broker gives it back.
    #[schemars(range(min = 0))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub orphaned: Option<i64>,

    /// `consumers` is the number of workers that consume the queue, ours and others.
    #[schemars(range(min = 0))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consumers: Option<i32>,

    /// `foreignConsumers` is the number of workers that consume the queue and are not pods of a WorkerPool.
    #[schemars(range(min = 0))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub foreign_consumers: Option<i32>,

    /// `arrivalsPerMinute` is how many tasks came in a minute, over the last five. It is written anew when it has changed
    /// by a quarter, every half minute at most. Absent while no WorkerPool consumes the queue. Of queues that share
    /// workers it is an estimate: a worker does not say whose the tasks are that it starts.
    #[schemars(range(min = 0))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arrivals_per_minute: Option<i64>,

    /// `estimatedWaitSeconds` is how long, in seconds, a task that is pushed now would wait until it starts, by what waits
    /// before it, by how long tasks run, and by the slots that there are; at zero workers also by how long
    /// these take to start. It is written as `arrivalsPerMinute` is. Absent while it is not known, or while no
    /// worker would be started.
    #[schemars(range(min = 0))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimated_wait_seconds: Option<i64>,

    /// `effectiveWeight` of the queue inside its tier, by its weight rule.
    #[schemars(range(min = 0))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effective_weight: Option<i64>,

    /// `observedAt` is when the broker answered with these numbers.
    #[schemars(schema_with = "schema::time")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_at: Option<Time>,

    /// `conditions` of this TaskQueue: Ready, Reconciling, Stalled, WaitTargetMet; with workers
    /// of Airflow also QueuedInTime.
    #[schemars(schema_with = "schema::conditions")]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

impl TaskQueue {
    /// The queue's name on the broker: `spec.queue`, or else the object's name.
    #[must_use]
    pub fn queue_name(&self) -> &str {
        self.spec
            .queue
            .as_deref()
            .or(self.metadata.name.as_deref())
            .unwrap_or_default()
    }

    /// Name of the Pool that the tasks draw on: `spec.pool.name`.
    #[must_use]
    pub fn pool_name(&self) -> &str {
        &self.spec.pool.name
    }

    /// How long its tasks should wait at most.
    #[must_use]
    pub fn wait_target(&self) -> Duration {
        seconds_or(self.spec.wait_target_seconds, wait_target_seconds())
    }

    /// For how long they must wait longer until the target counts as missed.
    #[must_use]
    pub fn wait_target_missed_after(&self) -> Duration {
        let written = self.spec.wait_target_missed_after_seconds;
        seconds_or(written, wait_target_missed_after_seconds())
    }

    /// Slots of the Pool that one task takes: `spec.pool.slotsPerTask`, at least 1.
    #[must_use]
    pub fn slots_per_task(&self) -> u64 {
        u64::try_from(self.spec.pool.slots_per_task).map_or(1, |slots| slots.max(1))
    }

    /// Tier of the queue: `spec.priority.tier`.
    #[must_use]
    pub const fn tier(&self) -> PriorityTier {
        self.spec.priority.tier
    }
}

impl Broker {
    /// `redis`, or its defaults where it is absent.
    #[must_use]
    pub fn redis_options(&self) -> RedisOptions {
        self.redis.clone().unwrap_or_default()
    }

    /// `rabbitmq`, or its defaults where it is absent.
    #[must_use]
    pub fn rabbitmq_options(&self) -> RabbitmqOptions {
        self.rabbitmq.clone().unwrap_or_default()
    }
}

impl Default for Broker {
    fn default() -> Self {
        Self {
            url: None,
            url_secret_ref: None,
            redis: None,
            rabbitmq: None,
            tls: None,
            control_exchange: control_exchange(),
            event_exchange: event_exchange(),
        }
    }
}

impl Default for RedisOptions {
    fn default() -> Self {
        Self {
            key_prefix: None,
            priority_steps: priority_steps(),
            sentinel_master: None,
            visibility_timeout_seconds: visibility_timeout_seconds(),
        }
    }
}

impl Default for RabbitmqOptions {
    fn default() -> Self {
        Self {
            management_url: None,
            management_url_secret_ref: None,
            metrics_url: None,
            consumer_timeout_seconds: consumer_timeout_seconds(),
        }
    }
}

fn control_exchange() -> String {
    "celery".to_owned()
}

fn event_exchange() -> String {
    "celeryev".to_owned()
}

fn priority_steps() -> Vec<i32> {
    vec![0, 3, 6, 9]
}

const fn visibility_timeout_seconds() -> i32 {
    3600
}

const fn consumer_timeout_seconds() -> i32 {
    1800
}
