//! Which namespaces this process works in, where they are named or a label selector says so: a shard of the cluster.
//!
//! Decides nothing about who belongs to it; whoever follows the namespaces says so, and until when that is proven. Asked by
//! every reader of what the watches have shown, so that a namespace comes and goes for all of them in one moment, and by
//! the [`Gate`](crate::gate::Gate) before every write. A namespace belongs to one operator because its budgets do: with
//! two that count for themselves nobody could say what is left.
//!
//! What was read a while ago may not be so any more, so it counts for [`PROOF`]; whoever takes a namespace over waits for
//! [`TAKE_OVER`]. In between lies what is on its way. As with a Lease, time is each process's own.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::time::Instant;

/// What was read of the namespaces' labels is believed for so long. Then nothing is written until they are read again.
pub const PROOF: Duration = Duration::from_secs(10);
/// A namespace in which another operator has worked is taken up so long after its labels asked for it.
pub const TAKE_OVER: Duration = Duration::from_secs(15);

/// The namespaces of one process. Clones are the same shard.
#[derive(Clone, Debug, Default)]
pub struct Shard(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    start: Instant,
    /// Namespaces that are worked in.
    open: RwLock<Arc<BTreeSet<String>>>,
    /// Microseconds after the start until which they are believed to be so.
    proven: AtomicU64,
}

/// The namespaces of one moment; `None` is all.
pub type Members = Option<Arc<BTreeSet<String>>>;

/// True if a namespace is among them.
#[must_use]
pub fn among(members: &Members, namespace: &str) -> bool {
    members.as_ref().is_none_or(|open| open.contains(namespace))
}

impl Shard {
    /// Whatever the watches show: no label is looked at.
    #[must_use]
    pub fn whole() -> Self {
        Self(None)
    }

    /// One that has no namespace yet, and whose namespaces are proven for a while by what is read of their labels.
    #[must_use]
    pub fn selected() -> Self {
        Self::proven(0)
    }

    /// One that has no namespace yet, and whose namespaces were named once and for all: nothing has to be proven.
    #[must_use]
    pub fn named() -> Self {
        Self::proven(u64::MAX)
    }

    fn proven(until: u64) -> Self {
        Self(Some(Arc::new(Inner {
            start: Instant::now(),
            open: RwLock::default(),
            proven: AtomicU64::new(until),
        })))
    }

    /// Its namespaces at this moment.
    #[must_use]
    pub fn members(&self) -> Members {
        let inner = self.0.as_ref()?;
        Some(Arc::clone(
            &inner.open.read().unwrap_or_else(PoisonError::into_inner),
        ))
    }

    /// True if it works in this namespace.
    #[must_use]
    pub fn holds(&self, namespace: &str) -> bool {
        among(&self.members(), namespace)
    }

    /// True while what is known of the labels is new enough to write by.
    #[must_use]
    pub fn is_proven(&self) -> bool {
        self.0.as_ref().is_none_or(|inner| {
            let until = inner.proven.load(Ordering::SeqCst);
            inner.start.elapsed().as_micros() < u128::from(until)
        })
    }

    /// Everything that happened to the labels until `at` is known. Earlier moments change nothing.
    pub fn prove(&self, at: Instant) {
        if let Some(inner) = &self.0 {
            let until = (at + PROOF).saturating_duration_since(inner.start).as_micros();
            let until = u64::try_from(until).unwrap_or(u64::MAX);
            inner.proven.fetch_max(until, Ordering::SeqCst);
        }
    }

    /// Works in this namespace from now on.
    pub fn open(&self, namespace: &str) {
        self.change(|open| open.insert(namespace.to_owned()));
    }

    /// Works there no more. What is under way is given up before its next step.
    pub fn close(&self, namespace: &str) {
        self.change(|open| open.remove(namespace));
    }

    fn change(&self, of: impl FnOnce(&mut BTreeSet<String>) -> bool) {
        if let Some(inner) = &self.0 {
            let mut open = inner.open.write().unwrap_or_else(PoisonError::into_inner);
            let _ = of(Arc::make_mut(&mut open));
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[test]
    fn without_a_selector_every_namespace_is_held_and_nothing_has_to_be_proven() {
        let whole = Shard::whole();
        whole.close("a");
        assert!(whole.holds("a") && whole.is_proven() && whole.members().is_none());
    }

    #[test]
    fn what_was_named_is_held_once_it_is_shown_and_needs_no_proof() {
        let named = Shard::named();
        assert!(named.is_proven() && !named.holds("a"));
        named.open("a");
        assert!(named.holds("a") && !named.holds("b"));
    }

    #[test]
    fn a_namespace_comes_and_goes_for_every_clone() {
        let shard = Shard::selected();
        let other = shard.clone();
        assert!(!other.holds("a"));
        shard.open("a");
        let then = other.members();
        assert!(other.holds("a") && !other.holds("b"));
        shard.close("a");
        assert!(!other.holds("a"));
        assert!(among(&then, "a"), "what was read stays as it was");
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_read_is_believed_for_a_while_and_less_than_another_waits() {
        let shard = Shard::selected();
        assert!(!shard.is_proven(), "nothing was read yet");
        let read = Instant::now();
        shard.prove(read);
        advance(PROOF.saturating_sub(Duration::from_millis(1))).await;
        assert!(shard.is_proven());
        advance(Duration::from_millis(1)).await;
        assert!(!shard.is_proven());
        shard.prove(Instant::now());
        shard.prove(read);
        assert!(shard.is_proven(), "an older reading takes nothing back");
        assert!(PROOF < TAKE_OVER);
    }
}
