//! Answers of workers, reduced to counts.
//!
//! Decides which replies belong to an inquiry, what they count and when it is complete. Task arguments are
//! skipped by the parser and never stored. A reply that cannot be read makes its worker's answer unreadable, in
//! fixed words; it never fails the inquiry.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use jiff::Timestamp;
use poolwright_core::later::Later;
use poolwright_core::sample::Answer;
use serde::Deserialize;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use tokio::time::Instant;

use super::begun::Begun;
use super::bindings::{Bindings, Bound, MAX_QUEUES, Route, Topics};
use super::{Envelope, MAX_INQUIRY_BYTES, MAX_REPLY_BYTES, Method, is_json, is_name};
use crate::signals::{NodeAnswer, eta_milliseconds};

/// Most distinct routes of tasks that one reply may name.
const MAX_ROUTES: usize = 4096;
/// Most bytes of names of exchanges, keys and queues in one reply: each worker's are kept for as long as it lives.
const MAX_ROUTE_BYTES: usize = 64 * 1024;
/// Most slots of one worker that are believed.
const SIZE_MAX: u64 = 1_000_000;

const NOT_JSON: &str = "unreadable: the answer is not JSON in UTF-8 (is task_serializer something else?)";
const SHAPE: &str = "unreadable: the answer does not have the expected shape";
const TOO_LARGE: &str = "unreadable: the answer is larger than 1 MiB";
const TOTAL: &str = "unreadable: the answers are larger than 4 MiB in all";
const MANY: &str = "unreadable: the answer names too many queues";

/// A task in an answer: its route and whether it is acknowledged. Arguments have no field and are skipped.
#[derive(Deserialize)]
struct Task {
    delivery_info: DeliveryInfo,
    #[serde(default)]
    acknowledged: Option<bool>,
    /// When it began, in seconds of Unix time by the worker's clock.
    #[serde(default)]
    time_start: Option<f64>,
}

#[derive(Deserialize)]
struct DeliveryInfo {
    #[serde(default)]
    exchange: Option<String>,
    routing_key: String,
}

#[derive(Deserialize)]
struct Scheduled {
    #[serde(default)]
    eta: Option<Eta>,
    request: Task,
}

/// A due time; whatever else stands there says nothing of when.
#[derive(Deserialize)]
#[serde(untagged)]
enum Eta {
    Text(String),
    Other(IgnoredAny),
}

impl Scheduled {
    /// In Unix milliseconds.
    fn due(&self) -> Option<i64> {
        match self.eta.as_ref()? {
            Eta::Text(text) => eta_milliseconds(text),
            Eta::Other(_) => None,
        }
    }
}

#[derive(Deserialize)]
struct Consumed {
    name: String,
    #[serde(default)]
    exchange: Option<Exchange>,
    #[serde(default)]
    routing_key: Option<String>,
}

#[derive(Deserialize)]
struct Exchange {
    #[serde(default)]
    name: String,
    #[serde(rename = "type", default)]
    kind: Option<String>,
}

#[derive(Deserialize)]
struct Stats {
    pool: Pool,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Pool {
    #[serde(default)]
    max_concurrency: Option<u64>,
    #[serde(default)]
    processes: Option<Vec<IgnoredAny>>,
}

impl Pool {
    /// Of processes only their number is true: the other stays what it was at the start.
    fn size(&self) -> Option<u64> {
        let processes = self.processes.as_ref().map(|all| all.len() as u64);
        processes
            .or(self.max_concurrency)
            .filter(|size| *size <= SIZE_MAX)
    }
}

/// `{"<node>": <reply>}` with exactly one entry.
struct OfNode<T>(String, T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OfNode<T> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct One<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for One<T> {
            type Value = OfNode<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with one entry")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let missing = || serde::de::Error::custom("empty");
                let (node, reply) = map.next_entry()?.ok_or_else(missing)?;
                match map.next_key::<IgnoredAny>()? {
                    None => Ok(OfNode(node, reply)),
                    Some(_) => Err(serde::de::Error::custom("more than one entry")),
                }
            }
        }
        deserializer.deserialize_map(One(std::marker::PhantomData))
    }
}

