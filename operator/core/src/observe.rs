//! Kubernetes objects as a decision sees them.
//!
//! Turns a WorkerPool's Deployments, `ReplicaSet`s and pods into a [`PoolInput`]. Only reads what the API says; what
//! is wanted is decided elsewhere.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use poolwright_api::v1alpha1::{ScalingMode, WorkerPool};
use poolwright_api::{
    ANNOTATION_PAUSED, ANNOTATION_PAUSED_SCALE_IN, ANNOTATION_PAUSED_SCALE_OUT, WORKER_CONTAINER,
};

use crate::charge::Charge;
use crate::class::traits;
use crate::command::{concurrency, queues};
use crate::objects::{DeploymentView, Objects, PodView, SetView, owned, sets_of};
use crate::shedding::LoadKey;
use crate::snapshot::{
    Bid, BidQueue, Dynamic, Fallback, Hold, Mark, Pause, PodInput, PoolInput, PoolKey, Rank, RevisionInput,
};
use crate::time::Moment;
use crate::validate::{ValidPool, ValidQueue};

/// When this process first saw each run of a worker container: by pod uid, the start that was seen, and when.
pub type Runs = BTreeMap<String, Run>;

/// What this process remembers of one pod.
#[derive(Clone, Copy, Debug, Default)]
pub struct Run {
    /// Start of its present container, and when it was first seen.
    container: Option<(Timestamp, Moment)>,
    /// Its mark, and since when it has been seen.
    mark: Option<(Mark, Moment)>,
    /// Since when it has had one.
    parked: Option<Moment>,
    /// When its mark was seen to be taken off.
    unmarked: Option<Moment>,
    /// Since when it has been ready.
    ready: Option<Moment>,
}

/// Names a WorkerPool for its life.
#[must_use]
pub fn key(wp: &WorkerPool) -> PoolKey {
    PoolKey {
        namespace: wp.metadata.namespace.clone().unwrap_or_default(),
        name: wp.metadata.name.clone().unwrap_or_default(),
        uid: wp.metadata.uid.clone().unwrap_or_default(),
    }
}

/// What a decision may see of one WorkerPool.
#[must_use]
pub fn pool_input(
    wp: &WorkerPool,
    pool: &ValidPool,
    revision: &str,
    objects: &Objects,
    conflict: Option<String>,
    runs: &mut Runs,
    now: Moment,
) -> PoolInput {
    let count = |number: i32| u32::try_from(number).unwrap_or(0);
    let mut pods: Vec<PodInput> = objects
        .pods
        .iter()
        .filter_map(|pod| pod_input(pod, runs, now))
        .collect();
    let mut revisions: Vec<RevisionInput> = owned(wp, objects)
        .map(|deployment| revision_input(deployment, &objects.sets, revision))
        .collect();
    // They stay until something changes, with room for four where most have one.
    pods.shrink_to_fit();
    revisions.shrink_to_fit();
    let (pause, recommend) = (pause(wp), wp.spec.scaling.mode == ScalingMode::Recommend);
    PoolInput {
        key: Arc::new(key(wp)),
        broker: pool.broker.id(),
        queues: pool.queue_names().map(Into::into).collect(),
        slots: count(pool.concurrency).max(1),
        dynamic: dynamic(pool),
        prefetch: Some(count(pool.effective_prefetch())).filter(|prefetch| *prefetch > 0),
        solo: traits(pool.execution_pool).single,
        min: count(pool.min),
        max: count(pool.max),
        schedules: Arc::clone(&pool.schedules),
        desired: desired(wp),
        cap: cap(pool, &revisions),
        policy: pool.policy,
        scale_down_delay: pool.scale_down_delay,
        fallback: pool.fallback.as_ref().map(|fallback| Fallback {
            replicas: count(fallback.replicas),
            after: Duration::from_secs(u64::try_from(fallback.after_seconds).unwrap_or(0)),
        }),
        hold: pool.hold.map(|replicas| Hold {
            replicas: count(replicas),
            by: writer_of(wp, &[REPLICAS_FIELD]),
        }),
        pause,
        recommend,
        overridden_since: overridden_since(wp, pause, recommend),
        ack_mode: pool.ack_mode,
        revision: revision.into(),
        revisions,
        pods,
        bid: bid(pool),
        conflict,
        terminating: wp.metadata.deletion_timestamp.is_some(),
    }
}

