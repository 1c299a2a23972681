//! A source whose commands pass the [`Gate`]: whoever has lost the lease tells no worker anything.
//!
//! Questions pass freely, they change nothing. A command has no resourceVersion that a newer leader could refuse it by, so
//! the look at the clock before each step of sending it is all that there is. One that is late all the same undoes nothing
//! for good: what a worker says is compared with what its pod's mark asks for again and again, by whoever leads.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use poolwright_core::broker::BrokerConfig;
use poolwright_core::sample::FaultKind;

use super::celery::Command;
use super::network::Network;
use super::{Heartbeat, NodeAnswer, Polled, SignalError, SignalSource, Wanted};
use crate::clock::Clock;
use crate::gate::Gate;

/// Connects to a real broker, behind this gate.
#[must_use]
pub fn connect(
    config: BrokerConfig,
    clock: Clock,
    network: Network,
    gate: Gate,
) -> BoxFuture<'static, Result<Arc<dyn SignalSource>, SignalError>> {
    async move {
        let inner = super::connect(config, clock, network).await?;
        let gated: Arc<dyn SignalSource> = Arc::new(Gated { inner, gate });
        Ok(gated)
    }
    .boxed()
}

struct Gated {
    inner: Arc<dyn SignalSource>,
    gate: Gate,
}

impl SignalSource for Gated {
    fn poll<'a>(&'a self, wanted: &'a Wanted) -> BoxFuture<'a, Result<Polled, SignalError>> {
        self.inner.poll(wanted)
    }

    fn heartbeats(&self) -> BoxFuture<'_, Result<BoxStream<'static, Heartbeat>, SignalError>> {
        self.inner.heartbeats()
    }

    fn inquire<'a>(
        &'a self,
        nodes: &'a [String],
        sizes: bool,
        deadline: Duration,
    ) -> BoxFuture<'a, Result<Vec<NodeAnswer>, SignalError>> {
        self.inner.inquire(nodes, sizes, deadline)
    }

    fn command<'a>(
        &'a self,
        command: &'a Command,
        nodes: &'a [String],
    ) -> BoxFuture<'a, Result<(), SignalError>> {
        async move {
            let told = self.gate.guard(self.inner.command(command, nodes)).await;
            told.unwrap_or_else(|shut| Err(SignalError::new(FaultKind::Unreachable, shut.to_string())))
        }
        .boxed()
    }

    fn connections(&self) -> u64 {
        self.inner.connections()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use futures::StreamExt as _;
    use tokio::time::{Instant, sleep};

    use super::*;
    use crate::shard::Shard;

    const SECOND: Duration = Duration::from_secs(1);

    /// A broker that notes what it is asked, and takes a second to get a command.
    #[derive(Clone, Default)]
    struct Broker {
        told: Arc<Mutex<Vec<Command>>>,
        asked: Arc<Mutex<usize>>,
    }

    impl SignalSource for Broker {
        fn poll<'a>(&'a self, _: &'a Wanted) -> BoxFuture<'a, Result<Polled, SignalError>> {
            *self.asked.lock().unwrap() += 1;
            async { Ok(Polled::default()) }.boxed()
        }

        fn heartbeats(&self) -> BoxFuture<'_, Result<BoxStream<'static, Heartbeat>, SignalError>> {
            *self.asked.lock().unwrap() += 1;
            async { Ok(futures::stream::empty().boxed()) }.boxed()
        }

        fn inquire<'a>(
            &'a self,
            _: &'a [String],
            _: bool,
            _: Duration,
        ) -> BoxFuture<'a, Result<Vec<NodeAnswer>, SignalError>> {
            *self.asked.lock().unwrap() += 1;
            async { Ok(Vec::new()) }.boxed()
        }

        fn command<'a>(
            &'a self,
            command: &'a Command,
            _: &'a [String],
        ) -> BoxFuture<'a, Result<(), SignalError>> {
            async move {
                sleep(SECOND).await;
                self.told.lock().unwrap().push(command.clone());
                Ok(())
            }
            .boxed()
        }

        fn connections(&self) -> u64 {
            1
        }
    }

    fn behind(gate: &Gate) -> (Gated, Broker) {
        let (broker, gate) = (Broker::default(), gate.clone());
        let inner = Arc::new(broker.clone());
        (Gated { inner, gate }, broker)
    }

    fn park() -> Command {
        Command::CancelConsumer {
            queue: "q".to_owned(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_hold_the_lease_tells_no_worker_anything_and_may_ask() {
        let gate = Gate::shut();
        let (source, broker) = behind(&gate);
        let nodes = ["celery@pod".to_owned()];
        let refused = source.command(&park(), &nodes).await.unwrap_err();
        assert!(refused.message.contains("does not hold the lease"), "{refused}");
        sleep(SECOND * 10).await;
        assert!(broker.told.lock().unwrap().is_empty());
        source.poll(&Wanted::default()).await.unwrap();
        source.inquire(&nodes, true, SECOND).await.unwrap();
        let heard = source.heartbeats().await.unwrap();
        assert_eq!(heard.count().await, 0);
        assert_eq!(*broker.asked.lock().unwrap(), 3, "a question changes nothing");

        gate.open_until(Instant::now() + SECOND * 2);
        source.command(&park(), &nodes).await.unwrap();
        assert_eq!(broker.told.lock().unwrap().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_command_that_waits_for_its_connection_is_given_up_when_the_lease_is_lost() {
        let gate = Gate::shut();
        let (source, broker) = behind(&gate);
        gate.open_until(Instant::now() + SECOND / 2);
        assert!(source.command(&park(), &["celery@pod".to_owned()]).await.is_err());
        sleep(SECOND * 10).await;
        assert!(broker.told.lock().unwrap().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_shard_whose_labels_were_not_read_for_long_tells_no_worker_anything() {
        let shard = Shard::selected();
        let (source, broker) = behind(&Gate::open().within(shard.clone()));
        let nodes = ["celery@pod".to_owned()];
        assert!(source.command(&park(), &nodes).await.is_err());
        shard.prove(Instant::now());
        source.command(&park(), &nodes).await.unwrap();
        assert_eq!(broker.told.lock().unwrap().len(), 1);
    }
}
