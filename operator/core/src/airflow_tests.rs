use serde_json::{Value, json};

use crate::advice::advise;
use crate::deployment::render;
use crate::revision::revision;
use crate::testing::{check, pool, queues, wp};

/// A WorkerPool of Airflow with this `spec.airflow`, and `patch` over its spec.
fn airflow(airflow: &Value, mut patch: Value) -> poolwright_api::v1alpha1::WorkerPool {
    patch["celery"] = Value::Null;
    patch["airflow"] = airflow.clone();
    wp(patch)
}

fn limits(cpu: Option<&str>, memory: Option<&str>) -> Value {
    let mut limits = json!({});
    for (name, value) in [("cpu", cpu), ("memory", memory)] {
        if let Some(value) = value {
            limits[name] = json!(value);
        }
    }
    json!({"worker": {"resources": {"limits": limits}}})
}

#[test]
fn slots_follow_from_the_limits_and_the_arithmetic_is_told() {
    let table = [
        (Some("8"), Some("16Gi"), "32 = min(32, 12 × 8 CPU, 8 × 16Gi)"),
        (Some("1"), Some("2Gi"), "12 = min(32, 12 × 1 CPU, 8 × 2Gi)"),
        (Some("2"), Some("1536Mi"), "12 = min(32, 12 × 2 CPU, 8 × 1536Mi)"),
        (Some("130m"), None, "1 = min(32, 12 × 130m CPU)"),
        (Some("10m"), None, "1 = min(32, 12 × 10m CPU)"),
        (None, Some("1G"), "7 = min(32, 8 × 1G)"),
        (
            None,
            None,
            "16: Airflow's default, for no limit says how many fit",
        ),
    ];
    for (cpu, memory, told) in table {
        let found = pool(&airflow(&json!({}), limits(cpu, memory)));
        assert_eq!(found.concurrency_from, told);
        let count = told.split([' ', ':']).next().unwrap();
        assert_eq!(found.concurrency.to_string(), count);
    }
    let written = pool(&airflow(&json!({"concurrency": 5}), limits(Some("8"), None)));
    assert_eq!(written.concurrency_from, "5: spec.airflow.concurrency");
    let bounds = json!({"autoscale": {"min": 2, "max": 9}});
    let scaled = pool(&airflow(&bounds, json!({})));
    assert_eq!(scaled.concurrency_from, "9: spec.airflow.autoscale.max");
}

#[test]
fn a_worker_is_started_as_airflow_starts_it() {
    let written = json!({"longestTaskSeconds": 7200, "extraArgs": ["--skip-serve-logs"]});
    let wp = airflow(
        &written,
        json!({"worker": {"env": [{"name": "A", "value": "1"}]}}),
    );
    let deployment = render(&pool(&wp), &wp);
    let pod = deployment.spec.unwrap().template.spec.unwrap();
    assert_eq!(pod.termination_grace_period_seconds, Some(7215));
    let worker = &pod.containers[0];
    assert_eq!(worker.command.as_deref().unwrap(), ["airflow"]);
    assert_eq!(
        worker.args.as_ref().unwrap().join(" "),
        "celery worker -H celery@$(POD_NAME) -q orders,mail -c 16 --without-gossip --skip-serve-logs"
    );
    let env = worker.env.as_ref().unwrap().iter();
    let env: Vec<_> = env.map(|one| (one.name.as_str(), one.value.as_deref())).collect();
    assert_eq!(
        env,
        [
            ("POD_NAME", None),
            ("DUMB_INIT_SETSID", Some("0")),
            ("AIRFLOW__CELERY__WORKER_PREFETCH_MULTIPLIER", Some("1")),
            ("A", Some("1")),
        ]
    );
    let name = deployment.metadata.labels.unwrap()["app.kubernetes.io/name"].clone();
    assert_eq!(name, "airflow-worker");
    // What is read from the command line of an old revision.
    let args = || worker.args.iter().flatten().map(String::as_str);
    assert_eq!(crate::command::queues(args()).unwrap(), ["orders", "mail"]);
    assert_eq!(crate::command::concurrency(args()), Some(16));
}

#[test]
fn each_setting_of_the_pod_makes_a_revision_and_no_other_does() {
    let name = |written: &Value, patch: Value| {
        let wp = airflow(written, patch);
        revision(&pool(&wp), &wp)
    };
    let base = name(&json!({}), json!({}));
    for written in [
        json!({"concurrency": 3}),
        json!({"autoscale": {"min": 1, "max": 16}}),
        json!({"prefetchMultiplier": 2}),
        json!({"longestTaskSeconds": 60}),
        json!({"extraArgs": ["-s"]}),
    ] {
        assert_ne!(name(&written, json!({})), base, "{written}");
    }
    assert_eq!(
        name(&json!({"concurrency": 16, "prefetchMultiplier": 1}), json!({})),
        base
    );
    assert_eq!(name(&json!({}), json!({"scaling": {"maxReplicas": 3}})), base);
    assert_eq!(
        name(&json!({}), json!({"worker": {"command": ["airflow"]}})),
        base
    );
}

