//! The rules that a WorkerPool must keep, one function for each part of the spec.
//!
//! Each rule protects a number or a name that Poolwright relies on; taste is `advice`. The functions return the
//! first violation in the order of the spec, so that the same spec gives the same message every time.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Volume, VolumeMount};
use poolwright_api::text::bounded;
use poolwright_api::v1alpha1::{
    Autoscale, BrokerEnv, Celery, ExecutionPool, Pod, Scaling, TaskQueue, Worker, WorkerPool, WorkerPoolSpec,
};
use poolwright_api::{
    ENV_BROKER_URL, ENV_POD_NAME, Reason, WORKER_CONTAINER, WORKER_POOL_NAME_CHARACTERS_MAX,
};

use crate::broker_key::{BrokerAddress, BrokerKey, has_user_info};
use crate::class::traits;
use crate::validate::{Invalid, Program, ValidQueue};

/// Most queues of one WorkerPool, as in the CRD.
const QUEUES_MAX: usize = 64;
/// Longest name of a queue in bytes: AMQP's short string.
const QUEUE_NAME_BYTES_MAX: usize = 255;
/// Longest name of a volume, as in Kubernetes; a mount's is not bounded by the CRD.
const VOLUME_NAME_BYTES_MAX: usize = 63;
/// Most volumes that one message names.
const VOLUMES_NAMED_MAX: usize = 8;
/// Longest limit or grace in seconds, as in the CRD: a week.
pub(crate) const WEEK_SECONDS: i32 = 604_800;

/// Long flags that fields of the resource or Poolwright itself set, and the field to use.
const RESERVED_FLAGS: &[(&str, &str)] = &[
    ("app", "spec.celery.app"),
    ("queues", "spec.queues"),
    ("exclude-queues", "spec.queues"),
    ("concurrency", "spec.celery.concurrency"),
    ("pool", "spec.celery.executionPool"),
    ("hostname", "nothing: Poolwright names the worker after its pod"),
    ("loglevel", "spec.celery.logLevel"),
    ("broker", "the app's configuration or spec.celery.brokerEnv"),
    ("detach", "nothing: the worker must stay in the foreground"),
    ("autoscale", "spec.celery.autoscale"),
    ("prefetch-multiplier", "spec.celery.prefetchMultiplier"),
    ("max-tasks-per-child", "spec.celery.maxTasksPerChild"),
    ("max-memory-per-child", "spec.celery.maxMemoryPerChild"),
    ("time-limit", "spec.celery.timeLimitSeconds"),
    ("soft-time-limit", "spec.celery.softTimeLimitSeconds"),
    ("without-heartbeat", "nothing: scaling needs heartbeats"),
    ("without-gossip", "nothing: Poolwright sets it"),
    ("purge", "nothing: each worker that starts would empty the queues"),
    (
        "discard",
        "nothing: each worker that starts would empty the queues",
    ),
];

/// The short forms of [`RESERVED_FLAGS`].
const RESERVED_SHORT: &[(char, &str)] = &[
    ('A', "app"),
    ('Q', "queues"),
    ('X', "exclude-queues"),
    ('c', "concurrency"),
    ('P', "pool"),
    ('n', "hostname"),
    ('l', "loglevel"),
    ('b', "broker"),
    ('D', "detach"),
];

/// The name leaves room for a revision's hash and a pod's suffix.
pub fn name(wp: &WorkerPool) -> Result<(), Invalid> {
    let length = wp.metadata.name.as_deref().unwrap_or_default().chars().count();
    if (1..=WORKER_POOL_NAME_CHARACTERS_MAX).contains(&length) {
        return Ok(());
    }
    let message = format!(
        "has {length} characters; allowed are 1 to {WORKER_POOL_NAME_CHARACTERS_MAX}, so that a revision's hash \
         fits behind it: create the WorkerPool under a shorter name"
    );
    Err(Invalid::spec("metadata.name", message))
}

