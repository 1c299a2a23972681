//! The ledgers of one broker's queues, and which of them belong to which of its WorkerPools.
//!
//! A list in the order of the names, and no map: with a queue for each of ten thousand WorkerPools, to look up each name
//! again and again would be much of the work of a cycle. It decides nothing.

use std::ops::Index;
use std::sync::Arc;

use crate::ledger::QueueLedger;

/// One broker's queues, by name.
#[derive(Clone, Debug, Default)]
pub struct Books {
    list: Vec<Book>,
    /// Places in the list of the queues of the first WorkerPool, then of the next.
    places: Vec<usize>,
    /// Where those of each WorkerPool end.
    ends: Vec<usize>,
}

/// A queue's name and its ledger.
pub type Book = (Arc<str>, QueueLedger);

impl Books {
    /// From ledgers in the order of their names, and from pairs of a WorkerPool's place among `pools` and the place of a
    /// ledger of it.
    pub(crate) fn new(list: Vec<Book>, mut owners: Vec<(usize, usize)>, pools: usize) -> Self {
        owners.sort_unstable();
        let mut ends = Vec::with_capacity(pools);
        let mut end = 0;
        for pool in 0..pools {
            end += owners[end..]
                .iter()
                .take_while(|(owner, _)| *owner == pool)
                .count();
            ends.push(end);
        }
        let places = owners.into_iter().map(|(_, place)| place).collect();
        Self { list, places, ends }
    }

    /// The ledger of this queue.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&QueueLedger> {
        self.find(name).map(|place| &self.list[place].1)
    }

    /// The queues of the WorkerPool at this place, in the order of their names.
    pub(crate) fn of(&self, pool: usize) -> impl Iterator<Item = &Book> {
        self.places_of(pool).iter().map(|place| &self.list[*place])
    }

    /// The place of a queue's ledger, which is most likely the one at `number` of that WorkerPool.
    pub(crate) fn place(&self, pool: usize, number: usize, name: &str) -> Option<usize> {
        let likely = self.places_of(pool).get(number).copied();
        likely
            .filter(|place| *self.list[*place].0 == *name)
            .or_else(|| self.find(name))
    }

    /// The ledger at a place.
    pub(crate) fn at(&mut self, place: usize) -> &mut QueueLedger {
        &mut self.list[place].1
    }

    fn find(&self, name: &str) -> Option<usize> {
        self.list.binary_search_by(|(other, _)| (**other).cmp(name)).ok()
    }

    fn places_of(&self, pool: usize) -> &[usize] {
        let begin = pool.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.places[begin..self.ends[pool]]
    }
}

impl Index<&str> for Books {
    type Output = QueueLedger;

    fn index(&self, name: &str) -> &QueueLedger {
        self.get(name).expect("a queue of this broker")
    }
}
