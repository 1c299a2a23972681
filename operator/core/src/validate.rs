//! Whether a WorkerPool can be run, and with which numbers.
//!
//! The spec is parsed once, here, into a [`ValidPool`]; everything later works on that and checks nothing again.
//! What admission checks is checked again where a number of ours depends on it, because stored objects can be
//! older than a rule. This module may refuse only what cannot work or would make our counts wrong: bad ideas are
//! `advice`. An error names the field, the allowed values and what to do, and holds no value from a Secret.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use poolwright_api::Reason;
use poolwright_api::v1alpha1::{
    AckMode, Autoscale, BrokerEnv, Celery, ExecutionPool, Fallback, HighLoad, LogLevel, Scaling,
    ScalingPolicy, TaskQueue, WorkerClass, WorkerPool,
};

use crate::advice::{Neighbour, written_limit};
use crate::airflow;
use crate::broker_key::BrokerKey;
use crate::checks;
use crate::class::{self, Concurrency, Traits, defaults, traits};
use crate::grace::{self, Grace, grace};
use crate::policy::Policy;
use crate::quantity::{self, Amount};
use crate::resources;
use crate::schedule::{self, Schedule};

/// Most slots of one pod, as in the CRD.
const SLOTS_MAX: i64 = 10_000;
/// What starts a Celery worker, if `spec.worker.command` does not say otherwise.
const COMMAND: &str = "celery";

/// A WorkerPool whose spec can be run, with every default filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct ValidPool {
    /// Namespace of the WorkerPool; empty for a manifest that names none.
    pub namespace: String,
    /// Its name, 1 to 52 characters.
    pub name: String,
    /// Its uid; empty for a manifest.
    pub uid: String,
    /// `metadata.generation` of the spec that was read; 0 for a manifest.
    pub generation: i64,
    /// Class of work, if one is written.
    pub class: Option<WorkerClass>,
    /// The queues it consumes, in the order of the spec, 1 to 64, all on `broker`.
    pub queues: Vec<ValidQueue>,
    /// The broker of all its queues.
    pub broker: BrokerKey,
    /// `spec.celery.brokerEnv` is `Inject`.
    pub inject_broker: bool,
    /// What the workers run.
    pub program: Program,
    /// The words that start it, which the arguments follow.
    pub command: Vec<String>,
    /// What executes tasks.
    pub execution_pool: ExecutionPool,
    /// Slots of one pod, 1 to 10,000: the written or default concurrency, the `max` of `autoscale`, 1 for solo.
    pub concurrency: i32,
    /// Where that comes from, such as `4: class Cpu`, for people.
    pub concurrency_from: String,
    /// The worker's own scaling, if it is on.
    pub autoscale: Option<Autoscale>,
    /// When the worker's slots are halved, if ever.
    pub dynamic_concurrency: Option<HighLoad>,
    /// Messages fetched for each slot: written, or the class's. `None` leaves Celery's own,
    /// [`class::CELERY_PREFETCH`].
    pub prefetch_multiplier: Option<i32>,
    /// Tasks after which a child is replaced: written, or the class's where the execution pool obeys it.
    pub max_tasks_per_child: Option<i32>,
    /// KiB (Celery's unit) after which a child is replaced, rounded down, at least 1.
    pub max_memory_per_child_kib: Option<i64>,
    /// Hard limit: written, or the class's where the execution pool enforces it.
    pub time_limit: Option<Limit>,
    /// Soft limit: written, or the class's where the execution pool enforces it.
    pub soft_time_limit: Option<Limit>,
    /// Least severe messages that the worker logs; `None` leaves Celery's own.
    pub log_level: Option<LogLevel>,
    /// Arguments at the end of the command line.
    pub extra_args: Vec<String>,
    /// When tasks acknowledge.
    pub ack_mode: AckMode,
    /// Least consuming pods, at most `max`.
    pub min: i32,
    /// Most consuming pods, at least 1.
    pub max: i32,
    /// Times in which there are more than `min`, at most 16.
    pub schedules: Arc<[Schedule]>,
    /// How it comes to a number.
    pub policy: Policy,
    /// How long a need must be gone before pods go, where the policy does not say.
    pub scale_down_delay: Duration,
    /// What to do when data stays away.
    pub fallback: Option<Fallback>,
    /// `spec.replicas`: a manual hold.
    pub hold: Option<i32>,
    /// Seconds that a stopping pod gets, and whether they are known to suffice.
    pub grace: Grace,
}

