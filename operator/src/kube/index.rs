//! The objects of one kind as the API server last told them, grouped by the WorkerPool they belong to.
//!
//! A watch fills an index and says which group changed; readers get shared copies and never wait for the server.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::StreamExt;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;

/// Namespace and group (a WorkerPool's or the object's own name).
pub type Group = (String, String);

type Objects<K> = BTreeMap<Group, BTreeMap<String, Arc<K>>>;

/// All known objects of one kind.
pub struct Index<K> {
    objects: Mutex<Objects<K>>,
    group: fn(&K) -> Option<String>,
    trim: fn(&mut K),
}

impl<K: Resource> Index<K> {
    /// An empty index whose objects are grouped by `group`; objects without a group are ignored. `trim` drops what
    /// nobody reads before an object is kept: a fleet's pods are most of the operator's memory.
    pub fn new(group: fn(&K) -> Option<String>, trim: fn(&mut K)) -> Self {
        Self {
            objects: Mutex::default(),
            group,
            trim,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Objects<K>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The objects of one group, in name order.
    pub fn group(&self, namespace: &str, group: &str) -> Vec<Arc<K>> {
        let key = (namespace.to_owned(), group.to_owned());
        self.lock()
            .get(&key)
            .map(|objects| objects.values().cloned().collect())
            .unwrap_or_default()
    }

    /// The object of this name in the group of the same name.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.lock()
            .get(&(namespace.to_owned(), name.to_owned()))?
            .get(name)
            .cloned()
    }

    /// All objects of a namespace, or of all.
    pub fn all(&self, namespace: Option<&str>) -> Vec<Arc<K>> {
        let objects = self.lock();
        let wanted = |key: &Group| namespace.is_none_or(|namespace| key.0 == namespace);
        objects
            .iter()
            .filter(|(key, _)| wanted(key))
            .flat_map(|(_, group)| group.values().cloned())
            .collect()
    }

    fn key(&self, object: &K) -> Option<(Group, String)> {
        let meta = object.meta();
        let group = (self.group)(object)?;
        Some((
            (meta.namespace.clone().unwrap_or_default(), group),
            meta.name.clone().unwrap_or_default(),
        ))
    }

    /// Stores an object and returns what stood there before.
    fn insert(&self, object: K) -> Option<(Group, Option<Arc<K>>)> {
        let (group, name) = self.key(&object)?;
        let before = self
            .lock()
            .entry(group.clone())
            .or_default()
            .insert(name, Arc::new(object));
        Some((group, before))
    }

    fn remove(&self, object: &K) -> Option<Group> {
        let (group, name) = self.key(object)?;
        let mut objects = self.lock();
        if let Some(members) = objects.get_mut(&group) {
            members.remove(&name);
            if members.is_empty() {
                objects.remove(&group);
            }
        }
        Some(group)
    }

    /// Removes what a fresh list of `scope` did not name.
    fn keep(&self, scope: Option<&str>, listed: &BTreeSet<(Group, String)>) -> Vec<Group> {
        let mut gone = Vec::new();
        self.lock().retain(|group, members| {
            if scope.is_some_and(|scope| group.0 != scope) {
                return true;
            }
            let before = members.len();
            members.retain(|name, _| listed.contains(&(group.clone(), name.clone())));
            if members.len() != before {
                gone.push(group.clone());
            }
            !members.is_empty()
        });
        gone
    }
}

/// Follows a watch for ever, and reports each group that changed with the object before and after (both absent
/// when a list no longer names it). `ready` is called once the first list is complete.
pub async fn follow<K>(
    api: Api<K>,
    config: watcher::Config,
    scope: Option<String>,
    index: Arc<Index<K>>,
    ready: impl Fn(),
    changed: impl Fn(&Group, Option<&K>, Option<&K>),
) where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    K::DynamicType: Default,
{
    let mut listed = BTreeSet::new();
    let mut events = watcher::watcher(api, config).default_backoff().boxed();
    let store = |mut object: K| {
        (index.trim)(&mut object);
        let after = object.clone();
        if let Some((group, before)) = index.insert(object) {
            changed(&group, before.as_deref(), Some(&after));
        }
    };
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitApply(object)) => {
                listed.extend(index.key(&object));
                store(object);
            }
            Ok(Event::InitDone) => {
                for group in index.keep(scope.as_deref(), &listed) {
                    changed(&group, None, None);
                }
                listed.clear();
                ready();
            }
            Ok(Event::Apply(object)) => store(object),
            Ok(Event::Delete(object)) => {
                if let Some(group) = index.remove(&object) {
                    changed(&group, Some(&object), None);
                }
            }
            Err(error) => tracing::warn!(kind = std::any::type_name::<K>(), "watch: {error}"),
        }
    }
}
