//! What a Pool's status says beside its grants: what its slots are used for, who waits, and what is wrong.
//!
//! A function of the Pool as it was read and of what is known now; equal inputs give an equal status. It changes no grant.

use std::borrow::Cow;
use std::collections::BTreeMap;

use jiff::Timestamp;
use poolwright_api::conditions::{condition, find, set};
use poolwright_api::v1alpha1::{Pool, PoolStatus, UNLIMITED, Waiter};
use poolwright_api::{ConditionType, Reason};

use crate::airflow_pool::{Link, reason};
use crate::cause::Cause;
use crate::decision::Decision;
use crate::grants::{HOLDERS_MAX, Mode, Sight, holds, mode};
use crate::shedding::{fresh, is_high};
use crate::snapshot::{Budget, Namespace, PoolInput, Shedding, Snapshot};

/// Waiters that a status names.
const WAITERS_MAX: usize = 50;

/// What the newest cycle says of one Pool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Slots of tasks that execute; `None` while it is not known of every WorkerPool.
    pub running: Option<u64>,
    /// Slots of tasks that wait; `None` while it is not known of every WorkerPool.
    pub queued: Option<u64>,
    /// Slots that are missing, by name of the WorkerPool: at most 50, of those who lack most.
    pub waiters: Vec<(String, u64)>,
    /// Slots to grant from; `None` for no limit.
    pub effective: Option<u64>,
    /// What is to be said of the load that the Pool heeds, if it heeds one.
    pub load: Option<String>,
}

/// Namespace and name of a Pool.
pub type PoolName = (String, String);

/// Adds up, for every Pool, what is decided for the WorkerPools that are charged to it, in whatever order.
pub(crate) struct Sums<'a>(BTreeMap<&'a str, BTreeMap<&'a str, Figures>>);

impl<'a> Sums<'a> {
    /// `namespaces` are those of the snapshot, with what high loads have taken away.
    pub(crate) fn new(snapshot: &Snapshot, namespaces: &'a BTreeMap<&'a str, Cow<Namespace>>) -> Self {
        let figures = |none: Option<u64>, (pool, budget): (&'a String, &Budget)| {
            let load = |one| said(snapshot, one, budget.slots);
            let figures = Figures {
                running: none,
                queued: none,
                waiters: Vec::new(),
                effective: budget.effective,
                load: budget.shedding.as_ref().map(load),
            };
            (pool.as_str(), figures)
        };
        let of = |name: &str, namespace: &'a Namespace| {
            let none = (!snapshot.unread.contains(name)).then_some(0);
            namespace.pools.iter().map(|pool| figures(none, pool)).collect()
        };
        let all = namespaces.iter().map(|(name, one)| (*name, of(name, one)));
        Self(all.collect())
    }

    /// Takes in what is decided for one WorkerPool.
    pub(crate) fn add(&mut self, input: &PoolInput, decision: &Decision) {
        let Some(pools) = self.0.get_mut(input.key.namespace.as_str()) else {
            return;
        };
        for (pool, slots) in &input.bid.charge.slots {
            if let Some(figures) = pools.get_mut(pool.as_str()) {
                figures.add(input, (pool, *slots), decision);
            }
        }
    }

    /// What the status of each Pool says.
    pub(crate) fn figures(self) -> BTreeMap<PoolName, Figures> {
        let named = |(namespace, pools): (&'a str, BTreeMap<&'a str, Figures>)| {
            let namespace = namespace.to_owned();
            let pools = pools.into_iter();
            pools.map(move |(pool, mut figures)| {
                figures.keep_greatest_waiters();
                ((namespace.clone(), pool.to_owned()), figures)
            })
        };
        self.0.into_iter().flat_map(named).collect()
    }
}

/// What is known of a load, in words. It takes nothing away from a Pool without a limit.
fn said(snapshot: &Snapshot, shedding: &Shedding, slots: Option<u64>) -> String {
    let load = snapshot.loads.get(&shedding.load);
    match (
        fresh(load, snapshot.now),
        load.and_then(|load| load.fault.as_ref()),
    ) {
        (Some(load), _) if is_high(shedding.high_percent, Some(load), false) => {
            let limit = shedding.high_percent;
            match slots {
                Some(_) => format!("the load is above {limit} %"),
                None => {
                    format!("the load is above {limit} %, and of spec.slots -1 there is nothing to halve")
                }
            }
        }
        (Some(_), _) => String::new(),
        (None, Some(fault)) => format!("the load cannot be read, so nothing changes: {}", fault.message),
        (None, None) => "the load has not been read yet".to_owned(),
    }
}

impl Figures {
    /// Those who lack most are told, in the order of their names, whatever the order of the WorkerPools.
    fn keep_greatest_waiters(&mut self) {
        self.waiters
            .sort_by(|(one, less), (other, more)| more.cmp(less).then_with(|| one.cmp(other)));
        self.waiters.truncate(WAITERS_MAX);
        self.waiters.sort_unstable();
    }

