//! The parts of an address and the checks of its options: pure text work for [`super::BrokerConfig::parse`].
//!
//! Decides what each part means. It may not put any part into an error, because every part can turn out to be a
//! piece of a badly escaped password.

use url::Url;

use super::{BrokerError, BrokerKind, HttpEndpoint, Secret, Tls};

/// The field of the management API's address.
pub(super) const MANAGEMENT: &str = "rabbitmq.managementUrl";

/// Most hosts that one address may list.
const MAX_HOSTS: usize = 16;
/// Most priority steps: what the resource definition lets through.
const MAX_STEPS: usize = 10;
/// Longest name or prefix, in characters: what the resource definition lets through.
pub(super) const MAX_NAME: usize = 255;
/// Longest virtual host: RabbitMQ's own limit.
const MAX_VIRTUAL_HOST: usize = 255;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Scheme {
    Redis,
    Rediss,
    Sentinel,
    Amqp,
    Amqps,
}

impl Scheme {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "redis" => Some(Self::Redis),
            "rediss" => Some(Self::Rediss),
            "sentinel" => Some(Self::Sentinel),
            "amqp" | "pyamqp" => Some(Self::Amqp),
            "amqps" => Some(Self::Amqps),
            _ => None,
        }
    }

    fn default_port(self) -> u16 {
        match self {
            Self::Redis | Self::Rediss => 6379,
            Self::Sentinel => 26379,
            Self::Amqp => 5672,
            Self::Amqps => 5671,
        }
    }

    pub(super) fn kind(self) -> BrokerKind {
        match self {
            Self::Amqp | Self::Amqps => BrokerKind::RabbitMq,
            _ => BrokerKind::Redis,
        }
    }
}

/// One `;`-divided part of an address.
pub(super) struct Part {
    pub(super) scheme: Scheme,
    pub(super) host: (String, u16),
    pub(super) username: Option<String>,
    pub(super) password: Option<String>,
    /// Everything after the first slash, still encoded.
    pub(super) path: String,
}

pub(super) fn part(text: &str) -> Result<Part, BrokerError> {
    let (scheme, _) = text.split_once("://").ok_or(BrokerError::Scheme)?;
    let scheme = Scheme::parse(&scheme.to_ascii_lowercase()).ok_or(BrokerError::Scheme)?;
    if text.contains('#') {
        return Err(BrokerError::Ambiguous("#"));
    }
    let url = Url::parse(text).map_err(|e| match e {
        url::ParseError::EmptyHost => BrokerError::Host,
        _ => BrokerError::Syntax,
    })?;
    if url.path().contains('@') || url.query().is_some_and(|q| q.contains('@')) {
        return Err(BrokerError::Ambiguous("@"));
    }
    let host = url
        .host_str()
        .filter(|h| !h.is_empty())
        .ok_or(BrokerError::Host)?;
    let host = decode(host.trim_start_matches('[').trim_end_matches(']')).ok_or(BrokerError::Syntax)?;
    if host.is_empty()
        || host
            .chars()
            .any(|c| c.is_control() || c.is_whitespace() || c == '@')
    {
        return Err(BrokerError::Host);
    }
    Ok(Part {
        scheme,
        host: (host, url.port().unwrap_or_else(|| scheme.default_port())),
        username: credential(url.username())?,
        password: url.password().map(credential).transpose()?.flatten(),
        path: url.path().strip_prefix('/').unwrap_or_default().to_owned(),
    })
}

pub(super) fn check_parts(parts: &[Part]) -> Result<(), BrokerError> {
    let Some(first) = parts.first() else {
        return Err(BrokerError::Host);
    };
    let (label, most) = match first.scheme {
        Scheme::Redis | Scheme::Rediss => ("Redis", 1),
        Scheme::Sentinel => ("Sentinel", MAX_HOSTS),
        Scheme::Amqp | Scheme::Amqps => ("RabbitMQ", MAX_HOSTS),
    };
    if parts.iter().any(|p| p.scheme != first.scheme) {
        return Err(BrokerError::Parts("scheme"));
    }
    if parts.len() > most {
        return Err(BrokerError::Hosts(label, most));
    }
    if !agree(parts.iter().map(|p| p.username.as_deref()))
        || !agree(parts.iter().map(|p| p.password.as_deref()))
    {
        return Err(BrokerError::Parts("user name and password"));
    }
    if !agree(
        parts
            .iter()
            .map(|p| Some(p.path.as_str()).filter(|path| !path.is_empty())),
    ) {
        return Err(BrokerError::Parts("database or virtual host"));
    }
    Ok(())
}

/// True if all values that are there are the same.
fn agree<'a>(values: impl Iterator<Item = Option<&'a str>>) -> bool {
    let mut present = values.flatten();
    present
        .next()
        .is_none_or(|first| present.all(|other| other == first))
}

fn credential(text: &str) -> Result<Option<String>, BrokerError> {
    Ok(Some(decode(text).ok_or(BrokerError::Syntax)?).filter(|t| !t.is_empty()))
}

