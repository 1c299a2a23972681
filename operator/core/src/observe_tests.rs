use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use poolwright_api::{ANNOTATION_FAILED_AT, ANNOTATION_PROVEN_AT, LABEL_REVISION, Reason, WORKER_CONTAINER};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::*;
use crate::objects::DELETION_COST;
use crate::snapshot::WORDS_MAX;
use crate::testing;

/// What is kept of an object that the API server tells in these words.
fn kept<K: DeserializeOwned, V: From<K>>(object: Value) -> Arc<V> {
    Arc::new(V::from(serde_json::from_value::<K>(object).unwrap()))
}

fn wp(patch: Value) -> WorkerPool {
    let mut all = json!(testing::wp(json!({"class": "Cpu"})));
    testing::merge(&mut all, patch);
    serde_json::from_value(all).unwrap()
}

fn deployment(name: &str, owner: &str, replicas: i32, annotations: &Value) -> Arc<DeploymentView> {
    kept::<Deployment, _>(json!({
        "metadata": {"name": name, "uid": format!("uid-{name}"), "annotations": annotations,
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "ownerReferences": [{"apiVersion": "", "kind": "", "name": "", "controller": true, "uid": owner}]},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {LABEL_REVISION: name}},
            "template": {}},
    }))
}

fn set(owner: &str, revision: &str, failure: Option<&str>) -> Arc<SetView> {
    let conditions: Vec<Value> = failure
        .map(|words| json!({"type": "ReplicaFailure", "status": "True", "message": words}))
        .into_iter()
        .collect();
    kept::<ReplicaSet, _>(json!({
        "metadata": {"name": "s", "labels": {LABEL_REVISION: revision},
            "ownerReferences": [{"apiVersion": "", "kind": "", "name": "", "controller": true, "uid": owner}]},
        "spec": {"selector": {}}, "status": {"replicas": 0, "conditions": conditions},
    }))
}

fn pod(uid: &str, patch: Value) -> Arc<PodView> {
    let mut pod = json!({
        "metadata": {"name": format!("pod-{uid}"), "uid": uid, "labels": {LABEL_REVISION: "r1"},
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "ownerReferences": [{"apiVersion": "", "kind": "", "name": "", "controller": true, "uid": "set"}]},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
    });
    testing::merge(&mut pod, patch);
    kept::<Pod, _>(pod)
}

fn worker(status: &Value) -> Value {
    let mut whole =
        json!({"name": WORKER_CONTAINER, "image": "", "imageID": "", "ready": true, "restartCount": 0});
    testing::merge(&mut whole, status.clone());
    json!({"status": {"containerStatuses": [whole]}})
}

fn running(at: &str) -> Value {
    worker(&json!({"state": {"running": {"startedAt": at}}}))
}

fn one(pod: Arc<PodView>) -> PodInput {
    let objects = Objects {
        pods: vec![pod],
        ..Objects::default()
    };
    testing::observed(&wp(json!({})), &objects, None).pods.remove(0)
}

#[test]
fn only_deployments_of_this_very_pool_are_revisions() {
    let objects = Objects {
        deployments: vec![
            deployment(
                "r1",
                "u-1",
                2,
                &json!({ANNOTATION_PROVEN_AT: "2026-01-01T00:00:00Z"}),
            ),
            deployment(
                "r2",
                "u-1",
                1,
                &json!({ANNOTATION_FAILED_AT: "2026-01-01T00:00:00Z"}),
            ),
            deployment("r3", "older-namesake", 5, &json!({})),
        ],
        ..Objects::default()
    };
    let input = testing::observed(&wp(json!({})), &objects, None);
    let seen: Vec<_> = input
        .revisions
        .iter()
        .map(|one| (&*one.name, one.replicas, one.proven.is_some(), one.failed))
        .collect();
    assert_eq!(seen, [("r1", 2, true, false), ("r2", 1, false, true)]);
}

#[test]
fn a_refusal_is_that_of_its_own_replica_set() {
    let quota = "pods \"x\" is forbidden: exceeded quota: small";
    let cases = [
        (set("uid-r1", "r1", Some(quota)), Some(Reason::QuotaExceeded)),
        (
            set("uid-r1", "r1", Some("denied by policy")),
            Some(Reason::AdmissionDenied),
        ),
        (set("uid-r1", "r1", None), None),
        // On its way out with a predecessor of the same name and revision.
        (set("gone", "r1", Some(quota)), None),
    ];
    for (set, reason) in cases {
        let objects = Objects {
            deployments: vec![deployment("r1", "u-1", 1, &json!({}))],
            sets: vec![set],
            ..Objects::default()
        };
        let input = testing::observed(&wp(json!({})), &objects, None);
        assert_eq!(input.revisions[0].refused.as_ref().map(|one| one.reason), reason);
    }
}

