//! What tasks of a length of their own make the wait target ask for: few that are long among many short ones, and batches
//! that begin and end together.
#![allow(missing_docs, clippy::unwrap_used)]

use poolwright_sim::outcome::Outcome;
use poolwright_sim::poolwright::{Poolwright, Settings};
use poolwright_sim::scenario::{Millis, Scenario, Task};
use poolwright_sim::world::run;

const MINUTE: Millis = 60_000;

const fn task(arrives: Millis, service: Millis) -> Task {
    Task {
        arrives,
        service,
        queue: 0,
        failures: 0,
    }
}

fn play(mut tasks: Vec<Task>, slots: u32) -> (Outcome, Scenario) {
    tasks.sort_by_key(|task| task.arrives);
    let mut scenario = Scenario::plain("lengths", tasks.last().unwrap().arrives + 10 * MINUTE, tasks);
    scenario.fleets[0].slots = slots;
    let mut poolwright = Poolwright::new(&scenario, Settings::default());
    (run(&scenario, &mut poolwright, 1), scenario)
}

/// Five a second of a tenth of a second, which one slot does, and one that holds that slot. While it does, what comes waits
/// for another one, which may have to start: a minute's tasks are some seconds of work. In ten minutes two slots are busy in
/// the mean, and chance asks for as many again.
#[test]
fn a_long_task_among_short_ones_is_no_reason_for_many_workers() {
    let short = || (0..20 * 300).map(|at| task(at * 200, 100));
    for (long, most) in [(MINUTE, 4), (10 * MINUTE, 4)] {
        let (outcome, _) = play(short().chain([task(10 * MINUTE, long)]).collect(), 1);
        // While nothing was known of lengths it may have been another number.
        let after = outcome.changes.iter().filter(|change| change.at > 9 * MINUTE);
        let peak = after.map(|change| change.to).max().unwrap();
        assert!(peak <= most, "{peak} workers for one of {} s", long / 1000);
    }
}

/// Twenty at once every twenty minutes, of ten minutes each. How long they take is known from the second batch on, so all of
/// the workers for it start at once.
#[test]
fn the_length_of_a_batch_is_known_when_the_next_one_comes() {
    let batch = |batch: u64| (0..20).map(move |at| task(1000 + batch * 20 * MINUTE + 10 * at, 10 * MINUTE));
    let (outcome, scenario) = play((0..5).flat_map(batch).collect(), 4);
    let waits = scenario.tasks.iter().zip(&outcome.waits);
    let later = waits.filter(|(task, _)| task.arrives > 20 * MINUTE);
    let longest = later.map(|(_, wait)| wait.unwrap()).max().unwrap();
    // The time that workers need to start, and little more.
    assert!(longest <= 50_000, "one waited {} s", longest / 1000);
}
