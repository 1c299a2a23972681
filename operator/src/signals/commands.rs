//! The commands that wait to be sent to one broker's workers.
//!
//! Decides in which order they go: one message a tick, those that have waited longest first, because every worker of
//! the broker receives each of them. A newer word on a queue takes back an older one to the same worker, and what was
//! not repeated for a while is dropped: it may no longer be meant. Both bound what waits here, and nothing is lost by
//! it, since the cycle repeats what it still wants.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use poolwright_core::time::Moment;

use super::celery::{COMMANDED_MAX, Command};

/// A command that was not repeated for so long is not sent: some cycles, also where polls are far apart.
const MEANT_FOR: Duration = Duration::from_secs(5);
/// Most different commands that wait.
const WAITING_MAX: usize = 256;
/// Most workers that one of them waits for.
const NODES_MAX: usize = 2000;

/// Waiting commands, each with its workers and when it was last wanted for them.
#[derive(Debug, Default)]
pub(super) struct Commands(VecDeque<(Command, BTreeMap<String, Moment>)>);

impl Commands {
    /// Takes in a command; repeating one that waits leaves it its place.
    pub(super) fn take(&mut self, command: &Command, nodes: Vec<String>, now: Moment) {
        for (_, named) in self
            .0
            .iter_mut()
            .filter(|(other, _)| other != command && other.queue() == command.queue())
        {
            named.retain(|node, _| !nodes.contains(node));
        }
        if !self.0.iter().any(|(waiting, _)| waiting == command) && self.0.len() < WAITING_MAX {
            self.0.push_back((command.clone(), BTreeMap::new()));
        }
        if let Some((_, named)) = self.0.iter_mut().find(|(waiting, _)| waiting == command) {
            for node in nodes {
                if named.len() < NODES_MAX || named.contains_key(&node) {
                    named.insert(node, now);
                }
            }
        }
    }

    /// The next message: a command, and to whom it goes.
    pub(super) fn next(&mut self, now: Moment) -> Option<(Command, Vec<String>)> {
        for (_, named) in &mut self.0 {
            named.retain(|_, at| now.since(*at) <= MEANT_FOR);
        }
        self.0.retain(|(_, named)| !named.is_empty());
        let (command, mut named) = self.0.pop_front()?;
        if let Some(next) = named.keys().nth(COMMANDED_MAX).cloned() {
            let rest = named.split_off(&next);
            self.0.push_back((command.clone(), rest));
        }
        Some((command, named.into_keys().collect()))
    }
}
