//! What keeps a pod from running, in the words of the node and the scheduler.
//!
//! Only reads a pod's status; whether it still matters is for whoever hears it.

use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, Pod};
use poolwright_api::{Reason, WORKER_CONTAINER};

use crate::snapshot::{Trouble, WORDS_MAX};
use crate::text::bounded;

/// The first of: its worker's trouble, that of what the worker needs beside it, that of finding a node.
pub(crate) fn pod_trouble(pod: &Pod) -> Option<Trouble> {
    let containers = pod
        .status
        .as_ref()
        .and_then(|status| status.container_statuses.as_deref());
    let worker = containers
        .unwrap_or_default()
        .iter()
        .find(|one| one.name == WORKER_CONTAINER);
    worker
        .and_then(container_trouble)
        .or_else(|| companion_trouble(pod))
        .or_else(|| unschedulable(pod))
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
        let message = format!(
            "container {name} ended with {}; restarts: {restarts}",
            end(ended?)
        );
        return Some(Trouble {
            reason: if oom {
                Reason::OutOfMemory
            } else {
                Reason::CrashLoop
            },
            message: bounded(&message, WORDS_MAX),
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
    let last = ended.map_or(String::new(), |ended| format!(", last {}", end(ended)));
    let words = waiting.message.clone().unwrap_or_default();
    let message = bounded(
        &format!("container {name}: {said}: {words}{last}; restarts: {restarts}"),
        WORDS_MAX,
    );
    Some(Trouble { reason, message })
}

/// How a container ended, with the node's word for it, such as `OOMKilled`.
fn end(ended: &ContainerStateTerminated) -> String {
    let code = ended.exit_code;
    match ended.reason.as_deref() {
        Some(reason) if !reason.is_empty() => format!("exit code {code} ({reason})"),
        _ => format!("exit code {code}"),
    }
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
