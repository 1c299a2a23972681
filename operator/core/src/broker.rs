//! What is needed to connect to a broker, read from an address as Celery and kombu write it.
//!
//! Decides which addresses are usable and what their parts mean. It may not connect, resolve names or read a
//! Secret: texts come in, a [`BrokerConfig`] or a reason comes out. User information (name and password) never
//! leaves through an error, through [`BrokerConfig::address`] or through `Debug`, because all three end up in
//! status fields and logs. An address in which a password's unescaped `#`, `?`, `/` or `@` could be taken for
//! another part is refused rather than guessed at.

mod address;

use std::fmt;

use poolwright_api::v1alpha1::Broker;

use address::{
    MANAGEMENT, MAX_NAME, Part, check_parts, database, endpoint, may_have_the_login, name, part, prefix,
    sentinel_master, steps, tls, virtual_host,
};

/// A text that is shown to nobody.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Secret(String);

impl Secret {
    /// Wraps a text.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for the one place that sends it to the broker.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// The kind of broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BrokerKind {
    /// Redis, directly or through Sentinel.
    Redis,
    /// RabbitMQ over AMQP 0-9-1.
    RabbitMq,
}

/// How to secure the connection. PEM texts, already read from their Secrets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tls {
    /// Certificate authorities to trust instead of the system's.
    pub ca_pem: Option<String>,
    /// The client's certificate chain; needs `client_key_pem`.
    pub client_cert_pem: Option<String>,
    /// The client's private key; needs `client_cert_pem`.
    pub client_key_pem: Option<Secret>,
    /// Trust any certificate for any name.
    pub insecure_skip_verify: bool,
}

/// An HTTP address and its own credentials.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct HttpEndpoint {
    /// `http(s)://host[:port][/path]`, without user information, query and trailing slash.
    pub url: String,
    /// User name, if any.
    pub username: Option<String>,
    /// Password, if any.
    pub password: Option<Secret>,
}

impl fmt::Debug for HttpEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

/// Everything about a broker that its address does not say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerOptions {
    /// kombu's `global_keyprefix` (Redis). Default: empty.
    pub key_prefix: String,
    /// kombu's `priority_steps` (Redis). Default: 0, 3, 6, 9.
    pub priority_steps: Vec<u8>,
    /// kombu's `master_name`; required for `sentinel://`.
    pub sentinel_master: Option<String>,
    /// RabbitMQ's management address; user information may be part of it.
    pub management_url: Option<Secret>,
    /// RabbitMQ's Prometheus address; user information may be part of it.
    pub metrics_url: Option<Secret>,
    /// TLS settings. `rediss://` and `amqps://` use the defaults when there are none.
    pub tls: Option<Tls>,
    /// Celery's `control_exchange`. Default: `celery`.
    pub control_exchange: String,
    /// Celery's `event_exchange`. Default: `celeryev`.
    pub event_exchange: String,
}

impl Default for BrokerOptions {
    fn default() -> Self {
        Self {
            key_prefix: String::new(),
            priority_steps: vec![0, 3, 6, 9],
            sentinel_master: None,
            management_url: None,
            metrics_url: None,
            tls: None,
            control_exchange: "celery".to_owned(),
            event_exchange: "celeryev".to_owned(),
        }
    }
}

/// What a TaskQueue says in plain text; what its Secrets hold is for the caller to add.
impl From<&Broker> for BrokerOptions {
    fn from(broker: &Broker) -> Self {
        let (redis, rabbitmq) = (broker.redis_options(), broker.rabbitmq_options());
        let steps = redis.priority_steps.iter();
        Self {
            key_prefix: redis.key_prefix.unwrap_or_default(),
            priority_steps: steps.filter_map(|step| u8::try_from(*step).ok()).collect(),
            sentinel_master: redis.sentinel_master,
            management_url: rabbitmq.management_url.map(Secret::new),
            metrics_url: rabbitmq.metrics_url.map(Secret::new),
            tls: broker.tls.as_ref().map(|tls| Tls {
                insecure_skip_verify: tls.insecure_skip_verify,
                ..Tls::default()
            }),
            control_exchange: broker.control_exchange.clone(),
            event_exchange: broker.event_exchange.clone(),
        }
    }
}

