//! Golden tests over files in `testdata`, and what a report must never hold.

use std::fs;
use std::path::PathBuf;

use poolwright_core::broker::{BrokerConfig, BrokerOptions};

use super::*;

fn testdata(file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("src/lint/testdata")
        .join(file)
}

fn of(texts: &[(&str, &str)]) -> Report {
    let sources: Vec<(String, String)> = texts
        .iter()
        .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))
        .collect();
    lint(&sources)
}

const QUEUE: &str = "\
apiVersion: poolwright.dev/v1alpha1
kind: TaskQueue
metadata:
  name: mail
spec:
  broker:
    url: redis://redis:6379/0
";

/// With a visibility timeout that the class's time limit does not reach.
const LONG_QUEUE: &str = "\
apiVersion: poolwright.dev/v1alpha1
kind: TaskQueue
metadata:
  name: mail
spec:
  broker:
    url: redis://redis:6379/0
    redis:
      visibilityTimeoutSeconds: 14400
";

const POOL: &str = "\
apiVersion: poolwright.dev/v1alpha1
kind: WorkerPool
metadata:
  name: mail
spec:
  class: Cpu
  queues:
  - name: mail
  celery:
    app: shop
  worker:
    image: shop
    resources:
      limits: {cpu: 4}
";

/// `UPDATE=1` writes the expected text anew; each line of it was compared with the file by eye.
#[test]
fn every_kind_of_mistake_is_found_in_its_place() {
    let text = fs::read_to_string(testdata("mistakes.yaml")).unwrap();
    let found = of(&[("mistakes.yaml", &text)]).to_string();
    if std::env::var_os("UPDATE").is_some_and(|value| value == "1") {
        fs::write(testdata("mistakes.txt"), &found).unwrap();
    }
    let expected = fs::read_to_string(testdata("mistakes.txt")).unwrap();
    assert!(found == expected, "found:\n{found}\nexpected:\n{expected}");
    assert!(
        !found.contains("hunter2") && !found.contains("someone"),
        "user information is repeated"
    );
}

#[test]
fn good_files_give_nothing() {
    let report = of(&[("queue.yaml", LONG_QUEUE), ("pool.yaml", POOL)]);
    assert_eq!(
        report.to_string(),
        "0 errors, 0 warnings, 0 notes in 2 objects of 2 files\n"
    );
    assert!(!report.has_errors());
}

#[test]
fn a_queue_elsewhere_is_a_note_and_namespaces_are_apart() {
    let report = of(&[("pool.yaml", POOL)]);
    assert_eq!(
        report
            .findings
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>(),
        [
            r#"pool.yaml:8:11: note: spec.queues[0].name: TaskQueue "mail" is not in these files: it must exist in the namespace"#
        ]
    );
    let other = QUEUE.replace("name: mail", "name: mail\n  namespace: other");
    assert_eq!(
        of(&[("queue.yaml", &other), ("pool.yaml", POOL)]).findings.len(),
        1
    );
}

#[test]
fn a_queue_that_is_nearly_in_the_files_is_asked_after() {
    let queue = LONG_QUEUE
        .replace("name: mail", "name: general-background")
        .replace("spec:\n", "spec:\n  queue: general_background\n");
    let words = |name: &str| {
        let pool = POOL.replace("- name: mail", &format!("- name: {name}"));
        let report = of(&[("queue.yaml", &queue), ("pool.yaml", &pool)]);
        let warned = |finding: &&Finding| finding.severity == Severity::Warning;
        let found: Vec<String> = report
            .findings
            .iter()
            .filter(warned)
            .map(ToString::to_string)
            .collect();
        assert_eq!(found.len(), 1, "{report}");
        found.concat()
    };
    assert_eq!(
        words("general-backgruond"),
        r#"pool.yaml:8:11: warning: spec.queues[0].name: TaskQueue "general-backgruond" is not in these files; is "general-background" meant?"#
    );
    assert_eq!(
        words("general_background"),
        r#"pool.yaml:8:11: warning: spec.queues[0].name: "general_background" is a queue's name on the broker: write the name of its TaskQueue, "general-background" (queue.yaml:4)"#
    );
}

