//! The Deployment of one revision.
//!
//! Decides everything in a worker's pod that the user left open, so that pods are the same wherever they are made
//! and run with the least rights by default. It never decides how many: a Deployment is created with zero
//! replicas, and only `/scale` raises them. What a revision renders to may change with the operator's version;
//! its name may not (see `revision`), and a Deployment that exists is never rendered again.

use std::collections::BTreeMap;

use k8s_openapi::DeepMerge as _;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment};
use k8s_openapi::api::core::v1::{
    Capabilities, Container, EnvVar, EnvVarSource, ObjectFieldSelector, PodSecurityContext, PodSpec,
    PodTemplateSpec, SeccompProfile, SecretKeySelector, SecurityContext, TopologySpreadConstraint,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use poolwright_api::v1alpha1::{Pod, WorkerPool};
use poolwright_api::{
    ANNOTATION_CHARGE, ANNOTATION_HOLDER, ANNOTATION_RESTARTED_AT, API_VERSION, COMPONENT, ENV_BROKER_URL,
    ENV_POD_NAME, LABEL_COMPONENT, LABEL_INSTANCE, LABEL_MANAGED_BY, LABEL_NAME, LABEL_PART_OF,
    LABEL_REVISION, LABEL_WORKER_POOL, PREFIX, WORKER_CONTAINER,
};

use crate::airflow;
use crate::broker_key::BrokerAddress;
use crate::charge::Charge;
use crate::command::arguments;
use crate::objects::DELETION_COST;
use crate::revision::revision;
use crate::validate::{Program, ValidPool};

/// Values of the label `app.kubernetes.io/name` on workers.
const CELERY: &str = "celery-worker";
const AIRFLOW: &str = "airflow-worker";
/// Value of the label `app.kubernetes.io/component` on workers.
const WORKER: &str = "worker";
/// Pod annotations that keep node autoscalers from ending a worker in the middle of a task; a user's own value
/// wins.
const KEEP: [(&str, &str); 2] = [
    ("cluster-autoscaler.kubernetes.io/safe-to-evict", "false"),
    ("karpenter.sh/do-not-disrupt", "true"),
];

/// The Deployment's name: the WorkerPool's, a hyphen and the revision's; at most 63 characters.
#[must_use]
pub fn name(worker_pool: &str, revision: &str) -> String {
    format!("{worker_pool}-{revision}")
}

/// The Deployment of the revision that `wp`, validated as `pool`, asks for: with zero replicas, owned by the
/// WorkerPool, selecting by WorkerPool and revision alone.
#[must_use]
pub fn render(pool: &ValidPool, wp: &WorkerPool) -> Deployment {
    let revision = revision(pool, wp);
    let selector = selector(pool, &revision);
    let mut labels = labels(pool);
    labels.extend(selector.clone());
    let pod = wp.spec.pod.clone().unwrap_or_default();
    // Labels by which others find workers may be the user's; those that Poolwright and the selector use may not.
    let mut pod_labels = labels.clone();
    pod_labels.extend(
        pod.labels
            .clone()
            .into_iter()
            .filter(|(key, _)| !key.starts_with(PREFIX) && key != LABEL_MANAGED_BY && key != LABEL_INSTANCE),
    );
    Deployment {
        metadata: ObjectMeta {
            name: Some(name(&pool.name, &revision)),
            namespace: Some(pool.namespace.clone()),
            labels: Some(labels),
            owner_references: Some(vec![owner(pool)]),
            ..ObjectMeta::default()
        },
        spec: Some(DeploymentSpec {
            replicas: Some(0),
            // Should somebody's edit ever make pods of two templates, it makes none above the number that is granted.
            strategy: Some(DeploymentStrategy {
                type_: Some("RollingUpdate".to_owned()),
                rolling_update: Some(RollingUpdateDeployment {
                    max_surge: Some(IntOrString::Int(0)),
                    max_unavailable: Some(IntOrString::Int(1)),
                }),
            }),
            selector: LabelSelector {
                match_labels: Some(selector),
                ..LabelSelector::default()
            },
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(pod_labels),
                    annotations: Some(annotations(pool, wp, &pod)),
                    ..ObjectMeta::default()
                }),
                spec: Some(pod_spec(pool, wp, pod)),
            },
            ..DeploymentSpec::default()
        }),
        ..Deployment::default()
    }
}

