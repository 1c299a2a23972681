//! Names and values that look harmless: what YAML would read as something else stays a text, and what Kubernetes or the
//! operator would not take is refused before anything is there.

use super::expect_words;
use super::settings::{refusal, text, values};
use poolwright_tests::Result;
use poolwright_tests::chart::{self, Helm, Major, described, value_at};
use serde_json::{Value, json};

/// Keys under which a name stands, or a list of names.
const NAMES: [&str; 11] = [
    "name",
    "namespace",
    "serviceAccountName",
    "priorityClassName",
    "secretName",
    "policyName",
    "matchNames",
    "resourceNames",
    "app.kubernetes.io/name",
    "app.kubernetes.io/instance",
    "poolwright.dev/scope",
];

/// What the chart renders as this release of this namespace.
fn render_as(helm: &Helm, release: &str, space: &str, more: &[&str]) -> Result<String> {
    let chart = chart::folder();
    let mut args = vec!["template", release, chart.to_str().unwrap_or_default()];
    args.extend(["--namespace", space, "--set=image.repository=poolwright"]);
    args.extend(more);
    helm.run(args)
}

/// Fails where something else than a text stands for a name.
fn expect_texts(about: &str, value: &Value) {
    match value {
        Value::Object(fields) => {
            for (key, inner) in fields {
                if NAMES.contains(&key.as_str()) {
                    let all = inner
                        .as_array()
                        .map_or_else(|| std::slice::from_ref(inner), Vec::as_slice);
                    assert!(all.iter().all(Value::is_string), "{about}: {key} is {inner}");
                }
                expect_texts(about, inner);
            }
        }
        Value::Array(items) => items.iter().for_each(|one| expect_texts(about, one)),
        _ => {}
    }
}

/// A release, a namespace and an account may be called what YAML reads as a number, as true or as nothing.
#[test]
fn a_name_stays_a_text() {
    let names = "--set-string=nameOverride=1e3,serviceAccount.name=123,priorityClassName=1e3";
    let both = [
        "--set=fullnameOverride=scaler,crds.install=false",
        "--set=metrics.dashboard.enabled=true,metrics.prometheusRule.enabled=true,metrics.guard=never",
        "--set-string=metrics.tls.secretName=0x1f,rbac.secretNamespaces={true}",
        names,
    ];
    for major in Major::ALL {
        let helm = Helm::new(major).unwrap();
        for monitor in ["serviceMonitor", "podMonitor"] {
            let enabled = format!("--set=metrics.{monitor}.enabled=true");
            for release in ["true", "null", "123", "1e3", "a.b"] {
                let more = [&both[..], &[enabled.as_str()]].concat();
                let objects = chart::objects(&render_as(&helm, release, "123", &more).unwrap()).unwrap();
                for object in &objects {
                    expect_texts(
                        &format!("{major:?} {release} {}", chart::identity(object)),
                        object,
                    );
                    let labels = &object["metadata"]["labels"];
                    assert_eq!(labels["app.kubernetes.io/instance"], release);
                    assert_eq!(labels["app.kubernetes.io/name"], "1e3");
                }
                let deployment = objects.iter().find(|one| one["kind"] == "Deployment").unwrap();
                let selector = &deployment["spec"]["selector"]["matchLabels"];
                assert_eq!(selector["app.kubernetes.io/instance"], release);
            }
        }
    }
}

/// A Service takes fewer names than Helm does: without the check all but it would be there.
#[test]
fn a_release_whose_name_no_service_takes_is_refused() {
    for major in Major::ALL {
        let helm = Helm::new(major).unwrap();
        for release in ["1a", "123", "a.b"] {
            let error = render_as(&helm, release, "ops", &[]).unwrap_err().to_string();
            let named = format!("{release}-poolwright");
            expect_words(release, &error, &[release, &named, "set fullnameOverride"]);
        }
        render_as(&helm, "a1-b", "ops", &[]).unwrap();
    }
}

