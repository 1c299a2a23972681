//! `Pool`: a budget of slots that queues of one namespace share, who holds it, and who waits for it.

mod airflow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::load::HighLoad;
use crate::schema;

pub use airflow::{AirflowPool, AirflowPoolStatus, AirflowQueue, AirflowSync, DEFAULT_AIRFLOW_POOL};

/// `spec.slots` of a Pool without a limit, as in Airflow.
pub const UNLIMITED: i32 = -1;

/// `spec` of a Pool: how many slots there are, and which of them are kept for one queue.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "poolwright.dev",
    version = "v1alpha1",
    kind = "Pool",
    plural = "pools",
    category = "poolwright",
    namespaced,
    status = "PoolStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "Pool is a budget of slots that TaskQueues of its namespace share: one for each real resource that their tasks use, such as a database or a set of GPUs.",
    printcolumn(
        name = "Slots",
        type_ = "integer",
        json_path = ".spec.slots",
        description = "Slots of the budget; -1 is no limit"
    ),
    printcolumn(
        name = "Running",
        type_ = "integer",
        json_path = ".status.running",
        description = "Slots of tasks that execute"
    ),
    printcolumn(
        name = "Queued",
        type_ = "integer",
        json_path = ".status.queued",
        description = "Slots of tasks that wait to be executed"
    ),
    printcolumn(
        name = "Open",
        type_ = "integer",
        json_path = ".status.open",
        description = "Slots that no worker takes and none has been granted"
    ),
    printcolumn(
        name = "Util",
        type_ = "integer",
        json_path = ".status.utilizationPercent",
        description = "Running slots in percent of the budget"
    ),
    printcolumn(
        name = "Scheduled",
        type_ = "integer",
        json_path = ".status.airflow.scheduled",
        priority = 1,
        description = "Slots of tasks that wait for the scheduler, as Airflow says"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.slots <= 0 || !has(self.guarantees) || self.guarantees.map(g, g.slots).sum() <= self.slots")
        .message(Message::Expression("'spec.guarantees must add up to at most spec.slots (%d), add up to %d: lower or remove some of them in the same change, or close the Pool with slots 0'.format([self.slots, self.guarantees.map(g, g.slots).sum()])".into())),
    validation = Rule::new("!has(self.loadShedding) || has(self.loadShedding.source.prometheus) != has(self.loadShedding.source.configMapKeyRef)")
        .message("spec.loadShedding.source must have exactly one of prometheus and configMapKeyRef"),
    validation = Rule::new("!has(self.includeDeferred) || !self.includeDeferred || has(self.airflow)")
        .message("spec.includeDeferred has a meaning in Airflow only: write spec.airflow, or remove it"),
    validation = Rule::new("!has(self.airflow) || !has(self.loadShedding) || !has(self.airflow.sync) || self.airflow.sync != 'Mirror'")
        .message("spec.loadShedding must not be written with spec.airflow.sync Mirror: Airflow's pool would not follow")
)]
pub struct PoolSpec {
    /// `slots` of the budget: 0 to 1,000,000, or -1 for no limit. Required. Every worker of a queue of this Pool takes
    /// slots from when its pod is created until the pod is gone. With 0 nothing starts and what runs is finished, which
    /// closes the resource for a while, whatever is guaranteed. Any other number must be at least what `guarantees` add
    /// up to. One below what is taken stops no busy worker: slots return as workers become empty.
    // The lower bound is Airflow's: -1 is its Pool without a limit, 0 its closed one, and nothing below has a meaning.
    #[schemars(range(min = -1, max = 1_000_000))]
    pub slots: i32,

    /// `description` for people, at most 1,024 characters. Default: none.
    #[schemars(length(max = 1024))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,

    /// `guarantees` keep slots free for one queue each, at most 100 of them. Default: none. They are lent to nobody,
    /// so that the queue's tasks find room at once. Together they are at most `slots`, unless that is 0 or -1.
    #[schemars(length(max = 100))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["queue".into()]))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub guarantees: Vec<Guarantee>,

    /// `loadShedding` halves the slots that are granted from, but to no less than 1, while the load of the resource
    /// behind this Pool is high. Default: off. As a lowered `slots`, it stops no busy worker. Where one pod takes more than
    /// the half, none is started meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_shedding: Option<HighLoad>,

    /// `includeDeferred` lets deferred tasks hold slots of Airflow's pool (`include_deferred`). Default: false. Workers
    /// never hold slots for them. Needs `airflow`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub include_deferred: bool,

