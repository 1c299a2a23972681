//! Names of brokers and their addresses, looked up by the program itself.
//!
//! A name is looked up once for each connection, every address is judged by the [`Policy`], and the caller connects to
//! one of exactly these: a name that answers differently a moment later changes nothing. One refused address refuses the
//! name. Reads `/etc/resolv.conf` (search domains and `ndots` too) and `/etc/hosts` once, at the start, and caches no
//! answer. Opens no connection to a broker.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::join_all;
use hickory_resolver::config::{LookupIpStrategy, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::Name;
use hickory_resolver::{Resolver, TokioResolver};
use poolwright_core::constants::COMMAND_DEADLINE;
use poolwright_core::sample::FaultKind;
use reqwest::Url;
use reqwest::dns::{Addrs, Resolve, Resolving};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::SignalError;
use super::guard::{self, Host, Policy, Refusal};

/// The API server's names are looked up this often, while anything is connected to.
const API_SERVER_INTERVAL: Duration = Duration::from_secs(60);
/// And this often while one of them has no answer.
const API_SERVER_RETRY: Duration = Duration::from_secs(5);
/// For so long. A broker whose address needs no name server must be reached without one.
const API_SERVER_WAIT: Duration = Duration::from_millis(500);
/// A name server that has not answered for so long is asked again, once.
const ANSWER_TIME: Duration = Duration::from_millis(900);
/// Most addresses of one name that are tried.
const ADDRESSES_MAX: usize = 16;

/// Looks names up under a policy.
#[derive(Clone)]
pub struct Network(Arc<Inner>);

struct Inner {
    resolver: Option<TokioResolver>,
    policy: Policy,
    servers: Vec<(String, u16)>,
    known: Mutex<Known>,
}

/// The API server's addresses, as they were last found.
struct Known {
    addresses: BTreeSet<SocketAddr>,
    /// When to look again.
    again: Option<Instant>,
}

/// Why a host has no address to connect to.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Unusable {
    /// The policy refuses one.
    #[error("refused")]
    Refused(Refusal),
    /// There is none.
    #[error("{0}")]
    Unknown(String),
}

impl Unusable {
    fn unknown(words: &str) -> Self {
        Self::Unknown(words.to_owned())
    }

    /// The same for people; `field` is where the host comes from.
    #[must_use]
    pub fn error(&self, field: &str) -> SignalError {
        match self {
            Self::Refused(refusal) => SignalError::new(FaultKind::Refused, refusal.words(field)),
            Self::Unknown(words) => SignalError::new(FaultKind::Unreachable, format!("{field}: {words}")),
        }
    }

    /// The one behind an HTTP client's error, if there is one.
    #[must_use]
    pub fn behind(error: &reqwest::Error) -> Option<&Self> {
        let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
        while let Some(error) = next {
            if let Some(found) = error.downcast_ref::<Self>() {
                return Some(found);
            }
            next = error.source();
        }
        None
    }
}

impl Network {
    /// By this machine's resolver configuration. `servers` are the API server's hosts and ports.
    #[must_use]
    pub fn of_machine(policy: Policy, servers: Vec<(String, u16)>) -> Self {
        let resolver = Resolver::builder_tokio().and_then(|mut builder| {
            adapt(builder.options_mut());
            builder.build()
        });
        if let Err(error) = &resolver {
            tracing::warn!("no host name can be looked up: /etc/resolv.conf cannot be used: {error}");
        }
        Self::new(resolver.ok(), policy, servers)
    }

    /// By these name servers.
    ///
    /// # Errors
    /// They cannot be used.
    pub fn of_servers(
        config: ResolverConfig,
        policy: Policy,
        servers: Vec<(String, u16)>,
    ) -> Result<Self, SignalError> {
        let mut builder = Resolver::builder_with_config(config, TokioRuntimeProvider::default());
        adapt(builder.options_mut());
        let unusable = |_| SignalError::new(FaultKind::Unreachable, "these name servers cannot be used");
        Ok(Self::new(
            Some(builder.build().map_err(unusable)?),
            policy,
            servers,
        ))
    }

    fn new(resolver: Option<TokioResolver>, policy: Policy, servers: Vec<(String, u16)>) -> Self {
        let address = |(host, port): &(String, u16)| match guard::host(host) {
            Host::Address(ip) => Some(SocketAddr::new(ip, *port)),
            _ => None,
        };
        let known = Known {
            addresses: servers.iter().filter_map(address).collect(),
            again: None,
        };
        Self(Arc::new(Inner {
            resolver,
            policy,
            servers,
            known: Mutex::new(known),
        }))
    }

