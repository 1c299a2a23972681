//! What is told of the wait target of a TaskQueue: the condition and its events.
//!
//! Whether it is missed is decided in the core. Words are renewed at most as often as estimates are, so that a queue whose
//! tasks wait ever longer is not written with each look.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;
use poolwright_api::conditions::find;
use poolwright_api::v1alpha1::{TaskQueue, TaskQueueStatus, WorkerPool};
use poolwright_api::{ConditionType, Reason};
use poolwright_core::late::{Lateness, Miss};
use poolwright_core::ledger::QueueLedger;
use poolwright_core::outlook::settled;
use poolwright_core::text::bounded;
use poolwright_core::time::Moment;

use super::ESTIMATES_EVERY;
use crate::controllers::world::World;

/// WorkerPools that a message names.
const NAMED: usize = 3;
/// Bytes of what one of them says.
const WORDS: usize = 240;

/// Status, reason and message of the condition.
pub(super) type Said = (Option<bool>, Reason, String);

/// What is remembered of the wait target of one TaskQueue.
pub(super) struct Watched {
    lateness: Lateness,
    told: Option<Told>,
}

/// What was said last of a miss, and of which.
struct Told {
    at: Moment,
    since: Timestamp,
    expected: Option<i64>,
    oldest: Option<i64>,
    message: String,
}

impl Watched {
    /// Goes on where the status ends: what another process has told is no news.
    pub(super) fn of(queue: &TaskQueue) -> Self {
        let conditions = queue.status.as_ref().map(|status| &status.conditions);
        let stored = conditions.and_then(|all| find(all, ConditionType::WaitTargetMet));
        let lateness = match stored.map(|stored| (stored, stored.status.as_str())) {
            Some((stored, "False")) => Lateness::inherited(Some(since(stored))),
            Some((_, "True")) => Lateness::inherited(None),
            _ => Lateness::default(),
        };
        Self { lateness, told: None }
    }

    /// Takes in what is known now.
    pub(super) fn look(&mut self, queue: &TaskQueue, book: Option<&QueueLedger>, times: (Moment, Timestamp)) {
        let bounds = (queue.wait_target(), queue.wait_target_missed_after());
        self.lateness.look(book, bounds, times);
    }

    /// Whether the target is missed, as far as that is known, and how often that has begun.
    pub(super) const fn numbers(&self) -> (Option<bool>, u64) {
        (self.lateness.is_missed(), self.lateness.misses())
    }

    /// What the condition says. `holding` is asked what keeps more workers away, if new words are due.
    pub(super) fn said(
        &mut self,
        target: Duration,
        now: Moment,
        holding: impl FnOnce() -> Vec<String>,
    ) -> Said {
        let Some(miss) = self.lateness.miss() else {
            self.told = None;
            return match self.lateness.is_missed() {
                Some(_) => (Some(true), Reason::AsDesired, String::new()),
                None => (None, Reason::Progressing, "not known yet".to_owned()),
            };
        };
        let is_due = |told: &Told| told.since != miss.since || now.since(told.at) >= ESTIMATES_EVERY;
        if self.told.as_ref().is_none_or(is_due) {
            let old = self.told.take().filter(|old| old.since == miss.since);
            let old = old.map(|old| (old.expected, old.oldest)).unwrap_or_default();
            let expected = settled(old.0, miss.wait.expected);
            let oldest = settled(old.1, miss.wait.oldest);
            self.told = Some(Told {
                at: now,
                since: miss.since,
                expected,
                oldest,
                message: words(&miss, target, (expected, oldest), &holding()),
            });
        }
        let message = self.told.as_ref().map(|told| told.message.clone());
        (Some(false), Reason::WaitTargetMissed, message.unwrap_or_default())
    }
}

fn words(
    miss: &Miss,
    target: Duration,
    (expected, oldest): (Option<i64>, Option<i64>),
    holding: &[String],
) -> String {
    let nobody = (miss.wait.unserved && expected.is_none()).then(|| "nobody takes them".to_owned());
    let expected = expected.map(|seconds| format!("one that is pushed now would wait {seconds} s"));
    let oldest = oldest.map(|seconds| format!("the oldest has waited {seconds} s"));
    let numbers: Vec<String> = [nobody, expected, oldest].into_iter().flatten().collect();
    let colon = if numbers.is_empty() { "" } else { ": " };
    let mut words = format!(
        "tasks wait longer than spec.waitTargetSeconds {} since {:.0}{colon}{}",
        target.as_secs(),
        miss.since,
        numbers.join(", ")
    );
    for one in holding {
        words.push_str("; ");
        words.push_str(one);
    }
    words
}

/// Since when, by the condition's own words; or else since it was said first.
fn since(stored: &Condition) -> Timestamp {
    let (_, rest) = stored.message.split_once("since ").unwrap_or_default();
    let told = rest.get(..20).and_then(|time| time.parse().ok());
    told.unwrap_or(stored.last_transition_time.0)
}

/// What keeps the WorkerPools of a queue from having more workers, by their own words.
pub(super) fn holding(world: &World, queue: &TaskQueue) -> Vec<String> {
    let (namespace, name) = (queue.namespace().unwrap_or_default(), queue.name_any());
    let mut own = world.pools.that_name(&namespace, &name);
    own.truncate(NAMED);
    if own.is_empty() {
        return vec!["no WorkerPool names it in spec.queues".to_owned()];
    }
    own.iter().filter_map(|wp| holds(wp)).collect()
}

/// What is wrong with a WorkerPool, or limits it; the worse first.
fn holds(wp: &WorkerPool) -> Option<String> {
    let conditions = &wp.status.as_ref()?.conditions;
    let is = |type_, status: &str| find(conditions, type_).filter(|found| found.status == status);
    let other = |reason: Reason| move |found: &&Condition| found.reason != reason.as_str();
    let not_ready = is(ConditionType::Ready, "False");
    let found = not_ready
        .filter(other(Reason::Progressing))
        .or_else(|| is(ConditionType::ScalingActive, "False"))
        .or_else(|| is(ConditionType::ScalingLimited, "True").filter(other(Reason::AtMinimum)))
        .or(not_ready)?;
    Some(format!(
        "WorkerPool {}: {}, {}",
        wp.name_any(),
        found.reason,
        bounded(&found.message, WORDS)
    ))
}

/// The event that a status is worth: a miss that begins, or is over.
pub(super) fn news(old: &TaskQueueStatus, new: &TaskQueueStatus) -> Option<(Reason, String)> {
    let is_missed = |status: &TaskQueueStatus| {
        let found = find(&status.conditions, ConditionType::WaitTargetMet)?;
        Some((found.status == "False", found.message.clone()))
    };
    let before = is_missed(old).is_some_and(|(missed, _)| missed);
    match is_missed(new)? {
        (true, message) if !before => Some((Reason::WaitTargetMissed, message)),
        (false, _) if before => {
            let words = "tasks wait no longer than spec.waitTargetSeconds any more";
            Some((Reason::AsDesired, words.to_owned()))
        }
        _ => None,
    }
}

#[cfg(test)]
#[path = "late_tests.rs"]
mod tests;
