//! Whether this process may write at this moment: asked before every write and while it is under way.
//!
//! Decides nothing about who leads; whoever holds the lease says until when it is proven. Judged by the clock each time and
//! not by what a timer has set, because a process that was stopped (SIGSTOP, a frozen cgroup) finds its timers late and its
//! connections open: the first thing that it does may be a write. The clock is the monotonic one, which goes on while a
//! process is stopped. It does not go on while the whole machine is suspended, and nothing here can see that.
//!
//! Which namespaces are this operator's, where not all are, is judged here too: see [`Shard`].
//!
//! A look at the clock is no fence: whoever is stopped between the look and the kernel sends afterwards. What is left of
//! that is what was handed to a connection, and it is the API server that refuses it, where it carries a resourceVersion.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use crate::shard::Shard;

/// Nobody else can write, so there is nothing to prove.
const ALWAYS: u64 = u64::MAX;

/// A write was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Shut {
    /// Another may decide.
    #[error("not written: this operator does not hold the lease, or could not prove in time that it does")]
    Lease,
    /// The namespaces may be others' by now.
    #[error("not written: which namespaces are this operator's was not read for {} s", crate::shard::PROOF.as_secs())]
    Unproven,
    /// The namespace is not of this shard.
    #[error(
        "not written: this namespace is none of --namespace, or its labels do not match --namespace-selector for long \
         enough, or it was not read yet"
    )]
    Elsewhere,
}

/// The gate of a process. Clones are the same gate.
#[derive(Clone, Debug)]
pub struct Gate(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    start: Instant,
    /// Which namespaces are its own.
    shard: Shard,
    /// Microseconds after the start at which it shuts.
    until: AtomicU64,
    /// What is under way may end, and nothing begins any more.
    closing: AtomicBool,
    under_way: AtomicUsize,
    ended: Notify,
}

/// One write that is under way.
struct UnderWay<'a>(&'a Inner);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        if self.0.under_way.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.ended.notify_waiters();
        }
    }
}

impl Gate {
    /// One that is open for ever, where there is no election.
    #[must_use]
    pub fn open() -> Self {
        Self::new(ALWAYS, Shard::whole())
    }

    /// One that is shut until somebody holds the lease.
    #[must_use]
    pub fn shut() -> Self {
        Self::new(0, Shard::whole())
    }

    /// Another gate, as this one is now, which lets writes through to the namespaces of a shard alone.
    #[must_use]
    pub fn within(&self, shard: Shard) -> Self {
        Self::new(self.0.until.load(Ordering::SeqCst), shard)
    }

    /// Which namespaces are this process's.
    #[must_use]
    pub fn shard(&self) -> &Shard {
        &self.0.shard
    }

    fn new(until: u64, shard: Shard) -> Self {
        Self(Arc::new(Inner {
            start: Instant::now(),
            shard,
            until: AtomicU64::new(until),
            closing: AtomicBool::new(false),
            under_way: AtomicUsize::new(0),
            ended: Notify::new(),
        }))
    }

    /// Opens it, or keeps it open, until this moment.
    pub fn open_until(&self, at: Instant) {
        let micros = at.saturating_duration_since(self.0.start).as_micros();
        let micros = u64::try_from(micros).unwrap_or(ALWAYS).min(ALWAYS - 1);
        self.0.until.store(micros, Ordering::SeqCst);
    }

    /// Shuts it now, also for what is under way: another may lead.
    pub fn shut_now(&self) {
        self.0.until.store(0, Ordering::SeqCst);
    }