fn desired(wp: &WorkerPool) -> Option<u32> {
    let desired = wp.status.as_ref()?.desired_replicas?;
    u32::try_from(desired).ok()
}

/// In whole pods, the largest of the revisions that have any.
fn cap(pool: &ValidPool, revisions: &[RevisionInput]) -> Option<u32> {
    let caps = pool.queues.iter().filter_map(|queue| queue.max_active_tasks);
    let present = u32::try_from(pool.concurrency).unwrap_or(1).max(1);
    let running = revisions.iter().filter(|one| one.replicas > 0);
    let worker = running.filter_map(|one| one.slots).fold(present, u32::max);
    caps.min().map(|most| most / worker)
}

fn bid(pool: &ValidPool) -> Bid {
    let queue = |queue: &ValidQueue| BidQueue {
        object: queue.object.clone(),
        queue: queue.queue.clone(),
        tier: queue.tier,
    };
    Bid {
        charge: Arc::new(Charge::of(pool)),
        queues: pool.queues.iter().map(queue).collect(),
    }
}

fn dynamic(pool: &ValidPool) -> Option<Dynamic> {
    let high = pool.dynamic_concurrency.as_ref()?;
    Some(Dynamic {
        high_percent: high.limit(),
        load: LoadKey::new(&pool.namespace, high),
        processes: traits(pool.execution_pool).processes,
    })
}

/// What its annotations keep from being done. Any value but `false` pauses: who writes `yes` wants no less.
#[must_use]
pub fn pause(wp: &WorkerPool) -> Pause {
    let annotations = wp.metadata.annotations.as_ref();
    let set = |key: &str| {
        annotations
            .and_then(|all| all.get(key))
            .is_some_and(|value| value != "false")
    };
    let all = set(ANNOTATION_PAUSED);
    Pause {
        scale_in: all || set(ANNOTATION_PAUSED_SCALE_IN),
        scale_out: all || set(ANNOTATION_PAUSED_SCALE_OUT),
    }
}

/// Since when it is paused or only recommends, where the record of its writers says so: a writer's time moves with
/// whatever that writer writes, so it may be too late, never too early.
fn overridden_since(wp: &WorkerPool, pause: Pause, recommend: bool) -> Option<Timestamp> {
    let fields: &[&str] = if pause.scale_in || pause.scale_out {
        &PAUSED_FIELDS
    } else if recommend {
        &[MODE_FIELD]
    } else {
        return None;
    };
    writer_of(wp, fields).and_then(|(_, since)| since)
}

/// The fields of a WorkerPool that keep its number from following the demand and are written in it now, each as a pointer
/// into the record of an object's writers.
pub fn overrides(wp: &WorkerPool) -> impl Iterator<Item = &'static str> {
    let annotated = |key: &str| {
        wp.metadata
            .annotations
            .as_ref()
            .is_some_and(|all| all.contains_key(key))
    };
    [
        (wp.spec.replicas.is_some(), REPLICAS_FIELD),
        (annotated(ANNOTATION_PAUSED), PAUSED_FIELDS[0]),
        (annotated(ANNOTATION_PAUSED_SCALE_IN), PAUSED_FIELDS[1]),
        (annotated(ANNOTATION_PAUSED_SCALE_OUT), PAUSED_FIELDS[2]),
        (wp.spec.scaling.mode == ScalingMode::Recommend, MODE_FIELD),
    ]
    .into_iter()
    .filter_map(|(written, field)| written.then_some(field))
}

const REPLICAS_FIELD: &str = "/f:spec/f:replicas";
const MODE_FIELD: &str = "/f:spec/f:scaling/f:mode";
const PAUSED_FIELDS: [&str; 3] = [
    "/f:metadata/f:annotations/f:poolwright.dev~1paused",
    "/f:metadata/f:annotations/f:poolwright.dev~1paused-scale-in",
    "/f:metadata/f:annotations/f:poolwright.dev~1paused-scale-out",
];

