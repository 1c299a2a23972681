//! What the operator may do, beside what it did: rights that nothing uses are found, and so are those that are missing.
//!
//! Every plane of a run adds what its audit log says to one file. Only all of them together tell whether a right is used,
//! so this is asked for at the end of a whole run.

use crate::plane::OPERATOR;
use crate::{Result, audit_entries};
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule, Role};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::Path;

/// One verb on one resource of one group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Right {
    group: String,
    resource: String,
    verb: String,
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let group = if self.group.is_empty() {
            "core"
        } else {
            &self.group
        };
        write!(f, "{group} {} {}", self.resource, self.verb)
    }
}

/// What was found.
#[derive(Debug, Default)]
pub struct Audit {
    /// What the manifests grant.
    pub granted: BTreeSet<Right>,
    /// Granted, and never asked for.
    pub unused: Vec<Right>,
    /// Asked for, and not granted.
    pub missing: Vec<Right>,
    /// Rules that grant more than they name.
    pub wildcards: usize,
}

/// Adds what the operator asked for, by an audit log, to a file.
pub(crate) fn note(log: &Path, file: &Path) -> Result<()> {
    let used: BTreeSet<String> = audit_entries(log)?
        .into_iter()
        .filter(|entry| entry.user == OPERATOR && !entry.resource.is_empty())
        .map(|entry| {
            let part = if entry.subresource.is_empty() { "" } else { "/" };
            let resource = format!("{}{part}{}", entry.resource, entry.subresource);
            format!("{}\t{resource}\t{}\n", entry.group, entry.verb)
        })
        .collect();
    let mut file = OpenOptions::new().create(true).append(true).open(file)?;
    // In one write: several planes may end at a time.
    Ok(file.write_all(used.into_iter().collect::<String>().as_bytes())?)
}

/// Compares the rights in the installed manifests with what was asked for.
pub fn audit(manifests: &[&Path], file: &Path) -> Result<Audit> {
    let mut rules = Vec::new();
    for manifest in manifests {
        rules.extend(rules_of(&fs::read_to_string(manifest)?)?);
    }
    let used: BTreeSet<Right> = fs::read_to_string(file)?.lines().filter_map(right).collect();
    Ok(compare(&rules, &used))
}

fn right(line: &str) -> Option<Right> {
    let mut parts = line.split('\t').map(str::to_owned);
    Some(Right {
        group: parts.next()?,
        resource: parts.next()?,
        verb: parts.next()?,
    })
}

fn rules_of(manifest: &str) -> Result<Vec<PolicyRule>> {
    let mut rules = Vec::new();
    for document in serde_saphyr::from_multiple::<Value>(manifest)? {
        let found = match document["kind"].as_str() {
            Some("ClusterRole") => serde_json::from_value::<ClusterRole>(document)?.rules,
            Some("Role") => serde_json::from_value::<Role>(document)?.rules,
            _ => None,
        };
        rules.extend(found.unwrap_or_default());
    }
    Ok(rules)
}

fn compare(rules: &[PolicyRule], used: &BTreeSet<Right>) -> Audit {
    let mut audit = Audit::default();
    for rule in rules {
        let (groups, resources) = (rule.api_groups.iter().flatten(), rule.resources.iter().flatten());
        let names = groups.clone().chain(resources.clone()).chain(&rule.verbs);
        let more = rule.non_resource_urls.iter().flatten().count();
        audit.wildcards += usize::from(more > 0 || names.clone().any(|name| name.contains('*')));
        for group in groups {
            for resource in resources.clone() {
                audit.granted.extend(rule.verbs.iter().map(|verb| Right {
                    group: group.clone(),
                    resource: resource.clone(),
                    verb: verb.clone(),
                }));
            }
        }
    }
    audit.unused = audit.granted.difference(used).cloned().collect();
    audit.missing = used.difference(&audit.granted).cloned().collect();
    audit
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str = "
kind: ClusterRole
rules:
  - {apiGroups: [apps], resources: [deployments, deployments/scale], verbs: [get, update]}
---
kind: ServiceAccount
---
kind: Role
rules:
  - {apiGroups: ['', apps], resources: [pods], verbs: ['*']}
";

    #[test]
    fn what_is_not_used_and_what_is_not_granted_is_found() {
        let rules = rules_of(MANIFEST).unwrap();
        let used = [
            "apps\tdeployments\tget",
            "apps\tdeployments/scale\tupdate",
            "\tpods\t*",
            "\tnodes\tlist",
        ];
        let used = used.iter().filter_map(|line| right(line)).collect();
        let audit = compare(&rules, &used);
        let words = |rights: &[Right]| rights.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!((audit.granted.len(), audit.wildcards), (6, 1));
        let unused = [
            "apps deployments update",
            "apps deployments/scale get",
            "apps pods *",
        ];
        assert_eq!(words(&audit.unused), unused);
        assert_eq!(words(&audit.missing), ["core nodes list"]);
    }
}
