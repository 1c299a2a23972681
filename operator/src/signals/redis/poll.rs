//! One poll: every wanted queue's lists, the fetched messages, and what of both is not due.
//!
//! Decides how answers become readings and whose error is whose: a key of the wrong type or a number that cannot
//! be true spoils its own queue only; what the server says about itself spoils the poll. Three round trips at
//! most in the ordinary case (counts, new entries, samples), each of bounded size.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use jiff::Timestamp;
use poolwright_core::later::Later;
use poolwright_core::sample::{FaultKind, Ready, Unacked};
use redis::aio::MultiplexedConnection;
use redis::{Pipeline, Value};
use tokio::time::Instant;

use super::keys::{Names, SEPARATOR};
use super::unacked::{EDGE, Entries};
use super::waiting::{Looks, PROBES, REACH, SIDE};
use super::{errors, scripts, values};
use crate::signals::celery::Topics;
use crate::signals::{Polled, PolledQueue, SignalError, Wanted, eta_milliseconds};

/// Celery's default queue.
const STRAY: &str = "celery";
/// Bytes of unacked entries that one poll opens.
const UNACKED_BYTES: usize = 4 * 1024 * 1024;
/// Largest unacked entry that is opened on the server; what is larger is no task.
const LARGEST: usize = 64 * 1024 * 1024;
/// Largest unacked entry that is fetched where scripts are not allowed, and how many.
const LARGEST_FETCHED: u64 = 64 * 1024;
const FETCHES: usize = 64;
/// Bytes of waiting messages that one poll opens.
const WAITING_BYTES: usize = 1024 * 1024;
/// Bindings that are read of one exchange, exchanges, and how long they are believed.
const BINDINGS: usize = 1000;
const EXCHANGES: usize = 64;
const BINDINGS_LAST: Duration = Duration::from_secs(30);

/// What one poll leaves for the next.
#[derive(Debug, Default)]
pub(super) struct Memory {
    entries: Entries,
    looks: Looks,
    bindings: HashMap<String, Bindings>,
    /// Set once the server refused a script.
    no_scripts: bool,
}

#[derive(Debug)]
struct Bindings {
    at: Instant,
    /// Routing key (or topic) and queue.
    routes: Vec<(String, String)>,
}

/// The lengths of one queue's lists.
type Lists = Vec<(String, u64)>;

/// What the first round trip said.
struct Counts {
    lists: BTreeMap<String, Result<Lists, SignalError>>,
    unacked: Result<(), SignalError>,
}

pub(super) async fn poll(
    connection: &MultiplexedConnection,
    names: &Names,
    memory: &mut Memory,
    wanted: &Wanted,
    now: Timestamp,
) -> Result<Polled, SignalError> {
    let mut queues: BTreeSet<&str> = wanted.queues.iter().map(String::as_str).collect();
    let only_stray = wanted.stray && queues.insert(STRAY);
    let mut counts = count(connection, names, memory, &queues).await?;
    if counts.unacked.is_ok() {
        counts.unacked = read_entries(connection, names, memory).await?;
    }
    read_bindings(connection, names, memory).await?;
    look(connection, memory, &counts.lists).await?;

    let now = now.as_millisecond();
    let unacked = counts.unacked.and_then(|()| {
        let topics = Topics::new();
        let queue_of = |exchange: &str, key: &str| memory.queue_of(exchange, key, &topics);
        memory.entries.tally(now, queue_of).ok_or_else(|| {
            SignalError::new(
                FaultKind::Implausible,
                "no fetched message can be attributed to a queue yet",
            )
        })
    });
    let stray = counts.lists.get(STRAY).filter(|_| wanted.stray);
    let stray = stray.and_then(|lists| lists.as_ref().ok()).map_or(0, sum);
    let mut polled = Polled {
        queues: BTreeMap::new(),
        stray,
    };
    for (queue, lists) in counts.lists {
        if only_stray && queue == STRAY {
            continue;
        }
        let unacked = match &unacked {
            Ok(tally) => Ok(tally.get(&queue).cloned().unwrap_or_default()),
            Err(error) => Err(error.clone()),
        };
        let ready = lists.and_then(|lists| memory.ready(&lists, now));
        let unacked: Option<Result<Unacked, _>> = Some(unacked);
        polled.queues.insert(queue, PolledQueue { ready, unacked });
    }
    Ok(polled)
}

