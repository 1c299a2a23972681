//! The layer around kube's client that lets nothing through but reads while the [`Gate`] is shut, and no write ever to a
//! namespace of another shard.
//!
//! One place that every write passes, so that no controller can forget it. Around all that kube does by itself: while a
//! request waits for a token, a connection or to be repeated, the gate is looked at before each of its steps.

use std::task::{Context, Poll};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::{Method, Request, Response};
use tower::layer::{LayerFn, layer_fn};
use tower::{BoxError, Service};

use crate::gate::Gate;

/// Reviews are created and change nothing: they ask whether somebody may do something.
const QUESTIONS: [&str; 2] = ["/apis/authentication.k8s.io/", "/apis/authorization.k8s.io/"];

/// A client's service behind a gate.
pub(super) struct Gated<S> {
    inner: S,
    gate: Gate,
}

/// Puts a client's service behind this gate.
pub(super) fn layer<S>(gate: &Gate) -> LayerFn<impl Fn(S) -> Gated<S> + use<S>> {
    let gate = gate.clone();
    layer_fn(move |inner| Gated {
        inner,
        gate: gate.clone(),
    })
}

fn reads<B>(request: &Request<B>) -> bool {
    let path = request.uri().path();
    matches!(*request.method(), Method::GET | Method::HEAD)
        || QUESTIONS.iter().any(|one| path.starts_with(one))
}

/// The namespace that a request writes to.
fn namespace(path: &str) -> Option<&str> {
    let rest = path.split_once("/namespaces/")?.1;
    rest.split('/').next()
}

impl<S, B, R> Service<Request<B>> for Gated<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    R: 'static,
{
    type Response = Response<R>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<R>, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (reads, path) = (reads(&request), request.uri().path().to_owned());
        let answer = self.inner.call(request);
        if reads {
            return answer.map(|answer| answer.map_err(Into::into)).boxed();
        }
        let gate = self.gate.clone();
        async move { gate.guard_in(namespace(&path), answer).await?.map_err(Into::into) }.boxed()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
    use kube::client::{Body, ClientBuilder};
    use kube::{Api, Client};
    use tokio::time::{Instant, advance};
    use tower::service_fn;

    use super::*;
    use crate::shard::Shard;

    /// A server that takes a second for a write, and what has arrived there.
    fn server(gate: &Gate) -> (Client, Arc<Mutex<Vec<String>>>) {
        let arrived: Arc<Mutex<Vec<String>>> = Arc::default();
        let into = Arc::clone(&arrived);
        let service = service_fn(move |request: Request<Body>| {
            let into = Arc::clone(&into);
            async move {
                let (method, path) = (request.method().clone(), request.uri().path().to_owned());
                if method != Method::GET {
                    // As if a connection had to be made.
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                into.lock().unwrap().push(format!("{method} {path}"));
                let object = r#"{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}"#;
                Ok::<_, BoxError>(Response::new(Body::from(object.as_bytes().to_vec())))
            }
        });
        let client = ClientBuilder::new(service, "default")
            .with_layer(&layer(gate))
            .build();
        (client, arrived)
    }

    #[tokio::test(start_paused = true)]
    async fn a_shut_gate_lets_reads_and_reviews_through_and_no_write() {
        let gate = Gate::shut();
        let (client, arrived) = server(&gate);
        let api: Api<ConfigMap> = Api::default_namespaced(client.clone());
        api.get("a").await.unwrap();
        let refused = api.create(&PostParams::default(), &ConfigMap::default()).await;
        assert!(
            refused
                .unwrap_err()
                .to_string()
                .contains("does not hold the lease")
        );
        let patch = Patch::Merge(serde_json::json!({}));
        assert!(api.patch("a", &PatchParams::default(), &patch).await.is_err());
        assert!(
            api.replace("a", &PostParams::default(), &ConfigMap::default())
                .await
                .is_err()
        );
        assert!(api.delete("a", &DeleteParams::default()).await.is_err());
        assert_eq!(
            *arrived.lock().unwrap(),
            ["GET /api/v1/namespaces/default/configmaps/a"]
        );
        let review = Request::post("/apis/authentication.k8s.io/v1/tokenreviews")
            .body(Vec::new())
            .unwrap();
        client.request_text(review).await.unwrap();
        assert_eq!(arrived.lock().unwrap().len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_written_outside_the_shard_and_all_of_it_may_be_read() {
        let shard = Shard::selected();
        let gate = Gate::open().within(shard.clone());
        shard.open("ours");
        shard.prove(Instant::now());
        let (client, arrived) = server(&gate);
        let of = |namespace: &str| -> Api<ConfigMap> { Api::namespaced(client.clone(), namespace) };
        let create = PostParams::default();
        of("ours").create(&create, &ConfigMap::default()).await.unwrap();
        let refused = of("theirs").create(&create, &ConfigMap::default()).await;
        let words = refused.unwrap_err().to_string();
        assert!(words.contains("--namespace-selector"), "{words}");
        let (theirs, patch) = (of("theirs"), Patch::Merge(serde_json::json!({})));
        assert!(theirs.patch("a", &PatchParams::default(), &patch).await.is_err());
        theirs.get("a").await.unwrap();
        assert_eq!(
            *arrived.lock().unwrap(),
            [
                "POST /api/v1/namespaces/ours/configmaps",
                "GET /api/v1/namespaces/theirs/configmaps/a"
            ]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_that_waits_for_its_connection_is_given_up_when_the_gate_shuts() {
        let gate = Gate::shut();
        let (client, arrived) = server(&gate);
        let api: Api<ConfigMap> = Api::default_namespaced(client);
        gate.open_until(Instant::now() + Duration::from_millis(1500));
        api.create(&PostParams::default(), &ConfigMap::default())
            .await
            .unwrap();
        assert_eq!(arrived.lock().unwrap().len(), 1, "an open one lets it through");
        let late = api.create(&PostParams::default(), &ConfigMap::default()).await;
        assert!(late.is_err());
        assert_eq!(arrived.lock().unwrap().len(), 1);
        advance(Duration::from_secs(10)).await;
        assert_eq!(arrived.lock().unwrap().len(), 1);
    }
}
