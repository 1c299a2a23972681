//! Where pollers put what they read, and the cycle finds it.
//!
//! Holds the newest [`BrokerView`] of each broker and wakes the cycle when one is replaced. Readers never wait
//! for a broker.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use poolwright_core::sample::BrokerView;
use poolwright_core::shedding::Loads;
use tokio::sync::{Notify, mpsc};

use super::celery::Command;

/// What a poller is to do with workers of its broker.
#[derive(Debug)]
pub enum Errand {
    /// Ask these.
    Ask(Vec<String>),
    /// Ask these, also for the size of their execution pools.
    Size(Vec<String>),
    /// Tell these.
    Tell(Command, Vec<String>),
}

/// The newest readings of all brokers.
#[derive(Default)]
pub struct Board {
    views: Mutex<BTreeMap<String, Arc<BrokerView>>>,
    lines: Mutex<BTreeMap<String, mpsc::Sender<Errand>>>,
    connections: Mutex<BTreeMap<String, u64>>,
    loads: Mutex<Loads>,
    own: Mutex<Arc<BTreeSet<String>>>,
    /// Woken when a view or anything else that a decision sees has changed.
    pub changed: Notify,
}

impl Board {
    /// Replaces one broker's view and wakes the cycle.
    pub fn publish(&self, broker: &str, view: BrokerView) {
        self.views
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(broker.to_owned(), Arc::new(view));
        self.changed.notify_one();
    }

    /// All views as they are now.
    #[must_use]
    pub fn views(&self) -> BTreeMap<String, Arc<BrokerView>> {
        self.views.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces all loads and wakes the cycle.
    pub fn publish_loads(&self, loads: Loads) {
        *self.loads.lock().unwrap_or_else(PoisonError::into_inner) = loads;
        self.changed.notify_one();
    }

    /// All loads as they were last read.
    #[must_use]
    pub fn loads(&self) -> Loads {
        self.loads.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces the node names of all pods of WorkerPools.
    pub fn publish_own(&self, nodes: Arc<BTreeSet<String>>) {
        *self.own.lock().unwrap_or_else(PoisonError::into_inner) = nodes;
    }

    /// The node names of all pods of WorkerPools, as the last cycle saw them.
    #[must_use]
    pub fn own(&self) -> Arc<BTreeSet<String>> {
        Arc::clone(&self.own.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Registers the broker's line for questions and commands to its workers.
    pub fn register(&self, broker: &str, line: mpsc::Sender<Errand>) {
        self.lines
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(broker.to_owned(), line);
    }

    /// Notes the open connections of one broker; returns those of all.
    pub fn connections(&self, broker: &str, open: u64) -> u64 {
        let mut all = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        if open == 0 {
            all.remove(broker);
        } else {
            all.insert(broker.to_owned(), open);
        }
        all.values().sum()
    }

    /// Forgets a broker that no TaskQueue names any more, unless another poller than that of `line` reads it by now: a
    /// TaskQueue that is created anew has one before the old one has come to its end. False if so.
    pub fn forget(&self, broker: &str, line: &mpsc::Sender<Errand>) -> bool {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.get(broker).is_some_and(|own| !own.same_channel(line)) {
            return false;
        }
        lines.remove(broker);
        drop(lines);
        self.views
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(broker);
        self.changed.notify_one();
        true
    }

    /// Asks these workers soon. A full line drops the request: the next cycle repeats it.
    pub fn ask(&self, broker: &str, nodes: Vec<String>) {
        self.send(broker, Errand::Ask(nodes));
    }

    /// Asks these workers soon, also for the size of their execution pools.
    pub fn size(&self, broker: &str, nodes: Vec<String>) {
        self.send(broker, Errand::Size(nodes));
    }

    /// Tells these workers to change what they consume or have, soon. A full line drops it: the next cycle repeats it, for as
    /// long as their answers do not show it done. What is not repeated for 5 s and was not sent is dropped too.
    pub fn command(&self, broker: &str, command: Command, nodes: Vec<String>) {
        self.send(broker, Errand::Tell(command, nodes));
    }

    fn send(&self, broker: &str, errand: Errand) {
        let line = self
            .lines
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(broker)
            .cloned();
        if let Some(line) = line {
            let _ = line.try_send(errand);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_poller_does_not_take_its_successors_line() {
        let board = Board::default();
        let ((old, _), (new, mut asked)) = (mpsc::channel(1), mpsc::channel(1));
        board.register("b", old.clone());
        board.register("b", new.clone());
        board.publish("b", BrokerView::default());
        assert!(!board.forget("b", &old));
        board.ask("b", vec!["celery@a".to_owned()]);
        assert!(asked.try_recv().is_ok() && board.views().contains_key("b"));
        assert!(board.forget("b", &new));
        board.ask("b", vec!["celery@a".to_owned()]);
        assert!(asked.try_recv().is_err() && board.views().is_empty());
    }
}
