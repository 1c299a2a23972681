//! How much of a broker is kept of workers that are no pods of ours.
//!
//! Whoever may publish on a broker can say to be any number of workers, and answer for each at length. What is kept of
//! those is bounded in all, so that they neither fill our memory nor keep a worker of ours from being heard. A pod's own
//! worker is always taken in: of these there are as many as pods.

use std::collections::BTreeSet;
use std::sync::Arc;

use poolwright_core::sample::{Answer, BrokerView, WorkerView};

/// Strangers that are heard on one broker.
pub(super) const STRANGERS_MAX: usize = 10_000;
/// Names of queues in their answers, in all. A name has 255 bytes at most.
pub(super) const NAMES_MAX: usize = 20_000;

/// Who is none, and what is kept of the others.
#[derive(Debug, Default)]
pub(super) struct Strangers {
    own: Arc<BTreeSet<String>>,
    count: usize,
    names: usize,
}

impl Strangers {
    /// Takes in which workers are pods of ours, and counts the rest of the view anew.
    pub(super) fn count(&mut self, own: Arc<BTreeSet<String>>, view: &BrokerView) {
        self.own = own;
        (self.count, self.names) = (0, 0);
        for (node, worker) in &view.workers {
            if !self.own.contains(node) {
                self.count += 1;
                self.names += kept(worker);
            }
        }
    }

    /// True if a worker that was not heard before may be taken in, which is noted.
    pub(super) fn admit(&mut self, node: &str) -> bool {
        if self.own.contains(node) {
            return true;
        }
        self.count += 1;
        self.count <= STRANGERS_MAX
    }

    /// True if its worker's answer may take the place of the last one, which is noted.
    pub(super) fn keep(&mut self, node: &str, worker: &WorkerView, answer: &Answer) -> bool {
        if self.own.contains(node) {
            return true;
        }
        let names = (self.names + names(answer)).saturating_sub(kept(worker));
        let fits = names <= NAMES_MAX;
        if fits {
            self.names = names;
        }
        fits
    }
}

fn kept(worker: &WorkerView) -> usize {
    worker.answer.as_ref().map_or(0, |answer| names(&answer.value))
}

fn names(answer: &Answer) -> usize {
    answer.running.len() + answer.reserved.len() + answer.scheduled.len() + answer.queues.len()
}
