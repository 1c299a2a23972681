//! Keeps what the status of Pools says beside grants, and their metrics.

use std::sync::Arc;

use kube::{Api, Resource, ResourceExt};
use poolwright_api::conditions::find;
use poolwright_api::v1alpha1::{Pool, PoolStatus};
use poolwright_api::{ConditionType, Reason};
use poolwright_core::grants::Sight;
use poolwright_core::pool_status::{only_numbers, status, with_open};

use super::{Context, write};
use crate::kube::events::table;
use crate::metrics::{AirflowNumbers, PoolNumbers};

/// Writes the status of one Pool if it says something new.
pub(super) async fn report(context: &Context, namespace: &str, pool: &Arc<Pool>) -> Result<(), kube::Error> {
    let name = pool.name_any();
    let sight = super::raise::sight(context, namespace, &name, pool);
    let old = pool.status.clone().unwrap_or_default();
    let Some(new) = whole(context, namespace, pool, &sight) else {
        return Ok(());
    };
    context
        .metrics
        .pool(namespace, &name, numbers(pool, &sight, &new));
    let uid = pool.metadata.uid.as_deref().unwrap_or_default();
    if old == new {
        context.budget.leave(uid);
        return Ok(());
    }
    let may_wait = only_numbers(&old, &new);
    if !context.budget.take(uid, context.clock.now(), may_wait) {
        return Ok(());
    }
    let api: Api<Pool> = Api::namespaced(context.client.clone(), namespace);
    if write(&api, pool, &new).await?.is_some() {
        tell(context, pool, &old, &new);
    }
    Ok(())
}

/// All that the status says beside grants, as it is now; `None` before it is known.
fn whole(context: &Context, namespace: &str, pool: &Pool, sight: &Sight) -> Option<PoolStatus> {
    let figures = context.latest.budgets();
    let figures = figures.get(&(namespace.to_owned(), pool.name_any()))?;
    let unknown = unknown_queues(context, namespace, pool);
    let link = context.links.of(pool);
    let wall = context.clock.wall();
    Some(status(pool, sight, figures, &unknown, link.as_deref(), wall))
}

/// The whole status with these grants: one write says all.
pub(super) fn with_grants(
    context: &Context,
    namespace: &str,
    (pool, sight): (&Pool, &Sight),
    granted: PoolStatus,
) -> PoolStatus {
    let granted = Pool {
        status: Some(granted),
        ..pool.clone()
    };
    let all = whole(context, namespace, &granted, sight);
    all.unwrap_or_else(|| {
        let mut grants = granted.status.unwrap_or_default();
        for holder in &mut grants.holders {
            holder.used = holder.used.min(holder.granted);
        }
        with_open(pool, sight, grants)
    })
}

fn numbers(pool: &Pool, sight: &Sight, status: &PoolStatus) -> PoolNumbers {
    let unsigned = |number: i64| u64::try_from(number).ok();
    let missing = status.waiters.iter().map(|waiter| waiter.missing).sum();
    PoolNumbers {
        missing: unsigned(missing),
        // Without a limit nothing is too much.
        over: Some(u64::try_from(pool.spec.slots).is_ok_and(|slots| sight.taken() > slots)),
        slots: status.effective_slots.map(i64::from),
        running: status.running.and_then(unsigned),
        queued: status.queued.and_then(unsigned),
        in_sync: find(&status.conditions, ConditionType::AirflowInSync).map(|one| one.status == "True"),
        airflow: status.airflow.as_ref().map(|airflow| AirflowNumbers {
            running: airflow.running,
            queued: airflow.queued,
            scheduled: airflow.scheduled,
            deferred: airflow.deferred,
            open: airflow.open,
            poking_sensors: airflow.poking_sensors.map(i64::from),
        }),
    }
}

/// Queues with a guarantee that do not draw on this Pool.
fn unknown_queues(context: &Context, namespace: &str, pool: &Pool) -> Vec<String> {
    let name = pool.name_any();
    let draws = |queue: &String| {
        let queue = context.world.queues.get(namespace, queue);
        queue.is_some_and(|queue| queue.pool_name() == name)
    };
    let queues = pool.spec.guarantees.iter().map(|guarantee| &guarantee.queue);
    queues.filter(|queue| !draws(queue)).cloned().collect()
}

/// An event when something turns wrong, or wrong in another way.
pub(super) fn tell(context: &Context, pool: &Pool, old: &PoolStatus, new: &PoolStatus) {
    let (before, after) = (
        find(&old.conditions, ConditionType::Ready),
        find(&new.conditions, ConditionType::Ready),
    );
    let Some(after) = after.filter(|after| after.status == "False") else {
        return;
    };
    let moved = before.is_none_or(|before| before.status != after.status || before.reason != after.reason);
    // Whoever takes a change back, or follows it, tells of it.
    let told = [Reason::Progressing, Reason::AirflowDrifted];
    if moved && told.iter().all(|reason| reason.as_str() != after.reason) {
        let about = pool.object_ref(&());
        context
            .events
            .send(&about, &table::POOL, &after.reason, &after.message);
    }
}
