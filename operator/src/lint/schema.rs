//! A document against its resource definition, as the API server checks it.
//!
//! Walks the structural schema of our own definitions: it knows the keywords that occur in them, and a test fails when
//! a new one appears. Fills in defaults and drops nulls as the server does. Rules (CEL) are not its business.

use regex::Regex;
use serde_json::{Map, Number, Value as Json};

use super::document::{Entry, Node, Place, Value};

/// Keywords that the walk obeys, or that say nothing about which documents are valid.
#[cfg(test)]
const KEYWORDS: &[&str] = &[
    "additionalProperties",
    "default",
    "description",
    "enum",
    "format",
    "items",
    "maxItems",
    "maxLength",
    "maxProperties",
    "maximum",
    "minItems",
    "minLength",
    "minimum",
    "pattern",
    "properties",
    "required",
    "title",
    "type",
    "x-kubernetes-int-or-string",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-list-type",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-validations",
];

/// What is said of a field that is not known and like no other.
pub const UNKNOWN: &str = "unknown field";

/// What a problem does to the document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// The server refuses the document, and nothing after this check can be relied on.
    Invalid,
    /// kubectl refuses the document, but what is left without the field can be checked on.
    Unknown,
    /// The server ignores it.
    Ignored,
}

/// One difference between document and schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// How much it weighs.
    pub weight: Weight,
    /// JSON path.
    pub path: String,
    /// Where; for a missing field, where its parent is.
    pub place: Place,
    /// What is wrong and what is allowed.
    pub message: String,
}

/// Checks `node`, which `path` names, and returns it as the server would store it, with the problems in the order of
/// the document.
#[must_use]
pub fn check(schema: &Json, node: &Node, path: &str) -> (Json, Vec<Problem>) {
    let mut walk = Walk { problems: Vec::new() };
    let value = walk.node(schema, node, path);
    (kube::core::cel::apply_defaults(schema, &value), walk.problems)
}

struct Walk {
    problems: Vec<Problem>,
}

impl Walk {
    fn say(&mut self, weight: Weight, path: &str, place: Place, message: impl Into<String>) {
        self.problems.push(Problem {
            weight,
            path: path.to_owned(),
            place,
            message: message.into(),
        });
    }

    fn invalid(&mut self, path: &str, node: &Node, message: impl Into<String>) {
        self.say(Weight::Invalid, path, node.place, message);
    }

    fn node(&mut self, schema: &Json, node: &Node, path: &str) -> Json {
        if !self.has_type(schema, node, path) {
            return Json::Null;
        }
        match &node.value {
            Value::Null => Json::Null,
            Value::Bool(value) => Json::Bool(*value),
            Value::Number(number) => self.number(schema, node, number.as_ref(), path),
            Value::Text(text) => self.text(schema, node, text, path),
            Value::List(items) => self.list(schema, node, items, path),
            Value::Map(entries) => self.map(schema, node, entries, path),
        }
    }

    fn has_type(&mut self, schema: &Json, node: &Node, path: &str) -> bool {
        let number = matches!(node.value, Value::Number(_));
        let whole = matches!(&node.value, Value::Number(Some(number)) if integer(number).is_some());
        let text = matches!(node.value, Value::Text(_));
        let (wanted, fits) = if schema["x-kubernetes-int-or-string"] == true {
            ("a whole number or text", whole || text)
        } else {
            match schema["type"].as_str() {
                Some("string") => ("text", text),
                Some("integer") => ("a whole number", whole),
                Some("number") => ("a number", number),
                Some("boolean") => ("true or false", matches!(node.value, Value::Bool(_))),
                Some("array") => ("a list", matches!(node.value, Value::List(_))),
                Some("object") => ("a map", matches!(node.value, Value::Map(_))),
                _ => ("anything", true),
            }
        };
        if !fits {
            let words = match &node.value {
                // One that is too large for any whole number is so for this one.
                Value::Number(number) if wanted == "a whole number" && is_whole(number.as_ref()) => {
                    format!("must be {}", range(schema))
                }
                value => format!("must be {wanted}, is {}{}", kind(value), quotes(wanted, value)),
            };
            self.invalid(path, node, words);
        }
        fits
    }

    fn number(&mut self, schema: &Json, node: &Node, number: Option<&Number>, path: &str) -> Json {
        let Some(number) = number else { return Json::Null };
        let value = number.as_f64().unwrap_or_default();
        let bound = |name: &str| schema[name].as_f64();
        let outside = match (bound("minimum"), bound("maximum")) {
            (Some(least), _) if value < least => true,
            (_, Some(most)) if value > most => true,
            _ => {
                schema["format"] == "int32"
                    && integer(number).is_none_or(|whole| i32::try_from(whole).is_err())
            }
        };
        if outside {
            self.invalid(path, node, format!("must be {}, is {number}", range(schema)));
        }
        integer(number).map_or_else(|| Json::Number(number.clone()), Json::from)
    }

