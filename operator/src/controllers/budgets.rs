//! The Pools of a namespace as the cycle sees them: what the watches show of them, and what is taken of each.

use std::collections::BTreeMap;
use std::sync::Arc;

use kube::ResourceExt;
use poolwright_api::v1alpha1::{Guarantee, Pool, Priority, TaskQueue};
use poolwright_core::charge::Slots;
use poolwright_core::grants::{Mode, mode};
use poolwright_core::shedding::LoadKey;
use poolwright_core::snapshot::{Budget, Namespace, Shedding};
use poolwright_core::weight::{Weights, weights};

use crate::kube::index::{Group, Index};

/// What the pods of each WorkerPool's name take, by uid of the holder.
pub type Taken = BTreeMap<Group, BTreeMap<String, Slots>>;

/// What the pods of one namespace take, by holder.
pub fn of<'a>(taken: &'a Taken, namespace: &'a str) -> impl Iterator<Item = (&'a String, &'a Slots)> {
    let first = (namespace.to_owned(), String::new());
    let groups = taken
        .range(first..)
        .take_while(move |(group, _)| group.0 == namespace);
    groups.flat_map(|(_, sums)| sums)
}

/// Reads one namespace; `None` if it has no Pool. What is known of one that cannot be read is old, and its status is not
/// written: it is as if nothing were known, before a restart and after it.
pub fn read(
    budgets: &Index<Pool>,
    weights: Arc<Weights>,
    taken: &Taken,
    namespace: &str,
) -> Option<Namespace> {
    let pools = budgets.all(Some(namespace));
    let unreadable = budgets.all_unreadable(Some(namespace));
    if pools.is_empty() && unreadable.is_empty() {
        return None;
    }
    let unreadable: BTreeMap<String, String> = unreadable
        .into_iter()
        .map(|((_, name), words)| (name, words))
        .collect();
    let mut budgets: BTreeMap<String, Budget> = pools
        .iter()
        .map(|pool| (pool.name_any(), budget(pool)))
        .filter(|(name, _)| !unreadable.contains_key(name))
        .collect();
    // Of a Pool without a limit nobody asks how much is taken.
    if budgets.values().any(|budget| budget.slots.is_some()) {
        for (uid, slots) in of(taken, namespace) {
            for (pool, taken) in slots {
                if let Some(budget) = budgets.get_mut(pool) {
                    let used = budget.used.entry(uid.clone()).or_default();
                    *used = used.saturating_add(*taken);
                }
            }
        }
    }
    Some(Namespace {
        pools: budgets,
        unreadable,
        weights,
    })
}

/// What the TaskQueues of one namespace weigh; `None` if it has none.
pub fn weigh(queues: &Index<TaskQueue>, namespace: &str) -> Option<Weights> {
    let readable = queues.all(Some(namespace));
    let priorities: BTreeMap<&str, &Priority> = readable
        .iter()
        .filter_map(|queue| Some((queue.metadata.name.as_deref()?, &queue.spec.priority)))
        .collect();
    (!priorities.is_empty()).then(|| {
        let mut weights = weights(&priorities);
        // One that cannot be read is there all the same: nobody is told to create it.
        let is_there = |name: &String| queues.unreadable(namespace, name).is_some();
        weights.unknown.retain(|_, names| {
            names.retain(|name| !is_there(name));
            !names.is_empty()
        });
        weights
    })
}

fn shedding(pool: &Pool) -> Option<Shedding> {
    let high = pool.spec.load_shedding.as_ref()?;
    let status = pool.status.as_ref();
    let left = status.and_then(|status| Some((status.effective_slots?, status.slots?)));
    Some(Shedding {
        high_percent: high.limit(),
        load: LoadKey::new(&pool.namespace().unwrap_or_default(), high),
        was: left.is_some_and(|(effective, slots)| effective < slots),
    })
}

/// One Pool, without what is taken of it.
fn budget(pool: &Pool) -> Budget {
    let granted = pool.status.iter().flat_map(|status| &status.holders);
    let unsigned = |number: i64| u64::try_from(number).unwrap_or(0);
    let is_own = mode(pool) == Mode::Limited;
    let guarantee = |one: &Guarantee| (one.queue.clone(), unsigned(one.slots.into()));
    Budget {
        slots: pool.spec.limit(),
        effective: pool.spec.limit(),
        shedding: shedding(pool),
        guarantees: pool.spec.guarantees.iter().map(guarantee).collect(),
        granted: granted
            .filter(|_| is_own)
            .map(|holder| (holder.uid.clone(), unsigned(holder.granted)))
            .collect(),
        used: BTreeMap::new(),
    }
}
