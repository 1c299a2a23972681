//! Known mistakes in a WorkerPool that works.
//!
//! Each is said with the number that makes it one and with the fix; none is refused or silently corrected,
//! because the user may know better. This module decides only what to say: `validate` decides what can run.

use std::collections::BTreeMap;

use poolwright_api::Reason;
use poolwright_api::v1alpha1::{Broker, Celery, TaskQueue, WorkerClass, WorkerPool};

use crate::airflow;
use crate::broker_key::{BrokerAddress, BrokerKey};
use crate::class::{defaults, traits};
use crate::grace::needed_seconds;
use crate::quantity::Amount;
use crate::validate::{Program, ValidPool, resource_limit};

/// MiB that a prefork process needs at least: an interpreter with a small app.
const PROCESS_MIB: i64 = 100;
/// Processes per CPU beyond which they only wait for each other.
const PROCESSES_PER_CPU: i64 = 2;
/// Most other WorkerPools that one advice names.
const NAMES_MAX: usize = 3;

/// One known mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advice {
    /// JSON path of the field to change.
    pub field: String,
    /// What is wrong, with its numbers, and what to do.
    pub text: String,
    /// `RedeliveryRisk` or `GraceUnproven` where the mistake has a reason of its own.
    pub reason: Option<Reason>,
    /// Holds only while the broker may be RabbitMQ: its address is in a Secret, and only a reading tells.
    pub unless_redis: bool,
}

/// Another WorkerPool of the same namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Its name.
    pub name: String,
    /// Its class, if one is written.
    pub class: Option<WorkerClass>,
    /// Names of the TaskQueue objects that it consumes.
    pub queues: Vec<String>,
}

/// What is known to be a mistake in `wp`, which was validated as `pool`: always in the same order, whatever the
/// order of `others`. `queues` are the TaskQueues of its namespace, `others` its other WorkerPools (an entry of
/// its own name is ignored).
#[must_use]
pub fn advise(
    pool: &ValidPool,
    wp: &WorkerPool,
    queues: &BTreeMap<String, TaskQueue>,
    others: &[Neighbour],
) -> Vec<Advice> {
    let mut all = Vec::new();
    if pool.program == Program::Airflow {
        all.extend(airflow::advise(pool, wp));
    }
    all.extend(too_many_processes(pool, wp));
    all.extend(prefetch(pool));
    all.extend(shared_queues(pool, others));
    all.extend(no_time_limit(pool));
    all.extend(wp.spec.celery.iter().flat_map(|celery| ignored(pool, celery)));
    all.extend(left_out_soft_limit(pool));
    all.extend(beat(pool));
    all.extend(memory(pool, wp));
    let broker = pool.queues.first().and_then(|queue| queues.get(&queue.object));
    all.extend(broker.and_then(|task_queue| redelivery(pool, &task_queue.spec.broker)));
    all.extend(short_grace(pool));
    all
}

pub(crate) fn advice(field: impl Into<String>, text: String) -> Advice {
    Advice {
        field: field.into(),
        text,
        reason: None,
        unless_redis: false,
    }
}

/// A scheduler of periodic tasks in every worker.
fn beat(pool: &ValidPool) -> Option<Advice> {
    // Short options without a value may stand together; what follows one with a value is its value, as in -QBatch.
    let flags = |short: &str| {
        short
            .chars()
            .take_while(|flag| "BDE".contains(*flag))
            .any(|flag| flag == 'B')
    };
    let has = |argument: &String| match argument.strip_prefix("--") {
        Some(long) => long == "beat",
        None => argument.strip_prefix('-').is_some_and(flags),
    };
    let position = pool.extra_args.iter().position(has)?;
    let text = "starts celery beat in each worker: every periodic task is sent once for each of them, and not at all while \
                there is none. Leave it out, and run celery beat in a Deployment of one replica";
    let field = format!("spec.celery.extraArgs[{position}]");
    (pool.program != Program::Airflow).then(|| advice(field, text.to_owned()))
}

fn too_many_processes(pool: &ValidPool, wp: &WorkerPool) -> Option<Advice> {
    // Airflow's tasks mostly wait for others: its rule for slots starts at twelve a CPU.
    if !traits(pool.execution_pool).processes || pool.program == Program::Airflow {
        return None;
    }
    let slots = i64::from(pool.concurrency);
    let cpu = resource_limit(wp, "cpu").ok()??;
    let most = cpu.times(PROCESSES_PER_CPU)?;
    let text = format!(
        "{slots} prefork processes share a CPU limit of {} (at most {PROCESSES_PER_CPU} a CPU are of use, here {}): \
         lower spec.celery.concurrency, raise spec.worker.resources.limits.cpu, or use executionPool Gevent for \
         tasks that wait for others",
        written_limit(wp, "cpu"),
        most.ceil_units(),
    );
    (Amount::of_units(slots) > most).then(|| advice("spec.celery.concurrency", text))
}