/// What a WorkerPool's workers run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Program {
    /// `celery worker` of an app.
    Celery {
        /// The app.
        app: String,
    },
    /// `airflow celery worker`.
    Airflow,
}

impl Program {
    /// The path of a field in its part of the spec, such as `spec.celery.concurrency`.
    #[must_use]
    pub fn field(&self, name: &str) -> String {
        match self {
            Self::Celery { .. } => format!("spec.celery.{name}"),
            Self::Airflow => format!("spec.airflow.{name}"),
        }
    }
}

/// Slots of one pod.
pub(crate) struct Slots {
    /// How many, at least 1.
    pub(crate) count: i32,
    /// Where they come from.
    pub(crate) from: String,
}

impl Slots {
    fn new(count: i32, from: &str) -> Self {
        let from = format!("{count}: {from}");
        Self { count, from }
    }
}

/// `scaleDownDelaySeconds` with policy Backlog, where it is not written.
const DELAY: Duration = Duration::from_secs(60);
/// The target of a WorkerPool without queues.
const TARGET: Duration = Duration::from_secs(30);

/// One queue that a WorkerPool consumes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ValidQueue {
    /// Name of the TaskQueue object.
    pub object: String,
    /// Name of the queue on the broker.
    pub queue: String,
    /// Name of its Pool.
    pub pool: String,
    /// Slots of the Pool that one of its tasks takes, at least 1.
    pub slots_per_task: u64,
    /// Its tier as a number; the higher is served first.
    pub tier: u32,
    /// Most tasks of it that may run at a time, at least 1.
    pub max_active_tasks: Option<u32>,
    /// How long its tasks should wait at most.
    pub wait_target: Duration,
}

/// A time limit on the worker's command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Seconds, at least 1.
    pub seconds: i32,
    /// True if the execution pool enforces it; a written limit that it ignores is passed on all the same.
    pub enforced: bool,
}

/// Why a WorkerPool cannot be run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct Invalid {
    /// JSON path of the field, such as `spec.celery.concurrency`.
    pub field: String,
    /// What is wrong, what is allowed, what to do.
    pub message: String,
    /// `InvalidSpec`, or `QueueUnknown` for a TaskQueue that does not exist.
    pub reason: Reason,
}

impl Invalid {
    /// A field that cannot be used (`InvalidSpec`).
    pub(crate) fn spec(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            message: message.into(),
            reason: Reason::InvalidSpec,
        }
    }
}

impl ValidPool {
    /// The prefetch multiplier in force: [`Self::prefetch_multiplier`], else Celery's own.
    #[must_use]
    pub fn effective_prefetch(&self) -> i32 {
        self.prefetch_multiplier.unwrap_or(class::CELERY_PREFETCH)
    }

    /// The hard time limit in seconds, if there is one and it is enforced.
    #[must_use]
    pub fn enforced_time_limit_seconds(&self) -> Option<i32> {
        self.time_limit
            .filter(|limit| limit.enforced)
            .map(|limit| limit.seconds)
    }

    /// Most tasks that its workers may run at a time, without its Pools: those of `max` workers, or, where a cap on its queue
    /// is lower, of as many whole ones as fit below that. A queue with a cap is consumed alone.
    #[must_use]
    pub fn most_tasks(&self) -> u64 {
        let slots = u64::try_from(self.concurrency).unwrap_or(1).max(1);
        let fleet = u64::try_from(self.max).unwrap_or(0).saturating_mul(slots);
        let caps = self.queues.iter().filter_map(|queue| queue.max_active_tasks);
        let cap = caps.min().map(|most| u64::from(most) / slots * slots);
        cap.map_or(fleet, |cap| cap.min(fleet))
    }

