//! The results as text: everybody in a line, then every workload in a line, then their geometric mean.
//!
//! It decides columns and rounding. The last line begins `geo-mean`, and no heading of a count has a space, for those who
//! read it by machine. [`details`] is everybody on one workload, for which a terminal has no room.

use std::fmt::Write as _;

use super::stats::{Interval, geo_mean, mean};
use super::{
    Comparison, Contender, Measured, Overall, Results, compare, geo_mean_objective, geo_mean_ratio,
    geo_mean_saving, mean_p95,
};
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

/// The headings of [`counts`].
fn heads() -> String {
    format!(
        "{:>7} {:>8} {:>7} {:>9} {:>8} {:>6} {:>8} {:>8} {:>6}",
        "killed", "wasted-h", "undone", "overshoot", "overstay", "blind", "drained", "writes/h", "reply"
    )
}

/// What should not happen, over all seeds of these rows, and how much was written.
fn counts(rows: &[Comparison]) -> String {
    let sum = |of: fn(&Comparison) -> u64| rows.iter().map(of).sum::<u64>();
    let writes: Vec<f64> = rows.iter().map(|row| row.writes).collect();
    let reply = mean(&rows.iter().filter_map(|row| row.reply).collect::<Vec<f64>>());
    format!(
        "{:>7} {:>8.1} {:>7} {:>9} {:>8.0} {:>6} {:>8} {:>8.1} {:>6}",
        sum(|row| row.killed),
        rows.iter().map(|row| row.wasted_hours).sum::<f64>(),
        rows.iter().map(|row| row.undone).sum::<usize>(),
        sum(|row| row.overshoot),
        rows.iter().map(|row| row.overstay).sum::<f64>(),
        sum(|row| row.blind),
        sum(|row| row.drained_busy),
        mean(&writes).unwrap_or(0.0),
        reply.map_or_else(|| "-".to_owned(), |reply| format!("{reply:.1}"))
    )
}

fn everybody(text: &mut String, results: &Results) {
    let _ = writeln!(
        text,
        "{:32} {:>22} {:>3} {:>5} {:>7} {:>7} {}",
        "contender",
        "xLB geo-mean",
        "of",
        "J",
        "p95",
        "late",
        heads()
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
            "{name:32} {:>22} {:>3} {:>5.2} {:>7.1} {:>6.2}% {}",
            ratio(
                found.map(|found| found.ratio),
                found.and_then(|found| found.interval)
            ),
            found.map_or(0, |found| found.workloads),
            geo_mean_objective(results, at).unwrap_or(0.0),
            mean_p95(results, at),
            100.0 * mean(&late).unwrap_or(0.0),
            counts(&rows),
        );
    }
    text.push_str(
        "* knows the load of the whole run beforehand; of: workloads that have a ratio; J: slot-seconds and\n\
         wait-seconds together, over those of the first line, geometric mean; over all seeds, killed and undone:\n\
         tasks; wasted-h: hours that killed tasks had worked; overshoot: slots of pods made beyond a budget; overstay:\n\
         slot-seconds above a budget that sank, later than the longest task and a minute after; blind: pods taken away\n\
         while the signals were lost or falsely zero; drained: pods told to go while busy; writes/h: of a number of pods; reply: seconds\n\
         from the first task for a fleet without pods until some were asked for, mean\n",
    );
}

