//! Which WorkerPools the cycle has woken and nobody has looked at yet.
//!
//! A set and not a queue, so that it is bounded by the WorkerPools that there are: who waits already is not added again.
//! For one receiver; guarantees that it gets every group that was put after it last took that group.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::kube::index::Group;

/// The groups that wait to be looked at.
#[derive(Debug, Default)]
pub struct Wake {
    waiting: Mutex<BTreeSet<Group>>,
    news: Notify,
}

impl Wake {
    /// Adds groups; never waits.
    pub fn put(&self, groups: impl IntoIterator<Item = Group>) {
        self.lock().extend(groups);
        // Kept until the receiver next waits, if it does not wait now.
        self.news.notify_one();
    }

    /// Takes all groups that wait, once there are any. Nothing is lost when this is dropped before it is done.
    pub async fn take_all(&self) -> BTreeSet<Group> {
        loop {
            let waiting = std::mem::take(&mut *self.lock());
            if !waiting.is_empty() {
                return waiting;
            }
            self.news.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<Group>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use futures::FutureExt as _;
    use tokio::time::timeout;

    use super::*;

    fn group(name: &str) -> Group {
        ("shop".to_owned(), name.to_owned())
    }

    #[tokio::test]
    async fn a_group_that_waits_is_not_added_again() {
        let wake = Wake::default();
        wake.put([group("a"), group("b")]);
        wake.put([group("a")]);
        assert_eq!(wake.take_all().await, BTreeSet::from([group("a"), group("b")]));
        assert_eq!(wake.take_all().now_or_never(), None, "it came out twice");
    }

    #[tokio::test]
    async fn a_group_that_is_put_while_it_is_handled_comes_out_again() {
        let wake = Wake::default();
        wake.put([group("a")]);
        let handled = wake.take_all().await;
        wake.put([group("a")]);
        assert_eq!(wake.take_all().await, handled);
    }

    #[tokio::test]
    async fn who_stops_waiting_misses_nothing() {
        let wake = Wake::default();
        let mut waiting = Box::pin(wake.take_all());
        assert_eq!(waiting.as_mut().now_or_never(), None);
        // It is told, and dropped before it looks.
        wake.put([group("a")]);
        drop(waiting);
        assert_eq!(wake.take_all().now_or_never(), Some(BTreeSet::from([group("a")])));
        // Nothing is taken for something new because of what was told before.
        assert_eq!(wake.take_all().now_or_never(), None);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn nothing_is_lost_when_groups_are_put_while_others_are_taken() {
        const ROUNDS: usize = 20_000;
        let wake = Arc::new(Wake::default());
        let putting = Arc::clone(&wake);
        let putter = tokio::task::spawn_blocking(move || {
            for index in 0..ROUNDS {
                putting.put([group(&format!("p{index}"))]);
            }
        });
        let mut taken = BTreeSet::new();
        while taken.len() < ROUNDS {
            let more = timeout(Duration::from_secs(10), wake.take_all()).await;
            taken.extend(more.expect("the rest"));
        }
        putter.await.expect("it ends");
        assert_eq!(wake.take_all().now_or_never(), None);
    }
}