fn prefetch(pool: &ValidPool) -> Option<Advice> {
    let class = pool
        .class
        .filter(|class| matches!(class, WorkerClass::Cpu | WorkerClass::Memory))?;
    let prefetch = pool.prefetch_multiplier.filter(|prefetch| *prefetch > 1)?;
    let text = format!(
        "each slot holds {prefetch} messages; with long tasks (class {class:?}) the fetched ones wait behind a \
         running one while other workers are idle: set spec.celery.prefetchMultiplier to 1"
    );
    Some(advice("spec.celery.prefetchMultiplier", text))
}

fn shared_queues(pool: &ValidPool, others: &[Neighbour]) -> Vec<Advice> {
    let Some(class) = pool.class else {
        return Vec::new();
    };
    let mut all = Vec::new();
    for (position, queue) in pool.queues.iter().enumerate() {
        let mut names: Vec<String> = others
            .iter()
            .filter(|other| other.name != pool.name && other.queues.contains(&queue.object))
            .filter_map(|other| Some((other, other.class.filter(|theirs| *theirs != class)?)))
            .map(|(other, theirs)| format!("{} ({theirs:?})", other.name))
            .collect();
        if names.is_empty() {
            continue;
        }
        names.sort();
        let more = names.len().saturating_sub(NAMES_MAX);
        names.truncate(NAMES_MAX);
        let more = if more > 0 {
            format!(" and {more} more")
        } else {
            String::new()
        };
        let text = format!(
            "TaskQueue {:?} is consumed as class {class:?} here and by {}{more}: its tasks meet different limits \
             by chance; let WorkerPools of one class consume it",
            queue.object,
            names.join(", "),
        );
        all.push(advice(format!("spec.queues[{position}].name"), text));
    }
    all
}

fn no_time_limit(pool: &ValidPool) -> Option<Advice> {
    if pool.time_limit.is_some() || pool.program == Program::Airflow && pool.grace.proven {
        return None;
    }
    if pool.program == Program::Airflow {
        let text =
            "nothing says how long a task may run: set it to the greatest execution_timeout of its tasks";
        return Some(unproven(
            pool,
            advice("spec.airflow.longestTaskSeconds", text.to_owned()),
        ));
    }
    let held = "a task that hangs keeps its slot for ever";
    let text = if traits(pool.execution_pool).hard_limit {
        format!(
            "there is no time limit: {held}; set spec.celery.timeLimitSeconds{}",
            pool.soft_time_limit
                .filter(|limit| limit.enforced)
                .map(|limit| format!(" above the soft limit of {} s", limit.seconds))
                .unwrap_or_default()
        )
    } else {
        format!(
            "executionPool {:?} enforces no time limit: {held}; give the tasks timeouts of their own, or use \
             Prefork or Gevent",
            pool.execution_pool
        )
    };
    Some(unproven(pool, advice("spec.celery.timeLimitSeconds", text)))
}

/// Adds what an unproven grace means to an advice about time limits.
fn unproven(pool: &ValidPool, mut advice: Advice) -> Advice {
    if !pool.grace.proven {
        advice.reason = Some(Reason::GraceUnproven);
        advice.text = format!(
            "{}. A stopped pod gets {} s, and a longer task is killed: set spec.drain.graceSeconds to the longest task",
            advice.text, pool.grace.seconds
        );
    }
    advice
}

/// Written limits that the execution pool ignores.
fn ignored(pool: &ValidPool, celery: &Celery) -> Vec<Advice> {
    let obeys = traits(pool.execution_pool);
    let hard = celery.time_limit_seconds.map(|seconds| format!("{seconds} s"));
    let soft = celery
        .soft_time_limit_seconds
        .map(|seconds| format!("{seconds} s"));
    let tasks = celery.max_tasks_per_child.map(|tasks| format!("{tasks} tasks"));
    let memory = celery
        .max_memory_per_child
        .as_ref()
        .map(|memory| memory.0.clone());
    let table = [
        ("timeLimitSeconds", hard, obeys.hard_limit, "Prefork or Gevent"),
        ("softTimeLimitSeconds", soft, obeys.soft_limit, "Prefork"),
        ("maxTasksPerChild", tasks, obeys.children, "Prefork"),
        ("maxMemoryPerChild", memory, obeys.children, "Prefork"),
    ];
    let mut all = Vec::new();
    for (field, value, obeyed, fix) in table {
        let Some(value) = value.filter(|_| !obeyed) else {
            continue;
        };
        let text = format!(
            "{value} has no effect: executionPool {:?} ignores it; remove it or use {fix}",
            pool.execution_pool
        );
        let advice = advice(format!("spec.celery.{field}"), text);
        all.push(if field == "timeLimitSeconds" {
            unproven(pool, advice)
        } else {
            advice
        });
    }
    all
}

fn left_out_soft_limit(pool: &ValidPool) -> Option<Advice> {
    let hard = pool.time_limit.filter(|limit| limit.enforced)?.seconds;
    let default = defaults(pool.class).soft_time_limit_seconds?;
    if pool.soft_time_limit.is_some() || !traits(pool.execution_pool).soft_limit {
        return None;
    }
    let text = format!(
        "the class's soft limit of {default} s is left out, because it is not below the hard limit of {hard} s: \
         set spec.celery.softTimeLimitSeconds below {hard}, so that tasks can clean up"
    );
    Some(advice("spec.celery.softTimeLimitSeconds", text))
}

