//! What is written under which resourceVersion, and what becomes of a conflict, before a server that answers by a script.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use http::{Request, Response};
use kube::client::{Body, ClientBuilder};
use poolwright_api::{ANNOTATION_FAILED_AT, ANNOTATION_PROVEN_AT};
use serde_json::Value;
use tower::{BoxError, service_fn};

use super::*;

const COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// What was asked: the method, and for a write what it expects and writes.
type Asked = Arc<Mutex<Vec<(String, Value)>>>;

/// A server that gives these answers, one after the other.
fn server(answers: impl IntoIterator<Item = (u16, Value)>) -> (Executor, Asked) {
    let answers = Arc::new(Mutex::new(answers.into_iter().collect::<VecDeque<_>>()));
    let asked = Asked::default();
    let into = Arc::clone(&asked);
    let service = service_fn(move |request: Request<Body>| {
        let (answers, into) = (Arc::clone(&answers), Arc::clone(&into));
        async move {
            let method = request.method().to_string();
            let bytes = request.into_body().collect_bytes().await?;
            let body = serde_json::from_slice(&bytes).unwrap_or_default();
            into.lock().unwrap().push((method, body));
            let (code, body) = answers
                .lock()
                .unwrap()
                .pop_front()
                .expect("nothing more is asked");
            let answer = Response::builder().status(code);
            Ok::<_, BoxError>(answer.body(Body::from(body.to_string().into_bytes()))?)
        }
    });
    let client = ClientBuilder::new(service, "shop").build();
    (Executor::new(&client, "shop"), asked)
}

/// A Deployment of ours at a version, with what is written on it.
fn deployment(version: u32, annotations: &Value) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "w-1", "namespace": "shop", "uid": "u", "resourceVersion": version.to_string(),
            "generation": 1, "annotations": annotations},
        "spec": {"paused": false, "selector": {}, "template": {}},
    })
}

fn seen(value: Value) -> Arc<DeploymentView> {
    let deployment: Deployment = serde_json::from_value(value).unwrap();
    Arc::new(deployment.into())
}

fn conflict() -> (u16, Value) {
    let status = json!({
        "apiVersion": "v1", "kind": "Status", "status": "Failure", "reason": "Conflict", "code": 409,
        "message": "the object has been modified",
    });
    (409, status)
}

fn give_up(seen: Arc<DeploymentView>) -> Step {
    Step::Annotate {
        seen,
        key: ANNOTATION_FAILED_AT,
        value: "now".to_owned(),
    }
}

fn methods(asked: &Asked) -> Vec<String> {
    let asked = asked.lock().unwrap();
    asked.iter().map(|(method, _)| method.clone()).collect()
}

#[tokio::test]
async fn a_judgement_is_repeated_where_only_the_status_has_moved() {
    let moved = deployment(8, &json!({}));
    let (executor, asked) = server([conflict(), (200, moved.clone()), (200, moved)]);
    let step = give_up(seen(deployment(7, &json!({}))));
    executor.run(&step).await.unwrap();
    assert_eq!(methods(&asked), ["PATCH", "GET", "PATCH"]);
    let asked = asked.lock().unwrap();
    let metadata = |version: &str| {
        let annotations = json!({ANNOTATION_FAILED_AT: "now"});
        json!({"metadata": {"uid": "u", "resourceVersion": version, "annotations": annotations}})
    };
    assert_eq!((&asked[0].1, &asked[2].1), (&metadata("7"), &metadata("8")));
}

/// As a leader of the past finds it whose write comes late.
#[tokio::test]
async fn a_revision_that_another_has_judged_is_judged_anew() {
    let known = [
        json!({ANNOTATION_PROVEN_AT: "2026-01-01T00:00:00Z"}),
        json!({ANNOTATION_FAILED_AT: "2026-01-01T00:00:00Z"}),
    ];
    for annotations in known {
        let (executor, asked) = server([conflict(), (200, deployment(8, &annotations))]);
        let step = give_up(seen(deployment(7, &json!({}))));
        let ended = executor.run(&step).await;
        assert!(matches!(ended, Err(Failure::Moved)), "{annotations}: {ended:?}");
        assert_eq!(methods(&asked), ["PATCH", "GET"]);
    }
    let mut namesake = deployment(8, &json!({}));
    namesake["metadata"]["uid"] = "other".into();
    let (executor, _) = server([conflict(), (200, namesake)]);
    let ended = executor.run(&give_up(seen(deployment(7, &json!({}))))).await;
    assert!(matches!(ended, Err(Failure::Moved)), "{ended:?}");
}

#[tokio::test]
async fn a_conflict_without_an_end_is_planned_anew() {
    let round = || [conflict(), (200, deployment(8, &json!({})))];
    let (executor, asked) = server((0..ATTEMPTS).flat_map(|_| round()));
    let ended = executor.run(&give_up(seen(deployment(7, &json!({}))))).await;
    assert!(matches!(ended, Err(Failure::Moved)), "{ended:?}");
    assert_eq!(methods(&asked).len(), 2 * ATTEMPTS);
}

#[tokio::test]
async fn a_repair_is_repeated_after_a_scale_and_not_after_an_edit() {
    let settle = || {
        Step::Settle(Box::new(Settle {
            seen: seen(deployment(7, &json!({}))),
            paused: true,
            progress_deadline_seconds: 9,
            labels: None,
            template: None,
        }))
    };
    let mut scaled = deployment(8, &json!({}));
    scaled["metadata"]["generation"] = 2.into();
    scaled["spec"]["replicas"] = 5.into();
    let (executor, asked) = server([conflict(), (200, scaled.clone()), (200, scaled)]);
    executor.run(&settle()).await.unwrap();
    let version = json!({"op": "add", "path": "/metadata/resourceVersion", "value": "8"});
    let last = asked.lock().unwrap()[2].1.clone();
    assert!(last.as_array().unwrap().contains(&version), "{last}");

    let edits = [
        ("/spec/paused", json!(true)),
        ("/spec/template", json!({"metadata": {"labels": {"a": "b"}}})),
        ("/metadata/labels", json!({"a": "b"})),
    ];
    for (path, value) in edits {
        let mut edited = deployment(8, &json!({}));
        edited["metadata"]["labels"] = json!({});
        *edited.pointer_mut(path).unwrap() = value;
        let (executor, asked) = server([conflict(), (200, edited)]);
        let ended = executor.run(&settle()).await;
        assert!(matches!(ended, Err(Failure::Moved)), "{path}: {ended:?}");
        assert_eq!(methods(&asked), ["PATCH", "GET"], "{path}");
    }
}

#[tokio::test]
async fn a_pod_is_marked_as_it_was_seen_or_not_at_all() {
    let mark = Step::Mark {
        pod: "p".to_owned(),
        uid: "u".to_owned(),
        resource_version: "7".to_owned(),
        key: COST,
        cost: "-2000",
    };
    let (executor, asked) = server([conflict()]);
    let ended = executor.run(&mark).await;
    assert!(matches!(ended, Err(Failure::Moved)), "{ended:?}");
    let expected = json!({"metadata": {"uid": "u", "resourceVersion": "7", "annotations": {COST: "-2000"}}});
    assert_eq!(*asked.lock().unwrap(), [("PATCH".to_owned(), expected)]);
}