    /// Names of the queues on the broker, in the order of the spec.
    pub fn queue_names(&self) -> impl Iterator<Item = &str> {
        self.queues.iter().map(|queue| queue.queue.as_str())
    }
}

/// Checks `wp` against the TaskQueues of its namespace (`queues`, by object name) and fills in the defaults of
/// its class.
///
/// # Errors
///
/// The first field that cannot be used; with several, the same one each time.
pub fn validate(wp: &WorkerPool, queues: &BTreeMap<String, TaskQueue>) -> Result<ValidPool, Invalid> {
    checks::name(wp)?;
    let (program, celery) = program(wp)?;
    let celery = &*celery;
    checks::ranges(&wp.spec, celery)?;
    if matches!(program, Program::Celery { .. }) {
        checks::celery(celery)?;
    }
    checks::scaling(&wp.spec.scaling)?;
    let schedules = schedule::read(&wp.spec.scaling)?;
    checks::worker(&wp.spec.worker, celery)?;
    checks::pod(wp.spec.pod.as_ref())?;
    checks::mounts(&wp.spec.worker, wp.spec.pod.as_ref())?;
    resources::check(wp)?;
    let (queues, broker) = checks::queues(wp, queues)?;
    let execution_pool = execution_pool(wp.spec.class, celery)?;
    checks::execution_pool(execution_pool, celery)?;
    let slots = match program {
        Program::Airflow if celery.autoscale.is_none() && celery.concurrency.is_none() => airflow::slots(wp)?,
        _ => slots(wp, celery, execution_pool, &program)?,
    };
    checks::cap(&queues, slots.count, &program)?;
    let (command, unproven) = match &program {
        Program::Celery { .. } => (COMMAND, grace::UNPROVEN_SECONDS),
        Program::Airflow => (airflow::COMMAND, airflow::UNPROVEN_SECONDS),
    };
    let written = Some(&wp.spec.worker.command).filter(|words| !words.is_empty());
    let command = written.cloned().unwrap_or_else(|| vec![command.to_owned()]);
    let obeys = traits(execution_pool);
    let default = defaults(wp.spec.class);
    let (time_limit, soft_time_limit) = limits(wp.spec.class, celery, obeys);
    let prefetch_multiplier = celery.prefetch_multiplier.or(default.prefetch);
    let enforced_limit_seconds = time_limit
        .filter(|limit| limit.enforced)
        .map(|limit| limit.seconds);
    let written_grace = wp.spec.drain.and_then(|drain| drain.grace_seconds).map(i64::from);
    let metadata = &wp.metadata;
    let scaling = &wp.spec.scaling;
    Ok(ValidPool {
        namespace: metadata.namespace.clone().unwrap_or_default(),
        name: metadata.name.clone().unwrap_or_default(),
        uid: metadata.uid.clone().unwrap_or_default(),
        generation: metadata.generation.unwrap_or_default(),
        class: wp.spec.class,
        policy: policy(scaling, &queues),
        queues,
        broker,
        inject_broker: celery.broker_env == BrokerEnv::Inject,
        program,
        command,
        execution_pool,
        concurrency: slots.count,
        concurrency_from: slots.from,
        autoscale: celery.autoscale,
        dynamic_concurrency: celery.dynamic_concurrency.clone(),
        prefetch_multiplier,
        max_tasks_per_child: celery
            .max_tasks_per_child
            .or_else(|| default.max_tasks_per_child.filter(|_| obeys.children)),
        max_memory_per_child_kib: max_memory_kib(celery)?,
        time_limit,
        soft_time_limit,
        log_level: celery.log_level,
        extra_args: celery.extra_args.clone(),
        ack_mode: celery.ack_mode,
        min: scaling.min_replicas,
        max: scaling.max_replicas,
        schedules,
        scale_down_delay: written_delay(scaling).unwrap_or(DELAY),
        fallback: scaling.fallback,
        hold: wp.spec.replicas,
        grace: grace(
            written_grace,
            execution_pool,
            enforced_limit_seconds,
            prefetch_multiplier,
            unproven,
        ),
    })
}

