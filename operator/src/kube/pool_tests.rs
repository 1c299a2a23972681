//! What is written where others write the Pool at the same time, which a real API server shows by chance alone.

use std::sync::{Arc, Mutex};

use http::{Method, Request, Response};
use kube::client::{Body, ClientBuilder};
use poolwright_api::v1alpha1::PoolSpec;
use tower::{BoxError, service_fn};

use super::*;

/// What the API server has, and how many patches it still answers with a conflict.
struct State {
    pool: Value,
    conflicts: usize,
    code: u16,
    patches: Vec<Value>,
}

type Server = Arc<Mutex<State>>;

fn pool(mark: Option<&str>) -> Pool {
    let mut pool = Pool::new("p", PoolSpec::default());
    pool.metadata.namespace = Some("ns".to_owned());
    pool.metadata.uid = Some("u-1".to_owned());
    pool.metadata.resource_version = Some("7".to_owned());
    pool.metadata.generation = Some(1);
    pool.metadata.finalizers = Some(vec!["a.example/other".to_owned()]);
    let marks = mark.map(|mark| [(ANNOTATION_AIRFLOW_MADE.to_owned(), mark.to_owned())].into());
    pool.metadata.annotations = marks;
    pool
}

/// One that has `change` made to the Pool of the tests, and answers so many patches with a conflict.
fn server(conflicts: usize, change: impl FnOnce(&mut Pool)) -> (Server, Client) {
    let mut found = pool(Some("old"));
    found.metadata.resource_version = Some("8".to_owned());
    change(&mut found);
    let server = Arc::new(Mutex::new(State {
        pool: serde_json::to_value(found).unwrap(),
        conflicts,
        code: 409,
        patches: Vec::new(),
    }));
    let state = Arc::clone(&server);
    let service = service_fn(move |request: Request<Body>| {
        let state = Arc::clone(&state);
        async move {
            let method = request.method().clone();
            let body = request.into_body().collect_bytes().await?;
            let mut state = state.lock().unwrap();
            let mut code = 200;
            if method == Method::PATCH {
                state.patches.push(serde_json::from_slice(&body)?);
                if state.conflicts > 0 {
                    state.conflicts -= 1;
                    code = state.code;
                }
            }
            let answer = if code == 200 {
                state.pool.clone()
            } else {
                json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": "Other",
                    "message": "no", "code": code})
            };
            let response = Response::builder().status(code);
            Ok::<_, BoxError>(response.body(Body::from(answer.to_string().into_bytes()))?)
        }
    });
    (server, ClientBuilder::new(service, "ns").build())
}

fn sent(server: &Server) -> Vec<Value> {
    server.lock().unwrap().patches.clone()
}

#[tokio::test]
async fn a_pool_that_has_changed_is_read_anew_and_written() {
    let (server, client) = server(1, |_| {});
    assert!(settle(&client, &pool(Some("old")), None).await.unwrap());
    let sent = sent(&server);
    let of = |at: usize, field: &str| sent[at]["metadata"][field].clone();
    assert_eq!(sent.len(), 2);
    assert_eq!(
        (of(0, "resourceVersion"), of(1, "resourceVersion")),
        (json!("7"), json!("8"))
    );
    assert_eq!((of(0, "uid"), of(1, "uid")), (json!("u-1"), json!("u-1")));
    assert_eq!(of(1, "annotations"), json!({ANNOTATION_AIRFLOW_MADE: null}));
    assert_eq!(of(1, "finalizers"), json!(["a.example/other"]));
}

#[tokio::test]
async fn a_mark_brings_the_finalizer_and_keeps_those_of_others() {
    let (server, client) = server(0, |_| {});
    assert!(mark(&client, &pool(None), Some("new")).await.unwrap());
    let sent = sent(&server);
    assert_eq!(
        sent[0]["metadata"]["finalizers"],
        json!(["a.example/other", FINALIZER_AIRFLOW])
    );
    assert_eq!(
        sent[0]["metadata"]["annotations"],
        json!({ANNOTATION_AIRFLOW_MADE: "new"})
    );
}

#[tokio::test]
async fn what_was_decided_of_another_mark_or_spec_or_pool_is_not_written() {
    let other = |pool: &mut Pool| pool.metadata.uid = Some("u-2".to_owned());
    let marked = |pool: &mut Pool| *pool = self::pool(Some("newer"));
    let changed = |pool: &mut Pool| pool.metadata.generation = Some(2);
    let to = Follow {
        slots: 3,
        description: None,
        include_deferred: false,
    };
    let pool = pool(Some("old"));

    let (tried, client) = server(1, other);
    assert!(!mark(&client, &pool, None).await.unwrap());
    assert_eq!(sent(&tried).len(), 1);
    let (tried, client) = server(1, marked);
    assert!(!settle(&client, &pool, None).await.unwrap());
    assert_eq!(sent(&tried).len(), 1);
    let (tried, client) = server(1, changed);
    assert!(!follow(&client, &pool, &to).await.unwrap());
    assert_eq!(sent(&tried).len(), 1);
    // Whoever names another pool now is judged anew, and whoever makes one writes it down whatever the spec is.
    let (tried, client) = server(1, changed);
    assert!(!settle(&client, &pool, None).await.unwrap());
    assert_eq!(sent(&tried).len(), 1);
    let (_, client) = server(1, changed);
    assert!(mark(&client, &pool, None).await.unwrap());
    // The mark of one that follows is nobody's matter.
    let (_, client) = server(1, marked);
    assert!(follow(&client, &pool, &to).await.unwrap());
}

#[tokio::test]
async fn one_that_is_always_written_by_somebody_else_is_given_up_and_a_refusal_is_told() {
    let (tried, client) = server(usize::MAX, |_| {});
    assert!(!mark(&client, &pool(None), None).await.unwrap());
    assert_eq!(sent(&tried).len(), 1 + ATTEMPTS);
    let (tried, client) = server(1, |_| {});
    tried.lock().unwrap().code = 403;
    assert!(mark(&client, &pool(None), None).await.is_err());
    assert_eq!(sent(&tried).len(), 1);
}
