//! Which documents are ours, and whether each on its own is one that the API server would take.
//!
//! Schema first, then the rules (CEL) if the schema found nothing that would make them fail for the wrong reason: the
//! order of the server. What needs more than one object is not decided here.

use std::sync::LazyLock;

use kube::Resource as _;
use kube::core::cel::{CompiledSchema, RootContext, Validator, compile_schema};
use poolwright_api::v1alpha1::WorkerPool;
use serde_json::{Value as Json, json};

use super::document::{self, Node, Place, Value};
use super::schema::{self, Problem, Weight};
use super::split::Start;
use super::{Finding, Severity, hints};

/// Longest name of an object of any kind.
const NAME_CHARACTERS_MAX: usize = 253;

/// A resource definition, ready to check documents with.
pub struct Definition {
    /// Its kind.
    pub kind: String,
    schema: Json,
    rules: CompiledSchema,
}

/// What a document is to us.
pub enum Sort<'a> {
    /// An object of one of our kinds.
    Ours(&'a Definition),
    /// Several objects in one document.
    List(&'a [Node]),
    /// Another kind; in words.
    Other(String),
    /// It claims to be ours and cannot be; says which field is wrong.
    Wrong(&'static str, String),
}

impl Definition {
    /// The schema of its `spec`.
    #[must_use]
    pub fn spec(&self) -> &Json {
        &self.schema["properties"]["spec"]
    }
}

/// The definitions of all kinds, read once: that takes longer than reading most files.
pub fn definitions() -> &'static [Definition] {
    static ALL: LazyLock<Vec<Definition>> = LazyLock::new(|| {
        let texts = poolwright_api::CRD_FILES.into_iter();
        texts.filter_map(|(_, text)| definition(text)).collect()
    });
    &ALL
}

fn definition(text: &str) -> Option<Definition> {
    let crd = document::parse(Start::default(), text).ok()??.to_json();
    let schema = schema(&crd)?;
    let rules = compile_schema(&schema);
    let kind = crd["spec"]["names"]["kind"].as_str()?.to_owned();
    Some(Definition { kind, schema, rules })
}

/// The schema of whole objects: that of the definition, with what the API server adds to every kind and without
/// `status`, which nobody but the operator writes.
#[must_use]
pub fn schema(crd: &Json) -> Option<Json> {
    let mut schema = crd.pointer("/spec/versions/0/schema/openAPIV3Schema")?.clone();
    let name_max = if crd["spec"]["names"]["kind"] == *WorkerPool::kind(&()) {
        poolwright_api::WORKER_POOL_NAME_CHARACTERS_MAX
    } else {
        NAME_CHARACTERS_MAX
    };
    let properties = schema.get_mut("properties")?.as_object_mut()?;
    properties.remove("status");
    properties.insert("apiVersion".to_owned(), json!({ "type": "string" }));
    properties.insert("kind".to_owned(), json!({ "type": "string" }));
    properties.insert("metadata".to_owned(), metadata(name_max));
    let required = schema.get_mut("required")?.as_array_mut()?;
    required.push(json!("metadata"));
    Some(schema)
}

/// What the API server asks of every object's metadata, and the kind of its name.
fn metadata(name_max: usize) -> Json {
    let map = |values: Json| json!({ "type": "object", "additionalProperties": values });
    json!({
        "type": "object",
        "required": ["name"],
        "properties": {
            "name": {
                "type": "string", "minLength": 1, "maxLength": name_max,
                "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$",
            },
            // An empty one is as good as none: the object goes where it is applied.
            "namespace": {
                "type": "string", "maxLength": 63, "pattern": "^([a-z0-9]([-a-z0-9]*[a-z0-9])?)?$",
            },
            "labels": map(json!({
                "type": "string", "maxLength": 63, "pattern": "^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$",
            })),
            "annotations": map(json!({ "type": "string" })),
            "generateName": { "type": "string" },
            "finalizers": { "type": "array", "items": { "type": "string" } },
            "ownerReferences": {
                "type": "array",
                "items": { "type": "object", "x-kubernetes-preserve-unknown-fields": true },
            },
            "managedFields": {
                "type": "array",
                "items": { "type": "object", "x-kubernetes-preserve-unknown-fields": true },
            },
            "creationTimestamp": { "type": "string" },
            "generation": { "type": "integer" },
            "resourceVersion": { "type": "string" },
            "selfLink": { "type": "string" },
            "uid": { "type": "string" },
        },
    })
}

/// What `node` is, by its kind and apiVersion.
#[must_use]
pub fn sort<'a>(definitions: &'a [Definition], node: &'a Node) -> Sort<'a> {
    if !matches!(node.value, Value::Map(_)) {
        return Sort::Wrong("", "is no Kubernetes object: it must be a map".to_owned());
    }
    let field = |key: &str| node.get(key).and_then(Node::text);
    let Some(kind) = field("kind") else {
        return Sort::Wrong("kind", "is required".to_owned());
    };
    let Some(api_version) = field("apiVersion") else {
        return Sort::Wrong("apiVersion", "is required".to_owned());
    };
    if kind == "List" && api_version == "v1" {
        return list(node);
    }
    let (group, _) = api_version.split_once('/').unwrap_or(("", api_version));
    if group != poolwright_api::GROUP {
        return Sort::Other(format!("kind {kind} ({api_version})"));
    }
    if api_version != poolwright_api::API_VERSION {
        return Sort::Wrong(
            "apiVersion",
            format!("must be {}, is {api_version:?}", poolwright_api::API_VERSION),
        );
    }
    if let Some(definition) = definitions.iter().find(|definition| definition.kind == kind) {
        return Sort::Ours(definition);
    }
    // What the API server answers when all of a kind are asked for.
    let of_list = kind.strip_suffix("List");
    if definitions
        .iter()
        .any(|definition| of_list == Some(definition.kind.as_str()))
    {
        return list(node);
    }
    let kinds: Vec<&str> = definitions
        .iter()
        .map(|definition| definition.kind.as_str())
        .collect();
    Sort::Wrong(
        "kind",
        format!("must be one of {}, is {kind:?}", kinds.join(", ")),
    )
}

fn list(node: &Node) -> Sort<'_> {
    match node.get("items").map(|items| &items.value) {
        Some(Value::List(items)) => Sort::List(items),
        _ => Sort::Wrong("items", "must be a list".to_owned()),
    }
}

