//! The values: each is described, closed by the schema, shown in `ci/`, and does something.

use super::expect_words;
use poolwright_tests::chart::{self, Helm, Major, default_of, described, value_at, without};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;

/// Acts on what a cluster answers, which rendering does not ask: `others.rs` sees it work.
const NEEDS_A_CLUSTER: &str = "checks.otherInstallations";
/// What cannot be left out where it matters: the chart refuses that.
const NEEDED: [&str; 2] = ["image.repository", "networkPolicy.egress"];

/// The file of values, as it is.
pub fn text() -> String {
    std::fs::read_to_string(chart::folder().join("values.yaml")).unwrap()
}

/// The defaults.
pub fn values() -> Value {
    serde_saphyr::from_str(&text()).unwrap()
}

fn leaves(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    match value.as_object().filter(|fields| !fields.is_empty()) {
        Some(fields) => {
            for (key, inner) in fields {
                let inner_path = if path.is_empty() {
                    key.clone()
                } else {
                    format!("{path}.{key}")
                };
                leaves(inner, &inner_path, found);
            }
        }
        None => {
            found.insert(path.to_owned());
        }
    }
}

#[test]
fn every_value_is_described() {
    let known = described(&text());
    let mut found = BTreeSet::new();
    leaves(&values(), "", &mut found);
    for leaf in found {
        let covered = known
            .iter()
            .any(|one| leaf == one.path || leaf.starts_with(&format!("{}.", one.path)));
        assert!(covered, "{leaf} has no description");
    }
    for one in known {
        default_of(&values(), &one.path).unwrap();
        assert!(one.about.ends_with(['.', '`']), "{} is no sentence", one.path);
    }
}

#[test]
fn every_object_of_the_schema_is_closed() {
    let text = std::fs::read_to_string(chart::folder().join("values.schema.json")).unwrap();
    let schema: Value = serde_json::from_str(&text).unwrap();
    let mut open = vec![(String::new(), &schema)];
    while let Some((path, value)) = open.pop() {
        if value["type"] == "object" {
            // Others' types, and maps whose keys are users' own, say so.
            let closed = value["additionalProperties"] == false || value["$comment"].is_string();
            assert!(closed, "{path} takes anything");
        }
        match value {
            Value::Object(fields) => {
                open.extend(fields.iter().map(|(key, one)| (format!("{path}/{key}"), one)));
            }
            Value::Array(items) => open.extend(items.iter().map(|one| (path.clone(), one))),
            _ => {}
        }
    }
}

/// Every key of the schema has a default, so the README lists all that there is.
#[test]
fn the_schema_knows_no_value_without_a_default() {
    let text = std::fs::read_to_string(chart::folder().join("values.schema.json")).unwrap();
    let schema: Value = serde_json::from_str(&text).unwrap();
    let known: Vec<String> = described(&self::text()).into_iter().map(|one| one.path).collect();
    let mut open = vec![(String::new(), &schema)];
    while let Some((path, value)) = open.pop() {
        for (key, inner) in value["properties"].as_object().into_iter().flatten() {
            let inner_path = if path.is_empty() {
                key.clone()
            } else {
                format!("{path}.{key}")
            };
            if known.contains(&inner_path) || inner_path == "global" {
                continue;
            }
            let parent = known.iter().any(|one| one.starts_with(&format!("{inner_path}.")));
            assert!(parent, "{inner_path} is in the schema and not in values.yaml");
            open.push((inner_path, inner));
        }
    }
}

/// Set to something else than its default in a file of `ci/`, and rendered differently for it than without it.
#[test]
fn every_value_has_an_effect() {
    let helm = Helm::new(Major::Three).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("values.yaml");
    let all: Vec<(String, Value)> = chart::ci_values()
        .unwrap()
        .iter()
        .map(|path| {
            let whole = helm.render(Some(path), &[]);
            (
                whole.unwrap_or_else(|error| panic!("{}: {error}", path.display())),
                chart::read_yaml(path).unwrap(),
            )
        })
        .collect();
    let defaults = values();
    for one in described(&text()) {
        let path = one.path.as_str();
        let default = value_at(&defaults, path);
        let mut shown = all
            .iter()
            .filter(|(_, own)| value_at(own, path).is_some_and(|value| Some(value) != default));
        assert!(
            shown.clone().next().is_some(),
            "{path}: no file of ci/ changes it"
        );
        let needed = NEEDED.contains(&path);
        let matters = shown.any(|(whole, own)| {
            std::fs::write(&file, without(own, path).to_string()).unwrap();
            match helm.render(Some(&file), &[]) {
                Ok(text) => !needed && text != *whole,
                Err(error) => needed && error.to_string().contains(path),
            }
        });
        assert!(matters || path == NEEDS_A_CLUSTER, "{path} changes nothing");
    }
}

