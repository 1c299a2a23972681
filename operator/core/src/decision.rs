//! A number with its reason.
//!
//! One value is made here and printed by status, events, logs and `explain` alike, so that they cannot differ.

use std::time::Duration;

use poolwright_api::Reason;

use crate::cause::Cause;
use crate::demand::{Input, PodState};
use crate::parking::Parking;
use crate::pod_name::PodName;
use crate::resizing::Resized;
use crate::rollout::Allocation;
use crate::sample::Fault;
use crate::words::Words;

/// Bytes of the reason in words.
pub const TEXT_MAX: usize = 512;

/// A bound that changed the number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Which: `minReplicas`, `maxReplicas`, `scaleDownDelaySeconds`, `workersBusy`, …
    pub name: &'static str,
    /// The number before.
    pub from: u32,
    /// The number after.
    pub to: u32,
}

/// What a WorkerPool's replicas should be, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// Pods that took work when it was made, or were to.
    pub from: u32,
    /// Pods that should take work.
    pub to: u32,
    /// The class of the reason.
    pub reason: Reason,
    /// The reason in words.
    pub words: Words,
    /// Bounds that changed the number, in the order in which they did.
    pub limits: Vec<Limit>,
    /// The numbers that went in.
    pub inputs: Vec<Input>,
    /// How `to` is spread over the revisions.
    pub allocation: Allocation,
    /// Who is parked, who goes, and the replicas that this needs.
    pub parking: Parking,
    /// Workers to ask: before pods may go, and whether they consume although they are not heard.
    pub ask: Vec<String>,
    /// What its Pools keep from it.
    pub budget: Option<Cause>,
    /// Facts for status and conditions.
    pub facts: Facts,
}

/// The limit under which a high load stands.
pub const DYNAMIC_CONCURRENCY: &str = "dynamicConcurrency";

/// The limit under which a schedule stands.
pub const SCHEDULE: &str = "schedule";

/// The limit by a Pool: by its share in the end, or by the slots that are free now.
pub const POOL: &str = "pool";

/// The limit by what more slots were seen to do.
pub const THROUGHPUT: &str = "throughput";

impl Decision {
    /// The reason in words: the formula filled in, then each limit; at most 512 bytes.
    #[must_use]
    pub fn text(&self) -> String {
        self.words.text()
    }

    /// Pods that its Pools keep from it.
    #[must_use]
    pub fn lacks(&self) -> u32 {
        let mut cuts = self.limits.iter().filter(|limit| limit.name == POOL);
        let first = cuts.next();
        let last = cuts.next_back().or(first);
        first
            .zip(last)
            .map_or(0, |(first, last)| first.from.saturating_sub(last.to))
    }

    /// Takes in what a load does to the workers.
    pub fn resized(&mut self, resized: &Resized) {
        self.facts.load_unknown.clone_from(&resized.unknown);
        if let Some((from, to)) = resized.slots {
            let name = DYNAMIC_CONCURRENCY;
            self.limits.push(Limit { name, from, to });
        }
        if let Some(words) = &resized.words {
            self.words.add_load(words);
        }
    }
}

/// What status and conditions say beside the decision.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    /// Slots executing a task on pods that were heard; `None` while heartbeats are not fresh.
    pub busy: Option<u64>,
    /// Ready and reserved; `None` while a count of a queue is not fresh.
    pub queued: Option<u64>,
    /// Slots of running consuming pods.
    pub slots: u64,
    /// The longest start-up time (pod created to its worker's first heartbeat) of the consuming pods, as far as it is
    /// known.
    pub start_up: Option<Duration>,
    /// Sources without fresh data, and why.
    pub missing: Vec<(String, Option<Fault>)>,
    /// Pods and what they do.
    pub pods: Vec<(PodName, PodState)>,
    /// Pods that are parked.
    pub parked: u32,
    /// Pods that Kubernetes has ended since the last decision in the place of parked ones.
    pub misplaced: u64,
    /// Pods that run and were never heard although heartbeats stand.
    pub unseen: Vec<String>,
    /// No worker at all is heard or seen to consume, and some are unseen: they are on another broker.
    pub elsewhere: bool,
    /// Names of pods that were lost with their node: they take no slots of Pools any more.
    pub lost: Vec<String>,
    /// Foreign workers on its queues, by name, and how many there are.
    pub foreign: (Vec<String>, u64),
    /// Messages of its queues that no living worker holds.
    pub orphaned: u64,
    /// The broker's address is known, and is RabbitMQ's.
    pub is_rabbitmq: bool,
    /// Why the load that its workers heed is not known.
    pub load_unknown: Option<String>,
    /// Workers whose answers cannot be read, and why (the first one's words).
    pub unreadable: Option<(usize, String)>,
}

impl Facts {
    /// Pods whose workers are heard, in name order.
    pub fn heard(&self) -> impl Iterator<Item = &str> {
        let heard = |state: &PodState| matches!(state, PodState::Busy(_) | PodState::Idle(_));
        self.pods
            .iter()
            .filter(move |(_, state)| heard(state))
            .map(|(name, _)| name.as_str())
    }
}
