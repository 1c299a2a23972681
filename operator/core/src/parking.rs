//! Which pods are parked, which come back, and which go.
//!
//! A pod that should go is parked first: it takes no more work and finishes what it holds, and if demand returns it takes
//! work again. It goes when it is known to be empty. Kubernetes chooses whom it ends, so a number of replicas falls only as
//! far as its order, whatever the ties in it, takes none but pods that may go. How many pods should take work is decided
//! before; this module may not change that.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::demand::{Demand, PodState};
use crate::evidence::{Proof, mute_since};
use crate::fleet::{Fleet, Revision};
use crate::ledger::{heartbeats_since, sum};
use crate::member::Member;
use crate::memory::PoolMemory;
use crate::rollout::Allocation;
use crate::sample::BrokerView;
use crate::snapshot::{Mark, PodInput, Rank, RevisionInput};
use crate::time::Moment;

/// A mark must have been seen for so long before replicas fall: the `ReplicaSet` controller's own view may be behind ours.
const MARKED_FOR: Duration = Duration::from_secs(2);
/// A worker that cannot be asked is empty when it has shown nothing for the scale-in delay, and for so long.
const UNREADABLE_IDLE: Duration = Duration::from_secs(10);
/// So long the proof for idle pods is waited for, so that those that were parked together go in one write. After it, who
/// keeps the others back gets another mark.
const PATIENCE: Duration = Duration::from_secs(15);
/// A parked worker that has been silent for so long, while others could be heard, is given back: it counts as full.
const SILENT_FOR: Duration = Duration::from_secs(30);

/// What becomes of the pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parking {
    /// Pods that should take no more work, those that have not started first.
    pub victims: Vec<String>,
    /// Marks to write: `None` takes one off.
    pub marks: Vec<(String, Option<Mark>)>,
    /// Replicas of each Deployment, parked pods included.
    pub replicas: Vec<(Arc<str>, u32)>,
    /// Workers to ask: whether they are empty.
    pub ask: Vec<String>,
}

impl Parking {
    /// The replicas of one Deployment, if they are to be as said here.
    #[must_use]
    pub fn replicas(&self, revision: &str) -> Option<u32> {
        let mut all = self.replicas.iter();
        all.find(|(name, _)| **name == *revision).map(|(_, count)| *count)
    }
}

/// What it depends on.
pub struct Yard<'a> {
    /// The WorkerPool and its pods.
    pub fleet: &'a Fleet<'a>,
    /// Its broker.
    pub view: &'a BrokerView,
    /// Its demand: no pod that runs goes while a source is missing.
    pub demand: &'a Demand,
    /// What was seen before.
    pub memory: &'a PoolMemory,
    /// The last pod may go.
    pub may_empty: bool,
    /// Now.
    pub now: Moment,
}

/// One revision's pods that are not being deleted.
struct Row<'a> {
    revision: &'a RevisionInput,
    fleet: &'a Fleet<'a>,
    staying: u32,
    /// It is given up, or another takes its place before any worker of it was heard.
    replaced: bool,
}

/// Decides it for every revision that has a target.
#[must_use]
pub fn park(yard: &Yard, allocation: &Allocation) -> Parking {
    let mut parking = Parking {
        replicas: Vec::with_capacity(allocation.targets.len()),
        ..Parking::default()
    };
    if yard.fleet.pool.conflict.is_some() {
        // Whoever scales it now counts on pods that work.
        let parked = yard.fleet.members.iter().filter(|member| member.is_parked());
        parking.marks = parked.map(|member| (member.pod.name.to_string(), None)).collect();
        return parking;
    }
    let revisions = || yard.fleet.revisions.iter().map(Revision::as_is);
    let row = |revision| Row::new(yard.fleet, revision, allocation);
    let mut spare = u32::MAX;
    if !yard.may_empty {
        let rows = revisions().map(row);
        let left = rows.map(|row| row.staying - row.leaving());
        spare = left.fold(0, u32::saturating_add).saturating_sub(1);
    }
    for revision in revisions() {
        if let Some(target) = allocation.target(&revision.name) {
            yard.settle(&row(revision), target, &mut spare, &mut parking);
        }
    }
    parking.ask.sort();
    parking
}