fn memory(pool: &ValidPool, wp: &WorkerPool) -> Option<Advice> {
    if !traits(pool.execution_pool).processes {
        return None;
    }
    let slots = i64::from(pool.concurrency);
    let needed_mib = slots.saturating_mul(PROCESS_MIB);
    let limit = resource_limit(wp, "memory").ok()??;
    let text = format!(
        "a limit of {} for {slots} prefork processes is less than {PROCESS_MIB}Mi each, and one out-of-memory kill \
         ends the whole container with every task in it: raise it to {needed_mib}Mi or more, or lower {}",
        written_limit(wp, "memory"),
        pool.program.field("concurrency"),
    );
    let needed = Amount::of_units(needed_mib.saturating_mul(1024 * 1024));
    (limit < needed).then(|| advice("spec.worker.resources.limits.memory", text))
}

/// A message is unacknowledged while those fetched before it run and, with late acknowledgement, while it runs
/// itself: at most hard limit × (1 + prefetch). At or past the broker's limit it is delivered a second time.
fn redelivery(pool: &ValidPool, broker: &Broker) -> Option<Advice> {
    let limited = pool.time_limit?;
    let hard = i64::from(limited.seconds);
    let what = if pool.program == Program::Airflow {
        "longest task"
    } else if limited.enforced {
        "time limit"
    } else {
        "the time that is written"
    };
    let prefetch = i64::from(pool.effective_prefetch());
    let held = hard.saturating_mul(1 + prefetch);
    let (limit, name) = redelivery_limit(broker);
    let field = pool.program.field(match pool.program {
        Program::Celery { .. } => "timeLimitSeconds",
        Program::Airflow => "longestTaskSeconds",
    });
    let text = format!(
        "a message may stay unacknowledged for {held} s = {what} {hard} s × (1 + prefetch {prefetch}), and the \
         broker delivers it again after {limit} s ({name}): the task would run twice. Lower \
         {field} or prefetchMultiplier, or raise the broker's limit and write it in the TaskQueue"
    );
    let redis = broker.redis_options().visibility_timeout_seconds;
    (held >= i64::from(limit)).then_some(Advice {
        field,
        text,
        reason: Some(Reason::RedeliveryRisk),
        unless_redis: is_amqp(broker).is_none() && held < i64::from(redis),
    })
}

/// Whether the broker is RabbitMQ, as far as the spec tells.
fn is_amqp(broker: &Broker) -> Option<bool> {
    match BrokerKey::new("", broker).address {
        BrokerAddress::Url(url) => Some(url.starts_with("amqp")),
        BrokerAddress::Secret { .. } if broker.redis.is_some() => Some(false),
        BrokerAddress::Secret { .. } => broker.rabbitmq.as_ref().map(|_| true),
    }
}

/// The broker's limit in seconds, and what it is called. If the address is in a Secret and no option tells the
/// kind of broker, the shorter of the two defaults.
fn redelivery_limit(broker: &Broker) -> (i32, &'static str) {
    const REDIS: &str = "visibilityTimeoutSeconds";
    const RABBITMQ: &str = "consumerTimeoutSeconds";
    let (redis, rabbitmq) = (broker.redis_options(), broker.rabbitmq_options());
    match is_amqp(broker) {
        Some(true) => (rabbitmq.consumer_timeout_seconds, RABBITMQ),
        Some(false) => (redis.visibility_timeout_seconds, REDIS),
        None if redis.visibility_timeout_seconds < rabbitmq.consumer_timeout_seconds => {
            (redis.visibility_timeout_seconds, REDIS)
        }
        None => (
            rabbitmq.consumer_timeout_seconds,
            "RabbitMQ's default; if this is Redis, 3600 s: say so with spec.broker.redis or rabbitmq in the TaskQueue",
        ),
    }
}

fn short_grace(pool: &ValidPool) -> Option<Advice> {
    let needed = needed_seconds(
        pool.execution_pool,
        pool.enforced_time_limit_seconds(),
        pool.prefetch_multiplier,
    )?;
    let text = format!(
        "{} s may end a pod in the middle of a task: a worker with these limits needs up to {needed} s to finish \
         what it holds; raise it, or remove it and it is calculated",
        pool.grace.seconds
    );
    (pool.grace.seconds < needed).then(|| advice("spec.drain.graceSeconds", text))
}

/// A limit as the user wrote it.
pub(crate) fn written_limit<'a>(wp: &'a WorkerPool, resource: &str) -> &'a str {
    let limits = wp
        .spec
        .worker
        .resources
        .as_ref()
        .and_then(|resources| resources.limits.as_ref());
    limits
        .and_then(|limits| limits.get(resource))
        .map_or("", |quantity| quantity.0.as_str())
}

#[cfg(test)]
#[path = "advice_tests.rs"]
mod tests;
