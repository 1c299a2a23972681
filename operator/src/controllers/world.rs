//! What the watches know, put together by WorkerPool.
//!
//! A change of any object marks its WorkerPool; the cycle rebuilds the marked ones and no other, so that ten
//! thousand quiet pools cost nothing. Relies on the indexes; guarantees that a [`PoolState`] is of one moment.

mod marks;
#[cfg(test)]
#[path = "world_tests.rs"]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use kube::{Resource, ResourceExt};
use poolwright_api::v1alpha1::{Pool, TaskQueue, WorkerPool};
use poolwright_api::{DEFAULT_POOL, Reason};
use poolwright_core::advice::{Advice, Neighbour, advise};
use poolwright_core::charge::taken;
use poolwright_core::objects::{DeploymentView, Objects, PodView, SetView};
use poolwright_core::observe::{Runs, pool_input};
use poolwright_core::revision::revision;
use poolwright_core::shedding::LoadKey;
use poolwright_core::snapshot::{Namespace, PoolInput, Trouble};
use poolwright_core::time::Moment;
use poolwright_core::validate::{Invalid, ValidPool, consumes_alone, validate};
use poolwright_core::weight::Weights;

use super::budgets::{self, Taken};
use super::conflicts::Conflicts;
use super::kept::{Keep, only_holders, own_name, own_uid, owner_name, selected, without_writers};
use super::unmade::Unmade;
use crate::kube::index::{Group, Index};
use crate::kube::lenient::ANNOTATION_UNREADABLE;
use crate::shard::Shard;

/// A WorkerPool's spec, read once.
#[derive(Debug)]
pub struct Spec {
    /// With every default filled in.
    pub pool: ValidPool,
    /// Its revision's name.
    pub revision: String,
    /// Known mistakes in it.
    pub advice: Vec<Advice>,
}

/// One WorkerPool at one moment.
#[derive(Debug)]
pub struct PoolState {
    /// The object.
    pub wp: Arc<WorkerPool>,
    /// Its spec, or why it cannot be used.
    pub spec: Result<Arc<Spec>, Invalid>,
    /// Its Deployments, `ReplicaSet`s and pods.
    pub objects: Objects,
    /// What a decision sees; absent with an invalid spec.
    pub input: Option<Arc<PoolInput>>,
}

/// Pods of a WorkerPool that is gone or whose spec cannot be used any more, and what it was.
struct Leftover {
    wp: Arc<WorkerPool>,
    spec: Arc<Spec>,
    input: Arc<PoolInput>,
}

#[derive(Default)]
struct Built {
    states: BTreeMap<Group, Arc<PoolState>>,
    leftovers: BTreeMap<Group, Leftover>,
    runs: BTreeMap<Group, Runs>,
    taken: Taken,
    /// What TaskQueues weigh, by namespace.
    weights: BTreeMap<String, Arc<Weights>>,
    namespaces: BTreeMap<String, Arc<Namespace>>,
}

impl Built {
    /// The WorkerPool as it last could be used.
    fn usable(&self, group: &Group) -> Option<(Arc<WorkerPool>, Arc<Spec>)> {
        let state = self.states.get(group);
        let known = state.and_then(|state| Some((Arc::clone(&state.wp), state.spec.clone().ok()?)));
        let left = || {
            self.leftovers
                .get(group)
                .map(|left| (Arc::clone(&left.wp), Arc::clone(&left.spec)))
        };
        known.or_else(left)
    }
}

/// All that is known of the cluster.
pub struct World {
    /// WorkerPools.
    pub pools: Arc<Index<WorkerPool>>,
    /// TaskQueues.
    pub queues: Arc<Index<TaskQueue>>,
    /// Pools.
    pub budgets: Arc<Index<Pool>>,
    /// Our Deployments.
    pub deployments: Arc<Index<Deployment, DeploymentView>>,
    /// Their `ReplicaSet`s.
    pub sets: Arc<Index<ReplicaSet, SetView>>,
    /// Their pods.
    pub pods: Arc<Index<Pod, PodView>>,
    /// Who else scales what is ours.
    pub conflicts: Conflicts,
    /// Why namespaces have no `default-pool`.
    pub unmade: Unmade,
    /// Which namespaces are shown.
    shard: Shard,
    /// Marked WorkerPools; true if the spec must be read again.
    dirty: Mutex<BTreeMap<Group, bool>>,
    /// Namespaces whose Pools, or what is taken of them, have changed; true if a TaskQueue has.
    stale: Mutex<BTreeMap<String, bool>>,
    /// Names of pods that take no slots any more.
    lost: Mutex<BTreeMap<Group, Vec<String>>>,
    /// True once somebody has rebuilt it.
    is_read: AtomicBool,
    built: Mutex<Built>,
}

