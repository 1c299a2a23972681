//! The effective weight of every queue of a namespace, by its weight rule; and of the tasks of a graph, by each.
//!
//! Related queues are a *set*: one that can be reached by two paths counts once, as in Airflow. A cycle has no before
//! and after, so the queues on it fall back to their own weight and the cycle is reported; a queue that merely leads
//! to a cycle still counts every queue of it once. This module reads no cluster and decides no order: it only adds.
//! It neither recurses nor keeps more than a few numbers for each queue, whatever the links between them are.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use poolwright_api::v1alpha1::{Priority, WeightRule};

/// Columns that are followed at a time: the bits of a word.
const COLUMNS: usize = 64;
/// A longer cycle is shown with its first queues only.
const SHOWN_MAX: usize = 8;

/// What the weights of a namespace are, and what is wrong with its links.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Weights {
    /// The effective weight of every queue that was given, by name.
    pub effective: BTreeMap<String, u64>,
    /// Cycles, by their first queue.
    pub cycles: Vec<Cycle>,
    /// Names in `downstream` that no TaskQueue has, by the queue that names them; they are ignored.
    pub unknown: BTreeMap<String, Vec<String>>,
}

impl Weights {
    /// The cycle that keeps `queue` at its own weight.
    #[must_use]
    pub fn cycle(&self, queue: &str) -> Option<&Cycle> {
        let is_on = |cycle: &&Cycle| {
            cycle
                .queues
                .binary_search_by(|name| name.as_str().cmp(queue))
                .is_ok()
        };
        self.cycles.iter().find(is_on)
    }
}

/// Queues that come after each other in a circle.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Cycle {
    /// One shortest way round, from the first name in the alphabet; the last leads to the first.
    pub path: Vec<String>,
    /// All queues that fall back to their own weight because of it, in order of names: those of the path and of every
    /// other circle that is tied to it.
    pub queues: Vec<String>,
}

impl fmt::Display for Cycle {
    /// `a -> b -> a`; of a long one the first few.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for name in self.path.iter().take(SHOWN_MAX) {
            write!(f, "{name} -> ")?;
        }
        if self.path.len() > SHOWN_MAX {
            write!(f, "… {} more … -> ", self.path.len() - SHOWN_MAX)?;
        }
        f.write_str(self.path.first().map_or("", String::as_str))
    }
}

/// The effective weights of the queues of one namespace, by name. Sums saturate.
///
/// Takes time in proportion to queues × links ÷ 64, and memory in proportion to queues + links.
#[must_use]
pub fn weights(queues: &BTreeMap<&str, &Priority>) -> Weights {
    let names: Vec<&str> = queues.keys().copied().collect();
    let nexts = queues.values().map(|priority| priority.downstream.as_slice());
    let (after, unknown) = followers(&names, nexts);
    let groups = Groups::new(&after);
    let own: Vec<i64> = queues.values().map(|priority| own(priority)).collect();
    let has_rule = |rule| queues.values().any(|priority| priority.weight_rule == rule);
    let sums = |backwards: bool| groups.sums(&after, &own, backwards);
    let downstream = has_rule(WeightRule::Downstream).then(|| sums(false));
    let upstream = has_rule(WeightRule::Upstream).then(|| sums(true));
    let mut effective = BTreeMap::new();
    for (at, (name, priority)) in queues.iter().enumerate() {
        let sums = match priority.weight_rule {
            WeightRule::Absolute => None,
            WeightRule::Downstream => downstream.as_ref(),
            WeightRule::Upstream => upstream.as_ref(),
        };
        let group = groups.of[at];
        let sum = sums
            .filter(|_| !groups.is_cycle(group, &after))
            .map(|sums| sums[group]);
        effective.insert((*name).to_owned(), sum.unwrap_or(own[at]).cast_unsigned());
    }
    Weights {
        effective,
        cycles: groups.cycles(&after, &names),
        unknown,
    }
}

/// A task of a graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its own weight; any number, which counts as the nearest that Airflow keeps.
    pub weight: i64,
    /// Names of those that come right after it.
    pub downstream: Vec<String>,
}

/// What a task weighs under each rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByRule {
    /// Its own weight and those of all that come after it.
    pub downstream: i64,
    /// Its own weight and those of all that come before it.
    pub upstream: i64,
    /// Its own weight.
    pub absolute: i64,
}

