//! What a person should do about a WorkerPool, from its conditions and its last decision.
//!
//! One line for each reason that asks for somebody; reasons that the operator deals with by itself have none.

use std::collections::BTreeSet;

use poolwright_api::v1alpha1::{DecisionLimit, WorkerPool, WorkerPoolStatus};
use poolwright_api::{ConditionType, Reason};

use super::as_it_should_be;

/// The steps, each once: what keeps it from being ready, those of other conditions in their order, then that of the last
/// decision. More workers are of no use while those that there are do not come up.
pub fn steps(wp: &WorkerPool) -> Vec<String> {
    let name = wp.metadata.name.as_deref().unwrap_or_default();
    let namespace = wp.metadata.namespace.as_deref().unwrap_or_default();
    let Some(status) = &wp.status else {
        return vec![NOT_SEEN.to_owned()];
    };
    let mut steps = Vec::new();
    if status.observed_generation.unwrap_or_default() < wp.metadata.generation.unwrap_or_default() {
        steps.push(
            "The newest spec has not been seen yet: if this lasts, see whether the operator runs".to_owned(),
        );
    }
    let mut wrong: Vec<_> = status
        .conditions
        .iter()
        .filter(|condition| !as_it_should_be(condition))
        .collect();
    wrong.sort_by_key(|condition| condition.type_ != ConditionType::Ready.as_str());
    let is_ready = wrong
        .first()
        .is_none_or(|condition| condition.type_ != ConditionType::Ready.as_str());
    let reasons = wrong.iter().map(|condition| condition.reason.as_str()).chain(
        status
            .last_decision
            .iter()
            .map(|decision| decision.reason.as_str()),
    );
    let mut seen = BTreeSet::new();
    for reason in reasons.filter_map(|reason| reason.parse().ok()) {
        if seen.insert(reason) {
            steps.extend(match reason {
                Reason::AtMaximum if !is_ready => None,
                Reason::AtMaximum if is_capped(status) => Some(CAPPED.to_owned()),
                _ => step(reason, namespace, name),
            });
        }
    }
    if steps.is_empty() && status.last_decision.is_none() {
        steps.push(NOT_SEEN.to_owned());
    }
    steps
}

const NOT_SEEN: &str = "If this lasts, see whether the operator runs and watches this namespace";

const CAPPED: &str = "Raise spec.maxActiveTasks of the TaskQueue if more of its tasks may run at a time";

/// What holds the number at its most is `maxActiveTasks`: the last limit is the tightest.
fn is_capped(status: &WorkerPoolStatus) -> bool {
    let mut limits = status.last_decision.iter().flat_map(|decision| &decision.limits);
    let most = |limit: &&DecisionLimit| matches!(limit.name.as_str(), "maxReplicas" | "maxActiveTasks");
    limits
        .rfind(most)
        .is_some_and(|limit| limit.name == "maxActiveTasks")
}