/// The first round trip: all lengths and the index of fetched messages.
async fn count(
    connection: &MultiplexedConnection,
    names: &Names,
    memory: &mut Memory,
    queues: &BTreeSet<&str>,
) -> Result<Counts, SignalError> {
    let plan: Vec<(&str, Vec<String>)> = queues.iter().map(|queue| (*queue, names.lists(queue))).collect();
    let edge = isize::try_from(EDGE).unwrap_or(isize::MAX);
    let index = names.unacked_index();
    let mut pipeline = Pipeline::new();
    for list in plan.iter().flat_map(|(_, lists)| lists) {
        pipeline.cmd("LLEN").arg(list);
    }
    pipeline.cmd("HLEN").arg(names.unacked());
    pipeline.cmd("ZCARD").arg(&index);
    pipeline
        .cmd("ZRANGE")
        .arg(&index)
        .arg(0)
        .arg(edge - 1)
        .arg("WITHSCORES");
    pipeline
        .cmd("ZRANGE")
        .arg(&index)
        .arg(-edge)
        .arg(-1)
        .arg("WITHSCORES");
    let answers = super::run(connection, &pipeline, "count waiting messages").await?;
    if let Some(error) = errors::whole(&answers) {
        return Err(error);
    }
    let mut answers = answers.iter();
    let mut lists = BTreeMap::new();
    for (queue, keys) in plan {
        let lengths: Result<Lists, _> = keys
            .into_iter()
            .map(|key| {
                let length = length(answers.next().unwrap_or(&Value::Nil), &key)?;
                Ok((key, length))
            })
            // Every list's answer is taken, also behind an error.
            .collect::<Vec<Result<_, _>>>()
            .into_iter()
            .collect();
        lists.insert(queue.to_owned(), lengths);
    }
    let rest: Vec<&Value> = answers.collect();
    let unacked = take_index(memory, &rest);
    if unacked.is_err() {
        memory.entries.clear();
    }
    Ok(Counts { lists, unacked })
}

fn take_index(memory: &mut Memory, answers: &[&Value]) -> Result<(), SignalError> {
    let &[hash, total, oldest, newest] = answers else {
        return Err(errors::shape("read fetched messages"));
    };
    for (answer, key) in [
        (hash, "unacked"),
        (total, "unacked_index"),
        (oldest, "unacked_index"),
    ] {
        if let Value::ServerError(error) = answer {
            return Err(errors::of_answer(error, &format!("read the key {key:?}")));
        }
    }
    let total = values::count(total).ok_or_else(|| implausible("unacked_index"))?;
    memory
        .entries
        .listed(total, [oldest, newest])
        .ok_or_else(|| implausible("unacked_index"))
}

/// Reads entries that are not known yet. An outer error is the server's, an inner one the fetched messages'.
async fn read_entries(
    connection: &MultiplexedConnection,
    names: &Names,
    memory: &mut Memory,
) -> Result<Result<(), SignalError>, SignalError> {
    let tags = memory.entries.unread();
    if tags.is_empty() {
        return Ok(Ok(()));
    }
    if !memory.no_scripts {
        let mut command = redis::cmd("EVAL");
        command
            .arg(scripts::UNACKED)
            .arg(1)
            .arg(names.unacked())
            .arg(UNACKED_BYTES)
            .arg(LARGEST)
            .arg(&tags);
        match super::one(connection, &command, "read fetched messages").await? {
            Value::ServerError(error) if error.code() == "WRONGTYPE" => {
                return Ok(Err(errors::of_answer(&error, "read the key \"unacked\"")));
            }
            Value::ServerError(error) if errors::forbids(&error) => memory.no_scripts = true,
            Value::ServerError(error) => {
                return Ok(Err(errors::of_answer(&error, "read fetched messages")));
            }
            Value::Array(rows) => {
                learn(&mut memory.entries, tags, &rows);
                return Ok(Ok(()));
            }
            _ => return Ok(Err(errors::shape("read fetched messages"))),
        }
    }
    read_entries_without_script(connection, names, &mut memory.entries, tags).await
}

