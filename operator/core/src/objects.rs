//! Deployments, `ReplicaSet`s and pods, cut down to what is read of them.
//!
//! A fleet's objects are most of the operator's memory, and a decision reads a few fields of each. What is not here is
//! not known to any decision or plan; what is here is as the API server said it, with nothing made of it but words.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{Pod, PodSpec, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use poolwright_api::v1alpha1::WorkerPool;
use poolwright_api::{
    ANNOTATION_CHARGE, ANNOTATION_FAILED_AT, ANNOTATION_GRANT_EPOCH, ANNOTATION_HOLDER, ANNOTATION_PROVEN_AT,
    LABEL_REVISION, WORKER_CONTAINER,
};

use crate::charge::Charge;
use crate::command::concurrency;
use crate::snapshot::{COST_RETURNED, Mark, Rank, Trouble};
use crate::trouble::pod_trouble;

/// The annotation that a `ReplicaSet` reads a pod's deletion cost from.
pub const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
/// The label by which a Deployment tells its `ReplicaSet`s apart.
pub(crate) const POD_TEMPLATE_HASH: &str = "pod-template-hash";

/// The objects of one WorkerPool, draining predecessors of the same name included.
#[derive(Clone, Debug, Default)]
pub struct Objects {
    /// Deployments with our label.
    pub deployments: Vec<Arc<DeploymentView>>,
    /// Their `ReplicaSet`s.
    pub sets: Vec<Arc<SetView>>,
    /// Their pods.
    pub pods: Vec<Arc<PodView>>,
}

impl Objects {
    /// How many pods are parked, and how many are being deleted.
    #[must_use]
    pub fn leaving(&self) -> (usize, usize) {
        let all = || self.pods.iter().filter(|pod| !pod.ended);
        let parked = all().filter(|pod| !pod.draining && pod.mark.is_some());
        (parked.count(), all().filter(|pod| pod.draining).count())
    }

    /// Pods that are neither on their way out nor ended.
    pub fn living(&self) -> impl Iterator<Item = &PodView> {
        let pods = self.pods.iter().map(AsRef::as_ref);
        pods.filter(|pod: &&PodView| !pod.draining && !pod.ended)
    }
}

/// What is read of a Deployment.
#[derive(Clone, Debug, PartialEq)]
pub struct DeploymentView {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Uid of the object that controls it.
    pub owner: Option<String>,
    /// Its revision, by its selector: that cannot be changed, while anybody may take its labels away.
    pub revision: String,
    /// `metadata.generation`.
    pub generation: Option<i64>,
    /// `status.observedGeneration`.
    pub observed: Option<i64>,
    /// `metadata.resourceVersion`.
    pub resource_version: String,
    /// When it was created.
    pub created: Timestamp,
    /// It has a deletion timestamp.
    pub deleting: bool,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// A worker of it has sent a heartbeat, by its annotation, and when.
    pub proven: Option<Timestamp>,
    /// It was given up, by its annotation.
    pub failed: bool,
    /// `spec.replicas`.
    pub replicas: u32,
    /// `spec.paused`.
    pub paused: bool,
    /// `spec.progressDeadlineSeconds`.
    pub progress_deadline_seconds: Option<i32>,
    /// `spec.template` as JSON, to be compared: as an object it is half of the Deployment.
    pub template: Arc<str>,
    /// What a pod of its template takes.
    pub charge: Arc<Charge>,
    /// What its annotation for grants was last set to.
    pub grant_epoch: Option<String>,
}

/// What is read of a `ReplicaSet`.
#[derive(Clone, Debug, PartialEq)]
pub struct SetView {
    /// Its name.
    pub name: String,
    /// Uid of the Deployment that controls it.
    pub owner: Option<String>,
    /// Its revision, by its label.
    pub revision: String,
    /// When it was created.
    pub created: Timestamp,
    /// `spec.replicas`.
    pub replicas: u32,
    /// Its controller has acted on its present spec.
    pub settled: bool,
    /// Why it cannot create its pods, in the server's words.
    pub refused: Option<Trouble>,
    /// The template that it was made with, as JSON, without the label that its Deployment added.
    pub template: Arc<str>,
    /// What a pod of its template takes.
    pub charge: Arc<Charge>,
}