/// What to do about `reason`, or `None` where there is nothing to do.
fn step(reason: Reason, namespace: &str, name: &str) -> Option<String> {
    let words = match reason {
        Reason::AsDesired
        | Reason::Progressing
        | Reason::ScaledUp
        | Reason::ScaledDown
        | Reason::HeldSuspect
        | Reason::AtMinimum
        | Reason::WaitingForSlots => return None,
        Reason::InvalidSpec => {
            "Correct the field that the condition names; `poolwright lint -f FILE` checks the rest"
        }
        Reason::AtMaximum => "Raise spec.scaling.maxReplicas if the backlog should go faster",
        Reason::Advised => {
            "Follow the advice, or leave it: what the condition names works, but is a known mistake"
        }
        Reason::AnswersUnreadable => {
            "Set worker_enable_remote_control and accept JSON in the app, so that workers can say what they hold"
        }
        Reason::HeldStale => "Restore the source that gives no fresh data; until then nothing is scaled in",
        Reason::HeldUnseen | Reason::WrongBroker => {
            "See whether the app's broker is that of its TaskQueues, and whether its workers send events to \
             spec.broker.eventExchange"
        }
        Reason::Fallback => "Restore the data; until then spec.scaling.fallback decides",
        Reason::ManualHold => {
            return Some(format!(
                "End the hold: kubectl patch wp {name} -n {namespace} --type=merge -p '{{\"spec\":{{\"replicas\":null}}}}'"
            ));
        }
        Reason::Paused => {
            return Some(format!(
                "End the pause: kubectl annotate wp {name} -n {namespace} poolwright.dev/paused- \
                 poolwright.dev/paused-scale-in- poolwright.dev/paused-scale-out-"
            ));
        }
        Reason::Recommended => "Set spec.scaling.mode to Auto to have decisions carried out",
        Reason::Conflict => "Remove the other writer that the condition names",
        Reason::RevisionUnproven | Reason::CrashLoop => {
            return Some(format!(
                "Read why the newest workers do not start: kubectl logs -n {namespace} -l \
                 poolwright.dev/worker-pool={name} --all-containers --tail=50"
            ));
        }
        Reason::WaitTargetMissed => {
            "Remove what the condition names, or raise spec.waitTargetSeconds of the TaskQueue"
        }
        Reason::PoolLimited | Reason::OverBudget => "Give the budget more slots, or accept fewer workers",
        Reason::TooManyHolders => "Give some of the WorkerPools another Pool",
        Reason::PoolMissing => {
            "Create or correct the Pool that the condition names, or correct spec.pool.name"
        }
        Reason::WeightCycle => "Remove one of the links in spec.priority.downstream that the condition names",
        Reason::PodLargerThanPool => {
            "Give the budget more slots than one pod takes, or lower the concurrency or slotsPerTask, whichever the \
             condition names"
        }
        Reason::SecretMissing => "Create the Secret and key that the condition names",
        Reason::ConfigMapMissing => "Create the ConfigMap and key that the condition names",
        Reason::SecretForbidden => {
            "Run the command that the condition shows; it lets the operator read this Secret"
        }
        Reason::BrokerUnreachable => "See whether the broker runs and can be reached from the operator's pod",
        Reason::BrokerRefused => {
            "Correct the credentials in the Secret, or what the broker permits that user"
        }
        Reason::QueueAbsent => "Start a worker or publisher that declares the queue, or correct spec.queue",
        Reason::QueueUnknown => "Create the TaskQueue that the condition names, or correct spec.queues",
        Reason::ForeignConsumers => {
            "Stop the workers that the condition names, or count on sharing the backlog"
        }
        Reason::RedeliveryRisk | Reason::GraceUnproven => {
            "Change the field that the condition names; `poolwright lint -f FILE` shows the numbers"
        }
        Reason::Unschedulable => "Make room on the nodes, or lower what a pod requests",
        Reason::QuotaExceeded => "Raise the quota of the namespace, or lower spec.scaling.maxReplicas",
        Reason::ImageNotPulled => "Correct spec.worker.image, or the pull secrets",
        Reason::OutOfMemory => "Raise spec.worker.resources.limits.memory, or lower the concurrency",
        Reason::Restored => "Change the WorkerPool in place of its Deployment",
        Reason::AdmissionDenied => "Change the pod as the admission message asks",
        Reason::LostPods => {
            "See to the node that the condition names; the tasks of its pods are delivered again"
        }
        Reason::NoProgress => {
            "See what the new workers wait for: tasks that are not due yet, a lock, or a shared resource"
        }
        Reason::AirflowUnreachable
        | Reason::AirflowRefused
        | Reason::AirflowUnknown
        | Reason::AirflowPoolMissing
        | Reason::AirflowDrifted
        | Reason::AirflowPoolLeft
        | Reason::SensorsPoke => return airflow(reason).map(str::to_owned),
        Reason::QueuedTooLong => {
            "Raise spec.scaling.maxReplicas, or put the limit into Airflow's pool, where tasks wait without a time limit"
        }
    };
    Some(words.to_owned())
}

/// What to do about an Airflow.
fn airflow(reason: Reason) -> Option<&'static str> {
    Some(match reason {
        Reason::AirflowUnreachable => {
            "See whether Airflow's API runs and can be reached from the operator's pod"
        }
        Reason::AirflowRefused => {
            "Correct the credentials in the Secret, or the role of that user in Airflow"
        }
        Reason::AirflowUnknown => {
            "Correct url in the Secret of spec.airflow.secretRef: it must be the root of an Airflow 2 or 3"
        }
        Reason::AirflowPoolMissing => {
            "Create the pool in Airflow, correct spec.airflow.name, or set sync to Apply"
        }
        Reason::AirflowDrifted => "See what the condition names; it is changed at the next reading",
        Reason::AirflowPoolLeft => {
            "Delete the pool that the event names in Airflow, if nobody needs it there"
        }
        Reason::SensorsPoke => "Give the sensors mode=\"reschedule\" or deferrable=True",
        _ => return None,
    })
}
