//! A WorkerPool's pods joined with the workers that speak for them.

use std::ops::Deref;
use std::time::Duration;

use jiff::Timestamp;

use crate::constants::UNSEEN_AFTER;
use crate::member::{Member, PodState};
use crate::memory::PoolMemory;
use crate::roster::Roster;
use crate::sample::BrokerView;
use crate::snapshot::{PoolInput, RevisionInput, Snapshot};
use crate::time::Moment;

/// A pod that has run for so long without a heartbeat is asked whether it consumes; one that does, and is ready, proves
/// its revision.
pub const CONSUMED_FOR: Duration = Duration::from_secs(30);

/// By the pods that have had time: one that was made just now says nothing yet, so that growth does not undo what stopped
/// it.
fn is_stuck(pool: &PoolInput, members: &[Member], view: &BrokerView, wall: Timestamp) -> bool {
    let consuming = || members.iter().filter(|member| member.consumes());
    if consuming().next().is_none() {
        return pool.revisions.iter().any(|revision| revision.refused.is_some());
    }
    let counted = |name: &str| {
        let ready = view.queues.get(name)?.ready.last.as_ref()?;
        ready.value.consumers
    };
    let all_consume = || {
        let running = consuming().filter(|member| member.pod.running_since.is_some());
        let running = running.count() as u64;
        let mut queues = pool.queues.iter();
        queues.all(|name| counted(name).is_some_and(|count| count >= running))
    };
    // A worker that dies of its first task is heard again and again, and never for long.
    let is_since = |at: Timestamp, time: Duration| {
        let age = Duration::try_from(wall.duration_since(at)).unwrap_or_default();
        age >= time
    };
    let lasts = |member: &Member| member.pod.started.is_some_and(|at| is_since(at, CONSUMED_FOR));
    let speaks = |member: &Member| member.engaged || member.heard().is_some();
    let works = |member: &Member| member.seen_consuming() || speaks(member) && lasts(member);
    let fails = |member: &Member| {
        let old = is_since(member.pod.created, UNSEEN_AFTER);
        let anew = member.pod.started.is_some() && !lasts(member);
        let unseen = || member.state == PodState::Unseen && !all_consume();
        old && (member.pod.trouble.is_some() || anew || unseen())
    };
    !consuming().any(works) && consuming().any(fails)
}

/// A revision with another number in place of its replicas.
#[derive(Clone, Copy, Debug)]
pub struct Revision<'a> {
    /// As it is.
    input: &'a RevisionInput,
    /// Pods that take new work, or will: a parked pod counts as gone.
    pub replicas: u32,
}

impl<'a> Revision<'a> {
    /// With the replicas that its Deployment has.
    pub(crate) const fn as_is(&self) -> &'a RevisionInput {
        self.input
    }
}

impl Deref for Revision<'_> {
    type Target = RevisionInput;

    fn deref(&self) -> &RevisionInput {
        self.input
    }
}

/// A revision with the number of pods that take new work, or are still to come. Between a write and the act of
/// Kubernetes there are other pods than replicas: those that are about to go are the parked ones, as far as these reach.
fn serving<'a>(revision: &'a RevisionInput, members: &[Member]) -> Revision<'a> {
    let own = members
        .iter()
        .filter(|member| member.pod.revision == revision.name);
    let (mut staying, mut parked) = (0u32, 0u32);
    for member in own.filter(|member| !member.pod.draining) {
        staying += 1;
        parked += u32::from(member.is_parked());
    }
    Revision {
        input: revision,
        replicas: revision
            .replicas
            .max(staying)
            .saturating_sub(parked.max(staying.saturating_sub(revision.replicas))),
    }
}

/// One WorkerPool and its pods, in name order.
#[derive(Clone, Debug)]
pub struct Fleet<'a> {
    /// The WorkerPool.
    pub pool: &'a PoolInput,
    /// Its pods.
    pub members: Vec<Member<'a>>,
    /// Its Deployments, in name order, with the number of pods that take new work, or will, in place of the replicas.
    pub revisions: Vec<Revision<'a>>,
    /// It cannot work: it has had pods for [`UNSEEN_AFTER`], none can start or be heard, or none can be made.
    pub stuck: bool,
    /// Slots of a pod of the revision that serves.
    pub slots: u32,
}

