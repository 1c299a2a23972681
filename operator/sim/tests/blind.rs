//! What is counted as taken away while nothing true can be read.
#![allow(missing_docs, clippy::unwrap_used)]

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use poolwright_sim::peers::view::{Each, Rule, View};
use poolwright_sim::poolwright::{Poolwright, Settings};
use poolwright_sim::scaler::Scaler;
use poolwright_sim::scenario::{Fault, FaultKind, Millis, Scenario, Task};
use poolwright_sim::suite::Score;
use poolwright_sim::world::{QueueSeen, World, run};

const SILENT: Millis = 100_000;
const ZERO: Millis = 300_000;
const LAGS: Millis = 500_000;

/// Ten minutes in which nothing can be read for one, all reads zero for one, and all lags for one.
fn scenario(tasks: Vec<Task>) -> Scenario {
    let mut scenario = Scenario::plain("blind", 600_000, tasks);
    scenario.start_up[0].spread = 0;
    let minute = |from, kind| Fault {
        from,
        to: from + 60_000,
        kind,
    };
    scenario.faults = vec![
        minute(SILENT, FaultKind::Silence),
        minute(ZERO, FaultKind::FalseZero),
        minute(LAGS, FaultKind::Delay(30_000)),
    ];
    scenario
}

/// What a made-up scaler does.
#[derive(Clone, Copy)]
enum Act {
    Scale(u32),
    /// Parks the oldest that is not parked.
    Park,
}

/// Does what it was told at these times.
struct Told(Vec<(Millis, Act)>);

impl Scaler for Told {
    fn period(&self) -> Millis {
        1000
    }

    fn look(&mut self, world: &mut World) {
        let now = world.now;
        for (_, act) in self.0.iter().filter(|(at, _)| *at == now) {
            match act {
                Act::Scale(pods) => world.scale(0, *pods),
                Act::Park => {
                    let pod = world.staying(0).find(|(_, pod)| !pod.parked).unwrap().0;
                    world.park(pod);
                }
            }
        }
    }
}

fn blind(acts: &[(Millis, Act)]) -> u64 {
    let scenario = scenario(Vec::new());
    let outcome = run(&scenario, &mut Told(acts.to_vec()), 1);
    Score::of(&outcome, &scenario).blind
}

#[test]
fn who_scales_in_while_signals_are_lost_or_falsely_zero_is_counted() {
    let begin = (0, Act::Scale(20));
    assert_eq!(blind(&[begin, (SILENT, Act::Scale(18))]), 2);
    assert_eq!(blind(&[begin, (ZERO + 59_000, Act::Scale(13))]), 7);
    assert_eq!(
        blind(&[begin, (SILENT, Act::Scale(18)), (ZERO, Act::Scale(17))]),
        3
    );
}

#[test]
fn who_holds_or_grows_is_not() {
    let acts = [
        (0, Act::Scale(20)),
        (SILENT - 1000, Act::Scale(18)),
        (SILENT + 1000, Act::Scale(19)),
        (SILENT + 60_000, Act::Scale(10)),
        (ZERO - 1000, Act::Scale(9)),
        (ZERO + 60_000, Act::Scale(8)),
        // What lags is true, if old.
        (LAGS + 1000, Act::Scale(2)),
    ];
    assert_eq!(blind(&acts), 0);
}

/// Who parks a worker takes it away, and its end is no decision any more.
#[test]
fn a_pod_counts_when_it_is_parked_and_not_again_when_it_goes() {
    let begin = (0, Act::Scale(1));
    assert_eq!(
        blind(&[begin, (ZERO, Act::Park), (ZERO + 5000, Act::Scale(0))]),
        1
    );
    assert_eq!(
        blind(&[begin, (ZERO - 1000, Act::Park), (ZERO, Act::Scale(0))]),
        0
    );
}

fn busy(count: usize) -> Vec<Task> {
    let task = Task {
        arrives: 1000,
        service: 590_000,
        queue: 0,
        failures: 0,
    };
    vec![task; count]
}

/// Notes the first look inside the false zero, and always wants two pods.
struct Notes(Rc<RefCell<Vec<View>>>);

impl Rule for Notes {
    fn decide(&mut self, view: &View) -> Option<u32> {
        if view.now == ZERO {
            self.0.borrow_mut().push(*view);
        }
        Some(2)
    }
}

/// The broker's counts are gone. A counter of what was published does not fall, or its return would look like a rush;
/// and who runs a task knows it.
#[test]
fn a_false_zero_hides_messages_and_not_what_workers_run() {
    let scenario = scenario(busy(11));
    let notes = Rc::new(RefCell::new(Vec::new()));
    run(
        &scenario,
        &mut Each::new(1000, &scenario, |_| Notes(Rc::clone(&notes))),
        1,
    );
    let reading = notes.borrow()[0].reading.unwrap();
    assert_eq!((reading.ready, reading.unacked, reading.published), (0, 0, 11));
    assert_eq!((reading.running, reading.held, reading.in_system()), (8, 8, 8));
    let mut world = World::new(scenario, 1);
    world.now = ZERO;
    assert_eq!(world.seen().unwrap(), [QueueSeen::default()]);
}

/// Notes what was published as it reads, every second, and always wants one pod.
struct Published(Rc<RefCell<Vec<(Millis, u64)>>>);

impl Rule for Published {
    fn decide(&mut self, view: &View) -> Option<u32> {
        let read = view.reading.map(|reading| (view.now, reading.published));
        self.0.borrow_mut().extend(read);
        Some(1)
    }
}

