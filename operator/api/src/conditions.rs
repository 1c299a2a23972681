//! Condition types, reasons, and the one pure function that writes a condition.
//!
//! Relies on the caller for the time and the object's generation. Guarantees that a condition's transition time moves
//! only with its status, and that a message fits its bound, so that equal observations give equal conditions.

use std::{fmt, str::FromStr};

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};
use serde::{Deserialize, Serialize};

use crate::text::bounded;

/// Greatest length of a condition's message, in bytes. Longer ones are cut, ending in an ellipsis.
pub const MESSAGE_BYTES_MAX: usize = 1024;

/// An enum whose values are written as their own names, in objects as in events and metrics.
macro_rules! names {
    ($(#[$meta:meta])* $name:ident { $($(#[$variant_meta:meta])* $variant:ident,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$variant_meta])* $variant,)*
        }

        impl $name {
            /// Every value, in the order of declaration.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The value as it is written in objects, events and metrics.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => stringify!($variant),)*
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = UnknownName;

            fn from_str(text: &str) -> Result<Self, UnknownName> {
                Self::ALL.iter().copied().find(|value| value.as_str() == text).ok_or(UnknownName)
            }
        }
    };
}

/// The text names no known value; another version of Poolwright may have written it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownName;

impl fmt::Display for UnknownName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("unknown name")
    }
}

impl std::error::Error for UnknownName {}

names! {
    /// Type of a condition. `Ready`, `Reconciling` and `Stalled` follow kstatus and are on every kind.
    ConditionType {
        /// The object does what its spec asks for.
        Ready,
        /// The operator is still changing something for this object.
        Reconciling,
        /// No progress is possible until somebody changes something.
        Stalled,
        /// The number of workers follows the demand.
        ScalingActive,
        /// A limit keeps the number of workers from what the demand asks for.
        ScalingLimited,
        /// Every source of this WorkerPool has fresh data.
        SignalsFresh,
        /// `spec.replicas` holds the number of workers.
        ManualHold,
        /// The configuration works, but something in it is a known mistake.
        ConfigurationAdvised,
        /// Airflow's pool and this Pool say the same.
        AirflowInSync,
        /// Tasks of this TaskQueue wait for a worker for less than half of the time after which Airflow takes them back.
        QueuedInTime,
        /// Tasks of this TaskQueue wait no longer than `waitTargetSeconds`, or not for long enough to count.
        WaitTargetMet,
    }
}

names! {
    /// Why: the one list of reasons, used for conditions, events, decisions and metrics alike.
    Reason {
        /// All is as the spec asks.
        AsDesired,
        /// Changes are under way.
        Progressing,
        /// A field of the spec cannot be used; running workers are left as they are.
        InvalidSpec,
        /// Workers were added.
        ScaledUp,
        /// Workers were taken away.
        ScaledDown,
        /// The demand asks for more than `maxReplicas`.
        AtMaximum,
        /// The demand asks for less than `minReplicas`.
        AtMinimum,
        /// Held because data is too old.
        HeldStale,
        /// Held because a worker has not been heard of.
        HeldUnseen,
        /// Held because a fall to zero does not look like work that was done.
        HeldSuspect,
        /// No fresh data for so long that the fallback number is used.
        Fallback,
        /// `spec.replicas` holds the number of workers.
        ManualHold,
        /// Scaling is paused.
        Paused,
        /// The decision is told and not carried out.
        Recommended,
        /// Somebody else writes what Poolwright owns, or two objects contradict each other.
        Conflict,
        /// No worker of the newest revision has been heard of.
        RevisionUnproven,
        /// A slot budget has no room at the moment.
        WaitingForSlots,
        /// A slot budget caps the number of workers.
        PoolLimited,
        /// No Pool has the name that a TaskQueue draws on.
        PoolMissing,
        /// One pod takes more slots than the whole budget has.
        PodLargerThanPool,
        /// A budget has as many holders as its status can hold.
        TooManyHolders,
        /// More slots are taken than the budget has.
        OverBudget,
        /// Queues come after each other in a circle, so none of them comes before another.
        WeightCycle,
        /// A Secret, or a key in it, is missing.
        SecretMissing,
        /// The spec works, and something in it is a known mistake.
        Advised,
        /// Workers cannot be asked what they hold, so only their heartbeats tell.
        AnswersUnreadable,
        /// A `ConfigMap`, or a key in it, that the worker's pod needs is missing.
        ConfigMapMissing,
        /// The operator may not read a Secret.
        SecretForbidden,
        /// The broker cannot be reached.
        BrokerUnreachable,
        /// The broker refuses the credentials or a command.
        BrokerRefused,
        /// A worker runs but does not show on the queue's broker.
        WrongBroker,
        /// The broker has no such queue.
        QueueAbsent,
        /// No TaskQueue has that name.
        QueueUnknown,
        /// Workers that are not ours consume the queue.
        ForeignConsumers,
        /// The broker may deliver a task again while it is still running.
        RedeliveryRisk,
        /// No time limit is enforced, so no grace period is known to suffice.
        GraceUnproven,
        /// No node has room for a pod.
        Unschedulable,
        /// A quota of the namespace is used up.
        QuotaExceeded,
        /// The image cannot be pulled.
        ImageNotPulled,
        /// The worker ends again and again.
        CrashLoop,
        /// The worker was killed for its memory.
        OutOfMemory,
        /// Admission refused a pod or Deployment.
        AdmissionDenied,
        /// Pods were lost with their node.
        LostPods,
        /// Growth stopped: more pods add no work.
        NoProgress,
        /// What somebody had changed of a Deployment is as it was.
        Restored,
        /// Airflow cannot be reached, or breaks off its answers.
        AirflowUnreachable,
        /// Airflow refuses the credentials, or what they may do.
        AirflowRefused,
        /// What answers is no Airflow that is known.
        AirflowUnknown,
        /// Airflow has no pool of that name.
        AirflowPoolMissing,
        /// Airflow's pool and this Pool say different things, and one is being changed.
        AirflowDrifted,
        /// A pool that was made in Airflow for a Pool stays there, and is nobody's from now on.
        AirflowPoolLeft,
        /// Sensors in poke mode hold slots while they wait.
        SensorsPoke,
        /// Tasks may wait so long for a worker that Airflow's scheduler fails them.
        QueuedTooLong,
        /// Tasks have waited longer than `waitTargetSeconds` for `waitTargetMissedAfterSeconds`.
        WaitTargetMissed,
    }
}

