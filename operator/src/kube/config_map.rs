//! One value of a `ConfigMap`, read by its name: never listed, never watched, and no byte of it is repeated.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client};
use poolwright_api::v1alpha1::ConfigMapKeyRef;
use poolwright_core::constants::LOAD_DEADLINE;
use poolwright_core::sample::FaultKind;
use poolwright_core::shedding::percent;
use tokio::time::timeout;

/// Why there is no number: the class, and words for people.
pub type Missing = (FaultKind, String);

/// The percentage that stands in a `ConfigMap`.
///
/// # Errors
/// There is none, and why.
pub async fn load(client: &Client, namespace: &str, reference: &ConfigMapKeyRef) -> Result<f64, Missing> {
    let (name, key) = (&reference.name, &reference.key);
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let found = timeout(LOAD_DEADLINE, api.get_opt(name)).await;
    let late = || {
        let words = format!("ConfigMap {name:?} could not be read from the API server");
        (FaultKind::Unreachable, words)
    };
    let map = found.map_err(|_| late())?.map_err(|error| match error {
        kube::Error::Api(status) if status.code == 403 => {
            let words = format!(
                "no permission to read ConfigMap {name:?}: the operator's role needs get on configmaps"
            );
            (FaultKind::Refused, words)
        }
        _ => late(),
    })?;
    let Some(map) = map else {
        let words = format!("ConfigMap {name:?} does not exist in namespace {namespace:?}");
        return Err((FaultKind::Implausible, words));
    };
    let Some(text) = map.data.unwrap_or_default().remove(key) else {
        let words = format!("ConfigMap {name:?} has no key {key:?}");
        return Err((FaultKind::Implausible, words));
    };
    percent(&text).ok_or_else(|| {
        let words = format!("key {key:?} of ConfigMap {name:?} is no percentage from 0 to 1,000,000");
        (FaultKind::Implausible, words)
    })
}
