//! How long work of a higher tier waits in a full Pool without a guarantee: by `poolwright simulate`, held against the
//! bound that the documentation gives, and printed for it.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

use std::process::Command;

/// A Pool of 12 slots, `low` and `high` on it, each with workers of two slots.
const FLEET: &str = r#"
apiVersion: poolwright.dev/v1alpha1
kind: Pool
metadata: {name: shared}
spec: {slots: 12}
---
apiVersion: poolwright.dev/v1alpha1
kind: TaskQueue
metadata: {name: low}
spec:
  broker: {url: "redis://redis:6379/0"}
  pool: {name: shared}
  priority: {tier: Background}
---
apiVersion: poolwright.dev/v1alpha1
kind: TaskQueue
metadata: {name: high}
spec:
  broker: {url: "redis://redis:6379/0"}
  pool: {name: shared}
  priority: {tier: Critical}
---
apiVersion: poolwright.dev/v1alpha1
kind: WorkerPool
metadata: {name: low}
spec:
  queues: [{name: low}]
  celery: {app: shop, concurrency: 2, ackMode: ACK, prefetchMultiplier: PREFETCH}
  worker: {image: shop}
  scaling: {maxReplicas: 20}
---
apiVersion: poolwright.dev/v1alpha1
kind: WorkerPool
metadata: {name: high}
spec:
  queues: [{name: high}]
  celery: {app: shop, concurrency: 2, ackMode: Late, prefetchMultiplier: 1}
  worker: {image: shop}
  scaling: {maxReplicas: 4}
"#;
/// What a task of the lower tier takes, and a worker to start, in seconds.
const LENGTH: f64 = 120.0;
const START_UP: f64 = 30.0;
/// What the bound allows beside tasks and start-up.
const ACTING: f64 = 10.0;

/// The fleet whose lower tier acknowledges and fetches so.
fn fleet(ack: &str, prefetch: u32) -> String {
    FLEET
        .replace("ACK", ack)
        .replace("PREFETCH", &prefetch.to_string())
}

/// How long the last of some tasks of `high` waits that come after so many seconds of a full Pool and take as long.
fn waited(manifests: &str, tasks: usize, after: u32) -> f64 {
    let folder = tempfile::tempdir().unwrap();
    let (fleet, arrivals) = (
        folder.path().join("fleet.yaml"),
        folder.path().join("arrivals.csv"),
    );
    std::fs::write(&fleet, manifests).unwrap();
    let low = format!("0,low,{LENGTH}\n").repeat(120);
    let high = format!("{after},high,{LENGTH}\n").repeat(tasks);
    std::fs::write(&arrivals, format!("seconds,queue,service_seconds\n{low}{high}")).unwrap();
    let start_up = START_UP.to_string();
    let output = Command::new(env!("CARGO_BIN_EXE_poolwright"))
        .args(["simulate", "--start-up-seconds", &start_up, "-f"])
        .arg(&fleet)
        .arg("--arrivals")
        .arg(&arrivals)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let row = text.lines().find(|line| line.starts_with("high "));
    let row = row.unwrap_or_else(|| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)));
    // Name, tasks, not done, p50 and its unit, p95.
    row.split_ascii_whitespace().nth(5).unwrap().parse().unwrap()
}

#[test]
fn a_higher_tier_waits_for_what_a_slot_of_the_lower_has_fetched() {
    for (ack, prefetch, tasks) in [("Late", 1, 1.0), ("Early", 1, 2.0), ("Late", 4, 5.0)] {
        let waits = [260, 400].map(|after| waited(&fleet(ack, prefetch), 1, after));
        let (least, most) = (waits[0].min(waits[1]), waits[0].max(waits[1]));
        let bound = tasks * LENGTH + START_UP + ACTING;
        println!(
            "prefetch {prefetch}, {ack}: waited {least} to {most} s, of at most {bound} s with {tasks} tasks a slot"
        );
        assert!(most <= bound, "{most} s of {bound} s");
        // It is what has been fetched that it waits for: a bound of one task less would not hold.
        assert!(tasks > 2.0 || most > bound - LENGTH, "{most} s of {bound} s");
    }
}

/// With a guarantee nothing has to end first: a worker that is always up begins as many as it has slots at once, and the
/// others wait for one to start.
#[test]
fn a_lane_that_is_kept_free_starts_its_tasks_at_once() {
    let high = "concurrency: 4, ackMode: Late, prefetchMultiplier: 1";
    let kept = fleet("Late", 4)
        .replace("slots: 12}", "slots: 12, guarantees: [{queue: high, slots: 8}]}")
        .replace("concurrency: 2, ackMode: Late, prefetchMultiplier: 1", high)
        .replace(
            "scaling: {maxReplicas: 4}",
            "scaling: {minReplicas: 1, maxReplicas: 4}",
        );
    let (four, eight) = (waited(&kept, 4, 260), waited(&kept, 8, 260));
    println!("the last of four critical tasks waited {four} s, of eight {eight} s");
    assert!(four <= 3.0, "{four} s");
    // The first tasks of all are taken for short ones until they have run for a while, and start-up times scatter about
    // their mean. With nothing kept free they would wait for the tasks of the first four.
    assert!(eight > 0.0 && eight < 2.5 * START_UP, "{eight} s");
}
