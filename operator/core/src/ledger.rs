//! Each task counts once: what the messages of each queue are, and whose.
//!
//! A broker's numbers mix work that waits, work that our pods hold, work that others hold and work that nobody
//! holds any more. The ledger takes them apart, queue by queue, before any WorkerPool is looked at. It decides
//! nothing about replicas.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::books::Books;
use crate::constants::{FRESH_AT_LEAST, FRESH_HEARTBEATS, FRESH_POLLS};
use crate::fleet::Fleet;
use crate::later::Later;
use crate::member::Member;
use crate::outlook::Outlook;
use crate::sample::{Answer, BrokerView, Fault, QueueView, Unacked, WorkerView};
use crate::snapshot::{PoolInput, PoolKey, Snapshot};
use crate::time::Moment;

/// A worker that promises a longer interval is still missed after this many seconds' worth.
pub(crate) const INTERVAL_MAX: Duration = Duration::from_secs(60);
/// An answer is used for counts this long.
pub const ANSWER_AGE: Duration = Duration::from_secs(90);
/// A worker's clock, which dates a fetch, and ours, which dates its answer, may differ by so much.
const CLOCK_TOLERANCE_SECONDS: i64 = 5;
/// More than this no pod holds: stands for an unlimited prefetch, and keeps sums in bounds.
const CAPACITY_MAX: u64 = u32::MAX as u64;
/// No count above this is believed: leaves room to add counts up.
const COUNT_MAX: u64 = 1 << 53;
/// So many foreign workers are named; all are counted.
const FOREIGN_NAMED: usize = 100;

/// How old a reading of this broker may be.
#[must_use]
pub fn max_age(view: &BrokerView) -> Duration {
    view.poll_interval.saturating_mul(FRESH_POLLS).max(FRESH_AT_LEAST)
}

/// Since when every heartbeat would have been heard; `None` while the stream is down.
#[must_use]
pub fn heartbeats_since(view: &BrokerView, now: Moment) -> Option<Moment> {
    view.heartbeats.fresh(now, max_age(view)).copied()
}

/// True while the worker's heartbeats arrive.
#[must_use]
pub fn is_heard(worker: &WorkerView, now: Moment) -> bool {
    let most = worker.interval.min(INTERVAL_MAX) * FRESH_HEARTBEATS;
    !worker.offline && now.since(worker.last_seen) <= most
}

/// Adds without a limit to fall over: what brokers and workers say may be any number.
pub fn sum(values: impl IntoIterator<Item = u64>) -> u64 {
    values.into_iter().fold(0, u64::saturating_add)
}

/// One queue, taken apart.
#[derive(Clone, Debug, Default)]
pub struct QueueLedger {
    /// Waiting messages that are due; `None` while the count is not fresh.
    pub ready: Option<u64>,
    /// Waiting messages with an ETA in the future.
    pub not_due: u64,
    /// When these fall due, as far as it is known.
    pub later: Later,
    /// True if a worker takes from it: what is not due is then fetched as soon as it comes, unless something keeps all
    /// workers from it.
    pub attended: bool,
    /// Fetched, due, held by our pods (running ones that acknowledge late included).
    pub held: u64,
    /// Fetched with an ETA in the future.
    pub held_not_due: u64,
    /// When these fall due, as far as the broker shows it (Redis).
    pub held_later: Later,
    /// Fetched by workers that no longer exist.
    pub orphaned: u64,
    /// All due unacked messages, as the broker says.
    pub unacked: u64,
    /// Fetched by living workers, ours and others, and not started: what the broker shows as fetched, less what
    /// they say they run; where the broker shows nothing, what they say. `None` while that is not fresh.
    pub reserved: Option<u64>,
    /// False where the broker's unacked count is missing or stale although the broker has one.
    pub unacked_fresh: bool,
    /// Workers on this queue that are not ours, by node name; at most 100.
    pub foreign: BTreeSet<String>,
    /// How many consumers are not ours: the named ones, or more where the broker counts more.
    pub foreign_consumers: u64,
    /// Consumers: the broker's count, or the workers whose answer names this queue, heard or not.
    pub consumers: u64,
    /// Capacity of all that consume it, for sharing its backlog: Σ over our pools of `max × slots`, and the
    /// slots of other workers that were seen busy (at least one each).
    pub weight: u64,
    /// Messages that our pods can hold, for sharing what they hold.
    pub able: u64,
    /// How many of our WorkerPools consume it.
    pub claimants: usize,
    /// The one WorkerPool that starts a pod for orphaned messages.
    pub rescuer: Option<Arc<PoolKey>>,
    /// The broker counts at least as many consumers as our pods that run; never true where it counts none.
    pub all_consume: bool,
    /// What is expected of it: the cycle adds what each WorkerPool does.
    pub outlook: Outlook,
    /// When the count was read.
    pub read_at: Moment,
    /// Why the count or the unacked count is not fresh.
    pub fault: Option<Fault>,
}

