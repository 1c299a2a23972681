//! From a decision to the writes that carry it out.
//!
//! Compares what is wanted with what exists and lists the difference in an order that is safe to stop after any
//! step: planning again from whatever was reached ends in the same place, and planning what is reached is empty.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use poolwright_api::v1alpha1::WorkerPool;
use poolwright_api::{ANNOTATION_FAILED_AT, ANNOTATION_PROVEN_AT, FIELD_MANAGER, LABEL_REVISION};

use crate::decision::Decision;
use crate::observe::{DELETION_COST, Objects, VICTIM_COST, owned, revision_of};
use crate::snapshot::PoolInput;

/// A paused Deployment is never judged by its progress; this keeps it so should somebody unpause it: ten years.
const PROGRESS_DEADLINE_SECONDS: i32 = 315_360_000;

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Create the Deployment of a revision, with zero replicas.
    Create(Box<Deployment>),
    /// Apply all our fields but `replicas`: pauses it, and takes back what somebody edited.
    Apply(Box<Deployment>),
    /// Annotate a Deployment.
    Annotate {
        /// Its name.
        deployment: String,
        /// The annotation.
        key: &'static str,
        /// Its value.
        value: String,
    },
    /// Set or clear a pod's deletion cost.
    Mark {
        /// The pod.
        pod: String,
        /// The annotation.
        key: &'static str,
        /// Its value; `None` removes it.
        cost: Option<&'static str>,
    },
    /// Write replicas through `/scale`, under the resourceVersion that was seen.
    Scale {
        /// Name of the Deployment.
        deployment: String,
        /// The number before.
        from: u32,
        /// The number after.
        to: u32,
        /// Fails with a conflict if the Deployment has changed since.
        resource_version: String,
    },
    /// Delete a Deployment that has no pods.
    Delete {
        /// Its name.
        deployment: String,
        /// Only this very object.
        uid: String,
    },
}

/// Lists the writes that lead from what exists to what was decided.
///
/// `applied` tells the generation that we applied last for a Deployment's uid, so that a foreign field which
/// cannot be taken back is fought once and not for ever.
#[must_use]
pub fn plan(
    wp: &WorkerPool,
    rendered: &Deployment,
    input: &PoolInput,
    objects: &Objects,
    decision: &Decision,
    applied: impl Fn(&str) -> Option<i64>,
    wall: Timestamp,
) -> Vec<Step> {
    if input.terminating {
        return Vec::new();
    }
    let deployments: Vec<&Arc<Deployment>> = owned(wp, objects).collect();
    let mut steps = Vec::new();
    for (revisions, key) in [
        (&decision.allocation.prove, ANNOTATION_PROVEN_AT),
        (&decision.allocation.fail, ANNOTATION_FAILED_AT),
    ] {
        for deployment in deployments
            .iter()
            .filter(|one| revisions.iter().any(|name| name == revision_of(one)))
        {
            steps.push(Step::Annotate {
                deployment: name(deployment),
                key,
                value: wall.to_string(),
            });
        }
    }
    if decision.allocation.create {
        steps.push(Step::Create(Box::new(rendered.clone())));
    }
    for deployment in &deployments {
        if needs_apply(deployment, input, objects, applied(&uid(deployment))) {
            steps.push(Step::Apply(Box::new(desired(rendered, deployment, input))));
        }
    }
    if input.conflict.is_none() {
        steps.extend(marks(input, decision));
        steps.extend(scales(&deployments, decision));
    }
    for deployment in deployments.iter().filter(|one| {
        decision
            .allocation
            .remove
            .iter()
            .any(|name| name == revision_of(one))
            && one.metadata.deletion_timestamp.is_none()
    }) {
        steps.push(Step::Delete {
            deployment: name(deployment),
            uid: uid(deployment),
        });
    }
    steps
}

fn name(deployment: &Deployment) -> String {
    deployment.metadata.name.clone().unwrap_or_default()
}

fn uid(deployment: &Deployment) -> String {
    deployment.metadata.uid.clone().unwrap_or_default()
}

