//! A pool of Airflow and the Pool that stands for it: what it holds, and who has to follow whom.
//!
//! Slots are counted by Airflow's rule: queued and running tasks hold them, deferred ones where the pool says so, all
//! others none. Reads and writes nothing: whoever talks to Airflow hands in what it says and takes the step that is told.

use std::collections::BTreeMap;
use std::sync::Arc;

use poolwright_api::conditions::find;
use poolwright_api::v1alpha1::{
    AirflowPoolStatus, AirflowQueue, AirflowSync, DEFAULT_AIRFLOW_POOL, Pool, UNLIMITED,
};
use poolwright_api::{ConditionType, Reason};

use crate::canonical::digest;
use crate::sample::FaultKind;
use crate::text::bounded;

/// A sensor that has held its slot for longer than so many seconds pokes: one in mode reschedule gives it back at once,
/// and one that is deferred holds none.
pub const POKE_SECONDS: i64 = 300;
/// Queues of one pool that a status names.
const QUEUES_MAX: usize = 100;
/// Greatest number of slots that a Pool may have.
const SLOTS_MAX: i64 = 1_000_000;
/// Longest description that a Pool may have, in characters.
const DESCRIPTION_MAX: usize = 1024;

/// Slots of task instances by state; others than these hold and want none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Of tasks that run.
    pub running: u64,
    /// Of tasks that an executor has and that do not run.
    pub queued: u64,
    /// Of tasks that the scheduler could queue.
    pub scheduled: u64,
    /// Of tasks that wait in the triggerer.
    pub deferred: u64,
}

impl Counts {
    /// Adds what task instances of one state take; a state without slots adds nothing.
    pub fn add(&mut self, state: &str, slots: u64) {
        let sum = match state {
            "running" => &mut self.running,
            "queued" => &mut self.queued,
            "scheduled" => &mut self.scheduled,
            "deferred" => &mut self.deferred,
            _ => return,
        };
        *sum = sum.saturating_add(slots);
    }

    /// Slots that are taken.
    #[must_use]
    pub fn occupied(&self, include_deferred: bool) -> u64 {
        let deferred = if include_deferred { self.deferred } else { 0 };
        self.running.saturating_add(self.queued).saturating_add(deferred)
    }
}

/// One pool as Airflow has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolView {
    /// Slots; -1 is no limit.
    pub slots: i64,
    /// Description; empty for none.
    pub description: String,
    /// Whether deferred tasks hold slots.
    pub include_deferred: bool,
    /// What its tasks take.
    pub counts: Counts,
    /// Sensors that have held their slot for longer than [`POKE_SECONDS`]; `None` while it is not known.
    pub poking: Option<u32>,
    /// Why its tasks cannot be looked at; `None` while they are, also before that was done for the first time.
    pub unread: Option<(FaultKind, Arc<str>)>,
    /// Tasks (not slots) that Celery's workers run or would, by queue; empty where it is not known.
    pub queues: BTreeMap<String, Counts>,
}

impl PoolView {
    /// What is told apart of pools of one name, in a few letters: equal to [`Wanted::shape`] of the request that made it.
    #[must_use]
    pub fn shape(&self) -> String {
        shape(self.slots, self.include_deferred, &self.description)
    }
}

fn shape(slots: i64, include_deferred: bool, description: &str) -> String {
    digest(&format!("{slots} {include_deferred} {description}"), 16)
}

/// What an Airflow said of all its pools at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Its version.
    pub version: Option<String>,
    /// By name.
    pub pools: BTreeMap<String, PoolView>,
}

/// What a pool is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Its name in Airflow.
    pub name: String,
    /// Slots; -1 is no limit.
    pub slots: i64,
    /// Description; empty for none. `default_pool` keeps its own.
    pub description: String,
    /// Whether deferred tasks hold slots.
    pub include_deferred: bool,
}

impl Wanted {
    /// In a few letters what a pool is like that was made by this.
    #[must_use]
    pub fn shape(&self) -> String {
        shape(self.slots, self.include_deferred, &self.description)
    }
}

/// What a Pool's spec is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Follow {
    /// `spec.slots`.
    pub slots: i32,
    /// `spec.description`.
    pub description: Option<String>,
    /// `spec.includeDeferred`.
    pub include_deferred: bool,
}

/// What is to be done for one Pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing: both say the same.
    Nothing,
    /// Airflow has no such pool: make it.
    Create(Wanted),
    /// Airflow's pool is another: change it. In words, what differs.
    Change(Wanted, String),
    /// Airflow's pool is another: change the spec. In words, what differs.
    Follow(Follow, String),
    /// Nothing can be done, and why.
    Stuck(Reason, String),
}

