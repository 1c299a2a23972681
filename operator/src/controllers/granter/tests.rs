//! What a Pool that cannot be read, or whose status cannot be written, costs the others: before a server that has Pools and
//! no workers.

use http::{Method, Request, Response};
use kube::client::{Body, ClientBuilder};
use poolwright_core::pool_status::Figures;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};
use tower::{BoxError, service_fn};

use super::*;

/// More slots than the type takes, as a newer definition may allow.
const BEYOND: u64 = 3_000_000_000;

/// A Pool whose status grants 4 slots to the WorkerPool `old`.
fn pool(name: &str, slots: u64) -> Value {
    json!({
        "apiVersion": "poolwright.dev/v1alpha1", "kind": "Pool",
        "metadata": {"namespace": "n", "name": name, "uid": name, "resourceVersion": "1", "generation": 1},
        "spec": {"slots": slots},
        "status": {"poolUid": name, "slots": 10, "epoch": 1, "holders": [
            {"workerPool": "old", "uid": "old", "granted": 4, "used": 0, "epoch": 1}]},
    })
}

fn read_pool(pool: Value) -> Pool {
    serde_json::from_value(pool).unwrap()
}

#[derive(Default)]
struct Server {
    pools: BTreeMap<String, Value>,
    /// Method and path of each request.
    asked: Vec<String>,
    /// Every write of a status comes too late.
    is_ahead: bool,
}

impl Server {
    fn answer(&mut self, method: &Method, path: &str, body: &Value) -> (u16, Value) {
        self.asked.push(format!("{method} {path}"));
        let failure = |code: u16, reason: &str| {
            let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                "message": reason, "reason": reason, "code": code});
            (code, status)
        };
        if !path.contains("/pools") {
            return (
                200,
                json!({"kind": "List", "apiVersion": "v1", "metadata": {}, "items": []}),
            );
        }
        let name = path.split("/pools/").nth(1).unwrap_or_default();
        let name = name.trim_end_matches("/status");
        let is_ahead = self.is_ahead;
        let Some(pool) = self.pools.get_mut(name) else {
            return failure(404, "NotFound");
        };
        if *method == Method::PATCH {
            if is_ahead || body["metadata"]["resourceVersion"] != pool["metadata"]["resourceVersion"] {
                return failure(409, "Conflict");
            }
            let status = pool["status"].as_object_mut().unwrap();
            for (field, value) in body["status"].as_object().unwrap() {
                status.remove(field);
                if !value.is_null() {
                    status.insert(field.clone(), value.clone());
                }
            }
            pool["metadata"]["resourceVersion"] = json!("2");
        }
        (200, pool.clone())
    }

    /// Slots that a Pool grants, by WorkerPool.
    fn granted(&self, pool: &str) -> BTreeMap<String, i64> {
        let pool = read_pool(self.pools[pool].clone());
        let holders = pool.status.unwrap_or_default().holders.into_iter();
        holders.map(|holder| (holder.uid, holder.granted)).collect()
    }

    fn writes(&self) -> usize {
        self.asked
            .iter()
            .filter(|asked| !asked.starts_with("GET"))
            .count()
    }
}

fn server(pools: impl IntoIterator<Item = Value>) -> (Client, Arc<Mutex<Server>>) {
    let name = |pool: &Value| pool["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let server = Arc::new(Mutex::new(Server {
        pools: pools.into_iter().map(|pool| (name(&pool), pool)).collect(),
        ..Server::default()
    }));
    let asked = Arc::clone(&server);
    let service = service_fn(move |request: Request<Body>| {
        let server = Arc::clone(&asked);
        async move {
            let (method, path) = (request.method().clone(), request.uri().path().to_owned());
            let bytes = request.into_body().collect_bytes().await?.to_vec();
            let body = serde_json::from_slice(&bytes).unwrap_or_default();
            let (code, answer) = server.lock().unwrap().answer(&method, &path, &body);
            let answer = Body::from(answer.to_string().into_bytes());
            Ok::<_, BoxError>(Response::builder().status(code).body(answer)?)
        }
    });
    (ClientBuilder::new(service, "n").build(), server)
}