/// What the workers run, and the Celery worker that it is.
fn program(wp: &WorkerPool) -> Result<(Program, Cow<'_, Celery>), Invalid> {
    match (&wp.spec.celery, &wp.spec.airflow) {
        (Some(celery), None) => {
            let app = celery.app.clone();
            Ok((Program::Celery { app }, Cow::Borrowed(celery)))
        }
        (None, Some(airflow)) => {
            airflow::check(wp, airflow)?;
            Ok((Program::Airflow, Cow::Owned(airflow::worker(airflow))))
        }
        (None, None) => Err(Invalid::spec(
            "spec.celery",
            "is required: write at least spec.celery.app, or spec.airflow for workers of Airflow",
        )),
        (Some(_), Some(_)) => Err(Invalid::spec(
            "spec.airflow",
            "cannot be written together with spec.celery: remove one of them",
        )),
    }
}

/// A task that a worker has just begun is in no count until the worker's next heartbeat, which comes every two seconds: a
/// need must be gone for two of them.
const DELAY_MIN: Duration = Duration::from_secs(4);

fn written_delay(scaling: &Scaling) -> Option<Duration> {
    let seconds = scaling.scale_down_delay_seconds?;
    Some(Duration::from_secs(u64::from(seconds.unsigned_abs())).max(DELAY_MIN))
}

/// The shortest target counts: workers take tasks of their queues by turns.
fn policy(scaling: &Scaling, queues: &[ValidQueue]) -> Policy {
    match scaling.policy {
        ScalingPolicy::Backlog => Policy::Backlog,
        ScalingPolicy::WaitTarget => Policy::WaitTarget {
            target: queues
                .iter()
                .map(|queue| queue.wait_target)
                .min()
                .unwrap_or(TARGET),
            delay: written_delay(scaling),
        },
    }
}

/// Checks what only the `others`, the WorkerPools of the same namespace, can get wrong together with a valid `pool`: a
/// queue with `maxActiveTasks` that several of them consume. It is wrong at each of them.
///
/// # Errors
///
/// The queue that others consume too.
pub fn consumes_alone(
    pool: &ValidPool,
    queues: &BTreeMap<String, TaskQueue>,
    others: &[Neighbour],
) -> Result<(), Invalid> {
    let has_cap = |queue: &&ValidQueue| {
        let queue = queues.get(&queue.object);
        queue.is_some_and(|queue| queue.spec.max_active_tasks.is_some())
    };
    // With more queues than one the cap was refused before.
    let Some(queue) = pool.queues.first().filter(has_cap) else {
        return Ok(());
    };
    let consumes = |other: &&Neighbour| other.name != pool.name && other.queues.contains(&queue.object);
    let Some(other) = others.iter().filter(consumes).map(|other| &other.name).min() else {
        return Ok(());
    };
    let mut invalid = checks::shared_cap("spec.queues[0].name".to_owned(), &queue.object);
    let _ = write!(invalid.message, "; WorkerPool {other:?} consumes it too");
    Err(invalid)
}

/// A limit of the worker container, if one is written; a zero is none, as in Kubernetes.
///
/// # Errors
///
/// The limit is no quantity, or negative.
pub(crate) fn resource_limit(wp: &WorkerPool, resource: &str) -> Result<Option<Amount>, Invalid> {
    let limits = wp
        .spec
        .worker
        .resources
        .as_ref()
        .and_then(|resources| resources.limits.as_ref());
    let Some(quantity) = limits.and_then(|limits| limits.get(resource)) else {
        return Ok(None);
    };
    let amount = resources::amount(format!("spec.worker.resources.limits.{resource}"), quantity)?;
    Ok(Some(amount).filter(|amount| amount.ceil_units() > 0))
}