impl<'a> Row<'a> {
    fn new(fleet: &'a Fleet<'a>, revision: &'a RevisionInput, allocation: &Allocation) -> Self {
        let own = |member: &&Member| is_of(member, revision);
        Self {
            revision,
            fleet,
            staying: count(fleet.members.iter().filter(own).count()),
            replaced: revision.failed
                || allocation.fail.iter().any(|name| **name == *revision.name)
                || revision.name != fleet.pool.revision && revision.proven.is_none(),
        }
    }

    fn pods(&self) -> impl Iterator<Item = &'a Member<'a>> {
        let revision = self.revision;
        self.fleet
            .members
            .iter()
            .filter(move |member| is_of(member, revision))
    }

    /// Pods are about to appear: one that was just made, and that nobody has marked, could go for one that may. Where the
    /// cluster refuses them there are none.
    fn unseen(&self) -> bool {
        self.revision.refused.is_none() && self.staying < self.revision.replicas
    }

    /// How many are about to go: the number fell, and Kubernetes acts a moment later.
    fn leaving(&self) -> u32 {
        self.staying.saturating_sub(self.revision.replicas)
    }
}

fn is_of(member: &Member, revision: &RevisionInput) -> bool {
    !member.pod.draining && member.pod.revision == revision.name
}

fn count(pods: usize) -> u32 {
    u32::try_from(pods).unwrap_or(u32::MAX)
}

/// How long a mark that was taken off may still be seen by others.
fn unmark_left(pod: &PodInput, now: Moment) -> Duration {
    let since = pod.unmarked.filter(|_| pod.mark.is_none());
    since.map_or(Duration::ZERO, |at| MARKED_FOR.saturating_sub(now.since(at)))
}

