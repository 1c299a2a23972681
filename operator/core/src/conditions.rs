//! The conditions of a WorkerPool: each says one thing, in words that name what to do.
//!
//! `Ready` is the summary; its reason is the first that applies in the order below, from what the user can mend
//! at once to what only time can.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use poolwright_api::conditions::{condition, find, set};
use poolwright_api::{ConditionType, Reason};

use crate::cause::cut;
use crate::decision::{Decision, POOL, SCHEDULE, THROUGHPUT};
use crate::sample::FaultKind;
use crate::snapshot::{PoolInput, Trouble};
use crate::status::Facts;
use crate::text::counted;
use crate::validate::Invalid;
use crate::words::besides;

/// What the conditions are made of.
pub struct Seen<'a> {
    /// The WorkerPool as observed, if its spec is valid.
    pub input: Option<&'a PoolInput>,
    /// Its decision, once there is one.
    pub decision: Option<&'a Decision>,
    /// Why its spec cannot be used.
    pub invalid: Option<&'a Invalid>,
    /// The rest.
    pub facts: &'a Facts<'a>,
}

type Said = (Option<bool>, Reason, String);

/// Writes all conditions.
pub fn write(conditions: &mut Vec<Condition>, seen: &Seen) {
    let ready = ready(seen);
    let all = [
        (ConditionType::Reconciling, reconciling(seen)),
        (ConditionType::Stalled, stalled(seen, &ready)),
        (ConditionType::ScalingActive, scaling_active(seen)),
        (ConditionType::ScalingLimited, scaling_limited(seen)),
        (ConditionType::SignalsFresh, signals_fresh(seen)),
        (ConditionType::ManualHold, manual_hold(seen)),
        (ConditionType::ConfigurationAdvised, advised(seen)),
        (ConditionType::Ready, ready),
    ];
    for (type_, (status, reason, message)) in all {
        let new = condition(type_, status, reason, message, seen.facts.generation);
        let _ = set(conditions, new, seen.facts.wall);
    }
}

/// The reason that stands for a failed reading.
#[must_use]
pub const fn reason_of(kind: FaultKind) -> Reason {
    match kind {
        FaultKind::Unreachable => Reason::BrokerUnreachable,
        FaultKind::Refused => Reason::BrokerRefused,
        FaultKind::QueueAbsent => Reason::QueueAbsent,
        FaultKind::SecretMissing => Reason::SecretMissing,
        FaultKind::SecretForbidden => Reason::SecretForbidden,
        FaultKind::Implausible => Reason::HeldStale,
        FaultKind::InvalidAddress => Reason::InvalidSpec,
    }
}

fn unknown(text: &str) -> Said {
    (None, Reason::Progressing, text.to_owned())
}

fn ready(seen: &Seen) -> Said {
    if let Some(invalid) = seen.invalid {
        return (
            Some(false),
            invalid.reason,
            format!("{invalid}; running workers are left as they are"),
        );
    }
    let (Some(input), Some(decision)) = (seen.input, seen.decision) else {
        return unknown("no decision yet");
    };
    if let Some(conflict) = &input.conflict {
        return (Some(false), Reason::Conflict, conflict.clone());
    }
    if let Some(trouble) = trouble(seen, input) {
        return (Some(false), trouble.reason, trouble.message.clone());
    }
    if !decision.facts.missing.is_empty() {
        let (_, reason, message) = signals_fresh(seen);
        return (Some(false), reason, message);
    }
    if let Some((Reason::RevisionUnproven, text)) = &decision.allocation.note {
        return (Some(false), Reason::RevisionUnproven, text.clone());
    }
    if matches!(
        decision.reason,
        Reason::HeldUnseen
            | Reason::WrongBroker
            | Reason::NoProgress
            | Reason::PoolMissing
            | Reason::PodLargerThanPool
    ) {
        return (Some(false), decision.reason, decision.text());
    }
    if let Some(unseen) = unseen(input, decision) {
        return unseen;
    }
    let pods = input.consuming().filter(|pod| pod.ready).count();
    if (pods as u64) < u64::from(decision.to) {
        return (
            Some(false),
            Reason::Progressing,
            format!("{pods} of {} ready", counted(decision.to, "pod is", "pods are")),
        );
    }
    let reason = match decision.reason {
        // Few as they are, they are as many as was decided: what keeps others from coming is said where it is seen first.
        Reason::AtMaximum
        | Reason::ManualHold
        | Reason::Paused
        | Reason::Recommended
        | Reason::PoolLimited
        | Reason::WaitingForSlots => decision.reason,
        _ => Reason::AsDesired,
    };
    (
        Some(true),
        reason,
        format!("{}, as wanted", counted(decision.to, "pod", "pods")),
    )
}

