//! Status of a WorkerPool, with the last decision and its reasons.

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::schema;

/// `status` of a WorkerPool: what is known of the workers, the last decision, and why.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkerPoolStatus {
    /// `observedGeneration` is the `metadata.generation` that this status was written for.
    #[schemars(range(min = 0))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// `queueNames` is the list of consumed queues as text, for the column QUEUES; long lists are cut.
    #[schemars(length(max = 256))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_names: Option<String>,

    /// `replicas` is the number of worker pods, parked ones included, draining ones not.
    #[schemars(range(min = 0))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,

    /// `readyReplicas` is the number of worker pods that are ready.
    #[schemars(range(min = 0))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_replicas: Option<i32>,

    /// `parkedReplicas` is the number of worker pods that take no new work and finish what they hold. They take work
    /// again if the demand returns, and go once they are empty.
    #[schemars(range(min = 0))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parked_replicas: Option<i32>,

    /// `drainingReplicas` is the number of worker pods that are being deleted and finish what they run.
    #[schemars(range(min = 0))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub draining_replicas: Option<i32>,

    /// `desiredReplicas` is the number of workers that the last decision asks for: pods that take new work.
    #[schemars(range(min = 0))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desired_replicas: Option<i32>,

    /// `concurrency` is the number of tasks that one worker of the newest revision executes at a time, and where it comes
    /// from, such as `16 = min(32, 12 × 2 CPU, 8 × 2 GiB)`.
    #[schemars(length(max = 128))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<String>,

    /// `slots` is the number of tasks that the workers can execute at a time.
    #[schemars(range(min = 0))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slots: Option<i32>,

    /// `busySlots` is the number of slots that execute a task.
    #[schemars(range(min = 0))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub busy_slots: Option<i32>,

    /// `queued` is the number of tasks that wait to be executed, in the broker or fetched by a worker.
    #[schemars(range(min = 0))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queued: Option<i64>,

    /// `selector` matches the worker pods, as text; the scale subresource shows it.
    #[schemars(length(max = 512))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,

    /// `revision` is the name of the newest revision, a hash of what the pods are made from.
    #[schemars(length(max = 63))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,

    /// `lastDecision` is the decision in force, with what it was based on. It changes when its number, reason or limits
    /// do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_decision: Option<Decision>,

    /// `decisions` before the last one, at most 5, newest first and without inputs.
    #[schemars(length(max = 5))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub decisions: Vec<PastDecision>,

    /// `lastScaleTime` is when the number of workers was last changed.
    #[schemars(schema_with = "schema::time")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_scale_time: Option<Time>,

    /// `conditions` of this WorkerPool: Ready, Reconciling, Stalled, `ScalingActive`, `ScalingLimited`,
    /// `SignalsFresh`, `ManualHold`, `ConfigurationAdvised`.
    #[schemars(schema_with = "schema::conditions")]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// A number of workers, and why.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Decision {
    /// `time` of the decision.
    #[schemars(schema_with = "schema::time")]
    pub time: Time,

    /// `from` is the number of workers before.
    #[schemars(range(min = 0))]
    pub from: i32,

    /// `to` is the number of workers decided on.
    #[schemars(range(min = 0))]
    pub to: i32,

    /// `reason` in one CamelCase word, the same as in conditions, events and metrics.
    #[schemars(length(min = 1, max = 64))]
    pub reason: String,

    /// `text` is the formula filled in, for people.
    #[schemars(length(max = 512))]
    pub text: String,

    /// `inputs` of the decision with value, source and age, at most 32.
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<DecisionInput>,

    /// `limits` that changed the number, in the order they were applied, at most 8.
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<DecisionLimit>,
}

/// A decision without its inputs.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PastDecision {
    /// `time` of the decision.
    #[schemars(schema_with = "schema::time")]
    pub time: Time,

    /// `from` is the number of workers before.
    #[schemars(range(min = 0))]
    pub from: i32,

    /// `to` is the number of workers decided on.
    #[schemars(range(min = 0))]
    pub to: i32,

    /// `reason` in one CamelCase word, the same as in conditions, events and metrics.
    #[schemars(length(min = 1, max = 64))]
    pub reason: String,

    /// `text` is the formula filled in, for people.
    #[schemars(length(max = 512))]
    pub text: String,

    /// `limits` that changed the number, in the order they were applied, at most 8.
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<DecisionLimit>,
}

/// One number that a decision is based on.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DecisionInput {
    /// `name` of the number, such as ready, reserved or busy; what is no count of tasks ends with its unit.
    #[schemars(length(min = 1, max = 64))]
    pub name: String,

    /// `queue` that the number belongs to; absent where it belongs to the whole WorkerPool.
    #[schemars(length(max = 255))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,

    /// `value` as it was read.
    pub value: i64,

    /// `source` that it was read from: broker, heartbeats, answers, estimate or spec.
    #[schemars(length(min = 1, max = 64))]
    pub source: String,

    /// `ageMilliseconds` is how old the value was when the decision was made, in milliseconds.
    #[schemars(range(min = 0))]
    pub age_milliseconds: i64,
}

/// One limit that changed a decision.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DecisionLimit {
    /// `name` of the limit, such as maxReplicas.
    #[schemars(length(min = 1, max = 128))]
    pub name: String,

    /// `from` is the number of workers before the limit.
    #[schemars(range(min = 0))]
    pub from: i32,

    /// `to` is the number of workers after the limit.
    #[schemars(range(min = 0))]
    pub to: i32,
}

impl Default for Decision {
    fn default() -> Self {
        Self {
            time: Time(Timestamp::UNIX_EPOCH),
            from: 0,
            to: 0,
            reason: String::new(),
            text: String::new(),
            inputs: Vec::new(),
            limits: Vec::new(),
        }
    }
}

impl From<&Decision> for PastDecision {
    fn from(decision: &Decision) -> Self {
        Self {
            time: decision.time.clone(),
            from: decision.from,
            to: decision.to,
            reason: decision.reason.clone(),
            text: decision.text.clone(),
            limits: decision.limits.clone(),
        }
    }
}