/// What a Deployment would be refused for, or would go without, is said of the WorkerPool's own field.
#[test]
fn what_a_pod_cannot_have_is_said_at_its_field() {
    let said = |spec: &str| {
        let pool = format!("{POOL}{spec}");
        let report = of(&[("queue.yaml", LONG_QUEUE), ("pool.yaml", &pool)]);
        let found: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
        assert_eq!(report.has_errors(), !found.is_empty(), "{report}");
        found.concat()
    };
    let mount = "    volumeMounts:\n    - {name: scratch, mountPath: /tmp}\n";
    let volume = "  pod:\n    volumes:\n    - {name: scratch, emptyDir: {}}\n";
    assert_eq!(
        said(mount),
        "pool.yaml:16:7: error: spec.worker.volumeMounts: must each name a volume of spec.pod.volumes"
    );
    assert_eq!(said(&format!("{mount}{volume}")), "");
    let sidecar = "    sidecars:\n    - name: proxy\n      volumeMounts: [{name: data, mountPath: /d}]\n";
    let found = said(&format!("{volume}{sidecar}"));
    let words = "pool.yaml:20:29: error: spec.pod.sidecars[0].volumeMounts[0].name: is \"data\"";
    assert!(found.starts_with(words), "{found}");

    for (field, key) in [
        ("labels", "poolwright.dev/team"),
        ("labels", "app.kubernetes.io/instance"),
        ("labels", "app.kubernetes.io/managed-by"),
        ("annotations", "poolwright.dev/team"),
        ("annotations", "controller.kubernetes.io/pod-deletion-cost"),
    ] {
        let found = said(&format!("  pod:\n    {field}: {{\"{key}\": \"1\"}}\n"));
        let words = format!("error: spec.pod.{field}: must not use the prefix poolwright.dev/");
        assert!(
            found.contains(&words) && found.ends_with("Poolwright sets them"),
            "{key}: {found}"
        );
    }
    let labels = "{app.kubernetes.io/part-of: shop, app.kubernetes.io/instances: a}";
    assert_eq!(
        said(&format!(
            "  pod:\n    labels: {labels}\n    annotations: {{a: b}}\n"
        )),
        ""
    );
}

/// Of a Pool without a limit there is nothing to halve.
#[test]
fn a_load_that_takes_nothing_away_is_told() {
    let said = |slots: i32| {
        let pool = format!(
            "apiVersion: poolwright.dev/v1alpha1\nkind: Pool\nmetadata:\n  name: gpu\nspec:\n  slots: {slots}\n  \
             loadShedding:\n    source: {{configMapKeyRef: {{name: load, key: percent}}}}\n"
        );
        let report = of(&[("pool.yaml", &pool)]);
        let found: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
        found.concat()
    };
    let words = "pool.yaml:8:5: warning: spec.loadShedding: has no effect: of spec.slots -1";
    assert!(said(-1).starts_with(words), "{}", said(-1));
    assert_eq!(said(8), "");
}

