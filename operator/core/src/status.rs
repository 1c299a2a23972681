//! What a WorkerPool's status says.
//!
//! A function of the old status and what is known now: equal inputs give an equal status, so that nothing is
//! written when nothing changed. The stored decision changes only when there is news in it.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use poolwright_api::conditions::whole_seconds;
use poolwright_api::v1alpha1 as api;
use poolwright_api::{LABEL_WORKER_POOL, Reason};

use crate::advice::Advice;
use crate::conditions::{self, Seen};
use crate::decision::{DYNAMIC_CONCURRENCY, Decision, Limit};
use crate::objects::Objects;
use crate::snapshot::PoolInput;
use crate::text::bounded;
use crate::validate::Invalid;

/// Inputs that a stored decision lists.
const INPUTS_MAX: usize = 32;
/// Limits that a stored decision lists.
const LIMITS_MAX: usize = 8;
/// Past decisions that are kept.
const DECISIONS_MAX: usize = 5;

/// All that the status of one WorkerPool is made of.
pub struct Facts<'a> {
    /// The WorkerPool's generation.
    pub generation: Option<i64>,
    /// Its name.
    pub name: &'a str,
    /// Its current status.
    pub old: &'a api::WorkerPoolStatus,
    /// What the spec is worth: its input and decision, or why it cannot be used.
    pub spec: Result<(&'a PoolInput, Option<&'a Decision>), &'a Invalid>,
    /// The slots of one pod, and where they come from, with a valid spec.
    pub concurrency: Option<&'a str>,
    /// What exists of it.
    pub objects: &'a Objects,
    /// Known mistakes in the spec.
    pub advice: &'a [Advice],
    /// The cluster's refusal of one of our own writes, in its words.
    pub refused: Option<&'a crate::snapshot::Trouble>,
    /// Now.
    pub wall: Timestamp,
}

fn number<T: TryInto<i32>>(value: T) -> i32 {
    value.try_into().unwrap_or(i32::MAX)
}

/// The new status.
#[must_use]
pub fn status(facts: &Facts) -> api::WorkerPoolStatus {
    let mut new = facts.old.clone();
    new.observed_generation = facts.generation;
    new.selector = Some(format!("{LABEL_WORKER_POOL}={}", facts.name));
    let (input, decision) = match facts.spec {
        Ok((input, decision)) => (Some(input), decision),
        Err(_) => (None, None),
    };
    if let Some(input) = input {
        new.queue_names = Some(bounded(&input.queues.join(","), 256));
        new.revision = Some(input.revision.to_string());
        new.concurrency = facts.concurrency.map(|text| bounded(text, 128));
    }
    // Pods are there whatever the spec is worth.
    new.replicas = Some(number(facts.objects.living().count()));
    new.ready_replicas = Some(number(facts.objects.living().filter(|pod| pod.ready).count()));
    let (parked, draining) = facts.objects.leaving();
    (new.parked_replicas, new.draining_replicas) = (Some(number(parked)), Some(number(draining)));
    if let Some(decision) = decision {
        new.desired_replicas = Some(number(decision.to));
        new.slots = Some(number(decision.facts.slots));
        // Missing is not zero: what was last known stands, and `SignalsFresh` says since when.
        new.busy_slots = decision.facts.busy.map(number).or(new.busy_slots);
        let queued = decision.facts.queued;
        new.queued = queued
            .map(|queued| i64::try_from(queued).unwrap_or(i64::MAX))
            .or(new.queued);
        remember(&mut new, decision, facts.wall);
    }
    let seen = Seen {
        input,
        decision,
        invalid: facts.spec.err(),
        facts,
    };
    conditions::write(&mut new.conditions, &seen);
    new
}

/// True if only what moves all the time differs, numbers and the words around them: such a status may wait for its
/// turn. The number decided, its reason, and the status and reason of a condition may not.
#[must_use]
pub fn only_numbers(old: &api::WorkerPoolStatus, new: &api::WorkerPoolStatus) -> bool {
    let still = |status: &api::WorkerPoolStatus| {
        let mut still = api::WorkerPoolStatus {
            busy_slots: None,
            queued: None,
            slots: None,
            decisions: Vec::new(),
            ..status.clone()
        };
        for condition in &mut still.conditions {
            condition.message.clear();
        }
        let last = still.last_decision.take();
        (still, last.map(|last| (last.to, last.reason)))
    };
    still(old) == still(new)
}

/// True if the stored decision should be replaced: the number, the reason or a limit differs. By how much a limit
/// cuts moves with every message and is no news; nor is a limit that is gone, nor that a change has been carried
/// out. A reason that another version wrote counts as different from any.
fn is_news(stored: Option<&api::Decision>, decision: &Decision) -> bool {
    let Some(stored) = stored else { return true };
    if stored.to != number(decision.to) {
        return true;
    }
    // A recommendation is all that such a decision is for.
    let cut =
        |old: &api::DecisionLimit, limit: &Limit| limit.name != "mode" || old.from == number(limit.from);
    let known = |limit: &Limit| {
        let mut all = stored.limits.iter();
        all.any(|old| old.name == limit.name && old.to == number(limit.to) && cut(old, limit))
    };
    if !decision.limits.iter().take(LIMITS_MAX).all(known) {
        return true;
    }
    // Words that say that slots are taken must not stay when they are given back.
    let taken = |name: &str| name == DYNAMIC_CONCURRENCY;
    if stored.limits.iter().any(|old| taken(&old.name))
        && !decision.limits.iter().any(|limit| taken(limit.name))
    {
        return true;
    }
    let arrived = decision.reason == Reason::AsDesired
        && matches!(stored.reason.parse(), Ok(Reason::ScaledUp | Reason::ScaledDown));
    stored.reason != decision.reason.as_str() && !arrived
}

fn remember(new: &mut api::WorkerPoolStatus, decision: &Decision, wall: Timestamp) {
    if !is_news(new.last_decision.as_ref(), decision) {
        return;
    }
    let now = Time(whole_seconds(wall));
    if let Some(last) = new.last_decision.take() {
        new.decisions.insert(0, api::PastDecision::from(&last));
        new.decisions.truncate(DECISIONS_MAX);
    }
    if decision.to != decision.from {
        new.last_scale_time = Some(now.clone());
    }
    new.last_decision = Some(api::Decision {
        time: now,
        from: number(decision.from),
        to: number(decision.to),
        reason: decision.reason.to_string(),
        text: decision.text(),
        inputs: inputs(decision),
        limits: decision.limits.iter().take(LIMITS_MAX).map(limit).collect(),
    });
}

fn limit(limit: &Limit) -> api::DecisionLimit {
    api::DecisionLimit {
        name: limit.name.to_owned(),
        from: number(limit.from),
        to: number(limit.to),
    }
}

/// The numbers that matter most: everything that is not zero first.
fn inputs(decision: &Decision) -> Vec<api::DecisionInput> {
    let mut all: Vec<_> = decision.inputs.iter().collect();
    all.sort_by_key(|input| input.value == 0);
    let shown = all.into_iter().take(INPUTS_MAX);
    shown
        .map(|input| api::DecisionInput {
            name: input.name.to_owned(),
            queue: input.queue.as_deref().map(str::to_owned),
            value: i64::try_from(input.value).unwrap_or(i64::MAX),
            source: input.source.to_owned(),
            age_milliseconds: i64::try_from(input.age.as_millis()).unwrap_or(i64::MAX),
        })
        .collect()
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
