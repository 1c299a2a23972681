//! Unacknowledged messages, which RabbitMQ tells over HTTP only.
//!
//! Reads all queues of the virtual host with one request a second, from the management API or from the
//! Prometheus endpoint. A slow or dead HTTP address must not hold up the live counts, so the request runs on its
//! own and a poll waits for it only while it has been answering. A value is repeated while it is younger than
//! [`MAX_AGE`]; after that the reading fails, because old is not unchanged. Credentials go into the request's
//! header and nowhere else; answers are bounded, redirects are not followed, no proxy is asked.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use poolwright_core::broker::{BrokerConfig, HttpEndpoint, Secret};
use poolwright_core::constants::{COMMAND_DEADLINE, MANAGEMENT_INTERVAL};
use poolwright_core::sample::FaultKind;
use reqwest::{Client, StatusCode, Url};
use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer as _};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::errors;
use crate::signals::SignalError;
use crate::signals::network::Network;
use crate::signals::web::{self, Broken};

/// Oldest value that is repeated.
const MAX_AGE: Duration = Duration::from_millis(1500);
/// How long a poll waits for a request, as long as requests succeed.
const PATIENCE: Duration = Duration::from_secs(1);
/// Largest answer: some 30,000 queues of the management API.
const MAX_BODY: usize = 8 << 20;
/// Most queues of an answer: short names would make very many of its bytes.
const MAX_QUEUES: usize = 32_768;

/// Unacknowledged messages by queue; `None` for a queue that is listed without a count.
pub(super) type Totals = HashMap<String, Option<u64>>;

/// Which of the two addresses is asked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    Management,
    Metrics,
}

impl Source {
    fn field(self) -> &'static str {
        match self {
            Self::Management => "managementUrl",
            Self::Metrics => "metricsUrl",
        }
    }
}

/// Reads unacknowledged counts.
pub(super) struct TotalsReader {
    request: Arc<Request>,
    state: Mutex<State>,
}

struct Request {
    source: Source,
    client: Client,
    network: Network,
    url: Url,
    endpoint: HttpEndpoint,
    virtual_host: String,
}

#[derive(Default)]
struct State {
    started: Option<Instant>,
    running: Option<JoinHandle<Result<Totals, SignalError>>>,
    latest: Option<(Instant, Arc<Totals>)>,
    fault: Option<SignalError>,
}

impl TotalsReader {
    /// A reader, if the configuration names an address; the management API is preferred, being live.
    pub(super) fn new(
        config: &BrokerConfig,
        tls: &rustls::ClientConfig,
        network: &Network,
    ) -> Result<Option<Self>, SignalError> {
        let (source, endpoint) = match (&config.management_url, &config.metrics_url) {
            (Some(endpoint), _) => (Source::Management, endpoint),
            (None, Some(endpoint)) => (Source::Metrics, endpoint),
            (None, None) => return Ok(None),
        };
        let url = url(source, &endpoint.url, &config.virtual_host).ok_or_else(|| {
            SignalError::new(
                FaultKind::InvalidAddress,
                format!("{} cannot be used", source.field()),
            )
        })?;
        let client = web::client(tls.clone(), network, &url, COMMAND_DEADLINE)
            .ok_or_else(|| SignalError::new(FaultKind::InvalidAddress, "the HTTP client cannot be set up"))?;
        let virtual_host = config.virtual_host.clone();
        let request = Arc::new(Request {
            source,
            client,
            network: network.clone(),
            url,
            endpoint: endpoint.clone(),
            virtual_host,
        });
        Ok(Some(Self {
            request,
            state: Mutex::default(),
        }))
    }

    /// The counts, at most [`MAX_AGE`] old.
    pub(super) async fn read(&self) -> Result<Arc<Totals>, SignalError> {
        let mut state = self.state.lock().await;
        if state.running.is_none() && state.started.is_none_or(|at| at.elapsed() >= MANAGEMENT_INTERVAL) {
            let request = Arc::clone(&self.request);
            state.started = Some(Instant::now());
            state.running = Some(tokio::spawn(async move { request.send().await }));
        }
        let patience = if state.fault.is_none() {
            PATIENCE
        } else {
            Duration::ZERO
        };
        if let Some(running) = &mut state.running
            && let Ok(ended) = tokio::time::timeout(patience, running).await
        {
            state.running = None;
            match ended.unwrap_or_else(|_| Err(errors::unreachable("the request was given up"))) {
                Ok(totals) => {
                    state.latest = Some((Instant::now(), Arc::new(totals)));
                    state.fault = None;
                }
                Err(error) => state.fault = Some(error),
            }
        }
        match (&state.latest, &state.fault) {
            (Some((at, totals)), _) if at.elapsed() < MAX_AGE => Ok(Arc::clone(totals)),
            (_, Some(error)) => Err(error.clone()),
            (_, None) => Err(errors::unreachable(format!(
                "{} is slow to answer",
                self.request.source.field()
            ))),
        }
    }
}