impl Yard<'_> {
    fn settle(&self, row: &Row, target: u32, spare: &mut u32, parking: &mut Parking) {
        let wanted = row.staying.saturating_sub(target) as usize;
        let chosen = self.choose(row, wanted);
        let (many, going) = (count(chosen.len()), row.leaving().min(count(chosen.len())));
        let mut released = 0;
        // Too many come back as soon as Kubernetes has done what it was told before.
        if chosen.len() <= wanted && going < many && !row.unseen() {
            released = self.release(row, &chosen).min(many - going).min(*spare);
        }
        *spare -= released;
        let serving = target.max(row.staying - many);
        let mut replicas = serving + many - going - released;
        if row.unseen() {
            replicas = replicas.max(row.revision.replicas);
        }
        parking.replicas.push((row.revision.name.clone(), replicas));
        let falls = released > 0 || row.leaving() > 0 || row.revision.behind;
        for member in row.pods() {
            let is_chosen = chosen.iter().any(|one| one.pod.name == member.pod.name);
            let mark = is_chosen.then(|| self.mark(row, member, &chosen));
            // While Kubernetes is choosing, one that is newly marked might go for one that was proven empty.
            let waits = falls && member.pod.mark.is_none();
            if mark != member.pod.mark && !waits {
                parking.marks.push((member.pod.name.to_string(), mark));
            }
        }
        for member in chosen {
            if member.heard().is_some() {
                parking.ask.push(member.node().to_owned());
            }
            parking.victims.push(member.pod.name.to_string());
        }
    }

    /// How many more may go now. While the proof for one that idles is under way, only those that have not started.
    fn release(&self, row: &Row, chosen: &[&Member]) -> u32 {
        let names: BTreeSet<&str> = chosen.iter().map(|one| one.pod.name.as_str()).collect();
        let unborn = |member: &Member| member.pod.running_since.is_none();
        // Of those that have not started it does not matter which go.
        let meant = |member: &Member| names.contains(member.pod.name.as_str()) || unborn(member);
        let fall = self.safe_fall(row, |member| meant(member) && self.may_go(row, member));
        let open = |member: &&&Member| self.is_open(member) && !self.may_go(row, member);
        let waits = chosen.iter().any(|member| open(&member));
        // One that starts while the number falls would be one of those that run: its mark tells it from them. The mark was
        // written onto it as it was before it started, so whoever sees it start sees the mark.
        let told = |member: &&&Member| {
            member.pod.mark.is_some() && self.may_go(row, member) && (!waits || unborn(member))
        };
        let most = chosen.iter().filter(told).count();
        fall.min(count(most)).saturating_sub(row.leaving())
    }

    /// Those that are parked stay so, whatever the others do meanwhile. Too few: those that have not started, then those
    /// that have been empty longest, then those that hold least. Too many: those with most free slots come back, unless
    /// Kubernetes may be about to end them.
    fn choose<'a>(&self, row: &Row<'a>, wanted: usize) -> Vec<&'a Member<'a>> {
        let mut chosen: Vec<&Member> = row.pods().filter(|member| member.is_parked()).collect();
        if row.leaving() == 0 && !row.revision.behind {
            chosen.retain(|member| !self.is_lost(row, member));
            chosen.sort_by_key(|one| (held(one), Reverse(one.pod.parked), &one.pod.name));
            let surplus = chosen.len().saturating_sub(wanted);
            chosen.drain(..surplus);
        }
        let lacking = wanted.saturating_sub(chosen.len());
        if lacking > 0 {
            let mut others: Vec<_> = row
                .pods()
                .filter(|member| !member.is_parked() && self.is_eligible(row, member))
                .collect();
            others.sort_by_key(|member| (order(member), &member.pod.name));
            others.truncate(lacking);
            chosen.extend(others);
        }
        chosen.sort_by_key(|member| (order(member), &member.pod.name));
        chosen
    }

    /// One that is not heard is no victim: what it does is not known. Unless it is silent because it works, or never was
    /// heard and another revision takes its place, or somebody holds the number by hand.
    fn is_eligible(&self, row: &Row, member: &Member) -> bool {
        let unheard = matches!(member.state, PodState::Silent | PodState::Unseen);
        let unknown = row.replaced && member.worker.is_none();
        !unheard || member.engaged || unknown || self.fleet.pool.hold.is_some()
    }

    /// Parked, and since then silent, while it would have been heard.
    fn is_lost(&self, row: &Row, member: &Member) -> bool {
        let stands = heartbeats_since(self.view, self.now);
        let heard = member.worker.map(|worker| worker.last_seen);
        let since = heard.into_iter().chain(member.pod.parked).chain(stands).max();
        stands.is_some()
            && !self.is_eligible(row, member)
            && since.is_some_and(|since| self.now.since(since) >= SILENT_FOR)
    }

    /// True if the pod may end now.
    fn may_go(&self, row: &Row, member: &Member) -> bool {
        if member.pod.running_since.is_none() {
            return true;
        }
        let held = self.fleet.pool.hold.is_some();
        let suspect = self.memory.suspect_for(self.now).is_some();
        let Some(parked) = member
            .pod
            .parked
            .filter(|_| held || self.demand.complete && !suspect)
        else {
            return false;
        };
        if member.active() > 0 {
            return false;
        }
        match self.memory.proof(member, self.now) {
            Proof::Empty => return true,
            // An hour of countdown is no reason to keep a pod for an hour, but one that holds nothing goes first.
            Proof::Later if self.now.since(parked) >= PATIENCE => return true,
            _ => {}
        }
        if row.replaced && member.worker.is_none() {
            return self.now.since(parked) >= UNREADABLE_IDLE;
        }
        // Who cannot be asked: a whole window without a task, and the grace as second line.
        let long = self.fleet.pool.scale_down_delay.max(UNREADABLE_IDLE);
        let since = match member.heard() {
            Some(worker) => mute_since(worker),
            None if self.may_work(member) => None,
            None => held.then(|| member.worker.map_or(parked, |worker| worker.last_progress)),
        };
        let idle = member.worker.is_none_or(|worker| worker.active == 0);
        idle && since.is_some_and(|since| self.now.since(since.max(parked)) >= long)
    }

    /// True for one that is not heard, and is silent at work: where it would not be heard either if it idled, nobody knows.
    fn may_work(&self, member: &Member) -> bool {
        let ends = member.worker.is_some_and(|worker| worker.offline);
        self.fleet.pool.solo && !ends && member.state != PodState::Unseen
    }

    /// How many pods may go so that, in the order of Kubernetes and whatever the ties in it, none goes that may not: ranks
    /// first, then costs. What was changed just now may still be seen as before.
    fn safe_fall(&self, row: &Row, releasable: impl Fn(&Member) -> bool) -> u32 {
        let key = |member: &&Member| {
            let pod = member.pod;
            // A mark that was changed or taken off just now may still be seen as the strongest.
            let cost = match pod.mark {
                Some(_) if self.is_young(member) => Mark::Empty as u8,
                Some(mark) => mark as u8,
                None if !unmark_left(pod, self.now).is_zero() => Mark::Empty as u8,
                None => 2,
            };
            // The same holds of one that has become ready just now, as with a sidecar that ends again and again.
            let anew = pod.ready_since.is_some_and(|at| self.now.since(at) < MARKED_FOR);
            let rank = match pod.rank {
                Rank::Ready if anew && !releasable(member) => Rank::Unready,
                rank => rank,
            };
            (rank, cost)
        };
        let mut pods: Vec<&Member> = row.pods().collect();
        pods.sort_by_key(key);
        let mut fall = 0;
        for group in pods.chunk_by(|left, right| key(left) == key(right)) {
            if !group.iter().all(|member| releasable(member)) {
                break;
            }
            fall += group.iter().filter(|member| !self.is_young(member)).count();
        }
        count(fall)
    }

    /// Its mark is so young that others may not see it yet.
    fn is_young(&self, member: &Member) -> bool {
        let aged = member
            .pod
            .marked
            .is_some_and(|at| self.now.since(at) >= MARKED_FOR);
        !aged && member.pod.running_since.is_some()
    }

    /// Parked not long ago and idle: the proof that it is empty is under way.
    fn is_open(&self, member: &Member) -> bool {
        let fresh = member.pod.parked.is_none_or(|at| self.now.since(at) < PATIENCE);
        let readable = member.heard().is_none_or(|worker| worker.unreadable.is_none());
        fresh && readable && matches!(member.state, PodState::Idle(_) | PodState::Starting)
    }

    /// The mark that a chosen pod should carry. It changes only where it keeps others back: an empty pod among busy ones,
    /// or a busy one among the empty ones.
    fn mark(&self, row: &Row, member: &Member, chosen: &[&Member]) -> Mark {
        let pod = member.pod;
        let Some(mark) = pod.mark else {
            return if held(member) > 0 { Mark::Held } else { Mark::Empty };
        };
        let may_go = self.may_go(row, member);
        let differs = |other: &&&Member| other.pod.mark == Some(mark) && self.may_go(row, other) != may_go;
        let long = pod.marked.is_some_and(|at| self.now.since(at) >= PATIENCE);
        let other = if may_go { Mark::Empty } else { Mark::Held };
        let keeps_back = long && chosen.iter().any(|one| differs(&one));
        if keeps_back { other } else { mark }
    }
}

/// What a worker holds, as far as is known, tasks that are not due included.
fn held(member: &Member) -> u64 {
    let later = member
        .answer()
        .map_or(0, |answer| sum(answer.value.scheduled.values().copied()));
    let now = member.active().max(member.said_held().unwrap_or(0));
    now.saturating_add(later)
}

/// The order in which pods are parked. Of two that have not started, the one that Kubernetes would take; of two that hold as
/// much, one that executes nothing: what it said it holds may be done.
fn order(member: &Member) -> (u8, u64, bool) {
    match member.state {
        _ if member.pod.running_since.is_none() => (0, member.pod.rank as u64, false),
        _ if member.engaged => (3, held(member), true),
        PodState::Idle(_) if held(member) > 0 => (3, held(member), false),
        PodState::Idle(since) => (1, since.0, false),
        PodState::Starting | PodState::Pending => (2, 0, false),
        PodState::Busy(_) => (3, held(member), true),
        PodState::Silent | PodState::Unseen | PodState::Draining => (4, 0, false),
    }
}
