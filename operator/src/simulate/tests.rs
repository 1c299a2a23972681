//! What is said of a user's own fleet, from the manifests to the last line.

use std::fmt::Write as _;

use tempfile::TempDir;

use super::{as_written, cheaper};
use crate::cli::{Cli, Command, SimulateArgs};

/// `simulate -f` with these arguments, in which `ARRIVALS` stands for a file of `arrivals`, and the folder of its files.
pub(super) fn asked(manifests: &str, arguments: &str, arrivals: &str) -> (SimulateArgs, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (fleet, csv) = (path("fleet.yaml"), path("arrivals.csv"));
    std::fs::write(&fleet, manifests).unwrap();
    std::fs::write(&csv, format!("seconds,queue,service_seconds\n{arrivals}")).unwrap();
    let line = format!("poolwright simulate -f {fleet} {arguments}").replace("ARRIVALS", &csv);
    let Command::Simulate(args) = Cli::try_from_arguments(line.split_whitespace()).unwrap().command else {
        panic!("{line}");
    };
    (args, folder)
}

/// What it says before it searches cheaper settings, or its error.
fn told(manifests: &str, arguments: &str, arrivals: &str) -> Result<String, String> {
    let (args, _folder) = asked(manifests, arguments, arrivals);
    let mut output = Vec::new();
    as_written(&args, &mut output).map_err(|error| error.to_string())?;
    Ok(String::from_utf8_lossy(&output).into_owned())
}

/// A TaskQueue with what its spec holds beside the broker.
pub(super) fn queue(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: poolwright.dev/v1alpha1\nkind: TaskQueue\nmetadata: {{name: {name}}}\n\
         spec:\n  broker: {{url: \"redis://redis:6379/0\"}}\n{spec}\n---\n"
    )
}

/// A WorkerPool of the TaskQueue of its name.
pub(super) fn workers(name: &str, celery: &str, scaling: &str) -> String {
    format!(
        "apiVersion: poolwright.dev/v1alpha1\nkind: WorkerPool\nmetadata: {{name: {name}}}\n\
         spec:\n  queues: [{{name: {name}}}]\n  \
         celery: {{app: shop, ackMode: Late, prefetchMultiplier: 1, {celery}}}\n  \
         worker: {{image: shop}}\n  scaling: {{{scaling}}}\n---\n"
    )
}

pub(super) fn pool(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: poolwright.dev/v1alpha1\nkind: Pool\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n---\n"
    )
}

fn mail(celery: &str, scaling: &str) -> String {
    queue("mail", "") + &workers("mail", celery, scaling)
}

/// The words of the line that begins with `name`, without it.
fn line<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    let found = text.lines().find_map(|line| line.strip_prefix(name));
    found
        .unwrap_or_else(|| panic!("no {name:?} in {text}"))
        .split_whitespace()
        .collect()
}

fn number(text: &str, name: &str) -> f64 {
    line(text, name)[0].parse().unwrap()
}

#[test]
fn a_hard_time_limit_ends_tasks_and_a_soft_one_is_told() {
    let fleet = |limit| mail(&format!("concurrency: 4, {limit}"), "maxReplicas: 5");
    let run = |limit| told(&fleet(limit), "--tasks 20 --service-seconds 7200", "").unwrap();
    let text = run("timeLimitSeconds: 600");
    assert!(
        text.contains("\nnot done           20 of 20 tasks\nover time limit    20 tasks\n"),
        "{text}"
    );
    assert!(
        text.contains(
            "note: WorkerPool mail: 20 tasks of its queues, the longest of 7200 s, take longer than timeLimitSeconds \
             600: here as in a cluster it ends them"
        ),
        "{text}"
    );
    // Ten minutes of twenty slots, and what comes before and after them.
    assert!(number(&text, "slot-hours") < 6.0, "{text}");
    assert!(!text.contains("ended at"), "{text}");
    let text = run("softTimeLimitSeconds: 600");
    assert!(
        text.contains("take longer than softTimeLimitSeconds 600: here they run on"),
        "{text}"
    );
    assert!(
        !text.contains("not done") && number(&text, "slot-hours") > 40.0,
        "{text}"
    );
    // Threads know no time limit.
    let text = run("executionPool: Threads, timeLimitSeconds: 600");
    assert!(
        !text.contains("not done") && !text.contains("timeLimitSeconds"),
        "{text}"
    );
}

