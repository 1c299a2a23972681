//! The golden result of the suite in short: a worse policy fails here, and one that is better must be written down.
//!
//! All workloads and two seeds, Poolwright alone, against the bound: what it costs, and how long tasks wait for that, or longer
//! waits would pass as savings. Of `tenants`, a day of 500 queues, it is the first two hours of one seed, for a day takes
//! minutes; it stands below the means and is not in them, as in most of what is published. `UPDATE=1 cargo test -p poolwright-sim
//! --test golden` writes the table anew; what must be zero is no part of it, and neither is the most that the geometric
//! mean may be.
#![allow(missing_docs, clippy::unwrap_used)]

use poolwright_sim::poolwright::Settings;
use poolwright_sim::scenario::{Millis, Scenario};
use poolwright_sim::suite::{Contender, Entrant, Measured, Plan, Results, compare, geo_mean_ratio, mean_p95};
use poolwright_sim::workloads::{ALL, Workload, tenants};

/// A workload, its cost over the bound, the percentage of late tasks, and the mean of the p95 waits in seconds. One row
/// has the means over the workloads above it, of the cost the geometric one.
type Row<'a> = (&'a str, f64, f64, f64);

#[allow(
    clippy::approx_constant,
    reason = "what a policy costs may come near to any constant"
)]
const GOLDEN: &[Row<'_>] = &[
    ("steady", 1.203, 0.61, 5.3),
    ("diurnal", 1.272, 0.08, 7.1),
    ("spikes", 1.614, 88.67, 56.7),
    ("long", 1.373, 0.50, 0.0),
    ("pareto", 1.351, 0.27, 7.8),
    ("mmpp", 1.349, 48.48, 38.7),
    ("azure-code", 2.109, 6.32, 31.4),
    ("azure-conv", 1.114, 0.66, 8.4),
    ("cron", 4.451, 51.04, 40.2),
    ("adversarial", 1.983, 74.28, 51.9),
    ("square", 1.167, 27.33, 38.5),
    ("pool-shrink", 1.521, 3.59, 19.2),
    ("step", 1.436, 0.24, 3.6),
    ("outage", 1.208, 6.34, 43.2),
    ("slow-start", 1.380, 9.79, 78.3),
    ("downstream", 1.290, 62.07, 732.4),
    ("poison", 1.243, 0.53, 6.6),
    ("geo-mean", 1.489, 22.40, 68.8),
    ("tenants", 9.006, 12.13, 123.2),
];

/// Changes of direction in an hour that a steady load may bring.
const TURNS_MAX: f64 = 2.0;

/// How far from the table a workload may be, and their means.
const ONE: Tolerance = Tolerance {
    cost: 0.10,
    wait: 0.10,
};
const ALL_OF_THEM: Tolerance = Tolerance {
    cost: 0.03,
    wait: 0.05,
};

/// Where waits are short, chance alone makes for larger parts of them: so many points and seconds are always allowed.
const LEAST_WAIT: (f64, f64) = (0.5, 1.0);

/// Parts of what is written.
struct Tolerance {
    cost: f64,
    /// Of late tasks and of waits.
    wait: f64,
}

/// The geometric mean may be no more than this, whatever is written above: a table that is written anew does not move it.
/// The goal is 2.0; this is two percent above what was measured.
const GEO_MEAN_MAX: f64 = 1.52;

/// So much of `tenants` is played.
const TENANTS: Millis = 2 * 3_600_000;

#[test]
fn the_policy_costs_what_it_did_and_tasks_wait_as_they_did() {
    let results = play(without_tenants(), vec![1, 2]);
    let day = ALL.into_iter().filter(|one| one.name == "tenants");
    let make = hours_of_tenants;
    let tenants = play(day.map(|one| Workload { make, ..one }).collect(), vec![1]);
    let mut found = rows(&results);
    let overall = found.last().unwrap().1;
    found.push(row(&tenants, &tenants.workloads[0]));
    if std::env::var_os("UPDATE").is_some_and(|value| value == "1") {
        write(&found);
    } else {
        assert_eq!(GOLDEN.len(), found.len());
        GOLDEN.iter().zip(&found).for_each(near);
    }
    assert!(
        overall <= GEO_MEAN_MAX,
        "{overall} times the bound, and {GEO_MEAN_MAX} is the most"
    );
    check(&tenants);
    check(&results);
}

