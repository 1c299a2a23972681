//! What a namespace has come to, in a form in which two runs can be compared: without times, names that a run makes up, and
//! numbers that only count how often something was written.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use poolwright_api::LABEL_REVISION;
use poolwright_api::v1alpha1::{Pool, TaskQueue, WorkerPool};
use poolwright_tests::*;
use serde::Serialize;
use serde_json::{Value, json};

/// Moments, texts with moments in them, identities, counters, and rates of what is long over.
const VOLATILE: [&str; 21] = [
    "arrivalsPerMinute",
    "creationTimestamp",
    "decisions",
    "deployment.kubernetes.io/revision",
    "epoch",
    "estimatedWaitSeconds",
    "generation",
    "lastDecision",
    "lastScaleTime",
    "lastTransitionTime",
    "lastUpdateTime",
    "managedFields",
    "message",
    "observedAt",
    "observedGeneration",
    "poolUid",
    "poolwright.dev/grant-epoch",
    "poolwright.dev/proven-at",
    "poolwright.dev/worker-pool-uid",
    "resourceVersion",
    "uid",
];

/// All that the operator writes, and what came of it. `broker` is the URL, which each run has its own of.
pub async fn look(stage: &Stage, broker: &str) -> Result<Value> {
    let every = ListParams::default();
    let deployments = stage.namespace.api::<Deployment>().list(&every).await?.items;
    let pods = stage.namespace.api::<Pod>().list(&every).await?.items;
    let pools = stage.namespace.api::<Pool>().list(&every).await?.items;
    let queues = stage.namespace.api::<TaskQueue>().list(&every).await?.items;
    let workers = stage.namespace.api::<WorkerPool>().list(&every).await?.items;
    let pods = pods.iter().map(|pod| {
        json!({
            "going": pod.metadata.deletion_timestamp.is_some(),
            "marked": is_parked(pod),
            "charge": pod.metadata.annotations.as_ref().and_then(|all| all.get("poolwright.dev/charge")),
        })
    });
    let mut all = json!({
        "deployments": values(&deployments)?, "pods": pods.collect::<Vec<_>>(),
        "pools": values(&pools)?, "queues": values(&queues)?, "workers": values(&workers)?,
    });
    let revisions = deployments
        .iter()
        .filter_map(|one| one.metadata.labels.as_ref()?.get(LABEL_REVISION));
    let log = stage.task_log();
    let mut own = vec![
        (broker.to_owned(), "BROKER"),
        (log.to_string_lossy().into_owned(), "LOG"),
        (stage.namespace.name.clone(), "NAMESPACE"),
    ];
    own.extend(revisions.map(|revision| (revision.clone(), "REVISION")));
    strip(&mut all, &own);
    Ok(all)
}

fn values<T: Serialize>(objects: &[T]) -> Result<Vec<Value>> {
    Ok(objects
        .iter()
        .map(serde_json::to_value)
        .collect::<std::result::Result<_, _>>()?)
}

/// Takes out what is volatile, and calls what is a run's own by one name.
fn strip(value: &mut Value, own: &[(String, &str)]) {
    match value {
        Value::Object(fields) => {
            fields.retain(|key, _| !VOLATILE.contains(&key.as_str()));
            fields.values_mut().for_each(|one| strip(one, own));
            // Kubernetes puts those of a Deployment in the order in which they came.
            if let Some(Value::Array(conditions)) = fields.get_mut("conditions") {
                conditions.sort_by_key(|one| one["type"].as_str().map(str::to_owned));
            }
        }
        Value::Array(all) => all.iter_mut().for_each(|one| strip(one, own)),
        Value::String(text) => {
            for (mine, name) in own {
                *text = text.replace(mine, name);
            }
        }
        _ => {}
    }
}

/// The places at which two states differ, with what is there.
pub fn differences(is: &Value, should: &Value) -> Vec<String> {
    let mut found = Vec::new();
    compare("", is, should, &mut found);
    found
}

fn compare(place: &str, is: &Value, should: &Value, found: &mut Vec<String>) {
    match (is, should) {
        (Value::Object(left), Value::Object(right)) => {
            let keys: std::collections::BTreeSet<&String> = left.keys().chain(right.keys()).collect();
            for key in keys {
                compare(&format!("{place}/{key}"), &is[key], &should[key], found);
            }
        }
        (Value::Array(left), Value::Array(right)) if left.len() == right.len() => {
            for (index, (one, other)) in left.iter().zip(right).enumerate() {
                compare(&format!("{place}/{index}"), one, other, found);
            }
        }
        _ if is == should => {}
        _ => found.push(format!("{place} is {is} in place of {should}")),
    }
}
