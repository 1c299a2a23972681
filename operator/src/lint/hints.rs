//! What to write in place of what was refused.
//!
//! Adds to the words of a rule or of the schema where what was written tells what was meant. Decides nothing.

use serde_json::Value as Json;

use super::document::Node;
use super::kinds::Definition;

/// Deepest place of a field that is looked for, in names; what is below is Kubernetes' own.
const DEPTH_MAX: usize = 4;
/// Fields that are in too many places, or mean too little, to be looked for.
const COMMON: [&str; 6] = ["description", "key", "max", "min", "name", "url"];
/// Short forms of a cron expression, which are not taken.
const SHORT: [(&str, &str); 7] = [
    ("@annually", "0 0 1 1 *"),
    ("@daily", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
    ("@midnight", "0 0 * * *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@yearly", "0 0 1 1 *"),
];
/// Names of days and months; the first three letters of each are taken.
const NAMES: [&str; 19] = [
    "MONDAY",
    "TUESDAY",
    "WEDNESDAY",
    "THURSDAY",
    "FRIDAY",
    "SATURDAY",
    "SUNDAY",
    "JANUARY",
    "FEBRUARY",
    "MARCH",
    "APRIL",
    "MAY",
    "JUNE",
    "JULY",
    "AUGUST",
    "SEPTEMBER",
    "OCTOBER",
    "NOVEMBER",
    "DECEMBER",
];

/// What to add to a message about the field of a schedule that `path` names in `node`; nothing about others.
#[must_use]
pub fn schedule(node: &Node, path: &str) -> Option<String> {
    let written = || node.at(path)?.text();
    if path.ends_with("].cron") {
        cron(written()?)
    } else if path.ends_with("].timeZone") {
        zone(written()?)
    } else {
        None
    }
}

fn cron(text: &str) -> Option<String> {
    if let Some((_, fields)) = SHORT.iter().find(|(short, _)| text.eq_ignore_ascii_case(short)) {
        return Some(format!("; write {fields}"));
    }
    let mut words = text.split(|c: char| !c.is_ascii_alphabetic());
    words.find_map(|word| {
        let written = word.to_ascii_uppercase();
        let is_longer = |name: &&&str| written.len() > 3 && name.starts_with(&written);
        let name = NAMES.iter().find(is_longer)?;
        Some(format!("; write {} in place of {word}", name.get(..3)?))
    })
}

/// The zone of a fixed offset, whose name has the sign the other way round.
fn zone(text: &str) -> Option<String> {
    let offset = text.trim_start_matches("UTC").trim_start_matches("GMT");
    let sign = match offset.chars().next()? {
        '+' => '-',
        '-' => '+',
        _ => return None,
    };
    let digits = offset.get(1..)?;
    let (hours, minutes) = digits.split_once(':').unwrap_or((digits, "00"));
    let hours: u8 = hours.parse().ok().filter(|hours| (1..=12).contains(hours))?;
    let named = if minutes == "00" {
        format!("; all the year round {offset} is Etc/GMT{sign}{hours}")
    } else {
        String::new()
    };
    Some(format!("; write a name such as Europe/Berlin{named}"))
}

/// Where a field belongs that `path` names and an object of `kind` does not have there.
#[must_use]
pub fn misplaced(definitions: &[Definition], kind: &str, path: &str) -> Option<String> {
    let field = path.rsplit('.').next()?;
    if kind == "WorkerPool" && path == "spec.celery.pool" {
        return Some("; is executionPool meant?".to_owned());
    }
    if COMMON.contains(&field) || !path.starts_with("spec.") {
        return None;
    }
    let place = |definition: &Definition| {
        let mut found = Vec::new();
        places(definition.spec(), "spec", field, 1, &mut found);
        // What Celery's and Airflow's workers both have is told of the former.
        let order = |place: &String| (place.matches('.').count(), place.starts_with("spec.airflow"));
        found.into_iter().min_by_key(order)
    };
    let own = definitions
        .iter()
        .find(|definition| definition.kind == kind)
        .and_then(place);
    if let Some(place) = own {
        return Some(format!("; it belongs at {place}"));
    }
    let others = definitions.iter().filter(|definition| definition.kind != kind);
    let mut others = others.filter_map(|definition| Some((&definition.kind, place(definition)?)));
    let (other, place) = others.next()?;
    Some(format!("; it belongs in the {other}, at {place}"))
}

/// The paths at which maps of this schema have the field.
fn places(schema: &Json, path: &str, field: &str, depth: usize, found: &mut Vec<String>) {
    let Some(properties) = schema["properties"].as_object().filter(|_| depth < DEPTH_MAX) else {
        return;
    };
    for (name, child) in properties {
        let path = format!("{path}.{name}");
        // What is below a worker's container and a pod is Kubernetes' own.
        let is_ours = !matches!(path.as_str(), "spec.worker" | "spec.pod");
        if name == field {
            found.push(path);
        } else if is_ours {
            places(child, &path, field, depth + 1, found);
        } else {
            places(child, &path, field, DEPTH_MAX - 1, found);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::lint::testing::{pool, queue, said, worker};

    fn of_worker(more: &str) -> Vec<String> {
        said(&[queue("mail", ""), worker("w", &["mail"], more)])
    }

    #[test]
    fn a_field_in_the_wrong_place_is_told_where_it_belongs() {
        for (field, place) in [
            (
                "waitTargetSeconds: 5",
                "in the TaskQueue, at spec.waitTargetSeconds",
            ),
            ("pool: {name: db}", "in the TaskQueue, at spec.pool"),
            ("priority: {tier: Low}", "in the TaskQueue, at spec.priority"),
            ("guarantees: []", "in the Pool, at spec.guarantees"),
            ("policy: Backlog", "at spec.scaling.policy"),
            ("maxReplicas: 3", "at spec.scaling.maxReplicas"),
            ("concurrency: 3", "at spec.celery.concurrency"),
            ("nodeSelector: {}", "at spec.pod.nodeSelector"),
        ] {
            let name = field.split(':').next().unwrap();
            let words = format!("error: spec.{name}: unknown field; it belongs {place}");
            assert_eq!(of_worker(field), [words]);
        }
        assert_eq!(
            of_worker("scaling: {waitTargetSeconds: 5}"),
            [
                "error: spec.scaling.waitTargetSeconds: unknown field; it belongs in the TaskQueue, at spec.waitTargetSeconds"
            ]
        );
        assert_eq!(
            said(&[queue("mail", "policy: Backlog")]),
            ["error: spec.policy: unknown field; it belongs in the WorkerPool, at spec.scaling.policy"]
        );
        assert_eq!(
            said(&[pool("db", "slots: 1, slotsPerTask: 2")]),
            [
                "error: spec.slotsPerTask: unknown field; it belongs in the TaskQueue, at spec.pool.slotsPerTask"
            ]
        );
        assert_eq!(of_worker("nonsense: 1"), ["error: spec.nonsense: unknown field"]);
    }

    #[test]
    fn a_schedule_is_told_what_to_write() {
        let schedule = |cron: &str, zone: &str| {
            let schedule = format!(
                "{{name: day, cron: {cron:?}, timeZone: {zone:?}, durationSeconds: 60, minReplicas: 1}}"
            );
            of_worker(&format!("scaling: {{schedules: [{schedule}]}}")).concat()
        };
        assert_eq!(schedule("0 8 * * MON", "Europe/Berlin"), "");
        for (cron, hint) in [
            ("@daily", "; write 0 0 * * *"),
            ("@annually", "; write 0 0 1 1 *"),
            ("0 8 * * MONDAY", "; write MON in place of MONDAY"),
            ("0 8 * * mon-friday", "; write FRI in place of friday"),
            ("0 8 1 sept *", "; write SEP in place of sept"),
        ] {
            assert!(schedule(cron, "UTC").ends_with(hint), "{}", schedule(cron, "UTC"));
        }
        for (zone, hint) in [
            (
                "+01:00",
                "; write a name such as Europe/Berlin; all the year round +01:00 is Etc/GMT-1",
            ),
            (
                "UTC-5",
                "; write a name such as Europe/Berlin; all the year round -5 is Etc/GMT+5",
            ),
            ("+05:30", "; write a name such as Europe/Berlin"),
        ] {
            let found = schedule("0 8 * * *", zone);
            assert!(found.ends_with(hint), "{found}");
        }
    }

    #[test]
    fn a_path_is_not_repeated() {
        let schedule = "{name: day, cron: \"0 0 8 * * *\", durationSeconds: 60, minReplicas: 1}";
        assert_eq!(
            of_worker(&format!("scaling: {{schedules: [{schedule}]}}")),
            [
                "error: spec.scaling.schedules[0].cron: must have a cron of five fields with one space between them: \
                 minute, hour, day of month, month and day of week, such as 0 8 * * MON-FRI"
            ]
        );
    }
}
