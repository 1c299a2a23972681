use std::time::Duration;

use super::*;

fn waits(counts: &[(&str, u64)]) -> Vec<Share> {
    let one = |(name, count): &(&str, u64)| Share {
        name: Arc::from(*name),
        waits: count * MILLI,
        ..Share::default()
    };
    counts.iter().map(one).collect()
}

fn running(tasks: &[(&str, u64, f64)]) -> BTreeMap<String, Running> {
    let one = |(name, count, ran): &(&str, u64, f64)| {
        let running = Running {
            acknowledged: *count,
            unacknowledged: 0,
            ran: Duration::from_secs_f64(*ran),
        };
        ((*name).to_owned(), running)
    };
    tasks.iter().map(one).collect()
}

const fn at(second: u64) -> Moment {
    Moment(second * 1000)
}

#[track_caller]
fn near(seen: f64, wanted: f64, part: f64) {
    assert!(
        (seen - wanted).abs() <= part * wanted,
        "{seen} is not near {wanted}"
    );
}

/// Two tasks a second of one second, and one each half minute of a minute: of four running tasks two are of each.
fn two_kinds(ages: (f64, f64)) -> Flows {
    let mut flows = Flows::default();
    for second in 0..600 {
        let long = u64::from(second % 30 == 0);
        flows.observe(&waits(&[("long", 0), ("short", 0)]), 2 + long, 40, at(second));
        if second % 30 == 0 {
            flows.told(&running(&[("long", 2, 2.0 * ages.0), ("short", 2, 2.0 * ages.1)]));
        }
    }
    flows
}

#[test]
fn queues_of_one_worker_pool_are_told_apart_by_the_ages_of_their_tasks() {
    // Of exponential lengths the mean age is the mean length; of equal ones it is half of it.
    let service = (2.0 + 60.0 / 30.0) / (2.0 + 1.0 / 30.0);
    for ages in [(60.0, 1.0), (30.0, 0.5)] {
        let flows = two_kinds(ages);
        let services = flows.services(service);
        near(services[0], 60.0, 0.15);
        near(services[1], 1.0, 0.15);
        near(flows.each_minute("short", at(600)).unwrap(), 120.0, 0.1);
        near(flows.each_minute("long", at(600)).unwrap(), 2.0, 0.2);
        assert_eq!(flows.each_minute("other", at(600)), None);
    }
}

#[test]
fn what_waits_is_weighed_by_its_own_queue() {
    let mut flows = two_kinds((60.0, 1.0));
    let service = 2.0;
    flows.observe(&waits(&[("long", 20), ("short", 0)]), 0, 40, at(600));
    let (coming, waiting) = flows.coming_and_waiting(service);
    near(waiting, 60.0, 0.15);
    assert!(coming > service && coming < 10.0, "{coming}: few of all are long");
    flows.observe(&waits(&[("long", 0), ("short", 20)]), 20, 40, at(601));
    near(flows.coming_and_waiting(service).1, 1.0, 0.15);
}

#[test]
fn starts_are_first_what_left_a_queue() {
    let mut flows = Flows::default();
    let look = |flows: &mut Flows, one, other, started, second| {
        flows.observe(
            &waits(&[("one", one), ("other", other)]),
            started,
            100,
            at(second),
        );
    };
    look(&mut flows, 0, 0, 0, 0);
    look(&mut flows, 100, 0, 0, 1);
    // Fetched now, and said to have started later.
    look(&mut flows, 60, 0, 0, 2);
    look(&mut flows, 60, 0, 40, 4);
    look(&mut flows, 0, 0, 60, 6);
    let rate = |name| flows.each_minute(name, at(60)).unwrap();
    near(rate("one"), 100.0, 1e-6);
    near(rate("other") + 1.0, 1.0, 1e-6);
}

#[test]
fn what_others_take_is_not_taken_for_ours_for_ever() {
    let mut flows = Flows::default();
    flows.observe(&waits(&[("one", 1000)]), 0, 4, at(0));
    flows.observe(&waits(&[("one", 0)]), 0, 4, at(1));
    for second in 2..62 {
        flows.observe(&waits(&[("one", 0)]), 1, 4, at(second));
    }
    // Four at most were on their way.
    near(flows.each_minute("one", at(60)).unwrap(), 56.0, 0.05);
}

#[test]
fn what_came_is_forgotten_after_minutes_whatever_the_clock_does() {
    let mut flows = Flows::default();
    flows.observe(&waits(&[("one", 0)]), 0, 4, at(0));
    flows.observe(&waits(&[("one", 300)]), 0, 4, at(30));
    near(flows.each_minute("one", at(30)).unwrap(), 600.0, 1e-6);
    flows.observe(&waits(&[("one", 300)]), 0, 4, at(330));
    assert!(flows.each_minute("one", at(330)).unwrap() > 50.0);
    flows.observe(&waits(&[("one", 300)]), 0, 4, at(361));
    assert!(flows.each_minute("one", at(361)).unwrap() < 1e-9);
    flows.observe(&waits(&[("one", 301)]), 0, 4, at(86_400_000));
    near(flows.each_minute("one", at(86_400_000)).unwrap(), 0.2, 1e-6);
}

#[test]
fn queues_that_come_and_go_take_nothing_from_others() {
    let mut flows = Flows::default();
    flows.observe(&waits(&[("b", 5)]), 0, 4, at(0));
    flows.observe(&waits(&[("b", 65)]), 0, 4, at(1));
    // What waits in a new queue has come before.
    flows.observe(&waits(&[("a", 1_000_000), ("b", 65)]), 0, 4, at(2));
    near(flows.each_minute("b", at(60)).unwrap(), 60.0, 1e-6);
    assert!(flows.each_minute("a", at(60)).unwrap() < 1e-9);
    flows.observe(&waits(&[("a", 1_000_000)]), 0, 4, at(3));
    assert_eq!(flows.each_minute("b", at(60)), None);
    assert_eq!(flows.services(3.0), [3.0]);
}