/// Everybody on one workload.
#[must_use]
pub fn details(results: &Results, workload: &Measured) -> String {
    let mut text = format!(
        "{:25} {:>20} {:>7} {:>7} {:>7} {:>7} {:>7} {:>8} {:>8} {:>8} {:>8} {:>6} {:>7} {:>5} {}\n",
        "contender",
        "xLB",
        "p50",
        "p95",
        "p99",
        "longest",
        "late",
        "slot-h",
        "J0.1",
        "J1",
        "J10",
        "made",
        "turns/h",
        "jain",
        heads()
    );
    for at in 0..results.entrants.len() {
        let row = compare(results, workload, at);
        let name = format!("{}{}", results.entrants[at].name, clairvoyant(results, at));
        let [p50, p95, p99, longest] = row.waits;
        let _ = writeln!(
            text,
            "{name:25} {:>20} {p50:>7.1} {p95:>7.1} {p99:>7.1} {longest:>7.1} {:>6.2}% {:>8.1} {:>8.0} {:>8.0} {:>8.0} {:>6.0} {:>7.1} {:>5} {}",
            ratio(row.ratio, row.interval),
            100.0 * row.late,
            row.slot_hours,
            row.objectives[0] / 1000.0,
            row.objectives[1] / 1000.0,
            row.objectives[2] / 1000.0,
            row.created,
            row.reversals,
            row.jain
                .map_or_else(|| "-".to_owned(), |jain| format!("{jain:.2}")),
            counts(std::slice::from_ref(&row)),
        );
    }
    text.push_str(
        "J: thousands of slot-seconds, where a second of waiting costs 0.1, 1 or 10 of them; jain: how evenly queues of a\n\
         tier shared what was scarce, 1 at best\n",
    );
    by_tier(&mut text, results, workload);
    curve(&mut text, workload);
    text
}

/// The p95 wait of each tier, where there are several.
fn by_tier(text: &mut String, results: &Results, workload: &Measured) {
    for (at, entrant) in results.entrants.iter().enumerate() {
        let tiers = compare(results, workload, at).tiers;
        if tiers.len() > 1 {
            let waits = tiers
                .iter()
                .map(|(tier, wait)| format!("{wait:.1} s in tier {tier}"));
            let waits: Vec<String> = waits.collect();
            let _ = writeln!(text, "{:25} p95 {}", entrant.name, waits.join(", "));
        }
    }
}

/// The bound by the wait that is allowed.
fn curve(text: &mut String, workload: &Measured) {
    let points = workload.cells.iter().flat_map(|cell| &cell.curve);
    let words: Vec<String> = points
        .map(|(wait, hours)| {
            hours.map_or_else(
                || format!("none at {wait} s"),
                |hours| format!("{hours:.1} at {wait} s"),
            )
        })
        .collect();
    if !words.is_empty() {
        let _ = writeln!(
            text,
            "bound of the first seed, in slot-hours, by the longest wait: {}",
            words.join(", ")
        );
    }
}