fn context(client: Client) -> Context {
    let world = Arc::new(World::default());
    let (grants, _asked) = Grants::new(Arc::clone(&world));
    Context {
        events: Arc::new(Events::new(client.clone())),
        client,
        world,
        latest: Arc::default(),
        grants,
        metrics: Arc::default(),
        budget: Arc::new(Budget::new(10)),
        links: Arc::default(),
        default_slots: 128,
        clock: Clock::new(|| jiff::Timestamp::UNIX_EPOCH),
    }
}

/// The watch shows this Pool, which cannot be read.
fn pass(world: &World, pool: Value) {
    let pool: Lenient<Pool> = serde_json::from_value(pool).unwrap();
    world.budgets.pass(&pool.open().unwrap_err());
}

/// Looks after Pools for so many ticks.
async fn look(keeper: &mut keep::Keeper, ticks: usize) {
    for _ in 0..ticks {
        keeper.look();
        let end = Instant::now() + TICK;
        while timeout_at(end, keeper.finished()).await.is_ok() {}
    }
}

#[tokio::test]
async fn a_pool_that_cannot_be_read_is_refused_alone() {
    let (client, server) = server([pool("a", BEYOND), pool("b", 10)]);
    let context = context(client);
    let (mut questions, mut answers) = (Vec::new(), Vec::new());
    for (worker_pool, pools) in [("one", vec!["a"]), ("two", vec!["b"]), ("both", vec!["a", "b"])] {
        let ask = Ask {
            namespace: "n".to_owned(),
            uid: worker_pool.to_owned(),
            worker_pool: worker_pool.to_owned(),
            slots: pools.into_iter().map(|pool| (pool.to_owned(), 3)).collect(),
        };
        let (answer, answered) = oneshot::channel();
        questions.push((ask, answer));
        answers.push(answered);
    }
    raise::round(&context, "n", questions).await;
    let mut told = Vec::new();
    for answered in answers {
        told.push(answered.await.unwrap());
    }
    assert!(told[1].is_ok(), "{told:?}");
    for refused in [&told[0], &told[2]] {
        let why = refused.clone().unwrap_err();
        let words = why.to_string();
        for part in ["Pool \"a\" cannot be read", "correct it", "3000000000"] {
            assert!(words.contains(part), "{words}");
        }
        assert!(
            matches!(Failure::from(why), Failure::NoRoom(_)),
            "it is asked for again"
        );
    }
    let granted = server.lock().unwrap().granted("b");
    assert_eq!(
        granted,
        BTreeMap::from([("old".to_owned(), 4), ("two".to_owned(), 3)])
    );
}

#[tokio::test]
async fn beside_a_pool_that_cannot_be_read_others_are_released_and_counted() {
    let mut unknown = pool("c", 10);
    unknown["status"] = json!({});
    let (client, server) = server([pool("a", BEYOND), pool("b", 10), unknown]);
    let context = context(client);
    let old = BTreeSet::from(["old".to_owned()]);
    let all: release::Candidates = ["a", "b"].map(|name| (name.to_owned(), old.clone())).into();
    let lowered = release::release(&context, "n", &all, (&all, &all)).await.unwrap();
    assert_eq!(lowered, BTreeSet::from(["b".to_owned()]));
    assert!(server.lock().unwrap().granted("b").is_empty(), "it has no pods");
    for (name, is_written) in [("a", false), ("c", true)] {
        let rebuilt = release::rebuild(&context, "n", name, true).await.unwrap();
        assert_eq!(rebuilt, is_written, "{name}");
    }
    let server = server.lock().unwrap();
    assert_eq!(server.pools["c"]["status"]["poolUid"], "c");
    assert_eq!(
        server.pools["a"],
        pool("a", BEYOND),
        "what it grants is left as it is"
    );
}