pub(super) fn url(source: Source, base: &str, virtual_host: &str) -> Option<Url> {
    let mut url = Url::parse(base).ok()?;
    match source {
        Source::Management => {
            url.path_segments_mut()
                .ok()?
                .pop_if_empty()
                .extend(["api", "queues", virtual_host]);
            url.set_query(Some("disable_stats=true&enable_queue_totals=true"));
        }
        Source::Metrics => {
            // The address that Prometheus scrapes is as good as the server's own.
            let path = url.path().trim_end_matches('/');
            let path = ["/detailed", "/per-object"]
                .iter()
                .find_map(|end| path.strip_suffix(end))
                .unwrap_or(path);
            let path = format!(
                "{}/metrics/detailed",
                path.strip_suffix("/metrics").unwrap_or(path)
            );
            url.set_path(&path);
            url.query_pairs_mut()
                .append_pair("family", "queue_coarse_metrics")
                .append_pair("vhost", virtual_host);
        }
    }
    Some(url)
}

impl Request {
    async fn send(&self) -> Result<Totals, SignalError> {
        let judged = self.network.check_literal(&self.url).await;
        judged.map_err(|unusable| unusable.error(self.source.field()))?;
        let mut request = self.client.get(self.url.clone());
        if let Some(username) = &self.endpoint.username {
            request = request.basic_auth(username, self.endpoint.password.as_ref().map(Secret::expose));
        }
        let response = request.send().await.map_err(|error| self.failed(&error))?;
        self.check(response.status())?;
        let body = web::body(response, MAX_BODY)
            .await
            .map_err(|broken| match broken {
                Broken::Long => self.fault(FaultKind::Implausible, "answers with more than 8 MiB"),
                Broken::Off(error) => self.failed(&error),
            })?;
        let totals = match self.source {
            Source::Management => management(&body),
            Source::Metrics => metrics(&body, &self.virtual_host),
        };
        totals.ok_or_else(|| {
            self.fault(
                FaultKind::Implausible,
                "answers with something else than counts of at most 32,768 queues",
            )
        })
    }

    fn check(&self, status: StatusCode) -> Result<(), SignalError> {
        Err(match status {
            StatusCode::OK => return Ok(()),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => self.fault(
                FaultKind::Refused,
                "refuses this user; the management API needs the user tag management or monitoring",
            ),
            StatusCode::NOT_FOUND => self.fault(
                FaultKind::InvalidAddress,
                "has no such path or virtual host; is it the server's root?",
            ),
            other if other.is_redirection() => self.fault(
                FaultKind::InvalidAddress,
                "answers with a redirect, which is not followed",
            ),
            other => self.fault(
                FaultKind::Unreachable,
                &format!("answers with status {}", other.as_u16()),
            ),
        })
    }

    fn failed(&self, error: &reqwest::Error) -> SignalError {
        let field = self.source.field();
        web::failed(error, (field, field), COMMAND_DEADLINE)
    }

    fn fault(&self, kind: FaultKind, words: &str) -> SignalError {
        SignalError::new(kind, format!("{} {words}", self.source.field()))
    }
}

#[derive(Deserialize)]
struct Row {
    name: String,
    messages_unacknowledged: Option<u64>,
}

/// Rows as they are read: never all of them and the counts at once, and no more than [`MAX_QUEUES`].
struct Rows;

impl<'de> Visitor<'de> for Rows {
    type Value = Totals;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "at most {MAX_QUEUES} queues")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut rows: A) -> Result<Totals, A::Error> {
        let mut totals = Totals::new();
        while let Some(row) = rows.next_element::<Row>()? {
            if totals.len() >= MAX_QUEUES {
                return Err(A::Error::invalid_length(totals.len() + 1, &self));
            }
            totals.insert(row.name, row.messages_unacknowledged);
        }
        Ok(totals)
    }
}

pub(super) fn management(body: &[u8]) -> Option<Totals> {
    let mut reader = serde_json::Deserializer::from_slice(body);
    let totals = reader.deserialize_seq(Rows).ok()?;
    reader.end().ok()?;
    Some(totals)
}

/// Reads the Prometheus text format. `None` if it holds no line of it at all.
pub(super) fn metrics(body: &[u8], virtual_host: &str) -> Option<Totals> {
    const NAME: &str = "rabbitmq_detailed_queue_messages_unacked";
    let text = std::str::from_utf8(body).ok()?;
    let mut totals = Totals::new();
    for line in text.lines() {
        let Some(rest) = line.strip_prefix(NAME).and_then(|rest| rest.strip_prefix('{')) else {
            continue;
        };
        let (labels, value) = labels(rest)?;
        let label = |name: &str| {
            labels
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| value.as_str())
        };
        if label("vhost") == Some(virtual_host)
            && let Some(queue) = label("queue")
        {
            if totals.len() >= MAX_QUEUES {
                return None;
            }
            totals.insert(queue.to_owned(), value.trim().parse().ok());
        }
    }
    // A virtual host without queues has no such line; the family's own comment tells it from another page.
    (!totals.is_empty() || text.contains("rabbitmq_") || text.trim().is_empty()).then_some(totals)
}

