//! Who else scales what is ours: HPAs and KEDA's ScaledObjects that aim at a WorkerPool or its Deployments.
//!
//! Only finds and names them. Two autoscalers on one object undo each other's work, so a WorkerPool with a
//! conflict is held as it is until the other is gone.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use kube::api::{ApiResource, DynamicObject, ListParams};
use kube::{Api, Client, ResourceExt};
use poolwright_api::v1alpha1::WorkerPool;
use poolwright_core::objects::{Objects, owned};

use crate::kube::index::Index;
use crate::shard::Shard;

/// A scaler's target: its kind and name.
type Target = (String, String);

/// All foreign scalers that are known.
pub struct Conflicts {
    /// HPAs, by namespace.
    pub autoscalers: Arc<Index<HorizontalPodAutoscaler>>,
    scaled_objects: Mutex<BTreeMap<(String, Target), String>>,
}

impl Default for Conflicts {
    fn default() -> Self {
        Self::within(&Shard::whole())
    }
}

impl Conflicts {
    /// Those in the namespaces of a shard.
    #[must_use]
    pub fn within(shard: &Shard) -> Self {
        let autoscalers = Index::new(
            |autoscaler: &HorizontalPodAutoscaler| autoscaler.metadata.name.clone(),
            |one| one,
        );
        Self {
            autoscalers: Arc::new(autoscalers.within(shard.clone())),
            scaled_objects: Mutex::default(),
        }
    }

    /// Who else scales this WorkerPool, in words.
    pub fn of(&self, wp: &WorkerPool, objects: &Objects) -> Option<String> {
        let namespace = wp.namespace().unwrap_or_default();
        let mut targets = vec![("WorkerPool".to_owned(), wp.name_any())];
        targets
            .extend(owned(wp, objects).map(|deployment| ("Deployment".to_owned(), deployment.name.clone())));
        let scaled = self.scaled_objects.lock().unwrap_or_else(PoisonError::into_inner);
        for target in &targets {
            let (kind, name) = target;
            if let Some(who) = scaled.get(&(namespace.clone(), target.clone())) {
                return Some(words("ScaledObject", who, kind, name));
            }
        }
        drop(scaled);
        self.autoscalers
            .all(Some(&namespace))
            .iter()
            .find_map(|autoscaler| {
                let aim = &autoscaler.spec.as_ref()?.scale_target_ref;
                let hit = targets
                    .iter()
                    .find(|(kind, name)| *kind == aim.kind && *name == aim.name)?;
                Some(words(
                    "HorizontalPodAutoscaler",
                    &autoscaler.name_any(),
                    &hit.0,
                    &hit.1,
                ))
            })
    }

    fn found_in(&self, namespace: &str) -> Vec<((String, Target), String)> {
        let scaled = self.scaled_objects.lock().unwrap_or_else(PoisonError::into_inner);
        let own = scaled.iter().filter(|((of, _), _)| of == namespace);
        own.map(|(target, who)| (target.clone(), who.clone())).collect()
    }

    /// Lists ScaledObjects, where KEDA's definitions are installed. Returns the namespaces in which something
    /// changed.
    ///
    /// # Errors
    /// What the API server answers, but that it knows no ScaledObjects, or that a namespace of several may not be read:
    /// then those are found that were found there before.
    pub async fn list_scaled_objects(
        &self,
        client: &Client,
        namespaces: &[String],
    ) -> Result<Vec<String>, kube::Error> {
        let resource = ApiResource {
            group: "keda.sh".to_owned(),
            version: "v1alpha1".to_owned(),
            api_version: "keda.sh/v1alpha1".to_owned(),
            kind: "ScaledObject".to_owned(),
            plural: "scaledobjects".to_owned(),
        };
        let mut found = BTreeMap::new();
        let scopes: Vec<(Option<&String>, Api<DynamicObject>)> = if namespaces.is_empty() {
            vec![(None, Api::all_with(client.clone(), &resource))]
        } else {
            namespaces
                .iter()
                .map(|one| (Some(one), Api::namespaced_with(client.clone(), one, &resource)))
                .collect()
        };
        for (namespace, scope) in scopes {
            let list = match scope.list(&ListParams::default()).await {
                Err(kube::Error::Api(status)) if status.code == 404 => break,
                Err(kube::Error::Api(status)) if status.code == 403 && namespace.is_some() => {
                    found.extend(self.found_in(namespace.map_or("", String::as_str)));
                    continue;
                }
                other => other?,
            };
            for object in list {
                let text = |path: &str| {
                    object
                        .data
                        .pointer(path)
                        .and_then(|value| value.as_str())
                        .map(str::to_owned)
                };
                let Some(name) = text("/spec/scaleTargetRef/name") else {
                    continue;
                };
                let kind = text("/spec/scaleTargetRef/kind").unwrap_or_else(|| "Deployment".to_owned());
                found.insert(
                    (object.namespace().unwrap_or_default(), (kind, name)),
                    object.name_any(),
                );
            }
        }
        let mut known = self.scaled_objects.lock().unwrap_or_else(PoisonError::into_inner);
        let differs = |(key, who): &(&(String, Target), &String), other: &BTreeMap<_, String>| {
            other.get(*key) != Some(*who)
        };
        let mut changed: Vec<String> = known
            .iter()
            .filter(|entry| differs(entry, &found))
            .map(|(key, _)| key.0.clone())
            .collect();
        changed.extend(
            found
                .iter()
                .filter(|entry| differs(entry, &known))
                .map(|(key, _)| key.0.clone()),
        );
        *known = found;
        Ok(changed)
    }
}

fn words(scaler: &str, who: &str, kind: &str, name: &str) -> String {
    format!(
        "{scaler} {who:?} scales {kind} {name:?}, which Poolwright scales: delete it, or the WorkerPool; until then nothing is scaled"
    )
}
