//! What is kept of the objects that are watched, and where it belongs.
//!
//! A fleet's objects are most of the operator's memory: what nobody reads is dropped, and what many of them have alike is
//! kept once.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::FieldsV1;
use kube::Resource;
use poolwright_api::LABEL_WORKER_POOL;
use poolwright_api::v1alpha1::WorkerPool;
use poolwright_core::charge::Charge;
use poolwright_core::objects::{DeploymentView, PodView, SetView};
use poolwright_core::observe::overrides;

pub(super) fn own_name<K: Resource>(object: &K) -> Option<String> {
    object.meta().name.clone()
}

pub(super) fn own_uid<K: Resource>(object: &K) -> Option<String> {
    object.meta().uid.clone()
}

pub(super) fn owner_name<K: Resource>(object: &K) -> Option<String> {
    object.meta().labels.as_ref()?.get(LABEL_WORKER_POOL).cloned()
}

/// By the selector, which cannot be changed, where labels can.
pub(super) fn selected(deployment: &Deployment) -> Option<String> {
    deployment
        .spec
        .as_ref()?
        .selector
        .match_labels
        .as_ref()?
        .get(LABEL_WORKER_POOL)
        .cloned()
}

/// Of the record of writers only who writes what overrides the demand is read; the rest is most of an object.
pub(super) fn only_holders(mut wp: WorkerPool) -> WorkerPool {
    let read: Vec<&str> = overrides(&wp).collect();
    let entries = wp.metadata.managed_fields.get_or_insert_default();
    entries.retain_mut(|entry| {
        let owned = entry.fields_v1.take().unwrap_or_default();
        let kept: Vec<&str> = read
            .iter()
            .copied()
            .filter(|field| owned.0.pointer(field).is_some())
            .collect();
        entry.fields_v1 = Some(FieldsV1(only(&kept)));
        !kept.is_empty()
    });
    entries.shrink_to_fit();
    wp
}

/// A record that owns these fields and no other.
fn only(fields: &[&str]) -> serde_json::Value {
    let mut record = serde_json::json!({});
    for field in fields {
        let mut place = &mut record;
        for key in field.split('/').skip(1) {
            place = &mut place[key.replace("~1", "/")];
        }
        *place = serde_json::json!({});
    }
    record
}

/// Equal values that many objects have, each kept once.
struct Shared<T: ?Sized>(Mutex<BTreeSet<Arc<T>>>);

impl<T: ?Sized> Default for Shared<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Ord + ?Sized> Shared<T> {
    fn share(&self, value: &Arc<T>) -> Arc<T> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.get(value) {
            return Arc::clone(known);
        }
        // What only this set still holds is of no object any more.
        known.retain(|known| Arc::strong_count(known) > 1);
        known.insert(Arc::clone(value));
        Arc::clone(value)
    }
}

/// What is kept of Deployments, `ReplicaSet`s and pods. Those of one revision have one template and one charge.
#[derive(Clone, Default)]
pub(super) struct Keep {
    templates: Arc<Shared<str>>,
    charges: Arc<Shared<Charge>>,
}

impl Keep {
    pub(super) fn deployment(&self, deployment: Deployment) -> DeploymentView {
        let mut view = DeploymentView::from(deployment);
        view.template = self.templates.share(&view.template);
        view.charge = self.charges.share(&view.charge);
        view
    }

    pub(super) fn set(&self, set: ReplicaSet) -> SetView {
        let mut view = SetView::from(set);
        view.template = self.templates.share(&view.template);
        view.charge = self.charges.share(&view.charge);
        view
    }

    pub(super) fn pod(&self, pod: Pod) -> PodView {
        let mut view = PodView::from(pod);
        view.charge = self.charges.share(&view.charge);
        view
    }
}

pub(super) fn without_writers<K: Resource>(mut object: K) -> K {
    object.meta_mut().managed_fields = None;
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_the_writers_those_stay_who_override_the_demand() {
        let wp = |annotations: &serde_json::Value| -> WorkerPool {
            let fields = serde_json::json!({
                "f:metadata": {"f:annotations": {"f:poolwright.dev/paused": {}, "f:other": {}}},
                "f:spec": {"f:replicas": {}, "f:queues": {}},
            });
            let entry =
                |fields| serde_json::json!({"manager": "m", "operation": "Update", "fieldsV1": fields});
            let other = entry(serde_json::json!({"f:spec": {"f:worker": {}}}));
            serde_json::from_value(serde_json::json!({
                "metadata": {"name": "w", "annotations": annotations, "managedFields": [entry(fields), other]},
                "spec": {"queues": [{"name": "q"}], "worker": {"image": "i"}, "celery": {"app": "a"}, "replicas": 2},
            }))
            .expect("a WorkerPool")
        };
        let kept = |annotations| -> Vec<serde_json::Value> {
            let entries = only_holders(wp(&annotations)).metadata.managed_fields;
            let entries = entries.into_iter().flatten();
            entries
                .filter_map(|entry| entry.fields_v1)
                .map(|fields| fields.0)
                .collect()
        };
        let replicas = serde_json::json!({"f:spec": {"f:replicas": {}}});
        assert_eq!(kept(serde_json::json!({})), [replicas]);
        let both = serde_json::json!({
            "f:spec": {"f:replicas": {}},
            "f:metadata": {"f:annotations": {"f:poolwright.dev/paused": {}}},
        });
        assert_eq!(kept(serde_json::json!({"poolwright.dev/paused": "true"})), [both]);
    }

    #[test]
    fn equal_templates_are_kept_once_and_those_of_no_object_are_dropped() {
        let templates = Shared::<str>::default();
        let first = templates.share(&Arc::from("a"));
        assert!(Arc::ptr_eq(&first, &templates.share(&Arc::from("a"))));
        drop(first);
        let _other = templates.share(&Arc::from("b"));
        assert_eq!(templates.0.lock().expect("no reader panics").len(), 1);
    }
}