    fn text(&mut self, schema: &Json, node: &Node, text: &str, path: &str) -> Json {
        let length = text.chars().count();
        let size = |name: &str| schema[name].as_u64().and_then(|size| usize::try_from(size).ok());
        if let Some(problem) = out_of_bounds(length, size("minLength"), size("maxLength"), "characters") {
            self.invalid(path, node, problem);
        } else if let Some(allowed) = schema["enum"].as_array()
            && !allowed.iter().any(|value| value == text)
        {
            let names = allowed.iter().filter_map(Json::as_str).collect::<Vec<_>>();
            let hint = hint(text, names.iter().copied());
            self.invalid(
                path,
                node,
                format!("must be one of {}, is {text:?}{hint}", names.join(", ")),
            );
        } else if let Some(pattern) = schema["pattern"].as_str()
            && Regex::new(pattern).is_ok_and(|regex| !regex.is_match(text))
        {
            // The text is not repeated: it may hold what belongs in a Secret.
            let wanted = if schema["x-kubernetes-int-or-string"] == true {
                "must be a Kubernetes quantity, such as 2, 500m or 1Gi".to_owned()
            } else {
                format!("must match {pattern}")
            };
            self.invalid(path, node, wanted);
        }
        Json::String(text.to_owned())
    }

    fn list(&mut self, schema: &Json, node: &Node, items: &[Node], path: &str) -> Json {
        let size = |name: &str| schema[name].as_u64().and_then(|size| usize::try_from(size).ok());
        if let Some(problem) = out_of_bounds(items.len(), size("minItems"), size("maxItems"), "entries") {
            self.invalid(path, node, problem);
        }
        let values: Vec<Json> = items
            .iter()
            .enumerate()
            .map(|(position, item)| self.node(&schema["items"], item, &format!("{path}[{position}]")))
            .collect();
        self.unique(schema, items, &values, path);
        Json::Array(values)
    }

    /// Entries of a map-like list differ in their keys, those of a set in themselves.
    fn unique(&mut self, schema: &Json, items: &[Node], values: &[Json], path: &str) {
        let keys: Vec<&str> = match schema["x-kubernetes-list-type"].as_str() {
            Some("map") => {
                let keys = schema["x-kubernetes-list-map-keys"].as_array();
                keys.into_iter().flatten().filter_map(Json::as_str).collect()
            }
            Some("set") => Vec::new(),
            _ => return,
        };
        let item_schema = &schema["items"]["properties"];
        let identity = |value: &Json| -> Json {
            if keys.is_empty() {
                return value.clone();
            }
            let member = |key: &&str| {
                value
                    .get(*key)
                    .unwrap_or_else(|| &item_schema[*key]["default"])
                    .clone()
            };
            keys.iter().map(member).collect()
        };
        let identities: Vec<Json> = values.iter().map(identity).collect();
        for (position, identity) in identities.iter().enumerate() {
            if let Some(first) = identities[..position].iter().position(|other| other == identity) {
                let item = format!("{path}[{position}]");
                let what = if keys.is_empty() {
                    String::new()
                } else {
                    format!(" in {}", keys.join(" and "))
                };
                self.invalid(
                    &item,
                    &items[position],
                    format!("is the same as {path}[{first}]{what}"),
                );
            }
        }
    }

    fn map(&mut self, schema: &Json, node: &Node, entries: &[Entry], path: &str) -> Json {
        let most = schema["maxProperties"]
            .as_u64()
            .and_then(|size| usize::try_from(size).ok());
        if let Some(problem) = out_of_bounds(entries.len(), None, most, "entries") {
            self.invalid(path, node, problem);
        }
        let empty = Map::new();
        let properties = schema["properties"].as_object().unwrap_or(&empty);
        let mut value = Map::new();
        for entry in entries {
            let (child, of_map) = match properties.get(&entry.key) {
                Some(child) => (child, false),
                None => (&schema["additionalProperties"], true),
            };
            let path = join(path, &entry.key);
            if of_map && schema["x-kubernetes-preserve-unknown-fields"] == true {
                value.insert(entry.key.clone(), entry.node.to_json());
            } else if of_map && !child.is_object() {
                let hint = hint(&entry.key, properties.keys().map(String::as_str));
                self.say(Weight::Unknown, &path, entry.place, format!("{UNKNOWN}{hint}"));
            } else if matches!(entry.node.value, Value::Null) {
                self.say(
                    Weight::Ignored,
                    &path,
                    entry.place,
                    "has no value: the server takes it as absent",
                );
            } else {
                value.insert(entry.key.clone(), self.node(child, &entry.node, &path));
            }
        }
        for key in schema["required"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Json::as_str)
        {
            if !value.contains_key(key) && properties.get(key).is_none_or(|child| child["default"].is_null())
            {
                self.say(Weight::Invalid, &join(path, key), node.place, "is required");
            }
        }
        Json::Object(value)
    }
}