/// The labels up to the closing brace, and what follows it.
fn labels(mut rest: &str) -> Option<(Vec<(&str, String)>, &str)> {
    let mut found = Vec::new();
    loop {
        rest = rest.trim_start_matches(',');
        if let Some(after) = rest.strip_prefix('}') {
            return Some((found, after));
        }
        let (key, quoted) = rest.split_once("=\"")?;
        let mut value = String::new();
        let mut chars = quoted.char_indices();
        let end = loop {
            match chars.next()? {
                (at, '"') => break at,
                (_, '\\') => match chars.next()?.1 {
                    'n' => value.push('\n'),
                    other => value.push(other),
                },
                (_, other) => value.push(other),
            }
        };
        found.push((key, value));
        rest = quoted.get(end + 1..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_built_from_the_root_or_from_the_scrape_address() {
        let at = |source, base: &str, vhost: &str| url(source, base, vhost).expect("a URL").to_string();
        assert_eq!(
            at(Source::Management, "http://mq:15672", "/"),
            "http://mq:15672/api/queues/%2F?disable_stats=true&enable_queue_totals=true"
        );
        assert!(at(Source::Management, "http://mq/under", "a/b c").contains("/under/api/queues/a%2Fb%20c?"));
        let wanted = "http://mq:15692/metrics/detailed?family=queue_coarse_metrics&vhost=%2F";
        for base in [
            "http://mq:15692",
            "http://mq:15692/metrics",
            "http://mq:15692/metrics/per-object",
        ] {
            assert_eq!(at(Source::Metrics, base, "/"), wanted);
        }
    }

    #[test]
    fn management_rows_without_a_count_are_unknown() {
        let body =
            br#"[{"name":"a","messages_unacknowledged":3,"type":"classic"},{"name":"b","state":"down"}]"#;
        let totals = management(body).expect("rows");
        assert_eq!((totals["a"], totals["b"]), (Some(3), None));
        assert!(management(br#"{"error":"x"}"#).is_none());
        assert!(management(br#"[{"name":"a","messages_unacknowledged":-1}]"#).is_none());
    }

    #[test]
    fn no_answer_makes_more_queues_than_are_counted() {
        let rows = |count: usize| -> String {
            let rows: Vec<String> = (0..count)
                .map(|at| format!("{{\"name\":\"{at}\",\"messages_unacknowledged\":1}}"))
                .collect();
            format!("[{}]", rows.join(","))
        };
        let lines = |count: usize| -> String {
            let name = "rabbitmq_detailed_queue_messages_unacked";
            let lines: Vec<String> = (0..count)
                .map(|at| format!("{name}{{vhost=\"/\",queue=\"{at}\"}} 1"))
                .collect();
            lines.join("\n")
        };
        for (count, is_taken) in [(MAX_QUEUES, true), (MAX_QUEUES + 1, false)] {
            assert_eq!(management(rows(count).as_bytes()).is_some(), is_taken);
            assert_eq!(metrics(lines(count).as_bytes(), "/").is_some(), is_taken);
        }
    }

    #[test]
    fn metrics_are_read_with_escapes_and_for_one_virtual_host() {
        let body = "# TYPE rabbitmq_detailed_queue_messages_unacked gauge\n\
            rabbitmq_detailed_queue_messages_unacked{vhost=\"/\",queue=\"a\"} 4\n\
            rabbitmq_detailed_queue_messages_unacked{vhost=\"/\",queue=\"q\\\"}\\\\,\"} 2\n\
            rabbitmq_detailed_queue_messages_unacked{vhost=\"other\",queue=\"a\"} 9\n\
            rabbitmq_detailed_queue_messages_ready{vhost=\"/\",queue=\"a\"} 7\n";
        let totals = metrics(body.as_bytes(), "/").expect("metrics");
        assert_eq!(totals.len(), 2);
        assert_eq!((totals["a"], totals["q\"}\\,"]), (Some(4), Some(2)));
        assert!(metrics(b"<html>", "/").is_none());
        assert!(metrics(b"rabbitmq_detailed_queue_messages_unacked{vhost=\"/", "/").is_none());
    }

    #[test]
    fn values_that_are_no_count_are_no_number_and_have_a_reason() {
        use super::super::unacked;
        use poolwright_core::sample::Ready;

        let read = |value: &str| {
            let line =
                format!("rabbitmq_detailed_queue_messages_unacked{{vhost=\"/\",queue=\"a\"}} {value}\n");
            let totals = metrics(line.as_bytes(), "/").expect("metrics");
            unacked("a", &Ok(Ready::default()), Ok(&totals)).map(|unacked| unacked.due)
        };
        assert_eq!(read("1000000000").expect("a count"), 1_000_000_000);
        for value in [
            "NaN",
            "nan",
            "+Inf",
            "-Inf",
            "Inf",
            "-1",
            "-0.5",
            "2.5",
            "1e300",
            "1000000001",
            "18446744073709551616",
            "",
        ] {
            let error = read(value).expect_err(value);
            assert_eq!(error.kind, FaultKind::Implausible, "{value}: {error}");
            assert!(error.message.starts_with("RabbitMQ "), "{value}: {error}");
        }
    }
}
