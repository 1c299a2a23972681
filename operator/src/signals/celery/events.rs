//! Worker events: online, heartbeat, offline.
//!
//! Decides whether an event is one of the three and plausible. Other events are nothing to us; what cannot be believed is
//! given a reason that holds no byte of it but its worker's name, since the event channels are open to every client of
//! the broker.

use std::time::Duration;

use poolwright_api::text::bounded;
use serde::Deserialize;
use serde_json::Value;

use super::{Envelope, MAX_EVENT_BYTES, is_name};
use crate::signals::Heartbeat;

/// Most executing or started tasks that are believed.
const MAX_COUNT: u64 = 1_000_000_000;
/// Largest process id that is believed (the kernel's own limit is 2²²).
const MAX_PID: i64 = u32::MAX as i64;
/// Shortest and longest believed time between two heartbeats, in seconds.
const INTERVAL: std::ops::RangeInclusive<f64> = 0.1..=3600.0;
/// Most of a name that is repeated, in bytes.
const NODE_SHOWN: usize = 100;

const TOO_LONG: &str = "it is longer than 64 KiB";
const NO_ENVELOPE: &str = "it is no message as Celery writes them";
const NO_JSON: &str =
    "it is no JSON in UTF-8 (NaN and Infinity are none; of other formats Celery's event_serializer decides)";

/// Why an event cannot be believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unbelievable {
    /// The worker's name as the event has it, cut; it may hold anything.
    pub node: Option<String>,
    /// What is wrong and what is allowed.
    pub why: &'static str,
}

/// Of any type, so that one wrong member hides no other.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Event {
    hostname: Value,
    pid: Value,
    active: Value,
    processed: Value,
    freq: Value,
    #[serde(rename = "type")]
    kind: Value,
}

/// Reads an event as Redis carries it: an envelope whose body is base64. `None` for one that is none of the three.
///
/// # Errors
/// It cannot be believed.
pub fn heartbeat_from_envelope(message: &[u8]) -> Result<Option<Heartbeat>, Unbelievable> {
    let of_nobody = |why| Unbelievable { node: None, why };
    // Base64 adds a third, the envelope less than the rest.
    if message.len() > 2 * MAX_EVENT_BYTES {
        return Err(of_nobody(TOO_LONG));
    }
    let envelope: Envelope = serde_json::from_slice(message).map_err(|_| of_nobody(NO_ENVELOPE))?;
    let body = envelope.json().ok_or_else(|| of_nobody(NO_JSON))?;
    heartbeat_from_body(&body)
}

/// Reads an event as AMQP carries it: the plain JSON body. `None` for one that is none of the three.
///
/// # Errors
/// It cannot be believed.
pub fn heartbeat_from_body(body: &[u8]) -> Result<Option<Heartbeat>, Unbelievable> {
    if body.len() > MAX_EVENT_BYTES {
        return Err(Unbelievable {
            node: node_of_start(body),
            why: TOO_LONG,
        });
    }
    let event: Event = serde_json::from_slice(body).map_err(|_| Unbelievable {
        node: node_of_start(body),
        why: NO_JSON,
    })?;
    let (online, offline) = match event.kind.as_str() {
        Some("worker-heartbeat") => (false, false),
        Some("worker-online") => (true, false),
        Some("worker-offline") => (false, true),
        _ => return Ok(None),
    };
    let heartbeat = plausible(&event).map_err(|why| Unbelievable {
        node: event.hostname.as_str().map(|node| bounded(node, NODE_SHOWN)),
        why,
    })?;
    Ok(Some(Heartbeat {
        online,
        offline,
        ..heartbeat
    }))
}

/// The numbers of an event, or which of them cannot be true.
fn plausible(event: &Event) -> Result<Heartbeat, &'static str> {
    let count = |value: &Value| value.as_u64().filter(|count| *count <= MAX_COUNT);
    let node = event.hostname.as_str().filter(|name| is_name(name));
    let pid = event.pid.as_i64().filter(|pid| (0..=MAX_PID).contains(pid));
    let freq = event.freq.as_f64().filter(|freq| INTERVAL.contains(freq));
    Ok(Heartbeat {
        node: node
            .ok_or("its hostname is not 1 to 255 bytes without control characters")?
            .to_owned(),
        pid: pid.ok_or("its pid is no whole number of 0 to 4,294,967,295")?,
        active: count(&event.active).ok_or("its active is no whole number of 0 to 1,000,000,000")?,
        processed: count(&event.processed).ok_or("its processed is no whole number of 0 to 1,000,000,000")?,
        interval: Duration::from_secs_f64(freq.ok_or("its freq is no number of 0.1 to 3,600 seconds")?),
        online: false,
        offline: false,
    })
}

/// The worker that sent what cannot be read, from its first bytes: Celery writes its name first.
fn node_of_start(body: &[u8]) -> Option<String> {
    let rest = body.trim_ascii_start().strip_prefix(b"{")?.trim_ascii_start();
    let rest = rest.strip_prefix(b"\"hostname\"")?.trim_ascii_start();
    let rest = rest.strip_prefix(b":")?;
    let mut values = serde_json::Deserializer::from_slice(rest).into_iter::<String>();
    Some(bounded(&values.next()?.ok()?, NODE_SHOWN))
}
