//! `spec.worker` and `spec.pod`: the worker container and the pod around it.

use k8s_openapi::api::core::v1::{
    Affinity, Container, EnvFromSource, EnvVar, LocalObjectReference, ResourceRequirements, SecurityContext,
    Toleration, TopologySpreadConstraint, Volume, VolumeMount,
};
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::schema::{self, StringMap};

/// The container that runs the worker.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Worker {
    /// `image` with the app and its Celery, 1 to 1,024 characters. Required.
    #[schemars(length(min = 1, max = 1024), regex(pattern = r"^[!-~]+$"))]
    pub image: String,

    /// `command` that starts Celery or Airflow; the arguments follow it. 1 to 32 words of at most 1,024 characters.
    /// Default: celery, or airflow with `spec.airflow`.
    #[schemars(length(min = 1, max = 32), inner(length(min = 1, max = 1024)))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,

    /// `env` of the worker container, at most 128 variables with unique names. Default: none. `POD_NAME` is set by
    /// Poolwright and may not be set here.
    #[schemars(schema_with = "schema::named_list::<EnvVar, 128, 256>")]
    #[x_kube(
        merge_strategy = ListMerge::Map(vec!["name".into()]),
        validation = Rule::new("self.all(e, e.name != 'POD_NAME')")
            .message("spec.worker.env must not set POD_NAME, which Poolwright sets"),
        validation = Rule::new("self.all(e, e.name.matches('^[ -<>-~]+$'))")
            .message("spec.worker.env names must be 1 to 256 printable ASCII characters other than =")
    )]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<EnvVar>,

    /// `envFrom` adds all keys of a `ConfigMap` or Secret each to the worker's environment, at most 32. Default: none.
    #[schemars(schema_with = "schema::list::<EnvFromSource, 32>")]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env_from: Vec<EnvFromSource>,

    /// `resources` that the worker container requests and is limited to. Default: none. The CPU limit is also the
    /// default of `celery.concurrency` for class Cpu and without a class.
    // By name, because a rule over every member exceeds the API server's budget. Of any other resource Kubernetes wants
    // request and limit to be the same.
    #[schemars(schema_with = "schema::embedded::<ResourceRequirements>")]
    #[x_kube(
        validation = Rule::new("!has(self.requests) || !has(self.limits) || !('cpu' in self.requests) || !('cpu' in self.limits) || quantity(string(self.requests['cpu'])).compareTo(quantity(string(self.limits['cpu']))) <= 0")
            .message(Message::Expression("'spec.worker.resources.requests.cpu is ' + string(self.requests['cpu']) + ', which is more than the limit ' + string(self.limits['cpu']) + ': lower it, or raise spec.worker.resources.limits.cpu'".into())),
        validation = Rule::new("!has(self.requests) || !has(self.limits) || !('memory' in self.requests) || !('memory' in self.limits) || quantity(string(self.requests['memory'])).compareTo(quantity(string(self.limits['memory']))) <= 0")
            .message(Message::Expression("'spec.worker.resources.requests.memory is ' + string(self.requests['memory']) + ', which is more than the limit ' + string(self.limits['memory']) + ': lower it, or raise spec.worker.resources.limits.memory'".into())),
        validation = Rule::new("!has(self.requests) || !has(self.limits) || !('ephemeral-storage' in self.requests) || !('ephemeral-storage' in self.limits) || quantity(string(self.requests['ephemeral-storage'])).compareTo(quantity(string(self.limits['ephemeral-storage']))) <= 0")
            .message(Message::Expression("'spec.worker.resources.requests.ephemeral-storage is ' + string(self.requests['ephemeral-storage']) + ', which is more than the limit ' + string(self.limits['ephemeral-storage']) + ': lower it, or raise spec.worker.resources.limits.ephemeral-storage'".into()))
    )]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,

    /// `volumeMounts` of the worker container, at most 64. Default: none. Each must name a volume in `pod.volumes`.
    #[schemars(schema_with = "schema::list::<VolumeMount, 64>")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["mountPath".into()]))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volume_mounts: Vec<VolumeMount>,

    /// `securityContext` of the worker container, laid field by field over what it has by default: all capabilities
    /// dropped and no privilege escalation. Default: only that. Init containers and sidecars get the same under theirs.
    #[schemars(schema_with = "schema::embedded::<SecurityContext>")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security_context: Option<SecurityContext>,
}

