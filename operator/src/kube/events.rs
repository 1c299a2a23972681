//! Events: one for each change of a decision or of a summary, never one a tick.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use poolwright_api::COMPONENT;
use poolwright_core::text::bounded;

/// Words of an event; the API server takes 1,024 bytes.
const NOTE_MAX: usize = 1000;

/// Events that differ in their note alone are joined, and the first one's words stand for all; told apart by their
/// action they are not.
fn digest(note: &str) -> String {
    let mut hasher = DefaultHasher::new();
    note.hash(&mut hasher);
    format!("{:08x}", hasher.finish() >> 32)
}

/// Sends events in the operator's name.
pub struct Events {
    recorder: Recorder,
}

impl Events {
    /// One for the whole process: it joins repeats.
    #[must_use]
    pub fn new(client: Client) -> Self {
        let reporter = Reporter {
            controller: COMPONENT.to_owned(),
            instance: std::env::var("POD_NAME").ok(),
        };
        Self {
            recorder: Recorder::new(client, reporter),
        }
    }

    /// Tells of `about`; a failure is logged and forgotten, because the same words stand in the status.
    pub async fn send(&self, about: &ObjectReference, warning: bool, reason: &str, action: &str, note: &str) {
        let event = Event {
            type_: if warning {
                EventType::Warning
            } else {
                EventType::Normal
            },
            reason: reason.to_owned(),
            note: Some(bounded(note, NOTE_MAX)),
            action: format!("{action}-{}", digest(note)),
            secondary: None,
        };
        if let Err(error) = self.recorder.publish(&event, about).await {
            tracing::debug!("event not sent: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::digest;

    #[test]
    fn only_equal_notes_have_one_digest() {
        assert_eq!(digest("exit code 3"), digest("exit code 3"));
        assert_ne!(digest("exit code 3"), digest("exit code 4"));
        assert_eq!(digest("").len(), 8, "an action is short");
    }
}