/// Takes apart every queue of one broker, and every queue that a WorkerPool on it consumes.
///
/// What belongs to a queue is found by going through lists in the order of its name: with a queue for each of ten thousand
/// WorkerPools, maps would be most of the work.
#[must_use]
pub fn ledger<'a>(snapshot: &Snapshot, view: &BrokerView, fleets: &'a [Fleet]) -> Books {
    let mut claims: Vec<(&str, Claim)> = Vec::with_capacity(fleets.len());
    for (at, fleet) in fleets.iter().enumerate() {
        let claim = |queue: &'a Arc<str>| (&**queue, Claim { queue, at, fleet });
        claims.extend(fleet.pool.queues.iter().map(claim));
    }
    claims.sort_by_key(|(queue, _)| *queue);
    // A queue that a WorkerPool names twice.
    claims.dedup_by(|one, last| one.1.at == last.1.at && one.0 == last.0);
    let mut consumers: Vec<(&str, Consumer)> = Vec::with_capacity(view.workers.len());
    for (node, worker) in &view.workers {
        if let Some(answer) = worker.answer.as_ref().filter(|_| is_heard(worker, snapshot.now)) {
            let queues = answer.value.queues.iter();
            consumers.extend(queues.map(|queue| (queue.as_str(), (node.as_str(), worker))));
        }
    }
    consumers.sort_by_key(|(queue, _)| *queue);
    let mut names: Vec<&str> = Vec::with_capacity(view.queues.len() + claims.len());
    names.extend(view.queues.keys().map(String::as_str));
    names.extend(claims.iter().map(|(queue, _)| *queue));
    #[allow(
        clippy::stable_sort_primitive,
        reason = "it merges the two parts, which are in order"
    )]
    names.sort();
    names.dedup();
    let empty = QueueView::default();
    let mut queues = view.queues.iter().peekable();
    let (mut claims, mut consumers) = (&claims[..], &consumers[..]);
    let mut list = Vec::with_capacity(names.len());
    let mut owners = Vec::with_capacity(claims.len());
    let mut open = Vec::new();
    for name in names {
        let queue = queues.next_if(|(queue, _)| *queue == name);
        let (claims, consumers) = (take(&mut claims, name), take(&mut consumers, name));
        let page = Page {
            snapshot,
            view,
            name,
            queue: queue.map_or(&empty, |(_, queue)| queue),
            claims,
            consumers,
            others: others(claims, consumers),
        };
        owners.extend(page.claims.iter().map(|(_, claim)| (claim.at, list.len())));
        let shared = page.claims.first().map(|(_, claim)| Arc::clone(claim.queue));
        list.push((shared.unwrap_or_else(|| name.into()), page.close(&mut open)));
    }
    Books::new(list, owners, fleets.len())
}

/// What a list that is sorted by name has of this one; what comes before it is dropped.
fn take<'a, T>(list: &mut &'a [(&str, T)], name: &str) -> &'a [(&'a str, T)] {
    let before = list.iter().take_while(|(queue, _)| *queue < name).count();
    let rest = &list[before..];
    let own = rest.iter().take_while(|(queue, _)| *queue == name).count();
    let (own, rest) = rest.split_at(own);
    *list = rest;
    own
}

/// A WorkerPool that consumes a queue, with its place among the others and its own copy of the name.
#[derive(Clone, Copy)]
struct Claim<'a> {
    queue: &'a Arc<str>,
    at: usize,
    fleet: &'a Fleet<'a>,
}

/// A worker and its node name.
type Consumer<'a> = (&'a str, &'a WorkerView);

/// All that is known of one queue.
struct Page<'a> {
    snapshot: &'a Snapshot,
    view: &'a BrokerView,
    name: &'a str,
    queue: &'a QueueView,
    /// Who consumes it, by its name.
    claims: &'a [(&'a str, Claim<'a>)],
    /// Heard workers that said that they consume it, by its name.
    consumers: &'a [(&'a str, Consumer<'a>)],
    /// Of these, those that are of no WorkerPool that consumes it: foreign ones, and pods of ours whose WorkerPool is not
    /// known any more or names another queue by now.
    others: Vec<Consumer<'a>>,
}

