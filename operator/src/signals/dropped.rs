//! Heartbeats that are dropped because they cannot be believed: how many, and why the last one.
//!
//! Their worker counts as unseen, which looks like a worker that is hung or on another broker, so it is said; the event
//! channels are open to every client of the broker, so it is said at most once a minute and in bounded words.

use std::time::Duration;

use tokio::time::Instant;

use super::Heartbeat;
use super::celery::Unbelievable;

/// Time between two warnings. The first minute of a subscription is silent, so that one that is lost and comes back
/// again and again says no more than one that stays.
const SAY_AGAIN: Duration = Duration::from_secs(60);

/// What one subscription dropped.
pub(super) struct Dropped {
    /// Of the broker, without user information.
    address: String,
    /// Since the last warning.
    count: u64,
    said: Instant,
}

impl Dropped {
    /// Nothing yet.
    pub(super) fn new(address: String) -> Self {
        Self {
            address,
            count: 0,
            said: Instant::now(),
        }
    }

    /// The heartbeat, if it is one. One that cannot be believed is counted and, once a minute, warned of.
    pub(super) fn sift(&mut self, read: Result<Option<Heartbeat>, Unbelievable>) -> Option<Heartbeat> {
        read.unwrap_or_else(|odd| {
            if let Some(words) = self.words(&odd) {
                tracing::warn!(address = %self.address, "{words}");
            }
            None
        })
    }

    /// Counts one, and says what there is to be said of it and those before it, if it is time.
    fn words(&mut self, odd: &Unbelievable) -> Option<String> {
        self.count += 1;
        if self.said.elapsed() < SAY_AGAIN {
            return None;
        }
        let count = std::mem::take(&mut self.count);
        self.said = Instant::now();
        let from = match &odd.node {
            // Quoted, because it may hold anything.
            Some(node) => format!("of worker {node:?}"),
            None => "of an unknown worker".to_owned(),
        };
        let why = odd.why;
        Some(format!(
            "heartbeats were dropped: {count}, the last one {from}: {why}. A worker that sends no other counts as unseen"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signals::celery::heartbeat_from_body;

    #[tokio::test(start_paused = true)]
    async fn they_are_counted_and_said_once_a_minute() {
        let mut dropped = Dropped::new("redis://broker".to_owned());
        let odd = |node: &str| Unbelievable {
            node: Some(node.to_owned()),
            why: "its active is odd",
        };
        for second in 0..60 {
            assert_eq!(dropped.words(&odd("a")), None, "second {second}");
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        let found = dropped.words(&odd("w\n\u{202e}\"1")).unwrap();
        let words = "heartbeats were dropped: 61, the last one of worker \"w\\n\\u{202e}\\\"1\": its active is odd. A \
                     worker that sends no other counts as unseen";
        assert_eq!(found, words);
        assert_eq!(dropped.words(&odd("a")), None);
        tokio::time::advance(Duration::from_secs(60)).await;
        let nobody = Unbelievable {
            node: None,
            why: "it is empty",
        };
        let found = dropped.words(&nobody).unwrap();
        assert!(
            found.starts_with("heartbeats were dropped: 2, the last one of an unknown worker: it is empty."),
            "{found}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_no_heartbeat_is_not_counted() {
        let mut dropped = Dropped::new("redis://broker".to_owned());
        let task = br#"{"hostname":"w@1","type":"task-received"}"#;
        assert_eq!(dropped.sift(heartbeat_from_body(task)), None);
        assert_eq!(dropped.count, 0);
        let odd =
            br#"{"hostname":"w@1","pid":1,"active":-1,"processed":0,"freq":2,"type":"worker-heartbeat"}"#;
        assert_eq!(dropped.sift(heartbeat_from_body(odd)), None);
        assert_eq!(dropped.count, 1);
        let good = std::str::from_utf8(odd).unwrap().replace("-1", "1");
        assert_eq!(
            dropped.sift(heartbeat_from_body(good.as_bytes())).unwrap().node,
            "w@1"
        );
        assert_eq!(dropped.count, 1);
    }
}