/// What is taken, what is refused beside it, and a word of the refusal.
const PAIRS: &[(&str, &str, &str)] = &[
    (
        "--set=operator.httpAddress=0.0.0.0:9090",
        "--set=operator.httpAddress=127.0.0.1:8080",
        "probes and Prometheus would not reach it",
    ),
    (
        "--set=operator.httpAddress=[::]:9090",
        "--set=operator.httpAddress=[::1]:8080",
        "operator.httpAddress is [::1]:8080",
    ),
    (
        "--set=operator.httpAddress=0.0.0.0:1",
        "--set=operator.httpAddress=0.0.0.0:0",
        "a port from 1 to 65535",
    ),
    (
        "--set=operator.httpAddress=0.0.0.0:65535",
        "--set=operator.httpAddress=0.0.0.0:65536",
        "a port from 1 to 65535",
    ),
    (
        "--set=operator.httpAddress=[::]:80",
        "--set=operator.httpAddress=999.1.1.1:8080",
        "operator.httpAddress",
    ),
    (
        "--set=nameOverride=foo-bar",
        "--set=nameOverride=Foo_Bar",
        "nameOverride",
    ),
    (
        "--set=nameOverride=a",
        "--set=nameOverride=a b: c",
        "nameOverride",
    ),
    (
        "--set=fullnameOverride=a1",
        "--set=fullnameOverride=1a",
        "fullnameOverride",
    ),
    (
        "--set=serviceAccount.name=a.b-c",
        "--set=serviceAccount.name=A b",
        "serviceAccount",
    ),
    (
        "--set=priorityClassName=system-cluster-critical",
        "--set=priorityClassName=A b",
        "priorityClassName",
    ),
    (
        "--set=metrics.tls.secretName=a.b",
        "--set=metrics.tls.secretName=a..b",
        "secretName",
    ),
    (
        "--set=imagePullSecrets[0].name=a.b",
        "--set=imagePullSecrets[0].name=A",
        "imagePullSecrets",
    ),
    (
        "--set=image.repository=localhost:5000/team/p",
        "--set=image.repository=p:1.0",
        "repository",
    ),
    (
        "--set=image.registry=registry.example.com:5000/team",
        "--set=image.registry=https://registry.example.com",
        "registry",
    ),
    ("--set=image.tag=v1", "--set=image.tag=.v1", "tag"),
    (
        "--set=helmTest.image.repository=a/b",
        "--set=helmTest.image.repository=a:1",
        "repository",
    ),
    (
        "--set=podDisruptionBudget.maxUnavailable=100%",
        "--set=podDisruptionBudget.maxUnavailable=500%",
        "maxUnavailable",
    ),
    (
        "--set=livenessProbe.successThreshold=1",
        "--set=livenessProbe.successThreshold=2",
        "successThreshold",
    ),
    (
        r#"--set-json=commonLabels={"example.com/team":"a"}"#,
        r#"--set-json=commonLabels={"a b":"a"}"#,
        "commonLabels",
    ),
    (
        r#"--set-json=commonLabels={"team":"a.b"}"#,
        r#"--set-json=commonLabels={"team":"a b"}"#,
        "commonLabels",
    ),
    (
        r#"--set-json=commonLabels={"example.com/scope":"a"}"#,
        r#"--set-json=commonLabels={"poolwright.dev/scope":"cluster"}"#,
        "commonLabels/poolwright.dev",
    ),
    (
        r#"--set-json=podLabels={"example.com/worker-pool":"a"}"#,
        r#"--set-json=podLabels={"poolwright.dev/worker-pool":"a"}"#,
        "podLabels/poolwright.dev",
    ),
    (
        r#"--set-json=commonLabels={"example.com/aggregate-to-view":"true"}"#,
        r#"--set-json=commonLabels={"rbac.authorization.k8s.io/aggregate-to-view":"true"}"#,
        "commonLabels/rbac.authorization.k8s.io",
    ),
    (
        r#"--set-json=podAnnotations={"example.com/a":"a b"}"#,
        r#"--set-json=podAnnotations={"a/b/c":"a"}"#,
        "podAnnotations",
    ),
    (
        r#"--set-json=networkPolicy={"enabled":true,"egress":[{"ports":[{"port":6379}]}]}"#,
        r#"--set-json=networkPolicy={"enabled":true,"egress":[{}]}"#,
        "egress",
    ),
    (
        r#"--set-json=networkPolicy.egress=[{"to":[{"podSelector":{}}]}]"#,
        r#"--set-json=networkPolicy.egress=[{"to":[]}]"#,
        "egress",
    ),
    (
        r#"--set-json=networkPolicy.from=[{"podSelector":{}}]"#,
        "--set-json=networkPolicy.from=[{}]",
        "from",
    ),
    (
        "--set=networkPolicy.apiServer.cidrs={10.96.0.1/32}",
        "--set=networkPolicy.apiServer.cidrs={300.0.0.0/8}",
        "cidrs",
    ),
    (
        "--set=brokers.allowCIDRs={10.0.0.0/8}",
        "--set=brokers.allowCIDRs={10.0.0.0/33}",
        "allowCIDRs",
    ),
    (
        "--set=brokers.allowCIDRs={2001:db8::1/128}",
        "--set=brokers.allowCIDRs={2001:db8::1/129}",
        "allowCIDRs",
    ),
    (
        "--set=brokers.allowCIDRs={::/0}",
        "--set=brokers.allowCIDRs={1::2::3/64}",
        "allowCIDRs",
    ),
];