/// Who wrote one of these fields last, by the object's own record of its fields.
fn writer_of(wp: &WorkerPool, fields: &[&str]) -> Option<(String, Option<Timestamp>)> {
    let entries = wp.metadata.managed_fields.as_deref().unwrap_or_default();
    let owns = |owned: &k8s_openapi::apimachinery::pkg::apis::meta::v1::FieldsV1| {
        fields.iter().any(|field| owned.0.pointer(field).is_some())
    };
    let wrote = entries
        .iter()
        .filter(|entry| entry.fields_v1.as_ref().is_some_and(owns))
        .max_by_key(|entry| (entry.time.as_ref().map(|time| time.0), entry.manager.clone()))?;
    Some((
        wrote.manager.clone().unwrap_or_default(),
        wrote.time.as_ref().map(|time| time.0),
    ))
}

fn revision_input(deployment: &DeploymentView, sets: &[Arc<SetView>], newest: &str) -> RevisionInput {
    let is_old = deployment.revision != newest;
    let own = || sets_of(deployment, sets);
    let asked = own().fold(0u32, |sum, set| sum.saturating_add(set.replicas));
    let settled = deployment.observed >= deployment.generation && own().all(|set| set.settled);
    let arguments = is_old.then(|| arguments_of(&deployment.template)).flatten();
    let arguments = || arguments.iter().flatten().map(String::as_str);
    let slots = concurrency(arguments()).and_then(|slots| u32::try_from(slots).ok());
    RevisionInput {
        behind: !settled || asked != deployment.replicas,
        queues: queues(arguments()).map(|queues| queues.into_iter().map(Into::into).collect()),
        slots,
        name: deployment.revision.as_str().into(),
        replicas: deployment.replicas,
        created: deployment.created,
        proven: deployment.proven,
        failed: deployment.failed,
        refused: sets_of(deployment, sets).find_map(|set| set.refused.clone()),
        charge: Arc::clone(&deployment.charge),
        made: asked,
    }
}

/// The command line of workers made from this template (JSON).
fn arguments_of(template: &str) -> Option<Vec<String>> {
    let template: serde_json::Value = serde_json::from_str(template).ok()?;
    let containers = template.pointer("/spec/containers")?.as_array()?;
    let worker = containers.iter().find(|one| one["name"] == WORKER_CONTAINER)?;
    let arguments = worker["args"].as_array()?.iter();
    let arguments = arguments.filter_map(serde_json::Value::as_str);
    Some(arguments.map(str::to_owned).collect())
}

/// A pod with what this process remembers of it, unless it has ended for good or is no longer its `ReplicaSet`'s.
fn pod_input(pod: &PodView, runs: &mut Runs, now: Moment) -> Option<PodInput> {
    if pod.ended || !pod.controlled {
        runs.remove(&pod.uid);
        return None;
    }
    let run = runs.entry(pod.uid.clone()).or_default();
    let running_since = pod.started.map(|started| {
        let known = run.container.filter(|(known, _)| *known == started);
        run.container.insert(known.unwrap_or((started, now))).1
    });
    run.mark = pod.mark.map(|mark| {
        let known = run.mark.filter(|(known, _)| *known == mark);
        known.unwrap_or((mark, now))
    });
    if pod.mark.is_some() {
        run.parked.get_or_insert(now);
    } else if run.parked.take().is_some() {
        run.unmarked = Some(now);
    }
    run.ready = (pod.rank == Rank::Ready).then(|| run.ready.unwrap_or(now));
    Some(PodInput {
        name: pod.name.as_str().into(),
        revision: pod.revision.as_str().into(),
        created: pod.created,
        started: pod.started,
        running_since,
        restarted: pod.restarted,
        ready: pod.ready,
        rank: pod.rank,
        ready_since: run.ready,
        draining: pod.draining,
        due: pod.due,
        mark: pod.mark,
        marked: run.mark.map(|(_, since)| since),
        parked: run.parked,
        unmarked: run.unmarked,
        returned: pod.returned,
        trouble: pod.trouble.clone(),
        charge: Arc::clone(&pod.charge),
    })
}

#[cfg(test)]
#[path = "observe_tests.rs"]
mod tests;
