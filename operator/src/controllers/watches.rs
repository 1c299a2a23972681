//! The watches of one namespace, or of all: what each change of an object marks.
//!
//! Decides nothing. Whoever starts them is told once when all have delivered their first list, because half a world would
//! look like pods that are gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use kube::runtime::watcher;
use kube::{Api, Client, Resource, ResourceExt};
use poolwright_api::LABEL_WORKER_POOL;
use poolwright_api::v1alpha1::{TaskQueue, WorkerPool};
use serde::de::DeserializeOwned;
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinSet};

use super::world::World;
use crate::kube::gaps::Gaps;
use crate::kube::index::{Group, Index, Read, follow};
use crate::kube::lenient::Lenient;
use crate::kube::watching;
use crate::signals::board::Board;

/// Kinds that are watched.
const KINDS: usize = 7;

/// What watches fill, and whom they wake.
#[derive(Clone)]
pub struct Watches {
    /// A client that waits for long.
    pub client: Client,
    /// What they fill.
    pub world: Arc<World>,
    /// Where the cycle waits for changes.
    pub board: Arc<Board>,
    /// Told when a TaskQueue changed.
    pub queues_changed: Arc<Notify>,
    /// What they cannot read.
    pub gaps: Gaps,
}

/// Those of one scope while they are started.
struct Started<'a> {
    watches: &'a Watches,
    scope: Option<&'a str>,
    parts: &'a mut JoinSet<&'static str>,
    handles: Vec<AbortHandle>,
    /// How many have not delivered their first list.
    missing: Arc<AtomicUsize>,
    synced: Arc<dyn Fn() + Send + Sync>,
}

impl Watches {
    /// Starts those of a namespace, or of all; `synced` is called once, when each has delivered its first list. They run
    /// until they are ended by what is returned.
    pub fn start(
        &self,
        parts: &mut JoinSet<&'static str>,
        scope: Option<&str>,
        synced: impl Fn() + Send + Sync + 'static,
    ) -> Vec<AbortHandle> {
        let mut started = Started {
            watches: self,
            scope,
            parts,
            handles: Vec::with_capacity(KINDS),
            missing: Arc::new(AtomicUsize::new(KINDS)),
            synced: Arc::new(synced),
        };
        started.intents();
        started.made();
        debug_assert_eq!(started.handles.len(), KINDS, "a kind is not counted");
        started.handles
    }

    /// Wakes who looks at TaskQueues and who decides.
    pub fn wake(&self) {
        self.queues_changed.notify_one();
        self.board.changed.notify_one();
    }
}

/// Whoever owns a WorkerPool that cannot be read is told so in its status.
fn shown(object: Lenient<WorkerPool>) -> WorkerPool {
    object
        .read()
        .unwrap_or_else(|unreadable| unreadable.into_worker_pool())
}

impl Started<'_> {
    /// What users write.
    fn intents(&mut self) {
        let any = watching;
        let world = Arc::clone(&self.watches.world);
        let (of, changed) = (Arc::clone(&world), Arc::clone(&self.watches.queues_changed));
        self.follow(
            any(),
            (&world.queues, Lenient::read),
            move |group, before, after| {
                let spec =
                    |queue: Option<&TaskQueue>| queue.map(|queue| (queue.metadata.generation, queue.uid()));
                if before.is_none() || after.is_none() || spec(before) != spec(after) {
                    of.mark_namespace(&group.0, Some(&group.1));
                    changed.notify_one();
                }
            },
        );
        let of = Arc::clone(&world);
        let read = |object: Lenient<WorkerPool>| Ok(shown(object));
        self.follow(any(), (&world.pools, read), move |group, before, after| {
            of.pool_changed(group, before, after);
        });
        let of = Arc::clone(&world);
        self.follow(any(), (&world.budgets, Lenient::read), move |group, _, _| {
            of.mark_budgets(&group.0, false);
        });
        let of = Arc::clone(&world);
        self.follow(
            any(),
            (&world.conflicts.autoscalers, Ok),
            move |group, before, after| {
                let target = |one: Option<&HorizontalPodAutoscaler>| {
                    one.and_then(|one| Some(one.spec.as_ref()?.scale_target_ref.clone()))
                };
                if target(before) != target(after) || after.is_none() {
                    of.mark_namespace(&group.0, None);
                }
            },
        );
    }

    /// What is made of it.
    fn made(&mut self) {
        let ours = || watching().labels(LABEL_WORKER_POOL);
        let world = Arc::clone(&self.watches.world);
        let mark = || {
            let of = Arc::clone(&world);
            move |group: &Group| of.mark(group, false)
        };
        let of = mark();
        self.follow(ours(), (&world.deployments, Ok), move |group, _, _| of(group));
        let of = mark();
        self.follow(ours(), (&world.sets, Ok), move |group, _, _| of(group));
        let of = mark();
        self.follow(ours(), (&world.pods, Ok), move |group, _, _| of(group));
    }

    fn follow<W, K, V>(
        &mut self,
        config: watcher::Config,
        (index, read): (&Arc<Index<K, V>>, Read<W, K>),
        changed: impl Fn(&Group, Option<&V>, Option<&V>) + Send + Sync + 'static,
    ) where
        W: Resource<Scope = NamespaceResourceScope>
            + Clone
            + DeserializeOwned
            + std::fmt::Debug
            + Send
            + Sync
            + 'static,
        W::DynamicType: Default,
        K: Resource + Send + Sync + 'static,
        V: Send + Sync + 'static,
    {
        let client = self.watches.client.clone();
        let api: Api<W> = match self.scope {
            Some(namespace) => Api::namespaced(client, namespace),
            None => Api::all(client),
        };
        let (missing, all_synced) = (Arc::clone(&self.missing), Arc::clone(&self.synced));
        let first = AtomicUsize::new(1);
        let synced = move || {
            if first.swap(0, Ordering::SeqCst) == 1 && missing.fetch_sub(1, Ordering::SeqCst) == 1 {
                all_synced();
            }
        };
        let scope = (
            self.scope.map(str::to_owned),
            self.watches.gaps.of::<W>(self.scope),
        );
        let index = Arc::clone(index);
        let board = Arc::clone(&self.watches.board);
        self.handles.push(self.parts.spawn(async move {
            let changed = move |group: &Group, before: Option<&V>, after: Option<&V>| {
                changed(group, before, after);
                board.changed.notify_one();
            };
            follow(api, config, scope, (index, read), synced, changed).await;
            "a watch"
        }));
    }
}