/// What one worker has answered so far.
#[derive(Debug, Default)]
struct Parts {
    active: Option<BTreeMap<Route, Begun>>,
    reserved: Option<BTreeMap<Route, u64>>,
    scheduled: Option<BTreeMap<Route, u64>>,
    later: Later,
    queues: Option<Bindings>,
    size: Option<u64>,
    unreadable: Option<&'static str>,
    /// When its first reply came: nothing in its answer is older.
    first: Option<Instant>,
}

/// What one worker has told, by route. Which queue a message came from is known by bindings, and those of the queues
/// that it consumes no longer are not in the answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    running: BTreeMap<Route, Begun>,
    reserved: BTreeMap<Route, u64>,
    scheduled: BTreeMap<Route, u64>,
    /// When these fall due.
    later: Later,
    /// The queues that it consumes, and how they are bound.
    pub bindings: Bindings,
    /// Slots of its execution pool, if it was asked for them.
    pub size: Option<u64>,
    /// How long ago it came when the inquiry ended, which lasts as long as its slowest worker.
    pub age: Duration,
}

impl Told {
    /// What it tells by queue. `known` are bindings that the same process has told of before: its own come first. It came
    /// at `wall`.
    #[must_use]
    pub fn answer(&self, known: &Bindings, wall: Timestamp) -> Answer {
        let mut answer = Answer {
            queues: self.bindings.queues(),
            later: self.later.clone(),
            ..Answer::default()
        };
        let bindings = self.bindings.clone().with(known);
        let topics = Topics::new();
        for (route, found) in &self.running {
            let sum = answer
                .running
                .entry(bindings.queue_of(route, &topics))
                .or_default();
            sum.acknowledged += found.acknowledged;
            sum.unacknowledged += found.unacknowledged;
            sum.ran = sum.ran.saturating_add(found.ran(wall));
        }
        for (route, count) in &self.reserved {
            *answer
                .reserved
                .entry(bindings.queue_of(route, &topics))
                .or_default() += count;
        }
        for (route, count) in &self.scheduled {
            *answer
                .scheduled
                .entry(bindings.queue_of(route, &topics))
                .or_default() += count;
        }
        answer
    }

    /// An answer of an idle worker that consumes these queues.
    #[cfg(test)]
    pub(crate) fn consuming(queues: &[&str]) -> Self {
        let queues = queues.iter().map(|queue| Bound::plain(queue));
        Self {
            bindings: queues.collect(),
            ..Self::default()
        }
    }

    /// An answer of an idle worker that consumes nothing, so long ago.
    #[cfg(test)]
    pub(crate) fn of_age(age: Duration) -> Self {
        Self {
            age,
            ..Self::default()
        }
    }
}

/// Gathers the replies of one inquiry: its methods, each under its own ticket, from the nodes that were asked.
#[derive(Debug)]
pub struct Collector {
    tickets: BTreeMap<String, Method>,
    nodes: BTreeMap<String, Parts>,
    bytes: usize,
}

impl Collector {
    /// An inquiry to these nodes, of which [`Method::ALL`] must be answered.
    #[must_use]
    pub fn new(nodes: &[String], asked: &[(Method, String)]) -> Self {
        let ticket = |(method, ticket): &(Method, String)| (ticket.clone(), *method);
        Self {
            tickets: asked.iter().map(ticket).collect(),
            nodes: nodes
                .iter()
                .map(|node| (node.clone(), Parts::default()))
                .collect(),
            bytes: 0,
        }
    }

    /// Bytes that may still be read.
    #[must_use]
    pub fn room(&self) -> usize {
        MAX_INQUIRY_BYTES.saturating_sub(self.bytes)
    }

    /// True once every node has answered everything or is unreadable.
    #[must_use]
    pub fn complete(&self) -> bool {
        self.nodes.values().all(Parts::complete)
    }