fn learn(entries: &mut Entries, tags: Vec<Vec<u8>>, rows: &[Value]) {
    for (tag, row) in tags.into_iter().zip(rows) {
        match values::array(row) {
            Some([]) => entries.gone(tag),
            Some([exchange, key, eta]) => {
                let text = |value| scripts::unescaped(values::bytes(value)?);
                let eta = text(eta).and_then(|eta| eta_milliseconds(&eta));
                let entry = text(exchange)
                    .zip(text(key))
                    .map(|(exchange, key)| (exchange, key, eta));
                entries.learn(tag, entry);
            }
            _ => entries.learn(tag, None),
        }
    }
}

async fn read_entries_without_script(
    connection: &MultiplexedConnection,
    names: &Names,
    entries: &mut Entries,
    tags: Vec<Vec<u8>>,
) -> Result<Result<(), SignalError>, SignalError> {
    let stride = tags.len().div_ceil(FETCHES).max(1);
    let tags: Vec<_> = tags.into_iter().step_by(stride).collect();
    let mut sizes = Pipeline::new();
    for tag in &tags {
        sizes.cmd("HSTRLEN").arg(names.unacked()).arg(tag);
    }
    let what = "read fetched messages";
    let sizes = super::run(connection, &sizes, what).await?;
    let mut fetched = Vec::new();
    let mut fetch = Pipeline::new();
    for (tag, size) in tags.into_iter().zip(sizes) {
        match &size {
            Value::ServerError(error) => return Ok(Err(errors::of_answer(error, what))),
            Value::Int(0) => entries.gone(tag),
            size if values::count(size).is_some_and(|size| size <= LARGEST_FETCHED) => {
                fetch.cmd("HGET").arg(names.unacked()).arg(&tag);
                fetched.push(tag);
            }
            // Too large to fetch: it stays unknown and counts in proportion.
            _ => {}
        }
    }
    if fetched.is_empty() {
        return Ok(Ok(()));
    }
    for (tag, value) in fetched
        .into_iter()
        .zip(super::run(connection, &fetch, what).await?)
    {
        match &value {
            Value::ServerError(error) => return Ok(Err(errors::of_answer(error, what))),
            Value::Nil => entries.gone(tag),
            value => entries.learn(tag, values::bytes(value).and_then(scripts::entry)),
        }
    }
    Ok(Ok(()))
}

/// Reads the bindings of exchanges that fetched messages name and that are not known or no longer believed.
async fn read_bindings(
    connection: &MultiplexedConnection,
    names: &Names,
    memory: &mut Memory,
) -> Result<(), SignalError> {
    let now = Instant::now();
    let exchanges: Vec<String> = memory
        .entries
        .exchanges()
        .into_iter()
        .take(EXCHANGES)
        .map(str::to_owned)
        .collect();
    memory
        .bindings
        .retain(|exchange, found| exchanges.contains(exchange) && now < found.at + BINDINGS_LAST);
    let unknown: Vec<String> = exchanges
        .into_iter()
        .filter(|e| !memory.bindings.contains_key(e))
        .collect();
    if unknown.is_empty() {
        return Ok(());
    }
    let mut pipeline = Pipeline::new();
    for exchange in &unknown {
        pipeline
            .cmd("SRANDMEMBER")
            .arg(names.bindings(exchange))
            .arg(BINDINGS);
    }
    let answers = super::run(connection, &pipeline, "read bindings").await?;
    for (exchange, answer) in unknown.into_iter().zip(answers) {
        // A set that cannot be read leaves the routing key to stand for the queue.
        let members = values::array(&answer).unwrap_or_default();
        let routes = members
            .iter()
            .filter_map(|m| binding(values::bytes(m)?))
            .collect();
        memory.bindings.insert(exchange, Bindings { at: now, routes });
    }
    Ok(())
}

