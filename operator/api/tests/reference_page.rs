//! The reference page of the resources, made of the definitions. `UPDATE=1` writes it anew.
//!
//! What a field says of itself has its default and bounds already, so the page only puts it in order. Fields without a
//! description are Kubernetes' own, inside one of ours, and are left to Kubernetes' reference.

// The lint knows test functions, not their helpers.
#![allow(clippy::unwrap_used)]

use std::fmt::Write as _;
use std::{fs, path::PathBuf};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray,
};

const HEAD: &str = "\
# Resources

<!-- Generated from the definitions in operator/api. Do not edit. -->

All fields of the three kinds, in the order of their names. What is not marked *needed* may be left out. A part of this is \
`kubectl explain wp.spec.scaling`. `[]` stands for each entry of a list. Below a field of Kubernetes' own, such as an entry of \
`spec.pod.volumes`, the fields are those of a pod.
";

fn kind(schema: &JSONSchemaProps) -> String {
    if let Some(values) = &schema.enum_ {
        let values: Vec<String> = values
            .iter()
            .map(|one| one.0.to_string().replace('"', "`"))
            .collect();
        return values.join(", ");
    }
    match (schema.type_.as_deref(), items(schema)) {
        (Some("array"), Some(item)) => format!("list of {}", kind(item)),
        (Some("object"), _) if schema.additional_properties.is_some() => "map".to_owned(),
        (Some(one), _) => one.to_owned(),
        (None, _) => "integer or string".to_owned(),
    }
}

fn items(schema: &JSONSchemaProps) -> Option<&JSONSchemaProps> {
    match schema.items.as_ref()? {
        JSONSchemaPropsOrArray::Schema(item) => Some(item),
        JSONSchemaPropsOrArray::Schemas(_) => None,
    }
}

fn rows(page: &mut String, path: &str, schema: &JSONSchemaProps) {
    let needed = schema.required.clone().unwrap_or_default();
    for (name, field) in schema.properties.iter().flatten() {
        let Some(about) = &field.description else { continue };
        let own = format!("{path}.{name}");
        let mark = if needed.contains(name) { "*needed*; " } else { "" };
        let about = about.replace('|', "\\|").replace('\n', " ");
        // Writing to a String cannot fail.
        let _ = writeln!(page, "| `{own}` | {mark}{} | {about} |", kind(field));
        rows(page, &own, field);
        if let Some(item) = items(field) {
            rows(page, &format!("{own}[]"), item);
        }
    }
}

fn page() -> String {
    let mut page = HEAD.to_owned();
    for (_, crd) in poolwright_api::crds() {
        let version = &crd.spec.versions[0];
        let schema = version
            .schema
            .as_ref()
            .unwrap()
            .open_api_v3_schema
            .as_ref()
            .unwrap();
        let about = schema.description.as_deref().unwrap_or_default();
        let _ = writeln!(
            page,
            "\n## {}\n\n{about}\n\n| field | type | meaning |\n|---|---|---|",
            crd.spec.names.kind
        );
        rows(&mut page, "", schema);
    }
    page.replace("| `.", "| `")
}

#[test]
fn the_page_is_what_the_definitions_say() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/resources.md");
    let expected = page();
    if std::env::var_os("UPDATE").is_some_and(|value| value == "1") {
        fs::write(&path, &expected).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == expected,
        "docs/reference/resources.md differs from the definitions: run `UPDATE=1 cargo test -p poolwright-api`"
    );
}

/// A field of ours that says nothing of itself would be missing here, and with it all below it.
#[test]
fn every_field_of_ours_is_on_the_page() {
    let page = page();
    for field in [
        "spec.scaling.maxReplicas",
        "spec.broker.redis.keyPrefix",
        "spec.guarantees[].slots",
        "status.conditions",
    ] {
        assert!(page.contains(&format!("| `{field}` |")), "{field}");
    }
}
