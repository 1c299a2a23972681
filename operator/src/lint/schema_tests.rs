//! Every keyword of a structural schema, and that no other one is used.

use serde_json::json;

use super::*;
use crate::lint::document::parse;
use crate::lint::split::Start;

fn run(schema: &Json, text: &str) -> (Json, Vec<String>) {
    let node = parse(Start::default(), text).unwrap().unwrap();
    let (value, problems) = check(schema, &node, "spec");
    let texts = problems
        .iter()
        .map(|problem| {
            let Problem {
                path, place, message, ..
            } = problem;
            format!("{}:{} {path}: {message}", place.line, place.column)
        })
        .collect();
    (value, texts)
}

fn problem(schema: &Json, text: &str) -> String {
    let (_, mut problems) = run(schema, text);
    assert_eq!(problems.len(), 1, "{problems:?}");
    problems.remove(0)
}

fn of(field: &Json) -> Json {
    json!({ "type": "object", "properties": { "a": field } })
}

#[test]
fn types() {
    let integer = of(&json!({ "type": "integer" }));
    assert_eq!(
        problem(&integer, "a: x"),
        "1:4 spec.a: must be a whole number, is text"
    );
    assert_eq!(
        problem(&integer, "a: 1.5"),
        "1:4 spec.a: must be a whole number, is a number"
    );
    assert_eq!(run(&integer, "a: 1.0"), (json!({ "a": 1 }), vec![]));
    assert_eq!(
        problem(&integer, "a: \"1\""),
        "1:4 spec.a: must be a whole number, is text: remove the quotes"
    );
    let boolean = of(&json!({ "type": "boolean" }));
    assert_eq!(
        problem(&boolean, "a: 'true'"),
        "1:4 spec.a: must be true or false, is text: remove the quotes"
    );
    let text = of(&json!({ "type": "string" }));
    assert_eq!(
        problem(&text, "a: 1"),
        "1:4 spec.a: must be text, is a number: put it in quotes"
    );
    assert_eq!(problem(&text, "a: [b]"), "1:4 spec.a: must be text, is a list");
    let either = of(&json!({ "x-kubernetes-int-or-string": true }));
    assert_eq!(run(&either, "a: 1").1, Vec::<String>::new());
    assert_eq!(run(&either, "a: 500m").1, Vec::<String>::new());
    assert_eq!(
        problem(&either, "a: true"),
        "1:4 spec.a: must be a whole number or text, is true or false"
    );
    assert_eq!(
        problem(&either, "a: 0.5"),
        "1:4 spec.a: must be a whole number or text, is a number: put it in quotes"
    );
    let quantity = of(&json!({ "x-kubernetes-int-or-string": true, "pattern": "^[0-9]+m?$" }));
    assert_eq!(run(&quantity, "a: 500m\n").1, Vec::<String>::new());
    assert_eq!(run(&quantity, "a: 2").1, Vec::<String>::new());
    assert_eq!(
        problem(&quantity, "a: four"),
        "1:4 spec.a: must be a Kubernetes quantity, such as 2, 500m or 1Gi"
    );
}

#[test]
fn bounds() {
    let number = of(&json!({ "type": "integer", "format": "int32", "minimum": 1, "maximum": 64 }));
    assert_eq!(problem(&number, "a: 65"), "1:4 spec.a: must be 1 to 64, is 65");
    for large in [
        "99999999999999999999",
        "1e30",
        "-99999999999999999999999999999999999999999999",
    ] {
        assert_eq!(
            problem(&number, &format!("a: {large}")),
            "1:4 spec.a: must be 1 to 64"
        );
    }
    let open = of(&json!({ "type": "integer", "format": "int32", "minimum": 0 }));
    assert_eq!(
        problem(&open, "a: 3000000000"),
        "1:4 spec.a: must be 0 to 2147483647, is 3000000000"
    );
    for (format, words) in [
        ("int32", "-2147483648 to 2147483647"),
        ("int64", "-9223372036854775808 to 9223372036854775807"),
    ] {
        let any = of(&json!({ "type": "integer", "format": format }));
        assert_eq!(
            problem(&any, "a: 9223372036854775808"),
            format!("1:4 spec.a: must be {words}")
        );
    }
    let text = of(&json!({ "type": "string", "minLength": 1, "maxLength": 2 }));
    assert_eq!(
        problem(&text, "a: äöü"),
        "1:4 spec.a: must have 1 to 2 characters, has 3"
    );
    let list = of(&json!({ "type": "array", "maxItems": 1, "items": { "type": "integer" } }));
    assert_eq!(
        problem(&list, "a: [1, 2]"),
        "1:4 spec.a: must have at most 1 entries, has 2"
    );
    let pattern = of(&json!({ "type": "string", "pattern": "^[a-z]+$" }));
    assert_eq!(problem(&pattern, "a: s3cret"), "1:4 spec.a: must match ^[a-z]+$");
    let names = of(&json!({ "type": "string", "enum": ["Prefork", "Gevent"] }));
    assert_eq!(
        problem(&names, "a: prefrok"),
        "1:4 spec.a: must be one of Prefork, Gevent, is \"prefrok\"; is Prefork meant?"
    );
}

