//! The files in `crds/` are what the types say. `UPDATE=1` writes them anew.

// The lint knows test functions, not their helpers.
#![allow(clippy::unwrap_used)]

use std::{fs, path::PathBuf};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../crds")
}

#[test]
fn the_files_are_what_the_types_say() {
    let update = std::env::var_os("UPDATE").is_some_and(|value| value == "1");
    for (file, crd) in poolwright_api::crds() {
        let path = folder().join(file);
        let expected = poolwright_api::to_yaml(&crd).unwrap();
        if update {
            fs::write(&path, &expected).unwrap();
        }
        let found = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            found == expected,
            "crds/{file} differs from the types: run `UPDATE=1 cargo test -p poolwright-api --test crds_match`"
        );
    }
}

#[test]
fn there_is_no_other_file() {
    let mut found: Vec<String> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.starts_with('.'))
        .collect();
    found.sort();
    // What deploy/install takes the folder by; `kubectl apply -f` passes over a name without an ending.
    let mut expected = vec!["Kustomization"];
    expected.extend(poolwright_api::crds().into_iter().map(|(file, _)| file));
    assert_eq!(found, expected);
}

#[test]
fn the_text_reads_back_as_the_same_definition() {
    for (file, crd) in poolwright_api::crds() {
        let text = poolwright_api::to_yaml(&crd).unwrap();
        let read: CustomResourceDefinition = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(read, crd, "{file}");
    }
}
