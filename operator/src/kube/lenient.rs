//! Objects of ours as the API server has them, whether this program can read them or not.
//!
//! A definition cannot say all that a reader wants, and a newer one may allow what an older program does not know. One such
//! object must not keep the others from being read: a list that cannot be read as a whole would keep every namespace from
//! being worked in. What cannot be read is named in the log; a WorkerPool is shown as one that says so, and of the other
//! kinds what was known before stays, beside the word that there is something newer.

use std::borrow::Cow;
use std::fmt::Debug;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use poolwright_api::text::printable;
use poolwright_api::v1alpha1::{Scaling, Worker, WorkerPool, WorkerPoolSpec};
use poolwright_core::snapshot::WORDS_MAX;
use poolwright_core::text::bounded;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// Why a WorkerPool cannot be read, among its annotations; never written to the server.
pub const ANNOTATION_UNREADABLE: &str = "poolwright.dev/unreadable";

/// An object that may not be one.
#[derive(Clone, Debug)]
pub enum Lenient<K> {
    /// It is one.
    Read(Box<K>),
    /// It is none.
    Unreadable(Box<Unreadable>),
}

/// An object that cannot be read.
#[derive(Clone, Debug)]
pub struct Unreadable {
    /// Its metadata.
    pub metadata: ObjectMeta,
    class: Value,
    queues: Value,
    status: Option<Value>,
    words: String,
}

impl<'de, K: DeserializeOwned> Deserialize<'de> for Lenient<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut object = Value::deserialize(deserializer)?;
        match K::deserialize(&object) {
            Ok(read) => Ok(Self::Read(Box::new(read))),
            Err(error) => {
                let metadata =
                    ObjectMeta::deserialize(&object["metadata"]).map_err(serde::de::Error::custom)?;
                let mut part = |at| object.pointer_mut(at).map(Value::take);
                Ok(Self::Unreadable(Box::new(Unreadable {
                    metadata,
                    class: part("/spec/class").unwrap_or_default(),
                    queues: part("/spec/queues").unwrap_or_default(),
                    status: part("/status"),
                    // They repeat what somebody wrote.
                    words: bounded(&printable(&error.to_string()), WORDS_MAX),
                })))
            }
        }
    }
}

impl<K: Resource> Resource for Lenient<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(of: &Self::DynamicType) -> Cow<'_, str> {
        K::kind(of)
    }

    fn group(of: &Self::DynamicType) -> Cow<'_, str> {
        K::group(of)
    }

    fn version(of: &Self::DynamicType) -> Cow<'_, str> {
        K::version(of)
    }

    fn plural(of: &Self::DynamicType) -> Cow<'_, str> {
        K::plural(of)
    }

    fn meta(&self) -> &ObjectMeta {
        match self {
            Self::Read(read) => read.meta(),
            Self::Unreadable(unreadable) => &unreadable.metadata,
        }
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        match self {
            Self::Read(read) => read.meta_mut(),
            Self::Unreadable(unreadable) => &mut unreadable.metadata,
        }
    }
}

impl<K: Resource> Lenient<K>
where
    K::DynamicType: Default,
{
    /// It, or what is known of one that cannot be read.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn open(self) -> Result<K, Box<Unreadable>> {
        match self {
            Self::Read(mut read) => {
                if let Some(annotations) = &mut read.meta_mut().annotations {
                    annotations.remove(ANNOTATION_UNREADABLE);
                }
                Ok(*read)
            }
            Self::Unreadable(unreadable) => Err(unreadable),
        }
    }

    /// The same, for what is watched: one that cannot be read is named in the log.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read(self) -> Result<K, Box<Unreadable>> {
        self.open().inspect_err(|unreadable| {
            tracing::warn!(
                namespace = unreadable.metadata.namespace,
                name = unreadable.metadata.name,
                "a {} cannot be read: {}. Correct it, or run the operator that belongs to the definitions",
                K::kind(&K::DynamicType::default()),
                unreadable.words
            );
        })
    }
}

