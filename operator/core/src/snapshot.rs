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

use crate::sample::BrokerView;
use crate::text::bounded;
use crate::time::Moment;

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
    /// Node names of every pod that carries our label, those of invalid WorkerPools too: all others are foreign.
    pub own_nodes: BTreeSet<String>,
}

/// One WorkerPool, its revisions and its pods.
#[derive(Clone, Debug)]
pub struct PoolInput {
    /// Which one.
    pub key: PoolKey,
    /// Id of the broker all its queues are on; key into [`Snapshot::brokers`].
    pub broker: String,
    /// Names of its queues on the broker.
    pub queues: Vec<String>,
    /// Slots of one pod, at least 1.
    pub slots: u32,
    /// Messages that one slot may hold, the running one included: Celery's prefetch multiplier. `None` means
    /// unlimited.
    pub prefetch: Option<u32>,
    /// Least consuming pods.
    pub min: u32,
    /// Most consuming pods.
    pub max: u32,
    /// How long a need must be gone before pods go.
    pub scale_down_delay: Duration,
    /// What to do when data stays away.
    pub fallback: Option<Fallback>,
    /// A manual hold.
    pub hold: Option<Hold>,
    /// When tasks of this pool acknowledge.
    pub ack_mode: AckMode,
    /// Revision of the current spec.
    pub revision: String,
    /// The Deployments that exist, in any order.
    pub revisions: Vec<RevisionInput>,
    /// Its pods, in any order, draining ones included.
    pub pods: Vec<PodInput>,
    /// Someone else scales it: in which words.
    pub conflict: Option<String>,
    /// The WorkerPool is being deleted, or is not there as it was: nothing is created or scaled. A namespace that is
    /// being deleted shows only in this way, once its WorkerPools go.
    pub terminating: bool,
}

/// `spec.scaling.fallback`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fallback {
    /// At least this many pods.
    pub replicas: u32,
    /// After so long without fresh data.
    pub after: Duration,
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
    pub name: String,
    /// `spec.replicas` of the Deployment.
    pub replicas: u32,
    /// When the Deployment was created.
    pub created: Timestamp,
    /// A worker of it was heard, or seen to consume, by its annotation, and when.
    pub proven: Option<Timestamp>,
    /// It was given up, by its annotation.
    pub failed: bool,
    /// Refusals by the cluster (quota, admission), in the server's words.
    pub refused: Option<Trouble>,
}

/// One pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodInput {
    /// Its name; the worker's node name is `celery@` and this.
    pub name: String,
    /// Its revision label.
    pub revision: String,
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
    /// It has a deletion timestamp.
    pub draining: bool,
    /// Since when its deletion cost is seen to be a victim's, if it is.
    pub marked: Option<Moment>,
    /// When that mark was seen to be taken off.
    pub unmarked: Option<Moment>,
    /// What keeps it from running.
    pub trouble: Option<Trouble>,
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
    pub fn node(&self) -> String {
        format!("celery@{}", self.name)
    }
}

impl PoolInput {
    /// Pods that take new work, starting ones included.
    pub fn consuming(&self) -> impl Iterator<Item = &PodInput> {
        self.pods.iter().filter(|pod| !pod.draining)
    }

    /// Replicas asked for now, over all revisions.
    #[must_use]
    pub fn replicas(&self) -> u32 {
        let replicas = self.revisions.iter().map(|revision| revision.replicas);
        replicas.fold(0, u32::saturating_add)
    }

    /// Messages one pod can hold, running ones included; `u64::MAX` when unlimited.
    #[must_use]
    pub fn pod_capacity(&self) -> u64 {
        self.prefetch.map_or(u64::MAX, |prefetch| {
            u64::from(self.slots) * u64::from(prefetch.max(1))
        })
    }
}
