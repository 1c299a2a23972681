use std::collections::BTreeMap;

use poolwright_api::Reason;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::testing::{check as validated, wp};

fn spec(name: &str, cron: &str, seconds: i32, pods: i32) -> Spec {
    Spec {
        name: name.to_owned(),
        cron: cron.to_owned(),
        time_zone: "Europe/Berlin".to_owned(),
        duration_seconds: seconds,
        min_replicas: pods,
    }
}

fn schedules(specs: &[Spec]) -> Arc<[Schedule]> {
    let read = |spec| Schedule::new(spec).expect("a schedule");
    specs.iter().map(read).collect()
}

fn time(time: &str) -> Timestamp {
    time.parse().expect("a time")
}

/// Least pods at a time, with words.
fn at(all: &Arc<[Schedule]>, wall: &str) -> Option<(u32, String)> {
    let mut agenda = Agenda::default();
    let raise = agenda.at(all, time(wall));
    raise.map(|raise| (raise.pods, raise.words(0)))
}

fn pods(all: &Arc<[Schedule]>, wall: &str) -> u32 {
    at(all, wall).map_or(0, |(pods, _)| pods)
}

#[test]
fn it_is_on_from_its_start_and_off_at_its_end() {
    let all = schedules(&[spec("business-hours", "0 8 * * MON-FRI", 36_000, 4)]);
    assert_eq!(pods(&all, "2026-11-26T06:59:59.999Z"), 0);
    let (pods_then, words) = at(&all, "2026-11-26T07:00:00Z").expect("it is on");
    assert_eq!(pods_then, 4);
    assert_eq!(
        words,
        "schedule business-hours (0 8 * * MON-FRI, Europe/Berlin) raises the minimum from 0 to 4 until 2026-11-26 18:00"
    );
    assert_eq!(pods(&all, "2026-11-26T16:59:59.999Z"), 4);
    assert_eq!(pods(&all, "2026-11-26T17:00:00Z"), 0);
    assert_eq!(pods(&all, "2026-11-28T07:00:00Z"), 0, "a Saturday");
}

#[test]
fn of_several_the_most_pods_count_whatever_their_order() {
    let (day, noon) = (
        spec("day", "0 8 * * *", 36_000, 2),
        spec("noon", "0 12 * * *", 3600, 5),
    );
    for all in [[day.clone(), noon.clone()], [noon.clone(), day.clone()]] {
        let all = schedules(&all);
        let of = |wall| pods(&all, wall);
        assert_eq!(
            [
                of("2026-11-26T10:59:59Z"),
                of("2026-11-26T11:00:00Z"),
                of("2026-11-26T12:00:00Z"),
                of("2026-11-26T17:00:00Z")
            ],
            [2, 5, 2, 0]
        );
    }
    // Of the same number the one that lasts longer is told.
    let longer = spec("a-day", "0 8 * * *", 36_000, 5);
    let all = schedules(&[noon, longer]);
    let (_, words) = at(&all, "2026-11-26T11:30:00Z").expect("both are on");
    assert!(words.starts_with("schedule a-day"), "{words}");
}

#[test]
fn one_that_begins_again_before_it_ends_has_no_break() {
    let all = schedules(&[spec("s", "0 8,10 * * *", 7200, 1)]);
    let (_, words) = at(&all, "2026-11-26T07:30:00Z").expect("it is on");
    assert!(words.ends_with("until 2026-11-26 12:00"), "{words}");
    let all = schedules(&[spec("always", "* * * * *", 604_800, 1)]);
    let (_, words) = at(&all, "2026-11-26T07:30:00Z").expect("it is on");
    assert!(words.ends_with("from 0 to 1"), "{words}");
}

/// Seconds pass at their own pace: on a night that is an hour longer or shorter the end is by another clock.
#[test]
fn a_duration_does_not_follow_the_clocks() {
    let night = schedules(&[spec("night", "0 22 * * *", 8 * 3600, 3)]);
    let until = |wall| at(&night, wall).expect("it is on").1;
    assert!(until("2026-03-28T21:00:00Z").ends_with("2026-03-29 07:00"));
    assert!(until("2026-10-24T20:00:00Z").ends_with("2026-10-25 05:00"));
    assert!(until("2026-11-24T21:00:00Z").ends_with("2026-11-25 06:00"));
    // Half past two is left out in spring, and comes twice in autumn.
    let early = schedules(&[spec("early", "30 2 * * *", 1800, 3)]);
    let of = |wall| pods(&early, wall);
    assert_eq!(
        [
            of("2026-03-29T01:29:59Z"),
            of("2026-03-29T01:30:00Z"),
            of("2026-03-29T02:00:00Z")
        ],
        [0, 3, 0]
    );
    assert_eq!(
        [
            of("2026-10-25T00:30:00Z"),
            of("2026-10-25T01:00:00Z"),
            of("2026-10-25T01:30:00Z"),
            of("2026-10-25T02:00:00Z")
        ],
        [3, 0, 3, 0]
    );
}

