//! The results as text: everybody in a line, then every workload in a line, then their geometric mean.
//!
//! It decides columns and rounding. The last line begins `geo-mean`, for those who read it by machine.

use std::fmt::Write as _;

use super::stats::{Interval, geo_mean, mean};
use super::{Comparison, Contender, Overall, Results, compare, geo_mean_ratio, mean_p95};
use crate::peers::Settings;

/// The tables.
#[must_use]
pub fn table(results: &Results) -> String {
    let mut text = format!(
        "{} workloads, {} seeds. xLB: slot-hours over the lower bound of any scaler that keeps every wait below its\n\
         target (lower_bound_on_average); in brackets 95 % intervals over seeds. Waits are seconds.\n\n",
        results.workloads.len(),
        results.seeds.len()
    );
    everybody(&mut text, results);
    text.push('\n');
    every_workload(&mut text, results);
    text
}

/// `1.23 [1.20, 1.27]`, or a dash.
fn ratio(value: Option<f64>, interval: Option<Interval>) -> String {
    let Some(value) = value else { return "-".to_owned() };
    interval.map_or_else(
        || format!("{value:.2}"),
        |(low, high)| format!("{value:.2} [{low:.2}, {high:.2}]"),
    )
}

/// `25 % [20, 31]`.
fn percent(value: f64, interval: Option<Interval>) -> String {
    let whole = 100.0 * value;
    interval.map_or_else(
        || format!("{whole:.0} %"),
        |(low, high)| format!("{whole:.0} % [{:.0}, {:.0}]", 100.0 * low, 100.0 * high),
    )
}

/// One that knows the load of the whole run beforehand.
fn clairvoyant(results: &Results, entrant: usize) -> &'static str {
    match &results.entrants[entrant].contender {
        Contender::Peer(entry) if matches!(entry.settings, Settings::Fixed(_) | Settings::Celery(_)) => "*",
        _ => "",
    }
}

fn everybody(text: &mut String, results: &Results) {
    let _ = writeln!(
        text,
        "{:32} {:>22} {:>5} {:>8} {:>8} {:>8} {:>8} {:>9}",
        "contender", "xLB geo-mean", "of", "p95", "late", "killed", "undone", "overshoot"
    );
    let with = |at| (at, geo_mean_ratio(results, at));
    let mut order: Vec<(usize, Option<Overall>)> = (0..results.entrants.len()).map(with).collect();
    let key = |found: &Option<Overall>| found.map_or(f64::INFINITY, |found| found.ratio);
    order[1.min(results.entrants.len())..].sort_by(|a, b| key(&a.1).total_cmp(&key(&b.1)));
    for (at, found) in order {
        let rows: Vec<Comparison> = results
            .workloads
            .iter()
            .map(|workload| compare(results, workload, at))
            .collect();
        let late: Vec<f64> = rows.iter().map(|row| row.late).collect();
        let name = format!("{}{}", results.entrants[at].name, clairvoyant(results, at));
        let _ = writeln!(
            text,
            "{name:32} {:>22} {:>5} {:>8.1} {:>7.2}% {:>8} {:>8} {:>9}",
            ratio(
                found.map(|found| found.ratio),
                found.and_then(|found| found.interval)
            ),
            found.map_or(0, |found| found.workloads),
            mean_p95(results, at),
            100.0 * mean(&late).unwrap_or(0.0),
            rows.iter().map(|row| row.killed).sum::<u64>(),
            rows.iter().map(|row| row.undone).sum::<usize>(),
            rows.iter().map(|row| row.overshoot).sum::<u64>(),
        );
    }
    text.push_str("* knows the load of the whole run beforehand; of: workloads that have a ratio\n");
}

fn every_workload(text: &mut String, results: &Results) {
    let _ = writeln!(
        text,
        "{:13} {:>22} {:>8} {:>8} {:>8} {:>8} {:>9} {:>8}  best tuned peer at equal or lower p95: saving",
        "workload", "xLB", "p50", "p95", "p99", "late", "slot-h", "turns/h"
    );
    let mut rows = Vec::new();
    for workload in &results.workloads {
        let row = compare(results, workload, 0);
        let mark = if workload.cells.iter().any(|cell| cell.aggregate) {
            "~"
        } else {
            ""
        };
        let rival = row.rival.as_ref().map_or_else(
            || "none waits so little".to_owned(),
            |rival| {
                format!(
                    "{}{}: p95 {:.1}, {:.1} slot-h: {}",
                    results.entrants[rival.entrant].name,
                    clairvoyant(results, rival.entrant),
                    rival.p95,
                    rival.slot_hours,
                    percent(rival.saving, rival.interval)
                )
            },
        );
        line(text, &format!("{}{mark}", workload.name), &row, &rival);
        rows.push(row);
    }
    text.push_str("~ the bound takes the queues of a Pool together, which makes it weaker\n");
    last(text, results, &rows);
}

fn line(text: &mut String, name: &str, row: &Comparison, rival: &str) {
    let [p50, p95, p99] = row.waits;
    let _ = writeln!(
        text,
        "{name:13} {:>22} {p50:>8.1} {p95:>8.1} {p99:>8.1} {:>7.2}% {:>9.1} {:>8.1}  {rival}",
        ratio(row.ratio, row.interval),
        100.0 * row.late,
        row.slot_hours,
        row.reversals,
    );
}

fn last(text: &mut String, results: &Results, rows: &[Comparison]) {
    let all =
        |of: &dyn Fn(&Comparison) -> f64| mean(&rows.iter().map(of).collect::<Vec<f64>>()).unwrap_or(0.0);
    let found = geo_mean_ratio(results, 0);
    let kept: Vec<f64> = rows
        .iter()
        .filter_map(|row| row.rival.as_ref())
        .map(|rival| 1.0 - rival.saving)
        .collect();
    let saving = geo_mean(&kept).map_or_else(
        || "none waits so little".to_owned(),
        |kept_part| format!("{} over {} workloads", percent(1.0 - kept_part, None), kept.len()),
    );
    let row = Comparison {
        ratio: found.map(|found| found.ratio),
        interval: found.and_then(|found| found.interval),
        waits: [0, 1, 2].map(|at| all(&|row: &Comparison| row.waits[at])),
        late: all(&|row| row.late),
        slot_hours: rows.iter().map(|row| row.slot_hours).sum(),
        reversals: all(&|row| row.reversals),
        killed: 0,
        undone: 0,
        overshoot: 0,
        rival: None,
    };
    line(text, "geo-mean", &row, &saving);
}