/// The labels by which a revision's pods are selected.
fn selector(pool: &ValidPool, revision: &str) -> BTreeMap<String, String> {
    [
        (LABEL_WORKER_POOL, pool.name.as_str()),
        (LABEL_REVISION, revision),
    ]
    .map(owned)
    .into()
}

/// The labels that Kubernetes recommends.
fn labels(pool: &ValidPool) -> BTreeMap<String, String> {
    let name = match pool.program {
        Program::Celery { .. } => CELERY,
        Program::Airflow => AIRFLOW,
    };
    [
        (LABEL_NAME, name),
        (LABEL_INSTANCE, pool.name.as_str()),
        (LABEL_COMPONENT, WORKER),
        (LABEL_PART_OF, COMPONENT),
        (LABEL_MANAGED_BY, COMPONENT),
    ]
    .map(owned)
    .into()
}

fn owned((key, value): (&str, &str)) -> (String, String) {
    (key.to_owned(), value.to_owned())
}

/// Not `blockOwnerDeletion`: deleting a WorkerPool must never wait for an hour-long drain.
fn owner(pool: &ValidPool) -> OwnerReference {
    OwnerReference {
        api_version: API_VERSION.to_owned(),
        kind: "WorkerPool".to_owned(),
        name: pool.name.clone(),
        uid: pool.uid.clone(),
        controller: Some(true),
        block_owner_deletion: Some(false),
    }
}

fn annotations(pool: &ValidPool, wp: &WorkerPool, pod: &Pod) -> BTreeMap<String, String> {
    let mut annotations: BTreeMap<_, _> = KEEP.map(owned).into();
    let charge = Charge::of(pool);
    annotations.insert(ANNOTATION_CHARGE.to_owned(), charge.to_string());
    annotations.insert(ANNOTATION_HOLDER.to_owned(), charge.holder);
    annotations.extend(
        pod.annotations
            .clone()
            .into_iter()
            // A cost of the user's would have Kubernetes end workers in another order than the one that we rely on.
            .filter(|(key, _)| !key.starts_with(PREFIX) && key != DELETION_COST),
    );
    let restarted = wp
        .metadata
        .annotations
        .as_ref()
        .and_then(|all| all.get_key_value(ANNOTATION_RESTARTED_AT));
    annotations.extend(restarted.map(|(key, value)| (key.clone(), value.clone())));
    annotations
}

/// No readiness probe anywhere: whether a worker works is read from its heartbeats, and a probe that turns
/// unready under load would change the order in which Kubernetes removes pods.
fn pod_spec(pool: &ValidPool, wp: &WorkerPool, pod: Pod) -> PodSpec {
    let sidecars = pod.sidecars.into_iter().map(|sidecar| Container {
        restart_policy: Some("Always".to_owned()),
        ..sidecar
    });
    let init_containers = pod
        .init_containers
        .into_iter()
        .chain(sidecars)
        .map(|mut container| {
            container.security_context = Some(hardened(container.security_context));
            container
        });
    let constraints = pod
        .topology_spread_constraints
        .into_iter()
        .map(|constraint| spread(pool, constraint));
    PodSpec {
        containers: vec![worker(pool, wp)],
        init_containers: list(init_containers),
        termination_grace_period_seconds: Some(pool.grace.seconds),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        security_context: Some(PodSecurityContext {
            seccomp_profile: Some(SeccompProfile {
                type_: "RuntimeDefault".to_owned(),
                ..SeccompProfile::default()
            }),
            ..PodSecurityContext::default()
        }),
        node_selector: Some(pod.node_selector).filter(|labels| !labels.is_empty()),
        tolerations: list(pod.tolerations),
        affinity: pod.affinity,
        topology_spread_constraints: list(constraints),
        volumes: list(pod.volumes),
        service_account_name: pod.service_account_name,
        image_pull_secrets: list(pod.image_pull_secrets),
        priority_class_name: pod.priority_class_name,
        runtime_class_name: pod.runtime_class_name,
        ..PodSpec::default()
    }
}

