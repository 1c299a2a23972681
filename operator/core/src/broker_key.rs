//! When two TaskQueues are on the same broker.
//!
//! Two queues share a connection, a heartbeat stream and a place in one worker's `-Q` exactly if they name their
//! broker in the same way: same namespace, same address or Secret key, same options. This module compares names
//! and never resolves one: reading a Secret is I/O, and the address in it may change under the same name.

use std::fmt;

use poolwright_api::v1alpha1::{Broker, RabbitmqOptions, RedisOptions};
use serde_json::Value;

use crate::canonical::{canonical, digest};

/// How a broker is addressed. `Debug` and `Display` leave out user information.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BrokerAddress {
    /// A URL in the spec.
    Url(String),
    /// A key of a Secret in the same namespace that holds the URL.
    Secret {
        /// Name of the Secret.
        name: String,
        /// Key in it.
        key: String,
    },
}

/// The identity of a broker for connections, samples and WorkerPools.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BrokerKey {
    /// Namespace of the TaskQueues: Secrets are read there.
    pub namespace: String,
    /// The address, or where it is read.
    pub address: BrokerAddress,
    /// All other options of `spec.broker`, as canonical JSON.
    options: String,
}

impl BrokerKey {
    /// The key of `broker` as written in a TaskQueue of `namespace`. A broker without any address (which
    /// admission refuses) has an empty URL.
    #[must_use]
    pub fn new(namespace: &str, broker: &Broker) -> Self {
        let address = match (&broker.url_secret_ref, &broker.url) {
            (Some(secret), _) => BrokerAddress::Secret {
                name: secret.name.clone(),
                key: secret.key.clone(),
            },
            (None, url) => BrokerAddress::Url(url.clone().unwrap_or_default()),
        };
        // An option object that holds nothing but defaults is the same as none.
        let mut broker = broker.clone();
        broker.redis = broker.redis.filter(|redis| *redis != RedisOptions::default());
        broker.rabbitmq = broker
            .rabbitmq
            .filter(|rabbitmq| *rabbitmq != RabbitmqOptions::default());
        let mut options = serde_json::to_value(&broker).unwrap_or_default();
        if let Value::Object(members) = &mut options {
            members.remove("url");
            members.remove("urlSecretRef");
        }
        Self {
            namespace: namespace.to_owned(),
            address,
            options: canonical(&options),
        }
    }

    /// A short text that is equal exactly for equal keys (64 bits of a SHA-256): `namespace/0123456789abcdef`.
    /// It holds no address.
    #[must_use]
    pub fn id(&self) -> String {
        let address = match &self.address {
            BrokerAddress::Url(url) => serde_json::json!({"url": url}),
            BrokerAddress::Secret { name, key } => serde_json::json!({"name": name, "key": key}),
        };
        let text = format!("{}\n{}\n{}", self.namespace, canonical(&address), self.options);
        format!("{}/{}", self.namespace, digest(&text, 16))
    }

    /// In which respect `other` differs, for a message: both addresses, or the option. `None` if it does not.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Option<String> {
        if self.namespace != other.namespace {
            return Some(format!("namespace {} and {}", self.namespace, other.namespace));
        }
        if self.address != other.address {
            return Some(format!("{} and {}", self.address, other.address));
        }
        let (mine, theirs) = (members(&self.options), members(&other.options));
        let name = mine
            .iter()
            .chain(&theirs)
            .find(|(name, _)| find(&mine, name) != find(&theirs, name))
            .map(|(name, _)| name.clone())?;
        Some(format!(
            "the same address with different options in spec.broker.{name}"
        ))
    }
}

impl fmt::Display for BrokerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

impl fmt::Display for BrokerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(url) => f.write_str(&without_user_info(url)),
            Self::Secret { name, key } => write!(f, "Secret {name}, key {key}"),
        }
    }
}

impl fmt::Debug for BrokerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BrokerAddress({self})")
    }
}

/// True if any of the (`;`-separated) addresses in `url` names a user or a password.
#[must_use]
pub fn has_user_info(url: &str) -> bool {
    url.split(';').any(|part| authority(part).2.contains('@'))
}