/// Why a graph has no weights.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GraphError {
    /// A task names one that is not there: who, and whom.
    #[error("`downstream` of {0:?} names {1:?}, and there is no such task: add it, or take the name out")]
    Unknown(String, String),
    /// Tasks come after each other in a circle, which Airflow refuses to load.
    #[error("tasks follow each other in a circle, {0}: take one of these names out of `downstream`")]
    Cycle(Cycle),
}

/// What each task of a graph weighs under the three rules of Airflow, by name. Its own weight and each sum are bounded as
/// Airflow bounds them.
///
/// # Errors
///
/// [`GraphError`] for the first name that no task has, or else for the first cycle: unlike queues of a namespace, which are
/// changed one at a time, a graph is given as a whole, and a rest of it would be no answer.
pub fn by_rule(tasks: &BTreeMap<String, Node>) -> Result<BTreeMap<&str, ByRule>, GraphError> {
    let names: Vec<&str> = tasks.keys().map(String::as_str).collect();
    let nexts = tasks.values().map(|task| task.downstream.as_slice());
    let (after, mut unknown) = followers(&names, nexts);
    if let Some((task, mut missing)) = unknown.pop_first() {
        return Err(GraphError::Unknown(task, missing.swap_remove(0)));
    }
    let groups = Groups::new(&after);
    if let Some(cycle) = groups.cycles(&after, &names).into_iter().next() {
        return Err(GraphError::Cycle(cycle));
    }
    let own: Vec<i64> = tasks.values().map(|task| kept(task.weight)).collect();
    let (downstream, upstream) = (groups.sums(&after, &own, false), groups.sums(&after, &own, true));
    let rows = names.into_iter().enumerate().map(|(at, name)| {
        let row = ByRule {
            downstream: kept(downstream[groups.of[at]]),
            upstream: kept(upstream[groups.of[at]]),
            absolute: own[at],
        };
        (name, row)
    });
    Ok(rows.collect())
}

/// The nearest weight that Airflow keeps: what a column of its database holds.
fn kept(weight: i64) -> i64 {
    weight.clamp(i32::MIN.into(), i32::MAX.into())
}

/// For each name the places of those that come right after it, each once; and names that nobody has, by who names them.
/// `names` are in order.
fn followers<'a>(
    names: &[&str],
    nexts: impl Iterator<Item = &'a [String]>,
) -> (Vec<Vec<usize>>, BTreeMap<String, Vec<String>>) {
    let mut unknown: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut after: Vec<Vec<usize>> = Vec::with_capacity(names.len());
    for (name, nexts) in names.iter().zip(nexts) {
        let mut known = Vec::with_capacity(nexts.len());
        for next in nexts {
            match names.binary_search(&next.as_str()) {
                Ok(at) => known.push(at),
                Err(_) => unknown.entry((*name).to_owned()).or_default().push(next.clone()),
            }
        }
        known.sort_unstable();
        known.dedup();
        after.push(known);
    }
    for missing in unknown.values_mut() {
        missing.sort_unstable();
        missing.dedup();
    }
    (after, unknown)
}

/// The weight of the queue itself; admission refuses one below 1.
fn own(priority: &Priority) -> i64 {
    i64::from(priority.weight).max(0)
}

/// Queues that lead to one another, taken together: between groups there is no cycle.
struct Groups {
    /// Group of each queue.
    of: Vec<usize>,
    /// Queues of each group; a group comes after all groups that it leads to.
    members: Vec<Vec<usize>>,
}

impl Groups {
    /// Tarjan's algorithm with its stack of calls written out.
    fn new(after: &[Vec<usize>]) -> Self {
        const NONE: usize = usize::MAX;
        let count = after.len();
        let (mut seen_at, mut lowest, mut of) = (vec![NONE; count], vec![0; count], vec![NONE; count]);
        let (mut members, mut open, mut clock) = (Vec::new(), Vec::new(), 0);
        // A queue, and how many of its links were followed.
        let mut calls: Vec<(usize, usize)> = Vec::new();
        for root in 0..count {
            if seen_at[root] == NONE {
                calls.push((root, 0));
            }
            while let Some((queue, followed)) = calls.pop() {
                if followed == 0 {
                    (seen_at[queue], lowest[queue]) = (clock, clock);
                    clock += 1;
                    open.push(queue);
                } else {
                    lowest[queue] = lowest[queue].min(lowest[after[queue][followed - 1]]);
                }
                let mut unseen = None;
                for (link, &next) in after[queue].iter().enumerate().skip(followed) {
                    if seen_at[next] == NONE {
                        unseen = Some((link, next));
                        break;
                    }
                    if of[next] == NONE {
                        lowest[queue] = lowest[queue].min(seen_at[next]);
                    }
                }
                if let Some((link, next)) = unseen {
                    calls.push((queue, link + 1));
                    calls.push((next, 0));
                } else if lowest[queue] == seen_at[queue] {
                    let start = open.iter().rposition(|one| *one == queue).unwrap_or(0);
                    let group: Vec<usize> = open.drain(start..).collect();
                    for one in &group {
                        (of[*one], lowest[*one]) = (members.len(), NONE);
                    }
                    members.push(group);
                }
            }
        }
        Self { of, members }
    }

