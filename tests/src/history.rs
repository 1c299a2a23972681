//! How replicas moved: every change of a Deployment's `spec.replicas`, and of how many pods take work, as watches told it.

use futures::StreamExt;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, ResourceExt};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;
use tokio::task::JoinHandle;

/// One moment at which a Deployment's `spec.replicas` was seen to differ from before.
#[derive(Clone, Debug)]
pub struct Step {
    /// When the watch said so.
    pub at: Instant,
    /// The Deployment; empty name never occurs.
    pub deployment: String,
    /// The WorkerPool that it belongs to.
    pub pool: String,
    /// Its `spec.replicas`; `None` when it was deleted.
    pub replicas: Option<i32>,
}

/// The changes in one namespace since it was followed.
#[derive(Debug)]
pub struct History {
    steps: Arc<Mutex<Vec<Step>>>,
    consuming: Arc<Mutex<Vec<Consuming>>>,
    watches: [JoinHandle<()>; 2],
}

/// A change of the pods of a WorkerPool that take work: those that are neither parked nor being deleted.
#[derive(Clone, Debug)]
pub struct Consuming {
    /// When the watch said so.
    pub at: Instant,
    /// The WorkerPool.
    pub pool: String,
    /// How many there were then.
    pub count: i32,
    /// The pod that came or went, or changed in another way.
    pub pod: String,
}

impl Drop for History {
    fn drop(&mut self) {
        for watch in &self.watches {
            watch.abort();
        }
    }
}

impl History {
    /// Follows the Deployments and the pods of all WorkerPools.
    pub fn follow(deployments: Api<Deployment>, pods: Api<Pod>) -> Self {
        let (steps, consuming) = (Arc::default(), Arc::default());
        let watches = [
            tokio::spawn(follow(deployments, Arc::clone(&steps))),
            tokio::spawn(count(pods, Arc::clone(&consuming))),
        ];
        Self {
            steps,
            consuming,
            watches,
        }
    }

    /// Most pods of a WorkerPool that took work at a time, since then.
    pub fn most_consuming(&self, pool: &str, since: Instant) -> i32 {
        let own = self.consuming(pool, since).into_iter();
        own.map(|one| one.count).max().unwrap_or(0)
    }

    /// How the pods of a WorkerPool that take work changed since then.
    pub fn consuming(&self, pool: &str, since: Instant) -> Vec<Consuming> {
        let all = self.consuming.lock().expect("no reader panics");
        let own = all.iter().filter(|one| one.pool == pool && one.at > since);
        own.cloned().collect()
    }

    /// Every change so far.
    pub fn steps(&self) -> Vec<Step> {
        self.steps.lock().expect("no reader panics").clone()
    }

    /// Σ of replicas over all Deployments of a WorkerPool, at each change.
    pub fn sums(&self, pool: &str) -> Vec<(Instant, i32)> {
        let mut now: BTreeMap<String, i32> = BTreeMap::new();
        let steps = self.steps().into_iter().filter(|step| step.pool == pool);
        steps
            .map(|step| {
                now.insert(step.deployment, step.replicas.unwrap_or(0));
                (step.at, now.values().sum())
            })
            .collect()
    }

    /// Largest Σ of replicas over all Deployments of a WorkerPool.
    pub fn peak(&self, pool: &str) -> i32 {
        self.sums(pool).into_iter().map(|(_, sum)| sum).max().unwrap_or(0)
    }

    /// The moments at which a WorkerPool's Σ of replicas rose.
    pub fn scale_ups(&self, pool: &str) -> Vec<Instant> {
        let mut before = 0;
        let rises = self
            .sums(pool)
            .into_iter()
            .filter(|(_, sum)| std::mem::replace(&mut before, *sum) < *sum);
        rises.map(|(at, _)| at).collect()
    }

    /// Changes of direction in a WorkerPool's replicas: up after down or down after up.
    pub fn reversals(&self, pool: &str) -> usize {
        let (mut last_sum, mut last_direction, mut turns) = (0, 0, 0);
        for (_, sum) in self.sums(pool) {
            let direction = (sum - last_sum).signum();
            if direction != 0 {
                turns += usize::from(last_direction != 0 && direction != last_direction);
                (last_direction, last_sum) = (direction, sum);
            }
        }
        turns
    }
}

async fn count(pods: Api<Pod>, consuming: Arc<Mutex<Vec<Consuming>>>) {
    let config = watcher::Config::default().labels(poolwright_api::LABEL_WORKER_POOL);
    let mut seen: BTreeMap<String, String> = BTreeMap::new();
    let mut events = watcher(pods, config).default_backoff().boxed();
    while let Some(event) = events.next().await {
        let (pod, gone) = match event {
            Ok(watcher::Event::Apply(one) | watcher::Event::InitApply(one)) => (one, false),
            Ok(watcher::Event::Delete(one)) => (one, true),
            // What went while nobody watched is in no event.
            Ok(watcher::Event::Init) => {
                seen.clear();
                continue;
            }
            _ => continue,
        };
        let pool = pod.labels().get(poolwright_api::LABEL_WORKER_POOL);
        let pool = pool.cloned().unwrap_or_default();
        let cost = pod
            .annotations()
            .get("controller.kubernetes.io/pod-deletion-cost");
        let parked = cost.is_some_and(|cost| cost.starts_with('-'));
        if gone || parked || pod.metadata.deletion_timestamp.is_some() {
            seen.remove(&pod.name_any());
        } else {
            seen.insert(pod.name_any(), pool.clone());
        }
        let count = seen.values().filter(|name| **name == pool).count();
        let one = Consuming {
            at: Instant::now(),
            count: i32::try_from(count).unwrap_or(i32::MAX),
            pod: pod.name_any(),
            pool,
        };
        consuming.lock().expect("no reader panics").push(one);
    }
}

async fn follow(deployments: Api<Deployment>, history: Arc<Mutex<Vec<Step>>>) {
    let config = watcher::Config::default().labels(poolwright_api::LABEL_WORKER_POOL);
    let mut seen: BTreeMap<String, i32> = BTreeMap::new();
    let mut events = watcher(deployments, config).default_backoff().boxed();
    while let Some(event) = events.next().await {
        let (object, replicas) = match event {
            Ok(watcher::Event::Apply(one) | watcher::Event::InitApply(one)) => {
                let replicas = one.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
                (one, Some(replicas))
            }
            Ok(watcher::Event::Delete(one)) => (one, None),
            _ => continue,
        };
        let deployment = object.name_any();
        let before = match replicas {
            Some(replicas) => seen.insert(deployment.clone(), replicas),
            None => seen.remove(&deployment),
        };
        if before != replicas {
            let pool = object.labels().get(poolwright_api::LABEL_WORKER_POOL);
            history.lock().expect("no reader panics").push(Step {
                at: Instant::now(),
                pool: pool.cloned().unwrap_or_default(),
                deployment,
                replicas,
            });
        }
    }
}
