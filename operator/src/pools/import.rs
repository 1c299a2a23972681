//! Pools for the pools of an Airflow.
//!
//! Decides what each is called. A name is never made up: two pools that would have the same one are for the user to tell
//! apart, because a number behind the second would move to another when a pool is added.

use std::collections::BTreeMap;

use poolwright_api::v1alpha1::AirflowSync;
use serde::Serialize;

use super::PoolsError;
use super::file::{self, FilePool};
use crate::cli::ImportArgs;
use crate::input;

/// Longest name of an object.
const NAME_CHARACTERS_MAX: usize = 253;
/// Longest description of a Pool.
const DESCRIPTION_CHARACTERS_MAX: usize = 1024;

/// A Pool in the order in which people read it, and without what they did not ask for.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    api_version: &'static str,
    kind: &'static str,
    metadata: Metadata<'a>,
    spec: Spec<'a>,
}

#[derive(Serialize)]
struct Metadata<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Spec<'a> {
    slots: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    include_deferred: bool,
    airflow: Airflow<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Airflow<'a> {
    secret_ref: Reference<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    sync: AirflowSync,
}

#[derive(Serialize)]
struct Reference<'a> {
    name: &'a str,
}

/// The manifests of the file that is named.
pub(super) fn run(args: &ImportArgs) -> Result<String, PoolsError> {
    let named = args.file.display().to_string();
    let file = if named == "-" { "stdin".to_owned() } else { named };
    let text = input::read(&args.file).map_err(|error| PoolsError::Read(file.clone(), error))?;
    documents(&file, &text, args)
}

/// The manifests of a text.
pub(super) fn documents(file: &str, text: &str, args: &ImportArgs) -> Result<String, PoolsError> {
    let pools = file::parse(text).map_err(|error| PoolsError::File(file.to_owned(), error))?;
    let mut manifests = String::new();
    for (resource, name) in resources(file, &pools, &args.names)? {
        let Some(pool) = pools.get(name) else { continue };
        check_description(file, name, pool)?;
        if !manifests.is_empty() {
            manifests.push_str("---\n");
        }
        let document = document(&resource, name, pool, args);
        let text = serde_saphyr::to_string(&document).map_err(|error| PoolsError::Yaml(error.to_string()))?;
        manifests.push_str(&text);
    }
    Ok(manifests)
}

/// Names of Airflow's pools by those of the Pools.
fn resources<'a>(
    file: &str,
    pools: &'a BTreeMap<String, FilePool>,
    asked: &[(String, String)],
) -> Result<BTreeMap<String, &'a str>, PoolsError> {
    let mut names: BTreeMap<&str, &str> = BTreeMap::new();
    for (pool, name) in asked {
        let wrong = |words| PoolsError::Renamed(file.to_owned(), format!("{pool}={name}"), words);
        if !pools.contains_key(pool) {
            return Err(wrong("names a pool that is not in this file"));
        }
        if names.insert(pool, name).is_some() {
            return Err(wrong(
                "is about a pool that another --name is about: remove one of them",
            ));
        }
    }
    let mut resources: BTreeMap<String, &str> = BTreeMap::new();
    for pool in pools.keys() {
        let name = match names.get(pool.as_str()) {
            Some(name) => Some((*name).to_owned()),
            None => resource_name(pool),
        };
        let name = name.ok_or_else(|| PoolsError::NoName(file.to_owned(), pool.clone()))?;
        if let Some(first) = resources.get(&name) {
            return Err(PoolsError::SameName {
                file: file.to_owned(),
                first: (*first).to_owned(),
                second: pool.clone(),
                name,
            });
        }
        resources.insert(name, pool);
    }
    Ok(resources)
}

/// What a Pool for this pool is called, if anything of the name is left.
pub(super) fn resource_name(pool: &str) -> Option<String> {
    let name: String = pool
        .chars()
        .map(|c| c.to_ascii_lowercase())
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    let name = name.trim_matches('-');
    (!name.is_empty() && name.len() <= NAME_CHARACTERS_MAX).then(|| name.to_owned())
}

fn check_description(file: &str, pool: &str, found: &FilePool) -> Result<(), PoolsError> {
    let characters = found.description.as_ref().map_or(0, |text| text.chars().count());
    if characters > DESCRIPTION_CHARACTERS_MAX {
        return Err(PoolsError::Description {
            file: file.to_owned(),
            pool: pool.to_owned(),
            characters,
        });
    }
    Ok(())
}

fn document<'a>(resource: &'a str, name: &'a str, pool: &'a FilePool, args: &'a ImportArgs) -> Document<'a> {
    Document {
        api_version: poolwright_api::API_VERSION,
        kind: "Pool",
        metadata: Metadata {
            name: resource,
            namespace: args.namespace.as_deref(),
        },
        spec: Spec {
            slots: pool.slots,
            description: pool.description.as_deref(),
            include_deferred: pool.include_deferred,
            airflow: Airflow {
                secret_ref: Reference { name: &args.secret },
                // Without it `default-pool` would stand for `default_pool`, whatever the other is.
                name: (resource != name || name == poolwright_api::DEFAULT_POOL).then_some(name),
                sync: args.sync,
            },
        },
    }
}
