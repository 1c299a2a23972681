//! Priority that a full pool makes useless.
//!
//! `priority_weight` orders what waits for room and interrupts nothing that runs. So where tasks of much lower weight can
//! take a whole pool, an important one waits for as long as they run, whatever its weight.
//!
//! Told is at most one task of a pool: the one of the greatest weight, if that is at least 10, and tasks of other DAGs
//! with at most half of it leave it no room when they run together. Tasks of its own DAG do not count, because they
//! mostly run before or after it. Weights are those that are written: what a rule such as `downstream` adds says how long a
//! path is, not how important.

use std::collections::BTreeMap;

use super::super::{Finding, Severity};
use super::dags::{Dag, Dags, Task};
use super::few;
use super::pools::Pools;
use poolwright_api::text::counted;

/// Least weight that says that a task is important.
const IMPORTANT: i64 = 10;

/// Important tasks for which a pool may have no room.
pub fn drowned(dags: &Dags, pools: &Pools) -> Vec<Finding> {
    let mut by_pool: BTreeMap<&str, Vec<(&Dag, &Task)>> = BTreeMap::new();
    for dag in &dags.all {
        for task in &dag.tasks {
            by_pool.entry(&task.pool).or_default().push((dag, task));
        }
    }
    let finding = |(pool, tasks): (&&str, &Vec<_>)| drowned_in(dags, pool, tasks, pools);
    by_pool.iter().filter_map(finding).collect()
}

fn drowned_in(dags: &Dags, pool: &str, tasks: &[(&Dag, &Task)], pools: &Pools) -> Option<Finding> {
    let (slots, known) = pools.limited(pool)?;
    let most = tasks.iter().map(|(_, task)| task.weight).max()?;
    let mut important = tasks.iter().filter(|(_, task)| task.weight == most);
    let (dag, top) = important.next().filter(|_| most >= IMPORTANT)?;
    // One that never fits is told elsewhere.
    let room = slots.checked_sub(top.slots)?;
    let lower = |(other, task): &&(&Dag, &Task)| other.path != dag.path && task.weight <= most / 2;
    let mut by_dag: BTreeMap<&str, (&Dag, u64, u64)> = BTreeMap::new();
    for (other, task) in tasks.iter().filter(lower) {
        let (_, sum, widest) = by_dag.entry(&other.path).or_insert((other, 0, 0));
        *sum = sum.saturating_add(task.slots);
        *widest = task.slots.max(*widest);
    }
    let taken = by_dag
        .values()
        .map(|(other, sum, widest)| (*sum).min(other.most_tasks.saturating_mul(*widest)));
    let taken = taken.fold(0_u64, u64::saturating_add);
    if taken <= room {
        return None;
    }
    let names: Vec<String> = tasks
        .iter()
        .filter(lower)
        .map(|(_, task)| format!("{:?}", task.name))
        .collect();
    let with = match important.count() {
        0 => String::new(),
        more => format!(", and {} with it", counted(more, "more task", "more tasks")),
    };
    let words = format!(
        "{:?} of weight {most} shares pool {pool:?} ({}, {}){with}: {}, of at most half its weight, can take {taken} of it \
         at once, and no weight ends what runs; give it a pool of its own",
        top.name,
        counted(slots, "slot", "slots"),
        known.position(),
        few(&names),
    );
    Some(dags.find(
        Severity::Warning,
        (&top.path, top.place),
        "priority_weight",
        &words,
    ))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{dag, dags, pools, said};

    /// An important task beside as many others as are asked for, in a pool of five slots.
    fn of(weight: i64, others: usize, other_weight: i64, most: u64, dag_of_others: &str) -> String {
        let top = format!(r#""id": "alert", "pool": "db", "priority_weight": {weight}, "pool_slots": 2"#);
        let low: Vec<String> = (0..others)
            .map(|at| format!(r#""id": "etl{at}", "pool": "db", "priority_weight": {other_weight}"#))
            .collect();
        let low: Vec<&str> = low.iter().map(String::as_str).collect();
        let all = if dag_of_others == "ops" {
            let own: Vec<&str> = [top.as_str()].into_iter().chain(low).collect();
            vec![dag("ops", most, &own)]
        } else {
            vec![dag("ops", 16, &[&top]), dag(dag_of_others, most, &low)]
        };
        let found = said(&[], &pools(&[("db", 5)]), &dags("3.3.2", &all));
        let found = found
            .into_iter()
            .filter(|words| words.contains("priority_weight"));
        found.collect::<Vec<_>>().concat()
    }

    #[test]
    fn an_important_task_in_a_pool_that_others_fill_is_told() {
        assert_eq!(
            of(100, 4, 50, 16, "etl"),
            "warning: dags[0].tasks[0].priority_weight: \"ops.alert\" of weight 100 shares pool \"db\" (5 slots, \
             pools.json:2): \"etl.etl0\", \"etl.etl1\", \"etl.etl2\" and 1 more, of at most half its weight, can take 4 of it \
             at once, and no weight ends what runs; give it a pool of its own"
        );
    }

    #[test]
    fn one_that_finds_room_or_is_not_much_more_important_is_not() {
        assert_eq!(of(100, 3, 50, 16, "etl"), "", "three and two fit");
        assert_eq!(of(100, 4, 51, 16, "etl"), "", "more than half");
        assert_eq!(of(9, 4, 1, 16, "etl"), "", "not important");
        assert_eq!(of(100, 4, 50, 3, "etl"), "", "three of them run at once");
        assert_eq!(of(100, 4, 50, 16, "ops"), "", "of its own DAG");
    }
}