/// What is wanted of Airflow for this Pool. Where a high load takes slots away, it takes them from Airflow's pool, too.
#[must_use]
pub fn wanted(pool: &Pool) -> Option<Wanted> {
    let airflow = pool.spec.airflow.as_ref()?;
    let name = pool.metadata.name.as_deref().unwrap_or_default();
    let effective = pool.status.as_ref().and_then(|status| status.effective_slots);
    let shed = effective.filter(|_| pool.spec.load_shedding.is_some() && pool.spec.slots > 0);
    let slots = shed.map_or(pool.spec.slots, |effective| effective.min(pool.spec.slots));
    Some(Wanted {
        name: airflow.pool_name(name).to_owned(),
        slots: slots.into(),
        description: pool.spec.description.clone().unwrap_or_default(),
        include_deferred: pool.spec.include_deferred,
    })
}

/// The next step for a Pool, of an Airflow that has this pool, or has none. `listable` is false where a pool without a
/// limit would keep Airflow from listing its pools (2.x over its API).
#[must_use]
pub fn step(pool: &Pool, seen: Option<&PoolView>, listable: bool) -> Step {
    let Some((airflow, wanted)) = pool.spec.airflow.as_ref().zip(wanted(pool)) else {
        return Step::Nothing;
    };
    let name = &wanted.name;
    match (airflow.sync, seen) {
        (AirflowSync::Apply, _) if wanted.slots < 0 && !listable => Step::Stuck(
            Reason::InvalidSpec,
            "spec.slots: -1 is not written to Airflow 2, which then answers no list of its pools any more: give the \
             Pool a number, such as 10000"
                .to_owned(),
        ),
        (AirflowSync::Apply, None) if name == DEFAULT_AIRFLOW_POOL => Step::Stuck(
            Reason::AirflowPoolMissing,
            format!("Airflow does not show {name:?}, which each Airflow has: may this user see all pools?"),
        ),
        (AirflowSync::Apply, None) => Step::Create(wanted),
        (AirflowSync::Apply, Some(seen)) => match differences(&wanted, seen, "this Pool") {
            Some(words) => Step::Change(wanted, words),
            None => Step::Nothing,
        },
        (AirflowSync::Mirror, None) => Step::Stuck(
            Reason::AirflowPoolMissing,
            format!("Airflow has no pool {name:?}: make it there, correct spec.airflow.name, or set sync to Apply"),
        ),
        (AirflowSync::Mirror, Some(seen)) => mirror(&wanted, seen),
    }
}

/// What is wanted, and the URL of the Airflow whose pool was that when it was last read, if the status says so: whatever it is
/// there by the first reading of another process, somebody else has made it that.
#[must_use]
pub fn agreed(pool: &Pool) -> Option<(Wanted, String)> {
    let (status, wanted) = pool.status.as_ref().zip(wanted(pool))?;
    let in_sync = find(&status.conditions, ConditionType::AirflowInSync)?;
    let is_so = in_sync.status == "True" && in_sync.observed_generation == pool.metadata.generation;
    let known = status.airflow.as_ref().filter(|_| is_so)?;
    let is_it = known.name == wanted.name && i64::from(known.slots) == wanted.slots;
    known.url.clone().filter(|_| is_it).map(|url| (wanted, url))
}

fn mirror(wanted: &Wanted, seen: &PoolView) -> Step {
    let slots = i32::try_from(seen.slots).ok();
    let Some(slots) = slots.filter(|slots| (i64::from(UNLIMITED)..=SLOTS_MAX).contains(&i64::from(*slots)))
    else {
        let words = format!(
            "Airflow's pool has {} slots, and a Pool has -1 to {SLOTS_MAX}: correct it in Airflow",
            seen.slots
        );
        return Step::Stuck(Reason::InvalidSpec, words);
    };
    let seen = PoolView {
        description: seen.description.chars().take(DESCRIPTION_MAX).collect(),
        ..seen.clone()
    };
    match differences(wanted, &seen, "this Pool") {
        None => Step::Nothing,
        Some(words) => Step::Follow(
            Follow {
                slots,
                description: Some(seen.description).filter(|text| !text.is_empty()),
                include_deferred: seen.include_deferred,
            },
            words,
        ),
    }
}

