//! How to connect to one broker, as its Secrets last said it.
//!
//! Decides when they are read again: a minute after the last time, give or take a quarter, and after a failure that a
//! changed Secret may mend. A broker that is only out of reach is no reason: an outage must not become a read per
//! second and broker at the API server. May not connect, and lets nothing of a Secret be seen.

use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use poolwright_core::broker::BrokerConfig;
use poolwright_core::constants::SECRET_INTERVAL;
use poolwright_core::sample::FaultKind;
use tokio::time::Instant;

use super::SignalError;
use super::poller::within;

/// Finds out how to connect: reads the Secrets that a broker's address needs.
pub trait Resolve: Send + Sync {
    /// The configuration as it is now.
    fn resolve(&self) -> BoxFuture<'_, Result<BrokerConfig, SignalError>>;
}

/// What was read last, and when to read again.
pub(super) struct Address {
    resolver: Arc<dyn Resolve>,
    config: Option<BrokerConfig>,
    again: Instant,
    /// The last failure may be one that another configuration mends.
    doubtful: bool,
    said: Option<String>,
}

impl Address {
    pub(super) fn new(resolver: Arc<dyn Resolve>) -> Self {
        Self {
            resolver,
            config: None,
            again: Instant::now(),
            doubtful: false,
            said: None,
        }
    }

    /// The configuration to connect with, read again where that is due. While the API server cannot be reached, the
    /// last one serves: the broker may be well.
    pub(super) async fn get(&mut self, broker: &str) -> Result<BrokerConfig, SignalError> {
        let settled = !self.doubtful && Instant::now() < self.again;
        if let Some(config) = self.config.as_ref().filter(|_| settled) {
            return Ok(config.clone());
        }
        let read = self.read().await;
        match self.take(read) {
            Err(error) if error.kind == FaultKind::Unreachable && self.config.is_some() => {
                self.warn(broker, &error.message);
                self.config.clone().ok_or(error)
            }
            read => read,
        }
    }

    /// Reads the Secrets, within a deadline. What comes of it is for [`Address::take`].
    pub(super) fn read(&self) -> BoxFuture<'static, Result<BrokerConfig, SignalError>> {
        let resolver = Arc::clone(&self.resolver);
        async move { within("reading the broker's Secret", resolver.resolve()).await }.boxed()
    }

    /// Notes what was read, and that it was read now.
    pub(super) fn take(
        &mut self,
        read: Result<BrokerConfig, SignalError>,
    ) -> Result<BrokerConfig, SignalError> {
        self.again = Instant::now() + SECRET_INTERVAL.mul_f64(0.75 + 0.5 * fastrand::f64());
        self.doubtful = false;
        if let Ok(config) = &read {
            self.config = Some(config.clone());
        }
        read
    }

    /// Notes why the broker could not be used.
    pub(super) fn failed(&mut self, kind: FaultKind) {
        self.doubtful = match kind {
            FaultKind::Refused
            | FaultKind::SecretMissing
            | FaultKind::SecretForbidden
            | FaultKind::InvalidAddress => true,
            FaultKind::Unreachable | FaultKind::QueueAbsent | FaultKind::Implausible => false,
        };
    }

    /// When the Secrets are to be read again.
    pub(super) fn again(&self) -> Instant {
        self.again
    }

    /// Says why a renewal came to nothing, once until it changes or one succeeds. True if it was said.
    pub(super) fn warn(&mut self, broker: &str, message: &str) -> bool {
        let news = self.said.as_deref() != Some(message);
        if news {
            tracing::warn!(broker, "the last known address serves on: {message}");
            self.said = Some(message.to_owned());
        }
        news
    }

    /// A renewal succeeded, so the next failure is news.
    pub(super) fn well(&mut self) {
        self.said = None;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::FutureExt;
    use futures::future::BoxFuture;
    use poolwright_core::broker::{BrokerConfig, BrokerOptions};
    use poolwright_core::sample::FaultKind;

    use super::{Address, Resolve};
    use crate::signals::SignalError;

    /// Reads well once; then the API server is out of reach once; then the Secret is gone.
    #[derive(Default)]
    struct Worse(AtomicUsize);

    impl Resolve for Worse {
        fn resolve(&self) -> BoxFuture<'_, Result<BrokerConfig, SignalError>> {
            let kind = match self.0.fetch_add(1, Ordering::SeqCst) {
                0 => None,
                1 => Some(FaultKind::Unreachable),
                _ => Some(FaultKind::SecretMissing),
            };
            let config = BrokerConfig::parse("redis://broker:6379/0", &BrokerOptions::default());
            async move {
                match kind {
                    Some(kind) => Err(SignalError::new(kind, "not read")),
                    None => Ok(config.unwrap()),
                }
            }
            .boxed()
        }
    }

    #[tokio::test]
    async fn the_last_address_stands_in_for_the_api_server_and_not_for_a_secret_that_is_gone() {
        let mut address = Address::new(Arc::new(Worse::default()));
        let first = address.get("b").await.unwrap();
        address.failed(FaultKind::Refused);
        assert!(
            address.get("b").await.unwrap() == first,
            "the API server is out of reach"
        );
        address.failed(FaultKind::Unreachable);
        assert!(
            address.get("b").await.unwrap() == first,
            "no reason to read again"
        );
        address.failed(FaultKind::Refused);
        let gone = address.get("b").await.unwrap_err();
        assert_eq!(gone.kind, FaultKind::SecretMissing);
    }

    #[tokio::test]
    async fn a_warning_is_given_once_until_it_changes() {
        let mut address = Address::new(Arc::new(Worse::default()));
        let said = ["gone", "gone", "forbidden", "gone"].map(|message| address.warn("b", message));
        assert_eq!(said, [true, false, true, true]);
        address.well();
        assert!(address.warn("b", "gone"));
    }
}