/// Workers that run and are not heard are wrong even where nothing has to be held for them: none of them may work.
fn unseen(input: &PoolInput, decision: &Decision) -> Option<Said> {
    let first = decision.facts.unseen.iter().min()?;
    let (count, queue) = (
        decision.facts.unseen.len(),
        input.queues.first().map_or("", AsRef::as_ref),
    );
    Some(if decision.facts.elsewhere {
        let message = format!(
            "{} and none is heard on the broker of queue {queue:?}: give the workers the broker that \
             status.broker of its TaskQueue shows, or, where they have it, send their events to its \
             spec.broker.eventExchange",
            counted(count, "pod runs", "pods run")
        );
        (Some(false), Reason::WrongBroker, message)
    } else {
        let message = format!(
            "no heartbeats from {}, {first} for one: their slots count as full",
            counted(count, "pod that runs", "pods that run")
        );
        (Some(false), Reason::HeldUnseen, message)
    })
}

/// The first trouble by class, so that it does not change with the order of pods. A worker that is heard in
/// a pod that is whole is over its trouble, and older revisions matter only while a pod of theirs does not run.
fn trouble<'a>(seen: &Seen<'a>, input: &'a PoolInput) -> Option<&'a Trouble> {
    let refused = input
        .revisions
        .iter()
        .filter_map(|revision| revision.refused.as_ref());
    let heard: BTreeSet<&str> = seen
        .decision
        .map(|one| one.facts.heard().collect())
        .unwrap_or_default();
    let pods = input
        .consuming()
        .filter(|pod| pod.revision == input.revision || !pod.ready)
        .filter(|pod| !pod.ready || !heard.contains(pod.name.as_str()));
    let mut all: Vec<&Trouble> = refused
        .chain(pods.filter_map(|pod| pod.trouble.as_ref()))
        .collect();
    all.extend(seen.facts.refused);
    all.into_iter().min()
}

fn reconciling(seen: &Seen) -> Said {
    let (Some(input), Some(decision)) = (seen.input, seen.decision) else {
        return (Some(false), Reason::AsDesired, String::new());
    };
    if input.conflict.is_some() {
        return (
            Some(false),
            Reason::Conflict,
            "held until the conflict is over".to_owned(),
        );
    }
    let allocation = &decision.allocation;
    if let Some((Reason::Progressing, text)) = &allocation.note {
        return (Some(true), Reason::Progressing, text.clone());
    }
    let ready = input.consuming().filter(|pod| pod.ready).count() as u64;
    if ready != u64::from(decision.to) {
        return (
            Some(true),
            Reason::Progressing,
            format!("{} ready, {} wanted", counted(ready, "pod", "pods"), decision.to),
        );
    }
    let older = input.revisions.iter().filter(|one| one.name != input.revision);
    if allocation.note.is_none() && older.map(|one| one.replicas).sum::<u32>() > 0 {
        let text = format!("revision {} takes over", input.revision);
        return (Some(true), Reason::Progressing, text);
    }
    (Some(false), Reason::AsDesired, String::new())
}

/// A revision that no worker of was heard for so long makes no progress, whatever else keeps it from running.
fn stalled(seen: &Seen, ready: &Said) -> Said {
    let no = || (Some(false), Reason::AsDesired, String::new());
    let note = seen
        .decision
        .and_then(|decision| decision.allocation.note.as_ref());
    if matches!(
        ready.1,
        Reason::InvalidSpec
            | Reason::QueueUnknown
            | Reason::Conflict
            | Reason::PoolMissing
            | Reason::PodLargerThanPool
    ) {
        if ready.0 == Some(false) {
            return (Some(true), ready.1, ready.2.clone());
        }
    } else if let Some((Reason::RevisionUnproven, text)) = note {
        return (Some(true), Reason::RevisionUnproven, text.clone());
    }
    no()
}

fn scaling_active(seen: &Seen) -> Said {
    if let Some(invalid) = seen.invalid {
        return (Some(false), invalid.reason, invalid.to_string());
    }
    let Some(decision) = seen.decision else {
        return unknown("no decision yet");
    };
    if let Some(said) = seen.input.and_then(|input| overridden(seen, input, decision)) {
        return said;
    }
    let held = seen.input.is_some_and(|input| input.hold.is_some());
    if held && matches!(decision.limits.last(), Some(limit) if limit.name == POOL) {
        // That a Pool gives less than the number that is held does not make it follow the demand.
        return (Some(false), Reason::ManualHold, decision.text());
    }
    let follows = !matches!(
        decision.reason,
        Reason::HeldStale
            | Reason::HeldUnseen
            | Reason::HeldSuspect
            | Reason::Fallback
            | Reason::ManualHold
            | Reason::Conflict
            | Reason::WrongBroker
            | Reason::NoProgress
    );
    let message = if follows {
        "the number of workers follows the demand".to_owned()
    } else {
        decision.text()
    };
    (
        Some(follows),
        if follows {
            Reason::AsDesired
        } else {
            decision.reason
        },
        message,
    )
}