/// Percent-decoding; `None` if the result is not UTF-8. A `%` that begins no escape stands for itself, as in
/// Python's `unquote`.
fn decode(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let escaped = (byte == b'%').then(|| bytes.get(at + 1..at + 3)).flatten();
        let value = escaped.filter(|pair| pair.iter().all(u8::is_ascii_hexdigit));
        let value = value.and_then(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
        out.push(value.unwrap_or(byte));
        at += if value.is_some() { 3 } else { 1 };
    }
    String::from_utf8(out).ok()
}

pub(super) fn database(path: &str) -> Result<u32, BrokerError> {
    match path.trim_start_matches('/') {
        "" => Ok(0),
        digits if digits.bytes().all(|b| b.is_ascii_digit()) => {
            digits.parse().map_err(|_| BrokerError::Database)
        }
        _ => Err(BrokerError::Database),
    }
}

pub(super) fn virtual_host(path: &str) -> Result<String, BrokerError> {
    let name = decode(path).ok_or(BrokerError::Syntax)?;
    if name.len() > MAX_VIRTUAL_HOST || name.chars().any(char::is_control) {
        return Err(BrokerError::VirtualHost);
    }
    Ok(if name.is_empty() { "/".to_owned() } else { name })
}

pub(super) fn tls(scheme: Scheme, given: Option<&Tls>) -> Result<Option<Tls>, BrokerError> {
    if given.is_some_and(|t| t.client_cert_pem.is_some() != t.client_key_pem.is_some()) {
        return Err(BrokerError::ClientCertificate);
    }
    match (scheme, given) {
        (Scheme::Rediss | Scheme::Amqps, given) => Ok(Some(given.cloned().unwrap_or_default())),
        (Scheme::Sentinel, given) => Ok(given.cloned()),
        (Scheme::Redis, Some(_)) => Err(BrokerError::TlsScheme("redis")),
        (Scheme::Amqp, Some(_)) => Err(BrokerError::TlsScheme("amqp")),
        (Scheme::Redis | Scheme::Amqp, None) => Ok(None),
    }
}

pub(super) fn steps(given: &[u8]) -> Result<Vec<u8>, BrokerError> {
    let mut steps = given.to_vec();
    steps.sort_unstable();
    steps.dedup();
    if steps.is_empty() || steps.len() > MAX_STEPS || steps.len() != given.len() {
        return Err(BrokerError::PrioritySteps);
    }
    Ok(steps)
}

pub(super) fn sentinel_master(scheme: Scheme, given: Option<&str>) -> Result<Option<String>, BrokerError> {
    match (scheme, given) {
        (Scheme::Sentinel, None) => Err(BrokerError::SentinelMaster),
        (Scheme::Sentinel, Some(master)) => name(master, "redis.sentinelMaster").map(Some),
        _ => Ok(None),
    }
}

pub(super) fn name(text: &str, field: &'static str) -> Result<String, BrokerError> {
    if text.is_empty() {
        return Err(BrokerError::Empty(field));
    }
    prefix(text, field)
}

/// May be empty: that is none.
pub(super) fn prefix(text: &str, field: &'static str) -> Result<String, BrokerError> {
    if text.chars().count() > MAX_NAME || text.chars().any(|one| one.is_ascii_control()) {
        return Err(BrokerError::Name(field));
    }
    Ok(text.to_owned())
}

pub(super) fn endpoint(text: &Secret, field: &'static str) -> Result<HttpEndpoint, BrokerError> {
    let wrong = || BrokerError::Http(field);
    let mut url = Url::parse(text.expose().trim()).map_err(|_| wrong())?;
    if !matches!(url.scheme(), "http" | "https") || url.path().contains('@') || url.fragment().is_some() {
        return Err(wrong());
    }
    let username = credential(url.username())?;
    let password = url.password().map(credential).transpose()?.flatten().map(Secret);
    url.set_username("").map_err(|()| wrong())?;
    url.set_password(None).map_err(|()| wrong())?;
    url.set_query(None);
    Ok(HttpEndpoint {
        url: url.as_str().trim_end_matches('/').to_owned(),
        username,
        password,
    })
}

/// Whether the broker's login may be sent to the management API: to no other host than those that the address with that
/// login names, and by TLS where the broker gets it so. Whoever writes a `TaskQueue` may not read the Secret that it is in.
pub(super) fn may_have_the_login(
    management: &HttpEndpoint,
    hosts: &[(String, u16)],
    by_tls: bool,
) -> Result<(), BrokerError> {
    let url = Url::parse(&management.url).map_err(|_| BrokerError::Http(MANAGEMENT))?;
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    if !hosts.iter().any(|(one, _)| one.eq_ignore_ascii_case(host)) {
        return Err(BrokerError::Elsewhere(MANAGEMENT));
    }
    if by_tls && url.scheme() != "https" {
        return Err(BrokerError::InClear(MANAGEMENT));
    }
    Ok(())
}
