use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn priority(weight: i32, weight_rule: WeightRule, downstream: &[&str]) -> Priority {
    Priority {
        weight,
        weight_rule,
        downstream: downstream.iter().map(ToString::to_string).collect(),
        ..Priority::default()
    }
}

fn all(queues: &[(&str, i32, &[&str])], rule: WeightRule) -> Weights {
    let priorities: Vec<Priority> = queues
        .iter()
        .map(|(_, own, next)| priority(*own, rule, next))
        .collect();
    weights(&queues.iter().map(|(name, ..)| *name).zip(&priorities).collect())
}

fn effective(weights: &Weights) -> Vec<u64> {
    weights.effective.values().copied().collect()
}

/// A leads to B and C, both to D.
const DIAMOND: [(&str, i32, &[&str]); 4] = [
    ("a", 1, &["b", "c"]),
    ("b", 2, &["d"]),
    ("c", 3, &["d"]),
    ("d", 1, &[]),
];

#[test]
fn what_two_paths_lead_to_counts_once() {
    assert_eq!(effective(&all(&DIAMOND, WeightRule::Downstream)), [7, 3, 4, 1]);
    assert_eq!(effective(&all(&DIAMOND, WeightRule::Upstream)), [1, 3, 4, 7]);
    let absolute = all(&DIAMOND, WeightRule::Absolute);
    assert_eq!(effective(&absolute), [1, 2, 3, 1]);
    assert_eq!((absolute.cycles, absolute.unknown), (vec![], BTreeMap::new()));
}

#[test]
fn each_queue_has_its_own_rule() {
    let (a, b, c) = (
        priority(1, WeightRule::Downstream, &["b"]),
        priority(2, WeightRule::Absolute, &["c"]),
        priority(4, WeightRule::Upstream, &[]),
    );
    let found = weights(&[("a", &a), ("b", &b), ("c", &c)].into());
    assert_eq!(effective(&found), [7, 2, 7]);
}

#[test]
fn names_that_do_not_exist_are_ignored_and_told() {
    let found = all(
        &[("a", 1, &["z", "b", "y", "z"]), ("b", 2, &[])],
        WeightRule::Downstream,
    );
    assert_eq!(effective(&found), [3, 2]);
    assert_eq!(
        found.unknown,
        [("a".to_owned(), vec!["y".to_owned(), "z".to_owned()])].into()
    );
}

#[test]
fn a_cycle_is_named_in_order_and_its_queues_keep_their_weight() {
    let found = all(
        &[
            ("a", 1, &["c"]),
            ("b", 2, &["a"]),
            ("c", 4, &["b", "d"]),
            ("d", 8, &[]),
            ("e", 16, &["b"]),
        ],
        WeightRule::Downstream,
    );
    // What leads to the cycle counts all of it, and what is behind it, once.
    assert_eq!(effective(&found), [1, 2, 4, 8, 16 + 7 + 8]);
    assert_eq!(found.cycles.len(), 1);
    assert_eq!(found.cycles[0].to_string(), "a -> c -> b -> a");
    assert_eq!(found.cycle("c"), Some(&found.cycles[0]));
    assert_eq!(
        (found.cycle("d"), found.cycle("e"), found.cycle("x")),
        (None, None, None)
    );
}

#[test]
fn a_queue_that_names_itself_is_a_cycle() {
    let found = all(&[("a", 1, &["a", "b"]), ("b", 2, &[])], WeightRule::Downstream);
    assert_eq!(effective(&found), [1, 2]);
    assert_eq!(found.cycles[0].to_string(), "a -> a");
}

#[test]
fn circles_that_share_a_queue_are_told_as_one_by_the_shortest_way() {
    let found = all(
        &[
            ("a", 1, &["b", "d"]),
            ("b", 1, &["c"]),
            ("c", 1, &["a"]),
            ("d", 1, &["a"]),
            ("x", 1, &["y"]),
            ("y", 1, &["x"]),
        ],
        WeightRule::Upstream,
    );
    let texts: Vec<String> = found.cycles.iter().map(ToString::to_string).collect();
    assert_eq!(texts, ["a -> d -> a", "x -> y -> x"]);
    assert_eq!(found.cycles[0].queues, ["a", "b", "c", "d"]);
    assert_eq!(found.cycle("b"), Some(&found.cycles[0]));
}

/// As deep as a namespace can be, and as wide as a list can be.
#[test]
fn ten_thousand_queues_in_a_row_and_in_a_ring() {
    let count = 10_000;
    let names: Vec<String> = (0..count).map(|at| format!("q{at:05}")).collect();
    let row = |at: usize, links: usize| -> Vec<&str> {
        (at + 1..(at + 1 + links).min(count))
            .map(|next| names[next].as_str())
            .collect()
    };
    let priorities: Vec<Priority> = (0..count)
        .map(|at| priority(1_000_000, WeightRule::Downstream, &row(at, 64)))
        .collect();
    let mut queues: BTreeMap<&str, &Priority> = names.iter().map(String::as_str).zip(&priorities).collect();
    let found = weights(&queues);
    assert_eq!(found.effective["q00000"], 10_000_000_000);
    assert_eq!(found.effective["q09999"], 1_000_000);
    let last = priority(1, WeightRule::Downstream, &["q00000"]);
    queues.insert("q09999", &last);
    let found = weights(&queues);
    assert_eq!(found.effective["q00000"], 1_000_000);
    assert_eq!(found.cycles[0].queues.len(), count);
    assert!(found.cycles[0].to_string().len() < 200, "{}", found.cycles[0]);
}