fn worker(pool: &ValidPool, wp: &WorkerPool) -> Container {
    let worker = &wp.spec.worker;
    let broker = pool.inject_broker.then(|| broker_url(&pool.broker.address));
    let variable = |(name, value): (&str, String)| EnvVar {
        name: name.to_owned(),
        value: Some(value),
        ..EnvVar::default()
    };
    let is_airflow = pool.program == Program::Airflow;
    let airflow = is_airflow.then(|| airflow::variables(pool)).into_iter().flatten();
    Container {
        name: WORKER_CONTAINER.to_owned(),
        image: Some(worker.image.clone()),
        command: Some(pool.command.clone()),
        args: Some(arguments(pool)),
        // The pod's name comes first so that the user's variables can refer to it.
        env: list(
            [pod_name()]
                .into_iter()
                .chain(broker)
                .chain(airflow.map(variable))
                .chain(worker.env.iter().cloned()),
        ),
        env_from: list(worker.env_from.iter().cloned()),
        resources: worker.resources.clone(),
        volume_mounts: list(worker.volume_mounts.iter().cloned()),
        security_context: Some(hardened(worker.security_context.clone())),
        ..Container::default()
    }
}

fn pod_name() -> EnvVar {
    let field = ObjectFieldSelector {
        field_path: "metadata.name".to_owned(),
        ..ObjectFieldSelector::default()
    };
    EnvVar {
        name: ENV_POD_NAME.to_owned(),
        value_from: Some(EnvVarSource {
            field_ref: Some(field),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    }
}

/// The broker's URL for the worker: by reference where it is in a Secret. A `$` in a plain URL is doubled, which
/// Kubernetes undoes.
fn broker_url(address: &BrokerAddress) -> EnvVar {
    let name = ENV_BROKER_URL.to_owned();
    match address {
        BrokerAddress::Url(url) => EnvVar {
            name,
            value: Some(url.replace('$', "$$")),
            ..EnvVar::default()
        },
        BrokerAddress::Secret { name: secret, key } => {
            let reference = SecretKeySelector {
                name: secret.clone(),
                key: key.clone(),
                ..SecretKeySelector::default()
            };
            let source = EnvVarSource {
                secret_key_ref: Some(reference),
                ..EnvVarSource::default()
            };
            EnvVar {
                name,
                value_from: Some(source),
                ..EnvVar::default()
            }
        }
    }
}

/// The least rights that a worker needs, with what the user wrote over them, field by field. A container that is
/// privileged or adds `SYS_ADMIN` keeps Kubernetes's own `allowPrivilegeEscalation`, because the API server
/// refuses `false` there.
fn hardened(written: Option<SecurityContext>) -> SecurityContext {
    let written = written.unwrap_or_default();
    let added = written
        .capabilities
        .as_ref()
        .and_then(|capabilities| capabilities.add.as_ref());
    let is_admin = |capability: &String| matches!(capability.as_str(), "SYS_ADMIN" | "CAP_SYS_ADMIN");
    let escalates = written.privileged == Some(true) || added.is_some_and(|added| added.iter().any(is_admin));
    let mut context = SecurityContext {
        allow_privilege_escalation: (!escalates).then_some(false),
        capabilities: Some(Capabilities {
            add: None,
            drop: Some(vec!["ALL".to_owned()]),
        }),
        ..SecurityContext::default()
    };
    context.merge_from(written);
    context
}

/// A constraint that selects nothing would count no pod; without a selector it means this WorkerPool's pods, of
/// all revisions.
fn spread(pool: &ValidPool, constraint: TopologySpreadConstraint) -> TopologySpreadConstraint {
    let ours = || LabelSelector {
        match_labels: Some([(LABEL_WORKER_POOL, pool.name.as_str())].map(owned).into()),
        ..LabelSelector::default()
    };
    TopologySpreadConstraint {
        label_selector: Some(constraint.label_selector.unwrap_or_else(ours)),
        ..constraint
    }
}

/// A list as Kubernetes's types have it: absent when empty.
fn list<T>(items: impl IntoIterator<Item = T>) -> Option<Vec<T>> {
    Some(items.into_iter().collect::<Vec<_>>()).filter(|items| !items.is_empty())
}

#[cfg(test)]
#[path = "deployment_tests.rs"]
mod tests;
