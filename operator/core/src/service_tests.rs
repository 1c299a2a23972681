use crate::estimate::{Counts, Estimates};
use crate::time::Moment;

/// Tasks as they begin and end, in seconds.
type Tasks = Vec<(f64, f64)>;

/// What is estimated second after second while slots work on these: of tasks that run, and of those that come.
fn looks(mut tasks: Tasks, until: u64) -> Vec<(f64, f64)> {
    tasks.sort_by(|one, other| one.0.total_cmp(&other.0));
    let mut estimates = Estimates::default();
    let mut look = |second: u64| {
        let now = f64::from(u32::try_from(second).unwrap());
        let begun = tasks.iter().take_while(|task| task.0 <= now);
        let busy = begun.clone().filter(|task| task.1 > now).count();
        let counts = Counts {
            waiting: 0,
            busy: busy as u64,
            started: begun.count() as u64,
        };
        estimates.observe(counts, Some(0), Moment((10_000 + second) * 1000));
        (estimates.running_service(), estimates.service())
    };
    (0..=until).map(&mut look).collect()
}

/// A slot that works on one task after another.
fn slot(from: f64, until: f64, service: f64) -> Tasks {
    let one_by_one = std::iter::successors(Some(from), |begun| Some(begun + service));
    let begun = one_by_one.take_while(|begun| *begun < until);
    begun.map(|begun| (begun, begun + service)).collect()
}

/// Twenty tasks of ten minutes at once.
fn batch(at: f64) -> Tasks {
    let ends = (0..20).map(|task| at + 600.0 + 0.5 * f64::from(task));
    ends.map(|end| (end - 600.0, end)).collect()
}

fn is_within(found: f64, (least, most): (f64, f64), what: &str) {
    assert!(
        (least..=most).contains(&found),
        "{found:.2} s, {least} to {most} would do: {what}"
    );
}

/// For the window in which all of them end shows little of what they worked.
#[test]
fn tasks_that_end_together_have_not_become_short() {
    let found = looks(batch(1.0), 1200);
    for (second, (running, coming)) in found.iter().enumerate().skip(301) {
        is_within(*running, (500.0, 1250.0), &format!("running at {second} s"));
        is_within(*coming, (500.0, 1250.0), &format!("coming at {second} s"));
    }
}

#[test]
fn what_was_learnt_is_known_after_idle_hours_and_not_for_ever() {
    let found = looks(batch(1.0), 4 * 3600);
    is_within(found[1800].1, (500.0, 700.0), "after twenty minutes");
    is_within(
        found[4190].1,
        (450.0, 700.0),
        "when the batch leaves what is kept",
    );
    is_within(found[4 * 3600].1, (400.0, 700.0), "after four hours");
    let mut short = slot(0.0, 100.0, 0.1);
    short.extend(slot(5000.0, 5001.0, 0.1));
    let found = looks(short, 5001);
    is_within(found[4999].1, (0.05, 1.0), "short ones after an idle hour");
    let mut old = super::Service {
        learnt: 600.0,
        ..super::Service::default()
    };
    for _ in 0..168 {
        old = old.idle(3600.0);
    }
    is_within(old.learnt, (5.0, 6.0), "after a week");
}

/// It frees no slot for a long time, and says nothing of the thousand that come after it.
#[test]
fn one_long_task_is_not_the_length_of_all_that_come() {
    for (long, slots) in [(60.0, 1), (600.0, 1), (3600.0, 2)] {
        let mut tasks = slot(0.0, 300.0, 0.2);
        tasks.extend(slot(330.0, 600.0, 0.2));
        tasks.extend((0..slots).map(|slot| (300.0 + 5.0 * f64::from(slot), 300.0 + long)));
        let found = looks(tasks, 600);
        for (second, (_, coming)) in found.iter().enumerate().skip(280) {
            is_within(
                *coming,
                (0.1, 1.5),
                &format!("{slots} of {long} s, at {second} s"),
            );
        }
        let running = found[329].0;
        is_within(running, (20.0, 100.0), "while nothing ends, no slot gets free");
    }
}

/// The only slot is held for an hour, and whoever waits for it must not be told that it is free in a moment.
#[test]
fn what_runs_lasts_at_least_for_as_long_as_none_has_ended() {
    let mut tasks = slot(0.0, 300.0, 0.2);
    tasks.push((300.0, 3900.0));
    let found = looks(tasks, 3900);
    for second in (310..3900).step_by(10) {
        let least = f64::from(u32::try_from(second - 305).unwrap());
        is_within(found[second].0, (least, 7200.0), &format!("at {second} s"));
    }
}

/// Nobody has looked for ten minutes, in which slots were held by one task after another.
#[test]
fn what_runs_is_no_older_than_a_gap_in_the_data() {
    let mut estimates = Estimates::default();
    let at = |second: u64| Moment((10_000 + second) * 1000);
    let mut look = |second: u64, started: u64, gap: bool| {
        if gap {
            estimates.gap(at(second));
        }
        let counts = Counts {
            waiting: 0,
            busy: 1,
            started,
        };
        estimates.observe(counts, Some(0), at(second));
        estimates.running_service()
    };
    for second in 0..300 {
        look(second, 1 + second / 8, false);
    }
    let after = look(900, 38, true);
    is_within(after, (4.0, 60.0), "at the end of the gap");
    is_within(look(905, 38, false), (5.0, 60.0), "five seconds later");
}

/// A report of forty minutes runs, an hour after hundreds of short ones.
#[test]
fn a_long_task_after_a_pause_is_not_the_length_of_all_that_come() {
    let mut tasks = slot(0.0, 300.0, 0.6);
    tasks.push((4500.0, 6900.0));
    let found = looks(tasks, 6890);
    for second in (4500..6890).step_by(10) {
        is_within(found[second].1, (0.3, 3.0), &format!("at {second} s"));
    }
}

/// No window is as long as they are: that they are long is known all the same when the next ones come.
#[test]
fn tasks_longer_than_any_window_are_known_when_the_next_ones_come() {
    let night = |at: f64| (0..20).map(move |task| (at, at + 7200.0 + f64::from(task)));
    let found = looks(night(1.0).chain(night(25_000.0)).collect(), 25_600);
    for second in [7300, 12_000, 24_990, 25_001, 25_010, 25_100, 25_600] {
        is_within(found[second].1, (1500.0, 9000.0), &format!("at {second} s"));
    }
}

/// Whatever the number of slots, for many of which a minute is enough.
#[test]
fn a_new_length_of_all_is_found() {
    for (slots, within) in [(1, 350), (2, 200), (4, 150), (10, 70), (40, 70)] {
        let each = |from, until, service| {
            (0..slots).flat_map(move |slot| {
                let place = f64::from(slot) / f64::from(slots);
                self::slot(from + service * place, until, service)
            })
        };
        let tasks: Tasks = each(0.0, 995.0, 5.0).chain(each(1000.0, 2000.0, 50.0)).collect();
        let found = looks(tasks, 2000);
        is_within(found[994].1, (4.0, 6.0), "before");
        let what = format!("{within} s after, on {slots} slots");
        is_within(found[1000 + within].1, (20.0, 100.0), &what);
        is_within(found[1999].1, (40.0, 60.0), "long after");
    }
}
