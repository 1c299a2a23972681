//! What a careful reader checks in a resource definition, over the text that is installed.
//!
//! Members of embedded Kubernetes types are Kubernetes' own and are not checked.

// The lint knows test functions, not their helpers.
#![allow(clippy::unwrap_used)]

mod rules;

use std::collections::BTreeMap;

use rules::each_rule;
use serde_json::Value;

/// Fields whose members are Kubernetes' own.
const EMBEDDED: [&str; 12] = [
    "affinity",
    "env",
    "envFrom",
    "imagePullSecrets",
    "initContainers",
    "resources",
    "securityContext",
    "sidecars",
    "tolerations",
    "topologySpreadConstraints",
    "volumeMounts",
    "volumes",
];
/// Switches that stay switches: each is a yes or no for good.
const BOOLEANS: [&str; 3] = [
    ".spec.airflow.tls.insecureSkipVerify",
    ".spec.includeDeferred",
    ".spec.broker.tls.insecureSkipVerify",
];
/// Numbers that may have any value: a reading is shown as it was read.
const UNBOUNDED: [&str; 1] = [".status.lastDecision.inputs[].value"];

/// One of our own fields.
struct Field {
    /// From the root, such as `.spec.queues[].name`.
    path: String,
    /// Last part of the path; empty for an item of a list.
    name: String,
    schema: Value,
    /// Whether its parent requires it.
    required: bool,
}

impl Field {
    fn text(&self, key: &str) -> &str {
        self.schema[key].as_str().unwrap_or_default()
    }

    fn is_spec(&self) -> bool {
        self.path.starts_with(".spec.")
    }
}

struct Definition {
    kind: String,
    value: Value,
    fields: Vec<Field>,
}

impl Definition {
    fn version(&self) -> &Value {
        &self.value["spec"]["versions"][0]
    }

    fn root(&self) -> &Value {
        &self.version()["schema"]["openAPIV3Schema"]
    }
}

fn definitions() -> Vec<Definition> {
    poolwright_api::crds()
        .into_iter()
        .map(|(_, crd)| {
            let text = poolwright_api::to_yaml(&crd).unwrap();
            let value: Value = serde_saphyr::from_str(&text).unwrap();
            let mut fields = Vec::new();
            collect(
                "",
                &value["spec"]["versions"][0]["schema"]["openAPIV3Schema"],
                &mut fields,
            );
            Definition {
                kind: crd.spec.names.kind,
                value,
                fields,
            }
        })
        .collect()
}

fn collect(path: &str, schema: &Value, fields: &mut Vec<Field>) {
    let required = |name: &str| {
        schema["required"]
            .as_array()
            .is_some_and(|names| names.iter().any(|n| n == name))
    };
    for (name, member) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        let required = required(name);
        fields.push(Field {
            path: path.clone(),
            name: name.clone(),
            schema: member.clone(),
            required,
        });
        if !EMBEDDED.contains(&name.as_str()) {
            collect(&path, member, fields);
        }
    }
    if let Some(items) = schema.get("items") {
        let path = format!("{path}[]");
        fields.push(Field {
            path: path.clone(),
            name: String::new(),
            schema: items.clone(),
            required: true,
        });
        collect(&path, items, fields);
    }
}

/// Every own field for which `fault` finds something, as `path: fault`.
fn faults(fault: impl Fn(&Field) -> Option<String>) -> Vec<String> {
    let mut found = Vec::new();
    for definition in definitions() {
        assert!(definition.fields.len() > 30, "the walk found too little");
        for field in &definition.fields {
            if let Some(text) = fault(field) {
                found.push(format!("{}{}: {text}", definition.kind, field.path));
            }
        }
    }
    found
}

fn fault(condition: bool, text: &str) -> Option<String> {
    condition.then(|| text.to_owned())
}

