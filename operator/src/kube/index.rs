//! The objects of one kind as the API server last told them, grouped by the WorkerPool they belong to.
//!
//! A watch fills an index and says which group changed; readers get shared copies and never wait for the server. What is
//! in a namespace that this process does not work in, or not yet, is kept and shown to no reader.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::StreamExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;

use super::gaps::{Gap, refused};
use super::lenient::Unreadable;
use crate::shard::{Shard, among};

/// Namespace and group (a WorkerPool's or the object's own name).
pub type Group = (String, String);

/// The members of a group in name order. Most groups have one or two: a map of them would be mostly room.
type Members<V> = Vec<(String, Arc<V>)>;

#[derive(Debug)]
struct Objects<V> {
    groups: BTreeMap<Group, Members<V>>,
    /// The group of each object, by namespace and name, where that is not its own name: a label may be rewritten.
    places: BTreeMap<(String, String), String>,
    /// What objects name: namespace, what is named, and the object.
    named: BTreeSet<(String, String, String)>,
    /// What cannot be read as it is now, by namespace and name, and why. What is kept of such an object is older.
    unreadable: BTreeMap<(String, String), String>,
}

/// All known objects of one kind, each as the view `V` of it that is kept.
pub struct Index<K, V = K> {
    objects: Mutex<Objects<V>>,
    group: fn(&K) -> Option<String>,
    keep: Keep<K, V>,
    names: fn(&V) -> Vec<String>,
    uid: fn(&V) -> Option<String>,
    shard: Shard,
}

type Keep<K, V> = Box<dyn Fn(K) -> V + Send + Sync>;

/// A group that changed, with what was kept of the object before and what is kept of it now.
type Change<V> = (Group, Option<Arc<V>>, Option<Arc<V>>);

fn find<V>(members: &Members<V>, name: &str) -> Result<usize, usize> {
    members.binary_search_by(|member| member.0.as_str().cmp(name))
}

impl<V> Objects<V> {
    /// Takes an object out of the group that it is in, unless that is `but`.
    fn take(&mut self, namespace: &str, name: &str, but: Option<&str>) -> Option<Change<V>> {
        let place = (namespace.to_owned(), name.to_owned());
        let group = self.places.get(&place).map_or(name, String::as_str);
        if but == Some(group) {
            return None;
        }
        let group = (namespace.to_owned(), group.to_owned());
        let members = self.groups.get_mut(&group)?;
        let gone = members.remove(find(members, name).ok()?).1;
        if members.is_empty() {
            self.groups.remove(&group);
        }
        self.places.remove(&place);
        Some((group, Some(gone), None))
    }

    /// Notes what an object names in the place of what it named.
    fn name(&mut self, (namespace, object): (&str, &str), before: Vec<String>, after: Vec<String>) {
        if before == after {
            return;
        }
        let key = |name: String| (namespace.to_owned(), name, object.to_owned());
        for name in before {
            self.named.remove(&key(name));
        }
        self.named.extend(after.into_iter().map(key));
    }
}

impl<K: Resource, V> Index<K, V> {
    /// An empty index whose objects are grouped by `group`; objects without a group are ignored. `keep` drops what
    /// nobody reads: a fleet's objects are most of the operator's memory.
    pub fn new(group: fn(&K) -> Option<String>, keep: impl Fn(K) -> V + Send + Sync + 'static) -> Self {
        Self {
            objects: Mutex::new(Objects {
                groups: BTreeMap::new(),
                places: BTreeMap::new(),
                named: BTreeSet::new(),
                unreadable: BTreeMap::new(),
            }),
            group,
            keep: Box::new(keep),
            names: |_| Vec::new(),
            uid: |_| None,
            shard: Shard::whole(),
        }
    }

    /// One that shows only what is in the namespaces of a shard.
    #[must_use]
    pub fn within(self, shard: Shard) -> Self {
        Self { shard, ..self }
    }

    /// One that finds objects by what they name, too. For kinds whose group is the object's own name.
    #[must_use]
    pub fn naming(self, names: fn(&V) -> Vec<String>) -> Self {
        Self { names, ..self }
    }

    /// One that tells an object from its successor of the same name. For kinds of which some may not be readable.
    #[must_use]
    pub fn identified(self, uid: fn(&V) -> Option<String>) -> Self {
        Self { uid, ..self }
    }