/// A pod that is never started is told with the number that fits; one that fits is not.
#[test]
fn a_pod_that_fits_nowhere_is_told_what_would() {
    let budget = |slots: i32| {
        format!(
            "apiVersion: poolwright.dev/v1alpha1\nkind: Pool\nmetadata:\n  name: gpu\nspec:\n  slots: {slots}\n"
        )
    };
    let said = |slots: i32, spec: &str| {
        let queue = LONG_QUEUE.replace("spec:\n", &format!("spec:\n{spec}"));
        let report = of(&[
            ("b.yaml", &budget(slots)),
            ("queue.yaml", &queue),
            ("pool.yaml", POOL),
        ]);
        let found: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
        assert_eq!(report.has_errors(), !found.is_empty(), "{report}");
        found.concat()
    };
    let draws = |per_task: i32| format!("  pool: {{name: gpu, slotsPerTask: {per_task}}}\n");
    assert_eq!(
        said(11, &draws(3)),
        "pool.yaml:10:5: error: spec.celery.concurrency: a pod takes 12 slots = concurrency 4 × slotsPerTask 3, and \
         Pool \"gpu\" (b.yaml:6) has 11: no pod may start (PodLargerThanPool); 3 is the most that fits"
    );
    let none = said(2, &draws(3));
    let words = "has 2: no pod may start (PodLargerThanPool); raise spec.slots there, or lower slotsPerTask of \
                 TaskQueue \"mail\"";
    assert!(none.ends_with(words), "{none}");
    for slots in [12, -1, 0] {
        assert_eq!(said(slots, &draws(3)), "", "{slots}");
    }
    assert_eq!(said(1, ""), "", "it draws on another Pool");

    let capped = said(1, "  maxActiveTasks: 3\n");
    let words = "maxActiveTasks of TaskQueue \"mail\" is 3: no pod may start; 3 is the most that fits, or raise \
                 spec.maxActiveTasks there";
    assert!(capped.ends_with(words), "{capped}");
    assert_eq!(said(1, "  maxActiveTasks: 4\n"), "");
}

#[test]
fn a_pool_elsewhere_is_a_note_but_for_the_one_that_is_made() {
    let with_pool = |name: &str| {
        let queue = QUEUE.replace("spec:\n", &format!("spec:\n  pool: {{name: {name}}}\n"));
        of(&[("queue.yaml", &queue)]).to_string()
    };
    assert_eq!(
        with_pool("gpu"),
        "queue.yaml:6:16: note: spec.pool.name: Pool \"gpu\" is not in these files: it must exist in the namespace\n\
         0 errors, 0 warnings, 1 note in 1 object of 1 file\n"
    );
    assert!(with_pool("default-pool").starts_with("0 errors, 0 warnings, 0 notes"));
}

#[test]
fn the_objects_of_a_list_are_checked() {
    let indented = QUEUE
        .replace("redis://redis", "http://redis")
        .replace('\n', "\n  ");
    let list = format!("apiVersion: v1\nkind: List\nitems:\n- {}\n", indented.trim_end());
    let report = of(&[("list.yaml", &list)]);
    assert_eq!(report.objects, 1);
    assert_eq!(report.findings.len(), 1, "{report}");
    let text = report.findings[0].to_string();
    assert!(
        text.starts_with("list.yaml:10:12: error: spec.broker.url: must start with redis://"),
        "{text}"
    );
}

