//! What the API server says of a namespace's workers now, and the write that keeps older raises from landing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, Patch};
use kube::{Api, Client, ResourceExt};
use poolwright_api::{ANNOTATION_CHARGE, ANNOTATION_GRANT_EPOCH, LABEL_WORKER_POOL};
use poolwright_core::charge::{NOBODY, Slots, taken, whose};
use poolwright_core::objects::{DeploymentView, Objects, PodView, SetView};
use serde_json::json;
use tokio::time::sleep;

use super::super::kept::selected;
use crate::kube::patching;

/// Controllers are given so long to act on what was written.
const OBSERVED_WITHIN: Duration = Duration::from_secs(10);
/// Time between two looks at whether they have.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// One namespace at the API server.
pub(super) struct Live {
    deployments: Api<Deployment>,
    sets: Api<ReplicaSet>,
    pods: Api<Pod>,
}

/// A Deployment of ours as it was listed.
pub(super) struct Listed {
    /// Name of the WorkerPool that its selector names.
    pub worker_pool: String,
    /// It.
    pub view: DeploymentView,
}

impl Listed {
    /// Uid of the WorkerPool on whose account its pods are.
    pub(super) fn holder(&self) -> &str {
        whose(&self.view.charge, self.view.owner.as_deref())
    }

    /// Another act of ours may be about to raise it. One that only looks like ours, or that was left behind by its
    /// WorkerPool, is counted by its pods and not written to.
    pub(super) const fn may_be_raised(&self) -> bool {
        self.view.owner.is_some()
    }
}

impl Live {
    pub(super) fn new(client: &Client, namespace: &str) -> Self {
        Self {
            deployments: Api::namespaced(client.clone(), namespace),
            sets: Api::namespaced(client.clone(), namespace),
            pods: Api::namespaced(client.clone(), namespace),
        }
    }

    /// All Deployments of ours, by their selectors: labels may be taken away.
    pub(super) async fn deployments(&self) -> Result<Vec<Listed>, kube::Error> {
        let all = self.deployments.list(&ListParams::default()).await?;
        let ours = all.items.into_iter().filter_map(|deployment| {
            Some(Listed {
                worker_pool: selected(&deployment)?,
                view: deployment.into(),
            })
        });
        Ok(ours.collect())
    }