#[test]
fn an_annotation_pauses_here_too() {
    let fleet = |annotation: &str| {
        let from = "kind: WorkerPool\nmetadata: {name: mail}";
        let to = format!("kind: WorkerPool\nmetadata: {{name: mail, annotations: {{{annotation}}}}}");
        mail("concurrency: 4", "maxReplicas: 5, scaleDownDelaySeconds: 10").replace(from, &to)
    };
    let run = |annotation| told(&fleet(annotation), "--tasks 20 --service-seconds 10", "").unwrap();
    let free = run("");
    assert!(
        !free.contains("paused") && number(&free, "wait p99") < 60.0,
        "{free}"
    );
    for (annotation, words) in [
        (
            "poolwright.dev/paused: \"true\"",
            "note: WorkerPool mail: is paused by annotation",
        ),
        (
            "poolwright.dev/paused-scale-out: \"true\"",
            "note: WorkerPool mail: scale-out is paused by annotation",
        ),
    ] {
        let text = run(annotation);
        assert!(text.contains(words), "{text}");
        assert!(
            text.contains(
                "\nnot done           20 of 20 tasks\nended at 6:10 after the start; 20 tasks left\n"
            ),
            "{text}"
        );
        assert!(text.contains("mail             0 of at most 5"), "{text}");
        assert_eq!(line(&text, "wait p50"), [">22200.0", "s"]);
    }
    let text = run("poolwright.dev/paused-scale-in: \"true\"");
    assert!(
        text.contains("scale-in is paused by annotation: no pod goes"),
        "{text}"
    );
    // Five workers of four slots for the ten minutes that are counted.
    assert!(
        number(&text, "slot-hours") > 2.0 * number(&free, "slot-hours"),
        "{text} {free}"
    );
    let text = run("poolwright.dev/paused: \"false\"");
    assert_eq!(text, free);
}

#[test]
fn tasks_that_are_left_count_in_every_rank() {
    let fleet = mail("concurrency: 1", "maxReplicas: 1");
    let text = told(&fleet, "--tasks 20 --service-seconds 3600", "").unwrap();
    let undone = "not done           14 of 20 tasks\nended at 6:10 after the start; 14 tasks left\n";
    assert!(
        text.starts_with(&format!("1 WorkerPool, 1 TaskQueue, 20 tasks\n{undone}wait p50")),
        "{text}"
    );
    // Seven began, so the tenth of twenty did not.
    assert_eq!(line(&text, "wait p50"), [">22200.0", "s"]);
    let text = told(&fleet, "--tasks 13 --service-seconds 3600", "").unwrap();
    // The seventh of thirteen began, and six have been waiting since.
    assert_eq!(line(&text, "wait p50").len(), 2);
    assert!((number(&text, "wait p50") - 21_630.0).abs() < 30.0, "{text}");
    assert_eq!(line(&text, "wait p95"), [">22200.0", "s"]);
}

#[test]
fn a_pool_that_is_missing_is_an_error() {
    let fleet = |pool: &str| {
        queue("mail", &format!("  pool: {{name: {pool}}}"))
            + &workers("mail", "concurrency: 4", "maxReplicas: 5")
    };
    let error = told(&fleet("gpu"), "--tasks 4", "").unwrap_err();
    assert_eq!(
        error,
        "Pool \"gpu\" of TaskQueue \"mail\" is not in the files: in a cluster no worker of WorkerPool \"mail\" would \
         start (PoolMissing)"
    );
    assert!(told(&fleet("default-pool"), "--tasks 4", "").is_ok());
    assert!(told(&(fleet("gpu") + &pool("gpu", "slots: 8")), "--tasks 4", "").is_ok());
}

/// Each of a name is one object in the cluster, and it is as the later one says.
#[test]
fn what_is_in_the_files_twice_is_run_once() {
    let twice = mail("concurrency: 4", "maxReplicas: 5") + &mail("concurrency: 2", "maxReplicas: 3");
    let text = told(&twice, "--tasks 40", "").unwrap();
    assert!(
        text.starts_with("1 WorkerPool, 1 TaskQueue, 40 tasks\n"),
        "{text}"
    );
    assert_eq!(
        text,
        told(&mail("concurrency: 2", "maxReplicas: 3"), "--tasks 40", "").unwrap()
    );
}

#[test]
fn a_queue_that_nobody_consumes_is_told() {
    let fleet = mail("concurrency: 4", "maxReplicas: 5") + &queue("old", "");
    let text = told(&fleet, "--tasks 4", "").unwrap();
    assert!(
        text.contains("note: TaskQueue old: no WorkerPool consumes it, and it gets no tasks here"),
        "{text}"
    );
    let error = told(&fleet, "--arrivals ARRIVALS", "0,mail,1\n0,old,1\n").unwrap_err();
    assert!(
        error.ends_with(":3: no WorkerPool consumes TaskQueue \"old\": its tasks would never run"),
        "{error}"
    );
}