/// The routing key and the queue of a binding: `key SEP pattern SEP queue`.
pub(super) fn binding(member: &[u8]) -> Option<(String, String)> {
    let mut parts = std::str::from_utf8(member).ok()?.split(SEPARATOR);
    let (key, _pattern, queue) = (parts.next()?, parts.next()?, parts.next()?);
    Some((key.to_owned(), queue.to_owned()))
}

/// Looks into waiting lists for messages that are not due.
async fn look(
    connection: &MultiplexedConnection,
    memory: &mut Memory,
    queues: &BTreeMap<String, Result<Lists, SignalError>>,
) -> Result<(), SignalError> {
    let lengths: Vec<(&str, u64)> = queues
        .values()
        .flatten()
        .flatten()
        .map(|(list, length)| (list.as_str(), *length))
        .collect();
    let now = Instant::now();
    let due = memory.looks.due(&lengths, now);
    if due.is_empty() || memory.no_scripts {
        return Ok(());
    }
    let mut command = redis::cmd("EVAL");
    command
        .arg(scripts::WAITING)
        .arg(due.len())
        .arg(&due)
        .arg(&[SIDE, PROBES, REACH, WAITING_BYTES]);
    match super::one(connection, &command, "look into waiting messages").await? {
        Value::Array(rows) => memory
            .looks
            .seen(&due, &lengths.into_iter().collect(), &rows, now),
        // Without a look, all that waits counts as due.
        Value::ServerError(error) => memory.no_scripts = errors::forbids(&error),
        _ => {}
    }
    Ok(())
}

impl Memory {
    fn ready(&self, lists: &Lists, now_milliseconds: i64) -> Result<Ready, SignalError> {
        let count = sum(lists);
        if count > 1_000_000_000 {
            return Err(implausible("the queue's lists together"));
        }
        let (mut not_due, mut later) = (0, Later::default());
        for (list, n) in lists {
            let of_list = self.looks.not_due(list, *n, now_milliseconds);
            not_due += of_list;
            later.add(&self.looks.later(list, of_list, now_milliseconds), |count| count);
        }
        Ok(Ready {
            count,
            not_due,
            later,
            consumers: None,
        })
    }

    /// The queue of a fetched message: the routing key, unless a named exchange binds it to another.
    fn queue_of(&self, exchange: &str, key: &str, topics: &Topics) -> String {
        let routes = self
            .bindings
            .get(exchange)
            .map(|b| b.routes.as_slice())
            .unwrap_or_default();
        let exact = routes.iter().filter(|(bound, _)| bound == key);
        // Where several queues are bound alike, each got a copy; the one of the key's name, or the first by name.
        let found = exact
            .map(|(_, queue)| queue)
            .min_by_key(|queue| (queue.as_str() != key, queue.as_str()));
        let topic = || {
            routes
                .iter()
                .find(|(bound, _)| topics.matches(bound, key))
                .map(|(_, queue)| queue)
        };
        found.or_else(topic).map_or_else(|| key.to_owned(), Clone::clone)
    }
}

fn sum(lists: &Lists) -> u64 {
    lists.iter().map(|(_, length)| length).sum()
}

fn length(answer: &Value, key: &str) -> Result<u64, SignalError> {
    match answer {
        Value::ServerError(error) if error.code() == "WRONGTYPE" => {
            let message = format!("the key {key:?} is no list, so it is no queue of Celery's");
            Err(SignalError::new(FaultKind::Implausible, message))
        }
        Value::ServerError(error) => Err(errors::of_answer(error, &format!("read the key {key:?}"))),
        answer => values::count(answer).ok_or_else(|| implausible(key)),
    }
}

fn implausible(key: &str) -> SignalError {
    SignalError::new(
        FaultKind::Implausible,
        format!("Redis answered a length for {key:?} that cannot be true"),
    )
}