/// The pod around the worker container.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.initContainers) || !has(self.sidecars) || self.sidecars.all(s, !self.initContainers.exists(c, c.name == s.name))")
        .message("spec.pod.sidecars and spec.pod.initContainers must not share a name")
)]
pub struct Pod {
    /// `nodeSelector` that a node's labels must match, at most 64 labels. Default: none.
    #[schemars(schema_with = "schema::labels")]
    #[serde(default, skip_serializing_if = "StringMap::is_empty")]
    pub node_selector: StringMap,

    /// `tolerations` of node taints, at most 64. Default: none.
    #[schemars(schema_with = "schema::list::<Toleration, 64>")]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tolerations: Vec<Toleration>,

    /// `affinity` to nodes and other pods. Default: none.
    #[schemars(schema_with = "schema::embedded::<Affinity>")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,

    /// `topologySpreadConstraints` that spread the workers, at most 16. Default: none.
    #[schemars(schema_with = "schema::list::<TopologySpreadConstraint, 16>")]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub topology_spread_constraints: Vec<TopologySpreadConstraint>,

    /// `volumes` of the pod, at most 64 with unique names. Default: none.
    #[schemars(schema_with = "schema::named_list::<Volume, 64, 63>")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<Volume>,

    /// `serviceAccountName` that the workers run as. Default: the namespace's default ServiceAccount.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
    )]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account_name: Option<String>,

    /// `imagePullSecrets` with which the pod's images are pulled, at most 16. Default: those of the ServiceAccount.
    #[schemars(schema_with = "schema::list::<LocalObjectReference, 16>")]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub image_pull_secrets: Vec<LocalObjectReference>,

    /// `priorityClassName` of the pod. Default: the cluster's default priority.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
    )]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority_class_name: Option<String>,

    /// `runtimeClassName` of the pod. Default: the cluster's default runtime.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
    )]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime_class_name: Option<String>,

    /// `labels` that are added to the pod, at most 64. Default: none. Reserved are the prefix `poolwright.dev/` and
    /// `app.kubernetes.io/instance` and `app.kubernetes.io/managed-by`, which Poolwright sets.
    #[schemars(schema_with = "schema::labels")]
    #[x_kube(validation = Rule::new("self.all(k, !k.startsWith('poolwright.dev/') && k != 'app.kubernetes.io/instance' && k != 'app.kubernetes.io/managed-by')")
        .message("spec.pod.labels must not use the prefix poolwright.dev/, app.kubernetes.io/instance or app.kubernetes.io/managed-by, which are reserved: Poolwright sets them"))]
    #[serde(default, skip_serializing_if = "StringMap::is_empty")]
    pub labels: StringMap,

    /// `annotations` that are added to the pod, at most 64. Default: none. Reserved are the prefix `poolwright.dev/` and
    /// `controller.kubernetes.io/pod-deletion-cost`, by which Poolwright says which worker goes first.
    #[schemars(schema_with = "schema::annotations")]
    #[x_kube(validation = Rule::new("self.all(k, !k.startsWith('poolwright.dev/') && k != 'controller.kubernetes.io/pod-deletion-cost')")
        .message("spec.pod.annotations must not use the prefix poolwright.dev/ or controller.kubernetes.io/pod-deletion-cost, which are reserved: Poolwright sets them"))]
    #[serde(default, skip_serializing_if = "StringMap::is_empty")]
    pub annotations: StringMap,

    /// `initContainers` that run to completion before the worker starts, at most 10. Default: none.
    #[schemars(schema_with = "schema::named_list::<Container, 10, 63>")]
    #[x_kube(
        merge_strategy = ListMerge::Map(vec!["name".into()]),
        validation = Rule::new("self.all(c, c.name != 'worker')")
            .message("spec.pod.initContainers must not be named worker, which is the worker container")
    )]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub init_containers: Vec<Container>,

    /// `sidecars` that run beside the worker, at most 10. Default: none. They are native sidecars (init containers
    /// that restart): they start before the worker and outlive its drain.
    #[schemars(schema_with = "schema::named_list::<Container, 10, 63>")]
    #[x_kube(
        merge_strategy = ListMerge::Map(vec!["name".into()]),
        validation = Rule::new("self.all(c, c.name != 'worker')")
            .message("spec.pod.sidecars must not be named worker, which is the worker container"),
        validation = Rule::new("self.all(c, !has(c.restartPolicy) || c.restartPolicy == 'Always')")
            .message("spec.pod.sidecars must leave restartPolicy out or set it to Always")
    )]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sidecars: Vec<Container>,
}
