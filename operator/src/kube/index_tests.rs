//! What is kept, and who is told of what.

use std::convert::Infallible;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::Uri;
use futures::stream;
use k8s_openapi::api::core::v1::Pod;
use kube::core::Status;
use poolwright_api::v1alpha1::TaskQueue;
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::*;
use crate::kube::gaps::Gaps;
use crate::kube::lenient::Lenient;
use crate::kube::{serving, ungated, watching};

fn pod(name: &str, pool: Option<&str>, version: u32) -> Pod {
    let labels = pool.map(|pool| json!({"pool": pool}));
    let metadata = json!({"name": name, "namespace": "n", "labels": labels, "generation": version});
    serde_json::from_value(json!({"metadata": metadata})).unwrap()
}

#[test]
fn a_kind_that_the_server_does_not_know_is_named_with_the_remedy() {
    let failed = |code| {
        let status = Status::failure("page", "NotFound").with_code(code);
        watcher::Error::InitialListFailed(kube::Error::Api(Box::new(status)))
    };
    let removed = match failed(404) {
        watcher::Error::InitialListFailed(error) => watcher::Error::WatchStartFailed(error),
        other => other,
    };
    for error in [failed(404), removed] {
        let told = words::<poolwright_api::v1alpha1::TaskQueue>(&error);
        assert!(
            told.contains("taskqueues.poolwright.dev") && told.contains("kubectl apply -f crds/"),
            "{told}"
        );
    }
    let told = words::<poolwright_api::v1alpha1::TaskQueue>(&failed(403));
    assert!(told.contains("page") && !told.contains("crds"), "{told}");
}

fn index() -> Index<Pod, i64> {
    let pool = |pod: &Pod| pod.metadata.labels.as_ref()?.get("pool").cloned();
    Index::new(pool, |pod| pod.metadata.generation.unwrap_or_default())
}

fn told(changes: Vec<Change<i64>>) -> Vec<(String, Option<i64>, Option<i64>)> {
    let bare = |kept: Option<Arc<i64>>| kept.map(|kept| *kept);
    let one = |(group, before, after): Change<i64>| (group.1, bare(before), bare(after));
    changes.into_iter().map(one).collect()
}

fn members(index: &Index<Pod, i64>, pool: &str) -> Vec<i64> {
    index.group("n", pool).iter().map(|kept| **kept).collect()
}

#[test]
fn an_object_is_in_one_group_whatever_becomes_of_its_label() {
    let index = index();
    let change = |pool: &str, before, after| (pool.to_owned(), before, after);
    assert_eq!(
        told(index.insert(pod("b", Some("w"), 1))),
        [change("w", None, Some(1))]
    );
    assert_eq!(
        told(index.insert(pod("a", Some("w"), 2))),
        [change("w", None, Some(2))]
    );
    assert_eq!(members(&index, "w"), [2, 1], "in name order");
    assert_eq!(
        told(index.insert(pod("b", Some("w"), 3))),
        [change("w", Some(1), Some(3))]
    );
    let moved = told(index.insert(pod("b", Some("debug"), 4)));
    assert_eq!(
        moved,
        [change("w", Some(3), None), change("debug", None, Some(4))]
    );
    assert_eq!(
        (members(&index, "w"), members(&index, "debug")),
        (vec![2], vec![4])
    );
    // It goes from where it is, with whatever label it goes.
    assert_eq!(
        told(index.remove(pod("b", Some("w"), 5).meta())),
        [change("debug", Some(4), None)]
    );
    assert_eq!(
        told(index.insert(pod("a", None, 6))),
        [change("w", Some(2), None)]
    );
    assert!(index.all(None).is_empty() && index.lock().places.is_empty());
}

#[test]
fn objects_are_found_by_what_they_name_now() {
    let own = |pod: &Pod| pod.metadata.name.clone();
    let index = Index::new(own, |pod: Pod| pod).naming(|pod| {
        let labels = pod.metadata.labels.iter().flatten();
        labels.map(|(_, value)| value.clone()).collect()
    });
    let naming = |named: &str| -> Vec<String> {
        let all = index.that_name("n", named);
        all.iter().filter_map(|pod| pod.metadata.name.clone()).collect()
    };
    index.insert(pod("b", Some("q"), 1));
    index.insert(pod("a", Some("q"), 1));
    index.insert(pod("c", Some("qq"), 1));
    assert_eq!(
        (naming("q"), naming("qq")),
        (vec!["a".to_owned(), "b".into()], vec!["c".to_owned()])
    );
    index.insert(pod("b", Some("qq"), 2));
    assert_eq!((naming("q").len(), naming("qq").len()), (1, 2));
    index.remove(pod("a", Some("q"), 3).meta());
    assert_eq!((naming("q").len(), naming("").len()), (0, 0));
    index.insert(pod("b", None, 4));
    assert_eq!(naming("qq"), ["c"]);
    index.keep(None, &BTreeSet::new());
    assert!(index.lock().named.is_empty());
}

#[test]
fn what_a_new_list_does_not_name_is_gone() {
    let index = index();
    for (name, pool) in [("a", "w"), ("b", "w"), ("c", "c")] {
        index.insert(pod(name, Some(pool), 1));
    }
    let listed = BTreeSet::from([(("n".to_owned(), "w".to_owned()), "b".to_owned())]);
    assert!(index.keep(Some("other"), &listed).is_empty());
    let group = |name: &str| ("n".to_owned(), name.to_owned());
    assert_eq!(index.keep(None, &listed), [group("c"), group("w")]);
    assert_eq!((index.all(None).len(), index.lock().places.len()), (1, 1));
    assert!(index.get("n", "c").is_none());
}