/// What [`set`] did to the list of conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "status is written, and an event sent, only when a condition changed"]
pub enum Change {
    /// The condition is new or its status changed: its transition time is `now`.
    Transitioned,
    /// Its reason, message or observed generation changed; its status did not.
    Updated,
    /// Nothing changed.
    Unchanged,
}

/// A condition to be handed to [`set`]; its transition time is filled in there.
#[must_use]
pub fn condition(
    type_: ConditionType,
    status: Option<bool>,
    reason: Reason,
    message: impl Into<String>,
    observed_generation: Option<i64>,
) -> Condition {
    Condition {
        type_: type_.as_str().to_owned(),
        status: status_text(status).to_owned(),
        reason: reason.as_str().to_owned(),
        message: message.into(),
        observed_generation,
        last_transition_time: Time(Timestamp::UNIX_EPOCH),
    }
}

/// `True`, `False` or, for `None`, `Unknown`.
#[must_use]
pub const fn status_text(status: Option<bool>) -> &'static str {
    match status {
        Some(true) => "True",
        Some(false) => "False",
        None => "Unknown",
    }
}

/// The condition of that type, if the list has one.
#[must_use]
pub fn find(conditions: &[Condition], type_: ConditionType) -> Option<&Condition> {
    conditions
        .iter()
        .find(|condition| condition.type_ == type_.as_str())
}

/// Writes `new` into `conditions`, replacing the one of its type.
///
/// The transition time is `now` in whole seconds if the status differs from the old one (or there is none), and the
/// old one otherwise; what `new` holds there is ignored. The message is cut to [`MESSAGE_BYTES_MAX`].
pub fn set(conditions: &mut Vec<Condition>, new: Condition, now: Timestamp) -> Change {
    let mut new = Condition {
        message: bounded(&new.message, MESSAGE_BYTES_MAX),
        last_transition_time: Time(whole_seconds(now)),
        ..new
    };
    let Some(old) = conditions.iter_mut().find(|old| old.type_ == new.type_) else {
        conditions.push(new);
        return Change::Transitioned;
    };
    if old.status != new.status {
        *old = new;
        return Change::Transitioned;
    }
    new.last_transition_time = old.last_transition_time.clone();
    if *old == new {
        return Change::Unchanged;
    }
    *old = new;
    Change::Updated
}

/// `time` without its fraction of a second: objects store whole seconds, so a finer time would never compare equal to
/// the same condition read back.
#[must_use]
pub fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}