    /// Takes in a reply as Redis carries it.
    pub fn take_envelope(&mut self, message: &[u8]) {
        self.bytes = self.bytes.saturating_add(message.len());
        if message.len() > MAX_REPLY_BYTES {
            return self.too_large(node_of_envelope_start(message));
        }
        let Ok(envelope) = serde_json::from_slice::<Envelope>(message) else {
            return;
        };
        let Some(&method) = envelope.headers.ticket.as_ref().and_then(|t| self.tickets.get(t)) else {
            return;
        };
        match envelope.json() {
            Some(body) => self.take(method, &body),
            None => self.fail(node_of_base64_start(&envelope.body), NOT_JSON),
        }
    }

    /// Takes in a reply as AMQP carries it.
    pub fn take_body(&mut self, ticket: &str, content_type: &str, content_encoding: &str, body: &[u8]) {
        self.bytes = self.bytes.saturating_add(body.len());
        let Some(&method) = self.tickets.get(ticket) else {
            return;
        };
        let start = body.get(..400).unwrap_or(body);
        if body.len() > MAX_REPLY_BYTES {
            self.too_large(node_of_json_start(start));
        } else if is_json(content_type, content_encoding) {
            self.take(method, body);
        } else {
            self.fail(node_of_json_start(start), NOT_JSON);
        }
    }

    /// Notes that a node's reply was too large to be read.
    pub fn too_large(&mut self, node: Option<String>) {
        self.fail(node, TOO_LARGE);
    }

    /// The answers of every node that answered all four questions or cannot be read. A node that said something
    /// but not everything is missing, like one that said nothing; unless the bytes ran out.
    #[must_use]
    pub fn finish(self) -> Vec<NodeAnswer> {
        let spent = self.bytes >= MAX_INQUIRY_BYTES;
        let answer = |parts: Parts| match parts.unreadable {
            Some(why) => Some(Err(why.to_owned())),
            None => parts
                .told()
                .map(Ok)
                .or_else(|| spent.then(|| Err(TOTAL.to_owned()))),
        };
        self.nodes
            .into_iter()
            .filter_map(|(node, parts)| Some((node, answer(parts)?)))
            .collect()
    }

    fn fail(&mut self, node: Option<String>, why: &'static str) {
        if let Some(parts) = node.and_then(|n| self.nodes.get_mut(&n)) {
            parts.unreadable = Some(why);
        }
    }

    fn take(&mut self, method: Method, body: &[u8]) {
        let node = match method {
            Method::Active => self.store(body, |parts, tasks: Vec<Task>| {
                parts.active = Some(running(tasks)?);
                Ok(())
            }),
            Method::Reserved => self.store(body, |parts, tasks: Vec<Task>| {
                parts.reserved = Some(counted(tasks)?);
                Ok(())
            }),
            Method::Scheduled => self.store(body, |parts, tasks: Vec<Scheduled>| {
                parts.later = Later::new(tasks.iter().filter_map(|task| Some((task.due()?, 1))));
                parts.scheduled = Some(counted(tasks.into_iter().map(|s| s.request).collect())?);
                Ok(())
            }),
            Method::ActiveQueues => self.store(body, |parts, queues: Vec<Consumed>| {
                parts.queues = Some(bound(queues)?);
                Ok(())
            }),
            Method::Stats => {
                // Without a size everything else is as good.
                self.store(body, |parts, stats: Stats| {
                    parts.size = stats.pool.size();
                    Ok(())
                });
                return;
            }
        };
        if node.is_none() {
            self.fail(node_of_json_start(body.get(..400).unwrap_or(body)), SHAPE);
        }
    }

    /// Parses a body and stores it with its node. `None` if it does not have the shape.
    fn store<'de, T: Deserialize<'de>>(
        &mut self,
        body: &'de [u8],
        put: impl FnOnce(&mut Parts, T) -> Result<(), &'static str>,
    ) -> Option<()> {
        let OfNode(node, reply) = serde_json::from_slice::<OfNode<T>>(body).ok()?;
        if let Some(parts) = self.nodes.get_mut(&node) {
            parts.first.get_or_insert_with(Instant::now);
            if let Err(why) = put(parts, reply) {
                parts.unreadable = Some(why);
            }
        }
        Some(())
    }
}

impl Parts {
    fn complete(&self) -> bool {
        let answered = self.active.is_some() && self.reserved.is_some() && self.scheduled.is_some();
        self.unreadable.is_some() || (answered && self.queues.is_some())
    }

