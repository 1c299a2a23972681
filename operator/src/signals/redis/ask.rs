//! Remote control over Redis: the four questions to named workers and their replies, and commands, which have none.
//!
//! Decides how replies are fetched: popped from a list of our own in short sleeps on the shared connection (a
//! blocking pop would need a connection to itself), through a script that leaves replies that are too large on the
//! server. Whatever happens, the binding and the list are removed: at the end, or by a task when the inquiry is
//! given up half-way. Each inquiry has a routing key of its own, so what comes late for one can harm no other.
//!
//! Without the script a list of replies can only be weighed as a whole. If it is too heavy nothing of it is read, and
//! each worker that is missing is asked alone: so the one that says too much is found, and spoils no other's answer.

use std::collections::BTreeSet;
use std::time::Duration;

use poolwright_core::sample::FaultKind;
use redis::aio::MultiplexedConnection;
use redis::{Pipeline, Value};
use tokio::time::Instant;

use super::keys::Names;
use super::{errors, scripts, values};
use crate::signals::celery::{
    Collector, Command, MAX_REPLY_BYTES, Method, Request, envelope, node_of_envelope_start, unique,
};
use crate::signals::{NodeAnswer, SignalError};

/// Time between two looks into the list of replies.
const SLEEP: Duration = Duration::from_millis(20);
/// The list of replies is removed a second time this much later.
const AGAIN: Duration = Duration::from_secs(1);
/// A worker that is asked alone gets this long, so that a silent one leaves time for the others.
const ALONE: Duration = Duration::from_millis(500);

const TOO_HEAVY: &str = "unreadable: the answer is too large to be read without EVAL";

/// Asks `nodes` and gathers until all have answered or `deadline` has passed.
pub(super) async fn ask(
    connection: &MultiplexedConnection,
    names: &Names,
    (nodes, sizes): (&[String], bool),
    deadline: Duration,
) -> Result<Vec<NodeAnswer>, SignalError> {
    let until = Instant::now() + deadline;
    let together = inquire(connection, names, (nodes, sizes), until).await?;
    let mut answers = together.answers;
    if !together.too_heavy {
        return Ok(answers);
    }
    let answered: BTreeSet<String> = answers.iter().map(|(node, _)| node.clone()).collect();
    for node in nodes.iter().filter(|node| !answered.contains(*node)) {
        let start = Instant::now();
        if start >= until {
            break;
        }
        let alone = std::slice::from_ref(node);
        let found = inquire(connection, names, (alone, sizes), until.min(start + ALONE)).await?;
        if found.too_heavy {
            answers.push((node.clone(), Err(TOO_HEAVY.to_owned())));
        } else {
            answers.extend(found.answers);
        }
    }
    Ok(answers)
}

/// Sends one command to `nodes` in one message. That nobody listens is no failure: it is seen when they are asked.
pub(super) async fn command(
    connection: &MultiplexedConnection,
    names: &Names,
    command: &Command,
    nodes: &[String],
) -> Result<(), SignalError> {
    let body = command.body(nodes).ok_or_else(SignalError::nobody_named)?;
    let message = envelope(&body, &names.control_fanout(), &unique());
    let mut publish = redis::cmd("PUBLISH");
    publish.arg(names.control_channel()).arg(message);
    match super::one(connection, &publish, "publish a command to workers").await? {
        Value::ServerError(error) => Err(errors::of_answer(&error, "publish a command to workers")),
        _ => Ok(()),
    }
}

/// What one inquiry gathered.
struct Gathered {
    answers: Vec<NodeAnswer>,
    /// There is more, which cannot be read safely.
    too_heavy: bool,
}

async fn inquire(
    connection: &MultiplexedConnection,
    names: &Names,
    (nodes, sizes): (&[String], bool),
    until: Instant,
) -> Result<Gathered, SignalError> {
    let oid = &unique();
    let asked = Method::inquiry(sizes);
    let mut collector = Collector::new(nodes, &asked);
    let cleaner = Cleaner::new(connection, names, oid);
    let listeners = send(connection, names, oid, nodes, &asked).await;
    let too_heavy = match listeners {
        Ok(1..) => !gather(connection, &names.reply_list(oid), &mut collector, until).await?,
        _ => false,
    };
    cleaner.clean().await;
    let answers = listeners.map(|_| collector.finish())?;
    Ok(Gathered { answers, too_heavy })
}

/// Opens the way for replies and publishes the questions. Answers how many listen.
async fn send(
    connection: &MultiplexedConnection,
    names: &Names,
    oid: &str,
    nodes: &[String],
    asked: &[(Method, String)],
) -> Result<u64, SignalError> {
    let control_exchange = names.control_exchange();
    let mut pipeline = Pipeline::new();
    pipeline
        .cmd("SADD")
        .arg(names.reply_bindings())
        .arg(names.reply_member(oid));
    pipeline.cmd("DEL").arg(names.reply_list(oid));
    for (method, ticket) in asked {
        let body = Request {
            method: *method,
            nodes,
            ticket,
            control_exchange,
            oid,
        }
        .body();
        let message = envelope(&body, &names.control_fanout(), ticket);
        pipeline.cmd("PUBLISH").arg(names.control_channel()).arg(message);
    }
    let answers = run(connection, &pipeline, "ask workers").await?;
    let mut listeners = 0;
    for (at, answer) in answers.iter().enumerate() {
        match answer {
            Value::ServerError(error) if at < 2 => {
                return Err(errors::of_answer(error, "write the binding of workers' replies"));
            }
            Value::ServerError(error) => {
                return Err(errors::of_answer(error, "publish questions to workers"));
            }
            Value::Int(n) if at >= 2 => listeners = listeners.max(u64::try_from(*n).unwrap_or(0)),
            _ => {}
        }
    }
    Ok(listeners)
}