    /// `airflow` names a pool of an Airflow that this Pool keeps as it says, or that it follows. Default: none. Its slots
    /// are taken by task instances, which is another count than what workers take of this Pool: both are shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub airflow: Option<AirflowPool>,
}

/// Slots that are kept for one queue.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Guarantee {
    /// `queue` is the name of a TaskQueue of this Pool, in the same namespace.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
    )]
    pub queue: String,

    /// `slots` that are kept for the queue, 1 to 1,000,000. Only whole pods of its workers fit in: less than one pod
    /// takes guarantees nothing.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub slots: i32,
}

/// `status` of a Pool: what its slots are used for, and who may take how many.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolStatus {
    /// `observedGeneration` is the `metadata.generation` that this status was written for.
    #[schemars(range(min = 0))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// `poolUid` is the uid of the Pool that this status was written for. A status with another uid came with a backup
    /// or a copy: its grants hold for nobody.
    #[schemars(length(max = 64))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool_uid: Option<String>,

    /// `slots` of the budget as they were last read from the spec; -1 is no limit.
    #[schemars(range(min = -1))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slots: Option<i32>,

    /// `effectiveSlots` is the number of slots that are granted from at the moment; -1 is no limit.
    #[schemars(range(min = -1))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effective_slots: Option<i32>,

    /// `running` is the number of slots of tasks that execute: each counts what its worker takes for a task. Those of
    /// pods that are being deleted are not in it, as these say nothing any more.
    #[schemars(range(min = 0))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running: Option<i64>,

    /// `queued` is the number of slots of tasks that wait to be executed, in the broker or fetched by a worker: each
    /// counts what its worker takes for a task. Tasks of a queue that no usable WorkerPool consumes are not in it; the
    /// status of the TaskQueue has them.
    #[schemars(range(min = 0))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queued: Option<i64>,

    /// `open` is the number of effective slots that no pod takes and no holder has been granted; 0 while more are taken
    /// than there are. Absent without a limit.
    #[schemars(range(min = 0))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open: Option<i64>,

    /// `utilizationPercent` is `running` in percent of `slots`, rounded down. Absent without a limit and with 0 slots.
    #[schemars(range(min = 0))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub utilization_percent: Option<i32>,

    /// `epoch` counts the changes of grants; it only rises.
    #[schemars(range(min = 0))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<i64>,

    /// `holders` of slots: WorkerPools that may take or still take some, at most 1000. A WorkerPool that does not fit
    /// in gets none.
    #[schemars(length(max = 1000))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["uid".into()]))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub holders: Vec<Holder>,

    /// `waiters` are WorkerPools that want more slots than they have been granted, at most 50, in the
    /// order of their names.
    #[schemars(length(max = 50))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiters: Vec<Waiter>,

    /// `airflow` is what Airflow's pool holds, as it was last read. Absent without `spec.airflow`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub airflow: Option<AirflowPoolStatus>,

    /// `conditions` of this Pool: Ready, Reconciling, Stalled; with `spec.airflow` also `AirflowInSync` and
    /// `ConfigurationAdvised`.
    #[schemars(schema_with = "schema::conditions")]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// What one WorkerPool holds of a Pool.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Holder {
    /// `workerPool` is the name of the WorkerPool, in the same namespace.
    #[schemars(length(min = 1, max = 253))]
    pub worker_pool: String,

    /// `uid` of the WorkerPool: one that was made anew under the same name is another holder.
    #[schemars(length(min = 1, max = 64))]
    pub uid: String,

    /// `granted` is the number of slots that its pods may take, in whole pods.
    #[schemars(range(min = 0))]
    pub granted: i64,

    /// `used` is the number of slots that its pods take, starting, parked and draining ones included.
    #[schemars(range(min = 0))]
    pub used: i64,

    /// `epoch` in which the grant was last raised.
    #[schemars(range(min = 0))]
    pub epoch: i64,
}

/// A WorkerPool that wants more slots than it has.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Waiter {
    /// `workerPool` is the name of the WorkerPool, in the same namespace.
    #[schemars(length(min = 1, max = 253))]
    pub worker_pool: String,

    /// `missing` is the number of slots that it wants and has not been granted.
    #[schemars(range(min = 0))]
    pub missing: i64,
}

impl PoolSpec {
    /// Slots of the budget; `None` without a limit.
    #[must_use]
    pub fn limit(&self) -> Option<u64> {
        u64::try_from(self.slots).ok()
    }
}