/// Somebody has asked that the number does not follow the demand.
fn overridden(seen: &Seen, input: &PoolInput, decision: &Decision) -> Option<Said> {
    if input.hold.is_some() || input.conflict.is_some() {
        return None;
    }
    let told = |words: &str| {
        let since = since(seen, ConditionType::ScalingActive, words);
        format!("{words}{since:.0}: {}", decision.text())
    };
    if input.pause.scale_in && input.pause.scale_out {
        let message = told("paused by annotation since ");
        return Some((Some(false), Reason::Paused, message));
    }
    input.recommend.then(|| {
        let message = told("spec.scaling.mode is Recommend since ");
        (Some(false), Reason::Recommended, message)
    })
}

/// Since when a condition has said these words, by what it says after them; a transition time moves with the status alone.
/// What was said is lost while something else is wrong, and then the record of the object's writers tells it.
fn since(seen: &Seen, type_: ConditionType, words: &str) -> Timestamp {
    let old = find(&seen.facts.old.conditions, type_);
    let told = old.and_then(|old| old.message.strip_prefix(words)?.get(..20)?.parse().ok());
    let wrote = seen.input.and_then(|input| input.overridden_since);
    told.or(wrote).unwrap_or(seen.facts.wall)
}

fn scaling_limited(seen: &Seen) -> Said {
    let Some(decision) = seen.decision else {
        return (Some(false), Reason::AsDesired, String::new());
    };
    let bound = bounded_by(decision);
    let pause = seen.input.filter(|input| input.hold.is_none());
    let pause = pause.map(|input| input.pause).unwrap_or_default();
    if pause.scale_in != pause.scale_out {
        let what = if pause.scale_in { "scale-in" } else { "scale-out" };
        let words = format!("{what} is paused by annotation since ");
        let at = since(seen, ConditionType::ScalingLimited, &words);
        let also = if bound.2.is_empty() { "" } else { "; " };
        let message = format!("{words}{at:.0}{also}{}", bound.2);
        return (Some(true), Reason::Paused, message);
    }
    bound
}

/// The bound that keeps the number from what is wanted.
fn bounded_by(decision: &Decision) -> Said {
    let told = |name: &str| {
        matches!(
            name,
            "maxReplicas" | "minReplicas" | POOL | "maxActiveTasks" | SCHEDULE | THROUGHPUT
        )
    };
    // The last one is the tightest.
    match decision.limits.iter().rfind(|limit| told(limit.name)) {
        Some(limit) if limit.name == POOL => {
            let said = decision.budget.as_ref().map(cut);
            let (reason, words) = said.unwrap_or_else(|| (decision.reason, decision.text()));
            (Some(true), reason, words)
        }
        Some(limit) if limit.name == "maxActiveTasks" => {
            let message = format!("capped at {} pods by maxActiveTasks", limit.to);
            (Some(true), Reason::AtMaximum, message)
        }
        Some(limit) if limit.name == "maxReplicas" => {
            let message = format!("the demand asks for more than maxReplicas {}", limit.to);
            (Some(true), Reason::AtMaximum, message)
        }
        Some(limit) if limit.name == THROUGHPUT => {
            let message = format!(
                "more than {} are taken to end no more tasks",
                counted(limit.to, "pod", "pods")
            );
            (Some(true), Reason::NoProgress, message)
        }
        Some(limit) if limit.name == SCHEDULE => {
            let message = format!("the demand asks for less than the {} of a schedule", limit.to);
            (Some(true), Reason::AtMinimum, message)
        }
        Some(limit) => (
            Some(true),
            Reason::AtMinimum,
            format!("the demand asks for less than minReplicas {}", limit.to),
        ),
        None => (Some(false), Reason::AsDesired, String::new()),
    }
}

