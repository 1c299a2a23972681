//! Which events there are: what is sent, and the reference page, are made by this one table.
//!
//! Decides whether an event is a warning. Whoever sends one names its row here, so that none is sent that the page does not
//! tell of; one whose reason is not in its row is a defect, and is said in the log.

use std::fmt::Write as _;

use poolwright_api::Reason;

/// The events that one place sends.
#[derive(Debug)]
pub struct Sort {
    /// Kind of the object that they are about.
    pub object: &'static str,
    /// Their `action`, to which a digest of the note is added.
    pub action: &'static str,
    /// When they are sent.
    pub when: &'static str,
    /// Reasons of those of type Normal.
    pub normal: &'static [Reason],
    /// Reasons of those of type Warning.
    pub warning: &'static [Reason],
}

impl Sort {
    /// True if it has a row for this reason.
    pub(super) fn knows(&self, reason: Reason) -> bool {
        self.normal.contains(&reason) || self.warning.contains(&reason)
    }

    /// True if events of this reason are warnings.
    pub(super) fn warns(&self, reason: Reason) -> bool {
        !self.normal.contains(&reason)
    }
}

/// A decision of a WorkerPool.
pub const DECISION: Sort = Sort {
    object: "WorkerPool",
    action: "Scale",
    when: "a decision was stored that differs from the last one; its text is that of `lastDecision`",
    normal: &[
        Reason::ScaledUp,
        Reason::ScaledDown,
        Reason::AsDesired,
        Reason::AtMinimum,
        Reason::ManualHold,
        Reason::Paused,
        Reason::Recommended,
    ],
    warning: &[
        Reason::AtMaximum,
        Reason::PoolLimited,
        Reason::WaitingForSlots,
        Reason::PodLargerThanPool,
        Reason::PoolMissing,
        Reason::Conflict,
        Reason::HeldStale,
        Reason::HeldSuspect,
        Reason::HeldUnseen,
        Reason::NoProgress,
        Reason::WrongBroker,
        Reason::Fallback,
    ],
};

/// The summary of a WorkerPool.
pub const NOT_READY: Sort = Sort {
    object: "WorkerPool",
    action: "Observe",
    when: "`Ready` has become False, or has another reason",
    normal: &[],
    warning: &[
        Reason::InvalidSpec,
        Reason::QueueUnknown,
        Reason::Conflict,
        Reason::PoolMissing,
        Reason::PodLargerThanPool,
        Reason::WaitingForSlots,
        Reason::TooManyHolders,
        Reason::RevisionUnproven,
        Reason::Unschedulable,
        Reason::QuotaExceeded,
        Reason::AdmissionDenied,
        Reason::ImageNotPulled,
        Reason::ConfigMapMissing,
        Reason::SecretMissing,
        Reason::CrashLoop,
        Reason::OutOfMemory,
        Reason::BrokerUnreachable,
        Reason::BrokerRefused,
        Reason::QueueAbsent,
        Reason::SecretForbidden,
        Reason::HeldStale,
        Reason::HeldUnseen,
        Reason::WrongBroker,
        Reason::NoProgress,
    ],
};

/// What a WorkerPool is advised of.
pub const ADVISED: Sort = Sort {
    object: "WorkerPool",
    action: "Observe",
    when: "`ConfigurationAdvised` has become True, or has another reason",
    normal: &[],
    warning: &[
        Reason::Advised,
        Reason::RedeliveryRisk,
        Reason::GraceUnproven,
        Reason::ForeignConsumers,
        Reason::AnswersUnreadable,
        Reason::OutOfMemory,
    ],
};

/// Pods that went with their node.
pub const LOST: Sort = Sort {
    object: "WorkerPool",
    action: "Observe",
    when: "pods are silent and should have been gone for a minute",
    normal: &[],
    warning: &[Reason::LostPods],
};

/// What somebody has done to what is ours.
pub const RESTORED: Sort = Sort {
    object: "WorkerPool",
    action: "Restore",
    when: "somebody had changed the pod template of one of its Deployments, and it is as it was",
    normal: &[Reason::Restored],
    warning: &[],
};