fn others<'a>(claims: &[(&str, Claim)], consumers: &[(&str, Consumer<'a>)]) -> Vec<Consumer<'a>> {
    let is_of = |fleet: &Fleet, node: &str| {
        let found = fleet.members.binary_search_by(|member| member.node().cmp(node));
        found.is_ok()
    };
    let is_claimed = |node: &str| claims.iter().any(|(_, claim)| is_of(claim.fleet, node));
    let consumers = consumers.iter().map(|(_, consumer)| *consumer);
    consumers.filter(|(node, _)| !is_claimed(node)).collect()
}

impl<'a> Page<'a> {
    fn claimants(&self) -> impl Iterator<Item = &'a Fleet<'a>> {
        self.claims.iter().map(|(_, claim)| claim.fleet)
    }

    fn members(&self) -> impl Iterator<Item = &'a Member<'a>> {
        self.claimants().flat_map(|fleet| &fleet.members)
    }

    /// Takes the queue apart. `open` is memory to work in.
    fn close(&self, open: &mut Vec<(i64, u64)>) -> QueueLedger {
        let age = max_age(self.view);
        let ready = self.queue.ready.fresh(self.snapshot.now, age);
        let unacked = self.queue.unacked.fresh(self.snapshot.now, age);
        let (known, foreign): (Vec<_>, Vec<_>) = self
            .others
            .iter()
            .partition(|(node, _)| self.snapshot.own_nodes.contains(*node));
        let others = || known.iter().chain(&foreign);
        let others_held = sum(others().filter_map(|(_, worker)| {
            worker
                .answer
                .as_ref()
                .map(|answer| held_by(&answer.value, self.name))
        }));
        let (mut due, mut later) = unacked.map_or((0, 0), |unacked| {
            (unacked.due.min(COUNT_MAX), unacked.not_due.min(COUNT_MAX))
        });
        if !self.view.zero_is_suspect {
            // This broker cannot tell what is not due; the workers that hold it can, parked ones too.
            let said = self.held_later();
            later += if self.view.unacked_known {
                said.min(due)
            } else {
                said
            };
            due = due.saturating_sub(said);
        }
        let (held, orphaned) =
            unacked.map_or((0, 0), |unacked| self.attribute(due, unacked, others_held, open));
        let running = self.members().filter(|member| member.pod.running_since.is_some());
        let (ours, consuming) = running.fold((known.len() as u64, 0), |(all, consuming), member| {
            // A parked one that has said so consumes nothing, and must not hide a foreign one.
            let mute = member.is_parked() && member.answer().is_some_and(|one| one.value.queues.is_empty());
            (all + u64::from(!mute), consuming + u64::from(member.consumes()))
        });
        let counted = ready.and_then(|ready| ready.consumers);
        let named = foreign.len() as u64;
        let unnamed = counted.unwrap_or(0).saturating_sub(ours).saturating_sub(named);
        let other_slots = sum(others().map(|(_, worker)| worker.active.clamp(1, CAPACITY_MAX)));
        QueueLedger {
            outlook: Outlook::default(),
            ready: ready.map(|ready| ready.count.min(COUNT_MAX).saturating_sub(ready.not_due)),
            not_due: ready.map_or(0, |ready| ready.not_due.min(ready.count).min(COUNT_MAX)),
            later: ready.map_or_else(Later::default, |ready| ready.later.clone()),
            attended: self.attended(),
            held,
            held_not_due: later,
            held_later: unacked.map_or_else(Later::default, |unacked| unacked.later.clone()),
            orphaned,
            unacked: due,
            reserved: self.reserved(unacked.is_some(), due, later, orphaned),
            unacked_fresh: !self.view.unacked_known || unacked.is_some(),
            foreign_consumers: named.saturating_add(unnamed),
            foreign: foreign
                .iter()
                .take(FOREIGN_NAMED)
                .map(|(node, _)| (*node).to_owned())
                .collect(),
            consumers: counted.unwrap_or_else(|| self.consumers.len() as u64 + self.unheard()),
            weight: sum(self.claimants().map(weight))
                .saturating_add(other_slots)
                .saturating_add(unnamed),
            able: sum(self.claimants().map(|fleet| fleet_capacity(fleet, |_| true))),
            claimants: self.claims.len(),
            rescuer: self.rescuer(),
            all_consume: consuming > 0 && counted.is_some_and(|all| all.saturating_sub(named) >= consuming),
            read_at: self
                .queue
                .ready
                .last
                .as_ref()
                .map_or_else(Moment::default, |sample| sample.at),
            fault: self
                .queue
                .ready
                .fault
                .clone()
                .or_else(|| self.queue.unacked.fault.clone()),
        }
    }