    /// Writes a new value into the annotation for grants, under the resourceVersion that was listed: a raise that read the
    /// Deployment before fails from now on. False if it has changed meanwhile.
    pub(super) async fn fence(&self, deployment: &DeploymentView) -> Result<bool, kube::Error> {
        let nonce = format!("{:016x}", fastrand::u64(..));
        let patch = json!({"metadata": {
            "uid": deployment.uid,
            "resourceVersion": deployment.resource_version,
            "annotations": {ANNOTATION_GRANT_EPOCH: nonce},
        }});
        match self
            .deployments
            .patch(&deployment.name, &patching(), &Patch::Merge(patch))
            .await
        {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// What the pods take, by uid of the holder, once the controllers have acted on all that was written before to the
    /// Deployments that it `concerns`. `None` if they have not in time.
    pub(super) async fn left(
        &self,
        concerns: impl Fn(&Listed) -> bool,
        is_lost: impl Fn(&str) -> bool,
    ) -> Result<Option<Left>, kube::Error> {
        let mut waited = Duration::ZERO;
        loop {
            let deployments = self.deployments().await?;
            let all = self.sets.list(&ListParams::default()).await?;
            let sets: Vec<(Option<String>, SetView)> = all
                .items
                .into_iter()
                .map(|set| (set.labels().get(LABEL_WORKER_POOL).cloned(), set.into()))
                .collect();
            let sets: Vec<(String, SetView)> = sets
                .into_iter()
                .filter_map(|(name, view)| Some((name?, view)))
                .collect();
            let asked: BTreeSet<&str> = deployments
                .iter()
                .filter(|one| concerns(one))
                .map(|one| one.view.uid.as_str())
                .collect();
            let is_asked = |set: &SetView| set.owner.as_deref().is_none_or(|owner| asked.contains(owner));
            let acted = deployments
                .iter()
                .filter(|one| concerns(one))
                .all(has_acted(&sets))
                && sets
                    .iter()
                    .filter(|(_, set)| is_asked(set))
                    .all(|(_, set)| set.settled);
            if acted {
                return self.add_up(deployments, sets, is_lost).await;
            }
            if waited >= OBSERVED_WITHIN {
                return Ok(None);
            }
            sleep(LOOK_AGAIN).await;
            waited += LOOK_AGAIN;
        }
    }

    async fn add_up(
        &self,
        deployments: Vec<Listed>,
        sets: Vec<(String, SetView)>,
        is_lost: impl Fn(&str) -> bool,
    ) -> Result<Option<Left>, kube::Error> {
        let pods = self.pods.list(&ListParams::default()).await?;
        // A Deployment that went meanwhile has taken what was to be waited for with it.
        let still = self.deployments().await?;
        let stays = |one: &Listed| still.iter().any(|other| other.view.uid == one.view.uid);
        if !deployments.iter().all(stays) {
            return Ok(None);
        }
        let mut groups: BTreeMap<String, Objects> = BTreeMap::new();
        let mut left = Left::default();
        let uids: BTreeSet<String> = deployments.iter().map(|one| one.view.uid.clone()).collect();
        let controlled = |owner: Option<&String>| owner.is_some_and(|owner| uids.contains(owner));
        let orphans = sets.iter().filter(|(_, set)| !controlled(set.owner.as_ref()));
        left.orphans = orphans
            .map(|(_, set)| whose(&set.charge, None).to_owned())
            .collect();
        for one in deployments {
            left.names
                .insert(one.holder().to_owned(), one.worker_pool.clone());
            let group = groups.entry(one.worker_pool).or_default();
            group.deployments.push(Arc::new(one.view));
        }
        for (name, set) in sets {
            groups.entry(name).or_default().sets.push(Arc::new(set));
        }
        for pod in pods.items {
            let name = pod.labels().get(LABEL_WORKER_POOL).cloned();
            // One whose label was taken away takes its slots all the same.
            if name.is_some() || pod.annotations().contains_key(ANNOTATION_CHARGE) {
                let name = name.unwrap_or_default();
                groups
                    .entry(name)
                    .or_default()
                    .pods
                    .push(Arc::new(PodView::from(pod)));
            }
        }
        for (name, objects) in groups {
            for (uid, slots) in taken(&objects, |pod| is_lost(&pod.name)) {
                let sum = left.slots.entry(uid.clone()).or_default();
                for (pool, more) in slots {
                    let taken = sum.entry(pool).or_default();
                    *taken = taken.saturating_add(more);
                }
                left.names.entry(uid).or_insert_with(|| {
                    let known = !name.is_empty();
                    if known { name.clone() } else { NOBODY.to_owned() }
                });
            }
        }
        Ok(Some(left))
    }
}

/// True for a Deployment whose controller has acted on it: it says so, and its `ReplicaSet`s have the number. It may have
/// said so of a number that it found in an old copy of them.
fn has_acted(sets: &[(String, SetView)]) -> impl Fn(&Listed) -> bool {
    |one| {
        let own = sets
            .iter()
            .filter(|(_, set)| set.owner.as_ref() == Some(&one.view.uid));
        let mut made = own.map(|(_, set)| set.replicas).peekable();
        let none = made.peek().is_none();
        one.view.observed >= one.view.generation && (none || made.sum::<u32>() == one.view.replicas)
    }
}

/// What was left when it was listed.
#[derive(Default)]
pub(super) struct Left {
    /// Slots by holder and Pool.
    pub slots: BTreeMap<String, Slots>,
    /// Names of the WorkerPools, by uid.
    pub names: BTreeMap<String, String>,
    /// Holders of `ReplicaSet`s without a Deployment: controllers may be in the middle of something that is not seen.
    pub orphans: BTreeSet<String>,
}

impl Left {
    /// Slots of one Pool that one holder's pods take.
    pub(super) fn at(&self, uid: &str, pool: &str) -> u64 {
        self.slots
            .get(uid)
            .and_then(|slots| slots.get(pool))
            .copied()
            .unwrap_or(0)
    }
}