    fn add(&mut self, input: &PoolInput, (pool, charge): (&str, u64), decision: &Decision) {
        // A task takes what its worker takes for it.
        let task = charge / u64::from(input.slots).max(1);
        let add = |sum: &mut Option<u64>, tasks: Option<u64>| {
            let tasks = tasks.map(|tasks| tasks.saturating_mul(task));
            *sum = sum.zip(tasks).map(|(sum, tasks)| sum.saturating_add(tasks));
        };
        add(&mut self.running, decision.facts.busy);
        add(&mut self.queued, decision.facts.queued);
        if decision.budget.as_ref().map(Cause::pool) != Some(pool) {
            return;
        }
        let missing = charge.saturating_mul(decision.lacks().into());
        self.waiters.push((input.key.name.clone(), missing));
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn slots(limit: Option<u64>) -> i32 {
    limit.map_or(UNLIMITED, |slots| i32::try_from(slots).unwrap_or(i32::MAX))
}

/// Slots to grant from.
fn effective(pool: &Pool, sight: &Sight) -> Option<u64> {
    let limit = pool.spec.limit()?;
    Some(sight.effective.map_or(limit, |effective| effective.min(limit)))
}

/// `status` with the slots that nobody takes or has been granted.
#[must_use]
pub fn with_open(pool: &Pool, sight: &Sight, status: PoolStatus) -> PoolStatus {
    let held: u64 = holds(&status, sight)
        .values()
        .fold(0, |sum: u64, one| sum.saturating_add(*one));
    let effective = effective(pool, sight);
    PoolStatus {
        slots: Some(pool.spec.slots),
        effective_slots: Some(slots(effective)),
        open: effective.map(|slots| signed(slots.saturating_sub(held))),
        ..status
    }
}

/// The whole status: grants as they are, everything else as it is now. `unknown` are queues with a guarantee that draw on
/// no slots of this Pool; `link` is how it stands with its Airflow.
#[must_use]
pub fn status(
    pool: &Pool,
    sight: &Sight,
    figures: &Figures,
    unknown: &[String],
    link: Option<&Link>,
    wall: Timestamp,
) -> PoolStatus {
    let old = pool.status.clone().unwrap_or_default();
    let known = matches!(mode(pool), Mode::Limited | Mode::Unlimited);
    let mut new = if known {
        with_open(pool, sight, old.clone())
    } else {
        old.clone()
    };
    new.observed_generation = pool.metadata.generation;
    // Missing is not zero: what was last known stands.
    new.running = figures.running.map(signed).or(old.running);
    new.queued = figures.queued.map(signed).or(old.queued);
    let budget = pool.spec.limit().filter(|slots| *slots > 0);
    let percent = |slots: u64| {
        let running = u64::try_from(new.running.unwrap_or(0)).unwrap_or(0);
        i32::try_from(running.saturating_mul(100) / slots).unwrap_or(i32::MAX)
    };
    new.utilization_percent = budget.map(percent);
    for holder in &mut new.holders {
        let used = signed(sight.used.get(&holder.uid).copied().unwrap_or(0));
        // While a grant is about to be lowered, what is left is written with it.
        holder.used = used.max(holder.used.min(holder.granted));
    }
    new.waiters = figures
        .waiters
        .iter()
        .map(|(name, missing)| Waiter {
            worker_pool: name.clone(),
            missing: signed(*missing),
        })
        .collect();
    let load = figures.load.as_deref().unwrap_or_default();
    let trouble = airflow(&mut new, pool, link, wall);
    conditions(&mut new, pool, sight, (unknown, load), trouble, wall);
    new
}

/// What Airflow says of its pool; why the Pool is not ready, if that is why. What was read last stands while it cannot be read.
fn airflow(
    new: &mut PoolStatus,
    pool: &Pool,
    link: Option<&Link>,
    wall: Timestamp,
) -> Option<(Reason, String)> {
    let types = [ConditionType::AirflowInSync, ConditionType::ConfigurationAdvised];
    if pool.spec.airflow.is_none() {
        new.airflow = None;
        new.conditions
            .retain(|one| types.iter().all(|type_| type_.as_str() != one.type_));
        return None;
    }
    let generation = pool.metadata.generation;
    let (is, reason, words) = match link.map(|link| &link.trouble) {
        // Before the first reading of this process what another has seen stands.
        None => {
            match find(&new.conditions, types[0]).filter(|one| one.reason != Reason::Progressing.as_str()) {
                Some(one) if one.status == "True" && one.observed_generation >= generation => return None,
                Some(one) if one.status != "True" => {
                    return one
                        .reason
                        .parse()
                        .ok()
                        .map(|reason| (reason, one.message.clone()));
                }
                _ => (None, Reason::Progressing, "Airflow has not been read yet"),
            }
        }
        Some(None) if link.is_some_and(|link| link.generation < generation) => {
            let words = "Airflow has not been read since this Pool was changed";
            (None, Reason::Progressing, words)
        }
        Some(None) => (Some(true), Reason::AsDesired, ""),
        // Nobody knows what stands in an Airflow that does not answer.
        Some(Some((Reason::AirflowUnreachable, words))) => (None, Reason::AirflowUnreachable, words.as_str()),
        Some(Some((reason, words))) => (Some(false), *reason, words.as_str()),
    };
    let of = link
        .filter(|_| is.is_some())
        .map_or(generation, |link| link.generation);
    let said = condition(types[0], is, reason, words, of);
    let _ = set(&mut new.conditions, said, wall);
    if let Some(link) = link {
        // Numbers of a pool that is not there any more would be of none.
        let known = new.airflow.take().filter(|_| !link.absent);
        new.airflow = link.status().or(known);
        advise(new, link, generation, wall);
    }
    (is != Some(true)).then(|| (reason, words.to_owned()))
}

/// What is to be said of sensors; nothing new while the pool cannot be read.
fn advise(new: &mut PoolStatus, link: &Link, generation: Option<i64>, wall: Timestamp) {
    let type_ = ConditionType::ConfigurationAdvised;
    let Some(seen) = &link.seen else {
        new.conditions
            .retain(|one| !link.absent || one.type_ != type_.as_str());
        return;
    };
    let is_known = find(&new.conditions, type_).is_some_and(|one| one.status != "Unknown");
    let (advised, reason, words) = match (seen.poking, link.advice(), &seen.unread) {
        (_, Some(advice), _) => (Some(true), Reason::SensorsPoke, advice),
        (Some(_), None, _) => (Some(false), Reason::AsDesired, String::new()),
        (None, None, Some((kind, why))) => {
            let words = format!("sensors that poke are not counted, since tasks cannot be looked at: {why}");
            (None, reason(*kind), words)
        }
        // Two passes tell; what another process has said stands until then.
        (None, None, None) if is_known => return,
        (None, None, None) => {
            let words = "sensors that poke are not counted yet".to_owned();
            (None, Reason::Progressing, words)
        }
    };
    let _ = set(
        &mut new.conditions,
        condition(type_, advised, reason, words, generation),
        wall,
    );
}

fn conditions(
    new: &mut PoolStatus,
    pool: &Pool,
    sight: &Sight,
    (unknown, load): (&[String], &str),
    trouble: Option<(Reason, String)>,
    wall: Timestamp,
) {
    let used = sight.taken();
    let no = || (false, Reason::AsDesired, String::new());
    let over = effective(pool, sight).filter(|slots| used > *slots);
    let counted = matches!(mode(pool), Mode::Limited | Mode::Unlimited);
    let (mut ready, moves, stalled) = if !counted {
        let text = "what is taken of this Pool is being counted; nothing is granted before".to_owned();
        let said = (Reason::Progressing, text);
        ((false, said.0, said.1.clone()), (true, said.0, said.1), no())
    } else if let Some(slots) = over {
        let text =
            format!("{used} slots are taken of {slots}: nothing is granted until enough pods have gone");
        (
            (false, Reason::OverBudget, text.clone()),
            (true, Reason::OverBudget, text),
            no(),
        )
    } else if new.holders.len() >= HOLDERS_MAX {
        let text = format!(
            "{HOLDERS_MAX} WorkerPools hold slots, and there is room for no more: give some another Pool"
        );
        let said = (true, Reason::TooManyHolders, text.clone());
        ((false, Reason::TooManyHolders, text), no(), said)
    } else if let Some(first) = unknown.first() {
        let text = format!(
            "spec.guarantees keeps slots for {first:?}, and no TaskQueue of that name draws on this Pool: correct it"
        );
        (
            (false, Reason::QueueUnknown, text.clone()),
            no(),
            (true, Reason::QueueUnknown, text),
        )
    } else {
        ((true, Reason::AsDesired, String::new()), no(), no())
    };
    if let Some((reason, words)) = trouble.filter(|_| ready.0) {
        ready = (false, reason, words);
    }
    let words: Vec<&str> = [ready.2.as_str(), load]
        .into_iter()
        .filter(|words| !words.is_empty())
        .collect();
    ready.2 = words.join("; ");
    for (type_, (is, reason, message)) in [
        (ConditionType::Reconciling, moves),
        (ConditionType::Stalled, stalled),
        (ConditionType::Ready, ready),
    ] {
        let new_one = condition(type_, Some(is), reason, message, pool.metadata.generation);
        let _ = set(&mut new.conditions, new_one, wall);
    }
}

/// True if only numbers differ: such a status may wait for its turn.
#[must_use]
pub fn only_numbers(old: &PoolStatus, new: &PoolStatus) -> bool {
    let still = |status: &PoolStatus| {
        let mut still = PoolStatus {
            running: None,
            queued: None,
            open: None,
            utilization_percent: None,
            waiters: Vec::new(),
            airflow: None,
            ..status.clone()
        };
        still.holders.iter_mut().for_each(|holder| holder.used = 0);
        still.conditions.iter_mut().for_each(|one| one.message.clear());
        still
    };
    still(old) == still(new)
}

#[cfg(test)]
#[path = "pool_status_tests.rs"]
mod tests;
