//! Alerts and dashboard: they use metrics that the operator exports, and each alert calls when it should and not before.

use poolwright_api::Reason;
use poolwright_tests::chart::{self, Helm, Major};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

fn alerts_file() -> PathBuf {
    chart::folder().join("files/alerts.yaml")
}

fn tests_file() -> PathBuf {
    chart::repository("tests/tests/chart/alerts_test.yaml")
}

fn promtool(args: &[&str], file: &Path) {
    let output = Command::new("promtool").args(args).arg(file).output().unwrap();
    let told = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&told));
}

fn alerts() -> Vec<Value> {
    let file = chart::read_yaml(&alerts_file()).unwrap();
    let groups = file["groups"].as_array().unwrap();
    groups
        .iter()
        .flat_map(|group| group["rules"].as_array().unwrap().clone())
        .collect()
}

/// Names of our metrics in a text, without the endings of a counter's own.
fn named(text: &str) -> BTreeSet<String> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.split(|c| !word(c))
        .filter(|name| name.starts_with("poolwright_"))
        .map(ToOwned::to_owned)
        .collect()
}

/// The generated reference has them all, one a row.
fn exported() -> BTreeSet<String> {
    let page = std::fs::read_to_string(chart::repository("docs/reference/metrics.md")).unwrap();
    page.lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next().map(ToOwned::to_owned))
        .collect()
}

#[test]
fn promtool_accepts_the_rules_and_their_tests_pass() {
    promtool(&["check", "rules"], &alerts_file());
    promtool(&["test", "rules"], &tests_file());
}

/// Also as the chart renders them, with what values add.
#[test]
fn promtool_accepts_what_is_rendered() {
    let values = chart::folder().join("ci/service-monitor-values.yaml");
    for major in Major::ALL {
        let text = Helm::new(major).unwrap().render(Some(&values), &[]).unwrap();
        let objects = chart::objects(&text).unwrap();
        let rule = objects
            .iter()
            .find(|one| one["kind"] == "PrometheusRule")
            .unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("rules.json");
        std::fs::write(&file, rule["spec"].to_string()).unwrap();
        promtool(&["check", "rules"], &file);
        let rules = rule["spec"]["groups"][0]["rules"].as_array().unwrap();
        assert_eq!(rules.len(), alerts().len() - 1, "one is disabled");
        assert!(rules.iter().all(|one| one["labels"]["team"] == "queues"));
        assert!(rules.iter().all(|one| one["labels"]["severity"].is_string()));
        assert_eq!(rule["spec"]["groups"][1]["name"], "own");
        // Prometheus' own templates are not Helm's.
        assert!(rule.to_string().contains("{{ $labels.namespace }}"));
    }
}

#[test]
fn every_alert_says_what_is_wrong_and_where_to_look() {
    for alert in alerts() {
        let name = &alert["alert"];
        for field in ["summary", "description", "runbook"] {
            let text = alert["annotations"][field].as_str().unwrap_or_default();
            assert!(text.len() > 20, "{name} has no {field}");
        }
        let severity = alert["labels"]["severity"].as_str().unwrap_or_default();
        assert!(
            ["critical", "warning", "info"].contains(&severity),
            "{name}: {severity:?}"
        );
    }
}

/// Alerts that a file of tests wants to see: where it says what fires, and not that nothing does.
fn wanted(tests: &Value) -> BTreeSet<String> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut found = BTreeSet::new();
    for test in list(&tests["tests"]) {
        for one in list(&test["promql_expr_test"]) {
            for sample in list(&one["exp_samples"]) {
                let labels = sample["labels"].as_str().unwrap_or_default();
                let name = labels
                    .split("alertname=\"")
                    .nth(1)
                    .and_then(|rest| rest.split('"').next());
                if labels.starts_with("ALERTS{") && labels.contains("alertstate=\"firing\"") {
                    found.extend(name.map(ToOwned::to_owned));
                }
            }
        }
        for one in list(&test["alert_rule_test"]) {
            if !list(&one["exp_alerts"]).is_empty() {
                found.extend(one["alertname"].as_str().map(ToOwned::to_owned));
            }
        }
    }
    found
}

#[test]
fn an_alert_that_must_not_fire_is_no_test_of_it() {
    let sample = |state: &str| json!({"labels": format!("ALERTS{{alertname=\"A\",alertstate=\"{state}\"}}"), "value": 1});
    let expr = |samples: Value| json!({"tests": [{"promql_expr_test": [{"exp_samples": samples}]}]});
    let rule =
        |alerts: Value| json!({"tests": [{"alert_rule_test": [{"alertname": "A", "exp_alerts": alerts}]}]});
    let a = BTreeSet::from(["A".to_owned()]);
    assert_eq!(wanted(&expr(json!([sample("firing")]))), a);
    assert_eq!(wanted(&rule(json!([{"exp_labels": {}}]))), a);
    for nothing in [
        expr(json!([])),
        expr(json!([sample("pending")])),
        rule(json!([])),
        rule(Value::Null),
    ] {
        assert_eq!(wanted(&nothing), BTreeSet::new(), "{nothing}");
    }
}