/// Checks one object; `definitions` are all, since a field may belong elsewhere. The value is the object as the server
/// would store it, if it would.
#[must_use]
pub fn check(
    definitions: &[Definition],
    definition: &Definition,
    node: &Node,
    file: &str,
) -> (Option<Json>, Vec<Finding>) {
    let (bare, mut problems) = without_status(node);
    let (object, found) = schema::check(&definition.schema, &bare, "");
    problems.extend(found);
    let mut usable = problems.iter().all(|problem| problem.weight != Weight::Invalid);
    let finding = |problem: Problem| {
        let severity = match problem.weight {
            Weight::Ignored => Severity::Warning,
            Weight::Invalid | Weight::Unknown => Severity::Error,
        };
        let hint = match problem.weight {
            Weight::Unknown if problem.message == schema::UNKNOWN => {
                hints::misplaced(definitions, &definition.kind, &problem.path)
            }
            _ => hints::schedule(node, &problem.path),
        };
        let words = problem.message + &hint.unwrap_or_default();
        Finding::new(file, problem.place, severity, &problem.path, &words)
    };
    let mut findings: Vec<Finding> = problems.into_iter().map(finding).collect();
    if usable {
        let rules = rules(definition, &object, node, file);
        usable = rules.is_empty();
        findings.extend(rules);
    }
    (usable.then_some(object), findings)
}

/// The object without its status, which the server does not take from a manifest.
fn without_status(node: &Node) -> (Node, Vec<Problem>) {
    let mut bare = node.clone();
    let mut problems = Vec::new();
    if let Value::Map(entries) = &mut bare.value {
        entries.retain(|entry| {
            let is_status = entry.key == "status";
            if is_status {
                problems.push(Problem {
                    weight: Weight::Ignored,
                    path: entry.key.clone(),
                    place: entry.place,
                    message: "is written by the operator: the server drops it from a manifest".to_owned(),
                });
            }
            !is_status
        });
    }
    (bare, problems)
}

fn rules(definition: &Definition, object: &Json, node: &Node, file: &str) -> Vec<Finding> {
    let context = RootContext {
        api_version: poolwright_api::API_VERSION.to_owned(),
        api_group: poolwright_api::GROUP.to_owned(),
        kind: definition.kind.clone(),
    };
    let outcome =
        Validator::new().validate_compiled_with_context(&definition.rules, object, None, Some(&context));
    let errors = outcome
        .err()
        .map(kube::core::cel::ValidationErrors::into_vec)
        .unwrap_or_default();
    errors
        .iter()
        .map(|error| {
            let (path, message) = named_field(&error.field_path, &error.message);
            let place: Place = node.locate(path);
            let hint = hints::schedule(node, path).unwrap_or_default();
            Finding::new(file, place, Severity::Error, path, &format!("{message}{hint}"))
        })
        .collect()
}

/// Our rules begin their message with the field they are about. Where it is at or below the node that holds the rule, it
/// names the place better than that node does; where it is above, as for a rule about entries of a list, it does not.
fn named_field<'a>(rule_path: &'a str, message: &'a str) -> (&'a str, &'a str) {
    let rule_path = rule_path.trim_start_matches('.');
    match message.split_once(' ') {
        Some((field, rest)) if is_within(rule_path, field) => (rule_path, rest),
        Some((field, rest))
            if rule_path.is_empty() && (field.starts_with("metadata.") || field.starts_with("spec.")) =>
        {
            (field, rest)
        }
        Some((field, rest)) if !rule_path.is_empty() && is_within(field, rule_path) => (field, rest),
        _ => (rule_path, message),
    }
}

/// Whether one path is another or below it.
fn is_within(path: &str, above: &str) -> bool {
    let rest = path.strip_prefix(above);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}