/// All that is needed to connect to one broker. Two equal values are the same broker seen by the same user.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct BrokerConfig {
    /// Redis or RabbitMQ.
    pub kind: BrokerKind,
    /// Host (IPv6 without brackets) and port, in the order of the address. The sentinels if `sentinel_master` is
    /// set; else one host for Redis, and for RabbitMQ one or more to try in turn.
    pub hosts: Vec<(String, u16)>,
    /// Set if the connection is to be encrypted.
    pub tls: Option<Tls>,
    /// User name; none means the broker's default user.
    pub username: Option<String>,
    /// Password. With Sentinel it is the Redis server's, and is offered to a sentinel only if that asks for one.
    pub password: Option<Secret>,
    /// Redis database.
    pub database: u32,
    /// RabbitMQ virtual host, decoded; `/` unless the address names one.
    pub virtual_host: String,
    /// Prefix of every key and channel (Redis).
    pub key_prefix: String,
    /// Priority steps, ascending and distinct (Redis).
    pub priority_steps: Vec<u8>,
    /// Name of the master that the sentinels are asked for; set exactly for `sentinel://`.
    pub sentinel_master: Option<String>,
    /// Celery's control exchange.
    pub control_exchange: String,
    /// Celery's event exchange.
    pub event_exchange: String,
    /// RabbitMQ management; with the broker's own credentials unless it brings its own.
    pub management_url: Option<HttpEndpoint>,
    /// RabbitMQ's Prometheus endpoint; without credentials unless it brings its own.
    pub metrics_url: Option<HttpEndpoint>,
}

impl fmt::Debug for BrokerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BrokerConfig({})", self.address())
    }
}

