//! The definitions' number rises whenever their schemas change: `operator/api/crd-versions` has a line for each number,
//! with a digest of the schemas that it stood for.
//!
//! `UPDATE=1` adds the line of a number that is raised. It never writes over one: what was once installed under a number
//! stays what that number means.

// The lint knows test functions, not their helpers.
#![allow(clippy::unwrap_used)]

use std::{fs, path::PathBuf};

use poolwright_api::CRD_VERSION;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

fn ledger() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("crd-versions")
}

/// What every number stood for, in the order of the lines.
fn lines() -> Vec<(u32, String)> {
    let text = fs::read_to_string(ledger()).unwrap_or_default();
    let entries = text.lines().filter(|line| !line.starts_with('#'));
    entries
        .map(|line| line.split_once(' ').unwrap())
        .map(|(number, digest)| (number.parse().unwrap(), digest.to_owned()))
        .collect()
}

/// Of what the API server makes of the definitions. Descriptions are no part of it: going back to other words loses
/// nothing, and a rollback should not be refused for them.
fn digest() -> String {
    let mut hash = Sha256::new();
    for (_, crd) in poolwright_api::crds() {
        let mut spec = serde_json::to_value(&crd.spec).unwrap();
        drop_descriptions(&mut spec);
        hash.update(spec.to_string());
    }
    format!("{:x}", hash.finalize())
}

/// A field of the name `description` has a schema, and stays.
fn drop_descriptions(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(drop_descriptions),
        Value::Object(map) => {
            if map.get("description").is_some_and(Value::is_string) {
                map.remove("description");
            }
            map.values_mut().for_each(drop_descriptions);
        }
        _ => {}
    }
}

#[test]
fn the_number_rises_when_a_schema_changes() {
    let digest = digest();
    let update = std::env::var_os("UPDATE").is_some_and(|value| value == "1");
    let newest = lines().last().map_or(0, |(number, _)| *number);
    if update && CRD_VERSION > newest {
        let text = fs::read_to_string(ledger()).unwrap();
        fs::write(ledger(), format!("{text}{CRD_VERSION} {digest}\n")).unwrap();
    }
    let lines = lines();
    assert!(
        lines.iter().zip(1..).all(|((number, _), at)| *number == at),
        "{lines:?}"
    );
    let (number, known) = lines.last().unwrap();
    assert!(
        *number == CRD_VERSION,
        "CRD_VERSION is {CRD_VERSION} and crd-versions ends with {number}: run `UPDATE=1 cargo test -p poolwright-api`"
    );
    assert!(
        *known == digest,
        "the schemas are no longer those of number {CRD_VERSION}: raise CRD_VERSION in operator/api/src/crds.rs, then run \
         `UPDATE=1 cargo test -p poolwright-api`"
    );
}

#[test]
fn words_make_no_new_number() {
    let mut value =
        serde_json::json!({"description": "words", "properties": {"description": {"type": "string"}}});
    drop_descriptions(&mut value);
    let expected = serde_json::json!({"properties": {"description": {"type": "string"}}});
    assert_eq!(value, expected);
}
