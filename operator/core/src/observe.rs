//! Kubernetes objects as a decision sees them.
//!
//! Turns a WorkerPool's Deployments, `ReplicaSet`s and pods into a [`PoolInput`]. Only reads what the API says; what
//! is wanted is decided elsewhere.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use poolwright_api::v1alpha1::WorkerPool;
use poolwright_api::{ANNOTATION_FAILED_AT, ANNOTATION_PROVEN_AT, LABEL_REVISION, Reason, WORKER_CONTAINER};

use crate::snapshot::{Fallback, Hold, PodInput, PoolInput, PoolKey, RevisionInput, Trouble, WORDS_MAX};
use crate::text::bounded;
use crate::time::Moment;
use crate::validate::ValidPool;

/// The deletion cost of a pod that should go first.
pub const VICTIM_COST: &str = "-1000";
/// The annotation that a `ReplicaSet` reads it from.
pub const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// The objects of one WorkerPool, draining predecessors of the same name included.
#[derive(Clone, Debug, Default)]
pub struct Objects {
    /// Deployments with our label.
    pub deployments: Vec<Arc<Deployment>>,
    /// Their `ReplicaSet`s.
    pub sets: Vec<Arc<ReplicaSet>>,
    /// Their pods.
    pub pods: Vec<Arc<Pod>>,
}

/// When this process first saw each run of a worker container: by pod uid, the start that was seen, and when.
pub type Runs = BTreeMap<String, Run>;

/// What this process remembers of one pod.
#[derive(Clone, Copy, Debug, Default)]
pub struct Run {
    /// Start of its present container, and when it was first seen.
    container: Option<(Timestamp, Moment)>,
    /// When its mark was first seen.
    marked: Option<Moment>,
}

/// Deployments that this very WorkerPool owns; one of an older namesake is not ours.
pub fn owned<'a>(wp: &'a WorkerPool, objects: &'a Objects) -> impl Iterator<Item = &'a Arc<Deployment>> {
    objects
        .deployments
        .iter()
        .filter(|deployment| is_owner(wp, &deployment.metadata))
}

fn is_owner(wp: &WorkerPool, metadata: &ObjectMeta) -> bool {
    let owners = metadata.owner_references.as_deref().unwrap_or_default();
    owners
        .iter()
        .any(|owner| owner.controller == Some(true) && Some(&owner.uid) == wp.metadata.uid.as_ref())
}

/// The `ReplicaSet`s of this very Deployment; those of an earlier one of the same name, still on their way out, are
/// not.
pub fn sets_of<'a>(
    deployment: &'a Deployment,
    sets: &'a [Arc<ReplicaSet>],
) -> impl Iterator<Item = &'a Arc<ReplicaSet>> {
    let uid = deployment.metadata.uid.as_ref();
    sets.iter().filter(move |set| {
        let owners = set.metadata.owner_references.as_deref().unwrap_or_default();
        owners
            .iter()
            .any(|owner| owner.controller == Some(true) && Some(&owner.uid) == uid)
    })
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
    let pods: Vec<PodInput> = objects
        .pods
        .iter()
        .filter_map(|pod| pod_input(pod, runs, now))
        .collect();
    PoolInput {
        key: key(wp),
        broker: pool.broker.id(),
        queues: pool.queue_names().map(str::to_owned).collect(),
        slots: count(pool.concurrency).max(1),
        prefetch: Some(count(pool.effective_prefetch())).filter(|prefetch| *prefetch > 0),
        min: count(pool.min),
        max: count(pool.max),
        scale_down_delay: pool.scale_down_delay,
        fallback: pool.fallback.as_ref().map(|fallback| Fallback {
            replicas: count(fallback.replicas),
            after: Duration::from_secs(u64::try_from(fallback.after_seconds).unwrap_or(0)),
        }),
        hold: pool.hold.map(|replicas| Hold {
            replicas: count(replicas),
            by: writer_of_replicas(wp),
        }),
        ack_mode: pool.ack_mode,
        revision: revision.to_owned(),
        revisions: owned(wp, objects)
            .map(|deployment| revision_input(deployment, &objects.sets))
            .collect(),
        pods,
        conflict,
        terminating: wp.metadata.deletion_timestamp.is_some(),
    }
}