#[track_caller]
fn none(found: &[String]) {
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn status_is_a_subresource_and_says_nothing_by_phase() {
    for definition in definitions() {
        assert!(
            definition.version()["subresources"]["status"].is_object(),
            "{}",
            definition.kind
        );
    }
    none(&faults(|field| {
        fault(field.name == "phase", "say it by conditions")
    }));
}

#[test]
fn conditions_are_a_map_by_type_with_observed_generations() {
    for definition in definitions() {
        let status = &definition.root()["properties"]["status"]["properties"];
        let conditions = &status["conditions"];
        assert_eq!(conditions["x-kubernetes-list-type"], "map", "{}", definition.kind);
        assert_eq!(
            conditions["x-kubernetes-list-map-keys"],
            serde_json::json!(["type"]),
            "{}",
            definition.kind
        );
        assert!(
            conditions["items"]["properties"]["observedGeneration"].is_object(),
            "{}",
            definition.kind
        );
        assert!(status["observedGeneration"].is_object(), "{}", definition.kind);
    }
}

#[test]
fn numbers_are_signed_bounded_integers() {
    none(&faults(|field| match field.text("type") {
        "number" => Some("no floats".to_owned()),
        "integer" => {
            let format = field.text("format");
            let bounded = field.schema["minimum"].is_i64() || UNBOUNDED.contains(&field.path.as_str());
            let bounded = bounded && (!field.is_spec() || field.schema["maximum"].is_i64());
            fault(
                !matches!(format, "int32" | "int64") || !bounded,
                "int32 or int64, with bounds",
            )
        }
        _ => None,
    }));
}

#[test]
fn strings_and_lists_and_maps_are_bounded() {
    none(&faults(|field| {
        let has = |key: &str| field.schema[key].is_u64() || field.schema[key].is_i64();
        match field.text("type") {
            "string" => fault(!has("maxLength") && !field.schema["enum"].is_array(), "maxLength"),
            "array" => fault(!has("maxItems"), "maxItems"),
            "object" if field.schema["additionalProperties"].is_object() => {
                fault(!has("maxProperties"), "maxProperties")
            }
            _ => None,
        }
    }));
}

/// Otherwise the API server stores a word where a quantity belongs, and the Deployment is refused.
#[test]
fn quantities_have_a_form() {
    /// Every quantity, and whether it has a form. A port is the only other value that may be text.
    fn walk(name: &str, path: &str, schema: &Value, found: &mut Vec<(String, bool)>) {
        if schema["x-kubernetes-int-or-string"] == true && name != "port" {
            found.push((path.to_owned(), schema["pattern"].is_string()));
        }
        for (key, child) in schema.as_object().into_iter().flatten() {
            walk(key, &format!("{path}.{key}"), child, found);
        }
    }
    let mut found = Vec::new();
    for definition in definitions() {
        walk("", "", definition.root(), &mut found);
    }
    assert!(found.len() >= 10, "the walk found too little");
    found.retain(|(_, has_form)| !has_form);
    none(&found.into_iter().map(|(path, _)| path).collect::<Vec<_>>());
}

#[test]
fn maps_hold_text_and_lists_have_a_type() {
    none(&faults(|field| {
        let values = &field.schema["additionalProperties"];
        if values.is_object() && (values["type"] != "string" || !values["maxLength"].is_i64()) {
            return Some("a map may hold bounded text only".to_owned());
        }
        let list_type = field.text("x-kubernetes-list-type");
        let keys = field.schema["x-kubernetes-list-map-keys"].is_array();
        match field.text("type") {
            "array" => fault(
                !matches!(list_type, "map" | "set" | "atomic") || (list_type == "map") != keys,
                "x-kubernetes-list-type, with keys for a map",
            ),
            _ => None,
        }
    }));
}

#[test]
fn values_of_enums_are_camel_case_and_booleans_are_few() {
    none(&faults(|field| {
        if field.schema["type"] == "boolean" && !BOOLEANS.contains(&field.path.as_str()) {
            return Some("think twice about a boolean, then list it here".to_owned());
        }
        let bad = field.schema["enum"]
            .as_array()
            .into_iter()
            .flatten()
            .any(|value| {
                let text = value.as_str().unwrap_or_default();
                !text.starts_with(|c: char| c.is_ascii_uppercase())
                    || !text.chars().all(|c| c.is_ascii_alphanumeric())
            });
        fault(bad, "CamelCase")
    }));
}

#[test]
fn durations_are_integers_named_seconds() {
    none(&faults(|field| {
        let spoken = field.text("description").contains("in seconds");
        let named = field.name.ends_with("Seconds");
        let suspicious = [
            "Timeout",
            "Delay",
            "Duration",
            "Interval",
            "Period",
            "After",
            "TimeLimit",
        ]
        .iter()
        .any(|suffix| field.name.ends_with(suffix));
        fault(
            suspicious || spoken != named || (named && field.schema["type"] != "integer"),
            "an integer …Seconds whose description says `in seconds`",
        )
    }));
}

#[test]
fn absent_is_absent_and_status_is_optional() {
    none(&faults(|field| {
        let null_default = field.schema.get("default").is_some_and(Value::is_null);
        fault(field.schema.get("nullable").is_some() || null_default, "no nulls")
    }));
    for definition in definitions() {
        assert!(
            definition.root()["properties"]["status"]
                .get("required")
                .is_none(),
            "{}",
            definition.kind
        );
    }
}

#[test]
fn rules_have_messages_that_begin_with_the_field() {
    for definition in definitions() {
        let mut found = Vec::new();
        each_rule(definition.root(), &mut |rule, message| {
            if !message.starts_with("spec.") && !message.starts_with("metadata.") {
                found.push(format!("{}: {message:?}", rule["rule"]));
            }
        });
        none(&found);
    }
}

#[test]
fn references_are_objects_with_a_name() {
    none(&faults(|field| {
        let named = field.schema["properties"]["name"]["type"] == "string";
        fault(field.name.ends_with("Ref") && !named, "an object with a name")
    }));
}

#[test]
fn names_columns_and_scale() {
    let all: BTreeMap<String, Definition> = definitions().into_iter().map(|d| (d.kind.clone(), d)).collect();
    let expected = [
        ("Pool", None, "Slots Running Queued Open Util (Scheduled) Age"),
        (
            "TaskQueue",
            Some("tq"),
            "Broker Ready Reserved Consumers Ready-Cond (Reason) Age",
        ),
        (
            "WorkerPool",
            Some("wp"),
            "Queues Desired Ready Busy Queued Min Max Ready-Cond Reason (Parked) Age",
        ),
    ];
    assert_eq!(all.len(), expected.len());
    for (kind, short, columns) in expected {
        let definition = &all[kind];
        let names = &definition.value["spec"]["names"];
        let short = short.map_or(Value::Null, |short| serde_json::json!([short]));
        assert_eq!(names["shortNames"], short);
        assert_eq!(names["categories"], serde_json::json!([poolwright_api::CATEGORY]));
        assert_eq!(definition.value["spec"]["group"], poolwright_api::GROUP);
        assert_eq!(definition.value["spec"]["scope"], "Namespaced");
        // In parentheses: with `-o wide` only.
        let found: Vec<String> = definition.version()["additionalPrinterColumns"]
            .as_array()
            .unwrap()
            .iter()
            .map(
                |column| match (column["name"].as_str().unwrap(), &column["priority"]) {
                    (name, Value::Number(priority)) if priority.as_i64() > Some(0) => format!("({name})"),
                    (name, _) => name.to_owned(),
                },
            )
            .collect();
        assert_eq!(found.join(" "), columns);
    }
    assert_eq!(
        all["WorkerPool"].version()["subresources"]["scale"],
        serde_json::json!({
            "specReplicasPath": ".spec.replicas",
            "statusReplicasPath": ".status.replicas",
            "labelSelectorPath": ".status.selector",
        })
    );
}

#[test]
fn columns_and_scale_point_at_fields() {
    for definition in definitions() {
        let columns = definition.version()["additionalPrinterColumns"]
            .as_array()
            .unwrap()
            .iter();
        let scale = definition.version()["subresources"]["scale"]
            .as_object()
            .into_iter()
            .flatten();
        let paths = columns
            .map(|column| &column["jsonPath"])
            .chain(scale.map(|(_, path)| path));
        for path in paths.map(|path| path.as_str().unwrap()) {
            let field = path.replace("[?(@.type==\"Ready\")]", "[]");
            let known = field.starts_with(".metadata.") || definition.fields.iter().any(|f| f.path == field);
            assert!(known, "{}: {path} is no field", definition.kind);
        }
    }
}

#[test]
fn one_version_is_served_and_stored() {
    for definition in definitions() {
        let versions = definition.value["spec"]["versions"].as_array().unwrap();
        assert_eq!(versions.len(), 1);
        assert_eq!(versions[0]["name"], poolwright_api::VERSION);
        assert_eq!(
            (&versions[0]["served"], &versions[0]["storage"]),
            (&Value::Bool(true), &Value::Bool(true))
        );
    }
}

#[test]
fn definitions_are_small_enough_for_a_client_side_apply() {
    for definition in definitions() {
        let bytes = serde_json::to_string(&definition.value).unwrap().len();
        assert!(bytes < 100_000, "{}: {bytes} bytes", definition.kind);
    }
}

#[test]
fn descriptions_begin_with_the_name_and_tell_default_and_bounds() {
    none(&faults(|field| {
        let text = field.text("description");
        if field.name.is_empty() || matches!(field.name.as_str(), "apiVersion" | "kind" | "metadata") {
            return None;
        }
        let rest = text.strip_prefix(&field.name).unwrap_or_default();
        if !rest.starts_with([' ', '.', ',']) || !text.ends_with('.') || text.contains('`') {
            return Some(format!(
                "begin with the JSON name, end with a full stop, no back-ticks: {text:?}"
            ));
        }
        if field.is_spec() && !field.required && !text.contains("Default") && !text.contains("equired") {
            return Some(format!("say the default: {text:?}"));
        }
        let bound = ["maximum", "maxItems"]
            .iter()
            .find_map(|key| field.schema[*key].as_i64());
        let bound = bound
            .map(with_commas)
            .filter(|bound| !text.contains(bound.as_str()));
        bound
            .filter(|_| field.is_spec())
            .map(|bound| format!("say the bound {bound}: {text:?}"))
    }));
}

fn with_commas(number: i64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