/// Every number of the spec that we calculate with is in the range of the CRD.
pub fn ranges(spec: &WorkerPoolSpec, celery: &Celery) -> Result<(), Invalid> {
    let scaling = &spec.scaling;
    let fallback = scaling.fallback;
    let grace_seconds = spec.drain.and_then(|drain| drain.grace_seconds);
    slots_in_range(
        "celery",
        celery.concurrency,
        celery.autoscale,
        celery.prefetch_multiplier,
    )?;
    let table = [
        (
            "celery.dynamicConcurrency.highPercent",
            celery
                .dynamic_concurrency
                .as_ref()
                .map(|dynamic| dynamic.high_percent),
            1,
            100,
        ),
        (
            "celery.maxTasksPerChild",
            celery.max_tasks_per_child,
            1,
            1_000_000,
        ),
        (
            "celery.timeLimitSeconds",
            celery.time_limit_seconds,
            1,
            WEEK_SECONDS,
        ),
        (
            "celery.softTimeLimitSeconds",
            celery.soft_time_limit_seconds,
            1,
            WEEK_SECONDS,
        ),
        ("scaling.minReplicas", Some(scaling.min_replicas), 0, 10_000),
        ("scaling.maxReplicas", Some(scaling.max_replicas), 1, 10_000),
        (
            "scaling.scaleDownDelaySeconds",
            scaling.scale_down_delay_seconds,
            0,
            86_400,
        ),
        (
            "scaling.fallback.replicas",
            fallback.map(|fallback| fallback.replicas),
            0,
            10_000,
        ),
        (
            "scaling.fallback.afterSeconds",
            fallback.map(|fallback| fallback.after_seconds),
            1,
            86_400,
        ),
        ("replicas", spec.replicas, 0, 10_000),
        ("drain.graceSeconds", grace_seconds, 1, WEEK_SECONDS),
    ];
    for (field, value, least, most) in table {
        between(field, value, least, most)?;
    }
    Ok(())
}

/// What says how many tasks a worker takes, in the part of the spec that has it.
pub(crate) fn slots_in_range(
    part: &str,
    concurrency: Option<i32>,
    autoscale: Option<Autoscale>,
    prefetch: Option<i32>,
) -> Result<(), Invalid> {
    let least = autoscale.map(|autoscale| autoscale.min);
    let most = autoscale.map(|autoscale| autoscale.max);
    between(&format!("{part}.concurrency"), concurrency, 1, 10_000)?;
    between(&format!("{part}.autoscale.min"), least, 0, 10_000)?;
    between(&format!("{part}.autoscale.max"), most, 1, 10_000)?;
    between(&format!("{part}.prefetchMultiplier"), prefetch, 1, 1_000)
}

/// Bounds of a worker's own scaling, which take the place of its concurrency.
pub(crate) fn autoscale(
    part: &str,
    autoscale: Option<Autoscale>,
    concurrency: Option<i32>,
) -> Result<(), Invalid> {
    let Some(Autoscale { min, max }) = autoscale else {
        return Ok(());
    };
    if min > max {
        let message = format!("is {min}; it must be at most autoscale.max ({max})");
        return Err(Invalid::spec(format!("spec.{part}.autoscale.min"), message));
    }
    if concurrency.is_some() {
        let message =
            format!("cannot be written together with spec.{part}.autoscale, whose max it is: remove one");
        return Err(Invalid::spec(format!("spec.{part}.concurrency"), message));
    }
    Ok(())
}

/// A number of the spec is in its range.
pub(crate) fn between(field: &str, value: Option<i32>, least: i32, most: i32) -> Result<(), Invalid> {
    match value.filter(|value| !(least..=most).contains(value)) {
        None => Ok(()),
        Some(value) => {
            let message = format!("is {value}; allowed are {least} to {most}");
            Err(Invalid::spec(format!("spec.{field}"), message))
        }
    }
}

