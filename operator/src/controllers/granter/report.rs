//! Keeps what the status of Pools says beside grants, and their metrics.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kube::{Api, Resource, ResourceExt};
use poolwright_api::conditions::find;
use poolwright_api::v1alpha1::{Pool, PoolStatus};
use poolwright_api::{ConditionType, Reason};
use poolwright_core::grants::Sight;
use poolwright_core::pool_status::{PoolName, only_numbers, status, with_open};
use poolwright_core::time::Moment;

use super::{Context, Pools, write};
use crate::kube::events::table;
use crate::metrics::{AirflowNumbers, PoolNumbers};

/// After a failure a status is left alone for so long at first, twice as long after each further one, and at longest.
const BACK_OFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// A status that was not written: as of which resourceVersion, how often in a row, and until when it is left alone.
struct Failed {
    version: Option<String>,
    count: u32,
    until: Moment,
}

/// Pools whose status was not written. What was refused as old is as old until the watch shows something newer, and what is
/// refused for good is refused each time: a look four times a second would only be another request.
#[derive(Default)]
pub(super) struct Unwritten(Mutex<BTreeMap<PoolName, Failed>>);

impl Unwritten {
    /// Forgets those of which this is not true.
    pub(super) fn retain(&self, stays: impl Fn(&PoolName) -> bool) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|pool, _| stays(pool));
    }

    /// True if it is not tried again yet. One that has changed is.
    fn waits(&self, name: &PoolName, pool: &Pool, now: Moment) -> bool {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = all.get(name);
        failed.is_some_and(|failed| failed.version == pool.metadata.resource_version && now < failed.until)
    }

    /// Notes how it went; well is also where there was nothing to write. A Pool that has changed is tried as if for the
    /// first time.
    fn note(&self, name: PoolName, pool: &Pool, well: bool, now: Moment) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if well {
            all.remove(&name);
            return;
        }
        let same = all
            .get(&name)
            .filter(|failed| failed.version == pool.metadata.resource_version);
        let count = same.map_or(0, |failed| failed.count);
        let wait = BACK_OFF.0.saturating_mul(1 << count.min(8)).min(BACK_OFF.1);
        let failed = Failed {
            version: pool.metadata.resource_version.clone(),
            count: count.saturating_add(1),
            until: now.after(wait),
        };
        all.insert(name, failed);
    }
}

/// Writes the status of one Pool if it says something new.
pub(super) async fn report(
    context: &Context,
    unwritten: &Unwritten,
    namespace: &str,
    pool: &Arc<Pool>,
) -> Result<(), kube::Error> {
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
    let (place, now) = ((namespace.to_owned(), name), context.clock.now());
    if old == new {
        context.budget.leave(uid);
        unwritten.note(place, pool, true, now);
        return Ok(());
    }
    let may_wait = only_numbers(&old, &new);
    if unwritten.waits(&place, pool, now) || !context.budget.take(uid, now, may_wait) {
        return Ok(());
    }
    let api: Pools = Api::namespaced(context.client.clone(), namespace);
    let written = write(&api, pool, &new).await;
    let is_written = matches!(written, Ok(Some(_)));
    unwritten.note(place, pool, is_written, context.clock.now());
    if is_written {
        tell(context, pool, &old, &new);
    }
    written.map(drop)
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
    let queues = &context.world.queues;
    let draws = |queue: &String| match queues.get(namespace, queue) {
        Some(queue) => queue.pool_name() == name,
        // One that cannot be read may.
        None => queues.unreadable(namespace, queue).is_some(),
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
