//! Writing what has changed: several statuses at a time, and no more in one look than take a moment.
//!
//! A broker that goes away, or a fleet that is seen for the first time, changes the status of every queue. Written one after
//! the other, ten thousand would take minutes, in which nobody would look at any queue.

use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt as _, StreamExt as _, stream};
use kube::{Api, Resource as _, ResourceExt as _};
use poolwright_api::conditions::find;
use poolwright_api::v1alpha1::{TaskQueue, TaskQueueStatus};
use poolwright_api::{ConditionType, Reason};

use super::{Controller, Past, Seen, late};
use crate::kube::events::table;
use crate::kube::lenient::Lenient;
use crate::kube::status::{Written, write};

/// Statuses that one look writes at most; the others have their turn first in the next, at once.
pub(super) const WRITES_MAX: usize = 64;
/// Writes under way at a time: few, since what makes and scales workers is not to wait behind what only reports.
const AT_ONCE: usize = 4;

/// After a failure a status is left alone for so long at first, twice as long after each further one, and at longest.
const BACK_OFF: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(30));

/// A status was not written; true if somebody else has changed its object.
struct Moved(bool);

/// A status to be written.
pub(super) struct Change {
    queue: Arc<TaskQueue>,
    old: TaskQueueStatus,
    version: Option<String>,
    new: TaskQueueStatus,
}

impl Controller {
    /// What is to be written where the status that a queue should have differs from the one that it has, and need not wait.
    pub(super) fn change(&self, past: &Past, queue: &Arc<TaskQueue>, seen: &Seen<'_>) -> Option<Change> {
        let uid = queue.uid().unwrap_or_default();
        let namespace = queue.namespace().unwrap_or_default();
        if self
            .world
            .queues
            .unreadable(&namespace, &queue.name_any())
            .is_some()
        {
            // What is known of it is old: what is written under its resourceVersion is refused each time.
            self.budget.leave(&uid);
            return None;
        }
        let now = self.clock.now();
        if past.failed.get(&uid).is_some_and(|(_, until)| now < *until) {
            return None;
        }
        let stored = queue.status.clone().unwrap_or_default();
        let (old, version) = Written::latest(past.written.get(&uid), &queue.metadata, &stored);
        let new = self.status(queue, old, seen);
        if new == *old {
            self.budget.leave(&uid);
            return None;
        }
        let ready = |status: &TaskQueueStatus| {
            let ready = find(&status.conditions, ConditionType::Ready)?;
            Some((ready.status.clone(), ready.reason.clone()))
        };
        let pressing = ready(old) != ready(&new);
        if !self.budget.take(&uid, now, !pressing) {
            return None;
        }
        Some(Change {
            queue: Arc::clone(queue),
            old: old.clone(),
            version: version.map(str::to_owned),
            new,
        })
    }

    /// Writes these statuses, and tells of each what is news; false if one was refused.
    pub(super) async fn write(&self, past: &mut Past, due: Vec<Change>) -> bool {
        let writes = due.into_iter().map(|change| self.write_one(change).boxed());
        let mut ended = stream::iter(writes).buffer_unordered(AT_ONCE);
        let mut well = true;
        while let Some((uid, written)) = ended.next().await {
            well &= written.is_ok();
            if written.is_ok() {
                past.failed.remove(&uid);
            }
            match written {
                Ok(Some(written)) => drop(past.written.insert(uid, written)),
                Ok(None) => {}
                Err(Moved(moved)) => {
                    past.written.remove(&uid);
                    // Somebody was first: what there is now is seen in a moment.
                    if moved {
                        continue;
                    }
                    let (count, until) = past.failed.entry(uid).or_default();
                    let wait = BACK_OFF.0.saturating_mul(1 << (*count).min(8)).min(BACK_OFF.1);
                    (*count, *until) = (*count + 1, self.clock.now().after(wait));
                }
            }
        }
        well
    }

    async fn write_one(&self, change: Change) -> (String, Result<Option<Written<TaskQueueStatus>>, Moved>) {
        let Change {
            queue,
            old,
            version,
            new,
        } = change;
        let namespace = queue.namespace().unwrap_or_default();
        let known = self.world.queues.get(&namespace, &queue.name_any());
        if known.is_none_or(|known| known.uid() != queue.uid()) {
            // Deleted, or another operator's, since the look began.
            return (queue.uid().unwrap_or_default(), Ok(None));
        }
        let api: Api<Lenient<TaskQueue>> = Api::namespaced(self.client.clone(), &namespace);
        let written = write(&api, &queue.metadata, (&old, version.as_deref()), new.clone()).await;
        match &written {
            Ok(_) => self.tell(&queue, &old, &new),
            Err(error) => tracing::debug!(task_queue = queue.name_any(), "status not written: {error}"),
        }
        (
            queue.uid().unwrap_or_default(),
            written.map_err(|error| Moved(matches!(error, kube::Error::Api(status) if status.code == 409))),
        )
    }

    /// An event when a queue turns bad, or is bad for another reason; a circle is told too, although the queue works. And
    /// one when its wait target is missed, or is kept again.
    fn tell(&self, queue: &TaskQueue, old: &TaskQueueStatus, new: &TaskQueueStatus) {
        let about = queue.object_ref(&());
        if let Some((reason, message)) = late::news(old, new) {
            self.events
                .send(&about, &table::WAIT_TARGET, reason.as_str(), &message);
        }
        let ready = |status: &TaskQueueStatus| {
            let ready = find(&status.conditions, ConditionType::Ready)?;
            let bad = ready.status == "False" || ready.reason == Reason::WeightCycle.as_str();
            bad.then(|| (ready.reason.clone(), ready.message.clone()))
        };
        let before = ready(old).map(|(reason, _)| reason);
        let Some((reason, message)) = ready(new).filter(|(reason, _)| before.as_ref() != Some(reason)) else {
            return;
        };
        self.events.send(&about, &table::QUEUE, &reason, &message);
    }
}