#[test]
fn since_when_it_is_paused_is_in_the_record_of_its_writers() {
    let entry = |at: &str, fields: &serde_json::Value| json!({"manager": "m", "operation": "Update", "time": at, "fieldsV1": fields});
    let annotations = |key: &str| json!({"f:metadata": {"f:annotations": {key: {}}}});
    let record = json!([
        entry("2026-01-01T00:00:00Z", &annotations("f:poolwright.dev/paused")),
        entry(
            "2026-01-02T00:00:00Z",
            &json!({"f:spec": {"f:scaling": {"f:mode": {}}}})
        ),
        entry("2026-01-03T00:00:00Z", &annotations("f:example.com/other")),
    ]);
    let since = |paused: bool, mode: &str| {
        let annotations = if paused {
            json!({"poolwright.dev/paused": "true"})
        } else {
            json!({})
        };
        let object = wp(json!({
            "metadata": {"managedFields": record, "annotations": annotations},
            "spec": {"scaling": {"mode": mode}},
        }));
        let input = testing::observed(&object, &Objects::default(), None);
        input.overridden_since.map(|since| since.to_string())
    };
    assert_eq!(since(true, "Auto").as_deref(), Some("2026-01-01T00:00:00Z"));
    assert_eq!(since(true, "Recommend").as_deref(), Some("2026-01-01T00:00:00Z"));
    assert_eq!(since(false, "Recommend").as_deref(), Some("2026-01-02T00:00:00Z"));
    assert_eq!(since(false, "Auto"), None);
}

#[test]
fn the_last_writer_of_replicas_holds_them() {
    let entry = |manager: &str, at: &str, field: &str| json!({"manager": manager, "operation": "Update", "time": at, "fieldsV1": {"f:spec": {field: {}}}});
    let fields = json!([
        entry("argocd", "2026-01-01T00:00:00Z", "f:replicas"),
        entry("kubectl", "2026-01-02T00:00:00Z", "f:replicas"),
        entry("poolwright", "2026-01-03T00:00:00Z", "f:queues"),
    ]);
    let scaled = wp(json!({"metadata": {"managedFields": fields}, "spec": {"replicas": 3}}));
    let hold = testing::observed(&scaled, &Objects::default(), None)
        .hold
        .unwrap();
    let (who, since) = hold.by.unwrap();
    assert_eq!((hold.replicas, who.as_str()), (3, "kubectl"));
    assert_eq!(since.unwrap().to_string(), "2026-01-02T00:00:00Z");
    let unknown = wp(json!({"spec": {"replicas": 0}}));
    let hold = testing::observed(&unknown, &Objects::default(), None)
        .hold
        .unwrap();
    assert_eq!((hold.replicas, hold.by), (0, None));
}

#[test]
fn a_pod_that_has_ended_for_good_is_none() {
    for phase in ["Failed", "Succeeded"] {
        let objects = Objects {
            pods: vec![pod("p", json!({"status": {"phase": phase}}))],
            ..Objects::default()
        };
        assert!(testing::observed(&wp(json!({})), &objects, None).pods.is_empty());
    }
    // Nor is one that somebody took out of its ReplicaSet, which has made another.
    let objects = Objects {
        pods: vec![pod("p", json!({"metadata": {"ownerReferences": null}}))],
        ..Objects::default()
    };
    assert!(testing::observed(&wp(json!({})), &objects, None).pods.is_empty());
}

#[test]
fn a_mark_that_is_taken_off_is_remembered() {
    let (wp, mut runs) = (wp(json!({})), Runs::new());
    let mut look = |cost: Option<&str>, second: u64| {
        let annotations = cost.map_or_else(|| json!({}), |cost| json!({DELETION_COST: cost}));
        let objects = Objects {
            pods: vec![pod("p", json!({"metadata": {"annotations": annotations}}))],
            ..Objects::default()
        };
        let valid = testing::pool(&wp);
        let seen = pool_input(
            &wp,
            &valid,
            "r1",
            &objects,
            None,
            &mut runs,
            Moment(second * 1000),
        );
        let pod = &seen.pods[0];
        (pod.marked, pod.parked, pod.unmarked)
    };
    let at = |second: u64| Some(Moment(second * 1000));
    assert_eq!(look(None, 1), (None, None, None), "it never had one");
    assert_eq!(look(Some("-2000"), 2), (at(2), at(2), None));
    assert_eq!(look(Some("-2000"), 3), (at(2), at(2), None));
    assert_eq!(look(Some("-1000"), 4), (at(4), at(2), None), "another mark");
    assert_eq!(look(None, 5), (None, None, at(5)));
    assert_eq!(look(Some("-1"), 6), (None, None, at(5)), "somebody else's");
    assert_eq!(look(Some("-1000"), 7), (at(7), at(7), at(5)));
}