    /// True while writes may go on.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.look(None).is_ok()
    }

    /// Whether a write to this namespace may go on, or one to whatever namespace.
    fn look(&self, namespace: Option<&str>) -> Result<(), Shut> {
        let until = self.0.until.load(Ordering::SeqCst);
        if until != ALWAYS && self.0.start.elapsed().as_micros() >= u128::from(until) {
            return Err(Shut::Lease);
        }
        if !self.0.shard.is_proven() {
            return Err(Shut::Unproven);
        }
        let is_own = namespace.is_none_or(|namespace| self.0.shard.holds(namespace));
        if is_own { Ok(()) } else { Err(Shut::Elsewhere) }
    }

    /// Does `work`, which writes, as long as the gate is open; looks before every step of it, so that what waits for a
    /// connection, or to be tried again, is given up too. Once the gate is [closing](Self::close), nothing comes back: the
    /// process is about to end, and an error would only be planned anew.
    ///
    /// # Errors
    /// The gate is shut. What was under way may have been done or not.
    pub async fn guard<F: Future>(&self, work: F) -> Result<F::Output, Shut> {
        self.guard_in(None, work).await
    }

    /// The same for work that writes to this namespace: given up, too, when it is not this operator's any more.
    ///
    /// # Errors
    /// The gate is shut, or the namespace is another's.
    pub async fn guard_in<F: Future>(&self, namespace: Option<&str>, work: F) -> Result<F::Output, Shut> {
        let inner = &*self.0;
        inner.under_way.fetch_add(1, Ordering::SeqCst);
        let under_way = UnderWay(inner);
        if inner.closing.load(Ordering::SeqCst) {
            drop(under_way);
            return std::future::pending().await;
        }
        let mut work = pin!(work);
        poll_fn(|context| match self.look(namespace) {
            Ok(()) => work.as_mut().poll(context).map(Ok),
            Err(shut) => Poll::Ready(Err(shut)),
        })
        .await
    }

    /// Lets nothing begin any more, and waits for what is under way, no longer than `most`. True if nothing is left.
    pub async fn close(&self, most: Duration) -> bool {
        self.0.closing.store(true, Ordering::SeqCst);
        let idle = async {
            loop {
                let ended = self.0.ended.notified();
                if self.0.under_way.load(Ordering::SeqCst) == 0 {
                    return;
                }
                ended.await;
            }
        };
        timeout(most, idle).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::FutureExt as _;
    use tokio::time::{advance, sleep};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn it_shuts_by_the_clock_although_no_timer_has_run() {
        let gate = Gate::shut();
        assert_eq!(gate.guard(async {}).await, Err(Shut::Lease));
        gate.open_until(Instant::now() + SECOND);
        assert_eq!(gate.guard(async { 7 }).await, Ok(7));
        advance(SECOND).await;
        assert_eq!(gate.guard(async { 7 }).now_or_never(), Some(Err(Shut::Lease)));
        gate.open_until(Instant::now() + SECOND);
        assert!(gate.is_open(), "a renewal that came late opens it again");
        gate.shut_now();
        assert!(!gate.is_open());
        assert!(Gate::open().is_open());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_under_way_is_given_up_before_its_next_step() {
        let gate = Gate::shut();
        gate.open_until(Instant::now() + SECOND);
        let mut sent = false;
        let write = gate.guard(async {
            // A connection that is not there yet, or a retry.
            sleep(SECOND * 2).await;
            sent = true;
        });
        assert_eq!(write.await, Err(Shut::Lease));
        assert!(!sent);
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_begun_ends_and_nothing_begins_while_it_closes() {
        let gate = Gate::open();
        let (of, began) = (gate.clone(), Instant::now());
        let write = tokio::spawn(async move { of.guard(sleep(SECOND)).await });
        tokio::task::yield_now().await;
        assert!(gate.close(SECOND * 2).await);
        assert_eq!(began.elapsed(), SECOND);
        assert_eq!(write.await.unwrap(), Ok(()));
        assert_eq!(gate.guard(async {}).now_or_never(), None);
        assert!(gate.close(SECOND).await, "what waits for ever is not under way");
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_end_is_not_waited_for_for_ever() {
        let gate = Gate::open();
        let of = gate.clone();
        let write = tokio::spawn(async move { of.guard(std::future::pending::<()>()).await });
        tokio::task::yield_now().await;
        assert!(!gate.close(SECOND).await);
        write.abort();
        let _ = write.await;
        assert!(gate.close(SECOND).await, "one that was dropped is not under way");
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_goes_to_a_namespace_of_the_shard_alone_and_only_while_that_is_proven() {
        let shard = Shard::selected();
        let gate = Gate::open().within(shard.clone());
        let write = |namespace| gate.guard_in(Some(namespace), async {}).now_or_never();
        shard.open("ours");
        assert_eq!(write("ours"), Some(Err(Shut::Unproven)));
        assert!(!gate.is_open(), "commands to workers wait, too");
        shard.prove(Instant::now());
        assert_eq!(write("ours"), Some(Ok(())));
        assert_eq!(write("theirs"), Some(Err(Shut::Elsewhere)));
        assert_eq!(gate.guard(async {}).await, Ok(()), "of no namespace");
        let mut sent = false;
        let leaves = async {
            sleep(SECOND).await;
            shard.close("ours");
        };
        let under_way = gate.guard_in(Some("ours"), async {
            sleep(SECOND * 2).await;
            sent = true;
        });
        assert_eq!(futures::join!(under_way, leaves).0, Err(Shut::Elsewhere));
        assert!(!sent);
        advance(crate::shard::PROOF).await;
        assert!(!gate.is_open());
    }
}
