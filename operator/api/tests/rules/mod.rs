//! Schemas of the resources, and their rules, tried one by one: a table of what each accepts and refuses.

#![allow(dead_code, reason = "each test binary uses a part")]

use kube::core::cel::Validator;
use serde_json::{Value, json};

/// One rule: the start of its message, a patch it accepts, a patch it refuses.
pub struct Row {
    message: &'static str,
    accepts: Value,
    refuses: Value,
}

/// A row of the table.
pub fn row(message: &'static str, accepts: Value, refuses: Value) -> Row {
    Row {
        message,
        accepts,
        refuses,
    }
}

/// The schema of one kind.
pub fn schema(kind: &str) -> Value {
    let (_, crd) = poolwright_api::crds()
        .into_iter()
        .find(|(_, crd)| crd.spec.names.kind == kind)
        .unwrap();
    let schema = crd.spec.versions[0]
        .schema
        .clone()
        .unwrap()
        .open_api_v3_schema
        .unwrap();
    serde_json::to_value(schema).unwrap()
}

fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    let map = target.as_object_mut().unwrap();
    for (key, value) in patch {
        if value.is_null() {
            map.remove(key);
        } else {
            merge(map.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}

/// What the rules say of `base` with `patch` merged over it.
pub fn messages(schema: &Value, base: &Value, patch: &Value) -> Vec<String> {
    let mut object = base.clone();
    merge(&mut object, patch);
    match Validator::new().validate_with_defaults(schema, &object, None) {
        Ok(()) => Vec::new(),
        Err(errors) => errors.into_vec().into_iter().map(|error| error.message).collect(),
    }
}

/// Shows every rule of a schema, with its message.
pub fn each_rule(schema: &Value, show: &mut impl FnMut(&Value, &str)) {
    match schema {
        Value::Object(map) => {
            let rules = map.get("x-kubernetes-validations").and_then(Value::as_array);
            for rule in rules.into_iter().flatten() {
                // An expression begins with its fixed words.
                let words = rule["message"].as_str();
                let words = words.or_else(|| rule["messageExpression"].as_str());
                show(rule, words.unwrap_or_default().trim_start_matches('\''));
            }
            map.values().for_each(|value| each_rule(value, show));
        }
        Value::Array(items) => items.iter().for_each(|value| each_rule(value, show)),
        _ => {}
    }
}

/// Every row holds, and every rule of the kind has one.
pub fn check(kind: &str, base: &Value, rows: &[Row]) {
    let schema = schema(kind);
    assert_eq!(
        messages(&schema, base, &json!({})),
        Vec::<String>::new(),
        "the base object must be valid"
    );
    for Row {
        message,
        accepts,
        refuses,
    } in rows
    {
        assert_eq!(
            messages(&schema, base, accepts),
            Vec::<String>::new(),
            "{message}: {accepts} must be accepted"
        );
        let found = messages(&schema, base, refuses);
        assert!(
            found.len() == 1 && found[0].starts_with(message),
            "{message}: {refuses} must be refused by this rule alone, found {found:?}"
        );
    }
    let mut all: Vec<String> = Vec::new();
    each_rule(&schema, &mut |_, message| all.push(message.to_owned()));
    assert!(!all.is_empty());
    for message in all {
        assert!(
            rows.iter().any(|row| message.starts_with(row.message)),
            "no row for the rule {message:?}"
        );
    }
}