#[test]
fn a_pod_is_seen_as_it_is() {
    let seen = one(pod("p", running("2026-01-01T00:01:00Z")));
    assert_eq!(
        (seen.name.as_str(), &*seen.revision, seen.ready),
        ("pod-p", "r1", true)
    );
    assert_eq!(seen.started.unwrap().to_string(), "2026-01-01T00:01:00Z");
    assert_eq!(
        (seen.running_since, seen.draining, seen.marked),
        (Some(Moment(0)), false, None)
    );
    let again = worker(&json!({"restartCount": 1}));
    assert_eq!((seen.restarted, one(pod("p", again)).restarted), (false, true));
    let annotations = json!({DELETION_COST: "-2000"});
    let going = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z", "annotations": annotations},
        "status": {"conditions": null}});
    let seen = one(pod("p", going));
    assert_eq!(
        (seen.draining, seen.marked, seen.ready, seen.started),
        (true, Some(Moment(0)), false, None)
    );
    let annotations = json!({DELETION_COST: "-1"});
    assert_eq!(
        one(pod("p", json!({"metadata": {"annotations": annotations}}))).marked,
        None,
        "somebody else's mark"
    );
}

/// Of an object that nobody has decided on, or that says nothing of use, no number is known.
#[test]
fn what_was_decided_last_is_what_the_status_says() {
    let desired = |patch: Value| testing::observed(&wp(patch), &Objects::default(), None).desired;
    assert_eq!(desired(json!({})), None);
    assert_eq!(desired(json!({"status": {"readyReplicas": 2}})), None);
    assert_eq!(desired(json!({"status": {"desiredReplicas": 0}})), Some(0));
    assert_eq!(desired(json!({"status": {"desiredReplicas": 7}})), Some(7));
    assert_eq!(desired(json!({"status": {"desiredReplicas": -1}})), None);
}

#[test]
fn a_run_begins_when_it_was_first_seen_and_anew_with_each_restart() {
    let (wp, mut runs) = (wp(json!({})), Runs::new());
    let pool = testing::pool(&wp);
    let mut at = |now: u64, patch: Value| {
        let objects = Objects {
            pods: vec![pod("p", patch)],
            ..Objects::default()
        };
        let input = pool_input(&wp, &pool, "r1", &objects, None, &mut runs, Moment(now));
        input.pods.first().and_then(|pod| pod.running_since)
    };
    assert_eq!(at(10, running("2026-01-01T00:01:00Z")), Some(Moment(10)));
    assert_eq!(at(20, running("2026-01-01T00:01:00Z")), Some(Moment(10)));
    assert_eq!(at(30, json!({})), None);
    assert_eq!(at(40, running("2026-01-01T00:02:00Z")), Some(Moment(40)));
    assert_eq!(at(50, json!({"status": {"phase": "Failed"}})), None);
    assert!(runs.is_empty());
}

