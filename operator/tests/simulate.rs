//! `poolwright simulate`, as it is called.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const FLEET: &str = "\
apiVersion: poolwright.dev/v1alpha1
kind: TaskQueue
metadata: {name: mail}
spec:
  broker: {url: \"redis://redis:6379/0\"}
---
apiVersion: poolwright.dev/v1alpha1
kind: WorkerPool
metadata: {name: mail}
spec:
  queues: [{name: mail}]
  celery: {app: shop, concurrency: 4, ackMode: Late, prefetchMultiplier: 1}
  worker: {image: shop}
  scaling: {policy: Backlog, scaleDownDelaySeconds: 600, maxReplicas: 20}
";

/// One worker with 32 slots, always there.
const ONE: &str = "concurrency: 32, ackMode: Late, prefetchMultiplier: 1}
  worker: {image: shop}
  scaling: {minReplicas: 1, maxReplicas: 1}
";

/// A burst at eight on a Monday meets the workers that a schedule has started before it.
#[test]
fn a_schedule_is_simulated_at_the_time_of_day_that_is_asked_for() {
    let folder = Folder::new();
    let schedules = "scaling: {schedules: [{name: day, cron: '58 7 * * MON', timeZone: Europe/Berlin, \
                     durationSeconds: 3600, minReplicas: 5}], ";
    let fleet = folder.write("fleet.yaml", &FLEET.replace("scaling: {", schedules));
    let tasks: String = (0..20).map(|_| "300,mail,10\n").collect();
    let arrivals = folder.write("arrivals.csv", &format!("seconds,queue,service_seconds\n{tasks}"));
    let files: [(&str, &Path); 2] = [("-f", &fleet), ("--arrivals", &arrivals)];
    let longest = |at: &str| {
        let text = good(&simulate(&["--begins-at", at], &files));
        let line = text.lines().find(|line| line.starts_with("wait p99")).unwrap();
        let seconds = line.split_ascii_whitespace().nth(2).unwrap();
        seconds.parse::<f64>().unwrap()
    };
    let (monday, sunday) = (
        longest("2027-01-04T07:55:00+01:00"),
        longest("2027-01-03T07:55:00+01:00"),
    );
    assert!(monday < 2.0 && sunday > 15.0, "{monday} s and {sunday} s");
    for (time, words) in [
        ("eight o'clock", "--begins-at"),
        ("9999-12-30T22:00:00Z", "must be in the years 1970 to 2200"),
    ] {
        let output = simulate(&["--begins-at", time], &files);
        assert_eq!(output.status.code(), Some(2));
        let text = bad(&output);
        assert!(text.contains(words), "{text}");
    }
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

fn simulate(arguments: &[&str], files: &[(&str, &Path)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_poolwright"));
    command.arg("simulate").args(arguments);
    for (flag, path) in files {
        command.arg(flag).arg(path);
    }
    command.output().unwrap()
}

fn good(output: &Output) -> String {
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{error}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn bad(output: &Output) -> String {
    assert!(!output.status.success() && output.stdout.is_empty());
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// The first number behind `name`.
fn number(text: &str, name: &str) -> f64 {
    let rest = text.lines().find_map(|line| line.strip_prefix(name));
    rest.unwrap_or_else(|| panic!("no {name:?} in {text}"))
        .split_whitespace()
        .next()
        .unwrap()
        .parse()
        .unwrap()
}

#[test]
fn two_hundred_tasks_on_thirty_two_slots_take_seven_waves() {
    let folder = Folder::new();
    let (head, _) = FLEET.split_once("concurrency").unwrap();
    let fleet = folder.write("fleet.yaml", &format!("{head}{ONE}"));
    let text = good(&simulate(
        &["--tasks", "200", "--service-seconds", "60"],
        &[("-f", &fleet)],
    ));
    assert!((number(&text, "waves") - 7.0).abs() < 1e-9, "{text}");
    assert!(
        text.contains("mail             1 of at most 1, 32 slots each"),
        "{text}"
    );
    // Six waves of a minute are over when the last one begins, and the worker took about half a minute to start.
    assert!((number(&text, "wait p99") - 390.0).abs() < 25.0, "{text}");
    // Of 200 tasks only the 32 of the first wave may begin in time.
    assert!(
        (84.0..=100.0).contains(&number(&text, "share over target")),
        "{text}"
    );
}

#[test]
fn arrivals_of_a_file_are_run_and_cheaper_settings_are_found() {
    let folder = Folder::new();
    let fleet = folder.write("fleet.yaml", FLEET);
    let mut csv = "seconds,queue,service_seconds\n".to_owned();
    for at in 0..1800 {
        let _ = writeln!(csv, "{},mail,{}", at * 2, 5 + at % 7);
    }
    let arrivals = folder.write("arrivals.csv", &csv);
    let text = good(&simulate(&[], &[("-f", &fleet), ("--arrivals", &arrivals)]));
    assert!(
        text.starts_with("1 WorkerPool, 1 TaskQueue, 1800 tasks\n"),
        "{text}"
    );
    assert!(number(&text, "share over target") <= 5.0, "{text}");
    // 1,800 tasks of 8 s are 4 slot-hours, whoever decides.
    assert!(number(&text, "slot-hours") > 4.0, "{text}");
    assert!(
        text.contains("cheaper settings with at most 5 % over the target, for every WorkerPool:"),
        "{text}"
    );
    assert!(
        text.contains("policy: Backlog, scaleDownDelaySeconds: 10\n"),
        "{text}"
    );
    assert_eq!(
        text,
        good(&simulate(&[], &[("-f", &fleet), ("--arrivals", &arrivals)]))
    );
}

#[test]
fn a_trace_is_run_on_the_only_queue() {
    let folder = Folder::new();
    let fleet = folder.write("fleet.yaml", FLEET);
    let mut rows = "TIMESTAMP,ContextTokens,GeneratedTokens\r\n".to_owned();
    for at in 0..300 {
        let _ = write!(
            rows,
            "2023-11-16 18:{:02}:{:02}.6805900,100,50\r\n",
            at / 60,
            at % 60
        );
    }
    let trace = folder.write("trace.csv", &rows);
    let text = good(&simulate(&[], &[("-f", &fleet), ("--trace", &trace)]));
    assert!(
        text.starts_with("1 WorkerPool, 1 TaskQueue, 300 tasks\n"),
        "{text}"
    );
    let error = bad(&simulate(
        &["--queue", "maul"],
        &[("-f", &fleet), ("--trace", &trace)],
    ));
    assert!(
        error.contains("\"maul\" is no TaskQueue") && error.contains("there are mail"),
        "{error}"
    );
}

#[test]
fn bad_input_is_refused_with_its_place() {
    let folder = Folder::new();
    let fleet = folder.write("fleet.yaml", FLEET);
    let header = "seconds,queue,service_seconds\n";
    for (name, text, words) in [
        ("empty.csv", String::new(), "empty.csv:1: is empty"),
        ("none.csv", header.to_owned(), "none.csv:1: holds no task"),
        (
            "unsorted.csv",
            format!("{header}9,mail,1\n8,mail,1\n"),
            "unsorted.csv:3: is earlier than the line",
        ),
        (
            "negative.csv",
            format!("{header}9,mail,-1\n"),
            "negative.csv:2: service_seconds is -1, and must not be",
        ),
        (
            "column.csv",
            "seconds,queue,size\n".to_owned(),
            "column.csv:1: unknown column \"size\"",
        ),
        (
            "queue.csv",
            format!("{header}9,nail,1\n"),
            "queue.csv:2: \"nail\" is no TaskQueue",
        ),
    ] {
        let file = folder.write(name, &text);
        let error = bad(&simulate(&[], &[("-f", &fleet), ("--arrivals", &file)]));
        assert!(error.contains(words), "{error}");
    }
    let trace = folder.write("trace.csv", "TIMESTAMP,ContextTokens,GeneratedTokens\n");
    let error = bad(&simulate(&[], &[("-f", &fleet), ("--trace", &trace)]));
    assert!(error.contains("trace.csv:1: holds no task"), "{error}");
    let error = bad(&simulate(&[], &[("-f", &folder.0.path().join("none.yaml"))]));
    assert!(error.contains("none.yaml"), "{error}");
}

#[test]
fn a_fleet_with_a_mistake_is_refused_with_line_and_column() {
    let folder = Folder::new();
    for (name, from, to, words) in [
        (
            "schema.yaml",
            "maxReplicas: 20",
            "maxReplicas: 0",
            "schema.yaml:14:71: error: spec.scaling.maxReplicas: must be",
        ),
        (
            "field.yaml",
            "concurrency: 4",
            "concurency: 4",
            "field.yaml:12:23: error: spec.celery.concurency: unknown field",
        ),
        (
            "queue.yaml",
            "[{name: mail}]",
            "[{name: post}]",
            "queue.yaml:11:19: error: spec.queues[0].name",
        ),
        (
            "syntax.yaml",
            "queues: [{name: mail}]",
            "queues: [{name: mail]",
            "syntax.yaml:11:",
        ),
    ] {
        let fleet = folder.write(name, &FLEET.replace(from, to));
        let error = bad(&simulate(&[], &[("-f", &fleet)]));
        assert!(error.contains(words), "{error}");
    }
    let only_queue = FLEET.split("---").next().unwrap();
    let fleet = folder.write("none.yaml", only_queue);
    let error = bad(&simulate(&[], &[("-f", &fleet)]));
    assert!(error.contains("holds no WorkerPool to run"), "{error}");
}

#[test]
fn the_suite_prints_its_table_and_writes_its_page() {
    let folder = Folder::new();
    let out = folder.0.path().join("new/report");
    let arguments = [
        "--suite",
        "--seeds",
        "2",
        "--workload",
        "cron",
        "--workload",
        "adversarial",
    ];
    let output = simulate(&arguments, &[("--report", &out)]);
    let text = good(&output);
    let last = text.lines().last().unwrap();
    assert!(last.starts_with("geo-mean "), "{text}");
    let ratio: f64 = last.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(ratio > 1.0 && ratio < 20.0, "{text}");
    for name in [
        "\ncron ",
        "\nadversarial ",
        "\npoolwright ",
        "\nkeda-rabbit+grace tuned ",
        "\nstatic-p99* ",
    ] {
        assert!(text.contains(name), "{name:?} is not in {text}");
    }
    let progress = String::from_utf8(output.stderr).unwrap();
    assert!(progress.contains("4/4 "), "{progress}");
    let page = std::fs::read_to_string(out.join("index.html")).unwrap();
    assert!(page.contains("geo-mean") && page.matches("<svg").count() == 6);
    for arguments in [["--suite", "--seeds=0"], ["--suite", "--workload=tides"]] {
        let output = simulate(&arguments, &[]);
        assert_eq!(output.status.code(), Some(2));
        let words = if arguments[1].contains("seeds") {
            "0 is not in 1..=1000"
        } else {
            "is no workload"
        };
        assert!(bad(&output).contains(words));
    }
}
