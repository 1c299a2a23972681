//! What a change marks, and which namespaces are shown.
//!
//! A mark says that something is to be rebuilt, and costs nothing until somebody does. Namespaces come and go as wholes.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use kube::ResourceExt;
use poolwright_api::v1alpha1::WorkerPool;

use super::{World, lock};
use crate::kube::index::Group;

impl World {
    /// Marks a WorkerPool as changed.
    pub fn mark(&self, group: &Group, spec: bool) {
        self.mark_budgets(&group.0, false);
        *lock(&self.dirty).entry(group.clone()).or_default() |= spec;
    }

    /// Marks the Pools of a namespace as changed, or what is taken of them; or, with `queues`, a TaskQueue.
    pub fn mark_budgets(&self, namespace: &str, queues: bool) {
        let mut stale = lock(&self.stale);
        match stale.get_mut(namespace) {
            Some(known) => *known |= queues,
            None => drop(stale.insert(namespace.to_owned(), queues)),
        }
    }

    /// Marks every WorkerPool of a namespace that names one of these TaskQueues, or all of it.
    pub fn mark_namespace(&self, namespace: &str, queue: Option<&str>) {
        self.mark_budgets(namespace, queue.is_some());
        let marked = match queue {
            Some(queue) => self.pools.that_name(namespace, queue),
            None => self.pools.all(Some(namespace)),
        };
        for wp in marked {
            self.mark(&(namespace.to_owned(), wp.name_any()), true);
        }
    }

    /// Shows a namespace, all of it in one moment: nobody counts, grants or makes anything by a part of it.
    pub fn enter(&self, namespace: &str) {
        let built = lock(&self.built);
        self.shard.open(namespace);
        self.mark_whole(namespace);
        drop(built);
    }

    /// Shows nothing of a namespace any more, and forgets it. Nobody is to write there after that.
    pub fn leave(&self, namespace: &str) {
        let built = lock(&self.built);
        self.shard.close(namespace);
        self.mark_whole(namespace);
        drop(built);
        self.pools.forget(namespace);
        self.queues.forget(namespace);
        self.budgets.forget(namespace);
        self.deployments.forget(namespace);
        self.sets.forget(namespace);
        self.pods.forget(namespace);
        self.conflicts.autoscalers.forget(namespace);
    }

    /// True if an operator has worked in a namespace, shown or not, by what it has left there.
    pub fn was_worked_in(&self, namespace: &str) -> bool {
        let pools = self.pools.hidden(namespace);
        let queues = self.queues.hidden(namespace);
        let budgets = self.budgets.hidden(namespace);
        pools.iter().any(|one| one.status.is_some())
            || queues.iter().any(|one| one.status.is_some())
            || budgets.iter().any(|one| one.status.is_some())
            || !self.deployments.hidden(namespace).is_empty()
    }

    /// Forgets marks of what has come and gone while nobody has rebuilt anything, as where a process stands by; false once
    /// somebody does. What was shown to nobody leaves nothing behind.
    pub fn prune(&self) -> bool {
        let _built = lock(&self.built);
        if self.is_read.load(Ordering::Relaxed) {
            return false;
        }
        let is_there = |(namespace, name): &Group| {
            let objects = self.objects(&(namespace.clone(), name.clone()));
            self.pools.get(namespace, name).is_some()
                || !(objects.deployments.is_empty() && objects.sets.is_empty() && objects.pods.is_empty())
        };
        lock(&self.dirty).retain(|group, _| is_there(group));
        let mut there: BTreeSet<String> = lock(&self.dirty).keys().map(|group| group.0.clone()).collect();
        there.extend(self.queues.all(None).iter().filter_map(|queue| queue.namespace()));
        there.extend(self.budgets.all(None).iter().filter_map(|pool| pool.namespace()));
        lock(&self.stale).retain(|namespace, _| there.contains(namespace));
        true
    }

    fn mark_whole(&self, namespace: &str) {
        let groups = [
            self.pools.groups(namespace),
            self.deployments.groups(namespace),
            self.sets.groups(namespace),
            self.pods.groups(namespace),
        ];
        for group in groups.concat() {
            self.mark(&group, true);
        }
        self.mark_budgets(namespace, true);
    }

    /// Marks what a change of a WorkerPool concerns; both are absent when a list no longer names it. Our own status
    /// writes come back here: they change nothing that is decided on.
    pub fn pool_changed(&self, group: &Group, before: Option<&WorkerPool>, after: Option<&WorkerPool>) {
        let spec = |wp: &WorkerPool| (wp.metadata.generation, wp.metadata.annotations.clone(), wp.uid());
        if before.is_none() || after.is_none() || before.map(spec) != after.map(spec) {
            self.mark(group, true);
        }
        if before.is_none() && after.is_none() {
            self.mark_namespace(&group.0, None);
        }
        // Those that share a queue are advised of one another's class.
        let shape = |wp: &WorkerPool| (wp.spec.class, wp.spec.queues.clone());
        let (old, new) = (before.map(shape), after.map(shape));
        if old != new {
            for queue in old.iter().chain(&new).flat_map(|(_, queues)| queues) {
                self.mark_namespace(&group.0, Some(&queue.name));
            }
        }
    }
}