/// True if it should be paused now (its `ReplicaSet` exists), or if somebody else has written our fields.
fn needs_apply(deployment: &Deployment, input: &PoolInput, objects: &Objects, applied: Option<i64>) -> bool {
    let paused = deployment.spec.as_ref().and_then(|spec| spec.paused) == Some(true);
    let revision = revision_of(deployment);
    let has_set = objects.sets.iter().any(|set| {
        set.metadata
            .labels
            .as_ref()
            .and_then(|labels| labels.get(LABEL_REVISION))
            .is_some_and(|name| name == revision)
    });
    if !paused {
        return has_set;
    }
    // An older revision is paused and will not change any more: what somebody writes into it has no effect.
    revision == input.revision && applied != deployment.metadata.generation && is_foreign(deployment)
}

/// True if another manager owns a field of the spec other than `replicas`.
fn is_foreign(deployment: &Deployment) -> bool {
    let entries = deployment.metadata.managed_fields.as_deref().unwrap_or_default();
    entries
        .iter()
        .filter(|entry| entry.manager.as_deref() != Some(FIELD_MANAGER) && entry.subresource.is_none())
        .filter_map(|entry| entry.fields_v1.as_ref()?.0.get("f:spec")?.as_object())
        .any(|spec| spec.keys().any(|field| field != "f:replicas"))
}

/// Our fields of an existing Deployment: of the newest revision as rendered, of an older one what it has. Never
/// `replicas`: they belong to `/scale` alone.
fn desired(rendered: &Deployment, existing: &Deployment, input: &PoolInput) -> Deployment {
    let mut desired = if revision_of(existing) == input.revision {
        rendered.clone()
    } else {
        existing.clone()
    };
    desired.status = None;
    let labels = desired.metadata.labels.take();
    let owners = desired.metadata.owner_references.take();
    desired.metadata = k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
        name: existing.metadata.name.clone(),
        namespace: existing.metadata.namespace.clone(),
        labels,
        owner_references: owners,
        ..Default::default()
    };
    if let Some(spec) = desired.spec.as_mut() {
        spec.replicas = None;
        spec.paused = Some(true);
        spec.progress_deadline_seconds = Some(PROGRESS_DEADLINE_SECONDS);
    }
    desired
}

fn marks(input: &PoolInput, decision: &Decision) -> Vec<Step> {
    let shrinks = |revision: &str| {
        let replicas = input
            .revisions
            .iter()
            .find(|one| one.name == revision)
            .map_or(0, |one| one.replicas);
        decision
            .allocation
            .target(revision)
            .is_some_and(|target| target < replicas)
    };
    let mut steps = Vec::new();
    for pod in input.consuming() {
        let victim = decision.victims.contains(&pod.name);
        if victim && !pod.marked {
            steps.push(Step::Mark {
                pod: pod.name.clone(),
                key: DELETION_COST,
                cost: Some(VICTIM_COST),
            });
        } else if !victim && pod.marked && shrinks(&pod.revision) {
            steps.push(Step::Mark {
                pod: pod.name.clone(),
                key: DELETION_COST,
                cost: None,
            });
        }
    }
    steps
}

/// Growth first: a task that waits matters more than a pod that idles.
fn scales(deployments: &[&Arc<Deployment>], decision: &Decision) -> Vec<Step> {
    let mut steps = Vec::new();
    for deployment in deployments
        .iter()
        .filter(|one| one.metadata.deletion_timestamp.is_none())
    {
        let from = deployment
            .spec
            .as_ref()
            .and_then(|spec| spec.replicas)
            .unwrap_or(1);
        let Some(to) = decision.allocation.target(revision_of(deployment)) else {
            continue;
        };
        let from = u32::try_from(from).unwrap_or(0);
        if from != to {
            let resource_version = deployment.metadata.resource_version.clone().unwrap_or_default();
            steps.push(Step::Scale {
                deployment: name(deployment),
                from,
                to,
                resource_version,
            });
        }
    }
    steps.sort_by_key(|step| match step {
        Step::Scale {
            deployment, from, to, ..
        } => (to < from, deployment.clone()),
        _ => (false, String::new()),
    });
    steps
}