#[test]
fn what_was_found_out_holds_for_its_time_and_its_schedules_only() {
    let all = schedules(&[spec("s", "0 8 * * *", 3600, 4)]);
    let mut agenda = Agenda::default();
    let mut of = |all: &Arc<[Schedule]>, wall| agenda.at(all, time(wall)).map(|raise| raise.pods);
    assert_eq!(of(&all, "2026-11-26T06:00:00Z"), None);
    assert_eq!(of(&all, "2026-11-26T07:00:00Z"), Some(4));
    assert_eq!(of(&all, "2026-11-26T06:59:00Z"), None, "the clock was set back");
    assert_eq!(of(&all, "2026-11-26T08:00:00Z"), None);
    let other = schedules(&[spec("s", "0 9 * * *", 3600, 5)]);
    assert_eq!(of(&other, "2026-11-26T08:00:00Z"), Some(5));
    assert_eq!(of(&Arc::default(), "2026-11-26T08:00:00Z"), None);
}

fn refusal(schedules: &Value) -> (String, String) {
    let wp = wp(json!({"class": "Cpu", "scaling": {"maxReplicas": 4, "schedules": schedules}}));
    let invalid = validated(&wp).expect_err("it cannot be used");
    assert_eq!(invalid.reason, Reason::InvalidSpec);
    (invalid.field, invalid.message)
}

#[test]
fn what_cannot_be_used_is_named() {
    let good = json!({"name": "a", "cron": "0 8 * * *", "durationSeconds": 60, "minReplicas": 4});
    let with = |field: &str, value: Value| {
        let mut one = good.clone();
        one[field] = value;
        refusal(&json!([{"name": "b", "cron": "0 9 * * *", "durationSeconds": 60, "minReplicas": 1}, one]))
    };
    let table = [
        (
            with("cron", json!("0 25 * * *")),
            "cron",
            "hour: value must be in range",
        ),
        (with("timeZone", json!("Mars/Base")), "timeZone", "no time zone"),
        (
            with("durationSeconds", json!(59)),
            "durationSeconds",
            "60 to 604800",
        ),
        (with("minReplicas", json!(0)), "minReplicas", "1 to 10000"),
        (with("minReplicas", json!(5)), "minReplicas", "maxReplicas (4)"),
    ];
    for ((found, message), field, words) in table {
        assert_eq!(found, format!("spec.scaling.schedules[1].{field}"));
        assert!(message.contains(words), "{message}");
        assert!(message.starts_with("of schedule \"a\""), "{message}");
    }
    assert_eq!(with("name", json!("b")).0, "spec.scaling.schedules[1].name");
    let many = vec![good.clone(); 17];
    assert_eq!(refusal(&json!(many)).0, "spec.scaling.schedules");
    let wp = wp(json!({"class": "Cpu", "scaling": {"maxReplicas": 4, "schedules": [good]}}));
    let pool = validated(&wp).expect("a valid WorkerPool");
    assert_eq!(pool.schedules.len(), 1);
    assert_eq!(pool.schedules[0].spec.time_zone, "UTC");
}

const CRONS: [&str; 5] = [
    "30 2 * * *",
    "*/20 1-3 * * *",
    "0 8 * * MON-FRI",
    "15 2 25-31 3,10 *",
    "0 0 * * *",
];

/// On if there is a start no longer ago than it lasts: by looking at every minute.
fn on_by_hand(one: &Schedule, now: i64) -> bool {
    let first = now - one.seconds + 1;
    let minutes = (first..=now).filter(|second| second % 60 == 0);
    minutes
        .into_iter()
        .any(|minute| one.starts.from(minute) == Some(minute))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn a_remembered_answer_is_that_of_a_new_look(
        cron in 0..CRONS.len(), seconds in 60i32..20_000, from in 1_772_000_000i64..1_803_000_000,
        steps in prop::collection::vec(-4000i64..9000, 1..12),
    ) {
        let all = schedules(&[spec("s", CRONS[cron], seconds, 2), spec("t", "0 */5 * * *", 5400, 3)]);
        let (mut agenda, mut now) = (Agenda::default(), from);
        let mut seen: BTreeMap<i64, u32> = BTreeMap::new();
        for step in steps {
            now += step;
            let wall = Timestamp::from_second(now).expect("a time");
            let found = agenda.at(&all, wall).cloned();
            prop_assert_eq!(&found, &Agenda::default().at(&all, wall).cloned());
            let by_hand = all.iter().filter(|one| on_by_hand(one, now)).map(|one| one.pods).max();
            prop_assert_eq!(found.map(|raise| raise.pods), by_hand);
            seen.insert(now, by_hand.unwrap_or(0));
        }
    }
}
