//! The effective weights of all TaskQueues, calculated anew only where a spec changed.
//!
//! A weight follows from all TaskQueues of a namespace, so it is calculated for a namespace at a time; most looks find
//! that nothing has changed since the last one.

use std::collections::BTreeMap;
use std::sync::Arc;

use kube::ResourceExt;
use poolwright_api::v1alpha1::TaskQueue;
use poolwright_core::weight::{Cycle, Weights, weights};

/// Which specs a calculation was made from: uid and generation of each TaskQueue, in name order.
type Specs = Vec<(Option<String>, Option<i64>)>;

/// The weights of every namespace.
#[derive(Default)]
pub struct Ranks(BTreeMap<String, (Specs, Weights)>);

impl Ranks {
    /// Calculates anew what changed; `queues` are all TaskQueues, those of a namespace one after another in name order.
    pub fn refresh(&mut self, queues: &[Arc<TaskQueue>]) {
        let mut old = std::mem::take(&mut self.0);
        for siblings in queues.chunk_by(|one, next| one.metadata.namespace == next.metadata.namespace) {
            let namespace = siblings[0].namespace().unwrap_or_default();
            let specs: Specs = siblings
                .iter()
                .map(|queue| (queue.metadata.uid.clone(), queue.metadata.generation))
                .collect();
            let known = old.remove(&namespace).filter(|(known, _)| *known == specs);
            let ranks = known.unwrap_or_else(|| {
                let priorities = siblings.iter().map(|queue| {
                    let name = queue.metadata.name.as_deref().unwrap_or_default();
                    (name, &queue.spec.priority)
                });
                (specs, weights(&priorities.collect()))
            });
            self.0.insert(namespace, ranks);
        }
    }

    /// What is known of one of them.
    pub fn of(&self, queue: &TaskQueue) -> Rank<'_> {
        let namespace = queue.metadata.namespace.as_deref().unwrap_or_default();
        let name = queue.metadata.name.as_deref().unwrap_or_default();
        let weights = self.0.get(namespace).map(|(_, weights)| weights);
        Rank {
            effective: weights.and_then(|weights| weights.effective.get(name).copied()),
            cycle: weights.and_then(|weights| weights.cycle(name)),
        }
    }
}

/// What one TaskQueue weighs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rank<'a> {
    /// Its effective weight, once it was calculated.
    pub effective: Option<u64>,
    /// The circle that it is on.
    pub cycle: Option<&'a Cycle>,
}

#[cfg(test)]
mod tests {
    use poolwright_api::v1alpha1::{Priority, TaskQueueSpec, WeightRule};

    use super::*;

    fn queue(namespace: &str, name: &str, weight: i32, downstream: &[&str]) -> Arc<TaskQueue> {
        let priority = Priority {
            weight,
            weight_rule: WeightRule::Downstream,
            downstream: downstream.iter().map(ToString::to_string).collect(),
            ..Priority::default()
        };
        let spec = TaskQueueSpec {
            priority,
            ..TaskQueueSpec::default()
        };
        let mut queue = TaskQueue::new(name, spec);
        queue.metadata.namespace = Some(namespace.to_owned());
        queue.metadata.uid = Some(format!("{namespace}/{name}"));
        queue.metadata.generation = Some(i64::from(weight));
        Arc::new(queue)
    }

    fn effective(ranks: &Ranks, queues: &[Arc<TaskQueue>]) -> Vec<Option<u64>> {
        queues.iter().map(|queue| ranks.of(queue).effective).collect()
    }

    #[test]
    fn a_weight_follows_the_other_queues_of_its_namespace_alone() {
        let mut ranks = Ranks::default();
        let mut queues = [
            queue("n", "a", 1, &["b", "c"]),
            queue("n", "b", 2, &["d"]),
            queue("n", "c", 3, &["d"]),
            queue("n", "d", 1, &[]),
            queue("o", "a", 5, &["b"]),
            queue("o", "c", 9, &[]),
        ];
        ranks.refresh(&queues);
        let first = [Some(7), Some(3), Some(4), Some(1), Some(5), Some(9)];
        assert_eq!(effective(&ranks, &queues), first);
        queues[3] = queue("n", "d", 10, &[]);
        ranks.refresh(&queues);
        let second = [Some(16), Some(12), Some(13), Some(10), Some(5), Some(9)];
        assert_eq!(effective(&ranks, &queues), second);
        ranks.refresh(&queues[..3]);
        assert_eq!(
            effective(&ranks, &queues),
            [Some(6), Some(2), Some(3), None, None, None]
        );
    }

    #[test]
    fn those_on_a_circle_know_it() {
        let mut ranks = Ranks::default();
        let queues = [
            queue("n", "a", 1, &["b"]),
            queue("n", "b", 2, &["a"]),
            queue("n", "c", 4, &["a"]),
        ];
        ranks.refresh(&queues);
        assert_eq!(effective(&ranks, &queues), [Some(1), Some(2), Some(7)]);
        let circle = |queue| ranks.of(queue).cycle.map(ToString::to_string);
        let found: Vec<Option<String>> = queues.iter().map(|queue| circle(queue)).collect();
        let circle = Some("a -> b -> a".to_owned());
        assert_eq!(found, [circle.clone(), circle, None]);
    }
}