/// What differs, in words: the first number is Airflow's.
fn differences(wanted: &Wanted, seen: &PoolView, whose: &str) -> Option<String> {
    let mut all = Vec::new();
    if wanted.slots != seen.slots {
        all.push(format!(
            "slots: {} in Airflow, {} in {whose}",
            seen.slots, wanted.slots
        ));
    }
    if wanted.include_deferred != seen.include_deferred {
        let (theirs, ours) = (seen.include_deferred, wanted.include_deferred);
        all.push(format!("includeDeferred: {theirs} in Airflow, {ours} in {whose}"));
    }
    // Airflow lets nobody change that of its default pool.
    let own = wanted.name == DEFAULT_AIRFLOW_POOL;
    if !own && wanted.description != seen.description {
        all.push("description".to_owned());
    }
    (!all.is_empty()).then(|| all.join("; "))
}

/// Which reason a failure to read an Airflow has in a condition.
#[must_use]
pub fn reason(kind: FaultKind) -> Reason {
    match kind {
        FaultKind::Unreachable => Reason::AirflowUnreachable,
        FaultKind::Refused => Reason::AirflowRefused,
        FaultKind::QueueAbsent | FaultKind::Implausible => Reason::AirflowUnknown,
        FaultKind::InvalidAddress => Reason::InvalidSpec,
        FaultKind::SecretMissing => Reason::SecretMissing,
        FaultKind::SecretForbidden => Reason::SecretForbidden,
    }
}

/// How it stands between one Pool and its Airflow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Name of the pool in Airflow.
    pub name: String,
    /// Where Airflow is, once it is known.
    pub url: Option<String>,
    /// Airflow's version, once it is known.
    pub version: Option<String>,
    /// The pool as it was last read.
    pub seen: Option<PoolView>,
    /// True if what was read before is of no use: Airflow was read and has no such pool, or the Pool stands for another now.
    pub absent: bool,
    /// What is wrong; `None` while both say the same.
    pub trouble: Option<(Reason, String)>,
    /// Generation of the Pool that this is said of: a newer one may want something else.
    pub generation: Option<i64>,
}

impl Link {
    /// `status.airflow`, once the pool has been read.
    #[must_use]
    pub fn status(&self) -> Option<AirflowPoolStatus> {
        let seen = self.seen.as_ref()?;
        let counts = &seen.counts;
        let occupied = counts.occupied(seen.include_deferred);
        let limit = u64::try_from(seen.slots).ok();
        let percent = |slots: u64| occupied.saturating_mul(100).checked_div(slots);
        Some(AirflowPoolStatus {
            name: bounded(&self.name, 256),
            url: self.url.as_deref().map(|url| bounded(url, 1024)),
            version: self.version.as_deref().map(|version| bounded(version, 64)),
            slots: i32::try_from(seen.slots).unwrap_or(i32::MAX).max(UNLIMITED),
            running: signed(counts.running),
            queued: signed(counts.queued),
            scheduled: signed(counts.scheduled),
            deferred: signed(counts.deferred),
            occupied: signed(occupied),
            open: limit.map(|slots| signed(slots) - signed(occupied)),
            utilization_percent: limit
                .and_then(percent)
                .map(|percent| i32::try_from(percent).unwrap_or(i32::MAX)),
            poking_sensors: seen.poking.map(|count| i32::try_from(count).unwrap_or(i32::MAX)),
            queues: queues(&seen.queues),
        })
    }

    /// What is to be said of sensors that poke, if there are any.
    #[must_use]
    pub fn advice(&self) -> Option<String> {
        let poking = self.seen.as_ref()?.poking.filter(|count| *count > 0)?;
        let (sensors, have) = if poking == 1 {
            ("sensor", "has")
        } else {
            ("sensors", "have")
        };
        Some(format!(
            "{poking} {sensors} of this pool {have} held a slot and a worker's process for more than {} minutes while \
             waiting: give them mode=\"reschedule\" or deferrable=True",
            POKE_SECONDS / 60
        ))
    }
}

/// Those with most tasks, in the order of their names.
fn queues(all: &BTreeMap<String, Counts>) -> Vec<AirflowQueue> {
    let mut most: Vec<(&String, &Counts)> = all.iter().collect();
    let tasks = |counts: &Counts| counts.occupied(false).saturating_add(counts.scheduled);
    most.sort_by_key(|(_, counts)| std::cmp::Reverse(tasks(counts)));
    most.truncate(QUEUES_MAX);
    most.sort_unstable_by_key(|(name, _)| *name);
    let queue = |(name, counts): (&String, &Counts)| AirflowQueue {
        name: bounded(name, 256),
        running: signed(counts.running),
        queued: signed(counts.queued),
        scheduled: signed(counts.scheduled),
    };
    most.into_iter().map(queue).collect()
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
#[path = "airflow_pool_tests.rs"]
mod tests;
