//! Names of keys and channels as kombu's Redis transport forms them.
//!
//! Decides names only. `global_keyprefix` stands before keys and channels alike; the database number is part of a
//! channel's name because pub/sub ignores databases.

use poolwright_core::broker::BrokerConfig;

use crate::signals::celery::reply_exchange;

/// kombu's separator of priority suffixes and binding members.
pub(super) const SEPARATOR: &str = "\u{6}\u{16}";
/// The events that are signs of life.
const EVENTS: [&str; 3] = ["worker.heartbeat", "worker.online", "worker.offline"];

/// The names on one broker.
#[derive(Clone, Debug)]
pub(super) struct Names {
    prefix: String,
    database: u32,
    steps: Vec<u8>,
    control_exchange: String,
    event_exchange: String,
}

impl Names {
    pub(super) fn new(config: &BrokerConfig) -> Self {
        Self {
            prefix: config.key_prefix.clone(),
            database: config.database,
            steps: config.priority_steps.clone(),
            control_exchange: config.control_exchange.clone(),
            event_exchange: config.event_exchange.clone(),
        }
    }

    /// The lists of one queue: the plain one and one for each further priority step.
    pub(super) fn lists(&self, queue: &str) -> Vec<String> {
        let plain = std::iter::once(0);
        plain
            .chain(self.steps.iter().copied().filter(|&s| s != 0))
            .map(|step| self.list(queue, step))
            .collect()
    }

    fn list(&self, queue: &str, step: u8) -> String {
        match step {
            0 => format!("{}{queue}", self.prefix),
            step => format!("{}{queue}{SEPARATOR}{step}", self.prefix),
        }
    }

    pub(super) fn unacked(&self) -> String {
        format!("{}unacked", self.prefix)
    }

    pub(super) fn unacked_index(&self) -> String {
        format!("{}unacked_index", self.prefix)
    }

    /// The set of an exchange's bindings.
    pub(super) fn bindings(&self, exchange: &str) -> String {
        format!("{}_kombu.binding.{exchange}", self.prefix)
    }

    /// The channels of the workers' signs of life.
    pub(super) fn event_channels(&self) -> Vec<String> {
        let channel = |event| {
            format!(
                "{}/{}.{}/{event}",
                self.prefix, self.database, self.event_exchange
            )
        };
        EVENTS.into_iter().map(channel).collect()
    }

    /// The channel on which workers listen for questions.
    pub(super) fn control_channel(&self) -> String {
        format!("{}/{}.{}", self.prefix, self.database, self.control_fanout())
    }

    /// The exchange of questions.
    pub(super) fn control_fanout(&self) -> String {
        format!("{}.pidbox", self.control_exchange)
    }

    pub(super) fn control_exchange(&self) -> &str {
        &self.control_exchange
    }

    /// The set that routes replies.
    pub(super) fn reply_bindings(&self) -> String {
        self.bindings(&reply_exchange(&self.control_exchange))
    }

    /// The member of that set for one inquirer. kombu's prefix is on keys, not inside members.
    pub(super) fn reply_member(&self, oid: &str) -> String {
        let queue = format!("{oid}.{}", reply_exchange(&self.control_exchange));
        format!("{oid}{SEPARATOR}{SEPARATOR}{queue}")
    }

    /// The list that replies arrive in. They have priority 0; where no step is 0, kombu rounds that to the last.
    pub(super) fn reply_list(&self, oid: &str) -> String {
        let step = if self.steps.contains(&0) {
            0
        } else {
            self.steps.last().copied().unwrap_or(0)
        };
        self.list(&format!("{oid}.{}", reply_exchange(&self.control_exchange)), step)
    }
}

#[cfg(test)]
mod tests {
    use poolwright_core::broker::{BrokerConfig, BrokerOptions};

    use super::Names;

    #[test]
    fn names_are_kombus() {
        let options = BrokerOptions {
            key_prefix: "app1:".into(),
            ..BrokerOptions::default()
        };
        let names = Names::new(&BrokerConfig::parse("redis://h/3", &options).unwrap());
        assert_eq!(
            names.lists("q"),
            [
                "app1:q",
                "app1:q\u{6}\u{16}3",
                "app1:q\u{6}\u{16}6",
                "app1:q\u{6}\u{16}9"
            ]
        );
        assert_eq!(names.unacked_index(), "app1:unacked_index");
        assert_eq!(names.event_channels()[0], "app1:/3.celeryev/worker.heartbeat");
        assert_eq!(names.control_channel(), "app1:/3.celery.pidbox");
        assert_eq!(names.reply_bindings(), "app1:_kombu.binding.reply.celery.pidbox");
        assert_eq!(
            names.reply_member("o"),
            "o\u{6}\u{16}\u{6}\u{16}o.reply.celery.pidbox"
        );
        assert_eq!(names.reply_list("o"), "app1:o.reply.celery.pidbox");
        let options = BrokerOptions {
            priority_steps: vec![2, 5],
            ..BrokerOptions::default()
        };
        let names = Names::new(&BrokerConfig::parse("redis://h", &options).unwrap());
        assert_eq!(names.lists("q"), ["q", "q\u{6}\u{16}2", "q\u{6}\u{16}5"]);
        assert_eq!(names.reply_list("o"), "o.reply.celery.pidbox\u{6}\u{16}5");
    }
}
