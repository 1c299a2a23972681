//! What is made of other files: the chart's copies and README, and the plain manifests, which are the chart's too.
//!
//! One list, so that one command writes all and one test compares all.

use super::{Helm, Major, folder, readme, repository};
use crate::Result;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// A file that is made, and what belongs in it.
#[derive(Clone, Debug)]
pub struct Generated {
    /// Where it stands, from the top of the repository.
    pub path: PathBuf,
    /// What belongs in it.
    pub text: String,
}

/// Which templates make which file of `deploy/install`.
const MANIFESTS: &[(&str, &[&str])] = &[
    ("access.yaml", &["serviceaccount.yaml", "access.yaml"]),
    ("secrets-access.yaml", &["secrets-access.yaml"]),
    ("user-roles.yaml", &["user-roles.yaml"]),
    ("operator-policy.yaml", &["operator-policy.yaml"]),
    (
        "operator.yaml",
        &["deployment.yaml", "service.yaml", "poddisruptionbudget.yaml"],
    ),
];
/// Which templates make which file of `deploy/components`.
const COMPONENTS: &[(&str, &[&str])] = &[
    ("monitoring/service-monitor.yaml", &["servicemonitor.yaml"]),
    ("monitoring/prometheus-rule.yaml", &["prometheusrule.yaml"]),
    ("monitoring/dashboard.yaml", &["dashboard.yaml"]),
    ("network-policy/network-policy.yaml", &["networkpolicy.yaml"]),
];
/// The settings by which the chart makes what the components hold.
pub const WITH_COMPONENTS: &[&str] = &[
    "--set=metrics.serviceMonitor.enabled=true",
    "--set=metrics.prometheusRule.enabled=true",
    "--set=metrics.dashboard.enabled=true",
    "--set=networkPolicy.enabled=true",
    r#"--set-json=networkPolicy.egress=[{"to":[{"namespaceSelector":{},"podSelector":{"matchLabels":{"app":"redis"}}}],"ports":[{"port":6379,"protocol":"TCP"}]}]"#,
];
/// The definitions and the policies that know no release stand in the repository already; kustomize names the image.
const SETTINGS: &[&str] = &[
    "--no-hooks",
    "--set=image.repository=poolwright",
    "--set=crds.install=false",
    "--set=policies.enabled=false",
];
const HEAD: &str = "# Generated from charts/poolwright: change it there, then run `make manifests`.\n";

/// Everything that is made.
pub fn generated() -> Result<Vec<Generated>> {
    let mut all = copies("crds", "yaml", "charts/poolwright/files/crds")?;
    let policies = copies("deploy/policies", "yaml", "charts/poolwright/files/policies")?;
    all.extend(
        policies
            .into_iter()
            .filter(|one| !one.path.ends_with("kustomization.yaml")),
    );
    all.push(Generated {
        path: "charts/poolwright/README.md".into(),
        text: readme(&fs::read_to_string(folder().join("values.yaml"))?)?,
    });
    all.extend(manifests()?);
    Ok(all)
}

fn copies(from: &str, ending: &str, to: &str) -> Result<Vec<Generated>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(repository(from))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default();
        if path.extension().is_some_and(|found| found == ending) {
            all.push(Generated {
                path: Path::new(to).join(name),
                text: fs::read_to_string(&path)?,
            });
        }
    }
    all.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(all)
}

fn manifests() -> Result<Vec<Generated>> {
    let mut all = filed("deploy/install", MANIFESTS, &documents(&[], &[MANIFESTS])?)?;
    let with = documents(WITH_COMPONENTS, &[MANIFESTS, COMPONENTS])?;
    all.extend(filed("deploy/components", COMPONENTS, &with)?);
    Ok(all)
}

/// What the chart renders with these settings besides, each document with its template, which must be of these files.
fn documents(more: &[&str], files: &[&[(&str, &[&str])]]) -> Result<Vec<(String, String)>> {
    let rendered = Helm::new(Major::Three)?.render(None, &[SETTINGS, more].concat())?;
    // Helm says before each document which template it is of.
    let documents: Vec<(String, String)> = rendered
        .split("---\n# Source: poolwright/templates/")
        .skip(1)
        .filter_map(|document| document.split_once('\n'))
        .map(|(template, text)| (template.to_owned(), without_helm(text)))
        .collect();
    let known = |template: &str| {
        let mut templates = files.iter().copied().flatten().flat_map(|(_, of)| of.iter());
        templates.any(|one| *one == template)
    };
    if let Some((template, _)) = documents.iter().find(|(template, _)| !known(template.as_str())) {
        return Err(format!("no file of deploy takes {template}").into());
    }
    Ok(documents)
}

/// The files of a folder.
fn filed(folder: &str, files: &[(&str, &[&str])], documents: &[(String, String)]) -> Result<Vec<Generated>> {
    let mut all = Vec::new();
    for (file, templates) in files {
        let mut text = HEAD.to_owned();
        let mine = templates
            .iter()
            .flat_map(|wanted| documents.iter().filter(move |(template, _)| template == wanted));
        for (number, (_, document)) in mine.enumerate() {
            let line = if number == 0 { "" } else { "---\n" };
            write!(text, "{line}{document}")?;
        }
        all.push(Generated {
            path: Path::new(folder).join(file),
            text,
        });
    }
    Ok(all)
}

/// Without what is true of a release only.
fn without_helm(text: &str) -> String {
    let foreign = ["helm.sh/chart: ", "app.kubernetes.io/managed-by: Helm"];
    let mut kept = String::new();
    for line in text.trim().lines() {
        if !foreign.iter().any(|start| line.trim_start().starts_with(start)) {
            kept.push_str(line.trim_end());
            kept.push('\n');
        }
    }
    kept
}
