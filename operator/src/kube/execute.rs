//! Carries out the steps of a plan, one write at a time, and says of each that fails whether the rest of the plan holds.
//!
//! Every write names what it expects (a resourceVersion, a uid, a fresh name), so that a plan made from an old
//! view fails instead of undoing somebody's work. What the server refuses for good is returned in its own words.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::autoscaling::v1::{Scale, ScaleSpec};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use kube::api::{DeleteParams, ListParams, Patch, Preconditions};
use kube::{Api, Client};
use poolwright_api::Reason;
use poolwright_core::objects::DeploymentView;
use poolwright_core::plan::{Settle, Step, Token, still_judged_so};
use poolwright_core::snapshot::Trouble;
use serde_json::json;

use super::{patching, posting};

/// A Deployment's status moves while its pods start: so often is a write repeated on a newer version in which all that it
/// relies on is as it was, before it is planned anew.
const ATTEMPTS: usize = 4;

/// Why a step was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The world has moved on: plan again from what it is now.
    #[error("the object has changed since it was read")]
    Moved,
    /// The server refuses, and will until somebody changes something.
    #[error("refused: {}", .0.message)]
    Refused(Trouble),
    /// A Pool has not granted it.
    #[error("{}", .0.message)]
    NoRoom(Trouble),
    /// Anything else.
    #[error(transparent)]
    Kube(#[from] kube::Error),
}

fn classify(error: kube::Error) -> Failure {
    let kube::Error::Api(status) = &error else {
        return Failure::Kube(error);
    };
    match status.code {
        404 | 409 => Failure::Moved,
        400 | 403 | 413 | 422 => Failure::Refused(Trouble::refusal(&status.message)),
        _ => Failure::Kube(error),
    }
}

/// Writes to the objects of one namespace.
pub struct Executor {
    deployments: Api<Deployment>,
    sets: Api<ReplicaSet>,
    pods: Api<Pod>,
}

impl Executor {
    /// For one namespace.
    #[must_use]
    pub fn new(client: &Client, namespace: &str) -> Self {
        Self {
            deployments: Api::namespaced(client.clone(), namespace),
            sets: Api::namespaced(client.clone(), namespace),
            pods: Api::namespaced(client.clone(), namespace),
        }
    }

    /// Carries out one step. `Some` is the Deployment as it then is, where the server tells.
    ///
    /// # Errors
    /// [`Failure`]; nothing after it should be tried from the same plan.
    pub async fn run(&self, step: &Step) -> Result<Option<Deployment>, Failure> {
        tracing::debug!("{step}");
        match step {
            Step::Create(deployment) => self.create(deployment).await.map(Some),
            Step::Settle(settle) => self.settle(settle).await.map(Some),
            Step::Annotate { seen, key, value } => self.annotate(seen, key, value).await.map(Some),
            Step::Mark {
                pod,
                uid,
                resource_version,
                key,
                cost,
            } => {
                let metadata = json!({
                    "uid": uid,
                    "resourceVersion": resource_version,
                    "annotations": {*key: cost},
                });
                let patch = json!({"metadata": metadata});
                match self.pods.patch(pod, &patching(), &Patch::Merge(patch)).await {
                    Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
                    other => other.map(|_| None).map_err(classify),
                }
            }
            Step::Scale {
                deployment, to, seen, ..
            } => self.scale(deployment, *to, seen).await.map(|()| None),
            Step::Delete {
                deployment,
                uid,
                resource_version,
            } => {
                let mut params = DeleteParams::background();
                params.preconditions = Some(Preconditions {
                    uid: Some(uid.clone()),
                    resource_version: Some(resource_version.clone()),
                });
                self.deployments
                    .delete(deployment, &params)
                    .await
                    .map(|_| None)
                    .map_err(classify)
            }
        }
    }

    /// Asks for no fewer replicas than a `ReplicaSet` has that nobody controls: the Deployment adopts it, and the watches
    /// may show that its Deployment is gone before they show that it was left behind.
    async fn create(&self, deployment: &Deployment) -> Result<Deployment, Failure> {
        let mut deployment = deployment.clone();
        if let Some(spec) = &mut deployment.spec {
            let left = self.left_behind(&spec.selector).await?;
            spec.replicas = Some(left.unwrap_or(0));
        }
        let deployment = &deployment;
        match self.deployments.create(&posting(), deployment).await {
            Err(kube::Error::Api(status)) if status.code == 409 => self.take_back(deployment).await,
            other => other.map_err(classify),
        }
    }

    /// Replicas of the largest `ReplicaSet` that this selector finds and nobody controls.
    async fn left_behind(&self, selector: &LabelSelector) -> Result<Option<i32>, Failure> {
        let labels = selector.match_labels.iter().flatten();
        let labels: Vec<String> = labels.map(|(key, value)| format!("{key}={value}")).collect();
        let found = ListParams::default().labels(&labels.join(","));
        let sets = self.sets.list(&found).await.map_err(classify)?;
        let is_controlled = |set: &ReplicaSet| {
            let owners = set.metadata.owner_references.iter().flatten();
            owners.into_iter().any(|owner| owner.controller == Some(true))
        };
        let free = sets.items.into_iter().filter(|set| !is_controlled(set));
        Ok(free.filter_map(|set| set.spec?.replicas).max())
    }

