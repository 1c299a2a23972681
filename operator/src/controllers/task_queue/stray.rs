//! What is told of messages in Celery's unnamed default queue that nobody will ever take.
//!
//! Once for a broker, and not again each time that the queue was empty for a moment: how often it is, and how many messages
//! are in it then, is up to whoever keeps the broker.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kube::Resource as _;
use poolwright_api::Reason;
use poolwright_api::v1alpha1::TaskQueue;
use poolwright_core::sample::BrokerView;
use poolwright_core::time::Moment;

use super::{Controller, Past};
use crate::kube::events::table;

/// So long none must have been there before it is told anew.
pub(super) const OVER: Duration = Duration::from_secs(600);

/// The brokers that were told of, by id, and when messages were last seen there.
#[derive(Default)]
pub(super) struct Stray(BTreeMap<String, Moment>);

impl Stray {
    /// Forgets where none has been for long, and brokers that no TaskQueue names any more: these are all `ids`.
    pub(super) fn forget(&mut self, ids: &[String], now: Moment) {
        if self.0.is_empty() {
            return;
        }
        let ids: BTreeSet<&String> = ids.iter().collect();
        self.0
            .retain(|id, seen| ids.contains(id) && now.since(*seen) < OVER);
    }

    /// Notes that messages are there; true if that was not told yet.
    fn is_news(&mut self, id: &str, now: Moment) -> bool {
        self.0.insert(id.to_owned(), now).is_none()
    }
}

impl Controller {
    /// Tells of the messages that are there now, if that is news.
    pub(super) fn tell_stray(&self, past: &mut Past, (queue, id): (&TaskQueue, &str), view: &BrokerView) {
        if !past.stray.is_news(id, self.clock.now()) {
            return;
        }
        let note = format!(
            "{} messages wait in the queue \"celery\" of {}, which no TaskQueue names and nobody consumes: tasks without a route go there",
            view.stray, view.address
        );
        let (about, reason) = (queue.object_ref(&()), Reason::QueueUnknown.as_str());
        self.events.send(&about, &table::STRAY, reason, &note);
    }
}
