//! What tasks share behind them bears only so many at a time: that more workers are of no use is found whatever the chance of
//! the arrivals, but for one seed in twenty-five.
#![allow(missing_docs, clippy::unwrap_used)]

mod scale;

use poolwright_sim::poolwright::Settings;
use poolwright_sim::suite::{Contender, Score, parallel};
use poolwright_sim::workloads::ALL;

/// Slot-hours: about twice what the workload takes at the least, and a tenth of what chasing what waits comes to.
const MOST: f64 = 190.0;

#[test]
fn more_workers_than_help_are_not_kept() {
    let workload = ALL.into_iter().find(|one| one.name == "downstream").unwrap();
    let taken = parallel(2, scale::pick(20, 100), &|job| {
        let seed = u64::try_from(job).unwrap() + 1;
        let scenario = (workload.make)(seed);
        let contender = Contender::Poolwright(Settings::default()).paced(&scenario);
        (
            seed,
            Score::of(&contender.run(&scenario, seed), &scenario).slot_hours,
        )
    });
    let many: Vec<_> = taken.iter().filter(|(_, hours)| *hours > MOST).collect();
    assert!(many.len() <= taken.len() / 25, "seeds and slot-hours: {many:?}");
}