/// Why an address or its options cannot be used. Never holds a byte of user information.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BrokerError {
    /// The scheme is none of ours.
    #[error("the address must begin with redis://, rediss://, sentinel://, amqp:// or amqps://")]
    Scheme,
    /// The text is no URL.
    #[error("the address cannot be parsed; in a user name or password write / ? # @ : and % percent-encoded")]
    Syntax,
    /// A `#`, `?` or `@` where it can only be an unescaped part of a password.
    #[error(
        "the address has {0} in a place where it can only be meant as part of a password; percent-encode it"
    )]
    Ambiguous(&'static str),
    /// There is no host.
    #[error("the address names no host")]
    Host,
    /// The Redis path is no database number.
    #[error("the path of a Redis address must be a database number, such as /0")]
    Database,
    /// The virtual host is too long or holds control characters.
    #[error("the virtual host must be printable and at most 255 bytes long")]
    VirtualHost,
    /// The hosts of one address differ in more than host and port.
    #[error("the parts of an address that are divided by ; must agree in {0}")]
    Parts(&'static str),
    /// Too many hosts, or several for plain Redis.
    #[error("a {0} address takes at most {1} host(s) divided by ;")]
    Hosts(&'static str, usize),
    /// Sentinel without the master's name.
    #[error("a sentinel:// address needs redis.sentinelMaster")]
    SentinelMaster,
    /// TLS options for a scheme without TLS.
    #[error("tls is set, but the address begins with {0}://; write {0}s://")]
    TlsScheme(&'static str),
    /// A client certificate without its key, or the reverse.
    #[error("a TLS client certificate needs its key, and the key its certificate")]
    ClientCertificate,
    /// Unusable priority steps.
    #[error("redis.prioritySteps must hold 1 to 10 distinct numbers")]
    PrioritySteps,
    /// A name that is too long or holds control characters.
    #[error("{0} must have at most {MAX_NAME} characters, and no control characters")]
    Name(&'static str),
    /// A name that is written and empty.
    #[error("{0} must not be empty")]
    Empty(&'static str),
    /// Unusable management or metrics address.
    #[error("{0} must be an http:// or https:// address with a host")]
    Http(&'static str),
    /// A management address without a login, on another host than the broker's, whose login would be sent there.
    #[error(
        "{0} is on another host than the broker, whose user and password are not sent there: name the same host, or put \
         the address with a login of its own in a Secret and use {0}SecretRef"
    )]
    Elsewhere(&'static str),
    /// A management address without TLS and without a login, of a broker whose login is sent by TLS alone.
    #[error(
        "{0} is http, and the broker's user and password are not sent without TLS: use https, or put the address with a \
         login of its own in a Secret and use {0}SecretRef"
    )]
    InClear(&'static str),
}

impl BrokerConfig {
    /// Reads an address as kombu would, with the options that go with it.
    ///
    /// # Errors
    /// Says what is wrong, in words that hold nothing of the address's user information.
    pub fn parse(url: &str, options: &BrokerOptions) -> Result<Self, BrokerError> {
        let parts: Vec<Part> = url.trim().split(';').map(part).collect::<Result<_, _>>()?;
        let first = parts.first().ok_or(BrokerError::Host)?;
        let scheme = first.scheme;
        check_parts(&parts)?;
        let path = parts
            .iter()
            .map(|p| p.path.as_str())
            .find(|p| !p.is_empty())
            .unwrap_or("");
        let username = parts.iter().find_map(|p| p.username.clone());
        let password = parts.iter().find_map(|p| p.password.clone()).map(Secret);
        let (database, virtual_host) = match scheme.kind() {
            BrokerKind::Redis => (database(path)?, "/".to_owned()),
            BrokerKind::RabbitMq => (0, virtual_host(path)?),
        };
        let hosts: Vec<(String, u16)> = parts.iter().map(|p| p.host.clone()).collect();
        let tls = tls(scheme, options.tls.as_ref())?;
        let management = |url| {
            let own = endpoint(url, MANAGEMENT)?;
            if own.username.is_some() || username.is_none() && password.is_none() {
                return Ok(own);
            }
            may_have_the_login(&own, &hosts, tls.is_some())?;
            Ok(HttpEndpoint {
                username: username.clone(),
                password: password.clone(),
                ..own
            })
        };
        let management_url = options.management_url.as_ref().map(management).transpose()?;
        Ok(Self {
            kind: scheme.kind(),
            hosts,
            tls,
            username,
            password,
            database,
            virtual_host,
            key_prefix: prefix(&options.key_prefix, "redis.keyPrefix")?,
            priority_steps: steps(&options.priority_steps)?,
            sentinel_master: sentinel_master(scheme, options.sentinel_master.as_deref())?,
            control_exchange: name(&options.control_exchange, "controlExchange")?,
            event_exchange: name(&options.event_exchange, "eventExchange")?,
            management_url,
            metrics_url: options
                .metrics_url
                .as_ref()
                .map(|u| endpoint(u, "rabbitmq.metricsUrl"))
                .transpose()?,
        })
    }

    /// True where a flush or an empty failover reads as zero.
    #[must_use]
    pub fn zero_is_suspect(&self) -> bool {
        self.kind == BrokerKind::Redis
    }

    /// True if the broker itself tells how many messages are fetched and not acknowledged.
    #[must_use]
    pub fn unacked_known(&self) -> bool {
        self.kind == BrokerKind::Redis || self.management_url.is_some() || self.metrics_url.is_some()
    }

    /// The address for people: scheme, host, port, database or virtual host; never user information.
    #[must_use]
    pub fn address(&self) -> String {
        let scheme = match (self.kind, &self.sentinel_master, &self.tls) {
            (BrokerKind::Redis, Some(_), _) => "sentinel",
            (BrokerKind::Redis, None, None) => "redis",
            (BrokerKind::Redis, None, Some(_)) => "rediss",
            (BrokerKind::RabbitMq, _, None) => "amqp",
            (BrokerKind::RabbitMq, _, Some(_)) => "amqps",
        };
        let hosts: Vec<String> = self
            .hosts
            .iter()
            .map(|(host, port)| {
                if host.contains(':') {
                    format!("[{host}]:{port}")
                } else {
                    format!("{host}:{port}")
                }
            })
            .collect();
        let path = match self.kind {
            BrokerKind::Redis => self.database.to_string(),
            BrokerKind::RabbitMq if self.virtual_host == "/" => String::new(),
            BrokerKind::RabbitMq => self.virtual_host.clone(),
        };
        format!("{scheme}://{}/{path}", hosts.join(","))
    }
}

#[cfg(test)]
mod tests;
