//! What the chart renders for every file of values, with both majors.

use poolwright_tests::chart::{self, Helm, Major};
use serde_json::Value;
use std::collections::BTreeSet;

#[test]
fn both_majors_find_nothing_to_complain_about() {
    for major in Major::ALL {
        let helm = Helm::new(major).unwrap();
        let folder = chart::folder();
        for values in chart::ci_values().unwrap() {
            let args = [
                "lint",
                "--strict",
                folder.to_str().unwrap(),
                "--values",
                values.to_str().unwrap(),
            ];
            let output = helm
                .run(args)
                .unwrap_or_else(|error| panic!("{}: {error}", values.display()));
            assert!(output.contains("0 chart(s) failed"), "{output}");
        }
    }
}

/// Nothing twice, which Helm 4 refuses or one of the two silently wins; nothing for a namespace that it does not say;
/// and both majors make the same of it.
#[test]
fn every_object_is_there_once_and_the_same_from_both_majors() {
    let (three, four) = (Helm::new(Major::Three).unwrap(), Helm::new(Major::Four).unwrap());
    for values in chart::ci_values().unwrap() {
        let name = values.file_name().unwrap().to_str().unwrap();
        let [mut old, mut new] = [&three, &four].map(|helm| {
            let text = helm
                .render(Some(&values), &[])
                .unwrap_or_else(|error| panic!("{name}: {error}"));
            chart::objects(&text).unwrap()
        });
        old.sort_by_key(chart::identity);
        new.sort_by_key(chart::identity);
        assert!(old == new, "{name}: the majors differ");
        let found: BTreeSet<String> = old.iter().map(chart::identity).collect();
        assert_eq!(found.len(), old.len(), "{name}: an object is there twice");
        for object in &old {
            expect_no_double(name, object);
        }
    }
}