#[test]
fn what_kubernetes_or_the_operator_would_not_take_is_refused() {
    for major in Major::ALL {
        let helm = Helm::new(major).unwrap();
        for &(good, bad, word) in PAIRS {
            let all = ["--set=image.repository=poolwright", good];
            if let Err(error) = helm.render(None, &all) {
                panic!("{major:?} {good}: {error}");
            }
            expect_words(&format!("{major:?} {bad}"), &refusal(&helm, &[bad]), &[word]);
        }
    }
}

/// Of these null takes a default away, which is Kubernetes' own matter or an ordinary label.
const MAY_BE_NOTHING: [&str; 7] = [
    "topologySpreadConstraints",
    "resources",
    "podSecurityContext",
    "securityContext",
    "livenessProbe",
    "readinessProbe",
    "metrics.dashboard.labels",
];

fn null(path: &str) -> String {
    format!("--set={path}=null")
}

/// `key:` in a file of values is null, by which Helm takes the default away. Where that is empty it is the same; any
/// other is refused by its name, since the chart would go on without a word.
#[test]
fn nothing_in_place_of_a_value_is_its_default_or_refused() {
    let on = [
        "--set=metrics.serviceMonitor.enabled=true,metrics.prometheusRule.enabled=true",
        "--set=metrics.dashboard.enabled=true,image.repository=poolwright",
    ];
    let defaults = values();
    let empty = [json!(""), json!(false), json!([]), json!({})];
    let paths: Vec<String> = described(&text()).into_iter().map(|one| one.path).collect();
    let (same, filled): (Vec<&String>, Vec<&String>) = paths
        .iter()
        .partition(|path| value_at(&defaults, path).is_some_and(|value| empty.contains(value)));
    let (may, must): (Vec<&String>, Vec<&String>) = filled
        .into_iter()
        .partition(|path| MAY_BE_NOTHING.contains(&path.as_str()));
    assert!(same.len() > 30 && must.len() > 20, "{same:?} {must:?}");
    for major in Major::ALL {
        let helm = Helm::new(major).unwrap();
        let all = |paths: &[&String]| {
            let nulls: Vec<String> = paths.iter().map(|path| null(path)).collect();
            let more: Vec<&str> = nulls.iter().map(String::as_str).chain(on).collect();
            helm.render(None, &more)
        };
        assert!(
            all(&same).unwrap() == all(&[]).unwrap(),
            "{major:?}: an empty value is not its default"
        );
        assert!(all(&may).unwrap().contains("kind: Deployment"), "{major:?}");
        for path in &must {
            let key = path.rsplit('.').next().unwrap_or_default();
            expect_words(
                path,
                &refusal(&helm, &[&null(path)]),
                &["missing propert", &format!("'{key}'")],
            );
        }
    }
}

