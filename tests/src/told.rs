//! What workers are asked and told by remote control, as a listener on the broker hears it.

use crate::{Result, Wire};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use futures::StreamExt as _;
use lapin::options::{BasicConsumeOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{Connection, ConnectionProperties, ExchangeKind};
use serde_json::Value;
use std::sync::{Arc, Mutex};
use tokio::task::JoinHandle;

/// A listener of one broker, from its start until it is dropped.
#[derive(Debug)]
pub struct Told {
    calls: Arc<Mutex<Vec<Value>>>,
    listener: JoinHandle<()>,
}

impl Drop for Told {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

/// What changes nothing in a worker.
const QUESTIONS: [&str; 5] = ["active", "reserved", "scheduled", "active_queues", "stats"];
/// Workers that start say it to all others by themselves.
const GREETING: &str = "hello";

impl Told {
    /// Listens from now on. The broker's names are the usual ones: no key prefix and Celery's own control exchange.
    pub async fn listen(wire: &Wire) -> Result<Self> {
        let calls: Arc<Mutex<Vec<Value>>> = Arc::default();
        let heard = Arc::clone(&calls);
        let keep = move |body: &[u8]| {
            let call = serde_json::from_slice(body).unwrap_or_default();
            heard.lock().unwrap().push(call);
        };
        let listener = if wire.url.starts_with("redis:") {
            on_redis(&wire.url, keep).await?
        } else {
            on_rabbitmq(&wire.url, keep).await?
        };
        Ok(Self { calls, listener })
    }

    /// How often this pod's worker was told to stop consuming.
    pub fn stops(&self, pod: &str) -> usize {
        let node = format!("celery@{pod}");
        let named =
            |call: &&Value| call["method"] == "cancel_consumer" && destination(call).any(|one| one == node);
        self.calls.lock().unwrap().iter().filter(named).count()
    }

    /// Each message that told workers to stop consuming: the nodes that it names, in order of their names.
    pub fn cancels(&self) -> Vec<Vec<String>> {
        let calls = self.calls.lock().unwrap();
        let cancels = calls.iter().filter(|call| call["method"] == "cancel_consumer");
        let named = cancels.map(|call| {
            let mut nodes: Vec<String> = destination(call).map(str::to_owned).collect();
            nodes.sort();
            nodes
        });
        named.collect()
    }

    /// Fails unless nodes that are `foreign` were told nothing: neither by name, nor by what names nobody and so goes to
    /// all. They may be asked by name, and must have been: where no question was heard, no command would have been.
    pub fn expect_none_told(&self, foreign: impl Fn(&str) -> bool) -> Result<()> {
        let calls = self.calls.lock().unwrap();
        for call in calls.iter().filter(|call| call["method"] != GREETING) {
            if destination(call).next().is_none() {
                return Err(format!("said to every worker of the broker: {call}").into());
            }
            let is_question = QUESTIONS.iter().any(|method| call["method"] == *method);
            if !is_question && destination(call).any(&foreign) {
                return Err(format!("a worker that is not ours was told: {call}").into());
            }
        }
        if !calls.iter().any(|call| destination(call).any(&foreign)) {
            return Err("not even a question to workers that are not ours was heard".into());
        }
        Ok(())
    }
}

/// The nodes that a call names.
fn destination(call: &Value) -> impl Iterator<Item = &str> {
    let nodes = call["destination"].as_array().into_iter().flatten();
    nodes.filter_map(Value::as_str)
}

async fn on_redis(url: &str, keep: impl Fn(&[u8]) + Send + 'static) -> Result<JoinHandle<()>> {
    let mut channel = redis::Client::open(url)?.get_async_pubsub().await?;
    let database = url.rsplit('/').next().filter(|one| one.parse::<u8>().is_ok());
    let database = database.unwrap_or("0");
    channel.subscribe(format!("/{database}.celery.pidbox")).await?;
    Ok(tokio::spawn(async move {
        let mut messages = channel.into_on_message();
        while let Some(message) = messages.next().await {
            let envelope: Value = serde_json::from_slice(message.get_payload_bytes()).unwrap_or_default();
            let body = BASE64_STANDARD.decode(envelope["body"].as_str().unwrap_or_default());
            keep(&body.unwrap_or_default());
        }
    }))
}

async fn on_rabbitmq(url: &str, keep: impl Fn(&[u8]) + Send + 'static) -> Result<JoinHandle<()>> {
    let connection = Connection::connect(url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    let none = FieldTable::default;
    // As Celery declares it: no worker may have been there yet.
    let exchange = ExchangeDeclareOptions::default();
    channel
        .exchange_declare("celery.pidbox".into(), ExchangeKind::Fanout, exchange, none())
        .await?;
    let exclusive = QueueDeclareOptions {
        exclusive: true,
        ..QueueDeclareOptions::default()
    };
    channel
        .queue_declare("listener".into(), exclusive, none())
        .await?;
    let (queue, exchange) = ("listener".into(), "celery.pidbox".into());
    channel
        .queue_bind(queue, exchange, "".into(), QueueBindOptions::default(), none())
        .await?;
    let unacknowledged = BasicConsumeOptions {
        no_ack: true,
        ..BasicConsumeOptions::default()
    };
    let mut messages = channel
        .basic_consume("listener".into(), "".into(), unacknowledged, none())
        .await?;
    Ok(tokio::spawn(async move {
        let _open = connection;
        while let Some(Ok(message)) = messages.next().await {
            keep(&message.data);
        }
    }))
}