    /// Our workers that are not heard and said that they consume this queue.
    fn unheard(&self) -> u64 {
        let members = self.members().filter(|member| member.consumes());
        members
            .filter(|member| member.said.is_some_and(|said| said.contains(self.name)))
            .count() as u64
    }

    fn reserved(&self, counted: bool, due: u64, later: u64, orphaned: u64) -> Option<u64> {
        let total =
            |count: fn(&Answer, &str) -> u64| sum(self.answers().map(|answer| count(answer, self.name)));
        if self.view.unacked_known {
            let running = total(|answer, queue| {
                answer
                    .running
                    .get(queue)
                    .map_or(0, |running| running.unacknowledged)
            });
            let waiting = due.saturating_sub(orphaned).saturating_sub(running);
            return counted.then(|| waiting.saturating_add(later));
        }
        let heard = heartbeats_since(self.view, self.snapshot.now).is_some();
        heard.then(|| {
            let said = total(|answer, queue| answer.reserved.get(queue).copied().unwrap_or(0));
            said.saturating_add(self.held_later())
        })
    }

    /// Messages with an ETA that workers on this queue say they hold.
    fn held_later(&self) -> u64 {
        sum(self
            .answers()
            .map(|answer| answer.scheduled.get(self.name).copied().unwrap_or(0)))
    }

    /// One of our pods is heard, or is seen to consume, and takes work; or somebody else does.
    fn attended(&self) -> bool {
        let takes =
            |member: &Member| member.consumes() && (member.heard().is_some() || member.seen_consuming());
        self.members().any(takes) || !self.others.is_empty()
    }

    /// The latest answers of all workers that consume this queue.
    fn answers(&self) -> impl Iterator<Item = &Answer> {
        let own = self.members().filter_map(Member::answer);
        own.chain(
            self.others
                .iter()
                .filter_map(|(_, worker)| worker.answer.as_ref()),
        )
        .map(|answer| &*answer.value)
    }

    /// The WorkerPool that starts a pod for orphaned messages: of those that have or can start a worker one that has pods,
    /// else the first by name. One, so that leftovers never start more than one pod.
    fn rescuer(&self) -> Option<Arc<PoolKey>> {
        let able = self.claimants().filter(|fleet| {
            let pool = fleet.pool;
            !pool.terminating
                && pool.conflict.is_none()
                && pool.hold.as_ref().is_none_or(|hold| hold.replicas > 0)
        });
        // Parked workers do not sweep: it takes one that consumes.
        let order = |fleet: &&Fleet<'a>| {
            let none = fleet.serving() == 0;
            let unable = fleet.stuck || none && may_not_grow(fleet.pool);
            (unable, none, &fleet.pool.key)
        };
        able.min_by_key(order).map(|fleet| Arc::clone(&fleet.pool.key))
    }

    /// Splits due unacked messages into those that our pods can hold and those that nobody holds.
    ///
    /// A pod can hold at most its capacity, nothing that was fetched before its present container started, and of
    /// what was fetched before it answered no more than it said. So all that a pod can hold is open from some
    /// second on, and taking the oldest message first finds the largest match.
    ///
    /// What others can hold is not known. What none of ours can hold is nobody's only if it was fetched before they said
    /// what they hold.
    fn attribute(
        &self,
        due: u64,
        unacked: &Unacked,
        others_held: u64,
        open: &mut Vec<(i64, u64)>,
    ) -> (u64, u64) {
        if due == 0 {
            return (0, 0);
        }
        open.clear();
        open.push((i64::MIN, others_held));
        let others_since = self.others.iter().map(|(_, worker)| self.said_all(worker)).min();
        for fleet in self.claimants() {
            for member in &fleet.members {
                let most = capacity(member, fleet.pool);
                let start = member.pod.started.map_or(i64::MIN, Timestamp::as_second);
                if let Some(answer) = member.answer() {
                    let answered = self.surely_before(answer.at);
                    let said = held_by(&answer.value, self.name).min(most);
                    open.push((start, said));
                    open.push((start.max(answered), most - said));
                } else {
                    open.push((start, most));
                }
            }
        }
        open.sort_unstable();
        let mut fetched = Cow::Borrowed(&unacked.fetched);
        if !fetched.is_sorted_by_key(|fetched| fetched.unix_seconds) {
            fetched
                .to_mut()
                .sort_unstable_by_key(|fetched| fetched.unix_seconds);
        }
        let fetched = fetched
            .iter()
            .map(|fetched| (fetched.unix_seconds, fetched.count));
        let dated = sum(unacked.fetched.iter().map(|fetched| fetched.count));
        let (mut able, mut taken, mut left, mut orphaned) = (0u64, 0u64, due, 0u64);
        let mut open = open.iter().copied().peekable();
        // Those without a date may have been fetched just now.
        for (second, count) in fetched.chain([(i64::MAX, due.saturating_sub(dated))]) {
            while let Some((_, count)) = open.next_if(|(from, _)| *from <= second) {
                able = able.saturating_add(count);
            }
            let count = count.min(left);
            left -= count;
            let ours = count.min(able.saturating_sub(taken));
            taken += ours;
            if others_since.is_none_or(|since| second < since) {
                orphaned += count - ours;
            }
        }
        // RabbitMQ returns a dead worker's messages at once: what is too much is held by workers unknown here.
        if unacked.fetched.is_empty() {
            orphaned = 0;
        }
        (taken.saturating_sub(others_held), orphaned)
    }

    /// From which second on a worker may hold what it has not said: it was fetched after its answer, and after a heartbeat
    /// that shows it idle.
    fn said_all(&self, worker: &WorkerView) -> i64 {
        let idle = (worker.active == 0).then_some(worker.last_seen);
        let said = worker.answer.as_ref().map(|answer| answer.at).max(idle);
        said.map_or(i64::MIN, |at| self.surely_before(at))
    }

    /// A second by a worker's clock that was surely over at this moment.
    fn surely_before(&self, at: Moment) -> i64 {
        let age = i64::try_from(self.snapshot.now.since(at).as_secs()).unwrap_or(i64::MAX);
        self.snapshot.wall.as_second().saturating_sub(age) - CLOCK_TOLERANCE_SECONDS
    }
}