/// What is read of a pod.
#[allow(clippy::struct_excessive_bools)] // They are the pod's own, and none follows from another.
#[derive(Clone, Debug, PartialEq)]
pub struct PodView {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// `metadata.resourceVersion`.
    pub resource_version: String,
    /// Its revision label.
    pub revision: String,
    /// When it was created.
    pub created: Timestamp,
    /// It has ended for good (evicted, or its node shut down): its place is filled by another.
    pub ended: bool,
    /// When the present run of the worker container started, by the node's clock. `None` while it does not run.
    pub started: Option<Timestamp>,
    /// The worker container has run before in this pod.
    pub restarted: bool,
    /// All containers ready.
    pub ready: bool,
    /// How soon its `ReplicaSet` would end it, before it looks at costs.
    pub rank: Rank,
    /// It has a deletion timestamp.
    pub draining: bool,
    /// What its deletion cost says, if it is one of ours.
    pub mark: Option<Mark>,
    /// By its deletion cost, it was parked and brought back.
    pub returned: bool,
    /// It has a controller, which counts it. One without was taken out of its `ReplicaSet` by hand.
    pub controlled: bool,
    /// What keeps it from running.
    pub trouble: Option<Trouble>,
    /// What it takes.
    pub charge: Arc<Charge>,
    /// When it was to be gone at the latest, once it has a deletion timestamp.
    pub due: Option<Timestamp>,
}

/// Deployments that this very WorkerPool owns; one of an older namesake is not ours.
pub fn owned<'a>(wp: &'a WorkerPool, objects: &'a Objects) -> impl Iterator<Item = &'a Arc<DeploymentView>> {
    let uid = wp.metadata.uid.as_ref();
    objects
        .deployments
        .iter()
        .filter(move |deployment| uid.is_some() && deployment.owner.as_ref() == uid)
}

/// The `ReplicaSet`s of this very Deployment; those of an earlier one of the same name, still on their way out, are
/// not.
pub fn sets_of<'a>(
    deployment: &'a DeploymentView,
    sets: &'a [Arc<SetView>],
) -> impl Iterator<Item = &'a Arc<SetView>> {
    sets.iter()
        .filter(|set| set.owner.as_ref() == Some(&deployment.uid))
}

fn controller(metadata: &ObjectMeta) -> Option<String> {
    let owners = metadata.owner_references.as_deref().unwrap_or_default();
    let controller = owners.iter().find(|owner| owner.controller == Some(true))?;
    Some(controller.uid.clone())
}

fn created(metadata: &ObjectMeta) -> Timestamp {
    metadata
        .creation_timestamp
        .as_ref()
        .map_or(Timestamp::UNIX_EPOCH, |time| time.0)
}

fn annotation<'a>(metadata: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

pub(crate) fn revision_label(metadata: &ObjectMeta) -> String {
    let labels = metadata.labels.as_ref();
    labels
        .and_then(|labels| labels.get(LABEL_REVISION))
        .cloned()
        .unwrap_or_default()
}

/// The number that a controller works with.
fn replicas(number: Option<i32>) -> u32 {
    u32::try_from(number.unwrap_or(1)).unwrap_or(0)
}

/// Equal templates give equal text: the fields are written in the order of their type, maps in that of their keys.
fn text(template: Option<&PodTemplateSpec>) -> Arc<str> {
    template
        .map_or_else(String::new, |template| serde_json::json!(template).to_string())
        .into()
}

/// The revision of a Deployment, by its selector.
fn revision_of(deployment: &Deployment) -> String {
    let selector = deployment.spec.as_ref().map(|spec| &spec.selector);
    let labels = selector.and_then(|selector| selector.match_labels.as_ref());
    labels
        .and_then(|labels| labels.get(LABEL_REVISION))
        .cloned()
        .unwrap_or_default()
}

/// What a pod takes: by its annotations, or by its command line where it was made before there were such.
fn charge(metadata: Option<&ObjectMeta>, spec: Option<&PodSpec>) -> Arc<Charge> {
    let said = metadata.and_then(|metadata| {
        let slots = annotation(metadata, ANNOTATION_CHARGE)?;
        Charge::read(slots, annotation(metadata, ANNOTATION_HOLDER))
    });
    let made = || {
        let containers = spec.map_or(&[][..], |spec| &spec.containers);
        let worker = containers.iter().find(|one| one.name == WORKER_CONTAINER);
        let arguments = worker
            .and_then(|worker| worker.args.as_deref())
            .unwrap_or_default();
        Charge::unwritten(concurrency(arguments.iter().map(String::as_str)).unwrap_or(1))
    };
    Arc::new(said.unwrap_or_else(made))
}

fn charge_of(template: Option<&PodTemplateSpec>) -> Arc<Charge> {
    charge(
        template.and_then(|template| template.metadata.as_ref()),
        template.and_then(|template| template.spec.as_ref()),
    )
}