fn execution_pool(class: Option<WorkerClass>, celery: &Celery) -> Result<ExecutionPool, Invalid> {
    celery.execution_pool.or_else(|| defaults(class).execution_pool).ok_or_else(|| {
        Invalid::spec(
            "spec.celery.executionPool",
            "is required with class Io: Gevent or Eventlet if the image has it, Threads (ignores time limits), \
             or Prefork (50 processes unless concurrency says otherwise)",
        )
    })
}

/// Slots of one pod.
fn slots(wp: &WorkerPool, celery: &Celery, pool: ExecutionPool, program: &Program) -> Result<Slots, Invalid> {
    if traits(pool).single {
        return Ok(Slots::new(1, "executionPool Solo"));
    }
    if let Some(autoscale) = celery.autoscale {
        return Ok(Slots::new(autoscale.max, &program.field("autoscale.max")));
    }
    if let Some(written) = celery.concurrency {
        return Ok(Slots::new(written, &program.field("concurrency")));
    }
    let class = || {
        wp.spec
            .class
            .map_or_else(String::new, |class| format!("class {class:?}"))
    };
    let otherwise = match defaults(wp.spec.class).concurrency {
        Concurrency::Fixed(slots) => return Ok(Slots::new(slots, &class())),
        Concurrency::CpuLimit { otherwise } => otherwise,
    };
    if let Some(cpu) = resource_limit(wp, "cpu")? {
        let slots = cpu.ceil_units().clamp(1, SLOTS_MAX);
        let slots = i32::try_from(slots).map_err(|_| missing_concurrency())?;
        return Ok(Slots::new(
            slots,
            &format!("the CPU limit of {}", written_limit(wp, "cpu")),
        ));
    }
    let otherwise = otherwise.ok_or_else(missing_concurrency)?;
    Ok(Slots::new(
        otherwise,
        &format!("{}, without a CPU limit", class()),
    ))
}

fn missing_concurrency() -> Invalid {
    Invalid::spec(
        "spec.celery.concurrency",
        "is required (1 to 10000) without a class and without spec.worker.resources.limits.cpu, from which it \
         would follow",
    )
}

/// The hard and the soft limit. A class's limit gives way to a written one that contradicts it: a default soft
/// limit that is not below the written hard one, and a default hard limit that would come before the written
/// soft one, are left out.
fn limits(class: Option<WorkerClass>, celery: &Celery, obeys: Traits) -> (Option<Limit>, Option<Limit>) {
    let default = defaults(class);
    let (hard, soft) = (celery.time_limit_seconds, celery.soft_time_limit_seconds);
    let default_hard = default
        .time_limit_seconds
        .filter(|limit| obeys.hard_limit && soft.is_none_or(|soft| !obeys.soft_limit || soft < *limit));
    let default_soft = default
        .soft_time_limit_seconds
        .filter(|limit| obeys.soft_limit && hard.is_none_or(|hard| *limit < hard));
    let limit = |seconds: Option<i32>, enforced| seconds.map(|seconds| Limit { seconds, enforced });
    (
        limit(hard.or(default_hard), obeys.hard_limit),
        limit(soft.or(default_soft), obeys.soft_limit),
    )
}

fn max_memory_kib(celery: &Celery) -> Result<Option<i64>, Invalid> {
    let Some(quantity) = &celery.max_memory_per_child else {
        return Ok(None);
    };
    match Amount::parse(quantity).map(quantity::Amount::ceil_units) {
        Some(bytes) if bytes > 0 => Ok(Some((bytes / 1024).max(1))),
        _ => Err(Invalid::spec(
            "spec.celery.maxMemoryPerChild",
            "must be a quantity above 0 with a unit (Ki, Mi, Gi, Ti, k, M, G or T), such as 300Mi",
        )),
    }
}

#[cfg(test)]
#[path = "validate_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "validate_queues_tests.rs"]
mod queues_tests;
