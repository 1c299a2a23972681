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