#[test]
fn what_needs_a_fault_or_a_load_never_acts_and_is_told() {
    let fleet = queue("mail", "")
        + &workers(
            "mail",
            "concurrency: 4",
            "maxReplicas: 5, fallback: {replicas: 2, afterSeconds: 60}",
        )
        + &pool(
            "default-pool",
            "slots: 40, loadShedding: {source: {configMapKeyRef: {name: load, key: percent}}}",
        );
    let text = told(&fleet, "--tasks 4", "").unwrap();
    for words in [
        "note: WorkerPool mail: fallback never acts",
        "note: Pool default-pool: loadShedding never acts",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
}

/// Three queues of one Pool, each with workers of its own.
fn shared(specs: [&str; 3], slots: u32, more: &str) -> String {
    let mut all = pool("shared", &format!("slots: {slots}{more}"));
    for (name, spec) in ["a", "b", "c"].into_iter().zip(specs) {
        all += &queue(name, &format!("  pool: {{name: shared}}\n{spec}"));
        all += &workers(name, "concurrency: 1", "maxReplicas: 100");
    }
    all
}

/// The row of a queue: tasks, not done, p50, s, p95, s, over target, %, share, %.
fn share(text: &str, queue: &str) -> f64 {
    line(text, &format!("{queue} "))[8].parse().unwrap()
}

#[test]
fn shares_of_a_pool_are_told_while_its_slots_are_scarce() {
    let weights = [5, 3, 1].map(|weight| format!("  priority: {{weight: {weight}}}"));
    let fleet = shared([&weights[0], &weights[1], &weights[2]], 18, "");
    let text = told(&fleet, "--tasks 900 --service-seconds 20", "").unwrap();
    let shares = ["a", "b", "c"].map(|queue| share(&text, queue));
    for (share, weight) in shares.into_iter().zip([5.0, 3.0, 1.0]) {
        assert!((share - 100.0 * weight / 9.0).abs() < 4.0, "{text}");
    }
    assert_eq!(line(&text, "shared")[..2], ["18", "18"]);
    assert!(line(&text, "shared")[2].parse::<f64>().unwrap() > 15.0, "{text}");
    let critical = ["  priority: {tier: Critical}", "", ""];
    let text = told(&shared(critical, 18, ""), "--tasks 300 --service-seconds 20", "").unwrap();
    assert!(share(&text, "a") > 90.0, "{text}");
    let p95 = |queue| line(&text, queue)[4].parse::<f64>().unwrap();
    assert!(p95("a ") < p95("b ") && p95("a ") < p95("c "), "{text}");
}

#[test]
fn a_queue_alone_in_its_pool_has_no_share() {
    let fleet = mail("concurrency: 1", "maxReplicas: 5")
        + &queue("post", "  pool: {name: own}")
        + &workers("post", "concurrency: 1", "maxReplicas: 5")
        + &pool("own", "slots: 2");
    let text = told(&fleet, "--arrivals ARRIVALS", "0,post,60\n0,post,60\n0,post,60\n").unwrap();
    assert_eq!(line(&text, "mail ").last(), Some(&"-"), "{text}");
    let row = line(&text, "post ");
    assert_eq!((row[0], row[1], row.last()), ("3", "0", Some(&"-")), "{text}");
}

#[test]
fn a_task_that_never_began_is_over_its_target() {
    let fleet = mail("concurrency: 1", "maxReplicas: 1")
        + &queue("post", "")
        + &workers("post", "concurrency: 1", "maxReplicas: 1");
    let arrivals = "0,mail,36000\n0,mail,60\n0,post,60\n";
    let text = told(&fleet, "--arrivals ARRIVALS", arrivals).unwrap();
    let row = line(&text, "mail ");
    assert_eq!(
        (row[0], row[1], row[6], row[7]),
        ("2", "2", "50.0", "%"),
        "{text}"
    );
    assert_eq!(line(&text, "post ")[6], "0.0", "{text}");
}

#[test]
fn guarantees_and_caps_act() {
    let mut arrivals: String = (0..200).map(|_| "0,a,60\n").collect();
    for at in 0..20 {
        let _ = writeln!(arrivals, "{},b,10", 200 + 10 * at);
    }
    let p95 = |more: &str| {
        let fleet = shared(["", "  priority: {tier: Low}", ""], 10, more);
        let text = told(&fleet, "--arrivals ARRIVALS", &arrivals).unwrap();
        assert!(!text.contains("not simulated"), "{text}");
        line(&text, "b ")[4].parse::<f64>().unwrap()
    };
    let (without, with) = (p95(""), p95(", guarantees: [{queue: b, slots: 2}]"));
    assert!(without > 300.0 && with < 60.0, "{without} s and {with} s");
    let fleet = queue("mail", "  maxActiveTasks: 8") + &workers("mail", "concurrency: 4", "maxReplicas: 5");
    let text = told(&fleet, "--tasks 100", "").unwrap();
    assert!(text.contains("mail             2 of at most 5"), "{text}");
    assert!(!text.contains("not simulated"), "{text}");
}

#[test]
fn slots_per_task_are_those_of_each_queue() {
    let fleet = pool("shared", "slots: 16")
        + &queue("big", "  pool: {name: shared, slotsPerTask: 4}")
        + &workers("big", "concurrency: 2", "maxReplicas: 1")
        + &queue("small", "  pool: {name: shared}")
        + &workers("small", "concurrency: 2", "maxReplicas: 10");
    let text = told(&fleet, "--tasks 100", "").unwrap();
    assert!(!text.contains("note: every task"), "{text}");
    // One worker of eight and four of two.
    assert_eq!(line(&text, "shared")[..2], ["16", "16"], "{text}");
    // Two tasks of four slots beside eight of one.
    assert!((share(&text, "big") - 50.0).abs() < 10.0, "{text}");
    assert!(text.contains("small            4 of at most 10"), "{text}");
}

/// What is said of cheaper settings.
fn cheaper_than(fleet: &str, arrivals: &str) -> String {
    let (args, _folder) = asked(fleet, "--arrivals ARRIVALS", arrivals);
    let (world, answer) = as_written(&args, &mut Vec::new()).unwrap();
    let found = cheaper::search(&world, &answer, 1, 2);
    let mut text = Vec::new();
    cheaper::print(&mut text, &found, &world.scenario.queues).unwrap();
    String::from_utf8_lossy(&text).into_owned()
}

/// What is held by hand no bound moves: in a cluster, "minReplicas: 0" would change nothing.
#[test]
fn a_number_that_is_held_by_hand_is_told_and_no_setting_is_said_to_lower_it() {
    let free = mail("concurrency: 2", "minReplicas: 4, maxReplicas: 8");
    let held = free.replace("scaling:", "replicas: 4\n  scaling:");
    let mut arrivals = String::new();
    for at in 0..900 {
        // Writing to a String cannot fail.
        let _ = writeln!(arrivals, "{at},mail,1");
    }
    let cheaper = cheaper_than(&free, &arrivals);
    assert!(cheaper.contains("minReplicas: 0"), "{cheaper}");
    let cheaper = cheaper_than(&held, &arrivals);
    assert!(
        !cheaper.contains("minReplicas") && !cheaper.contains("concurrency"),
        "{cheaper}"
    );
    let note = "note: WorkerPool mail: is held by spec.replicas";
    assert!(told(&held, "--tasks 20", "").unwrap().contains(note));
    assert!(!told(&free, "--tasks 20", "").unwrap().contains(note));
}

/// Without a warm worker a queue of six tasks waits for a start each time: of nine hundred tasks these are few.
#[test]
fn settings_that_starve_one_queue_are_not_told() {
    let fleet = |name, least| {
        let scaling = format!("minReplicas: {least}, maxReplicas: 9");
        queue(name, "  waitTargetSeconds: 10") + &workers(name, "concurrency: 1", &scaling)
    };
    let mut rows: Vec<(u32, &str, u32)> = (0..900).map(|at| (4 * at, "mail", 1)).collect();
    rows.extend((0..6).map(|at| (300 + 600 * at, "rare", 5)));
    rows.sort_unstable();
    let mut arrivals = String::new();
    for (second, queue, long) in rows {
        // Writing to a String cannot fail.
        let _ = writeln!(arrivals, "{second},{queue},{long}");
    }
    let warm = fleet("mail", 1) + &fleet("rare", 1);
    let text = cheaper_than(&warm, &arrivals);
    assert!(!text.contains("minReplicas: 0"), "{text}");
    // A queue that is late as things are forbids no saving.
    let cold = fleet("mail", 1) + &fleet("rare", 0);
    let text = cheaper_than(&cold, &arrivals);
    assert!(text.contains("% over (100.0 % of rare): "), "{text}");
    // Where they have no tasks that wait for a start, both may go down to nothing.
    let text = cheaper_than(&warm, &arrivals.replace("rare", "mail"));
    assert!(text.contains("minReplicas: 0"), "{text}");
}
