//! A WorkerPool's pods joined with the workers that speak for them.
//!
//! A worker speaks for a pod only since the pod's present container runs: what an earlier process said in its
//! last seconds is no news of the one that replaced it.

use std::time::Duration;

use crate::ledger::{heartbeats_since, is_heard};
use crate::sample::{Answer, BrokerView, Sample, WorkerView};
use crate::snapshot::{PodInput, PoolInput};
use crate::time::Moment;

/// No heartbeat so long after the container started: the pod's slots are unseen.
pub const UNSEEN_AFTER: Duration = Duration::from_secs(60);

/// What a pod's worker is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodState {
    /// Its container does not run yet.
    Pending,
    /// Runs, not heard yet, and not for long.
    Starting,
    /// Heard, and executing this many tasks.
    Busy(u64),
    /// Heard, and executing nothing since.
    Idle(Moment),
    /// Heard once, now silent.
    Silent,
    /// Never heard although it has run, with heartbeats standing, for [`UNSEEN_AFTER`].
    Unseen,
    /// Being deleted.
    Draining,
}

/// One pod and its worker.
#[derive(Clone, Debug)]
pub struct Member<'a> {
    /// The pod.
    pub pod: &'a PodInput,
    /// Its node name.
    pub node: String,
    /// What its present container said last, however old.
    pub worker: Option<&'a WorkerView>,
    /// What it is doing.
    pub state: PodState,
}

impl<'a> Member<'a> {
    fn new(pod: &'a PodInput, view: &'a BrokerView, now: Moment) -> Self {
        let node = pod.node();
        let speaks = |worker: &&WorkerView| {
            pod.running_since.is_some_and(|since| worker.last_seen >= since) || pod.draining
        };
        let worker = view.workers.get(&node).filter(speaks);
        let state = state(pod, worker, view, now);
        Self {
            pod,
            node,
            worker,
            state,
        }
    }

    /// True for a pod that takes new work, a starting one included.
    #[must_use]
    pub fn consumes(&self) -> bool {
        !self.pod.draining
    }

    /// Its worker, while it is heard and takes new work.
    #[must_use]
    pub fn heard(&self) -> Option<&'a WorkerView> {
        self.worker
            .filter(|_| matches!(self.state, PodState::Busy(_) | PodState::Idle(_)))
    }

    /// The latest answer of the process that runs now.
    #[must_use]
    pub fn answer(&self) -> Option<&'a Sample<Answer>> {
        let worker = self.worker?;
        worker
            .answer
            .as_ref()
            .filter(|answer| answer.value.pid == worker.pid)
    }
}

fn state(pod: &PodInput, worker: Option<&WorkerView>, view: &BrokerView, now: Moment) -> PodState {
    if pod.draining {
        return PodState::Draining;
    }
    let Some(since) = pod.running_since else {
        return PodState::Pending;
    };
    match worker {
        Some(worker) if is_heard(worker, now) && worker.active > 0 => PodState::Busy(worker.active),
        Some(worker) if is_heard(worker, now) => PodState::Idle(worker.last_progress),
        Some(_) => PodState::Silent,
        // While nobody can be heard, nobody is unseen.
        None => match heartbeats_since(view, now) {
            Some(stands) if now.since(since.max(stands)) >= UNSEEN_AFTER => PodState::Unseen,
            _ => PodState::Starting,
        },
    }
}

/// One WorkerPool and its pods, in name order.
#[derive(Clone, Debug)]
pub struct Fleet<'a> {
    /// The WorkerPool.
    pub pool: &'a PoolInput,
    /// Its pods.
    pub members: Vec<Member<'a>>,
}

impl<'a> Fleet<'a> {
    /// Joins a WorkerPool's pods with the workers of its broker.
    #[must_use]
    pub fn new(pool: &'a PoolInput, view: &'a BrokerView, now: Moment) -> Self {
        let mut members: Vec<Member> = pool.pods.iter().map(|pod| Member::new(pod, view, now)).collect();
        members.sort_by(|left, right| left.pod.name.cmp(&right.pod.name));
        Self { pool, members }
    }

    /// Pods that take new work.
    pub fn consuming(&self) -> impl Iterator<Item = &Member<'a>> {
        self.members.iter().filter(|member| member.consumes())
    }

    /// How many pods are in such a state.
    #[must_use]
    pub fn count(&self, which: impl Fn(PodState) -> bool) -> u32 {
        let count = self.members.iter().filter(|member| which(member.state)).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }
}