/// The path of a member; keys with dots or brackets are put in brackets.
pub fn join(path: &str, key: &str) -> String {
    if key.contains(['.', '[', ']', '/']) {
        format!("{path}[{key}]")
    } else if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}

/// `1.0` is a whole number, as it is for the server.
#[allow(clippy::cast_possible_truncation)]
fn integer(number: &Number) -> Option<i64> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let float = || {
        number
            .as_f64()
            .filter(|float| float.fract() == 0.0 && float.abs() <= EXACT)
    };
    number.as_i64().or_else(|| float().map(|float| float as i64))
}

/// Whether a number is whole, however large; one that JSON cannot hold is too large.
fn is_whole(number: Option<&Number>) -> bool {
    let float = number.and_then(Number::as_f64);
    float.is_none_or(|float| float.fract() == 0.0)
}

/// The numbers that a schema allows, in words.
fn range(schema: &Json) -> String {
    let is_short = schema["format"] == "int32";
    let (lowest, highest) = if is_short {
        (i64::from(i32::MIN), i64::from(i32::MAX))
    } else {
        (i64::MIN, i64::MAX)
    };
    // Not by way of a float, which has no room for the last digits of the ends.
    let bound = |name: &str, end: i64| {
        let written = schema[name].as_f64().map(|bound| bound.to_string());
        written.unwrap_or_else(|| end.to_string())
    };
    let (least, most) = (bound("minimum", lowest), bound("maximum", highest));
    match (schema["minimum"].is_null(), schema["maximum"].is_null()) {
        (false, true) if !is_short => format!("at least {least}"),
        _ => format!("{least} to {most}"),
    }
}

/// What to do with the quotes of a value of the wrong type.
fn quotes(wanted: &str, value: &Value) -> &'static str {
    let number = matches!(value, Value::Number(_));
    match value {
        Value::List(_) | Value::Map(_) | Value::Null => "",
        Value::Text(text) if wanted.ends_with("number") && text.trim().parse::<f64>().is_ok() => {
            ": remove the quotes"
        }
        Value::Text(text) if wanted == "true or false" && matches!(text.as_str(), "true" | "false") => {
            ": remove the quotes"
        }
        // A Deployment takes a CPU limit of 0.5 as it is, which a definition cannot.
        _ if wanted == "text" || wanted.ends_with("text") && number => ": put it in quotes",
        _ => "",
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::Text(_) => "text",
        Value::List(_) => "a list",
        Value::Map(_) => "a map",
    }
}

fn out_of_bounds(size: usize, least: Option<usize>, most: Option<usize>, unit: &str) -> Option<String> {
    let low = least.is_some_and(|least| size < least);
    let high = most.is_some_and(|most| size > most);
    if !low && !high {
        return None;
    }
    let allowed = match (least, most) {
        (Some(least), Some(most)) => format!("{least} to {most}"),
        (Some(least), None) => format!("at least {least}"),
        (None, most) => format!("at most {}", most.unwrap_or_default()),
    };
    Some(format!("must have {allowed} {unit}, has {size}"))
}

/// The question after a known name that is close, if there is one.
fn hint<'a>(text: &str, known: impl Iterator<Item = &'a str>) -> String {
    similar(text, known)
        .map(|name| format!("; is {name} meant?"))
        .unwrap_or_default()
}

/// A known name that may be meant by `text`.
pub fn similar<'a>(text: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    /// Longer names are not compared, which bounds the work.
    const LENGTH_MAX: usize = 64;
    if text.len() > LENGTH_MAX {
        return None;
    }
    let (distance, name) = known
        .map(|name| (distance(&text.to_lowercase(), &name.to_lowercase()), name))
        .min()?;
    (distance <= 2 && distance < name.len() / 2).then_some(name)
}

/// Characters to insert, remove or replace to make one text the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
#[path = "schema_tests.rs"]
mod tests;
