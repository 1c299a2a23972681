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

/// The members of a group in name order. Most groups have one or two: a map of them would be mostly room.
type Members<V> = Vec<(String, Arc<V>)>;
type Objects<V> = BTreeMap<Group, Members<V>>;

/// All known objects of one kind, each as the view `V` of it that is kept.
pub struct Index<K, V = K> {
    objects: Mutex<Objects<V>>,
    group: fn(&K) -> Option<String>,
    keep: Keep<K, V>,
}

type Keep<K, V> = Box<dyn Fn(K) -> V + Send + Sync>;

/// A group that changed, with what was kept of the object before and what is kept of it now.
type Change<V> = (Group, Option<Arc<V>>, Option<Arc<V>>);

fn find<V>(members: &Members<V>, name: &str) -> Result<usize, usize> {
    members.binary_search_by(|member| member.0.as_str().cmp(name))
}

impl<K: Resource, V> Index<K, V> {
    /// An empty index whose objects are grouped by `group`; objects without a group are ignored. `keep` drops what
    /// nobody reads: a fleet's objects are most of the operator's memory.
    pub fn new(group: fn(&K) -> Option<String>, keep: impl Fn(K) -> V + Send + Sync + 'static) -> Self {
        Self {
            objects: Mutex::default(),
            group,
            keep: Box::new(keep),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Objects<V>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The objects of one group, in name order.
    pub fn group(&self, namespace: &str, group: &str) -> Vec<Arc<V>> {
        let key = (namespace.to_owned(), group.to_owned());
        self.lock()
            .get(&key)
            .map(|members| members.iter().map(|member| Arc::clone(&member.1)).collect())
            .unwrap_or_default()
    }

    /// The object of this name in the group of the same name.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<V>> {
        let objects = self.lock();
        let members = objects.get(&(namespace.to_owned(), name.to_owned()))?;
        let position = find(members, name).ok()?;
        Some(Arc::clone(&members[position].1))
    }

    /// All objects of a namespace, or of all.
    pub fn all(&self, namespace: Option<&str>) -> Vec<Arc<V>> {
        let objects = self.lock();
        let wanted = |key: &Group| namespace.is_none_or(|namespace| key.0 == namespace);
        objects
            .iter()
            .filter(|(key, _)| wanted(key))
            .flat_map(|(_, members)| members.iter().map(|member| Arc::clone(&member.1)))
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

    fn insert(&self, object: K) -> Option<Change<V>> {
        let (group, name) = self.key(&object)?;
        let after = Arc::new((self.keep)(object));
        let mut objects = self.lock();
        let members = objects.entry(group.clone()).or_default();
        let before = match find(members, &name) {
            Ok(position) => Some(std::mem::replace(&mut members[position].1, Arc::clone(&after))),
            Err(position) => {
                members.reserve_exact(1);
                members.insert(position, (name, Arc::clone(&after)));
                None
            }
        };
        Some((group, before, Some(after)))
    }

    fn remove(&self, object: &K) -> Option<Change<V>> {
        let (group, name) = self.key(object)?;
        let mut objects = self.lock();
        let members = objects.get_mut(&group)?;
        let before = find(members, &name)
            .ok()
            .map(|position| members.remove(position).1);
        if members.is_empty() {
            objects.remove(&group);
        }
        Some((group, before, None))
    }

    /// Removes what a fresh list of `scope` did not name.
    fn keep(&self, scope: Option<&str>, listed: &BTreeSet<(Group, String)>) -> Vec<Group> {
        let mut gone = Vec::new();
        self.lock().retain(|group, members| {
            if scope.is_some_and(|scope| group.0 != scope) {
                return true;
            }
            let before = members.len();
            members.retain(|(name, _)| listed.contains(&(group.clone(), name.clone())));
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
pub async fn follow<K, V>(
    api: Api<K>,
    config: watcher::Config,
    scope: Option<String>,
    index: Arc<Index<K, V>>,
    ready: impl Fn(),
    changed: impl Fn(&Group, Option<&V>, Option<&V>),
) where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    K::DynamicType: Default,
{
    let mut listed = BTreeSet::new();
    let mut events = watcher::watcher(api, config).default_backoff().boxed();
    let tell = |change: Option<Change<V>>| {
        if let Some((group, before, after)) = change {
            changed(&group, before.as_deref(), after.as_deref());
        }
    };
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitApply(object)) => {
                listed.extend(index.key(&object));
                tell(index.insert(object));
            }
            Ok(Event::InitDone) => {
                for group in index.keep(scope.as_deref(), &listed) {
                    changed(&group, None, None);
                }
                listed.clear();
                ready();
            }
            Ok(Event::Apply(object)) => tell(index.insert(object)),
            Ok(Event::Delete(object)) => tell(index.remove(&object)),
            Err(error) => tracing::warn!(kind = std::any::type_name::<K>(), "watch: {error}"),
        }
    }
}
