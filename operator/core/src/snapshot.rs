//! All that one scaling cycle may see.
//!
//! Adapters fill a [`Snapshot`] from the watches and the poller; the cycle reads nothing else. What is not in
//! here cannot influence a decision.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use poolwright_api::Reason;
use poolwright_api::v1alpha1::AckMode;

use crate::charge::Charge;
use crate::pod_name::PodName;
use crate::policy::Policy;
use crate::sample::BrokerView;
use crate::schedule::Schedule;
use crate::shedding::{LoadKey, Loads};
use crate::text::bounded;
use crate::time::Moment;
use crate::weight::Weights;

/// Words of the cluster that are passed on, in bytes.
pub const WORDS_MAX: usize = 400;

/// Names one WorkerPool for its whole life; a successor of the same name has another uid.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PoolKey {
    /// Namespace of the WorkerPool.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

/// The world at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The process's monotonic clock.
    pub now: Moment,
    /// Wall clock, for people and for times that other machines wrote.
    pub wall: Timestamp,
    /// Broker readings by the broker's id (see [`PoolInput::broker`]).
    pub brokers: BTreeMap<String, Arc<BrokerView>>,
    /// All WorkerPools whose spec is valid. One that is gone or whose spec is not valid any more is there as it was, and
    /// as [`PoolInput::terminating`], while it has pods: what these hold and may take is no other's.
    pub pools: Vec<Arc<PoolInput>>,
    /// Namespaces of which a WorkerPool is left out, since nothing of its queues has been read yet, or its Pool is not made:
    /// what tasks there take and ask for in all is not known.
    pub unread: BTreeSet<String>,
    /// Pools and weights by namespace.
    pub namespaces: BTreeMap<String, Arc<Namespace>>,
    /// Node names of every pod that carries our label, those of invalid WorkerPools too: all others are foreign.
    pub own_nodes: Arc<BTreeSet<String>>,
    /// Loads that Pools and WorkerPools heed.
    pub loads: Loads,
}

/// One WorkerPool, its revisions and its pods.
#[derive(Clone, Debug)]
pub struct PoolInput {
    /// Which one; no two have the same.
    pub key: Arc<PoolKey>,
    /// Id of the broker all its queues are on; key into [`Snapshot::brokers`].
    pub broker: String,
    /// Names of its queues on the broker.
    pub queues: Vec<Arc<str>>,
    /// Slots of one pod, at least 1.
    pub slots: u32,
    /// When the slots of its workers are halved, if ever.
    pub dynamic: Option<Dynamic>,
    /// Messages that one slot may hold, the running one included: Celery's prefetch multiplier. `None` means
    /// unlimited.
    pub prefetch: Option<u32>,
    /// A worker executes its one task by itself, and is silent meanwhile.
    pub solo: bool,
    /// Least consuming pods.
    pub min: u32,
    /// Most consuming pods.
    pub max: u32,
    /// Times in which there are more than `min`.
    pub schedules: Arc<[Schedule]>,
    /// Pods that an operator has decided on last, by the status, where it says so: only for a process that has decided on
    /// nothing itself, and while revisions differ. It may be old or edited, and counts within bounds alone.
    pub desired: Option<u32>,
    /// Most consuming pods by `maxActiveTasks` of its queue: no hold and no rollout passes it.
    pub cap: Option<u32>,
    /// How it comes to a number.
    pub policy: Policy,
    /// How long a need must be gone before pods go.
    pub scale_down_delay: Duration,
    /// What to do when data stays away.
    pub fallback: Option<Fallback>,
    /// A manual hold.
    pub hold: Option<Hold>,
    /// What an annotation keeps from being done.
    pub pause: Pause,
    /// What the demand asks for is told and not done.
    pub recommend: bool,
    /// Since when it is paused or only recommends, where the object says so.
    pub overridden_since: Option<Timestamp>,
    /// When tasks of this pool acknowledge.
    pub ack_mode: AckMode,
    /// Revision of the current spec.
    pub revision: Arc<str>,
    /// The Deployments that exist, in any order.
    pub revisions: Vec<RevisionInput>,
    /// Its pods, in any order, draining ones included.
    pub pods: Vec<PodInput>,
    /// What it takes of Pools, and in whose favour.
    pub bid: Bid,
    /// Someone else scales it: in which words.
    pub conflict: Option<String>,
    /// The WorkerPool is being deleted, or is not there as it was: nothing is created or scaled. A namespace that is
    /// being deleted shows only in this way, once its WorkerPools go.
    pub terminating: bool,
}