/// What the fields of `spec.celery` say about each other.
pub fn celery(celery: &Celery) -> Result<(), Invalid> {
    if celery.app.is_empty() || celery.app.starts_with('-') || celery.app.contains(char::is_whitespace) {
        let message = "must name a module, or module and attribute, such as proj.celery:app, without spaces";
        return Err(Invalid::spec("spec.celery.app", message));
    }
    if let (Some(soft), Some(hard)) = (celery.soft_time_limit_seconds, celery.time_limit_seconds)
        && soft >= hard
    {
        let message =
            format!("is {soft}; it must be below spec.celery.timeLimitSeconds ({hard}) to have any effect");
        return Err(Invalid::spec("spec.celery.softTimeLimitSeconds", message));
    }
    autoscale("celery", celery.autoscale, celery.concurrency)?;
    if let Some(dynamic) = &celery.dynamic_concurrency {
        let source = &dynamic.source;
        if celery.autoscale.is_some() {
            let message = "is not possible beside spec.celery.autoscale: remove one";
            return Err(Invalid::spec("spec.celery.dynamicConcurrency", message));
        }
        if source.prometheus.is_some() == source.config_map_key_ref.is_some() {
            let message = "must have exactly one of prometheus and configMapKeyRef";
            return Err(Invalid::spec("spec.celery.dynamicConcurrency.source", message));
        }
    }
    for (position, argument) in celery.extra_args.iter().enumerate() {
        if let Some((flag, field)) = reserved(argument) {
            let message = format!("sets {flag}, which Poolwright sets: remove it and use {field}");
            return Err(Invalid::spec(
                format!("spec.celery.extraArgs[{position}]"),
                message,
            ));
        }
    }
    Ok(())
}

/// What the execution pool cannot do at all.
pub fn execution_pool(pool: ExecutionPool, celery: &Celery) -> Result<(), Invalid> {
    let obeys = traits(pool);
    if celery.autoscale.is_some() && !obeys.autoscale {
        let message = format!(
            "is not possible with executionPool {pool:?}, whose worker cannot grow: remove it and write concurrency"
        );
        return Err(Invalid::spec("spec.celery.autoscale", message));
    }
    if celery.dynamic_concurrency.is_some() && !obeys.autoscale {
        let message =
            format!("is not possible with executionPool {pool:?}, whose worker cannot grow: remove it");
        return Err(Invalid::spec("spec.celery.dynamicConcurrency", message));
    }
    if let Some(slots) = celery.concurrency.filter(|slots| obeys.single && *slots != 1) {
        let message =
            format!("is {slots}; executionPool {pool:?} executes one task at a time: write 1 or remove it");
        return Err(Invalid::spec("spec.celery.concurrency", message));
    }
    Ok(())
}

/// Bounds that contradict each other.
pub fn scaling(scaling: &Scaling) -> Result<(), Invalid> {
    let max = scaling.max_replicas;
    if scaling.min_replicas > max {
        let message = format!(
            "is {}; it must be at most scaling.maxReplicas ({max})",
            scaling.min_replicas
        );
        return Err(Invalid::spec("spec.scaling.minReplicas", message));
    }
    if let Some(fallback) = scaling.fallback.filter(|fallback| fallback.replicas > max) {
        let message = format!(
            "is {}; it must be at most scaling.maxReplicas ({max})",
            fallback.replicas
        );
        return Err(Invalid::spec("spec.scaling.fallback.replicas", message));
    }
    Ok(())
}

/// An image, a command, and no variable that Poolwright sets.
pub fn worker(worker: &Worker, celery: &Celery) -> Result<(), Invalid> {
    if worker.image.is_empty() {
        return Err(Invalid::spec(
            "spec.worker.image",
            "is required: the image with the app and its Celery",
        ));
    }
    if worker.command.first().is_some_and(String::is_empty) {
        let message = "must begin with a word, such as celery: the worker's arguments follow it";
        return Err(Invalid::spec("spec.worker.command", message));
    }
    let inject = celery.broker_env == BrokerEnv::Inject;
    for (position, variable) in worker.env.iter().enumerate() {
        let field = || format!("spec.worker.env[{position}].name");
        if variable.name == ENV_POD_NAME {
            let message =
                "is POD_NAME, which Poolwright sets to the pod's name: remove it or use another name";
            return Err(Invalid::spec(field(), message));
        }
        if inject && variable.name == ENV_BROKER_URL {
            let message =
                "is CELERY_BROKER_URL, which spec.celery.brokerEnv: Inject sets: remove one of the two";
            return Err(Invalid::spec(field(), message));
        }
    }
    Ok(())
}