    /// The objects of a namespace that name this, in name order.
    pub fn that_name(&self, namespace: &str, what: &str) -> Vec<Arc<V>> {
        let first = (namespace.to_owned(), what.to_owned(), String::new());
        let own: Vec<String> = {
            let objects = self.lock();
            let all = objects.named.range(first..);
            let own = all.take_while(|(of, named, _)| of == namespace && named == what);
            own.map(|(_, _, object)| object.clone()).collect()
        };
        own.iter().filter_map(|name| self.get(namespace, name)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Objects<V>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The objects of one group, in name order.
    pub fn group(&self, namespace: &str, group: &str) -> Vec<Arc<V>> {
        if !self.shard.holds(namespace) {
            return Vec::new();
        }
        let key = (namespace.to_owned(), group.to_owned());
        self.lock()
            .groups
            .get(&key)
            .map(|members| members.iter().map(|member| Arc::clone(&member.1)).collect())
            .unwrap_or_default()
    }

    /// The object of this name in the group of the same name.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<V>> {
        if !self.shard.holds(namespace) {
            return None;
        }
        let objects = self.lock();
        let members = objects.groups.get(&(namespace.to_owned(), name.to_owned()))?;
        let position = find(members, name).ok()?;
        Some(Arc::clone(&members[position].1))
    }

    /// Why the object of this name cannot be read as it is now. What is shown of it then, if anything is, is older.
    pub fn unreadable(&self, namespace: &str, name: &str) -> Option<String> {
        let place = (namespace.to_owned(), name.to_owned());
        let words = self.lock().unreadable.get(&place).cloned();
        words.filter(|_| self.shard.holds(namespace))
    }

    /// All that cannot be read in a namespace, or in all, and why.
    pub fn all_unreadable(&self, namespace: Option<&str>) -> Vec<(Group, String)> {
        let members = self.shard.members();
        let first = (namespace.unwrap_or_default().to_owned(), String::new());
        let objects = self.lock();
        let all = objects.unreadable.range(first..);
        let asked = all.take_while(|(place, _)| namespace.is_none_or(|namespace| place.0 == namespace));
        asked
            .filter(|(place, _)| among(&members, &place.0))
            .map(|(place, words)| (place.clone(), words.clone()))
            .collect()
    }

    /// All objects of a namespace, or of all.
    pub fn all(&self, namespace: Option<&str>) -> Vec<Arc<V>> {
        let members = self.shard.members();
        let asked = |key: &Group| namespace.is_none_or(|namespace| key.0 == namespace);
        self.those(|key| asked(key) && among(&members, &key.0))
    }

    /// All objects of a namespace that may not be shown yet.
    pub fn hidden(&self, namespace: &str) -> Vec<Arc<V>> {
        self.those(|key| key.0 == namespace)
    }

    fn those(&self, wanted: impl Fn(&Group) -> bool) -> Vec<Arc<V>> {
        let objects = self.lock();
        objects
            .groups
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

    /// Keeps an object; one whose label was rewritten leaves its former group.
    fn insert(&self, object: K) -> Vec<Change<V>> {
        let Some((group, name)) = self.key(&object) else {
            return self.remove(object.meta());
        };
        let after = Arc::new((self.keep)(object));
        let mut objects = self.lock();
        if !objects.unreadable.is_empty() {
            objects.unreadable.remove(&(group.0.clone(), name.clone()));
        }
        let left = objects.take(&group.0, &name, Some(&group.1));
        let named = (self.names)(&after);
        let members = objects.groups.entry(group.clone()).or_default();
        let before = match find(members, &name) {
            Ok(position) => Some(std::mem::replace(&mut members[position].1, Arc::clone(&after))),
            Err(position) => {
                members.reserve_exact(1);
                members.insert(position, (name.clone(), Arc::clone(&after)));
                None
            }
        };
        let old = before.as_deref().or_else(|| left.as_ref()?.1.as_deref());
        let named_before = old.map(self.names).unwrap_or_default();
        objects.name((&group.0, &name), named_before, named);
        if group.1 != name {
            objects.places.insert((group.0.clone(), name), group.1.clone());
        }
        left.into_iter().chain([(group, before, Some(after))]).collect()
    }

    /// Notes that an object cannot be read as it is now: which, and true if that is news. What is known of it stays; what is
    /// known of another, which had its name before, goes.
    pub fn pass(&self, unreadable: &Unreadable) -> (Group, bool) {
        let meta = &unreadable.metadata;
        let place = (
            meta.namespace.clone().unwrap_or_default(),
            meta.name.clone().unwrap_or_default(),
        );
        let words = unreadable.words();
        let objects = &mut *self.lock();
        let kept = objects.groups.get(&place).and_then(|members| {
            let position = find(members, &place.1).ok()?;
            (self.uid)(&members[position].1)
        });
        let is_another = kept.is_some_and(|kept| meta.uid.as_ref() != Some(&kept));
        if is_another {
            self.take(objects, &place.0, &place.1);
        }
        let before = objects.unreadable.insert(place.clone(), words.to_owned());
        (place, is_another || before.is_none_or(|before| before != words))
    }

    /// Takes an object out, and what it names with it.
    fn take(&self, objects: &mut Objects<V>, namespace: &str, name: &str) -> Option<Change<V>> {
        let gone = objects.take(namespace, name, None);
        let named = gone.as_ref().and_then(|(_, before, _)| before.as_deref());
        let named = named.map(self.names).unwrap_or_default();
        objects.name((namespace, name), named, Vec::new());
        gone
    }

    /// Keeps an object without a watch.
    #[cfg(test)]
    pub fn put(&self, object: K) {
        self.insert(object);
    }

    fn remove(&self, meta: &ObjectMeta) -> Vec<Change<V>> {
        let (namespace, name) = (meta.namespace.as_deref(), meta.name.as_deref());
        let (namespace, name) = (namespace.unwrap_or_default(), name.unwrap_or_default());
        let objects = &mut *self.lock();
        let gone = self.take(objects, namespace, name);
        // Of one that could never be read nothing else says that it is gone.
        let place = (namespace.to_owned(), name.to_owned());
        let unread = objects.unreadable.remove(&place).filter(|_| gone.is_none());
        let unread = unread.map(|_| (place, None, None));
        gone.into_iter().chain(unread).collect()
    }

    /// Every group of a namespace, whether it is shown or not.
    pub fn groups(&self, namespace: &str) -> Vec<Group> {
        let objects = self.lock();
        let first = (namespace.to_owned(), String::new());
        let all = objects.groups.range(first..);
        all.map(|(group, _)| group)
            .take_while(|group| group.0 == namespace)
            .cloned()
            .collect()
    }

    /// Forgets everything in a namespace.
    pub fn forget(&self, namespace: &str) {
        self.keep(Some(namespace), &BTreeSet::new());
    }

    /// Removes what a fresh list of `scope` did not name.
    fn keep(&self, scope: Option<&str>, listed: &BTreeSet<(Group, String)>) -> Vec<Group> {
        let mut gone = Vec::new();
        let objects = &mut *self.lock();
        objects.unreadable.retain(|place, _| {
            let stays = scope.is_some_and(|scope| place.0 != scope)
                || listed.contains(&(place.clone(), place.1.clone()));
            if !stays {
                gone.push(place.clone());
            }
            stays
        });
        objects.groups.retain(|group, members| {
            if scope.is_some_and(|scope| group.0 != scope) {
                return true;
            }
            let before = members.len();
            members.retain(|(name, kept)| {
                let stays = listed.contains(&(group.clone(), name.clone()));
                if !stays {
                    objects.places.remove(&(group.0.clone(), name.clone()));
                    for named in (self.names)(kept) {
                        objects.named.remove(&(group.0.clone(), named, name.clone()));
                    }
                }
                stays
            });
            if members.len() != before {
                gone.push(group.clone());
            }
            !members.is_empty()
        });
        gone
    }
}

/// Makes of what the server sends what is kept, or says which object it is that cannot be read.
pub type Read<W, K> = fn(W) -> Result<K, Box<Unreadable>>;

/// Follows a watch for ever, and reports each group that changed with the object before and after (both absent
/// when a list no longer names it, and when it cannot be read any more). `ready` is called once the first list is complete.
/// Of what cannot be `read` that stays which is known of this very object; such a kind is grouped by its own name. `gap` says
/// what keeps the server from answering.
pub async fn follow<W, K, V>(
    api: Api<W>,
    config: watcher::Config,
    (scope, gap): (Option<String>, Gap),
    (index, read): (Arc<Index<K, V>>, Read<W, K>),
    ready: impl Fn(),
    changed: impl Fn(&Group, Option<&V>, Option<&V>),
) where
    W: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    W::DynamicType: Default,
    K: Resource,
{
    let mut listed = BTreeSet::new();
    let mut events = watcher::watcher(api, config).default_backoff().boxed();
    let tell = |changes: Vec<Change<V>>| {
        for (group, before, after) in changes {
            changed(&group, before.as_deref(), after.as_deref());
        }
    };
    let pass = |unreadable: &Unreadable| {
        let (place, is_news) = index.pass(unreadable);
        if is_news {
            changed(&place, None, None);
        }
        place
    };
    while let Some(event) = events.next().await {
        if event.is_ok() {
            gap.close();
        }
        match event {
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitApply(object)) => match read(object) {
                Ok(object) => {
                    listed.extend(index.key(&object));
                    tell(index.insert(object));
                }
                Err(unreadable) => {
                    let place = pass(&unreadable);
                    let name = place.1.clone();
                    listed.insert((place, name));
                }
            },
            Ok(Event::InitDone) => {
                for group in index.keep(scope.as_deref(), &listed) {
                    changed(&group, None, None);
                }
                listed.clear();
                ready();
            }
            Ok(Event::Apply(object)) => match read(object) {
                Ok(object) => tell(index.insert(object)),
                Err(unreadable) => drop(pass(&unreadable)),
            },
            Ok(Event::Delete(object)) => tell(index.remove(object.meta())),
            Err(error) => {
                let words = words::<W>(&error);
                tracing::warn!(kind = std::any::type_name::<K>(), "watch: {words}");
                gap.heed(&error, &words);
            }
        }
    }
}

/// What went wrong with a watch. Where the server does not know the kind, its own words are only that a page was not
/// found.
fn words<K>(error: &watcher::Error) -> String
where
    K: Resource,
    K::DynamicType: Default,
{
    let of = K::DynamicType::default();
    if refused(error) != Some(404) {
        return error.to_string();
    }
    format!(
        "the cluster does not know {}.{}: apply the definitions (`kubectl apply -f crds/`, or `crds.install` of the \
         chart); nothing is done until then",
        K::plural(&of),
        K::group(&of)
    )
}

#[cfg(test)]
#[path = "index_tests.rs"]
mod tests;
