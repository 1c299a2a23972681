use jiff::Timestamp;
use proptest::prelude::*;

use super::{Flaw, Starts};

fn starts(cron: &str, zone: &str) -> Starts {
    Starts::new(cron, zone).expect("a cron expression and a zone")
}

fn second(time: &str) -> i64 {
    time.parse::<Timestamp>().expect("a time").as_second()
}

/// The next starts at or after a time, with the offset of their zone.
fn next(cron: &str, zone: &str, from: &str, count: usize) -> Vec<String> {
    let starts = starts(cron, zone);
    let mut from = second(from);
    (0..count)
        .map(|_| {
            let start = starts.from(from).expect("a start");
            from = start + 1;
            let zoned = Timestamp::from_second(start)
                .expect("a time")
                .to_zoned(starts.zone().clone());
            zoned.strftime("%a %Y-%m-%dT%H:%M%:z").to_string()
        })
        .collect()
}

#[test]
fn five_fields_in_a_time_zone() {
    assert_eq!(
        next("0 8 * * MON-FRI", "Europe/Berlin", "2026-11-27T06:00:00Z", 2),
        ["Fri 2026-11-27T08:00+01:00", "Mon 2026-11-30T08:00+01:00"]
    );
    // That very moment counts.
    assert_eq!(
        next("0 8 * * 1-5", "Europe/Berlin", "2026-11-27T07:00:00Z", 1),
        ["Fri 2026-11-27T08:00+01:00"]
    );
    assert_eq!(
        next("*/30 0,12 1 jan,7 *", "UTC", "2026-11-27T07:00:00Z", 5),
        [
            "Fri 2027-01-01T00:00+00:00",
            "Fri 2027-01-01T00:30+00:00",
            "Fri 2027-01-01T12:00+00:00",
            "Fri 2027-01-01T12:30+00:00",
            "Thu 2027-07-01T00:00+00:00",
        ]
    );
    // The day of the month or that of the week, as cron has it.
    assert_eq!(
        next("0 0 13 * 5", "UTC", "2026-11-27T00:00:01Z", 3),
        [
            "Fri 2026-12-04T00:00+00:00",
            "Fri 2026-12-11T00:00+00:00",
            "Sun 2026-12-13T00:00+00:00",
        ]
    );
    assert_eq!(
        next("0 6 29 2 *", "Asia/Kolkata", "2026-11-27T00:00:00Z", 1),
        ["Tue 2028-02-29T06:00+05:30"]
    );
}

/// Clocks in Berlin went from 02:00 to 03:00 on 2026-03-29.
#[test]
fn what_is_left_out_in_spring_begins_as_much_later() {
    let before = "2026-03-28T12:00:00Z";
    assert_eq!(
        next("30 2 * * *", "Europe/Berlin", before, 2),
        ["Sun 2026-03-29T03:30+02:00", "Mon 2026-03-30T02:30+02:00"]
    );
    // It does not hide what comes before it, nor is it hidden by what comes after.
    assert_eq!(
        next("30 2,3 * * *", "Europe/Berlin", before, 3),
        [
            "Sun 2026-03-29T03:30+02:00",
            "Mon 2026-03-30T02:30+02:00",
            "Mon 2026-03-30T03:30+02:00"
        ]
    );
    assert_eq!(
        next("15 2-4 * * *", "Europe/Berlin", before, 3),
        [
            "Sun 2026-03-29T03:15+02:00",
            "Sun 2026-03-29T04:15+02:00",
            "Mon 2026-03-30T02:15+02:00"
        ]
    );
    assert_eq!(
        next("0 2 * * *", "Europe/Berlin", before, 1),
        ["Sun 2026-03-29T03:00+02:00"],
        "the first moment that is left out"
    );
}