/// False if there are replies that are too heavy to be read.
async fn gather(
    connection: &MultiplexedConnection,
    list: &str,
    collector: &mut Collector,
    until: Instant,
) -> Result<bool, SignalError> {
    let mut scripted = true;
    while !collector.complete() && collector.room() > 0 {
        let now = Instant::now();
        if now >= until {
            break;
        }
        tokio::time::sleep_until((now + SLEEP).min(until)).await;
        if scripted {
            scripted = pop(connection, list, collector).await?;
        } else if !pop_without_script(connection, list, collector).await? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Pops what is there. False if the user may not run scripts.
async fn pop(
    connection: &MultiplexedConnection,
    list: &str,
    collector: &mut Collector,
) -> Result<bool, SignalError> {
    let mut command = redis::cmd("EVAL");
    command
        .arg(scripts::REPLIES)
        .arg(1)
        .arg(list)
        .arg(collector.room())
        .arg(MAX_REPLY_BYTES);
    let answer = super::one(connection, &command, "read workers' replies").await?;
    if let Value::ServerError(error) = &answer {
        return match errors::of_answer(error, "read workers' replies") {
            refused if refused.kind == FaultKind::Refused => Ok(false),
            other => Err(other),
        };
    }
    for reply in values::array(&answer).ok_or_else(|| errors::shape("read workers' replies"))? {
        match reply {
            Value::Array(start) => {
                let node = start
                    .first()
                    .and_then(values::bytes)
                    .and_then(node_of_envelope_start);
                collector.too_large(node);
            }
            whole => collector.take_envelope(values::bytes(whole).unwrap_or_default()),
        }
    }
    Ok(true)
}

/// The same without a script: the list is weighed first, since a pop cannot be bounded. False if it is too heavy.
async fn pop_without_script(
    connection: &MultiplexedConnection,
    list: &str,
    collector: &mut Collector,
) -> Result<bool, SignalError> {
    let mut weigh = Pipeline::new();
    weigh.cmd("MEMORY").arg("USAGE").arg(list).arg("SAMPLES").arg(0);
    weigh.cmd("EXPIRE").arg(list).arg(60);
    let answers = run(connection, &weigh, "read workers' replies").await?;
    match answers.first() {
        Some(Value::Nil) | None => return Ok(true),
        Some(Value::ServerError(_)) => {
            let message = "the Redis user may run neither EVAL nor MEMORY USAGE; one of them is needed to read \
                           workers' answers safely";
            return Err(SignalError::new(FaultKind::Refused, message));
        }
        Some(size) if values::count(size).is_some_and(|size| size <= collector.room() as u64) => {}
        Some(_) => return Ok(false),
    }
    let mut pops = Pipeline::new();
    for _ in 0..64 {
        pops.cmd("RPOP").arg(list);
    }
    for reply in run(connection, &pops, "read workers' replies").await? {
        match reply {
            Value::ServerError(error) => return Err(errors::of_answer(&error, "read workers' replies")),
            reply => values::bytes(&reply)
                .into_iter()
                .for_each(|bytes| collector.take_envelope(bytes)),
        }
    }
    Ok(true)
}

async fn run(
    connection: &MultiplexedConnection,
    pipeline: &Pipeline,
    what: &str,
) -> Result<Vec<Value>, SignalError> {
    let answers = super::run(connection, pipeline, what).await?;
    errors::whole(&answers).map_or(Ok(answers), Err)
}

/// Removes the binding and the list: at the end, also of an inquiry that is dropped while it waits, and the list
/// once more a little later, because a worker may have looked up the binding just before it went.
struct Cleaner {
    connection: MultiplexedConnection,
    pipeline: Option<Pipeline>,
    again: Pipeline,
}

impl Cleaner {
    fn new(connection: &MultiplexedConnection, names: &Names, oid: &str) -> Self {
        let mut pipeline = Pipeline::new();
        pipeline
            .cmd("SREM")
            .arg(names.reply_bindings())
            .arg(names.reply_member(oid));
        pipeline.cmd("DEL").arg(names.reply_list(oid));
        let mut again = Pipeline::new();
        again.cmd("DEL").arg(names.reply_list(oid));
        Self {
            connection: connection.clone(),
            pipeline: Some(pipeline),
            again,
        }
    }

    async fn clean(mut self) {
        if let Some(pipeline) = self.pipeline.take() {
            // If this fails the connection is lost; the list then expires, and the binding leads nowhere.
            let _ = super::run(&self.connection, &pipeline, "clean up").await;
        }
    }
}

impl Drop for Cleaner {
    fn drop(&mut self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let (connection, first) = (self.connection.clone(), self.pipeline.take());
        let again = std::mem::take(&mut self.again);
        runtime.spawn(async move {
            if let Some(first) = first {
                let _ = super::run(&connection, &first, "clean up").await;
            }
            tokio::time::sleep(AGAIN).await;
            let _ = super::run(&connection, &again, "clean up").await;
        });
    }
}
