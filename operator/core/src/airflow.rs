//! Workers of Airflow's `CeleryExecutor`.
//!
//! Such a worker is a Celery worker that Airflow starts: it says the same in heartbeats and answers the same questions.
//! This module decides what differs: its command line and environment, how many slots it has where nobody wrote it, and
//! which settings of Airflow would make another number of them. It knows nothing of DAGs.

use poolwright_api::ENV_POD_NAME;
use poolwright_api::v1alpha1::{Airflow, Celery, ExecutionPool, WorkerPool};

use crate::advice::{Advice, advice, written_limit};
use crate::checks::{WEEK_SECONDS, autoscale, between, slots_in_range};
use crate::command::literal;
use crate::quantity::Amount;
use crate::validate::{Invalid, Slots, ValidPool, resource_limit};

/// What starts a worker, if `spec.worker.command` does not say otherwise.
pub const COMMAND: &str = "airflow";
/// Seconds that a stopped worker gets where nobody says how long a task may take: a day.
pub const UNPROVEN_SECONDS: i64 = 86_400;
/// Most slots of a worker that nobody wrote; and slots for each CPU, and for each GiB. Cloud Composer's rule for
/// `worker_concurrency`.
const SLOTS_MAX: i64 = 32;
const SLOTS_PER_CPU: i64 = 12;
const SLOTS_PER_GIB: i64 = 8;
/// Airflow's own `worker_concurrency`, where there is no limit to calculate from.
const SLOTS_WITHOUT_LIMITS: i32 = 16;
/// Airflow's own `worker_prefetch_multiplier`.
const PREFETCH: i32 = 1;

/// Variables that would make another worker than the one that is counted with, and the field to use.
const RESERVED_ENV: [(&str, &str); 3] = [
    ("AIRFLOW__CELERY__WORKER_AUTOSCALE", "use spec.airflow.autoscale"),
    (
        "AIRFLOW__CELERY__WORKER_PREFETCH_MULTIPLIER",
        "use spec.airflow.prefetchMultiplier",
    ),
    ("AIRFLOW__CELERY__POOL", "tasks run in processes"),
];
/// Flags that fields or Poolwright itself set, long and short, and the field to use.
const RESERVED_FLAGS: [(&str, char, &str); 6] = [
    ("queues", 'q', "spec.queues"),
    ("concurrency", 'c', "spec.airflow.concurrency"),
    ("autoscale", 'a', "spec.airflow.autoscale"),
    (
        "celery-hostname",
        'H',
        "nothing: Poolwright names the worker after its pod",
    ),
    ("daemon", 'D', "nothing: the worker must stay in the foreground"),
    ("without-gossip", '\0', "nothing: Poolwright sets it"),
];

/// What `spec.airflow` gets wrong by itself.
pub(crate) fn check(wp: &WorkerPool, airflow: &Airflow) -> Result<(), Invalid> {
    if wp.spec.class.is_some() {
        let message = "sets the defaults of spec.celery: remove it beside spec.airflow";
        return Err(Invalid::spec("spec.class", message));
    }
    let (concurrency, bounds) = (airflow.concurrency, airflow.autoscale);
    slots_in_range("airflow", concurrency, bounds, airflow.prefetch_multiplier)?;
    between(
        "airflow.longestTaskSeconds",
        airflow.longest_task_seconds,
        1,
        WEEK_SECONDS,
    )?;
    autoscale("airflow", bounds, concurrency)?;
    for (position, argument) in airflow.extra_args.iter().enumerate() {
        if let Some((flag, field)) = reserved(argument) {
            let message = format!("sets --{flag}, which Poolwright sets: remove it and use {field}");
            let field = format!("spec.airflow.extraArgs[{position}]");
            return Err(Invalid::spec(field, message));
        }
    }
    for (position, variable) in wp.spec.worker.env.iter().enumerate() {
        if let Some((name, fix)) = RESERVED_ENV.iter().find(|(name, _)| *name == variable.name) {
            let message =
                format!("is {name}, and scaling counts with what spec.airflow says: remove it, {fix}");
            return Err(Invalid::spec(
                format!("spec.worker.env[{position}].name"),
                message,
            ));
        }
    }
    Ok(())
}

/// The reserved flag that an argument sets, if any. `-s` and `-v` take no value, so others may follow them in one word.
fn reserved(argument: &str) -> Option<(&'static str, &'static str)> {
    let flag = if let Some(long) = argument.strip_prefix("--") {
        let name = long.split('=').next().unwrap_or_default();
        // Airflow takes a beginning of a flag for the flag.
        let is_meant = |flag: &str| !name.is_empty() && flag.starts_with(name);
        RESERVED_FLAGS.iter().find(|(flag, ..)| is_meant(flag))
    } else {
        let first = argument
            .strip_prefix('-')?
            .trim_start_matches(['s', 'v'])
            .chars()
            .next()?;
        RESERVED_FLAGS.iter().find(|(_, short, _)| *short == first)
    };
    flag.map(|(flag, _, field)| (*flag, *field))
}