/// Containers that can be told from the worker and from each other.
pub fn pod(pod: Option<&Pod>) -> Result<(), Invalid> {
    let Some(pod) = pod else { return Ok(()) };
    let mut seen = vec![WORKER_CONTAINER];
    for (list, containers) in [
        ("initContainers", &pod.init_containers),
        ("sidecars", &pod.sidecars),
    ] {
        for (position, container) in containers.iter().enumerate() {
            if seen.contains(&container.name.as_str()) {
                let message = format!("is {:?}, which another container of the pod has", container.name);
                return Err(Invalid::spec(
                    format!("spec.pod.{list}[{position}].name"),
                    message,
                ));
            }
            seen.push(&container.name);
        }
    }
    Ok(())
}

/// Every mount is of a volume of the pod: a Deployment with another is refused without naming a field of the WorkerPool.
pub fn mounts(worker: &Worker, pod: Option<&Pod>) -> Result<(), Invalid> {
    let volumes = pod.map_or(&[][..], |pod| &pod.volumes);
    mounted("spec.worker", &worker.volume_mounts, volumes)?;
    let Some(pod) = pod else { return Ok(()) };
    for (list, containers) in [
        ("initContainers", &pod.init_containers),
        ("sidecars", &pod.sidecars),
    ] {
        for (position, container) in containers.iter().enumerate() {
            let mounts = container.volume_mounts.as_deref().unwrap_or_default();
            mounted(&format!("spec.pod.{list}[{position}]"), mounts, volumes)?;
        }
    }
    Ok(())
}

fn mounted(container: &str, mounts: &[VolumeMount], volumes: &[Volume]) -> Result<(), Invalid> {
    let known = |mount: &VolumeMount| volumes.iter().any(|volume| volume.name == mount.name);
    let Some((position, mount)) = mounts.iter().enumerate().find(|(_, mount)| !known(mount)) else {
        return Ok(());
    };
    let mut names: Vec<&str> = volumes.iter().map(|volume| volume.name.as_str()).collect();
    let more = names.len().saturating_sub(VOLUMES_NAMED_MAX);
    names.truncate(VOLUMES_NAMED_MAX);
    let names = names.join(", ");
    let allowed = match (volumes.len(), more) {
        (0, _) => "it has none".to_owned(),
        (_, 0) => format!("allowed is one of {names}"),
        (_, more) => format!("allowed is one of {names} and {more} more"),
    };
    let message = format!(
        "is {:?}, which is no volume in spec.pod.volumes ({allowed}): correct the name, or add the volume there",
        bounded(&mount.name, VOLUME_NAME_BYTES_MAX)
    );
    Err(Invalid::spec(
        format!("{container}.volumeMounts[{position}].name"),
        message,
    ))
}

/// The queues exist, are different, and are on one broker.
pub fn queues(
    wp: &WorkerPool,
    known: &BTreeMap<String, TaskQueue>,
) -> Result<(Vec<ValidQueue>, BrokerKey), Invalid> {
    let references = &wp.spec.queues;
    if !(1..=QUEUES_MAX).contains(&references.len()) {
        let message = format!(
            "has {} entries; allowed are 1 to {QUEUES_MAX} TaskQueues",
            references.len()
        );
        return Err(Invalid::spec("spec.queues", message));
    }
    let namespace = wp.metadata.namespace.as_deref().unwrap_or_default();
    let mut valid: Vec<ValidQueue> = Vec::with_capacity(references.len());
    let mut broker: Option<BrokerKey> = None;
    for (position, reference) in references.iter().enumerate() {
        let field = format!("spec.queues[{position}].name");
        let name = &reference.name;
        let Some(task_queue) = known.get(name) else {
            let message = format!(
                "TaskQueue {name:?} does not exist in this namespace: create it, or correct the name"
            );
            return Err(Invalid {
                field,
                message,
                reason: Reason::QueueUnknown,
            });
        };
        if references.len() > 1 && task_queue.spec.max_active_tasks.is_some() {
            return Err(shared_cap(field, name));
        }
        let queue = ValidQueue {
            object: name.clone(),
            queue: task_queue.queue_name().to_owned(),
            pool: task_queue.pool_name().to_owned(),
            slots_per_task: task_queue.slots_per_task(),
            tier: task_queue.tier().value(),
            max_active_tasks: task_queue
                .spec
                .max_active_tasks
                .and_then(|most| u32::try_from(most).ok()),
            wait_target: task_queue.wait_target(),
        };
        queue_name(&field, &queue)?;
        if let Some(other) = valid.iter().find(|other| other.queue == queue.queue) {
            let message = format!(
                "TaskQueues {:?} and {name:?} are the same queue {:?} on the broker, which would be counted twice: remove one",
                other.object, queue.queue
            );
            return Err(Invalid::spec(field, message));
        }
        let key = BrokerKey::new(namespace, &task_queue.spec.broker);
        address(&field, name, &key)?;
        if let Some(difference) = broker.as_ref().and_then(|first| first.difference(&key)) {
            let first = &references[0].name;
            let message = format!(
                "TaskQueues {first:?} and {name:?} are on different brokers ({difference}); the queues of one \
                 WorkerPool must be on one: make a WorkerPool for each broker"
            );
            return Err(Invalid::spec(field, message));
        }
        broker.get_or_insert(key);
        valid.push(queue);
    }
    broker
        .map(|broker| (valid, broker))
        .ok_or_else(|| Invalid::spec("spec.queues", "names no TaskQueue"))
}

