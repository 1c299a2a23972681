//! What a look tells and what it writes, before a server that takes everything or leaves events lying.

use std::sync::Mutex;

use http::{Request, Response};
use kube::client::{Body, ClientBuilder};
use serde_json::{Value, json};
use tokio::time::{advance, sleep, timeout};
use tower::{BoxError, service_fn};

use super::*;
use crate::kube::lenient::Lenient;

/// Path and body of what was asked.
type Asked = Arc<Mutex<Vec<(String, Value)>>>;

fn server(events_hang: bool) -> (Client, Asked) {
    let asked = Asked::default();
    let into = Arc::clone(&asked);
    let service = service_fn(move |request: Request<Body>| {
        let into = Arc::clone(&into);
        async move {
            let path = request.uri().path().to_owned();
            let bytes = request.into_body().collect_bytes().await?.to_vec();
            let body = serde_json::from_slice(&bytes)?;
            let is_event = path.ends_with("/events");
            into.lock().unwrap().push((path, body));
            if is_event && events_hang {
                std::future::pending::<()>().await;
            }
            let answer = if is_event {
                bytes
            } else {
                object("any").to_string().into_bytes()
            };
            Ok::<_, BoxError>(Response::new(Body::from(answer)))
        }
    });
    (ClientBuilder::new(service, "shop").build(), asked)
}

fn object(namespace: &str) -> Value {
    json!({
        "apiVersion": "poolwright.dev/v1alpha1", "kind": "TaskQueue",
        "metadata": {"name": "mail", "namespace": namespace, "uid": namespace, "resourceVersion": "1", "generation": 1},
        "spec": {"broker": {"url": format!("redis://{namespace}:6379/0")}},
    })
}

fn queue(namespace: &str) -> TaskQueue {
    serde_json::from_value(object(namespace)).unwrap()
}

fn wall() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

/// With one TaskQueue in each of these namespaces.
fn controller(client: Client, namespaces: &[&str]) -> Controller {
    let world = Arc::new(World::default());
    for namespace in namespaces {
        world.queues.put(queue(namespace));
    }
    Controller {
        events: Arc::new(Events::new(client.clone())),
        client,
        world,
        board: Arc::default(),
        latest: Arc::default(),
        metrics: Arc::default(),
        budget: Arc::new(Budget::new(10)),
        clock: Clock::new(wall),
    }
}

/// So many messages are in the unnamed queue of this namespace's broker.
fn show(controller: &Controller, namespace: &str, stray: u64) {
    let id = Past::default().broker_id(&queue(namespace));
    let view = BrokerView {
        address: format!("redis://{namespace}:6379/0"),
        stray,
        ..BrokerView::default()
    };
    controller.board.publish(&id, view);
}

/// How many events of stray messages have come by now.
async fn told(asked: &Asked) -> usize {
    sleep(Duration::from_secs(1)).await;
    let asked = asked.lock().unwrap();
    let events = asked.iter().filter(|(path, _)| path.ends_with("/events"));
    events
        .filter(|(_, body)| body["reason"] == "QueueUnknown")
        .count()
}

#[tokio::test(start_paused = true)]
async fn stray_messages_that_come_and_go_are_told_once() {
    let (client, asked) = server(false);
    let controller = controller(client, &["shop"]);
    let mut past = Past::default();
    for round in 1..=100 {
        for stray in [round, 0] {
            show(&controller, "shop", stray);
            controller.look(&mut past, 0).await;
            advance(TICK).await;
        }
    }
    assert_eq!(told(&asked).await, 1);
    advance(stray::OVER).await;
    controller.look(&mut past, 0).await;
    assert_eq!(told(&asked).await, 1, "none is there");
    show(&controller, "shop", 7);
    controller.look(&mut past, 0).await;
    assert_eq!(told(&asked).await, 2, "it had been over for long");
    advance(stray::OVER / 2).await;
    controller.look(&mut past, 0).await;
    advance(stray::OVER / 2).await;
    controller.look(&mut past, 0).await;
    assert_eq!(told(&asked).await, 2, "they have been there all the time");
}

#[tokio::test(start_paused = true)]
async fn an_event_that_is_not_answered_holds_up_no_status() {
    let (client, asked) = server(true);
    let controller = controller(client, &["busy", "quiet"]);
    show(&controller, "busy", 3);
    let mut past = Past::default();
    let look = timeout(Duration::from_secs(5), controller.look(&mut past, 0)).await;
    assert!(look.is_ok(), "it waits for an event");
    assert_eq!(told(&asked).await, 1);
    let asked = asked.lock().unwrap();
    for namespace in ["busy", "quiet"] {
        let path = format!("/namespaces/{namespace}/taskqueues/mail/status");
        assert!(asked.iter().any(|(asked, _)| asked.ends_with(&path)), "{path}");
    }
}

/// Each write would be refused, since there is something newer, and others wait for their turn in the budget.
#[tokio::test(start_paused = true)]
async fn of_a_queue_that_was_known_and_nobody_can_read_any_more_nothing_is_written() {
    let (client, asked) = server(false);
    let controller = controller(client, &["shop", "quiet"]);
    let mut newer = object("shop");
    newer["spec"]["broker"] = json!(7);
    let newer: Lenient<TaskQueue> = serde_json::from_value(newer).unwrap();
    controller.world.queues.pass(&newer.open().unwrap_err());
    controller.look(&mut Past::default(), 0).await;
    let asked = asked.lock().unwrap();
    let written: Vec<&str> = asked
        .iter()
        .filter_map(|(path, _)| path.strip_suffix("/taskqueues/mail/status")?.rsplit('/').next())
        .collect();
    assert_eq!(written, ["quiet"]);
}