/// The summary of a TaskQueue.
pub const QUEUE: Sort = Sort {
    object: "TaskQueue",
    action: "Observe",
    when: "`Ready` has become False, or has another reason; `WeightCycle` leaves it True",
    normal: &[],
    warning: &[
        Reason::InvalidSpec,
        Reason::Conflict,
        Reason::PoolMissing,
        Reason::WeightCycle,
        Reason::BrokerUnreachable,
        Reason::BrokerRefused,
        Reason::QueueAbsent,
        Reason::SecretMissing,
        Reason::SecretForbidden,
        Reason::HeldStale,
    ],
};

/// A wait target that is missed, or kept again.
pub const WAIT_TARGET: Sort = Sort {
    object: "TaskQueue",
    action: "Observe",
    when: "its wait target is missed, for so long that it counts; or is kept again",
    normal: &[Reason::AsDesired],
    warning: &[Reason::WaitTargetMissed],
};

/// Messages that nobody will take.
pub const STRAY: Sort = Sort {
    object: "TaskQueue",
    action: "Observe",
    when: "messages wait in its broker's queue `celery`, which nobody names or consumes; anew after ten minutes without any",
    normal: &[],
    warning: &[Reason::QueueUnknown],
};

/// The summary of a Pool.
pub const POOL: Sort = Sort {
    object: "Pool",
    action: "Observe",
    when: "`Ready` has become False, or has another reason",
    normal: &[],
    warning: &[
        Reason::OverBudget,
        Reason::TooManyHolders,
        Reason::QueueUnknown,
        Reason::InvalidSpec,
        Reason::Conflict,
        Reason::SecretMissing,
        Reason::SecretForbidden,
        Reason::AirflowUnreachable,
        Reason::AirflowRefused,
        Reason::AirflowUnknown,
        Reason::AirflowPoolMissing,
    ],
};

/// A pool of Airflow that somebody has changed, where that is changed back.
pub const TAKEN_BACK: Sort = Sort {
    object: "Pool",
    action: "Sync",
    when: "with `sync: Apply`, somebody had changed its pool of Airflow, which is changed back",
    normal: &[],
    warning: &[Reason::AirflowDrifted],
};

/// The same, where it is followed.
pub const FOLLOWED: Sort = Sort {
    object: "Pool",
    action: "Sync",
    when: "with `sync: Mirror`, its pool of Airflow was changed, and the Pool follows",
    normal: &[Reason::AirflowDrifted],
    warning: &[],
};

/// A pool that stays in Airflow.
pub const LEFT: Sort = Sort {
    object: "Pool",
    action: "Leave",
    when: "a pool that was made for it in Airflow stays there",
    normal: &[],
    warning: &[Reason::AirflowPoolLeft],
};

/// All of them, in the order of the page.
pub const TABLE: [&Sort; 12] = [
    &DECISION,
    &NOT_READY,
    &ADVISED,
    &LOST,
    &RESTORED,
    &QUEUE,
    &WAIT_TARGET,
    &STRAY,
    &POOL,
    &TAKEN_BACK,
    &FOLLOWED,
    &LEFT,
];

/// The reference page.
#[must_use]
pub fn reference() -> String {
    let mut page = String::from(
        "# Events\n\n\
         <!-- Generated from the table in operator/src/kube/events/table.rs. Do not edit. -->\n\n\
         What the operator tells of an object when something changes, in `events.k8s.io/v1`, reported by `poolwright`; \
         `kubectl describe` shows them. What lasts stands in the object's conditions: an event may be dropped, where there \
         are more than 25 of one object at once and one each half minute after that, or more than 2,000 in a namespace at \
         once and ten a second. [Reasons](reasons.md) says what each reason means and what to do.\n\n\
         | object | reason | type | action | when |\n|---|---|---|---|---|\n",
    );
    for sort in TABLE {
        for (reasons, type_) in [(sort.normal, "Normal"), (sort.warning, "Warning")] {
            for reason in reasons {
                // Writing to a String cannot fail.
                let _ = writeln!(
                    page,
                    "| {} | `{reason}` | {type_} | {} | {} |",
                    sort.object, sort.action, sort.when
                );
            }
        }
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_page_is_what_the_table_says() {
        crate::pages::expect("events.md", &reference(), "events");
    }

    #[test]
    fn no_reason_is_of_both_types_or_there_twice() {
        for sort in TABLE {
            let mut all: Vec<_> = sort
                .normal
                .iter()
                .chain(sort.warning)
                .map(ToString::to_string)
                .collect();
            let count = all.len();
            all.sort();
            all.dedup();
            assert_eq!(all.len(), count, "{}: {}", sort.object, sort.when);
        }
    }
}