impl Default for World {
    fn default() -> Self {
        Self::within(&Shard::whole())
    }
}

/// An index of one kind in the namespaces of a shard.
fn index<K: Resource, V>(
    shard: &Shard,
    group: fn(&K) -> Option<String>,
    keep: impl Fn(K) -> V + Send + Sync + 'static,
) -> Arc<Index<K, V>> {
    Arc::new(Index::new(group, keep).within(shard.clone()))
}

/// The same of a kind that is kept whole, and of which some may not be readable.
fn whole<K: Resource + 'static>(shard: &Shard) -> Arc<Index<K>> {
    let index = Index::new(own_name::<K>, without_writers::<K>).identified(own_uid);
    Arc::new(index.within(shard.clone()))
}

/// By these WorkerPools are found, too: to look through all of them for each of them was most of a start with ten thousand.
fn queues_of(wp: &WorkerPool) -> Vec<String> {
    let queues = wp.spec.queues.iter();
    queues.map(|reference| reference.name.clone()).collect()
}

impl World {
    /// An empty world of the namespaces of a shard.
    #[must_use]
    pub fn within(shard: &Shard) -> Self {
        let keep = Keep::default();
        let (deployment, set, pod) = (keep.clone(), keep.clone(), keep);
        let pools = Index::new(own_name, only_holders);
        Self {
            pools: Arc::new(pools.naming(queues_of).within(shard.clone())),
            queues: whole(shard),
            budgets: whole(shard),
            deployments: index(shard, selected, move |object| deployment.deployment(object)),
            sets: index(shard, owner_name, move |object| set.set(object)),
            pods: index(shard, owner_name, move |object| pod.pod(object)),
            conflicts: Conflicts::within(shard),
            unmade: Unmade::default(),
            shard: shard.clone(),
            dirty: Mutex::default(),
            stale: Mutex::default(),
            lost: Mutex::default(),
            is_read: AtomicBool::new(false),
            built: Mutex::default(),
        }
    }
}