/// The defaults of flags are the operator's own: a chart of defaults changes nothing of what the reference says.
#[test]
fn defaults_are_those_of_the_operator() {
    let page = std::fs::read_to_string(chart::repository("docs/reference/command-line.md")).unwrap();
    let helm = Helm::new(Major::Four).unwrap();
    let text = helm.render(None, &["--set=image.repository=poolwright"]).unwrap();
    let objects = chart::objects(&text).unwrap();
    let deployment = objects.iter().find(|one| one["kind"] == "Deployment").unwrap();
    let args = &deployment["spec"]["template"]["spec"]["containers"][0]["args"];
    let (mut compared, mut guarded) = (0, false);
    for arg in args.as_array().unwrap().iter().skip(1) {
        let arg = arg.as_str().unwrap();
        // What is installed is seen by others, and what is run by hand is not.
        if arg == "--guard-metrics" {
            guarded = true;
            continue;
        }
        let (flag, value) = arg.split_once('=').unwrap();
        // It is named after the release.
        if flag == "--lease" {
            assert_eq!(value, "poolwright/poolwright");
            continue;
        }
        let row = page
            .lines()
            .find(|line| line.contains(&format!("`{flag} ")))
            .unwrap();
        // Of some the reference says in words what a pod's default is.
        let default = format!("Default: `{value}`");
        let in_words = format!("Default: {value} in a pod");
        assert!(
            row.contains(&default) || row.contains(&in_words),
            "{flag}={value}: {row}"
        );
        compared += 1;
    }
    assert!(compared >= 6, "only {compared} flags");
    assert!(guarded, "metrics are open to all by default");
}

/// The words with which these settings are refused.
pub fn refusal(helm: &Helm, settings: &[&str]) -> String {
    let mut all = vec!["--set=image.repository=poolwright"];
    all.extend(settings);
    match helm.render(None, &all) {
        Ok(_) => panic!("{settings:?} is taken"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn what_cannot_work_is_refused_with_what_to_do() {
    let cases: &[(&[&str], &[&str])] = &[
        (
            &["--set=image.repository="],
            &["image.repository", "no published image"],
        ),
        (
            &["--set=leaderElection.enabled=false"],
            &["replicaCount", "leaderElection.enabled"],
        ),
        (&["--set=rbac.scope=namespaces"], &["watch.namespaces"]),
        (
            &["--set=rbac.scope=namespaces,watch.namespaces={shop},shard.namespaceSelector=a"],
            &["shard.namespaceSelector", "rbac.scope"],
        ),
        (
            &["--set=watch.namespaces={shop},shard.namespaceSelector=a"],
            &["shard.namespaceSelector", "watch.namespaces"],
        ),
        (
            &["--set=metrics.serviceMonitor.enabled=true,metrics.podMonitor.enabled=true"],
            &["metrics.serviceMonitor", "metrics.podMonitor"],
        ),
        (
            &["--set=metrics.podMonitor.tlsConfig.serverName=a"],
            &["metrics.podMonitor.tlsConfig", "metrics.tls.secretName"],
        ),
        (&["--set=networkPolicy.enabled=true"], &["networkPolicy.egress"]),
        (&["--set=extraEnv[0].name=POD_NAME"], &["extraEnv", "POD_NAME"]),
        (
            &["--set=extraEnv[0].name=A,extraEnv[1].name=A"],
            &["extraEnv", "A twice"],
        ),
        (&["--set=serviceAccount.create=false"], &["serviceAccount.name"]),
        (
            &["--set=metrics.prometheusRule.disabled={PoolwrightDwon}"],
            &["PoolwrightDwon", "PoolwrightDown"],
        ),
        (
            &["--set=metrics.podMonitor.enabled=true"],
            &["metrics.podMonitor.authorization", "metrics.guard"],
        ),
        (
            &["--kube-version=1.32.9"],
            &["kubeVersion", ">=1.33.0-0", "1.32.9"],
        ),
    ];
    for major in Major::ALL {
        let helm = Helm::new(major).unwrap();
        for (settings, words) in cases {
            expect_words(
                &format!("{major:?} {settings:?}"),
                &refusal(&helm, settings),
                words,
            );
        }
    }
}

/// At every depth, and with the key's name.
#[test]
fn a_misspelt_value_is_refused_by_its_name() {
    let cases = [
        ("imgae.tag=1", "imgae"),
        ("image.tga=1", "tga"),
        ("metrics.serviceMonitor.enable=true", "enable"),
        ("resources.limit.memory=1Gi", "limit"),
        (
            "securityContext.readOnlyRootFileSystem=true",
            "readOnlyRootFileSystem",
        ),
        ("networkPolicy.apiServer.port=443", "port"),
        ("rbac.scope=clusters", "scope"),
        ("operator.pollIntervalMilliseconds=49", "pollIntervalMilliseconds"),
        ("watch.namespaces={Shop}", "namespaces"),
        ("shard.namespaceSelector=a:b", "namespaceSelector"),
    ];
    for major in Major::ALL {
        let helm = Helm::new(major).unwrap();
        for (setting, key) in cases {
            let words = refusal(&helm, &["--set", setting]);
            expect_words(&format!("{major:?} {setting}"), &words, &[key]);
        }
    }
}

/// Other charts may depend on this one: Helm then hands it `global`.
#[test]
fn a_chart_may_depend_on_it() {
    let folder = tempfile::tempdir().unwrap();
    let parent = folder.path().join("parent");
    std::fs::create_dir_all(parent.join("charts")).unwrap();
    let link = parent.join("charts/poolwright");
    std::os::unix::fs::symlink(chart::folder().canonicalize().unwrap(), link).unwrap();
    write(
        &parent.join("Chart.yaml"),
        "apiVersion: v2\nname: parent\nversion: 1.0.0\n",
    );
    write(
        &parent.join("values.yaml"),
        "global: {team: queues}\npoolwright: {image: {repository: poolwright}}\n",
    );
    for major in Major::ALL {
        let text = Helm::new(major)
            .unwrap()
            .run(["template", "p", parent.to_str().unwrap()])
            .unwrap();
        assert!(text.contains("kind: Deployment"), "{text}");
    }
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
}