/// Whatever stands in it, a text is one argument.
#[test]
fn a_level_is_one_argument() {
    let helm = Helm::new(Major::Three).unwrap();
    let settings = [
        "--set=image.repository=poolwright",
        "--set=operator.logLevel=info: a #b",
    ];
    let objects = chart::objects(&helm.render(None, &settings).unwrap()).unwrap();
    let deployment = objects.iter().find(|one| one["kind"] == "Deployment").unwrap();
    let args = &deployment["spec"]["template"]["spec"]["containers"][0]["args"];
    assert!(
        args.as_array()
            .unwrap()
            .contains(&json!("--log-level=info: a #b")),
        "{args}"
    );
}

/// Labels by which parts of a release are found win over those for all objects, and stand there once.
#[test]
fn common_labels_replace_none_of_ours() {
    let helm = Helm::new(Major::Four).unwrap();
    let labels = r#"--set-json=commonLabels={"app.kubernetes.io/component":"theirs","app.kubernetes.io/name":"theirs"}"#;
    let settings = ["--set=image.repository=poolwright", labels];
    for (template, component, times) in [("service", "operator", 2), ("tests/ready", "test", 1)] {
        let only = format!("--show-only=templates/{template}.yaml");
        let text = helm
            .render(None, &[&settings[..], &[only.as_str()]].concat())
            .unwrap();
        assert_eq!(
            text.matches("app.kubernetes.io/component:").count(),
            times,
            "{text}"
        );
        let object = &chart::objects(&text).unwrap()[0];
        let labels = &object["metadata"]["labels"];
        assert_eq!(labels["app.kubernetes.io/component"], component);
        assert_eq!(labels["app.kubernetes.io/name"], "poolwright");
    }
    let text = helm.render(None, &settings).unwrap();
    let role = chart::objects(&text)
        .unwrap()
        .into_iter()
        .find(|one| chart::identity(one) == "ClusterRole /poolwright")
        .unwrap();
    assert_eq!(
        role["metadata"]["labels"]["app.kubernetes.io/component"],
        "theirs"
    );
}

/// Braces of Prometheus come through as values.yaml says to write them.
#[test]
fn braces_that_are_not_helms_come_through() {
    let told = r#"{{ "{{" }} $labels.namespace {{ "}}" }}"#;
    assert!(text().contains(told), "values.yaml does not say {told}");
    let values = chart::folder().join("ci/operator-values.yaml");
    assert!(std::fs::read_to_string(&values).unwrap().contains(told));
    for major in Major::ALL {
        let rendered = Helm::new(major).unwrap().render(Some(&values), &[]).unwrap();
        assert!(rendered.contains("{{ $labels.namespace }}"), "{major:?}");
    }
}

/// What `helm install` says at its end. Helm 3 asks a cluster for it.
fn notes(more: &[&str]) -> String {
    let chart = chart::folder();
    let mut args = vec!["install", "poolwright", chart.to_str().unwrap()];
    args.extend([
        "--namespace=ops",
        "--dry-run=client",
        "--set=image.repository=poolwright",
    ]);
    args.extend(more);
    let told = Helm::new(Major::Four).unwrap().run(args).unwrap();
    told.split("NOTES:").nth(1).unwrap().to_owned()
}

/// Advice is for what is so in this release.
#[test]
fn notes_advise_what_helps() {
    let (kept, secrets) = ("helm uninstall deletes the definitions", "rbac.secretNamespaces");
    let plain = notes(&[]);
    assert!(plain.contains(secrets) && !plain.contains(kept), "{plain}");
    let mine = notes(&["--set=crds.keep=false,rbac.secretNamespaces={shop}"]);
    assert!(mine.contains(kept) && !mine.contains(secrets), "{mine}");
    let theirs = notes(&["--set=crds.keep=false,crds.install=false,rbac.create=false"]);
    assert!(!theirs.contains(kept) && !theirs.contains(secrets), "{theirs}");
    expect_words("notes", &theirs, &["rbac.create is false", "poolwright of ops"]);
}