fn forget_gone(runs: &mut Runs, objects: &Objects) {
    let uids: BTreeSet<&str> = objects.pods.iter().map(|pod| pod.uid.as_str()).collect();
    runs.retain(|uid, _| uids.contains(uid.as_str()));
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl World {
    /// Rebuilds what was marked and returns it; a WorkerPool that no longer exists is dropped.
    pub fn rebuild(&self, now: Moment) -> BTreeSet<Group> {
        let mut built = lock(&self.built);
        self.is_read.store(true, Ordering::Relaxed);
        let dirty = std::mem::take(&mut *lock(&self.dirty));
        for (group, spec) in &dirty {
            let last = built.usable(group);
            let known = built.states.remove(group).filter(|_| !spec);
            let mut runs = built.runs.remove(group).unwrap_or_default();
            if let Some(wp) = self.pools.get(&group.0, &group.1) {
                let known = known.and_then(|state| state.spec.clone().ok());
                let spec = known.map_or_else(|| self.read_spec(&wp), Ok);
                let state = self.state(wp, spec, group, &mut runs, now);
                built.states.insert(group.clone(), Arc::new(state));
            }
            let usable = built.states.get(group).is_some_and(|state| state.input.is_some());
            let left = last
                .filter(|_| !usable)
                .and_then(|last| self.leftover(last, group, &mut runs, now));
            match left {
                Some(left) => built.leftovers.insert(group.clone(), left),
                None => built.leftovers.remove(group),
            };
            if built.states.contains_key(group) || built.leftovers.contains_key(group) {
                built.runs.insert(group.clone(), runs);
            }
            let sums = taken(&self.objects(group), |pod| self.is_lost(&group.0, &pod.name));
            if sums.is_empty() {
                built.taken.remove(group);
            } else {
                built.taken.insert(group.clone(), sums);
            }
        }
        // Taken out before: a watch that marks something meanwhile is not to wait for all of them.
        let stale = std::mem::take(&mut *lock(&self.stale));
        for (namespace, queues) in stale {
            if queues {
                match budgets::weigh(&self.queues, &namespace) {
                    Some(weights) => built.weights.insert(namespace.clone(), Arc::new(weights)),
                    None => built.weights.remove(&namespace),
                };
            }
            let weights = built.weights.get(&namespace).cloned().unwrap_or_default();
            match budgets::read(&self.budgets, weights, &built.taken, &namespace) {
                Some(read) => built.namespaces.insert(namespace, Arc::new(read)),
                None => built.namespaces.remove(&namespace),
            };
        }
        dirty.into_keys().collect()
    }

    /// Why a namespace has no `default-pool`, where it could not be made for a while.
    pub fn no_default(&self, namespace: &str, now: Moment) -> Option<Trouble> {
        let is_there = self.budgets.get(namespace, DEFAULT_POOL).is_some()
            || self.budgets.unreadable(namespace, DEFAULT_POOL).is_some();
        self.unmade.lasting(namespace, now).filter(|_| !is_there)
    }

    /// True for a pod that was lost with its node.
    pub fn is_lost(&self, namespace: &str, pod: &str) -> bool {
        let lost = lock(&self.lost);
        let of =
            |(group, pods): (&Group, &Vec<String>)| group.0 == namespace && pods.iter().any(|one| one == pod);
        lost.iter().any(of)
    }

    /// Takes in which pods are lost, by WorkerPool; what they took is counted anew.
    pub fn set_lost(&self, pods: &BTreeMap<Group, Vec<String>>) {
        let old = std::mem::replace(&mut *lock(&self.lost), pods.clone());
        if old != *pods {
            for group in pods.keys().chain(old.keys()) {
                self.mark(group, false);
            }
        }
    }

    /// Slots that a namespace's pods take of a Pool of this name; `None` while some are not counted, as after a start.
    pub fn taken(&self, namespace: &str, pool: &str) -> Option<u64> {
        let built = lock(&self.built);
        if lock(&self.dirty).keys().any(|group| group.0 == namespace) {
            return None;
        }
        let all = budgets::of(&built.taken, namespace).filter_map(|(_, slots)| slots.get(pool));
        Some(all.fold(0, |sum: u64, one| sum.saturating_add(*one)))
    }

    /// What the TaskQueues of every namespace weigh, as last rebuilt.
    pub fn weights(&self) -> BTreeMap<String, Arc<Weights>> {
        lock(&self.built).weights.clone()
    }

    /// The Pools of every namespace that has one, as last rebuilt.
    pub fn namespaces(&self) -> BTreeMap<String, Arc<Namespace>> {
        lock(&self.built).namespaces.clone()
    }

    /// One of them.
    pub fn namespace(&self, name: &str) -> Option<Arc<Namespace>> {
        lock(&self.built).namespaces.get(name).cloned()
    }

    /// The pods of a WorkerPool without a usable spec, as of one that is being deleted: nothing is decided for it, and
    /// what its workers hold and may take is no other's.
    fn leftover(
        &self,
        (wp, spec): (Arc<WorkerPool>, Arc<Spec>),
        group: &Group,
        runs: &mut Runs,
        now: Moment,
    ) -> Option<Leftover> {
        let objects = self.objects(group);
        forget_gone(runs, &objects);
        let mut input = pool_input(&wp, &spec.pool, &spec.revision, &objects, None, runs, now);
        (input.terminating, input.hold) = (true, None);
        let input = Arc::new(input);
        (!input.pods.is_empty()).then_some(Leftover { wp, spec, input })
    }

    /// What a decision sees of every WorkerPool, of those without a usable spec that have pods too.
    pub fn inputs(&self) -> Vec<Arc<PoolInput>> {
        self.inputs_that(|_| true)
    }

    /// Those of one namespace.
    pub fn inputs_of(&self, namespace: &str) -> Vec<Arc<PoolInput>> {
        self.inputs_that(|input| input.key.namespace == namespace)
    }

    fn inputs_that(&self, are: impl Fn(&PoolInput) -> bool) -> Vec<Arc<PoolInput>> {
        let built = lock(&self.built);
        let usable = built.states.values().filter_map(|state| state.input.as_ref());
        let all = usable.chain(built.leftovers.values().map(|left| &left.input));
        all.filter(|input| are(input)).cloned().collect()
    }

    /// What the watches show of one WorkerPool.
    pub fn objects(&self, group: &Group) -> Objects {
        Objects {
            deployments: self.deployments.group(&group.0, &group.1),
            sets: self.sets.group(&group.0, &group.1),
            pods: self.pods.group(&group.0, &group.1),
        }
    }

    /// Loads that a WorkerPool or a Pool heeds.
    pub fn loads(&self) -> BTreeSet<LoadKey> {
        let pools = self.states();
        let inputs = pools.iter().filter_map(|state| state.input.as_ref());
        let heeded = inputs.filter_map(|input| input.dynamic.as_ref());
        let mut loads: BTreeSet<LoadKey> = heeded.map(|dynamic| dynamic.load.clone()).collect();
        let namespaces = self.namespaces();
        let budgets = namespaces.values().flat_map(|namespace| namespace.pools.values());
        let shedding = budgets.filter_map(|budget| budget.shedding.as_ref());
        loads.extend(shedding.map(|shedding| shedding.load.clone()));
        loads
    }

    /// All WorkerPools as last rebuilt.
    pub fn states(&self) -> Vec<Arc<PoolState>> {
        lock(&self.built).states.values().cloned().collect()
    }

    fn read_spec(&self, wp: &Arc<WorkerPool>) -> Result<Arc<Spec>, Invalid> {
        if let Some(words) = wp.annotations().get(ANNOTATION_UNREADABLE) {
            return Err(Invalid {
                field: "spec".to_owned(),
                message: format!("cannot be read: {words}; correct it"),
                reason: Reason::InvalidSpec,
            });
        }
        let namespace = wp.namespace().unwrap_or_default();
        let named = wp
            .spec
            .queues
            .iter()
            .filter_map(|reference| self.queues.get(&namespace, &reference.name));
        let queues: BTreeMap<String, TaskQueue> =
            named.map(|queue| (queue.name_any(), (*queue).clone())).collect();
        let pool = validate(wp, &queues).map_err(|invalid| self.unless_unread(invalid, wp, &queues))?;
        let sharing = queues
            .keys()
            .flat_map(|queue| self.pools.that_name(&namespace, queue));
        let others: BTreeMap<String, Arc<WorkerPool>> = sharing
            .filter(|other| other.metadata.name != wp.metadata.name)
            .map(|other| (other.name_any(), other))
            .collect();
        let others: Vec<Neighbour> = others
            .into_iter()
            .map(|(name, other)| Neighbour {
                name,
                class: other.spec.class,
                queues: other.spec.queues.iter().map(|queue| queue.name.clone()).collect(),
            })
            .collect();
        consumes_alone(&pool, &queues, &others)?;
        Ok(Arc::new(Spec {
            revision: revision(&pool, wp),
            advice: advise(&pool, wp, &queues, &others),
            pool,
        }))
    }

    /// `invalid`, or other words where the TaskQueue that is not `known` is there and cannot be read: nobody mends that by
    /// creating it.
    fn unless_unread(
        &self,
        invalid: Invalid,
        wp: &WorkerPool,
        known: &BTreeMap<String, TaskQueue>,
    ) -> Invalid {
        let namespace = wp.namespace().unwrap_or_default();
        let mut named = wp.spec.queues.iter().map(|queue| &queue.name);
        let missing = named.find(|name| !known.contains_key(*name));
        let missing = missing.filter(|_| invalid.reason == Reason::QueueUnknown);
        let words = missing.and_then(|name| self.queues.unreadable(&namespace, name));
        let Some((name, words)) = missing.zip(words) else {
            return invalid;
        };
        Invalid {
            message: format!(
                "TaskQueue {name:?} cannot be read: correct it, or run the operator that belongs to the definitions ({words})"
            ),
            reason: Reason::InvalidSpec,
            ..invalid
        }
    }

    fn state(
        &self,
        wp: Arc<WorkerPool>,
        spec: Result<Arc<Spec>, Invalid>,
        group: &Group,
        runs: &mut Runs,
        now: Moment,
    ) -> PoolState {
        let objects = self.objects(group);
        forget_gone(runs, &objects);
        let input = spec.as_ref().ok().map(|spec| {
            let conflict = self.conflicts.of(&wp, &objects);
            Arc::new(pool_input(
                &wp,
                &spec.pool,
                &spec.revision,
                &objects,
                conflict,
                runs,
                now,
            ))
        });
        PoolState {
            wp,
            spec,
            objects,
            input,
        }
    }
}
