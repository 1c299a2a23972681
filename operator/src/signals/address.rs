//! How to connect to one broker, as its Secrets last said it.
//!
//! Decides when they are read again: a minute after the last time, give or take a quarter, and after a failure that a
//! changed Secret may mend: at once, then ever more seldom while it mends nothing. A broker that is only out of reach is
//! no reason: neither an outage nor many brokers that refuse may become a read per second and broker at the API server.
//! May not connect, and lets nothing of a Secret be seen.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use poolwright_core::broker::BrokerConfig;
use poolwright_core::constants::SECRET_INTERVAL;
use poolwright_core::sample::FaultKind;
use tokio::time::Instant;

use super::SignalError;
use super::poller::within;

/// While reading again mends nothing, the pause between two readings: the first after the one at once, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));

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
    /// Not before this moment it is read for doubt, and how long after the next reading.
    earliest: Instant,
    pause: Duration,
    /// Why the last reading came to nothing.
    unread: Option<SignalError>,
    said: Option<String>,
}

impl Address {
    pub(super) fn new(resolver: Arc<dyn Resolve>) -> Self {
        Self {
            resolver,
            config: None,
            again: Instant::now(),
            doubtful: false,
            earliest: Instant::now(),
            pause: PAUSES.0,
            unread: None,
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
        if self.doubtful && Instant::now() < self.earliest {
            let known = self.unread.clone().map_or(Ok(()), Err);
            return known.and_then(|()| self.config.clone().ok_or_else(unread));
        }
        if self.doubtful {
            self.earliest = Instant::now() + self.pause;
            self.pause = (self.pause * 2).min(PAUSES.1);
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
            if self.config.as_ref() != Some(config) {
                self.trust();
            }
            self.config = Some(config.clone());
        }
        let lost = |error: &&SignalError| error.kind != FaultKind::Unreachable || self.config.is_none();
        self.unread = read.as_ref().err().filter(lost).cloned();
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
        self.trust();
    }

    /// The next failure may be mended by reading at once.
    fn trust(&mut self) {
        (self.earliest, self.pause) = (Instant::now(), PAUSES.0);
    }
}

/// Nothing was read yet, and it is too soon to read.
fn unread() -> SignalError {
    SignalError::new(
        FaultKind::Unreachable,
        "the broker's Secret is read again in some seconds",
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use futures::FutureExt;
    use futures::future::BoxFuture;
    use poolwright_core::broker::{BrokerConfig, BrokerOptions};
    use poolwright_core::sample::FaultKind;

    use super::{Address, PAUSES, Resolve};
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

    #[tokio::test(start_paused = true)]
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
        tokio::time::sleep(PAUSES.0).await;
        let gone = address.get("b").await.unwrap_err();
        assert_eq!(gone.kind, FaultKind::SecretMissing);
    }

    /// Always the same, and how often it was read.
    #[derive(Default)]
    struct Counted(AtomicUsize);

    impl Resolve for Counted {
        fn resolve(&self) -> BoxFuture<'_, Result<BrokerConfig, SignalError>> {
            self.0.fetch_add(1, Ordering::SeqCst);
            let config = BrokerConfig::parse("redis://broker:6379/0", &BrokerOptions::default());
            async move { Ok(config.unwrap()) }.boxed()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_secret_that_mends_nothing_is_read_ever_more_seldom() {
        let counted = Arc::new(Counted::default());
        let mut address = Address::new(Arc::clone(&counted) as Arc<dyn Resolve>);
        for _ in 0..120 {
            address.get("b").await.unwrap();
            address.failed(FaultKind::Refused);
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        // At 0, 0.5, 1.5, 3.5, 7.5, 15.5 s and then every ten.
        let reads = counted.0.load(Ordering::SeqCst);
        assert!((9..=12).contains(&reads), "{reads} reads in a minute");
        address.well();
        address.get("b").await.unwrap();
        assert_eq!(counted.0.load(Ordering::SeqCst), reads + 1);
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