#[test]
fn trouble_is_told_in_the_clusters_words() {
    let waiting = |reason: &str| {
        worker(&json!({"restartCount": 2, "state": {"waiting": {"reason": reason, "message": "m"}}}))
    };
    let unconfigured = |message: &str| {
        let state = json!({"waiting": {"reason": "CreateContainerConfigError", "message": message}});
        worker(&json!({"restartCount": 0, "state": state}))
    };
    let ended = |how: &str, code: i32, now: Value| {
        let last = json!({"terminated": {"exitCode": code, "reason": how}});
        worker(&json!({"restartCount": 3, "state": now, "lastState": last}))
    };
    let runs = json!({"running": {"startedAt": "2026-01-01T00:00:00Z"}});
    let backs_off = json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}});
    let nowhere = json!({"status": {"phase": "Pending", "conditions": [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}]}});
    let cases = [
        (json!({}), None),
        (running("2026-01-01T00:00:00Z"), None),
        (waiting("ContainerCreating"), None),
        (
            waiting("ErrImagePull"),
            Some((Reason::ImageNotPulled, "ErrImagePull: m; restarts: 2")),
        ),
        (waiting("ImagePullBackOff"), Some((Reason::ImageNotPulled, "m"))),
        (waiting("CreateContainerError"), Some((Reason::CrashLoop, "m"))),
        (
            unconfigured("secret \"shop\" not found"),
            Some((
                Reason::SecretMissing,
                "CreateContainerConfigError: secret \"shop\" not found",
            )),
        ),
        (
            unconfigured("couldn't find key url in Secret a/configmap"),
            Some((Reason::SecretMissing, "key url")),
        ),
        (
            unconfigured("configmap \"secrets\" not found"),
            Some((Reason::ConfigMapMissing, "configmap \"secrets\"")),
        ),
        (
            unconfigured("couldn't find key level in ConfigMap a/shop"),
            Some((Reason::ConfigMapMissing, "key level")),
        ),
        (
            unconfigured("container has runAsNonRoot and image will run as root"),
            Some((Reason::CrashLoop, "runAsNonRoot")),
        ),
        (
            ended("Error", 3, backs_off.clone()),
            Some((
                Reason::CrashLoop,
                "back-off 10s, last exit code 3 (Error); restarts: 3",
            )),
        ),
        (
            ended("OOMKilled", 137, backs_off),
            Some((
                Reason::OutOfMemory,
                "back-off 10s, last exit code 137 (OOMKilled); restarts: 3",
            )),
        ),
        // Up again, for now.
        (
            ended("Error", 3, runs.clone()),
            Some((Reason::CrashLoop, "ended with exit code 3 (Error); restarts: 3")),
        ),
        (
            ended("OOMKilled", 137, runs),
            Some((
                Reason::OutOfMemory,
                "ended with exit code 137 (OOMKilled); restarts: 3",
            )),
        ),
        (
            worker(&json!({"state": {"terminated": {"exitCode": 1}}})),
            Some((Reason::CrashLoop, "ended with exit code 1; restarts: 0")),
        ),
        (nowhere, Some((Reason::Unschedulable, "0/3 nodes"))),
    ];
    for (patch, expected) in cases {
        let found = one(pod("p", patch.clone())).trouble;
        assert_eq!(
            found.as_ref().map(|one| one.reason),
            expected.map(|one| one.0),
            "{patch}"
        );
        if let (Some(found), Some((_, words))) = (found, expected) {
            assert!(found.message.contains(words), "{}", found.message);
        }
    }
    let long = "w".repeat(10_000);
    let patch = worker(&json!({"state": {"waiting": {"reason": "ErrImagePull", "message": long}}}));
    assert!(one(pod("p", patch)).trouble.unwrap().message.len() <= WORDS_MAX);
}

/// A spec was changed from pods of eight slots to pods of two while some of the former run: as many tasks as they could
/// execute together is what a cap is about.
#[test]
fn older_pods_are_known_by_their_own_command_line_and_count_as_such_for_a_cap() {
    let older = |replicas: u32| {
        let args = ["-A", "shop", "worker", "-Q", "orders,old", "-c", "8"];
        let template = json!({"spec": {"containers": [{"name": WORKER_CONTAINER, "args": args}]}});
        let mut deployment = DeploymentView::clone(&deployment("r0", "u-1", 0, &json!({})));
        deployment.template = template.to_string().into();
        deployment.replicas = replicas;
        deployment
    };
    let wp = wp(json!({"spec": {"queues": [{"name": "orders"}], "celery": {"concurrency": 2}}}));
    let broker = json!({"url": "redis://redis:6379/0"});
    let queue = testing::task_queue("orders", &json!({"broker": broker, "maxActiveTasks": 12}));
    let pool = crate::validate::validate(&wp, &[("orders".to_owned(), queue)].into()).unwrap();
    for (replicas, most) in [(3, 1), (0, 6)] {
        let objects = Objects {
            deployments: vec![Arc::new(older(replicas))],
            ..Objects::default()
        };
        let input = pool_input(&wp, &pool, "r1", &objects, None, &mut Runs::new(), Moment(0));
        let queues = input.revisions[0].queues.clone().unwrap();
        assert_eq!((input.revisions[0].slots, queues.len()), (Some(8), 2));
        assert_eq!(input.cap, Some(most));
    }
}
