//! Metrics of a WorkerPool, and the events that people read.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Resource;
use poolwright_api::conditions::find;
use poolwright_api::v1alpha1::{WorkerPool, WorkerPoolStatus};
use poolwright_api::{ConditionType, Reason};
use poolwright_core::snapshot::WORDS_MAX;
use poolwright_core::text::{bounded, counted};

use super::super::cycle::Decided;
use super::Context;
use crate::kube::events::table;
use crate::kube::index::Group;
use crate::metrics::WorkerPoolNumbers;

/// The demand is not followed, and nobody has wished that. A reading that is old or looks wrong is not among them: that is
/// its TaskQueue's to tell, and passes.
const HELD: [Reason; 5] = [
    Reason::Conflict,
    Reason::Fallback,
    Reason::HeldUnseen,
    Reason::NoProgress,
    Reason::WrongBroker,
];

/// Shows the numbers.
pub(super) fn count(context: &Context, decided: &Decided, group: &Group) {
    // Without a valid spec nothing is decided; what runs is there as before.
    let decision = decided.decision.as_ref();
    let living = decided.state.objects.living();
    let (parked, draining) = decided.state.objects.leaving();
    let numbers = WorkerPoolNumbers {
        desired: decision.map(|decision| u64::from(decision.to)),
        at_maximum: decision.map(|decision| decision.reason == Reason::AtMaximum),
        held: decision.map(|decision| HELD.contains(&decision.reason)),
        ready: living.filter(|pod| pod.ready).count() as u64,
        parked: parked as u64,
        draining: draining as u64,
        slots: decision.map(|decision| decision.facts.slots),
        busy: decision.and_then(|decision| decision.facts.busy),
        start_up_seconds: decision.and_then(|decision| Some(decision.facts.start_up?.as_secs_f64())),
    };
    context.metrics.worker_pool(&group.0, &group.1, numbers);
    context.metrics.misplaced(&group.0, &group.1, 0);
}

/// Shows whether anything will move by itself.
pub(super) fn stalled(context: &Context, new: &WorkerPoolStatus, group: &Group) {
    let stalled = find(&new.conditions, ConditionType::Stalled).is_some_and(|one| one.status == "True");
    context.metrics.stalled(&group.0, &group.1, stalled);
}

/// An event for pods that were lost with their node.
pub(super) fn lost(context: &Context, decided: &Decided, told: &mut Vec<String>) {
    let lost = decided
        .decision
        .as_ref()
        .map_or(&[][..], |decision| &decision.facts.lost);
    let news: Vec<&str> = lost
        .iter()
        .filter(|pod| !told.contains(pod))
        .map(String::as_str)
        .collect();
    if !news.is_empty() {
        let text = format!(
            "{} silent and should have been gone for a minute, as on a dead node: {}",
            counted(news.len(), "pod is", "pods are"),
            bounded(&news.join(", "), WORDS_MAX)
        );
        let about = decided.state.wp.object_ref(&());
        context
            .events
            .send(&about, &table::LOST, Reason::LostPods.as_str(), &text);
    }
    *told = lost.to_vec();
}

/// An event for a pod template that somebody had changed.
pub(super) fn restored(context: &Context, wp: &WorkerPool, deployment: &str) {
    let text = format!(
        "somebody had changed the pod template of Deployment {deployment}, which is as it was again: change the WorkerPool \
         in its place"
    );
    let reason = Reason::Restored.as_str();
    let about = wp.object_ref(&());
    context.events.send(&about, &table::RESTORED, reason, &text);
}

/// Events on transitions only: a new decision that changes something, and a summary that turns or changes reason.
pub(super) fn changes(
    context: &Context,
    wp: &WorkerPool,
    old: &WorkerPoolStatus,
    new: &WorkerPoolStatus,
    group: &Group,
) {
    let about: ObjectReference = wp.object_ref(&());
    if let Some(decision) = new
        .last_decision
        .as_ref()
        .filter(|decision| old.last_decision.as_ref() != Some(*decision))
    {
        context.metrics.decision(&group.0, &group.1, &decision.reason);
        let quiet = decision.reason == Reason::AsDesired.as_str() && decision.from == decision.to;
        if !quiet {
            context
                .events
                .send(&about, &table::DECISION, &decision.reason, &decision.text);
        }
    }
    for (type_, sort) in [
        (ConditionType::Ready, &table::NOT_READY),
        (ConditionType::ConfigurationAdvised, &table::ADVISED),
    ] {
        let (before, after) = (find(&old.conditions, type_), find(&new.conditions, type_));
        let Some(after) = after else { continue };
        let moved =
            before.is_none_or(|before| (&before.status, &before.reason) != (&after.status, &after.reason));
        let bad = (type_ == ConditionType::Ready) == (after.status == "False") && after.status != "Unknown";
        if moved && bad && after.reason != Reason::Progressing.as_str() {
            context.events.send(&about, sort, &after.reason, &after.message);
        }
    }
}
