//! What became of pods: who was parked, came back and went, as a watch told it.

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, ResourceExt};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;
use tokio::task::JoinHandle;

/// The annotation that marks a parked pod; every value below zero does.
const COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// What a pod was seen to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// It was created.
    Created,
    /// It got a mark.
    Parked,
    /// It lost its mark.
    Back,
    /// It began to be deleted, with or without a mark.
    Went {
        /// It had a mark.
        parked: bool,
        /// Its worker had started.
        started: bool,
    },
}

/// One thing that one pod did.
#[derive(Clone, Debug)]
pub struct Move {
    /// When the watch said so.
    pub at: Instant,
    /// The pod.
    pub pod: String,
    /// What it did.
    pub act: Act,
}

/// What the pods of one namespace have done since they were followed.
#[derive(Debug)]
pub struct Moves {
    moves: Arc<Mutex<Vec<Move>>>,
    watch: JoinHandle<()>,
}

impl Drop for Moves {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

impl Moves {
    /// Follows the pods of all WorkerPools.
    pub fn follow(pods: Api<Pod>) -> Self {
        let moves = Arc::default();
        let watch = tokio::spawn(follow(pods, Arc::clone(&moves)));
        Self { moves, watch }
    }

    /// All so far.
    pub fn all(&self) -> Vec<Move> {
        self.moves.lock().expect("no reader panics").clone()
    }

    /// How many moves satisfy a test.
    pub fn count(&self, test: impl Fn(Act) -> bool) -> usize {
        self.all().iter().filter(|one| test(one.act)).count()
    }

    /// Fails if a pod whose worker had started went without having been parked.
    pub fn expect_all_parked_first(&self) -> crate::Result<()> {
        let unparked = Act::Went {
            parked: false,
            started: true,
        };
        let all = self.all();
        let Some(one) = all.iter().find(|one| one.act == unparked) else {
            return Ok(());
        };
        let story: Vec<_> = all
            .iter()
            .filter(|other| other.pod == one.pod)
            .map(|other| {
                format!(
                    "{:?} {:.3} s before",
                    other.act,
                    (one.at - other.at).as_secs_f64()
                )
            })
            .collect();
        let story = story.join(", ");
        Err(format!("pod {} went without having been parked: {story}", one.pod).into())
    }
}

/// True if a pod carries the mark of a parked one.
pub fn is_parked(pod: &Pod) -> bool {
    let cost = pod.annotations().get(COST);
    cost.and_then(|cost| cost.parse::<i32>().ok())
        .is_some_and(|cost| cost < 0)
}

async fn follow(pods: Api<Pod>, moves: Arc<Mutex<Vec<Move>>>) {
    let config = watcher::Config::default().labels(poolwright_api::LABEL_WORKER_POOL);
    // Whether it is parked, and whether it is being deleted.
    let mut seen: BTreeMap<String, (bool, bool)> = BTreeMap::new();
    let mut events = watcher(pods, config).default_backoff().boxed();
    while let Some(event) = events.next().await {
        let Ok(watcher::Event::Apply(pod) | watcher::Event::InitApply(pod) | watcher::Event::Delete(pod)) =
            event
        else {
            continue;
        };
        let (name, parked, going) = (
            pod.name_any(),
            is_parked(&pod),
            pod.metadata.deletion_timestamp.is_some(),
        );
        let before = seen.insert(name.clone(), (parked, going));
        let was = before.unwrap_or_default();
        let statuses = pod
            .status
            .as_ref()
            .and_then(|status| status.container_statuses.as_ref());
        let started = statuses.is_some_and(|all| all.iter().any(|one| one.started == Some(true)));
        let acts = [
            before.is_none().then_some(Act::Created),
            (parked && !was.0).then_some(Act::Parked),
            (!parked && was.0).then_some(Act::Back),
            (going && !was.1).then_some(Act::Went { parked, started }),
        ];
        let mut moves = moves.lock().expect("no reader panics");
        moves.extend(acts.into_iter().flatten().map(|act| Move {
            at: Instant::now(),
            pod: name.clone(),
            act,
        }));
    }
}
