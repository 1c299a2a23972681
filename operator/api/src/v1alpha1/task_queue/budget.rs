//! `spec.pool` and `spec.priority`: which budget the tasks of a queue draw on, and who comes first.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::DEFAULT_POOL;

/// The budget that the tasks of a queue draw on.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolUse {
    /// `name` of the Pool, in the same namespace. Default: default-pool, which every namespace with a TaskQueue has.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
    )]
    #[serde(default = "pool_name")]
    pub name: String,

    /// `slotsPerTask` is the number of the Pool's slots that one task takes, 1 to 10,000. Default: 1. A worker takes as
    /// many for each task that it can run at a time, whether it runs one or not; with several queues the most of them.
    #[schemars(range(min = 1, max = 10_000))]
    #[serde(default = "slots_per_task")]
    pub slots_per_task: i32,
}

/// Who comes first where a Pool has not enough slots for all.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Priority {
    /// `tier` of the queue: Critical, High, Normal, Low or Background. Default: Normal. A lower tier gets what the
    /// higher ones leave.
    #[serde(default)]
    pub tier: PriorityTier,

    /// `weight` of the queue inside its tier, 1 to 1,000,000. Default: 1. Queues that all want more share the slots in
    /// proportion to their effective weights; a WorkerPool of several queues weighs what those with work weigh together.
    #[schemars(range(min = 1, max = 1_000_000))]
    #[serde(default = "weight")]
    pub weight: i32,

    /// `weightRule` says how the effective weight follows: Absolute is the weight itself; Downstream adds the weights
    /// of all queues that come after this one, each once; Upstream those of all that come before it. Default: Absolute.
    #[serde(default)]
    pub weight_rule: WeightRule,

    /// `downstream` names the TaskQueues that the tasks of this one feed, in the same namespace, each once and at most
    /// 64. Default: none. It says what comes after, for the weight rules of this queue and of others.
    #[schemars(
        length(max = 64),
        inner(
            length(min = 1, max = 253),
            regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
        )
    )]
    #[x_kube(merge_strategy = ListMerge::Set)]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub downstream: Vec<String>,
}

/// Tier of a queue: a lower one gets what the higher ones leave.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PriorityTier {
    /// Before everything else.
    Critical,
    /// Before what is usual.
    High,
    /// What is usual.
    #[default]
    Normal,
    /// After what is usual.
    Low,
    /// With what is left.
    Background,
}

/// How the effective weight of a queue follows from its own and from those of related queues.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum WeightRule {
    /// The weight as it is written.
    #[default]
    Absolute,
    /// With the weights of all queues after it.
    Downstream,
    /// With the weights of all queues before it.
    Upstream,
}

impl PriorityTier {
    /// Every tier, the first served first.
    pub const ALL: [Self; 5] = [
        Self::Critical,
        Self::High,
        Self::Normal,
        Self::Low,
        Self::Background,
    ];

    /// The tier as a number: 100, 75, 50, 25 or 1; the higher comes first.
    #[must_use]
    pub const fn value(self) -> u32 {
        match self {
            Self::Critical => 100,
            Self::High => 75,
            Self::Normal => 50,
            Self::Low => 25,
            Self::Background => 1,
        }
    }
}

impl Default for PoolUse {
    fn default() -> Self {
        Self {
            name: pool_name(),
            slots_per_task: slots_per_task(),
        }
    }
}

impl Default for Priority {
    fn default() -> Self {
        Self {
            tier: PriorityTier::default(),
            weight: weight(),
            weight_rule: WeightRule::default(),
            downstream: Vec::new(),
        }
    }
}

fn pool_name() -> String {
    DEFAULT_POOL.to_owned()
}

const fn slots_per_task() -> i32 {
    1
}

const fn weight() -> i32 {
    1
}