    /// The addresses to connect to; each has been judged.
    ///
    /// # Errors
    /// There is none, or one is refused.
    pub async fn resolve(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, Unusable> {
        let addresses = self.look_up(host).await?;
        let api = self.api_server().await;
        let addresses: Vec<SocketAddr> = addresses
            .into_iter()
            .map(|ip| SocketAddr::new(ip, port))
            .collect();
        for address in &addresses {
            self.0.policy.judge(*address, &api).map_err(Unusable::Refused)?;
        }
        Ok(addresses)
    }

    /// Judges a URL whose host is an address: an HTTP client asks no resolver about it. `Ok` for a name.
    ///
    /// # Errors
    /// It is refused.
    pub async fn check_literal(&self, url: &Url) -> Result<(), Unusable> {
        let host = url.host_str().unwrap_or_default();
        if guard::host(host) == Host::Name {
            return Ok(());
        }
        let port = url.port_or_known_default().unwrap_or_default();
        self.resolve(host, port).await.map(drop)
    }

    /// For an HTTP client that connects to this host and port alone.
    #[must_use]
    pub fn http(&self, url: &Url) -> Arc<HttpNames> {
        Arc::new(HttpNames {
            network: self.clone(),
            port: url.port_or_known_default().unwrap_or_default(),
        })
    }

    async fn look_up(&self, host: &str) -> Result<Vec<IpAddr>, Unusable> {
        let none = Unusable::Unknown(format!("the host name {host:?} has no address"));
        match guard::host(host) {
            Host::Address(address) => return Ok(vec![address]),
            Host::Name => {}
            Host::Neither => return Err(Unusable::unknown("the host is neither a name nor an IP address")),
        }
        let name = Name::from_utf8(host)
            .or_else(|_| Name::from_ascii(host))
            .map_err(|_| none.clone())?;
        let Some(resolver) = &self.0.resolver else {
            return Err(Unusable::unknown(
                "no name can be looked up: this machine names no name server",
            ));
        };
        let late = |_| Unusable::unknown("the name servers do not answer in time");
        let answer = tokio::time::timeout(COMMAND_DEADLINE, resolver.lookup_ip(name))
            .await
            .map_err(late)?;
        let found = answer.map_err(|error| {
            if error.is_no_records_found() {
                none.clone()
            } else {
                Unusable::Unknown(format!(
                    "the host name {host:?} could not be looked up: the name servers do not answer"
                ))
            }
        })?;
        let mut addresses: Vec<IpAddr> = found.iter().collect();
        addresses.truncate(ADDRESSES_MAX);
        if addresses.is_empty() {
            Err(none)
        } else {
            Ok(addresses)
        }
    }

    /// Where the API server is. A name that cannot be looked up now is where it was.
    async fn api_server(&self) -> BTreeSet<SocketAddr> {
        if self.0.policy.is_outside() {
            return BTreeSet::new();
        }
        let mut known = self.0.known.lock().await;
        let now = Instant::now();
        if known.again.is_none_or(|again| now >= again) {
            // Noted first: whoever waits here may give up, and the next one must not wait as long.
            known.again = Some(now + API_SERVER_RETRY);
            let look_up = async |(host, port): &(String, u16)| {
                let found = tokio::time::timeout(API_SERVER_WAIT, self.look_up(host))
                    .await
                    .ok()?
                    .ok()?;
                Some(
                    found
                        .into_iter()
                        .map(|ip| SocketAddr::new(ip, *port))
                        .collect::<Vec<_>>(),
                )
            };
            let found = join_all(self.0.servers.iter().map(look_up)).await;
            if found.iter().all(Option::is_some) {
                known.again = Some(now + API_SERVER_INTERVAL);
            }
            known.addresses.extend(found.into_iter().flatten().flatten());
        }
        known.addresses.clone()
    }
}

/// Both families, because a judged name is judged whole; no cache, because a broker that moves is followed at once.
fn adapt(options: &mut ResolverOpts) {
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    options.cache_size = 0;
    options.timeout = ANSWER_TIME;
    options.attempts = 2;
}

/// Looks names up for an HTTP client.
pub struct HttpNames {
    network: Network,
    port: u16,
}

impl Resolve for HttpNames {
    fn resolve(&self, name: reqwest::dns::Name) -> Resolving {
        let (network, port) = (self.network.clone(), self.port);
        async move {
            let found = network.resolve(name.as_str(), port).await?;
            let found: Addrs = Box::new(found.into_iter());
            Ok(found)
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests;
