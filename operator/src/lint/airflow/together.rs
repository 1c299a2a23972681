//! How many tasks DAGs and pools let in together, where a DAG's tasks are in several pools and a pool has tasks of several
//! DAGs.
//!
//! The sum of what each pool lets in is too much: a DAG has its limit once, not once for each of its pools. What is meant is
//! the largest flow from DAGs into pools: each DAG first sends what its pools take, and shortest augmenting paths (Edmonds
//! and Karp, 1972) make the most of it. Of pools the limits are in tasks, whatever each takes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// More than so many tasks are no number any more; also the sum of a million of these is one.
pub const LIMIT_MAX: u64 = 1 << 40;

/// A flow as it grows.
struct Flow<'a> {
    /// What DAGs may still send, by the pools that they have tasks in.
    dags: BTreeMap<&'a BTreeSet<usize>, u64>,
    /// What each pool may still take.
    pools: Vec<u64>,
    /// What goes into each pool, by the pools of the DAGs that it comes from.
    sent: Vec<BTreeMap<&'a BTreeSet<usize>, u64>>,
}

/// Most tasks at a time of DAGs, each with its own limit and the numbers of its pools, in pools with these limits.
pub fn together(dags: &[(u64, BTreeSet<usize>)], pools: &[u64]) -> u64 {
    let mut flow = Flow {
        dags: BTreeMap::new(),
        pools: pools.iter().map(|limit| LIMIT_MAX.min(*limit)).collect(),
        sent: vec![BTreeMap::new(); pools.len()],
    };
    for (limit, of) in dags {
        *flow.dags.entry(of).or_default() += LIMIT_MAX.min(*limit);
    }
    let mut sum = flow.fill();
    while let Some(path) = flow.path() {
        sum += flow.send(&path);
    }
    sum
}

impl<'a> Flow<'a> {
    /// Sends what goes straight into pools.
    fn fill(&mut self) -> u64 {
        let mut sum = 0;
        for (of, left) in &mut self.dags {
            for pool in *of {
                let tasks = self.pools[*pool].min(*left);
                if tasks > 0 {
                    *self.sent[*pool].entry(of).or_default() += tasks;
                }
                *left -= tasks;
                self.pools[*pool] -= tasks;
                sum += tasks;
            }
        }
        sum
    }

    /// A shortest way from DAGs that may send more to a pool that may take more: the pools on it with whose tasks each is
    /// filled. Who fills a pool on the way fills another one instead, which is the next.
    fn path(&self) -> Option<Vec<(usize, &'a BTreeSet<usize>)>> {
        let mut sources: VecDeque<&BTreeSet<usize>> = self
            .dags
            .iter()
            .filter(|(_, left)| **left > 0)
            .map(|(of, _)| *of)
            .collect();
        // For each pool who comes to it, and for those who leave one for another which it is.
        let mut from: BTreeMap<usize, &BTreeSet<usize>> = BTreeMap::new();
        let mut left: BTreeMap<&BTreeSet<usize>, Option<usize>> =
            sources.iter().map(|of| (*of, None)).collect();
        while let Some(of) = sources.pop_front() {
            for pool in of {
                if from.contains_key(pool) {
                    continue;
                }
                from.insert(*pool, of);
                if self.pools[*pool] > 0 {
                    let mut path = vec![(*pool, of)];
                    let mut at = of;
                    while let Some(before) = left.get(at).copied().flatten() {
                        at = from[&before];
                        path.push((before, at));
                    }
                    path.reverse();
                    return Some(path);
                }
                let others = self.sent[*pool].iter().filter(|(_, tasks)| **tasks > 0);
                for (other, _) in others {
                    if !left.contains_key(other) {
                        left.insert(other, Some(*pool));
                        sources.push_back(other);
                    }
                }
            }
        }
        None
    }

    /// Sends as much as this way takes.
    fn send(&mut self, path: &[(usize, &'a BTreeSet<usize>)]) -> u64 {
        let (Some((_, first)), Some((last, _))) = (path.first(), path.last()) else {
            return 0;
        };
        let leaving: Vec<(usize, &BTreeSet<usize>)> =
            path.windows(2).map(|pair| (pair[0].0, pair[1].1)).collect();
        let moved = leaving.iter().map(|place| self.sent[place.0][&place.1]);
        let tasks = moved.fold(self.dags[first].min(self.pools[*last]), u64::min);
        for place in path {
            *self.sent[place.0].entry(place.1).or_default() += tasks;
        }
        for place in leaving {
            *self.sent[place.0].entry(place.1).or_default() -= tasks;
        }
        *self.dags.entry(first).or_default() -= tasks;
        self.pools[*last] -= tasks;
        tasks
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// By the cut: of each set of DAGs their limits, and of the pools of all others theirs; the least of these is the flow.
    fn by_cuts(dags: &[(u64, BTreeSet<usize>)], pools: &[u64]) -> u64 {
        let cut = |chosen: u32| -> u64 {
            let mut open = BTreeSet::new();
            let mut sum = 0;
            for (at, (limit, of)) in dags.iter().enumerate() {
                if chosen >> at & 1 == 1 {
                    sum += limit;
                } else {
                    open.extend(of);
                }
            }
            sum + open.into_iter().map(|pool: usize| pools[pool]).sum::<u64>()
        };
        (0..1 << dags.len()).map(cut).min().unwrap_or(0)
    }

    #[test]
    fn a_dag_has_its_limit_once() {
        let of = |limit, pools: &[usize]| (limit, pools.iter().copied().collect());
        assert_eq!(together(&[of(21, &[0, 1])], &[100, 100]), 21);
        assert_eq!(together(&[of(21, &[0, 1])], &[3, 4]), 7);
        // What the first could send into the last pool is the second's.
        assert_eq!(together(&[of(10, &[0, 1, 2]), of(100, &[2])], &[100, 100, 5]), 15);
        assert_eq!(together(&[of(5, &[0, 1]), of(5, &[0])], &[5, 5]), 10);
        assert_eq!(together(&[of(u64::MAX, &[0]), of(u64::MAX, &[0])], &[9]), 9);
        assert_eq!(together(&[], &[9]), 0);
    }

    proptest! {
        #[test]
        fn it_is_the_least_cut(
            dags in prop::collection::vec((0..12_u64, prop::collection::btree_set(0..5_usize, 1..5)), 0..7),
            pools in prop::collection::vec(0..12_u64, 5),
        ) {
            prop_assert_eq!(together(&dags, &pools), by_cuts(&dags, &pools));
        }
    }
}
