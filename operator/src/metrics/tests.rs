//! The table against what is served, and the reference page against the table.

use super::*;

const NUMBERS: WorkerPoolNumbers = WorkerPoolNumbers {
    desired: Some(7),
    at_maximum: Some(true),
    held: Some(true),
    ready: 6,
    parked: 2,
    draining: 1,
    slots: Some(120),
    busy: Some(24),
    start_up_seconds: Some(3.5),
};

fn filled() -> Metrics {
    let metrics = Metrics::default();
    metrics.worker_pool("shop", "mail", NUMBERS);
    metrics.decision("shop", "mail", "ScaledUp");
    metrics.misplaced("shop", "mail", 2);
    metrics.misplaced("shop", "mail", 0);
    metrics.stalled("shop", "mail", false);
    metrics.task_queue(
        "shop",
        "mail",
        TaskQueueNumbers {
            ready: Some(3),
            reserved: Some(1),
            sample_age_seconds: Some(0.25),
            arrivals_per_minute: Some(12.5),
            estimated_wait_seconds: Some(3.0),
            wait_target_missed: Some(true),
            wait_target_misses: Some(2),
        },
    );
    metrics.pool(
        "shop",
        "database",
        PoolNumbers {
            slots: Some(-1),
            running: Some(2),
            queued: Some(5),
            missing: Some(3),
            over: Some(false),
            in_sync: Some(true),
            airflow: Some(AirflowNumbers {
                running: 2,
                queued: 1,
                scheduled: 7,
                deferred: 3,
                open: Some(61),
                poking_sensors: Some(1),
            }),
        },
    );
    metrics.drifts("shop", "database", 1);
    for succeeded in [true, false, true] {
        metrics.broker_request(succeeded);
    }
    metrics.broker_connections(3);
    metrics
}

#[test]
fn every_metric_of_the_table_is_served_as_documented() {
    let text = filled().render();
    for metric in TABLE {
        assert!(
            text.contains(&format!("# HELP {} {}", metric.name, metric.help)),
            "{}",
            metric.name
        );
        assert!(
            text.contains(&format!("# TYPE {} {}", metric.name, metric.kind.as_str())),
            "{}",
            metric.name
        );
    }
    assert_eq!(
        text.matches("# TYPE").count(),
        TABLE.len(),
        "a metric is missing from the table"
    );
    assert!(
        text.contains(r#"poolwright_worker_pool_desired_replicas{name="mail",namespace="shop"} 7"#),
        "{text}"
    );
    assert!(text.contains(
        r#"poolwright_worker_pool_decisions_total{name="mail",namespace="shop",reason="ScaledUp"} 1"#
    ));
    assert!(
        text.contains(r#"poolwright_worker_pool_misplaced_pods_total{name="mail",namespace="shop"} 2"#),
        "{text}"
    );
    for (what, value) in [("at_maximum", 1), ("held", 1), ("stalled", 0)] {
        let line = format!(r#"poolwright_worker_pool_{what}{{name="mail",namespace="shop"}} {value}"#);
        assert!(text.contains(&line), "{text}");
    }
    for (what, value) in [("missed", 1), ("misses_total", 2)] {
        let line =
            format!(r#"poolwright_task_queue_wait_target_{what}{{name="mail",namespace="shop"}} {value}"#);
        assert!(text.contains(&line), "{text}");
    }
    for (outcome, count) in [("success", 2), ("failure", 1)] {
        let line = format!("poolwright_broker_requests_total{{outcome=\"{outcome}\"}} {count}");
        assert!(text.contains(&line), "{text}");
    }
    let start_up = r#"poolwright_worker_pool_start_up_seconds{name="mail",namespace="shop"} 3.5"#;
    assert!(text.contains(start_up), "{text}");
    assert!(text.contains("poolwright_broker_connections 3"));
}

#[test]
fn both_outcomes_of_a_request_count_from_zero() {
    let text = Metrics::default().render();
    for outcome in OUTCOMES {
        let line = format!("poolwright_broker_requests_total{{outcome=\"{outcome}\"}} 0");
        assert!(text.contains(&line), "{text}");
    }
}

#[test]
fn the_series_of_an_object_go_with_it_and_no_others_do() {
    let metrics = filled();
    metrics.worker_pool("shop", "other", NUMBERS);
    metrics.forget_worker_pool("shop", "mail");
    metrics.forget_task_queue("shop", "mail");
    metrics.forget_task_queue("shop", "never-seen");
    let text = metrics.render();
    assert!(!text.contains("mail"), "{text}");
    assert!(text.contains("other"), "{text}");
}

#[test]
fn what_is_not_known_is_not_shown() {
    let metrics = filled();
    metrics.task_queue(
        "shop",
        "mail",
        TaskQueueNumbers {
            ready: Some(0),
            ..TaskQueueNumbers::default()
        },
    );
    let text = metrics.render();
    assert!(
        text.contains(r#"poolwright_task_queue_ready{name="mail",namespace="shop"} 0"#),
        "{text}"
    );
    assert!(
        !text.contains("poolwright_task_queue_reserved{") && !text.contains("sample_age_seconds{"),
        "{text}"
    );
}

#[test]
fn an_unknown_reason_makes_no_series() {
    let metrics = Metrics::default();
    metrics.decision("shop", "mail", "Whatever");
    assert!(!metrics.render().contains("Whatever"));
}

#[test]
fn the_reference_page_is_what_the_table_says() {
    crate::pages::expect("metrics.md", &reference(), "metrics");
}