/// A TaskQueue of this name whose broker is somewhere, or something that cannot be read.
fn queue(name: &str, broker: &Value) -> Value {
    json!({"apiVersion": "poolwright.dev/v1alpha1", "kind": "TaskQueue",
        "metadata": {"namespace": "n", "name": name, "uid": name}, "spec": {"broker": broker}})
}

fn queues() -> Index<TaskQueue> {
    Index::new(
        |queue: &TaskQueue| queue.metadata.name.clone(),
        |queue: TaskQueue| queue,
    )
    .identified(|queue| queue.metadata.uid.clone())
}

#[test]
fn what_cannot_be_read_is_known_beside_what_is_kept_until_it_can_be_read_or_is_gone() {
    let index = queues();
    let read = |broker: &Value| {
        let queue: Lenient<TaskQueue> = serde_json::from_value(queue("q", broker)).unwrap();
        queue.open()
    };
    let good = || read(&json!({"url": "redis://broker:6379/0"})).unwrap();
    let bad = read(&json!(7)).unwrap_err();
    let group = ("n".to_owned(), "q".to_owned());
    let is_known = |index: &Index<TaskQueue>| {
        let kept = index.get("n", "q").is_some();
        (
            kept,
            index.unreadable("n", "q").is_some(),
            index.all_unreadable(None).len(),
        )
    };
    assert_eq!(index.pass(&bad), (group.clone(), true));
    assert_eq!(index.pass(&bad), (group.clone(), false), "it was told");
    assert_eq!(is_known(&index), (false, true, 1));
    index.insert(good());
    assert_eq!(is_known(&index), (true, false, 0));
    index.pass(&bad);
    assert_eq!(is_known(&index), (true, true, 1), "what was known stays");
    let listed = BTreeSet::from([(group.clone(), "q".to_owned())]);
    assert!(index.keep(None, &listed).is_empty());
    assert_eq!(is_known(&index), (true, true, 1));
    assert!(!index.keep(None, &BTreeSet::new()).is_empty());
    assert_eq!(is_known(&index), (false, false, 0));
    // A new list may show another of the name, whose predecessor nobody has said to be gone.
    index.pass(&bad);
    index.insert(good());
    index.pass(&bad);
    let mut another = bad.clone();
    another.metadata.uid = Some("another".to_owned());
    assert_eq!(index.pass(&another), (group.clone(), true));
    assert_eq!(
        is_known(&index),
        (false, true, 1),
        "what was known was of another"
    );
    let queue = good();
    let told = index.remove(queue.meta());
    assert_eq!(told.len(), 1, "nothing was kept, and it is news");
    assert_eq!(told[0].0, group);
    assert!(index.remove(queue.meta()).is_empty() && index.all_unreadable(None).is_empty());
    // Nobody is to go by what another process looks after.
    let shard = Shard::selected();
    let index = queues().within(shard.clone());
    index.pass(&bad);
    assert_eq!(is_known(&index), (false, false, 0));
    shard.open("n");
    assert_eq!(is_known(&index), (false, true, 1));
}

#[tokio::test]
async fn one_that_cannot_be_read_is_told_of_and_hides_no_other() {
    let answer = |uri: Uri| async move {
        if uri.query().is_some_and(|query| query.contains("watch=true")) {
            return Body::from_stream(stream::pending::<Result<Bytes, Infallible>>());
        }
        let items = [
            queue("bad", &json!(7)),
            queue("good", &json!({"url": "redis://broker:6379/0"})),
        ];
        let list = json!({"apiVersion": "poolwright.dev/v1alpha1", "kind": "TaskQueueList",
            "metadata": {"resourceVersion": "1"}, "items": items});
        Body::from(list.to_string())
    };
    let client = ungated(serving(Router::new().fallback(answer)).await).unwrap();
    let index = Arc::new(queues());
    let (told, ready) = (Mutex::new(Vec::new()), Notify::new());
    let follows = follow(
        Api::<Lenient<TaskQueue>>::all(client),
        watching(),
        (None, Gaps::default().of::<TaskQueue>(None)),
        (Arc::clone(&index), Lenient::read),
        || ready.notify_one(),
        |group, _, _| told.lock().unwrap().push(group.1.clone()),
    );
    let limit = tokio::time::sleep(std::time::Duration::from_secs(20));
    tokio::select! {
        () = ready.notified() => {}
        () = follows => panic!("it ended"),
        () = limit => panic!("it was not listed"),
    }
    assert_eq!(*told.lock().unwrap(), ["bad", "good"]);
    assert!(index.unreadable("n", "bad").is_some() && index.get("n", "bad").is_none());
    assert!(index.unreadable("n", "good").is_none() && index.get("n", "good").is_some());
}

#[test]
fn what_is_in_no_namespace_of_the_shard_is_kept_and_not_shown() {
    let shard = Shard::selected();
    let index = index().within(shard.clone());
    index.insert(pod("a", Some("w"), 1));
    index.insert(pod("w", Some("w"), 2));
    let shown = |index: &Index<Pod, i64>| {
        let one = index.get("n", "w").map(|kept| *kept);
        (
            members(index, "w"),
            one,
            index.all(None).len(),
            index.all(Some("n")).len(),
        )
    };
    assert_eq!(shown(&index), (vec![], None, 0, 0));
    assert_eq!((index.hidden("n").len(), index.hidden("o").len()), (2, 0));
    assert_eq!(index.groups("n"), [("n".to_owned(), "w".to_owned())]);
    shard.open("n");
    assert_eq!(shown(&index), (vec![1, 2], Some(2), 2, 2));
    shard.close("n");
    assert_eq!(shown(&index), (vec![], None, 0, 0));
    index.forget("n");
    assert!(index.hidden("n").is_empty() && index.groups("n").is_empty());
}
