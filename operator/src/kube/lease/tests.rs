//! Two candidates and a server that is slow, refuses, or is written to by others: never do both write.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{Method, Request, Response};
use jiff::Timestamp;
use kube::Client;
use kube::client::{Body, ClientBuilder};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tower::{BoxError, service_fn};

use super::step::Timing;
use super::{Elector, Lost, Name};
use crate::gate::Gate;

const SECOND: Duration = Duration::from_secs(1);

/// The one Lease of a server, and how the server is.
#[derive(Default)]
struct State {
    lease: Option<Value>,
    version: u64,
    /// How long a request takes to get there, and its answer to come back.
    slow: (Duration, Duration),
    /// Every request is answered by this.
    refuses: Option<(u16, &'static str)>,
    seed: Option<fastrand::Rng>,
}

impl State {
    fn put(&mut self, mut lease: Value) -> Value {
        self.version += 1;
        lease["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.lease.insert(lease).clone()
    }

    fn answer(&mut self, method: &Method, body: &[u8]) -> (u16, Value) {
        if let Some((code, message)) = self.refuses {
            return (code, json!(message));
        }
        let sent = serde_json::from_slice(body).unwrap_or(Value::Null);
        match (method, self.lease.clone()) {
            (&Method::GET, Some(lease)) => (200, lease),
            (&Method::POST, None) => (201, self.put(sent)),
            (&Method::POST, Some(_)) => (409, json!("exists")),
            (&Method::PUT, Some(lease)) => {
                if lease["metadata"]["resourceVersion"] != sent["metadata"]["resourceVersion"] {
                    return (409, json!("conflict"));
                }
                (200, self.put(sent))
            }
            _ => (404, json!("not found")),
        }
    }
}

type Server = Arc<Mutex<State>>;

/// What `slow` is for one request: as it stands there, or by chance up to that.
fn slow(server: &Server) -> (Duration, Duration) {
    let mut state = server.lock().unwrap();
    let (before, after) = state.slow;
    match &mut state.seed {
        Some(rng) => (
            before.mul_f64(rng.f64().powi(4)),
            after.mul_f64(rng.f64().powi(4)),
        ),
        None => (before, after),
    }
}

fn client(server: &Server) -> Client {
    let server = Arc::clone(server);
    let service = service_fn(move |request: Request<Body>| {
        let server = Arc::clone(&server);
        // A request that was sent arrives, whoever has given up waiting for the answer.
        let handled = tokio::spawn(async move {
            let (method, body) = (
                request.method().clone(),
                request.into_body().collect_bytes().await?,
            );
            let (before, after) = slow(&server);
            sleep(before).await;
            let (code, answer) = server.lock().unwrap().answer(&method, &body);
            sleep(after).await;
            let answer = match code {
                200 | 201 => answer,
                _ => json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                    "reason": if code == 404 { "NotFound" } else { "Other" }, "message": answer, "code": code}),
            };
            let response = Response::builder().status(code);
            Ok::<_, BoxError>(response.body(Body::from(answer.to_string().into_bytes()))?)
        });
        async move { handled.await? }
    });
    ClientBuilder::new(service, "ns").build()
}

/// A candidate that runs until it has lost.
struct Runs {
    gate: Gate,
    task: JoinHandle<Lost>,
    trouble: super::Trouble,
}

impl Runs {
    fn start(server: &Server, identity: &str, seconds: u32) -> Self {
        let gate = Gate::shut();
        let mut elector = elector(server, identity, seconds, &gate);
        let trouble = elector.trouble();
        let task = tokio::spawn(async move {
            elector.acquire().await;
            elector.hold().await
        });
        Self { gate, task, trouble }
    }

    async fn leads(&self) {
        timeout(SECOND * 400, async {
            while !self.gate.is_open() {
                sleep(SECOND / 100).await;
            }
        })
        .await
        .expect("it leads");
    }

    fn kill(&self) {
        self.task.abort();
    }
}

fn elector(server: &Server, identity: &str, seconds: u32, gate: &Gate) -> Elector {
    elector_of(server, identity, "all namespaces", seconds, gate)
}

fn elector_of(server: &Server, identity: &str, scope: &str, seconds: u32, gate: &Gate) -> Elector {
    let name = Name {
        namespace: "ns".to_owned(),
        name: "lease".to_owned(),
    };
    let wall = || Timestamp::from_second(1_795_000_000).unwrap();
    Elector::new(
        client(server),
        name,
        identity.to_owned(),
        scope.to_owned(),
        Timing::of(seconds),
        gate.clone(),
        wall,
    )
}