fn every_workload(text: &mut String, results: &Results) {
    let _ = writeln!(
        text,
        "{:13} {:>22} {:>7} {:>8} {:>8} {:>8} {:>8} {:>9} {:>8}  best tuned peer at equal or lower p95: saving",
        "workload", "xLB", "xLB-p99", "p50", "p95", "p99", "late", "slot-h", "turns/h"
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
    text.push_str(
        "~ the bound takes the queues of a Pool together, which makes it weaker; xLB-p99: over the bound of any scaler\n\
         whose longest wait is this p99\n",
    );
    last(text, results, &rows);
}

fn line(text: &mut String, name: &str, row: &Comparison, rival: &str) {
    let [p50, p95, p99, _] = row.waits;
    let _ = writeln!(
        text,
        "{name:13} {:>22} {:>7} {p50:>8.1} {p95:>8.1} {p99:>8.1} {:>7.2}% {:>9.1} {:>8.1}  {rival}",
        ratio(row.ratio, row.interval),
        ratio(row.own_ratio, None),
        100.0 * row.late,
        row.slot_hours,
        row.reversals,
    );
}

fn last(text: &mut String, results: &Results, rows: &[Comparison]) {
    let all =
        |of: &dyn Fn(&Comparison) -> f64| mean(&rows.iter().map(of).collect::<Vec<f64>>()).unwrap_or(0.0);
    let found = geo_mean_ratio(results, 0);
    let saving = geo_mean_saving(results, rows).map_or_else(
        || "none waits so little".to_owned(),
        |saved| {
            format!(
                "{} over {} workloads",
                percent(saved.ratio, saved.interval),
                saved.workloads
            )
        },
    );
    let row = Comparison {
        ratio: found.map(|found| found.ratio),
        interval: found.and_then(|found| found.interval),
        own_ratio: geo_mean(&rows.iter().filter_map(|row| row.own_ratio).collect::<Vec<f64>>()),
        waits: [0, 1, 2, 3].map(|at| all(&|row: &Comparison| row.waits[at])),
        late: all(&|row| row.late),
        slot_hours: rows.iter().map(|row| row.slot_hours).sum(),
        reversals: all(&|row| row.reversals),
        ..Comparison::default()
    };
    line(text, "geo-mean", &row, &saving);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suite::{Cell, Score, entrants};

    fn results() -> Results {
        let score = Score {
            waits: [0, 1000, 2000, 91_000],
            slot_hours: 20.0,
            created: 7,
            writes: 12.5,
            reply: Some(1.25),
            killed: 1,
            drained_busy: 5,
            overshoot: 3,
            overstay: 3.5,
            blind: 4,
            wait_seconds: 10_000.0,
            wasted_hours: 1.5,
            tiers: vec![(100, 1000), (50, 2000)],
            jain: Some(0.5),
            ..Score::default()
        };
        let cell = Cell {
            bound: Some(10.0),
            own_bound: Some(8.0),
            aggregate: false,
            curve: vec![(5, Some(12.0)), (600, None)],
            scores: vec![score; 3],
        };
        Results {
            entrants: entrants().into_iter().take(3).collect(),
            seeds: vec![1, 2],
            workloads: vec![Measured {
                name: "one",
                cells: vec![cell.clone(), cell],
            }],
        }
    }

    /// Counted from the end of the line, as those do who read it by machine.
    fn column<'a>(text: &'a str, row: &str, head: &str) -> &'a str {
        let line = |begins: &str| {
            let mut lines = text.lines().map(|line| line.split_whitespace().rev());
            let found = lines.find(|words| words.clone().next_back() == Some(begins));
            found.unwrap()
        };
        let place = line("contender").position(|word| word == head).unwrap();
        line(row).nth(place).unwrap()
    }

    #[test]
    fn everybody_has_what_should_not_happen_over_all_seeds() {
        let found = results();
        for text in [table(&found), details(&found, &found.workloads[0])] {
            for (head, value) in [
                ("killed", "2"),
                ("wasted-h", "3.0"),
                ("undone", "0"),
                ("overshoot", "6"),
                ("overstay", "7"),
                ("blind", "8"),
                ("drained", "10"),
                ("writes/h", "12.5"),
                ("reply", "1.2"),
            ] {
                assert_eq!(
                    column(&text, "poolwright-backlog", head),
                    value,
                    "{head} in {text}"
                );
            }
        }
    }

    #[test]
    fn details_have_the_longest_wait_and_the_pods_made() {
        let found = results();
        let text = details(&found, &found.workloads[0]);
        for words in [
            "p95 1.0 s in tier 100, 2.0 s in tier 50",
            "12.0 at 5 s, none at 600 s",
        ] {
            assert!(text.contains(words), "{text}");
        }
        for (head, value) in [("J0.1", "73"), ("J1", "82"), ("J10", "172"), ("jain", "0.50")] {
            assert_eq!(column(&text, "hpa", head), value, "{head} in {text}");
        }
        assert_eq!(column(&text, "hpa", "longest"), "91.0");
        assert_eq!(column(&text, "hpa", "made"), "7");
    }

    /// One seed whose bound is the weaker one is enough, and where none is there is no mark.
    #[test]
    fn a_bound_of_queues_taken_together_is_marked() {
        let mut found = results();
        let row = |found: &Results| {
            let text = table(found);
            let words = text.lines().filter_map(|line| line.split_whitespace().next());
            let names: Vec<String> = words
                .filter(|word| word.starts_with("one"))
                .map(str::to_owned)
                .collect();
            assert_eq!(names.len(), 1, "{text}");
            names[0].clone()
        };
        assert_eq!(row(&found), "one");
        found.workloads[0].cells[1].aggregate = true;
        assert_eq!(row(&found), "one~");
    }
}