/// True if no pod is added, whatever is wanted. A hold is obeyed in a pause, too.
fn may_not_grow(pool: &PoolInput) -> bool {
    pool.hold.is_none() && (pool.pause.scale_out || pool.recommend || pool.most() == 0)
}

/// A pool's part in sharing a backlog, as the others see it: the slots it may have at most. Static, so that shares do not
/// chase the replicas that they cause. A pool whose number is not ours to change takes no more than it has, and one that
/// cannot work no more than keeps it trying.
#[must_use]
pub fn weight(fleet: &Fleet) -> u64 {
    let kept = !fleet.stuck && may_not_grow(fleet.pool);
    if kept {
        slots(fleet, fleet.serving())
    } else {
        claim(fleet)
    }
}

/// The same as it sees itself: what it would do were it not paused and did it not only recommend, it tells as ever. A pool
/// that may not grow and may shrink would else follow its own number down.
#[must_use]
pub fn claim(fleet: &Fleet) -> u64 {
    let pool = fleet.pool;
    if fleet.stuck {
        return 1;
    }
    let pods = match &pool.hold {
        Some(hold) => hold.replicas,
        None if pool.terminating || pool.conflict.is_some() => fleet.serving(),
        None => pool.max.max(1),
    };
    slots(fleet, pods)
}

fn slots(fleet: &Fleet, pods: u32) -> u64 {
    u64::from(pods) * u64::from(fleet.slots)
}

/// What a worker said that it held unacknowledged of one queue.
fn held_by(answer: &Answer, queue: &str) -> u64 {
    let running = answer
        .running
        .get(queue)
        .map_or(0, |running| running.unacknowledged);
    running.saturating_add(answer.reserved.get(queue).copied().unwrap_or(0))
}

/// What one pod can hold of the broker's unacked messages: its prefetch, or more if its worker says so.
#[must_use]
pub fn capacity(member: &Member, pool: &PoolInput) -> u64 {
    if member.pod.running_since.is_none() && !member.pod.draining {
        return 0;
    }
    let said = member.answer().map_or(0, |answer| {
        let running = answer
            .value
            .running
            .values()
            .map(|running| running.unacknowledged);
        sum(running.chain(answer.value.reserved.values().copied()))
    });
    let fetched = pool.prefetch.map_or(u64::MAX, |prefetch| {
        u64::from(member.made_with) * u64::from(prefetch.max(1))
    });
    fetched.max(said).min(CAPACITY_MAX)
}

/// What such pods of a WorkerPool can hold together.
pub fn fleet_capacity(fleet: &Fleet, which: impl Fn(&Member) -> bool) -> u64 {
    sum(fleet
        .members
        .iter()
        .filter(|member| which(member))
        .map(|member| capacity(member, fleet.pool)))
}