/// As `kubectl get --raw` answers, and as kubectl applies it.
#[test]
fn the_objects_of_a_list_of_one_kind_are_checked() {
    let list = |kind: &str, items: &str| {
        let head = format!(r#"{{"apiVersion": "poolwright.dev/v1alpha1", "kind": "{kind}""#);
        of(&[("list.json", &format!("{head}, {items}}}"))])
    };
    let pool = r#"{"apiVersion": "poolwright.dev/v1alpha1", "kind": "Pool", "metadata": {"name": "a"}, "spec": {"slots": 1}}"#;
    let items = format!(r#""metadata": {{"resourceVersion": "7"}}, "items": [{pool}]"#);
    for kind in ["PoolList", "TaskQueueList", "WorkerPoolList"] {
        let report = list(kind, &items);
        assert_eq!((report.objects, report.findings.len()), (1, 0), "{report}");
    }
    let wrong = list("PoolList", &items.replace("\"slots\"", "\"slot\""));
    assert!(wrong.to_string().contains("spec.slot: unknown field"), "{wrong}");
    let wrong = list("PoolList", "\"items\": {}").to_string();
    assert!(wrong.contains("items: must be a list"), "{wrong}");
    let wrong = list("DogList", &items).to_string();
    assert!(wrong.contains("kind: must be one of"), "{wrong}");
}

#[test]
fn the_objects_of_a_json_stream_are_checked() {
    let pool = |name: &str, slots: i32| {
        let kind = r#""apiVersion": "poolwright.dev/v1alpha1", "kind": "Pool""#;
        format!(r#"{{{kind}, "metadata": {{"name": "{name}"}}, "spec": {{"slots": {slots}}}}}"#)
    };
    let two = format!("{}\n{}\n", pool("a", 1), pool("b", -2));
    let report = of(&[("a.json", &two)]);
    assert_eq!((report.objects, report.findings.len()), (2, 1), "{report}");
    assert_eq!(report.findings[0].place.line, 2, "{report}");
    let report = of(&[("a.json", &two.replace("}\n{", "}{"))]);
    let place = report.findings[0].place;
    assert_eq!(place.line, 1, "{report}");
    assert!(place.column > pool("a", 1).len() as u64, "{report}");
}

/// The server and kubectl take it for the namespace of the context.
#[test]
fn an_empty_namespace_is_none() {
    let empty = LONG_QUEUE.replace("name: mail", "name: mail\n  namespace: \"\"");
    let report = of(&[("queue.yaml", &empty), ("pool.yaml", POOL)]);
    assert!(report.findings.is_empty(), "{report}");
    let bad = LONG_QUEUE.replace("name: mail", "name: mail\n  namespace: Shop");
    let report = of(&[("queue.yaml", &bad)]);
    assert!(
        report.to_string().contains("metadata.namespace: must match"),
        "{report}"
    );
}

#[test]
fn one_broken_document_hides_no_other() {
    let text = format!(
        "a: [\n---\n{}---\nb: {{\n",
        QUEUE.replace("name: mail", "name: Mail")
    );
    let report = of(&[("a.yaml", &text)]);
    let lines: Vec<u64> = report.findings.iter().map(|finding| finding.place.line).collect();
    assert_eq!(report.count(Severity::Error), 3, "{report}");
    assert!(lines.contains(&6), "{report}");
}

#[test]
fn user_information_is_never_repeated() {
    for text in [
        "amqp://u:p@h/v and redis://:pa/ss@host:1",
        "x//me@y",
        "redis://h?password=p&x=1",
        "amqp://h?User=p;username=p",
    ] {
        let clean = redacted(text);
        for secret in ["u:", "p@", "pa/ss", "me@", "=p"] {
            assert!(!clean.contains(secret), "{clean}");
        }
    }
    let key = QUEUE.replace("url: redis://redis:6379/0", "redis://u:topsecret@host/0: x");
    let url = QUEUE.replace(
        "url: redis://redis:6379/0",
        "url: {redis://u:topsecret@host/0: x}",
    );
    let broken = QUEUE.replace("url: redis://redis:6379/0", "url: redis://u:topsecret@host/0: [x");
    for text in [key, url, broken] {
        let report = of(&[("a.yaml", &text)]);
        assert!(report.has_errors());
        assert!(!report.to_string().contains("topsecret"), "{report}");
    }
}

#[test]
fn files_are_read_and_the_outcome_is_that_of_the_errors() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let (queue, bad) = (file("queue.yaml", QUEUE), file("bad.yaml", "kind: TaskQueue\n"));
    let pool = file("pool.yaml", POOL);
    let args = |files: &[&PathBuf], strict| LintArgs {
        files: files.iter().copied().cloned().collect(),
        strict,
        ..LintArgs::default()
    };
    let mut output = Vec::new();
    let mut good = |files: &[&PathBuf], strict| run(&args(files, strict), &mut output).unwrap();
    assert!(good(&[&queue], false) && good(&[&queue], true));
    assert!(!good(&[&queue, &bad], false));
    // Its queue is elsewhere, which is a note.
    assert!(good(&[&pool], false) && !good(&[&pool], true));
    let text = String::from_utf8(output).unwrap();
    assert!(
        text.contains("bad.yaml:1:1: error: apiVersion: is required\n"),
        "{text}"
    );
    let missing = folder.path().join("missing.yaml");
    let error = run(&args(&[&missing], false), &mut Vec::new()).unwrap_err();
    assert!(error.to_string().contains("missing.yaml: "), "{error}");
}

#[test]
fn hostile_files_end_in_an_error() {
    let level = |level: usize| {
        let below = if level == 0 {
            "x".to_owned()
        } else {
            format!("*a{}", level - 1)
        };
        format!("a{level}: &a{level} [{}]\n", vec![below; 10].join(", "))
    };
    let bomb: String = (0..12).map(level).collect();
    let deep = format!("a: {}", "[".repeat(100_000));
    for text in [
        bomb,
        deep,
        "\u{0}".to_owned(),
        "a: !!binary x\nkind: {a: b}: c".to_owned(),
    ] {
        assert!(of(&[("a.yaml", &text)]).has_errors());
    }
}

/// What the schema lets through and the operator refuses has the place of the option, not that of the address.
#[test]
fn options_of_a_broker_are_read_as_the_operator_reads_them() {
    let broker = "amqp://rabbit:5672/\n    rabbitmq:\n      metricsUrl: http://rabbit:156920/metrics";
    let text = QUEUE.replace("redis://redis:6379/0", broker);
    let found = of(&[("queue.yaml", &text)]);
    assert_eq!(found.findings.len(), 1, "{found}");
    let words = found.findings[0].to_string();
    assert!(
        words.starts_with("queue.yaml:9:19: error: spec.broker.rabbitmq.metricsUrl: "),
        "{words}"
    );
}

#[test]
fn a_folder_stands_for_its_manifests_and_an_empty_file_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let lints = |path: &std::path::Path| {
        let mut output = Vec::new();
        let args = LintArgs {
            files: vec![path.to_owned()],
            ..LintArgs::default()
        };
        let outcome = run(&args, &mut output).map_err(|error| error.to_string());
        (outcome, String::from_utf8(output).unwrap())
    };
    let (outcome, _) = lints(folder.path());
    assert!(
        outcome
            .unwrap_err()
            .ends_with("holds no .yaml, .yml or .json file")
    );
    for (name, text) in [("b.yml", QUEUE), ("a.yaml", POOL), ("notes.txt", "kind: [")] {
        fs::write(folder.path().join(name), text).unwrap();
    }
    let (outcome, text) = lints(folder.path());
    assert_eq!(outcome, Ok(true), "{text}");
    assert!(text.ends_with("in 2 objects of 2 files\n"), "{text}");
    let empty = folder.path().join("c.yaml");
    for nothing in ["", "# later\n---\n"] {
        fs::write(&empty, nothing).unwrap();
        let (outcome, text) = lints(&empty);
        assert_eq!(outcome, Ok(false));
        assert!(text.contains("c.yaml:1:1: error: holds no object\n"), "{text}");
    }
}

/// Admission may not know better than what connects.
#[test]
fn an_address_that_can_be_used_is_not_refused() {
    let schemes = ["redis", "rediss", "amqp", "amqps"];
    let hosts = ["host", "host:1", "[::1]", ":1", ""];
    let pieces = ["/", "/", "0", "7", "n", ".", "%2e", "?", ":", "=", ";"];
    let mut random = fastrand::Rng::with_seed(1);
    let mut urls = Vec::new();
    for number in 0..600 {
        let (scheme, host) = (schemes[number % 4], hosts[number / 4 % 5]);
        let path: String = (0..random.usize(0..6))
            .map(|_| pieces[random.usize(0..pieces.len())])
            .collect();
        urls.push(format!("{scheme}://{host}{path}"));
    }
    // The definition wants nine characters.
    urls.retain(|url| url.len() >= 9);
    let file = |(number, url): (usize, &String)| {
        let text = QUEUE.replace("redis://redis:6379/0", &format!("\"{url}\""));
        (
            url.clone(),
            text.replace("name: mail", &format!("name: mail-{number}")),
        )
    };
    let report = lint(&urls.iter().enumerate().map(file).collect::<Vec<_>>());
    let mut usable = 0;
    for url in &urls {
        let refused = report.findings.iter().find(|one| one.file == *url);
        if BrokerConfig::parse(url, &BrokerOptions::default()).is_ok() {
            assert!(refused.is_none(), "{refused:?}");
            usable += 1;
        }
    }
    assert!(
        usable > 200 && urls.len() - usable > 200,
        "{usable} of {}",
        urls.len()
    );
}