    fn told(self) -> Option<Told> {
        Some(Told {
            running: self.active?,
            reserved: self.reserved?,
            scheduled: self.scheduled?,
            later: self.later,
            bindings: self.queues?,
            size: self.size,
            age: self.first.map_or(Duration::ZERO, |first| first.elapsed()),
        })
    }
}

fn route(task: Task) -> Result<Route, &'static str> {
    let exchange = task.delivery_info.exchange.unwrap_or_default();
    let routing_key = task.delivery_info.routing_key;
    if !is_name(&routing_key) || !(exchange.is_empty() || is_name(&exchange)) {
        return Err(SHAPE);
    }
    Ok(Route {
        exchange,
        routing_key,
    })
}

fn running(tasks: Vec<Task>) -> Result<BTreeMap<Route, Begun>, &'static str> {
    let mut out: BTreeMap<Route, Begun> = BTreeMap::new();
    for task in tasks {
        let (acknowledged, began) = (task.acknowledged, task.time_start);
        let sum = out.entry(route(task)?).or_default();
        if let Some(began) = began {
            sum.date(began);
        }
        match acknowledged {
            Some(true) => sum.acknowledged += 1,
            Some(false) => sum.unacknowledged += 1,
            None => return Err(SHAPE),
        }
    }
    few(out)
}

/// The counts by route, unless the routes are too many or too long.
fn few<T>(counts: BTreeMap<Route, T>) -> Result<BTreeMap<Route, T>, &'static str> {
    let bytes: usize = counts.keys().map(Route::bytes).sum();
    if counts.len() > MAX_ROUTES || bytes > MAX_ROUTE_BYTES {
        return Err(MANY);
    }
    Ok(counts)
}

fn counted(tasks: Vec<Task>) -> Result<BTreeMap<Route, u64>, &'static str> {
    let mut out = BTreeMap::new();
    for task in tasks {
        *out.entry(route(task)?).or_default() += 1;
    }
    few(out)
}

fn bound(queues: Vec<Consumed>) -> Result<Bindings, &'static str> {
    if queues.len() > MAX_QUEUES {
        return Err(MANY);
    }
    let mut bytes = 0;
    let mut bound = |queue: Consumed| {
        let exchange = queue
            .exchange
            .as_ref()
            .map(|e| e.name.clone())
            .unwrap_or_default();
        let topic = queue.exchange.is_some_and(|e| e.kind.as_deref() == Some("topic"));
        let route = Route {
            exchange,
            routing_key: queue.routing_key.unwrap_or_default(),
        };
        bytes += queue.name.len() + route.bytes();
        if bytes > MAX_ROUTE_BYTES {
            return Err(MANY);
        }
        let may_be_empty = |name: &str| name.is_empty() || is_name(name);
        if !is_name(&queue.name) || !may_be_empty(&route.exchange) || !may_be_empty(&route.routing_key) {
            return Err(SHAPE);
        }
        Ok(Bound {
            name: queue.name,
            route,
            topic,
        })
    };
    queues.into_iter().map(&mut bound).collect()
}

/// The node that sent a reply, from the first bytes of a message as Redis carries it.
#[must_use]
pub fn node_of_envelope_start(message: &[u8]) -> Option<String> {
    let start = std::str::from_utf8(message.get(..800).unwrap_or(message)).ok()?;
    let (_, rest) = start.split_once("\"body\"")?;
    let body = rest.trim_start_matches([':', ' ']).strip_prefix('"')?;
    node_of_base64_start(body.split('"').next()?)
}

fn node_of_base64_start(body: &str) -> Option<String> {
    let whole = body.len().min(400) / 4 * 4;
    let start = base64::engine::general_purpose::STANDARD
        .decode(body.get(..whole)?)
        .ok()?;
    node_of_json_start(&start)
}

/// The node that sent a reply, from the first bytes of its JSON.
fn node_of_json_start(start: &[u8]) -> Option<String> {
    let rest = start.trim_ascii_start().strip_prefix(b"{")?;
    let mut values = serde_json::Deserializer::from_slice(rest).into_iter::<String>();
    values.next()?.ok().filter(|node| is_name(node))
}