/// Slots of a pod of the revision that serves: of the latest proven one while the newest has not shown that it works.
fn serving_slots(pool: &PoolInput) -> u32 {
    let newest = |one: &&RevisionInput| one.name == pool.revision;
    if pool
        .revisions
        .iter()
        .find(newest)
        .is_some_and(|one| one.proven.is_some())
    {
        return pool.slots;
    }
    let latest = pool.revisions.iter().max_by_key(|one| (one.proven, &one.name));
    let proven = latest.filter(|one| one.proven.is_some());
    proven.and_then(|one| one.slots).unwrap_or(pool.slots)
}

impl<'a> Fleet<'a> {
    /// Joins a WorkerPool's pods with the workers of its broker, and with what is remembered of them.
    #[must_use]
    pub fn new(pool: &'a PoolInput, view: &'a BrokerView, snapshot: &Snapshot, memory: &PoolMemory) -> Self {
        Self::join(pool, (view, &mut Roster::new(view)), snapshot, memory)
    }

    /// The same for one of many on a broker.
    pub(crate) fn join(
        pool: &'a PoolInput,
        (view, roster): (&'a BrokerView, &mut Roster<'a>),
        snapshot: &Snapshot,
        memory: &PoolMemory,
    ) -> Self {
        let member = |pod| Member::new(pod, pool, (view, &mut *roster), snapshot, memory);
        let mut members: Vec<Member> = pool.pods.iter().map(member).collect();
        members.sort_by(|left, right| left.pod.name.cmp(&right.pod.name));
        let stuck = is_stuck(pool, &members, view, snapshot.wall);
        let revisions = pool.revisions.iter().map(|one| serving(one, &members));
        let mut revisions: Vec<Revision> = revisions.collect();
        revisions.sort_by(|left, right| left.name.cmp(&right.name));
        Self {
            pool,
            members,
            revisions,
            stuck,
            slots: serving_slots(pool),
        }
    }

    /// Pods that take new work.
    pub fn consuming(&self) -> impl Iterator<Item = &Member<'a>> {
        self.members.iter().filter(|member| member.consumes())
    }

    /// Workers that were never heard and should have been: whether they consume, only they can say.
    pub fn unheard(&self, now: Moment) -> impl Iterator<Item = &Member<'a>> {
        self.consuming()
            .filter(move |member| member.worker.is_none() && member.has_run(CONSUMED_FOR, now))
    }

    /// Pods that take new work, or will, over all revisions.
    #[must_use]
    pub fn serving(&self) -> u32 {
        let serving = self.revisions.iter().map(|revision| revision.replicas);
        serving.fold(0, u32::saturating_add)
    }

    /// Where the cluster refuses pods: those that there are, and one that it may take. A revision that it does not refuse can
    /// have more.
    #[must_use]
    pub fn with_one_refused(&self) -> Option<u32> {
        let mut asked = self
            .revisions
            .iter()
            .filter(|revision| revision.input.replicas > 0)
            .peekable();
        let refused = asked.peek().is_some() && asked.all(|revision| revision.refused.is_some());
        let there = self.members.iter().filter(|member| !member.pod.draining).count();
        refused.then(|| u32::try_from(there).unwrap_or(u32::MAX).saturating_add(1))
    }

    /// The longest start-up time of the pods that take new work, as far as it is known.
    #[must_use]
    pub fn start_up(&self) -> Option<Duration> {
        self.consuming().filter_map(Member::start_up).max()
    }

    /// How many pods are in such a state.
    #[must_use]
    pub fn count(&self, which: impl Fn(PodState) -> bool) -> u32 {
        let count = self.members.iter().filter(|member| which(member.state)).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }
}