/// One task a second is published, so that a reading tells its own age.
#[test]
fn what_lags_is_what_was_true_before_and_no_longer_than_the_fault_lasts() {
    let task = |second: Millis| Task {
        arrives: 1000 * second,
        service: 100,
        queue: 0,
        failures: 0,
    };
    let scenario = scenario((0..600).map(task).collect());
    let notes = Rc::new(RefCell::new(Vec::new()));
    let rule = |_| Published(Rc::clone(&notes));
    run(&scenario, &mut Each::new(1000, &scenario, rule), 1);
    let read = |at: Millis| notes.borrow().iter().find(|(now, _)| *now == at).unwrap().1;
    // Arrivals go before what happens at the same time, so that at second n there are n + 1.
    let true_at = |at: Millis| at / 1000 + 1;
    for (at, of) in [
        (LAGS - 1000, LAGS - 1000),
        (LAGS, LAGS - 30_000),
        (LAGS + 1000, LAGS - 29_000),
        (LAGS + 59_000, LAGS + 29_000),
        (LAGS + 60_000, LAGS + 60_000),
    ] {
        assert_eq!(read(at), true_at(of), "read at {at}");
    }
}

/// A delay that is longer than the run is old shows the first look.
#[test]
fn a_lag_from_the_beginning_shows_the_first_look() {
    let mut scenario = scenario(busy(4));
    scenario.faults = vec![Fault {
        from: 0,
        to: 60_000,
        kind: FaultKind::Delay(30_000),
    }];
    let notes = Rc::new(RefCell::new(Vec::new()));
    let rule = |_| Published(Rc::clone(&notes));
    run(&scenario, &mut Each::new(1000, &scenario, rule), 1);
    let found = notes.borrow();
    let read = |at: Millis| found.iter().find(|(now, _)| *now == at).unwrap().1;
    // The four come with the second look.
    assert_eq!((read(0), read(5000), read(30_000), read(31_000)), (0, 0, 0, 4));
}

/// Fifty slots are busy and two hundred tasks wait when all of it reads zero.
#[test]
fn poolwright_takes_no_busy_worker_away_for_a_zero_that_nobody_explains() {
    for wait_target in [true, false] {
        let settings = Settings {
            wait_target,
            ..Settings::default()
        };
        let mut scenario = scenario(busy(250));
        scenario.fleets[0].bounds = (0, 13);
        let outcome = run(&scenario, &mut Poolwright::new(&scenario, settings), 1);
        assert_eq!((outcome.blind, outcome.killed), (0, 0), "{:?}", outcome.changes);
        assert_eq!(outcome.peak, [13]);
    }
}

/// Two of a minute come each ten seconds, and the broker shows nothing for nearly eight minutes, whatever the delay is: workers that
/// start tasks show that it is not true.
#[test]
fn a_false_zero_beside_tasks_that_start_takes_nothing_away_however_long_it_lasts() {
    for delay in [None, Some(Duration::from_secs(10)), Some(Duration::from_secs(60))] {
        let tasks = (0..240u64).map(|at| Task {
            arrives: 1000 + at * 5000,
            service: 60_000,
            queue: 0,
            failures: 0,
        });
        let mut scenario = Scenario::plain("zero", 1_200_000, tasks.collect());
        scenario.faults = vec![Fault {
            from: ZERO,
            to: 2 * ZERO + ZERO / 2,
            kind: FaultKind::FalseZero,
        }];
        let settings = Settings {
            scale_down_delay: delay,
            ..Settings::default()
        };
        let outcome = run(&scenario, &mut Poolwright::new(&scenario, settings), 1);
        assert_eq!((outcome.blind, outcome.undone), (0, 0), "{delay:?}");
    }
}

/// Two queues on the same workers, which fetch more than they run, and acknowledge late or early: nothing is taken away while
/// nothing true can be read, and all is done in the end.
#[test]
fn so_it_is_with_two_queues_more_that_is_fetched_and_either_way_to_acknowledge() {
    // With ten seconds those that idle beside workers with tasks in store go, and rightly, for nothing waits in a queue.
    let short = Some(Duration::from_secs(10));
    for (late, prefetch, delay) in [
        (true, 1, short),
        (true, 4, short),
        (false, 1, short),
        (false, 4, None),
    ] {
        let tasks = (0..400).map(|at| Task {
            arrives: 1000 + at * 1500,
            service: if at % 3 == 0 { 90_000 } else { 12_000 },
            queue: usize::from(at % 2 == 0),
            failures: 0,
        });
        let mut scenario = scenario(tasks.collect());
        scenario.length = 900_000;
        let mut second = scenario.queues[0].clone();
        second.name = "r".to_owned();
        scenario.queues.push(second);
        let fleet = &mut scenario.fleets[0];
        (fleet.queues, fleet.late, fleet.prefetch) = (vec![0, 1], late, prefetch);
        let settings = Settings {
            scale_down_delay: delay,
            ..Settings::default()
        };
        let outcome = run(&scenario, &mut Poolwright::new(&scenario, settings), 1);
        let case = format!("late {late}, prefetch {prefetch}: {:?}", outcome.changes);
        assert_eq!(
            (outcome.blind, outcome.killed, outcome.undone),
            (0, 0, 0),
            "{case}"
        );
        // About 25 slots are busy, in workers of four.
        assert!((7..=20).contains(&outcome.peak[0]), "{case}");
    }
}