impl From<Deployment> for DeploymentView {
    fn from(deployment: Deployment) -> Self {
        let revision = revision_of(&deployment);
        let observed = deployment.status.and_then(|status| status.observed_generation);
        let (metadata, spec) = (deployment.metadata, deployment.spec);
        let spec = spec.as_ref();
        Self {
            owner: controller(&metadata),
            revision,
            generation: metadata.generation,
            observed,
            created: created(&metadata),
            deleting: metadata.deletion_timestamp.is_some(),
            proven: annotation(&metadata, ANNOTATION_PROVEN_AT).and_then(|at| at.parse().ok()),
            failed: annotation(&metadata, ANNOTATION_FAILED_AT).is_some(),
            replicas: replicas(spec.and_then(|spec| spec.replicas)),
            paused: spec.and_then(|spec| spec.paused).unwrap_or(false),
            progress_deadline_seconds: spec.and_then(|spec| spec.progress_deadline_seconds),
            template: text(spec.map(|spec| &spec.template)),
            charge: charge_of(spec.map(|spec| &spec.template)),
            grant_epoch: annotation(&metadata, ANNOTATION_GRANT_EPOCH).map(str::to_owned),
            name: metadata.name.unwrap_or_default(),
            uid: metadata.uid.unwrap_or_default(),
            resource_version: metadata.resource_version.unwrap_or_default(),
            labels: metadata.labels.unwrap_or_default(),
        }
    }
}

impl From<ReplicaSet> for SetView {
    fn from(set: ReplicaSet) -> Self {
        let (metadata, status) = (set.metadata, set.status.unwrap_or_default());
        let settled = status.observed_generation >= metadata.generation;
        let conditions = status.conditions.unwrap_or_default();
        let failure = conditions
            .iter()
            .find(|one| one.type_ == "ReplicaFailure" && one.status == "True");
        let spec = set.spec.unwrap_or_default();
        let mut template = spec.template;
        let labels = template.as_mut().and_then(|template| template.metadata.as_mut());
        if let Some(labels) = labels.and_then(|metadata| metadata.labels.as_mut()) {
            labels.remove(POD_TEMPLATE_HASH);
        }
        Self {
            owner: controller(&metadata),
            revision: revision_label(&metadata),
            created: created(&metadata),
            replicas: replicas(spec.replicas),
            settled,
            refused: failure.map(|one| Trouble::refusal(one.message.as_deref().unwrap_or_default())),
            template: text(template.as_ref()),
            charge: charge_of(template.as_ref()),
            name: metadata.name.unwrap_or_default(),
        }
    }
}

impl From<Pod> for PodView {
    fn from(pod: Pod) -> Self {
        let trouble = pod_trouble(&pod);
        let (metadata, status) = (pod.metadata, pod.status.unwrap_or_default());
        let containers = status.container_statuses.as_deref().unwrap_or_default();
        let worker = containers.iter().find(|one| one.name == WORKER_CONTAINER);
        let running = worker
            .and_then(|worker| worker.state.as_ref())
            .and_then(|state| state.running.as_ref());
        let conditions = status.conditions.as_deref().unwrap_or_default();
        let ready = conditions
            .iter()
            .any(|one| one.type_ == "Ready" && one.status == "True");
        let charge = charge(Some(&metadata), pod.spec.as_ref());
        let assigned = pod.spec.is_some_and(|spec| spec.node_name.is_some());
        Self {
            revision: revision_label(&metadata),
            created: created(&metadata),
            ended: matches!(status.phase.as_deref(), Some("Failed" | "Succeeded")),
            started: running.map(|running| {
                let at = running.started_at.as_ref();
                at.map_or(Timestamp::UNIX_EPOCH, |at| at.0)
            }),
            restarted: worker.is_some_and(|worker| worker.restart_count > 0),
            ready,
            rank: match status.phase.as_deref() {
                _ if !assigned => Rank::Unassigned,
                Some("Pending") => Rank::Pending,
                _ if ready => Rank::Ready,
                _ => Rank::Unready,
            },
            draining: metadata.deletion_timestamp.is_some(),
            due: metadata.deletion_timestamp.as_ref().map(|at| at.0),
            charge,
            controlled: controller(&metadata).is_some(),
            mark: annotation(&metadata, DELETION_COST).and_then(Mark::of),
            returned: annotation(&metadata, DELETION_COST) == Some(COST_RETURNED),
            trouble,
            name: metadata.name.unwrap_or_default(),
            uid: metadata.uid.unwrap_or_default(),
            resource_version: metadata.resource_version.unwrap_or_default(),
        }
    }
}