/// With all alerts disabled there is no object without a group in it; one's own groups still come.
#[test]
fn no_rule_is_no_object() {
    let names: Vec<String> = alerts()
        .iter()
        .map(|one| one["alert"].as_str().unwrap().to_owned())
        .collect();
    let none = format!("--set=metrics.prometheusRule.disabled={{{}}}", names.join(","));
    let settings = [
        "--set=image.repository=poolwright",
        "--set=metrics.prometheusRule.enabled=true",
        none.as_str(),
    ];
    let own = r#"--set-json=metrics.prometheusRule.extraGroups=[{"name":"own","rules":[]}]"#;
    for major in Major::ALL {
        let helm = Helm::new(major).unwrap();
        let rules = |more: &[&str]| -> Vec<Value> {
            let text = helm.render(None, &[&settings[..], more].concat()).unwrap();
            let mut objects = chart::objects(&text).unwrap();
            objects.retain(|one| one["kind"] == "PrometheusRule");
            objects
        };
        assert_eq!(rules(&[]), Vec::<Value>::new());
        let left = rules(&[own]);
        assert_eq!(left[0]["spec"]["groups"], json!([{"name": "own", "rules": []}]));
    }
}

/// Each fires in the file of tests, which also has a world in which none does.
#[test]
fn every_alert_is_tested() {
    let tests = chart::read_yaml(&tests_file()).unwrap();
    let quiet = &tests["tests"][0]["promql_expr_test"][0];
    assert_eq!(
        quiet["exp_samples"],
        json!([]),
        "the first test is the quiet world"
    );
    let wanted = wanted(&tests);
    for alert in alerts() {
        let name = alert["alert"].as_str().unwrap();
        assert!(wanted.contains(name), "{name} fires in no test");
        for metric in named(alert["expr"].as_str().unwrap()) {
            let quiet = tests["tests"][0]["input_series"].to_string();
            assert!(quiet.contains(&metric), "{metric} is not in the quiet world");
        }
    }
}

#[test]
fn alerts_use_metrics_and_reasons_that_exist() {
    let exported = exported();
    assert!(exported.len() > 15, "{exported:?}");
    for alert in alerts() {
        let expr = alert["expr"].as_str().unwrap();
        let used = named(expr);
        assert!(!used.is_empty(), "{expr}");
        let unknown: Vec<_> = used.difference(&exported).collect();
        assert!(unknown.is_empty(), "{}: {unknown:?}", alert["alert"]);
        for reasons in expr.split("reason=~\"").skip(1) {
            for reason in reasons.split('"').next().unwrap().split('|') {
                let known = Reason::ALL.iter().any(|one| one.to_string() == reason);
                assert!(known, "{}: there is no reason {reason}", alert["alert"]);
            }
        }
    }
}

#[test]
fn the_dashboard_shows_every_metric_and_no_other() {
    let text = std::fs::read_to_string(chart::folder().join("files/dashboard.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<String> = panels.iter().map(|panel| panel["id"].to_string()).collect();
    assert_eq!(ids.len(), panels.len(), "an id is there twice");
    let mut shown = BTreeSet::new();
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        for target in panel["targets"].as_array().unwrap() {
            let used = named(target["expr"].as_str().unwrap());
            assert!(!used.is_empty(), "{}: {target}", panel["title"]);
            shown.extend(used);
        }
    }
    shown.extend(named(&dashboard["templating"].to_string()));
    assert_eq!(shown, exported());
}

/// Prometheus parses every expression of the dashboard, with Grafana's variables filled in.
#[test]
fn the_dashboard_asks_what_prometheus_understands() {
    let text = std::fs::read_to_string(chart::folder().join("files/dashboard.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let mut rules = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let expr = target["expr"].as_str().unwrap();
            let expr = expr.replace("$__rate_interval", "5m").replace("$namespace", ".*");
            let expr = expr.replace("$worker_pool", ".*");
            assert!(!expr.contains('$'), "{expr}");
            rules.push(json!({"record": format!("panel:{}", rules.len()), "expr": expr}));
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rules.json");
    std::fs::write(
        &file,
        json!({"groups": [{"name": "dashboard", "rules": rules}]}).to_string(),
    )
    .unwrap();
    promtool(&["check", "rules"], &file);
}