fn expect_no_double(file: &str, object: &Value) {
    let spec = &object["spec"]["template"]["spec"];
    for container in spec["containers"].as_array().into_iter().flatten() {
        for list in ["env", "ports", "volumeMounts"] {
            let names: Vec<_> = container[list]
                .as_array()
                .into_iter()
                .flatten()
                .map(|one| &one["name"])
                .collect();
            let unique: BTreeSet<String> = names.iter().map(ToString::to_string).collect();
            assert_eq!(unique.len(), names.len(), "{file}: {list} has a name twice");
        }
        let args: Vec<&str> = container["args"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let flags: Vec<&str> = args.iter().map(|arg| arg.split('=').next().unwrap()).collect();
        let may_repeat = ["--namespace", "--allow-broker-cidr"];
        let single: Vec<&&str> = flags.iter().filter(|flag| !may_repeat.contains(flag)).collect();
        let unique: BTreeSet<&&&str> = single.iter().collect();
        assert_eq!(
            unique.len(),
            single.len(),
            "{file}: a flag is there twice: {args:?}"
        );
    }
}

/// Labels that everybody selects by are on every object that is ours.
#[test]
fn every_object_says_whose_it_is() {
    let helm = Helm::new(Major::Four).unwrap();
    let values = chart::folder().join("ci/operator-values.yaml");
    let text = helm.render(Some(&values), &[]).unwrap();
    for object in chart::objects(&text).unwrap() {
        let identity = chart::identity(&object);
        if object["kind"] == "ConfigMap" {
            continue; // the values' own extra objects
        }
        let labels = &object["metadata"]["labels"];
        for (key, value) in [
            ("app.kubernetes.io/name", "scaler"),
            ("app.kubernetes.io/instance", "poolwright"),
            ("app.kubernetes.io/part-of", "poolwright"),
            ("team", "queues"),
        ] {
            assert_eq!(labels[key], value, "{identity}: {key}");
        }
    }
}

/// Guarded metrics are read with Prometheus' own token where nobody names another.
#[test]
fn a_service_monitor_without_a_secret_shows_the_token_of_prometheus() {
    let helm = Helm::new(Major::Four).unwrap();
    let values = chart::folder().join("ci/monitor-values.yaml");
    let objects = chart::objects(&helm.render(Some(&values), &[]).unwrap()).unwrap();
    let monitor = objects
        .iter()
        .find(|one| one["kind"] == "ServiceMonitor")
        .unwrap();
    let endpoint = &monitor["spec"]["endpoints"][0];
    let token = "/var/run/secrets/kubernetes.io/serviceaccount/token";
    assert_eq!(endpoint["bearerTokenFile"], token, "{endpoint}");
    assert!(endpoint["authorization"].is_null(), "{endpoint}");
}

/// With rights in namespaces alone nothing of the operator's own is for the whole cluster.
#[test]
fn the_namespaced_scope_binds_nothing_cluster_wide() {
    let helm = Helm::new(Major::Three).unwrap();
    let values = chart::folder().join("ci/namespaces-values.yaml");
    let objects = chart::objects(&helm.render(Some(&values), &[]).unwrap()).unwrap();
    assert!(objects.iter().all(|one| one["kind"] != "ClusterRoleBinding"));
    let roles: BTreeSet<String> = objects
        .iter()
        .filter(|one| one["kind"] == "Role" || one["kind"] == "RoleBinding")
        .map(chart::identity)
        .collect();
    let expected = [
        "Role mail/poolwright",
        "Role poolwright/poolwright-lease",
        "Role shop/poolwright",
        "RoleBinding mail/poolwright",
        "RoleBinding poolwright/poolwright-lease",
        "RoleBinding shop/poolwright",
        "RoleBinding shop/poolwright-secrets",
    ];
    assert_eq!(roles, expected.map(String::from).into());
}

/// Namespaces are read where a selector chooses them, and nowhere else; the operator takes what the chart hands it.
#[test]
fn only_a_shard_reads_namespaces() {
    let helm = Helm::new(Major::Four).unwrap();
    for values in chart::ci_values().unwrap() {
        let objects = chart::objects(&helm.render(Some(&values), &[]).unwrap()).unwrap();
        let reads = objects.iter().filter(|one| {
            let rules = one["rules"].as_array().into_iter().flatten();
            rules
                .into_iter()
                .any(|rule| rule["resources"].to_string().contains("namespaces"))
        });
        let reads: Vec<String> = reads.map(chart::identity).collect();
        let deployment = objects.iter().find(|one| one["kind"] == "Deployment").unwrap();
        let args = &deployment["spec"]["template"]["spec"]["containers"][0]["args"];
        let args: Vec<&str> = args
            .as_array()
            .unwrap()
            .iter()
            .filter_map(Value::as_str)
            .collect();
        let selector = args.iter().any(|arg| arg.starts_with("--namespace-selector="));
        if !values.ends_with("shard-values.yaml") {
            assert!(reads.is_empty() && !selector, "{}: {reads:?}", values.display());
            continue;
        }
        assert_eq!(reads, ["ClusterRole /shard-a"]);
        assert!(
            selector && args.contains(&"--lease=poolwright/shard-a"),
            "{args:?}"
        );
        let program = poolwright_tests::operator::built("debug");
        // With one more flag that it cannot know, it says so of that one alone.
        let output = std::process::Command::new(program)
            .args(&args)
            .arg("--unknown")
            .output()
            .unwrap();
        let words = String::from_utf8(output.stderr).unwrap();
        assert!(
            words.contains("--unknown") && !words.contains("selector is like"),
            "{words}"
        );
    }
}

/// A Secret makes everything that reaches the port speak TLS: flags, probes, the test pod, and what scrapes.
#[test]
fn a_secret_for_tls_reaches_all_who_use_the_port() {
    let helm = Helm::new(Major::Three).unwrap();
    let render = |file: &str, more: &[&str]| {
        let values = chart::folder().join("ci").join(file);
        chart::objects(&helm.render(Some(&values), more).unwrap()).unwrap()
    };
    let find =
        |objects: &[Value], kind: &str| objects.iter().find(|one| one["kind"] == kind).unwrap().clone();
    let plain = find(&render("default-values.yaml", &[]), "Deployment").to_string();
    assert!(!plain.contains("HTTPS") && !plain.contains("tls"), "{plain}");

    let objects = render("pod-monitor-values.yaml", &[]);
    let pod = &find(&objects, "Deployment")["spec"]["template"]["spec"];
    let operator = &pod["containers"][0];
    for probe in ["livenessProbe", "readinessProbe"] {
        assert_eq!(operator[probe]["httpGet"]["scheme"], "HTTPS", "{probe}");
    }
    let (volume, mount) = (&pod["volumes"][0], &operator["volumeMounts"][0]);
    assert_eq!(volume["secret"]["secretName"], "poolwright-metrics");
    assert_eq!(
        (&volume["name"], &mount["readOnly"]),
        (&mount["name"], &Value::Bool(true))
    );
    assert_eq!(mount["subPath"], Value::Null, "a rotated Secret would not arrive");
    let folder = mount["mountPath"].as_str().unwrap();
    for flag in [
        format!("--metrics-tls-cert={folder}/tls.crt"),
        format!("--metrics-tls-key={folder}/tls.key"),
    ] {
        assert!(
            operator["args"]
                .as_array()
                .unwrap()
                .contains(&flag.clone().into()),
            "{flag}"
        );
    }
    assert!(
        find(&objects, "Pod")
            .to_string()
            .contains("https://poolwright.poolwright.svc:8080/readyz")
    );
    let endpoint = &find(&objects, "PodMonitor")["spec"]["podMetricsEndpoints"][0];
    assert_eq!(endpoint["scheme"], "https");
    assert_eq!(endpoint["tlsConfig"]["serverName"], "poolwright.poolwright.svc");
    assert_eq!(
        endpoint["tlsConfig"]["ca"]["secret"]["name"],
        "poolwright-metrics"
    );
    let named = render("service-monitor-values.yaml", &[]);
    let endpoint = &find(&named, "ServiceMonitor")["spec"]["endpoints"][0];
    assert_eq!(
        endpoint["tlsConfig"]["serverName"], "poolwright.example.com",
        "as it was said"
    );

    let annotated = render("default-values.yaml", &["--set=metrics.tls.secretName=a"]);
    let annotations = &find(&annotated, "Deployment")["spec"]["template"]["metadata"]["annotations"];
    assert_eq!(annotations["prometheus.io/scheme"], "https");
}

/// No wildcard anywhere, and Secrets only in the role that is bound namespace by namespace.
#[test]
fn no_right_is_a_wildcard() {
    let helm = Helm::new(Major::Three).unwrap();
    for values in chart::ci_values().unwrap() {
        for object in chart::objects(&helm.render(Some(&values), &[]).unwrap()).unwrap() {
            let identity = chart::identity(&object);
            for rule in object["rules"].as_array().into_iter().flatten() {
                assert!(!rule.to_string().contains('*'), "{identity}: {rule}");
                let secrets = rule["resources"].to_string().contains("secrets");
                assert!(
                    !secrets || identity == "ClusterRole /poolwright-secrets",
                    "{identity}: {rule}"
                );
            }
        }
    }
}