#[test]
fn members() {
    let schema = json!({
        "type": "object",
        "required": ["name"],
        "properties": {
            "name": { "type": "string" },
            "mode": { "type": "string", "default": "Auto" },
            "labels": { "type": "object", "additionalProperties": { "type": "string" } },
        },
    });
    assert_eq!(problem(&schema, "mode: x"), "1:1 spec.name: is required");
    assert_eq!(
        problem(&schema, "name: x\nmodee: y"),
        "2:1 spec.modee: unknown field; is mode meant?"
    );
    assert_eq!(run(&schema, "name: x").0, json!({ "name": "x", "mode": "Auto" }));
    let (value, problems) = run(&schema, "name: x\nmode:\n");
    assert_eq!(value["mode"], "Auto");
    assert_eq!(
        problems,
        ["2:1 spec.mode: has no value: the server takes it as absent"]
    );
    let (value, problems) = run(&schema, "name: x\nlabels: {a: , b: c}\n");
    assert_eq!(value["labels"], json!({ "b": "c" }));
    assert_eq!(
        problems,
        ["2:10 spec.labels.a: has no value: the server takes it as absent"]
    );
    assert_eq!(
        problem(&schema, "name: x\nlabels:\n  a.b/c: 1"),
        "3:10 spec.labels[a.b/c]: must be text, is a number: put it in quotes"
    );
}

#[test]
fn lists_without_repetition() {
    let item = json!({ "type": "object", "properties": { "name": { "type": "string" } } });
    let schema = of(&json!({
        "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"], "items": item,
    }));
    assert_eq!(
        problem(&schema, "a:\n- name: x\n- name: z\n- name: x\n"),
        "4:3 spec.a[2]: is the same as spec.a[0] in name"
    );
}

#[test]
fn every_keyword_of_our_definitions_is_known() {
    fn keywords(schema: &Json, found: &mut Vec<String>) {
        let Some(map) = schema.as_object() else { return };
        for (key, value) in map {
            found.push(key.clone());
            match key.as_str() {
                "properties" => value
                    .as_object()
                    .unwrap()
                    .values()
                    .for_each(|child| keywords(child, found)),
                "items" | "additionalProperties" => keywords(value, found),
                _ => {}
            }
        }
    }
    let mut found = Vec::new();
    for (_, crd) in poolwright_api::crds() {
        keywords(
            &super::super::kinds::schema(&serde_json::to_value(&crd).unwrap()).unwrap(),
            &mut found,
        );
    }
    found.retain(|keyword| !KEYWORDS.contains(&keyword.as_str()));
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn every_pattern_of_our_definitions_compiles() {
    fn patterns(schema: &Json, count: &mut usize) {
        if let Some(pattern) = schema.get("pattern").and_then(Json::as_str) {
            Regex::new(pattern).unwrap();
            *count += 1;
        }
        match schema {
            Json::Object(map) => map.values().for_each(|child| patterns(child, count)),
            Json::Array(items) => items.iter().for_each(|child| patterns(child, count)),
            _ => {}
        }
    }
    let mut count = 0;
    for (_, crd) in poolwright_api::crds() {
        patterns(
            &super::super::kinds::schema(&serde_json::to_value(&crd).unwrap()).unwrap(),
            &mut count,
        );
    }
    assert!(count > 10);
}