/// What a WorkerPool asks of Pools.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bid {
    /// What a pod of the present revision takes.
    pub charge: Arc<Charge>,
    /// Its queues as its Pools see them, in any order.
    pub queues: Vec<BidQueue>,
}

/// One queue of a [`Bid`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BidQueue {
    /// Name of the TaskQueue.
    pub object: String,
    /// Name on the broker.
    pub queue: String,
    /// Its tier; the higher is served first.
    pub tier: u32,
}

/// Pools of one namespace, and what its queues weigh.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespace {
    /// By name.
    pub pools: BTreeMap<String, Budget>,
    /// What its TaskQueues weigh.
    pub weights: Arc<Weights>,
}

/// One Pool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    /// Its slots; `None` for no limit.
    pub slots: Option<u64>,
    /// Slots that are granted from at the moment; `None` for no limit.
    pub effective: Option<u64>,
    /// The load above which half of them are not granted.
    pub shedding: Option<Shedding>,
    /// Slots that are kept for one queue each, by name of the TaskQueue.
    pub guarantees: BTreeMap<String, u64>,
    /// What its status grants, by uid of the WorkerPool.
    pub granted: BTreeMap<String, u64>,
    /// What pods take, those of WorkerPools that are gone included, by uid of the WorkerPool.
    pub used: BTreeMap<String, u64>,
}

/// `spec.celery.dynamicConcurrency`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dynamic {
    /// The load above which slots are halved.
    pub high_percent: u8,
    /// Which load; key into [`Snapshot::loads`].
    pub load: LoadKey,
    /// Slots are processes, of which those end that execute nothing.
    pub processes: bool,
}

/// `spec.loadShedding`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shedding {
    /// The load above which slots are halved.
    pub high_percent: u8,
    /// Which load; key into [`Snapshot::loads`].
    pub load: LoadKey,
    /// By its status, the Pool was shedding: what a process that has just started goes on with.
    pub was: bool,
}

/// `spec.scaling.fallback`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fallback {
    /// At least this many pods.
    pub replicas: u32,
    /// After so long without fresh data.
    pub after: Duration,
}

/// What may not be done although the demand asks for it: an annotation says so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pause {
    /// No pod goes.
    pub scale_in: bool,
    /// No pod is added.
    pub scale_out: bool,
}

/// `spec.replicas`: a manual hold and who wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// The number.
    pub replicas: u32,
    /// Field manager that wrote it, and when, where the object says so.
    pub by: Option<(String, Option<Timestamp>)>,
}

/// One Deployment of a WorkerPool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RevisionInput {
    /// The revision's name.
    pub name: Arc<str>,
    /// `spec.replicas` of the Deployment.
    pub replicas: u32,
    /// When the Deployment was created.
    pub created: Timestamp,
    /// A worker of it was heard, or seen to consume, by its annotation, and when.
    pub proven: Option<Timestamp>,
    /// It was given up, by its annotation.
    pub failed: bool,
    /// Its controllers have not acted on the number yet, or on an earlier one: pods may still go, or come.
    pub behind: bool,
    /// The queues that its workers were started with, where they are not those of the present spec.
    pub queues: Option<Vec<Arc<str>>>,
    /// Slots of one of its pods, where they are not those of the present spec.
    pub slots: Option<u32>,
    /// Refusals by the cluster (quota, admission), in the server's words.
    pub refused: Option<Trouble>,
    /// What a pod of it takes of Pools.
    pub charge: Arc<Charge>,
    /// Replicas that its `ReplicaSet`s have.
    pub made: u32,
}

