//! Pools that overlap by their names.
//!
//! A pool limits one real resource. Two pools for one resource let tasks take the slots of both, and a name that says no
//! resource gathers tasks that have nothing in common. Whether two names mean the same is a guess, so these are advice.

use std::collections::BTreeMap;

use poolwright_api::v1alpha1::DEFAULT_AIRFLOW_POOL;

use super::super::{Finding, Severity};
use super::few;
use super::pools::{Known, Pools};

/// Words that name a kind of thing and no thing.
const GENERIC: [&str; 14] = [
    "api", "common", "database", "db", "default", "external", "general", "generic", "internal", "limited",
    "misc", "other", "resource", "shared",
];
/// Words of a longer name are not looked at, which bounds the work.
const WORDS_MAX: usize = 16;

/// What is found about the names.
pub fn overlaps(pools: &Pools) -> Vec<Finding> {
    let mut by_words: BTreeMap<Vec<String>, Vec<&str>> = BTreeMap::new();
    // Airflow has named that one.
    let named = || {
        let all = pools.by_name.iter().map(|(name, known)| (name.as_str(), known));
        all.filter(|(name, _)| *name != DEFAULT_AIRFLOW_POOL)
    };
    for (name, _) in named() {
        by_words.entry(words(name)).or_default().push(name);
    }
    let mut around: BTreeMap<&str, Vec<(&str, &Known)>> = BTreeMap::new();
    for (long, known) in named() {
        for short in parts(&words(long))
            .iter()
            .filter_map(|part| by_words.get(*part))
            .flatten()
        {
            // Of two names with the same words the first is told.
            if words(short).len() < words(long).len() || *short < long {
                around.entry(short).or_default().push((long, known));
            }
        }
    }
    let finding = |(name, known): (&str, &Known)| match around.get(name) {
        Some(others) => Some(known.find(Severity::Warning, &overlapping(name, known, others))),
        None => is_generic(name).then(|| known.find(Severity::Note, &generic(name))),
    };
    named().filter_map(finding).collect()
}

fn overlapping(name: &str, known: &Known, others: &[(&str, &Known)]) -> String {
    let names: Vec<String> = others
        .iter()
        .map(|(other, known)| format!("{other:?} ({})", known.position()))
        .collect();
    let slots = others.iter().map(|(_, other)| other.slots);
    let sum = slots
        .chain([known.slots])
        .try_fold(0_u64, |sum, slots| Some(sum.saturating_add(slots?)));
    let sum = sum.map_or_else(
        || "more than one of them says".to_owned(),
        |sum| format!("{sum} slots"),
    );
    format!(
        "pool {name:?} overlaps {} by its name: if they stand for one resource, tasks take {sum} of it; keep one pool for \
         each real resource, and call each after its own",
        few(&names)
    )
}

fn generic(name: &str) -> String {
    format!(
        "pool {name:?} has the name of no resource: tasks that share nothing wait for each other in it, and others of the \
         same resource do not; make one pool for each real resource, such as postgres_analytics"
    )
}

fn is_generic(name: &str) -> bool {
    match words(name).as_slice() {
        [word] => GENERIC
            .iter()
            .any(|generic| word == generic || word.strip_suffix('s') == Some(generic)),
        _ => false,
    }
}

/// The words of a name, but for `pool`, which every pool could have in its name.
fn words(name: &str) -> Vec<String> {
    name.split(|c: char| !c.is_alphanumeric())
        .map(str::to_lowercase)
        .filter(|word| !matches!(word.as_str(), "" | "pool" | "pools"))
        .take(WORDS_MAX)
        .collect()
}

/// All that can be cut out of these words in one piece, themselves included.
fn parts(words: &[String]) -> Vec<&[String]> {
    let starts = 0..words.len();
    starts
        .flat_map(|from| (from + 1..=words.len()).filter_map(move |to| words.get(from..to)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{pools, said};

    fn found(named: &[(&str, i32)]) -> Vec<String> {
        said(&[], &pools(named), "")
    }

    #[test]
    fn a_name_that_is_part_of_another_is_told_with_the_sum() {
        assert_eq!(
            found(&[
                ("database", 15),
                ("database_connections", 10),
                ("read-database", 2)
            ]),
            [
                "warning: \"database\".slots: pool \"database\" overlaps \"database_connections\" (pools.json:3) and \
                 \"read-database\" (pools.json:4) by its name: if they stand for one resource, tasks take 27 slots of it; \
                 keep one pool for each real resource, and call each after its own"
            ]
        );
        let unlimited = found(&[("s3", -1), ("s3_downloads", 10)]).concat();
        assert!(
            unlimited.contains("tasks take more than one of them says of it"),
            "{unlimited}"
        );
        let same = found(&[("mail", 1), ("mail_pool", 2)]);
        assert_eq!(same.len(), 1, "{same:?}");
        assert!(
            same[0].contains("pool \"mail\" overlaps \"mail_pool\""),
            "{same:?}"
        );
    }

    #[test]
    fn names_of_resources_are_apart() {
        let good = [
            ("postgres_analytics", 5),
            ("postgres_production", 10),
            ("s3_downloads", 20),
            ("api_partner_x", 3),
        ];
        assert_eq!(found(&good), [""; 0]);
        assert_eq!(
            found(&[("mail", 1), ("mailing", 2), ("default_pool", 128), ("pool", 3)]),
            [""; 0]
        );
    }

    #[test]
    fn a_name_of_no_resource_is_a_note() {
        for name in [
            "database",
            "external",
            "limited",
            "API",
            "shared_pool",
            "resources",
        ] {
            let said = found(&[(name, 5)]).concat();
            assert!(
                said.starts_with(&format!("note: {name:?}.slots: pool {name:?} has the name of no")),
                "{said}"
            );
        }
        assert_eq!(
            found(&[("external_payments", 5), ("database_connections", 5)]),
            [""; 0]
        );
    }
}