/// The Celery worker that it is.
pub(crate) fn worker(airflow: &Airflow) -> Celery {
    Celery {
        execution_pool: Some(ExecutionPool::Prefork),
        concurrency: airflow.concurrency,
        autoscale: airflow.autoscale,
        prefetch_multiplier: Some(airflow.prefetch_multiplier.unwrap_or(PREFETCH)),
        time_limit_seconds: airflow.longest_task_seconds,
        extra_args: airflow.extra_args.clone(),
        ..Celery::default()
    }
}

/// Slots of a worker that nobody wrote: min(32, 12 × CPU, 8 × GiB) of the limits that are written, at least 1.
pub(crate) fn slots(wp: &WorkerPool) -> Result<Slots, Invalid> {
    let (cpu, memory) = (resource_limit(wp, "cpu")?, resource_limit(wp, "memory")?);
    if cpu.is_none() && memory.is_none() {
        let count = SLOTS_WITHOUT_LIMITS;
        let from = format!("{count}: Airflow's default, for no limit says how many fit");
        return Ok(Slots { count, from });
    }
    let (mut most, mut terms) = (SLOTS_MAX, vec![SLOTS_MAX.to_string()]);
    if let Some(cpu) = cpu {
        most = most.min(cpu.times(SLOTS_PER_CPU).map_or(SLOTS_MAX, Amount::floor_units));
        terms.push(format!("{SLOTS_PER_CPU} × {} CPU", written_limit(wp, "cpu")));
    }
    if let Some(memory) = memory {
        let slots = memory.times(SLOTS_PER_GIB).map(Amount::floor_units);
        most = most.min(slots.map_or(SLOTS_MAX, |slots| slots >> 30));
        terms.push(format!("{SLOTS_PER_GIB} × {}", written_limit(wp, "memory")));
    }
    let count = i32::try_from(most.max(1)).unwrap_or(SLOTS_WITHOUT_LIMITS);
    let from = format!("{count} = min({})", terms.join(", "));
    Ok(Slots { count, from })
}

/// The arguments that follow the command.
pub(crate) fn arguments(pool: &ValidPool) -> Vec<String> {
    let queues = pool.queue_names().collect::<Vec<_>>().join(",");
    let mut arguments = ["celery", "worker", "-H"].map(str::to_owned).to_vec();
    arguments.extend([
        format!("celery@$({ENV_POD_NAME})"),
        "-q".to_owned(),
        literal(&queues),
    ]);
    match pool.autoscale {
        Some(autoscale) => arguments.push(format!("--autoscale={},{}", autoscale.max, autoscale.min)),
        None => arguments.extend(["-c".to_owned(), pool.concurrency.to_string()]),
    }
    arguments.push("--without-gossip".to_owned());
    arguments.extend(pool.extra_args.iter().cloned());
    arguments
}

/// Variables that the worker needs: the signal that ends a pod is for its main process alone, which lets tasks finish, and
/// what has no flag.
pub(crate) fn variables(pool: &ValidPool) -> [(&'static str, String); 2] {
    [
        ("DUMB_INIT_SETSID", "0".to_owned()),
        (
            "AIRFLOW__CELERY__WORKER_PREFETCH_MULTIPLIER",
            pool.effective_prefetch().to_string(),
        ),
    ]
}

/// Settings in the worker's environment that leave slots idle, or have no effect.
pub(crate) fn advise(pool: &ValidPool, wp: &WorkerPool) -> Vec<Advice> {
    let setting = |name: &str| {
        let variables = wp.spec.worker.env.iter().enumerate();
        let mut found = variables.filter(|(_, variable)| variable.name == name);
        let (position, variable) = found.next()?;
        let value: i64 = variable.value.as_ref()?.trim().parse().ok()?;
        Some((format!("spec.worker.env[{position}].value"), value))
    };
    let mut all = Vec::new();
    let processes = i64::from(pool.concurrency) * i64::from(pool.max);
    let fleet = i64::try_from(pool.most_tasks()).unwrap_or(processes);
    if let Some((field, parallelism)) =
        // In 2.x 0 is no limit; 3.x refuses it itself.
        setting("AIRFLOW__CORE__PARALLELISM").filter(|(_, most)| (1..fleet).contains(most))
    {
        let text = format!(
            "[core] parallelism lets a scheduler run {parallelism} tasks at a time, and {} workers of {} slots {} {fleet}: \
             {} of them stay idle unless there are more schedulers; raise it to {fleet}, or lower spec.scaling.maxReplicas",
            pool.max,
            pool.concurrency,
            if fleet < processes {
                "may, by maxActiveTasks of their queue, use"
            } else {
                "have"
            },
            fleet - parallelism,
        );
        all.push(advice(field, text));
    }
    let slots = i64::from(pool.concurrency);
    if let Some((field, written)) =
        setting("AIRFLOW__CELERY__WORKER_CONCURRENCY").filter(|(_, written)| *written != slots)
    {
        let text = format!(
            "[celery] worker_concurrency of {written} has no effect: the worker is started with {}; write \
             spec.airflow.concurrency, and remove it here",
            pool.concurrency_from,
        );
        all.push(advice(field, text));
    }
    all
}

#[cfg(test)]
#[path = "airflow_tests.rs"]
mod tests;
