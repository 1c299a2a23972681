//! Which queues share slots.
//!
//! It decides what one (n, u) of the program stands for. A fleet's slots serve all its queues, so a slot that one of them
//! leaves may serve another without a start-up: queues that a chain of fleets connects must share one n. With many
//! queues, whole Pools share one: n adds up, its rises together are at most the sum of the rises, and work and curves add
//! up too, so that what holds for each queue holds for the sum. Less is then demanded, never more.

use crate::scenario::Scenario;

/// With more queues than this, those of a Pool are taken together.
const MANY: usize = 8;

/// Queues that share slots.
#[derive(Clone, Debug)]
pub struct Block {
    /// Places of the queues.
    pub queues: Vec<usize>,
    /// Places of the fleets that consume any of them.
    pub fleets: Vec<usize>,
}

/// How queues are taken together.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Every queue is in one of them.
    pub blocks: Vec<Block>,
    /// Queues of a block are one curve.
    pub aggregate: bool,
    /// Most curves that one program can come to have.
    pub width: usize,
}

/// The blocks of a scenario.
pub fn plan(scenario: &Scenario) -> Plan {
    let count = scenario.queues.len();
    let aggregate = count > MANY;
    let mut sets = Sets((0..count).collect());
    for fleet in &scenario.fleets {
        for queue in fleet.queues.iter().skip(1) {
            sets.join(fleet.queues[0], *queue);
        }
    }
    if aggregate {
        // Queues without a Pool are taken together as if they had one, for there may be many of them.
        let pools = scenario.budgets.len();
        let mut firsts: Vec<Option<usize>> = vec![None; pools + 1];
        for (at, queue) in scenario.queues.iter().enumerate() {
            let pool = queue.budget.unwrap_or(pools);
            let first = *firsts[pool].get_or_insert(at);
            sets.join(first, at);
        }
    }
    let roots: Vec<usize> = (0..count).map(|queue| sets.root(queue)).collect();
    let block = |root: usize| {
        let queues: Vec<usize> = (0..count).filter(|queue| roots[*queue] == root).collect();
        let consumes = |fleet: &usize| {
            let consumed = &scenario.fleets[*fleet].queues;
            consumed.iter().any(|queue| roots[*queue] == root)
        };
        let fleets = (0..scenario.fleets.len()).filter(consumes).collect();
        Block { queues, fleets }
    };
    Plan {
        blocks: (0..count).filter(|at| roots[*at] == *at).map(block).collect(),
        aggregate,
        width: if aggregate { 1 } else { count },
    }
}

/// Disjoint sets; each member leads to its set's root.
pub struct Sets(pub Vec<usize>);

impl Sets {
    /// The member that stands for the set.
    pub fn root(&self, mut at: usize) -> usize {
        while self.0[at] != at {
            at = self.0[at];
        }
        at
    }

    /// Makes one set of two.
    pub fn join(&mut self, one: usize, other: usize) {
        let (one, other) = (self.root(one), self.root(other));
        self.0[one.max(other)] = one.min(other);
    }
}
