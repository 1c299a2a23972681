//! One pod and the worker that speaks for it.
//!
//! A worker speaks for a pod only since the pod's present container runs: what an earlier process said in its
//! last seconds is no news of the one that replaced it. Decides nothing.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::constants::UNSEEN_AFTER;
use crate::ledger::{ANSWER_AGE, INTERVAL_MAX, heartbeats_since, is_heard, sum};
use crate::memory::PoolMemory;
use crate::roster::Roster;
use crate::sample::{Answer, BrokerView, Sample, WorkerView};
use crate::snapshot::{PodInput, PoolInput, Snapshot};
use crate::time::Moment;

/// A container that this process first saw running no later than this was watched as it started: its start has whole
/// seconds, and a node reports it a moment later.
const WATCHED_WITHIN: Duration = Duration::from_secs(5);

/// After so many intervals without a heartbeat a worker without an execution pool is at work: one may be late.
const MISSED_BEATS: u32 = 2;

/// Between two heartbeats of a worker that has told of no other time: Celery's own.
const INTERVAL: Duration = Duration::from_secs(2);

/// A pod that should be gone for so long, and is silent for so long, is lost.
const LOST_AFTER: Duration = Duration::from_secs(60);

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
    /// Heard once, now silent; or silent at work for longer than any worker is remembered.
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
    /// What its present container said last, however old.
    pub worker: Option<&'a WorkerView>,
    /// Without a heartbeat: the queues that its present container lately said it consumes, if the WorkerPool's are
    /// among them.
    pub said: Option<&'a BTreeSet<String>>,
    /// What it is doing.
    pub state: PodState,
    /// Slots that it was made with.
    pub made_with: u32,
    /// It is silent because it executes a task by itself.
    pub engaged: bool,
    start_up: Option<Duration>,
}

impl<'a> Member<'a> {
    pub(crate) fn new(
        pod: &'a PodInput,
        pool: &PoolInput,
        (view, roster): (&'a BrokerView, &mut Roster<'a>),
        snapshot: &Snapshot,
        memory: &PoolMemory,
    ) -> Self {
        let now = snapshot.now;
        let node = pod.node();
        let speaks = |worker: &&WorkerView| {
            pod.running_since.is_some_and(|since| worker.last_seen >= since) || pod.draining
        };
        let worker = roster.find(node).filter(speaks);
        let said = said(pod, view, node, now).filter(|_| worker.is_none());
        let older = pool.revisions.iter().find(|one| one.name == pod.revision);
        let first = pool.solo.then(|| memory.first_heard(pod)).flatten();
        let proven = older.is_some_and(|one| one.proven.is_some());
        let forgotten = || said.is_none() && is_forgotten(pod, (first.is_some(), proven), view, snapshot);
        let engaged = pool.solo && worker.map_or_else(forgotten, |worker| is_engaged(pod, worker, view, now));
        Self {
            pod,
            made_with: older.and_then(|one| one.slots).unwrap_or(pool.slots),
            start_up: worker.and_then(|worker| {
                let first = first.map_or(worker.first_seen, |at| at.min(worker.first_seen));
                start_up(pod, first, view, snapshot)
            }),
            state: match state(pod, worker, view, now) {
                PodState::Starting | PodState::Unseen if engaged => PodState::Silent,
                state => state,
            },
            engaged,
            worker,
            said: said.filter(|said| pool.queues.iter().any(|queue| said.contains(&**queue))),
        }
    }

