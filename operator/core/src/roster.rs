//! The workers of one broker, looked up by the names of their pods.
//!
//! Who goes through many WorkerPools in the order of their names comes to the pods, and so to the workers, mostly in the
//! order of theirs: then the next worker is the one, and no name is searched for among ten thousand. It decides nothing, and
//! in whatever order it is asked, it finds the same.

use std::collections::btree_map::{BTreeMap, Range};
use std::iter::Peekable;
use std::ops::Bound;

use crate::sample::{BrokerView, WorkerView};

/// A place among the workers of a broker.
pub(crate) struct Roster<'a> {
    workers: &'a BTreeMap<String, WorkerView>,
    /// Behind the one that was found last.
    rest: Peekable<Range<'a, String, WorkerView>>,
}

impl<'a> Roster<'a> {
    pub(crate) fn new(view: &'a BrokerView) -> Self {
        let workers = &view.workers;
        Self {
            workers,
            rest: workers.range::<str, _>(..).peekable(),
        }
    }

    /// The worker of this node name.
    pub(crate) fn find(&mut self, node: &str) -> Option<&'a WorkerView> {
        let is_it = |(name, _): &(&String, &WorkerView)| name.as_str() == node;
        let next = self.rest.next_if(is_it);
        let found = next.or_else(|| {
            let from = (Bound::Included(node), Bound::Unbounded);
            self.rest = self.workers.range::<str, _>(from).peekable();
            self.rest.next_if(is_it)
        });
        found.map(|(_, worker)| worker)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::time::Moment;

    /// In order, against it, twice, and names that are not there.
    #[test]
    fn the_order_of_the_questions_does_not_matter() {
        let names = ["a", "b", "c", "d"];
        let workers = names.iter().zip(1..).map(|(name, pid)| {
            (
                (*name).to_owned(),
                WorkerView::new(pid, 0, Duration::ZERO, Moment(0)),
            )
        });
        let view = BrokerView {
            workers: workers.collect(),
            ..BrokerView::default()
        };
        let mut roster = Roster::new(&view);
        for name in ["a", "b", "b", "bb", "c", "a", "", "d", "e", "d", "c"] {
            let found = roster.find(name).map(|worker| worker.pid);
            assert_eq!(found, view.workers.get(name).map(|worker| worker.pid), "{name:?}");
        }
    }
}