/// `url` without users, passwords, queries and fragments, in each of its `;`-separated addresses.
#[must_use]
pub fn without_user_info(url: &str) -> String {
    let parts = url.split(';').map(|part| {
        let (scheme, separator, rest) = authority(part);
        let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
        let host = host.split(['?', '#']).next().unwrap_or_default();
        format!("{scheme}{separator}{host}")
    });
    parts.collect::<Vec<_>>().join(";")
}

/// Scheme, separator, and all after it. A password may hold a `/` that nobody escaped, so user information is
/// looked for in the whole rest.
fn authority(part: &str) -> (&str, &str, &str) {
    part.split_once("://")
        .map_or(("", "", part), |(scheme, rest)| (scheme, "://", rest))
}

fn members(options: &str) -> Vec<(String, Value)> {
    match serde_json::from_str(options) {
        Ok(Value::Object(members)) => members.into_iter().collect(),
        _ => Vec::new(),
    }
}

fn find<'a>(members: &'a [(String, Value)], name: &str) -> Option<&'a Value> {
    members
        .iter()
        .find(|(other, _)| other == name)
        .map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::{Broker, BrokerKey, has_user_info, without_user_info};
    use serde_json::json;
    use std::collections::BTreeSet;

    fn key(namespace: &str, broker: serde_json::Value) -> BrokerKey {
        let broker: Broker = serde_json::from_value(broker).expect("a broker");
        BrokerKey::new(namespace, &broker)
    }

    #[test]
    fn brokers_differ_by_every_way_of_addressing_them() {
        let url = "redis://redis:6379/0";
        let keys = [
            key("a", json!({"url": url})),
            key("b", json!({"url": url})),
            key("a", json!({"url": "redis://redis:6379/1"})),
            key("a", json!({"urlSecretRef": {"name": "s", "key": "k"}})),
            key("a", json!({"urlSecretRef": {"name": "s", "key": "l"}})),
            key("a", json!({"urlSecretRef": {"name": "t", "key": "k"}})),
            key("a", json!({"url": url, "redis": {"keyPrefix": "app1:"}})),
            key("a", json!({"url": url, "redis": {"sentinelMaster": "m"}})),
            key(
                "a",
                json!({"url": url, "rabbitmq": {"managementUrl": "http://r:15672"}}),
            ),
            key("a", json!({"url": url, "controlExchange": "other"})),
            key("a", json!({"url": url, "eventExchange": "other"})),
            key(
                "a",
                json!({"url": url, "tls": {"caSecretRef": {"name": "ca", "key": "ca.crt"}}}),
            ),
            key("a", json!({"url": url, "tls": {"insecureSkipVerify": true}})),
        ];
        assert_eq!(keys.iter().collect::<BTreeSet<_>>().len(), keys.len());
        assert_eq!(
            keys.iter().map(BrokerKey::id).collect::<BTreeSet<_>>().len(),
            keys.len()
        );
        for (position, one) in keys.iter().enumerate() {
            for other in &keys[position + 1..] {
                assert!(one.difference(other).is_some(), "{one} {other}");
            }
            assert_eq!(one.difference(one), None);
        }
    }

    #[test]
    fn written_defaults_and_absent_ones_are_the_same_broker() {
        let short = key("a", json!({"url": "redis://r/0"}));
        let long = key(
            "a",
            json!({"url": "redis://r/0", "controlExchange": "celery", "redis": {}}),
        );
        assert_eq!(short, long);
    }

    #[test]
    fn no_secret_byte_is_printed() {
        for url in [
            "redis://user:hunter2@redis:6379/0",
            "amqp://u:hun/ter2@rabbit/%2f",
            "sentinel://:hunter2@a:26379;sentinel://:hunter2@b:26379",
            "redis://redis/0?password=hunter2",
        ] {
            let key = key("a", json!({"url": url}));
            for text in [
                key.to_string(),
                format!("{key:?}"),
                key.id(),
                without_user_info(url),
            ] {
                assert!(!text.contains("ter2"), "{text}");
            }
            assert_eq!(has_user_info(url), url.contains('@'));
        }
        assert_eq!(
            without_user_info("amqp://u:p@rabbit:5672/%2f"),
            "amqp://rabbit:5672/%2f"
        );
        assert_eq!(without_user_info("redis://r:6379/0"), "redis://r:6379/0");
    }
}
