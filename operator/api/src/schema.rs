//! Schema fragments for embedded Kubernetes types, and the final cleaning of a generated schema.
//!
//! Kubernetes describes its own types at length; four copies of a container would take a CRD past what client-side
//! `kubectl apply` can store. So embedded types keep their structure and lose their descriptions.

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value, json};

/// Form of a quantity that is written as text, as Kubernetes' own generator of definitions has it.
const QUANTITY: &str = r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$";

/// Fields of embedded types that are quantities; all values of a map that may be whole numbers or text are, too.
const QUANTITIES: [&str; 2] = ["divisor", "sizeLimit"];

/// Schema of an embedded Kubernetes type without its descriptions, and with the form of quantities.
#[must_use]
pub fn embedded<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    let mut value = generator.subschema_for::<T>().to_value();
    strip_descriptions(&mut value);
    bound_quantities(&mut value);
    Schema::try_from(value).unwrap_or_default()
}

/// Schema of a list of at most `MAX` embedded Kubernetes objects, atomic unless the field says otherwise.
#[must_use]
pub fn list<T: JsonSchema, const MAX: usize>(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "items": embedded::<T>(generator),
        "maxItems": MAX,
        "x-kubernetes-list-type": "atomic",
    })
}

/// Like [`list`], of objects whose `name` is bounded so that rules over the list stay within the API server's budget.
#[must_use]
pub fn named_list<T: JsonSchema, const MAX: usize, const NAME_MAX: usize>(
    generator: &mut SchemaGenerator,
) -> Schema {
    let mut schema = list::<T, MAX>(generator);
    if let Some(name) = schema
        .pointer_mut("/items/properties/name")
        .and_then(Value::as_object_mut)
    {
        name.insert("minLength".into(), json!(1));
        name.insert("maxLength".into(), json!(NAME_MAX));
    }
    schema
}

/// Schema of labels: at most 64, with values that Kubernetes accepts.
#[must_use]
pub fn labels(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 64,
        "additionalProperties": {
            "type": "string",
            "maxLength": 63,
            "pattern": "^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$",
        },
    })
}

/// Schema of annotations: at most 64 of at most 4,096 characters.
#[must_use]
pub fn annotations(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 64,
        "additionalProperties": { "type": "string", "maxLength": 4096 },
    })
}

/// Schema of a quantity that must be written as text with a unit.
#[must_use]
pub fn memory(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "minLength": 2, "maxLength": 32 })
}

/// Schema of a time.
#[must_use]
pub fn time(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "format": "date-time", "maxLength": 64 })
}

/// Schema of the standard list of conditions, with the bounds that Kubernetes documents for each member.
#[must_use]
pub fn conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 16,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["type", "status", "lastTransitionTime", "reason", "message"],
            "properties": {
                "type": {
                    "description": "type of the condition, in CamelCase.",
                    "type": "string", "minLength": 1, "maxLength": 64, "pattern": "^[A-Z][A-Za-z]*$",
                },
                "status": {
                    "description": "status of the condition: True, False or Unknown.",
                    "type": "string", "enum": ["True", "False", "Unknown"],
                },
                "observedGeneration": {
                    "description": "observedGeneration is the metadata.generation that the condition was set for.",
                    "type": "integer", "format": "int64", "minimum": 0,
                },
                "lastTransitionTime": {
                    "description": "lastTransitionTime is when the status last changed.",
                    "type": "string", "format": "date-time", "maxLength": 64,
                },
                "reason": {
                    "description": "reason for the status, in one CamelCase word; part of the API.",
                    "type": "string", "minLength": 1, "maxLength": 64, "pattern": "^[A-Z][A-Za-z]*$",
                },
                "message": {
                    "description": "message for people, with details. May be empty.",
                    "type": "string", "maxLength": 1024,
                },
            },
        },
    })
}

/// Removes every description below `value`, and leaves properties that are called `description` alone.
fn strip_descriptions(value: &mut Value) {
    match value {
        Value::Object(map) => {
            if map.get("description").is_some_and(Value::is_string) {
                map.remove("description");
            }
            map.values_mut().for_each(strip_descriptions);
        }
        Value::Array(items) => items.iter_mut().for_each(strip_descriptions),
        _ => {}
    }
}

/// Gives every quantity below `value` its form. Kubernetes' schema tells quantities from ports, the other values that
/// may be text, by nothing but their place.
fn bound_quantities(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (key, child) in map.iter_mut() {
                let is_quantity = key == "additionalProperties" || QUANTITIES.contains(&key.as_str());
                match child.as_object_mut() {
                    Some(child) if is_quantity && child.contains_key("x-kubernetes-int-or-string") => {
                        child.insert("pattern".into(), json!(QUANTITY));
                    }
                    _ => bound_quantities(child),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(bound_quantities),
        _ => {}
    }
}

/// Brings a generated schema into the form that is installed.
///
/// - No `nullable`: an absent field is left out, and a null where a value is expected is an error to be shown.
/// - No null defaults, which the generator writes for optional fields.
/// - Descriptions are one line a paragraph and without the back-ticks of Rust's documentation.
pub fn clean(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            map.remove("nullable");
            if map.get("default").is_some_and(Value::is_null) {
                map.remove("default");
            }
            clean_description(map);
            map.values_mut().for_each(clean);
        }
        Value::Array(items) => items.iter_mut().for_each(clean),
        _ => {}
    }
}

fn clean_description(map: &mut Map<String, Value>) {
    if let Some(Value::String(text)) = map.get_mut("description") {
        let paragraphs: Vec<String> = text
            .split("\n\n")
            .map(|paragraph| {
                paragraph
                    .split_whitespace()
                    .collect::<Vec<_>>()
                    .join(" ")
                    .replace('`', "")
            })
            .collect();
        *text = paragraphs.join("\n\n");
    }
}

/// A map of labels, annotations or node labels.
pub type StringMap = BTreeMap<String, String>;