    fn is_cycle(&self, group: usize, after: &[Vec<usize>]) -> bool {
        let members = &self.members[group];
        members.len() > 1 || members.iter().any(|one| after[*one].contains(one))
    }

    /// For each group the weights of its own queues and of all that it leads to, or, `backwards`, that lead to it.
    ///
    /// The set that a group reaches is followed for [`COLUMNS`] groups at a time, a bit each, so that it takes a word
    /// a group and not a matrix.
    fn sums(&self, after: &[Vec<usize>], own: &[i64], backwards: bool) -> Vec<i64> {
        let count = self.members.len();
        let links = self.links(after, backwards);
        let weight: Vec<i64> = self
            .members
            .iter()
            .map(|members| {
                members
                    .iter()
                    .fold(0, |sum: i64, one| sum.saturating_add(own[*one]))
            })
            .collect();
        // A group comes after what it leads to; backwards, before it.
        let order: Vec<usize> = if backwards {
            (0..count).rev().collect()
        } else {
            (0..count).collect()
        };
        let mut sums = vec![0_i64; count];
        let mut reached = vec![0_u64; count];
        for first in (0..count).step_by(COLUMNS) {
            let columns = &order[first..count.min(first + COLUMNS)];
            reached.fill(0);
            for (bit, &group) in columns.iter().enumerate() {
                reached[group] = 1 << bit;
            }
            // What comes earlier in the order cannot lead to these columns.
            for &group in &order[first..] {
                let mut set = reached[group];
                for &next in &links[group] {
                    set |= reached[next];
                }
                reached[group] = set;
                while set != 0 {
                    let bit = set.trailing_zeros() as usize;
                    sums[group] = sums[group].saturating_add(weight[columns[bit]]);
                    set &= set - 1;
                }
            }
        }
        sums
    }

    /// Links between different groups.
    fn links(&self, after: &[Vec<usize>], backwards: bool) -> Vec<Vec<usize>> {
        let mut links = vec![Vec::new(); self.members.len()];
        for (queue, nexts) in after.iter().enumerate() {
            for &next in nexts {
                let (from, to) = (self.of[queue], self.of[next]);
                if from != to {
                    let (from, to) = if backwards { (to, from) } else { (from, to) };
                    links[from].push(to);
                }
            }
        }
        for link in &mut links {
            link.sort_unstable();
            link.dedup();
        }
        links
    }

    fn cycles(&self, after: &[Vec<usize>], names: &[&str]) -> Vec<Cycle> {
        let with_names = |queues: Vec<usize>| -> Vec<String> {
            queues.into_iter().map(|queue| names[queue].to_owned()).collect()
        };
        let mut cycles: Vec<Cycle> = (0..self.members.len())
            .filter(|group| self.is_cycle(*group, after))
            .map(|group| {
                // Queues are numbered in the order of their names.
                let mut queues = self.members[group].clone();
                queues.sort_unstable();
                let path = self.way_round(queues[0], after);
                Cycle {
                    path: with_names(path),
                    queues: with_names(queues),
                }
            })
            .collect();
        cycles.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        cycles
    }

    /// A shortest way from `start` back to it, without the return; breadth first, so the same for the same links.
    fn way_round(&self, start: usize, after: &[Vec<usize>]) -> Vec<usize> {
        let mut from: BTreeMap<usize, usize> = BTreeMap::new();
        let mut queue = VecDeque::from([start]);
        while let Some(at) = queue.pop_front() {
            for &next in &after[at] {
                if next == start {
                    let mut path = vec![at];
                    while let Some(&before) = path.last().and_then(|last| from.get(last)) {
                        path.push(before);
                    }
                    path.reverse();
                    return path;
                }
                if self.of[next] == self.of[start] && !from.contains_key(&next) {
                    from.insert(next, at);
                    queue.push_back(next);
                }
            }
        }
        vec![start]
    }
}

#[cfg(test)]
#[path = "weight_tests.rs"]
mod tests;