    /// Its node name.
    #[must_use]
    pub fn node(&self) -> &'a str {
        self.pod.node()
    }

    /// Its start-up time: from the pod's creation to its worker's first heartbeat. `None` before that heartbeat, where
    /// the container has run before, and where this process did not watch it start or could not hear it then: the
    /// first heartbeat that it knows may not be the first.
    #[must_use]
    pub fn start_up(&self) -> Option<Duration> {
        self.start_up
    }

    /// True for a pod that takes new work, a starting one included.
    #[must_use]
    pub fn consumes(&self) -> bool {
        !self.pod.draining && self.pod.mark.is_none()
    }

    /// True for one that is to take no new work and is not being deleted.
    #[must_use]
    pub fn is_parked(&self) -> bool {
        !self.pod.draining && self.pod.mark.is_some()
    }

    /// True if it is not heard and has said itself that it consumes a queue of the WorkerPool.
    #[must_use]
    pub fn seen_consuming(&self) -> bool {
        self.said.is_some() && self.consumes()
    }

    /// True for one that was to be gone long ago, and whose worker would be heard if it ran: its node is dead, and what it
    /// takes of Pools is taken by nothing any more.
    #[must_use]
    pub fn is_lost(&self, view: &BrokerView, snapshot: &Snapshot) -> bool {
        if !self.pod.draining {
            return false;
        }
        let now = snapshot.now;
        let overdue = self.pod.due.is_some_and(|due| {
            let late = Duration::try_from(snapshot.wall.duration_since(due)).unwrap_or_default();
            late >= LOST_AFTER
        });
        let audible = heartbeats_since(view, now).is_some_and(|since| now.since(since) >= LOST_AFTER);
        let mute = self
            .worker
            .is_none_or(|worker| now.since(worker.last_seen) >= LOST_AFTER);
        overdue && audible && mute
    }

    /// True if its present container has run for so long.
    #[must_use]
    pub fn has_run(&self, long: Duration, now: Moment) -> bool {
        self.pod
            .running_since
            .is_some_and(|since| now.since(since) >= long)
    }

    /// Tasks that it executes: as its heartbeats say, or the one for which it sends none.
    #[must_use]
    pub fn active(&self) -> u64 {
        let said = self.heard().map_or(0, |worker| worker.active);
        said.max(u64::from(self.engaged))
    }

    /// Its worker, while it is heard.
    #[must_use]
    pub fn heard(&self) -> Option<&'a WorkerView> {
        self.worker
            .filter(|_| matches!(self.state, PodState::Busy(_) | PodState::Idle(_)))
    }

    /// The latest answer of the process that runs now. Its pid alone would not tell: in a container it is 1 again and
    /// again.
    #[must_use]
    pub fn answer(&self) -> Option<&'a Sample<Arc<Answer>>> {
        let worker = self.worker?;
        let anew = |at: Moment| self.pod.running_since.is_some_and(|since| at < since);
        worker
            .answer
            .as_ref()
            .filter(|answer| answer.value.pid == worker.pid && !anew(answer.at))
    }

    /// Slots that its present process last said it has.
    #[must_use]
    pub fn size(&self) -> Option<&'a Sample<u64>> {
        let size = self.worker?.size.as_ref()?;
        let since = self.pod.running_since?;
        Some(size).filter(|size| size.at >= since)
    }

    /// Tasks that it can execute at a time, as far as is known.
    #[must_use]
    pub fn slots(&self) -> u64 {
        let all = u64::from(self.made_with);
        self.size().map_or(all, |size| size.value.min(all))
    }

    /// Tasks that its worker said it holds, running ones that have not acknowledged included.
    #[must_use]
    pub fn said_held(&self) -> Option<u64> {
        let answer = &self.answer()?.value;
        let running = answer.running.values().map(|running| running.unacknowledged);
        Some(sum(running.chain(answer.reserved.values().copied())))
    }
}

/// What the pod's present container has said it consumes, no longer ago than any other answer is used.
fn said<'a>(pod: &PodInput, view: &'a BrokerView, node: &str, now: Moment) -> Option<&'a BTreeSet<String>> {
    let answer = view.unheard.get(node)?.queues.as_ref()?;
    let counts = answer.at >= pod.running_since? && now.since(answer.at) <= ANSWER_AGE;
    counts.then_some(&answer.value)
}

/// From its creation to this first heartbeat. Wall clocks of two machines are compared, so it is as good as they agree; a
/// creation later than the heartbeat is none.
fn start_up(pod: &PodInput, first: Moment, view: &BrokerView, snapshot: &Snapshot) -> Option<Duration> {
    let since = pod.running_since?;
    let stands = view.heartbeats.last.as_ref()?.value;
    let audible = stands <= since || first < stands;
    if pod.restarted || !was_watched(pod, snapshot)? || !audible {
        return None;
    }
    before(pod.created, first, snapshot)
}

/// From a time by another machine's clock to a moment by ours.
fn before(wall: Timestamp, at: Moment, snapshot: &Snapshot) -> Option<Duration> {
    age(wall, snapshot).checked_sub(snapshot.now.since(at))
}

fn age(wall: Timestamp, snapshot: &Snapshot) -> Duration {
    Duration::try_from(snapshot.wall.duration_since(wall)).unwrap_or_default()
}