    /// The name is taken. By our own Deployment, whose label or owner somebody removed, so that no watch shows it:
    /// then it gets them back. By that of an older namesake: then it will go. By anything else: then somebody has
    /// to choose.
    async fn take_back(&self, deployment: &Deployment) -> Result<Deployment, Failure> {
        let name = deployment.metadata.name.as_deref().unwrap_or_default();
        let live = self.deployments.get(name).await.map_err(classify)?;
        let owner = |one: &Deployment| {
            let mut owners = one
                .metadata
                .owner_references
                .clone()
                .unwrap_or_default()
                .into_iter();
            owners.find(|owner| owner.controller == Some(true))
        };
        let selector = |one: &Deployment| one.spec.as_ref().map(|spec| spec.selector.clone());
        let (theirs, ours) = (owner(&live), owner(deployment));
        let is_ours =
            theirs.is_none() || theirs.as_ref().map(|one| &one.uid) == ours.as_ref().map(|one| &one.uid);
        if is_ours && selector(&live) == selector(deployment) {
            let patch = json!({"metadata": {
                "uid": live.metadata.uid,
                "resourceVersion": live.metadata.resource_version,
                "labels": deployment.metadata.labels,
                "ownerReferences": deployment.metadata.owner_references,
            }});
            let patched = self
                .deployments
                .patch(name, &patching(), &Patch::Merge(patch))
                .await;
            return patched.map_err(classify);
        }
        let namesake = |left: &OwnerReference, right: &OwnerReference| {
            (&left.api_version, &left.kind, &left.name) == (&right.api_version, &right.kind, &right.name)
        };
        if theirs
            .zip(ours)
            .is_some_and(|(theirs, ours)| namesake(&theirs, &ours))
        {
            return Err(Failure::Moved);
        }
        let message = format!("Deployment {name:?} exists and is not this WorkerPool's: delete or rename it");
        Err(Failure::Refused(Trouble {
            reason: Reason::Conflict,
            message,
        }))
    }

    /// What a leader of the past thought of a revision must not come on top of what the present one has found.
    async fn annotate(&self, seen: &DeploymentView, key: &str, value: &str) -> Result<Deployment, Failure> {
        let name = &seen.name;
        let write = |version: String| async move {
            let patch = json!({"metadata": {
                "uid": seen.uid,
                "resourceVersion": version,
                "annotations": {key: value},
            }});
            self.deployments
                .patch(name, &patching(), &Patch::Merge(patch))
                .await
        };
        let holds = |live: &DeploymentView| still_judged_so(seen, live);
        self.under(name, &seen.resource_version, holds, write).await
    }

    /// Names each field: an apply would create a Deployment that is gone, and would reset what it leaves out.
    async fn settle(&self, settle: &Settle) -> Result<Deployment, Failure> {
        let seen = &settle.seen;
        let write = |version: String| async move {
            let mut patch = vec![
                json!({"op": "add", "path": "/metadata/uid", "value": seen.uid}),
                json!({"op": "add", "path": "/metadata/resourceVersion", "value": version}),
                json!({"op": "add", "path": "/spec/paused", "value": settle.paused}),
                json!({"op": "add", "path": "/spec/progressDeadlineSeconds", "value": settle.progress_deadline_seconds}),
            ];
            if let Some(labels) = &settle.labels {
                patch.push(json!({"op": "add", "path": "/metadata/labels", "value": labels}));
            }
            if let Some(template) = &settle.template {
                patch.push(json!({"op": "add", "path": "/spec/template", "value": template}));
            }
            let patch = serde_json::from_value(patch.into()).map_err(kube::Error::SerdeError)?;
            self.deployments
                .patch(&seen.name, &patching(), &Patch::<()>::Json(patch))
                .await
        };
        let holds = |live: &DeploymentView| settle.holds(live);
        self.under(&seen.name, &seen.resource_version, holds, write).await
    }

    async fn scale(&self, name: &str, to: u32, seen: &Token) -> Result<(), Failure> {
        let holds = |live: &DeploymentView| seen.holds(&Token::of(live));
        let write = |version: String| async move { self.write_scale(name, to, &version).await };
        self.under(name, &seen.resource_version, holds, write).await
    }

    /// Writes to a Deployment under the resourceVersion that was read. A newer one is read and used only where all that the
    /// write relies on still holds; where it does not, the write has been decided by what is no longer true.
    async fn under<T, F: Future<Output = Result<T, kube::Error>>>(
        &self,
        name: &str,
        seen: &str,
        holds: impl Fn(&DeploymentView) -> bool,
        write: impl Fn(String) -> F,
    ) -> Result<T, Failure> {
        let mut version = seen.to_owned();
        for _ in 0..ATTEMPTS {
            match write(version).await {
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                other => return other.map_err(classify),
            }
            let live: DeploymentView = self.deployments.get(name).await.map_err(classify)?.into();
            if !holds(&live) {
                return Err(Failure::Moved);
            }
            version = live.resource_version;
        }
        Err(Failure::Moved)
    }

    async fn write_scale(&self, name: &str, to: u32, version: &str) -> Result<(), kube::Error> {
        let scale = Scale {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                namespace: self.deployments.namespace().map(str::to_owned),
                resource_version: Some(version.to_owned()),
                ..ObjectMeta::default()
            },
            spec: Some(ScaleSpec {
                replicas: i32::try_from(to).ok(),
            }),
            status: None,
        };
        self.deployments
            .replace_scale(name, &posting(), &scale)
            .await
            .map(|_| ())
    }
}

#[cfg(test)]
#[path = "execute_tests.rs"]
mod tests;