/// By the words of the rule: everything that can be walked to, once.
fn walked(after: &[BTreeSet<usize>], from: usize, backwards: bool) -> BTreeSet<usize> {
    let mut found = BTreeSet::new();
    let mut left = vec![from];
    while let Some(at) = left.pop() {
        for next in 0..after.len() {
            let linked = if backwards {
                after[next].contains(&at)
            } else {
                after[at].contains(&next)
            };
            if linked && found.insert(next) {
                left.push(next);
            }
        }
    }
    found
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// More than one word of columns, with cycles or without.
    #[test]
    fn is_what_the_rule_says(
        own in prop::collection::vec((1i32..50, 0usize..3), 1..140),
        links in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 0..200),
        ordered: bool,
    ) {
        let count = own.len();
        let mut after = vec![BTreeSet::new(); count];
        for (from, to) in links {
            let (from, to) = (from.index(count), to.index(count));
            if !ordered {
                after[from].insert(to);
            } else if from != to {
                after[from.min(to)].insert(from.max(to));
            }
        }
        let names: Vec<String> = (0..count).map(|at| format!("q{at:03}")).collect();
        let rules = [WeightRule::Absolute, WeightRule::Downstream, WeightRule::Upstream];
        let priorities: Vec<Priority> = (0..count)
            .map(|at| {
                let next: Vec<&str> = after[at].iter().map(|next| names[*next].as_str()).collect();
                priority(own[at].0, rules[own[at].1], &next)
            })
            .collect();
        let found = weights(&names.iter().map(String::as_str).zip(&priorities).collect());
        for at in 0..count {
            let (down, up) = (walked(&after, at, false), walked(&after, at, true));
            let on_cycle = down.contains(&at);
            let mut related = match rules[own[at].1] {
                WeightRule::Downstream if !on_cycle => down,
                WeightRule::Upstream if !on_cycle => up,
                _ => BTreeSet::new(),
            };
            related.insert(at);
            let expected: i32 = related.iter().map(|one| own[*one].0).sum();
            prop_assert_eq!(found.effective[&names[at]], u64::try_from(expected).unwrap(), "{}", names[at]);
            prop_assert_eq!(found.cycle(&names[at]).is_some(), on_cycle);
        }
        for cycle in &found.cycles {
            // Every step of the path is a link, and so is the last one to the first.
            for (step, name) in cycle.path.iter().enumerate() {
                let next = &cycle.path[(step + 1) % cycle.path.len()];
                let (from, to) = (names.binary_search(name).unwrap(), names.binary_search(next).unwrap());
                prop_assert!(after[from].contains(&to), "{cycle}");
            }
        }
        prop_assert!(!ordered || found.cycles.is_empty());
    }
}

fn graph(tasks: &[(&str, i64, &[&str])]) -> BTreeMap<String, Node> {
    let node = |weight: i64, next: &[&str]| Node {
        weight,
        downstream: next.iter().map(ToString::to_string).collect(),
    };
    let all = tasks.iter();
    all.map(|(name, weight, next)| ((*name).to_owned(), node(*weight, next)))
        .collect()
}

/// The numbers that Airflow 2.11 and 3 give.
#[test]
fn a_graph_is_weighed_by_each_rule() {
    let tasks = graph(&[
        ("a", 1, &["b", "c"]),
        ("b", 2, &["d"]),
        ("c", 3, &["d"]),
        ("d", 1, &[]),
    ]);
    let found = by_rule(&tasks).unwrap();
    let of = |rule: fn(&ByRule) -> i64| found.values().map(rule).collect::<Vec<i64>>();
    assert_eq!(of(|one| one.downstream), [7, 3, 4, 1]);
    assert_eq!(of(|one| one.upstream), [1, 3, 4, 7]);
    assert_eq!(of(|one| one.absolute), [1, 2, 3, 1]);
    let below = graph(&[("a", -5, &["b"]), ("b", 0, &[]), ("c", i64::MAX, &["a", "b"])]);
    let found = by_rule(&below).unwrap();
    let downstream: Vec<i64> = found.values().map(|one| one.downstream).collect();
    assert_eq!(downstream, [-5, 0, 2_147_483_642]);
}

/// As Airflow's database keeps them: a task's own weight before it is added, and the sum.
#[test]
fn weights_of_a_graph_are_bounded_as_airflow_bounds_them() {
    let tasks = graph(&[
        ("a", 1, &["b"]),
        ("b", i64::MAX, &[]),
        ("c", -1, &["d"]),
        ("d", i64::MIN, &[]),
    ]);
    let found = by_rule(&tasks).unwrap();
    let of = |rule: fn(&ByRule) -> i64| found.values().map(rule).collect::<Vec<i64>>();
    let (least, most) = (-2_147_483_648, 2_147_483_647);
    assert_eq!(of(|one| one.downstream), [most, most, least, least]);
    assert_eq!(of(|one| one.upstream), [1, most, -1, least]);
    assert_eq!(of(|one| one.absolute), [1, most, -1, least]);
}

#[test]
fn a_graph_with_a_hole_or_a_circle_has_no_weights() {
    let error = by_rule(&graph(&[("a", 1, &["z", "y"])])).unwrap_err();
    assert_eq!(error, GraphError::Unknown("a".into(), "y".into()));
    let circle = graph(&[("a", 1, &["b"]), ("b", 1, &["c"]), ("c", 1, &["b"])]);
    let words = by_rule(&circle).unwrap_err().to_string();
    assert!(words.contains("b -> c -> b"), "{words}");
}