/// True if this process watched its container start; `None` while that does not run.
fn was_watched(pod: &PodInput, snapshot: &Snapshot) -> Option<bool> {
    let late = before(pod.started?, pod.running_since?, snapshot);
    Some(late.is_none_or(|late| late <= WATCHED_WITHIN))
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

/// True for a worker that misses its heartbeats while those of others would be heard. A worker without an execution pool does
/// nothing else while it executes a task, and beats between two of them, which says that it executes none.
fn is_engaged(pod: &PodInput, worker: &WorkerView, view: &BrokerView, now: Moment) -> bool {
    let late = worker.interval.min(INTERVAL_MAX) * MISSED_BEATS;
    let audible = heartbeats_since(view, now).is_some_and(|stands| now.since(stands) > late);
    !pod.draining && !worker.offline && audible && now.since(worker.last_seen) > late
}

/// True for a worker that nothing is known of and that would be heard by now if it did not execute a task: it `was_heard`
/// long ago, or may have been before this process listened and its revision is proven. One that should have been heard
/// from its start on and never was is no such worker: it may not work at all, or elsewhere.
fn is_forgotten(
    pod: &PodInput,
    (was_heard, proven): (bool, bool),
    view: &BrokerView,
    snapshot: &Snapshot,
) -> bool {
    let (Some(since), Some(stands)) = (pod.running_since, heartbeats_since(view, snapshot.now)) else {
        return false;
    };
    let audible = snapshot.now.since(since.max(stands)) > INTERVAL * MISSED_BEATS;
    let missed = || stands > since || was_watched(pod, snapshot) == Some(false);
    // A young one may still be coming up.
    let old = || pod.started.is_some_and(|at| age(at, snapshot) >= UNSEEN_AFTER);
    !pod.draining && audible && (was_heard || proven && missed() && old())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::Fleet;
    use crate::objects::Objects;
    use crate::sample::Signal;
    use crate::testing::{observed, wp};
    use serde_json::json;

    /// A snapshot 100 s after the process started, 1,000 s after the epoch.
    fn snapshot() -> Snapshot {
        Snapshot {
            now: Moment(100_000),
            wall: Timestamp::from_second(1000).expect("a time"),
            ..Snapshot::default()
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    /// Created 50 s ago, running for 45 s and seen so a second later.
    fn pod() -> PodInput {
        PodInput {
            name: "p".into(),
            created: at(950),
            started: Some(at(955)),
            running_since: Some(Moment(56_000)),
            ..PodInput::default()
        }
    }

    /// Heard first 42 s ago; the subscription stands since `stands`.
    fn view(stands: u64) -> BrokerView {
        let worker = WorkerView {
            last_seen: Moment(99_000),
            ..WorkerView::new(1, 0, Duration::from_secs(2), Moment(58_000))
        };
        let mut heartbeats = Signal::default();
        heartbeats.succeed(Moment(stands), Moment(100_000));
        BrokerView {
            workers: [("celery@p".into(), worker)].into(),
            heartbeats,
            ..BrokerView::default()
        }
    }

    fn of(pod: &PodInput, view: &BrokerView) -> Option<Duration> {
        let pool = observed(
            &wp(json!({"celery": {"concurrency": 2}})),
            &Objects::default(),
            None,
        );
        let views = (view, &mut Roster::new(view));
        Member::new(pod, &pool, views, &snapshot(), &PoolMemory::default()).start_up()
    }

    #[test]
    fn the_start_up_time_ends_with_the_first_heartbeat() {
        let eight = Some(Duration::from_secs(8));
        assert_eq!(of(&pod(), &view(1_000)), eight);
        // A break of the subscription after that heartbeat changes nothing.
        assert_eq!(of(&pod(), &view(90_000)), eight);
        let unheard = BrokerView {
            workers: [].into(),
            ..view(1_000)
        };
        assert_eq!(of(&pod(), &unheard), None);
    }

    #[test]
    fn a_start_that_was_not_watched_has_no_time() {
        let late = PodInput {
            started: Some(at(949)),
            ..pod()
        };
        assert_eq!(of(&late, &view(1_000)), None, "the process came 7 s after it");
        let again = PodInput {
            restarted: true,
            ..pod()
        };
        assert_eq!(of(&again, &view(1_000)), None, "an earlier run was heard");
        assert_eq!(of(&pod(), &view(57_000)), None, "it may have spoken unheard");
        let ahead = PodInput {
            created: at(959),
            ..pod()
        };
        assert_eq!(of(&ahead, &view(1_000)), None, "the clocks differ");
    }

    #[test]
    fn the_longest_start_up_counts_and_draining_pods_do_not() {
        let view = view(1_000);
        let worker = &view.workers["celery@p"];
        let workers = ["p", "q", "r"].map(|name| (format!("celery@{name}"), worker.clone()));
        let view = BrokerView {
            workers: workers.into(),
            ..view.clone()
        };
        let named = |name: &str, created: i64, draining: bool| PodInput {
            name: name.into(),
            created: at(created),
            draining,
            ..pod()
        };
        let mut pool = observed(
            &wp(json!({"celery": {"concurrency": 2}})),
            &Objects::default(),
            None,
        );
        pool.pods = vec![
            named("p", 950, false),
            named("q", 948, false),
            named("r", 940, true),
        ];
        let fleet = Fleet::new(&pool, &view, &snapshot(), &PoolMemory::default());
        assert_eq!(fleet.start_up(), Some(Duration::from_secs(10)));
    }
}
