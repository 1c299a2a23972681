//! Schemas for kubeconform: Kubernetes' own, as the local control plane tells them, and ours, out of `crds/`.
//!
//! The server's description is made for documentation and for pruning clients: unknown fields are let through, and two
//! types that are written in two ways are called strings. Here every object that names its fields is closed, which is
//! what finds a misspelt one.

use super::read_yaml;
use crate::{Plane, Result};
use serde_json::{Map, Value, json};
use std::fs;
use std::path::{Path, PathBuf};

/// Types that are written as a text or as a number.
const EITHER: [&str; 2] = [
    "io.k8s.apimachinery.pkg.api.resource.Quantity",
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString",
];

/// The file name that kubeconform looks for, of `{{.ResourceKind}}{{.KindSuffix}}.json`.
pub fn schema_file(group: &str, version: &str, kind: &str) -> String {
    let group = group.split('.').next().unwrap_or_default();
    let group = if group.is_empty() {
        String::new()
    } else {
        format!("-{group}")
    };
    format!("{}{group}-{version}.json", kind.to_lowercase())
}

/// Writes a schema for each kind that this control plane serves.
pub async fn kubernetes_schemas(plane: &Plane, folder: &Path) -> Result<()> {
    let request = http::Request::get("/openapi/v2").body(Vec::new())?;
    let text = plane.client().await?.request_text(request).await?;
    let mut document: Value = serde_json::from_str(&text)?;
    let definitions = document["definitions"].take();
    let Value::Object(mut definitions) = definitions else {
        return Err("the API server describes nothing".into());
    };
    for (name, definition) in &mut definitions {
        if EITHER.contains(&name.as_str()) {
            *definition = json!({"type": ["string", "integer", "number"]});
        }
        close(definition);
    }
    for (name, definition) in &definitions {
        let kinds = definition["x-kubernetes-group-version-kind"].as_array();
        for kind in kinds.into_iter().flatten() {
            let part = |key: &str| kind[key].as_str().unwrap_or_default();
            let (group, version, kind) = (part("group"), part("version"), part("kind"));
            // Kinds of every group, such as DeleteOptions, are no objects.
            if !definition["properties"]["metadata"].is_object() {
                continue;
            }
            let mut needed = Map::new();
            collect(name, &definitions, &mut needed);
            let schema = json!({"$ref": format!("#/definitions/{name}"), "definitions": needed});
            fs::write(folder.join(schema_file(group, version, kind)), schema.to_string())?;
        }
    }
    Ok(())
}

/// Takes over a definition and all that it refers to.
fn collect(name: &str, all: &Map<String, Value>, needed: &mut Map<String, Value>) {
    let Some(definition) = all.get(name).filter(|_| !needed.contains_key(name)) else {
        return;
    };
    needed.insert(name.to_owned(), definition.clone());
    let mut open = vec![definition];
    while let Some(value) = open.pop() {
        match value {
            Value::Object(fields) => {
                if let Some(name) = fields.get("$ref").and_then(Value::as_str) {
                    collect(name.trim_start_matches("#/definitions/"), all, needed);
                }
                open.extend(fields.values());
            }
            Value::Array(items) => open.extend(items),
            _ => {}
        }
    }
}

/// Writes the schemas of our kinds. Returns the files.
pub fn our_schemas(crds: &Path, folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(crds)? {
        let path = entry?.path();
        if path.extension().is_none_or(|ending| ending != "yaml") {
            continue;
        }
        let mut definition = read_yaml(&path)?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (group, kind) = (
            text(&definition["spec"]["group"]),
            text(&definition["spec"]["names"]["kind"]),
        );
        for version in definition["spec"]["versions"]
            .as_array_mut()
            .into_iter()
            .flatten()
        {
            let name = text(&version["name"]);
            let mut schema = version["schema"]["openAPIV3Schema"].take();
            for field in ["apiVersion", "kind"] {
                schema["properties"][field] = json!({"type": "string"});
            }
            schema["properties"]["metadata"] = json!({"type": "object"});
            close(&mut schema);
            let file = folder.join(schema_file(&group, &name, &kind));
            fs::write(&file, schema.to_string())?;
            files.push(file);
        }
    }
    Ok(files)
}

/// Lets no object have fields that its schema does not name, and takes what only servers understand out of it. Of
/// alternatives, which name a part of the fields, nothing is closed.
fn close(schema: &mut Value) {
    let Value::Object(fields) = schema else {
        return;
    };
    let open = fields.contains_key("additionalProperties")
        || fields.contains_key("x-kubernetes-preserve-unknown-fields");
    if fields.contains_key("properties") && !open {
        fields.insert("additionalProperties".into(), Value::Bool(false));
    }
    if fields.contains_key("x-kubernetes-int-or-string") {
        fields.insert("type".into(), json!(["string", "integer", "number"]));
    }
    if let (Some(Value::Bool(true)), Some(Value::String(kind))) = (fields.get("nullable"), fields.get("type"))
    {
        let either = json!([kind, "null"]);
        fields.insert("type".into(), either);
    }
    // Formats of numbers (int32, double) and of times are no matter of JSON Schema's.
    fields.remove("format");
    for (key, value) in fields {
        match (key.as_str(), value) {
            ("properties", Value::Object(properties)) => properties.values_mut().for_each(close),
            ("items" | "additionalProperties", inner) => close(inner),
            _ => {}
        }
    }
}