/// Under a cap on its tasks a queue's workers have room for one pod.
pub fn cap(queues: &[ValidQueue], concurrency: i32, program: &Program) -> Result<(), Invalid> {
    let worker = u32::try_from(concurrency).unwrap_or(1);
    for queue in queues {
        if let Some(most) = queue.max_active_tasks.filter(|most| *most < worker) {
            let message = format!(
                "is {worker}, and maxActiveTasks of TaskQueue {:?} is {most}: no pod may start; {most} is the most that \
                 fits, or raise spec.maxActiveTasks there",
                queue.object
            );
            return Err(Invalid::spec(program.field("concurrency"), message));
        }
    }
    Ok(())
}

/// A cap on the tasks of one queue is a number of pods only where they take nothing else, and nobody else takes it.
pub fn shared_cap(field: String, queue: &str) -> Invalid {
    let message = format!(
        "TaskQueue {queue:?} has maxActiveTasks, which needs a WorkerPool that consumes this queue alone: give it one \
         of its own, or remove spec.maxActiveTasks there"
    );
    Invalid::spec(field, message)
}

/// `-Q` separates names by commas.
fn queue_name(field: &str, queue: &ValidQueue) -> Result<(), Invalid> {
    let name = &queue.queue;
    let good = |c: char| c != ',' && !c.is_ascii_control();
    if (1..=QUEUE_NAME_BYTES_MAX).contains(&name.len()) && name.chars().all(good) {
        return Ok(());
    }
    let message = format!(
        "spec.queue of TaskQueue {:?} must have 1 to {QUEUE_NAME_BYTES_MAX} bytes and no comma or control character",
        queue.object
    );
    Err(Invalid::spec(field, message))
}

/// A broker has an address, and no password outside a Secret.
fn address(field: &str, object: &str, key: &BrokerKey) -> Result<(), Invalid> {
    let BrokerAddress::Url(url) = &key.address else {
        return Ok(());
    };
    if !url.is_empty() && !has_user_info(url) {
        return Ok(());
    }
    let message = format!(
        "spec.broker of TaskQueue {object:?} must have exactly one of url, without user and password, and urlSecretRef"
    );
    Err(Invalid::spec(field, message))
}

/// The reserved flag that `argument` sets, as written, and the field to use for it. Short flags may be joined
/// behind those without a value (`-Ec4`).
fn reserved(argument: &str) -> Option<(String, &'static str)> {
    if let Some(long) = argument.strip_prefix("--") {
        let name = long.split('=').next().unwrap_or_default();
        let (_, field) = RESERVED_FLAGS.iter().find(|(flag, _)| *flag == name)?;
        return Some((format!("--{name}"), field));
    }
    let short = argument
        .strip_prefix('-')?
        .chars()
        .find(|flag| !matches!(flag, 'E' | 'B'))?;
    let (_, long) = RESERVED_SHORT.iter().find(|(flag, _)| *flag == short)?;
    let (_, field) = RESERVED_FLAGS.iter().find(|(flag, _)| flag == long)?;
    Some((format!("-{short}"), field))
}
