//! Every decision that a status shows, each once, with its time.
//!
//! A status keeps the decision in force and the five before it, so that a watch which skips a status still has its
//! decision. It gives whole seconds; when the watch was told, right after it was stored, says more as far as it agrees.

use crate::Result;
use futures::StreamExt;
use jiff::{SignedDuration, Timestamp};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, ResourceExt};
use poolwright_api::v1alpha1::{PastDecision, WorkerPool};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use tokio::task::JoinHandle;

/// A decision of a WorkerPool.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// When it was stored: within the second that it gives, as well as that is known.
    pub at: Timestamp,
    /// The WorkerPool.
    pub pool: String,
    /// What was decided.
    pub decision: PastDecision,
}

/// What was told so far.
#[derive(Debug, Default)]
struct Book {
    seen: BTreeMap<String, Vec<PastDecision>>,
    untold: Vec<Told>,
}

/// The decisions in one namespace since they were followed.
#[derive(Debug)]
pub struct Decisions {
    book: Arc<Mutex<Book>>,
    watch: JoinHandle<()>,
}

impl Drop for Decisions {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

impl Decisions {
    /// Follows all WorkerPools.
    pub fn follow(pools: Api<WorkerPool>) -> Self {
        let book: Arc<Mutex<Book>> = Arc::default();
        let watch = tokio::spawn(follow(pools, Arc::clone(&book)));
        Self { book, watch }
    }

    /// Those that were made since `begin` and not yet asked for, in the order of their times.
    pub fn take(&self, begin: Timestamp) -> Result<Vec<Told>> {
        if self.watch.is_finished() {
            return Err("the watch of WorkerPools has ended".into());
        }
        let mut told = std::mem::take(&mut self.book.lock().expect("no reader panics").untold);
        told.retain(|told| told.at >= begin);
        told.sort_by_key(|told| told.at);
        Ok(told)
    }
}

async fn follow(pools: Api<WorkerPool>, book: Arc<Mutex<Book>>) {
    let mut events = watcher(pools, watcher::Config::default())
        .default_backoff()
        .boxed();
    while let Some(event) = events.next().await {
        if let Ok(watcher::Event::Apply(pool) | watcher::Event::InitApply(pool)) = event {
            let mut book = book.lock().expect("no reader panics");
            book.note(&pool, Timestamp::now());
        }
    }
}

impl Book {
    /// Notes what `pool` shows that was not known, oldest first.
    fn note(&mut self, pool: &WorkerPool, now: Timestamp) {
        let Some(status) = &pool.status else { return };
        let last = status.last_decision.as_ref().map(PastDecision::from);
        let shown = status.decisions.iter().rev().cloned().chain(last);
        let seen = self.seen.entry(pool.name_any()).or_default();
        for decision in shown {
            if !seen.contains(&decision) {
                seen.push(decision.clone());
                self.untold.push(Told {
                    at: moment(decision.time.0, now),
                    pool: pool.name_any(),
                    decision,
                });
            }
        }
    }
}

/// When something was made that was told at `told`, and whose time, in whole seconds, is `second`.
fn moment(second: Timestamp, told: Timestamp) -> Timestamp {
    let end = second + SignedDuration::from_millis(999);
    told.max(second).min(end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use poolwright_api::v1alpha1::{Decision, WorkerPoolSpec, WorkerPoolStatus};

    fn at(milliseconds: i64) -> Timestamp {
        Timestamp::from_millisecond(milliseconds).unwrap()
    }

    fn decision(second: i64, to: i32) -> Decision {
        Decision {
            time: Time(at(second * 1000)),
            to,
            ..Decision::default()
        }
    }

    fn pool(last: &Decision, before: &[&Decision]) -> WorkerPool {
        let mut pool = WorkerPool::new("cpu", WorkerPoolSpec::default());
        pool.status = Some(WorkerPoolStatus {
            last_decision: Some(last.clone()),
            decisions: before.iter().map(|one| PastDecision::from(*one)).collect(),
            ..WorkerPoolStatus::default()
        });
        pool
    }

    #[test]
    fn each_decision_is_told_once_at_its_time() {
        let (first, second, third) = (decision(1, 0), decision(5, 2), decision(7, 3));
        let mut book = Book::default();
        book.note(&pool(&first, &[]), at(1_200));
        // The second was in force between two looks only.
        book.note(&pool(&third, &[&second, &first]), at(7_300));
        book.note(&pool(&third, &[&second, &first]), at(8_000));
        let told: Vec<(Timestamp, i32)> = book
            .untold
            .iter()
            .map(|told| (told.at, told.decision.to))
            .collect();
        assert_eq!(told, [(at(1_200), 0), (at(5_999), 2), (at(7_300), 3)]);
    }
}
