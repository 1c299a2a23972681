//! What is valid, and hardly what was meant.

use poolwright_api::{
    ANNOTATION_PAUSED, ANNOTATION_PAUSED_SCALE_IN, ANNOTATION_PAUSED_SCALE_OUT, ANNOTATION_RESTARTED_AT,
};

use super::objects::Read;
use super::workers::Worker;
use super::{Finding, Severity, names, schema};

/// Annotations of a WorkerPool that users write.
const KNOWN: [&str; 4] = [
    ANNOTATION_PAUSED,
    ANNOTATION_PAUSED_SCALE_IN,
    ANNOTATION_PAUSED_SCALE_OUT,
    ANNOTATION_RESTARTED_AT,
];

/// Values that look as if they ended a pause.
const NO: [&str; 8] = ["", "0", "false", "n", "no", "none", "off", "disabled"];

/// What one document means.
#[must_use]
pub fn check(read: &Read<'_>, all: &[Read<'_>]) -> Vec<Finding> {
    let mut findings = annotations(read);
    findings.extend(unconsumed(read, all));
    findings
}

/// Annotations that nobody reads, or that say the contrary of what they seem to.
fn annotations(read: &Read<'_>) -> Vec<Finding> {
    let metadata = read.node.get("metadata");
    let annotations = metadata.and_then(|metadata| metadata.get("annotations"));
    let entries = annotations.map_or(&[][..], |annotations| annotations.entries());
    let mut findings = Vec::new();
    for entry in entries {
        let path = schema::join("metadata.annotations", &entry.key);
        let mut warn = |words: &str| {
            let place = entry.place;
            findings.push(Finding::new(read.file, place, Severity::Warning, &path, words));
        };
        let value = entry.node.text().unwrap_or_default();
        let is_known = KNOWN.contains(&entry.key.as_str());
        if is_known && read.kind != "WorkerPool" {
            warn("has no effect here: it belongs to a WorkerPool");
        } else if is_known && entry.key != ANNOTATION_RESTARTED_AT {
            if value != "false" && NO.contains(&value.to_lowercase().as_str()) {
                warn(&format!(
                    "{value:?} pauses, as any value but \"false\" does: write \"false\", or remove it"
                ));
            }
        } else if let Some(meant) = meant(&entry.key) {
            warn(&format!("is read by nobody; is {meant} meant?"));
        }
    }
    findings
}

/// The annotation that one of a similar name under a similar domain may be meant to be.
fn meant(key: &str) -> Option<&'static str> {
    let (domain, name) = key.rsplit_once('/')?;
    if KNOWN.contains(&key) || !domain.contains("poolwright") {
        return None;
    }
    let names = KNOWN.iter().filter_map(|known| Some(known.rsplit_once('/')?.1));
    let near = schema::similar(name, names)?;
    KNOWN
        .into_iter()
        .find(|known| known.ends_with(&format!("/{near}")))
}

/// A TaskQueue that none of the WorkerPools beside it consumes.
fn unconsumed(read: &Read<'_>, all: &[Read<'_>]) -> Option<Finding> {
    if read.kind != "TaskQueue" || read.name.is_empty() {
        return None;
    }
    let near = all
        .iter()
        .filter(|other| other.kind == "WorkerPool" && other.namespace == read.namespace);
    let mut pools = near.map(names::named).peekable();
    pools.peek()?;
    let consumed = pools.flatten().any(|(_, _, name)| name == read.name);
    let words = "no WorkerPool of these files consumes it: its tasks wait until some WorkerPool does";
    (!consumed).then(|| read.find(Severity::Note, "metadata.name", words))
}

/// A hold above the bound that it passes.
#[must_use]
pub fn hold(worker: &Worker<'_>) -> Option<Finding> {
    let (hold, max) = (worker.pool.hold?, worker.pool.max);
    let words = format!(
        "is {hold}, above spec.scaling.maxReplicas ({max}): it is a hold, which passes both bounds and lasts until it is \
         removed; remove it to let the demand decide"
    );
    (hold > max).then(|| worker.read.find(Severity::Note, "spec.replicas", &words))
}

#[cfg(test)]
mod tests {
    use crate::lint::testing::{queue, said, worker};

    fn annotated(annotation: &str) -> String {
        let named = format!("name: w, annotations: {{{annotation}}}}}");
        let manifests = [
            queue("mail", ""),
            worker("w", &["mail"], "").replace("name: w}", &named),
        ];
        said(&manifests).concat()
    }

    #[test]
    fn an_annotation_that_is_nearly_known_is_asked_after() {
        for (key, meant) in [
            ("poolwright.dev/pause", "poolwright.dev/paused"),
            ("poolwright.io/paused", "poolwright.dev/paused"),
            ("poolwright.dev/paused-scalein", "poolwright.dev/paused-scale-in"),
            ("poolwright.dev/restart-at", "poolwright.dev/restarted-at"),
        ] {
            let words = format!("warning: metadata.annotations[{key}]: is read by nobody; is {meant} meant?");
            assert_eq!(annotated(&format!("{key}: \"true\"")), words);
        }
        for key in [
            "poolwright.dev/paused",
            "example.com/pause",
            "poolwright.dev/owner",
            "pause",
        ] {
            assert_eq!(annotated(&format!("{key}: \"true\"")), "", "{key}");
        }
    }

    #[test]
    fn a_value_that_does_not_end_a_pause_is_told() {
        let words = |value: &str| annotated(&format!("poolwright.dev/paused-scale-out: {value:?}"));
        assert_eq!(
            words("no"),
            "warning: metadata.annotations[poolwright.dev/paused-scale-out]: \"no\" pauses, as any value but \"false\" \
             does: write \"false\", or remove it"
        );
        for value in ["False", "off", "0", ""] {
            assert!(words(value).contains("pauses, as any value"), "{value}");
        }
        for value in ["true", "false", "yes", "since Monday"] {
            assert_eq!(words(value), "", "{value}");
        }
    }

    #[test]
    fn a_pause_belongs_to_a_worker_pool() {
        let paused = queue("mail", "").replace(
            "name: mail}",
            "name: mail, annotations: {poolwright.dev/paused: \"true\"}}",
        );
        let found = said(&[paused]).concat();
        assert!(
            found.ends_with("has no effect here: it belongs to a WorkerPool"),
            "{found}"
        );
    }

    #[test]
    fn a_queue_that_nobody_consumes_is_told_beside_worker_pools() {
        let lonely = queue("reports", "");
        assert_eq!(said(std::slice::from_ref(&lonely)), [""; 0]);
        let workers = [queue("mail", ""), worker("w", &["mail"], "")];
        let mut all = workers.to_vec();
        all.push(lonely);
        assert_eq!(
            said(&all),
            [
                "note: metadata.name: no WorkerPool of these files consumes it: its tasks wait until some WorkerPool does"
            ]
        );
        all[2] = all[2].replace("name: reports}", "name: reports, namespace: other}");
        assert_eq!(said(&all), [""; 0]);
    }

    #[test]
    fn a_hold_above_the_bounds_is_told() {
        let held = |replicas: i32| {
            said(&[
                queue("mail", ""),
                worker("w", &["mail"], &format!("replicas: {replicas}")),
            ])
            .concat()
        };
        assert_eq!(held(10), "");
        assert!(
            held(11).starts_with("note: spec.replicas: is 11, above spec.scaling.maxReplicas (10)"),
            "{}",
            held(11)
        );
    }
}