fn field(server: &Server, name: &str) -> Value {
    server
        .lock()
        .unwrap()
        .lease
        .as_ref()
        .map_or(Value::Null, |lease| lease["spec"][name].clone())
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_is_gone_is_replaced_after_the_duration() {
    let server = Server::default();
    let one = Runs::start(&server, "one", 15);
    one.leads().await;
    let two = Runs::start(&server, "two", 15);
    sleep(SECOND * 100).await;
    assert!(one.gate.is_open() && !two.gate.is_open());
    one.kill();
    let since = Instant::now();
    two.leads().await;
    let took = since.elapsed();
    // Renewed up to 2 s before; seen by the next look, waited for, and taken by the look after that.
    assert!(took > SECOND * 12 && took < SECOND * 18, "{took:?}");
    assert_eq!(field(&server, "holderIdentity"), "two");
    assert_eq!(field(&server, "leaseTransitions"), 2);
    assert!(!one.gate.is_open());
}

#[tokio::test(start_paused = true)]
async fn a_released_lease_is_taken_with_the_next_look() {
    let server = Server::default();
    let gate = Gate::shut();
    let mut one = elector(&server, "one", 15, &gate);
    one.acquire().await;
    let two = Runs::start(&server, "two", 15);
    sleep(SECOND * 5).await;
    one.release().await;
    assert!(!gate.is_open());
    let since = Instant::now();
    two.leads().await;
    assert!(since.elapsed() <= SECOND, "{:?}", since.elapsed());
}

#[tokio::test(start_paused = true)]
async fn it_is_released_also_when_a_renewal_was_cut_short() {
    let server = Server::default();
    let gate = Gate::shut();
    let mut one = elector(&server, "one", 15, &gate);
    one.acquire().await;
    server.lock().unwrap().slow = (Duration::ZERO, SECOND);
    assert!(timeout(SECOND * 5 / 2, one.hold()).await.is_err());
    server.lock().unwrap().slow = (Duration::ZERO, Duration::ZERO);
    one.release().await;
    assert_eq!(field(&server, "holderIdentity"), "");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_takes_nine_seconds_for_an_answer_costs_the_lease_and_makes_no_second_leader() {
    let server = Server::default();
    let one = Runs::start(&server, "one", 15);
    one.leads().await;
    let two = Runs::start(&server, "two", 15);
    sleep(SECOND * 3).await;
    server.lock().unwrap().slow = (Duration::ZERO, SECOND * 9);
    let lost = timeout(SECOND * 15, one.task).await.expect("an end").unwrap();
    assert!(matches!(&lost, Lost::Late(..)), "{lost}");
    assert!(lost.to_string().contains("no answer within"), "{lost}");
    assert!(!one.gate.is_open() && !two.gate.is_open());
    server.lock().unwrap().slow = (Duration::ZERO, SECOND * 2);
    two.leads().await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_takes_four_seconds_costs_nothing() {
    let server = Server::default();
    let one = Runs::start(&server, "one", 15);
    one.leads().await;
    server.lock().unwrap().slow = (SECOND * 2, SECOND * 2);
    for _ in 0..1000 {
        sleep(SECOND / 10).await;
        assert!(one.gate.is_open());
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_deleted_or_changed_by_hand_stays_with_its_holder() {
    let server = Server::default();
    let one = Runs::start(&server, "one", 15);
    one.leads().await;
    let two = Runs::start(&server, "two", 15);
    sleep(SECOND * 4).await;
    let with = |change: fn(&mut Value)| {
        let mut state = server.lock().unwrap();
        let mut lease = state.lease.clone().unwrap();
        change(&mut lease);
        state.put(lease);
    };
    for round in 0..4 {
        match round {
            0 => server.lock().unwrap().lease = None,
            1 => with(|lease| lease["metadata"]["labels"] = json!({"team": "a"})),
            2 => with(|lease| lease["spec"]["holderIdentity"] = json!("")),
            _ => with(|lease| lease["spec"] = json!({})),
        }
        sleep(SECOND * 4).await;
        assert_eq!(field(&server, "holderIdentity"), "one", "round {round}");
        assert!(one.gate.is_open() && !two.gate.is_open(), "round {round}");
    }
    assert_eq!(field(&server, "leaseDurationSeconds"), 15);
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_another_has_replaced_stops_at_once() {
    let server = Server::default();
    let one = Runs::start(&server, "one", 15);
    one.leads().await;
    {
        let mut state = server.lock().unwrap();
        let mut lease = state.lease.clone().unwrap();
        lease["spec"]["holderIdentity"] = json!("thief");
        state.put(lease);
    }
    let gate = one.gate.clone();
    let lost = timeout(SECOND * 3, one.task).await.expect("an end").unwrap();
    assert_eq!(lost, Lost::Taken("ns/lease".to_owned(), "thief".to_owned()));
    assert!(!gate.is_open());
}

#[tokio::test(start_paused = true)]
async fn what_keeps_it_from_ever_leading_is_said_and_heals() {
    let server = Server::default();
    for (refusal, words) in [
        (
            (403, "forbidden"),
            "bind it a Role in namespace ns with get, create and update on leases",
        ),
        (
            (404, "namespaces \"ns\" not found"),
            "the namespace of the lease ns/lease does not exist",
        ),
    ] {
        server.lock().unwrap().refuses = Some(refusal);
        let one = Runs::start(&server, "one", 3);
        sleep(SECOND * 10).await;
        let said = one.trouble.borrow().clone().unwrap_or_default();
        assert!(said.contains(words), "{said}");
        assert!(!one.gate.is_open());
        server.lock().unwrap().refuses = None;
        one.leads().await;
        assert_eq!(*one.trouble.borrow(), None);
        one.kill();
        server.lock().unwrap().lease = None;
    }
}

/// What was logged, as text.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let mut text = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn who_stands_by_for_an_operator_of_other_namespaces_says_so_once() {
    // With one subscriber alone, `tracing` asks that of the thread that comes to a line first, which is another
    // test's and has none: the line would be silent here too.
    let _beside = tracing::Dispatch::new(tracing::subscriber::NoSubscriber::new());
    for (scope, warnings) in [
        ("all namespaces", 0),
        ("the namespaces whose labels match shard=b", 1),
    ] {
        let (server, log) = (Server::default(), Log::default());
        let one = Runs::start(&server, "one", 15);
        one.leads().await;
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(move || writer.clone());
        let _said = tracing::subscriber::set_default(subscriber.finish());
        let gate = Gate::shut();
        let mut two = elector_of(&server, "two", scope, 15, &gate);
        assert!(timeout(SECOND * 60, two.acquire()).await.is_err());
        let said = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        assert!(said.contains("the lease is held by one"), "{said}");
        let warned: Vec<&str> = said.lines().filter(|line| line.contains("WARN")).collect();
        assert_eq!(warned.len(), warnings, "{said}");
        let all = [
            "is held by one, which works in all namespaces",
            scope,
            "--lease of its own",
        ];
        assert!(
            warned
                .iter()
                .all(|line| all.iter().all(|words| line.contains(words))),
            "{said}"
        );
        one.kill();
    }
}

#[test]
fn a_scope_is_equal_where_the_namespaces_are() {
    let of = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        super::scope(&names, None)
    };
    assert_eq!(of(&["b", "a", "b"]), of(&["a", "b"]));
    assert_eq!(of(&[]), "all namespaces");
    assert_ne!(of(&["a"]), of(&["a", "b"]));
    let selector = "team in (b,a)".parse().unwrap();
    let other = "team in (a,b)".parse().unwrap();
    assert_eq!(
        super::scope(&[], Some(&selector)),
        super::scope(&[], Some(&other))
    );
    let many: Vec<String> = (0..1000).map(|n| format!("namespace-{n}")).collect();
    assert_eq!(super::scope(&many, None).chars().count(), super::SCOPE_MAX);
}

#[tokio::test(start_paused = true)]
async fn whatever_is_slow_or_dies_never_do_two_write() {
    let (mut changes, mut reigns) = (0, 0);
    for seed in 0..25 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let server = Server::default();
        server.lock().unwrap().seed = Some(rng.fork());
        let seconds = [3, 5, 15, 30];
        let mut all: Vec<Runs> = Vec::new();
        for _ in 0..1200 {
            while all.len() < 3 {
                changes += 1;
                all.push(Runs::start(
                    &server,
                    &format!("c{changes}"),
                    seconds[rng.usize(..4)],
                ));
            }
            sleep(SECOND / 10).await;
            let open = all.iter().filter(|one| one.gate.is_open()).count();
            assert!(open <= 1, "{open} write at once with seed {seed}");
            reigns += open;
            let mut state = server.lock().unwrap();
            match rng.u32(..200) {
                0 => state.slow = (SECOND * rng.u32(..12), SECOND * rng.u32(..12)),
                1 | 2 => state.slow = (Duration::ZERO, Duration::ZERO),
                3 => state.refuses = Some((503, "busy")),
                4..8 => state.refuses = None,
                8 => {
                    if let Some(mut lease) = state.lease.clone() {
                        lease["spec"]["holderIdentity"] = json!("");
                        state.put(lease);
                    }
                }
                9 => all[rng.usize(..3)].kill(),
                _ => {}
            }
            drop(state);
            all.retain(|one| !one.task.is_finished());
        }
        all.iter().for_each(Runs::kill);
        sleep(SECOND).await;
    }
    println!("{changes} candidates, {} s of reign", reigns / 10);
    assert!(
        changes > 80 && reigns > 9_000,
        "{changes} candidates, {reigns} looks at a leader"
    );
}