#[test]
fn what_cannot_be_counted_with_is_refused_by_its_name() {
    let env = |name: &str| json!({"worker": {"env": [{"name": name, "value": "1"}]}});
    let table = [
        (json!({"concurrency": 0}), json!({}), "spec.airflow.concurrency"),
        (
            json!({"concurrency": 2, "autoscale": {"min": 1, "max": 2}}),
            json!({}),
            "spec.airflow.concurrency",
        ),
        (
            json!({"autoscale": {"min": 3, "max": 2}}),
            json!({}),
            "spec.airflow.autoscale.min",
        ),
        (
            json!({"autoscale": {"min": 0, "max": 0}}),
            json!({}),
            "spec.airflow.autoscale.max",
        ),
        (
            json!({"prefetchMultiplier": 0}),
            json!({}),
            "spec.airflow.prefetchMultiplier",
        ),
        (
            json!({"longestTaskSeconds": 604_801}),
            json!({}),
            "spec.airflow.longestTaskSeconds",
        ),
        (
            json!({"extraArgs": ["-s", "-sq"]}),
            json!({}),
            "spec.airflow.extraArgs[1]",
        ),
        (
            json!({"extraArgs": ["--conc=9"]}),
            json!({}),
            "spec.airflow.extraArgs[0]",
        ),
        (
            json!({"extraArgs": ["--celery-hostname"]}),
            json!({}),
            "spec.airflow.extraArgs[0]",
        ),
        (json!({}), json!({"class": "Cpu"}), "spec.class"),
        (
            json!({}),
            env("AIRFLOW__CELERY__WORKER_AUTOSCALE"),
            "spec.worker.env[0].name",
        ),
        (json!({}), env("AIRFLOW__CELERY__POOL"), "spec.worker.env[0].name"),
        (
            json!({}),
            json!({"worker": {"command": [""]}}),
            "spec.worker.command",
        ),
    ];
    for (written, patch, field) in table {
        let invalid = check(&airflow(&written, patch.clone())).unwrap_err();
        assert_eq!(invalid.field, field, "{written} {patch}: {invalid}");
    }
    for arguments in [
        json!(["-s"]),
        json!(["--without-mingle"]),
        json!(["--pid", "/tmp/p"]),
    ] {
        check(&airflow(&json!({"extraArgs": arguments}), json!({}))).unwrap();
    }
    let both = check(&wp(json!({"airflow": {}}))).unwrap_err();
    assert_eq!(both.field, "spec.airflow");
    let neither = check(&wp(json!({"celery": null}))).unwrap_err();
    assert_eq!(neither.field, "spec.celery");
}

#[test]
fn settings_that_leave_slots_idle_are_advised_on() {
    let env = |name: &str, value: &str| json!({"worker": {"env": [{"name": name, "value": value}]}});
    let told = |written: &Value, patch: Value| {
        let wp = airflow(written, patch);
        let all = advise(&pool(&wp), &wp, &queues(), &[]).into_iter();
        all.map(|one| format!("{}: {}", one.field, one.text))
            .collect::<Vec<_>>()
    };
    let written = json!({"longestTaskSeconds": 60});
    assert_eq!(told(&written, json!({})), Vec::<String>::new());
    assert_eq!(
        told(&written, env("AIRFLOW__CORE__PARALLELISM", "32")),
        [
            "spec.worker.env[0].value: [core] parallelism lets a scheduler run 32 tasks at a time, and 10 workers of 16 slots \
          have 160: 128 of them stay idle unless there are more schedulers; raise it to 160, or lower \
          spec.scaling.maxReplicas"
        ]
    );
    for enough in ["160", "0"] {
        assert_eq!(
            told(&written, env("AIRFLOW__CORE__PARALLELISM", enough)),
            Vec::<String>::new()
        );
    }
    // No more than that may run, whatever the workers have.
    let capped = |parallelism: &str| {
        let wp = airflow(&written, env("AIRFLOW__CORE__PARALLELISM", parallelism));
        let mut pool = pool(&wp);
        pool.queues.truncate(1);
        pool.queues[0].max_active_tasks = Some(20);
        let all = advise(&pool, &wp, &queues(), &[]).into_iter();
        all.map(|one| one.text).collect::<String>()
    };
    assert_eq!(capped("16"), "", "one whole worker");
    let told_of = capped("12");
    assert!(
        told_of.contains("use 16: 4 of them") && told_of.contains("raise it to 16"),
        "{told_of}"
    );
    assert_eq!(
        told(&written, env("AIRFLOW__CELERY__WORKER_CONCURRENCY", "8")),
        [
            "spec.worker.env[0].value: [celery] worker_concurrency of 8 has no effect: the worker is started with 16: \
          Airflow's default, for no limit says how many fit; write spec.airflow.concurrency, and remove it here"
        ]
    );
    assert_eq!(
        told(&json!({}), json!({})),
        [
            "spec.airflow.longestTaskSeconds: nothing says how long a task may run: set it to the greatest \
          execution_timeout of its tasks. A stopped pod gets 86400 s, and a longer task is killed: set \
          spec.drain.graceSeconds to the longest task"
        ]
    );
    assert_eq!(
        told(&json!({}), json!({"drain": {"graceSeconds": 60}})),
        Vec::<String>::new()
    );
    // Airflow's own limit is a day, and the TaskQueue says an hour.
    let hour = told(&json!({"longestTaskSeconds": 3600}), json!({}));
    assert!(
        hour[0].starts_with("spec.airflow.longestTaskSeconds: a message may stay unacknowledged for 7200 s")
    );
    let small = json!({"worker": {"resources": {"limits": {"memory": "1Gi"}}}});
    let memory = told(&json!({"longestTaskSeconds": 60, "concurrency": 20}), small);
    assert!(
        memory[0].ends_with("or lower spec.airflow.concurrency"),
        "{memory:?}"
    );
}