/// Neither the one that every namespace gets is made once more, nor is one counted or reported on by what it was before.
#[tokio::test(start_paused = true)]
async fn of_a_pool_that_the_watch_shows_and_nobody_can_read_nothing_is_asked() {
    let (client, server) = server([pool(poolwright_api::DEFAULT_POOL, BEYOND), pool("b", BEYOND)]);
    let context = Arc::new(context(client));
    let queue = json!({
        "apiVersion": "poolwright.dev/v1alpha1", "kind": "TaskQueue",
        "metadata": {"namespace": "n", "name": "q", "uid": "q"},
        "spec": {"broker": {"url": "redis://broker:6379/0"}},
    });
    context.world.queues.put(serde_json::from_value(queue).unwrap());
    let figures = BTreeMap::from([(("n".to_owned(), "b".to_owned()), Figures::default())]);
    context.latest.show_budgets(figures);
    context.world.budgets.put(read_pool(pool("b", 10)));
    pass(&context.world, pool("b", BEYOND));
    pass(&context.world, pool(poolwright_api::DEFAULT_POOL, BEYOND));
    look(&mut keep::Keeper::new(Arc::clone(&context)), 8).await;
    assert_eq!(server.lock().unwrap().asked, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_status_that_cannot_be_written_is_tried_less_and_less_until_its_pool_changes() {
    let (client, server) = server([pool("b", 10)]);
    server.lock().unwrap().is_ahead = true;
    let context = Arc::new(context(client));
    let figures = BTreeMap::from([(("n".to_owned(), "b".to_owned()), Figures::default())]);
    context.latest.show_budgets(figures);
    context.world.budgets.put(read_pool(pool("b", 10)));
    let mut keeper = keep::Keeper::new(Arc::clone(&context));
    look(&mut keeper, 40).await;
    let tried = server.lock().unwrap().writes();
    assert!((3..=5).contains(&tried), "{tried} times in ten seconds");
    // What the watch shows now is newer, and so may be what is written; where it is not, the pauses are short again.
    let newer = |version: &str| {
        let mut newer = pool("b", 10);
        newer["metadata"]["resourceVersion"] = json!(version);
        newer
    };
    context.world.budgets.put(read_pool(newer("2")));
    look(&mut keeper, 8).await;
    let again = server.lock().unwrap().writes();
    assert_eq!(again, tried + 2, "within two seconds");
    let newer = newer("3");
    context.world.budgets.put(read_pool(newer.clone()));
    {
        let mut server = server.lock().unwrap();
        server.is_ahead = false;
        server.pools.insert("b".to_owned(), newer);
    }
    look(&mut keeper, 1).await;
    let server = server.lock().unwrap();
    assert_eq!(server.writes(), again + 1);
    assert!(server.pools["b"]["status"]["conditions"].is_array());
}

/// What would be reported of it beside that goes by the Pool as it was before, and is refused.
#[tokio::test(start_paused = true)]
async fn a_pool_that_is_new_is_written_once() {
    let mut new = pool("b", 10);
    new["status"] = json!({});
    let (client, server) = server([new.clone()]);
    let context = Arc::new(context(client));
    let figures = BTreeMap::from([(("n".to_owned(), "b".to_owned()), Figures::default())]);
    context.latest.show_budgets(figures);
    context.world.budgets.put(read_pool(new));
    look(&mut keep::Keeper::new(Arc::clone(&context)), 1).await;
    assert_eq!(server.lock().unwrap().writes(), 1);
}

#[tokio::test(start_paused = true)]
async fn no_number_is_told_of_a_pool_that_nobody_can_read_any_more() {
    let (client, _server) = server([pool("b", 10)]);
    let context = Arc::new(context(client));
    let figures = BTreeMap::from([(("n".to_owned(), "b".to_owned()), Figures::default())]);
    context.latest.show_budgets(figures);
    context.world.budgets.put(read_pool(pool("b", 10)));
    let mut keeper = keep::Keeper::new(Arc::clone(&context));
    let is_told = || context.metrics.render().contains(r#"name="b""#);
    look(&mut keeper, 1).await;
    assert!(is_told());
    pass(&context.world, pool("b", BEYOND));
    look(&mut keeper, 1).await;
    assert!(!is_told());
}