/// What is never allowed, whatever is written above.
fn check(results: &Results) {
    for workload in &results.workloads {
        let row = compare(results, workload, 0);
        assert_eq!(
            (row.killed, row.undone, row.overshoot, row.blind),
            (0, 0, 0, 0),
            "{}: killed, undone, overshoot, taken away blindly",
            workload.name
        );
        assert!(
            row.overstay <= 0.0,
            "{}: {} slot-seconds above a budget that sank",
            workload.name,
            row.overstay
        );
        let turns = row.reversals;
        assert!(
            workload.name != "steady" || turns <= TURNS_MAX,
            "{turns} turns an hour"
        );
    }
}

fn without_tenants() -> Vec<Workload> {
    ALL.into_iter().filter(|one| one.name != "tenants").collect()
}

fn hours_of_tenants(seed: u64) -> Scenario {
    let mut scenario = tenants(seed);
    scenario.length = TENANTS;
    scenario.tasks.retain(|task| task.arrives < TENANTS);
    scenario
}

fn play(workloads: Vec<Workload>, seeds: Vec<u64>) -> Results {
    let contender = Contender::Poolwright(Settings::default());
    let plan = Plan {
        workloads,
        seeds,
        entrants: vec![Entrant {
            name: contender.name(),
            contender,
            tuned: false,
        }],
        threads: 2,
    };
    plan.run(|_, _, _, _| {})
}

fn row(results: &Results, workload: &Measured) -> Row<'static> {
    let found = compare(results, workload, 0);
    let ratio = found.ratio.unwrap_or(f64::NAN);
    (workload.name, ratio, 100.0 * found.late, found.waits[1])
}

#[allow(clippy::cast_precision_loss, reason = "seventeen")]
fn rows(results: &Results) -> Vec<Row<'static>> {
    let workloads = results.workloads.iter();
    let mut rows: Vec<Row<'static>> = workloads.map(|workload| row(results, workload)).collect();
    let late = rows.iter().map(|row| row.2).sum::<f64>() / rows.len() as f64;
    let overall = geo_mean_ratio(results, 0).unwrap();
    assert_eq!(overall.workloads, rows.len(), "one has no ratio: {rows:?}");
    rows.push(("geo-mean", overall.ratio, late, mean_p95(results, 0)));
    rows
}

fn near((golden, found): (&Row<'_>, &Row<'_>)) {
    let (name, cost, late, wait) = *found;
    assert_eq!(golden.0, name);
    let allowed = if name == "geo-mean" { ALL_OF_THEM } else { ONE };
    for (what, value, written, by) in [
        ("times the bound", cost, golden.1, allowed.cost * golden.1),
        (
            "% late",
            late,
            golden.2,
            LEAST_WAIT.0.max(allowed.wait * golden.2),
        ),
        (
            "s at p95",
            wait,
            golden.3,
            LEAST_WAIT.1.max(allowed.wait * golden.3),
        ),
    ] {
        assert!(
            (value - written).abs() <= by,
            "{name} has {value:.3} {what} and {written:.3} is written: if that is meant, \
             `UPDATE=1 cargo test -p poolwright-sim --test golden`"
        );
    }
}

/// Puts the numbers into the table above.
fn write(found: &[Row<'_>]) {
    const HEAD: &str = "const GOLDEN: &[Row<'_>] = &[\n";
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden.rs");
    let text = std::fs::read_to_string(&path).unwrap();
    let (head, rest) = text.split_once(HEAD).unwrap();
    let (_, tail) = rest.split_once("];\n").unwrap();
    let rows: Vec<String> = found
        .iter()
        .map(|(name, cost, late, wait)| format!("    (\"{name}\", {cost:.3}, {late:.2}, {wait:.1}),\n"))
        .collect();
    std::fs::write(&path, format!("{head}{HEAD}{}];\n{tail}", rows.concat())).unwrap();
}