/// `spec.replicas` in an object's record of its writers.
pub const REPLICAS_FIELD: &str = "/f:spec/f:replicas";

/// Who wrote `spec.replicas` last, by the object's own record of its fields.
fn writer_of_replicas(wp: &WorkerPool) -> Option<(String, Option<Timestamp>)> {
    let entries = wp.metadata.managed_fields.as_deref().unwrap_or_default();
    let owns = |fields: &k8s_openapi::apimachinery::pkg::apis::meta::v1::FieldsV1| {
        fields.0.pointer(REPLICAS_FIELD).is_some()
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

fn annotation<'a>(metadata: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

fn label<'a>(metadata: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    metadata.labels.as_ref()?.get(key).map(String::as_str)
}

/// The revision of a Deployment, by its selector: that cannot be changed, while anybody may take its labels away.
#[must_use]
pub fn revision_of(deployment: &Deployment) -> &str {
    let selector = deployment
        .spec
        .as_ref()
        .and_then(|spec| spec.selector.match_labels.as_ref());
    selector
        .and_then(|labels| labels.get(LABEL_REVISION))
        .map_or("", String::as_str)
}

fn revision_input(deployment: &Deployment, sets: &[Arc<ReplicaSet>]) -> RevisionInput {
    let name = revision_of(deployment);
    let replicas = deployment
        .spec
        .as_ref()
        .and_then(|spec| spec.replicas)
        .unwrap_or(1);
    let mut own = sets_of(deployment, sets);
    RevisionInput {
        name: name.to_owned(),
        replicas: u32::try_from(replicas).unwrap_or(0),
        created: deployment
            .metadata
            .creation_timestamp
            .as_ref()
            .map_or(Timestamp::UNIX_EPOCH, |time| time.0),
        proven: annotation(&deployment.metadata, ANNOTATION_PROVEN_AT).and_then(|at| at.parse().ok()),
        failed: annotation(&deployment.metadata, ANNOTATION_FAILED_AT).is_some(),
        refused: own.find_map(|set| refusal(set)),
    }
}

/// Why a `ReplicaSet` cannot create its pods, in the server's words.
fn refusal(set: &ReplicaSet) -> Option<Trouble> {
    let conditions = set.status.as_ref()?.conditions.as_deref()?;
    let failure = conditions
        .iter()
        .find(|one| one.type_ == "ReplicaFailure" && one.status == "True")?;
    Some(Trouble::refusal(failure.message.as_deref().unwrap_or_default()))
}

/// A pod, unless it has ended for good (evicted, or its node shut down): its place is filled by another.
fn pod_input(pod: &Pod, runs: &mut Runs, now: Moment) -> Option<PodInput> {
    let status = pod.status.as_ref();
    let phase = status
        .and_then(|status| status.phase.as_deref())
        .unwrap_or_default();
    let uid = pod.metadata.uid.clone().unwrap_or_default();
    if matches!(phase, "Failed" | "Succeeded") {
        runs.remove(&uid);
        return None;
    }
    let worker = status
        .and_then(|status| status.container_statuses.as_ref())
        .and_then(|all| all.iter().find(|one| one.name == WORKER_CONTAINER));
    let running = worker
        .and_then(|worker| worker.state.as_ref())
        .and_then(|state| state.running.as_ref());
    let started = running.map(|running| {
        running
            .started_at
            .as_ref()
            .map_or(Timestamp::UNIX_EPOCH, |at| at.0)
    });
    let run = runs.entry(uid).or_default();
    let running_since = started.map(|started| {
        let known = run.container.filter(|(known, _)| *known == started);
        run.container.insert(known.unwrap_or((started, now))).1
    });
    let is_marked = annotation(&pod.metadata, DELETION_COST) == Some(VICTIM_COST);
    run.marked = is_marked.then(|| run.marked.unwrap_or(now));
    let is_ready = |status: &k8s_openapi::api::core::v1::PodStatus| {
        let conditions = status.conditions.as_deref().unwrap_or_default();
        conditions
            .iter()
            .any(|one| one.type_ == "Ready" && one.status == "True")
    };
    Some(PodInput {
        name: pod.metadata.name.clone().unwrap_or_default(),
        revision: label(&pod.metadata, LABEL_REVISION)
            .unwrap_or_default()
            .to_owned(),
        created: pod
            .metadata
            .creation_timestamp
            .as_ref()
            .map_or(Timestamp::UNIX_EPOCH, |time| time.0),
        started,
        running_since,
        ready: status.is_some_and(is_ready),
        draining: pod.metadata.deletion_timestamp.is_some(),
        marked: run.marked,
        trouble: worker
            .and_then(container_trouble)
            .or_else(|| companion_trouble(pod))
            .or_else(|| unschedulable(pod)),
    })
}

/// What keeps an init container or a sidecar from being ready, without which the worker does not start or the pod is
/// not whole.
fn companion_trouble(pod: &Pod) -> Option<Trouble> {
    let all = pod.status.as_ref()?.init_container_statuses.as_deref()?;
    all.iter().filter(|one| !one.ready).find_map(container_trouble)
}

/// What keeps a container from running; for one that runs, how it ended before: whoever hears it decides whether
/// that still matters.
fn container_trouble(container: &ContainerStatus) -> Option<Trouble> {
    let state = container.state.as_ref();
    let ended = state.and_then(|state| state.terminated.as_ref()).or_else(|| {
        container
            .last_state
            .as_ref()
            .and_then(|state| state.terminated.as_ref())
    });
    let oom = ended.is_some_and(|ended| ended.reason.as_deref() == Some("OOMKilled"));
    let (name, restarts) = (&container.name, container.restart_count);
    let Some(waiting) = state.and_then(|state| state.waiting.as_ref()) else {
        let code = ended?.exit_code;
        return Some(if oom {
            Trouble {
                reason: Reason::OutOfMemory,
                message: format!("container {name} was killed for its memory; restarts: {restarts}"),
            }
        } else {
            Trouble {
                reason: Reason::CrashLoop,
                message: format!("container {name} ended with exit code {code}; restarts: {restarts}"),
            }
        });
    };
    let said = waiting.reason.as_deref().unwrap_or_default();
    let reason = match said {
        "ErrImagePull" | "ImagePullBackOff" | "InvalidImageName" | "ErrImageNeverPull" => {
            Reason::ImageNotPulled
        }
        "CrashLoopBackOff" if oom => Reason::OutOfMemory,
        "CrashLoopBackOff" | "RunContainerError" | "CreateContainerError" => Reason::CrashLoop,
        "CreateContainerConfigError" => unconfigured(waiting.message.as_deref().unwrap_or_default()),
        _ => return None,
    };
    let code = ended.map_or(String::new(), |ended| {
        format!(", last exit code {}", ended.exit_code)
    });
    let words = waiting.message.clone().unwrap_or_default();
    let message = bounded(
        &format!("container {name}: {said}: {words}{code}; restarts: {restarts}"),
        WORDS_MAX,
    );
    Some(Trouble { reason, message })
}

/// What a container lacks before it can be made, as the kubelet says it: `secret "x" not found`, or `couldn't find key k
/// in Secret ns/x`. A name has neither quotes nor capitals, so that one called `secret` is not taken for the kind. For
/// anything else, such as an image that would run as root, nothing has to be created.
fn unconfigured(words: &str) -> Reason {
    if words.contains("configmap \"") || words.contains("in ConfigMap ") {
        Reason::ConfigMapMissing
    } else if words.contains("secret \"") || words.contains("in Secret ") {
        Reason::SecretMissing
    } else {
        Reason::CrashLoop
    }
}

fn unschedulable(pod: &Pod) -> Option<Trouble> {
    let conditions = pod.status.as_ref()?.conditions.as_deref()?;
    let refused = conditions.iter().find(|one| {
        one.type_ == "PodScheduled" && one.status == "False" && one.reason.as_deref() == Some("Unschedulable")
    })?;
    let message = bounded(refused.message.as_deref().unwrap_or_default(), WORDS_MAX);
    Some(Trouble {
        reason: Reason::Unschedulable,
        message,
    })
}

#[cfg(test)]
#[path = "observe_tests.rs"]
mod tests;