impl Unreadable {
    /// Why it cannot be read.
    #[must_use]
    pub fn words(&self) -> &str {
        &self.words
    }

    /// A WorkerPool that wants nothing and says why. Its class and its queues are those of the other, where they can be read:
    /// its workers run on beside those of others.
    #[must_use]
    pub fn into_worker_pool(self) -> WorkerPool {
        let spec = WorkerPoolSpec {
            class: serde_json::from_value(self.class).unwrap_or_default(),
            queues: serde_json::from_value(self.queues).unwrap_or_default(),
            celery: None,
            airflow: None,
            worker: Worker::default(),
            pod: None,
            scaling: Scaling::default(),
            replicas: None,
            drain: None,
        };
        let mut pool = WorkerPool::new("", spec);
        pool.metadata = self.metadata;
        let annotations = pool.metadata.annotations.get_or_insert_default();
        annotations.insert(ANNOTATION_UNREADABLE.to_owned(), self.words);
        pool.status = self.status.and_then(|status| serde_json::from_value(status).ok());
        pool
    }
}

#[cfg(test)]
mod tests {
    use poolwright_api::v1alpha1::TaskQueue;
    use serde_json::json;

    use super::*;

    fn worker_pool(port: u64) -> Value {
        json!({
            "apiVersion": "poolwright.dev/v1alpha1", "kind": "WorkerPool",
            "metadata": {"namespace": "shop", "name": "w", "uid": "u", "generation": 3},
            "spec": {"class": "General", "queues": [{"name": "q"}], "celery": {"app": "app"}, "worker": {
                "image": "i"}, "pod": {"sidecars": [
                {"name": "proxy", "image": "i", "livenessProbe": {"httpGet": {"port": port}}}]}},
            "status": {"desiredReplicas": 4},
        })
    }

    #[test]
    fn one_that_cannot_be_read_is_there_with_what_is_known_of_it() {
        let good: Lenient<WorkerPool> = serde_json::from_value(worker_pool(80)).unwrap();
        assert_eq!(good.read().unwrap().spec.queues.len(), 1);
        let bad: Lenient<WorkerPool> = serde_json::from_value(worker_pool(3_000_000_000)).unwrap();
        assert_eq!(bad.meta().name.as_deref(), Some("w"));
        let pool = bad.read().unwrap_err().into_worker_pool();
        let words = &pool.metadata.annotations.as_ref().unwrap()[ANNOTATION_UNREADABLE];
        assert!(words.contains("3000000000"), "{words}");
        assert_eq!(pool.metadata.generation, Some(3));
        assert_eq!(pool.status.unwrap().desired_replicas, Some(4));
        assert_eq!(pool.spec.queues.len(), 1, "its neighbours are told of it");
    }

    /// Whatever somebody writes, it is not told at any length, and nobody can say that of an object that can be read.
    #[test]
    fn its_words_are_bounded_and_are_the_operators() {
        let mut long = worker_pool(80);
        long["spec"]["class"] = json!("x".repeat(1 << 20));
        long["spec"]["queues"] = json!(7);
        let long: Lenient<WorkerPool> = serde_json::from_value(long).unwrap();
        let pool = long.read().unwrap_err().into_worker_pool();
        assert!(pool.spec.class.is_none() && pool.spec.queues.is_empty());
        assert!(pool.metadata.annotations.unwrap()[ANNOTATION_UNREADABLE].len() <= WORDS_MAX);
        let mut good = worker_pool(80);
        good["metadata"]["annotations"] = json!({ANNOTATION_UNREADABLE: "no"});
        let good: Lenient<WorkerPool> = serde_json::from_value(good).unwrap();
        assert!(good.read().unwrap().metadata.annotations.unwrap().is_empty());
    }

    #[test]
    fn what_is_no_object_at_all_is_an_error() {
        let none: Result<Lenient<TaskQueue>, _> = serde_json::from_value(json!({"metadata": "none"}));
        assert!(none.is_err());
    }
}