/// One pod.
#[allow(clippy::struct_excessive_bools)] // They are the pod's own, and none follows from another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodInput {
    /// Its name.
    pub name: PodName,
    /// Its revision label.
    pub revision: Arc<str>,
    /// When it was created.
    pub created: Timestamp,
    /// When the present run of the worker container started, by the node's clock. `None` while it does not run.
    pub started: Option<Timestamp>,
    /// When this operator first saw the present run of the container.
    pub running_since: Option<Moment>,
    /// The worker container has run before in this pod.
    pub restarted: bool,
    /// All containers ready.
    pub ready: bool,
    /// How soon its `ReplicaSet` would end it, before it looks at costs.
    pub rank: Rank,
    /// Since when it has been seen to be ready without a break.
    pub ready_since: Option<Moment>,
    /// It has a deletion timestamp.
    pub draining: bool,
    /// When it was to be gone at the latest, once it is draining.
    pub due: Option<Timestamp>,
    /// It is parked, by its deletion cost.
    pub mark: Option<Mark>,
    /// Since when that very mark has been seen.
    pub marked: Option<Moment>,
    /// Since when it has been seen to be parked, whichever its mark was meanwhile.
    pub parked: Option<Moment>,
    /// When its mark was seen to be taken off.
    pub unmarked: Option<Moment>,
    /// It was parked and was brought back, by its deletion cost.
    pub returned: bool,
    /// What keeps it from running.
    pub trouble: Option<Trouble>,
    /// What it takes of Pools.
    pub charge: Arc<Charge>,
}

impl PodInput {
    /// As a process that begins at `now` has it: what the cluster keeps of the pod is as it was, and whatever was seen of it
    /// was first seen then.
    pub fn see_anew(&mut self, now: Moment) {
        for since in [
            &mut self.running_since,
            &mut self.ready_since,
            &mut self.marked,
            &mut self.parked,
        ] {
            *since = since.map(|_| now);
        }
        self.unmarked = None;
    }
}

/// The order in which a `ReplicaSet` that must shrink ends its pods; within one rank, those of the least deletion cost
/// first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// It has no node.
    #[default]
    Unassigned,
    /// Its containers have not started.
    Pending,
    /// It runs, or did, and is not ready.
    Unready,
    /// It is ready.
    Ready,
}

/// What a parked pod's deletion cost says of it. The mark outlives the operator: it is the only record that a pod should
/// take no more work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mark {
    /// It held nothing when it was parked: these go first.
    Empty,
    /// It held tasks when it was parked.
    Held,
}

/// The deletion cost of a pod that was parked and brought back: to Kubernetes the same as none, to us a reason to see that
/// its worker consumes again, whatever happened to the operator meanwhile.
pub const COST_RETURNED: &str = "0";

impl Mark {
    /// The deletion cost that stands for it. A pod without a mark costs 0.
    #[must_use]
    pub const fn cost(self) -> &'static str {
        match self {
            Self::Empty => "-2000",
            Self::Held => "-1000",
        }
    }

    /// The mark that a deletion cost stands for; any other cost is none of ours.
    #[must_use]
    pub fn of(cost: &str) -> Option<Self> {
        [Self::Empty, Self::Held]
            .into_iter()
            .find(|mark| mark.cost() == cost)
    }
}

/// Something the cluster refused, in its own words.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Trouble {
    /// The class.
    pub reason: Reason,
    /// The server's, scheduler's or node's words, bounded.
    pub message: String,
}

impl Trouble {
    /// A refusal by the API server: of a quota where it says so, of admission otherwise.
    #[must_use]
    pub fn refusal(message: &str) -> Self {
        let quota = message.contains("exceeded quota");
        Self {
            reason: if quota {
                Reason::QuotaExceeded
            } else {
                Reason::AdmissionDenied
            },
            message: bounded(message, WORDS_MAX),
        }
    }
}

impl PodInput {
    /// The name under which its worker speaks.
    #[must_use]
    pub fn node(&self) -> &str {
        self.name.node()
    }
}

impl PoolInput {
    /// Pods that take new work, starting ones included: neither parked nor draining.
    pub fn consuming(&self) -> impl Iterator<Item = &PodInput> {
        self.staying().filter(|pod| pod.mark.is_none())
    }

    /// Pods that are not being deleted, parked ones included.
    pub fn staying(&self) -> impl Iterator<Item = &PodInput> {
        self.pods.iter().filter(|pod| !pod.draining)
    }

    /// Most consuming pods, by `maxReplicas` and by `maxActiveTasks`.
    #[must_use]
    pub fn most(&self) -> u32 {
        self.max.min(self.cap.unwrap_or(u32::MAX))
    }

    /// Replicas asked for now, over all revisions, those of parked pods included.
    #[must_use]
    pub fn replicas(&self) -> u32 {
        let replicas = self.revisions.iter().map(|revision| revision.replicas);
        replicas.fold(0, u32::saturating_add)
    }
}
