//! Who comes first, where conservation does not say: what is given back, what was killed, and what a parked worker keeps.

use poolwright_sim::outcome::Outcome;
use poolwright_sim::scaler::Scaler;
use poolwright_sim::scenario::{Millis, Scenario, StartUp, Task};
use poolwright_sim::world::{World, run};

type Act = (Millis, fn(&mut World));

/// Acts at its times, which are whole seconds.
struct Script(&'static [Act]);

impl Scaler for Script {
    fn period(&self) -> Millis {
        1_000
    }

    fn look(&mut self, world: &mut World) {
        let now = world.now;
        for (_, act) in self.0.iter().filter(|(at, _)| *at == now) {
            act(world);
        }
    }
}

/// Six tasks of 10 s after 3 s, for workers of one slot that take 2 s to start.
fn six(prefetch: u32, grace: Millis, acts: &'static [Act]) -> Outcome {
    let task = Task {
        arrives: 3_000,
        service: 10_000,
        queue: 0,
        failures: 0,
    };
    let mut scenario = Scenario::plain("six", 4_000, vec![task; 6]);
    scenario.start_up = vec![StartUp {
        from: 0,
        mean: 2_000,
        spread: 0,
    }];
    let fleet = &mut scenario.fleets[0];
    (fleet.slots, fleet.prefetch, fleet.grace) = (1, prefetch, grace);
    run(&scenario, &mut Script(acts), 1)
}

/// When each task was done, in seconds.
fn done(outcome: &Outcome) -> Vec<Millis> {
    outcome.done.iter().map(|at| at.unwrap() / 1_000).collect()
}

#[test]
fn what_a_worker_gives_back_goes_to_the_head_in_order() {
    let outcome = six(
        4,
        60_000,
        &[
            (0, |world| world.scale(0, 1)),
            (5_000, |world| world.scale(0, 0)),
            (6_000, |world| world.scale(0, 1)),
        ],
    );
    assert_eq!(done(&outcome), [13, 18, 28, 38, 48, 58]);
    assert_eq!((outcome.drained_busy, outcome.killed), (1, 0));
}

#[test]
fn what_was_killed_starts_anew_and_first() {
    let outcome = six(
        1,
        1_000,
        &[
            (0, |world| world.scale(0, 1)),
            (5_000, |world| world.scale(0, 0)),
            (6_000, |world| world.scale(0, 1)),
        ],
    );
    assert_eq!(done(&outcome), [18, 28, 38, 48, 58, 68]);
    assert_eq!((outcome.killed, outcome.wasted_millis), (1, 3_000));
}

#[test]
fn a_parked_worker_ends_what_it_holds_and_takes_nothing() {
    let outcome = six(
        2,
        60_000,
        &[
            (0, |world| world.scale(0, 1)),
            (5_000, |world| world.park(0)),
            (60_000, |world| world.unpark(0)),
        ],
    );
    assert_eq!(done(&outcome), [13, 23, 70, 80, 90, 100]);
}
