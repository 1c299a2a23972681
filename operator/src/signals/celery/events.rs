//! Worker events: online, heartbeat, offline.
//!
//! Decides whether an event is one of the three and plausible. Everything else is dropped without a word, since
//! the event channels are open to every client of the broker.

use std::time::Duration;

use serde::Deserialize;

use super::{Envelope, MAX_EVENT_BYTES, is_name};
use crate::signals::Heartbeat;

/// Most executing or started tasks that are believed.
const MAX_COUNT: u64 = 1_000_000_000;
/// Largest process id that is believed (the kernel's own limit is 2²²).
const MAX_PID: i64 = u32::MAX as i64;
/// Shortest and longest believed time between two heartbeats, in seconds.
const INTERVAL: std::ops::RangeInclusive<f64> = 0.1..=3600.0;

#[derive(Deserialize)]
struct Event {
    hostname: String,
    pid: i64,
    active: u64,
    processed: u64,
    freq: f64,
    #[serde(rename = "type")]
    kind: String,
}

/// Reads an event as Redis carries it: an envelope whose body is base64.
#[must_use]
pub fn heartbeat_from_envelope(message: &[u8]) -> Option<Heartbeat> {
    // Base64 adds a third, the envelope less than the rest.
    if message.len() > 2 * MAX_EVENT_BYTES {
        return None;
    }
    let envelope: Envelope = serde_json::from_slice(message).ok()?;
    heartbeat_from_body(&envelope.json()?)
}

/// Reads an event as AMQP carries it: the plain JSON body.
#[must_use]
pub fn heartbeat_from_body(body: &[u8]) -> Option<Heartbeat> {
    if body.len() > MAX_EVENT_BYTES {
        return None;
    }
    let event: Event = serde_json::from_slice(body).ok()?;
    let (online, offline) = match event.kind.as_str() {
        "worker-heartbeat" => (false, false),
        "worker-online" => (true, false),
        "worker-offline" => (false, true),
        _ => return None,
    };
    let plausible = is_name(&event.hostname)
        && (0..=MAX_PID).contains(&event.pid)
        && event.active <= MAX_COUNT
        && event.processed <= MAX_COUNT
        && INTERVAL.contains(&event.freq);
    plausible.then(|| Heartbeat {
        node: event.hostname,
        pid: event.pid,
        active: event.active,
        processed: event.processed,
        interval: Duration::from_secs_f64(event.freq),
        online,
        offline,
    })
}
