//! The Poolwright resources, [`v1alpha1::TaskQueue`], [`v1alpha1::WorkerPool`] and [`v1alpha1::Pool`]: types and the
//! rules that one object can check on its own.
//!
//! This crate does no I/O. Every name that more than one crate writes (labels, annotations, field manager) is a
//! constant here, so that a reader and a writer cannot drift apart. Install what [`crds`] returns rather than what
//! the derived `crd()` functions return: only the former is bounded, cleaned and tested.

// The list of printer columns repeats its keys, which the lint takes for repeated attributes.
#![allow(clippy::duplicated_attributes)]

pub mod conditions;
mod crds;
pub mod schema;
pub mod text;
pub mod v1alpha1;

pub use conditions::{Change, ConditionType, Reason};
pub use crds::{CRD_FILES, CRD_HEADER, CRD_VERSION, crds, to_yaml};

/// API group of all Poolwright resources.
pub const GROUP: &str = "poolwright.dev";
/// API version that this crate defines.
pub const VERSION: &str = "v1alpha1";
/// `apiVersion` of all Poolwright resources.
pub const API_VERSION: &str = "poolwright.dev/v1alpha1";
/// Category of all Poolwright resources: `kubectl get poolwright`.
pub const CATEGORY: &str = "poolwright";
/// Field manager of the operator's writes: creations, JSON and merge patches, `/scale`.
pub const FIELD_MANAGER: &str = "poolwright";
/// Reporting component of events, and value of [`LABEL_MANAGED_BY`].
pub const COMPONENT: &str = "poolwright";
/// Name of the Pool that a TaskQueue without `spec.pool.name` draws on.
pub const DEFAULT_POOL: &str = "default-pool";
/// Name of the worker container in every worker pod.
pub const WORKER_CONTAINER: &str = "worker";
/// Environment variable that holds the pod's name in the worker container; the worker's node name is built from it.
pub const ENV_POD_NAME: &str = "POD_NAME";
/// Environment variable that `brokerEnv: Inject` sets in the worker container.
pub const ENV_BROKER_URL: &str = "CELERY_BROKER_URL";
/// Greatest length of a WorkerPool's name, in characters: a revision's hash and a pod's suffix still fit in 63.
pub const WORKER_POOL_NAME_CHARACTERS_MAX: usize = 52;

/// Prefix of labels and annotations that only Poolwright writes.
pub const PREFIX: &str = "poolwright.dev/";
/// Label on Deployments, ReplicaSets and pods: name of the WorkerPool they belong to.
pub const LABEL_WORKER_POOL: &str = "poolwright.dev/worker-pool";
/// Label on Deployments, ReplicaSets and pods: name of the revision they run.
pub const LABEL_REVISION: &str = "poolwright.dev/revision";
/// Recommended Kubernetes label: name of the application.
pub const LABEL_NAME: &str = "app.kubernetes.io/name";
/// Recommended Kubernetes label: name that tells this instance from others.
pub const LABEL_INSTANCE: &str = "app.kubernetes.io/instance";
/// Recommended Kubernetes label: role within the application.
pub const LABEL_COMPONENT: &str = "app.kubernetes.io/component";
/// Recommended Kubernetes label: the larger application this is part of.
pub const LABEL_PART_OF: &str = "app.kubernetes.io/part-of";
/// Recommended Kubernetes label: the tool that manages the object; always [`COMPONENT`].
pub const LABEL_MANAGED_BY: &str = "app.kubernetes.io/managed-by";

/// Annotation on a WorkerPool: any new value makes a new revision, which restarts the workers as a rollout.
pub const ANNOTATION_RESTARTED_AT: &str = "poolwright.dev/restarted-at";
/// Annotation on a WorkerPool: the number of its workers stays as it is, whatever the demand.
pub const ANNOTATION_PAUSED: &str = "poolwright.dev/paused";
/// Annotation on a WorkerPool: no worker goes, whatever the demand.
pub const ANNOTATION_PAUSED_SCALE_IN: &str = "poolwright.dev/paused-scale-in";
/// Annotation on a WorkerPool: no worker is added, whatever the demand.
pub const ANNOTATION_PAUSED_SCALE_OUT: &str = "poolwright.dev/paused-scale-out";
/// Annotation on a revision's Deployment: time (RFC 3339) of the first heartbeat from one of its workers.
pub const ANNOTATION_PROVEN_AT: &str = "poolwright.dev/proven-at";
/// Annotation on a revision's Deployment: time (RFC 3339) at which it was given up because it never proved itself.
pub const ANNOTATION_FAILED_AT: &str = "poolwright.dev/failed-at";
/// Pod annotation: the slots that the pod takes of each Pool from its creation until it is gone, as `gpu=4,mail=20`.
pub const ANNOTATION_CHARGE: &str = "poolwright.dev/charge";
/// Pod annotation: uid of the WorkerPool that the pod was made for.
pub const ANNOTATION_HOLDER: &str = "poolwright.dev/worker-pool-uid";
/// Deployment annotation that changes before a grant is lowered, so that a raise which was begun before fails.
pub const ANNOTATION_GRANT_EPOCH: &str = "poolwright.dev/grant-epoch";
/// Annotation on a Pool: which Airflow (its url) and which of its pools was made for it, and goes with it.
pub const ANNOTATION_AIRFLOW_MADE: &str = "poolwright.dev/airflow-made";
/// Finalizer of a Pool for which a pool was made in Airflow: the Pool goes once that one is deleted.
pub const FINALIZER_AIRFLOW: &str = "poolwright.dev/airflow-pool";
/// Annotation on the resource definitions: [`CRD_VERSION`], which an update must not lower.
pub const ANNOTATION_CRD_VERSION: &str = "poolwright.dev/crd-version";
