//! One poller for each broker that a TaskQueue names: started when the first does, stopped when the last is gone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kube::{Client, ResourceExt};
use poolwright_api::v1alpha1::Broker;
use poolwright_core::broker_key::BrokerKey;
use tokio::sync::{Notify, watch};

use super::secrets::Resolver;
use super::world::World;
use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::signals::board::Board;
use crate::signals::poller::Poller;
use crate::signals::{Connect, Wanted};

/// TaskQueues that change together are looked at together.
const COALESCE: Duration = Duration::from_millis(20);

/// Starts and stops pollers.
pub struct Supervisor {
    /// For reading Secrets.
    pub client: Client,
    /// TaskQueues.
    pub world: Arc<World>,
    /// Where readings go.
    pub board: Arc<Board>,
    /// Woken when a TaskQueue changed.
    pub changed: Arc<Notify>,
    /// Time between polls with few queues.
    pub base_interval: Duration,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// What connects.
    pub connect: Connect,
    /// Clocks.
    pub clock: Clock,
}

struct Need {
    namespace: String,
    broker: Broker,
    wanted: Wanted,
}

impl Supervisor {
    /// Runs for ever.
    pub async fn run(self) {
        let mut pollers: BTreeMap<String, watch::Sender<Wanted>> = BTreeMap::new();
        loop {
            let needs = self.needs();
            // Dropping the sender ends the poller.
            pollers.retain(|id, _| needs.contains_key(id));
            for (id, need) in needs {
                if let Some(sender) = pollers.get(&id) {
                    sender.send_if_modified(|wanted| {
                        let differs = *wanted != need.wanted;
                        *wanted = need.wanted;
                        differs
                    });
                } else {
                    let sender = self.start(&id, need);
                    pollers.insert(id, sender);
                }
            }
            self.changed.notified().await;
            tokio::time::sleep(COALESCE).await;
        }
    }

    fn needs(&self) -> BTreeMap<String, Need> {
        let mut needs: BTreeMap<String, Need> = BTreeMap::new();
        for queue in self.world.queues.all(None) {
            let namespace = queue.namespace().unwrap_or_default();
            let id = BrokerKey::new(&namespace, &queue.spec.broker).id();
            let need = needs.entry(id).or_insert_with(|| Need {
                namespace,
                broker: queue.spec.broker.clone(),
                wanted: Wanted {
                    queues: Vec::new(),
                    stray: true,
                },
            });
            let name = queue.queue_name().to_owned();
            need.wanted.stray &= name != "celery";
            need.wanted.queues.push(name);
        }
        for need in needs.values_mut() {
            need.wanted.queues.sort();
            need.wanted.queues.dedup();
        }
        needs
    }

    fn start(&self, id: &str, need: Need) -> watch::Sender<Wanted> {
        let (sender, wanted) = watch::channel(need.wanted);
        let resolver = Resolver {
            client: self.client.clone(),
            namespace: need.namespace,
            broker: need.broker,
        };
        let poller = Poller {
            id: id.to_owned(),
            board: Arc::clone(&self.board),
            resolver: Arc::new(resolver),
            connect: Arc::clone(&self.connect),
            wanted,
            base_interval: self.base_interval,
            clock: self.clock,
            metrics: Arc::clone(&self.metrics),
        };
        tokio::spawn(poller.keep_running());
        sender
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use futures::FutureExt as _;
    use poolwright_core::sample::FaultKind;

    use super::*;
    use crate::kube::no_cluster;
    use crate::signals::SignalError;

    fn wall() -> jiff::Timestamp {
        jiff::Timestamp::from_second(4_102_444_800).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn brokers_are_reached_by_what_was_handed_in_and_by_its_clock() {
        let world = Arc::new(World::default());
        let queue = serde_json::json!({
            "apiVersion": "poolwright.dev/v1alpha1", "kind": "TaskQueue",
            "metadata": {"namespace": "shop", "name": "mail", "uid": "u"},
            "spec": {"broker": {"url": "redis://broker.test:6379/7"}},
        });
        world.queues.put(serde_json::from_value(queue).unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let into = Arc::clone(&seen);
        let supervisor = Supervisor {
            // The address of the broker is in no Secret, so nobody is asked.
            client: no_cluster(),
            world,
            board: Arc::new(Board::default()),
            changed: Arc::new(Notify::new()),
            base_interval: Duration::from_millis(200),
            metrics: Arc::new(Metrics::default()),
            connect: Arc::new(move |config, clock| {
                into.lock().unwrap().push((config.address(), clock.wall()));
                async { Err(SignalError::new(FaultKind::Unreachable, "there is none")) }.boxed()
            }),
            clock: Clock::new(wall),
        };
        let running = tokio::spawn(supervisor.run());
        tokio::time::sleep(Duration::from_secs(1)).await;
        running.abort();
        let seen = seen.lock().unwrap();
        assert_eq!(
            seen.first(),
            Some(&("redis://broker.test:6379/7".to_owned(), wall()))
        );
    }
}