/// They went back from 03:00 to 02:00 on 2026-10-25.
#[test]
fn what_comes_twice_in_autumn_begins_both_times() {
    let before = "2026-10-24T12:00:00Z";
    assert_eq!(
        next("30 2 * * *", "Europe/Berlin", before, 3),
        [
            "Sun 2026-10-25T02:30+02:00",
            "Sun 2026-10-25T02:30+01:00",
            "Mon 2026-10-26T02:30+01:00"
        ]
    );
    assert_eq!(
        next("0 3 * * *", "Europe/Berlin", before, 2),
        ["Sun 2026-10-25T03:00+01:00", "Mon 2026-10-26T03:00+01:00"]
    );
    // Half an hour, in the other half of the year.
    assert_eq!(
        next("45 1 * * *", "Australia/Lord_Howe", "2026-04-04T00:00:00Z", 2),
        ["Sun 2026-04-05T01:45+11:00", "Sun 2026-04-05T01:45+10:30"]
    );
}

#[test]
fn what_is_wrong_is_said() {
    let flaw = |cron: &str, zone: &str| Starts::new(cron, zone).expect_err("a flaw");
    let cron = |cron: &str| match flaw(cron, "UTC") {
        Flaw::Cron(words) => words,
        Flaw::Zone(words) => panic!("{words}"),
    };
    assert_eq!(
        cron("0 25 * * *"),
        "\"0 25 * * *\": hour: value must be in range 0..=23; found 25"
    );
    assert_eq!(
        cron("0 8 * *"),
        "\"0 8 * *\": has 4 fields; it must have five: minute, hour, day of month, month, day of week"
    );
    assert!(
        cron("0 8 * * * UTC").contains("has 6 fields"),
        "a zone has a field of its own"
    );
    assert!(cron("@daily").contains("has 1 fields"));
    assert!(
        cron("0 0 30 2 *").contains("never comes"),
        "{}",
        cron("0 0 30 2 *")
    );
    assert_eq!(
        cron("0 8 * * MONDAY"),
        "\"0 8 * * MONDAY\": day of week: malformed expression"
    );
    let Flaw::Zone(words) = flaw("0 8 * * *", "Europe/Berlim") else {
        panic!("the zone is wrong");
    };
    assert!(words.starts_with("\"Europe/Berlim\" is no time zone"), "{words}");
}

/// A machine's own database would make decisions differ.
#[test]
fn zones_come_with_the_program() {
    for zone in [
        "Europe/Berlin",
        "America/St_Johns",
        "Asia/Kolkata",
        "UTC",
        "Etc/GMT+5",
    ] {
        starts("0 8 * * *", zone);
    }
    assert!(Starts::new("0 8 * * *", "/etc/localtime").is_err());
}

const CRONS: [&str; 6] = [
    "30 2 * * *",
    "*/7 1-3 * * *",
    "0 8 * * MON-FRI",
    "15 2 25-31 3,10 *",
    "* * * * *",
    "0 0 1 1 *",
];
const ZONES: [&str; 4] = ["Europe/Berlin", "UTC", "Australia/Lord_Howe", "America/New_York"];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Against one step after the other.
    #[test]
    fn the_last_is_the_last(cron in 0..CRONS.len(), zone in 0..ZONES.len(), to in 1_772_000_000i64..1_803_000_000, length in 0i64..20_000) {
        let starts = starts(CRONS[cron], ZONES[zone]);
        let (mut known, mut from) = (None, to - length);
        while let Some(start) = starts.from(from).filter(|start| *start <= to) {
            prop_assert!(start >= from && start % 60 == 0);
            (known, from) = (Some(start), start + 1);
        }
        prop_assert_eq!(starts.last(to - length, to), known);
    }

    /// On a day without a change it is what cron says of that zone, minute by minute.
    #[test]
    fn an_earlier_look_finds_no_later_start(cron in 0..CRONS.len(), zone in 0..ZONES.len(), from in 1_772_000_000i64..1_803_000_000, sooner in 0i64..7200) {
        let starts = starts(CRONS[cron], ZONES[zone]);
        let (early, late) = (starts.from(from - sooner), starts.from(from));
        prop_assert!(early <= late);
        prop_assert!(early.is_none_or(|early| early < from || Some(early) == late), "{:?} {:?}", early, late);
    }
}