fn signals_fresh(seen: &Seen) -> Said {
    let Some(decision) = seen.decision else {
        return unknown("no reading yet");
    };
    let missing = &decision.facts.missing;
    let Some((first, fault)) = missing
        .iter()
        .min_by_key(|(_, fault)| fault.as_ref().map(|fault| fault.kind))
    else {
        let mut message = "every source has fresh data".to_owned();
        if let Some(words) = &decision.facts.load_unknown {
            message = format!(
                "{message}; the load of celery.dynamicConcurrency is not known, so nothing changes for it: {words}"
            );
        }
        return (Some(true), Reason::AsDesired, message);
    };
    let more = besides(first, missing.iter().map(|(name, _)| name.as_str()));
    match fault {
        Some(fault) => {
            let message = format!("{first}{more}: {} (since {:.0})", fault.message, fault.since_wall);
            (Some(false), reason_of(fault.kind), message)
        }
        None => (
            Some(false),
            Reason::HeldStale,
            format!("{first}{more}: no reading yet"),
        ),
    }
}

fn manual_hold(seen: &Seen) -> Said {
    let Some(hold) = seen.input.and_then(|input| input.hold.as_ref()) else {
        return (Some(false), Reason::AsDesired, String::new());
    };
    // `kubectl scale` on a custom resource leaves no field manager behind, or one without a time.
    let (who, wrote) = hold
        .by
        .as_ref()
        .map_or((None, None), |(who, since)| (Some(who), *since));
    let before =
        find(&seen.facts.old.conditions, ConditionType::ManualHold).filter(|old| old.status == "True");
    let since = wrote
        .or_else(|| before.map(|old| old.last_transition_time.0))
        .unwrap_or(seen.facts.wall);
    let who = who.map_or(
        "a writer that the API server has not recorded, as with kubectl scale",
        String::as_str,
    );
    let name = seen.facts.name;
    let namespace = seen.input.map_or("", |input| input.key.namespace.as_str());
    let message = format!(
        "held since {since:.0} by {who}, now at {}; to end it: kubectl patch wp {name} -n {namespace} --type=merge -p '{{\"spec\":{{\"replicas\":null}}}}'",
        counted(hold.replicas, "replica", "replicas")
    );
    (Some(true), Reason::ManualHold, message)
}

fn advised(seen: &Seen) -> Said {
    let is_rabbitmq = seen.decision.is_some_and(|decision| decision.facts.is_rabbitmq);
    let given = || {
        let all = seen.facts.advice.iter();
        all.filter(|advice| is_rabbitmq || !advice.unless_redis)
    };
    let mut texts: Vec<String> = given()
        .map(|advice| format!("{}: {}", advice.field, advice.text))
        .collect();
    let mut reason = given()
        .find_map(|advice| advice.reason)
        .unwrap_or(Reason::Advised);
    if let Some(decision) = seen.decision {
        let (names, count) = &decision.facts.foreign;
        if *count > 0 {
            let shown: Vec<&str> = names.iter().take(5).map(String::as_str).collect();
            texts.push(format!(
                "{} these queues: {}",
                counted(
                    *count,
                    "worker that is not ours consumes",
                    "workers that are not ours consume"
                ),
                shown.join(", ")
            ));
            if texts.len() == 1 {
                reason = Reason::ForeignConsumers;
            }
        }
        if let Some((count, why)) = &decision.facts.unreadable {
            texts.push(format!(
                "{} be asked ({why}): scale-in goes by their heartbeats; enable worker_enable_remote_control and \
                 accept JSON",
                counted(*count, "worker cannot", "workers cannot")
            ));
            if texts.len() == 1 {
                reason = Reason::AnswersUnreadable;
            }
        }
    }
    if let Some(killed) = killed_for_memory(seen) {
        texts.push(killed);
        if texts.len() == 1 {
            reason = Reason::OutOfMemory;
        }
    }
    if texts.is_empty() {
        return (Some(false), Reason::AsDesired, String::new());
    }
    (Some(true), reason, texts.join("; "))
}

/// Workers that came up again after they were killed for their memory.
fn killed_for_memory(seen: &Seen) -> Option<String> {
    let facts = &seen.decision?.facts;
    let killed = seen.input?.consuming().filter(|pod| {
        let trouble = pod.trouble.as_ref();
        trouble.is_some_and(|trouble| trouble.reason == Reason::OutOfMemory)
            && facts.heard().any(|name| name == &*pod.name)
    });
    let names: Vec<&str> = killed.map(|pod| pod.name.as_str()).collect();
    let first = names.iter().min()?;
    Some(format!(
        "spec.worker.resources.limits.memory: the last run of {} ended for its memory, of {first} for one",
        counted(names.len(), "worker", "workers")
    ))
}

#[cfg(test)]
#[path = "conditions_tests.rs"]
mod tests;
