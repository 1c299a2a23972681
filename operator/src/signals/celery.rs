//! Celery's wire format: events, remote-control requests and their answers, for both transports.
//!
//! Decides what a message means and whether it can be believed. It may not do I/O, and it may not keep or repeat
//! anything that a user wrote: task arguments are dropped while parsing (no type here has a field for them), and
//! an error never holds a byte of the message. Everything is bounded in bytes, because workers that share a
//! broker with ours may send anything.

mod begun;
mod bindings;
mod events;
#[cfg(test)]
pub(super) mod fuzzed;
mod pidbox;
mod replies;

pub use bindings::Bindings;
pub(crate) use bindings::Topics;
#[cfg(test)]
use bindings::topic_matches;
pub use events::{Unbelievable, heartbeat_from_body, heartbeat_from_envelope};
pub(crate) use pidbox::reply_exchange;
pub use pidbox::{COMMANDED_MAX, Command, Method, Request, envelope};
pub use replies::{Collector, Told, node_of_envelope_start};

use serde::Deserialize;

/// Longest event body that is read.
pub const MAX_EVENT_BYTES: usize = 64 * 1024;
/// Longest single reply that is read, as it arrives (on Redis before base64 is undone).
pub const MAX_REPLY_BYTES: usize = 1024 * 1024;
/// Most reply bytes that one inquiry reads in all.
pub const MAX_INQUIRY_BYTES: usize = 4 * 1024 * 1024;
/// Longest node, queue, exchange or routing-key name.
const MAX_NAME_BYTES: usize = 255;

/// The envelope in which kombu's Redis transport carries every message, reduced to what is read of it.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    body: std::borrow::Cow<'a, str>,
    #[serde(rename = "content-type", default)]
    content_type: String,
    #[serde(rename = "content-encoding", default)]
    content_encoding: String,
    #[serde(default)]
    headers: EnvelopeHeaders,
    #[serde(default)]
    properties: EnvelopeProperties,
}

#[derive(Default, Deserialize)]
struct EnvelopeHeaders {
    #[serde(default)]
    ticket: Option<String>,
}

#[derive(Default, Deserialize)]
struct EnvelopeProperties {
    #[serde(default)]
    body_encoding: Option<String>,
}

impl Envelope<'_> {
    /// The body's bytes, if it is JSON in UTF-8 under base64 (what kombu writes by default).
    fn json(&self) -> Option<Vec<u8>> {
        use base64::Engine as _;
        let plain = is_json(&self.content_type, &self.content_encoding);
        let base64 = self.properties.body_encoding.as_deref() == Some("base64");
        (plain && base64).then(|| {
            base64::engine::general_purpose::STANDARD
                .decode(self.body.as_bytes())
                .ok()
        })?
    }
}

/// True for the only content that is decoded.
fn is_json(content_type: &str, content_encoding: &str) -> bool {
    content_type.eq_ignore_ascii_case("application/json") && content_encoding.eq_ignore_ascii_case("utf-8")
}

/// A name that nobody else will choose, for our own queues and the tickets of questions.
pub(crate) fn unique() -> String {
    format!("poolwright-{:032x}", fastrand::u128(..))
}

/// True for a name that can be stored and shown.
fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= MAX_NAME_BYTES && !name.chars().any(char::is_control)
}

#[cfg(test)]
mod tests;
