//! Remote control over Redis: the four questions to named workers, and their replies.
//!
//! Decides how replies are fetched: popped from a list of our own in short sleeps on the shared connection (a
//! blocking pop would need a connection to itself), through a script that leaves replies that are too large on the
//! server. Whatever happens, the binding and the list are removed: at the end, or by a task when the inquiry is
//! given up half-way. Each inquiry has a routing key of its own, so what comes late for one can harm no other.

use std::time::Duration;

use jiff::Timestamp;
use poolwright_core::sample::FaultKind;
use redis::aio::MultiplexedConnection;
use redis::{Pipeline, Value};
use tokio::time::Instant;

use super::keys::Names;
use super::{errors, scripts, values};
use crate::signals::celery::{
    Collector, MAX_REPLY_BYTES, Method, Request, envelope, node_of_envelope_start, unique,
};
use crate::signals::{NodeAnswer, SignalError};

/// Time between two looks into the list of replies.
const SLEEP: Duration = Duration::from_millis(20);
/// The list of replies is removed a second time this much later.
const AGAIN: Duration = Duration::from_secs(1);
/// A worker that reads a question later than this ignores it. Generous, because it goes by the worker's clock.
const EXPIRES_SECONDS: i64 = 60;

/// Asks `nodes` and gathers until all have answered or `deadline` has passed.
pub(super) async fn ask(
    connection: &MultiplexedConnection,
    names: &Names,
    nodes: &[String],
    deadline: Duration,
    now: Timestamp,
) -> Result<Vec<NodeAnswer>, SignalError> {
    let until = Instant::now() + deadline;
    let oid = &unique();
    let tickets = std::array::from_fn(|_| unique());
    let mut collector = Collector::new(nodes, &tickets);
    let cleaner = Cleaner::new(connection, names, oid);
    let listeners = send(connection, names, oid, nodes, &tickets, now).await;
    if let Ok(1..) = listeners {
        gather(connection, &names.reply_list(oid), &mut collector, until).await?;
    }
    cleaner.clean().await;
    listeners.map(|_| collector.finish())
}

/// Opens the way for replies and publishes the questions. Answers how many listen.
async fn send(
    connection: &MultiplexedConnection,
    names: &Names,
    oid: &str,
    nodes: &[String],
    tickets: &[String; 4],
    now: Timestamp,
) -> Result<u64, SignalError> {
    let control_exchange = names.control_exchange();
    let mut pipeline = Pipeline::new();
    pipeline
        .cmd("SADD")
        .arg(names.reply_bindings())
        .arg(names.reply_member(oid));
    pipeline.cmd("DEL").arg(names.reply_list(oid));
    for (method, ticket) in Method::ALL.into_iter().zip(tickets) {
        let body = Request {
            method,
            nodes,
            ticket,
            control_exchange,
            oid,
        }
        .body();
        let expires = now.as_second().saturating_add(EXPIRES_SECONDS);
        let message = envelope(&body, &names.control_fanout(), ticket, expires);
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

async fn gather(
    connection: &MultiplexedConnection,
    list: &str,
    collector: &mut Collector,
    until: Instant,
) -> Result<(), SignalError> {
    let mut scripted = true;
    while !collector.complete() && collector.room() > 0 {
        let now = Instant::now();
        if now >= until {
            return Ok(());
        }
        tokio::time::sleep_until((now + SLEEP).min(until)).await;
        if scripted {
            scripted = pop(connection, list, collector).await?;
        } else {
            pop_without_script(connection, list, collector).await?;
        }
    }
    Ok(())
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

/// The same without a script: the list is weighed first, since a pop cannot be bounded.
async fn pop_without_script(
    connection: &MultiplexedConnection,
    list: &str,
    collector: &mut Collector,
) -> Result<(), SignalError> {
    let mut weigh = Pipeline::new();
    weigh.cmd("MEMORY").arg("USAGE").arg(list).arg("SAMPLES").arg(0);
    weigh.cmd("EXPIRE").arg(list).arg(60);
    let answers = run(connection, &weigh, "read workers' replies").await?;
    match answers.first() {
        Some(Value::Nil) | None => return Ok(()),
        Some(Value::ServerError(_)) => {
            let message = "the Redis user may run neither EVAL nor MEMORY USAGE; one of them is needed to read \
                           workers' answers safely";
            return Err(SignalError::new(FaultKind::Refused, message));
        }
        Some(size) if values::count(size).is_some_and(|size| size <= collector.room() as u64) => {}
        Some(_) => {
            let message = "the workers' answers are too large to be read without EVAL";
            return Err(SignalError::new(FaultKind::Implausible, message));
        }
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
    Ok(())
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
