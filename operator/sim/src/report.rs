//! The results of the suite as one page.
//!
//! It decides how they look, and computes nothing that the table does not say. The page is one text without scripts,
//! fonts or links to anything: it can be mailed.

mod charts;
mod labels;
mod replicas;

use std::error::Error;
use std::fmt::Write as _;

use crate::suite::{Contender, Results, compare, details, geo_mean_ratio, table};
use crate::workloads::Workload;

pub use replicas::{Line, lines};

/// What a chart may fail with; none of it is expected, for the charts are text.
pub type Failure = Box<dyn Error + Send + Sync>;

const STYLE: &str = "body{font:15px/1.5 sans-serif;max-width:1180px;margin:2em auto;padding:0 1em;color:#222}\
pre{font:12px/1.4 monospace;overflow-x:auto;background:#f6f6f6;padding:1em}h2{margin-top:2em}\
.pair{display:flex;flex-wrap:wrap;gap:12px}svg{max-width:100%;height:auto}";

/// The page. `workloads` are those of the results, in any order; the first seed is the one whose replicas are drawn.
///
/// # Errors
///
/// A chart cannot be drawn.
pub fn page(results: &Results, workloads: &[Workload], threads: usize) -> Result<String, Failure> {
    let seed = results.seeds.first().copied().unwrap_or(1);
    let drawn = replicas::all(results, workloads, seed, threads);
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Poolwright: the suite</title>\
         <style>{STYLE}</style></head><body>\n<h1>The suite</h1>\n<pre>{}</pre>\n",
        escaped(&table(results))
    );
    page.push_str("<h2>Distance to the bound</h2>\n<p>Slot-hours over the lower bound; 1 is the bound itself. Whiskers are \
                   95 % intervals over seeds.</p>\n");
    page.push_str(&charts::bars(
        "By workload: Poolwright, and the best tuned peer that waits no longer",
        &by_workload(results),
    )?);
    page.push_str(&charts::bars(
        "By contender: geometric mean over the workloads that have a ratio",
        &by_contender(results),
    )?);
    for (workload, replicas) in results.workloads.iter().zip(&drawn) {
        let about = workloads
            .iter()
            .find(|one| one.name == workload.name)
            .map_or("", |one| one.about);
        let _ = write!(
            page,
            "<h2 id=\"{0}\">{0}</h2>\n<p>{1}.</p>\n<div class=\"pair\">\n",
            workload.name,
            escaped(about)
        );
        page.push_str(&charts::scatter(results, workload)?);
        page.push_str(&charts::steps(
            &format!("Workers asked for, seed {seed}"),
            replicas,
        )?);
        let _ = write!(
            page,
            "</div>\n<details><summary>Everybody in numbers</summary>\n<pre>{}</pre></details>\n",
            escaped(&details(results, workload))
        );
    }
    page.push_str("</body></html>\n");
    Ok(page)
}

/// Bars: a name, and one or two values with their intervals.
fn by_workload(results: &Results) -> Vec<charts::Bar> {
    let bar = |workload: &crate::suite::Measured| {
        let ours = compare(results, workload, 0);
        let peer = ours
            .rival
            .as_ref()
            .map(|rival| compare(results, workload, rival.entrant));
        charts::Bar {
            name: workload.name.to_owned(),
            ours: ours.ratio.map(|ratio| (ratio, ours.interval)),
            other: peer.and_then(|peer| Some((peer.ratio?, peer.interval))),
        }
    };
    results.workloads.iter().map(bar).collect()
}

fn by_contender(results: &Results) -> Vec<charts::Bar> {
    let bar = |(at, entrant): (usize, &crate::suite::Entrant)| {
        let found = geo_mean_ratio(results, at).map(|found| (found.ratio, found.interval));
        let ours = matches!(entrant.contender, Contender::Poolwright(_));
        charts::Bar {
            name: entrant.name.clone(),
            ours: found.filter(|_| ours),
            other: found.filter(|_| !ours),
        }
    };
    let mut bars: Vec<charts::Bar> = results.entrants.iter().enumerate().map(bar).collect();
    bars.sort_by(|a, b| a.length().total_cmp(&b.length()));
    bars
}

/// Text inside of an element.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suite::{Plan, entrants};
    use crate::workloads::ALL;

    #[test]
    fn the_page_holds_every_chart_and_asks_for_nothing() {
        let workloads: Vec<Workload> = ALL
            .into_iter()
            .filter(|one| ["cron", "adversarial"].contains(&one.name))
            .collect();
        let plan = Plan {
            workloads: workloads.clone(),
            seeds: vec![1, 2],
            entrants: entrants(),
            threads: 2,
        };
        let results = plan.run(|_, _, _, _| {});
        let page = page(&results, &workloads, 2).unwrap();
        assert_eq!(page.matches("<svg").count(), 2 + 2 * workloads.len());
        assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
        for name in ["geo-mean", "id=\"cron\"", "poolwright", "kpa+grace tuned"] {
            assert!(page.contains(name), "{name}");
        }
        let (_, numbers) = page.split_once("<details>").unwrap();
        assert!(numbers.contains(" blind ") && numbers.contains(" longest "));
        assert_eq!(page.matches("<details>").count(), workloads.len());
        // The name of the SVG standard is the only address.
        assert_eq!(
            page.matches("http").count(),
            page.matches("http://www.w3.org/2000/svg").count()
        );
        assert!(!page.contains("NaN") && !page.contains("<script"));
        assert_eq!(page, super::page(&results, &workloads, 1).unwrap());
    }
}
